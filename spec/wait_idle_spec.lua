-- lsocket_wait.c: timeouts that count the time without progress, settimeout(seconds, "idle"), and the servers'
-- idle_timeout, which is one.

local certs = require "spec.support.certs"
local check = require "spec.support.check"
local loop = require "socket.loop"
local server = require "socket.server"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local fails, keep = support.fails, support.keep
local IDLE = 0.25
local BYTES = ("0123456789abcdef"):rep(1 << 16) -- 1 MiB

after_each(support.close_kept)

-- Reads n bytes at 48 KiB each pause, so that 1 MiB takes much longer than the idle time.
local function read_steadily(s, n)
  local got = 0
  while got < n do
    local want = 49152
    while want > 0 and got < n do
      local data = s:recv(math.min(want, n - got))
      if not data then return got end
      got, want = got + #data, want - #data
    end
    socket.sleep(IDLE / 8)
  end
  return got
end

-- send(s) in a task while another one reads from s's peer; both must come to their ends.
local function steady(a, b, send)
  local took = check.took(loop.run, function()
    loop.group(function(g)
      g:spawn(function() send(a:settimeout(IDLE, "idle")) end)
      g:spawn(function() assert.equal(#BYTES, read_steadily(b:settimeout(5), #BYTES)) end)
    end)
  end)
  assert.is_true(took > 2 * IDLE, took) -- as a bound of the whole it would have been too short
end

-- Unix streams: what their reader has not read their writer still has.
local function pair() return keep(socket.socketpair()) end

describe("an idle timeout", function()
  it("begins anew with all that sendall gets rid of", function()
    local a, b = pair()
    steady(a, b, function(s) s:sendall(BYTES) end)
  end)

  it("begins anew in files that are written, and in sendfile", function()
    local a, b = pair()
    steady(a, b, function(s)
      local f <close> = s:makefile("w", 4096)
      f:write(BYTES:sub(1, -2), "x")
    end)
    local name = os.tmpname()
    local f <close> = assert(io.open(name, "w+"))
    f:write(BYTES)
    f:flush()
    os.remove(name)
    a, b = pair()
    steady(a, b, function(s)
      f:seek "set"
      assert.equal(#BYTES, s:sendfile(f))
    end)
  end)

  it("begins anew over TLS", function()
    if not socket.ssl then return pending "needs socket.ssl" end
    local c, s = tls.pair()
    assert.is_truthy(certs.path "ca.pem")
    steady(s, c, function(sock) sock:sendall(BYTES) end)
  end)

  it("begins anew with all that is received of what a file reads", function()
    local a, b = keep(support.tcp())
    loop.run(function()
      loop.group(function(g)
        g:spawn(function()
          for _ = 1, 20 do
            b:sendall(("x"):rep(50))
            socket.sleep(IDLE / 10)
          end
          b:close()
        end)
        g:spawn(function()
          local f <close> = a:settimeout(IDLE, "idle"):makefile "r"
          assert.equal(1000, #f:read "a")
        end)
      end)
    end)
  end)

  it("begins anew where the thread itself waits", function()
    local a, b = pair()
    local p = support.peer(b, [[
      local got = 0
      while got < 1 << 20 do
        local data = s:recv(49152)
        if not data then break end
        got = got + #data
        socket.sleep(0.01)
      end
      print(got)
    ]])
    a:settimeout(IDLE, "idle"):sendall(BYTES)
    a:close()
    assert.equal(#BYTES, p:read "n")
    p:close()
  end)

  it("sees that a peer reads what waits in the system, long before there is room for more", function()
    local a, b = pair() -- poll(2) tells of room when three quarters are free
    loop.run(function()
      loop.group(function(g)
        g:spawn(function() a:settimeout(IDLE, "idle"):sendall(BYTES) end)
        g:spawn(function()
          local got = #b:settimeout(5):recv(16384) -- what is sent at once, 36 KiB, is free at once
          for _ = 1, 12 do
            socket.sleep(IDLE / 6)
            got = got + #b:recv(16384)
          end
          while got < #BYTES do got = got + #b:recv(65536) end
        end)
      end)
    end)
  end)

  it("is over when nothing moves any more, and tells how far it came", function()
    for _, make in ipairs {support.tcp, socket.socketpair} do
      local a, b = keep(make())
      a:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
      b:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
      loop.run(function()
        loop.group(function(g)
          g:spawn(function()
            local start = socket.monotonic()
            local e = fails("ETIMEDOUT", a.sendall, a:settimeout(IDLE, "idle"), BYTES)
            assert.is_true(e.sent > 0 and e.sent < #BYTES)
            assert.is_true(socket.monotonic() - start < 20 * IDLE)
          end)
          g:spawn(function()
            socket.sleep(IDLE / 2)
            b:recv(4096)
          end)
        end)
      end)
      local start = socket.monotonic() -- and where the thread waits
      fails("ETIMEDOUT", a.sendall, a, BYTES)
      check.on_time(IDLE, start)
      start = socket.monotonic()
      fails("ETIMEDOUT", a.recv, a, 1)
      check.on_time(IDLE, start)
    end
  end)

  it("is what settimeout makes it, and without a word the bound of the whole operation", function()
    local a, b = pair()
    assert.equal(IDLE, a:settimeout(IDLE, "idle"):gettimeout())
    a:settimeout(IDLE)
    loop.run(function()
      loop.group(function(g)
        g:spawn(function()
          fails("ETIMEDOUT", a.sendall, a, BYTES)
          a:close()
        end)
        g:spawn(function() read_steadily(b:settimeout(5), #BYTES) end)
      end)
    end)
    a, b = pair()
    for _, mode in ipairs {"each", "", "Idle"} do
      local ok, text = pcall(a.settimeout, a, 1, mode)
      assert.is_false(ok)
      assert.matches("invalid option", text)
    end
    b:settimeout(nil, "total")
  end)

  it("goes along to duplicates and to TLS sockets", function()
    local a, b = pair()
    local copy = keep(a:settimeout(IDLE, "idle"):dup())
    loop.run(function()
      loop.group(function(g)
        g:spawn(function() copy:sendall(BYTES) end)
        g:spawn(function() read_steadily(b:settimeout(5), #BYTES) end)
      end)
    end)
  end)
end)

describe("idle_timeout of a server", function()
  it("lets a client read as long as it gets further, with each class", function()
    for _, class in ipairs {server.TaskUnixStreamServer, server.UnixStreamServer} do
      local errors, path = {}, os.tmpname()
      os.remove(path)
      local s <close> = class(path, function(request) request:sendall(BYTES) end, {
        idle_timeout = IDLE, timeout = 5, handle_error = function(_, _, _, e) errors[#errors + 1] = tostring(e) end,
      })
      local p = support.peer(socket.socket(socket.AF_UNIX):connect(path), [[
        local got = 0
        for data in function() return s:recv(49152) end do
          got = got + #data
          socket.sleep(0.02)
        end
        print(got)
      ]])
      os.remove(path)
      assert.is_true(s:handle_request())
      assert.same({}, errors)
      assert.equal(#BYTES, p:read "n")
      p:close()
    end
  end)
end)
