-- The examples of socket.loop and socket.selectors, run as a person runs them: real processes, real
-- addresses, each bounded by timeout(1).

local examples = require "spec.support.examples"
local helper = require "spec.helper"
local socket = require "socket"
local loop = require "socket.loop"
local support = require "spec.support"

local command, open, output, run, start = examples.command, examples.open, examples.output, examples.run, examples.start

describe("examples of the loop:", function()
  after_each(examples.stop)

  describe("port_scanner", function()
    -- An address of our own, where other tests' servers are not found.
    local host

    -- So many servers on ports in a row; the first port, and the servers.
    local function row(n)
      host = ("127.77.%d.%d"):format(math.random(0, 255), math.random(1, 254))
      for _ = 1, 50 do
        local base, servers = math.random(20000, 30000), {}
        for i = 1, n do
          local s = socket.socket()
          if not s:try_bind {host, base + i - 1} then break end
          servers[i] = s:listen(20)
        end
        if #servers == n then return base, servers end
        for _, s in ipairs(servers) do s:close() end
      end
      error "no free ports"
    end

    local function close(servers)
      for _, s in ipairs(servers) do s:close() end
    end

    it("finds who listens, and what they say", function()
      local port, servers = row(2)
      local pipe = open(command("port_scanner", port - 10, port + 10, 5, host))
      local conn = servers[2]:settimeout(10):accept()
      conn:sendall "220 hi\27[1m there\r\nand more"
      conn:close()
      local said, ok = output(pipe)
      close(servers)
      assert.truthy(ok, said)
      assert.matches(("^ *%d  %%S+ *\n *%d  %%S+ +220 hi%%?%%[1m there\n"):format(port, port + 1), said)
      assert.matches("\n21 ports in %d+%.%d%d s: 2 open, 19 closed, 0 silent; at most %d at once\n$", said)
    end)

    -- Each of these says nothing for the 0.2 seconds that the scanner waits.
    it("tries no more at once than it was told, and as many", function()
      local port, servers = row(3)
      local seconds = {}
      for at_once = 1, 3 do
        local begin = socket.monotonic()
        local said, ok = run("port_scanner", port, port + 2, at_once, host)
        seconds[at_once] = socket.monotonic() - begin
        assert.truthy(ok, said)
        assert.matches(("3 open, 0 closed, 0 silent; at most %d at once\n$"):format(at_once), said)
      end
      close(servers)
      assert.is_true(seconds[1] >= 0.6 and seconds[2] >= 0.4, table.concat(seconds, " "))
      assert.is_true(seconds[3] < seconds[1], table.concat(seconds, " "))
    end)

    it("does not take itself for a server", function()
      local said, status = support.output(("exec unshare -rn sh -c %s"):format(helper.quote(
        "ip link set lo up; echo 40000 40001 >/proc/sys/net/ipv4/ip_local_port_range; for i in 1 2 3 4; do "
        .. command("port_scanner", 40000, 40001, 1):gsub("^exec ", "") .. "; done")))
      if status ~= 0 then pending("needs network namespaces: " .. said) end
      assert.equal(4, select(2, said:gsub("2 ports in [%d.]+ s: 0 open, 2 closed, 0 silent", "")), said)
    end)

    it("scans this machine only", function()
      for _, other in ipairs {"192.0.2.1", "example.org", "127.0.0.1.example.org"} do
        local said, ok = run("port_scanner", 1, 2, 1, other)
        assert.falsy(ok)
        assert.matches("not a loopback address: " .. other:gsub("%p", "%%%0"), said)
      end
      for _, wrong in ipairs {{0, 1}, {1, 65536}, {"x"}, {1, 2, 0}} do
        local said, ok = run("port_scanner", table.unpack(wrong))
        assert.falsy(ok)
        assert.matches("usage: port_scanner%.lua", said)
      end
    end)
  end)

  describe("discovery", function()
    -- Groups differ by their port here, so that tests that run at the same time do not meet.
    local port, group

    before_each(function()
      local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      port = s:bind({"", 0}):getsockname().port
      group = {"239.255.77.77", port}
    end)

    local function find(seconds) return command("discovery", "find", seconds, "127.0.0.1", port) end
    local function announce(name, seconds) return "discovery", "announce", name, seconds, "127.0.0.1", port end

    -- A member of the group in this process.
    local function member()
      local s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      s:setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
      s:bind {"", port}
      local by = socket.inet_aton "127.0.0.1"
      s:setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group[1]) .. by)
      s:setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, by)
      return s:settimeout(10)
    end

    it("finds who was there before, and who comes later", function()
      local _, first = start(announce("first", 1.4))
      local finder = open(find(1.2))
      assert.equal("found first at " .. first, finder:read "l")
      assert.equal("first says: Hello from first", finder:read "l")
      local _, second = start(announce("second", 1.2))
      assert.equal("found second at " .. second, finder:read "l")
      assert.equal("second says: Hello from second", finder:read "l")
      local said, ok = output(finder)
      assert.truthy(ok)
      assert.equal("2 found\n", said)
    end)

    it("hears of those who leave", function()
      local finder = open(find(1.2))
      local announcer, address = start(announce("brief", 0.4))
      assert.equal("found brief at " .. address, finder:read "l")
      assert.equal("brief says: Hello from brief", finder:read "l")
      assert.equal("gone  brief at " .. address, finder:read "l")
      assert.equal("0 found", finder:read "l")
      local said, ok = output(announcer)
      assert.truthy(ok)
      assert.matches("visited by 127%.0%.0%.1:%d+\n", said)
      assert.matches("\ngone\n$", said)
    end)

    it("says goodbye on Ctrl-C", function()
      local s <close> = member()
      -- Without timeout(1), which would send the signal twice; after two seconds it is over anyway.
      local pipe = open("echo $$; " .. command(announce("rude", 2)):gsub("^exec timeout 20 ", "exec "))
      local pid = pipe:read "l"
      local listening = pipe:read "l":match "^listening on .*:(%d+)$"
      assert.equal("HERE rude " .. listening, (s:recv(100)))
      assert.truthy(support.kill(pid, "INT"))
      assert.equal("GONE rude " .. listening, (s:recv(100)))
      local said, ok = output(pipe)
      assert.falsy(ok)
      assert.matches("^gone\n", said)
    end)

    it("answers everybody who asks", function()
      local announcer, _, tcp = start(announce("busy", 0.8))
      local s <close> = member()
      for _ = 1, 3 do s:sendto("FIND", group) end
      local answers, answer = 0, "HERE busy " .. tcp
      while answers < 3 do
        local message = s:recv(100)
        if message == answer then answers = answers + 1 else assert.equal("FIND", message) end
      end
      local said, ok = output(announcer)
      assert.truthy(ok)
      assert.equal(3, select(2, said:gsub("asked by 127%.0%.0%.1\n", "")))
    end)

    it("believes nothing that it cannot read", function()
      local finder = open(find(0.6))
      local s <close> = member()
      local closed <close> = socket.socket():bind {"127.0.0.1", 0}
      assert.equal("FIND", (s:recv(100)))
      for _, message in ipairs {"", "HERE", "HERE x", "HERE x 65536", "HERE x 999999", "HERE ../x 80", "HERE x\27 80",
          ("x"):rep(5000), "GONE nobody 80", "HERE here 0", ("HERE shut %d"):format(closed:getsockname().port)} do
        s:sendto(message, group)
      end
      local said, ok = output(finder)
      assert.truthy(ok, said)
      assert.matches("^found here at 127%.0%.0%.1:0\n", said)
      assert.matches("\nhere does not answer: ", said)
      assert.matches("\nfound shut at 127%.0%.0%.1:%d+\n", said)
      assert.matches("\nshut does not answer: .*ECONNREFUSED", said)
      assert.matches("\n2 found\n$", said)
      assert.equal(5, select(2, said:gsub("\n", "")))
    end)

    it("needs no network", function()
      local said, status = support.output("exec unshare -rn sh -c " .. helper.quote(("ip link set lo up; %s & %s; wait")
        :format(command(announce("alone", 0.8)):gsub("^exec ", ""), find(0.6):gsub("^exec ", ""))))
      if status ~= 0 then pending("needs network namespaces: " .. said) end
      assert.matches("found alone at 127%.0%.0%.1:%d+\n", said)
      assert.matches("alone says: Hello from alone\n", said)
    end)

    it("tells how it is used", function()
      for _, wrong in ipairs {{}, {"find", "x"}, {"announce"}, {"announce", "a b"}, {"announce", ("x"):rep(61)}} do
        local said, ok = run("discovery", table.unpack(wrong))
        assert.falsy(ok)
        assert.matches("usage: discovery%.lua", said)
      end
    end)
  end)

  describe("frame_loop", function()
    local function last_line(said)
      local bytes, frames, seconds, average, worst = said:match(
        "(%d+) bytes in (%d+) frames, ([%d.]+) s; "
        .. "step took ([%d.]+) ms on average, ([%d.]+) at most; %d+ frames late\n$")
      assert.truthy(bytes, said)
      return tonumber(bytes), tonumber(frames), tonumber(seconds), tonumber(average), tonumber(worst)
    end

    -- Answers one request by the function, in pieces while the example runs.
    local function page(answer)
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local pipe = open(command("frame_loop", ("http://%s/x?y#z"):format(server:getsockname())))
      local conn <close> = server:settimeout(10):accept()
      local request = conn:settimeout(10):recv(1000)
      assert.matches("^GET /x%?y HTTP/1%.0\r\nHost: 127%.0%.0%.1:%d+\r\n", request)
      answer(conn)
      conn:close()
      return output(pipe)
    end

    it("goes on at its pace while the page comes", function()
      local said, ok = run "frame_loop"
      assert.truthy(ok, said)
      local bytes, frames, seconds, average, worst = last_line(said)
      assert.equal(2 << 20, bytes)
      -- 32 pieces with 20 ms between them: more frames than that, and never faster than 60 in a second.
      assert.is_true(frames >= 32)
      assert.is_true(frames / seconds <= 62)
      assert.is_true(average <= worst and average < 8)
      assert.matches("^frame   15: step took +[%d.]+ ms, +[%d.]+ MiB of 2%.0\n", said)
    end)

    it("downloads from others, however slow", function()
      local said, ok = page(function(conn)
        conn:sendall "HTTP/1.1 200 OK\r\n"
        socket.sleep(0.2)
        conn:sendall "X: y\r\nContent-Length: 200000\r\n\r\n"
        for _ = 1, 2 do
          conn:sendall(("x"):rep(100000))
          socket.sleep(0.2)
        end
      end)
      assert.truthy(ok, said)
      local bytes, frames, seconds = last_line(said)
      assert.equal(200000, bytes)
      assert.is_true(frames > 5 and seconds >= 0.4)
    end)

    it("raises what goes wrong", function()
      local said, ok = page(function(conn) conn:sendall "HTTP/1.0 404 Not Found\r\n\r\n" end)
      assert.falsy(ok)
      assert.matches("the server says HTTP/1%.0 404 Not Found", said)
      said, ok = page(function(conn) conn:sendall "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabc" end)
      assert.falsy(ok)
      assert.matches("the page is cut off", said)
      said, ok = page(function() end)
      assert.falsy(ok)
      assert.matches("no answer", said)
      said, ok = run("frame_loop", "ftp://x/")
      assert.falsy(ok)
      assert.matches("not an http:// address: ftp://x/", said)
      local s <close> = socket.socket():bind {"127.0.0.1", 0}
      said, ok = run("frame_loop", ("http://%s/"):format(s:getsockname()))
      assert.falsy(ok)
      assert.matches("create_connection 127%.0%.0%.1:%d+: .*%(ECONNREFUSED%)", said)
    end)
  end)

  describe("chat_client", function()
    -- A client whose keyboard is that shell command, and the other end of its connection.
    local function client(keyboard)
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local pipe = open(keyboard .. " | (" .. command("chat_client", "127.0.0.1", server:getsockname().port) .. ")")
      return pipe, (server:settimeout(10):accept():settimeout(10))
    end

    it("says what is typed, and prints what comes, whichever is first", function()
      local pipe, conn = client "(sleep 0.2; printf 'one\\ntwo\\nthree')"
      conn:sendall "welcome\27[2J\nand"
      assert.equal("welcome?[2J", pipe:read "l")
      assert.equal("one\ntwo\nthree", (conn:recv(13, socket.MSG_WAITALL)))
      conn:sendall " more\n"
      assert.is_nil(conn:recv(1))
      conn:close()
      local said, ok = output(pipe)
      assert.truthy(ok, said)
      assert.equal("and more\n(the server has ended the conversation)\n", said)
    end)

    it("reads its input from a file, too", function()
      local file = os.tmpname()
      local f <close> = io.open(file, "w")
      f:write(("line\n"):rep(1000)):flush()
      local server <close> = socket.create_server {"127.0.0.1", 0}
      local pipe = open(command("chat_client", "127.0.0.1", server:getsockname().port) .. " <" .. helper.quote(file))
      local conn = server:settimeout(10):accept():settimeout(10)
      assert.equal(("line\n"):rep(1000), (conn:recv(5000, socket.MSG_WAITALL)))
      conn:close()
      os.remove(file)
      assert.truthy(select(2, output(pipe)))
    end)

    it("ends with the conversation, not with the keyboard", function()
      local pipe, conn = client "sleep 1"
      local begin = socket.monotonic()
      conn:close()
      assert.equal("(the server has ended the conversation)", pipe:read "l")
      assert.is_true(socket.monotonic() - begin < 0.9)
      assert.truthy(select(2, output(pipe)))
    end)
  end)

  describe("selector_echo", function()
    it("comes back to one client after another", function()
      local server, _, port = start("selector_echo", "127.0.0.1", 0, 3)
      for i = 1, 3 do
        assert.equal(('received "%d"\n'):format(i), (run("echo_client", "127.0.0.1", port, i)))
      end
      local said, ok = output(server)
      assert.truthy(ok)
      assert.equal(3, select(2, said:gsub("127%.0%.0%.1:%d+: echoed 1 bytes\n", "")))
    end)

    it("serves a hundred at once", function()
      local server, _, port = start("selector_echo", "127.0.0.1", 0, 100)
      local here, all = 0, loop.event()
      loop.run(function()
        loop.group(function(g)
          for i = 1, 100 do
            g:spawn(function()
              local s <close> = socket.create_connection({"127.0.0.1", port}, 10)
              s:settimeout(10)
              here = here + 1
              if here == 100 then all:set() end
              assert(all:wait(10))
              local text = (i .. " "):rep(20000)
              g:spawn(function() s:sendall(text):shutdown(socket.SHUT_WR) end):join()
              local pieces = {}
              for data in function() return s:recv(65536) end do pieces[#pieces + 1] = data end
              assert(table.concat(pieces) == text)
            end)
          end
        end)
      end)
      local said, ok = output(server)
      assert.truthy(ok)
      assert.matches(": connected, 100 open\n", said)
      assert.equal(100, select(2, said:gsub(": echoed %d+ bytes\n", "")))
    end)

    it("outlives a client that breaks off", function()
      local server, _, port = start("selector_echo", "127.0.0.1", 0, 2)
      local rude = socket.create_connection({"127.0.0.1", port}, 10)
      rude:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("i4i4", 1, 0))
      rude:close()                                  -- with a reset
      assert.equal('received "still here"\n', (run("echo_client", "127.0.0.1", port, "still here")))
      local said, ok = output(server)
      assert.truthy(ok)
      assert.matches("ECONNRESET", said)
    end)

    it("keeps nothing for a client that sends and never reads", function()
      local server, _, port = start("selector_echo", "127.0.0.1", 0, 2)
      local s = socket.create_connection({"127.0.0.1", port}, 10)
      s:settimeout(0.5)
      local done, err = s:try_sendall(("x"):rep(64 << 20))
      assert.is_nil(done)
      assert.truthy(err:is(socket.timeout))
      -- Meanwhile others are served.
      assert.equal('received "hey"\n', (run("echo_client", "127.0.0.1", port, "hey")))
      s:settimeout(10):shutdown(socket.SHUT_WR)
      local bytes = 0
      for data in function() return s:recv(1 << 20) end do bytes = bytes + #data end
      s:close()
      assert.equal(err.sent, bytes)
      local said, ok = output(server)
      assert.truthy(ok)
      assert.matches(("echoed %d bytes\n"):format(bytes), said)
    end)
  end)
end)
