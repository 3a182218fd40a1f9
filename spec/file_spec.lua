-- makefile: sockets with the methods of Lua's files. What a file of Lua's does with the same bytes is the measure.

require "spec.helper"
local socket = require "socket"
local support = require "spec.support"
local tasks = require "spec.support.tasks"

local fails, keep = support.fails, support.keep
local now = socket.monotonic

after_each(function()
  socket.setwaithook(nil)
  support.close_kept()
end)

local PAIRS = {
  ["a Unix stream"] = socket.socketpair,
  TCP = function() return support.tcp() end,
}

-- The process at the other end, which does not outlive a test that fails.
local function peer(s, code) return support.peer(s, "s:settimeout(10) " .. code) end

local function pair(kind) return keep(PAIRS[kind or "a Unix stream"]()) end

-- A file on one end and the other end.
local function open(mode, size, kind)
  local a, b = pair(kind)
  return b:makefile(mode, size), a, b
end

-- A file on a stream of these bytes, and no more.
local function file_of(bytes, size)
  local f, a = open("r", size)
  a:sendall(bytes):shutdown(socket.SHUT_WR)
  return f
end

-- The same as a file of Lua's.
local function lua_file(bytes)
  local f = io.tmpfile()
  f:write(bytes)
  f:seek "set"
  return f
end

local function collect(s, n)
  local pieces, count = {}, 0
  while not n or count < n do
    local data = s:recv(n and n - count or 65536)
    if not data then break end
    pieces[#pieces + 1] = data
    count = count + #data
  end
  return table.concat(pieces)
end

-- Runs f in a coroutine whose every wait to read makes `more` happen.
local function feeding(more, f, ...)
  socket.setwaithook(function(_, direction)
    assert(direction == "r")
    more()
    return true
  end)
  local co = coroutine.create(f)
  local r = table.pack(coroutine.resume(co, ...))
  socket.setwaithook(nil)
  assert(coroutine.status(co) == "dead")
  assert(r[1], r[2])
  return table.unpack(r, 2, r.n)
end

-- A function that sends one more piece of the bytes each time, of at most `most`, and then ends the stream.
local function feeder(s, bytes, most)
  local i = 1
  return function()
    if i > #bytes then
      s:shutdown(socket.SHUT_WR)
    else
      local n = most > 1 and math.random(most) or 1
      s:sendall(bytes:sub(i, i + n - 1))
      i = i + n
    end
  end
end

-- f(...) fails for its n-th argument; a method's first is its object.
local function bad(n, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.matches("bad argument #" .. n, e, nil, true)
end

-- Fills what a socket and its peer can hold.
local function stuff(s)
  local t = s:gettimeout()
  s:settimeout(0)
  local n = 0
  repeat
    local sent = s:try_send(("x"):rep(4096))
    n = n + (sent or 0)
  until not sent
  s:settimeout(t)
  return n
end

---------------------------------------------------------------- reading as Lua's files do

local NUMERALS = {
  "0", "7", "42", "-42", "+42", "007", "0.5", ".5", "5.", "-.5e1", "1e5", "1E+5", "1e-5", "1.5e300", "1e999", "0x10",
  "0XfF", "-0x.8p1", "0x1P-4", "0x", "0x.", "1e", "1e+", ".", "-", "+", "", "+-1", "--1", "1.2.3", "12abc", "0x1g",
  "nan", "inf", "infinity", "1_000", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
  "0xffffffffffffffff", "0x123456789abcdef01", "1,5", "1\0" .. "2", "\0001", "e5", "0e0", "00x1", "x10",
  ("1"):rep(199), ("1"):rep(200), ("1"):rep(201), ("0"):rep(300), "0." .. ("3"):rep(250),
}

local SPACES = {"", " ", "\t", "\n", "\r\n", "\v\f", "  \n\n ", (" "):rep(500)}

local function random_text(n)
  local makers = {
    function() return NUMERALS[math.random(#NUMERALS)] end,
    function() return SPACES[math.random(#SPACES)] end,
    function() return "\n" end,
    function() return "\r\n" end,
    function() return "\0" end,
    function() return string.char(math.random(0, 255)) end,
    function() return ("word "):rep(math.random(0, 30)) end,
    function() return ("line"):rep(math.random(0, 400)) .. "\n" end,
  }
  local pieces = {}
  for i = 1, n do pieces[i] = makers[math.random(#makers)]() end
  return table.concat(pieces)
end

local function random_format()
  local r = math.random(16)
  return r <= 4 and "l" or r <= 6 and "L" or r <= 10 and "n" or r == 11 and (math.random(20) == 1 and "a" or "l")
    or r == 12 and 0 or r == 13 and "*l" or r == 14 and math.random(1, 3000) or math.random(1, 20)
end

local function random_formats()
  local formats = {}
  for i = 1, math.random(0, 5) do formats[i] = random_format() end
  return formats
end

local function packed(...) return table.pack(...) end

-- Reads a stream and Lua's file of the same bytes with the same formats until both have ended.
local function same_reads(f, bytes)
  local expected <close> = lua_file(bytes)
  local ends, history = 0, {}
  repeat
    local formats = random_formats()
    local want = packed(expected:read(table.unpack(formats)))
    local got = packed(f:read(table.unpack(formats)))
    history[#history + 1] = table.concat(formats, ",")
    if want.n ~= got.n then assert.same(want, got, table.concat(history, " / ")) end
    for i = 1, want.n do
      if want[i] ~= got[i] and (want[i] == want[i] or got[i] == got[i]) or math.type(want[i]) ~= math.type(got[i]) then
        assert.same(want, got, table.concat(history, " / "))
      end
    end
    ends = expected:read(0) == nil and ends + 1 or 0
  until ends > 3
end

describe("a socket's file", function()
  for kind in pairs(PAIRS) do
    describe("over " .. kind, function()
      it("is read like a file of Lua's: the same formats give the same values", function()
        for _, size in ipairs {0, 1, 2, 7, 100, 8192, -1} do
          for _ = 1, size == 0 and 3 or 12 do
            local bytes = random_text(math.random(0, 60))
            local f, a = open("r", size, kind)
            a:sendall(bytes):shutdown(socket.SHUT_WR)
            same_reads(f, bytes)
            f:close()
          end
        end
      end)

      it("is read so wherever the stream is cut into pieces", function()
        for round = 1, 24 do
          local bytes = random_text(math.random(0, 40))
          local f, a = open("r", ({0, 3, -1})[round % 3 + 1], kind)
          feeding(feeder(a, bytes, round <= 4 and 1 or 2 ^ (round // 3) // 1), same_reads, f, bytes)
          f:close()
        end
      end)

      it("writes, and reads what comes back", function()
        local f, a = open("rw", nil, kind)
        assert.equal(f, f:write("one ", 2, " ", 3.5, "\n"))
        assert.equal(f, f:flush())
        assert.equal("one 2 3.5\n", a:recv(100))
        a:sendall "back\n"
        assert.equal("back", f:read())
        assert.is_true(f:close())
      end)
    end)
  end

  it("reads a line without its end, with it, all, numbers, counts, and several at once", function()
    local f = file_of("one\ntwo\n 3 0x10 rest\n\nlast bytes")
    assert.equal("one", f:read())
    assert.equal("two\n", f:read "L")
    assert.same({3, 16, " rest"}, {f:read("n", "n", "l")})
    assert.equal("", f:read "l")
    assert.equal("la", f:read(2))
    assert.same({"st", "", " bytes", ""}, {f:read(2, 0, "a", "a")})
    assert.same({n = 1}, packed(f:read(0)))
    assert.same({n = 1}, packed(f:read "l"))
    assert.same({n = 2, [1] = ""}, packed(f:read("a", "l", "l")))
    assert.same({n = 1}, packed(f:read "n"))
  end)

  it("takes the first letter of a format, after a star, as Lua does", function()
    local f = file_of("one\ntwo\n3 rest")
    assert.equal("one", f:read "*line")
    assert.equal("two\n", f:read "*L")
    assert.equal(3, f:read "number")
    assert.equal(" rest", f:read "*all")
  end)

  it("knows integers and floats", function()
    local f = file_of "1 1.0 1e0 0x1 0x1p0 9223372036854775807 9223372036854775808 "
    local types = {}
    for i = 1, 7 do types[i] = math.type(f:read "n") end
    assert.same({"integer", "float", "float", "integer", "float", "integer", "float"}, types)
  end)

  it("reads numerals of every shape, cut at every place, as Lua does", function()
    for _, numeral in ipairs(NUMERALS) do
      for _, rest in ipairs {"", " ", "\n", "x", "-"} do
        local bytes = " " .. numeral .. rest .. "tail"
        local expected <close> = lua_file(bytes)
        local want, tail = expected:read "n", expected:read "a"
        for _, size in ipairs {0, -1} do
          local f, a = open("r", size)
          local got, after = feeding(feeder(a, bytes, 1), function() return f:read "n", f:read "a" end)
          assert.equal(want, got, numeral)
          assert.equal(math.type(want), math.type(got))
          assert.equal(tail, after)
          f:close()
          a:close()
        end
      end
      support.close_kept()
    end
  end)

  it("leaves NULs and carriage returns alone", function()
    local f = file_of "a\0b\r\n\r\n\0\n\r"
    assert.same({"a\0b\r", "\r\n", "\0", "\r"}, {f:read("l", "L", "l", "l")})
    assert.is_nil(f:read())
  end)

  it("gives the last line although nothing ends it", function()
    assert.same({"one", "two"}, {file_of("one\ntwo"):read("l", "l")})
    assert.same({"one\n", "two"}, {file_of("one\ntwo"):read("L", "L")})
    assert.same({"one", nil}, {file_of("one\n"):read("l", "l")})
  end)

  it("reads lines of any length", function()
    for _, n in ipairs {8191, 8192, 8193, 16384, 100000, 10 << 20} do
      local a, b = pair()
      local line = ("0123456789abcde"):rep(n // 15 + 1):sub(1, n)
      local p <close> = peer(a, ([[
        s:sendall(("0123456789abcde"):rep(%d // 15 + 1):sub(1, %d) .. "\nnext")]]):format(n, n))
      local f = b:makefile()
      assert.is_true(f:read() == line)
      assert.equal("next", f:read "a")
      assert.equal("", p:read "a")
      f:close()
    end
  end)

  it("gives the memory of a long line back", function()
    local a, b = pair()
    local p <close> = peer(a, [[
      for _ = 1, 3 do s:sendall(("x"):rep(4 << 20) .. "\n") end
      s:sendall "short\n"
      s:recv(1)]])
    local f = b:makefile()
    collectgarbage()
    local before = collectgarbage "count"
    for _ = 1, 3 do assert.equal(4 << 20, #f:read()) end
    assert.equal("short", f:read())
    collectgarbage()
    assert.is_true(collectgarbage "count" - before < 200)
    b:close()
    f:close()
    p:read "a"
  end)

  it("reads counts greater than its buffer, and what there is of them at the end", function()
    local a, b = pair()
    local p <close> = peer(a, [[for _ = 1, 300 do s:sendall(("0123456789"):rep(1000)) end]])
    local f = b:makefile()
    assert.is_true(f:read(1000000) == ("0123456789"):rep(100000))
    assert.is_true(f:read(1999990) == ("0123456789"):rep(199999))
    assert.equal("0123456789", f:read(1 << 20))
    assert.is_nil(f:read(1))
    assert.equal("", p:read "a")
  end)

  it("read(0) waits until it knows whether there is more, and takes nothing", function()
    for _, size in ipairs {0, 1, -1} do
      local f, a, b = open("r", size)
      b:settimeout(0)
      fails("EAGAIN", f.read, f, 0)
      a:sendall "x"
      assert.equal("", f:read(0))
      assert.equal("", f:read(0))
      assert.same({"", "x"}, {f:read(0, 1)})
      a:close()
      assert.is_nil(f:read(0))
    end
  end)

  it("refuses formats that are none", function()
    local f = file_of "bytes"
    for _, format in ipairs {"x", "", "*", "*x", "5", "\0", {}, false, print, -1, 1.5, 1 << 40, math.mininteger,
      math.huge} do
      bad(3, f.read, f, "l", format)
      bad(2, f.lines, f, format)
    end
    assert.is_false(pcall(f.read, f, nil))
    assert.equal("bytes", f:read "a") -- nothing was taken
  end)

  it("takes as many formats as fit on Lua's stack", function()
    local f = file_of(("x"):rep(5000))
    local formats = {}
    for i = 1, 5000 do formats[i] = 1 end
    assert.equal(5000, select("#", f:read(table.unpack(formats))))
    assert.equal(1, select("#", f:read(table.unpack(formats))))
    for i = 1, 600000 do formats[i] = 0 end
    local ok, e = pcall(function() return f:read(table.unpack(formats)) end)
    assert.is_false(ok)
    assert.matches("stack overflow", e)
  end)
end)

describe("lines", function()
  it("gives line after line, to the end and nothing after it", function()
    local f = file_of "one\n\nthree\nlast"
    local lines = {}
    for line in f:lines() do lines[#lines + 1] = line end
    assert.same({"one", "", "three", "last"}, lines)
    assert.is_nil(f:lines()())
    assert.matches("fd=%d+", tostring(f)) -- the loop closes nothing
  end)

  it("takes formats", function()
    local expected <close> = lua_file "1 one\n2 two\n3 three\n"
    local f = file_of "1 one\n2 two\n3 three\n"
    local want, got = {}, {}
    for n, text in expected:lines("n", "L") do want[#want + 1] = {n, text} end
    for n, text in f:lines("n", "L") do got[#got + 1] = {n, text} end
    assert.same(want, got)
    local bytes = {}
    for byte in file_of("abc"):lines(1) do bytes[#bytes + 1] = byte end
    assert.same({"a", "b", "c"}, bytes)
    for line in file_of("x\ny\n"):lines "l" do assert.equal(1, #line) end
    for line in file_of("x\ny\n"):lines "L" do assert.equal(2, #line) end
  end)

  it("goes on after an error", function()
    local f, a, b = open()
    b:settimeout(0)
    local next_line = f:lines()
    a:sendall "one\ntw"
    assert.equal("one", next_line())
    assert.equal("lines", fails("EAGAIN", next_line).op)
    a:sendall "o\n"
    assert.equal("two", next_line())
    f:close()
    fails("EBADF", next_line)
  end)

  it("keeps its file alive", function()
    local a, b = pair()
    local next_line = b:makefile():lines()
    a:sendall "one\ntwo\n"
    collectgarbage()
    collectgarbage()
    assert.equal("one", next_line())
    collectgarbage()
    assert.equal("two", next_line())
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

describe("makefile's mode", function()
  it("is r by default; r, w, rw, wr, r+, w+ and a b anywhere", function()
    for mode, can in pairs {r = "r", w = "w", rw = "rw", wr = "rw", ["r+"] = "rw", ["w+"] = "rw", rb = "r", wb = "w",
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
    for _, mode in ipairs {"", "b", "a", "x", "rwx", "r ", "R", "\0", {}, true} do
      bad(2, b.makefile, b, mode)
    end
    assert.is_true(b:close())
    assert.equal(-1, b:fileno()) -- none of those holds it open
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

describe("the buffers", function()
  it("are small while little is read and written at a time", function()
    local ends, files = {}, {}
    for i = 1, 50 do
      local a, b = keep(socket.socketpair())
      a:sendall "line\n"
      ends[i], files[i] = a, b:makefile "rw"
    end
    collectgarbage()
    local before = collectgarbage "count"
    for i, f in ipairs(files) do
      assert.equal("line", f:read())
      f:write "answer\n":flush()
      ends[i]:recv(10)
    end
    collectgarbage()
    local each = (collectgarbage "count" - before) / #files
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
