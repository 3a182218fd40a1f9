-- The TLS programs in examples/, run as a person runs them, with each other,
-- with curl, openssl and Python, and with peers that do what they should not.

local certs = require "spec.support.certs"
local examples = require "spec.support.examples"
local helper = require "spec.helper"
local socket = require "socket"

local ssl = socket.ssl
local output, run, start = examples.output, examples.run, examples.start

local folder

local function made(name) return folder .. "/" .. name end

-- What a shell command prints, and whether it ended well.
local function shell(text, ...)
  return output(assert(io.popen(("exec 2>&1; timeout 20 sh -c " .. helper.quote(text:format(...))))))
end

-- A client against a server of this process: serve(conn) does the talking. What the client said, and if it ended well.
local function against(serve, script, ...)
  local listener <close> = socket.create_server {"127.0.0.1", 0}
  local words = {...}
  for i, word in ipairs(words) do words[i] = word:gsub("PORT", listener:getsockname().port) end
  local client = examples.open("echo Hi | " .. examples.command(script, table.unpack(words)))
  listener:settimeout(10)
  local conn = listener:accept()
  conn:settimeout(10)
  local ok, e = pcall(serve, conn)
  conn:try_close()
  if not ok and not socket.iserror(e) then error(e, 0) end
  return output(client)
end

local function server_context(name)
  local ctx = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
  ctx:load_cert_chain(name and certs.path(name .. ".pem") or made "server.pem",
    name and certs.path(name .. ".key") or made "server.key")
  return ctx
end

describe("examples of TLS:", function()
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    local said, ok = shell("sh %s/examples/make_certs.sh %s", helper.quote(helper.root), folder)
    assert(ok, said)
    assert.equal("", said)
  end)

  teardown(function() assert(os.execute("rm -r " .. folder)) end)
  after_each(examples.stop)

  describe("make_certs", function()
    it("makes what verifies strictly, and keeps no key to sign more", function()
      local said, ok = shell([[
        cd %s
        openssl verify -x509_strict -purpose sslserver -verify_hostname localhost -CAfile ca.pem server.pem
        openssl verify -x509_strict -purpose sslserver -verify_ip ::1 -CAfile ca.pem server.pem
        openssl verify -x509_strict -purpose sslclient -CAfile ca.pem client.pem
        stat -c '%%a %%n' *]], folder)
      assert.truthy(ok, said)
      assert.equal("server.pem: OK\nserver.pem: OK\nclient.pem: OK\n600 ca.pem\n600 client.key\n600 client.pem\n"
        .. "600 server.key\n600 server.pem\n", said)
    end)

    it("says what went wrong", function()
      local script = helper.quote(helper.root .. "/examples/make_certs.sh")
      local said, ok = shell("sh %s", script)
      assert.falsy(ok)
      assert.matches("usage: sh examples/make_certs.sh folder", said)
      said, ok = shell([[mkdir %s/bin && printf '#!/bin/sh\necho no such luck >&2; exit 3\n' >%s/bin/openssl &&
        chmod +x %s/bin/openssl && PATH=%s/bin:$PATH sh %s %s/again]],
        folder, folder, folder, folder, script, folder)
      assert.falsy(ok)
      assert.equal("no such luck\n", said)
      assert(os.execute(("rm -r %s/bin %s/again"):format(folder, folder)))
    end)
  end)

  describe("https_server and https_get", function()
    it("verify each other's work, and print the certificate", function()
      local server, _, port = start("https_server", made "server.pem", made "server.key", "127.0.0.1", 0, 4)
      local url = ("https://localhost:%d/x?y=1"):format(port)
      local said, ok = run("https_get", url, made "ca.pem")
      assert.truthy(ok, said)
      local time = "%u%l%l [ %d]%d %d%d:%d%d:%d%d %d%d%d%d GMT"
      assert.matches("^TLSv1%.3, TLS_%S+\n"
        .. "  subject: organizationName=Examples, commonName=localhost\n"
        .. "  issuer: organizationName=Examples, commonName=A CA for examples\n"
        .. "  valid from: " .. time .. "\n  valid until: " .. time .. "\n"
        .. "  DNS: localhost\n  IP Address: 127%.0%.0%.1\n  IP Address: ::1\n"
        .. "status: HTTP/1%.1 200 OK\nbody: 19 bytes\n$", said)
      assert.truthy(select(2, run("https_get", ("https://127.0.0.1:%d"):format(port), made "ca.pem")))
      for _, ca in ipairs {certs.path "other_ca.pem", ""} do
        said, ok = run("https_get", url, ca)
        assert.falsy(ok)
        assert.matches("CERTIFICATE_VERIFY_FAILED", said)
        assert.not_matches("status", said)
      end
      said, ok = output(server)
      assert.truthy(ok)
      assert.matches('^127%.0%.0%.1:%d+ "GET /x%?y=1 HTTP/1%.0"\n', said)
      assert.equal(2, select(2, said:gsub("TLSV1_ALERT_UNKNOWN_CA", "")))
    end)

    it("the server serves curl, and outlives who speaks no TLS, or no HTTP", function()
      local server, _, port = start("https_server", made "server.pem", made "server.key", "127.0.0.1", 0, 6)
      local said, ok = shell("curl -sS --noproxy '*' --cacert %s https://localhost:%d/", made "ca.pem", port)
      assert.truthy(ok, said)
      assert.equal("Hello over TLSv1.3\n", said)
      said = shell("curl -sS --noproxy '*' --cacert %s --tls-max 1.2 https://localhost:%d/", made "ca.pem", port)
      assert.equal("Hello over TLSv1.2\n", said)
      said, ok = shell("curl -sS --noproxy '*' http://localhost:%d/", port)
      assert.falsy(ok, said)
      for _, request in ipairs {"what?\r\n\r\n", "GET / HTTP/1.0\r\nX: " .. ("x"):rep(8200) .. "\r\n"} do
        local ctx = ssl.create_default_context {cafile = made "ca.pem"}
        local s <close> = ctx:wrap_socket(socket.create_connection({"localhost", port}, 10),
          {server_hostname = "localhost"})
        s:sendall(request)
        assert.matches("^HTTP/1.1 400 Bad Request\r\n", s:recv(1000))
      end
      socket.create_connection({"127.0.0.1", port}, 10):close()
      said, ok = output(server)
      assert.truthy(ok, said)
      assert.matches("HTTP_REQUEST", said)
      assert.equal(6, select(2, said:gsub("\n", "")))
    end)

    it("the client refuses a certificate that is not the host's, or no longer good", function()
      for name, problem in pairs {second = "hostname mismatch", expired = "has expired",
          self_signed = "self.signed certificate", purpose = "certificate purpose"} do
        local said, ok = against(function(conn) server_context(name):wrap_socket(conn, {server_side = true}) end,
          "https_get", "https://localhost:PORT/", certs.path "ca.pem")
        assert.falsy(ok)
        assert.matches(problem, said)
      end
    end)

    -- The client's output when the server answers that, and says goodbye or not.
    local function answered(answer, goodbye, ...)
      return against(function(conn)
        local s <close> = server_context():wrap_socket(conn, {server_side = true})
        local request = ""
        repeat request = request .. s:recv(1000) until request:find "\r\n\r\n"
        assert.matches("^GET /page HTTP/1%.0\r\nHost: localhost:%d+\r\n", request)
        s:sendall(answer)
        if not goodbye then socket.close(s:detach()) end
      end, "https_get", "https://localhost:PORT/page#part", made "ca.pem", ...)
    end

    it("the client saves a page, and notices one that is cut off", function()
      local file = os.tmpname()
      local said, ok = answered("HTTP/1.0 200 OK\r\n\r\nbody\0\n", true, file)
      assert.truthy(ok, said)
      assert.matches("\nstatus: HTTP/1%.0 200 OK\nbody: 6 bytes\n$", said)
      local f <close> = assert(io.open(file, "rb"))
      assert.equal("body\0\n", f:read "a")
      os.remove(file)
      said, ok = answered("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody", false)
      assert.truthy(ok, said)
      said, ok = answered("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nbody", true, file)
      assert.falsy(ok)
      assert.matches("the page is cut off\n$", said)
      said, ok = answered("HTTP/1.0 200 OK\r\n\r\nbody", false, file)
      assert.falsy(ok)
      assert.matches("UNEXPECTED_EOF_WHILE_READING", said)
      assert.is_nil(io.open(file))
      said, ok = answered("HTTP/1.0 200 OK\r\n", true)
      assert.falsy(ok)
      assert.matches("no HTTP answer\n$", said)
    end)

    it("the client gives the terminal no orders of the server's", function()
      local said, ok = answered("HTTP/1.0 200 \27[2Jx\r\n\r\n", true)
      assert.truthy(ok)
      assert.matches("\nstatus: HTTP/1.0 200 %?%[2Jx\n", said)
    end)

    it("the client speaks https only", function()
      for _, url in ipairs {"http://localhost/", "https://", "https://a b/", "https://a@b/", "https://a/\r\nX: y"} do
        local said, ok = run("https_get", url)
        assert.falsy(ok)
        assert.matches("not an https:// address", said)
      end
      local said, ok = run "https_get"
      assert.falsy(ok)
      assert.matches("usage", said)
    end)
  end)

  describe("mtls_server", function()
    local function serve(connections)
      return start("mtls_server", made "ca.pem", made "server.pem", made "server.key", "127.0.0.1", 0, connections)
    end

    -- By an alert; or by a reset, if the server was gone before the client had sent its question.
    local function refused(alert, said)
      local code = said:match "^refused: .* %((%u[%u%d_]+)%)\n$"
      assert.is_true(code == alert or code == "ECONNRESET" or code == "EPIPE", said)
    end

    it("greets whom it knows: our client, curl, openssl", function()
      local server, _, port = serve(3)
      local said, ok = run("mtls_client", "localhost", port, made "ca.pem", made "client.pem", made "client.key")
      assert.truthy(ok, said)
      assert.equal("the server says: Hello, A client <client@example.test>\n", said)
      said, ok = shell("cd %s && curl -sS --noproxy '*' --cacert ca.pem --cert client.pem --key client.key "
        .. "https://localhost:%d/", folder, port)
      assert.truthy(ok, said)
      assert.equal("Hello, A client <client@example.test>\n", said)
      said, ok = shell("cd %s && printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -tls1_2 -CAfile ca.pem "
        .. "-cert client.pem -key client.key -connect localhost:%d", folder, port)
      assert.truthy(ok, said)
      assert.matches("Hello, A client <client@example.test>\n", said)
      said, ok = output(server)
      assert.truthy(ok)
      assert.equal(3, select(2, said:gsub("welcome: 127%.0%.0%.1:%d+ A client <client@example%.test>\n", "")))
    end)

    it("lets nobody in without a certificate, with a stranger's, or a server's", function()
      local server, _, port = serve(5)
      local said, ok = run("mtls_client", "localhost", port, made "ca.pem")
      assert.falsy(ok)
      refused("TLSV13_ALERT_CERTIFICATE_REQUIRED", said)
      said, ok = run("mtls_client", "localhost", port, made "ca.pem", certs.path "client.pem", certs.path "client.key")
      assert.falsy(ok)
      refused("TLSV1_ALERT_UNKNOWN_CA", said)
      said, ok = run("mtls_client", "localhost", port, made "ca.pem", made "server.pem", made "server.key")
      assert.falsy(ok)
      refused("SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", said)
      said, ok = shell("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -tls1_2 -CAfile %s "
        .. "-connect localhost:%d", made "ca.pem", port)
      assert.falsy(ok)
      assert.not_matches("Hello", said)
      assert.truthy(select(2, run("mtls_client", "localhost", port, made "ca.pem", made "client.pem",
        made "client.key")))
      said, ok = output(server)
      assert.truthy(ok)
      assert.equal(4, select(2, said:gsub("refused: 127%.0%.0%.1:%d+", "")))
      assert.equal(2, select(2, said:gsub("PEER_DID_NOT_RETURN_A_CERTIFICATE", "")))
      assert.equal(2, select(2, said:gsub("CERTIFICATE_VERIFY_FAILED", "")))
    end)

    it("is verified by its client too", function()
      local server, _, port = serve(1)
      local said, ok = run("mtls_client", "localhost", port, certs.path "ca.pem", made "client.pem", made "client.key")
      assert.falsy(ok)
      assert.matches("^refused: .* %(CERTIFICATE_VERIFY_FAILED%)\n$", said)
      assert.matches("refused: .*TLSV1_ALERT_UNKNOWN_CA", (output(server)))
    end)
  end)

  describe("starttls_server", function()
    local function serve(connections)
      return start("starttls_server", made "server.pem", made "server.key", "127.0.0.1", 0, connections)
    end

    it("takes mail from our client, dots and all", function()
      local server, _, port = serve(1)
      local said, ok = output(assert(io.popen(([[printf 'one\n.two\n\n.\nthree' | %s]]):format(examples.command(
        "starttls_client", "localhost", port, made "ca.pem", "me@example.test", "you@example.test")))))
      assert.truthy(ok, said)
      assert.equal("- 220 localhost ready\nEHLO 250-hello\nEHLO 250 STARTTLS\nSTARTTLS 220 go ahead\n- TLSv1.3\n"
        .. "EHLO 250 hello\nMAIL 250 from whom\nRCPT 250 to whom\nDATA 354 end with a dot\n- 250 thank you\n"
        .. "QUIT 221 bye\n", said)
      said, ok = output(server)
      assert.truthy(ok)
      assert.equal([[message over TLSv1.3, FROM:<me@example.test> TO:<you@example.test>: "one\n.two\n\n.\nthree"]]
        .. "\n", said)
    end)

    it("takes mail from Python's smtplib and from curl, and upgrades for openssl", function()
      local server, _, port = serve(3)
      local said, ok = shell([[cd / && python3 -I -c '
import smtplib, ssl
s = smtplib.SMTP("localhost", %d, timeout=10)
s.starttls(context=ssl.create_default_context(cafile="%s"))
s.sendmail("me@example.test", ["a@example.test", "b@example.test"], "Subject: x\n\n.dot\n")
s.quit()']], port, made "ca.pem")
      assert.truthy(ok, said)
      said, ok = shell("printf 'Hi\\r\\n' | curl -sS --ssl-reqd --noproxy '*' --cacert %s smtp://localhost:%d "
        .. "--mail-from me@example.test --mail-rcpt you@example.test -T -", made "ca.pem", port)
      if not said:find "not supported" then assert.truthy(ok, said) end
      said = shell("(sleep 0.3; printf 'NOOP\\r\\nQUIT\\r\\n') | openssl s_client -quiet -verify_return_error "
        .. "-CAfile %s -starttls smtp -connect localhost:%d", made "ca.pem", port)
      assert.matches("250 fine\r\n221 bye", said)
      said, ok = output(server)
      assert.truthy(ok)
      assert.matches([[FROM:<me@example%.test>[^\n]* TO:<a@example%.test> TO:<b@example%.test>: "Subject: x\n\n%.dot"]],
        said)
      assert.matches([[FROM:<me@example%.test>[^\n]* TO:<you@example%.test>: "Hi"]], said)
    end)

    -- A client in the clear: sends all at once, returns what comes back.
    local function say(port, text)
      local s <close> = socket.create_connection({"127.0.0.1", port}, 10)
      s:sendall(text)
      local pieces = {}
      for data in function() return s:try_recv(4096) end do pieces[#pieces + 1] = data end
      return table.concat(pieces)
    end

    it("takes none in the clear", function()
      local server, _, port = serve(1)
      assert.equal("220 localhost ready\r\n500 what?\r\n" .. ("530 STARTTLS first\r\n"):rep(3)
        .. "250 fine\r\n221 bye\r\n", say(port, "HELO x\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\nNOOP\r\nQUIT\r\n"))
      assert.equal("", (output(server)))
    end)

    it("believes nothing that was sent ahead over STARTTLS", function()
      local server, _, port = serve(3)
      assert.equal("220 localhost ready\r\n250-hello\r\n250 STARTTLS\r\n554 nothing may follow STARTTLS\r\n",
        say(port, "EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@example.test>\r\n"))
      -- One that comes after the upgrade has begun is no handshake.
      local s <close> = socket.create_connection({"127.0.0.1", port}, 10)
      local file <close> = s:makefile "rw"
      assert.equal("220 localhost ready\r", file:read())
      file:write("STARTTLS\r\n"):flush()
      assert.equal("220 go ahead\r", file:read())
      file:write("MAIL FROM:<evil@example.test>\r\n"):flush()
      file:try_read "a"
      local said, ok = output(assert(io.popen("echo good | " .. examples.command("starttls_client", "localhost", port,
        made "ca.pem", "me@example.test", "you@example.test"))))
      assert.truthy(ok, said)
      said, ok = output(server)
      assert.truthy(ok)
      assert.matches("^127%.0%.0%.1:%d+: somebody sent ahead over STARTTLS\n127%.0%.0%.1:%d+: .*wrap_socket: .*\n"
        .. 'message over TLSv1%.3, FROM:<me@example%.test> TO:<you@example%.test>: "good"\n$', said)
      assert.not_matches("evil", said)
    end)

    it("bears with lines, messages and lists without end, and with who goes away", function()
      local server, _, port = serve(4)
      assert.equal("220 localhost ready\r\n", say(port, ("x"):rep(5000)))
      local function secure()
        local s = socket.create_connection({"localhost", port}, 10)
        s:sendall "STARTTLS\r\n"
        local text = ""
        repeat text = text .. s:recv(100) until text:find "go ahead\r\n"
        return ssl.create_default_context {cafile = made "ca.pem"}:wrap_socket(s, {server_hostname = "localhost"})
      end
      local s <close> = secure()
      s:sendall("STARTTLS\r\nRCPT x\r\nDATA\r\nMAIL x\r\nDATA\r\n")
      s:try_sendall(("\n"):rep(70000))
      local text = ""
      for data in function() return s:try_recv(4096) end do text = text .. data end
      assert.equal("503 it is TLS already\r\n503 MAIL first\r\n503 MAIL first\r\n250 from whom\r\n"
        .. "354 end with a dot\r\n", text)
      local t <close> = secure()
      t:sendall("MAIL x\r\n" .. ("RCPT " .. ("y"):rep(500) .. "\r\n"):rep(4) .. "RSET\r\nDATA\r\nQUIT\r\n")
      text = ""
      for data in function() return t:recv(4096) end do text = text .. data end
      assert.equal("250 from whom\r\n250 to whom\r\n250 to whom\r\n452 that will do\r\n452 that will do\r\n"
        .. "250 forgotten\r\n503 MAIL first\r\n221 bye\r\n", text)
      local u = socket.create_connection({"127.0.0.1", port}, 10)
      assert.equal("220 localhost ready\r\n", u:recv(21, socket.MSG_WAITALL))
      u:close()
      local said, ok = output(server)
      assert.truthy(ok)
      assert.equal(2, select(2, said:gsub("the client went away\n", "")))
      assert.equal(1, select(2, said:gsub("a message was cut off, or too long\n", "")))
    end)
  end)

  describe("starttls_client", function()
    -- The client with a server that answers each line so; what the client said then, and printed.
    local function answers(...)
      local list, heard = {...}, {}
      local said, ok = against(function(conn)
        for i, answer in ipairs(list) do
          conn:sendall(answer)
          if i == #list then conn:shutdown(socket.SHUT_WR) end
          heard[#heard + 1] = conn:try_recv(1000)
        end
      end, "starttls_client", "localhost", "PORT", made "ca.pem", "me@example.test", "you@example.test")
      assert.falsy(ok)
      assert.not_matches("MAIL", table.concat(heard))
      return said, heard
    end

    it("sends nothing where there is no STARTTLS", function()
      local said, heard = answers("220 hi\r\n", "250-hello\r\n250 SIZE\r\n")
      assert.matches("no TLS there: not sent\n$", said)
      assert.same({"EHLO localhost\r\n"}, heard)
      said = answers("220 hi\r\n", "250 STARTTLS\r\n", "454 not now\r\n")
      assert.matches("454 not now\nthat was not expected\n$", said)
      assert.matches("that was not expected\n$", (answers("554 go away\r\n")))
      assert.matches("the server went away\n$", (answers("220")))
      assert.matches("the answer is too long\n$", (answers(("220-"):rep(1000))))
      assert.matches("that was not expected\n$", (answers(("220-x\r\n"):rep(200))))
    end)

    it("believes nothing that came in the clear behind the answer to STARTTLS", function()
      local said = answers("220 hi\r\n", "250 STARTTLS\r\n", "220 go ahead\r\n250 injected\r\n")
      assert.matches("something came in the clear behind the answer to STARTTLS: not sent\n$", said)
    end)

    it("sends nothing to a server that is not the one", function()
      for name, problem in pairs {second = "CERTIFICATE_VERIFY_FAILED", server = "CERTIFICATE_VERIFY_FAILED"} do
        local said, ok = against(function(conn)
          for _, answer in ipairs {"220 hi\r\n", "250 STARTTLS\r\n"} do
            conn:sendall(answer)
            conn:recv(1000)
          end
          conn:sendall "220 go ahead\r\n"
          server_context(name):wrap_socket(conn, {server_side = true})
        end, "starttls_client", "localhost", "PORT", made "ca.pem", "me@example.test", "you@example.test")
        assert.falsy(ok)
        assert.matches(problem, said)
        assert.not_matches("MAIL", said)
      end
      local said, ok = run("starttls_client", "localhost", 1, "", "a>\r\nQUIT", "b")
      assert.falsy(ok)
      assert.matches("not a mail address", said)
    end)
  end)

  describe("memory_bio", function()
    it("carries TLS over a socketpair", function()
      local said, ok = run("memory_bio", made "ca.pem", made "server.pem", made "server.key")
      assert.truthy(ok, said)
      assert.matches("^client: TLSv1%.3, TLS_%S+\nclient: the answer is 560000 bytes long\n", said)
      assert.matches("client: bye\n", said)
      assert.matches("server: bye\n", said)
      assert.matches("\n560000 bytes said, 56%d%d%d%d on the way, nothing in the clear: true\n$", said)
    end)

    it("verifies", function()
      local said, ok = run("memory_bio", certs.path "ca.pem", made "server.pem", made "server.key")
      assert.falsy(ok)
      assert.matches("CERTIFICATE_VERIFY_FAILED", said)
    end)
  end)

  it("usage is told", function()
    for _, script in ipairs {"https_server", "mtls_server", "mtls_client", "starttls_server", "starttls_client",
        "memory_bio"} do
      local said, ok = run(script)
      assert.falsy(ok)
      assert.matches("usage: " .. script .. "%.lua ", said)
    end
  end)
end)
