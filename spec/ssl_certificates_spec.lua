-- Certificates that must be refused, each with its own clear error, and those that must be accepted. Each is shown to
-- this library and to Python's ssl, with the same settings.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep = support.fails, support.keep
local CA, LEAF = certs.CA, certs.LEAF

after_each(tls.clean)

local function names(list) return LEAF .. "subjectAltName = " .. list .. "\n" end
local LOCALHOST = names "DNS:localhost"

-- How certificates are made; the key is the name.
local kinds = {
  not_yet = {ca = "ca", ext = LOCALHOST, dates = {"20990101000000Z", "20991231000000Z"}},
  long_ago = {ca = "ca", ext = LOCALHOST, dates = {"19700101000000Z", "19700102000000Z"}},
  only_names = {ca = "ca", subject = "CN = common.test", ext = names "DNS:localhost,DNS:other.test"},
  only_address = {ca = "ca", ext = names "IP:10.0.0.1,IP:fe80::1"},
  address_as_name = {ca = "ca", subject = "CN = 10.0.0.1", ext = names "DNS:10.0.0.1,DNS:*.0.0.1"},
  address_as_common_name = {ca = "ca", subject = "CN = 10.0.0.1", ext = LEAF},
  as_email = {ca = "ca", subject = "O = nobody", ext = names "email:localhost@localhost,URI:https://localhost/"},
  wild = {ca = "ca", ext = names "DNS:*.wild.test"},
  partial = {ca = "ca", ext = names "DNS:w*.wild.test,DNS:*w.wild.test,DNS:w*w.wild.test,DNS:xn--*.wild.test"},
  inner = {ca = "ca", ext = names "DNS:a.*.test,DNS:*.*.wild.test,DNS:**.wild.test,DNS:a.wild.*"},
  top = {ca = "ca", ext = names "DNS:*.test,DNS:*,DNS:*.,DNS:.test"},
  wild_common_name = {ca = "ca", subject = "CN = *.wild.test", ext = LEAF},
  idn = {ca = "ca", ext = names "DNS:xn--bcher-kva.wild.test"},
  dot = {ca = "ca", ext = names "DNS:dot.test."},

  middle = {ca = "ca", ext = CA},
  middle2 = {ca = "middle", ext = CA},
  below = {ca = "middle", ext = LOCALHOST},
  below2 = {ca = "middle2", ext = LOCALHOST},
  old_middle = {ca = "ca", ext = CA, dates = {"20200101000000Z", "20210101000000Z"}},
  below_old = {ca = "old_middle", ext = LOCALHOST},
  no_ca = {ca = "ca", ext = LEAF},
  below_no_ca = {ca = "no_ca", ext = LOCALHOST},
  no_basic = {ca = "ca", ext = "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n"},
  below_no_basic = {ca = "no_basic", ext = LOCALHOST},
  no_sign = {ca = "ca", ext = (CA:gsub("keyCertSign,", ""))},
  below_no_sign = {ca = "no_sign", ext = LOCALHOST},
  short = {ca = "ca", ext = (CA:gsub("CA:TRUE", "CA:TRUE,pathlen:0"))},
  too_deep = {ca = "short", ext = CA},
  below_too_deep = {ca = "too_deep", ext = LOCALHOST},
  below_short = {ca = "short", ext = LOCALHOST},
  wrong_middle = {ca = "ca", subject = "CN = middle", ext = CA},
  for_clients = {ca = "ca", ext = LOCALHOST .. "extendedKeyUsage = clientAuth\n"},
  for_mail = {ca = "ca", ext = LOCALHOST .. "extendedKeyUsage = emailProtection\n"},
  clients_middle = {ca = "ca", ext = CA .. "extendedKeyUsage = clientAuth\n"},
  below_clients = {ca = "clients_middle", ext = LOCALHOST},
  unknown_critical = {ca = "ca", ext = LOCALHOST .. "1.2.3.4 = critical,DER:0500\n"},

  permits = {ca = "ca", ext = CA .. "nameConstraints = critical,permitted;DNS:ok.test,"
    .. "permitted;IP:10.0.0.0/255.0.0.0\n"},
  permitted = {ca = "permits", ext = names "DNS:a.ok.test,DNS:ok.test,IP:10.1.2.3"},
  not_permitted = {ca = "permits", ext = names "DNS:a.ok.test,DNS:localhost"},
  address_not_permitted = {ca = "permits", ext = names "DNS:a.ok.test,IP:11.0.0.1"},
  common_not_permitted = {ca = "permits", subject = "CN = common.test", ext = LEAF},
  excludes = {ca = "ca", ext = CA .. "nameConstraints = critical,excluded;DNS:bad.test\n"},
  excluded = {ca = "excludes", ext = names "DNS:a.bad.test"},
  not_excluded = {ca = "excludes", ext = LOCALHOST},

  good = {ca = "ca", ext = LOCALHOST},
  revoked = {ca = "ca", ext = LOCALHOST},
  revoked_middle = {ca = "ca", ext = CA},
  below_revoked = {ca = "revoked_middle", ext = LOCALHOST},
  impostor = {subject = "CN = Test root", ext = (CA:gsub("authority[^\n]*\n", ""))},

  weak_ca = {ca = "ca", key = "rsa:1024", ext = CA},
  below_weak = {ca = "weak_ca", ext = LOCALHOST},
  sha1 = {ca = "ca", digest = "-sha1", ext = LOCALHOST},
  p384 = {ca = "ca", key = "ec -pkeyopt ec_paramgen_curve:secp384r1", ext = LOCALHOST},
  p521 = {ca = "ca", key = "ec -pkeyopt ec_paramgen_curve:secp521r1", ext = LOCALHOST},
  rsa = {ca = "ca", key = "rsa:2048", ext = LOCALHOST},
  pss = {ca = "ca", key = "rsa-pss -pkeyopt rsa_keygen_bits:2048", ext = LOCALHOST},
  ed25519 = {ca = "ca", key = "ed25519", ext = LOCALHOST},
  ed448 = {ca = "ca", key = "ed448", ext = LOCALHOST},
  nul_after = {ca = "ca", ext = LEAF .. "subjectAltName = DER:300c820a6c6f63616c686f737400\n"},
  nul_within = {ca = "ca", ext = LEAF .. "subjectAltName = DER:301582136c6f63616c686f7374002e6576696c2e74657374\n"},
  nul_common = {ca = "ca", subject = "CN = localhostX.evil.test", ext = LEAF},
}
for name, options in pairs(kinds) do certs.kind(name, options) end

local LEAF_CHECK, CHAIN_CHECK = ssl.VERIFY_CRL_CHECK_LEAF, ssl.VERIFY_CRL_CHECK_CHAIN

-- Lists of revoked certificates: CA, whose, times, file.
local lists = {
  one = {"ca", {"revoked"}},
  none = {"ca", {}},
  middles = {"ca", {"revoked_middle"}},
  of_middle = {"middle", {}},
  of_revoked = {"revoked_middle", {}},
  old = {"ca", {}, {from = "20200101000000Z", to = "20200201000000Z"}},
  future = {"ca", {}, {from = "20990101000000Z", to = "20990201000000Z"}},
  forged = {"impostor", {}},
}
local list_made = {}
local function list_path(name)
  list_made[name] = list_made[name] or certs.crl("list_" .. name, table.unpack(lists[name]))
  return list_made[name]
end

-- Those that the client must refuse: what, certificate, verify_code, and: host, chain (what else the server sends),
-- lists, flags (besides the usual), trust (the root), level (of security).
local refused = {
  {"expired", "expired", 10},
  {"expired in 1970", "long_ago", 10},
  {"not yet valid", "not_yet", 9},
  {"of another host", "only_names", 62, host = "localhost.test"},
  {"of the parent domain", "only_names", 62, host = "sub.localhost"},
  {"of a host whose name begins alike", "only_names", 62, host = "localhos"},
  {"common name beside alternative names", "only_names", 62, host = "common.test"},
  {"of another address", "only_address", 64, host = "10.0.0.2"},
  {"of another address, IPv6", "only_address", 64, host = "fe80::2"},
  {"of an address instead of the name", "only_address", 62},
  {"of a name instead of the address", "only_names", 64, host = "10.0.0.1"},
  {"address written as a name", "address_as_name", 64, host = "10.0.0.1"},
  {"address in the common name", "address_as_common_name", 64, host = "10.0.0.1"},
  {"address that a wildcard covers", "address_as_name", 64, host = "127.0.0.1"},
  {"address in an odd notation", "only_address", 62, host = "10.1"},
  {"name in other kinds of alternative names", "as_email", 62},
  {"wildcard for two labels", "wild", 62, host = "a.b.wild.test"},
  {"wildcard for no label", "wild", 62, host = "wild.test"},
  {"wildcard for part of the end", "wild", 62, host = "a.xwild.test"},
  {"partial wildcard, begin", "partial", 62, host = "www.wild.test"},
  {"partial wildcard, end", "partial", 62, host = "aw.wild.test"},
  {"partial wildcard, A-label", "partial", 62, host = "xn--bcher-kva.wild.test"},
  {"wildcard that is not left-most", "inner", 62, host = "a.b.test"},
  {"two wildcards", "inner", 62, host = "a.b.wild.test"},
  {"doubled wildcard", "inner", 62, host = "a.wild.test"},
  {"wildcard at the end", "inner", 62, host = "a.wild.com"},
  {"wildcard for a top-level domain", "top", 62, host = "example.test"},
  {"wildcard for everything", "top", 62},
  {"A-label of another name", "idn", 62, host = "xn--bcher-kv.wild.test"},
  {"name with a dot at the end", "only_names", 62, host = "localhost."},
  {"zero byte at the end of a name", "nul_after", 62},
  {"zero byte within a name", "nul_within", 62},
  {"zero byte within a common name", "nul_common_altered", 62},
  {"self-signed", "self_signed", 18},
  {"root nobody trusts", "untrusted", 20},
  {"root nobody trusts, sent along", "untrusted", 19, chain = {"other_ca"}},
  {"missing intermediate", "below", 20},
  {"first of two intermediates missing", "below2", 20, chain = {"middle2"}},
  {"intermediate of the same name with another key", "below", 20, chain = {"wrong_middle"}},
  {"expired intermediate", "below_old", 10, chain = {"old_middle"}},
  {"intermediate that is no CA", "below_no_ca", 79, chain = {"no_ca"}},
  {"intermediate that says nothing of CAs", "below_no_basic", 79, chain = {"no_basic"}},
  {"intermediate that may not sign", "below_no_sign", 79, chain = {"no_sign"}},
  {"path length exceeded", "below_too_deep", 25, chain = {"too_deep", "short"}},
  {"made for clients", "for_clients", 26},
  {"made for mail", "for_mail", 26},
  {"intermediate made for clients", "below_clients", 26, chain = {"clients_middle"}},
  {"critical extension nobody knows", "unknown_critical", 34},
  {"name not permitted by the CA", "not_permitted", 47, chain = {"permits"}},
  {"another name not permitted, the host's is", "not_permitted", 47, chain = {"permits"}, host = "a.ok.test"},
  {"address not permitted", "address_not_permitted", 47, chain = {"permits"}, host = "a.ok.test"},
  {"common name not permitted", "common_not_permitted", 47, chain = {"permits"}, host = "common.test"},
  {"name excluded", "excluded", 48, chain = {"excludes"}, host = "a.bad.test"},
  {"revoked", "revoked", 23, lists = {"one"}, flags = LEAF_CHECK},
  {"intermediate revoked", "below_revoked", 23, chain = {"revoked_middle"}, lists = {"middles", "of_revoked"},
    flags = CHAIN_CHECK},
  {"no list of revoked ones", "good", 3, flags = LEAF_CHECK},
  {"no list of revoked ones for the intermediate", "below", 3, chain = {"middle"}, lists = {"of_middle"},
    flags = CHAIN_CHECK},
  {"another CA's list of revoked ones", "good", 3, lists = {"of_middle"}, flags = LEAF_CHECK},
  {"old list of revoked ones", "good", 12, lists = {"old"}, flags = LEAF_CHECK},
  {"future list of revoked ones", "good", 11, lists = {"future"}, flags = LEAF_CHECK},
  {"forged list of revoked ones", "good", 8, lists = {"forged"}, flags = LEAF_CHECK},
  {"RSA key of 1024 bits", "weak", 66},
  {"CA's RSA key of 1024 bits", "below_weak", 67, chain = {"weak_ca"}},
  {"signed with SHA-1", "sha1", 68},
}

-- And those it must accept; `host` is what the certificate is for.
local accepted = {
  {"exact name", "only_names"},
  {"second name", "only_names", host = "other.test"},
  {"name in other letters", "only_names", host = "LocalHost"},
  {"IPv4 address", "only_address", host = "10.0.0.1"},
  {"IPv6 address", "only_address", host = "fe80::1"},
  {"IPv6 address in another notation", "only_address", host = "FE80:0:0:0:0:0:0:1"},
  {"wildcard", "wild", host = "a.wild.test"},
  {"wildcard, other letters", "wild", host = "A.WILD.Test"},
  {"wildcard for an A-label", "wild", host = "xn--bcher-kva.wild.test"},
  {"A-label", "idn", host = "xn--bcher-kva.wild.test"},
  {"name with a dot at the end at both", "dot", host = "dot.test."},
  {"common name without alternative names", "common_name"},
  {"wildcard in a common name", "wild_common_name", host = "a.wild.test"},
  {"intermediate", "below", chain = {"middle"}},
  {"two intermediates", "below2", chain = {"middle2", "middle"}},
  {"two intermediates in the wrong order, and one too many", "below2", chain = {"middle", "other_ca", "middle2"}},
  {"intermediate that is trusted itself", "below", trust = "middle"},
  {"path length not exceeded", "below_short", chain = {"short"}},
  {"permitted name", "permitted", chain = {"permits"}, host = "a.ok.test"},
  {"permitted address", "permitted", chain = {"permits"}, host = "10.1.2.3"},
  {"not excluded name", "not_excluded", chain = {"excludes"}},
  {"not revoked", "good", lists = {"one"}, flags = LEAF_CHECK},
  {"revoked, but nobody asked", "revoked", lists = {"one"}},
  {"nothing revoked in the chain", "below", chain = {"middle"}, lists = {"one", "of_middle"}, flags = CHAIN_CHECK},
  {"EC key, P-256", "good"},
  {"EC key, P-384", "p384"},
  {"EC key, P-521", "p521"},
  {"RSA key", "rsa"},
  {"RSA-PSS key", "pss"},
  {"Ed25519 key", "ed25519"},
  {"Ed448 key", "ed448"},
  {"weak key at a lower level", "weak", level = 0},
  {"SHA-1 at a lower level", "sha1", level = 0},
}

-- The file that a server sends.
local function chain_path(row)
  local name = row[2]
  if name == "nul_common_altered" then certs.altered(name, "nul_common", "localhostX", "localhost\0") end
  if not row.chain then return certs.path(name .. ".pem") end
  local files = {name .. ".pem"}
  for i, other in ipairs(row.chain) do files[i + 1] = other .. ".pem" end
  return certs.bundle(table.concat({name, "with", table.unpack(row.chain)}, "_") .. ".pem", table.unpack(files))
end

local function contexts(row)
  local server, client = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}, tls.client(row.trust)
  server:set_ciphers "DEFAULT@SECLEVEL=0"
  server:load_cert_chain(chain_path(row), certs.path(row[2] .. ".key"))
  if row.level then client:set_ciphers("DEFAULT@SECLEVEL=" .. row.level) end
  for i, list in ipairs(row.lists or {}) do -- from a file, and as bytes
    if i % 2 == 0 then
      client:load_verify_locations(list_path(list))
    else
      local f <close> = assert(io.open(list_path(list), "rb"))
      client:load_verify_locations {cadata = f:read "a"}
    end
  end
  client.verify_flags = client.verify_flags | (row.flags or 0)
  return server, client
end

-- OpenSSL's text for a code; the two of names are this library's own, as in Python.
local messages = {
  [3] = "unable to get certificate CRL", [8] = "CRL signature failure", [9] = "certificate is not yet valid",
  [10] = "certificate has expired", [11] = "CRL is not yet valid", [12] = "CRL has expired",
  [18] = "self-signed certificate", [19] = "self-signed certificate in certificate chain",
  [20] = "unable to get local issuer certificate", [23] = "certificate revoked",
  [25] = "path length constraint exceeded", [34] = "unhandled critical extension", [47] = "permitted subtree violation",
  [48] = "excluded subtree violation", [66] = "EE certificate key too weak", [67] = "CA certificate key too weak",
  [68] = "CA signature digest algorithm too weak",
  [62] = "hostname mismatch, certificate is not valid for '%s'",
  [64] = "IP address mismatch, certificate is not valid for '%s'",
}
-- Words of which differ between versions of OpenSSL.
local patterns = {[26] = "purpose", [79] = "CA certificate"}

for _, version in ipairs(tls.versions) do
  describe(version .. ", a server's certificate is refused:", function()
    for _, row in ipairs(refused) do
      it(row[1], function()
        local server, client = contexts(row)
        local host = row.host or "localhost"
        local c, _, e, other = tls.pair {server = server, client = client, host = host, version = version}
        assert.equal("CERTIFICATE_VERIFY_FAILED", e and e.code, tostring(e))
        assert.equal(row[3], e.verify_code, e.verify_message)
        assert.equal(ssl.SSLCertVerificationError, e.class)
        assert.equal(host, e.server_hostname)
        if patterns[row[3]] then
          assert.matches(patterns[row[3]], e.verify_message)
        else
          assert.equal(messages[row[3]]:format(host), e.verify_message)
        end
        assert.matches(e.verify_message, tostring(e), 1, true)
        assert.matches("ALERT", other.code)
        fails("CERTIFICATE_VERIFY_FAILED", c.sendall, c, "secret")
        fails("CERTIFICATE_VERIFY_FAILED", c.recv, c, 1)
        assert.same({}, c:get_verified_chain())
      end)
    end
  end)

  describe(version .. ", a server's certificate is accepted:", function()
    for _, row in ipairs(accepted) do
      it(row[1], function()
        local server, client = contexts(row)
        local c, s = tls.connected {server = server, client = client, host = row.host, version = version}
        c:sendall "x"
        assert.equal("x", s:recv(1))
        assert.equal(ssl.PEM_cert_to_DER_cert(certs.read(row[2] .. ".pem")), c:get_verified_chain()[1])
      end)
    end
  end)
end

describe("what is refused and accepted", function()
  it("is what Python refuses and accepts", function()
    local rows = {}
    for _, list in ipairs {refused, accepted} do
      for _, row in ipairs(list) do
        local files = {}
        for i, name in ipairs(row.lists or {}) do files[i] = list_path(name) end
        rows[#rows + 1] = table.concat({chain_path(row), certs.path(row[2] .. ".key"),
          certs.path((row.trust or "ca") .. ".pem"), row.host or "localhost", row.flags or 0,
          row.level or "", table.concat(files, ",")}, "\t")
      end
    end
    local text = tls.python("matrix", [[
import ssl, sys
def contexts(chain, key, root, flags, level, lists):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("DEFAULT@SECLEVEL=0")
    server.load_cert_chain(chain, key)
    client = ssl.create_default_context(cafile=root)
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN | int(flags)
    client.set_ciphers("DEFAULT@SECLEVEL=" + (level or "2"))
    for name in lists.split(","):
        if name: client.load_verify_locations(name)
    return server, client
def attempt(line):
    chain, key, root, host, flags, level, lists = line.split("\t")
    server, client = contexts(chain, key, root, flags, level, lists)
    a, b, x, y = (ssl.MemoryBIO() for _ in range(4))
    c = client.wrap_bio(a, b, server_hostname=host)
    s = server.wrap_bio(x, y, server_side=True)
    for _ in range(4):
        try:
            c.do_handshake()
            return 0
        except ssl.SSLWantReadError: pass
        except ssl.SSLCertVerificationError as e: return e.verify_code
        x.write(b.read())
        try: s.do_handshake()
        except ssl.SSLWantReadError: pass
        a.write(y.read())
for line in open(sys.argv[1]): print(attempt(line.rstrip("\n")))
]], tls.file("matrix.txt", table.concat(rows, "\n"))):text()
    local codes, i = {}, 0
    for code in text:gmatch "[^\n]+" do codes[#codes + 1] = tonumber(code) end
    assert.equal(#refused + #accepted, #codes, text)
    for _, list in ipairs {refused, accepted} do
      for _, row in ipairs(list) do
        i = i + 1
        assert.equal(codes[i], row[3] or 0, row[1])
      end
    end
  end)
end)

describe("a common name", function()
  it("does not count if so wished", function()
    for name, host in pairs {common_name = "localhost", wild_common_name = "a.wild.test"} do
      local server, client = contexts {"", name}
      client.hostname_checks_common_name = false
      local _, _, e = tls.pair {server = server, client = client, host = host}
      assert.equal(62, e.verify_code)
    end
  end)
end)

describe("a name to check", function()
  it("has no zero byte", function()
    local client = tls.client()
    local a, b = keep(socket.socketpair())
    for _, host in ipairs {"localhost\0", "localhost\0.evil.test", "\0localhost", "127.0.0.1\0"} do
      local options = {server_hostname = host}
      local ok, e = pcall(client.wrap_socket, client, a, options)
      assert.is_false(ok)
      assert.matches("zero byte", e)
      ok, e = pcall(client.wrap_bio, client, ssl.MemoryBIO(), ssl.MemoryBIO(), options)
      assert.is_false(ok)
      assert.matches("zero byte", e)
    end
    assert.is_true(a:fileno() >= 0 and b:fileno() >= 0)
  end)
end)

-- ---------------------------------------------------------------- certificates of clients

certs.kind("client_expired", {ca = "ca", ext = LEAF, dates = {"20200101000000Z", "20210101000000Z"}})
certs.kind("client_not_yet", {ca = "ca", ext = LEAF, dates = {"20990101000000Z", "20991231000000Z"}})
certs.kind("client_self_signed", {ext = LEAF})
certs.kind("client_untrusted", {ca = "other_ca", ext = LEAF})
certs.kind("client_for_servers", {ca = "ca", ext = LEAF .. "extendedKeyUsage = serverAuth\n"})
certs.kind("client_revoked", {ca = "ca", ext = LEAF})
certs.kind("client_weak", {ca = "ca", key = "rsa:1024", ext = LEAF})
certs.kind("client_below", {ca = "middle", ext = LEAF})
certs.kind("client_ed", {ca = "ca", key = "ed25519", ext = LEAF})
lists.clients = {"ca", {"client_revoked"}}

for _, version in ipairs(tls.versions) do
  describe(version .. ", a client's certificate", function()
    -- Connects with that certificate, nil for none.
    local function pair(name, mode, flags)
      local server, client = tls.server(), tls.client()
      server:load_verify_locations(certs.path "ca.pem")
      server.verify_mode = mode or ssl.CERT_REQUIRED
      if flags then
        server:load_verify_locations(list_path "clients")
        server.verify_flags = server.verify_flags | flags
      end
      client:set_ciphers "DEFAULT@SECLEVEL=0"
      if name then client:load_cert_chain(certs.path(name .. ".pem"), certs.path(name .. ".key")) end
      return tls.pair {server = server, client = client, version = version}
    end

    for name, expected in pairs {
      client_expired = {10, "SSLV3_ALERT_CERTIFICATE_EXPIRED"},
      client_not_yet = {9, "SSLV3_ALERT_BAD_CERTIFICATE"},
      client_self_signed = {18, "TLSV1_ALERT_UNKNOWN_CA"},
      client_untrusted = {20, "TLSV1_ALERT_UNKNOWN_CA"},
      client_for_servers = {26, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"},
      client_revoked = {23, "SSLV3_ALERT_CERTIFICATE_REVOKED", LEAF_CHECK},
      client_weak = {66, "SSLV3_ALERT_BAD_CERTIFICATE"},
      client_below = {20, "TLSV1_ALERT_UNKNOWN_CA"},
    } do
      it(name:sub(8):gsub("_", " ") .. " is refused, asked for or required", function()
        for _, mode in ipairs {ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL} do
          local c, s, e1, e2 = pair(name, mode, expected[3])
          assert.equal("CERTIFICATE_VERIFY_FAILED", e2 and e2.code)
          assert.equal(expected[1], e2.verify_code)
          assert.equal(ssl.SSLCertVerificationError, e2.class)
          assert.is_nil(e2.server_hostname)
          fails("CERTIFICATE_VERIFY_FAILED", s.recv, s, 1)
          if version == "TLSv1_3" then     -- the client has finished before the server looks
            assert.is_nil(e1)
            e1 = fails(expected[2], c.recv, c, 1)
          end
          assert.equal(expected[2], e1.code)
        end
      end)
    end

    it("of all kinds of keys is accepted", function()
      for _, name in ipairs {"client", "client_ed", "client_revoked"} do
        local c, s, e1, e2 = pair(name)
        assert.is_nil(e1 or e2, tostring(e1 or e2))
        c:sendall "x"
        assert.equal("x", s:recv(1))
        assert.equal(name, s:getpeercert().subject[1][1][2])
      end
      local _, s = pair("client", nil, LEAF_CHECK)
      assert.equal("client", s:getpeercert().subject[1][1][2])
    end)

    it("may be missing where it is only asked for", function()
      local c, s, e1, e2 = pair(nil, ssl.CERT_OPTIONAL)
      assert.is_nil(e1 or e2, tostring(e1 or e2))
      c:sendall "x"
      assert.equal("x", s:recv(1))
      assert.is_nil(s:getpeercert())
      assert.same({}, s:get_verified_chain())
      c, s, e1, e2 = pair(nil)
      assert.equal("PEER_DID_NOT_RETURN_A_CERTIFICATE", e2.code)
      assert.equal(ssl.SSLError, e2.class)
      if version == "TLSv1_3" then
        fails("TLSV13_ALERT_CERTIFICATE_REQUIRED", c.recv, c, 1)
      else
        assert.equal("SSLV3_ALERT_HANDSHAKE_FAILURE", e1.code)
      end
      fails("PEER_DID_NOT_RETURN_A_CERTIFICATE", s.recv, s, 1)
    end)
  end)
end
