/*
** kqueue.c: see sys/event.h beside it.
*/
#define _GNU_SOURCE 1
#include "sys/event.h"

#include <errno.h>

enum { READ = 1, WRITE = 2, CLEAR = 4, FDS = 16384 };

/* The filters of each descriptor in each kqueue; most of it never becomes memory. */
static unsigned char filters[FDS][FDS];

int kqueue(void) {
  return epoll_create1(0);
}

static int set(int kq, int fd, int now) {
  struct epoll_event ev = {0};
  int op = EPOLL_CTL_MOD;
  ev.events = (now & READ ? EPOLLIN | EPOLLRDHUP : 0U) | (now & WRITE ? EPOLLOUT : 0U) | (now & CLEAR ? EPOLLET : 0U);
  ev.data.fd = fd;
  if (!(now & (READ | WRITE))) op = EPOLL_CTL_DEL;
  if (epoll_ctl(kq, op, fd, &ev) == 0) return 0;
  if (op == EPOLL_CTL_MOD && errno == ENOENT) return epoll_ctl(kq, EPOLL_CTL_ADD, fd, &ev);
  return -1;
}

static int change(int kq, const struct kevent *c) {
  int fd = (int)c->ident, filter = c->filter == EVFILT_READ ? READ : WRITE, now;
  struct epoll_event probe = {0};
  if (kq >= FDS || fd < 0 || fd >= FDS) {
    errno = EBADF;
    return -1;
  }
  if (epoll_ctl(kq, EPOLL_CTL_ADD, fd, &probe) == 0) { /* nothing was left of it: it had been closed */
    epoll_ctl(kq, EPOLL_CTL_DEL, fd, &probe);
    filters[kq][fd] = 0;
  } else if (errno != EEXIST)
    return -1;
  now = filters[kq][fd];
  if (c->flags & EV_ADD)
    now |= filter | (c->flags & EV_CLEAR ? CLEAR : 0);
  else if (now & filter)
    now &= ~filter;
  else {
    errno = ENOENT;
    return -1;
  }
  if (set(kq, fd, now) < 0) return -1;
  filters[kq][fd] = (unsigned char)now;
  return 0;
}

static int put(struct kevent *events, int n, int fd, int filter, uint32_t e) {
  uint32_t end = filter == EVFILT_READ ? EPOLLRDHUP | EPOLLHUP | EPOLLERR : EPOLLHUP | EPOLLERR;
  EV_SET(&events[n], (uintptr_t)fd, (short)filter, e & end ? EV_EOF : 0, 0, 0, 0);
  return n + 1;
}

int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout) {
  struct epoll_event ev[64];
  int i, n, got = 0, most = nevents / 2 < 64 ? nevents / 2 : 64;
  for (i = 0; i < nchanges; i++)
    if (change(kq, &changes[i]) < 0) return -1;
  if (nevents == 0) return 0;
  n = epoll_pwait2(kq, ev, most, timeout, 0);
  for (i = 0; i < n; i++) {
    int fd = ev[i].data.fd, want = filters[kq][fd];
    uint32_t e = ev[i].events, bad = EPOLLHUP | EPOLLERR;
    if ((want & READ) && (e & (EPOLLIN | EPOLLRDHUP | bad))) got = put(events, got, fd, EVFILT_READ, e);
    if ((want & WRITE) && (e & (EPOLLOUT | bad))) got = put(events, got, fd, EVFILT_WRITE, e);
  }
  return n < 0 ? -1 : got;
}
