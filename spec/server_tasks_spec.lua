-- socket.server with a task for each request. Clients are tasks of the same loop, or programs of others.

local h = require "spec.helper"
local certs = require "spec.support.certs"
local check = require "spec.support.check"
local loop = require "socket.loop"
local proc = require "spec.support.proc"
local server = require "socket.server"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local fails = support.fails
local ANY = {"127.0.0.1", 0}

-- No test waits for ever.
before_each(function() socket.setdefaulttimeout(10) end)
after_each(function() socket.setdefaulttimeout(nil) end)

local function connect(s) return socket.create_connection(s.server_address, 10) end

-- Runs f(s, errors, serving) in a task beside a server, which is then shut down; no descriptor may be left. The class
-- is options[1] or TaskTCPServer, its address options[2].
local function with(handler, options, f)
  local before = proc.settled_descriptors()
  local errors = {}
  local class, address = table.remove(options, 1) or server.TaskTCPServer, table.remove(options, 1) or ANY
  options.handle_error = options.handle_error or function(_, _, client_address, e, traceback)
    errors[#errors + 1] = {e = e, client_address = client_address, traceback = traceback}
  end
  options.stop_timeout = options.stop_timeout or 5
  loop.run(function()
    local s <close> = class(address, handler, options)
    local serving = loop.spawn(s.serve_forever, s, 0.02)
    f(s, errors, serving)
    s:shutdown()
    if serving.status ~= "failed" and serving.status ~= "cancelled" then assert.equal(s, serving:join(5)) end
    assert.equal(0, s.connections)
  end)
  assert.equal(before, proc.descriptors())
end

local function errorless(errors)
  assert.same({}, errors[1] and {tostring(errors[1].e), errors[1].traceback} or {})
end

local Echo = server.StreamRequestHandler:extend {
  handle = function(self)
    for line in self.rfile:lines "L" do self.wfile:write(line) end
  end,
}

describe("a task server", function()
  it("talks with many at once", function()
    with(Echo, {}, function(s, errors)
      local done = 0
      loop.group(function(g)
        for i = 1, 50 do
          g:spawn(function()
            local c <close> = connect(s)
            for j = 1, 3 do
              local line = ("%d %d\n"):format(i, j)
              c:sendall(line)
              assert.equal(line, c:recv(100))
              socket.sleep(0.01)
              if i == 50 and j == 2 then assert.is_true(s.connections > 10, s.connections) end
            end
            done = done + 1
          end)
        end
      end)
      assert.equal(50, done)
      errorless(errors)
    end)
  end)

  it("makes a loop of its own where there is none", function()
    local before = proc.settled_descriptors()
    local s
    s = server.TaskTCPServer(ANY, function(request)
      request:sendall "x"
      if loop.current() then s:shutdown() end
    end)
    local c <close> = connect(s)
    assert.equal(s, s:serve_forever())
    assert.equal("x", support.all(c))
    s:server_close()
    c:close()
    assert.equal(before, proc.descriptors())
  end)

  it("handles single requests in the caller's task", function()
    local before = proc.settled_descriptors()
    do
      local s <close> = server.TaskTCPServer(ANY, function(request) request:sendall "x" end, {timeout = 5})
      local c <close> = connect(s)
      assert.is_true(s:handle_request())
      assert.equal("x", support.all(c))
    end
    assert.equal(before, proc.descriptors())
  end)

  it("has no more connections than max_connections, the others wait", function()
    local most = 0
    with(function(request, _, s)
      most = math.max(most, s.connections)
      socket.sleep(0.05)
      request:sendall "x"
    end, {max_connections = 3}, function(s, errors)
      local cpu = os.clock()
      local took = check.took(loop.group, function(g)
        for _ = 1, 10 do
          g:spawn(function()
            local c <close> = connect(s)
            assert.equal("x", support.all(c))
          end)
        end
      end)
      assert.equal(3, most)
      assert.is_true(os.clock() - cpu < took / 2, "it did not sleep while it was full")
      assert.is_true(took >= 0.2, took)
      errorless(errors)
    end)
  end)

  it("ends connections that are silent for too long, and only those", function()
    with(Echo, {idle_timeout = 0.15}, function(s, errors)
      local silent <close>, busy = connect(s), connect(s)
      local took = check.took(loop.group, function(g)
        g:spawn(function() assert.is_nil(silent:recv(1)) end)
        g:spawn(function()
          for i = 1, 8 do
            busy:sendall(i .. "\n")
            assert.equal(i .. "\n", busy:recv(10))
            socket.sleep(0.04)
          end
        end)
      end)
      busy:close()
      assert.is_true(took >= 0.3 and took < 5, took)
      assert.equal(1, #errors)
      assert.is_true(errors[1].e:is(socket.timeout))
      assert.equal(silent:getsockname(), errors[1].client_address)
    end)
  end)

  it("lets a handler set its own timeout", function()
    with(Echo:extend {timeout = 0.05}, {idle_timeout = 60}, function(s, errors)
      local c <close> = connect(s)
      assert.is_true(check.took(c.recv, c, 1) < 5)
      assert.is_true(errors[1].e:is(socket.timeout))
    end)
  end)

  it("outlives errors of its handlers, with their tracebacks", function()
    with(function(request)
      if request:recv(10) == "bad" then
        local function far_down() error "oh" end
        far_down()
      end
      request:sendall "good"
    end, {}, function(s, errors)
      for _, word in ipairs {"bad", "fine", "bad", "fine"} do
        local c <close> = connect(s)
        c:sendall(word)
        assert.equal(word == "fine" and "good" or "", support.all(c))
      end
      assert.equal(2, #errors)
      assert.matches("server_tasks_spec.lua:%d+: oh$", errors[1].e)
      assert.matches("far_down", errors[1].traceback)
    end)
  end)

  it("stands clients that reset and vanish", function()
    with(Echo, {}, function(s)
      for i = 1, 20 do
        local c = connect(s)
        if i % 2 == 0 then c:sendall "half a line" end
        if i % 3 == 0 then c:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("i4i4", 1, 0)) end
        c:close()
      end
      local c <close> = connect(s)
      c:sendall "still here\n"
      assert.equal("still here\n", c:recv(100))
    end)
  end)

  it("refuses whom verify_request does not want", function()
    with(Echo, {verify_request = function() return false end}, function(s, errors)
      local c <close> = connect(s)
      assert.is_nil(c:recv(1))
      assert.equal(0, s.connections)
      errorless(errors)
    end)
  end)

  it("calls service_actions from time to time", function()
    local calls = 0
    with(Echo, {service_actions = function() calls = calls + 1 end}, function()
      assert.truthy(check.eventually(5, function() return calls >= 3 end))
    end)
    with(Echo, {service_actions = function(self) self:shutdown() end}, function(s, _, serving)
      assert.equal(s, serving:join(5))
    end)
  end)

  it("does not burn time where there is no descriptor left for a connection", function()
    local text, status = support.run([[
      local socket, server, loop = require "socket", require "socket.server", require "socket.loop"
      local turns = 0
      local s = server.TaskTCPServer({"127.0.0.1", 0}, function(request) request:sendall "x" end, {
        get_request = function(self)
          turns = turns + 1
          return server.TCPServer.get_request(self)
        end})
      loop.run(function()
        local serving = loop.spawn(s.serve_forever, s)
        local c = socket.socket()
        local first <close> = socket.create_connection(s.server_address)
        first:recv(1)
        local hold = {}
        for i = 1, 64 do
          local d = socket.try_socket()
          if not d then break end
          hold[i] = d
        end
        local before, cpu = turns, os.clock()
        c:settimeout(0.35)
        c:connect(s.server_address)
        print((select(2, c:try_recv(1))).code, turns - before <= 6, os.clock() - cpu < 0.2)
        for i = 1, #hold do hold[i]:close() end
        c:settimeout(5)
        print(c:recv(1))
        c:close()
        s:shutdown()
      end)
      s:server_close()
    ]], {before = "ulimit -n 32;", leaks = false})
    assert.equal(0, status, text)
    assert.equal("ETIMEDOUT\ttrue\ttrue\nx\n", text)
  end)

  it("does not gather in memory what a client does not read", function()
    local piece = ("x"):rep(65536)
    local sent = 0
    with(server.StreamRequestHandler:extend {
      handle = function(self)
        for _ = 1, 4000 do
          self.wfile:write(piece)
          sent = sent + 1
        end
      end,
    }, {idle_timeout = 0.3}, function(s, errors)
      local clients = {}
      collectgarbage()
      local before = collectgarbage "count"
      for i = 1, 20 do clients[i] = connect(s) end
      assert.truthy(check.eventually(5, function() return s.connections == 20 end))
      local most, last = 0, -1
      while last ~= sent do
        last = sent
        collectgarbage()
        most = math.max(most, collectgarbage "count" - before)
        socket.sleep(0.1)
      end
      assert.is_true(sent < 20 * 400, sent) -- what kernels hold, not 5 GB
      assert.is_true(most < 4096, most)
      assert.truthy(check.eventually(8, function() return s.connections == 0 end))
      assert.equal(20, #errors)
      assert.is_true(errors[1].e:is(socket.timeout))
      for _, c in ipairs(clients) do c:close() end
    end)
  end)
end)

describe("a graceful stop", function()
  it("lets running requests finish, and takes no new ones", function()
    local ended
    with(function(request)
      request:sendall "begin "
      socket.sleep(0.2)
      request:sendall "end"
      ended = true
    end, {}, function(s, errors, serving)
      local c <close> = connect(s)
      assert.equal("begin ", c:recv(100))
      local late
      local stopping = loop.spawn(s.shutdown, s)
      socket.sleep(0.02)
      assert.is_true(s.stopping)
      late = connect(s)
      assert.equal("end", support.all(c))
      stopping:join()
      assert.equal("done", serving.status)
      assert.is_true(ended)
      late:settimeout(0.05)
      assert.is_true(select(2, late:try_recv(1)):is(socket.timeout))
      s:server_close()
      late:settimeout(5)
      local data, e = late:try_recv(1)
      assert.is_true(data == nil and (e == nil or e.code == "ECONNRESET"))
      late:close()
      errorless(errors)
    end)
  end)

  it("cancels what has not finished after stop_timeout", function()
    local cleaned, went_on
    with(function(request)
      local _ <close> = setmetatable({}, {__close = function() cleaned = true end})
      request:sendall "x"
      socket.sleep(60)
      went_on = true
    end, {stop_timeout = 0.2}, function(s, errors, serving)
      local c <close> = connect(s)
      assert.equal("x", c:recv(1))
      local took = check.took(s.shutdown, s)
      assert.is_true(took >= 0.2 and took < 5, took)
      assert.equal("done", serving.status)
      assert.is_true(cleaned)
      assert.is_nil(went_on)
      assert.is_nil(c:recv(1))
      errorless(errors)
    end)
  end)

  it("cancels again who goes on regardless", function()
    local times = 0
    with(function(request)
      request:sendall "x"
      for _ = 1, 3 do
        pcall(socket.sleep, 60)
        times = times + 1
      end
    end, {stop_timeout = 0}, function(s)
      local c <close> = connect(s)
      assert.equal("x", c:recv(1))
      assert.is_true(check.took(s.shutdown, s) < 5)
      assert.equal(3, times)
    end)
  end)

  it("has the time that shutdown says, also when said again", function()
    with(function(request)
      request:sendall "x"
      socket.sleep(60)
    end, {stop_timeout = 60}, function(s, _, serving)
      local c <close> = connect(s)
      assert.equal("x", c:recv(1))
      local first = loop.spawn(s.shutdown, s, 50)
      socket.sleep(0.05)
      assert.equal(1, s.connections)
      assert.is_true(check.took(s.shutdown, s, 0.1) < 5)
      first:join(5)
      assert.equal("done", serving.status)
    end)
  end)

  it("ends at once what only waits for the next request", function()
    local Keep = server.StreamRequestHandler:extend {
      handle = function(self)
        while self.server:idle(self.rfile.read, self.rfile, 0) do
          local line = self.rfile:read()
          socket.sleep(line == "slow" and 0.2 or 0)
          self.wfile:write(line, "\n")
        end
        self.wfile:write "bye\n"
      end,
    }
    with(Keep, {stop_timeout = 60}, function(s, errors, serving)
      local idle <close>, slow = connect(s), connect(s)
      idle:sendall "one\n"
      assert.equal("one\n", idle:recv(100))
      slow:sendall "slow\n"
      socket.sleep(0.05)
      assert.is_true(check.took(s.shutdown, s) < 5)
      assert.equal("done", serving.status)
      assert.equal("bye\n", support.all(idle))
      assert.equal("slow\nbye\n", support.all(slow))
      slow:close()
      errorless(errors)
    end)
  end)

  it("may be asked for by a handler, a check or an action, which do not wait for themselves", function()
    with(function(request, _, s)
      s:shutdown()
      request:sendall "stopped"
    end, {}, function(s, errors, serving)
      local c <close> = connect(s)
      assert.equal("stopped", support.all(c))
      serving:join(5)
      errorless(errors)
    end)
    with(Echo, {verify_request = function(s)
      s:shutdown()
      return false
    end}, function(s, errors, serving)
      local c <close> = connect(s)
      assert.is_nil(c:recv(1))
      serving:join(5)
      errorless(errors)
    end)
  end)

  it("needs no descriptor, where there is none left", function()
    local text, status = support.run([[
      local socket, server, loop = require "socket", require "socket.server", require "socket.loop"
      for _, name in ipairs {"TaskTCPServer", "TCPServer"} do
        loop.run(function()
          local s <close> = server[name]({"127.0.0.1", 0}, function(request) socket.sleep(0.05) request:sendall "x" end)
          local serving = loop.spawn(s.serve_forever, s)
          local client <close> = socket.create_connection(s.server_address)
          socket.sleep(0.01)
          local hold, e = {}, nil
          for i = 1, 64 do hold[i], e = socket.try_socket() end
          s:shutdown(5)
          print(e.code, serving.status == "done" or s._run == nil, client:recv(1), client:recv(1))
          for _, d in pairs(hold) do d:close() end
        end)
      end
    ]], {before = "ulimit -n 32;", leaks = false})
    assert.equal(0, status, text)
    assert.equal(("EMFILE\ttrue\tx\tnil\n"):rep(2), text)
  end)

  it("may come before the server's task has begun", function()
    loop.run(function()
      local s <close> = server.TaskTCPServer(ANY, Echo)
      local serving = loop.spawn(s.serve_forever, s)
      s:shutdown()
      assert.equal(s, serving:join(5))
    end)
  end)

  it("comes with server_close too", function()
    with(function(request)
      request:sendall "begin "
      socket.sleep(0.1)
      request:sendall "end"
    end, {}, function(s, errors, serving)
      local c <close> = connect(s)
      assert.equal("begin ", c:recv(100))
      s:server_close()
      fails("ECONNREFUSED", connect, s)
      assert.equal("end", support.all(c))
      serving:join(5)
      errorless(errors)
    end)
    with(Echo, {}, function(s, _, serving)
      socket.sleep(0.02)
      s.socket:close()
      assert.equal(s, serving:join(5))
    end)
  end)
end)

describe("a task server that ends otherwise", function()
  it("has closed all its connections when its task is cancelled", function()
    with(Echo, {}, function(s, _, serving)
      local c <close> = connect(s)
      c:sendall "x\n"
      assert.equal("x\n", c:recv(10))
      serving:cancel()
      assert.is_nil(c:recv(1))
      assert.is_false(pcall(serving.join, serving, 5))
      assert.equal("cancelled", serving.status)
      assert.is_false(s.stopping)
    end)
  end)

  it("raises the error of handle_error, with everything closed", function()
    with(function(request) if request:recv(10) == "bad" then error("bad", 0) end end, {
      handle_error = function(_, _, _, e) error("told: " .. e, 0) end,
    }, function(s, _, serving)
      local other <close>, c = connect(s), connect(s)
      c:sendall "bad"
      assert.is_nil(c:recv(1))
      assert.is_nil(other:recv(1))
      local ok, e = pcall(serving.join, serving, 5)
      assert.is_false(ok)
      assert.equal("told: bad", e)
      c:close()
    end)
  end)

  it("closes what was accepted for a task that never began", function()
    local begun, n = 0, 0
    local before = proc.settled_descriptors()
    loop.run(function()
      local s <close> = server.TaskTCPServer(ANY, function() begun = begun + 1 end, {
        process_request = function(self, ...)
          n = n + 1
          if n == 2 then error "second" end
          return server.TaskMixIn.process_request(self, ...)
        end,
        handle_error = function(_, _, _, e) error(e, 0) end,
      })
      local a, b = connect(s), connect(s)
      local ok, e = pcall(s.serve_forever, s)
      assert.is_false(ok)
      assert.matches("second", e)
      assert.equal(0, begun)
      assert.equal(0, s.connections)
      assert.is_nil(a:recv(1))
      assert.is_nil(b:recv(1))
      a:close()
      b:close()
    end)
    assert.equal(before, proc.descriptors())
  end)
end)

describe("a task server with a TLS context", function()
  local ssl, context = socket.ssl, tls.server

  it("serves others while clients do not shake hands, and gives those up", function()
    local ctx = ssl.create_default_context {cafile = certs.path "ca.pem"}
    with(Echo, {ssl_context = context(), handshake_timeout = 0.3}, function(s, errors)
      local silent = {}
      for i = 1, 5 do silent[i] = connect(s) end
      silent[1]:sendall "\22\3\1"
      local took = check.took(function()
        local c <close> = ctx:wrap_socket(connect(s), {server_hostname = "localhost"})
        c:sendall "over TLS\n"
        assert.equal("over TLS\n", c:recv(100))
      end)
      assert.is_true(took < 5, took)
      for _, c in ipairs(silent) do
        local data, e = c:try_recv(100)
        assert.is_true(data == nil and (not e or e.code == "ECONNRESET"), tostring(e))
        c:close()
      end
      assert.equal(5, #errors)
      for _, error in ipairs(errors) do assert.is_true(error.e:is(socket.timeout), tostring(error.e)) end
    end)
  end)

  it("counts the handshake's clients, and cancels them at the end of a stop", function()
    with(Echo, {ssl_context = context(), handshake_timeout = 60, stop_timeout = 0.1}, function(s, errors)
      local c <close> = connect(s)
      assert.truthy(check.eventually(5, function() return s.connections == 1 end))
      assert.is_true(check.took(s.shutdown, s) < 5)
      assert.is_nil(c:recv(1))
      errorless(errors)
    end)
  end)

  it("is understood by openssl", function()
    with(server.StreamRequestHandler:extend {
      handle = function(self) self.wfile:write(self.rfile:read():upper(), "\n") end,
    }, {ssl_context = context()}, function(s, errors)
      local p = io.popen(("printf 'hello\\n' | timeout 10 openssl s_client -quiet -verify_return_error -CAfile %s "
        .. "-connect %s 2>&1; echo ended"):format(h.quote(certs.path "ca.pem"), tostring(s.server_address)))
      assert.truthy(loop.wait(p, "r", 10))
      assert.truthy(check.eventually(10, function() return s.connections == 0 end))
      local said = p:read "a"
      p:close()
      errorless(errors)
      assert.matches("HELLO\n", said)
    end)
  end)
end)

describe("a task server for datagrams", function()
  local Slow = server.DatagramRequestHandler:extend {
    handle = function(self)
      if self.packet == "slow" then socket.sleep(0.3) end
      self.wfile:write("<", self.packet, ">")
    end,
  }

  it("handles each in a task", function()
    with(Slow, {server.TaskUDPServer}, function(s, errors)
      local c <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):connect(s.server_address)
      c:send "slow"
      c:send "quick"
      assert.equal("<quick>", c:recv(100))
      assert.equal("<slow>", c:recv(100))
      errorless(errors)
    end)
  end)

  it("is there for Unix sockets, as is one for streams", function()
    local path, mine = os.tmpname(), os.tmpname()
    os.remove(path)
    os.remove(mine)
    with(Slow, {server.TaskUnixDatagramServer, path}, function(s, errors)
      local c <close> = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(mine):connect(path)
      c:send "x"
      assert.equal("<x>", c:recv(100))
      assert.equal(socket.AF_UNIX, s.address_family)
      errorless(errors)
    end)
    os.remove(path)
    os.remove(mine)
    with(Echo, {server.TaskUnixStreamServer, path}, function(_, errors)
      local c <close> = socket.socket(socket.AF_UNIX):connect(path)
      c:sendall "y\n"
      assert.equal("y\n", c:recv(100))
      errorless(errors)
    end)
    os.remove(path)
  end)
end)

describe("a server of one request at a time", function()
  it("can be shut down from another task, which waits for its end", function()
    local before = proc.settled_descriptors()
    loop.run(function()
      local s <close> = server.TCPServer(ANY, function(request)
        socket.sleep(0.1)
        request:sendall "x"
      end)
      local serving = loop.spawn(s.serve_forever, s, 60)
      local c <close> = connect(s)
      socket.sleep(0.03)
      assert.is_true(check.took(s.shutdown, s) < 5)
      assert.equal("done", serving.status)
      assert.equal("x", support.all(c))
    end)
    assert.equal(before, proc.descriptors())
  end)
end)
