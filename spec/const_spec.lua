local socket = require "socket"

local LUA = os.getenv("LSOCKET_LUA") or "lua5.4"

local function output_of(command)
  local p <close> = assert(io.popen(command))
  return p:read("a")
end

local function on_linux() return output_of("uname -s 2>/dev/null"):match("^Linux") ~= nil end

describe("the list of constants", function()
  it("is what the C table and the manual page were made from", function()
    assert.is_true(os.execute(LUA .. " tools/genconst.lua --check"))
  end)

  describe("in a copy of the project", function()
    local copy

    before_each(function()
      copy = os.tmpname()
      os.remove(copy)
      local docs = copy .. "/docs/reference"
      assert(os.execute(("mkdir -p %s && cp docs/reference/constants.md %s"):format(docs, docs)))
      assert(os.execute("cp -r tools lsocket_const.inc " .. copy))
    end)

    after_each(function() os.execute("rm -r " .. copy) end)

    local function append(line)
      local f <close> = assert(io.open(copy .. "/tools/constants.txt", "a"))
      f:write(line, "\n")
    end

    local function genconst(option)
      local command = ("%s %s/tools/genconst.lua %s 2>&1"):format(LUA, copy, option or "")
      local p = assert(io.popen(command))
      local text = p:read("a")
      return p:close() == true, text
    end

    it("is found to be newer than the files made from it, until they are made again", function()
      append("ENEWERROR")
      local ok, text = genconst("--check")
      assert.is_false(ok)
      assert.matches("lsocket_const.inc is out of date", text, 1, true)
      assert.matches("docs/reference/constants.md is out of date", text, 1, true)
      assert.is_true(genconst())
      assert.is_true(genconst("--check"))
    end)

    it("gives the same files each time", function()
      assert.is_true(genconst())
      assert.is_true(genconst("--check"))
    end)

    for _, case in ipairs {
      {"EPERM", "EPERM is here twice"},
      {"ENEW linux:x", "linux is not an integer"},
      {"ENEW colour:red", "unknown attribute colour:red"},
      {"enew", "not a name: enew"},
      {"@unheard of", "unknown directive @unheard of"},
      {"@only linux\nENEW", "ENEW needs a value for linux"},
    } do
      it("may not say " .. case[1]:gsub("\n", ", "), function()
        append(case[1])
        local ok, text = genconst("--check")
        assert.is_false(ok)
        assert.matches(case[2], text, 1, true)
      end)
    end

    describe("compared with the headers of this machine", function()
      local cc = (os.getenv "CC" or ""):match "%S.*" or "cc" -- make may hand on an empty one

      local function needs_headers()
        if not on_linux() then pending("the values are those of Linux") end
        if not os.execute(("echo '#include <linux/tipc.h>' | %s -E - >/dev/null 2>&1"):format(cc)) then
          pending("needs a C compiler and the headers of Linux")
        end
      end

      it("has no wrong value", function()
        needs_headers()
        local ok, text = genconst("--verify " .. cc)
        assert.is_true(ok, text)
      end)

      it("would show a wrong one", function()
        needs_headers()
        append("@header linux/tipc.h\nTIPC_WRONG c:TIPC_OK linux:1")
        local ok, text = genconst("--verify " .. cc)
        assert.is_false(ok)
        assert.matches("WRONG: TIPC_WRONG", text, 1, true)
      end)
    end)
  end)
end)

describe("a constant", function()
  it("has the value the system gives it", function()
    if not on_linux() then pending("the values are those of Linux") end
    local expected = {
      AF_UNSPEC = 0, AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10, AF_NETLINK = 16, AF_PACKET = 17, AF_CAN = 29,
      AF_TIPC = 30,
      AF_BLUETOOTH = 31, AF_ALG = 38, AF_VSOCK = 40, AF_QIPCRTR = 42, PF_UNIX = 1, PF_INET = 2, PF_X25 = 9,
      PF_PACKET = 17,
      SHUT_RD = 0, SHUT_WR = 1, SHUT_RDWR = 2,
      IPPROTO_IP = 0, IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17, IPPROTO_IPV6 = 41,
      IPPROTO_RAW = 255, IPPROTO_MPTCP = 262,
      IP_TTL = 2, IP_HDRINCL = 3, IP_RECVERR = 11, IP_PKTINFO = 8, IP_ADD_MEMBERSHIP = 35, IPV6_V6ONLY = 26,
      IPV6_JOIN_GROUP = 20, IPV6_RECVERR = 25,
      TCP_NODELAY = 1, TCP_INFO = 11, TCP_USER_TIMEOUT = 18, TCP_ULP = 31, TCP_ESTABLISHED = 1,
      UDP_SEGMENT = 103, UDP_GRO = 104, UDPLITE_SEND_CSCOV = 10,
      MSG_PEEK = 2, MSG_ERRQUEUE = 0x2000, MSG_NOSIGNAL = 0x4000, MSG_ZEROCOPY = 0x4000000,
      MSG_CMSG_CLOEXEC = 0x40000000,
      SCM_RIGHTS = 1, SCM_CREDENTIALS = 2,
      SOL_IP = 0, SOL_TCP = 6, SOL_UDP = 17, SOL_IPV6 = 41, SOL_NETLINK = 270, SOL_TLS = 282,
      AI_PASSIVE = 1, AI_CANONNAME = 2, NI_NUMERICHOST = 1, NETLINK_ROUTE = 0, NETLINK_GENERIC = 16,
      PACKET_OUTGOING = 4, ETH_P_ALL = 3, ETH_P_IP = 0x0800, ETHERTYPE_IPV6 = 0x86dd,
      SOF_TIMESTAMPING_SOFTWARE = 16,
      CAN_RAW = 1, CAN_BCM_RX_CHANGED = 12, CAN_ISOTP = 6, J1939_NO_PGN = 0x40000, TIPC_ADDR_NAMESEQ = 1,
      TIPC_ADDR_NAME = 2, TIPC_ADDR_ID = 3, TIPC_ZONE_SCOPE = 1, TIPC_CLUSTER_SCOPE = 2, TIPC_NODE_SCOPE = 3,
      TIPC_CRITICAL_IMPORTANCE = 3,
      ALG_SET_KEY = 1, RDS_FREE_MR = 3, QRTR_PORT_CTRL = 0xfffffffe, BTPROTO_RFCOMM = 3, SOL_BLUETOOTH = 274,
      HCI_FILTER = 2,
      SO_VM_SOCKETS_BUFFER_MAX_SIZE = 2, SO_ORIGINAL_DST = 80,
    }
    local actual = {}
    for name in pairs(expected) do actual[name] = socket[name] end
    assert.same(expected, actual)
  end)

  it("without a sign is a positive integer", function()
    assert.equal(4294967295, socket.INADDR_BROADCAST)
    assert.equal(2130706433, socket.INADDR_LOOPBACK)
    assert.equal("integer", math.type(socket.INADDR_NONE))
    if on_linux() then
      assert.equal(4294967295, socket.VMADDR_CID_ANY)
      assert.equal(0x80000000, socket.CAN_EFF_FLAG)
      assert.equal(-1, socket.TIPC_WAIT_FOREVER)
    end
  end)

  it("that Python gives a default exists everywhere", function()
    for _, name in ipairs {
      "SOMAXCONN", "SOL_IP", "SOL_TCP", "SOL_UDP", "IPPROTO_IP", "IPPROTO_ICMP", "IPPROTO_TCP", "IPPROTO_UDP",
      "IPPROTO_RAW",
      "IPPORT_RESERVED", "IPPORT_USERRESERVED", "INADDR_ANY", "INADDR_UNSPEC_GROUP", "INADDR_ALLHOSTS_GROUP",
      "INADDR_MAX_LOCAL_GROUP", "NI_MAXHOST", "NI_MAXSERV", "SHUT_RD", "SHUT_WR", "SHUT_RDWR",
    } do
      assert.equal("integer", math.type(socket[name]), name)
    end
    assert.equal(1024, socket.IPPORT_RESERVED)
    assert.equal(5000, socket.IPPORT_USERRESERVED)
  end)

  it("is a string where it is an address", function()
    if socket.AF_BLUETOOTH then
      assert.equal("00:00:00:00:00:00", socket.BDADDR_ANY)
      assert.equal("00:00:00:FF:FF:FF", socket.BDADDR_LOCAL)
    end
  end)

  it("is in the table once for each family; error numbers have a table of their own", function()
    assert.is_nil(socket.ECONNREFUSED)
    assert.is_nil(socket.HOST_NOT_FOUND)
    assert.is_not_nil(socket.EAI_NONAME)
  end)
end)

describe("socket.errno", function()
  it("maps names to numbers", function()
    for _, name in ipairs {"EAGAIN", "ECONNREFUSED", "ETIMEDOUT", "EBADF", "EPIPE", "EADDRINUSE"} do
      assert.equal("integer", math.type(socket.errno[name]), name)
    end
  end)

  it("maps numbers to names", function()
    for _, name in ipairs {"EAGAIN", "ECONNREFUSED", "ETIMEDOUT", "EBADF", "EPIPE", "EADDRINUSE"} do
      assert.equal(name, socket.errno[socket.errno[name]])
    end
  end)

  it("prefers one name where two share a number", function()
    if not on_linux() then pending("the pairs are those of Linux") end
    for alias, name in pairs {EWOULDBLOCK = "EAGAIN", ENOTSUP = "EOPNOTSUPP"} do
      assert.equal(socket.errno[name], socket.errno[alias])
      assert.equal(name, socket.errno[socket.errno[alias]])
    end
    assert.equal("EDEADLK", socket.errno[socket.errno.EDEADLK])
  end)

  it("has nothing for other numbers and names", function()
    assert.is_nil(socket.errno[0])
    assert.is_nil(socket.errno[-1])
    assert.is_nil(socket.errno.ENOSUCHTHING)
  end)
end)

-- The names of Python's module, where there is a Python: {name, kind, value}, kind one of constant, boolean, other.
local function python_names()
  local script = [[
import socket, types
for name in dir(socket):
    value = getattr(socket, name)
    if name.startswith('_') or isinstance(value, types.ModuleType): continue
    if isinstance(value, bool): print(name, 'boolean', '-')
    elif isinstance(value, int): print(name, 'constant', int(value))
    elif isinstance(value, str): print(name, 'constant', value)
    else: print(name, 'other', '-')
]]
  local names = {}
  for line in output_of("python3 -I -c \"" .. script .. "\" 2>/dev/null"):gmatch("[^\n]+") do
    local name, kind, value = line:match("^(%S+) (%S+) (.*)$")
    names[#names + 1] = {name = name, kind = kind, value = value}
  end
  return names
end

describe("Python's socket module", function()
  local names, absent

  setup(function()
    names, absent = python_names(), {}
    for line in io.lines("spec/absent_from_python.txt") do
      local name, reason = line:match("^([^\t#]+)\t(.+)$")
      if name then absent[name] = reason end
    end
  end)

  local function needs_python()
    if #names == 0 then pending("needs python3") end
  end

  it("has no constant that is missing here or has another value", function()
    needs_python()
    local missing = {}
    for _, n in ipairs(names) do
      local python = tonumber(n.value) -- which takes some for negative where a long has 32 bits
      local here = socket[n.name]
      local same = tostring(here) == n.value or (string.packsize "l" < 8 and math.type(python) == "integer"
        and python < 0 and here == python & 0xffffffff)
      if n.kind == "constant" and not absent[n.name] and not same then
        missing[#missing + 1] = ("%s: %s in Python, %s here"):format(n.name, n.value, socket[n.name])
      end
    end
    assert.same({}, missing)
  end)

  it("has no function, class or exception that is missing here", function()
    needs_python()
    local missing = {}
    for _, n in ipairs(names) do
      if n.kind ~= "constant" and not absent[n.name] and socket[n.name] == nil then missing[#missing + 1] = n.name end
    end
    assert.same({}, missing)
  end)

  it("is not said to have names that are here after all", function()
    local here = {}
    for name in pairs(absent) do
      if socket[name] ~= nil then here[#here + 1] = name end
    end
    assert.same({}, here)
  end)
end)
