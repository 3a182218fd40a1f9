/*
** lsocket_int.h: types and functions shared by the library's own files.
**
** Prefixes: mod_ module function, sock_ method, step_ one attempt of an operation, lsock_ used across files.
** Dependencies: plat -> err -> wait -> { addr, family, inet, opt, const, resolve } -> lsocket.c -> connect.
**
** The rule of memory: whatever allocates through Lua may run a finalizer, and a finalizer or a callback may call any
** function of this library. A pointer into memory of Lua's, of OpenSSL's or of a reactor's that is kept across such a call
** is anchored on the Lua stack, or copied, or looked up again afterwards.
*/
#ifndef LSOCKET_INT_H
#define LSOCKET_INT_H

#include "lsocket_plat.h"

#include <assert.h>
#include <lauxlib.h>
#include <lua.h>

#include "lsocket.h"

#if defined(__GNUC__)
#define lsock_likely(x) __builtin_expect(!!(x), 1)
#else
#define lsock_likely(x) (x)
#endif

#define LSOCK_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define LSOCK_NS 1e9

/* ---------------------------------------------------------------- the state of the library in one lua_State */

typedef struct lsock_Pool lsock_Pool; /* lsocket_resolve.c */

/* The TLS library's, whose objects all point to it: a part of the core, which lives as long as any of them. */
typedef struct lsock_Ssl {
  struct bio_method_st *bio, *memory; /* of descriptors, and of MemoryBIOs */
  lua_State *main;                    /* for the allocator */
  int cls[7];                         /* error classes */
  struct lsock_Held *held;            /* see lsock_ssl_hold */
  unsigned held_size, held_free;
  size_t queued, paced; /* bytes in MemoryBIOs, and those that the collector knows of */
  int ended;            /* what was held is freed */
} lsock_Ssl;

typedef struct lsock_Core {
  uintptr_t seal; /* LSOCK_CORE_SEAL: a script cannot make a core of its own; 0: the state is being closed */
  const struct lsock_Api *api; /* lsocket_api.h */
  uintptr_t secret;            /* see lsock_Kind */
  lsock_Policy policy;         /* the host's; NULL: everything is allowed */
  void *policy_ud;
  size_t receive_max; /* the host's limits; 0: none ... */
  int sockets_max;
  int sockets;             /* ... and what is open now */
  unsigned restrictions;   /* LSOCK_NO_ of lsocket.h */
  int64_t default_timeout; /* ns, < 0: none */
  char *scratch;           /* receive buffer, from the state's allocator */
  size_t scratch_size;
  lsock_Pool *pool;             /* threads that look names up; NULL until one is needed */
  int hook;                     /* bits of LSOCK_HOOKED ...; 0: a blocking call may simply block */
  struct lsock_Reactor *active; /* the one whose tasks are running */
  int reactors;                 /* the highest number one has had, in LSOCK_UV_REACTORS */
  int untaken;                  /* received descriptors that nobody took (lsocket_msg.c) ... */
  int untaken_max;              /* ... and how many call for a garbage collection */
  unsigned char *held;          /* the descriptors of all sockets, see lsock_hold */
  size_t held_size;
  lsock_Ssl tls;
} lsock_Core;

/*
** Kinds of objects. Each begins with a seal, which only this library can make: of the object's address, a secret and the
** number of its kind. The debug library can give any userdata any metatable, but no userdata the seal of another kind.
*/
typedef enum lsock_Kind {
  LSOCK_KIND_SOCK,
  LSOCK_KIND_ERROR,
  LSOCK_KIND_BUFFER,
  LSOCK_KIND_FILE,
  LSOCK_KIND_CONTROL,
  LSOCK_KIND_RIGHTS,
  LSOCK_KIND_OP,
  LSOCK_KIND_LOOKUP,
  LSOCK_KIND_SELECTOR,
  LSOCK_KIND_REACTOR,
  LSOCK_KIND_TASK,
  LSOCK_KIND_ALARM,
  LSOCK_KIND_SSL, /* the TLS library's, from here on */
  LSOCK_KIND_CONTEXT,
  LSOCK_KIND_TLS,
  LSOCK_KIND_SESSION,
  LSOCK_KIND_BIO
} lsock_Kind;

#define LSOCK_SEAL(core, p, kind) (((uintptr_t)(p) ^ (core)->secret) + (uintptr_t)(kind))

/* After the type of a kind's objects: what lsock_object relies on. */
#define LSOCK_BEGINS_WITH_SEAL(type)                                                                                   \
  _Static_assert(offsetof(type, seal) == 0 && sizeof(((type *)0)->seal) == sizeof(uintptr_t), "seals come first")

/* A wait hook is set; a reactor's tasks are running; nothing may block the thread. */
enum { LSOCK_HOOKED = 1, LSOCK_REACTING = 2, LSOCK_NEVER = 4 };

#define LSOCK_CORE_SEAL(c) ((uintptr_t)(c) ^ lsock_plat_canary())

/*
** Ends a function whose core is not ours, which only the debug library can bring about; or is no more: a finalizer older
** than the library calls it, while the state is being closed.
*/
LSOCK_INLINE _Noreturn void lsock_tampered(lua_State *L) {
  const lsock_Core *c = lua_touserdata(L, lua_upvalueindex(1));
  int over = c && lua_rawlen(L, lua_upvalueindex(1)) == sizeof *c && c->seal == 0;
  for (;;) luaL_error(L, over ? "socket: the state is being closed" : "socket: its functions were tampered with");
}

/*
** The core is upvalue 1 of every function of the library; upvalue 2 is true in the try_ form of a function. The debug
** library can replace upvalues, so the core proves itself, by a number of the process that no script can know.
*/
#define LSOCK_UP_CORE lua_upvalueindex(1)
#define LSOCK_UP_TRY lua_upvalueindex(2)
LSOCK_INLINE lsock_Core *lsock_core(lua_State *L) {
  lsock_Core *c = lua_touserdata(L, LSOCK_UP_CORE);
  if (lsock_likely(c && c->seal == LSOCK_CORE_SEAL(c))) return c;
  lsock_tampered(L);
}

/* The value at idx if it is an object of that kind and of at least that size, else NULL: the one check of all objects. */
LSOCK_INLINE void *lsock_object(lua_State *L, int idx, lsock_Kind kind, size_t size) {
  uintptr_t *p = lua_touserdata(L, idx);
  return p && lua_rawlen(L, idx) >= size && *p == LSOCK_SEAL(lsock_core(L), p, kind) ? p : NULL;
}

enum { /* user values of the core */
       LSOCK_UV_HOOK = 1,
       LSOCK_UV_WAKE,
       LSOCK_UV_SOCKET,   /* metatable of sockets */
       LSOCK_UV_ERROR,    /* metatable of errors */
       LSOCK_UV_CLASSES,  /* array of error classes */
       LSOCK_UV_OP,       /* metatable of operations kept across a yield */
       LSOCK_UV_LOOKUP,   /* metatable of name lookups */
       LSOCK_UV_ADDR,     /* form of address -> its metatable */
       LSOCK_UV_INFO,     /* metatable of getaddrinfo's entries */
       LSOCK_UV_EAGAIN,   /* operation -> its would-block error */
       LSOCK_UV_BUFFER,   /* metatable of buffers */
       LSOCK_UV_CONTROL,  /* metatable of received control messages ... */
       LSOCK_UV_RIGHTS,   /* ... and of the descriptors among them */
       LSOCK_UV_FILE,     /* metatable of files */
       LSOCK_UV_TLS,      /* the TLS library's own */
       LSOCK_UV_REACTOR,  /* the active reactor */
       LSOCK_UV_REACTORS, /* number -> reactor: weak */
       LSOCK_UV_WAITS,    /* socket and direction -> who waits in the wait hook: weak */
       LSOCK_UV_COUNT = LSOCK_UV_WAITS
};

/* Pushes a user value of the core: any; or one that is a table, which the debug library may have replaced. */
#define lsock_pushcore(L, uv) ((void)lua_getiuservalue((L), LSOCK_UP_CORE, (uv)))
LSOCK_INLINE void lsock_pushtable(lua_State *L, int uv) {
  if (lua_getiuservalue(L, LSOCK_UP_CORE, uv) != LUA_TTABLE) lsock_tampered(L);
}

/* One row of a registration array. */
typedef struct lsock_Reg {
  const char *name; /* after a "!": can fail, and is also registered as try_<name> */
  lua_CFunction f;
} lsock_Reg;

/* Adds functions to the table on top of the stack, the core found at `core`. */
LSOCK_ONCE void lsock_register(lua_State *L, int core, const lsock_Reg *regs);

/* ---------------------------------------------------------------- sockets */

enum { LSOCK_RD = 0, LSOCK_WR = 1, LSOCK_MODAL = 2 }; /* directions; as bits 1 << direction */

typedef struct lsock_Transport lsock_Transport;

typedef struct lsock_Sock {
  uintptr_t seal;
  int64_t timeout;    /* ns; 0 never waits, < 0 blocks */
  uint32_t kernel[2]; /* what SO_RCVTIMEO and SO_SNDTIMEO were last set to by us, in ms; 0 none */
  lsock_fd fd;        /* LSOCK_NOFD when closed */
  int family, type, proto;
  unsigned char nonblocking;  /* O_NONBLOCK was set by us */
  unsigned char shared;       /* another owner may know the descriptor: leave the kernel's timeouts alone, and
                             ** do not believe `nonblocking` */
  unsigned char waiting;      /* directions in which a coroutine waits; shifted by LSOCK_BESIDE: beside others */
  unsigned char likely_idle;  /* directions in which the last operation had to wait; LSOCK_DRAINED */
  unsigned char internal : 1; /* ours alone: no warning when collected */
  unsigned char closing : 1;  /* closed but for its files */
  unsigned char counted : 1;  /* in core->sockets */
  unsigned char idle : 1;     /* the timeout bounds the time without progress, not the whole operation */
  unsigned char spared : 1;   /* the __close that comes next is of a guard that let it go */
  unsigned char watch;        /* the number of the reactor that watches the descriptor; 0 none */
  uint16_t files;             /* open ones, of makefile */
  const lsock_Transport *tr;  /* how bytes travel; NULL: as they are */
  void *trdata;
} lsock_Sock;
LSOCK_BEGINS_WITH_SEAL(lsock_Sock);

#define LSOCK_BESIDE 2

/* The last receive by a task took all there was: the next one may as well wait first. */
#define LSOCK_DRAINED 8

/* For everybody but its files. */
#define lsock_isclosed(s) ((s)->fd == LSOCK_NOFD || (s)->closing)

/* A new, closed socket object on top of the stack: allocated before any descriptor, so memory errors leak none. */
lsock_Sock *lsock_newsock(lua_State *L, lsock_Core *core);
/* The same with user values, and as the first part of an object of that size, which is zero in the beginning. */
lsock_Sock *lsock_newsockuv(lua_State *L, lsock_Core *core, size_t size, int uservalues);

/* Gives it a descriptor; an O_NONBLOCK already in force is not looked for. */
void lsock_open(lua_State *L, lsock_Sock *s, lsock_fd fd, int family, int type, int proto);

/*
** Lua gives up an object whose __gc it has no memory, or no C stack, to call. So the descriptors that sockets hold, and those
** received that nobody took, are known here too; lsock_closeheld closes what is left when the state ends.
*/
void lsock_hold(lua_State *L, lsock_fd fd);
void lsock_release(lsock_Core *core, lsock_fd fd);
void lsock_closeheld(lua_State *L, lsock_Core *core);

/* Counts an open socket against the host's limit, until it is closed or its descriptor taken. */
void lsock_count(lsock_Core *core, lsock_Sock *s);

/*
** Pushes the socket at idx once more, to be closed however the running function ends: by an error, in a coroutine that is
** closed, for want of memory. LSOCK_SPARE, last before it is handed out, lets it live on.
*/
void lsock_guard(lua_State *L, int idx);
#define LSOCK_SPARE(s) ((void)((s)->spared = 1))

/* What SO_TYPE and getsockname say where a value is < 0; -1 and errno if it is no socket. */
int lsock_describe(lsock_fd fd, int *family, int *type, int *proto);

/* NULL unless the value at `arg` is a socket of this state. */
lsock_Sock *lsock_tosock(lua_State *L, int arg, const lsock_Core *core);

/* The argument error of lsock_checksock, below. */
_Noreturn void lsock_nosock(lua_State *L, int arg);

/* After errno EMFILE or ENFILE: collects garbage sockets and says that a second try is worth it. */
int lsock_reclaim(lua_State *L);

/* Tells the wake function, if a coroutine waits on the socket at `arg`, that it should look again. */
int lsock_wake(lua_State *L, int arg, const lsock_Sock *s);

/* Wakes who waits on the descriptor, and closes it. 0 or an errno. The object is at `arg`. */
int lsock_closesock(lua_State *L, int arg, lsock_Sock *s);

/* Takes the descriptor out of the object at `arg`, in the mode a plain one has; then wakes who waits on it. */
void lsock_takefd(lua_State *L, int arg, lsock_Sock *s, lsock_fd *fd);

/* ---------------------------------------------------------------- errors (lsocket_err.c) */

enum { LSOCK_ERROR = 1, LSOCK_HERROR, LSOCK_GAIERROR, LSOCK_TIMEOUT }; /* classes */

typedef struct lsock_Fail {
  int cls;         /* 0: LSOCK_TIMEOUT for ETIMEDOUT, else LSOCK_ERROR */
  int err;         /* errno, h_errno or EAI_ */
  const char *op;  /* a string that lives as long as the library */
  const char *msg; /* likewise; NULL: the system's text for err */
  int address;     /* stack index of the address concerned, or 0 */
  int extra;       /* stack index of a table of further fields (sent, partial, errors), or 0 */
} lsock_Fail;

/* Pushes the error object. */
void lsock_pusherror(lua_State *L, const lsock_Fail *f);

/* The error object on top, made for a Lua file of this library, comes from whoever called into that file. */
void lsock_blamecaller(lua_State *L);

/* Ends a function: raises the error, or returns nil and the error from the try_ form. */
int lsock_fail(lua_State *L, const lsock_Fail *f);

/* Pushes the table of further fields of the error at idx; nil for other values. */
void lsock_pushfields(lua_State *L, int idx);

/* The fields of the table at `extra` become those of the error at idx, if that is one of ours. */
void lsock_adderror(lua_State *L, int idx, int extra);

/* The same for an errno and an operation's name alone. */
int lsock_failno(lua_State *L, int err, const char *op);

/* The same for an operation on a closed socket. */
int lsock_failclosed(lua_State *L, const char *op);

/* Adds a class after the built-in ones; returns its number. Pops nothing, pushes nothing. In errors of such classes
** `code` and `message` may be among the further fields. */
LSOCK_ONCE int lsock_newclass(lua_State *L, int core, const char *name, int parent);
void lsock_pushclass(lua_State *L, int core, int n);

LSOCK_ONCE void lsock_open_err(lua_State *L, int core); /* the module's table is on top */

/* ---------------------------------------------------------------- addresses (lsocket_addr.c, lsocket_family.c) */

typedef struct lsock_Addr {
  socklen_t len;
  union {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
    struct sockaddr_storage ss;
  } u;
} lsock_Addr;

/*
** Reads the address at `arg` for a socket of that family and protocol. Returns 0 when it is complete, else 1, and pushes
** the name to be looked up; then everything but the host is filled in. Argument errors raise; an address on an interface
** that is not there has length 0.
*/
int lsock_getaddr(lua_State *L, int arg, int family, int proto, lsock_Addr *a);

/* Reads flowinfo and scope_id alone, of an IPv6 address. */
void lsock_getscope(lua_State *L, int arg, lsock_Addr *a);

/* Pushes an address as Lua sees it; nil for none. */
void lsock_pushaddr(lua_State *L, int proto, const lsock_Addr *a);

/* Pushes "127.0.0.1:80", "[::1]:80", "unix:/run/x" ... for the address at idx. */
void lsock_pushaddrtext(lua_State *L, int idx);

/* Puts host and port of one internet address beside another's port, flowinfo and scope. */
void lsock_sethost(lsock_Addr *a, const struct sockaddr *host);

/* Numeric host text to address; 1 done, 0 not numeric. Understands fe80::1%eth0. */
int lsock_numeric_host(const char *host, int family, lsock_Addr *a);

/* Is it a name of this machine that nobody is asked about (RFC 6761, section 6.3)? */
int lsock_islocalhost(const char *host);

/* One form of address beyond IPv4, IPv6 and Unix. */
typedef struct lsock_Family {
  int family;
  int proto; /* the protocol whose sockets use it; -1: every other one */
  socklen_t size;
  const char *const *fields; /* names of the positional items, NULL at the end */
  const struct lsock_Item *items;
} lsock_Family;

/* NULL if the family, or that protocol of it, has no form of its own. */
const lsock_Family *lsock_findfamily(int family, int proto);

void lsock_pushfamily(lua_State *L, const lsock_Family *f, const lsock_Addr *a); /* pushes a plain table */
void lsock_getfamily(lua_State *L, int arg, const lsock_Family *f, lsock_Addr *a);

/* An integer argument for a C int: a family, a protocol, an option. */
int lsock_checkint(lua_State *L, int arg);

/* Pushes item `i` of the address table at `arg`, by position or else by name; returns its type. */
int lsock_getitem(lua_State *L, int arg, int i, const char *name);

/* The same for an integer from lo to hi, absent only if `opt` (then 0); argument error otherwise. Pushes nothing. */
lua_Integer lsock_getint(lua_State *L, int arg, int i, const char *name, lua_Integer lo, lua_Integer hi, int opt);

/* The same for a string of at most `max` bytes: copied, and its length; or pushed, and good while it is on the stack. */
enum {
  LSOCK_STR_TEXT = 1, /* has no zero byte, but is copied with one behind it */
  LSOCK_STR_OPT = 2   /* may be absent: "" */
};
size_t lsock_getstr(lua_State *L, int arg, int i, const char *name, void *to, size_t max, int flags);
const char *lsock_pushstr(lua_State *L, int arg, int i, const char *name, size_t max, int flags, size_t *len);

/* An interface name's index (0 for ""); returns 0 if there is none. And back, "" for 0 or none. */
int lsock_getif(lua_State *L, int arg, int i, const char *name, unsigned *index);
void lsock_pushif(lua_State *L, unsigned index);

/* Gives the table on top, whose positional items have these names, a metatable for them. */
void lsock_setfields(lua_State *L, const char *const *fields);

/* Argument error for a key of the table at `arg` that is not in the list. */
void lsock_checkkeys(lua_State *L, int arg, const char *const keys[]);

LSOCK_ONCE void lsock_open_addr(lua_State *L, int core);
LSOCK_ONCE void lsock_open_inet(lua_State *L, int core);

/* ---------------------------------------------------------------- waiting (lsocket_wait.c) */

typedef struct lsock_Op lsock_Op;

/*
** One attempt. Results on top of the stack and their number; or what stands in the way. It may be called again at any
** time after LSOCK_READ, LSOCK_WRITE and LSOCK_INTR, from another C stack: what it must remember is in the lsock_Op. It leaves
** nothing on the Lua stack then but what it has called lsock_keepstack for.
*/
typedef int (*lsock_Step)(lua_State *L, lsock_Op *op);
enum { LSOCK_READ = -1, LSOCK_WRITE = -2, LSOCK_INTR = -3, LSOCK_FAIL = -4 };

typedef struct lsock_Job lsock_Job; /* a lookup, lsocket_resolve.c */

struct lsock_Op {
  uintptr_t seal; /* of a kept one; unset elsewhere */
  lsock_Core *core;
  lsock_Sock *s; /* the socket worked on; NULL in functions without one */
  lsock_Step step;
  const char *name; /* for errors */
  lsock_Sock *w;    /* the socket to wait for ... */
  int wslot;        /* ... and its stack index; the step may change both */
  int self;         /* stack index of s */
  lsock_fd fd, wfd; /* descriptors of s and w, to notice that they were closed meanwhile */
  int dir;          /* LSOCK_RD or LSOCK_WR; LSOCK_MODAL where the call takes no MSG_DONTWAIT */
  int flags;        /* MSG_ */
  int64_t timeout;  /* ns; 0 never waits, < 0 for ever */
  int64_t deadline; /* of the operation; INT64_MAX: none */
  int64_t end;      /* the step's own: a point in time */
  const char *data; /* bytes to send */
  size_t len;       /* of data, or of the room to receive */
  /* What begins as zero: */
  int64_t until;   /* set by the step: try again at this time even without readiness */
  const char *msg; /* for errors; NULL: the system's text */
  lsock_Step
      partial;    /* called before a failure: results to return instead, or < 0; may set extra. Also, with ECANCELED,
                      ** before an error that was thrown into the wait goes on: only extra counts then */
  lsock_Job *job; /* a lookup to be finished first */
  size_t done;    /* bytes sent or received so far */
  int err, cls;   /* of LSOCK_FAIL */
  int address, extra; /* stack indices for the error object, 0 none */
  int nowait;         /* the attempt must not wait in the kernel */
  int coop;           /* wait through the hook */
  int want;           /* what is waited for: LSOCK_READ or LSOCK_WRITE */
  int kept;           /* stack index of the userdata that holds this operation; 0: it is on the C stack */
  int mark;           /* the bits set in w->waiting */
  int top;            /* what is on the Lua stack up to here outlives an attempt; 0: not known yet */
  int unsent;         /* where the timeout is idle time: bytes the system still had when the wait began; 0: not known */
  int progress;       /* set by the step: it got further, and need not have to wait */
  int beside;         /* set by the step: others may wait in the same direction */
  int state, slot;    /* the step's own; slot is a stack index */
  char *into;         /* room to receive that is the caller's, or on the stack */
  int handle;         /* stack index of the job's handle */
  int file;           /* for a file of makefile's: goes on after the socket's own close */
  int formats, flush; /* lsocket_file.c */
  unsigned turn;
  lsock_Addr addr;
};
LSOCK_BEGINS_WITH_SEAL(lsock_Op);

/* Goes on with another socket, at stack index `self`, for what is left of the time. */
void lsock_op_socket(lua_State *L, lsock_Op *op, int self);

/* Runs an operation to its end: returns what the C function must return. */
int lsock_drive(lua_State *L, lsock_Op *op);

/* Goes on after an attempt that was not the end. */
int lsock_go_on(lua_State *L, lsock_Op *op, int outcome);

/* In a step: what is on the stack now outlives the attempt. */
#define lsock_keepstack(L, op) ((void)((op)->top = lua_gettop(L)))

/* Raises the error on top, which was thrown into the operation: by a callback, or where it waits. */
_Noreturn void lsock_thrown(lua_State *L, lsock_Op *op);

/* What a failed system call means for an attempt; `want` is LSOCK_READ or LSOCK_WRITE. */
int lsock_again(lsock_Op *op, int want);

/* Result of an attempt that got further, but not to its end: the deadline, hooks and other coroutines have their turn. */
int lsock_further(lsock_Op *op, int want);

/* Pushes the table of further fields for the operation's error, made if there is none yet. */
void lsock_pushextra(lua_State *L, lsock_Op *op);

/* An attempt at what cannot be done through a transport. */
int lsock_untransported(lsock_Op *op);

/* Gives pending hooks (a Ctrl-C) their turn; may raise. */
void lsock_turn(lua_State *L);

/* A flag for calls that take MSG_ flags, from nowait. */
#if defined(MSG_DONTWAIT)
#define LSOCK_DONTWAIT(op) ((op)->nowait ? MSG_DONTWAIT : 0)
#else
#define LSOCK_DONTWAIT(op) 0
#endif

/* How often to look again (ns) where nothing tells that an operation may go on. */
#define LSOCK_RETRY INT64_C(10000000)

/* Result of a step that wants to be called again in ns nanoseconds, whatever happens meanwhile. */
int lsock_pause(lua_State *L, lsock_Op *op, int64_t ns);

/* nil or seconds at `arg` to ns; < 0 for nil. Argument error for others. */
int64_t lsock_checktimeout(lua_State *L, int arg);
void lsock_pushtimeout(lua_State *L, int64_t ns);

/* Changes what settimeout changes. -1 and errno if the descriptor is gone; the timeout is set all the same. */
int lsock_settimeout(lsock_Sock *s, int64_t ns);

/* Puts the descriptor into the mode that an attempt without MSG_DONTWAIT needs. */
int lsock_mode(lsock_Sock *s, int nonblocking);

/* Makes a user value of the core's a table whose values are weak. */
LSOCK_ONCE void lsock_newweak(lua_State *L, int core, int uv);

LSOCK_ONCE void lsock_open_wait(lua_State *L, int core);

/* ---------------------------------------------------------------- bytes (lsocket_buf.c, lsocket_io.c) */

/* A string, a number's text or a buffer at `arg`; argument error for others. Valid while it stays on the stack. */
const char *lsock_checkbytes(lua_State *L, int arg, size_t *len);

/* A buffer's bytes, to be written. */
char *lsock_checkbuffer(lua_State *L, int arg, size_t *len);

/* The same for any stack index; NULL, and no error, for other values. */
const char *lsock_tobytes(lua_State *L, int idx, size_t *len);
char *lsock_tobuffer(lua_State *L, int idx, size_t *len);

/* A byte count for one receive. */
size_t lsock_checksize(lua_State *L, int arg);

/* Frees the buffer that lsock_room shares among sockets. */
void lsock_freescratch(lua_State *L, lsock_Core *core);

/* Room for one attempt to receive op->len bytes; lsock_ownroom: room that outlives a wait. */
char *lsock_room(lua_State *L, lsock_Op *op);
char *lsock_ownroom(lua_State *L, lsock_Op *op);

/* Pushes what an attempt received: nil at the end, or the bytes; their count if op->state is LSOCK_COUNT. */
enum { LSOCK_COUNT = 1 };
void lsock_pushreceived(lua_State *L, const lsock_Op *op, const char *p, ssize_t n);

/* op->flags from an optional argument; those in `now` never wait. */
void lsock_optflags(lua_State *L, int arg, lsock_Op *op, int now);
#if defined(MSG_DONTWAIT)
#define LSOCK_SEND_NOW MSG_DONTWAIT
#else
#define LSOCK_SEND_NOW 0
#endif
#if defined(MSG_ERRQUEUE) /* recv(2), send(2) */
#define LSOCK_RECEIVE_NOW (LSOCK_SEND_NOW | MSG_ERRQUEUE | MSG_OOB)
#else
#define LSOCK_RECEIVE_NOW (LSOCK_SEND_NOW | MSG_OOB)
#endif

LSOCK_ONCE void lsock_open_buf(lua_State *L, int core);
LSOCK_ONCE void lsock_open_msg(lua_State *L, int core);
LSOCK_ONCE void lsock_open_file(lua_State *L, int core);

/* ---------------------------------------------------------------- names (lsocket_resolve.c) */

/* Prepares the lookup of the name on top, the host of op->addr: pushes its handle, sets op->job. */
void lsock_lookup(lua_State *L, lsock_Op *op);

/* First part of a step that uses op->addr: finishes the lookup if there is one. 0 when it is complete, else as a step. */
int lsock_step_address(lua_State *L, lsock_Op *op);

/* Prepares getaddrinfo(3) for the host and service at stack indices; pushes the handle. */
void lsock_lookup_all(lua_State *L, lsock_Op *op, int host, int serv, const struct addrinfo *hints);

/* Does it: 0 when op->job is done. Then its list is good until the next allocation; at last it is given back. */
int lsock_step_job(lua_State *L, lsock_Op *op);
const struct addrinfo *lsock_job_list(lua_State *L, const lsock_Op *op);
void lsock_finish_job(lua_State *L, lsock_Op *op);

/* A string without zero bytes, short enough for a host's name. */
const char *lsock_checkname(lua_State *L, int arg);

LSOCK_ONCE void lsock_open_resolve(lua_State *L, int core);

/* ---------------------------------------------------------------- many at once (lsocket_select.c, lsocket_reactor.c) */

/* The socket of a file of makefile's, which the file holds; NULL for other values and closed ones (lsocket_file.c). */
lsock_Sock *lsock_filesock(lua_State *L, int idx);

/* NULL unless it is such a file, which may be closed. Is there something to read that its descriptor does not show? */
const void *lsock_tofile(lua_State *L, int idx);
int lsock_fileready(const void *file);

int lsock_mod_wait(lua_State *L);

/* Points in time (lsocket_timer.c). */
typedef enum lsock_Due { LSOCK_DUE_TASK, LSOCK_DUE_ALARM } lsock_Due;
typedef struct lsock_Timer {
  size_t place; /* 1 + where it is in the heap; 0: not set */
  lsock_Due of; /* what it is a part of */
} lsock_Timer;
typedef struct lsock_Timed {
  int64_t at;
  lsock_Timer *timer;
} lsock_Timed;
typedef struct lsock_Timers {
  lsock_Timed *heap; /* the first item is the next to come */
  size_t n, cap;
} lsock_Timers;

/* Makes room for one more; the memory is a user value of the userdata at `owner`. */
void lsock_timer_reserve(lua_State *L, lsock_Timers *h, int owner, int uservalue);

void lsock_timer_set(lsock_Timers *h, lsock_Timer *t, int64_t at); /* also one that is set already */
void lsock_timer_clear(lsock_Timers *h, lsock_Timer *t);

/*
** The reactor whose tasks are running takes the place of the wait hook (lsocket_reactor.c).
**
** lsock_reactor_wait prepares a wait of the operation, for op->want on op->w (or NULL: for time alone) until `ns`
** nanoseconds have passed (< 0: for ever). LSOCK_R_READY: it need not wait. LSOCK_R_YIELD: yield; when the coroutine is
** resumed, lsock_reactor_answer is READY, EXPIRED or THROWN. LSOCK_R_THROWN: an error was thrown into the task, and is on top.
** LSOCK_R_OTHER: the coroutine is not a task, and LSOCK_R_BUSY: another one waits for the same.
*/
enum { LSOCK_R_READY, LSOCK_R_EXPIRED, LSOCK_R_YIELD, LSOCK_R_OTHER, LSOCK_R_BUSY, LSOCK_R_THROWN };
int lsock_reactor_wait(lua_State *L, lsock_Op *op, int64_t ns);
int lsock_reactor_answer(lua_State *L, const lsock_Core *core);

/* Waits for a coroutine that is not a task, going on with the tasks meanwhile; LSOCK_R_OTHER: it cannot. */
int lsock_reactor_nested(lua_State *L, lsock_Op *op, int64_t ns);

/* Has the task had its share, so that others should have their turn? Then yield, and ask lsock_reactor_answer. */
int lsock_reactor_turn(lua_State *L, lsock_Core *core);

/* Where the task that is running keeps its operation; NULL if this coroutine is not it. */
lsock_Op *lsock_reactor_op(lua_State *L, lsock_Core *core);

/* Is that where the running task keeps its operation, and this coroutine it? */
int lsock_reactor_owns(lua_State *L, const lsock_Op *op);

/* A descriptor leaves its socket object, or waiting for it has become pointless: those who wait look again. */
void lsock_reactor_leave(lua_State *L, lsock_Sock *s, int stays_open);
void lsock_reactor_wake(lua_State *L, const lsock_Sock *s);

/* Push the modules' tables. */
LSOCK_ONCE void lsock_open_select(lua_State *L, int core);
LSOCK_ONCE void lsock_open_reactor(lua_State *L, int core);

/* For luaopen_socket_<name>: the field of the module `socket`. */
int lsock_submodule(lua_State *L, const char *name);

/* ---------------------------------------------------------------- the host (lsocket_policy.c, lsocket_host.c) */

#define LSOCK_REFUSED "refused by the host's policy"
#define LSOCK_TOO_MANY "the host allows no more open sockets"

/* Asks the host's policy: 1, or 0 and errno EACCES. `a` may be NULL. */
int lsock_ask(const lsock_Core *core, const char *what, const lsock_Addr *a, int family, int type, int proto);

/* The same, where there mostly is none. */
LSOCK_INLINE int lsock_may(const lsock_Core *core, const char *what, const lsock_Addr *a, int family, int type,
                           int proto) {
  return lsock_likely(!core->policy) || lsock_ask(core, what, a, family, type, proto);
}
int lsock_may_listen(const lsock_Core *core, const lsock_Sock *s);
int lsock_may_fd(const lsock_Core *core, const char *what, lsock_fd fd);
int lsock_may_send_item(const lsock_Core *core, const lsock_Sock *s, int level, int type);

/* In a step, right before the system call that uses op->addr: 0, or LSOCK_FAIL with that address in the error. */
int lsock_refuse(lua_State *L, lsock_Op *op, const char *what);
LSOCK_INLINE int lsock_step_policy(lua_State *L, lsock_Op *op, const char *what) {
  return lsock_may(op->core, what, &op->addr, op->s->family, op->s->type, op->s->proto) ? 0 : lsock_refuse(L, op, what);
}

/* To send to an address with this flag is to connect (tcp(7)). */
#if defined(MSG_FASTOPEN)
#define LSOCK_SENDTO(flags) ((flags)&MSG_FASTOPEN ? "connect" : "sendto")
#else
#define LSOCK_SENDTO(flags) "sendto"
#endif

/* Does the host's limit leave no room for n sockets more? The error that says so, in a C function and in a step. */
int lsock_full(lua_State *L, const lsock_Core *core, int n);
int lsock_failfull(lua_State *L, const char *op);
int lsock_stepfull(lsock_Op *op);
int lsock_failrefused(lua_State *L, const char *op, const char *what, const lsock_Sock *s); /* s may be NULL */

/* In a C function: 0, or the number of results of its failure. Before it makes n sockets; before it handles a plain
** descriptor, or gives one out; before it sets or asks an option. */
int lsock_admit(lua_State *L, const char *op, const char *what, int family, int type, int proto, int n);
int lsock_admit_fd(lua_State *L, const char *op, const char *what, lsock_fd fd);
int lsock_admit_other(lua_State *L, const char *op, const char *what); /* open, sethostname */
int lsock_admit_option(lua_State *L, const lsock_Sock *s, int level, int name, const void *p, size_t len);
int lsock_admit_getoption(lua_State *L, const lsock_Sock *s, int level, int name);

/* A `require` that knows modules loaded or preloaded by the host, and nil for others; a Lua function. */
int lsock_require(lua_State *L);

/* A count of bytes, argument `arg`: argument error for more than the host allows. */
size_t lsock_bound(lua_State *L, int arg, size_t n);

LSOCK_ONCE void lsock_open_host(lua_State *L); /* puts the functions for other modules into the registry */

/* NULL unless the value at idx is this library's core. */
LSOCK_INLINE lsock_Core *lsock_tocore(lua_State *L, int idx) {
  lsock_Core *c = lua_touserdata(L, idx);
  return c && lua_rawlen(L, idx) == sizeof *c && c->seal == LSOCK_CORE_SEAL(c) ? c : NULL;
}

/* ---------------------------------------------------------------- constants (lsocket_const.c) */

LSOCK_ONCE void lsock_open_const(lua_State *L); /* all of them into the table on top */
int lsock_pushconst(lua_State *L, int arg);     /* the one named by the string at `arg`; 0, nothing pushed: none */
LSOCK_ONCE void lsock_open_errno(lua_State *L); /* pushes socket.errno */
/* Pushes the name of the first constant of a family with this value; 0, nothing pushed: none. */
enum { LSOCK_NAMES_AF, LSOCK_NAMES_SOCK, LSOCK_NAMES_EAI, LSOCK_NAMES_HERR, LSOCK_NAMES_ERRNO };
int lsock_pushname(lua_State *L, int family, int value);

/* ---------------------------------------------------------------- transports */

/*
** What lies between a stream socket's operations and its descriptor: TLS. An attempt returns a count > 0, 0 at the end of
** the stream, or as a step (LSOCK_READ ..., which for LSOCK_FAIL sets the op's err, cls, msg or extra). Only op->cls, the
** class of a would-block error, is set in any case.
*/
struct lsock_Transport {
  ssize_t (*receive)(lua_State *L, lsock_Op *op, char *buf, size_t n, int flags);
  ssize_t (*transmit)(lua_State *L, lsock_Op *op, const char *data, size_t n, int flags);
  int (*shutdown)(lua_State *L, lsock_Op *op, int how);  /* before shutdown(2): 0, or as a step */
  int (*connected)(lua_State *L, lsock_Op *op);          /* after connect(2): likewise */
  int (*accepted)(lua_State *L, lsock_Op *op, int slot); /* makes a socket of the kind out of that at slot: likewise */
  size_t (*pending)(const lsock_Sock *s);                /* bytes that poll(2) does not know of; 1: or else, no wait */
  void (*closing)(lsock_Sock *s, int last);              /* the descriptor goes; last: a goodbye may be sent */
  int (*busy)(const lsock_Sock *s);                      /* within an attempt: this is its callback */
};

#include "lsocket_api.h"

/* ---------------------------------------------------------------- the common case, inlined */

#if !defined(LSOCKET_BESIDE)
/* A stream whose receives stop short only when nothing is left: Unix sockets do after descriptors, SCTP after messages. */
LSOCK_INLINE int lsock_istcp(const lsock_Sock *s) {
  return s->type == SOCK_STREAM && (s->family == AF_INET || s->family == AF_INET6) &&
         (s->proto == 0 || s->proto == IPPROTO_TCP);
}

/* Of those, less than asked for was all there is (epoll(7)). */
LSOCK_INLINE void lsock_note(lsock_Sock *s, ssize_t got, size_t asked) {
  if (got > 0 && (size_t)got < asked)
    s->likely_idle |= LSOCK_DRAINED;
  else
    s->likely_idle &= (unsigned char)~LSOCK_DRAINED;
}

/* One attempt to receive or to send. */
LSOCK_INLINE ssize_t lsock_receive(lua_State *L, lsock_Op *op, char *buf, size_t n, int flags) {
  lsock_Sock *s = op->s;
  ssize_t got;
  if (s->tr) return s->tr->receive(L, op, buf, n, flags);
  got = recv(s->fd, buf, n, flags | LSOCK_DONTWAIT(op));
  if (op->coop && flags == 0 && lsock_istcp(s)) lsock_note(s, got, n);
  return lsock_likely(got >= 0) ? got : lsock_again(op, LSOCK_READ);
}

LSOCK_INLINE ssize_t lsock_transmit(lua_State *L, lsock_Op *op, const char *data, size_t n, int flags) {
  lsock_Sock *s = op->s;
  ssize_t sent;
  if (s->tr) return s->tr->transmit(L, op, data, n, flags);
  sent = send(s->fd, data, n, flags | LSOCK_NOSIGNAL | LSOCK_DONTWAIT(op));
  return lsock_likely(sent >= 0) ? sent : lsock_again(op, LSOCK_WRITE);
}
#endif

LSOCK_INLINE lsock_Sock *lsock_checksock(lua_State *L, int arg, const lsock_Core *core) {
  lsock_Sock *s = lua_touserdata(L, arg);
  if (lsock_likely(s && lua_rawlen(L, arg) >= sizeof *s && s->seal == LSOCK_SEAL(core, s, LSOCK_KIND_SOCK))) return s;
  lsock_nosock(L, arg);
}

LSOCK_INLINE void lsock_op_init(lsock_Op *op, lsock_Core *core, const char *name, lsock_Step step, int dir) {
  op->core = core;
  op->step = step;
  op->name = name;
  op->dir = dir;
  op->until = 0;
  op->msg = NULL;
  op->partial = NULL;
  op->job = NULL;
  op->done = 0;
  op->err = op->cls = op->address = op->extra = 0;
  op->flags = op->nowait = op->coop = op->want = op->kept = op->mark = op->progress = op->beside = op->state =
      op->slot = op->unsent = 0;
  op->into = NULL;
  op->handle = op->file = op->formats = op->flush = 0;
  op->turn = 0;
}

/* An operation on the socket at index `self`; argument error if it is none. */
LSOCK_INLINE void lsock_op_on(lua_State *L, lsock_Op *op, int self, const char *name, lsock_Step step, int dir) {
  lsock_Core *core = lsock_core(L);
  lsock_Sock *s = lsock_checksock(L, self, core);
  op->s = op->w = s;
  op->fd = s->fd;
  op->timeout = s->timeout;
  op->self = op->wslot = self;
  lsock_op_init(op, core, name, step, dir);
}

/* On that at index 1. */
LSOCK_INLINE void lsock_op(lua_State *L, lsock_Op *op, const char *name, lsock_Step step, int dir) {
  lsock_op_on(L, op, 1, name, step, dir);
}

/* An operation without a socket, bounded by the default timeout. */
LSOCK_INLINE void lsock_op_free(lua_State *L, lsock_Op *op, const char *name, lsock_Step step) {
  lsock_Core *core = lsock_core(L);
  op->s = op->w = NULL;
  op->fd = LSOCK_NOFD;
  op->self = op->wslot = 1;
  op->timeout = core->default_timeout;
  lsock_op_init(op, core, name, step, LSOCK_RD);
}

/* Calls the step; with LSOCK_CHECKED it also looks at what the step leaves on the Lua stack. */
#if defined(LSOCK_CHECKED)
LSOCK_INLINE int lsock_attempt(lua_State *L, lsock_Op *op) {
  int before = lua_gettop(L), r = op->step(L, op);
  assert(r >= 0 || r == LSOCK_FAIL || lua_gettop(L) == (op->top > before ? op->top : before));
  return r;
}
#else
#define lsock_attempt(L, op) ((op)->step((L), (op)))
#endif

/* lsock_drive; the first attempt of a socket that blocks, or never waits, is mostly its last and needs nothing of the driver. */
LSOCK_INLINE int lsock_run(lua_State *L, lsock_Op *op) {
  const lsock_Sock *s = op->s;
  if (lsock_likely(s && s->fd != LSOCK_NOFD && op->timeout <= 0 && !s->closing &&
                   (op->timeout == 0 || !(op->core->hook | s->nonblocking)))) {
    int r;
    op->deadline = INT64_MAX;
    op->nowait = op->timeout == 0;
    op->top = 0;
    r = lsock_attempt(L, op);
    return lsock_likely(r >= 0) ? r : lsock_go_on(L, op, r);
  }
  return lsock_drive(L, op);
}

/* ---------------------------------------------------------------- methods and functions of other files */

extern const lsock_Reg lsock_opt_methods[];
extern const lsock_Reg lsock_io_methods[];
extern const lsock_Reg lsock_connect_methods[];
extern const lsock_Reg lsock_msg_methods[];
extern const lsock_Reg lsock_file_methods[];
extern const lsock_Reg lsock_sendfile_methods[];
LSOCK_ONCE void lsock_open_connect(lua_State *L, int core);

#endif
