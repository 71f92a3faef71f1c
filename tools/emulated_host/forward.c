/*
 * Connections of --port: forward.py accepts them outside, and this file connects each to the command's loopback port.
 * All connections share one virtio-serial port, in frames (docs/with-kvm.md).
 */
#include "common.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* Keep equal to WINDOW and HEADER of forward.py. */
enum { WINDOW = 256 * 1024, HEADER = 9 };
enum { BUCKETS = 256, EVENTS = 64 };

struct connection {
    uint32_t id;
    int fd;
    uint32_t watched;    /* epoll's events */
    int connecting;
    int sent_end;        /* end of file from the command, and END was sent */
    int got_end;         /* END was received: end of file from the client */
    uint32_t window;     /* credit: bytes that may be sent to forward.py */
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

/* The socket to the command has failed: sends RESET, so that forward.py resets the client's connection. */
static void reset(struct connection *connection)
{
    send_frame('R', connection->id, 0, NULL);
    forget(connection);
}

/*
 * Watches the socket for the events that can be handled now. Without any, the socket leaves the epoll set, because
 * epoll would report EPOLLHUP again and again.
 */
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

/* Reads from the command and sends one frame. Returns -1 if the connection is gone. */
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

/* Frees the connection once both directions have ended and the buffer is written; else updates its events. */
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

/* Reads the data from the channel even if the connection is gone: forward.py may not have received our RESET yet. */
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

/* Never returns. After SIGUSR1 it sends everything that the command had written, and exits. */
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
        /* SIGUSR1 is unblocked only during this wait. */
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
