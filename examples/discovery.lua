-- Finds services without knowing where they are: whoever offers one says so to a multicast group, and
-- answers whoever asks there.
--
--   lua5.4 examples/discovery.lua announce name [seconds [interface [port]]]
--   lua5.4 examples/discovery.lua find [seconds [interface [port]]]
--
-- The interface is one of this machine's IPv4 addresses: 127.0.0.1, where it all stays on this machine
-- and needs no network, or that of a network card. The port is the group's. What is announced is a TCP
-- server of this program that says hello; without seconds, or with 0, until Ctrl-C.
--
-- Everything goes to the group, so that one socket in each program will do: "FIND", "HERE name port" and
-- "GONE name port". The host is the one the datagram came from.

local socket = require "socket"
local loop = require "socket.loop"

local usage = "usage: discovery.lua announce name [seconds [interface [port]]] | find [seconds [interface [port]]]"
local what = arg[1]
local name = what == "announce" and table.remove(arg, 2) or nil
local seconds = tonumber(arg[2] or what == "find" and 2 or 0)
local interface = arg[3] or "127.0.0.1"
local group = {"239.255.77.77", tonumber(arg[4] or 50077)}
if not (what == "find" or name and name:find "^[%w%-]+$" and #name <= 60) or not (seconds and group[2]) then
  error(usage, 0)
end
io.stdout:setvbuf "line"

local function join_group()
  local s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
  -- All programs on this machine share the port, and each gets its copy.
  s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  if socket.SO_REUSEPORT then s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1) end
  s:bind {"", group[2]}
  local to, by = socket.inet_aton(group[1]), socket.inet_aton(interface)
  s:setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, to .. by)
  s:setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, by)
  return s
end

local function say(s, ...)
  local ok, err = s:try_sendto(table.concat({...}, " "), group)
  if not ok then print(err) end         -- the network may be back before the next word
end

local function greet(conn)
  conn:settimeout(5):try_sendall(("Hello from %s\n"):format(name))
  conn:close()
end

local function announce()
  local server <close> = socket.create_server {interface, 0}
  local s <close> = join_group()
  local port = server:getsockname().port

  -- Also on Ctrl-C: a task that ends, for whatever reason, closes what is to be closed.
  local _ <close> = setmetatable({}, {__close = function()
    say(s, "GONE", name, port)
    print("gone")
  end})

  loop.group(function(g)
    g:spawn(loop.group, {limit = 100}, function(visitors)
      while true do
        local conn, peer = server:accept()
        print("visited by " .. tostring(peer))
        visitors:spawn(greet, conn)
      end
    end)
    g:spawn(function()
      while true do
        local message, peer = s:recvfrom(200)
        if message == "FIND" then
          print("asked by " .. peer[1])
          say(s, "HERE", name, port)
        end
      end
    end)
    print("listening on " .. tostring(server:getsockname()))
    say(s, "HERE", name, port)          -- for those who look already
    if seconds > 0 then
      socket.sleep(seconds)
      g:cancel()
    end
  end)
end

-- What comes from the network is not printed as it is.
local function visit(who, host, port)
  local s <close>, err = socket.try_create_connection({host, port}, 2)
  local text
  if s then text, err = s:settimeout(2):try_recv(100) end
  if err then print(("%s does not answer: %s"):format(who, err)) return end
  print(("%s says: %s"):format(who, (text or ""):gsub("[^\32-\126]", "")))
end

local function find()
  local s <close> = join_group()
  local known, count = {}, 0
  loop.group(function(g)
    g:spawn(function()                  -- datagrams get lost: ask again, less and less often
      local pause = 0.1
      while true do
        say(s, "FIND")
        socket.sleep(pause)
        pause = pause * 2
      end
    end)
    g:spawn(function()
      while true do
        local message, peer = s:recvfrom(200)
        local word, who, port = message:match "^(%u+) ([%w%-]+) (%d%d?%d?%d?%d?)$"
        port = tonumber(port)
        local key = port and port <= 65535 and ("%s at %s:%d"):format(who, peer[1], port)
        if not key then word = nil end  -- a question, or nothing we know
        if word == "HERE" and not known[key] and count < 1000 then
          known[key], count = true, count + 1
          print("found " .. key)
          g:spawn(visit, who, peer[1], port)
        elseif word == "GONE" and known[key] then
          known[key], count = nil, count - 1
          print("gone  " .. key)
        end
      end
    end)
    socket.sleep(seconds)
    g:cancel()
  end)
  print(count .. " found")
end

loop.run(what == "find" and find or announce)
