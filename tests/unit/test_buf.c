#include "base/buf.h"
#include "../tap.h"

int main(void)
{
	struct pt_err e = { 0 };
	static const struct {
		const char *in, *out;
		size_t n;
	} json[] = {
		{ "", "\"\"", 0 },
		{ "a\"b", "\"a\\\"b\"", 3 },
		{ "\n\x01", "\"\\n\\u0001\"", 2 },
		{ "\\", "\"\\\\\"", 1 },
		{ "\xc3\xa9\xff", "\"\xc3\xa9\xef\xbf\xbd\"", 3 },
		{ "\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\"", 2 },
		{ "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"", 3 }, /* a surrogate is not UTF-8 */
	};
	static const struct {
		const char *plain, *coded;
	} b64[] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foobar", "Zm9vYmFy" } };

	for (size_t i = 0; i < PT_COUNT(json); i++) {
		pt_auto_buf b = PT_BUF_INIT(64);

		pt_buf_json(&b, json[i].in, json[i].n);
		ok(pt_buf_done(&b, &e) == 0, "json %zu", i);
		is_str(b.p, json[i].out, "json text %zu", i);
	}
	for (size_t i = 0; i < PT_COUNT(b64); i++) {
		pt_auto_buf b = PT_BUF_INIT(64);
		pt_auto_buf back = PT_BUF_INIT(64);

		pt_buf_base64(&b, b64[i].plain, strlen(b64[i].plain));
		is_str(b.p, b64[i].coded, "base64 %zu", i);
		ok(pt_base64_decode(b.p, b.len, &back, &e) == 0, "decodes");
		is_str(back.p, b64[i].plain, "base64 back %zu", i);
	}
	{
		pt_auto_buf b = PT_BUF_INIT(64);

		ok(pt_base64_decode("Zg==x", 5, &b, &e) == PT_E_INVALID, "text after the padding is refused");
		ok(pt_base64_decode("Z", 1, &b, &e) == PT_E_INVALID, "half a byte is refused");
	}
	{
		pt_auto_buf b = PT_BUF_INIT(8);

		pt_buf_str(&b, "1234567");
		ok(pt_buf_done(&b, &e) == 0, "7 bytes fit in 8");
		pt_buf_str(&b, "8");
		pt_buf_str(&b, "");
		ok(pt_buf_done(&b, &e) == PT_E_TOO_LARGE, "the 8th is refused, and that sticks");
		is_str(b.p, "1234567", "content kept");
		pt_buf_clear(&b);
		pt_buf_i64(&b, -12345);
		is_str(b.p, "-12345", "cleared and used again");
	}
	{
		pt_auto_buf b = PT_BUF_INIT(64);

		pt_buf_i64(&b, INT64_MIN);
		is_str(b.p, "-9223372036854775808", "smallest integer");
	}
	pt_err_set_(&e, PT_E_TIMEOUT, 110, "f", 1, "dial %s", "db");
	(void)pt_err_wrap(&e, e.code, "open store");
	is_str(e.msg, "open store: dial db: Connection timed out", "wrap");
	ok(pt_code_http(e.code) == 504 && pt_code_retryable(e.code), "one table gives status and retry");
	is_str(pt_code_wire(PT_E_SOURCE_AUTH), "source_auth_failed", "wire name");
	ok(pt_code_from_wire("source_auth_failed") == PT_E_SOURCE_AUTH, "and back");
	{
		char big[1000];

		memset(big, 'x', sizeof(big) - 1);
		big[sizeof(big) - 1] = 0;
		(void)pt_fail(&e, PT_E_INVALID, "%s", big);
		ok(strlen(e.msg) == sizeof(e.msg) - 1 && !strcmp(e.msg + strlen(e.msg) - 3, "..."), "clipped");
	}
	return tap_end();
}
