-- An echo server for IPv4 or IPv6, whichever getaddrinfo names first: nothing
-- in it knows one family from the other.
--
--   lua5.4 examples/echo_server_any.lua [host [port [connections]]]
--
-- "*" as host means every interface. To listen on both families with one
-- socket, see socket.create_server and its option dualstack_ipv6.
-- Its client: echo_client_any.lua.

local socket = require "socket"

local host = arg[1] or "localhost"
local port = tonumber(arg[2] or 50007)
local connections = tonumber(arg[3]) or math.huge
io.stdout:setvbuf "line"

-- The first address that can be listened on, or nil and the last problem.
-- The try_ forms return nil and the error where the plain ones raise it.
local function listen()
  local problem
  local node = host ~= "*" and host or nil
  for _, ai in ipairs(socket.getaddrinfo(node, port, socket.AF_UNSPEC,
      socket.SOCK_STREAM, 0, socket.AI_PASSIVE)) do
    local s, ok
    s, problem = socket.try_socket(ai.family, ai.type, ai.proto)
    if s then
      s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      ok, problem = s:try_bind(ai.sockaddr)
      if ok then ok, problem = s:try_listen(5) end
      if ok then return s end
      s:close()
    end
  end
  return nil, problem
end

local function echo(conn)
  local bytes = 0
  for data in function() return conn:recv(4096) end do
    conn:sendall(data)
    bytes = bytes + #data
  end
  return bytes
end

local server <close>, problem = listen()
if not server then
  io.stderr:write("could not open a socket: ", tostring(problem), "\n")
  os.exit(1)
end
print("listening on " .. tostring(server:getsockname()))

for _ = 1, connections do
  local conn <close>, peer = server:accept()
  print("connected by " .. tostring(peer))
  local ok, result = pcall(echo, conn)
  if ok then
    print("echoed " .. result .. " bytes")
  elseif socket.iserror(result) then
    print(result)
  else
    error(result, 0)
  end
end
