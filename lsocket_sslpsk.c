/*
** lsocket_sslpsk.c: keys that both ends know beforehand, instead of certificates.
*/
#include "lsocket_ssl.h"

#include <string.h>

#if !defined(OPENSSL_NO_PSK)

/* What OpenSSL asks a callback for. */
typedef struct Psk {
  const char *name; /* the server's hint to a client, or the client's identity; NULL: none */
  char *identity;   /* room for a client's; NULL at a server */
  size_t identity_max;
  unsigned char *key;
  size_t max, len;
} Psk;

/* In protected mode: function, Psk */
static int ask(lua_State *L) {
  Psk *p = lua_touserdata(L, 2);
  int client = p->identity != NULL;
  size_t n;
  const char *s;
  lua_settop(L, 1);
  lua_pushstring(L, p->name);
  lua_call(L, 1, client ? 2 : 1);
  if (lua_isnil(L, -1)) return 0; /* none for this peer */
  if (lua_type(L, -1) != LUA_TSTRING) return luaL_error(L, "a PSK must be a string, not a %s", luaL_typename(L, -1));
  s = lua_tolstring(L, -1, &n);
  if (n > p->max) return luaL_error(L, "the PSK is longer than %d bytes", (int)p->max);
  memcpy(p->key, s, n);
  p->len = n;
  if (!client) return 0;
  if (!lua_isnil(L, -2) && lua_type(L, -2) != LUA_TSTRING)
    return luaL_error(L, "a PSK's identity must be a string, not a %s", luaL_typename(L, -2));
  n = 0;
  s = lua_isnil(L, -2) ? "" : lua_tolstring(L, -2, &n);
  if (strlen(s) != n) return luaL_error(L, "the PSK's identity has a zero byte");
  if (n >= p->identity_max) return luaL_error(L, "the PSK's identity is too long");
  memcpy(p->identity, s, n + 1);
  return 0;
}

/* The key's length, 0 for none. */
static unsigned call(SSL *ssl, int uv, Psk *p) {
  lsock_Tls *t = SSL_get_app_data(ssl);
  lua_State *L = t ? t->L : NULL;
  int base, status;
  if (!L || !lsock_ctx_callback(t, uv, &base)) return 0;
  lua_pushcfunction(L, ask);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, p);
  status = lua_pcall(L, 2, 0, 0);
  ERR_clear_error(); /* as in lsocket_sslctx.c */
  if (status != LUA_OK) {
    p->len = 0;
    lsock_tls_throw(t, base);
  } else
    lua_settop(L, base);
  return t->doomed ? 0 : (unsigned)p->len;
}

/* NOLINTBEGIN(readability-non-const-parameter): OpenSSL has their types */
static unsigned on_client(SSL *ssl, const char *hint, char *identity, unsigned identity_max, unsigned char *key,
                          unsigned max) {
  Psk p = {hint, identity, identity_max, key, max, 0};
  return call(ssl, CTX_UV_PSK_CLIENT, &p);
}

static unsigned on_server(SSL *ssl, const char *identity, unsigned char *key, unsigned max) {
  Psk p = {identity, NULL, 0, key, max, 0};
  return call(ssl, CTX_UV_PSK_SERVER, &p);
}
/* NOLINTEND(readability-non-const-parameter) */

static void keep_function(lua_State *L, int uv) {
  luaL_argcheck(L, lua_isnil(L, 2) || lua_isfunction(L, 2), 2, "function or nil expected");
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, 1, uv);
}

/* c:set_psk_client_callback(function or nil) -> c; function(hint) -> identity, key, or nothing. The hint is TLS 1.2's */
static int ctx_psk_client(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  luaL_argcheck(L, c->protocol != PROTOCOL_TLS_SERVER, 1, "a server's context");
  lua_settop(L, 2);
  keep_function(L, CTX_UV_PSK_CLIENT);
  SSL_CTX_set_psk_client_callback(c->ctx, lua_isnil(L, 2) ? NULL : on_client);
  lua_settop(L, 1);
  return 1;
}

/* c:set_psk_server_callback(function or nil [, hint]) -> c; function(identity) -> key, or nothing */
static int ctx_psk_server(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  size_t n = 0;
  const char *hint = luaL_optlstring(L, 3, NULL, &n);
  luaL_argcheck(L, c->protocol != PROTOCOL_TLS_CLIENT, 1, "a client's context");
  luaL_argcheck(L, n <= PSK_MAX_IDENTITY_LEN && (!hint || strlen(hint) == n), 3,
                "a hint has at most 256 bytes, no zero among them");
  lua_settop(L, 3);
  keep_function(L, CTX_UV_PSK_SERVER);
  SSL_CTX_set_psk_server_callback(c->ctx, lua_isnil(L, 2) ? NULL : on_server);
  ERR_clear_error();
  if (!SSL_CTX_use_psk_identity_hint(c->ctx, hint)) return lsock_ssl_fail(L, "set_psk_server_callback", ENOMEM);
  lua_settop(L, 1);
  return 1;
}

const lsock_Reg lsock_psk_methods[] = {
    {"set_psk_client_callback", ctx_psk_client}, {"!set_psk_server_callback", ctx_psk_server}, {NULL, NULL}};
#else
const lsock_Reg lsock_psk_methods[] = {{NULL, NULL}};
#endif
