/*
** lsocket_policy.c: what the host allows: asking its policy, and the rules that come with the library (lsocket.h).
*/
#include "lsocket_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <netinet/tcp.h>

/* ---------------------------------------------------------------- asking */

int lsock_ask(const lsock_Core *core, const char *what, const lsock_Addr *a, int family, int type, int proto) {
  const struct sockaddr *sa = NULL;
  socklen_t len = 0;
  if (a && a->len > 0) {
    sa = &a->u.sa;
    len = a->len;
  }
  if (proto == 0 && (family == AF_INET || family == AF_INET6)) /* the kernel's choice */
    proto = type == SOCK_STREAM ? IPPROTO_TCP : type == SOCK_DGRAM ? IPPROTO_UDP : 0;
  if (core->policy(core->policy_ud, what, sa, len, family, type, proto)) return 1;
  errno = EACCES;
  return 0;
}

/* {refused = what, family = , type = , proto = } */
static void push_refused(lua_State *L, const char *what, int family, int type, int proto) {
  static const char *const names[] = {"family", "type", "proto"};
  const int values[] = {family, type, proto};
  int i;
  lua_createtable(L, 0, 4);
  lua_pushstring(L, what);
  lua_setfield(L, -2, "refused");
  for (i = 0; i < 3; i++) {
    lua_pushinteger(L, values[i]);
    lua_setfield(L, -2, names[i]);
  }
}

int lsock_refuse(lua_State *L, lsock_Op *op, const char *what) {
  luaL_checkstack(L, 8, "refusal");
  push_refused(L, what, op->s->family, op->s->type, op->s->proto);
  op->extra = lua_gettop(L);
  lsock_pushaddr(L, op->s->proto, &op->addr); /* as resolved */
  if (!lua_isnil(L, -1)) op->address = lua_gettop(L);
  op->err = EACCES;
  op->cls = 0;
  op->msg = LSOCK_REFUSED;
  return LSOCK_FAIL;
}

/* What the table on top says, with a message. */
static int refused(lua_State *L, const char *op, const char *msg) {
  lsock_Fail f = {0};
  f.err = EACCES;
  f.op = op;
  f.msg = msg;
  f.extra = lua_gettop(L);
  return lsock_fail(L, &f);
}

int lsock_failrefused(lua_State *L, const char *op, const char *what, const lsock_Sock *s) {
  luaL_checkstack(L, 8, "refusal");
  push_refused(L, what, s ? s->family : -1, s ? s->type : -1, s ? s->proto : -1);
  return refused(L, op, LSOCK_REFUSED);
}

int lsock_admit(lua_State *L, const char *op, const char *what, int family, int type, int proto, int n) {
  const lsock_Core *core = lsock_core(L);
  if (!lsock_may(core, what, NULL, family, type, proto)) {
    push_refused(L, what, family, type, proto);
    return refused(L, op, LSOCK_REFUSED);
  }
  return lsock_full(L, core, n) ? lsock_failfull(L, op) : 0;
}

int lsock_failfull(lua_State *L, const char *op) {
  lsock_Fail f = {0};
  f.err = EMFILE;
  f.op = op;
  f.msg = LSOCK_TOO_MANY;
  return lsock_fail(L, &f);
}

int lsock_stepfull(lsock_Op *op) {
  op->err = EMFILE;
  op->msg = LSOCK_TOO_MANY;
  return LSOCK_FAIL;
}

int lsock_may_fd(const lsock_Core *core, const char *what, lsock_fd fd) {
  lsock_Addr a;
  int family = -1, type = -1, proto = -1;
  if (core->restrictions & LSOCK_NO_DESCRIPTORS) return 0;
  if (!core->policy) return 1;
  a.len = sizeof a.u;
  if (fd == LSOCK_NOFD || lsock_describe(fd, &family, &type, &proto) < 0)
    family = type = proto = -1;
  else if (getpeername(fd, &a.u.sa, &a.len) == 0 && a.len <= sizeof a.u)
    return lsock_ask(core, what, &a, family, type, proto);
  return lsock_ask(core, what, NULL, family, type, proto);
}

int lsock_admit_fd(lua_State *L, const char *op, const char *what, lsock_fd fd) {
  if (lsock_may_fd(lsock_core(L), what, fd)) return 0;
  return lsock_failrefused(L, op, what, NULL);
}

int lsock_admit_other(lua_State *L, const char *op, const char *what) {
  return lsock_may(lsock_core(L), what, NULL, -1, -1, -1) ? 0 : lsock_failrefused(L, op, what, NULL);
}

int lsock_may_listen(const lsock_Core *core, const lsock_Sock *s) {
  lsock_Addr a;
  if (lsock_likely(!core->policy)) return 1;
  memset(&a, 0, sizeof a);
  a.len = sizeof a.u;
  if (getsockname(s->fd, &a.u.sa, &a.len) < 0 || a.len > sizeof a.u) a.len = 0;
  return lsock_ask(core, "listen", &a, s->family, s->type, s->proto);
}

/* ---------------------------------------------------------------- options */

/* Those that lead nowhere; by the kernel's number where the headers may be older. */
static const struct {
  int level, name;
} usual[] = {
    {SOL_SOCKET, SO_REUSEADDR},
    {SOL_SOCKET, SO_KEEPALIVE},
    {SOL_SOCKET, SO_BROADCAST},
    {SOL_SOCKET, SO_LINGER},
    {SOL_SOCKET, SO_OOBINLINE},
    {SOL_SOCKET, SO_RCVBUF},
    {SOL_SOCKET, SO_SNDBUF},
    {SOL_SOCKET, SO_RCVLOWAT},
    {SOL_SOCKET, SO_SNDLOWAT},
    {SOL_SOCKET, SO_RCVTIMEO},
    {SOL_SOCKET, SO_SNDTIMEO},
#if defined(SO_REUSEPORT)
    {SOL_SOCKET, SO_REUSEPORT},
#endif
#if defined(SO_TIMESTAMP)
    {SOL_SOCKET, SO_TIMESTAMP},
#endif
#if defined(SO_TIMESTAMPNS)
    {SOL_SOCKET, SO_TIMESTAMPNS},
#endif
#if defined(SO_PASSCRED)
    {SOL_SOCKET, SO_PASSCRED},
#endif
#if defined(SO_PRIORITY)
    {SOL_SOCKET, SO_PRIORITY},
#endif
#if defined(SO_RXQ_OVFL)
    {SOL_SOCKET, SO_RXQ_OVFL},
#endif
#if defined(SO_MAX_PACING_RATE)
    {SOL_SOCKET, SO_MAX_PACING_RATE},
#endif
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_MAXSEG},
#if defined(TCP_CORK)
    {IPPROTO_TCP, TCP_CORK},
#endif
#if defined(TCP_KEEPIDLE)
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
#endif
#if defined(__linux__)
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_LINGER2},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP},
    {IPPROTO_TCP, TCP_QUICKACK},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, 23}, /* TCP_FASTOPEN */
    {IPPROTO_TCP, 25}, /* TCP_NOTSENT_LOWAT */
    {IPPROTO_TCP, 30}, /* TCP_FASTOPEN_CONNECT: the address is connect's */
    {IPPROTO_UDP, 1},  /* UDP_CORK */
    {IPPROTO_UDP, 103},
    {IPPROTO_UDP, 104}, /* UDP_SEGMENT, UDP_GRO */
    {IPPROTO_IP, IP_RECVTTL},
    {IPPROTO_IP, IP_RECVTOS},
    {IPPROTO_IP, IP_PKTINFO},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IP, IP_MULTICAST_ALL},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT},
    {IPPROTO_IPV6, IPV6_RECVTCLASS},
    {IPPROTO_IPV6, IPV6_RECVERR},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER},
#endif
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_MULTICAST_IF},
    {IPPROTO_IP, IP_MULTICAST_TTL},
    {IPPROTO_IP, IP_MULTICAST_LOOP},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP},
    {IPPROTO_IPV6, IPV6_V6ONLY}, /* mapped addresses are seen as what they are */
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_MULTICAST_IF},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP},
#if defined(IPV6_LEAVE_GROUP)
    {IPPROTO_IPV6, IPV6_LEAVE_GROUP},
#endif
#if defined(IPV6_TCLASS)
    {IPPROTO_IPV6, IPV6_TCLASS},
#endif
};

static int is_usual(int level, int name) {
  size_t i;
  for (i = 0; i < LSOCK_COUNT(usual); i++)
    if (usual[i].level == level && usual[i].name == name) return 1;
  return 0;
}

/* The multicast group that an option joins: 1. */
static int group_of(int level, int name, const void *p, size_t len, lsock_Addr *a) {
  memset(a, 0, sizeof *a);
  if (level == IPPROTO_IP && name == IP_ADD_MEMBERSHIP && len >= sizeof a->u.in.sin_addr) {
    a->u.in.sin_family = AF_INET;
    memcpy(&a->u.in.sin_addr, p, sizeof a->u.in.sin_addr);
    a->len = sizeof a->u.in;
    return 1;
  }
#if defined(IPV6_JOIN_GROUP)
  if (level == IPPROTO_IPV6 && name == IPV6_JOIN_GROUP && len >= sizeof a->u.in6.sin6_addr) {
    a->u.in6.sin6_family = AF_INET6;
    memcpy(&a->u.in6.sin6_addr, p, sizeof a->u.in6.sin6_addr);
    a->len = sizeof a->u.in6;
    return 1;
  }
#endif
  return 0;
}

/* A close that waits for its bytes to be sent waits in the kernel, whatever the mode. */
static int lingers(int level, int name, const void *p, size_t len) {
  struct linger l;
  if (level != SOL_SOCKET || name != SO_LINGER || len < sizeof l) return 0;
  memcpy(&l, p, sizeof l);
  return l.l_onoff && l.l_linger != 0;
}

int lsock_admit_option(lua_State *L, const lsock_Sock *s, int level, int name, const void *p, size_t len) {
  const lsock_Core *core = lsock_core(L);
  lsock_Addr a;
  const char *what = "setsockopt";
  if ((core->hook & LSOCK_NEVER) && p && lingers(level, name, p, len)) {
    push_refused(L, what, s->family, s->type, s->proto);
    return refused(L, what, "the host lets nothing block");
  }
  if (lsock_likely(!core->policy) || is_usual(level, name)) return 0;
  if (p && group_of(level, name, p, len, &a)) {
    lsock_Fail f = {0};
    what = "join";
    if (lsock_ask(core, what, &a, s->family, s->type, s->proto)) return 0;
    luaL_checkstack(L, 10, "refusal");
    push_refused(L, what, s->family, s->type, s->proto);
    lsock_pushaddr(L, s->proto, &a);
    f.err = EACCES;
    f.op = "setsockopt";
    f.msg = LSOCK_REFUSED;
    f.address = lua_gettop(L);
    f.extra = f.address - 1;
    return lsock_fail(L, &f);
  }
  if (lsock_ask(core, what, NULL, s->family, s->type, s->proto)) return 0;
  return lsock_failrefused(L, "setsockopt", what, s);
}

/* Options that give out a descriptor: SO_PEERPIDFD, and all of SCTP's, one of which does. */
int lsock_admit_getoption(lua_State *L, const lsock_Sock *s, int level, int name) {
  const lsock_Core *core = lsock_core(L);
  if ((level == SOL_SOCKET && name == 77) || level == 132) {
    if (core->restrictions & LSOCK_NO_DESCRIPTORS || !lsock_may(core, "setsockopt", NULL, s->family, s->type, s->proto))
      return lsock_failrefused(L, "getsockopt", "setsockopt", s);
  }
  return 0;
}

/* Descriptors, credentials, TTL and TOS; not routes, source addresses, marks. */
int lsock_may_send_item(const lsock_Core *core, const lsock_Sock *s, int level, int type) {
#if defined(SCM_RIGHTS)
  /* in flight they would be open, uncounted, and outlive the state */
  if (level == SOL_SOCKET && type == SCM_RIGHTS && core->restrictions & LSOCK_NO_DESCRIPTORS) return 0;
#endif
  if (lsock_likely(!core->policy)) return 1;
#if defined(SCM_RIGHTS)
  if (level == SOL_SOCKET && type == SCM_RIGHTS) return s->family == AF_UNIX;
#endif
#if defined(SCM_CREDENTIALS)
  if (level == SOL_SOCKET && type == SCM_CREDENTIALS) return s->family == AF_UNIX;
#endif
  if (level == IPPROTO_IP && (type == IP_TTL || type == IP_TOS)) return 1;
#if defined(IPV6_TCLASS) && defined(IPV6_HOPLIMIT)
  if (level == IPPROTO_IPV6 && (type == IPV6_TCLASS || type == IPV6_HOPLIMIT)) return 1;
#endif
  return lsock_ask(core, "setsockopt", NULL, s->family, s->type, s->proto);
}

/* ---------------------------------------------------------------- kinds of addresses */

typedef struct Range {
  unsigned char net[16];
  unsigned char bits;
  unsigned short kind;
} Range;

/* RFC 6890 and its successors; the first that matches counts. */
static const struct {
  uint32_t net;
  unsigned char bits;
  unsigned short kind;
} ranges4[] = {
    {0xA9FEA9FE, 32, LSOCK_NET_METADATA | LSOCK_NET_LINKLOCAL}, /* 169.254.169.254 */
    {0x646464C8, 32, LSOCK_NET_METADATA | LSOCK_NET_SHARED},    /* 100.100.100.200 */
    {0xA83F8110, 32, LSOCK_NET_METADATA},                       /* 168.63.129.16 */
    {0xC00000C0, 32, LSOCK_NET_METADATA | LSOCK_NET_RESERVED},  /* 192.0.0.192 */
    {0x00000000, 8, LSOCK_NET_UNSPECIFIED},                     /* 0.0.0.0 */
    {0x0A000000, 8, LSOCK_NET_PRIVATE},                         /* 10.0.0.0 */
    {0x64400000, 10, LSOCK_NET_SHARED},                         /* 100.64.0.0 */
    {0x7F000000, 8, LSOCK_NET_LOOPBACK},                        /* 127.0.0.0 */
    {0xA9FE0000, 16, LSOCK_NET_LINKLOCAL},                      /* 169.254.0.0 */
    {0xAC100000, 12, LSOCK_NET_PRIVATE},                        /* 172.16.0.0 */
    {0xC0000000, 24, LSOCK_NET_RESERVED},                       /* 192.0.0.0, protocols */
    {0xC0000200, 24, LSOCK_NET_RESERVED},                       /* 192.0.2.0, documentation */
    {0xC0586300, 24, LSOCK_NET_RESERVED},                       /* 192.88.99.0, 6to4's relays */
    {0xC0A80000, 16, LSOCK_NET_PRIVATE},                        /* 192.168.0.0 */
    {0xC6120000, 15, LSOCK_NET_RESERVED},                       /* 198.18.0.0, benchmarks */
    {0xC6336400, 24, LSOCK_NET_RESERVED},                       /* 198.51.100.0, documentation */
    {0xCB007100, 24, LSOCK_NET_RESERVED},                       /* 203.0.113.0, documentation */
    {0xE0000000, 4, LSOCK_NET_MULTICAST},                       /* 224.0.0.0 */
    {0xF0000000, 4, LSOCK_NET_RESERVED},                        /* 240.0.0.0, 255.255.255.255 among them */
};

static const Range ranges6[] = {
    {{0xFD, 0x00, 0x0E, 0xC2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}, 128, LSOCK_NET_METADATA | LSOCK_NET_PRIVATE},
    {{0xFD, 0x20, 0x0C, 0xE0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}, 128, LSOCK_NET_METADATA | LSOCK_NET_PRIVATE},
    {{0}, 128, LSOCK_NET_UNSPECIFIED},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, LSOCK_NET_LOOPBACK},
    {{0xFE, 0x80}, 10, LSOCK_NET_LINKLOCAL},
    {{0xFE, 0xC0}, 10, LSOCK_NET_PRIVATE},
    {{0xFC}, 7, LSOCK_NET_PRIVATE},
    {{0xFF}, 8, LSOCK_NET_MULTICAST},
    {{0x20, 0x01}, 23, LSOCK_NET_RESERVED},             /* 2001::/23: Teredo, ORCHID and other protocols */
    {{0x20, 0x01, 0x0D, 0xB8}, 32, LSOCK_NET_RESERVED}, /* documentation */
    {{0x3F, 0xFF}, 20, LSOCK_NET_RESERVED},             /* documentation */
};

static int in_net(const unsigned char *a, const unsigned char *net, unsigned bits) {
  unsigned whole = bits / 8, rest = bits % 8;
  if (memcmp(a, net, whole) != 0) return 0;
  return rest == 0 || (unsigned char)((a[whole] ^ net[whole]) >> (8 - rest)) == 0;
}

/* What all addresses of the network b/bits are; 0 if they differ, or are public. */
static unsigned kind4(const unsigned char *b, unsigned bits) {
  uint32_t a = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
  size_t i;
  for (i = 0; i < LSOCK_COUNT(ranges4); i++)
    if (ranges4[i].bits <= bits && (a ^ ranges4[i].net) >> (32 - ranges4[i].bits) == 0) return ranges4[i].kind;
  return 0;
}

/* ::ffff:0:0/96: IPv4 for the kernel too. */
static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

/* Where IPv4 addresses hide in IPv6 ones that may reach them, and whether the form itself is nothing public. */
static const struct {
  unsigned char net[12];
  unsigned char bits, at, local;
} embedded[] = {
    {{0, 0x64, 0xFF, 0x9B}, 96, 12, 0},                /* 64:ff9b::a.b.c.d, NAT64 */
    {{0, 0x64, 0xFF, 0x9B, 0, 1}, 48, 12, 1},          /* 64:ff9b:1::, NAT64 within a site */
    {{0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}, 96, 12, 1}, /* ::ffff:0:a.b.c.d, translated */
    {{0x20, 0x02}, 16, 2, 1},                          /* 2002:abcd::, 6to4 */
    {{0}, 96, 12, 1},                                  /* ::a.b.c.d, compatible */
};

static unsigned kind6(const unsigned char *b, unsigned bits) {
  unsigned kind = 0;
  size_t i;
  if (bits >= 96 && memcmp(b, mapped, sizeof mapped) == 0) return kind4(b + 12, bits - 96);
  for (i = 0; i < LSOCK_COUNT(ranges6); i++)
    if (ranges6[i].bits <= bits && in_net(b, ranges6[i].net, ranges6[i].bits)) return ranges6[i].kind;
  for (i = 0; i < LSOCK_COUNT(embedded); i++)
    if (embedded[i].bits <= bits && in_net(b, embedded[i].net, embedded[i].bits)) {
      unsigned at = embedded[i].at, left = bits > at * 8u ? bits - at * 8u : 0;
      kind = kind4(b + at, left < 32 ? left : 32);
      return embedded[i].local ? kind | LSOCK_NET_RESERVED : kind;
    }
  if (bits >= 96 && b[9] == 0 && b[10] == 0x5E && b[11] == 0xFE && (b[8] & 0xFD) == 0)
    kind = kind4(b + 12, bits - 96);                                  /* ISATAP */
  if (bits >= 3 && (b[0] & 0xE0) != 0x20) kind |= LSOCK_NET_RESERVED; /* only 2000::/3 is assigned */
  return kind;
}

/* The address in 16 bytes, IPv4 mapped, and its port; 0 for none. The family alone tells what the kernel will make of it. */
static int address_of(const struct sockaddr *sa, socklen_t len, unsigned char net[16], unsigned *port) {
  lsock_Addr a;
  if (!sa || len < offsetof(struct sockaddr, sa_data) || len > sizeof a.u) return 0;
  memcpy(&a.u, sa, len);
  if (a.u.sa.sa_family == AF_INET && len >= sizeof a.u.in) {
    memcpy(net, mapped, sizeof mapped);
    memcpy(net + 12, &a.u.in.sin_addr, 4);
    *port = ntohs(a.u.in.sin_port);
    return 1;
  }
  if (a.u.sa.sa_family == AF_INET6 && len >= sizeof a.u.in6) {
    memcpy(net, &a.u.in6.sin6_addr, 16);
    *port = ntohs(a.u.in6.sin6_port);
    return 1;
  }
  return 0;
}

unsigned lsock_classify(const struct sockaddr *sa, socklen_t len) {
  unsigned char net[16];
  unsigned port;
  return address_of(sa, len, net, &port) ? kind6(net, 128) : LSOCK_NET_OTHER;
}

/* ---------------------------------------------------------------- rules */

/* A decimal number of up to `max`, at *p, which moves on; -1 for none. */
static long number(const char **p, long max) {
  long v = 0;
  const char *s = *p;
  if (*s < '0' || *s > '9') return -1;
  for (; *s >= '0' && *s <= '9'; s++) {
    v = v * 10 + (*s - '0');
    if (v > max) return -1;
  }
  *p = s;
  return v;
}

static int read_ports(lsock_Rule *r, const char *p) {
  long low, high;
  if (strcmp(p, "*") == 0) {
    r->low = 0;
    r->high = 65535;
    return 0;
  }
  low = high = number(&p, 65535);
  if (low >= 0 && *p == '-') {
    p++;
    high = number(&p, 65535);
  }
  if (low < 0 || high < low || *p) return -1;
  r->low = (unsigned short)low;
  r->high = (unsigned short)high;
  return 0;
}

int lsock_rule(lsock_Rule *r, const char *text) {
  char host[INET6_ADDRSTRLEN];
  const char *p = text, *end;
  long bits = -1;
  int v6 = *text == '[';
  memset(r, 0, sizeof *r);
  if (*p == '*' && p[1] == ':') return read_ports(r, p + 2);
  if (v6) p++;
  end = p + strcspn(p, v6 ? "]" : "/:");
  if ((size_t)(end - p) >= sizeof host) return -1;
  memcpy(host, p, (size_t)(end - p));
  host[end - p] = '\0';
  p = end;
  if (v6 && *p++ != ']') return -1;
  if (*p == '/') {
    p++;
    bits = number(&p, v6 ? 128 : 32);
    if (bits < 0) return -1;
  }
  if (*p++ != ':') return -1;
  if (v6) {
    if (inet_pton(AF_INET6, host, r->net) != 1) return -1;
    r->bits = (unsigned char)(bits < 0 ? 128 : bits);
  } else {
    memcpy(r->net, mapped, sizeof mapped);
    if (inet_pton(AF_INET, host, r->net + 12) != 1) return -1;
    r->bits = (unsigned char)(96 + (bits < 0 ? 32 : bits));
  }
  return read_ports(r, p);
}

/* A special address needs a rule that means such addresses, and no others. */
static int matches(const lsock_Rule *r, size_t n, const unsigned char net[16], unsigned port) {
  unsigned kind = kind6(net, 128);
  size_t i;
  for (i = 0; i < n; i++, r++)
    if (port >= r->low && port <= r->high && in_net(net, r->net, r->bits) && (kind & ~kind6(r->net, r->bits)) == 0)
      return 1;
  return 0;
}

static int names(const char *op, const char *const list[]) {
  while (*list && strcmp(op, *list) != 0) list++;
  return *list != NULL;
}

static int is_any(const unsigned char net[16]) {
  static const unsigned char zero[16] = {0};
  return memcmp(net, zero, 16) == 0 || (memcmp(net, mapped, sizeof mapped) == 0 && memcmp(net + 12, zero, 4) == 0);
}

int lsock_rules(void *ud, const char *op, const struct sockaddr *sa, socklen_t len, int family, int type, int proto) {
  static const char *const leading[] = {"connect", "sendto", NULL};
  static const char *const local[] = {"bind", "listen", "join", NULL};
  static const char *const plain[] = {"fromfd", "close", "dup", "detach", NULL};
  const lsock_Rules *rules = ud;
  unsigned char net[16];
  unsigned port;
  if (names(op, plain)) return (rules->flags & LSOCK_RULES_DESCRIPTORS) != 0;
  if (family == AF_UNIX && strcmp(op, "socketpair") == 0) return 1;
  if (family == AF_UNIX && (rules->flags & LSOCK_RULES_UNIX))
    return strcmp(op, "socket") == 0 || ((names(op, leading) || names(op, local)) && sa && sa->sa_family == AF_UNIX);
  if (family != AF_INET && family != AF_INET6) return 0;
  if (type != SOCK_STREAM && type != SOCK_DGRAM) return 0;
  if (proto != 0 && proto != (type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP)) return 0; /* ICMP, SCTP, MPTCP ... */
  if (strcmp(op, "socket") == 0) return 1;
  if (!address_of(sa, len, net, &port)) return 0;
  if (names(op, leading)) return matches(rules->connect, rules->nconnect, net, port);
  if (!names(op, local)) return 0;
  if (strcmp(op, "bind") == 0 && port == 0 && is_any(net)) return 1;
  return matches(rules->bind, rules->nbind, net, port);
}
