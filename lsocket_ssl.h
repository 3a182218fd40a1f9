/*
** lsocket_ssl.h: types and functions shared by the files of the TLS library, socket/ssl.so.
**
** Dependencies: sslerr, sslbio, sslopt, x509 -> sslsock -> { sslobj, sslalgo, sslpsk, sslctx } -> lsocket_ssl.c.
*/
#ifndef LSOCKET_SSL_H
#define LSOCKET_SSL_H

#define LSOCKET_BESIDE 1 /* lsocket_api.h */
#include "lsocket_int.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* ---------------------------------------------------------------- the state of the library in one lua_State */

enum { /* error classes */
       TLS_ERROR,
       TLS_ZERO_RETURN,
       TLS_WANT_READ,
       TLS_WANT_WRITE,
       TLS_SYSCALL,
       TLS_EOF,
       TLS_VERIFICATION,
       TLS_CLASSES
};

_Static_assert(sizeof(((lsock_Ssl *)0)->cls) == TLS_CLASSES * sizeof(int), "a number for each class");

/* The core's user value LSOCK_UV_TLS. */
typedef struct lsock_SslState {
  uintptr_t seal;
} lsock_SslState;
LSOCK_BEGINS_WITH_SEAL(lsock_SslState);

enum { /* its user values: metatables */
       TLS_META_CTX = 1,
       TLS_META_SOCK,
       TLS_META_OBJ,
       TLS_META_BIO,
       TLS_META_SESSION,
       TLS_META_COUNT = TLS_META_SESSION
};

/*
** Lua gives up an object whose __gc it has no memory to call. So what OpenSSL allocated for objects is known here too, and
** what is left is freed with the state. A place in the list, or 0 where there is no memory for it.
*/
enum { TLS_HELD_CTX = 1, TLS_HELD_SSL, TLS_HELD_SESSION, TLS_HELD_BIO, TLS_HELD_FD };
unsigned lsock_ssl_hold(lsock_Ssl *st, void *p, int kind);
void lsock_ssl_release(lsock_Ssl *st, unsigned place);

/* Freed so, while an older finalizer still finds the object? */
#define TLS_GONE(o) ((o)->held && (o)->st->ended)

#define lsock_ssl(L) (&lsock_core(L)->tls)

/* Tells the collector what MemoryBIOs have grown by; finalizers may run. */
void lsock_ssl_pace(lua_State *L);

/*
** What OpenSSL allocates for an object neither Lua's collector nor the host's allocator can see. So the object itself is
** larger by as much, roughly, for the collector to come in time and for the host's limit to bind. Those of sockets have
** their descriptors' limit. Before one is made, lsock_ssl_charge makes the collector work for it once more: what has a
** finalizer outlives one of its cycles, and counts as alive when it chooses the time of the next. Finalizers may run.
*/
enum { TLS_COST_CTX = 13000, TLS_COST_OBJ = 16000, TLS_COST_SESSION = 2000 };
void lsock_ssl_charge(lua_State *L, size_t bytes);

/* Gives the userdata on top one of the metatables. */
void lsock_ssl_setmeta(lua_State *L, int meta);

/* A metatable with that name and these functions; stays on top. */
void lsock_ssl_newmeta(lua_State *L, int core, const char *name, const lsock_Reg *regs);

/*
** Calls f with a light userdata as its only argument, like lua_pcall but with the results left alone: what OpenSSL allocated
** can be freed before an error goes on. The number of results, or -1 with the error on top. Needs 6 free places on the stack.
*/
int lsock_ssl_try(lua_State *L, lua_CFunction f, void *arg);

/* ---------------------------------------------------------------- contexts */

typedef struct lsock_Ctx {
  uintptr_t seal;
  lsock_Ssl *st;
  SSL_CTX *ctx;
  unsigned held;
  int protocol;
  unsigned char check_hostname, pha;
  unsigned host_flags;
  unsigned char *alpn; /* as on the wire */
  unsigned alpn_len;
  int keylog; /* descriptor, or -1 */
  unsigned keylog_held;
} lsock_Ctx;
LSOCK_BEGINS_WITH_SEAL(lsock_Ctx);

enum { /* protocols, with Python's numbers */
       PROTOCOL_TLS = 2,
       PROTOCOL_TLS_CLIENT = 16,
       PROTOCOL_TLS_SERVER = 17
};

enum { /* user values of a context */
       CTX_UV_SNI = 1,
       CTX_UV_KEYLOG,
       CTX_UV_PSK_CLIENT,
       CTX_UV_PSK_SERVER,
       CTX_UV_ALPN,  /* as large as the list in C */
       CTX_UV_CERTS, /* of lsock_ctx_loadlocations */
       CTX_UV_COUNT = CTX_UV_CERTS
};

lsock_Ctx *lsock_toctx(lua_State *L, int arg);
lsock_Ctx *lsock_checkctx(lua_State *L, int arg);

/* Pushes a new context; with everything a default one has if `secure`. */
lsock_Ctx *lsock_newctx(lua_State *L, int protocol);

/* Certificate chain and key from files; password at stack index `password`, 0 for none. Returns 0, or the results. */
int lsock_ctx_loadchain(lua_State *L, lsock_Ctx *c, const char *cert, const char *key, int password, const char *op);

/* 0, or the results of the failure. */
int lsock_ctx_loadlocations(lua_State *L, int ctx, const char *file, const char *path, const char *data, size_t len,
                            const char *op);

/*
** Copies a list of ciphers, each of them once; their number. The list is OpenSSL's and goes when another is set; the ciphers are
** constants.
*/
enum { TLS_CIPHERS = 512 };
int lsock_ssl_ciphers(const STACK_OF(SSL_CIPHER) * from, const SSL_CIPHER **list);

extern const lsock_Reg lsock_algo_methods[]; /* of contexts too */
extern const lsock_Reg lsock_psk_methods[];

/* ---------------------------------------------------------------- connections */

/* A copy of some bytes, and how many of them have been used; p is NULL if there are none. */
typedef struct lsock_Bytes {
  unsigned char *p;
  size_t n, at;
} lsock_Bytes;

/*
** An SSLObject, or the second part of a TLS socket, which it lives and dies with. OpenSSL's callbacks find it through their
** SSL, and only while it is at work for them: on the stack.
*/
typedef struct lsock_Tls {
  uintptr_t seal; /* of an SSLObject */
  lsock_Ssl *st;
  SSL *ssl; /* NULL when closed */
  unsigned held;
  lsock_Ctx *ctx; /* its user value, if nobody tampered with that */
  lua_State *L;   /* who is calling OpenSSL, NULL between calls */
  int self;       /* then: stack index of the socket or object, 0 none ... */
  int thrown;     /* ... and of the error a callback raised, 0 none */
  lsock_fd fd;
  int nowait, err, blocked;                  /* of the BIO's last call */
  lsock_Bytes received;                      /* what came before the descriptor was TLS's, not yet read */
  unsigned char has_ahead;                   /* bytes of the next record's header that came with the last body ... */
  char ahead[SSL3_RT_HEADER_LENGTH];         /* ... these */
  unsigned char server, suppress, handshake; /* as wrap_socket was told */
  unsigned char legacy;                      /* made by socket.ssl() */
  unsigned char doomed;                      /* closed by a callback: to be freed after the call */
  unsigned char named;                       /* the peer must prove its name */
  unsigned char agreed;                      /* the handshake has been made */
  unsigned char choosing;                    /* an sni_callback is running */
  lsock_Bytes owed;                          /* those of a record whose sending was begun; used: have come again */
  unsigned char owing;                       /* OpenSSL still has that record */
  unsigned char setting_aside;               /* the BIO is to keep what it cannot send: */
  lsock_Bytes aside;                         /* this, which goes out before anything else */
  unsigned char told;                        /* the script was told of the end, or of what follows */
  unsigned char broken;                      /* for good, by: */
  unsigned char ended;                       /* an end of the stream without close_notify, */
  unsigned long why;                         /* an error of OpenSSL, */
  int why_errno;                             /* or one of the system */
  long verify;
} lsock_Tls;
LSOCK_BEGINS_WITH_SEAL(lsock_Tls);

typedef struct lsock_TlsSock {
  lsock_Sock s;
  lsock_Tls t;
} lsock_TlsSock;

/* An SSLSession. */
typedef struct lsock_Session {
  uintptr_t seal;
  lsock_Ssl *st;
  SSL_SESSION *session;
  unsigned held;
  unsigned char verified, named; /* the peer's certificate was, and for that name */
} lsock_Session;
LSOCK_BEGINS_WITH_SEAL(lsock_Session);

enum { /* its user values */
       SESSION_UV_CTX = 1,
       SESSION_UV_HOST,
       SESSION_UV_COUNT = SESSION_UV_HOST
};

/* NULL for other values. */
lsock_Session *lsock_tosession(lua_State *L, int arg);

/*
** The session at arg for a connection with that context and name (stack indices, a name may be nil or 0); NULL where it
** would spare a peer a proof that is asked for. Argument error `err` if it is another context's.
*/
SSL_SESSION *lsock_fit_session(lua_State *L, int arg, int ctx, int host, int err);

enum { /* user values of a TLS socket or an SSLObject */
       TLS_UV_CTX = 1,
       TLS_UV_HOST,
       TLS_UV_FILE, /* legacy objects read through a file */
       TLS_UV_COUNT = TLS_UV_FILE
};

/* The connection of the socket or SSLObject at arg, argument error for others. */
lsock_Tls *lsock_checktls(lua_State *L, int arg);

/*
** Sessions are resumed only with the name they were made for (RFC 8446, 4.6.1), as its extension says, and with as much
** asked of the client. 0, or it is OpenSSL's error.
*/
int lsock_tls_bind(SSL *ssl, const unsigned char *name, size_t len);

/* Whom the peer must be, as that context says. */
void lsock_tls_ask(lsock_Tls *t, const lsock_Ctx *c);

/* As wrap_socket takes them. */
typedef struct lsock_Wrap {
  int ctx; /* stack indices */
  int host, session, received;
  int server, suppress, handshake;
} lsock_Wrap;

/* Reads the table of options at arg. */
void lsock_wrap_options(lua_State *L, int arg, lsock_Wrap *w, const char *const keys[]);

/* The BIO: of a library's state, and for a connection. Where there is no memory: NULL, 0. */
BIO_METHOD *lsock_tls_newmethod(void);
int lsock_tls_attach(lsock_Tls *t);

/* Sends what was laid aside. 0: some is left, and t->err says why. */
int lsock_tls_flush(lsock_Tls *t);

int lsock_bytes_set(lsock_Bytes *b, const char *p, size_t n); /* 0: no memory */
void lsock_bytes_free(lsock_Bytes *b);

/* An address as bytes, and their number; 0 for other texts. */
size_t lsock_tls_address(const char *host, unsigned char *bytes); /* of 16 */

/* Why a text cannot be a server_hostname; NULL if it can. */
const char *lsock_tls_badhost(const char *host);

/* Would a receive not wait, whatever poll(2) says of the descriptor? Then how many bytes are decrypted, or 1. */
size_t lsock_tls_ready(const lsock_Tls *t);

/* Frees what OpenSSL has of it. */
void lsock_tls_finish(lsock_Tls *t);

/* Takes the descriptor of the socket at `arg` over and makes the handshake; what the C function returns. */
int lsock_wrap(lua_State *L, int arg, const lsock_Wrap *w, int legacy, const char *op);

/* Steps' parts. Each returns a count > 0, 0 at the end of the stream, or as a step. */
int lsock_tls_handshake(lua_State *L, lsock_Op *op, lsock_Tls *t);
ssize_t lsock_tls_read(lua_State *L, lsock_Op *op, lsock_Tls *t, char *buf, size_t n, int peek);
ssize_t lsock_tls_write(lua_State *L, lsock_Op *op, lsock_Tls *t, const char *data, size_t n);
int lsock_tls_goodbye(lua_State *L, lsock_Op *op, lsock_Tls *t, int both);

/* An operation on the socket or SSLObject at 1. */
lsock_Tls *lsock_tls_op(lua_State *L, lsock_Op *op, const char *name, lsock_Step step, int dir);

/* Around every call of OpenSSL that may call back: 0, or as a step. */
int lsock_tls_begin(lua_State *L, lsock_Op *op, lsock_Tls *t);
ssize_t lsock_tls_end(lua_State *L, lsock_Op *op, lsock_Tls *t, ssize_t done, int outcome);

/* Within OpenSSL: the context that the connection's user value is; NULL if the debug library made it another. */
const lsock_Ctx *lsock_tls_ctx(const lsock_Tls *t);

/*
** Within OpenSSL: pushes that context and above it its callback of that user value; 0, nothing pushed, if there is none.
** *base: the top before. Then, for the error on top: keeps it for lsock_tls_end.
*/
int lsock_ctx_callback(const lsock_Tls *t, int uv, int *base);
void lsock_tls_throw(lsock_Tls *t, int base);

extern const lsock_Reg lsock_tls_methods[];                             /* of both kinds: what can be asked ... */
extern const lsock_Reg lsock_stream_methods[];                          /* ... and what may wait */
int lsock_wrap_bio(lua_State *L, const lsock_Wrap *w, int in, int out); /* at stack indices */
BIO *lsock_checkbio(lua_State *L, int arg);
struct bio_method_st *lsock_memory_method(void);

/* A field of both kinds by its name; 0, nothing pushed, if there is none. */
int lsock_tls_field(lua_State *L, int arg, const char *name);
int lsock_tls_newindex(lua_State *L);

void lsock_open_sslsock(lua_State *L, int core); /* these: the library's table is on top */
void lsock_open_sslobj(lua_State *L, int core);
void lsock_open_sslctx(lua_State *L, int core);

/* ---------------------------------------------------------------- errors */

void lsock_open_sslerr(lua_State *L, int core);

/* Fills in the operation's error from what broke the connection; LSOCK_FAIL. */
int lsock_tls_broken(lua_State *L, lsock_Op *op, const lsock_Tls *t);

/* Ends a function by the error in OpenSSL's queue, `err` being errno after the call. */
int lsock_ssl_fail(lua_State *L, const char *op, int err);

/* The same where a file was read or written, which is e.filename. */
int lsock_ssl_failfile(lua_State *L, const char *op, int err, const char *file);

/* ---------------------------------------------------------------- certificates */

/* For readers of PEM that need no password: OpenSSL's own function would ask on the terminal. */
int lsock_no_password(char *buf, int size, int writing, void *arg);

void lsock_x509_push(lua_State *L, X509 *x);    /* Python's decoded form */
void lsock_x509_pushder(lua_State *L, X509 *x); /* a string */
/* A list of either; frees the list, which is the caller's own and may be NULL, whatever happens. */
void lsock_x509_pushlist(lua_State *L, STACK_OF(X509) * certs, int decoded);
int lsock_x509_pem_to_der(lua_State *L, const char *pem, size_t len);

#endif
