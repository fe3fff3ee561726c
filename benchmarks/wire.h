/* What both programs here need of clocks, sockets, TLS and WebSocket frames (RFC 6455).
 *
 * Compiled with -DWITH_TLS it links OpenSSL; without, there is no TLS and nothing but libc is needed.
 */

#ifndef WIRE_H
#define WIRE_H

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
typedef void SSL_CTX;
#endif

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { FRAME_BYTES = 160, FRAME_US = 20000 }; /* 20 ms of one track: 8,000 bytes of mu-law a second */
enum { HEADER_MOST = 14 };

static inline void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* ---- Clocks ------------------------------------------------------------------------------------------- */

static inline int64_t clock_us(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now)) return 0;
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static inline int64_t now_us(void) { return clock_us(CLOCK_MONOTONIC); }

/* ---- Bytes that wait ---------------------------------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t used, room;
};

static inline uint8_t *bytes_reserve(struct bytes *bytes, size_t more) {
    if (bytes->used + more > bytes->room) {
        bytes->room = (bytes->used + more) * 2;
        bytes->data = realloc(bytes->data, bytes->room);
        if (!bytes->data) die("out of memory");
    }
    return bytes->data + bytes->used;
}

static inline void bytes_add(struct bytes *bytes, const void *data, size_t length) {
    memcpy(bytes_reserve(bytes, length), data, length);
    bytes->used += length;
}

static inline void bytes_drop(struct bytes *bytes, size_t length) {
    bytes->used -= length;
    memmove(bytes->data, bytes->data + length, bytes->used);
}

static inline void bytes_free(struct bytes *bytes) {
    free(bytes->data);
    *bytes = (struct bytes){0};
}

/* ---- Sockets, plain or TLS ---------------------------------------------------------------------------- */

struct stream {
    int fd;
    SSL *tls;
};

enum { NOT_NOW = -1, BROKEN = -2 }; /* beside the number of bytes; 0 is the peer's end */

static inline struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline void send_at_once(int fd) { setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); }

static inline void never_wait(int fd) { fcntl(fd, F_SETFL, O_NONBLOCK); }

static inline int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = loopback(port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) die("cannot listen on %d", port);
    return fd;
}

#ifdef WITH_TLS
static inline ssize_t tls_result(struct stream *stream, int result) {
    switch (SSL_get_error(stream->tls, result)) {
    case SSL_ERROR_NONE: return result;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return NOT_NOW;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: return BROKEN;
    }
}
#endif

static inline ssize_t plain_result(ssize_t result) {
    if (result >= 0) return result;
    return errno == EAGAIN || errno == EINTR ? NOT_NOW : BROKEN;
}

static inline ssize_t stream_read(struct stream *stream, void *data, size_t length) {
#ifdef WITH_TLS
    if (stream->tls) {
        ERR_clear_error(); /* an old error of another connection would be taken for this one's */
        return tls_result(stream, SSL_read(stream->tls, data, length));
    }
#endif
    return plain_result(recv(stream->fd, data, length, 0));
}

static inline ssize_t stream_write(struct stream *stream, const void *data, size_t length) {
#ifdef WITH_TLS
    if (stream->tls) {
        ERR_clear_error();
        return tls_result(stream, SSL_write(stream->tls, data, length));
    }
#endif
    return plain_result(send(stream->fd, data, length, MSG_NOSIGNAL));
}

/* Whether bytes are decrypted already, of which epoll would not tell. */
static inline bool stream_holds(struct stream *stream) {
#ifdef WITH_TLS
    return stream->tls && SSL_pending(stream->tls);
#else
    (void)stream;
    return false;
#endif
}

static inline void stream_close(struct stream *stream) {
#ifdef WITH_TLS
    if (stream->tls) {
        SSL_shutdown(stream->tls);
        SSL_free(stream->tls);
    }
#endif
    if (stream->fd >= 0) close(stream->fd);
    *stream = (struct stream){.fd = -1};
}

/* Sends what waits; false when the connection is broken. */
static inline bool stream_flush(struct stream *stream, struct bytes *waiting) {
    while (waiting->used) {
        ssize_t taken = stream_write(stream, waiting->data, waiting->used);
        if (taken == NOT_NOW) return true;
        if (taken <= 0) return false;
        bytes_drop(waiting, taken);
    }
    return true;
}

static inline void allow_many_sockets(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
}

/* ---- Base64 (RFC 4648) -------------------------------------------------------------------------------- */

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static inline size_t base64_encode(const uint8_t *in, size_t length, char *out) {
    char *end = out;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = in[i] << 16 | (i + 1 < length ? in[i + 1] : 0) << 8 | (i + 2 < length ? in[i + 2] : 0);
        *end++ = BASE64[three >> 18];
        *end++ = BASE64[three >> 12 & 63];
        *end++ = i + 1 < length ? BASE64[three >> 6 & 63] : '=';
        *end++ = i + 2 < length ? BASE64[three & 63] : '=';
    }
    return end - out;
}

static inline size_t base64_decode(const char *in, size_t length, uint8_t *out) {
    static uint8_t value[256];
    if (!value['B'])
        for (int i = 0; i < 64; i++) value[(uint8_t)BASE64[i]] = i;
    uint8_t *end = out;
    for (size_t i = 0; i + 3 < length; i += 4) {
        const uint8_t *four = (const uint8_t *)in + i;
        uint32_t three = value[four[0]] << 18 | value[four[1]] << 12 | value[four[2]] << 6 | value[four[3]];
        *end++ = three >> 16;
        *end++ = three >> 8;
        *end++ = three;
    }
    while (length && in[--length] == '=') end--;
    return end - out;
}

/* ---- The handshake ------------------------------------------------------------------------------------ */

static inline uint32_t rotate(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static inline void sha1_block(uint32_t state[5], const uint8_t block[64]) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        if (i < 16)
            w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
        else
            w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t mix = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                       : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                       : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = rotate(a, 5) + mix + e + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* SHA-1 (FIPS 180-4) of a short text. */
static inline void sha1(const char *text, uint8_t digest[20]) {
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t padded[128] = {0};
    size_t length = strlen(text), blocks = (length + 9 + 63) / 64;
    memcpy(padded, text, length);
    padded[length] = 0x80;
    padded[64 * blocks - 2] = length * 8 >> 8;
    padded[64 * blocks - 1] = length * 8;
    for (size_t block = 0; block < blocks; block++) sha1_block(state, padded + 64 * block);
    for (int i = 0; i < 20; i++) digest[i] = state[i / 4] >> (24 - 8 * (i % 4));
}

/* The answer to an upgrade request, which ends in a zero; false when the request has no key. */
static inline bool accept_upgrade(const char *request, struct bytes *answer) {
    static const char name[] = "\nSec-WebSocket-Key:";
    const char *found = strcasestr(request, name);
    if (!found) return false;
    char key[80], text[200];
    uint8_t digest[20];
    if (sscanf(found + sizeof name - 1, " %24[A-Za-z0-9+/=]", key) != 1) return false;
    sha1(strcat(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"), digest);
    int length = sprintf(text, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: ");
    length += base64_encode(digest, sizeof digest, text + length);
    length += sprintf(text + length, "\r\n\r\n");
    bytes_add(answer, text, length);
    return true;
}

static inline void ask_upgrade(const char *path, int port, const char *headers, struct bytes *request) {
    char text[600];
    int length = snprintf(text, sizeof text,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          path, port, headers);
    bytes_add(request, text, length);
}

/* The bytes up to the end of the HTTP head, or 0 while it is not complete. Puts a zero there. */
static inline size_t http_head(struct bytes *in) {
    *bytes_reserve(in, 1) = 0;
    char *end = strstr((char *)in->data, "\r\n\r\n");
    if (!end) return 0;
    end[2] = 0;
    return end + 4 - (char *)in->data;
}

/* ---- Frames ------------------------------------------------------------------------------------------- */

/* One constant key: a random one for each frame would cost the players here time, and the relay none. */
static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

static inline void apply_mask(uint8_t *data, size_t length, const uint8_t key[4]) {
    uint32_t one;
    uint64_t two, word;
    memcpy(&one, key, 4);
    two = (uint64_t)one << 32 | one;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= two;
        memcpy(data + i, &word, 8);
    }
    for (; i < length; i++) data[i] ^= key[i % 4];
}

/* The header of an unfragmented frame; how long it is. */
static inline size_t frame_header(uint8_t *out, int opcode, size_t length, bool masked) {
    uint8_t *end = out, bit = masked ? 0x80 : 0;
    *end++ = 0x80 | opcode;
    if (length < 126) {
        *end++ = bit | length;
    } else {
        if (length > 0xFFFF) die("a message of %zu bytes", length);
        *end++ = bit | 126;
        *end++ = length >> 8;
        *end++ = length;
    }
    if (masked) {
        memcpy(end, MASK, 4);
        end += 4;
    }
    return end - out;
}

static inline void frame_add(struct bytes *out, int opcode, const void *payload, size_t length, bool masked) {
    uint8_t *start = bytes_reserve(out, HEADER_MOST + length);
    size_t header = frame_header(start, opcode, length, masked);
    if (length) memcpy(start + header, payload, length);
    if (masked) apply_mask(start + header, length, MASK);
    out->used += header + length;
}

struct frame {
    int opcode;
    uint8_t *payload;
    size_t length, total;
};

/* The first frame, unmasked where it lies; false while it is not complete. Nobody fragments here. */
static inline bool frame_take(uint8_t *data, size_t have, struct frame *frame) {
    if (have < 2) return false;
    if (!(data[0] & 0x80) || !(data[0] & 0x0F)) die("a fragmented message");
    size_t header = 2, length = data[1] & 0x7F;
    bool masked = data[1] & 0x80;
    if (length >= 126) {
        size_t wide = length == 126 ? 2 : 8;
        if (have < header + wide) return false;
        for (length = 0; wide--; header++) length = length << 8 | data[header];
    }
    uint8_t *key = data + header;
    header += masked ? 4 : 0;
    if (have < header || have - header < length) return false;
    *frame = (struct frame){data[0] & 0x0F, data + header, length, header + length};
    if (masked) apply_mask(frame->payload, length, key);
    return true;
}

#endif
