/* Write a JSON document into a buffer by hand, commas included: for answers whose form is fixed in code.
 *
 *   pt_jw_open(b, NULL, '{'); pt_jw_str(b, "id", id); pt_jw_open(b, "items", '['); … pt_jw_close(b, ']'); pt_jw_close(b, '}');
 *
 * A NULL key writes an array element (or the document itself). */
#ifndef PT_BASE_JSON_WRITE_H
#define PT_BASE_JSON_WRITE_H
#include "base/buf.h"

void pt_jw_key(struct pt_buf *b, const char *key);                /* comma if one is due, then "key": */
void pt_jw_open(struct pt_buf *b, const char *key, char bracket); /* '{' or '[' */
void pt_jw_close(struct pt_buf *b, char bracket);
void pt_jw_str(struct pt_buf *b, const char *key, const char *value); /* NULL or "": left out */
void pt_jw_i64(struct pt_buf *b, const char *key, int64_t value);
void pt_jw_bool(struct pt_buf *b, const char *key, bool value);
void pt_jw_time(struct pt_buf *b, const char *key, int64_t wall_ms); /* RFC 3339; 0 is left out */
void pt_jw_raw(struct pt_buf *b, const char *key, const char *json); /* JSON text as it is; NULL or "": left out */
#endif
