-- wrap_socket before the handshake: connections that are over, names of servers, bytes received before.

require "spec.helper"
local certs = require "spec.support.certs"
local check = require "spec.support.check"
local looped = require "spec.support.looped"
local loop = require "socket.loop"
local selectors = require "socket.selectors"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep, refuses = support.fails, support.keep, check.refuses

after_each(tls.clean)

-- A socket whose connection the peer has reset, perhaps after it has sent something.
local function reset(data)
  local a, b = support.tcp()
  if data then
    b:sendall(data)
    assert(select(1, selectors.select({a}, {}, {}, 5))[1])
  end
  b:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 0)):close()
  for _ = 1, 1000 do
    if not a:try_getpeername() then break end
    socket.sleep(0.001)
  end
  return keep(a)
end

describe("a connection that is over before wrap_socket", function()
  it("is an error, whatever was received, and is closed", function()
    for _, data in ipairs {false, "smuggled"} do
      for _, handshake in ipairs {true, false} do
        local a = reset(data)
        fails("ECONNRESET", function()
          tls.client():wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = handshake})
        end)
        fails("EBADF", a.recv, a, 100)
      end
    end
  end)

  it("is one too where its error has been told already", function()
    local a = reset()
    fails("ECONNRESET", a.recv, a, 1)
    local none, e = tls.client():try_wrap_socket(a, {server_hostname = "localhost"})
    assert.is_nil(none)
    assert.equal("ECONNRESET", e.code)
    assert.equal("wrap_socket", e.op)
  end)

  it("is not what a socket is that was never connected, or is about to be", function()
    local listener = keep(socket.create_server {"127.0.0.1", 0})
    local fresh, busy = socket.socket(), socket.socket()
    busy:settimeout(0):try_connect(listener:getsockname())
    for _, plain in ipairs {fresh, busy, listener} do
      local ctx = plain == listener and tls.server() or tls.client()
      local s = keep(ctx:wrap_socket(plain, {server_side = plain == listener, do_handshake_on_connect = false,
        server_hostname = plain ~= listener and "localhost" or nil}))
      assert.is_nil(s:version())
    end
  end)
end)

describe("server_hostname", function()
  -- The names that a client asks for in its first message.
  local function asks_for(host)
    local into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    local c = tls.client():wrap_bio(into, out, {server_hostname = host})
    c:try_do_handshake()
    return out:read():find(host, 1, true) ~= nil
  end

  it("is a name or an address as inet_pton reads it; others are argument errors", function()
    for _, host in ipairs {"127.0.0.1 evil", "127.0.0.1\n", " 127.0.0.1", "[::1]", "fe80::1%lo", "fe80::1%1", "::1 ",
        "1::2::3", "a b", "localhost:443", "https://localhost", "user@localhost", "*.example.org", "a,b", "a\tb"} do
      refuses("neither a name nor an address", asks_for, host)
    end
  end)

  it("goes out if it is a name, also an odd one, and not if it is an address", function()
    for _, host in ipairs {"localhost", "xn--bcher-kva.example", "_dmarc.example", "EXAMPLE.org", "127.1",
        "localhost."} do
      assert.is_true(asks_for(host), host)
    end
    for _, host in ipairs {"127.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1"} do
      assert.is_false(asks_for(host), host)
    end
  end)

  it("is left out by get_server_certificate where the host is none", function()
    local listener = tls.listener()
    local port, names = listener:getsockname().port, {}
    local server = tls.server()
    server.sni_callback = function(_, name) names[#names + 1] = name or "none" end
    looped.run(function()
      for _, address in ipairs {{"localhost", port}, {host = "localhost", port = port}, {"127.0.0.1", port}} do
        local task = loop.spawn(function()
          local conn <close> = server:wrap_socket((listener:accept()), {server_side = true})
          assert(conn)
        end)
        assert.equal(certs.read "server.pem", ssl.get_server_certificate(address, {timeout = 5}))
        task:join()
      end
    end)
    assert.same({"localhost", "localhost", "none"}, names)
  end)
end)

describe("bytes received before wrap_socket", function()
  for _, version in ipairs(tls.versions) do
    it(version .. ": are read first, however many of them there are", function()
      for _, n in ipairs {0, 1, 5, 100, 1000000} do
        looped.run(function()
          local a, b = socket.socketpair()
          local client = loop.spawn(function()
            local ctx = tls.only(tls.client(), version)
            local c <close> = ctx:wrap_socket(a:settimeout(5), {server_hostname = "localhost"})
            c:sendall "hello"
            return c:recv(100)
          end)
          local early = n > 0 and b:recv(n) or ""
          local s <close> = tls.server():wrap_socket(b:settimeout(5), {server_side = true, received = early})
          assert.equal("hello", s:recv(100))
          s:sendall "welcome"
          assert.equal("welcome", client:join())
        end)
      end
    end)
  end

  it("may come out of a file that has read ahead: STARTTLS, of which the peer did not wait for the answer", function()
    looped.run(function()
      local a, b = socket.socketpair()
      local client = loop.spawn(function()
        local into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        local hello = tls.client():wrap_bio(into, out, {server_hostname = "localhost"})
        hello:try_do_handshake()
        a:sendall("STARTTLS\n" .. out:read())
        repeat
          into:write(a:recv(100000))
          local done = hello:try_do_handshake()
          a:sendall(out:read())
        until done
        hello:write "safe"
        a:sendall(out:read())
      end)
      local f = b:settimeout(5):makefile "r"
      assert.equal("STARTTLS", f:read "l")
      refuses("has open files", tls.server().wrap_socket, tls.server(), b, {server_side = true})
      local early = f:read(11)
      early = early .. f:read(early:byte(4) * 256 + early:byte(5) + 5 - 11)
      f:close()
      local s <close> = tls.server():wrap_socket(b, {server_side = true, received = socket.buffer(early)})
      assert.equal("safe", s:recv(100))
      client:join()
    end)
  end)

  it("make a socket ready whose handshake is still to come", function()
    local a, b = socket.socketpair()
    keep(a)
    local s = keep(tls.server():wrap_socket(b, {server_side = true, do_handshake_on_connect = false,
      received = "GET / HTTP/1.0\r\n"}))
    assert.is_true(s:dirty())
    assert.equal(1, s:pending())
    assert.equal(1, #selectors.select({s}, {}, {}, 0))
    fails("HTTP_REQUEST", s.do_handshake, s)
  end)

  it("are bytes, of a socket that is connected", function()
    local a, b = socket.socketpair()
    keep(a, b)
    local server, options = tls.server(), {server_side = true}
    for _, wrong in ipairs {1, {}, true, a} do
      options.received = wrong
      refuses("received must be a string or a buffer", server.wrap_socket, server, a, options)
    end
    options.received = "x"
    refuses("received is for connected sockets", server.wrap_socket, server, keep(socket.socket()), options)
  end)
end)
