// corpus: signal = 8
#include <stdio.h>

int main(int argc, char **argv)
{
    volatile int zero = argc - 1;
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("before");
    return 10 / zero;
}
