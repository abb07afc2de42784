/* JSON: a document is accepted when jansson accepts it, as the same value; what is accepted is written in a form that reads as equal; any bytes as a string give valid JSON. */
#include "base/shape.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	pt_auto_buf b = PT_BUF_INIT(16 << 20);
	json_t *j = NULL, *again = NULL, *ref;
	struct pt_err e = { 0 };

	ref = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
	if (pt_json_parse((const char *)data, size, &j, &e) < 0)
		pt_assert(!ref || strstr(e.msg, "nested"));
	else
		pt_assert(ref && json_equal(j, ref));
	json_decref(ref);
	if (j) {
		pt_json_write(&b, j);
		pt_assert(pt_buf_done(&b, &e) == 0);
		pt_assert(pt_json_parse(b.p, b.len, &again, &e) == 0);
		pt_assert(json_equal(j, again));
		json_decref(j);
		json_decref(again);
	}
	pt_buf_clear(&b);
	pt_buf_json(&b, (const char *)data, size);
	pt_assert(pt_buf_done(&b, &e) == 0);
	again = json_loadb(b.p, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	pt_assert(json_is_string(again));
	json_decref(again);
	return 0;
}
