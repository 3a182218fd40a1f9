-- Fetches a page over HTTPS, after verifying whose it is, and prints the
-- certificate, the status and the size.
--
--   lua5.4 examples/https_get.lua https://host[:port]/path [ca.pem [file]]
--
-- Without a file of CA certificates ("" or nothing) those of the system are
-- trusted. With a file name the body is saved there.

local socket = require "socket"
local ssl = socket.ssl

local patience, most = 10, 16 * 1024 * 1024       -- seconds, bytes

local function fail(...)
  io.stderr:write(...)
  io.stderr:write "\n"
  os.exit(1)
end

-- https://[::1]:8443/x gives "::1", 8443, "/x", "[::1]:8443".
local function split(url)
  local authority, path = url:match "^https://([^/?#]+)([^#]*)"
  if not authority or authority:find "[%c @]" or path:find "[%c ]" then fail("not an https:// address: ", url) end
  local name, port = authority:match "^%[(.-)%]:?(%d*)$"
  if not name then name, port = authority:match "^([^:]+):?(%d*)$" end
  if not name then fail("not an https:// address: ", url) end
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  return name, tonumber(port) or 443, path, authority
end

-- What a stranger wrote must not give orders to the terminal.
local function show(label, text) print(("%s: %s"):format(label, (text:gsub("%c", "?")))) end

-- A name as certificates have it, {{{"commonName", "localhost"}}, ...}, in one line.
local function line_of(name)
  local parts = {}
  for _, group in ipairs(name) do
    for _, part in ipairs(group) do parts[#parts + 1] = part[1] .. "=" .. part[2] end
  end
  return table.concat(parts, ", ")
end

local function show_certificate(cert)
  show("  subject", line_of(cert.subject))
  show("  issuer", line_of(cert.issuer))
  show("  valid from", cert.notBefore)
  show("  valid until", cert.notAfter)
  for _, name in ipairs(cert.subjectAltName or {}) do
    if type(name[2]) == "string" then show("  " .. name[1], name[2]) end
  end
end

-- All that comes until the end; and an error, if that was not the end.
local function receive(s)
  local deadline, pieces, size = socket.monotonic() + patience, {}, 0
  while true do
    s:settimeout(math.max(deadline - socket.monotonic(), 0.001))
    local data, err = s:try_recv(65536)
    if not data then return table.concat(pieces), err end
    size = size + #data
    if size > most then fail "the page is too long" end
    pieces[#pieces + 1] = data
  end
end

local name, port, path, authority = split(arg[1] or fail "usage: https_get.lua URL [ca.pem [file]]")
local ctx = ssl.create_default_context {cafile = arg[2] ~= "" and arg[2] or nil}
local plain, problem = socket.try_create_connection({name, port}, patience)
if not plain then fail(tostring(problem)) end

-- The name is what the certificate must be for. Nothing is sent before both
-- have been verified.
local s <close>, refusal = ctx:try_wrap_socket(plain, {server_hostname = name, suppress_ragged_eofs = false})
if not s then fail(tostring(refusal)) end
print(("%s, %s"):format(s:version(), (s:cipher())))
show_certificate(s:getpeercert())

-- HTTP/1.0, so that the answer comes in one piece.
s:sendall(("GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: lua-socket-example\r\nAccept: */*\r\n\r\n")
  :format(path, authority))
local answer, err = receive(s)
local head, body = answer:match "^(HTTP/.-\r\n)\r\n(.*)$"
if not head then fail(err and tostring(err) or "no HTTP answer") end

-- Some servers end without TLS's goodbye. Whoever cut the line could do the
-- same, so then the page must have said how long it is.
local length = tonumber(head:match "\r\n[Cc]ontent%-[Ll]ength:[ \t]*(%d+)")
if length and #body < length then fail "the page is cut off" end
if not length and err then fail(tostring(err)) end

show("status", head:match "^[^\r\n]*")
print(("body: %d bytes"):format(#body))
if arg[3] then
  local file <close> = assert(io.open(arg[3], "wb"))
  assert(file:write(body))
end
