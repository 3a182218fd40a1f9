/*
** lsocket_resolve.c: host names. Lookups that must not hold up the calling thread run in threads of a small pool.
**
** A lookup (Job) is C memory shared by the Lua state and a thread; the pool's lock guards its `state`, and whoever
** comes last frees it. The thread reports by closing its end of a socket pair, which the ordinary driver waits for.
**
** Nobody can call a thread off that waits for a name server. So lookups given up are not counted among those that run at
** once, and one that stands in the queue for too long gets a thread of its own: what files answer does not wait for the
** DNS. A bound on all threads remains.
*/
#include "lsocket_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WAITED 16
#define MAX_THREADS 128
#define QUEUE_DELAY INT64_C(200000000)

typedef enum Kind { ADDRINFO, NAMEINFO, HOST_BY_NAME, HOST_BY_ADDR } Kind;
typedef enum State { NEW, QUEUED, RUNNING, DONE, ABANDONED } State;

struct lsock_Job {
  lsock_Job *next;
  lsock_Job *newer, **older; /* in the list of those that the Lua state has a handle of, which only that looks at */
  lsock_Pool *pool;
  Kind kind;
  State state;
  int begun;        /* the Lua state's own note: the job was run or submitted */
  lsock_fd report;  /* the thread's end of the pair */
  int64_t patience; /* ns until nobody waits any more; < 0 for ever */
  int64_t overdue;  /* when it has been in the queue for too long; 0: its thread is there */
  char *host, *serv;
  struct addrinfo hints;
  lsock_Addr addr; /* NAMEINFO */
  int flags;
  int cls, err; /* the outcome; cls 0 is success */
  struct addrinfo *list;
  lsock_Hostent ent;
  char name[NI_MAXHOST], service[NI_MAXSERV];
};

struct lsock_Pool {
  pthread_mutex_t lock;
  lsock_Job *head, **tail;
  lsock_Job *handled;
  int threads;
  int abandoned; /* those of them whose lookup nobody waits for */
  int refs;      /* the core, each job and each thread */
};

/* ---------------------------------------------------------------- lookups */

/* EAI_SYSTEM and NETDB_INTERNAL mean errno, which glibc does not always set. */
static int gai_failed(lsock_Job *j, int rc) {
  int system = rc == EAI_SYSTEM && errno != 0;
  if (rc == 0) return 0;
  j->cls = system ? LSOCK_ERROR : LSOCK_GAIERROR;
  j->err = system ? errno : rc;
  return 1;
}

static void host_result(lsock_Job *j, int herr) {
  int system = herr == NETDB_INTERNAL && errno != 0;
  if (herr == 0) return;
  j->cls = system ? LSOCK_ERROR : LSOCK_HERROR;
  j->err = system ? errno : herr;
}

/* getaddrinfo(3), but for names of this machine and for ports that glibc takes modulo 65536. */
static int ask(lsock_Job *j) {
  const char *host = j->host, *serv = j->serv;
  struct addrinfo hints = j->hints;
  if (serv) {
    char *end;
    long long port = strtoll(serv, &end, 10);
    if (end != serv && *end == '\0' && (port < 0 || port > 65535)) return EAI_SERVICE;
  }
  if (host && !(hints.ai_flags & AI_NUMERICHOST) && lsock_islocalhost(host)) {
    host = NULL;
    hints.ai_flags &= ~(AI_PASSIVE | AI_CANONNAME);
    if (!serv) serv = "0";
  }
  return getaddrinfo(host, serv, &hints, &j->list);
}

static void run_by_addr(lsock_Job *j) {
  int herr = 0;
  const struct sockaddr *sa;
  if (gai_failed(j, ask(j))) return;
  sa = j->list->ai_addr;
  if (sa->sa_family == AF_INET6)
    lsock_plat_hostbyaddr(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16, AF_INET6, &j->ent, &herr);
  else
    lsock_plat_hostbyaddr(&((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4, AF_INET, &j->ent, &herr);
  host_result(j, herr);
}

/* Can the answer be had without asking anybody? */
static int is_local(lsock_Job *j) {
  lsock_Addr a;
  int number;
  if (j->kind == NAMEINFO) return (j->flags & NI_NUMERICHOST) != 0;
  if (j->kind == HOST_BY_ADDR) return 0;
  number = j->host && lsock_numeric_host(j->host, AF_INET6, &a); /* it has no IPv4 address */
  if (j->kind == HOST_BY_NAME) return number;
  if (!number && j->host) number = lsock_numeric_host(j->host, AF_INET, &a); /* 256.1.1.1 is a name */
  if (number) j->hints.ai_flags |= AI_NUMERICHOST; /* nobody is asked then, whatever the C library thinks of 0x7f.1 */
  return !j->host || (j->hints.ai_flags & AI_NUMERICHOST) || lsock_islocalhost(j->host);
}

static void run(lsock_Job *j) {
  int herr = HOST_NOT_FOUND;
  errno = 0;
  switch (j->kind) {
    case ADDRINFO: gai_failed(j, ask(j)); break;
    case NAMEINFO:
      gai_failed(
          j, getnameinfo(&j->addr.u.sa, j->addr.len, j->name, sizeof j->name, j->service, sizeof j->service, j->flags));
      break;
    case HOST_BY_NAME:
      if (!is_local(j)) lsock_plat_hostbyname(j->host, &j->ent, &herr);
      host_result(j, herr);
      break;
    case HOST_BY_ADDR: run_by_addr(j); break;
  }
}

/* ---------------------------------------------------------------- the pool */

static lsock_Pool *new_pool(void) {
  lsock_Pool *p = malloc(sizeof *p);
  if (!p) return NULL;
  if (pthread_mutex_init(&p->lock, NULL) != 0) {
    free(p);
    return NULL;
  }
  p->head = NULL;
  p->tail = &p->head;
  p->handled = NULL;
  p->threads = p->abandoned = 0;
  p->refs = 1;
  return p;
}

/* Gives up one reference; the lock is held, and released. */
static void release(lsock_Pool *p) {
  int last = --p->refs == 0;
  pthread_mutex_unlock(&p->lock);
  if (!last) return;
  pthread_mutex_destroy(&p->lock);
  free(p);
}

static void free_job(lsock_Job *j) {
  lsock_Pool *p = j->pool;
  if (j->report != LSOCK_NOFD) lsock_plat_close(j->report);
  if (j->list) freeaddrinfo(j->list);
  lsock_plat_freehost(&j->ent);
  free(j->host);
  free(j->serv);
  free(j);
  pthread_mutex_lock(&p->lock);
  release(p);
}

/* Takes the first job off the queue; the lock is held. */
static lsock_Job *next_job(lsock_Pool *p) {
  lsock_Job *j = p->head;
  if (!j) return NULL;
  p->head = j->next;
  if (!p->head) p->tail = &p->head;
  j->state = RUNNING;
  return j;
}

static void *worker(void *arg) {
  lsock_Pool *p = arg;
  lsock_Job *j;
  pthread_mutex_lock(&p->lock);
  while ((j = next_job(p)) != NULL) {
    pthread_mutex_unlock(&p->lock);
    lsock_plat_bound_resolver(j->patience);
    run(j);
    pthread_mutex_lock(&p->lock);
    if (j->state == ABANDONED) {
      pthread_mutex_unlock(&p->lock);
      free_job(j);
      pthread_mutex_lock(&p->lock);
      p->abandoned--;
    } else {
      j->state = DONE;
      lsock_plat_close(j->report);
      j->report = LSOCK_NOFD;
    }
  }
  p->threads--;
  release(p);
  return NULL;
}

/* One thread more, unless there are enough; 0 or an errno. The lock is held. */
static int add_thread(lsock_Pool *p, int enough) {
  int err = EAGAIN;
  if (p->threads >= MAX_THREADS || p->threads - p->abandoned >= enough) return err;
  lsock_plat_pin();
  err = lsock_plat_thread(worker, p); /* it waits for the lock */
  if (err) return err;
  p->threads++;
  p->refs++;
  return 0;
}

/* Hands a job to the pool's threads; 0 or an errno. */
static int submit(lsock_Job *j) {
  lsock_Pool *p = j->pool;
  int err;
  pthread_mutex_lock(&p->lock);
  err = add_thread(p, MAX_WAITED);
  if (err || p->head) j->overdue = lsock_plat_now() + QUEUE_DELAY;
  if (p->threads > 0) {
    err = 0;
    j->state = QUEUED;
    j->next = NULL;
    *p->tail = j;
    p->tail = &j->next;
  }
  pthread_mutex_unlock(&p->lock);
  return err;
}

/* The state of a job in the pool's hands; if it is overdue another thread begins. */
static State look(lsock_Job *j) {
  State state;
  pthread_mutex_lock(&j->pool->lock);
  state = j->state;
  if (state != QUEUED)
    j->overdue = 0;
  else if (j->overdue && lsock_plat_now() >= j->overdue) {
    (void)add_thread(j->pool, MAX_THREADS);
    j->overdue = lsock_plat_now() + QUEUE_DELAY;
  }
  pthread_mutex_unlock(&j->pool->lock);
  return state;
}

/* The Lua state is done with a job, whatever its state. */
static void drop_job(lsock_Job *j) {
  lsock_Pool *p = j->pool;
  lsock_Job **q;
  *j->older = j->newer;
  if (j->newer) j->newer->older = j->older;
  pthread_mutex_lock(&p->lock);
  if (j->state == RUNNING) {
    j->state = ABANDONED; /* its thread frees it */
    p->abandoned++;
    lsock_plat_close(j->report);
    j->report = LSOCK_NOFD;
    j = NULL;
  } else if (j->state == QUEUED) {
    for (q = &p->head; *q != j; q = &(*q)->next) {}
    *q = j->next;
    if (!*q) p->tail = q;
  }
  pthread_mutex_unlock(&p->lock);
  if (j) free_job(j);
}

/* ---------------------------------------------------------------- lookups in Lua's hands */

typedef struct Handle {
  uintptr_t seal;
  lsock_Job *job;
} Handle;

LSOCK_BEGINS_WITH_SEAL(Handle);

static int handle_gc(lua_State *L) {
  Handle *h = lsock_object(L, 1, LSOCK_KIND_LOOKUP, sizeof *h);
  if (h && h->job) {
    lsock_Job *j = h->job;
    h->job = NULL;
    drop_job(j);
  }
  return 0;
}

/* __gc of the core */
static int core_gc(lua_State *L) {
  lsock_Core *core = lsock_tocore(L, 1);
  lsock_Pool *p = core ? core->pool : NULL;
  if (!core) return 0;
  lsock_closeheld(L, core);
  lsock_freescratch(L, core);
  core->pool = NULL;
  if (p) {
    while (p->handled) drop_job(p->handled); /* whose handles Lua could not finalize */
    pthread_mutex_lock(&p->lock);
    release(p);
  }
  core->seal = 0; /* whoever comes later finds nothing: descriptors and jobs are gone, but objects may be left */
  return 0;
}

static char *copy(const char *s) {
  size_t n = strlen(s) + 1;
  char *c = malloc(n);
  if (c) memcpy(c, s, n);
  return c;
}

static _Noreturn void out_of_memory(lua_State *L) {
  for (;;) luaL_error(L, "not enough memory");
}

/* Pushes a handle with a new job, given up at the end of the function that asks. */
static lsock_Job *new_job(lua_State *L, lsock_Op *op, Kind kind, const char *host, const char *serv) {
  lsock_Core *core = op->core;
  lsock_Pool *p;
  lsock_Job *j;
  Handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  h->seal = LSOCK_SEAL(core, h, LSOCK_KIND_LOOKUP);
  h->job = NULL;
  lsock_pushtable(L, LSOCK_UV_LOOKUP);
  lua_setmetatable(L, -2);
  lua_toclose(L, -1);
  p = core->pool;
  if (!p && !(p = new_pool())) out_of_memory(L);
  core->pool = p;
  j = calloc(1, sizeof *j);
  if (!j) {
    out_of_memory(L);
    return NULL; /* for checkers that do not know _Noreturn */
  }
  j->kind = kind;
  j->report = LSOCK_NOFD;
  j->pool = p;
  j->newer = p->handled;
  j->older = &p->handled;
  if (j->newer) j->newer->older = &j->newer;
  p->handled = j;
  pthread_mutex_lock(&p->lock);
  p->refs++;
  pthread_mutex_unlock(&p->lock);
  h->job = j;
  if ((host && !(j->host = copy(host))) || (serv && !(j->serv = copy(serv)))) out_of_memory(L);
  op->job = j;
  op->handle = lua_gettop(L);
  return j;
}

static int start(lua_State *L, lsock_Op *op) {
  lsock_Job *j = op->job;
  lsock_Sock *s;
  lsock_fd fds[2];
  int local = is_local(j);
  if ((op->core->restrictions & LSOCK_NO_NAMES) && !local) {
    op->err = EACCES;
    op->msg = "the host allows no name lookups";
    return LSOCK_FAIL;
  }
  if ((op->timeout < 0 && !op->coop) || local) {
    j->begun = 1;
    run(j);
    j->state = DONE;
    return 0;
  }
  if (op->timeout == 0) {
    op->msg = "a name lookup would block";
    return LSOCK_READ;
  }
  if (lsock_full(L, op->core, 1)) return lsock_stepfull(op);
  s = lsock_newsock(L, op->core);
  lua_toclose(L, -1);
  lsock_keepstack(L, op);
  if (lsock_plat_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 &&
      (!lsock_reclaim(L) || lsock_plat_socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)) {
    op->err = errno;
    return LSOCK_FAIL;
  }
  lsock_open(L, s, fds[0], AF_UNIX, SOCK_STREAM, 0);
  lsock_count(op->core, s);
  s->internal = 1;
  j->report = fds[1];
  j->patience = op->deadline == INT64_MAX ? -1 : op->deadline - lsock_plat_now();
  if (j->patience < 0 && op->deadline != INT64_MAX) j->patience = 0;
  op->err = submit(j);
  if (op->err) return LSOCK_FAIL;
  j->begun = 1;
  op->w = s;
  op->wslot = op->top;
  op->until = j->overdue;
  return LSOCK_READ;
}

/* After every allocation: the debug library can have given the job up. */
static lsock_Job *check_job(lua_State *L, const lsock_Op *op) {
  const Handle *h = lua_touserdata(L, op->handle);
  if (h->job != op->job) lsock_tampered(L);
  return op->job;
}

int lsock_step_job(lua_State *L, lsock_Op *op) {
  lsock_Job *j = check_job(L, op);
  if (!j->begun) {
    int r = start(L, op);
    if (r < 0) return r;
  } else {
    if (look(j) != DONE) {
      op->until = j->overdue;
      return LSOCK_READ;
    }
    lsock_closesock(L, op->wslot, op->w);
    op->w = op->s;
    op->wslot = op->self;
    check_job(L, op);
  }
  if (j->cls == 0) return 0;
  op->cls = j->cls;
  op->err = j->err;
  return LSOCK_FAIL;
}

void lsock_finish_job(lua_State *L, lsock_Op *op) {
  Handle *h = lua_touserdata(L, op->handle);
  drop_job(check_job(L, op));
  h->job = op->job = NULL;
}

void lsock_lookup(lua_State *L, lsock_Op *op) {
  lsock_Job *j = new_job(L, op, ADDRINFO, lua_tostring(L, -1), NULL);
  j->hints.ai_family = op->addr.u.sa.sa_family;
  j->hints.ai_socktype = SOCK_STREAM; /* any: only to get each address once */
}

int lsock_step_address(lua_State *L, lsock_Op *op) {
  if (op->job) {
    int r = lsock_step_job(L, op);
    if (r < 0) return r;
    lsock_sethost(&op->addr, lsock_job_list(L, op)->ai_addr);
    lsock_finish_job(L, op);
  }
  if (op->addr.len > 0) return 0;
  op->err = ENODEV;
  return LSOCK_FAIL;
}

const struct addrinfo *lsock_job_list(lua_State *L, const lsock_Op *op) {
  return check_job(L, op)->list;
}

/* ---------------------------------------------------------------- arguments */

const char *lsock_checkname(lua_State *L, int arg) {
  size_t len;
  const char *s = luaL_checklstring(L, arg, &len);
  if (strlen(s) != len) luaL_argerror(L, arg, "name contains a zero byte");
  if (len >= NI_MAXHOST) luaL_argerror(L, arg, "name is longer than 1024 bytes");
  return s;
}

static const char *opt_name(lua_State *L, int arg) {
  return lua_isnoneornil(L, arg) ? NULL : lsock_checkname(L, arg);
}

void lsock_lookup_all(lua_State *L, lsock_Op *op, int host, int serv, const struct addrinfo *hints) {
  const char *h = opt_name(L, host), *s;
  lsock_Job *j;
  if (lua_type(L, serv) == LUA_TNUMBER) {
    lua_Integer port = luaL_checkinteger(L, serv);
    luaL_argcheck(L, port >= 0 && port <= 65535, serv, "port must be 0-65535");
    lua_pushinteger(L, port); /* 80.0 is port "80" */
    lua_replace(L, serv);
  }
  s = opt_name(L, serv); /* a number becomes its text */
  if (h && *h == '\0') h = NULL;
  j = new_job(L, op, ADDRINFO, h, s);
  j->hints = *hints;
}

/* {host, service}, for the error object */
static int push_subject(lua_State *L, int host, int serv) {
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, host);
  lua_rawseti(L, -2, 1);
  if (serv) {
    lua_pushvalue(L, serv);
    lua_rawseti(L, -2, 2);
  }
  return lua_gettop(L);
}

/* ---------------------------------------------------------------- getaddrinfo */

static const char *const info_fields[] = {"family", "type", "proto", "canonname", "sockaddr"};

static int info_index(lua_State *L) {
  size_t i;
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  for (i = 0; i < LSOCK_COUNT(info_fields); i++)
    if (strcmp(lua_tostring(L, 2), info_fields[i]) == 0) {
      lua_rawgeti(L, 1, (lua_Integer)i + 1);
      return 1;
    }
  return 0;
}

static void push_info(lua_State *L, const struct addrinfo *ai, const char *canonname) {
  struct addrinfo i = *ai; /* which may be gone after the first allocation */
  lsock_Addr a;
  a.len = ai->ai_addrlen <= sizeof a.u ? ai->ai_addrlen : (socklen_t)sizeof a.u;
  memcpy(&a.u, ai->ai_addr, a.len);
  lua_pushstring(L, ai->ai_canonname ? ai->ai_canonname : canonname);
  lua_createtable(L, 5, 0);
  lua_rotate(L, -2, 1);
  lua_rawseti(L, -2, 4);
  lua_pushinteger(L, i.ai_family);
  lua_rawseti(L, -2, 1);
  lua_pushinteger(L, i.ai_socktype);
  lua_rawseti(L, -2, 2);
  lua_pushinteger(L, i.ai_protocol);
  lua_rawseti(L, -2, 3);
  lsock_pushaddr(L, i.ai_protocol, &a);
  lua_rawseti(L, -2, 5);
  lsock_pushtable(L, LSOCK_UV_INFO);
  lua_setmetatable(L, -2);
}

static int step_getaddrinfo(lua_State *L, lsock_Op *op) {
  const struct addrinfo *ai, *next;
  const char *canonname = "";
  lua_Integer i = 0;
  int r = lsock_step_job(L, op);
  if (r < 0) return r;
  luaL_checkstack(L, 8, NULL);
  lua_newtable(L);
  ai = lsock_job_list(L, op);
  if (op->job->hints.ai_flags & AI_CANONNAME) canonname = op->job->host; /* of a localhost */
  for (; ai; ai = next) {
    next = ai->ai_next;
    push_info(L, ai, canonname);
    lua_rawseti(L, -2, ++i);
    check_job(L, op);
    canonname = "";
  }
  lsock_finish_job(L, op);
  return 1;
}

/* An integer, 0 when absent, that fits a C int. */
static int opt_int(lua_State *L, int arg) {
  lua_Integer v = luaL_optinteger(L, arg, 0);
  luaL_argcheck(L, v >= INT_MIN && v <= INT_MAX, arg, "does not fit a C int");
  return (int)v;
}

static int opt_field(lua_State *L, int arg, const char *name) {
  int ok;
  lua_Integer v;
  if (lua_getfield(L, arg, name) == LUA_TNIL) {
    lua_pop(L, 1);
    return 0;
  }
  v = lua_tointegerx(L, -1, &ok);
  if (!ok) luaL_argerror(L, arg, lua_pushfstring(L, "%s must be an integer", name));
  if (v < INT_MIN || v > INT_MAX) luaL_argerror(L, arg, lua_pushfstring(L, "%s does not fit a C int", name));
  lua_pop(L, 1);
  return (int)v;
}

/*
** socket.getaddrinfo(host | nil, port | service | nil [, family [, type [, proto [, flags]]]]) -> list of
** {family, type, proto, canonname, sockaddr}; instead of the last four also {family=, type=, proto=, flags=}.
** getaddrinfo(3); raises gaierror. Waits at most the default timeout.
*/
static int mod_getaddrinfo(lua_State *L) {
  lsock_Op op;
  struct addrinfo hints = {0};
  luaL_checkany(L, 1);
  luaL_checkany(L, 2);
  if (lua_istable(L, 3)) {
    static const char *const keys[] = {"family", "type", "proto", "flags", NULL};
    lsock_checkkeys(L, 3, keys);
    hints.ai_family = opt_field(L, 3, "family");
    hints.ai_socktype = opt_field(L, 3, "type");
    hints.ai_protocol = opt_field(L, 3, "proto");
    hints.ai_flags = opt_field(L, 3, "flags");
  } else {
    hints.ai_family = opt_int(L, 3);
    hints.ai_socktype = opt_int(L, 4);
    hints.ai_protocol = opt_int(L, 5);
    hints.ai_flags = opt_int(L, 6);
  }
  lsock_op_free(L, &op, "getaddrinfo", step_getaddrinfo);
  lua_settop(L, 2);
  op.address = push_subject(L, 1, 2);
  lsock_lookup_all(L, &op, 1, 2, &hints);
  return lsock_run(L, &op);
}

/* ---------------------------------------------------------------- the older functions */

static int step_hostbyname(lua_State *L, lsock_Op *op) {
  char text[INET_ADDRSTRLEN];
  int r = lsock_step_address(L, op);
  if (r < 0) return r;
  lua_pushstring(L, inet_ntop(AF_INET, &op->addr.u.in.sin_addr, text, sizeof text));
  return 1;
}

static void host_op(lua_State *L, lsock_Op *op, const char *name, lsock_Step step) {
  lsock_checkname(L, 1);
  lua_settop(L, 1);
  lsock_op_free(L, op, name, step);
  op->address = push_subject(L, 1, 0);
}

/* {name, 0} is an address, with Python's special hosts. 1, and pushes the name, if that is one to be looked up. */
static int host_address(lua_State *L, lsock_Op *op) {
  int name;
  lua_pushinteger(L, 0);
  lua_rawseti(L, op->address, 2);
  name = lsock_getaddr(L, op->address, AF_INET, 0, &op->addr);
  lua_pushnil(L);
  lua_rawseti(L, op->address, 2);
  return name;
}

/* socket.gethostbyname(name) -> dotted IPv4 address. Raises gaierror */
static int mod_gethostbyname(lua_State *L) {
  lsock_Op op;
  host_op(L, &op, "gethostbyname", step_hostbyname);
  if (!host_address(L, &op)) return step_hostbyname(L, &op);
  lsock_lookup(L, &op);
  return lsock_run(L, &op);
}

/* name, list of aliases, list of addresses */
static int step_hostent(lua_State *L, lsock_Op *op) {
  char text[INET6_ADDRSTRLEN];
  const struct hostent *h;
  int i, r = lsock_step_job(L, op);
  if (r < 0) return r;
  h = &check_job(L, op)->ent.ent;
  lua_pushstring(L, h->h_name);
  lua_newtable(L);
  for (i = 0; check_job(L, op) && h->h_aliases && h->h_aliases[i]; i++) {
    lua_pushstring(L, h->h_aliases[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_newtable(L);
  for (i = 0; check_job(L, op) && h->h_addr_list && h->h_addr_list[i]; i++) {
    lua_pushstring(L, inet_ntop(h->h_addrtype, h->h_addr_list[i], text, sizeof text));
    lua_rawseti(L, -2, i + 1);
  }
  lsock_finish_job(L, op);
  return 3;
}

/* socket.gethostbyname_ex(name) -> name, aliases, IPv4 addresses. Raises herror */
static int mod_gethostbyname_ex(lua_State *L) {
  lsock_Op op;
  host_op(L, &op, "gethostbyname_ex", step_hostent);
  if (!host_address(L, &op)) {
    lua_pushvalue(L, 1);
    lua_newtable(L);
    lua_createtable(L, 1, 0);
    step_hostbyname(L, &op);
    lua_rawseti(L, -2, 1);
    return 3;
  }
  new_job(L, &op, HOST_BY_NAME, lua_tostring(L, 1), NULL);
  return lsock_run(L, &op);
}

/* socket.gethostbyaddr(address or name) -> name, aliases, addresses. Raises herror, or gaierror for an unknown name */
static int mod_gethostbyaddr(lua_State *L) {
  lsock_Op op;
  host_op(L, &op, "gethostbyaddr", step_hostent);
  new_job(L, &op, HOST_BY_ADDR, lua_tostring(L, 1), NULL)->hints.ai_socktype = SOCK_STREAM;
  return lsock_run(L, &op);
}

/* The first name with a dot, the primary one first; else the primary one. A lookup that fails gives the name back. */
static int step_getfqdn(lua_State *L, lsock_Op *op) {
  const struct hostent *h;
  const char *found;
  int i, r = lsock_step_job(L, op);
  if (r == LSOCK_FAIL) {
    lua_pushvalue(L, 1);
    return 1;
  }
  if (r < 0) return r;
  h = &check_job(L, op)->ent.ent;
  found = strchr(h->h_name, '.') ? h->h_name : NULL;
  for (i = 0; !found && h->h_aliases && h->h_aliases[i]; i++)
    if (strchr(h->h_aliases[i], '.')) found = h->h_aliases[i];
  lua_pushstring(L, found ? found : h->h_name);
  lsock_finish_job(L, op);
  return 1;
}

/* socket.getfqdn([name]) -> fully qualified name, or what comes closest */
static int mod_getfqdn(lua_State *L) {
  lsock_Op op;
  const char *name = lua_isnoneornil(L, 1) ? "" : lsock_checkname(L, 1);
  lua_settop(L, 1);
  if (*name == '\0' || strcmp(name, "0.0.0.0") == 0 || strcmp(name, "::") == 0) {
    char own[NI_MAXHOST];
    if (gethostname(own, sizeof own) < 0) return lsock_failno(L, errno, "getfqdn");
    lua_pushstring(L, own);
    lua_replace(L, 1);
  }
  host_op(L, &op, "getfqdn", step_getfqdn);
  new_job(L, &op, HOST_BY_ADDR, lua_tostring(L, 1), NULL)->hints.ai_socktype = SOCK_STREAM;
  return lsock_run(L, &op);
}

static int step_getnameinfo(lua_State *L, lsock_Op *op) {
  int r = lsock_step_job(L, op);
  if (r < 0) return r;
  lua_pushstring(L, check_job(L, op)->name);
  lua_pushstring(L, check_job(L, op)->service);
  lsock_finish_job(L, op);
  return 2;
}

/* socket.getnameinfo(address [, flags]) -> host, service (getnameinfo(3)); the host must be numeric. Raises gaierror */
static int mod_getnameinfo(lua_State *L) {
  lsock_Op op;
  lsock_Job *j;
  int flags = opt_int(L, 2);
  int family = AF_INET;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  if (lsock_getitem(L, 1, 1, "host") == LUA_TSTRING && strchr(lua_tostring(L, -1), ':')) family = AF_INET6;
  lua_settop(L, 1);
  lsock_op_free(L, &op, "getnameinfo", step_getnameinfo);
  op.address = 1;
  if (lsock_getaddr(L, 1, family, 0, &op.addr)) {
    lsock_Fail f = {LSOCK_GAIERROR, EAI_NONAME, "getnameinfo", NULL, 1, 0};
    return lsock_fail(L, &f);
  }
  j = new_job(L, &op, NAMEINFO, NULL, NULL);
  j->addr = op.addr;
  j->flags = flags;
  return lsock_run(L, &op);
}

/* ---------------------------------------------------------------- opening */

static const lsock_Reg resolve_functions[] = {{"!getaddrinfo", mod_getaddrinfo},
                                              {"!getfqdn", mod_getfqdn},
                                              {"!gethostbyaddr", mod_gethostbyaddr},
                                              {"!gethostbyname", mod_gethostbyname},
                                              {"!gethostbyname_ex", mod_gethostbyname_ex},
                                              {"!getnameinfo", mod_getnameinfo},
                                              {NULL, NULL}};

static const lsock_Reg info_meta[] = {{"__index", info_index}, {NULL, NULL}};
static const lsock_Reg handle_meta[] = {{"__close", handle_gc}, {"__gc", handle_gc}, {NULL, NULL}};
static const lsock_Reg core_meta[] = {{"__gc", core_gc}, {NULL, NULL}};

static void new_meta(lua_State *L, int core, const lsock_Reg *regs) {
  lua_createtable(L, 0, 2);
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, regs);
}

void lsock_open_resolve(lua_State *L, int core) {
  lsock_register(L, core, resolve_functions);
  new_meta(L, core, info_meta);
  lua_setiuservalue(L, core, LSOCK_UV_INFO);
  new_meta(L, core, handle_meta);
  lua_setiuservalue(L, core, LSOCK_UV_LOOKUP);
  new_meta(L, core, core_meta);
  lua_setmetatable(L, core);
}
