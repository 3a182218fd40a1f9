-- The client of unix_echo_server.lua.
--
--   lua5.4 examples/unix_echo_client.lua [path [message]]

local socket = require "socket"

local path = arg[1] or "/tmp/lua-echo.sock"
local message = arg[2] or "Hello, world"

local s <close> = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s:settimeout(5)
s:connect((path:gsub("^@", "\0")))
s:sendall(message):shutdown(socket.SHUT_WR)

local pieces = {}
for data in function() return s:recv(1024) end do
  pieces[#pieces + 1] = data
end
print(("received %q"):format(table.concat(pieces)))
