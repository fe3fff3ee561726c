/* Both ends of the line: Twilio's media streams on one side of a relay, the speech service on the other.
 *
 * Every frame of audio carries its call, track, number and the time it was sent, so that the service's side can tell
 * what was lost, doubled, out of order or damaged, and how long the relay kept it. The result is one line of JSON.
 * Both ends share one process and so one clock; its CPU is reported beside that of the relay it watches.
 */

#include "wire.h"

#include <getopt.h>
#include <math.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum { TRACKS_MOST = 2, SAMPLES_A_SECOND = 8000, UTTERANCE_S = 4, WORDS_MOST = 64 };
enum { SILENCE = 0xFF };
enum { READ_AT_ONCE = 64 * 1024, EVENTS = 256 };
enum { TICK_US = 100 };
enum { FULL_SOCKET = 32 };  /* frames added at once where a socket is to be kept full */
enum { FULL_BUFFER = 32 * 1024 }; /* bytes the kernel keeps of each: full, but heard out in a few seconds at the end */
enum { CONNECTED_WITHIN_S = 10 };
enum { ANSWERS_MOST = 1 << 20 }; /* bytes of answers that may wait for a relay which does not read them */

static struct {
    int relay, service, calls, tracks;
    bool in_phase, full_speed;
    double ramp_s, warm_s, window_s, drain_s;
    pid_t watch;
    const char *path, *certificate, *key;
} asked = {.path = "/media", .calls = 10, .tracks = 2, .ramp_s = 1, .warm_s = 2, .window_s = 5, .drain_s = 8};

/* ---- What is measured --------------------------------------------------------------------------------- */

enum { BUCKET_US = 50, BUCKETS = 400000 };

struct histogram {
    uint32_t bucket[BUCKETS];
    uint64_t count;
    int64_t most;
};

static struct histogram delays, lateness;

static struct {
    uint64_t sent, discarded, heard, doubled, disordered, damaged, silent_samples;
    uint64_t messages, message_bytes, answers, upgrades, broken;
    uint64_t heard_in_window;
    int64_t relay_cpu_us, own_cpu_us, resident_kb;
} counted;

static bool in_window;

static void note(struct histogram *histogram, int64_t us) {
    int64_t bucket = us < 0 ? 0 : us / BUCKET_US;
    histogram->bucket[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram->count++;
    if (us > histogram->most) histogram->most = us;
}

static double percentile_ms(const struct histogram *histogram, double share) {
    uint64_t below = 0, wanted = ceil(histogram->count * share);
    for (int bucket = 0; bucket < BUCKETS; bucket++)
        if ((below += histogram->bucket[bucket]) >= wanted && wanted) return (bucket + 1) * BUCKET_US / 1000.0;
    return 0;
}

/* ---- Connections -------------------------------------------------------------------------------------- */

enum kind { LISTENER, CALL, HEARING };

struct end {
    enum kind kind;
    struct stream stream;
    struct bytes in, out;
    bool upgraded, writable_asked;
};

struct track {
    uint32_t made;     /* frames, sent or discarded */
    uint32_t expected; /* the number after the last one heard */
    uint64_t *heard;   /* one bit a frame */
    size_t heard_words;
};

struct call {
    struct end end;
    int number;
    bool talking, stopped;
    uint32_t sequence, chunk;
    char stream_sid[35], call_sid[35];
    struct track tracks[TRACKS_MOST];
};

/* One connection of the speech service. */
struct hearing {
    struct end end;
    int channels;
    bool told_to_close;
    uint64_t samples, utterance_start; /* of each channel */
    uint8_t frame[TRACKS_MOST][FRAME_BYTES];
    int filled[TRACKS_MOST];
};

static struct call *calls;
static int calls_open, hearings_open, epoll;
static int64_t began;
static struct end listener;
#ifdef WITH_TLS
static SSL_CTX *tls;
#endif

static void watch(struct end *end, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = end};
    if (epoll_ctl(epoll, operation, end->stream.fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static void ask_writable(struct end *end, bool wanted) {
    if (end->writable_asked == wanted) return;
    end->writable_asked = wanted;
    watch(end, EPOLL_CTL_MOD, EPOLLIN | (wanted ? EPOLLOUT : 0));
}

static void hang_up(struct end *end) {
    if (end->stream.fd < 0) return;
    if (end->kind == CALL) calls_open--, ((struct call *)end)->talking = false;
    if (end->kind == HEARING) hearings_open--;
    stream_close(&end->stream);
    bytes_free(&end->in);
    bytes_free(&end->out);
}

static void broke(struct end *end) {
    counted.broken++;
    hang_up(end);
}

static void flush(struct end *end) {
    if (!stream_flush(&end->stream, &end->out)) broke(end);
    else ask_writable(end, end->out.used);
}

/* ---- Twilio's side: frames of audio ------------------------------------------------------------------- */

enum { STAMP_BYTES = 15, STAMP_TEXT = 20, MARK = 0x55 };
static const char *const TRACK_NAMES[] = {"inbound", "outbound"};
static uint8_t filler[FRAME_BYTES - STAMP_BYTES]; /* never 0xFF: that is the silence a relay may put in */
static char filler_text[200];
static size_t filler_text_length;

static void make_filler(void) {
    uint32_t noise = 1;
    for (size_t i = 0; i < sizeof filler; i++) {
        noise = noise * 1664525 + 1013904223;
        filler[i] = (noise >> 24) % SILENCE;
    }
    filler_text_length = base64_encode(filler, sizeof filler, filler_text);
}

/* Seven bits to a byte, so that no byte of it is 0xFF. */
static uint8_t *write_sevens(uint8_t *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++, value >>= 7) out[i] = value & 0x7F;
    return out + bytes;
}

static uint64_t read_sevens(const uint8_t **in, int bytes) {
    uint64_t value = 0;
    for (int i = bytes; i--;) value = value << 7 | (*in)[i];
    *in += bytes;
    return value;
}

static void write_stamp(uint8_t stamp[STAMP_BYTES], int call, int track, uint32_t number, int64_t sent_us) {
    *stamp++ = MARK;
    stamp = write_sevens(stamp, track, 1);
    stamp = write_sevens(stamp, call, 3);
    stamp = write_sevens(stamp, number, 4);
    write_sevens(stamp, sent_us, 6);
}

static uint8_t *put_text(uint8_t *out, const char *text, size_t length) {
    memcpy(out, text, length);
    return out + length;
}

#define PUT(out, literal) put_text(out, literal, sizeof(literal) - 1)

static uint8_t *put_number(uint8_t *out, uint32_t number) {
    char digits[10], *first = digits + sizeof digits;
    do *--first = '0' + number % 10;
    while (number /= 10);
    return put_text(out, first, digits + sizeof digits - first);
}

enum { MEDIA_MOST = 600, MEDIA_HEADER = 8 }; /* its length takes two bytes, its mask four */

/* A masked media message as Twilio writes it; how long it is. printf would cost as much as sending does. */
static size_t write_media(uint8_t *out, struct call *call, int track, int64_t sent_us) {
    uint8_t stamp[STAMP_BYTES], *end = out + MEDIA_HEADER;
    uint32_t number = call->tracks[track].made++;
    write_stamp(stamp, call->number, track, number, sent_us - began);
    end = PUT(end, "{\"event\":\"media\",\"sequenceNumber\":\"");
    end = put_number(end, ++call->sequence);
    end = PUT(end, "\",\"media\":{\"track\":\"");
    end = put_text(end, TRACK_NAMES[track], strlen(TRACK_NAMES[track]));
    end = PUT(end, "\",\"chunk\":\"");
    end = put_number(end, ++call->chunk);
    end = PUT(end, "\",\"timestamp\":\"");
    end = put_number(end, number * (FRAME_US / 1000));
    end = PUT(end, "\",\"payload\":\"");
    end += base64_encode(stamp, sizeof stamp, (char *)end);
    end = put_text(end, filler_text, filler_text_length);
    end = PUT(end, "\"},\"streamSid\":\"");
    end = put_text(end, call->stream_sid, sizeof call->stream_sid - 1);
    end = PUT(end, "\"}");
    size_t length = end - out - MEDIA_HEADER;
    frame_header(out, TEXT, length, true);
    apply_mask(out + MEDIA_HEADER, length, MASK);
    return MEDIA_HEADER + length;
}

/* One frame at its time. Like Twilio, throws it away when the relay has not taken those before it. */
static void say_frame(struct call *call, int track) {
    uint8_t message[MEDIA_MOST];
    if (call->end.out.used && !stream_flush(&call->end.stream, &call->end.out)) return broke(&call->end);
    size_t length = write_media(message, call, track, now_us());
    if (call->end.out.used) {
        counted.discarded++;
        return;
    }
    counted.sent++;
    ssize_t taken = stream_write(&call->end.stream, message, length);
    if (taken == BROKEN || taken == 0) return broke(&call->end);
    if (taken < 0) taken = 0;
    bytes_add(&call->end.out, message + taken, length - taken);
}

/* As much as the relay takes. */
static void say_much(struct call *call) {
    int64_t now = now_us();
    for (int i = 0; call->end.out.used < FULL_SOCKET * MEDIA_MOST && i < FULL_SOCKET; i++)
        for (int track = 0; track < asked.tracks; track++, counted.sent++)
            call->end.out.used += write_media(bytes_reserve(&call->end.out, MEDIA_MOST), call, track, now);
    if (!stream_flush(&call->end.stream, &call->end.out)) broke(&call->end);
}

/* ---- Twilio's side: calls ----------------------------------------------------------------------------- */

static void say_text(struct call *call, const char *text) {
    frame_add(&call->end.out, TEXT, text, strlen(text), true);
    flush(&call->end);
}

static void open_call(struct call *call, int number) {
    struct sockaddr_in address = loopback(asked.relay);
    call->end = (struct end){.kind = CALL, .stream.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    call->number = number;
    sprintf(call->stream_sid, "MZ%032x", 0xbe000000 + number);
    sprintf(call->call_sid, "CA%032x", 0xbe000000 + number);
    if (connect(call->end.stream.fd, (struct sockaddr *)&address, sizeof address)) die("the relay does not listen");
    never_wait(call->end.stream.fd);
    send_at_once(call->end.stream.fd);
    if (asked.full_speed) setsockopt(call->end.stream.fd, SOL_SOCKET, SO_SNDBUF, &(int){FULL_BUFFER}, sizeof(int));
    watch(&call->end, EPOLL_CTL_ADD, EPOLLIN);
    calls_open++;
    ask_upgrade(asked.path, asked.relay, "User-Agent: TwilioMediaStreams/1.0\r\n", &call->end.out);
    flush(&call->end);
}

static void begin_talk(struct call *call) {
    char start[700];
    snprintf(start, sizeof start,
             "{\"event\":\"start\",\"sequenceNumber\":\"%u\",\"start\":{\"accountSid\":\"AC%032x\",\"streamSid\":\"%s\","
             "\"callSid\":\"%s\",\"tracks\":[\"inbound\"%s],\"mediaFormat\":{\"encoding\":\"audio/x-mulaw\","
             "\"sampleRate\":8000,\"channels\":1},\"customParameters\":{}},\"streamSid\":\"%s\"}",
             ++call->sequence, 1, call->stream_sid, call->call_sid, asked.tracks == 2 ? ",\"outbound\"" : "",
             call->stream_sid);
    say_text(call, "{\"event\":\"connected\",\"protocol\":\"Call\",\"version\":\"1.0.0\"}");
    if (call->end.stream.fd >= 0) say_text(call, start);
    call->talking = call->end.stream.fd >= 0;
}

static void stop_call(struct call *call) {
    char stop[300];
    if (call->end.stream.fd < 0 || call->stopped) return;
    if (!call->talking) return hang_up(&call->end);
    call->talking = false;
    call->stopped = true;
    snprintf(stop, sizeof stop,
             "{\"event\":\"stop\",\"sequenceNumber\":\"%u\",\"stop\":{\"accountSid\":\"AC%032x\",\"callSid\":\"%s\"},"
             "\"streamSid\":\"%s\"}",
             ++call->sequence, 1, call->call_sid, call->stream_sid);
    frame_add(&call->end.out, TEXT, stop, strlen(stop), true);
    frame_add(&call->end.out, CLOSE, "\x03\xe8", 2, true);
    flush(&call->end);
}

/* What a relay says to Twilio: the upgrade, and at the end a close frame. */
static void take_from_relay(struct call *call) {
    if (!call->end.upgraded) {
        size_t head = http_head(&call->end.in);
        if (!head) return;
        if (strncmp((char *)call->end.in.data, "HTTP/1.1 101", 12)) die("the relay refuses the upgrade");
        bytes_drop(&call->end.in, head);
        call->end.upgraded = true;
        begin_talk(call);
    }
    struct frame frame;
    while (call->end.stream.fd >= 0 && frame_take(call->end.in.data, call->end.in.used, &frame)) {
        if (frame.opcode == CLOSE) return hang_up(&call->end);
        if (frame.opcode == PING) {
            frame_add(&call->end.out, PONG, frame.payload, frame.length, true);
            if (!asked.full_speed) flush(&call->end);
        }
        bytes_drop(&call->end.in, frame.total);
    }
}

/* ---- The speech service: frames heard ----------------------------------------------------------------- */

static bool mark_heard(struct track *track, uint32_t number) {
    size_t word = number / 64;
    if (word >= track->heard_words) {
        size_t words = word * 2 + 64;
        track->heard = realloc(track->heard, words * sizeof *track->heard);
        if (!track->heard) die("out of memory");
        memset(track->heard + track->heard_words, 0, (words - track->heard_words) * sizeof *track->heard);
        track->heard_words = words;
    }
    uint64_t bit = 1ULL << number % 64;
    bool first = !(track->heard[word] & bit);
    track->heard[word] |= bit;
    return first;
}

static void hear_frame(const uint8_t frame[FRAME_BYTES], int channel, int64_t now) {
    const uint8_t *in = frame + 1;
    uint64_t side = read_sevens(&in, 1), number_of_call = read_sevens(&in, 3), number = read_sevens(&in, 4);
    int64_t sent_us = read_sevens(&in, 6);
    if (frame[0] != MARK || side != (uint64_t)channel || number_of_call >= (uint64_t)asked.calls ||
        number >= calls[number_of_call].tracks[channel].made || memcmp(in, filler, sizeof filler)) {
        counted.damaged++;
        return;
    }
    struct track *track = &calls[number_of_call].tracks[channel];
    if (mark_heard(track, number)) counted.heard++;
    else counted.doubled++;
    if (number < track->expected) counted.disordered++;
    else track->expected = number + 1;
    if (in_window) {
        counted.heard_in_window++;
        note(&delays, now - began - sent_us);
    }
}

/* Audio of one channel. Between frames there may be silence that the relay has put in for what it missed. */
static void hear_channel(struct hearing *hearing, int channel, const uint8_t *audio, size_t length, int64_t now) {
    uint8_t *frame = hearing->frame[channel];
    int filled = hearing->filled[channel];
    while (length) {
        if (!filled && *audio == SILENCE) {
            counted.silent_samples++;
            audio++, length--;
            continue;
        }
        size_t part = length < (size_t)(FRAME_BYTES - filled) ? length : (size_t)(FRAME_BYTES - filled);
        memcpy(frame + filled, audio, part);
        filled += part, audio += part, length -= part;
        if (filled == FRAME_BYTES) {
            hear_frame(frame, channel, now);
            filled = 0;
        }
    }
    hearing->filled[channel] = filled;
}

static void hear(struct hearing *hearing, const uint8_t *audio, size_t length, int64_t now) {
    static uint8_t apart[TRACKS_MOST][65536];
    size_t samples = length / hearing->channels;
    if (samples > sizeof apart[0]) die("a message of %zu bytes of audio", length);
    counted.messages++;
    counted.message_bytes += length;
    if (length % hearing->channels) counted.damaged++;
    for (size_t i = 0; i < samples; i++)
        for (int channel = 0; channel < hearing->channels; channel++) apart[channel][i] = *audio++;
    for (int channel = 0; channel < hearing->channels; channel++)
        hear_channel(hearing, channel, apart[channel], samples, now);
    hearing->samples += samples;
}

/* ---- The speech service: answers ---------------------------------------------------------------------- */

static const char *const WORDS[] = {"yes",  "i",    "would", "like", "to",    "know",  "when", "the",
                                    "book", "that", "we",    "sent", "last",  "week",  "will", "arrive",
                                    "at",   "your", "house", "and",  "whether", "there", "is",   "more"};
static const double WORD_S = 0.4;

/* A Results message of Deepgram for what one channel has said since its last final. */
static size_t write_results(char *out, size_t room, struct hearing *hearing, int channel, bool final) {
    double start = hearing->utterance_start / (double)SAMPLES_A_SECOND;
    double duration = (hearing->samples - hearing->utterance_start) / (double)SAMPLES_A_SECOND;
    int words = duration / WORD_S;
    if (words > WORDS_MOST) words = WORDS_MOST;
    FILE *text = fmemopen(out, room, "w");
    fprintf(text,
            "{\"type\":\"Results\",\"channel_index\":[%d,%d],\"duration\":%.6g,\"start\":%.9g,\"is_final\":%s,"
            "\"speech_final\":%s,\"channel\":{\"alternatives\":[{\"transcript\":\"",
            channel, hearing->channels, duration, start, final ? "true" : "false", final ? "true" : "false");
    for (int i = 0; i < words; i++) fprintf(text, "%s%s", i ? " " : "", WORDS[i % 24]);
    fprintf(text, "\",\"confidence\":0.99072266,\"words\":[");
    for (int i = 0; i < words; i++)
        fprintf(text, "%s{\"word\":\"%s\",\"start\":%.9g,\"end\":%.9g,\"confidence\":0.98657227,\"punctuated_word\":\"%s\"}",
                i ? "," : "", WORDS[i % 24], start + i * WORD_S, start + (i + 1) * WORD_S, WORDS[i % 24]);
    fprintf(text, "]}]},\"metadata\":{\"request_id\":\"0e4cd2b1-7c1f-4f0e-9d2a-5f6a1b3c8d90\",\"model_info\":{\"name\":"
                  "\"general-nova-3\",\"version\":\"2025-04-17.21547\",\"arch\":\"nova-3\"},\"model_uuid\":"
                  "\"40bd3654-e622-47c4-a111-63a61b23bfe8\"},\"from_finalize\":false}");
    long length = ftell(text);
    fclose(text);
    return length;
}

static void answer(struct hearing *hearing, bool final) {
    char text[12000];
    for (int channel = 0; channel < hearing->channels; channel++) {
        size_t length = write_results(text, sizeof text, hearing, channel, final);
        frame_add(&hearing->end.out, TEXT, text, length, false);
        counted.answers++;
    }
    if (final) hearing->utterance_start = hearing->samples;
    if (hearing->end.out.used > ANSWERS_MOST) die("the relay does not read its answers");
}

/* An interim each second of audio, a final every fourth. */
static void answer_if_due(struct hearing *hearing, uint64_t samples_before) {
    if (hearing->samples / SAMPLES_A_SECOND == samples_before / SAMPLES_A_SECOND) return;
    answer(hearing, hearing->samples - hearing->utterance_start >= (UTTERANCE_S - 0.5) * SAMPLES_A_SECOND);
}

static void say_goodbye(struct hearing *hearing) {
    char text[300];
    if (hearing->samples > hearing->utterance_start) answer(hearing, true);
    int length = snprintf(text, sizeof text,
                          "{\"type\":\"Metadata\",\"transaction_key\":\"deprecated\",\"request_id\":"
                          "\"0e4cd2b1-7c1f-4f0e-9d2a-5f6a1b3c8d90\",\"sha256\":\"\",\"created\":"
                          "\"2026-01-01T00:00:00.000Z\",\"duration\":%.9g,\"channels\":%d}",
                          hearing->samples / (double)SAMPLES_A_SECOND, hearing->channels);
    frame_add(&hearing->end.out, TEXT, text, length, false);
    frame_add(&hearing->end.out, CLOSE, "\x03\xe8", 2, false);
    hearing->told_to_close = true;
}

static void take_message(struct hearing *hearing, struct frame *frame, int64_t now) {
    uint64_t before = hearing->samples;
    if (frame->opcode == BINARY) {
        hear(hearing, frame->payload, frame->length, now);
        answer_if_due(hearing, before);
    } else if (frame->opcode == PING) {
        frame_add(&hearing->end.out, PONG, frame->payload, frame->length, false);
    } else if (frame->opcode == TEXT && memmem(frame->payload, frame->length, "CloseStream", 11)) {
        if (!hearing->told_to_close) say_goodbye(hearing);
    }
}

static bool take_upgrade(struct hearing *hearing) {
    size_t head = http_head(&hearing->end.in);
    if (!head) return false;
    const char *request = (char *)hearing->end.in.data;
    const char *channels = strstr(request, "channels=");
    hearing->channels = channels && channels[9] == '2' ? 2 : 1;
    if (!accept_upgrade(request, &hearing->end.out)) die("the relay asks the service for something else: %s", request);
    bytes_drop(&hearing->end.in, head);
    counted.upgrades++;
    return hearing->end.upgraded = true;
}

static void take_from_hearing(struct hearing *hearing) {
    int64_t now = now_us();
    size_t taken = 0;
    struct frame frame;
    if (!hearing->end.upgraded && !take_upgrade(hearing)) return flush(&hearing->end);
    while (frame_take(hearing->end.in.data + taken, hearing->end.in.used - taken, &frame)) {
        taken += frame.total;
        if (frame.opcode == CLOSE) return hang_up(&hearing->end);
        take_message(hearing, &frame, now);
    }
    bytes_drop(&hearing->end.in, taken);
    if (hearing->end.out.used) flush(&hearing->end);
}

static void accept_hearing(void) {
    int fd = accept4(listener.stream.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    struct hearing *hearing = calloc(1, sizeof *hearing);
    hearing->end = (struct end){.kind = HEARING, .stream.fd = fd};
    send_at_once(fd);
#ifdef WITH_TLS
    if (tls) {
        hearing->end.stream.tls = SSL_new(tls);
        SSL_set_fd(hearing->end.stream.tls, fd);
        SSL_set_accept_state(hearing->end.stream.tls);
    }
#endif
    watch(&hearing->end, EPOLL_CTL_ADD, EPOLLIN);
    hearings_open++;
}

static void load_certificate(void) {
    if (!asked.certificate) return;
#ifdef WITH_TLS
    tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(tls, asked.certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, asked.key, SSL_FILETYPE_PEM) != 1)
        die("cannot use the certificate");
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    die("built without TLS");
#endif
}

/* ---- The loop ----------------------------------------------------------------------------------------- */

static void readable(struct end *end) {
    do {
        ssize_t got = stream_read(&end->stream, bytes_reserve(&end->in, READ_AT_ONCE), READ_AT_ONCE - 1);
        if (got == NOT_NOW) return;
        if (got <= 0) return end->kind == CALL && !((struct call *)end)->stopped ? broke(end) : hang_up(end);
        end->in.used += got;
        if (end->kind == CALL) take_from_relay((struct call *)end);
        else take_from_hearing((struct hearing *)end);
    } while (end->stream.fd >= 0 && stream_holds(&end->stream));
}

static void happened(struct end *end, uint32_t events) {
    if (end->kind == LISTENER) return accept_hearing();
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(end);
    if (end->stream.fd < 0 || !(events & EPOLLOUT)) return;
    if (end->kind == CALL && ((struct call *)end)->talking && asked.full_speed) say_much((struct call *)end);
    else flush(end);
}

static void wait_until(int64_t until_us) {
    struct epoll_event events[EVENTS];
    int64_t left = until_us - now_us();
    if (left < 0) left = 0;
    struct timespec timeout = {left / 1000000, left % 1000000 * 1000};
    int count = epoll_pwait2(epoll, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < count; i++) happened(events[i].data.ptr, events[i].events);
}

/* When each track of each call speaks, in the 20 ms that all of them share. */
struct slot {
    int64_t phase_us;
    struct call *call;
    int track;
};

static struct slot *slots;
static int slot_count, next_slot;
static int64_t round_us; /* since the beginning, at which the present 20 ms began */

static int by_phase(const void *one, const void *other) {
    const struct slot *a = one, *b = other;
    return (a->phase_us > b->phase_us) - (a->phase_us < b->phase_us);
}

static void lay_out_slots(void) {
    slot_count = asked.calls * asked.tracks;
    slots = calloc(slot_count, sizeof *slots);
    for (int i = 0; i < slot_count; i++) {
        int call = i / asked.tracks, track = i % asked.tracks;
        int64_t apart = asked.in_phase ? 0 : track * FRAME_US / asked.tracks;
        int64_t phase = ((int64_t)call * FRAME_US / asked.calls + apart) % FRAME_US;
        slots[i] = (struct slot){phase, &calls[call], track};
    }
    qsort(slots, slot_count, sizeof *slots, by_phase);
}

static int64_t next_due(void) { return began + round_us + slots[next_slot].phase_us; }

static void say_what_is_due(void) {
    int64_t now = now_us(), due;
    while ((due = next_due()) <= now) {
        struct slot *slot = &slots[next_slot];
        if (slot->call->talking) {
            if (in_window) note(&lateness, now_us() - due);
            say_frame(slot->call, slot->track);
        }
        if (++next_slot == slot_count) {
            next_slot = 0;
            round_us += FRAME_US;
        }
    }
}

static int64_t soonest(int64_t one, int64_t other) { return one < other ? one : other; }

/* To wake for each of 100,000 frames a second would fill a core; network cards hold frames up for about as long. */
static int64_t next_tick(int64_t us) { return us + TICK_US - 1 - (us - began - 1) % TICK_US; }

/* Lets both ends do their work until then. */
static void play(int64_t until) {
    while (now_us() < until) {
        if (asked.full_speed) {
            wait_until(until);
            continue;
        }
        say_what_is_due();
        wait_until(soonest(next_tick(next_due()), until));
    }
}

/* ---- From the first call to the result ---------------------------------------------------------------- */

static int64_t seconds(double s) { return s * 1e6; }

static int64_t relay_cpu_us(void) {
    clockid_t clock;
    if (!asked.watch || clock_getcpuclockid(asked.watch, &clock)) return 0;
    return clock_us(clock); /* user and system time of all its threads */
}

static int64_t relay_resident_kb(void) {
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", asked.watch);
    FILE *statm = asked.watch ? fopen(path, "r") : NULL;
    if (!statm) return 0;
    if (fscanf(statm, "%*d %ld", &pages) != 1) pages = 0;
    fclose(statm);
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

static void open_all(void) {
    for (int i = 0; i < asked.calls; i++) {
        play(began + seconds(asked.ramp_s * i / asked.calls));
        open_call(&calls[i], i);
    }
    play(began + seconds(asked.ramp_s));
}

/* Only when all are connected: those who came first would leave the others no time for it. */
static void fill_sockets(void) {
    int64_t until = now_us() + seconds(CONNECTED_WITHIN_S);
    while (counted.upgrades < (uint64_t)asked.calls && now_us() < until) wait_until(now_us() + seconds(0.01));
    for (int i = 0; i < asked.calls; i++)
        if (calls[i].talking) ask_writable(&calls[i].end, true);
}

static void measure(void) {
    counted.relay_cpu_us = -relay_cpu_us();
    counted.own_cpu_us = -clock_us(CLOCK_PROCESS_CPUTIME_ID);
    in_window = true;
    play(now_us() + seconds(asked.window_s));
    in_window = false;
    counted.relay_cpu_us += relay_cpu_us();
    counted.own_cpu_us += clock_us(CLOCK_PROCESS_CPUTIME_ID);
    counted.resident_kb = relay_resident_kb();
}

static void close_all(void) {
    int64_t until = now_us() + seconds(asked.drain_s);
    for (int i = 0; i < asked.calls; i++) stop_call(&calls[i]);
    while ((calls_open || hearings_open) && now_us() < until) wait_until(until);
}

static void report(void) {
    uint64_t made = 0;
    for (int i = 0; i < slot_count; i++) made += calls[i / asked.tracks].tracks[i % asked.tracks].made;
    printf("{\"calls\": %d, \"tracks\": %d, \"window_s\": %g, \"heard_in_window\": %lu, \"relay_cpu_us\": %ld, "
           "\"load_cpu_us\": %ld, \"resident_kb\": %ld, \"sent\": %lu, \"discarded\": %lu, \"heard\": %lu, \"lost\": %lu, "
           "\"doubled\": %lu, \"disordered\": %lu, \"damaged\": %lu, \"silent_samples\": %lu, \"delay_p50_ms\": %.2f, "
           "\"delay_p99_ms\": %.2f, \"delay_max_ms\": %.2f, \"late_p99_ms\": %.2f, \"late_max_ms\": %.2f, "
           "\"messages\": %lu, \"message_bytes\": %lu, \"answers\": %lu, \"upgrades\": %lu, \"broken\": %lu, "
           "\"not_closed\": %d}\n",
           asked.calls, asked.tracks, asked.window_s, counted.heard_in_window, counted.relay_cpu_us, counted.own_cpu_us,
           counted.resident_kb, counted.sent, counted.discarded, counted.heard, made - counted.heard, counted.doubled,
           counted.disordered, counted.damaged, counted.silent_samples, percentile_ms(&delays, 0.5),
           percentile_ms(&delays, 0.99), delays.most / 1000.0, percentile_ms(&lateness, 0.99), lateness.most / 1000.0,
           counted.messages, counted.message_bytes, counted.answers, counted.upgrades, counted.broken,
           calls_open + hearings_open);
}

static void read_options(int count, char **words) {
    static const struct option options[] = {
        {"relay", 1, 0, 'r'},    {"service", 1, 0, 's'}, {"calls", 1, 0, 'c'},  {"tracks", 1, 0, 't'},
        {"in-phase", 0, 0, 'i'}, {"pace", 1, 0, 'p'},    {"ramp", 1, 0, 'R'},   {"warm", 1, 0, 'W'},
        {"window", 1, 0, 'w'},   {"drain", 1, 0, 'd'},   {"watch", 1, 0, 'P'},  {"certificate", 1, 0, 'C'},
        {"key", 1, 0, 'K'},      {"path", 1, 0, 'u'},    {0}};
    int option;
    while ((option = getopt_long(count, words, "", options, NULL)) != -1) switch (option) {
        case 'r': asked.relay = atoi(optarg); break;
        case 's': asked.service = atoi(optarg); break;
        case 'c': asked.calls = atoi(optarg); break;
        case 't': asked.tracks = atoi(optarg); break;
        case 'i': asked.in_phase = true; break;
        case 'p': asked.full_speed = !strcmp(optarg, "max"); break;
        case 'R': asked.ramp_s = atof(optarg); break;
        case 'W': asked.warm_s = atof(optarg); break;
        case 'w': asked.window_s = atof(optarg); break;
        case 'd': asked.drain_s = atof(optarg); break;
        case 'P': asked.watch = atoi(optarg); break;
        case 'C': asked.certificate = optarg; break;
        case 'K': asked.key = optarg; break;
        case 'u': asked.path = optarg; break;
        default: die("see read_options() for what can be asked");
        }
    if (!asked.relay || !asked.service || asked.calls < 1 || asked.tracks < 1 || asked.tracks > TRACKS_MOST)
        die("needs --relay PORT --service PORT, at least one call, and one or two tracks");
}

int main(int count, char **words) {
    read_options(count, words);
    allow_many_sockets();
    prctl(PR_SET_TIMERSLACK, 1); /* ns: frames leave at their time, not within the usual 50 us of it */
    make_filler();
    load_certificate();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    listener = (struct end){.kind = LISTENER, .stream.fd = listen_on(asked.service)};
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    calls = calloc(asked.calls, sizeof *calls);
    lay_out_slots();
    began = now_us();
    open_all();
    if (asked.full_speed) fill_sockets();
    play(now_us() + seconds(asked.warm_s));
    measure();
    close_all();
    report();
}
