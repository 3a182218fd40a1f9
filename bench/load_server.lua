-- load_server.lua: the echo server of load_server.c with several libraries, each as one who knows it
-- well would write it for speed. lua5.4 bench/load_server.lua <which>; prints its port.
local servers = {}

servers["selectors"] = function(listening)
  local socket, selectors = require "socket", require "socket.selectors"
  local READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
  local sel = selectors.DefaultSelector()
  local echo

  local function hang_up(conn)
    sel:unregister(conn)
    conn:close()
  end

  -- Reads on when the peer has taken `rest`.
  local function after_sending(conn, rest)
    sel:modify(conn, WRITE, function()
      local sent, e = conn:try_send(rest)
      if not sent then return e.code == "EAGAIN" or hang_up(conn) end
      rest = rest:sub(sent + 1)
      if rest == "" then sel:modify(conn, READ, echo) end
    end)
  end

  -- Nothing received lives longer than a call: one buffer for all, and no strings to collect.
  local buffer, views = socket.buffer(4096), {}
  function echo(conn)
    local n, e = conn:try_recv_into(buffer)
    if n then
      local data = views[n]
      if not data then
        data = buffer:view(1, n)
        views[n] = data
      end
      local sent = conn:try_send(data)
      if sent ~= n then after_sending(conn, buffer:sub((sent or 0) + 1, n)) end
    elseif not e or e.code ~= "EAGAIN" then
      hang_up(conn)
    end
  end

  local listener = socket.create_server({"127.0.0.1", 0}, {backlog = 4096})
  listener:settimeout(0)
  sel:register(listener, READ, function()
    local conn = listener:try_accept()
    if not conn then return end
    conn:settimeout(0)
    conn:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sel:register(conn, READ, echo)
  end)
  listening(listener:getsockname().port)
  while true do
    for key in sel:select() do key.data(key.fileobj) end
  end
end

local function with_loop(listening, timeout)
  local socket, loop = require "socket", require "socket.loop"
  local function serve(conn)
    conn:settimeout(timeout)
    conn:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    repeat
      local data = conn:try_recv(4096)
    until not data or not conn:try_sendall(data)
    conn:close()
  end
  loop.run(function()
    local listener = socket.create_server({"127.0.0.1", 0}, {backlog = 4096})
    listening(listener:getsockname().port)
    while true do loop.spawn(serve, listener:accept()) end
  end)
end

servers["loop"] = with_loop
servers["loop, timeouts"] = function(listening) with_loop(listening, 60) end

-- Callbacks. try_write makes no request object; write takes what the kernel does not.
servers["luv"] = function(listening)
  local uv = require "luv"
  uv.new_signal():start "sigpipe" -- or it ends the process
  local listener = uv.new_tcp()
  listener:bind("127.0.0.1", 0)
  listener:listen(4096, function()
    local conn = uv.new_tcp()
    listener:accept(conn)
    conn:nodelay(true)
    local function echo(_, data)
      if not data then return conn:close() end
      local sent = conn:try_write(data) or 0
      if sent == #data then return end
      conn:read_stop() -- until the rest is gone
      conn:write(data:sub(sent + 1), function(err)
        if err then conn:close() else conn:read_start(echo) end
      end)
    end
    conn:read_start(echo)
  end)
  listening(listener:getsockname().port)
  uv.run()
end

-- A coroutine a connection over the same callbacks.
servers["luv, coroutines"] = function(listening)
  local uv = require "luv"
  uv.new_signal():start "sigpipe" -- or it ends the process
  local resume, yield = coroutine.resume, coroutine.yield

  local function serve(conn, co)
    local function go_on(_, data)
      local ok, err = resume(co, data)
      if not ok then error(err) end
    end
    conn:nodelay(true)
    conn:read_start(go_on)
    for data in yield do
      local sent = conn:try_write(data) or 0
      if sent < #data then
        conn:read_stop()
        conn:write(data:sub(sent + 1), function(err)
          if err then conn:close() else conn:read_start(go_on) end
        end)
      end
    end
    conn:close()
  end

  local listener = uv.new_tcp()
  listener:bind("127.0.0.1", 0)
  listener:listen(4096, function()
    local conn = uv.new_tcp()
    listener:accept(conn)
    local co = coroutine.create(serve)
    assert(resume(co, conn, co))
  end)
  listening(listener:getsockname().port)
  uv.run()
end

servers["cqueues"] = function(listening)
  local cqueues, socket = require "cqueues", require "cqueues.socket"
  local queue = cqueues.new()
  local listener = assert(socket.listen {host = "127.0.0.1", port = 0, nodelay = true})
  local function serve(conn)
    conn:setmode("bn", "bn") -- no conversion of line ends, no output buffer
    for data in conn:lines(-4096) do -- at most so many
      conn:write(data)
    end
    conn:close()
  end
  queue:wrap(function()
    for conn in listener:clients() do queue:wrap(serve, conn) end
  end)
  assert(listener:listen())
  listening(select(3, listener:localname()))
  assert(queue:loop())
end

-- It selects: not for descriptors above 1,023.
servers["copas"] = function(listening)
  package.path = package.path .. ";/usr/share/lua/5.2/?.lua;/usr/share/lua/5.1/?.lua" -- where Debian has it
  local socket, copas = require "socket", require "copas"
  local receive, send = copas.receive, copas.send
  local listener = assert(socket.bind("127.0.0.1", 0, 4096))
  copas.addserver(listener, function(conn)
    conn:setoption("tcp-nodelay", true)
    repeat
      local data = receive(conn, 64)
    until not data or not send(conn, data)
    conn:close()
  end, 0)
  listening(select(2, listener:getsockname()))
  copas.loop()
end

local serve = servers[arg[1]] or error("no such server: " .. tostring(arg[1]))
serve(function(port)
  print(math.tointeger(port))
  io.stdout:flush()
end)
