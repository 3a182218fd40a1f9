-- A peer may send its part of a handshake byte by byte. Each byte ends an attempt that then has to wait, and no
-- attempt may leave anything on Lua's stack: what grew there with every byte overflowed it, at the peer's will.

local certs = require "spec.support.certs"
local support = require "spec.support"

local BYTES = 6000

-- Runs code in a process of its own with `bytes`, which begin a record that never ends, contexts, and a function
-- `drip(f, s)`, which calls f while s sends one byte more at each wait, and prints what f returns or raises.
local function run(side, code)
  local text, status = support.run(([[
    local socket = require "socket"
    local loop = require "socket.loop"
    local ssl = require "socket.ssl"
    local server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server:load_cert_chain("%s", "%s")
    local client = ssl.create_default_context {cafile = "%s"}
    local bytes = "\22\3%s\64\0" .. ("x"):rep(%d)
    local late = {do_handshake_on_connect = false, server_hostname = "localhost"}
    local function show(ok, e) print(ok, ok and e or e.class and e.class.name or e) end
    local function in_hook(f, peer)
      local co, at = coroutine.create(f), 0
      socket.setwaithook(function()
        at = at + 1
        if at > #bytes then peer:try_shutdown(socket.SHUT_WR) else peer:try_send(bytes:sub(at, at)) end
        return true
      end)
      show(coroutine.resume(co))
      socket.setwaithook(nil)
    end
    local function in_loop(f, peer)
      loop.run(function()
        local t = loop.spawn(function() show(pcall(f)) end)
        for at = 1, #bytes do
          peer:try_send(bytes:sub(at, at))
          socket.sleep(0)
        end
        peer:shutdown(socket.SHUT_WR)
        t:join()
      end)
    end
    for _, drip in ipairs {in_hook, in_loop} do
      local a, b = socket.socketpair()
      %s
    end]]):format(certs.path "server.pem", certs.path "server.key", certs.path "ca.pem",
    side == "server" and "\\1" or "\\3", BYTES, code))
  return text, status
end

local function ends_with(side, class, code)
  local text, status = run(side, code)
  assert.equal(0, status, text)
  assert.equal(("false\t%s\n"):rep(2):format(class, class), text)
end

describe("a handshake that comes byte by byte leaves Lua's stack alone", function()
  local EOF = "ssl.SSLEOFError"

  it("in a server's wrap_socket", function()
    ends_with("server", EOF, "drip(function() return server:wrap_socket(b, {server_side = true}) end, a)")
  end)

  it("in a client's", function()
    ends_with("client", EOF, [[drip(function() return client:wrap_socket(b, {server_hostname = "localhost"}) end, a)]])
  end)

  it("in do_handshake", function()
    ends_with("client", EOF, [[
      local s = client:wrap_socket(b, late)
      drip(function() return s:do_handshake() end, a)]])
  end)

  it("in a receive that makes the handshake first", function()
    ends_with("client", EOF, [[
      local s = client:wrap_socket(b, late)
      drip(function() return s:recv(10) end, a)]])
  end)

  it("in a receive larger than the buffer all sockets share", function()
    ends_with("client", EOF, [[
      local s = client:wrap_socket(b, late)
      drip(function() return s:recv(1000000) end, a)]])
  end)

  it("in read and write", function()
    ends_with("client", EOF, [[
      local s = client:wrap_socket(b, late)
      drip(function() return s:read(10) end, a)]])
    ends_with("client", EOF, [[
      local s = client:wrap_socket(b, late)
      drip(function() return s:write "x" end, a)]])
  end)

  it("in sendall and in a file", function()
    ends_with("client", EOF, [[
      local s = client:wrap_socket(b, late)
      drip(function() return s:sendall "x" end, a)]])
    ends_with("client", EOF, [[
      local s = client:wrap_socket(b, late)
      local f = s:makefile "r"
      drip(function() return f:read "l" end, a)]])
  end)

  it("in the accept of a TLS listener", function()
    ends_with("server", EOF, [[
      local listener = server:wrap_socket(socket.create_server {"127.0.0.1", 0}, {server_side = true})
      local peer = socket.create_connection(listener:getsockname())
      drip(function() return listener:accept() end, peer)]])
  end)

  it("in unwrap, whose peer's goodbye comes so", function()
    local text, status = run("server", [[
      server.maximum_version = ssl.TLSVersion.TLSv1_2
      local s = server:wrap_socket(b, {server_side = true, do_handshake_on_connect = false,
        suppress_ragged_eofs = false})
      local c = client:wrap_socket(a, late)
      for _ = 1, 10 do c:settimeout(0) s:settimeout(0) c:try_do_handshake() s:try_do_handshake() end
      c:sendall(("x"):rep(6000))
      s:settimeout(nil)
      s:recv(6000)
      local plain = socket.fromfd(c:fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
      bytes = "\21\3\3\64\0" .. bytes
      drip(function() return s:unwrap() end, plain)]])
    assert.equal(0, status, text)
    assert.equal(("false\tssl.SSLEOFError\n"):rep(2), text)
  end)
end)

describe("a handshake of which each byte comes alone", function()
  it("succeeds", function()
    local text, status = support.run(([[
      local socket = require "socket"
      local loop = require "socket.loop"
      local ssl = require "socket.ssl"
      local server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      server:load_cert_chain("%s", "%s")
      local client = ssl.create_default_context {cafile = "%s"}
      local names = {}
      for i = 1, 20 do names[i] = ("p"):rep(240) .. i end -- a ClientHello of 5 KB
      client:set_alpn_protocols(names)
      server:set_alpn_protocols {names[7]}
      loop.run(function()
        local a, a2 = socket.socketpair()
        local b, b2 = socket.socketpair()
        local function pass(from, to)
          for data in function() return from:recv(65536) end do
            for byte in data:gmatch "." do
              to:sendall(byte)
              socket.sleep(0)
            end
          end
        end
        local relays = {loop.spawn(pass, a2, b2), loop.spawn(pass, b2, a2)}
        local other = loop.spawn(function()
          local s <close> = server:wrap_socket(b, {server_side = true})
          s:sendall(s:recv(100):upper())
          s:recv(1)
        end)
        local s <close> = client:wrap_socket(a, {server_hostname = "localhost"})
        s:sendall "hello"
        print(s:recv(100), #s:selected_alpn_protocol())
        s:close()
        for _, t in ipairs(relays) do t:cancel() end
        other:cancel()
      end)]]):format(certs.path "server.pem", certs.path "server.key", certs.path "ca.pem"))
    assert.equal(0, status, text)
    assert.equal("HELLO\t241\n", text)
  end)
end)
