-- Byte order, inet_*, interfaces, services and protocols, the host's own name.

local h = require "spec.helper"
local lfs = require "lfs"
local socket = require "socket"

local INET, INET6 = socket.AF_INET, socket.AF_INET6

-- The error object that f(...) raises, and that its try_ form returns.
local function raised(name, ...)
  local ok, e = pcall(socket[name], ...)
  assert.is_false(ok)
  assert.is_true(socket.iserror(e), tostring(e))
  assert.equal(socket.error, e.class)
  assert.equal(name, e.op)
  local none, same = socket["try_" .. name](...)
  assert.is_nil(none)
  assert.equal(e.code, same.code)
  assert.equal(e.message, same.message)
  return e
end

-- f() fails because of its arguments.
local function refused(message, f)
  local ok, e = pcall(f)
  assert.is_false(ok)
  assert.equal("string", type(e))
  assert.matches(message, e, 1, true)
end

-- What a command says.
local function run(command)
  local p <close> = assert(io.popen(command .. " 2>&1"))
  return (p:read "a")
end

local function bytes(...) return string.char(...) end

describe("byte order", function()
  -- What the network's order is on this machine, by way of string.pack.
  local function swap(format, v) return (string.unpack("=" .. format, string.pack(">" .. format, v))) end

  it("of 16 bits: htons, ntohs", function()
    for _, v in ipairs {0, 1, 80, 255, 256, 0x1234, 0xFF00, 65535} do
      assert.equal(swap("I2", v), socket.htons(v))
      assert.equal(swap("I2", v), socket.ntohs(v))
      assert.equal(v, socket.ntohs(socket.htons(v)))
    end
    assert.equal("integer", math.type(socket.htons(1.0)))
  end)

  it("of 32 bits: htonl, ntohl, always positive", function()
    for _, v in ipairs {0, 1, 255, 0x01020304, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF} do
      assert.equal(swap("I4", v), socket.htonl(v))
      assert.equal(swap("I4", v), socket.ntohl(v))
      assert.equal(v, socket.ntohl(socket.htonl(v)))
      assert.is_true(socket.htonl(v) >= 0)
    end
  end)

  it("is of numbers that fit", function()
    for name, max in pairs {htons = 65535, ntohs = 65535, htonl = 4294967295, ntohl = 4294967295} do
      local f = socket[name]
      refused(("must be 0-%d, got -1"):format(max), function() f(-1) end)
      refused(("must be 0-%d, got %d"):format(max, max + 1), function() f(max + 1) end)
      refused(("must be 0-%d, got %d"):format(max, math.mininteger), function() f(math.mininteger) end)
      refused("number has no integer representation", function() f(0.5) end)
      refused("number has no integer representation", function() f(0 / 0) end)
      refused("number expected, got no value", function() f() end)
      refused("number expected, got table", function() f {} end)
      refused("number expected, got string", function() f "\0\1" end)
    end
  end)
end)

describe("inet_aton", function()
  it("makes four bytes of an IPv4 address", function()
    assert.equal(bytes(123, 45, 67, 89), socket.inet_aton "123.45.67.89")
    assert.equal(bytes(255, 255, 255, 255), socket.inet_aton "255.255.255.255")
    assert.equal(bytes(0, 0, 0, 0), socket.try_inet_aton "0.0.0.0")
  end)

  it("takes the older notations too, as inet_aton(3) does", function()
    assert.equal(bytes(127, 0, 0, 1), socket.inet_aton "127.1")
    assert.equal(bytes(127, 0, 0, 1), socket.inet_aton "0x7f.1")
    assert.equal(bytes(8, 0, 0, 1), socket.inet_aton "010.1")
    assert.equal(bytes(1, 2, 3, 4), socket.inet_aton "16909060")
  end)

  it("raises EINVAL for anything else", function()
    for _, text in ipairs {"", "localhost", "1.2.3.4.5", "256.1.1.1", "1.2.3.-4", "::1", "1.2.3.4x", ("1"):rep(1000)} do
      local e = raised("inet_aton", text)
      assert.equal("EINVAL", e.code)
      assert.equal("illegal IP address string", e.message)
    end
  end)

  it("refuses what is no text of an address", function()
    refused("#1 to 'inet_aton' (name contains a zero byte)", function() socket.inet_aton "1.2.3.4\0" end)
    refused("#1 to 'inet_aton' (name is longer than 1024 bytes)", function() socket.inet_aton(("1"):rep(1025)) end)
    refused("#1 to 'inet_aton' (string expected, got nil)", function() socket.inet_aton(nil) end)
    refused("#1 to 'try_inet_aton' (string expected, got table)", function() socket.try_inet_aton {} end)
  end)
end)

describe("inet_ntoa", function()
  it("makes an IPv4 address of four bytes", function()
    assert.equal("123.45.67.89", socket.inet_ntoa(bytes(123, 45, 67, 89)))
    assert.equal("0.0.0.0", socket.inet_ntoa "\0\0\0\0")
    assert.equal("255.0.255.0", socket.try_inet_ntoa(bytes(255, 0, 255, 0)))
  end)

  it("raises EINVAL for more or fewer", function()
    for _, n in ipairs {0, 1, 3, 5, 16, 1000000} do
      local e = raised("inet_ntoa", ("\1"):rep(n))
      assert.equal("EINVAL", e.code)
      assert.equal("packed IP address must be 4 bytes", e.message)
    end
    refused("#1 to 'inet_ntoa' (string expected, got no value)", function() socket.inet_ntoa() end)
  end)
end)

describe("inet_pton and inet_ntop", function()
  it("convert IPv4", function()
    assert.equal(bytes(7, 10, 0, 5), socket.inet_pton(INET, "7.10.0.5"))
    assert.equal("7.10.0.5", socket.inet_ntop(INET, bytes(7, 10, 0, 5)))
  end)

  it("convert IPv6, in the shortest form (RFC 5952)", function()
    for text, packed in pairs {
      ["::"] = ("\0"):rep(16),
      ["::1"] = ("\0"):rep(15) .. "\1",
      ["5aef:2b::8"] = "\x5a\xef\0\x2b" .. ("\0"):rep(11) .. "\8",
      ["::ffff:1.2.3.4"] = ("\0"):rep(10) .. "\255\255\1\2\3\4",
      ["2001:db8:1:2:3:4:5:6"] = "\x20\1\x0d\xb8\0\1\0\2\0\3\0\4\0\5\0\6",
    } do
      assert.equal(packed, socket.inet_pton(INET6, text))
      assert.equal(text, socket.inet_ntop(INET6, packed))
    end
    assert.equal("2001:db8::1", socket.inet_ntop(INET6, socket.try_inet_pton(INET6, "2001:0DB8:0:0:0:0:0:1")))
  end)

  it("take nothing but complete addresses", function()
    for family, texts in pairs {
      [INET] = {"", "1.2.3", "127.1", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", " 1.2.3.4", "1.2.3.4 ", "::1", "localhost"},
      [INET6] = {"", ":", "1::2::3", "12345::", "1.2.3.4", "::1%lo", "[::1]", "::g", " ::1", ("1:"):rep(500)},
    } do
      for _, text in ipairs(texts) do
        local e = raised("inet_pton", family, text)
        assert.equal("EINVAL", e.code, text)
        assert.equal("illegal IP address string", e.message)
      end
    end
  end)

  it("know two families", function()
    for _, family in ipairs {socket.AF_UNIX, socket.AF_UNSPEC, 12345, -1} do
      assert.equal("EAFNOSUPPORT", raised("inet_pton", family, "1.2.3.4").code)
      assert.equal("EAFNOSUPPORT", raised("inet_ntop", family, "\1\2\3\4").code)
    end
  end)

  it("refuse arguments that do not fit", function()
    local wrong = "#2 to 'inet_ntop' (packed IP address must be 4 bytes (IPv4) or 16 (IPv6))"
    for _, n in ipairs {0, 3, 5, 16} do refused(wrong, function() socket.inet_ntop(INET, ("x"):rep(n)) end) end
    for _, n in ipairs {0, 4, 15, 17} do refused(wrong, function() socket.inet_ntop(INET6, ("x"):rep(n)) end) end
    refused("#1 to 'inet_pton' (does not fit a C int)", function() socket.inet_pton((1 << 32) + INET, "1.2.3.4") end)
    refused("#1 to 'inet_ntop' (does not fit a C int)", function() socket.inet_ntop((1 << 32) + INET, "1234") end)
    refused("#2 to 'inet_pton' (name contains a zero byte)", function() socket.inet_pton(INET, "1.2.3.4\0") end)
    refused("#2 to 'inet_pton' (name is longer", function() socket.inet_pton(INET, ("1"):rep(100000)) end)
    refused("#2 to 'inet_pton' (string expected, got no value)", function() socket.inet_pton(INET) end)
    refused("#1 to 'inet_pton' (number expected, got string)", function() socket.inet_pton("AF_INET", "1.2.3.4") end)
    refused("#2 to 'inet_ntop' (string expected, got nil)", function() socket.inet_ntop(INET, nil) end)
    refused("#1 to 'inet_ntop' (number expected, got no value)", function() socket.inet_ntop() end)
  end)
end)

describe("interfaces", function()
  it("are listed by if_nameindex, as {index, name}", function()
    local list = socket.if_nameindex()
    assert.is_true(#list >= 1)
    local names = {}
    for _, entry in ipairs(list) do
      assert.equal(2, #entry)
      assert.equal("integer", math.type(entry[1]))
      names[entry[2]] = entry[1]
    end
    if lfs.attributes "/sys/class/net" then
      for name in lfs.dir "/sys/class/net" do
        local f <close> = io.open("/sys/class/net/" .. name .. "/ifindex")
        if f then assert.equal(f:read "n", names[name]) end
      end
    end
    assert.same(list, socket.try_if_nameindex())
  end)

  it("have an index for a name, and a name for an index", function()
    for _, entry in ipairs(socket.if_nameindex()) do
      assert.equal(entry[1], socket.if_nametoindex(entry[2]))
      assert.equal(entry[2], socket.if_indextoname(entry[1]))
    end
  end)

  it("of other names do not exist: ENODEV", function()
    for _, name in ipairs {"", "no-such-if", ("x"):rep(15), ("x"):rep(16), ("x"):rep(1024), "lo ", "\255"} do
      local e = raised("if_nametoindex", name)
      assert.equal("ENODEV", e.code)
      assert.equal("no interface with this name", e.message)
    end
    refused("#1 to 'if_nametoindex' (name contains a zero byte)", function() socket.if_nametoindex "lo\0" end)
    refused("#1 to 'if_nametoindex' (string expected, got nil)", function() socket.if_nametoindex(nil) end)
  end)

  it("of other numbers do not exist: ENXIO", function()
    for _, index in ipairs {0, 987654, 4294967295} do
      local e = raised("if_indextoname", index)
      assert.equal("ENXIO", e.code)
      assert.equal("no interface with this index", e.message)
    end
    refused("#1 to 'if_indextoname' (must be 0-4294967295, got -1)", function() socket.if_indextoname(-1) end)
    refused("#1 to 'if_indextoname' (must be 0-4294967295", function() socket.if_indextoname(1 << 32) end)
    refused("#1 to 'if_indextoname' (number expected, got string)", function() socket.if_indextoname "lo" end)
  end)

  it("come and go", function()
    if not os.execute "unshare -n ip link add spec0 type bridge 2>/dev/null" then
      pending "needs root, iproute2 and bridges"
    end
    local script = h.quote [[
      local socket = require "socket"
      local n = #socket.if_nameindex()
      for i = 1, 9 do os.execute("ip link add spec" .. i .. " type bridge") end
      local list = socket.if_nameindex()
      print(#list - n, list[#list][2], socket.if_indextoname(socket.if_nametoindex "spec7"))
      os.execute "ip link del spec7"
      print(select(2, socket.try_if_nametoindex "spec7").code)]]
    assert.equal("9\tspec9\tspec7\nENODEV\n", run("unshare -n " .. h.lua() .. " -e " .. script))
  end)

  it("cannot be listed without a descriptor to spare", function()
    if not os.execute "strace -o /dev/null true 2>/dev/null" then pending "needs strace" end
    local script = h.quote [[print(select(2, require "socket".try_if_nameindex()))]]
    for _, when in ipairs {"1", "2"} do
      local text = run(("strace -f -o /dev/null -e trace=socket -e inject=socket:error=EMFILE:when=%s %s -e %s"):format(
        when, h.lua {leaks = false}, script))
      assert.matches("if_nameindex: Too many open files (EMFILE)\n", text, 1, true)
    end
  end)
end)

describe("services", function()
  it("have ports, by protocol or by any", function()
    if not socket.try_getservbyname "http" then pending "no /etc/services here" end
    assert.equal(80, socket.getservbyname "http")
    assert.equal(80, socket.getservbyname("http", "tcp"))
    assert.equal(80, socket.getservbyname("http", nil))
    assert.equal(53, socket.try_getservbyname("domain", "udp"))
  end)

  it("have names, by protocol or by any", function()
    if not socket.try_getservbyname "http" then pending "no /etc/services here" end
    assert.equal("http", socket.getservbyport(80))
    assert.equal("http", socket.getservbyport(80, "tcp"))
    assert.equal("domain", socket.try_getservbyport(53, "udp"))
  end)

  it("that are not known raise ENOENT", function()
    local e = raised("getservbyname", "no-such-service")
    assert.equal("ENOENT", e.code)
    assert.equal("service/proto not found", e.message)
    assert.equal("ENOENT", raised("getservbyname", "http", "carrier-pigeon").code)
    assert.equal("ENOENT", raised("getservbyname", "").code)
    e = raised("getservbyport", 1, "carrier-pigeon")
    assert.equal("ENOENT", e.code)
    assert.equal("port/proto not found", e.message)
    assert.equal("ENOENT", raised("getservbyport", 0).code)
    assert.equal("ENOENT", raised("getservbyport", 65535).code)
  end)

  it("are asked for with names and ports", function()
    refused("#1 to 'getservbyname' (string expected, got no value)", function() socket.getservbyname() end)
    refused("#1 to 'getservbyname' (name contains a zero byte)", function() socket.getservbyname "http\0" end)
    refused("#2 to 'getservbyname' (name contains a zero byte)", function() socket.getservbyname("http", "tcp\0") end)
    refused("#2 to 'getservbyname' (string expected, got table)", function() socket.getservbyname("http", {}) end)
    refused("#1 to 'getservbyport' (must be 0-65535, got 65536)", function() socket.getservbyport(65536) end)
    refused("#1 to 'getservbyport' (must be 0-65535, got -1)", function() socket.getservbyport(-1) end)
    refused("#1 to 'getservbyport' (number expected, got no value)", function() socket.getservbyport() end)
    refused("#2 to 'getservbyport' (string expected, got boolean)", function() socket.getservbyport(80, true) end)
    refused("#2 to 'getservbyport' (name is longer", function() socket.getservbyport(80, ("t"):rep(2000)) end)
  end)
end)

describe("protocols", function()
  it("have numbers for socket.socket", function()
    if not socket.try_getprotobyname "icmp" then pending "no /etc/protocols here" end
    assert.equal(socket.IPPROTO_ICMP, socket.getprotobyname "icmp")
    assert.equal(socket.IPPROTO_TCP, socket.getprotobyname "tcp")
    assert.equal(socket.IPPROTO_UDP, socket.try_getprotobyname "UDP")
    local s <close> = socket.socket(INET, socket.SOCK_STREAM, socket.getprotobyname "tcp")
    assert.equal(socket.IPPROTO_TCP, s.proto)
  end)

  it("that are not known raise ENOENT", function()
    for _, name in ipairs {"carrier-pigeon", "", "6", ("x"):rep(1024)} do
      local e = raised("getprotobyname", name)
      assert.equal("ENOENT", e.code)
      assert.equal("protocol not found", e.message)
    end
    refused("#1 to 'getprotobyname' (name contains a zero byte)", function() socket.getprotobyname "tcp\0" end)
    refused("#1 to 'getprotobyname' (string expected, got nil)", function() socket.getprotobyname(nil) end)
  end)
end)

describe("this host", function()
  it("has a name", function()
    local name = socket.gethostname()
    assert.is_true(#name > 0)
    assert.equal(run "uname -n", name .. "\n")
    assert.equal(name, socket.try_gethostname())
  end)

  it("tells why it has none", function()
    if not os.execute "strace -o /dev/null true 2>/dev/null" then pending "needs strace" end
    local text = run("strace -f -o /dev/null -e trace=uname -e inject=uname:error=EFAULT " .. h.lua {leaks = false} ..
      " -e " .. h.quote [[print(select(2, require "socket".try_gethostname()))]])
    assert.matches("gethostname: Bad address (EFAULT)\n", text, 1, true)
  end)

  -- Runs Lua where a name may be set: with a host name of its own, which ends with it. The shell makes sure of that
  -- before Lua starts, since the machine's own name must never be changed.
  local function elsewhere(inner, script)
    local own = lfs.symlinkattributes("/proc/self/ns/uts", "target")
    if not own or not os.execute "unshare -u true 2>/dev/null" then pending "needs root and unshare" end
    return run(("unshare -u sh -c %s sh %s"):format(
      h.quote('[ "$(readlink /proc/self/ns/uts)" != "$1" ] && ' .. inner .. h.lua() .. " -e " .. h.quote(script)),
      h.quote(own)))
  end

  it("may be renamed by root; sethostname returns true", function()
    local before = socket.gethostname()
    assert.equal("true\tspec.example\ntrue\tx\n", elsewhere("", [[
      local socket = require "socket"
      print(socket.sethostname "spec.example", socket.gethostname())
      print(socket.try_sethostname "x", socket.gethostname())]]))
    assert.equal(before, socket.gethostname())
  end)

  it("is not renamed by others, or to what is no name", function()
    assert.equal("nil\tEPERM\tsethostname\n", elsewhere("unshare -U ", [[
      local ok, e = require "socket".try_sethostname "mine"
      print(ok, e.code, e.op)]]))
    assert.equal("nil\tEINVAL\nfalse\tEINVAL\n", elsewhere("", [[
      local socket = require "socket"
      local ok, e = socket.try_sethostname(("x"):rep(65))
      print(ok, e.code)
      ok, e = pcall(socket.sethostname, ("x"):rep(1024))
      print(ok, e.code)]]))
    refused("#1 to 'sethostname' (name contains a zero byte)", function() socket.sethostname "a\0b" end)
    refused("#1 to 'sethostname' (name is longer than 1024 bytes)", function() socket.sethostname(("x"):rep(1025)) end)
    refused("#1 to 'sethostname' (string expected, got no value)", function() socket.sethostname() end)
    refused("#1 to 'try_sethostname' (string expected, got table)", function() socket.try_sethostname {} end)
  end)
end)
