-- Tasks as socket.reactor has them: parked, woken, thrown into, looked up.

require "spec.helper"
local reactors = require "spec.support.reactors"
local socket = require "socket"
local support = require "spec.support"

local add, new, rounds = reactors.add, reactors.new, reactors.rounds
local reactor = socket.reactor
local keep = support.keep

after_each(support.close_kept)

describe("a task of a reactor", function()
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
    assert.same({n = 2, nil, false}, table.pack(reactor.running()))
    local hook, wake = socket.setwaithook(print)
    assert.same({n = 2, nil, true}, table.pack(reactor.running()))
    socket.setwaithook(hook, wake)
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
end)
