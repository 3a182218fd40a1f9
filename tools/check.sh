#!/bin/sh
# `make check`: one line and its time for every step; of a step that fails, all it said. Goes on
# after a failure, so that one run shows everything, and ends with status 1. Words after the
# command choose steps: sh tools/check.sh gcc tidy
set -u
LUA=${LUA:-lua5.4}
MAKE="${MAKE:-make} --no-print-directory"
export LUA
unset MAKEFLAGS MFLAGS
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
only=" $* "
logs=build/check
mkdir -p $logs
sources=$($MAKE core-sources) && flags=$($MAKE core-flags) || exit 1
formatted=$(ls lsocket*.[ch] examples/embed/*.c spec/host/*.[ch] spec/host/kqueue/*.c 2>/dev/null)
failures=0

# step name description command...
step() {
  name=$1 what=$2
  shift 2
  case $only in "  " | *" $name "*) ;; *) return 0 ;; esac
  begin=$(date +%s)
  if "$@" >"$logs/$name.log" 2>&1 </dev/null; then result=ok; else result=FAILED; fi
  printf '%-6s %4d s  %s\n' $result $(($(date +%s) - begin)) "$what"
  if [ $result = FAILED ]; then
    failures=$((failures + 1))
    sed 's/^/  | /' "$logs/$name.log"
  fi
}

# Stricter than the build of a user.
strict="-Werror -Wconversion -Wno-sign-conversion -Wcast-qual"
build_with() {
  rm -rf "build/check-$1"
  $MAKE -s -j"$jobs" BUILD="build/check-$1" SO="build/check-$1/socket.so" CC="$1" WERROR="$strict" all host
}

# Nothing that changes may be shared by two Lua states of a process: no object file has .data or .bss.
no_static_data() {
  size -A build/check-gcc/lsocket*.o |
    awk '/:$/ || /  :/ { file = $1 } $1 ~ /^\.t?(data|bss)$/ && $2 > 0 { print file ": " $2 " bytes of changeable " $1; bad = 1 }
      END { exit bad }'
}

# Only luaopen_* and what lsocket.h declares leave the library.
exported() {
  nm -D --defined-only build/check-gcc/socket.so build/check-gcc/socket/ssl.so | awk 'NF == 3 { print $3 }' | while read -r symbol; do
    case $symbol in luaopen_*) continue ;; esac
    grep -q "LSOCKET_API.*[^a-z_0-9]$symbol *(" lsocket.h || echo "exported but not in lsocket.h: $symbol"
  done >$logs/exported.txt
  cat $logs/exported.txt
  [ ! -s $logs/exported.txt ]
}

# What plain `make` builds, stripped: what a device must have room for.
small() {
  $MAKE -s BUILD=build/small SO=build/small/socket.so WITH_TLS=no all && strip -o build/small/stripped build/small/socket.so || return 1
  bytes=$(wc -c <build/small/stripped)
  echo "socket.so, stripped: $bytes bytes; at most 150000"
  [ "$bytes" -lt 150000 ]
}

tidy() {
  echo $sources $(ls spec/host/*.c examples/embed/*.c) | tr ' ' '\n' |
    xargs -n 1 -P "$jobs" sh -c 'clang-tidy --quiet "$0" -- '"$flags"' -I. -Wall -Wextra 2>&1 |
      grep -v "warnings\? generated\|warnings treated as errors\|^Suppressed\|^Use -header-filter" >"'$logs'/tidy-$(basename "$0").txt"
      cat "'$logs'/tidy-$(basename "$0").txt"; ! grep -q "error:" "'$logs'/tidy-$(basename "$0").txt"'
}

check_cppcheck() {
  cppcheck --quiet -j "$jobs" --std=c11 --language=c --library=posix --library=lua \
    --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
    --suppress=missingIncludeSystem --suppress=ignoredReturnValue -I. -D__linux__ -D__GNUC__ $sources
}

step gcc      "gcc, warnings as errors"             build_with gcc
step clang    "clang, warnings as errors"           build_with clang
step static   "no changeable static data"           no_static_data
step exported "only public names are exported"      exported
step size     "the core, stripped, is under 150 KB" small
step tidy     "clang-tidy"                          tidy
step cppcheck "cppcheck"                            check_cppcheck
step format   "clang-format"                        clang-format --dry-run -Werror $formatted
step luacheck "luacheck"                            luacheck --no-color -q .
[ ! -e tools/genconst.lua ] ||
step const    "the constant table is up to date"    "$LUA" tools/genconst.lua --check
step merged   "nothing half merged"                 sh -c '! grep -nE "^(<{7}|>{7})( |$)" *.md docs/*.md docs/reference/*.md *.[ch] socket/*.lua spec/*.lua'
[ ! -e tools/check_docs.lua ] ||
step docs     "the documents agree with the code"   "$LUA" tools/check_docs.lua
step hosts    "builds for hosts: pkg-config, CMake, C++" sh tools/check_hosts.sh
step rock     "LuaRocks: lint, make, run an example" sh tools/check_rock.sh
step asanlib  "the library with the sanitizers"     $MAKE asan-lua
# On the second processor, as specs wait most of the time.
(failures=0; step alloc "each 3rd allocation failing" $MAKE allocfail EVERY=3; exit $failures) >$logs/alloc.txt &
alloc=$!
step asan     "specs under ASan and UBSan"          $MAKE sanitize
wait $alloc || failures=$((failures + 1))
cat $logs/alloc.txt
step kqueue   "waiting specs on kqueue, a stand-in"  $MAKE kqueue
step fuzztls  "TLS peers as nobody should be"        $MAKE fuzz-tls SEEDS=12
step reentry  "calls from callbacks and finalizers" $MAKE fuzz-reentry SEEDS=4
step m32      "specs with 32-bit pointers"          $MAKE m32
step apicheck "specs with a Lua that checks its API" $MAKE apicheck
step tsan     "two states in two threads under TSan" $MAKE tsan

[ $failures = 0 ] || { echo "$failures of the steps above failed"; exit 1; }
