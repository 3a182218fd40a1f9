-- TLS asked for odd things: callbacks that meddle, questions in the middle of a handshake, sessions of somebody else.

local h = require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep = support.fails, support.keep

after_each(tls.clean)

local function refuses(message, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.matches(message, tostring(e), 1, true)
end

-- Two ends over memory, and the queues between them: from the server, from the client.
local function over_memory(client, server)
  local down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
  local c = client:wrap_bio(down, up, {server_hostname = "localhost"})
  return c, server:wrap_bio(up, down, {server_side = true}), down, up
end

-- What the other end gets, one byte after the other; f is called after each.
local function byte_by_byte(queue, f)
  for byte in queue:read():gmatch "." do
    queue:write(byte)
    f()
  end
end

-- A certificate's text that claims to be encrypted.
local function encrypted(kind)
  return ("-----BEGIN %s-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n%s")
    :format(kind, certs.read "ca.pem":match "\n(.*)":gsub("CERTIFICATE", kind))
end

describe("certificates that claim to be encrypted", function()
  it("are refused, and nobody is asked for a password", function()
    local code = [[
      local ssl = require "socket.ssl"
      local text = io.open(arg[1]):read "a"
      local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      print((pcall(ssl.PEM_cert_to_DER_cert, text)))
      print((pcall(ctx.load_verify_locations, ctx, nil, nil, text)))
      print((pcall(ctx.load_verify_locations, ctx, arg[1])))
      print((pcall(ctx.load_cert_chain, ctx, arg[1])))
      print((pcall(ctx.load_dh_params, ctx, arg[2])))
    ]]
    local one, two = tls.file("encrypted.txt", encrypted "CERTIFICATE"), tls.file("dh.txt", encrypted "DH PARAMETERS")
    local text, status = support.run(code, {before = "setsid", args = h.quote(one) .. " " .. h.quote(two)})
    assert.equal(("false\n"):rep(5), text)
    assert.equal(0, status)
  end)
end)

describe("a password", function()
  it("that is too long is called that", function()
    local path = certs.encrypted("server", "x")
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    refuses("longer than", ctx.load_cert_chain, ctx, certs.path "server.pem", path, ("x"):rep(5000))
    assert.equal(ctx, ctx:load_cert_chain(certs.path "server.pem", path, function() return "x" end))
  end)
end)

describe("a callback", function()
  it("that closes its socket leaves alone what gets the descriptor next", function()
    local server = tls.server()
    for _, how in ipairs {"close", "detach"} do
      local x, y
      server.sni_callback = function(s)
        local fd = s:fileno()
        s[how](s)
        if how == "detach" then socket.close(fd) end
        x, y = socket.socketpair()
        assert(x:fileno() == fd or y:fileno() == fd)
      end
      local _, _, _, e = tls.pair {server = server}
      assert.equal("ECANCELED", e.code)
      keep(x, y)
      x:settimeout(0)
      y:settimeout(0)
      fails("EAGAIN", x.recv, x, 100)
      fails("EAGAIN", y.recv, y, 100)
    end
  end)

  it("may fail at something else meanwhile", function()
    local function stumble()
      pcall(ssl.PEM_cert_to_DER_cert, "nonsense")
      pcall(ssl.PEM_cert_to_DER_cert, ssl.DER_cert_to_PEM_cert "nonsense")
    end
    local server = tls.server()
    server.sni_callback = stumble
    tls.connected {server = server}
    for _, version in ipairs(tls.versions) do
      local one, other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      one.check_hostname = false
      one:set_ciphers "PSK"
      other:set_ciphers "PSK"
      one:set_psk_client_callback(function()
        stumble()
        return "me", "key"
      end)
      other:set_psk_server_callback(function()
        stumble()
        return "key"
      end)
      tls.connected {client = one, server = other, version = version}
    end
  end)

  it("for names refuses with an alert's number; the peer hears of another answer, or an error, as in Python", function()
    local server = tls.server()
    for _, number in ipairs {-1, -5, 256, 1 << 32, math.mininteger} do
      server.sni_callback = function() return number end
      refuses("must return", tls.pair, {server = server})
    end
    for answer, alert in pairs {["a text"] = "INTERNAL_ERROR", [1.5] = "INTERNAL_ERROR", [256] = "INTERNAL_ERROR",
        [print] = "HANDSHAKE_FAILURE"} do
      server.sni_callback = function()
        if answer == print then error "of the callback" end
        return answer
      end
      local a, b = socket.socketpair()
      local c = keep(tls.client():wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}))
      local s = keep(server:wrap_socket(b, {server_side = true, do_handshake_on_connect = false}))
      c:settimeout(0):try_do_handshake()
      assert.is_false((pcall(s.do_handshake, s)))
      local _, e = c:try_do_handshake()
      assert.matches("ALERT_" .. alert, e.code)
    end
    server.sni_callback = function() return 255 end
    assert.equal("CALLBACK_FAILED", select(4, tls.pair {server = server}).code)
  end)

  it("for names may bring a context that asks for a certificate later", function()
    local server, later, client = tls.server(), tls.server(), tls.client()
    later:load_verify_locations(certs.path "ca.pem")
    later.verify_mode = ssl.CERT_REQUIRED
    later.post_handshake_auth, client.post_handshake_auth = true, true
    client:load_cert_chain(certs.path "client.pem", certs.path "client.key")
    server.sni_callback = function(s) s.context = later end
    local c, s = tls.connected {server = server, client = client}
    assert.is_nil(s:getpeercert())
    s:verify_client_post_handshake()
    s:sendall "who?"
    assert.equal("who?", c:recv(10))
    c:sendall "me"
    assert.equal("me", s:recv(10))
    assert.equal("me@example.test", s:getpeercert().subjectAltName[1][2])
  end)
end)

describe("in the middle of a handshake", function()
  local function middle()
    local c, s = over_memory(tls.client(), tls.server())
    fails("EAGAIN", c.do_handshake, c)
    fails("EAGAIN", s.do_handshake, s)
    return c, s
  end

  it("the context stays: OpenSSL is at work with its key", function()
    local c, s = middle()
    refuses("sni_callback", function() s.context = tls.server "second" end)
    c:do_handshake()
    s:do_handshake()
    assert.equal("TLSv1.3", s:version())
    local server = tls.server()
    c, s = over_memory(tls.client(), tls.server "second")
    s.context = server
    fails("EAGAIN", c.do_handshake, c)
    fails("EAGAIN", s.do_handshake, s)
    c:do_handshake()
    assert.equal("localhost", c:getpeercert().subject[3][1][2])
    assert.equal(server, s.context)
  end)

  it("the session stays", function()
    local client = tls.client()
    local c, s = over_memory(client, tls.server())
    fails("EAGAIN", c.do_handshake, c)
    fails("EAGAIN", s.do_handshake, s)
    c:do_handshake()
    local session = c.session
    local again = over_memory(client, tls.server())
    again.session = session
    fails("EAGAIN", again.do_handshake, again)
    refuses("before the handshake", function() again.session = session end)
    refuses("before the handshake", function() c.session = session end)
  end)

  for _, version in ipairs(tls.versions) do
    it("a certificate that nobody has proven to be theirs is not told, " .. version, function()
      local client, server = tls.only(tls.client(), version), tls.server()
      client:load_cert_chain(certs.path "client.pem", certs.path "client.key")
      server:load_verify_locations(certs.path "ca.pem")
      server.verify_mode = ssl.CERT_REQUIRED
      local c, s, down, up = over_memory(client, server)
      local function look(o)
        if o:try_do_handshake() then return o:getpeercert(true) end
        assert.is_nil(o:getpeercert())
        assert.is_nil(o:getpeercert(true))
        assert.same({}, o:get_verified_chain())
        assert.same({}, o:get_unverified_chain())
      end
      local known = {}
      look(c)
      byte_by_byte(up, function() look(s) end)
      byte_by_byte(down, function() known[c] = look(c) end)
      byte_by_byte(up, function() known[s] = look(s) end)
      look(c)
      assert.equal(ssl.PEM_cert_to_DER_cert(certs.read "server.pem"), c:getpeercert(true))
      assert.equal(ssl.PEM_cert_to_DER_cert(certs.read "client.pem"), known[s])
      assert.equal(2, #s:get_verified_chain())
    end)
  end

  it("nor is one that was asked for later; what is known stays known", function()
    local client, server = tls.client(), tls.server()
    client:load_cert_chain(certs.path "client.pem", certs.path "client.key")
    server:load_verify_locations(certs.path "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client.post_handshake_auth, server.post_handshake_auth = true, true
    local c, s, down, up = over_memory(client, server)
    fails("EAGAIN", c.do_handshake, c)
    fails("EAGAIN", s.do_handshake, s)
    c:do_handshake()
    s:do_handshake()
    byte_by_byte(down, function()     -- tickets in pieces
      fails("EAGAIN", c.read, c)
      assert.equal("TLSv1.3", c:version())
      assert.is_table(c:getpeercert().subject)
      assert.equal(32, #c:get_channel_binding "tls-exporter")
    end)
    s:verify_client_post_handshake()
    fails("EAGAIN", s.read, s)
    fails("EAGAIN", c.read, c)
    local size, seen = up.pending, 0
    byte_by_byte(up, function()
      seen = seen + 1
      fails("EAGAIN", s.read, s)
      assert.equal("TLSv1.3", s:version())
      if seen < size then assert.is_nil(s:getpeercert()) end
    end)
    assert.equal("me@example.test", s:getpeercert().subjectAltName[1][2])
  end)

  it("unwrap fails, and the handshake can go on", function()
    local c, s = tls.client(), tls.server()
    c, s = over_memory(c, s)
    fails("SHUTDOWN_WHILE_IN_INIT", c.unwrap, c)
    fails("EAGAIN", c.do_handshake, c)
    fails("SHUTDOWN_WHILE_IN_INIT", c.unwrap, c)
    fails("EAGAIN", s.do_handshake, s)
    fails("SHUTDOWN_WHILE_IN_INIT", s.unwrap, s)
    assert.equal(c, c:do_handshake())
    assert.equal(s, s:do_handshake())
  end)
end)

describe("after half a close", function()
  for _, version in ipairs(tls.versions) do
    it("to send is an error, and what the peer sends still comes, " .. version, function()
      local c, s = tls.connected {version = version}
      c:shutdown(socket.SHUT_WR)
      fails("PROTOCOL_IS_SHUTDOWN", c.send, c, "x")
      fails("PROTOCOL_IS_SHUTDOWN", c.sendall, c, ("x"):rep(100000))
      assert.is_nil(s:recv(1))
      s:sendall "still here"
      assert.equal("still here", c:recv(100))
      fails("PROTOCOL_IS_SHUTDOWN", c.write, c, "x")
      s:shutdown(socket.SHUT_WR)
      assert.is_nil(c:recv(100))
      keep(c:unwrap(), s:unwrap())
    end)
  end
end)

describe("a channel binding", function()
  it("of TLS 1.2 is exported only where the master secret is the connection's own", function()
    local client = tls.client()
    assert.equal(32, #tls.connected({client = client, version = "TLSv1_2"}):get_channel_binding "tls-exporter")
    client.options = client.options | 1     -- SSL_OP_NO_EXTENDED_MASTER_SECRET
    local c, s = tls.connected {client = client, version = "TLSv1_2"}
    assert.is_nil(c:get_channel_binding "tls-exporter")
    assert.is_nil(s:get_channel_binding "tls-exporter")
  end)
end)

describe("a session", function()
  it("equals itself however often it is asked for", function()
    local client, server = tls.client(), tls.server()
    local c = tls.connected {client = client, server = server, version = "TLSv1_2"}
    local other = tls.connected {client = client, server = server, version = "TLSv1_2"}
    assert.is_true(c.session == c.session)
    assert.is_false(c.session == other.session)
    assert.is_false(c.session == client)
    local again = tls.connected {client = client, server = server, session = c.session}
    assert.is_true(again.session_reused)
  end)
end)

for _, version in ipairs(tls.versions) do
  describe("resumption with " .. version, function()
    it("does not lead from one name's context to another's", function()
      local open, strict, client = tls.server(), tls.server "second", tls.client()
      strict:load_verify_locations(certs.path "ca.pem")
      strict.verify_mode = ssl.CERT_REQUIRED
      client.check_hostname = false     -- this one does not care
      local names = {}
      open.sni_callback = function(s, name)
        names[#names + 1] = name
        if name == "second.test" then s.context = strict end
      end
      local c, s = tls.connected {client = client, server = open, version = version}
      s:sendall "x"
      assert.equal("x", c:recv(1))
      local session = c.session
      local again = tls.connected {client = client, server = open, version = version, session = session}
      assert.is_true(again.session_reused)
      local _, other, _, e = tls.pair {client = client, server = open, version = version, session = session,
        host = "second.test"}
      assert.equal("PEER_DID_NOT_RETURN_A_CERTIFICATE", e.code)
      assert.equal(strict, other.context)
      assert.same({"localhost", "localhost", "second.test"}, names)
    end)

    it("does not spare a client the certificate that is asked for since", function()
      local server, client = tls.server(), tls.client()
      local c, s = tls.connected {client = client, server = server, version = version}
      s:sendall "x"
      assert.equal("x", c:recv(1))
      server:load_verify_locations(certs.path "ca.pem")
      server.verify_mode = ssl.CERT_REQUIRED
      local _, _, _, e = tls.pair {client = client, server = server, version = version, session = c.session}
      assert.equal("PEER_DID_NOT_RETURN_A_CERTIFICATE", e.code)
    end)

    it("needs no goodbye of the connection before", function()
      local server, client = tls.server(), tls.client()
      local function connection(session)
        local c, s = tls.connected {client = client, server = server, version = version, session = session}
        s:sendall "x"
        assert.equal("x", c:recv(1))
        local reused = c.session_reused
        session = session or c.session
        socket.close(c:detach())
        socket.close(s:detach())
        return session, reused
      end
      local session = connection()
      for _ = 1, 3 do assert.is_true(select(2, connection(session))) end
      local c, s = tls.connected {client = client, server = server, version = version, session = session}
      local raw = s:detach()
      assert.is_true(c.session_reused)
      local plain = keep(socket.fromfd(raw, socket.AF_UNIX, socket.SOCK_STREAM))
      socket.close(raw)
      plain:sendall(("\23\3\3\0\32" .. ("x"):rep(32)))
      fails("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", c.recv, c, 1)
      c:close()
      if version == "TLSv1_2" then assert.is_false(select(2, connection(session))) end     -- RFC 5246, 7.2.2
    end)

    -- A server whose session one has from another name, or without having looked at its certificate.
    it("does not spare a server the proof of who it is", function()
      local server, client = tls.server(), tls.client()
      local function session_of(host)
        local c, s = tls.connected {client = client, server = server, version = version, host = host}
        s:sendall "x"
        assert.equal("x", c:recv(1))
        return c.session
      end
      local function resumed(session, host)
        local c, _, e = tls.pair {client = client, server = server, version = version, session = session, host = host}
        return e and e.code or c.session_reused
      end
      local session = session_of "localhost"
      assert.is_true(resumed(session))
      assert.is_false(resumed(session, "127.0.0.1"))
      assert.equal("CERTIFICATE_VERIFY_FAILED", resumed(session, "second.test"))
      client.check_hostname = false
      session = session_of "second.test"
      assert.is_true(resumed(session, "second.test"))
      client.check_hostname = true
      assert.equal("CERTIFICATE_VERIFY_FAILED", resumed(session, "second.test"))
      client.check_hostname = false
      client.verify_mode = ssl.CERT_NONE
      session = session_of "localhost"
      assert.is_true(resumed(session))
      client.verify_mode = ssl.CERT_REQUIRED
      assert.is_false(resumed(session))
      local set = keep(client:wrap_socket(socket.socketpair(), {server_hostname = "localhost",
        do_handshake_on_connect = false}))
      set.session = session
      assert.is_nil(set.session)
    end)
  end)
end

describe("one MemoryBIO for both directions", function()
  it("is freed with the object", function()
    if h.sanitized then return end     -- AddressSanitizer finds the leak itself
    local function resident() return tonumber(io.open "/proc/self/statm":read "a":match "%d+ (%d+)") end
    local data, ctx = ("x"):rep(1 << 22), tls.client()
    local function make()
      local b = ssl.MemoryBIO()
      b:write(data)
      assert(ctx:wrap_bio(b, b, {server_hostname = "localhost"}))
    end
    make()
    collectgarbage()
    local before = resident()
    for _ = 1, 12 do
      make()
      collectgarbage()
    end
    assert.is_true(resident() - before < 6144)     -- pages: half of what twelve would leave
  end)
end)

describe("a finalizer that is older than the library", function()
  it("finds TLS closed, and makes no connection more", function()
    local text, status = support.run([[
      OLD = setmetatable({}, {__gc = function()
        print((pcall(KEPT.send, KEPT, "x")), pcall(KEPT.getpeercert, KEPT))
        local ok, e = pcall(function()
          return CTX:wrap_socket(require "socket".socketpair(), {server_side = true, do_handshake_on_connect = false})
        end)
        print(ok, (e:gsub("^.-: ", "")))
      end})
      local socket = require "socket"
      CTX = nil
      local ctx = socket.ssl.SSLContext(socket.ssl.PROTOCOL_TLS_SERVER)
      KEPT = ctx:wrap_socket(socket.socketpair(), {server_side = true, do_handshake_on_connect = false})
      local function fresh() return socket.ssl.SSLContext(socket.ssl.PROTOCOL_TLS_SERVER) end
      CTX = setmetatable({}, {__index = function(_, k)
        local c = fresh()
        return function(_, ...) return c[k](c, ...) end
      end})
    ]])
    local over = "socket: the state is being closed"
    assert.equal(("false\tfalse\t%s\nfalse\t%s\n"):format(over, over), text)
    assert.equal(0, status)
  end)
end)

describe("get_server_certificate", function()
  it("has a try_ form that returns its errors", function()
    local none, e = ssl.try_get_server_certificate {"127.0.0.1", tls.free_port()}
    assert.is_nil(none)
    assert.equal("ECONNREFUSED", e.code)
    none, e = ssl.try_get_server_certificate({"127.0.0.1", 1}, {ca_certs = "/nonexistent"})
    assert.is_nil(none)
    assert.equal("ENOENT", e.code)
    local listener = tls.listener()
    local raised = fails("ETIMEDOUT", ssl.get_server_certificate, listener:getsockname(), {timeout = 0.05})
    assert.is_true(raised:is(socket.timeout))
    none, e = ssl.try_get_server_certificate(listener:getsockname(), {timeout = 0.05})
    assert.is_nil(none)
    assert.equal("ETIMEDOUT", e.code)
  end)

  it("lets other tasks run meanwhile", function()
    local loop = require "socket.loop"
    local listener = tls.listener()
    local server, pem = tls.server(), nil
    loop.run(function()
      loop.spawn(function()
        local conn <close> = server:wrap_socket((listener:accept()), {server_side = true})
        assert(conn)
      end)
      pem = ssl.get_server_certificate(listener:getsockname(), {timeout = 5})
    end)
    assert.equal(certs.read "server.pem", pem)
  end)
end)
