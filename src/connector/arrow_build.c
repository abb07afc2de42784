/* Arrow batches: memory.  One struct pt_batch_mem holds everything of one batch (buffers and ArrowArray structs).  It is counted:
 * one reference for the parent array and one for each child, since the C data interface lets a consumer move a child out and
 * keep it longer than its parent.  The last release puts it into the pool's single spare place, where the builder finds it. */
#include "connector/arrow_build.h"
#include <stdatomic.h>
#include <stdio.h>

enum { KEEP_BYTES = 4 * PT_BATCH_BYTES }; /* a batch that grew beyond (one huge value) is not kept */

static const struct {
	const char *name, *format;
	int width;
} logical[] = {
#define X(n, name, format, width) [PT_L_##n] = { name, format, width },
	PT_LOGICAL_MAP(X)
#undef X
};

const char *pt_logical_name(enum pt_logical t)
{
	return logical[t].name;
}

/* Metadata: int32 number of pairs, then for each key and value an int32 length and the bytes (native byte order, unaligned). */
const char *pt_arrow_metadata(const char *m, const char *key, size_t *ret_n)
{
	int32_t pairs, n[2];

	if (!m)
		return NULL;
	memcpy(&pairs, m, 4);
	m += 4;
	for (int32_t i = 0; i < pairs; i++) {
		const char *k;

		memcpy(&n[0], m, 4);
		k = m + 4;
		m = k + n[0];
		memcpy(&n[1], m, 4);
		m += 4;
		if ((size_t)n[0] == strlen(key) && memcmp(k, key, (size_t)n[0]) == 0) {
			*ret_n = (size_t)n[1];
			return m;
		}
		m += n[1];
	}
	return NULL;
}

enum pt_logical pt_logical_of(const struct ArrowSchema *f)
{
	size_t n = 0;
	const char *name = pt_arrow_metadata(f->metadata, "postern.type", &n);

	for (int t = 0; name && t < PT_L_END; t++)
		if (strlen(logical[t].name) == n && memcmp(logical[t].name, name, n) == 0 &&
		    !strcmp(logical[t].format, f->format))
			return (enum pt_logical)t;
	if (strcmp(f->format, "u") == 0)
		return PT_L_TEXT; /* not DECIMAL, which is first in the table */
	if (strcmp(f->format, "w:16") == 0)
		return PT_L_END; /* 16 bytes are a UUID only when the metadata say so */
	for (int t = 0; t < PT_L_END; t++)
		if (strcmp(logical[t].format, f->format) == 0)
			return (enum pt_logical)t;
	return PT_L_END;
}

struct pt_batch_pool {
	_Atomic int refs;
	_Atomic(struct pt_batch_mem *) spare;
};
struct mem_col {
	uint8_t *valid, *data;
	int32_t *offsets;
	size_t cap;
	const void *buffers[3];
};
struct pt_batch_mem {
	_Atomic int refs;
	struct pt_batch_pool *pool;
	size_t n;
	struct ArrowArray *arrays, **children;
	const void *no_buffers[1];
	struct mem_col cols[];
};

static void mem_free(struct pt_batch_mem *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n; i++) {
		free(m->cols[i].valid);
		free(m->cols[i].data);
		free(m->cols[i].offsets);
	}
	free(m->arrays);
	free(m->children);
	free(m);
}

static void pool_unref(struct pt_batch_pool *p)
{
	if (!p || atomic_fetch_sub(&p->refs, 1) > 1)
		return;
	mem_free(atomic_exchange(&p->spare, NULL));
	free(p);
}

static struct pt_batch_mem *mem_new(const struct pt_builder *b)
{
	struct pt_batch_mem *m = calloc(1, sizeof(*m) + b->n_cols * sizeof(m->cols[0]));
	size_t rows = (size_t)b->max_rows, bits = (rows + 7) / 8;

	if (!m)
		return NULL;
	m->n = b->n_cols;
	m->pool = b->pool;
	m->arrays = calloc(m->n + 1, sizeof(*m->arrays));
	m->children = calloc(m->n + 1, sizeof(*m->children));
	for (size_t i = 0; i < m->n && m->arrays && m->children; i++) {
		struct mem_col *c = &m->cols[i];
		int width = logical[b->defs[i].type].width;

		c->cap = width > 0 ? rows * (size_t)width : width == 0 ? bits : 1024;
		c->valid = malloc(bits);
		c->data = malloc(c->cap);
		c->offsets = width < 0 ? malloc((rows + 1) * sizeof(int32_t)) : NULL;
		if (!c->valid || !c->data || (width < 0 && !c->offsets)) {
			mem_free(m);
			return NULL;
		}
	}
	if (!m->arrays || !m->children) {
		mem_free(m);
		return NULL;
	}
	return m;
}

static void mem_unref(struct pt_batch_mem *m)
{
	struct pt_batch_pool *pool = m->pool;
	size_t bytes = 0;

	if (atomic_fetch_sub(&m->refs, 1) > 1)
		return;
	for (size_t i = 0; i < m->n; i++)
		bytes += m->cols[i].cap;
	mem_free(bytes > KEEP_BYTES ? m : atomic_exchange(&pool->spare, m));
	pool_unref(pool);
}

static void release_child(struct ArrowArray *a)
{
	struct pt_batch_mem *m = a->private_data;

	a->release = NULL;
	mem_unref(m);
}

static void release_parent(struct ArrowArray *a)
{
	struct pt_batch_mem *m = a->private_data;

	for (int64_t i = 0; i < a->n_children; i++)
		if (a->children[i]->release)
			a->children[i]->release(a->children[i]);
	a->release = NULL;
	mem_unref(m);
}

int pt_builder_init(struct pt_builder *b, const struct pt_column_def *defs, size_t n, struct pt_err *err)
{
	size_t row = 0;

	*b = (struct pt_builder) { .defs = calloc(n + 1, sizeof(*defs)),
				   .cols = calloc(n + 1, sizeof(*b->cols)),
				   .pool = calloc(1, sizeof(*b->pool)) };
	if (b->pool)
		b->pool->refs = 1;
	if (!b->defs || !b->cols || !b->pool)
		goto oom;
	for (; b->n_cols < n; b->n_cols++) {
		struct pt_column_def *d = &b->defs[b->n_cols];
		int width = logical[defs[b->n_cols].type].width;

		*d = defs[b->n_cols];
		d->name = strdup(d->name);
		d->native = d->native ? strdup(d->native) : NULL;
		if (!d->name || (defs[b->n_cols].native && !d->native)) {
			b->n_cols++;
			goto oom;
		}
		b->cols[b->n_cols].type = d->type;
		b->cols[b->n_cols].width = width;
		row += width < 0 ? 8 : (size_t)width + 1;
	}
	b->max_rows = PT_BATCH_ROWS;
	if (row && (size_t)b->max_rows > PT_BATCH_BYTES / row)
		b->max_rows = PT_BATCH_BYTES / row ? (int64_t)(PT_BATCH_BYTES / row) : 1;
	return PT_OK;
oom:
	pt_builder_release(b);
	return pt_fail_oom(err);
}

/* The buffers of the batch under construction live in b->cols until finish: give them back to their owner. */
static void store_back(struct pt_builder *b)
{
	for (size_t i = 0; b->mem && i < b->n_cols; i++) {
		b->mem->cols[i].data = b->cols[i].data;
		b->mem->cols[i].cap = b->cols[i].cap;
	}
}

void pt_builder_release(struct pt_builder *b)
{
	store_back(b);
	mem_free(b->mem);
	for (size_t i = 0; i < b->n_cols; i++) {
		free((char *)(uintptr_t)b->defs[i].name);
		free((char *)(uintptr_t)b->defs[i].native);
	}
	free(b->defs);
	free(b->cols);
	pool_unref(b->pool);
	*b = (struct pt_builder) { 0 };
}

int pt_builder_begin(struct pt_builder *b, struct pt_err *err)
{
	if (b->mem)
		return PT_OK;
	b->mem = atomic_exchange(&b->pool->spare, NULL);
	if (!b->mem)
		b->mem = mem_new(b);
	if (!b->mem)
		return pt_fail_oom(err);
	b->rows = 0;
	for (size_t i = 0; i < b->n_cols; i++) {
		struct pt_col *c = &b->cols[i];
		const struct mem_col *m = &b->mem->cols[i];
		size_t bits = ((size_t)b->max_rows + 7) / 8;

		*c = (struct pt_col) { .valid = m->valid,
				       .data = m->data,
				       .offsets = m->offsets,
				       .cap = m->cap,
				       .type = c->type,
				       .width = c->width };
		memset(c->valid, 0xff, bits);
		if (!c->width)
			memset(c->data, 0, bits);
		if (c->offsets)
			c->offsets[0] = 0;
	}
	return PT_OK;
}

bool pt_col_grow(struct pt_builder *b, struct pt_col *c, size_t n)
{
	size_t cap = c->cap;
	uint8_t *p;

	if (b->bad)
		return false;
	if (n > INT32_MAX || c->len > INT32_MAX - n) { /* offsets are 32 bits */
		b->bad = PT_E_TOO_LARGE;
		return false;
	}
	while (cap < c->len + n)
		cap *= 2;
	p = realloc(c->data, cap);
	if (!p) {
		b->bad = PT_E_INTERNAL;
		return false;
	}
	c->data = p;
	c->cap = cap;
	return true;
}

int pt_builder_failed(const struct pt_builder *b, struct pt_err *err)
{
	if (b->bad == PT_E_TOO_LARGE)
		return pt_fail(err, b->bad, "a value of more than 2 GiB");
	return b->bad ? pt_fail_oom(err) : PT_OK;
}

int pt_builder_finish(struct pt_builder *b, struct ArrowArray *ret, struct pt_err *err)
{
	struct pt_batch_mem *m = b->mem;

	if (b->bad)
		return pt_builder_failed(b, err);
	pt_assert(m);
	store_back(b);
	for (size_t i = 0; i < b->n_cols; i++) {
		const struct pt_col *c = &b->cols[i];
		struct mem_col *mc = &m->cols[i];

		pt_assert(c->n == b->rows);
		mc->buffers[0] = c->nulls ? c->valid : NULL;
		mc->buffers[1] = c->offsets ? (void *)c->offsets : c->data;
		mc->buffers[2] = c->data;
		m->arrays[i] = (struct ArrowArray) { .length = b->rows,
						     .null_count = c->nulls,
						     .n_buffers = c->offsets ? 3 : 2,
						     .buffers = mc->buffers,
						     .release = release_child,
						     .private_data = m };
		m->children[i] = &m->arrays[i];
	}
	atomic_store(&m->refs, (int)b->n_cols + 1);
	atomic_fetch_add(&b->pool->refs, 1);
	*ret = (struct ArrowArray) { .length = b->rows,
				     .n_buffers = 1,
				     .buffers = m->no_buffers,
				     .n_children = (int64_t)b->n_cols,
				     .children = m->children,
				     .release = release_parent,
				     .private_data = m };
	b->mem = NULL;
	b->rows = 0;
	return PT_OK;
}

/* --- schema --- */
static void release_schema(struct ArrowSchema *s)
{
	for (int64_t i = 0; i < s->n_children; i++)
		if (s->children[i] && s->children[i]->release)
			s->children[i]->release(s->children[i]);
	free(s->children);
	free(s->private_data);
	s->release = NULL;
}

/* A child's struct lives in its parent's private block; its strings are its own, so that it may be moved out. */
static void release_field(struct ArrowSchema *s)
{
	free((char *)(uintptr_t)s->name);
	free((char *)(uintptr_t)s->metadata);
	s->release = NULL;
}

static void put_pair(struct pt_buf *b, const char *key, const char *value, int32_t *pairs)
{
	int32_t n;

	if (!value)
		return;
	n = (int32_t)strlen(key);
	pt_buf_add(b, &n, 4);
	pt_buf_str(b, key);
	n = (int32_t)strlen(value);
	pt_buf_add(b, &n, 4);
	pt_buf_str(b, value);
	++*pairs;
}

static char *field_metadata(const struct pt_column_def *d)
{
	pt_auto_buf b = PT_BUF_INIT(64 * 1024);
	char precision[16], scale[16];
	int32_t pairs = 0;

	snprintf(precision, sizeof(precision), "%d", d->precision);
	snprintf(scale, sizeof(scale), "%d", d->scale);
	pt_buf_add(&b, &pairs, 4);
	put_pair(&b, "postern.type", logical[d->type].name, &pairs);
	put_pair(&b, "postern.native", d->native, &pairs);
	if (d->type == PT_L_DECIMAL && (d->precision || d->scale)) {
		put_pair(&b, "precision", precision, &pairs);
		put_pair(&b, "scale", scale, &pairs);
	}
	if (b.bad)
		return NULL;
	memcpy(b.p, &pairs, 4);
	return pt_buf_detach(&b, NULL);
}

int pt_builder_schema(const struct pt_builder *b, struct ArrowSchema *ret, struct pt_err *err)
{
	struct ArrowSchema *fields = calloc(b->n_cols + 1, sizeof(*fields));
	struct ArrowSchema s = { .format = "+s",
				 .name = "",
				 .children = calloc(b->n_cols + 1, sizeof(*s.children)),
				 .release = release_schema,
				 .private_data = fields };

	if (!fields || !s.children) {
		free(fields);
		free(s.children);
		return pt_fail_oom(err);
	}
	for (size_t i = 0; i < b->n_cols; i++) {
		const struct pt_column_def *d = &b->defs[i];

		s.children[i] = &fields[i];
		s.n_children++;
		fields[i] = (struct ArrowSchema) { .format = logical[d->type].format,
						   .name = strdup(d->name),
						   .metadata = field_metadata(d),
						   .flags = d->required ? 0 : ARROW_FLAG_NULLABLE,
						   .release = release_field };
		if (!fields[i].name || !fields[i].metadata) {
			release_schema(&s);
			return pt_fail_oom(err);
		}
	}
	*ret = s;
	return PT_OK;
}
