/*
** lsocket_sslobj.c: what can be asked of a TLS connection, sessions, and TLS over memory: SSLObject and MemoryBIO.
*/
#include "lsocket_ssl.h"

#include <limits.h>
#include <string.h>

/* The connection at 1, still open; NULL if not. */
static SSL *check_open(lua_State *L) {
  return lsock_checktls(L, 1)->ssl;
}

/* NULL also before the handshake has been made; in the middle of a later message OpenSSL would say that it is not. */
static SSL *check_agreed(lua_State *L) {
  const lsock_Tls *t = lsock_checktls(L, 1);
  return t->agreed ? t->ssl : NULL;
}

/* NULL also while the peer has not proven that its certificate is its own: in a handshake, or when asked after it. */
static SSL *check_proven(lua_State *L) {
  SSL *ssl = check_agreed(L);
  OSSL_HANDSHAKE_STATE state = ssl ? SSL_get_state(ssl) : TLS_ST_BEFORE;
  if (!ssl || !SSL_is_server(ssl)) return ssl;
  return state == TLS_ST_OK || state == TLS_ST_SR_KEY_UPDATE ? ssl : NULL;
}

/* ---------------------------------------------------------------- what was agreed */

/* s:pending() -> bytes decrypted but not yet given out; 1 if there are none, but an end or an error to be told */
static int tls_pending(lua_State *L) {
  const lsock_Tls *t = lsock_checktls(L, 1);
  int n = t->ssl ? SSL_pending(t->ssl) : 0;
  lua_pushinteger(L, n > 0 ? n : lsock_tls_ready(t) > 0 && !t->told);
  return 1;
}

/* s:version() -> "TLSv1.3" ..., nil before the handshake */
static int tls_version(lua_State *L) {
  const SSL *ssl = check_agreed(L);
  if (ssl)
    lua_pushstring(L, SSL_get_version(ssl));
  else
    lua_pushnil(L);
  return 1;
}

static void push_cipher(lua_State *L, const SSL_CIPHER *c) {
  lua_createtable(L, 3, 0);
  lua_pushstring(L, SSL_CIPHER_get_name(c));
  lua_rawseti(L, -2, 1);
  lua_pushstring(L, SSL_CIPHER_get_version(c));
  lua_rawseti(L, -2, 2);
  lua_pushinteger(L, SSL_CIPHER_get_bits(c, NULL));
  lua_rawseti(L, -2, 3);
}

/* s:cipher() -> name, protocol, secret bits; nil before the handshake */
static int tls_cipher(lua_State *L) {
  const SSL *ssl = check_open(L);
  const SSL_CIPHER *c = ssl ? SSL_get_current_cipher(ssl) : NULL;
  if (!c) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushstring(L, SSL_CIPHER_get_name(c));
  lua_pushstring(L, SSL_CIPHER_get_version(c));
  lua_pushinteger(L, SSL_CIPHER_get_bits(c, NULL));
  return 3;
}

/* s:shared_ciphers() -> list of {name, protocol, bits} that both ends have; nil at a client */
static int tls_shared_ciphers(lua_State *L) {
  SSL *ssl = check_open(L);
  STACK_OF(SSL_CIPHER) * client, *ours;
  const SSL_CIPHER *list[TLS_CIPHERS];
  int i, k, n, shared = 0;
  client = ssl && SSL_is_server(ssl) ? SSL_get_client_ciphers(ssl) : NULL;
  ours = client ? SSL_get_ciphers(ssl) : NULL;
  if (!ours) {
    lua_pushnil(L);
    return 1;
  }
  n = lsock_ssl_ciphers(client, list);
  for (i = 0; i < n; i++) {
    for (k = 0; k < sk_SSL_CIPHER_num(ours) && sk_SSL_CIPHER_value(ours, k) != list[i]; k++) {}
    if (k < sk_SSL_CIPHER_num(ours)) list[shared++] = list[i];
  }
  lua_createtable(L, shared, 0);
  for (i = 0; i < shared; i++) {
    push_cipher(L, list[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* s:selected_alpn_protocol() -> name, or nil */
static int tls_alpn(lua_State *L) {
  const SSL *ssl = check_open(L);
  const unsigned char *p = NULL;
  unsigned n = 0;
  if (ssl) SSL_get0_alpn_selected(ssl, &p, &n);
  if (p && n > 0)
    lua_pushlstring(L, (const char *)p, n);
  else
    lua_pushnil(L);
  return 1;
}

/* s:compression() -> nil: it is never used */
static int tls_compression(lua_State *L) {
  lsock_checktls(L, 1);
  lua_pushnil(L);
  return 1;
}

/* s:group() -> name of the key exchange's group, or nil */
static int tls_group(lua_State *L) {
  SSL *ssl = check_agreed(L);
  int nid = ssl ? (int)SSL_get_negotiated_group(ssl) : 0;
  lua_pushstring(L, nid ? SSL_group_to_name(ssl, nid) : NULL);
  return 1;
}

/*
** s:getpeercert([binary]) -> the peer's certificate: a table, empty if it was not verified; as DER bytes if `binary`; nil
** without one
*/
static int tls_getpeercert(lua_State *L) {
  SSL *ssl = check_proven(L);
  X509 *x = ssl ? SSL_get0_peer_certificate(ssl) : NULL;
  if (!x)
    lua_pushnil(L);
  else if (lua_toboolean(L, 2))
    lsock_x509_pushder(L, x);
  else if (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER)
    lsock_x509_push(L, x);
  else
    lua_newtable(L);
  return 1;
}

static int push_chain(lua_State *L, STACK_OF(X509) * chain, X509 *first) {
  STACK_OF(X509) *copy = chain ? X509_chain_up_ref(chain) : sk_X509_new_null();
  if (copy && first && X509_up_ref(first) && !sk_X509_unshift(copy, first)) X509_free(first);
  lsock_x509_pushlist(L, copy, 0);
  return 1;
}

/* s:get_verified_chain() -> list of DER certificates from the peer's to the root; empty if none was verified */
static int tls_verified_chain(lua_State *L) {
  const SSL *ssl = check_proven(L);
  int verified = ssl && SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER && SSL_get_verify_result(ssl) == X509_V_OK;
  return push_chain(L, verified ? SSL_get0_verified_chain(ssl) : NULL, NULL); /* it has one even of a failure */
}

/* s:get_unverified_chain() -> list of DER certificates as the peer sent them */
static int tls_unverified_chain(lua_State *L) {
  SSL *ssl = check_proven(L);
  if (!ssl) return push_chain(L, NULL, NULL);
  /* a server's list is without the peer's own */
  return push_chain(L, SSL_get_peer_cert_chain(ssl), SSL_is_server(ssl) ? SSL_get0_peer_certificate(ssl) : NULL);
}

/* The hash of the server's certificate (RFC 5929, section 4). */
static int push_end_point(lua_State *L, SSL *ssl) {
  X509 *x = SSL_is_server(ssl) ? SSL_get_certificate(ssl) : SSL_get0_peer_certificate(ssl);
  unsigned char md[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  int hash = NID_undef;
  if (!x) return 0;
  OBJ_find_sigid_algs(X509_get_signature_nid(x), &hash, NULL);
  if (hash == NID_undef || hash == NID_md5 || hash == NID_sha1) hash = NID_sha256;
  if (!X509_digest(x, EVP_get_digestbynid(hash), md, &n)) return 0;
  lua_pushlstring(L, (const char *)md, n);
  return 1;
}

/* s:get_channel_binding([type]) -> bytes: "tls-unique" (default), "tls-exporter", "tls-server-end-point"; nil without */
static int tls_channel_binding(lua_State *L) {
  static const char *const types[] = {"tls-unique", "tls-exporter", "tls-server-end-point", NULL};
  static const char label[] = "EXPORTER-Channel-Binding"; /* RFC 9266 */
  unsigned char buf[64];
  size_t n = 0;
  int type = luaL_checkoption(L, 2, "tls-unique", types);
  SSL *ssl = check_agreed(L); /* last: a number as argument becomes a string, and that may run a finalizer */
  if (!ssl) {
    lua_pushnil(L);
    return 1;
  }
  if (type == 0 && SSL_version(ssl) < TLS1_3_VERSION) /* of the first Finished message (RFC 5929, section 3) */
    n = SSL_session_reused(ssl) != SSL_is_server(ssl) ? SSL_get_peer_finished(ssl, buf, sizeof buf)
                                                      : SSL_get_finished(ssl, buf, sizeof buf);
  else if (type == 1 && (SSL_version(ssl) >= TLS1_3_VERSION || SSL_get_extms_support(ssl) == 1) && /* RFC 9266, 4.2 */
           SSL_export_keying_material(ssl, buf, 32, label, sizeof label - 1, (const unsigned char *)"", 0, 1))
    n = 32;
  else if (type == 2 && push_end_point(L, ssl))
    return 1;
  if (n > 0)
    lua_pushlstring(L, (const char *)buf, n);
  else
    lua_pushnil(L);
  ERR_clear_error();
  return 1;
}

const lsock_Reg lsock_tls_methods[] = {{"cipher", tls_cipher},
                                       {"compression", tls_compression},
                                       {"get_channel_binding", tls_channel_binding},
                                       {"get_unverified_chain", tls_unverified_chain},
                                       {"get_verified_chain", tls_verified_chain},
                                       {"getpeercert", tls_getpeercert},
                                       {"group", tls_group},
                                       {"pending", tls_pending},
                                       {"selected_alpn_protocol", tls_alpn},
                                       {"shared_ciphers", tls_shared_ciphers},
                                       {"version", tls_version},
                                       {NULL, NULL}};

/* ---------------------------------------------------------------- sessions */

lsock_Session *lsock_tosession(lua_State *L, int arg) {
  lsock_Session *p = lsock_object(L, arg, LSOCK_KIND_SESSION, sizeof *p);
  if (p && TLS_GONE(p)) p->session = NULL;
  return p;
}

static lsock_Session *check_session(lua_State *L, int arg) {
  lsock_Session *p = lsock_tosession(L, arg);
  if (!p) luaL_typeerror(L, arg, "SSLSession");
  return p;
}

SSL_SESSION *lsock_fit_session(lua_State *L, int arg, int ctx, int host, int err) {
  const lsock_Session *p = lsock_tosession(L, arg);
  const lsock_Ctx *c = lua_touserdata(L, ctx);
  int same;
  if (!p) {
    luaL_argerror(L, err, "not an SSLSession");
    return NULL; /* for checkers that do not know that it does not return */
  }
  lua_getiuservalue(L, arg, SESSION_UV_CTX);
  luaL_argcheck(L, lua_rawequal(L, -1, ctx), err, "the session is another context's");
  lua_getiuservalue(L, arg, SESSION_UV_HOST);
  same = host ? lua_rawequal(L, -1, host) : lua_isnil(L, -1);
  lua_pop(L, 2);
  if (!same || (c->check_hostname && !p->named)) return NULL;
  return (SSL_CTX_get_verify_mode(c->ctx) & SSL_VERIFY_PEER) && !p->verified ? NULL : p->session;
}

static void push_session(lua_State *L, int arg, const lsock_Tls *t) {
  lsock_Session *p = lua_newuserdatauv(L, sizeof *p + TLS_COST_SESSION, SESSION_UV_COUNT);
  memset(p, 0, sizeof *p);
  p->seal = LSOCK_SEAL(lsock_core(L), p, LSOCK_KIND_SESSION);
  p->st = t->st;
  lsock_ssl_setmeta(L, TLS_META_SESSION);
  lua_getiuservalue(L, arg, TLS_UV_CTX);
  lua_setiuservalue(L, -2, SESSION_UV_CTX);
  lua_getiuservalue(L, arg, TLS_UV_HOST);
  lua_setiuservalue(L, -2, SESSION_UV_HOST);
  if (!t->ssl) return; /* closed by a finalizer */
  p->verified =
      t->agreed && SSL_get_verify_mode(t->ssl) & SSL_VERIFY_PEER && SSL_get_verify_result(t->ssl) == X509_V_OK;
  p->named = p->verified && t->named;
  p->session = SSL_get1_session(t->ssl);
  p->held = lsock_ssl_hold(p->st, p->session, TLS_HELD_SESSION);
}

static int session_gc(lua_State *L) {
  lsock_Session *p = lsock_tosession(L, 1);
  if (!p || !p->session) return 0;
  lsock_ssl_release(p->st, p->held);
  SSL_SESSION_free(p->session);
  p->session = NULL;
  return 0;
}

/* OpenSSL has another object for what was agreed at each asking of some versions: the id tells. */
static int session_eq(lua_State *L) {
  const lsock_Session *a = lsock_tosession(L, 1), *b = lsock_tosession(L, 2);
  unsigned na = 0, nb = 0;
  const unsigned char *ia = a && a->session ? SSL_SESSION_get_id(a->session, &na) : NULL;
  const unsigned char *ib = b && b->session ? SSL_SESSION_get_id(b->session, &nb) : NULL;
  lua_pushboolean(L, ia && ib && (a->session == b->session || (na > 0 && na == nb && memcmp(ia, ib, na) == 0)));
  return 1;
}

/* session.id, .time, .timeout, .has_ticket, .ticket_lifetime_hint */
static int session_index(lua_State *L) {
  const char *k = luaL_checkstring(L, 2);
  SSL_SESSION *s = check_session(L, 1)->session;
  if (!s) return 0;
  if (strcmp(k, "id") == 0) {
    unsigned n;
    const unsigned char *p = SSL_SESSION_get_id(s, &n);
    lua_pushlstring(L, (const char *)p, n);
  } else if (strcmp(k, "time") == 0)
    lua_pushinteger(L, SSL_SESSION_get_time(s));
  else if (strcmp(k, "timeout") == 0)
    lua_pushinteger(L, SSL_SESSION_get_timeout(s));
  else if (strcmp(k, "has_ticket") == 0)
    lua_pushboolean(L, SSL_SESSION_has_ticket(s));
  else if (strcmp(k, "ticket_lifetime_hint") == 0)
    lua_pushinteger(L, (lua_Integer)SSL_SESSION_get_ticket_lifetime_hint(s));
  else
    return 0;
  return 1;
}

/* ---------------------------------------------------------------- fields */

int lsock_tls_field(lua_State *L, int arg, const char *k) {
  const lsock_Tls *t;
  int uv = 0;
  if (strcmp(k, "context") == 0)
    uv = TLS_UV_CTX;
  else if (strcmp(k, "server_hostname") == 0)
    uv = TLS_UV_HOST;
  else if (strcmp(k, "server_side") != 0 && strcmp(k, "session_reused") != 0 && strcmp(k, "session") != 0)
    return 0;
  t = lsock_checktls(L, arg);
  if (uv) {
    lua_getiuservalue(L, arg, uv);
  } else if (strcmp(k, "server_side") == 0)
    lua_pushboolean(L, t->server);
  else if (t->ssl && strcmp(k, "session_reused") == 0)
    lua_pushboolean(L, SSL_session_reused(t->ssl));
  else if (t->ssl && SSL_get0_session(t->ssl))
    push_session(L, arg, t);
  else
    lua_pushnil(L);
  return 1;
}

/* context can be changed by an sni_callback, and not within the handshake otherwise; session before it */
int lsock_tls_newindex(lua_State *L) {
  lsock_Tls *t = lsock_checktls(L, 1);
  const char *k = luaL_checkstring(L, 2);
  if (strcmp(k, "context") == 0) {
    lsock_Ctx *c = lsock_checkctx(L, 3);
    if (!t->ssl) return luaL_error(L, "the connection is closed");
    if (!t->choosing && !SSL_in_before(t->ssl) && !t->agreed) /* OpenSSL has chosen a key of the old one by then */
      return luaL_error(L, "within the handshake only an sni_callback can set the context");
    ERR_clear_error();
    if (!SSL_set_SSL_CTX(t->ssl, c->ctx)) return lsock_ssl_fail(L, "context", 0);
    lsock_tls_ask(t, c);
    lua_pushvalue(L, 3);
    lua_setiuservalue(L, 1, TLS_UV_CTX);
    t->ctx = c;
    return 0;
  }
  if (strcmp(k, "session") == 0) {
    SSL_SESSION *s = check_session(L, 3)->session;
    luaL_argcheck(L, !t->server, 1, "a server's session cannot be set");
    if (!s || !t->ssl || !SSL_in_before(t->ssl)) return luaL_error(L, "a session is set before the handshake");
    lua_getiuservalue(L, 1, TLS_UV_CTX);
    lua_getiuservalue(L, 1, TLS_UV_HOST);
    s = lsock_fit_session(L, 3, lua_gettop(L) - 1, lua_gettop(L), 3);
    if (s && !SSL_set_session(t->ssl, s)) return lsock_ssl_fail(L, "session", 0);
    return 0;
  }
  return luaL_error(L, "cannot set '%s' of a TLS connection", k);
}

/* ---------------------------------------------------------------- MemoryBIO */

/*
** Bytes on their way, in memory from the state's allocator, where the host's limit of memory counts them. One MemoryBIO holds
** no more than lsock_Limits.receive says; TLS, which has to write more, waits until the script has taken some.
*/
typedef struct Queue {
  lsock_Core *core;
  char *p;
  size_t at, n, size; /* n bytes from `at` on */
  int eof;
} Queue;

static void queue_resize(Queue *q, size_t size) {
  void *ud;
  lua_Alloc f = lua_getallocf(q->core->tls.main, &ud);
  char *p = f(ud, q->p, q->size, size);
  lsock_Ssl *st = &q->core->tls;
  if (size > 0 && !p) return;
  st->queued += size;
  st->queued -= q->size;
  if (st->paced > st->queued) st->paced = st->queued;
  q->p = p;
  q->size = size;
}

/* Room behind the bytes for as many as may be and can be had of `want`; the number. */
static size_t queue_room(Queue *q, size_t want) {
  size_t max = q->core->receive_max ? q->core->receive_max : INT_MAX, size = q->size ? q->size : 512;
  if (q->n >= max) return 0;
  if (want > max - q->n) want = max - q->n;
  if (q->at > 0 && q->at + q->n + want > q->size) {
    memmove(q->p, q->p + q->at, q->n);
    q->at = 0;
  }
  while (size < q->n + want) size *= 2;
  if (size > q->size) queue_resize(q, size);
  return q->at + q->n + want <= q->size ? want : 0;
}

static int queue_read(BIO *b, char *p, int n) {
  Queue *q = BIO_get_data(b);
  size_t k = (size_t)n < q->n ? (size_t)n : q->n;
  BIO_clear_retry_flags(b);
  if (n <= 0) return 0;
  if (k == 0) {
    if (q->eof) return 0;
    BIO_set_retry_read(b); /* empty means later, not the end */
    return -1;
  }
  memcpy(p, q->p + q->at, k);
  q->at += k;
  q->n -= k;
  if (q->n == 0) {
    q->at = 0;
    queue_resize(q, 0);
  }
  return (int)k;
}

static int queue_write(BIO *b, const char *p, int n) {
  Queue *q = BIO_get_data(b);
  size_t k;
  BIO_clear_retry_flags(b);
  if (n <= 0) return 0;
  k = queue_room(q, (size_t)n);
  if (k == 0) {
    if (q->core->receive_max && q->n >= q->core->receive_max)
      BIO_set_retry_write(b);
    else
      ERR_raise(ERR_LIB_BIO, ERR_R_MALLOC_FAILURE);
    return -1;
  }
  memcpy(q->p + q->at + q->n, p, k);
  q->n += k;
  return (int)k;
}

static long queue_ctrl(BIO *b, int cmd, long num, void *ptr) {
  const Queue *q = BIO_get_data(b);
  (void)num;
  (void)ptr;
  switch (cmd) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_PENDING: return (long)q->n;
    case BIO_CTRL_EOF: return q->eof && q->n == 0;
    default: return 0;
  }
}

static int queue_free(BIO *b) {
  Queue *q = BIO_get_data(b);
  if (q) queue_resize(q, 0);
  OPENSSL_free(q);
  BIO_set_data(b, NULL);
  return 1;
}

BIO_METHOD *lsock_memory_method(void) {
  BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 126, "lua memory");
  if (!m) return NULL;
  BIO_meth_set_read(m, queue_read);
  BIO_meth_set_write(m, queue_write);
  BIO_meth_set_ctrl(m, queue_ctrl);
  BIO_meth_set_destroy(m, queue_free);
  return m;
}

/* The queue is its BIO's, which connections share and may keep longer than the object lives. */
typedef struct Memory {
  uintptr_t seal;
  lsock_Ssl *st;
  BIO *b;
  Queue *q;
  unsigned held;
} Memory;
LSOCK_BEGINS_WITH_SEAL(Memory);

static Memory *check_memory(lua_State *L, int arg) {
  Memory *m = lsock_object(L, arg, LSOCK_KIND_BIO, sizeof *m);
  if (!m || !m->b || TLS_GONE(m)) luaL_typeerror(L, arg, "MemoryBIO");
  return m;
}

BIO *lsock_checkbio(lua_State *L, int arg) {
  return check_memory(L, arg)->b;
}

/* ssl.MemoryBIO() -> a queue of bytes that TLS reads from or writes to */
static int mod_memory(lua_State *L) {
  Memory *m = lua_newuserdatauv(L, sizeof *m, 0);
  memset(m, 0, sizeof *m);
  m->seal = LSOCK_SEAL(lsock_core(L), m, LSOCK_KIND_BIO);
  m->st = lsock_ssl(L);
  lsock_ssl_setmeta(L, TLS_META_BIO);
  m->b = BIO_new(m->st->memory);
  m->held = lsock_ssl_hold(m->st, m->b, TLS_HELD_BIO);
  m->q = m->b ? OPENSSL_zalloc(sizeof *m->q) : NULL;
  if (!m->q) return luaL_error(L, "not enough memory");
  m->q->core = lsock_core(L);
  BIO_set_data(m->b, m->q);
  BIO_set_init(m->b, 1);
  return 1;
}

static int memory_gc(lua_State *L) {
  Memory *m = lsock_object(L, 1, LSOCK_KIND_BIO, sizeof *m);
  if (!m) return 0;
  if (m->b && !TLS_GONE(m)) {
    lsock_ssl_release(m->st, m->held);
    BIO_free(m->b);
  }
  m->b = NULL;
  m->q = NULL;
  return 0;
}

/* b:read([n]) -> at most n bytes, "" if there are none, nil at the end */
static int memory_read(lua_State *L) {
  Memory *m = check_memory(L, 1);
  size_t have = m->q->n, n = lua_isnoneornil(L, 2) ? have : lsock_checksize(L, 2);
  luaL_Buffer b;
  char *p;
  int got;
  if (n > have) n = have;
  if (have == 0 && m->q->eof) {
    lua_pushnil(L);
    return 1;
  }
  p = luaL_buffinitsize(L, &b, n);
  got = m->b ? BIO_read(m->b, p, (int)n) : 0; /* a finalizer may have taken some, or all */
  luaL_pushresultsize(&b, got > 0 ? (size_t)got : 0);
  return 1;
}

/* b:write(bytes) -> their count */
static int memory_write(lua_State *L) {
  Memory *m = check_memory(L, 1);
  size_t n, room;
  const char *p = lsock_checkbytes(L, 2, &n);
  const lsock_Core *core = lsock_core(L);
  luaL_argcheck(L, n <= INT_MAX - m->q->n, 2, "too many bytes");
  if (m->q->eof) return luaL_error(L, "cannot write after write_eof");
  if (core->receive_max && n + m->q->n > core->receive_max) return lsock_failno(L, ENOBUFS, "write");
  room = queue_room(m->q, n);
  if (room < n) { /* what garbage holds it gives back when it is collected */
    lua_gc(L, LUA_GCCOLLECT);
    room = m->b ? queue_room(m->q, n) : 0;
  }
  if (room < n) return luaL_error(L, "not enough memory");
  if (n > 0) BIO_write(m->b, p, (int)n);
  lsock_ssl_pace(L);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* b:write_eof() -> b: no more bytes will come */
static int memory_write_eof(lua_State *L) {
  check_memory(L, 1)->q->eof = 1;
  lua_settop(L, 1);
  return 1;
}

static const lsock_Reg memory_methods[] = {
    {"read", memory_read}, {"!write", memory_write}, {"write_eof", memory_write_eof}, {NULL, NULL}};

/* Upvalue 2: the methods. Fields: pending (bytes) and eof */
static int memory_index(lua_State *L) {
  const char *k = luaL_checkstring(L, 2);
  const Memory *m = check_memory(L, 1);
  lua_pushvalue(L, 2);
  if (lua_gettable(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
  if (strcmp(k, "pending") == 0)
    lua_pushinteger(L, (lua_Integer)m->q->n);
  else if (strcmp(k, "eof") == 0)
    lua_pushboolean(L, m->q->eof && m->q->n == 0);
  else
    lua_pushnil(L);
  return 1;
}

/* ---------------------------------------------------------------- opening */

/* SSLObject's __index; upvalue 2: the methods */
static int obj_index(lua_State *L) {
  lua_pushvalue(L, 2);
  if (lua_gettable(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
  return lua_type(L, 2) == LUA_TSTRING && lsock_tls_field(L, 1, lua_tostring(L, 2)) ? 1 : 0;
}

static int obj_gc(lua_State *L) {
  lsock_Tls *t = lsock_object(L, 1, LSOCK_KIND_TLS, sizeof *t);
  if (!t || t->L) return 0;
  lsock_tls_finish(t);
  return 0;
}

static const lsock_Reg obj_meta[] = {{"__gc", obj_gc}, {"__newindex", lsock_tls_newindex}, {NULL, NULL}};
static const lsock_Reg memory_meta[] = {{"__gc", memory_gc}, {NULL, NULL}};
static const lsock_Reg session_meta[] = {
    {"__eq", session_eq}, {"__gc", session_gc}, {"__index", session_index}, {NULL, NULL}};
static const lsock_Reg functions[] = {{"MemoryBIO", mod_memory}, {NULL, NULL}};

void lsock_open_sslobj(lua_State *L, int core) {
  const lsock_Core *c = lua_touserdata(L, core);
  int table = lua_gettop(L), st;
  lua_getiuservalue(L, core, LSOCK_UV_TLS);
  st = lua_gettop(L);
  lsock_ssl_newmeta(L, core, "SSLObject", obj_meta);
  lua_pushvalue(L, core);
  lua_newtable(L);
  c->api->do_register(L, core, lsock_tls_methods);
  c->api->do_register(L, core, lsock_stream_methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, table, "SSLObject");
  lua_pushcclosure(L, obj_index, 2);
  lua_setfield(L, -2, "__index");
  lua_setiuservalue(L, st, TLS_META_OBJ);
  lsock_ssl_newmeta(L, core, "MemoryBIO", memory_meta);
  lua_pushvalue(L, core);
  lua_newtable(L);
  c->api->do_register(L, core, memory_methods);
  lua_pushcclosure(L, memory_index, 2);
  lua_setfield(L, -2, "__index");
  lua_setiuservalue(L, st, TLS_META_BIO);
  lsock_ssl_newmeta(L, core, "SSLSession", session_meta);
  lua_setiuservalue(L, st, TLS_META_SESSION);
  lua_settop(L, table);
  c->api->do_register(L, core, functions);
}
