-- Timers: the heap below loops, through socket.reactor.

local h = require "spec.helper"
local reactors = require "spec.support.reactors"
local socket = require "socket"

local reactor, now = socket.reactor, socket.monotonic

local function new() return reactor.new(function() end) end

local function drain(r)
  local stop = now() + 5
  while select(4, r:counts()) > 0 do
    r:turn(0.05)
    assert(now() < stop, "took too long")
  end
end

describe("timers", function()
  it("come in the order of their times, whatever was cancelled", function()
    for seed = 1, 20 do
      math.randomseed(seed)
      local r, order, timers, expected = new(), {}, {}, {}
      for i = 1, 300 do
        local at = math.random(0, 40) / 2000
        local timer = {least = now() + at}
        timer.alarm = r:after(at, function() order[#order + 1] = i end)
        timer.most = now() + at
        timers[i] = timer
      end
      for i = 1, 300 do
        if math.random(3) == 1 then
          assert.is_true(timers[i].alarm:cancel())
          timers[i] = false
        end
      end
      for i = 1, 300 do if timers[i] then expected[i] = true end end
      drain(r)
      local last = -1
      for _, i in ipairs(order) do
        assert.is_true(timers[i].most >= last)
        last = math.max(last, timers[i].least)
        assert.is_true(expected[i])
        expected[i] = nil
      end
      assert.is_nil(next(expected))
      r:close()
    end
  end)

  it("are never early, and cancelled only once", function()
    local r, start = new(), now()
    local came
    local alarm = r:after(0.01, function() came = now() end)
    drain(r)
    assert.is_true(came - start >= 0.01)
    assert.is_false(alarm:cancel())
    r:close()
  end)

  it("set within one have their turn in the next round", function()
    local r, n = new(), 0
    local function again()
      n = n + 1
      if n < 1000 then r:after(0, again) end
    end
    r:after(0, again)
    r:turn(0)
    assert.equal(1, n)
    r:turn(0)
    assert.equal(2, n)
    drain(r)
    assert.equal(1000, n)
    r:close()
  end)

  it("may be cancelled by others of the same moment", function()
    local r, second, came = new(), nil, 0
    r:after(0, function() came = came + 1 second:cancel() end)
    second = r:after(0, function() came = came + 1 end)
    drain(r)
    assert.equal(1, came)
    r:close()
  end)

  it("of one moment, be they many, share out between rounds, and tasks have their turn", function()
    local r, results = reactors.new()
    local n, slept, turns = 0, 0, 0
    for _ = 1, 100000 do r:after(0, function() n = n + 1 end) end
    for _ = 1, 100 do reactors.add(r, function() socket.sleep(1e-6) slept = slept + 1 end) end
    local late = reactors.add(r, function() return n end)
    repeat
      r:turn(0)
      turns = turns + 1
      if turns == 1 then assert.is_true(n < 100000) end
    until n == 100000 and slept == 100
    assert.is_true(turns > 2)
    assert.is_true(results[late][2] < 100000)
    r:close()
  end)

  it("for whose function there was no memory come again", function()
    if h.sanitized then return pending "there, an allocation of that size ends the program" end
    local r, n = new(), 0
    local null <close> = assert(io.open "/dev/null")
    local timer
    timer = r:after(0, function()
      n = n + 1
      if n == 2 then return end
      assert(not timer:cancel()) -- it is under way
      return null:read(h.bits == 64 and 1 << 50 or 3 << 30)
    end)
    for _ = 1, 2 do r:after(0, function() error("others do not", 0) end) end
    local errors = {}
    while select(4, r:counts()) > 0 do errors[#errors + 1] = select(2, pcall(r.turn, r, 0)) end
    table.sort(errors, function(a, b) return tostring(a) < tostring(b) end)
    assert.same({"not enough memory", "others do not", "others do not"}, {table.unpack(errors, #errors - 2)})
    assert.equal(2, n)
    assert.is_false(timer:cancel())
    r:close()
  end)

  it("take numbers of seconds, for ever included", function()
    local r = new()
    local alarm = r:after(math.huge, print)
    assert.is_nil(r:timeout())
    r:after(1e300, print):cancel()
    local soon = r:after(100, print)
    assert.is_true(r:timeout() > 99 and r:timeout() <= 100)
    soon:cancel()
    assert.is_nil(r:timeout())
    alarm:cancel()
    for _, bad in ipairs {-1, 0 / 0, "x"} do assert.is_false(pcall(r.after, r, bad, print)) end
    assert.is_false(pcall(r.after, r, nil, print))
    assert.is_false(pcall(r.after, r, 1))
    assert.same({0, 0, 0, 0}, {r:counts()})
    r:close()
  end)

  it("by the million take a bounded time to set, come and cancel", function()
    local r, n = new(), 0
    local function f() n = n + 1 end
    local start = now()
    for i = 1, 100000 do r:after((i * 7919 % 1000) / 1e6, f) end
    drain(r)
    assert.equal(100000, n)
    local list = {}
    for round = 1, 9 do
      for i = 1, 100000 do list[i] = r:after(10 + (i * 7919 % 100000), f) end
      for i = 1, 100000 do list[(i * (round * 2 + 1) * 7) % 100000 + 1]:cancel() end
    end
    for i = 1, 100000 do list[i]:cancel() end
    assert.is_true(now() - start < 10)
    r:close()
  end)
end)
