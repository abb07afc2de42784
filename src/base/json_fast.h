/* The quick path of pt_json_parse() (base/shape.h).  Internal to src/base. */
#ifndef PT_BASE_JSON_FAST_H
#define PT_BASE_JSON_FAST_H
#include <jansson.h>

/* What jansson would give with JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, at most 64 levels deep; NULL = ask jansson. */
json_t *pt_json_fast(const char *text, size_t n);
#endif
