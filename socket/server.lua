-- socket.server: Python's socketserver in Lua's manners. A server takes requests (connections or datagrams) and gives
-- each to a handler; one at a time, or each in a task of a loop. See docs/reference/server.md.

local socket = require "socket"

local M = {}
local READ = 1 -- selectors.EVENT_READ

---------------------------------------------------------------- classes

-- A class is a table of what its objects share. Class:extend{...} makes one below it from tables of fields, calling a
-- class makes an object, and object:init(...) is called with the arguments.
local Object = {}

local function new(class, ...)
  local object = setmetatable({}, class)
  object:init(...)
  return object
end

local INHERITED = {"__close", "__tostring", "__gc", "__eq", "__name"} -- Lua looks for these without __index

function Object:extend(...)
  local class = {}
  for _, fields in ipairs {...} do
    for k, v in pairs(fields) do class[k] = v end
  end
  class.__index = class
  for _, k in ipairs(INHERITED) do
    if class[k] == nil then class[k] = self[k] end
  end
  return setmetatable(class, {__index = self, __call = new})
end

function Object.init() end

---------------------------------------------------------------- errors

-- An error of who called into this file, with the place of that call.
local function usage(...)
  local level, info = 2, nil
  if debug then
    local here = debug.getinfo(1, "S").source
    repeat
      level = level + 1
      info = debug.getinfo(level, "S")
    until not info or info.what ~= "C" and info.source ~= here
  end
  error(string.format(...), info and level or 0)
end

-- For xpcall: the error and where it was raised.
local function explain(e)
  local ok, text = pcall(tostring, e)
  text = ok and text or type(e)
  return {e, debug and debug.traceback(text, 2) or text}
end

-- Is it nobody's fault, but an order to stop? Of tasks, or of lua itself on Ctrl-C.
local function is_order(e)
  local loop = package.loaded["socket.loop"]
  return loop and socket.iserror(e, loop.cancelled) or type(e) == "string" and e:find "interrupted!$" ~= nil
end

-- After a request has failed with what explain made: tells handle_error, and closes the request in any case.
local function failed(self, request, client_address, problem)
  if type(problem) ~= "table" then problem = {problem, tostring(problem)} end -- an error in explain
  local e, order = problem[1], is_order(problem[1])
  local told, e2 = true, nil
  if not order then told, e2 = pcall(self.handle_error, self, request, client_address, e, problem[2]) end
  local closed, e3 = pcall(self.shutdown_request, self, request)
  if order then error(e, 0) end
  if not told then error(e2, 0) end
  if not closed then error(e3, 0) end
end

---------------------------------------------------------------- one request

-- What a handler is called with is ready for it: the handshake is made, the timeout set.
local function prepare(self, request)
  if self.ssl_context then
    local timeout = request:gettimeout()
    request:settimeout(self.handshake_timeout):do_handshake():settimeout(timeout)
  end
  if self.idle_timeout and self.socket_type == socket.SOCK_STREAM then request:settimeout(self.idle_timeout, "idle") end
end

local function work(self, request, client_address)
  prepare(self, request)
  self:finish_request(request, client_address)
end

-- Handles a request and closes it, whatever happens.
local function attend(self, request, client_address)
  local ok, problem = xpcall(work, explain, self, request, client_address)
  if ok then self:shutdown_request(request) else failed(self, request, client_address, problem) end
end

local function admit(self, request, client_address)
  if self:verify_request(request, client_address) then
    self:process_request(request, client_address)
  else
    self:shutdown_request(request)
  end
end

-- The system has no room for another connection: it stays in the queue, and asking at once again would only burn time.
local SCARCE = {EMFILE = true, ENFILE = true, ENOBUFS = true, ENOMEM = true}
local PAUSE = 0.1

-- Takes one request if there is one. True, or false and what stood in the way.
local function take(self)
  local ok, request, client_address = pcall(self.get_request, self)
  if not ok then
    local e = request
    if not socket.iserror(e) or is_order(e) then error(e, 0) end
    if SCARCE[e.code] then socket.sleep(PAUSE) end
    return false, e
  end
  if self.ssl_context then
    local conn, e = self.ssl_context:try_wrap_socket(request, {server_side = true, do_handshake_on_connect = false})
    if not conn then
      failed(self, request, client_address, {e, tostring(e)})
      return true
    end
    request = conn
  end
  local problem
  ok, problem = xpcall(admit, explain, self, request, client_address)
  if not ok then failed(self, request, client_address, problem) end
  return true
end

---------------------------------------------------------------- serving

-- What there is while serve_forever runs. At its end who waits in shutdown goes on: each waits for an event, or reads
-- from a socket that is closed then, which works in the tasks of every scheduler.
local Run = {}
Run.__index = Run

function Run:__close()
  self.server._run = nil
  self.server.stopping = false
  for _, s in ipairs(self.sockets) do s:close() end
  if self.over then self.over:set() end
end

local function begin(self)
  if self._run then usage "serve_forever is running already" end
  self._run = setmetatable({server = self, sockets = {}, coroutine = coroutine.running()}, Run)
  return self._run
end

-- Two connected sockets; the second is open until the end.
function Run:pair()
  local a, b = socket.socketpair()
  self.sockets[#self.sockets + 1] = b
  return a:settimeout(nil), b
end

-- Until the end; of a loop's task without descriptors, as there may be none left.
function Run:wait()
  if socket.reactor.running() == coroutine.running() then
    self.over = self.over or require "socket.loop".event()
    self.over:wait()
  else
    local s <close> = self:pair()
    s:recv(1)
  end
end

-- May who calls wait for the end? Not if the server waits for who calls, and not where waiting holds up the thread.
function Run:can_wait()
  local _, scheduler = socket.reactor.running()
  if not (scheduler and coroutine.isyieldable()) then return false end
  if coroutine.status(self.coroutine) ~= "suspended" then return false end
  return not self.tasks or not self.tasks[require "socket.loop".current()]
end

---------------------------------------------------------------- BaseServer

local BaseServer = Object:extend {
  __name = "BaseServer",
  address_family = socket.AF_INET,
  socket_type = socket.SOCK_STREAM,
  request_queue_size = 128,
  allow_reuse_address = false,
  allow_reuse_port = false,
  handshake_timeout = 10,
  stopping = false,
}
M.BaseServer = BaseServer

-- Attributes that are nil by default.
local OPTIONAL = {timeout = true, idle_timeout = true, ssl_context = true, bind_and_activate = true, socket = true}

function BaseServer:init(server_address, handler, options)
  local meta = getmetatable(handler)
  if type(handler) ~= "function" and not (type(meta) == "table" and meta.__call) then
    usage("bad argument #2 to '%s' (handler class or function expected, got %s)", getmetatable(self).__name,
      type(handler))
  end
  self.server_address = server_address
  self.RequestHandlerClass = handler
  if type(options) == "table" then
    for k, v in pairs(options) do
      if not OPTIONAL[k] and self[k] == nil then usage("unknown option '%s'", tostring(k)) end
      self[k] = v
    end
  end
end

function BaseServer:__tostring()
  local address = self.server_address
  return ("%s: <%s>"):format(getmetatable(self).__name, self:fileno() < 0 and "closed" or tostring(address))
end

function BaseServer:__close() self:server_close() end

function BaseServer:fileno() return self.socket and self.socket:fileno() or -1 end

-- Takes requests until shutdown is called, and calls service_actions at least every poll_interval seconds.
function BaseServer:serve_forever(poll_interval)
  local run <close> = begin(self)
  local wake, waker = run:pair()
  local sleeper <close> = wake
  function run.stop() waker:try_send("x", socket.MSG_DONTWAIT) end
  local sel <close> = require "socket.selectors".DefaultSelector()
  local source = self.socket or self -- only a socket is nobody's plain descriptor
  sel:register(source, READ)
  sel:register(sleeper, READ)
  while not self.stopping and self:fileno() >= 0 do
    for key in sel:select(poll_interval or 0.5) do
      if key.fileobj == source and not self.stopping and self:fileno() >= 0 then take(self) end
    end
    if not self.stopping then self:service_actions() end
  end
  return self
end

-- One request, if one comes within `timeout` seconds; else handle_timeout. Was there one?
function BaseServer:handle_request()
  local sel <close> = require "socket.selectors".DefaultSelector()
  sel:register(self.socket or self, READ)
  local came = false
  for _ in sel:select(self.timeout) do came = true end
  if came then return (take(self)) end
  self:handle_timeout()
  return false
end

-- Ends serve_forever, or the next one if none is running, and waits for its end where that is possible. Requests in
-- tasks of their own have this many seconds to end.
function BaseServer:shutdown(seconds)
  local run = self._run
  self.stopping = true
  if run then
    if seconds then run.deadline = socket.monotonic() + seconds end
    run.stop()
    if run:can_wait() then run:wait() end
  end
  return self
end

function BaseServer:server_close()
  if self._run then
    self.stopping = true
    self._run.stop()
  end
  if self.socket then self.socket:close() end
  return self
end

function BaseServer:finish_request(request, client_address)
  self.RequestHandlerClass(request, client_address, self)
end

BaseServer.process_request = attend

function BaseServer.verify_request() return true end

function BaseServer:shutdown_request(request) self:close_request(request) end

-- What waits between two parts of a conversation: f(...), which a stop need not wait for.
function BaseServer.idle(_, f, ...) return f(...) end

function BaseServer.handle_error(_, _, client_address, _, traceback)
  local who = client_address and client_address ~= "" and " of " .. tostring(client_address) or ""
  warn("socket.server: request", who, " failed: ", traceback)
end

local function nothing() end
BaseServer.server_activate, BaseServer.close_request = nothing, nothing
BaseServer.handle_timeout, BaseServer.service_actions = nothing, nothing

---------------------------------------------------------------- the four kinds

local TCPServer = BaseServer:extend {__name = "TCPServer", allow_reuse_address = true}
M.TCPServer = TCPServer

local function bind_and_activate(self)
  self:server_bind()
  self:server_activate()
end

-- A socket that somebody else has bound, the service manager, say, and that may be listening already.
local function adopt(self, s)
  if type(s) ~= "userdata" or s.type ~= self.socket_type then
    usage("the option 'socket' is no socket of a %s's type", getmetatable(self).__name)
  end
  self.address_family = s.family
  self.server_address = s:getsockname()
  return s
end

-- The last argument: false not to bind yet, or a table of options.
function TCPServer:init(server_address, handler, options)
  BaseServer.init(self, server_address, handler, options)
  local given = self.socket
  self.socket = given and adopt(self, given) or socket.socket(self.address_family, self.socket_type)
  if options == false or self.bind_and_activate == false then return end
  local ok, e = pcall(given and self.server_activate or bind_and_activate, self)
  if not ok then
    self:server_close()
    error(e, 0)
  end
end

function TCPServer:server_bind()
  if self.allow_reuse_address then self.socket:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1) end
  if self.allow_reuse_port then self.socket:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1) end
  self.socket:bind(self.server_address)
  self.server_address = self.socket:getsockname()
end

-- A connection may be gone again when it is to be accepted, so that must not wait.
function TCPServer:server_activate()
  if self.socket:getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0 then
    self.socket:listen(self.request_queue_size)
  end
  self.socket:settimeout(0)
end

function TCPServer:get_request() return self.socket:accept() end

-- Says that no more comes, as far as that needs no waiting.
function TCPServer:shutdown_request(request)
  if request:fileno() >= 0 then request:settimeout(0):try_shutdown(socket.SHUT_WR) end
  self:close_request(request)
end

-- Also if files of it are still open, which otherwise would keep it so until they are collected as garbage; but for
-- scripts that may not have plain descriptors. With these arguments the first call needs no less of the stack than the
-- second, which so cannot fail for lack of memory while nobody else has the descriptor.
function TCPServer.close_request(_, request)
  local fd = request:try_detach(nil, nil)
  if fd then socket.close(fd) else request:try_close() end
end

local UDPServer = TCPServer:extend {
  __name = "UDPServer", socket_type = socket.SOCK_DGRAM, allow_reuse_address = false, max_packet_size = 8192,
}
M.UDPServer = UDPServer

function UDPServer:init(...)
  TCPServer.init(self, ...)
  if self.ssl_context then
    self:server_close()
    usage "TLS needs a stream"
  end
end

function UDPServer:server_activate()
  if self.idle_timeout then self.socket:settimeout(self.idle_timeout) end
end

-- A request is {bytes, socket}; also request.data and request.socket.
function UDPServer:get_request()
  local data, client_address = self.socket:recvfrom(self.max_packet_size, socket.MSG_DONTWAIT)
  return {data, self.socket, data = data, socket = self.socket}, client_address
end

function UDPServer:shutdown_request(request) self:close_request(request) end

UDPServer.close_request = nothing

local UNIX = {address_family = socket.AF_UNIX, allow_reuse_address = false}
M.UnixStreamServer = TCPServer:extend(UNIX, {__name = "UnixStreamServer"})
M.UnixDatagramServer = UDPServer:extend(UNIX, {__name = "UnixDatagramServer"})

---------------------------------------------------------------- a task for each request

-- A connection that a task serves, or shall serve.
local Connection = {}
Connection.__index = Connection

-- At the end of its task, and of one that was cancelled before it began.
function Connection:__close()
  local run = self.run
  if not run.tasks[self.task] then return end
  run.tasks[self.task] = nil
  run.server.connections = run.server.connections - 1
  run.changed:set()
  run.room:set()
end

-- An idle one is told that the stream has ended.
function Connection:hush()
  if self.request.try_shutdown then self.request:try_shutdown(socket.SHUT_RD) end
end

-- Cancels its task; one that had not begun never will.
function Connection:cancel()
  self.task:cancel()
  if not self.begun then
    local _ <close> = self
    self.run.server:shutdown_request(self.request)
  end
end

local function serve_connection(connection, client_address)
  local _ <close> = connection
  connection.begun = true
  attend(connection.run.server, connection.request, client_address)
end

local function list(tasks)
  local connections = {}
  for _, connection in pairs(tasks) do
    if connection ~= true then connections[#connections + 1] = connection end
  end
  return connections
end

local BURST = 32 -- connections taken before others have their turn

local function accept_all(self, run)
  local loop = require "socket.loop"
  while self:fileno() >= 0 do
    while self.connections >= self.max_connections do
      run.room:clear()
      run.room:wait()
    end
    local ok, e = pcall(loop.wait, self.socket or self, "r")
    if not ok and self:fileno() >= 0 then error(e, 0) end
    local n = 0
    while ok and n < BURST and self.connections < self.max_connections and take(self) do n = n + 1 end
    if n == BURST then socket.sleep(1e-6) end
  end
  run.stop()
end

local function act(self, interval)
  while true do
    socket.sleep(interval)
    self:service_actions()
  end
end

-- Waits until the connections have ended, and cancels those that take too long, again and again if they go on.
local function drain(self, run)
  run.deadline = run.deadline or socket.monotonic() + self.stop_timeout
  for _, connection in ipairs(list(run.tasks)) do
    if connection.idle then connection:hush() end
  end
  while self.connections > 0 do
    local left = run.deadline - socket.monotonic()
    if left <= 0 then
      for _, connection in ipairs(list(run.tasks)) do connection:cancel() end
      left = 0.1
    end
    run.changed:clear()
    if self.connections > 0 then run.changed:wait(left < math.huge and left or nil) end
  end
end

local function serve(self, poll_interval)
  local loop = require "socket.loop"
  local run <close> = begin(self)
  local stop = loop.event()
  run.tasks, run.room, run.changed = {}, loop.event(), loop.event()
  self.connections = 0
  function run.stop()
    stop:set()
    run.changed:set()
  end
  -- What was accepted and never begun, because the group was cancelled.
  local _ <close> = setmetatable({}, {__close = function()
    run.group = nil
    for _, connection in ipairs(list(run.tasks)) do connection:cancel() end
  end})
  loop.group(function(group)
    run.group = group
    local accepting = group:spawn(accept_all, self, run)
    local acting = self.service_actions ~= nothing and group:spawn(act, self, poll_interval or 0.5)
    run.tasks[accepting] = true
    if acting then run.tasks[acting] = true end
    if not self.stopping then stop:wait() end
    accepting:cancel()
    if acting then acting:cancel() end
    drain(self, run)
  end)
  return self
end

local TaskMixIn = {max_connections = 1000, idle_timeout = 60, stop_timeout = 10, connections = 0}
M.TaskMixIn = TaskMixIn

-- In a task; elsewhere with a loop of its own.
function TaskMixIn:serve_forever(poll_interval)
  local loop = require "socket.loop"
  if loop.current() then return serve(self, poll_interval) end
  return loop.run(serve, self, poll_interval)
end

-- Outside of serve_forever there is nobody to look after a task.
function TaskMixIn:process_request(request, client_address)
  local run = self._run
  if not (run and run.group) then return attend(self, request, client_address) end
  local connection = setmetatable({run = run, request = request}, Connection)
  connection.task = run.group:spawn(serve_connection, connection, client_address)
  run.tasks[connection.task] = connection
  self.connections = self.connections + 1
end

local Idle = {__close = function(self) self.connection.idle = nil end}

function TaskMixIn:idle(f, ...)
  local run = self._run
  local connection = run and run.tasks[require "socket.loop".current()]
  if not connection or connection == true then return f(...) end
  local _ <close> = setmetatable({connection = connection}, Idle)
  connection.idle = true
  if self.stopping then connection:hush() end
  return f(...)
end

M.TaskTCPServer = TCPServer:extend(TaskMixIn, {__name = "TaskTCPServer"})
M.TaskUDPServer = UDPServer:extend(TaskMixIn, {__name = "TaskUDPServer"})
M.TaskUnixStreamServer = M.UnixStreamServer:extend(TaskMixIn, {__name = "TaskUnixStreamServer"})
M.TaskUnixDatagramServer = M.UnixDatagramServer:extend(TaskMixIn, {__name = "TaskUnixDatagramServer"})

---------------------------------------------------------------- handlers

-- Calling a handler class handles a request: setup, handle, and finish also when handle failed.
local BaseRequestHandler = Object:extend {
  __name = "BaseRequestHandler", setup = nothing, handle = nothing, finish = nothing,
}
M.BaseRequestHandler = BaseRequestHandler

function BaseRequestHandler:init(request, client_address, server)
  self.request, self.client_address, self.server = request, client_address, server
  self:setup()
  local _ <close> = self
  self:handle()
end

function BaseRequestHandler:__close() self:finish() end

local StreamRequestHandler = BaseRequestHandler:extend {
  __name = "StreamRequestHandler", rbufsize = -1, wbufsize = 0, line_limit = 65536, disable_nagle_algorithm = false,
}
M.StreamRequestHandler = StreamRequestHandler

function StreamRequestHandler:setup()
  self.connection = self.request
  if self.timeout then self.connection:settimeout(self.timeout) end
  if self.disable_nagle_algorithm then self.connection:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) end
  self.rfile = self.connection:makefile("r", self.rbufsize):setlimit(self.line_limit)
  self.wfile = self.connection:makefile("w", self.wbufsize)
end

-- Nobody may be left to send the last bytes to.
function StreamRequestHandler:finish()
  self.wfile:try_close()
  self.rfile:try_close()
end

---------------------------------------------------------------- datagrams as files

local PacketReader = {}
PacketReader.__index = PacketReader

-- What looks like a numeral; tonumber decides.
local function read_number(f)
  local first, last = f.data:find("^%s*[+-]?[%w.]+", f.at)
  if not first then return nil end
  local word = f.data:sub(first, last)
  if word:find "^%s*[+-]?[%d.]+[eE]$" or word:find "^%s*[+-]?0[xX][%x.]+[pP]$" then
    last = select(2, f.data:find("^[+-]?%d*", last + 1))
  end
  f.at = last + 1
  return (tonumber(f.data:sub(first, last)))
end

local function read_line(f, with_end)
  if f.at > #f.data then return nil end
  local nl = f.data:find("\n", f.at, true)
  local line = f.data:sub(f.at, nl and not with_end and nl - 1 or nl)
  f.at = (nl or #f.data) + 1
  return line
end

local function read_count(f, n)
  if f.at > #f.data then return nil end
  local bytes = f.data:sub(f.at, f.at + n - 1)
  f.at = f.at + n
  return bytes
end

local function read_all(f)
  local rest = f.data:sub(f.at)
  f.at = #f.data + 1
  return rest
end

local FORMATS = {
  n = read_number, a = read_all, l = read_line, L = function(f) return read_line(f, true) end,
}

-- As file:read.
function PacketReader:read(...)
  if select("#", ...) == 0 then return read_line(self) end
  local results, n = {}, 0
  for _, format in ipairs {...} do
    n = n + 1
    if math.type(format) == "integer" then
      results[n] = read_count(self, format)
    else
      local f = FORMATS[tostring(format):match "^%*?(.)"] or error("invalid format", 2)
      results[n] = f(self)
    end
    if results[n] == nil then break end
  end
  return table.unpack(results, 1, n)
end

function PacketReader:lines(...)
  local formats = table.pack(...)
  return function() return self:read(table.unpack(formats, 1, formats.n)) end
end

function PacketReader.close() return true end

local PacketWriter = {}
PacketWriter.__index = PacketWriter

function PacketWriter:write(...)
  for _, bytes in ipairs {...} do self[#self + 1] = tostring(bytes) end
  return self
end

function PacketWriter:flush() return self end

function PacketWriter.close() return true end

-- handler.packet is what came, rfile reads it; what wfile was given is sent as one datagram, if anything was.
local DatagramRequestHandler = BaseRequestHandler:extend {__name = "DatagramRequestHandler"}
M.DatagramRequestHandler = DatagramRequestHandler

function DatagramRequestHandler:setup()
  self.packet, self.socket = self.request[1], self.request[2]
  self.rfile = setmetatable({data = self.packet, at = 1}, PacketReader)
  self.wfile = setmetatable({}, PacketWriter)
end

-- A client without a name, as those of Unix sockets may be, cannot be answered.
function DatagramRequestHandler:finish()
  if #self.wfile > 0 and (self.client_address or "") ~= "" then
    self.socket:sendto(table.concat(self.wfile), self.client_address)
  end
end

return M
