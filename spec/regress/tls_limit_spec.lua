-- What OpenSSL allocates for a script counts as the state's memory: a host that limits that limits TLS too. And every
-- file that a script can name through TLS is the host's to refuse.

local certs = require "spec.support.certs"
local h = require "spec.helper"
local host = require "spec.support.host"

local MEMORY = 16000000

describe("a host's limit of memory holds for TLS:", function()
  before_each(function() host.needs(pending) end)

  -- Code that fills memory for as long as it can; the process must not grow beyond a few times the limit.
  local function bounded(memory, code, ...)
    host.holds("-t -m " .. memory, [[
      local ssl = require "socket".ssl
      local function resident()
        for line in io.lines "/proc/self/status" do
          local k = line:match "VmRSS:%s+(%d+)"
          if k then return k * 1024 end
        end
      end
      local args, keep, before = {...}, {}, resident()
      local ok, e = pcall(function() ]] .. code .. [[ end)
      assert(not ok and e:find "not enough memory", e)
      local grown = resident() - before
      assert(]] .. (h.sanitized and "true" or "grown < 6 * " .. memory) .. [[, grown) -- sanitizers keep what was freed
      keep = nil
      collectgarbage "restart"
      collectgarbage()
      collectgarbage()
      assert(ssl.MemoryBIO():write "x" == 1)
      print "ok"]], ...)
  end

  it("contexts", function()
    bounded(MEMORY, "for i = 1, 30000 do keep[i] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) end")
  end)

  it("contexts that are garbage, where nobody collects it", function()
    bounded(MEMORY, "collectgarbage 'stop' for i = 1, 30000 do ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) end")
  end)

  it("MemoryBIOs", function()
    bounded(MEMORY, [[
      local x = ("x"):rep(1 << 20)
      for i = 1, 20 do
        keep[i] = ssl.MemoryBIO()
        for _ = 1, 50 do keep[i]:write(x) end
      end]])
  end)

  it("bytes that TLS writes into them", function()
    bounded(MEMORY, [[
      local server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      server:load_cert_chain(args[1], args[2])
      local client = ssl.create_default_context {cafile = args[3]}
      local i, o = ssl.MemoryBIO(), ssl.MemoryBIO()
      local c, s = client:wrap_bio(i, o, {server_hostname = "localhost"}), server:wrap_bio(o, i, {server_side = true})
      for _ = 1, 3 do c:try_do_handshake() s:try_do_handshake() end
      local ok, e = true
      while ok do ok, e = pcall(c.write, c, ("x"):rep(10000)) end
      assert(o.pending > 1000000)
      error("not enough memory: " .. tostring(e))]],
      certs.path "server.pem", certs.path "server.key", certs.path "ca.pem")
  end)

  it("SSLObjects", function()
    bounded(MEMORY, [[
      local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
      c.check_hostname = false
      for i = 1, 20000 do
        keep[i] = c:wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        keep[i]:try_do_handshake()
      end]])
  end)

  it("trusted certificates", function()
    bounded(MEMORY // 4, [[
      local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
      local f <close> = io.open(args[1])
      local der = ssl.PEM_cert_to_DER_cert(f:read "a")
      for i = 1, 100000 do c:load_verify_locations {cadata = der:sub(1, -5) .. (">I4"):pack(i)} end]],
      certs.path "ca.pem")
  end)

  it("protocols", function()
    bounded(MEMORY, [[
      local list = {}
      for i = 1, 250 do list[i] = ("p"):rep(255) end
      for i = 1, 3000 do keep[i] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT):set_alpn_protocols(list) end]])
  end)

  it("but garbage is collected in time", function()
    host.holds("-t -m " .. MEMORY, [[
      local ssl = require "socket".ssl
      local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
      c.check_hostname = false
      local x = ("x"):rep(1 << 20)
      for _ = 1, 5000 do c:wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO()) end
      for _ = 1, 5000 do ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) end
      for _ = 1, 500 do ssl.MemoryBIO():write(x) end
      print "ok"]])
  end)
end)

describe("a host's limit of a receive", function()
  before_each(function() host.needs(pending) end)

  it("is that of a MemoryBIO", function()
    host.holds("-t -l 0:1000:0", [[
      local socket = require "socket"
      local b = socket.ssl.MemoryBIO()
      assert(b:write(("x"):rep(600)) == 600)
      local n, e = b:try_write(("x"):rep(500))
      assert(n == nil and e.code == "ENOBUFS" and b.pending == 600)
      assert(b:write(("x"):rep(400)) == 400)
      assert(#b:read(100) == 100 and b:write(("y"):rep(100)) == 100)
      assert(b:read() == ("x"):rep(900) .. ("y"):rep(100))
      print "ok"]])
  end)

  it("makes TLS wait for what it has written to be read", function()
    host.holds("-t -l 0:1000:0", [[
      local socket = require "socket"
      local ssl = socket.ssl
      local server_pem, server_key, ca = ...
      local server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      server:load_cert_chain(server_pem, server_key)
      local client = ssl.create_default_context {cafile = ca}
      local ci, co, si, so = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
      local c = client:wrap_bio(ci, co, {server_hostname = "localhost"})
      local s = server:wrap_bio(si, so, {server_side = true})
      local function move(from, to)
        local n = math.min(from.pending, 1000 - to.pending)
        if n > 0 then to:write(from:read(n)) end
      end
      local text, sent, got, waited = "", 0, "", false
      for i = 1, 5000 do text = text .. i .. "," end
      for _ = 1, 2000 do
        c:try_do_handshake()
        if s:try_do_handshake() and c:version() and sent < #text then
          local n, e = c:try_write(text:sub(sent + 1))
          if n then sent = sent + n else waited = waited or e:is(ssl.SSLWantWriteError) end
        end
        got = got .. (s:try_read(900) or "")
        assert(co.pending <= 1000 and so.pending <= 1000)
        move(co, si)
        move(so, ci)
      end
      assert(got == text and waited)
      print "ok"]], certs.path "server.pem", certs.path "server.key", certs.path "ca.pem")
  end)
end)

describe("a host that lets no file be opened", function()
  it("is asked for every file that TLS can name", function()
    host.needs(pending)
    host.holds("-t -n open", [[
      local socket = require "socket"
      local ssl = socket.ssl
      local cert, key, folder = ...
      local ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      local listener <close> = socket.create_server {"127.0.0.1", 0}
      local function refused(f, ...)
        local ok, e = pcall(f, ...)
        assert(not ok and socket.iserror(e) and e.code == "EACCES", tostring(e))
      end
      refused(ctx.load_cert_chain, ctx, cert, key)
      refused(ctx.load_verify_locations, ctx, cert)
      refused(ctx.load_verify_locations, ctx, nil, folder)
      refused(ctx.load_verify_locations, ctx, {capath = folder})
      refused(ctx.load_dh_params, ctx, cert)
      refused(function() ctx.keylog_filename = folder .. "/log" end)
      refused(ssl.create_default_context, {cafile = cert})
      refused(ssl.create_default_context, {capath = folder})
      refused(ssl.get_server_certificate, listener:getsockname(), {ca_certs = cert})
      refused(ssl, (socket.socketpair()), key, cert)
      assert(ctx.keylog_filename == nil and ctx:cert_store_stats().x509 == 0)
      print "ok"]], certs.path "server.pem", certs.path "server.key", (certs.path "ca.pem":match "^(.*)/"))
  end)
end)
