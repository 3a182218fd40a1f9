-- socket.server: sockets that somebody else has bound, as a service manager does, and clients without a name.

local loop = require "socket.loop"
local server = require "socket.server"
local socket = require "socket"
local support = require "spec.support"

local fails, keep = support.fails, support.keep

after_each(support.close_kept)

local function path()
  local name = os.tmpname()
  os.remove(name)
  return name
end

local function listening(s) return s:getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) ~= 0 end

describe("the option socket", function()
  local function hello(request) request:sendall "hello" end

  it("gives a server a socket that is listening already", function()
    for _, class in ipairs {server.TCPServer, server.TaskTCPServer} do
      local given = socket.create_server {"127.0.0.1", 0}
      local address = given:getsockname()
      local c = keep(socket.create_connection(address)) -- it waits in the queue
      local s <close> = class(nil, hello, {socket = given, timeout = 5})
      assert.equal(given, s.socket)
      assert.equal(address, s.server_address)
      assert.equal(0.0, given:gettimeout()) -- a connection may be gone again
      assert.is_true(s:handle_request())
      assert.equal("hello", support.all(c))
      s:server_close()
      assert.equal(-1, given:fileno())
    end
  end)

  it("is listened on where it is only bound, unless that shall come later", function()
    local given = socket.socket():bind {"127.0.0.1", 0}
    local bound <close> = server.TCPServer(nil, hello, {socket = given, timeout = 5})
    assert.is_true(listening(bound.socket))
    local later = socket.socket():bind {"127.0.0.1", 0}
    local s2 <close> = server.TCPServer(nil, hello, {socket = later, bind_and_activate = false})
    assert.is_false(listening(later))
    s2:server_activate()
    assert.is_true(listening(later))
    assert.equal(later:getsockname(), s2.server_address)
  end)

  it("has the family of the socket, whatever the class says", function()
    if not support.has_ipv6() then return pending "needs IPv6" end
    local given = socket.create_server({"::1", 0}, {family = socket.AF_INET6})
    local s <close> = server.TCPServer(nil, hello, {socket = given})
    assert.equal(socket.AF_INET6, s.address_family)
    assert.equal("::1", s.server_address.host)
  end)

  it("works with Unix sockets and with datagrams", function()
    local name = path()
    local stream = socket.socket(socket.AF_UNIX):bind(name):listen()
    local c = keep(socket.socket(socket.AF_UNIX):connect(name))
    local s <close> = server.UnixStreamServer(nil, hello, {socket = stream, timeout = 5})
    os.remove(name)
    assert.equal(name, s.server_address)
    assert.is_true(s:handle_request())
    assert.equal("hello", support.all(c))
    local udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
    local u <close> = server.UDPServer(nil, server.DatagramRequestHandler:extend {
      handle = function(self) self.wfile:write(self.packet:upper()) end,
    }, {socket = udp, timeout = 5})
    local from = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):connect(u.server_address):settimeout(5))
    from:send "datagram"
    assert.is_true(u:handle_request())
    assert.equal("DATAGRAM", from:recv(100))
  end)

  it("takes the descriptor that a service manager passes on", function() -- sd_listen_fds(3): from 3 on
    local listener = socket.create_server {"127.0.0.1", 0}
    local port = listener:getsockname().port
    local p = support.peer(listener, [[
      local server = require "socket.server"
      local srv <close> = server.TCPServer(nil, function(request) request:sendall "from a child" end,
        {socket = s, timeout = 5})
      print(srv:handle_request())
    ]])
    local c = keep(socket.create_connection {"127.0.0.1", port})
    assert.equal("from a child", support.all(c))
    assert.equal("true\n", p:read "a")
    p:close()
  end)

  it("serves for ever in tasks", function()
    local given = socket.create_server {"127.0.0.1", 0}
    loop.run(function()
      local s <close> = server.TaskTCPServer(nil, hello, {socket = given})
      local serving = loop.spawn(s.serve_forever, s, 0.02)
      local c <close> = socket.create_connection(s.server_address, 5)
      assert.equal("hello", support.all(c))
      s:shutdown(1)
      serving:join(5)
    end)
  end)

  it("is an error of the caller where its type is another one, and then stays the caller's", function()
    local udp = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    local ok, text = pcall(server.TCPServer, nil, hello, {socket = udp})
    assert.is_false(ok)
    assert.matches("server_given_spec.-option 'socket' is no socket of a TCPServer's type", text)
    assert.is_true(udp:fileno() >= 0)
    ok, text = pcall(server.UDPServer, nil, hello, {socket = keep(socket.create_server {"127.0.0.1", 0})})
    assert.is_false(ok)
    assert.matches("no socket of a UDPServer's type", text)
    for _, value in ipairs {3, "x", {}, true} do
      ok, text = pcall(server.TCPServer, nil, hello, {socket = value})
      assert.is_false(ok)
      assert.matches("no socket of a TCPServer's type", text)
    end
  end)
end)

describe("a Unix datagram server", function()
  it("has nothing to answer to where a client has no name", function() -- Python: TypeError in finish
    local errors, packets, addresses = {}, {}, {}
    local name = path()
    local s <close> = server.UnixDatagramServer(name, server.DatagramRequestHandler:extend {
      handle = function(self)
        packets[#packets + 1] = self.packet
        addresses[#addresses + 1] = tostring(self.client_address)
        self.wfile:write "an answer"
      end,
    }, {timeout = 5, handle_error = function(_, _, _, e) errors[#errors + 1] = tostring(e) end})
    local unnamed = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):connect(name):settimeout(0))
    unnamed:send "first"
    assert.is_true(s:handle_request())
    fails("EAGAIN", unnamed.recv, unnamed, 1)
    local own = path()
    local named = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(own):connect(name):settimeout(5))
    named:send "second"
    assert.is_true(s:handle_request())
    assert.equal("an answer", named:recv(100))
    os.remove(own)
    os.remove(name)
    assert.same({{}, {"first", "second"}}, {errors, packets})
    assert.equal(own, addresses[2])
  end)
end)
