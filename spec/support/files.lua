-- For specs of makefile and sendfile: pairs of sockets, files on them, streams that come in pieces.

local socket = require "socket"
local support = require "spec.support"

local M = {}

M.PAIRS = {
  ["a Unix stream"] = socket.socketpair,
  TCP = function() return support.tcp() end,
}

-- Two connected sockets, closed after the test.
function M.pair(kind) return support.keep(M.PAIRS[kind or "a Unix stream"]()) end

-- The process at the other end, which does not outlive a test that fails.
function M.peer(s, code) return support.peer(s, "s:settimeout(10) " .. code) end

-- A file on one end, the other end, and the end it is on.
function M.open(mode, size, kind)
  local a, b = M.pair(kind)
  return b:makefile(mode, size), a, b
end

-- A file on a stream of these bytes, and no more.
function M.file_of(bytes, size)
  local f, a = M.open("r", size)
  a:sendall(bytes):shutdown(socket.SHUT_WR)
  return f
end

-- The same as a file of Lua's.
function M.lua_file(bytes)
  local f = io.tmpfile()
  f:write(bytes)
  f:seek "set"
  return f
end

-- Runs f in a coroutine whose every wait to read makes `more` happen.
function M.feeding(more, f, ...)
  socket.setwaithook(function(_, direction)
    assert(direction == "r")
    more()
    return true
  end)
  local co = coroutine.create(f)
  local r = table.pack(coroutine.resume(co, ...))
  socket.setwaithook(nil)
  assert(coroutine.status(co) == "dead")
  assert(r[1], r[2])
  return table.unpack(r, 2, r.n)
end

-- A function that sends one more piece of the bytes each time, of at most `most`, and then ends the stream.
function M.feeder(s, bytes, most)
  local i = 1
  return function()
    if i > #bytes then
      s:shutdown(socket.SHUT_WR)
    else
      local n = most > 1 and math.random(most) or 1
      s:sendall(bytes:sub(i, i + n - 1))
      i = i + n
    end
  end
end

return M
