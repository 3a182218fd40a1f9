/*
** lsocket_sslopt.c: the options of wrap_socket and wrap_bio, and what can be a server_hostname.
*/
#include "lsocket_ssl.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

/* OpenSSL's own reading stops where it has enough. */
size_t lsock_tls_address(const char *host, unsigned char *bytes) {
  if (inet_pton(AF_INET, host, bytes) == 1) return 4;
  return inet_pton(AF_INET6, host, bytes) == 1 ? 16 : 0;
}

const char *lsock_tls_badhost(const char *host) {
  unsigned char bytes[16];
  const char *p;
  if (!*host || *host == '.') return "server_hostname is empty or begins with a dot";
  if (strlen(host) > TLSEXT_MAXLEN_host_name) return "server_hostname is too long";
  for (p = host; *p; p++)
    if ((unsigned char)*p >= 128) return "server_hostname is not ASCII; the name in its form xn--... is needed";
  if (lsock_tls_address(host, bytes)) return NULL;
  for (p = host; *p; p++)
    if (!isalnum((unsigned char)*p) && !strchr("-._", *p)) return "server_hostname is neither a name nor an address";
  return NULL;
}

static int option(lua_State *L, int arg, const char *key, int def) {
  int v = def;
  if (lua_getfield(L, arg, key) != LUA_TNIL) v = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return v;
}

/* The name the peer must prove, at stack index `host`. */
static void check_host(lua_State *L, int arg, int host) {
  size_t len;
  const char *s, *bad;
  if (lua_type(L, host) != LUA_TSTRING) luaL_argerror(L, arg, "server_hostname must be a string");
  s = lua_tolstring(L, host, &len);
  luaL_argcheck(L, strlen(s) == len, arg, "server_hostname has a zero byte");
  bad = lsock_tls_badhost(s);
  if (bad) luaL_argerror(L, arg, bad);
}

void lsock_wrap_options(lua_State *L, int arg, lsock_Wrap *w, const char *const keys[]) {
  const lsock_Ctx *c = lua_touserdata(L, w->ctx);
  w->host = w->session = w->received = w->server = 0;
  w->suppress = w->handshake = 1;
  if (!lua_isnoneornil(L, arg)) {
    luaL_checktype(L, arg, LUA_TTABLE);
    lsock_checkkeys(L, arg, keys);
    w->server = option(L, arg, "server_side", 0);
    w->suppress = option(L, arg, "suppress_ragged_eofs", 1);
    w->handshake = option(L, arg, "do_handshake_on_connect", 1);
    if (lua_getfield(L, arg, "server_hostname") != LUA_TNIL) {
      w->host = lua_gettop(L);
      check_host(L, arg, w->host);
    }
    if (lua_getfield(L, arg, "session") != LUA_TNIL) w->session = lua_gettop(L);
    if (lua_getfield(L, arg, "received") != LUA_TNIL) {
      w->received = lua_gettop(L);
      if (lua_type(L, -1) != LUA_TSTRING && !lsock_object(L, -1, LSOCK_KIND_BUFFER, sizeof(uintptr_t)))
        luaL_argerror(L, arg, "received must be a string or a buffer");
    }
  }
  luaL_argcheck(L, !w->server || c->protocol != PROTOCOL_TLS_CLIENT, 1, "a client's context cannot serve");
  luaL_argcheck(L, w->server || c->protocol != PROTOCOL_TLS_SERVER, 1, "a server's context needs server_side");
  luaL_argcheck(L, !w->server || !w->host, arg, "server_hostname is for clients");
  luaL_argcheck(L, !w->server || !w->session, arg, "session is for clients");
  luaL_argcheck(L, w->server || w->host || !c->check_hostname, arg, "check_hostname needs server_hostname");
}
