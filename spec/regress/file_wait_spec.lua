-- What a file has in its buffer is given out without waiting for the socket, however idle that is known to be.

require "spec.helper"
local loop = require "socket.loop"
local socket = require "socket"
local support = require "spec.support"

local keep = support.keep

after_each(support.close_kept)

-- A read of what has come, and others of what that did not need; at once, as a loop lets others go first now and then.
local function read_on(f)
  local ok, a, b, c, d = pcall(function() return f:read(), f:read(3), f:read(1), f:read(5) end)
  assert.same({true, "one", "two", " ", "three"}, {ok, ok and a or tostring(a), b, c, d})
  assert.is_true(socket.iserror(select(2, f:try_read(1)), socket.timeout))
end

describe("a file whose socket is idle", function()
  it("gives what it has in a task", function()
    assert.equal("one\ttrue\ttwo\n", (support.run [[
      local socket, loop = require "socket", require "socket.loop"
      loop.run(function()
        local a, b = socket.socketpair()
        b:settimeout(0.5)
        local f <close> = b:makefile()
        loop.spawn(function()
          socket.sleep(0.05)
          a:sendall "one\ntwo three"
        end)
        f:read(0)
        print(f:read(), pcall(f.read, f, 3))
        a:close()
        b:close()
      end)
    ]]))
  end)

  it("gives what it has where poll comes first", function()
    local a, b = keep(socket.socketpair())
    local shared = keep(b:dup())
    shared:settimeout(0.3)
    local f <close> = shared:makefile "rw"
    local p = support.peer(a, [[socket.sleep(0.1) s:sendall "one\ntwo three" socket.sleep(0.6)]])
    shared:settimeout(10)
    assert.equal("", f:read(0))
    shared:settimeout(0.3)
    read_on(f)
    p:close()
  end)

  it("writes into its buffer where the socket has no room", function()
    loop.run(function()
      local _, b = keep(socket.socketpair())
      b:settimeout(0.1)
      assert.is_true(socket.iserror(select(2, b:try_sendall(("x"):rep(1 << 24))), socket.timeout))
      local f = b:makefile "w"
      assert.equal(f, f:write "kept")
      assert.is_true(socket.iserror(select(2, f:try_flush()), socket.timeout))
      b:close()
    end)
  end)
end)
