-- bare.lua: the 64-byte round trip, and reading lines, with bare.c. lua5.4 bench/bare.lua <kind> <n>
-- The kinds are those of bare.wrap, and "plain" for the plain functions; "lines_for" and "lines_read" for lines.
local bare = require "bare"
local kind, n = arg[1], tonumber(arg[2])
local msg = ("x"):rep(64)
local fd = bare.connect(tonumber(os.getenv("BENCH_PORTS"):match(kind:find "lines" and "%d+$" or "%d+")))

local cpu, wall = bare.clock()
if kind == "lines_for" then
  local left = n
  for _ in bare.lines(fd) do
    left = left - 1
    if left == 0 then break end
  end
elseif kind == "lines_read" then
  local r = bare.reader(fd)
  for _ = 1, n do r:read() end
elseif kind == "plain" then
  local send, recv = bare.send, bare.recv
  for _ = 1, n do
    send(fd, msg)
    recv(fd, 64)
  end
else
  local s = bare.wrap(fd, kind)
  for _ = 1, n do
    s:send(msg)
    s:recv(64)
  end
end
local cpu2, wall2 = bare.clock()
print(("%.9f %.9f"):format(cpu2 - cpu, wall2 - wall))
