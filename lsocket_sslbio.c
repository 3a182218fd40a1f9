/*
** lsocket_sslbio.c: how the bytes of TLS travel: OpenSSL's BIO over a descriptor.
**
** It notes why a system call did not succeed, and passes on whether the attempt may wait in the kernel. What was read before
** the descriptor was TLS's comes first; what is left of a record may be laid aside, so that OpenSSL can send something else.
*/
#include "lsocket_ssl.h"

#include <string.h>

/* No goodbye is that long. */
#define LARGE_BODY 4096

/* ---------------------------------------------------------------- bytes held here */

int lsock_bytes_set(lsock_Bytes *b, const char *p, size_t n) {
  b->n = n;
  b->at = 0;
  b->p = OPENSSL_memdup(p, n);
  return b->p != NULL;
}

void lsock_bytes_free(lsock_Bytes *b) {
  OPENSSL_free(b->p);
  b->p = NULL;
}

static void used(lsock_Bytes *b, size_t n) {
  b->at += n;
  if (b->at == b->n) lsock_bytes_free(b);
}

static size_t take(lsock_Bytes *b, char *p, size_t n) {
  if (n > b->n - b->at) n = b->n - b->at;
  memcpy(p, b->p + b->at, n);
  used(b, n);
  return n;
}

/* ---------------------------------------------------------------- reading */

static int is_retry(int err) {
  return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

/*
** OpenSSL asks for a record's header, then for its body. The header of the next comes with the body here, which saves
** every second system call. What follows a large record is a record: a goodbye, after which there may be bytes that are
** not TLS's, is small.
*/
static ssize_t read_body(lsock_Tls *t, char *p, size_t n, int flags) {
  struct iovec parts[2] = {{p, n}, {t->ahead, sizeof t->ahead}};
  struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
  ssize_t r = recvmsg(t->fd, &m, flags);
  if (r <= (ssize_t)n) return r;
  t->has_ahead = (unsigned char)((size_t)r - n);
  return (ssize_t)n;
}

static int bio_read(BIO *b, char *p, int n) {
  lsock_Tls *t = BIO_get_data(b);
  int flags = t->nowait ? MSG_DONTWAIT : 0;
  ssize_t r;
  BIO_clear_retry_flags(b);
  if (t->received.p) return (int)take(&t->received, p, (size_t)n);
  if (t->has_ahead) {
    int k = t->has_ahead < n ? t->has_ahead : n;
    memcpy(p, t->ahead, (size_t)k);
    t->has_ahead = (unsigned char)(t->has_ahead - k);
    memmove(t->ahead, t->ahead + k, t->has_ahead);
    return k;
  }
  r = n >= LARGE_BODY ? read_body(t, p, (size_t)n, flags) : recv(t->fd, p, (size_t)n, flags);
  if (r == 0) BIO_set_flags(b, BIO_FLAGS_IN_EOF);
  if (r >= 0) return (int)r;
  t->err = errno;
  if (is_retry(t->err)) {
    t->blocked = 1;
    BIO_set_retry_read(b);
  }
  return -1;
}

/* ---------------------------------------------------------------- writing */

static ssize_t transmit(lsock_Tls *t, const void *p, size_t n) {
  ssize_t r = send(t->fd, p, n, (t->nowait ? MSG_DONTWAIT : 0) | LSOCK_NOSIGNAL);
  if (r < 0) t->err = errno;
  return r;
}

int lsock_tls_flush(lsock_Tls *t) {
  while (t->aside.p) {
    ssize_t r = transmit(t, t->aside.p + t->aside.at, t->aside.n - t->aside.at);
    if (r < 0) return 0;
    used(&t->aside, (size_t)r);
  }
  return 1;
}

static int bio_write(BIO *b, const char *p, int n) {
  lsock_Tls *t = BIO_get_data(b);
  ssize_t r = lsock_tls_flush(t) ? transmit(t, p, (size_t)n) : -1;
  BIO_clear_retry_flags(b);
  if (r >= 0) return (int)r;
  if (!is_retry(t->err)) return -1;
  if (t->setting_aside && !t->aside.p && lsock_bytes_set(&t->aside, p, (size_t)n)) return n;
  BIO_set_retry_write(b);
  return -1;
}

/* ---------------------------------------------------------------- the method */

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr) {
  (void)num;
  (void)ptr;
  if (cmd == BIO_CTRL_FLUSH) return 1;
  return cmd == BIO_CTRL_EOF && BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
}

BIO_METHOD *lsock_tls_newmethod(void) {
  BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 127, "lua socket");
  if (!m) return NULL;
  BIO_meth_set_read(m, bio_read);
  BIO_meth_set_write(m, bio_write);
  BIO_meth_set_ctrl(m, bio_ctrl);
  return m;
}

int lsock_tls_attach(lsock_Tls *t) {
  BIO *b = BIO_new(t->st->bio);
  if (!b) return 0;
  BIO_set_data(b, t);
  BIO_set_init(b, 1);
  SSL_set_bio(t->ssl, b, b);
  return 1;
}
