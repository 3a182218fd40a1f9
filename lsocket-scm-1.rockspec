rockspec_format = "3.0"
package = "lsocket"
version = "scm-1"
-- Built where it lies: `luarocks make` in a checkout.
source = {
  url = "git+file://.",
}
description = {
  summary = "Python's socket module for Lua 5.4",
  detailed = [[
    BSD sockets with Python's names and semantics and Lua's manners: every
    address family the system has, timeouts that also cover name resolution,
    errors as objects, and calls that become cooperative inside coroutines.]],
  license = "MIT",
}
supported_platforms = {"unix"}
dependencies = {"lua >= 5.4, < 5.5"}
external_dependencies = {
  OPENSSL = {header = "openssl/ssl.h", library = "ssl"},
  CRYPTO = {header = "openssl/crypto.h", library = "crypto"},
}
test = {
  type = "command",
  command = "make test",
}
build = {
  type = "builtin",
  modules = {
    socket = {
      -- Checked by tools/check_rock.sh to be the files the Makefile compiles.
      sources = {
        "lsocket.c", "lsocket_addr.c", "lsocket_buf.c", "lsocket_connect.c", "lsocket_const.c",
        "lsocket_err.c", "lsocket_family.c", "lsocket_file.c", "lsocket_host.c", "lsocket_inet.c",
        "lsocket_io.c", "lsocket_msg.c", "lsocket_opt.c", "lsocket_policy.c", "lsocket_poller.c",
        "lsocket_posix.c", "lsocket_reactor.c", "lsocket_resolve.c", "lsocket_select.c",
        "lsocket_sendfile.c", "lsocket_task.c", "lsocket_timer.c", "lsocket_wait.c",
      },
      libraries = {"pthread", "m"},
    },
    ["socket.ssl"] = {
      sources = {
        "lsocket_ssl.c", "lsocket_sslalgo.c", "lsocket_sslbio.c", "lsocket_sslctx.c", "lsocket_sslerr.c",
        "lsocket_sslobj.c", "lsocket_sslopt.c", "lsocket_sslpsk.c", "lsocket_sslsock.c",
        "lsocket_x509.c",
      },
      libraries = {"ssl", "crypto"},
      incdirs = {"$(OPENSSL_INCDIR)", "$(CRYPTO_INCDIR)"},
      libdirs = {"$(OPENSSL_LIBDIR)", "$(CRYPTO_LIBDIR)"},
    },
  },
  platforms = {
    linux = {modules = {socket = {libraries = {"pthread", "m", "dl"}}}},
  },
  install = {
    lua = {
      socket = "socket.lua", -- the loader, which keeps another socket.lua from being found first
      ["socket.loop"] = "socket/loop.lua",
      ["socket.server"] = "socket/server.lua",
    },
  },
}
