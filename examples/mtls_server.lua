-- Mutual TLS: an HTTPS server that asks its clients for a certificate too, and
-- greets them by the name in it. Without one nobody gets in.
--
--   sh examples/make_certs.sh certs
--   cd certs
--   lua5.4 ../examples/mtls_server.lua ca.pem server.pem server.key [host [port [connections]]]
--   lua5.4 ../examples/mtls_client.lua localhost 8444 ca.pem client.pem client.key
--   curl --cacert ca.pem --cert client.pem --key client.key https://localhost:8444/
--
-- ca.pem says whose word on the clients' names is taken. That a client is
-- known does not say what it may do: that would be decided in serve().

local socket = require "socket"
local ssl = socket.ssl

if not arg[3] then error("usage: mtls_server.lua ca.pem cert.pem key.pem [host [port [connections]]]", 0) end
local host = arg[4] or "127.0.0.1"
local port = tonumber(arg[5]) or 8444
local connections = tonumber(arg[6]) or math.huge
local patience, most = 10, 8192                   -- seconds, bytes of a request
io.stdout:setvbuf "line"

local ctx = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH, cafile = arg[1]}
ctx.verify_mode = ssl.CERT_REQUIRED               -- or CERT_OPTIONAL, and look at getpeercert()
ctx:load_cert_chain(arg[2], arg[3])

-- The common name in a verified certificate, and its first e-mail address.
local function who(cert)
  local name, mail
  for _, group in ipairs(cert.subject) do
    for _, part in ipairs(group) do
      if part[1] == "commonName" then name = part[2] end
    end
  end
  for _, other in ipairs(cert.subjectAltName or {}) do
    if other[1] == "email" then mail = mail or other[2] end
  end
  return (("%s <%s>"):format(name or "nameless", mail or "no address"):gsub("%c", "?"))
end

local function serve(plain)
  plain:settimeout(patience)
  local conn <close> = ctx:wrap_socket(plain, {server_side = true})
  local guest = who(conn:getpeercert())
  local deadline, head = socket.monotonic() + patience, ""
  repeat
    conn:settimeout(math.max(deadline - socket.monotonic(), 0.001))
    local data = conn:recv(2048)
    if not data then return guest .. ", who asked nothing" end
    head = head .. data
  until head:find("\r\n\r\n", 1, true) or #head > most
  local body = "Hello, " .. guest .. "\n"
  local answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
  conn:sendall(answer:format(#body, body))
  return guest
end

local server <close> = socket.create_server {host, port}
print("listening on " .. tostring(server:getsockname()))

for _ = 1, connections do
  local plain <close>, peer = server:accept()
  local ok, result = pcall(serve, plain)
  if not ok and not socket.iserror(result) then error(result, 0) end
  print(("%s %s %s"):format(ok and "welcome:" or "refused:", peer, result))
end
