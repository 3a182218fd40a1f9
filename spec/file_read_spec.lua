-- Files on sockets: read and lines. What a file of Lua's does with the same bytes is the measure.

require "spec.helper"
local check = require "spec.support.check"
local files = require "spec.support.files"
local socket = require "socket"
local support = require "spec.support"

local bad, fails = check.bad, support.fails
local feeder, feeding = files.feeder, files.feeding
local file_of, lua_file, open, pair, peer = files.file_of, files.lua_file, files.open, files.pair, files.peer
local packed = table.pack

after_each(function()
  socket.setwaithook(nil)
  support.close_kept()
end)

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
  for kind in pairs(files.PAIRS) do
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
