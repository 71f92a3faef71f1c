/*
 * PID 1 of the emulated host: mounts the machine's own root, runs one command in it, and relays its
 * streams over virtio-serial ports. tools/with-kvm is the other end; docs/with-kvm.md has the protocol.
 *
 * A static program rather than a script: what it does must take no time under emulation, and every
 * byte and the exit code must come through as they are.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Ports, numbered as with-kvm's nr= options. */
enum { CONTROL = 1, STDIN = 2, STDOUT = 3, STDERR = 4 };
/* One virtio-serial write moves at most 32 KiB (drivers/char/virtio_console.c). */
enum { CHUNK = 32 * 1024 };
/* Where connections from outside arrive; the command itself may listen on any other port. */
enum { FIRST_FORWARD_PORT = 61000 };

struct start {
    long time_s, time_ns;
    unsigned tty; /* bit N: descriptor N is a terminal outside */
    unsigned short rows, columns;
    rlim_t nofile;
    mode_t umask;
    char *cwd, *modules, *hostname;
    int forwards, *ports;
    char **argv, **environment;
};

static pid_t pumps[5];
static int control = -1;

static void die(const char *format, ...)
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

static int read_all(int fd, void *data, size_t size)
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

static int write_all(int fd, const void *data, size_t size)
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

static int open_port(int number)
{
    char path[32];
    for (int tries = 0; tries < 5000; tries++) {
        /* The first number is the device's place among all virtio devices. */
        for (int device = 0; device < 10; device++) {
            snprintf(path, sizeof path, "/dev/vport%dp%d", device, number);
            int fd = open(path, O_RDWR | O_CLOEXEC);
            if (fd >= 0)
                return fd;
        }
        usleep(1000);
    }
    die("port %d", number);
    return -1;
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

/* --- Setting the machine up ------------------------------------------------------------------ */

static void insert_modules(void)
{
    char name[128], path[160];
    FILE *list = fopen("/modules/modules.list", "re");
    if (!list)
        die("/modules/modules.list");
    while (fgets(name, sizeof name, list)) {
        name[strcspn(name, "\n")] = 0;
        snprintf(path, sizeof path, "/modules/%s", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            die("cannot insert %s", name);
        close(fd);
    }
    fclose(list);
}

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags,
                     const char *options)
{
    if (mount(source, target, type, flags, options) < 0)
        die("mount %s on %s", type ? type : source, target);
}

static void mount_root(void)
{
    mkdir("/root", 0755);
    mount_at("root", "/root", "virtiofs", 0, NULL);
    mount_at("devtmpfs", "/root/dev", "devtmpfs", MS_NOSUID, "mode=755");
    mount_at("proc", "/root/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "/root/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("cgroup2", "/root/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    /* KVM's counters of each VM are there. */
    mount("debugfs", "/root/sys/kernel/debug", "debugfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("tmpfs", "/root/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
    if (chdir("/root") < 0)
        die("/root");
    mount_at(".", "/", NULL, MS_MOVE, NULL);
    if (chroot(".") < 0 || chdir("/") < 0)
        die("chroot");
    mkdir("/dev/pts", 0755);
    mkdir("/dev/shm", 0755);
    mkdir("/dev/mqueue", 0755);
    mkdir("/dev/net", 0755);
    mkdir("/run/lock", 01777);
    mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    mount_at("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=75%");
    mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    /* The driver is a module: opening this node loads it. */
    mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200));
    if (symlink("/proc/self/fd", "/dev/fd") < 0 || symlink("fd/0", "/dev/stdin") < 0 ||
        symlink("fd/1", "/dev/stdout") < 0 || symlink("fd/2", "/dev/stderr") < 0)
        die("/dev/fd");
}

/* The kernel loads modules through modprobe, which looks in /lib/modules and nowhere else. */
static void bind_modules(const char *modules)
{
    mkdir("/usr/lib/modules", 0755);
    if (mount(modules, "/lib/modules", NULL, MS_BIND, NULL) < 0)
        fprintf(stderr, "emulated host: no modules: %s: %s\n", modules, strerror(errno));
}

static void set_address(int sock, const char *name, const char *address, const char *mask)
{
    struct ifreq request = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
    strcpy(request.ifr_name, name);
    if (address) {
        in->sin_family = AF_INET;
        inet_pton(AF_INET, address, &in->sin_addr);
        if (ioctl(sock, SIOCSIFADDR, &request) < 0)
            die("address of %s", name);
        inet_pton(AF_INET, mask, &in->sin_addr);
        ioctl(sock, SIOCSIFNETMASK, &request);
    }
    if (ioctl(sock, SIOCGIFFLAGS, &request) < 0)
        die("%s", name);
    request.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(sock, SIOCSIFFLAGS, &request) < 0)
        die("%s up", name);
}

/* QEMU's user network: the machine outside is 10.0.2.2, this one 10.0.2.15. */
static void bring_network_up(void)
{
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        die("socket");
    set_address(sock, "lo", NULL, NULL);
    set_address(sock, "eth0", "10.0.2.15", "255.255.255.0");
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct sockaddr_in any = {.sin_family = AF_INET}, gateway = any;
    inet_pton(AF_INET, "10.0.2.2", &gateway.sin_addr);
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &gateway, sizeof gateway);
    ioctl(sock, SIOCADDRT, &route);
    close(sock);
}

/* A VM with one vCPU that never runs, open for as long as this process lives. */
static void hold_vm_open(int kvm, int with_irqchip)
{
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        die("/dev/kvm");
    fcntl(vm, F_SETFD, FD_CLOEXEC);
    if (with_irqchip)
        ioctl(vm, KVM_CREATE_IRQCHIP, 0);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu >= 0)
        fcntl(vcpu, F_SETFD, FD_CLOEXEC);
}

/*
 * Emulated processors now and then run code that another one has just patched (an int3 oops), and KVM patches
 * its own whenever the first VM of a kind comes or the last goes: virtualization on and off, vCPUs
 * without a local APIC, and, at each boot, vCPUs whose APIC is off (arch/x86/kvm/lapic.c,
 * apic_sw_disabled). Idle VMs of both kinds keep it from that.
 */
static void hold_kvm_open(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        die("/dev/kvm");
    hold_vm_open(kvm, 0);
    hold_vm_open(kvm, 1);
}

/* --- Forwarded ports ------------------------------------------------------------------------- */

static void copy_both_ways(int a, int b)
{
    static char buffer[65536];
    struct pollfd fds[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    int open_ends = 2;
    while (open_ends) {
        if (poll(fds, 2, -1) < 0)
            return;
        for (int i = 0; i < 2; i++) {
            if (fds[i].fd < 0 || !fds[i].revents)
                continue;
            int from = i ? b : a, to = i ? a : b;
            ssize_t n = read(from, buffer, sizeof buffer);
            if (n > 0 && write_all(to, buffer, n) == 0)
                continue;
            shutdown(to, SHUT_WR);
            fds[i].fd = -1;
            open_ends--;
        }
    }
}

/* The user network reaches only eth0; programs listen on loopback, as they would outside. */
static void forward(int listen_port, int target_port)
{
    int one = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(listen_port)};
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    inet_pton(AF_INET, "10.0.2.15", &address.sin_addr);
    if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 128) < 0)
        die("port %d", listen_port);
    if (fork())
        return;
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    address.sin_port = htons(target_port);
    for (;;) {
        int client = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0 && fork() == 0) {
            int target = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (connect(target, (struct sockaddr *)&address, sizeof address) == 0)
                copy_both_ways(client, target);
            _exit(0);
        }
        close(client);
    }
}

/* --- The command's streams ------------------------------------------------------------------- */

static volatile sig_atomic_t draining;

static void start_draining(int signal_number)
{
    (void)signal_number;
    draining = 1;
}

/* Frames of a 32-bit size and data; size 0 is the end. */
static void send_frame(int port, const char *data, uint32_t size)
{
    static char frame[4 + CHUNK];
    memcpy(frame, &size, 4);
    memcpy(frame + 4, data, size);
    if (write_all(port, frame, 4 + size) < 0)
        _exit(1);
}

/* Sends what FROM gives until it ends or, once draining, is empty. */
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
            break; /* EIO: nobody has the terminal open any more */
        struct pollfd fd = {from, POLLIN, 0};
        /* A terminal's data arrives a moment after it was written: wait for quiet. */
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
        /* After the command closed its end the rest is read and dropped, so that nobody waits. */
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

/*
 * Keeps this process, and all that it starts, off processor 0, on which the emulator does not run VMs reliably:
 * machine.py, KERNEL_CPUS, says why.
 */
static void leave_first_processor(void)
{
    cpu_set_t others;
    CPU_ZERO(&others);
    for (long cpu = 1; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++)
        CPU_SET(cpu, &others);
    if (sched_setaffinity(0, sizeof others, &others) < 0)
        die("processors");
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

/* Starts the command and its pumps; the command's process group has its own number. */
static pid_t start_command(const struct start *start, int *master)
{
    int slave = -1, inner[3], outer[3];
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
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        run(start, inner, slave);
    for (int i = 0; i < 3; i++) {
        int port = open_port(STDIN + i), is_tty = (start->tty & 1 << i) != 0;
        /* Two descriptors of one terminal: the first one's pump serves both. */
        int shared = i == 2 && is_tty && (start->tty & 2);
        pumps[STDIN + i] = shared ? 0 : fork();
        if (shared || pumps[STDIN + i]) {
            close(port);
            continue;
        }
        /* Another's end left open here would keep its reader from ever seeing the end. */
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
    return child;
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
    char **ports = next_list(&at);
    for (start->forwards = 0; ports[start->forwards]; start->forwards++)
        ;
    start->ports = calloc(start->forwards + 1, sizeof *start->ports);
    for (int i = 0; i < start->forwards; i++)
        start->ports[i] = atoi(ports[i]);
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
        /* What a terminal sends goes to all of the job; anything else to the command itself. */
        int to_group = data[0] == SIGINT || data[0] == SIGQUIT;
        kill(to_group ? -child : child, data[0]);
    } else if (header[0] == 'W' && master >= 0) {
        struct winsize window = {0};
        memcpy(&window, data, 4);
        ioctl(master, TIOCSWINSZ, &window);
    } else if (header[0] == 'P' && data[0] < 3 && pumps[STDIN + data[0]] > 0) {
        /* Nobody reads this stream outside any more: the command's next write there gets SIGPIPE. */
        kill(pumps[STDIN + data[0]], SIGKILL);
    }
}

/*
 * A process on each processor says every second that its timers work: one whose timer interrupt is lost
 * looks idle, and whatever sleeps on it sleeps for ever. Returns where they write their processor's number.
 */
static int start_heartbeats(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        die("heartbeats");
    for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
        if (fork())
            continue;
        unsigned char number = cpu;
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(cpu, &only);
        if (sched_setaffinity(0, sizeof only, &only) < 0)
            die("heartbeat");
        while (write(ends[1], &number, 1) == 1)
            sleep(1);
        _exit(0);
    }
    close(ends[1]);
    return ends[0];
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

int main(void)
{
    struct start start = {0};
    sigset_t child_signal;
    /* Nothing below may get one of the numbers 0 to 2. */
    for (int fd = 0; fd < 3;)
        if ((fd = open("/dev/console", O_RDWR | O_CLOEXEC)) < 0)
            break;
    insert_modules();
    mount_root();
    control = open_port(CONTROL);
    tell('H', "", 0);
    receive_start(&start);
    struct timespec now = {start.time_s, start.time_ns};
    clock_settime(CLOCK_REALTIME, &now);
    sethostname(start.hostname, strlen(start.hostname));
    bind_modules(start.modules);
    bring_network_up();
    hold_kvm_open();
    for (int i = 0; i < start.forwards; i++)
        forward(FIRST_FORWARD_PORT + i, start.ports[i]);

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

    int heartbeats = start_heartbeats();
    int master;
    pid_t child = start_command(&start, &master);
    tell('R', "", 0);
    uint32_t code = supervise(child, master, signals, heartbeats);
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
