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

/* Parts of it, for `require "socket.selectors"` and the like; the same as its fields of these names. */
LSOCKET_API int luaopen_socket_selectors(lua_State *L);
LSOCKET_API int luaopen_socket_reactor(lua_State *L);

#endif
