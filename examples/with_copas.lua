-- Blocking code under copas: luarocks install copas. Debian's lua-copas is for Lua 5.1, yet runs under 5.4 with
-- LUA_PATH=";;/usr/share/lua/5.1/?.lua".
--
--   lua5.4 examples/with_copas.lua

---- the recipe: spawn(f, ...) starts a task, run() ends with the last one or raises the error of one

local socket = require "socket"
package.loaded.socket = require "socket.core"  -- LuaSocket, which copas knows as "socket" ...
local copas = require "copas"
package.loaded.socket = socket                 -- ... and nobody else

local over, other = socket.socketpair()
other:close()
local ready = over:detach()                    -- a descriptor that is always ready

-- What copas waits for: it calls receive or send, then select with getfd and dirty, and receive or send again.
local Wait, waits = {}, setmetatable({}, {__mode = "k"})
Wait.__index = Wait

function Wait:getfd()
  local fd = self.sock:fileno()
  return fd >= 0 and socket.monotonic() < self.deadline and fd or ready
end

function Wait:dirty() return self:getfd() == ready end

function Wait:receive()
  if self.called then
    self.deadline = 0
    return true
  end
  self.called = true
  return nil, "timeout", 0
end

Wait.send = Wait.receive

function Wait.close() end                      -- copas closes what a task waited for last

socket.setwaithook(function(sock, direction, seconds)
  local wait = setmetatable({sock = sock, deadline = seconds and socket.monotonic() + seconds or math.huge}, Wait)
  waits[wait] = true
  if direction == "r" then copas.receive(wait) else copas.send(wait, "") end
  waits[wait] = nil
  return true                                  -- the library knows whether the time is up
end)

local tasks, failure = 0, nil

local function spawn(f, ...)
  local arguments = table.pack(...)
  tasks = tasks + 1
  copas.addthread(function()
    local ok, e = xpcall(f, debug.traceback, table.unpack(arguments, 1, arguments.n))
    tasks = tasks - 1
    if not ok then failure = failure or e end
  end)
end

local function run()
  while tasks > 0 and not failure do
    local first = math.huge
    for wait in pairs(waits) do first = math.min(first, wait.deadline) end
    copas.step(first < math.huge and math.max(0, first - socket.monotonic()) or nil)
  end
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
