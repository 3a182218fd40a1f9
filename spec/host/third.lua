-- third.lua: uses third.so (third.c); for tools/check_hosts.sh. Fails by an error.
local opened, message = pcall(require, "third")
assert(not opened and message:find("the module socket is not open", 1, true), message)
local socket = require "socket"
local third = require "third"
local major, minor, patch = socket._VERSION:match "^(%d+)%.(%d+)%.(%d+)$"
assert(third.library == major * 10000 + minor * 100 + patch)

local fd, s = third.pair()
assert(s.family == socket.AF_UNIX and s.type == socket.SOCK_STREAM and s.timeout == 2.5)
assert(third.fileno(s) == s:fileno() and third.check(s) and third.fileno "none" == nil)
local peer = socket.socket(nil, nil, nil, fd)
peer:sendall "from the other end"
assert(s:recv(100) == "from the other end")

local number = s:fileno()
assert(third.detach(s) == number and third.fileno(s) == -1)
assert(socket.close(number) and peer:recv(1) == nil)
peer:close()

local ok, e = pcall(third.check, io.stdout)
assert(not ok and e:find("socket expected", 1, true), e)
ok, e = pcall(third.fail)
assert(not ok and socket.iserror(e) and e.code == "ENODEV" and e.op == "third")
e = third.error()
assert(socket.iserror(e) and e.code == "EHOSTDOWN")
