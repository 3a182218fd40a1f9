/*
** lsocket_sslsock.c: TLS as a transport under the core's stream operations, and sockets that use it.
**
** Every function here tries once and says what stands in the way; the core's driver waits. Bytes come and go through
** lsocket_sslbio.c.
*/
#include "lsocket_ssl.h"

#include <string.h>

/* Records without data (tickets, key updates) taken in one attempt, so that a peer that sends nothing else is waited for. */
#define IDLE_RECORDS 64

/* ---------------------------------------------------------------- connections */

/* The same, without what the end of the state has freed. */
static lsock_Tls *living(lsock_Tls *t) {
  if (TLS_GONE(t)) t->ssl = NULL;
  return t;
}

lsock_Tls *lsock_checktls(lua_State *L, int arg) {
  lsock_TlsSock *s = lsock_object(L, arg, LSOCK_KIND_SOCK, sizeof *s);
  lsock_Tls *t = s ? &s->t : lsock_object(L, arg, LSOCK_KIND_TLS, sizeof *t);
  if (t) return living(t);
  for (;;) luaL_typeerror(L, arg, "TLS socket"); /* as in lsock_nosock */
}

/* The connection of the new object on top, which is zero yet. */
static void init(lua_State *L, lsock_Tls *t, const lsock_Wrap *w, int meta) {
  t->st = lsock_ssl(L);
  t->fd = LSOCK_NOFD;
  t->ctx = lua_touserdata(L, w->ctx);
  t->server = (unsigned char)w->server;
  t->suppress = (unsigned char)w->suppress;
  t->handshake = (unsigned char)w->handshake;
  lua_pushvalue(L, w->ctx);
  lua_setiuservalue(L, -2, TLS_UV_CTX);
  if (w->host) {
    lua_pushvalue(L, w->host);
    lua_setiuservalue(L, -2, TLS_UV_HOST);
  }
  lsock_ssl_setmeta(L, meta);
}

/* Tells OpenSSL the name that the peer must prove and, unless it is an address, be asked for. */
static int set_host(lsock_Tls *t, const char *host) {
  X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
  unsigned char address[16];
  size_t n = lsock_tls_address(host, address);
  if (n == 0 && !SSL_ctrl(t->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t)host))
    return 0;
  if (!t->ctx->check_hostname) return 1;
  t->named = 1;
  X509_VERIFY_PARAM_set_hostflags(param, t->ctx->host_flags);
  return n ? X509_VERIFY_PARAM_set1_ip(param, address, n) : X509_VERIFY_PARAM_set1_host(param, host, 0);
}

int lsock_tls_bind(SSL *ssl, const unsigned char *name, size_t len) {
  unsigned char id[EVP_MAX_MD_SIZE];
  unsigned n;
  if (!EVP_Digest(name ? (const void *)name : "", len, id, &n, EVP_sha256(), NULL)) return 0;
  id[SSL_MAX_SID_CTX_LENGTH - 1] = (unsigned char)SSL_get_verify_mode(ssl);
  return SSL_set_session_id_context(ssl, id, SSL_MAX_SID_CTX_LENGTH);
}

void lsock_tls_ask(lsock_Tls *t, const lsock_Ctx *c) {
  int later = c->pha && t->server ? SSL_VERIFY_POST_HANDSHAKE : 0;
  SSL_set_verify(t->ssl, SSL_CTX_get_verify_mode(c->ctx) | later, NULL);
}

/*
** Makes OpenSSL's object for the connection on top. 0, or errno or the queue tell why not. Argument error `arg` for a
** session of another context.
*/
static int start(lua_State *L, lsock_Tls *t, const lsock_Wrap *w, int arg) {
  const char *host = w->host ? lua_tostring(L, w->host) : NULL;
  SSL_SESSION *session = w->session ? lsock_fit_session(L, w->session, w->ctx, w->host, arg) : NULL;
  ERR_clear_error();
  t->ssl = SSL_new(t->ctx->ctx);
  if (!t->ssl) return 0;
  t->held = lsock_ssl_hold(t->st, t->ssl, TLS_HELD_SSL);
  SSL_set_app_data(t->ssl, t);
  if (t->suppress) SSL_set_options(t->ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
  lsock_tls_ask(t, t->ctx);
  if (t->ctx->pha && !t->server) SSL_set_post_handshake_auth(t->ssl, 1);
  if (host && !set_host(t, host)) return 0;
  if (session && !SSL_set_session(t->ssl, session)) return 0;
  if (t->server) {
    /* not the context's: a client's PSK of TLS 1.3 is refused where there is one */
    if (!lsock_tls_bind(t->ssl, NULL, 0)) return 0;
    SSL_set_accept_state(t->ssl);
  } else
    SSL_set_connect_state(t->ssl);
  return 1;
}

static void pay_off(lsock_Tls *t) {
  lsock_bytes_free(&t->owed);
  t->owing = 0;
}

void lsock_tls_finish(lsock_Tls *t) {
  SSL *ssl = living(t)->ssl;
  lsock_ssl_release(t->st, t->held);
  /* without a goodbye OpenSSL would let nobody resume the session, though only an error of TLS is a reason */
  if (ssl && t->agreed && !(t->broken && t->why)) SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_get_shutdown(ssl));
  SSL_free(ssl);
  pay_off(t);
  lsock_bytes_free(&t->received);
  lsock_bytes_free(&t->aside);
  t->ssl = NULL;
  t->held = 0;
  t->fd = LSOCK_NOFD;
}

/* After the core's own __gc, upvalue 2: a socket that got no descriptor has not closed its connection. */
static int sock_gc(lua_State *L) {
  lsock_TlsSock *s = lsock_object(L, 1, LSOCK_KIND_SOCK, sizeof *s);
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  if (s && !s->t.L) lsock_tls_finish(&s->t);
  return 0;
}

/* ---------------------------------------------------------------- one attempt */

static int gone(lsock_Op *op, int err, const char *msg) {
  op->cls = 0;
  op->err = err;
  op->msg = msg;
  return LSOCK_FAIL;
}

static int tell_broken(lua_State *L, lsock_Op *op, lsock_Tls *t) {
  t->told = 1;
  return lsock_tls_broken(L, op, t);
}

int lsock_tls_begin(lua_State *L, lsock_Op *op, lsock_Tls *t) {
  if (!living(t)->ssl) return gone(op, EBADF, "socket is closed");
  if (t->L) return gone(op, EBUSY, "a callback of this connection is running");
  if (t->broken) return tell_broken(L, op, t);
  t->L = L;
  t->self = op->self;
  t->thrown = 0;
  t->nowait = op->nowait;
  t->err = t->blocked = 0;
  if (ERR_peek_error()) ERR_clear_error();
  return 0;
}

static void break_off(lsock_Tls *t, int ended) {
  t->broken = 1;
  t->ended = (unsigned char)ended;
  t->why = ended ? 0 : ERR_peek_last_error();
  t->why_errno = t->err;
  t->verify = SSL_get_verify_result(t->ssl);
  ERR_clear_error();
}

/* Describes the operation's error by what break_off found, which leaves the connection as it was. */
static int refuse(lua_State *L, lsock_Op *op, lsock_Tls *t) {
  break_off(t, 0);
  t->L = NULL;
  t->broken = 0;
  return lsock_tls_broken(L, op, t);
}

/* What an OpenSSL call that did not succeed means: 0 at the end of the stream, or as a step, LSOCK_FAIL yet undescribed. */
static int outcome(lsock_Op *op, lsock_Tls *t, int r) {
  unsigned long e;
  switch (SSL_get_error(t->ssl, r)) {
    case SSL_ERROR_WANT_READ:
      if (t->err == EINTR) return LSOCK_INTR;
      op->cls = t->st->cls[TLS_WANT_READ];
      return LSOCK_READ;
    case SSL_ERROR_WANT_WRITE:
      if (t->err == EINTR) return LSOCK_INTR;
      op->cls = t->st->cls[TLS_WANT_WRITE];
      return LSOCK_WRITE;
    case SSL_ERROR_ZERO_RETURN:
      if (!SSL_in_init(t->ssl)) return 0;
      break_off(t, 1);
      return LSOCK_FAIL;
    default:
      e = ERR_peek_last_error();
      break_off(t, e ? ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING
                     : t->err == 0);
      return LSOCK_FAIL;
  }
}

/*
** The direction that TLS needs may be another than that of the operation, and whoever comes first makes the handshake for all:
** so operations wait beside each other then. Not through a wait hook, which knows one for a direction: there the later one
** looks again from time to time.
*/
static int wait_beside(lua_State *L, lsock_Op *op, const lsock_Tls *t, int out) {
  int want = out == LSOCK_READ ? 1 << LSOCK_RD : 1 << LSOCK_WR;
  op->beside = !t->agreed || SSL_in_init(t->ssl) || (out == LSOCK_READ) != (op->dir == LSOCK_RD);
  if (op->coop && op->timeout != 0 && (op->s->waiting & want) &&
      (op->beside || op->s->waiting & want << LSOCK_BESIDE)) {
    luaL_checkstack(L, 8, "wait");
    return lsock_pause(L, op, LSOCK_RETRY);
  }
  op->w = op->s;
  op->wslot = op->self;
  return out;
}

/*
** The buffer of lsock_room is the core's for everybody, and a callback or a wake function may receive, which replaces it. So
** it is taken out of the core while those may run; what their own receives needed instead goes.
*/
typedef struct Borrowed {
  char *p;
  size_t size;
} Borrowed;

static Borrowed borrow(lsock_Core *core, const char *buf) {
  Borrowed b = {NULL, 0};
  if (buf != core->scratch) return b;
  b.p = core->scratch;
  b.size = core->scratch_size;
  core->scratch = NULL;
  core->scratch_size = 0;
  return b;
}

static void give_back(lua_State *L, lsock_Core *core, Borrowed b) {
  if (!b.p) return;
  if (core->scratch) {
    void *ud;
    lua_Alloc f = lua_getallocf(L, &ud);
    f(ud, core->scratch, core->scratch_size, 0);
  }
  core->scratch = b.p;
  core->scratch_size = b.size;
}

/* An attempt has made the handshake, or found out that the connection is over: who waits besides may not hear of it. */
static void spread(lua_State *L, const lsock_Op *op) {
  int top = lua_gettop(L);
  Borrowed b;
  luaL_checkstack(L, 8, "wake");
  b = borrow(op->core, op->core->scratch); /* with what was received */
  (void)lsock_wake(L, op->self, op->s);
  give_back(L, op->core, b);
  lua_settop(L, top);
}

ssize_t lsock_tls_end(lua_State *L, lsock_Op *op, lsock_Tls *t, ssize_t done, int out) {
  int agreed = t->agreed;
  t->L = NULL;
  if (!agreed) t->agreed = SSL_is_init_finished(t->ssl) != 0;
  if (t->doomed) {
    lsock_tls_finish(t);
    t->thrown = 0;
    return gone(op, ECANCELED, "socket was closed while waiting");
  }
  if (t->thrown) { /* the callback's own error, whatever became of the handshake */
    int thrown = t->thrown;
    t->thrown = 0;
    if (!t->broken) { /* without the key that a callback owes, TLS 1.3 would go on */
      t->err = ECONNABORTED;
      break_off(t, 0);
    }
    lua_pushvalue(L, thrown);
    lsock_thrown(L, op);
  }
  if (op->s && (agreed != t->agreed || t->broken)) spread(L, op);
  if (done > 0) return done;
  if (!t->ssl) return gone(op, ECANCELED, "socket was closed while waiting"); /* by the wake function */
  if (op->s && (out == LSOCK_READ || out == LSOCK_WRITE)) return wait_beside(L, op, t, out);
  return out == LSOCK_FAIL && t->broken ? tell_broken(L, op, t) : out;
}

/* Was it a record without data, not the descriptor, that ended the attempt? */
static int was_idle(lsock_Tls *t, int out) {
  if (out != LSOCK_READ || t->doomed || t->blocked) return 0;
  if (t->fd == LSOCK_NOFD && BIO_ctrl_pending(SSL_get_rbio(t->ssl)) == 0) t->blocked = 1; /* one look at the end */
  return 1;
}

int lsock_tls_handshake(lua_State *L, lsock_Op *op, lsock_Tls *t) {
  int r = lsock_tls_begin(L, op, t), out = 0;
  if (r < 0) return r;
  r = SSL_do_handshake(t->ssl);
  if (r != 1) {
    out = outcome(op, t, r);
    if (out == 0) {
      break_off(t, 1);
      out = LSOCK_FAIL;
    }
  }
  return (int)lsock_tls_end(L, op, t, r == 1, out);
}

/* Sends what is left of the record begun: 1, or as SSL_write_ex. Its bytes are not looked at again, but their number is. */
static int settle(lsock_Tls *t) {
  size_t put;
  if (t->owing && SSL_write_ex(t->ssl, t->owed.p, t->owed.n, &put)) t->owing = 0;
  return !t->owing;
}

/*
** What the peer sends may ask for an answer at once, which OpenSSL cannot give within a record: the rest of that is sent, or
** laid aside. If even that fails, the next write finds out why.
*/
static void make_way(lsock_Tls *t) {
  if (!t->owing) return;
  t->setting_aside = 1;
  if (!settle(t)) ERR_clear_error();
  t->setting_aside = 0;
  t->err = 0;
}

size_t lsock_tls_ready(const lsock_Tls *t) {
  int n = t->ssl && !TLS_GONE(t) ? SSL_pending(t->ssl) : -1;
  if (n != 0) return n > 0 ? (size_t)n : 0;
  return t->has_ahead || t->received.p || t->broken || (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN);
}

/*
** The script has its bytes, but the next record was begun, of which the descriptor need not tell any more: goes on to the
** first byte or the end of it, or until only the descriptor can tell.
*/
static void look_ahead(lsock_Op *op, lsock_Tls *t) {
  unsigned char byte;
  size_t got;
  int idle;
  t->nowait = 1;
  for (idle = 0; idle < IDLE_RECORDS && (t->has_ahead || t->received.p); idle++)
    if (t->doomed || SSL_pending(t->ssl) > 0 || SSL_peek_ex(t->ssl, &byte, 1, &got) || !was_idle(t, outcome(op, t, 0)))
      break;
}

ssize_t lsock_tls_read(lua_State *L, lsock_Op *op, lsock_Tls *t, char *buf, size_t n, int peek) {
  size_t total = 0, got;
  int idle = 0, out = lsock_tls_begin(L, op, t);
  Borrowed b;
  if (out < 0) return out;
  b = borrow(op->core, buf);
  make_way(t);
  for (;;) { /* as much as is at hand */
    if (peek ? SSL_peek_ex(t->ssl, buf, n, &got) : SSL_read_ex(t->ssl, buf + total, n - total, &got)) {
      total += got;
      if (peek || total == n || t->doomed) break;
      t->nowait = 1;
      continue;
    }
    out = outcome(op, t, 0);
    if (!was_idle(t, out)) break;
    if (idle++ == IDLE_RECORDS) {
      op->progress = 1; /* there may be more, of which nothing new is to be heard */
      break;
    }
  }
  if (total == n && !peek && (t->has_ahead || t->received.p)) look_ahead(op, t);
  if (total == 0 && out == 0) t->told = 1;
  give_back(L, op->core, b);
  return lsock_tls_end(L, op, t, (ssize_t)total, out);
}

/* A peer that is gone may have said why: its alert tells more than the failure to send to it. */
static void hear_out(lsock_Tls *t) {
  unsigned char byte;
  size_t got;
  unsigned long e;
  if (t->err != EPIPE && t->err != ECONNRESET) return;
  t->nowait = 1;
  if (SSL_peek_ex(t->ssl, &byte, 1, &got)) return;
  e = ERR_peek_last_error();
  if (ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) >= SSL_AD_REASON_OFFSET) t->why = e;
  ERR_clear_error();
}

/* OpenSSL's record of these bytes waits to be sent: 0 if there is no memory to remember them. */
static int owe(lsock_Tls *t, const char *data, size_t n) {
  int mode =
      SSL_SESSION_get_max_fragment_length(SSL_get0_session(t->ssl)); /* 1 ... 4: of 512 ... 4096 bytes (RFC 6066) */
  size_t most = mode > 0 ? (size_t)256 << mode : SSL3_RT_MAX_PLAIN_LENGTH;
  t->owing = 1;
  return lsock_bytes_set(&t->owed, data, n < most ? n : most);
}

/* Sends what was laid aside of it; 0, or as a step. */
static int flush(lsock_Op *op, lsock_Tls *t) {
  if (lsock_tls_flush(t)) return 0;
  if (t->err == EINTR) return LSOCK_INTR;
  if (t->err == EAGAIN || t->err == EWOULDBLOCK) {
    op->cls = t->st->cls[TLS_WANT_WRITE];
    return LSOCK_WRITE;
  }
  break_off(t, 0);
  hear_out(t);
  return LSOCK_FAIL;
}

/* How many of n bytes have to be those of the record begun. */
static size_t again(const lsock_Tls *t, size_t n) {
  size_t left = t->owed.n - t->owed.at;
  return n < left ? n : left;
}

ssize_t lsock_tls_write(lua_State *L, lsock_Op *op, lsock_Tls *t, const char *data, size_t n) {
  size_t total = 0, put;
  int out, many = n > SSL3_RT_MAX_PLAIN_LENGTH;
  if (n == 0) return 0;
  out = lsock_tls_begin(L, op, t);
  if (out < 0) return out;
  if (SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN) { /* likewise, and the peer may go on */
    ERR_raise(ERR_LIB_SSL, SSL_R_PROTOCOL_IS_SHUTDOWN);
    return refuse(L, op, t);
  }
  if (t->owed.p && memcmp(data, t->owed.p + t->owed.at, again(t, n)) != 0) {
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_WRITE_RETRY);
    return refuse(L, op, t);
  }
  if (t->aside.p && (out = flush(op, t)) < 0) return lsock_tls_end(L, op, t, 0, out);
  if (many) SSL_clear_mode(t->ssl, SSL_MODE_RELEASE_BUFFERS); /* the buffer serves them all */
  while (total < n && !t->doomed) {                           /* a record each */
    if (many && n - total <= SSL3_RT_MAX_PLAIN_LENGTH) SSL_set_mode(t->ssl, SSL_MODE_RELEASE_BUFFERS);
    if (t->owed.p ? settle(t) : SSL_write_ex(t->ssl, data + total, n - total, &put)) {
      if (t->owed.p) {
        put = again(t, n);
        t->owed.at += put;
        if (t->owed.at == t->owed.n) pay_off(t);
      }
      total += put;
      continue;
    }
    out = outcome(op, t, 0);
    if (out == 0) { /* nothing can be sent any more */
      break_off(t, 1);
      out = LSOCK_FAIL;
    }
    if (out == LSOCK_FAIL) hear_out(t);
    if (out != LSOCK_FAIL && !t->owed.p && SSL_want_write(t->ssl) && !SSL_in_init(t->ssl) &&
        !owe(t, data + total, n - total)) {
      t->err = ENOMEM;
      break_off(t, 0);
      out = LSOCK_FAIL;
    }
    break;
  }
  if (many) SSL_set_mode(t->ssl, SSL_MODE_RELEASE_BUFFERS);
  return lsock_tls_end(L, op, t, (ssize_t)total, out);
}

/* Sends close_notify and, if `both`, waits for the peer's. */
int lsock_tls_goodbye(lua_State *L, lsock_Op *op, lsock_Tls *t, int both) {
  int r = lsock_tls_begin(L, op, t), out = 0, idle = 0;
  if (r < 0) return r;
  if (SSL_in_init(t->ssl)) { /* SSL_shutdown says the same, but nothing is broken */
    ERR_raise(ERR_LIB_SSL, SSL_R_SHUTDOWN_WHILE_IN_INIT);
    return refuse(L, op, t);
  }
  do {
    r = settle(t) ? SSL_shutdown(t->ssl) : -1;
    if (r == 0 && both) r = SSL_shutdown(t->ssl);
    out = r < 0 ? outcome(op, t, r) : 0;
  } while (was_idle(t, out) && idle++ < IDLE_RECORDS);
  op->progress |= idle > IDLE_RECORDS; /* as in lsock_tls_read */
  if (r < 0 && out == 0) r = 1;
  return (int)lsock_tls_end(L, op, t, r >= 0, out);
}

/* ---------------------------------------------------------------- the transport */

static ssize_t tr_receive(lua_State *L, lsock_Op *op, char *buf, size_t n, int flags) {
  int known = MSG_PEEK | LSOCK_SEND_NOW | LSOCK_NOSIGNAL;
#if defined(MSG_WAITALL)
  known |= MSG_WAITALL;
#endif
  if (flags & ~known) return gone(op, EOPNOTSUPP, "flag not possible over TLS");
  return lsock_tls_read(L, op, op->s->trdata, buf, n, flags & MSG_PEEK);
}

static ssize_t tr_transmit(lua_State *L, lsock_Op *op, const char *data, size_t n, int flags) {
  if (flags & ~(LSOCK_SEND_NOW | LSOCK_NOSIGNAL)) return gone(op, EOPNOTSUPP, "flag not possible over TLS");
  return lsock_tls_write(L, op, op->s->trdata, data, n);
}

/* Half-close: this end says goodbye and goes on reading. */
static int tr_shutdown(lua_State *L, lsock_Op *op, int how) {
  lsock_Tls *t = living(op->s->trdata);
  int r;
  if (how == SHUT_RD || !t->ssl || t->broken || SSL_in_init(t->ssl)) return 0;
  r = lsock_tls_goodbye(L, op, t, 0);
  return r < 0 ? r : 0;
}

static int tr_connected(lua_State *L, lsock_Op *op) {
  lsock_Tls *t = op->s->trdata;
  int r = t->handshake ? lsock_tls_handshake(L, op, t) : 1;
  return r < 0 ? r : 0;
}

static size_t tr_pending(const lsock_Sock *s) {
  return lsock_tls_ready(s->trdata);
}

/*
** A server of TLS 1.3 sends tickets that a client may never read. To close then would reset the connection, and what Nagle's
** algorithm still holds back, the goodbye for one, would be lost.
*/
static void drop_unread(const lsock_Tls *t) {
  char buf[2048];
  int i;
  for (i = 0; i < 8 && recv(t->fd, buf, sizeof buf, MSG_DONTWAIT) == (ssize_t)sizeof buf; i++) {}
}

static void tr_closing(lsock_Sock *s, int last) {
  lsock_Tls *t = living(s->trdata);
  s->tr = NULL;
  if (t->L) { /* by a callback; OpenSSL still works with it */
    t->doomed = 1;
    t->fd = LSOCK_NOFD; /* its number may soon be another's */
    return;
  }
  if (last && t->ssl && !t->broken && !SSL_in_init(t->ssl) && !(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN)) {
    t->nowait = 1;
    if (settle(t)) (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
    if (!t->server) drop_unread(t);
  }
  lsock_tls_finish(t);
}

static int tr_accepted(lua_State *L, lsock_Op *op, int slot);

static const lsock_Transport transport = {tr_receive,  tr_transmit, tr_shutdown, tr_connected,
                                          tr_accepted, tr_pending,  tr_closing};

/* Pushes a closed TLS socket. */
static lsock_Sock *new_sock(lua_State *L, const lsock_Wrap *w, int arg, int *ok) {
  lsock_Sock *s;
  lsock_Tls *t;
  lsock_ssl_charge(L, TLS_COST_OBJ);
  s = lsock_newsockuv(L, lsock_core(L), sizeof(lsock_TlsSock), TLS_UV_COUNT);
  t = &((lsock_TlsSock *)s)->t;
  s->trdata = t;
  init(L, t, w, TLS_META_SOCK);
  *ok = start(L, t, w, arg) && lsock_tls_attach(t);
  return s;
}

/* Gives it the descriptor of the socket at `from`. */
static void take_over(lua_State *L, lsock_Sock *s, int from, lsock_Sock *plain) {
  lsock_Tls *t = s->trdata;
  s->timeout = plain->timeout;
  s->idle = plain->idle;
  s->family = plain->family;
  s->type = plain->type;
  s->proto = plain->proto;
  s->shared = plain->shared;
  s->nonblocking = plain->timeout == 0;
  s->tr = &transport;
  t->fd = plain->fd;
  if (plain->counted) lsock_count(lsock_core(L), s);
  lsock_takefd(L, from, plain, &s->fd);
  lsock_hold(L, s->fd);
}

/* The listener's context and settings serve for the new connection. */
static int tr_accepted(lua_State *L, lsock_Op *op, int slot) {
  lsock_Sock *s = lua_touserdata(L, slot);
  int r;
  if (!s->tr) {
    lsock_Tls *t = op->s->trdata;
    lsock_Wrap w = {0};
    int ok, top = lua_gettop(L);
    lsock_Sock *n;
    luaL_checkstack(L, 8, "accept");
    lua_getiuservalue(L, op->self, TLS_UV_CTX);
    w.ctx = lua_gettop(L);
    lsock_checkctx(L, w.ctx);
    w.server = t->server;
    w.suppress = t->suppress;
    w.handshake = t->handshake;
    n = new_sock(L, &w, 0, &ok);
    if (!ok) return gone(op, ENOMEM, NULL);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    lsock_guard(L, top + 1);
    take_over(L, n, slot, s);
    lua_pushvalue(L, top + 1);
    lua_replace(L, slot);
    lsock_keepstack(L, op);
    s = n;
  }
  if (!((lsock_Tls *)s->trdata)->handshake || op->timeout == 0) return 0; /* what never waits is still to make it */
  {
    lsock_Sock *listener = op->s;
    int self = op->self;
    op->s = s; /* errors and callbacks are the new one's */
    op->self = slot;
    r = lsock_tls_handshake(L, op, s->trdata);
    op->s = listener;
    op->self = self;
  }
  op->w = s;
  op->wslot = slot;
  return r < 0 ? r : 0;
}

/* ---------------------------------------------------------------- wrap_socket */

static int step_handshake(lua_State *L, lsock_Op *op) {
  int r = lsock_tls_handshake(L, op, lsock_checktls(L, op->self));
  if (r < 0) return r;
  lua_pushvalue(L, op->self);
  return 1;
}

/* The last of wrap_socket, whose guard is then needed no more. */
static int step_wrap(lua_State *L, lsock_Op *op) {
  int r = step_handshake(L, op);
  if (r > 0) LSOCK_SPARE(op->s);
  return r;
}

/*
** Is it connected? 1, 0, or -1 and errno: it was. What was received then must not pass for something that came over TLS
** (CVE-2023-40217).
*/
static int is_connected(const lsock_Sock *s) {
  lsock_Addr a;
  char byte;
  a.len = sizeof a.u;
  if (getpeername(s->fd, &a.u.sa, &a.len) == 0) return 1;
  if (errno != ENOTCONN) return -1;
  if (recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) {
    errno = ECONNRESET;
    return -1;
  }
  return errno == ENOTCONN || errno == EINVAL || errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
}

int lsock_wrap(lua_State *L, int arg, const lsock_Wrap *w, int legacy, const char *name) {
  lsock_Sock *plain = lsock_checksock(L, arg, lsock_core(L)), *s;
  const char *received = NULL;
  size_t n = 0;
  lsock_Op op;
  int ok, err, connected, self;
  luaL_argcheck(L, !plain->trdata, arg, "is a TLS socket already");
  luaL_argcheck(L, plain->type == SOCK_STREAM, arg, "only stream sockets can be wrapped");
  luaL_argcheck(L, plain->files == 0, arg, "has open files");
  if (lsock_isclosed(plain)) {
    lsock_Fail f = {0};
    f.err = EBADF;
    f.op = name;
    f.msg = "socket is closed";
    return lsock_fail(L, &f);
  }
  connected = is_connected(plain);
  err = errno;
  luaL_argcheck(L, plain->timeout != 0 || !w->handshake || connected <= 0, arg,
                "non-blocking sockets need do_handshake_on_connect = false");
  luaL_argcheck(L, connected != 0 || !w->received, arg, "received is for connected sockets");
  s = new_sock(L, w, arg + 1, &ok);
  self = lua_gettop(L);
  if (!ok) return lsock_ssl_fail(L, name, ENOMEM);
  if (lsock_isclosed(plain)) return lsock_failno(L, EBADF, name); /* by a finalizer */
  s->internal = legacy != 0;
  ((lsock_Tls *)s->trdata)->legacy = (unsigned char)legacy;
  lsock_guard(L, self);
  take_over(L, s, arg, plain);
  if (connected < 0) return lsock_failno(L, err, name);
  if (w->received) received = lsock_checkbytes(L, w->received, &n);
  if (n > 0 && !lsock_bytes_set(&((lsock_Tls *)s->trdata)->received, received, n)) return lsock_failno(L, ENOMEM, name);
  if (!w->handshake || !connected) {
    lua_pushvalue(L, self);
    LSOCK_SPARE(s);
    return 1;
  }
  lsock_op_on(L, &op, self, name, step_wrap, LSOCK_RD);
  return lsock_run(L, &op);
}

/* ---------------------------------------------------------------- methods */

lsock_Tls *lsock_tls_op(lua_State *L, lsock_Op *op, const char *name, lsock_Step step, int dir) {
  lsock_Tls *t = lsock_checktls(L, 1);
  if (lsock_object(L, 1, LSOCK_KIND_SOCK, sizeof(lsock_Sock)))
    lsock_op(L, op, name, step, dir);
  else {
    lsock_ssl_pace(L);
    lsock_op_free(L, op, name, step);
    op->timeout = 0;
  }
  return t;
}

/* s:do_handshake() -> s */
static int tls_do_handshake(lua_State *L) {
  lsock_Op op;
  lua_settop(L, 1);
  lsock_tls_op(L, &op, "do_handshake", step_handshake, LSOCK_RD);
  return lsock_run(L, &op);
}

static int step_read(lua_State *L, lsock_Op *op) {
  lsock_Tls *t = lsock_checktls(L, 1);
  char *p = lsock_room(L, op);
  ssize_t n = lsock_tls_read(L, op, t, p, op->len, 0);
  if (n < 0) return (int)n;
  if (n == 0)
    lua_pushnil(L);
  else if (op->state == LSOCK_COUNT)
    lua_pushinteger(L, (lua_Integer)n);
  else
    lua_pushlstring(L, p, (size_t)n);
  return 1;
}

/* socket.ssl's objects: read(n) gives n bytes, read() all up to the end */
static int read_legacy(lua_State *L) {
  if (lua_getiuservalue(L, 1, TLS_UV_FILE) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_getfield(L, 1, "makefile");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, TLS_UV_FILE);
  }
  lua_getfield(L, -1, lua_toboolean(L, LSOCK_UP_TRY) ? "try_read" : "read");
  lua_insert(L, -2);
  if (lua_isnoneornil(L, 2))
    lua_pushliteral(L, "a");
  else
    lua_pushinteger(L, luaL_checkinteger(L, 2));
  return 2;
}

static int read_on(lua_State *L, int status, lua_KContext base) {
  (void)status;
  return lua_gettop(L) - (int)base;
}

/* s:read([n [, buffer]]) -> string of at most n bytes (default 1024), or their count in the buffer; nil at the end */
static int tls_read(lua_State *L) {
  lsock_Op op;
  lsock_Tls *t;
  lua_settop(L, 3);
  t = lsock_tls_op(L, &op, "read", step_read, LSOCK_RD);
  if (t->legacy && lua_isnil(L, 3)) {
    int n = read_legacy(L);
    int base = lua_gettop(L) - n - 1;
    lua_callk(L, n, LUA_MULTRET, base, read_on);
    return read_on(L, LUA_OK, base);
  }
  op.len = lua_isnil(L, 2) ? 1024 : lsock_checksize(L, 2);
  if (!lua_isnil(L, 3)) {
    size_t room;
    op.into = lsock_checkbuffer(L, 3, &room);
    luaL_argcheck(L, lua_isnil(L, 2) || op.len <= room, 2, "is more than the buffer has");
    if (op.len > room || op.len == 0 || lua_isnil(L, 2)) op.len = room;
    op.state = LSOCK_COUNT;
  }
  if (op.len == 0) {
    if (op.state == LSOCK_COUNT)
      lua_pushinteger(L, 0);
    else
      lua_pushliteral(L, "");
    return 1;
  }
  return lsock_run(L, &op);
}

static int step_tls_write(lua_State *L, lsock_Op *op) {
  ssize_t n = lsock_tls_write(L, op, lsock_checktls(L, 1), op->data, op->len);
  if (n < 0) return (int)n;
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

/* s:write(bytes) -> count of bytes sent */
static int tls_write(lua_State *L) {
  lsock_Op op;
  lsock_tls_op(L, &op, "write", step_tls_write, LSOCK_WR);
  op.data = lsock_checkbytes(L, 2, &op.len);
  return lsock_run(L, &op);
}

static int step_unwrap(lua_State *L, lsock_Op *op) {
  lsock_Tls *t = lsock_checktls(L, 1);
  int r = lsock_tls_goodbye(L, op, t, 1);
  lsock_Sock *s = op->s, *plain;
  if (r < 0) return r;
  if (!s) {
    lua_pushvalue(L, 1);
    return 1;
  }
  if (t->has_ahead || t->received.p) /* padded: see read_body */
    return gone(op, EPROTO, "the goodbye was too long for what follows it");
  plain = lsock_newsockuv(L, op->core, sizeof *plain, 0);
  lsock_guard(L, lua_gettop(L));
  plain->timeout = s->timeout;
  plain->idle = s->idle;
  plain->family = s->family;
  plain->type = s->type;
  plain->proto = s->proto;
  plain->shared = s->shared;
  plain->nonblocking = s->nonblocking;
  if (s->counted) lsock_count(op->core, plain);
  lsock_takefd(L, 1, s, &plain->fd);
  lsock_hold(L, plain->fd);
  lua_pushvalue(L, -1);
  LSOCK_SPARE(plain);
  return 1;
}

/*
** s:unwrap() -> plain socket: says goodbye and waits for the peer's goodbye; the TLS socket is closed. An SSLObject returns
** itself.
*/
static int tls_unwrap(lua_State *L) {
  lsock_Op op;
  lua_settop(L, 1);
  lsock_tls_op(L, &op, "unwrap", step_unwrap, LSOCK_RD);
  if (op.s) luaL_argcheck(L, op.s->files == 0, 1, "has open files");
  return lsock_run(L, &op);
}

static int step_verify_client(lua_State *L, lsock_Op *op) {
  lsock_Tls *t = lsock_checktls(L, 1);
  int r = lsock_tls_begin(L, op, t), out = 0;
  if (r < 0) return r;
  make_way(t);
  r = SSL_verify_client_post_handshake(t->ssl);
  if (r != 1) out = outcome(op, t, -1);
  if (r != 1) t->broken = 0; /* only the request was wrong */
  r = (int)lsock_tls_end(L, op, t, r == 1, out);
  if (r == LSOCK_FAIL && !t->broken) r = lsock_tls_broken(L, op, t);
  if (r < 0) return r;
  lua_pushvalue(L, 1);
  return 1;
}

/* s:verify_client_post_handshake() -> s: a TLS 1.3 server asks for the client's certificate; the answer comes with data */
static int tls_verify_client(lua_State *L) {
  lsock_Op op;
  lua_settop(L, 1);
  lsock_tls_op(L, &op, "verify_client_post_handshake", step_verify_client, LSOCK_WR);
  return lsock_run(L, &op);
}

/* Of SSLObjects too */
const lsock_Reg lsock_stream_methods[] = {{"!do_handshake", tls_do_handshake},
                                          {"!read", tls_read},
                                          {"!unwrap", tls_unwrap},
                                          {"!verify_client_post_handshake", tls_verify_client},
                                          {"!write", tls_write},
                                          {NULL, NULL}};

/* Pushes a new SSLObject over two MemoryBIOs; what the C function returns. */
int lsock_wrap_bio(lua_State *L, const lsock_Wrap *w, int in, int out) {
  lsock_Tls *t;
  BIO *i, *o;
  lsock_ssl_charge(L, TLS_COST_OBJ);
  t = lua_newuserdatauv(L, sizeof *t + TLS_COST_OBJ, TLS_UV_COUNT);
  memset(t, 0, sizeof *t);
  t->seal = LSOCK_SEAL(lsock_core(L), t, LSOCK_KIND_TLS);
  init(L, t, w, TLS_META_OBJ);
  if (!start(L, t, w, 4)) return lsock_ssl_fail(L, "wrap_bio", ENOMEM);
  i = lsock_checkbio(L, in);
  o = lsock_checkbio(L, out);
  BIO_up_ref(i);
  if (i != o) BIO_up_ref(o); /* one reference does for both (SSL_set_bio(3)) */
  SSL_set_bio(t->ssl, i, o);
  return 1;
}

/* ---------------------------------------------------------------- opening */

/* Upvalue 2 the methods of TLS sockets, 3 those of all sockets, 4 the core's own __index. */
static int sock_index(lua_State *L) {
  lua_pushvalue(L, 2);
  if (lsock_likely(lua_gettable(L, lua_upvalueindex(3)) != LUA_TNIL)) {
    lua_pushvalue(L, 2); /* few are overridden, but those matter */
    if (lua_gettable(L, lua_upvalueindex(2)) == LUA_TNIL) lua_pop(L, 1);
    return 1;
  }
  lua_pushvalue(L, 2);
  if (lua_gettable(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
  lua_settop(L, 2);
  if (lua_type(L, 2) == LUA_TSTRING && lsock_tls_field(L, 1, lua_tostring(L, 2))) return 1;
  lua_pushvalue(L, lua_upvalueindex(4));
  lua_insert(L, 1);
  lua_call(L, 2, 1);
  return 1;
}

/* The table of the library is on top; the state on `core`. */
void lsock_open_sslsock(lua_State *L, int core) {
  lsock_Core *c = lua_touserdata(L, core);
  int table = lua_gettop(L), st, common, meta;
  lua_getiuservalue(L, core, LSOCK_UV_TLS);
  st = lua_gettop(L);
  if (!c->tls.bio) c->tls.bio = lsock_tls_newmethod();
  if (!c->tls.memory) c->tls.memory = lsock_memory_method();
  if (!c->tls.bio || !c->tls.memory) luaL_error(L, "not enough memory");
  lua_getiuservalue(L, core, LSOCK_UV_SOCKET);
  common = lua_gettop(L);
  lua_newtable(L);
  meta = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, common);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, meta);
  }
  lua_pushvalue(L, core);
  lua_getfield(L, common, "__gc");
  lua_pushcclosure(L, sock_gc, 2);
  lua_setfield(L, meta, "__gc");
  lua_pushvalue(L, core);
  lua_newtable(L);
  c->api->do_register(L, core, lsock_tls_methods);
  c->api->do_register(L, core, lsock_stream_methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, table, "SSLSocket");
  lua_getfield(L, common, "__index");
  lua_getupvalue(L, -1, 2); /* SocketType */
  lua_insert(L, -2);
  lua_pushcclosure(L, sock_index, 4);
  lua_setfield(L, meta, "__index");
  lua_pushvalue(L, core);
  lua_pushcclosure(L, lsock_tls_newindex, 1);
  lua_setfield(L, meta, "__newindex");
  lua_settop(L, meta);
  lua_setiuservalue(L, st, TLS_META_SOCK);
  lua_settop(L, table);
}
