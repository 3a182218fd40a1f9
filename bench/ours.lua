-- ours.lua: every workload with this library. lua5.4 bench/ours.lua <workload> <n>
local socket = require "socket"
local clock = require "bare".clock -- the same clock for both Lua libraries
assert(not tostring(socket._VERSION):find "LuaSocket", "this is LuaSocket")

local what, n = arg[1], tonumber(arg[2])
local echo, sink, source, drop, dial, udp, late =
  os.getenv("BENCH_PORTS"):match "^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$"
local msg, chunk = ("x"):rep(64), ("x"):rep(65536)

local function connect(port) return socket.create_connection {"127.0.0.1", tonumber(port)} end

local function roundtrip(s)
  local cpu, wall = clock()
  for _ = 1, n do
    s:send(msg)
    s:recv(64)
  end
  return cpu, wall
end

local function recv_ready(s)
  os.execute "sleep 0.05"
  local cpu, wall = clock()
  for _ = 1, n do s:recv(64) end
  return cpu, wall
end

local function datagram() return socket.socket(socket.AF_INET, socket.SOCK_DGRAM) end

local function memory(kind)
  local all = {}
  for i = 1, n do all[i] = false end
  local function resident()
    local f = assert(io.open "/proc/self/status")
    local kib = f:read("a"):match "VmRSS:%s*(%d+)"
    f:close()
    return tonumber(kib) * 1024
  end
  collectgarbage()
  collectgarbage()
  local heap, rss = collectgarbage "count", resident()
  for i = 1, n do all[i] = socket.socket(socket.AF_INET, kind) end
  rss = resident() - rss
  collectgarbage()
  print(rss // n, (collectgarbage "count" - heap) * 1024 // n | 0)
  for i = 1, n do all[i]:close() end
end

local workloads = {
  roundtrip = function() return roundtrip(connect(echo)) end,
  roundtrip_t = function() return roundtrip(connect(echo):settimeout(5)) end,
  late = function() return roundtrip(connect(late)) end,
  late_t = function() return roundtrip(connect(late):settimeout(5)) end,
  recv_ready = function() return recv_ready(connect(source)) end,
  recv_ready_t = function() return recv_ready(connect(source):settimeout(5)) end,
  udp = function() return roundtrip(datagram():connect {"127.0.0.1", tonumber(udp)}) end,
  udp_to = function()
    local s, address = datagram(), {"127.0.0.1", tonumber(udp)}
    local cpu, wall = clock()
    for _ = 1, n do
      s:sendto(msg, address)
      s:recvfrom(64)
    end
    return cpu, wall
  end,
  send64k = function()
    local s = connect(sink)
    local cpu, wall = clock()
    for _ = 1, n do s:sendall(chunk) end
    return cpu, wall
  end,
  recv64k = function()
    local s, left = connect(source), n * 65536
    local cpu, wall = clock()
    while left > 0 do left = left - #s:recv(65536) end
    return cpu, wall
  end,
  recv_into64k = function()
    local s, left, buffer = connect(source), n * 65536, socket.buffer(65536)
    local cpu, wall = clock()
    while left > 0 do left = left - s:recv_into(buffer) end
    return cpu, wall
  end,
  fd_message = function()
    local a, b = socket.socketpair()
    local level, type, fd, size = socket.SOL_SOCKET, socket.SCM_RIGHTS, a:fileno(), socket.CMSG_SPACE(4)
    local pack, unpack = string.pack, string.unpack
    local cpu, wall = clock()
    for _ = 1, n do
      a:sendmsg({msg}, {{level, type, pack("i", fd)}})
      local _, items = b:recvmsg(64, size)
      socket.close((unpack("i", items[1].data)))
    end
    return cpu, wall
  end,
  connect = function()
    local address = {"127.0.0.1", tonumber(drop)}
    local cpu, wall = clock()
    for _ = 1, n do socket.socket():connect(address):close() end
    return cpu, wall
  end,
  accept = function()
    local s = socket.create_server({"127.0.0.1", 0}, {backlog = 4096})
    local control = connect(dial)
    control:sendall(("%d %d\n"):format(s:getsockname().port, n))
    assert(control:recv(3) == "ok\n")
    local cpu, wall = clock()
    for _ = 1, n do
      local conn = s:accept()
      conn:close()
    end
    return cpu, wall
  end,
  wouldblock_try = function()
    local s = connect(echo):settimeout(0)
    local cpu, wall = clock()
    for _ = 1, n do s:try_recv(64) end
    return cpu, wall
  end,
  wouldblock_pcall = function()
    local s = connect(echo):settimeout(0)
    local recv, pcall = s.recv, pcall
    local cpu, wall = clock()
    for _ = 1, n do pcall(recv, s, 64) end
    return cpu, wall
  end,
  memory_udp = function() memory(socket.SOCK_DGRAM) end,
  memory_tcp = function() memory(socket.SOCK_STREAM) end,
}

local cpu, wall = workloads[what]()
if cpu then
  local cpu2, wall2 = clock()
  print(("%.9f %.9f"):format(cpu2 - cpu, wall2 - wall))
end
