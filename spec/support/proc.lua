-- What this process has: descriptors and threads, as Linux's /proc shows them.

local lfs = require "lfs"

local M = {}

local function entries(folder, own)
  local names = {}
  for name in lfs.dir(folder) do names[#names + 1] = tonumber(name) end
  table.sort(names)
  return #names - own
end

-- Open descriptors, without the one this count needs.
function M.descriptors() return entries("/proc/self/fd", 1) end

function M.threads() return entries("/proc/self/task", 0) end

-- Those of garbage are closed first: only what a test leaves counts.
function M.settled_descriptors()
  collectgarbage()
  collectgarbage()
  return M.descriptors()
end

return M
