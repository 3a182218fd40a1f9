-- Every method of every kind of object is offered the objects of all other kinds. The debug library can call any
-- method with anything; memory of one kind read as another's would crash the program.

local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"
local ssl = require "socket.ssl"
local selectors = require "socket.selectors"
local keep = support.keep

-- A received item with descriptors, which has a kind of its own.
local function descriptors()
  local a, b = keep(socket.socketpair())
  socket.send_fds(a, "x", {a})
  local _, items = b:recvmsg(1, socket.CMSG_SPACE(4))
  return items[1]
end

local function secured()
  local client, server = tls.client(), tls.server()
  local to, from = ssl.MemoryBIO(), ssl.MemoryBIO()
  local c = client:wrap_bio(from, to, {server_hostname = "localhost"})
  local s = server:wrap_bio(to, from, {server_side = true})
  for _ = 1, 4 do c:try_do_handshake() s:try_do_handshake() end
  local options = {server_hostname = "localhost", do_handshake_on_connect = false}
  return {
    context = client, MemoryBIO = to, SSLObject = c, session = c.session,
    ["TLS socket"] = keep(client:wrap_socket(keep(socket.socketpair()), options)),
  }
end

local function objects()
  local a = keep(socket.socketpair())
  local reactor = socket.reactor.new(print)
  local buffer = socket.buffer(100)
  local list = {
    socket = a, file = a:makefile("rw"), buffer = buffer, view = buffer:view(2, 3),
    error = select(2, a:try_connect "/no/such/path"),
    selector = selectors.DefaultSelector(), ["poll selector"] = selectors.PollSelector(),
    reactor = reactor, timer = reactor:after(1000, print), descriptors = descriptors(),
    ["Lua file"] = io.stdout, thread = coroutine.create(print),
  }
  for name, object in pairs(secured()) do list[name] = object end
  return list
end

-- The functions that a script can find at an object: in its metatable, in a table __index is or has at hand.
local function functions_of(object)
  local found = {}
  local function add(t)
    for name, f in pairs(t) do
      if type(f) == "function" then found[f] = name end
    end
  end
  local meta = debug.getmetatable(object)
  add(meta)
  if type(meta.__index) == "table" then add(meta.__index) end
  if type(meta.__index) == "function" then
    for i = 1, 8 do
      local _, upvalue = debug.getupvalue(meta.__index, i)
      if type(upvalue) == "table" then add(upvalue) end
    end
  end
  return found
end

-- For __index and __newindex: a field of that kind.
local FIELD = {
  socket = "family", ["TLS socket"] = "context", SSLObject = "context", session = "id", context = "verify_mode",
  MemoryBIO = "pending", error = "errno", descriptors = "data",
}

-- Those that take each other's objects on purpose.
local RELATED = {
  socket = "TLS socket", ["TLS socket"] = "socket", buffer = "view", view = "buffer", selector = "poll selector",
  ["poll selector"] = "selector",
}

-- A TLS socket has the methods of TLS connections, and SSLObject has them too.
local function is_related(kind, other)
  return RELATED[kind] == other or (kind == "TLS socket" and other == "SSLObject") or
    (kind == "SSLObject" and other == "TLS socket")
end

describe("objects of another kind", function()
  local all

  setup(function() all = objects() end)
  teardown(function()
    all.file:close()
    all.selector:close()
    all.reactor:close()
    all = nil
    support.close_kept()
    collectgarbage()
  end)

  it("are refused by every method", function()
    local tried = 0
    for kind, object in pairs(all) do
      if kind ~= "thread" and kind ~= "Lua file" then
        for f, name in pairs(functions_of(object)) do
          for other, wrong in pairs(all) do
            -- what ends an object ignores others, and two objects may be compared
            local silent = name == "__gc" or name == "__close" or name == "__eq"
            if other ~= kind and not is_related(kind, other) then
              local ok, e = pcall(f, wrong, name:find "index$" and FIELD[kind] or nil, nil)
              tried = tried + 1
              if not silent and ok then error(("%s of a %s took a %s: %s"):format(name, kind, other, tostring(e))) end
              assert.is_true(ok or type(e) == "string", tostring(e))
            end
          end
        end
      end
    end
    assert.is_true(tried > 1000, tostring(tried))
  end)

  it("are unharmed by that", function()
    assert.matches("^socket: <fd=", tostring(all.socket))
    assert.matches("^socket: <fd=", tostring(all["TLS socket"]))
    assert.equal(100, #all.buffer)
    assert.equal(2, #all.view)
    assert.equal(all.file, all.file:write "x")
    assert.equal(4, select("#", all.reactor:counts()))
    assert.is_true(all.timer:cancel())
  end)

  it("are told apart where two kinds have the same size", function()
    local a, b = keep(socket.socketpair())
    local f <close> = b:makefile("r", 4096)
    a:sendall(("A"):rep(2000) .. "\n")
    f:read()
    assert.has_error(function() all.reactor.fileno(f) end,
      "bad argument #1 to 'fileno' (reactor expected, got socket file)")
  end)
end)
