/* What the spool's tests share: a folder of their own, results, and looking at files. */
#ifndef PT_TEST_SPOOL_UTIL_H
#define PT_TEST_SPOOL_UTIL_H
#include "agent/spool.h"
#include "base/id.h"
#include "os/file.h"
#include "../tap.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* Inside long loops: silent unless it fails. */
#define ok_quiet(c) ((c) ? (void)0 : abort())

static inline void temp_dir(char out[static 64])
{
	snprintf(out, 64, "/tmp/postern-spool-XXXXXX");
	if (!mkdtemp(out))
		abort();
}

/* A ring of keys by their ids, the first one sealing; the same id always has the same secret. */
static inline const struct pt_seal_ring *ring_of(const char *const *ids, unsigned n)
{
	static struct pt_seal_ring r;
	static unsigned generation;
	struct pt_err err;

	r = (struct pt_seal_ring) { .generation = ++generation };
	for (unsigned i = 0; i < n; i++) {
		char secret[100];

		snprintf(secret, sizeof(secret), "pts_secret_of_%s", ids[i]);
		if (pt_seal_ring_add(&r, "spool", ids[i], secret, &err) < 0)
			abort();
	}
	return &r;
}
#define ring(...) ring_of((const char *const[]) { __VA_ARGS__ }, sizeof((const char *const[]) { __VA_ARGS__ }) / sizeof(char *))

/* In memory where there is such a place: for thousands of fsyncs that prove nothing about the disk. */
static inline void temp_dir_quick(char out[static 64])
{
	snprintf(out, 64, "/dev/shm/postern-spool-XXXXXX");
	if (!mkdtemp(out))
		temp_dir(out);
}

static inline void wipe(const char *dir, bool folder_too)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[400];

	while (d && (e = readdir(d)))
		if (*e->d_name != '.') {
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
			(void)unlink(path);
		}
	if (d)
		closedir(d);
	if (folder_too)
		(void)rmdir(dir);
}

/* How many files have a name that begins with prefix and ends with suffix; the last one's name in ret. */
static inline int files(const char *dir, const char *prefix, const char *suffix, char ret[static 300])
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	*ret = '\0';
	while (d && (e = readdir(d))) {
		size_t len = strlen(e->d_name), sl = strlen(suffix);

		if (strncmp(e->d_name, prefix, strlen(prefix)) || len < sl || strcmp(e->d_name + len - sl, suffix))
			continue;
		n++;
		if (strcmp(e->d_name, ret) > 0)
			snprintf(ret, 300, "%s", e->d_name);
	}
	if (d)
		closedir(d);
	return n;
}

/* A body of n bytes that depends on seed and hardly compresses. */
static inline char *body_bytes(size_t n, unsigned seed)
{
	char *p = malloc(n + 1);
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		p[i] = (char)x;
	}
	p[n] = 0;
	return p;
}

/* Put a succeeded result with a body of n bytes (0 = none). */
static inline int put_result(struct pt_spool *s, const char *op, int64_t attempt, size_t n, struct pt_err *err)
{
	struct pt_result_head head = { .instance = "in_test", .started_at = 1, .finished_at = 2, .affected = -1 };
	struct pt_spool_writer *w = NULL;
	char *body = body_bytes(n, (unsigned)attempt);
	int rc = pt_spool_begin(s, op, attempt, &w, err);

	head.status = strdup("succeeded");
	head.body_format = n ? strdup("jsonl") : NULL;
	for (size_t at = 0; rc == 0 && at < n;) { /* in pieces, as a connector does */
		size_t k = n - at < 7000 ? n - at : 7000;

		rc = pt_spool_body(w)->write(pt_spool_body(w), body + at, k, err);
		at += k;
	}
	if (rc == 0)
		rc = pt_spool_commit(w, &head, err);
	pt_spool_writer_free(w);
	pt_shape_release(&pt_result_head_shape, &head);
	free(body);
	return rc;
}
#endif
