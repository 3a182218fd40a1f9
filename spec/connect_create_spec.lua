-- Sockets made and connected, or made and listening, by one call: create_connection and create_server.

require "spec.helper"
local check = require "spec.support.check"
local listeners = require "spec.support.listeners"
local netns = require "spec.support.netns"
local proc = require "spec.support.proc"
local socket = require "socket"
local tasks = require "spec.support.tasks"

local fails, took = check.fails, check.took
local inet, listener, nobody, stuck = listeners.inet, listeners.listener, listeners.nobody, listeners.stuck

local net = netns.new {
  setup = [[
    for i in 1 2 3; do ip addr add fd00::$i/128 dev lo nodad; done
    for i in 1 2; do ip addr add fe80::$i/64 dev lo nodad; done
  ]],
  zone = {
    ["both.test"] = {AAAA = {"::1"}, A = {"127.0.0.1"}},
    ["slow.test"] = {AAAA = {"::1"}, A = {"127.0.0.1"}, delay = 0.15},
    ["three.test"] = {A = {"127.0.0.1", "127.0.0.2", "127.0.0.3"}},
    ["five.test"] = {AAAA = {"fd00::1", "fd00::2", "fd00::3"}, A = {"127.0.0.2", "127.0.0.3"}},
    ["far.test"] = {AAAA = {"fd99::1"}, A = {"10.99.99.99", "127.0.0.1"}},
    ["one.test"] = {A = {"127.0.0.1"}},
    ["silent.test"] = {silent = true},
    ["link.test"] = {AAAA = {"fe80::1"}},
    ["links.test"] = {AAAA = {"fe80::1"}, A = {"127.0.0.1"}},
  },
}

local function it_in_net(text, f, before) it(text, net:inside(f, before)) end

-- The addresses create_connection tries: those of getaddrinfo, the families taking turns.
local function addresses(host, port)
  local lists, order = {{}, {}}, {}
  for _, info in ipairs(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)) do
    local first = lists[1][1]
    local list = lists[(not first or first.family == info.family) and 1 or 2]
    list[#list + 1] = info.sockaddr
  end
  for i = 1, math.max(#lists[1], #lists[2]) do
    order[#order + 1] = lists[1][i]
    order[#order + 1] = lists[2][i]
  end
  return order
end

local function texts(list)
  local t = {}
  for i, a in ipairs(list) do t[i] = tostring(a) end
  return t
end

describe("connecting:", function()
  teardown(function()
    net:stop()
    listeners.close_stuck()
  end)

  describe("create_connection", function()
    it("gives a connected socket", function()
      for _, host in ipairs {"127.0.0.1", "::1"} do
        local server <close> = listener(host)
        local address = server:getsockname()
        local fds = proc.settled_descriptors()
        local port = address.port
        for _, form in ipairs {address, {host, port}, {host = host, port = port}, {host, port + 0.0}} do
          local s <close> = socket.create_connection(form)
          assert.equal(address, s:getpeername())
          assert.equal(inet(host), s.family)
          assert.equal(socket.SOCK_STREAM, s.type)
          assert.equal(fds + 1, proc.descriptors())
        end
      end
    end)

    it("leaves its timeout with the socket", function()
      local server <close> = listener "127.0.0.1"
      for _, host in ipairs {"127.0.0.1", ""} do
        local address = {host, server:getsockname().port}
        local a <close> = socket.create_connection(address, 7)
        assert.equal(7, a:gettimeout())
        local b <close> = socket.create_connection(address)
        assert.is_nil(b:gettimeout())
        socket.setdefaulttimeout(8)
        local ok, message = pcall(function()
          local c <close> = socket.create_connection(address)
          assert.equal(8, c:gettimeout())
          local d <close> = socket.create_connection(address, nil, {})
          assert.equal(8, d:gettimeout())
        end)
        socket.setdefaulttimeout(nil)
        assert(ok, message)
      end
    end)

    it("says who refused, and leaves no descriptor", function()
      local address = nobody "127.0.0.1"
      local fds = proc.settled_descriptors()
      for _, timeout in ipairs {false, 5} do
        local e = fails(socket.error, "ECONNREFUSED", socket.create_connection, address, timeout or nil)
        assert.equal("create_connection", e.op)
        assert.equal(address, e.address)
        assert.equal(1, #e.errors)
        local first = e.errors[1]
        assert.equal("connect", first.op)
        assert.equal("ECONNREFUSED", first.code)
        assert.equal(address, first.address)
        assert.is_nil(first.errors)
        assert.equal(fds, proc.descriptors())
      end
      local nothing, e = socket.try_create_connection(address)
      assert.is_nil(nothing)
      assert.equal("ECONNREFUSED", e.errors[1].code)
    end)

    it("gives up when the time is up", function()
      local address = stuck "127.0.0.1"
      local fds = proc.settled_descriptors()
      for _, timeout in ipairs {0.02, 0.15} do
        local e
        local t = took(function()
          e = fails(socket.timeout, "ETIMEDOUT", socket.create_connection, address, timeout)
        end)
        assert.is_true(t >= timeout and t < timeout + 0.4, t)
        assert.equal(1, #e.errors)
        assert.equal(socket.timeout, e.errors[1].class)
        assert.equal(address, e.errors[1].address)
        assert.equal(fds, proc.descriptors())
      end
    end)

    it("with a timeout of 0 has no time for more than a try", function()
      local server <close> = listener "127.0.0.1"
      local fds = proc.settled_descriptors()
      for _, host in ipairs {"127.0.0.1", ""} do
        local e = fails(socket.error, "EINPROGRESS", socket.create_connection, {host, server:getsockname().port}, 0)
        assert.is_true(#e.errors >= 1)
        assert.equal(fds, proc.descriptors())
      end
    end)

    it("can start from a given address", function()
      local server <close> = listener "127.0.0.1"
      local address = server:getsockname()
      local free = nobody "127.0.0.1".port
      local s <close> = socket.create_connection(address, 5, {source_address = {"127.0.0.1", free}})
      assert.equal(free, s:getsockname().port)
      for _, source in ipairs {{"127.0.0.2", 0}, {host = "127.0.0.2", port = 0}, {"", 0}, {"localhost", 0}} do
        local c <close> = socket.create_connection(address, nil, {source_address = source})
        assert.equal(source[1] == "127.0.0.2" and "127.0.0.2" or c:getsockname().host, c:getsockname().host)
      end
      local fds = proc.settled_descriptors()
      for code, source in pairs {
        EADDRINUSE = address, EADDRNOTAVAIL = {"192.0.2.1", 0},
      } do
        local e = fails(socket.error, code, socket.create_connection, address, 5, {source_address = source})
        assert.equal(code, e.errors[1].code)
        assert.equal(address, e.errors[1].address)
        assert.equal(fds, proc.descriptors())
      end
    end)

    it("does not reach the other family from there", function()
      local server <close> = listener "::1"
      for _, source in ipairs {{"127.0.0.1", 0}, {host = "127.0.0.1", port = 0}} do
        local options = {source_address = source}
        fails(socket.error, "EADDRNOTAVAIL", socket.create_connection, server:getsockname(), 5, options)
      end
      for _, source in ipairs {{"::1", 0}, {"www.test", 0}} do -- names are not looked up here
        local options = {source_address = source}
        fails(socket.error, "EADDRNOTAVAIL", socket.create_connection, nobody "127.0.0.1", 5, options)
      end
    end)

    it("refuses wrong arguments before anything is done", function()
      local good = {"127.0.0.1", 1}
      local fds = proc.settled_descriptors()
      for _, case in ipairs {
        {"#1 .*table expected, got no value", n = 0},
        {"#1 .*table expected, got string", "127.0.0.1:80"},
        {"#1 .*host must be a string, got nil", {nil, 80}},
        {"#1 .*host must be a string, got number", {1, 80}},
        {"#1 .*host contains a zero byte", {"a\0b", 80}},
        {"#1 .*host is longer than", {("x"):rep(5000), 80}},
        {"#1 .*port must be an integer, got nil", {"127.0.0.1"}},
        {"#1 .*port must be an integer, got string", {"127.0.0.1", "80.5"}},
        {"#1 .*port must be an integer, got boolean", {"127.0.0.1", true}},
        {"#1 .*port contains a zero byte", {"127.0.0.1", "http\0"}},
        {"#1 .*port is longer than", {"127.0.0.1", ("x"):rep(1000)}},
        {"#1 .*flowinfo must be 0%-1048575", {"::1", 80, 1 << 20}},
        {"#1 .*scope_id must be an integer", {host = "::1", port = 80, scope_id = "lo"}},
        {"#1 .*port must be 0%-65535", {"127.0.0.1", 65536}},
        {"#2 .*number expected, got string", good, "soon"},
        {"#2 .*timeout must not be negative", good, -1},
        {"#2 .*timeout must not be negative or NaN", good, 0 / 0},
        {"#3 .*table expected, got number", good, 1, 2},
        {"#3 .*unknown option 'source'", good, 1, {source = good}},
        {"#3 .*unknown option '1'", good, 1, {good}},
        {"#3 .*source_address must be a table", good, 1, {source_address = "127.0.0.1"}},
        {"#3 .*host must be a string, got nil", good, 1, {source_address = {nil, 0}}},
        {"#3 .*host must be a string, got number", good, 1, {source_address = {1, 0}}},
        {"#3 .*scope_id must be an integer", good, 1, {source_address = {"::1", 0, 0, "lo"}}},
        {"#3 .*host contains a zero byte", good, 1, {source_address = {"\0", 0}}},
        {"#3 .*port must be an integer, got nil", good, 1, {source_address = {"127.0.0.1"}}},
        {"#3 .*port must be 0%-65535", good, 1, {source_address = {"127.0.0.1", 70000}}},
      } do
        for _, f in ipairs {socket.create_connection, socket.try_create_connection} do
          local ok, message = pcall(f, table.unpack(case, 2, 1 + (case.n or 3)))
          assert.is_false(ok)
          assert.is_string(message)
          assert.matches("bad argument " .. case[1], message)
        end
      end
      assert.equal(fds, proc.descriptors())
    end)
  end)

  describe("create_connection to an address with a scope", function()
    it_in_net("keeps it, as every function that takes an address does", function()
      local lo = socket.if_nametoindex "lo"
      local server <close> = socket.create_server({"fe80::1", 0, 0, lo}, {family = socket.AF_INET6})
      local address = server:getsockname()
      assert.equal(lo, address.scope_id)
      for _, form in ipairs {
        address,
        {host = "fe80::1", port = address.port, scope_id = lo},
        {"fe80::1%lo", address.port},
        {"fe80::1%lo", address.port, 0, 77}, -- that in the host counts
      } do
        local s <close> = socket.create_connection(form, 5)
        assert.equal(address, s:getpeername())
      end
      local s <close> = socket.create_connection(address, 5, {source_address = {"fe80::2", 0, 0, lo}})
      assert.same({"fe80::2", lo}, {s:getsockname().host, s:getsockname().scope_id})
      assert.equal("fe80::1%lo", (socket.getnameinfo(address, socket.NI_NUMERICHOST)))
    end)

    it_in_net("gives it to what a name means, and the flowinfo too", function()
      local lo = socket.if_nametoindex "lo"
      local server <close> = socket.create_server({"fe80::1", 0, 0, lo}, {family = socket.AF_INET6})
      local port = server:getsockname().port
      for _, name in ipairs {"link.test", "links.test"} do -- one address, and two
        local s <close> = socket.create_connection({name, port, 0x12345, lo}, 5)
        assert.same({"fe80::1", lo}, {s:getpeername().host, s:getpeername().scope_id})
        local _, e = socket.try_create_connection({name, 1, 0x12345, lo}, 5)
        local six = e.errors[1].address.flowinfo and e.errors[1] or e.errors[2]
        assert.equal("[fe80::1%lo]:1", tostring(six.address))
        assert.equal(0x12345, six.address.flowinfo)
      end
    end)
  end)

  describe("create_connection to a port of its own", function()
    it_in_net("does not connect to itself", function()
      local function range(text)
        local f <close> = assert(io.open("/proc/sys/net/ipv4/ip_local_port_range", text and "w" or "r"))
        return text and f:write(text) or f:read "a"
      end
      local former = range()
      local _ <close> = setmetatable({}, {__close = function() range(former) end})
      range "40000 40000"
      local fds = proc.settled_descriptors()
      for _, host in ipairs {"127.0.0.1", "::1", "both.test"} do
        for _, timeout in ipairs {false, 5} do
          local e = fails(socket.error, "ECONNREFUSED", socket.create_connection, {host, 40000}, timeout or nil)
          assert.equal(host == "both.test" and 2 or 1, #e.errors)
          assert.equal("ECONNREFUSED", e.errors[1].code)
          assert.equal(fds, proc.descriptors())
        end
      end
      local results = tasks.run {function() return socket.try_create_connection({"both.test", 40000}, 5) end}
      assert.equal("ECONNREFUSED", results[1][3].code)
    end)

    it_in_net("does if that is what it is told to do", function()
      local here = {"127.0.0.1", 40001}
      local s <close> = socket.create_connection(here, 5, {source_address = here})
      assert.equal(s:getsockname(), s:getpeername())
      s:sendall "echo"
      assert.equal("echo", s:recv(10))
    end)
  end)

  it_in_net("create_connection takes the name of a service for its port", function()
    if not socket.try_getservbyname "http" then return end
    local server <close> = listener("127.0.0.1", socket.getservbyname "http")
    local s <close> = socket.create_connection({"127.0.0.1", "http"}, 5)
    assert.equal(server:getsockname(), s:getpeername())
    local e = fails(socket.gaierror, "EAI_SERVICE", socket.create_connection, {"127.0.0.1", "no-such-service"}, 5)
    assert.equal("no-such-service", e.address[2])
    assert.has_error(function() socket.create_connection({"127.0.0.1", ""}, 5) end)
  end)

  -- Whatever ends a call, its sockets are closed with it; nobody has to wait for the collector.
  describe("a create_connection or create_server that is given up", function()
    local loop = require "socket.loop"

    -- Both ways to connect, and a server whose name nobody knows.
    local function calls()
      local port = stuck "::1".port
      stuck("127.0.0.1", port)
      return {
        function() socket.create_connection {"127.0.0.1", port} end,
        function() socket.create_connection {"both.test", port} end,
        function() socket.create_connection {"silent.test", port} end,
        function() socket.create_server {"silent.test", 0} end,
      }
    end

    -- Descriptors of this process that are sockets of TCP or of lookups; the resolver's own are UDP.
    local function open()
      local n = 0
      for fd = 0, 200 do
        local ok, s = pcall(socket.fromfd, fd, -1, -1)
        if ok then
          local type = s:try_getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
          if type == socket.SOCK_STREAM then n = n + 1 end
          s:close()
        end
      end
      return n
    end

    it_in_net("closes its sockets when loop.timeout or cancel ends it", function()
      for i, f in ipairs(calls()) do
        collectgarbage()
        collectgarbage()
        collectgarbage "stop"
        local before = open()
        loop.run(function()
          local ok, e = pcall(loop.timeout, 0.05, f)
          assert.is_false(ok)
          assert.equal(socket.timeout, e.class)
          assert.equal(before, open(), "timeout " .. i)
          local task = loop.spawn(f)
          socket.sleep(0.05)
          assert.is_true(open() > before)
          task:cancel()
          pcall(task.join, task)
          assert.equal(before, open(), "cancel " .. i)
        end)
        collectgarbage "restart"
      end
    end)

    it_in_net("tells the errors there were until then, if the error thrown into it can carry them", function()
      local port = stuck("127.0.0.1").port          -- nobody at ::1
      local _, thrown = socket.try_socket(1000)
      local waits = 0
      local former = socket.setwaithook(function()
        waits = waits + 1
        if waits > 2 then error(thrown) end         -- the library waits for the lookup, and for the refusal
      end)
      local ok, e = coroutine.wrap(pcall)(socket.create_connection, {"both.test", port}, 5)
      socket.setwaithook(former)
      assert.is_false(ok)
      assert.equal(thrown, e)
      assert.equal("[::1]:" .. port, tostring(e.errors[1].address))
      assert.equal("ECONNREFUSED", e.errors[1].code)
      assert.equal("ECANCELED", e.errors[2].code)
    end)

    it_in_net("tells them when loop.timeout ends it", function()
      local port = stuck("127.0.0.1").port          -- nobody at ::1
      loop.run(function()
        local ok, e = pcall(loop.timeout, 0.1, socket.create_connection, {"both.test", port})
        assert.is_false(ok)
        assert.equal(socket.timeout, e.class)
        assert.equal(2, #e.errors)
        assert.equal("[::1]:" .. port, tostring(e.errors[1].address))
        assert.equal("ECONNREFUSED", e.errors[1].code)
      end)
    end)

    it_in_net("closes its sockets when its coroutine is closed, or the wait hook raises an error", function()
      for i, f in ipairs(calls()) do
        for _, how in ipairs {"close", "error"} do
          collectgarbage()
          collectgarbage()
          collectgarbage "stop"
          local before, skip = open(), i == 2 and 1 or 0 -- both.test's lookup
          local former = socket.setwaithook(function()
            if skip > 0 then
              skip = skip - 1
              return nil
            end
            assert.is_true(open() > before)
            if how == "error" then error "enough" end
            return coroutine.yield()
          end)
          local co = coroutine.create(f)
          assert.equal(how == "close", (coroutine.resume(co)))
          socket.setwaithook(former)
          coroutine.close(co)
          assert.equal(before, open(), how .. i)
          collectgarbage "restart"
        end
      end
    end)
  end)

  describe("create_connection to a name with several addresses", function()
    it_in_net("tries the next one after a quarter of a second if nothing is heard from the first", function()
      for _, timeout in ipairs {false, 5} do
        local first = stuck "::1"
        local _ <close> = listener("127.0.0.1", first.port)
        assert.equal("::1", addresses("both.test", 1)[1].host)
        local fds = proc.settled_descriptors()
        local s
        local t = took(function() s = socket.create_connection({"both.test", first.port}, timeout or nil) end)
        assert.equal("127.0.0.1", s:getpeername().host)
        assert.is_true(t >= 0.25 and t < 0.6, t)
        assert.equal(timeout or nil, s:gettimeout())
        assert.equal(fds + 1, proc.descriptors())
        s:close()
      end
    end)

    it_in_net("tries the next one at once if the first refuses", function()
      local server <close> = listener "127.0.0.1"
      local fds = proc.settled_descriptors()
      for _, timeout in ipairs {false, 5} do
        local s
        local t = took(function()
          s = socket.create_connection({"both.test", server:getsockname().port}, timeout or nil)
        end)
        assert.equal("127.0.0.1", s:getpeername().host)
        assert.is_true(t < 0.2, t)
        s:close()
        assert.equal(fds, proc.descriptors())
      end
    end)

    it_in_net("is content with the first that answers", function()
      local server <close> = listener "::1"
      local other <close> = listener("127.0.0.1", server:getsockname().port)
      local s <close> = socket.create_connection({"both.test", server:getsockname().port}, 5)
      assert.equal("::1", s:getpeername().host)
      other:settimeout(0.05)
      fails(socket.timeout, "ETIMEDOUT", other.accept, other)
    end)

    it_in_net("takes the first after all if it is the one that answers in the end", function()
      local name = "127.0.0.1"
      local full <close> = socket.create_server({name, 0}, {backlog = 0})
      local port = full:getsockname().port
      local waiting = {}
      for i = 1, 2 do
        waiting[i] = socket.socket()
        waiting[i]:settimeout(0)
        waiting[i]:try_connect(full:getsockname())
      end
      local order = addresses("three.test", port)
      assert.equal(name, order[1].host)
      for i = 2, 3 do stuck(order[i].host, port) end
      -- The system repeats its request after a second; by then there is room.
      local results = tasks.run {
        function() return socket.create_connection({"three.test", port}, 5) end,
        function()
          socket.sleep(0.6)
          full:accept():close()
          full:accept():close()
        end,
      }
      assert.is_true(results[1][1], tostring(results[1][2]))
      assert.equal(name, results[1][2]:getpeername().host)
    end)

    it_in_net("lists one error for each address, in the order they were tried", function()
      local order = addresses("five.test", 1)
      assert.equal(5, #order)
      for i = 2, 4 do assert.not_equal(order[i - 1].family, order[i].family) end
      local fds = proc.settled_descriptors()
      for _, timeout in ipairs {false, 5} do
        local e = fails(socket.error, "ECONNREFUSED", socket.create_connection, {"five.test", 1}, timeout or nil)
        assert.same({"five.test", 1}, e.address)
        local tried = {}
        for i, each in ipairs(e.errors) do
          assert.equal("ECONNREFUSED", each.code)
          assert.equal("connect", each.op)
          tried[i] = each.address
        end
        assert.same(texts(order), texts(tried))
        assert.equal(fds, proc.descriptors())
      end
    end)

    it_in_net("tells what is wrong with each, and raises what was wrong with the last", function()
      local e = fails(socket.error, "ENETUNREACH", socket.create_connection, {"far.test", 1}, 5)
      local codes = {}
      for _, each in ipairs(e.errors) do codes[each.address.host] = each.code end
      assert.same({["fd99::1"] = "ENETUNREACH", ["10.99.99.99"] = "ENETUNREACH", ["127.0.0.1"] = "ECONNREFUSED"}, codes)
      assert.equal(e.errno, e.errors[3].errno)
    end)

    it_in_net("has one deadline for all of them", function()
      local port = stuck "fd00::1".port
      for _, host in ipairs {"fd00::2", "fd00::3", "127.0.0.2", "127.0.0.3"} do stuck(host, port) end
      local fds = proc.settled_descriptors()
      local e
      local t = took(function()
        e = fails(socket.timeout, "ETIMEDOUT", socket.create_connection, {"five.test", port}, 0.6)
      end)
      assert.is_true(t >= 0.6 and t < 1, t)
      assert.equal(fds, proc.descriptors())
      assert.is_true(#e.errors >= 2 and #e.errors <= 3, #e.errors) -- begun at 0, 0.25 and 0.5 s
      local order = texts(addresses("five.test", port))
      for i, each in ipairs(e.errors) do
        assert.equal(socket.timeout, each.class)
        assert.equal(order[i], tostring(each.address))
      end
    end)

    it_in_net("has the same deadline for the lookup", function()
      local port = stuck "::1".port
      stuck("127.0.0.1", port)
      local t = took(fails, socket.timeout, "ETIMEDOUT", socket.create_connection, {"slow.test", port}, 0.3)
      assert.is_true(t >= 0.3 and t < 0.44, t)
      local e
      t = took(function()
        e = fails(socket.timeout, "ETIMEDOUT", socket.create_connection, {"silent.test", port}, 0.1)
      end)
      assert.is_true(t >= 0.1 and t < 0.4, t)
      assert.equal("silent.test", e.address[1])
      assert.is_nil(e.errors)
    end)

    it_in_net("starts from the given address where it can", function()
      local server <close> = listener("::1")
      local port = server:getsockname().port
      local _ <close> = listener("127.0.0.1", port)
      local s <close> = socket.create_connection({"both.test", port}, 5, {source_address = {"127.0.0.3", 0}})
      assert.equal("127.0.0.3", s:getsockname().host)
      local e = fails(socket.error, "EADDRNOTAVAIL", socket.create_connection, {"both.test", port}, 5,
        {source_address = {"192.0.2.1", 0}})
      assert.equal(2, #e.errors)
    end)

    it_in_net("lets other coroutines run meanwhile", function()
      local first = stuck "::1"
      local _ <close> = listener("127.0.0.1", first.port)
      local fds = proc.settled_descriptors()
      local ticks, done = 0, false
      local results = tasks.run {
        function()
          local s <close> = socket.create_connection({"both.test", first.port}, 5)
          done = true
          return s:getpeername().host
        end,
        function()
          while not done do
            ticks = ticks + 1
            socket.sleep(0.01)
          end
        end,
        function() return socket.try_create_connection({"five.test", 1}, 5) end,
        function()
          stuck("127.0.0.2", first.port)
          return socket.try_create_connection({"127.0.0.2", first.port}, 0.1)
        end,
      }
      assert.same({true, "127.0.0.1"}, {results[1][1], results[1][2]})
      assert.is_true(ticks > 5, ticks)
      assert.equal(5, #results[3][3].errors)
      assert.equal("ETIMEDOUT", results[4][3].errors[1].code)
      assert.equal(fds + 4, proc.descriptors())     -- those of the second stuck()
    end)

    it_in_net("gives everything back when its coroutine ends early", function()
      local port = stuck "::1".port
      stuck("127.0.0.1", port)
      local fds = proc.settled_descriptors()
      for _, how in ipairs {"closed", "forgotten", "failed"} do
        local task = {coroutine.create(function() socket.create_connection {"both.test", port} end)}
        local former = socket.setwaithook(function(_, _, seconds)
          if not seconds then return nil end        -- the lookup: the library waits
          if how == "failed" then error "enough" end
          coroutine.yield()
        end)
        local ok = coroutine.resume(task[1])
        assert.equal(how ~= "failed", ok)
        socket.setwaithook(former)
        assert.is_true(proc.descriptors() > fds)
        if how == "closed" then coroutine.close(task[1]) end
        task[1] = nil
        collectgarbage()
        collectgarbage()
        assert.equal(fds, proc.descriptors(), how)
      end
    end)

    it_in_net("does without what it may not open", function()
      local port = stuck "::1".port
      local _ <close> = listener("127.0.0.1", port)
      local s <close> = socket.create_connection({"both.test", port}, 5)
      assert.equal("127.0.0.1", s:getpeername().host)
      local results = tasks.run {function() return socket.create_connection({"both.test", port}, 5) end}
      assert.equal("127.0.0.1", results[1][2]:getpeername().host)
      results[1][2]:close()
    end, "strace -qq -f -o /dev/null -e inject=epoll_create1:error=EMFILE")

    it_in_net("watches its attempts itself where nothing does it together", function()
      local port = stuck "::1".port
      local _ <close> = listener("127.0.0.1", port)
      local s <close> = socket.create_connection({"both.test", port}, 5)
      assert.equal("127.0.0.1", s:getpeername().host)
    end, "strace -qq -f -o /dev/null -e inject=epoll_ctl:error=ENOSPC")

    it_in_net("says so when there is no descriptor for any of them", function()
      local held = {}
      for i = 1, 100 do
        held[i] = socket.try_socket()
        if not held[i] then break end
      end
      local e = fails(socket.error, "EMFILE", socket.create_connection, {"", 1})
      assert.equal(2, #e.errors)
      assert.equal("EMFILE", e.errors[2].code)
      e = fails(socket.error, "EMFILE", socket.create_connection, {"127.0.0.1", 1})
      assert.equal(1, #e.errors)
      assert.equal("127.0.0.1:1", tostring(e.errors[1].address))
      e = fails(socket.error, "EMFILE", socket.create_server, {"127.0.0.1", 0})
      assert.equal("create_server", e.op)
    end, "prlimit --nofile=32")

    it_in_net("takes descriptors back from garbage", function()
      local server <close> = listener "127.0.0.1"
      collectgarbage "stop"
      local function fill() repeat local last = socket.socket():fileno() until last == 31 end
      for _, host in ipairs {"127.0.0.1", ""} do
        fill()
        local s <close> = socket.create_connection {host, server:getsockname().port}
        assert.equal(server:getsockname(), s:getpeername())
      end
      fill()
      local other <close> = listener "127.0.0.1"
      assert.not_equal(server:getsockname(), other:getsockname())
    end, "prlimit --nofile=32")
  end)

  describe("create_server", function()
    it("gives a listening socket, which may be bound again at once", function()
      local server = socket.create_server {"127.0.0.1", 0}
      local address = server:getsockname()
      assert.equal(socket.AF_INET, server.family)
      assert.equal(socket.SOCK_STREAM, server.type)
      assert.is_nil(server:gettimeout())
      local _ <close> = socket.create_connection(address)
      local conn = server:accept()
      conn:close()                                  -- first, so that its port stays in TIME_WAIT
      server:close()
      local again <close> = socket.create_server(address)
      assert.equal(address, again:getsockname())
    end)

    it("listens on IPv6 alone, or on both", function()
      assert.is_true(socket.has_dualstack_ipv6())
      local six <close> = socket.create_server({"", 0}, {family = socket.AF_INET6})
      local port = six:getsockname().port
      assert.equal("::", six:getsockname().host)
      fails(socket.error, "ECONNREFUSED", socket.create_connection, {"127.0.0.1", port})
      local a <close> = socket.create_connection {"::1", port}
      assert.equal("::1", a:getpeername().host)

      local both <close> = socket.create_server({"", 0}, {family = socket.AF_INET6, dualstack_ipv6 = true})
      port = both:getsockname().port
      local b <close> = socket.create_connection {"127.0.0.1", port}
      local conn <close>, peer = both:accept()
      assert.equal("::ffff:127.0.0.1", peer.host)
      conn:sendall "hi"
      assert.equal("hi", b:recv(10))
      local c <close> = socket.create_connection {"::1", port}
      assert.equal("::1", c:getpeername().host)
    end)

    it("shares a port if all agree", function()
      local a <close> = socket.create_server({"127.0.0.1", 0}, {reuse_port = true})
      local b <close> = socket.create_server(a:getsockname(), {reuse_port = true})
      assert.equal(a:getsockname(), b:getsockname())
      fails(socket.error, "EADDRINUSE", socket.create_server, a:getsockname())
    end)

    it("bounds the queue of those who wait", function()
      local server <close> = socket.create_server({"127.0.0.1", 0}, {backlog = 0})
      local _ <close> = socket.create_connection(server:getsockname(), 5)
      local more <close> = socket.socket()
      more:settimeout(0.05)
      local one = more:try_connect(server:getsockname())
      local last <close> = socket.socket()
      last:settimeout(0.05)
      assert.is_nil(one and last:try_connect(server:getsockname()) or nil)
      for _, backlog in ipairs {-1, 1, 1 << 40} do
        local s <close> = socket.create_server({"127.0.0.1", 0}, {backlog = backlog})
        local c <close> = socket.create_connection(s:getsockname(), 5)
        assert.equal(s:getsockname(), c:getpeername())
      end
    end)

    it("listens on Unix sockets too", function()
      local path = os.tmpname()
      os.remove(path)
      local _ <close> = socket.create_server(path, {family = socket.AF_UNIX})
      local c <close> = socket.socket(socket.AF_UNIX):connect(path)
      assert.equal(path, c:getpeername())
      local e = fails(socket.error, "EADDRINUSE", socket.create_server, path, {family = socket.AF_UNIX})
      assert.equal(path, e.address)
      os.remove(path)
    end)

    it("takes the default timeout", function()
      socket.setdefaulttimeout(0)
      local ok, server = pcall(socket.create_server, {"127.0.0.1", 0})
      socket.setdefaulttimeout(nil)
      assert(ok, server)
      assert.equal(0, server:gettimeout())
      fails(socket.error, "EAGAIN", server.accept, server)
      server:close()
    end)

    it("says which address is taken, and leaves no descriptor", function()
      local server <close> = listener "127.0.0.1"
      local fds = proc.settled_descriptors()
      local e = fails(socket.error, "EADDRINUSE", socket.create_server, server:getsockname())
      assert.equal("create_server", e.op)
      assert.equal(server:getsockname(), e.address)
      assert.is_truthy(tostring(e):find("create_server " .. tostring(server:getsockname()) .. ": ", 1, true))
      e = fails(socket.error, "EADDRNOTAVAIL", socket.create_server, {"192.0.2.1", 0})
      assert.equal("192.0.2.1", e.address[1])
      local nothing, again = socket.try_create_server(server:getsockname())
      assert.is_nil(nothing)
      assert.equal("EADDRINUSE", again.code)
      assert.equal(fds, proc.descriptors())
    end)

    it("says what the system cannot do, and leaves no descriptor", function()
      local fds = proc.settled_descriptors()
      local e = fails(socket.error, "EAFNOSUPPORT", socket.create_server, {1000, "x"}, {family = 1000})
      assert.equal("create_server", e.op)
      if socket.AF_NETLINK then                     -- which has no streams
        fails(socket.error, "ESOCKTNOSUPPORT", socket.create_server, {0, 0}, {family = socket.AF_NETLINK})
      end
      assert.equal(fds, proc.descriptors())
    end)

    it_in_net("fails where an option is refused", function()
      assert.is_false(socket.has_dualstack_ipv6())
      local fds = proc.settled_descriptors()
      for _, options in ipairs {
        {reuse_port = true}, {family = socket.AF_INET6}, {family = socket.AF_INET6, dualstack_ipv6 = true},
      } do
        fails(socket.error, "ENOPROTOOPT", socket.create_server, {"", 0}, options)
      end
      assert.equal(fds, proc.descriptors())
      local server <close> = socket.create_server {"", 0} -- SO_REUSEADDR is a wish
      assert.is_true(server:getsockname().port > 0)
    end, "strace -qq -o /dev/null -e inject=setsockopt:error=ENOPROTOOPT")

    it_in_net("fails where listening is refused", function()
      local fds = proc.settled_descriptors()
      local e = fails(socket.error, "EADDRINUSE", socket.create_server, {"127.0.0.1", 0})
      assert.equal("127.0.0.1", e.address[1])
      local s <close> = socket.socket()
      e = fails(socket.error, "EADDRINUSE", s.listen, s)
      assert.equal("listen", e.op)
      assert.equal(fds + 1, proc.descriptors())
    end, "strace -qq -o /dev/null -e inject=listen:error=EADDRINUSE")

    it_in_net("knows a machine without IPv6", function()
      assert.is_false(socket.has_dualstack_ipv6())
      assert.is_false((pcall(socket.create_server, {"", 0}, {family = socket.AF_INET6})))
    end, "strace -qq -o /dev/null -e inject=socket:error=EAFNOSUPPORT")

    it("refuses wrong arguments before anything is done", function()
      local fds = proc.settled_descriptors()
      local good = {"127.0.0.1", 0}
      for _, case in ipairs {
        {"#1 .*value expected", n = 0},
        {"#1 .*table expected, got string", "127.0.0.1:80"},
        {"#1 .*port must be 0%-65535", {"127.0.0.1", 65536}},
        {"#1 .*host contains a zero byte", {"\0", 80}},
        {"#1 .*string expected, got boolean", true, {family = socket.AF_UNIX}},
        {"#1 .*path is longer", ("x"):rep(200), {family = socket.AF_UNIX}},
        {"#2 .*table expected, got number", good, 5},
        {"#2 .*unknown option 'reuseport'", good, {reuseport = true}},
        {"#2 .*unknown option '1'", good, {socket.AF_INET}},
        {"#2 .*unknown option 'true'", good, {[true] = 1}},
        {"#2 .*family must be an integer", good, {family = "inet"}},
        {"#2 .*family does not fit a C int", good, {family = 1 << 40}},
        {"#2 .*family does not fit a C int", good, {family = -1}},
        {"#2 .*backlog must be an integer", good, {backlog = "x"}},
        {"#2 .*backlog must be an integer", good, {backlog = 1.5}},
        {"#2 .*dualstack_ipv6 requires family AF_INET6", good, {dualstack_ipv6 = true}},
      } do
        for _, f in ipairs {socket.create_server, socket.try_create_server} do
          local ok, message = pcall(f, table.unpack(case, 2, 1 + (case.n or 2)))
          assert.is_false(ok)
          assert.is_string(message)
          assert.matches("bad argument " .. case[1], message)
        end
      end
      assert.equal(fds, proc.descriptors())
    end)
  end)
end)
