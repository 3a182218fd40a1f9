/*
** A host program for resolve_wait_spec.lua: runs a script, closes its Lua state, and lives on while lookups that the
** script began come to their end in threads of the library.
*/
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  int bad;
  if (!L || argc < 2) return 2;
  luaL_openlibs(L);
  bad = luaL_dofile(L, argv[1]);
  if (bad) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  usleep(600000);
  if (!bad) puts("alive");
  return bad;
}
