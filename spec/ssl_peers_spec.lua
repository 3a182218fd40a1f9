-- TLS with programs that others wrote, each as a client and as a server: openssl, GnuTLS, nginx, curl, Python.

local h = require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"
local tls = require "spec.support.tls"

local ssl = socket.ssl
local fails, keep = support.fails, support.keep

after_each(tls.clean)

local function needs(program)
  if not os.execute(("PATH=$PATH:/usr/sbin command -v %s >/dev/null 2>&1"):format(program)) then
    pending("needs " .. program)
  end
end

-- A client's connection to a program; options as of wrap_socket, and version, alpn, cert (its name), client (context).
local function connect(port, options)
  options = options or {}
  local ctx = options.client or tls.client()
  tls.only(ctx, options.version)
  if options.alpn then ctx:set_alpn_protocols(options.alpn) end
  if options.cert then ctx:load_cert_chain(certs.path(options.cert .. ".pem"), certs.path(options.cert .. ".key")) end
  return keep(ctx:wrap_socket(tls.connect(port):settimeout(10), {server_hostname = options.host or "localhost",
    session = options.session, suppress_ragged_eofs = false}))
end

-- A server's context; options: version, alpn, sni (another context for second.test), mode (of
-- verification), name (of the certificate).
local serving
function serving(options)
  options = options or {}
  local ctx = tls.only(tls.server(options.name), options.version)
  if options.alpn then ctx:set_alpn_protocols(options.alpn) end
  if options.sni then
    local second = serving {version = options.version, alpn = options.alpn, mode = options.mode, name = "second"}
    ctx.sni_callback = function(sock, name)
      if name == "second.test" then sock.context = second end
    end
  end
  if options.mode then
    ctx:load_verify_locations(certs.path "ca.pem")
    ctx.verify_mode = options.mode
  end
  return ctx
end

local function accept(listener, ctx)
  return keep(ctx:wrap_socket((listener:accept()):settimeout(10), {server_side = true, suppress_ragged_eofs = false}))
end

local function common_name(cert)
  for _, part in ipairs(cert.subject) do
    if part[1][1] == "commonName" then return part[1][2] end
  end
end

-- Sends a line, gets one back.
local function ask(c, text)
  c:sendall(text .. "\n")
  local answer = ""
  repeat
    local data = c:recv(1000)
    answer = answer .. (data or "")
  until not data or answer:find "\n"
  return (answer:gsub("\n$", ""))
end

-- The same, and closes.
local function ask_once(c, text)
  local answer <close> = setmetatable({}, {__close = function() c:close() end})
  answer.text = ask(c, text)
  return answer.text
end

local pem = certs.path

local NGINX = [[
daemon off;
master_process off;
pid nginx.pid;
error_log nginx.log;
events { }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fast; uwsgi_temp_path uw; scgi_temp_path sc;
  client_max_body_size 100m;
  ssl_protocols @version@;
  ssl_session_cache shared:all:1m;
  ssl_session_tickets @tickets@;
  ssl_verify_client optional;
  ssl_client_certificate @certs@ca.pem;
  server {
    listen 127.0.0.1:@port@ ssl default_server;
    server_name localhost;
    ssl_certificate @certs@server.pem;
    ssl_certificate_key @certs@server.key;
    location = /about {
      return 200 "$ssl_protocol $ssl_server_name $ssl_client_verify $ssl_client_s_dn $ssl_session_reused\n";
    }
    location /files/ { root @folder@; dav_methods PUT; create_full_put_path on; }
    location = /through {
      proxy_pass https://127.0.0.1:@behind@/;
      proxy_ssl_protocols @version@;
      proxy_ssl_verify on;
      proxy_ssl_name localhost;
      proxy_ssl_server_name on;
      proxy_ssl_trusted_certificate @certs@ca.pem;
      proxy_ssl_certificate @certs@client.pem;
      proxy_ssl_certificate_key @certs@client.key;
    }
  }
  server {
    listen 127.0.0.1:@port@ ssl;
    server_name second.test;
    ssl_certificate @certs@second.pem;
    ssl_certificate_key @certs@second.key;
  }
}
]]

for _, version in ipairs(tls.versions) do
  local dotted = version:gsub("_", ".")
  local flag = "-" .. version:lower():gsub("v", "")

  describe(version .. ", openssl s_server", function()
    local function serve(options)
      local port = tls.free_port()
      tls.start(("openssl s_server -accept 127.0.0.1:%d -cert %s -key %s %s -rev -quiet %s"):format(
        port, pem "server.pem", pem "server.key", flag, options or ""))
      return port
    end

    it("answers, chooses protocol and certificate, and resumes by ticket", function()
      local port = serve(("-alpn http/1.1,h2 -servername second.test -cert2 %s -key2 %s"):format(
        pem "second.pem", pem "second.key"))
      local ctx = tls.client()
      local c = connect(port, {client = ctx, version = version, alpn = {"h2", "http/1.1"}})
      assert.equal(dotted, c:version())
      assert.equal("http/1.1", c:selected_alpn_protocol())
      assert.equal("localhost", common_name(c:getpeercert()))
      assert.equal("cba", ask(c, "abc"))
      local session = c.session
      assert.is_true(session.has_ticket)
      c:close()
      c = connect(port, {client = ctx, session = session})
      assert.is_true(c.session_reused)
      assert.equal("fed", ask(c, "def"))
      c:close()
      c = connect(port, {client = ctx, host = "second.test"})
      assert.is_false(c.session_reused)
      assert.equal("second", common_name(c:getpeercert()))
      assert.equal("1", ask(c, "1"))
    end)

    it("resumes without tickets", function()
      local port = serve "-no_ticket"
      local ctx = tls.client()
      local c = connect(port, {client = ctx, version = version})
      assert.equal("1", ask(c, "1"))
      local session = c.session
      if version == "TLSv1_2" then
        assert.is_false(session.has_ticket)
        assert.equal(32, #session.id)
      end
      c:close()
      c = connect(port, {client = ctx, session = session})
      assert.is_true(c.session_reused)
      assert.equal("2", ask(c, "2"))
    end)

    it("asks for a certificate, or insists on one", function()
      local port = serve(("-verify 2 -verify_return_error -CAfile %s"):format(pem "ca.pem"))
      assert.equal("ba", ask_once(connect(port, {version = version, cert = "client"}), "ab"))
      assert.equal("dc", ask_once(connect(port, {version = version}), "cd"))
      port = serve(("-Verify 2 -verify_return_error -CAfile %s"):format(pem "ca.pem"))
      assert.equal("ba", ask_once(connect(port, {version = version, cert = "client"}), "ab"))
      for cert, code in pairs {untrusted = "TLSV1_ALERT_UNKNOWN_CA", [false] = version == "TLSv1_3" and
          "TLSV13_ALERT_CERTIFICATE_REQUIRED" or "SSLV3_ALERT_HANDSHAKE_FAILURE"} do
        fails(code, function() connect(port, {version = version, cert = cert or nil}):recv(1) end)
      end
    end)
  end)

  describe(version .. ", openssl s_client", function()
    local function visit(port, options, input)
      return tls.start(("openssl s_client -connect 127.0.0.1:%d -CAfile %s -verify_return_error %s %s"):format(
        port, pem "ca.pem", flag, options), input)
    end

    it("gets protocol and certificate, and an answer", function()
      local listener, port = tls.listener()
      local p = visit(port, "-servername second.test -verify_hostname second.test -alpn h2,x",
        "question\n")
      local s = accept(listener, serving {version = version, alpn = {"x", "h2"}, sni = true})
      assert.equal(dotted, s:version())
      assert.equal("x", s:selected_alpn_protocol())
      assert.equal("question\n", s:recv(100))
      s:sendall "the answer\n":close()
      local text = p:text()
      assert.matches("the answer\n", text, 1, true)
      assert.matches("CN = second\n", text, 1, true)
      assert.matches("ALPN protocol: x\n", text, 1, true)
      assert.matches("Verification: OK", text, 1, true)
    end)

    it("refuses another host's certificate", function()
      local listener, port = tls.listener()
      local p = visit(port, "-verify_hostname other.test")
      local ok, e = pcall(accept, listener, serving {version = version})
      assert.is_false(ok)
      assert.equal("SSLV3_ALERT_BAD_CERTIFICATE", e.code)
      assert.matches("ostname mismatch", p:text())
    end)

    for _, options in ipairs {"", "-no_ticket"} do
      it("resumes a session " .. options, function()
        local listener, port = tls.listener()
        local ctx = serving {version = version}
        local file = tls.file("session" .. version .. #options, "")
        for i, way in ipairs {"-sess_out ", "-sess_in "} do
          local p = visit(port, options .. " -quiet " .. way .. file, "hello\n")
          local s = accept(listener, ctx)
          assert.equal(i == 2, s.session_reused)
          assert.equal("hello\n", s:recv(100))
          s:sendall "bye\n":close()
          assert.matches("bye", p:text())
        end
        assert.equal(1, ctx:session_stats().hits)
      end)
    end

    it("shows its certificate, or none", function()
      local listener, port = tls.listener()
      local mine = ("-cert %s -key %s"):format(pem "client.pem", pem "client.key")
      for _, mode in ipairs {ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED} do
        local p = visit(port, "-quiet " .. mine, "hello\n")
        local s = accept(listener, serving {version = version, mode = mode})
        assert.equal("hello\n", s:recv(100))
        assert.equal("client", common_name(s:getpeercert()))
        p:stop()
      end
      local p = visit(port, "-quiet", "hello\n")
      local s = accept(listener, serving {version = version, mode = ssl.CERT_OPTIONAL})
      assert.equal("hello\n", s:recv(100))
      assert.is_nil(s:getpeercert())
      p:stop()
      p = visit(port, "-quiet", "hello\n")
      local strict = serving {version = version, mode = ssl.CERT_REQUIRED}
      fails("PEER_DID_NOT_RETURN_A_CERTIFICATE", accept, listener, strict)
      p:stop()
    end)
  end)

  describe(version .. ", GnuTLS", function()
    local priority = ("NORMAL:-VERS-ALL:+VERS-TLS1.%s"):format(version:sub(-1))

    local function serve(options)
      needs "gnutls-serv"
      local port = tls.free_port()
      tls.start(("gnutls-serv --echo --quiet --port %d --x509certfile %s --x509keyfile %s --priority %s %s"):format(
        port, pem "server.pem", pem "server.key", priority, options or ""))
      return port
    end

    it("as a server: protocol, certificate by name, resumption", function()
      local port = serve(("--x509certfile %s --x509keyfile %s --alpn=h2 --disable-client-cert"):format(
        pem "second.pem", pem "second.key"))
      local ctx = tls.client()
      local c = connect(port, {client = ctx, version = version, alpn = {"x", "h2"}})
      assert.equal(dotted, c:version())
      assert.equal("h2", c:selected_alpn_protocol())
      assert.equal("hello", ask(c, "hello"))
      assert.equal("localhost", common_name(c:getpeercert()))
      local session = c.session
      assert.is_true(session.has_ticket)
      c:close()
      c = connect(port, {client = ctx, session = session})
      assert.is_true(c.session_reused)
      assert.equal("again", ask(c, "again"))
      c:close()
      c = connect(port, {client = ctx, host = "second.test"})
      assert.equal("second", common_name(c:getpeercert()))
      assert.equal("x", ask(c, "x"))
    end)

    it("as a server that insists on a certificate", function()
      local port = serve(("--x509cafile %s --require-client-cert --verify-client-cert"):format(pem "ca.pem"))
      assert.equal("hello", ask_once(connect(port, {version = version, cert = "client"}), "hello"))
      local ok, e = pcall(function() connect(port, {version = version}):recv(1) end)
      assert.is_false(ok)
      assert.matches("ALERT", e.code)
    end)

    if version == "TLSv1_2" then     -- later there are only tickets
      it("as a server that knows sessions by their ids", function()
        local port = serve "--noticket --disable-client-cert"
        local ctx = tls.client()
        local c = connect(port, {client = ctx, version = version})
        assert.equal("hello", ask(c, "hello"))
        local session = c.session
        assert.is_false(session.has_ticket)
        assert.equal(32, #session.id)
        c:close()
        c = connect(port, {client = ctx, session = session})
        assert.is_true(c.session_reused)
        assert.equal("again", ask(c, "again"))
      end)
    end

    local function visit(port, options, input, eof)
      needs "gnutls-cli"
      return tls.start(("gnutls-cli --port %d --x509cafile %s --priority %s %s 127.0.0.1"):format(
        port, pem "ca.pem", priority, options), input, eof)
    end

    it("as a client: protocol, certificates of both, half-close", function()
      local listener, port = tls.listener()
      local p = visit(port, ("--verify-hostname=second.test --sni-hostname=second.test --alpn=h2 --x509certfile %s "
        .. "--x509keyfile %s"):format(pem "client.pem", pem "client.key"), "question\n", true)
      local s = accept(listener, serving {version = version, alpn = {"h2"}, sni = true, mode = ssl.CERT_REQUIRED})
      assert.equal(dotted, s:version())
      assert.equal("h2", s:selected_alpn_protocol())
      assert.equal("client", common_name(s:getpeercert()))
      local file = s:makefile "r"
      assert.equal("question", file:read())
      assert.is_nil(file:read())     -- it said goodbye, and still listens
      file:close()
      s:sendall "the answer\n":close()
      local text = p:text()
      assert.matches("the answer\n", text, 1, true)
      assert.matches("CN=second", text, 1, true)
      assert.matches("Application protocol: h2", text, 1, true)
    end)

    it("as a client that resumes, and one that refuses", function()
      local listener, port = tls.listener()
      local ctx = serving {version = version}
      local p = visit(port, "--verify-hostname=localhost --sni-hostname=localhost --resume", "one\n")
      local s = accept(listener, ctx)
      assert.is_false(s.session_reused)
      s:try_sendall "first\n"     -- it may be gone already
      s:close()
      s = accept(listener, ctx)
      assert.is_true(s.session_reused)
      s:sendall "second\n":close()
      assert.matches("This is a resumed session", p:text(), 1, true)
      p = visit(port, "--verify-hostname=other.test")
      local ok, e = pcall(function() accept(listener, ctx):recv(1) end)
      assert.is_false(ok)
      assert.equal("SSLV3_ALERT_BAD_CERTIFICATE", e.code)
      assert.matches("does not match", p:text())
    end)
  end)

  describe(version .. ", curl", function()
    it("asks, sends much, shows its certificate and resumes", function()
      needs "curl"
      local data = tls.random_bytes(5000000)
      local listener, port = tls.listener()
      local url = ("https://localhost:%d/"):format(port)
      local versions = ("--tlsv%s --tls-max %s"):format(dotted:sub(-3), dotted:sub(-3))
      local p = tls.start(("curl -sS --http1.1 --cacert %s --cert %s --key %s --resolve localhost:%d:127.0.0.1 "
        .. "%s --data-binary @%s -H Expect: -o %s %s -o %s %s"):format(pem "ca.pem", pem "client.pem",
        pem "client.key", port, versions, tls.file("upload", data), pem "down1", url, pem "down2", url))
      local ctx = serving {version = version, alpn = {"http/1.1"}, mode = ssl.CERT_REQUIRED}
      for i = 1, 2 do
        local s = accept(listener, ctx)
        assert.equal(dotted, s:version())
        assert.equal(i == 2, s.session_reused)
        assert.equal("http/1.1", s:selected_alpn_protocol())
        assert.equal("client", common_name(s:getpeercert()))
        local file = s:makefile "rw"
        assert.matches("^POST / HTTP/1.1", file:read())
        local length
        repeat
          local line = file:read()
          length = length or tonumber(line:match "^Content%-Length: (%d+)")
        until line == "\r"
        assert.is_true(file:read(length) == data)
        file:write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"):format(#data), data):close()
        s:close()
      end
      assert.equal("", p:text())
      assert.is_true(certs.read "down1" == data and certs.read "down2" == data)
    end)
  end)

  describe(version .. ", nginx", function()
    -- Started with what lies behind its /through, a port.
    local function serve(behind)
      needs "nginx"
      local port = tls.free_port()
      local folder = pem "nginx" .. port
      assert(os.execute("mkdir -p " .. folder .. "/logs"))
      certs.path "client.pem"
      local conf = tls.file(("nginx%d/nginx.conf"):format(port), NGINX:gsub("@(%w+)@", {port = port, folder = folder,
        certs = pem "", behind = behind or 1, version = dotted, tickets = version == "TLSv1_2" and "off" or "on"}))
      pem "server.pem"
      pem "second.pem"
      tls.start(("env PATH=\"$PATH:/usr/sbin\" nginx -p %s -e nginx.log -c %s"):format(h.quote(folder), h.quote(conf)))
      return port
    end

    -- An HTTP request; its status and body.
    local function request(c, method, path, body)
      local f = c:makefile "rw"
      f:write(("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"):format(
        method, path, #(body or "")), body or ""):flush()
      local status = tonumber(f:read():match "^HTTP/1.1 (%d+)")
      repeat until f:read() == "\r"
      local text = f:read "a"
      f:close()
      return status, text
    end

    it("as a server: certificates of both, by name, resumption, large files", function()
      local port = serve()
      local ctx = tls.client()
      local c = connect(port, {client = ctx, version = version, alpn = {"h2", "http/1.1"}, cert = "client"})
      assert.equal("http/1.1", c:selected_alpn_protocol())
      local status, text = request(c, "GET", "/about")
      assert.equal(200, status)
      assert.equal(dotted .. " localhost SUCCESS CN=client .\n", text)
      local session = c.session
      assert.equal(version == "TLSv1_3", session.has_ticket)
      c:close()
      c = connect(port, {client = ctx, session = session})
      assert.is_true(c.session_reused)
      assert.equal(dotted .. " localhost SUCCESS CN=client r\n", select(2, request(c, "GET", "/about")))
      assert.equal("localhost", common_name(c:getpeercert()))
      assert.equal("second", common_name(connect(port, {client = ctx, host = "second.test"}):getpeercert()))
      _, text = request(connect(port, {version = version}), "GET", "/about")
      assert.equal(dotted .. " localhost NONE  .\n", text)
      local data = tls.random_bytes(12000000)
      assert.equal(201, (request(connect(port, {client = ctx}), "PUT", "/files/x", data)))
      status, text = request(connect(port, {client = ctx}), "GET", "/files/x")
      assert.equal(200, status)
      assert.is_true(text == data)
    end)

    it("as a client: certificates of both, resumption", function()
      local listener, through = tls.listener()
      local port = serve(through)
      local ctx = serving {version = version, mode = ssl.CERT_REQUIRED}
      local S = support.scheduler(pending)
      local answers, seen = {}, {}
      S.spawn(function()
        for i = 1, 2 do
          local s = accept(listener, ctx)
          local f = s:makefile "rw"
          repeat until f:read() == "\r"
          seen[i] = {s:version(), common_name(s:getpeercert()), s.session_reused}
          f:write "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ninside":close()
          s:close()
        end
      end)
      S.spawn(function()
        for i = 1, 2 do
          local c = connect(port, {version = version})
          answers[i] = select(2, request(c, "GET", "/through"))
          c:close()
        end
      end)
      S.run()
      assert.same({"inside", "inside"}, answers)
      assert.same({{dotted, "client", false}, {dotted, "client", true}}, seen)
    end)
  end)
end

-- ---------------------------------------------------------------- Python

-- Both ends of one of its connections do as the words say, one after the other.
local PYTHON = [[
import hashlib, select, socket, ssl, sys
side, port, version, root, cert, key, words = sys.argv[1:8]
ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
ctx.minimum_version = ctx.maximum_version = getattr(ssl.TLSVersion, version)
ctx.load_verify_locations(root)
ctx.load_cert_chain(cert, key)
ctx.set_alpn_protocols(["a", "b"])
words = words.split()
if "pha" in words: ctx.post_handshake_auth = True
if "required" in words or "pha" in words: ctx.verify_mode = ssl.CERT_REQUIRED
if "optional" in words: ctx.verify_mode = ssl.CERT_OPTIONAL
if "noticket" in words: ctx.options |= ssl.OP_NO_TICKET
if "sni" in words:
    second = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    second.load_cert_chain(root.replace("ca.pem", "second.pem"), root.replace("ca.pem", "second.key"))
    def choose(sock, name, context):
        if name == "second.test": sock.context = second
    ctx.sni_callback = choose
listener = socket.create_server(("127.0.0.1", 0)) if side == "server" else None
if listener: print("port", listener.getsockname()[1], flush=True)
host, session = "localhost", None
def name(cert): return dict(x[0] for x in cert["subject"])["commonName"] if cert else None
def both_ways(s, path): # in one thread: its connections are not for two
    data = memoryview(open(path, "rb").read())
    digest, got, sent = hashlib.sha256(), 0, 0
    s.setblocking(False)
    while got < len(data) or sent < len(data):
        idle = True
        try:
            piece = s.recv(1 << 18) if got < len(data) else b""
            digest.update(piece)
            got += len(piece)
            idle = not piece
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError): pass
        try:
            count = s.send(data[sent:sent + 65536]) if sent < len(data) else 0
            sent += count
            idle = idle and not count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError): pass
        if idle: select.select([s], [s] if sent < len(data) else [], [], 5)
    s.settimeout(20)
    print("got", got, digest.hexdigest())
def begin():
    global s
    if listener: s = ctx.wrap_socket(listener.accept()[0], server_side=True, suppress_ragged_eofs=False)
    else: s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname=host, session=session,
                              suppress_ragged_eofs=False)
    s.settimeout(20)
    print("begin", s.version(), s.selected_alpn_protocol(), name(s.getpeercert()), s.session_reused)
try:
    for word in words:
        if word == "begin": begin()
        elif word == "second": host, session = "second.test", None
        elif word == "echo": s.sendall(s.recv(1000))
        elif word == "ask":
            s.sendall(b"question")
            print("answer", s.recv(1000).decode())
        elif word == "hear": s.recv(1000)
        elif word == "half": # hears the goodbye, and still has something to say
            print("end", s.recv(1000) == b"")
            s.sendall(b"last words")
        elif word == "session": session = s.session
        elif word == "verify":
            s.verify_client_post_handshake()
            s.sendall(b"who?")
            s.recv(1000)
            print("client", name(s.getpeercert()))
        elif word == "unwrap": s.unwrap().close()
        elif word == "close": s.close()
        elif word.startswith("/"): both_ways(s, word)
except ssl.SSLError as e: print("error", e.reason)
]]

local function python(side, port, version, words, cert)
  certs.path "second.pem"
  cert = cert or side
  return tls.python("peer", PYTHON, side, port, version, pem "ca.pem", pem(cert .. ".pem"), pem(cert .. ".key"), words)
end

-- A server, on a port of the system's choice: one found free beforehand may be another's by then.
local function serve(version, words, cert)
  local p = python("server", 0, version, words, cert)
  return tonumber(p:expect "^port (%d+)$"), p
end

local function sha256(path)
  local p <close> = io.popen("openssl dgst -sha256 -r " .. path)
  return p:read "a":match "^%x+"
end

-- Sends and gets the content of a file at once.
local function both_ways(s, data)
  local S = support.scheduler(pending)
  local got
  s:settimeout(20)
  S.spawn(function() s:sendall(data) end)
  S.spawn(function() got = tls.collect(s, #data) end)
  S.run()
  return got
end

for _, version in ipairs(tls.versions) do
  local dotted = version:gsub("_", ".")

  describe(version .. ", Python as a server", function()
    it("agrees on protocol, certificate and session", function()
      local port, p = serve(version, "sni begin echo unwrap begin echo unwrap begin echo unwrap")
      local ctx = tls.client()
      local c = connect(port, {client = ctx, version = version, alpn = {"b", "x"}})
      assert.equal("b", c:selected_alpn_protocol())
      assert.equal("1", (c:sendall "1":recv(10)))
      local session = c.session
      assert.is_true(session.has_ticket)
      assert.is_nil(c:recv(1))
      keep(c:unwrap())
      c = connect(port, {client = ctx, session = session})
      assert.is_true(c.session_reused)
      assert.equal("2", (c:sendall "2":recv(10)))
      keep(c:unwrap())
      c = connect(port, {client = ctx, host = "second.test"})
      assert.equal("second", common_name(c:getpeercert()))
      assert.equal("3", (c:sendall "3":recv(10)))
      keep(c:unwrap())
      assert.equal(("begin %s b None False\nbegin %s b None True\nbegin %s None None False\n"):gsub("%%s", dotted),
        p:text())
    end)

    it("knows sessions by their ids", function()
      local port, p = serve(version, "noticket begin echo unwrap begin echo unwrap")
      local ctx = tls.client()
      local c = connect(port, {client = ctx, version = version})
      assert.equal("1", (c:sendall "1":recv(10)))
      local session = c.session
      assert.equal(version == "TLSv1_3", session.has_ticket)
      keep(c:unwrap())
      c = connect(port, {client = ctx, session = session})
      assert.is_true(c.session_reused)
      assert.equal("2", (c:sendall "2":recv(10)))
      keep(c:unwrap())
      assert.matches("None True\n$", p:text())
    end)

    it("sees the client's certificate, or refuses", function()
      local port, p = serve(version, "required begin echo unwrap begin")
      local c = connect(port, {version = version, cert = "client"})
      assert.equal("1", (c:sendall "1":recv(10)))
      keep(c:unwrap())
      fails("TLSV1_ALERT_UNKNOWN_CA", function() connect(port, {version = version, cert = "untrusted"}):recv(1) end)
      assert.matches("None client False\nerror CERTIFICATE_VERIFY_FAILED\n$", p:text())
      port, p = serve(version, "optional begin echo unwrap")
      c = connect(port, {version = version})
      assert.equal("1", (c:sendall "1":recv(10)))
      keep(c:unwrap())
      assert.matches("None None False\n$", p:text())
    end)

    it("gets and sends tens of megabytes at once, then hears goodbye and still answers", function()
      local data = tls.random_bytes(24000000)
      local path = tls.file("large", data)
      local port, p = serve(version, "begin " .. path .. " half unwrap")
      local c = connect(port, {version = version})
      assert.is_true(both_ways(c, data) == data)
      c:shutdown(socket.SHUT_WR)
      assert.equal("last words", c:recv(100))
      assert.is_nil(c:recv(1))
      assert.matches(("got %d %s\nend True\n$"):format(#data, sha256(path)), p:text())
    end)
  end)

  describe(version .. ", Python as a client", function()
    it("agrees on protocol, certificate and session", function()
      local listener, port = tls.listener()
      local p = python("client", port, version, "begin ask session unwrap begin ask unwrap second begin ask unwrap")
      local ctx = serving {version = version, alpn = {"b"}, sni = true}
      for i = 1, 3 do
        local s = accept(listener, ctx)
        assert.equal(dotted, s:version())
        assert.equal(i == 2, s.session_reused)
        assert.equal("question", s:recv(100))
        s:sendall(tostring(i))
        assert.is_nil(s:recv(1))
        keep(s:unwrap())
      end
      assert.equal(("begin %s b localhost False\nanswer 1\nbegin %s b localhost True\nanswer 2\n"
        .. "begin %s b second False\nanswer 3\n"):gsub("%%s", dotted), p:text())
    end)

    it("knows sessions by their ids", function()
      local listener, port = tls.listener()
      local p = python("client", port, version, "begin ask session unwrap begin ask unwrap")
      local ctx = serving {version = version}
      ctx.options = ctx.options | ssl.OP_NO_TICKET
      for i = 1, 2 do
        local s = accept(listener, ctx)
        assert.equal(i == 2, s.session_reused)
        assert.equal("question", s:recv(100))
        s:sendall(tostring(i))
        keep(s:unwrap())
      end
      assert.matches("localhost True\nanswer 2\n$", p:text())
    end)

    it("shows its certificate, and hears why it is refused", function()
      local listener, port = tls.listener()
      local ctx = serving {version = version, mode = ssl.CERT_REQUIRED}
      local p = python("client", port, version, "begin ask unwrap")
      local s = accept(listener, ctx)
      assert.equal("client", common_name(s:getpeercert()))
      assert.equal("question", s:recv(100))
      s:sendall "1"
      keep(s:unwrap())
      assert.matches("answer 1\n$", p:text())
      p = python("client", port, version, "begin hear", "untrusted")
      fails("CERTIFICATE_VERIFY_FAILED", accept, listener, ctx)
      assert.matches("error TLSV1_ALERT_UNKNOWN_CA\n$", p:text())
    end)

    it("gets and sends tens of megabytes at once, then hears goodbye and still answers", function()
      local data = tls.random_bytes(24000000)
      local path = tls.file("large", data)
      local listener, port = tls.listener()
      local p = python("client", port, version, "begin " .. path .. " half unwrap")
      local s = accept(listener, serving {version = version})
      assert.is_true(both_ways(s, data) == data)
      s:shutdown(socket.SHUT_WR)
      assert.equal("last words", s:recv(100))
      assert.is_nil(s:recv(1))
      assert.matches(("got %d %s\nend True\n$"):format(#data, sha256(path)), p:text())
    end)
  end)
end

describe("a certificate asked for after the handshake", function()
  it("by Python", function()
    local port, p = serve("TLSv1_3", "pha begin verify unwrap")
    local ctx = tls.client()
    ctx.post_handshake_auth = true
    local c = connect(port, {client = ctx, cert = "client"})
    assert.equal("who?", c:recv(100))
    c:sendall "me"
    assert.is_nil(c:recv(1))
    keep(c:unwrap())
    assert.equal("begin TLSv1.3 None None False\nclient client\n", p:text())
  end)

  it("by Python, from one that does not offer it", function()
    local port, p = serve("TLSv1_3", "pha begin verify unwrap")
    connect(port, {cert = "client"})
    assert.equal("begin TLSv1.3 None None False\nerror EXTENSION_NOT_RECEIVED\n", p:text())
  end)

  it("from Python, and from openssl s_client", function()
    local listener, port = tls.listener()
    local ctx = serving {version = "TLSv1_3", mode = ssl.CERT_REQUIRED}
    ctx.post_handshake_auth = true
    for _, start in ipairs {
      function() return python("client", port, "TLSv1_3", "pha begin ask unwrap") end,
      function()
        return tls.start(("openssl s_client -connect 127.0.0.1:%d -CAfile %s -enable_pha -quiet -cert %s -key %s")
          :format(port, pem "ca.pem", pem "client.pem", pem "client.key"), "question")
      end,
    } do
      local p = start()
      local s = accept(listener, ctx)
      assert.is_nil(s:getpeercert())
      assert.equal(s, s:verify_client_post_handshake())
      assert.equal("question", s:recv(100))
      if not s:getpeercert() then     -- it wrote before it heard
        s:sendall "answer":settimeout(0.005)
        for _ = 1, 500 do
          if s:getpeercert() then break end
          s:try_recv(1)
        end
      end
      assert.equal("client", common_name(s:getpeercert()))
      p:stop()
    end
  end)

  it("is not possible where the client offers nothing", function()
    local listener, port = tls.listener()
    local ctx = serving {version = "TLSv1_3", mode = ssl.CERT_REQUIRED}
    ctx.post_handshake_auth = true
    python("client", port, "TLSv1_3", "begin ask unwrap")
    local s = accept(listener, ctx)
    fails("EXTENSION_NOT_RECEIVED", s.verify_client_post_handshake, s)
    assert.equal("question", s:recv(100))
    s:sendall "still here"
    keep(s:unwrap())
  end)
end)

describe("get_server_certificate", function()
  it("of openssl s_server", function()
    local port = tls.free_port()
    tls.start(("openssl s_server -accept 127.0.0.1:%d -cert %s -key %s -quiet"):format(port, pem "server.pem",
      pem "server.key"))
    tls.connect(port):close()
    local text = ssl.get_server_certificate({"127.0.0.1", port}, {timeout = 5})
    assert.equal(ssl.PEM_cert_to_DER_cert(certs.read "server.pem"), ssl.PEM_cert_to_DER_cert(text))
    assert.equal(text, ssl.get_server_certificate({"127.0.0.1", port}, {timeout = 5, ca_certs = pem "ca.pem"}))
    fails("CERTIFICATE_VERIFY_FAILED", ssl.get_server_certificate, {"127.0.0.1", port},
      {timeout = 5, ca_certs = pem "other_ca.pem"})
  end)
end)
