-- An echo server on a Unix socket: an address of this kind is a path.
--
--   lua5.4 examples/unix_echo_server.lua [path [connections]]
--
-- A path that begins with @ is in Linux's abstract namespace: a name without
-- a file, gone with its last user. Its client: unix_echo_client.lua.

local socket = require "socket"

local path = arg[1] or "/tmp/lua-echo.sock"
local connections = tonumber(arg[2]) or math.huge
io.stdout:setvbuf "line"

local function echo(conn)
  local bytes = 0
  for data in function() return conn:recv(4096) end do
    conn:sendall(data)
    bytes = bytes + #data
  end
  return bytes
end

local server <close> = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server:bind((path:gsub("^@", "\0"))):listen(5)
print("listening on " .. path)

-- The file outlives the socket, so it is removed on the way out, Ctrl-C included.
local _ <close> = setmetatable({}, {__close = function()
  if path:sub(1, 1) ~= "@" then os.remove(path) end
end})

for _ = 1, connections do
  local conn <close> = server:accept()          -- clients here have no address
  local ok, result = pcall(echo, conn)
  if ok then
    print("echoed " .. result .. " bytes")
  elseif socket.iserror(result) then
    print(result)
  else
    error(result, 0)
  end
end
