/*
** lsocket_family.c: addresses of the families beyond IPv4, IPv6 and Unix, in the forms of Python's socket module.
**
** A table says where each item lies in the C structure; one reader and one writer serve them all. They work on
** a copy padded with zeros, so what a short address lacks reads as zero. AF_RDS is not here: its addresses are AF_INET's.
*/
#include "lsocket_int.h"

#include <stdio.h>
#include <string.h>

#if defined(__has_include)
#if __has_include(<linux/netlink.h>)
#include <linux/netlink.h>
#endif
#if __has_include(<netpacket/packet.h>)
#include <netpacket/packet.h>
#endif
#if __has_include(<linux/tipc.h>)
#include <linux/tipc.h>
#endif
#if __has_include(<linux/vm_sockets.h>)
#include <linux/vm_sockets.h>
#endif
#if __has_include(<linux/can.h>)
#include <linux/can.h>
#endif
#if __has_include(<linux/if_alg.h>)
#include <linux/if_alg.h>
#endif
#if __has_include(<linux/qrtr.h>)
#include <linux/qrtr.h>
#endif
#if __has_include(<bluetooth/bluetooth.h>) && __has_include(<bluetooth/hci.h>) && __has_include(<bluetooth/l2cap.h>)
#include <bluetooth/bluetooth.h>
#include <bluetooth/hci.h>
#include <bluetooth/l2cap.h>
#include <bluetooth/rfcomm.h>
#include <bluetooth/sco.h>
#endif
#endif

/* ---------------------------------------------------------------- items */

/* kinds */
enum {
  UINT,     /* unsigned, in host order; 8 bytes are any lua_Integer */
  NET16,    /* two bytes in network order */
  LE16,     /* two bytes, low one first: Bluetooth's order */
  IFINDEX,  /* a network interface, shown by name */
  TEXT,     /* a string that ends with a zero byte */
  BDADDR,   /* a Bluetooth address: "01:23:45:67:89:AB", stored last byte first */
  HWADDR,   /* a string of bytes; their number is in the byte before */
  TIPCTYPE, /* TIPC_ADDR_: selects the row of tipc_words */
  TIPCWORD, /* the next item of that row */
  TIPCSCOPE /* signed: a negative one takes a name back; TIPC_CLUSTER_SCOPE if absent */
};

/* flags */
enum {
  OPT = 1,   /* may be absent: zero */
  TRIM = 2,  /* at the end of a table: left out when it and all after it are zero */
  SHOWN = 4, /* shown, but not stored */
  ALONE = 8  /* the first item: instead of the table, its value alone will do */
};

typedef struct lsock_Item {
  unsigned char kind, flags, at, size;
} Item;

#define AT(type, member) offsetof(struct type, member), sizeof(((struct type *)0)->member)

#if defined(AF_NETLINK) && defined(NETLINK_ROUTE)
static const char *const netlink_fields[] = {"pid", "groups", NULL};
static const Item netlink_items[] = {{UINT, 0, AT(sockaddr_nl, nl_pid)}, {UINT, 0, AT(sockaddr_nl, nl_groups)}};
#endif

#if defined(AF_PACKET) && defined(PACKET_HOST)
static const char *const packet_fields[] = {"ifname", "proto", "pkttype", "hatype", "addr", NULL};
static const Item packet_items[] = {{IFINDEX, 0, AT(sockaddr_ll, sll_ifindex)},
                                    {NET16, 0, AT(sockaddr_ll, sll_protocol)},
                                    {UINT, OPT, AT(sockaddr_ll, sll_pkttype)},
                                    {UINT, OPT, AT(sockaddr_ll, sll_hatype)},
                                    {HWADDR, OPT, AT(sockaddr_ll, sll_addr)}};
#endif

#if defined(AF_TIPC) && defined(TIPC_ADDR_ID)
static const char *const tipc_fields[] = {"addr_type", "v1", "v2", "v3", "scope", NULL};
static const Item tipc_items[] = {{TIPCTYPE, 0, AT(sockaddr_tipc, addrtype)},
                                  {TIPCWORD, 0, 0, 0},
                                  {TIPCWORD, 0, 0, 0},
                                  {TIPCWORD, 0, 0, 0},
                                  {TIPCSCOPE, OPT, AT(sockaddr_tipc, scope)}};
static const Item tipc_words[][3] = {
    [TIPC_ADDR_NAMESEQ] = {{UINT, 0, AT(sockaddr_tipc, addr.nameseq.type)},
                           {UINT, 0, AT(sockaddr_tipc, addr.nameseq.lower)},
                           {UINT, 0, AT(sockaddr_tipc, addr.nameseq.upper)}},
    [TIPC_ADDR_NAME] = {{UINT, 0, AT(sockaddr_tipc, addr.name.name.type)},
                        {UINT, 0, AT(sockaddr_tipc, addr.name.name.instance)},
                        {UINT, SHOWN, AT(sockaddr_tipc, addr.name.name.instance)}},
    [TIPC_ADDR_ID] = {{UINT, 0, AT(sockaddr_tipc, addr.id.node)},
                      {UINT, 0, AT(sockaddr_tipc, addr.id.ref)},
                      {UINT, SHOWN, sizeof(struct sockaddr_tipc), sizeof(uint32_t)}}, /* zeros behind the address */
};
#endif

#if defined(AF_VSOCK) && defined(VMADDR_CID_ANY)
static const char *const vsock_fields[] = {"cid", "port", NULL};
static const Item vsock_items[] = {{UINT, 0, AT(sockaddr_vm, svm_cid)}, {UINT, 0, AT(sockaddr_vm, svm_port)}};
#endif

#if defined(AF_CAN) && defined(CAN_ISOTP)
static const char *const can_fields[] = {"ifname", NULL};
static const Item can_items[] = {{IFINDEX, 0, AT(sockaddr_can, can_ifindex)}};
static const char *const isotp_fields[] = {"ifname", "rx_id", "tx_id", NULL};
static const Item isotp_items[] = {{IFINDEX, 0, AT(sockaddr_can, can_ifindex)},
                                   {UINT, 0, AT(sockaddr_can, can_addr.tp.rx_id)},
                                   {UINT, 0, AT(sockaddr_can, can_addr.tp.tx_id)}};
#endif
#if defined(AF_CAN) && defined(CAN_J1939)
static const char *const j1939_fields[] = {"ifname", "name", "pgn", "addr", NULL};
static const Item j1939_items[] = {{IFINDEX, 0, AT(sockaddr_can, can_ifindex)},
                                   {UINT, 0, AT(sockaddr_can, can_addr.j1939.name)},
                                   {UINT, 0, AT(sockaddr_can, can_addr.j1939.pgn)},
                                   {UINT, 0, AT(sockaddr_can, can_addr.j1939.addr)}};
#endif

#if defined(AF_ALG) && defined(ALG_SET_KEY)
static const char *const alg_fields[] = {"type", "name", "feat", "mask", NULL};
static const Item alg_items[] = {{TEXT, 0, AT(sockaddr_alg, salg_type)},
                                 {TEXT, 0, AT(sockaddr_alg, salg_name)},
                                 {UINT, OPT, AT(sockaddr_alg, salg_feat)},
                                 {UINT, OPT, AT(sockaddr_alg, salg_mask)}};
#endif

#if defined(AF_QIPCRTR) && defined(QRTR_NODE_BCAST)
static const char *const qrtr_fields[] = {"node", "port", NULL};
static const Item qrtr_items[] = {{UINT, 0, AT(sockaddr_qrtr, sq_node)}, {UINT, 0, AT(sockaddr_qrtr, sq_port)}};
#endif

#if defined(AF_BLUETOOTH) && defined(BTPROTO_L2CAP) && defined(BDADDR_BREDR)
static const char *const l2cap_fields[] = {"bdaddr", "psm", "cid", "bdaddr_type", NULL};
static const Item l2cap_items[] = {{BDADDR, 0, AT(sockaddr_l2, l2_bdaddr)},
                                   {LE16, 0, AT(sockaddr_l2, l2_psm)},
                                   {LE16, OPT | TRIM, AT(sockaddr_l2, l2_cid)},
                                   {UINT, OPT | TRIM, AT(sockaddr_l2, l2_bdaddr_type)}};
static const char *const rfcomm_fields[] = {"bdaddr", "channel", NULL};
static const Item rfcomm_items[] = {{BDADDR, 0, AT(sockaddr_rc, rc_bdaddr)}, {UINT, 0, AT(sockaddr_rc, rc_channel)}};
static const char *const hci_fields[] = {"dev", "channel", NULL};
static const Item hci_items[] = {{UINT, ALONE, AT(sockaddr_hci, hci_dev)},
                                 {UINT, OPT | TRIM, AT(sockaddr_hci, hci_channel)}};
static const char *const sco_fields[] = {"bdaddr", NULL};
static const Item sco_items[] = {{BDADDR, ALONE, AT(sockaddr_sco, sco_bdaddr)}};
#endif

/* ---------------------------------------------------------------- from C to Lua */

typedef struct Bytes {
  size_t len;
  unsigned char b[sizeof(struct sockaddr_storage)];
} Bytes;

/* The item at position i + 1 of the address. */
static const Item *item_at(const lsock_Family *f, int i, const Bytes *r) {
  const Item *it = &f->items[i];
#if defined(AF_TIPC) && defined(TIPC_ADDR_ID)
  if (it->kind == TIPCWORD) {
    unsigned type = r->b[tipc_items[0].at];
    if (type < TIPC_ADDR_NAMESEQ || type > TIPC_ADDR_ID) type = TIPC_ADDR_NAMESEQ; /* cut off: show the words */
    it = &tipc_words[type][i - 1];
  }
#else
  (void)r;
#endif
  return it;
}

static lua_Integer load_int(const Item *it, const unsigned char *p) {
  uint16_t u16;
  uint32_t u32;
  lua_Integer i;
  if (it->kind == NET16) return p[0] << 8 | p[1];
  if (it->kind == LE16) return p[1] << 8 | p[0];
  if (it->kind == TIPCSCOPE) return p[0] < 128 ? p[0] : p[0] - 256;
  switch (it->size) {
    case 1: return p[0];
    case 2: memcpy(&u16, p, sizeof u16); return u16;
    case 4: memcpy(&u32, p, sizeof u32); return u32;
    default: memcpy(&i, p, sizeof i); return i;
  }
}

static void push_item(lua_State *L, const Item *it, const Bytes *r) {
  const unsigned char *p = r->b + it->at;
  char text[sizeof "01:23:45:67:89:AB"];
  size_t n;
  switch (it->kind) {
    case IFINDEX: lsock_pushif(L, (unsigned)load_int(it, p)); break;
    case TEXT: lua_pushlstring(L, (const char *)p, strnlen((const char *)p, it->size)); break;
    case HWADDR: /* a long one, as InfiniBand's 20 bytes, goes on behind the structure (packet(7)) */
      n = r->len > it->at ? r->len - it->at : 0;
      lua_pushlstring(L, (const char *)p, p[-1] < n ? p[-1] : n);
      break;
    case BDADDR:
      snprintf(text, sizeof text, "%02X:%02X:%02X:%02X:%02X:%02X", p[5], p[4], p[3], p[2], p[1], p[0]);
      lua_pushstring(L, text);
      break;
    default: lua_pushinteger(L, load_int(it, p));
  }
}

void lsock_pushfamily(lua_State *L, const lsock_Family *f, const lsock_Addr *a) {
  Bytes r = {0};
  int i, n = 0;
  r.len = a->len < sizeof a->u.ss ? a->len : sizeof a->u.ss;
  memcpy(r.b, &a->u.ss, r.len);
  while (f->fields[n]) n++;
  while ((f->items[n - 1].flags & TRIM) && load_int(&f->items[n - 1], r.b + f->items[n - 1].at) == 0) n--;
  lua_createtable(L, n, 0);
  for (i = 0; i < n; i++) {
    push_item(L, item_at(f, i, &r), &r);
    lua_rawseti(L, -2, i + 1);
  }
}

/* ---------------------------------------------------------------- from Lua to C */

static void store_int(const Item *it, unsigned char *p, lua_Integer v) {
  uint16_t u16 = (uint16_t)v;
  uint32_t u32 = (uint32_t)v;
  if (it->kind == NET16) {
    p[0] = (unsigned char)(v >> 8);
    p[1] = (unsigned char)(v & 0xFF);
  } else if (it->kind == LE16) {
    p[0] = (unsigned char)(v & 0xFF);
    p[1] = (unsigned char)(v >> 8);
  } else
    switch (it->size) {
      case 1: p[0] = (unsigned char)(v & 0xFF); break;
      case 2: memcpy(p, &u16, sizeof u16); break;
      case 4: memcpy(p, &u32, sizeof u32); break;
      default: memcpy(p, &v, sizeof v);
    }
}

static lua_Integer get_int(lua_State *L, int arg, int i, const char *name, const Item *it) {
  lua_Integer lo = 0, hi = it->size < 8 ? ((lua_Integer)1 << 8 * it->size) - 1 : LUA_MAXINTEGER;
#if defined(AF_TIPC) && defined(TIPC_ADDR_ID)
  if (it->kind == TIPCTYPE) {
    lo = TIPC_ADDR_NAMESEQ;
    hi = TIPC_ADDR_ID;
  } else if (it->kind == TIPCSCOPE) {
    int absent = lsock_getitem(L, arg, i, name) == LUA_TNIL;
    lua_pop(L, 1);
    if (absent) return TIPC_CLUSTER_SCOPE;
    lo = -128;
    hi = 127;
  }
#endif
  if (it->size == 8) lo = LUA_MININTEGER;
  return lsock_getint(L, arg, i, name, lo, hi, it->flags & OPT);
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Six numbers of one or two digits. */
static int parse_bdaddr(const char *s, unsigned char *p) {
  int i, d;
  for (i = 5; i >= 0; i--) {
    if ((d = hex_digit(*s)) < 0) return 0;
    p[i] = (unsigned char)d;
    if ((d = hex_digit(*++s)) >= 0) {
      p[i] = (unsigned char)(p[i] << 4 | d);
      s++;
    }
    if (*s++ != (i ? ':' : '\0')) return 0;
  }
  return 1;
}

/* 0 if it names an interface that is not there. */
static int get_item(lua_State *L, int arg, int i, const char *name, const Item *it, unsigned char *p) {
  char text[256];
  unsigned index;
  switch (it->kind) {
    case IFINDEX:
      if (!lsock_getif(L, arg, i, name, &index)) return 0;
      store_int(it, p, index);
      break;
    case TEXT: lsock_getstr(L, arg, i, name, p, it->size - 1u, LSOCK_STR_TEXT); break;
    case HWADDR: p[-1] = (unsigned char)lsock_getstr(L, arg, i, name, p, it->size, LSOCK_STR_OPT); break;
    case BDADDR:
      lsock_getstr(L, arg, i, name, text, sizeof text - 1, LSOCK_STR_TEXT);
      if (!parse_bdaddr(text, p))
        luaL_argerror(L, arg, lua_pushfstring(L, "%s must be like 01:23:45:67:89:AB, got '%s'", name, text));
      break;
    default: {
      lua_Integer v = get_int(L, arg, i, name, it);
      if (!(it->flags & SHOWN)) store_int(it, p, v);
    }
  }
  return 1;
}

void lsock_getfamily(lua_State *L, int arg, const lsock_Family *f, lsock_Addr *a) {
  Bytes r = {0};
  int i, known = 1;
  if ((f->items[0].flags & ALONE) && (lua_type(L, arg) == LUA_TNUMBER || lua_type(L, arg) == LUA_TSTRING)) {
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, arg);
    lua_rawseti(L, -2, 1);
    lua_replace(L, arg);
  }
  luaL_checktype(L, arg, LUA_TTABLE);
  for (i = 0; f->fields[i]; i++) {
    const Item *it = item_at(f, i, &r);
    known &= get_item(L, arg, i + 1, f->fields[i], it, r.b + it->at);
  }
  memcpy(&a->u.ss, r.b, sizeof r.b);
  a->u.sa.sa_family = (sa_family_t)f->family;
  a->len = known ? f->size : 0;
}

/* ---------------------------------------------------------------- families */

static const lsock_Family families[] = {
#if defined(AF_NETLINK) && defined(NETLINK_ROUTE)
    {AF_NETLINK, -1, sizeof(struct sockaddr_nl), netlink_fields, netlink_items},
#endif
#if defined(AF_PACKET) && defined(PACKET_HOST)
    {AF_PACKET, -1, sizeof(struct sockaddr_ll), packet_fields, packet_items},
#endif
#if defined(AF_TIPC) && defined(TIPC_ADDR_ID)
    {AF_TIPC, -1, sizeof(struct sockaddr_tipc), tipc_fields, tipc_items},
#endif
#if defined(AF_VSOCK) && defined(VMADDR_CID_ANY)
    {AF_VSOCK, -1, sizeof(struct sockaddr_vm), vsock_fields, vsock_items},
#endif
#if defined(AF_CAN) && defined(CAN_J1939)
    {AF_CAN, CAN_J1939, sizeof(struct sockaddr_can), j1939_fields, j1939_items},
#endif
#if defined(AF_CAN) && defined(CAN_ISOTP)
    {AF_CAN, CAN_ISOTP, sizeof(struct sockaddr_can), isotp_fields, isotp_items},
    {AF_CAN, -1, sizeof(struct sockaddr_can), can_fields, can_items}, /* CAN_RAW, CAN_BCM */
#endif
#if defined(AF_ALG) && defined(ALG_SET_KEY)
    {AF_ALG, -1, sizeof(struct sockaddr_alg), alg_fields, alg_items},
#endif
#if defined(AF_QIPCRTR) && defined(QRTR_NODE_BCAST)
    {AF_QIPCRTR, -1, sizeof(struct sockaddr_qrtr), qrtr_fields, qrtr_items},
#endif
#if defined(AF_BLUETOOTH) && defined(BTPROTO_L2CAP) && defined(BDADDR_BREDR)
    {AF_BLUETOOTH, BTPROTO_L2CAP, sizeof(struct sockaddr_l2), l2cap_fields, l2cap_items},
    {AF_BLUETOOTH, BTPROTO_RFCOMM, sizeof(struct sockaddr_rc), rfcomm_fields, rfcomm_items},
    {AF_BLUETOOTH, BTPROTO_HCI, sizeof(struct sockaddr_hci), hci_fields, hci_items},
    {AF_BLUETOOTH, BTPROTO_SCO, sizeof(struct sockaddr_sco), sco_fields, sco_items},
#endif
    {0, 0, 0, NULL, NULL}};

const lsock_Family *lsock_findfamily(int family, int proto) {
  const lsock_Family *f;
  for (f = families; f->fields; f++)
    if (f->family == family && (f->proto < 0 || f->proto == proto)) return f;
  return NULL;
}
