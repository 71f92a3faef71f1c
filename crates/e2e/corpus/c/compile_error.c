// corpus: exit_code = 1
#include <stdio.h>

int main(void)
{
    int number = "a text";
    undeclared(1);
    return missing;
}
