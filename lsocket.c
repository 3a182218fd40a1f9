/*
** lsocket.c: socket objects, from creation to closing, and luaopen_socket.
*/
#include "lsocket_int.h"

#include <limits.h>
#include <string.h>

/* Of the inline functions of lsocket_int.h, for callers where inlining does not pay (C11 6.7.4). */
extern inline _Noreturn void lsock_tampered(lua_State *L);
extern inline lsock_Core *lsock_core(lua_State *L);
extern inline void *lsock_object(lua_State *L, int idx, lsock_Kind kind, size_t size);
extern inline void lsock_pushtable(lua_State *L, int uv);
extern inline lsock_Sock *lsock_checksock(lua_State *L, int arg, const lsock_Core *core);
extern inline void lsock_op_init(lsock_Op *op, lsock_Core *core, const char *name, lsock_Step step, int dir);
extern inline void lsock_op_on(lua_State *L, lsock_Op *op, int self, const char *name, lsock_Step step, int dir);
extern inline void lsock_op(lua_State *L, lsock_Op *op, const char *name, lsock_Step step, int dir);
extern inline void lsock_op_free(lua_State *L, lsock_Op *op, const char *name, lsock_Step step);
#if defined(LSOCK_CHECKED)
extern inline int lsock_attempt(lua_State *L, lsock_Op *op);
#endif
extern inline int lsock_run(lua_State *L, lsock_Op *op);
extern inline int lsock_istcp(const lsock_Sock *s);
extern inline void lsock_note(lsock_Sock *s, ssize_t got, size_t asked);
extern inline ssize_t lsock_receive(lua_State *L, lsock_Op *op, char *buf, size_t n, int flags);
extern inline ssize_t lsock_transmit(lua_State *L, lsock_Op *op, const char *data, size_t n, int flags);
extern inline lsock_Core *lsock_tocore(lua_State *L, int idx);
extern inline int lsock_may(const lsock_Core *core, const char *what, const lsock_Addr *a, int family, int type,
                            int proto);
extern inline int lsock_step_policy(lua_State *L, lsock_Op *op, const char *what);

/* ---------------------------------------------------------------- objects */

lsock_Sock *lsock_newsockuv(lua_State *L, lsock_Core *core, size_t size, int uservalues) {
  lsock_Sock *s = lua_newuserdatauv(L, size, uservalues);
  memset(s, 0, size);
  s->fd = LSOCK_NOFD;
  s->timeout = core->default_timeout;
  s->seal = LSOCK_SEAL(core, s, LSOCK_KIND_SOCK);
  lsock_pushtable(L, LSOCK_UV_SOCKET);
  lua_setmetatable(L, -2);
  return s;
}

lsock_Sock *lsock_newsock(lua_State *L, lsock_Core *core) {
  return lsock_newsockuv(L, core, sizeof(lsock_Sock), 0);
}

/* The set is bits, one a descriptor. Without memory for a higher one that is not in it. */
static int in_set(lua_State *L, lsock_Core *core, lsock_fd fd) {
  size_t byte = (size_t)fd / 8, size = core->held_size ? core->held_size : 128;
  void *ud;
  lua_Alloc f;
  unsigned char *held;
  if (fd < 0) return 0;
  if (byte < core->held_size) return 1;
  while (size <= byte) size *= 2;
  f = lua_getallocf(L, &ud);
  held = f(ud, core->held, core->held_size, size);
  if (!held) return 0;
  memset(held + core->held_size, 0, size - core->held_size);
  core->held = held;
  core->held_size = size;
  return 1;
}

void lsock_hold(lua_State *L, lsock_fd fd) {
  lsock_Core *core = lsock_core(L);
  if (in_set(L, core, fd)) core->held[fd / 8] |= (unsigned char)(1u << (unsigned)fd % 8);
}

void lsock_release(lsock_Core *core, lsock_fd fd) {
  if (fd >= 0 && (size_t)fd / 8 < core->held_size) core->held[fd / 8] &= (unsigned char)~(1 << fd % 8);
}

void lsock_closeheld(lua_State *L, lsock_Core *core) {
  size_t fd;
  void *ud;
  lua_Alloc f = lua_getallocf(L, &ud);
  for (fd = 0; fd < core->held_size * 8; fd++)
    if (core->held[fd / 8] & 1 << fd % 8) lsock_plat_close((lsock_fd)fd);
  if (core->held) f(ud, core->held, core->held_size, 0);
  core->held = NULL;
  core->held_size = 0;
}

void lsock_open(lua_State *L, lsock_Sock *s, lsock_fd fd, int family, int type, int proto) {
  s->fd = fd;
  lsock_hold(L, fd);
  s->family = family;
  s->type = type;
  s->proto = proto;
  if (s->timeout == 0) lsock_mode(s, 1);
}

lsock_Sock *lsock_tosock(lua_State *L, int arg, const lsock_Core *core) {
  lsock_Sock *s = lua_touserdata(L, arg);
  return s && lua_rawlen(L, arg) >= sizeof *s && s->seal == LSOCK_SEAL(core, s, LSOCK_KIND_SOCK) ? s : NULL;
}

void lsock_nosock(lua_State *L, int arg) {
  for (;;) luaL_typeerror(L, arg, "socket"); /* which does not return, but does not say so to the compiler */
}

int lsock_reclaim(lua_State *L) {
  if (errno != EMFILE && errno != ENFILE) return 0;
  lua_gc(L, LUA_GCCOLLECT);
  return 1;
}

/* Takes the descriptor from the object, whose waiting coroutine the wake function is told of. */
static lsock_fd take(lua_State *L, lsock_Sock *s, int stays_open) {
  lsock_fd fd = s->fd;
  if (s->watch) lsock_reactor_leave(L, s, stays_open || s->shared);
  if (s->counted) lsock_core(L)->sockets--;
  s->counted = 0;
  lsock_release(lsock_core(L), fd);
  s->fd = LSOCK_NOFD;
  s->nonblocking = 0;
  s->kernel[LSOCK_RD] = s->kernel[LSOCK_WR] = 0;
  return fd;
}

int lsock_wake(lua_State *L, int arg, const lsock_Sock *s) {
  if (s->watch) lsock_reactor_wake(L, s);
  if (!s->waiting) return LUA_OK;
  arg = lua_absindex(L, arg);
  lsock_pushcore(L, LSOCK_UV_WAKE);
  if (lua_isfunction(L, -1)) {
    lua_pushvalue(L, arg);
    return lua_pcall(L, 1, 0, 0);
  }
  lua_pop(L, 1);
  return LUA_OK;
}

int lsock_closesock(lua_State *L, int arg, lsock_Sock *s) {
  lsock_fd fd;
  int woken, err = 0;
  if (s->fd == LSOCK_NOFD) return 0;
  if (s->tr) s->tr->closing(s, 1);
  fd = take(L, s, 0);
  woken = lsock_wake(L, arg, s); /* the descriptor is still open: a scheduler can take it out of its poller */
  if (lsock_plat_close(fd) < 0) err = errno;
  if (woken != LUA_OK) lua_error(L);
  return err;
}

void lsock_takefd(lua_State *L, int arg, lsock_Sock *s, lsock_fd *fd) {
  int64_t timeout = s->timeout;
  int counted = s->counted;
  lsock_settimeout(s, timeout == 0 ? 0 : -1); /* as a plain descriptor is expected to be */
  *fd = take(L, s, 1);
  if (lsock_wake(L, arg, s) != LUA_OK) { /* nobody would learn the descriptor */
    s->fd = *fd;
    lsock_hold(L, s->fd);
    *fd = LSOCK_NOFD;
    if (counted) lsock_count(lsock_core(L), s);
    lsock_settimeout(s, timeout);
    lua_error(L);
  }
  if (s->tr) s->tr->closing(s, 0);
}

void lsock_guard(lua_State *L, int idx) {
  lua_pushvalue(L, idx);
  lua_toclose(L, -1);
}

static int type_flags(int type) {
#if defined(SOCK_NONBLOCK)
  return type & (SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  (void)type;
  return 0;
#endif
}

static int is_nonblocking(int type) {
#if defined(SOCK_NONBLOCK)
  return (type & SOCK_NONBLOCK) != 0;
#else
  (void)type;
  return 0;
#endif
}

static int opt_int(lua_State *L, int arg, int def) {
  lua_Integer v = luaL_optinteger(L, arg, def);
  luaL_argcheck(L, v >= INT_MIN && v <= INT_MAX, arg, "does not fit a C int");
  return (int)v;
}

/* Of numbers that are none, the system says so. */
static lsock_fd check_fd(lua_State *L, int arg) {
  lua_Integer v = luaL_checkinteger(L, arg);
  return v >= 0 && v <= INT_MAX ? (lsock_fd)v : LSOCK_NOFD;
}

static int failed(lua_State *L, const char *op) {
  return lsock_failno(L, errno, op);
}

/* ---------------------------------------------------------------- creation */

static int ask(lsock_fd fd, int name, int *value) {
  socklen_t len = sizeof *value;
  return getsockopt(fd, SOL_SOCKET, name, value, &len);
}

int lsock_describe(lsock_fd fd, int *family, int *type, int *proto) {
  lsock_Addr a;
  int t;
  if (ask(fd, SO_TYPE, &t) < 0) return -1;
  if (*type < 0) *type = t;
  if (*family < 0) {
    a.len = sizeof a.u;
    a.u.sa.sa_family = AF_UNSPEC;
    if (getsockname(fd, &a.u.sa, &a.len) < 0) return -1;
    *family = a.u.sa.sa_family;
  }
#if defined(SO_PROTOCOL)
  if (*proto < 0 && ask(fd, SO_PROTOCOL, proto) < 0) *proto = 0;
#endif
  if (*proto < 0) *proto = 0;
  return 0;
}

/*
** socket.socket([family [, type [, proto [, fileno]]]]) -> socket; by default AF_INET, SOCK_STREAM, 0. With fileno the
** descriptor is taken over, and what is not given is asked of it (socket(2))
*/
static int mod_socket(lua_State *L) {
  lsock_Core *core = lsock_core(L);
  int family = opt_int(L, 1, -1), type = opt_int(L, 2, -1), proto = opt_int(L, 3, -1);
  int given = !lua_isnoneornil(L, 4);
  lsock_fd fd = given ? check_fd(L, 4) : LSOCK_NOFD;
  lsock_Sock *s = lsock_newsock(L, core);
  int r;
  if (type >= 0) {
    if (is_nonblocking(type)) s->timeout = 0;
    type &= ~type_flags(type);
  }
  if (given) {
    if (core->policy) family = type = proto = -1; /* what it is, not what the script says */
    if (lsock_describe(fd, &family, &type, &proto) < 0) return failed(L, "socket");
    if ((r = lsock_admit_fd(L, "socket", "fromfd", fd)) != 0) return r;
    s->shared = 1; /* whoever opened it may have kept a copy */
  } else {
    if (family < 0) family = AF_INET;
    if (type < 0) type = SOCK_STREAM;
    if (proto < 0) proto = 0;
    if ((r = lsock_admit(L, "socket", "socket", family, type, proto, 1)) != 0) return r;
    fd = lsock_plat_socket(family, type, proto);
    if (fd == LSOCK_NOFD && lsock_reclaim(L)) fd = lsock_plat_socket(family, type, proto);
    if (fd == LSOCK_NOFD) return failed(L, "socket");
  }
  lsock_open(L, s, fd, family, type, proto);
  lsock_count(core, s);
  return 1;
}

/* socket.socketpair([family [, type [, proto]]]) -> two connected sockets; by default AF_UNIX (socketpair(2)) */
static int mod_socketpair(lua_State *L) {
  lsock_Core *core = lsock_core(L);
  int family = opt_int(L, 1, AF_UNIX), type = opt_int(L, 2, SOCK_STREAM), proto = opt_int(L, 3, 0);
  lsock_fd fds[2];
  lsock_Sock *a = lsock_newsock(L, core), *b = lsock_newsock(L, core);
  int r;
  if (is_nonblocking(type)) a->timeout = b->timeout = 0;
  type &= ~type_flags(type);
  if ((r = lsock_admit(L, "socketpair", "socketpair", family, type, proto, 2)) != 0) return r;
  if (lsock_plat_socketpair(family, type, proto, fds) < 0 &&
      (!lsock_reclaim(L) || lsock_plat_socketpair(family, type, proto, fds) < 0))
    return failed(L, "socketpair");
  lsock_open(L, a, fds[0], family, type, proto);
  lsock_open(L, b, fds[1], family, type, proto);
  lsock_count(core, a);
  lsock_count(core, b);
  return 2;
}

static lsock_fd dup_fd(lua_State *L, lsock_fd fd) {
  lsock_fd copy = lsock_plat_dup(fd);
  if (copy == LSOCK_NOFD && lsock_reclaim(L)) copy = lsock_plat_dup(fd);
  return copy;
}

/* socket.fromfd(fd, family, type [, proto]) -> socket on a duplicate of the descriptor, which is not checked */
static int mod_fromfd(lua_State *L) {
  lsock_Core *core = lsock_core(L);
  lsock_fd fd = check_fd(L, 1);
  int family = opt_int(L, 2, -1), type = opt_int(L, 3, -1), proto = opt_int(L, 4, 0);
  int nonblocking = is_nonblocking(type), r;
  lsock_Sock *s;
  luaL_checkinteger(L, 2);
  luaL_checkinteger(L, 3);
  s = lsock_newsock(L, core);
  type &= ~type_flags(type);
  if (core->policy) {
    family = type = proto = -1; /* what it is, not what the script says */
    if (lsock_describe(fd, &family, &type, &proto) < 0) return failed(L, "fromfd");
  }
  if ((r = lsock_admit_fd(L, "fromfd", "fromfd", fd)) != 0) return r;
  fd = dup_fd(L, fd);
  if (fd == LSOCK_NOFD) return failed(L, "fromfd");
  s->shared = 1;
  if (nonblocking) s->timeout = 0;
  lsock_open(L, s, fd, family, type, proto);
  lsock_count(core, s);
  return 1;
}

/* socket.dup(fd) -> a duplicate descriptor, not inherited by child programs (dup(2)) */
static int mod_dup(lua_State *L) {
  lsock_fd fd = check_fd(L, 1);
  int r = lsock_admit_fd(L, "dup", "dup", fd);
  if (r) return r;
  fd = dup_fd(L, fd);
  if (fd == LSOCK_NOFD) return failed(L, "dup");
  lua_pushinteger(L, fd);
  return 1;
}

/* socket.close(fd): closes a plain descriptor, such as detach gives; not for socket objects */
static int mod_close(lua_State *L) {
  lsock_fd fd = check_fd(L, 1);
  int r = lsock_admit_fd(L, "close", "close", fd);
  if (r) return r;
  if (lsock_plat_close(fd) < 0) return failed(L, "close");
  lua_pushboolean(L, 1);
  return 1;
}

/* s:dup() -> another object for the same socket */
static int sock_dup(lua_State *L) {
  lsock_Core *core = lsock_core(L);
  lsock_Sock *s = lsock_checksock(L, 1, core), *n;
  lsock_fd fd;
  int d;
  if (lsock_isclosed(s)) return lsock_failclosed(L, "dup");
  if (s->tr) return lsock_failno(L, EOPNOTSUPP, "dup"); /* the keys of a connection have one owner */
  n = lsock_newsock(L, core);
  if (lsock_full(L, core, 1)) return lsock_failfull(L, "dup");
  fd = dup_fd(L, s->fd);
  if (fd == LSOCK_NOFD) return failed(L, "dup");
  for (d = LSOCK_RD; d <= LSOCK_WR; d++) /* both live on one open socket: no kernel timeouts any more */
    if (s->kernel[d] && lsock_plat_kernel_timeout(s->fd, d, 0) == 0) s->kernel[d] = 0;
  s->shared = n->shared = 1;
  n->timeout = s->timeout;
  n->idle = s->idle;
  n->nonblocking = s->nonblocking;
  lsock_open(L, n, fd, s->family, s->type, s->proto);
  lsock_count(core, n);
  return 1;
}

/* ---------------------------------------------------------------- accept */

/* The socket at op->slot, which a transport may first replace by one of its kind. */
static int give_accepted(lua_State *L, lsock_Op *op) {
  op->state = 1;
  if (op->s->tr) {
    int r = op->s->tr->accepted(L, op, op->slot);
    if (r < 0) return r;
  }
  lua_pushvalue(L, op->slot);
  lsock_pushaddr(L, op->s->proto, &op->addr);
  if (op->s->tr) LSOCK_SPARE((lsock_Sock *)lua_touserdata(L, op->slot));
  return 2;
}

static int step_accept(lua_State *L, lsock_Op *op) {
  lsock_Sock *s = op->s, *n;
  lsock_fd fd;
  if (op->state) return give_accepted(L, op);
  if (op->nowait) lsock_mode(s, 1);
  if (!op->slot) {
    lsock_newsock(L, op->core);
    op->slot = lua_gettop(L);
    lsock_keepstack(L, op);
  }
  n = lua_touserdata(L, op->slot);
  if (lsock_full(L, op->core, 1)) return lsock_stepfull(op);
  op->addr.len = sizeof op->addr.u;
  fd = lsock_plat_accept(s->fd, &op->addr.u.sa, &op->addr.len);
  if (fd == LSOCK_NOFD && lsock_reclaim(L)) fd = lsock_plat_accept(s->fd, &op->addr.u.sa, &op->addr.len);
  if (fd == LSOCK_NOFD) return lsock_again(op, LSOCK_READ);
#if defined(LSOCK_ACCEPT_INHERITS)
  n->nonblocking = s->nonblocking;
#endif
  lsock_open(L, n, fd, s->family, s->type, s->proto);
  lsock_count(op->core, n);
  return give_accepted(L, op);
}

/* s:accept() -> socket, address of its peer (accept(2)) */
static int sock_accept(lua_State *L) {
  lsock_Op op;
  lsock_op(L, &op, "accept", step_accept, LSOCK_MODAL);
  return lsock_run(L, &op);
}

/* ---------------------------------------------------------------- closing */

/* Closes the socket at index 1, its descriptor only if no file needs it. 0 or an errno. */
static int close_or_mark(lua_State *L, lsock_Sock *s) {
  if (s->files == 0 || s->internal) return lsock_closesock(L, 1, s);
  if (!s->closing) {
    s->closing = 1;
    if (lsock_wake(L, 1, s) != LUA_OK) return lua_error(L);
  }
  return 0;
}

/* s:close() -> true; again and again if you like. The descriptor stays open as long as files of makefile's are */
static int sock_close(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int err = close_or_mark(L, s);
  if (err) return lsock_failno(L, err, "close");
  lua_pushboolean(L, 1);
  return 1;
}

/* s:detach() -> descriptor, now the caller's; the object is closed without closing it */
static int sock_detach(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  lsock_fd fd;
  int r;
  if (lsock_isclosed(s)) return lsock_failclosed(L, "detach");
  if ((r = lsock_admit_fd(L, "detach", "detach", s->fd)) != 0) return r;
  lsock_takefd(L, 1, s, &fd);
  lua_pushinteger(L, fd);
  return 1;
}

/* __close: the end of a `local s <close>`, or of a guard */
static int sock_scope(lua_State *L) {
  lsock_Sock *s = lsock_tosock(L, 1, lsock_core(L));
  if (s && s->spared)
    s->spared = 0;
  else if (s)
    close_or_mark(L, s);
  return 0;
}

/* __gc: closes, and says through warn that nobody did */
static int sock_gc(lua_State *L) {
  lsock_Sock *s = lsock_tosock(L, 1, lsock_core(L));
  if (!s) return 0;
  if (s->fd == LSOCK_NOFD && s->counted) take(L, s, 0); /* it was to get a descriptor, and did not */
  if (s->fd != LSOCK_NOFD) {
    int fd = s->fd;
    s->waiting = 0;
    if (s->tr) s->tr->closing(s, 0);
    lsock_plat_close(take(L, s, 0));
    if (!s->internal) {
      if (!lsock_pushname(L, LSOCK_NAMES_AF, s->family)) lua_pushliteral(L, "?");
      if (!lsock_pushname(L, LSOCK_NAMES_SOCK, s->type)) lua_pushliteral(L, "?");
      lua_pushfstring(L, "socket: unclosed socket (fd=%d, family=%s, type=%s) collected", fd, lua_tostring(L, -2),
                      lua_tostring(L, -1));
      lua_warning(L, lua_tostring(L, -1), 0);
    }
  }
  return 0;
}

/* ---------------------------------------------------------------- what an object says of itself */

static void add_name(lua_State *L, const lsock_Sock *s, const char *label,
                     int (*get)(int, struct sockaddr *, socklen_t *)) {
  lsock_Addr a;
  a.len = sizeof a.u;
  memset(&a.u, 0, sizeof a.u);
  if (get(s->fd, &a.u.sa, &a.len) < 0 || a.len == 0) return;
  lsock_pushaddr(L, s->proto, &a);
  lsock_pushaddrtext(L, -1);
  lua_remove(L, -2);
  lua_pushfstring(L, ", %s=%s", label, lua_tostring(L, -1));
  lua_remove(L, -2);
  lua_concat(L, 2);
}

/* A family or type by its name, or as the number it is. */
static void push_named(lua_State *L, int names, int value) {
  if (!lsock_pushname(L, names, value)) lua_pushinteger(L, value);
}

static int sock_tostring(lua_State *L) {
  const lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  if (lsock_isclosed(s)) {
    lua_pushliteral(L, "socket: <closed>");
    return 1;
  }
  lua_pushfstring(L, "socket: <fd=%d, family=", s->fd);
  push_named(L, LSOCK_NAMES_AF, s->family);
  lua_pushliteral(L, ", type=");
  push_named(L, LSOCK_NAMES_SOCK, s->type);
  lua_concat(L, 4);
  add_name(L, s, "laddr", getsockname);
  add_name(L, s, "raddr", getpeername);
  lua_pushliteral(L, ">");
  lua_concat(L, 2);
  return 1;
}

/* Methods first, as they are the many: upvalue 2 is SocketType. Then the fields family, type, proto, timeout. */
static int sock_index(lua_State *L) {
  const lsock_Sock *s;
  const char *k;
  lua_pushvalue(L, 2);
  if (lsock_likely(lua_gettable(L, lua_upvalueindex(2)) != LUA_TNIL)) return 1;
  s = lsock_checksock(L, 1, lsock_core(L));
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  k = lua_tostring(L, 2);
  if (strcmp(k, "family") == 0)
    lua_pushinteger(L, s->family);
  else if (strcmp(k, "type") == 0)
    lua_pushinteger(L, s->type);
  else if (strcmp(k, "proto") == 0)
    lua_pushinteger(L, s->proto);
  else if (strcmp(k, "timeout") == 0)
    lsock_pushtimeout(L, s->timeout);
  else
    return 0;
  return 1;
}

/* For other event loops: s:events() -> "r", "w" or "rw", the directions in which a coroutine waits */
static int sock_events(lua_State *L) {
  static const char *const names[] = {"", "r", "w", "rw"};
  lua_pushstring(L, names[lsock_checksock(L, 1, lsock_core(L))->waiting & 3]);
  return 1;
}

/* s:pending() -> bytes received but not yet given out; a plain socket holds none */
static int sock_pending(lua_State *L) {
  const lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  lua_pushinteger(L, s->tr ? (lua_Integer)s->tr->pending(s) : 0);
  return 1;
}

/* s:dirty() -> is there something to read that a poll of the descriptor would not show? */
static int sock_dirty(lua_State *L) {
  const lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  lua_pushboolean(L, s->tr && s->tr->pending(s) > 0);
  return 1;
}

/* ---------------------------------------------------------------- opening */

void lsock_register(lua_State *L, int core, const lsock_Reg *r) {
  for (; r->name; r++) {
    int fallible = *r->name == '!';
    const char *name = r->name + fallible;
    lua_pushvalue(L, core);
    lua_pushcclosure(L, r->f, 1);
    lua_setfield(L, -2, name);
    if (!fallible) continue;
    lua_pushfstring(L, "try_%s", name);
    lua_pushvalue(L, core);
    lua_pushboolean(L, 1);
    lua_pushcclosure(L, r->f, 2);
    lua_rawset(L, -3);
  }
}

static const lsock_Reg sock_methods[] = {
    {"!accept", sock_accept}, {"!close", sock_close},  {"!detach", sock_detach},  {"dirty", sock_dirty},
    {"!dup", sock_dup},       {"events", sock_events}, {"pending", sock_pending}, {NULL, NULL}};

static const lsock_Reg sock_meta[] = {
    {"__close", sock_scope}, {"__gc", sock_gc}, {"__tostring", sock_tostring}, {NULL, NULL}};

static const lsock_Reg functions[] = {{"!close", mod_close},           {"!dup", mod_dup},
                                      {"!fromfd", mod_fromfd},         {"!socket", mod_socket},
                                      {"!socketpair", mod_socketpair}, {NULL, NULL}};

/* SocketType, the method table, and the metatable of sockets; the module's table is on top. */
LSOCK_ONCE static void open_sockets(lua_State *L, int core) {
  lua_createtable(L, 0, 64);
  lsock_register(L, core, sock_methods);
  lsock_register(L, core, lsock_opt_methods);
  lsock_register(L, core, lsock_io_methods);
  lsock_register(L, core, lsock_connect_methods);
  lsock_register(L, core, lsock_msg_methods);
  lsock_register(L, core, lsock_file_methods);
  lsock_register(L, core, lsock_sendfile_methods);
  lua_createtable(L, 0, 6);
  lua_pushliteral(L, "socket");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, sock_meta);
  lua_pushvalue(L, core);
  lua_pushvalue(L, -3);
  lua_pushcclosure(L, sock_index, 2);
  lua_setfield(L, -2, "__index");
  lua_setiuservalue(L, core, LSOCK_UV_SOCKET);
  lua_setfield(L, -2, "SocketType");
  lsock_register(L, core, functions);
}

/* A module beside this one: from where the host put it, or by its `require`; nil in a host without one. */
static void open_beside(lua_State *L, const char *name) {
  lua_pushcfunction(L, lsock_require);
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
  if (!lua_isnil(L, -1)) return;
  if (lua_getglobal(L, "require") == LUA_TNIL) return;
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
}

static void open_selectors(lua_State *L, const char *name) {
  (void)name;
  lua_pushvalue(L, LSOCK_UP_CORE);
  lsock_open_select(L, lua_gettop(L));
}

static void open_reactor(lua_State *L, const char *name) {
  (void)name;
  lua_pushvalue(L, LSOCK_UP_CORE);
  lsock_open_reactor(L, lua_gettop(L));
}

static void open_errno(lua_State *L, const char *name) {
  (void)name;
  lsock_open_errno(L);
}

/* Parts of the module made when first asked for. */
static const struct {
  const char *key;
  void (*open)(lua_State *, const char *); /* pushes it, last */
  const char *name;
} parts[] = {{"errno", open_errno, NULL},          {"selectors", open_selectors, NULL},
             {"reactor", open_reactor, NULL},      {"ssl", open_beside, "socket.ssl"},
             {"loop", open_beside, "socket.loop"}, {"server", open_beside, "socket.server"}};

static int open_part(lua_State *L, const char *key) {
  size_t i;
  for (i = 0; i < LSOCK_COUNT(parts); i++)
    if (strcmp(key, parts[i].key) == 0) {
      parts[i].open(L, parts[i].name);
      return 1;
    }
  return 0;
}

/*
** The module's __index: constants come into its table when first asked for, since a program uses a dozen of a thousand,
** and filling them all in would take longer than everything else at start-up.
*/
static int module_index(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE); /* getmetatable gives a script this function, to call with anything */
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  if (!lsock_pushconst(L, 2) && !open_part(L, lua_tostring(L, 2))) return 0;
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, 1);
  return 1;
}

static int module_next(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  if (lua_next(L, 1)) return 2;
  lua_pushnil(L);
  return 1;
}

/* __pairs: all of them, then */
static int module_pairs(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lsock_open_const(L);
  lua_getfield(L, 1, "errno");
  lua_pushcfunction(L, module_next);
  lua_pushvalue(L, 1);
  return 2;
}

static const lsock_Reg module_meta[] = {{"__index", module_index}, {"__pairs", module_pairs}, {NULL, NULL}};

/* For libraries that extend this one; Lua loads each where it cannot see the others' names. */
static const lsock_Api lsock_api = LSOCK_API_INIT;

/* Where the registry keeps the module: opening it twice in one state gives the same one. */
static const char registry_key = 'm';

int lsock_submodule(lua_State *L, const char *name) {
  luaopen_socket(L);
  lua_getfield(L, -1, name);
  return 1;
}

/* Upvalues: the module, the name of a part. No luaopen_ function, which would be a way to open a second module. */
static int part_loader(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_gettable(L, lua_upvalueindex(1));
  return 1;
}

/* For require, which would else look for a library to load: in a host it might find another copy of this one. */
static void preload_parts(lua_State *L) {
  static const char *const names[] = {"selectors", "reactor"};
  size_t i;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (i = 0; i < LSOCK_COUNT(names); i++) {
    lua_pushfstring(L, "socket.%s", names[i]);
    lua_pushvalue(L, -3);
    lua_pushstring(L, names[i]);
    lua_pushcclosure(L, part_loader, 2);
    lua_rawset(L, -3);
  }
  lua_pop(L, 1);
}

#if LUA_VERSION_NUM == 504 && LUA_VERSION_RELEASE_NUM < 50404
#error "Lua 5.4.4 or later is needed: before, finalizers may collect garbage, and closing variables may move the stack"
#endif

/* The library may be run by another release of Lua than it was compiled for: "$LuaVersion: Lua 5.4.4 ...". */
#if defined(__ELF__)
#pragma weak lua_ident /* a host may hide it */
#endif
LSOCK_ONCE static void check_release(lua_State *L) {
#if defined(__ELF__)
  const char *release = lua_ident ? strstr(lua_ident, "Lua 5.4.") : NULL;
  if (release && release[8] < '4' && (release[9] < '0' || release[9] > '9'))
    luaL_error(L, "socket needs Lua 5.4.4 or later, and this is Lua 5.4.%c", release[8]);
#endif
  luaL_checkversion(L);
}

LSOCK_ONCE int luaopen_socket(lua_State *L) {
  lsock_Core *c;
  int core;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key) == LUA_TTABLE) return 1;
  check_release(L);
  c = lua_newuserdatauv(L, sizeof *c, LSOCK_UV_COUNT);
  memset(c, 0, sizeof *c);
  c->seal = LSOCK_CORE_SEAL(c);
  c->api = &lsock_api;
  c->secret = lsock_plat_secret();
  c->default_timeout = -1;
  core = lua_gettop(L);
  lua_createtable(L, 0, 128);
  lsock_open_err(L, core);
  lsock_open_wait(L, core);
  lsock_open_addr(L, core);
  lsock_open_inet(L, core);
  lsock_open_resolve(L, core);
  open_sockets(L, core);
  lsock_open_connect(L, core);
  lsock_open_buf(L, core);
  lsock_open_msg(L, core);
  lsock_open_file(L, core);
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "has_ipv6");
  lua_pushliteral(L, LSOCKET_VERSION);
  lua_setfield(L, -2, "_VERSION");
  lua_createtable(L, 0, 3);
  lsock_register(L, core, module_meta);
  lua_setmetatable(L, -2);
  preload_parts(L);
  lua_pushvalue(L, core);
  lua_setfield(L, LUA_REGISTRYINDEX, LSOCK_CAPSULE);
  lsock_open_host(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &registry_key); /* last: memory may be short, and then it is not open */
  return 1;
}
