-- For specs of socket.reactor.

local socket = require "socket"

local M = {}

-- A reactor, and what its coroutines returned or failed with, by coroutine.
function M.new()
  local results = {}
  return socket.reactor.new(function(co, ...) results[co] = table.pack(...) end), results
end

function M.add(r, f, ...)
  local co = coroutine.create(f)
  r:add(co, ...)
  return co
end

function M.rounds(r, seconds)
  local stop = socket.monotonic() + (seconds or 5)
  while r:turn(0.01) do assert(socket.monotonic() < stop, "took too long") end
end

return M
