/*
** lsocket_inet.c: byte order, inet_*, interfaces, services and protocols, the host's own name.
*/
#include "lsocket_int.h"

#include <string.h>
#include <unistd.h>

static int fail(lua_State *L, int err, const char *op, const char *msg) {
  lsock_Fail f = {0};
  f.err = err;
  f.op = op;
  f.msg = msg;
  return lsock_fail(L, &f);
}

/* ---------------------------------------------------------------- byte order */

static lua_Integer check_range(lua_State *L, int arg, lua_Integer max) {
  lua_Integer v = luaL_checkinteger(L, arg);
  if (v < 0 || v > max)
    luaL_argerror(L, arg, lua_pushfstring(L, "must be 0-%I, got %I", (LUAI_UACINT)max, (LUAI_UACINT)v));
  return v;
}

static int mod_ntohl(lua_State *L) {
  lua_pushinteger(L, ntohl((uint32_t)check_range(L, 1, UINT32_MAX)));
  return 1;
}

static int mod_ntohs(lua_State *L) {
  lua_pushinteger(L, ntohs((uint16_t)check_range(L, 1, UINT16_MAX)));
  return 1;
}

/* ---------------------------------------------------------------- addresses as text and bytes */

/* socket.inet_aton(text) -> 4 bytes; whatever inet_aton(3) takes */
static int mod_inet_aton(lua_State *L) {
  struct in_addr a;
  const char *s = lsock_checkname(L, 1);
  if (!inet_aton(s, &a)) return fail(L, EINVAL, "inet_aton", "illegal IP address string");
  lua_pushlstring(L, (const char *)&a, sizeof a);
  return 1;
}

/* socket.inet_ntoa(bytes) -> dotted IPv4 address */
static int mod_inet_ntoa(lua_State *L) {
  char text[INET_ADDRSTRLEN];
  size_t len;
  const char *s = lsock_checkbytes(L, 1, &len);
  if (len != sizeof(struct in_addr)) return fail(L, EINVAL, "inet_ntoa", "packed IP address must be 4 bytes");
  lua_pushstring(L, inet_ntop(AF_INET, s, text, sizeof text));
  return 1;
}

/* socket.inet_pton(family, text) -> 4 or 16 bytes (inet_pton(3)) */
static int mod_inet_pton(lua_State *L) {
  unsigned char bytes[sizeof(struct in6_addr)];
  int family = lsock_checkint(L, 1);
  const char *s = lsock_checkname(L, 2);
  int r = inet_pton(family, s, bytes);
  if (r < 0) return fail(L, errno, "inet_pton", NULL);
  if (r == 0) return fail(L, EINVAL, "inet_pton", "illegal IP address string");
  lua_pushlstring(L, (const char *)bytes, family == AF_INET ? 4 : 16);
  return 1;
}

/* socket.inet_ntop(family, bytes) -> text (inet_ntop(3)); argument error for the wrong number of bytes */
static int mod_inet_ntop(lua_State *L) {
  char text[INET6_ADDRSTRLEN];
  int family = lsock_checkint(L, 1);
  size_t len;
  const char *s = lsock_checkbytes(L, 2, &len);
  if (family != AF_INET && family != AF_INET6) return fail(L, EAFNOSUPPORT, "inet_ntop", NULL);
  luaL_argcheck(L, len == (family == AF_INET ? 4u : 16u), 2, "packed IP address must be 4 bytes (IPv4) or 16 (IPv6)");
  lua_pushstring(L, inet_ntop(family, s, text, sizeof text));
  return 1;
}

/* ---------------------------------------------------------------- interfaces */

/* socket.if_nameindex() -> list of {index, name} (if_nameindex(3)) */
static int mod_if_nameindex(lua_State *L) {
  struct if_nameindex *list, *i;
  struct { /* a copy, as building the table may raise a memory error */
    unsigned index;
    char name[IF_NAMESIZE];
  } * copy;
  size_t n = 0, k;
  list = if_nameindex();
  if (!list) return fail(L, errno, "if_nameindex", NULL);
  for (i = list; i->if_index; i++) n++;
  if_freenameindex(list);
  copy = lua_newuserdatauv(L, (n + 8) * sizeof *copy, 0);
  list = if_nameindex();
  if (!list) return fail(L, errno, "if_nameindex", NULL);
  for (i = list, k = 0; i->if_index && k < n + 8; i++, k++) {
    copy[k].index = i->if_index;
    memcpy(copy[k].name, i->if_name, strnlen(i->if_name, IF_NAMESIZE - 1) + 1);
    copy[k].name[IF_NAMESIZE - 1] = '\0';
  }
  if_freenameindex(list);
  n = k;
  lua_createtable(L, (int)n, 0);
  for (k = 0; k < n; k++) {
    lua_createtable(L, 2, 0);
    lua_pushinteger(L, copy[k].index);
    lua_rawseti(L, -2, 1);
    lua_pushstring(L, copy[k].name);
    lua_rawseti(L, -2, 2);
    lua_rawseti(L, -2, (lua_Integer)k + 1);
  }
  return 1;
}

/* socket.if_nametoindex(name) -> index; ENODEV without such an interface */
static int mod_if_nametoindex(lua_State *L) {
  unsigned i = if_nametoindex(lsock_checkname(L, 1));
  if (i == 0) return fail(L, ENODEV, "if_nametoindex", "no interface with this name");
  lua_pushinteger(L, i);
  return 1;
}

/* socket.if_indextoname(index) -> name; ENXIO without such an interface */
static int mod_if_indextoname(lua_State *L) {
  char name[IF_NAMESIZE];
  if (!if_indextoname((unsigned)check_range(L, 1, UINT32_MAX), name))
    return fail(L, errno, "if_indextoname", "no interface with this index");
  lua_pushstring(L, name);
  return 1;
}

/* ---------------------------------------------------------------- services and protocols */

/* socket.getservbyname(name [, "tcp" | "udp"]) -> port */
static int mod_getservbyname(lua_State *L) {
  int port;
  const char *name = lsock_checkname(L, 1);
  const char *proto = lua_isnoneornil(L, 2) ? NULL : lsock_checkname(L, 2);
  if (lsock_plat_servbyname(name, proto, &port) < 0) return fail(L, ENOENT, "getservbyname", "service/proto not found");
  lua_pushinteger(L, port);
  return 1;
}

/* socket.getservbyport(port [, "tcp" | "udp"]) -> name */
static int mod_getservbyport(lua_State *L) {
  char name[NI_MAXSERV];
  int port = (int)check_range(L, 1, 65535);
  const char *proto = lua_isnoneornil(L, 2) ? NULL : lsock_checkname(L, 2);
  if (lsock_plat_servbyport(port, proto, name, sizeof name) < 0)
    return fail(L, ENOENT, "getservbyport", "port/proto not found");
  lua_pushstring(L, name);
  return 1;
}

/* socket.getprotobyname(name) -> number for the third argument of socket.socket */
static int mod_getprotobyname(lua_State *L) {
  int proto;
  if (lsock_plat_protobyname(lsock_checkname(L, 1), &proto) < 0)
    return fail(L, ENOENT, "getprotobyname", "protocol not found");
  lua_pushinteger(L, proto);
  return 1;
}

/* ---------------------------------------------------------------- this host */

static int mod_gethostname(lua_State *L) {
  char name[NI_MAXHOST];
  if (gethostname(name, sizeof name) < 0) return fail(L, errno, "gethostname", NULL);
  name[sizeof name - 1] = '\0';
  lua_pushstring(L, name);
  return 1;
}

/* socket.sethostname(name) -> true; needs privileges (sethostname(2)) */
static int mod_sethostname(lua_State *L) {
  const char *name = lsock_checkname(L, 1);
  int r = lsock_admit_other(L, "sethostname", "sethostname");
  if (r) return r;
  if (sethostname(name, strlen(name)) < 0) return fail(L, errno, "sethostname", NULL);
  lua_pushboolean(L, 1);
  return 1;
}

static const lsock_Reg inet_functions[] = {{"!gethostname", mod_gethostname},
                                           {"!getprotobyname", mod_getprotobyname},
                                           {"!getservbyname", mod_getservbyname},
                                           {"!getservbyport", mod_getservbyport},
                                           {"htonl", mod_ntohl}, /* the same swap both ways */
                                           {"htons", mod_ntohs},
                                           {"!if_indextoname", mod_if_indextoname},
                                           {"!if_nameindex", mod_if_nameindex},
                                           {"!if_nametoindex", mod_if_nametoindex},
                                           {"!inet_aton", mod_inet_aton},
                                           {"!inet_ntoa", mod_inet_ntoa},
                                           {"!inet_ntop", mod_inet_ntop},
                                           {"!inet_pton", mod_inet_pton},
                                           {"ntohl", mod_ntohl},
                                           {"ntohs", mod_ntohs},
                                           {"!sethostname", mod_sethostname},
                                           {NULL, NULL}};

void lsock_open_inet(lua_State *L, int core) {
  lsock_register(L, core, inet_functions);
}
