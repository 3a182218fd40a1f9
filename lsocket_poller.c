/*
** lsocket_poller.c: watching many descriptors through one: epoll(7), or kqueue(2). A part of the platform layer.
*/
#include "lsocket_plat.h"

#include <limits.h>

#if defined(LSOCK_HAVE_KQUEUE)
#include <fcntl.h>
#include <sys/event.h>
#include <time.h>
#elif defined(LSOCK_HAVE_EPOLL)
#include <sys/epoll.h>
#include <time.h>
#endif

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

/* Events fetched by one system call. */
#define BATCH 256

/* Where time_t has 32 bits, 68 years are as long as it gets. */
#if defined(LSOCK_HAVE_KQUEUE) || defined(LSOCK_HAVE_EPOLL)
static struct timespec *timespec_of(int64_t ns, struct timespec *ts) {
  int64_t s = ns / NS_PER_S;
  if (ns < 0) return NULL;
  ts->tv_sec = (time_t)(s > INT32_MAX ? INT32_MAX : s);
  ts->tv_nsec = (long)(ns % NS_PER_S);
  return ts;
}
#endif

#if defined(LSOCK_HAVE_KQUEUE)

lsock_fd lsock_plat_poller(void) {
  int fd = kqueue();
  if (fd >= 0) lsock_plat_set_inheritable(fd, 0);
  return fd;
}

static int change(lsock_fd poller, lsock_fd fd, int filter, int flags) {
  struct kevent ev;
  EV_SET(&ev, (uintptr_t)fd, (short)filter, (unsigned short)flags, 0, 0, 0);
  return kevent(poller, &ev, 1, NULL, 0, NULL);
}

int lsock_plat_poller_set(lsock_fd poller, lsock_fd fd, int before, int after) {
  static const struct { int event, filter; } kinds[] = {{LSOCK_EV_READ, EVFILT_READ}, {LSOCK_EV_WRITE, EVFILT_WRITE}};
  int i, result = 0;
  for (i = 0; i < 2; i++) {
    int was = before & kinds[i].event, is = after & kinds[i].event;
    if (is && !was && change(poller, fd, kinds[i].filter, EV_ADD) < 0) {
      int err = errno;
      if (i == 1 && (after & ~before & LSOCK_EV_READ)) change(poller, fd, EVFILT_READ, EV_DELETE);
      errno = err;
      return -1;
    }
    if (was && !is && change(poller, fd, kinds[i].filter, EV_DELETE) < 0) result = -1;
  }
  return result;
}

int lsock_plat_poller_edges(lsock_fd poller, lsock_fd fd) {
  if (change(poller, fd, EVFILT_READ, EV_ADD | EV_CLEAR) < 0) return -1;
  return change(poller, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR);
}

int lsock_plat_poller_wait(lsock_fd poller, lsock_Event *events, int max, int64_t ns) {
  struct kevent ev[BATCH];
  struct timespec ts;
  int i, n = kevent(poller, NULL, 0, ev, max < BATCH ? max : BATCH, timespec_of(ns, &ts));
  for (i = 0; i < n; i++) {
    events[i].fd = (lsock_fd)ev[i].ident;
    events[i].events = ev[i].filter == EVFILT_WRITE ? LSOCK_EV_WRITE : LSOCK_EV_READ;
    if (ev[i].flags & EV_EOF) events[i].events |= LSOCK_EV_END;
  }
  return n;
}

#elif defined(LSOCK_HAVE_EPOLL)

lsock_fd lsock_plat_poller(void) {
  return epoll_create1(EPOLL_CLOEXEC);
}

static int control(lsock_fd poller, int op, lsock_fd fd, uint32_t events) {
  struct epoll_event ev = {0};
  ev.events = events;
  ev.data.fd = fd;
  return epoll_ctl(poller, op, fd, &ev);
}

static uint32_t flags_of(int events) {
  return (events & LSOCK_EV_READ ? EPOLLIN : 0U) | (events & LSOCK_EV_WRITE ? EPOLLOUT : 0U) |
         (events & LSOCK_EV_URGENT ? EPOLLPRI : 0U);
}

int lsock_plat_poller_set(lsock_fd poller, lsock_fd fd, int before, int after) {
  int op = !after ? EPOLL_CTL_DEL : before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  return control(poller, op, fd, flags_of(after));
}

int lsock_plat_poller_edges(lsock_fd poller, lsock_fd fd) {
  uint32_t all = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
  if (control(poller, EPOLL_CTL_ADD, fd, all) == 0) return 0;
  return errno == EEXIST ? control(poller, EPOLL_CTL_MOD, fd, all) : -1;
}

/* epoll_wait counts milliseconds: up, to be never early, and what is longer than it can count is EINTR. */
static int wait_ms(lsock_fd poller, struct epoll_event *ev, int max, int64_t ns) {
  int64_t ms = ns < 0 ? -1 : ns / NS_PER_MS + (ns % NS_PER_MS != 0);
  int n = epoll_wait(poller, ev, max, ms > INT_MAX ? INT_MAX : (int)ms);
  if (n == 0 && ms > INT_MAX) {
    errno = EINTR;
    return -1;
  }
  return n;
}

/* Linux 5.11 counts nanoseconds. */
static int wait_ns(lsock_fd poller, struct epoll_event *ev, int max, int64_t ns) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || (__GLIBC__ == 2 && __GLIBC_MINOR__ >= 35))
  struct timespec ts;
  if (ns > 0) {
    int n = epoll_pwait2(poller, ev, max, timespec_of(ns, &ts), NULL);
    if (n >= 0 || errno != ENOSYS) return n;
  }
#else
  (void)timespec_of;
#endif
  return wait_ms(poller, ev, max, ns);
}

int lsock_plat_poller_wait(lsock_fd poller, lsock_Event *events, int max, int64_t ns) {
  struct epoll_event ev[BATCH];
  int i, n = wait_ns(poller, ev, max < BATCH ? max : BATCH, ns);
  for (i = 0; i < n; i++) {
    uint32_t e = ev[i].events;
    events[i].fd = ev[i].data.fd;
    events[i].events = 0;
    if (e & ~(uint32_t)EPOLLOUT) events[i].events |= LSOCK_EV_READ; /* errors and ends too, as poll(2) users expect */
    if (e & (EPOLLOUT | EPOLLERR | EPOLLHUP)) events[i].events |= LSOCK_EV_WRITE;
    /* before urgent data recv(2) stops, so that less than asked for is not all there is */
    if (e & (EPOLLRDHUP | EPOLLERR | EPOLLHUP | EPOLLPRI)) events[i].events |= LSOCK_EV_END;
  }
  return n;
}

#else

lsock_fd lsock_plat_poller(void) {
  errno = ENOSYS;
  return LSOCK_NOFD;
}

int lsock_plat_poller_set(lsock_fd poller, lsock_fd fd, int before, int after) {
  (void)poller, (void)fd, (void)before, (void)after;
  errno = ENOSYS;
  return -1;
}

int lsock_plat_poller_edges(lsock_fd poller, lsock_fd fd) {
  return lsock_plat_poller_set(poller, fd, 0, 0);
}

int lsock_plat_poller_wait(lsock_fd poller, lsock_Event *events, int max, int64_t ns) {
  (void)events, (void)max, (void)ns;
  return lsock_plat_poller_set(poller, LSOCK_NOFD, 0, 0);
}

#endif
