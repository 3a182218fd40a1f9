-- Files on sockets: reads and writes that must wait, in coroutines too, and what interrupts them.

require "spec.helper"
local files = require "spec.support.files"
local socket = require "socket"
local streams = require "spec.support.streams"
local support = require "spec.support"
local tasks = require "spec.support.tasks"

local fails = support.fails
local feeder, feeding = files.feeder, files.feeding
local lua_file, open, pair, peer = files.lua_file, files.open, files.pair, files.peer
local collect, stuff = streams.collect, streams.stuff
local now, packed = socket.monotonic, table.pack

after_each(function()
  socket.setwaithook(nil)
  support.close_kept()
end)

---------------------------------------------------------------- waiting

local TEXT = "line one\nline two\n 12.5 tail of it\nmore and more bytes\nthe end"

-- What one sequence of reads must give, whatever interrupts it.
local SEQUENCE = {{"l"}, {"L"}, {"n", "l"}, {5, 0, "l", 2}, {"a"}, {"l"}}

local function expected_sequence()
  local f <close> = lua_file(TEXT)
  local list = {}
  for i, formats in ipairs(SEQUENCE) do list[i] = packed(f:read(table.unpack(formats))) end
  return list
end

describe("a read that must wait", function()
  it("loses nothing when it would block, in every format and with several", function()
    for _, size in ipairs {0, 4, -1} do
      local f, a, b = open("r", size)
      b:settimeout(0)
      local more, got = feeder(a, TEXT, 1), {}
      for i, formats in ipairs(SEQUENCE) do
        for _ = 1, 1000 do
          local r = packed(f:try_read(table.unpack(formats)))
          if not socket.iserror(r[2]) then
            got[i] = r
            break
          end
          assert.equal("EAGAIN", r[2].code)
          assert.is_nil(r[2].partial)
          more()
        end
      end
      assert.same(expected_sequence(), got)
    end
  end)

  it("loses nothing when its time is up", function()
    for _, kind in ipairs {"a Unix stream", "TCP"} do
      local f, a, b = open("r", nil, kind)
      b:settimeout(0.002)
      local more, got, timeouts = feeder(a, TEXT, 12), {}, 0
      for i, formats in ipairs(SEQUENCE) do
        for _ = 1, 1000 do
          local r = packed(f:try_read(table.unpack(formats)))
          if not socket.iserror(r[2]) then
            got[i] = r
            break
          end
          assert.equal("ETIMEDOUT", r[2].code)
          assert.is_true(r[2]:is(socket.timeout))
          assert.equal("read", r[2].op)
          timeouts = timeouts + 1
          more()
        end
      end
      assert.same(expected_sequence(), got)
      assert.is_true(timeouts >= #TEXT // 12)
    end
  end)

  it("loses nothing in a coroutine", function()
    for _, size in ipairs {0, 4, -1} do
      for _, most in ipairs {1, 3, 100} do
        local f, a = open("r", size)
        local got = feeding(feeder(a, TEXT, most), function()
          local list = {}
          for i, formats in ipairs(SEQUENCE) do list[i] = packed(f:read(table.unpack(formats))) end
          return list
        end)
        assert.same(expected_sequence(), got)
      end
    end
  end)

  it("gives the right values in a coroutine that waits after the first of them", function()
    local f, a = open()
    a:sendall "one\ntwo"
    local r = feeding(feeder(a, "\nthree\nfour", 3), function() return packed(f:read("l", "L", "l", "a", "l")) end)
    assert.same({"one", "two\n", "three", "four", n = 5}, r)
    support.close_kept()
    f, a = open()
    a:sendall "1 "
    r = feeding(feeder(a, "2 x", 1), function() return packed(f:try_read("n", "n", "n", "l")) end)
    assert.same({1, 2, n = 3}, r)
  end)

  it("is bounded by one deadline, also where a little arrives again and again", function()
    for _, kind in ipairs {"a Unix stream", "TCP"} do
      local a, b = pair(kind)
      local p <close>, pid = peer(a, "for _ = 1, 400 do s:send 'x' socket.sleep(0.01) end")
      local f = b:makefile()
      b:settimeout(0.2)
      local start = now()
      fails("ETIMEDOUT", f.read, f)
      assert.is_true(now() - start >= 0.2 and now() - start < 0.7)
      support.kill(pid, "TERM")
      p:read "a"
    end
  end)

  it("is bounded by its deadline also where bytes never stop", function()
    local a, b = pair()
    local p <close>, pid = peer(a, "while s:try_send(('x'):rep(65536)) do end")
    local f = b:makefile()
    b:settimeout(0.1)
    local start = now()
    fails("ETIMEDOUT", f.read, f)
    assert.is_true(now() - start >= 0.1 and now() - start < 1)
    support.kill(pid, "TERM")
    p:read "a"
  end)
end)

describe("files in coroutines", function()
  it("serve several sockets at once", function()
    local S = support.scheduler(pending)
    local results = {}
    for i = 1, 5 do
      local a, b = pair(i % 2 == 0 and "TCP" or nil)
      S.spawn(function()
        local f <close> = b:makefile "rw"
        for line in f:lines() do f:write(line:upper(), "\n"):flush() end
        b:close()
      end)
      S.spawn(function()
        local f <close> = a:makefile "rw"
        for round = 1, 20 do
          f:write(("client %d round %d\n"):format(i, round)):flush()
          assert(f:read() == ("CLIENT %d ROUND %d"):format(i, round))
        end
        f:write(("x"):rep(1000000), "\n"):flush()
        results[i] = #f:read()
        a:close()
      end)
    end
    S.run()
    assert.same({1000000, 1000000, 1000000, 1000000, 1000000}, results)
  end)

  it("two may read one file in turns", function()
    local S = support.scheduler(pending)
    local f, a = open()
    local got = {}
    local function reader(name)
      for _ = 1, 3 do
        got[#got + 1] = name .. f:read()
        socket.sleep(0.002)
      end
    end
    S.spawn(function()
      for i = 1, 6 do
        a:sendall(("%d"):format(i))
        socket.sleep(0.005)
        a:sendall "\n"
      end
    end)
    S.spawn(function()
      reader "a"
      reader "b"
    end)
    S.run()
    assert.same({"a1", "a2", "a3", "b4", "b5", "b6"}, got)
  end)

  it("a second reader at the same time is EBUSY, and the first goes on", function()
    local f, a = open()
    a:sendall "on"
    local results = tasks.run {
      function() return f:read() end,
      function()
        local e = fails("EBUSY", f.read, f)
        a:sendall "e\n"
        return e.code
      end,
    }
    assert.same({true, "one", n = 2, at = results[1].at}, results[1])
    assert.equal("EBUSY", results[2][2])
  end)

  it("one may take what is there while another waits: the waiting one begins anew", function()
    local f, a = open()
    a:sendall "one\ntwo"
    local results = tasks.run {
      function() return f:read("l", "l", "l") end,     -- has one and two, waits for more
      function()
        local first = f:read(4)
        a:sendall "\nthree\nfour\n"
        return first
      end,
    }
    assert.equal("one\n", results[2][2])
    assert.same({"two", "three", "four"}, {table.unpack(results[1], 2)})
  end)

  it("two may read and write one file at the same time", function()
    local S = support.scheduler(pending)
    local f, a = open "rw"
    local big = ("x"):rep(2000000)
    local back, forth
    S.spawn(function() back = f:read(#big) == big end)
    S.spawn(function() f:write(big):flush() end)
    S.spawn(function() a:sendall(big) end)
    S.spawn(function() forth = #collect(a, #big) == #big end)
    S.run()
    assert.is_true(back and forth)
  end)

  it("a socket's close leaves a file's read waiting; the file's close ends it with ECANCELED", function()
    local S = support.scheduler(pending)
    local f, a, b = open()
    local line, code
    S.spawn(function()
      line = f:read()
      code = fails("ECANCELED", f.read, f).code
    end)
    S.spawn(function()
      b:close()
      socket.sleep(0.002)
      a:sendall "still read\n"
      socket.sleep(0.005)
      f:close()
    end)
    S.run()
    assert.equal("still read", line)
    assert.equal("ECANCELED", code)
  end)

  it("a file's close ends its read with ECANCELED also where the socket stays open", function()
    local S = support.scheduler(pending)
    local f, a, b = open()
    local e
    S.spawn(function() e = fails("ECANCELED", f.read, f) end)
    S.spawn(function() f:close() end)
    S.run()
    assert.equal("file was closed while waiting", e.message)
    a:sendall "x"
    assert.equal("x", b:recv(1))
  end)

  it("a socket's close ends its own recv with ECANCELED also where a file keeps it open", function()
    local S = support.scheduler(pending)
    local f, a, b = open()
    local e
    S.spawn(function() e = fails("ECANCELED", b.recv, b, 1) end)
    S.spawn(function() b:close() end)
    S.run()
    assert.equal("recv", e.op)
    a:sendall "x\n"
    assert.equal("x", f:read())
    f:close()
  end)

  it("detach ends a file's read with ECANCELED", function()
    local S = support.scheduler(pending)
    local f, _, b = open()
    local code
    S.spawn(function() code = fails("ECANCELED", f.read, f).code end)
    S.spawn(function() socket.close(b:detach()) end)
    S.run()
    assert.equal("ECANCELED", code)
  end)

  it("a write that waits ends with ECANCELED when file and socket are closed", function()
    local S = support.scheduler(pending)
    local f, _, b = open("w", 0)
    local e
    S.spawn(function() e = fails("ECANCELED", f.write, f, ("x"):rep(10000000)) end)
    S.spawn(function()
      b:close()
      f:close()
    end)
    S.run()
    assert.is_true(e.sent > 0)
  end)

  it("<close> waits for the last bytes without stopping the others", function()
    local S = support.scheduler(pending)
    local a, b = pair()
    local order = {}
    local n = stuff(b)
    S.spawn(function()
      do
        local f <close> = b:makefile "w"
        f:write "last"
      end
      order[#order + 1] = "closed"
      b:close()
    end)
    S.spawn(function()
      order[#order + 1] = "reading"
      assert(#collect(a, n) == n)
      assert(collect(a) == "last")
    end)
    S.run()
    assert.same({"reading", "closed"}, order)
  end)

  it("an abandoned read frees its direction and loses nothing", function()
    local f, a = open()
    a:sendall "one\ntwo"
    local co, waits = tasks.begin(function() return f:read("l", "l") end)
    assert.is_true(waits)
    coroutine.close(co)
    a:sendall "\nthree\n"
    assert.same({"one", "two", "three"}, {f:read("l", "l", "l")})
  end)

  it("a flood does not keep the others waiting", function()
    local S = support.scheduler(pending)
    local a, b = pair()
    local p <close>, pid = peer(a, "while s:try_send(('x'):rep(65536)) do end")
    b:settimeout(0.2)
    local f = b:makefile()
    local turns = 0
    S.spawn(function() fails("ETIMEDOUT", f.read, f) end)
    S.spawn(function()
      for _ = 1, 10 do
        socket.sleep(0.001)
        turns = turns + 1
      end
    end)
    local start = now()
    S.spawn(function()
      while turns < 10 do socket.sleep(0.005) end
      assert.is_true(now() - start < 0.19)
    end)
    S.run()
    assert.equal(10, turns)
    support.kill(pid, "TERM")
    p:read "a"
  end)
end)

---------------------------------------------------------------- interruptions

-- Runs a program that reads a file, and interrupts it in its first read.
local function interrupted(code, before)
  local p <close>, pid = support.start(code, before)
  assert.equal("ready", p:read "l")
  assert.is_true(support.asleep(pid))
  support.kill(pid, "INT")
  return p:read "a"
end

describe("Ctrl-C", function()
  it("interrupts a read, which has lost nothing and can be repeated", function()
    for _, t in ipairs {"nil", "30"} do
      local text = interrupted(([[
        local socket = require "socket"
        local a, b = socket.socketpair()
        b:settimeout(%s)
        local f = b:makefile()
        a:sendall "one\nhalf a "
        io.stdout:setvbuf "no"
        print "ready"
        print(select(2, pcall(f.read, f, "l", "L", "n")))
        a:sendall "line\n12 "
        print(f:read("l", "L", "n"))]]):format(t))
      assert.equal("interrupted!\none\thalf a line\n\t12\n", (text:gsub("^[^\n]*interrupted!", "interrupted!")))
    end
  end)

  it("interrupts a read of bytes that never stop", function()
    local a, b = pair()
    local flood <close>, flood_pid = peer(a, "while s:try_send(('x'):rep(65536)) do end")
    b:set_inheritable(true)
    local p <close>, pid = support.start(([[
      local socket = require "socket"
      local b = socket.socket(nil, nil, nil, %d)
      local f = b:makefile()
      io.stdout:setvbuf "no"
      print "ready"
      local ok, e = pcall(f.read, f)
      b:close()
      print((tostring(e):gsub("^.*: ", "")))]]):format(b:fileno()))
    b:close()
    assert.equal("ready", p:read "l")
    socket.sleep(0.01)
    support.kill(pid, "INT")
    assert.equal("interrupted!\n", p:read "a")
    support.kill(flood_pid, "TERM")
    flood:read "a"
  end)

  it("interrupts a write and a close; the file may be closed again", function()
    local text = interrupted [[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local f = b:makefile("w", 100000)
      b:settimeout(0)
      local n = 0
      repeat local k = b:try_send(("x"):rep(1000)) n = n + (k or 0) until not k
      b:settimeout(nil)
      f:write "kept"
      io.stdout:setvbuf "no"
      print "ready"
      print((select(2, pcall(f.close, f)):gsub("^.*: ", "")))
      a:recv(n, socket.MSG_WAITALL)
      print(f:close(), a:recv(10))]]
    assert.equal("interrupted!\ntrue\tkept\n", text)
  end)
end)

describe("a system call that is interrupted", function()
  it("goes on, in every read and write", function()
    support.needs_strace(pending)
    for _, t in ipairs {"nil", "5", "0.02"} do
      local text, status = support.faulty(([[
        local socket = require "socket"
        local a, b = socket.socketpair()
        b:settimeout(%s)
        local f = b:makefile "rw"
        f:write(("x"):rep(10000), "end\n"):flush()
        assert(#a:recv(100000) == 10004)
        a:sendall "one\ntwo\n3 "
        a:shutdown(socket.SHUT_WR)
        print(f:read("l", "L", "n", "a"))]]):format(t), "recvfrom:error=EINTR:when=2+2", "sendto:error=EINTR:when=1+2")
      assert.equal("one\ttwo\n\t3\t \n", text)
      assert.equal(0, status)
    end
  end)

  it("that fails fails the read, which can be repeated", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local f = b:makefile "rw"
      a:sendall "one\n"
      local none, e = f:try_read("l", "n")
      print(none, e.code, e.op)
      a:sendall " 2 "
      print(f:read("l", "n"))]], "recvfrom:error=ECONNRESET:when=2")
    assert.equal("nil\tECONNRESET\tread\none\t2\n", text)
    assert.equal(0, status)
  end)

  it("that sends but a part is followed by another", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local f = b:makefile("w", 0)
      f:write(("x"):rep(1000))
      f = b:makefile("w", 5000)
      f:write(("y"):rep(1000)):flush()
      print "done"]], "sendto:retval=100:when=1", "sendto:retval=7:when=3")
    assert.equal("done\n", text)
    assert.equal(0, status)
  end)

  it("that fails to close is reported, by the last who closes", function()
    support.needs_strace(pending)
    local text = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local f = b:makefile()
      b:close()
      for _ = 1, 200 do -- the loader closes files too: the fault begins later
        if not socket.socket():try_close() then break end
      end
      local none, e = f:try_close()
      print(none, e.code, e.op, tostring(f))]], "close:error=EIO:when=100..101")
    assert.equal("nil\tEIO\tclose\tsocket file: <closed>\n", text)
  end)
end)
