/*
** lsocket_io.c: receiving and sending.
*/
#include "lsocket_int.h"

#include <limits.h>
#include <string.h>

/* Receive buffers up to this size are shared by all sockets of a state. */
#define SCRATCH_MAX 262144

/* One receive is never asked for more: ssize_t must hold the count on any platform. */
#define RECEIVE_MAX (INT_MAX - 1)

size_t lsock_checksize(lua_State *L, int arg) {
  lua_Integer n = luaL_checkinteger(L, arg);
  luaL_argcheck(L, n >= 0, arg, "size must not be negative");
  luaL_argcheck(L, n <= RECEIVE_MAX, arg, "size is too large");
  return (size_t)n;
}

void lsock_optflags(lua_State *L, int arg, lsock_Op *op, int now) {
  lua_Integer v = lua_gettop(L) < arg ? 0 : luaL_optinteger(L, arg, 0); /* mostly none: faster so */
  luaL_argcheck(L, v >= INT_MIN && v <= INT_MAX, arg, "flags do not fit a C int");
  luaL_argcheck(L, !(v & LSOCK_ZEROCOPY), arg, "MSG_ZEROCOPY is not possible: the bytes are Lua's");
  op->flags = (int)v;
  if (op->flags & now) op->timeout = 0;
}

/* The host's limit, looked at only where the buffer at hand, which is within it, does not do. */
static size_t allowed(lua_State *L, const lsock_Op *op) {
  return lsock_bound(L, 2, op->len);
}

/* No userdata, which the debug library could let go of: it would be freed while it is in use. */
LSOCK_RARE static char *grow_scratch(lua_State *L, lsock_Core *core, size_t n) {
  size_t size = 4096;
  void *ud, *p;
  lua_Alloc f = lua_getallocf(L, &ud);
  while (size < n) size *= 2;
  if (core->receive_max && size > core->receive_max) size = core->receive_max;
  lsock_freescratch(L, core);
  p = f(ud, NULL, LUA_TUSERDATA, size);
  if (!p) {
    lua_gc(L, LUA_GCCOLLECT);
    p = f(ud, NULL, LUA_TUSERDATA, size);
  }
  if (!p) luaL_error(L, "not enough memory");
  lsock_freescratch(L, core); /* of a finalizer's receive */
  core->scratch = p;
  core->scratch_size = size;
  return p;
}

void lsock_freescratch(lua_State *L, lsock_Core *core) {
  void *ud;
  lua_Alloc f = lua_getallocf(L, &ud);
  if (core->scratch) f(ud, core->scratch, core->scratch_size, 0);
  core->scratch = NULL;
  core->scratch_size = 0;
}

/*
** The shared scratch buffer holds its bytes only until the step returns; what must outlive a wait, or is larger, has a
** userdata of its own, on the stack.
*/
char *lsock_room(lua_State *L, lsock_Op *op) {
  lsock_Core *core = op->core;
  if (op->into) return op->into;
  if (lsock_likely(op->len <= core->scratch_size)) return core->scratch;
  if (op->len <= SCRATCH_MAX) return grow_scratch(L, core, allowed(L, op));
  return lsock_ownroom(L, op);
}

char *lsock_ownroom(lua_State *L, lsock_Op *op) {
  if (op->into) return op->into;
  op->into = lua_newuserdatauv(L, allowed(L, op), 0);
  lsock_keepstack(L, op);
  return op->into;
}

/* Zero bytes mean the end where there are no message boundaries, or where a message cannot be empty. */
static int is_end(const lsock_Op *op, ssize_t n) {
#if defined(MSG_ERRQUEUE)
  if (op->flags & MSG_ERRQUEUE) return 0; /* a queued error need not have bytes */
#endif
  return n == 0 && op->len > 0 && (op->s->type == SOCK_STREAM || op->s->type == SOCK_SEQPACKET);
}

void lsock_pushreceived(lua_State *L, const lsock_Op *op, const char *p, ssize_t n) {
  if (is_end(op, n))
    lua_pushnil(L);
  else if (op->state == LSOCK_COUNT)
    lua_pushinteger(L, (lua_Integer)n);
  else
    lua_pushlstring(L, p, (size_t)n < op->len ? (size_t)n : op->len); /* MSG_TRUNC may count more */
}

/* ---------------------------------------------------------------- recv */

static int step_recv(lua_State *L, lsock_Op *op) {
  char *p = lsock_room(L, op);
  ssize_t n = lsock_receive(L, op, p, op->len, op->flags);
  if (n < 0) return (int)n;
  lsock_pushreceived(L, op, p, n);
  return 1;
}

#if defined(MSG_WAITALL)
LSOCK_RARE static int all_received(lua_State *L, lsock_Op *op) {
  lsock_pushreceived(L, op, op->into, (ssize_t)op->done);
  return 1;
}

/* A timeout gives what there is. Another failure, of which the system tells but once, has it in e.partial. */
LSOCK_RARE static int some_received(lua_State *L, lsock_Op *op) {
  if (op->done == 0) return -1;
  if (op->cls == LSOCK_TIMEOUT || op->err == EAGAIN) return all_received(L, op);
  lsock_pushextra(L, op);
  all_received(L, op);
  lua_setfield(L, -2, "partial");
  return -1;
}

/* MSG_WAITALL where the kernel may not or does not wait for all */
LSOCK_RARE static int step_recv_all(lua_State *L, lsock_Op *op) {
  ssize_t n = lsock_receive(L, op, op->into + op->done, op->len - op->done, op->flags);
  if (n < 0) return (int)n;
  op->done += (size_t)n;
  if (n > 0 && op->done < op->len) return lsock_further(op, LSOCK_READ);
  return all_received(L, op);
}
#endif

/* Flags beyond the plain case. */
LSOCK_RARE static void receive_flags(lua_State *L, lsock_Op *op) {
#if defined(MSG_WAITALL)
  if ((op->flags & MSG_WAITALL) && !(op->flags & MSG_PEEK) && op->s->type == SOCK_STREAM && op->step == step_recv) {
    lsock_ownroom(L, op);
    op->step = step_recv_all;
    op->partial = some_received;
  }
#endif
#if defined(MSG_TRUNC)
  /* The kernel may then count bytes that it never wrote (tcp(7)). */
  if ((op->flags & MSG_TRUNC) && op->state != LSOCK_COUNT) memset(lsock_ownroom(L, op), 0, op->len);
#endif
}

/* Arguments from `arg` on, (buffer [, nbytes [, flags]]), for the _into forms. */
LSOCK_RARE static void into_args(lua_State *L, lsock_Op *op, int arg) {
  lua_Integer n;
  op->into = lsock_checkbuffer(L, arg, &op->len);
  op->state = LSOCK_COUNT;
  n = luaL_optinteger(L, arg + 1, 0);
  luaL_argcheck(L, n >= 0, arg + 1, "nbytes must not be negative");
  luaL_argcheck(L, (lua_Unsigned)n <= op->len, arg + 1, "nbytes is more than the buffer has");
  if (n > 0) op->len = (size_t)n;
  if (op->len > RECEIVE_MAX) op->len = RECEIVE_MAX;
  lsock_optflags(L, arg + 2, op, LSOCK_RECEIVE_NOW);
  if (op->flags) receive_flags(L, op);
}

/* s:recv(size [, flags]) -> string, nil at the end of the stream (recv(2)) */
static int sock_recv(lua_State *L) {
  lsock_Op op;
  lsock_op(L, &op, "recv", step_recv, LSOCK_RD);
  op.len = lsock_checksize(L, 2);
  lsock_optflags(L, 3, &op, LSOCK_RECEIVE_NOW);
  if (op.len == 0 && !lsock_isclosed(op.s)) {
    lua_pushliteral(L, "");
    return 1;
  }
  if (op.flags) receive_flags(L, &op);
  return lsock_run(L, &op);
}

/* As lsock_op and lsock_run, for methods that are called less often than recv and send: one copy for all of them. */
static LSOCK_NOINLINE void begin(lua_State *L, lsock_Op *op, const char *name, lsock_Step step, int dir) {
  lsock_op(L, op, name, step, dir);
}

static LSOCK_NOINLINE int run(lua_State *L, lsock_Op *op) {
  return lsock_run(L, op);
}

/* s:recv_into(buffer [, nbytes [, flags]]) -> count, nil at the end of the stream; nbytes 0: the buffer's size */
static int sock_recv_into(lua_State *L) {
  lsock_Op op;
  begin(L, &op, "recv_into", step_recv, LSOCK_RD);
  into_args(L, &op, 2);
  if (op.len == 0 && !lsock_isclosed(op.s)) {
    lua_pushinteger(L, 0);
    return 1;
  }
  return run(L, &op);
}

static int step_recvfrom(lua_State *L, lsock_Op *op) {
  char *p = lsock_room(L, op);
  ssize_t n;
  if (op->s->tr) return lsock_untransported(op);
  op->addr.len = sizeof op->addr.u;
  n = recvfrom(op->s->fd, p, op->len, op->flags | LSOCK_DONTWAIT(op), &op->addr.u.sa, &op->addr.len);
  if (n < 0) return lsock_again(op, LSOCK_READ);
  if (op->addr.len > sizeof op->addr.u) op->addr.len = sizeof op->addr.u;
  lsock_pushreceived(L, op, p, n);
  lsock_pushaddr(L, op->s->proto, &op->addr);
  return 2;
}

/* s:recvfrom(size [, flags]) -> string, address (recvfrom(2)) */
static int sock_recvfrom(lua_State *L) {
  lsock_Op op;
  begin(L, &op, "recvfrom", step_recvfrom, LSOCK_RD);
  op.len = lsock_checksize(L, 2);
  lsock_optflags(L, 3, &op, LSOCK_RECEIVE_NOW);
  if (op.flags) receive_flags(L, &op);
  return run(L, &op);
}

/* s:recvfrom_into(buffer [, nbytes [, flags]]) -> count, address */
LSOCK_RARE static int sock_recvfrom_into(lua_State *L) {
  lsock_Op op;
  begin(L, &op, "recvfrom_into", step_recvfrom, LSOCK_RD);
  into_args(L, &op, 2);
  return run(L, &op);
}

/* ---------------------------------------------------------------- send */

static int step_send(lua_State *L, lsock_Op *op) {
  ssize_t n = lsock_transmit(L, op, op->data, op->len, op->flags);
  if (n < 0) return (int)n;
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* s:send(bytes [, flags]) -> count of bytes sent, perhaps fewer than given (send(2)) */
static int sock_send(lua_State *L) {
  lsock_Op op;
  size_t len;
  lsock_op(L, &op, "send", step_send, LSOCK_WR);
  op.data = lsock_checkbytes(L, 2, &len);
  op.len = len;
  lsock_optflags(L, 3, &op, LSOCK_SEND_NOW);
  return lsock_run(L, &op);
}

static int step_sendall(lua_State *L, lsock_Op *op) {
  ssize_t n = lsock_transmit(L, op, op->data + op->done, op->len - op->done, op->flags);
  if (n < 0) return (int)n;
  op->done += (size_t)n;
  if (op->done < op->len) return lsock_further(op, LSOCK_WRITE);
  lua_pushvalue(L, 1);
  return 1;
}

/* e.sent */
LSOCK_RARE static int note_sent(lua_State *L, lsock_Op *op) {
  lsock_pushextra(L, op);
  lua_pushinteger(L, (lua_Integer)op->done);
  lua_setfield(L, -2, "sent");
  return -1;
}

/* s:sendall(bytes [, flags]) -> s, when all are sent; an error says in .sent how many were */
static int sock_sendall(lua_State *L) {
  lsock_Op op;
  lsock_op(L, &op, "sendall", step_sendall, LSOCK_WR);
  op.data = lsock_checkbytes(L, 2, &op.len);
  lsock_optflags(L, 3, &op, LSOCK_SEND_NOW);
  op.partial = note_sent;
  return lsock_run(L, &op);
}

static int step_sendto(lua_State *L, lsock_Op *op) {
  ssize_t n;
  int r;
  if (op->s->tr) return lsock_untransported(op);
  r = lsock_step_address(L, op);
  if (r < 0 || (r = lsock_step_policy(L, op, LSOCK_SENDTO(op->flags))) < 0) return r;
  n = sendto(op->s->fd, op->data, op->len, op->flags | LSOCK_NOSIGNAL | LSOCK_DONTWAIT(op), &op->addr.u.sa,
             op->addr.len);
  if (n < 0) {
    r = lsock_again(op, LSOCK_WRITE);
    /* poll(2) knows nothing of the queue of a Unix socket that this one is not connected to */
    if (r == LSOCK_WRITE && op->s->family == AF_UNIX && op->timeout != 0) return lsock_pause(L, op, LSOCK_RETRY);
    return r;
  }
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* s:sendto(bytes [, flags], address) -> count of bytes sent (sendto(2)) */
static int sock_sendto(lua_State *L) {
  lsock_Op op;
  begin(L, &op, "sendto", step_sendto, LSOCK_WR);
  op.data = lsock_checkbytes(L, 2, &op.len);
  op.address = lua_isnone(L, 4) ? 3 : 4;
  op.flags = 0;
  if (op.address == 4) lsock_optflags(L, 3, &op, LSOCK_SEND_NOW);
  if (lsock_getaddr(L, op.address, op.s->family, op.s->proto, &op.addr)) lsock_lookup(L, &op);
  return run(L, &op);
}

const lsock_Reg lsock_io_methods[] = {{"!recv", sock_recv},         {"!recv_into", sock_recv_into},
                                      {"!recvfrom", sock_recvfrom}, {"!recvfrom_into", sock_recvfrom_into},
                                      {"!send", sock_send},         {"!sendall", sock_sendall},
                                      {"!sendto", sock_sendto},     {NULL, NULL}};
