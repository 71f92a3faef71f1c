/*
 * PID 1 of the emulated host: mounts the root of the machine outside, runs one command in it, and relays the command's
 * streams over virtio-serial ports. The other end is tools/with-kvm; docs/with-kvm.md has the protocol.
 *
 * A static C program and not a script, because a script would be slow under emulation, and streams and exit code must
 * arrive unchanged.
 */
#include "common.h"

#include <stdarg.h>
#include <sys/klog.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>

/* klogctl(2): the log level of the kernel's console. */
enum { SYSLOG_ACTION_CONSOLE_LEVEL = 8, WARNINGS = 5 };

pid_t pumps[5];
static int control = -1;

void die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "emulated host: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, ": %s\n", strerror(errno));
    va_end(list);
    if (getpid() != 1)
        _exit(125);
    sync();
    reboot(RB_POWER_OFF);
    _exit(125);
}

int read_all(int fd, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        done += n;
    }
    return 0;
}

int write_all(int fd, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t some = size - done < CHUNK ? size - done : CHUNK;
        ssize_t n = write(fd, (const char *)data + done, some);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return -1;
        done += n;
    }
    return 0;
}

/* Waits for a port's device without a time limit: with-kvm stops a host that makes no progress. */
int open_port(int number)
{
    char path[32];
    for (;;) {
        /* /dev/vportDpP: D is the index of the virtio device, P the port. */
        for (int device = 0; device < 10; device++) {
            snprintf(path, sizeof path, "/dev/vport%dp%d", device, number);
            int fd = open(path, O_RDWR | O_CLOEXEC);
            if (fd >= 0)
                return fd;
        }
        usleep(1000);
    }
}

/* Prints a step on the console, by which with-kvm detects progress. */
static void report(const char *step)
{
    fprintf(stderr, "emulated host: %s\n", step);
}

/* Sends a message on the control port: kind (1 byte), size (32 bits, little-endian), data. */
static void send_message(char kind, const void *data, uint32_t size)
{
    char message[64];
    message[0] = kind;
    memcpy(message + 1, &size, 4);
    memcpy(message + 5, data, size);
    write_all(control, message, 5 + size);
}

/* --- Start message, control messages and main ----------------------------------------------------- */

static char *next(char **at)
{
    char *field = *at;
    *at += strlen(field) + 1;
    return field;
}

static char **next_list(char **at)
{
    int count = atoi(next(at));
    char **list = calloc(count + 1, sizeof *list);
    for (int i = 0; i < count; i++)
        list[i] = next(at);
    return list;
}

static void receive_start(struct start *start)
{
    char header[5];
    uint32_t size;
    if (read_all(control, header, 5) < 0 || header[0] != 'S')
        die("no start message");
    memcpy(&size, header + 1, 4);
    char *at = malloc(size + 1);
    if (!at || read_all(control, at, size) < 0)
        die("start message");
    at[size] = 0;
    start->time_s = atol(next(&at));
    start->time_ns = atol(next(&at));
    start->tty = atoi(next(&at));
    start->rows = atoi(next(&at));
    start->columns = atoi(next(&at));
    start->nofile = atol(next(&at));
    start->umask = atoi(next(&at));
    start->hostname = next(&at);
    start->modules = next(&at);
    start->cwd = next(&at);
    start->forward = atoi(next(&at));
    start->argv = next_list(&at);
    start->environment = next_list(&at);
}

static void obey(pid_t child, int master)
{
    unsigned char header[5], data[16];
    uint32_t size;
    if (read_all(control, header, 5) < 0)
        return;
    memcpy(&size, header + 1, 4);
    if (size > sizeof data || read_all(control, data, size) < 0)
        return;
    if (header[0] == 'K') {
        /*
         * Signals that a terminal generates go to the process group, others to the command itself. The group
         * does not exist before the command's setsid.
         */
        int to_group = data[0] == SIGINT || data[0] == SIGQUIT;
        if (!to_group || kill(-child, data[0]) < 0)
            kill(child, data[0]);
    } else if (header[0] == 'W' && master >= 0) {
        struct winsize window = {0};
        memcpy(&window, data, 4);
        ioctl(master, TIOCSWINSZ, &window);
    } else if (header[0] == 'P' && data[0] < 3 && pumps[STDIN + data[0]] > 0) {
        /* The reader outside is gone: without the pump the command's next write to this stream gets SIGPIPE. */
        kill(pumps[STDIN + data[0]], SIGKILL);
    }
}

/* Waits for the command and reaps all other processes. Returns its exit code, or 128 + the signal that ended it. */
static int supervise(pid_t child, int master, int signals, int heartbeats)
{
    for (;;) {
        struct pollfd fds[3] = {{signals, POLLIN, 0}, {control, POLLIN, 0}, {heartbeats, POLLIN, 0}};
        struct signalfd_siginfo info;
        int status;
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            die("poll");
        if (fds[0].revents && read(signals, &info, sizeof info) < 0)
            continue;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0;) {
            for (int i = STDIN; i <= STDERR; i++)
                if (pumps[i] == pid && !WIFSTOPPED(status))
                    pumps[i] = 0;
            if (pid != child)
                continue;
            if (WIFSTOPPED(status)) {
                /* No shell could continue it with fg or bg. */
                kill(-child, SIGCONT);
                continue;
            }
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        if (fds[1].revents & POLLIN)
            obey(child, master);
        unsigned char cpu;
        if ((fds[2].revents & POLLIN) && read(heartbeats, &cpu, 1) == 1)
            send_message('B', &cpu, 1);
    }
}

/* Starts the process that serves --port, and returns its id; 0 without --port. */
static pid_t start_forwarding(const struct start *start)
{
    if (!start->forward)
        return 0;
    int port = open_port(FORWARD);
    pid_t forwarder = fork();
    if (forwarder < 0)
        die("fork");
    if (forwarder == 0)
        forward_connections(port);
    close(port);
    return forwarder;
}

int main(void)
{
    struct start start = {0};
    sigset_t child_signal;
    /* Occupies descriptors 0 to 2, so that no later open returns one of them. */
    for (int fd = 0; fd < 3;)
        if ((fd = open("/dev/console", O_RDWR | O_CLOEXEC)) < 0)
            break;
    report("inserting modules");
    insert_modules();
    report("mounting the root");
    mount_root();
    report("saying hello");
    control = open_port(CONTROL);
    send_message('H', "", 0);
    receive_start(&start);
    report("setting the clock, the network and KVM up");
    struct timespec now = {start.time_s, start.time_ns};
    clock_settime(CLOCK_REALTIME, &now);
    sethostname(start.hostname, strlen(start.hostname));
    bind_modules(start.modules);
    bring_network_up();
    hold_kvm_open();
    hold_cgroup();
    open_devices_to_users();

    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, NULL);
    int signals = signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK);
    /* Pumps inherit both: SIGPIPE becomes EPIPE, and SIGUSR1, the drain request, stays pending until they wait. */
    signal(SIGPIPE, SIG_IGN);
    sigset_t drain;
    sigemptyset(&drain);
    sigaddset(&drain, SIGUSR1);
    sigprocmask(SIG_BLOCK, &drain, NULL);

    report("starting the command");
    pid_t forwarder = start_forwarding(&start);
    int heartbeats = start_heartbeats();
    int master;
    pid_t child = start_command(&start, &master);
    klogctl(SYSLOG_ACTION_CONSOLE_LEVEL, NULL, WARNINGS);
    /* After the start of the command: without this message with-kvm starts another host, and a command must not run
     * twice. */
    send_message('R', "", 0);
    uint32_t code = supervise(child, master, signals, heartbeats);
    if (forwarder)
        kill(forwarder, SIGUSR1);
    for (int i = STDOUT; i <= STDERR; i++) {
        if (pumps[i] > 0) {
            kill(pumps[i], SIGUSR1);
            waitpid(pumps[i], NULL, 0);
        }
    }
    sync();
    send_message('X', &code, sizeof code);
    for (;;)
        pause(); /* with-kvm kills QEMU */
}
