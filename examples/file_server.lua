-- Serves the files of a folder over HTTP/1.1: makefile reads the requests,
-- sendfile sends the files without their bytes passing through Lua.
--
--   lua5.4 examples/file_server.lua [host [port [folder [connections]]]]
--   curl -i http://127.0.0.1:8080/README.md
--   curl -i -r 0-99 http://127.0.0.1:8080/README.md
--
-- GET and HEAD, ranges of bytes, and connections that stay open for the next
-- request. One client at a time, and none that keeps it waiting for long.
-- Links inside the folder are followed.

local socket = require "socket"

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 8080)
local folder = arg[3] or "."
local connections = tonumber(arg[4]) or math.huge
local patience, longest, most = 10, 4096, 100     -- seconds, bytes of a line, lines of a head
io.stdout:setvbuf "line"

local types = {
  html = "text/html; charset=utf-8", md = "text/plain; charset=utf-8", txt = "text/plain; charset=utf-8",
  lua = "text/plain; charset=utf-8", css = "text/css", js = "text/javascript", json = "application/json",
  svg = "image/svg+xml", png = "image/png", jpg = "image/jpeg",
}

-- A line of the request without its end; nil at the end of the stream. Byte
-- after byte out of the file's buffer, for read "l" takes lines of any length.
local function read_line(client, deadline)
  local line = {}
  repeat
    client.socket:settimeout(math.max(deadline - socket.monotonic(), 0.001))
    local byte = client.stream:read(1)
    if not byte then return nil end
    line[#line + 1] = byte
    if #line > longest then return nil, "431 Request Header Fields Too Large" end
  until byte == "\n"
  return (table.concat(line):gsub("\r?\n$", ""))
end

-- The head of a request: method, target, version and a table of fields with
-- names in small letters; or nil and perhaps a status to answer.
local function read_head(client)
  local deadline = socket.monotonic() + patience
  local line, problem = read_line(client, deadline)
  if not line then return nil, problem end
  local head = {fields = {}}
  head.method, head.target, head.version = line:match "^(%u+) (%S+) HTTP/1%.([01])$"
  if not head.method then return nil, "400 Bad Request" end
  for _ = 1, most do
    line, problem = read_line(client, deadline)
    if line == "" then return head end
    if not line then return nil, problem end
    local name, value = line:match "^([^%s:]+):[ \t]*(.-)[ \t]*$"
    if not name then return nil, "400 Bad Request" end
    head.fields[name:lower()] = value
  end
  return nil, "431 Request Header Fields Too Large"
end

-- The path a target names inside the folder, or nil. Nothing leads outside:
-- every segment is checked after decoding.
local function path_of(target)
  local path = target:gsub("^http://[^/]*", ""):gsub("[?#].*", "")
    :gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  if path:sub(1, 1) ~= "/" or path:find "[%z\\]" then return nil end
  for segment in path:gmatch "[^/]+" do
    if segment:sub(1, 1) == "." then return nil end    -- also hidden files
  end
  return folder .. path .. (path:sub(-1) == "/" and "index.html" or "")
end

-- The file, and its size; nil where there is none.
local function open(target)
  local path = path_of(target)
  local file = path and io.open(path, "rb")
  local size = file and file:seek "end"
  if not size or not file:seek "set" or select(2, file:read(0)) then -- a folder, or a pipe
    if file then file:close() end
    return nil
  end
  return file, size, types[path:match "%.(%w+)$"] or "application/octet-stream"
end

-- The bytes asked for by a field such as "bytes=0-99", "bytes=100-" or
-- "bytes=-100": the offset of the first and their count. nil for all; false
-- if the file has none of them.
local function range_of(field, size)
  local first, last = (field or ""):match "^bytes=(%d*)%-(%d*)$"
  first, last = tonumber(first), tonumber(last)
  if not first and not last or first and last and first > last then return nil end
  if not first then first, last = math.max(size - last, 0), size - 1 end
  last = math.min(last or size - 1, size - 1)
  if first > last then return false end
  return first, last - first + 1
end

-- Answers a request, and says with what status.
local function answer(client, head)
  local out = client.stream
  local function begin(status, fields)
    out:write("HTTP/1.1 ", status, "\r\n")
    for i = 1, #fields, 2 do out:write(fields[i], ": ", fields[i + 1], "\r\n") end
    out:write("Connection: ", client.stays and "keep-alive" or "close", "\r\n\r\n")
    return status
  end
  local function refuse(status, ...)
    local text = status .. "\n"
    begin(status, {"Content-Type", types.txt, "Content-Length", #text, ...})
    if head.method ~= "HEAD" then out:write(text) end
    return status
  end
  if head.method ~= "GET" and head.method ~= "HEAD" then
    client.stays = false                          -- there may be a body, which nobody reads
    return refuse("405 Method Not Allowed", "Allow", "GET, HEAD")
  end
  local file <close>, size, kind = open(head.target)
  if not file then return refuse "404 Not Found" end
  local first, count = range_of(head.fields.range, size)
  if first == false then return refuse("416 Range Not Satisfiable", "Content-Range", "bytes */" .. size) end
  local status
  if first then
    status = begin("206 Partial Content", {"Content-Type", kind, "Content-Length", count,
      "Content-Range", ("bytes %d-%d/%d"):format(first, first + count - 1, size)})
  else
    first, count = 0, size
    status = begin("200 OK", {"Content-Type", kind, "Content-Length", size, "Accept-Ranges", "bytes"})
  end
  out:flush()
  if head.method == "GET" then
    client.socket:settimeout(patience + count / 100000)  -- at least 100 kB a second
    if client.socket:sendfile(file, first, count) < count then client.stays = false end  -- it shrank
  end
  return status
end

local function serve(conn, peer)
  local stream <close> = conn:makefile "rw"
  local client = {socket = conn, stream = stream, stays = true}
  repeat
    local head, problem = read_head(client)
    if not head and not problem then return end   -- gone, and nothing to answer
    if problem then head = {method = "?", target = "?", fields = {}} end
    local connection = (head.fields.connection or ""):lower()
    client.stays = not problem and head.version == "1" and connection ~= "close"
      and not head.fields["content-length"] and not head.fields["transfer-encoding"]
    conn:settimeout(patience)
    local status = problem
    if problem then
      stream:write("HTTP/1.1 ", problem, "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    else
      status = answer(client, head)
    end
    stream:flush()
    print(("%s %s %q %s"):format(peer, head.method, head.target, status))
  until not client.stays
  -- Bytes left unread would turn our close into a reset, and the answer be lost.
  conn:shutdown(socket.SHUT_WR):settimeout(1)
  for _ = 1, 16 do
    if not conn:try_recv(65536) then break end
  end
end

local server <close> = socket.create_server {host, port}
print("listening on " .. tostring(server:getsockname()))

for _ = 1, connections do
  local conn <close>, peer = server:accept()
  local ok, err = pcall(serve, conn, peer)
  if not ok and not socket.iserror(err) then error(err, 0) end
  if not ok then print(err) end
end
