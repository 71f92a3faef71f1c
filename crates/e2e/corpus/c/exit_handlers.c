// exit runs the handlers and flushes; _exit discards buffered output.
// corpus: exit_code = 3
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void first(void) { puts("registered first"); }
static void second(void) { puts("registered second"); }
__attribute__((constructor)) static void before(void) { puts("constructor"); }
__attribute__((destructor)) static void after(void) { puts("destructor"); }

int main(void)
{
    atexit(first);
    atexit(second);
    fflush(stdout);
    if (fork() == 0) {
        printf("lost");
        _exit(44);
    }
    int status;
    wait(&status);
    printf("child: %d\n", WEXITSTATUS(status));
    printf("no newline at the end");
    exit(3);
}
