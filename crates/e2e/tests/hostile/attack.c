/*
 * The first program of a hostile guest. It attacks the devices of the VM below the guest kernel's drivers, as a
 * compromised guest kernel would: it maps their windows through /dev/mem and builds virtqueues in pages whose physical
 * addresses it reads from /proc/self/pagemap. It needs a kernel with CONFIG_DEVMEM whose virtio drivers are not loaded.
 *
 * It prints one line `attack NAME DEVICE: done` after each attack that the device survived, and ends the VM in the way
 * that `attack=` on the kernel's command line names: `devices` powers off.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ul
/* The first window of the virtio-mmio devices, and how many there can be. */
#define WINDOWS 0xd0000000ul
#define DEVICES 4
#define MAGIC 0x74726976u
#define SIZE 256

/* Registers of virtio-mmio, specification section 4.2.2. */
enum {
    DEVICE_ID = 0x08, FEATURES = 0x10, FEATURES_SEL = 0x14, DRIVER = 0x20, DRIVER_SEL = 0x24,
    QUEUE_SEL = 0x30, QUEUE_NUM = 0x38, QUEUE_READY = 0x44, NOTIFY = 0x50, ACK = 0x64, STATUS = 0x70,
    DESC = 0x80, AVAIL = 0x90, USED = 0xa0,
};
enum { F_NEXT = 1, F_WRITE = 2, F_INDIRECT = 4 };

struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
struct page { void *memory; uint64_t physical; };

static volatile uint8_t *window;
static struct page table, avail, used, data, indirect;
static int device_id;

static void die(const char *what)
{
    printf("attack failed: %s: %s\n", what, strerror(errno));
    reboot(RB_POWER_OFF);
}

static uint32_t get(unsigned at) { return *(volatile uint32_t *)(window + at); }
static void set(unsigned at, uint32_t value) { *(volatile uint32_t *)(window + at) = value; }
static void set64(unsigned at, uint64_t value) { set(at, value), set(at + 4, value >> 32); }

static struct page new_page(void)
{
    struct page page;
    page.memory = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);
    if (page.memory == MAP_FAILED)
        die("mmap");
    memset(page.memory, 0, PAGE);
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    uint64_t entry = 0;
    if (pread(pagemap, &entry, 8, (uintptr_t)page.memory / PAGE * 8) != 8 || !(entry << 9))
        die("pagemap");
    close(pagemap);
    page.physical = (entry & ((1ull << 55) - 1)) * PAGE;
    return page;
}

static struct descriptor *descriptors(void) { return table.memory; }

static void describe(int at, uint64_t address, uint32_t length, int flags, int next)
{
    descriptors()[at] = (struct descriptor){address, length, flags, next};
}

static void publish(int head, int count)
{
    volatile uint16_t *ring = avail.memory;
    for (int i = 0; i < count; i++)
        ring[2 + (uint16_t)(ring[1] + i) % SIZE] = head;
    __sync_synchronize();
    ring[1] += count;
    __sync_synchronize();
}

static void reset(void)
{
    set(STATUS, 0);
    while (get(STATUS))
        ;
    struct page *pages[] = {&table, &avail, &used, &data, &indirect};
    for (int i = 0; i < 5; i++)
        memset(pages[i]->memory, 0, PAGE);
}

static void negotiate(void)
{
    reset();
    set(STATUS, 1), set(STATUS, 3);
    for (int half = 0; half < 2; half++) {
        set(FEATURES_SEL, half), set(DRIVER_SEL, half);
        set(DRIVER, get(FEATURES));
    }
    set(STATUS, 11);
}

static void queue(int index, int size, uint64_t desc, uint64_t driver, uint64_t device)
{
    set(QUEUE_SEL, index), set(QUEUE_NUM, size);
    set64(DESC, desc), set64(AVAIL, driver), set64(USED, device);
    set(QUEUE_READY, 1);
}

/* All queues of a started device share the same rings: what one of them does, all do. */
static void start(void)
{
    negotiate();
    for (int i = 0; i < 3; i++)
        queue(i, SIZE, table.physical, avail.physical, used.physical);
    set(STATUS, 15);
}

static void notify(void)
{
    for (int i = 0; i < 3; i++)
        set(NOTIFY, i);
    usleep(2000);
}

static void loops(void)
{
    start();
    for (int i = 0; i < SIZE; i++)
        describe(i, data.physical, 64, F_NEXT | (i & 1 ? F_WRITE : 0), (i + 1) % SIZE);
    publish(0, 1), notify();
}

static void next_out_of_range(void)
{
    start();
    describe(0, data.physical, 64, F_NEXT, 65535);
    publish(0, 1), notify();
}

static void head_out_of_range(void)
{
    start();
    publish(65535, SIZE), notify();
}

static void outside_of_memory(void)
{
    static const uint64_t addresses[] = {0xc0000000, 0xd0000000, 0xfee00000, 1ull << 40, 1ull << 63, ~0ull};
    for (unsigned i = 0; i < sizeof addresses / 8; i++)
        for (int flags = 0; flags < 3; flags += 2) {
            start();
            describe(0, addresses[i], 64, flags, 0);
            publish(0, 1), notify();
        }
}

static void wrapping_length(void)
{
    for (int flags = 0; flags < 3; flags += 2) {
        start();
        describe(0, ~0ull - 16, 0xffffffff, flags, 0);
        describe(1, data.physical, 0xffffffff, flags, 0);
        publish(0, 1), publish(1, 1), notify();
    }
}

static void indirect_tables(void)
{
    struct descriptor *inner = indirect.memory;
    static const uint32_t lengths[] = {0, 1, 15, 17, 4096, 0xfffffff0};
    for (unsigned i = 0; i < sizeof lengths / 4; i++) {
        start();
        for (int j = 0; j < SIZE; j++)
            inner[j] = (struct descriptor){data.physical, 16, F_NEXT | F_INDIRECT, (j + 1) % SIZE};
        describe(0, indirect.physical + (i & 1), lengths[i], F_INDIRECT | (i & 2 ? F_NEXT : 0), 1);
        publish(0, 1), notify();
    }
}

static void indirect_at_itself(void)
{
    start();
    describe(0, table.physical, 4096, F_INDIRECT, 0);
    publish(0, SIZE), notify();
}

static void index_jumps(void)
{
    for (int jump = 1; jump < 65536; jump = jump * 3 + 1) {
        start();
        describe(0, data.physical, 64, F_WRITE, 0);
        ((volatile uint16_t *)avail.memory)[1] = jump;
        notify();
    }
}

static void rings_outside_of_memory(void)
{
    static const uint64_t addresses[] = {0, 1, 0xc0000000, 0xd0000000, 0xfffffffffffff000, 1ull << 50};
    for (unsigned i = 0; i < sizeof addresses / 8; i++) {
        negotiate();
        for (int q = 0; q < 3; q++)
            queue(q, SIZE, addresses[i], addresses[(i + 1) % 6], addresses[(i + 2) % 6]);
        set(STATUS, 15);
        notify();
    }
}

static void rings_on_each_other(void)
{
    negotiate();
    for (int q = 0; q < 3; q++)
        queue(q, SIZE, table.physical, table.physical, table.physical);
    set(STATUS, 15);
    for (int i = 0; i < SIZE; i++)
        describe(i, table.physical, 4096, F_WRITE, 0);
    notify();
}

static void queue_sizes(void)
{
    static const int sizes[] = {0, 1, 3, 255, 257, 32768, 65535, -1};
    for (unsigned i = 0; i < sizeof sizes / 4; i++) {
        negotiate();
        for (int q = 0; q < 3; q++)
            queue(q, sizes[i], table.physical, avail.physical, used.physical);
        set(STATUS, 15);
        publish(0, 1), notify();
    }
}

static void changes_while_running(void)
{
    start();
    describe(0, data.physical, 64, F_WRITE, 0);
    publish(0, 16), notify();
    for (int q = 0; q < 3; q++) {
        queue(q, SIZE / 2, 0xd0000000, data.physical, ~0ull);
        set(QUEUE_READY, 0);
    }
    set(DRIVER, 0), publish(0, 16), notify();
}

static void no_negotiation(void)
{
    reset();
    set(STATUS, 4), notify();
    set(STATUS, 0xff), notify();
    for (int q = 0; q < 3; q++)
        queue(q, SIZE, table.physical, avail.physical, used.physical);
    publish(0, SIZE), notify();
}

static void every_register(void)
{
    srandom(1);
    for (int round = 0; round < 4; round++) {
        start();
        for (unsigned at = 0; at < PAGE; at += 4)
            set(at, random() * 3), (void)get(at);
    }
}

static void odd_widths(void)
{
    start();
    for (unsigned at = 0; at < 0x140; at++) {
        window[at] = 0xff, (void)window[at];
        if (at % 2 == 0)
            *(volatile uint16_t *)(window + at) = 0xffff;
        if (at % 8 == 0)
            *(volatile uint64_t *)(window + at) = ~0ull;
    }
}

static void notification_flood(void)
{
    start();
    for (int i = 0; i < 5000; i++)
        set(NOTIFY, i % 3);
    set(NOTIFY, 3), set(NOTIFY, 0xffff), set(NOTIFY, 0xffffffff);
}

static void useless_buffers(void)
{
    struct descriptor *inner = indirect.memory;
    start();
    for (int j = 0; j < SIZE; j++)
        inner[j] = (struct descriptor){data.physical, j % 2 ? 16 : 0, j < SIZE - 1 ? F_NEXT : 0, j + 1};
    describe(0, indirect.physical, 4096, F_INDIRECT, 0);
    for (int round = 0; round < 50; round++)
        publish(0, SIZE), notify();
}

static volatile int racing;

static void *race(void *unused)
{
    for (unsigned i = 0; racing; i++)
        describe(0, i & 1 ? data.physical : ~0ull - i, i * 0x10001, i, i);
    return unused;
}

static void descriptors_change_under_the_device(void)
{
    pthread_t thread;
    racing = 1;
    if (pthread_create(&thread, 0, race, 0))
        die("pthread_create");
    for (int round = 0; round < 50; round++) {
        start();
        publish(0, 8), notify();
    }
    racing = 0;
    pthread_join(thread, 0);
}

static void resets_in_the_middle(void)
{
    for (int round = 0; round < 200; round++) {
        start();
        describe(0, data.physical, 4096, round & 1 ? F_WRITE : 0, 0);
        publish(0, SIZE);
        set(NOTIFY, round % 3);
    }
}

static const struct { const char *name; void (*run)(void); } attacks[] = {
#define ATTACK(name) {#name, name}
    ATTACK(loops), ATTACK(next_out_of_range), ATTACK(head_out_of_range), ATTACK(outside_of_memory),
    ATTACK(wrapping_length), ATTACK(indirect_tables), ATTACK(indirect_at_itself), ATTACK(index_jumps),
    ATTACK(rings_outside_of_memory), ATTACK(rings_on_each_other), ATTACK(queue_sizes),
    ATTACK(changes_while_running), ATTACK(no_negotiation), ATTACK(every_register), ATTACK(odd_widths),
    ATTACK(notification_flood), ATTACK(useless_buffers), ATTACK(descriptors_change_under_the_device),
    ATTACK(resets_in_the_middle),
};

static void attack_devices(int memory)
{
    table = new_page(), avail = new_page(), used = new_page(), data = new_page(), indirect = new_page();
    for (int i = 0; i < DEVICES; i++) {
        window = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, WINDOWS + i * PAGE);
        if (window == MAP_FAILED)
            die("mmap of a device");
        if (get(0) != MAGIC || !(device_id = get(DEVICE_ID)))
            continue;
        for (unsigned j = 0; j < sizeof attacks / sizeof *attacks; j++) {
            attacks[j].run();
            reset();
            if (get(0) != MAGIC)
                die(attacks[j].name);
            printf("attack %s %d: done\n", attacks[j].name, device_id);
        }
    }
}

/* The timer and interrupt controllers are the guest's own, the others end the VM or print: each has a test of its own. */
static int spared(unsigned port)
{
    return (port >= 0x20 && port <= 0x21) || (port >= 0x40 && port <= 0x43) || port == 0x61 || port == 0x64
        || (port >= 0xa0 && port <= 0xa1) || (port >= 0x3f8 && port <= 0x3ff) || (port >= 0x4d0 && port <= 0x4d1)
        || port == 0x505 || (port >= 0x600 && port <= 0x607) || port == 0xcf9;
}

static void attack_ports(void)
{
    if (iopl(3))
        die("iopl");
    for (unsigned port = 0; port < 65536; port += port < 0x700 ? 1 : 61)
        if (!spared(port) && !spared(port + 1) && !spared(port + 3)) {
            outb(0xff, port), outw(0xffff, port), outl(0xffffffff, port);
            (void)inb(port), (void)inl(port);
        }
    printf("attack ports 0: done\n");
}

static void attack_gap(int memory)
{
    for (uint64_t at = 0xc0000000; at < 0xfec00000; at += 0x00c01000) {
        if (at >= WINDOWS && at < WINDOWS + DEVICES * PAGE)
            continue;
        volatile uint64_t *hole = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, at);
        if (hole == MAP_FAILED)
            continue;
        hole[0] = ~0ull, (void)hole[1];
        munmap((void *)hole, PAGE);
    }
    printf("attack unmapped_addresses 0: done\n");
}

/* Replaces the running kernel by `code`, which starts with paging on and no interrupt table of its own. */
static void execute_below_the_kernel(const void *code, size_t length)
{
    struct kexec_segment segment = {code, length, (void *)0x1000000, PAGE};
    if (syscall(SYS_kexec_load, 0x1000000, 1, &segment, KEXEC_ARCH_DEFAULT))
        die("kexec_load");
    reboot(RB_KEXEC);
    die("kexec");
}

int main(void)
{
    mkdir("/dev", 0755), mkdir("/proc", 0755);
    mount("dev", "/dev", "devtmpfs", 0, 0), mount("proc", "/proc", "proc", 0, 0);
    int console = open("/dev/console", O_RDWR);
    dup2(console, 0), dup2(console, 1), dup2(console, 2);
    setvbuf(stdout, 0, _IOLBF, 0);
    char line[4096] = "";
    FILE *file = fopen("/proc/cmdline", "r");
    if (!file || !fgets(line, sizeof line, file) || !strstr(line, "attack="))
        die("/proc/cmdline");
    const char *attack = strstr(line, "attack=") + 7;
    if (!strncmp(attack, "devices", 7)) {
        int memory = open("/dev/mem", O_RDWR | O_SYNC);
        if (memory < 0)
            die("/dev/mem");
        attack_gap(memory);
        attack_devices(memory);
        attack_ports();
    } else if (!strncmp(attack, "triple-fault", 12)) {
        /* mov $0x3f8, %dx; mov $'K', %al; out %al, (%dx); lidt of zeros; ud2 */
        static const uint8_t code[] = {0x66, 0xba, 0xf8, 0x03, 0xb0, 'K', 0xee, 0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b};
        execute_below_the_kernel(code, sizeof code);
    } else if (!strncmp(attack, "spin", 4)) {
        /* mov $0x3f8, %dx; mov $'K', %al; out %al, (%dx); cli; jmp . */
        static const uint8_t code[] = {0x66, 0xba, 0xf8, 0x03, 0xb0, 'K', 0xee, 0xfa, 0xeb, 0xfe};
        execute_below_the_kernel(code, sizeof code);
    } else if (!strncmp(attack, "serial", 6)) {
        if (iopl(3))
            die("iopl");
        for (int i = 0; i < 200000; i++)
            outb('x', 0x3f8);
    } else {
        die("unknown attack");
    }
    reboot(RB_POWER_OFF);
    return 1;
}
