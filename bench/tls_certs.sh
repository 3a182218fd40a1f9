#!/bin/sh
# tls_certs.sh dir [key]: a root certificate and a server's under it, in the folder `dir`. Keys are RSA of 2048 bits, as most
# servers have; or of the kind named, in the words of openssl req.
set -eu
cd "$1"
key=${2:-rsa:2048}
{
    # shellcheck disable=SC2086 # several words
    openssl req -x509 -newkey $key -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=Test root' \
        -addext 'keyUsage = critical,keyCertSign'
    # shellcheck disable=SC2086
    openssl req -new -newkey $key -nodes -keyout server.key -out server.csr -subj '/CN=localhost'
    printf '%s\n' 'subjectAltName = DNS:localhost' 'keyUsage = critical,digitalSignature' \
        'subjectKeyIdentifier = hash' 'authorityKeyIdentifier = keyid' >server.ext
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile server.ext -out server.pem
} 2>tls_certs.log || { cat tls_certs.log >&2; exit 1; }
