-- Byte buffers: socket.buffer and its methods.

local h = require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local buffer = socket.buffer

-- Every position that may matter in n bytes, and some that are far away.
local function positions(n)
  local list = {math.mininteger, math.mininteger + 1, math.maxinteger, math.maxinteger - 1, -(1 << 31), 1 << 31}
  for i = -n - 2, n + 2 do list[#list + 1] = i end
  return list
end

local function refuses(message, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.equal("string", type(e))
  assert.matches(message, e, 1, true)
end

describe("socket.buffer", function()
  it("makes a buffer of that many zero bytes", function()
    for _, n in ipairs {0, 1, 2, 7, 4096, 65537} do
      local b = buffer(n)
      assert.equal("userdata", type(b))
      assert.equal(n, #b)
      assert.is_true(tostring(b) == ("\0"):rep(n))
    end
    assert.equal(3, #buffer(3.0))
  end)

  it("makes a buffer with a copy of a string's or another buffer's bytes", function()
    local b = buffer "some\0bytes\xFF"
    assert.equal(11, #b)
    assert.equal("some\0bytes\xFF", tostring(b))
    local copy = buffer(b)
    copy:set(1, "S")
    assert.equal("some\0bytes\xFF", tostring(b))
    assert.equal("Some\0bytes\xFF", tostring(copy))
    assert.equal("ome", tostring(buffer(b:view(2, 4))))
    assert.equal(0, #buffer "")
    assert.equal("10", tostring(buffer "10")) -- a string, not a size
  end)

  it("refuses what is neither a size nor bytes", function()
    for _, v in ipairs {{}, true, print, io.stdout, coroutine.create(print)} do
      refuses("string expected, got " .. (v == io.stdout and "FILE*" or type(v)), buffer, v)
    end
    refuses("string expected, got no value", buffer)
    refuses("size must not be negative", buffer, -1)
    refuses("size must not be negative", buffer, math.mininteger)
    refuses("number has no integer representation", buffer, 0.5)
    refuses("number has no integer representation", buffer, math.huge)
    refuses("number has no integer representation", buffer, 0 / 0)
    refuses("size is too large", buffer, math.maxinteger)
  end)

  it("cannot make one that is larger than the memory", function()
    if h.sanitized then pending "the sanitizer ends a program that asks for so much" end
    for _, n in ipairs {math.maxinteger - 100, 1 << 62, 1 << 50} do
      local ok, e = pcall(buffer, n)
      assert.is_false(ok)
      assert.matches(string.packsize "T" < 8 and "size is too large" or "memory", e)
    end
  end)
end)

describe("a buffer", function()
  it("has the type of its own that a script cannot get at", function()
    local b = buffer(1)
    assert.is_false(getmetatable(b))
    assert.is_false(pcall(setmetatable, b, {}))
    refuses("attempt to index", function() b.x = 1 end)
    assert.is_nil(b.x)
    assert.is_nil(b[1])
    assert.matches("a socket buffer value", select(2, pcall(function() return b + 1 end)), 1, true)
  end)

  it("equals a buffer with the same bytes, and nothing else", function()
    assert.is_true(buffer "abc" == buffer "abc")
    assert.is_true(buffer "" == buffer(0))
    assert.is_true(buffer "abcabc":view(4) == buffer "abc":view())
    assert.is_false(buffer "abc" == buffer "abd")
    assert.is_false(buffer "abc" == buffer "abcd")
    assert.is_false(buffer "abc" == buffer "abc\0")
    assert.is_false(buffer "abc" == "abc")
    assert.is_false(buffer "abc" == io.stdout)
    assert.is_false(io.stdout == buffer "abc")
  end)

  it("keeps its size", function()
    local b = buffer "abc"
    refuses("does not fit the buffer", b.set, b, 4, "d")
    assert.equal(3, #b)
  end)

  it("has methods only for buffers", function()
    local b = buffer "abc"
    local tools = support.tools(pending)
    for _, name in ipairs {"byte", "find", "pack", "set", "sub", "unpack", "view"} do
      for _, v in ipairs {1, "abc", {}, print, io.stdout, tools.userdata(8, 0), tools.userdata(1024, 0)} do
        refuses("socket buffer expected, got ", b[name], v, 1, 1)
      end
      refuses("socket buffer expected, got no value", b[name])
    end
  end)

  it("made in one Lua state is not one in another, nor is a forged one", function()
    local tools = support.tools(pending)
    local b = buffer "abc"
    local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    refuses("socket buffer expected, got userdata", b.sub, tools.userdata(24, 0xFF))
    refuses("socket buffer expected, got socket", b.sub, s)
    refuses("string expected, got userdata", buffer, tools.userdata(24, 0))
  end)
end)

describe("b:sub", function()
  it("gives the strings that string.sub gives", function()
    for _, bytes in ipairs {"", "a", "ab\0de"} do
      local b = buffer(bytes)
      assert.equal(bytes, b:sub())
      for _, i in ipairs(positions(#bytes)) do
        assert.equal(bytes:sub(i), b:sub(i))
        for _, j in ipairs(positions(#bytes)) do
          assert.equal(bytes:sub(i, j), b:sub(i, j), ("%d, %d"):format(i, j))
        end
      end
    end
  end)

  it("wants integers", function()
    local b = buffer "abc"
    refuses("number expected, got string", b.sub, b, "x")
    refuses("number has no integer representation", b.sub, b, 1, 1.5)
    assert.equal("b", b:sub(2.0, "2"))
  end)
end)

describe("b:byte", function()
  it("gives the numbers that string.byte gives", function()
    local bytes = "\0a\xFFz"
    local b = buffer(bytes)
    assert.equal(0, b:byte())
    for _, i in ipairs(positions(#bytes)) do
      assert.same({bytes:byte(i)}, {b:byte(i)}, i)
      for _, j in ipairs(positions(#bytes)) do
        assert.same({bytes:byte(i, j)}, {b:byte(i, j)}, ("%d, %d"):format(i, j))
      end
    end
    assert.same({}, {buffer(0):byte()})
    assert.same({}, {buffer(0):byte(1, -1)})
    assert.same({0, 97}, {b:byte(nil, 2)})
  end)

  it("cannot give more than Lua's stack holds", function()
    local b = buffer(2000000)
    refuses("too many bytes", b.byte, b, 1, -1)
    assert.equal(10000, select("#", b:byte(1, 10000)))
  end)
end)

describe("b:set", function()
  it("writes bytes at a position, and gives the buffer back", function()
    local b = buffer(8)
    assert.equal(b, b:set(1, "ab"))
    assert.equal("ab\0\0\0\0\0\0", tostring(b))
    b:set(-2, "yz")
    assert.equal("ab\0\0\0\0yz", tostring(b))
    b:set(3, "\0" , 255, 0, buffer "!", "")
    assert.equal("ab\0\xFF\0!yz", tostring(b))
    b:set(nil, "A")
    assert.equal("Ab\0\xFF\0!yz", tostring(b))
    b:set(1, "12345678")
    assert.equal("12345678", tostring(b))
    b:set(9)
    b:set(9, "")
    b:set(1)
    b:set()
    assert.equal("12345678", tostring(b))
    assert.equal("1A345678", tostring(b:set(2, 65)))
    assert.equal("1A345678", tostring(b:set(2, 65.0)))
  end)

  it("never writes beyond the end", function()
    local whole = buffer "012345"
    local b = whole:view(2, 4)
    for _, case in ipairs {{1, "abcd"}, {3, "ab"}, {4, "a"}, {-1, "ab"}, {4, 1}, {1, "ab", "cd"}, {1, buffer(4)}} do
      refuses("does not fit the buffer", b.set, b, table.unpack(case))
    end
    assert.equal("0", whole:sub(1, 1))
    assert.equal("45", whole:sub(5))
  end)

  it("takes positions from 1 to one past the end, or as many from the end", function()
    local b = buffer "abc"
    for _, i in ipairs {0, 5, -4, -5, math.maxinteger, math.mininteger} do
      refuses("position outside the buffer", b.set, b, i, "x")
    end
    assert.equal("xbc", tostring(b:set(-3, "x")))
  end)

  it("takes numbers as bytes from 0 to 255", function()
    local b = buffer "abc"
    for _, v in ipairs {-1, 256, math.maxinteger, math.mininteger} do refuses("a byte is 0-255", b.set, b, 1, v) end
    refuses("number has no integer representation", b.set, b, 1, 1.5)
    for _, v in ipairs {true, {}, print, io.stdout} do refuses("string expected", b.set, b, 1, v) end
    refuses("string expected, got nil", b.set, b, 1, nil)
    assert.equal("abc", tostring(b))
  end)

  it("copies between overlapping views as if through a string", function()
    for _, case in ipairs {{1, 3, 8}, {3, 1, 6}, {2, 2, 7}, {5, 1, 4}} do
      local at, i, j = table.unpack(case)
      local b = buffer "01234567"
      local s = b:sub(i, j)
      local expected = ("01234567"):sub(1, at - 1) .. s .. ("01234567"):sub(at + #s)
      assert.equal(expected, tostring(b:set(at, b:view(i, j))))
    end
    local b = buffer "0123"
    assert.equal("0123", tostring(b:set(1, b)))
  end)
end)

describe("b:find", function()
  it("finds bytes where string.find, plainly, finds them", function()
    for _, bytes in ipairs {"", "a", "abcabcabd", "aaaab", "\0x\0\0y", "%d+(."} do
      local b = buffer(bytes)
      for _, what in ipairs {"", "a", "b", "ab", "abd", "aab", "\0", "\0\0", "\0\0y", "%d", "x", ("a"):rep(99)} do
        assert.same({bytes:find(what, 1, true)}, {b:find(what)})
        assert.same({bytes:find(what, 1, true)}, {b:find(buffer(what))})
        for i = 1, #bytes + 1 do
          assert.same({bytes:find(what, i, true)}, {b:find(what, i)}, ("%q, %q, %d"):format(bytes, what, i))
        end
        for i = -#bytes, -1 do
          assert.same({bytes:find(what, i, true)}, {b:find(what, i)}, ("%q, %q, %d"):format(bytes, what, i))
        end
      end
    end
  end)

  it("says nil, and no more, for what is not there", function()
    assert.equal(1, select("#", buffer "abc":find "x"))
    assert.is_nil((buffer "abc":find "x"))
  end)

  it("finds nothing beyond the end of a view", function()
    local b = buffer "one\ntwo\n"
    assert.is_nil((b:view(1, 3):find "\n"))
    assert.is_nil((b:view(1, 4):find "\nt"))
    assert.equal(4, (b:view(1, 4):find "\n"))
    assert.equal(1, (b:view(4, 5):find "\nt"))
  end)

  it("wants bytes, and a position in the buffer", function()
    local b = buffer "abc"
    for _, i in ipairs {0, 5, -4, math.maxinteger, math.mininteger} do
      refuses("position outside the buffer", b.find, b, "c", i)
    end
    refuses("string expected, got table", b.find, b, {})
    refuses("string expected, got no value", b.find, b)
    assert.equal(2, (buffer "a1b":find(1)))
  end)
end)

describe("b:view", function()
  it("shares the bytes, both ways", function()
    local b = buffer "0123456789"
    local v = b:view(3, 6)
    assert.equal(4, #v)
    assert.equal("2345", tostring(v))
    v:set(1, "cd")
    assert.equal("01cd456789", tostring(b))
    b:set(6, "F")
    assert.equal("cd4F", tostring(v))
    local vv = v:view(2)
    vv:set(1, "D")
    assert.equal("01cD4F6789", tostring(b))
    assert.equal("D4F", tostring(vv))
  end)

  it("takes the positions of string.sub", function()
    local bytes = "abcde"
    local b = buffer(bytes)
    assert.equal(bytes, tostring(b:view()))
    for _, i in ipairs(positions(#bytes)) do
      for _, j in ipairs(positions(#bytes)) do
        local v = b:view(i, j)
        assert.equal(bytes:sub(i, j), tostring(v), ("%d, %d"):format(i, j))
        assert.equal(#bytes:sub(i, j), #v)
      end
    end
    assert.equal(0, #buffer(0):view())
    assert.equal("", tostring(b:view(3, 2):view(1, -1)))
    refuses("number expected, got string", b.view, b, "x")
  end)

  it("keeps the bytes alive when the buffer is forgotten", function()
    for _ = 1, 50 do
      local v = buffer(("x"):rep(100000)):view(50001):view(1, 10):view(2)
      collectgarbage()
      collectgarbage()
      local other = buffer(("y"):rep(100000))
      assert.equal("xxxxxxxxx", tostring(v))
      v:set(1, "z")
      assert.equal("zxxxxxxxx", tostring(v))
      assert.equal(100000, #other)
    end
  end)

  it("of a view keeps no more than the bytes' own buffer", function()
    local weak = setmetatable({}, {__mode = "v"})
    local b = buffer "0123456789"
    local v = b:view(2)
    weak[1] = v
    local vv = v:view(2)
    v = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
    assert.equal("23456789", tostring(vv))
    weak[1] = b
    b = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_not_nil(weak[1])
    assert.equal("2", vv:sub(1, 1))
    vv = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)
end)

describe("b:unpack", function()
  it("is string.unpack of the bytes", function()
    local bytes = string.pack("<I2 >i4 z s1 d", 1, -2, "zero", "counted", 0.5)
    local b = buffer(bytes)
    assert.same({string.unpack("<I2 >i4 z s1 d", bytes)}, {b:unpack "<I2 >i4 z s1 d"})
    assert.same({string.unpack(">i4", bytes, 3)}, {b:unpack(">i4", 3)})
    assert.same({string.unpack("!4 i1 i4", bytes, 2)}, {b:unpack("!4 i1 i4", 2)}) -- aligned from the buffer's start
    assert.same({string.unpack("B", bytes, -1)}, {b:unpack("B", -1)})
    assert.same({string.unpack("", bytes, #bytes + 1)}, {b:unpack("", #b + 1)})
    assert.same({"bc", 3}, {buffer "abcde":view(2, 4):unpack("c2", 1, "one more")})
    assert.same({"cd", 4}, {buffer "abcde":view(2, 4):unpack("c2", 2)})
  end)

  it("reads nothing beyond the end", function()
    local b = buffer "abcdef":view(1, 3)
    refuses("data string too short", b.unpack, b, "I4")
    refuses("data string too short", b.unpack, b, "I2", 3)
    refuses("unfinished string for format 'z'", b.unpack, b, "z")
    for _, i in ipairs {0, 5, -4, math.maxinteger, math.mininteger} do
      refuses("position outside the buffer", b.unpack, b, "B", i)
    end
    refuses("invalid format option", b.unpack, b, "?")
    refuses("string expected, got no value", b.unpack, b)
    refuses("string expected, got table", b.unpack, b, {})
  end)
end)

describe("b:pack", function()
  it("writes what string.pack makes, and gives the position after it", function()
    local b = buffer(20)
    local packed = string.pack("<I2 >i4 z s1", 1, -2, "zero", "co")
    assert.equal(#packed + 1, b:pack(1, "<I2 >i4 z s1", 1, -2, "zero", "co"))
    assert.equal(packed, b:sub(1, #packed))
    local at = 1
    for i = 1, 5 do at = b:pack(at, ">I4", i) end
    assert.equal(21, at)
    assert.same({1, 2, 3, 4, 5, 21}, {b:unpack ">I4 I4 I4 I4 I4"})
    assert.equal(21, b:pack(-4, ">I4", 6))
    assert.equal(6, (b:unpack(">I4", 17)))
    assert.equal(21, b:pack(21, ""))
    assert.equal(3, b:pack(nil, ">I2", 7))
    assert.equal(7, (b:unpack ">I2"))
  end)

  it("writes all or nothing", function()
    local whole = buffer "012345"
    local b = whole:view(2, 4)
    refuses("does not fit the buffer", b.pack, b, 1, ">I4", 1)
    refuses("does not fit the buffer", b.pack, b, 4, "B", 1)
    refuses("does not fit the buffer", b.pack, b, 2, "s4", "abc")
    refuses("number expected, got nil", b.pack, b, 1, "BB", 1)
    refuses("unsigned overflow", b.pack, b, 1, "B", 256)
    refuses("invalid format option", b.pack, b, 1, "?")
    refuses("string expected, got no value", b.pack, b, 1)
    refuses("string expected, got table", b.pack, b, 1, {})
    for _, i in ipairs {0, 5, -4, math.maxinteger, math.mininteger} do
      refuses("position outside the buffer", b.pack, b, i, "B", 1)
    end
    assert.equal("012345", tostring(whole))
  end)

  it("and unpack do not follow what a script makes of string.pack", function()
    local text, status = support.run [[
      local socket = require "socket"
      string.pack, string.unpack = nil, nil
      local b = socket.buffer(4)
      b:pack(1, ">I4", 77)
      print(b:unpack ">I4")]]
    assert.equal("77\t5\n", text)
    assert.equal(0, status)
  end)

  it("and unpack need Lua's string library", function()
    local tools = support.tools(pending)
    local result = tools.state(([[
      package.loaded.string = nil
      local socket = assert(package.loadlib(%q, "luaopen_socket"))()
      local b = socket.buffer "abc"
      local ok1, e1 = pcall(b.pack, b, 1, "B", 1)
      local ok2, e2 = pcall(b.unpack, b, "B")
      return tostring(ok1) .. " " .. e1 .. ", " .. tostring(ok2) .. " " .. e2 .. ", " .. b:sub(2)]]):format(h.library))
    assert.equal("false needs Lua's string library, false needs Lua's string library, bc", result)
  end)
end)

describe("bytes are taken from a buffer", function()
  it("by the functions that convert addresses", function()
    assert.equal("127.0.0.1", socket.inet_ntoa(buffer "\127\0\0\1"))
    assert.equal("::1", socket.inet_ntop(socket.AF_INET6, buffer(("\0"):rep(15) .. "\1")))
    local packed = socket.packaddr(socket.AF_INET, {"127.0.0.1", 80})
    assert.same({"127.0.0.1", 80}, socket.unpackaddr(buffer(packed)))
    assert.same({"127.0.0.1", 80}, socket.unpackaddr(buffer("...." .. packed):view(5)))
  end)

  it("by setsockopt", function()
    local s <close> = socket.socket()
    s:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, buffer(string.pack("ii", 1, 7)))
    assert.equal(string.pack("ii", 1, 7), s:getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
  end)
end)

describe("many buffers and views", function()
  it("come and go under a collector that never rests", function()
    local pause = collectgarbage("setpause", 0)
    local views = {}
    for i = 1, 2000 do
      local b = buffer(i % 97)
      if #b > 0 then b:set(1, i % 256) end
      views[i % 31] = b:view(1, i % 13)
      local v = views[(i + 7) % 31]
      if v and #v > 0 then assert.is_true(v:byte() < 256) end
    end
    collectgarbage("setpause", pause)
  end)
end)
