#!/bin/sh
# The library as a part of other programs: spec/host/embed.cpp in C++ against the archive and the shared library, through
# pkg-config; with CMake, as a folder of another project and installed. Run by tools/check.sh.
set -eu
cd "$(dirname "$0")/.."
dir=$PWD/build/hosts
rm -rf "$dir"
mkdir -p "$dir"
make -s install-host PREFIX="$dir/usr"
for lua in lua5.4 lua-5.4 lua54 lua; do pkg-config --exists "$lua >= 5.4" 2>/dev/null && break; done
PKG_CONFIG_PATH=$dir/usr/lib/pkgconfig
export PKG_CONFIG_PATH
flags=$(pkg-config --cflags --libs lsocket $lua)
for way in -l:liblsocket.a -llsocket; do
  # shellcheck disable=SC2046,SC2086 # several words
  g++ -Wall -Wextra -Wpedantic -Werror -o "$dir/embed" spec/host/embed.cpp $(echo "$flags" | sed "s/-llsocket/$way/")
  LD_LIBRARY_PATH=$dir/usr/lib "$dir/embed"
done
pkg-config --exists lsocket-ssl

# shellcheck disable=SC2046,SC2086
cc -std=c11 -Wall -Wextra -Werror -o "$dir/nofiles" spec/host/nofiles.c $(echo "$flags" | sed "s/-llsocket/-l:liblsocket.a/")
timeout 20 "$dir/nofiles"

# A module of somebody else's, which knows lsocket.h alone.
make -s all
# shellcheck disable=SC2046
cc -std=c11 -Wall -Wextra -Werror -shared -fPIC -I"$dir/usr/include" $(pkg-config --cflags $lua) -o "$dir/third.so" \
  spec/host/third.c
LUA_PATH='' LUA_CPATH="$PWD/?.so;$dir/?.so" timeout 20 "${LUA:-lua5.4}" spec/host/third.lua

cmake -S spec/host/cmake -B "$dir/a" -DLSOCKET="$PWD" >"$dir/log"
cmake --build "$dir/a" -j2 >>"$dir/log"
"$dir/a/embed"
for shared in OFF ON; do
  cmake -S . -B "$dir/b" -DCMAKE_INSTALL_PREFIX="$dir/cmake" -DBUILD_SHARED_LIBS=$shared >>"$dir/log"
  cmake --build "$dir/b" -j2 >>"$dir/log"
  cmake --install "$dir/b" >>"$dir/log"
  rm -rf "$dir/c"
  cmake -S spec/host/cmake -B "$dir/c" -DCMAKE_PREFIX_PATH="$dir/cmake" >>"$dir/log"
  cmake --build "$dir/c" >>"$dir/log"
  "$dir/c/embed"
done

# The files named in docs/embedding.md, compiled as a host would, without TLS and without this Makefile.
mkdir "$dir/plain"
for f in lsocket*.c; do
  case $f in lsocket_ssl*.c | lsocket_x509.c | lsocket_win.c) continue ;; esac
  # shellcheck disable=SC2046
  cc -std=c11 -O1 -c $(pkg-config --cflags $lua) -pthread -o "$dir/plain/${f%.c}.o" "$f"
done
# shellcheck disable=SC2046
g++ -I. $(pkg-config --cflags $lua) -o "$dir/plain/embed" spec/host/embed.cpp "$dir"/plain/*.o \
  $(pkg-config --libs $lua) -pthread -lm -ldl
"$dir/plain/embed"
