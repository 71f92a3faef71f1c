/* Sets the booted kernel up as a host: modules, root file system, network, KVM, CPU affinity, heartbeats. */
#include "common.h"

#include <arpa/inet.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <net/route.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

void insert_modules(void)
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

void mount_root(void)
{
    mkdir("/root", 0755);
    mount_at("root", "/root", "virtiofs", 0, NULL);
    mount_at("devtmpfs", "/root/dev", "devtmpfs", MS_NOSUID, "mode=755");
    mount_at("proc", "/root/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "/root/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("cgroup2", "/root/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    /* For KVM's counters of each VM. */
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

/* The kernel loads modules through modprobe(8), which searches only /lib/modules. */
void bind_modules(const char *modules)
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

/* QEMU's user network: the gateway to the machine outside is 10.0.2.2, this host is 10.0.2.15. */
void bring_network_up(void)
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

/* Gives the devices the modes that udev gives them on an ordinary host (systemd's 50-udev-default.rules). */
void open_devices_to_users(void)
{
    const char *devices[] = {"/dev/kvm", "/dev/net/tun"};
    for (int i = 0; i < 2; i++)
        if (chmod(devices[i], 0666) && errno != ENOENT)
            die(devices[i]);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    /* A kernel without the controller refuses it, and patches nothing for it. */
    ssize_t written = write(fd, text, strlen(text));
    (void)written;
    close(fd);
}

/*
 * The first cgroup with limits patches the kernel's code too (memcg_kmem_online, memcg_sockets_enabled,
 * cfs_bandwidth_used), and the last one may again: see hold_kvm_open. This one stays.
 */
void hold_cgroup(void)
{
    const char *controllers[] = {"+memory", "+pids", "+cpu"};
    for (int i = 0; i < 3; i++)
        write_text("/sys/fs/cgroup/cgroup.subtree_control", controllers[i]);
    mkdir("/sys/fs/cgroup/emulated-host", 0755);
    write_text("/sys/fs/cgroup/emulated-host/memory.max", "16777216");
    write_text("/sys/fs/cgroup/emulated-host/cpu.max", "100000 100000");
}

/* Creates a VM with one vCPU that never runs, and leaves it open until this process ends. */
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
 * Under TCG a CPU sometimes executes an instruction while another CPU patches it, which is an int3 oops. KVM patches
 * its code (static keys) when the first VM of a kind is created and when the last one ends: virtualization on and off,
 * vCPUs without a local APIC, and, at each boot, vCPUs whose APIC is disabled (arch/x86/kvm/lapic.c,
 * apic_sw_disabled). An idle VM of both kinds prevents that.
 */
void hold_kvm_open(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        die("/dev/kvm");
    hold_vm_open(kvm, 0);
    hold_vm_open(kvm, 1);
}

/*
 * Excludes CPU 0 from the affinity of this process and its children, because QEMU does not run VMs on it reliably
 * (KERNEL_CPUS in machine.py).
 */
void leave_first_processor(void)
{
    cpu_set_t others;
    CPU_ZERO(&others);
    for (long cpu = 1; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++)
        CPU_SET(cpu, &others);
    if (sched_setaffinity(0, sizeof others, &others) < 0)
        die("processors");
}

/*
 * Starts a process on each CPU that writes the CPU's number every second. A CPU that has lost its timer interrupt looks
 * idle, and processes that sleep on it never wake up. Returns the read end of the pipe.
 */
int start_heartbeats(void)
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
