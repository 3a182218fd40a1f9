/*
** lsocket_api.h: the core's functions for libraries beside it, such as socket/ssl.so.
**
** Lua loads each library where it cannot see the others' names, and a host may link them all into one program. Both
** work through one structure of function pointers, which the core keeps. The registry has the core under LSOCK_CAPSULE.
** A source that defines LSOCKET_BESIDE before lsocket_int.h calls the core's functions by their usual names, from
** functions that, like the core's own, have the core as their first upvalue.
*/
#ifndef LSOCKET_API_H
#define LSOCKET_API_H

#define LSOCK_CAPSULE "lsocket.core"

/* Grows with every change of this structure or of those in lsocket_int.h that libraries use. */
#define LSOCK_API_VERSION 5

typedef struct lsock_Api {
  unsigned version;
  unsigned size_api, size_core, size_sock, size_op; /* a second look at the same */
  lsock_Sock *(*newsockuv)(lua_State *, lsock_Core *, size_t, int);
  void (*open)(lua_State *, lsock_Sock *, lsock_fd, int, int, int);
  void (*hold)(lua_State *, lsock_fd);
  void (*nosock)(lua_State *, int);
  int (*closesock)(lua_State *, int, lsock_Sock *);
  void (*takefd)(lua_State *, int, lsock_Sock *, lsock_fd *);
  void (*do_register)(lua_State *, int, const lsock_Reg *);
  int (*newclass)(lua_State *, int, const char *, int);
  void (*pushclass)(lua_State *, int, int);
  void (*pusherror)(lua_State *, const lsock_Fail *);
  int (*fail)(lua_State *, const lsock_Fail *);
  int (*failno)(lua_State *, int, const char *);
  void (*pushextra)(lua_State *, lsock_Op *);
  int (*drive)(lua_State *, lsock_Op *);
  int (*go_on)(lua_State *, lsock_Op *, int);
  int (*settimeout)(lsock_Sock *, int64_t);
  int64_t (*checktimeout)(lua_State *, int);
  const char *(*checkbytes)(lua_State *, int, size_t *);
  char *(*checkbuffer)(lua_State *, int, size_t *);
  size_t (*checksize)(lua_State *, int);
  char *(*room)(lua_State *, lsock_Op *);
  const char *(*checkname)(lua_State *, int);
  void (*checkkeys)(lua_State *, int, const char *const[]);
  void (*count)(lsock_Core *, lsock_Sock *);
  int (*admit_other)(lua_State *, const char *, const char *);
  void (*guard)(lua_State *, int);
  void (*thrown)(lua_State *, lsock_Op *);
  int (*wake)(lua_State *, int, const lsock_Sock *);
  int (*pause)(lua_State *, lsock_Op *, int64_t);
} lsock_Api;

#if defined(LSOCKET_BESIDE)
#define LSOCK_API(L) (lsock_core(L)->api)
#define lsock_hold(L, fd) (LSOCK_API(L)->hold((L), (fd)))
#define lsock_newsockuv(L, core, size, uv) (LSOCK_API(L)->newsockuv((L), (core), (size), (uv)))
#define lsock_closesock(L, arg, s) (LSOCK_API(L)->closesock((L), (arg), (s)))
#define lsock_takefd(L, arg, s, fd) (LSOCK_API(L)->takefd((L), (arg), (s), (fd)))
#define lsock_pusherror(L, f) (LSOCK_API(L)->pusherror((L), (f)))
#define lsock_fail(L, f) (LSOCK_API(L)->fail((L), (f)))
#define lsock_failno(L, err, op) (LSOCK_API(L)->failno((L), (err), (op)))
#define lsock_pushextra(L, op) (LSOCK_API(L)->pushextra((L), (op)))
#define lsock_drive(L, op) (LSOCK_API(L)->drive((L), (op)))
#define lsock_go_on(L, op, outcome) (LSOCK_API(L)->go_on((L), (op), (outcome)))
#define lsock_checktimeout(L, arg) (LSOCK_API(L)->checktimeout((L), (arg)))
#define lsock_checkbytes(L, arg, len) (LSOCK_API(L)->checkbytes((L), (arg), (len)))
#define lsock_checkbuffer(L, arg, len) (LSOCK_API(L)->checkbuffer((L), (arg), (len)))
#define lsock_checksize(L, arg) (LSOCK_API(L)->checksize((L), (arg)))
#define lsock_room(L, op) (LSOCK_API(L)->room((L), (op)))
#define lsock_checkname(L, arg) (LSOCK_API(L)->checkname((L), (arg)))
#define lsock_checkkeys(L, arg, keys) (LSOCK_API(L)->checkkeys((L), (arg), (keys)))
#define lsock_count(core, s) ((core)->api->count((core), (s)))
#define lsock_guard(L, idx) (LSOCK_API(L)->guard((L), (idx)))
#define lsock_wake(L, arg, s) (LSOCK_API(L)->wake((L), (arg), (s)))
#define lsock_pause(L, op, ns) (LSOCK_API(L)->pause((L), (op), (ns)))
#define lsock_admit_other(L, op, what) (LSOCK_API(L)->admit_other((L), (op), (what)))
/* these do not return, but a pointer cannot say so to the compiler */
#define lsock_thrown(L, op)                                                                                            \
  do LSOCK_API(L)->thrown((L), (op));                                                                                  \
  while (1)
#define lsock_nosock(L, arg)                                                                                           \
  do LSOCK_API(L)->nosock((L), (arg));                                                                                 \
  while (1)
#else
#define LSOCK_API_INIT                                                                                                 \
  {                                                                                                                    \
    LSOCK_API_VERSION, sizeof(lsock_Api), sizeof(lsock_Core), sizeof(lsock_Sock), sizeof(lsock_Op), lsock_newsockuv,   \
        lsock_open, lsock_hold, lsock_nosock, lsock_closesock, lsock_takefd, lsock_register, lsock_newclass,           \
        lsock_pushclass, lsock_pusherror, lsock_fail, lsock_failno, lsock_pushextra, lsock_drive, lsock_go_on,         \
        lsock_settimeout, lsock_checktimeout, lsock_checkbytes, lsock_checkbuffer, lsock_checksize, lsock_room,        \
        lsock_checkname, lsock_checkkeys, lsock_count, lsock_admit_other, lsock_guard, lsock_thrown, lsock_wake,       \
        lsock_pause                                                                                                    \
  }
#endif

#endif
