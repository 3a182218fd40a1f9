// embed.cpp: the public header from C++, and a state without the library `package`, for tools/check_hosts.sh. Status 0
// if all is well.
#include <cstdio>
#include <cstring>

#include <lua.hpp>

#include "lsocket.h"

static int refuse_all(void *, const char *, const struct sockaddr *, socklen_t, int, int, int) {
  return 0;
}

int main() {
  lua_State *L = luaL_newstate();
  luaL_requiref(L, "_G", luaopen_base, 1);
  luaL_requiref(L, "socket", luaopen_socket, 1);
  lsock_setpolicy(L, refuse_all, nullptr);
  lua_settop(L, 0);
  const char *code = "local s, e = socket.try_socket() assert(not s and e.code == 'EACCES', e) return socket._VERSION";
  if (luaL_dostring(L, code) != LUA_OK || std::strcmp(lua_tostring(L, -1), LSOCKET_VERSION) != 0) {
    std::fprintf(stderr, "%s\n", lua_tostring(L, -1));
    return 1;
  }
  static_assert(LSOCKET_VERSION_NUM >= 100, "version");
  lua_close(L);
  return lsock_version() == LSOCKET_VERSION_NUM ? 0 : 1;
}
