-- A chat: what one says all others read. Every client has a task that reads and one that writes.
--
--   lua5.4 examples/chat_server.lua [host [port [guests]]]
--   nc 127.0.0.1 50008        (/nick name, /who, /quit; everything else is said)
--
-- Nobody waits for a slow reader: lines go into a queue for each client, and who lets that fill up is put out. After
-- the last of so many guests has left, the server stops.

local socket = require "socket"
local loop = require "socket.loop"
local server = require "socket.server"

local guests = tonumber(arg[3]) or math.huge
local QUEUE = 100                                -- lines for one client
io.stdout:setvbuf "line"

local members, arrived = {}, 0

local function names()
  local list = {}
  for member in pairs(members) do list[#list + 1] = member.name end
  table.sort(list)
  return list
end

local function tell(member, line)
  if #member.queue < QUEUE then
    member.queue:put(line)
  elseif members[member] then
    members[member] = nil                        -- before others are told, who may be slow as well
    member.request:try_shutdown(socket.SHUT_RDWR)
  end
end

local function tell_all(line, but)
  if line:find "^%*" then print(line) end        -- what is said stays among them
  local list = {}
  for member in pairs(members) do list[#list + 1] = member end
  for _, member in ipairs(list) do
    if member ~= but then tell(member, line) end
  end
end

local Chat = server.StreamRequestHandler:extend {
  line_limit = 1000,
  wbufsize = 4096,
}

local commands = {}

function commands.nick(self, name)
  if not name:find "^[%w_-]+$" or #name > 20 then return tell(self, "* a name is up to 20 letters, digits, _ and -") end
  for member in pairs(members) do
    if member.name == name then return tell(self, "* there is a " .. name .. " already") end
  end
  local former = self.name
  self.name = name
  tell_all(("* %s is now %s"):format(former, name))
end

function commands.who(self) tell(self, "* here: " .. table.concat(names(), ", ")) end

function commands.quit() return true end

-- Writes until the queue is closed and empty; what piles up meanwhile leaves in one piece.
local function write(self)
  for line in function() return self.queue:get() end do
    self.wfile:write(line, "\n")
    if #self.queue == 0 then self.wfile:flush() end
  end
end

-- Reads until the client leaves. It is idle all the time: when the server stops, the stream ends.
local function read(self)
  for line in function() return self.server:idle(self.rfile.read, self.rfile) end do
    line = line:gsub("%c", "")
    local command, rest = line:match "^/(%a+)%s*(.-)%s*$"
    if not command then
      if line ~= "" then tell_all(("%s: %s"):format(self.name, line), self) end
    elseif not commands[command] then
      tell(self, "* there are /nick name, /who and /quit")
    elseif commands[command](self, rest) then
      return
    end
  end
end

function Chat:handle()
  arrived = arrived + 1
  self.name = "guest" .. arrived
  self.queue = loop.queue()
  local tasks <close> = loop.group()
  tasks:spawn(write, self)
  members[self] = true
  tell(self, ("* welcome, %s; there are %d of you"):format(self.name, #names()))
  tell_all(("* %s has come"):format(self.name), self)
  local ok, e = pcall(read, self)
  members[self] = nil
  tell_all(("* %s has left"):format(self.name))
  self.queue:close()
  if not ok then error(e, 0) end
end

function Chat:finish()
  server.StreamRequestHandler.finish(self)
  if arrived >= guests and next(members) == nil then self.server:shutdown() end
end

local s <close> = server.TaskTCPServer({arg[1] or "127.0.0.1", tonumber(arg[2]) or 50008}, Chat, {
  idle_timeout = 3600,
  handle_error = function(_, _, client_address, e) print(("(%s: %s)"):format(client_address, tostring(e))) end,
})
print("listening on " .. tostring(s.server_address))
s:serve_forever()
