/*
** bare.c: the least a Lua C function can do around send(2) and recv(2); the
** floor against which the library is measured. No library: errors are just
** raised, nothing waits.
**
**   bare.send(fd, s), bare.recv(fd, n)       plain functions
**   bare.wrap(fd, how):send(s), :recv(n)     the same as methods of a userdata;
**     how = "blind"     self is taken on trust
**           "upvalue"   its metatable is compared with an upvalue
**           "name"      luaL_checkudata looks the metatable up by its name
**           "function"  as "upvalue", and __index is a C function, not a table
**   bare.lines(fd) -> function, which gives a line without its end every time
**     it is called; bare.reader(fd):read() the same as a method, self taken on trust
**   bare.connect(port) -> fd, bare.clock() -> CPU seconds, wall seconds; bare.malloced() -> bytes of malloc in use
*/
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <malloc.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static int do_send(lua_State *L, int fd) {
  size_t len;
  const char *s = luaL_checklstring(L, 2, &len);
  ssize_t k = send(fd, s, len, MSG_NOSIGNAL);
  if (k < 0) return luaL_error(L, "send: %s", strerror(errno));
  lua_pushinteger(L, k);
  return 1;
}

static int do_recv(lua_State *L, int fd) {
  char buf[65536];
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 0 && n <= (lua_Integer)sizeof buf, 2, "out of range");
  ssize_t k = recv(fd, buf, (size_t)n, 0);
  if (k < 0) return luaL_error(L, "recv: %s", strerror(errno));
  lua_pushlstring(L, buf, (size_t)k);
  return 1;
}

static int by_upvalue(lua_State *L) {
  int *fd = lua_touserdata(L, 1);
  if (fd == NULL || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1)))
    return luaL_typeerror(L, 1, "bare");
  lua_pop(L, 1);
  return *fd;
}

static int plain_send(lua_State *L) {
  return do_send(L, (int)luaL_checkinteger(L, 1));
}
static int plain_recv(lua_State *L) {
  return do_recv(L, (int)luaL_checkinteger(L, 1));
}
static int blind_send(lua_State *L) {
  return do_send(L, *(int *)lua_touserdata(L, 1));
}
static int blind_recv(lua_State *L) {
  return do_recv(L, *(int *)lua_touserdata(L, 1));
}
static int upvalue_send(lua_State *L) {
  return do_send(L, by_upvalue(L));
}
static int upvalue_recv(lua_State *L) {
  return do_recv(L, by_upvalue(L));
}
static int name_send(lua_State *L) {
  return do_send(L, *(int *)luaL_checkudata(L, 1, "bare.name"));
}
static int name_recv(lua_State *L) {
  return do_recv(L, *(int *)luaL_checkudata(L, 1, "bare.name"));
}

static int index_function(lua_State *L) {
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  return 1;
}

static int mod_wrap(lua_State *L) {
  lua_Integer fd = luaL_checkinteger(L, 1);
  const char *how = luaL_checkstring(L, 2);
  int *self = lua_newuserdatauv(L, sizeof *self, 0);
  *self = (int)fd;
  lua_pushfstring(L, "bare.%s", how);
  if (luaL_getmetatable(L, lua_tostring(L, -1)) != LUA_TTABLE) return luaL_argerror(L, 2, "no such kind");
  lua_setmetatable(L, -3);
  lua_pop(L, 1);
  return 1;
}

static int mod_connect(lua_State *L) {
  struct sockaddr_in sa = {.sin_family = AF_INET};
  sa.sin_port = htons((unsigned short)luaL_checkinteger(L, 1));
  sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
    return luaL_error(L, "connect: %s", strerror(errno));
  lua_pushinteger(L, fd);
  return 1;
}

static int mod_clock(lua_State *L) {
  struct timespec cpu, wall;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  clock_gettime(CLOCK_MONOTONIC, &wall);
  lua_pushnumber(L, (lua_Number)cpu.tv_sec + (lua_Number)cpu.tv_nsec * 1e-9);
  lua_pushnumber(L, (lua_Number)wall.tv_sec + (lua_Number)wall.tv_nsec * 1e-9);
  return 2;
}

/* one buffer, memchr, one string a line; no end of the stream, no line longer than the buffer */
struct reader {
  int fd;
  size_t from, to;
  char buf[8192];
};

static int next_line(lua_State *L, struct reader *r) {
  const char *p, *nl;
  while (p = r->buf + r->from, !(nl = memchr(p, '\n', r->to - r->from))) {
    r->to -= r->from;
    memmove(r->buf, p, r->to);
    r->from = 0;
    ssize_t k = recv(r->fd, r->buf + r->to, sizeof r->buf - r->to, 0);
    if (k <= 0) return luaL_error(L, "recv: %s", strerror(errno));
    r->to += (size_t)k;
  }
  lua_pushlstring(L, p, (size_t)(nl - p));
  r->from += (size_t)(nl - p) + 1;
  return 1;
}

static int reader_read(lua_State *L) {
  return next_line(L, lua_touserdata(L, 1));
}
static int lines_next(lua_State *L) {
  return next_line(L, lua_touserdata(L, lua_upvalueindex(1)));
}

static int mod_reader(lua_State *L) {
  lua_Integer fd = luaL_checkinteger(L, 1);
  struct reader *r = lua_newuserdatauv(L, sizeof *r, 0);
  r->fd = (int)fd;
  r->from = r->to = 0;
  luaL_setmetatable(L, "bare.reader");
  return 1;
}

static int mod_lines(lua_State *L) {
  mod_reader(L);
  lua_pushcclosure(L, lines_next, 1);
  return 1;
}

/* registers metatable bare.<how>; the methods get the metatable as upvalue 1 */
static void new_kind(lua_State *L, const char *how, lua_CFunction send_f, lua_CFunction recv_f) {
  lua_pushfstring(L, "bare.%s", how);
  luaL_newmetatable(L, lua_tostring(L, -1));
  lua_createtable(L, 0, 2);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, send_f, 1);
  lua_setfield(L, -2, "send");
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, recv_f, 1);
  lua_setfield(L, -2, "recv");
  if (strcmp(how, "function") == 0) lua_pushcclosure(L, index_function, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
}

/* malloced() -> bytes in use, of Lua and of every library */
static int mod_malloced(lua_State *L) {
  struct mallinfo2 m = mallinfo2();
  lua_pushinteger(L, (lua_Integer)(m.uordblks + m.hblkhd));
  return 1;
}

static const luaL_Reg functions[] = {
    {"send", plain_send},     {"recv", plain_recv}, {"wrap", mod_wrap},     {"clock", mod_clock},
    {"connect", mod_connect}, {"lines", mod_lines}, {"reader", mod_reader},
    {"malloced", mod_malloced}, {NULL, NULL}};

int luaopen_bare(lua_State *L) {
  new_kind(L, "blind", blind_send, blind_recv);
  new_kind(L, "upvalue", upvalue_send, upvalue_recv);
  new_kind(L, "name", name_send, name_recv);
  new_kind(L, "function", upvalue_send, upvalue_recv);
  luaL_newmetatable(L, "bare.reader");
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, reader_read);
  lua_setfield(L, -2, "read");
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  return 1;
}
