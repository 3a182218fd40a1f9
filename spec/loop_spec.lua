-- Tasks, groups, queues, events, timeouts and cancelling.

local socket = require "socket"
local support = require "spec.support"
local certs = require "spec.support.certs"

local loop, ssl = require "socket.loop", socket.ssl
local run = require "spec.support.looped".run
local fails, keep, now = support.fails, support.keep, socket.monotonic

after_each(support.close_kept)

local function cancelled(f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(socket.iserror(e, loop.cancelled), tostring(e))
  assert.is_false(socket.iserror(e, socket.error))
  return e
end

local function raises(text, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.matches(text, tostring(e), 1, true)
  return e
end

describe("run", function()
  it("returns what its function returns, after all tasks", function()
    local log = {}
    assert.same({1, nil, 3, n = 3}, table.pack(loop.run(function(...)
      loop.spawn(function() socket.sleep(0.01) log[1] = "end" end)
      return ...
    end, 1, nil, 3)))
    assert.same({"end"}, log)
  end)

  it("raises its function's error, values unchanged, strings with a traceback", function()
    local value = {}
    local _, e = pcall(loop.run, error, value)
    assert.equal(value, e)
    local function place() error "oh no" end
    _, e = pcall(loop.run, function() place() end)
    assert.matches("oh no\nstack traceback:.*in upvalue 'place'", e)
    fails("EBADF", loop.run, function() local s = socket.socket() s:close() s:recv(1) end)
  end)

  it("raises the error of a task that nobody joins", function()
    raises("from a task", loop.run, function()
      loop.spawn(function() error "from a task" end)
      socket.sleep(5)
    end)
  end)

  it("says when all wait for each other", function()
    raises("wait for something", loop.run, function()
      local e = loop.event()
      loop.spawn(function() e:wait() end)
      loop.event():wait()
    end)
    local l <close> = loop.new()
    local t1, t2
    t1 = l:spawn(function() t2:join() end)
    t2 = l:spawn(function() t1:join() end)
    raises("2 task(s) wait", l.run, l)
    assert.equal("waiting", t1.status)
  end)

  it("refuses what it cannot call", function()
    for _, f in ipairs {loop.run, function(x) loop.new():spawn(x) end, function(x) loop.new():after(0, x) end} do
      raises("function expected", f, 1)
      raises("function expected", f, {})
    end
    assert.equal("called", loop.run(setmetatable({}, {__call = function() return "called" end})))
    raises("is for tasks of a loop", loop.spawn, print)
    raises("is for tasks of a loop", loop.timeout, 1, print)
    raises("is for tasks of a loop", loop.group)
    raises("only a task", loop.queue().get, loop.queue())
  end)
end)

describe("a task", function()
  it("begins in the next round, and tells its status", function()
    local l <close> = loop.new()
    local seen
    local task = l:spawn(function(x)
      seen = loop.current().status
      socket.sleep(0.005)
      return x
    end, "result")
    assert.is_nil(seen)
    assert.same({"ready", 1}, {task.status, l.count})
    assert.is_true(l:step(0))
    assert.same({"running", "waiting"}, {seen, task.status})
    l:run()
    assert.same({"done", 0}, {task.status, l.count})
    assert.equal("result", task:join())
    assert.equal("result", task:join())
    assert.is_false(task:cancel())
    assert.is_nil(loop.current())
    assert.is_false(l:step())
    assert.equal(l, task.loop)
  end)

  it("is joined by any number, before and after its end", function()
    run(function()
      local task = loop.spawn(function() socket.sleep(0.005) return "r" end)
      local joiners = {}
      for i = 1, 5 do joiners[i] = loop.spawn(task.join, task) end
      for i = 1, 5 do assert.equal("r", joiners[i]:join()) end
      assert.equal("r", task:join())
      assert.equal("r", task:join(0))
      raises("cannot join itself", loop.current().join, loop.current())
    end)
  end)

  it("passes its error to those who join, unchanged", function()
    local value = {}
    run(function()
      local task = loop.spawn(function() socket.sleep(0.001) error(value) end)
      local other = loop.spawn(pcall, task.join, task)
      local ok, e = pcall(task.join, task)
      assert.same({false, true}, {ok, rawequal(e, value)})
      assert.same({false, value}, {other:join()})
      assert.equal("failed", task.status)
      assert.equal(value, task.error)
      assert.is_string(task.traceback)
    end)
  end)

  it("joined with a timeout goes on", function()
    run(function()
      local task = loop.spawn(function() socket.sleep(0.02) return 1 end)
      assert.equal("join", fails("ETIMEDOUT", task.join, task, 0.002).op)
      fails("ETIMEDOUT", task.join, task, 0)
      assert.equal(1, task:join(2))
    end)
    local l <close> = loop.new()
    local task = l:spawn(function() socket.sleep(0.02) return 2 end)
    fails("ETIMEDOUT", task.join, task, 0.002) -- outside of tasks
    assert.equal(2, task:join())
  end)

  it("shows its own place through joins and groups", function()
    local function deep_inside() socket.sleep(0.001) error "found" end
    local _, e = pcall(loop.run, function()
      local task = loop.spawn(function()
        loop.group(function(g) g:spawn(function() deep_inside() end) end)
      end)
      loop.spawn(function() task:join() end):join()
    end)
    assert.matches("found\n", e)
    assert.matches("deep_inside", e)
  end)

  it("has its turn when another yields, though that never waits", function()
    run(function()
      local turns, over = 0, false
      local other = loop.spawn(function() while not over do turns = turns + 1 coroutine.yield() end end)
      for _ = 1, 10 do coroutine.yield "ignored" end
      assert.is_true(turns >= 9)
      over = true
      other:join()
    end)
  end)

  it("keeps generators working, that wait or not", function()
    local a, b = keep(socket.socketpair())
    local function generator(make)
      return make(function()
        for i = 1, 3 do
          coroutine.yield(i)
          coroutine.yield(a:recv(1))
          socket.sleep(0.001)
        end
      end)
    end
    for _, make in ipairs {coroutine.wrap, loop.wrap} do
      run(function()
        local over
        local ticker = loop.spawn(function() for _ = 1, 3 do socket.sleep(0.003) b:sendall "x" end over = true end)
        local list = {}
        for v in generator(make) do list[#list + 1] = v end
        assert.same({1, "x", 2, "x", 3, "x"}, list)
        ticker:join()
        assert.is_true(over)
      end)
    end
  end)

  it("with generators in many tasks, by loop.wrap", function()
    run(function()
      local start, list = now(), {}
      for i = 1, 50 do
        list[i] = loop.spawn(function()
          local sum = 0
          local inner = loop.wrap(function()
            for v in loop.wrap(function() for k = 1, 3 do socket.sleep(0.01) coroutine.yield(k) end end) do
              coroutine.yield(v)
            end
          end)
          for v in inner do sum = sum + v end
          return sum
        end)
      end
      for i = 1, 50 do assert.equal(6, list[i]:join()) end
      assert.is_true(now() - start < 1)
    end)
  end)

  it("with plain generators that wait within each other, more than eight", function()
    run(function()
      local tasks = {}
      for i = 1, 12 do
        tasks[i] = loop.spawn(function()
          return coroutine.wrap(function() socket.sleep(0.01) return i end)()
        end)
      end
      for i = 1, 12 do assert.equal(i, tasks[i]:join()) end
    end)
  end)

  it("reports errors of its generators as coroutine.wrap and resume do", function()
    run(function()
      raises("inside", loop.wrap(function() socket.sleep(0.001) error "inside" end))
      local co = coroutine.create(function(...) local x = coroutine.yield(...) return x end)
      assert.same({true, 1, 2}, {loop.resume(co, 1, 2)})
      assert.same({true, 3}, {loop.resume(co, 3)})
      assert.same({false, "cannot resume dead coroutine"}, {loop.resume(co)})
      assert.same({false, "cannot resume non-suspended coroutine"}, {loop.resume(coroutine.running())})
      local t = {2, 1, 3}
      table.sort(t, function(x, y) -- below sort the generator waits, and nothing else is harmed
        return loop.wrap(function() socket.sleep(0.001) return x < y end)()
      end)
      assert.same({1, 2, 3}, t)
      socket.sleep(0.005)
    end)
    assert.same({true, 5}, {loop.resume(coroutine.create(function() return 5 end))})
  end)
end)

describe("cancel", function()
  it("raises where the task waits; its socket is usable after that, and no descriptor is left", function()
    local client = ssl.create_default_context {cafile = certs.path "ca.pem"}
    local a, b = keep(support.tcp())
    local c, d = keep(socket.socketpair())
    local server = keep(socket.create_server {"127.0.0.1", 0})
    local u = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):bind {"127.0.0.1", 0}
    local path = ("\0lsocket-cancel-%d"):format(math.random(1 << 30))
    local full = keep(socket.socket(socket.AF_UNIX)):bind(path):listen(0)
    keep(socket.socket(socket.AF_UNIX)):connect(path)
    local file = keep(support.tcp()):makefile "r"
    local tls = keep(client:wrap_socket(keep(support.tcp()), {do_handshake_on_connect = false,
                                                              server_hostname = "localhost"}))
    local sel = socket.selectors.DefaultSelector()
    local data = ("x"):rep(1 << 23)
    local before = support.descriptors()
    local waits = {
      recv = function() a:recv(1) end,
      accept = function() server:accept() end,
      recvfrom = function() u:recvfrom(1) end,
      sendall = function() c:sendall(data) end,
      connect = function() local s <close> = socket.socket(socket.AF_UNIX) s:connect(path) end,
      handshake = function() tls:do_handshake() end,
      read = function() file:read "l" end,
      sleep = function() socket.sleep(10) end,
      wait = function() loop.wait(b, "r") end,
      select = function() for _ in sel:select() do assert(false) end end,
      join = function() loop.spawn(socket.sleep, 0.05):join() end,
      event = function() loop.event():wait() end,
      get = function() loop.queue():get() end,
      put = function() loop.queue(1):put(1):put(2) end,
      group = function() loop.group(function(g) g:spawn(socket.sleep, 10) end) end,
      limit = function() loop.group({limit = 1}, function(g) g:spawn(socket.sleep, 10) g:spawn(print) end) end,
      timeout = function() loop.timeout(10, socket.sleep, 10) end,
      wrap = function() loop.wrap(function() socket.sleep(10) end)() end,
      generator = function() coroutine.wrap(function() socket.sleep(10) end)() end,
    }
    run(function()
      for name, f in pairs(waits) do
        local closed
        local task = loop.spawn(function()
          local _ <close> = setmetatable({}, {__close = function() closed = true end})
          f()
        end)
        socket.sleep(0.001)
        assert.same({name, true}, {name, task:cancel()})
        cancelled(task.join, task)
        assert.same({name, "cancelled", true}, {name, task.status, closed})
      end
      b:sendall "1"
      assert.equal("1", a:recv(1))
      local got = 0
      d:settimeout(0.05)
      repeat
        local piece = d:try_recv(1 << 20)
        got = got + (piece and #piece or 0)
      until not piece
      assert.is_true(got > 0)
      d:settimeout(nil)
      c:sendall "more"
      assert.equal("more", d:recv(10))
      local peer <close> = socket.create_connection(server:getsockname())
      server:accept():close()
      assert.is_nil(peer:recv(1))
      u:sendto("self", u:getsockname())
      assert.equal("self", u:recv(10))
    end)
    local after = support.descriptors()
    assert.equal(before, after)
    sel:close()
    full:close()
  end)

  it("in a TLS handshake leaves it to be gone on with", function()
    local client = ssl.create_default_context {cafile = certs.path "ca.pem"}
    local server = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
    server:load_cert_chain(certs.path "server.pem", certs.path "server.key")
    local a, b = support.tcp()
    run(function()
      local c = keep(client:wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}))
      local task = loop.spawn(c.do_handshake, c)
      socket.sleep(0.005)
      task:cancel()
      cancelled(task.join, task)
      local other = loop.spawn(function() return keep(server:wrap_socket(b, {server_side = true})) end)
      c:do_handshake()
      other:join():sendall "hello"
      assert.equal("hello", c:recv(10))
    end)
  end)

  it("before a task began means that it never does", function()
    run(function()
      local began = false
      local task = loop.spawn(function() began = true end)
      assert.is_true(task:cancel())
      assert.equal("cancelled", task.status)
      assert.is_false(task:cancel())
      cancelled(task.join, task)
      socket.sleep(0.002)
      assert.is_false(began)
    end)
  end)

  it("of oneself ends the task there", function()
    run(function()
      local reached, inner = false, nil
      local task = loop.spawn(function()
        inner = select(2, pcall(function() loop.current():cancel() end))
        loop.current():cancel()
        reached = true
      end)
      cancelled(task.join, task)
      assert.is_false(reached)
      assert.is_true(socket.iserror(inner, loop.cancelled))
    end)
  end)

  it("comes once: a task that goes on regardless has to be cancelled again", function()
    run(function()
      local times = 0
      local task = loop.spawn(function()
        while times < 2 do
          if not pcall(socket.sleep, 10) then times = times + 1 end
        end
        socket.sleep(10)
      end)
      for i = 1, 3 do
        socket.sleep(0.001)
        assert.is_true(task:cancel())
        assert.is_true(task:cancel()) -- twice before it came is once
        socket.sleep(0.001)
        assert.equal(math.min(i, 2), times)
      end
      assert.equal("cancelled", task.status)
    end)
  end)

  it("of a task that is not waiting comes at its next wait", function()
    run(function()
      local steps = 0
      local task = loop.spawn(function()
        for _ = 1, 5 do coroutine.yield() steps = steps + 1 end
        socket.sleep(0)
        socket.sleep(0.001)
      end)
      coroutine.yield()
      task:cancel()
      cancelled(task.join, task)
      assert.equal(5, steps)
    end)
  end)

  it("of many in one round, and of those that end in it", function()
    run(function()
      local tasks = {}
      for i = 1, 1000 do tasks[i] = loop.spawn(function() socket.sleep(i % 2 == 0 and 10 or 0.001) end) end
      socket.sleep(0.002)
      for _, task in ipairs(tasks) do task:cancel() end
      for _, task in ipairs(tasks) do pcall(task.join, task) end
      assert.equal(1, loop.current().loop.count)
    end)
  end)
end)

describe("timeout", function()
  it("gives results, errors, or socket.timeout", function()
    run(function()
      local function f(...) socket.sleep(0) return ... end
      assert.same({1, nil, 3, n = 3}, table.pack(loop.timeout(1, f, 1, nil, 3)))
      raises("own", loop.timeout, 1, error, "own")
      local e = fails("ETIMEDOUT", loop.timeout, 0.005, socket.sleep, 10)
      assert.is_true(socket.iserror(e, socket.timeout))
      fails("ETIMEDOUT", loop.timeout, 0.001, loop.timeout, 10, socket.sleep, 10)
      fails("ETIMEDOUT", loop.timeout, 10, loop.timeout, 0.001, socket.sleep, 10)
      socket.sleep(0.002)
    end)
  end)

  it("that comes too late comes not at all", function()
    run(function()
      local stop = now() + 0.01
      loop.timeout(0.002, function() repeat coroutine.yield() until now() > stop end)
      socket.sleep(0.002)
    end)
  end)

  it("together with another one is not lost, nor is a cancel", function()
    run(function()
      local rounds = 0
      fails("ETIMEDOUT", loop.timeout, 0.01, function()
        local stop = now() + 0.02
        while true do
          local _, e = pcall(loop.timeout, 0.01, function()
            repeat until now() > stop -- both are due when this waits
            socket.sleep(10)
          end)
          if socket.iserror(e, loop.cancelled) then error(e, 0) end
          rounds = rounds + 1
          assert(rounds < 10)
          socket.sleep(0.1)
        end
      end)
      local task = loop.spawn(function()
        pcall(loop.timeout, 0.005, function()
          local stop = now() + 0.01
          repeat coroutine.yield() until now() > stop
          socket.sleep(10)
        end)
      end)
      socket.sleep(0.001)
      task:cancel()
      pcall(task.join, task)
    end)
  end)

  it("leaves no timer behind", function()
    local l <close> = loop.new()
    l:spawn(function() for _ = 1, 100 do loop.timeout(1000, socket.sleep, 0) end end)
    local start = now()
    l:run()
    assert.is_true(now() - start < 2)
  end)
end)

describe("a group", function()
  it("joins its tasks at the end of the block", function()
    run(function()
      local ended = 0
      assert.equal("result", loop.group(function(g)
        for i = 1, 5 do g:spawn(function() socket.sleep(0.001 * i) ended = ended + 1 end) end
        g:spawn(function() g:spawn(function() socket.sleep(0.01) ended = ended + 1 end) end)
        assert.equal(6, g.count)
        return "result"
      end))
      assert.equal(6, ended)
      do
        local g <close> = loop.group()
        g:spawn(function() socket.sleep(0.002) ended = ended + 1 end)
      end
      assert.equal(7, ended)
    end)
  end)

  it("ends all when one fails, the block too, and raises that error", function()
    run(function()
      local value, states = {}, {}
      local tasks = {}
      local start = now()
      local ok, e = pcall(loop.group, function(g)
        for i = 1, 3 do
          tasks[i] = g:spawn(function()
            local _ <close> = setmetatable({}, {__close = function() states[i] = "closed" end})
            socket.sleep(10)
          end)
        end
        g:spawn(function() socket.sleep(0.002) error(value) end)
        socket.sleep(10)
      end)
      assert.same({false, true}, {ok, rawequal(e, value)})
      assert.same({"closed", "closed", "closed"}, states)
      assert.is_true(now() - start < 3)
      for i = 1, 3 do assert.equal("cancelled", tasks[i].status) end
      socket.sleep(0.002) -- nothing is left that would come here
    end)
  end)

  it("ends all when its block fails, returns early, breaks or is cancelled", function()
    run(function()
      local task
      raises("block", loop.group, function(g)
        task = g:spawn(socket.sleep, 10)
        socket.sleep(0.001)
        error "block"
      end)
      assert.equal("cancelled", task.status)
      for i = 1, 2 do
        local g <close> = loop.group()
        task = g:spawn(function() socket.sleep(0.002) return 7 end)
        if i == 1 then break end
      end
      assert.equal("done", task.status)
      local outer = loop.spawn(function()
        loop.group(function(g) task = g:spawn(socket.sleep, 10) socket.sleep(10) end)
      end)
      socket.sleep(0.002)
      outer:cancel()
      cancelled(outer.join, outer)
      assert.equal("cancelled", task.status)
    end)
  end)

  it("can be cancelled, from within and without", function()
    run(function()
      local group
      local outer = loop.spawn(function()
        loop.group(function(g)
          group = g
          for _ = 1, 3 do g:spawn(socket.sleep, 10) end
          g:spawn(function() socket.sleep(0.003) end)
        end)
        return "went on"
      end)
      socket.sleep(0.001)
      group:cancel()
      assert.equal("went on", outer:join())
      loop.group(function(g)
        for _ = 1, 3 do g:spawn(socket.sleep, 10) end
        g:spawn(function() socket.sleep(0.001) g:cancel() end)
      end)
      loop.group(function(g)
        g:spawn(socket.sleep, 10)
        g:cancel()
        g:join()
        assert.equal(0, g.count)
      end)
    end)
  end)

  it("in a group", function()
    run(function()
      local _, e = pcall(loop.group, function(outer)
        outer:spawn(function()
          loop.group(function(inner)
            inner:spawn(socket.sleep, 10)
            inner:spawn(function() socket.sleep(0.001) error("deep", 0) end)
          end)
        end)
        outer:spawn(socket.sleep, 10)
      end)
      assert.equal("deep", e)
    end)
  end)

  it("limits how many run", function()
    run(function()
      local running, most, done = 0, 0, 0
      loop.group({limit = 3}, function(g)
        for _ = 1, 20 do
          g:spawn(function()
            running = running + 1
            most = math.max(most, running)
            socket.sleep(0.001)
            running, done = running - 1, done + 1
          end)
        end
      end)
      assert.same({3, 20}, {most, done})
      raises("full", loop.group, {limit = 1}, function(g)
        g:spawn(function() socket.sleep(0.002) error "full" end)
        g:spawn(print) -- waits, and learns of it
      end)
      for _, bad in ipairs {{limit = 0}, {limit = "x"}, {other = 1}, 5} do assert.is_false(pcall(loop.group, bad)) end
    end)
  end)

  it("takes no more when it has ended", function()
    run(function()
      local g
      loop.group(function(group) g = group end)
      raises("the group has ended", g.spawn, g, print)
    end)
  end)

  it("ends in a plain coroutine too, if not well", function()
    run(function()
      coroutine.wrap(function()
        pcall(loop.group, function(g) g:spawn(socket.sleep, 0.005) socket.sleep(0.001) end)
      end)()
    end)
  end)
end)

describe("errors", function()
  it("of several tasks in one round all come out", function()
    local l <close> = loop.new()
    for i = 1, 3 do l:spawn(error, i) end
    l:spawn(socket.sleep, 0.001)
    local seen = {}
    for _ = 1, 10 do
      local ok, e = pcall(l.run, l)
      if ok then break end
      seen[#seen + 1] = e
    end
    assert.same({1, 2, 3}, seen)
    assert.equal(0, l.count)
  end)

  it("go to onerror, with task and traceback", function()
    local l <close> = loop.new()
    local seen = {}
    function l.onerror(task, e, traceback) seen[#seen + 1] = {task, e, traceback} end
    local tasks = {}
    for i = 1, 3 do tasks[i] = l:spawn(function() error("no " .. i, 0) end) end
    tasks[1].name = "first"
    assert.matches("first", tostring(tasks[1]))
    l:run()
    for i = 1, 3 do
      assert.equal(tasks[i], seen[i][1])
      assert.equal("no " .. i, seen[i][2])
      assert.matches("loop_spec.lua", seen[i][3])
    end
    l:spawn(error, "again")
    function l.onerror() error "in onerror" end
    raises("in onerror", l.run, l)
  end)

  it("of after's functions too, and of cancelled tasks' clean-up", function()
    local l <close> = loop.new()
    l:after(0, error, "late")
    assert.equal("late", select(2, pcall(l.run, l)):match "^%w+")
    local task = l:spawn(function()
      local ok = pcall(socket.sleep, 10)
      if not ok then error("clean-up", 0) end
    end)
    l:step()
    task:cancel()
    assert.matches("^clean%-up", select(2, pcall(l.run, l)))
  end)
end)

describe("a queue", function()
  it("is first in, first out, without and with limit", function()
    run(function()
      local q = loop.queue()
      for i = 1, 5 do q:put(i) end
      assert.equal(5, #q)
      for i = 1, 5 do assert.equal(i, q:get()) end
      q = loop.queue(2)
      local got = {}
      loop.group(function(g)
        g:spawn(function() for i = 1, 10 do q:put(i) assert(#q <= 2) end q:close() end)
        g:spawn(function() for v in q.get, q do got[#got + 1] = v socket.sleep(0) end end)
      end)
      assert.same({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, got)
      assert.is_nil(q:get())
      raises("closed", q.put, q, 1)
      raises("value expected", q.put, q, nil)
    end)
    for _, bad in ipairs {0, -1, 1.5, "x"} do raises("limit", loop.queue, bad) end
  end)

  it("times out, and then takes nothing from others", function()
    run(function()
      local q = loop.queue(1)
      assert.equal("get", fails("ETIMEDOUT", q.get, q, 0.002).op)
      fails("ETIMEDOUT", q.get, q, 0)
      local tasks = {}
      for i = 1, 4 do tasks[i] = loop.spawn(pcall, q.get, q, i % 2 == 1 and 0.002 or nil) end
      assert.is_false((tasks[1]:join()))
      assert.is_false((tasks[3]:join()))
      q:put "a"
      tasks[2]:join()
      q:put "b"
      assert.same({true, "b"}, {tasks[4]:join()})
      q:put "c"
      assert.equal("put", fails("ETIMEDOUT", q.put, q, "d", 0.002).op)
      assert.equal("c", q:get())
      assert.equal(0, #q)
    end)
  end)

  it("passes on what a cancelled waiter was woken for", function()
    run(function()
      local q = loop.queue()
      local one, two = loop.spawn(q.get, q), loop.spawn(q.get, q)
      socket.sleep(0.001)
      q:put "v"
      one:cancel() -- woken already
      assert.equal("v", two:join())
      cancelled(one.join, one)
      q = loop.queue(1)
      q:put(1)
      one, two = loop.spawn(q.put, q, 2), loop.spawn(q.put, q, 3)
      socket.sleep(0.001)
      q:get()
      one:cancel()
      two:join()
      assert.equal(3, q:get())
    end)
  end)

  it("gives its values to a for loop until it is closed", function()
    run(function()
      local q = loop.queue()
      loop.spawn(function() for i = 1, 3 do socket.sleep(0.001) q:put(i) end q:close() end)
      local list = {}
      for v in q:values() do list[#list + 1] = v end
      assert.same({1, 2, 3}, list)
    end)
  end)

  it("closed lets all go on who wait", function()
    run(function()
      local q = loop.queue(1)
      local getters = {loop.spawn(q.get, q), loop.spawn(q.get, q)}
      socket.sleep(0.001)
      q:close()
      for _, t in ipairs(getters) do assert.is_nil(t:join()) end
      q = loop.queue(1)
      q:put(1)
      local putter = loop.spawn(pcall, q.put, q, 2)
      socket.sleep(0.001)
      q:close()
      assert.is_false((putter:join()))
      assert.equal(1, q:get())
      assert.is_nil(q:get())
    end)
  end)
end)

describe("an event", function()
  it("lets everybody go on", function()
    run(function()
      local e = loop.event()
      local tasks = {}
      for i = 1, 3 do tasks[i] = loop.spawn(e.wait, e) end
      local late = loop.spawn(e.wait, e, 0.002)
      assert.is_false(late:join())
      assert.is_false(e:isset())
      e:set()
      for i = 1, 3 do assert.is_true(tasks[i]:join()) end
      assert.is_true(e:wait(0))
      assert.is_true(e:isset())
      e:clear()
      assert.is_false(e:wait(0.001))
      assert.is_false(e:wait(0))
    end)
  end)

  it("wakes, or is given up by, many waiters in bounded time", function()
    local start = now()
    run(function()
      local e, n, woken = loop.event(), 20000, 0
      for i = 1, n do loop.spawn(function() if e:wait(i % 2 == 0 and 0.001 or nil) then woken = woken + 1 end end) end
      socket.sleep(0.1)
      e:set()
      socket.sleep(0)
      while loop.current().loop.count > 1 do coroutine.yield() end
      assert.is_true(woken >= n / 2)
    end)
    assert.is_true(now() - start < 4)
  end)

  it("is set from outside, also when those who waited are gone", function()
    local e = loop.event()
    local l = loop.new()
    l:spawn(function() while true do pcall(e.wait, e) end end)
    l:step()
    l:close()
    local l2 <close> = loop.new()
    local task = l2:spawn(e.wait, e)
    l2:step()
    e:set()
    l2:run()
    assert.is_true(task:join())
  end)
end)

it("Wrong arguments of the loop are errors of the line that gave them", function()
  local here = debug.getinfo(1, "S").short_src
  local seconds = "seconds must not be negative or NaN"
  local function refused(text, f)
    local ok, e = pcall(f)
    assert.is_false(ok)
    assert.equal(("%s:%d: %s"):format(here, debug.getinfo(f, "S").linedefined, text), e)
  end
  local l, q, e = loop.new(), loop.queue(), loop.event()
  local task = l:spawn(function() end)
  refused("bad argument #1 to 'step' (number expected, got string)", function() l:step "x" return 1 end)
  refused("bad argument #1 to 'step' (" .. seconds .. ")", function() l:step(-1) return 1 end)
  refused("bad argument #1 to 'after' (number expected, got nil)", function() l:after(nil, print) return 1 end)
  refused("bad argument #1 to 'after' (" .. seconds .. ")", function() l:after(0 / 0, print) return 1 end)
  refused("bad argument #1 to 'join' (" .. seconds .. ")", function() task:join(-1) return 1 end)
  refused("bad argument #2 to 'put' (number expected, got string)", function() q:put(1, "x") return 1 end)
  refused("bad argument #1 to 'get' (" .. seconds .. ")", function() q:get(-1) return 1 end)
  refused("bad argument #1 to 'wait' (number expected, got boolean)", function() e:wait(true) return 1 end)
  run(function()
    refused("bad argument #1 to 'timeout' (" .. seconds .. ")", function() loop.timeout(-1, print) return 1 end)
  end)
  assert.equal(0, #q)
  task:join()
  l:close()
  refused("the loop is closed", function() l:spawn(print) return 1 end)
  refused("the loop is closed", function() l:after(0, print) return 1 end)
  refused("the loop is closed", function() l:step() return 1 end)
  refused("the loop is closed", function() l:fileno() return 1 end)
  refused("the loop is closed", function() l:timeout() return 1 end)
end)
