/*
** lsocket_task.c: reactors, tasks and alarms in Lua's hands: the module socket.reactor, below socket/loop.lua.
*/
#include "lsocket_reactor.h"

#include <limits.h>
#include <string.h>

/* ---------------------------------------------------------------- tasks */

/* There is something new for the reactor at index 1, whose round may wait: in another loop's task, or in the wait hook. */
static int try_nudge(lua_State *L, Reactor *r) {
  int status;
  if (r->turning || !(r->s->watch || r->s->waiting)) return LUA_OK;
  lua_getiuservalue(L, 1, UV_SOCK);
  status = lsock_wake(L, -1, r->s);
  if (status == LUA_OK) lua_pop(L, 1);
  return status;
}

static void nudge(lua_State *L, Reactor *r) {
  if (try_nudge(L, r) != LUA_OK) lua_error(L);
}

/* Pushes the reactor's tasks, and that of the coroutine at `arg`. NULL, and any value, if it is none of this reactor's, or forgotten. */
static Task *find_task(lua_State *L, int arg) {
  luaL_checktype(L, arg, LUA_TTHREAD);
  lsock_pushpart(L, 1, UV_TASKS);
  lua_rawgetp(L, -1, lua_tothread(L, arg));
  return lsock_object(L, -1, LSOCK_KIND_TASK, sizeof(Task));
}

static int task_done(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return lua_gettop(L);
}

/* The function a task's coroutine runs: its upvalue keeps the Task for as long as anybody can resume that. */
static int task_main(lua_State *L) {
  luaL_checkany(L, 1); /* a script may have resumed away what it was to call */
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, task_done);
  return task_done(L, LUA_OK, 0);
}

/* A task that never began leaves the queue when its turn comes. */
static void give_up(Reactor *r, Task *t) {
  r->tasks--;
  t->state = ENDED;
}

/* r:add(co, ...): the coroutine, new and with its function, begins in the next round, with these arguments */
static int r_add(lua_State *L) {
  Reactor *r = lsock_checkopen(L);
  lua_State *co;
  Task *t;
  int n = lua_gettop(L) - 2, fresh;
  luaL_checktype(L, 2, LUA_TTHREAD);
  co = lua_tothread(L, 2);
  t = lua_newuserdatauv(L, sizeof *t, 1);
  memset(t, 0, offsetof(Task, op));
  t->seal = LSOCK_SEAL(r->core, t, LSOCK_KIND_TASK);
  t->r = r;
  t->co = co;
  t->fd = LSOCK_NOFD;
  t->nargs = n + 1;
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, 1);
  lua_insert(L, 3);
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, task_main, 1);
  lua_insert(L, 4);
  fresh = co != L && lua_status(co) == LUA_OK && lsock_suspended(co) == 1 && lua_gettop(co) == 1 && !find_task(L, 2);
  luaL_argcheck(L, fresh, 2, "not a new coroutine"); /* a finalizer may have added it, or closed the loop */
  luaL_argcheck(L, r->s->fd != LSOCK_NOFD, 1, "loop is closed");
  lua_settop(L, n + 4);
  if (!lua_checkstack(co, n + 4)) return luaL_error(L, "too many arguments");
  lsock_pushpart(L, 1, UV_TASKS);
  lua_pushvalue(L, 3);
  lua_rawsetp(L, -2, co);
  lua_pop(L, 1);
  lua_xmove(L, co, n);
  lua_xmove(L, co, 1);
  lua_insert(co, 1);
  r->tasks++;
  lsock_task_enqueue(L, t);
  t->state = FRESH;
  if (try_nudge(L, r) == LUA_OK) return 0;
  if (t->state == FRESH) give_up(r, t);
  return lua_error(L);
}

static int parked(lua_State *L, int status, lua_KContext ctx) {
  int answer = lsock_reactor_answer(L, lsock_core(L));
  (void)status, (void)ctx;
  if (answer == LSOCK_R_THROWN) return lua_error(L);
  lua_pushboolean(L, answer == LSOCK_R_READY);
  return 1;
}

/* reactor.park([seconds [, note]]) -> true when woken, false when the time is up; for the task that is running. Where
** note.woken is true already, it was a finalizer that woke it */
static int mod_park(lua_State *L) {
  Task *t = lsock_task_here(L, lsock_core(L));
  int64_t ns = lsock_checktimeout(L, 1);
  lua_settop(L, 2);
  if (!t || !lua_isyieldable(L)) { /* without a position: loop.lua compares it */
    lua_pushliteral(L, "only a task can wait for this");
    return lua_error(L);
  }
  lsock_task_reserve(L, t->r, LSOCK_NOFD, ns);
  if (t->thrown) {
    lsock_task_thrown(L, t);
    return lua_error(L);
  }
  lua_pushboolean(L, lua_istable(L, 2) && !lua_getmetatable(L, 2) && lua_getfield(L, 2, "woken") == LUA_TBOOLEAN &&
                         lua_toboolean(L, -1));
  if (ns == 0 || lua_toboolean(L, -1)) return 1;
  if (ns > 0) lsock_task_timer(t->r, &t->timer, ns);
  t->state = PARKED;
  return lua_yieldk(L, 0, 0, parked);
}

/* r:lsock_task_wake(co): what has parked goes on in the next round -> was it parked? */
static int r_wake(lua_State *L) {
  Reactor *r = lsock_checkopen(L);
  Task *t = find_task(L, 2);
  int was_parked = t && t->state == PARKED;
  if (was_parked) {
    lsock_task_wake(L, t, LSOCK_R_READY);
    nudge(L, r);
  }
  lua_pushboolean(L, was_parked);
  return 1;
}

/* r:throw(co, error [, behind]) -> "fresh": it never began, and is none any more; true: the error comes where it waits, or
** will wait next; nothing: there is no such task, or `behind` and another error is on its way to it */
static int r_throw(lua_State *L) {
  Reactor *r = lsock_checkopen(L);
  Task *t;
  luaL_checkany(L, 3);
  lua_settop(L, 4);
  lua_pushliteral(L, "fresh");
  t = find_task(L, 2);
  if (!t || (t->thrown && lua_toboolean(L, 4))) return 0;
  if (t->state == FRESH || t->state == ENDED) {
    if (t->state == FRESH) give_up(r, t);
    lua_settop(L, 5);
    return 1;
  }
  lsock_pushpart(L, 1, UV_THROWN);
  lua_pushvalue(L, 3);
  lua_rawsetp(L, -2, t);
  t->thrown = 1;
  lsock_task_wake(L, t, LSOCK_R_READY);
  nudge(L, r);
  lua_pushboolean(L, 1);
  return 1;
}

/* r:retract(co, error): what was thrown but has not come yet, if it is that, will not come */
static int r_retract(lua_State *L) {
  Task *t;
  lsock_checkopen(L);
  t = find_task(L, 2);
  luaL_checkany(L, 3);
  if (!t || !t->thrown) return 0;
  lsock_pushpart(L, 1, UV_THROWN);
  lua_rawgetp(L, -1, t);
  if (!lua_rawequal(L, -1, 3)) return 0;
  lua_pushnil(L);
  lua_rawsetp(L, -3, t);
  t->thrown = 0;
  return 0;
}

/* r:state(co) -> "ready", "running" or "waiting"; nil if it is not a task (any more) */
static int r_state(lua_State *L) {
  static const char *const names[] = {"ready", "ready", "running", "waiting", "waiting"};
  const Task *t;
  lsock_checkreactor(L);
  t = find_task(L, 2);
  if (!t || t->state == ENDED) return 0;
  lua_pushstring(L, names[t->state]);
  return 1;
}

/* reactor.running() -> the coroutine of the task that is running, and its reactor; outside of tasks nil, and whether there
** is a wait hook */
static int mod_running(lua_State *L) {
  Reactor *r = lsock_core(L)->active;
  lua_settop(L, 0);
  if (!r || !r->running) {
    lua_pushnil(L);
    lua_pushboolean(L, lsock_core(L)->hook & LSOCK_HOOKED);
    return 2;
  }
  lsock_pushactive(L);
  if (r->running->co == L)
    lua_pushthread(L);
  else {
    lsock_pushtask(L, 1, r->running);
    lua_getiuservalue(L, -1, 1);
  }
  lua_pushvalue(L, 1);
  return 2;
}

/* ---------------------------------------------------------------- coroutines below a task */

static int resume_below(lua_State *L, lua_State *co, int nargs);

static int below_resumed(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return resume_below(L, lua_tothread(L, 1), 0);
}

/* Like coroutine.resume, but when the coroutine waits, the whole task does. */
static int resume_below(lua_State *L, lua_State *co, int nargs) {
  Task *t = lua_isyieldable(L) ? lsock_task_here(L, lsock_core(L)) : NULL;
  int status, nres = 0;
  if (t) t->leaf = co;
  status = lua_resume(co, L, nargs, &nres);
  if (t) {
    if (status == LUA_YIELD && t->state != RUNNING) {
      lua_pop(co, nres);
      return lua_yieldk(L, 0, 0, below_resumed);
    }
    t->leaf = L;
  }
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_pushboolean(L, 0);
    lua_xmove(co, L, 1);
    return 2;
  }
  if (!lua_checkstack(L, nres + 1)) {
    lua_pop(co, nres);
    return luaL_error(L, "too many results to resume");
  }
  lua_pushboolean(L, 1);
  lua_xmove(co, L, nres);
  return nres + 1;
}

/* loop.resume(co, ...): as coroutine.resume */
static int mod_resume(lua_State *L) {
  lua_State *co;
  int n = lua_gettop(L) - 1;
  luaL_checktype(L, 1, LUA_TTHREAD);
  co = lua_tothread(L, 1);
  if (co == L || (lua_status(co) != LUA_YIELD && (lua_status(co) != LUA_OK || lua_gettop(co) == 0))) {
    lua_pushboolean(L, 0);
    lua_pushstring(L, co == L ? "cannot resume non-suspended coroutine" : "cannot resume dead coroutine");
    return 2;
  }
  if (!lua_checkstack(co, n)) {
    lua_pushboolean(L, 0);
    lua_pushliteral(L, "too many arguments to resume");
    return 2;
  }
  lua_xmove(L, co, n);
  return resume_below(L, co, n);
}

/* ---------------------------------------------------------------- alarms */

/* Takes an alarm back that is set. */
static void withdraw(lua_State *L, int owner, Alarm *a) {
  lsock_timer_clear(&a->r->timers, &a->timer);
  lsock_alarm_forget(L, owner, a);
}

/* r:after(seconds, f) -> alarm: f() is called in the round after that time */
static int r_after(lua_State *L) {
  Reactor *r = lsock_checkopen(L);
  Alarm *a;
  int64_t ns;
  luaL_checknumber(L, 2);
  ns = lsock_checktimeout(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 3);
  a = lua_newuserdatauv(L, sizeof *a, 2);
  memset(a, 0, sizeof *a);
  a->seal = LSOCK_SEAL(r->core, a, LSOCK_KIND_ALARM);
  a->timer.of = LSOCK_DUE_ALARM;
  a->r = r;
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 4, 1);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 4, 2);
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_setmetatable(L, 4);
  lsock_timer_reserve(L, &r->timers, 1, UV_HEAP);
  luaL_argcheck(L, r->s->fd != LSOCK_NOFD, 1, "loop is closed"); /* by a finalizer */
  lsock_pushpart(L, 1, UV_ALARMS);
  lua_pushvalue(L, 4);
  lua_rawsetp(L, -2, a); /* which runs no finalizers */
  lsock_task_timer(r, &a->timer, ns);
  if (try_nudge(L, r) != LUA_OK) {
    withdraw(L, 1, a);
    return lua_error(L);
  }
  lua_settop(L, 4);
  return 1;
}

/* alarm:cancel() -> true if it had not come yet */
static int alarm_cancel(lua_State *L) {
  Alarm *a = lsock_object(L, 1, LSOCK_KIND_ALARM, sizeof *a);
  if (!a) return luaL_typeerror(L, 1, "timer");
  lua_pushboolean(L, a->timer.place > 0);
  if (a->timer.place == 0) return 1;
  lua_getiuservalue(L, 1, 2);
  if (lua_touserdata(L, -1) != a->r) lsock_tampered(L);
  withdraw(L, -1, a);
  lua_pop(L, 1);
  return 1;
}

/* ---------------------------------------------------------------- reactors */

/* r:timeout() -> seconds until a round has something to do: 0 at once, nil if only a descriptor can bring it */
static int r_timeout(lua_State *L) {
  lsock_pushtimeout(L, lsock_reactor_next(lsock_checkopen(L)));
  return 1;
}

/* r:fileno() -> the poller's descriptor */
static int r_fileno(lua_State *L) {
  lua_pushinteger(L, lsock_checkopen(L)->s->fd);
  return 1;
}

/* r:counts() -> tasks, those in the queue, those that wait for a descriptor, timers */
static int r_counts(lua_State *L) {
  const Reactor *r = lsock_checkreactor(L);
  lua_pushinteger(L, r->tasks);
  lua_pushinteger(L, r->queued);
  lua_pushinteger(L, r->polling);
  lua_pushinteger(L, (lua_Integer)r->timers.n);
  return 4;
}

/* r:close(): gives the descriptor back; tasks that are left never go on */
static int r_close(lua_State *L) {
  Reactor *r = lsock_checkreactor(L);
  if (r->turning) return luaL_error(L, "the loop is running: it cannot be closed by one of its tasks");
  lsock_reactor_unlist(L, r);
  lua_getiuservalue(L, 1, UV_SOCK);
  lsock_closesock(L, lua_gettop(L), r->s);
  return 0;
}

/* reactor.new(ended) -> reactor; ended(co, ok, ...) is called with what coroutines return or fail with */
static int mod_new(lua_State *L) {
  lsock_Core *core = lsock_core(L);
  Reactor *r;
  lsock_fd fd;
  int uv;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  r = lua_newuserdatauv(L, sizeof *r, UV_COUNT);
  memset(r, 0, sizeof *r);
  r->core = core;
  r->tail = &r->head;
  for (uv = UV_TASKS; uv < UV_ENDED; uv++) {
    if (uv == UV_ENTRIES || uv == UV_HEAP || uv == UV_SOCK || uv == UV_DEAD || uv == UV_ROUND) continue;
    lua_newtable(L);
    lua_setiuservalue(L, 2, uv);
  }
  lua_pushliteral(L, "cannot resume dead coroutine"); /* now, as there may be no memory then */
  lua_setiuservalue(L, 2, UV_DEAD);
  lua_pushvalue(L, LSOCK_UP_CORE);
  lua_pushcclosure(L, lsock_reactor_round, 1);
  lua_setiuservalue(L, 2, UV_ROUND);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, 2, UV_ENDED);
  r->s = lsock_newsock(L, core);
  lua_setiuservalue(L, 2, UV_SOCK);
  r->seal = LSOCK_SEAL(core, r, LSOCK_KIND_REACTOR);
  if (!lsock_reactor_enlist(L, 2, r)) lua_gc(L, LUA_GCCOLLECT);
  if (r->id == 0 && !lsock_reactor_enlist(L, 2, r)) return luaL_error(L, "too many loops");
  if (lsock_full(L, core, 1)) return lsock_failfull(L, "loop");
  fd = lsock_plat_poller();
  if (fd == LSOCK_NOFD && lsock_reclaim(L)) fd = lsock_plat_poller();
  if (fd == LSOCK_NOFD) return lsock_failno(L, errno, "loop");
  lsock_open(L, r->s, fd, AF_UNSPEC, 0, 0);
  lsock_count(core, r->s);
  r->s->internal = 1;
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_setmetatable(L, 2);
  return 1;
}

/* reactor.timeout(op [, error]) -> a socket.timeout error, with the further fields of that error; reactor.cancel() -> an error of the class `cancelled` */
static int mod_timeout(lua_State *L) {
  static const char *const ops[] = {"loop.timeout", "join", "put", "get", NULL};
  lsock_Fail f = {0};
  f.cls = LSOCK_TIMEOUT;
  f.err = ETIMEDOUT;
  f.op = ops[luaL_checkoption(L, 1, NULL, ops)];
  f.msg = "timed out";
  lua_settop(L, 2);
  lsock_pushfields(L, 2);
  f.extra = lua_istable(L, 3) ? 3 : 0;
  lsock_pusherror(L, &f);
  lsock_blamecaller(L);
  return 1;
}

static int mod_cancel(lua_State *L) {
  lsock_Fail f = {0};
  f.cls = (int)lua_tointeger(L, lua_upvalueindex(3));
  f.err = ECANCELED;
  f.op = "task";
  f.msg = "cancelled";
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "CANCELLED");
  lua_setfield(L, -2, "code");
  f.extra = lua_gettop(L);
  lsock_pusherror(L, &f);
  lsock_blamecaller(L);
  return 1;
}

static const lsock_Reg methods[] = {
    {"add", r_add},         {"close", r_close}, {"counts", r_counts}, {"fileno", r_fileno},
    {"retract", r_retract}, {"state", r_state}, {"throw", r_throw},   {"turn", lsock_r_turn},
    {"timeout", r_timeout}, {"wake", r_wake},   {NULL, NULL}};

static const lsock_Reg alarm_methods[] = {{"cancel", alarm_cancel}, {NULL, NULL}};

static const lsock_Reg functions[] = {{"park", mod_park},       {"resume", mod_resume},   {"running", mod_running},
                                      {"timeout", mod_timeout}, {"wait", lsock_mod_wait}, {NULL, NULL}};

/* Pushes a closed metatable whose __index is the table on top, which it replaces. */
static void close_meta(lua_State *L, const char *name) {
  lua_createtable(L, 0, 3);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_insert(L, -2);
  lua_setfield(L, -2, "__index");
}

/* Pops a value, which becomes upvalue 3 of a function in the table below it. */
static void set_closure(lua_State *L, int core, const char *name, lua_CFunction f) {
  lua_pushvalue(L, core);
  lua_insert(L, -2);
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  lua_pushcclosure(L, f, 3);
  lua_setfield(L, -2, name);
}

void lsock_open_reactor(lua_State *L, int core) {
  int cls = lsock_newclass(L, core, "socket.loop.cancelled", 0);
  lua_createtable(L, 0, 10);
  lsock_register(L, core, functions);
  lsock_pushclass(L, core, cls);
  lua_setfield(L, -2, "cancelled");
  lua_pushinteger(L, cls);
  set_closure(L, core, "cancel", mod_cancel);
  lua_createtable(L, 0, 10);
  lsock_register(L, core, methods);
  lua_createtable(L, 0, 1);
  lsock_register(L, core, alarm_methods);
  close_meta(L, "timer");
  set_closure(L, core, "after", r_after); /* a method of reactors */
  close_meta(L, "reactor");
  set_closure(L, core, "new", mod_new);
  lsock_newweak(L, core, LSOCK_UV_REACTORS);
}

int luaopen_socket_reactor(lua_State *L) {
  return lsock_submodule(L, "reactor");
}
