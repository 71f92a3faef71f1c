// corpus: args = ["alpha", "two words", "", "é"]
// corpus: env = { GIVEN = "a value", EMPTY = "" }
// corpus: exit_code = 200
#include <stdio.h>
#include <stdlib.h>

extern char **environ;

static int compare(const void *a, const void *b)
{
    extern int strcmp(const char *, const char *);
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        printf("%d <%s>\n", i, argv[i]);
    size_t count = 0;
    while (environ[count])
        count++;
    qsort(environ, count, sizeof *environ, compare);
    for (size_t i = 0; i < count; i++)
        puts(environ[i]);
    return 200;
}
