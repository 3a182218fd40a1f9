-- Memory of OpenSSL's and of Lua's that a TLS function uses while a callback or a finalizer runs, which may end or
-- replace anything: connections, lists, buffers, contexts.

local certs = require "spec.support.certs"
local h = require "spec.helper"
local support = require "spec.support"
local tls = require "spec.support.tls"

-- What the programs below have: contexts, a connected pair, and a finalizer that runs at every allocation.
local COMMON = [[
  local socket = require "socket"
  local loop = require "socket.loop"
  local ssl = require "socket.ssl"
  warn "@off"
  local function serving(alone)
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx:load_cert_chain("%s", "%s")
    if not alone then
      ctx:load_verify_locations "%s"
      ctx.verify_mode = ssl.CERT_REQUIRED
    end
    return ctx
  end
  local server = serving()
  local client = ssl.create_default_context {cafile = "%s"}
  client:load_cert_chain("%s", "%s")
  local late = {do_handshake_on_connect = false, server_hostname = "localhost"}
  local function pair()
    local a, b = socket.socketpair()
    local c = client:wrap_socket(a, late)
    local s = server:wrap_socket(b, {server_side = true, do_handshake_on_connect = false})
    return c, s
  end
  local function shake(c, s)
    collectgarbage "stop"
    c:settimeout(0)
    s:settimeout(0)
    for _ = 1, 4 do c:try_do_handshake() s:try_do_handshake() end
    collectgarbage "restart"
  end
  local armed -- what the finalizer does, once
  local function trap()
    setmetatable({}, {__gc = function()
      local f = armed
      armed = nil
      if f then pcall(f) end
      trap()
    end})
  end
  local function at_every_allocation()
    for _ = 1, 3 do trap() end
    collectgarbage()
    collectgarbage("incremental", 1, 1000, 40)
    collectgarbage()
  end
  -- Calls f through so deep a C stack that Lua can call no finalizer any more.
  local function deep(k, f)
    if k == 0 then return f() end
    string.gsub("x", "x", function() deep(k - 1, f) end)
  end
]]

local function program(code)
  return COMMON:format(certs.path "server.pem", certs.path "server.key", certs.path "ca.pem", certs.path "ca.pem",
    certs.path "client.pem", certs.path "client.key") .. code .. "\nprint 'ok'\n"
end

local function holds(code)
  local text, status = support.run(program(code))
  assert.equal("ok\n", text)
  assert.equal(0, status)
end

describe("a receive whose handshake's callback receives itself", function()
  it("has a buffer that nobody else gets", function()
    local peer = tls.file("peer.lua", ([[
      local socket = require "socket"
      local ctx = socket.ssl.create_default_context {cafile = "%s"}
      local s <close> = ctx:wrap_socket(socket.create_connection({"127.0.0.1", math.tointeger(arg[1])}, 10),
        {server_hostname = "localhost"})
      s:sendall(("A"):rep(100))
      s:recv(1)
    ]]):format(certs.path "ca.pem"))
    holds(([[
      local x, y = socket.socketpair()
      local others = {}
      server = serving(true)
      server.sni_callback = function()
        y:sendall "y"
        x:recv(200000) -- needs a larger buffer than the receive below
        for i = 1, 200 do others[i] = ("z"):rep(3000 + 10 * i) end
      end
      local listener <close> = socket.create_server {"127.0.0.1", 0}
      local peer = io.popen(("%%s %%s %%d"):format(%q, %q, listener:getsockname()[2]))
      local conn = listener:accept()
      local s <close> = server:wrap_socket(conn, {server_side = true, do_handshake_on_connect = false})
      assert(s:recv(100) == ("A"):rep(100)) -- in one attempt, which waits for the handshake's bytes in the kernel
      for _, other in ipairs(others) do assert(not other:find "[^z]") end]]):format(h.lua(), peer))
  end)
end)

describe("the wake function that learns of a handshake", function()
  -- Two coroutines receive from a server's socket; the second makes the handshake and wakes the first. `data` comes
  -- with the client's last bytes; returns what the second received.
  local TWO = [[
    local function second_of_two(data, wake)
      socket.setwaithook(function() return coroutine.yield() end, wake)
      local c, s = pair()
      c:settimeout(0)
      local first = coroutine.create(function() return s:try_recv(100) end)
      local second = coroutine.create(function() return s:try_recv(100) end)
      coroutine.resume(first)
      coroutine.resume(second)
      for _ = 1, 4 do
        if c:try_do_handshake() then
          if data then c:sendall(data) end
          break
        end
        coroutine.resume(second, true)
      end
      return s, select(2, coroutine.resume(second, true))
    end
  ]]

  it("can receive, and what has been received meanwhile is still right", function()
    holds(TWO .. [[
      local x, y = socket.socketpair()
      y:sendall "y"
      local others, woken = {}, false
      server = serving(true)
      local s, got = second_of_two(("A"):rep(100), function()
        woken = true
        x:recv(200000)
        for i = 1, 200 do others[i] = ("z"):rep(3000 + 10 * i) end
      end)
      assert(woken and got == ("A"):rep(100), got)]])
  end)

  it("can close the socket", function()
    holds(TWO .. [[
      server = serving(true)
      local woken = false
      local s, none, e = second_of_two(nil, function(sock)
        woken = true
        sock:close()
      end)
      assert(woken and none == nil)]])
  end)
end)

describe("what is asked of a connection that a finalizer ends meanwhile", function()
  for _, getter in ipairs {"getpeercert", "get_verified_chain", "get_unverified_chain", "shared_ciphers", "cipher",
    "get_channel_binding", "group", "selected_alpn_protocol", "version"} do
    it("is right or nil: " .. getter, function()
      holds(([[
        at_every_allocation()
        for i = 1, 30 do
          local c, s = pair()
          shake(c, s)
          for _, x in ipairs {c, s} do
            armed = function() x:close() end
            local v = x.%s(x, %s)
            assert(v == nil or type(v) ~= "userdata")
            armed = nil
          end
        end]]):format(getter, getter == "get_channel_binding" and [["tls-exporter"]] or "nil"))
    end)
  end

  it("is right or nil: its session", function()
    holds [[
      at_every_allocation()
      for i = 1, 50 do
        local c, s = pair()
        shake(c, s)
        armed = function() c:close() end
        local session = c.session
        armed = nil
        assert(session == nil or session.id == nil or #session.id > 0)
      end]]
  end)
end)

describe("what a finalizer changes of a context", function()
  it("does not reach a list of its ciphers that is being made", function()
    holds [[
      at_every_allocation()
      for i = 1, 50 do
        armed = function() client:set_ciphers(i % 2 == 0 and "ECDHE+AESGCM" or "ALL") end
        local list = client:get_ciphers()
        armed = nil
        for _, c in ipairs(list) do assert(c.name:find "^[%w_-]+$") end
      end]]
  end)

  it("does not reach the protocols that are being set", function()
    holds [[
      at_every_allocation()
      local list = {}
      for k = 1, 300 do
        for i = 1, 5 do list[i] = ("p"):rep(240) .. k .. i end
        armed = function()
          for i = 1, 5 do list[i] = nil end
          collectgarbage()
        end
        pcall(client.set_alpn_protocols, client, list)
        armed = nil
      end]]
  end)

  it("does not reach the CA certificates that are being listed", function()
    holds(([[
      at_every_allocation()
      for i = 1, 20 do
        local ctx = ssl.create_default_context {cafile = "%s"}
        armed = function() ctx:load_verify_locations "%s" end
        local list = ctx:get_ca_certs(i %% 2 == 0)
        armed = nil
        assert(#list == 1)
      end]]):format(certs.path "ca.pem", certs.path "other_ca.pem"))
  end)
end)

describe("a context whose connections live on", function()
  it("is not needed for the ALPN and the key log of a handshake", function()
    holds [[
      server:set_alpn_protocols {"h2"}
      client:set_alpn_protocols {"h2"}
      server.keylog_filename = "/dev/null"
      local c, s = pair()
      local function strip(object) -- takes all away that the debug library can
        for i = 1, 8 do
          local v, there = debug.getuservalue(object, i)
          if there then
            if type(v) == "userdata" and v ~= server then strip(v) end
            debug.setuservalue(object, nil, i)
          end
        end
      end
      strip(s)
      server = nil
      collectgarbage()
      collectgarbage()
      local others = {}
      for i = 1, 1000 do others[i] = ("z"):rep(100 + i) end
      shake(c, s)]]
  end)
end)

describe("connections and contexts whose finalizers Lua cannot call", function()
  it("leave nothing that leads to their memory", function()
    holds [[
      local kept
      for k = 170, 200 do
        do
          local c, s = pair()
          kept = debug.getuservalue(s, 1) -- what it is, is the library's business
          client:wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), {server_hostname = "localhost"})
          serving().keylog_filename = "/dev/null"
        end
        pcall(deep, k, collectgarbage)
        collectgarbage()
        collectgarbage()
        kept = nil
        collectgarbage()
        collectgarbage()
        local c, s = pair()
        shake(c, s)
        assert(c:version())
      end]]
  end)
end)

describe("a key log", function()
  local fifo

  before_each(function()
    fifo = os.tmpname()
    os.remove(fifo)
    assert(os.execute("mkfifo " .. fifo))
  end)

  after_each(function() os.remove(fifo) end)

  local HANDSHAKE = [[
    local function handshake()
      local c, s = pair()
      shake(c, s)
      assert(c:version())
    end
  ]]

  it("to a FIFO that nobody reads is an error at once", function()
    holds(([[
      local start = socket.monotonic()
      local ok, e = pcall(function() client.keylog_filename = "%s" end)
      assert(not ok and e.code == "ENXIO", e)
      assert(socket.monotonic() - start < 5)]]):format(fifo))
  end)

  it("to a FIFO whose reader goes does not end the program", function()
    local text, status = support.run(program(HANDSHAKE .. ([[
      local reader = io.popen("exec head -c 1 < %s", "r")
      for _ = 1, 500 do
        if pcall(function() client.keylog_filename = "%s" end) then break end
        socket.sleep(0.01)
      end
      assert(client.keylog_filename)
      handshake()
      reader:close() -- has read its byte and is gone
      handshake()]]):format(fifo, fifo)), {before = support.default_signals()})
    assert.equal("ok\n", text)
    assert.equal(0, status)
  end)

  it("to a FIFO that is full goes on without it", function()
    holds(HANDSHAKE .. ([[
      local reader = io.popen("exec 3< %s; read x", "w")
      for _ = 1, 500 do
        if pcall(function() client.keylog_filename = "%s" end) then break end
        socket.sleep(0.01)
      end
      assert(client.keylog_filename)
      for _ = 1, 150 do handshake() end -- some 600 bytes each; a FIFO of Linux holds 64 KiB
      reader:close()]]):format(fifo, fifo))
  end)
end)

describe("the private key of a file of parameters", function()
  it("is not asked for on the terminal", function()
    local encrypted = certs.encrypted("server", "secret")
    local text, status = support.run(program(([[
      assert(not pcall(server.load_dh_params, server, "%s"))]]):format(encrypted)), {before = "exec setsid -w"})
    assert.equal("ok\n", text)
    assert.equal(0, status)
  end)
end)
