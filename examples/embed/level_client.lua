-- The client's script of game.c: downloads a level while the game goes on. It may connect to one port.
-- luacheck: globals say

local tasks, port, megabytes = ...
local socket = require "socket"

tasks:spawn(function()
  local ok, e = pcall(socket.create_connection, {"10.0.0.1", 80})
  assert(not ok and e.code == "EACCES", "the policy does not hold")
  say("may not phone home: " .. e.message)

  local start = socket.monotonic()
  local s <close> = socket.create_connection({"127.0.0.1", port}, 10)
  s:settimeout(10)
  local f <close> = s:makefile("rw")
  f:write("level 1\n"):flush()
  local size = assert(f:read "n", "no level")
  f:read()                              -- the rest of that line
  assert(size == megabytes << 20)
  local received, shown = 0, 0
  while received < size do
    local data = f:read(math.min(size - received, 16384)) or error "the level is cut off"
    received = received + #data
    if received * 4 // size > shown then
      shown = received * 4 // size
      say(("%3d %% of the level, %.2f s"):format(shown * 25, socket.monotonic() - start))
    end
  end
end)
