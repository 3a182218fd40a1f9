-- A state that ends while TLS handshakes are under way; spec/ssl_spec.lua runs it, also under ASan. CERTS is a folder
-- with ca.pem, server.pem and server.key.
local socket = require "socket"
local ssl = socket.ssl
local how, dir = arg[1], os.getenv "CERTS" .. "/"

local function ends()
  print "ends"
  os.exit(true, true)
end

local function begin()
  local client = ssl.create_default_context {cafile = dir .. "ca.pem"}
  local server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  server:load_cert_chain(dir .. "server.pem", dir .. "server.key")
  local x, y = socket.socketpair()
  local a = client:wrap_socket(x, {server_hostname = "localhost", do_handshake_on_connect = false})
  local b = server:wrap_socket(y, {server_side = true, do_handshake_on_connect = false})
  if how == "callback" then server.sni_callback = ends end -- in the middle of OpenSSL's own work
  if how == "plain" then
    a:settimeout(0)
    b:settimeout(0)
    assert(a:try_do_handshake() == nil)
    assert(b:try_do_handshake() == nil)
    return a, b
  end
  socket.setwaithook(function() return coroutine.yield() end, function() end)
  local one = coroutine.create(function() a:do_handshake() end)
  local two = coroutine.create(function() b:do_handshake() end)
  assert(coroutine.resume(one))
  assert(coroutine.status(one) == "suspended")
  if how == "callback" then assert(coroutine.resume(two)) end
  return one, two
end

if how == "abandoned" then -- nobody knows them any more
  begin()
  collectgarbage()
  collectgarbage()
else
  _G.keep = {begin()}
end
ends()
