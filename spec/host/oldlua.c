/*
** oldlua.c: a host whose Lua says that it is an older release than the library needs. Prints what opening it gives.
*/
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

#include "lsocket.h"

/* Found before that of Lua's shared library. */
const char lua_ident[] = "$LuaVersion: Lua 5.4.3  Copyright (C) 1994-2021 Lua.org, PUC-Rio $";

int main(void) {
  lua_State *L = luaL_newstate();
  if (!L) return 1;
  luaL_openlibs(L);
  lua_pushcfunction(L, luaopen_socket);
  if (lua_pcall(L, 0, 1, 0) != LUA_OK)
    puts(lua_tostring(L, -1));
  else
    puts("opened");
  lua_close(L);
  return 0;
}
