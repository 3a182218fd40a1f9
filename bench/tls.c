/*
** tls.c: TLS in plain C on OpenSSL: the peer of the TLS benchmarks, and the client that the library is compared with.
**
**   tls peer              one process a service, ports printed on one line; ends as peer.c does
**   tls <workload> <n>    prints CPU and wall seconds; BENCH_TLS_PORTS has the ports
**
** Certificates are in bench/build: ca.pem, server.pem and server.key. The client verifies chain and name.
*/
#define _GNU_SOURCE
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 262144
static char buf[CHUNK];
static SSL_CTX *ctx;

static void die(const char *what) {
  perror(what);
  ERR_print_errors_fp(stderr);
  exit(1);
}

static double wall_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return sa;
}

static int dial(int port) {
  struct sockaddr_in sa = loopback(port);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) die("connect");
  return fd;
}

static void use_client(int version) {
  ctx = SSL_CTX_new(TLS_client_method());
  if (!ctx || !SSL_CTX_load_verify_locations(ctx, "bench/build/ca.pem", NULL)) die("ca.pem");
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_min_proto_version(ctx, version);
  SSL_CTX_set_max_proto_version(ctx, version);
}

static void use_server(void) {
  ctx = SSL_CTX_new(TLS_server_method());
  if (!ctx || SSL_CTX_use_certificate_chain_file(ctx, "bench/build/server.pem") != 1 ||
      SSL_CTX_use_PrivateKey_file(ctx, "bench/build/server.key", SSL_FILETYPE_PEM) != 1)
    die("server.pem");
  SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"bench", 5);
}

static SSL *client(int fd, SSL_SESSION *session) {
  SSL *ssl = SSL_new(ctx);
  if (!ssl || !SSL_set_fd(ssl, fd) || !SSL_set_tlsext_host_name(ssl, "localhost") || !SSL_set1_host(ssl, "localhost"))
    die("SSL_new");
  if (session) SSL_set_session(ssl, session);
  if (SSL_connect(ssl) != 1) die("SSL_connect");
  return ssl;
}

static SSL *server(int fd) {
  SSL *ssl = SSL_new(ctx);
  if (!ssl || !SSL_set_fd(ssl, fd)) die("SSL_new");
  if (SSL_accept(ssl) == 1) return ssl;
  SSL_free(ssl); /* a client that hung up at once */
  return NULL;
}

static void hang_up(SSL *ssl) {
  int fd = SSL_get_fd(ssl);
  SSL_shutdown(ssl);
  SSL_free(ssl);
  close(fd);
}

static int write_all(SSL *ssl, const char *p, int n) {
  return SSL_write(ssl, p, n) == n;
}

/* ---------------------------------------------------------------- the peer */

/* gives back what arrives: nothing, mostly */
static void serve_echo(int fd) {
  SSL *ssl = server(fd);
  int n;
  if (!ssl) return;
  while ((n = SSL_read(ssl, buf, sizeof buf)) > 0 && write_all(ssl, buf, n)) {}
  SSL_free(ssl);
}

static void serve_sink(int fd) {
  SSL *ssl = server(fd);
  if (!ssl) return;
  while (SSL_read(ssl, buf, sizeof buf) > 0) {}
  SSL_free(ssl);
}

static void serve_source(int fd) {
  SSL *ssl = server(fd);
  if (!ssl) return;
  while (write_all(ssl, buf, sizeof buf)) {}
  SSL_free(ssl);
}

/* keeps its last 2000 connections open */
static void serve_hold(int fd) {
  static SSL *held[2000];
  static int at;
  if (held[at]) hang_up(held[at]);
  fd = dup(fd);
  held[at] = server(fd);
  at = (at + 1) % 2000;
}

/* "port count version\n" in the clear: makes that many TLS connections, one after the other */
static void serve_dial(int fd) {
  int port = 0, count = 0, version = 0;
  char line[64];
  ssize_t k = recv(fd, line, sizeof line - 1, 0);
  if (k <= 0) return;
  line[k] = '\0';
  if (sscanf(line, "%d %d %d", &port, &count, &version) != 3) return;
  use_client(version);
  while (count-- > 0) {
    int conn = dial(port);
    SSL *ssl = client(conn, NULL);
    while (SSL_read(ssl, line, sizeof line) > 0) {}
    SSL_free(ssl);
    close(conn);
  }
  SSL_CTX_free(ctx);
}

static void (*const services[])(int) = {serve_echo, serve_sink, serve_source, serve_hold, serve_dial};
enum { ECHO, SINK, SOURCE, HOLD, DIAL, SERVICES };

static int listener(int *port) {
  struct sockaddr_in sa = loopback(0);
  socklen_t len = sizeof sa;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 128) < 0 ||
      getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
    die("listen");
  *port = ntohs(sa.sin_port);
  return fd;
}

static int peer(void) {
  int ports[SERVICES], i;
  pid_t parent = getpid();
  signal(SIGPIPE, SIG_IGN);
  for (i = 0; i < SERVICES; i++) {
    int one = 1, fd = listener(&ports[i]);
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child > 0) {
      close(fd);
      continue;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(0);
    if (i != DIAL) use_server();
    for (;;) {
      int conn = accept(fd, NULL, NULL);
      if (conn < 0) continue;
      setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      services[i](conn);
      ERR_clear_error();
      close(conn);
    }
  }
  for (i = 0; i < SERVICES; i++) printf("%d%c", ports[i], i + 1 < SERVICES ? ' ' : '\n');
  fflush(stdout);
  alarm(900);
  for (;;) pause();
}

/* ---------------------------------------------------------------- the client */

static int ports[SERVICES];
static double cpu, wall;

static void start(void) {
  cpu = cpu_clock();
  wall = wall_clock();
}

static void report(void) {
  printf("%.9f %.9f\n", cpu_clock() - cpu, wall_clock() - wall);
}

static void handshakes(long n, int version) {
  use_client(version);
  start();
  while (n-- > 0) hang_up(client(dial(ports[ECHO]), NULL));
  report();
}

static void resumptions(long n, int version) {
  SSL_SESSION *session;
  SSL *ssl;
  use_client(version);
  ssl = client(dial(ports[ECHO]), NULL);
  if (!write_all(ssl, "x", 1) || SSL_read(ssl, buf, 1) != 1) die("echo");
  session = SSL_get1_session(ssl);
  hang_up(ssl);
  start();
  while (n-- > 0) {
    ssl = client(dial(ports[ECHO]), session);
    if (!SSL_session_reused(ssl)) die("not resumed");
    hang_up(ssl);
  }
  report();
  SSL_SESSION_free(session);
}

static void accepts(long n, int version) {
  int port, fd = listener(&port), control = dial(ports[DIAL]);
  char line[64];
  use_server();
  snprintf(line, sizeof line, "%d %ld %d\n", port, n, version);
  if (send(control, line, strlen(line), 0) < 0) die("send");
  start();
  while (n-- > 0) {
    SSL *ssl = server(accept(fd, NULL, NULL));
    if (!ssl) die("SSL_accept");
    hang_up(ssl);
  }
  report();
}

static void receives(long n, int size) {
  long left = n * size;
  SSL *ssl;
  use_client(TLS1_3_VERSION);
  ssl = client(dial(ports[SOURCE]), NULL);
  start();
  while (left > 0) {
    int k = SSL_read(ssl, buf, size);
    if (k <= 0) die("SSL_read");
    left -= k;
  }
  report();
}

static void sends(long n, int size) {
  SSL *ssl;
  use_client(TLS1_3_VERSION);
  ssl = client(dial(ports[SINK]), NULL);
  start();
  while (n-- > 0)
    if (!write_all(ssl, buf, size)) die("SSL_write");
  report();
}

/* bytes of malloc a connection, with the buffers of idle ones given back or not */
static void memory(long n, int release) {
  struct mallinfo2 m;
  SSL **all = calloc((size_t)n, sizeof *all);
  size_t before;
  long i;
  if (!all) die("calloc");
  use_client(TLS1_3_VERSION);
  if (release) SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
  hang_up(client(dial(ports[HOLD]), NULL));
  m = mallinfo2();
  before = m.uordblks + m.hblkhd;
  for (i = 0; i < n; i++) all[i] = client(dial(ports[HOLD]), NULL);
  m = mallinfo2();
  printf("%ld 0\n", (long)(m.uordblks + m.hblkhd - before) / n);
  for (i = 0; i < n; i++) hang_up(all[i]);
}

static const struct {
  const char *name;
  void (*run)(long n, int option);
  int option;
} workloads[] = {{"handshake13", handshakes, TLS1_3_VERSION},
                 {"handshake12", handshakes, TLS1_2_VERSION},
                 {"accept13", accepts, TLS1_3_VERSION},
                 {"accept12", accepts, TLS1_2_VERSION},
                 {"resume13", resumptions, TLS1_3_VERSION},
                 {"resume12", resumptions, TLS1_2_VERSION},
                 {"recv16k", receives, 16384},
                 {"recv256k", receives, 262144},
                 {"recv_into256k", receives, 262144},
                 {"send16k", sends, 16384},
                 {"send256k", sends, 262144},
                 {"memory", memory, 0},
                 {"memory_released", memory, 1}};

int main(int argc, char **argv) {
  const char *env = getenv("BENCH_TLS_PORTS");
  size_t i;
  if (argc == 2 && strcmp(argv[1], "peer") == 0) return peer();
  if (argc != 3 || !env ||
      sscanf(env, "%d %d %d %d %d", &ports[0], &ports[1], &ports[2], &ports[3], &ports[4]) != SERVICES) {
    fprintf(stderr, "usage: tls peer | BENCH_TLS_PORTS=... tls workload n\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  memset(buf, 'x', sizeof buf); /* untouched, it would be one page of zeros, always at hand */
  for (i = 0; i < sizeof workloads / sizeof *workloads; i++)
    if (strcmp(argv[1], workloads[i].name) == 0) {
      workloads[i].run(atol(argv[2]), workloads[i].option);
      return 0;
    }
  fprintf(stderr, "no workload %s\n", argv[1]);
  return 2;
}
