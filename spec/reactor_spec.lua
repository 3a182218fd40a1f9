-- The rounds of tasks below loops: socket.reactor.

require "spec.helper"
local reactors = require "spec.support.reactors"
local socket = require "socket"
local support = require "spec.support"

local add, new = reactors.add, reactors.new
local reactor = socket.reactor
local keep = support.keep

after_each(support.close_kept)

describe("a reactor", function()
  it("runs coroutines to their end and hands over their results", function()
    local r, results = new()
    local one = add(r, function(...) return ... end, 1, nil, 3)
    local two = add(r, error, "no")
    assert.equal("ready", r:state(one))
    assert.is_false(r:turn())
    assert.same({true, 1, nil, 3, n = 4}, results[one])
    assert.same({false, "no", n = 2}, results[two])
    assert.equal("dead", coroutine.status(one))
    assert.same({false, "cannot resume dead coroutine"}, {coroutine.resume(one)})
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
