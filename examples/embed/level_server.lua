-- The server's script of game.c: gives the level to whoever asks. It got its listening socket from the game, and may
-- open nothing else.
-- luacheck: globals say

local tasks, listener, megabytes = ...
local socket = require "socket"

local block = {}
for i = 1, 1024 do block[i] = ("tile %9d;\n"):format(i) end -- 16 bytes each
block = table.concat(block)             -- 16 KiB

local function serve(conn)
  local _ <close> = conn
  conn:settimeout(10)
  local f <close> = conn:makefile("rw")
  if f:read() ~= "level 1" then return end
  local blocks = megabytes * 64
  f:write(("%d\n"):format(blocks * #block)):flush()
  for _ = 1, blocks do conn:sendall(block) end -- waits whenever the client is slow: then others run, and the game
end

tasks:spawn(function()
  while true do
    local conn, peer = listener:accept()
    say("serves " .. tostring(peer))
    tasks:spawn(serve, conn)
  end
end)

-- What the game has not allowed.
local ok, e = pcall(socket.create_server, {"0.0.0.0", 8080})
assert(not ok and e.code == "EACCES", "the policy does not hold")
say("may not serve elsewhere: " .. e.message)
