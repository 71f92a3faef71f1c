/*
 * PID 1 of the emulated host: mounts the machine's own root, runs one command in it, and relays its
 * streams over virtio-serial ports. tools/with-kvm is the other end; docs/with-kvm.md has the protocol.
 *
 * A static program rather than a script: what it does must take no time under emulation, and every
 * byte and the exit code must come through as they are.
 */
#include "common.h"

#include <stdarg.h>
#include <sys/klog.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>

/* klogctl(2): which messages the kernel prints on its console. */
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

/* Waits for a port's device without end: with-kvm gives a host up that goes no further. */
int open_port(int number)
{
    char path[32];
    for (;;) {
        /* The first number is the device's place among all virtio devices. */
        for (int device = 0; device < 10; device++) {
            snprintf(path, sizeof path, "/dev/vport%dp%d", device, number);
            int fd = open(path, O_RDWR | O_CLOEXEC);
            if (fd >= 0)
                return fd;
        }
        usleep(1000);
    }
}

/* On the kernel's console, by which with-kvm sees that the host goes on. */
static void report(const char *step)
{
    fprintf(stderr, "emulated host: %s\n", step);
}

/* Messages on the control port: one byte of kind, the size as 32 bits little-endian, the data. */
static void tell(char kind, const void *data, uint32_t size)
{
    char message[64];
    message[0] = kind;
    memcpy(message + 1, &size, 4);
    memcpy(message + 5, data, size);
    write_all(control, message, 5 + size);
}

/* --- The whole -------------------------------------------------------------------------------- */

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
         * What a terminal sends goes to all of the job; anything else to the command itself. There is no group
         * before the command's setsid.
         */
        int to_group = data[0] == SIGINT || data[0] == SIGQUIT;
        if (!to_group || kill(-child, data[0]) < 0)
            kill(child, data[0]);
    } else if (header[0] == 'W' && master >= 0) {
        struct winsize window = {0};
        memcpy(&window, data, 4);
        ioctl(master, TIOCSWINSZ, &window);
    } else if (header[0] == 'P' && data[0] < 3 && pumps[STDIN + data[0]] > 0) {
        /* Nobody reads this stream outside any more: the command's next write there gets SIGPIPE. */
        kill(pumps[STDIN + data[0]], SIGKILL);
    }
}

/* Waits for the command, reaping whatever else ends; returns its exit code as a shell would say it. */
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
                /* There is no shell in here to bring it back. */
                kill(-child, SIGCONT);
                continue;
            }
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        if (fds[1].revents & POLLIN)
            obey(child, master);
        unsigned char cpu;
        if ((fds[2].revents & POLLIN) && read(heartbeats, &cpu, 1) == 1)
            tell('B', &cpu, 1);
    }
}

/* A process that serves --port; with 0 there is none. */
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
    /* Nothing below may get one of the numbers 0 to 2. */
    for (int fd = 0; fd < 3;)
        if ((fd = open("/dev/console", O_RDWR | O_CLOEXEC)) < 0)
            break;
    report("inserting modules");
    insert_modules();
    report("mounting the root");
    mount_root();
    report("saying hello");
    control = open_port(CONTROL);
    tell('H', "", 0);
    receive_start(&start);
    report("setting the clock, the network and KVM up");
    struct timespec now = {start.time_s, start.time_ns};
    clock_settime(CLOCK_REALTIME, &now);
    sethostname(start.hostname, strlen(start.hostname));
    bind_modules(start.modules);
    bring_network_up();
    hold_kvm_open();

    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, NULL);
    int signals = signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK);
    /* Pumps inherit both: a reader that went away is an error to handle, a drain request is kept. */
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
    /* Only now: with-kvm starts another host where this one has not said so, and a command must not run twice. */
    tell('R', "", 0);
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
    tell('X', &code, sizeof code);
    for (;;)
        pause(); /* with-kvm takes the machine away */
}
