-- A peer that sends little at a time, and a program that asks after each piece whether there is a line or a number: what
-- was looked at once is not looked at again. With the bytes the time used to grow by their square.

require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local keep = support.keep

after_each(support.close_kept)

-- The processor's seconds for n pieces, after each of which format is asked for in vain; then `last` ends it, and gives
-- the result, of that length if it is a string.
local function seconds(n, piece, format, last, result)
  local a, b = keep(socket.socketpair())
  a:settimeout(0)
  local f <close> = a:makefile("r", 65536)
  local start = os.clock()
  for _ = 1, n do
    b:send(piece)
    f:try_read(format)
  end
  local took = os.clock() - start
  b:send(last)
  local got = f:read(format)
  assert.equal(result, type(got) == "string" and #got or got)
  return took
end

describe("a file that is asked after each piece", function()
  for name, case in pairs {
    ["a number after spaces"] = {" ", "n", "12\n", 12},
    ["a line"] = {"x", "l", "\n"},
    ["a line with its end"] = {"x", "L", "\n"},
  } do
    it("takes time in proportion: " .. name, function()
      local piece = case[1]:rep(64)
      local result = function(n) return case[4] or n * #piece + (case[2] == "L" and 1 or 0) end
      local few = seconds(2000, piece, case[2], case[3], result(2000))
      local many = seconds(16000, piece, case[2], case[3], result(16000))
      assert.is_true(many < 16 * few + 0.2, ("%.2f s for 8 times what took %.2f s"):format(many, few))
    end)
  end

  it("gives the same, whatever was asked for before", function()
    local a, b = keep(socket.socketpair())
    a:settimeout(0)
    local f <close> = a:makefile()
    b:send "  "
    assert.is_nil(f:try_read "n")
    assert.is_nil(f:try_read "l")
    assert.is_nil((f:try_read(1, "n")))
    b:send " 1"
    assert.is_nil(f:try_read "l")
    assert.is_nil(f:try_read "n")
    assert.equal(" ", f:read(1))
    assert.is_nil(f:try_read "n")
    b:send "2 x\ny\n"
    assert.same({12, " x"}, {f:read("n", "l")})
    assert.is_nil(f:try_read("l", "l"))
    b:send "z\n"
    assert.same({"y", "z"}, {f:read("l", "l")})
  end)
end)
