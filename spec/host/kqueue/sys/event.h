/*
** event.h: so much of kqueue(2), on Linux's epoll, as lsocket_poller.c uses, so that its code for BSD and macOS is
** compiled and run by the specs (`make kqueue`). After FreeBSD's manual page; it proves no BSD.
*/
#ifndef SPEC_KQUEUE_H
#define SPEC_KQUEUE_H

#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_CLEAR 0x0020
#define EV_EOF 0x8000

struct kevent {
  uintptr_t ident;
  short filter;
  unsigned short flags;
  unsigned int fflags;
  int64_t data;
  void *udata;
};

#define EV_SET(kev, a, b, c, d, e, f)                                                                                  \
  ((kev)->ident = (a), (kev)->filter = (b), (kev)->flags = (c), (kev)->fflags = (d), (kev)->data = (e),                \
   (kev)->udata = (f))

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout);

#endif
