-- An HTTP/1.1 server that keeps connections open: each in a task of its own, in one process or several.
--
--   lua5.4 examples/http11_server.lua [host [port [processes [connections]]]]
--   curl -d 'some text' http://127.0.0.1:8080/echo
--   wrk -c 100 http://127.0.0.1:8080/
--
-- It greets at /, sends back what is posted to /echo, and tells about itself at /status. Several processes share the
-- port (SO_REUSEPORT), and the system shares the connections out. When `connections` of them have come and one ends, a
-- process stops: it takes no new ones, and those under way have ten seconds.

local socket = require "socket"
local loop = require "socket.loop"
local server = require "socket.server"

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 8080)
local processes = tonumber(arg[3]) or 1          -- "worker" for those the first one starts
local connections = tonumber(arg[4]) or math.huge
local is_worker = arg[3] == "worker"
local HEAD_SECONDS, HEADERS, BODY = 10, 100, 1 << 20
io.stdout:setvbuf "line"

local served, requests = 0, 0

local Http = server.StreamRequestHandler:extend {
  wbufsize = 16384,                              -- an answer of less leaves at once, and in one piece
  line_limit = 8192,
  disable_nagle_algorithm = true,
}

-- Errors of this class are answers.
local function refuse(status) error({status = status}, 0) end

-- Method, target, version and headers of a request.
function Http:read_head()
  local method, target, minor = self.rfile:read():match "^(%u+) (%S+) HTTP/1%.(%d)\r?$"
  if not method then refuse "400 Bad Request" end
  local headers = {}
  for _ = 1, HEADERS do
    local line = self.rfile:read()
    if not line then refuse "400 Bad Request" end
    if line == "\r" or line == "" then return method, target, minor, headers end
    local name, value = line:match "^([^%s:]+):%s*(.-)%s*$"
    if not name then refuse "400 Bad Request" end
    name = name:lower()
    if name == "content-length" and headers[name] and headers[name] ~= value then refuse "400 Bad Request" end
    headers[name] = value
  end
  refuse "431 Request Header Fields Too Large"
end

function Http:read_body(headers)
  if headers["transfer-encoding"] then refuse "501 Not Implemented" end
  local length = headers["content-length"] or "0"
  if not length:find "^%d+$" then refuse "400 Bad Request" end
  local n = tonumber(length)
  if n > BODY then refuse "413 Content Too Large" end
  if n == 0 then return "" end
  if (headers.expect or ""):lower() == "100-continue" then
    self.wfile:write "HTTP/1.1 100 Continue\r\n\r\n":flush()
  end
  local body = self.rfile:read(n)
  if not body or #body < n then refuse "400 Bad Request" end
  return body
end

function Http:answer(status, body, more, head_only)
  self.wfile:write("HTTP/1.1 ", status, "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ", #body,
    more and "\r\n\r\n" or "\r\nConnection: close\r\n\r\n", head_only and "" or body):flush()
end

local pages = {
  ["/"] = function() return "Hello from socket for Lua!\n" end,
  ["/echo"] = function(body) return body end,
  ["/status"] = function(_, s)
    return ("connections now %d, in all %d, requests %d\n"):format(s.connections, served, requests)
  end,
}

-- One request and its answer; may another follow?
function Http:respond()
  -- A client that sends a byte now and then has no longer for it than others.
  local method, target, minor, headers = loop.timeout(HEAD_SECONDS, self.read_head, self)
  local body = self:read_body(headers)
  requests = requests + 1
  local wish = (headers.connection or ""):lower()
  local more = not self.server.stopping and (minor == "0" and wish == "keep-alive" or minor ~= "0" and wish ~= "close")
  local page = pages[target:match "^[^?]*"]
  if not page then
    self:answer("404 Not Found", "There is nothing here.\n", more)
  elseif method == "GET" or method == "HEAD" or method == "POST" then
    self:answer("200 OK", page(body, self.server), more, method == "HEAD")
  else
    refuse "405 Method Not Allowed"
  end
  return more
end

-- While it waits for the first byte of a request the connection is idle: a stop of the server ends it at once.
function Http:handle()
  served = served + 1
  repeat
    if not self.server:idle(self.rfile.read, self.rfile, 0) then return end
    local ok, e = pcall(self.respond, self)
    if not ok then
      local status = type(e) == "table" and e.status
        or socket.iserror(e, socket.timeout) and "408 Request Timeout"
        or socket.iserror(e) and e.code == "EMSGSIZE" and "431 Request Header Fields Too Large"
      if not status then error(e, 0) end
      self:answer(status, status .. "\n")
      -- Bytes left unread would turn the close into a reset, and the answer be lost.
      self.request:shutdown(socket.SHUT_WR):settimeout(1)
      for _ = 1, 16 do
        if not self.request:try_recv(65536) then break end
      end
    end
  until not ok or not e
end

function Http:finish()
  server.StreamRequestHandler.finish(self)
  if served >= connections then self.server:shutdown() end
end

local s <close> = server.TaskTCPServer({host, port}, Http, {
  allow_reuse_port = is_worker or processes > 1,
  idle_timeout = 15,
  request_queue_size = 1024,
  max_connections = 10000,
  handle_error = function(_, _, client_address, e)
    if not socket.iserror(e) then io.stderr:write(tostring(client_address), ": ", tostring(e), "\n") end
  end,
})

-- The other processes are this program again. Each ends when the pipe to it does, that is with the first one.
local workers = {}
for i = 2, processes do
  local k = 0
  while arg[k - 1] do k = k - 1 end              -- where the command line began, with lua's own name
  local words = {}
  for _, word in ipairs {arg[k], arg[0], host, s.server_address.port, "worker", arg[4]} do
    words[#words + 1] = "'" .. tostring(word):gsub("'", "'\\''") .. "'"
  end
  workers[i - 1] = assert(io.popen(table.concat(words, " "), "w"))
end
if not is_worker then print("listening on " .. tostring(s.server_address)) end

loop.run(function()
  local watch = is_worker and loop.spawn(function()
    loop.wait(io.stdin, "r")
    s:shutdown()
  end)
  s:serve_forever()
  if watch then watch:cancel() end
end)
for _, worker in ipairs(workers) do worker:close() end
