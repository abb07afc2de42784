#include "op/doc.h"

void pt_doc_ms(struct pt_buf *b, const char *key, int64_t us)
{
	if (us < 0)
		us = 0;
	pt_doc_key(b, key);
	pt_buf_fmt(b, "%lld.%03d", (long long)(us / 1000), (int)(us % 1000));
}

void pt_doc_text(struct pt_buf *b, const char *key, const char *p, size_t n)
{
	pt_auto(pt_freep) char *copy = n ? malloc(n) : NULL;

	if (n && !copy) {
		b->bad = PT_E_INTERNAL;
		return;
	}
	for (size_t i = 0; i < n; i++)
		copy[i] = (char)(p[i] ? p[i] : 0xff);
	pt_doc_key(b, key);
	pt_buf_json(b, copy ? copy : "", n);
}

void pt_doc_err(struct pt_buf *b, const char *key, const struct pt_err *err)
{
	struct pt_error_doc d = { 0 };

	pt_error_doc_from(&d, err);
	pt_doc_key(b, key);
	pt_shape_write(&pt_error_doc_shape, &d, b);
	pt_shape_release(&pt_error_doc_shape, &d);
}

int pt_doc_done(struct pt_op_run *run, const struct pt_buf *b, struct pt_err *err)
{
	json_t *doc = NULL;
	int rc = pt_buf_done(b, err);

	if (rc == 0)
		rc = pt_json_parse(b->p, b->len, &doc, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "the result's document");
	json_decref(run->head->document);
	run->head->document = doc;
	return PT_OK;
}
