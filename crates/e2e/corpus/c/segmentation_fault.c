// What is in a buffer when a program crashes is lost, what was flushed is not.
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
