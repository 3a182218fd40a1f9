-- SSLContext: what is loaded into it, what it may be set to, and what is refused.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"

local ssl = socket.ssl
local fails = support.fails

local function refuses(message, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(e), tostring(e))
  assert.matches(message, e, 1, true)
end

describe("a new context", function()
  it("verifies at a client, and takes nothing below TLS 1.2", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert.equal(ssl.CERT_REQUIRED, c.verify_mode)
    assert.is_true(c.check_hostname)
    assert.equal(ssl.TLSVersion.TLSv1_2, c.minimum_version)
    assert.equal(ssl.TLSVersion.MAXIMUM_SUPPORTED, c.maximum_version)
    assert.is_true(c.options & ssl.OP_NO_RENEGOTIATION ~= 0)
    assert.equal(2, c.security_level)
    assert.equal(ssl.PROTOCOL_TLS_CLIENT, c.protocol)
    local s = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert.equal(ssl.CERT_NONE, s.verify_mode)
    assert.is_false(s.check_hostname)
    refuses("expected", ssl.SSLContext)
    refuses("expected", ssl.SSLContext, 99)
  end)

  it("trusts the system's certificates by default, and only those given otherwise", function()
    local c = ssl.create_default_context()
    assert.equal(ssl.CERT_REQUIRED, c.verify_mode)
    assert.is_true(c.verify_flags & ssl.VERIFY_X509_STRICT ~= 0)
    assert.is_true(c.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN ~= 0)
    c = ssl.create_default_context {cafile = certs.path "ca.pem"}
    assert.same({x509 = 1, x509_ca = 1, crl = 0}, c:cert_store_stats())
    assert.equal("Test root", c:get_ca_certs()[1].subject[1][1][2])
    assert.equal(ssl.PEM_cert_to_DER_cert(certs.read "ca.pem"), c:get_ca_certs(true)[1])
    assert.equal(ssl.CERT_NONE, ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}.verify_mode)
    refuses("unknown option", ssl.create_default_context, {ca_file = "x"})
    refuses("purpose", ssl.create_default_context, {purpose = "x"})
    fails("ENOENT", ssl.create_default_context, {cafile = "/nonexistent"})
  end)
end)

describe("fields of a context", function()
  it("keep what they are set to", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for field, value in pairs {verify_mode = ssl.CERT_OPTIONAL, check_hostname = true, num_tickets = 1,
        post_handshake_auth = true, hostname_checks_common_name = false, minimum_version = ssl.TLSVersion.TLSv1_3,
        maximum_version = ssl.TLSVersion.TLSv1_3, options = ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION,
        verify_flags = ssl.VERIFY_CRL_CHECK_LEAF, sni_callback = print} do
      c[field] = value
      assert.equal(value, c[field], field)
    end
    c.minimum_version, c.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.MAXIMUM_SUPPORTED
    assert.equal(ssl.TLSVersion.MINIMUM_SUPPORTED, c.minimum_version)
    c.sni_callback = nil
    assert.is_nil(c.sni_callback)
    assert.is_nil(c.nonsense)
  end)

  it("check each other", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    refuses("check_hostname", function() c.verify_mode = ssl.CERT_NONE end)
    c.check_hostname = false
    c.verify_mode = ssl.CERT_NONE
    c.check_hostname = true
    assert.equal(ssl.CERT_REQUIRED, c.verify_mode)
    refuses("server", function() c.sni_callback = print end)
    refuses("server", function() c.num_tickets = 1 end)
    refuses("cannot set 'nonsense'", function() c.nonsense = 1 end)
    refuses("cannot set 'protocol'", function() c.protocol = 1 end)
    refuses("TLSVersion", function() c.minimum_version = 5 end)
    refuses("CERT_NONE", function() c.verify_mode = 7 end)
    refuses("boolean", function() c.check_hostname = 1 end)
  end)

  it("name a file for keys, which only its owner may read", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    local name = os.tmpname()
    os.remove(name)
    c.keylog_filename = name
    assert.equal(name, c.keylog_filename)
    local p = io.popen("stat -c %a " .. name)
    assert.equal("600\n", p:read "a")
    p:close()
    c.keylog_filename = nil
    assert.is_nil(c.keylog_filename)
    os.remove(name)
    local e = fails("ENOENT", function() c.keylog_filename = "/nonexistent/x" end)
    assert.equal("/nonexistent/x", e.filename)
  end)
end)

describe("an error about a file", function()
  it("names the file, in a field and in its text", function()
    local c, cert, missing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certs.path "server.pem", "/nonexistent/file.pem"
    local key = certs.encrypted("server", "secret")
    for _, case in ipairs {
        {"ENOENT", missing, c.load_cert_chain, c, missing},
        {"ENOENT", missing, c.load_cert_chain, c, cert, missing},
        {"NO_START_LINE", "/dev/null", c.load_cert_chain, c, "/dev/null"},
        {"KEY_VALUES_MISMATCH", certs.path "client.key", c.load_cert_chain, c, cert, certs.path "client.key"},
        {"BAD_DECRYPT", key, c.load_cert_chain, c, cert, key, "wrong"},
        {"BAD_PASSWORD_READ", key, c.load_cert_chain, c, cert, key},
        {"ENOENT", missing, c.load_verify_locations, c, missing},
        {"ENOENT", missing, c.load_verify_locations, c, {cafile = missing, capath = "/tmp"}},
        {"INVALID_DIRECTORY", "", c.load_verify_locations, c, {cafile = cert, capath = ""}},
        {"ENOENT", missing, c.load_dh_params, c, missing},
        {"ENOENT", missing, ssl.create_default_context, {cafile = missing}},
        {"ENOENT", missing, ssl.get_server_certificate, {"127.0.0.1", 1}, {ca_certs = missing}},
        {"ENOENT", missing, ssl, support.keep(socket.socketpair()), missing, missing}} do
      local e = fails(case[1], table.unpack(case, 3))
      assert.equal(case[2], e.filename)
      assert.matches(e.op .. " " .. case[2] .. ": " .. e.message, tostring(e), 1, true)
    end
    support.close_kept()
  end)
end)

describe("an error of a context", function()
  it("names the function that was called", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for _, name in ipairs {"set_groups", "set_ecdh_curve", "set_ciphers", "set_ciphersuites"} do
      local _, e = c["try_" .. name](c, "nonsense")
      assert.equal(name, e.op)
    end
  end)
end)

describe("load_cert_chain", function()
  local function load(...)
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return c:load_cert_chain(...) == c
  end

  it("says what is wrong with the files", function()
    local cert = certs.path "server.pem"
    assert.is_true(load(cert, certs.path "server.key"))
    fails("KEY_VALUES_MISMATCH", load, cert, certs.path "client.key")
    fails("ENOENT", load, "/nonexistent")
    fails("ENOENT", load, cert, "/nonexistent")
    fails("NO_START_LINE", load, "/dev/null")
    fails("EE_KEY_TOO_SMALL", load, certs.path "weak.pem", certs.path "weak.key")
    assert.is_true(load(certs.bundle("both.pem", "server.pem", "server.key")))
    refuses("zero byte", load, "a\0b")
    refuses("string", load)
  end)

  it("takes a password, or a function that gives it", function()
    local cert, key = certs.path "server.pem", certs.encrypted("server", "secret")
    assert.is_true(load(cert, key, "secret"))
    assert.is_true(load(cert, key, function() return "secret" end))
    local e = fails("BAD_DECRYPT", load, cert, key, "wrong")
    assert.is_nil(tostring(e):find("wrong", 1, true))
    assert.is_true(e:is(ssl.SSLError))
    for i = 1, 300 do fails("BAD_DECRYPT", load, cert, key, "wrong" .. i) end     -- some decrypt to garbage
    fails("BAD_PASSWORD_READ", load, cert, key)
    fails("KEY_VALUES_MISMATCH", load, certs.path "second.pem", key, "secret")
    assert.is_false((pcall(load, cert, key, ("x"):rep(5000))))
    refuses("must be a string", load, cert, key, function() return 1 end)
    local thrown = {}
    local ok, raised = pcall(load, cert, key, function() error(thrown) end)
    assert.is_false(ok)
    assert.equal(thrown, raised)
  end)
end)

describe("load_verify_locations", function()
  it("takes a file, a folder, or data in PEM or DER", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c:load_verify_locations(certs.path "ca.pem")
    c:load_verify_locations {cadata = certs.read "other_ca.pem"}
    c:load_verify_locations {cadata = ssl.PEM_cert_to_DER_cert(certs.read "ca.pem")}     -- the same again
    c:load_verify_locations(nil, "/etc/ssl/certs")
    assert.equal(2, c:cert_store_stats().x509_ca)
    assert.equal(c, c:load_default_certs())
    assert.equal(c, c:set_default_verify_paths())
  end)

  it("refuses what is no certificate", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    refuses("expected", c.load_verify_locations, c)
    refuses("unknown option", c.load_verify_locations, c, {file = "x"})
    fails("ENOENT", c.load_verify_locations, c, "/nonexistent")
    for _, data in ipairs {"junk", "", "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n",
        certs.read "ca.pem" .. "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n"} do
      local ok, e = c:try_load_verify_locations {cadata = data}
      assert.is_nil(ok)
      assert.is_true(socket.iserror(e))
    end
  end)
end)

describe("algorithms", function()
  it("are named as OpenSSL names them", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c:set_ciphers "ECDHE-RSA-AES256-GCM-SHA384":set_ciphersuites "TLS_AES_128_GCM_SHA256"
    local list = c:get_ciphers()
    assert.equal(2, #list)
    assert.equal("TLS_AES_128_GCM_SHA256", list[1].name)
    assert.equal("TLSv1.3", list[1].protocol)
    assert.equal(128, list[1].strength_bits)
    assert.is_true(list[2].aead)
    assert.equal(c, c:set_groups "X25519:P-256")
    assert.equal(c, c:set_ecdh_curve "prime256v1")
    fails("NO_CIPHER_MATCH", c.set_ciphers, c, "nonsense")
    assert.is_false((pcall(c.set_groups, c, "nonsense")))
    assert.is_false((pcall(c.set_ciphersuites, c, "nonsense")))
    assert.equal(c, c:set_alpn_protocols {})
    refuses("1-255", c.set_alpn_protocols, c, {""})
    refuses("list of strings", c.set_alpn_protocols, c, {1})
    fails("ENOENT", c.load_dh_params, c, "/nonexistent")
    assert.is_false((pcall(c.load_dh_params, c, certs.path "ca.pem")))
    assert.equal(0, c:session_stats().number)
  end)
end)

describe("load_dh_params", function()
  it("takes the parameters that a TLS 1.2 key exchange then uses", function()
    certs.path "server.pem"
    local file = certs.path "server.pem":gsub("server.pem$", "dh.pem")
    assert(os.execute(("openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048 -out %s 2>&1"):format(file)))
    local s, c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert.equal(s, s:load_dh_params(file))
    for _, ctx in ipairs {s, c} do
      ctx.maximum_version = ssl.TLSVersion.TLSv1_2
      ctx:set_ciphers "DHE-PSK-AES128-GCM-SHA256"     -- DHE with a certificate would need an RSA key
    end
    c.check_hostname = false
    c:set_psk_client_callback(function() return "me", "secret" end)
    s:set_psk_server_callback(function() return "secret" end)
    local up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    local a, b = c:wrap_bio(down, up), s:wrap_bio(up, down, {server_side = true})
    for _ = 1, 3 do
      a:try_do_handshake()
      b:try_do_handshake()
    end
    assert.equal("DHE-PSK-AES128-GCM-SHA256", (a:cipher()))
    assert.equal(a, a:do_handshake())
  end)
end)

describe("server_hostname", function()
  it("is ASCII, as certificates have it", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    refuses("xn--", c.wrap_bio, c, ssl.MemoryBIO(), ssl.MemoryBIO(), {server_hostname = "b\u{fc}cher.example"})
    assert.equal("xn--bcher-kva.example", c:wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(),
      {server_hostname = "xn--bcher-kva.example"}).server_hostname)
  end)
end)
