-- Bugs that only a hostile script meets, in selectors and loops: finalizers, methods of its own and resumed
-- coroutines that change what is being worked on. Most of these corrupted memory.

local socket = require "socket"
local loop = require "socket.loop"
local selectors = require "socket.selectors"

-- Calls f(), which makes garbage, while finalizers call g over and over.
local function with_finalizers(g, f)
  local on = true
  local function arm()
    setmetatable({}, {__gc = function()
      if not on then return end
      arm()
      pcall(g)
    end})
  end
  collectgarbage("incremental", 1, 1000, 1)
  arm()
  f()
  on = false
  collectgarbage "incremental"
end

local function noop() end

describe("re-entry", function()
  after_each(function()
    collectgarbage "incremental"
    collectgarbage("incremental", 200, 100, 13)
  end)

  it("selectors: one is closed by a method of the object it looks for", function()
    for _, method in ipairs {"unregister", "modify", "get_key", "register"} do
      local s = selectors.DefaultSelector()
      local object = setmetatable({}, {__index = {fileno = function() s:close() return 0 end}})
      assert.is_false(pcall(s[method], s, object, 1))
      assert.equal("selector: <closed>", tostring(s))
    end
  end)

  it("selectors: a finalizer closes one", function()
    local a <close> = socket.socket()
    local sel
    local closed = 0
    with_finalizers(function() sel:close() closed = closed + 1 end, function()
      for _ = 1, 30000 do
        if closed >= 20 then break end
        sel = selectors.PollSelector()
        for _ = 1, 5 do
          pcall(function() sel:register(a, 1) sel:select(0) sel:unregister(a) end)
        end
      end
    end)
    assert.is_true(closed > 0)
  end)

  it("selectors: a finalizer registers while another does, or waits", function()
    local many = {}
    for i = 1, 300, 2 do many[i], many[i + 1] = socket.socketpair() end -- for high numbers
    local sel, left
    local registered = 0
    with_finalizers(function()
      local s = table.remove(left)
      if s then sel:register(s, 1) registered = registered + 1 end
    end, function()
      for round = 1, 20000 do
        if round > 100 and registered >= 20 then break end
        sel, left = selectors.PollSelector(), {table.unpack(many, 151)}
        for i = 1, 150, 25 do
          pcall(sel.register, sel, many[i], 1)
          sel:select(0)
        end
      end
    end)
    for _, s in ipairs(many) do s:close() end
    assert.is_true(registered > 0)
    assert.is_true(next(sel:get_map()) ~= nil)
  end)

  it("selectors: what is watched stays alive when a script writes into the keys", function()
    local ssl = require "socket.ssl"
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = false
    local function tls()
      local a, b = socket.socketpair()
      return ctx:wrap_socket(a, {do_handshake_on_connect = false}), b
    end
    local sel <close> = selectors.PollSelector()
    local one, peer = tls()
    local others = {tls()}
    local gone = setmetatable({others[1]}, {__mode = "v"})
    local key, key2 = sel:register(one, 1), sel:register(others[1], 1)
    key.fileobj = others[1]
    assert.equal(key, sel:unregister(one))
    key.fileobj, key2.fileobj, others[1] = nil, nil, nil
    collectgarbage()
    collectgarbage()
    assert.is_not_nil(gone[1])
    assert.is_function((sel:select(0)))
    gone[1]:close()
    one:close()
    peer:close()
    others[2]:close()
  end)

  it("loops: finalizers fill the room for timers while one is set", function()
    local r
    local full, stop = 0, socket.monotonic() + 30 -- it is up to the collector
    local function fill()
      local n
      repeat
        r:after(10, noop)
        n = select(4, r:counts())
      until n >= 64 and n & n - 1 == 0 or n > 4096
      full = full + 1
    end
    with_finalizers(fill, function()
      while full < 5 and socket.monotonic() < stop do
        r = socket.reactor.new(noop)
        for _ = 1, 50 do r:after(10, noop) end
        r:close()
      end
    end)
    assert.is_true(full >= 5)
  end)

  it("loops: a coroutine that died while it waited within a task waits no more", function()
    loop.run(function()
      local me = loop.current()
      local a <close>, b = socket.socketpair()
      local _ <close> = b
      a:settimeout(0.3)
      for _ = 1, 10 do
        loop.spawn(function() me:cancel() end)
        local ok, e = coroutine.resume(coroutine.create(function() a:recv(1) end))
        assert.is_false(ok)
        assert.is_true(socket.iserror(e, loop.cancelled), e)
        collectgarbage()
        collectgarbage()
      end
      socket.sleep(0.35)
      b:send "x"
      socket.sleep(0.001)
      assert.equal("x", a:recv(1))
    end)
  end)

  it("loops: an error in somebody's callback ends the wait below a task", function()
    local r = socket.reactor.new(noop)
    local a <close>, b = socket.socketpair()
    local _ <close> = b
    a:settimeout(0.01)
    local failed
    r:add(coroutine.create(function()
      r:after(0.001, function() error "no" end)
      failed = not coroutine.resume(coroutine.create(function() a:recv(1) end))
    end))
    while r:counts() > 0 do r:turn() end
    assert.is_true(failed)
    collectgarbage()
    collectgarbage()
    local stop = socket.monotonic() + 0.02
    repeat r:turn(0) until socket.monotonic() > stop
    b:send "x"
    assert.equal(0, (select(4, r:counts())))
    r:close()
  end)

  it("loops: a script resumes the coroutine of a task that has not begun", function()
    for n = 1, 9 do
      local l = loop.new()
      local task = l:spawn(noop, noop, coroutine.yield, noop)
      for _ = 1, n do coroutine.resume(task.co) end
      pcall(l.run, l)
      assert.equal(0, l.count)
      l:close()
      l = loop.new()
      task = l:spawn(noop, noop, noop)
      coroutine.close(task.co)
      assert.error_matches(function() l:run() end, "cannot resume dead coroutine")
      l:close()
    end
  end)

  it("loops: a coroutine in the middle of a call is not a new one", function()
    local r = socket.reactor.new(noop)
    local outer
    local inner = coroutine.create(function() return r:add(outer) end) -- within resume, which has one value too
    local ok, e
    outer = coroutine.create(function() ok, e = coroutine.resume(inner) end)
    assert.is_true(coroutine.resume(outer))
    assert.is_false(ok)
    assert.matches("not a new coroutine", e)
    assert.equal(0, (r:counts()))
    r:close()
  end)

  it("files: unflushed bytes of a collected one are sent over TLS", function()
    local ssl = require "socket.ssl"
    local function context(protocol)
      local ctx = ssl.SSLContext(protocol)
      ctx.check_hostname = false
      ctx.verify_mode = ssl.CERT_NONE
      ctx.maximum_version = ssl.TLSVersion.TLSv1_2
      return ctx:set_ciphers "PSK"
    end
    local client, server = context(ssl.PROTOCOL_TLS_CLIENT), context(ssl.PROTOCOL_TLS_SERVER)
    client:set_psk_client_callback(function() return "me", "key" end)
    server:set_psk_server_callback(function() return "key" end)
    local a, b = socket.socketpair()
    local c <close> = client:wrap_socket(a, {do_handshake_on_connect = false})
    local s <close> = server:wrap_socket(b, {do_handshake_on_connect = false, server_side = true})
    c:settimeout(0)
    s:settimeout(0)
    for _ = 1, 5 do c:try_do_handshake() s:try_do_handshake() end
    do
      local f = c:makefile "w"
      f:write "kept"
    end
    collectgarbage()
    collectgarbage()
    assert.equal("kept", s:recv(10))
  end)

  it("loops: what ends with an overflow or with very many values is heard of", function()
    local results
    local r = socket.reactor.new(function(_, ...) results = table.pack(...) end)
    local function deep() return 1 + deep() end
    r:add(coroutine.create(deep))
    r:turn(0)
    assert.is_false(results[1])
    assert.matches("stack overflow", results[2])
    r:add(coroutine.create(function() return table.unpack({}, 1, 400000) end))
    r:turn(0)
    assert.is_true(results[1] and results.n == 400001 or results[2] == "too many results")
    assert.equal(0, (r:counts()))
    r:close()
  end)

  it("loops: a round that waits within another loop does not go on within itself", function()
    local inner = loop.new()
    local ok, e
    pcall(loop.run, function() -- whose task ends in the hands of another
      local waiting = loop.spawn(function() ok, e = pcall(inner.step, inner, 5) end)
      socket.sleep(0.001)
      inner:spawn(function()
        coroutine.resume(waiting.co)
        assert.error_matches(function() inner:close() end, "cannot be closed")
      end)
      inner:step()
    end)
    inner:close()
    assert.is_false(ok)
    assert.matches("the loop is running", tostring(e))
  end)

  it("loops: a poller closed from outside is an error, not an endless loop", function()
    local l = loop.new()
    l:spawn(socket.sleep, 1)
    l:step()
    socket.close(l:fileno())
    assert.is_false(pcall(l.run, l))
    assert.is_false(pcall(l.close, l))
    assert.equal("loop: <closed>", tostring(l))
  end)

  it("loops: a time to wait that is no number", function()
    loop.run(function()
      local task = loop.spawn(socket.sleep, 0.001)
      for _, bad in ipairs {0 / 0, "x", {}} do
        assert.is_false(pcall(task.join, task, bad))
        assert.is_false(pcall(loop.queue().get, loop.queue(), bad))
      end
    end)
  end)

  it("errors: a text that fills a buffer", function()
    local dir = ("d"):rep(100)
    for n = 1, 3 do
      local _, e = socket.socket(socket.AF_UNIX):try_connect(dir .. ("x"):rep(n))
      assert.matches("ENOENT%)$", tostring(e))
    end
  end)
end)
