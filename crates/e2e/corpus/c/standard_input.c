// corpus: stdin = { base64 = "AAEC//4KgAANCmxpbmUKbm8gZW5k" }
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    unsigned char start[3];
    printf("%zd\n", read(0, start, 3));
    int byte, count = 0;
    while ((byte = getchar()) != EOF) {
        printf("%02x ", byte);
        count++;
    }
    printf("\n%d %d %d %d\n", count, feof(stdin) != 0, ferror(stdin), isatty(0));
    return 0;
}
