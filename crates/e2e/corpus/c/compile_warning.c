#include <stdio.h>

int main(void)
{
    int unused = 1;
    printf("%s\n", 5 > 3 ? "runs all the same" : "");
    if (0)
        printf("%d\n", "text");
}
