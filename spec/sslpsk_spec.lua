-- Keys known beforehand instead of certificates.

require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local ssl = socket.ssl
local fails = support.fails

local function only(version)
  return function(c)
    c.minimum_version, c.maximum_version = version, version
    if version == ssl.TLSVersion.TLSv1_2 then c:set_ciphers "PSK" end
  end
end

-- A handshake over memory: both ends, or what try_do_handshake of the one that failed returned, and which it was.
local function shake(setup, of_client, of_server, hint)
  local c, s = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  c.check_hostname = false
  assert.equal(c, c:set_psk_client_callback(of_client))
  assert.equal(s, s:set_psk_server_callback(of_server, hint))
  setup(c)
  setup(s)
  local up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
  local a, b = c:wrap_bio(down, up), s:wrap_bio(up, down, {server_side = true})
  for _ = 1, 6 do
    local ok, e = a:try_do_handshake()
    if e and e.code ~= "EAGAIN" then return nil, e, "client" end
    local ok2, e2 = b:try_do_handshake()
    if e2 and e2.code ~= "EAGAIN" then return nil, e2, "server" end
    if ok and ok2 then return a, b end
  end
  error "no end of it"
end

for _, version in ipairs {"TLSv1_2", "TLSv1_3"} do
  local setup, old = only(ssl.TLSVersion[version]), version == "TLSv1_2"
  describe("a PSK with " .. version, function()
    it("takes the place of certificates", function()
      local hint, name
      local a, b = shake(setup, function(h)
        hint = h
        return "me", "\0secret"
      end, function(n)
        name = n
        return "\0secret"
      end, "a hint")
      assert.truthy(a, b)
      assert.equal(old and "a hint" or nil, hint)
      assert.equal("me", name)
      assert.equal(old and "TLSv1.2" or "TLSv1.3", a:version())
      assert.is_nil(a:getpeercert())
      assert.equal(5, a:write "hello")
      assert.equal("hello", b:read(10))
    end)

    it("must be the same at both ends, and known to the server", function()
      local none, e, where = shake(setup, function() return "me", "secret" end, function() return "other" end)
      assert.is_nil(none)
      assert.equal("server", where)
      assert.equal(old and "DECRYPTION_FAILED_OR_BAD_RECORD_MAC" or "BINDER_DOES_NOT_VERIFY", e.code)
      none, e, where = shake(setup, function() return "me", "secret" end, function() end)
      assert.is_nil(none)
      assert.equal("server", where)
      assert.is_true(e:is(ssl.SSLError))
    end)

    it("callbacks' errors come out of the handshake, and end it", function()
      local thrown = {}
      local ok, e = pcall(shake, setup, function() error(thrown) end, function() return "x" end)
      assert.is_false(ok)
      assert.equal(thrown, e)
      ok, e = pcall(shake, setup, function() return "me", "x" end, function() error(thrown) end)
      assert.is_false(ok)
      assert.equal(thrown, e)
      for message, f in pairs {
        ["must be a string, not a boolean"] = function() return "me", true end,
        ["identity must be a string, not a table"] = function() return {}, "x" end,
        ["zero byte"] = function() return "a\0b", "x" end,
        ["identity is too long"] = function() return ("x"):rep(1000), "x" end,
        ["longer than"] = function() return "me", ("x"):rep(10000) end,
      } do
        ok, e = pcall(shake, setup, f, function() return "x" end)
        assert.is_false(ok)
        assert.matches(message, tostring(e), 1, true)
      end
    end)
  end)
end

describe("PSK callbacks", function()
  it("go with certificates, for who has no key", function()
    assert.is_true(ssl.HAS_PSK)
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c:set_psk_client_callback(function() return nil end)
    c.check_hostname = false
    local up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    local a = c:wrap_bio(down, up)
    fails("EAGAIN", a.do_handshake, a)     -- a hello without a PSK is on its way
    assert.is_true(up.pending > 0)
    assert.equal(c, c:set_psk_client_callback(nil))
  end)

  it("belong to one side each", function()
    local c, s = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert.is_false((pcall(c.set_psk_server_callback, c, print)))
    assert.is_false((pcall(s.set_psk_client_callback, s, print)))
    assert.is_false((pcall(c.set_psk_client_callback, c, 1)))
    assert.is_false((pcall(s.set_psk_server_callback, s, print, ("x"):rep(257))))
    assert.is_false((pcall(s.set_psk_server_callback, s, print, "a\0b")))
  end)

  it("that failed leave a connection nobody can go on with", function()
    local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = false
    c:set_psk_client_callback(function() error "no key" end)
    local a = c:wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert.is_false((pcall(a.do_handshake, a)))
    fails("ECONNABORTED", a.do_handshake, a)
  end)
end)
