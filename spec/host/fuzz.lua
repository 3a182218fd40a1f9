-- Calls everything the module has with arguments nobody means, in coroutines
-- and out of them, also from finalizers, wait hooks and metamethods. Errors are
-- the expected outcome; what it looks for is a crash, a sanitizer's report or a
-- hang.
--
--   lua5.4 spec/host/fuzz.lua [first seed [seeds [calls]]]     (LSOCKET_LUA: the Lua of the children)
--
-- Each seed is a child process in a network namespace of its own and in an empty
-- folder; FUZZ_TRACE=1 lets it say what it calls.

local first, seeds, calls = tonumber(arg[1]) or 1, tonumber(arg[2]) or 10, tonumber(arg[3]) or 3000

if not os.getenv "FUZZ_CHILD" then
  local program = os.getenv "LSOCKET_LUA" or arg[-1]
  local here = io.popen "pwd":read()
  local script = arg[0]:sub(1, 1) == "/" and arg[0] or here .. "/" .. arg[0]
  local failed = 0
  for n = 2 * first, 2 * (first + seeds) - 1 do
    local seed, run = n // 2, n % 2 == 0 and script or script:gsub("fuzz%.lua$", "fuzz_loop.lua")
    local command = ("d=$(mktemp -d) && cd $d && FUZZ_CHILD=1 timeout 120 unshare -n sh -c "
      .. "'ip link set lo up; exec \"$0\" \"$@\"' %s %s %d 1 %d </dev/null; s=$?; cd / && rm -rf $d; exit $s"):format(
      program, run, seed, calls)
    local ok, _, status = os.execute(command)
    if not ok then
      failed = failed + 1
      print(("seed %d of %s: status %d"):format(seed, run:match "[^/]+$", status))
    end
  end
  print(("%d of %d runs failed"):format(failed, 2 * seeds))
  os.exit(failed == 0)
end

local socket = require "socket"
math.randomseed(first)
local random = math.random
local trace = os.getenv "FUZZ_TRACE"

local function one(list) return list[random(#list)] end
local function chance(n) return random(n) == 1 end

local mode = random(3)
if mode == 1 then collectgarbage "generational" end
if mode == 2 then collectgarbage("incremental", 1, 1000, 1) end
socket.setdefaulttimeout(0.001)

---------------------------------------------------------------- things to call with

local things = {} -- objects of the library, alive and closed
local function add(v)
  if type(v) ~= "userdata" and not (type(v) == "table" and chance(4)) then return end
  if #things < 60 then things[#things + 1] = v else things[random(#things)] = v end
end

local function kind_of(v)
  if type(v) ~= "userdata" or io.type(v) then return nil end
  if socket.iserror(v) then return "error" end
  for kind, method in pairs {socket = "recv", file = "setvbuf", buffer = "view"} do
    local ok, f = pcall(function() return v[method] end)
    if ok and f then return kind end
  end
  return "other"
end

local function some(kind)
  for _ = 1, 20 do
    local v = things[random(#things > 0 and #things or 1)]
    if kind_of(v) == kind then return v end
  end
end

local FAMILIES = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET}
local FORMS = {16, 17, 29, 30, 31, 38, 40, 42} -- families whose addresses are only packed
local TYPES = {socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW,
  socket.SOCK_STREAM | socket.SOCK_NONBLOCK}
local NUMBERS = {0, 1, 2, 3, 4, 7, 32, 64, 255, 256, 258, 8192, 1000, 4096, 65535, 65536, 70000, -1, -2,
  1 << 31, (1 << 31) - 1, 1 << 32,
  math.maxinteger, math.mininteger, 0.5, -0.0, 1e308, -1e308, 1 / 0, -1 / 0, 0 / 0, 3.0, 1e15}
local STRINGS = {"", "a", "\0", "\0abstract", "127.0.0.1", "::1", "fe80::1%lo", "localhost", "<broadcast>", "r", "w",
  "rw",
  "rw+", "n", "l", "L", "a", "line", "full", "no", "lo", "x\0y", "80", "http", "tcp", "0x10",
  "12:34:56:78:9A:BC", "sock",
  ("z"):rep(107), ("z"):rep(108), ("z"):rep(300), ("l\n"):rep(3000), ("y"):rep(100000), "<I4", "z",
  "1 2 3\n0x1p4\nnan\n"}
local KEYS = {"host", "port", "family", "path", "level", "type", "data", "source_address", "backlog", "reuse_port",
  "dualstack_ipv6", "flags", "proto", "op", "iv", "assoclen", "pid", "groups", "ifname"}

local FIELDS = {1, 2, 3, "level", "errno", "message", "code", "class", "where", "address", "errors", "sent"}

local anything, act

local function address()
  local s = chance(2) and some "socket"
  local ok, a = pcall(function() return s:getsockname() end)
  if ok and a and not chance(4) then
    if type(a) == "table" and chance(2) then a[1] = "localhost" end
    return a
  end
  return one {{"127.0.0.1", 0}, {"::1", 0}, {"localhost", random(0, 65535)}, {host = "", port = 1}, "sock", "\0x",
    {0, 0},    {"lo", 3}, {"127.0.0.1", 9, 0, 0}, {99, "raw"}, {"lo", 3, 0, 1, "abcdef"}, {1, 2}, {"hash", "sha1", 1},
    {"01:23:45:67:89:ab", 3}, {1, 2, 3, 4, 5}, {"unknown.invalid", 1}, {2130706433, 1}}
end

-- Whose metamethods and finalizers do something.
local function trap()
  local t = chance(2) and address() or {}
  if type(t) ~= "table" or getmetatable(t) ~= nil then t = {} end
  local function f(...)
    if chance(3) then error "trap" end
    if chance(3) then for k in pairs(t) do t[k] = nil end end
    act(1)
    return ...
  end
  return setmetatable(t, {__index = f, __len = f, __eq = f, __gc = f, __close = f, __tostring = f,
    __name = one(STRINGS)})
end

local function tbl(depth)
  local t = {}
  for _ = 1, random(0, 4) do
    if chance(2) then t[#t + 1] = anything(depth + 1) else t[one(KEYS)] = anything(depth + 1) end
  end
  if chance(10) then t[1] = t end
  return t
end

local function items()
  local list = {}
  for i = 1, random(0, 3) do
    list[i] = chance(4) and anything(1) or {socket.SOL_SOCKET, one {socket.SCM_RIGHTS, socket.SCM_RIGHTS, 7},
      one {"", string.pack("=i4", 1), string.pack("=i4i4", 1, 2), string.pack("=i4", -1), "abc"}}
  end
  return list
end

local generators = {
  function() return one(NUMBERS) end,
  function() return one(NUMBERS) end,
  function() return random(0, 200) end,
  function() return one(STRINGS) end,
  function() return one(STRINGS) end,
  function() return things[random(#things)] end,
  function() return things[random(#things)] end,
  function() return some "socket" end,
  function() return some "buffer" end,
  address, address, items,
  function(depth) return depth < 3 and tbl(depth) or nil end,
  function(depth) return depth < 3 and trap() or nil end,
  function() return one(FAMILIES) end,
  function() return one(TYPES) end,
  function() return one {true, false} end,
  function() return one {print, coroutine.create(print), io.stdout, socket, socket.error} end,
  function() local f = io.tmpfile() if f then f:write(one(STRINGS)) if chance(3) then f:close() end end return f end,
  function() return nil end,
}
function anything(depth) return one(generators)(depth or 0) end

---------------------------------------------------------------- what to call

local functions, methods = {}, {}
for name, f in pairs(socket) do
  if type(f) == "function" and not name:find "sethostname" then functions[#functions + 1] = name end
end
for name in pairs(socket.SocketType) do methods[#methods + 1] = name end
local FILE = {"read", "read", "read", "lines", "write", "write", "flush", "close", "setvbuf", "seek", "fileno",
  "try_read",  "try_write", "try_flush", "try_close"}
local BUFFER = {"sub", "byte", "set", "view", "find", "pack", "unpack"}
table.sort(functions)
table.sort(methods)

-- The same arguments, but such that nothing is closed that is not ours, nothing leaves the machine, and no wait is
-- long: of functions, and of methods.
local safe, safe_method = {}, {}
function safe.socket(family, type, proto)
  local n = math.tointeger(tonumber(family) or 0)
  if n and n > 2 and n ~= socket.AF_INET6 and n ~= socket.AF_UNIX and n ~= socket.AF_PACKET then
    family, proto = 99, nil
  end
  if n == socket.AF_NETLINK then family, proto = n, 0 end
  return family, type, proto
end
safe.socketpair = safe.socket
function safe.fromfd(_, ...)
  local s = some "socket"
  return s and s:fileno() or -1, safe.socket(...)
end
function safe.dup() return safe.fromfd() end
function safe.close()
  local s = some "socket"
  return s and s:fileno() >= 0 and socket.try_dup(s:fileno()) or -1
end
function safe.setdefaulttimeout() return one {0, 0.001, 0.002} end
function safe.buffer(n)
  if type(n) == "number" and n > 1e6 and n < 1e15 then return 1000 end
  return n
end
function safe.sleep() return one {0, 0.0001, 0 / 0, -1} end
function safe_method.settimeout(s, t) return s, (tonumber(t) or 1) > 0.002 and 0.001 or t end
function safe_method.setblocking(s) return s, false end
function safe.create_connection(a, _, options) return a, one {0, 0.001, 0.003, -1, "x"}, options end
function safe.create_server(a, o)
  if type(o) == "table" then
    local n = rawget(o, "family")
    if type(n) == "number" or type(n) == "string" then
      o.family = one {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
    end
  end
  return a, o
end
function safe_method.setsockopt(s, level, name, ...) -- not SO_LINGER, whose close may take long
  if math.tointeger(tonumber(name) or 0) == socket.SO_LINGER then name = socket.SO_KEEPALIVE end
  return s, level, name, ...
end
local hook, wake
function safe.setwaithook() if chance(3) then return nil end return hook, wake end

local function args_of(self)
  local n = random(0, 5)
  local args = {n = n}
  for i = 1, n do args[i] = anything() end
  if self ~= nil then
    table.insert(args, 1, self)
    args.n = n + 1
  end
  return args
end

local function keep_results(name, ok, ...)
  if trace then io.stderr:write("  -> ", tostring(ok), " ", select("#", ...), "\n") end
  if not ok then return chance(10) and add((...)) end
  local first_result, second = ...
  if (name == "dup" or name == "detach") and math.type(first_result) == "integer" then
    socket.try_close(first_result)
  elseif name == "recv_fds" and type(second) == "table" then
    for _, fd in ipairs(second) do if fd > 2 then socket.try_close(fd) end end
  end
  for i = 1, math.min(select("#", ...), 4) do
    local v = select(i, ...)
    add(v)
    if type(v) == "function" and name == "lines" then pcall(v) end
  end
end

local function call(name, f, args, harmless)
  local plain = name:gsub("^try_", "")
  if harmless and harmless[plain] then args = table.pack(harmless[plain](table.unpack(args, 1, args.n))) end
  if kind_of(args[1]) == "socket" and (args[1].timeout or 1) > 0.01 then args[1]:settimeout(0.001) end
  if trace then io.stderr:write(name, " ", args.n, " ", type(args[1]), " ", type(args[2]), "\n") end
  return keep_results(plain, pcall(f, table.unpack(args, 1, args.n)))
end

local depth = 0
function act(n)
  if depth > 3 then return end
  depth = depth + 1
  for _ = 1, n do
    local v = random(10)
    if v <= 3 then
      local name = one(functions)
      call(name, socket[name], args_of(), safe)
    elseif v <= 7 then
      local name = one(methods)
      call(name, socket.SocketType[name], args_of((not chance(20) and some "socket") or anything()), safe_method)
    elseif v == 8 then
      local o = some "file"
      local name = one(FILE)
      if o then call(name, o[name], args_of(chance(20) and anything() or o)) end
    elseif v == 9 then
      local o = some "buffer"
      local name = one(BUFFER)
      if o then call(name, o[name], args_of(chance(20) and anything() or o)) end
    else
      local o = chance(2) and some(one {"error", "other"}) or things[random(#things > 0 and #things or 1)]
      for _, f in ipairs {
        tostring,
        function() return o == anything() end,
        function() return #o end,
        function() return o[one(FIELDS)] end,
        function() return o:is(one {socket.error, socket.timeout, {}, 1}) end,
        function() o[anything()] = anything() end,
        function() return next(o, anything()) end,
      } do add(select(2, pcall(f, o))) end
    end
  end
  depth = depth - 1
end

---------------------------------------------------------------- coroutines

local tasks = {}

function hook(s, _, seconds)
  add(s)
  local v = random(12)
  if v == 1 then return nil end
  if v == 2 then return false end
  if v == 3 then error "hook" end
  if v == 4 then act(2) end
  if v == 5 then s:close() end
  if v == 6 then collectgarbage "step" end
  return coroutine.yield(seconds)
end

function wake() if chance(5) then error "wake" end act(1) end

local function task()
  if #tasks > 20 then
    local co = table.remove(tasks, random(#tasks))
    if coroutine.status(co) == "suspended" and chance(2) then coroutine.close(co) end
  end
  local co = coroutine.create(function() depth = 0 act(random(10)) end)
  tasks[#tasks + 1] = co
end

local function resume()
  local i = random(#tasks > 0 and #tasks or 1)
  local co = tasks[i]
  if not co or coroutine.status(co) == "running" then return end
  local before = depth
  if coroutine.status(co) == "dead" then
    table.remove(tasks, i)
  else
    coroutine.resume(co, one {true, true, false})
  end
  depth = before
end

local function feed() -- working pairs, with something to read
  local a, b = socket.socketpair(socket.AF_UNIX, chance(4) and socket.SOCK_DGRAM or socket.SOCK_STREAM)
  a:settimeout(0.001)
  b:settimeout(0.001)
  add(a)
  add(b)
  for _ = 1, 2 do
    socket.try_send_fds(a, {"x", "y"}, {a, b, io.stderr})
    local _, list = b:try_recvmsg(chance(2) and 1 or 20, chance(2) and 100 or 30, one {0, 0, 2, 32, 64, 256})
    add(type(list) == "table" and list[1])
  end
  socket.try_send_fds(a, "x", {a, b, 2})
  call("recv_fds", socket.recv_fds, {b, 10, 2, n = 3})
  a:try_sendmsg({"abc", socket.buffer "def"}, {{socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack("=i4", 2)}})
  if chance(2) then call("recvmsg_into", b.recvmsg_into, {b, {socket.buffer(2), socket.buffer(9)}, 40, n = 3}) end
  a:try_send(one(STRINGS))
  add(b:makefile(one {"r", "w", "rw"}, one {nil, 0, 1, 2, 100}))
  add(socket.buffer(random(0, 3000)))
  local form = one(FORMS)
  local ok, packed = pcall(socket.packaddr, form, address(), random(0, 7))
  if ok then add(socket.unpackaddr(packed:sub(1, random(2, 40)), random(0, 7))) end
  local server
  ok, server = pcall(socket.create_server, {"127.0.0.1", 0})
  if ok then
    add(server)
    for _ = 1, 2 do
      local host = one {"127.0.0.1", "localhost", "", ""}
      local _, c = pcall(socket.create_connection, {host, server:getsockname()[2]}, 0.01)
      add(c)
      if chance(2) then add((server:settimeout(0.001):try_accept())) end
    end
  end
end

socket.setwaithook(hook, wake)
for i = 1, calls do
  if i % 20 == 1 then pcall(feed) end
  local v = random(10)
  if v <= 3 then act(1) elseif v <= 5 then task() else resume() end
  if chance(30) then setmetatable({}, {__gc = function() act(1) end}) end
  if chance(100) then collectgarbage() end
  depth = 0
end
socket.setwaithook(nil)
