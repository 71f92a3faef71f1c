// Descriptors, limits, mask, session, directory, capabilities.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
    char text[4096];
    printf("%s, next descriptor %d\n", getcwd(text, sizeof text), open("/dev/null", O_RDONLY));
    for (int number = 0; number < 16; number++) {
        struct stat status;
        if (fstat(number, &status) == 0)
            printf("%d %o %d\n", number, status.st_mode & S_IFMT, fcntl(number, F_GETFL) & O_ACCMODE);
    }
    printf("umask %o, %d %d %d %d\n", umask(0), getuid(), getgid(), getpgrp() == getpid(), getsid(0) == getpid());
    for (int number = 0; number < RLIM_NLIMITS; number++) {
        struct rlimit limit;
        getrlimit(number, &limit);
        if (number != RLIMIT_NPROC && number != RLIMIT_SIGPENDING)
            printf("limit %d: %lld %lld\n", number, (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
    FILE *file = fopen("/proc/self/status", "r");
    while (fgets(text, sizeof text, file))
        if (strncmp(text, "Cap", 3) == 0 || strncmp(text, "Sig", 3) == 0 || strncmp(text, "NoNew", 5) == 0)
            if (strncmp(text, "SigQ", 4) != 0)
                fputs(text, stdout);
    DIR *folder = opendir(".");
    int count = 0;
    while (readdir(folder))
        count++;
    printf("%d entries\n", count);
    return 0;
}
