/* Room on the gateway's disks.  A gateway that cannot write cannot acknowledge anything, and readiness says so before that. */
#include "gateway/internal.h"
#include "os/usage.h"
#include <stdio.h>

enum { LEAST = 4 * 1024 * 1024 };

int64_t pt_disk_least(int64_t size)
{
	return size / 16 < LEAST ? size / 16 : LEAST;
}

static int check(const char *path, const char *what, struct pt_err *err)
{
	int64_t room, size;

	if (!pt_disk_space(path, &room, &size) || room >= pt_disk_least(size))
		return PT_OK; /* what cannot be looked at is the database's to tell */
	/* anybody may ask for the readiness: neither path nor sizes, which the metrics have */
	(void)pt_fail(err, PT_E_UNAVAILABLE, "the disk of the gateway's %s is full", what);
	return pt_hint(err, "give its volume more room, or shorten --retention; the gateway is ready again by itself");
}

int pt_disk_check(struct pt_gateway *g, struct pt_err *err)
{
	int rc = g->database ? check(g->database, "database", err) : PT_OK;

	return rc == 0 ? check(g->blob_dir, "results", err) : rc;
}
