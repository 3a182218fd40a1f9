-- STARTTLS: a connection that begins in the clear and is upgraded to TLS. As
-- much of a mail server (SMTP, RFC 5321 and 3207) as that takes: it prints the
-- messages it gets, and takes them over TLS only.
--
--   sh examples/make_certs.sh certs
--   lua5.4 examples/starttls_server.lua certs/server.pem certs/server.key [host [port [connections]]]
--   echo Hi | lua5.4 examples/starttls_client.lua localhost 2525 certs/ca.pem me@example.test you@example.test
--   openssl s_client -starttls smtp -connect localhost:2525 -CAfile certs/ca.pem
--
-- Clients may send ahead, but not over STARTTLS: what somebody in between put
-- behind it in the clear would else count as said under TLS (CVE-2011-0411).

local socket = require "socket"
local ssl = socket.ssl

if not arg[2] then error("usage: starttls_server.lua cert.pem key.pem [host [port [connections]]]", 0) end
local host = arg[3] or "127.0.0.1"
local port = tonumber(arg[4]) or 2525
local connections = tonumber(arg[5]) or math.huge
local patience, longest, most = 30, 1000, 65536   -- seconds of a dialogue, bytes of a line, of a message
io.stdout:setvbuf "line"

local ctx = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
ctx:load_cert_chain(arg[1], arg[2])

-- A line without its end; nil at the end of the stream. client.rest has the
-- bytes that came with it and are not used yet.
local function read_line(client)
  while true do
    local line, rest = client.rest:match "^([^\n]*)\n(.*)$"
    if line then
      client.rest = rest
      return (line:gsub("\r$", ""))
    end
    if #client.rest > longest then return nil end
    client.conn:settimeout(math.max(client.deadline - socket.monotonic(), 0.001))
    local data = client.conn:recv(4096)
    if not data then return nil end
    client.rest = client.rest .. data
  end
end

local function say(client, ...)
  for i = 1, select("#", ...) do client.conn:sendall((select(i, ...)) .. "\r\n") end
end

local function upgrade(client)
  if client.rest ~= "" then
    say(client, "554 nothing may follow STARTTLS")
    return "somebody sent ahead over STARTTLS"
  end
  say(client, "220 go ahead")
  -- The same connection. What is not the client's handshake fails here.
  client.conn = ctx:wrap_socket(client.conn, {server_side = true})
  client.secure, client.mail = true, nil          -- what was said in the clear is forgotten
end

local function read_message(client)
  local lines, size = {}, 0
  for line in read_line, client do
    if line == "." then return table.concat(lines, "\n") end
    lines[#lines + 1] = line:gsub("^%.", "")
    size = size + #line + 1
    if size > most then return nil end
  end
end

-- Commands return true when the dialogue is over, or why it broke off.
local commands = {
  STARTTLS = function(client)
    if client.secure then return say(client, "503 it is TLS already") end
    return upgrade(client)
  end,
  EHLO = function(client)
    if client.secure then return say(client, "250 hello") end
    say(client, "250-hello", "250 STARTTLS")
  end,
  NOOP = function(client) say(client, "250 fine") end,
  RSET = function(client)
    client.mail = nil
    say(client, "250 forgotten")
  end,
  QUIT = function(client)
    say(client, "221 bye")
    return true
  end,
}
-- These need TLS.
local secure = {
  MAIL = function(client, from)
    client.mail = from
    say(client, "250 from whom")
  end,
  RCPT = function(client, to)
    if not client.mail then return say(client, "503 MAIL first") end
    if #client.mail > longest then return say(client, "452 that will do") end
    client.mail = client.mail .. " " .. to
    say(client, "250 to whom")
  end,
  DATA = function(client)
    if not client.mail then return say(client, "503 MAIL first") end
    say(client, "354 end with a dot")
    local text = read_message(client)
    if not text then return "a message was cut off, or too long" end
    local shown = ("%q"):format(text):gsub("\\\n", "\\n")
    print(("message over %s, %s: %s"):format(client.conn:version(), (client.mail:gsub("%c", "?")), shown))
    client.mail = nil
    say(client, "250 thank you")
  end,
}

local function converse(client)
  say(client, "220 localhost ready")
  for line in read_line, client do
    local verb, rest = line:match "^(%a+) *(.*)$"
    verb = verb and verb:upper()
    local done
    if commands[verb] then
      done = commands[verb](client, rest)
    elseif not secure[verb] then
      say(client, "500 what?")
    elseif not client.secure then
      say(client, "530 STARTTLS first")
    else
      done = secure[verb](client, rest)
    end
    if done then return done end
  end
  return "the client went away"
end

local server <close> = socket.create_server {host, port}
print("listening on " .. tostring(server:getsockname()))

for _ = 1, connections do
  local conn, peer = server:accept()
  local client = {conn = conn, rest = "", deadline = socket.monotonic() + patience}
  local ok, result = pcall(converse, client)
  client.conn:close()
  if not ok and not socket.iserror(result) then error(result, 0) end
  if result ~= true then print(("%s: %s"):format(peer, result)) end
end
