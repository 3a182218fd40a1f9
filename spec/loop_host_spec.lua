-- Loops among others: hosts, loops in loops, foreign schedulers, memory, the end of the program.

local socket = require "socket"
local support = require "spec.support"

local loop = require "socket.loop"
local run = require "spec.support.looped".run
local fails, keep, now = support.fails, support.keep, socket.monotonic

after_each(support.close_kept)

describe("a host", function()
  it("calls step, which is bounded", function()
    local l <close> = loop.new()
    local a, b = keep(support.tcp())
    l:spawn(function() while true do coroutine.yield() end end)
    l:spawn(function() while true do a:sendall(("x"):rep(100)) end end)
    l:spawn(function() while true do b:recv(10) end end)
    local longest = 0
    for _ = 1, 200 do
      local start = now()
      assert.is_true(l:step(0))
      longest = math.max(longest, now() - start)
    end
    assert.is_true(longest < 0.2)
    local start = now()
    local m <close> = loop.new()
    m:spawn(socket.sleep, 10)
    m:step(0)
    assert.is_true(m:step(0.02))
    assert.is_true(now() - start >= 0.02)
    assert.is_true(m:step()) -- nil is 0
    assert.is_false(pcall(m.step, m, -1))
  end)

  it("with an event loop of its own uses fileno and timeout", function()
    local poll = support.tools(pending).poll
    local l <close> = loop.new()
    local a, b = keep(socket.socketpair())
    local got = {}
    assert.is_nil(l:timeout())
    l:spawn(function()
      socket.sleep(0.2)
      got[#got + 1] = "slept"
      got[#got + 1] = a:recv(10)
    end)
    assert.equal(0, l:timeout())
    l:step()
    assert.is_true(l:timeout() > 0 and l:timeout() <= 0.2)
    local stop = now() + 5
    while #got < 2 do
      assert(now() < stop)
      if #got == 1 and l:timeout() == nil then b:sendall "x" end
      poll({{l:fileno(), "r"}}, math.min(l:timeout() or 1, 1))
      l:step()
    end
    assert.same({"slept", "x"}, got)
    assert.equal(0, l.count)
  end)

  it("starts tasks after a time, and takes that back", function()
    local l <close> = loop.new()
    local log = {}
    l:after(0.1, function(...) log[#log + 1] = table.concat({...}, " ") end, 2, "b")
    l:after(0.001, function() socket.sleep(0.001) log[#log + 1] = "1" end)
    local timer = l:after(0.05, function() log[#log + 1] = "never" end)
    assert.is_true(timer:cancel())
    assert.is_false(timer:cancel())
    l:run()
    assert.same({"1", "2 b"}, log)
    timer = l:after(0, print)
    l:close()
    assert.is_true(pcall(timer.cancel, timer))
    assert.is_false(pcall(timer.cancel, {}))
  end)

  it("sets and cancels timers by the hundred thousand", function()
    local l <close> = loop.new()
    local f, n, timers = function() end, 200000, {}
    local start = now()
    for i = 1, n do timers[i] = l:after(1000 + (i * 7919) % n, f) end
    for i = 1, n do assert(timers[(i * 31) % n + 1]:cancel()) end
    assert.is_true(now() - start < 5)
    l:run() -- nothing is left
  end)

  it("closes a loop with tasks in it", function()
    local before = support.descriptors()
    local l = loop.new()
    local closed = 0
    for _ = 1, 3 do
      l:spawn(function()
        local _ <close> = setmetatable({}, {__close = function() socket.sleep(0.001) closed = closed + 1 end})
        local a <close> = socket.socket()
        socket.sleep(10)
        a:recv(1)
      end)
    end
    local stubborn = l:spawn(function() for _ = 1, 2 do pcall(socket.sleep, 0.01) end end)
    l:step()
    assert.is_true(l:close())
    assert.is_true(l:close())
    assert.equal(3, closed)
    assert.equal("done", stubborn.status)
    assert.equal("loop: <closed>", tostring(l))
    assert.is_false(pcall(l.spawn, l, print))
    assert.is_false(pcall(l.step, l))
    assert.equal(before, support.descriptors())
  end)
end)

describe("loops in loops:", function()
  it("run and step in a task of another wait with it", function()
    run(function()
      local ticks = 0
      local ticker = loop.spawn(function() for _ = 1, 5 do socket.sleep(0.002) ticks = ticks + 1 end end)
      local inner <close> = loop.new()
      local a, b = keep(socket.socketpair())
      local task = inner:spawn(function() return a:recv(10) end)
      inner:spawn(function() socket.sleep(0.03) b:sendall "x" end)
      inner:run()
      assert.same({"x", 5}, {task:join(), ticks})
      ticker:join()
      assert.equal("nested", loop.run(function() socket.sleep(0.001) return "nested" end))
      local l2 <close> = loop.new()
      l2:spawn(socket.sleep, 0.01)
      while l2:step(0.005) do ticks = ticks + 1 end
    end)
  end)

  it("events, queues, tasks, timers, cancels and closed sockets cross from one to the other", function()
    local a = keep(socket.socketpair())
    local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
    for _, plain in ipairs {false, true} do
      run(function()
        local inner <close> = loop.new()
        local e, q = loop.event(), loop.queue()
        local tasks = {
          inner:spawn(e.wait, e), inner:spawn(q.get, q), inner:spawn(pcall, socket.sleep, 10),
        }
        local reader = not plain and inner:spawn(pcall, a.recv, a, 1)
        local called = false
        loop.spawn(function()
          local function pause() socket.sleep(0.002) end
          pause() e:set()
          pause() q:put "v"
          pause() tasks[3]:cancel()
          pause() if reader then a:close() end
          pause() inner:after(0.001, function() called = true end)
          pause() inner:spawn(socket.sleep, 0)
          e:clear()
        end)
        local last = inner:spawn(function() while not called do s:settimeout(10) loop.wait(s, "r", 0.5) end end)
        last.name = "last"
        if plain then coroutine.wrap(function() inner:run() end)() else inner:run() end
        assert.is_true((tasks[1]:join()))
        assert.equal("v", tasks[2]:join())
        assert.is_false((tasks[3]:join()))
        if reader then assert.equal("ECANCELED", select(2, reader:join()).code) end
      end)
    end
  end)

  it("tasks of one join those of another", function()
    run(function()
      local inner <close> = loop.new()
      local task = inner:spawn(function() socket.sleep(0.005) return "r" end)
      local runner = loop.spawn(function() inner:run() end)
      assert.equal("r", task:join())
      runner:join()
      local mine = loop.spawn(function() socket.sleep(0.005) return "mine" end)
      local other = inner:spawn(function() return mine:join() end)
      inner:run()
      assert.equal("mine", other:join())
    end)
  end)

  it("two in one thread, in turn, with the same sockets", function()
    local l1 <close> = loop.new()
    local l2 <close> = loop.new()
    local a, b = keep(socket.socketpair())
    local reader = l1:spawn(function() return a:recv(10) end)
    l1:step(0.001)
    l2:spawn(function() a:sendall(("x"):rep(1000000)) end)
    for _ = 1, 3 do l2:step(0.001) end
    local w = l1:spawn(function() b:sendall "hello" end)
    for _ = 1, 5 do l1:step(0.01) end
    assert.equal("hello", reader:join())
    w:join()
    local r1 = l1:spawn(pcall, a.recv, a, 10)
    l1:step(0.001)
    a:close() -- l2 watched it last
    for _ = 1, 3 do l1:step(0.01) end
    assert.equal("done", r1.status)
    pcall(l2.run, l2)
  end)

  it("refuse to run or close within one of their own tasks", function()
    run(function()
      local l = loop.current().loop
      for _, method in ipairs {"step", "close"} do
        local ok, e = pcall(l[method], l)
        assert.is_false(ok)
        assert.matches("the loop is running", e)
      end
    end)
  end)

  it("in a plain coroutine wait for the thread", function()
    local co = coroutine.wrap(function()
      return loop.run(function() socket.sleep(0.002) return "r" end)
    end)
    assert.equal("r", co())
  end)

  it("under a foreign scheduler, with its wait hook", function()
    local S = support.scheduler(pending)
    local log, start = {}, now()
    local a, b = keep(socket.socketpair())
    local e = loop.event()
    S.spawn(function()
      local r = loop.run(function()
        local t = loop.spawn(function() e:wait() return "set" end)
        local long = loop.spawn(socket.sleep, 10) -- else nothing within could end the waiting
        socket.sleep(0.02)
        local data = a:recv(10) .. t:join()
        long:cancel()
        return data
      end)
      log[#log + 1] = r
    end)
    S.spawn(function() for _ = 1, 3 do socket.sleep(0.002) log[#log + 1] = "tick" end end)
    S.spawn(function() socket.sleep(0.03) b:sendall "x" socket.sleep(0.01) e:set() end)
    S.run()
    assert.same({"tick", "tick", "tick", "xset"}, log)
    assert.is_true(now() - start < 5)
  end)
end)

describe("memory", function()
  it("is flat over many tasks, timers, timeouts and cancels", function()
    local l <close> = loop.new()
    local a, b = keep(socket.socketpair())
    local function work()
      for _ = 1, 20 do
        l:spawn(function()
          loop.group(function(g)
            for _ = 1, 5 do g:spawn(function() socket.sleep(0) end) end
            local t = g:spawn(socket.sleep, 100)
            coroutine.yield()
            t:cancel()
          end)
          pcall(loop.timeout, 0.0001, socket.sleep, 1)
          loop.event():wait(0.0001)
          b:sendall "x"
          a:recv(1, socket.MSG_DONTWAIT)
        end)
        l:after(100, print):cancel()
        l:run()
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    work()
    local before = work()
    for _ = 1, 5 do work() end
    local after = work()
    assert.is_true(after - before < 20, ("%.1f KiB more"):format(after - before))
  end)

  it("and descriptors come back with a loop nobody knows", function()
    local a, b = keep(socket.socketpair())
    local before = support.descriptors()
    for _ = 1, 300 do -- more than there may be at once
      local l = loop.new()
      l:spawn(function() a:recv(1) end)
      l:after(10, print)
      l:step()
    end
    assert.equal(before, support.descriptors())
    run(function()
      loop.spawn(function() socket.sleep(0.002) b:sendall "x" end)
      assert.equal("x", a:recv(1))
    end)
  end)
end)

describe("the end of the program", function()
  local code = [[
    local socket = require "socket"
    local loop = require "socket.loop"
    l = loop.new()
    a, b = socket.socketpair()
    l:spawn(function() local _ <close> = setmetatable({}, {__close = function() print "closed" end}) a:recv(1) end)
    l:spawn(function() coroutine.wrap(function() socket.sleep(0.01) %s end)() end)
    l:after(100, print)
    l:spawn(function() socket.sleep(0.02) end)
    ev = loop.event()
    l:spawn(function() ev:wait() end)
    l:spawn(function() b:sendall(("x"):rep(10000000)) end)
    for _ = 1, 10 do l:step(0.005) end
    setmetatable({}, {__gc = function() pcall(l.step, l) pcall(l.close, l) a:close() end})
    print "end"
    %s
  ]]
  for name, how in pairs {["os.exit"] = "os.exit(true, true)", ["the last line"] = "", ["an error"] = "error 'x'",
                          ["closing"] = "l:close() l = nil collectgarbage() os.exit(true, true)"} do
    it("by " .. name .. ", in the middle", function()
      local text, status = support.run(code:format("", how))
      assert.matches("end\n", text)
      assert.equal(how:find "error" and 1 or 0, status)
    end)
  end

  it("by os.exit within a task, and within a generator of one", function()
    local text, status = support.run(code:format("", "l:spawn(function() os.exit(true, true) end) l:run()"))
    assert.same({"end\n", 0}, {text:match "end\n", status})
    text, status = support.run(code:format("os.exit(true, true)", ""))
    assert.same({"", 0}, {text:gsub("closed\n", ""), status})
  end)

  it("by Ctrl-C, also in a task", function()
    local p, pid = support.start [[
      local socket, loop = require "socket", require "socket.loop"
      local a = socket.socketpair()
      print(pcall(loop.run, function() a:recv(1) end))
    ]]
    assert.is_true(support.asleep(pid))
    support.kill(pid, "INT")
    assert.matches("^false\t.*interrupted!", p:read "a")
    p:close()
  end)
end)

describe("a socket of a loop that is gone", function()
  it("works in the next", function()
    local a, b = keep(support.tcp())
    for i = 1, 5 do
      local l = loop.new()
      local t = l:spawn(function() return a:recv(10) end)
      l:step()
      b:sendall(tostring(i))
      assert.equal(tostring(i), t:join(2))
      if i % 2 == 0 then l:close() end
      collectgarbage()
    end
    fails("EAGAIN", a.recv, a:settimeout(0), 1)
  end)
end)
