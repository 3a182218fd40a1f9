/*
** lsocket_sslctx.c: SSLContext: what connections are made with.
*/
#include "lsocket_ssl.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Python's choice: forward secrecy and authenticated encryption; what every peer of today has. */
#define CIPHERS "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"

lsock_Ctx *lsock_toctx(lua_State *L, int arg) {
  lsock_Ctx *c = lsock_object(L, arg, LSOCK_KIND_CONTEXT, sizeof *c);
  return c && c->ctx && !TLS_GONE(c) ? c : NULL;
}

lsock_Ctx *lsock_checkctx(lua_State *L, int arg) {
  lsock_Ctx *c = lsock_toctx(L, arg);
  if (!c) luaL_typeerror(L, arg, "SSLContext");
  return c;
}

/* ---------------------------------------------------------------- callbacks */

/*
** Callbacks run on the state that called OpenSSL, in protected mode: no error may jump over OpenSSL's frames. What was
** raised stays on the stack for lsock_tls_end.
*/
static int sni_call(lua_State *L) { /* function, socket, name, context, where the answer goes */
  int *answer = lua_touserdata(L, 5), ok;
  lua_Integer v;
  lua_settop(L, 4);
  lua_call(L, 3, 1);
  if (lua_isnil(L, -1)) return 0;
  v = lua_tointegerx(L, -1, &ok);
  if (!ok || v < 0 || v > 255) {
    *answer = SSL_AD_INTERNAL_ERROR;
    return luaL_error(L, "sni_callback must return nothing or an alert's number, not %s", luaL_tolstring(L, -1, NULL));
  }
  *answer = (int)v;
  return 0;
}

static int push_name(lua_State *L) { /* the name may make memory run out: protected too */
  const char *name = lua_touserdata(L, 5);
  lua_pushstring(L, name);
  lua_replace(L, 3);
  lua_remove(L, 5);
  return sni_call(L);
}

static const lsock_Ctx *push_ctx(const lsock_Tls *t) {
  const lsock_Ctx *c;
  lua_getiuservalue(t->L, t->self, TLS_UV_CTX);
  c = lsock_toctx(t->L, -1);
  return c == t->ctx ? c : NULL;
}

const lsock_Ctx *lsock_tls_ctx(const lsock_Tls *t) {
  const lsock_Ctx *c;
  if (!t || !t->L || !lua_checkstack(t->L, 1)) return NULL;
  c = push_ctx(t);
  lua_pop(t->L, 1);
  return c;
}

int lsock_ctx_callback(const lsock_Tls *t, int uv, int *base) {
  lua_State *L = t->L;
  *base = lua_gettop(L);
  if (!lua_checkstack(L, 12)) return 0;
  if (push_ctx(t) && lua_getiuservalue(L, -1, uv) == LUA_TFUNCTION) return 1;
  lua_settop(L, *base);
  return 0;
}

void lsock_tls_throw(lsock_Tls *t, int base) {
  lua_replace(t->L, base + 1);
  lua_settop(t->L, base + 1);
  t->thrown = base + 1;
}

static int on_servername(SSL *ssl, int *alert, void *arg) {
  lsock_Tls *t = SSL_get_app_data(ssl);
  lua_State *L = t ? t->L : NULL;
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  int answer = -1, base, status;
  (void)arg;
  if (!L) return SSL_TLSEXT_ERR_NOACK;
  if (!lua_checkstack(L, 12)) {
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  if (!lsock_ctx_callback(t, CTX_UV_SNI, &base)) return SSL_TLSEXT_ERR_NOACK;
  lua_pushcfunction(L, push_name);
  lua_insert(L, -2);
  lua_pushvalue(L, t->self);
  lua_pushnil(L);
  lua_pushvalue(L, base + 1);
  lua_pushlightuserdata(L, (void *)(uintptr_t)name);
  lua_pushlightuserdata(L, &answer);
  t->choosing = 1;
  status = lua_pcall(L, 6, 0, 0);
  t->choosing = 0;
  ERR_clear_error(); /* what it left in OpenSSL's queue would pass for the handshake's */
  if (status != LUA_OK) {
    lsock_tls_throw(t, base);
    *alert = answer < 0 ? SSL_AD_HANDSHAKE_FAILURE : answer;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  lua_settop(L, base);
  if (t->doomed) answer = SSL_AD_USER_CANCELLED;
  if (answer < 0) return SSL_TLSEXT_ERR_OK;
  *alert = answer;
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Before OpenSSL looks for a session: the callback that finds the context comes after that. */
static int on_hello(SSL *ssl, int *alert, void *arg) {
  const unsigned char *name = NULL;
  size_t len = 0;
  (void)arg;
  if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &name, &len)) name = NULL;
  if (lsock_tls_bind(ssl, name, name ? len : 0)) return SSL_CLIENT_HELLO_SUCCESS;
  *alert = SSL_AD_INTERNAL_ERROR;
  return SSL_CLIENT_HELLO_ERROR;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned inlen,
                   void *arg) {
  const lsock_Ctx *c = lsock_tls_ctx(SSL_get_app_data(ssl));
  (void)arg;
  if (!c || !c->alpn ||
      SSL_select_next_proto((unsigned char **)(uintptr_t)out, outlen, c->alpn, c->alpn_len, in, inlen) !=
          OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_NOACK;
  return SSL_TLSEXT_ERR_OK;
}

static void on_keylog(const SSL *ssl, const char *line) {
  const lsock_Ctx *c = lsock_tls_ctx(SSL_get_app_data(ssl));
  char text[1024];
  int n = snprintf(text, sizeof text, "%s\n", line);
  ssize_t put = 0;
  if (c && c->keylog >= 0 && n > 0 && (size_t)n < sizeof text)
    put = write(c->keylog, text, (size_t)n); /* one, so that several writers do not mix */
  (void)put;                                 /* nobody to tell */
  OPENSSL_cleanse(text, sizeof text);
}

/* ---------------------------------------------------------------- making one */

/* Kept at a server for clients without tickets: some KB each, at the peers' will. */
#define SESSIONS 1024

static void setup(lsock_Ctx *c) {
  SSL_CTX *x = c->ctx;
  X509_VERIFY_PARAM *param = SSL_CTX_get0_param(x);
  SSL_CTX_set_options(x, SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_ENABLE_MIDDLEBOX_COMPAT |
                             SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(x, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_clear_mode(x, SSL_MODE_AUTO_RETRY); /* a peer that sends only records without data must not hold an attempt */
  X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_TRUSTED_FIRST);
  SSL_CTX_set_alpn_select_cb(x, on_alpn, NULL);
  SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION);
  SSL_CTX_sess_set_cache_size(x, SESSIONS);
  c->host_flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
  c->check_hostname = c->protocol == PROTOCOL_TLS_CLIENT;
  SSL_CTX_set_verify(x, c->check_hostname ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_NONE, NULL);
}

lsock_Ctx *lsock_newctx(lua_State *L, int protocol) {
  const SSL_METHOD *m = protocol == PROTOCOL_TLS_CLIENT   ? TLS_client_method()
                        : protocol == PROTOCOL_TLS_SERVER ? TLS_server_method()
                                                          : TLS_method();
  lsock_Ctx *c;
  lsock_ssl_charge(L, TLS_COST_CTX);
  c = lua_newuserdatauv(L, sizeof *c + TLS_COST_CTX, CTX_UV_COUNT);
  memset(c, 0, sizeof *c);
  c->seal = LSOCK_SEAL(lsock_core(L), c, LSOCK_KIND_CONTEXT);
  c->protocol = protocol;
  c->keylog = -1;
  c->st = lsock_ssl(L);
  lsock_ssl_setmeta(L, TLS_META_CTX);
  ERR_clear_error();
  c->ctx = SSL_CTX_new(m);
  c->held = lsock_ssl_hold(c->st, c->ctx, TLS_HELD_CTX);
  if (!c->ctx) luaL_error(L, "cannot make an SSL context");
  setup(c);
  if (!SSL_CTX_set_cipher_list(c->ctx, CIPHERS)) luaL_error(L, "no ciphers");
  return c;
}

static void close_keylog(lsock_Ctx *c) {
  if (c->keylog >= 0 && !(c->keylog_held && c->st->ended)) {
    lsock_ssl_release(c->st, c->keylog_held);
    close(c->keylog);
  }
  c->keylog = -1;
  c->keylog_held = 0;
}

static int ctx_gc(lua_State *L) {
  lsock_Ctx *c = lsock_object(L, 1, LSOCK_KIND_CONTEXT, sizeof *c);
  if (!c) return 0;
  if (c->ctx && !TLS_GONE(c)) {
    lsock_ssl_release(c->st, c->held);
    SSL_CTX_free(c->ctx);
  }
  c->ctx = NULL;
  OPENSSL_free(c->alpn);
  c->alpn = NULL;
  close_keylog(c);
  return 0;
}

/* ssl.SSLContext(protocol) -> context; PROTOCOL_TLS_CLIENT verifies chain and host name, the others ask for nothing */
static int mod_context(lua_State *L) {
  lua_Integer p = luaL_checkinteger(L, 1);
  luaL_argcheck(L, p == PROTOCOL_TLS || p == PROTOCOL_TLS_CLIENT || p == PROTOCOL_TLS_SERVER, 1,
                "PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER or PROTOCOL_TLS expected");
  lsock_newctx(L, (int)p);
  return 1;
}

/* ---------------------------------------------------------------- own certificate */

typedef struct Password {
  lua_State *L;
  int at;     /* stack index of the string or function, 0 none */
  int thrown; /* of the error raised */
  int asked;
} Password;

static int password_call(lua_State *L) { /* password or function, room */
  lua_Unsigned room = (lua_Unsigned)lua_tointeger(L, 2);
  lua_settop(L, 1);
  if (lua_isfunction(L, 1)) lua_call(L, 0, 1);
  if (lua_type(L, 1) != LUA_TSTRING)
    return luaL_error(L, "the password must be a string, not a %s", luaL_typename(L, 1));
  if (lua_rawlen(L, 1) > room) return luaL_error(L, "the password is longer than %d bytes", (int)room);
  return 1;
}

/* OpenSSL's own would ask on the terminal. */
static int on_password(char *buf, int size, int writing, void *arg) {
  Password *w = arg;
  lua_State *L = w->L;
  size_t n;
  const char *p;
  (void)writing;
  w->asked = 1;
  if (!w->at || !lua_checkstack(L, 4)) return -1;
  lua_pushcfunction(L, password_call);
  lua_pushvalue(L, w->at);
  lua_pushinteger(L, size);
  if (lua_pcall(L, 2, 1, 0) != LUA_OK) {
    w->thrown = lua_gettop(L);
    return -1;
  }
  ERR_clear_error(); /* whatever it did meanwhile */
  p = lua_tolstring(L, -1, &n);
  memcpy(buf, p, n);
  lua_pop(L, 1);
  return (int)n;
}

static void expect_password(const lsock_Ctx *c, Password *w) {
  SSL_CTX_set_default_passwd_cb(c->ctx, w ? on_password : NULL);
  SSL_CTX_set_default_passwd_cb_userdata(c->ctx, w);
}

int lsock_ctx_loadchain(lua_State *L, lsock_Ctx *c, const char *cert, const char *key, int password, const char *op) {
  Password w = {L, password, 0, 0};
  int ok, err, undone;
  if ((err = lsock_admit_other(L, op, "open")) != 0) return err;
  errno = 0;
  ERR_clear_error();
  expect_password(c, &w);
  ok = SSL_CTX_use_certificate_chain_file(c->ctx, cert) == 1;
  expect_password(c, &w);    /* a function that was asked may have loaded something itself */
  if (ok && key) cert = key; /* the file an error is about */
  undone = ok && SSL_CTX_use_PrivateKey_file(c->ctx, cert, SSL_FILETYPE_PEM) != 1;
  ok = ok && !undone && SSL_CTX_check_private_key(c->ctx) == 1;
  err = errno;
  expect_password(c, NULL);
  if (w.thrown) {
    ERR_clear_error();
    lua_pushvalue(L, w.thrown);
    return lua_error(L);
  }
  if (undone && w.asked && ERR_GET_REASON(ERR_peek_last_error()) != X509_R_KEY_VALUES_MISMATCH) {
    /* what garbage a wrong password leads to is chance, and so is OpenSSL's reason */
    lsock_Fail f = {0};
    ERR_clear_error();
    lua_createtable(L, 0, 3);
    lua_pushstring(L, cert);
    lua_setfield(L, -2, "filename");
    lua_pushstring(L, password ? "BAD_DECRYPT" : "BAD_PASSWORD_READ");
    lua_setfield(L, -2, "code");
    lua_pushstring(L, password ? "the private key cannot be decrypted with this password"
                               : "the private key is encrypted, and there is no password");
    lua_setfield(L, -2, "message");
    f.cls = lsock_ssl(L)->cls[TLS_ERROR];
    f.err = SSL_ERROR_SSL;
    f.op = op;
    f.extra = lua_gettop(L);
    return lsock_fail(L, &f);
  }
  return ok ? 0 : lsock_ssl_failfile(L, op, err, cert);
}

static const char *opt_path(lua_State *L, int arg) {
  size_t n;
  const char *s = luaL_optlstring(L, arg, NULL, &n);
  luaL_argcheck(L, !s || strlen(s) == n, arg, "path has a zero byte");
  return s;
}

/* c:load_cert_chain(certfile [, keyfile [, password]]) -> c; PEM files, password a string or a function that gives it */
static int ctx_load_cert_chain(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  const char *cert, *key;
  int r;
  luaL_checkstring(L, 2);
  cert = opt_path(L, 2);
  key = opt_path(L, 3);
  if (!lua_isnoneornil(L, 4) && !lua_isfunction(L, 4)) luaL_checkstring(L, 4);
  r = lsock_ctx_loadchain(L, c, cert, key, lua_isnoneornil(L, 4) ? 0 : 4, "load_cert_chain");
  if (r) return r;
  lua_settop(L, 1);
  return 1;
}

/* ---------------------------------------------------------------- trusted certificates */

/* Adds certificates and lists of revoked ones; their number, or < 0. */
static int add_pem(X509_STORE *store, BIO *b) {
  STACK_OF(X509_INFO) *infos = PEM_X509_INFO_read_bio(b, NULL, lsock_no_password, NULL);
  int i, n = 0, ok = infos != NULL;
  for (i = 0; ok && i < sk_X509_INFO_num(infos); i++) {
    const X509_INFO *info = sk_X509_INFO_value(infos, i);
    if (info->x509) ok = X509_STORE_add_cert(store, info->x509);
    if (ok && info->crl) ok = X509_STORE_add_crl(store, info->crl);
    n += info->x509 || info->crl;
  }
  sk_X509_INFO_pop_free(infos, X509_INFO_free);
  if (ok && n == 0) ERR_raise(ERR_LIB_PEM, PEM_R_NO_START_LINE);
  return ok ? n : -1;
}

/* The same, certificates only. */
static int add_der(X509_STORE *store, BIO *b) {
  int n = 0, ok = 1;
  while (ok && BIO_ctrl_pending(b) > 0) {
    X509 *x = d2i_X509_bio(b, NULL);
    ok = x && X509_STORE_add_cert(store, x);
    X509_free(x);
    n += ok;
  }
  return ok ? n : -1;
}

static int add_data(X509_STORE *store, const char *data, size_t len) {
  BIO *b = BIO_new_mem_buf(data, (int)len);
  int n;
  if (!b) return -1;
  n = strstr(data, "-----BEGIN") ? add_pem(store, b) : add_der(store, b);
  BIO_free(b);
  if (n > 0) ERR_clear_error();
  return n;
}

/*
** Certificates take up some eight times their text, of which neither the collector nor the host's allocator knows. So the
** context keeps a userdata as large, which begin_load pushes, and end_load gives it if there are more certificates now.
*/
static int begin_load(lua_State *L, const lsock_Ctx *c, const char *file, size_t len) {
  struct stat st;
  if (file && stat(file, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < INT_MAX) len += (size_t)st.st_size;
  lua_newuserdatauv(L, len < SIZE_MAX / 8 ? 8 * len : len, 1);
  return sk_X509_OBJECT_num(X509_STORE_get0_objects(SSL_CTX_get_cert_store(c->ctx)));
}

static void end_load(lua_State *L, const lsock_Ctx *c, int ctx, int before) {
  if (sk_X509_OBJECT_num(X509_STORE_get0_objects(SSL_CTX_get_cert_store(c->ctx))) > before) {
    lua_getiuservalue(L, ctx, CTX_UV_CERTS);
    lua_setiuservalue(L, -2, 1);
    lua_setiuservalue(L, ctx, CTX_UV_CERTS);
  } else
    lua_pop(L, 1);
}

int lsock_ctx_loadlocations(lua_State *L, int ctx, const char *file, const char *path, const char *data, size_t len,
                            const char *op) {
  const lsock_Ctx *c = lsock_checkctx(L, ctx);
  int r = file || path ? lsock_admit_other(L, op, "open") : 0, before, ok, err = EINVAL;
  const char *at = NULL; /* the file an error is about */
  if (r) return r;
  if (data && len > INT_MAX) return luaL_error(L, "cadata is too long");
  before = begin_load(L, c, file, data ? len : 0);
  errno = 0;
  ERR_clear_error();
  ok = !data || add_data(SSL_CTX_get_cert_store(c->ctx), data, len) > 0;
  if (ok && file) {
    at = file;
    ok = SSL_CTX_load_verify_file(c->ctx, file);
    err = errno;
  }
  if (ok && path) {
    at = path;
    ok = SSL_CTX_load_verify_dir(c->ctx, path);
    err = errno;
  }
  end_load(L, c, ctx, before);
  return ok ? 0 : lsock_ssl_failfile(L, op, err, at);
}

static const char *field(lua_State *L, int arg, const char *key, size_t *len) {
  const char *s;
  if (lua_getfield(L, arg, key) == LUA_TNIL) return NULL;
  if (lua_type(L, -1) != LUA_TSTRING) luaL_argerror(L, arg, lua_pushfstring(L, "%s must be a string", key));
  s = lua_tolstring(L, -1, len);
  if (strcmp(key, "cadata") != 0 && strlen(s) != *len)
    luaL_argerror(L, arg, lua_pushfstring(L, "%s has a zero byte", key));
  return s;
}

/*
** c:load_verify_locations([cafile [, capath [, cadata]]]) -> c, or with a table of these: trusts the certificates in a PEM
** file, in a folder of hashed names (openssl rehash), in a string, PEM or DER
*/
static int ctx_load_verify_locations(lua_State *L) {
  static const char *const keys[] = {"cafile", "capath", "cadata", NULL};
  const char *file, *path, *data;
  size_t n, len = 0;
  int r;
  lsock_checkctx(L, 1);
  if (lua_istable(L, 2)) {
    lsock_checkkeys(L, 2, keys);
    file = field(L, 2, "cafile", &n);
    path = field(L, 2, "capath", &n);
    data = field(L, 2, "cadata", &len);
  } else {
    file = opt_path(L, 2);
    path = opt_path(L, 3);
    data = luaL_optlstring(L, 4, NULL, &len);
  }
  luaL_argcheck(L, file || path || data, 2, "cafile, capath or cadata expected");
  r = lsock_ctx_loadlocations(L, 1, file, path, data, len, "load_verify_locations");
  if (r) return r;
  lua_settop(L, 1);
  return 1;
}

static int load_default(lua_State *L, const lsock_Ctx *c, int ctx) {
  const char *file = getenv(X509_get_default_cert_file_env());
  int before = begin_load(L, c, file ? file : X509_get_default_cert_file(), 0), ok;
  ERR_clear_error();
  ok = SSL_CTX_set_default_verify_paths(c->ctx);
  if (ok) ERR_clear_error();
  end_load(L, c, ctx, before);
  return ok;
}

static int method_load_default(lua_State *L, const char *op) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  if (!load_default(L, c, 1)) return lsock_ssl_fail(L, op, 0);
  lua_settop(L, 1);
  return 1;
}

/* c:load_default_certs([purpose]) -> c; c:set_default_verify_paths() -> c: trusts what the system does */
static int ctx_load_default(lua_State *L) {
  return method_load_default(L, "load_default_certs");
}

static int ctx_default_paths(lua_State *L) {
  return method_load_default(L, "set_default_verify_paths");
}

/* c:cert_store_stats() -> {x509=, x509_ca=, crl=}: counts of what was loaded; folders load when used */
static int ctx_cert_store_stats(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  X509_STORE *store = SSL_CTX_get_cert_store(c->ctx);
  STACK_OF(X509_OBJECT) * list;
  int i, certs = 0, ca = 0, crl = 0;
  X509_STORE_lock(store);
  list = X509_STORE_get0_objects(store);
  for (i = 0; i < sk_X509_OBJECT_num(list); i++) {
    const X509_OBJECT *o = sk_X509_OBJECT_value(list, i);
    if (X509_OBJECT_get_type(o) == X509_LU_CRL) crl++;
    if (X509_OBJECT_get_type(o) != X509_LU_X509) continue;
    certs++;
    ca += X509_check_ca(X509_OBJECT_get0_X509(o)) > 0;
  }
  X509_STORE_unlock(store);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, certs);
  lua_setfield(L, -2, "x509");
  lua_pushinteger(L, ca);
  lua_setfield(L, -2, "x509_ca");
  lua_pushinteger(L, crl);
  lua_setfield(L, -2, "crl");
  return 1;
}

/* c:get_ca_certs([binary]) -> list of the CA certificates loaded, decoded or as DER bytes */
static int ctx_get_ca_certs(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  STACK_OF(X509) *list = X509_STORE_get1_all_certs(SSL_CTX_get_cert_store(c->ctx));
  int i;
  for (i = sk_X509_num(list); i-- > 0;)
    if (X509_check_ca(sk_X509_value(list, i)) <= 0) X509_free(sk_X509_delete(list, i));
  lsock_x509_pushlist(L, list, !lua_toboolean(L, 2));
  return 1;
}

/* c:load_dh_params(file) -> c: for key exchange by finite-field Diffie-Hellman with TLS 1.2 clients */
static int ctx_load_dh_params(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  BIO *b;
  EVP_PKEY *p;
  const char *path;
  int err;
  luaL_checkstring(L, 2);
  path = opt_path(L, 2);
  if ((err = lsock_admit_other(L, "load_dh_params", "open")) != 0) return err;
  ERR_clear_error();
  errno = 0;
  b = BIO_new_file(path, "r");
  if (!b) return lsock_ssl_failfile(L, "load_dh_params", errno, path);
  p = PEM_read_bio_Parameters(b, NULL);
  err = p && SSL_CTX_set0_tmp_dh_pkey(c->ctx, p) ? 0 : 1;
  BIO_free(b);
  if (err) {
    EVP_PKEY_free(p);
    return lsock_ssl_failfile(L, "load_dh_params", EINVAL, path);
  }
  lua_settop(L, 1);
  return 1;
}

/* c:session_stats() -> counts since the context was made */
static int ctx_session_stats(lua_State *L) {
  static const struct {
    const char *name;
    int cmd;
  } stats[] = {{"number", SSL_CTRL_SESS_NUMBER},
               {"connect", SSL_CTRL_SESS_CONNECT},
               {"connect_good", SSL_CTRL_SESS_CONNECT_GOOD},
               {"connect_renegotiate", SSL_CTRL_SESS_CONNECT_RENEGOTIATE},
               {"accept", SSL_CTRL_SESS_ACCEPT},
               {"accept_good", SSL_CTRL_SESS_ACCEPT_GOOD},
               {"accept_renegotiate", SSL_CTRL_SESS_ACCEPT_RENEGOTIATE},
               {"hits", SSL_CTRL_SESS_HIT},
               {"misses", SSL_CTRL_SESS_MISSES},
               {"timeouts", SSL_CTRL_SESS_TIMEOUTS},
               {"cache_full", SSL_CTRL_SESS_CACHE_FULL}};
  SSL_CTX *x = lsock_checkctx(L, 1)->ctx;
  size_t i;
  lua_createtable(L, 0, (int)LSOCK_COUNT(stats));
  for (i = 0; i < LSOCK_COUNT(stats); i++) {
    lua_pushinteger(L, SSL_CTX_ctrl(x, stats[i].cmd, 0, NULL));
    lua_setfield(L, -2, stats[i].name);
  }
  return 1;
}

/* ---------------------------------------------------------------- connections */

/* c:wrap_socket(socket [, options]) -> TLS socket, which has taken the descriptor over; options as in the reference */
static int ctx_wrap_socket(lua_State *L) {
  static const char *const keys[] = {
      "server_side", "server_hostname", "do_handshake_on_connect", "suppress_ragged_eofs", "session", "received", NULL};
  lsock_Wrap w = {0};
  lsock_checkctx(L, 1);
  lua_settop(L, 3);
  w.ctx = 1;
  lsock_wrap_options(L, 3, &w, keys);
  return lsock_wrap(L, 2, &w, 0, "wrap_socket");
}

/* c:wrap_bio(incoming, outgoing [, options]) -> SSLObject that reads from one MemoryBIO and writes to the other */
static int ctx_wrap_bio(lua_State *L) {
  static const char *const keys[] = {"server_side", "server_hostname", "session", NULL};
  lsock_Wrap w = {0};
  lsock_checkctx(L, 1);
  lsock_checkbio(L, 2);
  lsock_checkbio(L, 3);
  lua_settop(L, 4);
  w.ctx = 1;
  lsock_wrap_options(L, 4, &w, keys);
  w.suppress = 0;
  return lsock_wrap_bio(L, &w, 2, 3);
}

/* ---------------------------------------------------------------- fields */

static void get_verify_mode(lua_State *L, const lsock_Ctx *c) {
  int m = SSL_CTX_get_verify_mode(c->ctx);
  lua_pushinteger(L, !(m & SSL_VERIFY_PEER) ? 0 : m & SSL_VERIFY_FAIL_IF_NO_PEER_CERT ? 2 : 1);
}

static void set_verify_mode(lua_State *L, lsock_Ctx *c) {
  static const int modes[] = {SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT};
  lua_Integer m = luaL_checkinteger(L, 3);
  luaL_argcheck(L, m >= 0 && m <= 2, 3, "CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED expected");
  luaL_argcheck(L, m != 0 || !c->check_hostname, 3, "CERT_NONE is not possible while check_hostname is true");
  SSL_CTX_set_verify(c->ctx, modes[m], NULL);
}

static void get_check_hostname(lua_State *L, const lsock_Ctx *c) {
  lua_pushboolean(L, c->check_hostname);
}

static void set_check_hostname(lua_State *L, lsock_Ctx *c) {
  luaL_checktype(L, 3, LUA_TBOOLEAN);
  c->check_hostname = (unsigned char)lua_toboolean(L, 3);
  if (c->check_hostname && !(SSL_CTX_get_verify_mode(c->ctx) & SSL_VERIFY_PEER))
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
}

static void get_verify_flags(lua_State *L, const lsock_Ctx *c) {
  lua_pushinteger(L, (lua_Integer)X509_VERIFY_PARAM_get_flags(SSL_CTX_get0_param(c->ctx)));
}

static void set_verify_flags(lua_State *L, lsock_Ctx *c) {
  X509_VERIFY_PARAM *p = SSL_CTX_get0_param(c->ctx);
  lua_Integer v = luaL_checkinteger(L, 3);
  luaL_argcheck(L, v >= 0 && v <= INT_MAX, 3, "not verify flags");
  X509_VERIFY_PARAM_clear_flags(p, X509_VERIFY_PARAM_get_flags(p) & ~(unsigned long)v);
  X509_VERIFY_PARAM_set_flags(p, (unsigned long)v);
}

static void get_options(lua_State *L, const lsock_Ctx *c) {
  lua_pushinteger(L, (lua_Integer)SSL_CTX_get_options(c->ctx));
}

static void set_options(lua_State *L, lsock_Ctx *c) {
  lua_Integer v = luaL_checkinteger(L, 3);
  luaL_argcheck(L, v >= 0, 3, "not options");
  SSL_CTX_clear_options(c->ctx, SSL_CTX_get_options(c->ctx) & ~(uint64_t)v);
  SSL_CTX_set_options(c->ctx, (uint64_t)v);
}

/* Python's TLSVersion: -2 and -1 stand for the lowest and the highest there are. */
static void push_limit(lua_State *L, long v, int lowest) {
  lua_pushinteger(L, v ? v : lowest ? -2 : -1);
}

static long check_limit(lua_State *L, int lowest) {
  lua_Integer v = luaL_checkinteger(L, 3);
  if (v == (lowest ? -2 : -1)) return 0;
  if (v == -2) return TLS1_VERSION;
  if (v == -1) return TLS1_3_VERSION;
  luaL_argcheck(L, v >= TLS1_VERSION && v <= TLS1_3_VERSION, 3, "a field of TLSVersion expected");
  return (long)v;
}

static void get_minimum(lua_State *L, const lsock_Ctx *c) {
  push_limit(L, SSL_CTX_get_min_proto_version(c->ctx), 1);
}

static void set_minimum(lua_State *L, lsock_Ctx *c) {
  luaL_argcheck(L, SSL_CTX_set_min_proto_version(c->ctx, check_limit(L, 1)), 3, "this version is not available");
}

static void get_maximum(lua_State *L, const lsock_Ctx *c) {
  push_limit(L, SSL_CTX_get_max_proto_version(c->ctx), 0);
}

static void set_maximum(lua_State *L, lsock_Ctx *c) {
  luaL_argcheck(L, SSL_CTX_set_max_proto_version(c->ctx, check_limit(L, 0)), 3, "this version is not available");
}

static void get_protocol(lua_State *L, const lsock_Ctx *c) {
  lua_pushinteger(L, c->protocol);
}

static void get_common_name(lua_State *L, const lsock_Ctx *c) {
  lua_pushboolean(L, !(c->host_flags & X509_CHECK_FLAG_NEVER_CHECK_SUBJECT));
}

static void set_common_name(lua_State *L, lsock_Ctx *c) {
  luaL_checktype(L, 3, LUA_TBOOLEAN);
  if (lua_toboolean(L, 3))
    c->host_flags &= ~(unsigned)X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
  else
    c->host_flags |= X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
}

static void get_num_tickets(lua_State *L, const lsock_Ctx *c) {
  lua_pushinteger(L, (lua_Integer)SSL_CTX_get_num_tickets(c->ctx));
}

static void set_num_tickets(lua_State *L, lsock_Ctx *c) {
  lua_Integer v = luaL_checkinteger(L, 3);
  luaL_argcheck(L, v >= 0 && v <= 100, 3, "0-100 expected");
  luaL_argcheck(L, c->protocol == PROTOCOL_TLS_SERVER, 1, "tickets are a server's");
  SSL_CTX_set_num_tickets(c->ctx, (size_t)v);
}

static void get_pha(lua_State *L, const lsock_Ctx *c) {
  lua_pushboolean(L, c->pha);
}

static void set_pha(lua_State *L, lsock_Ctx *c) {
  luaL_checktype(L, 3, LUA_TBOOLEAN);
  c->pha = (unsigned char)lua_toboolean(L, 3);
}

static void get_security_level(lua_State *L, const lsock_Ctx *c) {
  lua_pushinteger(L, SSL_CTX_get_security_level(c->ctx));
}

static void get_sni(lua_State *L, const lsock_Ctx *c) {
  (void)c;
  lua_getiuservalue(L, 1, CTX_UV_SNI);
}

static void set_sni(lua_State *L, lsock_Ctx *c) {
  luaL_argcheck(L, lua_isnil(L, 3) || lua_isfunction(L, 3), 3, "function or nil expected");
  luaL_argcheck(L, c->protocol != PROTOCOL_TLS_CLIENT, 1, "sni_callback is for servers");
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 1, CTX_UV_SNI);
  SSL_CTX_set_tlsext_servername_callback(c->ctx, (lua_isnil(L, 3) ? NULL : on_servername));
  SSL_CTX_set_client_hello_cb(c->ctx, lua_isnil(L, 3) ? NULL : on_hello, NULL);
}

static void get_keylog(lua_State *L, const lsock_Ctx *c) {
  (void)c;
  lua_getiuservalue(L, 1, CTX_UV_KEYLOG);
}

/*
** Nothing here may block, and no signal may end the program: opened to be read too, a FIFO whose last reader goes raises none,
** and what it has no room for is not logged.
*/
static int open_log(const char *path) {
  const int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  struct stat st;
  int fd = open(path, O_WRONLY | flags, 0600), both;
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode)) return fd;
  both = open(path, O_RDWR | flags, 0600);
  close(fd);
  return both;
}

static void set_keylog(lua_State *L, lsock_Ctx *c) {
  const char *path = opt_path(L, 3);
  int fd = -1;
  if (path) {
    (void)lsock_admit_other(L, "keylog_filename", "open"); /* raises: this is no try_ form */
    fd = open_log(path);
    if (fd < 0) {
      ERR_clear_error();
      (void)lsock_ssl_failfile(L, "keylog_filename", errno, path);
      return;
    }
  }
  close_keylog(c);
  c->keylog = fd;
  if (fd >= 0) c->keylog_held = lsock_ssl_hold(c->st, (void *)((intptr_t)fd + 1), TLS_HELD_FD);
  SSL_CTX_set_keylog_callback(c->ctx, fd >= 0 ? on_keylog : NULL);
  lua_settop(L, 3);
  lua_setiuservalue(L, 1, CTX_UV_KEYLOG);
}

static const struct {
  const char *name;
  void (*get)(lua_State *, const lsock_Ctx *);
  void (*set)(lua_State *, lsock_Ctx *);
} fields[] = {{"check_hostname", get_check_hostname, set_check_hostname},
              {"hostname_checks_common_name", get_common_name, set_common_name},
              {"keylog_filename", get_keylog, set_keylog},
              {"maximum_version", get_maximum, set_maximum},
              {"minimum_version", get_minimum, set_minimum},
              {"num_tickets", get_num_tickets, set_num_tickets},
              {"options", get_options, set_options},
              {"post_handshake_auth", get_pha, set_pha},
              {"protocol", get_protocol, NULL},
              {"security_level", get_security_level, NULL},
              {"sni_callback", get_sni, set_sni},
              {"verify_flags", get_verify_flags, set_verify_flags},
              {"verify_mode", get_verify_mode, set_verify_mode}};

/* Upvalue 2: the methods */
static int ctx_index(lua_State *L) {
  const lsock_Ctx *c = lsock_checkctx(L, 1);
  const char *k;
  size_t i;
  lua_pushvalue(L, 2);
  if (lua_gettable(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  k = lua_tostring(L, 2);
  for (i = 0; i < LSOCK_COUNT(fields); i++)
    if (strcmp(k, fields[i].name) == 0) {
      fields[i].get(L, c);
      return 1;
    }
  return 0;
}

static int ctx_newindex(lua_State *L) {
  lsock_Ctx *c = lsock_checkctx(L, 1);
  const char *k = luaL_checkstring(L, 2);
  size_t i;
  for (i = 0; i < LSOCK_COUNT(fields); i++)
    if (strcmp(k, fields[i].name) == 0 && fields[i].set) {
      fields[i].set(L, c);
      return 0;
    }
  return luaL_error(L, "cannot set '%s' of an SSLContext", k);
}

/* ---------------------------------------------------------------- create_default_context */

/*
** ssl.create_default_context([{purpose=, cafile=, capath=, cadata=}]) -> context. For ssl.Purpose.SERVER_AUTH, the default,
** a client's that verifies chain and host name, with the system's certificates unless others are given; for CLIENT_AUTH a
** server's
*/
static int mod_default_context(lua_State *L) {
  static const char *const keys[] = {"purpose", "cafile", "capath", "cadata", NULL};
  static const char *const purposes[] = {"serverAuth", "clientAuth"};
  const char *file = NULL, *path = NULL, *data = NULL;
  size_t n, len = 0;
  int purpose = 0, r;
  lsock_Ctx *c;
  lua_settop(L, 1);
  if (!lua_isnil(L, 1)) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lsock_checkkeys(L, 1, keys);
    if (lua_getfield(L, 1, "purpose") != LUA_TNIL) {
      const char *s = lua_tostring(L, -1);
      purpose = s && strcmp(s, purposes[1]) == 0;
      luaL_argcheck(L, s && strcmp(s, purposes[purpose]) == 0, 1, "purpose must be a field of ssl.Purpose");
    }
    file = field(L, 1, "cafile", &n);
    path = field(L, 1, "capath", &n);
    data = field(L, 1, "cadata", &len);
  }
  c = lsock_newctx(L, purpose == 0 ? PROTOCOL_TLS_CLIENT : PROTOCOL_TLS_SERVER);
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(c->ctx), X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_X509_STRICT);
  if (file || path || data) {
    r = lsock_ctx_loadlocations(L, lua_gettop(L), file, path, data, len, "create_default_context");
    if (r) return r;
  } else if (purpose == 0 && !load_default(L, c, lua_gettop(L)))
    return lsock_ssl_fail(L, "create_default_context", 0);
  ERR_clear_error();
  return 1;
}

/* ---------------------------------------------------------------- opening */

static const lsock_Reg ctx_methods[] = {{"cert_store_stats", ctx_cert_store_stats},
                                        {"get_ca_certs", ctx_get_ca_certs},
                                        {"!load_cert_chain", ctx_load_cert_chain},
                                        {"!load_default_certs", ctx_load_default},
                                        {"!load_dh_params", ctx_load_dh_params},
                                        {"!load_verify_locations", ctx_load_verify_locations},
                                        {"session_stats", ctx_session_stats},
                                        {"!set_default_verify_paths", ctx_default_paths},
                                        {"!wrap_bio", ctx_wrap_bio},
                                        {"!wrap_socket", ctx_wrap_socket},
                                        {NULL, NULL}};

static const lsock_Reg ctx_meta[] = {{"__gc", ctx_gc}, {"__newindex", ctx_newindex}, {NULL, NULL}};

static const lsock_Reg functions[] = {
    {"SSLContext", mod_context}, {"!create_default_context", mod_default_context}, {NULL, NULL}};

void lsock_open_sslctx(lua_State *L, int core) {
  const lsock_Core *c = lua_touserdata(L, core);
  int table = lua_gettop(L);
  lua_getiuservalue(L, core, LSOCK_UV_TLS);
  lsock_ssl_newmeta(L, core, "SSLContext", ctx_meta);
  lua_pushvalue(L, core);
  lua_newtable(L);
  c->api->do_register(L, core, ctx_methods);
  c->api->do_register(L, core, lsock_algo_methods);
  c->api->do_register(L, core, lsock_psk_methods);
  lua_pushcclosure(L, ctx_index, 2);
  lua_setfield(L, -2, "__index");
  lua_setiuservalue(L, -2, TLS_META_CTX);
  lua_settop(L, table);
  c->api->do_register(L, core, functions);
}
