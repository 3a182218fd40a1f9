-- A state that ends while TLS handshakes are under way. spec/sslsock_spec.lua runs it, also under ASan: CERTS is a folder with
-- ca.pem, server.pem and server.key.
local socket = require "socket"
local ssl = socket.ssl
local how, dir = arg[1], os.getenv "CERTS" .. "/"

local client = ssl.create_default_context {cafile = dir .. "ca.pem"}
local server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server:load_cert_chain(dir .. "server.pem", dir .. "server.key")
local x, y = socket.socketpair()
local options = {server_hostname = "localhost", do_handshake_on_connect = false}
local a = client:wrap_socket(x, options)
local b = server:wrap_socket(y, {server_side = true, do_handshake_on_connect = false})

if how == "callback" then -- in the middle of OpenSSL's own work
  server.sni_callback = function()
    print "ends"
    os.exit(true, true)
  end
end
if how == "plain" then
  a:settimeout(0)
  b:settimeout(0)
  assert(a:try_do_handshake() == nil)
  assert(b:try_do_handshake() == nil)
else
  socket.setwaithook(function() return coroutine.yield() end, function() end)
  local one = coroutine.create(function() a:do_handshake() end)
  local two = coroutine.create(function() b:do_handshake() end)
  assert(coroutine.resume(one))
  assert(coroutine.status(one) == "suspended")
  if how == "callback" then assert(coroutine.resume(two)) end
  _G.keep = {one, two}
  if how == "abandoned" then -- nobody knows them any more, and the collector ends them in any order
    _G.keep, one, two, a, b, client, server, x, y = nil, nil, nil, nil, nil, nil, nil, nil, nil
    collectgarbage()
    collectgarbage()
  end
end
print "ends"
os.exit(true, true)
