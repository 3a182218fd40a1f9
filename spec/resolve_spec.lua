-- Host names: the functions that look them up, and lookups inside connect, bind and the others.
-- What needs a name server runs in a network of its own, where one of ours answers. What waits for lookups is
-- in resolve_wait_spec.lua.

require "spec.helper"
local check = require "spec.support.check"
local embedded = require "spec.support.host"
local lfs = require "lfs"
local netns = require "spec.support.netns"
local proc = require "spec.support.proc"
local socket = require "socket"

local fails, took, eventually = check.fails, check.took, check.eventually

-- luacheck: globals asked

local function many(first, n)
  local list = {}
  for i = 1, n do list[i] = ("10.%d.%d.%d"):format(first, i // 200, i % 200 + 1) end
  return list
end

local zone = {
  ["www.test"] = {A = {"127.0.0.1"}},
  ["both.test"] = {A = {"127.0.0.1", "127.0.0.2"}, AAAA = {"::1"}},
  ["six.test"] = {AAAA = {"::1"}},
  ["alias.test"] = {CNAME = "real.test"},
  ["real.test"] = {A = {"127.0.0.9"}},
  ["many.test"] = {A = many(1, 300)},
  ["slow.test"] = {A = {"127.0.0.1"}, delay = 0.15},
  ["broken.test"] = {rcode = "SERVFAIL"},
  ["refused.test"] = {rcode = "REFUSED"},
  ["silent.test"] = {silent = true},
  ["256.1.1.1"] = {silent = true},
  ["1.2.3.4.5"] = {silent = true},
  ["1.1.1.10.in-addr.arpa"] = {PTR = {"ten.example.test"}},
  ["2.1.1.10.in-addr.arpa"] = {silent = true},
  ["3.1.1.10.in-addr.arpa"] = {rcode = "SERVFAIL"},
  ["ten.test"] = {A = {"10.1.1.1"}},
  ["quiet.test"] = {A = {"10.1.1.2"}},
  ["unknown.test"] = {A = {"10.1.1.9"}},
}

local net = netns.new {
  zone = zone,
  hosts = [[
10.0.0.7 seven.example.test seven lucky
10.0.0.8 eight
10.0.0.10 ten10 ten10.example.test
fd00::7 seven6.example.test
]],
}

-- A test that runs where names are known.
local function it_in_net(text, f, before) it(text, net:inside(f, before)) end

describe("names:", function()
  teardown(function() net:stop() end)

  describe("getaddrinfo", function()
    it("gives a list of {family, type, protocol, canonical name, address}", function()
      local list = socket.getaddrinfo("127.0.0.1", 80, socket.AF_INET, socket.SOCK_STREAM)
      assert.equal(1, #list)
      local family, type, proto, canonname, addr = table.unpack(list[1])
      assert.same({socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""}, {family, type, proto, canonname})
      assert.equal("127.0.0.1:80", tostring(addr))
      assert.equal(socket.AF_INET, addr.family)
    end)

    it("names what is in an entry", function()
      local info = socket.getaddrinfo("::1", 53, {type = socket.SOCK_DGRAM})[1]
      assert.equal(socket.AF_INET6, info.family)
      assert.equal(socket.SOCK_DGRAM, info.type)
      assert.equal(socket.IPPROTO_UDP, info.proto)
      assert.equal("", info.canonname)
      assert.equal("[::1]:53", tostring(info.sockaddr))
      assert.same({"::1", 53, 0, 0}, {table.unpack(info.sockaddr)})
      assert.is_nil(info.other)
      assert.is_nil(info[6])
      assert.is_nil(info[true])
    end)

    it("gives what a socket is made and connected with", function()
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local info = socket.getaddrinfo("127.0.0.1", server:getsockname().port, 0, socket.SOCK_STREAM)[1]
      local s <close> = socket.socket(info.family, info.type, info.proto)
      s:connect(info.sockaddr)
      assert.equal(server:getsockname(), s:getpeername())
    end)

    it("takes family, type, protocol and flags one after the other or by name", function()
      local function same_as(expected, ...)
        local list = {}
        for i, info in ipairs(socket.getaddrinfo("127.0.0.1", 7, ...)) do list[i] = {info[1], info[2], info[3]} end
        assert.same(expected, list)
      end
      local tcp = {socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP}
      local udp = {socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP}
      same_as({udp}, socket.AF_INET, socket.SOCK_DGRAM)
      same_as({udp}, {family = socket.AF_INET, type = socket.SOCK_DGRAM})
      same_as({tcp}, 0, 0, socket.IPPROTO_TCP)
      same_as({tcp}, nil, nil, socket.IPPROTO_TCP, nil)
      same_as({tcp}, {proto = socket.IPPROTO_TCP})
      same_as({udp}, 0, 0, socket.IPPROTO_UDP, socket.AI_NUMERICHOST)
      same_as({udp}, {proto = socket.IPPROTO_UDP, flags = socket.AI_NUMERICHOST})
    end)

    it("gives every type of socket when none is asked for", function()
      local types = {}
      for _, info in ipairs(socket.getaddrinfo("127.0.0.1", 80)) do types[info.type] = true end
      assert.is_true(types[socket.SOCK_STREAM])
      assert.is_true(types[socket.SOCK_DGRAM])
      assert.same(#socket.getaddrinfo("127.0.0.1", 80), #socket.getaddrinfo("127.0.0.1", 80, {}))
    end)

    it("takes a port as a number, as text, or as the name of a service", function()
      local function port(service)
        return socket.getaddrinfo("127.0.0.1", service, 0, socket.SOCK_STREAM)[1].sockaddr.port
      end
      assert.equal(80, port(80))
      assert.equal(80, port(80.0))
      assert.equal(65535, port "65535")
      assert.equal(0, port(0))
      assert.equal(0, port(nil))
      if not socket.try_getservbyname "http" then pending "needs a list of services, /etc/services" end
      assert.equal(80, port "http")
    end)

    it("without a host means this machine, or with AI_PASSIVE every address of it", function()
      for _, host in ipairs {false, ""} do
        local function first(family, flags)
          return socket.getaddrinfo(host or nil, 80, family, socket.SOCK_STREAM, 0, flags)[1].sockaddr.host
        end
        assert.equal("127.0.0.1", first(socket.AF_INET, 0))
        assert.equal("::1", first(socket.AF_INET6, 0))
        assert.equal("0.0.0.0", first(socket.AF_INET, socket.AI_PASSIVE))
        assert.equal("::", first(socket.AF_INET6, socket.AI_PASSIVE))
      end
    end)

    it("understands the interface in fe80::1%lo", function()
      local lo = socket.if_nameindex()[1]
      local name = lo.name or lo[2]
      local addr = socket.getaddrinfo("fe80::1%" .. name, 80, 0, socket.SOCK_STREAM)[1].sockaddr
      assert.equal("fe80::1", addr.host)
      assert.equal(socket.if_nametoindex(name), addr.scope_id)
    end)

    it("fails with gaierror, whose code and number say why", function()
      for _, case in ipairs {
        {"EAI_NONAME", "www.test", 80, 0, 0, 0, socket.AI_NUMERICHOST},
        {"EAI_NONAME", "127.0.0.1", "http", 0, 0, 0, socket.AI_NUMERICSERV},
        {"EAI_NONAME", nil, nil},
        {"EAI_FAMILY", "127.0.0.1", 80, 250},
        {"EAI_SOCKTYPE", "127.0.0.1", 80, 0, 77},
        {"EAI_BADFLAGS", "127.0.0.1", 80, 0, 0, 0, 0x400000},
        {"EAI_SERVICE", "127.0.0.1", "no-such-service"},
        {"EAI_SERVICE", "127.0.0.1", "-1"},
        {"EAI_SERVICE", "127.0.0.1", "65536"},      -- not port 0,
        {"EAI_SERVICE", "127.0.0.1", "65616"},      -- nor port 80
        {"EAI_SERVICE", "127.0.0.1", "-65456"},
        {"EAI_SERVICE", "127.0.0.1", "4294967376"},
        {"EAI_SERVICE", "127.0.0.1", "18446744073709551696"},
        {"EAI_ADDRFAMILY", "::1", 80, socket.AF_INET},
        {"EAI_ADDRFAMILY", "127.0.0.1", 80, socket.AF_INET6},
      } do
        local e = fails(socket.gaierror, case[1], socket.getaddrinfo, table.unpack(case, 2, 7))
        assert.equal(socket[case[1]], e.errno)
        assert.equal("getaddrinfo", e.op)
        assert.equal(case[2], e.address[1])
        assert.equal(case[3], e.address[2])
        assert.is_true(e:is(socket.error))
        local nothing, again = socket.try_getaddrinfo(table.unpack(case, 2, 7))
        assert.is_nil(nothing)
        assert.equal(e.code, again.code)
      end
    end)

    it("shows host and service in the text of an error", function()
      local _, e = socket.try_getaddrinfo("127.0.0.1", "no-such-service")
      assert.matches("getaddrinfo 127.0.0.1:no%-such%-service: .+ %(EAI_SERVICE%)$", tostring(e))
    end)

    it("refuses wrong arguments before anything is done", function()
      local big = 2 ^ 32 | 0
      for _, case in ipairs {
        {"#1 to 'socket.getaddrinfo' %(value expected%)", n = 0},
        {"#2 to 'socket.getaddrinfo' %(value expected%)", "127.0.0.1", n = 1},
        {"#1 .*string expected, got table", {}, 80},
        {"#1 .*name contains a zero byte", "127.0.0.1\0", 80},
        {"#1 .*name is longer than 1024 bytes", ("x"):rep(1025), 80},
        {"#2 .*name contains a zero byte", "127.0.0.1", "80\0"},
        {"#2 .*name is longer", "127.0.0.1", ("x"):rep(100000)},
        {"#2 .*string expected, got boolean", "127.0.0.1", true},
        {"#2 .*port must be 0%-65535", "127.0.0.1", 65536},
        {"#2 .*port must be 0%-65535", "127.0.0.1", -1},
        {"#2 .*port must be 0%-65535", "127.0.0.1", math.maxinteger},
        {"#2 .*no integer representation", "127.0.0.1", 80.5},
        {"#3 .*number expected, got string", "127.0.0.1", 80, "x"},
        {"#3 .*does not fit a C int", "127.0.0.1", 80, big},
        {"#4 .*does not fit a C int", "127.0.0.1", 80, 0, -big},
        {"#5 .*does not fit a C int", "127.0.0.1", 80, 0, 0, big},
        {"#6 .*does not fit a C int", "127.0.0.1", 80, 0, 0, 0, math.mininteger},
        {"#3 .*unknown option 'socktype'", "127.0.0.1", 80, {socktype = 1}},
        {"#3 .*unknown option '1'", "127.0.0.1", 80, {socket.AF_INET}},
        {"#3 .*family must be an integer", "127.0.0.1", 80, {family = "inet"}},
        {"#3 .*flags must be an integer", "127.0.0.1", 80, {flags = 1.5}},
        {"#3 .*type does not fit a C int", "127.0.0.1", 80, {type = big}},
      } do
        for _, f in ipairs {socket.getaddrinfo, socket.try_getaddrinfo} do
          local ok, message = pcall(f, table.unpack(case, 2, 1 + (case.n or 6)))
          assert.is_false(ok)
          assert.matches(case[1]:gsub("socket%.getaddrinfo", "socket.-getaddrinfo"), message)
        end
      end
    end)

    it_in_net("gives this machine's addresses for localhost in any form, and asks nobody (RFC 6761)", function()
      for _, host in ipairs {"localhost", "localhost.", "LOCALHOST", "LocalHost.", "www.localhost", "a.b.LocalHost."} do
        local seen = {}
        for i, info in ipairs(socket.getaddrinfo(host, 80, 0, socket.SOCK_STREAM)) do
          seen[i] = tostring(info.sockaddr)
        end
        table.sort(seen)
        assert.same({"127.0.0.1:80", "[::1]:80"}, seen)
        assert.equal("127.0.0.1", socket.getaddrinfo(host, nil, socket.AF_INET)[1].sockaddr.host)
        assert.equal("::1", socket.getaddrinfo(host, nil, socket.AF_INET6, 0, 0, socket.AI_PASSIVE)[1].sockaddr.host)
        local info = socket.getaddrinfo(host, 80, {flags = socket.AI_CANONNAME})
        assert.same({host, ""}, {info[1].canonname, info[2].canonname})
        fails(socket.gaierror, "EAI_NONAME", socket.getaddrinfo, host, 80, {flags = socket.AI_NUMERICHOST})
        assert.equal("127.0.0.1", socket.gethostbyname(host))
        assert.same({host, {}, {"127.0.0.1"}}, {socket.gethostbyname_ex(host)})
        local server <close> = socket.create_server {host, 0}
        local s <close> = socket.create_connection({host, server:getsockname().port}, 5)
        assert.equal(server:getsockname(), s:getpeername())
      end
      assert.same({}, asked())
      for _, host in ipairs {"localhost.test", "alocalhost"} do
        fails(socket.gaierror, "EAI_NONAME", socket.getaddrinfo, host, 80)
      end
      assert.is_true(#asked() > 0)
    end)

    it_in_net("asks for IPv4 and IPv6 addresses, and gives each of them once for a type", function()
      local seen = {}
      for _, info in ipairs(socket.getaddrinfo("both.test", 80, 0, socket.SOCK_STREAM)) do
        seen[#seen + 1] = tostring(info.sockaddr)
      end
      table.sort(seen)
      assert.same({"127.0.0.1:80", "127.0.0.2:80", "[::1]:80"}, seen)
    end)

    it_in_net("gives the canonical name when asked for it", function()
      local list = socket.getaddrinfo("alias.test", 80, {type = socket.SOCK_STREAM, flags = socket.AI_CANONNAME})
      assert.equal("real.test", list[1].canonname)
      assert.equal("127.0.0.9", list[1].sockaddr.host)
      assert.equal("", socket.getaddrinfo("alias.test", 80)[1].canonname)
    end)

    it_in_net("gives as many addresses as there are", function()
      assert.equal(300, #socket.getaddrinfo("many.test", 80, 0, socket.SOCK_STREAM))
      socket.setdefaulttimeout(5)
      assert.equal(300, #socket.getaddrinfo("many.test", 80, 0, socket.SOCK_STREAM))
    end)

    it_in_net("tells a name that does not exist, one without addresses, and a server in trouble apart", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        fails(socket.gaierror, "EAI_NONAME", socket.getaddrinfo, "nowhere.test", 80)
        fails(socket.gaierror, "EAI_NODATA", socket.getaddrinfo, "six.test", 80, socket.AF_INET)
        fails(socket.gaierror, "EAI_AGAIN", socket.getaddrinfo, "broken.test", 80)
        fails(socket.gaierror, "EAI_AGAIN", socket.getaddrinfo, "refused.test", 80)
      end
    end)

    it_in_net("waits for a slow answer, at most the default timeout", function()
      socket.setdefaulttimeout(5)
      local t = took(socket.getaddrinfo, "slow.test", 80)
      assert.is_true(t >= 0.14 and t < 2, t)
      socket.setdefaulttimeout(0.05)
      t = took(fails, socket.timeout, "ETIMEDOUT", socket.getaddrinfo, "slow.test", 80)
      assert.is_true(t >= 0.05 and t < 0.5, t)
    end)

    it_in_net("asks about names that only look like addresses, within the timeout", function()
      socket.setdefaulttimeout(0.05)
      for _, name in ipairs {"256.1.1.1", "1.2.3.4.5"} do
        local t = took(fails, socket.timeout, "ETIMEDOUT", socket.getaddrinfo, name, 80)
        assert.is_true(t >= 0.05 and t < 0.5, t)
        assert.is_true(eventually(2, function() return table.concat(asked(), "\n"):find(name, 1, true) end) ~= nil)
      end
    end)
  end)

  describe("gethostbyname", function()
    it("gives the IPv4 address of a number, this machine and the special names at once", function()
      for name, address in pairs {
        ["127.0.0.1"] = "127.0.0.1", ["127.1"] = "127.0.0.1", ["0x7f000001"] = "127.0.0.1",
        localhost = "127.0.0.1", [""] = "0.0.0.0", ["<broadcast>"] = "255.255.255.255",
      } do
        assert.equal(address, socket.gethostbyname(name))
      end
    end)

    it("has no answer for IPv6", function()
      local e = fails(socket.gaierror, "EAI_ADDRFAMILY", socket.gethostbyname, "::1")
      assert.equal("gethostbyname", e.op)
      assert.equal("::1", e.address[1])
      assert.is_nil(e.address[2])
    end)

    it("refuses what is no name", function()
      assert.error_matches(function() socket.gethostbyname() end, "#1 .*string expected, got no value")
      assert.error_matches(function() socket.gethostbyname {} end, "#1 .*string expected")
      assert.error_matches(function() socket.gethostbyname "a\0b" end, "#1 .*zero byte")
      assert.error_matches(function() socket.try_gethostbyname(("x"):rep(1 << 20)) end, "#1 .*longer than 1024 bytes")
    end)

    it_in_net("looks a name up", function()
      assert.equal("127.0.0.1", socket.gethostbyname "www.test")
      assert.equal("10.0.0.8", socket.gethostbyname "eight")
      socket.setdefaulttimeout(5)
      assert.equal("127.0.0.9", socket.gethostbyname "alias.test")
      local e = fails(socket.gaierror, "EAI_NONAME", socket.gethostbyname, "nowhere.test")
      assert.matches("gethostbyname nowhere.test: .+ %(EAI_NONAME%)$", tostring(e))
      assert.same({nil, e.code}, {socket.try_gethostbyname "nowhere.test", e.code})
    end)

    it_in_net("waits at most the default timeout", function()
      socket.setdefaulttimeout(0.05)
      local e = fails(socket.timeout, "ETIMEDOUT", socket.gethostbyname, "silent.test")
      assert.equal("gethostbyname", e.op)
      assert.equal("silent.test", e.address[1])
    end)
  end)

  describe("gethostbyname_ex", function()
    it("gives a number back", function()
      local name, aliases, addresses = socket.gethostbyname_ex "127.0.0.1"
      assert.equal("127.0.0.1", name)
      assert.same({}, aliases)
      assert.same({"127.0.0.1"}, addresses)
    end)

    it_in_net("asks nobody about numbers, however they are written", function()
      for host, address in pairs {
        ["127.1"] = "127.0.0.1", ["0x7f000001"] = "127.0.0.1", ["0x41.0x42.0x43.0x44"] = "65.66.67.68",
        ["0177.0.0.01"] = "127.0.0.1", [""] = "0.0.0.0",
      } do
        assert.same({host, {}, {address}}, {socket.gethostbyname_ex(host)})
      end
      for _, host in ipairs {"::1", "fe80::1%1234567", "::ffff:127.0.0.1"} do
        fails(socket.herror, "HOST_NOT_FOUND", socket.gethostbyname_ex, host)
      end
      assert.same({}, asked())
    end)

    it("refuses what is no name", function()
      assert.error_matches(function() socket.gethostbyname_ex() end, "#1 .*string expected")
      assert.error_matches(function() socket.gethostbyname_ex "a\0b" end, "#1 .*zero byte")
    end)

    it_in_net("gives the name, its aliases and all its IPv4 addresses", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        assert.same({"seven.example.test", {"seven", "lucky"}, {"10.0.0.7"}}, {socket.gethostbyname_ex "lucky"})
        assert.same({"real.test", {"alias.test"}, {"127.0.0.9"}}, {socket.gethostbyname_ex "alias.test"})
        local name, _, addresses = socket.gethostbyname_ex "many.test"
        assert.equal("many.test", name)
        assert.equal(300, #addresses)
      end
    end)

    it_in_net("fails with herror, whose code and number are those of gethostbyname(3)", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        local e = fails(socket.herror, "HOST_NOT_FOUND", socket.gethostbyname_ex, "nowhere.test")
        assert.equal(1, e.errno)
        assert.equal("Unknown host", e.message)
        assert.equal("nowhere.test", e.address[1])
        assert.equal(2, fails(socket.herror, "TRY_AGAIN", socket.gethostbyname_ex, "broken.test").errno)
        assert.equal(4, fails(socket.herror, "NO_DATA", socket.gethostbyname_ex, "six.test").errno)
      end
      local nothing, e = socket.try_gethostbyname_ex "nowhere.test"
      assert.is_nil(nothing)
      assert.is_true(e:is(socket.error))
    end)

    it_in_net("waits at most the default timeout", function()
      socket.setdefaulttimeout(0.05)
      fails(socket.timeout, "ETIMEDOUT", socket.gethostbyname_ex, "silent.test")
    end)
  end)

  describe("gethostbyaddr", function()
    it_in_net("finds the name of an IPv4 or IPv6 address", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        assert.same({"seven.example.test", {"seven", "lucky"}, {"10.0.0.7"}}, {socket.gethostbyaddr "10.0.0.7"})
        assert.same({"ten.example.test", {}, {"10.1.1.1"}}, {socket.gethostbyaddr "10.1.1.1"})
        assert.same({"seven6.example.test", {}, {"fd00::7"}}, {socket.gethostbyaddr "fd00::7"})
      end
    end)

    it_in_net("takes a name as well", function()
      assert.equal("ten.example.test", (socket.gethostbyaddr "ten.test"))
    end)

    it_in_net("fails with herror for an address without a name, gaierror for a name without address", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        local e = fails(socket.herror, "HOST_NOT_FOUND", socket.gethostbyaddr, "10.1.1.9")
        assert.equal("gethostbyaddr", e.op)
        assert.equal("10.1.1.9", e.address[1])
        fails(socket.herror, "HOST_NOT_FOUND", socket.gethostbyaddr, "unknown.test")
        fails(socket.herror, "TRY_AGAIN", socket.gethostbyaddr, "10.1.1.3")
        fails(socket.gaierror, "EAI_NONAME", socket.gethostbyaddr, "nowhere.test")
      end
    end)

    it_in_net("waits at most the default timeout, for both its questions together", function()
      socket.setdefaulttimeout(0.1)
      for _, host in ipairs {"10.1.1.2", "quiet.test"} do
        local t = took(fails, socket.timeout, "ETIMEDOUT", socket.gethostbyaddr, host)
        assert.is_true(t >= 0.1 and t < 0.6, t)
      end
    end)

    it("refuses what is no name", function()
      assert.error_matches(function() socket.gethostbyaddr(nil) end, "#1 .*string expected")
      assert.error_matches(function() socket.gethostbyaddr "a\0b" end, "#1 .*zero byte")
    end)
  end)

  describe("getfqdn", function()
    it_in_net("gives the first name with a dot, the principal one before its aliases", function()
      assert.equal("seven.example.test", socket.getfqdn "lucky")
      assert.equal("ten10.example.test", socket.getfqdn "ten10")
      assert.equal("ten.example.test", socket.getfqdn "10.1.1.1")
    end)

    it_in_net("else the principal name, else what it was given", function()
      assert.equal("eight", socket.getfqdn "eight")
      assert.equal("nowhere.test", socket.getfqdn "nowhere.test")
      assert.equal("10.1.1.9", socket.getfqdn "10.1.1.9")
    end)

    it_in_net("begins with this machine's own name", function()
      local own = socket.gethostname()
      local expected = socket.getfqdn(own)
      assert.equal(expected, socket.getfqdn())
      for _, name in ipairs {"", "0.0.0.0", "::"} do assert.equal(expected, socket.getfqdn(name)) end
    end)

    it_in_net("does not hide a timeout", function()
      socket.setdefaulttimeout(0.05)
      local e = fails(socket.timeout, "ETIMEDOUT", socket.getfqdn, "silent.test")
      assert.equal("getfqdn", e.op)
      local nothing, again = socket.try_getfqdn "silent.test"
      assert.is_nil(nothing)
      assert.equal("ETIMEDOUT", again.code)
    end)

    it("refuses what is no name", function()
      assert.error_matches(function() socket.getfqdn {} end, "#1 .*string expected")
      assert.error_matches(function() socket.getfqdn "a\0b" end, "#1 .*zero byte")
    end)
  end)

  describe("getnameinfo", function()
    local NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

    it("gives host and service as numbers if asked to", function()
      assert.same({"127.0.0.1", "80"}, {socket.getnameinfo({"127.0.0.1", 80}, NUMERIC)})
      assert.same({"::1", "80"}, {socket.getnameinfo({"::1", 80}, NUMERIC)})
      assert.same({"::1", "80"}, {socket.getnameinfo({host = "::1", port = 80}, NUMERIC)})
      assert.same({"127.0.0.1", "7"}, {socket.getnameinfo({"localhost", 7}, NUMERIC)})
      assert.same({"10.0.0.1", "7"}, {socket.getnameinfo({0x0A000001, 7}, NUMERIC)})
    end)

    it("takes what getsockname and getaddrinfo give", function()
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local addr = server:getsockname()
      assert.same({addr.host, tostring(addr.port)}, {socket.getnameinfo(addr, NUMERIC)})
      local info = socket.getaddrinfo("::1", 80)[1]
      assert.same({"::1", "80"}, {socket.getnameinfo(info.sockaddr, NUMERIC)})
    end)

    it_in_net("finds the names", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        local numeric_service = socket.NI_NUMERICSERV
        assert.same({"seven.example.test", "1"}, {socket.getnameinfo({"10.0.0.7", 1}, numeric_service)})
        assert.same({"ten.example.test", "1"}, {socket.getnameinfo({"10.1.1.1", 1}, numeric_service)})
        assert.same({"10.1.1.9", "1"}, {socket.getnameinfo({"10.1.1.9", 1}, numeric_service)})
        local e = fails(socket.gaierror, "EAI_NONAME", socket.getnameinfo, {"10.1.1.9", 1}, socket.NI_NAMEREQD)
        assert.equal("getnameinfo", e.op)
        assert.same({"10.1.1.9", 1}, e.address)
      end
    end)

    it_in_net("names services, of UDP if asked to", function()
      if not socket.try_getservbyname "http" then return end
      local host = socket.NI_NUMERICHOST
      assert.same({"10.0.0.7", "http"}, {socket.getnameinfo({"10.0.0.7", 80}, host)})
      assert.same({"10.0.0.7", "ntp"}, {socket.getnameinfo({"10.0.0.7", 123}, host | socket.NI_DGRAM)})
    end)

    it_in_net("waits at most the default timeout", function()
      socket.setdefaulttimeout(0.05)
      fails(socket.timeout, "ETIMEDOUT", socket.getnameinfo, {"10.1.1.2", 80}, 0)
    end)

    it("does not look names up", function()
      local e = fails(socket.gaierror, "EAI_NONAME", socket.getnameinfo, {"www.test", 80}, 0)
      assert.same({"www.test", 80}, e.address)
      local nothing, again = socket.try_getnameinfo({"www.test", 80}, 0)
      assert.is_nil(nothing)
      assert.equal("EAI_NONAME", again.code)
    end)

    it("says what it does not understand", function()
      fails(socket.gaierror, "EAI_BADFLAGS", socket.getnameinfo, {"127.0.0.1", 80}, 1 << 20)
    end)

    it("refuses wrong arguments", function()
      for _, case in ipairs {
        {"#1 .*table expected, got string", "127.0.0.1"},
        {"#1 .*table expected, got no value"},
        {"#1 .*host must be a string or an integer, got nil", {nil, 80}},
        {"#1 .*port must be an integer, got nil", {"127.0.0.1"}},
        {"#1 .*port must be 0%-65535, got 65536", {"127.0.0.1", 65536}},
        {"#1 .*host contains a zero byte", {"127.0.0.1\0", 80}},
        {"#1 .*flowinfo must be 0%-1048575", {"::1", 80, 1 << 20}},
        {"#2 .*number expected", {"127.0.0.1", 80}, "x"},
        {"#2 .*does not fit a C int", {"127.0.0.1", 80}, 1 << 32},
      } do
        local ok, message = pcall(socket.getnameinfo, table.unpack(case, 2))
        assert.is_false(ok)
        assert.matches(case[1], message)
      end
    end)
  end)

  describe("where the host program allows no names", function()
    it("nobody is asked about anything", function()
      embedded.needs(pending)
      local script = net:script(function() end)     -- to know that the network is there
      os.remove(script)
      local file = os.tmpname()
      local f = assert(io.open(file, "w"))
      f:write [[
        local function refused(f, ...)
          local ok, e = pcall(f, ...)
          if ok or e.code ~= "EACCES" then error(tostring(e), 2) end
        end
        local numbers = {"0xdeadbeef", "0x41.0x42.0x43.0x44", "127.1", "0177.1", "fe80::1%1234567", "::1", "localhost."}
        for _, timeout in ipairs {false, 5, 0} do
          socket.setdefaulttimeout(timeout or nil)
          for _, host in ipairs(numbers) do
            socket.try_getaddrinfo(host, 80)
            socket.try_getaddrinfo(host, 80, {family = socket.AF_INET6, flags = socket.AI_CANONNAME})
            socket.try_getaddrinfo(host, 80, {family = socket.AF_INET, flags = socket.AI_CANONNAME})
            socket.try_gethostbyname(host)
            socket.try_gethostbyname_ex(host)
            refused(socket.gethostbyaddr, host)
            if socket.getfqdn(host) ~= host then error(host) end
            socket.try_create_connection({host, 1}, 0)
            for _, family in ipairs {socket.AF_INET, socket.AF_INET6} do
              local s <close> = socket.socket(family, socket.SOCK_DGRAM)
              s:try_bind {host, 0}
              s:try_connect {host, 1}
              s:try_sendto("x", {host, 1})
            end
          end
          local functions = {socket.getaddrinfo, socket.gethostbyname, socket.gethostbyname_ex, socket.gethostbyaddr}
          for _, f in ipairs(functions) do
            for _, host in ipairs {"www.test", "0xg", "256.1.1.1", "0x7f.0.0.1.", "127.0.0.1.", "localhost.test"} do
              refused(f, host, 80)
            end
          end
          refused(socket.create_connection, {"www.test", 1}, 0)
          refused(socket.getnameinfo, {"10.1.1.1", 80})
        end
        print "ok"
      ]]
      f:close()
      local questions = net.folder .. "/questions"
      local before = lfs.attributes(questions, "size")
      local ok, text = net:run(("%s -l 0,0,1 %s"):format(embedded.program "spechost", file))
      os.remove(file)
      assert.is_true(ok, text)
      assert.equal("ok\n", text)
      assert.equal(before, lfs.attributes(questions, "size"))
    end)
  end)

  describe("a name as an address", function()
    it_in_net("is looked up by connect, bind, sendto and create_server", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        local server <close> = socket.create_server {"www.test", 0}
        local addr = server:getsockname()
        assert.equal("127.0.0.1", addr.host)
        local s <close> = socket.socket()
        assert.equal(s, s:bind {"real.test", 0})
        assert.equal("127.0.0.9", s:getsockname().host)
        assert.equal(s, s:connect {"www.test", addr.port})
        assert.equal(addr, s:getpeername())
        local other <close> = socket.socket()
        assert.equal(0, other:connect_ex {"www.test", addr.port})
        local a <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"www.test", 0}
        local b <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert.equal(2, b:sendto("hi", {"www.test", a:getsockname().port}))
        assert.equal("hi", (a:recvfrom(10)))
      end
    end)

    it_in_net("is looked up for IPv6 by a socket for IPv6", function()
      local server <close> = socket.create_server({"both.test", 0}, {family = socket.AF_INET6})
      assert.equal("::1", server:getsockname().host)
      local s <close> = socket.socket(socket.AF_INET6)
      s:connect {"six.test", server:getsockname().port, 0, 0}
      assert.equal("::1", s:getpeername().host)
      fails(socket.gaierror, "EAI_NODATA", s.connect, s, {"www.test", 80})
    end)

    it_in_net("that cannot be found is a gaierror with that address", function()
      local s <close> = socket.socket()
      local u <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      for _, timeout in ipairs {false, 5} do
        s:settimeout(timeout or nil)
        u:settimeout(timeout or nil)
        local address = {"nowhere.test", 80}
        for op, f in pairs {
          connect = function() s:connect(address) end,
          connect_ex = function() s:connect_ex(address) end,
          bind = function() s:bind(address) end,
          sendto = function() u:sendto("x", address) end,
          create_connection = function() socket.create_connection(address, timeout or nil) end,
          create_server = function() socket.create_server(address) end,
        } do
          local fds = proc.settled_descriptors()
          local e = fails(socket.gaierror, "EAI_NONAME", f)
          assert.equal(op, e.op)
          assert.equal(address, e.address)
          assert.equal(fds, proc.descriptors(), op)
        end
      end
      assert.equal("127.0.0.1", s:bind({"127.0.0.1", 0}):getsockname().host)
    end)

    it_in_net("of which nothing is heard is a timeout within the time of the operation, and leaves the socket usable",
      function()
        local server <close> = socket.create_server {"127.0.0.1", 0}
        local good = server:getsockname()
        local s <close> = socket.socket()
        local u <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        local address = {"silent.test", 80}
        s:settimeout(0.05)
        u:settimeout(0.05)
        for op, f in pairs {
          connect = function() s:connect(address) end,
          connect_ex = function() s:connect_ex(address) end,
          bind = function() s:bind(address) end,
          sendto = function() u:sendto("x", address) end,
          create_connection = function() socket.create_connection(address, 0.05) end,
          create_server = function()
            socket.setdefaulttimeout(0.05)
            socket.create_server(address)
          end,
        } do
          local e
          local t = took(function() e = fails(socket.timeout, "ETIMEDOUT", f) end)
          assert.is_true(t >= 0.05 and t < 0.5, op .. " took " .. t)
          assert.equal(op, e.op)
          assert.equal(address, e.address)
          assert.equal("timed out", e.message)
        end
        assert.equal(s, s:connect(good))
      end)

    it_in_net("raises a timeout after 0.5 to 0.8 s, and leaves no thread and no descriptor behind", function()
      socket.setdefaulttimeout(0.5)
      socket.gethostbyname "www.test"               -- by a thread whose memory the next one gets
      local s <close> = socket.socket()
      assert.is_number(eventually(1, function() return proc.threads() == 1 end))
      local fds, threads = proc.settled_descriptors(), proc.threads()
      local begun = socket.monotonic()
      local ok, e = pcall(s.connect, s, {"silent.test", 80})
      local t = socket.monotonic() - begun
      local fds_after, threads_after = proc.descriptors(), proc.threads()
      assert.is_false(ok)
      assert.equal(socket.timeout, e.class)
      assert.is_true(t >= 0.5 and t <= 0.8, t)
      -- All that is left belongs to the C library's resolver, which counts whole seconds: its thread and its socket.
      assert.is_true(fds_after - fds <= 1, fds_after - fds)
      assert.is_true(threads_after - threads <= 1, threads_after - threads)
      local left = eventually(2, function()
        return proc.threads() == threads and proc.descriptors() == fds
      end)
      assert.is_number(left, "the thread outlived the error by more than 2 s")
      -- Shown: the error after 0.50 s, the thread gone 1.0 s after the call began.
      assert.is_true(t + left < 1.5, ("%.2f + %.2f s"):format(t, left))
    end)

    it_in_net("shares one deadline with the connect that follows", function()
      local full <close> = socket.create_server({"127.0.0.1", 0}, {backlog = 0})
      local address = {"slow.test", full:getsockname().port}
      local waiting = {}
      for i = 1, 4 do                               -- until its queue is full
        waiting[i] = socket.socket()
        waiting[i]:settimeout(0)
        waiting[i]:try_connect(full:getsockname())
      end
      local s <close> = socket.socket()
      s:settimeout(0.3)
      local t = took(fails, socket.timeout, "ETIMEDOUT", s.connect, s, address)
      assert.is_true(t >= 0.3 and t < 0.44, t)
      for _, w in ipairs(waiting) do w:close() end
    end)

    it_in_net("is a would-block error at once when the socket may not wait", function()
      local s <close> = socket.socket()
      local u <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      s:settimeout(0)
      u:settimeout(0)
      socket.setdefaulttimeout(0)
      local address = {"www.test", 80}
      local fds, threads = proc.settled_descriptors(), proc.threads()
      for op, f in pairs {
        connect = function() s:connect(address) end,
        connect_ex = function() s:connect_ex(address) end,
        bind = function() s:bind(address) end,
        sendto = function() u:sendto("x", address) end,
        create_connection = function() socket.create_connection(address, 0) end,
        create_server = function() socket.create_server(address) end,
        getaddrinfo = function() socket.getaddrinfo("www.test", 80) end,
        gethostbyname = function() socket.gethostbyname "www.test" end,
        gethostbyname_ex = function() socket.gethostbyname_ex "www.test" end,
        gethostbyaddr = function() socket.gethostbyaddr "10.1.1.1" end,
        getfqdn = function() socket.getfqdn "10.1.1.1" end,
        getnameinfo = function() socket.getnameinfo({"10.1.1.1", 80}, 0) end,
      } do
        local e = fails(socket.error, "EAGAIN", f)
        assert.equal(op, e.op)
        assert.equal("a name lookup would block", e.message)
      end
      assert.equal(fds, proc.descriptors())
      assert.equal(threads, proc.threads())
      assert.same({}, asked())
      assert.equal("10.0.0.1", socket.getaddrinfo("10.0.0.1", 80)[1].sockaddr.host)
      assert.equal("10.0.0.1", socket.gethostbyname "10.0.0.1")
    end)
  end)
end)
