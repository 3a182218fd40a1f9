-- What lies below selectors and loops: one descriptor that watches many (epoll, kqueue).

require "spec.helper"
local check = require "spec.support.check"
local selectors = require "socket.selectors"
local socket = require "socket"
local support = require "spec.support"

local keep = support.keep

after_each(support.close_kept)

local function ready(sel, timeout)
  local found, n = {}, 0
  for key, events in sel:select(timeout) do found[key.fileobj], n = events, n + 1 end
  return found, n
end

describe("a poller", function()
  it("reports what lasts as long as it lasts, and each direction by itself", function()
    local sel <close> = selectors.DefaultSelector()
    local a, b = keep(socket.socketpair())
    sel:register(a, selectors.EVENT_READ | selectors.EVENT_WRITE)
    assert.equal(selectors.EVENT_WRITE, ready(sel, 0)[a])
    b:sendall "x"
    for _ = 1, 2 do assert.equal(3, ready(sel, 5)[a]) end
    sel:modify(a, selectors.EVENT_READ)
    assert.equal(selectors.EVENT_READ, ready(sel, 0)[a])
    a:recv(1)
    assert.equal(0, (select(2, ready(sel, 0))))
    a:setblocking(false)
    while a:try_send(("x"):rep(65536)) do end
    sel:modify(a, selectors.EVENT_WRITE)
    assert.equal(0, (select(2, ready(sel, 0))))
    b:recv(1 << 20)
    b:close()
    assert.equal(selectors.EVENT_WRITE, ready(sel, 5)[a]) -- an end makes both ready
  end)

  it("waits no shorter than it was told, to parts of a millisecond", function()
    local sel <close> = selectors.DefaultSelector()
    local a = keep(socket.socketpair())
    sel:register(a, selectors.EVENT_READ)
    for _, seconds in ipairs {0.0003, 0.0101, 0.05} do
      local took = check.took(function() assert.equal(0, (select(2, ready(sel, seconds)))) end)
      assert.is_true(took >= seconds and took < seconds + 1, took)
    end
  end)

  it("is a descriptor itself, readable when it has something to report", function()
    local sel <close> = selectors.DefaultSelector()
    local outer <close> = selectors.PollSelector()
    local a, b = keep(socket.socketpair())
    sel:register(a, selectors.EVENT_READ)
    outer:register(sel:fileno(), selectors.EVENT_READ)
    assert.equal(0, (select(2, ready(outer, 0))))
    b:sendall "x"
    assert.equal(1, (select(2, ready(outer, 5))))
  end)

  it("forgets what is closed", function()
    local sel <close> = selectors.DefaultSelector()
    local a, b = keep(socket.socketpair())
    sel:register(a, selectors.EVENT_READ)
    b:sendall "x"
    assert.equal(1, (select(2, ready(sel, 5))))
    a:close()
    assert.equal(0, (select(2, ready(sel, 0))))
  end)

  it("comes to all of many that are ready", function()
    local sel <close> = selectors.DefaultSelector()
    local seen, left = {}, 300
    for _ = 1, left do
      local a, b = keep(socket.socketpair())
      b:sendall "x"
      sel:register(a, selectors.EVENT_READ)
    end
    for _ = 1, 10 do
      for key in sel:select(5) do
        if not seen[key.fd] then left = left - 1 end
        seen[key.fd] = true
        key.fileobj:recv(1)
      end
      if left == 0 then break end
    end
    assert.equal(0, left)
  end)
end)
