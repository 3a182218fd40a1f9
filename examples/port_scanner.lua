-- Which TCP ports of this machine have somebody listening, and what do they say? Many ports are tried at
-- once, but never more than a given number: that is the group's limit.
--
--   lua5.4 examples/port_scanner.lua [first [last [at_once [host]]]]
--
-- Loopback addresses only: to scan other people's machines is rude.

local socket = require "socket"
local loop = require "socket.loop"

local first, last = tonumber(arg[1] or 1), tonumber(arg[2] or arg[1] or 1024)
local at_once = tonumber(arg[3] or 100)
local host = arg[4] or "127.0.0.1"
local patience, greeting = 1, 0.2       -- seconds for a connection, and for its first words

if not (host == "::1" or host:find "^127%.%d+%.%d+%.%d+$") then error("not a loopback address: " .. host, 0) end
if not (first and last and at_once and 1 <= first and last <= 65535 and at_once >= 1) then
  error("usage: port_scanner.lua [first [last [at_once [host]]]]", 0)
end

local busy, peak, open, closed, silent, failures = 0, 0, {}, 0, 0, {}

-- What a server says unasked, as far as it can be shown.
local function banner(s)
  s:settimeout(greeting)
  local text = s:try_recv(100)
  return text and text:match "^[^\r\n]*":gsub("[^\32-\126]", "?") or ""
end

local function try(port)
  local s <close>, err = socket.try_create_connection({host, port}, patience)
  if not s then
    if err:is(socket.timeout) then silent = silent + 1
    elseif err.code == "ECONNREFUSED" then closed = closed + 1
    else failures[err.code] = (failures[err.code] or 0) + 1 end
  elseif tostring(s:getsockname()) == tostring(s:getpeername()) then
    closed = closed + 1                 -- the system chose this very port for us, and we met ourselves
  else
    local says = banner(s)              -- others run meanwhile, so not inside the next line: #open changes
    open[#open + 1] = {port = port, says = says}
  end
end

local function watched(port)
  busy = busy + 1
  peak = math.max(peak, busy)
  try(port)
  busy = busy - 1
end

local begin = socket.monotonic()
loop.run(function()
  loop.group({limit = at_once}, function(g)
    for port = first, last do g:spawn(watched, port) end     -- waits while the group is full
  end)
end)

table.sort(open, function(a, b) return a.port < b.port end)
for _, found in ipairs(open) do
  local name = socket.try_getservbyport(found.port, "tcp") or "?"
  print(("%5d  %-12s %s"):format(found.port, name, found.says))
end
for code, times in pairs(failures) do print(("%d times %s"):format(times, code)) end
print(("%d ports in %.2f s: %d open, %d closed, %d silent; at most %d at once"):format(
  last - first + 1, socket.monotonic() - begin, #open, closed, silent, peak))
