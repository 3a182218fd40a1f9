/*
** lsocket_reactor.h: what lsocket_reactor.c and lsocket_task.c share: reactors, their tasks and alarms.
*/
#ifndef LSOCKET_REACTOR_H
#define LSOCKET_REACTOR_H

#include "lsocket_int.h"

typedef struct lsock_Reactor Reactor;

typedef enum State { FRESH, QUEUED, RUNNING, WAITING, PARKED, ENDED } State;

/* A task, or (without a coroutine) a nested wait. */
typedef struct Task {
  lsock_Timer timer; /* first: a timer that comes leads here */
  uintptr_t seal;
  Reactor *r;
  lua_State *co;
  lua_State *leaf;   /* the coroutine that may yield for it: its own, or one below it (loop.resume) */
  struct Task *next; /* in the queue */
  struct Task *also; /* who waits for the same, too */
  lsock_fd fd;       /* what it waits for; LSOCK_NOFD: time, or to be woken */
  int dir;
  int answer; /* LSOCK_R_ */
  int nargs, share;
  State state;
  unsigned char thrown; /* an error waits for it, in the table of those */
  unsigned char lined;  /* it is in the queue */
  unsigned char beside; /* as its operation says */
  lsock_Op op;          /* the operation that waits */
} Task;

/* What is known of a descriptor. */
typedef struct Entry {
  lsock_Sock *s;   /* who has it, as long as it is watched */
  Task *waiter[2]; /* mostly one each, see lsock_Op.beside */
  int seen;        /* bits 1 << LSOCK_RD ...: reported since the last wait */
  int end;         /* reading will not wait any more */
} Entry;

/* A function to be called at a time. */
typedef struct Alarm {
  lsock_Timer timer;
  uintptr_t seal; /* 0: it is over */
  Reactor *r;
  int ref;
} Alarm;

struct lsock_Reactor {
  uintptr_t seal;
  Reactor *next;
  lsock_Core *core;
  lsock_Sock *s; /* holds the poller */
  int id;        /* of sockets it watches, in their `watch` */
  int turning;   /* is within a round */
  int nested;
  int tasks, queued, polling; /* counts: all; those in the queue; those that wait for a descriptor */
  Entry *entries;
  int nentries;
  lsock_Timers timers;
  Task *head, **tail;
  Task *running;
};
LSOCK_BEGINS_WITH_SEAL(Reactor);

enum { UV_TASKS = 1, UV_ENTRIES, UV_HEAP, UV_SOCK, UV_THROWN, UV_ALARMS, UV_ENDED, UV_COUNT = UV_ENDED };

/* NULL, or an argument error, unless the value at idx, or at 1, is a reactor; lsock_checkopen: and open. */
Reactor *lsock_toreactor(lua_State *L, int idx);
Reactor *lsock_checkreactor(lua_State *L);
Reactor *lsock_checkopen(lua_State *L);
Reactor *lsock_reactor_find(const lsock_Core *core, int id);

/* Push the active reactor, which holds the memory of all this, and a table of that at `owner`. */
void lsock_pushactive(lua_State *L);
void lsock_pushpart(lua_State *L, int owner, int uv);

/* The task that this coroutine belongs to; NULL: none. */
Task *lsock_task_here(lua_State *L, const lsock_Core *core);

/* May a coroutine be resumed? 0: somebody else has, < 0: it has ended. */
int lsock_suspended(lua_State *co);

/* Lets it have its turn; that only if it waits, with this answer. What was thrown into it. */
void lsock_task_enqueue(Task *t);
void lsock_task_wake(Task *t, int answer);
int lsock_task_thrown(lua_State *L, Task *t); /* pushes it; LSOCK_R_THROWN */

void lsock_task_timer(lua_State *L, Reactor *r, lsock_Timer *t, int64_t ns);

/* Until the next timer, or there is something to do: ns, < 0 for ever. */
int64_t lsock_reactor_next(const Reactor *r);

/* The method `turn`. */
int lsock_r_turn(lua_State *L);

#endif
