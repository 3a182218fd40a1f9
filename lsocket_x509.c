/*
** lsocket_x509.c: certificates as Lua values: DER bytes, and the form Python's getpeercert gives them.
*/
#include "lsocket_ssl.h"

#include <limits.h>
#include <openssl/pem.h>
#include <string.h>

/* What decoding has in its hands; freed after it, however it ended. */
typedef struct Work {
  X509 *x;
  BIO *text;
  GENERAL_NAMES *names;
  AUTHORITY_INFO_ACCESS *access;
  STACK_OF(DIST_POINT) * points;
  unsigned char *bytes;
} Work;

static int run(lua_State *L) {
  lua_CFunction f;
  void *arg;
  memcpy(&f, lua_touserdata(L, 1), sizeof f);
  arg = lua_touserdata(L, 2);
  lua_settop(L, 0);
  lua_pushlightuserdata(L, arg);
  return f(L);
}

int lsock_ssl_try(lua_State *L, lua_CFunction f, void *arg) {
  int top = lua_gettop(L);
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &f);
  lua_pushlightuserdata(L, arg);
  if (lua_pcall(L, 2, LUA_MULTRET, 0) != LUA_OK) return -1;
  return lua_gettop(L) - top;
}

static void append(lua_State *L, int table) {
  lua_rawseti(L, table, (lua_Integer)lua_rawlen(L, table) + 1);
}

/* Pushes what was printed, and empties the BIO. */
static void push_text(lua_State *L, Work *w) {
  char *p;
  long n = BIO_get_mem_data(w->text, &p);
  lua_pushlstring(L, n > 0 ? p : "", n > 0 ? (size_t)n : 0);
  (void)BIO_reset(w->text);
}

static void push_pair(lua_State *L, const char *key) { /* the value is on top */
  lua_createtable(L, 2, 0);
  lua_pushstring(L, key);
  lua_rawseti(L, -2, 1);
  lua_insert(L, -2);
  lua_rawseti(L, -2, 2);
}

static void push_string(lua_State *L, const ASN1_STRING *s) {
  const unsigned char *p = ASN1_STRING_get0_data(s);
  lua_pushlstring(L, (const char *)p, (size_t)ASN1_STRING_length(s));
}

static void push_object(lua_State *L, const ASN1_OBJECT *o) {
  char buf[128];
  int nid = OBJ_obj2nid(o);
  if (nid != NID_undef)
    lua_pushstring(L, OBJ_nid2ln(nid));
  else {
    int n = OBJ_obj2txt(buf, sizeof buf, o, 1);
    lua_pushlstring(L, buf, n < 0 ? 0 : (size_t)n < sizeof buf ? (size_t)n : sizeof buf - 1);
  }
}

/* A list of relative names, each a list of {type, value}. */
static void push_name(lua_State *L, Work *w, const X509_NAME *name) {
  int i, n = X509_NAME_entry_count(name), set = -1, list;
  luaL_checkstack(L, 8, "name");
  lua_createtable(L, n, 0);
  list = lua_gettop(L);
  for (i = 0; i < n; i++) {
    const X509_NAME_ENTRY *e = X509_NAME_get_entry(name, i);
    if (X509_NAME_ENTRY_set(e) != set) {
      set = X509_NAME_ENTRY_set(e);
      lua_createtable(L, 1, 0);
      append(L, list);
    }
    lua_rawgeti(L, list, (lua_Integer)lua_rawlen(L, list));
    lua_createtable(L, 2, 0);
    push_object(L, X509_NAME_ENTRY_get_object(e));
    lua_rawseti(L, -2, 1);
    OPENSSL_free(w->bytes);
    w->bytes = NULL;
    {
      int len = ASN1_STRING_to_UTF8(&w->bytes, X509_NAME_ENTRY_get_data(e));
      lua_pushlstring(L, len > 0 ? (const char *)w->bytes : "", len > 0 ? (size_t)len : 0);
    }
    lua_rawseti(L, -2, 2);
    append(L, lua_gettop(L) - 1);
    lua_pop(L, 1);
  }
}

static void push_ip(lua_State *L, const ASN1_OCTET_STRING *ip) {
  char buf[INET6_ADDRSTRLEN];
  int n = ASN1_STRING_length(ip);
  if ((n == 4 || n == 16) && inet_ntop(n == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(ip), buf, sizeof buf))
    lua_pushstring(L, buf);
  else
    lua_pushliteral(L, "<invalid>");
}

/* "key:value" on top becomes {key, value}. */
static void push_printed(lua_State *L) {
  size_t n;
  const char *text = lua_tolstring(L, -1, &n), *colon = memchr(text, ':', n);
  size_t key = colon ? (size_t)(colon - text) : n;
  lua_createtable(L, 2, 0);
  lua_pushlstring(L, text, key);
  lua_rawseti(L, -2, 1);
  lua_pushstring(L, key < n ? text + key + 1 : "");
  lua_rawseti(L, -2, 2);
  lua_remove(L, -2);
}

static void push_general_name(lua_State *L, Work *w, const GENERAL_NAME *g) {
  switch (g->type) {
    case GEN_EMAIL:
      push_string(L, g->d.rfc822Name);
      push_pair(L, "email");
      break;
    case GEN_DNS:
      push_string(L, g->d.dNSName);
      push_pair(L, "DNS");
      break;
    case GEN_URI:
      push_string(L, g->d.uniformResourceIdentifier);
      push_pair(L, "URI");
      break;
    case GEN_DIRNAME:
      push_name(L, w, g->d.directoryName);
      push_pair(L, "DirName");
      break;
    case GEN_IPADD:
      push_ip(L, g->d.iPAddress);
      push_pair(L, "IP Address");
      break;
    default: /* OpenSSL's text, "kind:value", as in Python */
      GENERAL_NAME_print(w->text, (GENERAL_NAME *)(uintptr_t)g);
      push_text(L, w);
      push_printed(L);
      break;
  }
}

static void set_alternative_names(lua_State *L, Work *w, int table) {
  int i;
  w->names = X509_get_ext_d2i(w->x, NID_subject_alt_name, NULL, NULL);
  if (!w->names) return;
  lua_newtable(L);
  for (i = 0; i < sk_GENERAL_NAME_num(w->names); i++) {
    push_general_name(L, w, sk_GENERAL_NAME_value(w->names, i));
    append(L, lua_gettop(L) - 1);
  }
  lua_setfield(L, table, "subjectAltName");
}

/* The URIs with that access method, as a list; nothing if there are none. */
static void set_access(lua_State *L, const Work *w, int table, int nid, const char *key) {
  int i;
  lua_newtable(L);
  for (i = 0; i < sk_ACCESS_DESCRIPTION_num(w->access); i++) {
    const ACCESS_DESCRIPTION *a = sk_ACCESS_DESCRIPTION_value(w->access, i);
    if (OBJ_obj2nid(a->method) != nid || a->location->type != GEN_URI) continue;
    push_string(L, a->location->d.uniformResourceIdentifier);
    append(L, lua_gettop(L) - 1);
  }
  if (lua_rawlen(L, -1) > 0)
    lua_setfield(L, table, key);
  else
    lua_pop(L, 1);
}

static void set_points(lua_State *L, Work *w, int table) {
  int i, k;
  w->points = X509_get_ext_d2i(w->x, NID_crl_distribution_points, NULL, NULL);
  if (!w->points) return;
  lua_newtable(L);
  for (i = 0; i < sk_DIST_POINT_num(w->points); i++) {
    const DIST_POINT *p = sk_DIST_POINT_value(w->points, i);
    if (!p->distpoint || p->distpoint->type != 0) continue;
    for (k = 0; k < sk_GENERAL_NAME_num(p->distpoint->name.fullname); k++) {
      const GENERAL_NAME *g = sk_GENERAL_NAME_value(p->distpoint->name.fullname, k);
      if (g->type != GEN_URI) continue;
      push_string(L, g->d.uniformResourceIdentifier);
      append(L, lua_gettop(L) - 1);
    }
  }
  if (lua_rawlen(L, -1) > 0)
    lua_setfield(L, table, "crlDistributionPoints");
  else
    lua_pop(L, 1);
}

static int decode(lua_State *L) {
  Work *w = lua_touserdata(L, 1);
  int table;
  luaL_checkstack(L, 12, "certificate");
  lua_createtable(L, 0, 10);
  table = lua_gettop(L);
  push_name(L, w, X509_get_subject_name(w->x));
  lua_setfield(L, table, "subject");
  push_name(L, w, X509_get_issuer_name(w->x));
  lua_setfield(L, table, "issuer");
  lua_pushinteger(L, X509_get_version(w->x) + 1);
  lua_setfield(L, table, "version");
  i2a_ASN1_INTEGER(w->text, X509_get0_serialNumber(w->x));
  push_text(L, w);
  lua_setfield(L, table, "serialNumber");
  ASN1_TIME_print(w->text, X509_get0_notBefore(w->x));
  push_text(L, w);
  lua_setfield(L, table, "notBefore");
  ASN1_TIME_print(w->text, X509_get0_notAfter(w->x));
  push_text(L, w);
  lua_setfield(L, table, "notAfter");
  set_alternative_names(L, w, table);
  w->access = X509_get_ext_d2i(w->x, NID_info_access, NULL, NULL);
  if (w->access) {
    set_access(L, w, table, NID_ad_OCSP, "OCSP");
    set_access(L, w, table, NID_ad_ca_issuers, "caIssuers");
  }
  set_points(L, w, table);
  return 1;
}

void lsock_x509_push(lua_State *L, X509 *x) {
  Work w;
  int n;
  luaL_checkstack(L, 6, "certificate");
  memset(&w, 0, sizeof w);
  X509_up_ref(x); /* a finalizer may end the connection it is of */
  w.x = x;
  w.text = BIO_new(BIO_s_mem());
  n = w.text ? lsock_ssl_try(L, decode, &w) : 0;
  BIO_free(w.text);
  GENERAL_NAMES_free(w.names);
  AUTHORITY_INFO_ACCESS_free(w.access);
  CRL_DIST_POINTS_free(w.points);
  OPENSSL_free(w.bytes);
  X509_free(x);
  ERR_clear_error();
  if (n < 0) lua_error(L);
  if (n == 0) luaL_error(L, "not enough memory");
}

typedef struct Der {
  unsigned char *p;
  int len;
} Der;

static int push_der(lua_State *L) {
  const Der *d = lua_touserdata(L, 1);
  lua_pushlstring(L, (const char *)d->p, (size_t)d->len);
  return 1;
}

void lsock_x509_pushder(lua_State *L, X509 *x) {
  Der d = {NULL, 0};
  int n;
  luaL_checkstack(L, 6, "certificate");
  d.len = i2d_X509(x, &d.p);
  if (d.len < 0) luaL_error(L, "cannot encode a certificate");
  n = lsock_ssl_try(L, push_der, &d);
  OPENSSL_free(d.p);
  if (n < 0) lua_error(L);
}

typedef struct List {
  STACK_OF(X509) * certs;
  int decoded;
} List;

static int push_list(lua_State *L) {
  const List *l = lua_touserdata(L, 1);
  int i, n = sk_X509_num(l->certs);
  lua_createtable(L, n > 0 ? n : 0, 0);
  for (i = 0; i < n; i++) {
    (l->decoded ? lsock_x509_push : lsock_x509_pushder)(L, sk_X509_value(l->certs, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

void lsock_x509_pushlist(lua_State *L, STACK_OF(X509) * certs, int decoded) {
  List l = {certs, decoded};
  int n = -2;
  if (lua_checkstack(L, 6)) n = lsock_ssl_try(L, push_list, &l);
  sk_X509_pop_free(certs, X509_free);
  ERR_clear_error();
  if (n == -2) luaL_error(L, "stack overflow");
  if (n < 0) lua_error(L);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL has its type */
int lsock_no_password(char *buf, int size, int writing, void *arg) {
  (void)buf;
  (void)size;
  (void)writing;
  (void)arg;
  return -1;
}

/* Pushes the DER bytes of the first certificate; 0 if there is none. */
int lsock_x509_pem_to_der(lua_State *L, const char *pem, size_t len) {
  BIO *b;
  X509 *x;
  Der d = {NULL, 0};
  int n;
  if (len > INT_MAX) return 0;
  luaL_checkstack(L, 6, "certificate");
  b = BIO_new_mem_buf(pem, (int)len);
  x = b ? PEM_read_bio_X509(b, NULL, lsock_no_password, NULL) : NULL;
  BIO_free(b);
  ERR_clear_error();
  if (!x) return 0;
  d.len = i2d_X509(x, &d.p);
  X509_free(x);
  if (d.len < 0) return 0;
  n = lsock_ssl_try(L, push_der, &d);
  OPENSSL_free(d.p);
  if (n < 0) lua_error(L);
  return 1;
}
