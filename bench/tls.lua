-- tls.lua: the workloads of tls.c with this library. lua5.4 bench/tls.lua <workload> <n>
local socket = require "socket"
local bare = require "bare"
local ssl, clock = socket.ssl, bare.clock

local what, n = arg[1], tonumber(arg[2])
local echo, sink, source, hold, dial = os.getenv("BENCH_TLS_PORTS"):match "^(%d+) (%d+) (%d+) (%d+) (%d+)$"
local V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

local function client_context(version)
  local ctx = ssl.create_default_context {cafile = "bench/build/ca.pem"}
  ctx.minimum_version, ctx.maximum_version = version, version
  return ctx
end

local function connect(port) return socket.socket():connect {"127.0.0.1", tonumber(port)} end

local function client(ctx, port, session)
  return ctx:wrap_socket(connect(port), {server_hostname = "localhost", session = session})
end

local function handshakes(version)
  local ctx = client_context(version)
  local cpu, wall = clock()
  for _ = 1, n do client(ctx, echo):close() end
  return cpu, wall
end

local function resumptions(version)
  local ctx = client_context(version)
  local s = client(ctx, echo)
  s:sendall "x"
  assert(s:recv(1) == "x")
  local session = s.session
  s:close()
  local cpu, wall = clock()
  for _ = 1, n do
    s = client(ctx, echo, session)
    assert(s.session_reused)
    s:close()
  end
  return cpu, wall
end

local function accepts(version)
  local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  ctx:load_cert_chain("bench/build/server.pem", "bench/build/server.key")
  local listener = socket.create_server {"127.0.0.1", 0}
  local options = {server_side = true}
  connect(dial):sendall(("%d %d %d\n"):format(listener:getsockname().port, n, version))
  local cpu, wall = clock()
  for _ = 1, n do ctx:wrap_socket(listener:accept(), options):close() end
  return cpu, wall
end

local function receives(size)
  local s, left = client(client_context(V13), source), n * size
  local cpu, wall = clock()
  while left > 0 do left = left - #s:recv(size) end
  return cpu, wall
end

local function sends(size)
  local s, data = client(client_context(V13), sink), ("x"):rep(size)
  local cpu, wall = clock()
  for _ = 1, n do s:sendall(data) end
  return cpu, wall
end

-- Bytes of malloc a connection, then those of Lua's heap beyond a plain socket's.
local function memory()
  local ctx, all = client_context(V13), {}
  for i = 1, n do all[i] = false end
  client(ctx, hold):close()
  local function count(f)
    for i = 1, n do all[i] = false end
    collectgarbage()
    collectgarbage()
    local whole, heap = bare.malloced(), collectgarbage "count" * 1024
    for i = 1, n do all[i] = f() end
    collectgarbage()
    collectgarbage()
    whole, heap = (bare.malloced() - whole) // n, (collectgarbage "count" * 1024 - heap) // n | 0
    for i = 1, n do all[i]:close() end
    return whole, heap
  end
  local _, plain = count(socket.socket)
  local whole, heap = count(function() return client(ctx, hold) end)
  print(whole, heap - plain)
end

local workloads = {
  handshake13 = function() return handshakes(V13) end,
  handshake12 = function() return handshakes(V12) end,
  accept13 = function() return accepts(V13) end,
  accept12 = function() return accepts(V12) end,
  resume13 = function() return resumptions(V13) end,
  resume12 = function() return resumptions(V12) end,
  recv16k = function() return receives(16384) end,
  recv256k = function() return receives(262144) end,
  recv_into256k = function()
    local s, left, buffer = client(client_context(V13), source), n * 262144, socket.buffer(262144)
    local cpu, wall = clock()
    while left > 0 do left = left - s:recv_into(buffer) end
    return cpu, wall
  end,
  send16k = function() return sends(16384) end,
  send256k = function() return sends(262144) end,
  memory = memory,
}

local cpu, wall = workloads[what]()
if cpu then
  local cpu2, wall2 = clock()
  print(("%.9f %.9f"):format(cpu2 - cpu, wall2 - wall))
end
