-- Ready means ready: whenever the next receive from a TLS socket would not wait, all that can be asked says so,
-- though the descriptor has nothing more to tell.

require "spec.helper"
local looped = require "spec.support.looped"
local selectors = require "socket.selectors"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local keep = support.keep

after_each(tls.clean)

-- How many bytes the kernel still has for a socket.
local function in_kernel(s)
  local plain <close> = socket.fromfd(s:fileno(), s.family, s.type)
  local data = plain:try_recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
  return data and #data or 0
end

-- Who says that the socket can be read from, one letter each.
local function who_says_ready(s)
  local said = {}
  local function note(name, ready) said[#said + 1] = ready and name or nil end
  for name in pairs {DefaultSelector = 1, PollSelector = 1} do
    local sel <close> = selectors[name]()
    sel:register(s, selectors.EVENT_READ)
    for _, events in sel:select(0) do note(name, events == selectors.EVENT_READ) end
  end
  note("select", #selectors.select({s}, {}, {}, 0) == 1)
  note("loop.wait", looped.run(function() return require "socket.loop".wait(s, "r", 0) end))
  if s.dirty then note("dirty", s:dirty()) end
  table.sort(said)
  return table.concat(said, " ")
end

local EVERYBODY = "DefaultSelector PollSelector dirty loop.wait select"

-- A connected pair, whose server's bytes are cut as a test wants: relay(n) passes on n of them, all without n.
local function relayed(options)
  local a, far = keep(socket.socketpair())
  local near, b = keep(socket.socketpair())
  local c = keep(tls.only(tls.client(), options.version):wrap_socket(a, {server_hostname = "localhost",
    do_handshake_on_connect = false, suppress_ragged_eofs = options.suppress}))
  local s = keep(tls.server():wrap_socket(b, {server_side = true, do_handshake_on_connect = false}))
  for _, x in ipairs {c, s, far, near} do x:settimeout(0) end
  local function relay(n)
    local data = near:try_recv(n or 1000000)
    if data then far:sendall(data) end
    return data
  end
  for _ = 1, 20 do
    c:try_do_handshake()
    local data = far:try_recv(100000)
    if data then near:sendall(data) end
    s:try_do_handshake()
    relay()
  end
  assert(c:version(), "no handshake")
  c:try_recv(1)     -- tickets
  return c, s, relay, far
end

for _, version in ipairs(tls.versions) do
  describe(version .. ": a receive that returns data", function()
    it("has seen the goodbye behind it: ready until the end has been told, and after", function()
      local c, s, relay = relayed {version = version}
      s:sendall "last words"
      s:shutdown(socket.SHUT_WR)
      relay()
      assert.equal("last words", c:recv(100))
      assert.equal(0, in_kernel(c))
      assert.equal(EVERYBODY, who_says_ready(c))
      assert.equal(1, c:pending())
      assert.is_nil(c:recv(100))
      assert.equal(EVERYBODY, who_says_ready(c))     -- as poll(2) of a stream that has ended
      assert.equal(0, c:pending())
      assert.is_nil(c:recv(100))
    end)

    it("has seen a broken record behind it: ready, and the error is told", function()
      local c, s, relay, far = relayed {version = version}
      s:sendall "good"
      relay()
      far:sendall "\23\3\3\0\40This is no record that anybody encrypted"
      assert.equal("good", c:recv(100))
      assert.equal(0, in_kernel(c))
      assert.equal(EVERYBODY, who_says_ready(c))
      assert.equal(1, c:pending())
      local e = support.fails("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", c.recv, c, 100)
      assert.equal("recv", e.op)
      assert.equal(0, c:pending())
      assert.is_true(c:dirty())
    end)

    it("has seen an end without goodbye behind it: ready, and the error is told", function()
      local c, s, relay, far = relayed {version = version, suppress = false}
      s:sendall "cut"
      relay()
      far:close()
      assert.equal("cut", c:recv(100))
      assert.equal(EVERYBODY, who_says_ready(c))
      support.fails("UNEXPECTED_EOF_WHILE_READING", c.recv, c, 100)
    end)

    it("took part of a record: ready for the rest", function()
      local c, s, relay = relayed {version = version}
      s:sendall "0123456789"
      relay()
      assert.equal("0123", c:recv(4))
      assert.equal(EVERYBODY, who_says_ready(c))
      assert.equal(6, c:pending())
      assert.equal("456789", c:recv(100))
      assert.equal("", who_says_ready(c))
    end)

    it("has the next header, but not the body: not ready before that has come", function()
      local c, s, relay = relayed {version = version}
      local size = 16384
      s:sendall(("x"):rep(size))
      local first = relay()
      s:sendall "y"
      relay(5)     -- the header alone
      assert.equal(size, #c:recv(size))
      assert.is_true(#first > size)
      assert.equal("", who_says_ready(c))
      relay()
      assert.equal(EVERYBODY:gsub(" dirty", ""), (who_says_ready(c):gsub(" dirty", "")))
      assert.equal("y", c:recv(1))
    end)

    it("has the next header, of no record of TLS: ready, and the error is told", function()
      local c, s, relay, far = relayed {version = version}
      s:sendall(("x"):rep(16384))
      relay()
      far:sendall "PLAIN"
      assert.equal(16384, #c:recv(16384))
      assert.equal(0, in_kernel(c))
      assert.equal(EVERYBODY, who_says_ready(c))
      assert.is_true(select(2, c:try_recv(1)):is(socket.ssl.SSLError))
    end)

    it("has the goodbye begun behind a large record: ready, whoever reads it exactly", function()
      local c, s, relay = relayed {version = version}
      s:sendall(("x"):rep(16384))
      s:shutdown(socket.SHUT_WR)
      relay()
      assert.equal(16384, #c:recv(16384))
      local ready = who_says_ready(c):gsub(" dirty", "")
      assert.equal(EVERYBODY:gsub(" dirty", ""), ready)
      assert.is_nil(c:recv(1))
    end)
  end)
end

describe("readiness of a TLS socket", function()
  it("a server driven by a selector hears the goodbye of a client that does not hang up", function()
    local c, s = tls.connected()
    local sel <close> = selectors.DefaultSelector()
    sel:register(s:settimeout(0), selectors.EVENT_READ)
    c:sendall "request"
    local seen = {}
    c:shutdown(socket.SHUT_WR)
    for _ = 1, 4 do
      for _ in sel:select(2) do
        local data, e = s:try_recv(100)
        if not e then seen[#seen + 1] = data or "end" end
      end
      if seen[#seen] == "end" then break end
    end
    assert.same({"request", "end"}, seen)
  end)

  it("an SSLObject's pending tells of the end likewise", function()
    local into, out = socket.ssl.MemoryBIO(), socket.ssl.MemoryBIO()
    local c = tls.client():wrap_bio(into, out, {server_hostname = "localhost"})
    local s = tls.server():wrap_bio(out, into, {server_side = true})
    for _ = 1, 6 do
      c:try_do_handshake()
      s:try_do_handshake()
    end
    s:write "bye"
    s:try_unwrap()
    assert.equal("bye", c:read(100))
    assert.equal(1, c:pending())
    assert.is_nil(c:read(100))
    assert.equal(0, c:pending())
  end)

  it("a file that has read the last line is ready for the end", function()
    local c, s = tls.connected()
    local f <close> = c:makefile("r")
    s:sendall "first\nlast"
    s:shutdown(socket.SHUT_WR)
    assert.equal("first", f:read "l")
    assert.equal("last", f:read "l")
    assert.equal(EVERYBODY, who_says_ready(c))
    assert.equal(EVERYBODY:gsub(" dirty", ""), (who_says_ready(f)))
    assert.is_nil(f:read "l")
  end)
end)
