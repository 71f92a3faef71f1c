// Buffered output is lost when a program crashes; flushed output is not.
// corpus: signal = 11
#include <stdio.h>

int main(void)
{
    puts("flushed");
    fflush(stdout);
    printf("lost");
    volatile int *nowhere = (int *)8;
    return *nowhere;
}
