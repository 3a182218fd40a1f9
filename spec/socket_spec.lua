-- Socket objects: how they are made, what they say of themselves, how they end.

local h = require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local fails, keep = support.fails, support.keep

after_each(support.close_kept)

-- An ordinary argument error, and no descriptor lost.
local function refuses(message, f, ...)
  local before = support.descriptors()
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(e), tostring(e))
  assert.matches(message, e, 1, true)
  assert.equal(before, support.descriptors())
end

local function is_open(fd)
  local copy = socket.try_dup(fd)
  if copy then socket.close(copy) end
  return copy ~= nil
end

describe("the module", function()
  it("is the same table however often it is opened", function()
    local again = assert(package.loadlib(h.library, "luaopen_socket"))()
    assert.equal(socket, again)
    package.loaded.socket = nil
    assert.equal(socket, require "socket")
  end)

  it("has a version, and IPv6", function()
    assert.matches("^%d+%.%d+%.%d+$", socket._VERSION)
    assert.is_true(socket.has_ipv6)
    assert.equal("table", type(socket.SocketType))
  end)

  it("does not stay behind in another Lua state of the process", function()
    local tools = support.tools(pending)
    socket.setdefaulttimeout(3)
    local s = keep(socket.socket())
    local result = tools.state(([[
      package.path, package.cpath = %q, %q
      local socket = require "socket"
      assert(socket.getdefaulttimeout() == nil)
      socket.setdefaulttimeout(9)
      socket.setwaithook(error)
      socket.SocketType.recv = nil
      local a, b = socket.socketpair()
      a:send "x"
      return "done"]]):format(package.path, package.cpath))
    assert.equal("done", result)
    assert.equal(3, socket.getdefaulttimeout())
    socket.setdefaulttimeout(nil)
    assert.is_nil((socket.setwaithook(nil)))
    assert.equal("function", type(s.recv))
  end)

  it("may be loaded and forgotten many times", function()
    local tools = support.tools(pending)
    local before = support.descriptors()
    for i = 1, 10 do
      assert.equal(tostring(i), tools.state(([[
        package.path, package.cpath = %q, %q
        local socket = require "socket"
        left_open = {socket.socket(), socket.socketpair()}
        local co = coroutine.create(function() left_open[2]:recv(1) end)
        socket.setwaithook(coroutine.yield)
        coroutine.resume(co)
        socket.setdefaulttimeout(0.000001)
        pcall(socket.getaddrinfo, "localhost", 80)
        return "%d"]]):format(package.path, package.cpath, i)))
    end
    local deadline = socket.monotonic() + 5 -- the threads of those lookups have their own descriptors for a moment
    repeat socket.sleep(0.001) until support.descriptors() == before or socket.monotonic() > deadline
    assert.equal(before, support.descriptors())
  end)
end)

describe("socket.socket", function()
  it("makes a TCP socket over IPv4 if nothing else is said", function()
    for _, args in ipairs {{}, {nil, nil, nil, nil}, {-1, -1, -1}} do
      local s = keep(socket.socket(table.unpack(args, 1, 4)))
      assert.same({socket.AF_INET, socket.SOCK_STREAM, 0}, {s.family, s.type, s.proto})
      assert.is_nil(s.timeout)
      assert.is_true(s:fileno() >= 0)
    end
  end)

  it("takes family, type and protocol", function()
    local u = keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP))
    assert.same({socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP}, {u.family, u.type, u.proto})
    local s = keep(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    assert.same({socket.AF_UNIX, socket.SOCK_SEQPACKET, 0}, {s.family, s.type, s.proto})
    assert.equal(socket.SOCK_SEQPACKET, s:getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
  end)

  it("takes SOCK_NONBLOCK and SOCK_CLOEXEC, which are no part of the type", function()
    if not socket.SOCK_NONBLOCK then pending "this platform has no SOCK_NONBLOCK" end
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
    assert.equal(socket.SOCK_STREAM, s.type)
    assert.equal(0, s.timeout)
    local c = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
    assert.equal(socket.SOCK_DGRAM, c.type)
    assert.is_nil(c.timeout)
    local a, b = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    assert.same({0, 0, socket.SOCK_STREAM}, {a.timeout, b.timeout, a.type})
    fails("EAGAIN", a.recv, a, 1)
    local d = keep(socket.fromfd(a:fileno(), socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    local e = keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, socket.dup(a:fileno())))
    for _, x in ipairs {d, e} do assert.same({0, socket.SOCK_STREAM}, {x.timeout, x.type}) end
    b:close()
    assert.is_nil(e:recv(1)) -- a stream, so its end is nil
  end)

  it("says what the system refuses", function()
    local cases = {
      {"EAFNOSUPPORT", 999}, {"EPROTONOSUPPORT", socket.AF_INET, socket.SOCK_STREAM, 17},
      {"EINVAL", socket.AF_INET, 15}, {"ESOCKTNOSUPPORT", socket.AF_UNIX, socket.SOCK_RDM},
    }
    local before = support.descriptors()
    for _, case in ipairs(cases) do
      local e = fails(case[1], socket.socket, table.unpack(case, 2))
      assert.equal("socket", e.op)
      assert.equal(socket.error, e.class)
      local s, e2 = socket.try_socket(table.unpack(case, 2))
      assert.is_nil(s)
      assert.equal(case[1], e2.code)
    end
    assert.equal(before, support.descriptors())
  end)

  it("refuses wrong arguments, and numbers that are no descriptors", function()
    for i = 1, 3 do
      local args = {socket.AF_INET, socket.SOCK_STREAM, 0}
      for v, message in pairs {
        [1 << 31] = "does not fit a C int", [-(1 << 31) - 1] = "does not fit a C int",
        [1.5] = "number has no integer representation", x = "number expected, got string",
        [true] = "number expected, got boolean",
      } do
        args[i] = v
        refuses(("bad argument #%d"):format(i), socket.socket, table.unpack(args))
        refuses(message, socket.socket, table.unpack(args))
        refuses(message, socket.try_socket, table.unpack(args))
      end
    end
    for _, v in ipairs {-1, -2, 1 << 31, math.mininteger} do
      fails("EBADF", socket.socket, nil, nil, nil, v)
    end
    refuses("number expected", socket.socket, nil, nil, nil, "x")
    refuses("number expected", socket.socket, nil, nil, nil, io.stdout)
  end)

  describe("with fileno", function()
    it("takes the descriptor over and asks it what it is", function()
      for _, case in ipairs {
        {socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP},
        {socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP},
        {socket.AF_UNIX, socket.SOCK_SEQPACKET, 0},
      } do
        local fd = socket.socket(table.unpack(case)):detach()
        local s = keep(socket.socket(nil, nil, nil, fd))
        assert.equal(fd, s:fileno())
        assert.same(case, {s.family, s.type, s.proto})
      end
    end)

    it("believes what is said", function()
      local fd = socket.socket(socket.AF_INET, socket.SOCK_STREAM):detach()
      local s = keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP or 262, fd))
      assert.equal(262, s.proto)
    end)

    it("closes it in the end", function()
      local fd = socket.socket():detach()
      socket.socket(nil, nil, nil, fd):close()
      assert.is_false(is_open(fd))
    end)

    it("refuses what is no socket, and leaves it alone", function()
      local f <close> = assert(io.open(h.root .. "/LICENSE"))
      assert.is_truthy(f:read "l")
      fails("EBADF", socket.socket, nil, nil, nil, 1000000)
      fails("EBADF", socket.socket, nil, nil, nil, (1 << 31) - 1)
      for name in require "lfs".dir "/proc/self/fd" do
        local target = require "lfs".symlinkattributes("/proc/self/fd/" .. name)
        if target and (target.target or ""):match "LICENSE$" then
          fails("ENOTSOCK", socket.socket, nil, nil, nil, tonumber(name))
          fails("ENOTSOCK", socket.socket, 2, 1, 0, tonumber(name))
        end
      end
      collectgarbage()
      assert.is_truthy(f:read "l")
    end)
  end)
end)

describe("socketpair", function()
  it("gives two connected Unix streams", function()
    local a, b = keep(socket.socketpair())
    assert.same({socket.AF_UNIX, socket.SOCK_STREAM, 0}, {a.family, a.type, a.proto})
    a:send "x"
    assert.equal("x", b:recv(10))
    assert.equal("", a:getsockname())
  end)

  it("says what the system refuses, and loses nothing", function()
    local before = support.descriptors()
    local e = fails("EOPNOTSUPP", socket.socketpair, socket.AF_INET)
    assert.equal("socketpair", e.op)
    assert.is_nil((socket.try_socketpair(999)))
    assert.equal(before, support.descriptors())
    refuses("number expected", socket.socketpair, "unix")
    refuses("does not fit a C int", socket.socketpair, nil, 1 << 40)
  end)
end)

describe("accept", function()
  it("gives a socket of its own, and the peer's address", function()
    for _, t in ipairs {false, 5, 0.03} do
      local server = keep(socket.create_server {"127.0.0.1", 0})
      server:settimeout(t or nil)
      local client = keep(socket.socket():connect(server:getsockname()))
      local conn, peer = server:accept()
      keep(conn)
      assert.same({socket.AF_INET, socket.SOCK_STREAM}, {conn.family, conn.type})
      assert.is_true(peer == client:getsockname())
      assert.is_true(conn:getpeername() == peer)
      assert.is_nil(conn:gettimeout()) -- not the listener's
      client:send "x"
      assert.equal("x", conn:recv(1))
      conn:settimeout(nil)
      server:close()
      client:send "y"
      assert.equal("y", conn:recv(1))
    end
  end)

  it("gives the path of a Unix peer, empty if it has none", function()
    local path = "\0lsocket-spec-accept-" .. socket.monotonic()
    local server = keep(socket.socket(socket.AF_UNIX):bind(path):listen())
    keep(socket.socket(socket.AF_UNIX):connect(path))
    local _, peer = keep(server:accept())
    assert.equal("", peer)
  end)

  it("says what the system refuses", function()
    local s = keep(socket.socket())
    for _, t in ipairs {false, 5, 0} do
      s:settimeout(t or nil)
      assert.equal("accept", fails("EINVAL", s.accept, s).op)
    end
    local u = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    fails("EOPNOTSUPP", u.accept, u)
    assert.equal("EOPNOTSUPP", select(2, u:try_accept()).code)
  end)

  it("loses no descriptor when nobody comes", function()
    local server = keep(socket.create_server {"127.0.0.1", 0})
    local before = support.descriptors()
    server:settimeout(0)
    for _ = 1, 50 do server:try_accept() end
    server:settimeout(0.001)
    for _ = 1, 3 do server:try_accept() end
    assert.equal(before, support.descriptors())
  end)
end)

describe("dup", function()
  it("makes another object for the same socket", function()
    local a, b = keep(socket.socketpair())
    a:settimeout(3)
    local c = keep(a:dup())
    assert.not_equal(a:fileno(), c:fileno())
    assert.same({a.family, a.type, a.proto, 3}, {c.family, c.type, c.proto, c.timeout})
    a:close()
    c:send "still here"
    assert.equal("still here", b:recv(100))
    assert.is_false(c:get_inheritable())
  end)

  it("of a socket in any mode works, and each keeps its own timeout", function()
    local a, b = keep(socket.socketpair())
    for _, t in ipairs {false, 0.1, 0} do
      a:settimeout(t or nil)
      a:try_recv(1, socket.MSG_DONTWAIT)
      if t == 0.1 then a:try_recv(1) end -- the kernel has a timeout now
      local c = keep(a:dup())
      assert.equal(t or nil, c:gettimeout())
      assert.equal(0, a:getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16):gsub("\0", ""):len())
      c:settimeout(0)
      b:send "1"
      assert.equal("1", a:recv(10))
      fails("EAGAIN", c.recv, c, 1)
      a:settimeout(0.01)
      fails("ETIMEDOUT", a.recv, a, 1)
    end
  end)

  it("of a descriptor gives a descriptor that children do not have", function()
    local a = keep(socket.socketpair())
    local fd = socket.dup(a:fileno())
    assert.equal("integer", math.type(fd))
    local s = keep(socket.socket(nil, nil, nil, fd))
    assert.is_false(s:get_inheritable())
    fails("EBADF", socket.dup, 1000000)
    assert.equal("dup", select(2, socket.try_dup(1000000)).op)
    fails("EBADF", socket.dup, -1)
    refuses("number expected", socket.dup, a)
    refuses("number expected", socket.dup)
  end)

  it("of a closed socket fails", function()
    local s = socket.socket()
    s:close()
    local e = fails("EBADF", s.dup, s)
    assert.same({"socket is closed", "dup"}, {e.message, e.op})
  end)

  it("fails where the descriptor was closed behind its back", function()
    local s = socket.socket()
    socket.close(s:fileno())
    assert.equal("Bad file descriptor", fails("EBADF", s.dup, s).message)
    s:try_close()
  end)
end)

describe("fromfd", function()
  it("makes a socket of a duplicate", function()
    local a, b = keep(socket.socketpair())
    local c = keep(socket.fromfd(a:fileno(), socket.AF_UNIX, socket.SOCK_STREAM))
    assert.not_equal(a:fileno(), c:fileno())
    a:close()
    c:send "x"
    assert.equal("x", b:recv(1))
    assert.same({socket.AF_UNIX, socket.SOCK_STREAM, 0}, {c.family, c.type, c.proto})
    assert.equal(6, keep(socket.fromfd(b:fileno(), 2, 1, 6)).proto) -- unchecked
  end)

  it("refuses what it cannot duplicate", function()
    assert.equal("fromfd", fails("EBADF", socket.fromfd, 1000000, 2, 1).op)
    fails("EBADF", socket.fromfd, -1, 2, 1)
    refuses("bad argument #2", socket.fromfd, 0)
    refuses("bad argument #3", socket.fromfd, 0, 2)
    refuses("bad argument #4", socket.fromfd, 0, 2, 1, "tcp")
  end)
end)

describe("detach", function()
  it("gives the descriptor away; the object is closed", function()
    local a, b = keep(socket.socketpair())
    local fd = a:detach()
    assert.equal("socket: <closed>", tostring(a))
    assert.equal(-1, a:fileno())
    assert.is_true(is_open(fd))
    local c = keep(socket.socket(nil, nil, nil, fd))
    c:send "x"
    assert.equal("x", b:recv(1))
    fails("EBADF", a.detach, a)
    assert.is_true(a:close())
  end)

  it("leaves a blocking descriptor, without timeouts in the kernel", function()
    local a = keep(socket.socketpair())
    a:settimeout(0.05)
    fails("ETIMEDOUT", a.recv, a, 1)
    a:settimeout(0):settimeout(0.001)
    fails("ETIMEDOUT", a.recv, a, 1)
    local fd = a:detach()
    local c = keep(socket.socket(nil, nil, nil, fd))
    assert.equal(0, c:getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16):gsub("\0", ""):len())
    local f <close> = assert(io.open("/proc/self/fdinfo/" .. fd))
    assert.equal(0, tonumber(f:read("a"):match "flags:%s*(%d+)", 8) & 0x800) -- O_NONBLOCK
  end)
end)

describe("close", function()
  it("closes, and may be repeated", function()
    local s = socket.socket()
    local fd = s:fileno()
    assert.is_true(s:close())
    assert.is_false(is_open(fd))
    assert.is_true(s:close())
    assert.is_true(s:try_close())
    assert.equal(-1, s:fileno())
    assert.equal(-1, s:getfd())
  end)

  it("leaves the fields readable, and every call that needs the descriptor fails", function()
    local s = socket.socket():settimeout(2)
    s:close()
    assert.same({socket.AF_INET, socket.SOCK_STREAM, 0, 2}, {s.family, s.type, s.proto, s.timeout})
    for name, args in pairs {
      accept = {}, bind = {{"", 0}}, connect = {{"127.0.0.1", 1}}, dup = {}, detach = {}, getpeername = {},
      getsockname = {}, getsockopt = {1, 1}, get_inheritable = {}, listen = {}, recv = {1}, recvfrom = {1},
      send = {"x"}, sendall = {"x"}, sendto = {"x", {"", 1}}, setsockopt = {1, 1, 1}, set_inheritable = {true},
      shutdown = {socket.SHUT_RD},
    } do
      local e = fails("EBADF", s[name], s, table.unpack(args))
      assert.same({"socket is closed", name}, {e.message, e.op})
      local none, e2 = s["try_" .. name](s, table.unpack(args))
      assert.is_nil(none)
      assert.equal("EBADF", e2.code)
    end
    assert.same({"", 0, false}, {s:events(), s:pending(), s:dirty()})
  end)

  it("by the function closes a plain descriptor", function()
    local fd = socket.socket():detach()
    assert.is_true(socket.close(fd))
    assert.equal("close", fails("EBADF", socket.close, fd).op)
    assert.equal("EBADF", select(2, socket.try_close(fd)).code)
    fails("EBADF", socket.close, -1)
    refuses("number expected", socket.close, keep(socket.socket()))
    refuses("number expected", socket.close)
  end)

  it("reports an error of the system, and is closed all the same", function()
    support.needs_strace(pending)
    for _, case in ipairs {{"EIO", "EIO close -1 true"}, {"EINTR", "fine"}, {"ECONNRESET", "fine"}} do
      local text = support.faulty([[
        local socket = require "socket"
        for _ = 1, 200 do -- the loader closes files too: the fault begins later
          local s = socket.socket()
          local _, e = s:try_close()
          if e then print(e.code, e.op, s:fileno(), s:close()) os.exit() end
        end
        print "fine"]], ("close:error=%s:when=100"):format(case[1]))
      assert.equal(case[2] .. "\n", (text:gsub("\t", " ")))
    end
  end)
end)

describe("local s <close>", function()
  it("closes at the end of the block, also when an error leaves it", function()
    local outer
    do
      local s <close> = socket.socket()
      outer = s
      assert.is_true(s:fileno() >= 0)
    end
    assert.equal(-1, outer:fileno())
    local ok, e = pcall(function()
      local s <close> = socket.socket()
      outer = s
      error "oops"
    end)
    assert.is_false(ok)
    assert.matches("oops", e)
    assert.equal(-1, outer:fileno())
  end)

  it("takes a socket that was closed already", function()
    local s <close> = socket.socket()
    s:close()
  end)
end)

describe("a socket that is forgotten", function()
  it("is closed by the collector, which warns", function()
    local text, status = support.run([[
      warn "@on"
      local socket = require "socket"
      socket.socket()
      collectgarbage()
      socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      collectgarbage()
      socket.fromfd(socket.socket(socket.AF_INET6):detach(), 77, 99)
      collectgarbage()
      socket.socket():close()
      do local s <close> = socket.socket() end
      socket.socket():detach()
      collectgarbage()
      io.stderr:write "end\n"]])
    assert.equal(0, status)
    local warning = "Lua warning: socket: unclosed socket %(fd=%d+, family=%S+, type=%S+%) collected\n"
    assert.matches("^" .. warning:rep(4) .. "end\n$", text)
    assert.matches("family=AF_INET, type=SOCK_STREAM", text, 1, true)
    assert.matches("family=AF_UNIX, type=SOCK_DGRAM", text, 1, true)
    assert.matches("family=?, type=?", text, 1, true)
  end)

  it("is closed at the end of the state too, with a warning", function()
    local text, status = support.run [[
      warn "@on"
      s = require "socket".socket()
      print(s:fileno())]]
    assert.equal(0, status)
    assert.matches("unclosed socket", text, 1, true)
  end)

  it("says nothing when warnings are off, or the sockets were ours alone", function()
    local text, status = support.run [[
      local socket = require "socket"
      socket.socket()
      collectgarbage()
      warn "@on"
      socket.setdefaulttimeout(5)
      socket.getaddrinfo("localhost", 80)
      pcall(socket.create_connection, {"127.0.0.1", 1}, 0.1)
      pcall(socket.create_server, {"203.0.113.1", 1})
      pcall(socket.socketpair, socket.AF_INET)
      pcall(socket.socket, 999)
      local server <close> = socket.create_server {"127.0.0.1", 0}
      server:settimeout(0):try_accept()
      collectgarbage()]]
    assert.equal("", text)
    assert.equal(0, status)
  end)

  it("gives its descriptor back where descriptors are short (EMFILE)", function()
    local text, status = support.run([[
      collectgarbage "stop"
      local socket = require "socket"
      local kept = socket.socket()
      local server = socket.create_server {"127.0.0.1", 0}
      local address = server:getsockname()
      local a, b = socket.socketpair()
      for _, make in ipairs {
        function() return socket.socket() end,
        function() return socket.socketpair() end,
        function() return kept:dup() end,
        function() return socket.fromfd(kept:fileno(), 2, 1) end,
        function() return socket.socket(nil, nil, nil, socket.dup(kept:fileno())) end,
        function() return socket.create_server {"127.0.0.1", 0} end,
        function() return socket.create_connection(address), server:accept() end,
        function() socket.socket():connect(address) return server:settimeout(5):accept() end,
      } do
        for _ = 1, 60 do assert(make()) end
      end
      a:send "x" assert(b:recv(1) == "x")
      print "enough"]], {before = "ulimit -n 24;", leaks = false})
    assert.equal("enough\n", text)
    assert.equal(0, status)
  end)

  it("that is not forgotten keeps its descriptor: then EMFILE is an error", function()
    local text, status = support.run([[
      local socket = require "socket"
      local kept, e = {}
      local server = socket.create_server {"127.0.0.1", 0}
      local clients = {}
      for i = 1, 2 do clients[i] = socket.socket():connect(server:getsockname()) end
      repeat
        kept[#kept + 1], e = socket.try_socket()
      until e
      print(e.code, e.op, #kept > 5)
      local function code(f, ...) local ok, err = pcall(f, ...) return not ok and err.code .. " " .. err.op end
      print(code(socket.socketpair))
      print(code(server.dup, server))
      print(code(socket.dup, server:fileno()))
      print(code(socket.fromfd, server:fileno(), 2, 1))
      print(code(socket.create_server, {"127.0.0.1", 0}))
      print(code(server.accept, server))
      server:settimeout(1)
      print(code(server.accept, server))
      kept[1]:close()
      print(server:accept().type)
    ]], {before = "ulimit -n 24;", leaks = false})
    assert.equal("EMFILE\tsocket\ttrue\nEMFILE socketpair\nEMFILE dup\nEMFILE dup\nEMFILE fromfd\n" ..
      "EMFILE create_server\nEMFILE accept\nEMFILE accept\n1\n", text)
    assert.equal(0, status)
  end)
end)

describe("tostring", function()
  it("shows descriptor, family, type and addresses", function()
    local s = keep(socket.socket())
    assert.equal(("socket: <fd=%d, family=AF_INET, type=SOCK_STREAM, laddr=0.0.0.0:0>"):format(s:fileno()), tostring(s))
    local a, b = keep(support.tcp())
    assert.equal(("socket: <fd=%d, family=AF_INET, type=SOCK_STREAM, laddr=%s, raddr=%s>"):format(a:fileno(),
      a:getsockname(), b:getsockname()), tostring(a))
    local u = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    assert.equal(("socket: <fd=%d, family=AF_UNIX, type=SOCK_DGRAM, laddr=unix:, raddr=unix:>"):format(u:fileno()),
      tostring(u))
    if support.has_ipv6() then
      assert.matches("family=AF_INET6, type=SOCK_DGRAM, laddr=[::]:0>",
        tostring(keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))), 1, true)
    end
  end)

  it("shows numbers where there are no names, and closed ones as closed", function()
    local s = keep(socket.socket())
    assert.matches("family=77, type=99", tostring(keep(socket.fromfd(s:fileno(), 77, 99))), 1, true)
    s:close()
    assert.equal("socket: <closed>", tostring(s))
  end)

  it("shows a socket whose descriptor was closed behind its back", function()
    local s = socket.socket()
    local fd = s:fileno()
    socket.close(fd)
    assert.equal(("socket: <fd=%d, family=AF_INET, type=SOCK_STREAM>"):format(fd), tostring(s))
    s:try_close()
  end)
end)

describe("a socket object", function()
  it("has fields that are read only", function()
    local s = keep(socket.socket():settimeout(1.5))
    assert.same({socket.AF_INET, socket.SOCK_STREAM, 0, 1.5}, {s.family, s.type, s.proto, s.timeout})
    for _, name in ipairs {"family", "type", "proto", "timeout", "fd", "anything", "recv"} do
      local ok, e = pcall(function() s[name] = 1 end)
      assert.is_false(ok)
      assert.matches("attempt to index a socket value", e)
    end
    assert.equal(socket.AF_INET, s.family)
  end)

  it("has nothing else", function()
    local s = keep(socket.socket())
    assert.is_nil(s.fd)
    assert.is_nil(s[1])
    assert.is_nil(s[nil])
    assert.is_nil(s[{}])
    assert.is_false(pcall(function() return #s end))
    assert.is_false(getmetatable(s))
    assert.is_false(pcall(setmetatable, s, {}))
  end)

  it("has the methods of SocketType, to which scripts may add", function()
    local s = keep(socket.socket())
    assert.equal(socket.SocketType.recv, s.recv)
    function socket.SocketType.family_and_type(self) return self.family, self.type end
    assert.same({socket.AF_INET, socket.SOCK_STREAM}, {s:family_and_type()})
    socket.SocketType.family_and_type = nil
    assert.is_nil(s.family_and_type)
  end)

  it("is equal to itself alone, and works as a key", function()
    local a, b = keep(socket.socketpair())
    assert.is_true(a == a and a ~= b)
    assert.equal(1, ({[a] = 1})[a])
  end)

  it("has fileno, which is also getfd", function()
    local s = keep(socket.socket())
    assert.equal(s:fileno(), s:getfd())
    assert.equal("integer", math.type(s:fileno()))
  end)

  it("tells other loops that a plain socket holds nothing back", function()
    local a, b = keep(socket.socketpair())
    b:send "x"
    assert.same({"", 0, false}, {a:events(), a:pending(), a:dirty()})
    for _, name in ipairs {"events", "pending", "dirty", "fileno", "getfd", "gettimeout", "getblocking"} do
      refuses("socket expected", a[name], io.stdout)
      refuses("socket expected", a[name])
    end
  end)
end)

describe("what is not a socket is refused:", function()
  -- Every method, called with that value as self.
  local function try_all(value)
    for name, method in pairs(socket.SocketType) do
      local ok, e = pcall(method, value, 1, 1, 1)
      assert.is_false(ok, name)
      assert.equal("string", type(e), name)
      assert.matches("socket expected", e, 1, true)
    end
  end

  it("other values", function()
    for _, v in ipairs {1, "socket", {}, print, io.stdout, true, coroutine.create(print), socket.SocketType} do
      try_all(v)
    end
    try_all(nil)
    try_all(select(2, pcall(error, select(2, socket.try_socket(999)))))
  end)

  it("values that were given a socket's metatable", function()
    local s = keep(socket.socket())
    local meta = debug.getmetatable(s)
    assert.equal("socket", meta.__name)
    local file = io.tmpfile()
    local file_meta = debug.getmetatable(file)
    for _, v in ipairs {{}, file} do
      debug.setmetatable(v, meta)
      try_all(v)
      for _, name in ipairs {"family", "type", "proto", "timeout", "anything"} do
        refuses("socket expected", function() return v[name] end)
      end
      refuses("socket expected", tostring, v)
      meta.__gc(v)
      meta.__close(v)
      debug.setmetatable(v, type(v) == "userdata" and file_meta or nil)
    end
    file:close()
    for name, f in pairs(meta) do
      if type(f) == "function" then pcall(f) pcall(f, 1, 2, 3) assert.is_truthy(name) end
    end
  end)

  it("userdata of the same size and any content", function()
    local tools = support.tools(pending)
    local s = keep(socket.socket())
    local size = tools.sizeof(s)
    for _, byte in ipairs {0, 1, 0x7F, 0xFF} do
      for _, n in ipairs {size, size - 1, size + 1, 0, 8} do
        local fake = tools.userdata(n, byte)
        try_all(fake)
        debug.setmetatable(fake, debug.getmetatable(s))
        try_all(fake)
        refuses("socket expected", tostring, fake)
      end
    end
    collectgarbage() -- their __gc
  end)

  it("but a socket without its metatable is one", function()
    local s = socket.socket()
    local meta = debug.getmetatable(s)
    debug.setmetatable(s, nil)
    socket.SocketType.settimeout(s, 0)
    assert.is_true(socket.SocketType.fileno(s) >= 0)
    debug.setmetatable(s, meta)
    assert.equal(0, s.timeout)
    s:close()
  end)

  it("and finalizers may be called by hand", function()
    local s = socket.socket()
    local meta = debug.getmetatable(s)
    meta.__gc(s)
    assert.equal("socket: <closed>", tostring(s))
    meta.__gc(s)
    meta.__close(s)
    fails("EBADF", s.recv, s, 1)
  end)
end)
