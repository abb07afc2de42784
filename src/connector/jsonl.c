/* The JSON Lines sink.  Rows are written into one buffer of 256 KiB, which goes out whenever the next row might not fit; only a
 * row that is larger by itself makes it grow, for as long as that row is there. */
#include "connector/json_value.h"
#include "connector/rows.h"

enum { CHUNK = 256 * 1024 };

static void columns_release(struct pt_list *l)
{
	struct pt_column *c = l->items;

	for (size_t i = 0; i < l->n; i++)
		pt_shape_release(&pt_column_shape, &c[i]);
	free(l->items);
	*l = (struct pt_list) { 0 };
}

static int64_t metadata_int(const struct ArrowSchema *f, const char *key)
{
	size_t n = 0;
	const char *v = pt_arrow_metadata(f->metadata, key, &n);
	int64_t r = 0;

	for (size_t i = 0; v && i < n && i < 9; i++)
		if (v[i] >= '0' && v[i] <= '9')
			r = r * 10 + (v[i] - '0');
	return v && n && *v == '-' ? -r : r;
}

static int get_schema(struct ArrowArrayStream *s, struct ArrowSchema *ret, struct pt_err *err)
{
	if (s->get_schema(s, ret) != 0) {
		const char *why = s->get_last_error(s);

		return pt_fail(err, PT_E_INTERNAL, "schema of the rows: %s", why ? why : "unknown error");
	}
	return PT_OK;
}

static int unknown_format(const struct ArrowSchema *f, struct pt_err *err)
{
	return pt_fail(err, PT_E_UNSUPPORTED, "column '%.100s' has Arrow format '%.20s', which has no JSON form", f->name,
		       f->format);
}

static int read_columns(const struct ArrowSchema *schema, struct pt_list *l, struct pt_err *err)
{
	for (int64_t i = 0; i < schema->n_children; i++) {
		const struct ArrowSchema *f = schema->children[i];
		enum pt_logical t = pt_logical_of(f);
		size_t n = 0;
		const char *native = pt_arrow_metadata(f->metadata, "postern.native", &n);
		struct pt_column c = { .nullable = f->flags & ARROW_FLAG_NULLABLE };
		int rc;

		if (t == PT_L_END)
			return unknown_format(f, err);
		c.precision = metadata_int(f, "precision");
		c.scale = metadata_int(f, "scale");
		c.name = strdup(f->name ? f->name : "");
		c.type = strdup(pt_logical_name(t));
		c.native = native ? strndup(native, n) : NULL;
		rc = !c.name || !c.type || (native && !c.native) ? pt_fail_oom(err) : pt_list_append(l, sizeof(c), &c, err);
		if (rc < 0) {
			pt_shape_release(&pt_column_shape, &c);
			return rc;
		}
	}
	return PT_OK;
}

int pt_rows_columns(struct ArrowArrayStream *s, struct pt_list *ret, struct pt_err *err)
{
	struct ArrowSchema schema = { 0 };
	struct pt_list l = { 0 };
	int rc = get_schema(s, &schema, err);

	if (rc < 0)
		return rc;
	rc = read_columns(&schema, &l, err);
	schema.release(&schema);
	if (rc < 0)
		columns_release(&l);
	else
		*ret = l;
	return rc;
}

struct jsonl {
	struct pt_json_col *cols;
	size_t n;
	size_t fixed; /* most bytes of a row without its variable-length values */
	char *p;
	size_t len, cap;
	int (*out)(void *arg, const char *p, size_t n, struct pt_err *err);
	void *arg;
};

static int flush(struct jsonl *j, struct pt_err *err)
{
	int rc = j->len ? j->out(j->arg, j->p, j->len, err) : PT_OK;

	j->len = 0;
	return rc;
}

/* Room for a row that the quick bound says may not fit. */
static int make_room(struct jsonl *j, int64_t row, struct pt_err *err)
{
	size_t need = j->fixed, cap;
	int rc = flush(j, err);
	char *p;

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < j->n; i++)
		if (j->cols[i].offsets)
			need += pt_json_value_most(&j->cols[i], row);
	cap = need > CHUNK ? need : CHUNK;
	if (cap == j->cap)
		return PT_OK;
	p = realloc(j->p, cap);
	if (!p)
		return pt_fail_oom(err);
	j->p = p;
	j->cap = cap;
	return PT_OK;
}

static inline size_t row_bound(const struct jsonl *j, int64_t row)
{
	size_t text = 0;

	for (size_t i = 0; i < j->n; i++)
		text += pt_json_source_len(&j->cols[i], row);
	return j->fixed + 6 * text;
}

static char *write_row(const struct jsonl *j, char *p, int64_t row)
{
	*p++ = '[';
	for (size_t i = 0; i < j->n; i++) {
		const struct pt_json_col *c = &j->cols[i];

		if (i)
			*p++ = ',';
		if (pt_json_is_null(c, row))
			p = (char *)memcpy(p, "null", 4) + 4;
		else
			p = c->write(p, c, row);
	}
	*p++ = ']';
	*p++ = '\n';
	return p;
}

/* Returns 0, or 1 when a limit was met. */
static int write_batch(struct jsonl *j, const struct ArrowArray *a, const struct pt_rows_limits *lim, struct pt_rows_stats *st,
		       struct pt_err *err)
{
	for (size_t i = 0; i < j->n; i++)
		pt_json_col_bind(&j->cols[i], a->children[i], a->offset);
	for (int64_t row = 0; row < a->length; row++) {
		size_t n;
		int rc;

		if (lim->max_rows && st->rows >= lim->max_rows) {
			st->partial = "row_limit";
			return 1;
		}
		if (j->cap - j->len < row_bound(j, row) && (rc = make_room(j, row, err)) < 0)
			return rc;
		n = (size_t)(write_row(j, j->p + j->len, row) - (j->p + j->len));
		if (lim->max_bytes && st->bytes + (int64_t)n > lim->max_bytes) {
			st->partial = "byte_limit";
			return 1;
		}
		j->len += n;
		st->rows++;
		st->bytes += (int64_t)n;
	}
	return 0;
}

static int jsonl_init(struct jsonl *j, const struct ArrowSchema *schema, struct pt_err *err)
{
	j->n = (size_t)schema->n_children;
	j->cols = calloc(j->n + 1, sizeof(*j->cols));
	j->cap = CHUNK;
	j->p = malloc(j->cap);
	if (!j->cols || !j->p)
		return pt_fail_oom(err);
	j->fixed = 3; /* brackets and line feed */
	for (size_t i = 0; i < j->n; i++) {
		enum pt_logical t = pt_logical_of(schema->children[i]);

		if (t == PT_L_END)
			return unknown_format(schema->children[i], err);
		pt_json_col_init(&j->cols[i], t);
		j->fixed += j->cols[i].fixed + 1;
	}
	return PT_OK;
}

static int drain(struct jsonl *j, struct ArrowArrayStream *s, struct pt_conn *c, const struct pt_rows_limits *lim,
		 struct pt_rows_stats *st, struct pt_err *err)
{
	for (;;) {
		struct ArrowArray a = { 0 };
		int rc;

		if (s->get_next(s, &a) != 0) {
			const char *why = s->get_last_error(s);

			if (!c || !c->stream_err.code)
				return pt_fail(err, PT_E_INTERNAL, "reading rows: %s", why ? why : "unknown error");
			*err = c->stream_err;
			return err->code;
		}
		if (!a.release)
			return flush(j, err);
		rc = write_batch(j, &a, lim, st, err);
		a.release(&a);
		if (rc)
			return rc < 0 ? rc : flush(j, err);
	}
}

int pt_rows_jsonl(struct ArrowArrayStream *s, struct pt_conn *c, const struct pt_rows_limits *limits,
		  int (*out)(void *arg, const char *p, size_t n, struct pt_err *err), void *arg, struct pt_rows_stats *stats,
		  struct pt_err *err)
{
	static const struct pt_rows_limits none;
	struct jsonl j = { .out = out, .arg = arg };
	struct pt_rows_stats st = { 0 };
	struct ArrowSchema schema = { 0 };
	int rc = get_schema(s, &schema, err);

	if (rc < 0)
		return rc;
	rc = jsonl_init(&j, &schema, err);
	if (rc == 0)
		rc = drain(&j, s, c, limits ? limits : &none, &st, err);
	*stats = st;
	schema.release(&schema);
	free(j.cols);
	free(j.p);
	return rc;
}
