-- What was to be sent over TLS when a timeout came: a record that was begun must be finished, with its bytes and no
-- others.

require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local fails = support.fails

after_each(tls.clean)

for _, version in ipairs {"TLSv1_2", "TLSv1_3"} do
  describe(version .. ": after a timeout in sendall", function()
    local c, s, data, at

    -- Sends until there is no room; `at` is how much of `data` went.
    before_each(function()
      c, s = tls.connected {version = version}
      data, at = tls.random_bytes(3000017), 0
      for _ = 1, 3 do -- a record that has been begun, also where the first attempt ended between two
        local e = fails("ETIMEDOUT", c.sendall, c:settimeout(0.02), data:sub(at + 1))
        at = at + e.sent
      end
      c:settimeout(0)
      s:settimeout(10)
    end)

    -- Sends what is left, in pieces of these sizes one after the other; what the other end got in all.
    local function finish(sizes)
      local rest, got, turn = data:sub(at + 1), {}, 0
      s:settimeout(0)
      local stop = socket.monotonic() + 20
      repeat
        local n, e = c:try_send(rest:sub(1, sizes[turn % #sizes + 1]))
        assert(n or e.code == "EAGAIN", e)
        if n then rest, turn = rest:sub(n + 1), turn + 1 end
        if not n or rest == "" then
          local part = s:try_recv(1000000)
          got[#got + 1] = part
        end
        assert(socket.monotonic() < stop)
      until rest == "" and not s:try_recv(1, socket.MSG_PEEK)
      return table.concat(got)
    end

    it("the rest follows, in pieces of any size", function()
      assert.is_true(finish {1, 2, 100, 5000, 16384, 16385, 7, 100000, 16383} == data)
    end)

    it("other bytes are refused, and the right ones still come", function()
      for _ = 1, 2 do fails("BAD_WRITE_RETRY", c.send, c, ("x"):rep(20000)) end
      fails("BAD_WRITE_RETRY", c.send, c, "x" .. data:sub(at + 2))
      assert.is_true(finish {100000} == data)
      assert.equal(1, c:send "x")
      assert.equal("x", s:settimeout(10):recv(1))
    end)

    it("the other end may be heard meanwhile", function()
      s:sendall "hello"
      assert.equal("hello", c:settimeout(5):recv(100))
      c:settimeout(0)
      assert.is_true(finish {20000} == data)
    end)

    it("a goodbye comes behind the record", function()
      local _, e = c:try_shutdown(socket.SHUT_WR)
      assert.equal("EAGAIN", e.code)
      local got, said = {}, nil
      repeat
        said = said or c:try_shutdown(socket.SHUT_WR)
        local part = s:recv(1000000)
        got[#got + 1] = part
      until not part
      got = table.concat(got)
      assert.is_true(#got > at and got == data:sub(1, #got))
      assert.is_true(#got - at <= 16384)
    end)
  end)
end

-- The maximum fragment length extension (RFC 6066): how long a record begun is then.
describe("with a peer that takes short records", function()
  it("the rest follows after timeouts", function()
    local listener, port = tls.listener()
    local p = tls.start(([[sh -c 'openssl s_client -connect 127.0.0.1:%d -maxfraglen 1024 -quiet -verify_quiet \
      -CAfile %s </dev/null | (sleep 1; sha256sum)']]):format(port, certs.path "ca.pem"))
    local s <close> = tls.server():wrap_socket(listener:accept():settimeout(10), {server_side = true})
    local data, at = tls.random_bytes(9000001), 0
    for _ = 1, 3 do at = at + fails("ETIMEDOUT", s.sendall, s:settimeout(0.1), data:sub(at + 1)).sent end
    s:settimeout(20):sendall(data:sub(at + 1)):unwrap()
    s:close()
    local sum = support.output(("sha256sum <%s"):format(tls.file("data", data))):match "%x+"
    assert.equal(sum, p:text():match(("%x"):rep(64)))
  end)
end)
