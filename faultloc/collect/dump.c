/* Linked into a program under test: what dies by a signal still writes the lines that it ran. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

void __gcov_dump(void);

static void dump(int number) {
  signal(number, SIG_DFL);
  __gcov_dump();
  raise(number);
}

__attribute__((constructor)) static void install(void) {
  static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGXCPU};
  static char room[1 << 16]; /* a stack of its own, for a program that ran out of it */
  stack_t stack;
  struct sigaction action;
  memset(&stack, 0, sizeof stack);
  stack.ss_sp = room;
  stack.ss_size = sizeof room;
  sigaltstack(&stack, 0);
  memset(&action, 0, sizeof action);
  action.sa_handler = dump;
  action.sa_flags = SA_ONSTACK | SA_NODEFER;
  for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
    sigaction(deadly[i], &action, 0);
}
