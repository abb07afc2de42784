/* What all stores share: the table of backends, names and keys, and the probe.  See store.h. */
#include "store/store_int.h"
#include "base/clock.h"
#include "base/id.h"
#include "cloud/token.h"
#include "net/url.h"
#include <stdio.h>

const char *const pt_store_step_names[PT_STORE_STEPS] = { "credentials", "write", "read", "list", "delete" };

static const struct {
	const char *type, *scheme;
	const struct pt_store_ops *ops;
} backends[] = {
	{ "S3", "s3", &pt_store_s3 },
	{ "S3_COMPATIBLE", "s3", &pt_store_s3 },
	{ "AZURE_BLOB", "azure", &pt_store_azure_blob },
	{ "GCS", "gs", &pt_store_gcs },
	{ "DIRECTORY", "file", &pt_store_directory },
};

static int index_of(const char *type)
{
	for (size_t i = 0; type && i < PT_COUNT(backends); i++)
		if (strcmp(backends[i].type, type) == 0)
			return (int)i;
	return -1;
}

int pt_store_open(struct pt_store **ret, const struct pt_store_conf *conf, const struct pt_http_client_conf *http,
		  const struct pt_cancel *cancel, struct pt_err *err)
{
	int i = index_of(conf->type);

	pt_assert(i >= 0); /* the conf was checked */
	return backends[i].ops->open(ret, conf, http, cancel, err);
}

void pt_store_close(struct pt_store *s)
{
	if (s)
		s->ops->close(s);
}

int pt_store_secret(const char *value, const char *file, char **ret, struct pt_err *err)
{
	*ret = NULL;
	if (pt_store_has(file))
		return pt_secret_file(file, ret, err);
	if (!pt_store_has(value))
		return PT_OK;
	*ret = strdup(value);
	return *ret ? PT_OK : pt_fail_oom(err);
}

/* The prefix without the '/' at its ends. */
static void add_prefix(const struct pt_store_conf *conf, struct pt_buf *out)
{
	const char *p = conf->prefix ? conf->prefix + strspn(conf->prefix, "/") : "";
	size_t n = strlen(p);

	while (n && p[n - 1] == '/')
		n--;
	pt_buf_add(out, p, n);
}

void pt_store_key(const struct pt_store_conf *conf, const char *name, struct pt_buf *out)
{
	size_t before = out->len;

	add_prefix(conf, out);
	pt_buf_fmt(out, "%s%s", out->len > before ? "/" : "", name);
}

void pt_store_address(const struct pt_store_conf *conf, struct pt_buf *out)
{
	int i = index_of(conf->type);
	size_t before;

	pt_assert(i >= 0);
	pt_buf_fmt(out, "%s://%s%s%s", backends[i].scheme, pt_store_has(conf->account) ? conf->account : "",
		   pt_store_has(conf->account) ? "/" : "", conf->bucket);
	before = out->len;
	pt_buf_chr(out, '/');
	add_prefix(conf, out);
	if (out->len == before + 1 && !out->bad)
		out->p[--out->len] = '\0';
}

static void member(struct pt_buf *out, const char *name, const char *v)
{
	if (!pt_store_has(v))
		return;
	pt_buf_fmt(out, "%s\"%s\": ", out->p[out->len - 1] == '{' ? "" : ", ", name);
	pt_buf_json(out, v, strlen(v));
}

void pt_store_json(const struct pt_store_conf *conf, struct pt_buf *out)
{
	if (!pt_store_has(conf->type)) {
		pt_buf_str(out, "null");
		return;
	}
	pt_buf_chr(out, '{');
	member(out, "type", conf->type);
	member(out, "bucket", conf->bucket);
	member(out, "endpoint", conf->endpoint);
	member(out, "account", conf->account);
	member(out, "region", conf->region);
	member(out, "prefix", conf->prefix);
	pt_buf_chr(out, '}');
}

/* --- the probe --- */

struct found {
	const char *key;
	bool yes;
};

static int on_key(void *arg, const char *key)
{
	struct found *f = arg;

	f->yes = f->yes || strcmp(f->key, key) == 0;
	return PT_OK;
}

static int read_back(struct pt_store *s, const char *key, const struct pt_buf *want, struct pt_err *err)
{
	pt_auto_buf got = PT_BUF_INIT(want->len + 4096);
	int rc = s->ops->get(s, key, &got, err);

	if (rc < 0)
		return rc;
	if (got.len == want->len && memcmp(got.p, want->p, got.len) == 0)
		return PT_OK;
	(void)pt_fail(err, PT_E_CORRUPT, "other bytes came back than were written (%zu instead of %zu)", got.len, want->len);
	return pt_hint(err, "something between the agent and the store changes or caches objects: a proxy, a gateway?");
}

static int find(struct pt_store *s, const char *key, struct pt_err *err)
{
	struct found f = { .key = key };
	int rc = s->ops->list(s, key, 10, on_key, &f, err);

	if (rc < 0 || f.yes)
		return rc;
	(void)pt_fail(err, PT_E_CORRUPT, "the object just written is not in the list");
	return pt_hint(err, "the store lists late; operations that list may miss new objects");
}

static int one_step(struct pt_store *s, enum pt_store_step step, const char *key, const struct pt_buf *content,
		    struct pt_err *err)
{
	switch (step) {
	case PT_STORE_WRITE:
		return s->ops->put(s, key, content->p, content->len, err);
	case PT_STORE_READ:
		return read_back(s, key, content, err);
	case PT_STORE_LIST:
		return find(s, key, err);
	default:
		return s->ops->remove(s, key, err);
	}
}

static void look_access(struct pt_store *s, struct pt_store_probe *ret)
{
	int rc = s->ops->is_public ? s->ops->is_public(s, ret->key, ret->access_why) : -1;

	ret->access = rc < 0 ? PT_STORE_ACCESS_UNKNOWN : rc ? PT_STORE_PUBLIC : PT_STORE_PRIVATE;
}

/* From writing to deleting.  What was written is deleted also when a step in between failed. */
static int steps(struct pt_store *s, struct pt_store_probe *ret, const struct pt_buf *content, struct pt_err *err)
{
	struct pt_err later = { 0 };
	int rc = PT_OK;

	for (enum pt_store_step step = PT_STORE_WRITE; step < PT_STORE_STEPS; step++) {
		int64_t began = pt_mono_ns();
		int one;

		if (rc < 0 && step != PT_STORE_DELETE)
			continue;
		one = one_step(s, step, ret->key, content, rc < 0 ? &later : err);
		ret->took_us[step] = (pt_mono_ns() - began) / 1000 + 1;
		if (one < 0 && rc == 0) {
			ret->step = step;
			rc = one;
		}
		if (step == PT_STORE_WRITE && one < 0)
			break;
		if (step == PT_STORE_READ && one == 0)
			look_access(s, ret);
		if (step == PT_STORE_DELETE)
			ret->left = one < 0;
	}
	return rc;
}

int pt_store_probe(const struct pt_store_conf *conf, const struct pt_http_client_conf *http, const struct pt_cancel *cancel,
		   struct pt_store_probe *ret, struct pt_err *err)
{
	pt_auto(pt_store_closep) struct pt_store *s = NULL;
	pt_auto_buf key = PT_BUF_INIT(sizeof(ret->key)), content = PT_BUF_INIT(1024), where = PT_BUF_INIT(900);
	int64_t began = pt_mono_ns();
	char id[PT_ID_SIZE];
	int rc;

	*ret = (struct pt_store_probe) { .step = PT_STORE_CREDENTIALS };
	pt_id_new(id, "chk");
	pt_store_address(conf, &where);
	pt_buf_fmt(&content, "postern-check-%s", id);
	pt_store_key(conf, content.p, &key);
	pt_buf_str(&content, ": written to see whether this store works; it may be deleted\n");
	if ((rc = pt_buf_done(&key, err)) < 0 || (rc = pt_buf_done(&content, err)) < 0)
		return rc;
	snprintf(ret->key, sizeof(ret->key), "%s", key.p);
	rc = pt_store_open(&s, conf, http, cancel, err);
	ret->took_us[PT_STORE_CREDENTIALS] = (pt_mono_ns() - began) / 1000 + 1;
	if (rc == 0) {
		ret->credentials = s->credentials;
		ret->step = PT_STORE_STEPS;
		rc = steps(s, ret, &content, err);
	}
	return rc < 0 ? pt_err_wrap(err, rc, "storage %s: %s", where.p, pt_store_step_names[ret->step]) : PT_OK;
}
