/*
 * Connections of --port: forward.py accepts them outside, and this connects each to the command's port on loopback.
 * All travel over one virtio-serial port, in frames; docs/with-kvm.md lists them.
 */
#include "common.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* forward.py has both numbers, too. */
enum { WINDOW = 256 * 1024, HEADER = 9 };
enum { BUCKETS = 256, EVENTS = 64 };

struct connection {
    uint32_t id;
    int fd;
    uint32_t watched;    /* epoll's events */
    int connecting;
    int sent_end;        /* the command's end is closed, and outside knows */
    int got_end;         /* the client's end is closed */
    uint32_t window;     /* bytes that outside has room for */
    uint32_t delivered;  /* bytes written since the last credit */
    size_t first, count; /* bytes of the buffer that are still to be written to the command */
    char *buffer;
    struct connection *next;
};

static struct connection *buckets[BUCKETS];
static int channel, events;
static volatile sig_atomic_t draining;

static void send_frame(char kind, uint32_t id, uint32_t value, const char *data)
{
    static char frame[CHUNK];
    uint32_t size = data ? value : 0;
    frame[0] = kind;
    memcpy(frame + 1, &id, 4);
    memcpy(frame + 5, &value, 4);
    memcpy(frame + HEADER, data ? data : "", size);
    if (write_all(channel, frame, HEADER + size) < 0)
        _exit(1);
}

static struct connection **find(uint32_t id)
{
    struct connection **at = &buckets[id % BUCKETS];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static void forget(struct connection *connection)
{
    *find(connection->id) = connection->next;
    if (connection->fd >= 0)
        close(connection->fd); /* epoll forgets it, too */
    free(connection->buffer);
    free(connection);
}

/* The command's side has failed: a reset outside. */
static void reset(struct connection *connection)
{
    send_frame('R', connection->id, 0, NULL);
    forget(connection);
}

/* Watches for what can be done now. Not at all if that is nothing: epoll would report a hang-up again and again. */
static void watch(struct connection *connection)
{
    uint32_t wanted = 0;
    if (connection->connecting || connection->count)
        wanted |= EPOLLOUT;
    if (!connection->connecting && !connection->sent_end && connection->window)
        wanted |= EPOLLIN;
    if (wanted == connection->watched)
        return;
    int operation = !wanted ? EPOLL_CTL_DEL : connection->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    struct epoll_event event = {.events = wanted, .data.u64 = connection->id};
    if (epoll_ctl(events, operation, connection->fd, &event) < 0)
        die("epoll_ctl");
    connection->watched = wanted;
}

/* Writes what is buffered. Returns -1 if the connection is gone. */
static int flush(struct connection *connection)
{
    while (connection->count) {
        ssize_t n = write(connection->fd, connection->buffer + connection->first, connection->count);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            reset(connection);
            return -1;
        }
        connection->first += n;
        connection->count -= n;
        connection->delivered += n;
    }
    if (connection->delivered >= WINDOW / 4) {
        send_frame('C', connection->id, connection->delivered, NULL);
        connection->delivered = 0;
    }
    if (!connection->count && connection->got_end)
        shutdown(connection->fd, SHUT_WR);
    return 0;
}

/* Sends one frame of what the command has written. Returns -1 if the connection is gone. */
static int receive(struct connection *connection)
{
    static char data[CHUNK - HEADER];
    size_t most = connection->window < sizeof data ? connection->window : sizeof data;
    ssize_t n = read(connection->fd, data, most);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 0) {
        reset(connection);
        return -1;
    }
    if (n == 0) {
        connection->sent_end = 1;
        send_frame('E', connection->id, 0, NULL);
        return 0;
    }
    connection->window -= n;
    send_frame('D', connection->id, n, data);
    return 0;
}

/* Both directions have ended, and all is written: nothing more comes from either side. */
static void settle(struct connection *connection)
{
    if (connection->sent_end && connection->got_end && !connection->count)
        forget(connection);
    else
        watch(connection);
}

static void handle_socket(uint32_t id, uint32_t ready)
{
    struct connection *connection = *find(id);
    if (!connection)
        return;
    if (connection->connecting) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            reset(connection);
            return;
        }
        connection->connecting = 0;
    }
    if ((ready & ~EPOLLIN) && flush(connection) < 0)
        return;
    if ((ready & ~EPOLLOUT) && (connection->watched & EPOLLIN) && receive(connection) < 0)
        return;
    settle(connection);
}

static void open_connection(uint32_t id, uint32_t port)
{
    struct connection *connection = calloc(1, sizeof *connection);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    if (!connection || !(connection->buffer = malloc(WINDOW)))
        die("memory");
    connection->id = id;
    connection->window = WINDOW;
    connection->next = buckets[id % BUCKETS];
    buckets[id % BUCKETS] = connection;
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        reset(connection);
        return;
    }
    connection->connecting = 1;
    watch(connection);
}

/* DATA is read from the channel in any case: a reset of ours may be on its way. */
static void take_data(struct connection *connection, uint32_t size)
{
    static char data[CHUNK];
    if (size > sizeof data || read_all(channel, data, size) < 0)
        _exit(1);
    if (!connection)
        return;
    if (connection->first + connection->count + size > WINDOW) {
        memmove(connection->buffer, connection->buffer + connection->first, connection->count);
        connection->first = 0;
    }
    if (connection->count + size > WINDOW)
        _exit(1);
    memcpy(connection->buffer + connection->first + connection->count, data, size);
    connection->count += size;
}

static void handle_frame(void)
{
    char header[HEADER];
    uint32_t id, value;
    if (read_all(channel, header, sizeof header) < 0)
        _exit(0);
    memcpy(&id, header + 1, 4);
    memcpy(&value, header + 5, 4);
    struct connection *connection = *find(id);
    if (header[0] == 'O') {
        open_connection(id, value);
        return;
    }
    if (header[0] == 'D')
        take_data(connection, value);
    if (!connection)
        return;
    if (header[0] == 'R') {
        struct linger at_once = {1, 0};
        setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        forget(connection);
        return;
    }
    if (header[0] == 'C')
        connection->window += value;
    if (header[0] == 'E')
        connection->got_end = 1;
    if (!connection->connecting && flush(connection) < 0)
        return;
    settle(connection);
}

static void start_draining(int signal_number)
{
    (void)signal_number;
    draining = 1;
}

/* Never returns. SIGUSR1 ends it once it has sent all that the command had written. */
void forward_connections(int port)
{
    struct epoll_event ready[EVENTS], on_channel = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    struct sigaction action = {.sa_handler = start_draining};
    sigset_t none;
    sigemptyset(&none);
    sigaction(SIGUSR1, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &files);
    channel = port;
    events = epoll_create1(EPOLL_CLOEXEC);
    if (events < 0 || epoll_ctl(events, EPOLL_CTL_ADD, channel, &on_channel) < 0)
        die("epoll");
    for (;;) {
        /* The signal is blocked but for this wait. */
        int count = epoll_pwait(events, ready, EVENTS, draining ? 0 : -1, &none);
        if (count == 0 && draining)
            break;
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u64 == UINT64_MAX)
                handle_frame();
            else
                handle_socket(ready[i].data.u64, ready[i].events);
        }
    }
    send_frame('X', 0, 0, NULL);
    _exit(0);
}
