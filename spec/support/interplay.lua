-- What blocking code does under another library's scheduler: spec/interplay_spec.lua runs each of these in a process
-- of its own, after the recipe of an example. They take the recipe's spawn and run, and raise an error if something is
-- wrong.

local socket = require "socket"

local M = {}

local function is(expected, value, what)
  if expected ~= value then
    error(("%s: expected %s, got %s"):format(what or "value", tostring(expected), tostring(value)), 2)
  end
end

local function code(expected, result, e)
  is(nil, result, "result")
  is(expected, e.code, "code")
  return e
end

-- Runs it; it must take that long at least, and not much longer.
local function takes(least, most, f)
  local start = socket.monotonic()
  f()
  local seconds = socket.monotonic() - start
  assert(seconds >= least and seconds < most, ("took %.3f s, not %.3f to %.3f"):format(seconds, least, most))
end

local function tcp()
  local listener <close> = socket.create_server {"127.0.0.1", 0}
  local a = socket.create_connection(listener:getsockname())
  return a, (listener:accept())
end

local function descriptors()
  local lfs = require "lfs"
  collectgarbage()
  collectgarbage()
  local n = 0
  for _ in lfs.dir "/proc/self/fd" do n = n + 1 end
  return n
end

-- A server with a task a connection, and clients: lines of a file, with a pause before each answer.
local function talk(spawn, clients, rounds, pause)
  local listener = socket.create_server {"127.0.0.1", 0}
  local address, answers = listener:getsockname(), 0
  spawn(function()
    for _ = 1, clients do
      spawn(function(conn)
        local file <close> = conn:makefile "rw"
        conn:close()
        for line in file:lines() do
          socket.sleep(pause)
          file:write(line:upper(), "\n"):flush()
        end
      end, (listener:accept()))
    end
    listener:close()
  end)
  for i = 1, clients do
    spawn(function()
      local s <close> = socket.create_connection(address, 10)
      local file <close> = s:makefile()
      for round = 1, rounds do
        s:sendall(("client %d, round %d\n"):format(i, round))
        is(("CLIENT %d, ROUND %d"):format(i, round), file:read(), "answer")
        answers = answers + 1
      end
    end)
  end
  return function() is(clients * rounds, answers, "answers") end
end

M["serves many at once"] = function(spawn, run)
  local check = talk(spawn, 8, 4, 0.05)
  takes(0.2, 0.8, run) -- one after the other: 1.6
  check()
end

M["sleeps in many tasks at once"] = function(spawn, run)
  local ended = {}
  for i = 1, 60 do
    spawn(function()
      local seconds = 0.02 * (1 + i % 5)
      takes(seconds, seconds + 0.4, function() socket.sleep(seconds) end)
      ended[#ended + 1] = i % 5
    end)
  end
  takes(0.05, 0.6, run) -- where spawn starts a task at once, its time began before run
  is(60, #ended)
  is(0, ended[1], "first")
  is(4, ended[60], "last")
end

M["speaks TLS, and a client that stalls in the handshake stops nobody"] = function(spawn, run)
  local ssl = socket.ssl
  local server_side = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
  server_side:load_cert_chain(arg[1], arg[2])
  local client_side = ssl.create_default_context {cafile = arg[3]}
  local listener = socket.create_server {"127.0.0.1", 0}
  local address, served, stalled = listener:getsockname(), 0, 0
  local mute = socket.create_connection(address) -- first in the queue
  spawn(function()
    for _ = 1, 4 do
      spawn(function(plain)
        plain:settimeout(0.3)
        local ok, conn = pcall(server_side.wrap_socket, server_side, plain, {server_side = true})
        if not ok then
          is("ETIMEDOUT", conn.code)
          is(3, served, "clients served before the stalled one gave up")
          stalled = stalled + 1
          return plain:close()
        end
        conn:settimeout(10)
        for data in function() return conn:recv(65536) end do conn:sendall(data) end
        conn:close()
      end, (listener:accept()))
    end
    listener:close()
  end)
  for i = 1, 3 do
    spawn(function()
      local plain = socket.create_connection(address, 10)
      local s <close> = client_side:wrap_socket(plain, {server_hostname = "localhost"})
      local data = ("%d"):format(i):rep(200000)
      spawn(function() s:sendall(data) end)   -- one writes, one reads
      local file <close> = s:makefile()
      is(data, file:read(#data), "echo")
      served = served + 1
    end)
  end
  run()
  mute:close()
  is(1, stalled, "stalled")
end

M["ends waits when their time is up"] = function(spawn, run)
  local a, b = tcp()
  local ticks = 0
  spawn(function()
    for _ = 1, 5 do
      socket.sleep(0.02)
      ticks = ticks + 1
    end
  end)
  spawn(function()
    local listener <close> = socket.create_server {"127.0.0.1", 0}
    listener:settimeout(0.05)
    takes(0.05, 0.5, function() code("ETIMEDOUT", listener:try_accept()) end)
    a:settimeout(0.05)
    for _ = 1, 2 do
      takes(0.05, 0.5, function() assert(code("ETIMEDOUT", a:try_recv(1)):is(socket.timeout)) end)
    end
    local data = ("x"):rep(8 << 20)
    takes(0.05, 1, function()                 -- "w"
      local e = code("ETIMEDOUT", a:try_sendall(data))
      data = data:sub(1, e.sent)
    end)
    a:settimeout(10)
    spawn(function() is(data, b:recv(#data, socket.MSG_WAITALL), "what was sent") b:sendall "y" end)
    is("y", a:recv(1), "later")
    a:close()
    b:close()
  end)
  run()
  is(5, ticks, "ticks meanwhile")
end

M["wakes the waiters of a socket that is closed"] = function(spawn, run)
  local canceled = 0
  for _ = 1, 3 do
    local a, b = tcp()
    local fd = a:fileno()
    spawn(function()
      code("ECANCELED", a:try_recv(1))
      canceled = canceled + 1
    end)
    spawn(function()
      code("ECANCELED", a:try_sendall(("x"):rep(8 << 20)))
      canceled = canceled + 1
    end)
    spawn(function()
      socket.sleep(0.02)
      takes(0, 0.2, function() a:close() end)
      local c, d = socket.socketpair()        -- the number is free again
      assert(c:fileno() == fd or d:fileno() == fd)
      c:settimeout(5)
      spawn(function()
        socket.sleep(0.02)
        d:sendall "new"
      end)
      is("new", c:recv(3), "of the socket with the same number")
      for _, s in ipairs {b, c, d} do s:close() end
    end)
  end
  takes(0.02, 2, run)
  is(6, canceled, "canceled")
end

M["has one task read and another write the same socket"] = function(spawn, run)
  local a, b = tcp()
  local data, done = {}, 0
  for i, s in ipairs {a, b} do
    data[s] = ("%d"):format(i):rep(3 << 20)
    spawn(function() s:sendall(data[s]):shutdown(socket.SHUT_WR) end)
  end
  for s, peer in pairs {[a] = b, [b] = a} do
    spawn(function()
      local file <close> = s:makefile()
      assert(data[peer] == file:read "a", "data damaged")
      s:close()
      done = done + 1
    end)
  end
  run()
  is(2, done)
end

M["looks names up and connects to them"] = function(spawn, run)
  local listener = socket.create_server {"127.0.0.1", 0}
  local port, found = listener:getsockname().port, 0
  for _ = 1, 4 do
    spawn(function()
      local list = socket.getaddrinfo("localhost", port, socket.AF_INET, socket.SOCK_STREAM)
      local s <close> = socket.socket()
      s:settimeout(10)
      s:connect(list[1].sockaddr)
      is("hello", s:recv(5))
      found = found + 1
    end)
  end
  spawn(function()
    for _ = 1, 4 do
      local conn <close> = listener:accept()
      conn:sendall "hello"
    end
    listener:close()
  end)
  run()
  is(4, found)
end

M["does not lose the error of a task"] = function(spawn, run)
  local a, b = tcp()
  local rest = 0
  spawn(function()
    local s <close> = a
    s:settimeout(0.02)
    s:recv(1)
  end)
  spawn(function()
    is(nil, b:recv(1), "end of stream, as the failed task's socket was closed")
    b:close()
    rest = rest + 1
  end)
  local ok, e = pcall(run)
  is(false, ok)
  assert(socket.iserror(e, socket.timeout), e)
  spawn(function() error "oops" end)
  ok, e = pcall(run)
  assert(not ok and e:find "oops" and e:find "traceback", e)
  run()
  is(1, rest, "the other task")
end

M["leaves no descriptor behind"] = function(spawn, run)
  talk(spawn, 3, 2, 0.001)
  run()
  local before = descriptors()
  for _ = 1, 3 do
    talk(spawn, 5, 3, 0.001)
    local a, b = tcp()
    spawn(function() code("ECANCELED", a:try_recv(1)) end)
    spawn(function()
      code("ETIMEDOUT", b:settimeout(0.01):try_recv(1))
      a:close()
      b:close()
    end)
    run()
    is(before, descriptors(), "descriptors")
  end
end

-- Descriptors that are opened, waited for, closed and opened again under the same numbers.
M["is not misled by numbers of descriptors used again"] = function(spawn, run)
  local rounds = 0
  for _ = 1, 10 do
    spawn(function()
      for _ = 1, 15 do
        socket.sleep(0.001)
        local a, b = socket.socketpair()
        spawn(function()
          for data in function() return b:recv(100) end do b:sendall(data) end
          b:close()
        end)
        a:settimeout(5)
        is("x", a:sendall("x"):recv(1))
        socket.sleep(0.001)
        is("y", a:sendall("y"):recv(1))
        a:settimeout(0.002)
        code("ETIMEDOUT", a:try_recv(1))
        a:close()
        rounds = rounds + 1
      end
    end)
  end
  run()
  is(150, rounds)
end

-- Not with copas, which cannot tell them from its own.
M["lets coroutines that are no tasks block"] = function(spawn, run)
  local seen, ticks = {}, 0
  takes(0.06, 1, function()
    spawn(function()
      local numbers = coroutine.wrap(function()
        for n = 1, 3 do
          socket.sleep(0.02)
          coroutine.yield(n)
        end
      end)
      for n in numbers do seen[#seen + 1] = n end
    end)
    spawn(function()
      socket.sleep(0.001)
      ticks = ticks + 1
    end)
    run()
  end)
  is("1 2 3", table.concat(seen, " "))
  is(1, ticks)
end

return M
