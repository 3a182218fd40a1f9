-- Receiving and sending: recv, recvfrom, send, sendall, sendto over every kind of socket this machine has; what is
-- received into buffers is in io_into_spec.lua.

require "spec.helper"
local check = require "spec.support.check"
local socket = require "socket"
local sockets = require "spec.support.sockets"
local streams = require "spec.support.streams"
local support = require "spec.support"

local refuses, fails, keep = check.refuses, support.fails, support.keep
local MESSAGES, MODES, STREAMS = sockets.MESSAGES, sockets.MODES, sockets.STREAMS
local collect, random_bytes = streams.collect, streams.random_bytes

after_each(support.close_kept)

-- A pair of that kind, closed after the test; leaves the test where the machine has no IPv6.
local function pair(kinds, name)
  if name:find "IPv6" and not support.has_ipv6() then pending "this machine has no IPv6" end
  return keep(kinds[name]())
end

-- A peer of a is gone, and its unread bytes with it: a reset.
local function reset(b)
  b:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 0))
  b:close()
end

-- Small buffers in the kernel.
local function narrow(a, b)
  a:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
  b:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
end

for kind in pairs(STREAMS) do
  describe("over " .. kind, function()
    for _, mode in ipairs(MODES) do
      it("bytes arrive in order, " .. mode[1], function()
        local a, b = pair(STREAMS, kind)
        a:settimeout(mode[2])
        b:settimeout(mode[2])
        assert.equal(5, a:send "Hello")
        assert.equal(a, a:sendall ", ")
        assert.equal(a, a:sendall "world\0!")
        if mode[2] ~= 0 then
          assert.equal("Hello, world\0!", collect(b, 14))
        else
          b:settimeout(5) -- TCP may take a moment to deliver
          assert.equal("Hello, world\0!", collect(b, 14))
        end
      end)
    end

    it("the end of the stream is nil, from every receiving call and again and again", function()
      local a, b = pair(STREAMS, kind)
      a:sendall "last"
      a:shutdown(socket.SHUT_WR)
      for _, t in ipairs {false, 5, 0.02, 0} do
        b:settimeout(t or nil)
        if not t then assert.equal("last", collect(b)) end
        assert.is_nil(b:recv(10))
        assert.same({nil}, {b:recv(10, socket.MSG_PEEK)})
        assert.is_nil(b:recv(10, socket.MSG_WAITALL))
        assert.is_nil((b:recvfrom(10)))
        local none, e = b:try_recv(10)
        assert.is_nil(none)
        assert.is_nil(e) -- no error
      end
      b:sendall "and back"
      assert.equal("and back", collect(a, 8))
    end)

    it("no more than asked for is received, and the rest is kept", function()
      local a, b = pair(STREAMS, kind)
      a:sendall "abcdef"
      assert.equal("a", b:recv(1))
      assert.equal("bcd", b:recv(3))
      assert.equal("ef", b:recv(4096))
    end)

    it("recv(0) is the empty string, whatever there is", function()
      local a, b = pair(STREAMS, kind)
      assert.equal("", b:recv(0))
      a:sendall "x"
      assert.equal("", b:recv(0))
      assert.equal("x", b:recv(1))
      a:close()
      assert.equal("", b:recv(0))
      assert.is_nil(b:recv(1))
      assert.equal("", (b:recvfrom(0)))
    end)

    for _, size in ipairs {1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20} do
      it(("%d bytes arrive unchanged"):format(size), function()
        local a, b = pair(STREAMS, kind)
        local bytes = random_bytes(size)
        local sent, pieces, received = 0, {}, 0
        local start = socket.monotonic()
        while received < size and socket.monotonic() < start + 10 do
          if sent < size then sent = sent + (a:try_send(bytes:sub(sent + 1), socket.MSG_DONTWAIT) or 0) end
          local data = b:try_recv(size - received, socket.MSG_DONTWAIT)
          if data then
            pieces[#pieces + 1] = data
            received = received + #data
          end
        end
        assert.is_true(bytes == table.concat(pieces))
      end)
    end

    it("an empty string is nothing", function()
      local a, b = pair(STREAMS, kind)
      assert.equal(0, a:send "")
      assert.equal(a, a:sendall "")
      a:sendall "x"
      assert.equal("x", b:recv(10))
    end)

    it("MSG_PEEK leaves the bytes there", function()
      local a, b = pair(STREAMS, kind)
      a:sendall "peek"
      for _, t in ipairs {false, 5, 0.02, 0} do
        b:settimeout(t or nil)
        assert.equal("pe", b:recv(2, socket.MSG_PEEK))
        assert.equal("peek", (b:recvfrom(100, socket.MSG_PEEK)))
        assert.equal("pee", b:recv(3, socket.MSG_PEEK | socket.MSG_WAITALL))
      end
      assert.equal("peek", b:recv(100))
    end)

    it("MSG_WAITALL waits until all has come", function()
      for _, t in ipairs {false, 5} do
        local a, b = pair(STREAMS, kind)
        local p <close> = support.peer(a, "for i = 0, 9 do s:send(tostring(i)) socket.sleep(0.001) end")
        b:settimeout(t or nil)
        assert.equal("01234567", b:recv(8, socket.MSG_WAITALL))
        assert.equal("89", b:recv(8, socket.MSG_WAITALL)) -- the end comes first
        assert.is_nil(b:recv(8, socket.MSG_WAITALL))
        p:read "a"
      end
    end)

    it("MSG_WAITALL gives what has come when the time is up", function()
      local a, b = pair(STREAMS, kind)
      for _, t in ipairs {0.01, 0.045, 0} do
        b:settimeout(t)
        a:sendall "half"
        local start = socket.monotonic()
        assert.equal("half", b:recv(8, socket.MSG_WAITALL))
        assert.is_true(socket.monotonic() - start >= t)
        fails(t == 0 and "EAGAIN" or "ETIMEDOUT", b.recv, b, 8, socket.MSG_WAITALL)
      end
    end)

    it("MSG_DONTWAIT does not wait, whatever the timeout is", function()
      local a, b = pair(STREAMS, kind)
      local bytes = ("x"):rep(20000000)
      for _, t in ipairs {false, 5, 0} do
        a:settimeout(t or nil)
        b:settimeout(t or nil)
        local start = socket.monotonic()
        assert.equal("recv", fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT).op)
        fails("EAGAIN", b.recvfrom, b, 1, socket.MSG_DONTWAIT)
        fails("EAGAIN", b.recv, b, 10, socket.MSG_DONTWAIT | socket.MSG_WAITALL)
        local e = fails("EAGAIN", a.sendall, a, bytes, socket.MSG_DONTWAIT)
        assert.is_true(e.sent > 0 and e.sent < #bytes)
        assert.is_nil(e:is(socket.timeout) or nil)
        assert.is_true(socket.monotonic() - start < 1)
        b:settimeout(5)
        assert.equal(e.sent, #collect(b, e.sent))
      end
    end)

    it("sendall says in e.sent how far it came before the timeout", function()
      local a, b = pair(STREAMS, kind)
      local bytes = random_bytes(20000000)
      for _, t in ipairs {0.045, 0} do
        a:settimeout(t)
        local e = fails(t == 0 and "EAGAIN" or "ETIMEDOUT", a.sendall, a, bytes)
        assert.equal("sendall", e.op)
        assert.is_true(e.sent > 0 and e.sent < #bytes)
        b:settimeout(5)
        assert.is_true(bytes:sub(1, e.sent) == collect(b, e.sent))
        fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT) -- and not a byte more
      end
    end)

    it("a peer that is gone is EPIPE or ECONNRESET, and never a signal", function()
      local text, status = support.run(([[
        local socket = require "socket"
        local function code(f, ...) return select(2, pcall(f, ...)).code end
        local a, b
        local kind = %q
        if kind:find "Unix" then
          a, b = socket.socketpair()
        else
          local host, family = "127.0.0.1", socket.AF_INET
          if kind:find "6" then host, family = "::1", socket.AF_INET6 end
          local server = socket.create_server({host, 0}, {family = family})
          a = socket.socket(family):connect(server:getsockname())
          b = server:accept()
        end
        b:close()
        a:try_send "x"
        local gone = {EPIPE = true, ECONNRESET = true}
        for _, f in ipairs {a.send, a.sendall} do
          for _, t in ipairs {false, 5, 0} do
            a:settimeout(t or nil)
            local c = code(f, a, "x")
            assert(gone[c], c)
          end
        end
        print "alive"]]):format(kind), {before = support.default_signals()})
      if kind:find "IPv6" and not support.has_ipv6() then pending "this machine has no IPv6" end
      assert.equal("alive\n", text)
      assert.equal(0, status)
    end)

    it("megabytes go both ways at once", function()
      local a, b = pair(STREAMS, kind)
      local there, back = random_bytes(3000001), random_bytes(2000003)
      local S = support.scheduler(pending)
      local results = {}
      for _, t in ipairs {{a, there, back}, {b, back, there}} do
        S.spawn(function() t[1]:sendall(t[2]):shutdown(socket.SHUT_WR) end)
        S.spawn(function() results[t[1] == a and "a" or "b"] = collect(t[1]) == t[3] end)
      end
      S.run()
      assert.same({a = true, b = true}, results)
    end)

    it("megabytes go to another process and back", function()
      local a, b = pair(STREAMS, kind)
      local bytes = random_bytes(3000001)
      local p <close> = support.peer(b, [[
        local pieces = {}
        for data in function() return s:recv(100000) end do pieces[#pieces + 1] = data end
        s:sendall(table.concat(pieces))]])
      a:settimeout(20)
      a:sendall(bytes):shutdown(socket.SHUT_WR)
      assert.is_true(collect(a) == bytes)
      assert.equal("", p:read "a")
    end)
  end)
end

for kind in pairs(MESSAGES) do
  describe("over " .. kind, function()
    for _, mode in ipairs(MODES) do
      it("messages keep their bounds, " .. mode[1], function()
        local a, b = pair(MESSAGES, kind)
        a:settimeout(mode[2])
        b:settimeout(mode[2])
        assert.equal(3, a:send "one")
        assert.equal(a, a:sendall "two!!")
        assert.equal("one", b:recv(100))
        assert.equal("two!!", b:recv(100))
      end)
    end

    it("a message that does not fit is cut, also where MSG_TRUNC counts the rest", function()
      local a, b = pair(MESSAGES, kind)
      for _ = 1, 3 do a:send "0123456789" end
      a:send "next"
      assert.equal("0123", b:recv(4))
      assert.equal("0123", b:recv(4, socket.MSG_TRUNC))
      assert.equal("0123", (b:recvfrom(4, socket.MSG_TRUNC)))
      assert.equal("next", b:recv(100))
    end)

    it("MSG_PEEK leaves the message there", function()
      local a, b = pair(MESSAGES, kind)
      a:send "message"
      assert.equal("me", b:recv(2, socket.MSG_PEEK))
      assert.equal("message", b:recv(100, socket.MSG_PEEK))
      assert.equal("message", b:recv(100))
    end)

    it("recv(0) takes no message, recvfrom(0) does", function()
      local a, b = pair(MESSAGES, kind)
      a:send "one"
      a:send "two"
      assert.equal("", b:recv(0))
      assert.equal("", (b:recvfrom(0)))
      assert.equal("two", b:recv(10))
      a:send "three"
      a:send "four"
      assert.equal("", (b:recvfrom(0, socket.MSG_TRUNC)))
      assert.equal("four", b:recv(10))
    end)

    it("MSG_DONTWAIT does not wait", function()
      local _, b = pair(MESSAGES, kind)
      for _, t in ipairs {false, 5, 0} do
        b:settimeout(t or nil)
        fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT)
        fails("EAGAIN", b.recvfrom, b, 1, socket.MSG_DONTWAIT)
      end
    end)

    it("a message that is too long is EMSGSIZE, and nothing is sent", function()
      local a, b = pair(MESSAGES, kind)
      local e = fails("EMSGSIZE", a.sendall, a, ("x"):rep(1000000))
      assert.equal(0, e.sent)
      fails("EMSGSIZE", a.send, a, ("x"):rep(1000000))
      fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT)
    end)

    if kind ~= "Unix seqpackets" then -- there an empty record and the end look alike (unix(7))
      it("an empty message is the empty string", function()
        local a, b = pair(MESSAGES, kind)
        assert.equal(0, a:send "")
        assert.equal(a, a:sendall "")
        a:send "x"
        for _, t in ipairs {false, 5} do
          b:settimeout(t or nil)
          assert.equal("", b:recv(10))
        end
        assert.equal("x", b:recv(10))
      end)
    end
  end)
end

describe("Unix seqpackets", function()
  it("end with nil", function()
    local a, b = pair(MESSAGES, "Unix seqpackets")
    a:send "last"
    a:close()
    assert.equal("last", b:recv(10))
    assert.is_nil(b:recv(10))
    assert.is_nil((b:recvfrom(10)))
    assert.equal("", b:recv(0))
  end)
end)

describe("recvfrom", function()
  for _, name in ipairs {"UDP over IPv4", "UDP over IPv6"} do
    it("tells who sent over " .. name, function()
      local a, b = pair(MESSAGES, name)
      for _, t in ipairs {false, 5, 0.02, 0} do
        b:settimeout(t or nil)
        a:send "x"
        local data, from = b:recvfrom(10)
        assert.equal("x", data)
        assert.is_true(from == a:getsockname())
        assert.equal(name:find "6" and "::1" or "127.0.0.1", from.host)
        a:send ""
        data, from = b:recvfrom(10)
        assert.equal("", data)
        assert.equal(a:getsockname()[2], from.port)
      end
    end)
  end

  it("gives the path of a Unix socket, nil for one without a name", function()
    local path = "\0lsocket-spec-io-" .. socket.monotonic()
    local server = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(path .. "s"))
    local named = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):bind(path .. "c"))
    local unnamed = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    assert.equal(5, named:sendto("named", path .. "s"))
    assert.equal(7, unnamed:sendto("unnamed", path .. "s"))
    assert.same({"named", path .. "c"}, {server:recvfrom(100)})
    assert.same({"unnamed", nil}, {server:recvfrom(100)})
    assert.equal(2, select("#", (function()
      named:sendto("x", path .. "s")
      return server:recvfrom(100)
    end)()))
  end)

  it("has no address over a connected stream, where nobody asks", function()
    local a, b = keep(support.tcp())
    a:send "x"
    assert.same({"x", nil}, {b:recvfrom(10)})
  end)
end)

describe("sendto", function()
  it("takes an address, and flags between", function()
    local a = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    local to = a:getsockname()
    for _, t in ipairs {false, 5, 0.02, 0} do
      s:settimeout(t or nil)
      assert.equal(3, s:sendto("one", to))
      assert.equal(3, s:sendto("two", socket.MSG_DONTWAIT, {host = "localhost", port = to.port}))
      assert.equal(0, s:sendto("", nil, {0x7F000001, to.port}))
      assert.equal("one", a:recv(10))
      assert.equal("two", a:recv(10))
      assert.equal("", a:recv(10))
    end
  end)

  it("looks names up within the timeout", function()
    local a = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    local name = "localhost.localdomain"
    if not socket.try_gethostbyname(name) then name = socket.gethostname() end
    if socket.try_gethostbyname(name) then
      s:settimeout(5):sendto("x", {"localhost", a:getsockname().port})
      assert.equal("x", a:recv(10))
    end
    s:settimeout(0)
    local e = fails("EAGAIN", s.sendto, s, "x", {"a-name.invalid", 1})
    assert.equal("a name lookup would block", e.message)
    assert.equal("a-name.invalid", e.address[1])
    s:settimeout(nil)
    fails("EAGAIN", s.sendto, s, "x", socket.MSG_DONTWAIT, {"a-name.invalid", 1})
  end)

  it("tells in its error where to", function()
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    local e = fails("EACCES", s.sendto, s, "x", {"<broadcast>", 9})
    assert.equal("sendto", e.op)
    assert.same({"<broadcast>", 9}, e.address)
    local u = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    e = fails("ENOENT", u.sendto, u, "x", "/nowhere/at all")
    assert.equal("/nowhere/at all", e.address)
    assert.matches("sendto unix:/nowhere/at all: No such file or directory (ENOENT)", tostring(e), 1, true)
  end)

  it("reports what an earlier datagram met", function()
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    local free
    do
      local t <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
      free = t:getsockname()
    end
    s:connect(free):send "x"
    s:settimeout(1)
    fails("ECONNREFUSED", s.recv, s, 1)
    fails("EAGAIN", s.recv, s, 1, socket.MSG_DONTWAIT) -- it is told once
  end)
end)

describe("a reset", function()
  it("is ECONNRESET in recv, once, in every mode", function()
    for _, t in ipairs {false, 5, 0.02, 0} do
      local a, b = keep(support.tcp())
      a:settimeout(t or nil)
      reset(b)
      local e = fails("ECONNRESET", a.recv, a, 1)
      assert.equal("recv", e.op)
      assert.equal("Connection reset by peer", e.message)
      assert.is_nil(a:recv(1))
    end
  end)

  it("does not swallow what MSG_WAITALL had received: it is in e.partial", function()
    for _, t in ipairs {false, 5} do
      local a, b = keep(support.tcp())
      a:settimeout(t or nil)
      local p <close> = support.peer(b, [[
        s:sendall "some"
        socket.sleep(0.02)
        s:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 0))
        s:close()]])
      local e = fails("ECONNRESET", a.recv, a, 8, socket.MSG_WAITALL)
      assert.equal("some", e.partial)
      assert.is_nil(e.sent)
      p:read "a"
    end
    local a, b = keep(support.tcp())
    reset(b)
    assert.is_nil(fails("ECONNRESET", a.recv, a, 8, socket.MSG_WAITALL).partial)
  end)

  it("in the middle of sendall leaves in e.sent what was sent", function()
    local bytes = ("x"):rep(10000000)
    for _, t in ipairs {false, 10} do
      local a, b = keep(support.tcp())
      narrow(a, b)
      a:settimeout(t or nil)
      local p <close> = support.peer(b, [[
        s:recv(1)
        socket.sleep(0.02)
        s:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 0))
        s:close()]])
      local e = select(2, a:try_sendall(bytes))
      assert.is_true(e.code == "ECONNRESET" or e.code == "EPIPE", tostring(e))
      assert.is_true(e.sent > 0 and e.sent < #bytes)
      assert.equal("sendall", e.op)
      p:read "a"
    end
  end)
end)

describe("flags:", function()
  it("MSG_TRUNC on TCP throws bytes away and reads as zeros, never as old memory", function()
    local a, b = keep(support.tcp())
    a:sendall "secret" -- leaves its trace in the buffer that all receiving shares
    assert.equal("secret", b:recv(6))
    for _, t in ipairs {false, 5, 0} do
      b:settimeout(t or nil)
      a:sendall "0123456789"
      assert.equal(("\0"):rep(10), b:recv(10, socket.MSG_TRUNC))
      a:sendall "0123456789"
      assert.equal(("\0"):rep(10), b:recv(10, socket.MSG_TRUNC | socket.MSG_WAITALL))
    end
  end)

  it("MSG_OOB is received out of band, and never waited for", function()
    local a, b = keep(support.tcp())
    for _, t in ipairs {false, 5, 0} do
      b:settimeout(t or nil)
      a:send "normal"
      fails("EINVAL", b.recv, b, 1, socket.MSG_OOB)
      assert.equal("normal", b:recv(10))
      a:send("!", socket.MSG_OOB)
      assert.equal("!", b:recv(1, socket.MSG_OOB))
    end
  end)

  it("MSG_ERRQUEUE gives queued errors, and never waits", function()
    if not socket.MSG_ERRQUEUE then pending "this platform has no MSG_ERRQUEUE" end
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    s:setsockopt(socket.IPPROTO_IP, socket.IP_RECVERR, 1)
    local other = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for _, t in ipairs {false, 5, 0} do
      s:settimeout(t or nil)
      other:sendto("normal data", s:getsockname()) -- is readable, but no error
      fails("EAGAIN", s.recv, s, 100, socket.MSG_ERRQUEUE)
      assert.equal("normal data", s:recv(100))
    end
    s:settimeout(nil)
    local free
    do
      local u <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
      free = u:getsockname()
    end
    s:sendto("to nobody", free)
    local data, to = s:recvfrom(100, socket.MSG_ERRQUEUE)
    assert.equal("to nobody", data)
    assert.is_true(free == to)
  end)

  it("MSG_MORE, MSG_DONTROUTE and the like go to the system as they are", function()
    local a, b = keep(support.tcp())
    assert.equal(1, a:send("a", socket.MSG_MORE))
    assert.equal(1, a:send("b", socket.MSG_DONTROUTE))
    assert.equal("ab", collect(b, 2))
    assert.equal(1, a:send("c", -(1 << 31))) -- the highest bit, as C has it
    assert.equal("c", b:recv(1))
  end)
end)

describe("wrong arguments:", function()
  local a, b
  before_each(function() a, b = keep(socket.socketpair()) end)

  it("sizes are integers from 0 to 2^31 - 2", function()
    for _, name in ipairs {"recv", "recvfrom", "try_recv", "try_recvfrom"} do
      local f = a[name]
      refuses("size must not be negative", f, a, -1)
      refuses("size must not be negative", f, a, math.mininteger)
      refuses("size is too large", f, a, 2147483647)
      refuses("size is too large", f, a, math.maxinteger)
      refuses("number has no integer representation", f, a, 1.5)
      refuses("number has no integer representation", f, a, math.huge)
      refuses("number expected, got no value", f, a)
      refuses("number expected, got nil", f, a, nil)
      refuses("number expected, got table", f, a, {})
      refuses("number expected, got string", f, a, "many")
    end
    b:send "1234"
    assert.equal("12", a:recv "2") -- Lua's own rule for strings that look like numbers
    assert.equal("34", a:recv(2.0))
  end)

  it("a buffer is a buffer, and nbytes are what it holds", function()
    for _, name in ipairs {"recv_into", "recvfrom_into", "try_recv_into", "try_recvfrom_into"} do
      local f, buf = a[name], socket.buffer(3)
      for _, v in ipairs {1, "abc", {}, true, io.stdout, a} do refuses("socket buffer expected, got", f, a, v) end
      refuses("socket buffer expected, got no value", f, a)
      refuses("nbytes must not be negative", f, a, buf, -1)
      refuses("nbytes must not be negative", f, a, buf, math.mininteger)
      refuses("nbytes is more than the buffer has", f, a, buf, 4)
      refuses("nbytes is more than the buffer has", f, a, buf, math.maxinteger)
      refuses("nbytes is more than the buffer has", f, a, socket.buffer(0), 1)
      refuses("number has no integer representation", f, a, buf, 0.5)
      refuses("number expected, got string", f, a, buf, "x")
      refuses("flags do not fit a C int", f, a, buf, 0, 1 << 32)
      refuses("socket expected", f, {}, buf)
      a:close()
      local e = fails("EBADF", socket.SocketType[name:gsub("^try_", "")], a, buf)
      assert.equal("socket is closed", e.message)
      a = keep(socket.socketpair())
    end
  end)

  it("a huge size needs memory, not bytes to come", function()
    b:send "few"
    assert.equal("few", a:recv(1 << 26))
    b:send "few"
    assert.equal("few", (a:recvfrom(1 << 26)))
  end)

  it("flags are integers that fit", function()
    for _, call in ipairs {
      function(v) a:recv(1, v) end, function(v) a:recvfrom(1, v) end, function(v) a:send("x", v) end,
      function(v) a:sendall("x", v) end, function(v) a:sendto("x", v, "path") end,
    } do
      refuses("flags do not fit a C int", call, 1 << 32)
      refuses("flags do not fit a C int", call, math.mininteger)
      refuses("number expected, got string", call, "x")
      refuses("number has no integer representation", call, 0.5)
    end
  end)

  it("bytes are strings, or numbers as Lua writes them", function()
    for _, name in ipairs {"send", "sendall", "try_send", "try_sendall"} do
      for _, v in ipairs {true, {}, print} do refuses("string expected", a[name], a, v) end
      refuses("string expected, got no value", a[name], a)
    end
    refuses("string expected", a.sendto, a, {}, "path")
    a:send(12.5)
    assert.equal("12.5", b:recv(10))
    a:sendall(42)
    assert.equal("42", b:recv(10))
  end)

  it("addresses of sendto are those of the socket's family", function()
    local u = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    refuses("table expected, got no value", u.sendto, u, "x")
    refuses("table expected, got nil", u.sendto, u, "x", nil)
    refuses("table expected, got nil", u.sendto, u, "x", 0, nil)
    refuses("table expected, got string", u.sendto, u, "x", "127.0.0.1")
    refuses("port must be 0-65535, got 65536", u.sendto, u, "x", {"127.0.0.1", 65536})
    refuses("host contains a zero byte", u.sendto, u, "x", {"127.0.0.1\0.example", 1})
    refuses("path is longer than", a.sendto, a, "x", ("p"):rep(200))
    refuses("path contains a zero byte", a.sendto, a, "x", "pa\0th")
  end)

  it("self is a socket", function()
    for _, name in ipairs {"recv", "recvfrom", "send", "sendall", "sendto"} do
      for _, v in ipairs {1, "s", {}, io.stdout, print} do
        refuses("socket expected", socket.SocketType[name], v, 1, 1)
        refuses("socket expected", socket.SocketType["try_" .. name], v, 1, 1)
      end
      assert.is_false(pcall(socket.SocketType[name]))
    end
  end)

  it("a closed socket is EBADF, from the try_ form too", function()
    a:close()
    for name, args in pairs {recv = {1}, recvfrom = {1}, send = {"x"}, sendall = {"x"}, sendto = {"x", "path"}} do
      local e = fails("EBADF", a[name], a, table.unpack(args))
      assert.equal("socket is closed", e.message)
      assert.equal(name, e.op)
      local none, e2 = a["try_" .. name](a, table.unpack(args))
      assert.is_nil(none)
      assert.equal("EBADF", e2.code)
    end
    fails("EBADF", a.recv, a, 0)
    fails("EBADF", a.recv, a, 10, socket.MSG_TRUNC)
    fails("EBADF", a.recv, a, 10, socket.MSG_WAITALL)
    assert.equal(0, fails("EBADF", a.sendall, a, "x").sent)
  end)

  it("a socket that only its file keeps open is closed, also for those who want nothing", function()
    local f <close> = a:makefile "r"
    a:close()
    fails("EBADF", a.recv, a, 0)
    fails("EBADF", a.recv_into, a, socket.buffer(0))
    fails("EBADF", a.recv, a, 1)
    assert.is_truthy(f)
  end)

  it("a descriptor closed behind the socket's back is EBADF", function()
    local fd = a:fileno()
    socket.close(fd)
    for _, t in ipairs {false, 5, 0} do
      a:try_settimeout(t or nil) -- EBADF too, where it has to change the mode
      assert.equal("Bad file descriptor", fails("EBADF", a.recv, a, 1).message)
      fails("EBADF", a.sendall, a, "x")
    end
    fails("EBADF", a.close, a)
    assert.is_true(a:close())
  end)

  it("an unconnected socket says so", function()
    local s = keep(socket.socket())
    fails("ENOTCONN", s.recv, s, 1)
    fails("EPIPE", s.send, s, "x")
    local u = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    fails("EDESTADDRREQ", u.send, u, "x")
  end)
end)

describe("with memory short", function()
  it("the shared buffer grows and serves on", function()
    local a, b = keep(support.tcp())
    for _, size in ipairs {1, 5000, 1, 20000, 65536, 3, 100000, 7} do
      b:sendall(("x"):rep(size))
      assert.equal(size, #a:recv(size, socket.MSG_WAITALL))
      b:sendall "y"
      assert.equal("y", a:recv(size))
      collectgarbage()
    end
  end)
end)

describe("MSG_ZEROCOPY", function()
  it("is an argument error wherever flags are given: the system would read bytes that Lua may have freed", function()
    if not socket.MSG_ZEROCOPY then pending "this platform has no MSG_ZEROCOPY" end
    local a, b = keep(support.tcp())
    local flag = socket.MSG_ZEROCOPY | socket.MSG_DONTWAIT
    a:setsockopt(socket.SOL_SOCKET, socket.SO_ZEROCOPY, 1)
    for name, call in pairs {
      send = function() a:send("x", flag) end,
      sendall = function() a:sendall("x", flag) end,
      sendto = function() a:sendto("x", flag, b:getsockname()) end,
      sendmsg = function() a:sendmsg({"x"}, nil, flag) end,
      send_fds = function() socket.send_fds(a, "x", {}, flag) end,
      try_send = function() a:try_send("x", flag) end,
    } do
      local ok, e = pcall(call)
      assert.is_false(ok, name)
      assert.matches("MSG_ZEROCOPY is not possible", e, 1, true)
    end
    b:settimeout(0)
    assert.equal("EAGAIN", select(2, b:try_recv(1)).code)
  end)
end)
