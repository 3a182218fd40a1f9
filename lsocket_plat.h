/*
** lsocket_plat.h: everything that differs between platforms, behind one set of names.
** lsocket_posix.c implements it; elsewhere only the LSOCK_HAVE_ macros are tested.
*/
#ifndef LSOCKET_PLAT_H
#define LSOCKET_PLAT_H

/* Declarations beyond ISO C: GNU and BSD extensions of the C library's headers. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#if !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64 /* files of more than 2 GiB where a long has 32 bits */
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/auxv.h>
#define LSOCK_HAVE_ABSTRACT_UNIX 1 /* Unix addresses that begin with a zero byte (unix(7)) */
#endif

/*
** SO_RCVTIMEO and SO_SNDTIMEO bound recv, send and connect in the kernel and leave the socket usable after they
** expire (socket(7)). On other systems the details differ, so there the waiter polls.
*/
#if defined(__linux__)
#define LSOCK_HAVE_KERNEL_TIMEOUT 1
#endif

#if defined(LSOCK_USE_KQUEUE) || defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) ||                 \
    defined(__NetBSD__) || defined(__DragonFly__)
#define LSOCK_HAVE_KQUEUE 1
#elif defined(__linux__)
#define LSOCK_HAVE_EPOLL 1
#endif

#if !defined(__linux__)
#define LSOCK_ACCEPT_INHERITS 1 /* an accepted socket has the listener's O_NONBLOCK */
#endif

#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) ||                                               \
    (defined(__GLIBC__) && (defined(__aarch64__) || defined(__arm__) || defined(__riscv)))
#define LSOCK_STACK_GUARD 1
extern long __stack_chk_guard[];
#endif

#if !defined(NETDB_INTERNAL)
#define NETDB_INTERNAL (-1) /* musl; as in other systems' <netdb.h> */
#endif

#if defined(MSG_NOSIGNAL)
#define LSOCK_NOSIGNAL MSG_NOSIGNAL
#else
#define LSOCK_NOSIGNAL 0 /* lsock_plat_socket sets SO_NOSIGPIPE instead */
#endif

/*
** Functions of lsocket_int.h are inlined where that is faster, and where it is not there is one of each, in lsocket.c; a
** library beside the core has its own.
*/
#if defined(LSOCKET_BESIDE)
#define LSOCK_INLINE static inline
#else
#define LSOCK_INLINE inline
#endif
#if defined(__GNUC__)
#define LSOCK_NOINLINE __attribute__((noinline))
#define LSOCK_ONCE __attribute__((cold)) /* opens a module: kept with its like, so that the rest stays out of memory */
#define LSOCK_RARE __attribute__((cold)) /* small rather than fast, among what is fast */
#else
#define LSOCK_NOINLINE
#define LSOCK_ONCE
#define LSOCK_RARE
#endif

typedef int lsock_fd;
#define LSOCK_NOFD (-1)

/* Calls below return -1 (or LSOCK_NOFD) and set errno on failure. Every new descriptor is close-on-exec. */
lsock_fd lsock_plat_socket(int family, int type, int proto);
int lsock_plat_socketpair(int family, int type, int proto, lsock_fd fds[2]);
lsock_fd lsock_plat_accept(lsock_fd fd, struct sockaddr *sa, socklen_t *len);
lsock_fd lsock_plat_dup(lsock_fd fd);
int lsock_plat_close(lsock_fd fd);
int lsock_plat_set_nonblocking(lsock_fd fd, int on);
int lsock_plat_get_inheritable(lsock_fd fd);
int lsock_plat_set_inheritable(lsock_fd fd, int on);

/* Nanoseconds of a clock that no one sets. */
int64_t lsock_plat_now(void);

/* Waits for `events` on fd (fd < 0: only waits), at most ns nanoseconds (< 0: for ever). 1 ready, 0 time is up. */
int lsock_plat_poll(lsock_fd fd, short events, int64_t ns);

/* Bytes given to the system that the peer's has not confirmed; 0: none, or nobody knows. */
int lsock_plat_unsent(lsock_fd fd);

/* Many polls in one. 0 and 1, as poll. */
int lsock_plat_pollmany(struct pollfd *p, size_t n, int64_t ns);

/*
** A poller watches many descriptors (lsocket_poller.c); ENOSYS where there is no such thing. It is a descriptor itself,
** readable while it has something to report. What is closed leaves it.
*/
enum {
  LSOCK_EV_READ = 1,
  LSOCK_EV_WRITE = 2,
  LSOCK_EV_END = 4,   /* besides: there will be an end or an error instead of a wait */
  LSOCK_EV_URGENT = 8 /* asked for: urgent data; reported as LSOCK_EV_READ */
};
typedef struct lsock_Event {
  lsock_fd fd;
  int events;
} lsock_Event;
lsock_fd lsock_plat_poller(void);

/* Watches fd for other events than before (0: for none), and reports it as long as they last. */
int lsock_plat_poller_set(lsock_fd poller, lsock_fd fd, int before, int after);

/* Watches fd for everything, but reports only what is new since the last report. */
int lsock_plat_poller_edges(lsock_fd poller, lsock_fd fd);

/* Fills in at most `max` events, waiting at most ns nanoseconds (< 0: for ever) for the first. Their number. */
int lsock_plat_poller_wait(lsock_fd poller, lsock_Event *events, int max, int64_t ns);

/* Kernel timeouts: 0 means none. `ns` is rounded down to microseconds. */
int lsock_plat_kernel_timeout(lsock_fd fd, int sending, int64_t ns);

/* The longest kernel timeout that is sure to have ended `ns` nanoseconds from now; 0 if there is none. */
int64_t lsock_plat_kernel_slice(int64_t ns);

/* sendfile(2): from the file's position `at`; -1 and ENOSYS where there is no such call or it cannot take this file. */
ssize_t lsock_plat_sendfile(lsock_fd to, int file, int64_t at, size_t n);

/* A file for reading; its size if it is a regular one, else -1. */
lsock_fd lsock_plat_openfile(const char *path);
int64_t lsock_plat_filesize(int file);
ssize_t lsock_plat_readat(int file, void *buf, size_t n, int64_t at);

/* A number that a script cannot guess. */
LSOCK_ONCE uintptr_t lsock_plat_secret(void);

/*
** The same number every time in one process, for each library in it, and one that a script cannot guess: what the kernel
** gave the process at its start. Stack protectors keep it an instruction away: in a thread's own memory where glibc is on
** x86, in a variable elsewhere.
*/
LSOCK_INLINE uintptr_t lsock_plat_canary(void) {
#if defined(__GLIBC__) && defined(__GNUC__) && defined(__x86_64__) && defined(__LP64__)
  uintptr_t v;
  __asm__("mov %%fs:0x28, %0" : "=r"(v));
  return v;
#elif defined(__GLIBC__) && defined(__GNUC__) && defined(__i386__)
  uintptr_t v;
  __asm__("mov %%gs:0x14, %0" : "=r"(v));
  return v;
#elif defined(LSOCK_STACK_GUARD)
  return (uintptr_t)__stack_chk_guard[0];
#elif defined(__linux__)
  const uintptr_t *p = (const uintptr_t *)getauxval(AT_RANDOM); /* 16 bytes, getauxval(3) */
  return p ? *p : 0;
#else
  return (uintptr_t)&getpid; /* no better than the address the C library is at */
#endif
}

/* Threads, only for name lookups: detached, with every signal blocked. 0 or an errno. */
int lsock_plat_thread(void *(*run)(void *), void *arg);

/* Keeps this library in memory after the last lua_close: a lookup's thread may outlive it. */
void lsock_plat_pin(void);

/* Tells the C library's resolver, for this thread, that nobody waits longer than ns nanoseconds. */
void lsock_plat_bound_resolver(int64_t ns);

/* Thread-safe gethostbyname/gethostbyaddr into caller's memory; 0, or an h_errno in *herr (errno for NETDB_INTERNAL). */
typedef struct lsock_Hostent {
  struct hostent ent;
  char *buf;
  size_t size;
} lsock_Hostent;
int lsock_plat_hostbyname(const char *name, lsock_Hostent *h, int *herr);
int lsock_plat_hostbyaddr(const void *addr, socklen_t len, int family, lsock_Hostent *h, int *herr);
void lsock_plat_freehost(lsock_Hostent *h);

/* Thread-safe getservbyname and kin; proto may be NULL. 0, or -1 where there is no such entry. */
int lsock_plat_servbyname(const char *name, const char *proto, int *port);
int lsock_plat_servbyport(int port, const char *proto, char *name, size_t size);
int lsock_plat_protobyname(const char *name, int *proto);

/* strerror without its static buffer. */
const char *lsock_plat_strerror(int err, char *buf, size_t size);

#endif
