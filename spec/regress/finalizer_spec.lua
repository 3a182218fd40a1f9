-- What the library gives back without finalizers: Lua drops an object without calling its __gc where the C stack has
-- no room for that, which a script can bring about, and any deep recursion through C functions by chance.

local h = require "spec.helper"
local host = require "spec.support.host"
local support = require "spec.support"

-- lose(make, n): n things made by make() become garbage and are dropped, most of them without their finalizers.
local LOSE = [[
  local socket = require "socket"
  warn "@off"
  local function nest(k, f)
    if k == 0 then return f() end
    string.gsub("x", "x", function() nest(k - 1, f) end)
  end
  local function lose(make, n)
    for k = 184, 199 do
      collectgarbage()
      collectgarbage "stop"
      for _ = 1, n or 5 do make() end
      pcall(nest, k, collectgarbage)
      collectgarbage "restart"
    end
    collectgarbage()
    collectgarbage()
  end
]]

-- In a process of its own, as it may crash.
local function holds(code)
  local text, status = support.run(LOSE .. code .. "\nprint 'ok'", {leaks = false})
  assert.equal("ok\n", text)
  assert.equal(0, status)
end

describe("without their finalizers", function()
  it("loops are forgotten, and leave room for others", function()
    holds [[
      lose(function() socket.reactor.new(print) end, 25)
      local r = socket.reactor.new(function() end)
      local a, b = socket.socketpair()
      r:add(coroutine.create(function() a:recv(1) end))
      r:turn(0)
      b:send "x"
      a:close()
      assert(not r:turn(0))
    ]]
  end)

  it("waits of the wait hook end: another coroutine may wait for the same", function()
    holds [[
      local a, b = socket.socketpair()
      b:settimeout(1)
      socket.setwaithook(function() return coroutine.yield() end)
      lose(function()
        local co = coroutine.create(function() a:recv(1) end)
        assert(coroutine.resume(co))
      end, 1)
      local co = coroutine.create(function() return a:recv(1) end)
      assert(coroutine.resume(co))
      assert(coroutine.status(co) == "suspended")
      b:send "x"
      local _, got = coroutine.resume(co, true)
      assert(got == "x")
    ]]
  end)

  it("waits below a task end with the coroutine that an error ended", function()
    holds [[
      local r = socket.reactor.new(function(_, ok, e) if not ok then error(e, 0) end end)
      local a, b = socket.socketpair()
      a:settimeout(0.2)
      r:add(coroutine.create(function()
        lose(function()
          r:after(0, function() error "no" end)
          assert(not coroutine.resume(coroutine.create(function() a:recv(1) end)))
        end, 1)
        local stop = socket.monotonic() + 0.25
        repeat coroutine.yield() until socket.monotonic() > stop
        b:send "x"
        assert(a:recv(1) == "x")
      end))
      while r:turn(1) do end
    ]]
  end)

  it("received descriptors that nobody took are closed with the state", function()
    host.needs(pending)
    local text, status = host.run("-o", LOSE .. [[
      local a, b = socket.socketpair()
      lose(function()
        socket.send_fds(a, "x", {a, b})
        b:recvmsg(1, 100)
      end)
      a:close()
      b:close()
    ]])
    assert.equal("descriptors: 0\n", text)
    assert.equal(0, status)
  end)

  it("sockets and the pollers of loops are closed with the state", function()
    host.needs(pending)
    local text, status = host.run("-o", LOSE .. [[
      lose(socket.socketpair)
      lose(function() socket.reactor.new(print) end)
      lose(socket.selectors.DefaultSelector)
    ]])
    assert.equal("descriptors: 0\n", text)
    assert.equal(0, status)
  end)

  it("lookups are dropped with the state", function()
    if not h.sanitized then pending "needs a build that reports leaks" end
    local text, status = support.run(LOSE .. [[
      socket.setwaithook(function() return coroutine.yield() end)
      socket.setdefaulttimeout(5)
      lose(function()
        local co = coroutine.create(function() return socket.getaddrinfo("unknown.invalid", 80) end)
        coroutine.resume(co)
      end, 1)
      print "ok"
      os.exit(true, true)
    ]])
    assert.equal("ok\n", text)
    assert.equal(0, status)
  end)
end)
