-- Receives an open file from another program, over a Unix socket, and prints
-- what is in it. This program may not be able to open that file itself, and
-- need not know where it is: the sender opened it.
--
--   lua5.4 examples/recv_fd.lua [path]
--
-- A path that begins with @ is in Linux's abstract namespace. The sender:
-- send_fd.lua.

local socket = require "socket"

local path = arg[1] or "/tmp/lua-fd.sock"
io.stdout:setvbuf "line"

local server <close> = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server:bind((path:gsub("^@", "\0"))):listen(1)
print("listening on " .. path)

-- The file of the socket outlives it, so it is removed on the way out.
local _ <close> = setmetatable({}, {__close = function()
  if path:sub(1, 1) ~= "@" then os.remove(path) end
end})

local conn <close> = server:accept()
conn:settimeout(10)

-- The name comes with the descriptor, as ordinary bytes: at least one byte has to.
local name, fds, flags = socket.recv_fds(conn, 4096, 1)
if not name then error "the sender went away" end
if flags & socket.MSG_CTRUNC ~= 0 then print "there were more descriptors; the system has closed them" end

-- A received descriptor is a number, and ours to close. Lua opens no file by a
-- number, but the system has a name for each.
for _, fd in ipairs(fds) do
  local file <close> = assert(io.open("/dev/fd/" .. fd, "rb"))
  local content = file:read "a"
  socket.close(fd)
  print(("%s: %d bytes"):format(name, #content))
  io.write(content)
end
conn:sendall "thank you"
