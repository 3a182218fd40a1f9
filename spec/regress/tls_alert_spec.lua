-- Under TLS 1.3 a client learns after its handshake that the server wants a certificate. When the server is gone by
-- then, sending fails; the alert that came before it is what the client has to be told, not ECONNRESET.

local certs = require "spec.support.certs"
local loop = require "socket.loop"
local socket = require "socket"
local ssl = require "socket.ssl"

describe("a TLS client whose peer refused it and went", function()
  it("is told the alert by the send that fails", function()
    local server_ctx = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH, cafile = certs.path "ca.pem"}
    server_ctx:load_cert_chain(certs.path "server.pem", certs.path "server.key")
    server_ctx.verify_mode = ssl.CERT_REQUIRED
    local ctx = ssl.create_default_context {cafile = certs.path "ca.pem"}
    loop.run(function()
      local listener <close> = socket.create_server {"127.0.0.1", 0}
      local server = loop.spawn(function()
        local conn = listener:accept()
        assert.is_nil(server_ctx:try_wrap_socket(conn, {server_side = true}))
        conn:close()
      end)
      local plain = socket.create_connection(listener:getsockname(), 5)
      local s <close> = ctx:wrap_socket(plain, {server_hostname = "localhost"})
      s:settimeout(5)
      server:join()
      local sent, e
      for _ = 1, 100 do -- the first ones may still find room
        sent, e = s:try_sendall(("x"):rep(1000))
        if not sent then break end
        socket.sleep(0.01)
      end
      assert.is_nil(sent)
      assert.equal("TLSV13_ALERT_CERTIFICATE_REQUIRED", e.code)
      assert.is_true(e:is(ssl.SSLError))
    end)
  end)
end)
