-- What spec/host/allocfail.c runs: a little of everything, quickly. A part that
-- meets a memory error is run once more, with the same objects, and must then
-- succeed, unless memory is still short.

local socket = require "socket"

local a, b = socket.socketpair()
local server = socket.create_server {"127.0.0.1", 0}
local pool = {a, b, server}

-- A new socket that is closed at the end, also if its part fails.
local function keep(s)
  pool[#pool + 1] = s
  return s
end

for _, s in ipairs(pool) do s:settimeout(5) end

-- Everything there is to read: a part that is run again begins afresh.
local function drain(s)
  s:settimeout(0)
  while s:try_recv(65536) do end
  s:settimeout(5)
end

local function failure(code, f, ...)
  local ok, e = pcall(f, ...)
  assert(not ok)
  if not socket.iserror(e) then error(e, 0) end
  assert(e.code == code, e)
  assert(tostring(e):find(code, 1, true))
  return e
end

-- A scheduler: runs the tasks until all have ended.
local function together(...)
  local tasks = {}
  for i, f in ipairs {...} do tasks[i] = coroutine.create(f) end
  socket.setwaithook(function() return coroutine.yield() end, function() end)
  local failed, message
  repeat
    local alive
    for _, co in ipairs(tasks) do
      if coroutine.status(co) == "suspended" then
        local ok, e = coroutine.resume(co, true)
        if not ok then failed, message = true, e end
        alive = true
      end
    end
  until failed or not alive
  for _, co in ipairs(tasks) do coroutine.close(co) end
  socket.setwaithook(nil)
  if failed then error(message, 0) end
end

local parts = {}

function parts.stream()
  drain(b)
  a:sendall "hello"
  assert(b:recv(100) == "hello")
  a:send(socket.buffer "hello")
  local buffer = socket.buffer(10)
  assert(b:recv_into(buffer:view(3)) == 5)
  assert(buffer:sub(3, 7) == "hello" and buffer:find "llo" == 5)
  buffer:set(1, "ab", 99)
  buffer:pack(1, "<I2", 258)
  assert(buffer:unpack("<I2", 1) == 258)
  a:sendall(("x"):rep(70000))
  assert(#b:recv(70000, socket.MSG_WAITALL) == 70000)
  assert(tostring(a):find "AF_UNIX")
end

function parts.errors()
  local s = keep(socket.socket())
  s:settimeout(0)
  failure("EAGAIN", a.recv, a, 1, socket.MSG_DONTWAIT)
  local none, e = a:try_recv(1, socket.MSG_DONTWAIT)
  assert(none == nil and e.code == "EAGAIN")
  s:settimeout(0.05)
  s:bind {"127.0.0.1", 0}
  assert(failure("ECONNREFUSED", s.connect, s, s:getsockname() and {"127.0.0.1", 1}).address[2] == 1)
  a:settimeout(0.0001)
  assert(failure("ETIMEDOUT", a.recv, a, 1):is(socket.timeout))
  a:settimeout(5)
  s:close()
  failure("EBADF", s.recv, s, 1)
  failure("EAI_NONAME", socket.getaddrinfo, "x y", 1, {flags = socket.AI_NUMERICHOST})
  assert(not pcall(s.bind, s, {"127.0.0.1", 65536}))
  assert(s:try_bind {"127.0.0.1", 0} == nil)
  assert(socket.errno[socket.errno.EBADF] == "EBADF")
end

function parts.addresses()
  local address = server:getsockname()
  assert(address.port > 0 and tostring(address):find "127.0.0.1:" and address == server:getsockname())
  for _, case in ipairs {
    {socket.AF_INET6, {"::1", 80, 0, 1}}, {socket.AF_UNIX, "\0x"}, {socket.AF_NETLINK, {1, 2}},
    {socket.AF_PACKET, {"lo", 3, 0, 1, "abcdef"}}, {socket.AF_VSOCK, {1, 2}}, {99, {99, "raw"}},
  } do
    local back = socket.unpackaddr(socket.packaddr(case[1], case[2]))
    assert(tostring(back))
  end
  assert(socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, "::1")) == "::1")
  assert(#socket.if_nameindex() > 0)
  assert(#b:getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == 8)
end

function parts.names()
  assert(socket.getaddrinfo("127.0.0.1", 80)[1].sockaddr.port == 80)
  assert(socket.getaddrinfo("localhost", "http", {family = socket.AF_INET})[1].sockaddr[1] == "127.0.0.1")
  assert(socket.gethostbyname "127.0.0.1" == "127.0.0.1")
  assert(socket.getnameinfo({"127.0.0.1", 80}, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == "127.0.0.1")
  assert(socket.gethostbyname_ex "localhost")
  socket.setdefaulttimeout(10) -- now through a thread
  local ok, e = pcall(function()
    assert(socket.gethostbyaddr "127.0.0.1")
    assert(socket.getnameinfo({"127.0.0.1", 80}, socket.NI_NUMERICSERV))
  end)
  socket.setdefaulttimeout(nil)
  if not ok then error(e, 0) end
end

function parts.connections()
  local port = server:getsockname().port
  local c = keep(socket.create_connection({"127.0.0.1", port}, 5, {source_address = {"127.0.0.1", 0}}))
  server:accept():close()
  assert(c:recv(1) == nil)
  c:close()
  c = keep(socket.create_connection({"localhost", port}, 5))
  server:accept():close()
  c:close()
  c = keep(socket.socket())
  c:settimeout(5)
  c:connect {"localhost", port}
  server:accept():close()
  c:close()
  assert(#failure("ECONNREFUSED", socket.create_connection, {"localhost", 1}, 5).errors > 0)
  c = keep(socket.create_server({"", 0}, {family = socket.AF_INET6, dualstack_ipv6 = true}))
  c:dup():close()
  c:close()
end

function parts.datagrams()
  local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
  local r = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
  r:bind({"127.0.0.1", 0}):settimeout(5)
  s:sendto("hello", r:getsockname())
  local data, from = r:recvfrom(100)
  assert(data == "hello" and from.port == s:getsockname().port)
  s:connect(r:getsockname())
  s:send ""
  assert(r:recvfrom_into(socket.buffer(10)) == 0)
  s:close()
  r:close()
end

function parts.messages()
  drain(b)
  local fd = string.pack("=i4", a:fileno())
  a:sendmsg({"he", socket.buffer "llo"}, {{socket.SOL_SOCKET, socket.SCM_RIGHTS, fd}})
  local data, items = b:recvmsg(10, socket.CMSG_SPACE(4))
  assert(data == "hello" and #items == 1 and items[1].level == socket.SOL_SOCKET)
  -- their number is never asked for: the collector closes it
  socket.send_fds(a, "x", {a, io.stdout, 2})
  local _, fds = socket.recv_fds(b, 10, 10)
  assert(#fds == 3)
  for _, one in ipairs(fds) do socket.close(one) end
  a:sendmsg "hello"
  assert(b:recvmsg_into {socket.buffer(2), socket.buffer(10)} == 5)
end

function parts.files()
  local x, y = socket.socketpair()
  keep(x):settimeout(5)
  keep(y):settimeout(5)
  local w <close> = x:makefile("w", 100)
  local r <close> = y:makefile()
  w:write("one\n", 2, "\n", ("three"):rep(50), "\n"):flush()
  assert(r:read() == "one" and r:read "n" == 2 and r:read "L" == "\n" and #r:read(250) == 250)
  w:setvbuf "line"
  w:write "\na\nb\n"
  w:close()
  x:close()
  local n = 0
  for _ in r:lines() do n = n + 1 end
  assert(n == 4 and r:read "a" == "" and tostring(r))
  local none, e = w:try_write "x"
  assert(none == nil and e.code == "EBADF")
end

function parts.sendfile()
  drain(b)
  local f <close> = assert(io.tmpfile())
  f:write(("x"):rep(5000))
  assert(a:sendfile(f, 1000) == 4000)
  assert(#b:recv(5000, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == 4000)
  failure("ENOENT", a.sendfile, a, "/nowhere")
  assert(a:sendfile("/proc/self/exe", 0, 100) == 100)
  drain(b)
end

function parts.coroutines()
  local x, y = socket.socketpair()
  keep(x)
  keep(y)
  local f = y:makefile()
  together(
    function() assert(f:read("l", "l", "n") == "one") end,
    function() x:sendall "one\n" socket.sleep(0.0001) x:sendall "two\n3 " end,
    function() server:accept():close() end,
    function() socket.create_connection({"localhost", server:getsockname().port}, 5):close() end,
    function() socket.gethostbyaddr "127.0.0.1" end)
  f:close()
  together(
    function() failure("ECANCELED", y.recv, y, 10) end,
    function() y:close() end)
  local co = coroutine.wrap(function() x:recvmsg(10, 100) end)
  socket.setwaithook(coroutine.yield)
  co()
  socket.setwaithook(nil)
  x:close() -- the coroutine waits for ever
end

-- Fills the module's table.
function parts.constants()
  local n = 0
  for _ in pairs(socket) do n = n + 1 end
  assert(n > 500)
end

local names = {}
for name in pairs(parts) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs(names) do
  local ok, e = pcall(parts[name])
  if not ok and (tostring(e):find "memory" or tostring(e):find "stack overflow") then
    socket.setwaithook(nil)
    socket.setdefaulttimeout(nil)
    local s = server:settimeout(0)
    while s:try_accept() do end -- of a connection whose other end failed
    s:settimeout(5)
    a:settimeout(5)
    ok, e = pcall(parts[name])
  end
  if not ok then error(name .. ": " .. tostring(e), 0) end
end
for _, s in ipairs(pool) do s:close() end
