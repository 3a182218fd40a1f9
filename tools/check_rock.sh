#!/bin/sh
# The rockspec: it lints, names the sources the Makefile compiles, and builds offline into a clean
# tree from which an example runs with nothing else in its paths.
set -eu
LUA=${LUA:-lua5.4}
spec=lsocket-scm-1.rockspec
luarocks lint $spec

"$LUA" - $spec "$(make --no-print-directory core-sources)" <<'END'
local rock = {}
assert(loadfile(arg[1], "t", rock))()
local listed = {}
for _, m in pairs(rock.build.modules) do table.move(m.sources, 1, #m.sources, #listed + 1, listed) end
table.sort(listed)
listed = table.concat(listed, " ")
local sorted = {}
for name in arg[2]:gmatch "%S+" do sorted[#sorted + 1] = name end
table.sort(sorted)
local there = table.concat(sorted, " ")
assert(listed == there, "the rockspec's sources are not those of the Makefile:\n  " .. listed .. "\n  " .. there)
END

# A copy, because LuaRocks leaves what it compiles beside the sources.
rm -rf build/rock
mkdir -p build/rock/src
for f in lsocket*.[ch] lsocket*.inc socket.lua $spec; do
  [ ! -e "$f" ] || cp -R "$f" build/rock/src/
done
mkdir build/rock/src/socket
cp socket/*.lua build/rock/src/socket/
tree=$PWD/build/rock/tree
here=$PWD
(cd build/rock/src && luarocks --lua-version=5.4 make --tree "$tree" $spec OPENSSL_LIBDIR="$(pkg-config --variable=libdir openssl)" \
  CRYPTO_LIBDIR="$(pkg-config --variable=libdir openssl)")

# No ";;": nothing but the tree is searched. Outside the checkout, so that no ./ is either.
export LUA_PATH="$tree/share/lua/5.4/?.lua" LUA_CPATH="$tree/lib/lua/5.4/?.so"
unset LUA_PATH_5_4 LUA_CPATH_5_4 LUA_INIT LUA_INIT_5_4 || true
cd build/rock
"$LUA" -e 'local s = require "socket"; print("loaded", s._VERSION, s.ssl.OPENSSL_VERSION); assert(package.searchpath("socket", package.cpath))
  for _, name in ipairs {"selectors", "loop", "server"} do require("socket." .. name) end'
[ -e "$here/examples/echo_server.lua" ] || exit 0

# The server takes a free port, says which, serves one client and ends.
timeout 20 "$LUA" "$here/examples/echo_server.lua" 127.0.0.1 0 1 >server.txt 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
port=
for _ in 1 2 3 4 5 6 7 8 9 10; do
  port=$(sed -n 's/.*127\.0\.0\.1:\([0-9][0-9]*\).*/\1/p' server.txt | head -n 1)
  [ -z "$port" ] || break
  sleep 0.3
done
cat server.txt
[ -n "$port" ] || { echo "echo_server.lua named no port"; exit 1; }
timeout 10 "$LUA" "$here/examples/echo_client.lua" 127.0.0.1 "$port" "from a rock" | tee client.txt
grep -q "from a rock" client.txt
wait $server
trap - EXIT
