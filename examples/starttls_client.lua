-- Sends what the standard input has as a mail, over a connection that begins
-- in the clear and is upgraded to TLS (SMTP with STARTTLS, RFC 3207).
--
--   echo Hi | lua5.4 examples/starttls_client.lua host port ca.pem from to
--
-- "" for the file of CA certificates means the system's. A server, or somebody
-- in between, that does not offer STARTTLS gets no mail; and answers that came
-- in the clear, behind the last one, are not believed.

local socket = require "socket"
local ssl = socket.ssl

local host, port, ca, from, to = table.unpack(arg)
if not to then error("usage: starttls_client.lua host port ca.pem from to", 0) end
if (from .. to):find "[%c<>]" then error("not a mail address", 0) end
local patience, longest = 10, 1000                -- seconds of each answer, bytes of a line

local conn = socket.create_connection({host, tonumber(port)}, patience)
local rest = ""                                   -- what came with the last line

local function fail(message)
  conn:close()
  io.stderr:write(message, "\n")
  os.exit(1)
end

local function read_line(deadline)
  while true do
    local line, after = rest:match "^([^\n]*)\n(.*)$"
    if line then
      rest = after
      return (line:gsub("\r$", ""))
    end
    if #rest > longest then fail "the answer is too long" end
    conn:settimeout(math.max(deadline - socket.monotonic(), 0.001))
    rest = rest .. (conn:recv(4096) or fail "the server went away")
  end
end

-- Says something, and returns the lines of the answer, which must begin with
-- that number: "250-one", "250 two".
local function expect(number, command)
  if command then conn:sendall(command .. "\r\n") end
  local lines, deadline = {}, socket.monotonic() + patience
  repeat
    local line = read_line(deadline)
    print(("%s %s"):format(command and command:match "^%a+" or "-", (line:gsub("%c", "?"))))
    if line:sub(1, 3) ~= number or #lines == 100 then fail "that was not expected" end
    lines[#lines + 1] = line
  until line:sub(4, 4) ~= "-"
  return lines
end

local function offers(lines, feature)
  for _, line in ipairs(lines) do
    if line:sub(5):upper() == feature then return true end
  end
end

expect "220"
if not offers(expect("250", "EHLO localhost"), "STARTTLS") then fail "no TLS there: not sent" end
expect("220", "STARTTLS")
if rest ~= "" then fail "something came in the clear behind the answer to STARTTLS: not sent" end

-- The same connection from here on, and a server we have verified.
local ctx = ssl.create_default_context {cafile = ca ~= "" and ca or nil}
local secure, err = ctx:try_wrap_socket(conn, {server_hostname = host, suppress_ragged_eofs = false})
if not secure then fail(tostring(err)) end
conn = secure
print("- " .. conn:version())

expect("250", "EHLO localhost")                   -- anew: what it said before counts for nothing
expect("250", "MAIL FROM:<" .. from .. ">")
expect("250", "RCPT TO:<" .. to .. ">")
expect("354", "DATA")
for line in io.lines() do conn:sendall(line:gsub("\r$", ""):gsub("^%.", "..") .. "\r\n") end
expect("250", ".")
expect("221", "QUIT")
conn:close()
