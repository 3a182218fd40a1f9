-- lsocket_policy.c: attacks on a host's policy. They run in a host program (spec/host/spechost.c) with the policy on;
-- what they try to reach waits here, and must not have heard of anybody.

local socket = require "socket"
local host = require "spec.support.host"
local support = require "spec.support"

-- What attack scripts begin with: refused(f, ...) wants an EACCES of the policy; `port` is where nobody may go, `good`
-- where a rule leads to.
local PRELUDE = [[
  local port, good, path = tonumber((...)), tonumber((select(2, ...))), (select(3, ...))
  local function refused(f, ...)
    local ok, e = pcall(f, ...)
    if ok then error("not refused", 2) end
    if not (socket.iserror(e) and e.code == "EACCES" and e.message:find "host") then error(tostring(e), 2) end
    return e
  end
  local function tampered(f, ...)
    local ok, e = pcall(f, ...)
    if ok then error("not noticed", 2) end
    if not tostring(e):find "tampered" then error(tostring(e), 2) end
  end
  local AF = {v4 = socket.AF_INET, v6 = socket.AF_INET6}
  local function tcp(family) return socket.socket(family or AF.v4) end
  local function udp(family) return socket.socket(family or AF.v4, socket.SOCK_DGRAM) end
]]

describe("the policy of a host", function()
  local tcp4, tcp6, udp4, udp6, unix, good, port, path

  setup(function()
    tcp4 = socket.create_server {"127.0.0.1", 0}
    port = tcp4:getsockname().port
    if support.has_ipv6() then
      tcp6 = socket.create_server({"::1", port}, {family = socket.AF_INET6})
      udp6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM):bind {"::1", port}:settimeout(0)
      tcp6:settimeout(0)
    end
    udp4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", port}:settimeout(0)
    good = socket.create_server {"127.0.0.1", 0}
    path = os.tmpname()
    os.remove(path)
    unix = socket.socket(socket.AF_UNIX):bind(path):listen():settimeout(0)
    tcp4:settimeout(0)
    good:settimeout(0)
  end)

  teardown(function()
    for _, s in ipairs {tcp4, tcp6, udp4, udp6, unix, good} do s:close() end
    os.remove(path)
  end)

  before_each(function() host.needs(pending) end)

  -- Nobody came to where nobody may go.
  local function untouched()
    for _, s in ipairs {tcp4, tcp6 or tcp4, unix} do
      local _, e = s:try_accept()
      assert.equals("EAGAIN", e.code)
    end
    for _, s in ipairs {udp4, udp6 or udp4} do
      local _, e = s:try_recv(100)
      assert.equals("EAGAIN", e.code)
    end
  end

  local function attack(code, options)
    local rules = ("-r -c 127.0.0.1:%d -c '*:443' "):format(good:getsockname().port)
    host.holds(rules .. (options or ""), PRELUDE .. code .. " print 'ok'", port, good:getsockname().port, path)
    untouched()
  end

  it("lets through what a rule allows", function()
    attack [[
      local s = socket.create_connection {"127.0.0.1", good}
      assert(s:getpeername().port == good)
      tcp():connect {"localhost", good}:close()
      local u = udp():bind {"", 0}
      assert(u:sendto("x", {"127.0.0.1", good}) == 1)
    ]]
  end)

  it("refuses every way to write a forbidden address", function()
    attack [[
      local hosts = {"127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.2", "",
        "0.0.0.0", "<broadcast>", "255.255.255.255", 0x7F000001, 0, 0xFFFFFFFF, "169.254.169.254", "10.0.0.1",
        "172.16.5.5", "192.168.1.1", "100.64.0.1", "224.0.0.1", "198.51.100.1", "240.0.0.1", "168.63.129.16"}
      for _, name in ipairs(hosts) do
        for _, p in ipairs {port, 443} do
          local e = refused(function() tcp():connect {name, p} end)
          assert(e.refused == "connect" and e.address.host:find "^%d+%.%d+%.%d+%.%d+$" and e.address.port == p, e)
          refused(function() udp():connect {name, p} end)
          refused(function() udp():sendto("x", {name, p}) end)
          refused(function() udp():sendmsg("x", nil, 0, {name, p}) end)
          assert(tcp():connect_ex {name, p} == socket.errno.EACCES)
          if type(name) == "string" and name ~= "<broadcast>" then
            local ok, e = pcall(socket.create_connection, {name, p}, 5)
            assert(not ok and (e.code == "EACCES" or socket.iserror(e, socket.gaierror)), e)
          end
        end
      end
    ]]
  end)

  it("sees IPv4 addresses within IPv6 ones, and scope ids", function()
    if not tcp6 then return pending "needs IPv6" end
    attack [[
      local hosts = {"::1", "localhost", "::", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:1::1",
        "fe80::1%lo", "fe80::1%1", "::1%lo", "fe80::1", "fec0::1", "fd00:ec2::254", "fc00::1", "ff02::1", "100::1",
        "2001:db8::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2600:1::5efe:10.0.0.1", "4000::1",
          "::ffff:0.0.0.0"}
      for _, name in ipairs(hosts) do
        for _, p in ipairs {port, 443} do
          refused(function() tcp(AF.v6):connect {name, p} end)
          refused(function() tcp(AF.v6):connect {name, p, 0, 1} end)
          refused(function() udp(AF.v6):sendto("x", {name, p}) end)
          refused(function() udp(AF.v6):connect {name, p} end)
        end
      end
      local s = tcp(AF.v6):setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
      refused(function() s:connect {"::ffff:127.0.0.1", port} end)
      tcp(AF.v6):setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0):connect {"::ffff:127.0.0.1", good}
    ]]
  end)

  it("asks again for every connect and every datagram", function()
    attack [[
      local s = udp():connect {"127.0.0.1", good}
      refused(function() s:connect {"127.0.0.1", port} end)
      refused(function() s:sendto("x", {"127.0.0.1", port}) end)
      assert(s:getpeername().port == good)
      local free = udp():connect {"127.0.0.1", good}:disconnect() -- its next peer is asked about as the first was
      refused(function() free:connect {"127.0.0.1", port} end)
      refused(function() free:sendto("x", {"127.0.0.1", port}) end)
      local addr = s:getpeername()
      addr.port = port
      refused(function() s:sendto("x", addr) end)
      local sly = setmetatable({}, {__index = function(_, k) return k == 1 and "127.0.0.1" or port end})
      assert(not pcall(s.sendto, s, "x", sly)) -- metamethods are not asked: bad argument
    ]]
  end)

  it("refuses TCP Fast Open, and the options that lead around it", function()
    attack [[
      if socket.MSG_FASTOPEN then
        local e = refused(function() tcp():sendto("x", socket.MSG_FASTOPEN, {"127.0.0.1", port}) end)
        assert(e.refused == "connect")
        refused(function() tcp():sendmsg("x", nil, socket.MSG_FASTOPEN, {"127.0.0.1", port}) end)
      end
      local s = tcp():setsockopt(socket.IPPROTO_TCP, 30, 1) -- TCP_FASTOPEN_CONNECT
      refused(function() s:connect {"127.0.0.1", port} end)
    ]]
  end)

  it("refuses options, and ancillary data, that change where packets go", function()
    attack [[
      local s, d = tcp(), udp()
      local bad = {{socket.SOL_SOCKET, socket.SO_BINDTODEVICE, "lo"}, {socket.IPPROTO_IP, 19, 1}, -- IP_TRANSPARENT
        {socket.IPPROTO_IP, 15, 1}, {socket.IPPROTO_IP, 4, ("\131\7\4\127\0\0\1\0"):rep(1)}, -- IP_FREEBIND, IP_OPTIONS
        {socket.IPPROTO_TCP, 19, 1}, {socket.SOL_SOCKET, 36, 1}, {socket.SOL_SOCKET, 26, ("\0"):rep(16)},
          -- TCP_REPAIR, SO_MARK, filter
        {socket.IPPROTO_IPV6, 57, "\0"}, {socket.IPPROTO_IPV6, 1, socket.AF_INET}, -- IPV6_RTHDR, IPV6_ADDRFORM
        {132, 110, ("\2\0\0\0\127\0\0\1"):rep(2)}, {socket.IPPROTO_TCP, 31, "tls"}, {socket.IPPROTO_UDP, 100, 1},
        {socket.IPPROTO_IP, 3, 1}, {socket.IPPROTO_IP, 42, ("\0"):rep(136)}, {socket.IPPROTO_IP, 41, ("\0"):rep(16)}}
      for _, o in ipairs(bad) do
        for _, x in ipairs {s, d} do
          local e = refused(x.setsockopt, x, o[1], o[2], o[3])
          assert(e.refused == "setsockopt" or e.refused == "join")
        end
      end
      local group = socket.inet_aton "239.1.2.3" .. socket.inet_aton "127.0.0.1"
      assert(refused(d.setsockopt, d, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group).refused == "join")
      refused(d.setsockopt, d, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.buffer(group))
      local items = {{socket.IPPROTO_IP, 7, "\131\3\4"}, {socket.IPPROTO_IP, 8, ("\0"):rep(12)}, {socket.SOL_SOCKET,
        36, "\0\0\0\0"},
        {socket.IPPROTO_IPV6, 57, ("\0"):rep(24)}, {132, 6, "\127\0\0\1"}, {socket.SOL_SOCKET, 1, "\3\0\0\0"}}
      for _, item in ipairs(items) do
        refused(d.sendmsg, d, "x", {item}, 0, {"127.0.0.1", good})
      end
      for _, o in ipairs {"SO_REUSEADDR", "SO_KEEPALIVE", "SO_BROADCAST"} do s:setsockopt(socket.SOL_SOCKET,
        socket[o], 1) end
      s:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      refused(s.getsockopt, s, 132, 102)
    ]]
  end)

  it("refuses raw and packet sockets, and every other family", function()
    attack [[
      local kinds = {{socket.AF_INET, socket.SOCK_RAW, 1}, {socket.AF_INET6, socket.SOCK_RAW, 58}, {socket.AF_INET,
        10, 3},
        {17, socket.SOCK_RAW, 768}, {17, socket.SOCK_DGRAM}, {16, socket.SOCK_RAW}, {40}, {38, 5}, {31, 3}, {29, 3},
          {30},
        {socket.AF_UNIX}, {socket.AF_UNIX, socket.SOCK_DGRAM}, {21, 5}, {43}, {44, 3}, {0}, {3, 5}, {socket.AF_INET, 4},
        {socket.AF_INET, 6}, {socket.AF_INET, 5}}
      for _, k in ipairs(kinds) do
        local e = refused(socket.socket, table.unpack(k))
        assert(e.refused == "socket" and e.family == k[1] and e.type == (k[2] or socket.SOCK_STREAM))
        local s, e = socket.try_socket(table.unpack(k))
        assert(s == nil and e.code == "EACCES")
      end
      refused(socket.create_server, "/tmp/x", {family = socket.AF_UNIX})
      refused(socket.socketpair, 30, socket.SOCK_STREAM)
    ]]
  end)

  it("refuses Unix paths, symbolic links and abstract names, of a pair's sockets too", function()
    attack [[
      local a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      os.execute("ln -s " .. path .. " " .. path .. ".link")
      for _, p in ipairs {path, path .. ".link", "\0name", ""} do
        refused(a.connect, a, p)
        refused(a.sendto, a, "x", p)
        refused(a.sendmsg, a, "x", nil, 0, p)
        refused(a.bind, a, p)
        refused(socket.send_fds, a, "x", {b}, 0, p)
      end
      os.remove(path .. ".link")
      assert(a:send "x" == 1 and b:recv(9) == "x")
    ]]
  end)

  it("refuses to serve, but where a rule allows it", function()
    attack [[
      local s = tcp()
      refused(s.bind, s, {"127.0.0.1", 0})
      refused(s.bind, s, {"", port})
      assert(refused(s.listen, s).refused == "listen")
      s:bind {"", 0}
      refused(s.listen, s)
      refused(socket.create_server, {"127.0.0.1", 0})
      refused(socket.create_server, {"", 0})
      refused(socket.create_server, {"::", 0}, {family = AF.v6, dualstack_ipv6 = true})
      refused(socket.create_connection, {"127.0.0.1", good}, 5, {source_address = {"127.0.0.1", 0}})
    ]]
    attack([[
      local s = socket.create_server {"127.0.0.1", 0}
      assert(s:getsockname().port > 0)
    ]], "-b '127.0.0.1:*'")
  end)

  it("asks for descriptors that are to become sockets, whatever the script says they are", function()
    attack [[
      local fd, second = host.pair()
      local e = refused(socket.fromfd, fd, AF.v4, socket.SOCK_DGRAM)
      assert(e.refused == "fromfd")
      refused(socket.socket, AF.v4, socket.SOCK_DGRAM, 0, fd)
      refused(socket.socket, nil, nil, nil, fd)
      refused(socket.dup, fd)
      refused(socket.close, fd)
      local a, b = socket.socketpair()
      local ok, e = pcall(socket.send_fds, a, "x", {fd})
      assert(not ok and tostring(e):find "refused by the host")
      for n = 0, 20 do
        local ok, e = pcall(socket.fromfd, n, AF.v4, socket.SOCK_STREAM)
        assert(not ok and (e.code == "EACCES" or e.code == "ENOTSOCK" or e.code == "EBADF"), e)
      end
    ]]
    -- where descriptors are allowed, what they are is asked of the system
    attack([[
      local fd = udp():detach()
      local s = socket.fromfd(fd, 0, socket.SOCK_DGRAM) -- {0, bytes} would be an IPv4 address for the kernel
      assert(s.family == AF.v4 and s.type == socket.SOCK_DGRAM)
      local raw = string.pack(">I2", port) .. socket.inet_aton "127.0.0.1" .. ("\0"):rep(8)
      assert(not pcall(s.sendto, s, "x", {0, raw}))
      s = socket.socket(0, socket.SOCK_DGRAM, 0, fd)
      assert(s.family == AF.v4)
      refused(s.sendto, s, "x", {"127.0.0.1", port})
    ]], "-f")
  end)

  it("refuses files by their path, TLS's too", function()
    attack([[
      local s = socket.create_connection {"127.0.0.1", good}
      assert(refused(s.sendfile, s, "/etc/passwd").refused == "open")
      local ssl = socket.ssl
      if ssl then
        local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        refused(c.load_cert_chain, c, "/etc/passwd")
        refused(c.load_verify_locations, c, "/etc/passwd")
        refused(function() c.keylog_filename = "/tmp/keys" end)
        refused(ssl.create_default_context, {cafile = "/etc/passwd"})
        refused(ssl.create_default_context, {capath = "/etc/ssl"})
        refused(c.load_verify_locations, c, nil, "/etc/ssl")
        refused(c.load_verify_locations, c, {cafile = "/etc/passwd", cadata = ""})
        refused(c.load_cert_chain, c, "/dev/null", "/etc/passwd", "password")
        refused(function() return socket.ssl(s, "/etc/passwd", "/etc/passwd") end)
        refused(function() return s.sendfile(s, "/etc/passwd", 0, 1) end)
        refused(function() return s.sendfile(s, "./README.md") end)
        if ssl.get_server_certificate then
          local ok, e = pcall(ssl.get_server_certificate, {"127.0.0.1", port})
          assert(not ok and e.code == "EACCES")
        end
        local _, e = c:try_load_dh_params "/etc/passwd"
        assert(e.code == "EACCES")
      end
    ]], "-t")
  end)

  it("holds within coroutines, hooks and to-be-closed variables", function()
    attack [[
      socket.setwaithook(function(s, dir, t)
        assert(s.fileno)
        refused(function() tcp():connect {"127.0.0.1", port} end)
        return nil
      end)
      local co = coroutine.wrap(function()
        local e = refused(function() socket.create_connection({"127.0.0.1", port}, 5) end)
        local s = tcp():settimeout(5)
        refused(s.connect, s, {"127.0.0.1", port})
        s:connect {"127.0.0.1", good}
        setmetatable({}, {__gc = function() refused(function() tcp():connect {"127.0.0.1", port} end) end})
        collectgarbage()
      end)
      co()
    ]]
  end)

  it("cannot be reached through metatables and method tables", function()
    attack [[
      local s = tcp()
      socket.SocketType.connect = nil
      socket.SocketType.bind = s.listen
      assert(getmetatable(s) == false)
      for name, f in pairs(socket) do
        if type(f) == "function" and tostring(name):find "policy" then error "reachable" end
      end
      assert(not socket.setpolicy and not socket.setlimits)
    ]]
  end)

  it("withstands debug.setmetatable and forged userdata", function()
    attack [[
      local s = tcp()
      local meta = debug.getmetatable(s)
      local connect, send = s.connect, s.send
      for size = 0, 600, 8 do
        local u = host.bytes(("\1"):rep(size))
        debug.setmetatable(u, meta)
        assert(not pcall(function() return u:connect {"127.0.0.1", port} end))
        assert(not pcall(send, u, "x"))
        for _, f in pairs(meta) do if type(f) == "function" then pcall(f, u, "x") end end
      end
      debug.setmetatable(io.stdout, meta)
      assert(not pcall(connect, io.stdout, {"127.0.0.1", port}))
      debug.setmetatable(s, nil)
      refused(connect, s, {"127.0.0.1", port})
    ]]
  end)

  it("withstands debug.setupvalue: no forged core is believed", function()
    attack [[
      local s = tcp()
      local connect, create = s.connect, socket.socket
      local _, core = debug.getupvalue(connect, 1)
      assert(type(core) == "userdata")
      local forged = {host.bytes(("\0"):rep(512)), host.bytes(("\0"):rep(4096)), socket.buffer(512), s, io.stdout}
      for _, value in ipairs(forged) do
        local address = {"127.0.0.1", port}
        for f, args in pairs {[connect] = {s, address}, [create] = {}, [socket.create_connection] = {address},
            [s.sendto] = {s, "x", address}, [s.send] = {s, "x"}, [s.setsockopt] = {s, 1, 2, 3}, [socket.fromfd] = {0,
              2, 1},
            [s.listen] = {s}, [s.recv] = {s, 1}, [s.accept] = {s}, [socket.socketpair] = {},
              [socket.create_server] = {address}} do
          debug.setupvalue(f, 1, value)
          tampered(f, table.unpack(args))
          debug.setupvalue(f, 1, core)
        end
      end
      for _, value in ipairs {false, 1, "text", {}, print} do
        debug.setupvalue(connect, 1, value)
        tampered(connect, s, {"127.0.0.1", port})
      end
      debug.setupvalue(connect, 1, core)
      refused(connect, s, {"127.0.0.1", port})
    ]]
  end)

  it("withstands changes of the core's user values and metatable, and its finalizer called", function()
    attack [[
      local s = tcp()
      local _, core = debug.getupvalue(s.connect, 1)
      s:connect {"127.0.0.1", good}
      s:shutdown(socket.SHUT_WR)
      local gc = debug.getmetatable(core).__gc
      gc(core)
      gc(host.bytes(("\0"):rep(4096)))
      for i = 1, 32 do
        local _, was = debug.getuservalue(core, i)
        if was then
          debug.setuservalue(core, {}, i)
          pcall(function() tcp():connect {"127.0.0.1", port} end)
          debug.setuservalue(core, host.bytes(("\65"):rep(64)), i)
          pcall(function() tcp():connect {"127.0.0.1", port} end)
          pcall(function() return socket.ssl.SSLContext(16) end)
        end
      end
      debug.setmetatable(core, nil)
      collectgarbage()
      assert(not pcall(function() tcp():connect {"127.0.0.1", port} end))
    ]]
  end)

  it("withstands a registry laid waste, and the module opened anew", function()
    attack [[
      local registry = debug.getregistry()
      local connect, s = socket.SocketType.connect, tcp()
      for k, v in pairs(registry) do
        if type(k) == "string" and k:find "lsocket" then registry[k] = host.bytes(("\0"):rep(512)) end
      end
      tampered(host.push, 0)
      for k, v in pairs(registry) do
        if v == socket or (type(k) == "string" and k:find "lsocket") then registry[k] = nil end
      end
      package.loaded.socket = nil
      assert(not pcall(host.push, 0))
      refused(connect, s, {"127.0.0.1", port})
      local fresh = package.preload.socket
      assert(fresh == nil) -- nothing there to open a second one with
    ]]
  end)

  it("keeps what others anchor: views, files, received descriptors", function()
    attack [[
      local b = socket.buffer(("x"):rep(4096))
      local v = b:view(1, 100)
      debug.setuservalue(v, nil, 1)
      b = nil
      collectgarbage()
      assert(not pcall(function() return v:sub(1, 10) end) and not pcall(v.set, v, 1, "y"))
      local p, q = socket.socketpair()
      socket.send_fds(p, "x", {p})
      local _, items = q:recvmsg(10, 100)
      debug.setuservalue(items[1], nil, 1)
      collectgarbage()
      assert(not pcall(function() return items[1].data end))
    ]]
  end)

  it("keeps the host's descriptors out of selectors and loop.wait", function()
    attack [[
      local selectors, wait = socket.selectors, socket.reactor.wait
      local theirs = host.pair()
      local closed = tcp()
      closed:close()
      socket.SocketType.fileno = function() return theirs end -- a closed socket has no number of its own
      local objects = {theirs, theirs + 0.0, {fileno = function() return theirs end}, {getfd = function() return
        theirs end}, setmetatable({}, {__index = {fileno = function() return theirs end}}), 0, 1, 2, closed}
      for _, o in ipairs(objects) do
        for _, make in ipairs {selectors.DefaultSelector, selectors.PollSelector} do
          local sel <close> = make()
          local e = refused(sel.register, sel, o, selectors.EVENT_READ)
          assert(e.refused == "fromfd" and e.op == "register")
          assert(not pcall(sel.get_key, sel, o) and not pcall(sel.modify, sel, o, 1) and next(sel:get_map()) == nil)
        end
        refused(selectors.select, {o}, {}, {}, 0)
        refused(selectors.select, {}, {o}, {}, 0)
        refused(selectors.select, {}, {}, {tcp(), o}, 0)
        refused(wait, o, "r", 0)
        -- the hook would be given a socket made of it
        socket.setwaithook(function(s) error("given " .. tostring(s)) end)
        coroutine.wrap(function() refused(wait, o, "r", 1) end)()
        socket.setwaithook(nil)
      end
      -- what is ours may be waited for
      local a, b = socket.socketpair()
      local f, sel <close> = b:makefile(), selectors.DefaultSelector()
      local outer <close> = selectors.DefaultSelector()
      sel:register(f, selectors.EVENT_READ)
      outer:register(sel, selectors.EVENT_READ)
      a:send "x"
      assert(outer:select(5)(outer).fileobj == sel and sel:select(5)(sel).fileobj == f)
      assert(wait(b, "r", 5) and #selectors.select({f}, {}, {}, 5) == 1)
    ]]
    -- where descriptors are allowed, what a wait hook sees of them is judged as what it is
    attack([[
      local s = udp()
      local fd = s:detach()
      socket.setwaithook(function(w)
        assert(w.family == AF.v4 and w.type == socket.SOCK_DGRAM)
        refused(w.sendto, w, "x", {"127.0.0.1", port})
        refused(w.connect, w, {"127.0.0.1", port})
        return false
      end)
      coroutine.wrap(function() assert(socket.reactor.wait(fd, "r", 1) == false) end)()
      socket.setwaithook(nil)
    ]], "-f")
  end)

  it("holds for the sockets that wait hooks are given", function()
    attack [[
      local given = 0
      socket.setwaithook(function(w)
        given = given + 1
        for _, to in ipairs {path, {"127.0.0.1", port}, {AF.v4, string.pack(">I2", port) .. "\127\0\0\1" ..
            ("\0"):rep(8)}} do
          assert(not pcall(w.connect, w, to) and not pcall(w.sendto, w, "x", to) and not pcall(w.bind, w, to))
        end
        if w.family == socket.AF_UNIX then
          refused(w.connect, w, path)
          refused(w.sendto, w, "x", path)
          refused(w.bind, w, path .. "2")
        end
        return nil
      end)
      coroutine.wrap(function() socket.sleep(0.01) end)()
      coroutine.wrap(function() socket.getaddrinfo("localhost", port) end)()
      coroutine.wrap(function() pcall(socket.create_connection, {"localhost", port}, 5) end)()
      local a, b = socket.socketpair()
      b:send "x"
      coroutine.wrap(function() socket.selectors.select({a}, {}, {}, 1) end)()
      local sel = socket.selectors.DefaultSelector()
      coroutine.wrap(function() sel:register(b, 1) sel:select(0.01) end)()
      socket.setwaithook(nil)
      assert(given > 1, given)
    ]]
  end)

  it("judges raw addresses, named fields and changed address objects as what they are", function()
    attack [[
      local raw = string.pack(">I2", port) .. "\127\0\0\1" .. ("\0"):rep(8)
      local named = tcp():connect({"127.0.0.1", good}):getpeername()
      named[1], named[2] = "127.0.0.1", port
      for _, to in ipairs {{host = "127.0.0.1", port = port}, {"127.0.0.1", port = port}, {host = 2130706433, port =
          port}, named, setmetatable({"127.0.0.1", port}, {__index = {"127.0.0.1", good}})} do
        refused(function() tcp():connect(to) end)
        refused(function() udp():sendto("x", to) end)
        refused(function() udp():connect(to) end)
      end
      for _, to in ipairs {{AF.v4, raw}, {0, raw}, {AF.v6, raw}, {1, path}, path} do
        assert(not pcall(function() tcp():connect(to) end))
        assert(not pcall(function() udp():sendto("x", to) end))
        assert(not pcall(function() udp():connect(to) end))
        assert(not pcall(socket.create_connection, to, 5))
      end
      -- what unpackaddr makes of any bytes is an address like others
      local made = socket.unpackaddr(socket.packaddr(AF.v4, {"127.0.0.1", port}))
      refused(function() udp():sendto("x", made) end)
    ]]
  end)

  it("knows all Unix paths or none: relative, linked and abstract ones are refused alike", function()
    local code = [[
      local a = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
      local dir, name = path:match "^(.*)/(.-)$"
      for _, p in ipairs {path, "./x", "x", name, "../" .. path, dir .. "/../" .. path, "\0x", "\0", ""} do
        refused(function() socket.socketpair():connect(p) end)
        refused(function() socket.socketpair():bind(p) end)
        refused(socket.create_server, p, {family = socket.AF_UNIX})
        local ok, e = pcall(socket.create_connection, p, 1)
        assert(not ok)
      end
      refused(socket.socket, socket.AF_UNIX)
    ]]
    attack(code)
    attack([[ -- with the flag that allows them they lead where they lead, and nowhere else
      refused(socket.socket, socket.AF_UNIX + 15)
      local s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
      assert(not pcall(s.sendto, s, "x", {"127.0.0.1", port}))
    ]], "-u")
  end)

  it("keeps passed descriptors from becoming sockets, by every way", function()
    attack [[
      local a, b = socket.socketpair()
      local fd, second = host.pair()
      refused(socket.fromfd, fd, AF.v4, socket.SOCK_DGRAM)
      refused(socket.socket, AF.v4, socket.SOCK_DGRAM, 0, fd)
      refused(socket.socket, -1, -1, -1, fd)
      refused(socket.dup, fd)
      refused(socket.close, fd)
      assert(not pcall(socket.send_fds, a, "x", {fd}))
      refused(a.sendmsg, a, "x", {{socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack("i", fd)}})
      local e = refused(socket.selectors.DefaultSelector().register, socket.selectors.DefaultSelector(), fd, 1)
      assert(e.refused == "fromfd")
      socket.send_fds(a, "x", {udp()})
      assert(refused(socket.recv_fds, b, 1, 1).refused == "detach")
      local _, items = b:recvmsg(1, 100)
      assert(refused(function() return items[1].data end).refused == "detach")
      a:sendmsg("y", items) -- passed on unseen, they remain what nobody has a number of
      a:close()
    ]]
  end)

  it("holds in tasks, and in what the reactor calls", function()
    attack [[
      local r
      local function attempts()
        local s = tcp():settimeout(5)
        refused(s.connect, s, {"127.0.0.1", port})
        refused(s.connect, s, {"localhost", port})
        refused(socket.create_server, {"127.0.0.1", 0})
        local ok, e = pcall(socket.create_connection, {"localhost", port}, 5)
        assert(not ok and e.code == "EACCES")
        local u = udp():settimeout(5)
        refused(u.sendto, u, "x", {"localhost", port})
        socket.create_connection({"127.0.0.1", good}, 5):close()
      end
      local ended = 0
      r = socket.reactor.new(function(_, ok, e)
        if not ok then error(e, 0) end
        ended = ended + 1
        attempts()
      end)
      r:add(coroutine.create(attempts))
      r:add(coroutine.create(function()
        coroutine.wrap(attempts)()
        socket.reactor.resume(coroutine.create(attempts))
      end))
      r:after(0, attempts)
      repeat until not r:turn(5)
      assert(ended == 2)
      refused(socket.reactor.wait, r:fileno(), "r", 0)
    ]]
  end)

  it("withstands forged selectors, reactors, timers and files, and changes of what they hold", function()
    attack [[
      local sel, r = socket.selectors.DefaultSelector(), socket.reactor.new(print)
      local timer, b = r:after(100, print), socket.socketpair()
      local file = b:makefile()
      local stream = debug.getregistry()["FILE*"]
      for _, object in ipairs {sel, r, timer, file} do
        local meta = debug.getmetatable(object)
        for _, forged in ipairs {host.bytes(("\1"):rep(64)), host.bytes(("\0"):rep(4096)), socket.buffer(100), tcp(),
            sel, r, timer, file, io.stdout} do
          if forged ~= object then
            for name, f in pairs(meta.__index) do
              if type(f) == "function" and name ~= "close" then pcall(f, forged, coroutine.create(print), 0) end
            end
          end
        end
      end
      for size = 8, 64, 8 do -- no pointer of a script's becomes a FILE; Lua's own library would believe it
        local other = size ~= 2 * string.packsize "T" and host.bytes(("\1"):rep(size)) -- than Lua's
        for _, forged in ipairs {socket.buffer(size), other} do
          debug.setmetatable(forged, stream)
          assert(not pcall(sel.register, sel, forged, 1))
          debug.setmetatable(forged, nil)
        end
      end
      local keep = {}
      for uv = 1, 4 do
        for _, value in ipairs {{}, host.bytes(("\0"):rep(64)), "text", 0} do
          local s, m = socket.selectors.DefaultSelector(), b:makefile()
          s:register(b, 1)
          for _, object in ipairs {s, m} do
            debug.setuservalue(object, value, uv)
            keep[#keep + 1] = object
          end
          collectgarbage()
          pcall(s.select, s, 0)
          pcall(s.modify, s, b, 2)
          pcall(s.get_map, s)
          pcall(s.unregister, s, b)
          pcall(s.get_key, s, {fileno = function() debug.setuservalue(s, nil, uv) return 1 end})
          if type(value) == "string" then tampered(s.select, s, 0) end
          pcall(s.close, s)
        end
      end
      local _, keys = debug.getupvalue(sel:select(0), 2)
      local step = sel:select(0)
      sel:register(b, 2)
      step = sel:select(5)
      debug.setupvalue(step, 2, "text")
      assert(not pcall(step, sel))
    ]]
  end)

  it("is asked for names as they are resolved", function()
    attack [[
      local list = socket.getaddrinfo("localhost", port, 0, socket.SOCK_STREAM)
      assert(#list > 0)
      local ok, e = pcall(socket.create_connection, {"localhost", port}, 5)
      assert(not ok and e.code == "EACCES")
      for _, one in ipairs(e.errors) do assert(one.code == "EACCES" and one.address.host ~= "localhost", one) end
      refused(function() tcp():settimeout(5):connect {"localhost", port} end)
    ]]
  end)
end)

describe("names that change between check and use", function()
  local net = require "spec.support.netns".new {zone = {
    ["evil.test"] = {A = {"127.0.0.1"}, AAAA = {"::1"}},
    ["mixed.test"] = {A = {"10.1.2.3", "127.0.0.1"}},
    ["alias.test"] = {CNAME = "evil.test"},
  }}
  teardown(function() net:stop() end)

  it("are judged by the address that is used", net:inside(function()
    local server = require "socket".create_server({"0.0.0.0", 0})
    require "spec.support.host".holds("-r -c '*:*' -b '*:*'", [[
      local port = tonumber((...))
      for _, name in ipairs {"evil.test", "mixed.test", "alias.test"} do
        for _, timeout in ipairs {false, 5} do
          for round = 1, 3 do
            local s = socket.socket():settimeout(timeout or nil)
            local ok, e = pcall(s.connect, s, {name, port})
            assert(not ok and e.code == "EACCES" and e.address.host:find "^%d", e)
            local u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):settimeout(timeout or nil)
            ok, e = pcall(u.sendto, u, "x", {name, port})
            assert(not ok and e.code == "EACCES", e)
            ok, e = pcall(socket.create_connection, {name, port}, timeout or nil)
            assert(not ok and e.code == "EACCES" and #e.errors > 0, e)
          end
        end
      end
      print "ok"
    ]], server:getsockname().port)
    server:settimeout(0)
    assert.equals("EAGAIN", select(2, server:try_accept()).code)
  end))
end)

describe("names whose addresses change with each question", function()
  local net = require "spec.support.netns".new {setup = "ip addr add 8.8.8.8/32 dev lo", zone = {
    ["fickle.test"] = {turns = {{"8.8.8.8"}, {"127.0.0.1"}}},
    ["alias.test"] = {CNAME = "fickle.test"},
    ["both.test"] = {turns = {{"8.8.8.8", "127.0.0.1"}, {"127.0.0.1", "8.8.8.8"}, {"127.0.0.1"}}},
  }}
  teardown(function() net:stop() end)

  it("lead to what the rules allow, or nowhere", net:inside(function()
    local good = socket.create_server {"8.8.8.8", 0}
    local port = good:getsockname().port
    local victim = socket.create_server {"127.0.0.1", port}
    local heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind({"127.0.0.1", port}):settimeout(0)
    require "spec.support.host".holds("-r -c '*:*'", [[
      local port, reached, refused = tonumber((...)), 0, 0
      local function attempt(f, ...)
        local ok, e = pcall(f, ...)
        if ok then reached = reached + 1
        elseif e.code == "EACCES" then refused = refused + 1
        else error(e) end
        return ok and e
      end
      local function all(name, timeout)
        local s = socket.socket():settimeout(timeout)
        if attempt(s.connect, s, {name, port}) then assert(s:getpeername().host == "8.8.8.8") end
        local u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):settimeout(timeout)
        attempt(u.sendto, u, "x", {name, port})
        attempt(u.sendmsg, u, "x", nil, 0, {name, port})
        if attempt(u.connect, u, {name, port}) then assert(u:getpeername().host == "8.8.8.8") end
        local c = attempt(socket.create_connection, {name, port}, timeout)
        if c then assert(c:getpeername().host == "8.8.8.8") end
        -- looked up by the script first, used by name then
        local first = socket.getaddrinfo(name, port, socket.AF_INET)[1].sockaddr
        c = attempt(socket.create_connection, {name, first.port}, timeout)
        if c then assert(c:getpeername().host == "8.8.8.8") end
      end
      for _, name in ipairs {"fickle.test", "alias.test", "both.test"} do
        for round = 1, 3 do
          all(name)
          all(name, 5)
        end
      end
      local tasks = socket.reactor.new(function(_, ok, e) if not ok then error(e) end end)
      for round = 1, 6 do tasks:add(coroutine.create(all), "fickle.test", 5) end
      repeat until not tasks:turn(5)
      assert(reached > 10 and refused > 10, reached .. " and " .. refused)
      print "ok"
    ]], port)
    assert.equals("EAGAIN", select(2, victim:settimeout(0):try_accept()).code)
    assert.equals("EAGAIN", select(2, heard:try_recv(10)).code)
    assert.truthy(good:settimeout(0):accept())
  end))
end)

describe("rules", function()
  before_each(function() host.needs(pending) end)

  it("are read from text", function()
    host.holds("", [[
      local function is(text, bits, low, high)
        local net, b, l, h = host.rule(text)
        assert(net and b == bits and l == low and h == high, text)
        return net
      end
      assert(is("192.0.2.7:443", 128, 443, 443) == ("\0"):rep(10) .. "\255\255\192\0\2\7")
      is("192.0.2.0/24:8000-8080", 120, 8000, 8080)
      is("[2001:db8::]/32:443", 32, 443, 443)
      is("[::1]:*", 128, 0, 65535)
      is("*:443", 0, 443, 443)
      is("0.0.0.0/0:*", 96, 0, 65535)
      for _, text in ipairs {"", "*", "1.2.3.4", "1.2.3:4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4/33:1", "[::1:1",
        "::1:80",
          "[::1]/129:1", "1.2.3.4:5-", "1.2.3.4:9-5", "example.com:80", "1.2.3.4:80x", "1.2.3.4:-1", "1.2.3.4/:1",
          ("1"):rep(100) .. ":1", "[" .. ("1"):rep(100) .. "]:1", "* :1", " *:1"} do
        assert(host.rule(text) == nil, text)
      end
      print "ok"
    ]])
  end)

  it("tell kinds of addresses apart", function()
    host.holds("", [[
      local U, L, LL, P, S, M, R, META, OTHER = 1, 2, 4, 8, 16, 32, 64, 128, 256
      local expected = {
        ["0.0.0.0"] = U, ["0.1.2.3"] = U, ["127.0.0.1"] = L, ["127.255.255.255"] = L, ["128.0.0.1"] = 0,
          ["126.255.255.255"] = 0,
        ["9.255.255.255"] = 0, ["10.0.0.0"] = P, ["10.255.255.255"] = P, ["11.0.0.0"] = 0, ["100.63.255.255"] = 0,
        ["100.64.0.0"] = S, ["100.127.255.255"] = S, ["100.128.0.0"] = 0, ["100.100.100.200"] = S + META,
        ["169.253.255.255"] = 0, ["169.254.0.0"] = LL, ["169.254.169.254"] = LL + META, ["169.255.0.0"] = 0,
        ["172.15.255.255"] = 0, ["172.16.0.0"] = P, ["172.31.255.255"] = P, ["172.32.0.0"] = 0,
          ["168.63.129.16"] = META,
        ["192.0.0.192"] = R + META, ["192.0.2.1"] = R, ["192.88.99.1"] = R, ["192.167.255.255"] = 0,
          ["192.168.0.0"] = P,
        ["192.169.0.0"] = 0, ["198.17.255.255"] = 0, ["198.18.0.0"] = R, ["198.19.255.255"] = R, ["198.20.0.0"] = 0,
        ["203.0.113.255"] = R, ["203.0.114.0"] = 0, ["223.255.255.255"] = 0, ["224.0.0.0"] = M, ["239.255.255.255"] = M,
        ["240.0.0.0"] = R, ["255.255.255.255"] = R, ["8.8.8.8"] = 0,
        ["::"] = U, ["::1"] = L, ["::2"] = U + R, ["::ffff:8.8.8.8"] = 0, ["::ffff:127.0.0.1"] = L, ["::8.8.8.8"] = R,
        ["::10.0.0.1"] = P + R, ["::ffff:0:10.0.0.1"] = P + R, ["64:ff9b::8.8.8.8"] = 0, ["64:ff9b::10.0.0.1"] = P,
        ["64:ff9b:1::8.8.8.8"] = R, ["2002:a00:1::"] = P + R, ["2002:808:808::1"] = R, ["2001::1"] = R,
          ["2001:db8::1"] = R,
        ["2001:200::1"] = 0, ["2606:4700::1111"] = 0, ["2600::5efe:10.0.0.1"] = P, ["2600::200:5efe:127.0.0.1"] = L,
        ["fe80::1"] = LL, ["febf::1"] = LL, ["fec0::1"] = P, ["fc00::1"] = P, ["fdff::1"] = P,
          ["fd00:ec2::254"] = P + META,
        ["ff02::1"] = M, ["100::1"] = R, ["4000::1"] = R, ["1fff::1"] = R, ["3fff::1"] = R, ["3ffe::1"] = 0,
          ["5f00::1"] = R,
      }
      for text, kind in pairs(expected) do
        local family = text:find ":" and socket.AF_INET6 or socket.AF_INET
        local got = host.classify(socket.packaddr(family, {text, 80}))
        assert(got == kind, text .. ": " .. got)
      end
      local v4 = socket.packaddr(socket.AF_INET, {"8.8.8.8", 80})
      assert(host.classify("") == OTHER and host.classify(v4:sub(1, 8)) == OTHER)
      assert(host.classify(string.pack("I2", 0) .. v4:sub(3)) == OTHER)
      print "ok"
    ]])
  end)

  it("allow special addresses only by name", function()
    local function allows(rule, address, port)
      local text = host.run(("-r -c '%s'"):format(rule), [[
        local address, port = ...
        local s = socket.socket(address:find ":" and socket.AF_INET6 or socket.AF_INET, socket.SOCK_DGRAM)
        local ok, e = s:try_connect {address, tonumber(port)}
        print(ok and "yes" or e.code)
      ]], address, port)
      return text ~= "EACCES\n"
    end
    assert.is_true(allows("10.1.0.0/16:80", "10.1.2.3", 80))
    assert.is_false(allows("10.1.0.0/16:80", "10.2.0.1", 80))
    assert.is_false(allows("10.1.0.0/16:80", "10.1.2.3", 81))
    assert.is_true(allows("10.0.0.0/8:*", "10.2.0.1", 80))
    assert.is_false(allows("8.0.0.0/5:*", "10.2.0.1", 80))
    assert.is_false(allows("0.0.0.0/0:*", "127.0.0.1", 80))
    assert.is_false(allows("*:*", "10.0.0.1", 80))
    assert.is_false(allows("169.254.0.0/16:*", "169.254.169.254", 80))
    assert.is_true(allows("169.254.169.254:80", "169.254.169.254", 80))
    assert.is_true(allows("127.0.0.0/8:*", "127.0.0.9", 80))
    assert.is_false(allows("*:*", "255.255.255.255", 80))
    assert.is_true(allows("[fd00::]/8:*", "fd12::1", 80))
    assert.is_false(allows("[fd00::]/8:*", "fd00:ec2::254", 80))
    assert.is_false(allows("[::]/0:*", "fd12::1", 80))
    assert.is_true(allows("127.0.0.1:80", "::ffff:127.0.0.1", 80))
  end)
end)
