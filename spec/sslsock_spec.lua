-- TLS sockets: handshakes, verification, data both ways, timeouts, coroutines, and peers that others wrote.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep = support.fails, support.keep

after_each(support.close_kept)

local server_context, client_context = tls.server, tls.client

-- A client and a server of this process, connected; options: client, server (contexts), host, session, suppress.
local function pair(options)
  options = options or {}
  local a, b = support.tcp()
  local c = keep((options.client or client_context()):wrap_socket(a, {server_hostname = options.host or "localhost",
    do_handshake_on_connect = false, session = options.session, suppress_ragged_eofs = options.suppress}))
  local s = keep((options.server or server_context()):wrap_socket(b, {server_side = true,
    do_handshake_on_connect = false, suppress_ragged_eofs = options.suppress}))
  local e1, e2 = tls.shake(c, s)
  return c, s, e1, e2
end

local function random_bytes(n)
  local pieces = {}
  for i = 1, 8191 do pieces[i] = string.char(math.random(0, 255)) end
  return table.concat(pieces):rep(n // 8191 + 1):sub(1, n)
end

local function collect(s, n)
  local pieces, count = {}, 0
  while not n or count < n do
    local data = s:recv(n and math.min(n - count, 65536) or 65536)
    if not data then break end
    pieces[#pieces + 1] = data
    count = count + #data
  end
  return table.concat(pieces)
end

for _, version in ipairs {"TLSv1_2", "TLSv1_3"} do
  describe(version .. ":", function()
    local function connected(options)
      options = options or {}
      options.client = options.client or client_context()
      options.client.maximum_version = ssl.TLSVersion[version]
      local c, s, e1, e2 = pair(options)
      assert.is_nil(e1, tostring(e1))
      assert.is_nil(e2, tostring(e2))
      return c, s
    end

    it("bytes travel both ways, and both ends agree on what was negotiated", function()
      local c, s = connected()
      assert.equal(5, c:send "Hello")
      assert.equal("Hello", s:recv(100))
      assert.equal(s, s:sendall "and back")
      assert.equal("and", c:recv(3))
      assert.equal(5, c:pending())
      assert.is_true(c:dirty())
      assert.equal(" back", c:recv(100))
      assert.equal(0, c:pending())
      assert.equal(version:gsub("_", "."), c:version())
      assert.equal(c:cipher(), (s:cipher()))
      assert.equal("localhost", c.server_hostname)
      assert.is_false(c.server_side)
      assert.is_true(s.server_side)
      assert.same({{"countryName", "DE"}}, c:getpeercert().subject[1])
      assert.is_nil(s:getpeercert())
      assert.equal(c:getpeercert(true), c:get_unverified_chain()[1])
      assert.equal(2, #c:get_verified_chain())
      assert.equal(32, #c:get_channel_binding "tls-exporter")
      assert.equal(c:get_channel_binding "tls-exporter", s:get_channel_binding "tls-exporter")
      assert.equal(c:get_channel_binding "tls-server-end-point", s:get_channel_binding "tls-server-end-point")
      assert.equal(c:get_channel_binding(), s:get_channel_binding())
      assert.equal(version == "TLSv1_2", c:get_channel_binding() ~= nil)
    end)

    it("leaves plain bytes after the goodbye alone", function()
      local c, s = connected()
      local size = 60000
      s:sendall(("x"):rep(size)):settimeout(0)
      local plain = keep(socket.fromfd(s:fileno(), socket.AF_INET, socket.SOCK_STREAM))
      local none, e = s:try_unwrap()     -- the goodbye is on its way
      assert.is_nil(none)
      assert.equal("EAGAIN", e.code)
      plain:sendall "after it"
      assert.equal(size, #c:recv(size, socket.MSG_WAITALL))
      local rest = keep(c:unwrap())
      assert.equal("after it", rest:recv(100))
    end)

    it("one recv takes as many records as are there", function()
      local c, s = connected()
      for i = 1, 9 do s:sendall(tostring(i)) end
      socket.sleep(0.02)
      assert.equal("123456789", c:recv(100))
    end)

    it("close says goodbye, and the peer sees the end of the stream", function()
      local c, s = connected {suppress = false}
      c:sendall "last"
      c:close()
      assert.equal("last", s:recv(10))
      assert.is_nil(s:recv(10))
      assert.is_nil(s:recv_into(socket.buffer(4)))
      fails("EBADF", c.recv, c, 1)
    end)

    it("an end without goodbye is an error if so wished", function()
      local c, s = connected {suppress = false}
      socket.close(s:detach())
      local e = fails("UNEXPECTED_EOF_WHILE_READING", c.recv, c, 1)
      assert.is_true(e:is(ssl.SSLEOFError))
      fails("UNEXPECTED_EOF_WHILE_READING", c.recv, c, 1)
      c, s = connected()
      socket.close(s:detach())
      assert.is_nil(c:recv(1))
    end)

    it("shutdown closes one direction, and the other still works", function()
      local c, s = connected {suppress = false}
      c:shutdown(socket.SHUT_WR)
      assert.is_nil(s:recv(1))
      s:sendall "still here"
      assert.equal("still here", c:recv(100))
    end)

    it("unwrap gives the plain socket back", function()
      local c, s = connected()
      s:settimeout(0)
      local _, e = s:try_unwrap()
      assert.equal("EAGAIN", e.code)
      local plain = keep(c:unwrap())
      local other = keep(s:unwrap())
      plain:sendall "in the clear"
      assert.equal("in the clear", other:settimeout(5):recv(100))
      fails("EBADF", c.send, c, "x")
    end)

    it("a session is resumed", function()
      local client, server = client_context(), server_context()
      local c, s = connected {client = client, server = server}
      s:sendall "x"
      c:recv(1)
      local session = c.session
      assert.is_false(c.session_reused)
      assert.is_true(session.has_ticket)
      local again = connected {client = client, server = server, session = session}
      assert.is_true(again.session_reused)
      assert.has_error(function() pair {session = session} end)
    end)

    it("large amounts go both ways at once, in coroutines", function()
      local c, s = connected()
      local data = random_bytes(3000000)
      local S = support.scheduler(pending)
      local got = {}
      c:settimeout(20)
      s:settimeout(20)
      S.spawn(function() c:sendall(data) end)
      S.spawn(function() s:sendall(data) end)
      S.spawn(function() got[1] = collect(c, #data) end)
      S.spawn(function() got[2] = collect(s, #data) end)
      S.run()
      assert.is_true(got[1] == data)
      assert.is_true(got[2] == data)
    end)

    it("files read lines and write", function()
      local c, s = connected()
      local w, r = c:makefile "w", s:makefile()
      w:write("one\n", "two\n", 3):close()
      c:shutdown(socket.SHUT_WR)
      assert.equal("one", r:read())
      assert.equal("two\n", r:read "L")
      assert.equal(3, r:read "n")
      assert.is_nil(r:read())
      r:close()
    end)

    it("sendfile copies", function()
      local c, s = connected()
      local name = os.tmpname()
      local f = io.open(name, "w")
      f:write(("0123456789"):rep(5000))
      f:close()
      local S = support.scheduler(pending)
      S.spawn(function() assert.equal(49990, c:sendfile(name, 10)) end)
      S.spawn(function() assert.equal(49990, #collect(s, 49990)) end)
      S.run()
      os.remove(name)
    end)

    it("a certificate of the client is verified", function()
      local server, client = server_context(), client_context()
      server:load_verify_locations(certs.path "ca.pem")
      server.verify_mode = ssl.CERT_REQUIRED
      client:load_cert_chain(certs.path "client.pem", certs.path "client.key")
      local _, s = connected {server = server, client = client}
      assert.same({{"email", "me@example.test"}}, s:getpeercert().subjectAltName)
      assert.equal(s:getpeercert(true), s:get_unverified_chain()[1])
      local c, _, _, e = pair {server = server}
      assert.equal("PEER_DID_NOT_RETURN_A_CERTIFICATE", e.code)
      if version == "TLSv1_3" then
        assert.equal("TLSV13_ALERT_CERTIFICATE_REQUIRED", fails("TLSV13_ALERT_CERTIFICATE_REQUIRED", c.recv, c, 1).code)
      end
    end)
  end)
end

describe("verification refuses", function()
  for name, expected in pairs {
    expired = 10, self_signed = 18, untrusted = 20, purpose = 26, common_name = false, server = false,
  } do
    it(name .. (expected and "" or " (accepted)"), function()
      local c, _, e, e2 = pair {server = server_context(name)}
      if not expected then return assert.is_nil(e, tostring(e)) end
      assert.equal("CERTIFICATE_VERIFY_FAILED", e.code)
      assert.equal(expected, e.verify_code)
      assert.equal("localhost", e.server_hostname)
      assert.is_true(e:is(ssl.SSLCertVerificationError))
      assert.is_true(e:is(ssl.SSLError))
      assert.is_true(e:is(socket.error))
      assert.matches(e.verify_message, e.message, 1, true)
      assert.equal("SSL", e.library)
      assert.matches("ALERT", e2.code)
      assert.equal(e.code, select(2, c:try_send "x").code)     -- again and again
    end)
  end

  it("another host's name", function()
    for host, code in pairs {["other.test"] = 62, ["a.b.wild.test"] = 62, ["wild.test"] = 62, ["127.0.0.2"] = 64,
        ["a.wild.test"] = false, ["127.0.0.1"] = false, ["::1"] = false, ["LOCALHOST"] = false} do
      local _, _, e = pair {host = host}
      assert.equal(code, e and e.verify_code or false, host)
    end
  end)

  it("a common name where only alternative names count", function()
    local ctx = client_context()
    ctx.hostname_checks_common_name = false
    local _, _, e = pair {client = ctx, server = server_context "common_name"}
    assert.equal(62, e.verify_code)
  end)

  it("names with zero bytes, empty ones, and options that do not exist", function()
    local a, b = support.tcp()
    keep(a, b)
    local ctx = client_context()
    for _, options in ipairs {{server_hostname = "local\0host"}, {server_hostname = ""}, {server_hostname = ".x"}, {},
        {server_hostname = "x", hostname = "x"}, {server_side = true}, {server_hostname = 1}} do
      local ok, e = pcall(ctx.wrap_socket, ctx, a, options)
      assert.is_false(ok)
      assert.equal("string", type(e))
    end
    assert.is_true(a:fileno() >= 0)   -- still whose it was
  end)
end)

describe("a TLS socket", function()
  it("times out within the handshake, and is closed with its descriptor", function()
    local a, b = support.tcp()
    keep(b)
    collectgarbage()
    local before = support.descriptors()
    a:settimeout(0.05)
    local ctx = client_context()
    local t = socket.monotonic()
    local e = fails("ETIMEDOUT", ctx.wrap_socket, ctx, a, {server_hostname = "localhost"})
    assert.is_true(e:is(socket.timeout))
    assert.is_true(socket.monotonic() - t >= 0.05)
    assert.equal(-1, a:fileno())
    assert.equal(before - 1, support.descriptors())
  end)

  it("times out in recv, and goes on afterwards", function()
    local c, s = pair()
    c:settimeout(0.03)
    fails("ETIMEDOUT", c.recv, c, 1)
    s:sendall "now"
    assert.equal("now", c:recv(10))
    c:settimeout(0)
    local e = fails("EAGAIN", c.recv, c, 1)
    assert.is_true(e:is(ssl.SSLWantReadError))
    local _, e2 = c:try_recv(1)
    assert.equal("EAGAIN", e2.code)
  end)

  it("sendall says how far it came, and the rest can follow", function()
    local c, s = pair()
    c:settimeout(0.05)
    local data = random_bytes(8000000)
    local e = fails("ETIMEDOUT", c.sendall, c, data)
    assert.is_true(e.sent > 0 and e.sent < #data)
    local S = support.scheduler(pending)
    local got
    c:settimeout(20)
    s:settimeout(20)
    S.spawn(function() c:sendall(data:sub(e.sent + 1)) end)
    S.spawn(function() got = collect(s, #data) end)
    S.run()
    assert.is_true(got == data)
  end)

  it("refuses what has no meaning over TLS", function()
    local c = pair()
    fails("EOPNOTSUPP", c.recvfrom, c, 1)
    fails("EOPNOTSUPP", c.sendto, c, "x", {"127.0.0.1", 1})
    fails("EOPNOTSUPP", c.recvmsg, c, 1)
    fails("EOPNOTSUPP", c.sendmsg, c, {"x"})
    fails("EOPNOTSUPP", c.dup, c)
    fails("EOPNOTSUPP", c.recv, c, 1, socket.MSG_OOB)
    fails("EOPNOTSUPP", c.send, c, "x", socket.MSG_OOB)
    assert.has_error(function() client_context():wrap_socket(c, {server_hostname = "x"}) end)
    assert.has_error(function() c.session = 1 end)
    assert.has_error(function() c.nonsense = 1 end)
  end)

  it("peeks, waits for all, and reads into buffers", function()
    local c, s = pair()
    s:sendall "abcdef"
    assert.equal("abc", c:recv(3, socket.MSG_PEEK))
    assert.equal("abc", c:recv(3, socket.MSG_WAITALL))
    local b = socket.buffer(10)
    assert.equal(2, c:read(2, b))
    assert.equal("de", b:sub(1, 2))
    assert.equal("f", c:read())
    assert.equal("", c:recv(0))
    assert.equal(0, c:send "")
    assert.equal(2, c:write "hi")
    assert.equal("hi", s:read(5))
  end)

  it("closed while a coroutine waits wakes it", function()
    local c = pair()
    local S = support.scheduler(pending)
    local code
    S.spawn(function()
      local _, e = c:try_recv(1)
      code = e.code
    end)
    S.spawn(function()
      socket.sleep(0.01)
      c:close()
    end)
    S.run()
    assert.equal("ECANCELED", code)
  end)

  it("connects and accepts as plain ones do", function()
    local listener = keep(server_context():wrap_socket(socket.create_server {"127.0.0.1", 0}, {server_side = true}))
    local c = keep(client_context():wrap_socket(socket.socket(), {server_hostname = "localhost"}))
    local S = support.scheduler(pending)
    local conn
    c:settimeout(5)
    listener:settimeout(5)
    S.spawn(function()
      conn = keep((listener:accept()))
      conn:sendall "welcome"
    end)
    S.spawn(function()
      c:connect(listener:getsockname())
      assert.equal("welcome", c:recv(10))
    end)
    S.run()
    assert.equal("TLSv1.3", c:version())
    assert.is_true(conn.server_side)
  end)

  it("finds the context by the name asked for", function()
    local server, second = server_context(), server_context "second"
    local seen
    server.sni_callback = function(sock, name, ctx)
      seen = {sock, name, ctx}
      if name == "second.test" then sock.context = second end
      if name == "none.test" then return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME end
      if name == "error.test" then error({"mine"}) end
      if name == "odd.test" then return "odd" end
    end
    local c, s, e = pair {server = server, host = "second.test"}
    assert.is_nil(e, tostring(e))
    assert.same({s, "second.test", server}, seen)
    assert.equal(second, s.context)
    assert.equal("second.test", c:getpeercert().subjectAltName[1][2])
    assert.is_nil(select(3, pair {server = server}))
    assert.equal("TLSV1_UNRECOGNIZED_NAME", select(3, pair {server = server, host = "none.test"}).code)
    for host, message in pairs {["error.test"] = "mine", ["odd.test"] = "must return"} do
      local ok, raised = pcall(pair, {server = server, host = host})
      assert.is_false(ok)
      assert.matches(message, type(raised) == "table" and raised[1] or raised)
    end
  end)

  it("agrees on a protocol", function()
    local server, client = server_context(), client_context()
    server:set_alpn_protocols {"h2", "http/1.1"}
    client:set_alpn_protocols {"http/1.1"}
    local c, s = pair {server = server, client = client}
    assert.equal("http/1.1", c:selected_alpn_protocol())
    assert.equal("http/1.1", s:selected_alpn_protocol())
    assert.is_nil(pair():selected_alpn_protocol())
  end)

  it("asks for a certificate after the handshake", function()
    local server, client = server_context(), client_context()
    server:load_verify_locations(certs.path "ca.pem")
    client:load_cert_chain(certs.path "client.pem", certs.path "client.key")
    client.post_handshake_auth, server.post_handshake_auth = true, true
    server.verify_mode = ssl.CERT_REQUIRED
    local c, s, e = pair {server = server, client = client}
    assert.is_nil(e, tostring(e))
    assert.is_nil(s:getpeercert())
    s:verify_client_post_handshake()
    s:sendall "who are you?"
    assert.equal("who are you?", c:recv(100))
    c:sendall "me"
    assert.equal("me", s:recv(100))
    assert.equal("client", s:getpeercert().subject[1][1][2])
  end)

  it("leaves nothing behind in a state that ends within a handshake", function()
    local text, status = support.run(([[
      local socket = require "socket"
      local ctx = socket.ssl.create_default_context {cafile = %q}
      local a, b = socket.socketpair()
      local c = ctx:wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}):settimeout(0)
      c:try_do_handshake()
      local co = coroutine.wrap(function() c:settimeout(5):do_handshake() end)
      socket.setwaithook(function() return coroutine.yield() end)
      co()
      local listener = ctx
      print "ends"
    ]]):format(certs.path "ca.pem"))
    assert.equal(0, status, text)
    assert.equal("ends\n", text)
  end)

  it("does not grow with its connections", function()
    local function once()
      pair()
      support.close_kept()     -- which also forgets them
    end
    for _ = 1, 3 do once() end
    local before = support.descriptors()
    collectgarbage()
    local memory = collectgarbage "count"
    for _ = 1, 30 do once() end
    assert.equal(before, support.descriptors())
    collectgarbage()
    assert.is_true(collectgarbage "count" - memory < 10)
  end)
end)

describe("what was agreed", function()
  it("is nil before the handshake and after the end", function()
    local a, b = support.tcp()
    keep(b)
    local c = keep(client_context():wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}))
    local function nothing()
      for _, name in ipairs {"version", "cipher", "group", "compression", "shared_ciphers", "selected_alpn_protocol",
          "getpeercert", "get_channel_binding"} do
        assert.is_nil((c[name](c)), name)
      end
      assert.same({}, c:get_verified_chain())
      assert.same({}, c:get_unverified_chain())
      assert.equal(0, c:pending())
    end
    nothing()
    c:close()
    nothing()
    assert.is_nil(c.session)
    assert.is_nil(c.session_reused)
  end)

  it("is known to both ends", function()
    local client, server = client_context(), server_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    server:set_groups "P-256"
    local name = os.tmpname()
    client.keylog_filename = name
    local c, s = pair {client = client, server = server}
    assert.equal("secp256r1", c:group())
    assert.equal(c:cipher(), s:shared_ciphers()[1][1])
    assert.is_nil(c:shared_ciphers())
    client.keylog_filename = nil
    local f <close> = io.open(name)
    assert.matches("^CLIENT_RANDOM %x+ %x+\n$", f:read "a")
    os.remove(name)
    local session = c.session
    assert.is_true(#session.id > 0 or session.has_ticket)
    assert.is_true(math.abs(session.time - os.time()) < 10)
    assert.is_true(session.timeout > 0)
    assert.is_true(session.ticket_lifetime_hint >= 0)
    assert.is_nil(session.nonsense)
  end)

  it("a session can be set before the handshake", function()
    local client, server = client_context(), server_context()
    local c, s = pair {client = client, server = server}
    s:sendall "x"
    c:recv(1)
    local session = c.session
    assert.has_error(function() c.session = session end)
    local a, b = support.tcp()
    local again = keep(client:wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}))
    again.session = session
    local other = keep(server:wrap_socket(b, {server_side = true, do_handshake_on_connect = false}))
    assert.is_nil((tls.shake(again, other)))
    assert.is_true(other.session_reused)
  end)
end)

describe("socket.ssl(sock)", function()
  it("reads n bytes, or all to the end, and verifies nothing", function()
    local server = socket.create_server {"127.0.0.1", 0}
    keep(server)
    local p = support.start(([[
      local socket = require "socket"
      local s = socket.create_connection({"127.0.0.1", %d}, 5)
      local t = socket.ssl(s)
      print(s:fileno() == -1)
      print(t:write "ping")
      print(t:read(3))
      print(t:read())
      print(t:read(1))
      t:close()
    ]]):format(server:getsockname().port))
    local conn = keep(server_context "self_signed":wrap_socket((server:accept()), {server_side = true}))
    assert.equal("ping", conn:recv(10))
    conn:sendall "Hello, "
    conn:sendall "world"
    conn:close()
    assert.equal("true\n4\nHel\nlo, world\nnil\n", p:read "a")
    p:close()
  end)
end)
