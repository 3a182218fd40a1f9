-- Addresses of IPv4, IPv6 and Unix sockets, and of families that have no form of their own. The rarer families are in
-- family_spec.lua.

require "spec.helper"
local lfs = require "lfs"
local proc = require "spec.support.proc"
local socket = require "socket"

local pack = string.pack
local INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
local packaddr, unpackaddr = socket.packaddr, socket.unpackaddr

-- The structures as C has them: netinet/in.h, sys/un.h.
local function sockaddr_in(host, port) return pack("=I2>I2", INET, port) .. host .. ("\0"):rep(8) end
local function sockaddr_in6(host, port, flowinfo, scope)
  return pack("=I2>I2I4", INET6, port, flowinfo or 0) .. host .. pack("=I4", scope or 0)
end
local function sockaddr_un(path) return pack("=I2", UNIX) .. path end

local LOOPBACK = "\127\0\0\1"
local LOOPBACK6 = ("\0"):rep(15) .. "\1"

local function on_linux() return lfs.attributes "/proc/net/unix" ~= nil end

-- f() fails because of its arguments, before any system call.
local function refused(message, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(e))
  assert.matches(message, e, 1, true)
end

local function has_ipv6()
  local s <close> = socket.try_socket(INET6)
  return s and (s:try_bind {"::1", 0}) ~= nil
end

-- A path where nothing is.
local function free_path()
  local path = os.tmpname()
  os.remove(path)
  return path
end

describe("an IPv4 address", function()
  it("is {host, port}", function()
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"127.0.0.1", 80}))
    local a = unpackaddr(sockaddr_in("\10\20\30\40", 65535))
    assert.same({"10.20.30.40", 65535}, {table.unpack(a)})
    assert.equal(2, #a)
  end)

  it("may be given by name", function()
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {host = "127.0.0.1", port = 80}))
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"127.0.0.1", port = 80}))
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"127.0.0.1", 80, host = "1.1.1.1", port = 1}))
  end)

  it("may have an empty host, for all there are", function()
    assert.equal(sockaddr_in("\0\0\0\0", 1), packaddr(INET, {"", 1}))
    assert.equal(sockaddr_in("\0\0\0\0", 1), packaddr(INET, {"0.0.0.0", 1}))
  end)

  it("may have <broadcast> for a host", function()
    assert.equal(sockaddr_in("\255\255\255\255", 1), packaddr(INET, {"<broadcast>", 1}))
  end)

  it("may have an integer for a host, in host byte order", function()
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {socket.INADDR_LOOPBACK, 80}))
    assert.equal(sockaddr_in("\1\2\3\4", 80), packaddr(INET, {0x01020304, 80}))
    assert.equal(sockaddr_in("\0\0\0\0", 0), packaddr(INET, {socket.INADDR_ANY, 0}))
    assert.equal(sockaddr_in("\255\255\255\255", 0), packaddr(INET, {host = socket.INADDR_BROADCAST, port = 0}))
    assert.equal(sockaddr_in("\1\2\3\4", 80), packaddr(INET, {0x01020304 + 0.0, 80}))
  end)

  it("knows localhost without asking (RFC 6761)", function()
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"localhost", 80}))
  end)

  it("may be in the older notations of inet_aton(3)", function()
    for text, bytes in pairs {["127.1"] = LOOPBACK, ["0x7f000001"] = LOOPBACK, ["2130706433"] = LOOPBACK,
      ["0177.0.0.1"] = LOOPBACK, ["10.65535"] = "\10\0\255\255"} do
      assert.equal(sockaddr_in(bytes, 1), packaddr(INET, {text, 1}), text)
    end
  end)

  it("may have a port in Lua's other forms of an integer", function()
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"127.0.0.1", 80.0}))
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"127.0.0.1", "80"}))
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"127.0.0.1", "0x50"}))
  end)

  it("is refused with the reason, before any system call", function()
    local before = proc.settled_descriptors()
    local s <close> = socket.socket()
    for _, case in ipairs {
      {{"127.0.0.1", 65536}, "port must be 0-65535, got 65536"},
      {{"127.0.0.1", -1}, "port must be 0-65535, got -1"},
      {{"127.0.0.1", math.maxinteger}, "port must be 0-65535, got 9223372036854775807"},
      {{"127.0.0.1", math.mininteger}, "port must be 0-65535, got -9223372036854775808"},
      {{"127.0.0.1", 80.5}, "port must be an integer, got number"},
      {{"127.0.0.1", 0 / 0}, "port must be an integer, got number"},
      {{"127.0.0.1", math.huge}, "port must be an integer, got number"},
      {{"127.0.0.1", "http"}, "port must be an integer, got string"},
      {{"127.0.0.1", "80\0"}, "port must be an integer, got string"},
      {{"127.0.0.1"}, "port must be an integer, got nil"},
      {{"127.0.0.1", false}, "port must be an integer, got boolean"},
      {{host = "127.0.0.1"}, "port must be an integer, got nil"},
      {{}, "port must be an integer, got nil"},
      {{port = 80}, "host must be a string or an integer, got nil"},
      {{false, 80}, "host must be a string or an integer, got boolean"},
      {{{}, 80}, "host must be a string or an integer, got table"},
      {{-1, 80}, "host must be 0-4294967295, got -1"},
      {{1 << 32, 80}, "host must be 0-4294967295, got 4294967296"},
      {{1.5, 80}, "host must be an integer, got number"},
      {{"127.0.0.1\0", 80}, "host contains a zero byte"},
      {{"127.0.0.1\0.example.com", 80}, "host contains a zero byte"},
      {{"\0", 80}, "host contains a zero byte"},
      {{("a"):rep(1025), 80}, "host is longer than 1024 bytes"},
      {{("a"):rep(10000000), 80}, "host is longer than 1024 bytes"},
    } do
      refused(case[2], packaddr, INET, case[1])
      refused(case[2], s.bind, s, case[1])
      refused(case[2], s.connect, s, case[1])
      refused(case[2], s.try_connect, s, case[1])
      refused(case[2], s.connect_ex, s, case[1])
      refused(case[2], s.sendto, s, "", case[1])
      refused(case[2], socket.create_server, case[1])
    end
    for _, v in ipairs {"127.0.0.1:80", 80, true, print, s} do
      refused("table expected, got", packaddr, INET, v)
      refused("table expected, got", s.bind, s, v)
      refused("table expected, got", s.connect, s, v)
    end
    refused("value expected", s.bind, s)
    refused("value expected", s.connect, s)
    assert.equal(before + 1, proc.descriptors())
  end)

  it("asks no metamethods of the table given", function()
    local function never() error "asked" end
    local a = setmetatable({"127.0.0.1", 80}, {__index = never, __len = never, __newindex = never})
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, a))
    refused("port must be an integer, got nil", packaddr, INET, setmetatable({"127.0.0.1"}, {__index = {[2] = 80}}))
  end)

  it("is the same going out and coming back", function()
    local s <close> = socket.socket()
    s:bind {"127.0.0.1", 0}
    local a = s:getsockname()
    assert.is_true(unpackaddr(packaddr(INET, a)) == a)
    local other <close> = socket.socket()
    local _, e = other:try_bind(a)
    assert.equal("EADDRINUSE", e.code)
  end)
end)

describe("an IPv6 address", function()
  it("is known to the library: socket.has_ipv6", function()
    assert.is_true(socket.has_ipv6)
    assert.equal(28, #packaddr(INET6, {"::", 0}))
  end)

  it("is {host, port [, flowinfo [, scope_id]]}", function()
    assert.equal(sockaddr_in6(LOOPBACK6, 80), packaddr(INET6, {"::1", 80}))
    assert.equal(sockaddr_in6(LOOPBACK6, 80, 5), packaddr(INET6, {"::1", 80, 5}))
    assert.equal(sockaddr_in6(LOOPBACK6, 80, 0xFFFFF, 0xFFFFFFFF), packaddr(INET6, {"::1", 80, 0xFFFFF, 0xFFFFFFFF}))
    local a = unpackaddr(sockaddr_in6(LOOPBACK6, 80, 7, 3))
    assert.same({"::1", 80, 7, 3}, {table.unpack(a)})
    assert.same({"::1", 80, 7, 3, INET6}, {a.host, a.port, a.flowinfo, a.scope_id, a.family})
  end)

  it("may be given by name", function()
    assert.equal(sockaddr_in6(LOOPBACK6, 80, 7, 3),
      packaddr(INET6, {host = "::1", port = 80, flowinfo = 7, scope_id = 3}))
    assert.equal(sockaddr_in6(LOOPBACK6, 80, 0, 3), packaddr(INET6, {"::1", 80, scope_id = 3}))
  end)

  it("may have an empty host, or localhost", function()
    assert.equal(sockaddr_in6(("\0"):rep(16), 80), packaddr(INET6, {"", 80}))
    assert.equal(sockaddr_in6(LOOPBACK6, 80), packaddr(INET6, {"localhost", 80}))
  end)

  it("may hold an IPv4 address", function()
    local mapped = ("\0"):rep(10) .. "\255\255\1\2\3\4"
    assert.equal(sockaddr_in6(mapped, 80), packaddr(INET6, {"::ffff:1.2.3.4", 80}))
    assert.equal("::ffff:1.2.3.4", unpackaddr(sockaddr_in6(mapped, 80)).host)
  end)

  it("may name its scope behind a %, by interface or number", function()
    local link_local = "\xfe\x80" .. ("\0"):rep(13) .. "\1"
    local lo = socket.if_nameindex()[1]
    assert.equal(sockaddr_in6(link_local, 80, 0, lo[1]), packaddr(INET6, {"fe80::1%" .. lo[2], 80}))
    assert.equal(sockaddr_in6(link_local, 80, 0, 7), packaddr(INET6, {"fe80::1%7", 80}))
    assert.equal(sockaddr_in6(link_local, 80, 0, 4294967295), packaddr(INET6, {"fe80::1%4294967295", 80}))
    assert.equal(sockaddr_in6(link_local, 80, 0, 7), packaddr(INET6, {"fe80::1%7", 80, 0, 9}))
    for _, scope in ipairs {"", "no-such-if", "-1", "+1", " 1", "1 ", "1x", "0x1", "4294967296", "18446744073709551617",
      "-18446744073709551615", "-"} do
      local host = "fe80::1%" .. scope
      refused(("host must be numeric here, got '%s'"):format(host), packaddr, INET6, {host, 80})
    end
  end)

  it("is refused with the reason", function()
    for _, case in ipairs {
      {{"::1", 65536}, "port must be 0-65535, got 65536"},
      {{"::1"}, "port must be an integer, got nil"},
      {{"::1", 80, -1}, "flowinfo must be 0-1048575, got -1"},
      {{"::1", 80, 0x100000}, "flowinfo must be 0-1048575, got 1048576"},
      {{"::1", 80, "x"}, "flowinfo must be an integer, got string"},
      {{"::1", 80, 0, -1}, "scope_id must be 0-4294967295, got -1"},
      {{"::1", 80, 0, 1 << 32}, "scope_id must be 0-4294967295, got 4294967296"},
      {{"::1", 80, 0, {}}, "scope_id must be an integer, got table"},
      {{1, 80}, "host must be a string, got number"},
      {{port = 80}, "host must be a string, got nil"},
      {{"::1\0", 80}, "host contains a zero byte"},
      {{("1"):rep(1025), 80}, "host is longer than 1024 bytes"},
      {{("1"):rep(1024), 80}, "host must be numeric here"},
      {{"127.0.0.1", 80}, "host must be numeric here, got '127.0.0.1'"},
      {{"<broadcast>", 80}, "host must be numeric here, got '<broadcast>'"},
      {{"::1::", 80}, "host must be numeric here, got '::1::'"},
      {{"12345::", 80}, "host must be numeric here, got '12345::'"},
      {{"[::1]", 80}, "host must be numeric here, got '[::1]'"},
    } do
      refused(case[2], packaddr, INET6, case[1])
    end
    refused("table expected, got string", packaddr, INET6, "::1")
  end)

  it("shows its zone, by the interface's name or else its number (RFC 4007)", function()
    local lo = socket.if_nametoindex "lo"
    local host = socket.inet_pton(INET6, "fe80::1")
    local a = unpackaddr(sockaddr_in6(host, 80, 0, lo))
    assert.equal("[fe80::1%lo]:80", tostring(a))
    assert.same({"fe80::1", 80, 0, lo}, {table.unpack(a)})
    assert.equal("[fe80::1%4294967295]:80", tostring(unpackaddr(sockaddr_in6(host, 80, 0, 0xFFFFFFFF))))
    assert.equal("[fe80::1]:80", tostring(unpackaddr(sockaddr_in6(host, 80))))
    local s <close> = socket.try_socket(INET6, socket.SOCK_DGRAM)
    if not s then pending "this machine has no IPv6" end
    for _, address in ipairs {{"fe80::99", 9, 0, lo}, {host = "fe80::99", port = 9, scope_id = lo}} do
      local _, e = s:try_bind(address)
      assert.matches("bind [fe80::99%lo]:9: ", tostring(e), 1, true)
    end
    local _, e = s:try_bind {"fe80::99%lo", 9, 0, lo}
    assert.matches("bind [fe80::99%lo]:9: ", tostring(e), 1, true) -- once is enough
  end)

  it("comes back with its scope from a socket", function()
    if not has_ipv6() then pending "this machine has no IPv6" end
    local s <close> = socket.socket(INET6)
    s:bind {"::1", 0}
    local a = s:getsockname()
    assert.same({"::1", a.port, 0, 0}, {table.unpack(a)})
    assert.is_true(a.port > 0)
    local c <close> = socket.socket(INET6)
    s:listen()
    c:connect(a)
    assert.is_true(c:getpeername() == a)
  end)
end)

describe("localhost", function()
  it("is this machine however it is written, and so is every name in it (RFC 6761)", function()
    for _, host in ipairs {"localhost", "localhost.", "LOCALHOST", "LocalHost.", "www.localhost", "a.b.LOCALHOST."} do
      assert.equal(sockaddr_in(LOOPBACK, 1), packaddr(INET, {host, 1}))
      assert.equal(sockaddr_in6(LOOPBACK6, 1), packaddr(INET6, {host, 1}))
    end
  end)
end)

describe("a host that does not look like one", function()
  it("is a name, to be looked up; where that cannot be, it is refused", function()
    for _, host in ipairs {"example.com", "1.2.3.4.5", "256.1.1.1", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4x", "::1", "-1",
      "0x", "%", "1%lo", "127.0.0.1:80", "<broadcast", "localhost..", "localhos", "alocalhost",
      "localhost.x", "\255\254"} do
      refused(("host must be numeric here, got '%s'"):format(host), packaddr, INET, {host, 1})
    end
  end)
end)

describe("a Unix address", function()
  it("is a path, in C with a zero byte at its end", function()
    assert.equal(sockaddr_un "/run/x\0", packaddr(UNIX, "/run/x"))
    assert.equal("/run/x", unpackaddr(sockaddr_un "/run/x\0"))
    assert.equal("/run/x", unpackaddr(sockaddr_un "/run/x\0ignored"))
    assert.equal("/run/x", unpackaddr(sockaddr_un "/run/x"))
    assert.equal("relative/path", unpackaddr(packaddr(UNIX, "relative/path")))
  end)

  it("may stand in a table", function()
    assert.equal(sockaddr_un "/run/x\0", packaddr(UNIX, {"/run/x"}))
    assert.equal(sockaddr_un "/run/x\0", packaddr(UNIX, {path = "/run/x"}))
  end)

  it("has at most 107 bytes", function()
    if not on_linux() then pending "elsewhere the number is another" end
    local longest = ("x"):rep(107)
    assert.equal(longest, unpackaddr(packaddr(UNIX, longest)))
    assert.equal(("x"):rep(108), unpackaddr(sockaddr_un(("x"):rep(108)))) -- others' may lack the zero byte
    refused("path is longer than 107 bytes", packaddr, UNIX, ("x"):rep(108))
    refused("path is longer than 107 bytes", packaddr, UNIX, {("x"):rep(108)})
    refused("path is longer than", packaddr, UNIX, {("x"):rep(109)})
    refused("path is longer than 107 bytes", packaddr, UNIX, ("x"):rep(10000000))
  end)

  it("has no zero byte but at its beginning", function()
    refused("path contains a zero byte", packaddr, UNIX, "/run/x\0")
    refused("path contains a zero byte", packaddr, UNIX, "/run\0/x")
    refused("path contains a zero byte", packaddr, UNIX, {"/run\0/x"})
    local s <close> = socket.socket(UNIX)
    refused("path contains a zero byte", s.bind, s, "/tmp/a\0b")
    refused("path contains a zero byte", s.connect, s, "/tmp/a\0b")
  end)

  it("is nothing else", function()
    for _, v in ipairs {true, print, io.stdout} do refused("string expected, got", packaddr, UNIX, v) end
    refused("string expected, got nil", packaddr, UNIX, nil)
    refused("path must be a string, got nil", packaddr, UNIX, {})
    refused("path must be a string, got number", packaddr, UNIX, {1})
    refused("path must be a string, got boolean", packaddr, UNIX, {path = false})
  end)

  it("is bound to, connected to, and told by both ends", function()
    local path = free_path()
    local server <close> = socket.socket(UNIX)
    assert.equal(path, server:bind(path):listen():getsockname())
    local client <close> = socket.socket(UNIX)
    assert.equal(path, client:connect({path = path}):getpeername())
    local conn, from = server:accept()
    assert.equal(path, conn:getsockname())
    assert.equal("", conn:getpeername()) -- the client has none
    assert.equal("", from)
    assert.equal("socket", lfs.attributes(path, "mode"))
    conn:close()
    os.remove(path)
    local _, e = client:try_connect(path)
    assert.is_true(socket.iserror(e))
    local late <close> = socket.socket(UNIX)
    _, e = late:try_connect(path)
    assert.equal("ENOENT", e.code)
    assert.equal(path, e.address)
  end)

  it("of 107 bytes works", function()
    if not on_linux() then pending "elsewhere the number is another" end
    local path = free_path()
    path = path .. ("x"):rep(107 - #path)
    local s <close> = socket.socket(UNIX)
    assert.equal(path, s:bind(path):getsockname())
    os.remove(path)
  end)

  it("that begins with a zero byte is a name without a file, on Linux", function()
    if not on_linux() then pending "Linux's abstract names" end
    local name = ("\0socket spec %d\0%s"):format(math.random(0), ("y"):rep(20))
    assert.equal(sockaddr_un(name), packaddr(UNIX, name))
    assert.equal(name, unpackaddr(sockaddr_un(name)))
    local server <close> = socket.socket(UNIX)
    assert.equal(name, server:bind(name):listen():getsockname())
    local client <close> = socket.socket(UNIX)
    assert.equal(name, client:connect(name):getpeername())
    local other <close> = socket.socket(UNIX)
    local _, e = other:try_connect(name .. "\0") -- each byte counts
    assert.equal("ECONNREFUSED", e.code)
    local longest = "\0" .. ("z"):rep(107)
    assert.equal(longest, unpackaddr(packaddr(UNIX, longest)))
    refused("path is longer than 108 bytes", packaddr, UNIX, longest .. "z")
  end)

  it("that is empty lets Linux choose a name", function()
    if not on_linux() then pending "Linux's abstract names" end
    assert.equal(sockaddr_un "", packaddr(UNIX, ""))
    local s <close> = socket.socket(UNIX)
    assert.matches("^\0%x%x%x%x%x$", s:bind(""):getsockname())
  end)

  it("of a socket that has none is empty; of a datagram's nameless sender, nil", function()
    local path = free_path()
    local receiver <close> = socket.socket(UNIX, socket.SOCK_DGRAM)
    local sender <close> = socket.socket(UNIX, socket.SOCK_DGRAM)
    assert.equal("", sender:getsockname())
    receiver:bind(path)
    sender:sendto("who?", path)
    local data, from = receiver:recvfrom(10)
    os.remove(path)
    assert.equal("who?", data)
    assert.is_nil(from)
    assert.equal("", unpackaddr(sockaddr_un ""))
    assert.equal("", unpackaddr(packaddr(UNIX, "")))
  end)
end)

describe("an address of another family", function()
  local FAMILY = 45 -- AF_MAX in 2024; any number without a form of its own will do

  it("is {family, bytes}, both ways", function()
    local bytes = pack("=I2", FAMILY) .. "any\0thing"
    local a = unpackaddr(bytes)
    assert.same({FAMILY, "any\0thing"}, {table.unpack(a)})
    assert.equal(FAMILY, a.family)
    assert.equal("any\0thing", a.bytes)
    assert.equal(bytes, packaddr(FAMILY, a))
    assert.equal(bytes, packaddr(FAMILY, {FAMILY, "any\0thing"}))
    assert.equal(bytes, packaddr(FAMILY, {family = FAMILY, bytes = "any\0thing"}))
    assert.equal(pack("=I2", FAMILY), packaddr(FAMILY, {FAMILY, ""}))
    assert.same({FAMILY, ""}, {table.unpack(unpackaddr(pack("=I2", FAMILY)))})
  end)

  it("is refused with the reason", function()
    refused("family must be 45-45, got 46", packaddr, FAMILY, {46, ""})
    refused("family must be an integer, got nil", packaddr, FAMILY, {})
    refused("bytes must be a string, got nil", packaddr, FAMILY, {FAMILY})
    refused("bytes must be a string, got number", packaddr, FAMILY, {FAMILY, 1})
    refused("bytes is longer than 126 bytes", packaddr, FAMILY, {FAMILY, ("x"):rep(127)})
    refused("table expected, got string", packaddr, FAMILY, "x")
    assert.equal(128, #packaddr(FAMILY, {FAMILY, ("x"):rep(126)}))
  end)

  it("is also what a structure too short for its family is", function()
    for n = 2, 15 do
      local bytes = sockaddr_in(LOOPBACK, 80):sub(1, n)
      assert.same({INET, bytes:sub(3)}, {table.unpack(unpackaddr(bytes))})
    end
    for n = 2, 27 do
      local bytes = sockaddr_in6(LOOPBACK6, 80):sub(1, n)
      assert.same({INET6, bytes:sub(3)}, {table.unpack(unpackaddr(bytes))})
    end
    assert.equal(INET6, unpackaddr(pack("=I2", INET6)).family)
    assert.equal(INET, unpackaddr(pack("=I2", INET)).family)
  end)
end)

describe("packaddr and unpackaddr", function()
  it("take families and protocols that fit", function()
    refused("#1 to 'socket.packaddr' (number expected, got no value)", packaddr)
    refused("#2 to 'socket.packaddr' (table expected, got no value)", packaddr, INET)
    for _, family in ipairs {-1, 65536, 65536 + INET, math.maxinteger, INET + (1 << 32)} do
      refused("#1 to 'socket.packaddr'", packaddr, family, {"127.0.0.1", 80})
    end
    refused("#3 to 'socket.packaddr' (does not fit a C int)", packaddr, INET, {"127.0.0.1", 80}, 1 << 32)
    refused("#3 to 'socket.packaddr' (number expected, got table)", packaddr, INET, {"127.0.0.1", 80}, {})
    refused("#2 to 'socket.unpackaddr' (does not fit a C int)", unpackaddr, sockaddr_in(LOOPBACK, 1), 1 << 32)
    assert.equal(sockaddr_in(LOOPBACK, 80), packaddr(INET, {"127.0.0.1", 80}, nil))
  end)

  it("take bytes that can be a socket address", function()
    refused("#1 to 'socket.unpackaddr' (string expected, got no value)", unpackaddr)
    refused("#1 to 'socket.unpackaddr' (string expected, got table)", unpackaddr, {})
    for _, n in ipairs {0, 1, 129, 1000000} do
      refused("#1 to 'socket.unpackaddr' (not a socket address)", unpackaddr, ("\2"):rep(n))
    end
  end)

  it("withstand any bytes", function()
    math.randomseed(1)
    for _ = 1, 3000 do
      local bytes = {}
      for i = 1, math.random(2, 128) do bytes[i] = string.char(math.random(0, 255)) end
      bytes[1], bytes[2] = string.char(math.random(0, 45)), "\0"
      bytes = table.concat(bytes)
      for proto = 0, 7 do
        local a = unpackaddr(bytes, proto)
        local text = tostring(a)
        assert.equal("string", type(text))
        assert.is_true(a == unpackaddr(bytes, proto))
      end
    end
  end)
end)

describe("an address that the library returns", function()
  local a
  before_each(function() a = unpackaddr(sockaddr_in(LOOPBACK, 80)) end)

  it("has named fields besides positions", function()
    assert.same({"127.0.0.1", 80, INET}, {a.host, a.port, a.family})
    local names = 0
    for _ in pairs(a) do names = names + 1 end
    assert.equal(2, names)
    for _, key in ipairs {"path", "scope_id", "flowinfo", "Host", "", "host\0", 3, 0, -1, 1.5, true, print} do
      assert.is_nil(a[key])
    end
    assert.is_nil(a[nil])
  end)

  it("unpacks into Python's tuple", function()
    local host, port = table.unpack(a)
    assert.same({"127.0.0.1", 80}, {host, port})
    local h6, p6, flow, scope = table.unpack(unpackaddr(sockaddr_in6(LOOPBACK6, 80, 1, 2)))
    assert.same({"::1", 80, 1, 2}, {h6, p6, flow, scope})
  end)

  it("shows itself as people write it", function()
    assert.equal("127.0.0.1:80", tostring(a))
    assert.equal("[::1]:80", tostring(unpackaddr(sockaddr_in6(LOOPBACK6, 80))))
    assert.equal("{45, bytes}", tostring(unpackaddr(pack("=I2", 45) .. "bytes")))
  end)

  it("equals another with the same items, and a plain table of them", function()
    local same = unpackaddr(sockaddr_in(LOOPBACK, 80))
    assert.is_false(rawequal(a, same))
    assert.is_true(a == same)
    assert.is_true(a == {"127.0.0.1", 80})
    assert.is_true({"127.0.0.1", 80} == a)
    assert.is_true(a == {"127.0.0.1", 80.0})
    assert.is_true(a == setmetatable({"127.0.0.1", 80}, {}))
    for _, other in ipairs {{"127.0.0.1", 81}, {"127.0.0.2", 80}, {"127.0.0.1"}, {"127.0.0.1", 80, 0}, {},
      {host = "127.0.0.1", port = 80}, unpackaddr(sockaddr_in(LOOPBACK, 81)),
      unpackaddr(sockaddr_in6(LOOPBACK6, 80))} do
      assert.is_true(a ~= other)
      assert.is_true(other ~= a)
    end
    assert.is_false(a == "127.0.0.1:80")
    assert.is_false(a == nil)
  end)

  it("equals none of another family", function()
    if not (socket.AF_VSOCK and socket.AF_NETLINK) then pending "needs two families with pairs of numbers" end
    local netlink = unpackaddr(packaddr(socket.AF_NETLINK, {5, 6}))
    local vsock = unpackaddr(packaddr(socket.AF_VSOCK, {5, 6}))
    assert.same({table.unpack(netlink)}, {table.unpack(vsock)})
    assert.is_true(netlink ~= vsock)
    assert.is_true(netlink == {5, 6})
    assert.is_true(vsock == {5, 6})
  end)

  it("changes where a name or a position is assigned, and is accepted so", function()
    a.port = 81
    assert.equal(81, a[2])
    assert.equal("127.0.0.1:81", tostring(a))
    a[1] = "10.0.0.1"
    assert.equal("10.0.0.1", a.host)
    a.host = "10.0.0.2"
    assert.equal(sockaddr_in("\10\0\0\2", 81), packaddr(INET, a))
    a.note = "mine"
    assert.equal("mine", a.note)
    a.port = nil
    assert.is_nil(a.port)
    assert.is_nil(a[2])
    assert.is_false(pcall(function() a[nil] = 1 end))
  end)

  it("keeps its metatable to itself", function()
    assert.is_false(getmetatable(a))
    assert.is_false(pcall(setmetatable, a, nil))
    local meta = debug.getmetatable(a)
    assert.equal("socket address", meta.__name)
    for _, v in ipairs {1, "x", io.stdout} do
      assert.is_false(pcall(meta.__index, v, "host"))
      assert.is_false(pcall(meta.__newindex, v, "host", 1))
      assert.is_false(pcall(meta.__tostring, v))
      assert.is_false(meta.__eq(v, a))
      assert.is_false(meta.__eq(a, v))
    end
    assert.is_nil(meta.__index({}, "host"))
    assert.is_false(pcall(meta.__tostring))
  end)

  it("shares one metatable with those of its form", function()
    assert.is_true(rawequal(debug.getmetatable(a), debug.getmetatable(unpackaddr(sockaddr_in("\1\2\3\4", 5)))))
    assert.is_false(rawequal(debug.getmetatable(a), debug.getmetatable(unpackaddr(sockaddr_in6(LOOPBACK6, 80)))))
  end)

  it("shows whatever a script put into it", function()
    local show = debug.getmetatable(a).__tostring
    for shown, v in pairs {
      ["{}"] = {}, ["host"] = {"host"}, ["host:1.5"] = {"host", 1.5}, ["host:port"] = {"host", "port"},
      ["[a:b]:1"] = {"a:b", 1}, ["[a:b]"] = {"a:b"}, ["{1, 2, 3}"] = {1, 2, 3},
      ["{boolean, x, table}"] = {true, "x", {}},
      ["{host, boolean}"] = {"host", true}, ["unix:/x"] = {path = "/x"}, ["unix:@x"] = {path = "\0x"},
      ["unix:"] = {path = ""}, ["h:5"] = {host = "h", port = 5},
      ["{1, 2, 3, 4, 5, 6, 7, 8}"] = {1, 2, 3, 4, 5, 6, 7, 8, 9},
    } do
      assert.equal(shown, show(v))
    end
    assert.equal(1000000 + 2, #show {("x"):rep(1000000), 1})
  end)
end)

describe("the text of a socket", function()
  it("shows its addresses", function()
    local server <close> = socket.create_server {"127.0.0.1", 0}
    local client <close> = socket.create_connection(server:getsockname())
    local port = server:getsockname().port
    assert.matches("laddr=127.0.0.1:" .. port, tostring(server), 1, true)
    assert.matches("raddr=127.0.0.1:" .. port, tostring(client), 1, true)
    local u <close> = socket.socket(UNIX)
    if on_linux() then
      u:bind("\0socket spec text " .. port)
      assert.matches("laddr=unix:@socket spec text " .. port, tostring(u), 1, true)
    end
  end)
end)
