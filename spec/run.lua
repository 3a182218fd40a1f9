-- Runs busted under the Lua that runs this file, in random order:
--
--   lua5.4 spec/run.lua [busted's arguments]
--
-- The order comes from a number it prints; SEED=that number repeats it.

local seed = tonumber(os.getenv "SEED") or math.random(1, 999999)
print(("busted, %s, SEED=%d"):format(_VERSION, seed))
io.stdout:flush()

-- Options go first: busted takes them only before the names of files.
table.move(arg, 1, #arg, 4)
arg[1], arg[2], arg[3] = "--ignore-lua", "--shuffle", "--seed=" .. seed

require "busted.runner" {standalone = false}
