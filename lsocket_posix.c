/*
** lsocket_posix.c: the platform layer for Unix-like systems.
*/
#include "lsocket_plat.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <resolv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/random.h>
#include <sys/sendfile.h>
#endif

#define NS_PER_S INT64_C(1000000000)

static int set_flag(lsock_fd fd, int get, int set, int flag, int on) {
  int old = fcntl(fd, get);
  int new;
  if (old < 0) return -1;
  new = on ? old | flag : old & ~flag;
  return new == old ? 0 : fcntl(fd, set, new);
}

#if !defined(SOCK_CLOEXEC) || defined(SO_NOSIGPIPE)
/* Gives a new descriptor what the creating call could not. */
static lsock_fd finish(lsock_fd fd) {
  int bad = 0;
  if (fd < 0) return fd;
#if !defined(SOCK_CLOEXEC)
  bad = set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, 1) < 0;
#endif
#if defined(SO_NOSIGPIPE)
  {
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
  }
#endif
  if (bad) {
    int err = errno;
    close(fd);
    errno = err;
    return LSOCK_NOFD;
  }
  return fd;
}
#else
#define finish(fd) (fd)
#endif

#if defined(SOCK_CLOEXEC)
#define LSOCK_ACCEPT4 1
#else
#define SOCK_CLOEXEC 0
#endif

lsock_fd lsock_plat_socket(int family, int type, int proto) {
  return finish(socket(family, type | SOCK_CLOEXEC, proto));
}

int lsock_plat_socketpair(int family, int type, int proto, lsock_fd fds[2]) {
  if (socketpair(family, type | SOCK_CLOEXEC, proto, fds) < 0) return -1;
  fds[0] = finish(fds[0]);
  fds[1] = finish(fds[1]);
  if (fds[0] >= 0 && fds[1] >= 0) return 0;
  if (fds[0] >= 0) close(fds[0]);
  if (fds[1] >= 0) close(fds[1]);
  return -1;
}

lsock_fd lsock_plat_accept(lsock_fd fd, struct sockaddr *sa, socklen_t *len) {
#if defined(LSOCK_ACCEPT4)
  return finish(accept4(fd, sa, len, SOCK_CLOEXEC));
#else
  return finish(accept(fd, sa, len));
#endif
}

lsock_fd lsock_plat_dup(lsock_fd fd) {
  return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

int lsock_plat_close(lsock_fd fd) {
  int r = close(fd);
  /* The descriptor is gone either way; a peer's reset is no failure of the close. */
  return (r < 0 && (errno == EINTR || errno == EINPROGRESS || errno == ECONNRESET)) ? 0 : r;
}

int lsock_plat_set_nonblocking(lsock_fd fd, int on) {
  return ioctl(fd, FIONBIO, &on);
}

int lsock_plat_get_inheritable(lsock_fd fd) {
  int flags = fcntl(fd, F_GETFD);
  return flags < 0 ? -1 : !(flags & FD_CLOEXEC);
}

int lsock_plat_set_inheritable(lsock_fd fd, int on) {
  return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, !on);
}

/* Where time_t has 32 bits, 68 years are as long as it gets. */
static time_t seconds(int64_t ns) {
  int64_t s = ns / NS_PER_S;
  return (time_t)(s > INT32_MAX ? INT32_MAX : s);
}

int64_t lsock_plat_now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int lsock_plat_pollmany(struct pollfd *p, size_t n, int64_t ns) {
  int r;
#if defined(__linux__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__)
  struct timespec ts;
  if (ns >= 0) {
    ts.tv_sec = seconds(ns);
    ts.tv_nsec = (long)(ns % NS_PER_S);
  }
  r = ppoll(p, (nfds_t)n, ns < 0 ? NULL : &ts, NULL);
#else
  int64_t ms = ns < 0 ? -1 : ns / 1000000 + (ns % 1000000 != 0); /* up: never early */
  r = poll(p, (nfds_t)n, ms > INT_MAX ? INT_MAX : (int)ms);
  if (r == 0 && ms > INT_MAX) {
    errno = EINTR; /* the waiter comes back with the rest */
    return -1;
  }
#endif
  return r;
}

int lsock_plat_unsent(lsock_fd fd) {
  int n = 0;
#if defined(TIOCOUTQ) /* SIOCOUTQ of tcp(7) */
  if (ioctl(fd, TIOCOUTQ, &n) < 0) n = 0;
#else
  (void)fd;
#endif
  return n;
}

int lsock_plat_poll(lsock_fd fd, short events, int64_t ns) {
  struct pollfd p;
  p.fd = fd;
  p.events = events;
  p.revents = 0;
  return lsock_plat_pollmany(&p, 1, ns);
}

int lsock_plat_kernel_timeout(lsock_fd fd, int sending, int64_t ns) {
  struct timeval tv;
  tv.tv_sec = seconds(ns);
  tv.tv_usec = (suseconds_t)(ns % NS_PER_S / 1000);
  return setsockopt(fd, SOL_SOCKET, sending ? SO_SNDTIMEO : SO_RCVTIMEO, &tv, sizeof tv);
}

int64_t lsock_plat_kernel_slice(int64_t ns) {
#if defined(LSOCK_HAVE_KERNEL_TIMEOUT)
  /* Linux rounds a timeout up to ticks of at most 10 ms, then ends it up to one tick and an eighth late
  ** (kernel/time/timer.c): 8/9 of what is left after three ticks ends in time. */
  int64_t slice = (ns - 3 * INT64_C(10000000)) / 9 * 8;
  return slice < INT64_C(10000000) ? 0 : slice;
#else
  (void)ns;
  return 0;
#endif
}

#if defined(__linux__)
/* Takes the SIGPIPE of a failed call back, unless the host itself keeps one pending. */
static void swallow_sigpipe(const sigset_t *pipe, int kept) {
  const struct timespec now = {0};
  while (!kept && sigtimedwait(pipe, NULL, &now) < 0 && errno == EINTR) continue;
}
#endif

ssize_t lsock_plat_sendfile(lsock_fd to, int file, int64_t at, size_t n) {
#if defined(__linux__)
  off_t offset = (off_t)at;
  sigset_t pipe, old, pending; /* sendfile(2) knows no MSG_NOSIGNAL */
  int err, kept = 0;
  ssize_t r;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &old);
  if (sigismember(&old, SIGPIPE)) kept = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
  r = sendfile(to, file, &offset, n);
  err = errno;
  if (r < 0 ? err == EPIPE : r > 0 && (size_t)r < n) swallow_sigpipe(&pipe, kept); /* raised also after a part */
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  errno = r < 0 && err == EINVAL ? ENOSYS : err; /* this file cannot be mapped, or that socket not written to so */
  return r;
#else
  (void)to;
  (void)file;
  (void)at;
  (void)n;
  errno = ENOSYS;
  return -1;
#endif
}

lsock_fd lsock_plat_openfile(const char *path) {
  return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO would wait for its writer */
}

int64_t lsock_plat_filesize(int file) {
  struct stat st;
  return fstat(file, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
}

ssize_t lsock_plat_readat(int file, void *buf, size_t n, int64_t at) {
  return pread(file, buf, n, (off_t)at);
}

uintptr_t lsock_plat_secret(void) {
  uintptr_t r = 0;
#if defined(__linux__)
  if (getrandom(&r, sizeof r, GRND_NONBLOCK) == (ssize_t)sizeof r) return r;
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__)
  arc4random_buf(&r, sizeof r);
  return r;
#endif
  {
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
      if (read(fd, &r, sizeof r) != (ssize_t)sizeof r) r = 0;
      close(fd);
    }
  }
  return r ? r : (uintptr_t)lsock_plat_now() * UINT32_C(2654435761) ^ (uintptr_t)&r;
}

extern inline uintptr_t lsock_plat_canary(void);

int lsock_plat_thread(void *(*run)(void *), void *arg) {
  pthread_t id;
  pthread_attr_t attr;
  sigset_t all, old;
  int err = pthread_attr_init(&attr);
  if (err) return err;
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old); /* the host's signals are for the host's threads */
  err = pthread_create(&id, &attr, run, arg);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  return err;
}

void lsock_plat_pin(void) {
#if defined(RTLD_NODELETE) && defined(RTLD_NOLOAD)
  Dl_info info;
  if (dladdr((void *)(uintptr_t)lsock_plat_pin, &info) && info.dli_fname) {
    void *h = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    if (h) dlclose(h);
  }
#endif
}

void lsock_plat_bound_resolver(int64_t ns) {
#if defined(__GLIBC__)
  /* resolver(3): _res belongs to the thread; retrans is seconds a try, retry the number of tries. */
  int64_t s = ns / NS_PER_S + 1;
  _res.retrans = _res.retry = 0; /* res_init keeps what a lookup set before, even one of an ended thread */
  if (res_init() < 0 || ns < 0) return;
  if (s < _res.retrans) _res.retrans = (int)s;
  if (s < (int64_t)_res.retrans * _res.retry) _res.retry = (int)(s / _res.retrans) + (s % _res.retrans != 0);
#else
  (void)ns;
#endif
}

void lsock_plat_freehost(lsock_Hostent *h) {
  free(h->buf);
  h->buf = NULL;
}

#if defined(__linux__) || defined(__FreeBSD__)

/* The _r calls want a buffer of a size nobody knows: double it while they say ERANGE. No memory: *rc and *herr say so. */
static int grow(lsock_Hostent *h, int *rc, int *herr) {
  size_t size = h->buf ? h->size * 2 : 1024;
  char *buf;
  if (*rc != ERANGE) return 0;
  buf = size > (1u << 20) ? NULL : realloc(h->buf, size);
  *herr = buf ? 0 : NETDB_INTERNAL;
  if (!buf) {
    *rc = ENOMEM;
    return 0;
  }
  h->buf = buf;
  h->size = size;
  return 1;
}

static int host_result(const struct hostent *res, int rc, int *herr) {
  if (rc == 0 && res) return *herr = 0; /* glibc leaves 1 there for names that /etc/hosts knows */
  if (rc != 0 && *herr == NETDB_INTERNAL) errno = rc;
  if (*herr == 0) *herr = HOST_NOT_FOUND;
  return *herr;
}

int lsock_plat_hostbyname(const char *name, lsock_Hostent *h, int *herr) {
  struct hostent *res = NULL;
  int rc = ERANGE;
  h->buf = NULL;
  while (grow(h, &rc, herr)) rc = gethostbyname_r(name, &h->ent, h->buf, h->size, &res, herr);
  return host_result(res, rc, herr);
}

int lsock_plat_hostbyaddr(const void *addr, socklen_t len, int family, lsock_Hostent *h, int *herr) {
  struct hostent *res = NULL;
  int rc = ERANGE;
  h->buf = NULL;
  while (grow(h, &rc, herr)) rc = gethostbyaddr_r(addr, len, family, &h->ent, h->buf, h->size, &res, herr);
  return host_result(res, rc, herr);
}

#else

/* Elsewhere (macOS, other BSDs) the plain calls answer from thread-local memory. */
int lsock_plat_hostbyname(const char *name, lsock_Hostent *h, int *herr) {
  struct hostent *res = gethostbyname(name);
  h->buf = NULL;
  *herr = h_errno;
  if (!res) return *herr;
  h->ent = *res;
  return 0;
}

int lsock_plat_hostbyaddr(const void *addr, socklen_t len, int family, lsock_Hostent *h, int *herr) {
  struct hostent *res = gethostbyaddr(addr, len, family);
  h->buf = NULL;
  *herr = h_errno;
  if (!res) return *herr;
  h->ent = *res;
  return 0;
}

#endif

#if defined(__GLIBC__) || defined(__FreeBSD__)
#define DATABASE_R 1 /* reentrant calls; 4 KiB hold any line of /etc/services, a longer entry counts as absent */
#define DATABASE_BUF 4096
#endif

int lsock_plat_servbyname(const char *name, const char *proto, int *port) {
  struct servent *e;
#if defined(DATABASE_R)
  struct servent ent;
  char buf[DATABASE_BUF];
  if (getservbyname_r(name, proto, &ent, buf, sizeof buf, &e) != 0) return -1;
#else
  /* cppcheck-suppress getservbynameCalled ; its answer is in thread-local memory on macOS and the other BSDs */
  e = getservbyname(name, proto);
#endif
  if (!e) return -1;
  *port = ntohs((uint16_t)e->s_port);
  return 0;
}

int lsock_plat_servbyport(int port, const char *proto, char *name, size_t size) {
  struct servent *e;
#if defined(DATABASE_R)
  struct servent ent;
  char buf[DATABASE_BUF];
  if (getservbyport_r(htons((uint16_t)port), proto, &ent, buf, sizeof buf, &e) != 0) return -1;
#else
  /* cppcheck-suppress getservbyportCalled ; its answer is in thread-local memory on macOS and the other BSDs */
  e = getservbyport(htons((uint16_t)port), proto);
#endif
  if (!e || strlen(e->s_name) >= size) return -1;
  memcpy(name, e->s_name, strlen(e->s_name) + 1);
  return 0;
}

int lsock_plat_protobyname(const char *name, int *proto) {
  struct protoent *e;
#if defined(DATABASE_R)
  struct protoent ent;
  char buf[DATABASE_BUF];
  if (getprotobyname_r(name, &ent, buf, sizeof buf, &e) != 0) return -1;
#else
  /* cppcheck-suppress getprotobynameCalled ; its answer is in thread-local memory on macOS and the other BSDs */
  e = getprotobyname(name);
#endif
  if (!e) return -1;
  *proto = e->p_proto;
  return 0;
}

const char *lsock_plat_strerror(int err, char *buf, size_t size) {
#if defined(__GLIBC__)
  return strerror_r(err, buf, size);
#else
  if (strerror_r(err, buf, size) != 0) snprintf(buf, size, "Unknown error %d", err);
  return buf;
#endif
}
