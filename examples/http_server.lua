-- A small HTTP/1.1 server: GET and HEAD, a greeting or the files of a folder.
--
--   lua5.4 examples/http_server.lua [host [port [folder [requests]]]]
--   curl -i http://127.0.0.1:8080/
--
-- One client at a time, and none for long: a request must arrive within ten
-- seconds and 8 KiB. Without a folder ("" or nothing) it greets. Links inside
-- the folder are followed.

local socket = require "socket"

local host = arg[1] or "127.0.0.1"
local port = tonumber(arg[2] or 8080)
local folder = arg[3] ~= "" and arg[3] or nil
local requests = tonumber(arg[4]) or math.huge
local patience, most = 10, 8192
io.stdout:setvbuf "line"

local types = {
  html = "text/html; charset=utf-8", txt = "text/plain; charset=utf-8",
  css = "text/css", js = "text/javascript", json = "application/json",
  svg = "image/svg+xml", png = "image/png", jpg = "image/jpeg",
}

-- The request's head, or nil and the status to answer. settimeout bounds each
-- call, so the time left is worked out again before every recv: a client that
-- sends one byte a second gains nothing.
local function read_head(conn)
  local deadline, head = socket.monotonic() + patience, ""
  repeat
    conn:settimeout(math.max(deadline - socket.monotonic(), 0.001))
    local data, err = conn:try_recv(2048)
    if err and err:is(socket.timeout) then return nil, "408 Request Timeout" end
    if not data then return nil end               -- gone: nobody to answer
    head = head .. data
    if #head > most then return nil, "431 Request Header Fields Too Large" end
  until head:find("\r\n\r\n", 1, true)
  return head
end

-- The file a target names inside the folder, or nil. Nothing leads outside:
-- every segment is checked after decoding.
local function path_of(target)
  local path = target:gsub("^http://[^/]*", ""):gsub("[?#].*", "")
    :gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  if path:sub(1, 1) ~= "/" or path:find "[%z\\]" then return nil end
  for segment in path:gmatch "[^/]+" do
    if segment == ".." or segment == "." then return nil end
  end
  return folder .. path .. (path:sub(-1) == "/" and "index.html" or "")
end

-- What to answer: status, content type, size, and a string or an open file.
local function answer(head)
  local method, target = head:match "^(%u+) (%S+) HTTP/1%.[01]\r\n"
  if not method then return "400 Bad Request" end
  if method ~= "GET" and method ~= "HEAD" then return "405 Method Not Allowed" end
  if not folder then
    local body = "Hello from socket for Lua! You asked for " .. target .. "\n"
    return "200 OK", types.txt, #body, body
  end
  local path = path_of(target)
  local file = path and io.open(path, "rb")
  if not file then return "404 Not Found" end
  local _, unreadable = file:read(0)
  if unreadable then                              -- a folder, say
    file:close()
    return "404 Not Found"
  end
  local size = file:seek "end"
  file:seek "set"
  return "200 OK", types[path:match "%.(%w+)$"] or "application/octet-stream", size, file
end

local function respond(conn, head, status)
  local kind, size, body
  if head then status, kind, size, body = answer(head) end
  local file <close> = io.type(body) and body or nil
  if not body then body, kind, size = status .. "\n", types.txt, #status + 1 end
  conn:settimeout(patience)
  conn:sendall(("HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n")
    :format(status, kind, size, status:find "^405" and "Allow: GET, HEAD\r\n" or ""))
  if head and head:find "^HEAD " then return status end
  if not file then conn:sendall(body) end
  while file and size > 0 do
    local piece = file:read(math.min(size, 65536))
    if not piece then break end                   -- it shrank; the client can tell
    conn:sendall(piece)
    size = size - #piece
  end
  return status
end

local function serve(conn, peer)
  local head, problem = read_head(conn)
  if not (head or problem) then return end
  local status = respond(conn, head, problem)
  print(("%s %q %s"):format(peer, (head or ""):match "^[^\r\n]*", status))
  -- Bytes left unread would turn our close into a reset, and the answer be lost.
  conn:shutdown(socket.SHUT_WR):settimeout(1)
  for _ = 1, 16 do
    if not conn:try_recv(65536) then break end
  end
end

local server <close> = socket.create_server {host, port}
print("listening on " .. tostring(server:getsockname()))

for _ = 1, requests do
  local conn <close>, peer = server:accept()
  local ok, err = pcall(serve, conn, peer)
  if not ok and not socket.iserror(err) then error(err, 0) end
  if not ok then print(err) end
end
