/*
** lsocket_host.c: the C functions of lsocket.h for host programs, and the limits a host sets.
**
** The library's own functions find the core in their first upvalue. Those here are called by anybody, so they find it in
** the registry, and what needs the upvalue they do in a function that they call with it.
*/
#include "lsocket_int.h"

#include <string.h>

/* The least `receive` of lsock_Limits: below it nothing works. */
#define RECEIVE_LEAST 512

int lsock_version(void) {
  return LSOCKET_VERSION_NUM;
}

/* Pushes the core; an error where the module is not open, or somebody put another thing in its place. */
static lsock_Core *push_core(lua_State *L) {
  lsock_Core *c;
  luaL_checkstack(L, 6, "socket");
  if (lua_getfield(L, LUA_REGISTRYINDEX, LSOCK_CAPSULE) == LUA_TNIL)
    luaL_error(L, "the module socket is not open in this state");
  c = lsock_tocore(L, -1);
  if (!c) lsock_tampered(L);
  return c;
}

/* Calls f with the core as its first upvalue and a light userdata as its argument. */
static void within(lua_State *L, lua_CFunction f, void *arg, int results) {
  push_core(L);
  lua_pushcclosure(L, f, 1);
  lua_pushlightuserdata(L, arg);
  lua_call(L, 1, results);
}

/* ---------------------------------------------------------------- sockets */

typedef struct Push {
  lsock_fd fd;
  int family, type, proto, err;
  int64_t timeout;
} Push;

static int do_push(lua_State *L) {
  Push *p = lua_touserdata(L, 1);
  lsock_Sock *s = lsock_newsock(L, lsock_core(L));
  if (lsock_describe(p->fd, &p->family, &p->type, &p->proto) < 0) {
    p->err = errno;
    return 0;
  }
  s->shared = 1; /* the host may keep a copy */
  s->timeout = -1;
  lsock_open(L, s, p->fd, p->family, p->type, p->proto);
  lsock_settimeout(s, p->timeout);
  return 1;
}

int lsock_push(lua_State *L, lsock_Descriptor fd, int family, int type, int proto, double timeout) {
  Push p;
  p.fd = fd;
  p.family = family;
  p.type = type;
  p.proto = proto;
  p.err = 0;
  p.timeout = timeout >= 0 && timeout < 3e9 ? (int64_t)(timeout * LSOCK_NS + 0.5) : -1;
  within(L, do_push, &p, 1);
  if (p.err) lua_pop(L, 1);
  return p.err;
}

lsock_Sock *lsock_test(lua_State *L, int arg) {
  lsock_Sock *s;
  arg = lua_absindex(L, arg);
  s = lsock_tosock(L, arg, push_core(L));
  lua_pop(L, 1);
  return s;
}

lsock_Sock *lsock_check(lua_State *L, int arg) {
  lsock_Sock *s = lsock_test(L, arg);
  if (!s) lsock_nosock(L, arg);
  return s;
}

lsock_Descriptor lsock_fileno(const lsock_Sock *s) {
  return lsock_isclosed(s) ? LSOCK_NOFD : s->fd;
}

static int do_detach(lua_State *L) {
  lsock_fd *fd = lua_touserdata(L, 2);
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  if (!lsock_isclosed(s)) lsock_takefd(L, 1, s, fd);
  return 0;
}

lsock_Descriptor lsock_detach(lua_State *L, int arg) {
  lsock_fd fd = LSOCK_NOFD;
  arg = lua_absindex(L, arg);
  push_core(L);
  lua_pushcclosure(L, do_detach, 1);
  lua_pushvalue(L, arg);
  lua_pushlightuserdata(L, &fd);
  lua_call(L, 2, 0);
  return fd;
}

/* ---------------------------------------------------------------- errors */

typedef struct Errno {
  lsock_Fail f;
  const struct sockaddr *sa;
  socklen_t len;
} Errno;

static int do_pusherrno(lua_State *L) {
  Errno *e = lua_touserdata(L, 1);
  if (e->sa && e->len > 0) {
    lsock_Addr a;
    memset(&a.u, 0, sizeof a.u);
    a.len = e->len < sizeof a.u ? e->len : (socklen_t)sizeof a.u;
    memcpy(&a.u, e->sa, a.len);
    lsock_pushaddr(L, 0, &a);
    e->f.address = lua_gettop(L);
  }
  lsock_pusherror(L, &e->f);
  return 1;
}

void lsock_pusherrno(lua_State *L, int err, const char *op, const struct sockaddr *sa, socklen_t len) {
  Errno e = {0};
  e.f.err = err;
  e.f.op = op;
  e.sa = sa;
  e.len = len;
  within(L, do_pusherrno, &e, 1);
}

int lsock_raise(lua_State *L, int err, const char *op) {
  lsock_pusherrno(L, err, op, NULL, 0);
  return lua_error(L);
}

/* ---------------------------------------------------------------- other modules */

LSOCK_ONCE void lsock_open_host(lua_State *L) {
  static const lsock_Functions functions = {
      LSOCKET_FUNCTIONS_VERSION, LSOCKET_VERSION_NUM, lsock_push, lsock_check, lsock_test, lsock_fileno, lsock_detach,
      lsock_pusherrno,           lsock_raise};
  lua_pushlightuserdata(L, (void *)(uintptr_t)&functions);
  lua_setfield(L, LUA_REGISTRYINDEX, LSOCKET_FUNCTIONS_KEY);
}

/* ---------------------------------------------------------------- modules */

/* In the registry's table of loaded modules and of those to load, which Lua's own libraries use too. */
void lsock_preload(lua_State *L, const char *name, lua_CFunction open) {
  luaL_checkstack(L, 4, "preload");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

int lsock_require(lua_State *L) {
  lua_settop(L, 1);
  luaL_checkstring(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, 2) != LUA_TNIL) return 1;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, -2) == LUA_TNIL) return 1;
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, -2);
  lua_rawset(L, 2);
  return 1;
}

/* ---------------------------------------------------------------- policy and limits */

void lsock_setpolicy(lua_State *L, lsock_Policy policy, void *ud) {
  lsock_Core *c = push_core(L);
  c->policy = policy;
  c->policy_ud = ud;
  lua_pop(L, 1);
}

void lsock_setlimits(lua_State *L, const lsock_Limits *limits) {
  lsock_Core *c = push_core(L);
  lsock_freescratch(L, c);
  c->sockets_max = limits->sockets > 0 ? limits->sockets : 0;
  c->receive_max = limits->receive > 0 && limits->receive < RECEIVE_LEAST ? RECEIVE_LEAST : limits->receive;
  c->restrictions = limits->flags;
  if (c->sockets_max) c->restrictions |= LSOCK_NO_DESCRIPTORS;
  if (limits->flags & LSOCK_NONBLOCKING) c->default_timeout = 0;
  c->hook = (c->hook & ~LSOCK_NEVER) | (limits->flags & LSOCK_NO_WAIT ? LSOCK_NEVER : 0);
  lua_pop(L, 1);
}

int lsock_countsockets(lua_State *L) {
  int n = push_core(L)->sockets;
  lua_pop(L, 1);
  return n;
}

void lsock_count(lsock_Core *core, lsock_Sock *s) {
  s->counted = 1;
  core->sockets++;
}

int lsock_full(lua_State *L, const lsock_Core *core, int n) {
  if (lsock_likely(!core->sockets_max || core->sockets_max - core->sockets >= n)) return 0;
  lua_gc(L, LUA_GCCOLLECT); /* as where the system has no more descriptors */
  return core->sockets_max - core->sockets < n;
}

size_t lsock_bound(lua_State *L, int arg, size_t n) {
  const lsock_Core *core = lsock_core(L);
  if (core->receive_max && n > core->receive_max)
    luaL_argerror(L, arg, lua_pushfstring(L, "more than the %I bytes the host allows", (LUAI_UACINT)core->receive_max));
  return n;
}
