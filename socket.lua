-- Loads the C library `socket` through package.cpath. Lua looks for Lua files before C libraries, so without this file
-- another package's socket.lua would be found first. Programs that embed the library do not need it.
local path = assert(package.searchpath("socket", package.cpath))
return assert(package.loadlib(path, "luaopen_socket"))(...)
