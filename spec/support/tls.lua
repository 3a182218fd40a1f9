-- For specs of TLS: contexts, handshakes of two ends in this process, and programs that speak TLS.

local certs = require "spec.support.certs"
local h = require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local ssl = socket.ssl
local keep = support.keep

local M = {versions = {"TLSv1_2", "TLSv1_3"}}

-- A server's context with that certificate. OpenSSL's default level would refuse to load some that clients must refuse.
function M.server(name, level)
  local ctx = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
  if level then ctx:set_ciphers("DEFAULT@SECLEVEL=" .. level) end
  name = name or "server"
  return ctx:load_cert_chain(certs.path(name .. ".pem"), certs.path(name:match "^[%w_]+" .. ".key"))
end

-- A client's context that trusts a root, the usual one if none is named.
function M.client(root)
  return ssl.create_default_context {cafile = certs.path((root or "ca") .. ".pem")}
end

-- Sets the only version of TLS a context speaks; returns the context.
function M.only(ctx, version)
  if version then
    ctx.minimum_version, ctx.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    ctx.minimum_version = ssl.TLSVersion[version]
    ctx.maximum_version = ssl.TLSVersion[version]
  end
  return ctx
end

-- Handshakes of two sockets of this process, in turn; the errors of both.
function M.shake(c, s)
  local timeouts = {c:gettimeout(), s:gettimeout()}
  c:settimeout(0)
  s:settimeout(0)
  local done, errors = {}, {}
  for _ = 1, 40 do
    for i, sock in ipairs {c, s} do
      local failed = errors[i] and errors[i].code ~= "EAGAIN"
      if not done[i] and not failed then done[i], errors[i] = sock:try_do_handshake() end
    end
  end
  c:settimeout(timeouts[1] or 5)
  s:settimeout(timeouts[2] or 5)
  return errors[1], errors[2]
end

-- A client and a server over a pair of sockets, then the errors of their handshakes; options: client, server
-- (contexts), host, session, suppress, version.
function M.pair(options)
  options = options or {}
  local a, b = socket.socketpair()
  local c = keep(M.only(options.client or M.client(), options.version):wrap_socket(a, {
    server_hostname = options.host or "localhost", do_handshake_on_connect = false, session = options.session,
    suppress_ragged_eofs = options.suppress}))
  local s = keep((options.server or M.server()):wrap_socket(b, {server_side = true,
    do_handshake_on_connect = false, suppress_ragged_eofs = options.suppress}))
  return c, s, M.shake(c, s)
end

-- The same, which must succeed.
function M.connected(options)
  local c, s, e1, e2 = M.pair(options)
  if e1 or e2 then error(("handshake: %s; %s"):format(e1, e2), 2) end
  return c, s
end

-- Bytes that no compression and no repetition makes easy.
function M.random_bytes(n)
  local piece = ssl.RAND_bytes(math.min(n, 65521))
  return piece:rep(n // #piece + 1):sub(1, n)
end

-- Reads n bytes, or all to the end.
function M.collect(s, n)
  local pieces, count = {}, 0
  while not n or count < n do
    local data = s:recv(n and math.min(n - count, 262144) or 262144)
    if not data then break end
    pieces[#pieces + 1] = data
    count = count + #data
  end
  return table.concat(pieces)
end

-- A listener, and its port.
function M.listener()
  local s = keep(socket.create_server {"127.0.0.1", 0}:settimeout(10))
  return s, s:getsockname().port
end

function M.free_port()
  local s <close> = socket.create_server {"127.0.0.1", 0}
  return s:getsockname().port
end

-- A program that was started: fields out (pipe of what it prints) and pid.
local Program = {}
Program.__index = Program

local running = {}

-- Starts one; it ends by itself after 30 seconds, or when the test does. It reads `input`, and then waits for more
-- without end, or is told the end with `eof`.
local count = 0
function M.start(command, input, eof)
  count = count + 1
  local file = M.file("input" .. count, input or "")
  local text = ("exec 2>&1; echo $$; exec timeout 30 %s <%s"):format(command, file)
  if not eof then     -- a queue that has itself as a writer
    text = ("exec 2>&1; mkfifo %s.q; exec 3<>%s.q; cat %s >&3; rm %s.q; echo $$; exec timeout 30 %s <&3 3<&-"):format(
      file, file, file, file, command)
  end
  local out = assert(io.popen(text))
  local p = setmetatable({out = out, pid = assert(tonumber(out:read "l"))}, Program)
  running[#running + 1] = p
  return p
end

-- Waits for its end; what it printed.
function Program:text()
  local text = self.out:read "a"
  self:close()
  return text
end

-- Reads lines up to the first that matches; returns what matched.
function Program:expect(pattern)
  local seen = {}
  for line in self.out:lines() do
    local found = line:match(pattern)
    if found then return found end
    seen[#seen + 1] = line
  end
  error(("no %q in:\n%s"):format(pattern, table.concat(seen, "\n")), 2)
end

-- Ends it.
function Program:stop()
  if self.out then
    support.kill(self.pid, "TERM")
    self:close()
  end
end

function Program:close()
  if self.out then self.out:close() end
  self.out = nil
end

-- For after_each: ends what runs, closes what was kept.
function M.clean()
  support.close_kept()
  for i = #running, 1, -1 do
    running[i]:stop()
    running[i] = nil
  end
end

-- Connects to a program that will listen.
function M.connect(port)
  for _ = 1, 400 do
    local s = socket.try_create_connection({"127.0.0.1", port}, 10)
    if s then return keep(s) end
    socket.sleep(0.01)
  end
  error(("nobody listens on port %d"):format(port), 2)
end

-- A file with that content, removed with the certificates; its path.
function M.file(name, text)
  certs.path "ca.pem"
  local path = certs.path(name)
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

-- Runs a Python program with that text; arguments are strings.
function M.python(name, text, ...)
  local words = {"python3 -IS", M.file(name .. ".py", text)}
  for _, word in ipairs {...} do words[#words + 1] = h.quote(tostring(word)) end
  return M.start(table.concat(words, " "))
end

return M
