/*
** allocfail.c: runs a script again and again, each time with another allocation failing: of Lua's allocator and of the
** library's own calls of malloc (the program is linked with --wrap). Three ways: the allocation succeeds when Lua tries
** again after a collection; it fails then too; it and all after it fail. Each time the script must succeed, or end with
** a memory error and then succeed in the same state with memory enough; after lua_close no memory and no descriptor may
** be left.
**
** First of all: Lua gives up a socket whose __gc it has no memory to call, and the end of the state closes it. It frees
** what OpenSSL has for objects given up; AddressSanitizer would find that.
**
**   allocfail [-p] script.lua [every [first last]]
**
** tries every n-th allocation, by default all, of those from `first` to `last`; -p: under a policy and limits
*/
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "lsocket.h"

__attribute__((weak)) int luaopen_socket_ssl(lua_State *L); /* where OpenSSL is */

static pthread_t tested;        /* the lookups' threads allocate too, at times nobody can foresee */
static long count, first, last; /* allocations so far; those that fail */
static atomic_long outside;     /* blocks of the library's own */
static size_t bytes;            /* of Lua's */
static int guarded;             /* by a policy and limits */

static int fails(void) {
  if (!pthread_equal(pthread_self(), tested)) return 0;
  count++;
  return count >= first && count <= last;
}

/* The linker's --wrap leads calls of malloc here, and those of __real_malloc to malloc. */
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);

static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
  size_t old = p ? osize : 0;
  (void)ud;
  if (nsize > old && fails()) return NULL;
  bytes += nsize - old;
  if (nsize > 0) return __real_realloc(p, nsize);
  __real_free(p);
  return NULL;
}

void *__wrap_malloc(size_t n) {
  return __wrap_realloc(NULL, n);
}

void *__wrap_calloc(size_t n, size_t size) {
  void *p = __wrap_realloc(NULL, n * size);
  if (p) memset(p, 0, n * size);
  return p;
}

void *__wrap_realloc(void *p, size_t n) {
  int new = p == NULL;
  if (fails()) return NULL;
  p = __real_realloc(p, n);
  outside += new &&p != NULL;
  return p;
}

void __wrap_free(void *p) {
  outside -= p != NULL;
  __real_free(p);
}

static int descriptors(void) {
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  while (d && readdir(d)) n++;
  if (d) closedir(d);
  return n;
}

static void guard(lua_State *L) {
  static const lsock_Limits limits = {200, 1 << 20, LSOCK_NO_DESCRIPTORS};
  static lsock_Rule loopback; /* set before the first state begins to use it */
  static lsock_Rules rules = {&loopback, 1, &loopback, 1, 0};
  if (lsock_rule(&loopback, "127.0.0.1:*") < 0) exit(2);
  lsock_setpolicy(L, lsock_rules, &rules);
  lsock_setlimits(L, &limits);
}

static void open_modules(lua_State *L) {
  luaL_requiref(L, "socket", luaopen_socket, 0);
  if (luaopen_socket_ssl) {
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_socket_ssl);
    lua_setfield(L, -2, "socket.ssl");
  }
}

static int script(lua_State *L) {
  open_modules(L);
  if (guarded) guard(L);
  lua_settop(L, 1);
  if (luaL_loadfile(L, lua_touserdata(L, 1)) != LUA_OK) return lua_error(L);
  lua_call(L, 0, 0);
  return 0;
}

/* Ends the program unless the error on top is one of memory; pops it. */
static void expect_memory(lua_State *L, int status, long from) {
  const char *message = lua_tostring(L, -1);
  if (status != LUA_ERRMEM && (!message || (!strstr(message, "memory") && !strstr(message, "stack overflow")))) {
    last = 0;
    fprintf(stderr, "allocation %ld: %s\n", from, luaL_tolstring(L, -1, NULL));
    exit(1);
  }
  lua_pop(L, 1);
}

/* Allocates nothing outside of lua_pcall. */
static int call(lua_State *L, char *path) {
  lua_pushcfunction(L, script);
  lua_pushlightuserdata(L, path);
  return lua_pcall(L, 1, 0, 0);
}

/* 1 if the script ended well, 0 by a memory error; complains of everything else. */
static int run(char *path, long from, long to, int fds) {
  lua_State *L;
  int status, ended, i;
  first = LONG_MAX;
  last = 0;
  bytes = 0;
  if ((L = lua_newstate(allocate, NULL)) == NULL) exit(2);
  luaL_openlibs(L);
  /* Lua 5.4 does not survive a failure while it makes the metatable of its own string buffers. */
  if (luaL_dostring(L, "return ('x'):rep(10000)")) exit(2);
  lua_settop(L, 0);
  if (!lua_checkstack(L, LUA_MINSTACK)) exit(2);
  count = 0;
  first = from;
  last = to;
  status = call(L, path);
  ended = status == LUA_OK;
  if (!ended) {
    expect_memory(L, status, from);
    last = 0;
    if (call(L, path) != LUA_OK) {
      fprintf(stderr, "allocation %ld, and then with memory enough: %s\n", from, luaL_tolstring(L, -1, NULL));
      exit(1);
    }
  }
  lua_close(L);
  last = 0;
  for (i = 0; i < 2000 && (outside != 0 || (fds && descriptors() != fds)); i++) /* a lookup may still be on its way */
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  if (bytes != 0 || outside != 0 || (fds && descriptors() != fds)) {
    fprintf(stderr, "allocation %ld: %zu bytes, %ld blocks, %d descriptors left\n", from, bytes, (long)outside,
            descriptors() - fds);
    exit(1);
  }
  return ended;
}

/* Collects a socket, and all that TLS has, while there is no memory, and no room on the stack for a call. */
static int give_up(lua_State *L) {
  static const char tls[] = "local ssl = require 'socket.ssl'\n"
                            "local c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
                            "local o = c:wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), {server_hostname = 'x'})\n"
                            "assert(not o:try_do_handshake() and o.session)";
  int fds = descriptors();
  lua_gc(L, LUA_GCSTOP);
  open_modules(L);
  if (luaL_dostring(L, "require 'socket'.socket()")) return lua_error(L);
  if (luaopen_socket_ssl && luaL_dostring(L, tls)) return lua_error(L);
  first = count + 1;
  last = LONG_MAX;
  while (lua_checkstack(L, 1)) lua_pushnil(L);
  lua_gc(L, LUA_GCCOLLECT);
  last = 0;
  lua_settop(L, 0);
  lua_gc(L, LUA_GCCOLLECT);
  lua_pushboolean(L, descriptors() == fds + 1);
  return 1;
}

static void finalizer(int fds) {
  lua_State *L = lua_newstate(allocate, NULL);
  last = 0;
  bytes = 0;
  if (!L) exit(2);
  luaL_openlibs(L);
  lua_pushcfunction(L, give_up);
  if (lua_pcall(L, 0, 1, 0) != LUA_OK || !lua_toboolean(L, -1)) {
    fprintf(stderr, "no finalizer failed: %s\n", luaL_tolstring(L, -1, NULL));
    exit(1);
  }
  lua_close(L);
  if (descriptors() == fds) return;
  fprintf(stderr, "a finalizer without memory: %d descriptors left\n", descriptors() - fds);
  exit(1);
}

int main(int argc, char **argv) {
  static const char *const names[] = {"failing until a collection", "failing", "failing from there on"};
  long every, n, from, to, total;
  int fds, way, ok;
  if (argc > 1 && strcmp(argv[1], "-p") == 0) {
    guarded = 1;
    argc--;
    argv++;
  }
  every = argc > 2 ? strtol(argv[2], NULL, 10) : 1;
  from = argc > 4 ? strtol(argv[3], NULL, 10) : 1;
  to = argc > 4 ? strtol(argv[4], NULL, 10) : LONG_MAX;
  if (argc < 2 || every < 1 || from < 1) {
    fprintf(stderr, "usage: %s [-p] script.lua [every [first last]]\n", argv[0]);
    return 2;
  }
  tested = pthread_self();
  ok = run(argv[1], LONG_MAX, 0, 0);
  total = count + count / 20; /* the collector is not quite regular */
  fds = descriptors();
  finalizer(fds);
  for (way = 0; ok && way < 3; way++) {
    for (n = from; n <= total && n <= to; n += every) run(argv[1], n, way == 0 ? n : way == 1 ? n + 1 : LONG_MAX, fds);
    printf("%ld allocations, %s\n", (n - from) / every, names[way]);
  }
  return !ok;
}
