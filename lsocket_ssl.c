/*
** lsocket_ssl.c: the module socket.ssl: its functions, constants, and opening.
*/
#include "lsocket_ssl.h"

#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Exported from the library, like the core's. */
LSOCKET_API int luaopen_socket_ssl(lua_State *L);

/* ---------------------------------------------------------------- shared by the library's files */

struct lsock_Held {
  void *p;
  int kind;
  unsigned next; /* of the free ones */
};

unsigned lsock_ssl_hold(lsock_Ssl *st, void *p, int kind) {
  unsigned i;
  if (!p || st->ended) return 0;
  if (!st->held_free) {
    unsigned size = st->held_size ? st->held_size * 2 : 16;
    struct lsock_Held *held = OPENSSL_realloc(st->held, size * sizeof *held);
    if (!held) return 0;
    for (i = size; i > st->held_size; i--) { /* the lowest is the first to be used */
      held[i - 1].p = NULL;
      held[i - 1].next = st->held_free;
      st->held_free = i;
    }
    st->held = held;
    st->held_size = size;
  }
  i = st->held_free;
  st->held_free = st->held[i - 1].next;
  st->held[i - 1].p = p;
  st->held[i - 1].kind = kind;
  return i;
}

void lsock_ssl_release(lsock_Ssl *st, unsigned place) {
  if (!place || st->ended) return;
  st->held[place - 1].p = NULL;
  st->held[place - 1].next = st->held_free;
  st->held_free = place;
}

static void free_held(lsock_Ssl *st) {
  unsigned i;
  st->ended = 1;
  for (i = 0; i < st->held_size; i++) {
    void *p = st->held[i].p;
    if (!p) continue;
    switch (st->held[i].kind) {
      case TLS_HELD_CTX: SSL_CTX_free(p); break;
      case TLS_HELD_SSL: SSL_free(p); break;
      case TLS_HELD_SESSION: SSL_SESSION_free(p); break;
      case TLS_HELD_BIO: BIO_free(p); break;
      default: close((int)((intptr_t)p - 1)); break;
    }
  }
  OPENSSL_free(st->held);
  st->held = NULL;
  st->held_size = st->held_free = 0;
}

void lsock_ssl_charge(lua_State *L, size_t bytes) {
  if (lua_gc(L, LUA_GCISRUNNING)) lua_gc(L, LUA_GCSTEP, (int)(bytes / 1024));
}

#define PACE 262144

void lsock_ssl_pace(lua_State *L) {
  lsock_Ssl *st = lsock_ssl(L);
  size_t grown = st->queued - st->paced;
  if (grown < PACE) return;
  st->paced = st->queued;
  lsock_ssl_charge(L, grown);
}

void lsock_ssl_setmeta(lua_State *L, int meta) {
  if (lsock_ssl(L)->ended) luaL_error(L, "the state is being closed"); /* by a finalizer older than this library */
  lsock_pushcore(L, LSOCK_UV_TLS);
  if (!lsock_object(L, -1, LSOCK_KIND_SSL, sizeof(lsock_SslState))) lsock_tampered(L);
  if (lua_getiuservalue(L, -1, meta) != LUA_TTABLE) lsock_tampered(L);
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
}

void lsock_ssl_newmeta(lua_State *L, int core, const char *name, const lsock_Reg *regs) {
  const lsock_Core *c = lua_touserdata(L, core);
  lua_createtable(L, 0, 6);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  c->api->do_register(L, core, regs);
}

/* ---------------------------------------------------------------- functions */

/* ssl.RAND_bytes(n) -> n random bytes that nobody can guess */
static int mod_rand_bytes(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_Buffer b;
  unsigned char *p;
  luaL_argcheck(L, n >= 0 && n <= 1 << 24, 1, "0-16777216 expected");
  p = (unsigned char *)luaL_buffinitsize(L, &b, (size_t)n);
  ERR_clear_error();
  if (RAND_bytes(p, (int)n) != 1) return lsock_ssl_fail(L, "RAND_bytes", 0);
  luaL_pushresultsize(&b, (size_t)n);
  return 1;
}

/* ssl.RAND_status() -> is the generator seeded? */
static int mod_rand_status(lua_State *L) {
  lua_pushboolean(L, RAND_status() == 1);
  return 1;
}

#define PEM_BEGIN "-----BEGIN CERTIFICATE-----\n"
#define PEM_END "-----END CERTIFICATE-----\n"

static int push_pem(lua_State *L, const unsigned char *p, size_t len) {
  luaL_Buffer b;
  size_t i;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, PEM_BEGIN);
  for (i = 0; i < len; i += 48) { /* 64 letters a line */
    char *line = luaL_prepbuffsize(&b, 72);
    int n = EVP_EncodeBlock((unsigned char *)line, p + i, (int)(len - i < 48 ? len - i : 48));
    line[n] = '\n';
    luaL_addsize(&b, (size_t)n + 1);
  }
  luaL_addstring(&b, PEM_END);
  luaL_pushresult(&b);
  return 1;
}

/* ssl.DER_cert_to_PEM_cert(bytes) -> text */
static int mod_der_to_pem(lua_State *L) {
  size_t len;
  const char *p = lsock_checkbytes(L, 1, &len);
  return push_pem(L, (const unsigned char *)p, len);
}

/* ssl.PEM_cert_to_DER_cert(text) -> bytes of its first certificate */
static int mod_pem_to_der(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  ERR_clear_error();
  luaL_argcheck(L, lsock_x509_pem_to_der(L, s, len), 1, "not a certificate in PEM");
  return 1;
}

/* `n` digits, the first perhaps a space; -1 if they are none. */
static int digits(const char *s, int n) {
  int i, v = 0;
  for (i = 0; i < n; i++) {
    if (i == 0 && s[i] == ' ' && n == 2) continue;
    if (s[i] < '0' || s[i] > '9') return -1;
    v = v * 10 + (s[i] - '0');
  }
  return v;
}

/* ssl.cert_time_to_seconds("Jan  5 09:34:43 2018 GMT") -> seconds since 1970 */
static int mod_cert_time(lua_State *L) {
  static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  size_t len;
  const char *s = luaL_checklstring(L, 1, &len);
  int ok = len == 24 && s[3] == ' ' && s[6] == ' ' && s[9] == ':' && s[12] == ':' && s[15] == ' ';
  int month = 0, day, hour, minute, second, year;
  lua_Integer t;
  luaL_argcheck(L, ok && strcasecmp(s + 20, " GMT") == 0, 1, "not like 'Jan  5 09:34:43 2018 GMT'");
  while (month < 12 && strncasecmp(&months[(size_t)month * 3], s, 3) != 0) month++;
  day = digits(s + 4, 2);
  hour = digits(s + 7, 2);
  minute = digits(s + 10, 2);
  second = digits(s + 13, 2);
  year = digits(s + 16, 4);
  ok = month < 12 && day >= 1 && day <= 31 && hour >= 0 && hour <= 23 && minute >= 0 && minute <= 59;
  luaL_argcheck(L, ok && second >= 0 && second <= 61 && year >= 0, 1, "not a time");
  if (month < 2) year--; /* days since 1970 in the Gregorian calendar, its years beginning in March */
  t = (lua_Integer)365 * year + year / 4 - year / 100 + year / 400;
  t += (153 * ((month + 10) % 12) + 2) / 5 + day - 719469;
  t = ((t * 24 + hour) * 60 + minute) * 60 + second;
  lua_pushinteger(L, t);
  return 1;
}

/* Sets the path in use, if it is there. */
static void set_path(lua_State *L, const char *key, const char *env, const char *path) {
  const char *given = getenv(env);
  if (given) path = given;
  if (access(path, F_OK) != 0) return;
  lua_pushstring(L, path);
  lua_setfield(L, -2, key);
}

/* ssl.get_default_verify_paths() -> {cafile=, capath=, openssl_cafile=, openssl_capath=, ..._env=} */
static int mod_verify_paths(lua_State *L) {
  lua_createtable(L, 0, 6);
  set_path(L, "cafile", X509_get_default_cert_file_env(), X509_get_default_cert_file());
  set_path(L, "capath", X509_get_default_cert_dir_env(), X509_get_default_cert_dir());
  lua_pushstring(L, X509_get_default_cert_file());
  lua_setfield(L, -2, "openssl_cafile");
  lua_pushstring(L, X509_get_default_cert_dir());
  lua_setfield(L, -2, "openssl_capath");
  lua_pushstring(L, X509_get_default_cert_file_env());
  lua_setfield(L, -2, "openssl_cafile_env");
  lua_pushstring(L, X509_get_default_cert_dir_env());
  lua_setfield(L, -2, "openssl_capath_env");
  return 1;
}

/* Calls the function below `n` arguments, which may yield; the continuation finds its result, or nil and an error. */
static int call_on(lua_State *L, int n, lua_KFunction next) {
  lua_callk(L, n, 2, 0, next);
  return next(L, LUA_OK, 0);
}

/* Pushes that field of the table or object at arg, in its try_ form if the running function is one. */
static void push_form(lua_State *L, int arg, const char *name) {
  int object = lua_absindex(L, arg);
  lua_pushfstring(L, lua_toboolean(L, LSOCK_UP_TRY) ? "try_%s" : "%s", name);
  lua_gettable(L, object);
}

/* The TLS socket is at 5. */
static int server_shaken(lua_State *L, int status, lua_KContext ctx) {
  const lsock_Tls *t;
  X509 *x;
  const char *der;
  size_t len;
  (void)status;
  (void)ctx;
  if (lua_isnil(L, 5)) return 2;
  lua_settop(L, 5);
  lua_toclose(L, 5);
  t = lsock_checktls(L, 5);
  x = t->ssl ? SSL_get0_peer_certificate(t->ssl) : NULL;
  if (!x) return luaL_error(L, "the server has no certificate");
  lsock_x509_pushder(L, x);
  der = lua_tolstring(L, -1, &len);
  return push_pem(L, (const unsigned char *)der, len);
}

/* The plain one is at 4. */
static int server_connected(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  (void)ctx;
  if (lua_isnil(L, 4)) return 2;
  lua_settop(L, 4);
  lua_toclose(L, 4);
  push_form(L, 3, "wrap_socket");
  lua_pushvalue(L, 3);
  lua_pushvalue(L, 4);
  lua_newtable(L);
  if (lua_rawgeti(L, 1, 1) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_getfield(L, 1, "host");
  }
  if (lua_type(L, -1) == LUA_TSTRING && !lsock_tls_badhost(lua_tostring(L, -1))) /* one with a zone is no name */
    lua_setfield(L, -2, "server_hostname");
  else
    lua_pop(L, 1);
  return call_on(L, 3, server_shaken);
}

/* ssl.get_server_certificate(address [, {ca_certs=, timeout=}]) -> PEM text; verified only with ca_certs */
static int mod_server_certificate(lua_State *L) {
  static const char *const keys[] = {"ca_certs", "timeout", NULL};
  lsock_Ctx *c;
  lua_settop(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  lsock_checkkeys(L, 2, keys);
  c = lsock_newctx(L, PROTOCOL_TLS_CLIENT); /* 3 */
  c->check_hostname = 0;
  if (lua_getfield(L, 2, "ca_certs") == LUA_TNIL)
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_NONE, NULL);
  else {
    int r = lsock_ctx_loadlocations(L, 3, luaL_checkstring(L, -1), NULL, NULL, 0, "get_server_certificate");
    if (r) return r;
  }
  lua_settop(L, 3);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "socket") != LUA_TTABLE) return luaL_error(L, "the module socket is not in package.loaded");
  push_form(L, -1, "create_connection");
  lua_replace(L, 4);
  lua_settop(L, 4);
  lua_pushvalue(L, 1);
  lua_getfield(L, 2, "timeout");
  return call_on(L, 2, server_connected);
}

/*
** socket.ssl(sock [, keyfile [, certfile]]) -> TLS object with read([n]) and write(bytes). It verifies nothing: whoever
** sits in between can read and change everything. create_default_context():wrap_socket() is what keeps them out
*/
static int mod_call(lua_State *L) {
  lsock_Ctx *c;
  lsock_Wrap w = {0};
  const char *key, *cert;
  lua_settop(L, 4);
  key = luaL_optstring(L, 3, NULL);
  cert = luaL_optstring(L, 4, NULL);
  luaL_argcheck(L, !key == !cert, 3, "keyfile and certfile are needed together");
  c = lsock_newctx(L, PROTOCOL_TLS_CLIENT);
  c->check_hostname = 0;
  SSL_CTX_set_verify(c->ctx, SSL_VERIFY_NONE, NULL);
  w.ctx = lua_gettop(L);
  w.suppress = w.handshake = 1;
  if (cert) {
    int r = lsock_ctx_loadchain(L, c, cert, key, 0, "ssl");
    if (r) return r;
  }
  return lsock_wrap(L, 2, &w, 1, "ssl");
}

/* ---------------------------------------------------------------- constants */

static const struct {
  const char *name;
  lua_Integer value;
} constants[] = {{"CERT_NONE", 0},
                 {"CERT_OPTIONAL", 1},
                 {"CERT_REQUIRED", 2},
                 {"PROTOCOL_TLS", PROTOCOL_TLS},
                 {"PROTOCOL_TLS_CLIENT", PROTOCOL_TLS_CLIENT},
                 {"PROTOCOL_TLS_SERVER", PROTOCOL_TLS_SERVER},
                 {"VERIFY_DEFAULT", 0},
                 {"VERIFY_CRL_CHECK_LEAF", X509_V_FLAG_CRL_CHECK},
                 {"VERIFY_CRL_CHECK_CHAIN", X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL},
                 {"VERIFY_X509_STRICT", X509_V_FLAG_X509_STRICT},
                 {"VERIFY_ALLOW_PROXY_CERTS", X509_V_FLAG_ALLOW_PROXY_CERTS},
                 {"VERIFY_X509_TRUSTED_FIRST", X509_V_FLAG_TRUSTED_FIRST},
                 {"VERIFY_X509_PARTIAL_CHAIN", X509_V_FLAG_PARTIAL_CHAIN},
                 {"OP_ALL", (lua_Integer)SSL_OP_ALL},
                 {"OP_NO_SSLv2", 0},
                 {"OP_NO_SSLv3", (lua_Integer)SSL_OP_NO_SSLv3},
                 {"OP_NO_TLSv1", (lua_Integer)SSL_OP_NO_TLSv1},
                 {"OP_NO_TLSv1_1", (lua_Integer)SSL_OP_NO_TLSv1_1},
                 {"OP_NO_TLSv1_2", (lua_Integer)SSL_OP_NO_TLSv1_2},
                 {"OP_NO_TLSv1_3", (lua_Integer)SSL_OP_NO_TLSv1_3},
                 {"OP_CIPHER_SERVER_PREFERENCE", (lua_Integer)SSL_OP_CIPHER_SERVER_PREFERENCE},
                 {"OP_SINGLE_DH_USE", (lua_Integer)SSL_OP_SINGLE_DH_USE},
                 {"OP_SINGLE_ECDH_USE", (lua_Integer)SSL_OP_SINGLE_ECDH_USE},
                 {"OP_NO_TICKET", (lua_Integer)SSL_OP_NO_TICKET},
                 {"OP_NO_COMPRESSION", (lua_Integer)SSL_OP_NO_COMPRESSION},
                 {"OP_NO_RENEGOTIATION", (lua_Integer)SSL_OP_NO_RENEGOTIATION},
                 {"OP_ENABLE_MIDDLEBOX_COMPAT", (lua_Integer)SSL_OP_ENABLE_MIDDLEBOX_COMPAT},
                 {"OP_IGNORE_UNEXPECTED_EOF", (lua_Integer)SSL_OP_IGNORE_UNEXPECTED_EOF},
                 {"OP_ENABLE_KTLS", (lua_Integer)SSL_OP_ENABLE_KTLS},
                 {"OP_LEGACY_SERVER_CONNECT", (lua_Integer)SSL_OP_LEGACY_SERVER_CONNECT},
                 {"SSL_ERROR_SSL", SSL_ERROR_SSL},
                 {"SSL_ERROR_WANT_READ", SSL_ERROR_WANT_READ},
                 {"SSL_ERROR_WANT_WRITE", SSL_ERROR_WANT_WRITE},
                 {"SSL_ERROR_WANT_X509_LOOKUP", SSL_ERROR_WANT_X509_LOOKUP},
                 {"SSL_ERROR_SYSCALL", SSL_ERROR_SYSCALL},
                 {"SSL_ERROR_ZERO_RETURN", SSL_ERROR_ZERO_RETURN},
                 {"SSL_ERROR_WANT_CONNECT", SSL_ERROR_WANT_CONNECT},
                 {"SSL_ERROR_EOF", 8},
                 {"ALERT_DESCRIPTION_CLOSE_NOTIFY", SSL_AD_CLOSE_NOTIFY},
                 {"ALERT_DESCRIPTION_UNEXPECTED_MESSAGE", SSL_AD_UNEXPECTED_MESSAGE},
                 {"ALERT_DESCRIPTION_BAD_RECORD_MAC", SSL_AD_BAD_RECORD_MAC},
                 {"ALERT_DESCRIPTION_RECORD_OVERFLOW", SSL_AD_RECORD_OVERFLOW},
                 {"ALERT_DESCRIPTION_DECOMPRESSION_FAILURE", SSL_AD_DECOMPRESSION_FAILURE},
                 {"ALERT_DESCRIPTION_HANDSHAKE_FAILURE", SSL_AD_HANDSHAKE_FAILURE},
                 {"ALERT_DESCRIPTION_BAD_CERTIFICATE", SSL_AD_BAD_CERTIFICATE},
                 {"ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE", SSL_AD_UNSUPPORTED_CERTIFICATE},
                 {"ALERT_DESCRIPTION_CERTIFICATE_REVOKED", SSL_AD_CERTIFICATE_REVOKED},
                 {"ALERT_DESCRIPTION_CERTIFICATE_EXPIRED", SSL_AD_CERTIFICATE_EXPIRED},
                 {"ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN", SSL_AD_CERTIFICATE_UNKNOWN},
                 {"ALERT_DESCRIPTION_ILLEGAL_PARAMETER", SSL_AD_ILLEGAL_PARAMETER},
                 {"ALERT_DESCRIPTION_UNKNOWN_CA", SSL_AD_UNKNOWN_CA},
                 {"ALERT_DESCRIPTION_ACCESS_DENIED", SSL_AD_ACCESS_DENIED},
                 {"ALERT_DESCRIPTION_DECODE_ERROR", SSL_AD_DECODE_ERROR},
                 {"ALERT_DESCRIPTION_DECRYPT_ERROR", SSL_AD_DECRYPT_ERROR},
                 {"ALERT_DESCRIPTION_PROTOCOL_VERSION", SSL_AD_PROTOCOL_VERSION},
                 {"ALERT_DESCRIPTION_INSUFFICIENT_SECURITY", SSL_AD_INSUFFICIENT_SECURITY},
                 {"ALERT_DESCRIPTION_INTERNAL_ERROR", SSL_AD_INTERNAL_ERROR},
                 {"ALERT_DESCRIPTION_USER_CANCELLED", SSL_AD_USER_CANCELLED},
                 {"ALERT_DESCRIPTION_NO_RENEGOTIATION", SSL_AD_NO_RENEGOTIATION},
                 {"ALERT_DESCRIPTION_UNSUPPORTED_EXTENSION", SSL_AD_UNSUPPORTED_EXTENSION},
                 {"ALERT_DESCRIPTION_CERTIFICATE_UNOBTAINABLE", SSL_AD_CERTIFICATE_UNOBTAINABLE},
                 {"ALERT_DESCRIPTION_UNRECOGNIZED_NAME", SSL_AD_UNRECOGNIZED_NAME},
                 {"ALERT_DESCRIPTION_BAD_CERTIFICATE_STATUS_RESPONSE", SSL_AD_BAD_CERTIFICATE_STATUS_RESPONSE},
                 {"ALERT_DESCRIPTION_BAD_CERTIFICATE_HASH_VALUE", SSL_AD_BAD_CERTIFICATE_HASH_VALUE},
                 {"ALERT_DESCRIPTION_UNKNOWN_PSK_IDENTITY", SSL_AD_UNKNOWN_PSK_IDENTITY}};

static const struct {
  const char *name;
  int value;
} versions[] = {{"MINIMUM_SUPPORTED", -2},  {"MAXIMUM_SUPPORTED", -1},   {"SSLv3", SSL3_VERSION},
                {"TLSv1", TLS1_VERSION},    {"TLSv1_1", TLS1_1_VERSION}, {"TLSv1_2", TLS1_2_VERSION},
                {"TLSv1_3", TLS1_3_VERSION}};

#if defined(OPENSSL_NO_PSK)
#define HAS_PSK 0
#else
#define HAS_PSK 1
#endif
static const struct {
  const char *name;
  int value;
} features[] = {{"HAS_ALPN", 1},   {"HAS_ECDH", 1},    {"HAS_NEVER_CHECK_COMMON_NAME", 1},
                {"HAS_NPN", 0},    {"HAS_PHA", 1},     {"HAS_PSK", HAS_PSK},
                {"HAS_SNI", 1},    {"HAS_SSLv2", 0},   {"HAS_SSLv3", 0},
                {"HAS_TLSv1", 1},  {"HAS_TLSv1_1", 1}, {"HAS_TLSv1_2", 1},
                {"HAS_TLSv1_3", 1}};

/* Python's enumerations: the constants once more, in tables of their own. */
static const struct {
  const char *name, *prefix;
} enumerations[] = {{"AlertDescription", "ALERT_DESCRIPTION_"},
                    {"Options", "OP_"},
                    {"SSLErrorNumber", "SSL_ERROR_"},
                    {"VerifyFlags", "VERIFY_"},
                    {"VerifyMode", "CERT_"}};

static void add_enumeration(lua_State *L, const char *name, const char *prefix) {
  size_t i;
  lua_newtable(L);
  for (i = 0; i < LSOCK_COUNT(constants); i++)
    if (strncmp(constants[i].name, prefix, strlen(prefix)) == 0) {
      lua_pushinteger(L, constants[i].value);
      lua_setfield(L, -2, constants[i].name);
    }
  lua_setfield(L, -2, name);
}

/* {major, minor, fix, patch, status} */
static void add_version(lua_State *L) {
  unsigned long v = OpenSSL_version_num();
  int i;
  lua_createtable(L, 5, 0);
  for (i = 0; i < 5; i++) {
    lua_pushinteger(L, i < 4 ? (lua_Integer)(v >> (28 - 8 * i) & 0xff) : (lua_Integer)(v & 0xf));
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "OPENSSL_VERSION_INFO");
  lua_pushinteger(L, (lua_Integer)v);
  lua_setfield(L, -2, "OPENSSL_VERSION_NUMBER");
}

static void add_constants(lua_State *L) {
  size_t i;
  for (i = 0; i < LSOCK_COUNT(enumerations); i++) add_enumeration(L, enumerations[i].name, enumerations[i].prefix);
  add_version(L);
  lua_pushlstring(L, PEM_BEGIN, sizeof PEM_BEGIN - 2);
  lua_setfield(L, -2, "PEM_HEADER");
  lua_pushlstring(L, PEM_END, sizeof PEM_END - 2);
  lua_setfield(L, -2, "PEM_FOOTER");
  for (i = 0; i < LSOCK_COUNT(constants); i++) {
    lua_pushinteger(L, constants[i].value);
    lua_setfield(L, -2, constants[i].name);
  }
  for (i = 0; i < LSOCK_COUNT(features); i++) {
    lua_pushboolean(L, features[i].value);
    lua_setfield(L, -2, features[i].name);
  }
  lua_createtable(L, 0, (int)LSOCK_COUNT(versions));
  for (i = 0; i < LSOCK_COUNT(versions); i++) {
    lua_pushinteger(L, versions[i].value);
    lua_setfield(L, -2, versions[i].name);
  }
  lua_setfield(L, -2, "TLSVersion");
  lua_createtable(L, 0, 2);
  lua_pushliteral(L, "serverAuth");
  lua_setfield(L, -2, "SERVER_AUTH");
  lua_pushliteral(L, "clientAuth");
  lua_setfield(L, -2, "CLIENT_AUTH");
  lua_setfield(L, -2, "Purpose");
  lua_createtable(L, 2, 0);
  lua_pushliteral(L, "tls-unique");
  lua_rawseti(L, -2, 1);
  lua_pushliteral(L, "tls-exporter");
  lua_rawseti(L, -2, 2);
  lua_pushliteral(L, "tls-server-end-point");
  lua_rawseti(L, -2, 3);
  lua_setfield(L, -2, "CHANNEL_BINDING_TYPES");
  lua_pushstring(L, OpenSSL_version(OPENSSL_VERSION));
  lua_setfield(L, -2, "OPENSSL_VERSION");
}

/* ---------------------------------------------------------------- opening */

static const lsock_Reg functions[] = {{"DER_cert_to_PEM_cert", mod_der_to_pem},
                                      {"PEM_cert_to_DER_cert", mod_pem_to_der},
                                      {"!RAND_bytes", mod_rand_bytes},
                                      {"RAND_status", mod_rand_status},
                                      {"cert_time_to_seconds", mod_cert_time},
                                      {"get_default_verify_paths", mod_verify_paths},
                                      {"!get_server_certificate", mod_server_certificate},
                                      {NULL, NULL}};

static const lsock_Reg module_meta[] = {{"__call", mod_call}, {NULL, NULL}};

/* Pushes the core, after `require "socket"` where nobody has opened it yet. */
static lsock_Core *push_core(lua_State *L) {
  lsock_Core *c;
  if (lua_getfield(L, LUA_REGISTRYINDEX, LSOCK_CAPSULE) == LUA_TNIL) {
    lua_pop(L, 1);
    if (lua_getglobal(L, "require") != LUA_TFUNCTION) luaL_error(L, "socket.ssl needs the module socket to be open");
    lua_pushliteral(L, "socket");
    lua_call(L, 1, 0);
    lua_getfield(L, LUA_REGISTRYINDEX, LSOCK_CAPSULE);
  }
  c = lsock_tocore(L, -1);
  if (!c || c->api->version != LSOCK_API_VERSION || c->api->size_api != sizeof(lsock_Api) ||
      c->api->size_core != sizeof(lsock_Core) || c->api->size_sock != sizeof(lsock_Sock) ||
      c->api->size_op != sizeof(lsock_Op))
    luaL_error(L, "socket.ssl and socket are of different versions");
  return c;
}

static int state_gc(lua_State *L) {
  lsock_Ssl *st = lsock_ssl(L);
  if (!lsock_object(L, 1, LSOCK_KIND_SSL, sizeof(lsock_SslState))) return 0;
  free_held(st);
  BIO_meth_free(st->bio);
  BIO_meth_free(st->memory);
  st->bio = st->memory = NULL;
  return 0;
}

enum { STATE_UV_MODULE = TLS_META_COUNT + 1, STATE_UV_COUNT = STATE_UV_MODULE };

/* Pushes the new state, which ends with the core's. */
static void new_state(lua_State *L, int core) {
  const lsock_Core *c = lua_touserdata(L, core);
  lsock_SslState *state;
  if (c->tls.main) luaL_error(L, "the state is being closed");
  state = lua_newuserdatauv(L, sizeof *state, STATE_UV_COUNT);
  state->seal = LSOCK_SEAL(c, state, LSOCK_KIND_SSL);
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, core);
  lua_pushcclosure(L, state_gc, 1);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, core, LSOCK_UV_TLS);
}

int luaopen_socket_ssl(lua_State *L) {
  lsock_Core *c = push_core(L);
  int core = lua_gettop(L), st;
  luaL_checkversion(L);
  if (lua_getiuservalue(L, core, LSOCK_UV_TLS) == LUA_TUSERDATA) { /* memory may have been short when it was opened */
    if (lua_getiuservalue(L, -1, STATE_UV_MODULE) == LUA_TTABLE) return 1;
    lua_pop(L, 1);
  } else {
    lua_settop(L, core);
    new_state(L, core);
  }
  st = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  c->tls.main = lua_tothread(L, -1);
  lua_pop(L, 1);
  lua_createtable(L, 0, 160);
  lsock_open_sslerr(L, core);
  lsock_open_sslsock(L, core);
  lsock_open_sslobj(L, core);
  lsock_open_sslctx(L, core);
  c->api->do_register(L, core, functions);
  add_constants(L);
  lua_createtable(L, 0, 1);
  c->api->do_register(L, core, module_meta);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setiuservalue(L, st, STATE_UV_MODULE);
  return 1;
}
