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
