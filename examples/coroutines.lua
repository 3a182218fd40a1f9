-- Many conversations in one thread: inside a coroutine, a call that would wait
-- asks a function of ours instead, and that hands the thread to somebody else.
-- Here the waiting is done by luv (luarocks install luv); any event loop will do.
--
--   lua5.4 examples/coroutines.lua

local socket = require "socket"
local found, uv = pcall(require, "luv")
if not found then
  io.stderr:write "this example needs luv: luarocks install luv\n"
  os.exit(1)
end
io.stdout:setvbuf "line"

-- True when the socket is ready, false when the seconds are over.
socket.setwaithook(function(sock, direction, seconds)
  local task, poll, timer = coroutine.running(), uv.new_poll(sock:fileno()), uv.new_timer()
  local function resume(ready)
    poll:close()
    timer:close()
    assert(coroutine.resume(task, ready))
  end
  poll:start(direction, function() resume(true) end)
  if seconds then
    uv.update_time()
    timer:start(math.ceil(seconds * 1000), 0, function() resume(false) end)
  end
  return coroutine.yield()
end)

local function spawn(f, ...) assert(coroutine.resume(coroutine.create(f), ...)) end

-- From here on: ordinary blocking code, and yet all of it runs at once.
local server = socket.create_server {"127.0.0.1", 0}

spawn(function()
  for _ = 1, 3 do
    spawn(function(conn)
      for data in function() return conn:recv(1024) end do conn:sendall(data) end
      conn:close()
    end, (server:accept()))
  end
  server:close()
end)

for client = 1, 3 do
  spawn(function()
    local s <close> = socket.socket()
    s:connect(server:getsockname())
    for round = 1, 3 do
      s:sendall(("client %d, round %d"):format(client, round))
      print(s:recv(1024))
      s:settimeout(0.05 * client)
      assert(select(2, s:try_recv(1)):is(socket.timeout))    -- a pause, for show
      s:settimeout(nil)
    end
  end)
end

uv.run()
