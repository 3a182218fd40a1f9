-- Tasks that wait for sockets: every call lets others run, and no edge of a descriptor is missed.

local certs = require "spec.support.certs"
local netns = require "spec.support.netns"
local socket = require "socket"
local support = require "spec.support"

local loop, ssl = require "socket.loop", socket.ssl
local fails, keep, now = support.fails, support.keep, socket.monotonic

after_each(support.close_kept)

local run = require "spec.support.looped".run

-- Runs f(), which must wait for what help() brings, begun as a task after some others had their turns.
local function lets_others_run(f, help)
  local turns, during = 0, nil
  local results = table.pack(run(function()
    loop.spawn(function()
      for _ = 1, 5 do socket.sleep(0.001) turns = turns + 1 end
      if help then help() end
    end)
    local r = table.pack(f())
    during = turns
    return table.unpack(r, 1, r.n)
  end))
  assert.equal(5, during)
  return table.unpack(results, 1, results.n)
end

local function contexts()
  local server = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
  server:load_cert_chain(certs.path "server.pem", certs.path "server.key")
  return ssl.create_default_context {cafile = certs.path "ca.pem"}, server
end

describe("an error thrown into a call that waits", function()
  it("has the bytes that had been received", function()
    run(function()
      local a, b = keep(socket.socketpair())
      a:send "12345"
      local e = fails("ETIMEDOUT", loop.timeout, 0.02, b.recv, b, 10, socket.MSG_WAITALL)
      assert.equal("12345", e.partial)
      local task = loop.spawn(function() return b:recv(10, socket.MSG_WAITALL) end)
      a:send "67890abcdef"
      assert.equal("67890abcde", task:join())
      task = loop.spawn(function() return b:recv(10, socket.MSG_WAITALL) end)
      socket.sleep(0)
      loop.sleep(0)
      task:cancel()
      assert.equal("f", select(2, pcall(task.join, task)).partial)
    end)
  end)

  it("counts the bytes that had been sent", function()
    run(function()
      local a, b = keep(socket.socketpair())
      local bytes = ("x"):rep(4000000)
      for _, give_up in ipairs {
        function() return select(2, pcall(loop.timeout, 0.02, a.sendall, a, bytes)) end,
        function()
          local task = loop.spawn(a.sendall, a, bytes)
          socket.sleep(0.02)
          task:cancel()
          return select(2, pcall(task.join, task))
        end,
      } do
        local e = give_up()
        assert.is_true(socket.iserror(e), tostring(e))
        local received = 0
        while received < e.sent do received = received + #b:recv(65536) end
        assert.is_true(e.sent > 0 and e.sent < #bytes)
        assert.equal(e.sent, received)
        assert.equal("EAGAIN", select(2, b:try_recv(1, socket.MSG_DONTWAIT)).code)
      end
    end)
  end)
end)

local function small(a, b)
  a:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50000)
  b:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
end

local function receive(s, n)
  local pieces, got = {}, 0
  while got < n do
    local data = s:recv(math.min(65536, n - got))
    if not data then break end
    pieces[#pieces + 1], got = data, got + #data
  end
  return table.concat(pieces)
end

describe("a call that waits lets others run:", function()
  for name, pair in pairs {TCP = support.tcp, Unix = socket.socketpair} do
    it("receiving, " .. name, function()
      local a, b = keep(pair())
      local function help() b:sendall "hello" end
      assert.equal("hello", lets_others_run(function() return a:recv(10) end, help))
      local buffer = socket.buffer(10)
      assert.equal(5, lets_others_run(function() return a:recv_into(buffer) end, help))
      assert.equal("hello", (lets_others_run(function() return a:recvfrom(10) end, help)))
      assert.equal("hello", (lets_others_run(function() return a:recvmsg(10) end, help)))
      assert.equal("hello", lets_others_run(function() return a:recv(10, socket.MSG_PEEK) end, help))
      assert.equal("hellohello", lets_others_run(function() return a:recv(10, socket.MSG_WAITALL) end, help))
    end)

    it("sending many megabytes, " .. name, function()
      local a, b = keep(pair())
      local data = ("0123456789abcdef"):rep(1 << 18) -- 4 MiB
      small(a, b)
      local got = lets_others_run(function()
        a:sendall(data)
        return "sent"
      end, function() loop.spawn(function() assert.equal(data, receive(b, #data)) end) end)
      assert.equal("sent", got)
      small(b, a)
      local n = lets_others_run(function()
        local count = 0
        repeat count = count + b:send(data:sub(1, 100000)) until count > 3000000
        return count
      end, function() loop.spawn(function() receive(a, 3000000) end) end)
      assert.is_true(n > 3000000)
    end)

    it("sendfile, " .. name, function()
      local a, b = keep(pair())
      local file <close> = io.tmpfile()
      local data = ("0123456789abcdef"):rep(1 << 17)
      file:write(data)
      file:flush()
      small(a, b)
      assert.equal(#data, lets_others_run(function() return a:sendfile(file, 0) end, function()
        loop.spawn(function() assert.equal(data, receive(b, #data)) end)
      end))
    end)

    it("files of makefile, " .. name, function()
      local a, b = keep(pair())
      small(a, b)
      local f = a:makefile "rw"
      assert.equal("line", lets_others_run(function() return f:read "l" end, function() b:sendall "line\n" end))
      assert.equal(12, lets_others_run(function() return f:read "n" end, function() b:sendall "12\n" end))
      assert.equal("", f:read "l")
      local list = lets_others_run(function()
        local t = {}
        for line in f:lines() do t[#t + 1] = line end
        return t
      end, function()
        b:sendall "1\n2"
        loop.spawn(function() socket.sleep(0.005) b:sendall "2\n3" b:shutdown(socket.SHUT_WR) end)
      end)
      assert.same({"1", "22", "3"}, list)
      local data = ("x"):rep(1 << 22)
      lets_others_run(function() f:write(data) f:flush() end, function()
        loop.spawn(function() assert.equal(#data, #receive(b, #data)) end)
      end)
      f:close()
    end)
  end

  it("accept, connect, create_connection", function()
    local server <close> = socket.create_server {"127.0.0.1", 0}
    local address = server:getsockname()
    local conn <close> = lets_others_run(function() return (server:accept()) end, function()
      keep(socket.create_connection(address))
    end)
    assert.equal(address[2], conn:getsockname()[2])
    local path = ("\0lsocket-loop-spec-%d"):format(math.random(1 << 30))
    local full <close> = socket.socket(socket.AF_UNIX):bind(path):listen(0)
    keep(socket.socket(socket.AF_UNIX)):connect(path)
    local s <close> = socket.socket(socket.AF_UNIX)
    lets_others_run(function() s:connect(path) end, function() keep(full:accept()) end)
    local t <close> = socket.socket()
    t:settimeout(2)
    run(function()
      local accepted = loop.spawn(function() return keep(server:accept()) end)
      assert.equal(t, t:connect(address))
      accepted:join()
    end)
    fails("ECONNREFUSED", run, function()
      local closed = socket.create_server {"127.0.0.1", 0}
      local where = closed:getsockname()
      closed:close()
      socket.create_connection(where)
    end)
  end)

  it("UDP, both ways", function()
    local a, b = support.udp()
    keep(a, b)
    assert.equal("hello", lets_others_run(function() return a:recv(10) end, function() b:send "hello" end))
    local data, from = lets_others_run(function() return a:recvfrom(10) end, function() b:send "again" end)
    assert.same({"again", b:getsockname()}, {data, from})
  end)

  it("Unix datagrams to a queue that is full, connected or not", function()
    local path = ("\0lsocket-loop-spec-%d"):format(math.random(1 << 30))
    local to <close> = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(path)
    local function drain() to:settimeout(0) while to:try_recv(10) do end end
    for _, connected in ipairs {false, true} do
      local from <close> = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
      if connected then from:connect(path) end
      local function send() return connected and from:send "x" or from:sendto("x", path) end
      from:settimeout(0)
      while pcall(send) do end
      from:settimeout(nil)
      assert.equal(1, lets_others_run(send, drain))
      drain()
    end
  end)

  it("sleep and wait", function()
    lets_others_run(function() socket.sleep(0.05) end)
    lets_others_run(function() loop.sleep(0.05) end)
    run(function()
      local log = {}
      for i = 1, 2 do loop.spawn(function() for j = 1, 2 do log[#log + 1] = i .. j loop.sleep(0) end end) end
      for _ = 1, 3 do loop.current().loop:sleep(0) end
      assert.same({"11", "21", "12", "22"}, log)
      coroutine.wrap(function() loop.sleep(0) end)()
      local task = loop.spawn(function() loop.sleep(0) end)
      loop.sleep(0)
      assert.is_true(task:cancel())
      assert.is_true(socket.iserror(select(2, pcall(task.join, task)), loop.cancelled))
    end)
    loop.sleep(0)
    assert.is_false(pcall(loop.sleep))
    assert.is_false(pcall(loop.sleep, -1))
    local a, b = keep(socket.socketpair())
    assert.is_true(lets_others_run(function() return loop.wait(a, "r") end, function() b:sendall "x" end))
    assert.is_true(run(loop.wait, a, "r"))
    assert.is_true(run(loop.wait, a, "w"))
    assert.is_false(lets_others_run(function() return loop.wait(b, "r", 0.05) end))
    assert.is_false(run(loop.wait, b, "r", 0))
    local pipe = io.popen "sleep 0.05; echo x"
    assert.is_true(lets_others_run(function() return loop.wait(pipe, "r") end))
    pipe:close()
    local file <close> = io.tmpfile()
    assert.is_true(run(loop.wait, file, "r"))
    assert.is_true(loop.wait(file, "w"))
  end)

  for _, version in ipairs {"TLSv1_2", "TLSv1_3"} do
    it("TLS handshakes, data both ways, the goodbye: " .. version, function()
      local client, server = contexts()
      client.maximum_version = ssl.TLSVersion[version]
      local listener <close> = socket.create_server {"127.0.0.1", 0}
      local c, s
      lets_others_run(function()
        c = client:wrap_socket(socket.create_connection(listener:getsockname()), {server_hostname = "localhost"})
      end, function()
        loop.spawn(function() s = server:wrap_socket(listener:accept(), {server_side = true}) end)
      end)
      keep(c, s)
      assert.equal("hello", lets_others_run(function() return c:recv(10) end, function() s:sendall "hello" end))
      local data = ("x"):rep(8000000)
      lets_others_run(function() c:sendall(data) end, function()
        loop.spawn(function() assert.equal(#data, #receive(s, #data)) end)
      end)
      lets_others_run(function() c:unwrap() end, function() loop.spawn(s.unwrap, s) end)
    end)

    it("TLS both ways at once: " .. version, function()
      local client, server = contexts()
      client.maximum_version = ssl.TLSVersion[version]
      local a, b = support.tcp()
      local n = 3000000
      run(function()
        local function both(s)
          loop.group(function(g)
            g:spawn(function() s:sendall(("x"):rep(n)) end)
            g:spawn(function() assert.equal(n, #receive(s, n)) end)
          end)
          s:unwrap():close()
        end
        loop.group(function(g)
          g:spawn(function() both(client:wrap_socket(a, {server_hostname = "localhost"})) end)
          g:spawn(function() both(server:wrap_socket(b, {server_side = true})) end)
        end)
      end)
    end)
  end

  it("through pcall, metamethods, iterators, sort's end and __close", function()
    local a, b = keep(socket.socketpair())
    local object = setmetatable({}, {
      __index = function() return a:recv(1) end,
      __add = function() return a:recv(1) end,
      __call = function() return a:recv(1) end,
      __close = function() a:recv(1) end,
      __concat = function() return a:recv(1) end,
      __lt = function() return a:recv(1) == "x" end,
    })
    local function help() b:sendall "x" end
    assert.equal("x", select(2, lets_others_run(function() return pcall(a.recv, a, 1) end, help)))
    assert.equal("x", lets_others_run(function() return object.field end, help))
    assert.equal("x", lets_others_run(function() return object + 1 end, help))
    assert.equal("x", lets_others_run(function() return object() end, help))
    assert.equal("x", lets_others_run(function() return object .. "" end, help))
    assert.is_true(lets_others_run(function() return object < object end, help))
    lets_others_run(function() local _ <close> = object end, help)
    lets_others_run(function() pcall(function() local _ <close> = object error "out" end) end, help)
    assert.equal("xy", lets_others_run(function()
      local text = ""
      for x in function() return #text < 2 and a:recv(1) or nil end do text = text .. x end
      return text
    end, function() b:sendall "xy" end))
    run(function() -- below table.sort nothing can yield: the thread waits
      b:sendall(("x"):rep(20))
      local t = {3, 1, 2}
      table.sort(t, function(x, y) a:recv(1) return x < y end)
      assert.same({1, 2, 3}, t)
    end)
  end)
end)

describe("names, looked up in a task,", function()
  local net = netns.new {
    zone = {["slow.test"] = {AAAA = {"::1"}, A = {"127.0.0.1"}, delay = 0.15}, ["silent.test"] = {silent = true}},
    resolv = "options timeout:5 attempts:1\n",
  }
  teardown(function() net:stop() end)

  it("let others run, and can be cancelled", net:inside(function()
    local s, l = require "socket", require "socket.loop"
    l.run(function()
      local turns, over = 0, false
      l.spawn(function() while not over do s.sleep(0.005) turns = turns + 1 end end)
      assert.is_true(#s.getaddrinfo("slow.test", 80) > 0)
      assert.is_true(turns >= 5)
      turns = 0
      local server <close> = s.create_server({"", 0}, {family = s.AF_INET6, dualstack_ipv6 = true})
      s.create_connection {"slow.test", server:getsockname()[2]}:close()
      assert.is_true(turns >= 5)
      local u <close> = s.socket(s.AF_INET, s.SOCK_DGRAM)
      local tasks = {
        l.spawn(s.getaddrinfo, "silent.test", 80),
        l.spawn(s.create_connection, {"silent.test", 80}),
        l.spawn(u.sendto, u, "x", {"silent.test", 80}),
      }
      s.sleep(0.02)
      local start = s.monotonic()
      for _, task in ipairs(tasks) do
        task:cancel()
        local ok, e = pcall(task.join, task)
        assert.is_false(ok)
        assert.is_true(s.iserror(e, l.cancelled))
      end
      assert.is_true(s.monotonic() - start < 1)
      u:sendto("x", {"127.0.0.1", 9})
      over = true
    end)
  end))

  it("are tried one beside the other by create_connection, also when cancelled amid that", net:inside(function()
    local s, l = require "socket", require "socket.loop"
    local full <close> = s.create_server({"::1", 0}, {family = s.AF_INET6, backlog = 0})
    local port = full:getsockname()[2]
    local queued = {}
    for i = 1, 8 do
      queued[i] = s.socket(s.AF_INET6)
      queued[i]:settimeout(0):connect_ex(full:getsockname())
    end
    local _ <close> = s.create_server {"127.0.0.1", port}
    local descriptors = require "spec.support".descriptors
    l.run(function()
      s.getaddrinfo("slow.test", port) -- the threads that look up stay
      local before = descriptors()
      local turns, over = 0, false
      l.spawn(function() while not over do s.sleep(0.005) turns = turns + 1 end end)
      local c <close> = s.create_connection({"slow.test", port}, 5)
      assert.equal("127.0.0.1", c:getpeername()[1])
      assert.is_true(turns > 20)
      c:close()
      local task = l.spawn(s.create_connection, {"slow.test", port})
      s.sleep(0.25) -- the first address waits
      assert.equal("waiting", task.status)
      task:cancel()
      pcall(task.join, task)
      assert.equal("cancelled", task.status)
      over = true
      assert.equal(before, descriptors())
    end)
  end))
end)

describe("no edge is missed:", function()
  it("data that arrived together with the end", function()
    for name, pair in pairs {tcp = support.tcp, unix = socket.socketpair} do
      local a, b = keep(pair())
      assert.same({name, "last"}, {name, run(function()
        loop.spawn(function() socket.sleep(0.005) b:sendall "last" b:close() end)
        local data = a:recv(100)
        assert.is_nil(a:recv(100))
        assert.is_nil(a:recv(100))
        return data
      end)})
    end
  end)

  it("a half-close, after which the other direction goes on", function()
    local a, b = keep(support.tcp())
    run(function()
      local task = loop.spawn(function()
        local text = ""
        for data in function() return b:recv(3) end do text = text .. data end
        b:sendall(text:rep(100000))
        b:shutdown(socket.SHUT_WR)
      end)
      socket.sleep(0.002)
      a:sendall "hello"
      socket.sleep(0.002)
      a:shutdown(socket.SHUT_WR)
      assert.equal(500000, #receive(a, 500001))
      task:join()
    end)
  end)

  it("short reads, then more", function()
    local a, b = keep(support.tcp())
    run(function()
      local writer = loop.spawn(function()
        for i = 1, 200 do
          b:sendall(("x"):rep(i % 7 + 1))
          if i % 3 == 0 then socket.sleep(0.0005) elseif i % 3 == 1 then coroutine.yield() end
        end
        b:close()
      end)
      local n = 0
      for data in function() return a:recv(n % 2 == 0 and 100 or 2) end do n = n + #data end
      local expected = 0
      for i = 1, 200 do expected = expected + i % 7 + 1 end
      assert.equal(expected, n)
      writer:join()
    end)
  end)

  it("what recv leaves behind descriptors and urgent data", function()
    local a, b = keep(socket.socketpair())
    local c, d = keep(support.tcp())
    run(function()
      loop.spawn(function()
        socket.sleep(0.005)
        socket.send_fds(b, {"first"}, {0})
        b:sendall "second"
        d:sendall "abc"
        d:send("!", socket.MSG_OOB)
        d:sendall "def"
      end)
      assert.equal("first", a:recv(100))
      assert.equal("second", a:recv(100))
      assert.equal("abcdef", receive(c, 6))
    end)
  end)

  it("peeking, and calls that do not wait between those that do", function()
    local a, b = keep(support.tcp())
    run(function()
      loop.spawn(function()
        for _ = 1, 4 do socket.sleep(0.003) b:sendall "0123456789" end
      end)
      assert.equal("01", a:recv(2, socket.MSG_PEEK))
      assert.equal("0123456789", a:recv(100))
      assert.equal("0123456789", a:recv(100, socket.MSG_PEEK))
      assert.equal("012", a:recv(3, socket.MSG_DONTWAIT))
      assert.equal("3456789", a:recv(100))
      a:settimeout(0)
      fails("EAGAIN", a.recv, a, 1)
      a:settimeout(nil)
      assert.equal("0123456789", a:recv(100))
      loop.wait(a, "r")
      a:settimeout(0)
      assert.equal("01234", a:recv(5))
      a:settimeout(1)
      assert.equal("56789", a:recv(100))
      a:settimeout(0.01)
      fails("ETIMEDOUT", a.recv, a, 1)
    end)
  end)

  it("two objects for one socket, of which each reads in turn", function()
    local a, b = keep(support.tcp())
    local copy <close> = a:dup()
    run(function()
      loop.spawn(function() for i = 1, 10 do socket.sleep(0.002) b:sendall(tostring(i % 10)) end end)
      local text = ""
      for i = 1, 10 do text = text .. (i % 2 == 0 and a or copy):recv(10) end
      assert.equal("1234567890", text)
      copy:close()
      loop.spawn(function() socket.sleep(0.002) b:sendall "x" end)
      assert.equal("x", a:recv(10))
    end)
  end)

  it("two objects with one descriptor, both waiting in their own direction", function()
    local a, b = keep(socket.socketpair())
    run(function()
      local reader = loop.spawn(function() return a:recv(10) end)
      socket.sleep(0.001)
      local again = socket.socket(nil, nil, nil, a:fileno())
      local writer = loop.spawn(function() again:sendall(("x"):rep(1000000)) end)
      socket.sleep(0.005)
      b:sendall "hello"
      assert.equal("hello", reader:join())
      assert.equal(1000000, #receive(b, 1000000))
      writer:join()
      again:detach()
    end)
  end)

  it("a detached socket in a new object, while its former one waited", function()
    local a, b = keep(socket.socketpair())
    run(function()
      local reader = loop.spawn(function() return a:recv(10) end)
      socket.sleep(0.002)
      local new <close> = socket.socket(nil, nil, nil, a:detach())
      fails("ECANCELED", reader.join, reader)
      loop.spawn(function() socket.sleep(0.002) b:sendall "new" end)
      assert.equal("new", new:recv(10))
    end)
  end)

  it("the same descriptor number after a close", function()
    run(function()
      for i = 1, 20 do
        local a, b = socket.socketpair()
        loop.spawn(function() socket.sleep(0.0005) b:sendall(tostring(i)) end)
        assert.equal(tostring(i), a:recv(10))
        if i % 2 == 0 then loop.wait(b, "r", 0.0001) end
        a:close()
        b:close()
      end
    end)
  end)

  it("room to write, again and again", function()
    local a, b = keep(support.tcp())
    small(a, b)
    run(function()
      local writer = loop.spawn(function() for _ = 1, 50 do a:sendall(("x"):rep(20000)) end a:close() end)
      local n = 0
      for data in function() return b:recv(3000) end do n = n + #data end
      assert.equal(1000000, n)
      writer:join()
    end)
  end)
end)

describe("tasks that share the thread", function()
  it("are not starved by a hot sender and a hot receiver", function()
    local a, b = keep(support.tcp())
    run(function()
      local stop = false
      loop.group(function(g)
        g:spawn(function() while not stop do a:sendall "0123456789" end a:close() end)
        g:spawn(function() while b:recv(5) do end end)
        local longest, start = 0, now()
        for _ = 1, 20 do
          local before = now()
          socket.sleep(0.001)
          longest = math.max(longest, now() - before)
        end
        stop = true
        assert.is_true(longest < 0.5 and now() - start < 3)
      end)
    end)
  end)

  it("may not wait for the same, and learn it", function()
    local a, b = keep(socket.socketpair())
    run(function()
      local first = loop.spawn(function() return a:recv(1) end)
      socket.sleep(0.001)
      fails("EBUSY", a.recv, a, 1)
      b:sendall "xy"
      assert.equal("x", first:join())
      assert.equal("y", a:recv(1))
    end)
  end)

  it("are told when their socket is closed, by whoever", function()
    local a = keep(socket.socketpair())
    local server = keep(socket.create_server {"127.0.0.1", 0})
    local u = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    u:bind {"127.0.0.1", 0}
    local c = keep(socket.socketpair())
    local d = keep(support.tcp())
    run(function()
      local f = d:makefile "r"
      local function try(g, ...) return loop.spawn(pcall, g, ...) end
      local tasks = {try(a.recv, a, 1), try(server.accept, server), try(u.recvfrom, u, 1),
                     try(c.sendall, c, ("x"):rep(1 << 22)), try(f.read, f, "l")}
      socket.sleep(0.01)
      for _, s in ipairs {a, server, u, c} do s:close() end
      f:close()
      for i, task in ipairs(tasks) do
        local ok, e = task:join()
        assert.same({i, false, "ECANCELED"}, {i, ok, socket.iserror(e) and e.code or tostring(e)})
      end
    end)
    local e, g = keep(socket.socketpair())
    local l <close> = loop.new()
    local task = l:spawn(function() return e:recv(1) end)
    l:step(0.01)
    e:close() -- outside of tasks
    g:close()
    fails("ECANCELED", task.join, task, 1)
  end)

  it("do not lose the next wakeup to one whose time was up", function()
    local a, b = keep(support.tcp())
    run(function()
      a:settimeout(0.002)
      for i = 1, 10 do
        fails("ETIMEDOUT", a.recv, a, 10)
        if i % 2 == 0 then b:sendall "x" socket.sleep(i % 4 * 0.001) assert.equal("x", a:recv(10)) end
      end
      a:settimeout(nil)
      local first = loop.spawn(function() return loop.timeout(0.005, a.recv, a, 1) end)
      fails("ETIMEDOUT", first.join, first)
      local second = loop.spawn(function() return a:recv(1) end)
      socket.sleep(0.002)
      b:sendall "y"
      assert.equal("y", second:join())
    end)
  end)

  it("are bounded by a slow reader: memory does not grow", function()
    local a, b = keep(support.tcp())
    run(function()
      local piece, sent = ("x"):rep(100000), 0
      local writer = loop.spawn(function() while true do a:sendall(piece) sent = sent + 1 end end)
      socket.sleep(0.05)
      collectgarbage()
      local before, already = collectgarbage "count", sent
      for _ = 1, 20 do b:recv(10) socket.sleep(0.001) end
      collectgarbage()
      assert.is_true(collectgarbage "count" - before < 100)
      assert.is_true(sent - already <= 2)
      writer:cancel()
    end)
  end)
end)
