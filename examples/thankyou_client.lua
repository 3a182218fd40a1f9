-- The client of thankyou_server.lua, for the same machine or another.
--
--   lua5.4 examples/thankyou_client.lua [port [host]]

local socket = require "socket"

local port = tonumber(arg[1] or 12345)
local host = arg[2] or socket.gethostname()

local s <close> = socket.socket()
s:settimeout(5)

local connected, err = s:try_connect {host, port}
if not connected and err:is(socket.gaierror) then
  print(("the name %s does not resolve (%s), using 127.0.0.1"):format(host, err.code))
  s:connect {"127.0.0.1", port}
elseif not connected then
  error(err)
end

print(s:recv(1024))
