-- The programs in examples/, run as a person runs them: real processes, real
-- addresses, each bounded by timeout(1).

local examples = require "spec.support.examples"
local helper = require "spec.helper"
local socket = require "socket"

local command, output, run, start = examples.command, examples.output, examples.run, examples.start

-- One connection from this process: sends all, returns what comes back.
local function ask(port, request)
  local s <close> = socket.create_connection({"127.0.0.1", port}, 10)
  s:sendall(request)
  local pieces = {}
  for data in function() return s:recv(65536) end do pieces[#pieces + 1] = data end
  return table.concat(pieces)
end

local function has_ipv6()
  if not socket.has_ipv6 then return false end
  local s <close> = socket.try_socket(socket.AF_INET6)
  return s and s:try_bind {"::1", 0} and true or false
end

describe("examples:", function()
  after_each(examples.stop)

  describe("echo over TCP", function()
    it("comes back over IPv4", function()
      local server, address, port = start("echo_server", "127.0.0.1", 0, 1)
      assert.equal("127.0.0.1:" .. port, address)
      assert.equal('received "Hello, world"\n', (run("echo_client", "127.0.0.1", port)))
      local said, ok = output(server)
      assert.truthy(ok)
      assert.matches("^connected by 127%.0%.0%.1:%d+\nechoed 12 bytes\n$", said)
    end)

    it("serves one client after another", function()
      local server, _, port = start("echo_server", "127.0.0.1", 0, 3)
      for i = 1, 3 do
        assert.equal(('received "%d"\n'):format(i), (run("echo_client", "127.0.0.1", port, i)))
      end
      local said, ok = output(server)
      assert.truthy(ok)
      assert.equal(3, select(2, said:gsub("echoed 1 bytes", "")))
    end)

    it("outlives a client that breaks off", function()
      local server, _, port = start("echo_server", "127.0.0.1", 0, 2)
      local rude = socket.create_connection({"127.0.0.1", port}, 10)
      rude:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("i4i4", 1, 0))
      rude:close()                                  -- with a reset
      assert.equal('received "still here"\n', (run("echo_client", "127.0.0.1", port, "still here")))
      local said, ok = output(server)
      assert.truthy(ok)
      assert.matches("ECONNRESET", said)
    end)

    it("says where nobody listens", function()
      local s = socket.socket()
      local port = s:bind({"127.0.0.1", 0}):getsockname().port
      s:close()
      local said, ok = run("echo_client", "127.0.0.1", port)
      assert.falsy(ok)
      assert.matches("echo_client%.lua:%d+: connect 127%.0%.0%.1:" .. port .. ": .+ %(ECONNREFUSED%)", said)
    end)
  end)

  describe("echo over whatever family there is", function()
    local function both(host, shown)
      local server, address, port = start("echo_server_any", host, 0, 1)
      assert.equal(shown .. ":" .. port, address)
      local said = run("echo_client_any", host, port, "any")
      assert.equal(("connected to %s\nreceived \"any\"\n"):format(address), said)
      local _, ok = output(server)
      assert.truthy(ok)
    end

    it("comes back over IPv4", function() both("127.0.0.1", "127.0.0.1") end)

    it("comes back over IPv6", function()
      if not has_ipv6() then pending("this machine has no IPv6") end
      both("::1", "[::1]")
    end)

    it("tries the addresses of a name in turn", function()
      local server, _, port = start("echo_server_any", "127.0.0.1", 0, 1)
      local said, ok = run("echo_client_any", "localhost", port)
      assert.truthy(ok)
      assert.matches('received "Hello, world"\n$', said)
      assert.truthy(select(2, output(server)))
    end)

    it("fails with the last problem", function()
      local s = socket.socket()
      local port = s:bind({"127.0.0.1", 0}):getsockname().port
      s:close()
      local said, ok = run("echo_client_any", "127.0.0.1", port)
      assert.falsy(ok)
      assert.matches("could not open a socket: .+ECONNREFUSED", said)
    end)
  end)

  describe("thank you", function()
    it("is said under this machine's own name", function()
      local server, _, port = start("thankyou_server", 0, 2)
      for _ = 1, 2 do
        assert.matches("Thank you for connecting\n$", (run("thankyou_client", port)))
      end
      local said, ok = output(server)
      assert.truthy(ok)
      assert.equal(2, select(2, said:gsub("got a connection from ", "")))
    end)

    it("is said without a name that resolves", function()
      local nobody = ("x"):rep(64) .. ".invalid"    -- too long a label to be asked for
      local server, address, port, before = start("thankyou_server", 0, 1, nobody)
      assert.matches("does not resolve %(EAI_%u+%), using 127%.0%.0%.1", before)
      assert.equal("127.0.0.1:" .. port, address)
      local said = run("thankyou_client", port, nobody)
      assert.matches("does not resolve", said)
      assert.matches("Thank you for connecting\n$", said)
      assert.truthy(select(2, output(server)))
    end)
  end)

  it("echo over UDP comes back, empty datagrams too", function()
    local server, _, port = start("udp_echo_server", "127.0.0.1", 0, 2)
    assert.equal('received "Hello, world"\n', (run("udp_echo_client", "127.0.0.1", port)))
    assert.equal('received ""\n', (run("udp_echo_client", "127.0.0.1", port, "")))
    local said, ok = output(server)
    assert.truthy(ok)
    assert.matches("^12 bytes from 127%.0%.0%.1:%d+\n0 bytes from", said)
  end)

  describe("echo over a Unix socket", function()
    it("comes back, and leaves no file", function()
      local path = os.tmpname()
      os.remove(path)
      local server, address = start("unix_echo_server", path, 1)
      assert.equal(path, address)
      assert.equal('received "Hello, world"\n', (run("unix_echo_client", path)))
      local said, ok = output(server)
      assert.truthy(ok)
      assert.equal("echoed 12 bytes\n", said)
      assert.is_nil(io.open(path))
    end)

    it("works in the abstract namespace", function()
      if not socket.AF_PACKET then pending("only Linux has it") end
      local name = "@" .. os.tmpname()
      os.remove(name:sub(2))
      local server = start("unix_echo_server", name, 1)
      assert.equal('received "Hello, world"\n', (run("unix_echo_client", name)))
      assert.truthy(select(2, output(server)))
    end)
  end)

  describe("a descriptor", function()
    local function pass(path)
      local file = os.tmpname()
      do
        local f <close> = assert(io.open(file, "wb"))
        f:write("the content\0\nof a file\n")
      end
      local receiver, address = start("recv_fd", path)
      assert.equal(path, address)
      local said, ok = run("send_fd", file, path)
      os.remove(file)
      assert.truthy(ok)
      assert.equal(('sent %s\nthe other program says "thank you"\n'):format(file), said)
      said, ok = output(receiver)
      assert.truthy(ok)
      assert.equal(file:match "[^/]*$" .. ": 23 bytes\nthe content\0\nof a file\n", said)
    end

    it("of an open file goes to another process over a Unix socket", function()
      local path = os.tmpname()
      os.remove(path)
      pass(path)
      assert.is_nil(io.open(path))
    end)

    it("goes over an abstract one too", function()
      if not socket.AF_PACKET then pending("only Linux has it") end
      local name = os.tmpname()
      os.remove(name)
      pass("@" .. name)
    end)

    it("has no way where nobody listens", function()
      local said, ok = run("send_fd", helper.root .. "/README.md", "/nowhere/at all")
      assert.falsy(ok)
      assert.matches("connect unix:/nowhere/at all: .+ %(ENOENT%)", said)
      said, ok = run("send_fd", "/nowhere/at all")
      assert.falsy(ok)
      assert.matches("/nowhere/at all: No such file", said)
      said, ok = run "send_fd"
      assert.falsy(ok)
      assert.matches("usage: lua5.4 examples/send_fd.lua file", said)
    end)
  end)

  describe("http_server", function()
    it("greets", function()
      local server, _, port = start("http_server", "127.0.0.1", 0, "", 2)
      local said, ok = run("http_get", ("http://127.0.0.1:%d/some/where?x=1"):format(port))
      assert.truthy(ok)
      assert.matches("\nHTTP/1.1 200 OK\n", said)
      assert.matches("\n  Connection: close\n", said)
      assert.matches("\nbody: 57 bytes\n$", said)
      local answer = ask(port, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.matches("\r\n\r\nHello from socket for Lua! You asked for /x\n$", answer)
      assert.truthy(select(2, output(server)))
    end)

    it("sends files, whole and only from its folder", function()
      local folder = os.tmpname()
      os.remove(folder)
      assert(os.execute("mkdir -p " .. folder .. "/site/sub"))
      local function put(name, text)
        local file <close> = assert(io.open(folder .. name, "wb"))
        file:write(text)
      end
      local big = ("0123456789abcdef"):rep(20000) .. "end"
      put("/secret.txt", "secret")
      put("/site/index.html", "<p>Hello")
      put("/site/big file.txt", big)
      put("/site/empty.txt", "")

      local function get(port, target, method)
        local answer = ask(port, ("%s %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(method or "GET", target))
        local head, body = answer:match "^(.-)\r\n\r\n(.*)$"
        return head:match "^HTTP/1%.1 (%d+)", body, head
      end
      local outside = {"/../secret.txt", "/%2e%2e/secret.txt", "/sub/..%2f../secret.txt", "/./../secret.txt",
        "../secret.txt", "/..%5csecret.txt", "/index.html%00.txt", "//../secret.txt"}
      local server, _, port = start("http_server", "127.0.0.1", 0, folder .. "/site", 7 + #outside)

      local status, body, head = get(port, "/")
      assert.same({"200", "<p>Hello"}, {status, body})
      assert.matches("Content%-Type: text/html; charset=utf%-8\r\nContent%-Length: 8\r\n", head)
      status, body = get(port, "/big%20file.txt")
      assert.equal("200", status)
      assert.truthy(body == big)
      status, body, head = get(port, "/big%20file.txt", "HEAD")
      assert.same({"200", ""}, {status, body})
      assert.matches("Content%-Length: " .. #big, head)
      status, body = get(port, "/empty.txt?and=more")
      assert.same({"200", ""}, {status, body})
      assert.equal("404", (get(port, "/sub")))
      assert.equal("404", (get(port, "/nothing")))
      status, _, head = get(port, "/", "DELETE")
      assert.equal("405", status)
      assert.matches("Allow: GET, HEAD", head)
      for _, target in ipairs(outside) do
        status, body = get(port, target)
        assert.equal("404", status, target)
        assert.equal("404 Not Found\n", body)
      end
      assert.truthy(select(2, output(server)))
      assert(os.execute("rm -r " .. folder))
    end)

    it("refuses what is not a request, or too long for one", function()
      local server, _, port = start("http_server", "127.0.0.1", 0, "", 3)
      assert.matches("^HTTP/1.1 400 ", ask(port, "what?\r\n\r\n"))
      assert.matches("^HTTP/1.1 431 ", ask(port, "GET / HTTP/1.1\r\nX: " .. ("x"):rep(20000)))
      socket.create_connection({"127.0.0.1", port}, 10):close()     -- says nothing: no answer
      assert.truthy(select(2, output(server)))
    end)
  end)

  describe("http_get", function()
    -- A server in this process that answers once with the text given.
    local function against(answer)
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local port = server:getsockname().port
      local client = examples.open(command("http_get", ("http://127.0.0.1:%d"):format(port)))
      server:settimeout(10)
      local conn <close> = server:accept()
      conn:settimeout(10)
      local request = ""
      repeat request = request .. conn:recv(4096) until request:find("\r\n\r\n", 1, true)
      conn:sendall(answer)
      conn:close()
      local said, ok = output(client)
      return said, ok, request
    end

    it("asks as HTTP/1.1 wants it", function()
      local said, ok, request = against "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
      assert.truthy(ok)
      assert.matches("body: 2 bytes", said)
      assert.matches("^GET / HTTP/1.1\r\nHost: 127.0.0.1:%d+\r\n", request)
    end)

    it("joins chunks", function()
      local said, ok = against("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "5\r\nHello\r\nA;x=y\r\n, everyone\r\n0\r\n\r\n")
      assert.truthy(ok)
      assert.matches("body: 15 bytes", said)
    end)

    it("notices a page that is cut off", function()
      for _, answer in ipairs {
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHel",
      } do
        local said, ok = against(answer)
        assert.falsy(ok)
        assert.matches("cut off", said)
      end
      local said, ok = against "HTTP/1.1 200 OK\r\n"
      assert.falsy(ok)
      assert.matches("no HTTP answer", said)
    end)

    it("speaks http only", function()
      local said, ok = run("http_get", "https://127.0.0.1/")
      assert.falsy(ok)
      assert.matches("not an http:// address", said)
    end)
  end)

  describe("file_server", function()
    local folder

    local function put(name, text)
      local file <close> = assert(io.open(folder .. name, "wb"))
      file:write(text)
    end

    before_each(function()
      folder = os.tmpname()
      os.remove(folder)
      assert(os.execute("mkdir -p " .. folder .. "/site/sub/.git"))
      put("/secret.txt", "secret")
      put("/site/index.html", "<p>Hello")
      put("/site/.hidden", "hidden")
      put("/site/empty.txt", "")
      put("/site/ten.txt", "0123456789")
    end)

    after_each(function() assert(os.execute("rm -r " .. folder)) end)

    -- What curl says; head and body where the answer has both.
    local function curl(port, path, options)
      local text = output(assert(io.popen(("exec timeout 20 curl -s --path-as-is %s http://127.0.0.1:%d%s"):format(
        options or "-i", port, path))))
      local head, body = text:match "^(.-\r\n)\r\n(.*)$"
      return head or text, body
    end

    it("sends files to curl, whole, in part, or only what they are", function()
      local big = ("0123456789abcdef"):rep(200000) .. "end"
      put("/site/big file.txt", big)
      local server, _, port = start("file_server", "127.0.0.1", 0, folder .. "/site", 11)
      local head, body = curl(port, "/")
      assert.equal("<p>Hello", body)
      assert.matches("^HTTP/1.1 200 OK\r\nContent%-Type: text/html; charset=utf%-8\r\nContent%-Length: 8\r\n", head)
      head, body = curl(port, "/big%20file.txt?and=more#x")
      assert.truthy(body == big)
      assert.matches("Accept%-Ranges: bytes\r\n", head)
      head, body = curl(port, "/big%20file.txt", "-I")
      assert.equal("", body)
      assert.matches("Content%-Length: " .. #big .. "\r\n", head)
      head, body = curl(port, "/empty.txt")
      assert.equal("", body)
      assert.matches("200 OK", head)
      for range, want in pairs {["0-3"] = "0123", ["8-"] = "89", ["-3"] = "789", ["5-5"] = "5", ["5-100"] = "56789"} do
        head, body = curl(port, "/ten.txt", "-i -r " .. range)
        assert.equal(want, body)
        assert.matches("^HTTP/1.1 206 .*Content%-Range: bytes %d%-%d/10\r\n", head)
      end
      assert.matches("^HTTP/1.1 416 .*Content%-Range: bytes %*/10\r\n", (curl(port, "/ten.txt", "-i -r 10-")))
      assert.equal("0123456789", select(2, curl(port, "/ten.txt", "-i -H 'Range: bytes=5-3'")))
      local said, ok = output(server)
      assert.truthy(ok, said)
      assert.matches('127%.0%.0%.1:%d+ GET "/" 200 OK\n', said)
      assert.matches('HEAD "/big%%20file.txt" 200 OK\n', said)
    end)

    it("serves one request after another on one connection, also those sent ahead", function()
      local server, _, port = start("file_server", "127.0.0.1", 0, folder .. "/site", 2)
      local text = curl(port, "/ten.txt http://127.0.0.1:" .. port .. "/index.html", "-w '%{num_connects}'")
      assert.equal("01234567891<p>Hello0", text)
      local answers = ask(port, ("GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n"):rep(20)
        .. "GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
      assert.equal(20, select(2, answers:gsub("\r\n\r\n0123456789", "")))
      assert.matches("404 Not Found\n$", answers)
      assert.truthy(select(2, output(server)))
    end)

    it("serves nothing outside its folder, no hidden files, and no folders", function()
      local outside = {"/../secret.txt", "/%2e%2e/secret.txt", "/sub/..%2f../secret.txt", "/./../secret.txt",
        "/..%5csecret.txt", "/index.html%00.txt", "//../secret.txt", "/.hidden", "/sub/.git/", "/sub", "/sub/",
        "/nothing", "/%2e/ten.txt"}
      local server, _, port = start("file_server", "127.0.0.1", 0, folder .. "/site", #outside + 1)
      for _, path in ipairs(outside) do
        local head, body = curl(port, path)
        assert.matches("^HTTP/1.1 404 ", head)
        assert.equal("404 Not Found\n", body)
      end
      assert.matches("^HTTP/1.1 404 ", ask(port, "GET ../secret.txt HTTP/1.1\r\nConnection: close\r\n\r\n"))
      assert.truthy(select(2, output(server)))
    end)

    it("refuses other methods, what is no request, and heads without end", function()
      local server, _, port = start("file_server", "127.0.0.1", 0, folder .. "/site", 6)
      local head = curl(port, "/ten.txt", "-i -d 'a body'")
      assert.matches("^HTTP/1.1 405 .*Allow: GET, HEAD\r\n", head)
      assert.matches("^HTTP/1.1 400 ", ask(port, "what?\r\n\r\n"))
      assert.matches("^HTTP/1.1 400 ", ask(port, "GET / HTTP/1.1\r\nno field\r\n\r\n"))
      assert.matches("^HTTP/1.1 431 ", ask(port, "GET /" .. ("x"):rep(5000)))
      assert.matches("^HTTP/1.1 431 ", ask(port, "GET / HTTP/1.1\r\n" .. ("x: y\r\n"):rep(101)))
      socket.create_connection({"127.0.0.1", port}, 10):close()
      assert.truthy(select(2, output(server)))
    end)
  end)

  describe("redis_client", function()
    -- A server with nothing saved, that ends with the test.
    local function redis(arguments)
      if not os.execute "command -v redis-server >/dev/null 2>&1" then pending "redis-server is not installed" end
      local pipe = examples.open("exec timeout 20 redis-server --save '' --appendonly no --dir /tmp " .. arguments)
      for line in pipe:lines() do
        if line:find "[Rr]eady to accept connections" then return pipe end
      end
      error "redis-server did not start"
    end

    local function dialogue(address)
      local function ask_redis(...)
        return (run("redis_client", address, ...))
      end
      assert.equal('"PONG"\n', ask_redis "PING")
      assert.equal('"OK"\n', ask_redis("SET", "greeting", "Hello,\r\nworld"))
      assert.equal('"Hello,\\13\\nworld"\n', ask_redis("GET", "greeting"))
      assert.equal('"OK"\n', ask_redis("SET", "empty", ""))
      assert.equal('""\n', ask_redis("GET", "empty"))
      assert.equal("(nil)\n", ask_redis("GET", "nothing"))
      assert.equal("13\n", ask_redis("STRLEN", "greeting"))
      assert.equal("(error) ERR value is not an integer or out of range\n", ask_redis("INCR", "greeting"))
      assert.equal("(empty)\n", ask_redis("LRANGE", "nothing", 0, -1))
      assert.equal('1) "one"\n2) (nil)\n', ask_redis("EVAL", "return {'one', false}", 0))
      local long = ("x"):rep(100000)
      assert.equal('"OK"\n', ask_redis("SET", "long", long))
      assert.equal(('"%s"\n'):format(long), ask_redis("GET", "long"))
    end

    it("talks to a Redis server over a Unix socket", function()
      local path = os.tmpname()
      os.remove(path)
      local server = redis("--port 0 --unixsocket " .. path)
      dialogue(path)
      assert.matches("the server has closed the connection", (run("redis_client", path, "SHUTDOWN", "NOSAVE")))
      output(server)
    end)

    it("talks to a Redis server over TCP, many commands at once", function()
      local s = socket.socket()
      local port = s:bind({"127.0.0.1", 0}):getsockname().port
      s:close()
      local server = redis("--bind 127.0.0.1 --port " .. port)
      local address = "127.0.0.1:" .. port
      dialogue(address)
      local said = output(assert(io.popen(("printf 'RPUSH list 1 2 3\\nLRANGE list 0 -1\\n\\nECHO x\\n' | %s"):format(
        command("redis_client", address)))))
      assert.equal('3\n1) "1"\n2) "2"\n3) "3"\n"x"\n', said)
      run("redis_client", address, "SHUTDOWN", "NOSAVE")
      output(server)
    end)

    it("says what is wrong with a server that is none", function()
      for answer, problem in pairs {
        ["HTTP/1.1 400 Bad Request\r\n"] = "this is not a Redis server", ["+OK\n"] = "the reply is cut off",
        ["$10\r\nhalf"] = "the reply is cut off", [""] = "has closed the connection",
      } do
        local listener <close> = socket.create_server {"127.0.0.1", 0}
        local client = examples.open(command("redis_client", tostring(listener:getsockname()), "PING"))
        listener:settimeout(10)
        local conn <close> = listener:accept()
        conn:settimeout(10)
        assert.equal("*1\r\n$4\r\nPING\r\n", conn:recv(14, socket.MSG_WAITALL))
        conn:sendall(answer):close()
        local said, ok = output(client)
        assert.falsy(ok)
        assert.matches(problem, said)
      end
    end)
  end)

  describe("sniffer", function()
    -- In a network of its own, so that nobody else's packets are counted. Each
    -- round is seen twice, on the way out and in: a datagram, the refusal it
    -- earns, and an attempt to connect with its reset.
    local traffic = [[
      local socket = require "socket"
      local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      s:sendto("hello", {"127.0.0.1", 9})
      local t <close> = socket.socket()
      t:try_connect {"127.0.0.1", 9}
    ]]

    it("sees and decodes what passes", function()
      if not os.execute "unshare -n true 2>/dev/null" then
        pending("raw sockets and a network of our own need root")
      end
      local script = ([[
        ip link set lo up || exit 1
        (%s) & sniffer=$!
        while kill -0 $sniffer 2>/dev/null; do
          %s -e %s; sleep 0.1
        done
        wait $sniffer
      ]]):format(command("sniffer", "lo", 16, 15), helper.lua(), helper.quote(traffic))
      local said, ok = output(assert(io.popen("timeout 20 unshare -n sh -c " .. helper.quote(script) .. " 2>&1")))
      assert.matches("capturing 16 packets on lo\n", said)
      assert.matches("\n *%d+ out +47  127.0.0.1 > 127.0.0.1 UDP %d+ > 9 5 bytes\n", said)
      assert.matches("\n *%d+ in +47  127.0.0.1 > 127.0.0.1 UDP %d+ > 9 5 bytes\n", said)
      assert.matches("ICMP type 3\n", said)
      assert.matches("TCP %d+ > 9 seq %d+ %[SYN%] 0 bytes\n", said)
      assert.matches("TCP 9 > %d+ seq 0 %[RST,ACK%] 0 bytes\n", said)
      assert.truthy(ok)
    end)

    it("says what is wrong with an interface", function()
      if not socket.AF_PACKET then pending("only Linux has AF_PACKET") end
      local said, ok = run("sniffer", "none", 1, 1)
      assert.falsy(ok)
      if said:find "not permitted" then
        assert.equal("raw sockets are not permitted: try again as root\n", said)
      else
        assert.matches("ENODEV", said)
      end
    end)
  end)

  it("errors are the ones announced", function()
    local said, ok = run("errors")
    assert.truthy(ok, said)
    for _, code in ipairs {"ECONNREFUSED", "EBADF", "EAI_NONAME", "ETIMEDOUT", "EAGAIN"} do
      assert.matches("code " .. code, said)
    end
    assert.matches("class socket.timeout, code ETIMEDOUT", said)
    assert.matches("bad argument #1 to 'recv'", said)
  end)
end)
