-- What the library asks of the system: which calls, how many, and how descriptors go to child programs.

local h = require "spec.helper"
local socket = require "socket"
local support = require "spec.support"

local fails, keep = support.fails, support.keep

after_each(support.close_kept)

-- The names of the calls that code makes after some preparation, in one string.
local function calls(prepare, code, finish)
  local marked = support.calls(("local socket = require 'socket' %s\nmark 'here' %s\nmark() %s"):format(
    prepare, code, finish or ""))
  local names = {}
  for i, c in ipairs(marked.here) do names[i] = c.call end
  return table.concat(names, " "), marked.here
end

describe("a descriptor", function()
  it("is not inherited by child programs, from its first moment", function()
    local lfs = require "lfs"
    if not lfs.attributes "/proc/self/fd" then pending "needs /proc" end
    local server = keep(socket.create_server {"127.0.0.1", 0})
    local client = keep(socket.create_connection(server:getsockname()))
    local conn = keep((server:accept()))
    local a, b = keep(socket.socketpair())
    local c = keep(a:dup())
    local d = keep(socket.fromfd(a:fileno(), socket.AF_UNIX, socket.SOCK_STREAM))
    local e = keep(socket.socket(nil, nil, nil, socket.dup(a:fileno())))
    local listed = support.output "ls -l /proc/self/fd"
    assert.is_nil(listed:find "socket:")
    for _, s in ipairs {server, client, conn, a, b, c, d, e} do assert.is_false(s:get_inheritable()) end
  end)

  it("is made so by the system call itself", function()
    support.needs_strace(pending)
    local _, list = calls([[
      local s = socket.create_server {"127.0.0.1", 0}
      c = socket.create_connection(s:getsockname())]], [[
      x = {socket.socket(), socket.socketpair(), s:dup(), s:accept()}
      for _, t in ipairs {1, 0} do s:settimeout(t) s:try_connect(c:getsockname()) end
      y = socket.create_connection(s:getsockname())
      z = s:accept()]])
    local made = {}
    for _, c in ipairs(list) do
      if c.call == "socket" or c.call == "socketpair" or c.call:match "^accept" then
        made[#made + 1] = c.call
        assert.matches("SOCK_CLOEXEC", c.text, 1, true)
      elseif c.call == "fcntl" then
        assert.matches("F_DUPFD_CLOEXEC", c.text, 1, true)
      end
    end
    assert.equal("socket socketpair accept4 socket accept4", table.concat(made, " "))
  end)

  it("goes to child programs if that is wished", function()
    local a, b = keep(socket.socketpair())
    assert.equal(a, a:set_inheritable(true))
    assert.is_true(a:get_inheritable())
    assert.is_false(b:get_inheritable())
    local text = support.run(([[
      local socket = require "socket"
      local s <close> = socket.socket(nil, nil, nil, %d)
      s:send "from the child"
      print(select(2, socket.try_socket(nil, nil, nil, %d)).code)]]):format(a:fileno(), b:fileno()))
    assert.equal("EBADF\n", text)
    assert.equal("from the child", b:recv(100))
    assert.equal(a, a:set_inheritable(false))
    assert.is_false(a:get_inheritable())
    a:set_inheritable(false)
    assert.is_false(a:get_inheritable())
  end)

  it("that is not there is EBADF", function()
    local s = socket.socket()
    socket.close(s:fileno())
    assert.equal("get_inheritable", fails("EBADF", s.get_inheritable, s).op)
    assert.equal("set_inheritable", fails("EBADF", s.set_inheritable, s, true).op)
    s:try_close()
    assert.is_false(pcall(s.set_inheritable, s))
  end)
end)

describe("system calls:", function()
  local PAIR = [[
    local a, b = socket.socketpair()
    collectgarbage "stop"
  ]]
  local TCP = [[
    local server = socket.create_server {"127.0.0.1", 0}
    local a = socket.socket():connect(server:getsockname())
    local b = server:accept()
    a:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    b:setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    a:send "x" b:recv(10)
    collectgarbage "stop"
  ]]

  -- The calls that `code` makes, over TCP and over a Unix stream.
  local function expect(expected, setup, code)
    support.needs_strace(pending)
    for _, kind in ipairs {TCP, PAIR} do assert.equal(expected, (calls(kind .. setup, code))) end
  end

  it("a blocking round trip takes one to send and one to receive", function()
    expect("sendto recvfrom sendto recvfrom", "", "for _ = 1, 2 do a:sendall 'hello' b:recv(100) end")
    expect("sendto recvfrom", "", "a:send 'hello' b:recvfrom(100)")
    expect("sendto sendto recvfrom", "", "a:send 'he' a:send 'llo' b:recv(5, socket.MSG_WAITALL)")
  end)

  it("receiving what is there takes one, whatever the timeout is", function()
    for _, t in ipairs {"nil", "10", "0.01", "0"} do
      expect("recvfrom recvfrom", ("a:settimeout(%s) b:send(('x'):rep(10)) a:recv(1)"):format(t),
        "a:recv(4) a:recv(100)")
      expect("recvfrom", ("a:settimeout(%s) b:send(('x'):rep(10)) a:recv(1)"):format(t), "a:try_recv(100)")
    end
  end)

  it("sending where there is room takes one, whatever the timeout is", function()
    for _, t in ipairs {"nil", "10", "0.01", "0"} do
      expect("sendto sendto", ("a:settimeout(%s) a:send 'x'"):format(t), "a:send 'hello' a:sendall 'world'")
    end
  end)

  it("a timeout costs one more when it changes, and no more than one where there is nothing", function()
    support.needs_strace(pending)
    assert.equal("setsockopt recvfrom recvfrom", (calls(TCP .. "b:send 'xx'", "a:settimeout(10) a:recv(1) a:recv(1)")))
    for _, t in ipairs {"0.01", "0.06"} do
      for _, kind in ipairs {TCP, PAIR} do
        local names = calls(kind .. ("a:settimeout(%s) a:try_recv(1)"):format(t), "a:try_recv(1)")
        assert.is_true(names == "ppoll" or names == "recvfrom ppoll", names)
      end
    end
  end)

  it("a round trip with a timeout takes two, waiting included; three or four below 40 ms", function()
    support.needs_strace(pending)
    for t, most in pairs {["10"] = 8, ["0.03"] = 16} do
      for _, kind in ipairs {TCP, PAIR} do
        local names = calls(kind .. ([[
          b:set_inheritable(true)
          local code = "local s = require 'socket' s = s.socket(nil, nil, nil, " .. b:fileno() .. ") " ..
            "for d in function() return s:recv(100) end do s:send(d) end"
          peer = io.popen(%q .. ' -e "' .. code .. '"')
          b:close()
          a:settimeout(10)
          for _ = 1, 5 do a:send "x" a:recv(1) end
          a:settimeout(%s)
          for _ = 1, 2 do
            a:send "x"
            if not a:try_recv(1) then a:settimeout(10):recv(1) a:settimeout(%s) end
          end]]):format(h.lua {leaks = false}, t, t),
          "for _ = 1, 4 do a:send 'hello' assert(a:recv(100)) end", "a:close() peer:close()")
        local n = select(2, names:gsub("%S+", ""))
        assert.is_true(n >= 8 and n <= most, names)
      end
    end
  end)

  it("would-block takes one", function()
    expect("recvfrom recvfrom", "a:settimeout(0)", "a:try_recv(1) pcall(a.recv, a, 1)")
    expect("recvfrom", "", "a:try_recv(1, socket.MSG_DONTWAIT)")
  end)

  it("recv(0) takes none, nor do settimeout and what a socket knows itself", function()
    expect("", "", "a:recv(0) local _ = a.family, a.type, a:fileno(), a:gettimeout(), a:getblocking() a:settimeout(5)")
    expect("ioctl", "", "a:settimeout(0) a:settimeout(0)")
  end)

  it("accept takes one where somebody waits", function()
    support.needs_strace(pending)
    local setup = [[
      local server = socket.create_server {"127.0.0.1", 0}
      local function knock() return socket.socket():connect(server:getsockname()) end
      c = {knock(), knock(), knock()}]]
    assert.equal("accept4 accept4", (calls(setup, "d = {server:accept(), server:accept()}")))
    assert.equal("accept4", (calls(setup .. "server:settimeout(10) d = server:accept()", "e = server:accept()")))
    assert.equal("accept4", (calls(setup .. "server:settimeout(0) d = server:accept()", "e = server:accept()")))
    local names = calls([[
      local server = socket.create_server {"127.0.0.1", 0}
      server:settimeout(0.02)
      server:try_accept()]], "server:try_accept()")
    assert.is_true(names == "ppoll" or names == "accept4 ppoll", names)
  end)

  it("UDP takes one for each datagram", function()
    support.needs_strace(pending)
    for _, t in ipairs {"nil", "10", "0"} do
      assert.equal("sendto recvfrom sendto recvfrom", (calls(([[
        local a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.1", 0}
        local b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        local to = a:getsockname()
        a:settimeout(%s) b:settimeout(%s)
        b:sendto("x", to) a:recv(1)]]):format(t, t), "b:sendto('x', to) a:recvfrom(10) b:sendto('', to) a:recv(10)")))
    end
  end)

  it("making, closing and connecting take one each", function()
    support.needs_strace(pending)
    assert.equal("socket close socketpair close close", (calls("", [[
      socket.socket():close()
      local a, b = socket.socketpair()
      a:close() b:close() a:close()]])))
    assert.equal("socket connect sendto close", (calls("local server = socket.create_server {'127.0.0.1', 0}" ..
      "local to = server:getsockname()", "socket.socket():connect(to):sendall('x'):close()")))
  end)

  it("opening the module opens no descriptor", function()
    support.needs_strace(pending)
    local marked = support.calls "require 'socket' package.loaded.socket = nil mark 'again' require 'socket' mark()"
    for _, c in ipairs(marked.again) do assert.is_nil(c.call:match "socket") end
  end)
end)

describe("waiting", function()
  it("is in the kernel: a second of it costs no processor time", function()
    local a, b = keep(socket.socketpair())
    for _, t in ipairs {0.03, 0.1} do
      a:settimeout(t)
      local clock = os.clock()
      fails("ETIMEDOUT", a.recv, a, 1)
      assert.is_true(os.clock() - clock < t / 2)
    end
    assert.is_truthy(b)
  end)
end)

describe("where the system lacks something:", function()
  it("no random numbers: the module opens all the same", function()
    support.needs_strace(pending)
    local code = [[
      local socket = require "socket"
      local a, b = socket.socketpair()
      a:send "x"
      print(b:recv(1), (pcall(a.recv, io.stdout, 1)))]]
    local text = support.faulty(code, "getrandom:error=ENOSYS")
    assert.equal("x\tfalse\n", text)
    text = support.faulty(code, "getrandom:retval=0")
    assert.equal("x\tfalse\n", text)
  end)

  it("no mode of descriptors: a timeout of 0 still does not wait", function()
    support.needs_strace(pending)
    local text = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      a:settimeout(0)
      print(select(2, a:try_recv(1)).code)]], "ioctl:error=ENOTTY")
    assert.equal("EAGAIN\n", text)
  end)

  it("errors without a name have their number", function()
    support.needs_strace(pending)
    local text = support.faulty([[
      local socket = require "socket"
      local a, b = socket.socketpair()
      local _, e = a:try_recv(1)
      print(e.errno, e.code, e.message)]], "recvfrom:error=512")
    assert.matches("^512\tnil\t[^\n]*512\n$", text)
  end)

  it("accept reports what befell a connection", function()
    support.needs_strace(pending)
    for _, code in ipairs {"ECONNABORTED", "EPERM", "ENOBUFS"} do
      local text = support.faulty([[
        local socket = require "socket"
        local server = socket.create_server {"127.0.0.1", 0}
        local c = socket.socket():connect(server:getsockname())
        local _, e = server:try_accept()
        print(e.code, e.op)
        assert(server:accept())]], ("accept4:error=%s:when=1"):format(code))
      assert.equal(code .. "\taccept\n", text)
    end
  end)

  it("EMFILE once is healed by collecting garbage, and ENFILE", function()
    support.needs_strace(pending)
    for _, code in ipairs {"EMFILE", "ENFILE"} do
      local text, status = support.faulty([[
        local socket = require "socket"
        local s = socket.socket()
        local a, b = socket.socketpair()
        local server = socket.create_server {"127.0.0.1", 0}
        local c = socket.socket():connect(server:getsockname())
        assert(server:accept())
        assert(s:dup())
        print "fine"]], ("socket,socketpair,accept4:error=%s:when=1"):format(code))
      assert.equal("fine\n", text)
      assert.equal(0, status)
    end
  end)
end)

describe("an error's text", function()
  it("is the system's", function()
    local s = keep(socket.socket())
    assert.equal("Transport endpoint is not connected", fails("ENOTCONN", s.getpeername, s).message)
    assert.equal("No such file or directory",
      fails("ENOENT", function() keep(socket.socket(socket.AF_UNIX)):connect "/no/such/path" end).message)
  end)
end)
