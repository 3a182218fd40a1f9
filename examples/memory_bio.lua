-- TLS where there is no socket to give away: the library works on two queues of
-- bytes (MemoryBIO), and the program carries the bytes. Here over a socketpair,
-- but a serial line, a WebSocket or a pipe to a process would do.
--
--   sh examples/make_certs.sh certs
--   lua5.4 examples/memory_bio.lua certs/ca.pem certs/server.pem certs/server.key
--
-- Client and server live in this process and take turns as coroutines.

local socket = require "socket"
local ssl = socket.ssl

local ca, cert, key = table.unpack(arg)
if not key then error("usage: memory_bio.lua ca.pem cert.pem key.pem", 0) end

-- One end: a transport, the two queues, and the TLS between them.
local End = {}
End.__index = End

local function new_end(transport, ctx, options)
  local incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
  transport:settimeout(0)
  return setmetatable({transport = transport, incoming = incoming, outgoing = outgoing,
    tls = ctx:wrap_bio(incoming, outgoing, options), seen = {}}, End)
end

-- What TLS wants sent goes out.
function End:flush()
  while self.outgoing.pending > 0 do
    local bytes = self.outgoing:read(16384)
    self.seen[#self.seen + 1] = bytes
    while bytes ~= "" do
      local n, err = self.transport:try_send(bytes)
      if not n and err.code ~= "EAGAIN" then error(err) end
      if not n then coroutine.yield() end         -- the transport is full: the other's turn
      bytes = bytes:sub((n or 0) + 1)
    end
  end
end

-- What the transport has goes in; waits until there is something.
function End:fill()
  while true do
    local bytes, err = self.transport:try_recv(16384)
    if bytes then return self.incoming:write(bytes) end
    if not err then return self.incoming:write_eof() end
    if err.code ~= "EAGAIN" then error(err) end
    coroutine.yield()
  end
end

-- The pump: tries a method of the SSLObject until it is through, and moves
-- bytes in between. This loop is all there is to it.
function End:call(method, ...)
  while true do
    local result, err = self.tls["try_" .. method](self.tls, ...)
    self:flush()                                  -- also what an alert says, or a goodbye
    if not err then return result end
    if not err:is(ssl.SSLWantReadError) then error(err) end
    self:fill()
  end
end

local client_context = ssl.create_default_context {cafile = ca}
local server_context = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
server_context:load_cert_chain(cert, key)

local a, b = socket.socketpair()
local client = new_end(a, client_context, {server_hostname = "localhost"})
local server = new_end(b, server_context, {server_side = true})
local question = ("a question, and a long one; "):rep(20000)

local function write_all(side, data)
  local at = 1
  while at <= #data do at = at + side:call("write", data:sub(at, at + 16383)) end
end

local function ask()
  client:call "do_handshake"
  print(("client: %s, %s"):format(client.tls:version(), (client.tls:cipher())))
  write_all(client, question)
  print("client: the answer is " .. client:call("read", 1000))
  client:call "unwrap"                            -- goodbye, and the other's
  print "client: bye"
end

local function answer()
  server:call "do_handshake"
  local size = 0
  while size < #question do
    local data = server:call("read", 16384)
    if not data then error "the question was cut off" end
    size = size + #data
  end
  write_all(server, ("%d bytes long"):format(size))
  assert(server:call("read", 1) == nil)           -- the client's goodbye
  server:call "unwrap"
  print "server: bye"
end

local tasks = {coroutine.create(ask), coroutine.create(answer)}
while #tasks > 0 do
  for i = #tasks, 1, -1 do
    local ok, err = coroutine.resume(tasks[i])
    if not ok then error(tostring(err), 0) end
    if coroutine.status(tasks[i]) == "dead" then table.remove(tasks, i) end
  end
end

local wire = table.concat(client.seen)
print(("%d bytes said, %d on the way, nothing in the clear: %s"):format(
  #question, #wire, not wire:find("question", 1, true)))
a:close()
b:close()
