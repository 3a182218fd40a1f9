-- makefile: sockets with the methods of Lua's files. Modes, buffers and closing; what reads, writes and waits is in
-- file_read_spec.lua and its like.

require "spec.helper"
local check = require "spec.support.check"
local files = require "spec.support.files"
local socket = require "socket"
local streams = require "spec.support.streams"
local support = require "spec.support"

local bad, fails, keep = check.bad, support.fails, support.keep
local open, pair = files.open, files.pair
local collect, stuff = streams.collect, streams.stuff
local packed = table.pack

after_each(support.close_kept)

describe("makefile's mode", function()
  it("is r by default; r, w, rw, wr, r+ and a b anywhere", function()
    for mode, can in pairs {r = "r", w = "w", rw = "rw", wr = "rw", ["r+"] = "rw", rb = "r", wb = "w",
      rwb = "rw", brw = "rw", ["r+b"] = "rw", ["rb+"] = "rw", [""] = false} do
      local a, b = pair()
      if not can then mode = nil end
      local f = b:makefile(mode)
      a:sendall "x"
      assert.equal(can ~= "w", (pcall(f.read, f, 1)))
      assert.equal(can == "w" or can == "rw", (pcall(f.write, f, "x")))
      f:close()
    end
  end)

  it("that is none is an argument error", function()
    local _, b = pair()
    for _, mode in ipairs {
      "", "b", "a", "x", "rwx", "r ", "R", "\0", "r\0", "+", "b+", "rr", "ww", "rbb", "w+", "rw+", "r++",
      "+r", "+rb", "b+r",
    } do
      assert.matches(("invalid mode '%s'"):format(mode:match "^%Z*"), bad(2, b.makefile, b, mode), 1, true)
    end
    bad(2, b.makefile, b, {})
    bad(2, b.makefile, b, true)
    assert.is_true(b:close())
    assert.equal(-1, b:fileno()) -- none of those holds it open
  end)
end)

describe("a buffer size", function()
  it("of 0 reads nothing ahead: recv goes on where a read ended", function()
    local f, a, b = open("r", 0)
    a:sendall "line\n12 345abcdef\nrest"
    assert.equal("line", f:read())
    assert.equal("12 ", b:recv(3))
    assert.equal("345", f:read(3))
    assert.equal("abc", b:recv(3))
    assert.equal("", f:read(0))
    assert.equal("def", b:recv(3))
    assert.equal("\n", f:read "L")
    assert.equal("rest", b:recv(10))
  end)

  it("of 0 keeps one byte back after a number: the one that ends it", function()
    local f, a, b = open("r", 0)
    a:sendall "12 345"
    assert.equal(12, f:read "n")
    assert.equal("345", b:recv(10))
    assert.equal(" ", f:read(1))
  end)

  it("of 0 sends every write at once", function()
    local f, a, b = open("w", 0)
    a:settimeout(0)
    f:write("one", 2, "")
    assert.equal("one2", a:recv(10))
    b:settimeout(0)
    local n = stuff(b)
    local e = fails("EAGAIN", f.write, f, "more")
    assert.equal(0, e.sent)
    assert.equal(n, #collect(a, n))
  end)

  it("of 1 sends when a line ends", function()
    local f, a = open("w", 1)
    a:settimeout(0)
    f:write("no ", "line ")
    fails("EAGAIN", a.recv, a, 100)
    f:write("until here\n", "and more")
    assert.equal("no line until here\nand more", a:recv(100))
    f:write "rest"
    fails("EAGAIN", a.recv, a, 100)
    f:close()
    assert.equal("rest", a:recv(100))
  end)

  it("greater than 1 is that of the buffers", function()
    local f, a = open("rw", 10)
    a:settimeout(0)
    f:write("12345", "67890")
    fails("EAGAIN", a.recv, a, 100)
    f:write "x"
    assert.equal("1234567890", a:recv(100))
    f:write "0123456789"
    assert.equal("x", a:recv(100))
    f:write "a text that is longer"
    assert.equal("0123456789a text that is longer", a:recv(100))
    a:sendall(("y"):rep(35) .. "\n")
    assert.equal(("y"):rep(35), f:read())
  end)

  it("reads at most that much ahead", function()
    local f, a, b = open("r", 10)
    a:sendall "0123456789abcdef"
    assert.equal("0", f:read(1))
    assert.equal("abcdef", b:recv(100))
    assert.equal("123456789", f:read(9))
  end)

  it("is 8192 by default, also for nil and negative ones", function()
    for _, size in ipairs {false, -1, -100, math.mininteger} do
      local f, a = open("w", size or nil)
      a:settimeout(0)
      f:write(("x"):rep(8192))
      fails("EAGAIN", a.recv, a, 1)
      f:write "x"
      assert.equal(8192, #a:recv(100000))
      f:close()
    end
  end)

  it("that is too large is an argument error", function()
    local _, b = pair()
    for _, size in ipairs {1 << 30, math.maxinteger} do
      bad(3, b.makefile, b, "r", size)
    end
    for _, size in ipairs {"x", {}, 1.5} do assert.is_false(pcall(b.makefile, b, "r", size)) end
  end)
end)

describe("the buffers", function()
  it("are small while little is read and written at a time", function()
    local ends, made = {}, {}
    for i = 1, 50 do
      local a, b = keep(socket.socketpair())
      a:sendall "line\n"
      ends[i], made[i] = a, b:makefile "rw"
    end
    collectgarbage()
    local before = collectgarbage "count"
    for i, f in ipairs(made) do
      assert.equal("line", f:read())
      f:write "answer\n":flush()
      ends[i]:recv(10)
    end
    collectgarbage()
    local each = (collectgarbage "count" - before) / #made
    assert.is_true(each < 2.5, each)
  end)

  it("let one system call read many lines once they have grown, and one send many writes", function()
    support.needs_strace(pending)
    local calls = support.calls [[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local f = b:makefile "rw"
      a:sendall(("line\n"):rep(300))
      for _ = 1, 300 do f:read() end
      a:sendall(("line\n"):rep(1000))
      mark "read"
      for _ = 1, 1000 do f:read() end
      mark "write"
      for _ = 1, 1000 do f:write("line\n") end
      f:close()
      mark()
    ]]
    local function count(list, name)
      local n = 0
      for _, c in ipairs(list) do n = n + (c.call == name and 1 or 0) end
      return n
    end
    assert.equal(1, count(calls.read, "recvfrom"))
    assert.equal(1, count(calls.write, "sendto"))
  end)
end)

---------------------------------------------------------------- closing

describe("socket and file", function()
  it("are closed independently: the socket first", function()
    local before = support.descriptors()
    local a, b = socket.socketpair()
    local f = b:makefile "rw"
    local fd = b:fileno()
    assert.is_true(b:close())
    assert.is_true(b:close())
    fails("EBADF", b.recv, b, 1)
    fails("EBADF", b.makefile, b)
    assert.equal("socket: <closed>", tostring(b))
    assert.equal(fd, f:fileno())
    a:sendall "still\nthere"
    assert.equal("still", f:read())
    f:write("and back"):flush()
    assert.equal("and back", a:recv(100))
    assert.is_true(f:close())
    assert.equal("there", a:try_recv(100) or "there") -- a reset, or the end
    a:close()
    assert.equal(before, support.descriptors())
  end)

  it("are closed independently: the file first", function()
    local before = support.descriptors()
    local a, b = socket.socketpair()
    local f = b:makefile "rw"
    f:write "last words"
    assert.is_true(f:close())
    assert.equal("last words", a:recv(100))
    b:sendall "and more"
    assert.equal("and more", a:recv(100))
    assert.is_true(b:close())
    assert.is_nil(a:recv(1))
    a:close()
    assert.equal(before, support.descriptors())
  end)

  it("may be several files", function()
    local before = support.descriptors()
    local a, b = socket.socketpair()
    local r, w, u = b:makefile "r", b:makefile "w", b:makefile("rw", 0)
    b:close()
    a:sendall "one\ntwo\n"
    assert.equal("one", r:read())
    r:close()
    assert.equal(w:fileno(), u:fileno())
    u:close()
    w:write("over"):flush()
    assert.equal("over", a:recv(10))
    w:close()
    assert.equal(-1, w:fileno())
    a:settimeout(5)
    assert.is_nil((a:try_recv(1)))
    a:close()
    assert.equal(before, support.descriptors())
  end)

  it("end with a block, by <close>", function()
    local before = support.descriptors()
    local a, b = socket.socketpair()
    do
      local s <close> = b
      local f <close> = s:makefile "w"
      f:write "sent at the end"
    end
    assert.equal("sent at the end", a:recv(100))
    assert.is_nil(a:recv(1))
    assert.equal(-1, b:fileno())
    a:close()
    assert.equal(before, support.descriptors())
  end)

  it("end with a block that fails: closed, the error unchanged, and what was not flushed is not sent", function()
    local before = support.descriptors()
    local a, b = socket.socketpair()
    local f
    local ok, e = pcall(function()
      local s <close> = b
      f = s:makefile "w"
      local g <close> = f
      g:write("flushed"):flush()
      g:write " half a mess"
      error("my error", 0)
    end)
    assert.is_false(ok)
    assert.equal("my error", e)
    assert.equal("socket file: <closed>", tostring(f))
    assert.equal("flushed", collect(a))
    a:close()
    assert.equal(before, support.descriptors())
  end)

  it("end with a block even where the last bytes cannot be sent", function()
    for _, t in ipairs {0, 0.02} do
      local before = support.descriptors()
      local a, b = socket.socketpair()
      b:settimeout(t)
      stuff(b)
      local f
      fails(t == 0 and "EAGAIN" or "ETIMEDOUT", function()
        f = b:makefile "w"
        local _ <close> = b
        local g <close> = f
        g:write "too much"
      end)
      assert.equal("socket file: <closed>", tostring(f))
      assert.equal(-1, b:fileno())
      a:close()
      assert.equal(before, support.descriptors())
    end
  end)

  it("a close that timed out has lost nothing and can be repeated", function()
    for _, t in ipairs {0, 0.02} do
      local f, a, b = open("w", 100000)
      b:settimeout(t)
      local n = stuff(b)
      f:write(("z"):rep(50000))
      b:close()
      local none, e = f:try_close()
      assert.is_nil(none)
      assert.equal(t == 0 and "EAGAIN" or "ETIMEDOUT", e.code)
      assert.is_true(f:fileno() >= 0)
      assert.equal(n, #collect(a, n))
      assert.is_true(f:close())
      assert.is_true(collect(a) == ("z"):rep(50000))
    end
  end)

  it("after detach the descriptor is the caller's, and the files are of no use but to be closed", function()
    local before = support.descriptors()
    local a, b = socket.socketpair()
    local f, g = b:makefile "rw", b:makefile "w"
    a:sendall "one\ntwo\nthr"
    assert.equal("one", f:read())
    f:write "nowhere"
    local fd = b:detach()
    assert.equal(-1, f:fileno())
    for _, format in ipairs {"l", 1, "n", 0} do fails("EBADF", f.read, f, format) end
    fails("EBADF", f.read, f)
    fails("EBADF", f.write, f, "x")
    fails("EBADF", f.flush, f)
    fails("EBADF", f.close, f)
    assert.equal("socket file: <closed>", tostring(f))
    assert.is_true(g:close())
    assert.is_true(b:close())
    local c = socket.socket(nil, nil, nil, fd)
    c:sendall "alive"
    assert.equal("alive", a:recv(10))
    c:close()
    a:close()
    assert.equal(before, support.descriptors())
  end)

  it("collected files send what they can and let go of the socket", function()
    local before = support.descriptors()
    local a, b = socket.socketpair()
    b:makefile("w"):write "forgotten"
    b:close()
    collectgarbage()
    collectgarbage()
    assert.equal("forgotten", collect(a))
    a:close()
    assert.equal(before, support.descriptors())
  end)

  it("a collected file warns if its bytes are lost, a collected socket if nobody closed it", function()
    local text, status = support.run [[
      local socket = require "socket"
      warn "@on"
      local a, b = socket.socketpair()
      b:settimeout(0)
      while b:try_send(("x"):rep(1000)) do end
      b:makefile("w"):write "lost"
      collectgarbage()
      collectgarbage()
      print "--"
      b:makefile("w"):write ""
      collectgarbage()
      b:close()
      do local c, d = socket.socketpair() c:close() local f = d:makefile() end
      collectgarbage()
      collectgarbage()
      a:close()]]
    assert.equal(0, status)
    assert.matches("^Lua warning: socket: unflushed data of a collected file lost\n%-%-\n"
      .. "Lua warning: socket: unclosed socket %(fd=%d+, family=AF_UNIX, type=SOCK_STREAM%) collected\n$", text)
  end)

  it("the end of the program closes both, in whatever order", function()
    local text, status = support.run [[
      local socket = require "socket"
      A, B = socket.socketpair()
      F = B:makefile "rw"
      F:write "never flushed"
      B:close()
      C, D = socket.socketpair()
      G = D:makefile "rw"
      G:write "x"
      io.write "end"]]
    assert.equal("end", text)
    assert.equal(0, status)
  end)

  it("leave no descriptor behind, whatever goes wrong", function()
    local before = support.descriptors()
    for i = 1, 200 do
      local a, b = socket.socketpair()
      local f = b:makefile("rw", i % 3)
      if i % 2 == 0 then b:close() end
      pcall(f.read, f, "x")
      pcall(f.write, f, {})
      b:settimeout(0)
      pcall(f.read, f)
      if i % 5 == 0 then a:close() end
      pcall(function() f:write("x\n"):flush() end)
      pcall(f.close, f)
      b:close()
      a:close()
    end
    assert.equal(before, support.descriptors())
  end)
end)

describe("a closed file", function()
  it("fails with EBADF in every method but fileno and tostring", function()
    local f, a = open "rw"
    a:sendall "unread\n"
    assert.equal("unread", f:read())
    f:close()
    for name, arg in pairs {read = "l", write = "x", flush = false, close = false, setvbuf = "no"} do
      local e = fails("EBADF", f[name], f, arg or nil)
      assert.equal(name, e.op)
      assert.equal("file is closed", e.message)
      assert.equal(socket.error, e.class)
      local none, e2 = f["try_" .. name](f, arg or nil)
      assert.is_nil(none)
      assert.equal("EBADF", e2.code)
    end
    fails("EBADF", f:lines())
    fails("ESPIPE", f.seek, f)
    assert.equal(-1, f:fileno())
    assert.equal("socket file: <closed>", tostring(f))
    do local _ <close> = f end
    assert.is_false(pcall(f.read, f, "x")) -- wrong arguments are wrong first
  end)

  it("gives nothing of what it had read", function()
    local f, a = open()
    a:sendall "one\ntwo\n"
    assert.equal("one", f:read())
    f:close()
    fails("EBADF", f.read, f)
  end)
end)

describe("files", function()
  it("say what they are", function()
    local f, _, b = open()
    assert.equal(("socket file: <fd=%d>"):format(b:fileno()), tostring(f))
    assert.equal(b:fileno(), f:fileno())
    assert.is_false(getmetatable(f))
    assert.is_nil(io.type(f))
    f:close()
  end)

  it("have no positions: seek is ESPIPE", function()
    local f = open()
    for _, args in ipairs {{}, {"set"}, {"cur", 0}, {"end"}} do
      local e = fails("ESPIPE", f.seek, f, table.unpack(args))
      assert.equal("seek", e.op)
    end
    local none, e = f:try_seek "set"
    assert.is_nil(none)
    assert.equal("ESPIPE", e.code)
    f:close()
  end)

  it("are no other objects, and no others are files", function()
    local f, _, b = open "rw"
    for _, name in ipairs {"read", "lines", "write", "flush", "close", "setvbuf", "seek", "fileno"} do
      for _, v in ipairs {b, io.stdin, socket.buffer(400), {}, "x", 1, false} do
        local ok, e = pcall(f[name], v, "no")
        assert.is_false(ok)
        assert.matches("socket file expected", e)
      end
      assert.is_false(pcall(f[name]))
    end
    for _, v in ipairs {f, io.stdin, {}, "x"} do assert.is_false(pcall(b.makefile, v)) end
    assert.is_false(pcall(b.recv, f, 1))
    f:close()
  end)

  it("have try_ forms, which return nil and the error", function()
    local f, a, b = open "rw"
    b:settimeout(0)
    local none, e = f:try_read "l"
    assert.same({nil, "EAGAIN"}, {none, e.code})
    a:sendall "x\n"
    assert.equal("x", f:try_read "l")
    assert.equal(f, f:try_write "y")
    assert.equal(f, f:try_flush())
    assert.is_true(f:try_setvbuf "no")
    a:shutdown(socket.SHUT_WR)
    assert.same({n = 1}, packed(f:try_read()))
    assert.is_true(f:try_close())
    b:try_makefile():close()
    b:close()
    none, e = b:try_makefile()
    assert.is_nil(none)
    assert.equal("EBADF", e.code)
    assert.is_false(pcall(f.try_read, f, "x"))
  end)

  describe("may be used by a finalizer, which runs in the middle of another use:", function()
    -- f(...), at whose first allocation the finalizer runs.
    local function with_finalizer(finalizer, f, ...)
      local ran = false
      setmetatable({}, {__gc = function()
        ran = true
        local ok, e = pcall(finalizer)
        if not ok then print(e) end
      end})
      collectgarbage "stop"
      collectgarbage "restart"
      local r = packed(pcall(f, ...))
      collectgarbage "stop"
      assert.is_true(ran)
      return r
    end

    local former
    before_each(function() former = collectgarbage "generational" end)
    after_each(function()
      collectgarbage(former)
      collectgarbage "restart"
    end)

    for _, size in ipairs {16, -1} do
      it("reads of lines, size " .. size, function()
        local f, a = open("r", size)
        local got = {}
        for i = 1, 60 do a:sendall(("line%d"):format(i):rep(i) .. "\n") end
        a:shutdown(socket.SHUT_WR)
        collectgarbage() -- so that every line is a new string
        local function read(...)
          local r = with_finalizer(function() got[#got + 1] = f:read() end, f.read, f, ...)
          assert.is_true(r[1], r[2])
          for i = 2, r.n do got[#got + 1] = r[i] end
        end
        while #got < 60 do
          read()
          read("l", "l")
          read "L"
        end
        for i = 1, 60 do
          assert.equal(("line%d"):format(i):rep(i), (got[i]:gsub("\n", "")))
        end
        assert.is_nil(f:read())
      end)
    end

    it("reads of counts greater than the buffer", function()
      local f, a = open("r", 16)
      local bytes = {}
      for i = 1, 20000 do bytes[i] = string.char(i % 251) end
      bytes = table.concat(bytes)
      a:sendall(bytes)
      local inner
      local r = with_finalizer(function() inner = f:read(9000) end, f.read, f, 1000)
      assert.is_true(inner .. r[2] == bytes:sub(1, 10000))
      assert.is_true(f:read(10000) == bytes:sub(10001))
    end)

    it("writes", function()
      local f, a = open("w", 100)
      local r = with_finalizer(function() f:write "first " end, f.write, f, "second")
      assert.same({true, f, n = 2}, r)
      r = with_finalizer(function() f:write(("x"):rep(90)) end, f.setvbuf, f, "full", 200)
      assert.same({true, true, n = 2}, r)
      f:close()
      assert.equal("first second" .. ("x"):rep(90), a:recv(1000))
    end)

    it("closes", function()
      local f, a, b = open "rw"
      b:settimeout(0)
      a:sendall "one\ntwo\nthree"
      assert.equal("one", f:read())
      assert.same({true, "two", n = 2}, with_finalizer(function() f:close() end, f.read, f))
      fails("EBADF", f.read, f)
      f = b:makefile "w"
      local r = with_finalizer(function() f:close() end, f.write, f, "lost")
      assert.is_false(r[1])
      assert.equal("ECANCELED", r[2].code)
    end)
  end)
end)
