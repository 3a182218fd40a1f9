/*
** c_client.c: every workload in plain C, with no more system calls than the
** job needs. Everything else is shown as a ratio to this.
**
**   c_client <workload> <n>            prints CPU and wall seconds for n operations
**   c_client spawn <n> <command ...>   the same for n runs of a command
**   c_client memory_udp <n>            prints resident bytes per socket (and no heap)
** BENCH_PORTS holds the ports peer.c printed.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ECHO, SINK, SOURCE, DROP, DIAL, UDP, LATE, NPORTS };
static int ports[NPORTS];
static char buf[65536], msg[65536];

static void need(int ok, const char *what) {
  if (!ok) {
    perror(what);
    exit(1);
  }
}

static double seconds(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double cpu0, wall0;
static void start(void) {
  cpu0 = seconds(CLOCK_PROCESS_CPUTIME_ID);
  wall0 = seconds(CLOCK_MONOTONIC);
}
static void stop(void) {
  double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu0;
  printf("%.9f %.9f\n", cpu, seconds(CLOCK_MONOTONIC) - wall0);
}

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return sa;
}

static int dial(int type, int port) {
  struct sockaddr_in sa = loopback(port);
  int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  need(fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0, "connect");
  return fd;
}

/* the kernel's own timeout: the cheapest there is */
static void set_timeout(int fd, int s) {
  struct timeval tv = {s, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

static void roundtrip(int n, int type, int port, int timeout) {
  int fd = dial(type, port);
  if (timeout) set_timeout(fd, timeout);
  start();
  for (int i = 0; i < n; i++) need(send(fd, msg, 64, MSG_NOSIGNAL) == 64 && recv(fd, buf, 64, 0) == 64, "roundtrip");
  stop();
}

static void udp_to(int n) {
  struct sockaddr_in sa = loopback(ports[UDP]), from;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  start();
  for (int i = 0; i < n; i++) {
    socklen_t len = sizeof from;
    need(sendto(fd, msg, 64, 0, (struct sockaddr *)&sa, sizeof sa) == 64, "sendto");
    need(recvfrom(fd, buf, 64, 0, (struct sockaddr *)&from, &len) == 64, "recvfrom");
  }
  stop();
}

/* 64 bytes of what has arrived already */
static void recv_ready(int n, int timeout) {
  int fd = dial(SOCK_STREAM, ports[SOURCE]);
  if (timeout) set_timeout(fd, timeout);
  usleep(50000);
  start();
  for (int i = 0; i < n; i++) need(recv(fd, buf, 64, 0) == 64, "recv");
  stop();
}

static void send64k(int n) {
  int fd = dial(SOCK_STREAM, ports[SINK]);
  start();
  for (int i = 0; i < n; i++) need(send(fd, msg, sizeof msg, MSG_NOSIGNAL) == sizeof msg, "send");
  stop();
}

static void recv64k(int n) {
  int fd = dial(SOCK_STREAM, ports[SOURCE]);
  long long left = (long long)n * 65536;
  start();
  while (left > 0) {
    ssize_t k = recv(fd, buf, sizeof buf, 0);
    need(k > 0, "recv");
    left -= k;
  }
  stop();
}

/* 64 bytes and a descriptor, from one end of a pair to the other */
static void fd_message(int n) {
  union {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  int fds[2];
  need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
  start();
  for (int i = 0; i < n; i++) {
    struct iovec iov = {msg, 64};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    int fd = fds[0];
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    need(sendmsg(fds[0], &h, MSG_NOSIGNAL) == 64, "sendmsg");
    iov.iov_base = buf;
    h.msg_controllen = sizeof control;
    need(recvmsg(fds[1], &h, MSG_CMSG_CLOEXEC) == 64 && (c = CMSG_FIRSTHDR(&h)) != NULL, "recvmsg");
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    close(fd);
  }
  stop();
}

static void connect_close(int n) {
  start();
  for (int i = 0; i < n; i++) close(dial(SOCK_STREAM, ports[DROP]));
  stop();
}

static void accept_close(int n) {
  struct sockaddr_in sa = loopback(0);
  socklen_t len = sizeof sa;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  need(bind(fd, (struct sockaddr *)&sa, len) == 0 && listen(fd, 4096) == 0, "listen");
  getsockname(fd, (struct sockaddr *)&sa, &len);
  int control = dial(SOCK_STREAM, ports[DIAL]);
  int k = snprintf(buf, sizeof buf, "%d %d\n", ntohs(sa.sin_port), n);
  need(send(control, buf, (size_t)k, 0) == k && recv(control, buf, 3, 0) == 3, "dial");
  start();
  for (int i = 0; i < n; i++) {
    len = sizeof sa;
    int conn = accept4(fd, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC);
    need(conn >= 0, "accept");
    close(conn);
  }
  stop();
}

static void would_block(int n) {
  int fd = dial(SOCK_STREAM, ports[ECHO]);
  start();
  for (int i = 0; i < n; i++) need(recv(fd, buf, 64, MSG_DONTWAIT) < 0 && errno == EAGAIN, "recv");
  stop();
}

static long resident(void) {
  long size = 0, pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  need(f != NULL && fscanf(f, "%ld %ld", &size, &pages) == 2, "statm");
  fclose(f);
  return pages * sysconf(_SC_PAGESIZE);
}

static void memory(int n, int type) {
  int *fds = malloc((size_t)n * sizeof *fds);
  long before = resident();
  for (int i = 0; i < n; i++) need((fds[i] = socket(AF_INET, type | SOCK_CLOEXEC, 0)) >= 0, "socket");
  printf("%ld 0\n", (resident() - before) / n);
}

static void spawn(int n, char **argv) {
  struct rusage r;
  wall0 = seconds(CLOCK_MONOTONIC);
  for (int i = 0; i < n; i++) {
    int status;
    pid_t pid = vfork();
    if (pid == 0) {
      execvp(argv[0], argv);
      _exit(127);
    }
    need(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, argv[0]);
  }
  getrusage(RUSAGE_CHILDREN, &r);
  printf("%.9f %.9f\n",
         (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-6,
         seconds(CLOCK_MONOTONIC) - wall0);
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "", *p = getenv("BENCH_PORTS");
  int n = argc > 2 ? atoi(argv[2]) : 0;
  if (strcmp(what, "nothing") == 0) return 0;
  if (strcmp(what, "spawn") == 0 && argc > 3) return spawn(n, argv + 3), 0;
  need(p != NULL && sscanf(p, "%d %d %d %d %d %d %d", &ports[0], &ports[1], &ports[2], &ports[3], &ports[4], &ports[5],
                           &ports[6]) == NPORTS,
       "BENCH_PORTS");
  if (strcmp(what, "roundtrip") == 0)
    roundtrip(n, SOCK_STREAM, ports[ECHO], 0);
  else if (strcmp(what, "roundtrip_t") == 0)
    roundtrip(n, SOCK_STREAM, ports[ECHO], 5);
  else if (strcmp(what, "late") == 0)
    roundtrip(n, SOCK_STREAM, ports[LATE], 0);
  else if (strcmp(what, "late_t") == 0)
    roundtrip(n, SOCK_STREAM, ports[LATE], 5);
  else if (strcmp(what, "udp") == 0)
    roundtrip(n, SOCK_DGRAM, ports[UDP], 0);
  else if (strcmp(what, "udp_to") == 0)
    udp_to(n);
  else if (strcmp(what, "recv_ready") == 0)
    recv_ready(n, 0);
  else if (strcmp(what, "recv_ready_t") == 0)
    recv_ready(n, 5);
  else if (strcmp(what, "send64k") == 0)
    send64k(n);
  else if (strcmp(what, "recv64k") == 0 || strcmp(what, "recv_into64k") == 0)
    recv64k(n);
  else if (strcmp(what, "fd_message") == 0)
    fd_message(n);
  else if (strcmp(what, "connect") == 0)
    connect_close(n);
  else if (strcmp(what, "accept") == 0)
    accept_close(n);
  else if (strncmp(what, "wouldblock", 10) == 0)
    would_block(n);
  else if (strcmp(what, "memory_udp") == 0)
    memory(n, SOCK_DGRAM);
  else if (strcmp(what, "memory_tcp") == 0)
    memory(n, SOCK_STREAM);
  else
    need(0, what);
  return 0;
}
