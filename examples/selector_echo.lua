-- An echo server for many clients at once, on a selector: it says what is ready, and this program keeps
-- track of who is in the middle of what. examples/chat_server.lua leaves that to a loop's tasks.
--
--   lua5.4 examples/selector_echo.lua [host [port [connections]]]
--
-- Stops when that many connections have come and gone. Its client: echo_client.lua.

local socket = require "socket"
local selectors = require "socket.selectors"
local READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 50007)
local connections = tonumber(arg[3]) or math.huge
io.stdout:setvbuf "line"

local sel <close> = selectors.DefaultSelector()
local open, gone = 0, 0

local function part(client, why)
  sel:unregister(client.conn)
  client.conn:close()
  open, gone = open - 1, gone + 1
  print(("%s: echoed %d bytes%s"):format(client.peer, client.bytes, why and ", " .. tostring(why) or ""))
end

-- A client has either bytes to receive or bytes that wait for it to take them; not both, so that one who
-- sends and never reads fills its own buffers and not our memory.
local function echo(client)
  if client.waiting == "" then
    local data, err = client.conn:try_recv(65536)
    if err and err.code == "EAGAIN" then return end
    if not data then return part(client, err) end
    client.waiting = data
  end
  local sent, err = client.conn:try_send(client.waiting)
  if not sent then
    if err.code ~= "EAGAIN" then return part(client, err) end
    sent = 0
  end
  client.bytes = client.bytes + sent
  client.waiting = client.waiting:sub(sent + 1)
  sel:modify(client.conn, client.waiting == "" and READ or WRITE, client)
end

local server <close> = socket.create_server {host, port}
server:settimeout(0)
sel:register(server, READ)
print("listening on " .. tostring(server:getsockname()))

while gone < connections do
  for key in sel:select() do
    if key.fileobj == server then
      local conn, peer = server:try_accept()
      if conn then
        open = open + 1
        print(("%s: connected, %d open"):format(peer, open))
        conn:settimeout(0)
        sel:register(conn, READ, {conn = conn, peer = tostring(peer), bytes = 0, waiting = ""})
      elseif peer.code ~= "EAGAIN" then print(peer) end    -- gone again, or too many are open
    else
      echo(key.data)
    end
  end
end
