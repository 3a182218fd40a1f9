-- The client of echo_server_any.lua: tries every address of a host, IPv4 and
-- IPv6, until one answers.
--
--   lua5.4 examples/echo_client_any.lua [host [port [message]]]
--
-- socket.create_connection does the same and better (it starts the next
-- attempt before a slow one has failed); here the loop is written out.

local socket = require "socket"

local host = arg[1] or "localhost"
local port = tonumber(arg[2] or 50007)
local message = arg[3] or "Hello, world"

local function connect()
  local problem
  for _, ai in ipairs(socket.getaddrinfo(host, port, socket.AF_UNSPEC,
      socket.SOCK_STREAM)) do
    local s, ok
    s, problem = socket.try_socket(ai.family, ai.type, ai.proto)
    if s then
      s:settimeout(5)
      ok, problem = s:try_connect(ai.sockaddr)
      if ok then return s end
      s:close()
      print("no luck: " .. tostring(problem))
    end
  end
  return nil, problem
end

local s <close>, problem = connect()
if not s then
  io.stderr:write("could not open a socket: ", tostring(problem), "\n")
  os.exit(1)
end
print("connected to " .. tostring(s:getpeername()))
s:sendall(message):shutdown(socket.SHUT_WR)

local pieces = {}
for data in function() return s:recv(1024) end do
  pieces[#pieces + 1] = data
end
print(("received %q"):format(table.concat(pieces)))
