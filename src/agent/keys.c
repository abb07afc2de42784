#include "agent/keys.h"
#include "base/id.h"
#include "base/log.h"
#include "base/shape.h"
#include "os/file.h"
#include <stdio.h>
#include <strings.h>

enum { FILE_MAX_BYTES = 64 * 1024 };
#define FORM "{\"key_id\": \"…\", \"key_secret\": \"…\"}"

/* Text that somebody forgot to replace.  What a gateway has made is none, whatever words its random part holds. */
static bool placeholder(const char *s)
{
	static const char *const marks[] = {
		"<", "replace", "changeme", "change-me", "your-", "your_", "example", "xxxx", "..."
	};

	if (pt_id_valid(s, "key") || pt_secret_valid(s, "pts_"))
		return false;
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

/* One key; nothing but its two members may be missing. */
static int one_key(const json_t *j, const char *path, struct pt_key *ret, struct pt_err *err)
{
	int rc = member(j, "key_id", "mcd_id", ret->id, sizeof(ret->id), path, err);

	return rc < 0 ? rc : member(j, "key_secret", "mcd_token", ret->secret, sizeof(ret->secret), path, err);
}

static int previous_keys(const json_t *j, const char *path, struct pt_keys *ret, struct pt_err *err)
{
	const json_t *list = json_object_get(j, "previous");
	size_t n = json_is_array(list) ? json_array_size(list) : list != NULL;
	int rc = PT_OK;

	if (n > PT_KEYS_PREVIOUS)
		return pt_fail(err, PT_E_INVALID, "token file '%s': \"previous\" has more than %d keys", path, PT_KEYS_PREVIOUS);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		const json_t *one = json_is_array(list) ? json_array_get(list, i) : list;

		if (!json_is_object(one)) {
			(void)pt_fail(err, PT_E_INVALID, "token file '%s': \"previous\" holds something that is not a key", path);
			return pt_hint(err, "it must be %s or a list of such keys", FORM);
		}
		rc = pt_err_wrap(err, one_key(one, path, &ret->previous[i], err), "\"previous\"");
	}
	ret->n_previous = rc == 0 ? (unsigned)n : 0;
	return rc;
}

/* Read the file into k, which keeps what it has when that fails. */
static int load(struct pt_keys *k, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(FILE_MAX_BYTES);
	struct pt_keys got = { 0 };
	json_t *j = NULL;
	int rc;

	if (stat(k->path, &k->seen) < 0)
		k->seen = (struct stat) { 0 };
	rc = pt_file_read(k->path, &b, err);
	if (rc < 0) {
		(void)pt_err_wrap(err, rc, "token file");
		if (S_ISDIR(k->seen.st_mode))
			return pt_hint(
				err, "it is a folder: name the file in it; docker makes one when the file to mount is not there");
		(void)pt_hint(err, rc == PT_E_NOT_FOUND ? "mount the agent's key there, or set --token-file to where it is"
							: "the agent's user must be able to read it");
		return rc;
	}
	rc = pt_json_parse(b.p, b.len, &j, err);
	if (rc < 0 || !json_is_object(j)) {
		(void)pt_fail(err, PT_E_INVALID, "token file '%s' is not a JSON object", k->path); /* the parser could quote it */
		rc = pt_hint(err, "it must look like %s", FORM);
	} else if ((rc = one_key(j, k->path, &got.key, err)) == 0) {
		rc = previous_keys(j, k->path, &got, err);
	}
	json_decref(j);
	explicit_bzero(b.p, b.len);
	if (rc == 0) {
		got.key.generation = k->key.generation + 1;
		k->key = got.key;
		memcpy(k->previous, got.previous, sizeof(k->previous));
		k->n_previous = got.n_previous;
	}
	explicit_bzero(&got, sizeof(got));
	return rc;
}

int pt_keys_open(struct pt_keys *k, const char *path, struct pt_err *err)
{
	*k = (struct pt_keys){ .path = path };
	pthread_mutex_init(&k->lock, NULL);
	return load(k, err);
}

void pt_keys_close(struct pt_keys *k)
{
	if (!k->path)
		return;
	explicit_bzero(&k->key, sizeof(k->key));
	explicit_bzero(k->previous, sizeof(k->previous));
	pthread_mutex_destroy(&k->lock);
	k->path = NULL;
}

/* Under the lock: read the file if it has changed.  True: there is something new. */
static bool refresh(struct pt_keys *k)
{
	struct pt_err err = { 0 };
	struct stat now;
	int rc;

	if (stat(k->path, &now) < 0)
		now = (struct stat){ 0 };
	if (pt_file_same(&now, &k->seen))
		return false;
	rc = load(k, &err);
	if (rc == 0)
		pt_info("the agent's key was read again", "key_id", k->key.id);
	else if (!k->bad)
		pt_log_err(PT_LOG_WARN, "the token file has changed and cannot be used; the agent keeps its key", &err);
	k->bad = rc < 0;
	return rc == 0;
}

void pt_keys_get(struct pt_keys *k, struct pt_key *ret)
{
	bool news;

	pthread_mutex_lock(&k->lock);
	news = refresh(k);
	*ret = k->key;
	pthread_mutex_unlock(&k->lock);
	if (news && k->changed)
		k->changed(k->arg);
}

void pt_keys_state(struct pt_keys *k, struct pt_keys_state *ret)
{
	pthread_mutex_lock(&k->lock);
	*ret = (struct pt_keys_state) {
		.generation = k->key.generation, .previous = k->n_previous, .changed_at = k->seen.st_mtim.tv_sec, .bad = k->bad
	};
	pthread_mutex_unlock(&k->lock);
}

unsigned pt_keys_all(struct pt_keys *k, struct pt_key ret[static 1 + PT_KEYS_PREVIOUS])
{
	unsigned n = 1;

	pthread_mutex_lock(&k->lock);
	ret[0] = k->key;
	for (unsigned i = 0; i < k->n_previous; i++) {
		ret[n] = k->previous[i];
		ret[n++].generation = k->key.generation;
	}
	pthread_mutex_unlock(&k->lock);
	return n;
}

bool pt_keys_changed(struct pt_keys *k, unsigned generation)
{
	struct pt_key key;

	pt_keys_get(k, &key);
	explicit_bzero(key.secret, sizeof(key.secret));
	return key.generation != generation;
}
