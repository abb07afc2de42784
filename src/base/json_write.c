#include "base/json_write.h"
#include "base/clock.h"

void pt_jw_key(struct pt_buf *b, const char *key)
{
	char last = b->len ? b->p[b->len - 1] : '[';

	if (last != '{' && last != '[' && last != ':')
		pt_buf_chr(b, ',');
	if (key) {
		pt_buf_json(b, key, strlen(key));
		pt_buf_chr(b, ':');
	}
}

void pt_jw_open(struct pt_buf *b, const char *key, char bracket)
{
	pt_jw_key(b, key);
	pt_buf_chr(b, bracket);
}

void pt_jw_close(struct pt_buf *b, char bracket)
{
	pt_buf_chr(b, bracket);
}

void pt_jw_str(struct pt_buf *b, const char *key, const char *value)
{
	if (!value || !*value)
		return;
	pt_jw_key(b, key);
	pt_buf_json(b, value, strlen(value));
}

void pt_jw_i64(struct pt_buf *b, const char *key, int64_t value)
{
	pt_jw_key(b, key);
	pt_buf_i64(b, value);
}

void pt_jw_bool(struct pt_buf *b, const char *key, bool value)
{
	pt_jw_key(b, key);
	pt_buf_str(b, value ? "true" : "false");
}

void pt_jw_time(struct pt_buf *b, const char *key, int64_t wall_ms)
{
	char text[32];

	if (!wall_ms)
		return;
	pt_time_text(wall_ms, text);
	pt_jw_str(b, key, text);
}

void pt_jw_raw(struct pt_buf *b, const char *key, const char *json)
{
	if (!json || !*json)
		return;
	pt_jw_key(b, key);
	pt_buf_str(b, json);
}
