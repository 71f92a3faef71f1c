/* Starts the command, and pumps: processes that copy its streams to and from the virtio-serial ports. */
#include "common.h"

#include <termios.h>

static volatile sig_atomic_t draining;

static void start_draining(int signal_number)
{
    (void)signal_number;
    draining = 1;
}

/* A frame has a 32-bit size and data; size 0 is end of file. */
static void send_frame(int port, const char *data, uint32_t size)
{
    static char frame[4 + CHUNK];
    memcpy(frame, &size, 4);
    memcpy(frame + 4, data, size);
    if (write_all(port, frame, 4 + size) < 0)
        _exit(1);
}

/* Copies FROM to PORT until end of file or, while draining, until FROM is empty. */
static void pump_out(int from, int port, int is_tty)
{
    static char buffer[CHUNK - 4];
    sigset_t none;
    sigemptyset(&none);
    struct sigaction action = {.sa_handler = start_draining};
    sigaction(SIGUSR1, &action, NULL);
    fcntl(from, F_SETFL, fcntl(from, F_GETFL) | O_NONBLOCK);
    for (;;) {
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n > 0) {
            send_frame(port, buffer, n);
            continue;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            break; /* EIO: no process has the terminal open */
        struct pollfd fd = {from, POLLIN, 0};
        /* Data of a terminal is readable only a moment after the write: wait until none comes. */
        struct timespec quiet = {0, is_tty ? 50000000 : 0};
        if (ppoll(&fd, 1, draining ? &quiet : NULL, &none) == 0 && draining)
            break;
    }
    send_frame(port, "", 0);
    _exit(0);
}

static void pump_in(int port, int to, int is_tty)
{
    static char buffer[CHUNK];
    uint32_t size;
    while (read_all(port, &size, 4) == 0 && size <= sizeof buffer) {
        if (size == 0 && is_tty) {
            char end = 4; /* Ctrl-D */
            write_all(to, &end, 1);
        } else if (size == 0) {
            close(to);
            to = -1;
        }
        if (read_all(port, buffer, size) < 0)
            break;
        /* If the command has closed its standard input, read and discard the rest, so that with-kvm never blocks. */
        if (to >= 0 && write_all(to, buffer, size) < 0) {
            close(to);
            to = -1;
        }
    }
    _exit(0);
}

static int open_terminal(int *slave, const struct start *start)
{
    struct winsize size = {.ws_row = start->rows, .ws_col = start->columns};
    int zero = 0, number, master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    char path[32];
    if (master < 0 || ioctl(master, TIOCSPTLCK, &zero) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
        die("/dev/pts/ptmx");
    snprintf(path, sizeof path, "/dev/pts/%d", number);
    *slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave < 0)
        die("%s", path);
    ioctl(master, TIOCSWINSZ, &size);
    return master;
}

static void run(const struct start *start, const int fds[3], int terminal)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    leave_first_processor();
    if (terminal >= 0)
        ioctl(terminal, TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(fds[i], i);
    struct rlimit files = {start->nofile, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &files);
    umask(start->umask);
    if (chdir(start->cwd) < 0) {
        dprintf(2, "with-kvm: %s: %s\n", start->cwd, strerror(errno));
        _exit(126);
    }
    environ = start->environment;
    execvp(start->argv[0], start->argv);
    dprintf(2, "with-kvm: %s: %s\n", start->argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

/* Starts the command and its pumps, and waits until execve. The command leads a process group. */
pid_t start_command(const struct start *start, int *master)
{
    int slave = -1, inner[3], outer[3], starting[2];
    char nothing;
    *master = start->tty ? open_terminal(&slave, start) : -1;
    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (start->tty & 1 << i) {
            inner[i] = slave;
            outer[i] = *master;
        } else {
            if (pipe2(ends, O_CLOEXEC) < 0)
                die("pipe");
            inner[i] = ends[i ? 1 : 0];
            outer[i] = ends[i ? 0 : 1];
        }
    }
    if (pipe2(starting, O_CLOEXEC) < 0)
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        run(start, inner, slave);
    close(starting[1]);
    for (int i = 0; i < 3; i++) {
        int port = open_port(STDIN + i), is_tty = (start->tty & 1 << i) != 0;
        /* Standard output and error on one terminal: the pump of standard output serves both. */
        int shared = i == 2 && is_tty && (start->tty & 2);
        pumps[STDIN + i] = shared ? 0 : fork();
        if (shared || pumps[STDIN + i]) {
            close(port);
            continue;
        }
        /* Close the other streams' ends: an open write end would keep their readers from end of file. */
        for (int j = 0; j < 3; j++) {
            if (inner[j] > 2)
                close(inner[j]);
            if (outer[j] != outer[i])
                close(outer[j]);
        }
        if (i == 0)
            pump_in(port, outer[i], is_tty);
        pump_out(outer[i], port, is_tty);
    }
    for (int i = 0; i < 3; i++) {
        if (inner[i] != slave)
            close(inner[i]);
        if (outer[i] != *master)
            close(outer[i]);
    }
    if (slave >= 0)
        close(slave);
    /* The write end is O_CLOEXEC: execve closes it, or the exit of a child whose execve failed. */
    while (read(starting[0], &nothing, 1) < 0 && errno == EINTR)
        ;
    close(starting[0]);
    return child;
}
