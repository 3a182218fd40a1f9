/*
** lsocket_const.c: the constants of the module, and the names of numbers in errors and addresses.
** The constants themselves are in lsocket_const.inc, made from tools/constants.txt by tools/genconst.lua.
*/

/* Some headers show part of their names only when asked; this must come before the first of them. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#if defined(__APPLE__)
#if !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1
#endif
#define __APPLE_USE_RFC_3542 1
#elif defined(__NetBSD__)
#define _NETBSD_SOURCE 1
#endif

#include <errno.h>
#include <stddef.h>
#include <string.h>

#if defined(_WIN32)
#include <winsock2.h>
#include <ws2tcpip.h>

#include <mstcpip.h>
#include <ws2bth.h>
#else
#include <sys/types.h>

#include <sys/socket.h>

#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#endif

/*
** Headers that some systems have. Those of the Linux kernel are not read: they clash with the C library's and may be
** older than the kernel, so the list brings the values, which are part of the kernel's interface and never change.
*/
#if defined(__has_include)
#if !defined(_WIN32) && !defined(__OpenBSD__) && !defined(__NetBSD__) && __has_include(<net/ethernet.h>)
#include <net/ethernet.h>
#elif !defined(_WIN32) && __has_include(<net/ethertypes.h>)
#include <net/ethertypes.h>
#endif
#if defined(__FreeBSD__) && __has_include(<netlink/netlink.h>)
#include <netlink/netlink.h>
#endif
#if defined(__APPLE__) && __has_include(<sys/sys_domain.h>)
#include <sys/kern_control.h>
#include <sys/sys_domain.h>
#endif
#if defined(__APPLE__) && __has_include(<sys/vsock.h>)
#include <sys/vsock.h>
#endif
#if defined(__NetBSD__) && __has_include(<netcan/can.h>)
#include <netcan/can.h>
#endif
#if defined(__NetBSD__) && __has_include(<netbt/l2cap.h>)
#include <bluetooth.h>
#include <netbt/hci.h>
#include <netbt/l2cap.h>
#include <netbt/rfcomm.h>
#include <netbt/sco.h>
#endif
#endif

#include "lsocket_int.h"

/*
** The families lie one after the other in two structures: names, each family's in one string that an empty name ends,
** and values, each family's with one item more for that end. There are no pointers in them: each would cost a
** relocation, which is more than the name itself. A byte from 0x80 on in a name stands for a word (lsocket_const.inc).
*/
/* clang-format off */
/* NOLINTBEGIN(bugprone-macro-parentheses): parts of sums */
#define LSOCK_WORDS
#define WORD(text, offset) text "\0"
static const char words[] =
#include "lsocket_const.inc"
    "";

#define LSOCK_WORDS
#define WORD(text, offset) offset,
static const unsigned short word_places[] = {
#include "lsocket_const.inc"
};

#define GROUP(id) char id[sizeof(
#define LOOKUP(id) GROUP(id)
#define K(name, value) name "\0"
#define W(name, value) K(name, value)
#define S(name, value)
#define END(id) "")];
static const struct Names {
#include "lsocket_const.inc"
#define GROUP(id)
#define LOOKUP(id)
#define K(name, value) name "\0"
#define W(name, value) K(name, value)
#define S(name, value)
#define END(id) "",
} names = {
#include "lsocket_const.inc"
};

#define GROUP(id) COUNT_##id = 0
#define LOOKUP(id) GROUP(id)
#define K(name, value) + 1
#define W(name, value) K(name, value)
#define S(name, value)
#define END(id) ,
enum {
#include "lsocket_const.inc"
};

/*
** A value takes 16 bits, or twice 16 in families where some need more, as the list says for Linux; elsewhere in all. It
** has a sign where one of its family needs one.
*/
#define GROUP(id) SIGNED_##id = 0
#define LOOKUP(id) GROUP(id)
#define K(name, value) | ((long long)(value) < 0)
#define W(name, value) K(name, value)
#define S(name, value)
#define END(id) ,
enum {
#include "lsocket_const.inc"
};

#define GROUP(id) UNITS_##id = 0
#define LOOKUP(id) GROUP(id)
#if defined(__linux__)
#define K(name, value) + 1
#else
#define K(name, value) W(name, value)
#endif
#define W(name, value) + 2
#define S(name, value)
#define END(id) ,
enum {
#include "lsocket_const.inc"
};

#define FITS(value, low, high) & ((long long)(value) >= (low) && (long long)(value) <= (high))
#define GROUP(id) _Static_assert(SIGNED_##id ? (1
#define LOOKUP(id) GROUP(id)
#if defined(__linux__)
#define K(name, value) FITS(value, INT16_MIN, INT16_MAX)
#else
#define K(name, value) W(name, value)
#endif
#define W(name, value) FITS(value, INT32_MIN, INT32_MAX)
#define S(name, value)
#define END(id) ) : 1, "a value does not fit: say `wide` in tools/constants.txt");
#include "lsocket_const.inc"

#define GROUP(id) _Static_assert(!SIGNED_##id ? (1
#define LOOKUP(id) GROUP(id)
#if defined(__linux__)
#define K(name, value) FITS(value, 0, UINT16_MAX)
#else
#define K(name, value) W(name, value)
#endif
#define W(name, value) FITS(value, 0, UINT32_MAX)
#define S(name, value)
#define END(id) ) : 1, "a value does not fit: say `wide` in tools/constants.txt");
#include "lsocket_const.inc"

#define GROUP(id) uint16_t id[UNITS_##id + 1];
#define LOOKUP(id) GROUP(id)
#define K(name, value)
#define W(name, value)
#define S(name, value)
#define END(id)
static const struct Values {
#include "lsocket_const.inc"
#define GROUP(id) {
#define LOOKUP(id) GROUP(id)
#if defined(__linux__)
#define K(name, value) (uint16_t)(value),
#else
#define K(name, value) W(name, value)
#endif
#define W(name, value) (uint16_t)(value), (uint16_t)((uint32_t)(value) >> 16),
#define S(name, value)
#define END(id) 0},
} values = {
#include "lsocket_const.inc"
};

enum { HAS_SIGN = 1, EXPORTED = 2, WIDE = 4 };
#define GROUP(id) (LOOKUP(id) | EXPORTED)
#define LOOKUP(id) (SIGNED_##id | (UNITS_##id - COUNT_##id > 0) * WIDE)
#define K(name, value)
#define W(name, value)
#define S(name, value)
#define END(id) ,
static const unsigned char kinds[] = {
#include "lsocket_const.inc"
};
/* NOLINTEND(bugprone-macro-parentheses) */
/* clang-format on */

/* One constant, on the way through some of them or all. */
typedef struct Row {
  const char *name;
  const uint16_t *value;
  size_t group;
} Row;

static lua_Integer value_of(const Row *r) {
  uint32_t v = *r->value;
  if (kinds[r->group] & WIDE)
    v |= (uint32_t)r->value[1] << 16;
  else if (kinds[r->group] & HAS_SIGN)
    v = (uint32_t)(int16_t)v;
  return kinds[r->group] & HAS_SIGN ? (lua_Integer)(int32_t)v : (lua_Integer)v;
}

/* To the next one of the family; 0 when there is none. */
static int next_here(Row *r) {
  r->name += strlen(r->name) + 1;
  r->value += kinds[r->group] & WIDE ? 2 : 1;
  return *r->name != 0;
}

/* From the end of one family, or of several, to the next row; 0 when there is none. */
static int settle(Row *r) {
  while (!*r->name) {
    if (++r->group == LSOCK_COUNT(kinds)) return 0;
    r->name++;
    r->value++;
  }
  return 1;
}

static int first(Row *r) {
  r->name = (const char *)&names;
  r->value = (const uint16_t *)&values;
  r->group = 0;
  return settle(r);
}

static int next(Row *r) {
  return next_here(r) || settle(r);
}

/* No name is longer (tools/genconst.lua). */
enum { LONGEST = 63 };

/* The text at the bytes of which a name is written. */
static void push_name(lua_State *L, const char *name) {
  char text[LONGEST + 1];
  size_t n = 0;
  for (; *name; name++) {
    unsigned char c = (unsigned char)*name;
    if (c < 0x80) {
      text[n++] = *name;
    } else {
      const char *word = words + word_places[c - 0x80];
      while (*word) text[n++] = *word++;
    }
  }
  lua_pushlstring(L, text, n);
}

/* Writes a name as the table has it, the first word that fits at each place; 0 if no constant has such a name. */
static int shorten(const char *name, size_t size, char *out) {
  const char *end = name + size;
  if (size > LONGEST || *name < 'A' || *name > 'Z') return 0;
  while (name < end) {
    size_t i, length = 1;
    if ((unsigned char)*name >= 0x80 || !*name) return 0;
    *out = *name;
    for (i = 0; i < LSOCK_COUNT(word_places); i++) {
      const char *word = words + word_places[i];
      if (*word != *name || strncmp(name, word, strlen(word)) != 0) continue;
      *out = (char)(0x80 + i);
      length = strlen(word);
      break;
    }
    out++;
    name += length;
  }
  *out = 0;
  return 1;
}

/* The number of a family, which is not that of LSOCK_NAMES_. */
#define GROUP(id) GROUP_##id,
#define LOOKUP(id) GROUP(id)
#define K(name, value)
#define W(name, value)
#define S(name, value)
#define END(id)
enum {
#include "lsocket_const.inc"
};

static void begin(Row *r, int family) {
#define FAMILY(id)                                                                                                     \
  { offsetof(struct Names, id), offsetof(struct Values, id) / sizeof(uint16_t), GROUP_##id }
  static const unsigned short families[][3] = {FAMILY(AF), FAMILY(SOCK), FAMILY(EAI), FAMILY(HERR), FAMILY(ERRNO)};
  r->name = (const char *)&names + families[family][0];
  r->value = (const uint16_t *)&values + families[family][1];
  r->group = families[family][2];
}

int lsock_pushname(lua_State *L, int family, int value) {
  Row r;
  int more;
  begin(&r, family);
  for (more = *r.name != 0; more; more = next_here(&r))
    if (value_of(&r) == value) return push_name(L, r.name), 1;
  return 0;
}

/* Adds all constants to the table on top of the stack. */
void lsock_open_const(lua_State *L) {
  Row r;
  int more;
  luaL_checkstack(L, 3, "constants");
  for (more = first(&r); more; more = next(&r)) {
    if (!(kinds[r.group] & EXPORTED)) continue;
    push_name(L, r.name);
    lua_pushinteger(L, value_of(&r));
    lua_rawset(L, -3);
  }
#define GROUP(id)
#define LOOKUP(id)
#define K(name, value)
#define W(name, value)
#define S(name, value) lua_pushstring(L, value), lua_setfield(L, -2, name);
#define END(id)
#include "lsocket_const.inc"
}

/* Pushes the constant named by the string at `arg`; 0, and nothing pushed, if there is none. */
int lsock_pushconst(lua_State *L, int arg) {
  size_t size;
  const char *key = lua_tolstring(L, arg, &size);
  char coded[LONGEST + 1];
  Row r;
  int more;
  if (!shorten(key, size, coded)) return 0;
  for (more = first(&r); more; more = next(&r))
    if (strcmp(r.name, coded) == 0 && kinds[r.group] & EXPORTED) return lua_pushinteger(L, value_of(&r)), 1;
#define GROUP(id)
#define LOOKUP(id)
#define K(name, value)
#define W(name, value)
#define S(name, value)                                                                                                 \
  if (strcmp(key, name) == 0) return lua_pushstring(L, value), 1;
#define END(id)
#include "lsocket_const.inc"
  return 0;
}

/* Pushes a table of error numbers: names to numbers and numbers to names. */
void lsock_open_errno(lua_State *L) {
  Row r;
  int more;
  luaL_checkstack(L, 4, "error numbers");
  lua_createtable(L, COUNT_ERRNO, COUNT_ERRNO);
  begin(&r, LSOCK_NAMES_ERRNO);
  for (more = *r.name != 0; more; more = next_here(&r)) {
    lua_Integer v = value_of(&r);
    push_name(L, r.name);
    lua_pushvalue(L, -1);
    lua_pushinteger(L, v);
    lua_rawset(L, -4); /* t[name] = number */
    if (lua_rawgeti(L, -2, v) == LUA_TNIL) {
      lua_pop(L, 1);
      lua_rawseti(L, -2, v); /* t[number] = name */
    } else {
      lua_pop(L, 2); /* an earlier name has this number */
    }
  }
}
