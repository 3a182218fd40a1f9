-- The examples built on socket.server, run as a person runs them.

local helper = require "spec.helper"
local check = require "spec.support.check"
local examples = require "spec.support.examples"
local socket = require "socket"
local support = require "spec.support"

local keep, output, start = support.keep, examples.output, examples.start

local pids = {}

-- Starts http11_server, which goes on until it is killed; returns its address, its port and the process to kill.
local function launch(...)
  local command = examples.command("http11_server", ...):gsub("timeout 20", "timeout --foreground 20")
  local pipe = examples.open("echo $$; " .. command)
  pids[#pids + 1] = assert(tonumber(pipe:read "l"))
  local address = pipe:read "l":match "^listening on (.+)$"
  return address, tonumber(address:match "%d+$"), pids[#pids]
end

after_each(function()
  support.close_kept()
  for i = #pids, 1, -1 do
    support.kill(pids[i], "TERM 2>/dev/null")
    pids[i] = nil
  end
  examples.stop()
end)

local function connect(port)
  return keep(socket.create_connection({"127.0.0.1", port}, 10))
end

describe("chat_server", function()
  local function join(port)
    local f = connect(port):makefile "rw"
    f:setvbuf "no"
    local name, n = f:read():match "^%* welcome, (%w+); there are (%d+) of you$"
    return f, name, tonumber(n)
  end

  it("tells each what the others say", function()
    local pipe, _, port = start("chat_server", "127.0.0.1", 0, 3)
    local ann, name, n = join(port)
    assert.same({"guest1", 1}, {name, n})
    local bob = join(port)
    assert.equal("* guest2 has come", ann:read())
    ann:write "/nick ann\n"
    assert.equal("* guest1 is now ann", ann:read())
    assert.equal("* guest1 is now ann", bob:read())
    bob:write "/nick ann\n/nick b b\n/nick bob\n"
    assert.equal("* there is a ann already", bob:read())
    assert.matches("^%* a name is up to 20", bob:read())
    assert.equal("* guest2 is now bob", bob:read())
    assert.equal("* guest2 is now bob", ann:read())
    ann:write "hello \27[2Jbob\r\n\n"
    assert.equal("ann: hello [2Jbob", bob:read())
    bob:write "hello ann\n"
    assert.equal("bob: hello ann", ann:read())
    local carl = join(port)
    carl:write "/who\n/what\n"
    assert.equal("* here: ann, bob, guest3", carl:read())
    assert.equal("* there are /nick name, /who and /quit", carl:read())
    carl:write "/quit\n"
    assert.equal("* guest3 has left", carl:read() or "* guest3 has left")
    assert.equal("* guest3 has come", ann:read())
    assert.equal("* guest3 has left", ann:read())
    ann:write "/quit\n"
    bob:write "/quit\n"
    for _, f in ipairs {ann, bob, carl} do f:close() end
    support.close_kept()
    local said, ok = output(pipe)
    assert.truthy(ok, said)
    assert.matches("^%* guest1 has come\n%* guest2 has come\n%* guest1 is now ann\n", said)
    assert.is_nil(said:find "hello")
  end)

  it("puts out who does not read, and goes on", function()
    local pipe, _, port = start("chat_server", "127.0.0.1", 0, 2)
    local slow = keep(socket.socket())
    slow:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow:connect {"127.0.0.1", port}
    local loud, _, n = join(port)
    assert.equal(2, n)
    local lines = (("x"):rep(900) .. "\n"):rep(50)
    local left
    for _ = 1, 500 do
      loud:write(lines, "/who\n")
      local answer = loud:read()
      while answer:find "has left" do
        left = true
        answer = loud:read()
      end
      if left then break end
    end
    assert.is_true(left)
    loud:write "/quit\n"
    loud:close()
    slow:close()
    support.close_kept()
    local said, ok = output(pipe)
    assert.truthy(ok, said:sub(-500))
    assert.matches("guest1 has left", said)
  end)
end)

describe("http11_server", function()
  local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
  local HELLO = "Hello from socket for Lua!\n"

  local function greeting(more)
    return HEAD:format(#HELLO) .. (more and "" or "Connection: close\r\n") .. "\r\n" .. HELLO
  end

  -- The answers to all of this on one connection.
  local function ask(port, text)
    local c = connect(port)
    c:sendall(text)
    return support.all(c)
  end

  it("answers one request after another on a connection, also those that came together", function()
    local pipe, _, port = start("http11_server", "127.0.0.1", 0, 1, 2)
    local c = connect(port)
    for _ = 1, 3 do
      c:sendall "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
      assert.equal(greeting(true), c:recv(#greeting(true), socket.MSG_WAITALL))
    end
    c:sendall("HEAD /?x HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\n1\r\n23"
      .. "GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert.equal(HEAD:format(#HELLO) .. "\r\n" .. HEAD:format(5) .. "\r\n1\r\n23" .. greeting(false), support.all(c))
    assert.equal(greeting(false), ask(port, "GET / HTTP/1.0\r\n\r\n"))
    local said, ok = output(pipe)
    assert.truthy(ok, said)
    assert.equal("", said)
  end)

  it("refuses what is no request, or too much of one", function()
    local _, port = launch("127.0.0.1", 0)
    local function status(text) return ask(port, text):match "^HTTP/1%.1 (%d+)" end
    assert.equal("400", status "hello\r\n\r\n")
    assert.equal("400", status "GET / HTTP/2\r\n\r\n")
    assert.equal("400", status "GET / HTTP/1.1\r\nno header\r\n\r\n")
    assert.equal("400", status "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")
    assert.equal("400", status "POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n")
    assert.equal("501", status "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert.equal("413", status "POST /echo HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n")
    assert.equal("405", status "PUT / HTTP/1.1\r\n\r\n")
    assert.equal("404", status "GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert.equal("431", status("GET /" .. ("x"):rep(9000) .. " HTTP/1.1\r\n\r\n"))
    assert.equal("431", status("GET / HTTP/1.1\r\n" .. ("A: b\r\n"):rep(101) .. "\r\n"))
    assert.equal(greeting(false), ask(port, "GET / HTTP/1.1\r\nconnection: Close\r\n\r\n"))
  end)

  it("is understood by curl", function()
    if not support.has "curl" then pending "curl is not installed" end
    local address = launch("127.0.0.1", 0)
    local url = "http://" .. address
    local text, status = support.output(("curl -sS -m 10 %s/ %s/ -d abc %s/echo -w '%%{num_connects}'")
      :format(url, url, url))
    assert.equal(0, status, text)
    assert.equal(HELLO .. "1" .. HELLO .. "0" .. "abc0", text)
    local file = os.tmpname()
    local f <close> = assert(io.open(file, "wb"))
    f:write(("0123456789"):rep(50000)):flush()
    text, status = support.output(("curl -sS -m 10 -H 'Expect: 100-continue' --data-binary @%s %s/echo | cmp - %s")
      :format(file, url, file))
    os.remove(file)
    assert.same({"", 0}, {text, status})
  end)

  it("stands a load of many connections", function()
    if not support.has "wrk" then pending "wrk is not installed" end
    local address, port = launch("127.0.0.1", 0)
    local text, status = support.output(("wrk -t 1 -c 50 -d 1 --timeout 10 http://%s/"):format(address))
    assert.equal(0, status, text)
    assert.truthy(tonumber(text:match "(%d+) requests in") > 100, text)
    assert.is_nil(text:find "Socket errors", text)
    assert.is_nil(text:find "Non%-2xx", text)
    assert.truthy(check.eventually(5, function()
      return ask(port, "GET /status HTTP/1.0\r\n\r\n"):find "connections now 1, in all %d+, requests %d+\n$"
    end))
  end)

  it("shares its port among processes, which end with the first", function()
    if helper.sanitized then pending "the other processes would run without the sanitizers' library" end
    local _, port, pid = launch("127.0.0.1", 0, 3)
    local stat <close> = io.open "/proc/net/tcp"
    local function listeners()
      stat:seek "set"
      return select(2, stat:read "a":gsub((" 0100007F:%04X 00000000:0000 0A"):format(port), ""))
    end
    assert.truthy(check.eventually(10, function() return listeners() == 3 end))
    local reached = {}
    for _ = 1, 60 do
      local n = ask(port, "GET /status HTTP/1.0\r\n\r\n"):match "in all (%d+)"
      reached[n] = (reached[n] or 0) + 1
    end
    assert.is_true((reached["1"] or 0) >= 2, "only one process answered")
    support.kill(pid, "TERM")
    assert.truthy(check.eventually(10, function() return listeners() == 0 end))
  end)
end)
