-- The second half of fuzz.lua, which starts it: tasks, groups, queues, timers, selectors, servers, TLS and files
-- in tasks, used as nobody would: coroutines of tasks resumed and closed by others, loops closed at odd moments,
-- sockets closed while others wait, finalizers and callbacks that wait. Nothing is expected but to live, and to
-- give descriptors back.

local first, calls = tonumber(arg[1]), tonumber(arg[3]) or 3000

local socket = require "socket"
local loop = require "socket.loop"
local selectors = require "socket.selectors"
local server = require "socket.server"
local ssl = require "socket.ssl"

math.randomseed(first)
warn "@off"
local random = math.random
local trace = os.getenv "FUZZ_TRACE"
local function one(list) return list[random(#list)] end
local function chance(n) return random(n) == 1 end

local mode = random(3)
if mode == 1 then collectgarbage "generational" end
if mode == 2 then collectgarbage("incremental", 1, 1000, 1) end
socket.setdefaulttimeout(0.002)

-- Things of each kind, alive and dead; new ones take the places of old ones.
local pool = {}
local function put(kind, v)
  local list = pool[kind] or {}
  pool[kind] = list
  list[#list < 12 and #list + 1 or random(#list)] = v
  return v
end
local function get(kind) return pool[kind] and one(pool[kind]) end

local function odd()
  return one {0, 1, -1, 0.0005, 0 / 0, 1 / 0, -1 / 0, 1 << 31, "x", "", {}, print, io.stdout, true, math.mininteger,
    get "socket", get "reactor", get "co", get "selector", get "task", coroutine.running()}
end
local function odds() return table.unpack({odd(), odd(), odd()}, 1, random(0, 3)) end
local function little() return one {0, 0, 0.0002, 0.001} end

local functions = {}
for name, f in pairs(socket.reactor) do if type(f) == "function" then functions[#functions + 1] = name end end
table.sort(functions)

local work

-- As a task, a callback or a finalizer: some work, mostly caught.
local depth = 0
local function body(n)
  return function()
    local before = depth
    if depth > 3 then return end
    depth = depth + 1
    for _ = 1, n do
      if chance(8) then work() else pcall(work) end
    end
    depth = before
    if chance(6) then error(odd(), 0) end
    return odds()
  end
end
local function some() return body(random(4)) end

local function ctx(side)
  local c = ssl.SSLContext(side and ssl.PROTOCOL_TLS_SERVER or ssl.PROTOCOL_TLS_CLIENT)
  c.check_hostname = false
  c.verify_mode = ssl.CERT_NONE
  c.maximum_version = ssl.TLSVersion.TLSv1_2
  c:set_ciphers "PSK"
  local meddle = chance(3)
  local function key()
    if meddle then pcall(work) end
    return "key"
  end
  if side then
    c:set_psk_server_callback(function() return key() end)
  else
    c:set_psk_client_callback(function() return "me", key() end)
  end
  return c
end
local client, serving = ctx(false), ctx(true)

local acts = {
  pair = function()
    local a, b = socket.socketpair(socket.AF_UNIX, chance(4) and socket.SOCK_DGRAM or socket.SOCK_STREAM)
    put("socket", a)
    put("socket", b)
    a:send(("line\n"):rep(random(0, 50)))
  end,
  tcp = function()
    local l <close> = socket.create_server {"127.0.0.1", 0}
    put("socket", socket.create_connection(l:getsockname()))
    put("socket", l:accept())
  end,
  recv = function() return get "socket":recv(random(0, 100)) end,
  again = function() return get "socket":recv_into(socket.buffer(random(50))) end,
  send = function() return get "socket":sendall(("y"):rep(one {1, 100, 300000})) end,
  timeout_of = function() get "socket":settimeout(one {0, 0.001, 0.002}) end,
  close = function() get "socket":close() end,
  detach = function() socket.close(get "socket":detach()) end,
  dup = function() put("socket", get "socket":dup()) end,
  same = function() put("socket", socket.fromfd(get "socket":fileno(), socket.AF_UNIX, socket.SOCK_STREAM)) end,
  wait = function() return loop.wait(one {get "socket", get "socket":fileno(), odd()}, one {"r", "w"}, little()) end,
  accept = function() put("socket", get "socket":accept()) end,
  file = function() put("file", get "socket":makefile(one {"r", "w", "rw"}, one {nil, 0, 1, 10})) end,
  read = function() return get "file":read(one {"l", "n", "a", 3, "L"}) end,
  write = function() return get "file":write "some\n":flush() end,
  shut_file = function() get "file":close() end,
  lookup = function() return socket.getaddrinfo("127.0.0.1", "80") end,

  loop = function() put("loop", loop.new()) end,
  spawn = function() put("task", one {loop.spawn, function(f) return get "loop":spawn(f) end}(some())) end,
  step = function() return get "loop":step(little()) end,
  step_soon = function() return get "loop":step(0) end,
  shut = function() get "loop":close() end,
  scope = function()
    local l <close> = loop.new()
    put("task", l:spawn(some()))
    l:step(0)
  end,
  after = function() put("timer", get "loop":after(little(), some())) end,
  after_raw = function() put("timer", get "reactor":after(little(), some())) end,
  untimer = function() get "timer":cancel() end,
  join = function() return get "task":join(one {0.001, 0, -1, 0 / 0, "x"}) end,
  cancel = function() return get "task":cancel() end,
  sleep = function() socket.sleep(little()) end,
  timeout = function() return loop.timeout(little(), some()) end,
  group = function()
    return loop.group(function(g)
      put("group", g)
      for _ = 1, random(3) do put("task", g:spawn(some())) end
      pcall(work)
    end)
  end,
  group_late = function() return get "group":spawn(some()) end,
  group_cancel = function() get "group":cancel() end,
  queue = function() put("queue", loop.queue(one {1, 2, nil})) end,
  put = function() get "queue":put(odd(), little()) end,
  get = function() return get "queue":get(little()) end,
  queue_end = function() get "queue":close() end,
  event = function() put("event", loop.event()) end,
  event_wait = function() return get "event":wait(little()) end,
  event_set = function() get "event":set() end,

  coroutine = function() put("co", coroutine.create(some())) end,
  note = function()
    local task = loop.current() or get "task"
    put("co", task.co)
  end,
  below = function() return loop.resume(get "co", odds()) end,
  resume = function() return coroutine.resume(get "co", odds()) end,
  resume_task = function() return coroutine.resume(get "task".co, odds()) end,
  close_co = function() return coroutine.close(one {get "co", get "task".co}) end,
  wrap = function() return loop.wrap(some())(odds()) end,
  nested = function() return coroutine.wrap(some())() end,
  yield = function() if coroutine.isyieldable() then coroutine.yield(odds()) end end,
  sort = function() table.sort({3, 1, 2}, function(a, b) pcall(work) return a < b end) end,
  gsub = function() return ("abc"):gsub(".", function() pcall(work) end) end,
  scoped = function() local _ <close> = setmetatable({}, {__close = some()}) pcall(work) end,
  finalizer = function() setmetatable({}, {__gc = some()}) end,
  collect = function() collectgarbage(one {"collect", "step"}) end,
  forget = function()
    local list = pool[one {"socket", "loop", "task", "co", "reactor", "selector"}]
    list[random(#list)] = nil
  end,

  reactor = function() put("reactor", socket.reactor.new(one {some(), print == nil and odd() or function() end})) end,
  add = function() get "reactor":add(one {coroutine.create(some()), odd()}, odds()) end,
  raw = function()
    local r = one {get "reactor", get "loop".reactor}
    local name = one {"wake", "throw", "retract", "state", "counts", "timeout", "fileno"}
    return r[name](one {r, odd()}, one {get "co", get "task".co, odd()}, odds())
  end,
  turn = function() return get "reactor":turn(one {0, little()}) end,
  close_reactor = function() get "reactor":close() end,
  loose = function()
    local name = one(functions)
    if name == "park" then return socket.reactor.park(one {0, 0.001, "x"}) end
    if name == "wait" then return socket.reactor.wait(odd(), "r", 0) end
    return put("reactor", socket.reactor[name](odds()))
  end,

  selector = function() put("selector", selectors[one {"DefaultSelector", "PollSelector"}]()) end,
  register = function()
    put("key", get "selector":register(one {get "socket", get "tls", get "loop", get "socket":fileno(),
      setmetatable({}, {__index = {fileno = function() pcall(work) return get "socket":fileno() end}})}, random(3)))
  end,
  unregister = function() get "selector":unregister(one {get "socket", get "tls", get "loop"}) end,
  modify = function() get "selector":modify(get "socket", random(0, 4), odd()) end,
  select = function()
    for _ in get "selector":select(little()) do if chance(3) then pcall(work) end end
  end,
  meddle = function()
    local key = get "key"
    key[one {"fileobj", "fd", "events"}] = odd()
  end,
  lists = function() return selectors.select({get "socket"}, {get "socket"}, {get "tls"}, little()) end,
  close_selector = function() get "selector":close() end,

  tls = function()
    local a, b = socket.socketpair()
    local options = {do_handshake_on_connect = false}
    put("tls", client:wrap_socket(a, options))
    options.server_side = true
    put("tls", serving:wrap_socket(b, options))
  end,
  shake = function() return get "tls":do_handshake() end,
  secure = function()
    local a, b = pool.tls[#pool.tls], pool.tls[#pool.tls - 1]
    for _ = 1, 4 do a:try_do_handshake() b:try_do_handshake() end
    put("socket", a)
    put("socket", b)
    a:send(("line\n"):rep(10))
  end,
  tls_recv = function() return get "tls":recv(random(100)) end,
  tls_send = function() return get "tls":sendall(("z"):rep(one {10, 50000})) end,
  tls_close = function() get "tls":close() end,
  unwrap = function() put("socket", get "tls":unwrap()) end,
  bio = function()
    local incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    local o = client:wrap_bio(incoming, outgoing)
    pcall(o.do_handshake, o)
    incoming:write(one {outgoing:read(), "rubbish"})
    pcall(o.do_handshake, o)
    return o:read(10)
  end,
  new_ctx = function() client, serving = ctx(false), ctx(true) end,

  server = function()
    local class = one {server.TCPServer, server.TaskTCPServer, server.UDPServer, server.TaskUDPServer}
    local s <close> = class({"127.0.0.1", 0}, function(request)
      pcall(work)
      if type(request) == "userdata" then request:try_recv(10) end
    end)
    s.handle_error = function() end
    put("server", s)
    local l <close> = loop.new()
    l:spawn(s.serve_forever, s, 0.001)
    l:spawn(function()
      local c = socket.socket(socket.AF_INET, class.socket_type)
      put("socket", c)
      c:connect(s.server_address)
      c:sendall "hello\n"
      if chance(2) then s:shutdown(0.001) end
    end)
    for _ = 1, random(10) do l:step(0.0005) end
  end,
  server_end = function() -- for ever, where nobody lets the server's loop run
    local s = get "server"
    if loop.current() then loop.timeout(0.001, s.shutdown, s, 0.001) else s:shutdown(0.001) end
  end,
  server_close = function() get "server":server_close() end,
}
local names = {}
for name in pairs(acts) do names[#names + 1] = name end
table.sort(names)

function work()
  local name = one(names)
  if trace then io.stderr:write((" "):rep(depth), name, "\n") end
  return acts[name]()
end

local function descriptors()
  local p = io.popen "ls /proc/$PPID/fd"
  local n = 0
  for _ in p:lines() do n = n + 1 end
  p:close()
  return n
end

local before = descriptors()
for i = 1, calls // 10 do
  if i % 20 == 1 then
    for _, name in ipairs {"pair", "pair", "tcp", "tls", "secure", "loop", "queue",
      "event", "coroutine", "reactor", "selector",
      "file"} do pcall(acts[name]) end
  end
  depth = 0
  pcall(one {work, function()
    local l = put("loop", loop.new())
    for _ = 1, random(6) do put("task", l:spawn(some())) end
    for _ = 1, random(12) do pcall(l.step, l, 0.0005) end
    if chance(2) then l:close() end
  end})
end
-- What is left is garbage now.
for kind in pairs(pool) do pool[kind] = nil end
client, serving, acts = nil, nil, nil
function work() end
for _ = 1, 8 do collectgarbage() end
local after = descriptors()
if after > before + 2 then -- a thread of name lookups may hold one
  io.stderr:write(("%d descriptors, %d before\n"):format(after, before))
  os.exit(3)
end
