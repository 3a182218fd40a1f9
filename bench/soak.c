/*
** soak.c: hostile clients, and well-behaved ones among them, for an echo server:
** of lines or of whatever comes.
**
**   soak <seconds> <connections> <server command ...>
**
** Starts the server, which prints its port, and keeps that many connections to
** it. A request is a line of 2 to 200 bytes; the answer is the same line. Half
** of the connections are well-behaved. Each of their requests must be answered
** within ten seconds, byte by byte, and after some requests they end politely.
** The others:
**   vanish    close without notice, with an answer unread
**   killed    are held by processes that get SIGKILL
**   ghost     go without FIN or RST, as if the cable was cut (root only)
**   stall     stop in the middle of a request, until the server gives up or for up to 20 s
**   reset     send RST in the middle of a request
**   garbage   send random bytes with no ends of lines, and read what comes
**   deaf      send requests of 4 KiB as long as they can, and read nothing, for up to 20 s
**
** A line is printed for each sixtieth of the time: resident memory and
** descriptors of the server, and what happened. The verdict, after the clients
** have gone: no request lost; the growth over the time that was measured (all
** after the first third), by least squares, within 3 % or 512 KiB for memory
** (50 % in less than two minutes, too short for a garbage collector to settle)
** and 1 % of the connections for descriptors; in the end as many descriptors as
** before the first client, within 30 s.
*/
#include "load.h"

#define LINE 200
#define PATIENCE 10.0 /* for an answer */
#define LINGER 20.0   /* of those that stall or are deaf, the longest; less in short runs */
#define LONG 4096     /* a line of the deaf */
#define HELD 50       /* connections of each process that gets killed */

enum kind { GOOD, VANISH, GHOST, STALL, RESET, GARBAGE, DEAF, KILLED, KINDS };
static const char *const names[KINDS] = {"good", "vanish", "ghost", "stall", "reset", "garbage", "deaf", "killed"};
enum state { CLOSED, CONNECTING, THINKING, WAITING, HANGING, ENDING };

struct client {
  int fd, got, len, left; /* of the answer; requests left */
  enum kind kind;
  enum state state;
  double when; /* to act, or to give up */
  char line[LINE], back[LINE];
};

static struct client *clients;
static int count, poller, ghosts;
static unsigned dialed;
static double now, linger;
static long answered, lost, made[KINDS], refused;
static double slowest; /* answer */
static int draining;

static unsigned randomly(unsigned most) {
  static uint64_t x = 0x853C49E6748FEA9Bu;
  x = x * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(x >> 33) % (most + 1);
}

static double within(double most) {
  return now + most * randomly(1000000) / 1e6;
}

static void new_line(struct client *c) {
  c->len = 2 + (int)randomly(LINE - 2);
  for (int i = 0; i < c->len; i++) c->line[i] = (char)('!' + randomly('~' - '!'));
  c->line[c->len - 1] = '\n';
  c->got = 0;
}

static void watch(struct client *c, unsigned events) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  need(epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e) == 0, "epoll_ctl");
}

static void gone(struct client *c) {
  close(c->fd);
  c->state = CLOSED;
  c->when = within(0.5);
}

/* A well-behaved client whose request was not answered. */
static void lose(struct client *c, const char *why) {
  lost++;
  if (lost <= 20) printf("LOST: %s (%d bytes of %d were answered, %d requests left)\n", why, c->got, c->len, c->left);
  gone(c);
}

static void reset(struct client *c) {
  struct linger hard = {1, 0};
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  gone(c);
}

static void open_one(struct client *c) {
  struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
  do c->kind = randomly(1) ? GOOD : VANISH + randomly(DEAF - VANISH);
  while (c->kind == GHOST && !ghosts);
  c->fd = dialer(dialed++, SOCK_NONBLOCK);
  if (c->kind == DEAF) {
    int small = 8192, segment = 1400; /* for little to fill before the server notices: its buffer grows with both */
    setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
  }
  need(epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e) == 0, "epoll_ctl");
  c->state = CONNECTING;
  c->when = now + PATIENCE;
  c->left = 1 + (int)randomly(20);
  if (dial(c->fd) != 0 && errno != EINPROGRESS) {
    refused++;
    gone(c);
  }
}

/* Sends the whole line, which an empty send buffer always has room for. */
static void ask(struct client *c) {
  new_line(c);
  if (send(c->fd, c->line, (size_t)c->len, MSG_NOSIGNAL) != c->len)
    lose(c, strerror(errno));
  else
    c->state = WAITING, c->when = now + PATIENCE;
}

static void connected(struct client *c) {
  int error = 0;
  socklen_t len = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
  if (error) {
    if (c->kind == GOOD)
      lose(c, "not connected");
    else
      gone(c);
    return;
  }
  made[c->kind]++;
  watch(c, EPOLLIN);
  if (c->kind == GOOD) {
    ask(c);
    return;
  }
  new_line(c);
  c->state = HANGING;
  c->when = within(2);
  size_t part = c->kind == VANISH ? (size_t)c->len : (size_t)c->len / 2;
  if (c->kind == STALL) c->when = within(linger);
  if (c->kind == DEAF)
    watch(c, EPOLLOUT), c->when = within(linger);
  else
    send(c->fd, c->line, part, MSG_NOSIGNAL);
  if (c->kind != GARBAGE && c->kind != DEAF) watch(c, 0); /* errors only: what comes stays unread */
}

/* Something has come, or can be sent. */
static void ready(struct client *c) {
  static char junk[16384], line[LONG];
  ssize_t k;
  if (c->state == CONNECTING) {
    connected(c);
  } else if (c->state == HANGING && c->kind == DEAF) {
    memset(line, 'x', LONG - 1);
    line[LONG - 1] = '\n';
    if (send(c->fd, line, LONG, MSG_NOSIGNAL) < 0 && errno != EAGAIN) gone(c);
  } else if (c->state == HANGING) {
    if (c->kind != GARBAGE || ((k = recv(c->fd, junk, sizeof junk, 0)) <= 0 && errno != EAGAIN)) gone(c);
  } else if (c->state == THINKING) {
    lose(c, "hung up between requests");
  } else if (c->state == ENDING) {
    if (recv(c->fd, junk, sizeof junk, 0) > 0)
      lose(c, "bytes nobody asked for");
    else
      gone(c);
  } else if (c->state == WAITING) {
    k = recv(c->fd, c->back + c->got, (size_t)(c->len - c->got), 0);
    if (k < 0 && errno == EAGAIN) return;
    if (k <= 0) {
      lose(c, k == 0 ? "hung up on a request" : strerror(errno));
      return;
    }
    c->got += (int)k;
    if (c->got < c->len) return;
    if (memcmp(c->line, c->back, (size_t)c->len) != 0) {
      lose(c, "another answer");
      return;
    }
    double took = now - (c->when - PATIENCE);
    if (took > slowest) slowest = took;
    answered++;
    if (--c->left > 0 && !draining) {
      c->state = THINKING;
      c->when = within(1);
    } else {
      shutdown(c->fd, SHUT_WR);
      c->state = ENDING;
      c->when = now + PATIENCE;
    }
  }
}

/* The time of this client has come. */
static void due(struct client *c) {
  static const int on = 1;
  char junk[8192];
  switch (c->state) {
    case CLOSED:
      if (!draining) open_one(c);
      break;
    case THINKING: ask(c); break;
    case CONNECTING:
    case WAITING:
    case ENDING:
      if (c->kind == GOOD)
        lose(c, c->state == CONNECTING ? "no connection in time" : "no answer in time");
      else
        gone(c);
      break;
    case HANGING:
      if (c->kind == GARBAGE && --c->left > 0 && !draining) {
        for (size_t i = 0; i < sizeof junk; i++)
          if ((junk[i] = (char)randomly(255)) == '\n') junk[i] = 0;
        if (send(c->fd, junk, 1 + randomly(sizeof junk - 1), MSG_NOSIGNAL) < 0 && errno != EAGAIN)
          gone(c);
        else
          c->when = within(1);
        break;
      }
      if (c->kind == GHOST) setsockopt(c->fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on); /* close sends nothing then */
      if (c->kind == RESET)
        reset(c);
      else
        gone(c);
  }
}

/* A process with connections in the middle of a request; it waits to be killed. */
static pid_t hostage(void) {
  pid_t us = getpid(), pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != us) _exit(1);
  close_range(3, ~0U, 0); /* the other clients' descriptors */
  for (int i = 0; i < HELD; i++) {
    int fd = dialer((unsigned)getpid() + (unsigned)i, 0);
    if (dial(fd) == 0) send(fd, "a request and a ha\nlf", 21, MSG_NOSIGNAL);
  }
  for (;;) pause();
}

static int server_descriptors(void) {
  char path[64];
  int status;
  if (waitpid(server_pid, &status, WNOHANG) == server_pid) {
    if (WIFSIGNALED(status))
      printf("NOT OK: the server died of signal %d\n", WTERMSIG(status));
    else
      printf("NOT OK: the server ended with status %d\n", WEXITSTATUS(status));
    exit(1);
  }
  int n = -2; /* . and .. */
  snprintf(path, sizeof path, "/proc/%d/fd", (int)server_pid);
  DIR *dir = opendir(path);
  need(dir != NULL, "the server is gone");
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static void turn(int milliseconds) {
  struct epoll_event events[512];
  int n = epoll_wait(poller, events, 512, milliseconds);
  now = seconds(CLOCK_MONOTONIC);
  for (int i = 0; i < n; i++) ready(events[i].data.ptr);
}

static int still_open(void) {
  int n = 0;
  for (int i = 0; i < count; i++) n += clients[i].state != CLOSED;
  return n;
}

/* Growth from the first to the last point, by least squares. */
static double growth(const double *t, const double *y, int n) {
  double st = 0, sy = 0, stt = 0, sty = 0;
  for (int i = 0; i < n; i++) st += t[i], sy += y[i];
  for (int i = 0; i < n; i++) stt += (t[i] - st / n) * (t[i] - st / n), sty += (t[i] - st / n) * (y[i] - sy / n);
  return n > 1 ? sty / stt * (t[n - 1] - t[0]) : 0;
}

static int verdict(const char *what, int good) {
  printf("%s: %s\n", good ? "ok" : "NOT OK", what);
  return !good;
}

/* One request, answered, and a moment for the server to close that connection. */
static void greet(void) {
  char back[2];
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server_port)};
  struct timespec moment = {0, 200000000};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  need(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
  need(send(fd, "?\n", 2, MSG_NOSIGNAL) == 2 && recv(fd, back, 2, MSG_WAITALL) == 2, "the first request");
  close(fd);
  nanosleep(&moment, NULL);
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: soak <seconds> <connections> <server command ...>\n");
    return 2;
  }
  double lasting = atof(argv[1]), times[64], memory[64], files[64];
  count = atoi(argv[2]);
  need(lasting > 0 && count > 0 && (clients = calloc((size_t)count, sizeof *clients)) != NULL, "arguments");
  raise_limit((rlim_t)count * 2 + 1000);
  linger = lasting / 6 < LINGER ? lasting / 6 : LINGER;
  poller = epoll_create1(EPOLL_CLOEXEC);
  start_server(argv + 3);
  int on = 1, off = 0, probe = socket(AF_INET, SOCK_STREAM, 0), points = 0, all_points = 0,
      n_hostages = count / HELD / 20;
  ghosts = setsockopt(probe, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) == 0;
  setsockopt(probe, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off);
  close(probe);
  if (!ghosts) printf("no ghosts: that takes root\n");
  greet(); /* a server may open its poller after it has said its port */
  int files_before = server_descriptors();
  printf("before: %ld KiB, %d descriptors\n", server_rss() / 1024, files_before);
  printf("%8s %8s %6s %6s %9s %8s %10s %5s %5s\n", "second", "KiB", "files", "open", "answered", "hostile", "slowest",
         "lost", "CPU");

  pid_t hostages[64] = {0};
  if (n_hostages > 64) n_hostages = 64;
  now = seconds(CLOCK_MONOTONIC);
  clockid_t server_clock;
  need(clock_getcpuclockid(server_pid, &server_clock) == 0, "no clock of the server");
  double last_cpu = 0, last_report = now;
  double start = now, next_tick = now, next_report = now + lasting / 60, next_kill = now;
  for (int i = 0; i < count; i++) clients[i].when = now + 3.0 * i / count; /* not all at once */
  while (now < start + lasting) {
    turn(10);
    if (now >= next_tick) {
      next_tick = now + 0.01;
      for (int i = 0; i < count; i++)
        if (now >= clients[i].when) due(&clients[i]);
    }
    if (now >= next_kill && n_hostages > 0) {
      next_kill = now + 1;
      int i = (int)randomly((unsigned)n_hostages - 1);
      if (hostages[i] > 0) {
        kill(hostages[i], SIGKILL);
        waitpid(hostages[i], NULL, 0);
        made[KILLED] += HELD;
      }
      hostages[i] = hostage();
    }
    if (now >= next_report) {
      next_report += lasting / 60;
      long hostile = 0, rss = server_rss();
      int open_files = server_descriptors();
      for (int i = VANISH; i < KINDS; i++) hostile += made[i];
      if (all_points < 64 && now - start > lasting / 3) {
        times[points] = now - start;
        memory[points] = (double)rss;
        files[points++] = open_files;
      }
      double cpu = seconds(server_clock);
      printf("%8.1f %8ld %6d %6d %9ld %8ld %7.0f ms %5ld %4.0f%%\n", now - start, rss / 1024, open_files, still_open(),
             answered, hostile, slowest * 1e3, lost, (cpu - last_cpu) / (now - last_report) * 100);
      fflush(stdout);
      slowest = 0;
      last_cpu = cpu;
      last_report = now;
    }
  }

  /* The well-behaved finish their request, the others go. */
  draining = 1;
  for (int i = 0; i < n_hostages; i++)
    if (hostages[i] > 0) {
      kill(hostages[i], SIGKILL);
      waitpid(hostages[i], NULL, 0);
    }
  for (int i = 0; i < count; i++)
    if (clients[i].kind != GOOD && clients[i].state != CLOSED) gone(&clients[i]);
  for (double end = now + PATIENCE + 1; now < end && still_open();) {
    turn(10);
    for (int i = 0; i < count; i++)
      if (clients[i].state == THINKING) {
        shutdown(clients[i].fd, SHUT_WR);
        clients[i].state = ENDING;
        clients[i].when = now + PATIENCE;
      } else if (now >= clients[i].when)
        due(&clients[i]);
  }
  int files_after = server_descriptors();
  for (int i = 0; i < 300 && files_after > files_before; i++) {
    usleep(100000);
    files_after = server_descriptors();
  }
  printf("after: %ld KiB, %d descriptors\nconnections:", server_rss() / 1024, files_after);
  for (int i = 0; i < KINDS; i++) printf(" %s %ld", names[i], made[i]);
  printf("; not even dialled %ld\n", refused);
  stop_server();

  char text[256];
  int bad = 0;
  double most = lasting < 120 ? 0.5 : 0.03, mean = 0, more = growth(times, memory, points),
         more_files = growth(times, files, points);
  for (int i = 0; i < points; i++) mean += memory[i] / points;
  snprintf(text, sizeof text, "%ld requests answered, %ld lost", answered, lost);
  bad += verdict(text, answered > 0 && lost == 0);
  snprintf(text, sizeof text, "memory: grew by %.0f KiB (%.2f %% of %.0f) in %.0f s; at most %.0f %% or 512 KiB",
           more / 1024, more / mean * 100, mean / 1024, lasting * 2 / 3, most * 100);
  bad += verdict(text, points > 2 && (more <= mean * most || more <= 512 * 1024));
  snprintf(text, sizeof text, "descriptors: grew by %.1f in %.0f s; at most %d", more_files, lasting * 2 / 3,
           count / 100);
  bad += verdict(text, points > 2 && more_files <= count / 100.0);
  snprintf(text, sizeof text, "descriptors: %d before, %d after", files_before, files_after);
  bad += verdict(text, files_after <= files_before);
  return bad > 0;
}
