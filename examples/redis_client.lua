-- Talks to a Redis server in its protocol of lines and counted strings (RESP):
-- a dialogue through makefile.
--
--   lua5.4 examples/redis_client.lua [address [command [argument ...]]]
--   lua5.4 examples/redis_client.lua 127.0.0.1:6379 SET greeting "Hello, world"
--   lua5.4 examples/redis_client.lua /run/redis/redis-server.sock GET greeting
--
-- The address is a host and a port, or the path of a Unix socket. Without a
-- command each line of the standard input is one, and all are sent before the
-- first reply is read.

local socket = require "socket"

local address = arg[1] or "127.0.0.1:6379"

local function connect()
  local host, port = address:match "^(.*):(%d+)$"
  if host then return socket.create_connection({host, tonumber(port)}, 5) end
  return socket.socket(socket.AF_UNIX):settimeout(5):connect(address)
end

-- A command is an array of strings, each with its length before it.
local function send(server, words)
  server:write("*", #words, "\r\n")
  for _, word in ipairs(words) do server:write("$", #word, "\r\n", word, "\r\n") end
end

-- What a reply of the server's kind "error" becomes.
local Error = {__tostring = function(e) return "(error) " .. e.message end}

local function read_line(server)
  local line = assert(server:read "L", "the server has closed the connection")
  return line:match "^(.*)\r\n$" or error "the reply is cut off"
end

-- A reply: a string, an integer, nil, a table of replies, or an Error.
local function receive(server)
  local kind, rest = read_line(server):match "^([+%-:$*])(.*)$"
  if kind == "+" then return rest end
  if kind == "-" then return setmetatable({message = rest}, Error) end
  local n = math.tointeger(tonumber(rest))
  if not n then error "this is not a Redis server" end
  if kind == ":" then return n end
  if n < 0 then return nil end                    -- no such thing
  if kind == "$" then
    local text, tail = server:read(n, 2)          -- the string may have anything in it
    return tail == "\r\n" and text or error "the reply is cut off"
  end
  local list = {n = n}
  for i = 1, n do list[i] = receive(server) end
  return list
end

local function show(reply, indent)
  if type(reply) == "table" and reply.n then
    if reply.n == 0 then print(indent .. "(empty)") end
    for i = 1, reply.n do show(reply[i], indent .. i .. ") ") end
  else
    print(indent .. (type(reply) == "string" and ("%q"):format(reply):gsub("\\\n", "\\n")
      or reply == nil and "(nil)" or tostring(reply)))
  end
end

local conn <close> = connect()
local server <close> = conn:makefile "rw"

local count = 0
local function command(words)
  if #words == 0 then return end
  send(server, words)
  count = count + 1
end

if arg[2] then
  command(table.move(arg, 2, #arg, 1, {}))
else
  for line in io.lines() do
    local words = {}
    for word in line:gmatch "%S+" do words[#words + 1] = word end
    command(words)
  end
end
server:flush()
for _ = 1, count do show(receive(server), "") end
