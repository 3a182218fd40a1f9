/*
** lsocket_wait.c: the driver of every operation that may have to wait, and the only code that waits.
**
** An operation is a step that tries once (lsocket_int.h). The driver repeats it until it is done, failed or out of
** time. Between attempts it waits in poll(2), or, inside a coroutine with a wait hook set, in the hook. Where possible
** the kernel does the waiting within the attempt itself: always when there is no timeout, and with one through
** SO_RCVTIMEO and SO_SNDTIMEO, of which only a part is used so that the end of the timeout is exact.
*/
#include "lsocket_int.h"

#include <math.h>
#include <string.h>

#define FOREVER INT64_MAX
#define NS_PER_MS INT64_C(1000000)

/* A wait shorter than this found its descriptor ready: the next operation may as well try first. */
#define SHORT_WAIT INT64_C(20000)

/* Seconds beyond this are as good as for ever (292 years fit into the clock). */
#define LONGEST_TIMEOUT 3e9

int lsock_again(lsock_Op *op, int want) {
  int err = errno;
  if (err == EAGAIN || err == EWOULDBLOCK) return want;
  if (err == EINTR) return LSOCK_INTR;
  op->err = err;
  return LSOCK_FAIL;
}

/* Idle time begins anew. */
LSOCK_RARE static void moved(lsock_Op *op) {
  op->deadline = lsock_plat_now() + op->timeout;
  op->unsent = 0;
}

/* A sender tries again before it waits: of a Unix stream poll(2) says that there is room only when most of it is free. */
int lsock_further(lsock_Op *op, int want) {
  op->progress = 1;
  if (op->s && op->s->idle && op->timeout > 0) moved(op);
  if (op->coop || (op->timeout > 0 && (want == LSOCK_READ || lsock_plat_now() >= op->deadline))) return want;
  return LSOCK_INTR;
}

LSOCK_RARE void lsock_pushextra(lua_State *L, lsock_Op *op) {
  luaL_checkstack(L, 4, "error");
  if (op->extra)
    lua_pushvalue(L, op->extra);
  else {
    lua_createtable(L, 0, 1);
    op->extra = lua_gettop(L);
  }
}

LSOCK_RARE int lsock_untransported(lsock_Op *op) {
  op->err = EOPNOTSUPP;
  op->msg = "not possible over TLS";
  return LSOCK_FAIL;
}

/* ---------------------------------------------------------------- pending hooks */

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* lua.c and its kin interrupt a script by a hook on every event of the main thread, at once. */
LSOCK_RARE static int interrupt_pending(lua_State *main) {
  return lua_gethook(main) && lua_gethookcount(main) == 1 &&
         lua_gethookmask(main) == (LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT);
}

LSOCK_RARE void lsock_turn(lua_State *L) {
  lua_State *main;
  luaL_checkstack(L, 2, "hooks");
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  main = lua_tothread(L, -1);
  if (main && main != L && !lua_gethook(L) && interrupt_pending(main))
    lua_sethook(L, lua_gethook(main), lua_gethookmask(main), lua_gethookcount(main));
  lua_pop(L, 1);
  lua_pushcfunction(L, nothing); /* calling any function lets hooks run */
  lua_call(L, 0, 0);
}

/* ---------------------------------------------------------------- timeouts */

LSOCK_RARE int64_t lsock_checktimeout(lua_State *L, int arg) {
  lua_Number t;
  int64_t ns;
  if (lua_isnoneornil(L, arg)) return -1;
  t = luaL_checknumber(L, arg);
  luaL_argcheck(L, t >= 0, arg, "timeout must not be negative or NaN");
  if (t > LONGEST_TIMEOUT) return -1;
  ns = (int64_t)round((double)t * LSOCK_NS); /* the nearest, so that gettimeout gives 1.07 back as 1.07 */
  return ns == 0 && t > 0 ? 1 : ns;
}

LSOCK_RARE void lsock_pushtimeout(lua_State *L, int64_t ns) {
  if (ns < 0)
    lua_pushnil(L);
  else
    lua_pushnumber(L, (lua_Number)((double)ns / LSOCK_NS));
}

LSOCK_RARE int lsock_mode(lsock_Sock *s, int nonblocking) {
  if (s->nonblocking == nonblocking && !s->shared) return 0;
  if (lsock_plat_set_nonblocking(s->fd, nonblocking) < 0) return -1;
  s->nonblocking = (unsigned char)nonblocking;
  return 0;
}

LSOCK_RARE int lsock_settimeout(lsock_Sock *s, int64_t ns) {
  int d;
  s->timeout = ns;
  if (s->fd == LSOCK_NOFD) return 0;
  if (ns <= 0 && lsock_mode(s, ns == 0) < 0 && errno == EBADF) return -1; /* others may have no such mode */
  if (ns >= 0) return 0;
  for (d = LSOCK_RD; d <= LSOCK_WR; d++)
    if (s->kernel[d] && lsock_plat_kernel_timeout(s->fd, d, 0) == 0) s->kernel[d] = 0;
  return 0;
}

/* Lets the kernel bound the first attempt; 0 if it cannot. */
LSOCK_RARE static int kernel_bound(lsock_Sock *s, int dir, int64_t ns) {
  int64_t slice; /* ms */
  if (s->shared || (s->family != AF_INET && s->family != AF_INET6 && s->family != AF_UNIX)) return 0;
  if (s->family == AF_UNIX && dir == LSOCK_WR) return 0; /* Linux begins anew with each 36 KiB of a stream */
  slice = lsock_plat_kernel_slice(ns) / NS_PER_MS;
  if (slice == 0) return 0;
  if (slice > UINT32_MAX) slice = UINT32_MAX;                         /* 49 days; the rest is poll's */
  if (s->kernel[dir] > slice || s->kernel[dir] < slice - slice / 8) { /* a little short of it will do */
    if (lsock_plat_kernel_timeout(s->fd, dir, slice * NS_PER_MS) < 0) return 0;
    s->kernel[dir] = (uint32_t)slice;
  }
  lsock_mode(s, 0);
  return 1;
}

/* ---------------------------------------------------------------- waiting */

enum { READY, EXPIRED, BROKEN, STOPPED };

/*
** Is a sender that found no room all that time idle? Not if the peer has taken some of what waits in the system: for
** poll(2) there is room only when a third of megabytes is free, and a TLS record counts only as a whole.
*/
LSOCK_RARE static int still_moves(lsock_Op *op) {
  int unsent;
  if (!op->s || !op->s->idle || op->want != LSOCK_WRITE || op->timeout <= 0) return 0;
  unsent = lsock_plat_unsent(op->fd);
  if (unsent >= op->unsent) return 0;
  moved(op);
  op->unsent = unsent;
  return 1;
}

/* What the next wait may last: ns, < 0 for ever. */
static int64_t remaining(const lsock_Op *op) {
  int64_t end = op->until && op->until < op->deadline ? op->until : op->deadline;
  int64_t left;
  if (end == FOREVER) return -1;
  left = end - lsock_plat_now();
  return left > 0 ? left : 0;
}

/* Was a socket that the operation needs closed by somebody else meanwhile? */
static int canceled(lsock_Op *op) {
  int closed = op->s && (op->s->fd != op->fd || (op->s->closing && !op->file));
  if (!closed && (!op->w || (op->w->fd == op->wfd && op->wfd != LSOCK_NOFD))) return 0;
  op->err = ECANCELED;
  op->msg = "socket was closed while waiting";
  return 1;
}

static int poll_wait(lua_State *L, lsock_Op *op) {
  int64_t start = lsock_plat_now();
  if (op->core->hook & LSOCK_NEVER) {
    op->err = EAGAIN;
    op->msg = "the host lets nothing block";
    return BROKEN;
  }
  op->wfd = op->w ? op->w->fd : LSOCK_NOFD;
  if (canceled(op)) return BROKEN; /* a hook or a finalizer ran within the step */
  for (;;) {
    int r = lsock_plat_poll(op->wfd, op->want == LSOCK_READ ? POLLIN : POLLOUT, remaining(op));
    if (r > 0) break;
    if (r == 0) return EXPIRED;
    if (errno != EINTR) {
      op->err = errno;
      return BROKEN;
    }
    lsock_turn(L);
    if (canceled(op)) return BROKEN;
  }
  if (op->s && op->w == op->s) {
    unsigned char bit = (unsigned char)(1 << op->dir);
    if (lsock_plat_now() - start > SHORT_WAIT)
      op->s->likely_idle |= bit;
    else
      op->s->likely_idle &= (unsigned char)~bit;
  }
  return READY;
}

/* The hook's answer is on top: true ready, false time is up, nil not mine; or the error it raised. */
LSOCK_RARE static int answered(lua_State *L, lsock_Op *op, int status) {
  int nothing_said = lua_isnoneornil(L, -1);
  int ready = lua_toboolean(L, -1);
  int64_t left = ready ? 0 : remaining(op);
  if (left > 0 && left < LSOCK_RETRY) ready = 1; /* clocks differ: it is asked again, for a timeout is never early */
  op->w->waiting &= (unsigned char)~op->mark;
  op->mark = 0;
  if (status != LUA_OK && status != LUA_YIELD) lsock_thrown(L, op);
  lua_pop(L, 1);
  if (canceled(op)) return BROKEN;
  if (nothing_said) return poll_wait(L, op);
  return ready ? READY : EXPIRED;
}

static int drive(lua_State *L, lsock_Op *op, int code);

LSOCK_RARE static int resumed(lua_State *L, int status, lua_KContext ctx) {
  lsock_Op *op = (lsock_Op *)ctx;
  return drive(L, op, answered(L, op, status));
}

/* Moves an operation into a to-be-closed userdata, so that it survives a yield and its end is noticed. */
LSOCK_RARE static lsock_Op *keep(lua_State *L, lsock_Op *op) {
  lsock_Op *k = lua_newuserdatauv(L, sizeof *k, 1);
  *k = *op;
  k->seal = LSOCK_SEAL(op->core, k, LSOCK_KIND_OP);
  k->kept = lua_gettop(L);
  lsock_pushtable(L, LSOCK_UV_OP);
  lua_setmetatable(L, -2);
  lua_toclose(L, -1);
  lsock_keepstack(L, k);
  return k;
}

/*
** The waits that the hook is asked for, by socket and direction: a weak table, as a coroutine with a wait may be garbage
** whose finalizer Lua cannot call. Pushes it; does another operation wait there?
*/
LSOCK_RARE static int taken(lua_State *L, const lsock_Op *op, unsigned char bit) {
  const lsock_Op *other;
  lsock_pushtable(L, LSOCK_UV_WAITS);
  lua_rawgetp(L, -1, (const char *)op->w + bit);
  other = lsock_object(L, -1, LSOCK_KIND_OP, sizeof *other);
  lua_pop(L, 1);
  return other && other != op && (other->mark & bit);
}

/* The operation takes the place; the table is on top. */
LSOCK_RARE static void take(lua_State *L, const lsock_Op *op, unsigned char bit) {
  lua_pushvalue(L, op->kept);
  lua_rawsetp(L, -2, (const char *)op->w + bit);
  lua_pop(L, 1);
}

/* __close and __gc of kept operations: whatever ended the wait, the direction is free again */
LSOCK_RARE static int kept_end(lua_State *L) {
  lsock_Op *op = lsock_object(L, 1, LSOCK_KIND_OP, sizeof *op);
  if (op && op->mark) {
    lua_getiuservalue(L, 1, 1);
    if (lua_touserdata(L, -1) == op->w && !taken(L, op, op->mark & 3)) op->w->waiting &= (unsigned char)~op->mark;
    op->mark = 0;
  }
  return 0;
}

/* The answer of the reactor to what it was asked, before or after a yield. */
static int reactor_answered(lua_State *L, lsock_Op *op, int answer) {
  if (answer != LSOCK_R_THROWN && canceled(op)) return BROKEN;
  switch (answer) {
    case LSOCK_R_READY: return READY;
    case LSOCK_R_EXPIRED: return EXPIRED;
    case LSOCK_R_BUSY:
      op->err = EBUSY;
      op->msg = "another coroutine already waits for this";
      return BROKEN;
    case LSOCK_R_THROWN: lsock_thrown(L, op);
    default: return poll_wait(L, op);
  }
}

static int resumed_elsewhere(lua_State *L, const lsock_Op *kept) {
  lsock_Op op = *kept;
  return drive(L, &op, reactor_answered(L, &op, lsock_reactor_answer(L, op.core)));
}

/* Resumed within another task, the operation leaves the first one's, which may begin a new one meanwhile. */
static int reactor_resumed(lua_State *L, int status, lua_KContext ctx) {
  lsock_Op *op = (lsock_Op *)ctx;
  (void)status;
  if (!lsock_reactor_owns(L, op)) return resumed_elsewhere(L, op);
  return drive(L, op, reactor_answered(L, op, lsock_reactor_answer(L, op->core)));
}

/* Yields to the reactor; the task keeps the operation meanwhile. One that receives has no address yet. */
static int reactor_yield(lua_State *L, lsock_Op *op) {
  lsock_Op *kept;
  if (op->top == 0) lsock_keepstack(L, op); /* what may come on top now stays until the next attempt */
  kept = lsock_reactor_op(L, op->core);
  op->wfd = op->w ? op->w->fd : LSOCK_NOFD;
  if (kept != op) memcpy(kept, op, op->dir == LSOCK_RD && !op->job ? offsetof(lsock_Op, addr) : sizeof *op);
  return lua_yieldk(L, 0, (lua_KContext)kept, reactor_resumed);
}

static int reactor_wait(lua_State *L, lsock_Op *op) {
  int answer;
  op->wfd = op->w ? op->w->fd : LSOCK_NOFD;
  if (canceled(op)) return BROKEN;
  answer = lsock_reactor_wait(L, op, remaining(op));
  if (answer == LSOCK_R_YIELD) return reactor_yield(L, op);
  if (answer == LSOCK_R_OTHER) answer = lsock_reactor_nested(L, op, remaining(op));
  return reactor_answered(L, op, answer);
}

LSOCK_RARE static int hook_wait(lua_State *L, lsock_Op **opp) {
  lsock_Op *op = *opp;
  unsigned char bit = op->want == LSOCK_READ ? 1 : 2;
  if (op->core->active) return reactor_wait(L, op);
  if (!op->w) return poll_wait(L, op); /* begun under a reactor that is gone */
  luaL_checkstack(L, 10, "wait hook");
  if (!op->kept) *opp = op = keep(L, op);
  lua_pushvalue(L, op->wslot);
  lua_setiuservalue(L, op->kept, 1); /* kept_end needs it */
  if (!taken(L, op, bit))
    take(L, op, bit); /* so that there is room in the table */
  else {
    lua_pop(L, 1);
    lua_gc(L, LUA_GCCOLLECT); /* it may be a coroutine that is dead or forgotten */
  }
  lsock_pushcore(L, LSOCK_UV_HOOK);
  lua_pushvalue(L, op->wslot);
  lua_pushstring(L, op->want == LSOCK_READ ? "r" : "w");
  lsock_pushtimeout(L, remaining(op));
  op->wfd = op->w->fd; /* from here on no finalizer comes between */
  if (canceled(op)) return BROKEN;
  if (!(op->core->hook & LSOCK_HOOKED)) return poll_wait(L, op); /* taken away meanwhile */
  if (taken(L, op, bit)) {
    op->err = EBUSY;
    op->msg = "another coroutine already waits for this";
    return BROKEN;
  }
  take(L, op, bit);
  op->mark = op->beside ? bit | bit << LSOCK_BESIDE : bit;
  op->w->waiting |= (unsigned char)op->mark;
  return answered(L, op, lua_pcallk(L, 3, 1, 0, (lua_KContext)op, resumed));
}

/* ---------------------------------------------------------------- the driver */

LSOCK_RARE static int fail(lua_State *L, lsock_Op *op) {
  lsock_Fail f;
  f.cls = op->cls;
  f.err = op->err;
  f.op = op->name;
  f.msg = op->msg;
  f.address = op->address;
  f.extra = op->extra;
  return lsock_fail(L, &f);
}

LSOCK_RARE static int failed(lua_State *L, lsock_Op *op, int cls, int err, const char *msg) {
  op->cls = cls;
  op->err = err;
  op->msg = msg;
  if (op->partial) {
    int n = op->partial(L, op);
    if (n >= 0) return n;
  }
  return fail(L, op);
}

LSOCK_RARE _Noreturn void lsock_thrown(lua_State *L, lsock_Op *op) {
  int error = lua_gettop(L);
  op->cls = 0;
  op->err = ECANCELED;
  luaL_checkstack(L, 8, "error");
  if (op->partial) op->partial(L, op);
  if (op->extra) lsock_adderror(L, error, op->extra);
  lua_settop(L, error);
  for (;;) lua_error(L);
}

/* The stack as an operation that waits keeps it: what an attempt left behind goes. */
static void level(lua_State *L, lsock_Op *op) {
  if (op->top == 0)
    lsock_keepstack(L, op);
  else
    lua_settop(L, op->top);
}

/* Deals with an attempt that was not the end: waits, or fails. READY or EXPIRED: go on; else *results is set. */
static int between(lua_State *L, lsock_Op **opp, int r, int *results) {
  lsock_Op *op = *opp;
  op->nowait |= op->timeout >= 0; /* the kernel's part of a timeout is used but once */
  if (r == LSOCK_FAIL)
    *results = failed(L, op, op->cls, op->err, op->msg);
  else if (r == LSOCK_INTR) {
    level(L, op);
    op->wfd = op->w ? op->w->fd : LSOCK_NOFD;
    lsock_turn(L);
    return canceled(op) ? BROKEN : READY;
  } else if (op->timeout == 0)
    *results = failed(L, op, op->cls ? op->cls : LSOCK_ERROR, EAGAIN, op->msg);
  else {
    level(L, op);
    op->want = r;
    if (op->s && op->s->idle && r == LSOCK_WRITE && op->unsent == 0) op->unsent = lsock_plat_unsent(op->fd);
    if (op->deadline != FOREVER && lsock_plat_now() >= op->deadline)
      return EXPIRED; /* even where each attempt gets a little further, or the hook knows no time */
    return op->coop ? hook_wait(L, opp) : poll_wait(L, op);
  }
  return STOPPED;
}

/* Attempts and waits in turn, beginning after a wait that ended with `code`. */
static int drive(lua_State *L, lsock_Op *op, int code) {
  int results = 0;
  while (code != STOPPED) {
    int r;
    if (code == BROKEN) return failed(L, op, 0, op->err, op->msg);
    if (code == EXPIRED && (!op->until || op->until >= op->deadline) && !still_moves(op))
      return failed(L, op, LSOCK_TIMEOUT, ETIMEDOUT, "timed out");
    op->until = 0;
    if (op->top) lua_settop(L, op->top); /* a coroutine may be resumed with any values */
    r = lsock_attempt(L, op);
    if (r >= 0) return r;
    code = between(L, &op, r, &results);
  }
  return results;
}

int lsock_go_on(lua_State *L, lsock_Op *op, int outcome) {
  int results = 0;
  int code = between(L, &op, outcome, &results);
  return code == STOPPED ? results : drive(L, op, code);
}

/* The operation of a task: now and then others have their turn first, and what is known to be idle is waited for first. */
static int join_in(lua_State *L, lsock_Op *op) {
  lsock_Sock *s = op->s;
  if (lsock_reactor_turn(L, op->core)) return reactor_yield(L, op);
  if (!s || !(s->likely_idle & LSOCK_DRAINED) || op->dir != LSOCK_RD || op->job || op->file || s->tr || op->flags)
    return STOPPED;
  op->want = LSOCK_READ;
  return reactor_wait(L, op);
}

/* Everything but a plain blocking operation; says how drive begins. */
static int prepare(lua_State *L, lsock_Op *op) {
  lsock_Sock *s = op->s;
  int code;
  op->coop = (op->core->hook & (LSOCK_HOOKED | LSOCK_REACTING)) && op->timeout != 0 && lua_isyieldable(L);
  if ((op->core->hook & LSOCK_NEVER) && !op->coop) op->timeout = 0;
  op->deadline = op->timeout > 0 ? lsock_plat_now() + op->timeout : FOREVER;
  op->nowait = op->coop || op->timeout >= 0;
  if (op->coop && op->core->active && (code = join_in(L, op)) != STOPPED) return code;
  if (!s) return READY;
  if (op->timeout < 0 && !op->coop)
    lsock_mode(s, 0);
  else if (op->timeout > 0 && !op->coop && !s->tr) { /* a transport may have what poll(2) does not know of */
    if (!op->job && op->dir != LSOCK_MODAL && kernel_bound(s, op->dir, op->timeout))
      op->nowait = 0;
    else if (!op->file && (s->likely_idle & (1 << op->dir))) { /* a file may have what it needs */
      op->want = op->dir == LSOCK_WR ? LSOCK_WRITE : LSOCK_READ;
      return poll_wait(L, op);
    }
  }
  return READY;
}

void lsock_op_socket(lua_State *L, lsock_Op *op, int self) {
  op->s = op->w = lua_touserdata(L, self);
  op->self = op->wslot = self;
  op->fd = op->s->fd;
  op->dir = LSOCK_WR;
  op->nowait = op->coop || op->timeout >= 0;
  if (op->timeout > 0 && !op->coop && kernel_bound(op->s, op->dir, remaining(op))) op->nowait = 0;
}

int lsock_drive(lua_State *L, lsock_Op *op) {
  op->top = 0;
  if (op->s && (op->s->fd == LSOCK_NOFD || (op->s->closing && !op->file)))
    return failed(L, op, LSOCK_ERROR, EBADF, "socket is closed");
  return drive(L, op, prepare(L, op));
}

/* ---------------------------------------------------------------- functions */

LSOCK_RARE int lsock_pause(lua_State *L, lsock_Op *op, int64_t ns) {
  int64_t now = lsock_plat_now();
  op->until = ns < FOREVER - now ? now + ns : FOREVER;
  if (!op->coop || op->core->active) {
    op->w = NULL;
    return LSOCK_READ;
  }
  if (!op->w || op->w == op->s) { /* the wait hook needs something to wait for: a socket that never becomes ready */
    lsock_Sock *s = lsock_newsock(L, op->core);
    lsock_fd fd;
    if (lsock_full(L, op->core, 1)) return lsock_stepfull(op);
    fd = lsock_plat_socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd == LSOCK_NOFD) return lsock_again(op, LSOCK_READ);
    lsock_open(L, s, fd, AF_UNIX, SOCK_DGRAM, 0);
    lsock_count(op->core, s);
    s->internal = 1;
    op->w = s;
    op->wslot = lua_gettop(L);
    lua_toclose(L, op->wslot);
    lsock_keepstack(L, op);
  }
  return LSOCK_READ;
}

LSOCK_RARE static int step_sleep(lua_State *L, lsock_Op *op) {
  int64_t left = op->end - lsock_plat_now();
  return left <= 0 ? 0 : lsock_pause(L, op, left);
}

/* socket.sleep(seconds): inside a coroutine with a wait hook, others run meanwhile */
LSOCK_RARE static int mod_sleep(lua_State *L) {
  lsock_Op op;
  int64_t ns;
  luaL_checknumber(L, 1);
  ns = lsock_checktimeout(L, 1);
  lsock_op_free(L, &op, "sleep", step_sleep);
  op.timeout = -1;
  op.end = ns < 0 ? FOREVER : lsock_plat_now() + ns;
  return lsock_run(L, &op);
}

/* socket.monotonic(): seconds of a clock that only goes forward */
LSOCK_RARE static int mod_monotonic(lua_State *L) {
  lua_pushnumber(L, (lua_Number)((double)lsock_plat_now() / LSOCK_NS));
  return 1;
}

LSOCK_RARE static int mod_getdefaulttimeout(lua_State *L) {
  lsock_pushtimeout(L, lsock_core(L)->default_timeout);
  return 1;
}

/* socket.setdefaulttimeout(seconds | nil): for sockets made later, and for name functions */
LSOCK_RARE static int mod_setdefaulttimeout(lua_State *L) {
  luaL_checkany(L, 1);
  lsock_core(L)->default_timeout = lsock_checktimeout(L, 1);
  return 0;
}

/* socket.setwaithook(fn | nil [, wake]): returns the former hook and wake function */
LSOCK_RARE static int mod_setwaithook(lua_State *L) {
  luaL_checkany(L, 1);
  if (!lua_isnil(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lsock_pushcore(L, LSOCK_UV_HOOK);
  lsock_pushcore(L, LSOCK_UV_WAKE);
  lsock_core(L)->hook = (lsock_core(L)->hook & ~LSOCK_HOOKED) | (lua_isnil(L, 1) ? 0 : LSOCK_HOOKED);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, LSOCK_UP_CORE, LSOCK_UV_HOOK);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, LSOCK_UP_CORE, LSOCK_UV_WAKE);
  return 2;
}

static const lsock_Reg wait_functions[] = {{"getdefaulttimeout", mod_getdefaulttimeout},
                                           {"monotonic", mod_monotonic},
                                           {"setdefaulttimeout", mod_setdefaulttimeout},
                                           {"setwaithook", mod_setwaithook},
                                           {"sleep", mod_sleep},
                                           {NULL, NULL}};

LSOCK_RARE void lsock_newweak(lua_State *L, int core, int uv) {
  lua_createtable(L, 0, 0);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_setiuservalue(L, core, uv);
}

static const lsock_Reg op_meta[] = {{"__close", kept_end}, {"__gc", kept_end}, {NULL, NULL}};

LSOCK_RARE void lsock_open_wait(lua_State *L, int core) {
  lsock_register(L, core, wait_functions);
  lua_createtable(L, 0, 3);
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, op_meta);
  lua_setiuservalue(L, core, LSOCK_UV_OP);
  lsock_newweak(L, core, LSOCK_UV_WAITS);
}
