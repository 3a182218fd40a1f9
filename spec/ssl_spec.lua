-- The module socket.ssl: loading it, its functions and constants.

local h = require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"

local ssl = socket.ssl

describe("socket.ssl", function()
  it("is the same table however it is asked for", function()
    assert.equal(ssl, require "socket.ssl")
    assert.equal(ssl, socket.ssl)
    local text, status = support.run [[
      local ssl = require "socket.ssl"
      print(ssl == require "socket".ssl, getmetatable(ssl.SSLError).__tostring(ssl.SSLError))
    ]]
    assert.equal(0, status)
    assert.equal("true\tssl.SSLError\n", text)
  end)

  it("is nil in a host without require", function()
    local text = support.run [[
      local socket = require "socket"
      require = nil
      print(socket.ssl)
    ]]
    assert.equal("nil\n", text)
  end)

  it("says what it is", function()
    assert.matches("^OpenSSL [3-9]", ssl.OPENSSL_VERSION)
    assert.is_true(ssl.OPENSSL_VERSION_NUMBER >= 0x30000000)
    assert.is_true(ssl.HAS_SNI and ssl.HAS_TLSv1_3)
    assert.is_false(ssl.HAS_SSLv3)
    assert.equal(ssl.SSLCertVerificationError, ssl.CertificateError)
    assert.equal(socket.error, ssl.SSLError.parent)
    assert.equal(ssl.SSLError, ssl.SSLEOFError.parent)
    assert.equal(0x0304, ssl.TLSVersion.TLSv1_3)
    assert.matches("^/", ssl.get_default_verify_paths().openssl_cafile)
    assert.equal("SSL_CERT_FILE", ssl.get_default_verify_paths().openssl_cafile_env)
    local info = ssl.OPENSSL_VERSION_INFO
    assert.equal(5, #info)
    assert.equal(("%d.%d."):format(info[1], info[2]), ssl.OPENSSL_VERSION:match "%d+%.%d+%.")
    assert.equal(ssl.CERT_REQUIRED, ssl.VerifyMode.CERT_REQUIRED)
    assert.is_nil(ssl.VerifyMode.VERIFY_DEFAULT)
    assert.equal(ssl.OP_ALL, ssl.Options.OP_ALL)
    assert.equal(48, ssl.AlertDescription.ALERT_DESCRIPTION_UNKNOWN_CA)
    assert.equal("-----BEGIN CERTIFICATE-----", ssl.PEM_HEADER)
    assert.equal("-----END CERTIFICATE-----", ssl.PEM_FOOTER)
    local text = support.run("print(require[[socket]].ssl.get_default_verify_paths().cafile)",
      {before = "SSL_CERT_FILE=/dev/null"})
    assert.equal("/dev/null\n", text)
    text = support.run("print(require[[socket]].ssl.get_default_verify_paths().cafile)",
      {before = "SSL_CERT_FILE=/nonexistent"})
    assert.equal("nil\n", text)
  end)

  it("makes random bytes", function()
    assert.equal(32, #ssl.RAND_bytes(32))
    assert.equal("", ssl.RAND_bytes(0))
    assert.not_equal(ssl.RAND_bytes(16), ssl.RAND_bytes(16))
    assert.is_true(ssl.RAND_status())
    assert.is_false((pcall(ssl.RAND_bytes, -1)))
  end)

  it("converts certificates between PEM and DER", function()
    local pem = certs.read "server.pem"
    local der = ssl.PEM_cert_to_DER_cert(pem)
    assert.equal(pem, ssl.DER_cert_to_PEM_cert(der))
    assert.is_false((pcall(ssl.PEM_cert_to_DER_cert, "nonsense")))
  end)

  it("reads the times of certificates", function()
    assert.equal(1515144883, ssl.cert_time_to_seconds "Jan  5 09:34:43 2018 GMT")
    assert.equal(0, ssl.cert_time_to_seconds "Jan  1 00:00:00 1970 GMT")
    assert.equal(951782400, ssl.cert_time_to_seconds "Feb 29 00:00:00 2000 GMT")
    assert.equal(4102444799, ssl.cert_time_to_seconds "Dec 31 23:59:59 2099 GMT")
    assert.equal(1525512883, ssl.cert_time_to_seconds "mAy 05 09:34:43 2018 GmT")
    assert.equal(1230768001, ssl.cert_time_to_seconds "Dec 31 23:59:61 2008 GMT")
    for _, text in ipairs {"", "Jan  5 09:34:43 2018 CET",
        "Dec 31 23:59:62 2008 GMT", "Foo  5 09:34:43 2018 GMT", "Jan 32 09:34:43 2018 GMT",
        "Jan  5 25:34:43 2018 GMT", "anJ  5 09:34:43 2018 GMT", "Jan  5 09:3x:43 2018 GMT"} do
      assert.is_false((pcall(ssl.cert_time_to_seconds, text)), text)
    end
  end)

  it("needs both files of its own certificate, or none", function()
    local a, b = support.keep(socket.socketpair())
    assert.is_false((pcall(ssl, a, "key")))
    assert.is_false((pcall(ssl, "a")))
    assert.is_true(a:fileno() >= 0)
    assert(b)
    support.close_kept()
  end)
end)

describe("a state that ends in the middle of a handshake", function()
  local code = io.open(h.root .. "/spec/host/close_tls.lua"):read "a"
  for _, how in ipairs {"plain", "suspended", "abandoned", "callback"} do
    it("frees what OpenSSL holds: " .. how, function()
      certs.path "ca.pem"
      local dir = certs.path "server.pem":match "^(.*)/"
      -- from within a callback the connection cannot be freed: OpenSSL is at work with it
      local text, status = support.run(code, {args = how, before = "CERTS=" .. h.quote(dir), leaks = how ~= "callback"})
      assert.equal("ends\n", text)
      assert.equal(0, status)
    end)
  end
end)
