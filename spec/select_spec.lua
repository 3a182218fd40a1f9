-- Selectors and select: Python's answers, all kinds of descriptors, more than 1024, TLS bytes at hand, coroutines.

local h = require "spec.helper"
local certs = require "spec.support.certs"
local socket = require "socket"
local support = require "spec.support"

local selectors, loop = socket.selectors, require "socket.loop"
local fails, keep, now = support.fails, support.keep, socket.monotonic
local READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

after_each(support.close_kept)

-- What a select reports: a table of events by fileobj, and how many there are.
local function ready(sel, timeout)
  local found, n = {}, 0
  for key, events in sel:select(timeout) do
    found[key.fileobj] = events
    n = n + 1
  end
  return found, n
end

-- A number that nothing is open under.
local function unused_descriptor()
  local s <close> = socket.socket()
  return s:fileno()
end

local function argument_error(text, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok)
  assert.is_string(e)
  assert.matches(text, e, 1, true)
end

local kinds = {"DefaultSelector", "EpollSelector", "KqueueSelector", "PollSelector", "SelectSelector"}

describe("the module", function()
  it("is the field of socket, and has Python's numbers", function()
    assert.equal(selectors, require "socket.selectors")
    assert.equal(1, READ)
    assert.equal(2, WRITE)
    assert.is_function(selectors.DefaultSelector)
    assert.is_true(selectors.EpollSelector ~= nil or selectors.KqueueSelector ~= nil or
      selectors.DefaultSelector().fileno(selectors.DefaultSelector()) == nil)
  end)
end)

for _, kind in ipairs(kinds) do
  local make = selectors[kind]
  if make then describe(kind, function()
    local polls = make():fileno() == nil

    it("reports what is ready, with its key", function()
      local sel <close> = make()
      local a, b = keep(socket.socketpair())
      local key = sel:register(a, READ, "mine")
      assert.same({fileobj = a, fd = a:fileno(), events = READ, data = "mine"}, key)
      assert.equal(key, sel:get_key(a))
      assert.same({}, (ready(sel, 0)))
      b:sendall "x"
      local n = 0
      for k, events in sel:select() do
        assert.equal(key, k)
        assert.equal(READ, events)
        n = n + 1
      end
      assert.equal(1, n)
      assert.same({[a] = READ}, (ready(sel, 0))) -- as long as nobody reads
      a:recv(1)
      assert.same({}, (ready(sel, 0)))
    end)

    it("tells reading from writing", function()
      local sel <close> = make()
      local a, b = keep(socket.socketpair())
      sel:register(a, READ | WRITE)
      sel:register(b, WRITE)
      assert.same({[a] = WRITE, [b] = WRITE}, (ready(sel, 1)))
      b:sendall "x"
      assert.same({[a] = READ | WRITE, [b] = WRITE}, (ready(sel, 1)))
      assert.equal(b, sel:modify(b, READ).fileobj)
      assert.same({[a] = READ | WRITE}, (ready(sel, 1)))
    end)

    it("waits for its time, and not beyond", function()
      local sel <close> = make()
      local a = keep(socket.socketpair())
      sel:register(a, READ)
      local start = now()
      assert.same({}, (ready(sel, 0.05)))
      assert.is_true(now() - start >= 0.05 and now() - start < 1)
      start = now()
      for _, t in ipairs {0, -1, -math.huge} do assert.same({}, (ready(sel, t))) end -- Python: not at all
      assert.is_true(now() - start < 0.05)
      argument_error("number expected", sel.select, sel, "soon")
      argument_error("NaN", sel.select, sel, 0 / 0)
    end)

    it("without anything registered only waits", function() -- Python's selectors too
      local sel <close> = make()
      local start = now()
      assert.same({}, (ready(sel, 0.03)))
      assert.is_true(now() - start >= 0.03)
    end)

    it("takes an end and an error of a stream for ready", function()
      local sel <close> = make()
      local a, b = support.tcp()
      keep(a, b)
      sel:register(a, READ)
      b:setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, string.pack("ii", 1, 0))
      b:close()
      assert.same({[a] = READ}, (ready(sel, 1)))
      fails("ECONNRESET", a.recv, a, 1)
      local c, d = keep(socket.socketpair())
      sel:register(c, READ)
      d:close()
      assert.equal(READ, ready(sel, 1)[c])
      assert.is_nil(c:recv(1))
    end)

    -- Python: register: ValueError (bad events, bad object), KeyError (registered already); unregister, modify,
    -- get_key of what is not registered: KeyError
    it("refuses bad events", function()
      local sel <close> = make()
      local a = keep(socket.socketpair())
      for _, events in ipairs {0, 4, 8, -1, 5, 1 << 40} do
        argument_error("events must be", sel.register, sel, a, events)
      end
      argument_error("number expected", sel.register, sel, a, "r")
      argument_error("number expected", sel.register, sel, a)
      sel:register(a, READ)
      for _, events in ipairs {0, 4} do argument_error("events must be", sel.modify, sel, a, events) end
      assert.equal(READ, sel:get_key(a).events)
    end)

    it("refuses what has no descriptor", function()
      local sel <close> = make()
      local closed = socket.socket()
      closed:close()
      local file = io.tmpfile()
      file:close()
      for _, bad in ipairs {closed, file, {}, "x", true, print, 1.5, {fileno = function() return -1 end},
                            {fileno = function() return "x" end}, {fileno = function() end}} do
        argument_error("has no open descriptor", sel.register, sel, bad, READ)
      end
      argument_error("number expected, got no value", sel.register, sel)
      argument_error("has no open descriptor", sel.register, sel, nil, READ)
      argument_error("gone", sel.register, sel, {fileno = function() error "gone" end}, READ)
      for _, number in ipairs {-1, 1 << 40, 1000000, unused_descriptor()} do
        local ok, e = pcall(sel.register, sel, number, READ)
        assert.same({false, "EBADF", "register"}, {ok, e.code, e.op})
      end
      assert.same({}, sel:get_map())
    end)

    it("refuses the same descriptor twice, by whatever object", function()
      local sel <close> = make()
      local a = keep(socket.socketpair())
      sel:register(a, READ)
      argument_error("is already registered", sel.register, sel, a, READ)
      argument_error("is already registered", sel.register, sel, a:fileno(), WRITE)
      argument_error("is already registered", sel.register, sel, {fileno = function() return a:fileno() end}, READ)
      local copy <close> = a:dup() -- another descriptor
      sel:register(copy, READ)
      assert.equal(a, sel:get_key(a:fileno()).fileobj)
    end)

    it("refuses to unregister, modify and find what is not registered", function()
      local sel <close> = make()
      local a = keep(socket.socketpair())
      for _, method in ipairs {"unregister", "modify", "get_key"} do
        argument_error("is not registered", sel[method], sel, a, READ)
        argument_error("is not registered", sel[method], sel, {}, READ) -- Python: ValueError
        argument_error("is not registered", sel[method], sel, 1 << 20, READ)
      end
      argument_error("selector expected", sel.unregister, {}, a)
      argument_error("selector expected", sel.select, a)
    end)

    it("modifies events and data in the same key", function()
      local sel <close> = make()
      local a = keep(socket.socketpair())
      local key = sel:register(a, READ, 1)
      assert.equal(key, sel:modify(a, WRITE, 2))
      assert.same({WRITE, 2}, {key.events, key.data})
      assert.same({[a] = WRITE}, (ready(sel, 1)))
      sel:modify(a, WRITE)
      assert.is_nil(key.data) -- as in Python, where it is None then
      assert.equal(key, sel:unregister(a))
      assert.same({}, (ready(sel, 0)))
      sel:register(a, WRITE)
      assert.same({[a] = WRITE}, (ready(sel, 1)))
    end)

    it("unregisters a socket closed before, by its object", function() -- Python: by search through its map
      local sel <close> = make()
      local a, b = keep(socket.socketpair())
      sel:register(a, READ, "data")
      a:close()
      assert.equal("data", sel:get_key(a).data)
      assert.equal("data", sel:unregister(a).data)
      argument_error("is not registered", sel.unregister, sel, a)
      assert.same({}, sel:get_map())
      sel:register(b, READ)
      assert.same({[b] = READ}, (ready(sel, 1)))
    end)

    it("may get the descriptor of a closed socket anew, once that is unregistered", function()
      local sel <close> = make()
      for _ = 1, 3 do
        local a, b = socket.socketpair()
        sel:register(a, READ)
        b:sendall "x"
        assert.same({[a] = READ}, (ready(sel, 1)))
        a:close()
        b:close()
        sel:unregister(a)
      end
      assert.same({}, (ready(sel, 0)))
    end)

    it("get_map is the keys by their objects at that moment", function()
      local sel <close> = make()
      local a, b = keep(socket.socketpair())
      local ka, kb = sel:register(a, READ), sel:register(b, WRITE)
      local map = sel:get_map()
      assert.same({[a] = ka, [b] = kb}, map)
      map[a] = nil
      sel:unregister(b)
      assert.same({[a] = ka}, sel:get_map())
      assert.equal(kb, map[b])
    end)

    it("after close knows nothing, twice", function()
      local before = support.descriptors()
      local a, b = keep(socket.socketpair())
      local sel = make()
      sel:register(a, READ)
      assert.matches("^selector: <", tostring(sel))
      assert.is_true(sel:close())
      assert.is_true(sel:close())
      assert.equal("selector: <closed>", tostring(sel))
      assert.is_nil(sel:get_map()) -- Python: None
      for _, method in ipairs {"register", "unregister", "modify", "select", "get_key", "fileno"} do
        fails("EBADF", sel[method], sel, method == "select" and 0 or a, READ)
      end
      b:sendall "x"
      assert.equal("x", a:recv(1)) -- what it watched stays open
      assert.equal(before + 2, support.descriptors())
    end)

    it("gives its descriptor back when it is garbage", function()
      local before = support.descriptors()
      for _ = 1, 5 do make():register(keep(socket.socket()), READ) end
      support.close_kept()
      assert.equal(before, support.descriptors())
    end)

    it("takes files of io, pipes, numbers and objects with fileno or getfd", function()
      local sel <close> = make()
      local pipe = io.popen "sleep 0.05; echo hello"
      local a, b = keep(socket.socketpair())
      local c, d = keep(socket.socketpair())
      local e, f = keep(socket.socketpair())
      local object = {getfd = function() return c:fileno() end}
      local other = setmetatable({}, {__index = {fileno = function() return e:fileno() end}})
      local ka = sel:register(pipe, READ)
      sel:register(a:fileno(), READ)
      sel:register(object, READ)
      sel:register(other, READ)
      assert.same({}, (ready(sel, 0)))
      b:sendall "1"
      d:sendall "2"
      f:sendall "3"
      assert.same({[a:fileno()] = READ, [object] = READ, [other] = READ}, (ready(sel, 0)))
      for _, o in ipairs {a:fileno(), object, other} do sel:unregister(o) end
      assert.same({[pipe] = READ}, (ready(sel, 5)))
      assert.equal(ka, sel:unregister(pipe))
      assert.equal("hello", pipe:read "l")
      pipe:close()
    end)

    it("answers EBADF for a number that is no descriptor, and makes no room for it", function()
      local sel <close> = make()
      collectgarbage()
      local before = collectgarbage "count"
      for _, fd in ipairs {1000003, 1 << 24, 2147483647} do fails("EBADF", sel.register, sel, fd, READ) end
      assert.is_true(collectgarbage "count" - before < 1000)
      assert.same({}, sel:get_map())
    end)

    it("answers EPERM for a regular file where the system does", function() -- Python: PermissionError of epoll
      local sel <close> = make()
      local file <close> = io.tmpfile()
      if polls then
        sel:register(file, READ)
        assert.same({[file] = READ}, (ready(sel, 0)))
      elseif kind ~= "KqueueSelector" then
        fails("EPERM", sel.register, sel, file, READ)
        argument_error("is not registered", sel.get_key, sel, file)
        assert.same({}, sel:get_map())
      end
    end)

    it("lets the loop unregister, modify and close", function()
      local sel <close> = make()
      local socks = {}
      for i = 1, 6 do
        local a, b = keep(socket.socketpair())
        b:sendall "x"
        socks[i] = a
        sel:register(a, READ | WRITE, i)
      end
      local seen = 0
      for key in sel:select(1) do
        seen = seen + 1
        for _, s in ipairs(socks) do
          if s ~= key.fileobj then sel:unregister(s) end
        end
        socks = {key.fileobj}
      end
      assert.equal(1, seen)
      local other = keep(socket.socketpair())
      sel:register(other, WRITE)
      seen = {}
      for key, events in sel:select(1) do
        seen[#seen + 1] = events
        sel:modify(key.fileobj == other and socks[1] or other, READ)
      end
      -- the second is reported as it is now: the one as readable, or the other, that became a reader, not at all
      assert.is_true(#seen == 1 and seen[1] == READ | WRITE or #seen == 2 and seen[1] == WRITE and seen[2] == READ)
      local rounds = 0
      for _ in sel:select(1) do
        rounds = rounds + 1
        sel:close()
      end
      assert.equal(1, rounds)
    end)

    it("reports again what a second select cut off", function()
      local sel <close> = make()
      for _ = 1, 3 do sel:register(keep(socket.socket()), WRITE) end
      local inner
      for _ in sel:select(1) do
        inner = (inner or 0) + select(2, ready(sel, 0)) -- which ends the loop
      end
      assert.equal(3, inner)
      local _, again = ready(sel, 0)
      assert.equal(3, again)
    end)

    it("is fair when more than 256 are ready", function()
      local sel <close> = make()
      local socks = {}
      for i = 1, 300 do
        socks[i] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
        sel:register(socks[i], WRITE)
      end
      local seen, n = {}, 0
      for _ = 1, 12 do
        for s in pairs((ready(sel, 0))) do
          if not seen[s] then n = n + 1 end
          seen[s] = true
        end
      end
      assert.equal(300, n)
      for _, s in ipairs(socks) do s:close() end
    end)

    it("is registered in another, and readable when it has something", function()
      if polls then return assert.is_nil(make():fileno()) end
      local inner <close> = make()
      local outer <close> = make()
      local a, b = keep(socket.socketpair())
      inner:register(a, READ)
      outer:register(inner, READ)
      assert.same({}, (ready(outer, 0)))
      b:sendall "x"
      assert.same({[inner] = READ}, (ready(outer, 1)))
      assert.same({[a] = READ}, (ready(inner, 0)))
    end)

    it("watches descriptors beyond 1024", function()
      local text, status = support.run(([[
        local socket = require "socket"
        local selectors = socket.selectors
        local sel <close> = selectors.%s()
        local socks = {}
        for i = 1, 3000 do
          socks[i] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
          sel:register(socks[i], selectors.EVENT_READ, i)
        end
        assert(socks[3000]:fileno() > 3000)
        for _, i in ipairs {1, 1500, 2999} do
          socks[i]:bind {"127.0.0.1", 0}
          socks[3000]:sendto("x", socks[i]:getsockname())
        end
        local list = {}
        for key in sel:select(5) do list[#list + 1] = key.data end
        table.sort(list)
        print(table.concat(list, " "))
        local r, w = selectors.select(socks, {socks[3000]}, {}, 5)
        print(#r, #w)
        for _, s in ipairs(socks) do sel:unregister(s) s:close() end
        print(next(sel:get_map()))
      ]]):format(kind), {before = "ulimit -n 4000 && exec"})
      if text:find "ulimit" then pending "needs a limit of 4000 descriptors" end
      assert.equal("1 1500 2999\n3\t1\nnil\n", text)
      assert.equal(0, status)
    end)

    it("can be interrupted by Ctrl-C", function()
      local p, pid = support.start(([[
        local socket = require "socket"
        local sel = socket.selectors.%s()
        local a = socket.socketpair()
        sel:register(a, 1)
        print(pcall(sel.select, sel))
        for _ in sel:select(0) do print "ready" end
      ]]):format(kind))
      assert.is_true(support.asleep(pid))
      support.kill(pid, "INT")
      assert.matches("^false\t.*interrupted!\n$", p:read "a")
      p:close()
    end)

    it("waits within a task, while others run", function()
      local ticks = 0
      local a, b = keep(socket.socketpair())
      local found = loop.run(function()
        local sel <close> = make()
        sel:register(a, READ)
        local ticker = loop.spawn(function()
          for _ = 1, 5 do socket.sleep(0.005) ticks = ticks + 1 end
          b:sendall "x"
          ticks = -ticks
        end)
        local list = ready(sel, polls and 0.05 or nil)
        if polls then ticker:join() end
        return list
      end)
      assert.equal(-5, ticks)
      if not polls then assert.same({[a] = READ}, found) end
    end)

    it("closed by another task, ends the wait", function()
      if polls then return assert.is_nil(make():fileno()) end
      local a = keep(socket.socketpair())
      loop.run(function()
        local sel = make()
        sel:register(a, READ)
        local task = loop.spawn(pcall, sel.select, sel)
        socket.sleep(0.002)
        sel:close()
        local ok, e = task:join()
        assert.same({false, "ECANCELED"}, {ok, e.code})
      end)
    end)

    it("waits within a plain coroutine through the wait hook", function()
      if polls then return assert.is_nil(make():fileno()) end
      local S = support.scheduler(pending)
      local a, b = keep(socket.socketpair())
      local log = {}
      S.spawn(function()
        local sel <close> = make()
        sel:register(a, READ)
        local found = ready(sel)
        log[#log + 1] = found[a]
        a:recv(1)
        found = ready(sel, 0.02)
        log[#log + 1] = next(found) == nil
      end)
      S.spawn(function()
        log[#log + 1] = "other"
        b:sendall "x"
      end)
      S.run()
      assert.same({"other", READ, true}, log)
    end)
  end) end
end

describe("a selector with TLS sockets", function()
  local ssl = socket.ssl
  local function pair()
    local a, b = support.tcp()
    local server = ssl.create_default_context {purpose = ssl.Purpose.CLIENT_AUTH}
    server:load_cert_chain(certs.path "server.pem", certs.path "server.key")
    local client = ssl.create_default_context {cafile = certs.path "ca.pem"}
    local c, s
    loop.run(function()
      loop.group(function(g)
        g:spawn(function() c = client:wrap_socket(a, {server_hostname = "localhost"}) end)
        g:spawn(function() s = server:wrap_socket(b, {server_side = true}) end)
      end)
    end)
    return keep(c, s)
  end

  for _, kind in ipairs(kinds) do
    if selectors[kind] then it("reports bytes decrypted already: " .. kind, function()
      local sel <close> = selectors[kind]()
      local c, s = pair()
      s:sendall(("x"):rep(16000)) -- one record
      sel:register(c, READ)
      local got = 0
      while got < 16000 do
        local found = ready(sel, 5)
        assert.equal(READ, found[c])
        got = got + #c:recv(999)
      end
      assert.same({}, (ready(sel, 0)))
      local r = selectors.select({c}, {}, {}, 0)
      assert.same({}, r)
      s:sendall "abc"
      ready(sel, 5)
      c:recv(1)
      assert.same({c}, (selectors.select({c}, {}, {}, 5)))
      sel:modify(c, WRITE)
      assert.same({[c] = WRITE}, (ready(sel, 1)))
      sel:unregister(c)
      assert.same({}, (ready(sel, 0)))
    end) end
  end

  it("does not starve others", function()
    local sel <close> = selectors.DefaultSelector()
    local c, s = pair()
    local a, b = keep(socket.socketpair())
    s:sendall "many bytes"
    socket.sleep(0.01)
    c:recv(1)
    sel:register(c, READ)
    sel:register(a, READ)
    b:sendall "x"
    assert.same({[c] = READ, [a] = READ}, (ready(sel, 1)))
  end)
end)

describe("select", function()
  local select = selectors.select

  it("gives three new lists of what is ready", function()
    local a, b = keep(socket.socketpair())
    b:sendall "x"
    local readers, writers = {a, b}, {a}
    local r, w, x = select(readers, writers, {a}, 1)
    assert.same({{a}, {a}, {}}, {r, w, x})
    assert.is_true(r ~= readers and w ~= writers)
    assert.same({a, b}, readers)
  end)

  it("keeps duplicates and the order", function() -- as Python's
    local a, b = keep(socket.socketpair())
    b:sendall "x"
    local r, w = select({a, b, a}, {b, a, b}, {})
    assert.same({a, a}, r)
    assert.same({b, a, b}, w)
  end)

  it("waits for its time", function()
    local a = keep(socket.socketpair())
    local start = now()
    assert.same({{}, {}, {}}, {select({a}, {}, {}, 0.03)})
    assert.is_true(now() - start >= 0.03)
    assert.same({{}, {}, {}}, {select({}, {}, {}, 0)})
    argument_error("negative", select, {}, {}, {}, -1) -- Python: ValueError
  end)

  it("reports urgent data", function()
    local a, b = support.tcp()
    keep(a, b)
    assert.same({{}, {}, {}}, {select({b}, {}, {b}, 0)})
    a:send("!", socket.MSG_OOB)
    local _, _, x = select({}, {}, {b}, 5)
    assert.same({b}, x)
    assert.equal("!", b:recv(1, socket.MSG_OOB))
  end)

  it("takes all that has a descriptor, and regular files as ready", function()
    local a, b = keep(socket.socketpair())
    local file <close> = io.tmpfile()
    b:sendall "x"
    local object = {getfd = function() return a:fileno() end}
    assert.same({{a:fileno(), object, file}, {file}, {}}, {select({a:fileno(), object, file}, {file}, {}, 0)})
  end)

  it("refuses what has none, and what is no list", function()
    local a = socket.socket()
    a:close()
    argument_error("(item 1 has no open descriptor)", select, {a}, {}, {}, 0)
    argument_error("(item 2 has no open descriptor)", select, {}, {0, {}}, {}, 0)
    argument_error("table expected", select, {}, {}, nil, 0)
    argument_error("table expected", select, 1, {}, {}, 0)
  end)

  it("waits in a task and through the wait hook, also with regular files", function()
    local a, b = keep(socket.socketpair())
    local file <close> = io.tmpfile()
    local ticks = 0
    loop.run(function()
      loop.spawn(function()
        for _ = 1, 3 do socket.sleep(0.005) ticks = ticks + 1 end
        b:sendall "x"
      end)
      assert.same({{a}, {}, {}}, {select({a}, {}, {a})})
      assert.equal(3, ticks)
      a:recv(1)
      assert.same({{}, {}, {}}, {select({a, a}, {}, {a}, 0.02)})
      assert.same({{file}, {}, {}}, {select({a, file}, {}, {}, 1)})
    end)
    local S = support.scheduler(pending)
    local r
    S.spawn(function() r = select({a}, {}, {}) end)
    S.spawn(function() socket.sleep(0.01) b:sendall "x" end)
    S.run()
    assert.same({a}, r)
  end)

  it("leaves no descriptor behind", function()
    local a = keep(socket.socketpair())
    local before = support.descriptors()
    loop.run(function() for _ = 1, 5 do select({a}, {}, {}, 0.001) end end)
    assert.equal(before, support.descriptors())
  end)

  it("agrees with Python's select on bad objects and descriptors", function()
    if not support.has "python3" then pending "needs python3" end
    local text = support.output(("cd / && python3 -c %s"):format(h.quote [[
import select, selectors, socket
a, b = socket.socketpair()
s = selectors.DefaultSelector()
def name(f, *x):
    try: f(*x); return "none"
    except Exception as e: return type(e).__name__
print(name(s.register, a, 0), name(s.register, a, 4), name(s.register, {}, 1), name(s.unregister, a))
s.register(a, 1)
print(name(s.register, a, 1), name(s.register, a.fileno(), 1), name(s.modify, b, 1), name(s.get_key, b))
a.close()
print(name(s.unregister, a), name(s.unregister, a))
s.close()
print(s.get_map(), name(select.select, [a], [], [], 0), name(select.select, [], [], [], -1))
]]))
    assert.equal([[
ValueError ValueError ValueError KeyError
KeyError KeyError KeyError KeyError
none ValueError
None ValueError ValueError
]], text)
  end)
end)
