-- Listening sockets for specs of connecting: those that answer, and those that never do.

local socket = require "socket"

local M = {}

function M.inet(host) return host:find ":" and socket.AF_INET6 or socket.AF_INET end

function M.listener(host, port)
  return socket.create_server({host, port or 0}, {family = M.inet(host)})
end

-- The address of a port where nobody listens.
function M.nobody(host)
  local s <close> = socket.socket(M.inet(host)):bind {host, 0}
  return s:getsockname()
end

local kept = {}

-- The address of a listener whose queue is full, so that further connects hang. Its descriptors stay open until
-- close_stuck().
function M.stuck(host, port)
  local server = socket.create_server({host, port or 0}, {family = M.inet(host), backlog = 0})
  local address = server:getsockname()
  for _ = 1, 3 do
    local s = socket.socket(M.inet(host))
    s:settimeout(0)
    s:try_connect(address)
    kept[#kept + 1] = s:detach()
  end
  kept[#kept + 1] = server:detach()
  return address
end

function M.close_stuck()
  for i = #kept, 1, -1 do
    socket.close(kept[i])
    kept[i] = nil
  end
end

-- A value with the address of such a listener, to be closed with its block.
function M.full()
  local server = socket.create_server({"127.0.0.1", 0}, {backlog = 0})
  local queued = {}
  for i = 1, 8 do
    queued[i] = socket.socket()
    queued[i]:settimeout(0):connect_ex(server:getsockname())
  end
  socket.sleep(0.01)
  return setmetatable({address = server:getsockname()}, {__close = function()
    server:close()
    for _, s in ipairs(queued) do s:close() end
  end})
end

return M
