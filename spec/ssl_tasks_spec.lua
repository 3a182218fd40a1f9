-- Several tasks at one TLS connection: the direction in which an operation works may be another than that which TLS
-- needs.

local certs = require "spec.support.certs"
local h = require "spec.helper"
local looped = require "spec.support.looped"
local loop = require "socket.loop"
local socket = require "socket"
local support = require "spec.support"
local tasks = require "spec.support.tasks"
local tls = require "spec.support.tls"

local keep = support.keep

after_each(tls.clean)

-- Two ends whose handshake is still to come.
local function unshaken(options)
  options = options or {}
  local a, b = socket.socketpair()
  local c = keep(tls.only(options.client or tls.client(), options.version):wrap_socket(a, {
    server_hostname = options.host or "localhost", do_handshake_on_connect = false}))
  local s = keep((options.server or tls.server()):wrap_socket(b, {server_side = true, do_handshake_on_connect = false}))
  return c:settimeout(5), s:settimeout(5)
end

for _, version in ipairs(tls.versions) do
  describe(version .. ": a handshake that is still to come", function()
    it("is made by one task for all: receiving, sending and asking for it", function()
      local c, s = unshaken {version = version}
      looped.run(function()
        local results = {}
        local function add(name, f, ...)
          local t = loop.spawn(function(...) results[name] = f(...) end, ...)
          return t
        end
        local list = {
          add("receives", c.recv, c, 100),
          add("sends", c.sendall, c, "question"),
          add("shakes", c.do_handshake, c),
          add("shakes too", c.do_handshake, c)}
        loop.sleep(0.02)     -- all of them wait by now
        assert.equal("question", s:recv(100))
        s:sendall "answer"
        for _, t in ipairs(list) do t:join() end
        assert.same({receives = "answer", sends = c, shakes = c, ["shakes too"] = c}, results)
      end)
    end)

    it("fails for all with TLS's own error", function()
      local c, s = unshaken {version = version, host = "other.example"}
      looped.run(function()
        local codes = {}
        local function add(f, ...)
          return loop.spawn(function(...)
            local _, e = f(...)
            codes[#codes + 1] = e.code
          end, ...)
        end
        local list = {add(c.try_recv, c, 100), add(c.try_sendall, c, "question"), add(c.try_do_handshake, c)}
        loop.sleep(0.02)
        pcall(s.do_handshake, s)
        for _, t in ipairs(list) do t:join() end
        assert.same({"CERTIFICATE_VERIFY_FAILED", "CERTIFICATE_VERIFY_FAILED", "CERTIFICATE_VERIFY_FAILED"}, codes)
      end)
    end)

    it("goes on with another task when the one that made it is cancelled", function()
      local c, s = unshaken {version = version}
      looped.run(function()
        local receiver = loop.spawn(c.recv, c, 100)
        local sender = loop.spawn(c.sendall, c, "question")
        loop.sleep(0.02)
        receiver:cancel()
        pcall(receiver.join, receiver)
        assert.equal("question", s:recv(100))
        sender:join()
      end)
    end)

    it("is told to who waits when a new operation is the one to finish it", function()
      local c, s = unshaken {version = version}
      looped.run(function()
        local sender = loop.spawn(c.sendall, c, "question")
        loop.sleep(0.02)
        s:settimeout(0)
        c:settimeout(0)
        for _ = 1, 4 do     -- at once: no event of the descriptor comes between
          s:try_do_handshake()
          c:try_do_handshake()
        end
        assert.is_string(c:version())
        s:settimeout(5)
        assert.equal("question", s:recv(100))
        sender:join()
      end)
    end)

    it("is shared by coroutines of a wait hook, too", function()
      local c, s = unshaken {version = version}
      local results = tasks.run({
        function() return c:recv(100) end,
        function() return c:sendall "question" end,
        function() return s:recv(100), s:sendall "answer" end}, 5)
      assert.same({true, "answer", n = 2}, {results[1][1], results[1][2], n = results[1].n})
      assert.is_true(results[2][1], tostring(results[2][2]))
      assert.same({true, "question"}, {results[3][1], results[3][2]})
    end)
  end)
end

describe("two tasks that want the same of one TLS socket", function()
  it("are refused as ever once the handshake has been made", function()
    local c = tls.connected()
    looped.run(function()
      local first = loop.spawn(c.try_recv, c, 1)
      loop.sleep(0.01)
      local none, e = c:try_recv(1)
      assert.is_nil(none)
      assert.equal("EBUSY", e.code)
      first:cancel()
    end)
  end)
end)

describe("a request of the peer in the middle of a large send", function()
  -- A client that can prove who it is, and a server that may ask for that after the handshake.
  local function provable()
    local client = tls.client():load_cert_chain(certs.path "client.pem", certs.path "client.key")
    local server = tls.server():load_verify_locations(certs.path "ca.pem")
    client.post_handshake_auth, server.post_handshake_auth = true, true
    server.verify_mode = socket.ssl.CERT_REQUIRED
    local c, s = tls.connected {client = client, server = server}
    return c, s
  end
  local size = 4000000

  it("for the client's certificate is answered between two of its records", function()
    local c, s = provable()
    looped.run(function()
      local data = tls.random_bytes(size)
      local sender = loop.spawn(c.sendall, c, data)
      loop.sleep(0.02)     -- the send is stuck in a record
      local receiver = loop.spawn(c.recv, c, 100)
      s:verify_client_post_handshake():sendall "prove it"
      loop.sleep(0.02)
      assert.is_true(tls.collect(s, size) == data)
      sender:join()
      assert.equal("prove it", receiver:join())
      c:sendall "done"
      assert.equal("done", s:recv(10))
      assert.is_table(s:getpeercert().subject)
    end)
  end)

  it("is not waited for by those who only read: the peer may be heard before it reads", function()
    local c, s = provable()
    looped.run(function()
      local data = tls.random_bytes(size)
      local sender = loop.spawn(c.sendall, c, data)
      loop.sleep(0.02)
      s:sendall "news"
      assert.equal("news", c:recv(100))
      assert.is_true(tls.collect(s, size) == data)
      sender:join()
    end)
  end)

  it("may be the server's own, whose send is stuck", function()
    local c, s = provable()
    looped.run(function()
      local data = tls.random_bytes(size)
      local sender = loop.spawn(s.sendall, s, data)
      loop.sleep(0.02)
      s:verify_client_post_handshake()
      local reader = loop.spawn(s.recv, s, 100)
      assert.is_true(tls.collect(c, size) == data)
      sender:join()
      c:sendall "here"
      assert.equal("here", reader:join())
      assert.is_table(s:getpeercert().subject)
    end)
  end)

  it("for new keys is answered between two of its records", function()
    local program, cc = os.tmpname(), os.getenv "CC" or ""
    if not os.execute(("%s -o %s %s $(pkg-config --cflags --libs 'openssl >= 3.0') 2>/dev/null"):format(
        cc == "" and "cc" or cc, program, h.quote(h.root .. "/spec/host/key_updates.c"))) then
      os.remove(program)
      pending "needs a C compiler and OpenSSL's headers"
    end
    local signs, go = socket.socketpair()     -- what the server is told: when to ask, when to read
    keep(go)
    signs:set_inheritable(true)
    local server = assert(io.popen(("exec %s %s %s <&%d"):format(program, h.quote(certs.path "server.pem"),
      h.quote(certs.path "server.key"), signs:fileno())))
    signs:close()
    local port = assert(server:read "n")
    looped.run(function()
      local c = keep(tls.client():wrap_socket(socket.create_connection {"127.0.0.1", port}:settimeout(10),
        {server_hostname = "localhost"}))
      local sender = loop.spawn(c.sendall, c, ("y"):rep(size * 2))
      loop.sleep(0.05)
      go:sendall "1"
      assert.equal("xxx", c:recv(3, socket.MSG_WAITALL))
      go:sendall "2"
      sender:join()
      c:close()
    end)
    assert.equal(size * 2, server:read "n")
    server:close()
    os.remove(program)
  end)

  it("does not let the rest of a record get lost: what was laid aside goes out before anything else", function()
    local c, s = provable()
    local data = tls.random_bytes(size)
    local e = support.fails("ETIMEDOUT", c.sendall, c:settimeout(0.05), data)
    s:settimeout(5):sendall "news"
    assert.equal("news", c:recv(100))     -- lays the rest aside
    local got = tls.collect(s:settimeout(0.2), e.sent)
    assert.is_true(got == data:sub(1, e.sent))
    c:settimeout(5):sendall(data:sub(e.sent + 1, e.sent + 20000))
    assert.is_true(tls.collect(s:settimeout(5), 20000) == data:sub(e.sent + 1, e.sent + 20000))
  end)
end)

describe("a sendall over TLS that is cancelled", function()
  it("says how much was sent, and the rest can follow", function()
    local c, s = tls.connected()
    looped.run(function()
      local data = tls.random_bytes(3000000)
      local e
      local sender = loop.spawn(function() e = select(2, pcall(c.sendall, c, data)) end)
      loop.sleep(0.02)
      sender:cancel()
      sender:join()
      assert.is_true(e:is(loop.cancelled))
      assert.is_true(e.sent > 0 and e.sent < #data)
      sender = loop.spawn(c.sendall, c, data:sub(e.sent + 1))
      assert.is_true(tls.collect(s, #data) == data)
      sender:join()
    end)
  end)
end)
