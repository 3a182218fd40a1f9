-- Loops whose tasks, waits and timers change while one of them is being worked on: by finalizers, which run wherever
-- memory is allocated, by wake functions, and by scripts that resume and close coroutines of tasks. Some crashed.

local socket = require "socket"
local loop = require "socket.loop"
local reactors = require "spec.support.reactors"
local support = require "spec.support"

-- Calls f() while finalizers call g at each allocation, as long as it likes.
local function with_finalizers(g, f)
  local on = true
  local function arm()
    setmetatable({}, {__gc = function()
      if not on then return end
      arm()
      g()
    end})
  end
  collectgarbage("incremental", 1, 1000, 20) -- a whole cycle at each allocation, also where 2^30 is too much
  arm()
  collectgarbage "restart" -- now, not when memory has doubled
  local ok, e = pcall(f)
  on = false
  collectgarbage("incremental", 200, 100, 13)
  if not ok then error(e, 0) end
end

-- A reactor in which the next timer needs more memory.
local function full()
  local r, results = reactors.new()
  for _ = 1, 64 do r:after(1000, print) end
  return r, results
end

local function holds(code, args)
  local text, status = support.run(code .. "\nprint 'ok'", {leaks = false, args = args})
  assert.equal("ok\n", text)
  assert.equal(0, status)
end

local function noop() end

describe("a loop holds", function()
  it("where a finalizer throws into the task that is about to wait", function()
    local r, results = full()
    local began
    local co = reactors.add(r, function()
      local co, thrown = coroutine.running(), false
      began = socket.monotonic()
      with_finalizers(function()
        if not thrown then thrown = r:throw(co, "thrown") end
      end, function() socket.reactor.park(5) end)
    end)
    while not results[co] do r:turn(6) end
    assert.same({false, "thrown", n = 2}, results[co])
    assert.is_true(socket.monotonic() - began < 4)
    r:close()
  end)

  it("where a finalizer wakes the task that is about to park", function()
    local l <close> = loop.new()
    for _ = 1, 64 do l:after(1000, print) end
    local event = loop.event()
    local woken
    local task = l:spawn(function()
      with_finalizers(function() event:set() end, function() woken = event:wait(5) end)
    end)
    local began = socket.monotonic()
    task:join(6)
    assert.is_true(woken)
    assert.is_true(socket.monotonic() - began < 4)
  end)

  it("where a finalizer closes the socket that a task is about to wait for", function()
    local r, results = reactors.new() -- which knows of no descriptor yet
    local a, b = socket.socketpair()
    local _ <close> = b
    a:settimeout(5)
    local co = reactors.add(r, function()
      with_finalizers(function() a:close() end, function() a:recv(1) end)
    end)
    reactors.rounds(r)
    assert.is_false(results[co][1])
    local e = results[co][2]
    assert.is_true(e.code == "ECANCELED" or e.code == "EBADF", tostring(e))
    assert.same({0, 0, 0, 0}, {r:counts()})
    r:close()
  end)

  it("where a finalizer adds the coroutine that is being added", function()
    local ran, told, tried = 0, 0, 0
    local r = socket.reactor.new(function() told = told + 1 end)
    local co
    with_finalizers(function()
      tried = tried + 1
      pcall(r.add, r, co)
    end, function()
      for _ = 1, 20 do
        co = coroutine.create(function() ran = ran + 1 end)
        pcall(r.add, r, co)
      end
    end)
    assert.is_true(tried > 0)
    local tasks = r:counts()
    reactors.rounds(r)
    assert.same({20, 20, 20}, {tasks, ran, told})
    r:close()
  end)

  it("where the wake function lets a task end that is being added", function()
    holds [[
      local socket = require "socket"
      local r = socket.reactor.new(function() end)
      local armed
      socket.setwaithook(function() return coroutine.yield() end, function()
        if not armed then return end
        armed = false
        pcall(r.turn, r, 0)
        collectgarbage()
        collectgarbage()
        error "wake"
      end)
      assert(coroutine.resume(coroutine.create(function() r:turn() end)))
      armed = true
      local ok, e = pcall(r.add, r, coroutine.create(function() end))
      assert(not ok and tostring(e):find "wake")
      assert(table.concat({r:counts()}, " ") == "0 0 0 0")
    ]]
  end)

  it("where the wake function fails: no timer is left behind", function()
    local former, wake = socket.setwaithook(function() return coroutine.yield() end, function() error("wake", 0) end)
    local r = socket.reactor.new(noop)
    local co = coroutine.create(function() r:turn(1) end)
    assert(coroutine.resume(co))
    local ok, e = pcall(r.after, r, 1, print)
    socket.setwaithook(former, wake)
    assert.same({false, "wake"}, {ok, e})
    assert.equal(0, (select(4, r:counts())))
    r:close()
  end)

  it("where the Lua stack is full: a task that fails then is in no queue", function()
    holds([[
      local socket = require "socket"
      local loop = socket.loop
      local a, b = socket.socketpair()
      local f = a:makefile "r"
      local big = {}
      for i = 1, 1000000 do big[i] = false end
      local function attempt(n)
        local function inner(...) -- its arguments stay on the stack
          for _ = 1, 20 do
            local ok, e = pcall(f.read, f, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
            if not ok and tostring(e):find "task" then return end
          end
        end
        return inner(table.unpack(big, 1, n))
      end
      b:settimeout(0)
      for n = 999940, 999956, 2 do
        b:try_send(("x"):rep(20000))
        loop.run(function()
          local l = loop.current().loop
          l:spawn(function()
            loop.resume(coroutine.create(function() return pcall(attempt, n) end))
          end)
          l:spawn(function() collectgarbage() collectgarbage() end)
          socket.sleep(0.002)
        end)
      end
    ]])
  end)

  it("when a coroutine below a task waits many times: nothing stays on its stack", function()
    loop.run(function()
      local a, b = socket.socketpair()
      local read = loop.wrap(function() return pcall(a.recv, a, 20000, socket.MSG_WAITALL) end)
      local ok, data, before, grown
      local reader = loop.spawn(function() ok, data = read() end)
      for i = 1, 20000 do
        b:send "x"
        loop.sleep(0)
        if i == 5000 then
          collectgarbage()
          before = collectgarbage "count"
        elseif i == 19000 then
          collectgarbage()
          grown = collectgarbage "count" - before
        end
      end
      reader:join()
      a:close()
      b:close()
      assert.is_true(ok)
      assert.equal(20000, #data)
      assert.is_true(grown < 100, grown)
    end)
  end)

  it("when the coroutine of a task that waits is closed: another waits in its place, and it ends", function()
    local r, results = reactors.new()
    local a <close>, b = socket.socketpair()
    local closed = reactors.add(r, function() a:recv(1) end)
    r:turn(0)
    coroutine.close(closed)
    local other = reactors.add(r, function() return a:recv(1) end)
    r:turn(0)
    b:send "x"
    reactors.rounds(r)
    b:close()
    assert.same({true, "x", n = 2}, results[other])
    assert.same({false, "cannot resume dead coroutine", n = 2}, results[closed])
    r:close()
  end)

  it("that is garbage, and that a finalizer uses again", function()
    local got
    do
      local r = socket.reactor.new(noop)
      local a, b = socket.socketpair()
      r:add(coroutine.create(function() got = a:recv(1) end))
      r:turn(0)
      setmetatable({}, {__gc = function()
        b:send "x"
        while r:turn(0) do end
        a:close()
        b:close()
      end})
    end
    for _ = 1, 3 do collectgarbage() end
    assert.equal("x", got)
  end)

  it("with more than can be: garbage makes room", function()
    for _ = 1, 600 do socket.reactor.new(print) end
    assert.is_not_nil(socket.reactor.new(print))
  end)
end)
