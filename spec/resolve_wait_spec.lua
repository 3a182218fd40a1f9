-- Lookups that wait: in threads, in coroutines, and such as nobody waits for any more.
-- They run in a network of their own, where a name server of ours answers.

local check = require "spec.support.check"
local helper = require "spec.helper"
local netns = require "spec.support.netns"
local proc = require "spec.support.proc"
local socket = require "socket"
local tasks = require "spec.support.tasks"

local fails, took, eventually = check.fails, check.took, check.eventually

-- luacheck: globals asked

local zone = {
  ["www.test"] = {A = {"127.0.0.1"}},
  ["both.test"] = {A = {"127.0.0.1", "127.0.0.2"}, AAAA = {"::1"}},
  ["slow.test"] = {A = {"127.0.0.1"}, delay = 0.15},
  ["late.test"] = {A = {"127.0.0.1"}, delay = 0.4},
  ["silent.test"] = {silent = true},
  ["1.1.1.10.in-addr.arpa"] = {PTR = {"ten.example.test"}},
}
for i = 1, 40 do zone[("n%d.test"):format(i)] = {A = {"10.2.0." .. i}, delay = 0.05} end

local net = netns.new {zone = zone, hosts = "10.0.0.7 seven.example.test seven lucky\n"}

-- A test that runs where names are known.
local function it_in_net(text, f, before) it(text, net:inside(f, before)) end

describe("names:", function()
  teardown(function() net:stop() end)

  describe("threads", function()
    -- Runs f under strace(1); returns how many threads it began.
    local function count_threads(f)
      if not os.execute "command -v strace >/dev/null" then pending "needs strace" end
      local trace = os.tmpname()
      net:inside(f, "strace -f -qq -e trace=clone,clone3 -o " .. trace)()
      local n = 0
      for line in io.lines(trace) do
        if line:find "CLONE_THREAD" then n = n + 1 end
      end
      os.remove(trace)
      return n
    end

    it("are not used for numeric hosts and localhost", function()
      assert.equal(0, count_threads(function()
        socket.setdefaulttimeout(5)
        local server <close> = socket.create_server {"localhost", 0}
        local port = server:getsockname().port
        for _, host in ipairs {"127.0.0.1", "localhost", "127.1", "0x7f.0.0.1", 0x7F000001, ""} do
          socket.socket():bind({host, 0}):close()
          socket.socket():connect({host, port}):close()
          local u <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
          u:sendto("x", {host, 9})
          if math.type(host) ~= "integer" then
            socket.create_connection({host == "localhost" and "127.0.0.1" or host, port}):close()
            socket.gethostbyname(host)
          end
        end
        for _, host in ipairs {"::1", "localhost", "::ffff:127.0.0.1", ""} do
          local s <close> = socket.socket(socket.AF_INET6)
          fails(socket.error, "ECONNREFUSED", s.connect, s, {host, 1})
        end
        socket.getaddrinfo("127.0.0.1", 80)
        socket.getaddrinfo("::1", 80)
        socket.getaddrinfo(nil, 80)
        socket.try_getaddrinfo("www.test", 80, {flags = socket.AI_NUMERICHOST})
        socket.try_getaddrinfo("::1", 80, socket.AF_INET)
        socket.gethostbyname_ex "127.0.0.1"
        socket.getnameinfo({"10.1.1.1", 80}, socket.NI_NUMERICHOST)
        local results = tasks.run {function() return socket.create_connection {"127.0.0.1", port} end}
        assert.is_true(results[1][1])
        results[1][2]:close()
        assert.same({}, asked())
      end))
    end)

    it("are not used without a timeout, and once for each lookup with one", function()
      assert.equal(2, count_threads(function()
        socket.gethostbyname "www.test"
        socket.getaddrinfo("both.test", 80)
        socket.setdefaulttimeout(5)
        socket.gethostbyname "www.test"
        socket.getaddrinfo("both.test", 80)
      end))
    end)

    it_in_net("are at most sixteen, however many lookups there are", function()
      local most, list = 0, {}
      for i = 1, 40 do
        list[i] = function()
          local address = socket.gethostbyname(("n%d.test"):format(i))
          most = math.max(most, proc.threads())
          return address
        end
      end
      local results = tasks.run(list)
      for i = 1, 40 do
        assert.same({true, "10.2.0." .. i}, {results[i][1], results[i][2]})
      end
      assert.is_true(most <= 17, most)
      assert.is_number(eventually(2, function() return proc.threads() == 1 end))
    end)

    it_in_net("that are kept waiting hold up no deadline, and end with the answer", function()
      socket.setdefaulttimeout(0.1)
      local fds = proc.settled_descriptors()
      local list, most = {}, 0
      for i = 1, 30 do list[i] = function() return socket.gethostbyname "late.test" end end
      list[31] = function()
        socket.sleep(0.05)
        most = proc.threads()
      end
      local t = took(function()
        for i, r in ipairs(tasks.run(list)) do
          if i <= 30 then
            assert.is_false(r[1])
            assert.equal(socket.timeout, r[2].class)
          end
        end
      end)
      assert.is_true(t >= 0.1 and t < 0.6, t)
      assert.is_true(most > 1 and most <= 17, most)
      assert.is_number(eventually(2, function() return proc.threads() == 1 end))
      assert.equal(fds, proc.descriptors())
    end)

    it_in_net("that cannot be had are an error of the operation", function()
      socket.setdefaulttimeout(5)
      local fds = proc.settled_descriptors()
      local e = fails(socket.error, "EAGAIN", socket.gethostbyname, "www.test")
      assert.equal("gethostbyname", e.op)
      assert.equal(fds, proc.descriptors())
      assert.equal("127.0.0.1", socket.gethostbyname "127.0.0.1")
    end, "strace -f -qq -o /dev/null -e inject=clone3,clone:error=EAGAIN")

    it_in_net("and descriptors that cannot be had are errors that say so", function()
      local held = {}
      for i = 1, 100 do
        held[i] = socket.try_socket()
        if not held[i] then break end
      end
      local s = held[1]
      s:settimeout(5)
      local e = fails(socket.error, "EMFILE", s.connect, s, {"www.test", 80})
      assert.equal("connect", e.op)
      for _, h in ipairs(held) do h:close() end
    end, "prlimit --nofile=32")

    it_in_net("are told when the C library has no descriptor for its question", function()
      for _, timeout in ipairs {false, 5} do
        socket.setdefaulttimeout(timeout or nil)
        for _, f in ipairs {
          function() return socket.try_getaddrinfo("www.test", 80) end,
          function() return socket.try_gethostbyname "www.test" end,
          function() return socket.try_gethostbyname_ex "www.test" end,
          function() return socket.try_gethostbyaddr "10.1.1.1" end,
          function() return socket.try_getnameinfo({"10.1.1.1", 80}, socket.NI_NAMEREQD) end,
        } do
          local nothing, e = f()                    -- glibc says one thing or another, but it says something
          assert.is_nil(nothing)
          assert.not_equal(0, e.errno)
          assert.is_string(e.code)
          assert.not_equal("Success", e.message)
        end
      end
    end, "strace -f -qq -o /dev/null -e inject=socket:error=EMFILE")

    it_in_net("and garbage makes room for what a lookup needs", function()
      socket.setdefaulttimeout(5)
      collectgarbage "stop"
      repeat local last = socket.socket():fileno() until last == 31
      assert.equal("127.0.0.1", socket.gethostbyname "www.test")
    end, "prlimit --nofile=32")
  end)

  describe("lookups that nobody waits for any more, or that nobody answers,", function()
    -- Begins n lookups that nobody answers, and gives them up.
    local function abandon(n)
      for _ = 1, n do
        local co, waits = tasks.begin(function() socket.gethostbyname "silent.test" end)
        assert.is_true(waits)
        coroutine.close(co)
      end
    end

    it_in_net("do not hold up others", function()
      local fds = proc.settled_descriptors()
      socket.setdefaulttimeout(5)
      for _ = 1, 3 do
        abandon(16)
        local t = took(function() assert.equal("127.0.0.1", socket.gethostbyname "www.test") end)
        assert.is_true(t < 1, t)
      end
      local list = {}
      for i = 1, 30 do list[i] = function() return socket.gethostbyname "slow.test" end end
      local t = took(function()
        for _, r in ipairs(tasks.run(list)) do assert.same({true, "127.0.0.1"}, {r[1], r[2]}) end
      end)
      assert.is_true(t < 3, t)
      assert.is_true(proc.descriptors() <= fds + 3 * 16)
    end)

    it_in_net("do not hold up names that files have", function()
      local waiting = {}
      for i = 1, 20 do waiting[i] = tasks.begin(function() socket.gethostbyname "silent.test" end) end
      local t = took(function()
        local results = tasks.run {
          function() return socket.gethostbyname "lucky" end,
          function() return socket.gethostbyname "seven" end,
          function() return socket.gethostbyname "localhost." end,
        }
        for i, r in ipairs(results) do
          assert.same({true, i == 3 and "127.0.0.1" or "10.0.0.7"}, {r[1], r[2]})
        end
      end)
      assert.is_true(t < 3, t)
      for _, co in ipairs(waiting) do coroutine.close(co) end
    end)

    it_in_net("are bounded in their threads, 128 for a Lua state, however many they are", function()
      local fds = proc.settled_descriptors()
      local most = 0
      for _ = 1, 30 do
        abandon(100)
        most = math.max(most, proc.threads())
      end
      -- and this one, and a few that have given up their place and are about to end
      assert.is_true(most > 17 and most <= 129 + 8, most)
      assert.is_true(proc.descriptors() <= fds + 128) -- each the resolver's own
      assert.equal("127.0.0.1", socket.gethostbyname "127.1")
      assert.equal("127.0.0.1", socket.gethostbyname "localhost")
    end)
  end)

  describe("under a wait hook", function()
    it_in_net("other coroutines go on while a name is looked up", function()
      local ticks, done = 0, false
      local results = tasks.run {
        function()
          local address = socket.gethostbyname "slow.test"
          done = true
          return address
        end,
        function()
          while not done do
            ticks = ticks + 1
            socket.sleep(0.01)
          end
        end,
      }
      assert.same({true, "127.0.0.1"}, {results[1][1], results[1][2]})
      assert.is_true(ticks >= 3, ticks)
    end)

    it_in_net("every function that looks names up lets them", function()
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local port = server:getsockname().port
      local list = {
        function() return socket.getaddrinfo("slow.test", 80)[1].sockaddr.host end,
        function() return socket.gethostbyname "slow.test" end,
        function() return select(3, socket.gethostbyname_ex "slow.test")[1] end,
        function() return (socket.gethostbyaddr "slow.test") and "127.0.0.1" end,
        function() return socket.getfqdn "slow.test" and "127.0.0.1" end,
        function() return (socket.getnameinfo({"10.0.0.7", 1}, 0)) and "127.0.0.1" end,
        function()
          local s <close> = socket.socket():connect {"slow.test", port}
          return s:getpeername().host
        end,
        function()
          local s <close> = socket.socket()
          assert.equal(0, s:connect_ex {"slow.test", port})
          return s:getpeername().host
        end,
        function()
          local s <close> = socket.create_connection {"slow.test", port}
          return s:getpeername().host
        end,
        function()
          local s <close> = socket.socket():bind {"slow.test", 0}
          return s:getsockname().host
        end,
        function()
          local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
          assert.equal(1, s:sendto("x", {"slow.test", 9}))
          return "127.0.0.1"
        end,
        function()
          local s <close> = socket.create_server {"slow.test", 0}
          return s:getsockname().host
        end,
      }
      local t = took(function()
        for i, r in ipairs(tasks.run(list)) do
          assert.is_true(r[1], ("%d: %s"):format(i, r[2]))
          assert.equal("127.0.0.1", r[2])
        end
      end)
      assert.is_true(t < 1.2, t)                    -- not one after the other
    end)

    it_in_net("the timeout still counts", function()
      socket.setdefaulttimeout(0.1)
      local results
      local t = took(function()
        results = tasks.run {
          function() return socket.getaddrinfo("silent.test", 80) end,
          function() return socket.try_gethostbyname "silent.test" end,
        }
      end)
      assert.is_true(t >= 0.1 and t < 0.6, t)
      assert.equal(socket.timeout, results[1][2].class)
      assert.is_true(results[2][1])
      assert.equal(socket.timeout, results[2][3].class)
    end)

    it_in_net("a hook that does not want to wait leaves it to the library", function()
      socket.setwaithook(function(s, direction, seconds)
        assert.equal("r", direction)
        assert.is_true(s:fileno() >= 0)
        assert.is_nil(seconds)
        return nil
      end)
      local co = coroutine.wrap(function() return socket.gethostbyname "slow.test" end)
      assert.equal("127.0.0.1", co())
    end)

    it_in_net("an error of the hook ends the lookup", function()
      local fds = proc.settled_descriptors()
      socket.setwaithook(function() error "no more" end)
      local co = coroutine.wrap(function()
        local ok, message = pcall(socket.gethostbyname, "slow.test")
        assert.is_false(ok)
        assert.matches("no more", message)
      end)
      co()
      assert.is_number(eventually(2, function() return proc.threads() == 1 end))
      assert.equal(fds, proc.descriptors())
    end)

    it_in_net("a socket closed during its lookup is not connected", function()
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local s = socket.socket()
      local results = tasks.run {
        function() return s:try_connect {"slow.test", server:getsockname().port} end,
        function() s:close() end,
      }
      assert.is_nil(results[1][2])
      assert.equal("ECANCELED", results[1][3].code)
      assert.equal("connect", results[1][3].op)
    end)
  end)

  describe("an abandoned lookup", function()
    it_in_net("frees itself when its coroutine is closed", function()
      local fds = proc.settled_descriptors()
      local co, waits = tasks.begin(function() socket.gethostbyname "silent.test" end)
      assert.is_true(waits)
      assert.equal(2, proc.threads())
      assert.is_true(coroutine.close(co))
      assert.is_true(proc.descriptors() <= fds + 1) -- the resolver's own
      -- Nobody gave it a deadline, so the resolver takes its time: this process does not wait for it.
    end)

    it_in_net("frees itself when its coroutine is forgotten", function()
      local fds = proc.settled_descriptors()
      for _ = 1, 20 do
        local _, waits = tasks.begin(function() socket.gethostbyname "slow.test" end)
        assert.is_true(waits)
      end
      collectgarbage()
      collectgarbage()
      assert.is_number(eventually(2, function() return proc.threads() == 1 end))
      assert.equal(fds, proc.descriptors())
    end)

    it_in_net("frees itself when it is answered after all", function()
      local fds = proc.settled_descriptors()
      socket.setdefaulttimeout(0.05)
      fails(socket.timeout, "ETIMEDOUT", socket.getaddrinfo, "slow.test", 80)
      fails(socket.timeout, "ETIMEDOUT", socket.gethostbyname_ex, "slow.test")
      assert.is_number(eventually(2, function() return proc.threads() == 1 end))
      assert.equal(fds, proc.descriptors())
    end)

    it("may be one that Ctrl-C ended", function()
      local path = net:script(function()
        socket.setdefaulttimeout(20)
        check.interrupt(0.1)
        socket.gethostbyname "silent.test"
      end)
      local ok, text
      local t = took(function()
        ok, text = net:run(helper.lua {leaks = false} .. " " .. path)
      end)
      os.remove(path)
      assert.is_false(ok)
      assert.matches("interrupted!", text)
      assert.is_true(t < 5, t)
    end)
  end)

  describe("a Lua state closed during lookups", function()
    it("ends well", function()
      local path = net:script(function()
        local kept = {}
        local function look(name)
          kept[#kept + 1] = tasks.begin(function() socket.gethostbyname(name) end)
        end
        for _ = 1, 10 do look "slow.test" end
        for _ = 1, 20 do look "silent.test" end
        print(#kept, "lookups")
        io.stdout:flush()
        os.exit(0, true)
      end)
      local ok, text = net:run(helper.lua {leaks = false} .. " " .. path)
      os.remove(path)
      assert.is_true(ok, text)
      assert.equal("30\tlookups\n", text)
    end)

    it("leaves a host program in peace that lives on", function()
      if helper.sanitized then pending "the host program is not built for it" end
      local cc, host = os.getenv "CC" or "", os.tmpname()
      local made = os.execute(("%s -o %s %s/spec/host/outlive.c -Wl,-E $(pkg-config --cflags --libs lua5.4) 2>&-")
        :format(cc ~= "" and cc or "cc", host, helper.root))
      if not made then pending "needs a C compiler and the headers of Lua" end
      local path = net:script(function()
        local kept = {}
        for i = 1, 30 do kept[i] = tasks.begin(function() socket.gethostbyname "slow.test" end) end
        assert.equal(30, #kept)
        assert.is_true(proc.threads() > 1)
      end)
      local ok, text = net:run(helper.lua():gsub("%S+$", host) .. " " .. path)
      os.remove(path)
      os.remove(host)
      assert.is_true(ok, text)
      assert.equal("alive\n", text)
    end)
  end)
end)
