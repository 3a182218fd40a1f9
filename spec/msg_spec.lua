-- Messages with ancillary data: recvmsg, recvmsg_into, sendmsg, sendmsg_afalg, recv_fds, send_fds.

local h = require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local fails, keep = support.fails, support.keep

after_each(support.close_kept)

local function refuses(message, f, ...)
  local before = support.descriptors()
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(e), tostring(e))
  assert.matches(message, e, 1, true)
  assert.equal(before, support.descriptors())
end

---------------------------------------------------------------- kinds of sockets

local function unix(type)
  return function() return socket.socketpair(socket.AF_UNIX, type) end
end

local STREAMS = {
  ["TCP over IPv4"] = function() return support.tcp(socket.AF_INET) end,
  ["TCP over IPv6"] = function() return support.tcp(socket.AF_INET6) end,
  ["a Unix stream"] = unix(socket.SOCK_STREAM),
}
local MESSAGES = {
  ["UDP over IPv4"] = function() return support.udp(socket.AF_INET) end,
  ["UDP over IPv6"] = function() return support.udp(socket.AF_INET6) end,
  ["Unix datagrams"] = unix(socket.SOCK_DGRAM), ["Unix seqpackets"] = unix(socket.SOCK_SEQPACKET),
}
local MODES = {{"blocking", nil}, {"with a timeout", 5}, {"with a short timeout", 0.03}, {"non-blocking", 0}}

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

---------------------------------------------------------------- descriptors

-- A file of that content, open for reading; it has no name any more.
local function file_of(content)
  local name = os.tmpname()
  local f = assert(io.open(name, "w"))
  f:write(content)
  f:close()
  f = assert(io.open(name))
  os.remove(name)
  return f
end

-- What a descriptor of a file holds, from its beginning.
local function content_of(fd)
  local f <close> = assert(io.open("/proc/self/fd/" .. fd))
  return f:read "a"
end

local function rights(...)
  return {socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack(("i"):rep(select("#", ...)), ...)}
end

local function close_all(fds)
  for _, fd in ipairs(fds) do socket.close(fd) end
end

for _, kind in ipairs {"stream", "dgram", "seqpacket"} do
  describe("descriptors over a Unix " .. kind .. " socket", function()
    local a, b
    before_each(function()
      a, b = keep(socket.socketpair(socket.AF_UNIX, socket["SOCK_" .. kind:upper()]))
    end)

    for _, mode in ipairs(MODES) do
      it("of files, sockets and their numbers arrive as new ones, " .. mode[1], function()
        set_timeout(mode[2], a, b)
        local before = support.descriptors()
        local f <close> = file_of "content"
        local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
        assert.equal(5, socket.send_fds(a, {"by", "tes"}, {f, s, s:fileno()}))
        local data, fds, flags, address = socket.recv_fds(b, 100, 5)
        assert.equal("bytes", data)
        assert.equal(3, #fds)
        assert.equal(0, flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
        assert.is_nil(address)
        assert.equal("content", content_of(fds[1]))
        local other <close> = socket.socket(nil, nil, nil, fds[2])
        assert.is_true(other:getsockname() == s:getsockname())
        assert.equal(socket.SOCK_DGRAM, other.type)
        socket.close(fds[1])
        socket.close(fds[3])
        assert.equal(before + 3, support.descriptors())
      end)
    end

    it("are not inherited by child programs", function()
      socket.send_fds(a, "x", {a, b})
      a:sendmsg("x", {rights(a:fileno(), b:fileno())})
      local _, fds = socket.recv_fds(b, 10, 2)
      local _, items = b:recvmsg(10, 100)
      local fd3, fd4 = string.unpack("ii", items[1].data)
      for _, fd in ipairs {fds[1], fds[2], fd3, fd4} do
        local s <close> = socket.socket(nil, nil, nil, fd)
        assert.is_false(s:get_inheritable())
      end
    end)

    it("that nobody takes are closed by the collector", function()
      local before = support.descriptors()
      for _ = 1, 10 do a:sendmsg("x", {rights(0, 1, 2), rights(0)}) end
      for _ = 1, 5 do b:recvmsg(10, 200) end
      local _, items = b:recvmsg(10, 200)
      assert.equal(socket.SOL_SOCKET, items[1].level)
      assert.equal(socket.SCM_RIGHTS, items[1][2])
      assert.equal(before + 4, support.descriptors())
      items = nil -- luacheck: ignore
      assert.equal(before, support.descriptors())
      for _ = 1, 4 do b:recvmsg_into({socket.buffer(1)}, 200) end
      assert.equal(before, support.descriptors())
    end)

    it("that somebody takes are theirs to close", function()
      a:sendmsg("x", {rights(0, 1, 2)})
      local _, items = b:recvmsg(10, 200)
      local before = support.descriptors()
      local fds = {string.unpack("iii", items[1].data)}
      items = nil -- luacheck: ignore
      assert.equal(before, support.descriptors())
      close_all {fds[1], fds[2], fds[3]}
      assert.equal(before - 3, support.descriptors())
    end)

    it("too many for the room are cut, and MSG_CTRUNC says so", function()
      local before = support.descriptors()
      for _ = 1, 6 do a:sendmsg("x", {rights(0, 1, 2, 0, 1)}) end
      for _, size in ipairs {socket.CMSG_LEN(2 * 4), socket.CMSG_SPACE(2 * 4)} do
        local data, items, flags = b:recvmsg(10, size)
        assert.equal("x", data)
        assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
        assert.equal(1, #items)
        assert.equal(before + 2, support.descriptors())
        items = nil -- luacheck: ignore
        assert.equal(before, support.descriptors())
      end
      for _, size in ipairs {0, 1, socket.CMSG_LEN(0)} do
        local data, items, flags = b:recvmsg(10, size)
        assert.equal("x", data)
        assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
        assert.is_true(#items == 0 or #items[1].data == 0)
        assert.equal(before, support.descriptors())
      end
      local data, fds, flags = socket.recv_fds(b, 10, 3)
      assert.equal("x", data)
      assert.equal(3, #fds)
      assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
      close_all(fds)
      assert.equal(before, support.descriptors())
    end)

    it("received with no room for any are closed by the system", function()
      local before = support.descriptors()
      socket.send_fds(a, "x", {a, b})
      socket.send_fds(a, "y", {a, b})
      socket.send_fds(a, "z", {a, b})
      local data, fds, flags = socket.recv_fds(b, 1, 0)
      assert.equal("x", data)
      assert.same({}, fds)
      assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
      assert.equal("y", b:recv(1))
      assert.equal("z", (b:recvfrom(1)))
      assert.equal(before, support.descriptors())
    end)

    it("come anew with each look of MSG_PEEK", function()
      local before = support.descriptors()
      a:sendmsg("x", {rights(0)})
      local _, items = b:recvmsg(10, 100, socket.MSG_PEEK)
      local _, fds = socket.recv_fds(b, 10, 1, socket.MSG_PEEK)
      local _, more = b:recvmsg(10, 100)
      assert.equal(before + 3, support.descriptors())
      assert.are_not.equal(fds[1], (string.unpack("i", items[1].data)))
      close_all {fds[1], (string.unpack("i", items[1].data)), (string.unpack("i", more[1].data))}
      assert.equal(before, support.descriptors())
    end)

    it("are as many as one message holds", function()
      local before = support.descriptors()
      local list = {}
      for i = 1, 253 do list[i] = i % 3 end
      assert.equal(1, socket.send_fds(a, "x", list))
      local _, fds, flags = socket.recv_fds(b, 1, 300)
      assert.equal(253, #fds)
      assert.equal(0, flags & socket.MSG_CTRUNC)
      close_all(fds)
      list[254] = 0
      fails("EINVAL", socket.send_fds, a, "x", list)
      assert.equal(before, support.descriptors())
    end)

    it("that are not open are EBADF, and nothing is sent", function()
      local before = support.descriptors()
      assert.equal("send_fds", fails("EBADF", socket.send_fds, a, "x", {0, 99999}).op)
      fails("EBADF", a.sendmsg, a, "x", {rights(0, -1)})
      fails("EAGAIN", b.recvmsg, b, 10, 100, socket.MSG_DONTWAIT)
      assert.equal(before, support.descriptors())
    end)

    it("can be passed on as they came, without being taken", function()
      local c, d = keep(socket.socketpair(socket.AF_UNIX, socket["SOCK_" .. kind:upper()]))
      local before = support.descriptors()
      local f <close> = file_of "passed on"
      a:sendmsg("x", {rights(f:seek() and 0, 1)})
      socket.send_fds(a, "y", {f})
      local _, items = b:recvmsg(1, 100)
      c:sendmsg("x", items)
      items = nil -- luacheck: ignore
      do
        local _, i = b:recvmsg(1, 100)
        c:sendmsg("y", {table.unpack(i)})
      end
      assert.equal(before + 1, support.descriptors()) -- the file
      local _, fds = socket.recv_fds(d, 1, 2)
      assert.equal(2, #fds)
      close_all(fds)
      fds = select(2, socket.recv_fds(d, 1, 2))
      assert.equal("passed on", content_of(fds[1]))
      close_all(fds)
      assert.equal(before + 1, support.descriptors())
    end)

    it("can be passed on after they were taken, as Python does", function()
      socket.send_fds(a, "x", {file_of "taken"})
      local _, items = b:recvmsg(1, 100)
      local fd = string.unpack("i", items[1].data)
      a:sendmsg("x", items)
      local _, fds = socket.recv_fds(b, 1, 1)
      assert.equal("taken", content_of(fds[1]))
      close_all {fd, fds[1]}
    end)
  end)
end

describe("ten thousand messages with descriptors back and forth", function()
  it("leave none behind", function()
    local a, b = keep(socket.socketpair())
    local before = support.descriptors()
    local item = rights(0, 1)
    local size = socket.CMSG_SPACE(8)
    for i = 1, 5000 do
      a:sendmsg("ping", {item})
      if i % 5 == 0 then
        b:recvmsg(10, size) -- not taken
      else
        local data, items = b:recvmsg(10, size)
        local x, y = string.unpack("ii", items[1].data)
        if data ~= "ping" or #items ~= 1 then error "lost" end
        socket.close(x)
        socket.close(y)
      end
      socket.send_fds(b, "pong", {a})
      local data, fds = socket.recv_fds(a, 10, 2)
      if data ~= "pong" or #fds ~= 1 then error "lost" end
      socket.close(fds[1])
    end
    assert.equal(before, support.descriptors())
  end)
end)

describe("a peer that sends descriptors to a program that does not want them", function()
  it("cannot use all its descriptors up, however rarely the collector runs", function()
    local text, status = support.run([[
      local socket = require "socket"
      local a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      local live, held = {}, {}
      for i = 1, 200000 do live[i] = {i} end
      local item = {socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack("ii", 0, 1)}
      local function pass(n, keep)
        for i = 1, n do
          a:sendmsg("x", {item})
          local _, items, flags = b:recvmsg(10, 100)
          assert(flags & socket.MSG_CTRUNC == 0)
          held[#held + 1] = keep and items or nil
        end
      end
      pass(3000)
      assert(io.open "/dev/null"):close()
      pass(200, true)
      assert(#held == 200)
      for _, items in ipairs(held) do
        local x, y = string.unpack("ii", items[1].data)
        socket.close(x) socket.close(y)
      end
      pass(1000)
      held = {}
      pass(1000)
      a:close() b:close()
      print "alive"]], {before = "ulimit -n 600;"})
    assert.equal("alive\n", text)
    assert.equal(0, status)
  end)
end)

describe("an item of received descriptors", function()
  local a, b, item
  before_each(function()
    a, b = keep(socket.socketpair())
    a:sendmsg("x", {rights(0, 1)})
    local _, items = b:recvmsg(1, 100)
    item = items[1]
  end)

  it("looks like the table {level, type, data}", function()
    assert.equal("userdata", type(item))
    assert.equal(3, #item)
    assert.equal(socket.SOL_SOCKET, item[1])
    assert.equal(socket.SOL_SOCKET, item.level)
    assert.equal(socket.SCM_RIGHTS, item[2.0])
    assert.equal(socket.SCM_RIGHTS, item.type)
    for _, key in ipairs {0, 4, -1, 1.5, "x", "Data", "3", "level\0", true, {}, math.mininteger} do
      assert.is_nil(item[key])
    end
    assert.is_false(getmetatable(item))
    assert.is_false(pcall(function() item.data = "x" end))
    local level, kind, data = table.unpack(item)
    assert.same({socket.SOL_SOCKET, socket.SCM_RIGHTS, item.data}, {level, kind, data})
    close_all {(string.unpack("i", data)), (string.unpack("i", data, 5))}
  end)

  it("gives the same data again and again", function()
    local data = item.data
    assert.equal(8, #data)
    assert.equal(data, item.data)
    assert.equal(data, item[3])
    close_all {(string.unpack("i", data)), (string.unpack("i", data, 5))}
  end)

  it("cannot be forged", function()
    local tools = support.tools(pending)
    for size = 8, 64, 8 do
      refuses("item 1 must be a table {level, type, data}", a.sendmsg, a, "x", {tools.userdata(size, 0)})
      refuses("item 1 must be a table {level, type, data}", a.sendmsg, a, "x", {tools.userdata(size, 255)})
    end
    refuses("item 1 must be a table {level, type, data}", a.sendmsg, a, "x", {b})
    if debug.getmetatable then
      local index, len = debug.getmetatable(item).__index, debug.getmetatable(item).__len
      for _, v in ipairs {1, {}, io.stdout, b, socket.buffer(100), tools.userdata(16, 0)} do
        refuses("socket descriptors expected", index, v, "data")
        refuses("socket descriptors expected", len, v)
      end
    end
  end)
end)

describe("an item of other data", function()
  it("is a table with its fields by name and by number", function()
    local s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0})
    if not socket.IP_RECVTTL then pending "this platform has no IP_RECVTTL" end
    s:setsockopt(socket.IPPROTO_IP, socket.IP_RECVTTL, 1)
    s:sendto("x", s:getsockname())
    local _, items = s:recvmsg(10, 100)
    assert.equal("table", type(items[1]))
    assert.same({socket.IPPROTO_IP, socket.IP_TTL, string.pack("i", 64)}, items[1])
    assert.equal(socket.IPPROTO_IP, items[1].level)
    assert.equal(socket.IP_TTL, items[1].type)
    assert.equal(string.pack("i", 64), items[1].data)
    -- and can be sent as it is
    s:sendmsg("y", items, 0, s:getsockname())
    assert.equal("y", (s:recvmsg(10)))
  end)
end)

---------------------------------------------------------------- what the system tells of a message

describe("on Linux", function()
  local function needs(...)
    for _, name in ipairs {...} do
      if not socket[name] then pending("this platform has no " .. name) end
    end
  end

  local function udp(family, host)
    return keep(socket.socket(family, socket.SOCK_DGRAM):bind {host, 0})
  end

  it("SO_PASSCRED delivers who sent", function()
    needs("SO_PASSCRED", "SCM_CREDENTIALS")
    local stat = io.open "/proc/self/stat"
    local pid = tonumber(stat:read("a"):match "^%d+")
    stat:close()
    local uid, gid
    for line in io.lines "/proc/self/status" do
      uid = uid or tonumber(line:match "^Uid:%s+(%d+)")
      gid = gid or tonumber(line:match "^Gid:%s+(%d+)")
    end
    for _, kind in ipairs {socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET} do
      local a, b = keep(socket.socketpair(socket.AF_UNIX, kind))
      b:setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
      a:sendmsg "x"
      local data, items, flags = b:recvmsg(10, socket.CMSG_SPACE(12))
      assert.equal("x", data)
      assert.equal(0, flags & socket.MSG_CTRUNC)
      assert.equal(1, #items)
      assert.same({socket.SOL_SOCKET, socket.SCM_CREDENTIALS, string.pack("iII", pid, uid, gid)}, items[1])
      -- given by the sender, with a descriptor beside
      a:sendmsg("y", {{socket.SOL_SOCKET, socket.SCM_CREDENTIALS, string.pack("iII", pid, uid, gid)}, rights(0)})
      data, items = b:recvmsg(10, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4))
      assert.equal("y", data)
      assert.equal(2, #items)
      local seen = {}
      for _, item in ipairs(items) do seen[item.type] = #item.data end
      assert.same({[socket.SCM_CREDENTIALS] = 12, [socket.SCM_RIGHTS] = 4}, seen)
      for _, item in ipairs(items) do
        if item.type == socket.SCM_RIGHTS then socket.close((string.unpack("i", item.data))) end
      end
    end
    local a, b = keep(socket.socketpair())
    b:setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    local p <close>, child = support.peer(a, "s:send 'x'")
    local _, items = b:recvmsg(10, 100)
    assert.equal(child, (string.unpack("i", items[1].data)))
    p:read "a"
  end)

  it("credentials cut short say MSG_CTRUNC", function()
    needs("SO_PASSCRED", "SCM_CREDENTIALS")
    local a, b = keep(socket.socketpair())
    b:setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    a:sendmsg "x"
    local _, items, flags = b:recvmsg(1, socket.CMSG_LEN(4))
    assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
    assert.equal(4, #items[1].data)
  end)

  it("IP_PKTINFO tells where a datagram was sent to, and chooses where one comes from", function()
    needs("IP_PKTINFO", "IP_RECVTTL")
    local a, b = udp(socket.AF_INET, "127.0.0.1"), udp(socket.AF_INET, "0.0.0.0")
    b:setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, 1)
    a:sendto("x", {"127.9.8.7", b:getsockname().port})
    local _, items, _, from = b:recvmsg(10, 100)
    assert.equal(1, #items)
    assert.equal(socket.IPPROTO_IP, items[1].level)
    assert.equal(socket.IP_PKTINFO, items[1].type)
    local index, here, to = string.unpack("I4 c4 c4", items[1].data) -- struct in_pktinfo
    assert.equal(socket.if_nametoindex "lo", index)
    assert.equal("127.9.8.7", socket.inet_ntoa(to))
    assert.equal("127.9.8.7", socket.inet_ntoa(here))
    -- the answer comes from the same address
    b:sendmsg("y", {{socket.IPPROTO_IP, socket.IP_PKTINFO, string.pack("I4 c4 c4", 0, here, "\0\0\0\0")}}, 0, from)
    local data, answer = a:recvfrom(10)
    assert.equal("y", data)
    assert.equal("127.9.8.7", answer.host)
  end)

  it("IP_RECVTTL and IP_RECVTOS deliver those, and sendmsg sets them for one datagram", function()
    needs("IP_RECVTTL", "IP_RECVTOS")
    local a, b = udp(socket.AF_INET, "127.0.0.1"), udp(socket.AF_INET, "127.0.0.1")
    b:setsockopt(socket.IPPROTO_IP, socket.IP_RECVTTL, 1)
    b:setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    a:sendmsg("x", {
      {socket.IPPROTO_IP, socket.IP_TTL, string.pack("i", 33)},
      {level = socket.IPPROTO_IP, type = socket.IP_TOS, data = socket.buffer(string.pack("i", 0x10))},
    }, 0, b:getsockname())
    local _, items = b:recvmsg(10, 200)
    local seen = {}
    for _, item in ipairs(items) do seen[item.type] = string.unpack(#item.data == 1 and "B" or "i", item.data) end
    assert.same({[socket.IP_TTL] = 33, [socket.IP_TOS] = 0x10}, seen)
  end)

  it("IPV6_RECVPKTINFO and IPV6_RECVHOPLIMIT do the same for IPv6", function()
    needs("IPV6_RECVPKTINFO", "IPV6_PKTINFO", "IPV6_RECVHOPLIMIT", "IPV6_HOPLIMIT")
    if not support.has_ipv6() then pending "this machine has no IPv6" end
    local a, b = udp(socket.AF_INET6, "::1"), udp(socket.AF_INET6, "::")
    b:setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    b:setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    a:sendmsg({"x"}, {{socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, string.pack("i", 44)}}, 0,
      {"::1", b:getsockname().port})
    local size = socket.CMSG_SPACE(20) + socket.CMSG_SPACE(4)
    local n, items, flags, from = b:recvmsg_into({socket.buffer(10)}, size)
    assert.equal(1, n)
    assert.equal(0, flags & socket.MSG_CTRUNC)
    local seen = {}
    for _, item in ipairs(items) do
      assert.equal(socket.IPPROTO_IPV6, item.level)
      seen[item.type] = item.data
    end
    assert.equal(44, (string.unpack("i", seen[socket.IPV6_HOPLIMIT])))
    local to, index = string.unpack("c16 I4", seen[socket.IPV6_PKTINFO]) -- struct in6_pktinfo
    assert.equal("::1", socket.inet_ntop(socket.AF_INET6, to))
    assert.equal(socket.if_nametoindex "lo", index)
    b:sendmsg("y", {{socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, string.pack("c16 I4", to, index)}}, 0, from)
    assert.equal("y", (a:recvmsg(10)))
    -- room for one of the two
    a:sendmsg({"x"}, nil, 0, {"::1", b:getsockname().port})
    items, flags = select(2, b:recvmsg(10, socket.CMSG_SPACE(20)))
    assert.equal(1, #items)
    assert.equal(socket.MSG_CTRUNC, flags & socket.MSG_CTRUNC)
  end)

  it("SO_TIMESTAMP tells when", function()
    needs("SO_TIMESTAMP", "SCM_TIMESTAMP")
    local a, b = udp(socket.AF_INET, "127.0.0.1"), udp(socket.AF_INET, "127.0.0.1")
    b:setsockopt(socket.SOL_SOCKET, socket.SO_TIMESTAMP, 1)
    a:sendto("x", b:getsockname())
    local _, items = b:recvmsg(10, 100)
    assert.equal(socket.SCM_TIMESTAMP, items[1].type)
    local seconds = string.unpack("l", items[1].data)
    assert.is_true(math.abs(seconds - os.time()) <= 2)
  end)

  it("an item that the system does not know is EINVAL", function()
    local a = udp(socket.AF_INET, "127.0.0.1")
    fails("EINVAL", a.sendmsg, a, "x", {{socket.IPPROTO_IP, 12345, "data"}}, 0, a:getsockname())
    fails("EINVAL", a.sendmsg, a, "x", {{socket.IPPROTO_IP, socket.IP_TTL, ""}}, 0, a:getsockname())
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

---------------------------------------------------------------- queued errors

describe("MSG_ERRQUEUE", function()
  local function needs_errqueue()
    if not (socket.MSG_ERRQUEUE and socket.IP_RECVERR) then pending "this platform has no queue of errors" end
  end

  it("on a stream gives an empty string where an error has no bytes: that is not the end", function()
    needs_errqueue()
    if not socket.SO_ZEROCOPY then pending "this platform has no MSG_ZEROCOPY" end
    local a, b = keep(support.tcp())
    if not a:try_setsockopt(socket.SOL_SOCKET, socket.SO_ZEROCOPY, 1) then pending "the system has no SO_ZEROCOPY" end
    a:send(("x"):rep(20000), socket.MSG_ZEROCOPY)
    assert.equal(20000, #b:recv(20000, socket.MSG_WAITALL))
    local data, items, flags
    for _ = 1, 100 do -- the news that the bytes are no longer needed takes a moment
      data, items, flags = a:try_recvmsg(100, 512, socket.MSG_ERRQUEUE)
      if data then break end
      assert.equal("EAGAIN", items.code)
      socket.sleep(0.002)
    end
    assert.equal("", data)
    assert.equal(socket.MSG_ERRQUEUE, flags & socket.MSG_ERRQUEUE)
    assert.equal(1, #items)
    assert.equal(socket.IPPROTO_IP, items[1].level)
    assert.equal(socket.IP_RECVERR, items[1].type)
    local _, origin = string.unpack("I4 B", items[1].data) -- struct sock_extended_err
    assert.equal(socket.SO_EE_ORIGIN_ZEROCOPY, origin)
  end)
end)

for _, case in ipairs {
  {"IPv4", "127.0.0.1", "IPPROTO_IP", "IP_RECVERR"}, {"IPv6", "::1", "IPPROTO_IPV6", "IPV6_RECVERR"},
} do
  describe("MSG_ERRQUEUE over " .. case[1], function()
    it("says what an ICMP error was about, whom the datagram was for, and who complained", function()
      local host, level, option = case[2], socket[case[3]], socket[case[4]]
      if not (socket.MSG_ERRQUEUE and option) then pending "this platform has no queue of errors" end
      if case[1] == "IPv6" and not support.has_ipv6() then pending "this machine has no IPv6" end
      local family = case[1] == "IPv6" and socket.AF_INET6 or socket.AF_INET
      local s = keep(socket.socket(family, socket.SOCK_DGRAM):bind {host, 0})
      s:setsockopt(level, option, 1)
      local free
      do
        local u <close> = socket.socket(family, socket.SOCK_DGRAM):bind {host, 0}
        free = u:getsockname()
      end
      for _, t in ipairs {false, 5, 0} do
        s:settimeout(t or nil)
        s:sendto("to nobody", free)
        local data, items, flags, address = s:recvmsg(100, 512, socket.MSG_ERRQUEUE)
        assert.equal("to nobody", data)
        assert.equal(socket.MSG_ERRQUEUE, flags & socket.MSG_ERRQUEUE)
        assert.is_true(free == address)
        assert.equal(1, #items)
        assert.equal(level, items[1].level)
        assert.equal(option, items[1].type)
        local errno, origin, kind, code, at = string.unpack("I4 B B B x I4 I4", items[1].data) -- sock_extended_err
        assert.equal(0, at)
        assert.equal("ECONNREFUSED", socket.errno[errno])
        assert.equal(case[1] == "IPv6" and socket.SO_EE_ORIGIN_ICMP6 or socket.SO_EE_ORIGIN_ICMP, origin)
        assert.same(case[1] == "IPv6" and {1, 4} or {3, 3}, {kind, code}) -- port unreachable
        local offender = socket.unpackaddr(items[1].data:sub(17))
        assert.equal(host, offender.host)
        assert.equal(0, offender.port)
        -- the same at once for buffers; and no more
        fails("EAGAIN", s.recvmsg, s, 100, 512, socket.MSG_ERRQUEUE)
        fails("EAGAIN", s.recvmsg_into, s, {socket.buffer(3)}, 512, socket.MSG_ERRQUEUE)
        s:sendto("to nobody", free)
        local b = socket.buffer(4)
        local n
        n, items, flags = s:recvmsg_into({b}, 8, socket.MSG_ERRQUEUE)
        assert.equal(4, n)
        assert.equal("to n", tostring(b))
        assert.same({}, items)
        local both = socket.MSG_TRUNC | socket.MSG_CTRUNC
        assert.equal(both, flags & both)
      end
    end)
  end)
end

---------------------------------------------------------------- in coroutines

describe("in coroutines, while the script changes what it passed,", function()
  local function garbage()
    local list = {}
    for i = 1, 200 do list[i] = socket.buffer(("garbage"):rep(i)) end
    collectgarbage()
    return #list
  end

  -- Sends in one task, when the queue is full; in another changes what was passed, then reads. Gives the message.
  local function send_late(send, change)
    local S = support.scheduler(pending)
    local a, b = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    a:settimeout(0)
    while a:try_send "full" do end
    a:settimeout(5)
    b:settimeout(5)
    local sent, data, fds
    S.spawn(function() sent = send(a) end)
    S.spawn(function()
      change()
      garbage()
      repeat data, fds = socket.recv_fds(b, 1000, 3) until data ~= "full"
    end)
    S.run()
    assert.equal(#data, sent)
    return data, fds
  end

  it("sendmsg sends the pieces it was given", function()
    local pieces = {("first "):rep(3), socket.buffer "second ", socket.buffer "..third":view(3), 4}
    local anc = {rights(0)}
    local data, fds = send_late(function(s) return s:sendmsg(pieces, anc) end, function()
      for i = 1, 4 do pieces[i] = i end
      anc[1][3] = nil
      anc[1] = nil
    end)
    assert.equal("first first first second third4", data)
    assert.equal(1, #fds)
    close_all(fds)
  end)

  it("send_fds sends the descriptors it was given", function()
    local before = support.descriptors()
    local fds = {file_of "a file"}
    local data, got = send_late(function(s) return socket.send_fds(s, {"bytes"}, fds) end, function()
      fds[1] = nil -- nobody else holds it
    end)
    assert.equal("bytes", data)
    assert.equal("a file", content_of(got[1]))
    close_all(got)
    assert.equal(before + 2, support.descriptors())
  end)

  it("send_fds does not send what was closed meanwhile, nor what has its number now", function()
    local before = support.descriptors()
    local f, s = file_of "closed", socket.socket()
    local ok, e, others
    local data = send_late(function(sender)
      ok, e = pcall(socket.send_fds, sender, {"bytes"}, {f, s})
      sender:send "end"
      return 3
    end, function()
      s:close()
      others = {socket.socketpair()}
    end)
    assert.equal("end", data)
    assert.is_false(ok)
    assert.matches("item 2 is no open descriptor, socket or file", e, 1, true)
    keep(others[1], others[2])
    f:close()
    assert.equal(before + 4, support.descriptors())
  end)

  it("sendmsg passes on the descriptors it was given", function()
    local a, b = keep(socket.socketpair())
    socket.send_fds(a, "x", {file_of "passed on"})
    local items = select(2, b:recvmsg(1, 100))
    local data, got = send_late(function(s) return s:sendmsg({"bytes"}, items) end, function() items[1] = nil end)
    assert.equal("bytes", data)
    assert.equal("passed on", content_of(got[1]))
    close_all(got)
  end)

  it("recvmsg_into fills the buffers it was given", function()
    local S = support.scheduler(pending)
    local a, b = keep(socket.socketpair())
    local x, y = socket.buffer(3), socket.buffer(10)
    local into = {x, y:view(2, 4), socket.buffer(5):view(2)}
    local n, items
    S.spawn(function() n, items = b:recvmsg_into(into, 100) end)
    S.spawn(function()
      into[1], into[2], into[3] = nil, "x", socket.buffer(1)
      garbage()
      a:sendmsg({"abcdefgh"}, {rights(0)})
    end)
    S.run()
    assert.equal(8, n)
    assert.equal("abc", tostring(x))
    assert.equal("\0def\0", y:sub(1, 5))
    assert.equal(1, #items)
    close_all {(string.unpack("i", items[1].data))}
  end)

  it("recvmsg and recv_fds wait", function()
    local S = support.scheduler(pending)
    local a, b = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    local before = support.descriptors()
    local results = {}
    S.spawn(function()
      local data, items = b:recvmsg(100000, 100)
      results[1] = #data
      close_all {(string.unpack("i", items[1].data))}
      local fds
      data, fds = socket.recv_fds(b, 10, 2)
      results[2] = data .. #fds
      close_all(fds)
      b:settimeout(0.005)
      results[3] = select(2, b:try_recvmsg(10, 100)).code
      results[4] = select(2, socket.try_recv_fds(b, 10, 1)).code
    end)
    S.spawn(function()
      socket.sleep(0.002)
      a:sendmsg(("x"):rep(70000), {rights(0)})
      socket.sleep(0.002)
      socket.send_fds(a, "y", {0, 1})
    end)
    S.run()
    assert.same({70000, "y2", "ETIMEDOUT", "ETIMEDOUT"}, results)
    assert.equal(before, support.descriptors())
  end)

  it("closing the socket ends the wait, and nothing is lost", function()
    local S = support.scheduler(pending)
    local a, b = keep(socket.socketpair())
    local before = support.descriptors()
    local codes = {}
    S.spawn(function() codes[1] = select(2, b:try_recvmsg(10, 100)).code end)
    S.spawn(function()
      socket.sleep(0.002)
      codes[2] = select(2, b:try_recvmsg_into {socket.buffer(3)}).code
      b:close()
    end)
    S.run()
    assert.same({"ECANCELED", "EBUSY"}, codes)
    a:close()
    assert.equal(before - 2, support.descriptors())
  end)
end)

---------------------------------------------------------------- other programs

describe("Python", function()
  local function python(s, code)
    if not support.has "python3" then pending "needs python3" end
    s:set_inheritable(true)
    local p = assert(io.popen(("exec 2>&1; exec python3 -I -c %s </dev/null"):format(h.quote(([[
import array, socket, os
s = socket.socket(fileno=%d)
%s]]):format(s:fileno(), code)))))
    s:close()
    return p
  end

  it("sends descriptors to us, and we to it", function()
    local a, b = keep(socket.socketpair())
    local p <close> = python(a, [[
r, w = os.pipe()
os.write(w, b"from python")
os.close(w)
socket.send_fds(s, [b"by", b"tes"], [r, r])
data, fds, flags, address = socket.recv_fds(s, 100, 4)
print(data, len(fds), flags & socket.MSG_CTRUNC, os.read(fds[1], 100))
data, items, flags, address = s.recvmsg(100, socket.CMSG_LEN(4))
level, kind, data2 = items[0]
fds = array.array("i", data2)
print(data, level == socket.SOL_SOCKET, kind == socket.SCM_RIGHTS, os.read(fds[0], 100))
]])
    b:settimeout(20)
    local data, fds = socket.recv_fds(b, 100, 5)
    assert.equal("bytes", data)
    assert.equal(2, #fds)
    local f = io.open("/proc/self/fd/" .. fds[1])
    assert.equal("from python", f:read "a")
    f:close()
    close_all(fds)
    socket.send_fds(b, {"there"}, {0, file_of "from lua"})
    b:sendmsg({"again"}, {rights(0)})
    assert.matches("^b'there' 2 0 b'from lua'\n", (p:read "a"):gsub("b'there'again.*", "%0"))
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

---------------------------------------------------------------- AF_ALG

describe("sendmsg_afalg", function()
  local a, b
  before_each(function()
    if not socket.SocketType.sendmsg_afalg then pending "this platform has no AF_ALG" end
    a, b = keep(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
  end)

  it("encrypts and hashes", function()
    local s, e = socket.try_socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    if not s then
      assert.equal("EAFNOSUPPORT", e.code)
      pending("this system has no AF_ALG: " .. tostring(e))
    end
    keep(s)
    local bound, e2 = s:try_bind {"skcipher", "cbc(aes)"}
    if not bound then pending("this system has no AES: " .. tostring(e2)) end
    s:setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, ("k"):rep(16))
    local op = keep((s:accept()))
    op:sendmsg_afalg({"sixteen ", "bytes..."}, {op = socket.ALG_OP_ENCRYPT, iv = ("i"):rep(16)})
    local secret = op:recv(16)
    assert.are_not.equal("sixteen bytes...", secret)
    op:sendmsg_afalg(socket.buffer(secret), {op = socket.ALG_OP_DECRYPT, iv = socket.buffer(("i"):rep(16))})
    assert.equal("sixteen bytes...", op:recv(16))
  end)

  it("takes an operation, and perhaps iv, assoclen and flags", function()
    refuses("table expected, got no value", a.sendmsg_afalg, a, "x")
    refuses("option 'op' is missing", a.sendmsg_afalg, a, "x", {})
    refuses("op must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = -1})
    refuses("op must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = 1 << 32})
    refuses("op must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = "encrypt"})
    refuses("assoclen must be 0-4294967295", a.sendmsg_afalg, a, "x", {op = 1, assoclen = -1})
    refuses("iv must be bytes", a.sendmsg_afalg, a, "x", {op = 1, iv = {}})
    refuses("iv must be bytes", a.sendmsg_afalg, a, "x", {op = 1, iv = io.stdout})
    refuses("iv is longer than 4096 bytes", a.sendmsg_afalg, a, "x", {op = 1, iv = ("i"):rep(4097)})
    refuses("flags must be an integer", a.sendmsg_afalg, a, "x", {op = 1, flags = "x"})
    refuses("flags do not fit", a.sendmsg_afalg, a, "x", {op = 1, flags = 1 << 40})
    refuses("unknown option 'key'", a.sendmsg_afalg, a, "x", {op = 1, key = "x"})
    refuses("item 1 is a table, not bytes", a.sendmsg_afalg, a, {{}}, {op = 1})
    refuses("string expected, got nil", a.sendmsg_afalg, a, nil, {op = 1})
    refuses("socket expected", a.sendmsg_afalg, {}, "x", {op = 1})
    fails("EAGAIN", b.recv, b, 1, socket.MSG_DONTWAIT)
  end)

  it("gives them to the system as items of level SOL_ALG", function()
    support.needs_strace(pending)
    local marked = support.calls [[
      local socket = require "socket"
      local a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
      mark "all"
      a:sendmsg_afalg({"x", "yz"}, {op = 1, iv = "abcdefg", assoclen = 9, flags = socket.MSG_MORE})
      mark "op"
      a:sendmsg_afalg("x", {op = 0})
      mark()
      a:close() b:close()]]
    local text = marked.all[1].text
    local items = {}
    for len, level, kind in text:gmatch "{cmsg_len=(%d+), cmsg_level=([%w_]+), cmsg_type=(%w+)" do
      items[#items + 1] = ("%s %s %d"):format(len, level, kind)
    end
    assert.same({
      ("%d SOL_ALG %d"):format(socket.CMSG_LEN(4), socket.ALG_SET_OP),
      ("%d SOL_ALG %d"):format(socket.CMSG_LEN(4 + 7), socket.ALG_SET_IV),
      ("%d SOL_ALG %d"):format(socket.CMSG_LEN(4), socket.ALG_SET_AEAD_ASSOCLEN),
    }, items)
    assert.matches("MSG_MORE", text, 1, true)
    assert.matches(("msg_controllen=%d"):format(2 * socket.CMSG_SPACE(4) + socket.CMSG_SPACE(11)), text, 1, true)
    assert.equal(1, select(2, marked.op[1].text:gsub("cmsg_len", "")))
  end)
end)

---------------------------------------------------------------- sizes

describe("CMSG_LEN and CMSG_SPACE", function()
  it("are the system's, without padding and with", function()
    local head = socket.CMSG_LEN(0)
    for n = 0, 40 do
      assert.equal(head + n, socket.CMSG_LEN(n))
      assert.is_true(socket.CMSG_SPACE(n) >= socket.CMSG_LEN(n))
      assert.equal(0, socket.CMSG_SPACE(n) % 4)
    end
  end)

  it("are those of Python", function()
    if not support.has "python3" then pending "needs python3" end
    local text = support.output [[python3 -I -c 'import socket
for n in range(40): print(n, socket.CMSG_LEN(n), socket.CMSG_SPACE(n))']]
    local lines = {}
    for n = 0, 39 do lines[#lines + 1] = ("%d %d %d\n"):format(n, socket.CMSG_LEN(n), socket.CMSG_SPACE(n)) end
    assert.equal(table.concat(lines), text)
  end)

  it("take no negative length and none beyond a C int", function()
    for _, f in ipairs {socket.CMSG_LEN, socket.CMSG_SPACE} do
      for _, n in ipairs {-1, math.mininteger, math.maxinteger, 1 << 31, (1 << 31) - 1} do
        refuses("length is negative or too large", f, n)
      end
      refuses("number expected, got no value", f)
      refuses("number has no integer representation", f, 1.5)
    end
  end)
end)

---------------------------------------------------------------- bad input, little memory

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

  it("descriptors are numbers, sockets and files that are open", function()
    local closed = socket.socket():close() and keep(socket.socket())
    closed:close()
    local f = file_of ""
    f:close()
    for _, v in ipairs {-1, 1 << 31, 1.5, "0", true, {}, closed, f, socket.buffer(4)} do
      refuses("item 2 is no open descriptor, socket or file", socket.send_fds, a, "x", {0, v})
    end
    refuses("item 1 is no open descriptor, socket or file", socket.send_fds, a, "x", {nil, 1})
    local held = keep(socket.socket())
    local file <close> = held:makefile "r"
    held:close()
    refuses("item 1 is no open descriptor, socket or file", socket.send_fds, a, "x", {held})
    assert.is_truthy(file)
    refuses("table expected, got nil", socket.send_fds, a, "x")
    refuses("table expected, got number", socket.send_fds, a, "x", 1)
    refuses("item 1 is a table, not bytes", socket.send_fds, a, {{}}, {})
    refuses("maxfds must be 0-65536", socket.recv_fds, a, 1, -1)
    refuses("maxfds must be 0-65536", socket.recv_fds, a, 1, 65537)
    refuses("number expected, got no value", socket.recv_fds, a, 1)
    refuses("size must not be negative", socket.recv_fds, a, -1, 1)
    assert.equal(1, socket.send_fds(a, "x", {})) -- none at all
    local data, fds = socket.recv_fds(b, 10, 65536)
    assert.equal("x", data)
    assert.same({}, fds)
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

describe("with memory short", function()
  -- The function is called again and again, with memory for one allocation more each time.
  local function starve(code)
    local tools = support.tools(pending)
    local before = support.descriptors()
    local failures = tools.starve(([[
      local socket = assert(package.loadlib(%q, "luaopen_socket"))()
      local a, b = socket.socketpair()
      b:settimeout(0)
      local fd = a:fileno()
      local size = socket.CMSG_SPACE(400)
      ]]):format(h.library) .. code, 3)
    assert.equal(before, support.descriptors())
    assert.is_true(failures > 3)
  end

  it("received descriptors are closed or handed over, never lost", function()
    starve [[return function()
      assert(socket.send_fds(a, {"bytes"}, {a, b, fd}) == 5)
      local data, fds = socket.recv_fds(b, 100, 10)
      assert(data == "bytes" and #fds == 3)
      for i = 1, 3 do socket.close(fds[i]) end
    end]]
    starve [[return function()
      a:sendmsg({"bytes"}, {{socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack("iii", fd, fd, fd)}})
      local data, items = b:recvmsg(100, size)
      local f1, f2, f3 = string.unpack("iii", items[1].data)
      socket.close(f1) socket.close(f2) socket.close(f3)
    end]]
    starve [[local into = {socket.buffer(3), socket.buffer(3)}
    return function()
      a:sendmsg({"byt", "es"}, {{socket.SOL_SOCKET, socket.SCM_RIGHTS, string.pack("iii", fd, fd, fd)}})
      assert(b:recvmsg_into(into, size) == 5)
    end]]
  end)
end)
