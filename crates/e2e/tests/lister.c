/* Prints a line for every entry below a directory: path, mode with type, owner, size, mtime, device, inode, link
 * target and a checksum of the content. As PID 1 of a guest it powers off at the end. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

static unsigned long long sum(const char *path)
{
    /* FNV-1a, 64 bits. */
    unsigned long long hash = 0xcbf29ce484222325ULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        return 0;
    for (int c; (c = getc(file)) != EOF;)
        hash = (hash ^ (unsigned)c) * 0x100000001b3ULL;
    fclose(file);
    return hash;
}

static void show(const char *root, const char *path)
{
    char full[8192], target[4096] = "";
    struct stat st;
    /* For the root of a guest both strings are empty. */
    snprintf(full, sizeof full, "%s%s", root, *root || *path ? path : "/");
    if (lstat(full, &st)) {
        printf("ENTRY %s unreadable\n", path);
        return;
    }
    if (S_ISLNK(st.st_mode)) {
        ssize_t length = readlink(full, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
    }
    printf("ENTRY %s mode=%o owner=%u:%u size=%lld time=%lld device=%u:%u inode=%llu target=%s sum=%llx\n", path,
           st.st_mode, st.st_uid, st.st_gid, S_ISDIR(st.st_mode) ? 0LL : (long long)st.st_size,
           (long long)st.st_mtime, S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? major(st.st_rdev) : 0,
           S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? minor(st.st_rdev) : 0,
           st.st_nlink > 1 && S_ISREG(st.st_mode) ? (unsigned long long)st.st_ino : 0ULL, target,
           S_ISREG(st.st_mode) ? sum(full) : 0ULL);
    if (!S_ISDIR(st.st_mode))
        return;
    DIR *directory = opendir(full);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(target, sizeof target, "%s/%s", path, entry->d_name);
        show(root, target);
    }
    if (directory)
        closedir(directory);
}

int main(int argc, char **argv)
{
    /* The kernel passes parameters that it does not know to PID 1: ignore argv there. */
    const char *root = getpid() == 1 || argc < 2 ? "" : argv[1];
    show(root, "");
    puts("END");
    fflush(stdout);
    if (getpid() == 1) {
        tcdrain(1);
        reboot(RB_POWER_OFF);
    }
    return 0;
}
