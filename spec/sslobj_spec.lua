-- TLS over memory: SSLObject, MemoryBIO.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"

local ssl = socket.ssl
local fails = support.fails

-- Two SSLObjects of this process; moves bytes between them.
local function objects(name)
  local cin, cout, sin, sout = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
  local server = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
  server:load_cert_chain(certs.path((name or "server") .. ".pem"), certs.path((name or "server") .. ".key"))
  local client = ssl.create_default_context {cafile = certs.path "ca.pem"}
  local c = client:wrap_bio(cin, cout, {server_hostname = name and "a.test" or "localhost"})
  local s = server:wrap_bio(sin, sout, {server_side = true})
  local function move()
    sin:write(cout:read())
    cin:write(sout:read())
  end
  for _ = 1, 4 do
    c:try_do_handshake()
    move()
    s:try_do_handshake()
    move()
  end
  return c, s, move, {cin, cout, sin, sout}
end

describe("SSLObject", function()
  it("speaks TLS over two queues of bytes", function()
    local c, s, move, bios = objects()
    assert.equal("TLSv1.3", c:version())
    assert.equal(5, c:write "Hello")
    local e = fails("EAGAIN", s.read, s)
    assert.is_true(e:is(ssl.SSLWantReadError))
    move()
    assert.equal("Hello", s:read())
    assert.is_false(c.server_side)
    assert.equal("localhost", c.server_hostname)
    assert.is_nil(c.recv)
    fails("EAGAIN", c.unwrap, c)
    move()
    assert.is_nil(s:read())
    assert.equal(s, s:unwrap())
    move()
    assert.equal(c, c:unwrap())
    assert.equal(0, bios[1].pending)
  end)

  it("notices an end without goodbye", function()
    local c, _, _, bios = objects()
    bios[1]:write_eof()
    fails("UNEXPECTED_EOF_WHILE_READING", function() repeat until not c:read() end)
  end)

  it("does not take what is no MemoryBIO", function()
    local ctx = ssl.create_default_context()
    assert.is_false((pcall(ctx.wrap_bio, ctx, ssl.MemoryBIO(), {}, {server_hostname = "x"})))
    assert.is_false((pcall(ctx.wrap_bio, ctx, ssl.MemoryBIO(), ssl.MemoryBIO(), {server_hostname = "x", odd = 1})))
  end)
end)

describe("MemoryBIO", function()
  it("is a queue", function()
    local b = ssl.MemoryBIO()
    assert.equal("", b:read())
    assert.equal(3, b:write "abc")
    assert.equal(2, b:write(socket.buffer "de"))
    assert.equal(5, b.pending)
    assert.equal("ab", b:read(2))
    b:write_eof()
    assert.is_false(b.eof)
    assert.equal("cde", b:read())
    assert.is_true(b.eof)
    assert.is_nil(b:read())
    assert.is_false((pcall(b.write, b, "x")))
  end)
end)
