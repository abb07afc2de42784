/* Log lines on standard error, one write(2) each, in one of three formats; a ring of the newest lines is kept for the
 * `logs` operation.  Thread-safe.  Never hand a secret to these functions; values in URLs are the caller's duty. */
#ifndef PT_BASE_LOG_H
#define PT_BASE_LOG_H
#include "base/buf.h"

enum pt_log_level { PT_LOG_DEBUG, PT_LOG_INFO, PT_LOG_WARN, PT_LOG_ERROR };
enum pt_log_format {
	PT_LOG_JSON,  /* {"time":…,"level":…,"msg":…, fields} */
	PT_LOG_PLAIN, /* time level message key=value */
	PT_LOG_DEV,   /* short time, colours when standard error is a terminal */
};

/* level_name: debug|info|warn|error, format_name: json|plain|dev.  ring_bytes: memory for the ring, 0 = none. */
int pt_log_init(const char *level_name, const char *format_name, size_t ring_bytes, struct pt_err *err) PT_MUSTCHECK;
bool pt_log_on(enum pt_log_level level);

/* pt_info("lease taken", "operation", id, "attempt", n_as_text): pairs of strings, ended by NULL by the macro.  A NULL value
 * leaves its pair out. */
void pt_log_(enum pt_log_level level, const char *msg, ...) __attribute__((sentinel));
#define pt_debug(...) (pt_log_on(PT_LOG_DEBUG) ? pt_log_(PT_LOG_DEBUG, __VA_ARGS__, NULL) : (void)0)
#define pt_info(...)  pt_log_(PT_LOG_INFO, __VA_ARGS__, NULL)
#define pt_warn(...)  pt_log_(PT_LOG_WARN, __VA_ARGS__, NULL)
#define pt_error(...) pt_log_(PT_LOG_ERROR, __VA_ARGS__, NULL)
/* pt_log_err(level, msg, err, "operation", id): the error as fields (code, error, hint, native), then up to three pairs. */
void pt_log_err_(enum pt_log_level level, const char *msg, const struct pt_err *err, ...) __attribute__((sentinel));
#define pt_log_err(level, msg, ...) pt_log_err_(level, msg, __VA_ARGS__, NULL)
/* A number as text for a log pair; valid until the end of the full expression (thread-local, 8 slots). */
const char *pt_num(int64_t v);

/* Each line that is printed is handed to the sink too, in the same order, under the log's lock: fn must be quick and must not log.
 * After pt_log_sink(NULL, NULL) has returned it is not called any more. */
struct pt_log_line {
	int64_t at; /* wall ms */
	enum pt_log_level level;
	bool operation;   /* it has a field "operation" */
	const char *head; /* members of a JSON object: "level":…,"msg":… */
	size_t head_n;
	const char *fields; /* "key":"value" members, commas between them; may be empty */
	size_t fields_n;
};
void pt_log_sink(void (*fn)(void *arg, const struct pt_log_line *line), void *arg);

/* Append the newest lines of the ring as JSON lines, oldest first, at most max_lines, only those with a sequence number
 * above after.  Returns the sequence number of the last line (0 = ring empty). */
uint64_t pt_log_ring(struct pt_buf *out, uint64_t after, size_t max_lines);
#endif
