#!/bin/sh
# soak.sh: hostile clients against a server of socket.server for a while; see soak.c for what they do.
#
#   sh bench/soak.sh [seconds [connections [server command ...]]]
#
# Without arguments ten minutes and 5,000 connections. Exits with 0 if nothing was lost and
# memory and descriptors stayed flat. Build the library first.
set -eu
cd "$(dirname "$0")/.."
CC=${CC:-cc}
out=bench/build
mkdir -p $out
$CC -O2 -o $out/soak bench/soak.c
seconds=${1:-600} connections=${2:-5000}
[ $# -gt 2 ] && shift 2 || set -- "${LUA:-lua5.4}" bench/soak_server.lua
# shellcheck disable=SC3045 # dash and bash have it
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
export LUA_PATH="./?.lua;;" LUA_CPATH="./?.so;;"
exec $out/soak "$seconds" "$connections" "$@"
