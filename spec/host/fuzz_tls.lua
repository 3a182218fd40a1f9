-- TLS peers as nobody should be: a relay between two ends of this library splits their bytes, delays, reorders,
-- repeats and drops records, changes them, adds rubbish, cuts the connection; or one end is no TLS at all. Meanwhile
-- callbacks (sni, psk, password), wake functions and finalizers meddle with the very connections they run for. Errors
-- are the expected outcome; what it looks for is a crash, a sanitizer's report, a hang, lost descriptors and, where the
-- relay only splits and delays, a handshake that fails or bytes that differ.
--
--   lua5.4 spec/host/fuzz_tls.lua [first seed [seeds [rounds]]]     (LSOCKET_LUA: the Lua of the children)
--
-- Each seed is a child process in an empty folder; FUZZ_TRACE=1 lets it say what it does.

local first, seeds, rounds = tonumber(arg[1]) or 1, tonumber(arg[2]) or 10, tonumber(arg[3]) or 40

if not os.getenv "FUZZ_CHILD" then
  local program = os.getenv "LSOCKET_LUA" or arg[-1]
  local here = io.popen "pwd":read()
  local script = arg[0]:sub(1, 1) == "/" and arg[0] or here .. "/" .. arg[0]
  local dir = os.tmpname()
  assert(os.execute(([[
    rm -f %s && mkdir -m 700 %s && cd %s && exec >/dev/null 2>&1
    make() { openssl req -x509 -days 9 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@"; }
    make -keyout ca.key -out ca.pem -subj /CN=Root &&
    for n in server client; do
      make -CA ca.pem -CAkey ca.key -keyout $n.key -out $n.pem -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE
    done && openssl ec -in server.key -aes128 -passout pass:secret -out locked.key]]):format(dir, dir, dir)))
  local failed = 0
  for seed = first, first + seeds - 1 do
    local command = ("d=$(mktemp -d) && cd $d && FUZZ_CHILD=1 FUZZ_CERTS=%s timeout 120 %s %s %d 1 %d </dev/null; "
      .. "s=$?; cd / && rm -rf $d; exit $s"):format(dir, program, script, seed, rounds)
    local ok, _, status = os.execute(command)
    if not ok then
      failed = failed + 1
      print(("seed %d: status %d"):format(seed, status))
    end
  end
  os.execute("rm -rf " .. dir)
  print(("%d of %d runs failed"):format(failed, seeds))
  os.exit(failed == 0)
end

local socket = require "socket"
local loop = require "socket.loop"
local ssl = require "socket.ssl"

local certs = os.getenv "FUZZ_CERTS" .. "/"
math.randomseed(first)
warn "@off"
local random = math.random
local trace = os.getenv "FUZZ_TRACE"
local function say(...) if trace then io.stderr:write(table.concat({...}, " "), "\n") end end
local function one(list) return list[random(#list)] end
local function chance(n) return random(n) == 1 end

local mode = random(4)
if mode == 1 then collectgarbage "generational" end
if mode == 2 then collectgarbage("incremental", 1, 1000, 1) end

-- What this seed is like. A calm one meddles with nothing, and its relays change nothing: then all must go well.
local calm = chance(3)
local meddling = not calm and one {1, 3, 10} or math.huge

---------------------------------------------------------------- contexts

local meddle -- does something untoward, sometimes

local ALPN = {("p"):rep(255), "h2", "http/1.1", "x"}
local contexts = {}

local function password()
  meddle "password"
  return one {"secret", "secret", "wrong", nil}
end

local function server_ctx(version, keyed)
  local c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  if version then c.minimum_version, c.maximum_version = ssl.TLSVersion[version], ssl.TLSVersion[version] end
  if keyed then
    if version ~= "TLSv1_3" then c:set_ciphers "PSK" end
    c:set_psk_server_callback(function(identity)
      meddle "psk server"
      return identity == "me" and "key" or nil
    end, "hint")
  else
    c:load_cert_chain(certs .. "server.pem", certs .. "server.key")
    if not calm then pcall(c.load_cert_chain, c, certs .. "server.pem", certs .. "locked.key", password) end
    c:load_verify_locations(certs .. "ca.pem")
    c.verify_mode = one {ssl.CERT_NONE, ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED}
    c.post_handshake_auth = chance(3)
    if chance(2) then
      c.sni_callback = function(s, _, ctx)
        meddle("sni", s)
        if chance(3) then s.context = one {ctx, contexts[random(#contexts)] or ctx} end
        return not calm and one {nil, nil, nil, nil, 80, "x", 300} or nil
      end
    end
  end
  if chance(3) then c.num_tickets = random(0, 4) end
  if chance(3) then c.options = c.options | ssl.OP_NO_TICKET end
  if chance(3) then c:set_alpn_protocols {one(ALPN), one(ALPN)} end
  if chance(3) then c.keylog_filename = "keys.log" end
  if not calm and chance(5) then c:set_groups "secp521r1:prime256v1" end -- the client has to say hello twice
  if #contexts < 6 and not keyed then contexts[#contexts + 1] = c end
  return c
end

local function client_ctx(version, keyed)
  local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
  if version then c.minimum_version, c.maximum_version = ssl.TLSVersion[version], ssl.TLSVersion[version] end
  if keyed then
    c.check_hostname = false
    c.verify_mode = ssl.CERT_NONE
    if version ~= "TLSv1_3" then c:set_ciphers "PSK" end
    c:set_psk_client_callback(function()
      meddle "psk client"
      return "me", "key"
    end)
  else
    c:load_verify_locations(certs .. "ca.pem")
    c:load_cert_chain(certs .. "client.pem", certs .. "client.key")
    if chance(3) then
      c.check_hostname = false
      c.verify_mode = ssl.CERT_NONE
    end
    c.post_handshake_auth = chance(2)
  end
  if chance(3) then c:set_alpn_protocols {one(ALPN), one(ALPN), one(ALPN)} end
  if chance(3) then c.keylog_filename = "keys.log" end
  return c
end

---------------------------------------------------------------- the relay

local seen = {} -- records of former connections, to be sent again

-- Whole records at the front of a string, and the rest.
local function records(bytes)
  local list, at = {}, 1
  while #bytes - at >= 4 do
    local n = 5 + (">I2"):unpack(bytes, at + 3)
    if at + n - 1 > #bytes then break end
    list[#list + 1] = bytes:sub(at, at + n - 1)
    at = at + n
  end
  return list, bytes:sub(at)
end

local function flip(s, n)
  for _ = 1, n do
    local i = random(#s)
    s = s:sub(1, i - 1) .. string.char(random(0, 255)) .. s:sub(i + 1)
  end
  return s
end

local function rubbish(n)
  local t = {}
  for i = 1, n do t[i] = string.char(random(0, 255)) end
  return table.concat(t)
end

local CHANGES = {
  function(r) return flip(r, random(3)) end,
  function(r) return r:sub(1, 5) .. flip(r:sub(6) .. "x", 1):sub(1, #r - 5) end,
  function(r) return r .. r end,
  function() return "" end,
  function(r) return r:sub(1, random(0, #r)) end,
  function(r) return r .. rubbish(random(20)) end,
  function(r) return string.char(random(20, 24)) .. r:sub(2) end,
  function(r) return r:sub(1, 3) .. (">I2"):pack(random(0, 65535)) .. r:sub(6) end,
  function(r) return r:sub(1, 3) .. (">s2"):pack(r:sub(6) .. rubbish(random(300))) end,
  function(r) return #seen > 0 and one(seen) .. r or r end,
  function(r) return "\x15\3\3\0\2" .. string.char(random(2), random(0, 120)) .. r end, -- an alert
  function(r) return "\x14\x03\x03\0\1\1" .. r end,                                         -- CCS
  function(r) return ("\x17\x03\x03\0\0"):rep(random(40)) .. r end,                         -- records of nothing
  function(r) -- a message in records of one byte
    return #r < 600 and (r:sub(6):gsub(".", function(b) return r:sub(1, 3) .. "\0\1" .. b end)) or r
  end,
}

-- One direction: take(n) gives bytes, nil for none now, false at the end; give(bytes) passes them on and says how many
-- it took. A step moves something; true if it did.
local function direction(take, give, stop)
  local waiting, out, ended, wild = "", "", false, not calm and one {2, 8, 30, 1000} or math.huge
  local pace = one {1, 7, 100, 20000, 20000}
  local held, moved = nil, 0
  return function()
    if out == "" and not ended then
      local got = take(20000)
      if got == false then ended = true else waiting = waiting .. (got or "") end
      if not calm and wild < 1000 then
        local list
        list, waiting = records(waiting)
        for i, r in ipairs(list) do
          if #seen < 40 then seen[#seen + 1] = r else seen[random(40)] = r end
          if random() < 1 / wild then
            list[i] = one(CHANGES)(r)
            say("changed record", r:byte(), #r)
          elseif random() < 1 / (4 * wild) then
            held, list[i] = r, held or ""
          end
        end
        out = table.concat(list)
        if ended then out = out .. (held or "") .. waiting end
      else
        out, waiting = waiting, ""
      end
    end
    if out == "" then
      if ended and not stop.done then
        stop.done = true
        stop.f()
        return true
      end
      return false
    end
    if random() < 1 / (40 * wild) then
      out, ended = "", true
      return true
    end
    local n = give(out:sub(1, random(pace)))
    out = out:sub(n + 1)
    moved = moved + n
    if moved > 3000 and pace < 100 then pace = 20000 end
    return n > 0
  end
end

local function of_socket(from, to)
  return function(n)
    local data, e = from:try_recv(n)
    if data or e and e.errno == socket.errno.EAGAIN then return data end
    return false
  end, function(bytes)
    local n, e = to:try_send(bytes)
    return n or (e.errno == socket.errno.EAGAIN and 0 or #bytes)
  end, {f = function() to:try_shutdown(socket.SHUT_WR) end}
end

local function of_bio(from, to)
  return function(n)
    return from.pending > 0 and from:read(random(n)) or nil
  end, function(bytes)
    to:write(bytes)
    return #bytes
  end, {f = function() end}
end

---------------------------------------------------------------- the two ends

local live = {} -- connections, for those who meddle
local function keep(v)
  live[#live < 12 and #live + 1 or random(#live)] = v
  return v
end

local GETTERS = {"cipher", "shared_ciphers", "getpeercert", "get_verified_chain", "get_unverified_chain", "version",
  "selected_alpn_protocol", "group", "pending", "compression", "get_channel_binding"}
local FIELDS = {"context", "session", "session_reused", "server_side", "server_hostname"}

local function ask(s)
  local v
  if chance(2) then
    local _
    _, v = pcall(s[one(GETTERS)], s, one {nil, true, "tls-exporter", "tls-server-end-point", 1})
  else
    v = s[one(FIELDS)]
  end
  if type(v) == "userdata" and chance(2) then return v.id, v.ticket_lifetime_hint, v == s.session end
  return v
end

local pairs_of = {}                   -- plain sockets that callbacks receive from
for i = 1, 2 do
  local a, b = socket.socketpair()
  a:settimeout(0)
  b:settimeout(0)
  pairs_of[i] = {a, b}
end

-- One attempt, whatever the timeout of the socket is.
local function at_once(name, ...)
  local args = table.pack(...)
  return function(s)
    local socket_like = s.settimeout
    local t = socket_like and s:gettimeout()
    if socket_like then s:settimeout(0) end
    s[name](s, table.unpack(args, 1, args.n))
    if socket_like then s:settimeout(t) end
  end
end

local depth = 0
local ACTS = {
  function(s) ask(s) end,
  function(s) ask(s) end,
  function(s) s:close() end,
  function(s) s:settimeout(one {0, 0.0005}) end,
  at_once("try_recv", 77),
  at_once("try_recv", 100000),
  at_once("try_read", 5000),
  at_once("try_send", "meddled"),
  at_once("try_write", ("meddled"):rep(5000)),
  at_once "try_do_handshake",
  at_once "try_unwrap",
  at_once("try_shutdown", socket.SHUT_WR),
  at_once "try_verify_client_post_handshake",
  function(s) socket.close(s:detach()) end,
  function(s) s.context = one(contexts) end,
  function(s) s.session = one(live).session end,
  function() one(contexts):set_ciphers(one {"ALL", "ECDHE+AESGCM", "PSK"}) end,
  function() return one(contexts):get_ciphers(), one(contexts):get_ca_certs(chance(2)) end,
  function() one(contexts):set_alpn_protocols(one {{}, {"h2"}, ALPN}) end,
  function() one(contexts):load_verify_locations(certs .. "client.pem") end,
  function() one(contexts):load_cert_chain(certs .. "server.pem", certs .. "locked.key", password) end,
  function() one(contexts).keylog_filename = one {nil, "other.log", "/dev/null"} end,
  function() one(contexts).sni_callback = nil end,
  function() one(contexts):session_stats() end,
  function() contexts[random(#contexts)] = nil end,
  function() live[random(#live)] = nil end,
  function()
    local p = one(pairs_of)
    p[1]:try_send "y"
    p[2]:try_recv(one {10, 5000, 100000, 300000})
  end,
  function() collectgarbage(one {"collect", "step"}) end,
  function() error("meddled", 0) end,
  function() error {} end,
  function() keep(one(contexts):wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), {server_side = true})) end,
  function(_, where) if where ~= "relay" and coroutine.isyieldable() then coroutine.yield() end end,
  function() socket.sleep(0) end,
}

function meddle(where, s)
  if calm or not chance(meddling) or depth > 2 then return end
  depth = depth + 1
  for _ = 1, random(3) do
    local i, target = random(#ACTS), s and chance(2) and s or one(live)
    if target then
      say("meddle", where, tostring(i), tostring(target))
      if where == "sni" and chance(6) then
        local before = depth
        depth = before - 1
        ACTS[i](target, where)
        depth = before
      else
        pcall(ACTS[i], target, where)
      end
    end
  end
  depth = depth - 1
end

local function trap()
  setmetatable({}, {__gc = function()
    meddle "finalizer"
    if meddling < 10 or chance(2) then trap() end
  end})
end
if not calm then for _ = 1, 3 do trap() end end

-- What an end does to the other. Calm ends exchange bytes that must arrive.
local function busy(s)
  local acts = {
    function() return s:recv(random(20000)) end,
    function() return s:recv_into(socket.buffer(random(5000))) end,
    function() return s:recv(random(50), socket.MSG_PEEK) end,
    function() return s:read(random(5000)) end,
    function() return s:sendall(("z"):rep(one {0, 1, 100, 20000, 60000})) end,
    function() return s:write(("w"):rep(one {1, 100, 20000})) end,
    function() return ask(s) end,
    function() return ask(s) end,
    function() return s:verify_client_post_handshake() end,
    function() return s:shutdown(socket.SHUT_WR) end,
    function() return s:unwrap() end,
    function()
      local f <close> = s:makefile("rw", one {nil, 0, 100})
      f:write "some\n"
      f:flush()
      return f:read(one {"l", 10})
    end,
    function() s.session = one(live).session end,
  }
  local i = random(#acts)
  say("act", tostring(i), tostring(s))
  return pcall(acts[i])
end

local function exchange(s, sends, n)
  if sends then
    s:sendall(("0123456789"):rep(n // 10))
    local answer = ""
    while #answer < n do
      local got = s:recv(random(20000))
      if not got then break end
      answer = answer .. got
    end
    assert(answer == ("9876543210"):rep(n // 10), "other bytes came back")
  else
    local got = ""
    while #got < n do
      got = got .. assert(s:recv(random(20000)), "the end came early")
    end
    assert(got == ("0123456789"):rep(n // 10), "other bytes came")
    s:sendall(("9876543210"):rep(n // 10))
  end
end

-- Pushes nobody's patience: a relay and two ends, until all is done or nothing moves.
local function in_loop(ends, steps)
  loop.run(function()
    local left = #ends
    local tasks = {}
    for i, f in ipairs(ends) do
      tasks[i] = loop.spawn(function()
        local ok, e = pcall(f)
        left = left - 1
        if calm and not ok then error(e, 0) end
      end)
    end
    local idle = 0
    while left > 0 and idle < 60 do
      local moved = false
      for _, step in ipairs(steps) do moved = step() or moved end
      idle = moved and 0 or idle + 1
      socket.sleep(moved and 0 or 0.0005)
      if not calm and chance(300) then one(tasks):cancel() end
      meddle "relay"
    end
    if calm and left > 0 then error "nothing moves any more" end
    for _ = 1, 100 do -- what catches its end and goes on is told again
      if left == 0 then break end
      for _, t in ipairs(tasks) do t:cancel() end
      socket.sleep(0)
    end
  end)
end

-- The same without a loop: the wait hook moves bytes.
local function in_hook(ends, steps)
  local alive, idle = {}, 0
  for i, f in ipairs(ends) do alive[i] = coroutine.create(f) end
  socket.setwaithook(function(_, _, seconds)
    coroutine.yield(seconds)
    return not chance(50) or calm
  end, function(s) meddle("wake", s) end)
  while #alive > 0 and idle < 60 do
    local moved = false
    for _, step in ipairs(steps) do moved = step() or moved end
    for i = #alive, 1, -1 do
      local ok, e = coroutine.resume(alive[i])
      if coroutine.status(alive[i]) == "dead" then
        table.remove(alive, i)
        moved = true
        if calm and not ok then socket.setwaithook(nil) error(e, 0) end
      elseif not calm and chance(300) then
        coroutine.close(table.remove(alive, i))
      end
    end
    idle = moved and 0 or idle + 1
    meddle "relay"
  end
  local left = #alive
  for _, co in ipairs(alive) do coroutine.close(co) end
  socket.setwaithook(nil)
  if calm and left > 0 then error "nothing moves any more" end
end

-- And with sockets that never wait, or hardly: each end's function is called until it is done.
local function in_turns(ends, steps)
  local idle = 0
  local done = {}
  while idle < 30 and not (done[1] and done[2]) do
    local moved = false
    for _, step in ipairs(steps) do moved = step() or moved end
    for i, f in ipairs(ends) do
      if not done[i] then
        local ok, e = pcall(f)
        local again = socket.iserror(e) and (e.code == "EAGAIN" or e.code == "ETIMEDOUT")
        done[i] = ok or not again
        moved = moved or done[i]
      end
    end
    idle = moved and 0 or idle + 1
    meddle "relay"
  end
end

local function over_sockets(client, server, plain_end)
  local a, a2 = socket.socketpair()
  local b, b2 = socket.socketpair()
  for _, s in ipairs {a2, b2} do s:settimeout(0) end
  local way = calm and one {in_loop, in_hook} or one {in_loop, in_hook, in_turns}
  local timeout = way == in_turns and one {0, 0, 0.0005} or calm and 60 or 0.3
  a:settimeout(timeout)
  b:settimeout(timeout)
  local late = {do_handshake_on_connect = false, suppress_ragged_eofs = chance(2)}
  local function options(more)
    for k, v in pairs(late) do more[k] = v end
    return more
  end
  local n = one {10, 1000, 40000, 100000}
  local session
  for _, s in ipairs(live) do
    local ok, v = pcall(function() return s.context == client and s.session or nil end)
    if ok and v then session = v end
  end
  local c, s
  if plain_end == "client" then
    c = a
  else
    local ok
    ok, c = pcall(client.wrap_socket, client, a, options {server_hostname = "localhost", session = session})
    if not ok then c = a end
    if c ~= a then keep(c) end
  end
  s = plain_end == "server" and b or keep(server:wrap_socket(b, options {server_side = true}))
  local function work(x, first_one)
    if x == a or x == b then
      return function()
        for _ = 1, random(10) do
          x:sendall(one {#seen > 0 and one(seen) or "", rubbish(random(100)), "\x16\3\1\2\0\1\0\1\xfc\3\3",
            "GET / HTTP/1.0\r\n\r\n"})
          x:recv(100)
        end
        x:close()
      end
    end
    local shaken = false
    return function()
      if calm or chance(3) then
        if not shaken then x:do_handshake() end
        shaken = true
      end
      if calm then
        exchange(x, first_one, n)
        if x ~= a and chance(2) and first_one then x:shutdown(socket.SHUT_WR) end
      elseif way == in_turns then
        if chance(3) then busy(x) end
        if chance(2) then x:do_handshake() end
        x:recv(random(100))
      else
        for _ = 1, random(8) do busy(x) end
      end
      for _ = 1, random(3) do ask(x) end
    end
  end
  local ends = {work(c, true), work(s, false)}
  if not calm and way ~= in_turns and chance(2) then -- several at once
    for _ = 1, random(3) do ends[#ends + 1] = work(one {c, s}, false) end
  end
  local steps = {direction(of_socket(a2, b2)), direction(of_socket(b2, a2))}
  local ok, e = pcall(way, ends, steps)
  for _, x in ipairs {a2, b2} do x:close() end
  if chance(2) then c:close() end
  if chance(2) then s:close() end
  if calm and not ok then error(e, 0) end
end

local function over_memory(client, server)
  local cin, cout, sin, sout = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
  local c = keep(client:wrap_bio(cin, cout, {server_hostname = "localhost"}))
  local s = keep(server:wrap_bio(sin, sout, {server_side = true}))
  local function work(x, first_one)
    local sent, got = 0, ""
    return function()
      if not calm then busy(x) end
      x:do_handshake()
      if calm then
        while sent < 5000 do sent = sent + x:write(("0123456789"):rep(500):sub(sent + 1)) end
        while #got < 5000 do got = got .. (x:read(random(9000)) or error("end", 0)) end
        assert(got == ("0123456789"):rep(500), "other bytes")
      else
        for _ = 1, random(5) do busy(x) end
      end
      for _ = 1, random(3) do ask(x) end
      return first_one
    end
  end
  local steps = {direction(of_bio(cout, sin)), direction(of_bio(sout, cin))}
  local ends = {work(c, true), work(s, false)}
  local idle, done = 0, {}
  while idle < 60 and not (done[1] and done[2]) do
    local moved = false
    for _, step in ipairs(steps) do moved = step() or moved end
    for i, f in ipairs(ends) do
      if not done[i] then
        local ok, e = pcall(f)
        done[i] = ok or not (socket.iserror(e) and e.code == "EAGAIN")
        moved = moved or done[i]
        if calm and done[i] and not ok then error(e, 0) end
      end
    end
    idle = moved and 0 or idle + 1
    meddle "relay"
  end
  if calm and not (done[1] and done[2]) then error "nothing moves any more" end
  if chance(5) then cin:write_eof() end
end

---------------------------------------------------------------- the work

local function descriptors()
  local p = io.popen "ls /proc/$PPID/fd"
  local n = 0
  for _ in p:lines() do n = n + 1 end
  p:close()
  return n
end

local before = descriptors()
local client, server
local function round(i)
  if i % 6 == 1 then
    local version, keyed = one {"TLSv1_2", "TLSv1_3"}, chance(3)
    local ok, e = pcall(function()
      client, server = client_ctx(version, keyed), server_ctx(version, keyed)
      if #contexts == 0 then contexts[1] = server_ctx(nil, false) end
    end)
    if not ok and calm then error(e) end
  end
  if #contexts == 0 then contexts[1] = server end
  depth = 0
  say("round", tostring(i))
  local plain = not calm and chance(6) and one {"client", "server"} or nil
  local ok, e = pcall(chance(4) and over_memory or over_sockets, client, server, plain)
  if not ok and calm then
    io.stderr:write(("round %d: %s\n"):format(i, tostring(e)))
    os.exit(4)
  end
end
for i = 1, rounds do round(i) end
-- What is left is garbage now.
calm, client, server, live, contexts, seen, pairs_of = true, nil, nil, {}, {}, {}, {}
for _ = 1, 8 do collectgarbage() end
local after = descriptors()
if after > before then
  io.stderr:write(("%d descriptors, %d before\n"):format(after, before))
  os.exit(3)
end
