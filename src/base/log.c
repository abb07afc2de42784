#include "base/log.h"
#include "base/clock.h"
#include <pthread.h>
#include <stdio.h>

enum { LINE_MAX_BYTES = 16384, CLIPPED = 400 };

static struct {
	enum pt_log_level level;
	enum pt_log_format format;
	bool colour;
	pthread_mutex_t lock;
	/* The ring: records {uint32 length, JSON line} one after the other, from head to tail, wrapping as bytes. */
	char *ring;
	size_t cap, head, used;
	uint64_t first, next; /* sequence number of the oldest line, and of the line to come */
	void (*_Atomic sink)(void *arg, const struct pt_log_line *line);
	void *sink_arg;
} lg = { .level = PT_LOG_INFO, .format = PT_LOG_PLAIN, .lock = PTHREAD_MUTEX_INITIALIZER, .first = 1, .next = 1 };

static const char *const level_names[] = { "debug", "info", "warn", "error" };
static const char *const format_names[] = { "json", "plain", "dev" };

static int pick(const char *const *names, size_t n, const char *s, const char *what, struct pt_err *err)
{
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(names[i], s) == 0)
			return (int)i;
	return pt_fail(err, PT_E_INVALID, "unknown log %s '%.40s'", what, s);
}

int pt_log_init(const char *level_name, const char *format_name, size_t ring_bytes, struct pt_err *err)
{
	int level = pick(level_names, PT_COUNT(level_names), level_name, "level", err);
	int format = level < 0 ? level : pick(format_names, PT_COUNT(format_names), format_name, "format", err);
	char *ring = NULL;

	if (format < 0)
		return format;
	if (ring_bytes && !(ring = malloc(ring_bytes)))
		return pt_fail_oom(err);
	pthread_mutex_lock(&lg.lock);
	free(lg.ring);
	lg.ring = ring;
	lg.cap = ring_bytes;
	lg.head = lg.used = 0;
	lg.first = lg.next;
	lg.level = (enum pt_log_level)level;
	lg.format = (enum pt_log_format)format;
	lg.colour = isatty(STDERR_FILENO) == 1 && !getenv("NO_COLOR");
	pthread_mutex_unlock(&lg.lock);
	return PT_OK;
}

bool pt_log_on(enum pt_log_level level)
{
	return level >= lg.level;
}

static void ring_copy(size_t at, void *out, const void *in, size_t n)
{
	for (size_t done = 0; done < n;) {
		size_t pos = (at + done) % lg.cap, run = lg.cap - pos < n - done ? lg.cap - pos : n - done;

		if (in)
			memcpy(lg.ring + pos, (const char *)in + done, run);
		else
			memcpy((char *)out + done, lg.ring + pos, run);
		done += run;
	}
}

static void ring_add(const char *line, size_t n)
{
	uint32_t len = (uint32_t)n, old;

	if (n + sizeof(len) > lg.cap)
		return;
	while (lg.used + n + sizeof(len) > lg.cap) {
		ring_copy(lg.head, &old, NULL, sizeof(old));
		lg.head = (lg.head + sizeof(old) + old) % lg.cap;
		lg.used -= sizeof(old) + old;
		lg.first++;
	}
	ring_copy(lg.head + lg.used, NULL, &len, sizeof(len));
	ring_copy(lg.head + lg.used + sizeof(len), NULL, line, n);
	lg.used += sizeof(len) + n;
}

uint64_t pt_log_ring(struct pt_buf *out, uint64_t after, size_t max_lines)
{
	uint64_t seq, last = 0;
	size_t at;

	pthread_mutex_lock(&lg.lock);
	at = lg.head;
	for (seq = lg.first; lg.cap && seq < lg.next; seq++) {
		uint32_t len;

		ring_copy(at, &len, NULL, sizeof(len));
		if (seq > after && lg.next - seq <= max_lines && pt_buf_room(out, (size_t)len + 1)) {
			ring_copy(at + sizeof(len), out->p + out->len, NULL, len);
			out->len += len;
			out->p[out->len++] = '\n';
			out->p[out->len] = '\0';
			last = seq;
		}
		at += sizeof(len) + len;
	}
	pthread_mutex_unlock(&lg.lock);
	return last;
}

const char *pt_num(int64_t v)
{
	static _Thread_local char slot[8][24];
	static _Thread_local unsigned next;
	char *s = slot[next++ % 8];

	snprintf(s, sizeof(slot[0]), "%lld", (long long)v);
	return s;
}

/* Where the parts of a JSON line stand. */
struct parts {
	size_t head, fields;
	bool operation;
};

static void line_json(struct pt_buf *b, const char *when, enum pt_log_level level, const char *msg, va_list ap, struct parts *ret)
{
	pt_buf_fmt(b, "{\"time\":\"%s\",", when);
	ret->head = b->len;
	pt_buf_fmt(b, "\"level\":\"%s\",\"msg\":", level_names[level]);
	pt_buf_json(b, msg, strlen(msg));
	ret->fields = b->len;
	for (const char *k; (k = va_arg(ap, const char *));) {
		const char *v = va_arg(ap, const char *);

		if (!v)
			continue;
		ret->operation |= strcmp(k, "operation") == 0;
		pt_buf_chr(b, ',');
		pt_buf_json(b, k, strlen(k));
		pt_buf_chr(b, ':');
		pt_buf_json(b, v, strlen(v));
	}
	pt_buf_chr(b, '}');
	if (b->bad) { /* too long: still a whole line */
		pt_buf_clear(b);
		pt_buf_fmt(b, "{\"time\":\"%s\",\"level\":\"%s\",\"msg\":", when, level_names[level]);
		pt_buf_json(b, msg, strnlen(msg, CLIPPED));
		ret->fields = b->len;
		ret->operation = false;
		pt_buf_str(b, ",\"note\":\"fields left out: the line is too long\"}");
	}
}

/* Must the value be quoted to stay one word, and to keep control characters off the terminal? */
static bool needs_quotes(const char *v)
{
	const char *p = v;

	while ((unsigned char)*p > ' ' && *p != '"' && *p != '=' && *p != 0x7f)
		p++;
	return !*v || *p;
}

static void line_text(struct pt_buf *b, const char *when, enum pt_log_level level, const char *msg, va_list ap)
{
	static const char *const colours[] = { "\033[2m", "\033[32m", "\033[33m", "\033[31m" };
	bool dev = lg.format == PT_LOG_DEV, colour = dev && lg.colour;

	pt_buf_fmt(b, "%.*s %s%-5s%s %s", dev ? 12 : 24, dev ? when + 11 : when, colour ? colours[level] : "", level_names[level],
		   colour ? "\033[0m" : "", msg);
	for (const char *k; (k = va_arg(ap, const char *));) {
		const char *v = va_arg(ap, const char *);

		if (!v)
			continue;
		pt_buf_fmt(b, " %s=", k);
		if (needs_quotes(v))
			pt_buf_json(b, v, strlen(v));
		else
			pt_buf_str(b, v);
	}
}

/* The line feed, also behind a text that did not fit. */
static void finish(struct pt_buf *b)
{
	b->max += 64;
	if (b->bad) {
		b->bad = PT_OK;
		pt_buf_str(b, " ... (the line is too long)");
	}
	pt_buf_chr(b, '\n');
}

void pt_log_sink(void (*fn)(void *arg, const struct pt_log_line *line), void *arg)
{
	pthread_mutex_lock(&lg.lock);
	lg.sink = fn;
	lg.sink_arg = arg;
	pthread_mutex_unlock(&lg.lock);
}

static void to_sink(const struct pt_buf *json, int64_t at, enum pt_log_level level, const struct parts *parts)
{
	size_t fields = parts->fields + (json->p[parts->fields] == ','); /* at the brace when there are none */
	struct pt_log_line line = { .at = at,
				    .level = level,
				    .operation = parts->operation,
				    .head = json->p + parts->head,
				    .head_n = parts->fields - parts->head,
				    .fields = json->p + fields,
				    .fields_n = json->len - 1 - fields };

	lg.sink(lg.sink_arg, &line);
}

void pt_log_(enum pt_log_level level, const char *msg, ...)
{
	pt_auto_buf json = PT_BUF_INIT(LINE_MAX_BYTES);
	pt_auto_buf text = PT_BUF_INIT(LINE_MAX_BYTES);
	struct pt_buf *show = &json;
	bool keep = lg.cap != 0 || lg.sink;
	struct parts parts = { 0 };
	int64_t now;
	char when[32];
	va_list ap, ap2;

	if (!pt_log_on(level))
		return;
	now = pt_wall_ms();
	pt_time_text(now, when);
	va_start(ap, msg);
	va_copy(ap2, ap);
	if (keep || lg.format == PT_LOG_JSON)
		line_json(&json, when, level, msg, ap, &parts);
	if (lg.format != PT_LOG_JSON) {
		line_text(&text, when, level, msg, ap2);
		show = &text;
	}
	va_end(ap2);
	va_end(ap);

	pthread_mutex_lock(&lg.lock);
	if (lg.cap && !json.bad)
		ring_add(json.p, json.len);
	lg.next += lg.cap && !json.bad && json.len + sizeof(uint32_t) <= lg.cap;
	if (keep && lg.sink && !json.bad)
		to_sink(&json, now, level, &parts);
	pthread_mutex_unlock(&lg.lock);
	finish(show);
	while (write(STDERR_FILENO, show->p, show->len) < 0 && errno == EINTR)
		;
}

void pt_log_err_(enum pt_log_level level, const char *msg, const struct pt_err *err, ...)
{
	const char *pair[6] = { NULL };
	char where[128];
	va_list ap;

	va_start(ap, err);
	for (size_t i = 0; i < PT_COUNT(pair) && (pair[i] = va_arg(ap, const char *)); i += 2)
		pair[i + 1] = va_arg(ap, const char *);
	va_end(ap);
	snprintf(where, sizeof(where), "%s:%d", err->file ? err->file : "?", err->line);
	pt_log_(level, msg, "code", pt_code_wire(err->code), "error", err->msg, "hint", *err->hint ? err->hint : NULL, "native",
		*err->native ? err->native : NULL, "at", pt_log_on(PT_LOG_DEBUG) ? where : NULL, pair[0], pair[1], pair[2],
		pair[3], pair[4], pair[5], NULL);
}
