-- A server under this machine's own name that thanks everyone who connects.
--
--   lua5.4 examples/thankyou_server.lua [port [connections [host]]]
--
-- Its client: thankyou_client.lua.

local socket = require "socket"

local port = tonumber(arg[1] or 12345)
local connections = tonumber(arg[2]) or math.huge
local host = arg[3] or socket.gethostname()
io.stdout:setvbuf "line"

local server <close> = socket.socket()
server:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

-- Many machines have a name that nobody, themselves included, can resolve.
local bound, err = server:try_bind {host, port}
if not bound and err:is(socket.gaierror) then
  print(("the name %s does not resolve (%s), using 127.0.0.1"):format(host, err.code))
  server:bind {"127.0.0.1", port}
elseif not bound then
  error(err)
end

server:listen(5)
print("listening on " .. tostring(server:getsockname()))

for _ = 1, connections do
  local conn <close>, peer = server:accept()
  print("got a connection from " .. tostring(peer))
  conn:try_sendall("Thank you for connecting")  -- a client already gone is no matter
end
