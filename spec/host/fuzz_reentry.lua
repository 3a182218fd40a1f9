-- Calls back into the library from wherever it calls a script: wait hooks and wake functions, tasks, alarms and what
-- is told of ended coroutines, handlers of servers, callbacks of TLS, methods and metamethods of objects waited for,
-- iterators, and finalizers, with the collector at its most eager; also where the C stack or the Lua stack is nearly
-- used up, so that finalizers fail, and waits and callbacks with them. Errors are the expected outcome. What it looks
-- for is a crash, a sanitizer's report, a hang, and a library that does not work any more afterwards.
--
--   lua5.4 spec/host/fuzz_reentry.lua [first seed [seeds [calls]]]     (LSOCKET_LUA: the Lua of the children)
--
-- Each seed is a child process in a network namespace of its own and in an empty folder; FUZZ_TRACE=1 lets it say what
-- it calls. A seed's calls are the same each time, but for what depends on time.

local first, seeds, calls = tonumber(arg[1]) or 1, tonumber(arg[2]) or 10, tonumber(arg[3]) or 1500

if not os.getenv "FUZZ_CHILD" then
  local program = os.getenv "LSOCKET_LUA" or arg[-1]
  local here = io.popen "pwd":read()
  local script = arg[0]:sub(1, 1) == "/" and arg[0] or here .. "/" .. arg[0]
  local failed = 0
  for seed = first, first + seeds - 1 do
    local command = ("d=$(mktemp -d) && cd $d && FUZZ_CHILD=1 timeout -s ABRT 120 unshare -n sh -c "
      .. "'ip link set lo up; exec \"$0\" \"$@\"' %s %s %d 1 %d </dev/null; s=$?; cd / && rm -rf $d; exit $s"):format(
      program, script, seed, calls)
    local ok, _, status = os.execute(command)
    if not ok then
      failed = failed + 1
      print(("seed %d: status %d"):format(seed, status))
    end
  end
  print(("%d of %d runs failed"):format(failed, seeds))
  os.exit(failed == 0)
end

local socket = require "socket"
local loop = require "socket.loop"
local selectors = require "socket.selectors"
local server = require "socket.server"
local ssl = require "socket.ssl"
local reactor = socket.reactor

math.randomseed(first)
warn "@off"
local random = math.random
local trace = os.getenv "FUZZ_TRACE"
local function one(list) return list[random(#list)] end
local function chance(n) return random(n) == 1 end

local stop = socket.monotonic() + 30 -- of a slow seed, what is left is left out
socket.setdefaulttimeout(0.002)
-- Collections at each allocation take their time: some seeds have them always, others now and then.
local always = chance(8)

---------------------------------------------------------------- things

local pool, kinds = {}, {}
local function put(kind, v)
  local list = pool[kind]
  if not list then
    list = {}
    pool[kind] = list
    kinds[#kinds + 1] = kind
  end
  list[#list < 8 and #list + 1 or random(#list)] = v
  return v
end
local function get(kind) return pool[kind] and one(pool[kind]) end

local function little() return one {0, 0, 0.0002, 0.001} end

-- What a result is, by a method that only such things have.
local SIGNS = {{"recv", "socket"}, {"setvbuf", "file"}, {"view", "buffer"}, {"register", "selector"},
  {"retract", "reactor"}, {"wrap_bio", "ctx"}, {"getpeercert", "object"}, {"write_eof", "bio"}, {"spawn", "loop"},
  {"put", "queue"},
  {"isset", "event"}, {"join", "task"}, {"cancel", "timer"}}
local function keep(v)
  if type(v) == "thread" then put("co", v) end
  if type(v) ~= "userdata" and not (type(v) == "table" and getmetatable(v)) then return end
  for _, sign in ipairs(SIGNS) do
    local ok, f = pcall(function() return v[sign[1]] end)
    if ok and f then return put(sign[2] == "loop" and rawget(v, "owner") and "group" or sign[2], v) end
  end
  if not socket.iserror(v) then put("other", v) end
end

local enter

-- Objects that do something when they are asked.
local function odd_object()
  return setmetatable({}, {
    __index = function(_, key)
      enter "index"
      if key == "fileno" or key == "getfd" then
        return function()
          enter(key)
          local s = get "socket"
          return s and s:fileno() or one {-1, 0.5, "x"}
        end
      end
    end,
    __len = function() enter "len" return random(0, 3) end,
    __tostring = function() enter "tostring" return "x" end,
    __eq = function() enter "eq" return chance(2) end,
    __close = function() enter "close" end,
  })
end

local function callback(name)
  return function(...)
    enter(name)
    if chance(8) then error(odd_object(), 0) end
    return one {true, false, 1, "key", select(random(math.max(1, select("#", ...))), nil, ...)}
  end
end

local generators = {
  function() return get(one(kinds)) end, function() return get(one(kinds)) end, function() return get "socket" end,
  function() return get "buffer" end, function() return callback "callback" end, odd_object,
  function() return one {0, 1, 2, 3, 7, 100, -1, 0.001, 0 / 0, 4096, 1 << 31} end,
  function() return one {"", "r", "w", "rw", "l", "n", "a", "x", "line", "full", "127.0.0.1", ("y"):rep(3000)} end,
  function() return one {true, false} end,
  function() return {get "socket", get "socket", get "buffer"} end,
  function() return {"127.0.0.1", random(0, 9)} end,
  function() return {{socket.SOL_SOCKET, socket.SCM_RIGHTS, ""}} end,
  function() return {server_side = chance(2), do_handshake_on_connect = false} end,
  function() return coroutine.running() end,
}
local function some() return one(generators)() end
local function several() return table.unpack({some(), some(), some(), some()}, 1, random(0, 4)) end

---------------------------------------------------------------- calls

-- Methods by kind, functions by module.
local function names(t)
  local list = {}
  for name, f in pairs(t) do if type(f) == "function" and name:find "^%a" then list[#list + 1] = name end end
  table.sort(list)
  return list
end
local METHODS = {
  socket = names(socket.SocketType), object = names(ssl.SSLObject),
  file = {"read", "lines", "write", "flush", "close", "setvbuf", "seek", "fileno", "try_read", "try_write"},
  buffer = {"sub", "byte", "set", "view", "find", "pack", "unpack"},
  selector = {"register", "unregister", "modify", "get_key", "get_map", "fileno", "close"},
  reactor = {"add", "wake", "throw", "retract", "state", "counts", "timeout", "fileno", "close"},
  loop = {"spawn", "after", "fileno", "timeout", "current", "close"},
  task = {"cancel"}, group = {"spawn", "cancel"}, queue = {"put", "get", "close"}, event = {"set", "clear", "isset"},
  timer = {"cancel"}, bio = {"read", "write", "write_eof"},
  ctx = {"cert_store_stats", "get_ca_certs", "get_ciphers", "session_stats", "set_alpn_protocols", "set_ciphers",
    "set_ciphersuites", "set_groups", "wrap_bio", "wrap_socket", "load_cert_chain", "load_verify_locations"},
}
local FIELDS = {"sni_callback", "check_hostname", "verify_mode", "minimum_version", "session", "context", "options"}
local modules = {socket, socket, socket, selectors, reactor, ssl, loop}

-- What would close what is not ours, wait for long, or change the machine, is called otherwise.
local SAFE = {
  close = function() local s = get "socket" return s and socket.try_dup(s:fileno()) or -1 end,
  fromfd = function() local s = get "socket" return s and s:fileno() or -1, socket.AF_UNIX, socket.SOCK_STREAM end,
  dup = function() return -1 end,
  sethostname = function() return {} end,
  setdefaulttimeout = function() return one {0, 0.001, 0.002} end,
  sleep = little,
  buffer = function() return one {0, 10, 5000, "text"} end,
  setwaithook = function()
    return one {callback "hook", function() enter "hook" return coroutine.isyieldable() and coroutine.yield() end},
      callback "wake"
  end,
  select = function() return {get "socket", odd_object()}, {get "socket"}, {}, little() end,
  wait = function() return one {get "socket", odd_object()}, one {"r", "w"}, little() end,
  timeout = function() return little(), callback "timed" end,
  run = function() return callback "run" end,
  park = little,
  get_server_certificate = function() return {"127.0.0.1", 1} end,
}
local SAFE_METHOD = {
  settimeout = function() return one {0, 0.001} end,
  setblocking = function() return false end,
  setsockopt = function() return socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1 end,
  put = function() return some(), little() end,
  get = little,
}

local function results(name, ok, ...)
  if not ok then return keep((...)) end
  for i = 1, math.min(select("#", ...), 4) do keep((select(i, ...))) end
  local value, list = ...
  if (name == "detach" or name == "dup") and math.type(value) == "integer" then socket.try_close(value) end
  if name == "recv_fds" and type(list) == "table" then for _, fd in ipairs(list) do socket.try_close(fd) end end
  if name == "lines" and type(value) == "function" then pcall(value) end
end

local function with(safe, name, ...)
  local plain = name:gsub("^try_", "")
  if safe[plain] then return safe[plain]() end
  return ...
end

local function body(n)
  return function(...)
    for _ = 1, n do enter "task" end
    if chance(6) then error(some(), 0) end
    if chance(6) and coroutine.isyieldable() then coroutine.yield(several()) end
    return ...
  end
end
local function function_of_few() return body(random(3)) end

local function pair()
  local a, b = socket.socketpair(socket.AF_UNIX, chance(6) and socket.SOCK_DGRAM or socket.SOCK_STREAM)
  a:try_send(("line\n"):rep(random(0, 20)))
  put("socket", a)
  put("socket", b)
  return a, b
end

local function context(side)
  local c = ssl.SSLContext(side and ssl.PROTOCOL_TLS_SERVER or ssl.PROTOCOL_TLS_CLIENT)
  c.check_hostname = false
  c.verify_mode = ssl.CERT_NONE
  if chance(2) then c.maximum_version = ssl.TLSVersion.TLSv1_2 end
  c:set_ciphers "PSK"
  local function key() enter "psk" return "key" end
  if side then
    c:set_psk_server_callback(function() return key() end)
    c.sni_callback = function(s) keep(s) enter "sni" end
  else
    c:set_psk_client_callback(function() return "me", key() end)
  end
  return put("ctx", c)
end

-- Calls f where only a few calls of C functions, or values on the Lua stack, find room.
local function deep(k, f)
  if k == 0 then return f() end
  return (string.gsub("x", "x", function() deep(k - 1, f) end))
end
local eager
local many = {}
local function on_full_stack(f)
  local function down(...) -- whose arguments stay on the stack
    return f(), ...
  end
  eager(false) -- a collection looks at all of it
  if #many == 0 then for i = 1, 1000000 do many[i] = false end end
  return coroutine.wrap(function() return pcall(down, table.unpack(many, 1, 999800 + random(190))) end)()
end

local acts = {
  method = function()
    local kind = one(kinds)
    if not METHODS[kind] then return end
    local name = one(METHODS[kind])
    local o = get(kind)
    return results(name, pcall(o[name], o, with(SAFE_METHOD, name, several())))
  end,
  call = function()
    local m = one(modules)
    local list = names(m)
    local name = one(list)
    return results(name, pcall(m[name], with(SAFE, name, several())))
  end,
  field = function() get(one {"ctx", "object", "socket"})[one(FIELDS)] = one {some(), callback "field"} end,
  pair = pair,
  fds = function()
    local a, b = pair()
    socket.send_fds(a, "x", {a, b})
    local _, items = b:recvmsg(10, 100)
    if chance(2) then put("rights", items[1]) end
  end,
  data = function() return get "rights".data end, -- theirs to lose
  coroutine = function() put("co", coroutine.create(function_of_few())) end,
  resume = function() return coroutine.resume(get "co", several()) end,
  below = function() return loop.resume(get "co", several()) end,
  close = function() return coroutine.close(get "co") end,
  wrap = function() return loop.wrap(function_of_few())(several()) end,
  waiting = function()
    local s = get "socket"
    put("co", coroutine.wrap(function() s:recv(1) end) and coroutine.create(function() return s:recv(10) end))
    return coroutine.resume(get "co")
  end,

  reactor = function() put("reactor", reactor.new(callback "ended")) end,
  add = function() get "reactor":add(one {get "co", coroutine.create(function_of_few())}, several()) end,
  after = function() put("timer", get "reactor":after(little(), callback "alarm")) end,
  turn = function() return get "reactor":turn(little()) end,
  loop = function() put("loop", loop.new()) end,
  spawn = function() put("task", get "loop":spawn(function_of_few(), several())) end,
  note = function() put("co", get "task".co) end,
  step = function() return get "loop":step(little()) end,
  onerror = function() get "loop".onerror = callback "onerror" end,
  join = function() return get "task":join(little()) end,
  group = function() return loop.group(function(g) put("group", g) g:spawn(function_of_few()) enter "group" end) end,
  timed = function() return loop.timeout(little(), function_of_few()) end,
  event = function() return get "event":wait(little()) end,

  selector = function() put("selector", selectors[one {"DefaultSelector", "PollSelector"}]()) end,
  register = function() get "selector":register(one {get "socket", odd_object()}, random(3), some()) end,
  select = function() for key in get "selector":select(little()) do keep(key) enter "select" end end,
  lines = function() for _ in get "file":lines(random(4)) do enter "lines" end end,
  file = function() put("file", get "socket":makefile(one {"r", "w", "rw"}, one {nil, 0, 1, 10})) end,
  sort = function() table.sort({3, 1, 2}, function(a, b) enter "sort" return a < b end) end,
  scope = function() local _ <close> = odd_object() enter "scope" end,

  contexts = function() return context(false), context(true) end,
  tls = function()
    local a, b = pair()
    local client, serving = context(false), context(true)
    local x = client:wrap_socket(a, {do_handshake_on_connect = false, server_hostname = "localhost"})
    local y = serving:wrap_socket(b, {do_handshake_on_connect = false, server_side = true})
    put("socket", x)
    put("socket", y)
    for _ = 1, random(0, 6) do
      pcall(x.try_do_handshake, x)
      pcall(y.try_do_handshake, y)
    end
    pcall(x.try_send, x, "hello\nworld\n")
  end,
  shake = function() return get "socket":do_handshake() end,
  unwrap = function() put("socket", get "socket":unwrap()) end,
  bio = function()
    local incoming, outgoing = put("bio", ssl.MemoryBIO()), put("bio", ssl.MemoryBIO())
    put("object", context(false):wrap_bio(incoming, outgoing))
    incoming:write(one {outgoing:read(), "rubbish"})
  end,
  password = function() get "ctx":load_cert_chain("none", nil, callback "password") end,

  server = function()
    local class = one {server.TCPServer, server.TaskTCPServer, server.UDPServer, server.TaskUDPServer}
    local s <close> = class({"127.0.0.1", 0}, function(request)
      keep(request)
      enter "handler"
    end)
    for _, name in ipairs {"handle_error", "verify_request", "service_actions", "finish_request"} do
      if chance(3) then s[name] = callback(name) end
    end
    s.handle_error = s.handle_error and function() enter "handle_error" end
    local l <close> = loop.new()
    l.onerror = function() end
    l:spawn(s.serve_forever, s, 0.001)
    l:spawn(function()
      local c = put("socket", socket.socket(socket.AF_INET, class.socket_type))
      c:connect(s.server_address)
      c:sendall "hello\n"
      if chance(2) then s:shutdown(0.001) end
    end)
    for _ = 1, random(8) do pcall(l.step, l, 0.0005) end
  end,

  finalizer = function() setmetatable({}, {__gc = function() enter "finalizer" end}) end,
  kept = function() -- garbage together with what it uses
    local things = {get "loop", get "reactor", get "socket", get "co"}
    setmetatable(things, {__gc = function()
      for _, v in ipairs(things) do keep(v) end
      enter "finalizer"
    end})
  end,
  forget = function()
    local list = pool[one(kinds)]
    list[random(#list)] = list[#list]
    list[#list] = nil
    if #list == 0 then list[1] = odd_object() end
  end,
  collect = function() collectgarbage(one {"collect", "step"}) end,
  deep = function() return deep(one {150, 185 + random(14), 185 + random(14)}, function() enter "deep" end) end,
  deep_collect = function() return deep(185 + random(14), collectgarbage) end,
  full_stack = function() if chance(10) then return on_full_stack(function() enter "full stack" end) end end,
}
local list = names(acts)

---------------------------------------------------------------- what calls them

-- A finalizer that arms itself again; with a collection at each allocation, one of them runs at each.
local armed, over = 0, false
local function arm()
  armed = armed + 1
  setmetatable({}, {__gc = function()
    armed = armed - 1
    if over then return end
    if armed < 2 then arm() end
    if chance(20) then enter "trap" end
  end})
end

function eager(on)
  if not on then return collectgarbage("incremental", 200, 100, 13) end
  if chance(4) then
    collectgarbage("generational", one {1, 20}, one {1, 100})
  else
    collectgarbage("incremental", 1, 1000, one {1, 30})
  end
  collectgarbage "restart" -- from now on, not when memory has doubled
end

local depth, budget = 0, 0
function enter(where)
  if depth > 4 or budget <= 0 then return end
  local before = depth
  depth, budget = depth + 1, budget - 1
  local name = one(list)
  if trace then io.stderr:write((" "):rep(depth), where, ": ", name, "\n") end
  local raises = chance(12)
  local ok, e = pcall(acts[name])
  depth = before
  if not ok and raises then error(e, 0) end
end

for _, name in ipairs {"pair", "contexts", "bio", "reactor", "loop", "selector", "coroutine", "file", "tls"} do
  pcall(acts[name])
end
put("queue", loop.queue(1))
put("event", loop.event())
if always then eager(true) end
arm()
for _ = 1, calls do
  if socket.monotonic() > stop then break end
  local squeeze = always or chance(3)
  depth, budget = 0, 25
  if armed == 0 then arm() end
  if squeeze and not always then eager(true) end
  pcall(enter, "main")
  if squeeze and not always then eager(false) end
  if chance(30) then socket.setwaithook(nil) end
end

---------------------------------------------------------------- does it still work?

eager(false)
over, budget = true, 0
socket.setwaithook(nil)
socket.setdefaulttimeout(5)
pool, kinds = {}, {}
for _ = 1, 6 do pcall(collectgarbage) end
local got = {}
loop.run(function()
  local a, b = socket.socketpair()
  loop.spawn(function() for i = 1, 5 do loop.sleep(0.0001) a:send(("%d\n"):format(i)) end a:close() end)
  local f <close> = b:makefile "r"
  for line in f:lines() do got[#got + 1] = line end
  b:close()
end)
assert(table.concat(got) == "12345", table.concat(got, ","))
