#!/bin/sh
# run.sh: the benchmarks. This library beside plain C, LuaSocket and Python,
# against the same peer process, in one run.
#
#   sh bench/run.sh [time] [syscalls] [instructions] [memory] [startup] [tls] [load] [all] [--write]
#
# Without a part named: all, in a quarter of an hour. --write also puts the
# report into bench/RESULTS.md. Build the library first (make bench does).
# LUA, PYTHON and CC choose the programs.
set -eu
cd "$(dirname "$0")/.."
LUA=${LUA:-lua5.4} PYTHON=${PYTHON:-python3} CC=${CC:-cc}
out=bench/build
mkdir -p $out

LUA_CFLAGS=${LUA_CFLAGS:-$(pkg-config --cflags lua5.4 2>/dev/null || echo -I/usr/include/lua5.4)}
$CC -O2 -o $out/peer bench/peer.c
$CC -O2 -o $out/c_client bench/c_client.c
$CC -O2 -o $out/load_client bench/load_client.c
$CC -O2 -o $out/load_server bench/load_server.c
# shellcheck disable=SC2086 # several flags, or none
$CC -O2 -shared -fPIC $LUA_CFLAGS -o $out/bare.so bench/bare.c
if [ -f socket/ssl.so ]; then
    # shellcheck disable=SC2046 # several flags
    $CC -O2 -o $out/tls bench/tls.c $(pkg-config --cflags --libs openssl)
    [ -f $out/server.pem ] || sh bench/tls_certs.sh $out
fi
[ -f socket.so ] || { echo "bench: no ./socket.so; run make first" >&2; exit 1; }

# Everything on one processor: with the peer on another, most of what is measured
# is waking the other processor, and the spread is ten times as wide (on a virtual
# machine above all). BENCH_PEER_CPU=1 puts the peer there all the same.
pin='' peer_pin=''
if command -v taskset >/dev/null; then
    pin="taskset -c 0" peer_pin="taskset -c ${BENCH_PEER_CPU:-0}"
fi
# shellcheck disable=SC3045 # dash and bash have it
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true # ten thousand sockets for the memory part
head -c 1048576 /dev/zero >$out/megabyte
rm -f $out/ports
$peer_pin $out/peer >$out/ports &
peer=$! tls_peer=
trap 'kill $peer $tls_peer 2>/dev/null' EXIT
trap 'exit 1' INT TERM HUP
echo >$out/tls_ports
if [ -f socket/ssl.so ]; then
    : >$out/tls_ports
    $peer_pin $out/tls peer >$out/tls_ports &
    tls_peer=$!
fi
i=0
until [ -s $out/ports ] && [ -s $out/tls_ports ]; do
    i=$((i + 1))
    [ $i -lt 50 ] || { echo "bench: the peer does not start" >&2; exit 1; }
    sleep 0.1
done

BENCH_PORTS=$(cat $out/ports)
BENCH_TLS_PORTS=$(cat $out/tls_ports)
PYTHON=$($PYTHON -c 'import sys; print(sys.executable)' 2>/dev/null || true) # not a wrapper around it
export BENCH_PORTS BENCH_TLS_PORTS LUA PYTHON CC
# shellcheck disable=SC2086 # several words, or none
$pin $LUA bench/run.lua "$@"
