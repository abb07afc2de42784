/* Shapes and JSON documents: what every type reads and writes, and the limits of documents. */
#include "base/shape.h"
#include "../tap.h"
#include <math.h>

struct part {
	int64_t n;
	char *s;
	bool b;
	double f;
};
static const struct pt_field part_fields[] = {
	PT_F(struct part, n, PT_T_I64, 0),
	PT_F(struct part, s, PT_T_STR, PT_SECRET),
	PT_F(struct part, b, PT_T_BOOL, 0),
	PT_F(struct part, f, PT_T_F64, 0),
};
static const struct pt_shape part_shape = PT_SHAPE("part", struct part, part_fields);

struct all {
	char id[PT_ID_SIZE];
	char *name, *kind;
	int64_t n, level;
	bool on;
	double ratio;
	json_t *any, *object, *map;
	struct pt_bytes raw;
	struct part part, always;
	struct pt_list parts, words;
};
static const char *const kinds[] = { "a", "b", NULL };
static const struct pt_field all_fields[] = {
	PT_F(struct all, id, PT_T_ID, PT_REQUIRED),
	PT_F(struct all, name, PT_T_STR, 0, .min = 2, .max = 5),
	PT_F(struct all, kind, PT_T_STR, 0, .values = kinds),
	PT_F(struct all, n, PT_T_I64, PT_SKIP_ZERO, .min = -3, .max = 3),
	PT_F(struct all, level, PT_T_I64, 0, .def = 7),
	PT_F(struct all, on, PT_T_BOOL, PT_SKIP_ZERO),
	PT_F(struct all, ratio, PT_T_F64, PT_SKIP_ZERO),
	PT_F(struct all, any, PT_T_JSON, 0, .max = 20),
	PT_F(struct all, object, PT_T_JSON, PT_OBJECT),
	PT_F(struct all, map, PT_T_JSON, PT_STRING_MAP),
	PT_F(struct all, raw, PT_T_BYTES, PT_SECRET, .max = 4),
	PT_F(struct all, part, PT_T_SHAPE, 0, .sub = &part_shape),
	PT_F(struct all, always, PT_T_SHAPE, PT_REQUIRED, .sub = &part_shape),
	PT_F(struct all, parts, PT_T_LIST, 0, .sub = &part_shape, .max = 3),
	PT_F(struct all, words, PT_T_STRS, 0, .max = 3),
};
static const struct pt_shape all_shape = PT_SHAPE("all", struct all, all_fields);

#define ALWAYS  "\"always\":{\"n\":1,\"b\":false,\"f\":0}"
#define D(more) "{\"id\":\"x\"," ALWAYS more "}"
/* good: want = NULL is the same text; bad: want is in the error */
static const struct {
	const char *in, *good, *bad;
} t[] = {
	{ D(""), "{\"id\":\"x\",\"level\":7," ALWAYS "}", NULL },
	{ D(",\"level\":0"), "{\"id\":\"x\",\"level\":0," ALWAYS "}", NULL },
	{ D(",\"level\":null,\"name\":null,\"any\":null"), "{\"id\":\"x\",\"level\":7,\"any\":null," ALWAYS "}", NULL },
	{ D(",\"name\":\"\\u00e9\""), "{\"id\":\"x\",\"name\":\"\xc3\xa9\",\"level\":7," ALWAYS "}", NULL },
	{ "{\"id\":\"x\",\"name\":\"ab\",\"kind\":\"b\",\"n\":-3,\"level\":9223372036854775807,\"on\":true,\"ratio\":0.5,\"any\":[1,null],"
	  "\"object\":{\"a\":{}},\"map\":{\"k\":\"v\"},\"raw\":\"AQID\",\"part\":{\"n\":0,\"s\":\"q\",\"b\":true,\"f\":2}," ALWAYS
	  ",\"parts\":[{\"n\":1,\"b\":false,\"f\":0},{\"n\":2,\"b\":false,\"f\":0},{\"n\":3,\"b\":false,\"f\":0}],\"words\":[\"a\",\"\"]}",
	  NULL, NULL },
	{ D(",\"ratio\":3"), "{\"id\":\"x\",\"level\":7,\"ratio\":3," ALWAYS "}", NULL },
	{ D(",\"part\":{}"), "{\"id\":\"x\",\"level\":7," ALWAYS "}", NULL },
	{ D(",\"part\":{\"b\":true}"), "{\"id\":\"x\",\"level\":7,\"part\":{\"n\":0,\"b\":true,\"f\":0}," ALWAYS "}", NULL },
	{ "{\"id\":\"x\",\"always\":{}}", "{\"id\":\"x\",\"level\":7,\"always\":{\"n\":0,\"b\":false,\"f\":0}}", NULL },
	{ "{" ALWAYS "}", NULL, "missing member 'id' in all" },
	{ "{\"id\":\"\"," ALWAYS "}", NULL, "missing member 'id' in all" },
	{ "{\"id\":\"x\"}", NULL, "missing member 'always'" },
	{ "{\"id\":\"0123456789012345678901234567890123456789\"}", NULL, "id: not an id" },
	{ "{\"id\":5}", NULL, "id: expected a string, got an integer" },
	{ D(",\"x\":1"), NULL, "unknown member 'x' in all" },
	{ D(",\"name\":\"a\""), NULL, "name: 1 bytes, at least 2" },
	{ D(",\"name\":\"abcdef\""), NULL, "name: 6 bytes, at most 5" },
	{ D(",\"name\":\"a\\u0000b\""), NULL, "" }, /* the parser or the shape: refused */
	{ D(",\"name\":true"), NULL, "name: expected a string, got a boolean" },
	{ D(",\"kind\":\"c\""), NULL, "kind: 'c' is not one of a, b" },
	{ D(",\"n\":4"), NULL, "n: 4 is not between -3 and 3" },
	{ D(",\"n\":1.0"), NULL, "n: expected an integer, got a number" },
	{ D(",\"n\":9223372036854775808"), NULL, "" },
	{ D(",\"on\":\"true\""), NULL, "on: expected a boolean, got a string" },
	{ D(",\"ratio\":\"1\""), NULL, "ratio: expected a number, got a string" },
	{ D(",\"any\":\"0123456789012345678\""), NULL, "any: more than 20 bytes" },
	{ D(",\"object\":[]"), NULL, "object: expected an object, got an array" },
	{ D(",\"map\":{\"k\":1}"), NULL, "map: 'k': expected a string, got an integer" },
	{ D(",\"raw\":\"AQIDBAU=\""), NULL, "raw: text passes its limit of 4 bytes" },
	{ D(",\"raw\":\"A?\""), NULL, "raw: not base64" },
	{ D(",\"part\":[]"), NULL, "part: part: expected an object, got an array" },
	{ D(",\"part\":{\"n\":\"1\"}"), NULL, "part: n: expected an integer" },
	{ D(",\"parts\":[{},{\"s\":1}]"), NULL, "parts[1]: s: expected a string" },
	{ D(",\"parts\":[{},{},{},{}]"), NULL, "parts: 4 items, at most 3" },
	{ D(",\"words\":[\"a\",null]"), NULL, "words: expected a string, got null" },
	{ D(",\"id\":\"y\""), NULL, "duplicate" },
	{ D(",\"part\":{\"n\":1,\"n\":2}"), NULL, "duplicate" },
	{ "null", NULL, "all: expected an object, got null" },
	{ "", NULL, "not valid JSON at line 1" },
	{ "{} {}", NULL, "not valid JSON" },
	{ "{'id':1}", NULL, "not valid JSON" },
	{ "{\"id\":\"\xff\"}", NULL, "not valid JSON" },
};

static void documents(void)
{
	static const struct all zero;
	struct pt_err e = { 0 };
	struct all a;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		int rc = pt_shape_parse(&all_shape, t[i].in, strlen(t[i].in), &a, &e);
		pt_auto_buf b = PT_BUF_INIT(4096);

		if (t[i].bad) {
			ok(rc == PT_E_INVALID && strstr(e.msg, t[i].bad), "bad %zu: %s", i, e.msg);
		} else {
			ok(rc == 0, "good %zu: %s", i, rc ? e.msg : "");
			pt_shape_write(&all_shape, &a, &b);
			is_str(b.p, t[i].good ? t[i].good : t[i].in, "written");
			pt_shape_release(&all_shape, &a);
		}
		ok(memcmp(&a, &zero, sizeof(a)) == 0, "zeroed");
	}
	is_str(pt_shape_field(&all_shape, "kind")->name, "kind", "a field by name");
	ok(!pt_shape_field(&all_shape, "kin"), "no such field");
}

/* Parse n opening brackets and as many closing ones. */
static int nested(int n, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(4096);
	json_t *j = NULL;
	int rc;

	for (int i = 0; i < n; i++)
		pt_buf_chr(&b, '[');
	for (int i = 0; i < n; i++)
		pt_buf_chr(&b, ']');
	rc = pt_json_parse(b.p, b.len, &j, err);
	json_decref(j);
	return rc;
}

/* pt_json_parse() has a quick path: every text gives what jansson gives, or is refused as jansson refuses it. */
static void same_as_jansson(void)
{
	static const char *const texts[] = {
		"{}",
		"[]",
		" [ ] ",
		"{ }x",
		"",
		" ",
		"null",
		"true",
		"false",
		"nul",
		"truex",
		"0",
		"-0",
		"-1",
		"01",
		"-",
		"1.5",
		"1e3",
		"-1.5e-7",
		"1.",
		"999999999999999999",
		"9223372036854775807",
		"9223372036854775808",
		"-9223372036854775808",
		"123456789012345678",
		"1234567890123456789",
		"\"\"",
		"\"a",
		"\"a\\\"b\"",
		"\"\\/\\b\\f\\n\\r\\t\\\\\"",
		"\"\\u0041\"",
		"\"\\u0000\"",
		"\"\\ud83d\\ude00\"",
		"\"\\ud83d\"",
		"\"\\x\"",
		"\"\\",
		"\"\\\"",
		"\"\t\"",
		"\"\x1f\"",
		"\"\x7f\"",
		"\"\xc3\xa9\"",
		"\"\xc3\"",
		"\"\xc0\x80\"",
		"\"\xed\xa0\x80\"",
		"\"\xf0\x9f\x98\x80\"",
		"\"\xf4\x90\x80\x80\"",
		"\"\xef\xbb\xbf\"",
		"\xef\xbb\xbf{}",
		"{\"a\":1,\"a\":2}",
		"{\"a\":1,\"b\":{\"a\":1}}",
		"{\"\":1}",
		"{\"a\\n\":1,\"a\\n\":1}",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\":1,}",
		"{a:1}",
		"{\"a\" : [ 1 , 2 ] }",
		"[1,]",
		"[,1]",
		"[1 2]",
		"[[[]]",
		"[[]]]",
		"[1],",
		"[\"\\n\",\"b\",{\"c\\t\":null}]",
		"\v1",
		"\"a\"\n\r\t ",
		"[1]\f",
		"+1",
		".5",
		"Infinity",
		"NaN",
		"'a'",
	};

	for (size_t i = 0; i < PT_COUNT(texts); i++) {
		json_t *ref = json_loadb(texts[i], strlen(texts[i]), JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL), *j = NULL;
		struct pt_err e = { 0 };
		int rc = pt_json_parse(texts[i], strlen(texts[i]), &j, &e);

		ok(ref ? rc == 0 && json_equal(j, ref) : rc == PT_E_INVALID, "text %zu: %s", i,
		   ref ? "the same value" : "refused");
		json_decref(j);
		json_decref(ref);
	}
}

static void json(void)
{
	static const char reals[] = "{\"b\":[0.1,-2.5e-7,1e300,3.0],\"a\":{},\"n\":null,\"t\":true}";
	struct pt_err e = { 0 };
	json_t *j = NULL;
	pt_auto_buf b = PT_BUF_INIT(64);

	ok(nested(64, &e) == 0, "64 levels");
	ok(nested(65, &e) == PT_E_INVALID && strstr(e.msg, "deeper than 64"), "not 65: %s", e.msg);
	ok(pt_json_parse("[\"[[[[\\\"[[[[\"]", 14, &j, &e) == 0, "brackets in strings do not count");
	pt_json_write(&b, j);
	is_str(b.p, "[\"[[[[\\\"[[[[\"]", "written");
	json_decref(j);
	pt_buf_clear(&b);
	ok(pt_json_parse(reals, strlen(reals), &j, &e) == 0, "reals");
	pt_json_write(&b, j);
	is_str(b.p, reals, "as short as they came, members in order");
	json_decref(j);
	same_as_jansson();
	ok(pt_json_parse("\"a\0b\"", 5, &j, &e) == PT_E_INVALID, "a NUL byte is no JSON");
	ok(pt_json_parse("{}\0", 3, &j, &e) == PT_E_INVALID, "nor behind it");
	is_str(pt_json_type_name(NULL), "null", "name of nothing");

	pt_buf_clear(&b);
	pt_json_write(&b, NULL);
	ok(pt_buf_done(&b, &e) == PT_E_INTERNAL, "nothing, which is what memory has run out gives");
	pt_buf_clear(&b);
	pt_shape_write(&part_shape, &(struct part) { .f = NAN }, &b);
	is_str(b.p, "{\"n\":0,\"b\":false,\"f\":null}", "no nan in JSON");
}

/* A list that was decoded has room for exactly what its number says: appending must not write behind it. */
static void lists(void)
{
	static const char three[] = D(",\"words\":[\"a\",\"b\",\"c\"]");
	struct pt_err e = { 0 };
	struct pt_list l = { 0 };
	struct all a;
	int bad = 0;

	ok(pt_shape_parse(&all_shape, three, strlen(three), &a, &e) == 0, "three words");
	for (int i = 0; i < 9; i++) {
		char *w = strdup("more");

		bad |= pt_list_append(&a.words, sizeof(w), &w, &e);
	}
	ok(bad == 0 && a.words.n == 12, "nine more");
	is_str(((char **)a.words.items)[2], "c", "the old ones are there");
	is_str(((char **)a.words.items)[11], "more", "and the new ones");
	pt_shape_release(&all_shape, &a);
	for (int64_t i = 0; i < 1000; i++)
		bad |= pt_list_append(&l, sizeof(i), &i, &e);
	ok(bad == 0 && l.n == 1000, "1000 items");
	for (int64_t i = 0; i < 1000; i++)
		bad |= ((int64_t *)l.items)[i] != i;
	is_int(bad, 0, "each in its place");
	free(l.items);
}

int main(void)
{
	documents();
	json();
	lists();
	return tap_end();
}
