// corpus: signal = 6
#include <assert.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    fputs("before\n", stderr);
    assert(argc == 5 && "five arguments");
    return 0;
}
