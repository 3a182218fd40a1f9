-- Opens a file and hands it, open, to another program: recv_fd.lua.
--
--   lua5.4 examples/send_fd.lua file [path]
--
-- The path is that of recv_fd.lua's Unix socket.

local socket = require "socket"

local name = arg[1] or error "usage: lua5.4 examples/send_fd.lua file [path]"
local path = arg[2] or "/tmp/lua-fd.sock"

local file <close> = assert(io.open(name, "rb"))
local s <close> = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s:settimeout(10)
s:connect((path:gsub("^@", "\0")))

-- What is sent may be a Lua file, a socket, or the number of a descriptor; here
-- it keeps its own, so both programs have the file open now.
socket.send_fds(s, {name:match "[^/]*$"}, {file})
print("sent " .. name)
print(("the other program says %q"):format(s:recv(100) or "nothing"))
