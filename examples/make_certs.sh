#!/bin/sh
# Makes certificates for the TLS examples: a CA of your own, and what it signs.
#
#   sh examples/make_certs.sh folder
#
# ca.pem      what clients trust; its key is thrown away, so nothing more can be signed
# server.pem, server.key    for localhost, 127.0.0.1 and ::1
# client.pem, client.key    for a client that says who it is
# For tests: they are valid for 30 days, and the keys are not encrypted.
set -eu
umask 077
folder=${1:?usage: sh examples/make_certs.sh folder}
mkdir -p "$folder"
cd "$folder"

# OpenSSL talks a lot; what it says is shown only if it fails.
quietly() { "$@" >openssl.log 2>&1 || { cat openssl.log >&2; exit 1; }; }

# request name "common name": a new key, and the request for a certificate
request() {
  cat >openssl.cnf <<CONF
[req]
distinguished_name = name
prompt = no
[name]
O = Examples
CN = $2
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
${3:-}
CONF
  quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config openssl.cnf \
    -keyout "$1.key" -out "$1.csr"
}
# certify name extensions options...: the certificate asked for
certify() {
  name=$1 extensions=$2
  shift 2
  quietly openssl x509 -req -in "$name.csr" -days 30 -sha256 -extfile openssl.cnf -extensions "$extensions" \
    -out "$name.pem" "$@"
}
leaf() {
  request "$1" "$2" "$3"
  certify "$1" leaf -CA ca.pem -CAkey ca.key -CAcreateserial
}

request ca 'A CA for examples'
certify ca ca -signkey ca.key
leaf server localhost 'extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1,IP:::1'
leaf client 'A client' 'extendedKeyUsage = clientAuth
subjectAltName = email:client@example.test'
rm -f ca.key ./*.csr ./*.srl openssl.cnf openssl.log
