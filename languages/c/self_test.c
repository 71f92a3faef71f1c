#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    long total = 0, number;
    while (scanf("%ld", &number) == 1)
        total += number;
    printf("sum of stdin: %ld\n", total);

    printf("args: ");
    for (int i = 1; i < argc; i++)
        printf("%s%s", argv[i], i + 1 < argc ? ", " : "\n");

    FILE *note = fopen("note.txt", "w+");
    if (!note)
        return 1;
    fputs("written by C\n", note);
    rewind(note);
    char line[64] = "";
    if (!fgets(line, sizeof line, note))
        return 2;
    printf("file: %s", line);
    fclose(note);

    fputs("this line is not part of it\n", stderr);
    return 6;
}
