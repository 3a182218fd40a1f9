/*
** peer.c: the other side of every benchmark, the same for all contenders.
**
** One process a service, each on a loopback port the system chose, each
** serving one connection after the other. The ports are printed on one line,
** in the order of `services`. Ends on SIGTERM, or by itself after 15 minutes.
*/
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536
static char buf[CHUNK];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return sa;
}

static int send_all(int fd, const char *p, size_t n) {
  while (n > 0) {
    ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
    if (k <= 0) return 0;
    p += k;
    n -= (size_t)k;
  }
  return 1;
}

/* gives back whatever arrives */
static void serve_echo(int fd) {
  ssize_t k;
  while ((k = recv(fd, buf, CHUNK, 0)) > 0 && send_all(fd, buf, (size_t)k)) {}
}

/* the same a millisecond later: whoever wants the answer has to wait */
static void serve_late(int fd) {
  ssize_t k;
  while ((k = recv(fd, buf, CHUNK, 0)) > 0 && usleep(1000) == 0 && send_all(fd, buf, (size_t)k)) {}
}

/* swallows whatever arrives */
static void serve_sink(int fd) {
  while (recv(fd, buf, CHUNK, 0) > 0) {}
}

/* sends without end */
static void serve_source(int fd) {
  while (send_all(fd, buf, CHUNK)) {}
}

/* sends lines of 0 to 79 bytes without end */
static void serve_lines(int fd) {
  static char lines[CHUNK];
  size_t n = 0, len = 0;
  for (; n + 80 <= sizeof lines; len = (len + 37) % 80) {
    memset(lines + n, 'x', len);
    n += len;
    lines[n++] = '\n';
  }
  while (send_all(fd, lines, n)) {}
}

/* drops the connection at once */
static void serve_drop(int fd) {
  (void)fd;
}

/* "port count\n": makes that many connections, says "ok", holds them until the caller hangs up */
static void serve_dial(int fd) {
  static int held[4096];
  int port = 0, count = 0, made = 0;
  ssize_t k = recv(fd, buf, 63, 0);
  if (k <= 0) return;
  buf[k] = '\0';
  if (sscanf(buf, "%d %d", &port, &count) != 2 || count > 4096) return;
  struct sockaddr_in sa = loopback(port);
  for (; made < count; made++) {
    held[made] = socket(AF_INET, SOCK_STREAM, 0);
    if (held[made] < 0 || connect(held[made], (struct sockaddr *)&sa, sizeof sa) < 0) die("dial");
  }
  send_all(fd, "ok\n", 3);
  while (recv(fd, buf, 63, 0) > 0) {}
  while (made > 0) close(held[--made]);
}

/* gives datagrams back; not a connection: `fd` is the bound socket */
static void serve_udp(int fd) {
  struct sockaddr_in sa;
  for (;;) {
    socklen_t len = sizeof sa;
    ssize_t k = recvfrom(fd, buf, CHUNK, 0, (struct sockaddr *)&sa, &len);
    if (k >= 0) sendto(fd, buf, (size_t)k, 0, (struct sockaddr *)&sa, len);
  }
}

static const struct {
  int type;
  void (*serve)(int fd);
} services[] = {{SOCK_STREAM, serve_echo}, {SOCK_STREAM, serve_sink}, {SOCK_STREAM, serve_source},
                {SOCK_STREAM, serve_drop}, {SOCK_STREAM, serve_dial}, {SOCK_DGRAM, serve_udp},
                {SOCK_STREAM, serve_late}, {SOCK_STREAM, serve_lines}};

int main(void) {
  struct rlimit files;
  int ports[sizeof services / sizeof *services];
  pid_t parent = getpid();
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max; /* serve_dial holds thousands of connections */
    setrlimit(RLIMIT_NOFILE, &files);
  }
  for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
    struct sockaddr_in sa = loopback(0);
    socklen_t len = sizeof sa;
    int one = 1, fd = socket(AF_INET, services[i].type, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, len) < 0 || getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
      die("bind");
    if (services[i].type == SOCK_STREAM && listen(fd, 4096) < 0) die("listen");
    ports[i] = ntohs(sa.sin_port);
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child > 0) {
      close(fd);
      continue;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(0);
    if (services[i].type == SOCK_DGRAM) services[i].serve(fd);
    for (;;) {
      int conn = accept(fd, NULL, NULL);
      if (conn < 0) continue;
      setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      services[i].serve(conn);
      close(conn);
    }
  }
  for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
    printf("%d%c", ports[i], i + 1 < sizeof ports / sizeof *ports ? ' ' : '\n');
  fflush(stdout);
  alarm(900);
  for (;;) pause();
}
