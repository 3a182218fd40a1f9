-- The mechanism below loops: socket.reactor.

require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local reactor = socket.reactor
local keep, now = support.keep, socket.monotonic

after_each(support.close_kept)

-- A reactor, and what its coroutines returned or failed with, by coroutine.
local function new()
  local results = {}
  return reactor.new(function(co, ...) results[co] = table.pack(...) end), results
end

local function add(r, f, ...)
  local co = coroutine.create(f)
  r:add(co, ...)
  return co
end

local function rounds(r, seconds)
  local stop = now() + (seconds or 5)
  while r:turn(0.01) do assert(now() < stop, "took too long") end
end

describe("a reactor", function()
  it("runs coroutines to their end and hands over their results", function()
    local r, results = new()
    local one = add(r, function(...) return ... end, 1, nil, 3)
    local two = add(r, error, "no")
    assert.equal("ready", r:state(one))
    assert.is_false(r:turn())
    assert.same({true, 1, nil, 3, n = 4}, results[one])
    assert.same({false, "no", n = 2}, results[two])
    assert.is_nil(r:state(one))
    assert.same({0, 0, 0, 0}, {r:counts()})
    r:close()
    assert.is_nil(r:close())
  end)

  it("counts tasks, those queued, those that wait for descriptors, and timers", function()
    local r = new()
    local a, b = keep(socket.socketpair())
    add(r, function() a:recv(1) end)
    add(r, function() socket.sleep(10) end)
    add(r, function() reactor.park() end)
    assert.same({3, 3, 0, 0}, {r:counts()})
    r:turn(0)
    assert.same({3, 0, 1, 1}, {r:counts()})
    b:sendall "x"
    r:turn(1)
    assert.same({2, 0, 0, 1}, {r:counts()})
    r:close()
  end)

  it("parks, wakes and throws", function()
    local r, results = new()
    local parked = add(r, function() return reactor.park(), reactor.park(0.001), reactor.park(0) end)
    assert.is_false(r:wake(parked)) -- not begun
    r:turn(0)
    assert.equal("waiting", r:state(parked))
    assert.is_true(r:wake(parked))
    assert.is_false(r:wake(parked))
    rounds(r)
    assert.same({true, true, false, false, n = 4}, results[parked])
    local thrown = add(r, function() return pcall(reactor.park) end)
    r:turn(0)
    assert.is_true(r:throw(thrown, "e"))
    assert.is_nil(r:throw(thrown, "behind", true))
    r:turn(0)
    assert.same({true, false, "e", n = 3}, results[thrown])
    assert.is_nil(r:throw(thrown, "e"))
    local fresh = add(r, print)
    assert.equal("fresh", r:throw(fresh, "e"))
    assert.is_nil(r:state(fresh))
    assert.is_false(r:turn(0))
    local late = add(r, function() coroutine.yield() return reactor.park(0.001) end)
    r:turn(0)
    r:throw(late, "e")
    r:retract(late, "other")
    r:retract(late, "e")
    rounds(r)
    assert.same({true, false, n = 2}, results[late])
    r:close()
  end)

  it("removes any of those that have not begun", function()
    for gone = 1, 3 do
      local r, results = new()
      local list = {}
      for i = 1, 3 do list[i] = add(r, function() return i end) end
      assert.equal("fresh", r:throw(list[gone], "e"))
      list[4] = add(r, function() return 4 end)
      rounds(r)
      for i = 1, 4 do
        if i == gone then assert.is_nil(results[list[i]]) else assert.equal(i, results[list[i]][2]) end
      end
      r:close()
    end
  end)

  it("refuses what is no new coroutine, and no reactor", function()
    local r = new()
    local co = coroutine.create(print)
    r:add(co)
    for _, bad in ipairs {co, coroutine.running(), coroutine.create(function() end)} do
      if bad ~= co and bad ~= coroutine.running() then coroutine.resume(bad) end
      assert.is_false(pcall(r.add, r, bad))
    end
    assert.is_false(pcall(r.add, r, print))
    assert.is_false(pcall(r.turn, {}))
    assert.is_false(pcall(r.turn, io.stdout))
    assert.is_false(pcall(reactor.new))
    assert.is_false(pcall(reactor.park))
    assert.is_nil(reactor.running())
    r:throw(co, "gone")
    r:close()
    for _, method in ipairs {"add", "turn", "after", "fileno", "timeout", "wake", "throw"} do
      assert.matches("loop is closed", select(2, pcall(r[method], r, co, "x")))
    end
  end)

  it("goes on after a coroutine was closed by somebody else while it waited", function()
    local r, results = new()
    local a, b = keep(socket.socketpair())
    local dead = add(r, function() a:recv(1) end)
    r:turn(0)
    coroutine.close(dead)
    local other = add(r, function() return a:recv(1) end)
    r:turn(0)
    b:sendall "x"
    r:turn(1)
    r:turn(0)
    assert.same({true, "x", n = 2}, results[other])
    r:close()
  end)

  it("knows what is running", function()
    local r, results = new()
    local co = add(r, function()
      local outer = reactor.running()
      return outer, coroutine.wrap(function() return (reactor.running()) end)()
    end)
    r:turn(0)
    assert.same({true, co, co, n = 3}, results[co])
    r:close()
  end)

  it("raises errors of its callbacks when everything is as before", function()
    local r = new()
    r:after(0, function() error "alarm" end)
    assert.matches("alarm", select(2, pcall(r.turn, r, 1)))
    assert.is_nil(reactor.running())
    local failing = reactor.new(function() error "ended" end)
    add(failing, function() end)
    assert.matches("ended", select(2, pcall(failing.turn, failing, 1)))
    assert.is_false(failing:turn(0))
    failing:close()
    r:close()
  end)

  it("exists 255 times, and again after some were closed", function()
    local list = {}
    local ok
    repeat
      local r
      ok, r = pcall(new)
      list[#list + 1] = ok and r or nil
    until not ok or #list > 300
    assert.is_true(#list <= 255 and #list > 100)
    for _, r in ipairs(list) do r:close() end
    local r = new()
    r:close()
  end)
end)
