#!/bin/sh
# tls_certs.sh: a root certificate and a server's under it, in the folder named: RSA of 2048 bits, as most servers have.
set -eu
cd "$1"
{
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=Bench root' \
        -addext 'keyUsage = critical,keyCertSign'
    openssl req -new -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj '/CN=localhost'
    printf '%s\n' 'subjectAltName = DNS:localhost' 'keyUsage = critical,digitalSignature,keyEncipherment' \
        'subjectKeyIdentifier = hash' 'authorityKeyIdentifier = keyid' >server.ext
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile server.ext -out server.pem
} 2>tls_certs.log || { cat tls_certs.log >&2; exit 1; }
