/*
** load.h: what load_client.c and soak.c share: a server started as a child,
** looked at from outside, and connections to it from many addresses.
*/
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t server_pid;
static int server_port;

static void need(int ok, const char *what) {
  if (ok) return;
  perror(what);
  if (server_pid > 0) kill(server_pid, SIGKILL);
  exit(1);
}

static double seconds(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* As many descriptors as can be had, here and in the server. */
static void raise_limit(rlim_t wanted) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < wanted) files.rlim_max = wanted; /* root may */
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  need(setrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur >= wanted, "too few descriptors: ulimit -n");
}

/* The server prints its port; it ends with us. */
static void start_server(char **command) {
  int out[2];
  need(pipe(out) == 0, "pipe");
  pid_t us = getpid();
  server_pid = fork();
  need(server_pid >= 0, "fork");
  if (server_pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != us) _exit(1);
    dup2(out[1], 1);
    close(out[0]);
    close(out[1]);
    execvp(command[0], command);
    perror(command[0]);
    _exit(127);
  }
  close(out[1]);
  FILE *f = fdopen(out[0], "r");
  need(f && fscanf(f, "%d", &server_port) == 1, "no port from the server");
}

static void stop_server(void) {
  kill(server_pid, SIGTERM);
  for (int i = 0; i < 100 && waitpid(server_pid, NULL, WNOHANG) == 0; i++) {
    if (i == 50) kill(server_pid, SIGKILL);
    usleep(20000);
  }
  server_pid = 0;
}

static long server_rss(void) {
  char path[64];
  long pages = -1;
  snprintf(path, sizeof path, "/proc/%d/statm", (int)server_pid);
  FILE *f = fopen(path, "r");
  need(f && fscanf(f, "%*s %ld", &pages) == 1, "the server is gone");
  fclose(f);
  return pages * sysconf(_SC_PAGESIZE);
}

/* A socket bound to one of 250 loopback addresses, each of which has all ports. */
static int dialer(unsigned number, int flags) {
  struct sockaddr_in from = {.sin_family = AF_INET};
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  need(fd >= 0, "socket");
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number % 250);
  need(bind(fd, (struct sockaddr *)&from, sizeof from) == 0, "bind");
  return fd;
}

static int dial(int fd) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)server_port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(fd, (struct sockaddr *)&to, sizeof to);
}
