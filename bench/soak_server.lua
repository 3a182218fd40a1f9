-- soak_server.lua: what soak.c torments: lines come back as they are. Prints its port.
local server = require "socket.server"

local Echo = server.StreamRequestHandler:extend {
  line_limit = 16384,
  handle = function(self)
    for line in self.rfile:lines "L" do self.request:sendall(line) end
  end,
}

local s <close> = server.TaskTCPServer({"127.0.0.1", 0}, Echo, {
  request_queue_size = 4096,
  max_connections = 8000,
  idle_timeout = 5,
  handle_error = function() end, -- they are many
})
print(s.server_address.port)
io.stdout:flush()
s:serve_forever()
