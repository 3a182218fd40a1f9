#include "lsocket_int.h"
void lsock_open_reactor(lua_State *L, int core) { (void)core; lua_newtable(L); }
int luaopen_socket_reactor(lua_State *L) { return lsock_submodule(L, "reactor"); }
