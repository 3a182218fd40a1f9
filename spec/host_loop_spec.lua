-- Loops in a host program: one where nothing may block, one with few sockets, one that is closed at any moment.

local host = require "spec.support.host"

describe("a host that lets nothing block", function()
  before_each(function() host.needs(pending) end)

  it("has loops that go on with each step, and never wait", function()
    host.holds("-l 0:0:2", [[
      local loop = require "socket.loop"
      local l = loop.new()
      local begin, got, steps = socket.monotonic(), {}, 0
      local server = socket.create_server {"127.0.0.1", 0}
      l:spawn(function()
        local conn <close> = server:accept()
        for data in function() return conn:recv(100) end do got[#got + 1] = data end
      end)
      l:spawn(function()
        local s <close> = socket.create_connection({"localhost", server:getsockname().port}, 10)
        for i = 1, 3 do
          socket.sleep(0.02)
          s:sendall(tostring(i))
        end
      end)
      local longest = 0
      while true do
        local t = socket.monotonic()
        local more = l:step(0)
        longest, steps = math.max(longest, socket.monotonic() - t), steps + 1
        if not more then break end
        assert(socket.monotonic() - begin < 20, "it does not end")
      end
      assert(table.concat(got) == "123" and steps > 10, steps)
      print "ok"
    ]])
  end)

  it("closes them without waiting, when the tasks have done what they can", function()
    host.holds("-l 0:0:2", [[
      local loop = require "socket.loop"
      local l, ended = loop.new(), 0
      for i = 1, 3 do
        l:spawn(function()
          local _ <close> = setmetatable({}, {__close = function()
            for _ = 1, i do coroutine.yield() end
            if i == 3 then socket.sleep(30) end
            ended = ended + 1
          end})
          socket.sleep(10)
        end)
      end
      l:step(0)
      local begin = socket.monotonic()
      assert(l:close() and ended == 2 and l.count == 1 and socket.monotonic() - begin < 5)
      print "ok"
    ]])
  end)

  it("says so where something would wait: outside of tasks, and in coroutines that are none", function()
    host.holds("-l 0:0:2", [[
      local loop, selectors = require "socket.loop", socket.selectors
      local begin = socket.monotonic()
      local a, b = socket.socketpair()
      local function busy(f, ...)
        local ok, e = pcall(f, ...)
        assert(not ok and socket.iserror(e) and e.code == "EAGAIN", tostring(e))
      end
      local function all()
        busy(a.recv, a, 1)
        busy(a.settimeout(a, 30).recv, a, 1)
        busy(socket.sleep, 30)
        busy(function() socket.create_server({"127.0.0.1", 0}):accept() end)
        a:settimeout(nil)
      end
      all()
      assert(loop.wait(b, "r") == false and loop.wait(b, "r", 30) == false) -- not ready, is the answer
      local sel <close> = selectors.DefaultSelector()
      sel:register(a, selectors.EVENT_READ)
      assert(sel:select(30)(sel) == nil and #selectors.select({a}, {}, {}, 30) == 0)
      local l = loop.new()
      local task = l:spawn(function()
        coroutine.wrap(all)() -- waits that no loop can take over
        return a:recv(1)      -- one that it can
      end)
      busy(l.run, l)
      busy(task.join, task)
      busy(l.step, l, 30)
      assert(l:step(0) and task.status == "waiting")
      b:send "x"
      while l:step(0) do end
      assert(task:join() == "x" and socket.monotonic() - begin < 10)
      print "ok"
    ]])
  end)
end)

describe("a host's limit of sockets", function()
  before_each(function() host.needs(pending) end)

  it("holds for what the library opens for itself", function()
    host.holds("-l 6:0:0", [[
      local loop, selectors = require "socket.loop", socket.selectors
      local kept = {}
      local function fill(f)
        collectgarbage()
        assert(host.count() == 0, host.count())
        for i = 1, 20 do
          local ok, e = pcall(f, i)
          if not ok then
            assert(socket.iserror(e) and e.code == "EMFILE" and e.message:find "host allows no more", tostring(e))
            assert(i == 7 and host.count() == 6, i)
            kept = {}
            collectgarbage()
            return
          end
        end
        error "no limit"
      end
      local function keep(v) kept[#kept + 1] = v end
      fill(function() keep(selectors.DefaultSelector()) end)
      fill(function() keep(loop.new()) end)
      fill(function() keep(socket.reactor.new(print)) end)
      socket.setwaithook(coroutine.yield)
      fill(function() -- sleepers, which the hook gets a socket for
        local co = coroutine.create(socket.sleep)
        keep(co)
        local ok, e = coroutine.resume(co, 100)
        if not ok then error(e, 0) end
      end)
      socket.setwaithook(nil)
      -- lookups of tasks; one that runs counts, one that is over does not
      local l = loop.new()
      local n, failed = 0, 0
      for _ = 1, 12 do
        l:spawn(function()
          local ok, e = socket.try_getaddrinfo("localhost", 80)
          if ok then n = n + 1 else assert(e.code == "EMFILE", tostring(e)) failed = failed + 1 end
        end)
      end
      l:run()
      assert(n >= 1 and n + failed == 12 and host.count() == 1)
      print "ok"
    ]])
  end)

  it("counts loops and selectors until they are closed", function()
    host.holds("-l 3:0:0", [[
      local loop = require "socket.loop"
      for _ = 1, 10 do
        local l <close> = loop.new()
        assert(host.count() == 1)
      end
      local sel = socket.selectors.DefaultSelector()
      assert(host.count() == 1)
      sel:close()
      assert(host.count() == 0)
      print "ok"
    ]])
  end)

  it("is not led around by require: parts of the module are those of the host", function()
    host.holds("-r -l 3:0:0", [[
      assert(require "socket.selectors" == socket.selectors and require "socket.reactor" == socket.reactor)
      assert(require "socket.loop" == socket.loop)
      print "ok"
    ]])
  end)
end)

describe("a state closed at any moment", function()
  before_each(function() host.needs(pending) end)

  -- os.exit(0, true) closes the state where it is called, with everything below it still running.
  local moments = {
    ["in a task"] = "spawn(function() leave() end)",
    ["in a task, others waiting for sockets, time, each other"] = [[
      local a, b = socket.socketpair()
      local q = loop.queue(1)
      spawn(function() a:recv(1) end)
      spawn(function() b:makefile():read "a" end)
      spawn(socket.sleep, 100)
      spawn(function() q:get() end)
      spawn(function() loop.timeout(50, function() q:get() end) end)
      spawn(function() coroutine.wrap(function() socket.sleep(0.01) leave() end)() end)
      for i = 1, 100 do l:after(100 + i, print) end
    ]],
    ["in what a timer calls"] = "socket.reactor.new(print) r:after(0, leave) r:turn(1)",
    ["in what is called when a task ends"] = [[
      local r = socket.reactor.new(leave)
      r:add(coroutine.create(function() end))
      r:turn(1)
    ]],
    ["in a nested wait"] = [[
      local a = socket.socketpair()
      spawn(function() coroutine.wrap(function() a:recv(1) end)() end)
      spawn(function() socket.sleep(0.01) leave() end)
    ]],
    ["in onerror"] = "l.onerror = leave spawn(error, 'x')",
    ["in a group that ends"] = [[
      spawn(function()
        loop.group(function(g)
          g:spawn(function()
            local _ <close> = setmetatable({}, {__close = leave})
            socket.sleep(100)
          end)
          g:spawn(error, "x")
        end)
      end)
    ]],
    ["in a wait hook, and coroutines"] = [[
      local a = socket.socketpair()
      socket.setwaithook(function() leave() end)
      coroutine.wrap(function() a:recv(1) end)()
    ]],
    ["in a finalizer"] = [[
      spawn(function()
        setmetatable({}, {__gc = leave})
        local a = socket.socketpair()
        collectgarbage()
        a:recv(1)
      end)
    ]],
    ["during a lookup"] = [[
      spawn(function() socket.getaddrinfo("localhost", 80) leave() end)
      spawn(function() socket.create_connection({"localhost", 9}, 5) end)
      spawn(leave)
    ]],
    ["while a selector is asked"] = [[
      local sel, a = socket.selectors.DefaultSelector(), socket.socketpair()
      sel:register(a, 2)
      for _ in sel:select(1) do leave() end
    ]],
    ["with a loop within another one"] = [[
      spawn(function()
        local inner = loop.new()
        inner:spawn(function() socket.sleep(0.01) leave() end)
        inner:run()
      end)
    ]],
  }
  for what, code in pairs(moments) do
    it("ends well: " .. what, function()
      host.holds("", ([[
        local loop = require "socket.loop"
        local r = socket.reactor.new(print)
        local l = loop.new()
        local function spawn(...) return l:spawn(...) end
        setmetatable({}, {__gc = function() print "ok" end})
        local function leave() os.exit(0, true) end
        %s
        l:run()
        error "it went on"
      ]]):format(code))
    end)
  end

  it("ends well with many loops that nobody closed", function()
    host.holds("", [[
      local loop = require "socket.loop"
      for _ = 1, 50 do
        local l, a = loop.new(), socket.socketpair()
        l:spawn(function() a:recv(1) end)
        l:after(10, print)
        l:step(0)
      end
      print "ok"
    ]])
  end)
end)
