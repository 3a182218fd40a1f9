-- Bytes for specs of streams: made, received, and more of them than a connection holds.

local socket = require "socket"

local M = {}

-- Bytes that show it when some are lost, doubled or out of order.
function M.random_bytes(n)
  local pieces = {}
  for i = 1, 8191 do pieces[i] = string.char(math.random(0, 255)) end
  return table.concat(pieces):rep(n // 8191 + 1):sub(1, n)
end

-- Receives n bytes, or to the end of the stream.
function M.collect(s, n)
  local pieces, count = {}, 0
  while not n or count < n do
    local data = s:recv(n and n - count or 65536)
    if not data then break end
    pieces[#pieces + 1] = data
    count = count + #data
  end
  return table.concat(pieces)
end

-- Sends what a socket and its peer hold; returns how much that was.
function M.stuff(s)
  local t = s:gettimeout()
  s:settimeout(0)
  local n = 0
  repeat
    local sent = s:try_send(("x"):rep(4096))
    n = n + (sent or 0)
  until not sent
  s:settimeout(t)
  return n
end

-- Leaves no room for one byte more, also over TCP, which moves bytes on and finds room again; s does not wait any more.
function M.fill(s, peer)
  s:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
  peer:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
  s:settimeout(0)
  repeat
    local sent = false
    while s:try_send(("x"):rep(65536)) do sent = true end
    socket.sleep(0.01)
  until not sent
end

return M
