-- A small HTTPS server that greets.
--
--   lua5.4 examples/https_server.lua cert.pem key.pem [host [port [requests]]]
--   curl --cacert ca.pem https://localhost:8443/
--
-- One client at a time, and none for long: handshake and request must be over
-- within ten seconds each.

local socket = require "socket"
local ssl = socket.ssl

local ctx = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
ctx:load_cert_chain(assert(arg[1], "usage: https_server.lua cert.pem key.pem [host [port [requests]]]"), arg[2])
local requests = tonumber(arg[5]) or math.huge
io.stdout:setvbuf "line"

local function serve(plain)
  plain:settimeout(10)
  local conn <close> = ctx:wrap_socket(plain, {server_side = true})
  local file <close> = conn:makefile "rw"
  local request = file:read()
  repeat
    local line = file:read()
  until not line or line == "\r" or line == ""
  local body = "Hello over " .. conn:version() .. "\n"
  file:write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ", #body, "\r\n\r\n",
    body)
  return request
end

local server <close> = socket.create_server {arg[3] or "127.0.0.1", tonumber(arg[4]) or 8443}
print("listening on " .. tostring(server:getsockname()))

for _ = 1, requests do
  local plain <close>, peer = server:accept()
  local ok, result = pcall(serve, plain)
  if not ok and not socket.iserror(result) then error(result, 0) end
  print(("%s %s"):format(peer, ok and ("%q"):format(result) or tostring(result)))
end
