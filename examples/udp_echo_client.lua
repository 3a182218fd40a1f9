-- The client of udp_echo_server.lua. Datagrams get lost, so it asks again.
--
--   lua5.4 examples/udp_echo_client.lua [host [port [message]]]

local socket = require "socket"

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 50007)
local message = arg[3] or "Hello, world"

-- A connected datagram socket hears only its peer, and hears of refusals.
local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s:settimeout(1)
s:connect {host, port}

for attempt = 1, 3 do
  s:send(message)
  local data, err = s:try_recv(65535)
  if data then
    print(("received %q"):format(data))
    return
  elseif not err:is(socket.timeout) then
    error(err)
  end
  print(("no answer to attempt %d"):format(attempt))
end
os.exit(1)
