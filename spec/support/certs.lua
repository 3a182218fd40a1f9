-- Certificates for specs, made by the openssl program in a temporary folder, once a process.

local h = require "spec.helper"

local M = {}

local dir

local function run(command)
  local p = assert(io.popen(("cd %s && exec 2>&1; %s"):format(h.quote(dir), command)))
  local text = p:read "a"
  assert(p:close(), text)
end

local function write(name, text)
  local f <close> = assert(io.open(dir .. "/" .. name, "wb"))
  f:write(text)
end

function M.read(name)
  local f <close> = assert(io.open(M.path(name), "rb"))
  return f:read "a"
end

local CONFIG = [[
[req]
distinguished_name = dn
prompt = no
[dn]
]]

-- A key of its own, and a certificate: options subject, ext (lines of extensions), ca (name of who signs; itself
-- without), days, key (of another certificate).
local function make(name, options)
  write(name .. ".cnf", CONFIG .. (options.subject or "CN = " .. name) .. "\n[ext]\n" .. (options.ext or ""))
  run(("openssl req -new -newkey %s -nodes -keyout %s.key -out %s.csr -config %s.cnf"):format(
    options.key or "ec -pkeyopt ec_paramgen_curve:prime256v1", name, name, name))
  local validity = options.validity or "-days 30"
  local signer = options.ca and ("-CA %s.pem -CAkey %s.key"):format(options.ca, options.ca) or
    ("-signkey %s.key"):format(name)
  run(("openssl x509 -req -in %s.csr %s -set_serial %d %s -extfile %s.cnf -extensions ext -out %s.pem"):format(
    name, signer, math.random(1, 1 << 40), validity, name, name))
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
  expired = {ca = "ca", ext = LEAF .. "subjectAltName = DNS:localhost\n", validity = "-days -1"},
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
otherName = 1.2.3.4;UTF8:x
[dir]
O = In a directory
]]},
}

-- The path of a file: ca.pem, server.key ..., made now if need be.
function M.path(name)
  if not dir then
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -m 700 " .. h.quote(dir)))
    M.owner = setmetatable({}, {__gc = function() os.execute("rm -rf " .. h.quote(dir)) end})
  end
  local base = name:match "^[%w_]+"
  local options = KINDS[base]
  local f = io.open(dir .. "/" .. base .. ".pem")
  if f then
    f:close()
  elseif options then
    if options.ca then M.path(options.ca .. ".pem") end
    make(base, options)
  end
  return dir .. "/" .. name
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
  M.path "ca.pem"
  write(name, table.concat(parts))
  return M.path(name)
end

return M
