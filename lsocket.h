/*
** lsocket.h: the public C interface of `socket` for Lua, for host programs.
*/
#ifndef LSOCKET_H
#define LSOCKET_H

#include <lua.h>

#define LSOCKET_VERSION "0.1.0"

#if defined(_WIN32)
#define LSOCKET_API __declspec(dllexport)
#elif defined(__GNUC__)
#define LSOCKET_API __attribute__((visibility("default")))
#else
#define LSOCKET_API
#endif

/* Opens the module: luaL_requiref(L, "socket", luaopen_socket, 0). */
LSOCKET_API int luaopen_socket(lua_State *L);

#endif
