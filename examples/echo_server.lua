-- An echo server over TCP and IPv4: whatever a client sends comes back to it.
--
--   lua5.4 examples/echo_server.lua [host [port [connections]]]
--
-- Port 0 takes any free port and prints it. Stops after that many connections;
-- without the number, Ctrl-C stops it. Its client: echo_client.lua.

local socket = require "socket"

local host = arg[1] or "127.0.0.1"      -- "" stands for every interface
local port = tonumber(arg[2] or 50007)
local connections = tonumber(arg[3]) or math.huge
io.stdout:setvbuf "line"

-- recv returns nil at the end of the stream, and nil ends a for loop.
local function echo(conn)
  local bytes = 0
  for data in function() return conn:recv(4096) end do
    conn:sendall(data)
    bytes = bytes + #data
  end
  return bytes
end

local server <close> = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server:bind({host, port}):listen(5)
print("listening on " .. tostring(server:getsockname()))

for _ = 1, connections do
  local conn <close>, peer = server:accept()
  print("connected by " .. tostring(peer))
  local ok, result = pcall(echo, conn)
  if ok then
    print("echoed " .. result .. " bytes")
  elseif socket.iserror(result) then
    print(result)                       -- this client broke off; on to the next
  else
    error(result, 0)                    -- not a socket's error: Ctrl-C, a mistake
  end
end
