/*
** key_updates.c: a TLS server that asks its client for new keys while it reads nothing, for spec/ssl_tasks_spec.lua. Prints its
** port, then how many bytes came until the end. Arguments: certificate chain and key.
*/
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
  struct sockaddr_in a;
  socklen_t len = sizeof a;
  int listener = socket(AF_INET, SOCK_STREAM, 0), fd, i;
  char buf[16384], go;
  long total = 0;
  size_t got;
  SSL *ssl;
  alarm(20);
  if (argc < 3 || SSL_CTX_use_certificate_chain_file(ctx, argv[1]) != 1 ||
      SSL_CTX_use_PrivateKey_file(ctx, argv[2], SSL_FILETYPE_PEM) != 1)
    return 1;
  memset(&a, 0, sizeof a);
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&a, len) < 0 || listen(listener, 1) < 0 ||
      getsockname(listener, (struct sockaddr *)&a, &len) < 0)
    return 1;
  printf("%d\n", ntohs(a.sin_port));
  fflush(stdout);
  fd = accept(listener, NULL, NULL);
  ssl = SSL_new(ctx);
  SSL_set_fd(ssl, fd);
  if (SSL_accept(ssl) != 1) return 1;
  if (read(STDIN_FILENO, &go, 1) != 1) return 1;
  for (i = 0; i < 3; i++)
    if (SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) != 1 || SSL_write(ssl, "x", 1) != 1) return 1;
  if (read(STDIN_FILENO, &go, 1) != 1) return 1;
  while (SSL_read_ex(ssl, buf, sizeof buf, &got)) total += (long)got;
  printf("%ld\n", total);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  close(fd);
  close(listener);
  return 0;
}
