-- What a TLS operation owns it closes however it ends; the collector, which is stopped here, is not for that.

require "spec.helper"
local lfs = require "lfs"
local looped = require "spec.support.looped"
local loop = require "socket.loop"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep = support.fails, support.keep

before_each(function()
  collectgarbage()
  collectgarbage "stop"
end)

after_each(function()
  collectgarbage "restart"
  tls.clean()
end)

-- How many descriptors are open, garbage among them.
local function open()
  local n = 0
  for _ in lfs.dir "/proc/self/fd" do n = n + 1 end
  return n
end

-- What interrupts a call in a loop's task: f(...) is the call, which must be interrupted.
local interruptions = {
  ["loop.timeout"] = function(f, ...)
    local e = fails("ETIMEDOUT", loop.timeout, 0.02, f, ...)
    assert.equal("loop.timeout", e.op)
  end,
  ["task:cancel"] = function(f, ...)
    local task = loop.spawn(f, ...)
    loop.sleep(0.02)
    task:cancel()
    assert.is_false((pcall(task.join, task)))
  end,
}

-- Calls f through each interruption with what make() returns after a number: how many descriptors more than before the
-- call there may be.
local function leaves_nothing(make, f)
  for name, interrupt in pairs(interruptions) do
    looped.run(function()
      local args = table.pack(make())
      local before = open()
      interrupt(f, table.unpack(args, 2, args.n))
      assert.equal(before + args[1], open(), name)
    end)
  end
end

describe("a wait that an error ends leaves no descriptor of", function()
  it("wrap_socket", function()
    leaves_nothing(function()
      local a, b = socket.socketpair()
      keep(b)
      return -1, tls.client(), a, {server_hostname = "localhost"}
    end, function(ctx, a, options) return ctx:wrap_socket(a, options) end)
  end)

  it("wrap_socket with bytes that were received before", function()
    leaves_nothing(function()
      local a, b = socket.socketpair()
      keep(b)
      return -1, tls.server(), a, {server_side = true, received = "\22\3"}
    end, function(ctx, a, options) return ctx:wrap_socket(a, options) end)
  end)

  it("socket.ssl()", function()
    leaves_nothing(function()
      local a, b = socket.socketpair()
      keep(b)
      return -1, a
    end, ssl)
  end)

  it("accept of a TLS listener with a silent client", function()
    leaves_nothing(function()
      local listener = tls.server():wrap_socket(socket.create_server {"127.0.0.1", 0}, {server_side = true})
      keep(listener:settimeout(10), socket.create_connection(listener:getsockname()))
      return 0, listener
    end, function(listener) return listener:accept() end)
  end)

  it("get_server_certificate", function()
    leaves_nothing(function()
      local listener = keep(socket.create_server {"127.0.0.1", 0})
      return 0, listener:getsockname()
    end, function(address) return ssl.get_server_certificate(address, {timeout = 10}) end)
  end)

  it("unwrap, whose socket stays the script's", function()
    leaves_nothing(function()
      local c = tls.connected()
      return 0, c
    end, function(c) return c:unwrap() end)
  end)

  it("wrap_socket in a coroutine that is closed", function()
    local a, b = socket.socketpair()
    keep(b)
    local co = require "spec.support.tasks".begin(function()
      return tls.client():wrap_socket(a, {server_hostname = "localhost"})
    end)
    local before = open()
    assert.equal("suspended", coroutine.status(co))
    coroutine.close(co)
    assert.equal(before - 1, open())
  end)
end)

describe("a timeout leaves no descriptor of", function()
  it("wrap_socket, raising and as try_", function()
    for _, name in ipairs {"wrap_socket", "try_wrap_socket"} do
      local a, b = socket.socketpair()
      keep(b)
      local ctx, before = tls.client(), open()
      local ok, result, e = pcall(ctx[name], ctx, a:settimeout(0.02), {server_hostname = "localhost"})
      e = ok and e or result
      assert.equal("ETIMEDOUT", e.code)
      assert.equal(before - 1, open())
      fails("EBADF", a.recv, a, 1)
    end
  end)

  it("accept of a TLS listener with silent clients", function()
    local listener = keep(tls.server():wrap_socket(socket.create_server {"127.0.0.1", 0}, {server_side = true}))
    listener:settimeout(0.02)
    for _ = 1, 3 do
      local client = keep(socket.create_connection(listener:getsockname()))
      local before = open()
      fails("ETIMEDOUT", listener.accept, listener)
      assert.equal(before, open())
      assert.is_nil(client:settimeout(5):recv(1))
    end
  end)
end)

describe("what is handed out lives on", function()
  it("a socket of wrap_socket, of accept and of unwrap can be used, and closed by <close>", function()
    looped.run(function()
      local listener = keep(tls.server():wrap_socket(socket.create_server {"127.0.0.1", 0}, {server_side = true}))
      listener:settimeout(5)
      local before = open()
      local accepter = loop.spawn(listener.accept, listener)
      do
        local c <close> = tls.client():wrap_socket(socket.create_connection(listener:getsockname()):settimeout(5),
          {server_hostname = "localhost"})
        local s <close>, address = accepter:join()
        assert.equal(c:getsockname(), address)
        s:settimeout(5)
        c:sendall "to the server"
        assert.equal("to the server", s:recv(100))
        local unwrapper = loop.spawn(s.unwrap, s)
        local plain <close> = c:unwrap()
        local other <close> = unwrapper:join()
        plain:sendall "plain"
        assert.equal("plain", other:recv(100))
        assert.equal(before + 2, open())
      end
      assert.equal(before, open())
    end)
  end)
end)

describe("a TLS listener with a silent client", function()
  -- A listener, a client that says nothing, and one that does; f(listener, conversation) runs in a loop.
  local function with_silent(options, f)
    options.server_side = true
    looped.run(function()
      local listener = keep(tls.server():wrap_socket(socket.create_server {"127.0.0.1", 0}, options):settimeout(5))
      keep(socket.create_connection(listener:getsockname()))
      local talk = loop.spawn(function()
        local c <close> = tls.client():wrap_socket(socket.create_connection(listener:getsockname()):settimeout(5),
          {server_hostname = "localhost"})
        c:sendall "hello"
        return c:recv(100)
      end)
      f(listener, talk)
    end)
  end

  it("serves the others: accepted at once, each handshake is made in the connection's own task", function()
    with_silent({do_handshake_on_connect = false}, function(listener, talk)
      local workers = {}
      local acceptor = loop.spawn(function()
        while true do
          local conn = listener:accept()
          workers[#workers + 1] = loop.spawn(function()
            local s <close> = conn
            s:settimeout(5):do_handshake()
            s:sendall("echo: " .. s:recv(100))
          end)
        end
      end)
      assert.equal("echo: hello", talk:join(5))
      acceptor:cancel()
      for _, worker in ipairs(workers) do worker:cancel() end
    end)
  end)

  it("and the first read or write makes the handshake as well", function()
    with_silent({do_handshake_on_connect = false}, function(listener, talk)
      local silent, conn = keep(listener:accept()), keep((listener:accept()))
      assert.is_nil(silent:version())
      assert.is_nil(conn:version())
      assert.equal("hello", conn:settimeout(5):recv(100))
      conn:sendall "welcome"
      assert.equal("welcome", talk:join(5))
    end)
  end)

  it("never waits for a handshake if it never waits: the connection still has to make it", function()
    with_silent({}, function(listener, talk)
      listener:settimeout(0)
      local silent = keep((listener:accept()))
      assert.is_nil(silent:version())
      loop.sleep(0.02)
      local conn = keep((listener:accept()))
      assert.equal("hello", conn:settimeout(5):do_handshake():recv(100))
      conn:sendall "welcome"
      assert.equal("welcome", talk:join(5))
    end)
  end)
end)
