/* Rows by COPY (…) TO STDOUT (FORMAT binary): the same bytes per value as binary result rows, at half of the client's work per
 * row, since libpq makes no result object of each. */
#include "connector/pg_copy.h"
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <strings.h>

bool pg_copy_can(const struct pg_conn *c, const char *sql)
{
	static const char *const words[] = { "SELECT", "WITH", "VALUES", "TABLE" };

	/* not every server that speaks the protocol has it: Redshift says 8.0, CockroachDB says who it is */
	if (c->write || !c->n_cols || strchr(sql, ';') || PQserverVersion(c->db) < 120000 ||
	    PQparameterStatus(c->db, "crdb_version"))
		return false;
	sql += strspn(sql, " \t\r\n(");
	for (size_t i = 0; i < PT_COUNT(words); i++)
		if (strncasecmp(sql, words[i], strlen(words[i])) == 0)
			return true;
	return false;
}

bool pg_copy_send(struct pg_conn *c, const char *sql)
{
	size_t size = strlen(sql) + 64;
	char *text = malloc(size);
	bool sent = false;

	if (text) {
		/* the line feed: a comment may end the statement's last line */
		snprintf(text, size, "COPY (%s\n) TO STDOUT (FORMAT binary)", sql);
		sent = PQsendQueryParams(c->db, text, 0, NULL, NULL, NULL, NULL, 1);
	}
	free(text);
	return sent;
}

/* One row of COPY's binary format: int16 number of fields, for each an int32 length (-1: NULL) and the bytes. */
static int add_copy_row(struct pg_conn *c, const char *p, size_t n, struct pt_err *err)
{
	static const char signature[11] = "PGCOPY\n\377\r\n";
	const char *end = p + n;
	uint32_t len;
	uint16_t fields;
	int rc = PT_OK;

	if (!c->copy_head) { /* signature, int32 flags, int32 length of the rest: in front of the first row */
		if (n < 19 || memcmp(p, signature, sizeof(signature)) != 0)
			return pt_fail(err, PT_E_PROTOCOL, "the server's COPY data has no header");
		memcpy(&len, p + 15, 4);
		len = ntohl(len);
		if (len > n - 19)
			return pt_fail(err, PT_E_PROTOCOL, "the server's COPY data has a broken header");
		p += 19 + len;
		c->copy_head = true;
		if (p == end)
			return PT_OK;
	}
	if (end - p < 2)
		return pt_fail(err, PT_E_PROTOCOL, "the server's COPY data is cut");
	memcpy(&fields, p, 2);
	p += 2;
	if (fields == 0xffff)
		return PT_OK; /* the trailer */
	if (ntohs(fields) != c->n_cols)
		return pt_fail(err, PT_E_PROTOCOL, "the server sent %d columns in place of %zu", ntohs(fields), c->n_cols);
	for (size_t i = 0; i < c->n_cols; i++) {
		if (end - p < 4)
			return pt_fail(err, PT_E_PROTOCOL, "the server's COPY data is cut");
		memcpy(&len, p, 4);
		len = ntohl(len);
		p += 4;
		if (len == UINT32_MAX) {
			pt_add_null(&c->builder.cols[i]);
			continue;
		}
		if (len > (size_t)(end - p))
			return pt_fail(err, PT_E_PROTOCOL, "the server's COPY data is cut");
		rc = pg_add_value(c, i, p, (int)len, err);
		if (rc < 0)
			return rc;
		p += len;
	}
	return pt_builder_end_row(&c->builder, err);
}

int pg_copy_take(struct pg_conn *c, struct pt_err *err)
{
	char *p = NULL;
	int n = PQgetCopyData(c->db, &p, 1), rc;

	if (n == 0) {
		if (!PQconsumeInput(c->db))
			return pg_lost(c, NULL, err);
		n = PQgetCopyData(c->db, &p, 1);
	}
	if (n == 0)
		return pt_cancel_poll(c->cancel, PQsocket(c->db), POLLIN, -1, err);
	if (n < 0) {
		c->copying = false; /* -2 as well: the result says what is wrong */
		return PT_OK;
	}
	rc = add_copy_row(c, p, (size_t)n, err);
	PQfreemem(p);
	return rc;
}
