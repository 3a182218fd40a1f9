-- Coroutines for specs: a scheduler of the simplest kind. Every millisecond
-- each task that waits is told that it may go on, whether that is so or not:
-- what the library calls through the wait hook must stand that.

local socket = require "socket"

local M = {}

-- Runs functions as coroutines until all have ended, at most `limit` seconds.
-- Returns a table for each: table.pack(pcall's results), with .at (monotonic time of the end).
function M.run(functions, limit)
  local stop = socket.monotonic() + (limit or 10)
  local results, left, tasks = {}, #functions, {}
  local former, wake = socket.setwaithook(function(_, _, seconds)
    local at = seconds and socket.monotonic() + seconds
    coroutine.yield()
    return not (at and socket.monotonic() >= at)
  end)
  for i, f in ipairs(functions) do tasks[i] = coroutine.create(f) end
  while left > 0 and socket.monotonic() < stop do
    for i, co in ipairs(tasks) do
      if not results[i] then
        local r = table.pack(coroutine.resume(co))
        if coroutine.status(co) == "dead" then
          r.at = socket.monotonic()
          results[i], left = r, left - 1
          coroutine.close(co)
        end
      end
    end
    if left > 0 then socket.sleep(0.001) end
  end
  socket.setwaithook(former, wake)
  return results
end

-- Begins a function as a coroutine and leaves it where it first waits.
function M.begin(f)
  local co = coroutine.create(f)
  local former, wake = socket.setwaithook(function() return coroutine.yield "waiting" end)
  local ok, what = coroutine.resume(co)
  socket.setwaithook(former, wake)
  return co, ok and what == "waiting", what
end

return M
