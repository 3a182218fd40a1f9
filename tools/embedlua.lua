--[[ embedlua.lua: the modules written in Lua, socket/*.lua, as one C file for programs that have no files to load.

  lua5.4 tools/embedlua.lua >lsocket_lua.c      besides lsocket*.c in the program's build; `make static` has it

The file needs lsocket.h and Lua alone. It defines lsock_preload_lua (lsocket.h).
]]

local root = arg[0]:match("^(.*)tools/[^/]*$") or "../"
local MODULES = {"loop", "server"}

local HEAD = [[
/*
** lsocket_lua.c: the modules written in Lua, for programs without files. Made by tools/embedlua.lua.
*/
#include <lauxlib.h>
#include <lua.h>

#include "lsocket.h"

/* `require` for these modules: what is loaded or preloaded, also in states without the library `package`. */
static int find(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, 2) != LUA_TNIL) return 1;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, -2) == LUA_TNIL && lua_getglobal(L, "require") == LUA_TNIL)
    return luaL_error(L, "module '%s' is not in this program", lua_tostring(L, 1));
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, -2);
  lua_rawset(L, 2);
  return 1;
}

/* Runs a module, whose first two parameters are `require` and `package`. */
static int open_text(lua_State *L, const char *name, const char *text, size_t size) {
  if (luaL_loadbufferx(L, text, size, name, "t") != LUA_OK) return lua_error(L);
  lua_pushcfunction(L, find);
  lua_createtable(L, 0, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_setfield(L, -2, "loaded");
  lua_call(L, 2, 1);
  return 1;
}
]]

local out = {HEAD}
local function put(...) out[#out + 1] = string.format(...) end

for _, name in ipairs(MODULES) do
  local f <close> = assert(io.open(root .. "socket/" .. name .. ".lua", "rb"))
  local text = "local require, package = ...; " .. f:read("a") -- on the first line, so that lines keep their numbers
  put("\nstatic const char text_%s[] = {\n", name)
  for i = 1, #text, 30 do put("    %s,\n", table.concat({text:byte(i, math.min(i + 29, #text))}, ", ")) end
  put("};\n\nstatic int open_%s(lua_State *L) {\n", name)
  put('  return open_text(L, "@socket/%s.lua", text_%s, sizeof text_%s);\n}\n', name, name, name)
end

put("\nvoid lsock_preload_lua(lua_State *L) {\n")
for _, name in ipairs {"", "_selectors", "_reactor"} do
  put('  lsock_preload(L, "socket%s", luaopen_socket%s);\n', name:gsub("_", "."), name)
end
for _, name in ipairs(MODULES) do put('  lsock_preload(L, "socket.%s", open_%s);\n', name, name) end
put("}\n")
io.write(table.concat(out))
