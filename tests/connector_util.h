/* For tests of connectors: run a statement, collect its rows as JSON Lines. */
#ifndef PT_TEST_CONNECTOR_UTIL_H
#define PT_TEST_CONNECTOR_UTIL_H
#include "connector/rows.h"
#include "tap.h"

struct answer {
	int rc;
	struct pt_err err;
	struct pt_buf text;
	struct pt_rows_stats stats;
	char types[512]; /* "int64,text" */
	char natives[512];
};

static inline int answer_out_(void *arg, const char *p, size_t n, struct pt_err *err)
{
	pt_buf_add(arg, p, n);
	return PT_OK;
}

static inline void answer_columns_(struct answer *a, struct ArrowArrayStream *s)
{
	struct pt_list l = { 0 };
	struct pt_column *c;
	struct pt_err e;
	size_t nt = 0, nn = 0;

	if (pt_rows_columns(s, &l, &e) < 0)
		return;
	c = l.items;
	for (size_t i = 0; i < l.n; i++) {
		if (nt < sizeof(a->types))
			nt += (size_t)snprintf(a->types + nt, sizeof(a->types) - nt, "%s%s", i ? "," : "", c[i].type);
		if (nn < sizeof(a->natives))
			nn += (size_t)snprintf(a->natives + nn, sizeof(a->natives) - nn, "%s%s", i ? "," : "",
					       c[i].native ? c[i].native : "-");
		free(c[i].name);
		free(c[i].type);
		free(c[i].native);
	}
	free(l.items);
}

/* params: JSON text of an array or NULL.  The text stays valid until the next ask() with the same struct. */
static inline int ask(struct pt_conn *c, struct answer *a, const char *sql, const char *params, bool write,
		      const struct pt_cancel *cancel)
{
	struct ArrowArrayStream s = { 0 };
	struct pt_query q = { .sql = sql, .write = write, .cancel = cancel };
	json_t *p = NULL;

	if (a->text.max)
		pt_buf_release(&a->text);
	*a = (struct answer) { .text = PT_BUF_INIT(64 << 20) };
	if (params && pt_json_parse(params, strlen(params), &p, &a->err) < 0)
		return a->rc = a->err.code;
	q.params = p;
	a->rc = pt_conn_query(c, &q, &s, &a->err);
	json_decref(p);
	if (a->rc == 0) {
		answer_columns_(a, &s);
		a->rc = pt_rows_jsonl(&s, c, NULL, answer_out_, &a->text, &a->stats, &a->err);
		s.release(&s);
	}
	if (a->rc < 0 && a->rc != (int)a->err.code)
		a->rc = 1; /* the record and the return value differ: never equal to what a test wants */
	return a->rc;
}

static inline int open_json(const struct pt_connector *type, struct pt_conn **c, const char *args, const struct pt_cancel *cancel,
			    struct pt_err *err)
{
	json_t *j = NULL;
	int rc = pt_json_parse(args, strlen(args), &j, err);

	*err = (struct pt_err) { 0 };
	if (rc == 0)
		rc = type->open(c, j, cancel, err);
	json_decref(j);
	return rc;
}
#endif
