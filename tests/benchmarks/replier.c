/*
 * The other end of the wire, as cheap as can be: it speaks just enough QMP to be measured against.
 *
 *     replier PATH
 *
 * It listens on the UNIX socket PATH, writes "ready" to its output, and ends when its input does.
 * It greets, and answers every command with what query-status returns, the id echoed, except
 *
 *     {"execute": "flood", "arguments": {"events": N}, "id": …}   N events come before the reply
 *     {"execute": "bulk", "arguments": {"bytes": N}, "id": …}     returns a string of N bytes
 *
 * Messages are told apart by their braces, not by line ends: qemu.qmp sends none. What is in them
 * is found textually; what arrives together is answered together, in one write.
 */

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CHUNK = 1 << 16, READY = 64 };

static const char GREETING[] =
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "
    "\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";
static const char STATUS[] =
    "{\"status\": \"running\", \"singlestep\": false, \"running\": true}";
static const char EVENT[] =
    "{\"timestamp\": {\"seconds\": 1784937600, \"microseconds\": %d}, "
    "\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"status\": \"running\", \"id\": \"job-%d\"}}\r\n";

struct text {
    char *at;
    size_t size, room;
};

struct peer {
    int fd;
    struct text in;
    size_t scanned;
    int depth, quoted, lost;
};

static struct text flood, bulk, out;
static long flood_events = -1;

/* Make room for so many bytes more, and for a NUL behind them. */
static void reserve(struct text *text, size_t more) {
    if (text->size + more < text->room)
        return;
    text->room = (text->size + more + 1) * 2;
    text->at = realloc(text->at, text->room);
    if (!text->at)
        abort();
}

static void add(struct text *text, const char *bytes, size_t size) {
    reserve(text, size);
    memcpy(text->at + text->size, bytes, size);
    text->size += size;
}

static void add_string(struct text *text, const char *string) {
    add(text, string, strlen(string));
}

static void send_text(struct peer *peer, const struct text *text) {
    for (size_t sent = 0; sent < text->size && !peer->lost;) {
        ssize_t n = write(peer->fd, text->at + sent, text->size - sent);
        if (n > 0)
            sent += (size_t)n;
        else
            peer->lost = 1;
    }
}

static void flush(struct peer *peer) {
    send_text(peer, &out);
    out.size = 0;
}

/* What follows "name": in the message, or NULL. */
static const char *member(const char *message, const char *name) {
    const char *found = strstr(message, name);
    if (!found)
        return NULL;
    found += strlen(name);
    while (*found == ' ' || *found == ':')
        found++;
    return found;
}

static long number(const char *message, const char *name) {
    const char *found = member(message, name);
    return found ? strtol(found, NULL, 10) : 0;
}

static void add_id(const char *message) {
    const char *id = member(message, "\"id\"");
    if (!id || *id != '"')
        return;
    const char *end = id + 1;
    while (*end && *end != '"')
        end += *end == '\\' ? 2 : 1;
    add_string(&out, ", \"id\": ");
    add(&out, id, (size_t)(end + 1 - id));
}

static void send_flood(struct peer *peer, long events) {
    if (events != flood_events) {
        flood.size = 0;
        for (long n = 0; n < events; n++) {
            reserve(&flood, sizeof EVENT + 32);
            flood.size += (size_t)sprintf(
                flood.at + flood.size, EVENT, (int)(n % 1000000), (int)(n % 100));
        }
        flood_events = events;
    }
    flush(peer);
    send_text(peer, &flood);
}

static void send_bulk(struct peer *peer, long bytes) {
    if ((size_t)bytes != bulk.size) {
        bulk.size = 0;
        reserve(&bulk, (size_t)bytes);
        memset(bulk.at, 'A', (size_t)bytes);
        bulk.size = (size_t)bytes;
    }
    add_string(&out, "\"");
    flush(peer);
    send_text(peer, &bulk);
    add_string(&out, "\"");
}

static void answer(struct peer *peer, const char *message) {
    if (strstr(message, "\"flood\""))
        send_flood(peer, number(message, "\"events\""));
    add_string(&out, "{\"return\": ");
    if (strstr(message, "\"bulk\""))
        send_bulk(peer, number(message, "\"bytes\""));
    else if (strstr(message, "\"qmp_capabilities\""))
        add_string(&out, "{}");
    else
        add_string(&out, STATUS);
    add_id(message);
    add_string(&out, "}\r\n");
}

/* Answer each message that is whole, and keep the rest. */
static void scan(struct peer *peer) {
    struct text *in = &peer->in;
    size_t done = 0;
    for (; peer->scanned < in->size; peer->scanned++) {
        char c = in->at[peer->scanned];
        if (peer->quoted) {
            if (c == '\\')
                peer->scanned++;
            else if (c == '"')
                peer->quoted = 0;
        } else if (c == '"') {
            peer->quoted = 1;
        } else if (c == '{') {
            peer->depth++;
        } else if (c == '}' && --peer->depth == 0) {
            size_t end = peer->scanned + 1;
            char next = in->at[end];
            in->at[end] = 0;
            answer(peer, in->at + done);
            in->at[end] = next;
            done = end;
        }
    }
    memmove(in->at, in->at + done, in->size - done);
    in->size -= done;
    peer->scanned -= done;
}

static void read_from(struct peer *peer) {
    reserve(&peer->in, CHUNK);
    ssize_t n = read(peer->fd, peer->in.at + peer->in.size, CHUNK);
    if (n > 0) {
        peer->in.size += (size_t)n;
        scan(peer);
        flush(peer);
        if (!peer->in.size) { /* a thousand peers need not hold a thousand buffers */
            free(peer->in.at);
            peer->in = (struct text){0};
        }
    } else {
        peer->lost = 1;
    }
    if (peer->lost) {
        close(peer->fd);
        free(peer->in.at);
        free(peer);
    }
}

static void watch(int epoll, int fd, void *what) {
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wish)) {
        perror("epoll_ctl");
        exit(1);
    }
}

static void take_peer(int epoll, int listener) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return;
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        abort();
    peer->fd = fd;
    watch(epoll, fd, peer);
    add_string(&out, GREETING);
    flush(peer);
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[1]);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    int epoll = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror(argv[1]);
        return 1;
    }
    watch(epoll, listener, &listener);
    watch(epoll, STDIN_FILENO, NULL);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event ready[READY];
        int count = epoll_wait(epoll, ready, READY, -1);
        for (int i = 0; i < count; i++) {
            void *what = ready[i].data.ptr;
            if (!what)
                return 0;
            else if (what == &listener)
                take_peer(epoll, listener);
            else
                read_from(what);
        }
    }
}
