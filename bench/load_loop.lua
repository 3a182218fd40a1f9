-- load_loop.lua: what tasks and timers of socket.loop cost.
--   lua5.4 bench/load_loop.lua coroutines|tasks|sleepers <n>   bytes each: resident, Lua heap
--   lua5.4 bench/load_loop.lua timers <n>                      microseconds each: set, cancel, set and run
-- A coroutine that yields and a task that waits run the same function on the same socket.
local socket = require "socket"
local loop = require "socket.loop"
local what, n = arg[1], tonumber(arg[2])

local function resident()
  local f <close> = assert(io.open "/proc/self/statm")
  return tonumber(f:read("a"):match "^%d+ (%d+)") * 4096
end

local ends = {}
local function measure(start)
  for i = 1, n, 2 do ends[i], ends[i + 1] = socket.socketpair() end
  collectgarbage()
  collectgarbage()
  local rss, heap = resident(), collectgarbage "count"
  start()
  rss = resident() - rss
  collectgarbage()
  collectgarbage()
  print(rss // n, (collectgarbage "count" - heap) * 1024 // n | 0)
end

local function talk(wait, arg1)
  local data = wait(arg1, 64)
  if data then error "nobody sends here" end
end

local kept = {}
for i = 1, n do kept[i] = false end

if what == "coroutines" then
  measure(function()
    for i = 1, n do
      kept[i] = coroutine.create(talk)
      assert(coroutine.resume(kept[i], coroutine.yield, ends[i]))
    end
  end)
elseif what == "tasks" or what == "sleepers" then
  local l = loop.new()
  measure(function()
    for i = 1, n do
      if what == "tasks" then kept[i] = l:spawn(talk, ends[i].recv, ends[i])
      else kept[i] = l:spawn(talk, loop.sleep, 1000)
      end
    end
    for _ = 1, n do l:step(0) end
    for i = 1, n do assert(kept[i].status == "waiting") end
  end)
elseif what == "timers" then
  local clock = os.clock
  local function each(from) return (clock() - from) / n * 1e6 end
  local l, random, ran = loop.new(), math.random, 0
  local function f() ran = ran + 1 end

  local from = clock()
  for i = 1, n do kept[i] = l:after(1 + random() * 1000, f) end
  local set = each(from)
  from = clock()
  for i = 1, n do assert(kept[i]:cancel()) end
  local cancel = each(from)
  assert(ran == 0)
  from = clock()
  for _ = 1, n do l:after(random() * 0.01, f) end
  l:run()
  assert(ran == n, "a timer was lost")
  print(("%.3f %.3f %.3f"):format(set, cancel, each(from)))
else
  error("no such measurement: " .. tostring(what))
end
