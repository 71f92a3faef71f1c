/* Declarations shared by the files of the emulated host's PID 1. */
#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Numbers of the virtio-serial ports: the nr= options of machine.py. */
enum { CONTROL = 1, STDIN = 2, STDOUT = 3, STDERR = 4, FORWARD = 5 };
/* One virtio-serial write moves at most 32 KiB (drivers/char/virtio_console.c). */
enum { CHUNK = 32 * 1024 };

/* The start message: the command, and the state of with-kvm that it inherits. */
struct start {
    long time_s, time_ns;
    unsigned tty; /* bit N: descriptor N is a terminal outside */
    unsigned short rows, columns;
    rlim_t nofile;
    mode_t umask;
    char *cwd, *modules, *hostname;
    int forward; /* --port was given */
    char **argv, **environment;
};

/* Process ids of the pumps, which copy the command's streams, by port number; 0 means none. */
extern pid_t pumps[5];

/* init.c */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
int read_all(int fd, void *data, size_t size);
int write_all(int fd, const void *data, size_t size);
int open_port(int number);

/* setup.c */
void insert_modules(void);
void mount_root(void);
void bind_modules(const char *modules);
void bring_network_up(void);
void hold_kvm_open(void);
void open_devices_to_users(void);
void hold_cgroup(void);
void leave_first_processor(void);
int start_heartbeats(void);

/* streams.c */
pid_t start_command(const struct start *start, int *master);

/* forward.c */
void forward_connections(int port) __attribute__((noreturn));

#endif
