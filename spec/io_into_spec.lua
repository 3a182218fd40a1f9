-- Receiving into buffers: recv_into and recvfrom_into over every kind of socket this machine has.

require "spec.helper"
local socket = require "socket"
local sockets = require "spec.support.sockets"
local streams = require "spec.support.streams"
local support = require "spec.support"

local fails, keep = support.fails, support.keep
local MESSAGES, MODES, STREAMS = sockets.MESSAGES, sockets.MODES, sockets.STREAMS
local random_bytes = streams.random_bytes

after_each(support.close_kept)

-- A pair of that kind, closed after the test; leaves the test where the machine has no IPv6.
local function pair(kinds, name)
  if name:find "IPv6" and not support.has_ipv6() then pending "this machine has no IPv6" end
  return keep(kinds[name]())
end

for _, kinds in ipairs {STREAMS, MESSAGES} do
  for kind in pairs(kinds) do
    describe("into a buffer, over " .. kind, function()
      for _, mode in ipairs(MODES) do
        it("bytes are received where it begins, and the rest stays, " .. mode[1], function()
          local a, b = pair(kinds, kind)
          a:settimeout(mode[2])
          local buf = socket.buffer "..........."
          a:send "12345"
          a:send "abc\0e"
          b:settimeout(5):recv(1, socket.MSG_PEEK) -- TCP may take a moment to deliver
          b:settimeout(mode[2])
          assert.equal(5, b:recv_into(buf, kinds == STREAMS and 5 or nil))
          assert.equal("12345......", tostring(buf))
          if kinds == STREAMS then b:settimeout(5):recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) end
          b:settimeout(mode[2])
          local n, from = b:recvfrom_into(buf:view(4))
          assert.equal(5, n)
          assert.equal("123abc\0e...", tostring(buf))
          if kind:find "UDP" then assert.is_true(from == a:getsockname()) else assert.is_nil(from) end
        end)
      end

      it("no more is received than nbytes, or than the buffer holds", function()
        local a, b = pair(kinds, kind)
        local buf = socket.buffer ".........."
        for i, args in ipairs {{buf, 2}, {buf:view(1, 2)}, {buf:view(1, 2), 0}, {buf, 2.0}, {buf:view(1, 2), nil, 0}} do
          for _, f in ipairs {"recv_into", "recvfrom_into"} do
            a:send "abcd"
            buf:set(1, "..........")
            assert.equal(2, (b[f](b, table.unpack(args, 1, 3))), i)
            assert.equal("ab........", tostring(buf))
            if kinds == STREAMS then assert.equal("cd", b:recv(10)) end
          end
        end
      end)

      it("MSG_PEEK leaves the bytes there", function()
        local a, b = pair(kinds, kind)
        local buf = socket.buffer(10)
        a:send "peek"
        assert.equal(2, b:recv_into(buf, 2, socket.MSG_PEEK))
        assert.equal(4, (b:recvfrom_into(buf, 0, socket.MSG_PEEK)))
        assert.equal(4, b:recv_into(buf, 4, socket.MSG_PEEK | socket.MSG_WAITALL))
        assert.equal("peek", b:recv(10))
        assert.equal("peek", buf:sub(1, 4))
      end)

      it("nothing is waited for where nothing should be, and what the buffer had stays", function()
        local _, b = pair(kinds, kind)
        local buf = socket.buffer "..."
        for _, t in ipairs {false, 0.01, 0} do
          b:settimeout(t or nil)
          assert.equal("recv_into", fails("EAGAIN", b.recv_into, b, buf, 0, socket.MSG_DONTWAIT).op)
          assert.equal("recvfrom_into", fails("EAGAIN", b.recvfrom_into, b, buf, 0, socket.MSG_DONTWAIT).op)
          if t then
            fails(t == 0 and "EAGAIN" or "ETIMEDOUT", b.recv_into, b, buf)
            fails(t == 0 and "EAGAIN" or "ETIMEDOUT", b.recvfrom_into, b, buf)
          end
        end
        assert.equal("...", tostring(buf))
      end)

      it("an empty buffer receives nothing with recv_into", function()
        local a, b = pair(kinds, kind)
        assert.equal(0, b:recv_into(socket.buffer(0)))
        a:send "x"
        assert.equal(0, b:recv_into(socket.buffer "abc":view(3, 2)))
        assert.equal("x", b:recv(1))
      end)

      it("and from a buffer, everything arrives that was sent", function()
        local a, b = pair(kinds, kind)
        local bytes = random_bytes(60000)
        local out, back = socket.buffer("...." .. bytes), socket.buffer(#bytes)
        a:sendall(out:view(5))
        local n = 0
        while n < #bytes do n = n + b:recv_into(back:view(n + 1)) end
        assert.is_true(tostring(back) == bytes)
        assert.equal(4, a:send(out:view(1, 4)))
        assert.equal(4, b:recv_into(back))
        assert.equal("....", back:sub(1, 4))
      end)
    end)
  end
end

for kind in pairs(STREAMS) do
  describe("into a buffer, over " .. kind, function()
    it("the end of the stream is nil", function()
      local a, b = pair(STREAMS, kind)
      local buf = socket.buffer "..."
      a:sendall "x"
      a:shutdown(socket.SHUT_WR)
      assert.equal(1, b:recv_into(buf))
      for _, t in ipairs {false, 5, 0} do
        b:settimeout(t or nil)
        assert.is_nil(b:recv_into(buf))
        assert.is_nil((b:recvfrom_into(buf)))
        assert.is_nil(b:recv_into(buf, 0, socket.MSG_WAITALL))
        assert.equal(0, b:recv_into(socket.buffer(0)))
        assert.same({nil, nil}, {b:try_recv_into(buf)})
      end
      assert.equal("x..", tostring(buf))
    end)

    it("MSG_WAITALL waits until it is full", function()
      for _, t in ipairs {false, 5} do
        local a, b = pair(STREAMS, kind)
        local p <close> = support.peer(a, "for i = 0, 9 do s:send(tostring(i)) socket.sleep(0.001) end")
        b:settimeout(t or nil)
        local buf = socket.buffer(8)
        assert.equal(8, b:recv_into(buf, 0, socket.MSG_WAITALL))
        assert.equal("01234567", tostring(buf))
        assert.equal(2, b:recv_into(buf, 7, socket.MSG_WAITALL)) -- the end comes first
        assert.equal("89234567", tostring(buf))
        p:read "a"
      end
    end)

    it("MSG_WAITALL counts what has come when the time is up", function()
      local a, b = pair(STREAMS, kind)
      local buf = socket.buffer "........"
      for _, t in ipairs {0.01, 0} do
        b:settimeout(t)
        a:sendall "half"
        assert.equal(4, b:recv_into(buf, 0, socket.MSG_WAITALL))
        assert.equal("half....", tostring(buf))
        fails(t == 0 and "EAGAIN" or "ETIMEDOUT", b.recv_into, b, buf, 0, socket.MSG_WAITALL)
      end
    end)

    it("megabytes arrive unchanged, from a buffer to buffers", function()
      local a, b = pair(STREAMS, kind)
      local bytes = random_bytes(1000003)
      local out, back = socket.buffer(bytes), socket.buffer(#bytes)
      local S = support.scheduler(pending)
      local sent
      S.spawn(function() sent = a:sendall(out) end)
      S.spawn(function()
        local n = 0
        while n < #bytes do n = n + b:recv_into(back:view(n + 1, n + 65536)) end
      end)
      S.run()
      assert.equal(a, sent)
      assert.is_true(out == back)
    end)
  end)
end

for kind in pairs(MESSAGES) do
  describe("into a buffer, over " .. kind, function()
    it("a message that does not fit is cut, and MSG_TRUNC gives its whole length", function()
      local a, b = pair(MESSAGES, kind)
      local whole = socket.buffer ".........."
      local buf = whole:view(1, 4)
      for _ = 1, 4 do a:send "0123456789" end
      a:send "next"
      assert.equal(4, b:recv_into(buf))
      assert.equal(4, (b:recvfrom_into(buf)))
      assert.equal(10, b:recv_into(buf, 0, socket.MSG_TRUNC))
      assert.equal(10, (b:recvfrom_into(buf, 2, socket.MSG_TRUNC)))
      assert.equal("0123......", tostring(whole))
      assert.equal("next", b:recv(10))
    end)

    if kind ~= "Unix seqpackets" then
      it("an empty message is 0", function()
        local a, b = pair(MESSAGES, kind)
        local buf = socket.buffer(3)
        a:send ""
        a:send ""
        a:send "x"
        assert.equal(0, b:recv_into(buf))
        assert.equal(0, (b:recvfrom_into(buf)))
        assert.equal(1, b:recv_into(buf))
        a:send "taken"
        a:send "next"
        assert.equal(0, (b:recvfrom_into(socket.buffer(0))))
        assert.equal("next", b:recv(10))
      end)
    end
  end)
end

describe("into a buffer", function()
  it("MSG_TRUNC on TCP throws bytes away and writes none", function()
    local a, b = keep(support.tcp())
    local buf = socket.buffer "......"
    a:sendall "0123456789"
    assert.equal(6, b:recv_into(buf, 0, socket.MSG_TRUNC | socket.MSG_WAITALL))
    assert.equal("......", tostring(buf))
    assert.equal("6789", b:recv(10))
  end)

  it("a reset in the middle leaves the count in e.partial", function()
    for _, t in ipairs {false, 5} do
      local a, b = keep(support.tcp())
      a:settimeout(t or nil)
      local p <close> = support.peer(b, [[
        s:sendall "some"
        socket.sleep(0.02)
        s:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 0))
        s:close()]])
      local buf = socket.buffer(8)
      local e = fails("ECONNRESET", a.recv_into, a, buf, 0, socket.MSG_WAITALL)
      assert.equal(4, e.partial)
      assert.equal("some", buf:sub(1, 4))
      p:read "a"
    end
  end)

  it("that nobody else knows any more, bytes are received all the same", function()
    local a, b = keep(socket.socketpair())
    local S = support.scheduler(pending)
    local n, m
    S.spawn(function()
      n = b:recv_into(socket.buffer(100000):view(2))
      m = b:recvfrom_into(socket.buffer(10):view(2):view(2))
    end)
    S.spawn(function()
      for _ = 1, 2 do
        for i = 1, 100 do assert.equal(1000 + i, #("x"):rep(1000 + i)) end
        collectgarbage()
        a:sendall "123456789"
        socket.sleep(0.002)
      end
    end)
    S.run()
    assert.equal(9, n)
    assert.equal(8, m)
  end)

  it("the address of the sender is told", function()
    local server = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    local client = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    local buf = socket.buffer "to you"
    assert.equal(6, client:sendto(buf, server:getsockname()))
    assert.equal(2, client:sendto(buf:view(1, 2), 0, server:getsockname()))
    local into = socket.buffer(10)
    local n, from = server:recvfrom_into(into)
    assert.equal("to you", into:sub(1, n))
    assert.is_true(from == client:getsockname())
    assert.same({2, from}, {server:recvfrom_into(into)})
  end)

  it("one system call receives, and nothing is allocated", function()
    support.needs_strace(pending)
    local marked = support.calls [[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local buf = socket.buffer(100)
      for _, t in ipairs {false, 5} do
        b:settimeout(t or nil)
        a:send "xyz" b:recv(1)
        mark("recv_into" .. (t and "_t" or "")) b:recv_into(buf, 1) mark()
        mark("recvfrom_into" .. (t and "_t" or "")) b:recvfrom_into(buf, 1) mark()
      end
      a:sendall(("x"):rep(1000))
      collectgarbage() collectgarbage "stop"
      b:recv_into(buf, 1)
      local before = collectgarbage "count"
      for _ = 1, 100 do b:recv_into(buf, 1) end
      assert(collectgarbage "count" == before)
      a:close() b:close()]]
    for name, calls in pairs(marked) do
      local n = 0
      for _, c in ipairs(calls) do
        if c.call:find "^recv" then n = n + 1 end
      end
      assert.equal(1, n, name)
    end
  end)
end)
