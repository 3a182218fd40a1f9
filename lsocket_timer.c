/*
** lsocket_timer.c: points in time in the order they come: a heap of four branches, whose items know their places.
*/
#include "lsocket_int.h"

#include <string.h>

static void put(lsock_Timers *h, size_t i, lsock_Timed t) {
  h->heap[i] = t;
  t.timer->place = i + 1;
}

static void up(lsock_Timers *h, size_t i, lsock_Timed t) {
  while (i > 0) {
    size_t parent = (i - 1) / 4;
    if (h->heap[parent].at <= t.at) break;
    put(h, i, h->heap[parent]);
    i = parent;
  }
  put(h, i, t);
}

static void down(lsock_Timers *h, size_t i, lsock_Timed t) {
  for (;;) {
    size_t child = 4 * i + 1, end = child + 4, least = child;
    if (child >= h->n) break;
    if (end > h->n) end = h->n;
    while (++child < end)
      if (h->heap[child].at < h->heap[least].at) least = child;
    if (h->heap[least].at >= t.at) break;
    put(h, i, h->heap[least]);
    i = least;
  }
  put(h, i, t);
}

void lsock_timer_reserve(lua_State *L, lsock_Timers *h, int owner, int uservalue) {
  while (h->n >= h->cap) {
    size_t cap = h->cap ? h->cap * 2 : 64;
    lsock_Timed *heap = lua_newuserdatauv(L, cap * sizeof *heap, 0);
    if (cap <= h->cap) { /* a finalizer that ran just now set timers */
      lua_pop(L, 1);
      continue;
    }
    if (h->n) memcpy(heap, h->heap, h->n * sizeof *heap);
    lua_setiuservalue(L, owner, uservalue);
    h->heap = heap;
    h->cap = cap;
  }
}

void lsock_timer_set(lsock_Timers *h, lsock_Timer *t, int64_t at) {
  lsock_Timed timed;
  lsock_timer_clear(h, t);
  timed.at = at;
  timed.timer = t;
  up(h, h->n++, timed);
}

void lsock_timer_clear(lsock_Timers *h, lsock_Timer *t) {
  size_t i = t->place;
  lsock_Timed last;
  if (i-- == 0) return;
  t->place = 0;
  last = h->heap[--h->n];
  if (i == h->n) return;
  if (i > 0 && h->heap[(i - 1) / 4].at > last.at)
    up(h, i, last);
  else
    down(h, i, last);
}
