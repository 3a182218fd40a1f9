/*
** lsocket_sslalgo.c: which algorithms and protocols a context offers.
*/
#include "lsocket_ssl.h"

#include <string.h>

/* c:set_ciphers(list) -> c: of TLS 1.2, as openssl-ciphers(1) writes them */
static int ctx_set_ciphers(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  ERR_clear_error();
  if (!SSL_CTX_set_cipher_list(c->ctx, luaL_checkstring(L, 2))) return lsock_ssl_fail(L, "set_ciphers", EINVAL);
  lua_settop(L, 1);
  return 1;
}

/* c:set_ciphersuites(list) -> c: of TLS 1.3, names joined by colons */
static int ctx_set_ciphersuites(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  ERR_clear_error();
  if (!SSL_CTX_set_ciphersuites(c->ctx, luaL_checkstring(L, 2))) return lsock_ssl_fail(L, "set_ciphersuites", EINVAL);
  lua_settop(L, 1);
  return 1;
}

static int set_groups(lua_State *L, const char *op) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  const char *list = luaL_checkstring(L, 2);
  ERR_clear_error();
  if (!SSL_CTX_ctrl(c->ctx, SSL_CTRL_SET_GROUPS_LIST, 0, (void *)(uintptr_t)list)) return lsock_ssl_fail(L, op, EINVAL);
  lua_settop(L, 1);
  return 1;
}

/* c:set_groups(list) -> c: names joined by colons; c:set_ecdh_curve(name) -> c */
static int ctx_set_groups(lua_State *L) {
  return set_groups(L, "set_groups");
}

static int ctx_set_curve(lua_State *L) {
  return set_groups(L, "set_ecdh_curve");
}

int lsock_ssl_ciphers(const STACK_OF(SSL_CIPHER) * from, const SSL_CIPHER **list) {
  int i, k, n = 0;
  for (i = 0; i < sk_SSL_CIPHER_num(from) && n < TLS_CIPHERS; i++) {
    list[n] = sk_SSL_CIPHER_value(from, i);
    for (k = 0; list[k] != list[n]; k++) {}
    n += k == n;
  }
  return n;
}

static void set_nid(lua_State *L, int nid, const char *key) {
  if (nid == NID_undef) return;
  lua_pushstring(L, OBJ_nid2ln(nid));
  lua_setfield(L, -2, key);
}

/* c:get_ciphers() -> list of {name=, protocol=, id=, description=, strength_bits=, alg_bits=, aead=, symmetric= ...} */
static int ctx_get_ciphers(lua_State *L) {
  const SSL_CIPHER *list[TLS_CIPHERS];
  char text[512];
  int i, bits, n = lsock_ssl_ciphers(SSL_CTX_get_ciphers(lsock_checkctx(L, 1)->ctx), list);
  lua_createtable(L, n, 0);
  for (i = 0; i < n; i++) {
    const SSL_CIPHER *c = list[i];
    lua_createtable(L, 0, 11);
    lua_pushstring(L, SSL_CIPHER_get_name(c));
    lua_setfield(L, -2, "name");
    lua_pushstring(L, SSL_CIPHER_get_version(c));
    lua_setfield(L, -2, "protocol");
    lua_pushinteger(L, (lua_Integer)SSL_CIPHER_get_id(c));
    lua_setfield(L, -2, "id");
    if (SSL_CIPHER_description(c, text, sizeof text)) {
      lua_pushlstring(L, text, strcspn(text, "\n"));
      lua_setfield(L, -2, "description");
    }
    lua_pushinteger(L, SSL_CIPHER_get_bits(c, &bits));
    lua_setfield(L, -2, "strength_bits");
    lua_pushinteger(L, bits);
    lua_setfield(L, -2, "alg_bits");
    lua_pushboolean(L, SSL_CIPHER_is_aead(c));
    lua_setfield(L, -2, "aead");
    set_nid(L, SSL_CIPHER_get_cipher_nid(c), "symmetric");
    set_nid(L, SSL_CIPHER_get_digest_nid(c), "digest");
    set_nid(L, SSL_CIPHER_get_kx_nid(c), "kea");
    set_nid(L, SSL_CIPHER_get_auth_nid(c), "auth");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* c:set_alpn_protocols(list) -> c: the first that the client also has is used */
static int ctx_set_alpn(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  unsigned char *wire, *own;
  size_t at = 0, len = 0;
  lua_Integer i, n;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  n = (lua_Integer)lua_rawlen(L, 2);
  for (i = 1; i <= n; i++) {
    if (lua_rawgeti(L, 2, i) != LUA_TSTRING) return luaL_argerror(L, 2, "list of strings expected");
    luaL_argcheck(L, lua_rawlen(L, -1) > 0 && lua_rawlen(L, -1) < 256, 2, "a protocol's name has 1-255 bytes");
    len += 1 + lua_rawlen(L, -1);
    luaL_argcheck(L, len <= 65535, 2, "too many protocols");
    lua_pop(L, 1);
  }
  wire = lua_newuserdatauv(L, len, 0);
  for (i = 1; i <= n; i++) { /* from here on nothing else runs, but that may have changed the list */
    size_t k = lua_rawgeti(L, 2, i) == LUA_TSTRING ? lua_rawlen(L, -1) : 0;
    luaL_argcheck(L, k > 0 && k < 256 && k < len - at, 2, "changed meanwhile");
    wire[at] = (unsigned char)k;
    memcpy(wire + at + 1, lua_tostring(L, -1), k);
    at += 1 + k;
    lua_pop(L, 1);
  }
  own = at ? OPENSSL_memdup(wire, at) : NULL;
  if ((at && !own) || SSL_CTX_set_alpn_protos(c->ctx, own, (unsigned)at) != 0) {
    OPENSSL_free(own);
    return luaL_error(L, "not enough memory");
  }
  OPENSSL_free(c->alpn);
  c->alpn = own;
  c->alpn_len = (unsigned)at;
  lua_setiuservalue(L, 1, CTX_UV_ALPN);
  lua_settop(L, 1);
  return 1;
}

const lsock_Reg lsock_algo_methods[] = {{"get_ciphers", ctx_get_ciphers},
                                        {"set_alpn_protocols", ctx_set_alpn},
                                        {"!set_ciphers", ctx_set_ciphers},
                                        {"!set_ciphersuites", ctx_set_ciphersuites},
                                        {"!set_ecdh_curve", ctx_set_curve},
                                        {"!set_groups", ctx_set_groups},
                                        {NULL, NULL}};
