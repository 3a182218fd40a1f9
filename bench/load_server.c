/*
** load_server.c: the echo server everything is compared with: one thread, epoll
** level-triggered, recv and send. Prints its port. What a slow reader does not
** take is kept, and nothing is read from it until it is gone.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int poller, listener;
static char buf[65536];
static struct rest {
  char *bytes;
  size_t len;
} * rests; /* by descriptor */

static void need(int ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void watch(int op, int fd, unsigned what) {
  struct epoll_event e = {.events = what, .data.fd = fd};
  need(epoll_ctl(poller, op, fd, &e) == 0, "epoll_ctl");
}

static void hang_up(int fd) {
  free(rests[fd].bytes);
  rests[fd] = (struct rest){0};
  close(fd);
}

static void take(void) {
  int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  watch(EPOLL_CTL_ADD, fd, EPOLLIN);
}

static void echo(int fd) {
  ssize_t n = recv(fd, buf, sizeof buf, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    hang_up(fd);
    return;
  }
  ssize_t k = send(fd, buf, (size_t)n, MSG_NOSIGNAL);
  if (k == n) return;
  if (k < 0 && errno != EAGAIN) {
    hang_up(fd);
    return;
  }
  if (k < 0) k = 0;
  struct rest *r = &rests[fd];
  r->len = (size_t)(n - k);
  r->bytes = malloc(r->len);
  need(r->bytes != NULL, "malloc");
  memcpy(r->bytes, buf + k, r->len);
  watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void send_rest(int fd) {
  struct rest *r = &rests[fd];
  ssize_t k = send(fd, r->bytes, r->len, MSG_NOSIGNAL);
  if (k < 0 && errno == EAGAIN) return;
  if (k < 0) {
    hang_up(fd);
    return;
  }
  r->len -= (size_t)k;
  memmove(r->bytes, r->bytes + k, r->len);
  if (r->len > 0) return;
  free(r->bytes);
  r->bytes = NULL;
  watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

int main(void) {
  struct epoll_event events[512];
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof sa;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  rests = calloc(files.rlim_cur, sizeof *rests);
  poller = epoll_create1(EPOLL_CLOEXEC);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  need(rests && bind(listener, (struct sockaddr *)&sa, len) == 0 && listen(listener, 4096) == 0, "listen");
  getsockname(listener, (struct sockaddr *)&sa, &len);
  watch(EPOLL_CTL_ADD, listener, EPOLLIN);
  printf("%d\n", ntohs(sa.sin_port));
  fflush(stdout);
  for (;;) {
    int n = epoll_wait(poller, events, 512, -1);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == listener)
        take();
      else if (rests[fd].bytes)
        send_rest(fd);
      else
        echo(fd);
    }
  }
}
