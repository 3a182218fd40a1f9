-- Descriptors in messages: recv_fds, send_fds, and items of SCM_RIGHTS.

local h = require "spec.helper"
local check = require "spec.support.check"
local socket = require "socket"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local refuses, fails, keep = check.refuses, support.fails, support.keep

after_each(support.close_kept)

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

    for _, mode in ipairs(sockets.MODES) do
      it("of files, sockets and their numbers arrive as new ones, " .. mode[1], function()
        a:settimeout(mode[2])
        b:settimeout(mode[2])
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

---------------------------------------------------------------- bad input, little memory

describe("wrong arguments:", function()
  local a, b
  before_each(function() a, b = keep(socket.socketpair()) end)

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
