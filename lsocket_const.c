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
** Each family is two arrays: its names, one after the other in one string, and its values. Pointers to the names would
** cost a relocation each, which is more than the names themselves.
*/

#define GROUP(id) static const char names_##id[] =
#define LOOKUP(id) GROUP(id)
#define K(name, value) name "\0"
#define S(name, value)
#define END(id) "";
#include "lsocket_const.inc"

#define GROUP(id) static const lua_Integer values_##id[] = {
#define LOOKUP(id) GROUP(id)
#define K(name, value) (lua_Integer)(value),
#define S(name, value)
/* clang-format off */
#define END(id) 0};
/* clang-format on */
#include "lsocket_const.inc"

/* How many values a family has; the array ends with one more, since C has no empty arrays. */
#define COUNT(id) (sizeof values_##id / sizeof values_##id[0] - 1)

/* The place of the first constant with this value, or n. */
static size_t place(const lua_Integer *values, size_t n, int value) {
  size_t i = 0;
  while (i < n && values[i] != value) {
    i++;
  }
  return i;
}

/* The name of the first constant with this value, or NULL. */
static const char *find(const char *names, const lua_Integer *values, size_t n, int value) {
  size_t i = place(values, n, value);
  if (i == n) {
    return NULL;
  }
  while (i-- > 0) {
    names += strlen(names) + 1;
  }
  return names;
}

const char *lsock_errno_name(int err) {
  return find(names_ERRNO, values_ERRNO, COUNT(ERRNO), err);
}

const char *lsock_eai_name(int code) {
  return find(names_EAI, values_EAI, COUNT(EAI), code);
}

const char *lsock_herr_name(int code) {
  return find(names_HERR, values_HERR, COUNT(HERR), code);
}

const char *lsock_af_name(int family) {
  return find(names_AF, values_AF, COUNT(AF), family);
}

const char *lsock_type_name(int type) {
  return find(names_SOCK, values_SOCK, COUNT(SOCK), type);
}

/* Adds a family of integers to the table on top of the stack. */
static void add_integers(lua_State *L, const char *names, const lua_Integer *values, size_t n) {
  for (size_t i = 0; i < n; i++) {
    size_t length = strlen(names);
    lua_pushlstring(L, names, length);
    lua_pushinteger(L, values[i]);
    lua_rawset(L, -3);
    names += length + 1;
  }
}

/* Pushes the integer of that name, if the family has it. */
static int push_integer(lua_State *L, const char *name, size_t size, const char *names, const lua_Integer *values,
                        size_t n) {
  for (size_t i = 0; i < n; i++) {
    size_t length = strlen(names);
    if (length == size && memcmp(names, name, size) == 0) {
      lua_pushinteger(L, values[i]);
      return 1;
    }
    names += length + 1;
  }
  return 0;
}

/* Adds all constants to the table on top of the stack. */
void lsock_open_const(lua_State *L) {
  luaL_checkstack(L, 3, "constants");
#define GROUP(id) add_integers(L, names_##id, values_##id, COUNT(id));
#define LOOKUP(id)
#define K(name, value)
#define S(name, value) lua_pushstring(L, value), lua_setfield(L, -2, name);
#define END(id)
#include "lsocket_const.inc"
}

/* Pushes the constant named by the string at `arg`; 0, and nothing pushed, if there is none. */
int lsock_pushconst(lua_State *L, int arg) {
  size_t size;
  const char *key = lua_tolstring(L, arg, &size);
#define GROUP(id)                                                                                                      \
  if (push_integer(L, key, size, names_##id, values_##id, COUNT(id))) return 1;
#define LOOKUP(id)
#define K(name, value)
#define S(name, value)                                                                                                 \
  if (strcmp(key, name) == 0) return lua_pushstring(L, value), 1;
#define END(id)
#include "lsocket_const.inc"
  return 0;
}

/* Pushes a table of error numbers: names to numbers and numbers to names. */
void lsock_open_errno(lua_State *L) {
  const char *name = names_ERRNO;
  luaL_checkstack(L, 4, "error numbers");
  lua_createtable(L, (int)COUNT(ERRNO), (int)COUNT(ERRNO));
  for (size_t i = 0; i < COUNT(ERRNO); i++) {
    size_t length = strlen(name);
    lua_pushlstring(L, name, length);
    lua_pushvalue(L, -1);
    lua_pushinteger(L, values_ERRNO[i]);
    lua_rawset(L, -4); /* t[name] = number */
    if (place(values_ERRNO, i, (int)values_ERRNO[i]) == i) {
      lua_rawseti(L, -2, values_ERRNO[i]); /* t[number] = name */
    } else {
      lua_pop(L, 1); /* an earlier name has this number */
    }
    name += length + 1;
  }
}
