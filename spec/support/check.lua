-- What specs of operations check again and again.

local assert = require "luassert"
local socket = require "socket"
local support = require "spec.support"

local M = {}

-- Calls f, which must raise an error object of that class and code; returns it.
function M.fails(class, code, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok, "there was no error")
  assert.is_true(socket.iserror(e), tostring(e))
  assert.equal(code, e.code, tostring(e))
  assert.equal(class, e.class)
  return e
end

-- f(...) fails for its n-th argument; a method's first is its object. Returns the message.
function M.bad(n, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.matches("bad argument #" .. n, e, nil, true)
  return e
end

-- f(...) raises a string that has the message in it, and opens no descriptor.
function M.refuses(message, f, ...)
  local before = support.descriptors()
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(e), tostring(e))
  assert.matches(message, e, 1, true)
  assert.equal(before, support.descriptors())
end

-- The seconds f takes.
function M.took(f, ...)
  local t = socket.monotonic()
  f(...)
  return socket.monotonic() - t
end

-- The bounds of a wait that began at `start` and should take t seconds, on a machine busy with other things.
function M.on_time(t, start)
  local elapsed = socket.monotonic() - start
  assert.is_true(elapsed >= t, ("early: %.6f s instead of %g s"):format(elapsed, t))
  assert.is_true(elapsed < t + 0.5, ("late: %.3f s instead of %g s"):format(elapsed, t))
end

-- Waits until a condition holds: the seconds that took, or nil if it still does not after `limit`.
function M.eventually(limit, condition)
  local t = socket.monotonic()
  repeat
    if condition() then return socket.monotonic() - t end
    socket.sleep(0.005)
  until socket.monotonic() - t > limit
end

-- What Ctrl-C sends, to this process and a little later.
function M.interrupt(seconds)
  local f <close> = io.open "/proc/self/stat"
  os.execute(("(sleep %s; kill -INT %d) >/dev/null 2>&1 &"):format(seconds, f:read "n"))
end

return M
