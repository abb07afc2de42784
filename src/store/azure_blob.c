/* Azure Blob Storage: Shared Key with the account's key, or a token of workload identity.  Used by one thread. */
#include "cloud/token.h"
#include "net/url.h"
#include "store/web.h"
#include <stdio.h>

#define VERSION "2021-12-02"
enum { LIST_BYTES = 4 << 20 };

struct azure {
	struct pt_web web; /* first */
	char *key;         /* of the account, NULL = workload identity */
	struct pt_token token;
};

static const struct pt_web_error errors[] = {
	{ "AuthenticationFailed", PT_E_SOURCE_AUTH,
	  "is POSTERN_STORAGE_ACCESS_KEY a key of this account (not rotated since), and is this machine's clock right?" },
	{ "InvalidAuthenticationInfo", PT_E_SOURCE_AUTH,
	  "the token was not accepted: check the managed identity and its tenant" },
	{ "KeyBasedAuthenticationNotPermitted", PT_E_SOURCE_AUTH, "the account does not allow keys: use workload identity" },
	{ "AuthorizationFailure", PT_E_SOURCE_DENIED,
	  "network rules of the account refuse this (allow the cluster's network, use a private endpoint), or the key is wrong" },
	{ "AuthorizationPermissionMismatch", PT_E_SOURCE_DENIED,
	  "grant the identity the role Storage Blob Data Contributor on the container; it takes minutes to count" },
	{ "InsufficientAccountPermissions", PT_E_SOURCE_DENIED, "grant the identity the role Storage Blob Data Contributor" },
	{ "AccountIsDisabled", PT_E_SOURCE_DENIED, "the storage account is disabled" },
	{ "ContainerNotFound", PT_E_NOT_FOUND,
	  "create the container, or correct POSTERN_STORAGE_BUCKET_NAME; the agent creates none" },
	{ "ResourceNotFound", PT_E_NOT_FOUND, "is POSTERN_STORAGE_ACCOUNT_NAME right?" },
	{ "ContainerBeingDeleted", PT_E_CONFLICT, "the container is being deleted: choose another" },
	{ "ServerBusy", PT_E_LIMIT, "the store asks for fewer requests: try again" },
	{ NULL },
};

static void versions(const struct pt_signable *r, struct pt_lines *out)
{
	if (strcmp(r->method, "PUT") == 0)
		pt_lines_add(out, "x-ms-blob-type:BlockBlob");
	pt_lines_add(out, "x-ms-version:" VERSION);
}

static int sign(struct pt_web *w, const struct pt_signable *r, struct pt_lines *out, struct pt_err *err)
{
	struct azure *a = (struct azure *)w;
	int rc;

	versions(r, out);
	if (a->key)
		return pt_azure_sign(r, w->conf->account, a->key, out, err);
	if (!a->token.text || pt_web_expires(a->token.expires_at)) {
		pt_token_release(&a->token);
		rc = pt_azure_token(&a->token, w->http, w->cancel, err);
		if (rc < 0)
			return rc;
	}
	pt_lines_add(out, "Host: %s", r->host);
	pt_lines_add(out, "Authorization: Bearer %s", a->token.text);
	return PT_OK;
}

static void anonymous(struct pt_web *w, const struct pt_signable *r, struct pt_lines *out)
{
	versions(r, out);
	pt_lines_add(out, "Host: %s", r->host);
}

static const struct pt_web_kind kind = { .errors = errors, .sign = sign, .anonymous = anonymous };

static void azure_close(struct pt_store *st)
{
	struct azure *a = (struct azure *)st;

	if (a->key)
		explicit_bzero(a->key, strlen(a->key));
	free(a->key);
	pt_token_release(&a->token);
	pt_web_release(&a->web);
	free(a);
}

/* The account is part of the host (Azure itself, private endpoints), or else of the path (emulators). */
static int address(struct azure *a, const struct pt_store_conf *conf, struct pt_err *err)
{
	char base[400], first[40], path[300];
	struct pt_url u;
	size_t n;
	int rc;

	if (!pt_store_has(conf->endpoint)) {
		snprintf(base, sizeof(base), "https://%s.blob.core.windows.net", conf->account);
		return pt_web_init(&a->web, base, conf->bucket, err);
	}
	rc = pt_url_parse(conf->endpoint, &u, err);
	if (rc < 0)
		return rc;
	snprintf(first, sizeof(first), "%s.", conf->account);
	snprintf(path, sizeof(path), "/%s", conf->account);
	n = strlen(path);
	if (strncmp(u.host, first, strlen(first)) == 0 || (strncmp(u.path, path, n) == 0 && (!u.path[n] || u.path[n] == '/')))
		return pt_web_init(&a->web, conf->endpoint, conf->bucket, err);
	snprintf(path, sizeof(path), "%s/%s", conf->account, conf->bucket);
	rc = pt_web_init(&a->web, conf->endpoint, conf->account, err);
	if (rc == 0) {
		pt_auto_buf longer = PT_BUF_INIT(4096);

		pt_buf_fmt(&longer, "%s/%s", a->web.path, conf->bucket);
		free(a->web.path);
		a->web.path = pt_buf_detach(&longer, NULL);
		rc = a->web.path ? PT_OK : pt_fail_oom(err);
	}
	return rc;
}

static int azure_open(struct pt_store **ret, const struct pt_store_conf *conf, const struct pt_http_client_conf *http,
		      const struct pt_cancel *cancel, struct pt_err *err)
{
	struct azure *a = calloc(1, sizeof(*a));
	int rc;

	if (!a)
		return pt_fail_oom(err);
	a->web = (struct pt_web) {
		.store.ops = &pt_store_azure_blob, .kind = &kind, .conf = conf, .http = http, .cancel = cancel
	};
	rc = address(a, conf, err);
	if (rc == 0)
		rc = pt_store_secret(conf->access_key, conf->access_key_file, &a->key, err);
	if (rc == 0 && !a->key)
		rc = pt_azure_token(&a->token, http, cancel, err);
	if (rc < 0) {
		azure_close(&a->web.store);
		return rc;
	}
	a->web.store.credentials = !a->key                               ? "workload identity"
				   : pt_store_has(conf->access_key_file) ? "POSTERN_STORAGE_ACCESS_KEY_FILE"
									 : "POSTERN_STORAGE_ACCESS_KEY";
	*ret = &a->web.store;
	return PT_OK;
}

/* --- objects --- */

static int azure_put(struct pt_store *st, const char *key, const void *data, size_t n, struct pt_err *err)
{
	struct pt_web_call call = { .method = "PUT", .key = key, .body = data, .n = n };

	return pt_web_do((struct pt_web *)st, &call, err);
}

static int azure_get(struct pt_store *st, const char *key, struct pt_buf *out, struct pt_err *err)
{
	struct pt_web_call call = { .method = "GET", .key = key, .out = out };

	return pt_web_do((struct pt_web *)st, &call, err);
}

static int azure_list(struct pt_store *st, const char *prefix, unsigned max, int (*fn)(void *arg, const char *key), void *arg,
		      struct pt_err *err)
{
	char most[12];
	const struct pt_param params[] = {
		{ "comp", "list" }, { "maxresults", most }, { "prefix", prefix }, { "restype", "container" }, { NULL }
	};
	pt_auto_buf answer = PT_BUF_INIT(LIST_BYTES), key = PT_BUF_INIT(8192);
	struct pt_web_call call = { .method = "GET", .params = params, .out = &answer };
	struct pt_xml rest, one;
	int rc;

	snprintf(most, sizeof(most), "%u", max);
	rc = pt_web_do((struct pt_web *)st, &call, err);
	rest = (struct pt_xml) { answer.p, answer.len };
	while (rc == 0 && pt_xml_next(&rest, "Blob", &one)) {
		pt_buf_clear(&key);
		if (pt_xml_text(one, "Name", &key))
			rc = fn(arg, key.p);
	}
	return rc;
}

static int azure_remove(struct pt_store *st, const char *key, struct pt_err *err)
{
	struct pt_web_call call = { .method = "DELETE", .key = key };
	int rc = pt_web_do((struct pt_web *)st, &call, err);

	return rc == PT_E_NOT_FOUND && strcmp(err->native, "BlobNotFound") == 0 ? PT_OK : rc;
}

static int azure_is_public(struct pt_store *st, const char *key, char why[static 200])
{
	const struct pt_param params[] = { { "comp", "list" }, { "maxresults", "1" }, { "restype", "container" }, { NULL } };
	int object = pt_web_anonymous((struct pt_web *)st, key, NULL), list = pt_web_anonymous((struct pt_web *)st, NULL, params);

	snprintf(why, 200, "%s",
		 object > 0               ? "its objects can be read without credentials"
		 : list > 0               ? "it can be listed without credentials"
		 : object < 0 || list < 0 ? "a request without credentials got no clear answer"
					  : "requests without credentials are refused");
	return object > 0 || list > 0 ? 1 : object < 0 || list < 0 ? -1 : 0;
}

const struct pt_store_ops pt_store_azure_blob = { .name = "AZURE_BLOB",
						  .open = azure_open,
						  .put = azure_put,
						  .get = azure_get,
						  .list = azure_list,
						  .remove = azure_remove,
						  .is_public = azure_is_public,
						  .close = azure_close };
