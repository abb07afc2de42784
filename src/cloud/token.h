/* Bearer tokens by workload identity: who the pod is, said by the platform, instead of a stored secret.  All block on the
 * network. */
#ifndef PT_CLOUD_TOKEN_H
#define PT_CLOUD_TOKEN_H
#include "net/http_client.h"

struct pt_token {
	char *text;
	int64_t expires_at; /* wall ms */
};
void pt_token_release(struct pt_token *t); /* wipes */

/* Google: of the service account that the metadata server (GCE_METADATA_HOST, metadata.google.internal) gives this pod or
 * machine.  The server is link-local: never by a proxy.  CREDENTIAL. */
int pt_gcp_token(struct pt_token *ret, const struct pt_http_client_conf *http, const struct pt_cancel *cancel,
		 struct pt_err *err) PT_MUSTCHECK;
/* Azure: the Kubernetes token in AZURE_FEDERATED_TOKEN_FILE is exchanged at AZURE_AUTHORITY_HOST for one of AZURE_CLIENT_ID in
 * AZURE_TENANT_ID, for storage.  CREDENTIAL. */
int pt_azure_token(struct pt_token *ret, const struct pt_http_client_conf *http, const struct pt_cancel *cancel,
		   struct pt_err *err) PT_MUSTCHECK;
bool pt_azure_token_possible(void); /* are the variables set?  The AKS webhook does it */

/* The content of a small file without the white space around it, for a key or token; the caller wipes and frees it.  CREDENTIAL
 * when it cannot be read or is empty. */
int pt_secret_file(const char *path, char **ret, struct pt_err *err) PT_MUSTCHECK;
/* The value of an environment variable that others define (AWS_REGION), NULL when unset or empty. */
const char *pt_env(const char *name);
/* GET or POST (form not NULL) to a service that gives credentials; the body of its 200 goes to out, which the caller wipes.
 * direct: without a proxy, for link-local addresses.  CREDENTIAL, which names who; CANCELLED, DEADLINE. */
int pt_token_fetch(const char *who, const char *url, const char *const *headers, const char *form, bool direct,
		   const struct pt_http_client_conf *http, const struct pt_cancel *cancel, struct pt_buf *out,
		   struct pt_err *err) PT_MUSTCHECK;
#endif
