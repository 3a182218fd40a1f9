-- Blocking code under luv (libuv): luarocks install luv, or Debian's lua-luv.
--
--   lua5.4 examples/with_luv.lua

---- the recipe: spawn(f, ...) starts a task, run() ends with the last one or raises the error of one

local socket = require "socket"
local uv = require "luv"

local waiting = {}                             -- socket -> {poll = libuv's handle, r = who reads, w = who writes}
local tasks = setmetatable({}, {__mode = "k"})
local failure

-- libuv allows one handle a descriptor, for those who read and those who write.
local function watch(sock, w)
  local events = (w.r and "r" or "") .. (w.w and "w" or "")
  if events == "" then
    waiting[sock] = nil
    return w.poll:close()
  end
  w.poll:start(events, function(problem, ready)
    for direction in events:gmatch "." do
      if w[direction] and (problem or ready:find(direction)) then coroutine.resume(w[direction]) end
    end
  end)
end

socket.setwaithook(function(sock, direction, seconds)
  local task = coroutine.running()
  if not tasks[task] then return nil end       -- a coroutine of the program's own: block
  local w, timer = waiting[sock] or {poll = assert(uv.new_poll(sock:fileno()))}, seconds and uv.new_timer()
  waiting[sock], w[direction] = w, task
  local _ <close> = setmetatable({}, {__close = function()
    w[direction] = nil
    watch(sock, w)
    if timer then timer:close() end
  end})
  watch(sock, w)
  if timer then
    uv.update_time()
    timer:start(math.ceil(seconds * 1000), 0, function() coroutine.resume(task) end)
  end
  coroutine.yield()
  return true                                  -- the library knows whether the time is up
end, function(sock)
  local w = waiting[sock] or {}
  for _, direction in ipairs {"r", "w"} do
    if w[direction] then coroutine.resume(w[direction]) end
  end
end)

local function spawn(f, ...)
  local task = coroutine.create(function(...)
    local ok, e = xpcall(f, debug.traceback, ...)
    if not ok then                             -- an error that reached libuv would end the process
      failure = failure or e
      uv.stop()
    end
  end)
  tasks[task] = true
  coroutine.resume(task, ...)
end

local function run()
  if not failure then uv.run() end
  local e = failure
  failure = nil
  if e then error(e, 0) end
end

---- the program: ordinary blocking code, and yet all of it runs at once

io.stdout:setvbuf "line"
local server = socket.create_server {"127.0.0.1", 0}
local address, start = server:getsockname(), socket.monotonic()

local function serve(conn)
  local file <close> = conn:makefile "rw"
  conn:close()                                 -- the file keeps the connection
  for line in file:lines() do
    socket.sleep(0.1)                          -- think; the others go on
    file:write(line:upper(), "\n"):flush()
  end
end

spawn(function()
  for _ = 1, 3 do spawn(serve, (server:accept())) end
  server:close()
end)

for client = 1, 3 do
  spawn(function()
    local s <close> = socket.create_connection(address, 5)
    local file <close> = s:makefile()
    for round = 1, 3 do
      s:sendall(("client %d, round %d\n"):format(client, round))
      print(file:read())
    end
  end)
end

spawn(function()
  local listener <close> = socket.create_server {"127.0.0.1", 0}
  listener:settimeout(0.15)
  print(select(2, listener:try_accept()))
end)

run()
print(("9 answers of 0.1 seconds each in %.1f seconds"):format(socket.monotonic() - start))
