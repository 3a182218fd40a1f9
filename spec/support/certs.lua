-- Certificates for specs, made by the openssl program in a temporary folder, once a run.

local h = require "spec.helper"

local M = {}

-- Kept there because busted forgets this module between two files.
h.certificates = h.certificates or {made = {}, serials = {}}
local made, serials = h.certificates.made, h.certificates.serials

-- The folder.
local function folder()
  if not h.certificates.dir then
    local dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -m 700 " .. h.quote(dir)))
    h.certificates.dir = dir
    setmetatable(h.certificates, {__gc = function() os.execute("rm -rf " .. h.quote(dir)) end})
  end
  return h.certificates.dir
end

local function run(command)
  local p = assert(io.popen(("cd %s && exec 2>&1; %s"):format(h.quote(folder()), command)))
  local text = p:read "a"
  assert(p:close(), text)
end

local function write(name, text)
  local f <close> = assert(io.open(folder() .. "/" .. name, "wb"))
  f:write(text)
end

-- What openssl ca needs to know, with the section of extensions.
local CONFIG = [[
[ca]
default_ca = own
[own]
database = %s.index
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
serial = %s.serial
[any]
[req]
distinguished_name = dn
prompt = no
utf8 = yes
string_mask = %s
[dn]
%s
[ext]
%s
]]

-- A key of its own, and a certificate. Options: subject (lines; false for none), mask (of text types, as openssl-req
-- says), ext (lines of extensions), ca (name of who signs; itself without), key (as openssl req -newkey takes it),
-- digest ("-sha1"), dates ({"20200101000000Z", end}), serial.
local function make(name, options)
  local serial = options.serial or math.random(1, 1 << 40)
  serials[name] = serial
  write(name .. ".cnf", CONFIG:format(name, name, options.mask or "utf8only", options.subject or "CN = " .. name,
    options.ext or ""))
  local words = {"openssl req -config", name .. ".cnf", options.digest or "-sha256"}
  local function add(text, ...) words[#words + 1] = text:format(...) end
  add("-newkey %s -nodes -keyout %s.key", options.key or "ec -pkeyopt ec_paramgen_curve:prime256v1", name)
  if options.subject == false then add "-subj /" end
  if not options.dates then
    add("-x509 -extensions ext -days 30 -set_serial %d -out %s.pem", serial, name)
    if options.ca then add("-CA %s.pem -CAkey %s.key", options.ca, options.ca) end
    return run(table.concat(words, " "))
  end
  write(name .. ".index", "")
  write(name .. ".serial", ("%012X\n"):format(serial))
  add("-new -out %s.csr", name)
  run(table.concat(words, " "))
  run(("openssl ca -batch -notext -preserveDN -config %s.cnf -in %s.csr -out %s.pem -cert %s.pem -keyfile %s.key "
    .. "-extensions ext -startdate %s -enddate %s"):format(
    name, name, name, options.ca, options.ca, options.dates[1], options.dates[2]))
end

local CA = "basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign,cRLSign\n"
  .. "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid:always\n"
local LEAF = "basicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature,keyAgreement\n"
  .. "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n"

local KINDS = {
  ca = {subject = "CN = Test root", ext = (CA:gsub("authority[^\n]*\n", ""))},
  other_ca = {subject = "CN = Other root", ext = (CA:gsub("authority[^\n]*\n", ""))},
  server = {ca = "ca", subject = "C = DE\nO = A company\nCN = localhost", ext = LEAF
    .. "extendedKeyUsage = serverAuth\nsubjectAltName = DNS:localhost,DNS:*.wild.test,IP:127.0.0.1,IP:::1\n"},
  second = {ca = "ca", ext = LEAF .. "extendedKeyUsage = serverAuth\nsubjectAltName = DNS:second.test\n"},
  client = {ca = "ca", ext = LEAF .. "extendedKeyUsage = clientAuth\nsubjectAltName = email:me@example.test\n"},
  expired = {ca = "ca", ext = LEAF .. "subjectAltName = DNS:localhost\n",
    dates = {"20200101000000Z", "20210101000000Z"}},
  self_signed = {ext = LEAF .. "subjectAltName = DNS:localhost\n"},
  untrusted = {ca = "other_ca", ext = LEAF .. "subjectAltName = DNS:localhost\n"},
  purpose = {ca = "ca", ext = LEAF .. "extendedKeyUsage = clientAuth\nsubjectAltName = DNS:localhost\n"},
  common_name = {ca = "ca", subject = "CN = localhost", ext = LEAF},
  weak = {ca = "ca", key = "rsa:1024", ext = LEAF .. "subjectAltName = DNS:localhost\n"},
  everything = {ca = "ca", ext = LEAF .. [[
subjectAltName = @names
authorityInfoAccess = OCSP;URI:http://ocsp.test/,caIssuers;URI:http://ca.test/ca.pem
crlDistributionPoints = URI:http://crl.test/crl.pem
[names]
DNS = a.test
email = me@example.test
URI = https://a.test/x
IP.1 = 10.0.0.1
IP.2 = fe80::1
RID = 1.2.3.4
dirName = dir
otherName.1 = 1.2.3.4;UTF8:x
otherName.2 = 1.3.6.1.4.1.311.20.2.3;UTF8:me@x
[dir]
O = In a directory
]]},
}

-- What a certificate authority and what others usually have.
M.CA, M.LEAF = CA, LEAF

-- Makes one more kind known, if that name is not; returns the name.
function M.kind(name, options)
  KINDS[name] = KINDS[name] or options
  return name
end

-- The path of a file: ca.pem, server.key ..., made now if need be.
function M.path(name)
  local base = name:match "^[%w_]+"
  local options = KINDS[base]
  if options and not made[base] then
    if options.ca then M.path(options.ca .. ".pem") end
    make(base, options)
    made[base] = true
  end
  return folder() .. "/" .. name
end

function M.read(name)
  local f <close> = assert(io.open(M.path(name), "rb"))
  return f:read "a"
end

-- The same with an encrypted key, of that password.
function M.encrypted(name, password)
  local from, to = M.path(name .. ".key"), M.path(name .. ".encrypted")
  run(("openssl ec -in %s -aes128 -passout pass:%s -out %s"):format(from, password, to))
  return to
end

-- A PEM file of several.
function M.bundle(name, ...)
  local parts = {}
  for i, part in ipairs {...} do parts[i] = M.read(part) end
  write(name, table.concat(parts))
  return M.path(name)
end

-- The first value of DER bytes: its tag, content, and what follows it.
local function der(s)
  local n, at = s:byte(2), 3
  if n > 127 then n, at = (">I" .. n - 128):unpack(s, 3) end
  return s:sub(1, 1), s:sub(at, at + n - 1), s:sub(at + n)
end

local function encode(tag, content)
  local n = #content
  return tag .. (n < 128 and string.char(n) or ("\x82" .. (">I2"):pack(n))) .. content
end

-- A copy of a certificate with other bytes, of the same number, at one place, signed anew by its CA; for what openssl
-- does not let one write. Its name is `to_name`.
function M.altered(to_name, name, from, to)
  assert(#from == #to)
  local ca, ssl = KINDS[name].ca, require "socket".ssl
  local _, body = der(ssl.PEM_cert_to_DER_cert(M.read(name .. ".pem")))
  local tag, tbs, rest = der(body)
  local at = assert(tbs:find(from, 1, true))
  tbs = encode(tag, tbs:sub(1, at - 1) .. to .. tbs:sub(at + #to))
  local algorithm, identifier = der(rest)
  write(to_name .. ".tbs", tbs)
  run(("openssl dgst -sha256 -sign %s.key -out %s.sig %s.tbs && cp %s.key %s.key"):format(
    ca, to_name, to_name, name, to_name))
  write(to_name .. ".pem", ssl.DER_cert_to_PEM_cert(encode("\x30", tbs .. encode(algorithm, identifier)
    .. encode("\x03", "\0" .. M.read(to_name .. ".sig")))))
  return to_name
end

-- A list of certificates that a CA has revoked; options: from, to (times). Returns its path.
function M.crl(name, ca, revoked, options)
  options = options or {}
  local lines = {}
  for i, cert in ipairs(revoked) do
    M.path(cert .. ".pem")
    local serial = ("%X"):format(serials[cert])
    lines[i] = ("R\t401231235959Z\t250101000000Z\t%s\tunknown\t/CN=%s\n"):format(
      #serial % 2 == 0 and serial or "0" .. serial, cert)
  end
  M.path(ca .. ".pem")
  write(name .. ".cnf", CONFIG:format(name, name, "utf8only", "", ""))
  write(name .. ".index", table.concat(lines))
  run(("openssl ca -gencrl -config %s.cnf -cert %s.pem -keyfile %s.key -out %s.crl %s"):format(name, ca, ca, name,
    options.from and ("-crl_lastupdate %s -crl_nextupdate %s"):format(options.from, options.to) or "-crldays 30"))
  return M.path(name .. ".crl")
end

return M
