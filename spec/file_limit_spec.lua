-- f:setlimit: how much a read without a count may take, so that a line without an end cannot fill the memory.

require "spec.helper"
local socket = require "socket"
local support = require "spec.support"
local tasks = require "spec.support.tasks"

local fails, keep = support.fails, support.keep

after_each(support.close_kept)

-- A file on a stream of these bytes, and the other end; the stream has ended unless `open`.
local function file_of(bytes, size, open)
  local a, b = keep(socket.socketpair())
  a:sendall(bytes)
  if not open then a:shutdown(socket.SHUT_WR) end
  b:settimeout(5)
  return b:makefile("rw", size), a
end

describe("a file's limit", function()
  for _, size in ipairs {0, 1, 2, 10, -1} do
    describe("with a buffer size of " .. size, function()
      it("is the longest line, without its end, and nothing is lost beyond it", function()
        local f <close> = file_of("12345\n123456\nrest\n", size):setlimit(5)
        assert.equal("12345", f:read())
        local e = fails("EMSGSIZE", f.read, f)
        assert.equal(socket.error, e.class)
        assert.equal("longer than the file's limit", e.message)
        fails("EMSGSIZE", f.read, f, "L")
        fails("EMSGSIZE", f.read, f, 0, "l")
        assert.equal("EMSGSIZE", select(2, f:try_read()).code)
        f:setlimit(6)
        assert.equal("123456\n", f:read "L")
        assert.equal("rest", f:read())
        assert.is_nil(f:read())
      end)

      it("holds where the end of the line has not come, and where the stream ends", function()
        local f <close>, a = file_of("123456", size, true)
        f:setlimit(5)
        fails("EMSGSIZE", f.read, f)
        a:sendall "7\n"
        fails("EMSGSIZE", f.read, f)
        assert.equal("1234", f:read(4))
        assert.equal("567", f:read())
        local g <close> = file_of("123456", size):setlimit(5)
        fails("EMSGSIZE", g.read, g)
        assert.equal("12", g:read(2))
        assert.equal("3456", g:read())
      end)

      it("bounds all the rest, and what is before and in a numeral", function()
        local f <close> = file_of("123456", size):setlimit(5)
        fails("EMSGSIZE", f.read, f, "a")
        assert.equal("123456", f:setlimit(6):read "a")
        local g <close> = file_of("     12 ", size):setlimit(6)
        fails("EMSGSIZE", g.read, g, "n")
        assert.equal(12, g:setlimit(7):read "n")
        local spaces <close> = file_of((" "):rep(3000), size, true):setlimit(1000)
        fails("EMSGSIZE", spaces.read, spaces, "n")
      end)

      it("leaves counts alone", function()
        local f <close> = file_of("123456", size):setlimit(2)
        assert.equal("", f:read(0))
        assert.equal("123456", f:read(6))
      end)
    end)
  end

  it("of 0 lets empty lines through", function()
    local f <close> = file_of "\n\nx\n":setlimit(0)
    assert.equal("", f:read())
    assert.equal("\n", f:read "L")
    fails("EMSGSIZE", f.read, f)
  end)

  it("holds in lines, which can go on after it was raised", function()
    local f <close> = file_of "1\n22\n333\n4\n":setlimit(2)
    local lines = f:lines()
    assert.equal("1", lines())
    assert.equal("22", lines())
    fails("EMSGSIZE", lines)
    fails("EMSGSIZE", lines)
    f:setlimit(nil)
    assert.equal("333", lines())
    assert.equal("4", lines())
    assert.is_nil(lines())
  end)

  it("keeps the memory of an endless line bounded", function()
    local f <close>, a = file_of("", -1, true)
    f:setlimit(100000)
    local results = tasks.run({
      function()
        local piece, sent = ("x"):rep(65536), 0
        a:settimeout(0.5)
        for _ = 1, 400 do
          local _, e = a:try_sendall(piece)
          sent = sent + (e and e.sent or #piece)
          if e then break end
        end
        return sent
      end,
      function()
        local e = select(2, f:try_read())
        collectgarbage()
        return e.code, collectgarbage "count"
      end,
    })
    assert.is_true(results[1][1] and results[2][1], tostring(results[2][2]))
    assert.equal("EMSGSIZE", results[2][2])
    assert.is_true(results[1][2] < 26214400, "all of it was taken: " .. results[1][2])
    assert.equal(("x"):rep(10), f:read(10))
  end)

  it("is none at first and after nil, and takes sizes only", function()
    local f <close> = file_of(("x"):rep(100000) .. "\n" .. ("y"):rep(50000))
    f:setlimit(10)
    assert.equal(f, f:setlimit(nil))
    assert.equal(100000, #f:read())
    assert.equal(50000, #f:setlimit(math.maxinteger):read())
    for _, wrong in ipairs {-1, 1.5, "x", {}} do
      assert.matches("bad argument", select(2, pcall(f.setlimit, f, wrong)))
    end
    assert.matches("bad argument", select(2, pcall(f.setlimit, f)))
    f:close()
    fails("EBADF", f.setlimit, f, 1)
    assert.equal("EBADF", select(2, f:try_setlimit(1)).code)
  end)
end)
