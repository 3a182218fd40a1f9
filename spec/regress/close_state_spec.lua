-- os.exit(0, true) closes the Lua state where it is called, with everything below it still running: in a task, in each
-- callback, in a finalizer. While the state closes, a finalizer makes sockets, loops and contexts once more.

local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"

local PRELUDE = [[
local socket, loop = require "socket", require "socket.loop"
local function bye() os.exit(0, true) end
local last = setmetatable({}, {__gc = function()
  local s = socket.socket()
  pcall(s.connect, s, {"127.0.0.1", 1})
  local a, b = socket.socketpair()
  coroutine.wrap(function()
    a:settimeout(0.01)
    pcall(a.recv, a, 1)
  end)()
  pcall(loop.run, function() socket.sleep(0.001) end)
  if socket.ssl then pcall(socket.ssl.SSLContext, socket.ssl.PROTOCOL_TLS_CLIENT) end
end})
]]

local places = {
  ["the main program, with everything open"] = [[
    local a, b = socket.socketpair()
    local f, sel, r = a:makefile "rw", socket.selectors.DefaultSelector(), socket.reactor.new(print)
    sel:register(b, 1)
    r:add(coroutine.create(function() b:recv(1) end))
    r:turn(0)
    f:write "unsent"
    bye()]],
  ["a task"] = [[
    loop.run(function()
      loop.spawn(function() socket.sleep(1) end)
      socket.sleep(0.001)
      bye()
    end)]],
  ["a task that a waiting coroutine of another one lets run"] = [[
    loop.run(function()
      local a, b = socket.socketpair()
      loop.spawn(bye)
      coroutine.wrap(function() a:recv(1) end)()
    end)]],
  ["a group that another task's error ends"] = [[
    loop.run(function()
      pcall(loop.group, function(g)
        g:spawn(function()
          local _ <close> = setmetatable({}, {__close = bye})
          socket.sleep(1)
        end)
        g:spawn(function() error "now" end)
      end)
    end)]],
  ["a timer"] = [[
    loop.run(function()
      loop.current().loop.reactor:after(0.001, bye)
      socket.sleep(1)
    end)]],
  ["the function that a reactor tells of ended tasks"] = [[
    local r = socket.reactor.new(bye)
    r:add(coroutine.create(function() end))
    r:turn(0)]],
  ["the wait hook"] = [[
    socket.setwaithook(bye)
    local a, b = socket.socketpair()
    coroutine.wrap(function() a:recv(1) end)()]],
  ["the wake function"] = [[
    socket.setwaithook(function() return coroutine.yield() end, bye)
    local a, b = socket.socketpair()
    coroutine.wrap(function() a:recv(1) end)()
    a:close()]],
  ["a finalizer"] = [[
    setmetatable({}, {__gc = bye})
    collectgarbage()
    collectgarbage()]],
  ["a finalizer within a receive"] = [[
    local a, b = socket.socketpair()
    b:sendall(("x"):rep(60000))
    collectgarbage "stop"
    for i = 1, 10 do setmetatable({}, {__gc = bye}) end
    collectgarbage "restart"
    collectgarbage("incremental", 1, 1000, 1)
    for i = 1, 1000 do a:recv(60) end]],
  ["a Lua hook within a wait"] = [[
    local a, b = socket.socketpair()
    a:settimeout(5)
    debug.sethook(bye, "", 1)
    a:recv(1)]],
  ["a method that a selector calls"] = [[
    local sel = socket.selectors.DefaultSelector()
    sel:register({fileno = bye}, 1)]],
  ["the loop over what a selector tells"] = [[
    local sel = socket.selectors.DefaultSelector()
    local list = {}
    for i = 1, 300 do
      list[i] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      sel:register(list[i], 2)
    end
    local n = 0
    for _ in sel:select(1) do
      n = n + 1
      if n == 200 then bye() end
    end]],
  ["a handler of a server"] = [[
    local server = require "socket.server"
    loop.run(function()
      local s <close> = server.TaskTCPServer({"127.0.0.1", 0}, bye, {})
      loop.spawn(s.serve_forever, s)
      socket.create_connection(s.server_address):recv(1)
    end)]],
  ["the midst of many lookups"] = [[
    loop.run(function()
      for i = 1, 200 do
        loop.spawn(function() socket.try_getaddrinfo("host" .. i .. ".invalid", 80) end)
      end
      socket.sleep(0.02)
      bye()
    end)]],
}

local tls_places = {
  ["a password function"] = [[
    server:load_cert_chain(server_pem, encrypted, bye)]],
  ["an sni callback"] = [[
    server.sni_callback = bye
    loop.run(function()
      local a, b = socket.socketpair()
      loop.spawn(function() server:wrap_socket(a, {server_side = true}) end)
      client:wrap_socket(b, {server_hostname = "x"})
    end)]],
  ["a wait hook within a handshake"] = [[
    socket.setwaithook(bye)
    local a, b = socket.socketpair()
    coroutine.wrap(function() client:wrap_socket(b, {server_hostname = "x"}) end)()]],
}

local TLS = [[
local server_pem, server_key, encrypted = %q, %q, %q
local ssl = socket.ssl
local server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
server:load_cert_chain(server_pem, server_key)
client.check_hostname = false
client.verify_mode = ssl.CERT_NONE
]]

describe("closing the state", function()
  local function ends_well(code)
    local text, status = support.run(PRELUDE .. code .. ' print "not reached"', {leaks = false})
    assert.equal("", text)
    assert.equal(0, status)
  end

  for where, code in pairs(places) do
    it("in " .. where .. " ends the program well", function() ends_well(code) end)
  end

  for where, code in pairs(tls_places) do
    it("in " .. where .. " ends the program well", function()
      if not socket.ssl then return pending "needs socket.ssl" end
      local key = certs.encrypted("server", "secret")
      ends_well(TLS:format(certs.path "server.pem", certs.path "server.key", key) .. code)
    end)
  end

  -- What was held has been given back then: descriptors may be others', and memory may be freed.
  it("leaves nothing to a finalizer that is older than the library", function()
    local text, status = support.run([[
      local late = setmetatable({}, {__gc = function()
        local calls = {
          new = socket.socketpair, use = function() return s:fileno() end, read = function() return f:read(1) end,
          lookup = function() return socket.getaddrinfo("localhost", 80) end, select = selectors.DefaultSelector,
          close = function() return s:close() end, resume = function() assert(coroutine.close(waiting)) end,
        }
        for name, call in pairs(calls) do
          local ok, e = pcall(call)
          if ok or not tostring(e):find "the state is being closed" then print(name, ok, e) end
        end
      end})
      socket = require "socket"
      selectors = socket.selectors
      socket.setwaithook(coroutine.yield)
      local peer
      s, peer = socket.socketpair()
      f = s:makefile()
      waiting = coroutine.create(function() socket.getaddrinfo("silent.invalid", 80) end)
      coroutine.resume(waiting)
      os.exit(0, true)]], {leaks = false})
    assert.equal("", text)
    assert.equal(0, status)
  end)
end)
