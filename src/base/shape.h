/* Shapes: a C struct described by a table of fields.  One description serves JSON in both directions (strict: unknown
 * members, wrong types and missing members are errors that name the member) and database rows (src/db).
 *
 *   struct pt_point { char id[PT_ID_SIZE]; int64_t x; char *note; };
 *   static const struct pt_field point_fields[] = {
 *           PT_F(struct pt_point, id, PT_T_ID, PT_REQUIRED),
 *           PT_F(struct pt_point, x, PT_T_I64, 0, .min = 0, .max = 100),
 *           PT_F(struct pt_point, note, PT_T_STR, 0, .max = 200),
 *   };
 *   const struct pt_shape pt_point_shape = PT_SHAPE("point", struct pt_point, point_fields);
 *
 * A zeroed struct is a valid empty value.  pt_shape_release() frees what the fields own and zeroes the struct. */
#ifndef PT_BASE_SHAPE_H
#define PT_BASE_SHAPE_H
#include "base/buf.h"
#include <jansson.h>

#define PT_ID_SIZE 40 /* "op_" + 26 characters, with room for foreign ids of up to 39 bytes */

enum pt_type {
	PT_T_ID,    /* char[PT_ID_SIZE]; "" = absent, also where it is required */
	PT_T_STR,   /* char *, owned; NULL = absent */
	PT_T_I64,   /* int64_t; with PT_SKIP_ZERO 0 is not written */
	PT_T_BOOL,  /* bool */
	PT_T_F64,   /* double */
	PT_T_JSON,  /* json_t *, owned reference; NULL = absent */
	PT_T_BYTES, /* struct pt_bytes, owned; base64 in JSON */
	PT_T_SHAPE, /* nested struct by value, .sub; absent stays zeroed; left out when all its members are absent or zero */
	PT_T_LIST,  /* struct pt_list of .sub structs, owned */
	PT_T_STRS,  /* struct pt_list of char *, owned */
};

struct pt_bytes {
	unsigned char *p;
	size_t n;
};
struct pt_list {
	void *items; /* array of n structs (PT_T_LIST) or char * (PT_T_STRS) */
	size_t n;
};

enum {
	PT_REQUIRED = 1 << 0,   /* must be in the JSON document */
	PT_SECRET = 1 << 1,     /* never logged */
	PT_SKIP_ZERO = 1 << 2,  /* I64, BOOL, F64: a zero value is not written */
	PT_KEY = 1 << 3,        /* database: (part of) the primary key, must come first */
	PT_OBJECT = 1 << 4,     /* JSON: must be an object */
	PT_STRING_MAP = 1 << 5, /* JSON: must be an object whose values are strings */
	PT_CONST = 1 << 6,      /* database: written by insert only, an update leaves it as it is */
	PT_OBJECTS = 1 << 7, /* JSON: must be an array of objects; each is decoded by whoever takes it, and .sub describes it */
};

struct pt_shape;
struct pt_field {
	const char *name;
	enum pt_type type;
	size_t offset;
	unsigned flags;
	int64_t min, max; /* I64: allowed range when max > min.  STR: least and most bytes; JSON: most bytes as compact text;
			     lists and PT_OBJECTS: least and most items (default 64 KiB for STR, none for JSON, 10,000 items for lists) */
	int64_t def;      /* I64: what an absent member reads as, where that is not 0 */
	const struct pt_shape *sub;
	const char *const *values; /* STR: NULL-terminated list of the only allowed values */
	const char *help;          /* for the OpenAPI document */
	size_t text; /* JSON: offset of an owned char *; the document as text, written in its place when set; 0 = none */
};
struct pt_shape {
	const char *name;
	size_t size;
	const struct pt_field *fields;
	size_t n;
	bool open; /* unknown members are passed over: for answers, whose sender may be newer than their reader */
};
/* clang-format off */
#define PT_F(st, member, ty, fl, ...) { .name = #member, .type = (ty), .offset = offsetof(st, member), .flags = (fl), ##__VA_ARGS__ }
#define PT_SHAPE(nm, st, arr)         { .name = (nm), .size = sizeof(st), .fields = (arr), .n = PT_COUNT(arr) }
#define PT_SHAPE_OPEN(nm, st, arr)    { .name = (nm), .size = sizeof(st), .fields = (arr), .n = PT_COUNT(arr), .open = true }
/* clang-format on */

/* Read a JSON object into a zeroed struct.  On failure the struct is released and zeroed, err names the member
 * ("priority: expected an integer, got a string").  Does not keep j. */
int pt_shape_decode(const struct pt_shape *sh, const json_t *j, void *out, struct pt_err *err) PT_MUSTCHECK;
/* Parse text (n bytes, at most 64 levels deep, no duplicate members) and decode it. */
int pt_shape_parse(const struct pt_shape *sh, const char *text, size_t n, void *out, struct pt_err *err) PT_MUSTCHECK;
/* Append the struct as a JSON object; absent members are left out. */
void pt_shape_write(const struct pt_shape *sh, const void *in, struct pt_buf *b);
void pt_shape_release(const struct pt_shape *sh, void *p);
const struct pt_field *pt_shape_field(const struct pt_shape *sh, const char *name); /* NULL when there is none */

/* Parse any JSON document with the same limits.  Caller owns the reference. */
int pt_json_parse(const char *text, size_t n, json_t **ret, struct pt_err *err) PT_MUSTCHECK;
/* Append j as compact JSON. */
void pt_json_write(struct pt_buf *b, const json_t *j);
const char *pt_json_type_name(const json_t *j); /* "an integer", "a string", … */

/* Copy item's bytes to the end of a list that is empty, decoded, or made by this function (memory grows by powers of two). */
int pt_list_append(struct pt_list *l, size_t item_size, const void *item, struct pt_err *err) PT_MUSTCHECK;
#endif
