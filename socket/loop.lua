-- socket.loop: many conversations in one thread, each written as if it were the only one.
-- Tasks, groups, queues and events; the reactor (lsocket_reactor.c) has the mechanism.

local socket = require "socket"
local reactor = socket.reactor or error "socket.loop: `require 'socket'` finds another package's module of that name"

local park, running = reactor.park, reactor.running

local function raise_timeout(op, thrown) error(reactor.timeout(op, thrown), 0) end

local M = {cancelled = reactor.cancelled, resume = reactor.resume, wait = reactor.wait}

local Loop, Task, Group, Queue, Event = {}, {}, {}, {}, {}
for class, name in pairs {[Loop] = "loop", [Task] = "task", [Group] = "group", [Queue] = "queue", [Event] = "event"} do
  class.__name, class.__index = name, class
end

-- Tasks by their coroutine, as long as those live.
local task_of = setmetatable({}, {__mode = "k"})

local function current()
  local co = running()
  return co and task_of[co]
end
M.current = current

local function here(what, level)
  return current() or error(("loop.%s is for tasks of a loop"):format(what), level or 3)
end

local function expect(value, class, arg, name)
  if getmetatable(value) ~= class then
    error(("bad argument #%d to '%s' (%s expected, got %s)"):format(arg, name, class.__name, type(value)), 3)
  end
end

local function expect_callable(f, arg, name)
  local meta = getmetatable(f)
  if type(f) ~= "function" and not (type(meta) == "table" and meta.__call) then
    error(("bad argument #%d to '%s' (function expected, got %s)"):format(arg, name, type(f)), 3)
  end
end

local function expect_seconds(seconds, arg, name)
  local n = tonumber(seconds)
  if not n then
    error(("bad argument #%d to '%s' (number expected, got %s)"):format(arg, name, type(seconds)), 3)
  elseif n < 0 or n ~= n then
    error(("bad argument #%d to '%s' (seconds must not be negative or NaN)"):format(arg, name), 3)
  end
end

local function expect_open(l)
  if l.closed then error("the loop is closed", 3) end
end

-- The point in time that is so many seconds away; nil for none.
local function deadline_of(seconds)
  return seconds and socket.monotonic() + seconds
end

local function is_cancelled(e) return socket.iserror(e, M.cancelled) end

---------------------------------------------------------------- waiters

-- In the main program, in coroutines that are no tasks, and below C functions such as table.sort.
local NOT_HERE = "only a task can wait for this"

-- A list of coroutines that have parked for the same thing. A note stands in it from the moment its task
-- waits; whoever takes the note out wakes the task, and no note is taken for a task that gave up.
local function new_list() return {first = 1, last = 0} end

local function stand_in(list, note, seconds)
  local at = list.last + 1
  list[at] = note
  list.last, note.at = at, at
  return park(seconds, note)
end

local function wait_in(list, seconds, what)
  local co = running()
  if not co then error(("%s: %s"):format(what, NOT_HERE), 0) end
  local note = {co = co, loop = task_of[co].loop, woken = false, at = 0} -- all fields now: waking needs no memory
  local ok, woken = pcall(stand_in, list, note, seconds)
  local at = note.at
  if not note.woken and list[at] == note then
    list[at] = nil
    if list.last == at then list.last = at - 1 end
  end
  if not ok then return nil, woken, note.woken end
  return note.woken or woken, nil, note.woken
end

-- Will its task go on? Not one of a closed loop, nor where a script has closed the coroutine.
local function lives(note) return note and not note.loop.closed and coroutine.status(note.co) ~= "dead" end

-- The first note of a list, at list.first; nil if there is none. Those that gave up have left holes.
local function first_note(list)
  local first, last = list.first, list.last
  while first <= last and not lives(list[first]) do
    list[first] = nil
    first = first + 1
  end
  if first > last then first, last = 1, 0 end
  list.first, list.last = first, last
  return list[first]
end

-- Waking in two steps. The first may find no memory, and then all is as before, but that a task looks again.
local function rouse(list)
  local note = first_note(list)
  if note then note.loop.reactor:wake(note.co) end
  return note
end

local function take(list, note)
  note.woken = true
  if list[list.first] == note then list[list.first] = nil end
end

local function wake_one(list)
  local note
  repeat note = rouse(list) until not (note and note.woken) -- by a finalizer, meanwhile
  if not note then return false end
  take(list, note)
  return true
end

-- The second step, after what the task waits for has happened; it may have looked before.
local function follow(list, note)
  if not note then return end
  if note.woken or list[list.first] ~= note then wake_one(list) else take(list, note) end
end

-- Passes on that one task may go on, for one that was woken and gave up; not lost where memory is short once.
local function pass_wakeup(list)
  if not pcall(wake_one, list) then wake_one(list) end
end

local function wake_all(list)
  local n = 0
  while wake_one(list) do n = n + 1 end
  return n
end

---------------------------------------------------------------- tasks

-- Nothing but another task could end the waiting of these, and there is none.
local function stuck(l)
  local _, queued, polling, timers = l.reactor:counts()
  return queued == 0 and polling == 0 and timers == 0 and not current()
end

-- Runs at the end of a task, in its own coroutine; the traceback is made where the error was raised.
local function handler(e)
  local task = current()
  if task and not is_cancelled(e) then
    local cause = task.cause
    task.traceback = debug and debug.traceback(cause and cause.error == e and cause.traceback or nil, 2)
  end
  return e
end

-- An error that no one will be raised for.
local function lost(l, task)
  if l.onerror then return l.onerror(task, task.error, task.traceback) end
  warn("socket.loop: error of a task lost in another: ", tostring(task.error))
end

-- The error of a task that ended, or whose joiner gave up: is it left for the loop? One of a group's task is for the
-- group's block, as long as there is one.
local function orphan(task)
  local l, group = task.loop, task.group
  if task.ending ~= "failed" or task.joined or task.heirs > 0 then return end
  if group and group.failed ~= task then return lost(l, task) end -- only one error can go on
  if not group or group.left or group.owner.ending then l.failures[#l.failures + 1] = task end
end

local function disclaim(task)
  task.heirs = task.heirs - 1
  orphan(task)
end

-- Outside of tasks: local claim <close> = setmetatable({task = task}, Claim) while running the loop for a task.
local Claim = {__close = function(claim, e) if e ~= nil then disclaim(claim.task) end end}

local function claim(task)
  local c = setmetatable({task = task}, Claim)
  task.heirs = task.heirs + 1
  return c
end

-- Where memory is short in here, the reactor calls it once more: what has been done is not done again.
local function ended(task, ok, ...)
  local l, joiners, group = task.loop, task.joiners, task.group
  if not task.ending then
    local e = ...
    if ok then task.results = table.pack(...) else task.error = e end
    task.ending = ok and "done" or is_cancelled(e) and "cancelled" or "failed"
    l.count = l.count - 1
  end
  if group then group:_ended(task) end
  while joiners and wake_one(joiners) do task.heirs = task.heirs + 1 end
  while task.broken do -- groups that failed and that it has not closed
    orphan(task.broken.failed)
    task.broken = task.broken.next_broken
  end
  task.co, task.joiners, task.cause = nil, nil, nil
  orphan(task)
end

local function new_task(l, group, f, ...)
  local co = coroutine.create(xpcall)
  local task = setmetatable({loop = l, group = group, co = co, heirs = 0}, Task)
  task_of[co] = task -- first, as there may be no memory for it
  if group then group.members[task] = false end -- likewise
  l.reactor:add(co, f, handler, ...)
  l.count = l.count + 1
  if group and not task.ending then
    group.members[task] = true
    group.count = group.count + 1
  end
  return task
end

-- task.status; other fields are plain
function Task.__index(task, key)
  if key == "status" then
    return task.ending or rawget(task, "co") and task.loop.reactor:state(task.co) or "ready"
  end
  return Task[key]
end

function Task.__tostring(task)
  return ("task: <%s%s>"):format(rawget(task, "name") and task.name .. ", " or "", task.status)
end

-- Raises the error of a task in another one, and remembers where it comes from.
local function pass_on(task)
  local e, me = task.error, current()
  if me and task.traceback then me.cause = {error = e, traceback = task.traceback} end
  error(e, 0)
end

-- Raises the first error that nobody has taken, or gives all of them to onerror.
local function surface(l)
  while #l.failures > 0 do
    local task = table.remove(l.failures, 1)
    local e = task.error
    if not l.onerror then
      if type(e) == "string" and task.traceback then e = e .. "\n" .. task.traceback end
      error(e, 0)
    end
    l.onerror(task, e, task.traceback)
  end
end

-- One round of at most that many seconds; nil: until something happens. Are there tasks or timers left?
local function round(l, seconds)
  if #l.failures == 0 then l.reactor:turn(seconds) end
  surface(l)
  return l.count > 0 or select(4, l.reactor:counts()) > 0
end

function Task:join(timeout)
  expect(self, Task, 1, "join")
  if timeout ~= nil then expect_seconds(timeout, 1, "join") end
  local deadline, l = deadline_of(timeout), self.loop
  local me = current()
  if me == self then error("a task cannot join itself", 2) end
  if not self.ending then
    if me then
      self.joiners = self.joiners or new_list()
      repeat
        if l.closed then error("join: the loop is closed", 2) end
        local _, e, woken = wait_in(self.joiners, deadline and math.max(0, deadline - socket.monotonic()), "join")
        if e then
          if woken and self.ending then disclaim(self) end
          error(e, 0)
        end
        if deadline and not self.ending and socket.monotonic() >= deadline then raise_timeout "join" end
      until self.ending
    else
      local _ <close> = claim(self)
      while not self.ending do
        local left = deadline and deadline - socket.monotonic()
        if left and left <= 0 then raise_timeout "join" end
        if l.closed then error("join: the loop is closed", 2) end
        if not left and stuck(l) then error("join: the task waits for something that nothing can bring", 2) end
        round(l, left)
      end
    end
  end
  self.joined = true
  if self.ending ~= "done" then
    for i, failed in ipairs(l.failures) do
      if failed == self then table.remove(l.failures, i) break end
    end
    pass_on(self)
  end
  return table.unpack(self.results, 1, self.results.n)
end

function Task:cancel()
  expect(self, Task, 1, "cancel")
  if self.ending or self.loop.closed then return false end
  local e = reactor.cancel() -- first, as there may be no memory for it
  if self == current() then error(e, 0) end
  if self.loop.reactor:throw(self.co, e) ~= true and not pcall(ended, self, false, e) then ended(self, false, e) end
  return true
end

---------------------------------------------------------------- loops

function M.new()
  local l
  l = setmetatable({
    count = 0,
    failures = {},
    reactor = reactor.new(function(co, ok, ...)
      local task = task_of[co]
      if ok then ended(task, ...) else ended(task, false, ...) end
    end),
  }, Loop)
  return l
end

function Loop:__tostring()
  return self.closed and "loop: <closed>" or ("loop: <%d tasks>"):format(self.count)
end

function Loop:spawn(f, ...)
  expect(self, Loop, 1, "spawn")
  expect_open(self)
  expect_callable(f, 1, "spawn")
  return new_task(self, nil, f, ...)
end

function Loop:after(seconds, f, ...)
  expect(self, Loop, 1, "after")
  expect_open(self)
  expect_seconds(seconds, 1, "after")
  expect_callable(f, 2, "after")
  if type(f) == "function" and select("#", ...) == 0 then
    return self.reactor:after(seconds, function() new_task(self, nil, f) end)
  end
  local args = table.pack(...)
  return self.reactor:after(seconds, function() new_task(self, nil, f, table.unpack(args, 1, args.n)) end)
end

function Loop:step(seconds)
  expect(self, Loop, 1, "step")
  expect_open(self)
  if seconds ~= nil then expect_seconds(seconds, 1, "step") end
  return round(self, seconds or 0)
end

function Loop:run()
  expect(self, Loop, 1, "run")
  while select(4, self.reactor:counts()) > 0 or self.count > 0 do
    if #self.failures == 0 and stuck(self) then
      error(("%d task(s) wait for something that no socket, timer or other task can bring"):format(self.count), 2)
    end
    round(self)
  end
  surface(self)
end


function Loop:fileno()
  expect_open(self)
  return self.reactor:fileno()
end

function Loop:timeout()
  expect_open(self)
  return #self.failures > 0 and 0 or self.reactor:timeout()
end

function Loop.sleep(_, seconds) return M.sleep(seconds) end
function Loop.wait(_, ...) return reactor.wait(...) end
function Loop:current()
  local task = current()
  return task and task.loop == self and task or nil
end

-- Ends all tasks; their errors stay in l.failures. Returns an error of something else, in a table.
local function shut(self)
  if self.closed then return end
  local mine = {}
  for _, task in pairs(task_of) do
    if task.loop == self and not rawget(task, "ending") then mine[#mine + 1] = task end
  end
  for _, task in ipairs(mine) do task:cancel() end
  local stop = socket.monotonic() + 1 -- those that go on regardless are left where they are
  local err
  while self.count > 0 and socket.monotonic() < stop do
    local before = self.count
    local ok, e = pcall(self.reactor.turn, self.reactor, 0.01)
    if not ok then
      if socket.iserror(e) and e.op == "turn" and e.code == "EAGAIN" then break end -- the host lets nothing block
      err = err or {e}
      if self.count == before then break end
    end
  end
  self.closed = true
  self.reactor:close()
  for _, task in ipairs(mine) do -- in tasks of other loops
    if task.joiners then wake_all(task.joiners) end
  end
  return err
end

-- The last chance of errors: one is raised, and the others are told.
local function surface_all(l)
  while not l.onerror and #l.failures > 1 do lost(l, table.remove(l.failures, 2)) end
  surface(l)
end

function Loop:close()
  expect(self, Loop, 1, "close")
  local me = current()
  if me and me.loop == self then error("the loop is running: it cannot be closed by one of its tasks", 2) end
  local err = shut(self)
  surface_all(self)
  if err then error(err[1], 0) end
  return true
end

function Loop:__close(e)
  local err = shut(self)
  if e == nil then
    surface_all(self)
    if err then error(err[1], 0) end
    return
  end
  for _, task in ipairs(self.failures) do lost(self, task) end
end

function M.run(f, ...)
  expect_callable(f, 1, "run")
  local l <close> = M.new()
  local task = l:spawn(f, ...)
  local _ <close> = claim(task)
  while not task.ending do
    if stuck(l) then error("the tasks wait for something that no socket, timer or other task can bring", 2) end
    round(l)
  end
  task.joined = true
  if task.ending == "done" then l:run() end
  if task.ending ~= "done" then
    local e = task.error
    if type(e) == "string" and task.traceback then e = e .. "\n" .. task.traceback end
    error(e, 0)
  end
  return table.unpack(task.results, 1, task.results.n)
end

---------------------------------------------------------------- inside tasks

-- As socket.sleep, but 0 is a turn for the others, except in a coroutine of a task's own.
function M.sleep(seconds)
  if seconds == 0 and current() then
    local ok, e = pcall(park, 1e-9)
    if ok then return elseif e ~= NOT_HERE then error(e, 0) end
  end
  return socket.sleep(seconds)
end

function M.spawn(f, ...)
  expect_callable(f, 1, "spawn")
  return new_task(here("spawn").loop, nil, f, ...)
end

local function timed(task, state, ok, ...)
  state.alarm:cancel()
  state.over = true
  if state.thrown then task.loop.reactor:retract(task.co, state.thrown) end
  if ok then return ... end
  local e = ...
  if state.thrown and rawequal(e, state.thrown) then raise_timeout("loop.timeout", e) end
  if task.traceback then task.cause = {error = e, traceback = task.traceback} end
  error(e, 0)
end

function M.timeout(seconds, f, ...)
  local task = here "timeout"
  expect_seconds(seconds, 1, "timeout")
  expect_callable(f, 2, "timeout")
  local state, late = {}, nil
  local function ring()
    if state.over or task.ending then return end
    late = late or reactor.cancel()
    if task.loop.reactor:throw(task.co, late, true) then
      state.thrown = late
    else -- after the error that is on its way to it already
      state.alarm = task.loop.reactor:after(0, ring)
    end
  end
  state.alarm = task.loop.reactor:after(seconds, ring)
  return timed(task, state, xpcall(f, handler, ...))
end

function M.wrap(f)
  local co = coroutine.create(f)
  local function results(ok, ...)
    if not ok then
      coroutine.close(co)
      error((...), 0)
    end
    return ...
  end
  return function(...) return results(reactor.resume(co, ...)) end
end

---------------------------------------------------------------- groups

-- Members that have not ended are true in `members`.
local function new_group(options)
  if options ~= nil and type(options) ~= "table" then
    error(("bad argument #1 to 'group' (table expected, got %s)"):format(type(options)), 3)
  end
  for key in pairs(options or {}) do
    if key ~= "limit" then error(("bad argument #1 to 'group' (unknown option '%s')"):format(tostring(key)), 3) end
  end
  local owner = here("group", 4)
  local limit = options and options.limit
  if limit and not (math.type(limit) == "integer" and limit > 0) then
    error("bad argument #1 to 'group' (limit must be an integer above 0)", 3)
  end
  return setmetatable({loop = owner.loop, owner = owner, members = {}, count = 0, limit = limit or math.huge,
                       waiters = new_list(), room = new_list()}, Group)
end

function Group:_ended(task)
  if self.members[task] then
    self.members[task] = nil
    self.count = self.count - 1
  end
  if task.ending == "failed" and (self.failed or task) == task then
    local owner = self.owner
    if owner.broken ~= self and not (self.left or owner.ending) then
      self.next_broken = owner.broken
      owner.broken = self
    end
    self.failed = task
    self:cancel()
    if not self.settling and not owner.ending then -- what the block itself does ends too
      local e = reactor.cancel()
      self.loop.reactor:throw(owner.co, e, true)
      self.thrown = e
    end
    wake_all(self.room)
  end
  wake_one(self.room)
  if self.count == 0 then wake_all(self.waiters) end
end

-- Its owner has been told, and will be no more when it ends.
local function told(self)
  local at, key = self.owner, "broken"
  while at[key] and at[key] ~= self do at, key = at[key], "next_broken" end
  at[key], self.next_broken = self.next_broken, nil
end

local function raise_failed(self)
  if current() == self.owner then
    self.raised = true
    told(self)
  end
  pass_on(self.failed)
end

function Group:spawn(f, ...)
  expect(self, Group, 1, "spawn")
  expect_callable(f, 1, "spawn")
  while self.count >= self.limit and not (self.failed or self.over) do
    local woken, e, note_woken = wait_in(self.room, nil, "spawn")
    if e then
      if note_woken then pass_wakeup(self.room) end
      error(e, 0)
    end
    assert(woken)
  end
  if self.failed then raise_failed(self) end
  if self.over then error("the group has ended", 2) end
  return new_task(self.loop, self, f, ...)
end

function Group:cancel()
  expect(self, Group, 1, "cancel")
  local tasks = {}
  for task, runs in pairs(self.members) do
    if runs then tasks[#tasks + 1] = task end
  end
  for _, task in ipairs(tasks) do
    if task ~= current() then task:cancel() end
  end
end

-- No more tasks, and an end of those there are.
local function stop(self)
  self.over = true
  wake_all(self.room)
  self:cancel()
end

-- Waits for all; an error that comes meanwhile ends them, and is returned when they have ended.
local function settle(self, finish)
  local err
  self.settling = true
  if self.thrown then self.loop.reactor:retract(self.owner.co, self.thrown) end
  while self.count > 0 do
    local _, e = wait_in(self.waiters, nil, "join")
    if e then
      err = err or {e}
      finish(self)
      if e == NOT_HERE then break end -- nor would it wait the next time
    end
  end
  self.settling = nil
  return err
end

function Group:join()
  expect(self, Group, 1, "join")
  local err = settle(self, self.cancel)
  if self.failed then raise_failed(self) end
  if err then error(err[1], 0) end
end

function Group:__close(e)
  if e ~= nil then stop(self) end
  local ok, err = pcall(settle, self, stop)
  self.over, self.left = true, true
  if not ok then error(err, 0) end
  told(self)
  local failed = self.failed
  if e ~= nil and not (is_cancelled(e) and failed) then -- the block's own error goes on
    if failed and not (self.raised or failed.joined) and failed.heirs == 0 then lost(self.loop, failed) end
    return
  end
  if failed then pass_on(failed) end
  if err then error(err[1], 0) end
end

function M.group(options, f)
  if type(options) == "function" then options, f = nil, options end
  local group = new_group(options)
  if f == nil then return group end
  expect_callable(f, 2, "group")
  local g <close> = group
  return f(g)
end

---------------------------------------------------------------- between tasks

function M.queue(limit)
  if limit ~= nil and not (math.type(limit) == "integer" and limit > 0) then
    error("bad argument #1 to 'queue' (limit must be an integer above 0)", 2)
  end
  return setmetatable({first = 1, last = 0, limit = limit or math.huge, getters = new_list(),
                       putters = new_list()}, Queue)
end

function Queue:__len() return self.last - self.first + 1 end

-- Waits in `list` while blocked(self); one who gives up after having been woken passes that on.
local function await(self, list, blocked, deadline, op)
  while blocked(self) do
    local _, e, woken = wait_in(list, deadline and math.max(0, deadline - socket.monotonic()), op)
    if e then
      if woken then pass_wakeup(list) end
      error(e, 0)
    end
    if not woken and deadline and socket.monotonic() >= deadline and blocked(self) then raise_timeout(op) end
  end
end

local function full(q) return not q.closed and #q >= q.limit end
local function empty(q) return not q.closed and #q == 0 end

function Queue:put(v, timeout)
  expect(self, Queue, 1, "put")
  if v == nil then error("bad argument #1 to 'put' (value expected)", 2) end
  if timeout ~= nil then expect_seconds(timeout, 2, "put") end
  if full(self) then await(self, self.putters, full, deadline_of(timeout), "put") end
  if self.closed then error("the queue is closed", 2) end
  local getter, at = rouse(self.getters), self.last + 1
  self[at] = v
  self.last = at
  follow(self.getters, getter)
  return self
end

function Queue:get(timeout)
  expect(self, Queue, 1, "get")
  if timeout ~= nil then expect_seconds(timeout, 1, "get") end
  if empty(self) then await(self, self.getters, empty, deadline_of(timeout), "get") end
  if #self == 0 then return nil end
  local putter, first = rouse(self.putters), self.first
  local v = self[first]
  self[first] = nil
  self.first = first + 1
  follow(self.putters, putter)
  return v
end

-- for v in q:values() do ... end, until the queue is closed and empty
function Queue:values()
  expect(self, Queue, 1, "values")
  return function() return self:get() end
end

function Queue:close()
  expect(self, Queue, 1, "close")
  self.closed = true
  wake_all(self.getters)
  wake_all(self.putters)
  return true
end

function M.event() return setmetatable({on = false, waiters = new_list()}, Event) end

function Event:set()
  self.on = true
  wake_all(self.waiters)
end

function Event:clear() self.on = false end
function Event:isset() return self.on end

function Event:wait(timeout)
  expect(self, Event, 1, "wait")
  if timeout ~= nil then expect_seconds(timeout, 1, "wait") end
  if self.on then return true end
  local woken, e = wait_in(self.waiters, timeout, "wait")
  if e then error(e, 0) end
  return woken
end

return M
