-- Messages in pieces and with ancillary data: recvmsg, recvmsg_into, sendmsg. What such data says is in
-- msg_ancillary_spec.lua, descriptors are in msg_fds_spec.lua.

require "spec.helper"
local check = require "spec.support.check"
local socket = require "socket"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local refuses, fails, keep = check.refuses, support.fails, support.keep
local MESSAGES, MODES, STREAMS = sockets.MESSAGES, sockets.MODES, sockets.STREAMS

after_each(support.close_kept)

-- A pair of that kind, closed after the test; leaves the test where the machine has no IPv6.
local function pair(kinds, name)
  if name:find "IPv6" and not support.has_ipv6() then pending "this machine has no IPv6" end
  return keep(kinds[name]())
end

local function set_timeout(t, ...)
  for _, s in ipairs {...} do s:settimeout(t) end
end

-- A packet on its way over loopback is there when sendmsg returns, but for TCP.
local function arrive(s)
  if s.type == socket.SOCK_STREAM then
    local t = s:gettimeout()
    s:settimeout(5):recv(1, socket.MSG_PEEK)
    s:settimeout(t)
  end
end

---------------------------------------------------------------- bytes

for _, kinds in ipairs {STREAMS, MESSAGES} do
  for kind in pairs(kinds) do
    describe("over " .. kind, function()
      for _, mode in ipairs(MODES) do
        it("pieces of every sort are one message, received into any number of buffers, " .. mode[1], function()
          local a, b = pair(kinds, kind)
          set_timeout(mode[2], a, b)
          local view = socket.buffer "..view..":view(3, -3)
          assert.equal(17, a:sendmsg {"string,", 42, "", socket.buffer "\0,", view, socket.buffer(0), "!!"})
          arrive(b)
          local x, y, z = socket.buffer(5), socket.buffer(0), socket.buffer(20)
          local n, items, flags = b:recvmsg_into {x, y, z:view(2, 19)}
          assert.equal(17, n)
          assert.same({}, items)
          assert.equal(0, flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
          assert.equal("strin", tostring(x))
          assert.equal("\0g,42\0,view!!" .. ("\0"):rep(7), tostring(z))
        end)

        it("bytes that are no list are one piece, " .. mode[1], function()
          local a, b = pair(kinds, kind)
          set_timeout(mode[2], a, b)
          for _, bytes in ipairs {"bytes", socket.buffer "bytes", 12345} do
            assert.equal(5, a:sendmsg(bytes))
            arrive(b)
            local data, items, flags, address = b:recvmsg(100)
            assert.equal(bytes == 12345 and "12345" or "bytes", data)
            assert.same({}, items)
            assert.equal(0, flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
            if kind:find "UDP" then assert.is_true(address == a:getsockname()) else assert.is_nil(address) end
          end
        end)
      end

      it("recvmsg has four results", function()
        local a, b = pair(kinds, kind)
        a:sendmsg {"x"}
        assert.equal(4, select("#", b:recvmsg(10)))
        a:sendmsg {"x"}
        assert.equal(4, select("#", b:recvmsg_into {socket.buffer(10)}))
      end)

      it("MSG_PEEK leaves the bytes there", function()
        local a, b = pair(kinds, kind)
        local x, y = socket.buffer(2), socket.buffer(9)
        a:sendmsg {"pe", "ek"}
        assert.equal("pe", (b:recvmsg(2, 0, socket.MSG_PEEK)))
        assert.equal(4, (b:recvmsg_into({x, y}, 0, socket.MSG_PEEK)))
        assert.equal("peek", x:sub() .. y:sub(1, 2))
        assert.equal("peek", (b:recvmsg(100)))
      end)

      it("what is not there yet is waited for, or not", function()
        local _, b = pair(kinds, kind)
        local into = {socket.buffer(3)}
        for _, t in ipairs {false, 0.01, 0} do
          b:settimeout(t or nil)
          assert.equal("recvmsg", fails("EAGAIN", b.recvmsg, b, 10, 0, socket.MSG_DONTWAIT).op)
          assert.equal("recvmsg_into", fails("EAGAIN", b.recvmsg_into, b, into, 0, socket.MSG_DONTWAIT).op)
          if t then
            local start = socket.monotonic()
            local e = fails(t == 0 and "EAGAIN" or "ETIMEDOUT", b.recvmsg, b, 10, 100)
            assert.is_true(socket.monotonic() - start >= t)
            assert.equal(t > 0, e:is(socket.timeout))
            fails(t == 0 and "EAGAIN" or "ETIMEDOUT", b.recvmsg_into, b, into)
          end
        end
      end)

      it("65536 bytes and more have room", function()
        local a, b = pair(kinds, kind)
        local bytes = ("0123456789"):rep(6000)
        assert.equal(#bytes, a:sendmsg {bytes:sub(1, 1000), bytes:sub(1001)})
        local pieces, n = {}, 0
        while n < #bytes do
          pieces[#pieces + 1] = b:recvmsg(100000)
          n = n + #pieces[#pieces]
        end
        assert.is_true(bytes == table.concat(pieces))
      end)

      it("a process at the other end does the same with sendmsg and recvmsg", function()
        local a, b = pair(kinds, kind)
        local p <close> = support.peer(a, [[
          local data = s:recvmsg(100)
          s:sendmsg {data:upper(), " back"}]])
        b:settimeout(20):sendmsg {"the", "re"}
        local into = {socket.buffer(4), socket.buffer(6)}
        local n = 0
        repeat n = n + b:recvmsg_into {into[1]:view(n + 1), into[2]:view(math.max(1, n - 3))} until n == 10
        assert.equal("THERE back", into[1]:sub() .. into[2]:sub())
        assert.equal("", p:read "a")
      end)
    end)
  end
end

for kind in pairs(STREAMS) do
  describe("over " .. kind, function()
    it("the end of the stream is nil, beside an empty list", function()
      local a, b = pair(STREAMS, kind)
      a:sendmsg "last"
      a:shutdown(socket.SHUT_WR)
      assert.equal("last", (b:settimeout(5):recvmsg(100)))
      for _, t in ipairs {false, 5, 0} do
        b:settimeout(t or nil)
        local data, items, flags = b:recvmsg(10, 100)
        assert.is_nil(data)
        assert.same({}, items)
        assert.equal("integer", math.type(flags))
        assert.is_nil((b:recvmsg_into {socket.buffer(3)}))
        data, items = b:try_recvmsg(10)
        assert.is_nil(data)
        assert.same({}, items)
      end
    end)

    it("MSG_WAITALL fills all the buffers, while there is no timeout", function()
      local a, b = pair(STREAMS, kind)
      local p <close> = support.peer(a, "for i = 0, 9 do s:send(tostring(i)) socket.sleep(0.001) end")
      local x, y = socket.buffer(3), socket.buffer(4)
      assert.equal(7, (b:recvmsg_into({x, y}, 0, socket.MSG_WAITALL)))
      assert.equal("0123456", x:sub() .. y:sub())
      assert.equal(3, (b:recvmsg_into({x, y}, 0, socket.MSG_WAITALL))) -- the end comes first
      assert.equal("7893456", x:sub() .. y:sub())
      p:read "a"
    end)

    it("no bytes at all are no message", function()
      local a, b = pair(STREAMS, kind)
      assert.equal(0, a:sendmsg {})
      assert.equal(0, a:sendmsg "")
      assert.equal(0, a:sendmsg {"", ""})
      fails("EAGAIN", b.recvmsg, b, 10, 0, socket.MSG_DONTWAIT)
    end)

    it("a peer that is gone is EPIPE or ECONNRESET, and never a signal", function()
      local a, b = pair(STREAMS, kind)
      b:close()
      a:try_sendmsg "x"
      for _, t in ipairs {false, 5, 0} do
        a:settimeout(t or nil)
        local none, e = a:try_sendmsg {"x"}
        assert.is_nil(none)
        assert.is_true(e.code == "EPIPE" or e.code == "ECONNRESET", e.code)
        assert.equal("sendmsg", e.op)
      end
    end)
  end)
end

for kind in pairs(MESSAGES) do
  describe("over " .. kind, function()
    it("a message that does not fit is cut, and MSG_TRUNC says so", function()
      local a, b = pair(MESSAGES, kind)
      local x, y = socket.buffer "..", socket.buffer ".."
      for _ = 1, 4 do a:sendmsg {"01234", "56789"} end
      a:sendmsg "next"
      local data, _, flags = b:recvmsg(4)
      assert.equal("0123", data)
      assert.equal(socket.MSG_TRUNC, flags & socket.MSG_TRUNC)
      local n
      n, _, flags = b:recvmsg_into {x, y}
      assert.equal(4, n)
      assert.equal("0123", x:sub() .. y:sub())
      assert.equal(socket.MSG_TRUNC, flags & socket.MSG_TRUNC)
      -- as a flag it asks for the whole length, which recvmsg_into gives
      data, _, flags = b:recvmsg(4, 0, socket.MSG_TRUNC)
      assert.equal("0123", data)
      assert.equal(socket.MSG_TRUNC, flags & socket.MSG_TRUNC)
      assert.equal(10, (b:recvmsg_into({x}, 0, socket.MSG_TRUNC)))
      data, _, flags = b:recvmsg(4)
      assert.equal("next", data)
      assert.equal(0, flags & socket.MSG_TRUNC)
    end)

    it("a message that is too long is EMSGSIZE, and so are too many pieces", function()
      local a, b = pair(MESSAGES, kind)
      fails("EMSGSIZE", a.sendmsg, a, ("x"):rep(1000000))
      local many = {}
      for i = 1, 1025 do many[i] = "x" end
      fails("EMSGSIZE", a.sendmsg, a, many)
      many[1025] = nil
      assert.equal(1024, a:sendmsg(many))
      assert.equal(1024, #b:recvmsg(2000))
      for i = 1, 1025 do many[i] = socket.buffer(1) end
      fails("EMSGSIZE", b.recvmsg_into, b, many)
    end)

    if kind ~= "Unix seqpackets" then -- there an empty record and the end look alike (unix(7))
      it("an empty message is the empty string, or 0", function()
        local a, b = pair(MESSAGES, kind)
        assert.equal(0, a:sendmsg {})
        assert.equal(0, a:sendmsg "")
        assert.equal(0, a:sendmsg {"", socket.buffer(0)})
        a:sendmsg "x"
        for _, t in ipairs {false, 5} do
          b:settimeout(t or nil)
          assert.equal("", (b:recvmsg(10)))
        end
        assert.equal(0, (b:recvmsg_into {socket.buffer(3)}))
        assert.equal("x", (b:recvmsg(10)))
      end)

      it("nowhere to put a message is room for an empty one", function()
        local a, b = pair(MESSAGES, kind)
        for _ = 1, 3 do a:sendmsg "lost" end
        a:sendmsg "kept"
        local data, items, flags = b:recvmsg(0)
        assert.equal("", data)
        assert.same({}, items)
        assert.equal(socket.MSG_TRUNC, flags & socket.MSG_TRUNC)
        assert.equal(0, (b:recvmsg_into {}))
        assert.equal(0, (b:recvmsg_into {socket.buffer(0)}))
        assert.equal("kept", (b:recvmsg(10)))
      end)
    end
  end)
end

describe("sendmsg with an address", function()
  it("sends there", function()
    for _, family in ipairs {socket.AF_INET, socket.AF_INET6} do
      if family == socket.AF_INET or support.has_ipv6() then
        local host = family == socket.AF_INET and "127.0.0.1" or "::1"
        local b = keep(socket.socket(family, socket.SOCK_DGRAM):bind {host, 0})
        local a = keep(socket.socket(family, socket.SOCK_DGRAM):bind {host, 0})
        local to = b:getsockname()
        for _, t in ipairs {false, 5, 0} do
          set_timeout(t or nil, a, b)
          assert.equal(2, a:sendmsg({"a", "b"}, nil, nil, to))
          local data, _, _, from = b:recvmsg(10)
          assert.equal("ab", data)
          assert.is_true(from == a:getsockname())
          assert.equal(1, a:sendmsg("c", {}, 0, {host = host, port = to.port}))
          local n
          n, _, _, from = b:recvmsg_into {socket.buffer(3)}
          assert.equal(1, n)
          assert.is_true(from == a:getsockname())
        end
      end
    end
  end)

  it("looks a name up, within the timeout", function()
    local b = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    local a = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    a:settimeout(5)
    assert.equal(2, a:sendmsg({"a", "b"}, nil, 0, {"localhost", b:getsockname().port}))
    assert.equal("ab", (b:recvmsg(10)))
    local name = socket.gethostname()
    local port = b:getsockname().port
    if socket.try_gethostbyname(name) == "127.0.0.1" then
      assert.equal(2, a:sendmsg({"a", "b"}, {{socket.IPPROTO_IP, socket.IP_TTL, string.pack("i", 7)}}, 0, {name, port}))
      assert.equal("ab", (b:recvmsg(10)))
    end
    local e = fails("EAI_NONAME", a.sendmsg, a, {"a"}, nil, 0, {"a-name.invalid", port})
    assert.equal("sendmsg", e.op)
    assert.equal("a-name.invalid", e.address[1])
    fails("EAGAIN", a.sendmsg, a, {"a"}, nil, socket.MSG_DONTWAIT, {"a-name.invalid", port})
  end)

  it("tells in its error where to", function()
    local u = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    local e = fails("ENOENT", u.sendmsg, u, "x", nil, 0, "/nowhere/at all")
    assert.equal("sendmsg", e.op)
    assert.equal("/nowhere/at all", e.address)
    e = fails("ENOENT", socket.send_fds, u, "x", {0}, 0, "/nowhere/at all")
    assert.equal("send_fds", e.op)
    assert.equal("/nowhere/at all", e.address)
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    assert.equal("EACCES", select(2, s:try_sendmsg("x", nil, 0, {"<broadcast>", 9})).code)
  end)
end)

describe("sendmsg to a Unix socket that is not its peer", function()
  local path, receiver, sender
  before_each(function()
    path = "\0lsocket-spec-msg-" .. socket.monotonic()
    receiver = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(path))
    sender = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)):settimeout(0)
    while sender:try_sendto("x", path) do end -- until the queue is full
  end)

  it("waits for room without keeping the processor busy", function()
    sender:settimeout(0.15)
    local cpu = os.clock()
    fails("ETIMEDOUT", sender.sendmsg, sender, "x", nil, 0, path)
    assert.equal(path, fails("ETIMEDOUT", socket.send_fds, sender, {"x"}, {0}, 0, path).address)
    assert.is_true(os.clock() - cpu < 0.1)
    sender:settimeout(0)
    fails("EAGAIN", sender.sendmsg, sender, "x", nil, 0, path)
  end)

  it("goes on when there is room, in coroutines too", function()
    sender:settimeout(5)
    local S, sent = support.scheduler(pending), nil
    S.spawn(function() sent = sender:sendmsg({"from ", "afar"}, nil, 0, path) end)
    S.spawn(function()
      socket.sleep(0.02)
      receiver:settimeout(0)
      local last
      for data in function() return (receiver:try_recv(100)) end do last = data end
      assert.equal("x", last)
    end)
    S.run()
    assert.equal(9, sent)
    assert.equal("from afar", receiver:recv(100))
  end)
end)

---------------------------------------------------------------- system calls

describe("one message costs one system call", function()
  it("when it is there, when it goes out, with a timeout or without", function()
    support.needs_strace(pending)
    local marked = support.calls [[
      local socket = require "socket"
      local a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      local anc = {{socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack("i", a:fileno())}}
      local into = {socket.buffer(10), socket.buffer(10)}
      for _, t in ipairs {false, 5} do
        a:settimeout(t or nil)
        b:settimeout(t or nil)
        a:sendmsg("x") b:recvmsg(1)
        local name = t and "_t" or ""
        mark("sendmsg" .. name) a:sendmsg({"a", "b"}, anc) mark()
        mark("recvmsg" .. name) b:recvmsg(10, 100) mark()
        a:sendmsg({"a", "b"}, anc)
        mark("recvmsg_into" .. name) b:recvmsg_into(into, 100) mark()
        mark("send_fds" .. name) socket.send_fds(a, {"a", "b"}, {a}) mark()
        mark("recv_fds" .. name) socket.recv_fds(b, 10, 4) mark()
      end
      a:close() b:close()]]
    for name, calls in pairs(marked) do
      local n = 0
      for _, c in ipairs(calls) do
        if c.call ~= "openat" and c.call ~= "close" then n = n + 1 end
      end
      assert.equal(1, n, name)
    end
    assert.matches("MSG_CMSG_CLOEXEC", marked.recvmsg[1].text, 1, true)
  end)

  it("and is repeated after a signal", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      local function code(f, ...)
        local ok, e = pcall(f, ...)
        return ok and "ok" or e.code
      end
      for i = 1, 4 do io.write(code(a.sendmsg, a, "x"), " ") end
      for i = 1, 4 do io.write(code(b.settimeout(b, i % 2 * 5).recvmsg, b, 10), " ") end]],
      "sendmsg:error=EINTR:when=1+2", "recvmsg:error=ENOMEM:when=3")
    assert.equal("ok ok ok ok ok ok ENOMEM ok ", text)
    assert.equal(0, status)
  end)
end)

---------------------------------------------------------------- bad input

describe("wrong arguments:", function()
  local a, b
  before_each(function() a, b = keep(socket.socketpair()) end)

  it("a wrong item of a list is named with the argument it is in", function()
    refuses("#2 to '?' (item 2 is a table, not bytes)", a.sendmsg, a, {"x", {}})
    refuses("#2 to '?' (item 1 is a userdata, not bytes)", a.sendmsg, a, {io.stdout})
    refuses("#2 to '?' (item 1 is a boolean, not bytes)", a.sendmsg, a, {true})
    refuses("#2 to '?' (item 2 is a userdata, not a buffer)", a.recvmsg_into, a, {socket.buffer(1), b})
    refuses("#2 to '?' (item 1 is a string, not a buffer)", a.recvmsg_into, a, {"x"})
    refuses("#3 to '?' (data of an item must be bytes)", a.sendmsg, a, "x", {{1, 1, io.stdout}})
    refuses("#3 to '?' (data of an item must be bytes)", a.sendmsg, a, "x", {{1, 1, 1}})
    refuses("#3 to '?' (data of an item must be bytes)", a.sendmsg, a, "x", {{1, 1}})
  end)

  it("there is a limit to ancillary data, in the library and in the system", function()
    local large = ("x"):rep(1 << 24)
    refuses("too much ancillary data", a.sendmsg, a, "x", {{1, 1, large}})
    refuses("too much ancillary data", a.sendmsg, a, "x", {{1, 1, large:sub(100)}, {1, 1, large:sub(100)}})
    refuses("too much ancillary data", a.sendmsg, a, "x", {{1, 1, large:sub(17)}, {1, 1, large:sub(17)}})
    fails("ENOBUFS", a.sendmsg, a, "x", {{1, 1, large:sub(100)}})
  end)

  it("a list that a finalizer changes while the message is made does no harm", function()
    local text, status = support.run [[
      local socket = require "socket"
      local a <close> = socket.socketpair()
      local short, longer = ("x"):rep(1 << 20), ("y"):rep(1 << 22)
      local function garbage(item) setmetatable({}, {__gc = function() item[3] = longer end}) end
      local seen = 0
      collectgarbage("generational", 1, 100) -- a collection after every hundredth of growth
      for i = 1, 100 do
        local item = {1, 2, short}
        garbage(item)
        local ok, e = pcall(a.sendmsg, a, "x", {item})
        assert(not ok)
        if tostring(e):find("ancillary data changes", 1, true) then seen = seen + 1 end
      end
      print(seen > 0 and "seen")]]
    assert.equal("seen\n", text)
    assert.equal(0, status)
  end)

  it("sizes are integers, of ancillary data up to 2^24", function()
    for _, name in ipairs {"recvmsg", "try_recvmsg"} do
      refuses("size must not be negative", a[name], a, -1)
      refuses("size is too large", a[name], a, math.maxinteger)
      refuses("number expected, got no value", a[name], a)
      refuses("number has no integer representation", a[name], a, 0.5)
      for _, v in ipairs {-1, (1 << 24) + 1, math.maxinteger, math.mininteger} do
        refuses("size of ancillary data must be 0-16777216", a[name], a, 1, v)
        refuses("size of ancillary data must be 0-16777216", a[name .. "_into"], a, {}, v)
      end
      refuses("number expected, got string", a[name], a, 1, "x")
      refuses("flags do not fit a C int", a[name], a, 1, 0, 1 << 32)
      refuses("flags do not fit a C int", a[name .. "_into"], a, {}, 0, 1 << 32)
      refuses("table expected, got socket buffer", a[name .. "_into"], a, socket.buffer(1))
      refuses("table expected, got no value", a[name .. "_into"], a)
    end
    b:sendmsg "few"
    assert.equal("few", (a:recvmsg(1 << 26, 1 << 24)))
  end)

  it("lists have up to 65536 items", function()
    local many = {}
    for i = 1, 65537 do many[i] = "x" end
    refuses("too many buffers", a.sendmsg, a, many)
    refuses("too many buffers", a.recvmsg_into, a, many)
    refuses("too many descriptors", socket.send_fds, a, "x", many)
  end)

  it("ancillary data is a list of {level, type, data}", function()
    for _, v in ipairs {1, "x", true, print} do
      refuses("table expected", a.sendmsg, a, "x", v)
      refuses("item 2 must be a table {level, type, data}", a.sendmsg, a, "x", {{1, 1, ""}, v})
    end
    refuses("level of an item must be an integer", a.sendmsg, a, "x", {{}})
    refuses("level of an item must be an integer", a.sendmsg, a, "x", {{1.5, 1, ""}})
    refuses("level of an item must be an integer", a.sendmsg, a, "x", {{1 << 31, 1, ""}})
    refuses("type of an item must be an integer", a.sendmsg, a, "x", {{1, nil, ""}})
    refuses("type of an item must be an integer", a.sendmsg, a, "x", {{1, math.mininteger, ""}})
    refuses("flags do not fit a C int", a.sendmsg, a, "x", nil, 1 << 32)
    refuses("path is longer than", a.sendmsg, a, "x", nil, 0, ("p"):rep(200))
    refuses("string expected, got nil", a.sendmsg, a)
    refuses("string expected, got boolean", a.sendmsg, a, true)
  end)

  it("self is a socket", function()
    for _, name in ipairs {"recvmsg", "recvmsg_into", "sendmsg"} do
      for _, v in ipairs {1, "s", {}, io.stdout, print, socket.buffer(100)} do
        refuses("socket expected", socket.SocketType[name], v, {}, {})
        refuses("socket expected", socket.SocketType["try_" .. name], v, {}, {})
      end
      assert.is_false(pcall(socket.SocketType[name]))
    end
    refuses("socket expected", socket.recv_fds, socket.buffer(1), 1, 1)
    refuses("socket expected", socket.try_send_fds, {}, "x", {})
  end)

  it("a closed socket is EBADF, from the try_ form too", function()
    a:close()
    local into = {socket.buffer(3)}
    for name, args in pairs {recvmsg = {1}, recvmsg_into = {into}, sendmsg = {"x"}} do
      local e = fails("EBADF", a[name], a, table.unpack(args))
      assert.equal("socket is closed", e.message)
      assert.equal(name, e.op)
      local none, e2 = a["try_" .. name](a, table.unpack(args))
      assert.is_nil(none)
      assert.equal("EBADF", e2.code)
    end
    assert.equal("send_fds", fails("EBADF", socket.send_fds, a, "x", {}).op)
    assert.equal("recv_fds", select(2, socket.try_recv_fds(a, 1, 1)).op)
  end)
end)
