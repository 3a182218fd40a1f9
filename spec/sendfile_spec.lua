-- sendfile: files sent through a socket, by the kernel where it can.

require "spec.helper"
local check = require "spec.support.check"
local files = require "spec.support.files"
local socket = require "socket"
local streams = require "spec.support.streams"
local support = require "spec.support"
local tasks = require "spec.support.tasks"

local bad, fails, keep = check.bad, support.fails, support.keep
local KINDS, pair = files.PAIRS, files.pair
local collect, random_bytes = streams.collect, streams.random_bytes
local now = socket.monotonic

local paths = {}

after_each(function()
  socket.setwaithook(nil)
  support.close_kept()
  for i = #paths, 1, -1 do
    os.remove(paths[i])
    paths[i] = nil
  end
end)

-- The path of a file with these bytes, removed after the test.
local function file_with(bytes)
  local path = os.tmpname()
  paths[#paths + 1] = path
  local f <close> = assert(io.open(path, "wb"))
  f:write(bytes)
  return path
end

-- A file of that size with nothing in it, which takes no room on the disk.
local function sparse(size)
  local path = file_with ""
  local f <close> = assert(io.open(path, "r+b"))
  f:seek("set", size - 3)
  f:write "end"
  return path
end

-- What says how much it received.
local COUNT = [[
  local n = 0
  for data in function() return s:recv(65536) end do n = n + #data end
  print(n)]]

-- The process at the other end, which does not outlive a test that fails.
local function peer(s, code) return support.peer(s, "s:settimeout(20) " .. code) end

for kind in pairs(KINDS) do
  describe("sendfile over " .. kind, function()
    it("sends a Lua file or a path, whole, and says how many bytes that were", function()
      local bytes = random_bytes(70000)
      local path = file_with(bytes)
      for _, t in ipairs {false, 5, 0.03, 0} do
        local a, b = pair(kind)
        a:settimeout(t or nil)
        b:settimeout(5)
        local f <close> = assert(io.open(path, "rb"))
        assert.equal(70000, a:sendfile(f))
        assert.is_true(collect(b, 70000) == bytes)
        assert.equal(70000, a:sendfile(path))
        assert.is_true(collect(b, 70000) == bytes)
        assert.equal(70000, a:try_sendfile(path))
        a:close()
        assert.is_true(collect(b) == bytes)
      end
    end)

    it("sends a part: from an offset, a count", function()
      local path = file_with "0123456789"
      local a, b = pair(kind)
      local f <close> = io.open(path)
      for _, case in ipairs {
        {{0}, "0123456789"}, {{3}, "3456789"}, {{3, 4}, "3456"}, {{nil, 2}, "01"}, {{9}, "9"}, {{0, 100}, "0123456789"},
        {{10}, ""}, {{11}, ""}, {{1 << 40}, ""}, {{5, 0}, ""}, {{5, 1 << 62}, "56789"}, {{2.0, 3.0}, "234"},
      } do
        local args, want = case[1], case[2]
        assert.equal(#want, a:sendfile(f, args[1], args[2]))
        assert.equal(want, collect(b, #want))
        assert.equal(#want, a:sendfile(path, args[1], args[2]))
        assert.equal(want, collect(b, #want))
      end
      b:settimeout(0)
      fails("EAGAIN", b.recv, b, 1) -- and nothing more
    end)

    it("sends megabytes to another process", function()
      local path = file_with(random_bytes(5000000))
      for _, t in ipairs {false, 10} do
        local a, b = pair(kind)
        local p <close> = peer(b, COUNT)
        a:settimeout(t or nil)
        assert.equal(5000000, a:sendfile(path))
        a:close()
        assert.equal("5000000\n", p:read "a")
      end
    end)

    it("sends 100 MB of holes to a slow reader, in time", function()
      local path = sparse(100 << 20)
      local a, b = pair(kind)
      local p <close> = peer(b, [[
        local n, last = 0, ""
        for data in function() return s:recv(4 << 20) end do
          n = n + #data
          last = (last .. data):sub(-3)
          if n % 16 == 0 then socket.sleep(0.0001) end
        end
        print(n, last)]])
      a:settimeout(20)
      local f <close> = io.open(path)
      assert.equal(100 << 20, a:sendfile(f))
      assert.equal(100 << 20, f:seek())
      a:close()
      assert.equal("104857600\tend\n", p:read "a")
    end)
  end)
end

describe("sendfile", function()
  it("sends nothing of an empty file", function()
    local path = file_with ""
    local a = pair()
    local f <close> = io.open(path)
    assert.equal(0, a:sendfile(path))
    assert.equal(0, a:sendfile(f))
    assert.equal(0, a:sendfile(f, 100, 100))
  end)

  it("begins at the offset, not where the file is; afterwards the file is behind the last byte sent", function()
    local f <close> = io.open(file_with "0123456789")
    local a, b = pair()
    f:seek("set", 7)
    assert.equal(10, a:sendfile(f))
    assert.equal(10, f:seek())
    assert.equal(3, a:sendfile(f, 2, 3))
    assert.equal(5, f:seek())
    assert.equal("567", f:read(3))
    assert.equal("0123456789234", collect(b, 13))
    assert.equal(0, a:sendfile(f, 4, 0)) -- nothing sent, nothing moved
    assert.equal(8, f:seek())
  end)

  it("sends what was written to the file, flushed or not", function()
    local f <close> = io.tmpfile()
    f:write "not flushed"
    local a, b = pair()
    assert.equal(11, a:sendfile(f))
    assert.equal("not flushed", collect(b, 11))
    f:write " and more"
    assert.equal(9, a:sendfile(f, 11))
    assert.equal(" and more", collect(b, 9))
  end)

  it("reads a pipe on from where it is, to its end", function()
    local a, b = pair()
    local f <close> = io.popen "printf 'first line\\nand the rest\\0of it'; sleep 0.01; printf more"
    assert.equal("first line", f:read())
    assert.equal(22, a:sendfile(f))
    assert.equal("and the rest\0of itmore", collect(b, 22))
  end)

  it("reads as much of a pipe as is wanted", function()
    local a, b = pair()
    local f <close> = io.popen "printf 0123456789"
    assert.equal(4, a:sendfile(f, 0, 4))
    assert.equal(0, a:sendfile(f, 0, 0))
    assert.equal("45", f:read(2))
    assert.equal(4, a:sendfile(f, nil, 100))
    assert.equal(0, a:sendfile(f))
    assert.equal("01236789", collect(b, 8))
  end)

  it("sends a pipe of megabytes, in every mode", function()
    for _, t in ipairs {false, 10} do
      local a, b = pair()
      local p <close> = peer(b, COUNT)
      a:settimeout(t or nil)
      local f <close> = io.popen "head -c 3000001 /dev/zero"
      assert.equal(3000001, a:sendfile(f))
      a:close()
      assert.equal("3000001\n", p:read "a")
    end
  end)

  it("refuses an offset in a file without positions", function()
    local a = pair()
    local f <close> = io.popen "echo x"
    assert.matches("no positions", bad(3, a.sendfile, a, f, 1))
    assert.equal(2, a:sendfile(f, 0))
  end)

  it("sends files of /proc, which say that they are empty", function()
    if not io.open "/proc/self/cmdline" then pending "no /proc here" end
    local a, b = pair()
    local f <close> = io.open "/proc/self/cmdline"
    local n = a:sendfile "/proc/self/cmdline"
    assert.is_true(collect(b, n) == f:read "a")
  end)

  it("says which file is not there", function()
    local before = support.descriptors()
    local a = pair()
    for path, code in pairs {["/nowhere/at/all"] = "ENOENT", [""] = "ENOENT", ["/etc/passwd/x"] = "ENOTDIR",
      [("x"):rep(300)] = "ENAMETOOLONG", [("/x"):rep(5000)] = "ENAMETOOLONG"} do
      local e = fails(code, a.sendfile, a, path)
      assert.equal("sendfile", e.op)
      local none
      none, e = a:try_sendfile(path)
      assert.is_nil(none)
      assert.equal(code, e.code)
    end
    assert.equal(before, support.descriptors() - 2)
  end)

  it("takes paths of any length that the system takes", function()
    local bytes = "far away"
    local path = file_with(bytes)
    local a, b = pair()
    assert.equal(8, a:sendfile(("/."):rep(1500) .. path))
    assert.equal(bytes, b:recv(100))
  end)

  it("sends no folders, devices and FIFOs by their path, and does not wait for them", function()
    local a = pair()
    local before = support.descriptors()
    local fifo = os.tmpname()
    os.remove(fifo)
    assert(os.execute("mkfifo " .. fifo))
    paths[#paths + 1] = fifo
    for _, path in ipairs {"/", "/dev/null", "/dev/zero", fifo} do
      assert.matches("not a regular file", bad(2, a.sendfile, a, path))
    end
    assert.equal(before, support.descriptors())
  end)

  it("refuses wrong arguments", function()
    local a = pair()
    local path = file_with "x"
    local closed = io.open(path)
    closed:close()
    assert.matches("file is closed", bad(2, a.sendfile, a, closed))
    assert.matches("zero byte", bad(2, a.sendfile, a, path .. "\0"))
    for _, v in ipairs {a, {}, true, print, 5} do assert.matches("file or path", bad(2, a.sendfile, a, v)) end
    bad(2, a.sendfile, a)
    bad(3, a.sendfile, a, path, -1)
    bad(3, a.sendfile, a, path, "x")
    bad(3, a.sendfile, a, path, 1.5)
    bad(4, a.sendfile, a, path, 0, -1)
    bad(4, a.sendfile, a, path, 0, math.mininteger)
    bad(4, a.sendfile, a, path, 0, {})
    bad(1, a.sendfile, io.stdin, path)
    assert.is_false(pcall(a.sendfile))
    assert.equal(1, a:sendfile(path, nil, nil))
  end)

  it("refuses sockets that are no streams", function()
    local path = file_with "x"
    for _, type in ipairs {socket.SOCK_DGRAM, socket.SOCK_SEQPACKET} do
      local a = keep(socket.socketpair(socket.AF_UNIX, type))
      assert.matches("a stream socket is needed", bad(1, a.sendfile, a, path))
    end
  end)

  it("fails with EBADF on a closed socket, and leaves the file where it is", function()
    local path = file_with "0123456789"
    local s = socket.socket()
    s:close()
    local f <close> = io.open(path)
    f:seek("set", 3)
    for _, file in ipairs {path, f} do
      local e = fails("EBADF", s.sendfile, s, file)
      assert.equal("socket is closed", e.message)
    end
    assert.equal(3, f:seek())
    fails("EBADF", s.sendfile, s, "/nowhere")
    bad(2, s.sendfile, s, {})
  end)

  it("fails with the system's error where there is no peer, or the file is only to be written", function()
    local path = file_with "0123456789"
    local s <close> = socket.socket()
    local e = fails("EPIPE", s.sendfile, s, path)
    assert.equal(0, e.sent)
    local a = pair()
    local f <close> = io.open(path, "a")
    fails("EBADF", a.sendfile, a, f)
  end)

  it("says in e.sent how much went before a timeout; the file is there, and the rest can be sent", function()
    local bytes = random_bytes(3000000)
    local path = file_with(bytes)
    for kind in pairs(KINDS) do
      for _, t in ipairs {0, 0.03, 0.1} do
        local a, b = pair(kind)
        local f <close> = io.open(path)
        a:setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        b:setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        a:settimeout(t)
        local start = now()
        local e = fails(t == 0 and "EAGAIN" or "ETIMEDOUT", a.sendfile, a, f)
        assert.is_true(now() - start >= t and now() - start < t + 0.5)
        assert.is_true(e.sent > 0 and e.sent < #bytes)
        assert.equal(t > 0, e:is(socket.timeout))
        assert.equal(e.sent, f:seek())
        b:settimeout(5)
        local start_of_it = collect(b, e.sent)
        local none, e2 = b:settimeout(0):try_recv(1)
        assert.is_true(none == nil and e2.code == "EAGAIN")
        assert.is_true(start_of_it == bytes:sub(1, e.sent))
        e2 = fails(t == 0 and "EAGAIN" or "ETIMEDOUT", a.sendfile, a, path, e.sent)
        assert.is_true(e2.sent > 0 or kind == "TCP") -- which takes a moment to find room again
        b:settimeout(5)
        assert.is_true(collect(b, e2.sent) == bytes:sub(e.sent + 1, e.sent + e2.sent))
      end
    end
  end)

  it("is bounded by one deadline, also while a reader takes a little at a time", function()
    local path = sparse(1 << 30)
    for kind in pairs(KINDS) do
      local a, b = pair(kind)
      local p <close>, pid = peer(b, "while s:recv(65536) do socket.sleep(0.001) end")
      a:settimeout(0.2)
      local start = now()
      local e = fails("ETIMEDOUT", a.sendfile, a, path)
      assert.is_true(now() - start >= 0.2 and now() - start < 0.7)
      assert.is_true(e.sent > 0)
      support.kill(pid, "TERM")
      p:read "a"
    end
  end)

  it("does not wait for room when everything is sent", function()
    local a = pair()
    local path, n = file_with(("x"):rep(4096)), 0
    a:settimeout(0.05)
    repeat -- a piece fits whole, or not at all
      local sent, e = a:try_sendfile(path)
      if sent then n = n + 1 else assert.same({"ETIMEDOUT", 0}, {e.code, e.sent}) end
    until not sent
    assert.is_true(n > 10) -- although poll(2) says early that there is no room
  end)

  it("to a peer that is gone is EPIPE or ECONNRESET, never a signal; the file is behind what was sent", function()
    for _, kind in ipairs {"socket.socketpair()", "tcp()"} do
      local text, status = support.run(([[
        local socket = require "socket"
        local function tcp()
          local server <close> = socket.create_server {"127.0.0.1", 0}
          local a = socket.socket():connect(server:getsockname())
          return a, (server:accept())
        end
        local gone = {EPIPE = true, ECONNRESET = true}
        local path = os.tmpname()
        local f = io.open(path, "w+")
        f:write(("x"):rep(100000)):flush()
        for _, t in ipairs {false, 5, 0} do
          local a, b = %s
          a:settimeout(t or nil)
          b:close()
          for _ = 1, 3 do
            local n, e = a:try_sendfile(path)
            if e then assert(gone[e.code], e) end
          end
          local ok, e = pcall(a.sendfile, a, f, 10)
          assert(not ok and gone[e.code] and e.sent == 0, e)
        end
        os.remove(path)
        print "alive"]]):format(kind), {before = support.default_signals()})
      assert.equal("alive\n", text)
      assert.equal(0, status)
    end
  end)

  it("leaves a host's own SIGPIPE pending, and its mask as it is", function()
    if not io.open "/proc/self/status" then pending "no /proc here" end
    if not os.execute "env --default-signal=PIPE --block-signal=PIPE true 2>/dev/null" then
      pending "needs an env(1) that knows of signals"
    end
    local code = [[
      local socket = require "socket"
      local function mask(name)
        local f <close> = io.open "/proc/thread-self/status"
        return tonumber(f:read("a"):match(name .. ":%s*(%x+)"), 16) >> 12 & 1
      end
      local a, b = socket.socketpair()
      b:close()
      if arg[1] == "pending" then os.execute("kill -PIPE " .. io.open "/proc/self/stat":read "n") end
      local before = mask "SigBlk"
      local _, e = a:try_sendfile "/etc/passwd"
      print(e.code, before == mask "SigBlk", before, mask "SigPnd" | mask "ShdPnd")]]
    local run = function(args, block)
      return (support.run(code, {args = args, before = "exec env --default-signal=PIPE " .. block}))
    end
    assert.equal("EPIPE\ttrue\t0\t0\n", run("", ""))
    assert.equal("EPIPE\ttrue\t1\t0\n", run("", "--block-signal=PIPE"))
    assert.equal("EPIPE\ttrue\t1\t1\n", run("pending", "--block-signal=PIPE"))
  end)

  it("falls back to reading and sending where the kernel's way is none", function()
    support.needs_strace(pending)
    for _, fault in ipairs {"error=EINVAL", "error=ENOSYS", "error=EINVAL:when=2+"} do
      local text, status = support.faulty([[
        local socket = require "socket"
        local path = os.tmpname()
        local f = io.open(path, "w+")
        local bytes = {}
        for i = 1, 150000 do bytes[i] = string.char(i * 7 % 251) end
        bytes = table.concat(bytes)
        f:write(bytes):flush()
        for _, t in ipairs {false, 5, 0} do
          local a, b = socket.socketpair()
          a:settimeout(t or nil)
          assert(a:sendfile(f, 100, 140000) == 140000)
          assert(f:seek() == 140100)
          assert(b:recv(200000, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == bytes:sub(101, 140100))
          assert(a:sendfile(path, 149000) == 1000)
          assert(a:sendfile(path, 149000, 10) == 10)
          assert(b:recv(2000) == bytes:sub(149001) .. bytes:sub(149001, 149010))
          assert(a:sendfile(path, 1 << 40) == 0)
          a:settimeout(0)
          local none, e = a:try_sendfile(f)
          if none then none, e = a:try_sendfile(f) end
          assert(e.code == "EAGAIN" and e.sent < 150000 and f:seek() == e.sent)
        end
        os.remove(path)
        print "done"]], "sendfile:" .. fault)
      assert.equal("done\n", text)
      assert.equal(0, status)
    end
  end)

  it("reports what goes wrong while reading", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      for _ = 1, 100 do -- the loader reads so, too: the fault begins later
        local none, e = a:try_sendfile("/etc/passwd", 0, 10)
        if e then print(none, e.code, e.sent) break end
      end]], "sendfile:error=EINVAL", "pread64:error=EIO:when=50+")
    assert.equal("nil\tEIO\t0\n", text)
    assert.equal(0, status)
    text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local none, e = a:try_sendfile "/etc/passwd"
      print(none, e.code, e.op, e.sent)]], "sendfile:error=EIO")
    assert.equal("nil\tEIO\tsendfile\t0\n", text)
    assert.equal(0, status)
  end)

  it("goes on after an interrupted system call", function()
    support.needs_strace(pending)
    local text, status = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local path = os.tmpname()
      io.open(path, "w"):write(("0123456789"):rep(1000)):close()
      print(a:sendfile(path), b:recv(20000) == ("0123456789"):rep(1000))
      os.remove(path)]], "sendfile:error=EINTR:when=1+2")
    assert.equal("10000\ttrue\n", text)
    assert.equal(0, status)
  end)

  it("gives up a descriptor for the path when there are none left, after collecting garbage", function()
    local text, status = support.run([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local held = {}
      while true do
        local f = io.open "/dev/null"
        if not f then break end
        held[#held + 1] = f
      end
      local none, e = a:try_sendfile "/etc/passwd"
      print(none, e.code)
      held = nil
      print(a:sendfile "/etc/passwd" > 0)]], {before = "ulimit -n 32;"})
    assert.equal("nil\tEMFILE\ntrue\n", text)
    assert.equal(0, status)
  end)

  it("closes the path's descriptor after success, errors and timeouts", function()
    local path = sparse(5000000)
    local before = support.descriptors()
    for _ = 1, 20 do
      local a, b = socket.socketpair()
      a:sendfile(path, 0, 1000)
      a:settimeout(0)
      fails("EAGAIN", a.sendfile, a, path)
      fails("ENOENT", a.sendfile, a, "/nowhere")
      a:settimeout(0.001)
      fails("ETIMEDOUT", a.sendfile, a, path)
      b:close()
      fails("EPIPE", a.sendfile, a, path)
      a:close()
    end
    assert.equal(before, support.descriptors())
  end)
end)

describe("sendfile in a coroutine", function()
  it("lets others run meanwhile", function()
    local S = support.scheduler(pending)
    local bytes = random_bytes(4000000)
    local path = file_with(bytes)
    local received, switches = {}, 0
    for i, kind in ipairs {"a Unix stream", "TCP", "a Unix stream"} do
      local a, b = pair(kind)
      S.spawn(function()
        local f <close> = io.open(path)
        assert(a:sendfile(i == 1 and path or f) == #bytes)
        a:close()
      end)
      S.spawn(function()
        local data = collect(b)
        received[i] = data == bytes
        switches = S.switches
      end)
    end
    S.run()
    assert.same({true, true, true}, received)
    assert.is_true(switches > 10)
  end)

  it("lets others run also while it sends a pipe", function()
    local S = support.scheduler(pending)
    local a, b = pair()
    local n
    S.spawn(function()
      local f <close> = io.popen "head -c 2000000 /dev/zero"
      assert(a:sendfile(f) == 2000000)
      a:close()
    end)
    S.spawn(function() n = #collect(b) end)
    S.run()
    assert.equal(2000000, n)
  end)

  it("does not ask the hook again when everything is sent", function()
    local a, b = pair()
    local asked = 0
    socket.setwaithook(function()
      asked = asked + 1
      return true
    end)
    local n
    coroutine.wrap(function() n = a:sendfile(file_with(("x"):rep(1000))) end)()
    assert.equal(1000, n)
    assert.equal(0, asked)
    assert.equal(1000, #b:recv(2000))
  end)

  it("is bounded by the timeout", function()
    local a = pair()
    a:settimeout(0.02)
    local path = sparse(5000000)
    local before = support.descriptors()
    local r = tasks.run({function() return a:try_sendfile(path) end})[1]
    assert.is_nil(r[2])
    assert.equal("ETIMEDOUT", r[3].code)
    assert.is_true(r[3].sent > 0)
    assert.equal(before, support.descriptors())
  end)

  it("that is abandoned closes the path's descriptor, and frees the direction", function()
    local path = sparse(5000000)
    for _, how in ipairs {coroutine.close, function() end} do
      local a, b = pair()
      local before = support.descriptors()
      local co, waits = tasks.begin(function() return a:sendfile(path) end)
      assert.is_true(waits)
      how(co)
      co = nil -- luacheck: ignore 311
      assert.equal(before, support.descriptors())
      assert.equal("", a:events())
      b:settimeout(1)
      assert.is_true(#b:recv(100) == 100)
    end
  end)

  it("ends with ECANCELED when the socket is closed meanwhile", function()
    local S = support.scheduler(pending)
    local a = pair()
    local path = sparse(5000000)
    local before = support.descriptors()
    local e
    S.spawn(function() e = fails("ECANCELED", a.sendfile, a, path) end)
    S.spawn(function() a:close() end)
    S.run()
    assert.is_true(e.sent > 0)
    assert.equal(before - 1, support.descriptors())
  end)

  it("ends with ECANCELED when the Lua file is closed meanwhile", function()
    local S = support.scheduler(pending)
    local a, b = pair()
    local f = io.open(sparse(5000000))
    local e
    S.spawn(function() e = fails("ECANCELED", a.sendfile, a, f) end)
    S.spawn(function()
      f:close()
      local _ <close> = io.open(file_with "others' bytes") -- has the same descriptor now
      b:recv(1 << 20)
      socket.sleep(0.002)
    end)
    S.run()
    assert.equal("file was closed while waiting", e.message)
  end)
end)

describe("Ctrl-C", function()
  it("interrupts sendfile, also while a reader keeps up", function()
    local path = sparse(4 << 30)
    for _, reader in ipairs {"socket.sleep(30)", "while s:recv(1 << 20) do end"} do
      local a, b = pair()
      local q <close>, reader_pid = peer(b, reader)
      a:set_inheritable(true)
      local p <close>, pid = support.start(([[
        local socket = require "socket"
        local a = socket.socket(nil, nil, nil, %d)
        io.stdout:setvbuf "no"
        print "ready"
        local ok, e = pcall(a.sendfile, a, %q)
        a:close()
        print((tostring(e):gsub("^.*: ", "")))]]):format(a:fileno(), path))
      a:close()
      assert.equal("ready", p:read "l")
      socket.sleep(0.02)
      support.kill(pid, "INT")
      assert.equal("interrupted!\n", p:read "a")
      support.kill(reader_pid, "TERM")
      q:read "a"
    end
  end)
end)
