-- An echo server over UDP: every datagram goes back to where it came from.
--
--   lua5.4 examples/udp_echo_server.lua [host [port [datagrams]]]
--
-- Its client: udp_echo_client.lua.

local socket = require "socket"

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 50007)
local datagrams = tonumber(arg[3]) or math.huge
io.stdout:setvbuf "line"

local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s:bind {host, port}
print("listening on " .. tostring(s:getsockname()))

for _ = 1, datagrams do
  local data, peer = s:recvfrom(65535)          -- "" is an empty datagram
  print(("%d bytes from %s"):format(#data, peer))
  local sent, err = s:try_sendto(data, peer)
  if not sent then print(err) end               -- nothing a server should stop for
end
