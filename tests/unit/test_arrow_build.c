#include "connector/arrow_build.h"
#include "../tap.h"

static const struct pt_column_def defs[] = {
	{ "id", "integer", PT_L_INT32, .required = true },
	{ "price", "numeric(12,2)", PT_L_DECIMAL, 12, 2 },
	{ "flag", NULL, PT_L_BOOL },
	{ "raw", "bytea", PT_L_BYTES },
};

static void fill(struct pt_builder *b, int rows, struct pt_err *e)
{
	for (int i = 0; i < rows; i++) {
		pt_add_i32(&b->cols[0], i);
		if (i % 3)
			pt_add_bytes(b, &b->cols[1], "12.50", 5);
		else
			pt_add_null(&b->cols[1]);
		if (i % 2)
			pt_add_bool(&b->cols[2], true);
		else
			pt_add_null(&b->cols[2]);
		pt_add_bytes(b, &b->cols[3], "\0\1", 2);
		if (pt_builder_end_row(b, e) < 0)
			ok(0, "end row");
	}
}

int main(void)
{
	struct pt_err e = { 0 };
	struct pt_builder b = { 0 };
	struct ArrowSchema s = { 0 }, moved_field;
	struct ArrowArray a = { 0 }, child;
	const void *first;
	size_t n;

	ok(pt_builder_init(&b, defs, PT_COUNT(defs), &e) == 0, "init");
	ok(pt_builder_schema(&b, &s, &e) == 0, "schema");
	is_str(s.format, "+s", "a struct");
	is_int(s.n_children, 4, "of four");
	is_str(s.children[1]->format, "u", "decimals are text");
	ok(!(s.children[0]->flags & ARROW_FLAG_NULLABLE) && s.children[1]->flags & ARROW_FLAG_NULLABLE, "nullable flags");
	ok(pt_logical_of(s.children[1]) == PT_L_DECIMAL, "with their type in the metadata");
	ok(pt_arrow_metadata(s.children[1]->metadata, "scale", &n) && n == 1, "and the scale");
	ok(!strncmp(pt_arrow_metadata(s.children[1]->metadata, "postern.native", &n), "numeric(12,2)", 13) && n == 13,
	   "native name");
	ok(!pt_arrow_metadata(s.children[0]->metadata, "scale", &n) && !pt_arrow_metadata(NULL, "scale", &n), "absent keys");
	moved_field = *s.children[3];
	s.children[3]->release = NULL;
	s.release(&s);
	ok(!s.release && pt_logical_of(&moved_field) == PT_L_BYTES, "a field moved out outlives its schema");
	is_str(moved_field.name, "raw", "with its name");
	moved_field.release(&moved_field);

	ok(pt_builder_begin(&b, &e) == 0 && pt_builder_begin(&b, &e) == 0, "begin twice is one begin");
	fill(&b, 10, &e);
	ok(pt_builder_finish(&b, &a, &e) == 0, "finish");
	is_int(a.length, 10, "ten rows");
	ok(!a.children[0]->buffers[0] && a.children[0]->null_count == 0, "no bitmap without NULLs");
	is_int(a.children[1]->null_count, 4, "NULLs counted");
	ok((((const uint8_t *)a.children[1]->buffers[0])[0] & 0xf) == 0x6, "bitmap: 0 and 3 are NULL");
	ok(((const uint8_t *)a.children[2]->buffers[1])[0] == 0xaa, "bits");
	is_int(((const int32_t *)a.children[1]->buffers[1])[10], 30, "offsets");
	ok(!memcmp(a.children[3]->buffers[2], "\0\1\0\1", 4), "bytes");
	first = a.children[0]->buffers[1];
	a.release(&a);
	ok(!a.release && pt_builder_begin(&b, &e) == 0, "released, and begun again");
	fill(&b, 5, &e);
	ok(pt_builder_finish(&b, &a, &e) == 0 && a.children[0]->buffers[1] == first, "in the same memory");
	is_int(a.children[1]->null_count, 2, "the bitmap was reset");

	child = *a.children[3];
	a.children[3]->release = NULL;
	a.release(&a);
	ok(pt_builder_begin(&b, &e) == 0, "another batch while a child of the last is still held");
	fill(&b, 1, &e);
	pt_builder_release(&b);
	ok(!memcmp(child.buffers[2], "\0\1\0\1\0\1\0\1\0\1", 10), "a child moved out outlives parent and builder");
	child.release(&child);

	{
		struct pt_column_def wide[1600];

		for (size_t i = 0; i < PT_COUNT(wide); i++)
			wide[i] = (struct pt_column_def) { "c", "int8", PT_L_INT64 };
		ok(pt_builder_init(&b, wide, PT_COUNT(wide), &e) == 0, "1600 columns");
		ok(b.max_rows >= 64 && b.max_rows * 1600 * 9 <= PT_BATCH_BYTES, "fewer rows per batch");
		pt_builder_release(&b);
		ok(pt_builder_init(&b, NULL, 0, &e) == 0 && pt_builder_begin(&b, &e) == 0 && pt_builder_finish(&b, &a, &e) == 0,
		   "no columns at all");
		ok(a.length == 0 && a.n_children == 0, "an empty batch");
		a.release(&a);
		pt_builder_release(&b);
	}
	ok(pt_builder_init(&b, defs + 3, 1, &e) == 0 && pt_builder_begin(&b, &e) == 0, "begin");
	ok(!pt_col_room(&b, &b.cols[0], (size_t)INT32_MAX + 1), "more than 2 GiB in a column");
	pt_col_wrote(&b.cols[0], 0);
	ok(pt_builder_end_row(&b, &e) == PT_E_TOO_LARGE && pt_builder_finish(&b, &a, &e) == PT_E_TOO_LARGE,
	   "is an error that sticks");
	pt_builder_release(&b);
	return tap_end();
}
