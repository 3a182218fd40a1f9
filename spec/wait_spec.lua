-- Waiting: modes and timeouts, signals and Ctrl-C, and the hook that makes blocking calls cooperative.

local h = require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local fails, keep = support.fails, support.keep
local now = socket.monotonic

after_each(support.close_kept)

-- The bounds of a wait that should take t seconds, on a machine that is busy with other things.
local function took(t, start)
  local elapsed = now() - start
  assert.is_true(elapsed >= t, ("early: %.6f s instead of %g s"):format(elapsed, t))
  assert.is_true(elapsed < t + 0.5, ("late: %.3f s instead of %g s"):format(elapsed, t))
end

-- A listening socket whose queue is full: connecting to it takes for ever.
local function full_listener()
  local server = socket.create_server({"127.0.0.1", 0}, {backlog = 0})
  local queued = {}
  for i = 1, 8 do
    queued[i] = socket.socket()
    queued[i]:settimeout(0):connect_ex(server:getsockname())
  end
  socket.sleep(0.01)
  return setmetatable({address = server:getsockname()}, {__close = function()
    server:close()
    for _, s in ipairs(queued) do s:close() end
  end})
end

-- Fills what a socket and its peer can hold. TCP moves bytes on and finds room again.
local function fill(s, peer)
  s:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
  peer:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
  s:settimeout(0)
  repeat
    local sent = false
    while s:try_send(("x"):rep(65536)) do sent = true end
    socket.sleep(0.01)
  until not sent
end

describe("settimeout", function()
  it("takes seconds, and gettimeout gives the same number back", function()
    local s <close> = socket.socket()
    assert.is_nil(s:gettimeout())
    for _, t in ipairs {1e-9, 0.001, 0.1, 0.3, 1.07, 2.14, 10, 3600, 86400.25, 1e9} do
      assert.equal(s, s:settimeout(t))
      assert.equal(t, s:gettimeout())
      assert.equal(t, s.timeout)
      assert.is_true(s:getblocking())
    end
    for i = 1, 20000 do
      s:settimeout(i / 1000)
      if s:gettimeout() ~= i / 1000 then assert.equal(i / 1000, s:gettimeout()) end
    end
  end)

  it("takes nil to wait for ever and 0 never to wait", function()
    local s <close> = socket.socket()
    assert.equal(0, s:settimeout(0):gettimeout())
    assert.is_false(s:getblocking())
    assert.is_nil(s:settimeout(nil):gettimeout())
    assert.is_true(s:getblocking())
    assert.is_nil(s:settimeout(math.huge):gettimeout())
    assert.is_nil(s:settimeout(1e300):gettimeout())
  end)

  it("never takes a positive number for 0", function()
    local s <close> = socket.socket()
    for _, t in ipairs {1e-10, 1e-300, 5e-324} do
      s:settimeout(t)
      assert.equal(1e-9, s:gettimeout())
      assert.is_true(s:getblocking())
    end
  end)

  it("refuses what is no time", function()
    local s <close> = socket.socket()
    for _, t in ipairs {-1, -1e-9, -math.huge, 0 / 0} do
      local ok, e = pcall(s.settimeout, s, t)
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'settimeout' (timeout must not be negative or NaN)",
        select(2, pcall(function() s:settimeout(t) end)), 1, true)
      assert.equal("string", type(e))
    end
    for _, v in ipairs {"soon", {}, true} do
      assert.matches("number expected", select(2, pcall(function() s:settimeout(v) end)), 1, true)
    end
    assert.matches("value expected", select(2, pcall(function() s:settimeout() end)), 1, true)
    assert.matches("socket expected", select(2, pcall(s.settimeout, {}, 1)), 1, true)
    assert.is_nil(s:gettimeout())
  end)

  it("may be called on a closed socket, where it only notes the number", function()
    local s = socket.socket()
    s:close()
    assert.equal(0.5, s:settimeout(0.5):gettimeout())
    assert.equal(0, s:settimeout(0):gettimeout())
    assert.is_nil(s:settimeout(nil):gettimeout())
  end)

  it("is setblocking in other words", function()
    local s <close> = socket.socket()
    assert.equal(0, s:setblocking(false):gettimeout())
    assert.is_nil(s:setblocking(true):gettimeout())
    assert.equal(0, s:setblocking(0):gettimeout())
    assert.is_nil(s:setblocking(1):gettimeout())
    assert.has_error(function() s:setblocking() end)
  end)
end)

describe("setdefaulttimeout", function()
  after_each(function() socket.setdefaulttimeout(nil) end)

  it("is for sockets made later, however they are made", function()
    local before <close> = socket.socket()
    assert.is_nil(socket.getdefaulttimeout())
    socket.setdefaulttimeout(7.25)
    assert.equal(7.25, socket.getdefaulttimeout())
    assert.is_nil(before:gettimeout())
    local server <close> = socket.create_server {"127.0.0.1", 0}
    local client <close> = socket.create_connection(server:getsockname())
    local conn <close> = server:accept()
    local a, b = keep(socket.socketpair())
    local other <close> = socket.fromfd(a:fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
    for _, s in ipairs {server, client, conn, a, b, other} do assert.equal(7.25, s:gettimeout()) end
    local copy <close> = before:dup()
    assert.is_nil(copy:gettimeout()) -- dup copies the socket's own
  end)

  it("takes 0: sockets that never wait", function()
    socket.setdefaulttimeout(0)
    local a, b = keep(socket.socketpair())
    assert.is_false(a:getblocking())
    fails("EAGAIN", b.recv, b, 1)
    local server <close> = socket.create_server {"127.0.0.1", 0}
    fails("EAGAIN", server.accept, server)
  end)

  it("takes nothing else", function()
    for _, v in ipairs {-1, 0 / 0, "x", {}} do assert.is_false(pcall(socket.setdefaulttimeout, v)) end
    assert.is_false(pcall(socket.setdefaulttimeout))
    assert.is_nil(socket.getdefaulttimeout())
  end)
end)

describe("monotonic", function()
  it("counts seconds and never goes back", function()
    local last = now()
    assert.equal("float", math.type(last))
    for _ = 1, 1000 do
      local t = now()
      assert.is_true(t >= last)
      last = t
    end
    local wall = os.time()
    socket.sleep(0.05)
    assert.is_true(now() - last >= 0.05)
    assert.is_true(os.time() - wall <= 2)
  end)
end)

describe("sleep", function()
  it("takes the seconds it is given, and not less", function()
    for _, t in ipairs {0, 1e-9, 0.001, 0.03} do
      local start = now()
      assert.equal(0, select("#", socket.sleep(t)))
      took(t, start)
    end
  end)

  it("refuses what is no time", function()
    for _, v in ipairs {-1, 0 / 0, "x", {}} do assert.is_false(pcall(socket.sleep, v)) end
    assert.is_false(pcall(socket.sleep))
    assert.is_false(pcall(socket.sleep, nil))
  end)
end)

describe("a timeout", function()
  -- Each of these has nothing to do: {description, function that returns the sockets and the call}.
  local idle = {
    {"recv over TCP", function()
      local a, b = support.tcp()
      return a, b, function() return a:recv(1) end, "recv"
    end},
    {"recv over UDP", function()
      local a, b = support.udp()
      return a, b, function() return a:recv(1) end, "recv"
    end},
    {"recvfrom over UDP", function()
      local a, b = support.udp()
      return a, b, function() return a:recvfrom(1) end, "recvfrom"
    end},
    {"recv over a Unix stream", function()
      local a, b = socket.socketpair()
      return a, b, function() return a:recv(1) end, "recv"
    end},
    {"recv over Unix datagrams", function()
      local a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      return a, b, function() return a:recv(1) end, "recv"
    end},
    {"recv on a descriptor that others may have", function()
      local a, b = socket.socketpair()
      local c = socket.socket(nil, nil, nil, a:detach())
      return c, b, function() return c:recv(1) end, "recv"
    end},
    {"recv with MSG_PEEK", function()
      local a, b = support.tcp()
      return a, b, function() return a:recv(1, socket.MSG_PEEK) end, "recv"
    end},
    {"recv with MSG_WAITALL", function()
      local a, b = support.tcp()
      return a, b, function() return a:recv(10, socket.MSG_WAITALL) end, "recv"
    end},
    {"accept", function()
      local s = socket.create_server {"127.0.0.1", 0}
      return s, s, function() return s:accept() end, "accept"
    end},
    {"send over TCP", function()
      local a, b = support.tcp()
      fill(a, b)
      return a, b, function() return a:send("x") end, "send"
    end},
    {"send over a Unix stream", function()
      local a, b = socket.socketpair()
      fill(a, b)
      return a, b, function() return a:send("x") end, "send"
    end},
    {"sendall over TCP", function()
      local a, b = support.tcp()
      local bytes = ("x"):rep(10000000)
      return a, b, function() return a:sendall(bytes) end, "sendall"
    end},
    {"sendto over Unix datagrams", function()
      local path = "\0lsocket-spec-" .. now()
      local b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(path)
      local a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
      a:settimeout(0)
      while a:try_sendto("x", path) do end
      return a, b, function() return a:sendto("x", path) end, "sendto"
    end},
  }

  for _, case in ipairs(idle) do
    it("ends " .. case[1] .. " on time, in socket.timeout", function()
      local a, b, call, op = case[2]()
      keep(a, b)
      for _, t in ipairs {0.01, 0.01, 0.045} do -- ppoll after a try, ppoll before it, the kernel's own timeout
        a:settimeout(t)
        local start = now()
        local ok, e = pcall(call)
        took(t, start)
        assert.is_false(ok)
        assert.equal(socket.timeout, e.class)
        assert.is_true(e:is(socket.error))
        assert.equal(socket.errno.ETIMEDOUT, e.errno)
        assert.equal("ETIMEDOUT", e.code)
        assert.equal("timed out", e.message)
        assert.equal(op, e.op)
      end
    end)
  end

  it("ends connect on time", function()
    local listener <close> = full_listener()
    for _, t in ipairs {0.015, 0.06} do
      local s <close> = socket.socket()
      s:settimeout(t)
      local start = now()
      local e = fails("ETIMEDOUT", s.connect, s, listener.address)
      took(t, start)
      assert.equal(socket.timeout, e.class)
      assert.equal("connect", e.op)
      assert.same(listener.address, e.address)
    end
  end)

  it("ends connect to a Unix listener whose queue is full on time", function()
    local path = "\0lsocket-spec-full-" .. now()
    local server <close> = socket.socket(socket.AF_UNIX):bind(path):listen(0)
    local first <close> = socket.socket(socket.AF_UNIX):connect(path)
    local s <close> = socket.socket(socket.AF_UNIX):settimeout(0.06)
    local start = now()
    fails("ETIMEDOUT", s.connect, s, path)
    took(0.06, start)
    server:accept():close()
    s:connect(path)
    assert.equal("", first:getsockname())
  end)

  it("of almost nothing does not wait, but takes what is there", function()
    local a, b = keep(socket.socketpair())
    a:settimeout(1e-9)
    fails("ETIMEDOUT", a.recv, a, 1)
    b:send "x"
    assert.equal("x", a:recv(1))
  end)

  it("leaves the socket usable", function()
    local a, b = keep(support.tcp())
    a:settimeout(0.01)
    fails("ETIMEDOUT", a.recv, a, 1)
    b:sendall "later"
    assert.equal("later", a:recv(100))
    a:settimeout(nil)
    b:sendall "more"
    assert.equal("more", a:recv(100))
  end)

  it("is of each operation, not of the socket's life", function()
    local a, b = keep(socket.socketpair())
    a:settimeout(0.05)
    local start = now()
    for _ = 1, 3 do fails("ETIMEDOUT", a.recv, a, 1) end
    took(0.15, start)
    b:send "x"
    assert.equal("x", a:recv(1))
  end)

  it("bounds sendall as a whole, however steadily a Unix peer reads", function()
    local a <close>, b = socket.socketpair()
    local p, pid = support.peer(b, "for _ = 1, 40 do socket.sleep(0.02) if not s:recv(65536) then break end end")
    local bytes = ("x"):rep(20000000)
    a:settimeout(0.1)
    local start = now()
    local e = fails("ETIMEDOUT", a.sendall, a, bytes)
    took(0.1, start)
    assert.is_true(e.sent > 0 and e.sent < #bytes)
    support.kill(pid, "KILL")
    p:close()
  end)

  it("bounds sendall as a whole, however steadily a TCP peer reads", function()
    local a <close>, b = support.tcp()
    local p, pid = support.peer(b, "for _ = 1, 40 do socket.sleep(0.02) if not s:recv(65536) then break end end")
    local bytes = ("x"):rep(20000000)
    a:settimeout(0.1)
    local start = now()
    local e = fails("ETIMEDOUT", a.sendall, a, bytes)
    took(0.1, start)
    assert.is_true(e.sent > 0 and e.sent < #bytes)
    support.kill(pid, "KILL")
    p:close()
  end)

  it("holds in accept after a duplicate of the socket was made blocking", function()
    local server <close> = socket.create_server {"127.0.0.1", 0}
    local copy <close> = server:dup()
    server:settimeout(0.02)
    fails("ETIMEDOUT", server.accept, server)
    copy:settimeout(0)
    copy:settimeout(nil) -- the descriptors share one mode
    local start = now()
    fails("ETIMEDOUT", server.accept, server)
    took(0.02, start)
    server:settimeout(0)
    copy:settimeout(0):settimeout(nil)
    fails("EAGAIN", server.accept, server)
  end)

  it("ends at the time even if the kernel refuses to count it", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      a:settimeout(0.06)
      local start = socket.monotonic()
      local _, e = a:try_recv(1)
      assert(e:is(socket.timeout))
      assert(socket.monotonic() - start >= 0.06)
      b:send "x"
      assert(a:recv(1) == "x")
      a:close() b:close()]], "setsockopt:error=ENOPROTOOPT")
    assert.equal("", text)
    assert.equal(0, status)
  end)

  it("does not hide that waiting itself fails", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      a:settimeout(0.01)
      local _, e = a:try_recv(1)
      print(e.code, e.op, e.class)]], "ppoll:error=ENOMEM")
    assert.equal("ENOMEM\trecv\tsocket.error\n", text)
    assert.equal(0, status)
  end)
end)

describe("a timeout of 0", function()
  it("fails at once where others wait: EAGAIN, which is no timeout", function()
    local a, b = keep(support.tcp())
    local server <close> = socket.create_server {"127.0.0.1", 0}
    for _, s in ipairs {a, b, server} do s:settimeout(0) end
    for _, call in ipairs {
      function() return a:recv(1) end, function() return a:recvfrom(1) end, function() return server:accept() end,
      function() return a:recv(1, socket.MSG_WAITALL) end, function() while true do a:send(("x"):rep(65536)) end end,
      function() while true do a:sendall(("x"):rep(65536)) end end,
    } do
      local start = now()
      local e = fails("EAGAIN", call)
      took(0, start)
      assert.equal(socket.error, e.class)
      assert.is_false(e:is(socket.timeout))
      assert.equal(socket.errno.EAGAIN, e.errno)
    end
  end)

  it("takes what is there", function()
    local a, b = keep(support.tcp())
    a:settimeout(0)
    assert.equal(2, a:send "ab")
    assert.equal("ab", b:recv(10))
    b:sendall "cd"
    assert.equal("cd", a:recv(10))
  end)

  it("looks no names up", function()
    local s <close> = socket.socket():settimeout(0)
    local e = fails("EAGAIN", s.connect, s, {"a-name.invalid", 80})
    assert.equal("a name lookup would block", e.message)
  end)
end)

describe("a blocking socket", function()
  it("waits on a descriptor that others made non-blocking", function()
    local a <close>, b = socket.socketpair()
    local other <close> = a:dup()
    other:settimeout(0)
    local p <close> = support.peer(b, "socket.sleep(0.03) s:send 'late'")
    assert.is_nil(a:gettimeout())
    assert.equal("late", a:recv(10))
    p:read "a"
  end)

  it("becomes one again after timeouts, in every call", function()
    local a <close>, b = support.tcp()
    a:settimeout(0.05)
    fails("ETIMEDOUT", a.recv, a, 1)
    a:settimeout(0):settimeout(nil)
    local p <close> = support.peer(b, "socket.sleep(0.1) s:send 'late'")
    assert.equal("late", a:recv(10))
    p:read "a"
  end)
end)

describe("a signal", function()
  it("(EINTR) is nothing to a program that blocks", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local a <close> = socket.socket():connect(server:getsockname())
      local b <close> = server:accept()
      for _, s in ipairs {a, b} do s:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, true) end
      for _, t in ipairs {false, 5, 0.03} do
        a:settimeout(t or nil) b:settimeout(t or nil)
        a:sendall "one" assert(b:recv(10) == "one")
        assert(b:send "two" == 3) assert(a:recvfrom(10) == "two")
        a:sendall(("x"):rep(100)) assert(#b:recv(100, socket.MSG_WAITALL) == 100)
      end
      for _, t in ipairs {0.02, 0.06} do
        a:settimeout(t)
        local start = socket.monotonic()
        local _, e = a:try_recv(1)
        assert(e:is(socket.timeout) and socket.monotonic() - start >= t)
        start = socket.monotonic()
        socket.sleep(t)
        assert(socket.monotonic() - start >= t)
      end
      local u <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
      u:sendto("u", u:getsockname())
      assert(u:recvfrom(10) == "u")
      a:settimeout(0)
      assert(select(2, a:try_recv(1)).code == "EAGAIN")]],
      "recvfrom:error=EINTR:when=1+2", "sendto:error=EINTR:when=1+2", "accept4:error=EINTR:when=1",
      "ppoll:error=EINTR:when=1+2")
    assert.equal("", text)
    assert.equal(0, status)
  end)

  it("that stops and continues the process does not change when a timeout ends", function()
    local p <close>, pid = support.start [[
      local socket = require "socket"
      local a, b = socket.socketpair()
      a:settimeout(0.1)
      local start = socket.monotonic()
      local _, e = a:try_recv(1)
      print(e.code, socket.monotonic() - start)]]
    assert.is_true(support.asleep(pid))
    support.kill(pid, "STOP")
    socket.sleep(0.01)
    support.kill(pid, "CONT")
    local code, elapsed = p:read("a"):match "^(%S+)\t(%S+)"
    assert.equal("ETIMEDOUT", code)
    assert.is_true(tonumber(elapsed) >= 0.1 and tonumber(elapsed) < 0.6, elapsed)
  end)

  -- Ctrl-C: the interpreter sets a hook, which must get its turn.
  local function interrupted(code, message)
    local p <close>, pid = support.start(code)
    assert.is_true(support.asleep(pid), "it did not come to wait")
    local start = now()
    support.kill(pid, "INT")
    local text = p:read "a"
    took(0, start)
    assert.matches(message or "interrupted!", text, 1, true)
    local _, how, status = p:close()
    assert.same({"exit", 1}, {how, status})
  end

  local blocking = {
    ["accept"] = [[require"socket".create_server{"",0}:accept()]],
    ["accept in a coroutine"] = [[coroutine.wrap(function() require"socket".create_server{"",0}:accept() end)()]],
    ["accept with a timeout"] = [[require"socket".create_server{"",0}:settimeout(60):accept()]],
    ["recv"] = [[local a, b = require"socket".socketpair() a:recv(1)]],
    ["recv with a timeout"] = [[local a, b = require"socket".socketpair() a:settimeout(60):recv(1)]],
    ["recv with a timeout in a coroutine"] =
      [[local a, b = require"socket".socketpair() coroutine.wrap(function() a:settimeout(60):recv(1) end)()]],
    ["recv with MSG_WAITALL"] = [[local s = require"socket" local a, b = s.socketpair() a:recv(9, s.MSG_WAITALL)]],
    ["sendall"] = [[local a, b = require"socket".socketpair() a:sendall(("x"):rep(1e7))]],
    ["sendall with a timeout"] = [[local a, b = require"socket".socketpair() a:settimeout(60):sendall(("x"):rep(1e7))]],
    ["sleep"] = [[local s = require"socket" local a = s.socket() s.sleep(60)]],
    ["sleep(math.huge)"] = [[local s = require"socket" local a = s.socket() s.sleep(math.huge)]],
    ["sleep in a coroutine"] = [[local s = require"socket" local a = s.socket() coroutine.wrap(s.sleep)(60)]],
    ["connect"] = [[
      local socket = require "socket"
      local server, queued = socket.create_server({"127.0.0.1", 0}, {backlog = 0}), {}
      for i = 1, 8 do
        queued[i] = socket.socket()
        queued[i]:settimeout(0):connect_ex(server:getsockname())
      end
      socket.socket():connect(server:getsockname())]],
  }
  for name, code in pairs(blocking) do
    it("from Ctrl-C stops " .. name .. ' at once, with "interrupted!"', function() interrupted(code) end)
  end

  it("from Ctrl-C stops the one-liner of the manual", function()
    local command = h.lua() .. " -e " .. h.quote [[require"socket".create_server{"",0}:accept()]]
    local p <close> = assert(io.popen("exec 2>&1; echo $$; exec " .. command))
    local pid = tonumber(p:read "l")
    assert.is_true(support.asleep(pid))
    support.kill(pid, "INT")
    assert.matches("^[^\n]*: interrupted!\nstack traceback:", p:read "a")
    assert.same({nil, "exit", 1}, {p:close()})
  end)

  it("from Ctrl-C is an error like others: pcall catches it, and the socket is still good", function()
    interrupted([[
      local a, b = require"socket".socketpair()
      local ok, e = pcall(a.recv, a, 1)
      assert(not ok and e:match "interrupted!")
      b:send "still good"
      error(a:recv(100))]], "still good")
  end)

  it("from Ctrl-C in a coroutine that a hook declined to wait for", function()
    interrupted [[
      local socket = require "socket"
      socket.setwaithook(function() return nil end)
      local a, b = socket.socketpair()
      coroutine.wrap(function() a:recv(1) end)()]]
  end)
end)

describe("a Lua hook that runs because of a signal", function()
  it("may close the socket that is waited for: ECANCELED", function()
    support.needs_strace(pending)
    for _, call in ipairs {"a:recv(1)", "a:settimeout(5):recv(1)", "a:settimeout(0.01):recv(1)", "a:accept()"} do
      local text, status = support.faulty(([[
        local socket = require "socket"
        local a = socket.create_server {"127.0.0.1", 0}
        if not ("%s"):find "accept" then a = socket.socketpair() end
        debug.sethook(function()
          local f = debug.getinfo(3, "f")
          if f and (f.func == a.recv or f.func == a.accept) then debug.sethook() a:close() end
        end, "c")
        local _, e = pcall(function() %s end)
        print(e.code, e.message)]]):format(call, call),
        "recvfrom:error=EINTR:when=1", "ppoll:error=EINTR:when=1", "accept4:error=EINTR:when=1")
      assert.equal("ECANCELED\tsocket was closed while waiting\n", text, call)
      assert.equal(0, status)
    end
  end)
end)

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
        took(0, start)
      end
    end)

    it("nil: the library waits by itself", function()
      local a, b = keep(socket.socketpair())
      local calls = noting(nil, function() b:send "x" end)
      a:settimeout(0.02)
      local start = now()
      in_coroutine(function() fails("ETIMEDOUT", a.recv, a, 1) end)
      took(0.02, start)
      assert.equal("x", in_coroutine(a.recv, a, 1))
      assert.equal(2, #calls)
    end)

    it("true again and again: the timeout holds all the same", function()
      local a = keep(socket.socketpair())
      local calls = noting(true)
      a:settimeout(0.02)
      local start = now()
      in_coroutine(function() fails("ETIMEDOUT", a.recv, a, 1) end)
      took(0.02, start)
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
  end)

  describe("and connect:", function()
    it("an early true does not make a connection", function()
      local listener <close> = full_listener()
      local s = keep(socket.socket())
      s:settimeout(0.03)
      local calls = noting(true)
      local start = now()
      in_coroutine(function() fails("ETIMEDOUT", s.connect, s, listener.address) end)
      took(0.03, start)
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
          took(t, start)
          log[#log + 1] = "over"
        end)
      end
      S.spawn(function()
        a:settimeout(0.04)
        fails("ETIMEDOUT", a.recv, a, 1)
        took(0.04, start)
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
      took(0.005, start)
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
