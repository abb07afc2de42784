/* Results to standard output: JSON Lines as they come, or rows as a table or CSV.  Memory does not grow with the result: a table
 * gets its widths from the first rows, the rest streams. */
#include "ctl/ctl.h"
#include "ctl/cells.h"
#include "os/file.h"
#include <openssl/evp.h>
#include <stdio.h>

const char *const pt_ctl_formats[] = { "table", "jsonl", "csv", NULL };

enum { LINE_MAX_BYTES = 64 << 20, FLUSH_BYTES = 64 << 10, TABLE_ROWS = 500, TABLE_BYTES = 1 << 20, COLUMN_WIDTH = 48 };

struct sink {
	char format; /* first letter of its name */
	size_t n;    /* columns */
	struct pt_table *table;
	size_t table_bytes; /* in rows that are not written yet */
	struct pt_buf line; /* the start of a row whose end has not come yet */
	struct pt_buf out, cell;
	EVP_MD_CTX *hash;
	int64_t rows;
};

static int flush(struct sink *s, struct pt_err *err)
{
	int rc = s->table ? pt_table_write(s->table, &s->out, err) : PT_OK;

	s->table_bytes = 0;
	if (rc >= 0)
		rc = pt_ctl_out(&s->out, err);
	pt_buf_clear(&s->out);
	return rc;
}

/* --- one row --- */

static void csv_cell(struct sink *s, size_t column, const struct pt_cell *c)
{
	if (column)
		pt_buf_chr(&s->out, ',');
	if (c->null)
		return; /* nothing, while an empty string is "" (RFC 4180 leaves this open) */
	if (c->n && !memchr(c->p, '"', c->n) && !memchr(c->p, ',', c->n) && !memchr(c->p, '\n', c->n) &&
	    !memchr(c->p, '\r', c->n)) {
		pt_buf_add(&s->out, c->p, c->n);
		return;
	}
	pt_buf_chr(&s->out, '"');
	for (size_t i = 0; i < c->n; i++) {
		if (c->p[i] == '"')
			pt_buf_chr(&s->out, '"');
		pt_buf_chr(&s->out, c->p[i]);
	}
	pt_buf_chr(&s->out, '"');
}

static int row(struct sink *s, const char *line, size_t n, struct pt_err *err)
{
	struct pt_cells cells = PT_CELLS_INIT(line, n);
	struct pt_cell c;
	size_t column = 0;
	int rc;

	while ((rc = pt_cells_next(&cells, &s->cell, &c, err)) > 0 && column < s->n) {
		if (s->format == 'c') {
			csv_cell(s, column, &c);
		} else {
			pt_table_cell(s->table, c.null ? NULL : c.p, c.n);
			s->table_bytes += c.n;
		}
		column++;
	}
	if (rc < 0)
		return rc;
	if (rc > 0 || column != s->n)
		return pt_fail(err, PT_E_CORRUPT, "row %lld does not have %zu columns", (long long)s->rows + 1, s->n);
	s->rows++;
	if (s->format == 'c') {
		pt_buf_str(&s->out, "\r\n");
		return s->out.len > FLUSH_BYTES ? flush(s, err) : PT_OK;
	}
	return pt_table_pending(s->table) >= TABLE_ROWS || s->table_bytes > TABLE_BYTES ? flush(s, err) : PT_OK;
}

static int on_data(void *arg, const char *p, size_t n, struct pt_err *err)
{
	struct sink *s = arg;
	const char *end = p + n, *nl;
	int rc = PT_OK;

	if (EVP_DigestUpdate(s->hash, p, n) != 1)
		return pt_fail(err, PT_E_INTERNAL, "SHA-256 failed");
	if (s->format == 'j')
		return pt_err_wrap(err, pt_write_all(STDOUT_FILENO, p, n, err), "standard output");
	while (rc >= 0 && (nl = memchr(p, '\n', (size_t)(end - p)))) {
		if (s->line.len) {
			pt_buf_add(&s->line, p, (size_t)(nl - p));
			rc = pt_buf_done(&s->line, err);
			if (rc >= 0)
				rc = row(s, s->line.p, s->line.len, err);
			pt_buf_clear(&s->line);
		} else {
			rc = row(s, p, (size_t)(nl - p), err);
		}
		p = nl + 1;
	}
	pt_buf_add(&s->line, p, (size_t)(end - p));
	return rc < 0 ? rc : pt_buf_done(&s->line, err);
}

/* --- the whole result --- */

/* The gateway tells the digest of the rows: a proxy that cuts or changes them is noticed. */
static int check_digest(struct sink *s, const char *want, struct pt_err *err)
{
	pt_auto_buf hex = PT_BUF_INIT(128);
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (EVP_DigestFinal_ex(s->hash, md, &n) != 1)
		return pt_fail(err, PT_E_INTERNAL, "SHA-256 failed");
	pt_buf_hex(&hex, md, n);
	if (want[0] && strcmp(hex.p, want) != 0)
		return pt_fail(err, PT_E_CORRUPT, "the rows are not the ones that the agent sent (SHA-256 differs)");
	return PT_OK;
}

static bool is_number(const char *type)
{
	static const char *const starts[] = { "int", "uint", "float", "double", "decimal" };

	for (size_t i = 0; i < PT_COUNT(starts); i++)
		if (strncmp(type, starts[i], strlen(starts[i])) == 0)
			return true;
	return false;
}

static int stream_rows(struct pt_ctl_api *api, const json_t *result, struct sink *s, struct pt_err *err)
{
	const json_t *columns = json_object_get(result, "columns");
	pt_auto(pt_freep) struct pt_table_col *cols = calloc(s->n ? s->n : 1, sizeof(*cols));
	int rc = PT_OK;

	if (!cols)
		return pt_fail_oom(err);
	for (size_t i = 0; i < s->n; i++) {
		const json_t *c = json_array_get(columns, i);

		cols[i] = (struct pt_table_col) { pt_ctl_text(c, "name"), is_number(pt_ctl_text(c, "type")), COLUMN_WIDTH };
		if (s->format == 'c')
			csv_cell(s, i, &(struct pt_cell) { .p = cols[i].title, .n = strlen(cols[i].title) });
	}
	if (s->format == 'c')
		pt_buf_str(&s->out, "\r\n");
	if (s->format == 't')
		rc = pt_table_new(&s->table, cols, s->n, true, err);
	if (rc >= 0)
		rc = pt_ctl_stream(api, pt_ctl_text(result, "body.href"), on_data, s, err);
	if (rc >= 0 && s->line.len)
		rc = pt_fail(err, PT_E_CORRUPT, "the last row has no end");
	if (rc >= 0)
		rc = flush(s, err);
	if (rc >= 0)
		rc = check_digest(s, pt_ctl_text(result, "body.sha256"), err);
	pt_table_free(s->table);
	return rc;
}

static int document(const json_t *doc, struct pt_err *err)
{
	pt_auto_buf out = PT_BUF_INIT(64u << 20);
	char *text = pt_ctl_dumps(doc, isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT);

	if (!text)
		return pt_fail_oom(err);
	pt_buf_fmt(&out, "%s\n", text);
	free(text);
	return pt_ctl_out(&out, err);
}

/* "1 row", "2 rows" */
static void tell_rows(const char *before, const json_t *count, const char *after)
{
	long long n = json_integer_value(count);

	fprintf(stderr, "%s%lld row%s%s\n", before, n, n == 1 ? "" : "s", after);
}

static void tell(const json_t *result, bool rows)
{
	const char *partial = pt_ctl_text(result, "partial");
	const json_t *affected = json_object_get(result, "affected");

	if (partial[0])
		fprintf(stderr, "More rows were left behind: %s. Raise --max-rows or --max-bytes.\n",
			strcmp(partial, "row_limit") == 0 ? "the row limit was reached" : "the byte limit was reached");
	else if (rows && isatty(STDERR_FILENO))
		tell_rows("(", json_object_get(result, "rows"), ")");
	else if (!rows && json_is_integer(affected) && json_integer_value(affected) >= 0)
		tell_rows("", affected, " affected");
	else if (!rows)
		fprintf(stderr, "done; there are no rows\n");
}

int pt_ctl_result(struct pt_ctl_api *api, const json_t *op, const char *format, struct pt_err *err)
{
	const json_t *result = json_object_get(op, "result"), *doc = json_object_get(result, "document");
	struct sink s = { .line = PT_BUF_INIT(LINE_MAX_BYTES),
			  .out = PT_BUF_INIT(64u << 20),
			  .cell = PT_BUF_INIT(LINE_MAX_BYTES) };
	bool lines = doc && !json_object_get(result, "columns"); /* of objects, such as an agent's log */
	int rc = PT_OK;

	if (!json_object_size(json_object_get(result, "body"))) {
		if (doc && !json_is_null(doc))
			return document(doc, err);
		tell(result, false);
		return PT_OK;
	}
	s.format = format ? format[0] : isatty(STDOUT_FILENO) && !lines ? 't' : 'j';
	if (lines && s.format != 'j')
		return pt_fail(err, PT_E_INVALID, "this result has no columns: only --format jsonl can show it");
	s.n = json_array_size(json_object_get(result, "columns"));
	s.hash = EVP_MD_CTX_new();
	if (!s.hash || EVP_DigestInit_ex(s.hash, EVP_sha256(), NULL) != 1)
		rc = pt_fail_oom(err);
	if (rc >= 0)
		rc = stream_rows(api, result, &s, err);
	if (rc >= 0 && !lines)
		tell(result, true);
	EVP_MD_CTX_free(s.hash);
	pt_buf_release(&s.line);
	pt_buf_release(&s.out);
	pt_buf_release(&s.cell);
	return rc;
}
