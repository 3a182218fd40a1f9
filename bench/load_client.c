/*
** load_client.c: load for an echo server, from one thread.
**
**   load_client <busy> <idle> <requests> <server command ...>
**
** Starts the server, which prints its port. The busy connections each send 64
** bytes, wait for them to come back, and do it again; the idle ones do so once
** at the beginning and once at the end. Every byte is checked. After a fifth of
** the requests as a warm-up the rest is measured. Prints, on one line:
**   CPU time of the server per request, us; requests/s;
**   latency in us: mean, median, 99 %, 99.9 %, most;
**   resident bytes of the server per connection;
**   the part of a processor that server and client had: run on one (taskset), and
**   well below 1 means that something else ran there too
*/
#include "load.h"

#define SIZE 64

struct conn {
  int fd, got;
  uint64_t id, requests;
  double since;
  uint64_t sent[SIZE / 8], back[SIZE / 8];
};

static int busy, idle, total;
static struct conn *conns;

/* No two requests are alike. */
static void request(struct conn *c) {
  c->requests++;
  for (unsigned i = 0; i < SIZE / 8; i++) c->sent[i] = (c->id << 40 | c->requests << 8 | i) * 0x9E3779B97F4A7C15u;
  c->got = 0;
  need(send(c->fd, c->sent, SIZE, MSG_NOSIGNAL) == SIZE, "send");
}

/* True when the answer is complete. */
static int answer(struct conn *c, int flags) {
  ssize_t k = recv(c->fd, (char *)c->back + c->got, (size_t)(SIZE - c->got), flags);
  if (k < 0 && errno == EAGAIN && flags) return 0;
  need(k > 0, "recv");
  c->got += (int)k;
  if (c->got < SIZE) return 0;
  errno = EILSEQ;
  need(memcmp(c->sent, c->back, SIZE) == 0, "the answer differs");
  return 1;
}

/* In turns short enough for any queue: connects where needed, and one request on each. */
static void once_round(int first, int last) {
  struct timeval patience = {10, 0};
  for (int end; first < last; first = end) {
    end = first + 100 < last ? first + 100 : last;
    for (int i = first; i < end; i++) {
      struct conn *c = &conns[i];
      if (c->fd < 0) {
        c->id = (uint64_t)i;
        c->fd = dialer((unsigned)i, 0);
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        need(dial(c->fd) == 0, "connect");
      }
      request(c);
    }
    for (int i = first; i < end; i++)
      while (!answer(&conns[i], 0)) {}
  }
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc < 5) {
    fprintf(stderr, "usage: load_client <busy> <idle> <requests> <server command ...>\n");
    return 2;
  }
  busy = atoi(argv[1]);
  idle = atoi(argv[2]);
  total = busy + idle;
  long requests = atol(argv[3]), warm = requests / 5, sent = 0, done = -warm;
  conns = calloc((size_t)total, sizeof *conns);
  float *latency = malloc((size_t)requests * sizeof *latency);
  need(conns && latency && busy > 0, "no memory");
  for (int i = 0; i < total; i++) conns[i].fd = -1;
  raise_limit((rlim_t)total + 100);
  /* Neither side interrupts the other when woken, whatever else the machine does: full batches for everybody. */
  sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
  start_server(argv + 4);
  clockid_t server_clock;
  need(clock_getcpuclockid(server_pid, &server_clock) == 0, "no clock of the server");
  long rss = server_rss();
  once_round(busy, total); /* the idle ones first: the busy ones get the high descriptors */
  once_round(0, busy);

  struct epoll_event events[512];
  int poller = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < busy; i++) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &conns[i]};
    need(epoll_ctl(poller, EPOLL_CTL_ADD, conns[i].fd, &e) == 0, "epoll_ctl");
  }
  double cpu = 0, own = 0, wall = 0;
  for (; sent < busy; sent++) {
    conns[sent].since = seconds(CLOCK_MONOTONIC);
    request(&conns[sent]);
  }
  while (done < requests) {
    int n = epoll_wait(poller, events, 512, 10000);
    errno = n == 0 ? ETIMEDOUT : errno;
    need(n > 0, "waiting for the server");
    for (int i = 0; i < n; i++) {
      struct conn *c = events[i].data.ptr;
      if (!answer(c, MSG_DONTWAIT)) continue;
      double now = seconds(CLOCK_MONOTONIC);
      if (done >= 0 && done < requests) latency[done] = (float)(now - c->since);
      if (done == 0) wall = now, cpu = seconds(server_clock), own = seconds(CLOCK_PROCESS_CPUTIME_ID);
      if (++done == requests) {
        cpu = seconds(server_clock) - cpu;
        own = seconds(CLOCK_PROCESS_CPUTIME_ID) - own;
        wall = now - wall;
      }
      if (sent == warm + requests) continue;
      sent++;
      c->since = now;
      request(c);
    }
  }
  rss = server_rss() - rss;
  once_round(0, total);
  for (int i = 0; i < total; i++) close(conns[i].fd);
  stop_server();

  double sum = 0;
  for (long i = 0; i < requests; i++) sum += latency[i];
  qsort(latency, (size_t)requests, sizeof *latency, ascending);
  printf("%.3f %.0f %.0f %.0f %.0f %.0f %.0f %ld %.3f\n", cpu / (double)requests * 1e6, (double)requests / wall,
         sum / (double)requests * 1e6, latency[requests / 2] * 1e6, latency[requests / 100 * 99] * 1e6,
         latency[requests / 1000 * 999] * 1e6, latency[requests - 1] * 1e6, rss / total, (cpu + own) / wall);
  return 0;
}
