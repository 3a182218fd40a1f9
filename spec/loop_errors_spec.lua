-- Errors of tasks come out once, whoever gave up waiting for them; and groups whose block has gone wrong.

local socket = require "socket"
local support = require "spec.support"

local loop = require "socket.loop"
local run = require "spec.support.looped".run
local now = socket.monotonic

after_each(support.close_kept)

-- What comes out of a loop that runs to its end.
local function outcome(l)
  local seen = {}
  for _ = 1, 20 do
    local ok, e = pcall(l.run, l)
    if ok then return seen end
    seen[#seen + 1] = e
  end
  error "the loop does not end"
end

local function at_end(f) return setmetatable({}, {__close = f}) end

local function raises(text, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.matches(text, tostring(e), 1, true)
end

local A, B = {"A"}, {"B"}

describe("an error is not lost", function()
  it("when the join from outside of tasks that it was for has raised another one", function()
    local l <close> = loop.new()
    l:spawn(error, A)
    local task = l:spawn(function() socket.sleep(0.002) error(B) end)
    local _, e = pcall(task.join, task)
    assert.equal(A, e)
    assert.same({B}, outcome(l))
    l:spawn(error, A) -- in the same round
    task = l:spawn(error, B)
    _, e = pcall(task.join, task)
    assert.equal(A, e)
    assert.same({B}, outcome(l))
    task = l:spawn(error, B)
    _, e = pcall(task.join, task)
    assert.equal(B, e)
    assert.same({}, outcome(l))
  end)

  it("when a join from outside of tasks gave up", function()
    local l <close> = loop.new()
    local e = loop.event()
    local task = l:spawn(function() e:wait() error(B) end)
    raises("nothing can bring", task.join, task)
    raises("timed out", task.join, task, 0.001)
    e:set()
    assert.same({B}, outcome(l))
  end)

  it("when who joins is cancelled, or its time is up, in the very round that brings it", function()
    local l <close> = loop.new()
    local e = loop.event()
    local task = l:spawn(function() socket.sleep(0.001) e:set() error(B) end)
    local joiner = l:spawn(function() task:join() end)
    l:spawn(function() e:wait() joiner:cancel() end)
    assert.same({B}, outcome(l))
    assert.equal("cancelled", joiner.status)
    local late
    l:spawn(function() late = select(2, pcall(loop.timeout, 0.001, task.join, task)) end)
    task = l:spawn(function()
      local start = now()
      while now() < start + 0.005 do end -- the timer comes right after the wakeup
      error(B)
    end)
    assert.same({B}, outcome(l))
    assert.is_true(socket.iserror(late, socket.timeout))
  end)

  it("when one of two who join gives up: the other has it, and nobody else", function()
    for first = 1, 2 do
      local l <close> = loop.new()
      local e, got, joiners = loop.event(), {}, {}
      local task = l:spawn(function() socket.sleep(0.001) e:set() error(B) end)
      for i = 1, 2 do joiners[i] = l:spawn(function() got[i] = select(2, pcall(task.join, task)) end) end
      l:spawn(function() e:wait() joiners[first]:cancel() end)
      assert.same({}, outcome(l))
      assert.equal(B, got[3 - first])
      assert.is_true(socket.iserror(got[first], loop.cancelled))
    end
  end)

  it("of loop.run's own task, when another's is raised", function()
    local text = support.run [[
      warn "@on"
      local socket = require "socket"
      local loop = require "socket.loop"
      print(select(2, pcall(loop.run, function()
        loop.spawn(error, {}, 0)
        local _ <close> = setmetatable({}, {__close = function() error("second", 0) end})
        socket.sleep(10)
      end)))
    ]]
    assert.matches("lost in another: second\n.*table: ", text)
  end)

  it("of a group's task, when the block fails by itself", function()
    local l <close> = loop.new()
    local told = {}
    function l.onerror(task, e) told[#told + 1] = e assert.equal("failed", task.status) end
    local block = l:spawn(function()
      loop.group(function(g)
        g:spawn(function()
          local _ <close> = at_end(function() error(B) end)
          socket.sleep(10)
        end)
        socket.sleep(0.001)
        error(A)
      end)
    end)
    l:run()
    assert.same({B, A}, told)
    assert.equal(A, block.error)
    told = {}
    l:spawn(function() -- but if the block has seen it
      loop.group(function(g)
        g:spawn(error, B)
        local _, e = pcall(g.join, g)
        error {"because of", e}
      end)
    end)
    l:run()
    assert.same({{"because of", B}}, told)
  end)

  it("of a group that nobody closed", function()
    local l <close> = loop.new()
    l:spawn(function()
      local g = loop.group()
      g:spawn(function() socket.sleep(0.001) error(A) end)
    end)
    assert.same({A}, outcome(l))
    local owner = l:spawn(function()
      loop.group():spawn(function() socket.sleep(0.001) error(B) end)
      socket.sleep(10)
    end)
    assert.same({B}, outcome(l))
    assert.equal("cancelled", owner.status)
    l:spawn(function() -- one that was closed is done with
      pcall(loop.group, function(g) g:spawn(error, A) end)
      loop.sleep(0)
    end)
    assert.same({}, outcome(l))
  end)
end)

describe("errors of tasks that a closed loop ends", function()
  local function failing(l)
    for i = 1, 3 do
      l:spawn(function()
        local _ <close> = at_end(function() error({i}) end)
        socket.sleep(10)
      end)
    end
    l:step()
  end

  it("are raised, the first, and told, the others", function()
    local told = {}
    local warn = _G.warn -- luacheck: globals warn
    _G.warn = function(text) told[#told + 1] = text end
    local l = loop.new()
    failing(l)
    local ok, e = pcall(l.close, l)
    local ok2, e2 = pcall(function()
      local m <close> = loop.new()
      failing(m)
    end)
    _G.warn = warn
    assert.same({false, "table", false, "table"}, {ok, type(e), ok2, type(e2)})
    assert.equal(4, #told)
    assert.matches("error of a task lost", told[4])
  end)
end)

describe("a group that fails", function()
  it("tells all who wait in spawn for room", function()
    local l <close> = loop.new()
    local g
    local owner = l:spawn(function()
      loop.group({limit = 1}, function(group)
        g = group
        g:spawn(function() socket.sleep(0.002) error(A) end)
        socket.sleep(10)
      end)
    end)
    l:step()
    local told = {}
    for i = 1, 3 do l:spawn(function() told[i] = select(2, pcall(g.spawn, g, print)) end) end
    assert.same({A}, outcome(l))
    assert.same({A, A, A}, told)
    assert.equal("failed", owner.status)
  end)

  it("by its block, or is cancelled, takes no more", function()
    run(function()
      for _, way in ipairs {"fails", "cancelled", "cancelled at the end"} do
        local told, ran, start = {}, 0, now()
        local function more(g)
          return function()
            pcall(socket.sleep, 10)
            told[#told + 1] = select(2, pcall(g.spawn, g, function() ran = ran + 1 socket.sleep(10) end))
          end
        end
        local outsider
        local block = loop.spawn(function()
          loop.group({limit = 2}, function(g)
            for _ = 1, 2 do g:spawn(more(g)) end
            outsider = loop.spawn(pcall, g.spawn, g, print)
            socket.sleep(0.001)
            if way == "fails" then error(A) elseif way == "cancelled" then socket.sleep(10) end
          end)
        end)
        local joined = loop.spawn(pcall, block.join, block)
        socket.sleep(0.005)
        if way ~= "fails" then block:cancel() end
        assert.is_false((joined:join()))
        for i = 1, 2 do assert.matches("the group has ended", told[i], 1, true) end
        assert.matches("the group has ended", select(2, outsider:join()), 1, true)
        assert.equal(0, ran)
        assert.is_true(now() - start < 5)
      end
    end)
  end)
end)

describe("a task of a closed loop", function()
  it("that never went on says so, and nobody waits for it", function()
    local l = loop.new()
    local task = l:spawn(function() while true do pcall(socket.sleep, 100) end end)
    l:step()
    run(function()
      local before = loop.spawn(pcall, task.join, task)
      loop.sleep(0)
      l:close()
      local ok, e = before:join(5)
      assert.is_false(ok)
      assert.matches("the loop is closed", e, 1, true)
      raises("the loop is closed", task.join, task)
    end)
    raises("the loop is closed", task.join, task)
    raises("the loop is closed", task.join, task, 1)
    assert.is_false(task:cancel())
  end)
end)

describe("cancelling", function()
  it("ends a task that the reactor has let go, where there was no memory to say so", function()
    local l <close> = loop.new()
    local task = l:spawn(print)
    local joiner = l:spawn(pcall, task.join, task)
    l.reactor:throw(task.co, A) -- as a cancel that failed after this
    l:step()
    l:step()
    assert.equal("waiting", joiner.status)
    assert.is_true(task:cancel())
    assert.is_false(task:cancel())
    l:run()
    assert.same({"cancelled", "done", 0}, {task.status, joiner.status, l.count})
  end)
end)

describe("a task whose coroutine a script has closed", function()
  it("takes no wakeup from the others", function()
    run(function()
      local q = loop.queue()
      local co
      loop.spawn(function() co = coroutine.running() q:get() end)
      local second = loop.spawn(q.get, q)
      loop.sleep(0)
      coroutine.close(co)
      q:put "value"
      assert.equal("value", second:join(5))
      local l = loop.current().loop
      assert.equal(2, l.count)
      l.count = 1 -- that one never ends
    end)
  end)
end)
