/*
** nofiles.c: a host with neither files nor the library `package`, whose script runs a loop and a server from the modules
** in liblsocket.a; for tools/check_hosts.sh. Status 0 if all is well.
*/
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

#include "lsocket.h"

static const char script[] =
    "assert(not require and not package)\n"
    "local loop, server = socket.loop, socket.server\n"
    "assert(loop == socket.loop and server.TCPServer)\n"
    "local said\n"
    "loop.run(function()\n"
    "  local listener <close> = socket.create_server {'127.0.0.1', 0}\n"
    "  local task = loop.spawn(function()\n"
    "    local conn <close> = listener:accept()\n"
    "    conn:sendall(conn:recv(100):upper())\n"
    "  end)\n"
    "  local client <close> = socket.create_connection(listener:getsockname())\n"
    "  said = client:sendall('hello'):recv(100)\n"
    "  task:join()\n"
    "end)\n"
    "local echo <close> = server.TCPServer({'127.0.0.1', 0}, function(request) request:sendall 'served' end)\n"
    "local client <close> = socket.create_connection(echo.socket:getsockname())\n"
    "echo:handle_request()\n"
    "local ok, message = pcall(loop.spawn, 1)\n"
    "return said, client:recv(100), tostring(message)\n";

int main(void) {
  lua_State *L = luaL_newstate();
  int failed;
  if (!L) return 1;
  luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
  luaL_requiref(L, LUA_COLIBNAME, luaopen_coroutine, 1);
  luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
  luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
  luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
  luaL_requiref(L, "socket", luaopen_socket, 1);
  lsock_preload_lua(L);
  lua_settop(L, 0);
  failed = luaL_dostring(L, script) != LUA_OK;
  if (failed) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  } else {
    lua_pushliteral(L, "HELLO served");
    lua_pushfstring(L, "%s %s", lua_tostring(L, 1), lua_tostring(L, 2));
    failed = !lua_rawequal(L, -1, -2);
    if (failed) fprintf(stderr, "nofiles: it said %s\n", lua_tostring(L, -1));
  }
  lua_close(L);
  return failed;
}
