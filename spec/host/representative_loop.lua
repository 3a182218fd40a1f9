-- What spec/host/allocfail.c runs of selectors and the loop, under a policy and limits: as representative.lua.

local socket = require "socket"
socket.setwaithook(nil) -- as a run that failed may have left it
local selectors = require "socket.selectors"
local loop = require "socket.loop"
local server = require "socket.server"

local R, W = selectors.EVENT_READ, selectors.EVENT_WRITE

local function is_memory(e)
  local text = tostring(e)
  return text:find "memory" or text:find "stack overflow"
end

local function failure(code, f, ...)
  local ok, e = pcall(f, ...)
  assert(not ok)
  if not socket.iserror(e) or e.code ~= code then error(e, 0) end
  return e
end

-- pcall for what a task may catch: an error of memory goes on.
local function try(f, ...)
  local ok, e = pcall(f, ...)
  if not ok and is_memory(e) then error(e, 0) end
  return ok, e
end

local parts = {}

function parts.selectors()
  for _, make in ipairs {selectors.DefaultSelector, selectors.PollSelector} do
    local sel <close> = make()
    local held = {}
    for i = 1, 80, 2 do held[i], held[i + 1] = socket.socketpair() end -- descriptors beyond the first 64
    local a, b = held[79], held[80]
    sel:register(a, R, "a")
    sel:register(b, R | W)
    sel:modify(b, R, "b")
    a:send "x"
    local n = 0
    for key, events in sel:select(5) do
      n = n + 1
      assert(key.data == "b" and events == R)
    end
    assert(n == 1 and sel:get_map()[a].data == "a" and sel:get_key(b).fd == b:fileno() and tostring(sel))
    sel:unregister(a)
    local r, w, x = selectors.select({a, b}, {a}, {}, 5)
    assert(r[1] == b and w[1] == a and #x == 0)
    failure("EACCES", sel.register, sel, 0, R)
    for _, s in ipairs(held) do s:close() end
  end
end

function parts.tasks()
  local listener <close> = socket.create_server {"127.0.0.1", 0}
  local size = 100000
  local got, sent = loop.run(loop.group, function(g) -- a group: when one task fails, nobody waits for it
    local serving = g:spawn(function()
      local conn <close> = listener:accept()
      local n = 0
      for data in function() return conn:recv(65536) end do n = n + #data end
      conn:sendall(tostring(n) .. "\n")
      return n
    end)
    local s <close> = socket.create_connection({"localhost", listener:getsockname().port}, 5)
    s:sendall(("x"):rep(size))
    s:shutdown(socket.SHUT_WR)
    local f <close> = s:makefile()
    return f:read "n", serving:join(5)
  end)
  assert(got == size and sent == size)
end

function parts.groups()
  loop.run(function()
    local a <close>, b = socket.socketpair()
    local _ <close> = b
    local n = 0
    loop.group({limit = 2}, function(g)
      for _ = 1, 5 do g:spawn(function() socket.sleep(0.0001) n = n + 1 end) end
    end)
    assert(n == 5)
    local ok, e = try(loop.group, function(g)
      g:spawn(function() b:recv(1) end)
      g:spawn(function() coroutine.yield() error({"thrown"}, 0) end)
    end)
    if type(e) ~= "table" or e[1] ~= "thrown" then error(e, 0) end
    assert(not ok)
    a:send "y"
    assert(b:recv(1) == "y")
  end)
end

function parts.cancel()
  loop.run(function()
    local a <close>, b = socket.socketpair()
    local _ <close> = b
    local task = loop.spawn(function() return b:recv(1) end)
    local fresh = loop.spawn(error)
    assert(fresh:cancel() and fresh.status == "cancelled")
    coroutine.yield()
    if task.status == "failed" then task:join() end
    assert(task.status == "waiting" and task:cancel() and tostring(task))
    local ok, e = try(task.join, task)
    if ok or not socket.iserror(e, loop.cancelled) then error(e, 0) end
    a:send "z"
    assert(b:recv(1) == "z")
    task = loop.spawn(function() return b:recv(1) end)
    coroutine.yield()
    b:close()
    failure("ECANCELED", task.join, task)
  end)
end

function parts.timers()
  local l <close> = loop.new()
  local rung, timers = 0, {} -- more of them than the heap first has room for
  for i = 1, 70 do timers[i] = l:after(i % 7 * 1e-5, function(n) rung = rung + n end, 1) end
  for i = 1, 70, 2 do assert(timers[i]:cancel()) end
  local value, code
  l:spawn(function()
    value = loop.timeout(5, function() socket.sleep(1e-5) return "done" end)
    code = failure("ETIMEDOUT", loop.timeout, 1e-4, function() socket.sleep(5) end).code
  end)
  l:run()
  assert(rung == 35 and value == "done" and code == "ETIMEDOUT" and l.count == 0)
end

-- A task that ends right after a wait for which there was no memory: nothing may be left that would come for it.
function parts.abandoned()
  local l <close> = loop.new()
  local a <close>, b = socket.socketpair()
  local _ <close> = b
  l.onerror = function(_, e) error(e, 0) end
  a:send "x"
  b:settimeout(1e-3):recv(1)
  l:spawn(function() pcall(b.recv, b, 1) end)
  l:step(0)
  collectgarbage()
  socket.sleep(2e-3)
  while l:step(0) do end
end

function parts.queues()
  loop.run(loop.group, function(g)
    local q, e, sum = loop.queue(2), loop.event(), 0
    local getter = g:spawn(function()
      e:wait()
      for v in function() return q:get(5) end do sum = sum + v end
    end)
    local putter = g:spawn(function()
      for i = 1, 5 do q:put(i) end
      q:close()
    end)
    coroutine.yield()
    e:set()
    putter:join()
    getter:join()
    assert(sum == 15 and e:isset() and e:wait(0.1))
    failure("ETIMEDOUT", function() loop.queue():get(1e-5) end)
  end)
end

function parts.nested()
  loop.run(loop.group, function(g)
    local a <close>, b = socket.socketpair()
    local _ <close> = b
    for _, wrap in ipairs {coroutine.wrap, loop.wrap} do
      local each = wrap(function()
        for _ = 1, 3 do coroutine.yield((b:recv(1))) end
      end)
      local sender = g:spawn(function()
        for i = 1, 3 do socket.sleep(1e-5) a:send(i) end
      end)
      for i = 1, 3 do
        local v = each()
        if v ~= tostring(i) then error(v, 0) end
      end
      sender:join()
    end
    local co = coroutine.create(function(x) return x + coroutine.yield(b:settimeout(1e-4):try_recv(1)) end)
    local ok, none = loop.resume(co, 1)
    if not ok then error(none, 0) end
    assert(none == nil)
    local last
    ok, last = loop.resume(co, 2)
    if not ok then error(last, 0) end
    assert(last == 3)
  end)
end

-- A host's frames: rounds that never wait, errors taken by onerror, a loop closed in the midst of it.
function parts.frames()
  local failed
  local l = loop.new()
  l.onerror = function(task, e) failed = failed or task and e end
  local a <close>, b = socket.socketpair()
  local data
  l:spawn(function()
    if not loop.wait(b, "r", 5) then error("nothing came", 0) end
    data = b:recv(10)
  end)
  l:spawn(error, "a task's error")
  l:step(0)
  a:send "now"
  for _ = 1, 1000 do
    if data or failed and is_memory(failed) then break end
    l:step(0.01)
  end
  if failed ~= "a task's error" then error(failed, 0) end
  assert(data == "now" and l:fileno() and l:timeout() == nil)
  l:spawn(function() b:recv(1) end)
  l:step(0)
  l:close()
  b:close()
end

function parts.server()
  local failed
  local function oops(_, _, _, e) failed = failed or e end
  local s <close> = server.TaskTCPServer({"127.0.0.1", 0}, function(request)
    request:sendall(request:recv(100):upper())
  end, {handle_error = oops})
  local ok, e = pcall(loop.run, loop.group, function(g)
    g:spawn(s.serve_forever, s)
    for _ = 1, 2 do
      local c <close> = socket.create_connection(s.server_address, 5)
      c:sendall "hello"
      local answer = c:recv(100)
      if answer ~= "HELLO" then error(failed or answer, 0) end
    end
    s:shutdown()
  end)
  if not ok then error(failed and is_memory(failed) and failed or e, 0) end
end

-- Left to the collector, with tasks and timers.
function parts.garbage()
  local l = loop.new()
  local a, b = socket.socketpair()
  l:spawn(function() a:recv(1) end)
  l:spawn(function() socket.sleep(10) end)
  l:after(10, print)
  l:step(0)
  b:close()
  a:close()
end

local names = {}
for name in pairs(parts) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs(names) do
  local ok, e = pcall(parts[name])
  if not ok and is_memory(e) then ok, e = pcall(parts[name]) end
  if not ok then error(name .. ": " .. tostring(e), 0) end
end
