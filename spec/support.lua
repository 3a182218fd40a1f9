-- For several specs: child processes, strace(1), a scheduler for the wait hook, pairs of connected sockets.

local h = require "spec.helper"
local lfs = require "lfs"
local socket = require "socket"

local M = {}

-- How many descriptors this process has open, apart from garbage.
function M.descriptors()
  collectgarbage()
  collectgarbage()
  local n = 0
  for _ in lfs.dir "/proc/self/fd" do n = n + 1 end
  return n
end

-- What a command prints, on stdout and stderr, and how it ends: the exit status, or "signal" and its number.
function M.output(command)
  local p = assert(io.popen("exec 2>&1; " .. command))
  local text = p:read "a"
  local _, how, code = p:close()
  return text, how == "exit" and code or "signal " .. code
end

-- The same of a Lua program; options: before (shell words), args, leaks.
function M.run(code, options)
  options = options or {}
  return M.output(("%s timeout 30 %s - %s <<'END-OF-LUA'\n%s\nEND-OF-LUA\n"):format(
    options.before or "", h.lua(options), options.args or "", code))
end

-- Starts a Lua program; returns a pipe to its output and its process id.
function M.start(code)
  local p = assert(io.popen(("exec 2>&1; echo $$; exec %s -e %s"):format(h.lua(), h.quote(code))))
  return p, assert(tonumber(p:read "l"))
end

-- Is there a program of that name?
function M.has(program)
  return (os.execute(("command -v %s >/dev/null 2>&1"):format(program)))
end

-- Shell words that start a program with no signal ignored, where env(1) can.
function M.default_signals()
  return os.execute "env --default-signal=PIPE true 2>/dev/null" and "exec env --default-signal=PIPE" or ""
end

function M.kill(pid, signal)
  return (os.execute(("kill -%s %d"):format(signal, pid)))
end

-- Waits until a process sleeps in the kernel with a socket open; false if it does not come to that in five seconds.
function M.asleep(pid)
  for _ = 1, 5000 do
    local sockets = 0
    local listed, next_file, files = pcall(lfs.dir, ("/proc/%d/fd"):format(pid))
    if not listed then return false end
    for name in next_file, files do
      local link = lfs.symlinkattributes(("/proc/%d/fd/%s"):format(pid, name))
      if link and (link.target or ""):match "^socket:" then sockets = sockets + 1 end
    end
    local f = io.open(("/proc/%d/stat"):format(pid))
    local state = f and f:read("a"):match "%) (%a)"
    if f then f:close() end
    if sockets > 0 and state == "S" then return true end
    socket.sleep(0.001)
  end
  return false
end

-- Leaves a test, by busted's pending, where strace(1) is missing or may not trace.
local traceable
function M.needs_strace(pending)
  if traceable == nil then
    traceable = M.has "strace" and os.execute "strace -o /dev/null true 2>/dev/null" or false
  end
  if not traceable then pending "needs strace, and the right to use it" end
  if string.packsize "T" < 8 then pending "system calls have other names where a pointer has 32 bits" end
end

-- Runs a Lua program with faults: each of the others is an argument of strace's -e inject=.
function M.faulty(code, ...)
  local inject = {}
  for i, fault in ipairs {...} do inject[i] = "-e inject=" .. h.quote(fault) end
  local file = os.tmpname()
  local program = io.open(file, "w")
  program:write(code)
  program:close()
  local text, status = M.output(("exec timeout 30 strace -f -o /dev/null %s %s %s"):format(
    table.concat(inject, " "), h.lua {leaks = false}, file))
  os.remove(file)
  return text, status
end

-- The system calls on descriptors that a Lua program makes, not those of its children. It says mark "name" before and
-- mark() after what is of interest; the result maps the names to lists of {call = "recvfrom", text = strace's line}.
function M.calls(code)
  local file, log = os.tmpname(), os.tmpname()
  local program = io.open(file, "w")
  program:write("local function mark(name) io.open('/@' .. (name or '')) end ", code)
  program:close()
  local text, status = M.output(("exec timeout 30 strace -f -o %s -e trace=%%network,%%desc %s %s"):format(
    log, h.lua {leaks = false}, file))
  local marked, current, own = {}, nil, nil
  for line in io.lines(log) do
    local pid, call = line:match "^(%d+) +([%w_]+)%("
    local name = line:match '"/@([^"]*)"'
    if name then
      own, current = pid, name ~= "" and {} or nil
      marked[name] = current
    elseif current and call and call ~= "mmap" and pid == own then -- which is the allocator's
      current[#current + 1] = {call = call, text = line}
    end
  end
  os.remove(file)
  os.remove(log)
  assert(status == 0, text)
  return marked
end

-- The module spectools, compiled now (spec/host/spectools.c); leaves a test where that does not work.
function M.tools(pending)
  if package.loaded.spectools then return package.loaded.spectools end
  local library, cc = os.tmpname(), os.getenv "CC" or ""
  if cc == "" then cc = "cc" end
  local built = os.execute(("%s -shared -fPIC $(pkg-config --cflags lua5.4 2>/dev/null || pkg-config --cflags lua-5.4)"
    .. " -o %s %s 2>/dev/null"):format(cc, library, h.root .. "/spec/host/spectools.c"))
  if not built then
    os.remove(library)
    pending "needs a C compiler and Lua's headers"
  end
  local tools = assert(package.loadlib(library, "luaopen_spectools"))()
  os.remove(library)
  package.loaded.spectools = tools
  return tools
end

-- A scheduler: spawn(f, ...) adds a task, run() ends when all tasks have. hook and wake are for setwaithook.
function M.scheduler(pending)
  local poll = M.tools(pending).poll
  local S = {switches = 0}
  local waiting = {}   -- task -> {sock, fd, direction, end of the time}
  local ready = {}     -- list of {task, values for resume}
  function S.hook(sock, direction, seconds)
    local task = coroutine.running()
    waiting[task] = {sock, sock:fileno(), direction, seconds and socket.monotonic() + seconds or math.huge}
    return coroutine.yield()
  end
  function S.wake(sock)
    for task, w in pairs(waiting) do
      if w[1] == sock then ready[#ready + 1], waiting[task] = {task, true}, nil end
    end
  end
  function S.spawn(f, ...)
    local task = coroutine.create(f)
    ready[#ready + 1] = {task, ...}
    return task
  end
  local function resume(entry)
    S.switches = S.switches + 1
    local ok, e = coroutine.resume(table.unpack(entry, 1, 10))
    if not ok then error(debug.traceback(entry[1], tostring(e)), 0) end
  end
  local function select()
    local now, first, list, tasks = socket.monotonic(), math.huge, {}, {}
    for task, w in pairs(waiting) do
      list[#list + 1], tasks[#tasks + 1] = {w[2], w[3]}, task
      first = math.min(first, w[4])
    end
    if #list == 0 then return false end
    for _, i in ipairs(poll(list, first < math.huge and math.max(0, first - now) or nil)) do
      ready[#ready + 1], waiting[tasks[i]] = {tasks[i], true}, nil
    end
    now = socket.monotonic()
    for task, w in pairs(waiting) do
      if w[4] <= now then ready[#ready + 1], waiting[task] = {task, false}, nil end
    end
    return true
  end
  function S.run()
    local former = table.pack(socket.setwaithook(S.hook, S.wake))
    local ok, e = pcall(function()
      repeat
        while #ready > 0 do resume(table.remove(ready, 1)) end
      until not select()
    end)
    socket.setwaithook(former[1], former[2])
    if not ok then error(e, 0) end
  end
  return S
end

-- Closes sockets after the test: local a, b = keep(socket.socketpair()).
local kept = {}
function M.keep(...)
  for _, s in ipairs {...} do
    if type(s) == "userdata" then kept[#kept + 1] = s end
  end
  return ...
end

function M.close_kept()
  for i = #kept, 1, -1 do
    kept[i]:try_close()
    kept[i] = nil
  end
end

-- Two connected TCP sockets.
function M.tcp(family)
  local host = family == socket.AF_INET6 and "::1" or "127.0.0.1"
  local server <close> = socket.create_server({host, 0}, {family = family or socket.AF_INET})
  local a = socket.socket(family)
  a:connect(server:getsockname())
  return a, (server:accept())
end

-- Two connected UDP sockets.
function M.udp(family)
  local host = family == socket.AF_INET6 and "::1" or "127.0.0.1"
  local a = socket.socket(family, socket.SOCK_DGRAM):bind {host, 0}
  local b = socket.socket(family, socket.SOCK_DGRAM):bind {host, 0}
  return a:connect(b:getsockname()), b:connect(a:getsockname())
end

-- The process that reads the other end of a socket as the code says, with `s` that end and `arg` the numbers given;
-- the end here is closed. Returns the pipe of its output.
function M.peer(s, code)
  s:set_inheritable(true)
  local p, pid = M.start(([[
    local socket = require "socket"
    local s <close> = socket.socket(nil, nil, nil, %d)
    %s]]):format(s:fileno(), code))
  s:close()
  return p, pid
end

function M.has_ipv6()
  local s <close> = socket.try_socket(socket.AF_INET6)
  return s and s:try_bind {"::1", 0} and true or false
end

-- A socket error of that code, raised by f(...).
function M.fails(code, f, ...)
  local ok, e = pcall(f, ...)
  if ok then error("succeeded, no " .. code, 2) end
  if not (socket.iserror(e) and e.code == code) then error(("expected %s, got %s"):format(code, tostring(e)), 2) end
  return e
end

-- What a socket receives until the end.
function M.all(s)
  local pieces = {}
  for data in function() return s:recv(65536) end do pieces[#pieces + 1] = data end
  return table.concat(pieces)
end

return M
