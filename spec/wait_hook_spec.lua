-- The wait hook, which makes blocking calls cooperative: what it is told, what it answers, and what schedulers build on
-- it.

require "spec.helper"
local check = require "spec.support.check"
local listeners = require "spec.support.listeners"
local socket = require "socket"
local streams = require "spec.support.streams"
local support = require "spec.support"

local fails, keep, on_time = support.fails, support.keep, check.on_time
local fill, full_listener = streams.fill, listeners.full
local now = socket.monotonic

after_each(support.close_kept)

describe("the wait hook", function()
  after_each(function() socket.setwaithook(nil) end)

  -- A hook that notes its calls and answers what it is told: answers are values or functions.
  local function noting(...)
    local answers, calls = table.pack(...), {}
    socket.setwaithook(function(...)
      calls[#calls + 1] = table.pack(...)
      local answer = answers[math.min(#calls, answers.n)]
      if type(answer) == "function" then return answer(...) end
      return answer
    end)
    return calls
  end

  local function in_coroutine(f, ...)
    local result = table.pack(coroutine.resume(coroutine.create(f), ...))
    if not result[1] then error(result[2], 0) end
    return table.unpack(result, 2, result.n)
  end

  describe("as setwaithook sets it", function()
    it("is given back by the next call, with its wake function", function()
      local function f() end
      local function g() end
      assert.same({nil, nil}, {socket.setwaithook(f, g)})
      local former, wake = socket.setwaithook(g)
      assert.equal(f, former)
      assert.equal(g, wake)
      assert.same({g, nil}, {socket.setwaithook(nil)})
      assert.equal(2, select("#", socket.setwaithook(nil)))
    end)

    it("is a function, or nil", function()
      for _, v in ipairs {1, "f", {}, true} do
        assert.is_false(pcall(socket.setwaithook, v))
        assert.is_false(pcall(socket.setwaithook, nil, v))
      end
      assert.is_false(pcall(socket.setwaithook))
      local callable = setmetatable({}, {__call = print})
      assert.is_false(pcall(socket.setwaithook, callable))
    end)

    it("may be coroutine.yield itself", function()
      local a, b = keep(socket.socketpair())
      socket.setwaithook(coroutine.yield)
      local task = coroutine.create(function() return a:recv(10) end)
      assert.same({true, a, "r"}, {coroutine.resume(task)})
      b:send "hi"
      assert.same({true, "hi"}, {coroutine.resume(task, true)})
    end)
  end)

  describe("is called", function()
    it("with the socket, the direction and the seconds left", function()
      local a, b = keep(socket.socketpair())
      local calls = noting(function() b:send "x" return true end)
      assert.equal("x", in_coroutine(a.recv, a, 10))
      assert.same({a, "r", n = 3}, calls[1])
      a:settimeout(5)
      assert.equal("x", in_coroutine(a.recv, a, 10))
      assert.equal(a, calls[2][1])
      assert.is_true(calls[2][3] > 4 and calls[2][3] <= 5)
      assert.equal(2, #calls)
    end)

    it('with "w" where room to send is waited for', function()
      local a, b = keep(socket.socketpair())
      fill(a, b)
      a:settimeout(nil)
      local calls = noting(function() b:settimeout(0) while b:try_recv(65536) do end return true end)
      assert.equal(1, in_coroutine(a.send, a, "x"))
      assert.same({a, "w", n = 3}, calls[1])
    end)

    it("for less and less time within one operation", function()
      local a, b = keep(socket.socketpair())
      a:settimeout(5)
      local calls = noting(function() b:send "x" return true end)
      assert.equal("xxxx", in_coroutine(a.recv, a, 4, socket.MSG_WAITALL))
      assert.equal(4, #calls)
      for i = 2, 4 do assert.is_true(calls[i][3] < calls[i - 1][3]) end
    end)

    it("only where something must be waited for", function()
      local calls = noting(true)
      local a, b = keep(socket.socketpair())
      in_coroutine(function()
        b:sendall "ready"
        assert.equal("ready", a:recv(10))
        local s <close> = socket.create_server {"127.0.0.1", 0}
        local c <close> = socket.socket():connect(s:getsockname())
        s:accept():close()
        assert.is_nil(c:recv(10))
      end)
      for _, call in ipairs(calls) do assert.equal("w", call[2]) end -- at most connect
    end)

    it("only inside coroutines that can yield", function()
      local calls = noting(true)
      local a, b = keep(socket.socketpair())
      a:settimeout(0.01)
      fails("ETIMEDOUT", a.recv, a, 1) -- the main thread polls
      local co = coroutine.wrap(function()
        local list = {1, 2}
        table.sort(list, function() fails("ETIMEDOUT", a.recv, a, 1) return false end) -- a C function is in between
      end)
      co()
      assert.equal(0, #calls)
      assert.is_truthy(b)
    end)

    it("never by a socket with a timeout of 0", function()
      local calls = noting(true)
      local a = keep(socket.socketpair())
      a:settimeout(0)
      in_coroutine(function() fails("EAGAIN", a.recv, a, 1) end)
      assert.equal(0, #calls)
    end)

    it("no more when it was taken away", function()
      local calls = noting(true)
      local a, b = keep(socket.socketpair())
      socket.setwaithook(nil)
      b:send "x"
      assert.equal("x", in_coroutine(a.recv, a, 1))
      a:settimeout(0.01)
      in_coroutine(function() fails("ETIMEDOUT", a.recv, a, 1) end)
      assert.equal(0, #calls)
    end)
  end)

  describe("answers", function()
    it("true: try again; if it was wrong, it is asked again", function()
      local a, b = keep(socket.socketpair())
      local calls = noting(true, 1, "yes", function() b:send "x" return true end)
      assert.equal("x", in_coroutine(a.recv, a, 1))
      assert.equal(4, #calls)
    end)

    it("false: the time is up", function()
      local a = keep(socket.socketpair())
      noting(false)
      for _, t in ipairs {5, false} do
        a:settimeout(t or nil)
        local start = now()
        local e = in_coroutine(function() return fails("ETIMEDOUT", a.recv, a, 1) end)
        assert.equal(socket.timeout, e.class)
        on_time(0, start)
      end
    end)

    it("nil: the library waits by itself", function()
      local a, b = keep(socket.socketpair())
      local calls = noting(nil, function() b:send "x" end)
      a:settimeout(0.02)
      local start = now()
      in_coroutine(function() fails("ETIMEDOUT", a.recv, a, 1) end)
      on_time(0.02, start)
      assert.equal("x", in_coroutine(a.recv, a, 1))
      assert.equal(2, #calls)
    end)

    it("true again and again: the timeout holds all the same", function()
      local a = keep(socket.socketpair())
      local calls = noting(true)
      a:settimeout(0.02)
      local start = now()
      in_coroutine(function() fails("ETIMEDOUT", a.recv, a, 1) end)
      on_time(0.02, start)
      assert.is_true(#calls > 0)
    end)

    it("true while sendall gets a little further each time: the timeout holds all the same", function()
      local a, b = keep(socket.socketpair())
      fill(a, b)
      noting(function()
        local later = now() + 0.001
        repeat until now() > later
        b:recv(4096)
        return true
      end)
      a:settimeout(0.03)
      local bytes = ("x"):rep(1000000) -- that would take 0.25 s
      local start = now()
      local e = in_coroutine(function() return fails("ETIMEDOUT", a.sendall, a, bytes) end)
      assert.is_true(now() - start < 0.2)
      assert.is_true(e.sent > 0 and e.sent < #bytes)
    end)

    it("with an error: the call raises it", function()
      local a, b = keep(socket.socketpair())
      local oops = {}
      local calls = noting(function() error(oops) end)
      for i = 1, 2 do -- and the socket can be waited for again
        local ok, e = pcall(in_coroutine, a.recv, a, 1)
        assert.is_false(ok)
        assert.equal(oops, e)
        assert.equal(i, #calls)
      end
      noting(function() b:send "x" return true end)
      assert.equal("x", in_coroutine(a.recv, a, 1))
    end)

    it("with an error object of the library's: it says how far the call had come", function()
      local a, b = keep(socket.socketpair())
      local cancelled = fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT)
      noting(function() error(cancelled) end)
      local bytes = ("x"):rep(4000000)
      local ok, e = pcall(in_coroutine, a.sendall, a, bytes)
      assert.same({false, cancelled}, {ok, e})
      assert.is_true(e.sent > 0 and e.sent < #bytes)
      b:settimeout(0)
      local received = 0
      for data in function() return (b:try_recv(65536)) end do received = received + #data end
      assert.equal(e.sent, received)
    end)

    it("with an error: bytes received so far are in it", function()
      local a, b = keep(socket.socketpair())
      local cancelled = fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT)
      a:send "12345"
      noting(function() error(cancelled) end)
      assert.equal(cancelled, select(2, pcall(in_coroutine, b.recv, b, 10, socket.MSG_WAITALL)))
      assert.equal("12345", cancelled.partial)
    end)
  end)

  describe("and connect:", function()
    it("an early true does not make a connection", function()
      local listener <close> = full_listener()
      local s = keep(socket.socket())
      s:settimeout(0.03)
      local calls = noting(true)
      local start = now()
      in_coroutine(function() fails("ETIMEDOUT", s.connect, s, listener.address) end)
      on_time(0.03, start)
      assert.equal("w", calls[1][2])
      assert.equal(s, calls[1][1])
    end)

    it("a full Unix listener is tried again", function()
      local path = "\0lsocket-spec-hook-" .. now()
      local server = keep(socket.socket(socket.AF_UNIX):bind(path):listen(0))
      local first, s = keep(socket.socket(socket.AF_UNIX):connect(path), socket.socket(socket.AF_UNIX))
      local calls = noting(function(sock, direction, seconds)
        assert.not_equal(s, sock) -- it would be ready, and is not what is waited for
        assert.is_true(sock:fileno() >= 0 and direction == "r" and seconds <= 0.1)
        if first then server:accept():close() end
        first = nil
        return false
      end)
      assert.equal(s, in_coroutine(s.connect, s, path))
      assert.is_true(#calls >= 1)
    end)
  end)

  describe("while a coroutine waits:", function()
    local function waiting(f, ...)
      local task = coroutine.create(f)
      assert(coroutine.resume(task, ...))
      assert.equal("suspended", coroutine.status(task))
      return task
    end

    before_each(function() socket.setwaithook(coroutine.yield) end)

    it("events tells the directions", function()
      local a, b = keep(socket.socketpair())
      assert.equal("", a:events())
      local reader = waiting(a.recv, a, 1)
      assert.equal("r", a:events())
      fill(a, b)
      a:settimeout(nil)
      local writer = waiting(a.send, a, "x")
      assert.equal("rw", a:events())
      b:send "y"
      assert.same({true, "y"}, {coroutine.resume(reader, true)})
      assert.equal("w", a:events())
      b:settimeout(0)
      while b:try_recv(65536) do end
      assert.same({true, 1}, {coroutine.resume(writer, true)})
      assert.equal("", a:events())
    end)

    it("a second one for the same direction fails: EBUSY", function()
      local a, b = keep(socket.socketpair())
      local first = waiting(a.recv, a, 1)
      local e = in_coroutine(function() return fails("EBUSY", a.recv, a, 1) end)
      assert.equal("another coroutine already waits for this", e.message)
      assert.equal("recv", e.op)
      assert.equal("r", a:events())
      b:send "x"
      assert.same({true, "x"}, {coroutine.resume(first, true)})
    end)

    it("closing the socket ends the wait: ECANCELED", function()
      for _, close in ipairs {"close", "detach"} do
        local a, b = socket.socketpair()
        local task = waiting(function() return fails("ECANCELED", a.recv, a, 1) end)
        local fd = a[close](a)
        local ok, e = coroutine.resume(task, true)
        assert.is_true(ok, e)
        assert.equal("socket was closed while waiting", e.message)
        assert.equal(socket.error, e.class)
        assert.equal("recv", e.op)
        if close == "detach" then socket.close(fd) end
        b:close()
      end
    end)

    it("closing the socket calls the wake function once", function()
      local woken = {}
      socket.setwaithook(coroutine.yield, function(...) woken[#woken + 1] = table.pack(...) end)
      local a, b = keep(socket.socketpair())
      socket.socket():close() -- nobody waits on this one
      assert.is_truthy(b)
      local task = waiting(function() return fails("ECANCELED", a.recv, a, 1) end)
      a:close()
      a:close()
      assert.same({{a, n = 1}}, woken)
      assert.is_true((coroutine.resume(task, true)))
    end)

    it("the wake function finds the descriptor still open, and the object without it", function()
      local a, b = keep(support.tcp())
      local fd, left, peer = a:fileno(), nil, nil
      socket.setwaithook(coroutine.yield, function(sock)
        left = sock:fileno()
        local again <close> = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
        peer = again:getpeername()
      end)
      local task = waiting(function() fails("ECANCELED", a.recv, a, 1) end)
      a:close()
      assert.equal(-1, left)
      assert.equal(b:getsockname(), peer)
      assert.is_nil(b:recv(1)) -- now it is closed
      assert.is_true((coroutine.resume(task, true)))
    end)

    it("the wake function may resume the coroutine", function()
      local task
      socket.setwaithook(coroutine.yield, function() assert(coroutine.resume(task, false)) end)
      local a, b = keep(socket.socketpair())
      task = waiting(function() fails("ECANCELED", a.recv, a, 1) end)
      a:close()
      assert.equal("dead", coroutine.status(task))
      assert.is_truthy(b)
    end)

    it("an error of the wake function comes out of close, and the socket is closed", function()
      socket.setwaithook(coroutine.yield, function() error "oops" end)
      local a = keep(socket.socketpair())
      local task = waiting(function() fails("ECANCELED", a.recv, a, 1) end)
      assert.matches("oops", select(2, pcall(a.close, a)))
      assert.equal(-1, a:fileno())
      assert.is_true((coroutine.resume(task, true)))
    end)

    it("closing a socket by <close> wakes too", function()
      local woken = 0
      socket.setwaithook(coroutine.yield, function() woken = woken + 1 end)
      local task
      do
        local a <close>, b = socket.socketpair()
        keep(b)
        task = waiting(function() fails("ECANCELED", a.recv, a, 1) end)
      end
      assert.equal(1, woken)
      assert.is_true((coroutine.resume(task, true)))
    end)

    it("coroutine.close frees the direction", function()
      local a, b = keep(socket.socketpair())
      local task = waiting(a.recv, a, 1)
      assert.equal("r", a:events())
      assert.is_true(coroutine.close(task))
      assert.equal("", a:events())
      b:send "x"
      assert.equal("x", in_coroutine(a.recv, a, 1))
    end)

    it("dropping the coroutine frees the direction when it is collected", function()
      local a, b = keep(socket.socketpair())
      waiting(a.recv, a, 1)
      assert.equal("r", a:events())
      collectgarbage()
      collectgarbage()
      assert.equal("", a:events())
      b:send "x"
      assert.equal("x", in_coroutine(a.recv, a, 1))
    end)

    it("a coroutine that was dropped, or ended in an error, does not make EBUSY", function()
      local a, b = keep(socket.socketpair())
      waiting(a.recv, a, 1)
      collectgarbage "stop"
      local task = waiting(a.recv, a, 1)
      b:send "x"
      assert.same({true, "x"}, {coroutine.resume(task, true)})
      socket.setwaithook(error)
      for _ = 1, 3 do assert.is_false(coroutine.resume(coroutine.create(a.recv), a, 1)) end
      collectgarbage "restart"
    end)

    it("dropping coroutine and socket together is no problem", function()
      local before = support.descriptors()
      for _ = 1, 20 do
        local a, b = socket.socketpair()
        waiting(a.recv, a, 1)
        waiting(b.recv, b, 1)
      end
      assert.equal(before, support.descriptors())
    end)

    it("what it received under MSG_TRUNC is not another socket's", function()
      local a, b = keep(support.tcp())
      local c, d = keep(socket.socketpair())
      local task = waiting(a.recv, a, 10, socket.MSG_TRUNC)
      d:send "a secret.."
      assert.equal("a secret..", c:recv(10))
      b:send "0123456789"
      assert.same({true, ("\0"):rep(10)}, {coroutine.resume(task, true)})
    end)
  end)

  describe("with a scheduler", function()
    it("serves many clients at once in one thread", function()
      local S = support.scheduler(pending)
      local server = keep(socket.create_server {"127.0.0.1", 0})
      local handled, echoed = 0, {}
      S.spawn(function()
        for _ = 1, 5 do
          S.spawn(function(conn)
            for data in function() return conn:recv(1000) end do conn:sendall(data) end -- an iterator that yields
            conn:close()
            handled = handled + 1
          end, (server:accept()))
        end
      end)
      for i = 1, 5 do
        S.spawn(function()
          local s <close> = socket.socket():connect(server:getsockname())
          for round = 1, 3 do
            local text = ("client %d, round %d"):format(i, round)
            s:sendall(text)
            assert.equal(text, s:recv(100))
            echoed[#echoed + 1] = i
            socket.sleep(0.001)
          end
        end)
      end
      S.run()
      assert.equal(5, handled)
      assert.equal(15, #echoed)
      assert.not_same({1, 1, 1}, {echoed[1], echoed[2], echoed[3]})
    end)

    it("moves much in both directions at once", function()
      local S = support.scheduler(pending)
      local a, b = keep(support.tcp())
      local text = ("0123456789abcdef"):rep(200000)
      local results = {}
      for name, s in pairs {a = a, b = b} do
        S.spawn(function() s:sendall(text):shutdown(socket.SHUT_WR) end)
        S.spawn(function()
          local pieces = {}
          for data in function() return s:recv(100000) end do pieces[#pieces + 1] = data end
          results[name] = table.concat(pieces) == text
        end)
      end
      S.run()
      assert.same({a = true, b = true}, results)
    end)

    it("sleeps and times out beside other work", function()
      local S = support.scheduler(pending)
      local a, b = keep(socket.socketpair())
      local log = {}
      local start = now()
      for _, t in ipairs {0.03, 0.01, 0.02} do
        S.spawn(function()
          log[#log + 1] = "begun"
          socket.sleep(t)
          on_time(t, start)
          log[#log + 1] = "over"
        end)
      end
      S.spawn(function()
        a:settimeout(0.04)
        fails("ETIMEDOUT", a.recv, a, 1)
        on_time(0.04, start)
        log[#log + 1] = "over"
      end)
      S.run()
      assert.same({"begun", "begun", "begun", "over", "over", "over", "over"}, log)
      assert.is_truthy(b)
    end)

    it("connects, by name too, and looks names up", function()
      local S = support.scheduler(pending)
      local server = keep(socket.create_server {"127.0.0.1", 0})
      local _, port = table.unpack(server:getsockname())
      local done = {}
      S.spawn(function() for _ = 1, 3 do server:accept():close() end end)
      S.spawn(function()
        local s <close> = socket.socket():connect {"127.0.0.1", port}
        done.number = s:recv(1) == nil
      end)
      S.spawn(function()
        local s <close> = socket.socket():settimeout(10):connect {"localhost", port}
        done.name = s:recv(1) == nil
      end)
      S.spawn(function()
        local s <close> = socket.create_connection({"localhost", port}, 10)
        done.connection = s:recv(1) == nil
      end)
      S.spawn(function()
        local list = socket.getaddrinfo("localhost", port, socket.AF_INET, socket.SOCK_STREAM)
        done.list = list[1].sockaddr.port == port
      end)
      S.run()
      assert.same({number = true, name = true, connection = true, list = true}, done)
    end)

    it("works through pcall, metamethods, iterators and xpcall", function()
      local S = support.scheduler(pending)
      local a, b = keep(socket.socketpair())
      local lazy = setmetatable({}, {
        __index = function() return (a:recv(1)) end,
        __add = function() return (a:recv(1)) end,
        __concat = function() return (a:recv(1)) end,
        __eq = function() return a:recv(1) == "e" end,
        __lt = function() return a:recv(1) == "l" end,
        __call = function() return (a:recv(1)) end,
        __close = function() assert.equal("c", a:recv(1)) end,
      })
      local got = {}
      S.spawn(function()
        got[1] = lazy.field
        got[2] = lazy + 1
        got[3] = lazy .. ""
        got[4] = lazy == setmetatable({}, getmetatable(lazy))
        got[5] = lazy < lazy
        got[6] = lazy()
        got[7] = select(2, pcall(a.recv, a, 1))
        got[8] = select(2, xpcall(a.recv, print, a, 1))
        do local _ <close> = lazy end
        for piece in function() return not got[9] and a:recv(1) or nil end do got[9] = piece end
        local ok, e = pcall(function() return lazy .. a:recv(1) .. error "inside" end)
        got[10] = not ok and e:match "inside$"
      end)
      S.spawn(function()
        for c in ("i+.elCPXc1xy"):gmatch "." do
          b:send(c)
          socket.sleep(0.0005)
        end
      end)
      S.run()
      assert.same({"i", "+", ".", true, true, "C", "P", "X", "1", "inside"}, got)
    end)

    it("tells a waiter that its socket was closed by another task", function()
      local S = support.scheduler(pending)
      local a, b = keep(socket.socketpair())
      local code, start = nil, now()
      S.spawn(function() code = select(2, a:try_recv(1)).code end)
      S.spawn(function()
        socket.sleep(0.005)
        a:close()
      end)
      S.run()
      assert.equal("ECANCELED", code)
      on_time(0.005, start)
      assert.is_truthy(b)
    end)

    it("leaves no descriptor behind", function()
      local S = support.scheduler(pending)
      local before = support.descriptors()
      S.spawn(function() socket.sleep(0.001) end)
      S.spawn(function() socket.getaddrinfo("localhost", 1) end)
      S.spawn(function()
        local a <close>, b = socket.socketpair()
        local _ <close> = b
        a:settimeout(0.001):try_recv(1)
      end)
      S.run()
      assert.equal(before, support.descriptors())
    end)
  end)
end)
