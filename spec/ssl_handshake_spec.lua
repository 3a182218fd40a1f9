-- Handshakes that stop anywhere: each end, TLS 1.2 and 1.3, when its peer's bytes come singly, late, or end too soon.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep = support.fails, support.keep

after_each(tls.clean)

certs.kind("long", {ca = "ca", ext = certs.LEAF .. "subjectAltName = DNS:localhost\nnsComment = "
  .. ("A long comment. "):rep(3000) .. "\n"})

-- One end is a TLS socket, `sock`; its peer lives in memory, and what that sends is let through as the test likes.
local Line = {}
Line.__index = Line

-- Contexts of one version, made once; with a certificate of that name at both ends.
local contexts = {}
local function new_contexts(version, name)
  local key = version .. (name or "")
  if not contexts[key] then
    local client, server = tls.only(tls.client(), version), tls.server(name)
    if name then client:load_cert_chain(certs.path(name .. ".pem"), certs.path(name .. ".key")) end
    server:load_verify_locations(certs.path "ca.pem")
    server.verify_mode = ssl.CERT_OPTIONAL
    contexts[key] = {client, server}
  end
  return table.unpack(contexts[key])
end

local function new_line(side, version, name)
  local client, server = new_contexts(version, name)
  local a, b = socket.socketpair()
  local into, from = ssl.MemoryBIO(), ssl.MemoryBIO()
  local sock, peer
  if side == "client" then
    sock = client:wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false})
    peer = server:wrap_bio(into, from, {server_side = true})
  else
    sock = server:wrap_socket(a, {server_side = true, do_handshake_on_connect = false})
    peer = client:wrap_bio(into, from, {server_hostname = "localhost"})
  end
  return setmetatable({sock = keep(sock), far = keep(b:settimeout(0)), peer = peer, into = into, from = from,
    stream = "", at = 0, ends = {[0] = 0}}, Line)
end

-- The peer takes what has been sent to it, and answers.
function Line:turn()
  local data = self.far:try_recv(1 << 20)
  if data then self.into:write(data) end
  self.peer:try_do_handshake()
  self.stream = self.stream .. self.from:read()
  local last = self.ends[#self.ends]
  while #self.stream >= last + 5 do
    last = last + 5 + (">I2"):unpack(self.stream, last + 4)
    self.ends[#self.ends + 1] = last
  end
end

-- Lets the bytes up to a position through; returns whether there were any.
function Line:let(position)
  position = math.min(position, #self.stream)
  if position <= self.at then return false end
  self.far:sendall(self.stream:sub(self.at + 1, position))
  self.at = position
  return true
end

-- One attempt of the handshake, without waiting: true, or the error.
function Line:attempt()
  self.sock:settimeout(0)
  local ok, e = self.sock:try_do_handshake()
  return ok ~= nil or e
end

-- Goes on until the bytes up to the end of that record, and so many more, are through. False if the handshake ended
-- before, or would with these bytes.
function Line:advance(record, more)
  for _ = 1, 30 do
    local done = self:attempt()
    if done == true then return false end
    assert.equal("EAGAIN", done.code, tostring(done))
    self:turn()
    local stop = self.ends[record] and self.ends[record] + more or #self.stream
    if self.ends[record] and stop <= #self.stream and self.at == stop then return true end
    if not self:let(stop) then return false end
  end
  error "the handshake does not get on"
end

-- The rest, at the sock's end in the way of blocking sockets: in a coroutine.
function Line:complete()
  local S = support.scheduler(pending)
  local done
  self.sock:settimeout(5)
  S.spawn(function() done = self.sock:do_handshake() end)
  S.spawn(function()
    for _ = 1, 1000 do
      self:turn()
      self:let(math.huge)
      if done then return end
      socket.sleep(0.0002)
    end
  end)
  S.run()
  assert.equal(self.sock, done)
end

-- Bytes both ways.
function Line:talks()
  self.sock:settimeout(5):sendall "from the socket"
  self:turn()
  assert.equal("from the socket", self.peer:read(100))
  self.peer:write "from its peer"
  self:turn()
  self:let(math.huge)
  assert.equal("from its peer", self.sock:recv(100))
end

for _, version in ipairs(tls.versions) do
  for _, side in ipairs {"client", "server"} do
    describe(("%s, the %s's end:"):format(version, side), function()
      it("goes on from every byte", function()
        local line = new_line(side, version)
        local attempts = 0
        for _ = 1, 5000 do
          local done = line:attempt()
          if done == true then break end
          attempts = attempts + 1
          assert.equal("EAGAIN", done.code, tostring(done))
          assert.is_true(done:is(ssl.SSLWantReadError))
          line:turn()
          assert.is_true(line:let(line.at + 1))
        end
        assert.is_true(attempts >= line.at and line.at > 200)
        line:talks()
      end)

      it("times out wherever its peer stalls, and can go on", function()
        local stalls = 0
        for record = 0, 12 do
          for _, more in ipairs {-1, 0, 1, 4, 5, 6} do
            local line = new_line(side, version)
            if (record > 0 or more >= 0) and line:advance(record, more) then
              stalls = stalls + 1
              for _ = 1, more == 0 and 2 or 1 do
                line.sock:settimeout(0.004)
                local t = socket.monotonic()
                local e = fails("ETIMEDOUT", line.sock.do_handshake, line.sock)
                t = socket.monotonic() - t
                assert.equal(socket.timeout, e.class)
                assert.is_true(t >= 0.004 and t < 1, t)
              end
              assert.is_nil(line.sock:version())
              line:complete()
              line:talks()
            end
            tls.clean()
          end
        end
        assert.is_true(stalls >= (side == "client" and 20 or 10), stalls)
      end)

      it("says so wherever the stream ends, and leaves no descriptor", function()
        -- How many bytes there are varies by a few: signatures do.
        local probe = new_line(side, version)
        local records = 1
        while probe:advance(records, 0) do records = records + 1 end
        assert.equal(true, probe:attempt())
        local step = 8
        local first = math.random(0, step - 1)
        local total = probe.at
        tls.clean()
        local before = support.descriptors()
        local ended = 0
        for position = first, total - 1, step do
          local line = new_line(side, version)
          local done
          for _ = 1, 30 do
            done = line:attempt()
            line:turn()
            if done == true or line.at == position then break end
            line:let(position)
          end
          if done == true then
            assert.is_true(position > total - 12)
            break
          end
          local how = position // step % 2 == 0 and "shutdown" or "close"
          if how == "close" then line.far:close() else line.far:shutdown(socket.SHUT_WR) end
          line.sock:settimeout(5)
          local t = socket.monotonic()
          local ok, e = line.sock:try_do_handshake()
          assert.is_true(socket.monotonic() - t < 2)
          assert.is_nil(ok)
          if how == "shutdown" or e.errno == ssl.SSL_ERROR_EOF then
            assert.equal("UNEXPECTED_EOF_WHILE_READING", e.code)
            assert.equal(ssl.SSLEOFError, e.class)
          else     -- what it still had to send was in vain
            assert.is_true(e.code == "EPIPE" or e.code == "ECONNRESET", tostring(e))
          end
          local _, again = line.sock:try_recv(1)
          assert.equal(e.code, again.code)
          ended = ended + 1
          tls.clean()
        end
        tls.clean()
        assert.is_true(ended >= (total - 12 - first) // step, ended)
        assert.equal(before, support.descriptors())
      end)

      it("waits for room to send, too", function()
        local line = new_line(side, version, "long")
        line.sock:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        local timeouts, wants = 0, 0
        for _ = 1, 400 do
          local done = line:attempt()
          if done == true then break end
          if done:is(ssl.SSLWantWriteError) then
            wants = wants + 1
            if wants <= 3 then
              line.sock:settimeout(0.004)
              assert.is_true(fails("ETIMEDOUT", line.sock.do_handshake, line.sock):is(socket.timeout))
              timeouts = timeouts + 1
            end
          end
          line:turn()
          line:let(math.huge)
        end
        assert.is_true(wants >= 3 and timeouts == 3, wants)
        line.sock:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        line:talks()
        local cert = line.peer:getpeercert()
        assert.equal("long", cert.subject[1][1][2])
      end)

      it("records that come in pieces lose nothing after the handshake either", function()
        local line = new_line(side, version)
        line:complete()
        line:talks()
        line.peer:write(("0123456789"):rep(4))
        line:turn()
        while line.at < #line.stream - 1 do
          line:let(line.at + 1)
          line.sock:settimeout(line.at % 16 == 0 and 0.003 or 0)
          local _, e = line.sock:try_recv(100)
          assert.equal(line.at % 16 == 0 and "ETIMEDOUT" or "EAGAIN", e.code)
        end
        line:let(math.huge)
        assert.equal(("0123456789"):rep(4), line.sock:recv(100))
      end)
    end)
  end
end

describe("a handshake at once", function()
  it("that ends too soon or takes too long leaves no descriptor and no object", function()
    local client, server = tls.client(), tls.server()
    local before = support.descriptors()
    for _, side in ipairs {"client", "server"} do
      for _, fault in ipairs {"UNEXPECTED_EOF_WHILE_READING", "ETIMEDOUT", "WRONG_VERSION_NUMBER"} do
        local a, b = keep(socket.socketpair())
        a:settimeout(0.01)
        if fault == "WRONG_VERSION_NUMBER" then b:sendall "no TLS here, sorry" end
        if fault == "UNEXPECTED_EOF_WHILE_READING" then b:shutdown(socket.SHUT_WR) end
        local e
        if side == "client" then
          e = fails(fault, client.wrap_socket, client, a, {server_hostname = "localhost"})
        else
          e = fails(fault, server.wrap_socket, server, a, {server_side = true})
        end
        assert.equal("wrap_socket", e.op)
        assert.equal(-1, a:fileno())
        if fault ~= "WRONG_VERSION_NUMBER" then     -- the far end sees the end, after a client's greeting
          b:settimeout(5)
          while b:recv(4096) do end
        end
        tls.clean()
      end
    end
    assert.equal(before, support.descriptors())
  end)

  it("in connect and accept has their time, and the listener goes on", function()
    local plain, port = tls.listener()
    local c = keep(tls.client():wrap_socket(socket.socket(), {server_hostname = "localhost"}))
    c:settimeout(0.02)
    local t = socket.monotonic()
    local e = fails("ETIMEDOUT", c.connect, c, {"127.0.0.1", port})
    assert.is_true(e:is(socket.timeout))
    assert.is_true(socket.monotonic() - t >= 0.02)
    plain:close()
    local listener = keep(tls.server():wrap_socket(socket.create_server {"127.0.0.1", 0}, {server_side = true}))
    listener:settimeout(0.02)
    local before = support.descriptors()
    for _ = 1, 3 do
      local silent = socket.create_connection(listener:getsockname())
      assert.is_true(fails("ETIMEDOUT", listener.accept, listener):is(socket.timeout))
      silent:close()
      silent = socket.create_connection(listener:getsockname())
      silent:sendall "nothing that TLS knows":shutdown(socket.SHUT_WR)
      fails("WRONG_VERSION_NUMBER", listener.accept, listener)
      silent:close()
      silent = socket.create_connection(listener:getsockname()):shutdown(socket.SHUT_WR)
      fails("UNEXPECTED_EOF_WHILE_READING", listener.accept, listener)
      silent:close()
    end
    assert.equal(before, support.descriptors())
    listener:settimeout(5)
    local S = support.scheduler(pending)
    local got
    S.spawn(function()
      local s <close> = listener:accept()
      got = s:recv(10)
    end)
    S.spawn(function()
      local s <close> = tls.client():wrap_socket(socket.socket():settimeout(5), {server_hostname = "localhost"})
      s:connect(listener:getsockname()):sendall "hello"
    end)
    S.run()
    assert.equal("hello", got)
  end)
end)
