-- Connecting: connect, connect_ex, bind, listen. What makes its sockets itself is in connect_create_spec.lua.

local check = require "spec.support.check"
local helper = require "spec.helper"
local listeners = require "spec.support.listeners"
local netns = require "spec.support.netns"
local proc = require "spec.support.proc"
local socket = require "socket"
local tasks = require "spec.support.tasks"

local fails, took = check.fails, check.took
local inet, listener, nobody, stuck = listeners.inet, listeners.listener, listeners.nobody, listeners.stuck

local function unix_listener(path, backlog)
  return socket.create_server(path, {family = socket.AF_UNIX, backlog = backlog})
end

-- A listener with a full queue; the sockets in it.
local function full_unix_listener(path)
  local server, waiting = unix_listener(path, 0), {}
  repeat
    local s = socket.socket(socket.AF_UNIX)
    s:settimeout(0)
    local ok = s:try_connect(path)
    if ok then waiting[#waiting + 1] = s else s:close() end
  until not ok
  return server, waiting
end

local counter = 0
local function abstract_name()
  counter = counter + 1
  return ("\0lsocket-connect-spec-%s-%d"):format(tostring(abstract_name):gsub("%W", ""), counter)
end

local net = netns.new()

describe("connecting:", function()
  teardown(function()
    net:stop()
    listeners.close_stuck()
  end)

  describe("connect", function()
    it("connects to an IPv4 or IPv6 address and gives the socket back", function()
      for _, host in ipairs {"127.0.0.1", "::1"} do
        for _, timeout in ipairs {false, 5} do
          local server <close> = listener(host)
          local s <close> = socket.socket(inet(host))
          s:settimeout(timeout or nil)
          assert.equal(s, s:connect(server:getsockname()))
          assert.equal(server:getsockname(), s:getpeername())
          local conn <close>, peer = server:accept()
          assert.equal(s:getsockname(), peer)
          conn:sendall "hi"
          assert.equal("hi", s:recv(10))
        end
      end
    end)

    it("takes the address by position or by name", function()
      local server <close> = listener "127.0.0.1"
      local port = server:getsockname().port
      for _, address in ipairs {
        {"127.0.0.1", port}, {host = "127.0.0.1", port = port}, {"localhost", port}, {"", port},
        {socket.INADDR_LOOPBACK, port}, {"127.1", tostring(port)}, {"127.0.0.1", port + 0.0},
      } do
        local s <close> = socket.socket():connect(address)
        assert.equal(port, s:getpeername().port)
      end
    end)

    it("connects to a Unix socket, also one with an abstract name", function()
      local path = os.tmpname()
      os.remove(path)
      for _, name in ipairs {path, abstract_name()} do
        for _, timeout in ipairs {false, 5} do
          local _ <close> = unix_listener(name)
          local s <close> = socket.socket(socket.AF_UNIX)
          s:settimeout(timeout or nil)
          assert.equal(s, s:connect(name))
          assert.equal(name, s:getpeername())
          os.remove(path)
        end
      end
    end)

    it("gives a datagram socket its peer, and may do so again", function()
      local a <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
      local b <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
      local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      s:connect(a:getsockname()):connect(b:getsockname()):send "x"
      assert.equal("x", b:recv(10))
      assert.equal(b:getsockname(), s:getpeername())
    end)

    it("says who refused", function()
      for _, host in ipairs {"127.0.0.1", "::1"} do
        local address = nobody(host)
        for _, timeout in ipairs {false, 5} do
          local s <close> = socket.socket(inet(host))
          s:settimeout(timeout or nil)
          local e = fails(socket.error, "ECONNREFUSED", s.connect, s, address)
          assert.equal("connect", e.op)
          assert.equal(address, e.address)
          assert.equal(socket.errno.ECONNREFUSED, e.errno)
          local text = tostring(e)
          assert.is_truthy(text:find("connect " .. tostring(address) .. ": Connection refused (ECONNREFUSED)", 1, true))
          local nothing, again = s:try_connect(address)
          assert.is_nil(nothing)
          assert.equal("ECONNREFUSED", again.code)
        end
      end
    end)

    it("says what else is wrong", function()
      local u <close> = socket.socket(socket.AF_UNIX)
      local e = fails(socket.error, "ENOENT", u.connect, u, "/nowhere/at/all")
      assert.equal("/nowhere/at/all", e.address)
      local server <close> = listener "127.0.0.1"
      local s <close> = socket.socket():connect(server:getsockname())
      fails(socket.error, "EISCONN", s.connect, s, server:getsockname())
      local d <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      fails(socket.error, "EACCES", d.connect, d, {"<broadcast>", 9})
      s:close()
      e = fails(socket.error, "EBADF", s.connect, s, server:getsockname())
      assert.equal("socket is closed", e.message)
      assert.is_nil((s:try_connect {"www.test", 80}))
    end)

    it("does not wait with a timeout of 0: EINPROGRESS, and a second connect says how it went", function()
      local server <close> = listener "127.0.0.1"
      local s <close> = socket.socket()
      s:settimeout(0)
      local e = fails(socket.error, "EINPROGRESS", s.connect, s, server:getsockname())
      assert.equal("connect", e.op)
      server:accept():close()
      assert.equal(s, s:connect(server:getsockname()))
      fails(socket.error, "EISCONN", s.connect, s, server:getsockname())
    end)

    it("takes up a connect under way, within a new timeout", function()
      local s <close> = socket.socket()
      local address = stuck "127.0.0.1"
      s:settimeout(0)
      fails(socket.error, "EINPROGRESS", s.connect, s, address)
      fails(socket.error, "EALREADY", s.connect, s, address)
      s:settimeout(0.05)
      local t = took(fails, socket.timeout, "ETIMEDOUT", s.connect, s, address)
      assert.is_true(t >= 0.05 and t < 0.5, t)
    end)

    it("gives up when the time is up, never earlier", function()
      for _, host in ipairs {"127.0.0.1", "::1"} do
        local address = stuck(host)
        for _, timeout in ipairs {0.02, 0.1} do
          local s <close> = socket.socket(inet(host))
          s:settimeout(timeout)
          for _ = 1, timeout < 0.1 and 2 or 1 do    -- and again
            local e
            local t = took(function() e = fails(socket.timeout, "ETIMEDOUT", s.connect, s, address) end)
            assert.is_true(t >= timeout and t < timeout + 0.4, t)
            assert.equal("timed out", e.message)
            assert.equal(address, e.address)
          end
        end
      end
    end)

    it("waits for room in the queue of a Unix listener, at most the timeout", function()
      local name = abstract_name()
      local server <close>, waiting = full_unix_listener(name)
      local fds = proc.settled_descriptors()
      local s <close> = socket.socket(socket.AF_UNIX)
      s:settimeout(0)
      fails(socket.error, "EAGAIN", s.connect, s, name)
      for _, timeout in ipairs {0.02, 0.1} do
        s:settimeout(timeout)
        local t = took(fails, socket.timeout, "ETIMEDOUT", s.connect, s, name)
        assert.is_true(t >= timeout and t < timeout + 0.4, t)
      end
      server:accept():close()
      assert.equal(s, s:connect(name))
      assert.equal(fds + 1, proc.descriptors())
      for _, w in ipairs(waiting) do w:close() end
    end)

    it("tells the system's own timeout by the same class", function()
      net:inside(function()
        local s <close> = socket.socket()
        local e = fails(socket.timeout, "ETIMEDOUT", s.connect, s, {"127.0.0.1", 1})
        assert.equal("Connection timed out", e.message)
        assert.equal(socket.errno.ETIMEDOUT, s:connect_ex {"127.0.0.1", 1})
        e = fails(socket.timeout, "ETIMEDOUT", socket.create_connection, {"127.0.0.1", 1})
        assert.equal(socket.timeout, e.errors[1].class)
      end, "strace -qq -o /dev/null -e inject=connect:error=ETIMEDOUT")()
    end)

    local function run_script(f, command)
      local path = net:script(f)
      local ok, text
      local t = took(function() ok, text = net:run(command:gsub("LUA", helper.lua {leaks = false} .. " " .. path)) end)
      os.remove(path)
      return ok, text, t
    end

    it("is ended by Ctrl-C, with and without a timeout", function()
      for _, timeout in ipairs {false, 20} do
        local ok, text, t = run_script(function()
          local s <close> = socket.socket()
          local address = stuck "127.0.0.1"
          s:settimeout(timeout or nil)
          check.interrupt(0.1)
          s:connect(address)
        end, "LUA")
        assert.is_false(ok)
        assert.matches("interrupted!", text)
        assert.is_true(t < 5, t)
      end
    end)

    it("goes on after a stop and its continuation", function()
      local ok, text = run_script(function()
        local address = stuck "127.0.0.1"
        local s <close> = socket.socket()
        s:settimeout(0.3)
        local t = took(fails, socket.timeout, "ETIMEDOUT", s.connect, s, address)
        assert.is_true(t >= 0.3 and t < 1, t)
      end, "LUA & p=$!; sleep 0.1; kill -STOP $p; sleep 0.05; kill -CONT $p; wait $p")
      assert.is_true(ok, text)
    end)

    it("refuses wrong arguments before anything is done", function()
      local s <close> = socket.socket()
      local s6 <close> = socket.socket(socket.AF_INET6)
      local u <close> = socket.socket(socket.AF_UNIX)
      for _, case in ipairs {
        {"value expected", s, n = 0},
        {"table expected, got nil", s, nil},
        {"table expected, got string", s, "127.0.0.1:80"},
        {"port must be an integer, got nil", s, {"127.0.0.1"}},
        {"port must be an integer, got string", s, {"127.0.0.1", "http"}},
        {"port must be an integer, got number", s, {"127.0.0.1", 80.5}},
        {"port must be 0%-65535, got 65536", s, {"127.0.0.1", 65536}},
        {"port must be 0%-65535, got %-1", s, {"127.0.0.1", -1}},
        {"port must be 0%-65535, got %-9223372036854775808", s, {"127.0.0.1", math.mininteger}},
        {"host must be a string or an integer, got nil", s, {nil, 80}},
        {"host must be a string or an integer, got boolean", s, {true, 80}},
        {"host must be 0%-4294967295", s, {1 << 32, 80}},
        {"host contains a zero byte", s, {"127.0.0.1\0.test", 80}},
        {"host is longer than 1024 bytes", s, {("x"):rep(1 << 20), 80}},
        {"host must be a string, got number", s6, {1, 80}},
        {"flowinfo must be 0%-1048575", s6, {"::1", 80, -1}},
        {"scope_id must be 0%-4294967295", s6, {"::1", 80, 0, 1 << 32}},
        {"path is longer than %d+ bytes", u, ("x"):rep(108)},
        {"path is longer than %d+ bytes", u, "\0" .. ("x"):rep(1 << 20)},
        {"path contains a zero byte", u, "/tmp/x\0y"},
        {"string expected, got boolean", u, true},
      } do
        for _, name in ipairs {"connect", "try_connect", "connect_ex", "bind", "try_bind"} do
          local ok, message = pcall(s[name], case[2], table.unpack(case, 3, 2 + (case.n or 1)))
          assert.is_false(ok)
          assert.is_string(message)
          assert.matches("bad argument #2 .*" .. case[1], message)
        end
      end
    end)

    it("is a method of sockets only", function()
      local connect = socket.SocketType.connect
      for _, wrong in ipairs {{}, io.stdout, "socket", 3, socket.error, coroutine.create(print)} do
        for _, name in ipairs {"connect", "connect_ex", "bind", "listen", "try_listen"} do
          assert.error_matches(function() socket.SocketType[name](wrong, {"127.0.0.1", 80}) end,
            "bad argument #1 .*socket expected")
        end
      end
      assert.error_matches(function() connect() end, "socket expected, got no value")
    end)
  end)

  describe("connect_ex", function()
    it("gives 0 for success", function()
      local server <close> = listener "127.0.0.1"
      for _, timeout in ipairs {false, 5} do
        local s <close> = socket.socket()
        s:settimeout(timeout or nil)
        assert.equal(0, s:connect_ex(server:getsockname()))
        assert.equal(server:getsockname(), s:getpeername())
      end
    end)

    it("gives the errno of a failure", function()
      local address = nobody "127.0.0.1"
      for _, timeout in ipairs {false, 5} do
        local s <close> = socket.socket()
        s:settimeout(timeout or nil)
        assert.equal(socket.errno.ECONNREFUSED, s:connect_ex(address))
        local u <close> = socket.socket(socket.AF_UNIX)
        assert.equal(socket.errno.ENOENT, u:connect_ex "/nowhere/at/all")
        s:close()
        assert.equal(socket.errno.EBADF, s:connect_ex(address))
      end
    end)

    it("without waiting gives EINPROGRESS, then how it went", function()
      local server <close> = listener "127.0.0.1"
      local s <close> = socket.socket()
      s:settimeout(0)
      assert.equal("EINPROGRESS", socket.errno[s:connect_ex(server:getsockname())])
      server:accept():close()
      assert.equal(0, s:connect_ex(server:getsockname()))
      assert.equal("EISCONN", socket.errno[s:connect_ex(server:getsockname())])

      local address = nobody "127.0.0.1"
      local r <close> = socket.socket()
      r:settimeout(0)
      local first = socket.errno[r:connect_ex(address)]
      if first == "EINPROGRESS" then first = socket.errno[r:connect_ex(address)] end
      assert.equal("ECONNREFUSED", first)
    end)

    it("gives EAGAIN when the time is up, as Python does", function()
      local s <close> = socket.socket()
      s:settimeout(0.05)
      assert.equal("EAGAIN", socket.errno[s:connect_ex(stuck "127.0.0.1")])
    end)

    it("has a try_ form, for the errors of a lookup", function()
      local s <close> = socket.socket()
      local nothing, e = s:try_connect_ex {"::1", 80}
      assert.is_nil(nothing)
      assert.equal("EAI_ADDRFAMILY", e.code)
      assert.equal("connect_ex", e.op)
    end)
  end)

  describe("under a wait hook, connect", function()
    it("waits for the socket to be writable, and believes only the socket", function()
      local server <close> = listener "127.0.0.1"
      local address = server:getsockname()
      local results = tasks.run {
        function()
          local s <close> = socket.socket()
          return s:connect(address):getpeername()
        end,
        function()
          local s <close> = socket.socket()
          return s:connect_ex(address)
        end,
        function()
          local s <close> = socket.socket()
          return s:try_connect(nobody "127.0.0.1")
        end,
      }
      assert.equal(address, results[1][2])
      assert.equal(0, results[2][2])
      assert.equal("ECONNREFUSED", results[3][3].code)
    end)

    it("tells the hook the direction and the seconds left", function()
      local address = stuck "127.0.0.1"
      local seen
      local former = socket.setwaithook(function(s, direction, seconds)
        seen = {s, direction, seconds, s:events()}
        return false
      end)
      local s <close> = socket.socket()
      coroutine.wrap(function()
        s:settimeout(7)
        fails(socket.timeout, "ETIMEDOUT", s.connect, s, address)
        assert.equal(s, seen[1])
        assert.equal("w", seen[2])
        assert.is_true(seen[3] > 6 and seen[3] <= 7, seen[3])
        assert.equal("w", seen[4])
        assert.equal("", s:events())
        s:settimeout(nil)
        fails(socket.timeout, "ETIMEDOUT", s.connect, s, address)
        assert.is_nil(seen[3])
      end)()
      socket.setwaithook(former)
    end)

    it("keeps its deadline", function()
      local address = stuck "127.0.0.1"
      local t = took(function()
        local results = tasks.run {
          function()
            local s <close> = socket.socket()
            s:settimeout(0.1)
            s:connect(address)
          end,
        }
        assert.equal(socket.timeout, results[1][2].class)
      end)
      assert.is_true(t >= 0.1 and t < 0.5, t)
    end)

    it("waits for room in a Unix listener's queue while others run, and leaves no descriptor", function()
      local name = abstract_name()
      local server <close>, waiting = full_unix_listener(name)
      local fds = proc.settled_descriptors()
      local results = tasks.run {
        function()
          local s <close> = socket.socket(socket.AF_UNIX)
          return s:connect(name) == s
        end,
        function()
          local s <close> = socket.socket(socket.AF_UNIX)
          s:settimeout(0.03)
          return s:try_connect(name)
        end,
        function()
          socket.sleep(0.05)
          server:accept():close()
        end,
      }
      assert.is_true(results[1][2])
      assert.is_nil(results[2][2])
      assert.equal("ETIMEDOUT", results[2][3].code)
      assert.equal(fds, proc.descriptors())
      for _, w in ipairs(waiting) do w:close() end
    end)

    it("ends with an error when another coroutine closes the socket", function()
      local address = stuck "127.0.0.1"
      local s = socket.socket()
      local results = tasks.run {
        function() return s:try_connect(address) end,
        function() s:close() end,
      }
      assert.is_nil(results[1][2])
      assert.equal("ECANCELED", results[1][3].code)
    end)

    it("is for one coroutine at a time", function()
      local address = stuck "127.0.0.1"
      local s <close> = socket.socket()
      s:settimeout(0.1)
      local results = tasks.run {
        function() return s:try_connect(address) end,
        function() return s:try_connect(address) end,
      }
      assert.equal("ETIMEDOUT", results[1][3].code)
      assert.equal("EBUSY", results[2][3].code)
    end)
  end)

  describe("disconnect", function()
    it("takes a datagram socket's peer away, and gives the socket back", function()
      for _, host in ipairs {"127.0.0.1", "::1"} do
        local peer <close> = socket.socket(inet(host), socket.SOCK_DGRAM):bind {host, 0}
        local other <close> = socket.socket(inet(host), socket.SOCK_DGRAM)
        local address = nobody(host)                -- the system takes a port back that it chose itself
        local s <close> = socket.socket(inet(host), socket.SOCK_DGRAM):bind(address)
        s:settimeout(5):connect(peer:getsockname())
        other:sendto("lost", address)               -- only the peer may send
        assert.equal(s, s:disconnect())
        fails(socket.error, "ENOTCONN", s.getpeername, s)
        fails(socket.error, "EDESTADDRREQ", s.send, s, "x")
        assert.equal(address, s:getsockname())
        other:sendto("heard", address)
        assert.equal("heard", s:recv(10))
        assert.equal(1, s:sendto("x", peer:getsockname()))
        assert.equal(s, s:connect(peer:getsockname()):disconnect():disconnect())
      end
    end)

    it("does so for Unix sockets too", function()
      local peer <close> = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(abstract_name())
      local s <close> = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):connect(peer:getsockname())
      fails(socket.error, "ENOTCONN", s:disconnect().send, s, "x")
    end)

    it("is not for streams, nor for closed sockets", function()
      local server <close> = listener "127.0.0.1"
      local s <close> = socket.socket():connect(server:getsockname())
      local e = fails(socket.error, "EOPNOTSUPP", s.disconnect, s)
      assert.equal("disconnect", e.op)
      assert.equal(server:getsockname(), s:getpeername())
      s:close()
      local nothing, again = s:try_disconnect()
      assert.is_nil(nothing)
      assert.equal("EBADF", again.code)
    end)
  end)

  describe("bind", function()
    it("gives the socket an address of this machine, and gives the socket back", function()
      for _, host in ipairs {"127.0.0.1", "::1"} do
        local s <close> = socket.socket(inet(host))
        assert.equal(s, s:bind {host, 0})
        assert.equal(host, s:getsockname().host)
        assert.is_true(s:getsockname().port > 0)
      end
      local any <close> = socket.socket():bind {"", 0}
      assert.equal("0.0.0.0", any:getsockname().host)
      local any6 <close> = socket.socket(socket.AF_INET6):bind {"", 0}
      assert.equal("::", any6:getsockname().host)
      local u <close> = socket.socket(socket.AF_UNIX)
      local name = abstract_name()
      assert.equal(name, u:bind(name):getsockname())
    end)

    it("says which address is taken or is not here", function()
      local server <close> = listener "127.0.0.1"
      local s <close> = socket.socket()
      for _, timeout in ipairs {false, 5, 0} do
        s:settimeout(timeout or nil)
        local e = fails(socket.error, "EADDRINUSE", s.bind, s, server:getsockname())
        assert.equal("bind", e.op)
        assert.equal(server:getsockname(), e.address)
        e = fails(socket.error, "EADDRNOTAVAIL", s.bind, s, {"192.0.2.1", 0})
        assert.equal("192.0.2.1", e.address[1])
      end
      s:bind {"127.0.0.1", 0}
      fails(socket.error, "EINVAL", s.bind, s, {"127.0.0.1", 0})
      local path = os.tmpname()
      local u <close> = socket.socket(socket.AF_UNIX)
      assert.equal(path, fails(socket.error, "EADDRINUSE", u.bind, u, path).address)
      os.remove(path)
      s:close()
      local nothing, e = s:try_bind {"127.0.0.1", 0}
      assert.is_nil(nothing)
      assert.equal("EBADF", e.code)
      assert.equal("socket is closed", e.message)
    end)
  end)

  describe("listen", function()
    it("makes a bound socket accept connections, and gives the socket back", function()
      for _, backlog in ipairs {false, 1, 0, -5, 1 << 40, math.mininteger, 3.0} do
        local s <close> = socket.socket():bind {"127.0.0.1", 0}
        assert.equal(s, s:listen(backlog or nil))
        local c <close> = socket.socket():connect(s:getsockname())
        local conn <close> = s:accept()
        assert.equal(c:getsockname(), conn:getpeername())
      end
    end)

    it("fails where there is nothing to listen for", function()
      local d <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      local e = fails(socket.error, "EOPNOTSUPP", d.listen, d)
      assert.equal("listen", e.op)
      local s = socket.socket()
      s:close()
      e = fails(socket.error, "EBADF", s.listen, s, 5)
      assert.equal("socket is closed", e.message)
      local nothing, again = s:try_listen()
      assert.is_nil(nothing)
      assert.equal("EBADF", again.code)
    end)

    it("wants a number", function()
      local s <close> = socket.socket()
      assert.error_matches(function() s:listen "many" end, "number expected, got string")
      assert.error_matches(function() s:listen(1.5) end, "no integer representation")
    end)
  end)
end)
