-- A network of its own for specs: a namespace with nothing but a loopback
-- interface and a DNS server (spec/support/dns_stub.lua) that knows only the
-- names it is given. Linux; needs root or user namespaces.
--
--   local net = require "spec.support.netns".new {zone = {...}, hosts = "...", setup = "ip addr ..."}
--   teardown(function() net:stop() end)
--   it("finds a name", net:inside(function() ... end))
--
-- What inside() is given runs in a process of its own in that network. The
-- function may use globals, the local functions and plain values of its spec,
-- and modules; it sees copies. What it asserts counts, and `asked()` in there
-- lists the questions that reached the DNS server since it began.

local helper = require "spec.helper"

local M = {}

local function run(command)
  local p = assert(io.popen(command .. " 2>&1"))
  local text = p:read "a"
  return p:close() == true, text
end

-- The options of unshare(1) that work here, or nil and why none does.
local function how()
  local why
  for _, flags in ipairs {"-mn", "-rmn"} do
    local ok, text = run("unshare " .. flags .. " ip link set lo up")
    if ok then return flags end
    why = text
  end
  return nil, "needs a network namespace: " .. why
end

---------------------------------------------------------------- taking a function along

-- Lua source that makes a copy of a value elsewhere.
local function source_of(value, seen)
  if type(value) == "table" then
    for name, module in pairs(package.loaded) do
      if module == value then return ("require %q"):format(name) end
    end
    local items = {}
    for k, v in pairs(value) do items[#items + 1] = ("[%s] = %s"):format(source_of(k, seen), source_of(v, seen)) end
    return "{" .. table.concat(items, ", ") .. "}"
  elseif type(value) ~= "function" then
    return ("%q"):format(value)
  elseif not seen[value] then
    seen[value] = #seen.code + 1
    seen.code[seen[value]] = ""
    local code = {("F[%d] = load(%q)"):format(seen[value], string.dump(value))}
    for i = 1, math.huge do
      local name, v = debug.getupvalue(value, i)
      if not name then break end
      local copy = name == "_ENV" and "_ENV" or source_of(v, seen)
      code[#code + 1] = ("U[#U + 1] = function() debug.setupvalue(F[%d], %d, (%s)) end"):format(seen[value], i, copy)
    end
    seen.code[seen[value]] = table.concat(code, "\n")
  end
  return ("F[%d]"):format(seen[value])
end

-- A program that calls a function.
local function program(f, questions)
  local seen = {code = {}}
  source_of(f, seen)
  return ([[
    assert = require "luassert"
    local questions = %q
    local before = require "lfs".attributes(questions, "size")
    function asked()
      local list = {}
      local f <close> = io.open(questions)
      f:seek("set", before)
      for line in f:lines() do list[#list + 1] = line end
      return list
    end
    local F, U = {}, {}
    %s
    for _, set in ipairs(U) do set() end
    local ok, message = xpcall(F[1], function(e)
      return tostring(e) .. "\n" .. debug.traceback("", 2)
    end)
    if not ok then io.stderr:write(message, "\n") os.exit(1, true) end
  ]]):format(questions, table.concat(seen.code, "\n"))
end

---------------------------------------------------------------- networks

local Net = {}
Net.__index = Net

local function write(path, text)
  local f <close> = assert(io.open(path, "w"))
  f:write(text)
end

local function start(self)
  local flags, why = how()
  if not flags then
    self.why = why
    return
  end
  local folder = os.tmpname()
  os.remove(folder)
  assert(require "lfs".mkdir(folder))
  self.folder = folder
  write(folder .. "/resolv.conf", "nameserver 127.0.0.53\n" .. (self.resolv or ""))
  write(folder .. "/hosts", "127.0.0.1 localhost\n::1 localhost\n" .. (self.hosts or ""))
  write(folder .. "/nsswitch.conf", "hosts: files dns\nservices: files\nprotocols: files\n")
  write(folder .. "/questions", "")
  local zone, questions = self.zone or {}, folder .. "/questions"
  write(folder .. "/stub.lua", program(function()
    local socket = require "socket"
    local s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM):bind {"127.0.0.53", 53}
    local log = io.open(questions, "a")
    log:setvbuf "line"
    io.write(io.open "/proc/self/stat":read "n", "\n"):flush()
    require "spec.support.dns_stub".serve(zone, s, function(asked) log:write(asked, "\n") end)
  end, questions))
  self.stub = assert(io.popen(("exec timeout -s KILL 100 unshare %s sh -c %s 2>&1"):format(flags, helper.quote(([[
    set -e
    ip link set lo up
    for file in resolv.conf hosts nsswitch.conf; do
      mount --bind %s/$file /etc/$file
    done
    if [ -d /run/nscd ]; then mount -t tmpfs none /run/nscd; fi
    %s
    exec %s %s/stub.lua
  ]]):format(folder, self.setup or "", helper.lua {leaks = false}, folder)))))
  local line = self.stub:read "l" or "nothing said"
  self.pid = tonumber(line)
  if not self.pid then
    error("the network did not come up: " .. line .. "\n" .. self.stub:read "a")
  end
  self.enter = ("nsenter -t %d -m -n%s"):format(self.pid, flags:find "r" and " -U --preserve-credentials" or "")
end

local function ready(self)
  if not self.started then
    self.started = true
    start(self)
  end
  if self.why then self.spec.pending(self.why) end
end

-- Runs a shell command in there, bounded in time: how it ended, and what it printed.
function Net:run(command)
  ready(self)
  return run(("exec timeout 30 %s sh -c %s"):format(self.enter, helper.quote(command)))
end

-- The path of a program that calls a function, for run(); to be removed.
function Net:script(f)
  ready(self)
  local path = os.tmpname()
  write(path, program(f, self.folder .. "/questions"))
  return path
end

-- A function for it(); `before` goes before the command: strace(1) or prlimit(1) with its options.
function Net:inside(f, before)
  return function()
    if before and not self:run(before .. " true") then self.spec.pending("does not work here: " .. before) end
    local path = self:script(f)
    local ok, text = self:run(("%s %s %s"):format(before or "", helper.lua {leaks = not before}, path))
    os.remove(path)
    if not ok then error(text, 0) end
  end
end

function Net:stop()
  if not self.pid then return end
  os.execute("kill -KILL " .. self.pid)
  self.stub:close()
  os.execute("rm -r " .. self.folder)
  self.pid = nil
end

-- To be called by a spec file, whose globals alone have busted's pending in a test.
function M.new(options)
  local self = setmetatable(options or {}, Net)
  local caller, i = debug.getinfo(2, "f").func, 0
  local name
  repeat
    i = i + 1
    name, self.spec = debug.getupvalue(caller, i)
  until name == "_ENV" or not name
  return self
end

return M
