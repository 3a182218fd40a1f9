/*
** lsocket.h: the public C interface of `socket` for Lua, for programs that have Lua in them. C and C++.
**
** Functions that take a lua_State may raise Lua errors (of memory, of arguments) unless it says otherwise; call them from
** C functions that Lua called, or under lua_pcall. docs/embedding.md shows all of it at work.
*/
#ifndef LSOCKET_H
#define LSOCKET_H

#include <stddef.h>

#if defined(_WIN32)
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <sys/socket.h>
#include <sys/types.h>
#endif

#if defined(__cplusplus)
extern "C" {
#endif

#include <lua.h> /* as it is: Lua's own headers do not say extern "C" */

#define LSOCKET_VERSION_MAJOR 0
#define LSOCKET_VERSION_MINOR 1
#define LSOCKET_VERSION_PATCH 0
#define LSOCKET_VERSION "0.1.0"
#define LSOCKET_VERSION_NUM (LSOCKET_VERSION_MAJOR * 10000 + LSOCKET_VERSION_MINOR * 100 + LSOCKET_VERSION_PATCH)

/* LSOCKET_API may be defined otherwise before: empty, so that a program with the library in it exports nothing. */
#if !defined(LSOCKET_API)
#if defined(_WIN32)
#define LSOCKET_API __declspec(dllexport)
#elif defined(__GNUC__)
#define LSOCKET_API __attribute__((visibility("default")))
#else
#define LSOCKET_API
#endif
#endif

/* LSOCKET_VERSION_NUM of the library, which may not be that of this header. */
LSOCKET_API int lsock_version(void);

/* ---------------------------------------------------------------- modules */

/* Opens the module: luaL_requiref(L, "socket", luaopen_socket, 0). Opening it again gives the same table. */
LSOCKET_API int luaopen_socket(lua_State *L);

/* Parts of it, for `require "socket.selectors"` and the like; the same as its fields of these names. */
LSOCKET_API int luaopen_socket_selectors(lua_State *L);
LSOCKET_API int luaopen_socket_reactor(lua_State *L);
/* socket.ssl, where the TLS files are linked in: after the former, luaL_requiref(L, "socket.ssl", luaopen_socket_ssl, 0). */
LSOCKET_API int luaopen_socket_ssl(lua_State *L);

/*
** Puts `open` (luaopen_socket_ssl, say) where socket.ssl, require and package.preload look for the module `name`, to be
** opened when it is first used. Works in states without the library `package`.
*/
LSOCKET_API void lsock_preload(lua_State *L, const char *name, lua_CFunction open);

/*
** The same for the modules written in Lua, socket.loop and socket.server, for hosts without files: where lsocket_lua.c is
** linked in, which tools/embedlua.lua makes and liblsocket has.
*/
LSOCKET_API void lsock_preload_lua(lua_State *L);

/* ---------------------------------------------------------------- sockets */

/* A socket object in Lua's hands: valid while the object is on the stack, or known to be alive otherwise. */
typedef struct lsock_Sock lsock_Sock;

#if defined(_WIN32)
typedef SOCKET lsock_Descriptor;
#else
typedef int lsock_Descriptor;
#endif

/*
** Pushes a socket object that owns an open descriptor from now on, in the mode `timeout` asks for (seconds; < 0: none). A
** family, type or protocol < 0 is asked of the system. 0; or an errno, and nothing is pushed. After an errno, and after
** a Lua error (of memory), the descriptor is the caller's still. Neither policy nor limits are asked: this is the host.
*/
LSOCKET_API int lsock_push(lua_State *L, lsock_Descriptor fd, int family, int type, int proto, double timeout);

/* The socket object at `arg`: argument error for other values; NULL for other values. */
LSOCKET_API lsock_Sock *lsock_check(lua_State *L, int arg);
LSOCKET_API lsock_Sock *lsock_test(lua_State *L, int arg);

/* Its descriptor, -1 when closed. It stays the object's: not to be closed. Of a TLS socket it carries ciphertext. */
LSOCKET_API lsock_Descriptor lsock_fileno(const lsock_Sock *s);

/* Takes the descriptor out of the object at `arg`, which then is closed; -1 if it was. It is the caller's to close. */
LSOCKET_API lsock_Descriptor lsock_detach(lua_State *L, int arg);

/* ---------------------------------------------------------------- errors */

/*
** Pushes an error object like those of the library. `err` is an errno; `op` names the operation and must be a string
** that lives as long as the state; `sa`, which may be NULL, is the address concerned.
*/
LSOCKET_API void lsock_pusherrno(lua_State *L, int err, const char *op, const struct sockaddr *sa, socklen_t len);

/* Raises one: return lsock_raise(L, errno, "open"); */
LSOCKET_API int lsock_raise(lua_State *L, int err, const char *op);

/* ---------------------------------------------------------------- other modules */

/*
** The functions above for modules in shared libraries of their own: Lua loads each where it cannot see the names of the
** others. Later versions only add members at the end.
*/
#define LSOCKET_FUNCTIONS_VERSION 1
#define LSOCKET_FUNCTIONS_KEY "lsocket.functions"
typedef struct lsock_Functions {
  int version; /* LSOCKET_FUNCTIONS_VERSION of the library */
  int library; /* its lsock_version() */
  int (*push)(lua_State *L, lsock_Descriptor fd, int family, int type, int proto, double timeout);
  lsock_Sock *(*check)(lua_State *L, int arg);
  lsock_Sock *(*test)(lua_State *L, int arg);
  lsock_Descriptor (*fileno)(const lsock_Sock *s);
  lsock_Descriptor (*detach)(lua_State *L, int arg);
  void (*pusherrno)(lua_State *L, int err, const char *op, const struct sockaddr *sa, socklen_t len);
  int (*raise)(lua_State *L, int err, const char *op);
} lsock_Functions;

/*
** NULL where the module `socket` has not been opened, or is older than this header. Valid as long as the state. To be
** asked for when the module is opened, before scripts that may have the debug library and are not trusted.
*/
static inline const lsock_Functions *lsock_functions(lua_State *L) {
  const lsock_Functions *f;
  lua_getfield(L, LUA_REGISTRYINDEX, LSOCKET_FUNCTIONS_KEY);
  f = (const lsock_Functions *)(lua_islightuserdata(L, -1) ? lua_touserdata(L, -1) : NULL);
  lua_pop(L, 1);
  return f && f->version >= LSOCKET_FUNCTIONS_VERSION ? f : NULL;
}

/* ---------------------------------------------------------------- the policy */

/*
** Asked before a script's socket does something: 1 allows it, 0 refuses, which the script sees as an error EACCES. The
** address is what the system call will use, names resolved; NULL, with len 0, where there is none. It must not call Lua,
** and must not trust what a script could have written into it (a length, a family that is not the socket's).
**
**   op          sa                          when
**   socket      NULL                        a socket is made: socket, create_connection, create_server
**   socketpair  NULL                        two connected ones are
**   fromfd      the peer's, if connected    a descriptor is to become a socket, or by its number to be passed on or
**                                           waited for
**   close       likewise                    a plain descriptor is to be closed (socket.close)
**   dup         likewise                    ... or duplicated (socket.dup)
**   detach      likewise; recv_fds: NULL    a descriptor is to leave its object as a plain number (detach, recv_fds, those in
**                                           received messages) or to child programs (set_inheritable)
**   connect     the address                 connect, each attempt of create_connection, sending with MSG_FASTOPEN
**   bind        the address                 bind, create_server, source_address
**   listen      the socket's own            listen, create_server
**   sendto      the address                 sendto, sendmsg, send_fds
**   join        the group                   a multicast group is joined
**   setsockopt  NULL                        an option or ancillary item that may lead around the policy is set: every one
**                                           but the usual ones of sockets, TCP, UDP, IPv4 and IPv6
**   open        NULL, family and type -1    a file is named by its path: sendfile, certificates, key logs
**   sethostname NULL, family and type -1
**
** `family`, `type` and `proto` are the socket's own; for a descriptor that is no socket they are -1. A type alone does not
** tell the protocol: ICMP has SOCK_DGRAM too, SCTP and MPTCP have SOCK_STREAM. Where a script leaves the protocol of an
** internet stream or datagram to the system, `proto` is what the system takes: IPPROTO_TCP, IPPROTO_UDP.
*/
typedef int (*lsock_Policy)(void *ud, const char *op, const struct sockaddr *sa, socklen_t len, int family, int type,
                            int proto);

/* Sets it for the state, NULL for none; after luaopen_socket, before the first script. No script can see or change it. */
LSOCKET_API void lsock_setpolicy(lua_State *L, lsock_Policy policy, void *ud);

/* What kind of address it is: 0 for one that is public and unicast, else the sum of what it is. */
enum {
  LSOCK_NET_UNSPECIFIED = 1, /* 0.0.0.0/8, ::, which reach this machine */
  LSOCK_NET_LOOPBACK = 2,    /* 127.0.0.0/8, ::1 */
  LSOCK_NET_LINKLOCAL = 4,   /* 169.254.0.0/16, where the metadata of clouds are; fe80::/10 */
  LSOCK_NET_PRIVATE = 8,     /* 10/8, 172.16/12, 192.168/16, fc00::/7, fec0::/10 */
  LSOCK_NET_SHARED = 16,     /* 100.64.0.0/10, between a provider and its customers */
  LSOCK_NET_MULTICAST = 32,
  LSOCK_NET_RESERVED = 64, /* broadcast, documentation, tests, tunnels and all that is not assigned */
  LSOCK_NET_METADATA = 128,
  LSOCK_NET_OTHER = 256 /* no IPv4 or IPv6 address, or too short for one */
};
/* IPv4 addresses within IPv6 ones (mapped, compatible, translated, NAT64, 6to4, ISATAP) count as what they are. Pure. */
LSOCKET_API unsigned lsock_classify(const struct sockaddr *sa, socklen_t len);

/* A network and ports. Made by lsock_rule. */
typedef struct lsock_Rule {
  unsigned char net[16];    /* IPv4 as ::ffff:a.b.c.d */
  unsigned char bits;       /* of net that count, 0-128 */
  unsigned short low, high; /* ports */
} lsock_Rule;

/*
** Reads a rule: "192.0.2.7:443", "192.0.2.0/24:8000-8080", "[2001:db8::]/32:443", "[::1]:*", "*:443" (any address).
** 0, or -1 if the text is not one. Pure.
*/
LSOCKET_API int lsock_rule(lsock_Rule *rule, const char *text);

enum {                             /* flags of lsock_Rules */
       LSOCK_RULES_UNIX = 1,       /* AF_UNIX too, at any path: without it only socketpair */
       LSOCK_RULES_DESCRIPTORS = 2 /* fromfd, close, dup and detach: plain descriptors */
};

typedef struct lsock_Rules {
  const lsock_Rule *connect; /* where connect and sendto may lead */
  size_t nconnect;
  const lsock_Rule *bind; /* what may be bound, listened on and joined; any address with port 0 may be bound always */
  size_t nbind;
  unsigned flags;
} lsock_Rules;

/*
** A policy ready to use, or to be called from another; `ud` is a lsock_Rules, which must live as long as the state.
** TCP and UDP over IPv4 and IPv6 to addresses that a rule names. An address that lsock_classify has something to say
** of is allowed only by a rule whose whole network is of that kind: "10.1.0.0/16:*" allows what it says, "*:443" no
** private address. Everything else is refused: raw sockets, other protocols (of the same types too: ICMP, SCTP, MPTCP,
** UDP-Lite ...), other families, unusual options, files by path. `proto` may be 0 where a policy of your own does not know
** it. Pure.
*/
LSOCKET_API int lsock_rules(void *ud, const char *op, const struct sockaddr *sa, socklen_t len, int family, int type,
                            int proto);

/* ---------------------------------------------------------------- limits */

enum {                     /* flags of lsock_Limits */
       LSOCK_NO_NAMES = 1, /* no name lookups: addresses must be numbers; EACCES */
       LSOCK_NO_WAIT = 2,  /* nothing blocks the thread: what would wait fails with EAGAIN, except in coroutines
                                 ** with a wait hook, as under socket.loop */
       LSOCK_NO_DESCRIPTORS =
           4, /* no plain descriptors: detach, dup(fd), close(fd), fromfd, recv_fds, set_inheritable; EACCES */
       LSOCK_NONBLOCKING = 8 /* new sockets begin as after settimeout(0); a script may change that */
};

typedef struct lsock_Limits {
  int sockets; /* open at once in this state, 0: any number; EMFILE. Selectors, loops and lookups that wait count too.
               ** Implies LSOCK_NO_DESCRIPTORS */
  size_t
      receive; /* bytes of one receive, one buffer, in a file or MemoryBIO; 0: any, else at least 512; argument error, ENOBUFS */
  unsigned flags;
} lsock_Limits;

/* Sets them for the state; after luaopen_socket, before the first script. */
LSOCKET_API void lsock_setlimits(lua_State *L, const lsock_Limits *limits);

/* Sockets open now in this state, not counting those of lsock_push. */
LSOCKET_API int lsock_countsockets(lua_State *L);

#if defined(__cplusplus)
}
#endif

#endif
