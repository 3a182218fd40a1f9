-- The client of mtls_server.lua: verifies the server, and shows it a
-- certificate of its own.
--
--   lua5.4 examples/mtls_client.lua host port ca.pem [cert.pem key.pem]
--
-- Without a certificate it is refused. With TLS 1.3 it hears of that only
-- after its own handshake, when it sends or waits for the answer: from the
-- server's alert, or by a reset.

local socket = require "socket"
local ssl = socket.ssl

local host, port, ca, cert, key = table.unpack(arg)
if not ca then error("usage: mtls_client.lua host port ca.pem [cert.pem key.pem]", 0) end
local patience = 10

local ctx = ssl.create_default_context {cafile = ca}
if cert then ctx:load_cert_chain(cert, key) end

local function ask()
  local plain = socket.create_connection({host, tonumber(port)}, patience)
  local s <close> = ctx:wrap_socket(plain, {server_hostname = host, suppress_ragged_eofs = false})
  s:sendall("GET / HTTP/1.0\r\nHost: " .. host .. "\r\n\r\n")
  local pieces = {}
  for data in function() return s:recv(4096) end do pieces[#pieces + 1] = data end
  return (table.concat(pieces):gsub("^.-\r\n\r\n", ""))
end

local ok, result = pcall(ask)
if ok then
  io.write("the server says: ", result)
elseif socket.iserror(result) then
  print(("refused: %s (%s)"):format(result.message, result.code))
  os.exit(1)
else
  error(result, 0)
end
