/*
** lsocket_select.c: the module socket.selectors: selectors with Python's names, and select.
*/
#include "lsocket_int.h"

#include <stdio.h>
#include <string.h>

enum { EVENT_READ = LSOCK_EV_READ, EVENT_WRITE = LSOCK_EV_WRITE, EVENT_BOTH = EVENT_READ | EVENT_WRITE };

/* Fetched at once; of these at most half for bytes at hand, lest they starve the others. */
#define READY_MAX 256

/* Where a poller tells of so many it may have more to tell. */
#define READY_MANY 64

/* What is known of one descriptor. */
typedef struct Slot {
  int events;       /* 0: not registered */
  int at;           /* 1 + its place among the ready */
  unsigned round;   /* of the selector when it last was reported */
  lsock_Sock *tls;  /* a socket that may have bytes which the descriptor does not show */
  const void *file; /* a file of makefile's: likewise */
} Slot;

typedef struct Selector {
  uintptr_t seal;
  lsock_Sock *s; /* holds the poller; NULL: it uses poll(2) */
  int closed;
  unsigned round;    /* counts calls of select, each of which tells of each key once */
  int more;          /* there may be some that have not been fetched yet */
  int tls, tls_next; /* how many slots have either; where the next look at them begins */
  int nslots, nready, pos;
  Slot *slots;
  lsock_Event ready[READY_MAX];
} Selector;

LSOCK_BEGINS_WITH_SEAL(Selector);

/* Scripts may write into keys: what the slots point to is held apart from those. */
enum { UV_KEYS = 1, UV_OBJECTS, UV_HELD, UV_SLOTS, UV_SOCK, UV_COUNT = UV_SOCK };

/* Its user values hold what it needs; the debug library can change them. */
static Selector *anchored(lua_State *L, Selector *sel) {
  int whole;
  if (sel->closed) return sel;
  luaL_checkstack(L, 6, "selector");
  whole = lua_getiuservalue(L, 1, UV_KEYS) == LUA_TTABLE && lua_getiuservalue(L, 1, UV_OBJECTS) == LUA_TTABLE &&
          lua_getiuservalue(L, 1, UV_HELD) == LUA_TTABLE;
  lua_getiuservalue(L, 1, UV_SLOTS);
  lua_getiuservalue(L, 1, UV_SOCK);
  if (!whole || lua_touserdata(L, -2) != sel->slots || lua_touserdata(L, -1) != sel->s) lsock_tampered(L);
  lua_pop(L, 5);
  return sel;
}

static Selector *is_selector(lua_State *L) {
  Selector *sel = lsock_object(L, 1, LSOCK_KIND_SELECTOR, sizeof *sel);
  if (sel) return sel;
  luaL_typeerror(L, 1, "selector");
  return NULL;
}

static Selector *check_selector(lua_State *L) {
  return anchored(L, is_selector(L));
}

static int closed(lua_State *L, const char *op) {
  lsock_Fail f = {0};
  f.err = EBADF;
  f.op = op;
  f.msg = "selector is closed";
  return lsock_fail(L, &f);
}

/* ---------------------------------------------------------------- descriptors */

/* The number that a method of the value at idx returns; 0: it has no such method. */
static int ask_fileno(lua_State *L, int idx, const char *method, lsock_fd *fd) {
  int isnum;
  lua_Integer n;
  if (lua_type(L, idx) == LUA_TUSERDATA) { /* one without __index cannot be asked */
    if (luaL_getmetafield(L, idx, "__index") == LUA_TNIL) return 0;
    lua_pop(L, 1);
  }
  if (lua_getfield(L, idx, method) == LUA_TNIL) {
    lua_pop(L, 1);
    return 0;
  }
  lua_pushvalue(L, idx);
  lua_call(L, 1, 1);
  n = lua_tointegerx(L, -1, &isnum);
  *fd = isnum && n >= 0 && n <= INT32_MAX ? (lsock_fd)n : LSOCK_NOFD;
  lua_pop(L, 1);
  return 1;
}

/* The descriptor of an object of this library or of Lua's, which no script can point to another one. */
static lsock_fd own_fd(lua_State *L, int idx) {
  const lsock_Core *core = lsock_core(L);
  const lsock_Sock *s = lsock_tosock(L, idx, core);
  const Selector *sel;
  const luaL_Stream *f;
  if (s) return lsock_isclosed(s) ? LSOCK_NOFD : s->fd;
  if ((f = luaL_testudata(L, idx, LUA_FILEHANDLE)) != NULL)
    return lua_rawlen(L, idx) == sizeof *f && f->closef ? (lsock_fd)fileno(f->f) : LSOCK_NOFD;
  if ((sel = lsock_object(L, idx, LSOCK_KIND_SELECTOR, sizeof *sel)) != NULL && sel->s) return sel->s->fd;
  s = lsock_filesock(L, idx);
  return s ? s->fd : LSOCK_NOFD;
}

/* A number, or what a method of the object says. May call Lua. */
static lsock_fd plain_fd(lua_State *L, int idx) {
  lsock_fd fd = LSOCK_NOFD;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    int isnum;
    lua_Integer n = lua_tointegerx(L, idx, &isnum);
    return isnum && n >= 0 && n <= INT32_MAX ? (lsock_fd)n : LSOCK_NOFD;
  }
  if (lua_type(L, idx) != LUA_TTABLE && lua_type(L, idx) != LUA_TUSERDATA) return LSOCK_NOFD;
  if (!ask_fileno(L, idx, "fileno", &fd)) ask_fileno(L, idx, "getfd", &fd);
  return fd;
}

/* The descriptor of what can be waited for: a socket, a file, a number, an object with fileno or getfd. LSOCK_NOFD: none. */
static lsock_fd to_fd(lua_State *L, int idx) {
  lsock_fd fd;
  luaL_checkstack(L, 4, "fileno");
  fd = own_fd(L, idx);
  return fd != LSOCK_NOFD ? fd : plain_fd(L, idx);
}

/* The same for what is to be waited for: of plain descriptors the host is asked. */
static lsock_fd admitted_fd(lua_State *L, int idx, const char *op) {
  lsock_fd fd;
  luaL_checkstack(L, 4, "fileno");
  fd = own_fd(L, idx);
  if (fd != LSOCK_NOFD) return fd;
  fd = plain_fd(L, idx);
  if (fd != LSOCK_NOFD && !lsock_may_fd(lsock_core(L), "fromfd", fd)) lsock_failrefused(L, op, "fromfd", NULL);
  return fd;
}

static lsock_fd check_fd(lua_State *L, int arg, const char *op) {
  lsock_fd fd;
  luaL_checkany(L, arg);
  fd = admitted_fd(L, arg, op);
  if (fd == LSOCK_NOFD && lua_isinteger(L, arg)) lsock_failno(L, EBADF, op);
  luaL_argcheck(L, fd != LSOCK_NOFD, arg, "has no open descriptor");
  return fd;
}

/* Bytes that its descriptor does not show? */
static int at_hand(const lsock_Sock *s) {
  return s && s->tr && s->fd != LSOCK_NOFD && s->tr->pending(s) > 0;
}

static int slot_at_hand(const Slot *slot, lsock_fd fd) {
  return slot->tls ? slot->tls->fd == fd && at_hand(slot->tls) : lsock_fileready(slot->file);
}

/* Has the object at idx such bytes? */
static int has_at_hand(lua_State *L, int idx) {
  return at_hand(lsock_tosock(L, idx, lsock_core(L))) || lsock_fileready(lsock_tofile(L, idx));
}

/* ---------------------------------------------------------------- registering */

static int check_events(lua_State *L, int arg) {
  lua_Integer e = luaL_checkinteger(L, arg);
  luaL_argcheck(L, e > 0 && (e & ~(lua_Integer)EVENT_BOTH) == 0, arg, "events must be EVENT_READ, EVENT_WRITE or both");
  return (int)e;
}

static void grow_slots(lua_State *L, Selector *sel, lsock_fd fd) {
  int n = sel->nslots ? sel->nslots : 64;
  Slot *slots;
  if (fd < sel->nslots) return;
  while (n <= fd) n = n > INT32_MAX / 2 ? INT32_MAX : n * 2;
  slots = lua_newuserdatauv(L, (size_t)n * sizeof *slots, 0);
  if (sel->closed || n <= sel->nslots) { /* a finalizer that ran just now was here too */
    lua_pop(L, 1);
    return;
  }
  memset(slots, 0, (size_t)n * sizeof *slots);
  if (sel->nslots) memcpy(slots, sel->slots, (size_t)sel->nslots * sizeof *slots);
  lua_setiuservalue(L, 1, UV_SLOTS);
  sel->slots = slots;
  sel->nslots = n;
}

/* Does what is registered under the number, and is not the object at index 2, have it no more? May call Lua. */
static int is_stale(lua_State *L, const Selector *sel, lsock_fd fd) {
  int stale;
  if (anchored(L, lua_touserdata(L, 1))->closed || fd == LSOCK_NOFD || fd >= sel->nslots || !sel->slots[fd].events)
    return 0;
  lua_getiuservalue(L, 1, UV_HELD);
  lua_rawgeti(L, -1, fd);
  stale = !lua_rawequal(L, -1, 2) && to_fd(L, lua_gettop(L)) != fd;
  lua_pop(L, 2);
  return stale;
}

/* Pushes the key of the object at index 2, also of one closed since; 0 and nothing pushed without one. */
static int find_key(lua_State *L, const Selector *sel, lsock_fd *fd) {
  int stale;
  *fd = to_fd(L, 2);
  stale = lua_type(L, 2) != LUA_TNUMBER && is_stale(L, sel, *fd);
  if (anchored(L, lua_touserdata(L, 1))->closed) return 0; /* by a method of an object's own */
  if (!stale && *fd != LSOCK_NOFD && *fd < sel->nslots && sel->slots[*fd].events) {
    lua_getiuservalue(L, 1, UV_KEYS);
    lua_rawgeti(L, -1, *fd);
  } else {
    lua_getiuservalue(L, 1, UV_OBJECTS);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    if (lua_istable(L, -1)) {
      lua_getfield(L, -1, "fd");
      *fd = (lsock_fd)lua_tointeger(L, -1);
      lua_pop(L, 1);
      if (*fd < 0 || *fd >= sel->nslots || !sel->slots[*fd].events) { /* somebody wrote into the key */
        lua_pop(L, 2);
        return 0;
      }
    }
  }
  lua_remove(L, -2);
  if (!lua_isnil(L, -1)) return 1;
  lua_pop(L, 1);
  return 0;
}

static int set_events(const Selector *sel, lsock_fd fd, int before, int after) {
  return sel->s ? lsock_plat_poller_set(sel->s->fd, fd, before, after) : 0;
}

/* What is registered under the number is so no longer. */
static void drop(lua_State *L, Selector *sel, lsock_fd fd) {
  Slot *slot = &sel->slots[fd];
  set_events(sel, fd, slot->events, 0); /* of one closed before, nothing is left to remove */
  sel->tls -= slot->tls || slot->file;
  memset(slot, 0, sizeof *slot);
  lua_getiuservalue(L, 1, UV_OBJECTS);
  lua_getiuservalue(L, 1, UV_HELD);
  lua_rawgeti(L, -1, fd);
  lua_pushnil(L);
  lua_rawseti(L, -3, fd);
  lua_remove(L, -2);
  lua_pushnil(L);
  lua_rawset(L, -3);
  lua_getiuservalue(L, 1, UV_KEYS);
  lua_pushnil(L);
  lua_rawseti(L, -2, fd);
  lua_pop(L, 2);
}

/* sel:register(fileobj, events [, data]) -> key (epoll_ctl(2), kqueue(2)) */
static int sel_register(lua_State *L) {
  Selector *sel = check_selector(L);
  int events = check_events(L, 3);
  lsock_fd fd = check_fd(L, 2, "register");
  Slot *slot;
  lua_settop(L, 4);
  if (anchored(L, sel)->closed) return closed(L, "register");
  if ((!sel->s || fd >= sel->nslots) && lsock_plat_get_inheritable(fd) < 0) return lsock_failno(L, errno, "register");
  if (is_stale(L, sel, fd) && fd < sel->nslots && sel->slots[fd].events) drop(L, sel, fd);
  lua_createtable(L, 0, 4);
  grow_slots(L, sel, fd); /* from here on nothing runs finalizers, which may change the selector */
  if (sel->closed) return closed(L, "register");
  luaL_argcheck(L, !sel->slots[fd].events, 2, "is already registered");
  lua_pushvalue(L, 2);
  lua_setfield(L, 5, "fileobj");
  lua_pushinteger(L, fd);
  lua_setfield(L, 5, "fd");
  lua_pushinteger(L, events);
  lua_setfield(L, 5, "events");
  lua_pushvalue(L, 4);
  lua_setfield(L, 5, "data");
  lua_getiuservalue(L, 1, UV_KEYS);
  lua_pushvalue(L, 5);
  lua_rawseti(L, -2, fd);
  lua_getiuservalue(L, 1, UV_OBJECTS);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 5);
  lua_rawset(L, -3);
  lua_getiuservalue(L, 1, UV_HELD);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, fd);
  if (set_events(sel, fd, 0, events) < 0) {
    int err = errno;
    lua_pushvalue(L, 2);
    lua_pushnil(L);
    lua_rawset(L, -4);
    return lsock_failno(L, err, "register");
  }
  slot = &sel->slots[fd];
  slot->events = events;
  slot->tls = lsock_tosock(L, 2, lsock_core(L));
  if (slot->tls && !slot->tls->tr) slot->tls = NULL;
  slot->file = lsock_tofile(L, 2);
  sel->tls += slot->tls || slot->file;
  lua_settop(L, 5);
  return 1;
}

/* sel:unregister(fileobj) -> key */
static int sel_unregister(lua_State *L) {
  Selector *sel = check_selector(L);
  lsock_fd fd;
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  if (sel->closed) return closed(L, "unregister");
  if (!find_key(L, sel, &fd)) return luaL_argerror(L, 2, "is not registered");
  drop(L, sel, fd);
  return 1;
}

/* sel:modify(fileobj, events [, data]) -> key */
static int sel_modify(lua_State *L) {
  Selector *sel = check_selector(L);
  int events = check_events(L, 3);
  lsock_fd fd;
  lua_settop(L, 4);
  if (sel->closed) return closed(L, "modify");
  if (!find_key(L, sel, &fd)) return luaL_argerror(L, 2, "is not registered");
  if (sel->slots[fd].events != events) {
    if (set_events(sel, fd, sel->slots[fd].events, events) < 0) return lsock_failno(L, errno, "modify");
    sel->slots[fd].events = events;
  }
  lua_pushinteger(L, events);
  lua_setfield(L, 5, "events");
  lua_pushvalue(L, 4);
  lua_setfield(L, 5, "data");
  return 1;
}

/* sel:get_key(fileobj) -> key */
static int sel_get_key(lua_State *L) {
  const Selector *sel = check_selector(L);
  lsock_fd fd;
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  if (sel->closed) return closed(L, "get_key");
  if (!find_key(L, sel, &fd)) return luaL_argerror(L, 2, "is not registered");
  return 1;
}

/* sel:get_map() -> a table of the keys by their fileobj; nil when it is closed */
static int sel_get_map(lua_State *L) {
  if (check_selector(L)->closed) return 0;
  lua_createtable(L, 0, 8);
  lua_getiuservalue(L, 1, UV_OBJECTS);
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -5);
  }
  lua_pop(L, 1);
  return 1;
}

/* sel:fileno() -> the poller's descriptor, nil without one */
static int sel_fileno(lua_State *L) {
  const Selector *sel = check_selector(L);
  if (sel->closed) return closed(L, "fileno");
  if (!sel->s) return 0;
  lua_pushinteger(L, sel->s->fd);
  return 1;
}

static void forget(lua_State *L, Selector *sel) {
  sel->closed = 1;
  sel->nslots = sel->nready = sel->pos = sel->more = sel->tls = 0;
  sel->slots = NULL;
  if (!sel->s) return;
  lua_getiuservalue(L, 1, UV_SOCK);
  lsock_closesock(L, lua_gettop(L), sel->s);
  sel->s = NULL;
}

/* sel:close() -> true; what it watched stays open */
static int sel_close(lua_State *L) {
  Selector *sel = check_selector(L);
  int uv;
  if (!sel->closed) forget(L, sel);
  for (uv = 1; uv <= UV_COUNT; uv++) {
    lua_pushnil(L);
    lua_setiuservalue(L, 1, uv);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int sel_tostring(lua_State *L) {
  const Selector *sel = check_selector(L);
  if (sel->closed)
    lua_pushliteral(L, "selector: <closed>");
  else if (sel->s)
    lua_pushfstring(L, "selector: <fd=%d>", sel->s->fd);
  else
    lua_pushliteral(L, "selector: <poll>");
  return 1;
}

/* ---------------------------------------------------------------- waiting */

/* Is it among those fetched last? */
static int is_fetched(const Selector *sel, const Slot *slot, lsock_fd fd) {
  return slot->at > 0 && slot->at <= sel->nready && sel->ready[slot->at - 1].fd == fd;
}

/* Was this call of select's iterator given it before those? */
static int was_told(const Selector *sel, const Slot *slot, lsock_fd fd) {
  return slot->round == sel->round && !is_fetched(sel, slot, fd);
}

static void report(Selector *sel, lsock_fd fd, int events) {
  Slot *slot = fd < sel->nslots ? &sel->slots[fd] : NULL;
  if (!slot || !(slot->events & events) || was_told(sel, slot, fd)) return;
  if (is_fetched(sel, slot, fd)) {
    sel->ready[slot->at - 1].events |= events;
    return;
  }
  slot->round = sel->round;
  sel->ready[sel->nready].fd = fd;
  sel->ready[sel->nready].events = events;
  slot->at = ++sel->nready;
}

static void report_tls(Selector *sel) {
  int i, left = sel->slots ? sel->tls : 0;
  for (i = 0; i < sel->nslots && left > 0 && !(sel->more = sel->nready == READY_MAX / 2); i++) {
    lsock_fd fd = (sel->tls_next + i) % sel->nslots;
    const Slot *slot = &sel->slots[fd];
    if (!slot->tls && !slot->file) continue;
    left--;
    if ((slot->events & EVENT_READ) && slot_at_hand(slot, fd)) report(sel, fd, EVENT_READ);
  }
  if (sel->nslots) sel->tls_next = (sel->tls_next + i) % sel->nslots;
}

static int wait_poller(Selector *sel, int64_t ns) {
  lsock_Event ev[READY_MAX / 2];
  int i, n = lsock_plat_poller_wait(sel->s->fd, ev, READY_MAX / 2, ns);
  for (i = 0; i < n; i++) report(sel, ev[i].fd, ev[i].events & EVENT_BOTH);
  sel->more |= n >= READY_MANY;
  return n;
}

static int events_of(short revents) {
  int e = 0;
  if (revents & ~POLLOUT) e |= EVENT_READ;
  if (revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL)) e |= EVENT_WRITE;
  return e;
}

/* The descriptor of a socket or a Lua file that was closed, or lost it, is not waited for: the number may be another's. */
static int is_gone(lua_State *L, int idx, lsock_fd fd) {
  const lsock_Sock *s = lsock_tosock(L, idx, lsock_core(L));
  if (!s) s = lsock_filesock(L, idx);
  if (s) return s->fd != fd;
  return luaL_testudata(L, idx, LUA_FILEHANDLE) && own_fd(L, idx) != fd;
}

static int wait_poll(lua_State *L, Selector *sel, int64_t ns) {
  int slots = sel->nslots; /* finalizers that run now may add some */
  struct pollfd *p = lua_newuserdatauv(L, ((size_t)slots + 1) * sizeof *p, 0);
  size_t i, n = 0;
  lsock_fd fd;
  int r, top = lua_gettop(L) - 1;
  if (sel->closed)
    ns = 0; /* or have closed it */
  else
    lua_getiuservalue(L, 1, UV_HELD);
  for (fd = 0; fd < slots && fd < sel->nslots; fd++) {
    const Slot *slot = &sel->slots[fd];
    int gone;
    if (!slot->events || was_told(sel, slot, fd)) continue;
    lua_rawgeti(L, -1, fd);
    gone = is_gone(L, lua_gettop(L), fd);
    lua_pop(L, 1);
    if (gone) continue;
    p[n].fd = fd;
    p[n].events = (short)((slot->events & EVENT_READ ? POLLIN : 0) | (slot->events & EVENT_WRITE ? POLLOUT : 0));
    p[n++].revents = 0;
  }
  r = lsock_plat_pollmany(p, n, ns);
  if (r > 0) {
    size_t first = n ? (size_t)sel->tls_next % n : 0; /* every one has its turn where not all find room */
    for (i = 0; i < n && sel->nready < READY_MAX; i++) {
      const struct pollfd *q = &p[(first + i) % n];
      if (q->revents) report(sel, q->fd, events_of(q->revents));
    }
    if (i < n) {
      sel->tls_next = (int)((first + i) % n);
      sel->more = 1;
    }
  }
  lua_settop(L, top);
  return r;
}

static int fetch(lua_State *L, Selector *sel, int64_t ns) {
  int n;
  sel->nready = sel->pos = sel->more = 0;
  if (sel->tls) report_tls(sel);
  if (sel->nready) ns = 0;
  n = sel->s ? wait_poller(sel, ns) : wait_poll(L, sel, ns);
  sel->more &= sel->nready > 0;
  return n;
}

/* What of a key's events the next ones to be fetched would tell, too late. */
static int rest_of(const Slot *slot, const lsock_Event *ev) {
  int missing = slot->events & ~ev->events;
  if (missing == EVENT_READ && slot_at_hand(slot, ev->fd)) return missing;
  return lsock_plat_poll(ev->fd, missing == EVENT_READ ? POLLIN : POLLOUT, 0) > 0 ? missing : 0;
}

/* Iterator of select: selector -> key, events; upvalue 2 has the keys, 3 the round */
static int sel_next(lua_State *L) {
  Selector *sel = is_selector(L);
  lua_getiuservalue(L, 1, UV_SLOTS);
  if (lua_touserdata(L, -1) != sel->slots) lsock_tampered(L);
  if ((unsigned)lua_tointeger(L, lua_upvalueindex(3)) != sel->round) return 0; /* another call ended it */
  do {
    while (sel->pos < sel->nready) {
      const lsock_Event *ev = &sel->ready[sel->pos++];
      const Slot *slot = ev->fd < sel->nslots ? &sel->slots[ev->fd] : NULL;
      int events = slot && slot->at == sel->pos ? slot->events & ev->events : 0;
      if (!events) continue; /* no longer registered so */
      if (sel->more && events != slot->events) events |= rest_of(slot, ev);
      luaL_checktype(L, lua_upvalueindex(2), LUA_TTABLE);
      lua_rawgeti(L, lua_upvalueindex(2), ev->fd);
      lua_pushinteger(L, events);
      return 2;
    }
  } while (sel->more && fetch(L, anchored(L, sel), 0) >= 0);
  return 0;
}

static int push_ready(lua_State *L, lsock_Op *op) {
  (void)op;
  lua_pushvalue(L, LSOCK_UP_CORE);
  lua_getiuservalue(L, 1, UV_KEYS);
  lua_pushinteger(L, ((Selector *)lua_touserdata(L, 1))->round);
  lua_pushcclosure(L, sel_next, 3);
  lua_pushvalue(L, 1);
  return 2;
}

/* Only a time that is up is no failure. */
static int is_late(const lsock_Op *op) {
  return op->cls == LSOCK_TIMEOUT || op->err == EAGAIN;
}

static int late_ready(lua_State *L, lsock_Op *op) {
  return is_late(op) ? push_ready(L, op) : -1;
}

/* What an attempt that may wait by itself may wait: ns, < 0 for ever. */
static int64_t patience(const lsock_Op *op) {
  int64_t left;
  if (op->timeout == 0 || (op->core->hook & LSOCK_NEVER && !op->w)) return 0;
  if (op->deadline == INT64_MAX) return -1;
  left = op->deadline - lsock_plat_now();
  return left > 0 ? left : 0;
}

static int step_select(lua_State *L, lsock_Op *op) {
  Selector *sel = anchored(L, lua_touserdata(L, 1));
  int64_t ns = patience(op);
  int n;
  if (sel->closed) {
    op->err = ECANCELED;
    op->msg = "selector was closed while waiting";
    return LSOCK_FAIL;
  }
  sel->round++;
  n = fetch(L, sel, op->coop && sel->s ? 0 : ns);
  if (n < 0 && !sel->nready) return lsock_again(op, LSOCK_READ);
  if (sel->nready || patience(op) == 0) return push_ready(L, op);
  return op->coop && sel->s ? LSOCK_READ : LSOCK_INTR;
}

/* sel:select([timeout]) -> iterator (epoll_wait(2), kevent(2), poll(2)) */
static int sel_select(lua_State *L) {
  Selector *sel = check_selector(L);
  int64_t timeout;
  lsock_Op op;
  lua_settop(L, 2);
  if (lua_type(L, 2) == LUA_TNUMBER && lua_tonumber(L, 2) < 0) { /* as in Python */
    lua_pushinteger(L, 0);
    lua_replace(L, 2);
  }
  timeout = lsock_checktimeout(L, 2);
  if (sel->closed) return closed(L, "select");
  if (sel->s) {
    lua_getiuservalue(L, 1, UV_SOCK);
    lsock_op_on(L, &op, 3, "select", step_select, LSOCK_MODAL);
  } else
    lsock_op_free(L, &op, "select", step_select);
  op.timeout = timeout;
  op.partial = late_ready;
  return lsock_drive(L, &op);
}

/* ---------------------------------------------------------------- select */

/* Copies the list at `arg` and notes the descriptors of its items. Returns their number. */
static size_t read_list(lua_State *L, int arg) {
  lua_Integer i, n;
  luaL_checktype(L, arg, LUA_TTABLE);
  n = luaL_len(L, arg);
  luaL_argcheck(L, n <= INT32_MAX / 4, arg, "too many items");
  lua_createtable(L, (int)n, 0);
  lua_createtable(L, (int)n, 0);
  for (i = 1; i <= n; i++) {
    lsock_fd fd;
    lua_geti(L, arg, i);
    fd = admitted_fd(L, lua_gettop(L), "select");
    if (fd == LSOCK_NOFD && lua_isinteger(L, -1)) lsock_failno(L, EBADF, "select");
    if (fd == LSOCK_NOFD) luaL_argerror(L, arg, lua_pushfstring(L, "item %d has no open descriptor", (int)i));
    lua_rawseti(L, -3, i);
    lua_pushinteger(L, fd);
    lua_rawseti(L, -2, i);
  }
  lua_replace(L, arg + 5); /* descriptors at 6 ... */
  lua_replace(L, arg);     /* objects at 1 ... */
  return (size_t)n;
}

/* Makes the room of an operation of select: the lists' items in one row. */
static void fill(lua_State *L, lsock_Op *op, const size_t count[3]) {
  static const short events[] = {POLLIN, POLLOUT, POLLPRI};
  struct pollfd *p = lua_newuserdatauv(L, (op->len + 1) * sizeof *p, 0);
  int list;
  op->into = (char *)p;
  for (list = 0; list < 3; list++) {
    size_t i;
    for (i = 1; i <= count[list]; i++, p++) {
      lua_rawgeti(L, 6 + list, (lua_Integer)i);
      p->fd = (lsock_fd)lua_tointeger(L, -1);
      p->events = events[list];
      p->revents = 0;
      lua_pop(L, 1);
    }
  }
}

/* For the wait hook: a poller of them all. What it cannot watch is always ready. */
static int gather(lua_State *L, lsock_Op *op) {
  const struct pollfd *p = (const struct pollfd *)(void *)op->into;
  lsock_Sock *s = lsock_newsock(L, op->core);
  size_t i;
  lsock_fd fd;
  if (lsock_full(L, op->core, 1)) return lsock_stepfull(op);
  fd = lsock_plat_poller();
  if (fd == LSOCK_NOFD) return lsock_again(op, LSOCK_READ);
  lsock_open(L, s, fd, AF_UNSPEC, 0, 0);
  lsock_count(op->core, s);
  s->internal = 1;
  op->w = s;
  op->wslot = lua_gettop(L);
  lua_toclose(L, op->wslot);
  lsock_keepstack(L, op);
  lua_newtable(L);
  for (i = 0; i < op->len; i++) {
    int before, event = p[i].events == POLLOUT  ? LSOCK_EV_WRITE
                        : p[i].events == POLLIN ? LSOCK_EV_READ
                                                : LSOCK_EV_URGENT;
    lua_rawgeti(L, -1, p[i].fd);
    before = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (lsock_plat_poller_set(s->fd, p[i].fd, before, before | event) < 0) continue;
    lua_pushinteger(L, before | event);
    lua_rawseti(L, -2, p[i].fd);
  }
  lua_pop(L, 1);
  return 0;
}

/* The three lists of what is ready. */
static int push_lists(lua_State *L, lsock_Op *op) {
  const struct pollfd *p = (const struct pollfd *)(void *)op->into;
  int list;
  luaL_checkstack(L, 6, "select");
  for (list = 0; list < 3; list++) {
    lua_Integer i, out = 0, n = (lua_Integer)lua_rawlen(L, 1 + list);
    lua_newtable(L);
    for (i = 1; i <= n; i++, p++) {
      int ready = list < 2 ? events_of(p->revents) & (list == 0 ? EVENT_READ : EVENT_WRITE) : p->revents & POLLPRI;
      if (!ready) continue;
      lua_rawgeti(L, 1 + list, i);
      lua_rawseti(L, -2, ++out);
    }
  }
  return 3;
}

static int late_lists(lua_State *L, lsock_Op *op) {
  return is_late(op) ? push_lists(L, op) : -1;
}

static int step_lists(lua_State *L, lsock_Op *op) {
  struct pollfd *p = (struct pollfd *)(void *)op->into;
  size_t i, readers = (size_t)lua_rawlen(L, 1);
  int n, hot = 0;
  int64_t ns = patience(op);
  if (op->coop && !op->w) {
    int r = gather(L, op);
    if (r < 0 && op->err != ENOSYS) return r;
    op->coop = r == 0;
  }
  for (i = 0; i < readers && !hot; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    hot = has_at_hand(L, -1);
    lua_pop(L, 1);
  }
  n = lsock_plat_pollmany(p, op->len, hot || op->coop ? 0 : ns);
  if (n < 0) return lsock_again(op, LSOCK_READ);
  for (i = 0; n > 0 && i < op->len; i++)
    if (p[i].revents & POLLNVAL) {
      op->err = EBADF;
      return LSOCK_FAIL;
    }
  if (hot)
    for (i = 0; i < readers; i++) {
      lua_rawgeti(L, 1, (lua_Integer)i + 1);
      if (has_at_hand(L, -1)) p[i].revents |= POLLIN;
      lua_pop(L, 1);
    }
  if (n > 0 || hot || patience(op) == 0) return push_lists(L, op);
  return op->coop ? LSOCK_READ : LSOCK_INTR;
}

/* selectors.select(r, w, x [, timeout]) -> three lists of what is ready (poll(2)) */
static int mod_select(lua_State *L) {
  lsock_Op op;
  size_t count[3];
  int64_t timeout;
  int list;
  lua_settop(L, 4);
  timeout = lsock_checktimeout(L, 4);
  lua_settop(L, 9); /* 5 free, 6 ... the descriptors */
  for (list = 0; list < 3; list++) count[list] = read_list(L, 1 + list);
  lsock_op_free(L, &op, "select", step_lists);
  op.len = count[0] + count[1] + count[2];
  op.timeout = timeout;
  op.partial = late_lists;
  fill(L, &op, count);
  return lsock_drive(L, &op);
}

/* ---------------------------------------------------------------- one object */

static int push_true(lua_State *L) {
  lua_pushboolean(L, 1);
  return 1;
}

static int push_false(lua_State *L, lsock_Op *op) {
  if (!is_late(op)) return -1;
  lua_pushboolean(L, 0);
  return 1;
}

static int step_wait(lua_State *L, lsock_Op *op) {
  int n;
  if (op->state == LSOCK_READ && has_at_hand(L, 2)) return push_true(L);
  n = lsock_plat_poll(op->s->fd, op->state == LSOCK_READ ? POLLIN : POLLOUT, 0);
  if (n < 0) return lsock_again(op, op->state);
  return n > 0 ? push_true(L) : op->state;
}

/* loop.wait(fileobj, "r" | "w" [, seconds]) -> true, or false when the time is up */
int lsock_mod_wait(lua_State *L) {
  static const char *const modes[] = {"r", "w", NULL};
  lsock_Core *core = lsock_core(L);
  lsock_fd fd = check_fd(L, 1, "wait");
  int mode = luaL_checkoption(L, 2, NULL, modes);
  int64_t timeout = lsock_checktimeout(L, 3);
  int family = -1, type = -1, proto = -1; /* a wait hook gets to see it: the policy is to know what it is */
  lsock_Op op;
  lua_settop(L, 1);
  lua_pushvalue(L, 1);             /* what is asked for bytes at hand */
  if (!lsock_tosock(L, 1, core)) { /* under a socket of ours, which is closed at the end */
    lsock_Sock *s = lsock_newsock(L, core);
    s->internal = 1;
    if (lsock_full(L, core, 1)) return lsock_failfull(L, "wait");
    fd = lsock_plat_dup(fd);
    if (fd == LSOCK_NOFD) return lsock_failno(L, errno, "wait");
    s->shared = 1;
    if (!core->policy || lsock_describe(fd, &family, &type, &proto) < 0) family = type = proto = 0;
    lsock_open(L, s, fd, family, type, proto);
    lsock_count(core, s);
    lua_replace(L, 1);
    lua_settop(L, 2);
    lua_toclose(L, 1);
  }
  lsock_op_on(L, &op, 1, "wait", step_wait, mode == 0 ? LSOCK_RD : LSOCK_WR);
  op.timeout = timeout;
  op.state = mode == 0 ? LSOCK_READ : LSOCK_WRITE;
  op.partial = push_false;
  return lsock_drive(L, &op);
}

/* ---------------------------------------------------------------- opening */

static int new_selector(lua_State *L, int poller) {
  lsock_Core *core = lsock_core(L);
  Selector *sel = lua_newuserdatauv(L, sizeof *sel, UV_COUNT);
  int at = lua_gettop(L);
  memset(sel, 0, sizeof *sel);
  sel->seal = LSOCK_SEAL(core, sel, LSOCK_KIND_SELECTOR);
  lua_newtable(L);
  lua_setiuservalue(L, at, UV_KEYS);
  lua_newtable(L);
  lua_setiuservalue(L, at, UV_OBJECTS);
  lua_newtable(L);
  lua_setiuservalue(L, at, UV_HELD);
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_setmetatable(L, at);
  if (poller) {
    lsock_Sock *s = lsock_newsock(L, core);
    lsock_fd fd;
    if (lsock_full(L, core, 1)) return lsock_failfull(L, "selector");
    fd = lsock_plat_poller();
    if (fd == LSOCK_NOFD && lsock_reclaim(L)) fd = lsock_plat_poller();
    if (fd == LSOCK_NOFD) return lsock_failno(L, errno, "selector");
    s->internal = 1;
    lsock_open(L, s, fd, AF_UNSPEC, 0, 0);
    lsock_count(core, s);
    sel->s = s;
    lua_setiuservalue(L, at, UV_SOCK);
  }
  lua_settop(L, at);
  return 1;
}

static int mod_poller(lua_State *L) {
  return new_selector(L, 1);
}

static int mod_poll(lua_State *L) {
  return new_selector(L, 0);
}

static const lsock_Reg methods[] = {
    {"close", sel_close},     {"fileno", sel_fileno},         {"get_key", sel_get_key},
    {"get_map", sel_get_map}, {"modify", sel_modify},         {"register", sel_register},
    {"select", sel_select},   {"unregister", sel_unregister}, {NULL, NULL}};

static const lsock_Reg meta[] = {{"__close", sel_close}, {"__tostring", sel_tostring}, {NULL, NULL}};

static const struct {
  const char *name;
  lua_CFunction f;
} makers[] = {
#if defined(LSOCK_HAVE_EPOLL)
    {"DefaultSelector", mod_poller},
    {"EpollSelector", mod_poller},
#elif defined(LSOCK_HAVE_KQUEUE)
    {"DefaultSelector", mod_poller},
    {"KqueueSelector", mod_poller},
#else
    {"DefaultSelector", mod_poll},
#endif
    {"PollSelector", mod_poll},
    {"SelectSelector", mod_poll}};

static const lsock_Reg functions[] = {{"select", mod_select}, {NULL, NULL}};

void lsock_open_select(lua_State *L, int core) {
  size_t i;
  int module;
  lua_createtable(L, 0, 8);
  module = lua_gettop(L);
  lsock_register(L, core, functions);
  lua_pushinteger(L, EVENT_READ);
  lua_setfield(L, module, "EVENT_READ");
  lua_pushinteger(L, EVENT_WRITE);
  lua_setfield(L, module, "EVENT_WRITE");
  lua_createtable(L, 0, 6);
  lua_pushliteral(L, "selector");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, meta);
  lua_createtable(L, 0, 8);
  lsock_register(L, core, methods);
  lua_setfield(L, -2, "__index");
  for (i = 0; i < LSOCK_COUNT(makers); i++) {
    lua_pushvalue(L, core);
    lua_pushboolean(L, 0);
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, makers[i].f, 3);
    lua_setfield(L, module, makers[i].name);
  }
  lua_settop(L, module);
}

int luaopen_socket_selectors(lua_State *L) {
  return lsock_submodule(L, "selectors");
}
