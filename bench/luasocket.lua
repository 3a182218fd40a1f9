-- luasocket.lua: every workload with LuaSocket. lua5.4 bench/luasocket.lua <workload> <n>
local socket = require "socket"
local clock = require "bare".clock
assert(tostring(socket._VERSION):find "LuaSocket", "this is not LuaSocket")

local what, n = arg[1], tonumber(arg[2])
local echo, sink, source, drop, dial, udp, late, lines =
  os.getenv("BENCH_PORTS"):match "^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$"
local msg, chunk = ("x"):rep(64), ("x"):rep(65536)

local function connect(port, timeout)
  local s = assert(socket.tcp4())
  assert(s:connect("127.0.0.1", port))
  if timeout then s:settimeout(timeout) end
  return s
end

local function roundtrip(s)
  local cpu, wall = clock()
  for _ = 1, n do
    s:send(msg)
    s:receive(64)
  end
  return cpu, wall
end

local function recv_ready(s)
  os.execute "sleep 0.05"
  local cpu, wall = clock()
  for _ = 1, n do s:receive(64) end
  return cpu, wall
end

local function read_lines()
  local s = connect(lines)
  local cpu, wall = clock()
  for _ = 1, n do s:receive "*l" end
  return cpu, wall
end

local function would_block()
  local s = connect(echo, 0)
  local cpu, wall = clock()
  for _ = 1, n do s:receive(64) end
  return cpu, wall
end

local function memory(new)
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
  for i = 1, n do all[i] = assert(new()) end
  rss = resident() - rss
  collectgarbage()
  print(rss // n, (collectgarbage "count" - heap) * 1024 // n | 0)
  for i = 1, n do all[i]:close() end
end

local workloads = {
  roundtrip = function() return roundtrip(connect(echo)) end,
  roundtrip_t = function() return roundtrip(connect(echo, 5)) end,
  late = function() return roundtrip(connect(late)) end,
  late_t = function() return roundtrip(connect(late, 5)) end,
  recv_ready = function() return recv_ready(connect(source)) end,
  recv_ready_t = function() return recv_ready(connect(source, 5)) end,
  udp = function()
    local s = assert(socket.udp4())
    assert(s:setpeername("127.0.0.1", udp))
    return roundtrip(s)
  end,
  udp_to = function()
    local s = assert(socket.udp4())
    local cpu, wall = clock()
    for _ = 1, n do
      s:sendto(msg, "127.0.0.1", udp)
      s:receivefrom(64)
    end
    return cpu, wall
  end,
  send64k = function()
    local s = connect(sink)
    local cpu, wall = clock()
    for _ = 1, n do s:send(chunk) end -- sends all of it
    return cpu, wall
  end,
  recv64k = function()
    local s = connect(source)
    local cpu, wall = clock()
    for _ = 1, n do s:receive(65536) end -- receives all of it
    return cpu, wall
  end,
  lines_read = read_lines,
  lines_for = read_lines,
  connect = function()
    local cpu, wall = clock()
    for _ = 1, n do connect(drop):close() end
    return cpu, wall
  end,
  accept = function()
    local s = assert(socket.bind("127.0.0.1", 0, 4096))
    local _, port = s:getsockname()
    local control = connect(dial)
    control:send(("%d %d\n"):format(port, n))
    assert(control:receive(3) == "ok\n")
    local cpu, wall = clock()
    for _ = 1, n do
      local conn = s:accept()
      conn:close()
    end
    return cpu, wall
  end,
  wouldblock_try = would_block,
  wouldblock_pcall = function() -- LuaSocket's own way to raise and catch
    local s = connect(echo, 0)
    local receive = socket.protect(function() return socket.try(s:receive(64)) end)
    local cpu, wall = clock()
    for _ = 1, n do receive() end
    return cpu, wall
  end,
  memory_udp = function() memory(socket.udp4) end,
  memory_tcp = function() memory(socket.tcp4) end,
}

local cpu, wall = workloads[what]()
if cpu then
  local cpu2, wall2 = clock()
  print(("%.9f %.9f"):format(cpu2 - cpu, wall2 - wall))
end
