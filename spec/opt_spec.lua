-- Socket options, modes, and what can be asked about a socket.

local h = require "spec.helper"
local lfs = require "lfs"
local proc = require "spec.support.proc"
local socket = require "socket"

local pack, unpack = string.pack, string.unpack

-- The error object that f(...) raises.
local function raised(f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(socket.iserror(e), tostring(e))
  return e
end

-- f() fails because of its arguments.
local function refused(message, f)
  local ok, e = pcall(f)
  assert.is_false(ok)
  assert.equal("string", type(e))
  assert.matches(message, e, 1, true)
end

-- A connected pair of TCP sockets.
local function tcp_pair()
  local listener <close> = socket.create_server {"127.0.0.1", 0}
  local client = socket.create_connection(listener:getsockname())
  return client, (listener:accept())
end

-- The flags of an open descriptor, as fcntl(2) would tell; nil where there is no /proc.
local O_NONBLOCK, O_CLOEXEC = 2048, 524288 -- octal 04000, 02000000
local function flags(s)
  local f <close> = io.open("/proc/self/fdinfo/" .. s:fileno())
  return f and tonumber(f:read "a":match "flags:%s*(%d+)", 8)
end

local function needs_proc()
  if not lfs.attributes "/proc/self/fdinfo" then pending "needs Linux's /proc" end
end

describe("getsockname", function()
  it("is the address a socket is bound to", function()
    local s <close> = socket.socket()
    assert.is_true(s:getsockname() == {"0.0.0.0", 0})
    s:bind {"127.0.0.1", 0}
    local a = s:getsockname()
    assert.equal("127.0.0.1", a.host)
    assert.is_true(a.port > 0 and a.port < 65536)
    assert.equal(socket.AF_INET, a.family)
  end)

  it("is four items for IPv6, a path for Unix, empty when there is none", function()
    local u <close> = socket.socket(socket.AF_UNIX)
    assert.equal("", u:getsockname())
    local path = os.tmpname()
    os.remove(path)
    u:bind(path)
    assert.equal(path, u:getsockname())
    os.remove(path)
    local six <close> = socket.try_socket(socket.AF_INET6)
    if not six then pending "this machine has no IPv6" end
    assert.same({"::", 0, 0, 0}, {table.unpack(six:getsockname())})
  end)
end)

describe("getpeername", function()
  it("is the address of the other end", function()
    local a, b = tcp_pair()
    local _ <close> = a
    local _ <close> = b
    assert.is_true(a:getpeername() == b:getsockname())
    assert.is_true(b:getpeername() == a:getsockname())
    local p, q = socket.socketpair()
    local _ <close> = p
    local _ <close> = q
    assert.equal("", p:getpeername())
  end)

  it("raises ENOTCONN where there is no other end", function()
    local s <close> = socket.socket()
    local e = raised(s.getpeername, s)
    assert.equal(socket.error, e.class)
    assert.equal("ENOTCONN", e.code)
    assert.equal("getpeername", e.op)
    local none, same = s:try_getpeername()
    assert.is_nil(none)
    assert.equal("ENOTCONN", same.code)
  end)
end)

describe("getsockopt", function()
  local s
  before_each(function() s = socket.socket() end)
  after_each(function() s:close() end)

  it("gives an integer", function()
    assert.equal(socket.SOCK_STREAM, s:getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
    assert.equal(0, s:getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
    assert.equal(0, s:getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0))
    assert.equal("integer", math.type(s:getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)))
  end)

  it("gives at most buflen bytes, for string.unpack", function()
    assert.equal(pack("i", socket.SOCK_STREAM), s:getsockopt(socket.SOL_SOCKET, socket.SO_TYPE, 4))
    local linger = s:getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 65536)
    assert.equal(pack("ii", 0, 0), linger)
    assert.equal(1, #s:getsockopt(socket.SOL_SOCKET, socket.SO_TYPE, 1))
    if socket.TCP_INFO then
      local info = s:getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 500)
      assert.is_true(#info > 100 and #info <= 500)
      assert.equal(7, unpack("B", info)) -- TCP_CLOSE
    end
    if socket.SO_PEERCRED then
      local p, q = socket.socketpair()
      local _ <close> = p
      local _ <close> = q
      local pid = unpack("i", p:getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
      assert.equal(lfs.symlinkattributes("/proc/self", "target"), tostring(pid))
    end
  end)

  it("gives the error of a connection that failed, once", function()
    local other <close> = socket.socket()
    other:bind {"127.0.0.1", 0}
    s:settimeout(0)
    local e = s:connect_ex(other:getsockname())
    assert.is_true(e == socket.errno.EINPROGRESS or e == socket.errno.ECONNREFUSED)
    if e == socket.errno.EINPROGRESS then
      assert.equal(socket.errno.ECONNREFUSED, s:getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    end
    assert.equal(0, s:getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
  end)

  it("raises what the system says", function()
    for _, buflen in ipairs {0, 1, 4, 65536} do
      local e = raised(s.getsockopt, s, socket.SOL_SOCKET, 12345, buflen)
      assert.equal("ENOPROTOOPT", e.code)
      assert.equal("getsockopt", e.op)
    end
    local _, e = s:try_getsockopt(12345, 1)
    assert.is_true(e:is(socket.error))
    assert.is_true(e.code == "EOPNOTSUPP" or e.code == "ENOPROTOOPT")
  end)

  it("names arguments that are out of range or of a wrong type", function()
    refused("#3 to 'getsockopt' (buffer length must be 0-65536)", function() s:getsockopt(1, 2, -1) end)
    refused("#3 to 'getsockopt' (buffer length must be 0-65536)", function() s:getsockopt(1, 2, 65537) end)
    refused("#3 to 'getsockopt' (buffer length must be 0-65536)", function() s:getsockopt(1, 2, math.maxinteger) end)
    refused("#1 to 'getsockopt' (does not fit a C int)", function() s:getsockopt(1 << 31, 2) end)
    refused("#2 to 'getsockopt' (does not fit a C int)", function() s:getsockopt(1, math.mininteger) end)
    refused("#2 to 'getsockopt' (number has no integer representation)", function() s:getsockopt(1, 2.5) end)
    refused("#2 to 'getsockopt' (number expected, got no value)", function() s:getsockopt(1) end)
    refused("#1 to 'getsockopt' (number expected, got table)", function() s:getsockopt({}, 1) end)
    refused("#3 to 'getsockopt' (number expected, got string)", function() s:getsockopt(1, 2, "x") end)
  end)
end)

describe("setsockopt", function()
  local s
  before_each(function() s = socket.socket() end)
  after_each(function() s:close() end)

  it("takes an integer or a boolean, and returns the socket", function()
    assert.equal(s, s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
    assert.equal(1, s:getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
    s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, false)
    assert.equal(0, s:getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
    s:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, true)
    assert.equal(1, s:getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    s:setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 42.0)
    assert.equal(42, s:getsockopt(socket.IPPROTO_IP, socket.IP_TTL))
    assert.equal(s, s:try_setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 43))
  end)

  it("takes bytes, as string.pack makes them", function()
    local linger = pack("ii", 1, 7)
    s:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert.equal(linger, s:getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    local u <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    local group = socket.inet_aton "224.0.0.251" .. socket.inet_aton "127.0.0.1"
    u:setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    local e = raised(u.setsockopt, u, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    assert.equal("EADDRINUSE", e.code)
  end)

  it("takes nil and a length, for options without a value", function()
    if not socket.SO_BINDTODEVICE then pending "Linux's option" end
    assert.equal(s, s:setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, nil, 0))
    assert.equal("EFAULT", raised(s.setsockopt, s, socket.SOL_SOCKET, socket.SO_REUSEADDR, nil, 4).code)
  end)

  it("raises what the system says", function()
    local e = raised(s.setsockopt, s, socket.SOL_SOCKET, 12345, 1)
    assert.equal("ENOPROTOOPT", e.code)
    assert.equal("setsockopt", e.op)
    e = raised(s.setsockopt, s, socket.IPPROTO_IP, socket.IP_TTL, 256)
    assert.equal("EINVAL", e.code)
    local none
    none, e = s:try_setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, "short")
    assert.is_nil(none)
    assert.equal("EINVAL", e.code)
  end)

  it("names arguments that are out of range or of a wrong type", function()
    refused("#3 to 'setsockopt' (does not fit a C int)", function() s:setsockopt(1, 2, 1 << 31) end)
    refused("#3 to 'setsockopt' (number has no integer representation)", function() s:setsockopt(1, 2, 1.5) end)
    refused("#3 to 'setsockopt' (longer than 65536 bytes)", function() s:setsockopt(1, 2, ("x"):rep(65537)) end)
    refused("#3 to 'setsockopt' (string expected, got no value)", function() s:setsockopt(1, 2) end)
    refused("#3 to 'setsockopt' (string expected, got table)", function() s:setsockopt(1, 2, {}) end)
    refused("#4 to 'setsockopt' (number expected, got no value)", function() s:setsockopt(1, 2, nil) end)
    refused("#4 to 'setsockopt' (length must be 0-65536)", function() s:setsockopt(1, 2, nil, -1) end)
    refused("#4 to 'setsockopt' (length must be 0-65536)", function() s:setsockopt(1, 2, nil, 65537) end)
    refused("#4 to 'setsockopt' (length must be 0-65536)", function() s:setsockopt(1, 2, nil, math.mininteger) end)
    refused("#1 to 'setsockopt' (does not fit a C int)", function() s:setsockopt(math.maxinteger, 2, 3) end)
    refused("#2 to 'setsockopt' (number expected, got nil)", function() s:setsockopt(1, nil, 3) end)
  end)

  it("leaves SO_RCVTIMEO to a script that sets it, and settimeout still holds", function()
    if not socket.SO_RCVTIMEO then pending "no SO_RCVTIMEO here" end
    local a, b = socket.socketpair()
    local _ <close> = a
    local _ <close> = b
    local tv = pack("l!8l", 5, 0)
    a:setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tv)
    a:settimeout(0.06)
    local begin = socket.monotonic()
    assert.equal(socket.timeout, raised(a.recv, a, 1).class)
    local took = socket.monotonic() - begin
    assert.is_true(took >= 0.06 and took < 2, took)
    assert.equal(tv, a:getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, #tv))
    a:settimeout(nil)
    assert.equal(tv, a:getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, #tv))
  end)

  it("is not needed to undo what timeouts do inside", function()
    local a, b = socket.socketpair()
    local _ <close> = a
    local _ <close> = b
    a:settimeout(0.15):try_recv(1)
    a:settimeout(nil)
    if socket.SO_RCVTIMEO then
      assert.equal(pack("l!8l", 0, 0), a:getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
    end
  end)
end)

describe("settimeout", function()
  local s
  before_each(function() s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) end)
  after_each(function() s:close() end)

  it("is nil at first, seconds later; gettimeout and s.timeout tell", function()
    assert.is_nil(s:gettimeout())
    assert.is_nil(s.timeout)
    assert.equal(s, s:settimeout(2))
    assert.equal(2.0, s:gettimeout())
    assert.equal("float", math.type(s:gettimeout()))
    assert.equal(2.0, s.timeout)
    for _, t in ipairs {0.1, 0.25, 0.3, 1.1, 7.7, 12.34, 999.9, 86400} do
      assert.equal(t, s:settimeout(t):gettimeout())
    end
    assert.equal(0.5, s:settimeout("0.5"):gettimeout()) -- as Lua's own functions take numbers
    assert.is_nil(s:settimeout(nil):gettimeout())
  end)

  it("bounds an operation: never early, hardly late", function()
    for _, t in ipairs {0.001, 0.02, 0.07} do
      s:settimeout(t)
      local begin = socket.monotonic()
      local e = raised(s.recv, s, 1)
      local took = socket.monotonic() - begin
      assert.equal(socket.timeout, e.class)
      assert.is_true(took >= t, took)
      assert.is_true(took < t + 1, took)
    end
  end)

  it("of 0 never waits", function()
    s:settimeout(0)
    local begin = socket.monotonic()
    assert.equal("EAGAIN", raised(s.recv, s, 1).code)
    assert.is_true(socket.monotonic() - begin < 1)
    assert.is_false(s:getblocking())
    assert.equal(0.0, s:settimeout(-0.0):gettimeout())
  end)

  it("of the smallest number is still a timeout", function()
    s:settimeout(5e-324)
    assert.is_true(s:getblocking())
    assert.equal(socket.timeout, raised(s.recv, s, 1).class)
  end)

  it("of a hundred years is as good as none", function()
    assert.equal(3e9, s:settimeout(3e9):gettimeout())
    assert.is_nil(s:settimeout(3.1e9):gettimeout())
    assert.is_nil(s:settimeout(math.maxinteger):gettimeout())
    assert.is_nil(s:settimeout(math.huge):gettimeout())
  end)

  it("takes nothing else", function()
    s:settimeout(1)
    refused("#1 to 'settimeout' (timeout must not be negative or NaN)", function() s:settimeout(-1) end)
    refused("#1 to 'settimeout' (timeout must not be negative or NaN)", function() s:settimeout(-1e-300) end)
    refused("#1 to 'settimeout' (timeout must not be negative or NaN)", function() s:settimeout(-math.huge) end)
    refused("#1 to 'settimeout' (timeout must not be negative or NaN)", function() s:settimeout(0 / 0) end)
    refused("#1 to 'settimeout' (timeout must not be negative or NaN)", function() s:settimeout(math.mininteger) end)
    refused("#1 to 'settimeout' (number expected, got boolean)", function() s:settimeout(false) end)
    refused("#1 to 'settimeout' (number expected, got string)", function() s:settimeout "soon" end)
    refused("#1 to 'settimeout' (value expected)", function() s:settimeout() end)
    assert.equal(1.0, s:gettimeout())
  end)

  it("changes the descriptor's mode where others can see it", function()
    needs_proc()
    assert.equal(0, flags(s) & O_NONBLOCK)
    s:settimeout(0)
    assert.equal(O_NONBLOCK, flags(s) & O_NONBLOCK)
    s:settimeout(nil)
    assert.equal(0, flags(s) & O_NONBLOCK)
  end)

  it("works on a closed socket too, and does nothing", function()
    s:close()
    for _, t in ipairs {0, 0.5, 100} do assert.equal(t + 0.0, s:settimeout(t):gettimeout()) end
    assert.is_nil(s:settimeout(nil):gettimeout())
    assert.is_false(s:setblocking(false):getblocking())
  end)

  it("says that somebody else closed the descriptor whose mode it is to change", function() -- Python: EBADF
    for _, change in ipairs {
      {"settimeout", 0}, {"setblocking", false}, {"settimeout", nil, 0}, {"setblocking", true, 0},
    } do
      local name, value, before = change[1], change[2], change[3]
      local gone = socket.socket():settimeout(before)
      socket.close(gone:fileno())
      local e = raised(gone[name], gone, value)
      assert.same({"EBADF", name}, {e.code, e.op})
      local none, same = gone["try_" .. name](gone, value)
      assert.is_nil(none)
      assert.equal("EBADF", same.code)
      gone:detach()
    end
  end)
end)

describe("setblocking", function()
  local s
  before_each(function() s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) end)
  after_each(function() s:close() end)

  it("is settimeout(0) or settimeout(nil)", function()
    assert.is_true(s:getblocking())
    assert.equal(s, s:setblocking(false))
    assert.is_false(s:getblocking())
    assert.equal(0.0, s:gettimeout())
    assert.equal("EAGAIN", raised(s.recv, s, 1).code)
    s:setblocking(true)
    assert.is_true(s:getblocking())
    assert.is_nil(s:gettimeout())
  end)

  it("takes Python's 0 for false, and nil", function()
    for _, off in ipairs {0, 0.0, -0.0} do
      assert.is_true(s:setblocking(1):getblocking())
      assert.is_false(s:setblocking(off):getblocking())
    end
    assert.is_true(s:setblocking(0.1):getblocking())
    assert.is_false(s:setblocking(nil):getblocking())
    refused("#1 to 'setblocking' (value expected)", function() s:setblocking() end)
  end)

  it("ends a timeout", function()
    s:settimeout(3):setblocking(true)
    assert.is_nil(s:gettimeout())
    s:settimeout(3)
    assert.is_true(s:getblocking())
  end)
end)

describe("the default timeout", function()
  after_each(function() socket.setdefaulttimeout(nil) end)

  it("is nil until set, and counts for sockets made later", function()
    local before <close> = socket.socket()
    assert.is_nil(socket.getdefaulttimeout())
    socket.setdefaulttimeout(1.5)
    assert.equal(1.5, socket.getdefaulttimeout())
    local after <close> = socket.socket()
    assert.is_nil(before:gettimeout())
    assert.equal(1.5, after:gettimeout())
    local a, b = socket.socketpair()
    local _ <close> = a
    local _ <close> = b
    assert.equal(1.5, a:gettimeout())
    assert.equal(1.5, b:gettimeout())
  end)

  it("of 0 makes sockets that never wait", function()
    socket.setdefaulttimeout(0)
    local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert.is_false(s:getblocking())
    if lfs.attributes "/proc/self/fdinfo" then assert.equal(O_NONBLOCK, flags(s) & O_NONBLOCK) end
    assert.equal("EAGAIN", raised(s.recv, s, 1).code)
  end)

  it("takes what settimeout takes", function()
    refused("#1 to 'setdefaulttimeout' (value expected)", function() socket.setdefaulttimeout() end)
    refused("#1 to 'setdefaulttimeout' (timeout must not be", function() socket.setdefaulttimeout(-0.1) end)
    refused("#1 to 'setdefaulttimeout' (timeout must not be", function() socket.setdefaulttimeout(0 / 0) end)
    refused("#1 to 'setdefaulttimeout' (number expected", function() socket.setdefaulttimeout {} end)
    assert.is_nil(socket.getdefaulttimeout())
  end)
end)

describe("a descriptor", function()
  it("is s:fileno(), s:getfd() to other event loops, -1 when closed", function()
    local s <close> = socket.socket()
    local fd = s:fileno()
    assert.equal("integer", math.type(fd))
    assert.is_true(fd > 2)
    assert.equal(fd, s:getfd())
    s:close()
    assert.equal(-1, s:fileno())
    assert.equal(-1, s:getfd())
  end)

  -- What a child program finds under that number.
  local function inherited(s)
    local p <close> = assert(io.popen("readlink /proc/self/fd/" .. s:fileno()))
    return p:read "a"
  end

  it("is not for child programs until set_inheritable", function()
    needs_proc()
    local s <close> = socket.socket()
    assert.is_false(s:get_inheritable())
    assert.not_matches("socket:", inherited(s), 1, true)
    assert.equal(s, s:set_inheritable(true))
    assert.is_true(s:get_inheritable())
    assert.matches("^socket:%[%d+%]\n$", inherited(s))
    assert.equal(s, s:set_inheritable(false))
    assert.is_false(s:get_inheritable())
    assert.equal("", inherited(s))
  end)

  it("is close-on-exec wherever it comes from", function()
    needs_proc()
    local all = {socket.socket(), socket.socketpair()}
    all[#all + 1], all[#all + 2] = tcp_pair()
    all[#all + 1] = all[1]:dup()
    all[#all + 1] = socket.fromfd(all[1]:fileno(), socket.AF_INET, socket.SOCK_STREAM)
    all[#all + 1] = socket.create_server {"127.0.0.1", 0}
    all[#all + 1] = socket.socket(nil, nil, nil, socket.dup(all[1]:fileno()))
    for _, s in ipairs(all) do
      assert.equal(O_CLOEXEC, flags(s) & O_CLOEXEC, tostring(s))
      assert.is_false(s:get_inheritable())
    end
    for _, s in ipairs(all) do s:close() end
  end)

  it("must be given a flag", function()
    local s <close> = socket.socket()
    refused("#1 to 'set_inheritable' (value expected)", function() s:set_inheritable() end)
    assert.is_false(s:set_inheritable(nil):get_inheritable())
  end)
end)

describe("shutdown", function()
  it("SHUT_WR ends what the peer reads, and nothing else", function()
    local a, b = tcp_pair()
    local _ <close> = a
    local _ <close> = b
    a:sendall "last words"
    assert.equal(a, a:shutdown(socket.SHUT_WR))
    assert.equal("last words", b:recv(100))
    assert.is_nil(b:recv(100))
    b:sendall "answer"
    assert.equal("answer", a:recv(100))
    local e = raised(a.send, a, "more")
    assert.equal("EPIPE", e.code)
    assert.equal("send", e.op)
  end)

  it("SHUT_RD ends one's own reading", function()
    local a, b = socket.socketpair()
    local _ <close> = a
    local _ <close> = b
    assert.equal(a, a:shutdown(socket.SHUT_RD))
    assert.is_nil(a:recv(1))
    a:sendall "still sending"
    assert.equal("still sending", b:recv(100))
  end)

  it("SHUT_RDWR is both", function()
    local a, b = tcp_pair()
    local _ <close> = a
    local _ <close> = b
    assert.equal(a, a:try_shutdown(socket.SHUT_RDWR))
    assert.is_nil(a:recv(1))
    assert.is_nil(b:recv(1))
    assert.equal("EPIPE", raised(a.send, a, "x").code)
  end)

  it("is ENOTCONN without a connection", function()
    local s <close> = socket.socket()
    local e = raised(s.shutdown, s, socket.SHUT_RDWR)
    assert.equal("ENOTCONN", e.code)
    assert.equal("shutdown", e.op)
    assert.equal("ENOTCONN", select(2, s:try_shutdown(socket.SHUT_RD)).code)
  end)

  it("takes one of three values", function()
    local s <close> = socket.socket()
    for _, how in ipairs {-1, 3, 100} do
      refused("#1 to 'shutdown' (SHUT_RD, SHUT_WR or SHUT_RDWR expected)", function() s:shutdown(how) end)
    end
    refused("#1 to 'shutdown' (does not fit a C int)", function() s:shutdown(1 << 32) end)
    refused("#1 to 'shutdown' (number expected, got no value)", function() s:shutdown() end)
    refused("#1 to 'shutdown' (number expected, got string)", function() s:shutdown "rw" end)
  end)
end)

describe("a closed socket", function()
  -- What can still be called, with arguments that are right.
  local calls = {
    get_inheritable = {}, getpeername = {}, getsockname = {}, getsockopt = {1, 2}, set_inheritable = {true},
    setsockopt = {1, 2, 3}, shutdown = {2},
  }

  it("is refused by all that would ask the system: EBADF, socket is closed", function()
    local s = socket.socket()
    s:close()
    for name, arguments in pairs(calls) do
      local e = raised(s[name], s, table.unpack(arguments))
      assert.equal("EBADF", e.code)
      assert.equal("socket is closed", e.message)
      assert.equal(name, e.op)
      local none, same = s["try_" .. name](s, table.unpack(arguments))
      assert.is_nil(none)
      assert.equal("socket is closed", same.message)
    end
    local e = raised(s.getsockopt, s, 1, 2, 100)
    assert.equal("EBADF", e.code)
  end)

  it("says the system's words when somebody else closed the descriptor", function()
    local before = proc.settled_descriptors()
    local s = socket.socket()
    socket.close(s:fileno())
    for name, arguments in pairs(calls) do
      local e = raised(s[name], s, table.unpack(arguments))
      assert.equal("EBADF", e.code, name)
      assert.equal("Bad file descriptor", e.message)
      assert.equal(name, e.op)
    end
    s:detach()
    assert.equal(before, proc.descriptors())
  end)
end)

describe("a method", function()
  it("refuses whatever is no socket, each of them", function()
    local s <close> = socket.socket()
    local err = select(2, s:try_getpeername())
    local address = s:getsockname()
    for name, method in pairs(socket.SocketType) do
      for _, v in ipairs {false, 0, "socket", {}, print, io.stdout, coroutine.create(print), err, address,
        setmetatable({}, {__index = socket.SocketType, __name = "socket"})} do
        local ok, e = pcall(method, v, 1, 1, 1)
        assert.is_false(ok, name)
        assert.equal("string", type(e))
        assert.matches("socket expected, got", e, 1, true)
      end
      assert.matches("socket expected, got no value", select(2, pcall(method)), 1, true)
    end
  end)

  it("takes and gives integers of 64 bits where AF_VSOCK has them", function()
    local s <close> = socket.AF_VSOCK and socket.try_socket(socket.AF_VSOCK)
    if not s then pending "needs VM sockets" end
    local SIZE, MAX = socket.SO_VM_SOCKETS_BUFFER_SIZE, socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE
    assert.equal(s, s:setsockopt(socket.AF_VSOCK, MAX, 1 << 33))
    assert.equal(1 << 33, s:getsockopt(socket.AF_VSOCK, MAX))
    s:setsockopt(socket.AF_VSOCK, SIZE, 70000)
    assert.equal(70000, s:getsockopt(socket.AF_VSOCK, SIZE))
    assert.equal(string.pack("=I8", 70000), s:getsockopt(socket.AF_VSOCK, SIZE, 8))
    assert.is_true(s:getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 0) -- others have as many as ever
    s:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
  end)

  it("refuses a socket of another library, and a file with a socket's metatable", function()
    local s <close> = socket.socket()
    local f <close> = assert(io.open(h.root .. "/Makefile"))
    local own = debug.getmetatable(f)
    debug.setmetatable(f, debug.getmetatable(s))
    local ok, e = pcall(s.fileno, f)
    local named, text = pcall(tostring, f)
    local indexed = pcall(function() return f.family end)
    debug.setmetatable(f, own)
    assert.is_false(ok)
    assert.matches("socket expected", e, 1, true)
    assert.is_false(named, text)
    assert.is_false(indexed)
  end)
end)
