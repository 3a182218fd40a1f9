-- startup.lua: what one `require` costs: milliseconds, and KiB of memory beside what was there: resident, the process's
-- share of it (memory that several processes map is divided among them), and Lua's heap.
--   lua5.4 bench/startup.lua MODULE     0 0 0 0 where that is not there
local module = arg[1]

local function memory()
  local rss, pss = 0, 0
  for line in io.lines "/proc/self/smaps_rollup" do
    rss = tonumber(line:match "^Rss:%s+(%d+)") or rss
    pss = tonumber(line:match "^Pss:%s+(%d+)") or pss
  end
  return rss, pss
end

local function measure(open)
  collectgarbage()
  local heap = collectgarbage "count"
  local rss, pss = memory()
  local began = os.clock()
  local opened = pcall(open, module)
  local took = os.clock() - began
  local more_rss, more_pss = memory()
  collectgarbage()
  return opened, took * 1000, more_rss - rss, more_pss - pss, collectgarbage "count" - heap
end

measure(function() end) -- what only measuring brings into memory
local opened, took, rss, pss, heap = measure(require)
if not opened then took, rss, pss, heap = 0, 0, 0, 0 end
print(("%.4f %d %d %.1f"):format(took, rss, pss, heap))
