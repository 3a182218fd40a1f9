-- Bugs that only a hostile script meets: finalizers, hooks and other coroutines
-- that change what an operation is working on.

local support = require "spec.support"
local socket = require "socket"

-- Runs f in a coroutine that the wait hook suspends; returns it, waiting.
local function suspended(f)
  socket.setwaithook(function() return coroutine.yield() end)
  local co = coroutine.create(f)
  assert(coroutine.resume(co))
  assert.equal("suspended", coroutine.status(co))
  return co
end

local function full(s)
  s:settimeout(0)
  while s:try_send(("x"):rep(65536)) do end
  s:settimeout(nil)
end

local function empty(s)
  s:settimeout(0)
  while s:try_recv(65536) do end
end

describe("re-entry", function()
  local a, b

  before_each(function() a, b = socket.socketpair() end)

  after_each(function()
    socket.setwaithook(nil)
    socket.setdefaulttimeout(nil)
    a:close()
    b:close()
    collectgarbage "incremental"
  end)

  it("module: the metamethods take only tables", function()
    local meta = getmetatable(socket)
    assert.has_error(function() meta.__index(42, "AF_INET") end)
    assert.has_error(function() meta.__pairs(42) end)
  end)

  it("files: a read that waited returns its own results", function()
    local f <close> = b:makefile()
    a:send "one\n"
    local co = suspended(function() return f:read("l", "l") end)
    a:send "two\n"
    assert.same({true, "one", "two"}, {coroutine.resume(co, true)})
  end)

  it("files: a read begins anew when another took what it had", function()
    local f <close> = b:makefile()
    a:send "one\n"
    local co = suspended(function() return f:read("l", "l") end)
    assert.equal("one", f:read())
    collectgarbage()
    a:send "two\nthree\n"
    assert.same({true, "two", "three"}, {coroutine.resume(co, true)})
  end)

  it("files: a finalizer that reads the same file takes whole lines", function()
    local f <close> = b:makefile("r", 200000)
    b:settimeout(0)
    a:sendall(("x"):rep(100000) .. "\nabc\ndef\n")
    f:try_read(1 << 20) -- reads ahead, and fails
    collectgarbage "generational"
    local got = {}
    setmetatable({}, {__gc = function() got[#got + 1] = f:read() end})
    for _ = 1, 2 do got[#got + 1] = f:read() end
    collectgarbage()
    table.sort(got)
    assert.same({"abc", "def", ("x"):rep(100000)}, got)
  end)

  it("files: nothing is written to a file that another closed", function()
    local f = a:makefile("w", 10)
    full(a)
    local co = suspended(function() return f:write(("x"):rep(100)) end)
    empty(b)
    f:close()
    local ok, e = coroutine.resume(co, true)
    assert.is_false(ok)
    assert.equal("ECANCELED", e.code)
  end)

  it("sendfile: a Lua file closed by another coroutine is not read any more", function()
    local f = io.tmpfile()
    f:write(("x"):rep(3000000))
    local co = suspended(function() return a:sendfile(f) end)
    f:close()
    empty(b)
    local ok, e = coroutine.resume(co, true)
    assert.is_false(ok)
    assert.equal("ECANCELED", e.code)
    assert.truthy(e.sent > 0)
  end)

  it("sendfile to a closed connection is an error and no signal", function()
    local text, status = support.run [[
      local socket = require "socket"
      local a, b = socket.socketpair()
      b:close()
      local f = io.tmpfile()
      f:write "text"
      print(select(2, a:try_sendfile(f)).code)
      f:close()
      a:close()]]
    assert.equal("EPIPE\n", text)
    assert.equal(0, status)
  end)

  it("send_fds: a socket closed while this waits is not sent under its old number", function()
    local c <close>, d = socket.socketpair()
    full(a)
    local co = suspended(function() return socket.send_fds(a, "x", {d}) end)
    d:close()
    local other <close> = socket.socket()
    empty(b)
    local ok, e = coroutine.resume(co, true)
    assert.is_false(ok)
    assert.matches("no open descriptor", e)
    assert(c and other)
  end)

  it("getsockopt: never more than was asked for", function()
    local SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS = 270, 9
    local n <close> = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    local bytes = n:try_getsockopt(SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, 4)
    assert.truthy(not bytes or #bytes <= 4)
  end)

  it("detach: the descriptor is not lost with an error of the wake function", function()
    socket.setwaithook(function() return coroutine.yield() end, function() error "wake" end)
    local co = coroutine.create(function() a:recv(1) end)
    assert(coroutine.resume(co))
    local fd = a:fileno()
    assert.has_error(function() a:detach() end)
    assert.equal(fd, a:fileno())
    coroutine.close(co)
  end)

  it("create_server: a default timeout of 0 hides no error", function()
    socket.setdefaulttimeout(0)
    local _, e = socket.try_create_server({99, "x"}, {family = 99})
    assert.equal("EAFNOSUPPORT", e.code)
  end)

  it("a finalizer that closes the socket in the middle of its operation", function()
    collectgarbage "generational"
    for _ = 1, 20 do
      local x, y = socket.socketpair()
      x:settimeout(0.01)
      setmetatable({}, {__gc = function() x:close() end})
      local ok, e = pcall(function() for _ = 1, 100 do x:try_recv(1 << 20) end x:recvmsg(100, 10000) end)
      assert.is_false(ok)
      assert.truthy(socket.iserror(e))
      y:close()
      x:close()
    end
  end)
end)
