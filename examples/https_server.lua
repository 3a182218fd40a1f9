-- A small HTTPS server that greets.
--
--   sh examples/make_certs.sh certs
--   lua5.4 examples/https_server.lua certs/server.pem certs/server.key [host [port [requests]]]
--   curl --cacert certs/ca.pem https://localhost:8443/
--   lua5.4 examples/https_get.lua https://localhost:8443/ certs/ca.pem
--
-- One client at a time, and none for long: the handshake must be over within
-- ten seconds, and so must the request.

local socket = require "socket"
local ssl = socket.ssl

local cert = assert(arg[1], "usage: https_server.lua cert.pem key.pem [host [port [requests]]]")
local host = arg[3] or "127.0.0.1"
local port = tonumber(arg[4]) or 8443
local requests = tonumber(arg[5]) or math.huge
local patience, most = 10, 8192                   -- seconds, bytes of a request
io.stdout:setvbuf "line"

local ctx = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
ctx:load_cert_chain(cert, arg[2])

-- The first line of a request, or nil. What a client may do is bounded in time
-- and size, whatever the pieces it sends.
local function read_request(conn)
  local deadline, head = socket.monotonic() + patience, ""
  repeat
    conn:settimeout(math.max(deadline - socket.monotonic(), 0.001))
    local data = conn:recv(2048)
    if not data then return nil end
    head = head .. data
  until head:find("\r\n\r\n", 1, true) or #head > most
  return head:match "^(%u+ %S+ HTTP/1%.[01])\r\n.*\r\n\r\n"
end

local function serve(plain)
  plain:settimeout(patience)
  local conn <close> = ctx:wrap_socket(plain, {server_side = true})    -- the handshake
  local request = read_request(conn)
  local status = request and "200 OK" or "400 Bad Request"
  local body = request and "Hello over " .. conn:version() .. "\n" or status .. "\n"
  conn:settimeout(patience)
  conn:sendall(("HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"):format(
    status, #body, body))
  return request and ("%q"):format(request) or status
end

local server <close> = socket.create_server {host, port}
print("listening on " .. tostring(server:getsockname()))

for _ = 1, requests do
  local plain <close>, peer = server:accept()
  local ok, result = pcall(serve, plain)
  if not ok and not socket.iserror(result) then error(result, 0) end
  print(("%s %s"):format(peer, result))           -- also why a handshake failed
end
