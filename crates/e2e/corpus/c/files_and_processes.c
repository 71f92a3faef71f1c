#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    FILE *file = fopen("note.txt", "w+");
    fprintf(file, "%.17g %a %'d\n", 0.1, 1.5, 1234567);
    rewind(file);
    char line[100];
    fputs(fgets(line, sizeof line, file), stdout);
    printf("%s\n", strerror((fopen("missing", "r"), errno)));
    fflush(stdout);
    int ends[2], status;
    if (pipe(ends) != 0)
        return 1;
    if (fork() == 0) {
        dup2(ends[1], 1);
        char *arguments[] = {"main", "again", NULL};
        printf("from the child");
        fflush(stdout);
        execv("/no/such/program", arguments);
        _exit(127);
    }
    close(ends[1]);
    line[read(ends[0], line, sizeof line - 1)] = 0;
    wait(&status);
    printf("<%s> %d\n", line, WEXITSTATUS(status));
    return 0;
}
