/*
** game.c: a game with Lua scripts that use the network, and frames that do not notice it.
**
** 60 times a second the game moves its world and then lets two scripts go on, each in a Lua state of its own: one serves
** a level, the other downloads it. The scripts look as if they blocked (level_server.lua, level_client.lua); in fact
** they are tasks of a loop, and loop:step(0) runs whatever can run without waiting.
**
** What a host has in its hands, from the top of this file to its end:
**   - memory:    each state has an allocator that counts, and a budget;
**   - addresses: each state has a policy. The client may connect to the one port of this game's server, the server to
**                nothing; neither may bind anything, for the listening socket is the game's gift;
**   - limits:    a handful of sockets, 16 KiB at once (so a task cannot do much in one frame), no names, no plain descriptors, and nothing that blocks;
**   - time:      the scripts run when the game says so, and it measures how long.
**
** Built by `make embed-example` at the top of this repository, or by hand:
**   make static WITH_TLS=no
**   cc -O2 -I. -o game examples/embed/game.c build/liblsocket.a $(pkg-config --cflags --libs lua5.4) -pthread -lm -ldl
** Run there:
**   ./game [-f folder] [-m KiB of memory for each script] [-l ms of a frame] [-n most frames] [megabytes]
*/
#define _GNU_SOURCE /* RUSAGE_THREAD */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>

#include "lsocket.h" /* before Lua's own: it knows what C++ needs */

#include <lauxlib.h>
#include <lualib.h>

#define FRAMES_PER_SECOND 60
#define MOST_FRAMES (60 * FRAMES_PER_SECOND)
#define PATH_SIZE 1024

/* ---------------------------------------------------------------- memory */

typedef struct Memory {
  size_t used, peak, budget;
  unsigned long refused;
} Memory;

/* What a state cannot have it does without: the script that asked gets an error, which is Lua's to raise and ours to log. */
static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
  Memory *m = ud;
  size_t old = p ? osize : 0; /* without a block, osize is the kind of object */
  void *q;
  if (nsize == 0) {
    free(p);
    m->used -= old;
    return NULL;
  }
  if (nsize > old && m->used - old + nsize > m->budget) {
    m->refused++;
    return NULL;
  }
  q = realloc(p, nsize);
  if (!q) return NULL;
  m->used = m->used - old + nsize;
  if (m->used > m->peak) m->peak = m->used;
  return q;
}

/* ---------------------------------------------------------------- scripts */

typedef struct Script {
  const char *name;
  lua_State *L;
  Memory memory;
  lsock_Rule rule; /* where it may go, if anywhere; must live as long as the state */
  lsock_Rules rules;
  int ended; /* has no tasks left, or failed */
  int failed;
  const char *folder; /* of the library's Lua files */
  char path[PATH_SIZE];
  int listener; /* the descriptor it gets, or -1 */
  int port, megabytes;
} Script;

static const char loop_key = 'l'; /* its address is where the registry keeps the loop */

/* require, as far as these scripts need it: they get what the game has opened, and read no files. */
static int game_require(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, name) == LUA_TNIL) return luaL_error(L, "this game has no module '%s'", name);
  return 1;
}

/* say(text): what scripts have instead of print */
static int game_say(lua_State *L) {
  const Script *s = lua_touserdata(L, lua_upvalueindex(1));
  printf("%-12s %s\n", s->name, luaL_tolstring(L, 1, NULL));
  return 0;
}

/* No io, no os, no package, no debug: a script has the language, and the network as far as the game allows it. */
static void open_libraries(lua_State *L, Script *s) {
  static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},       {LUA_COLIBNAME, luaopen_coroutine},
                                       {LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},
                                       {LUA_MATHLIBNAME, luaopen_math}, {"socket", luaopen_socket}};
  static const char *const unwanted[] = {"dofile", "loadfile", "load", "print"}; /* load reads binary chunks, too */
  size_t i;
  for (i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
    luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
    lua_pop(L, 1);
  }
  for (i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++) {
    lua_pushnil(L);
    lua_setglobal(L, unwanted[i]);
  }
  lua_pushcfunction(L, game_require);
  lua_setglobal(L, "require");
  lua_pushlightuserdata(L, s);
  lua_pushcclosure(L, game_say, 1);
  lua_setglobal(L, "say");
}

static void load_file(lua_State *L, Script *s, const char *file) {
  snprintf(s->path, sizeof s->path, "%s/%s", s->folder, file);
  if (luaL_loadfilex(L, s->path, "t") != LUA_OK) lua_error(L);
}

/* Opens everything in a new state, makes its loop, and runs the script: script(loop, listener or port, megabytes). */
static int open_script(lua_State *L) {
  static const lsock_Limits limits = {8, 16384, LSOCK_NO_NAMES | LSOCK_NO_WAIT | LSOCK_NO_DESCRIPTORS};
  Script *s = lua_touserdata(L, 1);
  char file[64];
  open_libraries(L, s);
  lsock_setpolicy(L, lsock_rules, &s->rules);
  lsock_setlimits(L, &limits);

  load_file(L, s, "socket/loop.lua");
  lua_call(L, 0, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "socket.loop");
  lua_getfield(L, -2, "new");
  lua_call(L, 0, 1);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &loop_key);

  snprintf(file, sizeof file, "examples/embed/%s.lua", s->name);
  load_file(L, s, file);
  lua_insert(L, -2); /* the loop is its first argument */
  if (s->listener >= 0) {
    int err = lsock_push(L, s->listener, -1, -1, -1, -1);
    if (err) return lsock_raise(L, err, "listener");
    s->listener = -1; /* the state's from now on */
  } else
    lua_pushinteger(L, s->port);
  lua_pushinteger(L, s->megabytes);
  lua_call(L, 3, 0);
  return 0;
}

/* One frame's worth of it: loop:step(0). */
static int step_script(lua_State *L) {
  Script *s = lua_touserdata(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &loop_key);
  lua_getfield(L, -1, "step");
  lua_insert(L, -2);
  lua_pushinteger(L, 0);
  lua_call(L, 2, 1);
  s->ended = !lua_toboolean(L, -1); /* no tasks left */
  return 0;
}

static int add_traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

/* Calls a C function that may raise errors. Nothing here allocates outside of lua_pcall: memory may have run out. */
static void call_script(Script *s, lua_CFunction f) {
  lua_State *L = s->L;
  lua_settop(L, 0);
  lua_pushcfunction(L, add_traceback);
  lua_pushcfunction(L, f);
  lua_pushlightuserdata(L, s);
  if (lua_pcall(L, 1, 0, 1) == LUA_OK) return;
  printf("%-12s failed: %s\n", s->name, lua_tostring(L, -1));
  s->ended = s->failed = 1; /* a real game might start it anew */
}

static void start_script(Script *s) {
  s->L = lua_newstate(allocate, &s->memory);
  if (s->L)
    call_script(s, open_script);
  else {
    printf("%-12s failed: not enough memory for a Lua state\n", s->name);
    s->ended = s->failed = 1;
  }
}

/* Closes the state at any moment: its sockets with it, whatever its tasks wait for. */
static void stop_script(Script *s) {
  if (s->L) lua_close(s->L);
  if (s->listener >= 0) close(s->listener);
}

/* ---------------------------------------------------------------- the world */

typedef struct Ball {
  float x, y, dx, dy;
} Ball;

static Ball *new_world(int n) {
  Ball *world = malloc((size_t)n * sizeof *world);
  int i;
  for (i = 0; world && i < n; i++) {
    world[i].x = (float)(i % 100) / 100;
    world[i].y = (float)(i % 77) / 77;
    world[i].dx = (float)(i % 13 - 6) / 1000;
    world[i].dy = (float)(i % 7 - 3) / 1000;
  }
  return world;
}

static void move_world(Ball *world, int n) {
  int i;
  for (i = 0; i < n; i++) {
    Ball *b = &world[i];
    b->x += b->dx;
    b->y += b->dy;
    if (b->x < 0 || b->x > 1) b->dx = -b->dx;
    if (b->y < 0 || b->y > 1) b->dy = -b->dy;
  }
}

/* ---------------------------------------------------------------- time */

static double clock_ms(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* How often this thread gave the processor up by itself: it does when a call blocks. */
static long times_blocked(void) {
#if defined(RUSAGE_THREAD)
  struct rusage use;
  return getrusage(RUSAGE_THREAD, &use) == 0 ? use.ru_nvcsw : 0;
#else
  return 0;
#endif
}

static void sleep_until(double ms) {
  double left = ms - clock_ms(CLOCK_MONOTONIC);
  struct timespec t;
  if (left <= 0) return; /* a late frame: the next one begins at once */
  t.tv_sec = (time_t)(left / 1e3);
  t.tv_nsec = (long)((left - (double)t.tv_sec * 1e3) * 1e6);
  nanosleep(&t, NULL);
}

/* What networking took of the frames so far. */
typedef struct Times {
  int frames;
  double wall, cpu, wall_most, cpu_most;
  int over_cpu, over_blocked, over_else; /* frames over the limit: by our work, by waiting, by other programs */
  int histogram[6];
} Times;

static const double steps[] = {0.1, 0.25, 0.5, 1, 2};

static void count_frame(Times *t, double wall, double cpu, long blocked, double limit) {
  int i = 0;
  t->frames++;
  t->wall += wall;
  t->cpu += cpu;
  if (wall > t->wall_most) t->wall_most = wall;
  if (cpu > t->cpu_most) t->cpu_most = cpu;
  if (cpu > limit)
    t->over_cpu++;
  else if (wall > limit && blocked > 0)
    t->over_blocked++;
  else if (wall > limit)
    t->over_else++;
  while (i < 5 && wall >= steps[i]) i++;
  t->histogram[i]++;
}

static void print_times(const Times *t, double limit) {
  int i;
  printf("\nnetworking in each of %d frames (clock on the wall, and of the processor):\n", t->frames);
  printf("  mean %.3f ms, most %.3f ms; processor: mean %.3f ms, most %.3f ms\n", t->wall / t->frames, t->wall_most,
         t->cpu / t->frames, t->cpu_most);
  for (i = 0; i < 5; i++) printf("  under %4.2f ms  %5d frames\n", steps[i], t->histogram[i]);
  printf("  longer         %5d frames\n", t->histogram[5]);
  printf("frames over %g ms because of networking: %d", limit, t->over_cpu + t->over_blocked);
  if (t->over_cpu + t->over_blocked) printf(" (%d by work, %d by waiting)", t->over_cpu, t->over_blocked);
  printf("\n");
  if (t->over_else) printf("frames that took longer because the machine did something else: %d\n", t->over_else);
}

/* ---------------------------------------------------------------- the game */

/* The game opens the one port there is; the system chooses it. -1: errno says why not. */
static int open_port(int *port) {
  struct sockaddr_in in;
  socklen_t len = sizeof in;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return -1;
  memset(&in, 0, sizeof in);
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)(void *)&in, sizeof in) < 0 || listen(fd, 8) < 0 ||
      getsockname(fd, (struct sockaddr *)(void *)&in, &len) < 0) {
    close(fd);
    return -1;
  }
  *port = ntohs(in.sin_port);
  return fd;
}

static void play(Script scripts[2], int most, double limit, Times *times) {
  static const int balls = 20000;
  Ball *world = new_world(balls);
  double next = clock_ms(CLOCK_MONOTONIC);
  if (!world) return;
  while (times->frames < most && !scripts[1].ended) {
    double wall, cpu;
    long blocked;
    int i;
    move_world(world, balls); /* and here a game would draw it */

    blocked = times_blocked();
    cpu = clock_ms(CLOCK_THREAD_CPUTIME_ID);
    wall = clock_ms(CLOCK_MONOTONIC);
    for (i = 0; i < 2; i++)
      if (!scripts[i].ended) call_script(&scripts[i], step_script);
    wall = clock_ms(CLOCK_MONOTONIC) - wall;
    cpu = clock_ms(CLOCK_THREAD_CPUTIME_ID) - cpu;
    count_frame(times, wall, cpu, times_blocked() - blocked, limit);

    next += 1e3 / FRAMES_PER_SECOND;
    sleep_until(next);
  }
  free(world);
}

int main(int argc, char **argv) {
  Script scripts[2] = {{.name = "level_server"}, {.name = "level_client"}};
  Times times = {0};
  const char *folder = ".";
  char rule[32];
  double limit = 2;
  int most = MOST_FRAMES, budget = 4096, megabytes = 32, port, c, i, failed = 0;
  while ((c = getopt(argc, argv, "f:m:l:n:")) != -1) switch (c) {
      case 'f': folder = optarg; break;
      case 'm': budget = (int)strtol(optarg, NULL, 10); break;
      case 'l': limit = strtod(optarg, NULL); break;
      case 'n': most = (int)strtol(optarg, NULL, 10); break;
      default: return 2;
    }
  if (optind < argc) megabytes = (int)strtol(argv[optind], NULL, 10);
  setvbuf(stdout, NULL, _IOLBF, 0);

  scripts[0].listener = open_port(&port);
  scripts[1].listener = -1;
  if (scripts[0].listener < 0) {
    fprintf(stderr, "no port: %s\n", strerror(errno));
    return 1;
  }
  snprintf(rule, sizeof rule, "127.0.0.1:%d", port);
  lsock_rule(&scripts[1].rule, rule);
  scripts[1].rules.connect = &scripts[1].rule; /* and the server has no rules: it may go nowhere */
  scripts[1].rules.nconnect = 1;
  for (i = 0; i < 2; i++) {
    scripts[i].folder = folder;
    scripts[i].memory.budget = (size_t)budget << 10;
    scripts[i].port = port;
    scripts[i].megabytes = megabytes;
    start_script(&scripts[i]);
  }

  play(scripts, most, limit, &times);

  if (times.frames > 0) print_times(&times, limit);
  for (i = 0; i < 2; i++) {
    Memory *m = &scripts[i].memory;
    printf("%-12s %zu KiB of memory at most, of %d allowed", scripts[i].name, m->peak >> 10, budget);
    if (m->refused) printf("; asked for more %lu times", m->refused);
    printf("\n");
    failed |= scripts[i].failed;
  }
  failed |= !scripts[1].ended || times.over_cpu + times.over_blocked > 0;
  for (i = 0; i < 2; i++) {
    stop_script(&scripts[i]);
    if (scripts[i].memory.used != 0) {
      printf("%-12s left %zu bytes behind\n", scripts[i].name, scripts[i].memory.used);
      failed = 1;
    }
  }
  return failed;
}
