/*
** tsan_states.c: a host program with two threads, each of which runs the same script in a Lua state of its own at the
** same time. Built with ThreadSanitizer (`make tsan`) or run under valgrind (`make helgrind`) it shows that two states
** share nothing.
**
**   states script.lua [seconds]
**
** Status 0: both scripts ended without an error.
*/
#define _POSIX_C_SOURCE 200809L /* barriers */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "lsocket.h"

#define STATES 2

typedef struct {
  pthread_barrier_t *start; /* both begin together */
  const char *script;
  double seconds;
  int number;
  int ok;
} Job;

static int traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

static void *run(void *arg) {
  Job *job = arg;
  lua_State *L = luaL_newstate();
  if (L == NULL) {
    fputs("no memory for a Lua state\n", stderr);
    pthread_barrier_wait(job->start);
    return NULL;
  }
  luaL_openlibs(L);
  luaL_requiref(L, "socket", luaopen_socket, 0);
  lua_settop(L, 0);
  lua_pushcfunction(L, traceback);
  job->ok = luaL_loadfile(L, job->script) == LUA_OK;
  pthread_barrier_wait(job->start);
  if (job->ok) {
    lua_pushnumber(L, job->seconds);
    lua_pushinteger(L, job->number);
    job->ok = lua_pcall(L, 2, 0, 1) == LUA_OK;
  }
  if (!job->ok) fprintf(stderr, "state %d: %s\n", job->number, lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t thread[STATES];
  pthread_barrier_t start;
  Job job[STATES];
  int ok = 1;
  if (argc < 2) {
    fprintf(stderr, "usage: %s script.lua [seconds]\n", argv[0]);
    return 2;
  }
  pthread_barrier_init(&start, NULL, STATES);
  for (int i = 0; i < STATES; i++) {
    job[i] =
        (Job){.start = &start, .script = argv[1], .seconds = argc > 2 ? strtod(argv[2], NULL) : 2, .number = i + 1};
    if (pthread_create(&thread[i], NULL, run, &job[i]) != 0) {
      perror("pthread_create");
      return 1;
    }
  }
  for (int i = 0; i < STATES; i++) {
    pthread_join(thread[i], NULL);
    ok = ok && job[i].ok;
  }
  pthread_barrier_destroy(&start);
  return ok ? 0 : 1;
}
