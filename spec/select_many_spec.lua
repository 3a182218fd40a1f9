-- lsocket_select.c: more ready at once than is fetched at once, and descriptors that change hands while they are
-- registered.

local socket = require "socket"
local support = require "spec.support"

local selectors = socket.selectors
local fails, keep = support.fails, support.keep
local READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

local selector

-- A selector that is closed after the test.
local function new(make)
  if selector then selector:close() end
  selector = make()
  return selector
end

after_each(function()
  support.close_kept()
  if selector then selector:close() end
end)

-- How often one select reports each object, and its events.
local function told(sel, timeout)
  local times, events, n = {}, {}, 0
  for key, e in sel:select(timeout) do
    times[key.fileobj] = (times[key.fileobj] or 0) + 1
    events[key.fileobj] = e
    n = n + 1
  end
  return n, times, events
end

for _, kind in ipairs {"DefaultSelector", "EpollSelector", "KqueueSelector", "PollSelector", "SelectSelector"} do
  local make = selectors[kind]
  if make then describe(kind .. " with many at once", function()
    local sel, socks

    -- Registers 600 sockets, all readable.
    before_each(function()
      sel, socks = new(make), {}
      for i = 1, 600, 2 do
        socks[i], socks[i + 1] = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        socks[i]:send "x"
        socks[i + 1]:send "x"
        sel:register(socks[i], READ)
        sel:register(socks[i + 1], READ | WRITE)
      end
    end)

    it("reports all that are ready, each once", function()
      local n, times, events = told(sel, 1)
      assert.equal(600, n)
      for i, s in ipairs(socks) do
        assert.equal(1, times[s])
        assert.equal(i % 2 == 1 and READ or READ | WRITE, events[s])
      end
      assert.equal(600, (told(sel, 0)))
    end)

    it("reports nobody twice who is ready again at once", function()
      local n = 0
      for key in sel:select(1) do
        n = n + 1
        key.fileobj:recv(1)
        for i = 1, 2 do socks[i]:try_send("more", socket.MSG_DONTWAIT) end
      end
      assert.equal(600, n)
    end)

    it("leaves out who is closed or unregistered meanwhile, and goes on", function()
      local n = 0
      for key in sel:select(1) do
        n = n + 1
        if n == 1 then
          for i = 1, 600, 3 do
            if socks[i] ~= key.fileobj then sel:unregister(socks[i]) end
          end
        end
      end
      assert.is_true(n == 400 or n == 401)
    end)

    it("starts anew with each call, which ends the loop before", function()
      local outer = 0
      for _ in sel:select(1) do
        outer = outer + 1
        if outer == 100 then
          sel:select(1)
        end
      end
      assert.equal(100, outer)
      assert.equal(600, (told(sel, 0)))
    end)

    it("starves nobody where a program looks at a few each time", function()
      local seen, n = {}, 0
      for _ = 1, 600 do
        local few = 0
        for key in sel:select(0) do
          few = few + 1
          if not seen[key.fileobj] then
            seen[key.fileobj] = true
            key.fileobj:recv(1)
            sel:modify(key.fileobj, READ)
            n = n + 1
          end
          if few == 10 then break end
        end
        if n == 600 then break end
      end
      assert.equal(600, n)
    end)

    it("closed in the middle of the loop, ends it", function()
      local n = 0
      for _ in sel:select(1) do
        n = n + 1
        if n == 5 then sel:close() end
      end
      assert.equal(5, n)
    end)
  end)

  describe(kind .. " with descriptors that change hands", function()
    it("takes the next socket of a number whose former was closed while registered", function()
      local sel = new(make)
      local a, b = socket.socketpair()
      local fd = a:fileno()
      sel:register(a, READ, "former")
      a:close()
      b:close()
      local c, d = keep(socket.socketpair())
      if c:fileno() ~= fd then c, d = d, c end
      assert.equal(fd, c:fileno())
      local ok, text = pcall(sel.get_key, sel, c) -- it is not the former one
      assert.is_false(ok)
      assert.matches("not registered", text)
      assert.is_false((pcall(sel.unregister, sel, c)))
      assert.is_false((pcall(sel.modify, sel, c, WRITE)))
      d:send "x"
      assert.equal(0, (told(sel, 0))) -- nor is what it gets the former one's
      local key = sel:register(c, READ, "next")
      assert.same({c, "next"}, {key.fileobj, key.data})
      assert.equal(key, sel:get_key(fd))
      local n, times = told(sel, 1)
      assert.same({1, 1}, {n, times[c]})
      assert.is_false((pcall(sel.get_key, sel, a)))
      assert.equal(c, next(sel:get_map()))
    end)

    it("takes a descriptor that left its socket while registered", function()
      local sel = new(make)
      local a, b = socket.socketpair()
      keep(b)
      sel:register(a, READ)
      local fd = a:detach()
      sel:register(fd, READ | WRITE, "plain")
      local s = keep(socket.socket(nil, nil, nil, fd))
      local n, times, events = told(sel, 1)
      assert.same({1, 1, WRITE}, {n, times[fd], events[fd]})
      assert.equal("plain", sel:unregister(fd).data)
      sel:register(s, READ)
      b:send "x"
      assert.equal(1, (told(sel, 1)))
    end)

    it("takes a TLS socket in place of the plain one it was made of", function()
      if not socket.ssl then return pending "needs socket.ssl" end
      local context = socket.ssl.SSLContext(socket.ssl.PROTOCOL_TLS_CLIENT)
      local sel = new(make)
      local a, b = socket.socketpair()
      keep(b)
      sel:register(a, READ)
      local s = keep(context:wrap_socket(a, {server_hostname = "x", do_handshake_on_connect = false}))
      assert.equal(s, sel:register(s, WRITE).fileobj)
      assert.equal(1, (told(sel, 1)))
    end)

    it("still refuses one that is registered and open, by whatever object", function()
      local sel = new(make)
      local a = keep(socket.socketpair())
      sel:register({fileno = function() return a:fileno() end}, READ)
      for _, other in ipairs {a, a:fileno()} do
        local ok, text = pcall(sel.register, sel, other, READ)
        assert.is_false(ok)
        assert.matches("already registered", text)
      end
      assert.equal(a:fileno(), sel:get_key(a).fd)
    end)

    it("withstands an object that closes or changes the selector when it is asked for its number", function()
      local a, b = keep(socket.socketpair())
      for _, act in ipairs {
        function(sel) sel:close() end, function(sel) pcall(sel.unregister, sel, a) end,
        function(sel)
          for i = 1, 100 do pcall(sel.register, sel, {fileno = function() return i + 200 end}, READ) end
        end,
      } do
        local sel = new(make)
        local armed = false
        local object = {fileno = function()
          if armed then
            armed = false
            act(sel)
          end
          return a:fileno()
        end}
        sel:register(object, READ)
        armed = true
        pcall(sel.register, sel, a, READ)
        armed = true
        pcall(sel.unregister, sel, a)
        armed = true
        pcall(sel.get_key, sel, b)
        pcall(function() told(sel, 0) end)
      end
    end)
  end) end
end

describe("a selector with many TLS sockets", function()
  it("reports all that have bytes at hand, and what else they are ready for", function()
    if not socket.ssl then return pending "needs socket.ssl" end
    local tls = require "spec.support.tls"
    local server, client = tls.server "server", tls.client()
    for _, kind in ipairs {"DefaultSelector", "PollSelector"} do
      local sel, all = new(selectors[kind]), {}
      for i = 1, 150 do
        local a, b = keep(socket.socketpair())
        a = keep(client:wrap_socket(a, {server_hostname = "localhost", do_handshake_on_connect = false}))
        b = keep(server:wrap_socket(b, {server_side = true, do_handshake_on_connect = false}))
        tls.shake(a, b)
        b:send "xy"
        assert.equal("x", a:recv(1)) -- the other one is at hand
        sel:register(a, i % 2 == 0 and READ or READ | WRITE)
        all[i] = a
      end
      local n, times, events = told(sel, 1)
      assert.equal(150, n)
      for i, s in ipairs(all) do assert.same({1, i % 2 == 0 and READ or READ | WRITE}, {times[s], events[s]}) end
    end
  end)
end)

describe("select", function()
  it("refuses numbers that are no open descriptors, in each list", function() -- Python: OSError EBADF
    local s <close> = socket.socket()
    local gone = s:fileno()
    s:close()
    local a = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    for _, number in ipairs {gone == a:fileno() and 1000000 or gone, 1000000, -1, 1 << 40} do
      for list = 1, 3 do
        for _, timeout in ipairs {0, 5, false} do
          local lists = {{a}, {}, {}}
          table.insert(lists[list], number)
          local e = fails("EBADF", selectors.select, lists[1], lists[2], lists[3], timeout or nil)
          assert.equal("select", e.op)
        end
      end
    end
    fails("EBADF", selectors.select, {}, {}, {1000000})
  end)

  it("refuses a socket whose descriptor was closed behind its back", function()
    local a, b = socket.socketpair()
    keep(b)
    socket.close(a:fileno())
    fails("EBADF", selectors.select, {}, {a}, {}, 1)
    pcall(a.close, a)
  end)
end)
