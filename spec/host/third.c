/*
** third.c: a module beside the library, for tools/check_hosts.sh: it knows lsocket.h and Lua alone, and is not linked with
** the library.
*/
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <unistd.h>

#include "lsocket.h"

static const lsock_Functions *functions(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* third.pair() -> descriptor number, socket object: the ends of a pair, one of them pushed as a socket */
static int third_pair(lua_State *L) {
  int fds[2], err;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) return functions(L)->raise(L, errno, "pair");
  lua_pushinteger(L, fds[0]);
  if ((err = functions(L)->push(L, fds[1], -1, -1, -1, 2.5)) != 0) return functions(L)->raise(L, err, "pair");
  return 2;
}

/* third.fileno(s) -> number; nil for what is no socket */
static int third_fileno(lua_State *L) {
  const lsock_Sock *s = functions(L)->test(L, 1);
  if (!s) return 0;
  lua_pushinteger(L, functions(L)->fileno(s));
  return 1;
}

/* third.check(s) -> true, or an argument error */
static int third_check(lua_State *L) {
  lua_pushboolean(L, functions(L)->check(L, 1) != NULL);
  return 1;
}

/* third.detach(s) -> number */
static int third_detach(lua_State *L) {
  lua_pushinteger(L, functions(L)->detach(L, 1));
  return 1;
}

/* third.fail() raises; third.error() -> an error object */
static int third_fail(lua_State *L) {
  return functions(L)->raise(L, ENODEV, "third");
}

static int third_error(lua_State *L) {
  functions(L)->pusherrno(L, EHOSTDOWN, "third", NULL, 0);
  return 1;
}

int luaopen_third(lua_State *L);
int luaopen_third(lua_State *L) {
  static const luaL_Reg all[] = {{"pair", third_pair},
                                 {"fileno", third_fileno},
                                 {"check", third_check},
                                 {"detach", third_detach},
                                 {"fail", third_fail},
                                 {"error", third_error},
                                 {NULL, NULL}};
  const lsock_Functions *f = lsock_functions(L);
  if (!f) return luaL_error(L, "third: the module socket is not open");
  luaL_newlibtable(L, all);
  lua_pushlightuserdata(L, (void *)(size_t)f);
  luaL_setfuncs(L, all, 1);
  lua_pushinteger(L, f->library);
  lua_setfield(L, -2, "library");
  return 1;
}
