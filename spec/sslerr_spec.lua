-- TLS's error objects: their classes, and what they say of OpenSSL's errors, the system's and those of certificates.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep = support.fails, support.keep

after_each(tls.clean)

local function classes(e)
  local names, class = {}, e.class
  while class do
    names[#names + 1] = class.name
    class = class.parent
  end
  return table.concat(names, " < ")
end

describe("classes", function()
  it("are Python's, below socket.error", function()
    for _, name in ipairs {"SSLZeroReturnError", "SSLWantReadError", "SSLWantWriteError", "SSLSyscallError",
        "SSLEOFError", "SSLCertVerificationError"} do
      assert.equal("ssl." .. name, ssl[name].name)
      assert.equal(ssl.SSLError, ssl[name].parent)
    end
    assert.equal("ssl.SSLError", ssl.SSLError.name)
    assert.equal(socket.error, ssl.SSLError.parent)
    assert.equal(ssl.SSLCertVerificationError, ssl.CertificateError)
  end)
end)

describe("would-block errors", function()
  it("say what to wait for", function()
    local c, s = tls.connected()
    c:settimeout(0)
    local e = fails("EAGAIN", c.recv, c, 1)
    assert.equal("ssl.SSLWantReadError < ssl.SSLError < socket.error", classes(e))
    assert.equal(socket.errno.EAGAIN, e.errno)
    assert.equal("recv", e.op)
    assert.is_false(e:is(socket.timeout))
    assert.matches("recv", tostring(e))
    local block, sent = ("x"):rep(1 << 20), 0
    for _ = 1, 100 do
      local n
      n, e = c:try_send(block)
      if not n then break end
      sent = sent + n
    end
    assert.is_true(sent > 0)
    assert.equal("EAGAIN", e.code)
    assert.equal("ssl.SSLWantWriteError < ssl.SSLError < socket.error", classes(e))
    assert.is_true(c:settimeout(0).timeout == 0 and s:fileno() >= 0)
  end)

  it("of a handshake", function()
    local a, b = keep(socket.socketpair())
    local c = keep(tls.client():wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}))
    c:settimeout(0)
    local e = fails("EAGAIN", c.do_handshake, c)
    assert.is_true(e:is(ssl.SSLWantReadError))
    assert.equal("do_handshake", e.op)
    assert.is_true(#b:recv(4096) > 100)     -- its greeting
    local o = tls.client():wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), {server_hostname = "localhost"})
    e = fails("EAGAIN", o.do_handshake, o)
    assert.is_true(e:is(ssl.SSLWantReadError))
  end)
end)

describe("errors of certificates", function()
  local function refused(options)
    local _, _, e, other = tls.pair(options)
    assert.equal("CERTIFICATE_VERIFY_FAILED", e and e.code, tostring(e))
    return e, other
  end

  it("carry code, text and host name", function()
    local e, other = refused {server = tls.server "untrusted"}
    assert.equal("ssl.SSLCertVerificationError < ssl.SSLError < socket.error", classes(e))
    assert.equal(1, e.errno)
    assert.equal(1, e[1])
    assert.equal(e.message, e[2])
    assert.equal("CERTIFICATE_VERIFY_FAILED", e.reason)
    assert.equal("SSL", e.library)
    assert.equal(20, e.verify_code)
    assert.equal("unable to get local issuer certificate", e.verify_message)
    assert.equal("certificate verify failed: unable to get local issuer certificate", e.message)
    assert.equal("localhost", e.server_hostname)
    assert.equal("do_handshake", e.op)
    assert.matches(e.message, tostring(e), 1, true)
    assert.matches("CERTIFICATE_VERIFY_FAILED", tostring(e), 1, true)
    assert.equal("ssl.SSLError < socket.error", classes(other))
    assert.equal("TLSV1_ALERT_UNKNOWN_CA", other.code)
    assert.is_nil(other.verify_code)
    assert.is_nil(other.server_hostname)
  end)

  it("name the host that was meant", function()
    local e = refused {host = "other.test"}
    assert.equal(62, e.verify_code)
    assert.equal("hostname mismatch, certificate is not valid for 'other.test'", e.verify_message)
    assert.equal("other.test", e.server_hostname)
    e = refused {host = "10.0.0.9"}
    assert.equal(64, e.verify_code)
    assert.equal("IP address mismatch, certificate is not valid for '10.0.0.9'", e.verify_message)
    assert.equal("10.0.0.9", e.server_hostname)
  end)

  it("have no host name where none was asked for", function()
    local client, server = tls.client(), tls.server()
    client:load_cert_chain(certs.path "untrusted.pem", certs.path "untrusted.key")
    server:load_verify_locations(certs.path "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    local _, _, _, e = tls.pair {client = client, server = server}
    assert.equal("CERTIFICATE_VERIFY_FAILED", e.code)
    assert.equal(20, e.verify_code)
    assert.is_nil(e.server_hostname)
    client = tls.client()
    client.check_hostname = false
    local a, b = keep(socket.socketpair())
    local c = keep(client:wrap_socket(a, {do_handshake_on_connect = false}))
    local s = keep(tls.server "untrusted":wrap_socket(b, {server_side = true, do_handshake_on_connect = false}))
    e = tls.shake(c, s)
    assert.equal(20, e.verify_code)
    assert.is_nil(e.server_hostname)
  end)

  it("stay what they were however often is asked", function()
    local c, _, first = tls.pair {server = tls.server "expired"}
    for _, name in ipairs {"do_handshake", "recv", "read", "unwrap"} do
      local e = fails("CERTIFICATE_VERIFY_FAILED", c[name], c, name:match "re" and 1 or nil)
      assert.equal(10, e.verify_code)
      assert.equal(first.message, e.message)
      assert.equal("localhost", e.server_hostname)
    end
    fails("CERTIFICATE_VERIFY_FAILED", c.sendall, c, "x")
    fails("CERTIFICATE_VERIFY_FAILED", c.write, c, "x")
  end)
end)

describe("alerts of the peer", function()
  local function alerted(number)
    local server = tls.server()
    server.sni_callback = function() return number end
    local _, _, e = tls.pair {server = server}
    assert.equal("ssl.SSLError < socket.error", classes(e))
    assert.equal(e.code, e.reason)
    return e
  end

  it("have the names of OpenSSL's headers, as in Python", function()
    for number, code in pairs {
      [ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE] = "SSLV3_ALERT_HANDSHAKE_FAILURE",
      [ssl.ALERT_DESCRIPTION_BAD_CERTIFICATE] = "SSLV3_ALERT_BAD_CERTIFICATE",
      [ssl.ALERT_DESCRIPTION_CERTIFICATE_EXPIRED] = "SSLV3_ALERT_CERTIFICATE_EXPIRED",
      [ssl.ALERT_DESCRIPTION_UNKNOWN_CA] = "TLSV1_ALERT_UNKNOWN_CA",
      [ssl.ALERT_DESCRIPTION_ACCESS_DENIED] = "TLSV1_ALERT_ACCESS_DENIED",
      [ssl.ALERT_DESCRIPTION_PROTOCOL_VERSION] = "TLSV1_ALERT_PROTOCOL_VERSION",
      [ssl.ALERT_DESCRIPTION_INTERNAL_ERROR] = "TLSV1_ALERT_INTERNAL_ERROR",
      [ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME] = "TLSV1_UNRECOGNIZED_NAME",
    } do
      local e = alerted(number)
      assert.equal(code, e.code)
      assert.equal("SSL", e.library)
      assert.equal(1, e.errno)
    end
  end)
end)

describe("errors of the protocol", function()
  local function after(bytes, server_side)
    local a, b = keep(socket.socketpair())
    local s = server_side and tls.server():wrap_socket(b, {server_side = true, do_handshake_on_connect = false})
      or tls.client():wrap_socket(b, {server_hostname = "localhost", do_handshake_on_connect = false})
    keep(s):settimeout(5)
    a:sendall(bytes)
    return select(2, s:try_do_handshake())
  end

  it("are SSLErrors with OpenSSL's reason", function()
    assert.equal("HTTP_REQUEST", after("GET / HTTP/1.1\r\n\r\n", true).code)
    assert.equal("WRONG_VERSION_NUMBER", after("SSH-2.0-OpenSSH_9.2p1\r\n").code)
    assert.equal("WRONG_VERSION_NUMBER", after("SSH-2.0-OpenSSH_9.2p1\r\n", true).code)
    local e = after "HTTP/1.1 400 Bad Request\r\n\r\n"
    assert.equal("WRONG_VERSION_NUMBER", e.code)
    assert.equal("wrong version number", e.message)
    assert.equal("ssl.SSLError < socket.error", classes(e))
    assert.equal("SSL", e.library)
  end)

  it("an alert that nobody knows has a number", function()
    local e = after "\x15\x03\x03\0\2\2\x77"
    assert.equal("ssl.SSLError < socket.error", classes(e))
    assert.equal("REASON_1119", e.code)
    assert.equal("unknown error", e.message)
  end)

  it("both ends have their own", function()
    local server, client = tls.only(tls.server(), "TLSv1_2"), tls.client()
    local _, _, e, e2 = tls.pair {client = client, server = server, version = "TLSv1_3"}
    assert.equal("TLSV1_ALERT_PROTOCOL_VERSION", e.code)
    assert.equal("UNSUPPORTED_PROTOCOL", e2.code)
    client = tls.client()
    client:set_ciphers "ECDHE-ECDSA-CHACHA20-POLY1305"
    server:set_ciphers "ECDHE-ECDSA-AES256-GCM-SHA384"
    _, _, e, e2 = tls.pair {client = client, server = server, version = "TLSv1_2"}
    assert.equal("SSLV3_ALERT_HANDSHAKE_FAILURE", e.code)
    assert.equal("NO_SHARED_CIPHER", e2.code)
  end)

  it("bytes changed on the way", function()
    for _, version in ipairs(tls.versions) do
      local c, s = tls.connected {version = version}
      socket.fromfd(s:fileno(), socket.AF_UNIX, socket.SOCK_STREAM):sendall(
        "\x17\x03\x03\x00\x20" .. ("x"):rep(32)):close()
      local e = fails("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", c.recv, c, 1)
      assert.is_true(e:is(ssl.SSLError))
      fails("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", c.recv, c, 1)
    end
  end)
end)

describe("the end of a connection", function()
  it("without goodbye is an SSLEOFError", function()
    local c, s = tls.connected {suppress = false}
    socket.close(s:detach())
    local e = fails("UNEXPECTED_EOF_WHILE_READING", c.recv, c, 1)
    assert.equal("ssl.SSLEOFError < ssl.SSLError < socket.error", classes(e))
    assert.equal(ssl.SSL_ERROR_EOF, e.errno)
    assert.matches("close_notify", e.message)
    fails("UNEXPECTED_EOF_WHILE_READING", c.sendall, c, "x")
  end)

  it("by reset is the system's error", function()
    local a, b = support.tcp()
    local c = keep(tls.client():wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}))
    local s = keep(tls.server():wrap_socket(b, {server_side = true, do_handshake_on_connect = false}))
    assert.is_nil((tls.shake(c, s)))
    s:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ("ii"):pack(1, 0))
    socket.close(s:detach())
    local e = fails("ECONNRESET", c.recv, c, 1)
    assert.equal(socket.error, e.class)
    assert.equal(socket.errno.ECONNRESET, e.errno)
    assert.is_nil(e.reason)
    fails("ECONNRESET", c.recv, c, 1)
    fails("ECONNRESET", c.send, c, "x")
  end)

  it("while sending is EPIPE, and no signal", function()
    local c, s = tls.connected()
    socket.close(s:detach())
    local e
    for _ = 1, 3 do
      _, e = c:try_sendall "x"
      if e then break end
    end
    assert.equal("EPIPE", e.code)
    assert.equal(socket.error, e.class)
  end)

  it("of one's own is EBADF", function()
    local c = tls.connected()
    c:close()
    for _, name in ipairs {"do_handshake", "read", "unwrap", "recv"} do fails("EBADF", c[name], c, 1) end
    fails("EBADF", c.write, c, "x")
  end)
end)

describe("errors of contexts", function()
  it("are the system's where it said no", function()
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    local e = fails("ENOENT", ctx.load_cert_chain, ctx, "/nonexistent")
    assert.equal(socket.error, e.class)
    assert.equal("load_cert_chain", e.op)
    assert.equal(socket.errno.ENOENT, e.errno)
  end)

  it("have OpenSSL's reason and part, else", function()
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for code, call in pairs {
      KEY_VALUES_MISMATCH = function() ctx:load_cert_chain(certs.path "server.pem", certs.path "client.key") end,
      NO_CIPHER_MATCH = function() ctx:set_ciphers "nothing" end,
      NO_START_LINE = function() ctx:load_cert_chain("/dev/null") end,
      EE_KEY_TOO_SMALL = function() ctx:load_cert_chain(certs.path "weak.pem", certs.path "weak.key") end,
    } do
      local e = fails(code, call)
      assert.equal(ssl.SSLError, e.class)
      assert.equal(1, e.errno)
      assert.equal(code, e.reason)
      assert.equal(({KEY_VALUES_MISMATCH = "x509", NO_START_LINE = "PEM"})[code] or "SSL", e.library)
      assert.is_string(e.op)
      assert.equal(code, e.message:upper():gsub("%W", "_"))
    end
  end)

  it("leave nothing for the next one to find", function()
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fails("KEY_VALUES_MISMATCH", ctx.load_cert_chain, ctx, certs.path "server.pem", certs.path "client.key")
    local c, s = tls.connected()
    c:settimeout(0)
    fails("EAGAIN", c.recv, c, 1)
    fails("NO_CIPHER_MATCH", ctx.set_ciphers, ctx, "nothing")
    fails("EAGAIN", c.recv, c, 1)
    s:sendall "x"
    assert.equal("x", c:settimeout(5):recv(1))
  end)

  it("never show what is secret", function()
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    local key = certs.encrypted("client", "sesame-open")
    local e = fails("BAD_DECRYPT", ctx.load_cert_chain, ctx, certs.path "client.pem", key, "sesame-shut")
    for _, text in ipairs {tostring(e), e.message, e.code} do assert.is_nil(text:find "sesame") end
  end)
end)
