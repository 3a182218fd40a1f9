-- Ancillary data of messages, but for descriptors: what the system tells of a message, queued errors, sendmsg_afalg,
-- CMSG_LEN and CMSG_SPACE.

local h = require "spec.helper"
local check = require "spec.support.check"
local socket = require "socket"
local support = require "spec.support"

local refuses, fails, keep = check.refuses, support.fails, support.keep

after_each(support.close_kept)

describe("an item of other data", function()
  it("is a table with its fields by name and by number", function()
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    if not socket.IP_RECVTTL then pending "this platform has no IP_RECVTTL" end
    s:setsockopt(socket.IPPROTO_IP, socket.IP_RECVTTL, 1)
    s:sendto("x", s:getsockname())
    local _, items = s:recvmsg(10, 100)
    assert.equal("table", type(items[1]))
    assert.same({socket.IPPROTO_IP, socket.IP_TTL, string.pack("i", 64)}, items[1])
    assert.equal(socket.IPPROTO_IP, items[1].level)
    assert.equal(socket.IP_TTL, items[1].type)
    assert.equal(string.pack("i", 64), items[1].data)
    -- and can be sent as it is
    s:sendmsg("y", items, 0, s:getsockname())
    assert.equal("y", (s:recvmsg(10)))
  end)
end)

---------------------------------------------------------------- what the system tells of a message

describe("on Linux", function()
  local function needs(...)
    for _, name in ipairs {...} do
      if not socket[name] then pending("this platform has no " .. name) end
    end
  end

  local function udp(family, host)
    return keep(socket.socket(family, socket.SOCK_DGRAM):bind {host, 0})
  end

  it("SO_PASSCRED delivers who sent", function()
    needs("SO_PASSCRED", "SCM_CREDENTIALS")
    local stat = io.open "/proc/self/stat"
    local pid = tonumber(stat:read("a"):match "^%d+")
    stat:close()
    local uid, gid
    for line in io.lines "/proc/self/status" do
      uid = uid or tonumber(line:match "^Uid:%s+(%d+)")
      gid = gid or tonumber(line:match "^Gid:%s+(%d+)")
    end
    for _, kind in ipairs {socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET} do
      local a, b = keep(socket.socketpair(socket.AF_UNIX, kind))
      b:setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
      a:sendmsg "x"
      local data, items, flags = b:recvmsg(10, socket.CMSG_SPACE(12))
      assert.equal("x", data)
      assert.equal(0, flags & socket.MSG_CTRUNC)
      assert.equal(1, #items)
      assert.same({socket.SOL_SOCKET, socket.SCM_CREDENTIALS, string.pack("iII", pid, uid, gid)}, items[1])
      -- given by the sender, with a descriptor beside
      local rights = {socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack("i", 0)}
      a:sendmsg("y", {{socket.SOL_SOCKET, socket.SCM_CREDENTIALS, string.pack("iII", pid, uid, gid)}, rights})
      data, items = b:recvmsg(10, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4))
      assert.equal("y", data)
      assert.equal(2, #items)
      local seen = {}
      for _, item in ipairs(items) do seen[item.type] = #item.data end
      assert.same({[socket.SCM_CREDENTIALS] = 12, [socket.SCM_RIGHTS] = 4}, seen)
      for _, item in ipairs(items) do
        if item.type == socket.SCM_RIGHTS then socket.close((string.unpack("i", item.data))) end
      end
    end
    local a, b = keep(socket.socketpair())
    b:setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    local p <close>, child = support.peer(a, "s:send 'x'")
    local _, items = b:recvmsg(10, 100)
    assert.equal(child, (string.unpack("i", items[1].data)))
    p:read "a"
  end)

  it("credentials cut short say MSG_CTRUNC", function()
    needs("SO_PASSCRED", "SCM_CREDENTIALS")
    local a, b = keep(socket.socketpair())
    b:setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    a:sendmsg "x"
    local _, items, flags = b:recvmsg(1, socket.CMSG_LEN(4))
    assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
    assert.equal(4, #items[1].data)
  end)

  it("IP_PKTINFO tells where a datagram was sent to, and chooses where one comes from", function()
    needs("IP_PKTINFO", "IP_RECVTTL")
    local a, b = udp(socket.AF_INET, "127.0.0.1"), udp(socket.AF_INET, "0.0.0.0")
    b:setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, 1)
    a:sendto("x", {"127.9.8.7", b:getsockname().port})
    local _, items, _, from = b:recvmsg(10, 100)
    assert.equal(1, #items)
    assert.equal(socket.IPPROTO_IP, items[1].level)
    assert.equal(socket.IP_PKTINFO, items[1].type)
    local index, here, to = string.unpack("I4 c4 c4", items[1].data) -- struct in_pktinfo
    assert.equal(socket.if_nametoindex "lo", index)
    assert.equal("127.9.8.7", socket.inet_ntoa(to))
    assert.equal("127.9.8.7", socket.inet_ntoa(here))
    -- the answer comes from the same address
    b:sendmsg("y", {{socket.IPPROTO_IP, socket.IP_PKTINFO, string.pack("I4 c4 c4", 0, here, "\0\0\0\0")}}, 0, from)
    local data, answer = a:recvfrom(10)
    assert.equal("y", data)
    assert.equal("127.9.8.7", answer.host)
  end)

  it("IP_RECVTTL and IP_RECVTOS deliver those, and sendmsg sets them for one datagram", function()
    needs("IP_RECVTTL", "IP_RECVTOS")
    local a, b = udp(socket.AF_INET, "127.0.0.1"), udp(socket.AF_INET, "127.0.0.1")
    b:setsockopt(socket.IPPROTO_IP, socket.IP_RECVTTL, 1)
    b:setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    a:sendmsg("x", {
      {socket.IPPROTO_IP, socket.IP_TTL, string.pack("i", 33)},
      {level = socket.IPPROTO_IP, type = socket.IP_TOS, data = socket.buffer(string.pack("i", 0x10))},
    }, 0, b:getsockname())
    local _, items = b:recvmsg(10, 200)
    local seen = {}
    for _, item in ipairs(items) do seen[item.type] = string.unpack(#item.data == 1 and "B" or "i", item.data) end
    assert.same({[socket.IP_TTL] = 33, [socket.IP_TOS] = 0x10}, seen)
  end)

  it("IPV6_RECVPKTINFO and IPV6_RECVHOPLIMIT do the same for IPv6", function()
    needs("IPV6_RECVPKTINFO", "IPV6_PKTINFO", "IPV6_RECVHOPLIMIT", "IPV6_HOPLIMIT")
    if not support.has_ipv6() then pending "this machine has no IPv6" end
    local a, b = udp(socket.AF_INET6, "::1"), udp(socket.AF_INET6, "::")
    b:setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    b:setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    a:sendmsg({"x"}, {{socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, string.pack("i", 44)}}, 0,
      {"::1", b:getsockname().port})
    local size = socket.CMSG_SPACE(20) + socket.CMSG_SPACE(4)
    local n, items, flags, from = b:recvmsg_into({socket.buffer(10)}, size)
    assert.equal(1, n)
    assert.equal(0, flags & socket.MSG_CTRUNC)
    local seen = {}
    for _, item in ipairs(items) do
      assert.equal(socket.IPPROTO_IPV6, item.level)
      seen[item.type] = item.data
    end
    assert.equal(44, (string.unpack("i", seen[socket.IPV6_HOPLIMIT])))
    local to, index = string.unpack("c16 I4", seen[socket.IPV6_PKTINFO]) -- struct in6_pktinfo
    assert.equal("::1", socket.inet_ntop(socket.AF_INET6, to))
    assert.equal(socket.if_nametoindex "lo", index)
    b:sendmsg("y", {{socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, string.pack("c16 I4", to, index)}}, 0, from)
    assert.equal("y", (a:recvmsg(10)))
    -- room for one of the two
    a:sendmsg({"x"}, nil, 0, {"::1", b:getsockname().port})
    items, flags = select(2, b:recvmsg(10, socket.CMSG_SPACE(20)))
    assert.equal(1, #items)
    assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
  end)

  it("SO_TIMESTAMP tells when", function()
    needs("SO_TIMESTAMP", "SCM_TIMESTAMP")
    local a, b = udp(socket.AF_INET, "127.0.0.1"), udp(socket.AF_INET, "127.0.0.1")
    b:setsockopt(socket.SOL_SOCKET, socket.SO_TIMESTAMP, 1)
    a:sendto("x", b:getsockname())
    local _, items = b:recvmsg(10, 100)
    assert.equal(socket.SCM_TIMESTAMP, items[1].type)
    local seconds = string.unpack("l", items[1].data)
    assert.is_true(math.abs(seconds - os.time()) <= 2)
  end)

  it("an item that the system does not know is EINVAL", function()
    local a = udp(socket.AF_INET, "127.0.0.1")
    fails("EINVAL", a.sendmsg, a, "x", {{socket.IPPROTO_IP, 12345, "data"}}, 0, a:getsockname())
    fails("EINVAL", a.sendmsg, a, "x", {{socket.IPPROTO_IP, socket.IP_TTL, ""}}, 0, a:getsockname())
  end)
end)

---------------------------------------------------------------- queued errors

describe("MSG_ERRQUEUE", function()
  local function needs_errqueue()
    if not (socket.MSG_ERRQUEUE and socket.IP_RECVERR) then pending "this platform has no queue of errors" end
  end

  it("on a stream gives an empty string where an error has no bytes: that is not the end", function()
    needs_errqueue()
    local SO_TIMESTAMPING, WANTED = 37, 2 | 16 | 2048 -- TX_SOFTWARE, SOFTWARE, OPT_TSONLY of linux/net_tstamp.h
    local a, b = keep(support.tcp())
    if not a:try_setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, WANTED) then pending "no time stamps of sent bytes" end
    a:send(("x"):rep(20000))
    assert.equal(20000, #b:recv(20000, socket.MSG_WAITALL))
    local data, items, flags
    for _ = 1, 100 do -- the news that the bytes went takes a moment
      data, items, flags = a:try_recvmsg(100, 512, socket.MSG_ERRQUEUE)
      if data then break end
      assert.equal("EAGAIN", items.code)
      socket.sleep(0.002)
    end
    assert.equal("", data)
    assert.equal(socket.MSG_ERRQUEUE, flags & socket.MSG_ERRQUEUE)
    local item = items[#items] -- after the time
    assert.equal(socket.IPPROTO_IP, item.level)
    assert.equal(socket.IP_RECVERR, item.type)
    local _, origin = string.unpack("I4 B", item.data) -- struct sock_extended_err
    assert.equal(socket.SO_EE_ORIGIN_TIMESTAMPING, origin)
  end)
end)

for _, case in ipairs {
  {"IPv4", "127.0.0.1", "IPPROTO_IP", "IP_RECVERR"}, {"IPv6", "::1", "IPPROTO_IPV6", "IPV6_RECVERR"},
} do
  describe("MSG_ERRQUEUE over " .. case[1], function()
    it("says what an ICMP error was about, whom the datagram was for, and who complained", function()
      local host, level, option = case[2], socket[case[3]], socket[case[4]]
      if not (socket.MSG_ERRQUEUE and option) then pending "this platform has no queue of errors" end
      if case[1] == "IPv6" and not support.has_ipv6() then pending "this machine has no IPv6" end
      local family = case[1] == "IPv6" and socket.AF_INET6 or socket.AF_INET
      local s = keep(socket.socket(family, socket.SOCK_DGRAM):bind {host, 0})
      s:setsockopt(level, option, 1)
      local free
      do
        local u <close> = socket.socket(family, socket.SOCK_DGRAM):bind {host, 0}
        free = u:getsockname()
      end
      for _, t in ipairs {false, 5, 0} do
        s:settimeout(t or nil)
        s:sendto("to nobody", free)
        local data, items, flags, address = s:recvmsg(100, 512, socket.MSG_ERRQUEUE)
        assert.equal("to nobody", data)
        assert.equal(socket.MSG_ERRQUEUE, flags & socket.MSG_ERRQUEUE)
        assert.is_true(free == address)
        assert.equal(1, #items)
        assert.equal(level, items[1].level)
        assert.equal(option, items[1].type)
        local errno, origin, kind, code, at = string.unpack("I4 B B B x I4 I4", items[1].data) -- sock_extended_err
        assert.equal(0, at)
        assert.equal("ECONNREFUSED", socket.errno[errno])
        assert.equal(case[1] == "IPv6" and socket.SO_EE_ORIGIN_ICMP6 or socket.SO_EE_ORIGIN_ICMP, origin)
        assert.same(case[1] == "IPv6" and {1, 4} or {3, 3}, {kind, code}) -- port unreachable
        local offender = socket.unpackaddr(items[1].data:sub(17))
        assert.equal(host, offender.host)
        assert.equal(0, offender.port)
        -- the same at once for buffers; and no more
        fails("EAGAIN", s.recvmsg, s, 100, 512, socket.MSG_ERRQUEUE)
        fails("EAGAIN", s.recvmsg_into, s, {socket.buffer(3)}, 512, socket.MSG_ERRQUEUE)
        s:sendto("to nobody", free)
        local b = socket.buffer(4)
        local n
        n, items, flags = s:recvmsg_into({b}, 8, socket.MSG_ERRQUEUE)
        assert.equal(4, n)
        assert.equal("to n", tostring(b))
        assert.same({}, items)
        local both = socket.MSG_TRUNC | socket.MSG_CTRUNC
        assert.equal(both, flags & both)
      end
    end)
  end)
end

---------------------------------------------------------------- AF_ALG

describe("sendmsg_afalg", function()
  local a, b
  before_each(function()
    if not socket.SocketType.sendmsg_afalg then pending "this platform has no AF_ALG" end
    a, b = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
  end)

  it("encrypts and hashes", function()
    local s, e = socket.try_socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    if not s then
      assert.equal("EAFNOSUPPORT", e.code)
      pending("this system has no AF_ALG: " .. tostring(e))
    end
    keep(s)
    local bound, e2 = s:try_bind {"skcipher", "cbc(aes)"}
    if not bound then pending("this system has no AES: " .. tostring(e2)) end
    s:setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, ("k"):rep(16))
    local op = keep((s:accept()))
    op:sendmsg_afalg({"sixteen ", "bytes..."}, {op = socket.ALG_OP_ENCRYPT, iv = ("i"):rep(16)})
    local secret = op:recv(16)
    assert.are_not.equal("sixteen bytes...", secret)
    op:sendmsg_afalg(socket.buffer(secret), {op = socket.ALG_OP_DECRYPT, iv = socket.buffer(("i"):rep(16))})
    assert.equal("sixteen bytes...", op:recv(16))
  end)

  it("takes an operation, and perhaps iv, assoclen and flags", function()
    refuses("table expected, got no value", a.sendmsg_afalg, a, "x")
    refuses("option 'op' is missing", a.sendmsg_afalg, a, "x", {})
    refuses("op must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = -1})
    refuses("op must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = 1 << 32})
    refuses("op must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = "encrypt"})
    refuses("assoclen must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = 1, assoclen = -1})
    refuses("iv must be bytes", a.sendmsg_afalg, a, "x", {op = 1, iv = {}})
    refuses("iv must be bytes", a.sendmsg_afalg, a, "x", {op = 1, iv = io.stdout})
    refuses("iv is longer than 4096 bytes", a.sendmsg_afalg, a, "x", {op = 1, iv = ("i"):rep(4097)})
    refuses("flags must be an integer", a.sendmsg_afalg, a, "x", {op = 1, flags = "x"})
    refuses("flags do not fit", a.sendmsg_afalg, a, "x", {op = 1, flags = 1 << 40})
    refuses("unknown option 'key'", a.sendmsg_afalg, a, "x", {op = 1, key = "x"})
    refuses("item 1 is a table, not bytes", a.sendmsg_afalg, a, {{}}, {op = 1})
    refuses("string expected, got nil", a.sendmsg_afalg, a, nil, {op = 1})
    refuses("socket expected", a.sendmsg_afalg, {}, "x", {op = 1})
    fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT)
  end)

  it("gives them to the system as items of level SOL_ALG", function()
    support.needs_strace(pending)
    local marked = support.calls [[
      local socket = require "socket"
      local a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      mark "all"
      a:sendmsg_afalg({"x", "yz"}, {op = 1, iv = "abcdefg", assoclen = 9, flags = socket.MSG_MORE})
      mark "op"
      a:sendmsg_afalg("x", {op = 0})
      mark()
      a:close() b:close()]]
    local text = marked.all[1].text
    local items = {}
    for len, level, kind in text:gmatch "{cmsg_len=(%d+), cmsg_level=([%w_]+), cmsg_type=(%w+)" do
      items[#items + 1] = ("%s %s %d"):format(len, level, kind)
    end
    assert.same({
      ("%d SOL_ALG %d"):format(socket.CMSG_LEN(4), socket.ALG_SET_OP),
      ("%d SOL_ALG %d"):format(socket.CMSG_LEN(4 + 7), socket.ALG_SET_IV),
      ("%d SOL_ALG %d"):format(socket.CMSG_LEN(4), socket.ALG_SET_AEAD_ASSOCLEN),
    }, items)
    assert.matches("MSG_MORE", text, 1, true)
    assert.matches(("msg_controllen=%d"):format(2 * socket.CMSG_SPACE(4) + socket.CMSG_SPACE(11)), text, 1, true)
    assert.equal(1, select(2, marked.op[1].text:gsub("cmsg_len", "")))
  end)
end)

---------------------------------------------------------------- sizes

describe("CMSG_LEN and CMSG_SPACE", function()
  it("are the system's, without padding and with", function()
    local head = socket.CMSG_LEN(0)
    for n = 0, 40 do
      assert.equal(head + n, socket.CMSG_LEN(n))
      assert.is_true(socket.CMSG_SPACE(n) >= socket.CMSG_LEN(n))
      assert.equal(0, socket.CMSG_SPACE(n) % 4)
    end
  end)

  it("are those of Python", function()
    if not support.has "python3" then pending "needs python3" end
    if h.bits ~= 64 then pending "Python's pointers are others" end
    local text = support.output [[python3 -I -c 'import socket
for n in range(40): print(n, socket.CMSG_LEN(n), socket.CMSG_SPACE(n))']]
    local lines = {}
    for n = 0, 39 do lines[#lines + 1] = ("%d %d %d\n"):format(n, socket.CMSG_LEN(n), socket.CMSG_SPACE(n)) end
    assert.equal(table.concat(lines), text)
  end)

  it("take no negative length and none beyond a C int", function()
    for _, f in ipairs {socket.CMSG_LEN, socket.CMSG_SPACE} do
      for _, n in ipairs {-1, math.mininteger, math.maxinteger, 1 << 31, (1 << 31) - 1} do
        refuses("length is negative or too large", f, n)
      end
      refuses("number expected, got no value", f)
      refuses("number has no integer representation", f, 1.5)
    end
  end)
end)
