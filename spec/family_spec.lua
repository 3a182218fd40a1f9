-- Addresses of the families beyond IPv4, IPv6 and Unix: as Lua tables and as the kernel's structures.
--
-- Each family is described by what the kernel's header says (string.pack), so these run without kernel support too.

require "spec.helper"
local socket = require "socket"

assert(socket.packaddr, "another library named socket") -- not a platform without these families

local pack, unpack = string.pack, string.unpack

-- Leaves a test that this platform's headers give no constants for.
local function needs(...)
  for _, name in ipairs {...} do
    if not socket[name] then pending("this platform has no " .. name) end
  end
end

-- An address and its bytes are one thing in two forms; positional, named and returned addresses are alike, and an
-- address cut short anywhere reads as if zeros followed.
local function check(family, proto, names, address, bytes, shown)
  shown = shown or address
  assert.are.equal(bytes, socket.packaddr(family, address, proto))
  local named = {}
  for i, value in ipairs(address) do named[names[i]] = value end
  assert.are.equal(bytes, socket.packaddr(family, named, proto))

  local back = socket.unpackaddr(bytes, proto)
  assert.are.same(shown, {table.unpack(back)})
  assert.are.equal(family, back.family)
  for i, name in ipairs(names) do assert.are.equal(shown[i], back[name]) end
  assert.are.equal(bytes, socket.packaddr(family, back, proto))

  local padded
  for n = 2, #bytes do
    local cut = socket.unpackaddr(bytes:sub(1, n), proto)
    padded = socket.unpackaddr(bytes:sub(1, n) .. ("\0"):rep(#bytes - n), proto)
    assert.are.same(#padded, #cut)
    for i, name in ipairs(names) do
      if math.type(padded[i]) or name ~= "addr" then assert.are.equal(padded[i], cut[i]) end -- hardware: see there
    end
  end
  assert.are.same(shown, {table.unpack(padded)})
end

-- Replacing one item by the value given is refused before any system call, in words that name the item.
local function refuses(family, proto, good, position, value, message)
  local address = {table.unpack(good)}
  address[position] = value
  local ok, e = pcall(socket.packaddr, family, address, proto)
  assert.is_false(ok)
  assert.matches("^bad argument #2 to '[%w.]*packaddr' %(", e)
  assert.matches(message, e, 1, true)
end

-- A socket of a family that the kernel may lack: the socket, or nil after looking at the error.
local function open(family, type, proto)
  local s, e = socket.try_socket(family, type, proto)
  if s then return s end
  assert.is_true(socket.iserror(e))
  local clear = {EAFNOSUPPORT = 1, EPROTONOSUPPORT = 1, ESOCKTNOSUPPORT = 1, EPERM = 1, EACCES = 1, ENODEV = 1}
  assert.is_truthy(clear[e.code], tostring(e))
  assert.are.equal("socket", e.op)
  assert.are.equal(socket.errno[e.code], e.errno)
end

-- Each family's constructor: a socket, or an error object that says why not.
local function opens_or_tells(family, ...)
  local s = open(family, ...)
  if s then
    assert.are.equal(family, s.family)
    s:close()
  end
end

local function index_of(name)
  return name == "" and 0 or socket.if_nametoindex(name)
end

local LO = pcall(socket.if_nametoindex, "lo") and "lo" or ""
local MAX32 = 0xFFFFFFFF

describe("AF_NETLINK {pid, groups}", function()
  local NAMES = {"pid", "groups"}
  local function bytes(pid, groups) return pack("=I2I2I4I4", socket.AF_NETLINK, 0, pid, groups) end

  it("is struct sockaddr_nl", function()
    needs "AF_NETLINK"
    check(socket.AF_NETLINK, 0, NAMES, {0, 0}, bytes(0, 0))
    check(socket.AF_NETLINK, 0, NAMES, {1234, 1 << 31}, bytes(1234, 1 << 31))
    check(socket.AF_NETLINK, 0, NAMES, {MAX32, 1}, bytes(MAX32, 1))
  end)

  it("needs both, of 32 bits", function()
    needs "AF_NETLINK"
    refuses(socket.AF_NETLINK, 0, {1, 2}, 1, -1, "pid must be 0-4294967295, got -1")
    refuses(socket.AF_NETLINK, 0, {1, 2}, 2, MAX32 + 1, "groups must be 0-4294967295")
    refuses(socket.AF_NETLINK, 0, {1, 2}, 2, nil, "groups must be an integer, got nil")
    refuses(socket.AF_NETLINK, 0, {1, 2}, 1, "x", "pid must be an integer, got string")
    assert.has_error(function() socket.packaddr(socket.AF_NETLINK, 5) end)
  end)

  it("is bound to and asked for", function()
    needs("AF_NETLINK", "NETLINK_ROUTE")
    local s <close> = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    s:bind {0, 0}
    local name = s:getsockname()
    assert.is_true(name.pid > 0) -- the kernel chose one
    assert.are.equal(0, name.groups)

    -- a number that is taken is an error that tells of the address
    local t <close> = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    local ok, e = t:try_bind(name)
    assert.is_nil(ok)
    assert.are.equal("EADDRINUSE", e.code)
    assert.are.equal(name, e.address)
  end)

  it("asks the kernel for its interfaces", function()
    needs("AF_NETLINK", "NETLINK_ROUTE")
    local RTM_GETLINK, RTM_NEWLINK, NLMSG_DONE, NLMSG_ERROR = 18, 16, 3, 2
    local NLM_F_REQUEST, NLM_F_DUMP, IFLA_IFNAME = 1, 0x300, 3
    local s <close> = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    s:settimeout(5)
    s:bind {pid = 0, groups = 0}

    local ifinfomsg = pack("=BxI2i4I4I4", socket.AF_UNSPEC, 0, 0, 0, 0)
    local header = pack("=I4I2I2I4I4", 16 + #ifinfomsg, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7, 0)
    assert.are.equal(32, s:sendto(header .. ifinfomsg, {0, 0}))

    local found, done = {}, false
    for _ = 1, 1000 do
      local data, from = s:recvfrom(65536)
      assert.are.same({0, 0}, {from.pid, from.groups}) -- the kernel itself
      local at = 1
      while at < #data do
        local len, type, _, seq = unpack("=I4I2I2I4", data, at)
        assert.are.equal(7, seq)
        assert.are_not.equal(NLMSG_ERROR, type)
        done = done or type == NLMSG_DONE
        if type == RTM_NEWLINK then
          local index = unpack("=i4", data, at + 16 + 4)
          local attribute = at + 32
          while attribute < at + len do
            local size, kind = unpack("=I2I2", data, attribute)
            if kind == IFLA_IFNAME then found[index] = unpack("z", data, attribute + 4) end
            attribute = attribute + (size + 3 & ~3)
          end
        end
        at = at + (len + 3 & ~3)
      end
      if done then break end
    end
    assert.is_true(done)
    local expected = {}
    for _, entry in ipairs(socket.if_nameindex()) do expected[entry[1]] = entry[2] end
    assert.are.same(expected, found)
  end)
end)

describe("AF_PACKET {ifname, proto [, pkttype [, hatype [, addr]]]}", function()
  local NAMES = {"ifname", "proto", "pkttype", "hatype", "addr"}
  local function bytes(ifname, proto, pkttype, hatype, addr)
    return pack("=I2>I2=i4I2BBc8", socket.AF_PACKET, proto, index_of(ifname), hatype, pkttype, #addr, addr)
  end

  it("is struct sockaddr_ll, with proto in host order on our side", function()
    needs "AF_PACKET"
    check(socket.AF_PACKET, 0, NAMES, {LO, 0x0800, 4, 772, "\1\2\3\4\5\6"}, bytes(LO, 0x0800, 4, 772, "\1\2\3\4\5\6"))
    check(socket.AF_PACKET, 0, NAMES, {"", 0x86DD, 255, 65535, "\0\2\3\4\5\6\7\8"},
      bytes("", 0x86DD, 255, 65535, "\0\2\3\4\5\6\7\8"))
  end)

  it("needs the first two", function()
    needs "AF_PACKET"
    local shown = {LO, 3, 0, 0, ""}
    check(socket.AF_PACKET, 0, NAMES, {LO, 3}, bytes(LO, 3, 0, 0, ""), shown)
    check(socket.AF_PACKET, 0, NAMES, {LO, 3, 2}, bytes(LO, 3, 2, 0, ""), {LO, 3, 2, 0, ""})
    local named = {ifname = LO, proto = 3, addr = "xyz"}
    assert.are.equal(bytes(LO, 3, 0, 0, "xyz"), socket.packaddr(socket.AF_PACKET, named))
  end)

  it("names what is wrong", function()
    needs "AF_PACKET"
    local good = {LO, 3, 0, 1, "abcdef"}
    refuses(socket.AF_PACKET, 0, good, 1, "no-such-if", "no such interface")
    refuses(socket.AF_PACKET, 0, good, 1, ("x"):rep(16), "ifname is longer than 15 bytes")
    refuses(socket.AF_PACKET, 0, good, 1, "l\0o", "ifname contains a zero byte")
    refuses(socket.AF_PACKET, 0, good, 2, 65536, "proto must be 0-65535, got 65536")
    refuses(socket.AF_PACKET, 0, good, 3, 256, "pkttype must be 0-255")
    refuses(socket.AF_PACKET, 0, good, 4, -1, "hatype must be 0-65535")
    refuses(socket.AF_PACKET, 0, good, 5, "123456789", "addr is longer than 8 bytes")
    refuses(socket.AF_PACKET, 0, good, 5, true, "addr must be a string, got boolean")
  end)

  it("shows no more of a hardware address than the kernel gave", function()
    needs "AF_PACKET"
    local whole = bytes(LO, 3, 0, 1, "abcdef") -- getsockname gives 18 of the 20 bytes for Ethernet
    assert.are.equal("abcdef", socket.unpackaddr(whole:sub(1, 18)).addr)
    assert.are.equal("abcd", socket.unpackaddr(whole:sub(1, 16)).addr)
    assert.are.equal("", socket.unpackaddr(whole:sub(1, 12)).addr)
    local infiniband = whole:sub(1, 11) .. "\20" .. ("i"):rep(20)
    assert.are.equal(("i"):rep(20), socket.unpackaddr(infiniband).addr)
    assert.are.equal(("i"):rep(20), socket.unpackaddr(infiniband .. "more").addr)
    local lying = whole:sub(1, 11) .. "\255" .. ("i"):rep(8)
    assert.are.equal(("i"):rep(8), socket.unpackaddr(lying).addr)
  end)

  it("cannot be bound to an interface that is not there: ENODEV", function()
    needs "AF_PACKET"
    local s <close> = open(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    if not s then pending "packet sockets are for root" end
    local ok, e = s:try_bind {"no-such-if", 3}
    assert.is_nil(ok)
    assert.are.equal("ENODEV", e.code)
    assert.are.equal("bind no-such-if:3: No such device (ENODEV)", (tostring(e):gsub("^.-: ", "")))
  end)

  it("captures a datagram on lo, leaving and arriving", function()
    needs "AF_PACKET"
    local ETH_P_ALL, ETH_P_IP, ARPHRD_LOOPBACK = 3, 0x0800, 772
    local s <close> = open(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    if not s then pending "packet sockets are for root" end
    s:settimeout(5)
    s:bind {"lo", ETH_P_ALL}
    local name = s:getsockname()
    assert.are.same({"lo", ETH_P_ALL, ARPHRD_LOOPBACK}, {name.ifname, name.proto, name.hatype})
    assert.are.equal(("\0"):rep(6), name.addr)

    local receiver <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver:bind {"127.0.0.1", 0}
    local sender <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    local port = receiver:getsockname().port
    local text = ("capture %d"):format(port)

    local seen = {}
    for i = 0, 20000 do -- others use lo too, and may crowd our datagram out
      if i % 1000 == 0 then sender:sendto(text, {"127.0.0.1", port}) end
      local packet, from = s:recvfrom(65536)
      if packet:find(text, 1, true) then
        assert.are.same({"lo", ETH_P_IP, ARPHRD_LOOPBACK}, {from.ifname, from.proto, from.hatype})
        seen[from.pkttype] = packet
        if seen[socket.PACKET_OUTGOING] and seen[socket.PACKET_HOST] then break end
      end
    end
    for _, kind in ipairs {socket.PACKET_OUTGOING, socket.PACKET_HOST} do
      assert.are.equal(port, (unpack(">I2", seen[kind], 23))) -- behind 20 bytes of IP and the source port
    end
  end)

  it("sends frames of a type of one's own", function()
    needs "AF_PACKET"
    local ETH_EXPERIMENTAL = 0x88B5
    local s <close> = open(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    if not s then pending "packet sockets are for root" end
    s:settimeout(5)
    s:bind {ifname = "lo", proto = ETH_EXPERIMENTAL}
    local text = ("frame %s"):format(s)
    s:sendto(text, {"lo", ETH_EXPERIMENTAL, 0, 0, ("\0"):rep(6)})
    local packet, from
    for _ = 1, 100 do
      packet, from = s:recvfrom(2048)
      if packet == text then break end
    end
    assert.are.equal(text, packet)
    assert.are.same({"lo", ETH_EXPERIMENTAL, socket.PACKET_HOST, 772, ("\0"):rep(6)}, {table.unpack(from)})
  end)
end)

describe("AF_TIPC {addr_type, v1, v2, v3 [, scope]}", function()
  local NAMES = {"addr_type", "v1", "v2", "v3", "scope"}
  local NAMESEQ, NAME, ID = 1, 2, 3
  local function bytes(type, scope, a, b, c) return pack("=I2Bi1I4I4I4", socket.AF_TIPC, type, scope, a, b, c) end

  it("is a range: service type, lower, upper", function()
    needs "AF_TIPC"
    check(socket.AF_TIPC, 0, NAMES, {NAMESEQ, 1000, 2, MAX32, 3}, bytes(NAMESEQ, 3, 1000, 2, MAX32))
  end)

  it("is a name: service type and instance; v3 is shown as the instance, as Python does", function()
    needs "AF_TIPC"
    check(socket.AF_TIPC, 0, NAMES, {NAME, 1000, 7, 0, 1}, bytes(NAME, 1, 1000, 7, 0), {NAME, 1000, 7, 7, 1})
  end)

  it("is a port: node and reference", function()
    needs "AF_TIPC"
    check(socket.AF_TIPC, 0, NAMES, {ID, 0x01001001, 77, 0, 2}, bytes(ID, 2, 77, 0x01001001, 0))
  end)

  it("has cluster scope unless told; a negative scope takes a name back", function()
    needs "AF_TIPC"
    check(socket.AF_TIPC, 0, NAMES, {NAMESEQ, 1, 2, 3}, bytes(NAMESEQ, 2, 1, 2, 3), {NAMESEQ, 1, 2, 3, 2})
    check(socket.AF_TIPC, 0, NAMES, {NAMESEQ, 1, 2, 3, -2}, bytes(NAMESEQ, -2, 1, 2, 3))
    check(socket.AF_TIPC, 0, NAMES, {NAMESEQ, 1, 2, 3, 0}, bytes(NAMESEQ, 0, 1, 2, 3))
  end)

  it("names what is wrong", function()
    needs "AF_TIPC"
    local good = {ID, 1, 2, 0, 2}
    refuses(socket.AF_TIPC, 0, good, 1, 4, "addr_type must be 1-3, got 4")
    refuses(socket.AF_TIPC, 0, good, 1, 0, "addr_type must be 1-3")
    for i = 2, 4 do
      refuses(socket.AF_TIPC, 0, good, i, MAX32 + 1, NAMES[i] .. " must be 0-4294967295")
      refuses(socket.AF_TIPC, 0, good, i, nil, NAMES[i] .. " must be an integer, got nil")
    end
    refuses(socket.AF_TIPC, 0, good, 5, 128, "scope must be -128-127")
  end)

  it("opens, or tells that the kernel lacks it", function()
    needs "AF_TIPC"
    opens_or_tells(socket.AF_TIPC, socket.SOCK_RDM)
  end)
end)

describe("AF_VSOCK {cid, port}", function()
  local function bytes(cid, port) return pack("=I2I2I4I4I4", socket.AF_VSOCK, 0, port, cid, 0) end

  it("is struct sockaddr_vm", function()
    needs "AF_VSOCK"
    check(socket.AF_VSOCK, 0, {"cid", "port"}, {3, 1024}, bytes(3, 1024))
    check(socket.AF_VSOCK, 0, {"cid", "port"}, {socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY}, bytes(MAX32, MAX32))
    refuses(socket.AF_VSOCK, 0, {3, 1024}, 1, -1, "cid must be 0-4294967295, got -1")
    refuses(socket.AF_VSOCK, 0, {3, 1024}, 2, 1.5, "port must be an integer")
  end)

  it("is bound to", function()
    needs "AF_VSOCK"
    local s <close> = open(socket.AF_VSOCK, socket.SOCK_STREAM)
    if not s then pending "this kernel has no VSOCK" end
    s:bind {socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY}
    local name = s:getsockname()
    assert.are.equal(socket.VMADDR_CID_ANY, name.cid)
    assert.is_true(name.port > 0 and name.port < MAX32)
  end)
end)

describe("AF_CAN", function()
  local function bytes(ifname, rest) return pack("=I2xxi4c16", socket.AF_CAN, index_of(ifname), rest) end

  it("is {ifname} for CAN_RAW and CAN_BCM; \"\" is every interface", function()
    needs("AF_CAN", "CAN_RAW", "CAN_BCM")
    for _, proto in ipairs {socket.CAN_RAW, socket.CAN_BCM} do
      check(socket.AF_CAN, proto, {"ifname"}, {""}, bytes("", ""))
      check(socket.AF_CAN, proto, {"ifname"}, {LO}, bytes(LO, ""))
      refuses(socket.AF_CAN, proto, {LO}, 1, "no-such-if", "no such interface")
      refuses(socket.AF_CAN, proto, {LO}, 1, nil, "ifname must be a string, got nil")
    end
  end)

  it("is {ifname, rx_id, tx_id} for CAN_ISOTP", function()
    needs("AF_CAN", "CAN_ISOTP")
    local names, good = {"ifname", "rx_id", "tx_id"}, {LO, 0x123, 0x98765432}
    check(socket.AF_CAN, socket.CAN_ISOTP, names, good, bytes(LO, pack("=I4I4", 0x123, 0x98765432)))
    refuses(socket.AF_CAN, socket.CAN_ISOTP, good, 2, -1, "rx_id must be 0-4294967295")
    refuses(socket.AF_CAN, socket.CAN_ISOTP, good, 3, nil, "tx_id must be an integer, got nil")
  end)

  it("is {ifname, name, pgn, addr} for CAN_J1939", function()
    needs("AF_CAN", "CAN_J1939")
    local names, good = {"ifname", "name", "pgn", "addr"}, {LO, 0x0123456789ABCDEF, 0x3FFFF, 0xFE}
    check(socket.AF_CAN, socket.CAN_J1939, names, good, bytes(LO, pack("=I8I4B", 0x0123456789ABCDEF, 0x3FFFF, 0xFE)))
    -- a name has 64 bits: the upper half of them are Lua's negative integers
    check(socket.AF_CAN, socket.CAN_J1939, names, {"", ~0, 0, 255}, bytes("", pack("=i8I4B", -1, 0, 255)))
    refuses(socket.AF_CAN, socket.CAN_J1939, good, 2, "n", "name must be an integer, got string")
    refuses(socket.AF_CAN, socket.CAN_J1939, good, 3, MAX32 + 1, "pgn must be 0-4294967295")
    refuses(socket.AF_CAN, socket.CAN_J1939, good, 4, 256, "addr must be 0-255, got 256")
  end)

  it("opens, or tells that the kernel lacks it", function()
    needs("AF_CAN", "CAN_RAW")
    opens_or_tells(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
  end)
end)

describe("AF_ALG {type, name [, feat [, mask]]}", function()
  local NAMES = {"type", "name", "feat", "mask"}
  local function bytes(type, name, feat, mask) return pack("=I2c14I4I4c64", socket.AF_ALG, type, feat, mask, name) end

  it("is struct sockaddr_alg", function()
    needs "AF_ALG"
    check(socket.AF_ALG, 0, NAMES, {"hash", "hmac(sha256)"}, bytes("hash", "hmac(sha256)", 0, 0),
      {"hash", "hmac(sha256)", 0, 0})
    check(socket.AF_ALG, 0, NAMES, {("t"):rep(13), ("n"):rep(63), 0x12345678, MAX32},
      bytes(("t"):rep(13), ("n"):rep(63), 0x12345678, MAX32))
  end)

  it("reads names that fill their place", function()
    needs "AF_ALG"
    local address = socket.unpackaddr(bytes(("t"):rep(14), ("n"):rep(64), 0, 0))
    assert.are.same({("t"):rep(14), ("n"):rep(64)}, {address.type, address.name})
  end)

  it("names what is wrong", function()
    needs "AF_ALG"
    local good = {"hash", "sha256", 1, 2}
    refuses(socket.AF_ALG, 0, good, 1, ("t"):rep(14), "type is longer than 13 bytes")
    refuses(socket.AF_ALG, 0, good, 2, ("n"):rep(64), "name is longer than 63 bytes")
    refuses(socket.AF_ALG, 0, good, 2, "sha\0x", "name contains a zero byte")
    refuses(socket.AF_ALG, 0, good, 2, nil, "name must be a string, got nil")
    refuses(socket.AF_ALG, 0, good, 3, -1, "feat must be 0-4294967295")
    refuses(socket.AF_ALG, 0, good, 4, MAX32 + 1, "mask must be 0-4294967295")
  end)

  it("opens, or tells that the kernel lacks it", function()
    needs "AF_ALG"
    opens_or_tells(socket.AF_ALG, socket.SOCK_SEQPACKET)
  end)
end)

describe("AF_BLUETOOTH", function()
  local BDADDR, REVERSED = "01:23:45:67:89:AB", "\xAB\x89\x67\x45\x23\x01"

  local function needs_bluetooth(name)
    needs("AF_BLUETOOTH", name)
    if not pcall(socket.packaddr, socket.AF_BLUETOOTH, {0}, socket.BTPROTO_HCI) then
      pending "the library was built without <bluetooth/bluetooth.h>"
    end
  end

  it("is {bdaddr, psm [, cid [, bdaddr_type]]} for L2CAP; what is not used is not shown", function()
    needs_bluetooth "BTPROTO_L2CAP"
    local names = {"bdaddr", "psm", "cid", "bdaddr_type"}
    local function bytes(psm, cid, type) return pack("=I2<I2c6I2Bx", socket.AF_BLUETOOTH, psm, REVERSED, cid, type) end
    local proto = socket.BTPROTO_L2CAP
    local function checks(address, ...)
      check(socket.AF_BLUETOOTH, proto, names, address, ...)
    end
    checks({BDADDR, 0x1001}, bytes(0x1001, 0, 0))
    checks({BDADDR, 0, 0, 0}, bytes(0, 0, 0), {BDADDR, 0})
    checks({BDADDR, 0, 0xFF04}, bytes(0, 0xFF04, 0))
    checks({BDADDR, 0x80, 0, 2}, bytes(0x80, 0, 2))
    local good = {BDADDR, 1, 2, 1}
    refuses(socket.AF_BLUETOOTH, proto, good, 2, 65536, "psm must be 0-65535")
    refuses(socket.AF_BLUETOOTH, proto, good, 3, -1, "cid must be 0-65535")
    refuses(socket.AF_BLUETOOTH, proto, good, 4, 256, "bdaddr_type must be 0-255")
  end)

  it("is {bdaddr, channel} for RFCOMM", function()
    needs_bluetooth "BTPROTO_RFCOMM"
    local good = {BDADDR, 30}
    check(socket.AF_BLUETOOTH, socket.BTPROTO_RFCOMM, {"bdaddr", "channel"}, good,
      pack("=I2c6Bx", socket.AF_BLUETOOTH, REVERSED, 30))
    refuses(socket.AF_BLUETOOTH, socket.BTPROTO_RFCOMM, good, 2, 256, "channel must be 0-255")
    refuses(socket.AF_BLUETOOTH, socket.BTPROTO_RFCOMM, good, 2, nil, "channel must be an integer, got nil")
  end)

  it("is {dev [, channel]} or a number for HCI", function()
    needs_bluetooth "BTPROTO_HCI"
    local function bytes(dev, channel) return pack("=I2I2I2", socket.AF_BLUETOOTH, dev, channel) end
    local proto = socket.BTPROTO_HCI
    check(socket.AF_BLUETOOTH, proto, {"dev", "channel"}, {1}, bytes(1, 0))
    check(socket.AF_BLUETOOTH, proto, {"dev", "channel"}, {0xFFFF, 3}, bytes(0xFFFF, 3))
    assert.are.equal(bytes(5, 0), socket.packaddr(socket.AF_BLUETOOTH, 5, proto))
    refuses(socket.AF_BLUETOOTH, proto, {1}, 1, 65536, "dev must be 0-65535, got 65536")
    local _, e = pcall(socket.packaddr, socket.AF_BLUETOOTH, 65536, proto)
    assert.matches("dev must be 0-65535, got 65536", e, 1, true)
  end)

  it("is {bdaddr} or a string for SCO", function()
    needs_bluetooth "BTPROTO_SCO"
    local bytes = pack("=I2c6", socket.AF_BLUETOOTH, REVERSED)
    check(socket.AF_BLUETOOTH, socket.BTPROTO_SCO, {"bdaddr"}, {BDADDR}, bytes)
    assert.are.equal(bytes, socket.packaddr(socket.AF_BLUETOOTH, BDADDR, socket.BTPROTO_SCO))
  end)

  it("reads device addresses of six numbers, and no others", function()
    needs_bluetooth "BTPROTO_SCO"
    local proto = socket.BTPROTO_SCO
    local function canonical(text)
      return socket.unpackaddr(socket.packaddr(socket.AF_BLUETOOTH, {text}, proto), proto).bdaddr
    end
    assert.are.equal("AB:CD:EF:00:01:0F", canonical "ab:cd:EF:0:1:f")
    local bad = {"", "01:23:45:67:89", "01:23:45:67:89:AB:", "01:23:45:67:89:AB:CD", "001:23:45:67:89:AB",
      "01-23-45-67-89-AB", "0g:23:45:67:89:AB", ":23:45:67:89:AB:CD", " 1:23:45:67:89:AB"}
    for _, text in ipairs(bad) do
      refuses(socket.AF_BLUETOOTH, proto, {BDADDR}, 1, text, "bdaddr must be like 01:23:45:67:89:AB, got '" .. text)
    end
    refuses(socket.AF_BLUETOOTH, proto, {BDADDR}, 1, 7, "bdaddr must be a string, got number")
  end)

  it("is {family, bytes} for other protocols", function()
    needs_bluetooth "BTPROTO_HIDP"
    local bytes = pack("=I2", socket.AF_BLUETOOTH) .. REVERSED
    local address = socket.unpackaddr(bytes, socket.BTPROTO_HIDP)
    assert.are.same({socket.AF_BLUETOOTH, REVERSED}, {table.unpack(address)})
    assert.are.equal(bytes, socket.packaddr(socket.AF_BLUETOOTH, address, socket.BTPROTO_HIDP))
  end)

  it("opens, or tells that the kernel lacks it", function()
    needs_bluetooth "BTPROTO_RFCOMM"
    opens_or_tells(socket.AF_BLUETOOTH, socket.SOCK_STREAM, socket.BTPROTO_RFCOMM)
  end)
end)

describe("AF_QIPCRTR {node, port}", function()
  it("is struct sockaddr_qrtr", function()
    needs "AF_QIPCRTR"
    local bytes = pack("=I2xxI4I4", socket.AF_QIPCRTR, 1, MAX32 - 1)
    check(socket.AF_QIPCRTR, 0, {"node", "port"}, {1, MAX32 - 1}, bytes)
    refuses(socket.AF_QIPCRTR, 0, {1, 2}, 1, -1, "node must be 0-4294967295")
    refuses(socket.AF_QIPCRTR, 0, {1, 2}, 2, nil, "port must be an integer, got nil")
  end)

  it("opens, or tells that the kernel lacks it", function()
    needs "AF_QIPCRTR"
    opens_or_tells(socket.AF_QIPCRTR, socket.SOCK_DGRAM)
  end)
end)

describe("AF_RDS {host, port}", function()
  it("has AF_INET's addresses, in that family's structure", function()
    needs "AF_RDS"
    local bytes = pack("=I2>I2", socket.AF_INET, 4000) .. "\127\0\0\1" .. ("\0"):rep(8)
    assert.are.equal(bytes, socket.packaddr(socket.AF_RDS, {"127.0.0.1", 4000}))
    assert.are.equal(bytes, socket.packaddr(socket.AF_RDS, {host = 0x7F000001, port = 4000}))
    assert.are.same({"127.0.0.1", 4000}, {table.unpack(socket.unpackaddr(bytes))})
    refuses(socket.AF_RDS, 0, {"127.0.0.1", 1}, 2, 65536, "port must be 0-65535")
  end)

  it("opens, or tells that the kernel lacks it", function()
    needs "AF_RDS"
    opens_or_tells(socket.AF_RDS, socket.SOCK_SEQPACKET)
  end)
end)
