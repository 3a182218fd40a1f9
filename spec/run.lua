-- Runs busted under the Lua that runs this file, in random order:
--
--   lua5.4 spec/run.lua [busted's arguments]
--
-- The order comes from a number it prints; SEED=that number repeats it. The last line is the result:
-- N passed, N failed, N skipped.

local seed = tonumber(os.getenv "SEED") or math.random(1, 999999)
print(("busted, %s, SEED=%d"):format(_VERSION, seed))
io.stdout:flush()

-- Options go first: busted takes them only before the names of files.
table.move(arg, 1, #arg, 4)
arg[1], arg[2], arg[3] = "--ignore-lua", "--shuffle", "--seed=" .. seed

-- busted's own count stands above its pages about what failed and what is pending.
local make_busted = require "busted.core"
package.loaded["busted.core"] = function(...)
  local busted = make_busted(...)
  local count = {success = 0, failure = 0, error = 0, pending = 0}
  local function go_on() return nil, true end -- others are to hear of it too
  busted.subscribe({"test", "end"}, function(_, _, status)
    count[status] = count[status] + 1
    return go_on()
  end)
  local function elsewhere(element) -- in a file or around a test
    if element.descriptor ~= "it" then count.error = count.error + 1 end
    return go_on()
  end
  busted.subscribe({"error"}, elsewhere)
  busted.subscribe({"failure"}, elsewhere)
  busted.subscribe({"exit"}, function()
    print(("%d passed, %d failed, %d skipped"):format(count.success, count.failure + count.error, count.pending))
    io.stdout:flush()
    return go_on()
  end)
  return busted
end

require "busted.runner" {standalone = false}
