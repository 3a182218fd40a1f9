-- Certificates as Lua values: the decoded form beside Python's, odd names, chains, PEM and DER.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local LEAF = certs.LEAF

after_each(tls.clean)

-- What a client that verifies no host name gets from a server with that certificate.
local function decoded(name, ext, options)
  if ext then
    options = options or {}
    options.ca, options.ext = options.ca or "ca", LEAF .. ext
    certs.kind(name, options)
  end
  local ctx = tls.client()
  ctx.check_hostname = false
  ctx.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST     -- odd ones are allowed here
  local c = tls.connected {client = ctx, server = tls.server(name)}
  return c:getpeercert(), c
end

-- Python's decoded form, as a Lua table.
local function python(path)
  return load("return " .. tls.python("decode", [[
import ssl, sys
def text(v):
    if isinstance(v, str): return '"' + ''.join('\\%03d' % b for b in v.encode()) + '"'
    if isinstance(v, dict): return '{' + ','.join('[%s]=%s' % (text(k), text(x)) for k, x in v.items()) + '}'
    if isinstance(v, tuple): return '{' + ','.join(map(text, v)) + '}'
    return str(v)
print(text(ssl._ssl._test_decode_cert(sys.argv[1])))
]], path):text())()
end

-- IPv6 addresses are shorter than Python's here: both as inet_pton has them.
local function same_addresses(cert)
  for _, name in ipairs(cert.subjectAltName or {}) do
    if name[1] == "IP Address" and name[2]:find ":" then name[2] = socket.inet_pton(socket.AF_INET6, name[2]) end
  end
  return cert
end

describe("the decoded form is Python's:", function()
  local function is_pythons(name, ...)
    local ours = decoded(name, ...)
    assert.same(python(certs.path(name .. ".pem")), same_addresses(ours) and ours)
    return ours
  end

  -- Python's own, made comparable.
  local plain = python
  function python(path) return same_addresses(plain(path)) end

  it("names of every kind, and where to ask", function()
    local cert = is_pythons "everything"
    assert.equal(9, #cert.subjectAltName)
    assert.same({"DNS", "a.test"}, cert.subjectAltName[1])
    assert.same({"http://ocsp.test/"}, cert.OCSP)
  end)

  it("relative names of several parts, in UTF-8", function()
    local cert = is_pythons("parts", "", {
      subject = "C = DE\nCN = \u{e4}\u{4e16}\u{1f600}\n1.OU = one\n2.OU = two\n+L = beside it\n"
        .. "emailAddress = me@x.test"})
    assert.same({{"commonName", "\u{e4}\u{4e16}\u{1f600}"}}, cert.subject[2])
    assert.equal(2, #cert.subject[4])
  end)

  it("texts in UCS-2 and Latin 1", function()
    for mask, text in pairs {["MASK:0x800"] = "\u{e4}\u{4e16}", ["MASK:0x4"] = "\u{e4}"} do
      local cert = is_pythons("text" .. #text, "", {subject = "CN = " .. text, mask = mask})
      assert.same({{{"commonName", text}}}, cert.subject)
      assert.is_nil(cert.subject[1][1][2]:find "%z")
      assert.is_nil(ssl.PEM_cert_to_DER_cert(certs.read("text" .. #text .. ".pem")):find(text, 1, true))
    end
  end)

  it("no subject at all", function()
    local cert = is_pythons("nobody", "subjectAltName = critical,DNS:nobody.test\n", {subject = false})
    assert.same({}, cert.subject)
    assert.same({{"DNS", "nobody.test"}}, cert.subjectAltName)
  end)

  it("kinds nobody uses, and an address of five bytes", function()
    local cert = is_pythons("odd_kinds",
      "subjectAltName = DER:301f820561002e6200870501020304" .. "05a30430020c00a509a1070c056162636465\n")
    assert.same({{"DNS", "a\0.b\0"}, {"IP Address", "<invalid>"}, {"X400Name", "<unsupported>"},
      {"EdiPartyName", "<unsupported>"}}, cert.subjectAltName)
  end)

  it("extensions that say nothing useful", function()
    local cert = is_pythons("useless", "crlDistributionPoints = dirName:dir\n"
      .. "authorityInfoAccess = 1.2.3.4;URI:http://x/,OCSP;DNS:not.a.uri\n[dir]\nCN = x\n")
    assert.is_nil(cert.crlDistributionPoints)
    assert.is_nil(cert.OCSP)
    assert.is_nil(cert.caIssuers)
    assert.is_nil(cert.subjectAltName)
  end)

  it("numbers of twenty bytes, and several lists", function()
    local cert = is_pythons("lists", "crlDistributionPoints = URI:http://a/,URI:http://b/\nauthorityInfoAccess = "
      .. "OCSP;URI:http://o/1,OCSP;URI:http://o/2,caIssuers;URI:http://c/\n", {serial = math.maxinteger})
    assert.equal("7FFFFFFFFFFFFFFF", cert.serialNumber)
    assert.same({"http://a/", "http://b/"}, cert.crlDistributionPoints)
    assert.same({"http://o/1", "http://o/2"}, cert.OCSP)
    assert.same({"http://c/"}, cert.caIssuers)
  end)

  it("dates before and after 2050, whose encodings differ", function()
    local cert = is_pythons("dates", "", {dates = {"20240229010203Z", "20991231235959Z"}})
    assert.equal("Feb 29 01:02:03 2024 GMT", cert.notBefore)
    assert.equal("Dec 31 23:59:59 2099 GMT", cert.notAfter)
    assert.equal(4102444799, ssl.cert_time_to_seconds(cert.notAfter))
    assert.equal(os.time {year = 2024, month = 2, day = 29, hour = 1, min = 2, sec = 3} -
      os.time(os.date("!*t", 0)), ssl.cert_time_to_seconds(cert.notBefore))
  end)
end)

describe("a certificate that was not verified", function()
  it("is an empty table, but all its bytes", function()
    local ctx = tls.client()
    ctx.check_hostname = false
    ctx.verify_mode = ssl.CERT_NONE
    local c = tls.connected {client = ctx, server = tls.server "self_signed"}
    assert.same({}, c:getpeercert())
    assert.equal(ssl.PEM_cert_to_DER_cert(certs.read "self_signed.pem"), c:getpeercert(true))
    assert.same({}, c:get_verified_chain())
    assert.same({c:getpeercert(true)}, c:get_unverified_chain())
  end)
end)

describe("chains", function()
  local function der(name) return ssl.PEM_cert_to_DER_cert(certs.read(name .. ".pem")) end

  it("as sent and as verified, at both ends", function()
    certs.kind("x_middle", {ca = "ca", ext = certs.CA})
    certs.kind("x_leaf", {ca = "x_middle", ext = LEAF .. "subjectAltName = DNS:localhost\n"})
    certs.bundle("x_leaf_chain.pem", "x_leaf.pem", "x_middle.pem", "other_ca.pem")
    for _, version in ipairs(tls.versions) do
      local server, client = tls.server "x_leaf", tls.client()
      server:load_cert_chain(certs.path "x_leaf_chain.pem", certs.path "x_leaf.key")
      server:load_verify_locations(certs.path "ca.pem")
      server.verify_mode = ssl.CERT_REQUIRED
      client:load_cert_chain(certs.path "client.pem", certs.path "client.key")
      local c, s = tls.connected {server = server, client = client, version = version}
      c:sendall "x"
      s:recv(1)
      assert.same({der "x_leaf", der "x_middle", der "other_ca"}, c:get_unverified_chain())
      assert.same({der "x_leaf", der "x_middle", der "ca"}, c:get_verified_chain())
      assert.same({der "client", der "ca"}, s:get_unverified_chain())     -- OpenSSL sends what it can find
      assert.same({der "client", der "ca"}, s:get_verified_chain())
      assert.equal(der "x_leaf", c:getpeercert(true))
      assert.same({{"email", "me@example.test"}}, s:getpeercert().subjectAltName)
    end
  end)
end)

describe("PEM and DER", function()
  it("of keys of every kind, there and back", function()
    certs.kind("x_rsa", {ca = "ca", key = "rsa:2048", ext = LEAF})
    certs.kind("x_ed", {ca = "ca", key = "ed25519", ext = LEAF})
    for _, name in ipairs {"server", "x_rsa", "x_ed", "everything"} do
      local pem = certs.read(name .. ".pem")
      local bytes = ssl.PEM_cert_to_DER_cert(pem)
      assert.equal("\x30", bytes:sub(1, 1))
      assert.equal(pem, ssl.DER_cert_to_PEM_cert(bytes))
      assert.equal(bytes, ssl.PEM_cert_to_DER_cert("text before\n" .. pem:gsub("\n", "\r\n") .. "after"))
      assert.equal(bytes, ssl.PEM_cert_to_DER_cert(certs.read(name .. ".key") .. pem .. certs.read "ca.pem"))
    end
  end)

  it("refuses what is no certificate", function()
    local pem = certs.read "server.pem"
    for _, text in ipairs {"", "x", certs.read "server.key", pem:sub(1, -30), pem:gsub("\n.", "\n!", 1),
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"} do
      local ok, e = pcall(ssl.PEM_cert_to_DER_cert, text)
      assert.is_false(ok, text)
      assert.matches("not a certificate in PEM", e, 1, true)
    end
  end)

  it("any bytes become lines of 64 letters", function()
    for n = 0, 200 do
      local text = ssl.DER_cert_to_PEM_cert(("\xa5"):rep(n))
      local body = text:match "^%-%-%-%-%-BEGIN CERTIFICATE%-%-%-%-%-\n(.*)%-%-%-%-%-END CERTIFICATE%-%-%-%-%-\n$"
      assert.equal((n + 2) // 3 * 4, #body:gsub("\n", ""))
      for line in body:gmatch "[^\n]+" do assert.is_true(#line <= 64) end
      assert.is_true(n < 48 or #body:match "[^\n]+" == 64)
    end
  end)
end)
