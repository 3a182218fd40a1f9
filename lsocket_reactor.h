/*
** lsocket_reactor.h: what lsocket_reactor.c and lsocket_task.c share: reactors, their tasks and alarms.
**
** A task is FRESH, in the queue, when it is added. When its turn comes it is RUNNING, until it yields: then it is WAITING
** for a descriptor, a time or both, PARKED until it is woken or a time has come, or QUEUED for its next turn; or it has
** ENDED. One that waits is QUEUED by an event, a timer, or whoever wakes it, and RUNNING again in the next round.
**
** C points to a task from the queue (`lined`), from an entry (`fd`) and from the heap of timers (`timer.place`), and to a
** reactor from nowhere but the stack. The reactor's table of tasks keeps a task until it has ended and is in none of
** these; the core's table of reactors, which is weak, knows of a reactor as long as its memory is valid. Nothing depends
** on finalizers, which Lua may have no memory or no C stack to call.
**
** Whatever allocates may run a finalizer, and that any function of this library: so a function first makes all the room
** it needs, then looks at the state of things, and changes it without allocating. Nothing can fail, or come, between.
*/
#ifndef LSOCKET_REACTOR_H
#define LSOCKET_REACTOR_H

#include "lsocket_int.h"

typedef struct lsock_Reactor Reactor;

typedef enum State { FRESH, QUEUED, RUNNING, WAITING, PARKED, ENDED } State;

/* A task; its user value 1 is its coroutine. Without one, on the C stack: a nested wait. */
typedef struct Task {
  uintptr_t seal;
  lsock_Timer timer;
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
LSOCK_BEGINS_WITH_SEAL(Task);

/* What is known of a descriptor. */
typedef struct Entry {
  const lsock_Sock *s; /* who has it, as long as it is watched: to be compared, not looked at */
  Task *waiter[2];     /* mostly one each, see lsock_Op.beside */
  int seen;            /* bits 1 << LSOCK_RD ...: reported since the last wait */
  int end;             /* reading will not wait any more */
} Entry;

/* A function to be called at a time: user value 1; 2 is the reactor, whose table keeps it while the timer is set. */
typedef struct Alarm {
  uintptr_t seal;
  lsock_Timer timer;
  Reactor *r;
} Alarm;
LSOCK_BEGINS_WITH_SEAL(Alarm);

/* What a timer is a part of. */
#define TIMED(type, t) ((type *)(void *)((char *)(t)-offsetof(type, timer)))

struct lsock_Reactor {
  uintptr_t seal;
  lsock_Core *core;
  lsock_Sock *s; /* holds the poller: closed with it */
  int id;        /* in the core's table, and of sockets it watches, in their `watch` */
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

enum {
  UV_TASKS = 1,
  UV_ENTRIES,
  UV_HEAP,
  UV_SOCK,
  UV_THROWN,
  UV_ALARMS,
  UV_DEAD,
  UV_ROUND,
  UV_ENDED,
  UV_COUNT = UV_ENDED
};

/* NULL, or an argument error, unless the value at idx, or at 1, is a reactor; lsock_checkopen: and open. */
Reactor *lsock_toreactor(lua_State *L, int idx);
Reactor *lsock_checkreactor(lua_State *L);
Reactor *lsock_checkopen(lua_State *L);

/* Gives the reactor at idx a number, in the core's table; 0: there is none left. And takes that away. */
int lsock_reactor_enlist(lua_State *L, int idx, Reactor *r);
void lsock_reactor_unlist(lua_State *L, Reactor *r);

/* Push the active reactor, which holds the memory of all this; a table of the reactor at `owner`; a task of that. */
void lsock_pushactive(lua_State *L);
void lsock_pushpart(lua_State *L, int owner, int uv);
void lsock_pushtask(lua_State *L, int owner, const Task *t);

/* The task that this coroutine belongs to; NULL: none. */
Task *lsock_task_here(lua_State *L, const lsock_Core *core);

/* May a coroutine be resumed? 0: somebody else has, < 0: it has ended. */
int lsock_suspended(lua_State *co);

/* Lets it have its turn; that only if it waits, with this answer. What was thrown into it. */
void lsock_task_enqueue(lua_State *L, Task *t);
void lsock_task_wake(lua_State *L, Task *t, int answer);
int lsock_task_thrown(lua_State *L, Task *t); /* pushes it; LSOCK_R_THROWN */

/* The table of alarms keeps the one at idx no longer. */
void lsock_alarm_forget(lua_State *L, int owner, const Alarm *a);

/* Makes room, on the stack too, for a task of the active reactor that waits; the only part of a wait that allocates. */
void lsock_task_reserve(lua_State *L, Reactor *r, lsock_fd fd, int64_t ns);
void lsock_task_timer(Reactor *r, lsock_Timer *t, int64_t ns);

/* Until the next timer, or there is something to do: ns, < 0 for ever. */
int64_t lsock_reactor_next(const Reactor *r);

/* The method `turn`; what it calls once, kept by the reactor. */
int lsock_r_turn(lua_State *L);
int lsock_reactor_round(lua_State *L);

#endif
