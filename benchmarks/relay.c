/* The least a relay can be: one thread, no allocation in the steady state, JSON read by looking for two keys.
 *
 *   relay frames       wakes for every frame, as epoll programs do
 *   relay chunks       looks at each call once a chunk: the true limit of this machine for what our program does
 *   relay frames 20    wakes for every frame and sends it on at once, in messages of 20 ms
 *
 * Listens on PORT and sends both tracks, sample by sample in turn, to DEEPGRAM_URL (ws or wss, an IPv4 loopback port).
 * What the service answers is read and ignored.
 */

#include "wire.h"

#include <sys/epoll.h>

enum { SILENCE = 0xFF, SAMPLES_PER_MS = 8 };
enum { READ_AT_ONCE = 64 * 1024, READS_AT_MOST = 8, EVENTS = 256 };
enum { TURNS = 10 }; /* in which the calls are looked at, one after another, within a chunk's time */

enum side { LISTENER, TWILIO, SERVICE };

struct call;

struct end {
    enum side side;
    struct stream stream;
    struct bytes in, out;
    struct call *call;
};

struct call {
    struct end twilio, service;
    bool upgraded, started, stopped, held_up;
    int tracks, turn;
    struct bytes audio[2];
    struct call *next; /* that is looked at in the same turn */
};

static bool by_chunks, service_has_tls;
static int chunk_ms = 100, service_port, epoll, calls_live, next_turn;
static struct call *turns[TURNS];
#ifdef WITH_TLS
static SSL_CTX *tls;
#endif

static void watch(struct end *end, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = end};
    if (epoll_ctl(epoll, operation, end->stream.fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

/* ---- The end of a call -------------------------------------------------------------------------------- */

static void leave_turn(struct call *call) {
    for (struct call **link = &turns[call->turn]; *link; link = &(*link)->next)
        if (*link == call) {
            *link = call->next;
            return;
        }
}

static void let_go(struct end *end) {
    if (end->stream.fd < 0) return;
    stream_close(&end->stream);
    bytes_free(&end->in);
    bytes_free(&end->out);
}

/* A call is over when both its connections are. It is not freed here: events for it may still be at hand. */
static void end_call(struct call *call) {
    if (call->started) leave_turn(call);
    call->started = false;
    let_go(&call->twilio);
    let_go(&call->service);
    bytes_free(&call->audio[0]);
    bytes_free(&call->audio[1]);
    calls_live--;
}

static bool is_over(struct call *call) { return call->twilio.stream.fd < 0; }

/* ---- To the service ----------------------------------------------------------------------------------- */

/* Reads no more from Twilio while the service does not take what was read. */
static void hold_up(struct call *call, bool wanted) {
    if (call->held_up == wanted) return;
    call->held_up = wanted;
    watch(&call->service, EPOLL_CTL_MOD, EPOLLIN | (wanted ? EPOLLOUT : 0));
    if (!by_chunks) watch(&call->twilio, EPOLL_CTL_MOD, wanted ? 0 : EPOLLIN);
}

static void flush_service(struct call *call) {
    if (!stream_flush(&call->service.stream, &call->service.out)) end_call(call);
    else hold_up(call, call->service.out.used);
}

static size_t both_have(struct call *call) {
    size_t first = call->audio[0].used, second = call->audio[1].used;
    return call->tracks == 1 || first < second ? first : second;
}

/* One message with so many samples of each track. */
static void add_audio(struct call *call, size_t samples) {
    size_t length = samples * call->tracks;
    uint8_t *start = bytes_reserve(&call->service.out, HEADER_MOST + length);
    uint8_t *audio = start + frame_header(start, BINARY, length, true);
    for (int track = 0; track < call->tracks; track++) {
        const uint8_t *samples_of_track = call->audio[track].data;
        for (size_t i = 0; i < samples; i++) audio[i * call->tracks + track] = samples_of_track[i];
        bytes_drop(&call->audio[track], samples);
    }
    apply_mask(audio, length, MASK);
    call->service.out.used += audio + length - start;
}

static void add_chunks(struct call *call) {
    size_t chunk = chunk_ms * SAMPLES_PER_MS, ready;
    if (by_chunks && (ready = both_have(call))) return add_audio(call, ready);
    while (!by_chunks && both_have(call) >= chunk) add_audio(call, chunk);
}

static void pad(struct call *call, int track, size_t length) {
    while (call->audio[track].used < length) bytes_add(&call->audio[track], &(uint8_t){SILENCE}, 1);
}

static void add_the_end(struct call *call) {
    static const char close[] = "{\"type\":\"CloseStream\"}";
    if (call->tracks == 2) {
        pad(call, 0, call->audio[1].used);
        pad(call, 1, call->audio[0].used);
    }
    if (both_have(call)) add_audio(call, both_have(call));
    frame_add(&call->service.out, TEXT, close, sizeof close - 1, true);
}

/* ---- Connecting to the service ------------------------------------------------------------------------ */

static void read_service_url(void) {
    const char *url = getenv("DEEPGRAM_URL"), *port = url ? strrchr(url, ':') : NULL;
    if (!port) die("DEEPGRAM_URL is not set");
    service_has_tls = !strncmp(url, "wss:", 4);
    service_port = atoi(port + 1);
#ifdef WITH_TLS
    tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_default_verify_paths(tls); /* SSL_CERT_FILE */
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    if (service_has_tls) die("built without TLS");
#endif
}

static void begin_tls(struct stream *stream) {
#ifdef WITH_TLS
    stream->tls = SSL_new(tls);
    SSL_set_fd(stream->tls, stream->fd);
    SSL_set1_host(stream->tls, "127.0.0.1");
    if (SSL_connect(stream->tls) != 1) die("the service's TLS cannot be trusted");
#else
    (void)stream;
#endif
}

/* Waits for the service, which no real program would: here it answers at once, and calls that run are measured. */
static void connect_service(struct call *call) {
    struct end *service = &call->service;
    struct sockaddr_in address = loopback(service_port);
    char path[200];
    size_t head;
    *service = (struct end){.side = SERVICE, .call = call, .stream.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (connect(service->stream.fd, (struct sockaddr *)&address, sizeof address)) die("the service does not listen");
    if (service_has_tls) begin_tls(&service->stream);
    sprintf(path, "/v1/listen?encoding=mulaw&sample_rate=8000&channels=%d", call->tracks);
    ask_upgrade(path, service_port, "Authorization: Token none\r\n", &service->out);
    if (!stream_flush(&service->stream, &service->out)) die("the service takes no request");
    while (!(head = http_head(&service->in))) {
        ssize_t got = stream_read(&service->stream, bytes_reserve(&service->in, 1024), 1024 - 1);
        if (got <= 0) die("the service does not answer");
        service->in.used += got;
    }
    bytes_drop(&service->in, head);
    never_wait(service->stream.fd);
    send_at_once(service->stream.fd);
    watch(service, EPOLL_CTL_ADD, EPOLLIN);
}

/* ---- From Twilio -------------------------------------------------------------------------------------- */

/* What follows a key, up to the quote that ends it. */
static const char *value_of(const struct frame *frame, const char *key, size_t *length) {
    const char *found = memmem(frame->payload, frame->length, key, strlen(key));
    if (!found) return NULL;
    found += strlen(key);
    const char *quote = memchr(found, '"', (char *)frame->payload + frame->length - found);
    *length = quote ? quote - found : 0;
    return found;
}

static void start_call(struct call *call, struct frame *start) {
    call->tracks = memmem(start->payload, start->length, "\"outbound\"", 10) ? 2 : 1;
    connect_service(call);
    call->started = true;
    call->turn = next_turn++ % TURNS;
    call->next = turns[call->turn];
    turns[call->turn] = call;
    if (by_chunks) epoll_ctl(epoll, EPOLL_CTL_DEL, call->twilio.stream.fd, NULL);
}

static void take_media(struct call *call, struct frame *media) {
    size_t length;
    const char *track = value_of(media, "\"track\":\"", &length);
    const char *payload = value_of(media, "\"payload\":\"", &length);
    if (!track || !payload || !call->started) return;
    struct bytes *audio = &call->audio[call->tracks == 2 && *track == 'o'];
    audio->used += base64_decode(payload, length, bytes_reserve(audio, length));
}

static void take_text(struct call *call, struct frame *text) {
    size_t length;
    const char *event = value_of(text, "\"event\":\"", &length);
    if (!event) return;
    if (length == 5 && !memcmp(event, "media", 5)) take_media(call, text);
    else if (length == 5 && !memcmp(event, "start", 5)) start_call(call, text);
    else if (length == 4 && !memcmp(event, "stop", 4)) call->stopped = true;
}

static bool take_upgrade(struct call *call) {
    size_t head = http_head(&call->twilio.in);
    if (!head) return false;
    if (!accept_upgrade((char *)call->twilio.in.data, &call->twilio.out)) return false;
    bytes_drop(&call->twilio.in, head);
    return call->upgraded = stream_flush(&call->twilio.stream, &call->twilio.out);
}

static void take_frames(struct call *call) {
    size_t taken = 0;
    struct frame frame;
    struct bytes *in = &call->twilio.in;
    while (!call->stopped && frame_take(in->data + taken, in->used - taken, &frame)) {
        taken += frame.total;
        if (frame.opcode == TEXT) take_text(call, &frame);
    }
    bytes_drop(in, taken);
}

/* After `stop` Twilio only waits for our close frame; the service still has something to say. */
static void stop_listening(struct call *call) {
    add_the_end(call);
    frame_add(&call->twilio.out, CLOSE, "\x03\xe8", 2, false);
    stream_flush(&call->twilio.stream, &call->twilio.out);
    if (by_chunks) leave_turn(call);
    else epoll_ctl(epoll, EPOLL_CTL_DEL, call->twilio.stream.fd, NULL);
}

/* One read and all that follows from it; whether more may be waiting. */
static bool read_twilio(struct call *call) {
    struct bytes *in = &call->twilio.in;
    ssize_t got = stream_read(&call->twilio.stream, bytes_reserve(in, READ_AT_ONCE), READ_AT_ONCE - 1);
    if (got == NOT_NOW) return false;
    if (got <= 0) {
        end_call(call);
        return false;
    }
    in->used += got;
    if (!call->upgraded && !take_upgrade(call)) return false;
    take_frames(call);
    if (!call->started) return false;
    add_chunks(call);
    if (call->stopped) stop_listening(call);
    if (call->service.out.used) flush_service(call);
    return got == READ_AT_ONCE - 1 && !is_over(call) && !call->stopped && !call->held_up;
}

static void accept_calls(struct end *listener) {
    int fd;
    while ((fd = accept4(listener->stream.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        struct call *call = calloc(1, sizeof *call);
        call->twilio = (struct end){.side = TWILIO, .call = call, .stream.fd = fd};
        call->service.stream.fd = -1;
        send_at_once(fd);
        watch(&call->twilio, EPOLL_CTL_ADD, EPOLLIN);
        calls_live++;
    }
}

/* ---- From the service --------------------------------------------------------------------------------- */

static void read_service(struct call *call) {
    struct end *service = &call->service;
    struct frame frame;
    do {
        ssize_t got = stream_read(&service->stream, bytes_reserve(&service->in, READ_AT_ONCE), READ_AT_ONCE - 1);
        if (got == NOT_NOW) return;
        if (got <= 0) return end_call(call);
        service->in.used += got;
        size_t taken = 0;
        while (frame_take(service->in.data + taken, service->in.used - taken, &frame)) {
            taken += frame.total;
            if (frame.opcode == CLOSE) return end_call(call);
            if (frame.opcode == PING) frame_add(&service->out, PONG, frame.payload, frame.length, true);
        }
        bytes_drop(&service->in, taken);
    } while (stream_holds(&service->stream));
    if (service->out.used) flush_service(call);
}

/* ---- The loop ----------------------------------------------------------------------------------------- */

static void happened(struct end *end, uint32_t events) {
    if (end->side == LISTENER) return accept_calls(end);
    if (is_over(end->call)) return;
    if (end->side == TWILIO) {
        read_twilio(end->call);
        return;
    }
    if (events & ~EPOLLOUT) read_service(end->call);
    if (events & EPOLLOUT && !is_over(end->call)) flush_service(end->call);
}

static void take_events(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) happened(events[i].data.ptr, events[i].events);
}

static void sleep_until(int64_t us) {
    struct timespec until = {us / 1000000, us % 1000000 * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void look_at(struct call *call) {
    for (int i = 0; i < READS_AT_MOST && read_twilio(call); i++) continue;
}

static void take_turns(void) {
    int64_t due = now_us();
    for (int turn = 0;; turn = (turn + 1) % TURNS) {
        if (!calls_live) {
            take_events(-1);
            due = now_us();
        }
        sleep_until(due += chunk_ms * 1000 / TURNS);
        take_events(0);
        for (struct call *call = turns[turn], *next; call; call = next) {
            next = call->next;
            if (!call->held_up) look_at(call);
        }
    }
}

int main(int count, char **words) {
    if (count < 2 || (strcmp(words[1], "frames") && strcmp(words[1], "chunks"))) die("relay frames|chunks [MS]");
    by_chunks = !strcmp(words[1], "chunks");
    if (getenv("AUDIO_CHUNK_MS")) chunk_ms = atoi(getenv("AUDIO_CHUNK_MS"));
    if (count == 3) chunk_ms = atoi(words[2]);
    allow_many_sockets();
    read_service_url();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct end listener = {.side = LISTENER, .stream.fd = listen_on(getenv("PORT") ? atoi(getenv("PORT")) : 5001)};
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    if (by_chunks) take_turns();
    while (true) take_events(-1);
}
