-- lsocket_host.c: what lsocket.h offers a host program, used from one (spec/host/spechost.c).

local h = require "spec.helper"
local host = require "spec.support.host"
local support = require "spec.support"

describe("a host program", function()
  before_each(function() host.needs(pending) end)

  it("pushes open descriptors as sockets", function()
    host.holds("", [[
      local a, b = host.pair()
      local s, t = host.push(a), host.push(b, -1, -1, -1, 5)
      assert(s.family == socket.AF_UNIX and s.type == socket.SOCK_STREAM and s:gettimeout() == nil and t:gettimeout()
        == 5)
      assert(s:fileno() == a and host.fileno(s) == a)
      s:sendall "hello"
      assert(t:recv(10) == "hello")
      s:close()
      assert(t:recv(10) == nil and host.fileno(s) == -1)
      local r, w = host.pipe()
      local none, errno = host.push(r)
      assert(none == nil and errno == socket.errno.ENOTSOCK)
      none, errno = host.push(999)
      assert(none == nil and errno == socket.errno.EBADF)
      assert(socket.close(r) and socket.close(w)) -- theirs still
      local c = host.push((host.pair()), 77, 88, 99)
      assert(c.family == 77 and c.type == 88 and c.proto == 99)
      local n = host.push((host.pair()), -1, -1, -1, 0)
      assert(n:gettimeout() == 0 and select(2, n:try_recv(1)).code == "EAGAIN")
      print "ok"
    ]])
  end)

  it("with a Lua too old for the library is told so", function()
    local text, status = support.output("exec " .. host.program "oldlua")
    assert.equal("socket needs Lua 5.4.4 or later, and this is Lua 5.4.3\n", text)
    assert.equal(0, status)
  end)

  it("knows sockets from other values", function()
    host.holds("", [[
      local s = socket.socket()
      assert(host.test(s) and not host.test(io.stdout) and not host.test(nil) and not host.test "s" and not host.test
        {})
      assert(not host.test(socket.buffer(64)) and not host.test(host.bytes(("\0"):rep(64))))
      for _, v in ipairs {1, "s", {}, io.stdout, print} do
        local ok, e = pcall(host.fileno, v)
        assert(not ok and tostring(e):find "bad argument #1 to '.-' %(socket expected", e)
      end
      print "ok"
    ]])
  end)

  it("takes descriptors out", function()
    host.holds("", [[
      local s = socket.socket()
      local fd = s:fileno()
      assert(host.detach(s) == fd and host.detach(s) == -1 and tostring(s) == "socket: <closed>")
      assert(socket.close(fd))
      print "ok"
    ]])
  end)

  it("raises and pushes the library's errors", function()
    host.holds("", [[
      local ok, e = pcall(host.raise, socket.errno.ECONNREFUSED)
      assert(not ok and socket.iserror(e) and e.code == "ECONNREFUSED" and e.op == "host operation")
      assert(tostring(e):find "^/tmp/.*:1: host operation: Connection refused %(ECONNREFUSED%)$", tostring(e))
      e = host.error(socket.errno.ETIMEDOUT, 80)
      assert(e:is(socket.timeout) and e.address.port == 80 and tostring(e):find "host operation 127.0.0.1:80: ")
      print "ok"
    ]])
  end)

  it("tells its version", function()
    host.holds("", [[
      local n, text = host.version()
      local a, b, c = text:match "^(%d+)%.(%d+)%.(%d+)$"
      assert(n == a * 10000 + b * 100 + c and text == socket._VERSION)
      print "ok"
    ]])
  end)

  it("is asked about everything its policy may refuse", function()
    host.holds("-a -L", [[
      local function asked(f, ...)
        host.asked()
        local r = table.pack(pcall(f, ...))
        return host.asked(), table.unpack(r, 2)
      end
      local STREAM, INET, TCP = socket.SOCK_STREAM, socket.AF_INET, socket.IPPROTO_TCP
      local text, server = asked(socket.create_server, {"127.0.0.1", 0})
      local port = server:getsockname().port
      assert(text == ("socket - %d %d %d yes\nbind 127.0.0.1:0 %d %d %d yes\n"
        .. "listen 127.0.0.1:%d %d %d %d yes\n"):format(
        INET, STREAM, TCP, INET, STREAM, TCP, port, INET, STREAM, TCP), text)
      text = asked(socket.create_connection, {"127.0.0.1", port})
      assert(text == ("socket - 2 1 6 yes\nconnect 127.0.0.1:%d 2 1 6 yes\n"):format(port), text)
      local s = socket.socket()
      assert(asked(s.connect, s, {"localhost", port}) == ("connect 127.0.0.1:%d 2 1 6 yes\n"):format(port))
      local u = socket.socket(INET, socket.SOCK_DGRAM)
      assert(asked(u.sendto, u, "x", {"127.0.0.1", port}) == ("sendto 127.0.0.1:%d 2 2 17 yes\n"):format(port))
      assert(asked(u.send, u, "x") == "" and asked(s.send, s, "x") == "")
      assert(asked(socket.fromfd, s:fileno(), 1, 2) == ("fromfd 127.0.0.1:%d 2 1 6 yes\n"):format(port))
      assert(asked(socket.dup, 0):find "^dup %- %-1 %-1 %-1 yes")
      assert(asked(s.setsockopt, s, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) == "")
      assert(asked(s.setsockopt, s, socket.SOL_SOCKET, 36, 0) == "setsockopt - 2 1 6 yes\n")
      assert(asked(socket.socketpair) == "socketpair - 1 1 0 yes\n")
      print "ok"
    ]])
    for op, code in pairs {
      socket = "socket.socket()",
      socketpair = "socket.socketpair()",
      bind = "socket.socket():bind {'127.0.0.1', 0}",
      listen = "socket.create_server {'127.0.0.1', 0}",
      connect = "socket.socket():connect {'127.0.0.1', 1}",
      sendto = "socket.socket(2, 2):sendto('x', {'127.0.0.1', 1})",
      fromfd = "socket.fromfd(socket.socket():fileno(), 2, 1)",
      dup = "socket.dup(0)",
      close = "socket.close(99)",
      detach = "socket.socket():detach()",
      open = "local a = socket.socketpair() a:sendfile '/dev/null'",
      sethostname = "socket.sethostname ''",
      setsockopt = "socket.socket():setsockopt(socket.SOL_SOCKET, 36, 0)",
    } do
      host.holds("-n " .. op, ([[
        local ok, e = pcall(function() %s end)
        assert(not ok and e.code == "EACCES" and e.refused == %q, tostring(e))
        assert(tostring(e):find "refused by the host's policy")
        print "ok"
      ]]):format(code, op))
    end
  end)

  it("limits open sockets", function()
    host.holds("-l 5:0:0", [[
      local list = {}
      for i = 1, 5 do list[i] = socket.socket() end
      assert(host.count() == 5)
      local s, e = socket.try_socket()
      assert(not s and e.code == "EMFILE" and e.message:find "host allows no more")
      for _, f in ipairs {socket.try_socketpair, function() return list[1]:try_dup() end,
          function() return socket.try_create_server {"127.0.0.1", 0} end,
          function() return socket.try_create_connection {"127.0.0.1", 1} end} do
        s, e = f()
        assert(not s and e.code == "EMFILE", tostring(e))
      end
      list[5]:close()
      list[4]:close()
      local server = socket.create_server {"127.0.0.1", 0}
      local c = socket.create_connection(server:getsockname())
      assert(host.count() == 5)
      s, e = server:try_accept()
      assert(not s and e.code == "EMFILE")
      list[3] = nil -- garbage is room
      assert(server:accept())
      for _ = 1, 50 do socket.socket() end
      for _, f in ipairs {function() return c:try_detach() end, function() return socket.try_dup(0) end,
          function() return socket.try_fromfd(c:fileno(), 2, 1) end, function() return socket.try_recv_fds(c, 1, 1) end,
          function() return socket.try_close(99) end, function() return socket.try_socket(nil, nil, nil,
            c:fileno()) end} do
        s, e = f()
        assert(not s and e.code == "EACCES", tostring(e))
      end
      collectgarbage()
      local before = host.count()
      host.detach(c)
      assert(host.count() == before - 1)
      print "ok"
    ]])
  end)

  it("counts a socket once, under TLS too", function()
    host.holds("-t -l 4:0:0", [[
      if not socket.ssl then print "ok" return end
      local ctx = socket.ssl.SSLContext(socket.ssl.PROTOCOL_TLS_CLIENT)
      ctx.check_hostname = false
      for _ = 1, 20 do
        local a, b = socket.socketpair()
        local t = ctx:wrap_socket(a, {do_handshake_on_connect = false})
        assert(host.count() == 2 and t:fileno() >= 0)
        t:close()
        b:close()
        assert(host.count() == 0)
      end
      print "ok"
    ]])
  end)

  it("keeps received descriptors from a state that may have none", function()
    local path = os.tmpname()
    os.remove(path)
    local sender = h.lua() .. " -e " .. h.quote(([[
      local socket = require "socket"
      local s <close> = socket.socket(socket.AF_UNIX):connect(%q)
      socket.send_fds(s, "x", {s, s})
    ]]):format(path))
    host.holds("-l 0:0:4", [[
      local path, sender = ...
      local listener <close> = socket.create_server(path, {family = socket.AF_UNIX})
      local p = io.popen(sender)
      local data, items, flags = listener:accept():recvmsg(10, 100)
      os.remove(path)
      assert(data == "x" and flags & socket.MSG_CTRUNC ~= 0)
      assert(#items == 0 or items[1].data == ("\255"):rep(8))
      p:close()
      print "ok"
    ]], path, sender)
  end)

  it("has no descriptors in flight, which nobody counts and which outlive the state", function()
    for _, limits in ipairs {"0:0:4", "10:0:0"} do
      host.holds("-l " .. limits, [[
        local a, b = socket.socketpair()
        local function refused(f, ...)
          local ok, e = pcall(f, ...)
          assert(not ok and socket.iserror(e) and e.code == "EACCES", e)
        end
        local SCM_RIGHTS = socket.SCM_RIGHTS
        refused(socket.send_fds, a, "x", {b})
        refused(socket.send_fds, a, "x", {io.stdout, b})
        refused(a.sendmsg, a, "x", {{socket.SOL_SOCKET, SCM_RIGHTS, string.pack("i", b:fileno())}})
        refused(a.sendmsg, a, "x", {{socket.SOL_SOCKET, SCM_RIGHTS, socket.buffer(string.pack("i", 1))}})
        assert(socket.send_fds(a, "x", {}) == 1 and a:sendmsg("y", {}) == 1)
        assert(b:recv(10) == "xy")
        print "ok"
      ]])
    end
  end)

  it("closes received descriptors with the state, also where Lua could not call their finalizer", function()
    local text, status = host.run("-o", [[
      local function nest(n, f) -- so deep that Lua calls no __gc any more
        if n == 0 then return f() end
        string.gsub("x", "x", function() nest(n - 1, f) end)
      end
      local a, b = socket.socketpair()
      for depth = 185, 199 do
        collectgarbage()
        collectgarbage "stop"
        for _ = 1, 5 do
          socket.send_fds(a, "x", {a})
          b:recvmsg(1, 100)
        end
        pcall(nest, depth, collectgarbage)
      end
    ]])
    assert.equal(0, status)
    assert.equal("descriptors: 0\n", text)
  end)

  it("has servers close what they were asked, also where nobody may have plain descriptors", function()
    host.holds("-l 0:0:4", [[
      local server = require "socket.server"
      for _, class in ipairs {server.TCPServer, server.TaskTCPServer} do
        local taken
        local s <close> = class({"127.0.0.1", 0}, function(request)
          assert(not request:try_detach())
          taken = request
        end, {timeout = 5})
        local c <close> = socket.create_connection(s.server_address, 5)
        assert(s:handle_request() and c:recv(1) == nil)
        assert(taken:fileno() == -1)
      end
      print "ok"
    ]])
  end)

  it("limits what is received at once, and what buffers and files hold", function()
    host.holds("-l 0:1000:0", [[
      local a, b = socket.socketpair()
      local function bad(f, ...)
        local ok, e = pcall(f, ...)
        assert(not ok and tostring(e):find "more than the 1000 bytes the host allows", tostring(e))
      end
      bad(a.recv, a, 1001)
      bad(a.recvfrom, a, 1001)
      bad(a.recvmsg, a, 1001)
      bad(a.recvmsg, a, 10, 1001)
      bad(socket.buffer, 1001)
      bad(socket.buffer, ("x"):rep(1001))
      bad(a.makefile, a, "r", 1001)
      b:sendall(("x"):rep(900) .. "\n" .. ("y"):rep(2000) .. "\n")
      assert(a:recv(1000, socket.MSG_PEEK) == ("x"):rep(900) .. "\n" .. ("y"):rep(99))
      local f = a:makefile()
      assert(f:read() == ("x"):rep(900))
      local line, e = f:try_read()
      assert(not line and e.code == "ENOBUFS", tostring(e))
      assert(f:read(1000) == ("y"):rep(1000))
      line, e = f:try_read(1001)
      assert(not line and e.code == "ENOBUFS", tostring(e))
      bad(f.setvbuf, f, "full", 1001)
      print "ok"
    ]])
  end)

  it("forbids name lookups", function()
    host.holds("-l 0:0:1", [[
      for _, f in ipairs {function(n) return socket.getaddrinfo(n, 80) end, socket.gethostbyname,
        socket.gethostbyname_ex,
          socket.gethostbyaddr, function(n) return socket.create_connection {n, 80} end,
          function(n) socket.socket():connect {n, 80} end, function(n) socket.socket():settimeout(0):connect {n,
            80} end,
          function(n) socket.socket():settimeout(2):bind {n, 0} end,
          function(n) socket.socket(2, 2):sendto("x", {n, 80}) end} do
        local ok, e = pcall(f, "example.invalid")
        assert(not ok and e.code == "EACCES" and e.message:find "no name lookups", tostring(e))
      end
      local ok, e = pcall(socket.gethostbyaddr, "127.0.0.1")
      assert(not ok and e.code == "EACCES")
      ok, e = pcall(socket.getnameinfo, {"127.0.0.1", 80})
      assert(not ok and e.code == "EACCES")
      assert(socket.getnameinfo({"127.0.0.1", 80}, socket.NI_NUMERICHOST) == "127.0.0.1")
      assert(#socket.getaddrinfo("127.0.0.1", 80) > 0)
      assert(socket.getfqdn "example.invalid" == "example.invalid")
      local server = socket.create_server {"localhost", 0}
      socket.socket():connect(server:getsockname())
      print "ok"
    ]])
  end)

  it("lets nothing block", function()
    host.holds("-l 0:0:2", [[
      local started = socket.monotonic()
      local server = socket.create_server {"127.0.0.1", 0}
      local a, b = socket.socketpair()
      local u = socket.socket(2, 2):bind {"127.0.0.1", 0}
      local function busy(f, ...)
        local r, e = f(...)
        assert(not r and e.code == "EAGAIN", tostring(e))
      end
      for _, timeout in ipairs {false, 5, 0} do
        for _, s in ipairs {a, u, server} do s:settimeout(timeout or nil) end
        busy(server.try_accept, server)
        busy(a.try_recv, a, 1)
        busy(a.try_recv, a, 1, socket.MSG_WAITALL)
        busy(u.try_recvfrom, u, 1)
        busy(u.try_recvmsg, u, 1)
        local f = a:makefile()
        busy(f.try_read, f)
        f:close()
        a:try_sendall(("x"):rep(1 << 22))
        busy(a.try_send, a, "x")
        while b:try_recv(65536) do end
      end
      busy(socket.try_getaddrinfo, "example.invalid", 80)
      local ok, e = pcall(socket.sleep, 5)
      assert(not ok and e.code == "EAGAIN")
      e = select(2, u:try_setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 10)))
      assert(e.code == "EACCES")
      u:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 0))
      -- a wait hook that does not know what to do is no way around it, one that does is
      local calls = 0
      socket.setwaithook(function() calls = calls + 1 return nil end)
      coroutine.wrap(function() busy(a.settimeout(a, 5).try_recv, a, 1) end)()
      assert(calls == 1)
      socket.setwaithook(function() b:send "y" return true end)
      coroutine.wrap(function() assert(a:recv(1) == "y") end)()
      socket.setwaithook(nil)
      busy(a.try_recv, a, 1)
      assert(socket.monotonic() - started < 4)
      print "ok"
    ]])
  end)

  it("makes sockets that begin without waiting", function()
    host.holds("-l 0:0:8", [[
      local s = socket.socket()
      assert(s:gettimeout() == 0 and s:settimeout(5):gettimeout() == 5)
      print "ok"
    ]])
  end)

  it("works without the library package, and finds TLS that is linked in", function()
    host.holds("-p -d -t", [[
      assert(not require and not package)
      local a, b = socket.socketpair()
      a:send "x"
      assert(b:recv(1) == "x")
      assert(socket.ssl == nil or socket.ssl.OPENSSL_VERSION)
      assert(socket.ssl == socket.ssl)
      print "ok"
    ]])
    host.holds("-p -d", "assert(socket.ssl == nil) print 'ok'")
  end)
end)
