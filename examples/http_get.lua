-- Fetches a page over HTTP/1.1 and prints its status, headers and size.
--
--   lua5.4 examples/http_get.lua http://host[:port]/path [file]
--
-- With a file name the body is saved there. Everything, name lookup included,
-- must be over in ten seconds and 16 MiB.

local socket = require "socket"

local patience, most = 10, 16 * 1024 * 1024

local function fail(...)
  io.stderr:write(...)
  io.stderr:write "\n"
  os.exit(1)
end

-- http://[::1]:8080/x gives "::1", 8080, "/x", "[::1]:8080".
local function split(url)
  local authority, path = url:match "^http://([^/?#]+)([^#]*)"
  if not authority then fail("not an http:// address: ", url) end
  local name, port = authority:match "^%[(.-)%](.*)$"
  if not name then name, port = authority:match "^([^:]*)(.*)$" end
  if port ~= "" then port = tonumber(port:match "^:(%d+)$") or fail("no port: ", url) end
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  return name, port ~= "" and port or 80, path, authority
end

-- Undoes Transfer-Encoding: chunked: "5\r\nHello\r\n0\r\n\r\n" is "Hello".
local function join_chunks(body)
  local parts, at = {}, 1
  while true do
    local size, start = body:match("^(%x+)[^\r\n]*\r\n()", at)
    size = size and tonumber(size, 16) or fail "malformed chunk"
    if size == 0 then return table.concat(parts) end
    if start + size > #body then fail "the page is cut off" end
    parts[#parts + 1] = body:sub(start, start + size - 1)
    at = start + size + 2
  end
end

local name, port, path, authority = split(arg[1] or fail "usage: http_get.lua URL [file]")
local deadline = socket.monotonic() + patience

local s <close>, err = socket.try_create_connection({name, port}, patience)
if not s then fail(tostring(err)) end
print("connected to " .. tostring(s:getpeername()))

s:sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: lua-socket-example\r\nAccept: */*\r\nConnection: close\r\n\r\n")
  :format(path, authority))

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
local headers = {}
print((head:match "^[^\r\n]*"))
for key, value in head:gmatch "\r\n([^:\r\n]+):[ \t]*([^\r\n]*)" do
  headers[key:lower()] = value
  print(("  %s: %s"):format(key, value))
end

if (headers["transfer-encoding"] or ""):lower() == "chunked" then
  body = join_chunks(body)
elseif headers["content-length"] and #body ~= tonumber(headers["content-length"]) then
  fail "the page is cut off"
end
print(("body: %d bytes"):format(#body))

if arg[2] then
  local file <close> = assert(io.open(arg[2], "wb"))
  assert(file:write(body))
end
