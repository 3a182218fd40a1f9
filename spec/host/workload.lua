-- What spec/host/tsan_states.c runs in several Lua states at once: a little of
-- everything, for a given number of seconds. Any error ends the program.

local socket = require "socket"

local seconds, number = ...
math.randomseed(number)

local function message(n)
  return string.char(math.random(0, 255)):rep(n)
end

local function recv_exactly(s, n)
  local pieces = {}
  while n > 0 do
    local data = assert(s:recv(n), "the stream ended early")
    pieces[#pieces + 1] = data
    n = n - #data
  end
  return table.concat(pieces)
end

local function fails(code, f, ...)
  local ok, err = pcall(f, ...)
  assert(not ok and socket.iserror(err), "no socket error: " .. tostring(err))
  assert(err.code == code, "not " .. code .. ": " .. tostring(err))
  assert(tostring(err):find(code, 1, true))
end

local work = {}

function work.pair()
  local a, b = socket.socketpair()
  local _ <close> = a
  local _ <close> = b
  for _, s in ipairs {a, b} do s:settimeout(5) end
  for _ = 1, 20 do
    local m = message(math.random(1, 4096))
    a:sendall(m)
    b:sendall(recv_exactly(b, #m))
    assert(recv_exactly(a, #m) == m)
  end
  a:shutdown(socket.SHUT_WR)
  assert(b:recv(1) == nil)
end

function work.tcp()
  local server <close> = socket.create_server {"127.0.0.1", 0}
  local _, port = table.unpack(server:getsockname())
  local client <close> = socket.socket()
  client:settimeout(5)
  client:connect {"127.0.0.1", port}
  server:settimeout(5)
  local conn <close>, peer = server:accept()
  assert(peer == client:getsockname())
  conn:settimeout(5)
  local m = message(16000)
  client:sendall(m)
  conn:sendall(recv_exactly(conn, #m))
  assert(recv_exactly(client, #m) == m)
end

-- Lookups go to a worker thread when there is a timeout. Numbers and localhost need none, the name of an address does.
function work.names()
  local server <close> = socket.create_server {"127.0.0.1", 0}
  local _, port = table.unpack(server:getsockname())
  local client <close> = socket.socket()
  client:settimeout(10)
  client:connect {"localhost", port}
  server:settimeout(5)
  server:accept():close()
  local other <close> = socket.create_connection({"localhost", port}, 10)
  server:accept():close()
  assert(other:getpeername()[2] == port)

  socket.setdefaulttimeout(10)
  local list = socket.getaddrinfo("localhost", port, socket.AF_INET, socket.SOCK_STREAM)
  assert(list[1].sockaddr[1] == "127.0.0.1")
  assert(socket.gethostbyaddr "127.0.0.1")
  -- Too little time: most of these lookups are abandoned.
  socket.setdefaulttimeout(0.00001)
  for _ = 1, 3 do pcall(socket.gethostbyaddr, "127.0.0.1") end
  socket.setdefaulttimeout(nil)
end

function work.udp()
  local a <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
  local b <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
  a:bind {"127.0.0.1", 0}
  b:bind {"127.0.0.1", 0}
  b:settimeout(5)
  local m = message(512)
  a:sendto(m, b:getsockname())
  local data, from = b:recvfrom(2048)
  assert(data == m and from == a:getsockname())
end

function work.errors()
  local s <close> = socket.create_server {"127.0.0.1", 0}
  s:settimeout(0.001)
  fails("ETIMEDOUT", s.accept, s)
  s:settimeout(0)
  fails("EAGAIN", s.accept, s)
  local none, err = s:try_accept()
  assert(none == nil and err.code == "EAGAIN")
  local free = s:getsockname()
  s:close()
  fails("EBADF", s.accept, s)
  local c <close> = socket.socket()
  fails("ECONNREFUSED", c.connect, c, free)
  fails("EAI_NONAME", socket.getaddrinfo, "localhost", 1, 0, 0, 0, socket.AI_NUMERICHOST)
  assert(not pcall(c.connect, c, {"127.0.0.1", 65536}))
  assert(not pcall(c.bind, c, true))
end

-- Reader and writer as coroutines under a wait hook that resumes everybody in turn.
function work.coroutines()
  local a, b = socket.socketpair()
  local _ <close> = a
  local _ <close> = b
  local m = message(300000)
  local got
  local tasks = {
    coroutine.create(function() got = recv_exactly(b, #m) end),
    coroutine.create(function() a:sendall(m) end),
  }
  socket.setwaithook(function() return coroutine.yield() end)
  local alive
  repeat
    alive = false
    for _, co in ipairs(tasks) do
      if coroutine.status(co) == "suspended" then
        assert(coroutine.resume(co, true))
        alive = true
      end
    end
  until not alive
  socket.setwaithook(nil)
  assert(got == m)
end

function work.selectors()
  local selectors = require "socket.selectors"
  for _, make in ipairs {selectors.DefaultSelector, selectors.PollSelector} do
    local sel <close> = make()
    local a <close>, b = socket.socketpair()
    local _ <close> = b
    sel:register(b, selectors.EVENT_READ)
    a:send "x"
    for key in sel:select(5) do assert(key.fileobj:recv(1) == "x") end
  end
end

-- Tasks that talk, look names up, time out, are cancelled.
function work.loop()
  local loop = require "socket.loop"
  local m = message(200000)
  local received = 0
  loop.run(function()
    local server <close> = socket.create_server {"127.0.0.1", 0}
    local port = server:getsockname().port
    loop.group(function(g)
      g:spawn(function()
        for _ = 1, 5 do
          local conn = server:accept()
          g:spawn(function()
            local _ <close> = conn
            conn:sendall(recv_exactly(conn, #m))
          end)
        end
      end)
      for _ = 1, 5 do
        g:spawn(function()
          local s <close> = socket.create_connection({"localhost", port}, 10)
          s:sendall(m)
          assert(recv_exactly(s, #m) == m)
          received = received + 1
        end)
      end
    end)
    fails("ETIMEDOUT", loop.timeout, 0.001, socket.sleep, 10)
    local queue = loop.queue(2)
    local getter = loop.spawn(function() return queue:get() + queue:get() end)
    queue:put(1)
    queue:put(2)
    assert(getter:join() == 3)
    local waits = loop.spawn(socket.sleep, 10)
    coroutine.yield()
    waits:cancel()
    assert(not pcall(waits.join, waits))
  end)
  assert(received == 5)
end

-- Left to the collector; without a warning, as nothing has switched them on.
function work.garbage()
  for _ = 1, 10 do socket.socketpair() end
  collectgarbage()
end

local deadline = socket.monotonic() + seconds
repeat
  for _, f in pairs(work) do f() end
until socket.monotonic() > deadline
