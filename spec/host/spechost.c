/*
** spechost.c: a host program for spec/policy_spec.lua and spec/host_spec.lua: runs a Lua script in a state with the
** library linked in, its policy and limits set as the options say.
**
**   spechost [options] script [arguments]
**
**   -r        the ready-made rules: -c RULE (connect), -b RULE (bind), -u (AF_UNIX), -f (descriptors) belong to them
**   -n OP     a policy that refuses just this operation      -a  one that allows all
**   -l N:N:N  limits: sockets, bytes of a receive, flags
**   -d        without the library debug    -p  without package, io and os    -t  socket.ssl preloaded
**   -L        with host.asked(): what the policy was asked    -w  warnings are shown
**   -m N      at most so many bytes for the state, with host.used(): how many there are
**
** The script finds the functions of lsocket.h in a table `host`.
*/
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "lsocket.h"

#include <lauxlib.h>
#include <lualib.h>

#define MOST 16

typedef struct Host {
  lsock_Rule connect[MOST], bind[MOST];
  lsock_Rules rules;
  const char *denied;
  int use_rules, log;
  char asked[65536];
  size_t used;
  size_t bytes, most; /* allocated; 0: any number */
} Host;

static void note(Host *h, const char *op, const struct sockaddr *sa, socklen_t len, int family, int type, int proto,
                 int ok) {
  char text[INET6_ADDRSTRLEN] = "-";
  char host[INET6_ADDRSTRLEN];
  if (sa && sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
    struct sockaddr_in in;
    memcpy(&in, sa, sizeof in);
    snprintf(text, sizeof text, "%s:%d", inet_ntop(AF_INET, &in.sin_addr, host, sizeof host), ntohs(in.sin_port));
  } else if (sa)
    snprintf(text, sizeof text, "family%d", sa->sa_family);
  h->used += (size_t)snprintf(h->asked + h->used, sizeof h->asked - h->used, "%s %s %d %d %d %s\n", op, text, family,
                              type, proto, ok ? "yes" : "no");
  if (h->used > sizeof h->asked - 256) h->used = 0;
}

static int policy(void *ud, const char *op, const struct sockaddr *sa, socklen_t len, int family, int type, int proto) {
  Host *h = ud;
  int ok = h->use_rules ? lsock_rules(&h->rules, op, sa, len, family, type, proto)
                        : !(h->denied && strcmp(h->denied, op) == 0);
  if (h->log) note(h, op, sa, len, family, type, proto, ok);
  return ok;
}

/* ---------------------------------------------------------------- the table `host` */

static Host *self(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

static int host_used(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)self(L)->bytes);
  return 1;
}

static int host_asked(lua_State *L) {
  Host *h = self(L);
  lua_pushlstring(L, h->asked, h->used);
  h->used = 0;
  return 1;
}

/* push(fd [, family [, type [, proto [, timeout]]]]) -> socket, or nil and an errno */
static int host_push(lua_State *L) {
  int err = lsock_push(L, (int)luaL_checkinteger(L, 1), (int)luaL_optinteger(L, 2, -1), (int)luaL_optinteger(L, 3, -1),
                       (int)luaL_optinteger(L, 4, -1), luaL_optnumber(L, 5, -1));
  if (!err) return 1;
  lua_pushnil(L);
  lua_pushinteger(L, err);
  return 2;
}

/* pipe() -> two descriptors that are no sockets */
static int host_pipe(lua_State *L) {
  int fds[2];
  if (pipe(fds) < 0) return lsock_raise(L, 24, "pipe");
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

/* pair() -> two connected descriptors */
static int host_pair(lua_State *L) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) return lsock_raise(L, 24, "pair");
  lua_pushinteger(L, fds[0]);
  lua_pushinteger(L, fds[1]);
  return 2;
}

static int host_test(lua_State *L) {
  lua_pushboolean(L, lsock_test(L, 1) != NULL);
  return 1;
}

static int host_fileno(lua_State *L) {
  lua_pushinteger(L, lsock_fileno(lsock_check(L, 1)));
  return 1;
}

static int host_detach(lua_State *L) {
  lua_pushinteger(L, lsock_detach(L, 1));
  return 1;
}

static int host_raise(lua_State *L) {
  return lsock_raise(L, (int)luaL_checkinteger(L, 1), "host operation");
}

/* error(errno, port) -> an error object about 127.0.0.1 */
static int host_error(lua_State *L) {
  struct sockaddr_in in = {0};
  in.sin_family = AF_INET;
  in.sin_port = htons((unsigned short)luaL_checkinteger(L, 2));
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  lsock_pusherrno(L, (int)luaL_checkinteger(L, 1), "host operation", (struct sockaddr *)(void *)&in, sizeof in);
  return 1;
}

static int host_count(lua_State *L) {
  lua_pushinteger(L, lsock_countsockets(L));
  return 1;
}

/* classify(bytes of a sockaddr) -> integer */
static int host_classify(lua_State *L) {
  size_t len;
  const char *p = luaL_checklstring(L, 1, &len);
  struct sockaddr_storage ss = {0};
  if (len > sizeof ss) return luaL_argerror(L, 1, "too long");
  memcpy(&ss, p, len);
  lua_pushinteger(L, lsock_classify((struct sockaddr *)&ss, (socklen_t)len));
  return 1;
}

/* rule(text) -> network bytes, bits, low, high; nil for no rule */
static int host_rule(lua_State *L) {
  lsock_Rule r;
  if (lsock_rule(&r, luaL_checkstring(L, 1)) < 0) return 0;
  lua_pushlstring(L, (const char *)r.net, sizeof r.net);
  lua_pushinteger(L, r.bits);
  lua_pushinteger(L, r.low);
  lua_pushinteger(L, r.high);
  return 4;
}

static int host_version(lua_State *L) {
  lua_pushinteger(L, lsock_version());
  lua_pushstring(L, LSOCKET_VERSION);
  return 2;
}

/* bytes(size, byte): a userdata full of them, as other libraries' arrays are */
static int host_bytes(lua_State *L) {
  size_t len;
  const char *p = luaL_checklstring(L, 1, &len);
  memcpy(lua_newuserdatauv(L, len, 1), p, len);
  return 1;
}

static const luaL_Reg functions[] = {
    {"asked", host_asked},   {"bytes", host_bytes}, {"classify", host_classify}, {"count", host_count},
    {"detach", host_detach}, {"error", host_error}, {"fileno", host_fileno},     {"pair", host_pair},
    {"pipe", host_pipe},     {"push", host_push},   {"raise", host_raise},       {"rule", host_rule},
    {"test", host_test},     {"used", host_used},   {"version", host_version},   {NULL, NULL}};

/* ---------------------------------------------------------------- memory */

static void *allocate(void *ud, void *p, size_t was, size_t size) {
  Host *h = ud;
  void *n;
  if (!p) was = 0;
  if (size == 0) {
    free(p);
    h->bytes -= was;
    return NULL;
  }
  if (h->most && size > was && h->bytes - was + size > h->most) return NULL;
  n = realloc(p, size);
  if (n) h->bytes += size - was;
  return n;
}

/* ---------------------------------------------------------------- the program */

static const luaL_Reg harmless[] = {{LUA_GNAME, luaopen_base},       {LUA_COLIBNAME, luaopen_coroutine},
                                    {LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},
                                    {LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8},
                                    {LUA_DBLIBNAME, luaopen_debug},  {LUA_LOADLIBNAME, luaopen_package},
                                    {LUA_IOLIBNAME, luaopen_io},     {LUA_OSLIBNAME, luaopen_os}};

static void open_libraries(lua_State *L, int debug, int all) {
  size_t i;
  for (i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
    if (!debug && strcmp(harmless[i].name, LUA_DBLIBNAME) == 0) continue;
    if (!all && i >= 7) continue;
    luaL_requiref(L, harmless[i].name, harmless[i].func, 1);
    lua_pop(L, 1);
  }
}

static void add_rule(lsock_Rule *list, size_t *n, const char *text) {
  if (*n < MOST && lsock_rule(&list[*n], text) == 0) {
    ++*n;
    return;
  }
  fprintf(stderr, "not a rule: %s\n", text);
  exit(2);
}

static void warn(void *ud, const char *msg, int tocont) {
  (void)ud;
  fprintf(stderr, "%s%s", msg, tocont ? "" : "\n");
}

static int traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

int main(int argc, char **argv) {
  static Host h;
  lsock_Limits limits = {0};
  int debug = 1, all = 1, tls = 0, set = 0, limited = 0, c, i, status;
  char *rest;
  lua_State *L = lua_newstate(allocate, &h);
  if (!L) return 2;
  h.rules.connect = h.connect;
  h.rules.bind = h.bind;
  while ((c = getopt(argc, argv, "+rc:b:ufn:al:m:dptLw")) != -1) switch (c) {
      case 'r': h.use_rules = set = 1; break;
      case 'c': add_rule(h.connect, &h.rules.nconnect, optarg); break;
      case 'b': add_rule(h.bind, &h.rules.nbind, optarg); break;
      case 'u': h.rules.flags |= LSOCK_RULES_UNIX; break;
      case 'f': h.rules.flags |= LSOCK_RULES_DESCRIPTORS; break;
      case 'n':
        h.denied = optarg;
        set = 1;
        break;
      case 'a': set = 1; break;
      case 'l':
        limits.sockets = (int)strtol(optarg, &rest, 10);
        limits.receive = strtoul(rest + 1, &rest, 10);
        limits.flags = (unsigned)strtoul(rest + 1, NULL, 10);
        limited = 1;
        break;
      case 'm': h.most = strtoul(optarg, NULL, 10); break;
      case 'd': debug = 0; break;
      case 'p': all = 0; break;
      case 't': tls = 1; break;
      case 'w': lua_setwarnf(L, warn, NULL); break;
      case 'L': h.log = 1; break;
      default: return 2;
    }
  if (optind >= argc) return 2;
  open_libraries(L, debug, all);
  luaL_requiref(L, "socket", luaopen_socket, 1);
  if (set) lsock_setpolicy(L, policy, &h);
  if (limited) lsock_setlimits(L, &limits);
#if !defined(SPECHOST_TLS)
  (void)tls;
#else
  if (tls) lsock_preload(L, "socket.ssl", luaopen_socket_ssl);
#endif
  luaL_newlibtable(L, functions);
  lua_pushlightuserdata(L, &h);
  luaL_setfuncs(L, functions, 1);
  lua_setglobal(L, "host");
  lua_settop(L, 0);
  lua_pushcfunction(L, traceback);
  if (luaL_loadfile(L, argv[optind]) == LUA_OK) {
    for (i = optind + 1; i < argc; i++) lua_pushstring(L, argv[i]);
    status = lua_pcall(L, argc - optind - 1, 0, 1);
  } else
    status = LUA_ERRSYNTAX;
  if (status != LUA_OK) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return status != LUA_OK;
}
