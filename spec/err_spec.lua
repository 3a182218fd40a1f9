-- Error objects: what they say, how they are classed, and what the try_ forms return.

local h = require "spec.helper"
local lfs = require "lfs"
local proc = require "spec.support.proc"
local socket = require "socket"

local function here() return debug.getinfo(2, "l").currentline end

-- The error object that f(...) raises.
local function raised(f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.is_true(socket.iserror(e), tostring(e))
  return e
end

-- A TCP port of 127.0.0.1 where nobody listens, kept free for as long as the socket returned is open.
local function refusing_port()
  local s = socket.socket()
  s:bind {"127.0.0.1", 0}
  return s:getsockname().port, s
end

-- What a command says, and whether it ended well.
local function run(command)
  local p = assert(io.popen(command .. " 2>&1"))
  local text = p:read "a"
  return text, p:close() == true
end

describe("an error object", function()
  it("says what failed: class, errno, message, code, op, address, where", function()
    local port, keep = refusing_port()
    local _ <close> = keep
    local c <close> = socket.socket()
    local address = {"127.0.0.1", port}
    local line = here() + 1
    local ok, e = pcall(c.connect, c, address)
    assert.is_false(ok)
    assert.equal("userdata", type(e))
    assert.equal(socket.error, e.class)
    assert.equal(socket.errno.ECONNREFUSED, e.errno)
    assert.equal("integer", math.type(e.errno))
    assert.equal("Connection refused", e.message)
    assert.equal("ECONNREFUSED", e.code)
    assert.equal("connect", e.op)
    assert.is_true(rawequal(address, e.address))
    assert.equal("spec/err_spec.lua:" .. line, e.where)
    assert.equal(("spec/err_spec.lua:%d: connect 127.0.0.1:%d: Connection refused (ECONNREFUSED)"):format(line, port),
      tostring(e))
  end)

  it("is Python's pair at 1 and 2", function()
    local s <close> = socket.socket()
    local e = raised(s.getpeername, s)
    assert.equal(e.errno, e[1])
    assert.equal(e.message, e[2])
    assert.equal(e.errno, e[1.0])
    for _, i in ipairs {0, 3, -1, 1.5, math.huge, math.maxinteger} do assert.is_nil(e[i]) end
  end)

  it("has nothing under other keys", function()
    local s <close> = socket.socket()
    local e = raised(s.getpeername, s)
    for _, key in ipairs {"", "1", "Errno", "address", "sent", "partial", "errors", "cla\0ss", true, print, {}, e} do
      assert.is_nil(e[key])
    end
    assert.is_nil(e[nil])
  end)

  it("cannot be changed or forged", function()
    local s <close> = socket.socket()
    local e = raised(s.getpeername, s)
    assert.is_false(pcall(function() e.errno = 0 end))
    assert.is_false(pcall(rawset, e, "errno", 0))
    assert.is_false(getmetatable(e))
    assert.is_false(pcall(setmetatable, e, {}))
    local is = e.is
    for _, v in ipairs {false, 1, "ENOTCONN", {}, print, io.stdout, s, coroutine.create(print)} do
      local ok, message = pcall(is, v, socket.error)
      assert.is_false(ok)
      assert.matches("socket error expected", message, 1, true)
      assert.is_false(socket.iserror(v))
    end
    local meta = debug.getmetatable(e)
    assert.is_false(pcall(meta.__index, {}, "errno"))
    assert.is_false(pcall(meta.__index, s, "errno"))
    assert.is_false(pcall(meta.__tostring, io.stdout))
    assert.is_false(pcall(meta.__tostring))
  end)

  it("keeps what it says when the socket and the address are gone", function()
    local e
    do
      local s <close> = socket.socket(socket.AF_UNIX)
      e = raised(s.connect, s, {path = "/no-such-directory/s"})
    end
    collectgarbage() collectgarbage()
    assert.equal("/no-such-directory/s", e.address.path)
    assert.matches("connect unix:/no-such-directory/s: No such file or directory (ENOENT)", tostring(e), 1, true)
  end)

  it("passes through error, pcall and coroutines as it is", function()
    local s <close> = socket.socket()
    local _, e = s:try_getpeername()
    local ok, again = pcall(error, e)
    assert.is_true(not ok and rawequal(e, again))
    ok, again = coroutine.resume(coroutine.create(function() error(e) end))
    assert.is_true(not ok and rawequal(e, again))
  end)

  it("is what a program that does not catch it ends with", function()
    local script = os.tmpname()
    local f <close> = assert(io.open(script, "w"))
    f:write 'local socket = require "socket"\nlocal s <close> = socket.socket()\nassert(s:try_getpeername())\n'
    f:close()
    local text, ok = run(h.lua() .. " " .. h.quote(script))
    os.remove(script)
    assert.is_false(ok)
    assert.matches(script .. ":3: getpeername: Transport endpoint is not connected (ENOTCONN)", text, 1, true)
    assert.not_matches("stack traceback", text, 1, true)
  end)
end)

describe("the text of an error", function()
  local function text_of(family, method, address)
    local s <close> = socket.socket(family)
    local e = raised(s[method], s, address)
    return (tostring(e):gsub("^[^:]+:%d+: ", ""))
  end

  it("shows addresses as they are written", function()
    local nobodys, text = "203.0.113.1", "Cannot assign requested address (EADDRNOTAVAIL)" -- RFC 5737
    assert.equal("bind 203.0.113.1:7: " .. text, text_of(socket.AF_INET, "bind", {nobodys, 7}))
    assert.equal("bind 203.0.113.1:7: " .. text, text_of(socket.AF_INET, "bind", {host = nobodys, port = 7}))
    assert.equal("bind 203.0.113.1:7: " .. text, text_of(socket.AF_INET, "bind", {nobodys, "7"}))
    assert.equal("bind {3405803777, 7}: " .. text, text_of(socket.AF_INET, "bind", {0xCB007101, 7}))
  end)

  it("has brackets around IPv6 hosts", function()
    local s <close> = socket.try_socket(socket.AF_INET6)
    if not s then pending "this machine has no IPv6" end
    assert.matches("^bind %[2001:db8::1%]:7: ", text_of(socket.AF_INET6, "bind", {"2001:db8::1", 7})) -- RFC 3849
  end)

  it("tells Unix paths and abstract names apart", function()
    assert.equal("connect unix:/none/such: No such file or directory (ENOENT)",
      text_of(socket.AF_UNIX, "connect", "/none/such"))
    if not lfs.attributes "/proc/net/unix" then pending "abstract names are Linux's" end
    local abstract = text_of(socket.AF_UNIX, "connect", "\0nobody listens here")
    assert.equal("connect unix:@nobody listens here: Connection refused (ECONNREFUSED)", abstract)
  end)

  it("is short where there is neither address nor code", function()
    local s <close> = socket.socket()
    local _, e = coroutine.resume(coroutine.create(s.getpeername), s)
    assert.is_nil(e.where)
    assert.equal("getpeername: Transport endpoint is not connected (ENOTCONN)", tostring(e))
  end)

  it("is the system's, for each errno", function()
    if not os.execute "strace -o /dev/null true 2>/dev/null" then pending "needs strace" end
    local script = h.quote [[
      local _, e = require "socket".try_socket()
      print(e.errno, e.code, e.message, (tostring(e):gsub("^.*socket: ", "")))]]
    local function injected(errno)
      return (run(("strace -f -o /dev/null -e trace=socket -e inject=socket:error=%s %s -e %s"):format(errno,
        h.lua {leaks = false}, script)))
    end
    assert.equal("12\tENOMEM\tCannot allocate memory\tCannot allocate memory (ENOMEM)\n", injected "ENOMEM")
    assert.equal("13\tEACCES\tPermission denied\tPermission denied (EACCES)\n", injected "EACCES")
    assert.equal("4000\tnil\tUnknown error 4000\tUnknown error 4000\n", injected "4000")
  end)
end)

describe("e.where", function()
  local s
  before_each(function() s = socket.socket() end)
  after_each(function() s:close() end)

  it("is the line of Lua that called, not one of C", function()
    local line = here() + 1
    local _, _, e = pcall(pcall, s.getpeername, s)
    assert.equal("spec/err_spec.lua:" .. line, e.where)
    local function deeper() return select(2, s:try_getpeername()) end
    line = here() - 1
    assert.equal("spec/err_spec.lua:" .. line, deeper().where)
  end)

  it("names chunks as Lua does", function()
    local chunk = "local s = ...\n\nlocal _, e = s:try_getpeername()\nreturn e.where"
    assert.equal("file.lua:3", load(chunk, "@file.lua")(s))
    assert.equal("stdin:3", load(chunk, "=stdin")(s))
    assert.equal('[string "local s = ......"]:3', load(chunk)(s))
    assert.matches("^%.%.%..+/file%.lua:3$", load(chunk, "@" .. ("d/"):rep(100) .. "file.lua")(s))
  end)

  it("is the caller's where debug information was stripped", function()
    local stripped = load(string.dump(load "local s = ... local _, e = s:try_getpeername() return e", true))
    local line = here() + 1
    assert.equal("spec/err_spec.lua:" .. line, stripped(s).where)
  end)

  it("is the place of the failure, whenever it is asked for", function()
    local line = here() + 1
    local _, e = s:try_getpeername()
    local co = coroutine.wrap(function() return e.where end)
    assert.equal("spec/err_spec.lua:" .. line, co())
    assert.equal("spec/err_spec.lua:" .. line, e.where)
  end)

  it("is right in a coroutine", function()
    local line = here() + 1
    local e = coroutine.wrap(function() return select(2, s:try_getpeername()) end)()
    assert.equal("spec/err_spec.lua:" .. line, e.where)
  end)
end)

describe("classes of errors", function()
  it("are tables with a name and a parent", function()
    for _, name in ipairs {"error", "herror", "gaierror", "timeout"} do
      local class = socket[name]
      assert.equal("table", type(class))
      assert.equal("socket." .. name, class.name)
      assert.equal("socket." .. name, tostring(class))
      assert.equal(name ~= "error" and socket.error or nil, class.parent)
    end
  end)

  it("are asked for with e:is, parents included", function()
    local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s:settimeout(0.001)
    local e = raised(s.recv, s, 1)
    assert.is_true(e:is(socket.timeout))
    assert.is_true(e:is(socket.error))
    assert.is_false(e:is(socket.gaierror))
    assert.is_false(e:is {})
    assert.is_false(e:is(socket))
    for _, wrong in ipairs {1, "socket.timeout", true} do
      assert.error_matches(function() e:is(wrong) end, "table expected, got " .. type(wrong))
    end
    assert.error_matches(function() e:is() end, "table expected, got no value")
  end)

  it("may have children made by a script", function()
    local s <close> = socket.socket()
    local e = raised(s.getpeername, s)
    local ring = {}
    ring.parent = {parent = ring}
    assert.is_false(e:is(ring))
    local mine = setmetatable({name = "mine", parent = socket.error}, getmetatable(socket.error))
    assert.equal("mine", tostring(mine))
    assert.is_false(e:is(mine))
  end)

  it("may be tied into a ring by a script, and are searched to an end", function()
    local s <close> = socket.socket()
    local e = raised(s.getpeername, s)
    socket.error.parent = socket.timeout
    local found, absent = e:is(socket.timeout), e:is(socket.gaierror)
    socket.error.parent = "no class"
    local odd = e:is(socket.timeout)
    socket.error.parent = nil
    assert.is_true(found)
    assert.is_false(absent)
    assert.is_false(odd)
    assert.is_false(e:is(socket.timeout))
  end)

  it("do not print others' values", function()
    local print_class = getmetatable(socket.error).__tostring
    for _, v in ipairs {1, "x", io.stdout} do assert.is_false(pcall(print_class, v)) end
    assert.is_false(pcall(print_class))
  end)
end)

describe("socket.iserror", function()
  it("takes any value", function()
    for _, v in ipairs {0, "text", true, false, {}, print, io.stdout, coroutine.create(print), socket.error,
      setmetatable({}, {__index = {is = true, class = socket.error}})} do
      assert.is_false(socket.iserror(v))
      assert.is_false(socket.iserror(v, socket.error))
    end
    assert.is_false(socket.iserror(nil))
    assert.is_false(socket.iserror(nil, socket.error))
    local s <close> = socket.socket()
    assert.is_false(socket.iserror(s))
  end)

  it("asks for a class too", function()
    local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s:settimeout(0.001)
    local e = raised(s.recv, s, 1)
    assert.is_true(socket.iserror(e))
    assert.is_true(socket.iserror(e, nil))
    assert.is_true(socket.iserror(e, socket.timeout))
    assert.is_true(socket.iserror(e, socket.error))
    assert.is_false(socket.iserror(e, socket.herror))
    assert.is_false(socket.iserror(e, {}))
  end)

  it("needs a value, and a table for a class", function()
    assert.error_matches(function() socket.iserror() end, "bad argument #1 to 'iserror' %(value expected%)")
    for _, wrong in ipairs {1, "socket.error", false} do
      assert.error_matches(function() socket.iserror(nil, wrong) end, "bad argument #2 to 'iserror' %(table expected")
    end
  end)
end)

describe("a timeout", function()
  it("is a socket.timeout: ETIMEDOUT, timed out", function()
    local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s:settimeout(0.001)
    local e = raised(s.recv, s, 1)
    assert.equal(socket.timeout, e.class)
    assert.equal(socket.errno.ETIMEDOUT, e.errno)
    assert.equal("ETIMEDOUT", e.code)
    assert.equal("timed out", e.message)
    assert.equal("recv", e.op)
    assert.matches("^spec/err_spec%.lua:%d+: recv: timed out %(ETIMEDOUT%)$", tostring(e))
  end)
end)

describe("an operation that would block under settimeout(0)", function()
  it("raises a socket.error: EAGAIN", function()
    local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s:settimeout(0)
    local e = raised(s.recv, s, 1)
    assert.equal(socket.error, e.class)
    assert.is_false(e:is(socket.timeout))
    assert.equal(socket.errno.EAGAIN, e.errno)
    assert.equal("EAGAIN", e.code)
    assert.equal("Resource temporarily unavailable", e.message)
  end)

  describe("costs one small object", function()
    -- Bytes that each call of f allocates, n calls deep.
    local function bytes_each(f, n)
      if n > 0 then return (bytes_each(f, n - 1)) end
      f() -- what is only needed once, such as the receive buffer
      collectgarbage() collectgarbage()
      collectgarbage "stop"
      local before = collectgarbage "count"
      for _ = 1, 500 do f() end
      local each = (collectgarbage "count" - before) * 1024 / 500
      collectgarbage "restart"
      return each
    end

    for where, n in pairs {["at the top"] = 0, ["where the stack is deep"] = 5000} do
      it("and neither text nor traceback, " .. where, function()
        local s <close> = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s:settimeout(0)
        assert.equal("EAGAIN", select(2, s:try_recv(1)).code)
        local try = bytes_each(function() s:try_recv(1) end, n)
        local caught = bytes_each(function() pcall(s.recv, s, 1) end, n)
        assert.is_true(try <= 160, try .. " bytes")
        assert.is_true(caught <= 160, caught .. " bytes")
      end)
    end
  end)
end)

describe("what had been done before a failure", function()
  it("is e.sent, of sendall", function()
    local a, b = socket.socketpair()
    local _ <close> = a
    local _ <close> = b
    a:settimeout(0.01)
    local e = raised(a.sendall, a, ("x"):rep(4000000))
    assert.equal(socket.timeout, e.class)
    assert.equal("integer", math.type(e.sent))
    local arrived = 0
    b:settimeout(0)
    for data in function() return (b:try_recv(1000000)) end do arrived = arrived + #data end
    assert.equal(arrived, e.sent)
    assert.is_true(arrived > 0 and arrived < 4000000)
    assert.is_nil(e.errors)
  end)

  it("is e.errors, of create_connection", function()
    local port, keep = refusing_port()
    local _ <close> = keep
    local e = raised(socket.create_connection, {"127.0.0.1", port}, 5)
    assert.equal("ECONNREFUSED", e.code)
    assert.equal("create_connection", e.op)
    assert.equal(1, #e.errors)
    assert.equal("ECONNREFUSED", e.errors[1].code)
    assert.equal(port, e.errors[1].address.port)
  end)
end)

describe("a closed socket", function()
  it("says so, in words of its own", function()
    local s = socket.socket()
    s:close()
    local e = raised(s.recv, s, 1)
    assert.equal(socket.error, e.class)
    assert.equal(socket.errno.EBADF, e.errno)
    assert.equal("EBADF", e.code)
    assert.equal("socket is closed", e.message)
    assert.matches(": recv: socket is closed %(EBADF%)$", tostring(e))
  end)
end)

describe("names that are not found", function()
  -- What getaddrinfo raises for these arguments; none of them asks a server.
  local function gai(...)
    local e = raised(socket.getaddrinfo, ...)
    assert.equal(socket.gaierror, e.class)
    assert.is_true(e:is(socket.error))
    assert.equal(socket[e.code], e.errno)
    assert.equal("getaddrinfo", e.op)
    return e
  end

  it("are gaierrors, with an EAI_ code", function()
    local e = gai("no number", 80, {flags = socket.AI_NUMERICHOST})
    assert.equal("EAI_NONAME", e.code)
    assert.equal("Name or service not known", e.message)
    assert.equal("no number", e.address[1])
    assert.matches(": getaddrinfo no number:80: Name or service not known %(EAI_NONAME%)$", tostring(e))
    e = gai("127.0.0.1", "no such service", {type = socket.SOCK_STREAM})
    assert.equal("EAI_SERVICE", e.code)
    assert.matches(": getaddrinfo 127%.0%.0%.1:no such service: ", tostring(e))
    e = gai("127.0.0.1", 80, 12345)
    assert.equal("EAI_FAMILY", e.code)
    e = gai("127.0.0.1", 80, {flags = 1 << 30})
    assert.equal("EAI_BADFLAGS", e.code)
    e = gai(nil, nil)
    assert.equal("EAI_NONAME", e.code)
    assert.equal("getaddrinfo {}: Name or service not known (EAI_NONAME)", (tostring(e):gsub("^[^:]+:%d+: ", "")))
  end)

  describe("by a server", function()
    -- Everything below happens in a network of its own, where the one server answers each name with an error or
    -- nothing at all.
    local stub = [[
      local socket = require "socket"
      local s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      s:bind {"127.0.0.1", 53}
      s:settimeout(20)
      local rcode = {none = 0, formerr = 1, servfail = 2, nxdomain = 3}
      io.open(arg[1], "w"):close()
      while true do
        local q, from = s:recvfrom(512)
        local label = q:sub(14, 13 + q:byte(13))
        s:sendto(q:sub(1, 2) .. string.pack(">I2I2I2I2I2", 0x8180 | (rcode[label] or 0), 1, 0, 0, 0) ..
          q:sub(13, 13 + #q:match("^[^\0]+\0", 13) + 3), from)
      end]]
    local client = [[
      local socket = require "socket"
      for _, name in ipairs {"nxdomain", "none", "servfail", "formerr"} do
        local ok, e = pcall(socket.gethostbyname_ex, name .. ".test")
        print(name, ok, e.class, e.code, e.errno, e.message, e.op, e.address[1])
      end
      local ok, e = pcall(socket.gethostbyaddr, "nxdomain.test")
      print(e.class, e.code, e.op)
      local ok, e = pcall(socket.gethostbyname, "nxdomain.test")
      print(e.class, e.code, e.op)]]

    it("are herrors of gethostbyname_ex, with an h_errno", function()
      if not os.execute "unshare -mn ip link set lo up 2>/dev/null" then pending "needs root and iproute2" end
      local dir = os.tmpname()
      os.remove(dir)
      lfs.mkdir(dir)
      local function write(name, text)
        local f <close> = assert(io.open(dir .. "/" .. name, "w"))
        f:write(text)
      end
      write("stub.lua", stub)
      write("client.lua", client)
      write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
      write("nsswitch.conf", "hosts: dns\n")
      write("run.sh", ([[
        cd %s
        ip link set lo up
        mount --bind resolv.conf /etc/resolv.conf && mount --bind nsswitch.conf /etc/nsswitch.conf || exit 1
        (cd %s && exec %s %s/stub.lua %s/ready) 2>/dev/null & stub=$!
        i=0; while [ ! -e ready ] && [ $i -lt 100 ]; do i=$((i + 1)); sleep 0.05; done
        (cd %s && %s %s/client.lua); kill $stub]]):format(dir, h.root, h.lua {leaks = false}, dir, dir, h.root, h.lua(),
        dir))
      local text = run("unshare -mn sh " .. dir .. "/run.sh")
      os.execute("rm -r " .. h.quote(dir))
      local function line(...) return table.concat({...}, "\t") .. "\n" end
      local function herror(name, code, errno, message)
        return line(name, "false", "socket.herror", code, errno, message, "gethostbyname_ex", name .. ".test")
      end
      assert.equal(herror("nxdomain", "HOST_NOT_FOUND", 1, "Unknown host") ..
        herror("none", "NO_DATA", 4, "No address associated with name") ..
        herror("servfail", "TRY_AGAIN", 2, "Host name lookup failure") ..
        herror("formerr", "NO_RECOVERY", 3, "Unknown server error") ..
        line("socket.gaierror", "EAI_NONAME", "gethostbyaddr") ..
        line("socket.gaierror", "EAI_NONAME", "gethostbyname"), text)
    end)
  end)
end)

describe("try_ forms", function()
  it("exist for every method that the system can refuse", function()
    for _, name in ipairs {"accept", "bind", "close", "connect", "connect_ex", "detach", "dup", "get_inheritable",
      "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom", "send", "sendall", "sendto",
      "set_inheritable", "setsockopt", "shutdown"} do
      assert.equal("function", type(socket.SocketType["try_" .. name]), name)
    end
  end)

  it("exist for every function that the system can refuse", function()
    for _, name in ipairs {"close", "create_connection", "create_server", "dup", "fromfd", "getaddrinfo", "getfqdn",
      "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "gethostname", "getnameinfo", "getprotobyname",
      "getservbyname", "getservbyport", "if_indextoname", "if_nameindex", "if_nametoindex", "inet_aton", "inet_ntoa",
      "inet_ntop", "inet_pton", "sethostname", "socket", "socketpair"} do
      assert.equal("function", type(socket["try_" .. name]), name)
    end
  end)

  it("stand beside the plain ones", function()
    for _, t in ipairs {socket, socket.SocketType} do
      for name in pairs(t) do
        local plain = type(name) == "string" and name:match "^try_(.*)"
        if plain then assert.equal("function", type(t[plain]), name) end
      end
    end
  end)

  it("return the same results", function()
    local s <close> = socket.try_socket()
    assert.equal(s, s:try_bind {"127.0.0.1", 0})
    assert.is_true(s:try_getsockname() == s:getsockname())
    assert.equal(1, s:try_getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
    assert.is_true(s:try_close())
  end)

  it("return nil and the error object that the plain ones raise", function()
    local s <close> = socket.socket()
    local line = here() + 1
    local results = table.pack(s:try_getpeername())
    assert.equal(2, results.n)
    assert.is_nil(results[1])
    local e, r = results[2], raised(s.getpeername, s)
    assert.is_true(socket.iserror(e, socket.error))
    for _, key in ipairs {"class", "errno", "message", "code", "op"} do assert.equal(r[key], e[key]) end
    assert.equal("getpeername", e.op)
    assert.equal("spec/err_spec.lua:" .. line, e.where)
  end)

  it("raise argument errors, which are strings as in Lua's own library", function()
    local s <close> = socket.socket()
    local function fails(message, f)
      local ok, e = pcall(f)
      assert.is_false(ok)
      assert.equal("string", type(e))
      assert.matches(message, e, 1, true)
      assert.matches("^spec/err_spec%.lua:%d+: ", e)
    end
    fails("bad argument #1 to 'bind' (table expected, got number)", function() s:bind(80) end)
    fails("bad argument #1 to 'try_bind' (table expected, got number)", function() s:try_bind(80) end)
    fails("bad argument #1 to 'try_recv' (number expected, got no value)", function() s:try_recv() end)
    fails("bad argument #1 to 'try_inet_aton' (string expected", function() socket.try_inet_aton {} end)
  end)

  it("leave no descriptor behind", function()
    local port, keep = refusing_port()
    local _ <close> = keep
    local before = proc.settled_descriptors()
    for _ = 1, 20 do
      local c <close> = socket.socket()
      assert.is_nil((c:try_connect {"127.0.0.1", port}))
      assert.is_nil((socket.try_create_connection({"127.0.0.1", port}, 5)))
      assert.is_nil((socket.try_create_server {"203.0.113.1", 0}))
      assert.is_nil((socket.try_socket(socket.AF_INET, socket.SOCK_STREAM, 255)))
      assert.is_nil((socket.try_socketpair(socket.AF_INET)))
      assert.is_nil((socket.try_fromfd(999999, socket.AF_INET, socket.SOCK_STREAM)))
      assert.is_nil((socket.try_socket(nil, nil, nil, 999999)))
    end
    assert.equal(before, proc.descriptors())
  end)
end)
