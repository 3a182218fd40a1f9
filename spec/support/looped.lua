-- Runs loops for specs, bounded in time.

local socket = require "socket"
local loop = require "socket.loop"

local M = {}

-- What f(...) returns, run as a task of a loop of its own until all its tasks have ended, at most five seconds.
function M.run(f, ...)
  local l <close> = loop.new()
  local task = l:spawn(f, ...)
  task.name = "main"
  local stop = socket.monotonic() + 5
  local failed, failure
  l.onerror = function(t, e)
    if not failed or t == task then failed, failure = true, e end
  end
  while l.count > 0 and not failed do
    if socket.monotonic() > stop then error(("%d task(s) did not end in time"):format(l.count), 0) end
    l:step(0.1)
  end
  if failed then error(failure, 0) end
  return task:join()
end

return M
