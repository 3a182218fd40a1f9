-- What a file has read ahead: f:pending and f:peek, and selectors that know of it.

require "spec.helper"
local check = require "spec.support.check"
local files = require "spec.support.files"
local loop = require "socket.loop"
local run = require "spec.support.looped".run
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local bad, fails, open = check.bad, support.fails, files.open
local selectors = socket.selectors

after_each(tls.clean)

describe("f:pending", function()
  it("counts the bytes that were read ahead", function()
    local f, a, b = open()
    a:sendall "one\ntwo\n"
    assert.equal(0, f:pending())
    assert.equal("one", f:read())
    assert.equal(4, f:pending())
    f:read(1)
    assert.equal(3, f:pending())
    assert.equal("wo\n", f:read(f:pending()))
    assert.equal(0, f:pending())
    b:settimeout(0)
    a:sendall "part"
    assert.is_nil((f:try_read()))
    assert.equal(4, f:pending())
    f:close()
    fails("EBADF", f.pending, f)
  end)

  it("is 0 for an unbuffered file, but for the byte that ended a number", function()
    local f, a = open("r", 0)
    a:sendall "one\n12 rest"
    f:read()
    assert.equal(0, f:pending())
    f:read "n"
    assert.equal(1, f:pending())
  end)
end)

describe("f:peek", function()
  for _, size in ipairs {-1, 0, 1, 100} do
    describe("of a file with buffer size " .. size, function()
      it("gives what comes next and takes nothing", function()
        local f, a = open("r", size)
        a:sendall "one\ntwo\n"
        assert.equal("one\ntwo\n", f:peek())
        assert.equal("one", f:peek(3))
        assert.equal("", f:peek(0))
        assert.equal("one", f:read())
        assert.equal("two\n", f:peek(100))
        assert.equal("two", f:read())
      end)

      it("is nil at the end of the stream, also for no bytes", function()
        local f, a = open("r", size)
        a:sendall "x"
        a:close()
        assert.equal("x", f:peek())
        assert.equal("x", f:read(1))
        for _ = 1, 2 do
          assert.is_nil(f:peek())
          assert.is_nil(f:peek(0))
          assert.is_nil(f:read(1))
        end
      end)

      it("waits as the socket's timeout says, for one byte", function()
        local f, a, b = open("r", size)
        b:settimeout(0)
        fails("EAGAIN", f.peek, f)
        b:settimeout(0.02)
        fails("ETIMEDOUT", f.peek, f, 5)
        a:sendall "x"
        assert.equal("x", f:peek(5))
        assert.equal("x", f:read(1))
      end)

      it("waits in a task", function()
        run(function()
          local f, a = open("r", size)
          local task = loop.spawn(f.peek, f, 5)
          socket.sleep(0.001)
          a:sendall "later"
          assert.equal("later", task:join())
          local e = fails("ETIMEDOUT", function()
            f:read(5)
            return loop.timeout(0.01, f.peek, f)
          end)
          assert.equal("ETIMEDOUT", e.code)
        end)
      end)
    end)
  end

  it("receives once at most, and not at all while there are bytes", function()
    local f, a = open("r", 4)
    a:sendall "012345"
    assert.equal("0123", f:peek(6))
    assert.equal("012", f:read(3))
    assert.equal("3", f:peek(6))
    assert.equal("345", f:read(3))
  end)

  it("of an unbuffered file leaves the bytes to the socket", function()
    local f, a, b = open("r", 0)
    a:sendall "abc"
    assert.equal("ab", f:peek(2))
    assert.equal("abc", b:recv(10))
    a:sendall(("x"):rep(3000))
    assert.equal(1024, #f:peek(3000))
  end)

  it("works over TLS", function()
    for _, size in ipairs {-1, 0} do
      local c, s = tls.connected()
      local f <close> = s:makefile("r", size)
      c:sendall "one\ntwo"
      assert.equal("one\ntwo", f:peek())
      assert.equal("one", f:read())
      assert.equal("two", f:peek(5))
    end
  end)

  it("wants a file to read, and a count", function()
    local f = open "w"
    assert.equal("file is not open for reading", fails("EBADF", f.peek, f).message)
    f = open()
    bad(2, f.peek, f, -1)
    bad(2, f.peek, f, "x")
    f:close()
    fails("EBADF", f.peek, f)
    assert.equal("EBADF", select(2, f:try_peek()).code)
  end)
end)

describe("a file that has read ahead", function()
  local function ahead(secured)
    local f, a
    if secured then
      local c, s = tls.connected()
      f, a = s:makefile(), c
    else
      f, a = open()
    end
    a:sendall "one\ntwo\n"
    f:read()
    return f
  end

  for _, name in ipairs {"DefaultSelector", "PollSelector"} do
    it("is ready for a " .. name .. " until that is read", function()
      for _, secured in ipairs {false, true} do
        local f <close> = ahead(secured)
        local sel <close> = selectors[name]()
        local key = sel:register(f, selectors.EVENT_READ)
        for _ = 1, 2 do
          local got, events = sel:select(0)(sel)
          assert.equal(key, got)
          assert.equal(selectors.EVENT_READ, events)
        end
        f:read()
        assert.is_nil((sel:select(0)(sel)))
        sel:unregister(f)
        local g <close> = ahead(secured)
        sel:register(g, selectors.EVENT_WRITE)
        assert.equal(selectors.EVENT_WRITE, select(2, sel:select(0)(sel)))
        sel:unregister(g)
        assert.is_nil((sel:select(0)(sel)))
      end
    end)
  end

  it("is ready for select, and alone", function()
    for _, secured in ipairs {false, true} do
      local f <close> = ahead(secured)
      local other = open()
      local r, w = selectors.select({other, f}, {}, {}, 5)
      assert.same({{f}, {}}, {r, w})
      f:read()
      assert.same({}, (selectors.select({other, f}, {}, {}, 0)))
    end
  end)

  it("is ready for loop.wait, in a task and outside", function()
    local function try()
      for _, secured in ipairs {false, true} do
        local f <close> = ahead(secured)
        assert.is_true(loop.wait(f, "r", 5))
        f:read()
        assert.is_false(loop.wait(f, "r", 0))
        assert.is_true(loop.wait(f, "w", 0))
      end
    end
    try()
    run(try)
  end)

  it("is ready for a task that waits when another reads ahead", function()
    run(function()
      local f, a = open()
      local waiting = loop.spawn(loop.wait, f, "r", 5)
      local reading = loop.spawn(f.read, f)
      socket.sleep(0.001)
      a:sendall "one\ntwo\n"
      assert.equal("one", reading:join())
      assert.is_true(waiting:join())
    end)
  end)

  it("is not when it is closed", function()
    local f = ahead()
    local sel <close> = selectors.DefaultSelector()
    sel:register(f, selectors.EVENT_READ)
    f:close()
    assert.is_nil((sel:select(0)(sel)))
  end)
end)
