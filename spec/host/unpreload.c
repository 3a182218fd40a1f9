/*
** unpreload.c: loaded by LD_PRELOAD beside the sanitizer's library, it takes LD_PRELOAD out of the environment, so
** that only the Lua under test is sanitized and not the shells, curls and Pythons its specs start.
*/
#include <stdlib.h>

__attribute__((constructor)) static void unpreload(void) {
  unsetenv("LD_PRELOAD");
}
