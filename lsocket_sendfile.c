/*
** lsocket_sendfile.c: sending files: by sendfile(2) where the system has it, else by reading and sending.
*/
#include "lsocket_int.h"

#include <stdio.h>
#include <string.h>

#define PIECE 65536            /* read and sent at once */
#define MOST ((size_t)1 << 30) /* asked of the kernel at once */
#define SHARE 16               /* pieces sent before other coroutines have their turn */

typedef enum Way { BY_KERNEL, BY_POSITION, BY_STREAM } Way;

/* A userdata at op->slot. */
typedef struct Source {
  const luaL_Stream *lua; /* a Lua file, or NULL for a path */
  FILE *stream;           /* what it holds */
  int file;
  Way way;
  int64_t size; /* when it began; < 0: unknown */
  int64_t at;   /* where the next bytes are read */
  int64_t left; /* bytes still wanted; < 0: all */
  int64_t sent;
  size_t from, to; /* of `piece`: read but not sent */
  char *piece;     /* PIECE bytes, once needed */
} Source;

static int is_open(const luaL_Stream *s) {
  return s->closef && s->f;
}

static size_t wanted(const Source *f, size_t most) {
  if (f->size > f->at && (uint64_t)(f->size - f->at) < most) most = (size_t)(f->size - f->at);
  return f->left >= 0 && (uint64_t)f->left < most ? (size_t)f->left : most;
}

static void sent(Source *f, size_t n) {
  f->sent += (int64_t)n;
  f->at += (int64_t)n;
  if (f->left >= 0) f->left -= (int64_t)n;
}

/* One system call: 1 when something was sent, 0 at the end, < 0 as a step. */
static int by_kernel(lsock_Op *op, Source *f) {
  ssize_t n = lsock_plat_sendfile(op->s->fd, f->file, f->at, wanted(f, MOST));
  if (n < 0) return lsock_again(op, LSOCK_WRITE);
  sent(f, (size_t)n);
  return n > 0;
}

/* Was the Lua file closed meanwhile? */
static int gone(lsock_Op *op, const Source *f) {
  if (!f->lua || is_open(f->lua)) return 0;
  op->err = ECANCELED;
  op->msg = "file was closed while waiting";
  return 1;
}

static int read_piece(lsock_Op *op, Source *f) {
  ssize_t n;
  if (gone(op, f)) return LSOCK_FAIL; /* by a finalizer, or a callback while the last piece was sent */
  if (f->way == BY_STREAM) {
    clearerr(f->stream); /* of an interrupted read before */
    n = (ssize_t)fread(f->piece, 1, wanted(f, PIECE), f->stream);
    if (n == 0 && ferror(f->stream)) n = -1;
  } else
    n = lsock_plat_readat(f->file, f->piece, wanted(f, PIECE), f->at);
  if (n < 0) {
    op->err = errno;
    return errno == EINTR ? LSOCK_INTR : LSOCK_FAIL;
  }
  f->from = 0;
  f->to = (size_t)n;
  return n > 0;
}

static int send_piece(lua_State *L, lsock_Op *op, Source *f) {
  ssize_t n = lsock_transmit(L, op, f->piece + f->from, f->to - f->from, 0);
  if (n < 0) return (int)n;
  f->from += (size_t)n;
  sent(f, (size_t)n);
  return 1;
}

/* The Lua file's position is after what was sent, if anything was. */
static void set_position(const Source *f) {
  if (f->lua && f->sent > 0 && f->way != BY_STREAM && is_open(f->lua)) (void)fseeko(f->stream, (off_t)f->at, SEEK_SET);
}

/* One system call after the other until one must wait, or has sent something while there is more. */
static int step_sendfile(lua_State *L, lsock_Op *op) {
  Source *f = lua_touserdata(L, op->slot);
  int r = 0, pieces = 0;
  if (gone(op, f)) return LSOCK_FAIL;
  if (op->nowait) lsock_mode(op->s, 1);
  while (f->left != 0 && f->way == BY_KERNEL) {
    if (r > 0 && f->at < f->size) return lsock_further(op, LSOCK_WRITE);
    r = by_kernel(op, f);
    if (r == LSOCK_FAIL && op->err == ENOSYS)
      f->way = BY_POSITION;
    else if (r < 0)
      return r;
    else if (r == 0)
      break;
  }
  if (f->way != BY_KERNEL && !f->piece) {
    luaL_checkstack(L, 4, "sendfile");
    f->piece = lua_newuserdatauv(L, PIECE, 0);
    lsock_keepstack(L, op);
  }
  while (f->left != 0 && f->way != BY_KERNEL) {
    r = f->from < f->to ? 1 : read_piece(op, f);
    if (r < 0) return r;
    if (r == 0) break;
    if (pieces > 0 && (!op->coop || f->from > 0 || pieces >= SHARE)) return lsock_further(op, LSOCK_WRITE);
    r = send_piece(L, op, f);
    if (r < 0) return r;
    pieces++;
  }
  set_position(f);
  lua_pushinteger(L, (lua_Integer)f->sent);
  return 1;
}

/* e.sent */
static int note_sent(lua_State *L, lsock_Op *op) {
  Source *f = lua_touserdata(L, op->slot);
  set_position(f);
  lsock_pushextra(L, op);
  lua_pushinteger(L, (lua_Integer)f->sent);
  lua_setfield(L, -2, "sent");
  return -1;
}

static const char *check_path(lua_State *L, int arg) {
  size_t len;
  const char *path;
  if (lua_type(L, arg) != LUA_TSTRING) luaL_typeerror(L, arg, "file or path");
  path = lua_tolstring(L, arg, &len);
  luaL_argcheck(L, strlen(path) == len, arg, "path contains a zero byte");
  return path;
}

/* Opens the path at 2, closed again when the operation ends; 0, or an errno. */
static int open_path(lua_State *L, lsock_Core *core, Source *f) {
  const char *path = check_path(L, 2);
  lsock_Sock *holder = lsock_newsock(L, core); /* any descriptor may lie in a socket object */
  holder->internal = 1;
  holder->shared = 1;
  holder->timeout = -1;
  f->file = lsock_plat_openfile(path);
  if (f->file < 0 && lsock_reclaim(L)) f->file = lsock_plat_openfile(path);
  if (f->file < 0) return errno;
  lsock_open(L, holder, f->file, AF_UNSPEC, 0, 0);
  lua_toclose(L, -1);
  return 0;
}

/*
** s:sendfile(file [, offset [, count]]) -> count of bytes sent. file: a Lua file or a path; from byte `offset` (default 0)
** up to the end or `count` bytes. A file without positions (io.popen) is read on from where it is. The socket must be a
** stream. As in Python the file's position is afterwards, also after an error, behind the last byte sent, if any was.
*/
static int sock_sendfile(lua_State *L) {
  lsock_Op op;
  Source *f;
  lua_Integer offset = luaL_optinteger(L, 3, 0), count = luaL_optinteger(L, 4, -1);
  lsock_op(L, &op, "sendfile", step_sendfile, LSOCK_MODAL);
  luaL_argcheck(L, offset >= 0, 3, "offset must not be negative");
  luaL_argcheck(L, count >= 0 || lua_isnoneornil(L, 4), 4, "count must not be negative");
  luaL_argcheck(L, op.s->type == SOCK_STREAM, 1, "a stream socket is needed");
  lua_settop(L, 4);
  f = lua_newuserdatauv(L, sizeof *f, 0);
  memset(f, 0, sizeof *f);
  op.slot = lua_gettop(L);
  op.partial = note_sent;
  f->at = offset;
  f->left = count;
  if (op.s->tr) f->way = BY_POSITION;
  f->lua = luaL_testudata(L, 2, LUA_FILEHANDLE);
  if (f->lua) {
    luaL_argcheck(L, is_open(f->lua), 2, "file is closed");
    f->stream = f->lua->f;
    f->file = fileno(f->stream);
    fflush(f->stream);
  } else if (lsock_isclosed(op.s)) {
    check_path(L, 2);
    return lsock_run(L, &op);
  } else {
    int err = lsock_admit_other(L, "sendfile", "open");
    if (err) return err;
    err = open_path(L, op.core, f);
    if (err) return lsock_failno(L, err, "sendfile");
  }
  f->size = lsock_plat_filesize(f->file);
  if (f->size < 0) {
    luaL_argcheck(L, f->lua, 2, "not a regular file");
    luaL_argcheck(L, offset == 0, 3, "this file has no positions");
    f->way = BY_STREAM;
  }
  return lsock_run(L, &op);
}

const lsock_Reg lsock_sendfile_methods[] = {{"!sendfile", sock_sendfile}, {NULL, NULL}};
