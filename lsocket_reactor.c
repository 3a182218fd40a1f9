/*
** lsocket_reactor.c: the rounds of tasks, which are coroutines that wait together, on one poller.
**
** Every descriptor is watched once, for everything, and reported when something new happens (epoll's edges). A task that waits
** is noted at the descriptor's entry; an event that finds nobody waiting is noted there too, for the next who comes.
*/
#include "lsocket_reactor.h"

#include <limits.h>
#include <string.h>

/* Operations a task may do before others have their turn, and ns that timers and tasks each may take of a round. */
#define SHARE 16
#define ROUND INT64_C(1000000)

/* Events fetched at once. */
#define EVENTS 256

/* How many coroutines that are no tasks may wait within each other: each holds a part of the C stack. */
#define NESTED_MAX 8

Reactor *lsock_toreactor(lua_State *L, int idx) {
  return lsock_object(L, idx, LSOCK_KIND_REACTOR, sizeof(Reactor));
}

Reactor *lsock_checkreactor(lua_State *L) {
  Reactor *r = lsock_toreactor(L, 1);
  if (!r) luaL_typeerror(L, 1, "reactor");
  return r;
}

/* ---------------------------------------------------------------- the core's table of reactors */

static void wake_both(lua_State *L, const Entry *e);

/* That of a number, valid until something allocates; NULL: none. */
static Reactor *find(lua_State *L, int id) {
  Reactor *r;
  lsock_pushtable(L, LSOCK_UV_REACTORS);
  lua_rawgeti(L, -1, id);
  r = lsock_toreactor(L, -1);
  lua_pop(L, 2);
  return r;
}

int lsock_reactor_enlist(lua_State *L, int idx, Reactor *r) {
  int id = 1;
  while (id <= UCHAR_MAX && find(L, id)) id++;
  if (id > UCHAR_MAX) return 0;
  lsock_pushtable(L, LSOCK_UV_REACTORS);
  lua_pushvalue(L, idx);
  lua_rawseti(L, -2, id);
  lua_pop(L, 1);
  r->id = id;
  if (id > r->core->reactors) r->core->reactors = id;
  return 1;
}

/* Is its number still its own? */
static int is_listed(lua_State *L, const Reactor *r) {
  int listed;
  lsock_pushtable(L, LSOCK_UV_REACTORS);
  lua_rawgeti(L, -1, r->id);
  listed = lua_touserdata(L, -1) == r;
  lua_pop(L, 2);
  return listed;
}

void lsock_reactor_unlist(lua_State *L, Reactor *r) {
  if (!is_listed(L, r)) return;
  lsock_pushtable(L, LSOCK_UV_REACTORS);
  lua_pushnil(L);
  lua_rawseti(L, -2, r->id);
  lua_pop(L, 1);
}

/* A finalizer uses a reactor that was garbage with it: what happened to descriptors since, nobody told it. */
static void revive(lua_State *L, Reactor *r) {
  int fd;
  if (!lsock_reactor_enlist(L, 1, r)) luaL_error(L, "too many loops");
  for (fd = 0; fd < r->nentries; fd++) {
    wake_both(L, &r->entries[fd]);
    memset(&r->entries[fd], 0, sizeof(Entry));
  }
}

Reactor *lsock_checkopen(lua_State *L) {
  Reactor *r = lsock_checkreactor(L);
  luaL_argcheck(L, r->s->fd != LSOCK_NOFD, 1, "loop is closed");
  if (!lsock_likely(is_listed(L, r))) revive(L, r);
  return r;
}

/* Pushes the active reactor; it is what holds the memory of all this. */
void lsock_pushactive(lua_State *L) {
  luaL_checkstack(L, 8, "task");
  lsock_pushcore(L, LSOCK_UV_REACTOR);
  if (lua_touserdata(L, -1) != lsock_core(L)->active) lsock_tampered(L);
}

/* Pushes a user value that is a table of the reactor at `owner`. */
void lsock_pushpart(lua_State *L, int owner, int uv) {
  if (lua_getiuservalue(L, owner, uv) != LUA_TTABLE) lsock_tampered(L);
}

void lsock_pushtask(lua_State *L, int owner, const Task *t) {
  lsock_pushpart(L, owner, UV_TASKS);
  lua_rawgetp(L, -1, t->co);
  lua_remove(L, -2);
}

/* ---------------------------------------------------------------- the queue */

void lsock_task_enqueue(lua_State *L, Task *t) {
  Reactor *r = t->r;
  t->state = QUEUED;
  if (!r->turning && r->s->watch) lsock_reactor_wake(L, r->s); /* its round waits in another loop's task */
  if (!t->co || t->lined) return;                              /* a nested wait looks for itself */
  t->lined = 1;
  t->next = NULL;
  *r->tail = t;
  r->tail = &t->next;
  r->queued++;
}

static Task *dequeue(Reactor *r) {
  Task *t = r->head;
  r->head = t->next;
  if (!r->head) r->tail = &r->head;
  r->queued--;
  t->lined = 0;
  return t;
}

/* Ends a wait: the task is in nobody's list any more. */
static void unwait(Task *t) {
  Reactor *r = t->r;
  lsock_timer_clear(&r->timers, &t->timer);
  if (t->fd == LSOCK_NOFD) return;
  if (t->fd < r->nentries) {
    Task **p = &r->entries[t->fd].waiter[t->dir];
    while (*p && *p != t) p = &(*p)->also;
    if (*p) *p = t->also;
  }
  t->fd = LSOCK_NOFD;
  r->polling--;
}

void lsock_task_wake(lua_State *L, Task *t, int answer) {
  if (t->state != WAITING && t->state != PARKED) return;
  unwait(t);
  t->answer = answer;
  lsock_task_enqueue(L, t);
}

/* ---------------------------------------------------------------- descriptors */

static void grow_entries(lua_State *L, Reactor *r, int owner, lsock_fd fd) {
  int n = r->nentries ? r->nentries : 64;
  Entry *entries;
  if (fd < r->nentries) return;
  while (n <= fd) n *= 2;
  entries = lua_newuserdatauv(L, (size_t)n * sizeof *entries, 0);
  if (n <= r->nentries) { /* a finalizer that ran just now waited for something */
    lua_pop(L, 1);
    return;
  }
  memset(entries, 0, (size_t)n * sizeof *entries);
  if (r->nentries) memcpy(entries, r->entries, (size_t)r->nentries * sizeof *entries);
  lua_setiuservalue(L, owner, UV_ENTRIES);
  r->entries = entries;
  r->nentries = n;
}

/* The entry of a socket that is watched from now on, for which there is room; NULL and errno if it cannot be. */
static Entry *watch(Reactor *r, lsock_Sock *s) {
  Entry *e = &r->entries[s->fd];
  if (lsock_likely(s->watch == r->id && e->s == s)) return e;
  if (lsock_plat_poller_edges(r->s->fd, s->fd) < 0) return NULL;
  e->seen = e->end =
      0; /* who waits already, for another object with this descriptor or since another loop had it, stays */
  e->s = s;
  s->watch = (unsigned char)r->id;
  return e;
}

static void wake_all(lua_State *L, Task *t) {
  while (t) {
    Task *also = t->also;
    lsock_task_wake(L, t, LSOCK_R_READY);
    t = also;
  }
}

static void wake_both(lua_State *L, const Entry *e) {
  wake_all(L, e->waiter[LSOCK_RD]);
  wake_all(L, e->waiter[LSOCK_WR]);
}

/* Other loops may have watched it before the one it knows of. */
void lsock_reactor_wake(lua_State *L, const lsock_Sock *s) {
  int id;
  for (id = 1; id <= lsock_core(L)->reactors; id++) {
    Reactor *r = find(L, id);
    if (r && s->fd >= 0 && s->fd < r->nentries) wake_both(L, &r->entries[s->fd]);
  }
}

void lsock_reactor_leave(lua_State *L, lsock_Sock *s, int stays_open) {
  int id;
  lsock_reactor_wake(L, s);
  for (id = 1; id <= lsock_core(L)->reactors; id++) {
    Reactor *r = find(L, id);
    if (!r || s->fd < 0 || s->fd >= r->nentries || r->entries[s->fd].s != s) continue;
    memset(&r->entries[s->fd], 0, sizeof(Entry));
    if (stays_open) lsock_plat_poller_set(r->s->fd, s->fd, LSOCK_EV_READ | LSOCK_EV_WRITE, 0);
  }
  s->watch = 0;
}

static void event(lua_State *L, Reactor *r, const lsock_Event *ev) {
  Entry *e = ev->fd < r->nentries ? &r->entries[ev->fd] : NULL;
  int dir;
  if (!e || !e->s) return; /* of a socket that was closed meanwhile */
  if (ev->events & LSOCK_EV_END) e->end = 1;
  for (dir = LSOCK_RD; dir <= LSOCK_WR; dir++) {
    if (!(ev->events & (dir == LSOCK_RD ? LSOCK_EV_READ : LSOCK_EV_WRITE))) continue;
    if (e->waiter[dir])
      wake_all(L, e->waiter[dir]);
    else
      e->seen |= 1 << dir;
  }
}

/* ---------------------------------------------------------------- waiting */

/* Pushes what was thrown into the task while it could not take it. */
int lsock_task_thrown(lua_State *L, Task *t) {
  lsock_pushactive(L);
  lsock_pushpart(L, -1, UV_THROWN);
  t->thrown = 0;
  lua_rawgetp(L, -1, t);
  lua_pushnil(L);
  lua_rawsetp(L, -3, t);
  return LSOCK_R_THROWN;
}

Task *lsock_task_here(lua_State *L, const lsock_Core *core) {
  Reactor *r = core->active;
  return r && r->running && r->running->leaf == L ? r->running : NULL;
}

lsock_Op *lsock_reactor_op(lua_State *L, lsock_Core *core) {
  Task *t = lsock_task_here(L, core);
  if (t->co == L) return &t->op;
  lsock_pushactive(L); /* a coroutine below it holds on to it: a script may resume that by itself later */
  lsock_pushtask(L, -1, t);
  lua_remove(L, -2);
  return &t->op;
}

int lsock_reactor_owns(lua_State *L, const lsock_Op *op) {
  const Task *t = lsock_task_here(L, op->core);
  return t && &t->op == op;
}

int lsock_reactor_turn(lua_State *L, lsock_Core *core) {
  Task *t = lsock_task_here(L, core);
  if (!t || t->share-- > 0) return 0;
  lsock_task_reserve(L, t->r, LSOCK_NOFD, -1);
  t->answer = LSOCK_R_READY;
  lsock_task_enqueue(L, t);
  return 1;
}

void lsock_task_reserve(lua_State *L, Reactor *r, lsock_fd fd, int64_t ns) {
  luaL_checkstack(L, 16, "task");
  if (lsock_likely(fd < r->nentries && (ns < 0 || r->timers.n < r->timers.cap))) return;
  lsock_pushactive(L);
  grow_entries(L, r, lua_gettop(L), fd);
  lsock_timer_reserve(L, &r->timers, lua_gettop(L), UV_HEAP);
  lua_pop(L, 1);
}

void lsock_task_timer(Reactor *r, lsock_Timer *t, int64_t ns) {
  int64_t now = lsock_plat_now();
  lsock_timer_set(&r->timers, t, ns >= 0 && ns < INT64_MAX - now ? now + ns : INT64_MAX);
}

/* Notes at the descriptor that t waits there; LSOCK_R_YIELD, or why not. */
static int wait_for(lua_State *L, Task *t, lsock_Op *op) {
  Reactor *r = t->r;
  int dir = op->want == LSOCK_READ ? LSOCK_RD : LSOCK_WR;
  int drained = op->w->likely_idle & LSOCK_DRAINED;
  Task *other, *also;
  Entry *e;
  if (op->w->fd != op->wfd) return LSOCK_R_READY; /* closed by a finalizer: the driver looks */
  if (!(e = watch(r, op->w))) return LSOCK_R_OTHER;
  if (dir == LSOCK_RD) op->w->likely_idle &= (unsigned char)~LSOCK_DRAINED;
  if ((e->seen & (1 << dir)) || (drained && e->end)) {
    e->seen &= ~(1 << dir);
    return LSOCK_R_READY;
  }
  for (other = e->waiter[dir]; other; other = also) {
    also = other->also;
    if (other->co && lua_status(other->co) != LUA_YIELD)
      lsock_task_wake(L, other, LSOCK_R_READY); /* its coroutine was closed */
    else if (!op->beside && !other->beside)
      return LSOCK_R_BUSY;
  }
  t->beside = (unsigned char)op->beside;
  t->also = e->waiter[dir];
  e->waiter[dir] = t;
  t->fd = op->w->fd;
  t->dir = dir;
  r->polling++;
  return LSOCK_R_YIELD;
}

/* A task that got further need not wait: the descriptor may have nothing new to report. */
static int pass(lua_State *L, Task *t, lsock_Op *op) {
  if (!op->progress) return 0;
  op->progress = 0;
  t->answer = LSOCK_R_READY;
  lsock_task_enqueue(L, t);
  return 1;
}

/* Begins the wait of a task, for which there is room. */
static int begin(lua_State *L, Task *t, lsock_Op *op, int64_t ns) {
  int answer = op->w ? wait_for(L, t, op) : LSOCK_R_YIELD;
  if (answer != LSOCK_R_YIELD) return answer;
  t->state = WAITING;
  if (ns >= 0) lsock_task_timer(t->r, &t->timer, ns);
  return answer;
}

int lsock_reactor_wait(lua_State *L, lsock_Op *op, int64_t ns) {
  Task *t = lsock_task_here(L, op->core);
  if (!t) return LSOCK_R_OTHER;
  lsock_task_reserve(L, t->r, op->w ? op->wfd : LSOCK_NOFD, ns);
  if (t->thrown) return lsock_task_thrown(L, t);
  if (pass(L, t, op)) return LSOCK_R_YIELD;
  if (ns == 0) return LSOCK_R_EXPIRED;
  return begin(L, t, op, ns);
}

int lsock_reactor_answer(lua_State *L, const lsock_Core *core) {
  Task *t = lsock_task_here(L, core);
  if (!t) return LSOCK_R_READY; /* resumed by somebody else: look again */
  return t->thrown ? lsock_task_thrown(L, t) : t->answer;
}

/* ---------------------------------------------------------------- rounds */

/* ended(co, ok, ...): with the coroutine and the n values that are on top of it, which it takes. */
static int call_ended(lua_State *L, int owner, int ok, int n) {
  int co = lua_gettop(L) - n;
  lua_getiuservalue(L, owner, UV_ENDED);
  lua_pushvalue(L, co);
  lua_pushboolean(L, ok);
  lua_rotate(L, co + 1, 3);
  return lua_pcall(L, n + 2, 0, 0);
}

/* Forgets a task: one that ended, or was cancelled before it began; from the queue it is forgotten when its turn comes. */
static void drop(lua_State *L, int owner, const Task *t) {
  if (t->lined) return;
  lsock_pushpart(L, owner, UV_TASKS);
  lua_pushnil(L);
  lua_rawsetp(L, -2, t->co);
  lua_pop(L, 1);
}

/* The results of a coroutine that ended, or its error, go to the function of UV_ENDED. nres < 0: it had ended before. Where
** there is no memory for that, the task is left in the queue, so that those who wait for it do not wait for ever. */
static void ended(lua_State *L, Reactor *r, int owner, Task *t, int status, int nres) {
  lua_State *co = t->co;
  int n = status == LUA_OK ? nres : 1, top = lua_gettop(L);
  unwait(t); /* it may have been resumed by somebody else, and wait again */
  t->state = ENDED;
  lsock_pushtask(L, owner, t); /* those who are told may have it forgotten */
  lua_getiuservalue(L, -1, 1);
  if (nres < 0)
    lua_getiuservalue(L, owner, UV_DEAD);
  else if (lua_checkstack(L, n + 8))
    lua_xmove(co, L, n); /* makes room on co, which may have overflowed */
  else {
    lua_pop(co, n);
    lua_pushliteral(L, "too many results");
    status = LUA_ERRRUN;
    n = 1;
  }
  if (t->thrown) {
    lsock_pushpart(L, owner, UV_THROWN);
    lua_pushnil(L);
    lua_rawsetp(L, -2, t);
    lua_pop(L, 1);
    t->thrown = 0;
  }
  status = call_ended(L, owner, status == LUA_OK, n);
  if (status == LUA_ERRMEM) status = call_ended(L, owner, 0, 1); /* those who wait for the task hear of that */
  if (status == LUA_ERRMEM)
    lsock_task_enqueue(L, t);
  else {
    r->tasks--;
    drop(L, owner, t);
  }
  if (status != LUA_OK) lua_error(L);
  lua_settop(L, top);
}

/* May it be resumed? Somebody else may have resumed or closed it: 0, or < 0. */
int lsock_suspended(lua_State *co) {
  lua_Debug ar;
  if (lua_status(co) == LUA_YIELD) return 1;
  if (lua_status(co) != LUA_OK) return -1;
  return lua_getstack(co, 0, &ar) ? 0 : lua_gettop(co) > 0 ? 1 : -1;
}

/* What a task that begins finds on its stack: not the same if a script resumed or closed its coroutine before. */
static int arguments(lua_State *co, int nargs, int there) {
  if (nargs == 0 || (there == 1 && lua_status(co) == LUA_OK && lua_gettop(co) == nargs + 1)) return nargs;
  if (there == 1 && lua_status(co) == LUA_OK) lua_settop(co, 0);
  return 0;
}

static void run_task(lua_State *L, Reactor *r, int owner, Task *t) {
  Task *before = r->running;
  int status, nres = 0, there, nargs;
  if (t->state == ENDED) {
    drop(L, owner, t);
    return;
  }
  there = lsock_suspended(t->co);
  nargs = arguments(t->co, t->nargs, there);
  unwait(t); /* it may wait again by now, resumed by somebody else */
  t->nargs = 0;
  t->state = RUNNING;
  t->share = SHARE;
  t->leaf = t->co;
  if (there == 0) return; /* it belongs to somebody else now */
  if (there < 0) {
    ended(L, r, owner, t, LUA_ERRRUN, -1);
    return;
  }
  r->running = t;
  status = lua_resume(t->co, L, nargs, &nres);
  r->running = before;
  if (status != LUA_YIELD)
    ended(L, r, owner, t, status, nres);
  else {
    lua_pop(t->co, nres);
    if (t->state == RUNNING) { /* a yield of its own: the others' turn */
      t->answer = LSOCK_R_READY;
      lsock_task_enqueue(L, t);
    }
  }
}

/* With a thousand tasks, what the next one needs is not in the processor's cache. */
static void fetch_ahead(const Task *t) {
#if defined(__GNUC__)
  __builtin_prefetch(t->co);
  __builtin_prefetch((const char *)t->co + 64);
  __builtin_prefetch((const char *)t->co + 128);
  __builtin_prefetch(t->op.s);
  __builtin_prefetch((const char *)t->op.s + 64);
  __builtin_prefetch((const char *)&t->op + 64);
  __builtin_prefetch((const char *)&t->op + 128);
  __builtin_prefetch((const char *)&t->op + 192);
#else
  (void)t;
#endif
}

/* Lets those in the queue run that are in it now. */
static void run_queue(lua_State *L, Reactor *r, int owner) {
  int n = r->queued, i;
  int64_t end = lsock_plat_now() + ROUND;
  for (i = 1; i <= n && r->head; i++) {
    Task *t = dequeue(r);
    if (t->next) fetch_ahead(t->next);
    run_task(L, r, owner, t);
    if (i % 32 == 0 && lsock_plat_now() >= end) break;
  }
}

/* An alarm rings: calls its function, in the next round once more where there was no memory for that. */
static void ring(lua_State *L, Reactor *r, int owner, Alarm *a) {
  int status, top = lua_gettop(L);
  lsock_pushpart(L, owner, UV_ALARMS);
  lua_rawgetp(L, -1, a);
  lua_getiuservalue(L, -1, 1);
  status = lua_pcall(L, 0, 0, 0);
  if (status == LUA_ERRMEM && r->timers.n < r->timers.cap)
    lsock_task_timer(r, &a->timer, 0);
  else
    lsock_alarm_forget(L, owner, a);
  if (status != LUA_OK) lua_error(L);
  lua_settop(L, top);
}

void lsock_alarm_forget(lua_State *L, int owner, const Alarm *a) {
  lsock_pushpart(L, owner, UV_ALARMS);
  lua_pushnil(L);
  lua_rawsetp(L, -2, a);
  lua_pop(L, 1);
}

/* Takes its part of a round's time. */
static void expire(lua_State *L, Reactor *r, int owner) {
  int64_t now;
  size_t left = r->timers.n; /* those set meanwhile have their turn in the next round */
  if (left == 0) return;
  now = lsock_plat_now();
  while (left-- > 0 && r->timers.n > 0 && r->timers.heap[0].at <= now) {
    lsock_Timer *timer = r->timers.heap[0].timer;
    lsock_timer_clear(&r->timers, timer);
    if (timer->of == LSOCK_DUE_TASK)
      lsock_task_wake(L, TIMED(Task, timer), LSOCK_R_EXPIRED);
    else
      ring(L, r, owner, TIMED(Alarm, timer));
    if (left % 32 == 0 && lsock_plat_now() - now >= ROUND) return;
  }
}

/* Until the next timer, or there is something to do: ns, < 0 for ever. */
int64_t lsock_reactor_next(const Reactor *r) {
  int64_t left;
  if (r->queued) return 0;
  if (r->timers.n == 0 || r->timers.heap[0].at == INT64_MAX) return -1;
  left = r->timers.heap[0].at - lsock_plat_now();
  return left > 0 ? left : 0;
}

static int fetch(lua_State *L, Reactor *r, int64_t ns) {
  lsock_Event ev[EVENTS];
  int i, n = lsock_plat_poller_wait(r->s->fd, ev, EVENTS, ns);
  for (i = 0; i < n; i++) event(L, r, &ev[i]);
  return n;
}

typedef struct Former {
  Reactor *active;
  int hook;
} Former;

/* Makes the reactor at index 1 the active one; the former one is left on the stack. */
static Former activate(lua_State *L, Reactor *r) {
  lsock_Core *core = r->core;
  Former f;
  f.active = core->active;
  f.hook = core->hook & LSOCK_REACTING;
  lsock_pushactive(L);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, LSOCK_UP_CORE, LSOCK_UV_REACTOR);
  core->active = r;
  core->hook |= LSOCK_REACTING;
  return f;
}

static void deactivate(lua_State *L, lsock_Core *core, Former f) {
  core->active = f.active;
  core->hook = (core->hook & ~LSOCK_REACTING) | f.hook;
  lua_setiuservalue(L, LSOCK_UP_CORE, LSOCK_UV_REACTOR);
}

int lsock_reactor_round(lua_State *L) {
  Reactor *r = lua_touserdata(L, 1);
  expire(L, r, 1);
  run_queue(L, r, 1);
  return 0;
}

/* Timers and tasks of one round; an error in a callback is raised when everything is as before again. */
static void run_round(lua_State *L, Reactor *r) {
  Former former;
  int status;
  lua_pushvalue(L, 3);
  lua_pushvalue(L, 1);
  former = activate(L, r);
  lua_insert(L, -3);
  r->turning = 1;
  status = lua_pcall(L, 1, 0, 0);
  r->turning = 0;
  r->running = NULL; /* as it was: turns do not nest */
  if (status == LUA_OK) {
    deactivate(L, r->core, former);
    return;
  }
  lua_insert(L, -2);
  deactivate(L, r->core, former);
  lua_error(L);
}

static int over(lua_State *L, lsock_Op *op) {
  const Reactor *r = lua_touserdata(L, 1);
  if (op->cls ? op->cls != LSOCK_TIMEOUT : op->err == EBADF) return -1;
  lua_pushboolean(L, r->tasks > 0);
  return 1;
}

static int step_turn(lua_State *L, lsock_Op *op) {
  Reactor *r = lua_touserdata(L, 1);
  int64_t next = lsock_reactor_next(r), left = -1, ns;
  if (r->turning) { /* a task resumed the coroutine that waits for the next round */
    op->cls = LSOCK_ERROR;
    op->err = EBUSY;
    op->msg = "the loop is running: it cannot run within one of its tasks";
    return LSOCK_FAIL;
  }
  if (op->timeout == 0)
    left = 0;
  else if (op->deadline != INT64_MAX) {
    left = op->deadline - lsock_plat_now();
    if (left < 0) left = 0;
  }
  ns = next >= 0 && (left < 0 || next < left) ? next : left;
  if (fetch(L, r, op->coop ? 0 : ns) < 0) return lsock_again(op, LSOCK_READ);
  if (lsock_reactor_next(r) == 0) {
    run_round(L, r);
    return over(L, op);
  }
  if (left == 0 && op->state) return LSOCK_READ; /* the host allows no waiting: EAGAIN */
  if (left == 0) return over(L, op);
  if (!op->coop) return LSOCK_INTR;
  if (next > 0) op->until = lsock_plat_now() + next;
  return LSOCK_READ;
}

/* r:turn([seconds]) -> are there tasks left? One round, after waiting at most that long for something to do */
int lsock_r_turn(lua_State *L) {
  Reactor *r = lsock_checkopen(L);
  lsock_Op op;
  int64_t timeout = lsock_checktimeout(L, 2);
  if (r->turning) return luaL_error(L, "the loop is running: it cannot run within one of its tasks");
  lua_settop(L, 1);
  lua_getiuservalue(L, 1, UV_SOCK);
  lua_getiuservalue(L, 1, UV_ROUND);
  lsock_op_on(L, &op, 2, "turn", step_turn, LSOCK_MODAL);
  op.timeout = timeout;
  op.state = timeout != 0 && (op.core->hook & LSOCK_NEVER);
  op.partial = over;
  return lsock_drive(L, &op);
}

/* ---------------------------------------------------------------- waits of coroutines that are no tasks */

/* Goes on with the tasks until the wait has ended, whose answer is set. Arguments: the reactor, the wait. */
static int nested_rounds(lua_State *L) {
  Reactor *r = lua_touserdata(L, 1);
  Task *t = lua_touserdata(L, 2);
  while (t->state == WAITING) {
    if (r->running->thrown) {
      t->answer = LSOCK_R_THROWN;
      break;
    }
    if (fetch(L, r, lsock_reactor_next(r)) < 0) {
      t->answer = LSOCK_R_OTHER;
      if (errno != EINTR) break;
      lsock_turn(L);
    }
    expire(L, r, 1);
    if (t->state == WAITING) run_queue(L, r, 1);
  }
  return 0;
}

/* The wait is on the C stack, and in nobody's list any more when that is left: errors are caught on the way. */
int lsock_reactor_nested(lua_State *L, lsock_Op *op, int64_t ns) {
  Reactor *r = op->core->active;
  Task t;
  int answer, owner, status;
  if (!r || !r->running || r->nested >= NESTED_MAX || (op->core->hook & LSOCK_NEVER)) return LSOCK_R_OTHER;
  if (op->progress) { /* it may have nothing to wait for */
    op->progress = 0;
    return LSOCK_R_READY;
  }
  luaL_checkstack(L, 20, "task");
  lsock_pushactive(L);
  owner = lua_gettop(L);
  lua_pushvalue(L, LSOCK_UP_CORE);
  lua_pushcclosure(L, nested_rounds, 1);
  lua_pushvalue(L, owner);
  lua_pushlightuserdata(L, &t);
  lsock_task_reserve(L, r, op->w ? op->wfd : LSOCK_NOFD, ns);
  memset(&t, 0, offsetof(Task, op));
  t.r = r;
  t.fd = LSOCK_NOFD;
  answer = begin(L, &t, op, ns);
  if (answer == LSOCK_R_YIELD) {
    r->nested++;
    status = lua_pcall(L, 2, 0, 0);
    r->nested--;
    unwait(&t);
    if (status != LUA_OK) lua_error(L);
    answer = t.answer;
  }
  lua_settop(L, owner - 1);
  return answer == LSOCK_R_THROWN ? lsock_task_thrown(L, r->running) : answer;
}
