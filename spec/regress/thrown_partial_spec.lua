-- loop.timeout and task:cancel throw an error into a call that waits. What had been done by then is in the error, or is
-- done: no byte is lost, none sent twice.

require "spec.helper"
local loop = require "socket.loop"
local run = require "spec.support.looped".run
local socket = require "socket"
local support = require "spec.support"

local keep = support.keep

after_each(support.close_kept)

-- The ways to give up f(...): each returns the error object.
local ways = {
  ["loop.timeout"] = function(f, ...)
    return select(2, pcall(loop.timeout, 0.02, f, ...))
  end,
  ["task:cancel"] = function(f, ...)
    local task = loop.spawn(f, ...)
    socket.sleep(0.02)
    task:cancel()
    return select(2, pcall(task.join, task))
  end,
}

-- How many bytes are waiting at s; all of them are taken.
local function drained(s)
  local n = 0
  s:settimeout(0)
  for data in function() return (s:try_recv(1 << 20)) end do n = n + #data end
  return n
end

for name, give_up in pairs(ways) do
  describe("after " .. name, function()
    it("recv_into with MSG_WAITALL has the count in e.partial, and the bytes are in the buffer", function()
      run(function()
        local a, b = keep(socket.socketpair())
        local buf = socket.buffer(10)
        a:send "12345"
        assert.equal(5, give_up(b.recv_into, b, buf, 0, socket.MSG_WAITALL).partial)
        assert.equal("12345", buf:sub(1, 5))
        a:send "67890"
        assert.equal("67890", b:recv(10))
        assert.is_nil(give_up(b.recv_into, b, buf, 0, socket.MSG_WAITALL).partial)
      end)
    end)

    it("messages with MSG_WAITALL are whole, or still there", function()
      run(function()
        local a, b = keep(socket.socketpair())
        a:send "12345"
        assert.equal("12345", (b:recvmsg(10, 0, socket.MSG_WAITALL)))
        assert.is_nil(give_up(b.recvmsg, b, 10, 0, socket.MSG_WAITALL).partial)
        a:send "67890"
        assert.equal("67890", (b:recvfrom(10, socket.MSG_WAITALL)))
      end)
    end)

    it("a file has what it had read, for the next read", function()
      run(function()
        local a, b = keep(socket.socketpair())
        local f <close> = b:makefile()
        a:send "one\ntw"
        assert.is_true(socket.iserror(give_up(f.read, f, "l", "l")))
        assert.equal(6, f:pending())
        a:send "o\n"
        assert.same({"one", "two"}, {f:read("l", "l")})
      end)
    end)

    it("a file's write has in e.sent what it took over", function()
      run(function()
        local a, b = keep(socket.socketpair())
        local f = a:makefile("w", 100)
        local e = give_up(f.write, f, "head", ("x"):rep(4000000), "tail")
        assert.is_true(e.sent > 4 and e.sent < 4000000)
        assert.equal(e.sent, drained(b))
        assert.is_true(f:close())
      end)
    end)

    it("a file is still open where close had more to send, and can be closed again", function()
      run(function()
        local a, b = keep(socket.socketpair())
        local f = a:makefile("w", 1 << 20)
        f:write(("x"):rep(1000000))
        assert.is_true(socket.iserror(give_up(f.close, f)))
        assert.is_true(f:fileno() >= 0)
        local closing = loop.spawn(f.close, f)
        local n = 0
        while n < 1000000 do n = n + #b:recv(1 << 20) end
        assert.is_true(closing:join())
        assert.equal(1000000, n)
      end)
    end)

    it("sendfile has in e.sent what went, and leaves the file behind the last byte of that", function()
      run(function()
        local a, b = keep(socket.socketpair())
        local file <close> = io.tmpfile()
        file:write(("x"):rep(4000000)):flush()
        local e = give_up(a.sendfile, a, file)
        assert.is_true(e.sent > 0 and e.sent < 4000000)
        assert.equal(e.sent, file:seek())
        assert.equal(e.sent, drained(b))
      end)
    end)
  end)
end
