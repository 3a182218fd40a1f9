#!/bin/sh
# Installs what a make target needs and this machine lacks:  sh tools/bootstrap.sh group...
# Debian and Ubuntu: by apt-get. Elsewhere it names what is missing and stops. When nothing is
# missing it says nothing and takes a few milliseconds.
set -eu
LUA=${LUA:-lua5.4}

# The group `peers` is for CI only: Debian starts these servers as services, which no test should do to a person's
# machine; the specs that talk to them are pending where they are not.
#
# nginx is for `make demo`, and is not installed: only its program is taken out of Debian's package, into build/, so
# that no service is started, no user made and no file written elsewhere. `make clean` removes it.
#
# The group `m32` runs the specs with pointers of 32 bits. Only the compiler's files for that are installed; Lua, its
# modules and OpenSSL for i386 are unpacked into build/i386, so that the machine gets no second architecture.
#
# Every need in one place: group, how to see that it is there, Debian package.
#   cmd:a|b  one of these programs    hdr:f  a C header    file:f  a file    lua:m  a module of $LUA
#   m32:     the compiler makes programs for i386
#   lua51:m  the same, or a module in Lua where Debian has those of 5.1
#   dev:     the headers of Lua, through pkg-config unless LUA_CFLAGS is set
needs='
build     cmd:${CC:-cc}       gcc
build     hdr:stdio.h         libc6-dev
build     cmd:make|gmake      make
build     cmd:pkg-config      pkg-config
build     cmd:$LUA            lua5.4
build     dev:lua5.4-headers  liblua5.4-dev
build     hdr:openssl/ssl.h   libssl-dev
demo      cmd:curl            curl
demo      cmd:openssl         openssl
demo      cmd:wrk             wrk
test      lua:busted.runner   lua-busted
test      lua:lfs             lua-filesystem
test      cmd:python3         python3
test      cmd:curl            curl
test      cmd:ip              iproute2
test      cmd:ps              procps
test      cmd:openssl         openssl
test      cmd:gnutls-serv     gnutls-bin
test      cmd:strace          strace
test      cmd:unshare         util-linux
test      file:/etc/services  netbase
test      hdr:bluetooth/bluetooth.h libbluetooth-dev
test      lua:luv             lua-luv
test      lua:cqueues         lua-cqueues
test      lua51:copas         lua-copas
test      lua:socket.core     lua-socket
check     cmd:gcc             gcc
check     cmd:clang           clang
check     cmd:clang-tidy      clang-tidy
check     cmd:clang-format    clang-format
check     cmd:cppcheck        cppcheck
check     cmd:cmake           cmake
check     cmd:g++             g++
check     cmd:luacheck        lua-check
check     cmd:luarocks        luarocks
check     cmd:size            binutils
check     m32:                gcc-${GCC}-multilib
m32       m32:                gcc-${GCC}-multilib
apicheck  cmd:dpkg-source     dpkg-dev
peers     cmd:redis-server    redis-server
peers     cmd:nginx           nginx
coverage  cmd:gcc             gcc
coverage  cmd:gcovr           gcovr
valgrind  cmd:valgrind        valgrind
bench     lua:socket.url      lua-socket
bench     cmd:gcc             gcc
bench     cmd:python3         python3
bench     cmd:openssl         openssl
bench     cmd:strace          strace
bench     cmd:valgrind        valgrind
'

present() {
  folders=
  case $1 in
    cmd:*)
      names=${1#cmd:}
      while [ -n "$names" ]; do
        name=${names%%|*}
        name=${name%% *}
        command -v "$name" >/dev/null 2>&1 && return
        [ -x "/usr/sbin/$name" ] && return
        case $names in *'|'*) names=${names#*|} ;; *) names= ;; esac
      done
      return 1 ;;
    file:*) [ -e "${1#file:}" ] ;;
    m32:*) echo 'int main(void) { return 0; }' | gcc -m32 -x c - -o /dev/null 2>/dev/null ;;
    hdr:*)
      [ -e "/usr/include/${1#hdr:}" ] ||
        echo "#include <${1#hdr:}>" | ${CC:-cc} -E - >/dev/null 2>&1 ;;
    dev:*)
      [ -n "${LUA_CFLAGS:-}" ] && return
      for p in lua5.4 lua-5.4 lua54 lua; do
        pkg-config --exists "$p >= 5.4" 2>/dev/null && return
      done
      return 1 ;;
    lua:*|lua51:*)
      case $1 in lua51:*) folders='/usr/share/lua/5.1/?.lua;' ;; esac
      "$LUA" -e "assert(package.searchpath('${1#*:}', '$folders' .. package.path .. ';' .. package.cpath))" 2>/dev/null ;;
  esac
}

# Sets `packages` and `wants` to what the groups named need and do not have.
look() {
  packages= wants=
  while read -r group probe package; do
    case " $groups " in *" ${group:-none} "*) ;; *) continue ;; esac
    case $probe in *'$'*) eval "probe=\"$probe\"" ;; esac
    present "$probe" && continue
    case $package in *'$'*) GCC=$(gcc -dumpversion | cut -d. -f1) && eval "package=\"$package\"" ;; esac
    case " $packages " in *" $package "*) continue ;; esac
    packages="$packages $package" wants="$wants ${probe#*:}"
  done <<END
$needs
END
}

# The program nginx of Debian's package, in build/nginx. Needs no rights. Older Debians and Ubuntus have it in another
# package of the family. Without it the demonstration says that it does without.
unpack_nginx() (
  mkdir -p build/unpack && cd build/unpack || exit
  for package in nginx nginx-core nginx-light; do
    timeout 120 apt-get -q -o Acquire::Retries=1 download "$package" </dev/null || continue
    dpkg-deb --fsys-tarfile "$package"_*.deb | tar -xO ./usr/sbin/nginx >nginx || continue
    chmod 755 nginx
    ./nginx -V && exec mv nginx ..
  done
  exit 1
) >build/unpack.log 2>&1

want_nginx() {
  case " $groups " in *' demo '*) ;; *) return 0 ;; esac
  if present 'cmd:nginx|build/nginx' || ! command -v apt-get >/dev/null 2>&1; then return 0; fi
  echo 'bootstrap: taking the program nginx out of its package, into build/ ...'
  mkdir -p build
  # A second try with new lists of packages, where that needs no password.
  if unpack_nginx || { [ "$(id -u)" = 0 ] && apt-get -qq update >/dev/null 2>&1 && unpack_nginx; }; then
    rm build/unpack.log
  else
    echo 'bootstrap: that did not work (see build/unpack.log); the demonstration goes on without nginx'
  fi
  rm -rf build/unpack
}

# What is kept in build/i386: programs and libraries of the packages for i386, and a `lua` that runs with them. Needs no
# rights: apt-get works with lists of its own.
i386_packages='lua5.4 liblua5.4-0 liblua5.4-dev libssl3 libssl-dev lua-filesystem lua-term lua-system lua-luv
lua-cqueues lua-socket libuv1 libreadline8 libtinfo6'

unpack_i386() (
  mkdir -p build/i386/lists/partial build/i386/cache/archives/partial && cd build/i386 || exit
  get="timeout 200 apt-get -q -o APT::Architecture=i386 -o APT::Architectures::=i386 -o Dir::State::lists=$PWD/lists
    -o Dir::Cache=$PWD/cache -o Dir::State::status=/dev/null -o Acquire::Languages=none -o Acquire::Retries=1"
  $get update </dev/null
  $get download $i386_packages </dev/null || exit
  for package in *.deb; do dpkg-deb -x "$package" root || exit; done
  rm -rf lists cache ./*.deb
  libraries=$PWD/root/usr/lib/i386-linux-gnu
  cat >lua <<END
#!/bin/sh
LD_LIBRARY_PATH='$libraries:$PWD/root/lib/i386-linux-gnu' \\
LUA_CPATH="\${LUA_CPATH:-;;};$libraries/lua/5.4/?.so" exec '$PWD/root/usr/bin/lua5.4' "\$@"
END
  chmod +x lua && ./lua -e 'require "lfs"'
) >build/i386.log 2>&1

# Debian's source of Lua, in build/lua-source: to build one that checks how C code uses it.
unpack_lua() (
  mkdir -p build/lua-source/lists/partial && cd build/lua-source || exit
  get="timeout 200 apt-get -q -o Dir::State::lists=$PWD/lists -o Dir::Etc::SourceList=$PWD/sources.list
    -o Dir::Etc::SourceParts=/dev/null -o Acquire::Languages=none -o Acquire::Retries=1"
  apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u >sources.list
  $get update </dev/null
  $get --download-only source lua5.4 </dev/null && dpkg-source --no-check -x lua5.4_*.dsc lua && rm -rf lists
) >build/lua-source.log 2>&1

# want folder/file function words: what a group wants there.
want() {
  [ -e "build/$1" ] && return
  echo "bootstrap: $3, into build/ ..."
  mkdir -p build
  "$2" && return
  rm -rf "build/${1%%/*}"
  echo "bootstrap: that did not work, see build/${1%%/*}.log" >&2
  exit 1
}

want_unpacked() {
  want_nginx
  case " $groups " in *' m32 '*) want i386/lua unpack_i386 "unpacking Lua and OpenSSL for i386" ;; esac
  case " $groups " in *' apicheck '*) want lua-source/lua unpack_lua "unpacking the source of Lua" ;; esac
}

groups=$*
cd "$(dirname "$0")/.."
case " $groups " in
  "  ") echo "usage: sh tools/bootstrap.sh group... (build demo test check m32 apicheck coverage valgrind bench)" >&2; exit 2 ;;
esac
look
[ -z "$packages" ] && { want_unpacked; exit; }

if ! command -v apt-get >/dev/null 2>&1; then
  echo "This machine lacks some of what is needed here, and has no apt-get. Please install:" >&2
  for want in $wants; do echo "  $want" >&2; done
  echo "(on Debian these are the packages$packages)" >&2
  exit 1
fi

sudo=
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "Please install, as root: apt-get install$packages" >&2
    exit 1
  elif [ -t 0 ]; then sudo=sudo
  else sudo='sudo -n'
  fi
fi
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

echo "bootstrap: installing$packages (apt-get) ..."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt -qq update >"$log" 2>&1 || { echo "bootstrap: apt-get update had trouble, going on:" >&2; tail -n 3 "$log" >&2; }
# $packages is a list of words.
if ! apt -y install --no-install-recommends $packages >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "bootstrap: apt-get install$packages failed" >&2
  exit 1
fi
look
if [ -n "$packages" ]; then
  echo "bootstrap: still missing after installation:$wants" >&2
  exit 1
fi
want_unpacked
echo "bootstrap: done"
