-- How failures look: error objects, the try_ forms, timeouts, what was done
-- before a failure. Talks to nobody but itself.
--
--   lua5.4 examples/errors.lua

local socket = require "socket"

local function show(title, e)
  print(title)
  print("   " .. tostring(e))
  print(("   class %s, code %s, errno %d, message %q, op %s")
    :format(e.class.name, e.code, e.errno, e.message, e.op))
end

-- 1. Plain calls raise an object. A port that was just given back refuses.
local port
do
  local s <close> = socket.socket()
  port = s:bind({"127.0.0.1", 0}):getsockname().port
end
local s = socket.socket()
local ok, e = pcall(s.connect, s, {"127.0.0.1", port})
assert(not ok and socket.iserror(e) and e.code == "ECONNREFUSED")
show("nobody listens there:", e)
s:close()

-- 2. The try_ forms return nil and the same object.
local none, err = s:try_recv(10)
assert(none == nil and err.code == "EBADF")
show("a closed socket:", err)

-- 3. Names that are none have a class of their own, below socket.error.
none, err = socket.try_getaddrinfo("not a number", 80, 0, 0, 0, socket.AI_NUMERICHOST)
assert(not none and err:is(socket.gaierror) and err:is(socket.error))
show("not an address:", err)

-- 4. A timeout bounds each operation; the socket is as good as before.
local a, b = socket.socketpair()
a:settimeout(0.2)
local start = socket.monotonic()
none, err = a:try_recv(10)
assert(not none and err:is(socket.timeout))
show(("nothing to read for %.1f s:"):format(socket.monotonic() - start), err)
b:sendall("late")
assert(a:recv(10) == "late")

-- 5. settimeout(0) never waits: that is not a timeout, it would block.
a:settimeout(0)
none, err = a:try_recv(10)
assert(not none and err.code == "EAGAIN" and not err:is(socket.timeout))
show("nothing to read at once:", err)

-- 6. A sendall that stopped half-way tells how far it came.
a:settimeout(0.2)
none, err = a:try_sendall(("x"):rep(10000000))
assert(not none and err:is(socket.timeout) and err.sent > 0)
show(("a reader that does not read, after %d KiB:"):format(err.sent // 1024), err)

-- 7. A wrong argument is a mistake in the program: an ordinary Lua error.
ok, e = pcall(function() a:recv "ten" end)
assert(not ok and type(e) == "string" and not socket.iserror(e))
print("not an error object, but a message:\n   " .. e)

a:close()
b:close()
