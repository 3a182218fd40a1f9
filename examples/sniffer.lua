-- A packet sniffer on raw sockets, for Linux: prints one line for each packet
-- an interface sees. Needs root (or the capability CAP_NET_RAW).
--
--   sudo lua5.4 examples/sniffer.lua [interface [packets [seconds]]]
--
-- Windows has no AF_PACKET. There, a raw IPv4 socket is told to pass on
-- everything, and what it receives begins with the IP header:
--
--   local host = socket.gethostbyname(socket.gethostname())
--   local s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IP)
--   s:bind {host, 0}
--   s:setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)    -- include IP headers
--   s:ioctl(socket.SIO_RCVALL, socket.RCVALL_ON)             -- receive all packets
--   print(s:recvfrom(65565))
--   s:ioctl(socket.SIO_RCVALL, socket.RCVALL_OFF)            -- and no longer

local socket = require "socket"

local interface = arg[1] or "lo"
local packets = tonumber(arg[2]) or 10
local seconds = tonumber(arg[3]) or math.huge
local ETH_P_ALL = 0x0003
io.stdout:setvbuf "line"

local function flags_of(bits)
  local names = {}
  for i, name in ipairs {"FIN", "SYN", "RST", "PSH", "ACK", "URG"} do
    if bits & 1 << i - 1 ~= 0 then names[#names + 1] = name end
  end
  return table.concat(names, ",")
end

-- What an IP packet carries; each decoder gets the bytes from its header on.
local transport = {
  [1] = function(p) return ("ICMP type %d"):format(p:byte()) end,
  [6] = function(p)
    local from, to, seq, _, offset, bits = string.unpack(">I2I2I4I4BB", p)
    return ("TCP %d > %d seq %d [%s] %d bytes")
      :format(from, to, seq, flags_of(bits), #p - (offset >> 4) * 4)
  end,
  [17] = function(p)
    local from, to, length = string.unpack(">I2I2I2", p)
    return ("UDP %d > %d %d bytes"):format(from, to, length - 8)
  end,
  [58] = function(p) return ("ICMPv6 type %d"):format(p:byte()) end,
}

local function carried(proto, p)
  local decode = transport[proto]
  return decode and decode(p) or ("protocol %d"):format(proto)
end

local network = {
  [0x0800] = function(p)
    local start, _, total, _, fragment, _, proto, _, from, to = string.unpack(">BBI2I2I2BBI2c4c4", p)
    local inner = p:sub((start & 15) * 4 + 1, total)        -- without Ethernet's padding
    return ("%s > %s %s"):format(socket.inet_ntop(socket.AF_INET, from), socket.inet_ntop(socket.AF_INET, to),
      fragment & 0x1fff ~= 0 and "fragment" or carried(proto, inner))
  end,
  [0x0806] = function(p) return "ARP " .. (string.unpack(">I2", p, 7) == 1 and "request" or "reply") end,
  [0x86dd] = function(p)
    local _, length, proto, _, from, to = string.unpack(">I4I2BBc16c16", p)
    return ("%s > %s %s"):format(socket.inet_ntop(socket.AF_INET6, from), socket.inet_ntop(socket.AF_INET6, to),
      carried(proto, p:sub(41, 40 + length)))
  end,
}

local function describe(frame)
  local _, _, kind, start = string.unpack(">c6c6I2", frame)  -- to, from, what follows
  local decode = network[kind]
  return decode and decode(frame:sub(start)) or ("ethertype 0x%04x"):format(kind)
end

if not socket.AF_PACKET then
  io.stderr:write "this sniffer needs AF_PACKET, which only Linux has\n"
  os.exit(1)
end
local s <close>, err = socket.try_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
if not s then
  io.stderr:write(err.code == "EPERM" and "raw sockets are not permitted: try again as root" or tostring(err), "\n")
  os.exit(1)
end
s:bind {interface, ETH_P_ALL}
print(("capturing %d packets on %s"):format(packets, interface))

local deadline = socket.monotonic() + seconds
for n = 1, packets do
  if seconds < math.huge then s:settimeout(math.max(deadline - socket.monotonic(), 0)) end
  local frame, from = s:recvfrom(65535)
  local way = from.pkttype == socket.PACKET_OUTGOING and "out" or "in"
  local ok, text = pcall(describe, frame)                    -- packets may be anything
  print(("%3d %-3s %5d  %s"):format(n, way, #frame, ok and text or "cut short"))
end
