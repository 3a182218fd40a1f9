/*
** lsocket_addr.c: socket addresses between C and Lua. The rarer families are in lsocket_family.c.
*/
#include "lsocket_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char *const inet_fields[] = {"host", "port", NULL};
static const char *const inet6_fields[] = {"host", "port", "flowinfo", "scope_id", NULL};
static const char *const raw_fields[] = {"family", "bytes", NULL};

/* ---------------------------------------------------------------- reading address tables */

int lsock_checkint(lua_State *L, int arg) {
  lua_Integer v = luaL_checkinteger(L, arg);
  luaL_argcheck(L, v >= INT_MIN && v <= INT_MAX, arg, "does not fit a C int");
  return (int)v;
}

int lsock_getitem(lua_State *L, int arg, int i, const char *name) {
  int t = lua_rawgeti(L, arg, i);
  if (t != LUA_TNIL) return t;
  lua_pop(L, 1);
  lua_pushstring(L, name);
  return lua_rawget(L, arg);
}

static int bad_item(lua_State *L, int arg, const char *name, const char *want) {
  const char *got = luaL_typename(L, -1);
  return luaL_argerror(L, arg, lua_pushfstring(L, "%s must be %s, got %s", name, want, got));
}

lua_Integer lsock_getint(lua_State *L, int arg, int i, const char *name, lua_Integer lo, lua_Integer hi, int opt) {
  int ok;
  lua_Integer v;
  if (lsock_getitem(L, arg, i, name) == LUA_TNIL && opt) {
    lua_pop(L, 1);
    return 0;
  }
  v = lua_tointegerx(L, -1, &ok);
  if (!ok) bad_item(L, arg, name, "an integer");
  if (v < lo || v > hi)
    luaL_argerror(
        L, arg, lua_pushfstring(L, "%s must be %I-%I, got %I", name, (LUAI_UACINT)lo, (LUAI_UACINT)hi, (LUAI_UACINT)v));
  lua_pop(L, 1);
  return v;
}

const char *lsock_pushstr(lua_State *L, int arg, int i, const char *name, size_t max, int flags, size_t *len) {
  const char *s;
  int t = lsock_getitem(L, arg, i, name);
  *len = 0;
  if (t == LUA_TNIL && (flags & LSOCK_STR_OPT)) return "";
  if (t != LUA_TSTRING) bad_item(L, arg, name, "a string");
  s = lua_tolstring(L, -1, len);
  if (*len > max) luaL_argerror(L, arg, lua_pushfstring(L, "%s is longer than %d bytes", name, (int)max));
  if ((flags & LSOCK_STR_TEXT) && memchr(s, 0, *len))
    luaL_argerror(L, arg, lua_pushfstring(L, "%s contains a zero byte", name));
  return s;
}

size_t lsock_getstr(lua_State *L, int arg, int i, const char *name, void *to, size_t max, int flags) {
  size_t n;
  const char *s = lsock_pushstr(L, arg, i, name, max, flags, &n);
  memcpy(to, s, n + (flags & LSOCK_STR_TEXT ? 1 : 0));
  lua_pop(L, 1);
  return n;
}

int lsock_getif(lua_State *L, int arg, int i, const char *name, unsigned *index) {
  char s[IF_NAMESIZE];
  lsock_getstr(L, arg, i, name, s, sizeof s - 1, LSOCK_STR_TEXT);
  *index = *s ? if_nametoindex(s) : 0;
  return *index != 0 || *s == '\0';
}

void lsock_pushif(lua_State *L, unsigned index) {
  char name[IF_NAMESIZE];
  lua_pushstring(L, index && if_indextoname(index, name) ? name : "");
}

void lsock_checkkeys(lua_State *L, int arg, const char *const keys[]) {
  lua_pushnil(L);
  while (lua_next(L, arg)) {
    int i = 0;
    lua_pop(L, 1);
    while (keys[i] && !(lua_type(L, -1) == LUA_TSTRING && strcmp(keys[i], lua_tostring(L, -1)) == 0)) i++;
    if (!keys[i]) luaL_argerror(L, arg, lua_pushfstring(L, "unknown option '%s'", luaL_tolstring(L, -1, NULL)));
  }
}

/* ---------------------------------------------------------------- internet addresses */

void lsock_sethost(lsock_Addr *a, const struct sockaddr *host) {
  if (host->sa_family == AF_INET)
    a->u.in.sin_addr = ((const struct sockaddr_in *)(const void *)host)->sin_addr;
  else {
    const struct sockaddr_in6 *h = (const struct sockaddr_in6 *)(const void *)host;
    a->u.in6.sin6_addr = h->sin6_addr;
    if (a->u.in6.sin6_scope_id == 0) a->u.in6.sin6_scope_id = h->sin6_scope_id;
  }
}

static int numeric_inet6(const char *host, lsock_Addr *a) {
  char plain[INET6_ADDRSTRLEN];
  const char *scope = strchr(host, '%');
  size_t n = scope ? (size_t)(scope - host) : strlen(host);
  unsigned id = 0;
  if (n >= sizeof plain) return 0;
  memcpy(plain, host, n);
  plain[n] = '\0';
  if (inet_pton(AF_INET6, plain, &a->u.in6.sin6_addr) != 1) return 0;
  if (scope) {
    char *end;
    id = if_nametoindex(scope + 1);
    if (id == 0) {
      unsigned long long v = strtoull(scope + 1, &end, 10);
      if (scope[1] < '0' || scope[1] > '9' || *end || v > UINT32_MAX) return 0; /* no sign, no space */
      id = (unsigned)v;
    }
    a->u.in6.sin6_scope_id = id;
  }
  return 1;
}

int lsock_numeric_host(const char *host, int family, lsock_Addr *a) {
  struct addrinfo hints = {0}, *res;
  if (family == AF_INET6) return numeric_inet6(host, a);
  if (inet_pton(AF_INET, host, &a->u.in.sin_addr) == 1) return 1;
  if (host[0] < '0' || host[0] > '9') return 0;
  hints.ai_family = AF_INET; /* the old forms of inet_aton(3): 127.1, 0x7f000001 */
  hints.ai_flags = AI_NUMERICHOST;
  if (getaddrinfo(host, NULL, &hints, &res) != 0) return 0;
  lsock_sethost(a, res->ai_addr);
  freeaddrinfo(res);
  return 1;
}

int lsock_islocalhost(const char *host) {
  static const char name[] = "localhost";
  size_t n = strlen(host), i = sizeof name - 1;
  if (n > 0 && host[n - 1] == '.') n--;
  while (i > 0 && n > 0 && (host[n - 1] | 32) == name[i - 1]) n--, i--; /* whatever its case */
  return i == 0 && (n == 0 || host[n - 1] == '.');
}

/* Hosts that need no lookup: "", <broadcast>, numbers, and localhost. */
static int known_host(const char *host, int family, lsock_Addr *a) {
  if (*host == '\0') return 1; /* zero already: INADDR_ANY, in6addr_any */
  if (family == AF_INET && strcmp(host, "<broadcast>") == 0) {
    a->u.in.sin_addr.s_addr = htonl(INADDR_BROADCAST);
    return 1;
  }
  if (!lsock_islocalhost(host)) return lsock_numeric_host(host, family, a);
  if (family == AF_INET)
    a->u.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  else
    a->u.in6.sin6_addr = in6addr_loopback;
  return 1;
}

/* As lsock_getaddr. */
static int get_host(lua_State *L, int arg, int family, lsock_Addr *a) {
  size_t n;
  int t = lsock_getitem(L, arg, 1, "host");
  if (t != LUA_TSTRING && family == AF_INET) {
    if (t != LUA_TNUMBER) bad_item(L, arg, "host", "a string or an integer");
    a->u.in.sin_addr.s_addr = htonl((uint32_t)lsock_getint(L, arg, 1, "host", 0, UINT32_MAX, 0));
    lua_pop(L, 1);
    return 0;
  }
  lua_pop(L, 1);
  if (!known_host(lsock_pushstr(L, arg, 1, "host", NI_MAXHOST - 1, LSOCK_STR_TEXT, &n), family, a)) return 1;
  lua_pop(L, 1);
  return 0;
}

void lsock_getscope(lua_State *L, int arg, lsock_Addr *a) {
  a->u.in6.sin6_flowinfo = htonl((uint32_t)lsock_getint(L, arg, 3, "flowinfo", 0, 0xFFFFF, 1));
  a->u.in6.sin6_scope_id = (uint32_t)lsock_getint(L, arg, 4, "scope_id", 0, UINT32_MAX, 1);
}

static int get_inet(lua_State *L, int arg, int family, lsock_Addr *a) {
  uint16_t port;
  luaL_checktype(L, arg, LUA_TTABLE);
  port = htons((uint16_t)lsock_getint(L, arg, 2, "port", 0, 65535, 0));
  if (family == AF_INET) {
    memset(&a->u.in, 0, sizeof a->u.in);
    a->len = sizeof a->u.in;
    a->u.in.sin_port = port;
  } else {
    memset(&a->u.in6, 0, sizeof a->u.in6);
    a->len = sizeof a->u.in6;
    a->u.in6.sin6_port = port;
    lsock_getscope(L, arg, a);
  }
  a->u.sa.sa_family = (sa_family_t)family;
  return get_host(L, arg, family, a);
}

/* A dotted quad, at a tenth of the cost of inet_ntop(3): every accept and recvfrom makes one. */
static void push_quad(lua_State *L, const struct in_addr *in) {
  const unsigned char *b = (const unsigned char *)in;
  char text[INET_ADDRSTRLEN], *p = text;
  int i;
  for (i = 0; i < 4; i++) {
    if (i > 0) *p++ = '.';
    if (b[i] >= 100) *p++ = (char)('0' + b[i] / 100);
    if (b[i] >= 10) *p++ = (char)('0' + b[i] / 10 % 10);
    *p++ = (char)('0' + b[i] % 10);
  }
  lua_pushlstring(L, text, (size_t)(p - text));
}

static void push_inet(lua_State *L, const lsock_Addr *a) {
  char host[INET6_ADDRSTRLEN];
  if (a->u.sa.sa_family == AF_INET) {
    lua_createtable(L, 2, 0);
    push_quad(L, &a->u.in.sin_addr);
    lua_rawseti(L, -2, 1);
    lua_pushinteger(L, ntohs(a->u.in.sin_port));
    lua_rawseti(L, -2, 2);
  } else {
    lua_createtable(L, 4, 0);
    lua_pushstring(L, inet_ntop(AF_INET6, &a->u.in6.sin6_addr, host, sizeof host));
    lua_rawseti(L, -2, 1);
    lua_pushinteger(L, ntohs(a->u.in6.sin6_port));
    lua_rawseti(L, -2, 2);
    lua_pushinteger(L, ntohl(a->u.in6.sin6_flowinfo));
    lua_rawseti(L, -2, 3);
    lua_pushinteger(L, a->u.in6.sin6_scope_id);
    lua_rawseti(L, -2, 4);
  }
}

/* ---------------------------------------------------------------- Unix addresses */

#define PATH_AT offsetof(struct sockaddr_un, sun_path)

static void get_unix(lua_State *L, int arg, lsock_Addr *a) {
  size_t len;
  const char *path;
  char item[sizeof a->u.un.sun_path];
  int abstract = 0;
  struct sockaddr_un *un = &a->u.un;
  if (lua_type(L, arg) == LUA_TTABLE) {
    len = lsock_getstr(L, arg, 1, "path", item, sizeof item, 0);
    path = item;
  } else
    path = luaL_checklstring(L, arg, &len);
#if defined(LSOCK_HAVE_ABSTRACT_UNIX)
  abstract = len == 0 || path[0] == '\0';
#endif
  if (!abstract && memchr(path, 0, len)) luaL_argerror(L, arg, "path contains a zero byte");
  if (len + !abstract > sizeof un->sun_path)
    luaL_argerror(L, arg, lua_pushfstring(L, "path is longer than %d bytes", (int)(sizeof un->sun_path - !abstract)));
  memset(un, 0, sizeof *un);
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, path, len);
  a->len = (socklen_t)(PATH_AT + len + !abstract);
}

static void push_unix(lua_State *L, const lsock_Addr *a) {
  const char *path = a->u.un.sun_path;
  size_t len = a->len > PATH_AT ? a->len - PATH_AT : 0;
  if (len > sizeof a->u.un.sun_path) len = sizeof a->u.un.sun_path;
  if (len > 0 && path[0] != '\0') len = strnlen(path, len);
#if !defined(LSOCK_HAVE_ABSTRACT_UNIX)
  else
    len = 0;
#endif
  lua_pushlstring(L, path, len);
}

/* ---------------------------------------------------------------- any address */

#define RAW_AT offsetof(struct sockaddr, sa_data)

static void get_raw(lua_State *L, int arg, int family, lsock_Addr *a) {
  size_t len;
  luaL_checktype(L, arg, LUA_TTABLE);
  lsock_getint(L, arg, 1, "family", family, family, 0);
  memset(&a->u.ss, 0, sizeof a->u.ss);
  len = lsock_getstr(L, arg, 2, "bytes", (char *)&a->u.ss + RAW_AT, sizeof a->u.ss - RAW_AT, 0);
  a->u.sa.sa_family = (sa_family_t)family;
  a->len = (socklen_t)(RAW_AT + len);
}

static void push_raw(lua_State *L, const lsock_Addr *a) {
  lua_createtable(L, 2, 0);
  lua_pushinteger(L, a->u.sa.sa_family);
  lua_rawseti(L, -2, 1);
  lua_pushlstring(L, (const char *)&a->u.ss + RAW_AT, a->len > RAW_AT ? a->len - RAW_AT : 0);
  lua_rawseti(L, -2, 2);
}

int lsock_getaddr(lua_State *L, int arg, int family, int proto, lsock_Addr *a) {
  const lsock_Family *f;
  if (family == AF_INET || family == AF_INET6) return get_inet(L, arg, family, a);
#if defined(AF_RDS)
  if (family == AF_RDS) return get_inet(L, arg, AF_INET, a); /* RDS runs over IPv4 and uses its addresses */
#endif
  if (family == AF_UNIX)
    get_unix(L, arg, a);
  else if ((f = lsock_findfamily(family, proto)) != NULL)
    lsock_getfamily(L, arg, f, a);
  else
    get_raw(L, arg, family, a);
  return 0;
}

/* Gives the address table on top the metatable of its form, made when first needed. */
static void set_meta(lua_State *L, int family, const char *const *fields);

void lsock_pushaddr(lua_State *L, int proto, const lsock_Addr *a) {
  const lsock_Family *f;
  int family = a->u.sa.sa_family;
  if (a->len < (socklen_t)RAW_AT)
    lua_pushnil(L);
  else if (family == AF_UNIX)
    push_unix(L, a);
  else if (family == AF_INET && a->len >= sizeof a->u.in) {
    push_inet(L, a);
    set_meta(L, family, inet_fields);
  } else if (family == AF_INET6 && a->len >= sizeof a->u.in6) {
    push_inet(L, a);
    set_meta(L, family, inet6_fields);
  } else if ((f = lsock_findfamily(family, proto)) != NULL) {
    lsock_pushfamily(L, f, a);
    if (lua_istable(L, -1)) set_meta(L, family, f->fields);
  } else {
    push_raw(L, a);
    set_meta(L, family, raw_fields);
  }
}

/* ---------------------------------------------------------------- address tables as Lua sees them */

static void push_item_text(lua_State *L, int idx) {
  switch (lua_type(L, idx)) {
    case LUA_TSTRING:
    case LUA_TNUMBER:
      lua_pushvalue(L, idx);
      lua_tostring(L, -1);
      break;
    default: lua_pushstring(L, luaL_typename(L, idx));
  }
}

/* "%eth0" after an IPv6 host with a scope (RFC 4007, section 11), else "". The host is on the stack. */
static void push_zone(lua_State *L, int idx, const char *host) {
  char name[IF_NAMESIZE];
  struct in6_addr in6;
  lua_Integer id = 0;
  if (inet_pton(AF_INET6, host, &in6) == 1) {
    lsock_getitem(L, idx, 4, "scope_id");
    id = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  if (id <= 0 || id > UINT32_MAX)
    lua_pushliteral(L, "");
  else if (if_indextoname((unsigned)id, name))
    lua_pushfstring(L, "%%%s", name);
  else
    lua_pushfstring(L, "%%%I", (LUAI_UACINT)id);
}

void lsock_pushaddrtext(lua_State *L, int idx) {
  int n, i;
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 12, "address");
  if (lua_type(L, idx) == LUA_TSTRING) {
    const char *path = lua_tostring(L, idx);
    if (*path == '\0' && lua_rawlen(L, idx) > 0)
      lua_pushfstring(L, "unix:@%s", path + 1);
    else
      lua_pushfstring(L, "unix:%s", path);
    return;
  }
  if (lua_type(L, idx) != LUA_TTABLE) {
    push_item_text(L, idx);
    return;
  }
  lua_pushliteral(L, "path");
  if (lua_rawget(L, idx) == LUA_TSTRING) {
    lsock_pushaddrtext(L, -1);
    lua_remove(L, -2);
    return;
  }
  lua_pop(L, 1);
  lsock_getitem(L, idx, 1, "host");
  lsock_getitem(L, idx, 2, "port");
  n = lua_gettop(L) - 1;
  if (lua_type(L, -2) == LUA_TSTRING && (lua_isstring(L, -1) || lua_isnil(L, -1))) {
    const char *host = lua_tostring(L, -2);
    push_zone(L, idx, host);
    lua_pushfstring(L, strchr(host, ':') ? "[%s%s]" : "%s%s", host, lua_tostring(L, -1));
    lua_replace(L, -2);
    if (lua_isstring(L, -2)) lua_pushfstring(L, "%s:%s", lua_tostring(L, -1), lua_tostring(L, -2));
    lua_copy(L, -1, n);
    lua_settop(L, n);
    return;
  }
  lua_pop(L, 2);
  n = (int)lua_rawlen(L, idx);
  if (n > 8) n = 8;
  lua_pushliteral(L, "{");
  for (i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, i);
    push_item_text(L, -1);
    lua_remove(L, -2);
    if (i < n) {
      lua_pushliteral(L, ", ");
      lua_concat(L, 3);
    } else
      lua_concat(L, 2);
  }
  lua_pushliteral(L, "}");
  lua_concat(L, 2);
}

static int addr_tostring(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lsock_pushaddrtext(L, 1);
  return 1;
}

/* addr.host, addr.port ...: upvalue 2 maps names to positions, 3 is the family */
static int addr_index(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_pushvalue(L, 2);
  if (lua_gettable(L, lua_upvalueindex(2)) == LUA_TNUMBER) {
    lua_rawgeti(L, 1, lua_tointeger(L, -1));
    return 1;
  }
  if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "family") != 0) return 0;
  lua_pushvalue(L, lua_upvalueindex(3));
  return 1;
}

/* addr.port = 81 is addr[2] = 81, which is what counts when the address is used again */
static int addr_newindex(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 3);
  lua_pushvalue(L, 2);
  if (lua_gettable(L, lua_upvalueindex(2)) == LUA_TNUMBER) lua_replace(L, 2);
  lua_settop(L, 3);
  lua_rawset(L, 1);
  return 0;
}

/* Equal items in equal places, and one family; a plain {host, port} may stand on either side. */
static int addr_eq(lua_State *L) {
  lua_Integer i, n;
  int same = lua_istable(L, 1) && lua_istable(L, 2) && lua_rawlen(L, 1) == lua_rawlen(L, 2);
  n = same ? (lua_Integer)lua_rawlen(L, 1) : 0;
  for (i = 1; same && i <= n; i++) {
    lua_rawgeti(L, 1, i);
    lua_rawgeti(L, 2, i);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (same) {
    lua_getfield(L, 1, "family");
    lua_getfield(L, 2, "family");
    same = lua_isnil(L, -1) || lua_isnil(L, -2) || lua_rawequal(L, -1, -2);
  }
  lua_pushboolean(L, same);
  return 1;
}

static void set_meta(lua_State *L, int family, const char *const *fields) {
  lsock_pushtable(L, LSOCK_UV_ADDR);
  if (lua_rawgetp(L, -1, fields) != LUA_TTABLE) {
    int i;
    lua_pop(L, 1);
    lua_createtable(L, 0, 5);
    lua_pushliteral(L, "socket address");
    lua_setfield(L, -2, "__name");
    lua_pushvalue(L, LSOCK_UP_CORE);
    lua_createtable(L, 0, 4);
    for (i = 0; fields[i]; i++) {
      lua_pushinteger(L, i + 1);
      lua_setfield(L, -2, fields[i]);
    }
    lua_pushvalue(L, LSOCK_UP_CORE);
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, addr_newindex, 2);
    lua_setfield(L, -4, "__newindex");
    lua_pushinteger(L, family);
    lua_pushcclosure(L, addr_index, 3);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, addr_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushcfunction(L, addr_eq);
    lua_setfield(L, -2, "__eq");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, -3, fields);
  }
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
}

void lsock_setfields(lua_State *L, const char *const *fields) {
  set_meta(L, AF_UNSPEC, fields);
}

/* ---------------------------------------------------------------- functions */

/*
** socket.packaddr(family, address [, proto]) -> bytes of the struct sockaddr, as socket options and ancillary data
** carry them. Hosts must be numeric.
*/
static int mod_packaddr(lua_State *L) {
  lsock_Addr a;
  int family = lsock_checkint(L, 1);
  luaL_argcheck(L, family >= 0 && family == (sa_family_t)family, 1, "not an address family");
  if (lsock_getaddr(L, 2, family, luaL_opt(L, lsock_checkint, 3, 0), &a))
    return luaL_argerror(L, 2, lua_pushfstring(L, "host must be numeric here, got '%s'", lua_tostring(L, -1)));
  luaL_argcheck(L, a.len > 0, 2, "no such interface");
  lua_pushlstring(L, (const char *)&a.u, a.len);
  return 1;
}

/* socket.unpackaddr(bytes [, proto]) -> address; bytes of a struct sockaddr */
static int mod_unpackaddr(lua_State *L) {
  lsock_Addr a;
  size_t len;
  const char *bytes = lsock_checkbytes(L, 1, &len);
  luaL_argcheck(L, len >= RAW_AT && len <= sizeof a.u, 1, "not a socket address");
  memset(&a.u, 0, sizeof a.u);
  memcpy(&a.u, bytes, len);
  a.len = (socklen_t)len;
  lsock_pushaddr(L, luaL_opt(L, lsock_checkint, 2, 0), &a);
  return 1;
}

static const lsock_Reg addr_functions[] = {{"packaddr", mod_packaddr}, {"unpackaddr", mod_unpackaddr}, {NULL, NULL}};

void lsock_open_addr(lua_State *L, int core) {
  lua_createtable(L, 0, 4);
  lua_setiuservalue(L, core, LSOCK_UV_ADDR);
  lsock_register(L, core, addr_functions);
}
