-- socket.server: one request at a time. Its clients are this process's own sockets, whose requests wait in the
-- kernel until the server is asked to handle one, or processes of their own.

local h = require "spec.helper"
local certs = require "spec.support.certs"
local check = require "spec.support.check"
local loop = require "socket.loop"
local proc = require "spec.support.proc"
local server = require "socket.server"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local fails, keep = support.fails, support.keep
local ANY = {"127.0.0.1", 0}

-- Servers to be closed after the test.
local servers = {}
local function serving(s)
  servers[#servers + 1] = s
  return s
end

-- No test waits for ever.
before_each(function() socket.setdefaulttimeout(10) end)

after_each(function()
  socket.setdefaulttimeout(nil)
  support.close_kept()
  for i = #servers, 1, -1 do
    servers[i]:server_close()
    servers[i] = nil
  end
end)

-- What handle_error is told, by a server whose errors are collected.
local function noted()
  local list = {}
  return list, function(_, request, client_address, e, traceback)
    list[#list + 1] = {request = request, client_address = client_address, e = e, traceback = traceback}
  end
end

-- A TCP server with that handler, which collects errors.
local function tcp(handler, options)
  options = options or {}
  local errors
  errors, options.handle_error = noted()
  options.timeout = options.timeout or 5
  return serving(server.TCPServer(ANY, handler, options)), errors
end

local function connect(s)
  return keep(socket.create_connection(s.server_address, 5))
end

-- One request of a new connection, and all of the answer.
local function ask(s, request)
  local c = connect(s)
  c:sendall(request):shutdown(socket.SHUT_WR)
  s:handle_request()
  return support.all(c)
end

local Upper = server.StreamRequestHandler:extend {
  handle = function(self)
    for line in self.rfile:lines "L" do self.wfile:write(line:upper()) end
  end,
}

describe("a TCP server", function()
  it("has Python's attributes", function()
    local s = tcp(Upper)
    assert.equal(socket.AF_INET, s.address_family)
    assert.equal(socket.SOCK_STREAM, s.socket_type)
    assert.equal("127.0.0.1", s.server_address.host)
    assert.is_true(s.server_address.port > 0)
    assert.equal(s.socket:getsockname(), s.server_address)
    assert.equal(Upper, s.RequestHandlerClass)
    assert.equal(s.socket:fileno(), s:fileno())
    assert.is_false(s.allow_reuse_port)
    assert.equal("TCPServer: <" .. tostring(s.server_address) .. ">", tostring(s))
    s:server_close()
    assert.equal(-1, s:fileno())
    assert.equal("TCPServer: <closed>", tostring(s))
  end)

  it("gives each connection to a handler object, one after another", function()
    local s = tcp(Upper)
    assert.equal("ONE\nTWO\n", ask(s, "one\ntwo\n"))
    assert.equal("THREE", ask(s, "three"))
  end)

  it("calls setup, handle and finish, with what they need in fields", function()
    local seen = {}
    local Handler = server.BaseRequestHandler:extend {
      setup = function() seen[#seen + 1] = "setup" end,
      handle = function(self)
        seen[#seen + 1] = "handle"
        seen.request, seen.client_address, seen.server = self.request, self.client_address, self.server
        assert.equal(self.client_address, self.request:getpeername())
      end,
      finish = function() seen[#seen + 1] = "finish" end,
    }
    local s, errors = tcp(Handler)
    local c = connect(s)
    s:handle_request()
    assert.same({}, errors)
    assert.same({"setup", "handle", "finish"}, {table.unpack(seen)})
    assert.equal(s, seen.server)
    assert.equal(c:getsockname(), seen.client_address)
    assert.equal(-1, seen.request:fileno())
    assert.is_nil(c:recv(1))
  end)

  it("takes a function as a handler", function()
    local s, errors
    s, errors = tcp(function(request, client_address, me)
      assert.equal(s, me)
      request:sendall("you are " .. tostring(client_address))
    end)
    local c = connect(s)
    assert.is_true(s:handle_request())
    assert.equal("you are " .. tostring(c:getsockname()), support.all(c))
    assert.same({}, errors)
  end)

  it("takes anything else that can be called, and says where what cannot was given", function()
    local called = 0
    local s = tcp(setmetatable({}, {__call = function() called = called + 1 end}))
    ask(s, "")
    assert.equal(1, called)
    for _, wrong in ipairs {1, "x", {}, false} do
      local before = proc.settled_descriptors()
      local ok, e = pcall(server.TCPServer, ANY, wrong)
      assert.is_false(ok)
      assert.matches("^spec/server_spec.lua:%d+: bad argument #2 to 'TCPServer' %(handler class or function expected",
        (e:gsub("^.*/spec/", "spec/")))
      assert.equal(before, proc.descriptors())
    end
    assert.is_false(pcall(server.TCPServer, ANY))
  end)

  it("takes options, of one object; others are errors", function()
    local s = serving(server.TCPServer(ANY, Upper, {request_queue_size = 3, timeout = 0.5, extra = nil}))
    assert.equal(3, s.request_queue_size)
    assert.equal(0.5, s.timeout)
    assert.equal(128, server.TCPServer.request_queue_size)
    local before = proc.settled_descriptors()
    local ok, e = pcall(server.TCPServer, ANY, Upper, {time_out = 5})
    assert.is_false(ok)
    assert.matches("server_spec.lua:%d+: unknown option 'time_out'", e)
    assert.equal(before, proc.descriptors())
  end)

  it("may be bound later", function()
    for _, no in ipairs {{false}, {{bind_and_activate = false}}} do
      local s = serving(server.TCPServer(ANY, Upper, no[1]))
      assert.equal(0, s.server_address[2])
      assert.is_true(s:fileno() >= 0)
      s:server_bind()
      assert.is_true(s.server_address.port > 0)
      fails("ECONNREFUSED", socket.create_connection, s.server_address, 5)
      s:server_activate()
      assert.equal("X", ask(s, "x"))
    end
  end)

  it("leaves no descriptor where it cannot be bound", function()
    local s = tcp(Upper)
    local before = proc.settled_descriptors()
    local e = fails("EADDRINUSE", server.TCPServer, s.server_address, Upper)
    assert.equal(s.server_address, e.address)
    assert.equal(before, proc.descriptors())
  end)

  it("can be started again at once, and shares its port only if all say so", function()
    local first = tcp(Upper)
    ask(first, "x")
    first:server_close()
    local again = serving(server.TCPServer(first.server_address, Upper))
    again:server_close()
    local Shared = server.TCPServer:extend {allow_reuse_port = true}
    local a = serving(Shared(ANY, Upper))
    local b = serving(Shared(a.server_address, Upper))
    assert.equal(a.server_address, b.server_address)
    fails("EADDRINUSE", server.TCPServer, a.server_address, Upper)
  end)

  it("serves IPv6", function()
    if not support.has_ipv6() then pending "no IPv6 here" end
    local Six = server.TCPServer:extend {address_family = socket.AF_INET6, timeout = 5}
    local s = serving(Six({"::1", 0}, Upper))
    assert.equal("::1", s.server_address.host)
    assert.equal("X", ask(s, "x"))
  end)

  it("closes at the end of a block", function()
    local fd
    do
      local s <close> = server.TCPServer(ANY, Upper)
      fd = s.socket
      assert.is_true(fd:fileno() >= 0)
    end
    assert.equal(-1, fd:fileno())
  end)

  it("is made of methods that can be replaced one by one", function()
    local order = {}
    local function log(name)
      return function(self, ...)
        order[#order + 1] = name
        return server.TCPServer[name](self, ...)
      end
    end
    local fields = {timeout = 5}
    for _, name in ipairs {"server_bind", "server_activate", "get_request", "verify_request", "process_request",
      "finish_request", "shutdown_request", "close_request", "server_close"} do
      fields[name] = log(name)
    end
    local s = server.TCPServer:extend(fields)(ANY, function() end)
    ask(s, "")
    s:server_close()
    assert.same({"server_bind", "server_activate", "get_request", "verify_request", "process_request",
      "finish_request", "shutdown_request", "close_request", "server_close"}, order)
  end)

  it("refuses whom verify_request does not want, and closes their connection", function()
    local handled = 0
    local s, errors = tcp(function() handled = handled + 1 end, {
      verify_request = function(self, request, client_address)
        assert(request:fileno() >= 0 and client_address.host == "127.0.0.1" and self.server_address)
        return false
      end,
    })
    local c = connect(s)
    s:handle_request()
    assert.is_nil(c:recv(1))
    assert.equal(0, handled)
    assert.same({}, errors)
  end)

  it("calls handle_timeout when nobody comes", function()
    local called = 0
    local s = tcp(Upper, {timeout = 0.05, handle_timeout = function() called = called + 1 end})
    assert.is_true(check.took(function() assert.is_false(s:handle_request()) end) >= 0.05)
    assert.equal(1, called)
    connect(s):close()
    assert.is_true(s:handle_request())
    assert.equal(1, called)
  end)

  it("does not wait with a timeout of 0", function()
    local s = tcp(Upper, {timeout = 0})
    assert.is_true(check.took(s.handle_request, s) < 1)
  end)

  it("does not wait for a client that has gone before it was accepted", function()
    local s = tcp(Upper)
    local e = fails("EAGAIN", s.get_request, s)
    assert.equal("accept", e.op)
  end)
end)

describe("a class", function()
  it("is extended by tables of fields, and inherits what Lua looks for in metatables", function()
    local Mixed = server.TCPServer:extend({a = 1, b = 1}, {b = 2})
    assert.equal(1, Mixed.a)
    assert.equal(2, Mixed.b)
    local Below = Mixed:extend {c = 3}
    local s <close> = Below(ANY, Upper)
    assert.same({1, 2, 3}, {s.a, s.b, s.c})
    assert.matches("^TCPServer: <", tostring(s))
    assert.is_nil(server.TCPServer.a)
  end)

  it("may have an init of its own", function()
    local Handler = server.BaseRequestHandler:extend {
      init = function(self, ...)
        self.greeting = "hello"
        server.BaseRequestHandler.init(self, ...)
      end,
      handle = function(self) self.request:sendall(self.greeting) end,
    }
    assert.equal("hello", ask(tcp(Handler), ""))
  end)
end)

describe("an error in a handler", function()
  it("goes to handle_error with its traceback, the connection is closed and the server goes on", function()
    local s, errors = tcp(function(request)
      local data = request:recv(100)
      if data == "bad" then
        local function deep_inside() error "oh" end
        deep_inside()
      end
      request:sendall "good"
    end)
    local c = connect(s)
    c:sendall "bad"
    s:handle_request()
    assert.is_nil(c:recv(1))
    assert.equal(1, #errors)
    assert.matches("server_spec.lua:%d+: oh$", errors[1].e)
    assert.matches("deep_inside", errors[1].traceback)
    assert.equal(c:getsockname(), errors[1].client_address)
    assert.equal("good", ask(s, "fine"))
    assert.equal(1, #errors)
  end)

  it("may be any value", function()
    for _, value in ipairs {{}, 42, true, socket.error, setmetatable({}, {__tostring = function() error "no" end})} do
      local s, errors = tcp(function() error(value) end)
      assert.equal("", ask(s, ""))
      assert.equal(value, errors[1].e)
      assert.equal("string", type(errors[1].traceback))
    end
    local s, errors = tcp(function() error(nil) end)
    assert.equal("", ask(s, ""))
    assert.equal(1, #errors)
    assert.is_nil(errors[1].e)
  end)

  it("leaves no descriptor, wherever it was", function()
    local function bad() error "bad" end
    local cases = {
      setup = {server.StreamRequestHandler:extend {setup = function(self)
        server.StreamRequestHandler.setup(self)
        bad()
      end}},
      handle = {server.StreamRequestHandler:extend {handle = bad}},
      finish = {server.StreamRequestHandler:extend {finish = bad}},
      file = {function(request) request:makefile "rw":write "x" bad() end},
      verify = {Upper, {verify_request = bad}},
      process = {Upper, {process_request = bad}},
      closing = {Upper, {close_request = function(self, request)
        server.TCPServer.close_request(self, request)
        if not self.closed then
          self.closed = true
          bad()
        end
      end}},
    }
    for name, case in pairs(cases) do
      local s, errors = tcp(table.unpack(case))
      local before = proc.settled_descriptors()
      local c = socket.create_connection(s.server_address, 5)
      c:shutdown(socket.SHUT_WR)
      s:handle_request()
      assert.is_nil(c:recv(1), name)
      c:close()
      assert.equal(before, proc.descriptors(), name)
      assert.equal(1, #errors, name)
      assert.matches("bad", errors[1].e, nil, name)
    end
  end)

  it("reaches finish, and the error is the first one", function()
    local finished = 0
    local s, errors = tcp(server.StreamRequestHandler:extend {
      handle = function() error "first" end,
      finish = function(self)
        finished = finished + 1
        server.StreamRequestHandler.finish(self)
      end,
    })
    ask(s, "")
    assert.equal(1, finished)
    assert.matches("first", errors[1].e)
  end)

  it("in handle_error itself comes out, with the connection closed", function()
    local s = serving(server.TCPServer(ANY, function() error "first" end, {
      timeout = 5, handle_error = function(_, _, _, e) error("again: " .. e, 0) end,
    }))
    local c = connect(s)
    local ok, e = pcall(s.handle_request, s)
    assert.is_false(ok)
    assert.matches("^again: .*first$", e)
    assert.is_nil(c:recv(1))
  end)

  it("is told to Lua's warning system by default, and nothing is printed without it", function()
    local code = [[
      %s
      local socket, server = require "socket", require "socket.server"
      local s <close> = server.TCPServer({"127.0.0.1", 0}, function() error "oh no" end)
      local c <close> = socket.create_connection(s.server_address)
      s:handle_request()
      local u = server.UnixStreamServer("\0server-spec-" .. math.random(1 << 40), function() error "and no" end)
      local d <close> = socket.socket(socket.AF_UNIX)
      d:connect(u.server_address)
      u:handle_request()
      u:server_close()
    ]]
    assert.equal("", (support.run(code:format "")))
    local text, status = support.run(code:format "warn '@on'")
    assert.equal(0, status, text)
    assert.matches("^Lua warning: socket.server: request of 127.0.0.1:%d+ failed: stdin:%d+: oh no\nstack traceback:",
      text)
    assert.matches("\nLua warning: socket.server: request failed: stdin:%d+: and no\n", text)
  end)

  it("that was lua's own, on Ctrl-C, ends the server", function()
    if h.sanitized then pending "the sanitizers' Lua is interrupted otherwise" end
    local code = [[
      local server, socket = require "socket.server", require "socket"
      local s <close> = server.TCPServer({"127.0.0.1", 0}, function(request) request:recv(1) end,
        {handle_error = function() print "handle_error was called" end})
      local c <close> = socket.create_connection(s.server_address)
      os.execute(("(sleep 0.2; kill -INT %d) >/dev/null 2>&1 &"):format(io.open "/proc/self/stat":read "n"))
      print(pcall(s.serve_forever, s))
      print(c:recv(1))
    ]]
    local text, status = support.run(code)
    assert.equal(0, status, text)
    assert.matches("^false\t.*interrupted!\nnil\n$", text)
  end)

  it("is a client's reset, or its silence, like others", function()
    local s, errors = tcp(function(request)
      request:settimeout(0.05)
      request:recv(1)
    end)
    local rude = socket.create_connection(s.server_address)
    rude:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("i4i4", 1, 0))
    rude:close()
    s:handle_request()
    connect(s)
    s:handle_request()
    assert.equal("ECONNRESET", errors[1].e.code)
    assert.is_true(errors[2].e:is(socket.timeout))
    assert.equal(2, #errors)
  end)
end)

describe("a stream handler", function()
  local function handler(fields, options)
    local s, errors = tcp(server.StreamRequestHandler:extend(fields), options)
    return s, errors
  end

  it("has files for both directions, in the buffering it says", function()
    local s, errors = handler {
      wbufsize = 100,
      handle = function(self)
        assert.equal(self.request, self.connection)
        assert.equal("a line", self.rfile:read())
        assert.equal(42, self.rfile:read "n")
        self.wfile:write("kept", 1)
        assert.is_nil((self.rfile:read(100)))
      end,
    }
    assert.equal("kept1", ask(s, "a line\n42"))
    assert.same({}, errors)
  end)

  it("writes at once by default", function()
    local s, errors = handler {
      handle = function(self)
        self.wfile:write "question\n"
        assert.equal("answer", self.rfile:read())
      end,
    }
    local c = connect(s)
    c:sendall "answer\n"
    s:handle_request()
    assert.equal("question\n", support.all(c))
    assert.same({}, errors)
  end)

  it("has a timeout for each operation", function()
    local s, errors = handler {timeout = 0.05, handle = function(self) self.rfile:read() end}
    connect(s)
    s:handle_request()
    assert.is_true(errors[1].e:is(socket.timeout))
  end)

  it("has a limit for lines", function()
    local s, errors = handler {line_limit = 10, handle = function(self) self.rfile:read() end}
    ask(s, ("x"):rep(11))
    assert.equal("EMSGSIZE", errors[1].e.code)
    assert.equal(65536, server.StreamRequestHandler.line_limit)
  end)

  it("can switch Nagle's algorithm off", function()
    local seen = {}
    for i, disable in ipairs {true, false} do
      local s, errors = handler {disable_nagle_algorithm = disable, handle = function(self)
        seen[i] = self.request:getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) ~= 0
      end}
      ask(s, "")
      assert.same({}, errors)
    end
    assert.same({true, false}, seen)
  end)

  it("stands a client that is gone before the answer", function()
    local s = handler {wbufsize = -1, handle = function(self)
      self.rfile:read "a"
      self.wfile:write(("x"):rep(5000))
    end}
    for _ = 1, 3 do
      local c = socket.create_connection(s.server_address)
      c:sendall "x":close()
      assert.is_true(s:handle_request())
    end
  end)

  it("may close the connection itself, or take it away", function()
    local taken
    local s, errors = handler {handle = function(self) self.request:close() end}
    assert.equal("", ask(s, ""))
    assert.same({}, errors)
    s, errors = tcp(function(request) taken = request:detach() end)
    local c = connect(s)
    s:handle_request()
    local mine = keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, taken))
    mine:sendall "still open":close()
    assert.equal("still open", support.all(c))
    assert.same({}, errors)
  end)
end)

describe("a Unix stream server", function()
  it("serves at a path, and leaves the file", function()
    local path = os.tmpname()
    os.remove(path)
    local s = serving(server.UnixStreamServer(path, function(request, client_address)
      request:sendall("<" .. client_address .. ">")
    end, {timeout = 5}))
    assert.equal(path, s.server_address)
    local c = keep(socket.socket(socket.AF_UNIX)):connect(path)
    s:handle_request()
    assert.equal("<>", support.all(c))
    s:server_close()
    assert.truthy(require "lfs".attributes(path))
    os.remove(path)
  end)
end)

describe("a datagram server", function()
  local function udp(handler, options, class, address)
    options = options or {}
    local errors
    errors, options.handle_error = noted()
    options.timeout = options.timeout or 5
    return serving((class or server.UDPServer)(address or ANY, handler, options)), errors
  end

  local function client(s)
    return keep(socket.socket(s.address_family, socket.SOCK_DGRAM)):connect(s.server_address):settimeout(5)
  end

  it("gives each datagram to a handler, with files for both directions", function()
    local s, errors = udp(server.DatagramRequestHandler:extend {
      handle = function(self)
        assert.equal("a line\n12 rest\nend", self.packet)
        assert.equal("a line", self.rfile:read())
        assert.equal(12, self.rfile:read "n")
        assert.equal(" re", self.rfile:read(3))
        assert.equal("st\n", self.rfile:read "L")
        self.wfile:write("got ", 1):write(" answer"):flush()
        assert.equal("end", self.rfile:read "a")
        assert.is_nil(self.rfile:read())
        assert.equal("", self.rfile:read "a")
        assert.is_nil((self.rfile:read(1)))
      end,
    })
    local c = client(s)
    c:send "a line\n12 rest\nend"
    s:handle_request()
    assert.same({}, errors)
    assert.equal("got 1 answer", c:recv(100))
  end)

  it("reads a datagram by lines, several formats at once", function()
    local lines, several = {}, nil
    local s, errors = udp(server.DatagramRequestHandler:extend {
      handle = function(self)
        for line in self.rfile:lines() do lines[#lines + 1] = line end
        self.rfile.at = 1
        several = table.pack(self.rfile:read("l", "n", 100, "l"))
        assert.is_false(pcall(self.rfile.read, self.rfile, "x"))
      end,
    })
    client(s):send "a\n\n5"
    s:handle_request()
    assert.same({}, errors)
    assert.same({"a", "", "5"}, lines)
    assert.same({n = 3, "a", 5}, several)
  end)

  it("reads numerals as Lua writes them", function()
    local numbers = {}
    local s, errors = udp(server.DatagramRequestHandler:extend {
      handle = function(self) numbers = table.pack(self.rfile:read("n", "n", "n", "n", "n", "n")) end,
    })
    client(s):send " 1e+5 -.5\n0x1Fp-1 +7 5. 12abc"
    s:handle_request()
    assert.same({}, errors)
    assert.same({n = 6, 1e5, -0.5, 0x1Fp-1, 7, 5.0}, numbers)
  end)

  it("sends nothing where nothing was written", function()
    local s = udp(server.DatagramRequestHandler)
    local c = client(s)
    c:send "x"
    assert.is_true(s:handle_request())
    c:settimeout(0)
    fails("EAGAIN", c.recv, c, 1)
  end)

  it("takes functions: a request is the bytes and the socket", function()
    local s, errors = udp(function(request, client_address)
      assert.equal(request[1], request.data)
      assert.equal(request[2], request.socket)
      request.socket:sendto(request.data:reverse(), client_address)
    end)
    local c = client(s)
    for _, data in ipairs {"abc", ""} do
      c:send(data)
      s:handle_request()
      assert.equal(data:reverse(), c:recv(10))
    end
    assert.same({}, errors)
  end)

  it("cuts what is longer than max_packet_size", function()
    local sizes = {}
    local s = udp(function(request) sizes[#sizes + 1] = #request.data end)
    local c = client(s)
    c:send(("x"):rep(9000))
    s:handle_request()
    s.max_packet_size = 10
    c:send(("x"):rep(9000))
    s:handle_request()
    assert.same({8192, 10}, sizes)
  end)

  it("outlives errors", function()
    local s, errors = udp(function(request) error("no " .. request.data, 0) end)
    local c = client(s)
    c:send "1"
    c:send "2"
    s:handle_request()
    s:handle_request()
    assert.same({"no 1", "no 2"}, {errors[1].e, errors[2].e})
    assert.equal(c:getsockname(), errors[1].client_address)
    assert.is_true(s:fileno() >= 0)
  end)

  it("does not share its address unasked", function()
    local s = udp(function() end)
    fails("EADDRINUSE", server.UDPServer, s.server_address, function() end)
    local ok, e = pcall(server.UDPServer, ANY, function() end, {ssl_context = {}})
    assert.is_false(ok)
    assert.matches("TLS needs a stream", e)
  end)

  it("serves at Unix paths, and does not wait for ever for a client that does not read", function()
    local path, mine = os.tmpname(), os.tmpname()
    os.remove(path)
    os.remove(mine)
    local s, errors = udp(server.DatagramRequestHandler:extend {
      handle = function(self) self.wfile:write("<", self.packet, ">") end,
    }, {idle_timeout = 0.1}, server.UnixDatagramServer, path)
    local c = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)):bind(mine):connect(path):settimeout(5)
    c:send "x"
    s:handle_request()
    assert.equal("<x>", c:recv(10))
    assert.same({}, errors)
    for i = 1, 2000 do
      c:send(tostring(i))
      s:handle_request()
      if #errors > 0 then break end
    end
    assert.is_true(errors[1].e:is(socket.timeout))
    os.remove(path)
    os.remove(mine)
  end)
end)

describe("serve_forever", function()
  it("serves until a handler calls shutdown", function()
    local s
    s = tcp(function(request)
      local word = request:recv(100)
      request:sendall(word)
      if word == "stop" then
        assert.is_false(s.stopping)
        s:shutdown()
        assert.is_true(s.stopping)
      end
    end)
    local clients = {}
    for i, word in ipairs {"a", "b", "stop", "late"} do
      clients[i] = connect(s)
      clients[i]:sendall(word)
    end
    assert.equal(s, s:serve_forever())
    assert.same({"a", "b", "stop"}, {support.all(clients[1]), support.all(clients[2]), support.all(clients[3])})
    assert.is_false(s.stopping)
    s.timeout = 1
    assert.is_true(s:handle_request())
    assert.equal("late", support.all(clients[4]))
  end)

  it("calls service_actions after requests and from time to time", function()
    local actions = 0
    local s = tcp(function() end, {service_actions = function(self)
      actions = actions + 1
      if actions == 5 then self:shutdown() end
    end})
    connect(s)
    local took = check.took(s.serve_forever, s, 0.02)
    assert.equal(5, actions)
    assert.is_true(took >= 0.06 and took < 3, took)
  end)

  it("ends at once if shutdown was called before", function()
    local s = tcp(Upper)
    s:shutdown()
    assert.is_true(check.took(s.serve_forever, s, 60) < 5)
    local calls = 0
    s.service_actions = function(self)
      calls = calls + 1
      self:shutdown()
    end
    s:serve_forever(0.01)
    assert.equal(1, calls)
  end)

  it("ends when the server is closed, also by its socket alone", function()
    for _, close in ipairs {function(s) s:server_close() end, function(s) s.socket:close() end} do
      local s = tcp(Upper, {service_actions = close})
      assert.is_true(check.took(s.serve_forever, s, 0.01) < 5)
    end
  end)

  it("is refused while it runs", function()
    local s, errors
    s, errors = tcp(function()
      s:shutdown()
      s:serve_forever()
    end)
    connect(s)
    s:serve_forever()
    assert.matches("serve_forever is running already", errors[1].e)
  end)

  it("can be ended from another coroutine of a scheduler, which waits for the end", function()
    local S = support.scheduler(pending)
    local before = proc.settled_descriptors()
    local order = {}
    local s
    s = tcp(function(request)
      request:recv(1)
      order[#order + 1] = "handled"
    end)
    S.spawn(function()
      s:serve_forever(60)
      order[#order + 1] = "ended"
    end)
    for i = 1, 2 do
      S.spawn(function()
        local c <close> = socket.create_connection(s.server_address)
        socket.sleep(0.05)
        if i == 1 then
          S.spawn(function()
            socket.sleep(0.1)
            c:sendall "x"
          end)
        end
        s:shutdown()
        order[#order + 1] = "shutdown"
        socket.sleep(0.2)
      end)
    end
    local took = check.took(S.run)
    assert.same({"handled", "ended", "shutdown", "shutdown"}, order)
    assert.is_true(took < 5, took)
    s:server_close()
    assert.equal(before, proc.descriptors())
  end)

  it("does not let shutdown wait for itself in a coroutine of the handler", function()
    local s, errors
    s, errors = tcp(function()
      coroutine.wrap(function() s:shutdown() end)()
    end)
    connect(s)
    s:serve_forever(60)
    assert.same({}, errors)
  end)

  it("does not let shutdown hold up the thread in a coroutine that nobody schedules", function()
    local l <close> = loop.new()
    local s <close> = tcp(Upper)
    l:spawn(s.serve_forever, s)
    l:step(0)
    coroutine.wrap(function() s:shutdown() end)()
    assert.is_true(s.stopping)
    assert.is_number(check.eventually(5, function() return not l:step(0.01) end))
  end)

  it("leaves no descriptor, also where it ends by an error", function()
    local s = tcp(Upper, {service_actions = function() error "stop" end})
    local before = proc.settled_descriptors()
    assert.is_false(pcall(s.serve_forever, s, 0.01))
    assert.equal(before, proc.descriptors())
    assert.is_false(pcall(s.serve_forever, s, 0.01))
  end)

  it("does not burn time where there is no descriptor left for a connection", function()
    local text, status = support.run([[
      local socket, server = require "socket", require "socket.server"
      local handled, turns = 0, 0
      local hold = {}
      local s
      s = server.TCPServer({"127.0.0.1", 0}, function(request) request:sendall "x" handled = handled + 1 end, {
        get_request = function(self)
          turns = turns + 1
          return server.TCPServer.get_request(self)
        end,
        service_actions = function(self)
          if turns == 3 then
            for i = 1, #hold do hold[i]:close() end
          end
          if handled == 1 then self:shutdown() end
        end,
      })
      local c = socket.create_connection(s.server_address)
      local warm <close> = require "socket.selectors".DefaultSelector()
      for i = 1, 64 do
        local d = socket.try_socket()
        if not d then break end
        hold[i] = d
      end
      for _ = 1, 4 do table.remove(hold):close() end   -- for serve_forever itself: a selector and a pair
      local begin = socket.monotonic()
      hold[#hold + 1] = socket.try_socket()
      local cpu = os.clock()
      s:serve_forever(0.01)
      print(c:recv(1), turns, socket.monotonic() - begin >= 0.15, os.clock() - cpu < 0.15)
      s:server_close()
      c:close()
    ]], {before = "ulimit -n 32;", leaks = false})
    assert.equal(0, status, text)
    assert.matches("^x\t[4-9]\ttrue\ttrue\n$", text)
  end)
end)

describe("a server with a TLS context", function()
  local ssl, context = socket.ssl, tls.server

  -- openssl s_client as the client, which gets these lines to send.
  local function s_client(s, lines)
    return io.popen(("printf %s | timeout 10 openssl s_client -quiet -verify_return_error -CAfile %s -connect %s 2>&1")
      :format(h.quote(lines), h.quote(certs.path "ca.pem"), tostring(s.server_address)))
  end

  it("makes the handshake before the handler is called", function()
    local version, before_verify
    local s, errors = tcp(server.StreamRequestHandler:extend {
      handle = function(self)
        version = self.request:version()
        self.wfile:write(self.rfile:read():upper(), "\n")
      end,
    }, {ssl_context = context(), verify_request = function(_, request)
      before_verify = request:version()
      return true
    end})
    local p = s_client(s, "hello\\n")
    assert.is_true(s:handle_request())
    local said = p:read "a"
    p:close()
    assert.same({}, errors)
    assert.matches("HELLO\n", said)
    assert.matches("^TLS", version)
    assert.is_nil(before_verify)
  end)

  it("gives up on a client that never shakes hands, or talks something else", function()
    local handled = 0
    local s, errors = tcp(function() handled = handled + 1 end, {ssl_context = context(), handshake_timeout = 0.1})
    local before = proc.settled_descriptors()
    local silent = socket.create_connection(s.server_address, 5)
    assert.is_true(check.took(s.handle_request, s) < 5)
    assert.is_nil(silent:recv(1))
    assert.is_true(errors[1].e:is(socket.timeout))
    silent:close()
    local plain = socket.create_connection(s.server_address, 5)
    plain:sendall "GET / HTTP/1.0\r\n\r\n"
    s:handle_request()
    assert.is_true(errors[2].e:is(ssl.SSLError))
    plain:close()
    assert.equal(0, handled)
    assert.equal(before, proc.descriptors())
  end)

  it("never talks plainly, also where process_request was replaced", function()
    local s = tcp(Upper, {ssl_context = context(), process_request = function(_, request)
      request:settimeout(0.1)
      request:try_sendall "secret"
      request:close()
    end})
    local c = connect(s)
    c:sendall "x\n"
    s:handle_request()
    local _, e = pcall(function() assert.is_nil(support.all(c):find "secret") end)
    assert.is_true(e == nil or socket.iserror(e) and e.code == "ECONNRESET", tostring(e))
  end)
end)
