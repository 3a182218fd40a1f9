-- Files on sockets: write, flush and setvbuf.

require "spec.helper"
local check = require "spec.support.check"
local files = require "spec.support.files"
local socket = require "socket"
local streams = require "spec.support.streams"
local support = require "spec.support"

local bad, fails = check.bad, support.fails
local open, pair, peer = files.open, files.pair, files.peer
local collect, stuff = streams.collect, streams.stuff
local now = socket.monotonic

after_each(support.close_kept)

describe("write", function()
  it("chains, and takes strings, numbers and buffers", function()
    local f, a = open "w"
    local buffer = socket.buffer "buffer"
    f:write("text ", 12, " ", 1.5, " ", -0.0, " ", math.mininteger, " "):write(buffer, buffer:view(1, 3)):flush()
    assert.equal("text 12 1.5 -0.0 -9223372036854775808 bufferbuf", a:recv(1000))
    assert.equal(f, f:write())
    assert.equal(f, f:write "")
    f:close()
    assert.is_nil((function() a:settimeout(0.01) return a:try_recv(1) end)())
  end)

  it("refuses other values, and has written nothing then", function()
    local f, a = open "w"
    for _, v in ipairs {{}, false, print, a, f} do
      bad(3, f.write, f, "text", v)
    end
    assert.is_false(pcall(f.write, f, nil))
    f:close()
    a:settimeout(0.01)
    fails("ETIMEDOUT", a.recv, a, 1)
  end)

  it("keeps the order of short and long ones", function()
    local a, b = pair()
    local p <close> = peer(a, [[
      local sum, n = 0, 0
      for data in function() return s:recv(65536) end do
        for i = 1, #data do sum, n = (sum * 31 + data:byte(i)) % 1000003, n + 1 end
      end
      print(n, sum)]])
    local f = b:makefile("w", 1000)
    local pieces = {}
    for i = 1, 200 do pieces[i] = string.char(i):rep(i % 7 == 0 and math.random(2000, 9000) or math.random(0, 600)) end
    for i = 1, 200, 4 do f:write(table.unpack(pieces, i, i + 3)) end
    f:close()
    b:close()
    local sum, n = 0, 0
    for _, piece in ipairs(pieces) do
      for i = 1, #piece do sum, n = (sum * 31 + piece:byte(i)) % 1000003, n + 1 end
    end
    assert.equal(("%d\t%d\n"):format(n, sum), p:read "a")
  end)

  it("sends megabytes", function()
    for _, size in ipairs {0, 1, -1} do
      local a, b = pair()
      local p <close> = peer(a, [[
        local n = 0
        for data in function() return s:recv(65536) end do n = n + #data end
        print(n)]])
      local f = b:makefile("w", size)
      f:write(("0123456789"):rep(500000), "\n")
      f:close()
      b:close()
      assert.equal("5000001\n", p:read "a")
    end
  end)

  it("says in e.sent how much it took over; the rest can be written later", function()
    for _, t in ipairs {0, 0.02, 0.06} do
      for _, size in ipairs {0, 1, 100, 8192} do
        local f, a, b = open("w", size)
        local first, second = ("a"):rep(300000), ("b"):rep(300000) .. "\n"
        b:settimeout(t)
        local e = fails(t == 0 and "EAGAIN" or "ETIMEDOUT", f.write, f, first, second)
        assert.equal("write", e.op)
        assert.equal(t > 0, e:is(socket.timeout))
        assert.is_true(e.sent > 0 and e.sent < 600001)
        local p <close> = peer(a, [[
          local pieces = {}
          for data in function() return s:recv(65536) end do pieces[#pieces + 1] = data end
          local all = table.concat(pieces)
          print(#all, all == ("a"):rep(300000) .. ("b"):rep(300000) .. "\n")]])
        b:settimeout(5)
        f:write(((first .. second):sub(e.sent + 1)))
        f:close()
        b:close()
        assert.equal("600001\ttrue\n", p:read "a")
      end
    end
  end)

  it("is bounded by one deadline, also while a reader takes a little at a time", function()
    for _, kind in ipairs {"a Unix stream", "TCP"} do
      local a, b = pair(kind)
      a:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
      b:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
      local p <close>, pid = peer(a, [[
        for _ = 1, 400 do
          s:recv(4000)
          socket.sleep(0.01)
        end]])
      b:settimeout(0.2)
      local f = b:makefile("w", kind == "TCP" and 0 or nil)
      local bytes = ("x"):rep(20 << 20)
      local start = now()
      fails("ETIMEDOUT", f.write, f, bytes)
      assert.is_true(now() - start >= 0.2 and now() - start < 0.7)
      support.kill(pid, "TERM")
      p:read "a"
      pcall(f.close, f)
    end
  end)

  it("on a file for reading only, and read on one for writing only, fail with EBADF", function()
    local a, b = pair()
    local r, w = b:makefile "r", b:makefile "w"
    local e = fails("EBADF", r.write, r, "x")
    assert.equal("write", e.op)
    assert.equal("file is not open for writing", e.message)
    e = fails("EBADF", w.read, w)
    assert.equal("read", e.op)
    assert.equal("file is not open for reading", e.message)
    fails("EBADF", w.lines(w))
    assert.equal(r, r:flush())
    a:close()
  end)

  it("to a peer that is gone is EPIPE or ECONNRESET, never a signal", function()
    local text, status = support.run([[
      local socket = require "socket"
      local gone = {EPIPE = true, ECONNRESET = true}
      for _, size in ipairs {0, 1, 8192} do
        local a, b = socket.socketpair()
        local f = b:makefile("w", size)
        a:close()
        local ok, e = pcall(function() f:write("x\n"):flush() end)
        assert(not ok and gone[e.code])
        local g = b:makefile("w")
        g:write "more"
        ok, e = pcall(g.close, g)
        assert(not ok and gone[e.code] and e.op == "close")
        assert(tostring(g) == "socket file: <closed>")
        pcall(f.close, f)
        b:close()
      end
      print "alive"]], {before = support.default_signals()})
    assert.equal("alive\n", text)
    assert.equal(0, status)
  end)
end)

describe("flush", function()
  it("sends what waits, and can be repeated after a timeout", function()
    local f, a, b = open("w", 100000)
    b:settimeout(0.01)
    local n = stuff(b)
    f:write(("y"):rep(90000))
    local e = fails("ETIMEDOUT", f.flush, f)
    assert.equal("flush", e.op)
    assert.equal(n, #collect(a, n))
    assert.equal(f, f:flush())
    assert.is_true(collect(a, 90000) == ("y"):rep(90000))
    assert.equal(f, f:flush())
  end)
end)

describe("setvbuf", function()
  it("changes when writes are sent", function()
    local f, a = open "w"
    a:settimeout(0)
    assert.is_true(f:setvbuf "no")
    f:write "at once"
    assert.equal("at once", a:recv(100))
    assert.is_true(f:setvbuf "line")
    f:write "no"
    fails("EAGAIN", a.recv, a, 100)
    f:write "w\n"
    assert.equal("now\n", a:recv(100))
    assert.is_true(f:setvbuf("full", 20000))
    f:write(("x"):rep(20000))
    fails("EAGAIN", a.recv, a, 1)
    f:setvbuf("full", 40000) -- what waits is kept
    f:write(("x"):rep(20000))
    fails("EAGAIN", a.recv, a, 1)
    f:setvbuf "no"
    f:write "y"
    assert.is_true(collect(a, 40001) == ("x"):rep(40000) .. "y")
  end)

  it("refuses other modes and sizes", function()
    local f = open "w"
    for _, args in ipairs {{}, {"some"}, {1}, {"full", 0}, {"full", -1}, {"line", 1 << 30}, {"full", 1.5}} do
      assert.is_false(pcall(f.setvbuf, f, table.unpack(args)))
    end
    f:close()
    fails("EBADF", f.setvbuf, f, "no")
  end)
end)
