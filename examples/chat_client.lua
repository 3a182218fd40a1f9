-- The client of chat_server.lua: a task for what the others say, and one for the keyboard.
--
--   lua5.4 examples/chat_client.lua [host [port]]
--
-- At the end of the input it says goodbye. It serves any other protocol of lines as well.

local socket = require "socket"
local loop = require "socket.loop"

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 50008)
io.stdout:setvbuf "line"
-- Else C's library might read several lines ahead, and nothing would tell that they are there.
io.stdin:setvbuf "no"

local function listen(conn)
  local f <close> = conn:makefile "r"
  for line in f:lines() do print((line:gsub("[\0-\8\11-\31\127]", "?"))) end
end

-- io.read holds up all tasks until it has a line, so it is called when there is something; terminals give whole lines.
local function type_in(conn)
  while loop.wait(io.stdin, "r") do
    local line = io.read "L"
    if not line then break end
    if not conn:try_sendall(line) then return end     -- the server has gone; the other task says so
  end
  conn:try_shutdown(socket.SHUT_WR)
end

loop.run(function()
  local conn <close> = socket.create_connection({host, port}, 10)
  conn:settimeout(nil)
  loop.group(function(g)
    g:spawn(type_in, conn)
    listen(conn)                -- until the server ends the stream
    print "(the server has ended the conversation)"
    g:cancel()
  end)
end)
