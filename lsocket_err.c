/*
** lsocket_err.c: error objects: the one place that builds, raises and returns them.
**
** An error is a userdata that only notes what happened; texts are made when somebody asks for them.
*/
#include "lsocket_int.h"

#include <string.h>

typedef struct Err {
  uintptr_t seal;
  int cls, err, line;
  const char *op, *msg;
} Err;

LSOCK_BEGINS_WITH_SEAL(Err);

enum { UV_FUNCTION = 1, UV_ADDRESS, UV_EXTRA, UV_COUNT = UV_EXTRA };

static Err *to_err(lua_State *L, int idx) {
  return lsock_object(L, idx, LSOCK_KIND_ERROR, sizeof(Err));
}

static Err *check_err(lua_State *L, int arg) {
  Err *e = to_err(L, arg);
  if (!e) luaL_typeerror(L, arg, "socket error");
  return e;
}

/* Pushes the function that runs the nearest Lua code and returns its line; 0 and nothing pushed without one. */
static int locate(lua_State *L) {
  lua_Debug ar;
  int level;
  for (level = 1; level < 8 && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "lf", &ar);
    if (ar.currentline > 0) return ar.currentline;
    lua_pop(L, 1);
  }
  return 0;
}

void lsock_pusherror(lua_State *L, const lsock_Fail *f) {
  Err *e;
  luaL_checkstack(L, 6, "error object");
  e = lua_newuserdatauv(L, sizeof *e, UV_COUNT);
  e->seal = LSOCK_SEAL(lsock_core(L), e, LSOCK_KIND_ERROR);
  e->err = f->err;
  e->op = f->op;
  e->msg = f->msg;
  e->cls = f->cls ? f->cls : f->err == ETIMEDOUT ? LSOCK_TIMEOUT : LSOCK_ERROR;
  e->line = locate(L);
  if (e->line) lua_setiuservalue(L, -2, UV_FUNCTION);
  if (f->address) {
    lua_pushvalue(L, f->address);
    lua_setiuservalue(L, -2, UV_ADDRESS);
  }
  if (f->extra) {
    lua_pushvalue(L, f->extra);
    lua_setiuservalue(L, -2, UV_EXTRA);
  }
  lsock_pushtable(L, LSOCK_UV_ERROR);
  lua_setmetatable(L, -2);
}

void lsock_blamecaller(lua_State *L) {
  Err *e = lua_touserdata(L, -1);
  lua_Debug ar, own = {0};
  int level;
  for (level = 1; level < 16 && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Slf", &ar);
    if (ar.currentline > 0 && !own.source) own = ar;
    if (ar.currentline > 0 && ar.source != own.source) {
      e->line = ar.currentline;
      lua_setiuservalue(L, -2, UV_FUNCTION);
      return;
    }
    lua_pop(L, 1);
  }
  e->line = 0;
}

/*
** Would-block errors are the daily bread of event loops: those that the try_ form of an operation returns are all one
** object, which knows neither place nor address.
*/
static void push_would_block(lua_State *L, const lsock_Fail *f) {
  lsock_pushtable(L, LSOCK_UV_EAGAIN);
  if (lua_rawgetp(L, -1, f->op) == LUA_TNIL) {
    lua_pop(L, 1);
    lsock_pusherror(L, f);
    to_err(L, -1)->line = 0;
    lua_pushvalue(L, -1);
    lua_rawsetp(L, -3, f->op);
  }
}

int lsock_fail(lua_State *L, const lsock_Fail *f) {
  if (!lua_toboolean(L, LSOCK_UP_TRY)) {
    lsock_pusherror(L, f);
    return lua_error(L);
  }
  if (f->err == EAGAIN && f->cls == LSOCK_ERROR && !f->msg && !f->address && !f->extra) {
    push_would_block(L, f);
    lua_pushnil(L);
    lua_replace(L, -3);
    return 2;
  }
  lua_pushnil(L);
  lsock_pusherror(L, f);
  return 2;
}

void lsock_pushfields(lua_State *L, int idx) {
  if (to_err(L, idx))
    lua_getiuservalue(L, idx, UV_EXTRA);
  else
    lua_pushnil(L);
}

void lsock_adderror(lua_State *L, int idx, int extra) {
  Err *e = to_err(L, idx);
  int fields;
  if (!e) return;
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 6, "error");
  if (lua_getiuservalue(L, idx, UV_EXTRA) != LUA_TTABLE) {
    lua_pushvalue(L, extra);
    lua_setiuservalue(L, idx, UV_EXTRA);
    lua_pop(L, 1);
    return;
  }
  fields = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, extra);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, fields);
  }
  lua_pop(L, 1);
}

int lsock_failno(lua_State *L, int err, const char *op) {
  lsock_Fail f = {0};
  f.err = err;
  f.op = op;
  return lsock_fail(L, &f);
}

int lsock_failclosed(lua_State *L, const char *op) {
  lsock_Fail f = {0};
  f.err = EBADF;
  f.op = op;
  f.msg = "socket is closed";
  return lsock_fail(L, &f);
}

/* ---------------------------------------------------------------- reading an error */

static const char *herr_text(int code) {
  switch (code) { /* netdb.h, gethostbyname(3) */
    case HOST_NOT_FOUND: return "Unknown host";
    case TRY_AGAIN: return "Host name lookup failure";
    case NO_RECOVERY: return "Unknown server error";
    case NO_DATA: return "No address associated with name";
    default: return "Resolver internal error";
  }
}

/* Classes of other libraries may bring a code and a message of their own. */
static int push_own(lua_State *L, int idx, const Err *e, const char *key) {
  if (e->cls <= LSOCK_TIMEOUT) return 0;
  if (lua_getiuservalue(L, idx, UV_EXTRA) == LUA_TTABLE && lua_getfield(L, -1, key) != LUA_TNIL) {
    lua_remove(L, -2);
    return 1;
  }
  lua_settop(L, lua_gettop(L) - (lua_isnil(L, -1) && lua_istable(L, -2) ? 2 : 1));
  return 0;
}

static void push_message(lua_State *L, int idx, const Err *e) {
  char buf[128];
  if (push_own(L, idx, e, "message")) return;
  if (e->msg)
    lua_pushstring(L, e->msg);
  else if (e->cls == LSOCK_GAIERROR)
    lua_pushstring(L, gai_strerror(e->err));
  else if (e->cls == LSOCK_HERROR)
    lua_pushstring(L, herr_text(e->err));
  else
    lua_pushstring(L, lsock_plat_strerror(e->err, buf, sizeof buf));
}

static void push_code(lua_State *L, int idx, const Err *e) {
  if (push_own(L, idx, e, "code")) return;
  if (!lsock_pushname(L,
                      e->cls == LSOCK_GAIERROR ? LSOCK_NAMES_EAI
                      : e->cls == LSOCK_HERROR ? LSOCK_NAMES_HERR
                                               : LSOCK_NAMES_ERRNO,
                      e->err))
    lua_pushnil(L);
}

static void push_where(lua_State *L, int idx, const Err *e) {
  lua_Debug ar;
  if (!e->line || lua_getiuservalue(L, idx, UV_FUNCTION) != LUA_TFUNCTION) {
    lua_pushnil(L);
    return;
  }
  lua_getinfo(L, ">S", &ar);
  lua_pushfstring(L, "%s:%d", ar.short_src, e->line);
}

static int push_class(lua_State *L, const Err *e) {
  lsock_pushtable(L, LSOCK_UV_CLASSES);
  lua_rawgeti(L, -1, e->cls);
  lua_remove(L, -2);
  return 1;
}

static int err_is(lua_State *L);

/* e.class, e.errno ...: error, key */
static int err_index(lua_State *L) {
  const Err *e = check_err(L, 1);
  const char *k;
  if (lua_type(L, 2) == LUA_TNUMBER) {
    lua_Integer i = lua_tointeger(L, 2);
    if (i == 1)
      lua_pushinteger(L, e->err);
    else if (i == 2)
      push_message(L, 1, e);
    else
      lua_pushnil(L);
    return 1;
  }
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  k = lua_tostring(L, 2);
  if (strcmp(k, "errno") == 0)
    lua_pushinteger(L, e->err);
  else if (strcmp(k, "code") == 0)
    push_code(L, 1, e);
  else if (strcmp(k, "class") == 0)
    push_class(L, e);
  else if (strcmp(k, "message") == 0)
    push_message(L, 1, e);
  else if (strcmp(k, "op") == 0)
    lua_pushstring(L, e->op);
  else if (strcmp(k, "where") == 0)
    push_where(L, 1, e);
  else if (strcmp(k, "address") == 0)
    lua_getiuservalue(L, 1, UV_ADDRESS);
  else if (strcmp(k, "is") == 0) {
    lua_pushvalue(L, LSOCK_UP_CORE);
    lua_pushcclosure(L, err_is, 1);
  } else if (lua_getiuservalue(L, 1, UV_EXTRA) == LUA_TTABLE) {
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
  } else
    lua_pushnil(L);
  return 1;
}

/* What the error is about, as text: an address, or else a file. */
static void push_object(lua_State *L) {
  if (lua_getiuservalue(L, 1, UV_ADDRESS) != LUA_TNIL)
    lsock_pushaddrtext(L, 2);
  else if (lua_getiuservalue(L, 1, UV_EXTRA) == LUA_TTABLE && lua_getfield(L, -1, "filename") != LUA_TSTRING)
    lua_pushnil(L);
  lua_replace(L, 2);
  lua_settop(L, 2);
}

/* "script.lua:12: connect 127.0.0.1:1: Connection refused (ECONNREFUSED)", without the parts that are not known */
static int err_tostring(lua_State *L) {
  const Err *e = check_err(L, 1);
  luaL_Buffer b;
  lua_settop(L, 1);
  push_object(L);
  luaL_buffinit(L, &b);
  push_where(L, 1, e);
  if (lua_isnil(L, -1))
    lua_pop(L, 1);
  else {
    luaL_addvalue(&b);
    luaL_addstring(&b, ": ");
  }
  if (e->op) {
    luaL_addstring(&b, e->op);
    if (!lua_isnil(L, 2)) {
      luaL_addchar(&b, ' ');
      lua_pushvalue(L, 2);
      luaL_addvalue(&b);
    }
    luaL_addstring(&b, ": ");
  }
  push_message(L, 1, e);
  luaL_addvalue(&b);
  push_code(L, 1, e);
  if (lua_isnil(L, -1))
    lua_pop(L, 1);
  else {
    lua_pushfstring(L, " (%s)", lua_tostring(L, -1)); /* nothing may lie above the buffer when it grows */
    lua_remove(L, -2);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return 1;
}

/* Is the class on top `cls` or below it? Both stay. */
static int descends(lua_State *L, int cls) {
  int found = 0, depth = 0; /* a script may tie the chain into a ring */
  lua_pushvalue(L, -1);
  while (lua_istable(L, -1) && !(found = lua_rawequal(L, -1, cls)) && depth++ < 32) {
    lua_pushliteral(L, "parent");
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  return found;
}

/* e:is(class): is the error of that class or of one below it? */
static int err_is(lua_State *L) {
  const Err *e = check_err(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  push_class(L, e);
  lua_pushboolean(L, descends(L, 2));
  return 1;
}

/* socket.iserror(v [, class]): is v an error object of this library (and of that class)? */
static int mod_iserror(lua_State *L) {
  const Err *e;
  luaL_checkany(L, 1);
  if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  e = to_err(L, 1);
  if (e && lua_istable(L, 2)) {
    push_class(L, e);
    lua_pushboolean(L, descends(L, 2));
  } else
    lua_pushboolean(L, e != NULL);
  return 1;
}

static int class_tostring(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_pushliteral(L, "name");
  lua_rawget(L, 1);
  return 1;
}

/* ---------------------------------------------------------------- opening */

int lsock_newclass(lua_State *L, int core, const char *name, int parent) {
  int n;
  if (lua_getiuservalue(L, core, LSOCK_UV_CLASSES) != LUA_TTABLE) lsock_tampered(L);
  n = (int)lua_rawlen(L, -1) + 1;
  lua_createtable(L, 0, 2);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "name");
  if (parent) {
    lua_rawgeti(L, -2, parent);
    lua_setfield(L, -2, "parent");
  }
  if (lua_getfield(L, -2, "meta") != LUA_TTABLE) lsock_tampered(L);
  lua_setmetatable(L, -2);
  lua_rawseti(L, -2, n);
  lua_pop(L, 1);
  return n;
}

void lsock_pushclass(lua_State *L, int core, int n) {
  if (lua_getiuservalue(L, core, LSOCK_UV_CLASSES) != LUA_TTABLE) lsock_tampered(L);
  lua_rawgeti(L, -1, n);
  lua_remove(L, -2);
}

static const lsock_Reg err_meta[] = {{"__index", err_index}, {"__tostring", err_tostring}, {NULL, NULL}};

static const lsock_Reg err_functions[] = {{"iserror", mod_iserror}, {NULL, NULL}};

static const struct {
  const char *key, *name;
  int parent;
} err_classes[] = {/* in the order of LSOCK_ERROR ... */
                   {"error", "socket.error", 0},
                   {"herror", "socket.herror", LSOCK_ERROR},
                   {"gaierror", "socket.gaierror", LSOCK_ERROR},
                   {"timeout", "socket.timeout", LSOCK_ERROR}};

void lsock_open_err(lua_State *L, int core) {
  size_t i;
  int module = lua_gettop(L);
  lua_createtable(L, 4, 1); /* the classes and the metatable they share */
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, class_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "socket error class");
  lua_setfield(L, -2, "__name");
  lua_setfield(L, -2, "meta");
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, core, LSOCK_UV_CLASSES);
  for (i = 0; i < LSOCK_COUNT(err_classes); i++) {
    int n = lsock_newclass(L, core, err_classes[i].name, err_classes[i].parent);
    lua_rawgeti(L, -1, n);
    lua_setfield(L, module, err_classes[i].key);
  }
  lua_pop(L, 1);
  lua_createtable(L, 0, 4);
  lua_pushliteral(L, "socket error");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lsock_register(L, core, err_meta);
  lua_setiuservalue(L, core, LSOCK_UV_ERROR);
  lua_createtable(L, 0, 8);
  lua_setiuservalue(L, core, LSOCK_UV_EAGAIN);
  lsock_register(L, core, err_functions);
}
