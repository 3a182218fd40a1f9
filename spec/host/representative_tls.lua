-- What spec/host/allocfail.c runs of TLS: as representative.lua. CERTS names the folder that bench/tls_certs.sh filled.

local socket = require "socket"
local ssl = require "socket.ssl"
local loop = require "socket.loop"

local dir = os.getenv "CERTS" .. "/"
local pool = {}

local function failure(code, f, ...)
  local ok, e = pcall(f, ...)
  assert(not ok)
  if not socket.iserror(e) then error(e, 0) end
  if e.code ~= code then error(e, 0) end
  assert(tostring(e):find(code, 1, true))
  return e
end

local client, server = {}, {}

local function contexts()
  client = ssl.create_default_context {cafile = dir .. "ca.pem"}
  server = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
  server:load_cert_chain(dir .. "server.pem", dir .. "server.key", function() return "unused" end)
  client:set_alpn_protocols {"h2", "http/1.1"}
  server:set_alpn_protocols {"http/1.1"}
end

-- Both ends in memory, the handshake made.
local function over_memory(options)
  options = options or {server_hostname = "localhost"}
  local up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
  local a = client:wrap_bio(down, up, options)
  local b = server:wrap_bio(up, down, {server_side = true})
  for _ = 1, 4 do
    local ok, e = a:try_do_handshake()
    local ok2, e2 = b:try_do_handshake()
    if ok and ok2 then return a, b end
    if e and e.code ~= "EAGAIN" then error(e, 0) end
    if e2 and e2.code ~= "EAGAIN" then error(e2, 0) end
  end
  error "no handshake"
end

-- Both ends on a pair of sockets, by two coroutines.
local function over_sockets(of_client, of_server)
  local x, y = socket.socketpair()
  pool[#pool + 1], pool[#pool + 2] = x, y
  x:settimeout(5)
  y:settimeout(5)
  local ends = {}
  local tasks = {
    coroutine.create(function() ends[1] = client:wrap_socket(x, {server_hostname = of_client}) end),
    coroutine.create(function() ends[2] = server:wrap_socket(y, of_server or {server_side = true}) end),
  }
  socket.setwaithook(function() return coroutine.yield() end)
  local failed
  for _ = 1, 20 do
    for i = 1, 2 do
      if coroutine.status(tasks[i]) == "suspended" then
        local ok, e = coroutine.resume(tasks[i], true)
        if not ok then failed = failed or e end
      end
    end
    if failed or ends[1] and ends[2] then break end
  end
  for i = 1, 2 do coroutine.close(tasks[i]) end
  socket.setwaithook(nil)
  for i = 1, 2 do pool[#pool + 1] = ends[i] end
  if failed then error(failed, 0) end
  return ends[1], ends[2]
end

local parts = {}

function parts.memory()
  local a, b = over_memory()
  assert(a:write "hello" == 5 and b:read(10) == "hello")
  assert(a:selected_alpn_protocol() == "http/1.1" and a:version() == b:version() and a:cipher())
  assert(a:getpeercert().subjectAltName[1][2] == "localhost")
  assert(#a:getpeercert(true) == #a:get_unverified_chain()[1] and #a:get_verified_chain() == 2)
  assert(#a:get_channel_binding "tls-exporter" == 32 and #a:get_channel_binding "tls-server-end-point" > 0)
  assert(#b:shared_ciphers() > 0 and a:group() and a.server_hostname == "localhost")
  failure("EAGAIN", a.read, a, 10)
  local room = socket.buffer(20)
  b:write(("x"):rep(20))
  assert(a:read(20, room) == 20)
  assert(#a.session.id > 0 and a.context == client)
end

function parts.sockets()
  local a, b = over_sockets "localhost"
  a:sendall(("x"):rep(40000))
  assert(#b:recv(40000, socket.MSG_WAITALL) == 40000)
  local f = a:makefile()
  b:sendall "one\ntwo\n"
  assert(f:read() == "one" and f:read() == "two")
  f:close()
  b:shutdown(socket.SHUT_WR)
  assert(a:recv(10) == nil and tostring(a))
  a:close()
  b:close()
end

-- Tasks of a loop; a group, so that nobody waits for one that failed.
function parts.tasks()
  local x, y = socket.socketpair()
  pool[#pool + 1], pool[#pool + 2] = x, y
  loop.run(loop.group, function(g)
    g:spawn(function()
      local s <close> = server:wrap_socket(y, {server_side = true})
      s:sendall((s:recv(100)))
      s:sendall(("x"):rep(40000))
    end)
    local c <close> = client:wrap_socket(x, {server_hostname = "localhost"})
    c:sendall "hello"
    local f <close> = c:makefile()
    assert(f:read(5) == "hello" and #f:read(40000) == 40000)
  end)
end

function parts.refused()
  local e = failure("CERTIFICATE_VERIFY_FAILED", over_memory, {server_hostname = "other.test"})
  assert(e:is(ssl.SSLCertVerificationError) and e.verify_code == 62 and e.server_hostname == "other.test")
  failure("CERTIFICATE_VERIFY_FAILED", over_sockets, "other.test")
  failure("ENOENT", client.load_verify_locations, client, "/nonexistent")
  failure("NO_CIPHER_MATCH", client.set_ciphers, client, "nonsense")
  failure("ENOENT", server.load_cert_chain, server, "/nonexistent")
end

function parts.callbacks()
  local asked
  server.sni_callback = function(s, name, context)
    asked = name
    assert(s.context == context)
  end
  over_memory()
  assert(asked == "localhost")
  server.sni_callback = function() error "refused by the callback" end
  local ok, e = pcall(over_memory)
  server.sni_callback = nil
  assert(not ok)
  if not tostring(e):find "refused by the callback" then error(e, 0) end
  local c, s = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  c.check_hostname = false
  c:set_psk_client_callback(function() return "me", "secret" end)
  s:set_psk_server_callback(function(name) return name == "me" and "secret" or nil end)
  local c0, s0 = client, server
  client, server = c, s
  ok, e = pcall(over_memory, {})
  client, server = c0, s0
  if not ok then error(e, 0) end
end

function parts.functions()
  assert(#ssl.RAND_bytes(10) == 10 and ssl.get_default_verify_paths().openssl_cafile)
  local f <close> = assert(io.open(dir .. "ca.pem"))
  local pem = f:read "a"
  assert(ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pem)) == pem)
  local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
  c:load_verify_locations {cadata = pem}
  assert(#c:get_ca_certs() == 1 and #c:get_ca_certs(true) == 1 and c:cert_store_stats().x509 == 1)
  assert(#c:get_ciphers() > 0 and c:session_stats().number == 0)
end

local names = {"memory", "sockets", "tasks", "refused", "callbacks", "functions"}
for i, name in ipairs {"contexts", table.unpack(names)} do
  local part = i == 1 and contexts or parts[name]
  local ok, e = pcall(part)
  if not ok and (tostring(e):find "memory" or tostring(e):find "stack overflow") then
    socket.setwaithook(nil)
    if i > 1 then server.sni_callback = nil end
    ok, e = pcall(part)
  end
  if not ok then error(name .. ": " .. tostring(e), 0) end
end
for _, s in ipairs(pool) do s:close() end
