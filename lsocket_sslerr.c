/*
** lsocket_sslerr.c: OpenSSL's errors as error objects.
*/
#include "lsocket_ssl.h"

#include <ctype.h>
#include <string.h>

static const struct {
  const char *key, *name;
} classes[TLS_CLASSES] = {{"SSLError", "ssl.SSLError"},
                          {"SSLZeroReturnError", "ssl.SSLZeroReturnError"},
                          {"SSLWantReadError", "ssl.SSLWantReadError"},
                          {"SSLWantWriteError", "ssl.SSLWantWriteError"},
                          {"SSLSyscallError", "ssl.SSLSyscallError"},
                          {"SSLEOFError", "ssl.SSLEOFError"},
                          {"SSLCertVerificationError", "ssl.SSLCertVerificationError"}};

/*
** OpenSSL has the names of its reasons only in C headers, but their texts are the names in small letters. The few that
** later versions word otherwise begin with "ssl/tls".
*/
static void push_reason(lua_State *L, const char *text) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (strncmp(text, "ssl/tls", 7) == 0) {
    luaL_addstring(&b, "SSLV3");
    text += 7;
  }
  for (; *text; text++) luaL_addchar(&b, isalnum((unsigned char)*text) ? (char)toupper((unsigned char)*text) : '_');
  luaL_pushresult(&b);
}

/* Sets code, message, library and reason in the table on top. */
static void describe(lua_State *L, unsigned long e, const char *detail) {
  const char *text = ERR_reason_error_string(e), *library = ERR_lib_error_string(e);
  if (text)
    push_reason(L, text);
  else
    lua_pushfstring(L, "REASON_%d", (int)ERR_GET_REASON(e));
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "code");
  lua_setfield(L, -2, "reason");
  if (!text) text = "unknown error";
  if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE) text = "not enough memory"; /* as everywhere */
  if (detail)
    lua_pushfstring(L, "%s: %s", text, detail);
  else
    lua_pushstring(L, text);
  lua_setfield(L, -2, "message");
  if (!library) return;
  if (strcmp(library, "SSL routines") == 0)
    lua_pushliteral(L, "SSL");
  else
    lua_pushlstring(L, library, strcspn(library, " "));
  lua_setfield(L, -2, "library");
}

static int is_verification(unsigned long e) {
  return ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED;
}

/* Sets verify_code, verify_message and server_hostname in the table on top; leaves the message on top. */
static const char *describe_verification(lua_State *L, const lsock_Op *op, const lsock_Tls *t) {
  const char *text = X509_verify_cert_error_string(t->verify), *host = NULL;
  int table = lua_gettop(L);
  lua_pushinteger(L, t->verify);
  lua_setfield(L, table, "verify_code");
  lua_getiuservalue(L, op->self, TLS_UV_HOST);
  host = lua_tostring(L, -1);
  lua_pushvalue(L, -1);
  lua_setfield(L, table, "server_hostname");
  if (t->verify == X509_V_ERR_HOSTNAME_MISMATCH && host)
    text = lua_pushfstring(L, "hostname mismatch, certificate is not valid for '%s'", host);
  else if (t->verify == X509_V_ERR_IP_ADDRESS_MISMATCH && host)
    text = lua_pushfstring(L, "IP address mismatch, certificate is not valid for '%s'", host);
  else
    lua_pushstring(L, text);
  lua_pushvalue(L, -1);
  lua_setfield(L, table, "verify_message");
  return text;
}

static void set_text(lua_State *L, const char *code, const char *message) {
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  lua_pushstring(L, code);
  lua_setfield(L, -2, "reason");
  lua_pushstring(L, message);
  lua_setfield(L, -2, "message");
}

int lsock_tls_broken(lua_State *L, lsock_Op *op, const lsock_Tls *t) {
  int top = lua_gettop(L), cls = TLS_ERROR;
  op->msg = NULL;
  op->cls = 0;
  if (!t->ended && !t->why && t->why_errno) { /* the system's errors are its own */
    op->err = t->why_errno;
    return LSOCK_FAIL;
  }
  luaL_checkstack(L, 8, "TLS error");
  lsock_pushextra(L, op);
  if (t->ended) {
    cls = TLS_EOF;
    op->err = 8; /* Python's SSL_ERROR_EOF */
    set_text(L, "UNEXPECTED_EOF_WHILE_READING", "the peer closed the connection without close_notify");
  } else if (!t->why) {
    cls = TLS_SYSCALL;
    op->err = SSL_ERROR_SYSCALL;
    set_text(L, "SYSCALL", "a system call failed without a reason");
  } else {
    op->err = SSL_ERROR_SSL;
    if (is_verification(t->why) && t->verify != X509_V_OK) {
      cls = TLS_VERIFICATION;
      describe_verification(L, op, t);
      lua_pushvalue(L, op->extra);
      describe(L, t->why, lua_tostring(L, -2));
    } else
      describe(L, t->why, NULL);
  }
  lua_settop(L, op->extra > top ? op->extra : top);
  op->cls = t->st->cls[cls];
  return LSOCK_FAIL;
}

/* The error that says most: the last is often only a consequence. */
static unsigned long best_error(void) {
  unsigned long first = ERR_peek_error(), last = ERR_peek_last_error();
  if (ERR_SYSTEM_ERROR(first)) return first;
  return ERR_GET_LIB(last) == ERR_LIB_SSL && ERR_GET_LIB(first) != ERR_LIB_SSL ? first : last;
}

int lsock_ssl_failfile(lua_State *L, const char *op, int err, const char *file) {
  unsigned long e = best_error();
  lsock_Fail f = {0};
  ERR_clear_error();
  f.op = op;
  lua_createtable(L, 0, 5);
  f.extra = lua_gettop(L);
  if (ERR_SYSTEM_ERROR(e))
    f.err = ERR_GET_REASON(e);
  else if (e == 0 && err != 0)
    f.err = err;
  else {
    f.cls = lsock_ssl(L)->cls[TLS_ERROR];
    f.err = SSL_ERROR_SSL;
    describe(L, e, NULL);
  }
  lua_pushstring(L, file);
  lua_setfield(L, f.extra, "filename");
  return lsock_fail(L, &f);
}

int lsock_ssl_fail(lua_State *L, const char *op, int err) {
  return lsock_ssl_failfile(L, op, err, NULL);
}

void lsock_open_sslerr(lua_State *L, int core) {
  lsock_Core *c = lua_touserdata(L, core);
  lsock_Ssl *st = &c->tls;
  int i, table = lua_gettop(L);
  for (i = 0; i < TLS_CLASSES; i++) {
    st->cls[i] = c->api->newclass(L, core, classes[i].name, i == TLS_ERROR ? LSOCK_ERROR : st->cls[TLS_ERROR]);
    c->api->pushclass(L, core, st->cls[i]);
    lua_setfield(L, table, classes[i].key);
  }
  lua_getfield(L, table, "SSLCertVerificationError");
  lua_setfield(L, table, "CertificateError"); /* its name of old */
}
