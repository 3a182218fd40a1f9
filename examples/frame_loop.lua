-- A host with a loop of its own, a game say: 60 times a second it calls loop:step(0), which never waits, and
-- a page is downloaded meanwhile, by code that looks as if it blocked.
--
--   lua5.4 examples/frame_loop.lua [http://host[:port]/path]
--
-- Without an address it downloads from a slow server of its own, in the same loop.

local socket = require "socket"
local loop = require "socket.loop"

local frame, most = 1 / 60, 60 * 60     -- seconds of a frame; frames of a minute, then it gives up
io.stdout:setvbuf "line"

local l <close> = loop.new()
local received, total = 0, nil

local function download(url)
  local authority, path = url:match "^http://([^/?#]+)([^#]*)"
  if not authority then error("not an http:// address: " .. url, 0) end
  local host, port = authority:match "^%[?(.-)%]?:?(%d*)$"
  local s <close> = socket.create_connection({host, tonumber(port) or 80}, 10)
  s:sendall(("GET %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n"):format(path == "" and "/" or path, authority))
  local f <close> = s:makefile "rb"
  local status = f:read "L" or error("no answer", 0)
  if not status:find "^HTTP/1%.%d 200 " then error("the server says " .. status, 0) end
  for line in function() return f:read "L" end do
    if line == "\r\n" then break end
    total = tonumber(line:lower():match "^content%-length:%s*(%d+)") or total
  end
  for data in function() return f:read(65536) end do received = received + #data end
  if total and received < total then error("the page is cut off", 0) end
end

-- 64 KiB every 20 milliseconds.
local function serve(server, size)
  local conn <close> = server:accept()
  conn:settimeout(10)
  conn:recv(4096)
  conn:sendall(("HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n"):format(size))
  local piece = ("x"):rep(65536)
  for _ = 1, size // #piece do
    conn:sendall(piece)
    socket.sleep(0.02)
  end
  server:close()
end

local url = arg[1]
if not url then
  local server = socket.create_server {"127.0.0.1", 0}
  l:spawn(serve, server, 2 << 20)
  url = ("http://%s/"):format(server:getsockname())
end
l:spawn(download, url)

local frames, worst, sum, late = 0, 0, 0, 0
local begin = socket.monotonic()
repeat
  local t = socket.monotonic()
  local more = l:step(0)                -- raises what went wrong in a task
  local took = socket.monotonic() - t
  frames, worst, sum = frames + 1, math.max(worst, took), sum + took

  -- Here the game would move and draw. This one shows a line now and then.
  if frames % 15 == 0 or not more then
    print(("frame %4d: step took %6.3f ms, %5.1f MiB%s"):format(frames, took * 1000, received / (1 << 20),
      total and (" of %.1f"):format(total / (1 << 20)) or ""))
  end
  local left = begin + frames * frame - socket.monotonic()
  if left > 0 then socket.sleep(left) else late = late + 1 end
until not more or frames == most

print(("%d bytes in %d frames, %.2f s; step took %.3f ms on average, %.3f at most; %d frames late"):format(
  received, frames, socket.monotonic() - begin, sum / frames * 1000, worst * 1000, late))
