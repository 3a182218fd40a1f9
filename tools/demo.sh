#!/bin/sh
# The library at work: our servers and clients with each other, with curl and
# with a real web server. Every answer is compared with what it must be.
# Run by `make demo`; by hand, after `make`: sh tools/demo.sh
# All traffic stays on this machine, and whatever is started is stopped.

set -u
cd "$(dirname "$0")/.." || exit 1

LUA=${LUA:-lua5.4}
LUA_PATH="./?.lua;;" LUA_CPATH="./?.so;;"
export LUA_PATH LUA_CPATH
unset LUA_PATH_5_4 LUA_CPATH_5_4 LUA_INIT LUA_INIT_5_4

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$(printf '\033[1m') dim=$(printf '\033[2m') red=$(printf '\033[31m')
  green=$(printf '\033[32m') yellow=$(printf '\033[33m') off=$(printf '\033[0m')
else
  bold='' dim='' red='' green='' yellow='' off=''
fi

tmp=$(mktemp -d) || exit 1
pids='' passed=0 failed=0 skipped=0

stop() {
  for pid in $pids; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
  pids=''
}
trap 'stop; rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

now() { "$LUA" -e 'print(math.floor(require("socket").monotonic() * 1000))'; }
title() { printf '\n%s%s%s\n' "$bold" "$1" "$off"; }
ok() { passed=$((passed + 1)); printf '   %sok%s       %s\n' "$green" "$off" "$1"; }
bad() { failed=$((failed + 1)); printf '   %sFAILED%s   %s\n' "$red" "$off" "$1"; }
skip() { skipped=$((skipped + 1)); printf '   %sskipped%s  %s\n' "$yellow" "$off" "$1"; }
# say who: prints standard input, each line with the speaker's name before it
say() { sed "s/^/   $dim$(printf '%-8s' "$1")$off /"; }
# expect "what" "text" file: the file must contain the text
expect() {
  if grep -qF -- "$2" "$3"; then ok "$1"; else
    bad "$1: expected \"$2\" and got:"; say '' <"$3"
  fi
}

# A server that nobody comes to gives up, so that nothing here waits for ever.
bounded='require("socket").setdefaulttimeout(10)'

# serve script arguments...: starts an example and waits for its address,
# left in $address, and the port in $port
serve() {
  script=$1
  shift
  : >"$tmp/server"
  "$LUA" -e "$bounded" "examples/$script.lua" "$@" >"$tmp/server" 2>&1 &
  server=$!
  pids="$pids $server"
  tries=0
  while ! grep -q '^listening on ' "$tmp/server"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
      bad "$script did not start:"
      say '' <"$tmp/server"
      return 1
    fi
    sleep 0.05
  done
  address=$(sed -n 's/^listening on //p' "$tmp/server")
  port=${address##*:}
}
# client script arguments...: runs an example, its output in $tmp/client
client() {
  script=$1
  shift
  "$LUA" "examples/$script.lua" "$@" >"$tmp/client" 2>&1
}
# finish [who]: waits for the server, which stops by itself, and shows both sides
finish() {
  wait "$server"
  status=$?
  pids=${pids% "$server"}
  say server <"$tmp/server"
  say "${1:-client}" <"$tmp/client"
  [ "$status" -eq 0 ] || bad "the server ended with status $status"
}

if ! "$LUA" -e 'assert(require("socket").SocketType)' 2>"$tmp/err"; then
  cat "$tmp/err" >&2
  echo "The library is not built yet, or $LUA is missing: run make first." >&2
  exit 1
fi
printf '%ssocket for Lua%s: a demonstration (%s, %s)\n' "$bold" "$off" \
  "$("$LUA" -e 'io.write(_VERSION, ", ", require("socket")._VERSION)')" "$(uname -s)"
begin=$(now)

title '1. Echo over TCP, IPv4'
message='Hello over IPv4'
if serve echo_server 127.0.0.1 0 1; then
  client echo_client 127.0.0.1 "$port" "$message"
  finish
  expect 'every byte came back' "received \"$message\"" "$tmp/client"
fi

title '2. Echo over TCP, IPv6'
if "$LUA" -e 'local s = require "socket"; s.socket(s.AF_INET6):bind{"::1", 0}:close()' 2>/dev/null; then
  message='Hello over IPv6'
  if serve echo_server_any ::1 0 1; then
    client echo_client_any ::1 "$port" "$message"
    finish
    expect 'every byte came back' "received \"$message\"" "$tmp/client"
  fi
else
  skip 'this machine has no IPv6'
fi

title '3. Echo over UDP'
message='Hello over UDP'
if serve udp_echo_server 127.0.0.1 0 1; then
  client udp_echo_client 127.0.0.1 "$port" "$message"
  finish
  expect 'the datagram came back' "received \"$message\"" "$tmp/client"
fi

title '4. Echo over a Unix socket'
message='Hello without a network'
if serve unix_echo_server "$tmp/echo.sock" 1; then
  client unix_echo_client "$tmp/echo.sock" "$message"
  finish
  expect 'every byte came back' "received \"$message\"" "$tmp/client"
fi

title '5. Under our own name'
if serve thankyou_server 0 1; then
  client thankyou_client "$port"
  finish
  expect 'a word of thanks' 'Thank you for connecting' "$tmp/client"
fi

title '6. Our HTTP server, asked by curl'
if ! command -v curl >/dev/null; then
  bad 'curl is not installed'
elif serve http_server 127.0.0.1 0 . 2; then
  curl -sS -i --noproxy '*' --max-time 10 "http://127.0.0.1:$port/LICENSE" 2>&1 | tr -d '\r' >"$tmp/client"
  curl -sS -o "$tmp/page" --noproxy '*' --max-time 10 "http://127.0.0.1:$port/LICENSE"
  wait "$server"
  pids=${pids% "$server"}
  say server <"$tmp/server"
  sed -n '1,6p' "$tmp/client" | say curl
  if cmp -s LICENSE "$tmp/page" && grep -q '^HTTP/1.1 200 OK' "$tmp/client"; then
    ok "curl has the file, all $(wc -c <"$tmp/page" | tr -d ' ') bytes of it"
  else
    bad 'curl did not get the file'
  fi
fi

# The page that is asked for in steps 7 and 8, and what serves it.
mkdir "$tmp/www"
awk 'BEGIN { for (i = 1; i <= 20000; i++) print "line " i " of a page" }' >"$tmp/www/page.txt"

tls='' why=''
if ! "$LUA" -e 'assert(require("socket").ssl)' 2>/dev/null; then why='the library was built without TLS'
elif ! command -v openssl >/dev/null; then why='openssl is not installed'
elif sh examples/make_certs.sh "$tmp/certs" 2>"$tmp/err" && sh examples/make_certs.sh "$tmp/others" 2>"$tmp/err"; then
  tls=yes
else why="no certificates: $(head -n 1 "$tmp/err")"
fi
certs=$tmp/certs

# A port that is free now. Somebody may take it before the server does: the
# servers that need one are tried three times.
free_port() {
  "$LUA" -e 'print(require("socket").socket():bind{"127.0.0.1", 0}:getsockname().port)' 2>/dev/null
}
answers() {
  "$LUA" -e "require('socket').create_connection({'127.0.0.1', $1}, 1):close()" 2>/dev/null
}
# up port: waits until the server just started answers there
up() {
  tries=0
  while [ "$tries" -lt 60 ] && kill -0 "$server" 2>/dev/null; do
    answers "$1" && return 0
    tries=$((tries + 1))
    sleep 0.05
  done
  return 1
}
# nginx in the foreground, as whoever runs this, with nothing but what is in
# this file and this folder.
start_nginx() {
  port=$(free_port)
  tls_port='' tls_server=''
  if [ -n "$tls" ]; then
    tls_port=$(free_port)
    tls_server="server {
    listen 127.0.0.1:$tls_port ssl;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate $certs/server.pem;
    ssl_certificate_key $certs/server.key;
    root $tmp/www;
  }"
  fi
  cat >"$tmp/nginx.conf" <<CONF
daemon off;
master_process off;
pid $tmp/nginx.pid;
error_log $tmp/nginx.log;
events {}
http {
  access_log off;
  client_body_temp_path $tmp/body;
  proxy_temp_path $tmp/proxy;
  fastcgi_temp_path $tmp/fastcgi;
  uwsgi_temp_path $tmp/uwsgi;
  scgi_temp_path $tmp/scgi;
  types { text/plain txt; }
  server { listen 127.0.0.1:$port; root $tmp/www; }
  $tls_server
}
CONF
  "$nginx" -p "$tmp" -c "$tmp/nginx.conf" -e "$tmp/nginx.log" >/dev/null 2>&1 &
  server=$!
  pids="$pids $server"
  up "$port"
}
# -I, or Python takes the socket.so of this folder for its own.
start_python() {
  python3 -I -u -m http.server 0 --bind 127.0.0.1 --directory "$tmp/www" >"$tmp/server" 2>&1 &
  server=$!
  pids="$pids $server"
  tries=0
  while [ "$tries" -lt 100 ] && kill -0 "$server" 2>/dev/null; do
    port=$(sed -n 's/^Serving HTTP on .* port \([0-9]*\).*/\1/p' "$tmp/server")
    [ -n "$port" ] && return 0
    tries=$((tries + 1))
    sleep 0.05
  done
  return 1
}
start_openssl() {
  tls_port=$(free_port)
  (cd "$tmp/www" && exec openssl s_server -accept "127.0.0.1:$tls_port" -WWW -quiet \
    -cert "$certs/server.pem" -key "$certs/server.key") >"$tmp/openssl" 2>&1 </dev/null &
  server=$!
  pids="$pids $server"
  up "$tls_port"
}
# same_page: is what the client has saved the page?
same_page() {
  if cmp -s "$tmp/www/page.txt" "$tmp/page"; then
    ok "we have the page, all $(wc -c <"$tmp/page" | tr -d ' ') bytes of it"
  else
    bad 'the page is not the one the server has'
  fi
  rm -f "$tmp/page"
}

title '7. Our HTTP client, asking a real web server'
web='' tls_port=''
nginx=$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v nginx || command -v build/nginx)
if [ -n "$nginx" ]; then
  for _ in 1 2 3; do
    if start_nginx; then web=nginx; break; fi
  done
fi
if [ -n "$nginx" ] && [ -z "$web" ]; then
  bad 'nginx could not be started:'
  [ ! -s "$tmp/nginx.log" ] || say nginx <"$tmp/nginx.log"
fi
if [ -z "$web" ] && command -v python3 >/dev/null && start_python; then web="Python's http.server"; fi
if [ -z "$web" ]; then
  skip 'there is neither nginx nor python3'
else
  echo "$web, port $port" | say server
  client http_get "http://127.0.0.1:$port/page.txt" "$tmp/page"
  say client <"$tmp/client"
  same_page
  client http_get "http://127.0.0.1:$port/no-such-page"
  sed -n 2p "$tmp/client" | say client
  expect 'and we hear of the page that is not there' ' 404 ' "$tmp/client"
fi

title '8. The same over HTTPS, from whom we can trust'
if [ -n "$tls" ] && [ "$web" != nginx ]; then
  for _ in 1 2 3; do
    if start_openssl; then break; else tls_port=''; fi
  done
fi
if [ -z "$tls" ]; then
  skip "$why"
elif [ -z "$tls_port" ]; then
  bad 'no HTTPS server could be started'
else
  if [ "$web" = nginx ]; then echo "nginx, port $tls_port"; else echo "openssl s_server, port $tls_port"; fi | say server
  client https_get "https://localhost:$tls_port/page.txt" "$certs/ca.pem" "$tmp/page"
  say client <"$tmp/client"
  same_page
  expect 'we know whose it is' 'subject: organizationName=Examples, commonName=localhost' "$tmp/client"
  if client https_get "https://localhost:$tls_port/page.txt" "" "$tmp/page" || [ -e "$tmp/page" ]; then
    bad 'a server nobody vouches for was believed'
  fi
  say client <"$tmp/client"
  expect 'without our CA it is refused' '(CERTIFICATE_VERIFY_FAILED)' "$tmp/client"
fi
stop

# ask_curl options...: what curl says, in $tmp/client
ask_curl() { curl -sS --noproxy '*' --max-time 10 "$@" >"$tmp/client" 2>&1; }

title '9. Our HTTPS server, asked by curl'
if [ -z "$tls" ]; then
  skip "$why"
elif ! command -v curl >/dev/null; then
  bad 'curl is not installed'
elif serve https_server "$certs/server.pem" "$certs/server.key" 127.0.0.1 0 2; then
  ask_curl --cacert "$tmp/others/ca.pem" "https://localhost:$port/" && bad 'curl believed a server of another CA'
  sed -n 1p "$tmp/client" | say curl
  ask_curl --cacert "$certs/ca.pem" "https://localhost:$port/"
  finish curl
  expect 'curl refuses what another CA signed' 'TLSV1_ALERT_UNKNOWN_CA' "$tmp/server"
  expect 'and is content with what ours did' 'Hello over TLSv1' "$tmp/client"
fi

title '10. Mutual TLS: the server wants to know who comes, too'
if [ -z "$tls" ]; then
  skip "$why"
elif serve mtls_server "$certs/ca.pem" "$certs/server.pem" "$certs/server.key" 127.0.0.1 0 3; then
  ask_curl --cacert "$certs/ca.pem" --cert "$certs/client.pem" --key "$certs/client.key" "https://localhost:$port/"
  say curl <"$tmp/client"
  expect 'curl is known' 'Hello, A client <client@example.test>' "$tmp/client"
  client mtls_client localhost "$port" "$certs/ca.pem" "$certs/client.pem" "$certs/client.key"
  say client <"$tmp/client"
  expect 'our client is known' 'the server says: Hello, A client' "$tmp/client"
  client mtls_client localhost "$port" "$certs/ca.pem" && bad 'a stranger was let in'
  finish
  expect 'who shows no certificate is not let in' 'refused: ' "$tmp/server"
fi

title '11. STARTTLS: a mail, over a connection that begins in the clear'
message='Hello after an upgrade'
if [ -z "$tls" ]; then
  skip "$why"
elif serve starttls_server "$certs/server.pem" "$certs/server.key" 127.0.0.1 0 1; then
  echo "$message" | client starttls_client localhost "$port" "$certs/ca.pem" me@example.test you@example.test
  finish
  expect 'the message arrived under TLS' "you@example.test>: \"$message\"" "$tmp/server"
fi

title '12. An echo server for many, on a selector'
if serve selector_echo 127.0.0.1 0 4; then
  clients=''
  for name in one two three; do
    "$LUA" -e "$bounded" examples/echo_client.lua 127.0.0.1 "$port" "Hello from $name" >"$tmp/$name" 2>&1 &
    clients="$clients $!"
  done
  for pid in $clients; do wait "$pid"; done
  cat "$tmp/one" "$tmp/two" "$tmp/three" | say clients
  if [ "$(cat "$tmp/one" "$tmp/two" "$tmp/three" | grep -c '^received "Hello from ')" -eq 3 ]; then
    ok 'every one got its own bytes back'
  else
    bad 'not everyone got an answer'
  fi

  title '13. A port scan: who listens here?'
  client port_scanner $((port > 65435 ? 65335 : port - 100)) $((port > 65435 ? 65535 : port + 100)) 50
  tail -n 5 "$tmp/client" | say client
  if grep -q "^ *$port " "$tmp/client"; then ok 'the echo server was found'; else bad 'the echo server was not found'; fi
  expect '201 ports were tried' '201 ports in ' "$tmp/client"
  stop
fi

title '14. Services that are found without an address, by multicast'
if serve discovery announce printer 0; then
  client discovery find 0.5
  say client <"$tmp/client"
  expect 'the service was found' "found printer at $address" "$tmp/client"
  expect 'and visited' 'printer says: Hello from printer' "$tmp/client"
  stop
fi

title '15. A game at 60 frames a second downloads a page meanwhile'
client frame_loop
sed -n '1,2p;$p' "$tmp/client" | say game
expect 'all of the page arrived between the frames' '2097152 bytes in ' "$tmp/client"

title '16. A C program with two scripts, their memory, addresses and time in its hands'
game=build/game
if [ ! -x "$game" ]; then
  skip 'the game is not built: make embed-example'
else
  "$game" >"$tmp/client" 2>&1
  status=$?
  say game <"$tmp/client"
  if ! grep -q 'because of networking: 0' "$tmp/client"; then
    echo 'a frame took longer: once more, as the machine may have been busy' | say demo
    "$game" >"$tmp/client" 2>&1
    status=$?
    say game <"$tmp/client"
  fi
  if [ "$status" -eq 0 ]; then ok 'the level arrived, and nothing is left behind'; else bad 'the game was not content'; fi
  expect 'no frame took over 2 ms because of networking' 'over 2 ms because of networking: 0' "$tmp/client"
  expect 'and no script goes where it may not' 'may not phone home: refused by the host' "$tmp/client"
fi

title '17. Our HTTP/1.1 server and 50 busy connections, by wrk'
if ! command -v wrk >/dev/null; then
  skip 'wrk is not installed'
elif serve http11_server 127.0.0.1 0; then
  timeout 30 wrk -t 1 -c 50 -d 1s "http://127.0.0.1:$port/" >"$tmp/client" 2>&1
  grep -E 'requests in|Requests/sec|Socket errors|Non-2xx' "$tmp/client" | sed 's/^ *//' | say wrk
  if grep -q '[1-9][0-9]* requests in' "$tmp/client" && ! grep -qE 'Socket errors|Non-2xx' "$tmp/client"; then
    ok 'every request was answered'
  else
    bad 'wrk was not content:'
    say wrk <"$tmp/client"
  fi
  stop
fi

title '18. When things go wrong'
client errors
status=$?
say lua <"$tmp/client"
if [ "$status" -eq 0 ]; then ok 'every error was the one announced'; else bad 'errors.lua stopped early'; fi
expect 'connection refused' 'Connection refused (ECONNREFUSED)' "$tmp/client"
expect 'a timeout' 'recv: timed out (ETIMEDOUT)' "$tmp/client"

end=$(now)
printf '\n%s%d steps went well, %d failed' "$bold" "$passed" "$failed"
[ "$skipped" -eq 0 ] || printf ', %d skipped' "$skipped"
printf ', in %s seconds.%s\n' "$("$LUA" -e "io.write((($end - $begin) // 100) / 10)")" "$off"
[ "$failed" -eq 0 ]
