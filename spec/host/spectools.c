/*
** spectools.c: what the specs need and Lua does not have: poll(2) for a scheduler, userdata of any size and content,
** a second Lua state, and one that is short of memory. The specs compile it themselves (spec/support.lua).
*/
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* poll({{fd, "r" | "w"}, ...}, seconds | nil) -> list of the positions that are ready */
static int tools_poll(lua_State *L) {
  lua_Integer n, i, found = 0;
  double seconds = luaL_optnumber(L, 2, -1);
  struct pollfd *p;
  luaL_checktype(L, 1, LUA_TTABLE);
  n = luaL_len(L, 1);
  p = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *p, 0);
  for (i = 0; i < n; i++) {
    lua_rawgeti(L, 1, i + 1);
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    p[i].fd = (int)luaL_checkinteger(L, -2);
    p[i].events = *luaL_checkstring(L, -1) == 'w' ? POLLOUT : POLLIN;
    lua_pop(L, 3);
  }
  if (poll(p, (nfds_t)n, seconds < 0 ? -1 : (int)ceil(seconds * 1000)) < 0) return luaL_error(L, strerror(errno));
  lua_newtable(L);
  for (i = 0; i < n; i++)
    if (p[i].revents) {
      lua_pushinteger(L, i + 1);
      lua_rawseti(L, -2, ++found);
    }
  return 1;
}

/* userdata(size, byte): filled with that byte */
static int tools_userdata(lua_State *L) {
  size_t size = (size_t)luaL_checkinteger(L, 1);
  memset(lua_newuserdatauv(L, size, 0), (int)luaL_checkinteger(L, 2), size);
  return 1;
}

/* state(code) -> what the code returns in a Lua state of its own, as a string */
static int tools_state(lua_State *L) {
  const char *code = luaL_checkstring(L, 1);
  lua_State *N = luaL_newstate();
  if (!N) return luaL_error(L, "not enough memory");
  luaL_openlibs(N);
  if (luaL_dostring(N, code)) luaL_tolstring(N, -1, NULL);
  lua_pushstring(L, lua_tostring(N, -1));
  lua_close(N);
  return 1;
}

/* An allocator that has only so many allocations left; < 0: any number. */
static void *starving(void *ud, void *p, size_t osize, size_t nsize) {
  long *left = ud;
  if (nsize == 0) {
    free(p);
    return NULL;
  }
  if (*left >= 0 && (!p || nsize > osize)) {
    if (*left == 0) return NULL;
    --*left;
  }
  return realloc(p, nsize);
}

/*
** starve(code, times) -> how often it failed: the code returns a function, which is called with memory for no
** allocation, for one, for two ... until it has succeeded so many times in a row, in a Lua state of its own. An error
** that is not one of memory is raised.
*/
static int tools_starve(lua_State *L) {
  const char *code = luaL_checkstring(L, 1);
  lua_Integer want = luaL_checkinteger(L, 2), good = 0;
  long left = -1, k;
  lua_State *N = lua_newstate(starving, &left);
  if (!N) return luaL_error(L, "not enough memory");
  luaL_openlibs(N);
  if (luaL_dostring(N, code)) {
    lua_pushstring(L, lua_tostring(N, -1));
    lua_close(N);
    return lua_error(L);
  }
  for (k = 0; good < want; k++) {
    int status;
    lua_pushvalue(N, -1);
    left = k;
    status = lua_pcall(N, 0, 0, 0);
    left = -1;
    good = status == LUA_OK ? good + 1 : 0;
    if (status != LUA_OK && (status != LUA_ERRMEM || k > 10000)) {
      lua_pushfstring(L, "after %d allocations: %s", (int)k, luaL_tolstring(N, -1, NULL));
      lua_close(N);
      return lua_error(L);
    }
    lua_settop(N, 1);
    lua_gc(N, LUA_GCCOLLECT);
  }
  lua_close(N);
  lua_pushinteger(L, k - want);
  return 1;
}

/* sizeof(userdata) -> its size in bytes */
static int tools_sizeof(lua_State *L) {
  luaL_checktype(L, 1, LUA_TUSERDATA);
  lua_pushinteger(L, (lua_Integer)lua_rawlen(L, 1));
  return 1;
}

int luaopen_spectools(lua_State *L);
int luaopen_spectools(lua_State *L) {
  static const luaL_Reg functions[] = {{"poll", tools_poll},   {"sizeof", tools_sizeof},     {"starve", tools_starve},
                                       {"state", tools_state}, {"userdata", tools_userdata}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}
