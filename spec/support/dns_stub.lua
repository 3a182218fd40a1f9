-- A DNS server for specs (RFC 1035), made with the library under test: it
-- answers as its zone says, fast, late, wrongly or not at all.
--
--   zone = {
--     ["www.test"] = {A = {"127.0.0.1", "127.0.0.2"}, AAAA = {"::1"}},
--     ["late.test"] = {A = {"127.0.0.1"}, delay = 0.2},           -- seconds
--     ["alias.test"] = {CNAME = "www.test"},
--     ["1.0.0.127.in-addr.arpa"] = {PTR = {"www.test"}},
--     ["broken.test"] = {rcode = "SERVFAIL"},
--     ["silent.test"] = {silent = true},
--     ["fickle.test"] = {turns = {{"192.0.2.1"}, {"127.0.0.1"}}}, -- of A: another answer to each question
--   }
--
-- Names not in the zone get NXDOMAIN, types not there an empty answer.

local socket = require "socket"

local M = {}

local TYPES = {[1] = "A", [5] = "CNAME", [12] = "PTR", [28] = "AAAA"}
local NUMBERS = {A = 1, CNAME = 5, PTR = 12, AAAA = 28}
local RCODES = {NOERROR = 0, FORMERR = 1, SERVFAIL = 2, NXDOMAIN = 3, REFUSED = 5}

-- The labels of a name from position i on, joined by dots; the position after them.
local function read_name(packet, i)
  local labels = {}
  repeat
    local n = packet:byte(i)
    labels[#labels + 1] = packet:sub(i + 1, i + n)
    i = i + 1 + n
  until n == 0
  labels[#labels] = nil
  return table.concat(labels, "."):lower(), i
end

local function write_name(name)
  return (name:gsub("([^.]+)%.?", function(label) return string.pack("s1", label) end)) .. "\0"
end

local WRITE = {
  A = function(text) return socket.inet_pton(socket.AF_INET, text) end,
  AAAA = function(text) return socket.inet_pton(socket.AF_INET6, text) end,
  CNAME = write_name,
  PTR = write_name,
}

-- `name` is nil for the name asked about.
local function record(name, type, value)
  local owner = name and write_name(name) or "\xC0\x0C"
  return owner .. string.pack(">I2 I2 I4 s2", NUMBERS[type], 1, 0, WRITE[type](value))
end

-- The answer to a query: the packet (nil: say nothing), the seconds to wait before it is sent, what was asked.
function M.answer(zone, query)
  local id, flags = string.unpack(">I2 I2", query)
  local name, at = read_name(query, 13)
  local type = TYPES[string.unpack(">I2", query, at)] or "?"
  local entry = zone[name]
  local asked = name .. " " .. type
  if entry and entry.silent then return nil, 0, asked end
  local answers, owner, found = {}, nil, entry
  while found and found.CNAME do
    answers[#answers + 1] = record(owner, "CNAME", found.CNAME)
    owner, found = found.CNAME, zone[found.CNAME]
  end
  local values = found and found[type] or {}
  if found and found.turns and type == "A" then
    found.turn = (found.turn or 0) % #found.turns + 1
    values = found.turns[found.turn]
  end
  for _, value in ipairs(values) do answers[#answers + 1] = record(owner, type, value) end
  local rcode = found and RCODES[found.rcode or "NOERROR"] or RCODES.NXDOMAIN
  return string.pack(">I2 I2 I2 I2 I2 I2", id, 0x8080 | flags & 0x0100 | rcode, 1, #answers, 0, 0)
    .. query:sub(13, at + 3) .. table.concat(answers), entry and entry.delay or 0, asked
end

-- Serves for ever on a UDP socket. Each question is noted by calling heard("www.test A").
function M.serve(zone, s, heard)
  local late = {}                                   -- answers to be sent: {at, packet, peer}
  while true do
    local now, soonest = socket.monotonic(), math.huge
    for i = #late, 1, -1 do
      local l = late[i]
      if l.at <= now then
        s:try_sendto(l.packet, l.peer)
        table.remove(late, i)
      elseif l.at < soonest then
        soonest = l.at
      end
    end
    s:settimeout(soonest < math.huge and soonest - now or nil)
    local query, peer = s:try_recvfrom(65536)
    if query then
      local packet, delay, asked = M.answer(zone, query)
      heard(asked)
      if packet then late[#late + 1] = {at = socket.monotonic() + delay, packet = packet, peer = peer} end
    end
  end
end

return M
