-- Fetches a page over HTTPS, after verifying whose it is, and prints the
-- certificate, the status and the size.
--
--   lua5.4 examples/https_get.lua https://host[:port]/path [ca.pem]
--
-- Without a file of CA certificates those of the system are trusted.

local socket = require "socket"
local ssl = socket.ssl

local patience, most = 10, 16 * 1024 * 1024

local function fail(...)
  io.stderr:write(...)
  io.stderr:write "\n"
  os.exit(1)
end

local url = arg[1] or fail "usage: https_get.lua URL [ca.pem]"
local authority, path = url:match "^https://([^/?#]+)([^#]*)"
if not authority then fail("not an https:// address: ", url) end
local name, port = authority:match "^%[(.-)%]:?(%d*)$"
if not name then name, port = authority:match "^([^:]*):?(%d*)$" end
if not name then fail("not an https:// address: ", url) end
if path:sub(1, 1) ~= "/" then path = "/" .. path end

local ctx = ssl.create_default_context {cafile = arg[2]}
local plain, err = socket.try_create_connection({name, tonumber(port) or 443}, patience)
if not plain then fail(tostring(err)) end
local s <close>, why = ctx:try_wrap_socket(plain, {server_hostname = name, suppress_ragged_eofs = false})
if not s then fail(tostring(why)) end

local cert = s:getpeercert()
print(("%s, %s"):format(s:version(), (s:cipher())))
for _, rdn in ipairs(cert.subject) do print(("  %s: %s"):format(table.unpack(rdn[1]))) end
print("  valid until " .. cert.notAfter)

s:sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\nConnection: close\r\n\r\n"):format(path, authority))
local deadline = socket.monotonic() + patience
local pieces, size = {}, 0
for data in function()
  s:settimeout(math.max(deadline - socket.monotonic(), 0.001))
  return s:recv(65536)
end do
  size = size + #data
  if size > most then fail "the page is too long" end
  pieces[#pieces + 1] = data
end

local head, body = table.concat(pieces):match "^(.-\r\n)\r\n(.*)$"
if not head then fail "no HTTP answer" end
print((head:match "^[^\r\n]*"))
print(("body: %d bytes"):format(#body))
