-- Blocking code under cqueues: luarocks install cqueues, or Debian's lua-cqueues.
--
--   lua5.4 examples/with_cqueues.lua

---- the recipe: spawn(f, ...) starts a task, run() ends with the last one or raises the error of one

local socket = require "socket"
local cqueues = require "cqueues"

local queue, waiting = cqueues.new(), setmetatable({}, {__mode = "k"})

socket.setwaithook(function(sock, direction, seconds)
  if not select(2, cqueues.running()) then return nil end    -- no task of cqueues': block
  local fd = sock:fileno()
  waiting[sock] = fd
  cqueues.poll({pollfd = fd, events = direction}, seconds)
  if sock:fileno() == fd then cqueues.cancel(fd) end         -- which cqueues must do before the descriptor is closed
  return true                                                -- the library knows whether the time is up
end, function(sock) cqueues.cancel(waiting[sock]) end)

local function spawn(f, ...)
  queue:wrap(function(...)
    local ok, e = xpcall(f, debug.traceback, ...)            -- leaves the scopes of <close> variables
    if not ok then error(e, 0) end
  end, ...)
end

local function run()
  local ok, e = queue:loop()
  if not ok then error(e, 0) end
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
