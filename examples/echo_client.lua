-- The client of echo_server.lua: sends a message, prints what comes back.
--
--   lua5.4 examples/echo_client.lua [host [port [message]]]

local socket = require "socket"

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 50007)
local message = arg[3] or "Hello, world"

local s <close> = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s:settimeout(5)
s:connect {host, port}
s:sendall(message):shutdown(socket.SHUT_WR)     -- our part is said, now we listen

-- A stream has no message borders: the answer may come in pieces.
local pieces = {}
for data in function() return s:recv(1024) end do
  pieces[#pieces + 1] = data
end
print(("received %q"):format(table.concat(pieces)))
