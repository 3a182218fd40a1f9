/*
** lsocket_file.c: makefile: a socket with the methods of Lua's files.
**
** A read takes nothing out of its buffer before all its formats are satisfied, so one that timed out or was interrupted
** can be repeated and has lost nothing. The descriptor is open until the socket and all its files are closed.
*/
#include "lsocket_int.h"

#include <limits.h>
#include <string.h>

#define DEFAULT_SIZE 8192
#define SMALL ((size_t)1024) /* the first buffer: many connections have little to say at a time */
#define SIZE_MAX_BUF ((size_t)1 << 30)
#define KEPT 65536 /* a larger buffer than this, and than asked for, is given back once it is empty */
#define SHARE 4096 /* bytes received before others have their turn */

typedef enum Buffering { NONE, LINE, FULL } Buffering;

/* User values: 1 the socket, 2 and 3 the memory of `in` and `out`. */
enum { UV_SOCKET = 1, UV_IN, UV_OUT };

typedef struct Bytes {
  char *p;
  size_t room, from, to; /* the bytes from .. to - 1 are waiting */
} Bytes;

typedef struct File {
  uintptr_t seal;
  lsock_Sock *s; /* NULL when closed */
  Bytes in, out;
  size_t size, out_size; /* of the buffers when there is much to read, to write */
  size_t limit;          /* the longest line, numeral or rest of a stream that may be read */
  unsigned turn;         /* counts what was taken out of `in`, to notice that somebody else did */
  size_t seen_at, seen;  /* bytes of `in` looked at in vain, from there on ... */
  int seen_for;          /* ... for the format 'l' or 'n', so that they need not be again */
  int readable, writable;
  int full; /* the last read filled the buffer: more is coming */
  Buffering buffering;
} File;

LSOCK_BEGINS_WITH_SEAL(File);

static File *to_file(lua_State *L, int idx) {
  return lsock_object(L, idx, LSOCK_KIND_FILE, sizeof(File));
}

static File *check_file(lua_State *L, int arg) {
  File *f = to_file(L, arg);
  if (!f) luaL_typeerror(L, arg, "socket file");
  return f;
}

/* ---------------------------------------------------------------- buffers */

static size_t waiting(const Bytes *b) {
  return b->to - b->from;
}

/* Room for `n` more bytes after those that wait; the file is at stack index 1. */
static void reserve(lua_State *L, Bytes *b, int uv, size_t n, size_t size) {
  size_t limit = lsock_core(L)->receive_max;
  while (b->room - b->to < n) {
    size_t need = waiting(b) + n;
    if (need > SIZE_MAX_BUF) luaL_error(L, "not enough memory");
    if (need <= b->room) {
      memmove(b->p, b->p + b->from, waiting(b));
    } else {
      char *p;
      if (need < size) need = size;
      if (need < b->room * 2) need = b->room * 2;
      if (limit && need > limit && waiting(b) + n <= limit) need = limit;
      p = lua_newuserdatauv(L, need, 0);
      if (b->room >= need || waiting(b) > need - n) { /* a finalizer that ran now has used this file */
        lua_pop(L, 1);
        continue;
      }
      if (waiting(b) > 0) memcpy(p, b->p + b->from, waiting(b));
      lua_setiuservalue(L, 1, uv);
      b->p = p;
      b->room = need;
    }
    b->to = waiting(b);
    b->from = 0;
  }
}

static void reserve_in(lua_State *L, File *f, size_t want, size_t limit) {
  const Bytes *b = &f->in;
  size_t n = 1;
  if (want > f->size)
    n = want;
  else if (b->room < f->size && (f->full || want > SMALL || f->size < 2 * SMALL))
    n = f->size - waiting(b);
  else if (b->room == 0)
    n = SMALL;
  else if (b->to == b->room && waiting(b) > b->room / 2) /* a long line */
    n = b->room;
  if (limit && n > limit - waiting(b)) n = limit - waiting(b);
  reserve(L, &f->in, UV_IN, n, 0);
}

/* Room for what is to be written, as far as the buffer may hold that. */
static void reserve_out(lua_State *L, File *f, size_t n) {
  const Bytes *b = &f->out;
  if (n <= b->room - b->to || b->room >= f->out_size) return;
  if (b->room > 0 || n > SMALL || f->out_size < 2 * SMALL)
    n = f->out_size - waiting(b);
  else
    n = SMALL;
  reserve(L, &f->out, UV_OUT, n, 0);
}

/* ---------------------------------------------------------------- operations */

static int unusable(lua_State *L, const char *name, const char *what) {
  lsock_Fail e = {0};
  e.err = EBADF;
  e.op = name;
  e.msg = what;
  return lsock_fail(L, &e);
}

/*
** A callback of the transport, which at that moment has a pointer into a buffer, is to leave the buffers alone. The
** transport knows when that is over, however it ends.
*/
static int is_busy(const lsock_Sock *s) {
  return s->tr && s->tr->busy(s);
}

/* Was the file closed meanwhile, by another coroutine or a hook; or is this within a callback? */
static int gone(lsock_Op *op, const File *f) {
  if (f->s && !is_busy(f->s)) return 0;
  if (f->s) {
    op->err = EBUSY;
    op->msg = "a callback of this connection is running";
    return 1;
  }
  op->err = ECANCELED;
  op->msg = "file was closed while waiting";
  return 1;
}

/* An operation of the file at index 1 on its socket, which goes to the top of the stack. */
static void file_op(lua_State *L, lsock_Op *op, const char *name, lsock_Step step, int dir) {
  lua_getiuservalue(L, 1, UV_SOCKET);
  lsock_op_on(L, op, lua_gettop(L), name, step, dir);
  op->file = 1;
}

/* ---------------------------------------------------------------- reading */

/*
** A read in progress: op->done counts the bytes of `in` that finished formats use, op->state is the current one's number;
** op->slot is the stack index of the first of op->formats. The results of several formats wait in as many places after the
** socket's.
*/
/* A format's outcome: one value pushed, needs more bytes, no bytes and never will be, beyond the limit. */
enum { FOUND, MISSING, ENDED, EXCEEDED };

enum { MAYBE, NOTHING, SOMETHING }; /* what follows the bytes in `in` */

/*
** More bytes from the socket: one of the above, or < 0 as a step. At most `want` if nothing may be read ahead. *spent
** counts the bytes of one attempt, which is over when no more are likely to be there, or when it has had its share.
*/
static int fill(lua_State *L, lsock_Op *op, File *f, size_t want, size_t *spent) {
  ssize_t n;
  size_t most;
  if (*spent >= SHARE) return lsock_further(op, LSOCK_READ);
  if (op->core->receive_max && waiting(&f->in) + (want > 0 ? want : 1) > op->core->receive_max) {
    op->err = ENOBUFS;
    op->msg = "more than the host allows a file to hold";
    return LSOCK_FAIL;
  }
  if (*spent > 0 && op->timeout > 0) op->nowait = 1; /* the kernel's part of a timeout is for one call */
  if (want == 0 && f->size <= 1) {
    char c;
    n = lsock_receive(L, op, &c, 1, MSG_PEEK);
    if (n < 0) return (int)n;
    return n > 0 ? SOMETHING : NOTHING;
  }
  if (f->size > 1) {
    reserve_in(L, f, want, op->core->receive_max);
    most = f->in.room - f->in.to;
  } else {
    reserve(L, &f->in, UV_IN, want, 64);
    most = want;
  }
  n = lsock_receive(L, op, f->in.p + f->in.to, most, 0);
  if (n < 0) return (int)n;
  f->full = (size_t)n == most;
  f->in.to += (size_t)n;
  *spent += (size_t)n < most ? SHARE : (size_t)n;
  return n > 0 ? MAYBE : NOTHING;
}

/* How many bytes from offset `at` of what is in `in` are known not to hold what is looked for. */
static size_t *seen(File *f, size_t at, int what) {
  if (f->seen_at != at || f->seen_for != what) {
    f->seen_at = at;
    f->seen_for = what;
    f->seen = 0;
  }
  return &f->seen;
}

/* The end of the line at that offset; NULL if it is not there yet. */
static const char *find_end(File *f, size_t at) {
  size_t n = waiting(&f->in) - at, *before = seen(f, at, 'l');
  const char *p = f->in.p + f->in.from + at;
  const char *nl = n > *before ? memchr(p + *before, '\n', n - *before) : NULL;
  *before = nl ? (size_t)(nl - p) : n;
  return nl;
}

static int scan_line(lua_State *L, lsock_Op *op, File *f, int keep_end, int next) {
  const char *p = f->in.p + f->in.from + op->done;
  size_t n = waiting(&f->in) - op->done;
  const char *nl = find_end(f, op->done);
  if (nl) {
    size_t len = (size_t)(nl - p);
    if (len > f->limit) return EXCEEDED;
    lua_pushlstring(L, p, len + (keep_end ? 1 : 0));
    op->done += len + 1;
    return FOUND;
  }
  if (n > f->limit) return EXCEEDED;
  if (next != NOTHING) return MISSING;
  if (n == 0) return ENDED;
  lua_pushlstring(L, p, n);
  op->done += n;
  return FOUND;
}

static int scan_all(lua_State *L, lsock_Op *op, File *f, int next) {
  size_t n = waiting(&f->in) - op->done;
  if (n > f->limit) return EXCEEDED;
  if (next != NOTHING) return MISSING;
  lua_pushlstring(L, f->in.p + f->in.from + op->done, n);
  op->done += n;
  return FOUND;
}

/* A count of 0 asks whether there is anything at all. */
static int scan_count(lua_State *L, lsock_Op *op, File *f, size_t want, int next) {
  size_t n = waiting(&f->in) - op->done;
  if (next != NOTHING && (want > 0 ? n < want : n == 0 && next != SOMETHING)) return MISSING;
  if (next == NOTHING && n == 0) return ENDED;
  if (n > want) n = want;
  lua_pushlstring(L, n ? f->in.p + f->in.from + op->done : "", n);
  op->done += n;
  return FOUND;
}

/* ---- numerals, as Lua's own files read them */

#define NUMERAL_MAX 200

typedef struct Numeral {
  const char *p;
  size_t n, at; /* bytes at hand, and used */
  char text[NUMERAL_MAX + 1];
  size_t len;
  int short_of; /* the bytes at hand did not suffice */
} Numeral;

static int peek(Numeral *u) {
  if (u->at < u->n) return (unsigned char)u->p[u->at];
  u->short_of = 1;
  return -1;
}

static int use(Numeral *u) {
  if (u->len >= NUMERAL_MAX) {
    u->text[0] = '\0'; /* too long to be a numeral */
    return 0;
  }
  u->text[u->len++] = u->p[u->at++];
  return 1;
}

static int accept_any(Numeral *u, const char *set) {
  int c = peek(u);
  return c > 0 && strchr(set, c) && use(u);
}

static int accept_digits(Numeral *u, int hex) {
  const char *set = hex ? "0123456789abcdefABCDEF" : "0123456789";
  int n = 0;
  while (accept_any(u, set)) n++;
  return n;
}

static int scan_number(lua_State *L, lsock_Op *op, File *f, int next) {
  Numeral u;
  size_t *spaces = seen(f, op->done, 'n');
  int digits = 0, hex = 0, c;
  memset(&u, 0, sizeof u);
  u.p = f->in.p + f->in.from + op->done;
  u.n = waiting(&f->in) - op->done;
  u.at = *spaces;
  while ((c = peek(&u)) >= 0 && strchr(" \t\n\v\f\r", c) && c != 0) u.at++;
  *spaces = u.at;
  accept_any(&u, "+-");
  if (accept_any(&u, "0")) {
    if (accept_any(&u, "xX"))
      hex = 1;
    else
      digits = 1;
  }
  digits += accept_digits(&u, hex);
  if (accept_any(&u, ".")) digits += accept_digits(&u, hex);
  if (digits > 0 && accept_any(&u, hex ? "pP" : "eE")) {
    accept_any(&u, "+-");
    accept_digits(&u, 0);
  }
  peek(&u); /* the byte that ends it */
  if (u.at > f->limit) return EXCEEDED;
  if (u.short_of && next != NOTHING) return MISSING;
  op->done += u.at;
  u.text[u.len] = '\0';
  if (lua_stringtonumber(L, u.text)) return FOUND;
  return ENDED;
}

/* The letter of a format: 'n', 'l', 'L', 'a', or '#' for a count; 0 if it is none. */
static int format_letter(lua_State *L, int arg) {
  const char *p;
  if (lua_type(L, arg) == LUA_TNUMBER) return '#';
  p = lua_tostring(L, arg);
  if (!p) return 0;
  if (*p == '*') p++;
  return *p && strchr("nlLa", *p) ? *p : 0;
}

static int scan(lua_State *L, lsock_Op *op, File *f, int next, size_t *want) {
  int arg = op->slot + op->state;
  *want = 1;
  switch (op->formats == 0 ? 'l' : format_letter(L, arg)) {
    case 'l': return scan_line(L, op, f, 0, next);
    case 'L': return scan_line(L, op, f, 1, next);
    case 'a': return scan_all(L, op, f, next);
    case 'n': return scan_number(L, op, f, next);
    default: {
      size_t n = (size_t)lua_tointeger(L, arg), have = waiting(&f->in) - op->done;
      *want = n > have ? n - have : 0;
      return scan_count(L, op, f, n, next);
    }
  }
}

/* Takes bytes out of `in`; the file is at stack index 1. What one long line needed is not held for ever. */
static void consume(lua_State *L, File *f, size_t n) {
  f->in.from += n;
  f->seen = 0;
  f->turn++;
  if (f->in.from < f->in.to) return;
  f->in.from = f->in.to = 0;
  if (f->in.room > KEPT && f->in.room > f->size) {
    f->in.p = NULL;
    f->in.room = 0;
    lua_pushnil(L);
    lua_setiuservalue(L, 1, UV_IN);
  }
}

/* The format's value is on top: it is returned at once if it is the only one. Returns all when they are complete, else 0. */
static int add_result(lua_State *L, lsock_Op *op, int last) {
  int i;
  op->state++;
  if (op->formats <= 1) return 1;
  lua_replace(L, op->self + op->state);
  if (!last && op->state < op->formats) return 0;
  for (i = 1; i <= op->state; i++) lua_pushvalue(L, op->self + i);
  return op->state;
}

static int step_read(lua_State *L, lsock_Op *op) {
  File *f = lua_touserdata(L, 1);
  int next = MAYBE;
  size_t spent = 0;
  luaL_checkstack(L, op->formats + 4, "too many formats");
  if (gone(op, f)) return LSOCK_FAIL;
  for (;;) {
    size_t want;
    int r;
    if (op->turn != f->turn) { /* another coroutine, a hook or a finalizer read meanwhile: begin anew */
      op->turn = f->turn;
      op->done = 0;
      op->state = 0;
    }
    r = scan(L, op, f, next, &want);
    if (r == MISSING) {
      next = fill(L, op, f, want, &spent);
      if (next < 0) return next;
      continue;
    }
    if (r == EXCEEDED) {
      op->err = EMSGSIZE;
      op->msg = "longer than the file's limit";
      return LSOCK_FAIL;
    }
    if (r == ENDED) lua_pushnil(L);
    if (op->turn != f->turn) {
      lua_pop(L, 1);
      continue;
    }
    if (next == SOMETHING) next = MAYBE;
    r = add_result(L, op, r == ENDED);
    if (r > 0) {
      consume(L, f, op->done);
      return r;
    }
  }
}

/* The common case without an operation: a whole line waits in the buffer. */
static int quick_line(lua_State *L, File *f) {
  unsigned turn = f->turn;
  size_t n = waiting(&f->in), at = f->seen && f->seen_for == 'l' && f->seen_at == 0 ? f->seen : 0;
  const char *p = f->in.p + f->in.from, *nl;
  if (n == at || f->s->fd == LSOCK_NOFD || is_busy(f->s)) return 0;
  nl = memchr(p + at, '\n', n - at);
  if (!nl || (size_t)(nl - p) > f->limit) return 0;
  lua_pushlstring(L, p, (size_t)(nl - p));
  if (f->turn != turn) { /* a finalizer read it */
    lua_pop(L, 1);
    return 0;
  }
  consume(L, f, (size_t)(nl - p) + 1);
  return 1;
}

static void check_formats(lua_State *L, int first, int n) {
  int i;
  for (i = first; i < first + n; i++) {
    int c = format_letter(L, i);
    if (c == '#') {
      lua_Integer k = luaL_checkinteger(L, i);
      luaL_argcheck(L, k >= 0 && (lua_Unsigned)k < SIZE_MAX_BUF, i, "count is negative or too large");
    } else if (c == 0)
      luaL_argerror(L, i, "invalid format");
  }
}

/* The file is at 1, n formats follow. */
static int read_formats(lua_State *L, const char *name, int n) {
  lsock_Op op;
  File *f = check_file(L, 1);
  if (n == 0 && f->s && quick_line(L, f)) return 1;
  check_formats(L, 2, n);
  if (!f->s) return unusable(L, name, "file is closed");
  if (!f->readable) return unusable(L, name, "file is not open for reading");
  file_op(L, &op, name, step_read, LSOCK_RD);
  op.slot = 2;
  op.formats = n;
  op.turn = f->turn;
  if (n > 1) {
    luaL_checkstack(L, n, "too many formats");
    lua_settop(L, op.self + n);
  }
  return lsock_run(L, &op);
}

/*
** f:read(...) -> one result for each format: "l" a line without its end (default), "L" with it, "n" a number, "a" all up
** to the end, a number: that many bytes; nil at the end of the stream. As file:read
*/
static int file_read(lua_State *L) {
  return read_formats(L, "read", lua_gettop(L) - 1);
}

/* Of an unbuffered file no more than this is looked at. */
#define PEEK_MOST 1024

static int step_peek(lua_State *L, lsock_Op *op) {
  File *f = lua_touserdata(L, 1);
  size_t spent = 0, n;
  if (gone(op, f)) return LSOCK_FAIL;
  if (waiting(&f->in) == 0 && f->size <= 1 && op->len > 0) {
    char p[PEEK_MOST];
    ssize_t got = lsock_receive(L, op, p, op->len < PEEK_MOST ? op->len : PEEK_MOST, MSG_PEEK);
    if (got < 0) return (int)got;
    lsock_pushreceived(L, op, p, got);
    return 1;
  }
  if (waiting(&f->in) == 0) {
    int r = fill(L, op, f, 0, &spent);
    if (r < 0) return r;
    if (r == NOTHING) {
      lua_pushnil(L);
      return 1;
    }
  }
  n = waiting(&f->in);
  lua_pushlstring(L, f->in.p + f->in.from, n < op->len ? n : op->len);
  return 1;
}

/*
** f:peek([n]) -> at most n of the bytes that come next, which stay there: those read ahead, else what one receive gives;
** nil at the end of the stream
*/
static int file_peek(lua_State *L) {
  lsock_Op op;
  File *f = check_file(L, 1);
  lua_Integer n = luaL_optinteger(L, 2, SIZE_MAX_BUF);
  luaL_argcheck(L, n >= 0, 2, "count is negative");
  if (!f->s) return unusable(L, "peek", "file is closed");
  if (!f->readable) return unusable(L, "peek", "file is not open for reading");
  lua_settop(L, 1);
  file_op(L, &op, "peek", step_peek, LSOCK_RD);
  op.len = (lua_Unsigned)n < SIZE_MAX_BUF ? (size_t)n : SIZE_MAX_BUF;
  return lsock_run(L, &op);
}

/* f:pending() -> how many bytes have been read ahead */
static int file_pending(lua_State *L) {
  const File *f = check_file(L, 1);
  if (!f->s) return unusable(L, "pending", "file is closed");
  lua_pushinteger(L, (lua_Integer)waiting(&f->in));
  return 1;
}

/* Upvalues as everywhere, then 3 the file, 4 the formats. */
static int lines_next(lua_State *L) {
  int i, n;
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(3));
  n = (int)lua_rawlen(L, lua_upvalueindex(4));
  luaL_checkstack(L, n + 4, "too many formats");
  for (i = 1; i <= n; i++) lua_geti(L, lua_upvalueindex(4), i);
  return read_formats(L, "lines", n);
}

/* f:lines(...) -> iterator that reads by these formats until the end. As file:lines; the file stays open */
static int file_lines(lua_State *L) {
  int i, n = lua_gettop(L) - 1;
  check_file(L, 1);
  check_formats(L, 2, n);
  if (n == 1 && format_letter(L, 2) == 'l') n = 0;
  lua_pushvalue(L, LSOCK_UP_CORE);
  lua_pushboolean(L, 0);
  lua_pushvalue(L, 1);
  lua_createtable(L, n, 0);
  for (i = 1; i <= n; i++) {
    lua_pushvalue(L, i + 1);
    lua_rawseti(L, -2, i);
  }
  lua_pushcclosure(L, lines_next, 4);
  return 1;
}

/* ---------------------------------------------------------------- writing */

/* Sends what waits in `out`: 0 when all of it went, else as a step. */
static int step_out(lua_State *L, lsock_Op *op, File *f) {
  while (waiting(&f->out) > 0) {
    ssize_t n = lsock_transmit(L, op, f->out.p + f->out.from, waiting(&f->out), 0);
    if (n < 0) return (int)n;
    f->out.from += (size_t)n;
    if (waiting(&f->out) > 0) return lsock_further(op, LSOCK_WRITE);
  }
  f->out.from = f->out.to = 0;
  return 0;
}

/*
** A write in progress: op->state is the current argument's number, op->done its bytes that were sent or buffered,
** op->len those of all arguments before it.
*/
static int step_write(lua_State *L, lsock_Op *op) {
  File *f = lua_touserdata(L, 1);
  int r;
  if (gone(op, f)) return LSOCK_FAIL;
  for (; op->state < op->formats; op->state++, op->done = 0) {
    size_t len;
    const char *p = lsock_checkbytes(L, op->slot + op->state, &len);
    if (f->buffering == LINE && op->done == 0 && memchr(p, '\n', len)) op->flush = 1;
    if (len - op->done > f->out.room - f->out.to) {
      r = step_out(L, op, f);
      if (r < 0) return r;
    }
    while (len - op->done > f->out.room) { /* longer than the buffer: straight from the string */
      ssize_t n = lsock_transmit(L, op, p + op->done, len - op->done, 0);
      if (n < 0) return (int)n;
      op->done += (size_t)n;
      op->len += (size_t)n;
      if (len > op->done) return lsock_further(op, LSOCK_WRITE);
    }
    if (len > op->done) {
      memcpy(f->out.p + f->out.to, p + op->done, len - op->done);
      f->out.to += len - op->done;
      op->len += len - op->done;
    }
  }
  if (op->flush && (r = step_out(L, op, f)) < 0) return r;
  lua_pushvalue(L, 1);
  return 1;
}

/* e.sent: how many bytes of the arguments were sent or are in the buffer */
static int note_written(lua_State *L, lsock_Op *op) {
  lsock_pushextra(L, op);
  lua_pushinteger(L, (lua_Integer)op->len);
  lua_setfield(L, -2, "sent");
  return -1;
}

/* f:write(bytes ...) -> f. An error says in .sent how many bytes were taken over */
static int file_write(lua_State *L) {
  lsock_Op op;
  File *f = check_file(L, 1);
  int i, n = lua_gettop(L) - 1;
  size_t len, total = 0;
  for (i = 2; i <= n + 1; i++) {
    lsock_checkbytes(L, i, &len);
    total += len;
  }
  if (!f->s) return unusable(L, "write", "file is closed");
  if (!f->writable) return unusable(L, "write", "file is not open for writing");
  if (f->buffering != NONE && !is_busy(f->s)) reserve_out(L, f, total);
  file_op(L, &op, "write", step_write, LSOCK_WR);
  op.slot = 2;
  op.formats = n;
  op.len = 0;
  op.flush = f->buffering == NONE;
  op.partial = note_written;
  return lsock_run(L, &op);
}

static int step_flush(lua_State *L, lsock_Op *op) {
  File *f = lua_touserdata(L, 1);
  int r;
  if (gone(op, f)) return LSOCK_FAIL;
  r = step_out(L, op, f);
  if (r < 0) return r;
  lua_pushvalue(L, 1);
  return 1;
}

/* f:flush() -> f, when all that was written has been sent */
static int file_flush(lua_State *L) {
  lsock_Op op;
  File *f = check_file(L, 1);
  if (!f->s) return unusable(L, "flush", "file is closed");
  lua_settop(L, 1);
  file_op(L, &op, "flush", step_flush, LSOCK_WR);
  return lsock_run(L, &op);
}

/* ---------------------------------------------------------------- the rest */

/* Lets go of the socket, and closes it if its own close only waited for that. 0 or an errno. The file is at index 1. */
static int let_go(lua_State *L, File *f, int tell) {
  lsock_Sock *s = f->s;
  int err = 0;
  if (!s) return 0;
  f->s = NULL;
  lua_getiuservalue(L, 1, UV_SOCKET);
  if (--s->files == 0 && s->closing) {
    s->closing = 0;
    err = lsock_closesock(L, -1, s);
  } else if (tell && lsock_wake(L, -1, s) != LUA_OK) /* who waits in a method of this file */
    lua_error(L);
  lua_pop(L, 1);
  return err;
}

static int finish(lua_State *L, File *f) {
  int err = let_go(L, f, 1);
  if (err) return lsock_failno(L, err, "close");
  lua_pushboolean(L, 1);
  return 1;
}

static int step_close(lua_State *L, lsock_Op *op) {
  File *f = lua_touserdata(L, 1);
  int r = f->s ? step_out(L, op, f) : 0;
  return r < 0 ? r : finish(L, f);
}

/* Closed even where sending fails, unless that may be tried again: out of time, interrupted, not now. */
static int close_failed(lua_State *L, lsock_Op *op) {
  int again = op->cls == LSOCK_TIMEOUT || op->err == EAGAIN || op->err == EBUSY;
  if (op->err == ECANCELED) again = op->s->fd == op->fd; /* thrown into the wait */
  if (!again) let_go(L, lua_touserdata(L, 1), 1);
  return -1;
}

/* f:close() -> true; sends what was written before. After a timeout the file is open still, and may be closed again */
static int file_close(lua_State *L) {
  lsock_Op op;
  File *f = check_file(L, 1);
  if (!f->s) return unusable(L, "close", "file is closed");
  if (waiting(&f->out) == 0) return finish(L, f);
  lua_settop(L, 1);
  file_op(L, &op, "close", step_close, LSOCK_WR);
  op.partial = close_failed;
  return lsock_run(L, &op);
}

static int scope_failed(lua_State *L, lsock_Op *op) {
  (void)op;
  let_go(L, lua_touserdata(L, 1), 1);
  return -1;
}

/* __close: sends what was written, unless the block ends by an error; then closes in any case */
static int file_scope(lua_State *L) {
  File *f = check_file(L, 1);
  lsock_Op op;
  if (!f->s) return 0;
  if (lua_isnoneornil(L, 2) && waiting(&f->out) > 0) {
    lua_settop(L, 1);
    file_op(L, &op, "close", step_close, LSOCK_WR);
    op.partial = scope_failed;
    return lsock_run(L, &op);
  }
  let_go(L, f, 1);
  return 0;
}

/* __gc: what was written and never flushed is sent as far as that needs no waiting */
static int file_gc(lua_State *L) {
  File *f = to_file(L, 1);
  if (!f || !f->s) return 0;
#if defined(MSG_DONTWAIT)
  if (waiting(&f->out) > 0 && f->s->fd != LSOCK_NOFD) {
    lsock_Op op;
    ssize_t n;
    lsock_op_init(&op, lsock_core(L), "close", NULL, LSOCK_WR);
    op.s = op.w = f->s;
    lua_settop(L, 1);
    lua_getiuservalue(L, 1, UV_SOCKET); /* TLS looks for it */
    op.self = op.wslot = 2;
    op.nowait = 1;
    op.partial = scope_failed; /* an error of a callback */
    if (lua_touserdata(L, 2) != f->s) lsock_tampered(L);
    n = lsock_transmit(L, &op, f->out.p + f->out.from, waiting(&f->out), 0);
    if (n < (ssize_t)waiting(&f->out)) lua_warning(L, "socket: unflushed data of a collected file lost", 0);
  }
#endif
  let_go(L, f, 0);
  return 0;
}

/* f:setvbuf("no" | "line" | "full" [, size]) -> true; for writing. As file:setvbuf */
static int file_setvbuf(lua_State *L) {
  static const char *const names[] = {"no", "line", "full", NULL};
  File *f = check_file(L, 1);
  Buffering b = (Buffering)luaL_checkoption(L, 2, NULL, names);
  lua_Integer size = luaL_optinteger(L, 3, DEFAULT_SIZE);
  luaL_argcheck(L, size > 0 && (lua_Unsigned)size < SIZE_MAX_BUF, 3, "size is out of range");
  if (!lua_isnoneornil(L, 3)) lsock_bound(L, 3, (size_t)size);
  if (!f->s) return unusable(L, "setvbuf", "file is closed");
  f->buffering = b;
  if ((size_t)size > f->out.room) f->out_size = (size_t)size;
  lua_pushboolean(L, 1);
  return 1;
}

/* f:setlimit(bytes | nil) -> f; the longest line, numeral or rest of the stream that reads take: EMSGSIZE beyond */
static int file_setlimit(lua_State *L) {
  File *f = check_file(L, 1);
  lua_Integer n;
  luaL_checkany(L, 2);
  n = luaL_optinteger(L, 2, SIZE_MAX_BUF);
  luaL_argcheck(L, n >= 0, 2, "limit must not be negative");
  if (!f->s) return unusable(L, "setlimit", "file is closed");
  f->limit = (lua_Unsigned)n < SIZE_MAX_BUF ? (size_t)n : SIZE_MAX_BUF;
  lua_settop(L, 1);
  return 1;
}

/* f:seek(): always ESPIPE, a stream has no positions */
static int file_seek(lua_State *L) {
  check_file(L, 1);
  return lsock_failno(L, ESPIPE, "seek");
}

lsock_Sock *lsock_filesock(lua_State *L, int idx) {
  const File *f = to_file(L, idx);
  return f ? f->s : NULL;
}

const void *lsock_tofile(lua_State *L, int idx) {
  return to_file(L, idx);
}

int lsock_fileready(const void *file) {
  const File *f = file;
  const lsock_Sock *s = f ? f->s : NULL;
  return s && s->fd != LSOCK_NOFD && (waiting(&f->in) > 0 || (s->tr && s->tr->pending(s) > 0));
}

/* f:fileno() -> the socket's descriptor, -1 when closed */
static int file_fileno(lua_State *L) {
  const File *f = check_file(L, 1);
  lua_pushinteger(L, f->s ? f->s->fd : LSOCK_NOFD);
  return 1;
}

static int file_tostring(lua_State *L) {
  const File *f = check_file(L, 1);
  if (f->s)
    lua_pushfstring(L, "socket file: <fd=%d>", f->s->fd);
  else
    lua_pushliteral(L, "socket file: <closed>");
  return 1;
}

/* Modes "r", "w", "rw" and "r+", each letter once; a "b" changes nothing. */
static void parse_mode(lua_State *L, int arg, File *f) {
  enum { R = 1, W = 2, B = 4, PLUS = 8 };
  static const char letters[] = "rwb+";
  size_t i, len;
  const char *m = luaL_optlstring(L, arg, "r", &len);
  unsigned mode = 0, bit = 1;
  for (i = 0; i < len && bit; i++) {
    const char *p = strchr(letters, m[i]);
    bit = p ? 1u << (p - letters) & ~mode : 0;
    if (bit == PLUS && !(mode & R)) bit = 0;
    mode |= bit;
  }
  mode &= ~(unsigned)B;
  if (!bit || (mode != R && mode != W && mode != (R | W) && mode != (R | PLUS)))
    luaL_argerror(L, arg, lua_pushfstring(L, "invalid mode '%s'", m));
  f->readable = (mode & R) != 0;
  f->writable = mode != R;
}

/*
** s:makefile([mode [, bufsize]]) -> file. mode: "r" (default), "w", "rw"; bufsize: 0 unbuffered (reads nothing ahead), 1
** flushed at line ends, greater: the size of the buffers, default 8192. Socket and file are closed independently.
*/
static int sock_makefile(lua_State *L) {
  lsock_Core *core = lsock_core(L);
  lsock_Sock *s = lsock_checksock(L, 1, core);
  lua_Integer size = luaL_optinteger(L, 3, -1);
  File *f;
  luaL_argcheck(L, size < (lua_Integer)SIZE_MAX_BUF, 3, "buffer is too large");
  if (size > 1) lsock_bound(L, 3, (size_t)size);
  if (lsock_isclosed(s)) return unusable(L, "makefile", "socket is closed");
  lua_settop(L, 3);
  f = lua_newuserdatauv(L, sizeof *f, 3);
  memset(f, 0, sizeof *f);
  f->seal = LSOCK_SEAL(core, f, LSOCK_KIND_FILE);
  parse_mode(L, 2, f);
  f->buffering = size == 0 ? NONE : size == 1 ? LINE : FULL;
  f->limit = SIZE_MAX_BUF;
  f->size = size == 0 ? 1 : size <= 1 ? DEFAULT_SIZE : (size_t)size;
  if (core->receive_max && f->size > core->receive_max) f->size = core->receive_max;
  f->out_size = f->size > 1 ? f->size : DEFAULT_SIZE;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, UV_SOCKET);
  lsock_pushtable(L, LSOCK_UV_FILE);
  lua_setmetatable(L, -2);
  if (s->files == UINT16_MAX) return luaL_error(L, "too many files of one socket");
  f->s = s;
  s->files++;
  return 1;
}

const lsock_Reg lsock_file_methods[] = {{"!makefile", sock_makefile}, {NULL, NULL}};

static const lsock_Reg file_methods[] = {
    {"!close", file_close},       {"fileno", file_fileno},    {"!flush", file_flush}, {"lines", file_lines},
    {"!peek", file_peek},         {"!pending", file_pending}, {"!read", file_read},   {"!seek", file_seek},
    {"!setlimit", file_setlimit}, {"!setvbuf", file_setvbuf}, {"!write", file_write}, {NULL, NULL}};

static const lsock_Reg file_meta[] = {
    {"__close", file_scope}, {"__gc", file_gc}, {"__tostring", file_tostring}, {NULL, NULL}};

void lsock_open_file(lua_State *L, int core) {
  lua_createtable(L, 0, 6);
  lua_pushliteral(L, "socket file");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, file_meta);
  lua_createtable(L, 0, 16);
  lsock_register(L, core, file_methods);
  lua_setfield(L, -2, "__index");
  lua_setiuservalue(L, core, LSOCK_UV_FILE);
}
