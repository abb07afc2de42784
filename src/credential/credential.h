/* Self-hosted credentials: where the agent finds a data source's secret.  The secret is JSON {"connect_args": {...}}; it
 * never leaves the agent: no message, log line or result may hold a part of it. */
#ifndef PT_CREDENTIAL_CREDENTIAL_H
#define PT_CREDENTIAL_CREDENTIAL_H
#include "os/cancel.h"
#include "proto/messages.h"

struct pt_credential_conf {
	/* Colon-separated absolute folders that FILE may read below: "/etc/secrets/integrations"; NULL = none. */
	const char *dirs;
};
struct pt_credential_source {
	const char *name; /* "FILE" */
	/* Check the reference itself, without touching the secret (the gateway does it too): INVALID. */
	int (*check)(const struct pt_credential_ref *ref, struct pt_err *err);
	/* Append the secret's text (at most PT_CREDENTIAL_MAX bytes) to out, which the caller wipes.  ref passed check().
	 * CREDENTIAL (absent, unreadable, no plain file, too large), DENIED (outside the allowed folders). */
	int (*fetch)(const struct pt_credential_ref *ref, const struct pt_credential_conf *conf, const struct pt_cancel *cancel,
		     struct pt_buf *out, struct pt_err *err);
};
#define PT_CREDENTIAL_MAX ((size_t)1 << 20)

/* INVALID: no such type, a member that is missing, malformed or of another type. */
int pt_credential_check(const struct pt_credential_ref *ref, struct pt_err *err) PT_MUSTCHECK;
/* Check, fetch and parse; *ret is the connect_args object, for pt_credential_release().  Read again at each call, so that a
 * rotated file counts.  Blocks on the file system only.  CREDENTIAL also when the secret is not {"connect_args": {...}}; no
 * error quotes any of it. */
int pt_credential_connect_args(const struct pt_credential_ref *ref, const struct pt_credential_conf *conf,
			       const struct pt_cancel *cancel, json_t **ret, struct pt_err *err) PT_MUSTCHECK;
/* Wipe the strings in it and drop the reference.  NULL is fine. */
void pt_credential_release(json_t *connect_args);
PT_DEFINE_CLEANUP(json_t *, pt_credential_release)

/* The sources, for the table and its tests. */
extern const struct pt_credential_source pt_credential_file, pt_credential_env;
#endif
