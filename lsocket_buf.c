/*
** lsocket_buf.c: mutable byte buffers, to receive into and send from without a string in between.
**
** A buffer's bytes follow its header in the same userdata; a view's lie in another buffer, which it keeps alive. Neither
** ever moves or changes its size, so whoever holds a buffer on the Lua stack may hold a pointer into it.
*/
#include "lsocket_int.h"

#include <string.h>

typedef struct Buffer {
  uintptr_t seal;
  char *p;
  size_t len;
  const void *owner; /* of a view: whose bytes they are, its user value 1 */
} Buffer;

LSOCK_BEGINS_WITH_SEAL(Buffer);

/* Lua's strings end here too. */
#define BUFFER_MAX ((size_t)PTRDIFF_MAX - sizeof(Buffer))

static Buffer *to_buffer(lua_State *L, int arg) {
  Buffer *b = lsock_object(L, arg, LSOCK_KIND_BUFFER, sizeof *b);
  if (b && b->owner) { /* the debug library can take it away */
    lua_getiuservalue(L, arg, 1);
    if (lua_touserdata(L, -1) != b->owner) b = NULL;
    lua_pop(L, 1);
  }
  return b;
}

static Buffer *check_buffer(lua_State *L, int arg) {
  Buffer *b = to_buffer(L, arg);
  if (!b) luaL_typeerror(L, arg, "socket buffer");
  return b;
}

char *lsock_tobuffer(lua_State *L, int idx, size_t *len) {
  const Buffer *b = to_buffer(L, idx);
  if (!b) return NULL;
  *len = b->len;
  return b->p;
}

const char *lsock_tobytes(lua_State *L, int idx, size_t *len) {
  return lua_type(L, idx) == LUA_TUSERDATA ? lsock_tobuffer(L, idx, len) : lua_tolstring(L, idx, len);
}

const char *lsock_checkbytes(lua_State *L, int arg, size_t *len) {
  const char *p = lua_tolstring(L, arg, len); /* mostly it is a string */
  if (lsock_likely(p)) return p;
  p = lua_type(L, arg) == LUA_TUSERDATA ? lsock_tobuffer(L, arg, len) : NULL;
  return p ? p : luaL_checklstring(L, arg, len);
}

char *lsock_checkbuffer(lua_State *L, int arg, size_t *len) {
  Buffer *b = check_buffer(L, arg);
  *len = b->len;
  return b->p;
}

/* ---------------------------------------------------------------- positions */

/* The range i .. j of string.sub: first byte and count. */
static size_t range(lua_State *L, int arg, size_t len, size_t *count) {
  lua_Integer n = (lua_Integer)len;
  lua_Integer i = luaL_optinteger(L, arg, 1), j = luaL_optinteger(L, arg + 1, -1);
  if (i < 0) i = i < -n ? 1 : n + i + 1;
  if (i == 0) i = 1;
  if (j < 0) j = j < -n ? 0 : n + j + 1;
  if (j > n) j = n;
  *count = i > j ? 0 : (size_t)(j - i + 1);
  return *count ? (size_t)i - 1 : 0;
}

/* A position from 1 to len + 1, negative ones from the end; as an offset. */
static size_t position(lua_State *L, int arg, size_t len, lua_Integer def) {
  lua_Integer n = (lua_Integer)len, i = luaL_optinteger(L, arg, def);
  if (i < 0) i += n + 1;
  luaL_argcheck(L, i >= 1 && i <= n + 1, arg, "position outside the buffer");
  return (size_t)i - 1;
}

/* ---------------------------------------------------------------- methods */

static Buffer *new_buffer(lua_State *L, size_t room, int uservalues) {
  Buffer *b = lua_newuserdatauv(L, sizeof *b + room, uservalues);
  b->seal = LSOCK_SEAL(lsock_core(L), b, LSOCK_KIND_BUFFER);
  b->p = (char *)(b + 1);
  b->len = room;
  b->owner = NULL;
  lsock_pushtable(L, LSOCK_UV_BUFFER);
  lua_setmetatable(L, -2);
  return b;
}

/* socket.buffer(size | bytes) -> buffer of that many zero bytes, or with a copy of the bytes */
static int mod_buffer(lua_State *L) {
  if (lua_type(L, 1) == LUA_TNUMBER) {
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0, 1, "size must not be negative");
    luaL_argcheck(L, (lua_Unsigned)n <= BUFFER_MAX, 1, "size is too large");
    lsock_bound(L, 1, (size_t)n);
    memset(new_buffer(L, (size_t)n, 0)->p, 0, (size_t)n);
  } else {
    size_t len;
    const char *s = lsock_checkbytes(L, 1, &len);
    lsock_bound(L, 1, len);
    memcpy(new_buffer(L, len, 0)->p, s, len);
  }
  return 1;
}

static int buf_len(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)check_buffer(L, 1)->len);
  return 1;
}

/* b:sub([i [, j]]) -> string; positions as in string.sub */
static int buf_sub(lua_State *L) {
  const Buffer *b = check_buffer(L, 1);
  size_t n, at = range(L, 2, b->len, &n);
  lua_pushlstring(L, b->p + at, n);
  return 1;
}

/* tostring(b) -> all its bytes */
static int buf_tostring(lua_State *L) {
  const Buffer *b = check_buffer(L, 1);
  lua_pushlstring(L, b->p, b->len);
  return 1;
}

/* b:byte([i [, j]]) -> numbers, as string.byte */
static int buf_byte(lua_State *L) {
  const Buffer *b = check_buffer(L, 1);
  size_t n, at, k;
  if (lua_isnoneornil(L, 3)) {
    lua_settop(L, 2);
    if (lua_isnil(L, 2)) {
      lua_pushinteger(L, 1);
      lua_replace(L, 2);
    }
    lua_pushvalue(L, 2);
  }
  at = range(L, 2, b->len, &n);
  luaL_argcheck(L, n < INT32_MAX, 1, "too many bytes");
  luaL_checkstack(L, (int)n, "too many bytes");
  for (k = 0; k < n; k++) lua_pushinteger(L, (unsigned char)b->p[at + k]);
  return (int)n;
}

/* b:set(i, bytes | number ...) -> b; writes bytes (strings, buffers, or numbers from 0 to 255) from position i on */
static int buf_set(lua_State *L) {
  Buffer *b = check_buffer(L, 1);
  size_t at = position(L, 2, b->len, 1);
  int arg, top = lua_gettop(L);
  for (arg = 3; arg <= top; arg++) {
    size_t len = 1;
    const char *s = NULL;
    lua_Integer v = 0;
    if (lua_type(L, arg) == LUA_TNUMBER) {
      v = luaL_checkinteger(L, arg);
      luaL_argcheck(L, v >= 0 && v <= 255, arg, "a byte is 0-255");
    } else
      s = lsock_checkbytes(L, arg, &len);
    luaL_argcheck(L, len <= b->len - at, arg, "does not fit the buffer");
    if (s)
      memmove(b->p + at, s, len); /* a view may overlap */
    else
      b->p[at] = (char)v;
    at += len;
  }
  lua_settop(L, 1);
  return 1;
}

/* b:view([i [, j]]) -> buffer that shares these bytes */
static int buf_view(lua_State *L) {
  Buffer *b = check_buffer(L, 1), *v;
  size_t n, at = range(L, 2, b->len, &n);
  v = new_buffer(L, 0, 1);
  v->p = b->p + at;
  v->len = n;
  if (lua_getiuservalue(L, 1, 1) != LUA_TUSERDATA) { /* a view of a view holds on to the bytes' own buffer */
    lua_pop(L, 1);
    lua_pushvalue(L, 1);
  }
  v->owner = lua_touserdata(L, -1);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

/* b:find(bytes [, init]) -> first and last position of the bytes, plainly compared, or nil */
static int buf_find(lua_State *L) {
  const Buffer *b = check_buffer(L, 1);
  size_t len, at;
  const char *s = lsock_checkbytes(L, 2, &len), *p, *end = b->p + b->len;
  at = position(L, 3, b->len, 1);
  p = b->p + at;
  while ((size_t)(end - p) >= len) {
    const char *hit = len == 0 ? p : memchr(p, s[0], (size_t)(end - p) - len + 1);
    if (!hit) break;
    if (memcmp(hit, s, len) == 0) {
      lua_pushinteger(L, hit - b->p + 1);
      lua_pushinteger(L, hit - b->p + (lua_Integer)len);
      return 2;
    }
    p = hit + 1;
  }
  lua_pushnil(L);
  return 1;
}

/* Calls a function of Lua's string library, kept as upvalue 2. */
static void push_string_function(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  if (lua_isnil(L, -1)) luaL_error(L, "needs Lua's string library");
}

/* b:unpack(format [, i]) -> as string.unpack on the bytes from position i on; positions count from the buffer's start */
static int buf_unpack(lua_State *L) {
  const Buffer *b = check_buffer(L, 1);
  size_t at = position(L, 3, b->len, 1);
  int n;
  luaL_checkstring(L, 2);
  lua_settop(L, 2);
  push_string_function(L);
  lua_pushvalue(L, 2);
  lua_pushlstring(L, b->p, b->len);
  lua_pushinteger(L, (lua_Integer)at + 1);
  lua_call(L, 3, LUA_MULTRET);
  n = lua_gettop(L) - 2;
  return n;
}

/* b:pack(i, format, ...) -> position after them; writes the values as string.pack packs them at position i */
static int buf_pack(lua_State *L) {
  Buffer *b = check_buffer(L, 1);
  size_t len, at = position(L, 2, b->len, 1);
  const char *s;
  luaL_checkstring(L, 3);
  push_string_function(L);
  lua_insert(L, 3);
  lua_call(L, lua_gettop(L) - 3, 1);
  b = check_buffer(L, 1);            /* a hook may have used the debug library */
  s = luaL_checklstring(L, 3, &len); /* whatever function the script put into the string library */
  luaL_argcheck(L, len <= b->len - at, 3, "does not fit the buffer");
  memcpy(b->p + at, s, len);
  lua_pushinteger(L, (lua_Integer)(at + len) + 1);
  return 1;
}

/* Equal bytes: with another buffer; strings never equal userdata in Lua */
static int buf_eq(lua_State *L) {
  const Buffer *a = to_buffer(L, 1), *b = to_buffer(L, 2);
  lua_pushboolean(L, a && b && a->len == b->len && memcmp(a->p, b->p, a->len) == 0);
  return 1;
}

/* ---------------------------------------------------------------- opening */

static const lsock_Reg buf_methods[] = {{"byte", buf_byte}, {"find", buf_find}, {"set", buf_set},
                                        {"sub", buf_sub},   {"view", buf_view}, {NULL, NULL}};

static const lsock_Reg buf_meta[] = {{"__eq", buf_eq}, {"__len", buf_len}, {"__tostring", buf_tostring}, {NULL, NULL}};

static const lsock_Reg buf_functions[] = {{"buffer", mod_buffer}, {NULL, NULL}};

/* A method that ends in a function of the string library, if the host has opened that: upvalue 2 is it, or nil. */
static void add_string_method(lua_State *L, int core, const char *name, lua_CFunction f) {
  int top = lua_gettop(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_istable(L, -1) && lua_getfield(L, -1, "string") == LUA_TTABLE)
    lua_getfield(L, -1, name);
  else
    lua_pushnil(L);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  lua_pushvalue(L, core);
  lua_insert(L, -2);
  lua_pushcclosure(L, f, 2);
  lua_setfield(L, -2, name);
}

void lsock_open_buf(lua_State *L, int core) {
  lsock_register(L, core, buf_functions);
  lua_createtable(L, 0, 6);
  lua_pushliteral(L, "socket buffer");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, buf_meta);
  lua_createtable(L, 0, 8);
  lsock_register(L, core, buf_methods);
  add_string_method(L, core, "pack", buf_pack);
  add_string_method(L, core, "unpack", buf_unpack);
  lua_setfield(L, -2, "__index");
  lua_setiuservalue(L, core, LSOCK_UV_BUFFER);
}
