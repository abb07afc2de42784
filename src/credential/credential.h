/* Self-hosted credentials: where the agent finds a data source's secret.  The secret is JSON {"connect_args": {...}}; it
 * never leaves the agent: no message, log line or result may hold a part of it. */
#ifndef PT_CREDENTIAL_CREDENTIAL_H
#define PT_CREDENTIAL_CREDENTIAL_H
#include "os/cancel.h"
#include "proto/messages.h"

struct pt_credential_conf {
	const char *dirs; /* colon-separated folders that FILE may read below: "/etc/secrets/integrations" */
};
struct pt_credential_source {
	const char *name; /* "FILE" */
	/* Check the reference itself, without touching the secret (the gateway does it too): INVALID. */
	int (*check)(const struct pt_credential_ref *ref, struct pt_err *err);
	/* Append the secret's text to out.  CREDENTIAL (absent, unreadable, outside the allowed folders), DENIED. */
	int (*fetch)(const struct pt_credential_ref *ref, const struct pt_credential_conf *conf, const struct pt_cancel *cancel,
		     struct pt_buf *out, struct pt_err *err);
};
int pt_credential_check(const struct pt_credential_ref *ref, struct pt_err *err) PT_MUSTCHECK;
/* Fetch and parse; *ret is the connect_args object (caller decrefs).  Read again at each call, so that a rotated file counts. */
int pt_credential_connect_args(const struct pt_credential_ref *ref, const struct pt_credential_conf *conf,
			       const struct pt_cancel *cancel, json_t **ret, struct pt_err *err) PT_MUSTCHECK;
#endif
