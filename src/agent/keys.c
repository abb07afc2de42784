#include "agent/keys.h"
#include "base/log.h"
#include "base/shape.h"
#include "os/file.h"
#include <stdio.h>
#include <strings.h>

enum { FILE_MAX_BYTES = 64 * 1024 };
#define FORM "{\"key_id\": \"…\", \"key_secret\": \"…\"}"

/* Text that somebody forgot to replace. */
static bool placeholder(const char *s)
{
	static const char *const marks[] = {
		"<", "replace", "changeme", "change-me", "your-", "your_", "example", "xxxx", "..."
	};

	for (size_t i = 0; i < PT_COUNT(marks); i++)
		if (strcasestr(s, marks[i]))
			return true;
	return false;
}

static int member(const json_t *j, const char *name, const char *other, char *out, size_t size, const char *path,
		  struct pt_err *err)
{
	const json_t *v = json_object_get(j, name) ? json_object_get(j, name) : json_object_get(j, other);
	const char *s = json_string_value(v);

	if (!s || !*s) {
		(void)pt_fail(err, PT_E_INVALID, "token file '%s' has no text member \"%s\"", path, name);
		return pt_hint(err, "it must look like %s; `postern ctl keys create` writes one", FORM);
	}
	if (strlen(s) >= size)
		return pt_fail(err, PT_E_INVALID, "token file '%s': \"%s\" is too long", path, name);
	if (placeholder(s)) {
		(void)pt_fail(err, PT_E_INVALID, "token file '%s': \"%s\" still is a placeholder", path, name);
		return pt_hint(err, "put the key in that `postern ctl keys create` has shown");
	}
	memcpy(out, s, strlen(s) + 1);
	return PT_OK;
}

static int load(const char *path, struct pt_key *ret, struct stat *st, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(FILE_MAX_BYTES);
	struct pt_key key = { 0 };
	json_t *j = NULL;
	int rc;

	if (stat(path, st) < 0)
		*st = (struct stat){ 0 };
	rc = pt_file_read(path, &b, err);
	if (rc < 0) {
		(void)pt_err_wrap(err, rc, "token file");
		(void)pt_hint(err, rc == PT_E_NOT_FOUND ? "mount the agent's key there, or set --token-file to where it is"
							: "the agent's user must be able to read it");
		return rc;
	}
	rc = pt_json_parse(b.p, b.len, &j, err);
	if (rc < 0 || !json_is_object(j)) {
		(void)pt_fail(err, PT_E_INVALID, "token file '%s' is not a JSON object", path); /* the parser could quote it */
		rc = pt_hint(err, "it must look like %s", FORM);
	} else if ((rc = member(j, "key_id", "mcd_id", key.id, sizeof(key.id), path, err)) == 0) {
		rc = member(j, "key_secret", "mcd_token", key.secret, sizeof(key.secret), path, err);
	}
	json_decref(j);
	explicit_bzero(b.p, b.len);
	key.generation = ret->generation + 1;
	if (rc == 0)
		*ret = key;
	explicit_bzero(&key, sizeof(key));
	return rc;
}

int pt_keys_open(struct pt_keys *k, const char *path, struct pt_err *err)
{
	*k = (struct pt_keys){ .path = path };
	pthread_mutex_init(&k->lock, NULL);
	return load(path, &k->key, &k->seen, err);
}

void pt_keys_close(struct pt_keys *k)
{
	if (!k->path)
		return;
	explicit_bzero(&k->key, sizeof(k->key));
	pthread_mutex_destroy(&k->lock);
	k->path = NULL;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

void pt_keys_get(struct pt_keys *k, struct pt_key *ret)
{
	struct pt_err err = { 0 };
	struct stat now;

	pthread_mutex_lock(&k->lock);
	if (stat(k->path, &now) < 0)
		now = (struct stat){ 0 };
	if (!same_file(&now, &k->seen)) {
		int rc = load(k->path, &k->key, &k->seen, &err);

		if (rc == 0)
			pt_info("the agent's key was read again", "key_id", k->key.id);
		else if (!k->bad)
			pt_log_err(PT_LOG_WARN, "the token file has changed and cannot be used; the agent keeps its key", &err);
		k->bad = rc < 0;
	}
	*ret = k->key;
	pthread_mutex_unlock(&k->lock);
}

bool pt_keys_changed(struct pt_keys *k, unsigned generation)
{
	struct pt_key key;

	pt_keys_get(k, &key);
	explicit_bzero(key.secret, sizeof(key.secret));
	return key.generation != generation;
}
