/*
** lsocket_opt.c: socket options, modes, and what can be asked about a socket.
*/
#include "lsocket_int.h"

#include <string.h>

/* The longest option the kernel is asked for or given. */
#define OPTION_MAX 65536

typedef int (*GetName)(int, struct sockaddr *, socklen_t *);

static int push_name(lua_State *L, const char *op, GetName get) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  lsock_Addr a;
  if (lsock_isclosed(s)) return lsock_failclosed(L, op);
  a.len = sizeof a.u;
  memset(&a.u, 0, sizeof a.u);
  if (get(s->fd, &a.u.sa, &a.len) < 0) return lsock_failno(L, errno, op);
  lsock_pushaddr(L, s->proto, &a);
  return 1;
}

/* s:getsockname() -> address (getsockname(2)) */
static int sock_getsockname(lua_State *L) {
  return push_name(L, "getsockname", getsockname);
}

/* s:getpeername() -> address (getpeername(2)); ENOTCONN without a peer */
static int sock_getpeername(lua_State *L) {
  return push_name(L, "getpeername", getpeername);
}

/* Integer options of AF_VSOCK have 64 bits (linux/vm_sockets.h). */
static int is_wide(const lsock_Sock *s, int level) {
#if defined(AF_VSOCK)
  return s->family == AF_VSOCK && level == AF_VSOCK;
#else
  (void)s, (void)level;
  return 0;
#endif
}

/* In what an option counts its length: classic BPF filters come in instructions (net/core/filter.c). */
static size_t unit_of(int level, int name) {
#if defined(SO_GET_FILTER)
  if (level == SOL_SOCKET && name == SO_GET_FILTER) return 8;
#endif
  (void)level, (void)name;
  return 1;
}

/* s:getsockopt(level, name [, buflen]) -> integer, or a string of at most buflen bytes (getsockopt(2)) */
static int sock_getsockopt(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int level = lsock_checkint(L, 2), name = lsock_checkint(L, 3);
  lua_Integer size = luaL_optinteger(L, 4, 0);
  socklen_t len;
  size_t unit;
  int r;
  luaL_argcheck(L, size >= 0 && size <= OPTION_MAX, 4, "buffer length must be 0-65536");
  if (lsock_isclosed(s)) return lsock_failclosed(L, "getsockopt");
  if ((r = lsock_admit_getoption(L, s, level, name)) != 0) return r;
  unit = unit_of(level, name);
  if (size == 0) {
    int64_t wide = 0;
    int v = 0;
    void *p = is_wide(s, level) ? (void *)&wide : unit > 1 ? NULL : &v; /* how many there are */
    len = is_wide(s, level) ? sizeof wide : unit > 1 ? 0 : sizeof v;
    if (getsockopt(s->fd, level, name, p, &len) < 0) return lsock_failno(L, errno, "getsockopt");
    lua_pushinteger(L, unit > 1 ? (lua_Integer)len : v + wide);
  } else {
    luaL_Buffer b;
    char *p = luaL_buffinitsize(L, &b, (size_t)size);
    len = (socklen_t)((size_t)size / unit);
    memset(p, 0, (size_t)size); /* some options read it, some fill less than they say */
    if (getsockopt(s->fd, level, name, p, &len) < 0) {
      int err = errno;
      luaL_pushresultsize(&b, 0);
      return lsock_failno(L, err, "getsockopt");
    }
    size /= (lua_Integer)unit;
    luaL_pushresultsize(&b, (len < (size_t)size ? len : (size_t)size) * unit); /* some say what they would need */
  }
  return 1;
}

/* The kernel's timeouts are the waiter's; a script that sets them itself has them left alone. */
static void note_option(lsock_Sock *s, int level, int name) {
  if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO)) s->shared = 1;
}

/* s:setsockopt(level, name, integer | boolean | string) or (level, name, nil, optlen) -> s (setsockopt(2)) */
static int sock_setsockopt(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int level = lsock_checkint(L, 2), name = lsock_checkint(L, 3);
  const void *p;
  lua_Integer n;
  size_t len;
  int64_t wide;
  int v, r;
  switch (lua_type(L, 4)) {
    case LUA_TBOOLEAN:
      v = lua_toboolean(L, 4);
      p = &v;
      len = sizeof v;
      break;
    case LUA_TNUMBER:
      if (is_wide(s, level)) {
        wide = luaL_checkinteger(L, 4);
        p = &wide;
        len = sizeof wide;
        break;
      }
      v = lsock_checkint(L, 4);
      p = &v;
      len = sizeof v;
      break;
    case LUA_TNIL:
      p = NULL;
      n = luaL_checkinteger(L, 5);
      luaL_argcheck(L, n >= 0 && n <= OPTION_MAX, 5, "length must be 0-65536");
      len = (size_t)n;
      break;
    default: p = lsock_checkbytes(L, 4, &len);
  }
  luaL_argcheck(L, len <= OPTION_MAX, 4, "longer than 65536 bytes");
  if (lsock_isclosed(s)) return lsock_failclosed(L, "setsockopt");
  if ((r = lsock_admit_option(L, s, level, name, p, len)) != 0) return r;
  /* cppcheck-suppress nullPointer ; AF_ALG takes a length without bytes */
  if (setsockopt(s->fd, level, name, p, (socklen_t)len) < 0) return lsock_failno(L, errno, "setsockopt");
  note_option(s, level, name);
  lua_settop(L, 1);
  return 1;
}

/*
** s:settimeout(seconds | nil [, "total" | "idle"]) -> s. 0 never waits, nil waits for ever, else each operation's bound, or
** that of the time in which it gets no further
*/
static int sock_settimeout(lua_State *L) {
  static const char *const modes[] = {"total", "idle", NULL};
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int64_t ns = lsock_checktimeout(L, 2);
  luaL_checkany(L, 2);
  s->idle = luaL_checkoption(L, 3, modes[0], modes) != 0;
  if (lsock_settimeout(s, ns) < 0) return lsock_failno(L, errno, "settimeout");
  lua_settop(L, 1);
  return 1;
}

/* s:gettimeout() -> seconds or nil */
static int sock_gettimeout(lua_State *L) {
  lsock_pushtimeout(L, lsock_checksock(L, 1, lsock_core(L))->timeout);
  return 1;
}

/* s:setblocking(flag) -> s; as settimeout(nil) or settimeout(0). 0 counts as false, as in Python */
static int sock_setblocking(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int on;
  luaL_checkany(L, 2);
  on = lua_toboolean(L, 2) && !(lua_type(L, 2) == LUA_TNUMBER && lua_tonumber(L, 2) == 0);
  if (lsock_settimeout(s, on ? -1 : 0) < 0) return lsock_failno(L, errno, "setblocking");
  lua_settop(L, 1);
  return 1;
}

/* s:getblocking() -> false if the timeout is 0, else true */
static int sock_getblocking(lua_State *L) {
  lua_pushboolean(L, lsock_checksock(L, 1, lsock_core(L))->timeout != 0);
  return 1;
}

/* s:set_inheritable(flag) -> s: shall child programs have the descriptor? */
static int sock_set_inheritable(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int r;
  luaL_checkany(L, 2);
  if (lsock_isclosed(s)) return lsock_failclosed(L, "set_inheritable");
  if (lua_toboolean(L, 2) && (r = lsock_admit_fd(L, "set_inheritable", "detach", s->fd)) != 0) return r;
  if (lsock_plat_set_inheritable(s->fd, lua_toboolean(L, 2)) < 0) return lsock_failno(L, errno, "set_inheritable");
  lua_settop(L, 1);
  return 1;
}

static int sock_get_inheritable(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int on;
  if (lsock_isclosed(s)) return lsock_failclosed(L, "get_inheritable");
  on = lsock_plat_get_inheritable(s->fd);
  if (on < 0) return lsock_failno(L, errno, "get_inheritable");
  lua_pushboolean(L, on);
  return 1;
}

/* s:fileno() -> the descriptor, -1 when closed */
static int sock_fileno(lua_State *L) {
  lua_pushinteger(L, lsock_checksock(L, 1, lsock_core(L))->fd);
  return 1;
}

static int step_shutdown(lua_State *L, lsock_Op *op) {
  int r = op->s->tr->shutdown(L, op, op->state);
  if (r < 0) return r;
  if (shutdown(op->s->fd, op->state) < 0) {
    op->err = errno;
    return LSOCK_FAIL;
  }
  lua_pushvalue(L, 1);
  return 1;
}

/* s:shutdown(how) -> s; how is SHUT_RD, SHUT_WR or SHUT_RDWR (shutdown(2)) */
static int sock_shutdown(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int how = lsock_checkint(L, 2);
  luaL_argcheck(L, how == SHUT_RD || how == SHUT_WR || how == SHUT_RDWR, 2, "SHUT_RD, SHUT_WR or SHUT_RDWR expected");
  if (lsock_isclosed(s)) return lsock_failclosed(L, "shutdown");
  if (s->tr) {
    lsock_Op op;
    lsock_op(L, &op, "shutdown", step_shutdown, LSOCK_WR);
    op.state = how;
    return lsock_run(L, &op);
  }
  if (shutdown(s->fd, how) < 0) return lsock_failno(L, errno, "shutdown");
  lua_settop(L, 1);
  return 1;
}

const lsock_Reg lsock_opt_methods[] = {{"fileno", sock_fileno},
                                       {"getfd", sock_fileno},
                                       {"!get_inheritable", sock_get_inheritable},
                                       {"getblocking", sock_getblocking},
                                       {"!getpeername", sock_getpeername},
                                       {"!getsockname", sock_getsockname},
                                       {"!getsockopt", sock_getsockopt},
                                       {"gettimeout", sock_gettimeout},
                                       {"!set_inheritable", sock_set_inheritable},
                                       {"!setblocking", sock_setblocking},
                                       {"!setsockopt", sock_setsockopt},
                                       {"!settimeout", sock_settimeout},
                                       {"!shutdown", sock_shutdown},
                                       {NULL, NULL}};
