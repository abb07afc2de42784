#include "base/shape.h"
#include "base/json_fast.h"
#include "base/value_text.h"
#include <stdio.h>

enum { MAX_DEPTH = 64, DEFAULT_STR_MAX = 64 * 1024, DEFAULT_LIST_MAX = 10000 };

static void *at(const struct pt_field *f, const void *base)
{
	return (char *)(uintptr_t)base + f->offset;
}

const char *pt_json_type_name(const json_t *j)
{
	switch (j ? json_typeof(j) : JSON_NULL) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	default:
		return "null";
	}
}

const struct pt_field *pt_shape_field(const struct pt_shape *sh, const char *name)
{
	for (size_t i = 0; i < sh->n; i++)
		if (strcmp(sh->fields[i].name, name) == 0)
			return &sh->fields[i];
	return NULL;
}

static int wrong(const struct pt_field *f, const json_t *j, const char *want, struct pt_err *err)
{
	return pt_fail(err, PT_E_INVALID, "%s: expected %s, got %s", f->name, want, pt_json_type_name(j));
}

static int allowed(const struct pt_field *f, const char *s, struct pt_err *err)
{
	char list[200] = "";
	size_t len = 0;

	if (!f->values)
		return PT_OK;
	for (const char *const *v = f->values; *v; v++) {
		if (strcmp(*v, s) == 0)
			return PT_OK;
		if (len < sizeof(list))
			len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", *v);
	}
	return pt_fail(err, PT_E_INVALID, "%s: '%.60s' is not one of %s", f->name, s, list);
}

static int decode_str(const struct pt_field *f, const json_t *j, char **ret, struct pt_err *err)
{
	size_t n = json_string_length(j), max = f->max ? (size_t)f->max : DEFAULT_STR_MAX;
	const char *s = json_string_value(j);

	if (!json_is_string(j))
		return wrong(f, j, "a string", err);
	if (n > max)
		return pt_fail(err, PT_E_INVALID, "%s: %zu bytes, at most %zu are allowed", f->name, n, max);
	if (f->min > 0 && n < (size_t)f->min)
		return pt_fail(err, PT_E_INVALID, "%s: %zu bytes, at least %zu are needed", f->name, n, (size_t)f->min);
	if (memchr(s, 0, n))
		return pt_fail(err, PT_E_INVALID, "%s: holds a NUL character", f->name);
	if (allowed(f, s, err) < 0)
		return PT_E_INVALID;
	*ret = strdup(s);
	return *ret ? PT_OK : pt_fail_oom(err);
}

/* Lists grow at powers of two, so that the capacity is derived from n and nothing else is kept. */
static size_t list_cap(size_t n)
{
	size_t cap = 1;

	while (cap < n)
		cap *= 2;
	return cap;
}

static int check_items(const struct pt_field *f, const json_t *j, struct pt_err *err)
{
	size_t n = json_array_size(j), max = f->max ? (size_t)f->max : DEFAULT_LIST_MAX;

	if (!json_is_array(j))
		return wrong(f, j, "an array", err);
	if (n > max)
		return pt_fail(err, PT_E_INVALID, "%s: %zu items, at most %zu are allowed", f->name, n, max);
	if (f->min > 0 && n < (size_t)f->min)
		return pt_fail(err, PT_E_INVALID, "%s: %zu items, at least %lld", f->name, n, (long long)f->min);
	return PT_OK;
}

static int decode_list(const struct pt_field *f, const json_t *j, struct pt_list *l, struct pt_err *err)
{
	size_t n = json_array_size(j), size = f->type == PT_T_LIST ? f->sub->size : sizeof(char *);

	if (check_items(f, j, err) < 0)
		return PT_E_INVALID;
	if (!n)
		return PT_OK;
	l->items = calloc(list_cap(n), size);
	if (!l->items)
		return pt_fail_oom(err);
	for (; l->n < n; l->n++) {
		void *item = (char *)l->items + l->n * size;
		const json_t *e = json_array_get(j, l->n);
		struct pt_field one = *f;
		int rc;

		one.min = one.max = 0; /* those are the list's */
		rc = f->type == PT_T_LIST ? pt_shape_decode(f->sub, e, item, err) : decode_str(&one, e, item, err);
		if (rc < 0)
			return f->type == PT_T_LIST ? pt_err_wrap(err, rc, "%s[%zu]", f->name, l->n) : rc;
	}
	return PT_OK;
}

/* What the document has at most as compact text: to look at a small one does not mean to write it. */
static size_t most_bytes(const json_t *j)
{
	const char *key;
	json_t *value;
	size_t i, n = 2;

	switch (json_typeof(j)) {
	case JSON_OBJECT:
		json_object_foreach((json_t *)(uintptr_t)j, key, value)
			n += 6 * strlen(key) + 4 + most_bytes(value);
		return n;
	case JSON_ARRAY:
		json_array_foreach(j, i, value)
			n += 1 + most_bytes(value);
		return n;
	case JSON_STRING:
		return 6 * json_string_length(j) + 2;
	default:
		return 40; /* a number */
	}
}

static int take_objects(const struct pt_field *f, const json_t *j, json_t **ret, struct pt_err *err)
{
	json_t *value;
	size_t i;

	if (check_items(f, j, err) < 0)
		return PT_E_INVALID;
	json_array_foreach(j, i, value)
		if (!json_is_object(value))
			return pt_fail(err, PT_E_INVALID, "%s[%zu]: expected an object, got %s", f->name, i,
				       pt_json_type_name(value));
	*ret = json_incref((json_t *)(uintptr_t)j);
	return PT_OK;
}

static int decode_json(const struct pt_field *f, const json_t *j, json_t **ret, struct pt_err *err)
{
	const char *key;
	json_t *value;

	if ((f->flags & (PT_OBJECT | PT_STRING_MAP)) && !json_is_object(j))
		return wrong(f, j, "an object", err);
	if (f->flags & PT_STRING_MAP)
		json_object_foreach((json_t *)(uintptr_t)j, key, value)
			if (!json_is_string(value))
				return pt_fail(err, PT_E_INVALID, "%s: '%.60s': expected a string, got %s", f->name, key,
					       pt_json_type_name(value));
	if (f->flags & PT_OBJECTS)
		return take_objects(f, j, ret, err);
	if (f->max > 0 && most_bytes(j) > (size_t)f->max &&
	    json_dumpb(j, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) > (size_t)f->max)
		return pt_fail(err, PT_E_INVALID, "%s: more than %lld bytes of JSON", f->name, (long long)f->max);
	*ret = json_incref((json_t *)(uintptr_t)j);
	return PT_OK;
}

static int decode_field(const struct pt_field *f, const json_t *j, void *base, struct pt_err *err)
{
	void *p = at(f, base);

	switch (f->type) {
	case PT_T_ID: {
		size_t n = json_string_length(j);

		if (!json_is_string(j))
			return wrong(f, j, "a string", err);
		if (n >= PT_ID_SIZE || memchr(json_string_value(j), 0, n))
			return pt_fail(err, PT_E_INVALID, "%s: not an id", f->name);
		memcpy(p, json_string_value(j), n + 1);
		return PT_OK;
	}
	case PT_T_STR:
		return decode_str(f, j, p, err);
	case PT_T_I64: {
		int64_t v = json_integer_value(j);

		if (!json_is_integer(j))
			return wrong(f, j, "an integer", err);
		if (f->max > f->min && (v < f->min || v > f->max))
			return pt_fail(err, PT_E_INVALID, "%s: %lld is not between %lld and %lld", f->name, (long long)v,
				       (long long)f->min, (long long)f->max);
		*(int64_t *)p = v;
		return PT_OK;
	}
	case PT_T_BOOL:
		if (!json_is_boolean(j))
			return wrong(f, j, "a boolean", err);
		*(bool *)p = json_is_true(j);
		return PT_OK;
	case PT_T_F64:
		if (!json_is_number(j))
			return wrong(f, j, "a number", err);
		*(double *)p = json_number_value(j);
		return PT_OK;
	case PT_T_JSON:
		return decode_json(f, j, p, err);
	case PT_T_BYTES: {
		struct pt_bytes *d = p;
		pt_auto_buf b = PT_BUF_INIT((f->max ? (size_t)f->max : DEFAULT_STR_MAX) + 1);

		if (!json_is_string(j))
			return wrong(f, j, "a base64 string", err);
		if (pt_base64_decode(json_string_value(j), json_string_length(j), &b, err) < 0)
			return pt_err_wrap(err, PT_E_INVALID, "%s", f->name);
		d->p = (unsigned char *)pt_buf_detach(&b, &d->n);
		return d->p ? PT_OK : pt_fail_oom(err);
	}
	case PT_T_SHAPE:
		return pt_err_wrap(err, pt_shape_decode(f->sub, j, p, err), "%s", f->name);
	case PT_T_LIST:
	case PT_T_STRS:
		return decode_list(f, j, p, err);
	}
	return pt_fail(err, PT_E_INTERNAL, "%s: unknown field type", f->name);
}

static int decode_object(const struct pt_shape *sh, const json_t *j, void *out, struct pt_err *err)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)j, key, value) {
		const struct pt_field *f = pt_shape_field(sh, key);
		int rc;

		if (!f && sh->open)
			continue;
		if (!f)
			return pt_fail(err, PT_E_INVALID, "unknown member '%.60s' in %s", key, sh->name);
		if (json_is_null(value) && (f->type != PT_T_JSON || f->flags & (PT_OBJECT | PT_STRING_MAP | PT_OBJECTS)))
			continue; /* null means absent */
		rc = decode_field(f, value, out, err);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < sh->n; i++) {
		const struct pt_field *f = &sh->fields[i];
		const json_t *v = json_object_get(j, f->name);
		bool gone = !v || json_is_null(v) || (f->type == PT_T_ID && !*json_string_value(v));

		if (gone && f->type == PT_T_I64)
			*(int64_t *)at(f, out) = f->def;
		if (gone && (f->flags & PT_REQUIRED))
			return pt_fail(err, PT_E_INVALID, "missing member '%s' in %s", f->name, sh->name);
	}
	return PT_OK;
}

int pt_shape_decode(const struct pt_shape *sh, const json_t *j, void *out, struct pt_err *err)
{
	int rc;

	memset(out, 0, sh->size);
	if (!json_is_object(j))
		return pt_fail(err, PT_E_INVALID, "%s: expected an object, got %s", sh->name, pt_json_type_name(j));
	rc = decode_object(sh, j, out, err);
	if (rc < 0)
		pt_shape_release(sh, out);
	return rc;
}

/* jansson's own nesting limit is 2048; ours is far lower, so that no recursion over a document can run deep. */
static int depth_ok(const char *text, size_t n, struct pt_err *err)
{
	int depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
		} else if (c == '"') {
			quoted = true;
		} else if (c == '{' || c == '[') {
			if (++depth > MAX_DEPTH)
				return pt_fail(err, PT_E_INVALID, "JSON is nested deeper than %d levels", MAX_DEPTH);
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return PT_OK;
}

int pt_json_parse(const char *text, size_t n, json_t **ret, struct pt_err *err)
{
	json_error_t je;
	json_t *j = pt_json_fast(text, n);

	if (!j && depth_ok(text, n, err) < 0)
		return PT_E_INVALID;
	if (!j)
		j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
	if (!j)
		return pt_fail(err, PT_E_INVALID, "not valid JSON at line %d, column %d: %s", je.line, je.column, je.text);
	*ret = j;
	return PT_OK;
}

int pt_shape_parse(const struct pt_shape *sh, const char *text, size_t n, void *out, struct pt_err *err)
{
	json_t *j = NULL;
	int rc;

	memset(out, 0, sh->size);
	rc = pt_json_parse(text, n, &j, err);
	if (rc < 0)
		return rc;
	rc = pt_shape_decode(sh, j, out, err);
	json_decref(j);
	return rc;
}

/* Not jansson's: it writes 0.1 with 17 digits or loses some with fewer.  The depth is bounded by pt_json_parse(). */
void pt_json_write(struct pt_buf *b, const json_t *j)
{
	char num[PT_TEXT_FLOAT];
	const char *key, *sep = "";
	json_t *v;
	size_t i;

	if (!j) { /* what json_pack() gives without memory */
		b->bad = PT_E_INTERNAL;
		return;
	}
	switch (json_typeof(j)) {
	case JSON_OBJECT:
		pt_buf_chr(b, '{');
		json_object_foreach((json_t *)(uintptr_t)j, key, v) {
			pt_buf_str(b, sep);
			pt_buf_json(b, key, strlen(key));
			pt_buf_chr(b, ':');
			pt_json_write(b, v);
			sep = ",";
		}
		pt_buf_chr(b, '}');
		break;
	case JSON_ARRAY:
		pt_buf_chr(b, '[');
		json_array_foreach(j, i, v) {
			pt_buf_str(b, sep);
			pt_json_write(b, v);
			sep = ",";
		}
		pt_buf_chr(b, ']');
		break;
	case JSON_STRING:
		pt_buf_json(b, json_string_value(j), json_string_length(j));
		break;
	case JSON_INTEGER:
		pt_buf_i64(b, json_integer_value(j));
		break;
	case JSON_REAL:
		pt_buf_add(b, num, (size_t)(pt_text_f64(num, json_real_value(j)) - num));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		pt_buf_str(b, json_is_true(j) ? "true" : "false");
		break;
	case JSON_NULL:
		pt_buf_str(b, "null");
		break;
	}
}

static bool absent(const struct pt_field *f, const void *p);

/* Is there nothing to say about this member?  (absent() knows numbers as always present, unless they say otherwise.) */
static bool empty(const struct pt_field *f, const void *p)
{
	struct pt_field lax = *f;

	lax.flags = (f->flags | PT_SKIP_ZERO) & ~(unsigned)PT_REQUIRED;
	return absent(&lax, p);
}

/* Left out when written? */
static bool absent(const struct pt_field *f, const void *p)
{
	switch (f->type) {
	case PT_T_ID:
		return !*(const char *)p;
	case PT_T_STR:
		return !*(char *const *)p;
	case PT_T_I64:
		return (f->flags & PT_SKIP_ZERO) && !*(const int64_t *)p;
	case PT_T_BOOL:
		return (f->flags & PT_SKIP_ZERO) && !*(const bool *)p;
	case PT_T_F64:
		return (f->flags & PT_SKIP_ZERO) && *(const double *)p == 0;
	case PT_T_JSON:
		return !*(json_t *const *)p;
	case PT_T_BYTES:
		return !((const struct pt_bytes *)p)->p;
	case PT_T_SHAPE:
		for (size_t i = 0; i < f->sub->n; i++)
			if (!empty(&f->sub->fields[i], at(&f->sub->fields[i], p)))
				return false;
		return !(f->flags & PT_REQUIRED);
	case PT_T_LIST:
	case PT_T_STRS:
		return !(f->flags & PT_REQUIRED) && !((const struct pt_list *)p)->n;
	}
	return true;
}

static void write_value(const struct pt_field *f, const void *p, struct pt_buf *b)
{
	const struct pt_list *l = p;
	char num[40];

	switch (f->type) {
	case PT_T_ID:
		pt_buf_json(b, p, strlen(p));
		break;
	case PT_T_STR:
		pt_buf_json(b, *(char *const *)p, strlen(*(char *const *)p));
		break;
	case PT_T_I64:
		pt_buf_i64(b, *(const int64_t *)p);
		break;
	case PT_T_BOOL:
		pt_buf_str(b, *(const bool *)p ? "true" : "false");
		break;
	case PT_T_F64:
		snprintf(num, sizeof(num), "%.17g", *(const double *)p);
		pt_buf_str(b, strpbrk(num, "ni") ? "null" : num); /* JSON knows no nan or inf */
		break;
	case PT_T_JSON:
		pt_json_write(b, *(json_t *const *)p);
		break;
	case PT_T_BYTES:
		pt_buf_chr(b, '"');
		pt_buf_base64(b, ((const struct pt_bytes *)p)->p, ((const struct pt_bytes *)p)->n);
		pt_buf_chr(b, '"');
		break;
	case PT_T_SHAPE:
		pt_shape_write(f->sub, p, b);
		break;
	case PT_T_LIST:
	case PT_T_STRS:
		pt_buf_chr(b, '[');
		for (size_t i = 0; i < l->n; i++) {
			if (i)
				pt_buf_chr(b, ',');
			if (f->type == PT_T_LIST)
				pt_shape_write(f->sub, (const char *)l->items + i * f->sub->size, b);
			else
				pt_buf_json(b, ((char **)l->items)[i], strlen(((char **)l->items)[i]));
		}
		pt_buf_chr(b, ']');
		break;
	}
}

void pt_shape_write(const struct pt_shape *sh, const void *in, struct pt_buf *b)
{
	bool first = true;

	pt_buf_chr(b, '{');
	for (size_t i = 0; i < sh->n; i++) {
		const struct pt_field *f = &sh->fields[i];
		const void *p = at(f, in);

		const char *raw = f->text ? *(char *const *)((const char *)in + f->text) : NULL;

		if (!raw && absent(f, p))
			continue;
		if (!first)
			pt_buf_chr(b, ',');
		first = false;
		pt_buf_json(b, f->name, strlen(f->name));
		pt_buf_chr(b, ':');
		if (raw)
			pt_buf_str(b, raw);
		else
			write_value(f, p, b);
	}
	pt_buf_chr(b, '}');
}

void pt_shape_release(const struct pt_shape *sh, void *base)
{
	for (size_t i = 0; i < sh->n; i++) {
		const struct pt_field *f = &sh->fields[i];
		void *p = at(f, base);
		struct pt_list *l = p;

		switch (f->type) {
		case PT_T_STR:
			if (*(char **)p && (f->flags & PT_SECRET))
				explicit_bzero(*(char **)p, strlen(*(char **)p));
			free(*(char **)p);
			break;
		case PT_T_JSON:
			json_decref(*(json_t **)p);
			if (f->text)
				free(*(char **)((char *)base + f->text));
			break;
		case PT_T_BYTES:
			if (((struct pt_bytes *)p)->p && (f->flags & PT_SECRET))
				explicit_bzero(((struct pt_bytes *)p)->p, ((struct pt_bytes *)p)->n);
			free(((struct pt_bytes *)p)->p);
			break;
		case PT_T_SHAPE:
			pt_shape_release(f->sub, p);
			break;
		case PT_T_LIST:
			for (size_t k = 0; k < l->n; k++)
				pt_shape_release(f->sub, (char *)l->items + k * f->sub->size);
			free(l->items);
			break;
		case PT_T_STRS:
			for (size_t k = 0; k < l->n; k++)
				free(((char **)l->items)[k]);
			free(l->items);
			break;
		default:
			break;
		}
	}
	memset(base, 0, sh->size);
}

int pt_list_append(struct pt_list *l, size_t item_size, const void *item, struct pt_err *err)
{
	if (!l->n || list_cap(l->n) == l->n) {
		void *p = realloc(l->items, list_cap(l->n + 1) * item_size);

		if (!p)
			return pt_fail_oom(err);
		l->items = p;
	}
	memcpy((char *)l->items + l->n++ * item_size, item, item_size);
	return PT_OK;
}
