-- lsocket_policy.c: what a policy is told of a socket's protocol, which its type does not tell, and of descriptors that
-- leave the objects which own them.

local socket = require "socket"
local host = require "spec.support.host"

local PRELUDE = [[
  local good = tonumber((...))
  local INET, INET6, STREAM, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
  local function refused(f, ...)
    local ok, e = pcall(f, ...)
    if ok then error("not refused", 2) end
    if not (socket.iserror(e) and e.code == "EACCES" and e.message:find "host") then error(tostring(e), 2) end
    return e
  end
]]

local server, port

local function holds(options, code)
  host.needs(pending)
  host.holds(options, PRELUDE .. code .. " print 'ok'", port)
end

-- The ready-made rules, with one that leads to the server here.
local function rules(code, options)
  holds(("-r -c 127.0.0.1:%d %s"):format(port, options or ""), code)
end

describe("a policy is told the protocol", function()
  setup(function()
    server = socket.create_server {"127.0.0.1", 0}
    port = server:getsockname().port
  end)

  teardown(function() server:close() end)

  it("and the ready-made rules know only TCP for streams and UDP for datagrams", function()
    rules [[
      local others = {
        {"ICMP", INET, DGRAM, 1}, {"ICMPv6", INET6, DGRAM, 58}, {"SCTP", INET, STREAM, 132},
        {"MPTCP", INET, STREAM, 262},
        {"UDP-Lite", INET, DGRAM, 136}, {"UDP-Lite over IPv6", INET6, DGRAM, 136}, {"L2TP", INET, DGRAM, 115},
        {"SMC", INET, STREAM, 256}, {"DCCP", INET, STREAM, 33}, {"UDP as a stream", INET, STREAM, 17},
        {"TCP as datagrams", INET, DGRAM, 6}, {"MPTCP over IPv6", INET6, STREAM, 262},
      }
      for _, other in ipairs(others) do
        local e = refused(socket.socket, other[2], other[3], other[4])
        assert(e.refused == "socket" and e.proto == other[4], other[1])
      end
    ]]
  end)

  it("and lets TCP and UDP through, by name and as the system's choice", function()
    rules [[
      for _, proto in ipairs {0, socket.IPPROTO_TCP} do
        socket.socket(INET, STREAM, proto):connect {"127.0.0.1", good}:close()
      end
      for _, proto in ipairs {0, socket.IPPROTO_UDP} do
        assert(socket.socket(INET, DGRAM, proto):sendto("x", {"127.0.0.1", good}) == 1)
      end
      socket.create_connection {"127.0.0.1", good}:close()
    ]]
  end)

  it("with every question: a socket of another protocol that the host gave away leads nowhere", function()
    rules [[
      local fd, other = host.pair() -- the host says what they are
      local s = assert(host.push(fd, INET, DGRAM, 1))
      assert(refused(s.connect, s, {"127.0.0.1", good}).proto == 1)
      assert(refused(s.sendto, s, "x", {"127.0.0.1", good}).proto == 1)
      refused(s.bind, s, {"", 0})
      refused(s.sendmsg, s, "x", nil, 0, {"127.0.0.1", good})
      local stream = assert(host.push(other, INET, STREAM, 132))
      assert(refused(stream.listen, stream).proto == 132)
    ]]
  end)

  it("and an address without a family is no way around the rules", function() -- AF_UNSPEC: the kernel's IPv4
    rules [[
      local raw = string.pack(">I2", good + 1) .. socket.inet_aton "127.0.0.1" .. ("\0"):rep(8)
      for _, type in ipairs {STREAM, DGRAM} do
        local s = socket.socket(INET, type)
        for _, address in ipairs {{0, raw}, {0, ("\0"):rep(14)}, {family = 0, raw}} do
          assert(not pcall(s.connect, s, address))
          assert(not pcall(s.bind, s, address))
          assert(not pcall(s.sendto, s, "x", address))
          assert(not pcall(s.sendmsg, s, "x", nil, 0, address))
        end
        refused(socket.socket, 0, type)
      end
      local u = socket.socket(INET, DGRAM):connect {"127.0.0.1", good}
      u:disconnect()
      refused(u.connect, u, {"127.0.0.1", good + 1})
      refused(u.sendto, u, "x", {"127.0.0.1", good + 1})
      assert(not pcall(u.send, u, "x"))
    ]]
  end)

  it("as what the system will take, where a script leaves it open", function()
    holds("-a -L", [[
      local function asked(f, ...)
        host.asked()
        pcall(f, ...)
        return host.asked()
      end
      assert(asked(socket.socket) == "socket - 2 1 6 yes\n")
      assert(asked(socket.socket, INET, DGRAM) == "socket - 2 2 17 yes\n")
      assert(asked(socket.socket, INET6, STREAM) == "socket - 10 1 6 yes\n")
      assert(asked(socket.socket, INET, STREAM, 262) == "socket - 2 1 262 yes\n")
      assert(asked(socket.socket, INET, socket.SOCK_RAW, 1) == "socket - 2 3 1 yes\n")
      assert(asked(socket.socket, socket.AF_UNIX) == "socket - 1 1 0 yes\n")
    ]])
  end)
end)

describe("a policy is asked before a descriptor leaves its object", function()
  setup(function()
    server = socket.create_server {"127.0.0.1", 0}
    port = server:getsockname().port
  end)

  teardown(function() server:close() end)

  it("by detach, set_inheritable, recv_fds and received messages", function()
    rules [[
      local s = socket.create_connection {"127.0.0.1", good}
      local e = refused(s.detach, s)
      assert(e.refused == "detach" and s:fileno() >= 0)
      assert(refused(s.set_inheritable, s, true).refused == "detach")
      s:set_inheritable(false)
      local a, b = socket.socketpair()
      socket.send_fds(a, "x", {s})
      assert(refused(socket.recv_fds, b, 1, 1).refused == "detach")
      local _, items = b:recvmsg(1, 100)
      assert(items[1].type == socket.SCM_RIGHTS)
      assert(refused(function() return items[1].data end).refused == "detach")
      assert(a:sendmsg("y", items) == 1) -- unseen, they can be passed on
      local _, again = b:recvmsg(1, 100)
      assert(again[1].type == socket.SCM_RIGHTS)
    ]]
  end)

  it("so that under the ready-made rules nothing stays open when the state is closed", function()
    local left = host.run(("-r -c 127.0.0.1:%d"):format(port), [[
      for i = 1, 20 do pcall(function() return socket.socket():detach() end) end
      local a, b = socket.socketpair()
      for i = 1, 20 do
        socket.send_fds(a, "x", {a})
        local _, items = b:recvmsg(1, 100)
        pcall(function() return items[1].data end)
      end
      a:close()
      b:close()
      collectgarbage()
      local list = io.popen("ls /proc/" .. io.open("/proc/self/stat"):read "n" .. "/fd | wc -l")
      print(list:read "n")
    ]])
    assert.is_true(tonumber(left) <= 8, left)
  end)

  it("with the peer's address, so that it can tell one from another", function()
    holds("-a -L", [[
      local function asked(f, ...)
        host.asked()
        f(...)
        return host.asked()
      end
      local s = socket.create_connection {"127.0.0.1", good}
      assert(asked(s.set_inheritable, s, true) == ("detach 127.0.0.1:%d 2 1 6 yes\n"):format(good))
      assert(asked(s.set_inheritable, s, false) == "")
      local a, b = socket.socketpair()
      socket.send_fds(a, "x", {s})
      assert(asked(socket.recv_fds, b, 1, 1) == "detach - -1 -1 -1 yes\n")
      socket.send_fds(a, "x", {s})
      local _, items = b:recvmsg(1, 100)
      assert(asked(function() return items[1].data end) == ("detach 127.0.0.1:%d 2 1 6 yes\n"):format(good))
      assert(asked(function() return items[1].data end) == "") -- it has the number already
      assert(asked(s.detach, s) == ("detach 127.0.0.1:%d 2 1 6 yes\n"):format(good))
    ]])
  end)

  it("and allows it where the rules allow plain descriptors", function()
    rules([[
      local s = socket.socket():set_inheritable(true)
      socket.close(s:detach())
      local a, b = socket.socketpair()
      socket.send_fds(a, "x", {a})
      local _, fds = socket.recv_fds(b, 1, 1)
      socket.close(fds[1])
    ]], "-f")
  end)
end)
