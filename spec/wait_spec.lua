-- Waiting: modes and timeouts, signals and Ctrl-C. The hook that makes blocking calls cooperative is in
-- wait_hook_spec.lua.

local h = require "spec.helper"
local check = require "spec.support.check"
local listeners = require "spec.support.listeners"
local socket = require "socket"
local streams = require "spec.support.streams"
local support = require "spec.support"

local fails, keep, on_time = support.fails, support.keep, check.on_time
local fill, full_listener = streams.fill, listeners.full
local now = socket.monotonic

after_each(support.close_kept)

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
      on_time(t, start)
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
        on_time(t, start)
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
      on_time(t, start)
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
    on_time(0.06, start)
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
    on_time(0.15, start)
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
    on_time(0.1, start)
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
    on_time(0.1, start)
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
    on_time(0.02, start)
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
      on_time(0, start)
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
    on_time(0, start)
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
