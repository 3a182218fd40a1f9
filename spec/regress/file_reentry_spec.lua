-- A callback of a TLS handshake runs in the middle of a read, a write or a sendfile that makes the handshake. What it did
-- with the same file used to replace the memory that OpenSSL read from or wrote to, or closed what was read next. Sockets
-- that block make the whole handshake in one attempt.

local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"

after_each(support.close_kept)

-- What a process prints that serves one connection: serve(s), with callback() called within the handshake. The client,
-- another process, says "hello\n" and prints how many bytes it gets, and which.
local function served(code)
  local a, b = support.keep(socket.socketpair())
  local client = support.peer(a, ([[
    local ssl = require "socket.ssl"
    local ctx = ssl.create_default_context {cafile = %q}
    s:settimeout(10)
    local c = ctx:try_wrap_socket(s, {server_hostname = "localhost"})
    if not c then return print "refused" end
    c:try_sendall "hello\n"
    local got = {}
    for data in function() return (c:try_recv(65536)) end do got[#got + 1] = data end
    got = table.concat(got)
    local kinds = ""
    for byte in got:gmatch "[^\n]" do
      if not kinds:find(byte, 1, true) then kinds = kinds .. byte end
    end
    print(#got, kinds)
  ]]):format(certs.path "ca.pem"))
  local server = support.peer(b, ([[
    local ssl = require "socket.ssl"
    local callback, serve
    local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx:load_cert_chain(%q, %q)
    ctx.sni_callback = function()
      callback()
      collectgarbage()
      collectgarbage()
    end
    local function code(f, ...)
      local ok, e = pcall(f, ...)
      return ok and "ok" or e.code
    end
    %s
    serve(ctx:wrap_socket(s, {server_side = true, do_handshake_on_connect = false}))
  ]]):format(certs.path "server.pem", certs.path "server.key", code))
  local text = server:read "a" .. client:read "a"
  server:close()
  client:close()
  return text
end

describe("a file, in a callback of its own connection's handshake", function()
  it("is not read: EBUSY, and the read that the callback interrupts gives its line", function()
    assert.equal("EBUSY EBUSY EBUSY EBUSY\nhello\n0\t\n", served [[
      local f, codes
      function callback()
        codes = {code(f.read, f, 100000), code(f.read, f), code(f.peek, f), code(f:lines())}
      end
      function serve(s)
        f = s:makefile "r"
        local line = f:read()
        print(table.concat(codes, " "))
        print(line)
        f:close()
        s:close()
      end
    ]])
  end)

  it("keeps what it had read ahead for the read that goes on", function()
    assert.equal("EBUSY\nhello\n0\t\n", served [[
      local f, codes
      function callback() codes = code(f.read, f, 2) end
      function serve(s)
        f = s:makefile "r"
        f:read(0)
        print(codes)
        print(f:read())
        f:close()
        s:close()
      end
    ]])
  end)

  it("is not written to: EBUSY, and the bytes that the callback interrupts are the ones that go", function()
    assert.equal("EBUSY EBUSY ok\n1006\tx after\n", served [[
      local f, codes
      function callback()
        local set = code(f.setvbuf, f, "full", 1 << 20)
        codes = {code(f.flush, f), code(f.write, f, ("B"):rep(50000)), set}
      end
      function serve(s)
        f = s:makefile("rw", 5000)
        f:write(("x"):rep(1000)):flush()
        print(table.concat(codes, " "))
        f:write " after"
        f:close()
        s:close()
      end
    ]])
  end)

  it("stays open if there is something to be sent first; another one of the connection closes", function()
    assert.equal("EBUSY ok\n5\tx\n", served [[
      local f, g, codes
      function callback() codes = code(f.close, f) .. " " .. code(g.close, g) end
      function serve(s)
        f, g = s:makefile "w", s:makefile "r"
        f:write "xxxxx":flush()
        print(codes)
        f:close()
        s:close()
      end
    ]])
  end)

  it("is to be used again when the handshake has failed by the callback's own error", function()
    assert.equal("oh\ntrue\nrefused\n", served [[
      local f
      function callback() error("oh", 0) end
      function serve(s)
        f = s:makefile "r"
        print(select(2, pcall(f.read, f)))
        local failure = code(f.read, f)
        print(failure ~= "EBUSY" and failure ~= "ok")
        f:close()
        s:close()
      end
    ]])
  end)
end)

describe("sendfile of a Lua file that a callback closes", function()
  it("sends no other file that was opened since, and says how much of the first went", function()
    assert.equal("ECANCELED\t65536\n65536\tx\n", served [[
      local function tmpfile(bytes)
        local f = io.tmpfile()
        f:write(bytes:rep(200000)):flush()
        return f
      end
      local file, other = tmpfile "x"
      function callback()
        file:close()
        other = tmpfile "secret"
      end
      function serve(s)
        local _, e = pcall(s.sendfile, s, file)
        print(e.code, e.sent)
        other:close()
        s:close()
      end
    ]])
  end)

  it("reads no pipe that was closed", function()
    assert.equal("ECANCELED\t65536\n65536\ty\n", served [[
      local pipe = io.popen "exec yes 2>/dev/null"
      function callback() pipe:close() end
      function serve(s)
        local _, e = pcall(s.sendfile, s, pipe)
        print(e.code, e.sent)
        s:close()
      end
    ]])
  end)
end)
