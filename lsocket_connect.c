/*
** lsocket_connect.c: connecting and listening: the methods, and create_connection and create_server above them.
*/
#include "lsocket_int.h"

#include <limits.h>
#include <string.h>

/* RFC 8305, section 8: how long an attempt runs alone before the next address is tried beside it. */
#define ATTEMPT_DELAY INT64_C(250000000)

/* Python's default backlog: enough for most, without asking the kernel for its maximum. */
#define DEFAULT_BACKLOG (SOMAXCONN < 128 ? SOMAXCONN : 128)

enum { START, PENDING, CONNECTED };

static int socket_error(lsock_fd fd) {
  int err = 0;
  socklen_t len = sizeof err;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? errno : err;
}

/* ---------------------------------------------------------------- connect */

/* The system has connected it; now the transport, if there is one. */
static int connected(lua_State *L, lsock_Op *op) {
  int r;
  op->state = CONNECTED;
  r = op->s->tr ? op->s->tr->connected(L, op) : 0;
  if (r < 0) return r;
  lua_pushvalue(L, op->self);
  return 1;
}

/* After the wait: has it succeeded? */
static int finish_connect(lua_State *L, lsock_Op *op) {
  if (op->coop && lsock_plat_poll(op->s->fd, POLLOUT, 0) == 0) return LSOCK_WRITE; /* the hook was wrong */
  op->err = socket_error(op->s->fd);
  if (op->err) return LSOCK_FAIL;
  return connected(L, op);
}

static int step_connect(lua_State *L, lsock_Op *op) {
  lsock_Sock *s = op->s;
  int err;
  int r = lsock_step_address(L, op);
  if (r < 0) return r;
  if (op->state == PENDING) return finish_connect(L, op);
  if (op->state == CONNECTED) return connected(L, op);
  if (op->nowait) lsock_mode(s, 1);
  if ((r = lsock_step_policy(L, op, "connect")) < 0) return r;
  if (connect(s->fd, &op->addr.u.sa, op->addr.len) == 0) return connected(L, op);
  err = errno;
  if (err == EAGAIN && op->timeout != 0) return lsock_pause(L, op, LSOCK_RETRY); /* a Unix listener's queue is full */
  if ((err != EINPROGRESS && err != EALREADY && err != EINTR) || op->timeout == 0) {
    op->err = err;
    return LSOCK_FAIL;
  }
  op->state = PENDING; /* connect(2): an interrupted one goes on by itself */
  op->w = s;
  op->wslot = op->self;
  if (err == EINTR) lsock_turn(L);
  return LSOCK_WRITE;
}

static void connect_op(lua_State *L, lsock_Op *op, const char *name) {
  lsock_op(L, op, name, step_connect, LSOCK_WR);
  op->address = 2;
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  if (lsock_getaddr(L, 2, op->s->family, op->s->proto, &op->addr)) lsock_lookup(L, op);
}

/* s:connect(address) -> s (connect(2)) */
static int sock_connect(lua_State *L) {
  lsock_Op op;
  connect_op(L, &op, "connect");
  return lsock_run(L, &op);
}

/* connect's own failures are a result, those of the lookup are not */
static int give_errno(lua_State *L, lsock_Op *op) {
  if (op->job) return -1;
  lua_pushinteger(L, op->cls == LSOCK_TIMEOUT ? EAGAIN : op->err); /* a timeout is EAGAIN, as in Python */
  return 1;
}

static int step_connect_ex(lua_State *L, lsock_Op *op) {
  int r = step_connect(L, op);
  if (r > 0) lua_pushinteger(L, 0);
  return r;
}

/* s:connect_ex(address) -> 0 or an errno; still raises where no connect was tried */
static int sock_connect_ex(lua_State *L) {
  lsock_Op op;
  connect_op(L, &op, "connect_ex");
  op.step = step_connect_ex;
  op.partial = give_errno;
  return lsock_run(L, &op);
}

/* s:disconnect() -> s: no peer any more (connect(2) with AF_UNSPEC); not for streams */
static int sock_disconnect(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  lsock_Addr a = {0};
  int err;
  if (lsock_isclosed(s)) return lsock_failclosed(L, "disconnect");
  if (s->type == SOCK_STREAM) return lsock_failno(L, EOPNOTSUPP, "disconnect");
  a.u.sa.sa_family = AF_UNSPEC;
  if (connect(s->fd, &a.u.sa, sizeof a.u.sa) < 0) {
    err = errno; /* some systems complain after having done it */
    a.len = sizeof a.u;
    if (getpeername(s->fd, &a.u.sa, &a.len) == 0 || errno != ENOTCONN) return lsock_failno(L, err, "disconnect");
  }
  lua_settop(L, 1);
  return 1;
}

/* ---------------------------------------------------------------- bind, listen */

static int step_bind(lua_State *L, lsock_Op *op) {
  int r = lsock_step_address(L, op);
  if (r < 0 || (r = lsock_step_policy(L, op, "bind")) < 0) return r;
  if (bind(op->s->fd, &op->addr.u.sa, op->addr.len) < 0) {
    op->err = errno;
    return LSOCK_FAIL;
  }
  lua_pushvalue(L, op->self);
  return 1;
}

/* s:bind(address) -> s (bind(2)) */
static int sock_bind(lua_State *L) {
  lsock_Op op;
  connect_op(L, &op, "bind");
  op.step = step_bind;
  op.dir = LSOCK_MODAL;
  return lsock_run(L, &op);
}

static int bound_backlog(lua_Integer n) {
  return n < 0 ? 0 : n > INT_MAX ? INT_MAX : (int)n;
}

/* s:listen([backlog]) -> s (listen(2)); the system bounds the backlog */
static int sock_listen(lua_State *L) {
  lsock_Sock *s = lsock_checksock(L, 1, lsock_core(L));
  int backlog = bound_backlog(luaL_optinteger(L, 2, DEFAULT_BACKLOG));
  if (lsock_isclosed(s)) return lsock_failclosed(L, "listen");
  if (!lsock_may_listen(lsock_core(L), s)) return lsock_failrefused(L, "listen", "listen", s);
  if (listen(s->fd, backlog) < 0) return lsock_failno(L, errno, "listen");
  lua_settop(L, 1);
  return 1;
}

const lsock_Reg lsock_connect_methods[] = {{"!bind", sock_bind},
                                           {"!connect", sock_connect},
                                           {"!connect_ex", sock_connect_ex},
                                           {"!disconnect", sock_disconnect},
                                           {"!listen", sock_listen},
                                           {NULL, NULL}};

/* ---------------------------------------------------------------- create_connection */

/* How often an address is tried again because the socket was connected to itself. */
#define SELF_RETRIES 3

/*
** Happy Eyeballs (RFC 8305). The addresses, families interleaved, are tried one after the other, each beside those
** before it that have not answered. The race lives in a userdata at op->slot, the errors of those that failed in a table
** above it, and above that each attempt's socket, which is to be closed however the race ends.
*/
typedef struct Race {
  int count, next, pending, failures;
  int errors;   /* stack index */
  int group;    /* stack index of the group's socket, 0 if there is none ... */
  int looking;  /* ... and the attempts are looked at now and then */
  int self;     /* times a socket was connected to itself */
  int64_t when; /* the next attempt begins */
  struct Try {
    struct sockaddr_in6 to; /* or a sockaddr_in, which is shorter */
    int slot;               /* stack index of its socket */
    lsock_Sock *s;          /* NULL unless it is pending */
  } try[1];
} Race;

/* The race's memory, wherever the Lua stack was moved meanwhile. */
static Race *race_of(lua_State *L, const lsock_Op *op) {
  return lua_touserdata(L, op->slot);
}

static int is_inet(const struct addrinfo *ai) {
  return ai->ai_family == AF_INET || ai->ai_family == AF_INET6;
}

/* The next address after `ai` whose family is (or is not) `family`. */
static const struct addrinfo *next_of(const struct addrinfo *ai, int family, int same) {
  while (ai && !(is_inet(ai) && (ai->ai_family == family) == same)) ai = ai->ai_next;
  return ai;
}

/* Adds the address to the race: with the flowinfo that was asked for, and the scope unless it has one. */
static void enter(Race *r, const struct addrinfo *ai, const struct sockaddr_in6 *asked) {
  struct sockaddr_in6 *to = &r->try[r->count++].to;
  memcpy(to, ai->ai_addr, ai->ai_addrlen < sizeof *to ? ai->ai_addrlen : sizeof *to);
  if (ai->ai_family != AF_INET6) return;
  to->sin6_flowinfo = asked->sin6_flowinfo;
  if (to->sin6_scope_id == 0) to->sin6_scope_id = asked->sin6_scope_id;
}

static Race *new_race(lua_State *L, lsock_Op *op) {
  const struct addrinfo *list, *ai, *turn[2];
  int n = 0, t = 0;
  size_t size;
  Race *r;
  for (ai = lsock_job_list(L, op); ai; ai = ai->ai_next) n += is_inet(ai);
  size = sizeof *r + (size_t)n * sizeof r->try[0];
  luaL_checkstack(L, n + 20, "create_connection");
  r = lua_newuserdatauv(L, size, 0);
  memset(r, 0, size);
  op->slot = lua_gettop(L);
  lua_newtable(L);
  r->errors = lua_gettop(L);
  lsock_keepstack(L, op);
  list = next_of(lsock_job_list(L, op), AF_UNSPEC, 0);
  if (list) {
    turn[0] = list;
    turn[1] = next_of(list, list->ai_family, 0);
    for (; r->count < n; t = !t)
      if (turn[t]) {
        enter(r, turn[t], &op->addr.u.in6);
        turn[t] = next_of(turn[t]->ai_next, list->ai_family, t == 0);
      }
  }
  lsock_finish_job(L, op);
  return r;
}

static void target(const Race *r, int i, lsock_Addr *a) {
  memcpy(&a->u, &r->try[i].to, sizeof r->try[i].to);
  a->len = a->u.sa.sa_family == AF_INET ? sizeof a->u.in : sizeof a->u.in6;
}

/* What the functions below return besides an errno. */
enum { REFUSED = -1, FULL = -2 };

/* Closes the socket of attempt i. */
static void drop(lua_State *L, Race *r, int i) {
  if (r->try[i].s) r->pending--;
  r->try[i].s = NULL;
  lsock_closesock(L, r->try[i].slot, lua_touserdata(L, r->try[i].slot));
}

/* Notes why attempt i failed, and closes its socket. */
static void lost(lua_State *L, lsock_Op *op, Race *r, int i, int err, const char *msg) {
  lsock_Fail f = {0};
  lsock_Addr a;
  target(r, i, &a);
  lsock_pushaddr(L, 0, &a);
  f.msg = op->msg = err == REFUSED ? LSOCK_REFUSED : err == FULL ? LSOCK_TOO_MANY : msg;
  if (err < 0) err = err == REFUSED ? EACCES : EMFILE;
  f.err = op->err = err;
  f.op = "connect";
  f.address = lua_gettop(L);
  lsock_pusherror(L, &f);
  lua_rawseti(L, r->errors, ++r->failures);
  lua_pop(L, 1);
  drop(L, r, i);
}

/* source_address is at index 3, one for each family, or nil: 0, or an errno, or REFUSED. */
static int bind_source(lua_State *L, const lsock_Core *core, lsock_fd fd, int family) {
  const lsock_Addr *a = lua_touserdata(L, 3);
  if (!a) return 0;
  a += family == AF_INET6;
  if (a->len == 0) return EADDRNOTAVAIL; /* an IPv4 source cannot reach an IPv6 address */
  if (!lsock_may(core, "bind", a, family, SOCK_STREAM, 0)) return REFUSED;
  return bind(fd, &a->u.sa, a->len) < 0 ? errno : 0;
}

/* A socket for attempt i; 0, or an errno, REFUSED or FULL. */
static int new_attempt(lua_State *L, lsock_Op *op, Race *r, int i) {
  int family = r->try[i].to.sin6_family;
  lsock_Sock *s = r->try[i].slot ? lua_touserdata(L, r->try[i].slot) : NULL;
  lsock_fd fd;
  if (!s) { /* as long as it is closed, so that no error finds it open and unknown */
    s = lsock_newsock(L, op->core);
    lua_toclose(L, -1);
    lsock_keepstack(L, op);
    r->try[i].slot = lua_gettop(L);
    s->timeout = op->timeout;
    s->internal = 1; /* until it has won */
  }
  if (!lsock_may(op->core, "socket", NULL, family, SOCK_STREAM, 0)) return REFUSED;
  if (lsock_full(L, op->core, 1)) return FULL;
  fd = lsock_plat_socket(family, SOCK_STREAM, 0);
  if (fd == LSOCK_NOFD && lsock_reclaim(L)) fd = lsock_plat_socket(family, SOCK_STREAM, 0);
  if (fd == LSOCK_NOFD) return errno;
  lsock_open(L, s, fd, family, SOCK_STREAM, 0);
  lsock_count(op->core, s);
  return bind_source(L, op->core, fd, family);
}

/*
** Attempt i is connected. Is it so to itself? The system may choose the very port that is called for the other end, and
** TCP takes two calls that cross each other for a connection. Whoever says from which port may want that. Its end is a
** reset then, so that the port is not kept for it.
*/
static int to_itself(lua_State *L, const Race *r, int i) {
  static const struct linger reset = {1, 0};
  const lsock_Sock *s = lua_touserdata(L, r->try[i].slot);
  const lsock_Addr *source = lua_touserdata(L, 3);
  lsock_Addr a, b;
  if (source && source->u.in.sin_port) return 0;
  a.len = b.len = sizeof a.u;
  if (getsockname(s->fd, &a.u.sa, &a.len) < 0 || a.u.in.sin_port != r->try[i].to.sin6_port ||
      getpeername(s->fd, &b.u.sa, &b.len) < 0 || a.len != b.len || memcmp(&a.u, &b.u, a.len) != 0)
    return 0;
  (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  return 1;
}

/* The result, once attempt i is connected: the others are closed. */
static int won(lua_State *L, const lsock_Op *op, Race *r, int i) {
  lsock_Sock *s = lua_touserdata(L, r->try[i].slot);
  int k;
  r->try[i].s = NULL;
  for (k = 0; k < r->next; k++)
    if (r->try[k].s) drop(L, r, k);
  s->internal = 0;
  lsock_settimeout(s, op->timeout);
  lua_pushvalue(L, r->try[i].slot);
  LSOCK_SPARE(s);
  return 1;
}

/* Begins attempt i: 1 when it is connected at once. */
static int begin(lua_State *L, lsock_Op *op, Race *r, int i) {
  lsock_Addr a;
  int err = new_attempt(L, op, r, i);
  lsock_Sock *s = lua_touserdata(L, r->try[i].slot);
  target(r, i, &a);
  if (!err) {
    lsock_mode(s, 1);
    if (!lsock_may(op->core, "connect", &a, s->family, s->type, s->proto))
      err = REFUSED;
    else if (connect(s->fd, &a.u.sa, a.len) < 0)
      err = errno;
  }
  if (err && err != EINPROGRESS && err != EINTR) {
    lost(L, op, r, i, err, NULL);
    return 0;
  }
  r->try[i].s = s;
  r->pending++;
  if (!err) return 1;
  r->when = lsock_plat_now() + ATTEMPT_DELAY;
  if (r->group) {
    const lsock_Sock *g = lua_touserdata(L, r->group);
    if (lsock_plat_poller_set(g->fd, s->fd, 0, LSOCK_EV_WRITE) < 0) r->group = 0; /* then look again now and then */
  }
  return 0;
}

/* Attempt i is connected. 1, unless it was to itself and has begun anew or been given up. */
static int good(lua_State *L, lsock_Op *op, Race *r, int i) {
  while (to_itself(L, r, i)) {
    if (r->self++ >= SELF_RETRIES) {
      lost(L, op, r, i, ECONNREFUSED, NULL); /* what it would have been without the coincidence */
      return 0;
    }
    drop(L, r, i);
    if (!begin(L, op, r, i)) return 0;
  }
  return 1;
}

/* Looks at the attempts under way: as a step, unless it goes on. */
static int look(lua_State *L, lsock_Op *op, Race *r) {
  int i;
  for (i = 0; i < r->next; i++) {
    lsock_Sock *s = r->try[i].s;
    int err;
    if (!s || lsock_plat_poll(s->fd, POLLOUT, 0) <= 0) continue;
    err = socket_error(s->fd);
    if (err) {
      lost(L, op, r, i, err, NULL);
      r->when = 0; /* RFC 8305, section 5: the next one at once */
    } else if (good(L, op, r, i))
      return won(L, op, r, i);
  }
  return 0;
}

/* e.errors */
static int give_errors(lua_State *L, lsock_Op *op, const Race *r) {
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, r->errors);
  lua_setfield(L, -2, "errors");
  op->extra = lua_gettop(L);
  return -1;
}

/* Closes what is still under way, and puts the errors into the error object. */
static int race_over(lua_State *L, lsock_Op *op) {
  Race *r;
  int i;
  if (op->state == START) return -1;
  r = race_of(L, op);
  for (i = 0; i < r->next; i++)
    if (r->try[i].s) lost(L, op, r, i, op->err, op->msg);
  return give_errors(L, op, r);
}

static void open_group(lua_State *L, lsock_Op *op, Race *r) {
  lsock_Sock *g = lsock_newsock(L, op->core);
  lsock_fd fd;
  lua_toclose(L, -1);
  lsock_keepstack(L, op);
  fd = lsock_plat_poller();
  if (fd == LSOCK_NOFD) return;
  g->timeout = -1;
  g->internal = 1;
  g->shared = 1;
  lsock_open(L, g, fd, AF_UNSPEC, 0, 0);
  r->group = op->top;
}

static int single(lua_State *L, lsock_Op *op, Race *r);

/* The one address there is, tried as connect does it. */
static int step_single(lua_State *L, lsock_Op *op) {
  Race *r = race_of(L, op);
  int n = step_connect(L, op);
  if (n <= 0) return n;
  if (!to_itself(L, r, 0)) {
    op->s->internal = 0;
    LSOCK_SPARE(op->s);
    return n;
  }
  lua_pop(L, n);
  op->err = ECONNREFUSED;
  if (r->self++ >= SELF_RETRIES) return LSOCK_FAIL;
  drop(L, r, 0);
  return single(L, op, r);
}

static int single_over(lua_State *L, lsock_Op *op) {
  Race *r = race_of(L, op);
  lost(L, op, r, 0, op->err, op->msg);
  return give_errors(L, op, r);
}

static int single(lua_State *L, lsock_Op *op, Race *r) {
  op->partial = single_over;
  op->err = new_attempt(L, op, r, 0);
  if (op->err) return LSOCK_FAIL;
  target(r, 0, &op->addr);
  op->state = START;
  op->step = step_single;
  lsock_op_socket(L, op, r->try[0].slot);
  return step_single(L, op);
}

static int step_race(lua_State *L, lsock_Op *op) {
  Race *r;
  if (op->state == START) {
    int n = lsock_step_job(L, op);
    if (n < 0) return n;
    r = new_race(L, op);
    if (r->count == 0) {
      op->cls = LSOCK_GAIERROR;
      op->err = EAI_NONAME;
      return LSOCK_FAIL;
    }
    if (r->count == 1) return single(L, op, r);
    op->state = PENDING;
    open_group(L, op, r);
  }
  r = race_of(L, op);
  if (look(L, op, r)) return 1;
  while (r->next < r->count && (r->pending == 0 || lsock_plat_now() >= r->when)) {
    int i = r->next++;
    if (begin(L, op, r, i) && good(L, op, r, i)) return won(L, op, r, i);
  }
  if (r->pending == 0) return LSOCK_FAIL;
  if (op->timeout == 0) {
    op->err = EINPROGRESS;
    return LSOCK_FAIL;
  }
  if (!r->group) {
    if (!r->looking) op->w = op->s; /* lsock_pause finds something to wait for, once */
    r->looking = 1;
    return lsock_pause(L, op, LSOCK_RETRY);
  }
  op->w = lua_touserdata(L, r->group);
  op->wslot = r->group;
  if (r->next < r->count) op->until = r->when;
  return LSOCK_READ;
}

/* source_address, at index 3, becomes the addresses to start from, for IPv4 and for IPv6; of length 0: none. */
static void get_source(lua_State *L) {
  lsock_Addr *a;
  int i;
  if (!lua_istable(L, 3)) luaL_argerror(L, 3, "source_address must be a table");
  a = lua_newuserdatauv(L, 2 * sizeof *a, 0);
  for (i = 1; i >= 0; i--) /* IPv6 first, which takes no number as a host */
    if (lsock_getaddr(L, 3, i ? AF_INET6 : AF_INET, 0, &a[i])) a[i].len = 0;
  lua_settop(L, 4);
  lua_replace(L, 3);
}

/*
** socket.create_connection({host, port or service [, flowinfo [, scope_id]]} [, timeout [, {source_address = address}]])
** -> connected TCP socket. Tries every address of the name (RFC 8305). The timeout, by default the default timeout,
** bounds all of it and stays with the socket. On failure e.errors lists one error for each address tried.
*/
static int mod_create_connection(lua_State *L) {
  static const char *const keys[] = {"source_address", NULL};
  struct addrinfo hints = {0};
  lsock_Op op;
  size_t len;
  int service;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 3);
  if (!lua_isnil(L, 3)) {
    luaL_checktype(L, 3, LUA_TTABLE);
    lsock_checkkeys(L, 3, keys);
    lua_getfield(L, 3, "source_address");
    lua_replace(L, 3);
    if (!lua_isnil(L, 3)) get_source(L);
  }
  lsock_op_free(L, &op, "create_connection", step_race);
  if (!lua_isnil(L, 2)) op.timeout = lsock_checktimeout(L, 2);
  op.address = 1;
  op.partial = race_over;
  hints.ai_socktype = SOCK_STREAM;
  lsock_pushstr(L, 1, 1, "host", NI_MAXHOST - 1, LSOCK_STR_TEXT, &len);
  service = lsock_getitem(L, 1, 2, "port") == LUA_TSTRING && !lua_isnumber(L, -1) && lua_rawlen(L, -1);
  lua_pop(L, 1);
  if (service)
    lsock_pushstr(L, 1, 2, "port", NI_MAXSERV - 1, LSOCK_STR_TEXT, &len);
  else
    lua_pushinteger(L, lsock_getint(L, 1, 2, "port", 0, 65535, 0));
  lsock_getscope(L, 1, &op.addr);
  lsock_lookup_all(L, &op, 4, 5, &hints);
  return lsock_run(L, &op);
}

/* ---------------------------------------------------------------- create_server */

static int set_int(lsock_fd fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value);
}

static int has_dualstack(void) {
  lsock_fd fd = lsock_plat_socket(AF_INET6, SOCK_STREAM, 0);
  int ok = fd != LSOCK_NOFD && set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) == 0;
  if (fd != LSOCK_NOFD) lsock_plat_close(fd);
  return ok;
}

/* socket.has_dualstack_ipv6() -> can one socket listen for both IPv4 and IPv6? */
static int mod_has_dualstack_ipv6(lua_State *L) {
  lua_pushboolean(L, has_dualstack());
  return 1;
}

/* Options of a listening socket: 0, or an errno. */
static int set_server_options(lsock_fd fd, int family, int reuse_port, int dualstack) {
  if (family == AF_INET || family == AF_INET6) (void)set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
#if defined(SO_REUSEPORT)
  if (reuse_port && set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0) return errno;
#else
  if (reuse_port) return ENOPROTOOPT;
#endif
  if (family == AF_INET6 && set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !dualstack) < 0) return errno;
  return 0;
}

static int step_server(lua_State *L, lsock_Op *op) {
  int r = step_bind(L, op);
  if (r < 0) return r;
  if (!lsock_may_listen(op->core, op->s)) return lsock_refuse(L, op, "listen");
  if (listen(op->s->fd, op->state) < 0) {
    op->err = errno;
    return LSOCK_FAIL;
  }
  op->s->internal = 0;
  LSOCK_SPARE(op->s);
  return 1;
}

/* Option `name` of the table at index 2, an integer; `def` when absent. */
static lua_Integer opt_integer(lua_State *L, const char *name, lua_Integer def) {
  int ok = 1;
  if (lua_getfield(L, 2, name) != LUA_TNIL) def = lua_tointegerx(L, -1, &ok);
  if (!ok) luaL_argerror(L, 2, lua_pushfstring(L, "%s must be an integer", name));
  lua_pop(L, 1);
  return def;
}

/*
** socket.create_server(address [, {family = AF_INET, backlog =, reuse_port = false, dualstack_ipv6 = false}])
** -> listening socket (SOCK_STREAM). With family = AF_INET6 and dualstack_ipv6 it accepts IPv4 too.
*/
static int mod_create_server(lua_State *L) {
  static const char *const keys[] = {"family", "backlog", "reuse_port", "dualstack_ipv6", NULL};
  lsock_Op op;
  lsock_Sock *s;
  lsock_fd fd;
  lua_Integer n;
  int family, backlog, reuse_port, dualstack, err;
  luaL_checkany(L, 1);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  lsock_checkkeys(L, 2, keys);
  n = opt_integer(L, "family", AF_INET);
  luaL_argcheck(L, n >= 0 && n <= INT_MAX, 2, "family does not fit a C int");
  family = (int)n;
  backlog = bound_backlog(opt_integer(L, "backlog", DEFAULT_BACKLOG));
  lua_getfield(L, 2, "reuse_port");
  reuse_port = lua_toboolean(L, -1);
  lua_getfield(L, 2, "dualstack_ipv6");
  dualstack = lua_toboolean(L, -1);
  lua_settop(L, 1);
  luaL_argcheck(L, !dualstack || family == AF_INET6, 2, "dualstack_ipv6 requires family AF_INET6");
  lsock_op_free(L, &op, "create_server", step_server);
  op.address = 1;
  op.state = backlog;
  lsock_getaddr(L, 1, family, 0, &op.addr);
  lua_settop(L, 2); /* the name to be looked up, or nil */
  s = lsock_newsock(L, op.core);
  lua_toclose(L, 3); /* still closed: however this ends it does not stay open */
  s->internal = 1;
  if ((err = lsock_admit(L, "create_server", "socket", family, SOCK_STREAM, 0, 1)) != 0) return err;
  fd = lsock_plat_socket(family, SOCK_STREAM, 0);
  if (fd == LSOCK_NOFD && lsock_reclaim(L)) fd = lsock_plat_socket(family, SOCK_STREAM, 0);
  if (fd == LSOCK_NOFD) return lsock_failno(L, errno, "create_server");
  lsock_open(L, s, fd, family, SOCK_STREAM, 0);
  lsock_count(op.core, s);
  err = set_server_options(fd, family, reuse_port, dualstack);
  if (err) return lsock_failno(L, err, "create_server");
  op.timeout = s->timeout;
  op.s = op.w = s;
  op.self = op.wslot = 3;
  op.fd = s->fd;
  op.dir = LSOCK_MODAL;
  if (!lua_isnil(L, 2)) {
    lua_pushvalue(L, 2);
    lsock_lookup(L, &op);
  }
  return lsock_run(L, &op);
}

static const lsock_Reg connect_functions[] = {{"!create_connection", mod_create_connection},
                                              {"!create_server", mod_create_server},
                                              {"has_dualstack_ipv6", mod_has_dualstack_ipv6},
                                              {NULL, NULL}};

void lsock_open_connect(lua_State *L, int core) {
  lsock_register(L, core, connect_functions);
}
