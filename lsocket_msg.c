/*
** lsocket_msg.c: messages with ancillary data (sendmsg(2), recvmsg(2), cmsg(3)), and passing descriptors.
**
** Descriptors arrive as soon as recvmsg returns, wanted or not. The control buffer they arrive in is a userdata made
** before the call, and closes at its end those that nobody took. To look at their numbers is to take them.
*/
#include "lsocket_int.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#if defined(__linux__) && defined(__has_include)
#if __has_include(<linux/if_alg.h>)
#include <linux/if_alg.h>
#endif
#endif

/* The longest control data asked for or given; the kernel's own bound is lower (net.core.optmem_max). */
#define CONTROL_MAX ((lua_Integer)1 << 24)
#define LIST_MAX 65536 /* buffers, or descriptors, at once */

#if defined(MSG_CMSG_CLOEXEC)
#define CLOEXEC_FLAG MSG_CMSG_CLOEXEC
#else
#define CLOEXEC_FLAG 0
#endif

/* ---------------------------------------------------------------- control buffers */

typedef struct Control {
  uintptr_t seal;
  size_t size, len; /* of the bytes that follow: room, and what a message filled of it */
  int untaken;      /* its part of core->untaken */
} Control;

/* So many descriptors that nobody took are no reason to look for garbage. */
#define UNTAKEN_FEW 64

#define CONTROL_BYTES(c) ((char *)((c) + 1))

LSOCK_BEGINS_WITH_SEAL(Control);

static Control *new_control(lua_State *L, size_t size) {
  Control *c = lua_newuserdatauv(L, sizeof *c + size, 0);
  memset(c, 0, sizeof *c + size);
  c->seal = LSOCK_SEAL(lsock_core(L), c, LSOCK_KIND_CONTROL);
  c->size = size;
  return c;
}

static void attach(Control *c, struct msghdr *h, size_t len) {
  memset(h, 0, sizeof *h);
  if (len == 0) return;
  h->msg_control = CONTROL_BYTES(c);
  h->msg_controllen = len;
}

static size_t data_length(const struct cmsghdr *c) {
  return c->cmsg_len > CMSG_LEN(0) ? (size_t)c->cmsg_len - CMSG_LEN(0) : 0;
}

static int holds_descriptors(const struct cmsghdr *c) {
#if defined(SCM_PIDFD)
  if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_PIDFD) return 1;
#endif
  return c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS;
}

/* The descriptors of an item that are still there: they are held, closed, or given to the program. */
typedef enum Fate { HOLD, CLOSE, GIVE } Fate;
static void see_to(lua_State *L, struct cmsghdr *c, Fate fate) {
  size_t i, n = data_length(c) / sizeof(int);
  int none = -1, fd;
  for (i = 0; i < n; i++) {
    unsigned char *p = CMSG_DATA(c) + i * sizeof fd;
    memcpy(&fd, p, sizeof fd);
    if (fd < 0) continue;
    if (fate == HOLD) {
      lsock_hold(L, fd);
      continue;
    }
    lsock_release(lsock_core(L), fd);
    if (fate == CLOSE) lsock_plat_close(fd);
    memcpy(p, &none, sizeof none);
  }
}

/* Those of all items; are there any? */
static int see_to_all(lua_State *L, struct msghdr *h, Fate fate) {
  struct cmsghdr *c;
  int any = 0;
  for (c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
    if (holds_descriptors(c)) {
      see_to(L, c, fate);
      any = 1;
    }
  return any;
}

static int control_gc(lua_State *L) {
  Control *c = lsock_object(L, 1, LSOCK_KIND_CONTROL, sizeof *c);
  struct msghdr h;
  if (!c) return 0;
  attach(c, &h, c->len);
  see_to_all(L, &h, CLOSE);
  lsock_core(L)->untaken -= c->untaken;
  c->untaken = 0;
  c->len = 0;
  return 0;
}

/* ---------------------------------------------------------------- received ancillary data */

static const char *const item_fields[] = {"level", "type", "data", NULL};

/* An item with descriptors: user value 1 is its control buffer, 2 the data once taken. */
typedef struct Rights {
  uintptr_t seal;
  Control *control;
  struct cmsghdr *c;
} Rights;

LSOCK_BEGINS_WITH_SEAL(Rights);

/* The debug library can take its control buffer away. */
static Rights *to_rights(lua_State *L, int idx) {
  Rights *r = lsock_object(L, idx, LSOCK_KIND_RIGHTS, sizeof *r);
  if (!r) return NULL;
  lua_getiuservalue(L, idx, 1);
  if (lua_touserdata(L, -1) != r->control) r = NULL;
  lua_pop(L, 1);
  return r;
}

static Rights *check_rights(lua_State *L, int arg) {
  Rights *r = to_rights(L, arg);
  if (!r) luaL_typeerror(L, arg, "socket descriptors");
  return r;
}

/* Is the host content that this is done with each of the descriptors whose numbers these bytes are? */
static int may_each(lua_State *L, const char *what, const void *data, size_t len) {
  const char *p = data;
  size_t at;
  int fd;
  for (at = 0; at + sizeof fd <= len; at += sizeof fd) {
    memcpy(&fd, p + at, sizeof fd);
    if (fd >= 0 && !lsock_may_fd(lsock_core(L), what, fd)) return 0;
  }
  return 1;
}

/* Pushes the descriptors' numbers as bytes; from now on they are the program's. */
static void take(lua_State *L, int arg, Rights *r) {
  size_t len;
  if (lua_getiuservalue(L, arg, 2) == LUA_TSTRING) return;
  lua_pop(L, 1);
  len = data_length(r->c);
  if (!may_each(L, "detach", CMSG_DATA(r->c), len)) lsock_failrefused(L, "recvmsg", "detach", NULL);
  lua_pushlstring(L, (const char *)CMSG_DATA(r->c), len);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, arg, 2);
  see_to(L, r->c, GIVE);
  if (r->control->untaken > 0) {
    r->control->untaken -= (int)(len / sizeof(int));
    lsock_core(L)->untaken -= (int)(len / sizeof(int));
  }
}

static int rights_index(lua_State *L) {
  Rights *r = check_rights(L, 1);
  lua_Integer k = lua_type(L, 2) == LUA_TNUMBER ? lua_tointeger(L, 2) : 0; /* 0 for no integer */
  if (lua_type(L, 2) == LUA_TSTRING)
    for (k = 3; k > 0; k--) {
      lua_pushstring(L, item_fields[k - 1]);
      if (lua_rawequal(L, 2, -1)) break;
    }
  switch (k) {
    case 1: lua_pushinteger(L, r->c->cmsg_level); break;
    case 2: lua_pushinteger(L, r->c->cmsg_type); break;
    case 3: take(L, 1, r); break;
    default: return 0;
  }
  return 1;
}

static int rights_len(lua_State *L) {
  check_rights(L, 1);
  lua_pushinteger(L, 3);
  return 1;
}

/*
** Descriptors are few and the collector counts bytes only: when many were not taken it is time to look for those that
** are garbage. If they are not, it is time again when there are twice as many.
*/
static void collect_untaken(lua_State *L) {
  lsock_Core *core = lsock_core(L);
  if (core->untaken < UNTAKEN_FEW)
    core->untaken_max = UNTAKEN_FEW;
  else if (core->untaken >= core->untaken_max) {
    lua_gc(L, LUA_GCCOLLECT);
    core->untaken_max = 2 * core->untaken;
  }
}

/* Pushes the list of a message's items; the control buffer is at `control`. */
static void push_items(lua_State *L, int control, struct msghdr *h) {
  struct cmsghdr *c;
  lua_Integer i = 0;
  luaL_checkstack(L, 8, "ancillary data");
  collect_untaken(L);
  lua_newtable(L);
  for (c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
    if (holds_descriptors(c)) {
      Rights *r = lua_newuserdatauv(L, sizeof *r, 2);
      r->seal = LSOCK_SEAL(lsock_core(L), r, LSOCK_KIND_RIGHTS);
      r->control = lua_touserdata(L, control);
      r->c = c;
      r->control->untaken += (int)(data_length(c) / sizeof(int));
      lsock_core(L)->untaken += (int)(data_length(c) / sizeof(int));
      lua_pushvalue(L, control);
      lua_setiuservalue(L, -2, 1);
      lsock_pushtable(L, LSOCK_UV_RIGHTS);
      lua_setmetatable(L, -2);
    } else {
      lua_createtable(L, 3, 0);
      lua_pushinteger(L, c->cmsg_level);
      lua_rawseti(L, -2, 1);
      lua_pushinteger(L, c->cmsg_type);
      lua_rawseti(L, -2, 2);
      lua_pushlstring(L, (const char *)CMSG_DATA(c), data_length(c));
      lua_rawseti(L, -2, 3);
      lsock_setfields(L, item_fields);
    }
    lua_rawseti(L, -2, ++i);
  }
}

/* Pushes a list of the descriptors in a message. */
static void push_fds(lua_State *L, struct msghdr *h) {
  struct cmsghdr *c;
  lua_Integer k = 0;
  lua_newtable(L);
  for (c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
    size_t i, n = data_length(c) / sizeof(int);
    if (!holds_descriptors(c)) continue;
    for (i = 0; i < n; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      lua_pushinteger(L, fd);
      lua_rawseti(L, -2, ++k);
    }
  }
}

/* ---------------------------------------------------------------- receiving */

/* What must outlive a wait: a userdata at op->slot. */
typedef struct Msg {
  Control *control;
  int control_at; /* its stack index */
  int fds;        /* receiving: give descriptors, not items; sending: how many to pass ... */
  int fds_at;     /* ... and the stack index of their list */
  size_t count;   /* of iov; 0: one piece, in lsock_room */
  struct iovec iov[1];
} Msg;

static Msg *new_msg(lua_State *L, lsock_Op *op, size_t count) {
  Msg *m;
  luaL_checkstack(L, 10, "message");
  m = lua_newuserdatauv(L, sizeof *m + count * sizeof m->iov[0], 0);
  memset(m, 0, sizeof *m);
  m->count = count;
  op->slot = lua_gettop(L);
  return m;
}

static void give_control(lua_State *L, Msg *m, size_t size) {
  m->control = new_control(L, size);
  m->control_at = lua_gettop(L);
  lsock_pushtable(L, LSOCK_UV_CONTROL);
  lua_setmetatable(L, -2);
}

static int step_recvmsg(lua_State *L, lsock_Op *op) {
  Msg *m = lua_touserdata(L, op->slot);
  struct msghdr h;
  ssize_t n;
  if (op->s->tr) return lsock_untransported(op);
  attach(m->control, &h, m->control->size);
  op->addr.len = sizeof op->addr.u;
  h.msg_name = &op->addr.u;
  h.msg_namelen = op->addr.len;
  h.msg_iov = m->iov;
  h.msg_iovlen = m->count;
  if (m->count == 0 && op->len > 0) {
    m->iov[0].iov_base = lsock_room(L, op);
    m->iov[0].iov_len = op->len;
    h.msg_iovlen = 1;
  }
  n = recvmsg(op->s->fd, &h, op->flags | CLOEXEC_FLAG | LSOCK_DONTWAIT(op));
  if (n < 0) return lsock_again(op, LSOCK_READ);
  m->control->len = h.msg_controllen; /* from here on its descriptors are seen to */
  if (see_to_all(L, &h, op->core->restrictions & LSOCK_NO_DESCRIPTORS ? CLOSE : HOLD) &&
      (op->core->restrictions & LSOCK_NO_DESCRIPTORS))
    h.msg_flags |= MSG_CTRUNC; /* as where there was no room for them */
  op->addr.len = h.msg_namelen < sizeof op->addr.u ? h.msg_namelen : (socklen_t)sizeof op->addr.u;
  lsock_pushreceived(L, op, m->iov[0].iov_base, n);
  if (m->fds)
    push_fds(L, &h);
  else
    push_items(L, m->control_at, &h);
  lua_pushinteger(L, h.msg_flags & ~CLOEXEC_FLAG);
  lsock_pushaddr(L, op->s->proto, &op->addr);
  if (m->fds) see_to_all(L, &h, GIVE); /* no memory error can lose them any more */
  return 4;
}

static size_t check_control(lua_State *L, int arg) {
  lua_Integer n = luaL_optinteger(L, arg, 0);
  luaL_argcheck(L, n >= 0 && n <= CONTROL_MAX, arg, "size of ancillary data must be 0-16777216");
  return lsock_bound(L, arg, (size_t)n);
}

/* MSG_TRUNC as a flag may count bytes that were never written. */
static void clear_room(lua_State *L, lsock_Op *op) {
#if defined(MSG_TRUNC)
  if (op->flags & MSG_TRUNC) memset(lsock_ownroom(L, op), 0, op->len);
#else
  (void)L;
  (void)op;
#endif
}

/*
** s:recvmsg(bufsize [, ancbufsize [, flags]]) -> bytes (nil at the end of a stream), ancillary data, flags, address
** Ancillary data is a list of {level, type, data}; ancbufsize comes from CMSG_LEN or CMSG_SPACE (recvmsg(2)).
*/
static int sock_recvmsg(lua_State *L) {
  lsock_Op op;
  size_t size;
  lsock_op(L, &op, "recvmsg", step_recvmsg, LSOCK_RD);
  op.len = lsock_checksize(L, 2);
  size = check_control(L, 3);
  lsock_optflags(L, 4, &op, LSOCK_RECEIVE_NOW);
  give_control(L, new_msg(L, &op, 0), size);
  clear_room(L, &op);
  return lsock_run(L, &op);
}

static size_t check_list(lua_State *L, int arg, lua_Unsigned most, const char *too_many) {
  lua_Unsigned n;
  luaL_checktype(L, arg, LUA_TTABLE);
  n = lua_rawlen(L, arg);
  luaL_argcheck(L, n <= most, arg, too_many);
  return (size_t)n;
}

/* s:recvmsg_into(buffers [, ancbufsize [, flags]]) -> count, ancillary data, flags, address; fills one after the other */
static int sock_recvmsg_into(lua_State *L) {
  lsock_Op op;
  size_t count, i, size;
  Msg *m;
  lsock_op(L, &op, "recvmsg_into", step_recvmsg, LSOCK_RD);
  count = check_list(L, 2, LIST_MAX, "too many buffers");
  size = check_control(L, 3);
  lsock_optflags(L, 4, &op, LSOCK_RECEIVE_NOW);
  op.len = 0;
  op.state = LSOCK_COUNT;
  m = new_msg(L, &op, count);
  lua_createtable(L, (int)count, 0); /* keeps the buffers while this waits */
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, 2, (lua_Integer)i + 1);
    m->iov[i].iov_base = lsock_tobuffer(L, -1, &m->iov[i].iov_len);
    if (!m->iov[i].iov_base)
      luaL_argerror(L, 2, lua_pushfstring(L, "item %d is a %s, not a buffer", (int)i + 1, luaL_typename(L, -1)));
    op.len += m->iov[i].iov_len;
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  give_control(L, m, size);
  return lsock_run(L, &op);
}

/*
** socket.recv_fds(sock, bufsize, maxfds [, flags]) -> bytes, list of descriptors, flags, address
** The descriptors are the caller's to close; they are not inherited by child programs.
*/
static int mod_recv_fds(lua_State *L) {
  lsock_Op op;
  lua_Integer max;
  Msg *m;
  int r = lsock_admit_fd(L, "recv_fds", "detach", LSOCK_NOFD);
  if (r) return r;
  lsock_op(L, &op, "recv_fds", step_recvmsg, LSOCK_RD);
  op.len = lsock_checksize(L, 2);
  max = luaL_checkinteger(L, 3);
  luaL_argcheck(L, max >= 0 && max <= LIST_MAX, 3, "maxfds must be 0-65536");
  lsock_optflags(L, 4, &op, LSOCK_RECEIVE_NOW);
  m = new_msg(L, &op, 0);
  m->fds = 1;
  give_control(L, m, max ? CMSG_LEN((size_t)max * sizeof(int)) : 0);
  clear_room(L, &op);
  return lsock_run(L, &op);
}

/* ---------------------------------------------------------------- sending */

/* A descriptor from an integer, a socket, or a Lua file, on top of the stack. */
static int check_descriptor(lua_State *L, int arg, int i) {
  const lsock_Sock *s;
  luaL_Stream *f;
  if (lua_isinteger(L, -1)) {
    lua_Integer v = lua_tointeger(L, -1);
    if (v >= 0 && v <= INT_MAX && lsock_may_fd(lsock_core(L), "fromfd", (int)v)) return (int)v;
    if (v >= 0 && v <= INT_MAX) luaL_argerror(L, arg, lua_pushfstring(L, "item %d is " LSOCK_REFUSED, i));
  } else if ((s = lsock_tosock(L, -1, lsock_core(L))) != NULL) {
    if (!lsock_isclosed(s)) return s->fd;
  } else if ((f = luaL_testudata(L, -1, LUA_FILEHANDLE)) != NULL && f->closef && f->f) {
    fflush(f->f);
    return fileno(f->f);
  }
  luaL_argerror(L, arg, lua_pushfstring(L, "item %d is no open descriptor, socket or file", i));
  return -1;
}

/* Writes the numbers of what is to be passed into the control buffer: what was closed meanwhile must not be sent. */
static void put_descriptors(lua_State *L, const Msg *m) {
  int i;
  for (i = 0; m->control && i < m->fds; i++) {
    int fd;
    lua_rawgeti(L, m->fds_at, i + 1);
    fd = check_descriptor(L, 3, i + 1);
    memcpy(CONTROL_BYTES(m->control) + CMSG_LEN(0) + (size_t)i * sizeof fd, &fd, sizeof fd);
    lua_pop(L, 1);
  }
}

static int step_sendmsg(lua_State *L, lsock_Op *op) {
  Msg *m = lua_touserdata(L, op->slot);
  struct msghdr h;
  ssize_t n;
  if (op->s->tr) return lsock_untransported(op);
  if (op->address) {
    int r = lsock_step_address(L, op);
    if (r < 0 || (r = lsock_step_policy(L, op, LSOCK_SENDTO(op->flags))) < 0) return r;
  }
  attach(m->control, &h, m->control ? m->control->size : 0);
  if (op->address) {
    h.msg_name = &op->addr.u;
    h.msg_namelen = op->addr.len;
  }
  h.msg_iov = m->iov;
  h.msg_iovlen = m->count;
  put_descriptors(L, m);
  n = sendmsg(op->s->fd, &h, op->flags | LSOCK_NOSIGNAL | LSOCK_DONTWAIT(op));
  if (n < 0) {
    int r = lsock_again(op, LSOCK_WRITE);
    /* as in sendto: poll(2) knows nothing of that queue */
    if (r == LSOCK_WRITE && op->address && op->s->family == AF_UNIX && op->timeout != 0)
      return lsock_pause(L, op, LSOCK_RETRY);
    return r;
  }
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* The pieces to send: the bytes at `arg`, or a list of such. */
static Msg *check_pieces(lua_State *L, lsock_Op *op, int arg) {
  size_t count, i;
  Msg *m;
  if (lua_type(L, arg) != LUA_TTABLE) {
    m = new_msg(L, op, 1);
    m->iov[0].iov_base = (void *)(uintptr_t)lsock_checkbytes(L, arg, &m->iov[0].iov_len);
    return m;
  }
  count = check_list(L, arg, LIST_MAX, "too many buffers");
  m = new_msg(L, op, count);
  lua_createtable(L, (int)count, 0); /* keeps the pieces while this waits */
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, arg, (lua_Integer)i + 1);
    m->iov[i].iov_base = (void *)(uintptr_t)lsock_tobytes(L, -1, &m->iov[i].iov_len);
    if (!m->iov[i].iov_base)
      luaL_argerror(L, arg, lua_pushfstring(L, "item %d is a %s, not bytes", (int)i + 1, luaL_typename(L, -1)));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return m;
}

/* Room for one control message of `len` bytes at *at; pointer to its data. */
static unsigned char *put_header(Control *c, size_t *at, int level, int type, size_t len) {
  struct cmsghdr *h = (struct cmsghdr *)(void *)(CONTROL_BYTES(c) + *at);
  h->cmsg_level = level;
  h->cmsg_type = type;
  h->cmsg_len = CMSG_LEN(len);
  *at += CMSG_SPACE(len);
  return CMSG_DATA(h);
}

static int item_int(lua_State *L, int arg, int item, int field) {
  int ok;
  lua_Integer v;
  lsock_getitem(L, item, field + 1, item_fields[field]);
  v = lua_tointegerx(L, -1, &ok);
  if (!ok || v < INT_MIN || v > INT_MAX)
    luaL_argerror(L, arg, lua_pushfstring(L, "%s of an item must be an integer", item_fields[field]));
  lua_pop(L, 1);
  return (int)v;
}

typedef struct Item {
  int level, type;
  const char *data;
  size_t len;
} Item;

/* Reads item i of the list at `arg`; pushes the item and its data. Received descriptors are passed on, not taken. */
static void push_item(lua_State *L, int arg, lua_Integer i, Item *it) {
  const Rights *r;
  int item;
  lua_rawgeti(L, arg, i);
  item = lua_gettop(L);
  if ((r = to_rights(L, item)) != NULL) {
    it->level = r->c->cmsg_level;
    it->type = r->c->cmsg_type;
    it->len = data_length(r->c);
    it->data = (const char *)CMSG_DATA(r->c);
    if (lua_getiuservalue(L, item, 2) != LUA_TSTRING) return;
    if (lua_rawlen(L, -1) != it->len) lsock_tampered(L);
    it->data = lua_tostring(L, -1);
    return;
  }
  if (!lua_istable(L, item))
    luaL_argerror(L, arg, lua_pushfstring(L, "item %d must be a table {level, type, data}", (int)i));
  it->level = item_int(L, arg, item, 0);
  it->type = item_int(L, arg, item, 1);
  it->data = lsock_getitem(L, item, 3, "data") == LUA_TNUMBER ? NULL : lsock_tobytes(L, -1, &it->len);
  while (!it->data) luaL_argerror(L, arg, "data of an item must be bytes"); /* which does not return */
}

/* Numbers of descriptors that an item would pass on: the host is asked, as by send_fds. */
static int may_pass(lua_State *L, const Item *it) {
#if defined(SCM_RIGHTS)
  if (it->level == SOL_SOCKET && it->type == SCM_RIGHTS) return may_each(L, "fromfd", it->data, it->len);
#endif
  (void)L, (void)it;
  return 1;
}

/* 0, or the number of results of a failure. */
static int check_items(lua_State *L, const lsock_Op *op, Msg *m, int arg) {
  size_t n, size = 0, at = 0;
  int passed_on = 0;
  lua_Integer i;
  Item it;
  if (lua_isnoneornil(L, arg)) return 0;
  n = check_list(L, arg, CONTROL_MAX, "too much ancillary data");
  if (n == 0) return 0;
  for (i = 1; (size_t)i <= n; i++) {
    push_item(L, arg, i, &it);
    luaL_argcheck(L, it.len <= (size_t)CONTROL_MAX && size + CMSG_SPACE(it.len) <= (size_t)CONTROL_MAX, arg,
                  "too much ancillary data");
    size += CMSG_SPACE(it.len);
    passed_on |= lua_isuserdata(L, -2);
    lua_pop(L, 2);
  }
  m->control = new_control(L, size);
  if (passed_on) lua_createtable(L, (int)n, 0); /* keeps those descriptors open while this waits */
  for (i = 1; (size_t)i <= n; i++) {
    push_item(L, arg, i, &it);
    /* memory was allocated since: a finalizer may have changed the list */
    luaL_argcheck(L, it.len <= size && CMSG_SPACE(it.len) <= size - at && passed_on >= lua_isuserdata(L, -2), arg,
                  "ancillary data changes");
    if (!lsock_may_send_item(lsock_core(L), op->s, it.level, it.type))
      return lsock_failrefused(L, op->name, "setsockopt", op->s);
    if ((!lua_isuserdata(L, -2) || lua_isstring(L, -1)) && !may_pass(L, &it))
      return lsock_failrefused(L, op->name, "fromfd", NULL);
    memcpy(put_header(m->control, &at, it.level, it.type, it.len), it.data, it.len);
    lua_pop(L, 1);
    if (passed_on)
      lua_rawseti(L, -2, i);
    else
      lua_pop(L, 1);
  }
  return 0;
}

static void opt_address(lua_State *L, lsock_Op *op, int arg) {
  if (lua_isnoneornil(L, arg)) return;
  op->address = arg;
  if (lsock_getaddr(L, arg, op->s->family, op->s->proto, &op->addr)) lsock_lookup(L, op);
}

/*
** s:sendmsg(buffers [, ancdata [, flags [, address]]]) -> count of bytes sent
** buffers: bytes or a list of bytes, sent as one message; ancdata: list of {level, type, data} (sendmsg(2)).
*/
static int sock_sendmsg(lua_State *L) {
  lsock_Op op;
  int r;
  lsock_op(L, &op, "sendmsg", step_sendmsg, LSOCK_WR);
  lua_settop(L, 5);
  if ((r = check_items(L, &op, check_pieces(L, &op, 2), 3)) != 0) return r;
  lsock_optflags(L, 4, &op, LSOCK_SEND_NOW);
  opt_address(L, &op, 5);
  return lsock_run(L, &op);
}

/*
** socket.send_fds(sock, buffers, fds [, flags [, address]]) -> count of bytes sent
** fds: list of descriptors, sockets or Lua files. At least one byte must go with them on a stream.
*/
static int mod_send_fds(lua_State *L) {
  lsock_Op op;
  Msg *m;
  size_t n, i, at = 0;
  lsock_op(L, &op, "send_fds", step_sendmsg, LSOCK_WR);
  lua_settop(L, 5);
  m = check_pieces(L, &op, 2);
  n = check_list(L, 3, LIST_MAX, "too many descriptors");
  if (n > 0) {
    m->control = new_control(L, CMSG_SPACE(n * sizeof(int)));
    put_header(m->control, &at, SOL_SOCKET, SCM_RIGHTS, n * sizeof(int));
    lua_createtable(L, (int)n, 0); /* none of them is collected while this waits */
    m->fds_at = lua_gettop(L);
    for (i = 1; i <= n; i++) {
      lua_rawgeti(L, 3, (lua_Integer)i);
      lua_rawseti(L, -2, (lua_Integer)i);
    }
    m->fds = (int)n;
    put_descriptors(L, m);
  }
  lsock_optflags(L, 4, &op, LSOCK_SEND_NOW);
  opt_address(L, &op, 5);
  return lsock_run(L, &op);
}

#if defined(ALG_SET_OP) && defined(SOL_ALG)

/* Option `name` of the table at 3, an unsigned 32-bit integer; 0 if absent. */
static int alg_int(lua_State *L, const char *name, uint32_t *value) {
  int ok;
  lua_Integer v;
  if (lua_getfield(L, 3, name) == LUA_TNIL) {
    lua_pop(L, 1);
    return 0;
  }
  v = lua_tointegerx(L, -1, &ok);
  if (!ok || v < 0 || v > UINT32_MAX) luaL_argerror(L, 3, lua_pushfstring(L, "%s must be 0-4294967295", name));
  *value = (uint32_t)v;
  lua_pop(L, 1);
  return 1;
}

/*
** s:sendmsg_afalg(buffers, {op = ALG_OP_..., iv = bytes, assoclen =, flags =}) -> count of bytes sent
** For AF_ALG operation sockets (Linux's kernel crypto interface).
*/
static int sock_sendmsg_afalg(lua_State *L) {
  static const char *const keys[] = {"op", "iv", "assoclen", "flags", NULL};
  lsock_Op op;
  Msg *m;
  uint32_t operation = 0, assoc = 0, ivlen;
  size_t len = 0, at = 0, size = CMSG_SPACE(sizeof operation);
  const char *iv = NULL;
  int has_assoc;
  lsock_op(L, &op, "sendmsg_afalg", step_sendmsg, LSOCK_WR);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  lsock_checkkeys(L, 3, keys);
  if (!alg_int(L, "op", &operation)) luaL_argerror(L, 3, "option 'op' is missing");
  has_assoc = alg_int(L, "assoclen", &assoc);
  if (has_assoc) size += CMSG_SPACE(sizeof assoc);
  if (lua_getfield(L, 3, "iv") != LUA_TNIL) {
    iv = lsock_tobytes(L, -1, &len);
    luaL_argcheck(L, iv, 3, "iv must be bytes");
    luaL_argcheck(L, len <= 4096, 3, "iv is longer than 4096 bytes");
    size += CMSG_SPACE(sizeof ivlen + len);
  }
  if (lua_getfield(L, 3, "flags") != LUA_TNIL && !lua_isinteger(L, -1)) luaL_argerror(L, 3, "flags must be an integer");
  lsock_optflags(L, -1, &op, LSOCK_SEND_NOW);
  m = check_pieces(L, &op, 2);
  m->control = new_control(L, size);
  memcpy(put_header(m->control, &at, SOL_ALG, ALG_SET_OP, sizeof operation), &operation, sizeof operation);
  if (iv) {
    unsigned char *p = put_header(m->control, &at, SOL_ALG, ALG_SET_IV, sizeof ivlen + len);
    ivlen = (uint32_t)len;
    memcpy(p, &ivlen, sizeof ivlen);
    memcpy(p + sizeof ivlen, iv, len);
  }
  if (has_assoc)
    memcpy(put_header(m->control, &at, SOL_ALG, ALG_SET_AEAD_ASSOCLEN, sizeof assoc), &assoc, sizeof assoc);
  return lsock_run(L, &op);
}

#endif

/* ---------------------------------------------------------------- sizes */

static size_t check_data_length(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 0 && n <= INT_MAX - 64, 1, "length is negative or too large");
  return (size_t)n;
}

/* socket.CMSG_LEN(n) -> ancbufsize for one item of n bytes, without padding (cmsg(3)) */
static int mod_cmsg_len(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)CMSG_LEN(check_data_length(L)));
  return 1;
}

/* socket.CMSG_SPACE(n) -> the same with padding: sum it for several items */
static int mod_cmsg_space(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)CMSG_SPACE(check_data_length(L)));
  return 1;
}

/* ---------------------------------------------------------------- opening */

const lsock_Reg lsock_msg_methods[] = {{"!recvmsg", sock_recvmsg},
                                       {"!recvmsg_into", sock_recvmsg_into},
                                       {"!sendmsg", sock_sendmsg},
#if defined(ALG_SET_OP) && defined(SOL_ALG)
                                       {"!sendmsg_afalg", sock_sendmsg_afalg},
#endif
                                       {NULL, NULL}};

static const lsock_Reg msg_functions[] = {{"CMSG_LEN", mod_cmsg_len},
                                          {"CMSG_SPACE", mod_cmsg_space},
                                          {"!recv_fds", mod_recv_fds},
                                          {"!send_fds", mod_send_fds},
                                          {NULL, NULL}};

static const lsock_Reg control_meta[] = {{"__gc", control_gc}, {NULL, NULL}};
static const lsock_Reg rights_meta[] = {{"__index", rights_index}, {"__len", rights_len}, {NULL, NULL}};

static void new_meta(lua_State *L, int core, const char *name, const lsock_Reg *regs, int uv) {
  lua_createtable(L, 0, 4);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, regs);
  lua_setiuservalue(L, core, uv);
}

void lsock_open_msg(lua_State *L, int core) {
  lsock_register(L, core, msg_functions);
  new_meta(L, core, "socket control buffer", control_meta, LSOCK_UV_CONTROL);
  new_meta(L, core, "socket descriptors", rights_meta, LSOCK_UV_RIGHTS);
}
