/* Writing a result's document: JSON text piece by piece, checked once at the end by pt_doc_done(). */
#ifndef PT_OP_DOC_H
#define PT_OP_DOC_H
#include "base/clock.h"
#include "op/op.h"

/* A result's head is at most 1 MiB (docs/protocol.md); what is left is for its other members. */
enum { PT_DOC_MAX = 960 * 1024 };
#define PT_DOC_INIT PT_BUF_INIT(PT_DOC_MAX)

/* The comma that is due, then the member's name; key NULL: an array's next element. */
static inline void pt_doc_key(struct pt_buf *b, const char *key)
{
	if (b->len && !strchr("{[:", b->p[b->len - 1]))
		pt_buf_chr(b, ',');
	if (key) {
		pt_buf_json(b, key, strlen(key));
		pt_buf_chr(b, ':');
	}
}
static inline void pt_doc_str(struct pt_buf *b, const char *key, const char *value) /* NULL or "": the member is left out */
{
	if (!value || !*value)
		return;
	pt_doc_key(b, key);
	pt_buf_json(b, value, strlen(value));
}
/* n bytes of foreign text.  What is not UTF-8, and NUL, which no document may hold, becomes U+FFFD. */
void pt_doc_text(struct pt_buf *b, const char *key, const char *p, size_t n);
static inline void pt_doc_int(struct pt_buf *b, const char *key, int64_t v)
{
	pt_doc_key(b, key);
	pt_buf_i64(b, v);
}
static inline void pt_doc_bool(struct pt_buf *b, const char *key, bool v)
{
	pt_doc_key(b, key);
	pt_buf_str(b, v ? "true" : "false");
}
static inline void pt_doc_open(struct pt_buf *b, const char *key, char bracket)
{
	pt_doc_key(b, key);
	pt_buf_chr(b, bracket);
}
/* Microseconds as milliseconds with a fraction. */
void pt_doc_ms(struct pt_buf *b, const char *key, int64_t us);
/* {"code","message",…}, as everywhere. */
void pt_doc_err(struct pt_buf *b, const char *key, const struct pt_err *err);
/* b is a whole JSON object: make it the result's document.  TOO_LARGE. */
int pt_doc_done(struct pt_op_run *run, const struct pt_buf *b, struct pt_err *err) PT_MUSTCHECK;

/* Of a failed check (network.*): does err end the operation, or is it the check's answer ("ok": false)? */
static inline bool pt_check_is_answer(enum pt_code code)
{
	return code != PT_E_BLOCKED && code != PT_E_INVALID && code != PT_E_INTERNAL && code != PT_E_CANCELLED &&
	       code != PT_E_DEADLINE && code != PT_E_LIMIT;
}
#endif
