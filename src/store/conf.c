/* The check of the storage settings: tables of what goes with what, and a rule per field.  See store.h. */
#include "store/store_int.h"
#include "cloud/aws.h"
#include "cloud/token.h"
#include "net/url.h"
#include <ctype.h>
#include <stdio.h>

#define P "POSTERN_STORAGE"
enum { BUCKET, ENDPOINT, REGION, ACCOUNT, PREFIX, ACCESS, SECRET, ACCESS_FILE, SECRET_FILE, N_FIELDS };
#define BIT(f) (1u << (f))
#define PAIR   (BIT(ACCESS) | BIT(SECRET) | BIT(ACCESS_FILE) | BIT(SECRET_FILE))

static const struct {
	const char *name;
	size_t offset;
} fields[N_FIELDS] = {
	[BUCKET] = { P "_BUCKET_NAME", offsetof(struct pt_store_conf, bucket) },
	[ENDPOINT] = { P "_ENDPOINT_URL", offsetof(struct pt_store_conf, endpoint) },
	[REGION] = { P "_REGION", offsetof(struct pt_store_conf, region) },
	[ACCOUNT] = { P "_ACCOUNT_NAME", offsetof(struct pt_store_conf, account) },
	[PREFIX] = { P "_PREFIX", offsetof(struct pt_store_conf, prefix) },
	[ACCESS] = { P "_ACCESS_KEY", offsetof(struct pt_store_conf, access_key) },
	[SECRET] = { P "_SECRET_KEY", offsetof(struct pt_store_conf, secret_key) },
	[ACCESS_FILE] = { P "_ACCESS_KEY_FILE", offsetof(struct pt_store_conf, access_key_file) },
	[SECRET_FILE] = { P "_SECRET_KEY_FILE", offsetof(struct pt_store_conf, secret_key_file) },
};

static int bucket_s3(const char *s, struct pt_err *err);
static int bucket_like_s3(const char *s, struct pt_err *err);
static int bucket_gcs(const char *s, struct pt_err *err);
static int container(const char *s, struct pt_err *err);
static int folder(const char *s, struct pt_err *err);

const char *const pt_store_types[] = { "S3", "S3_COMPATIBLE", "AZURE_BLOB", "GCS", "DIRECTORY", NULL };
enum { KEYS_NONE, KEYS_ONE, KEYS_PAIR };
static const struct type {
	const char *name;
	unsigned need, may; /* fields; may: besides those needed */
	int keys;
	bool keys_needed;
	int (*bucket)(const char *s, struct pt_err *err);
} types[] = {
	{ "S3", BIT(BUCKET), BIT(ENDPOINT) | BIT(REGION) | BIT(PREFIX) | PAIR, KEYS_PAIR, false, bucket_s3 },
	{ "S3_COMPATIBLE", BIT(BUCKET) | BIT(ENDPOINT), BIT(REGION) | BIT(PREFIX) | PAIR, KEYS_PAIR, true, bucket_like_s3 },
	{ "AZURE_BLOB", BIT(BUCKET) | BIT(ACCOUNT), BIT(ENDPOINT) | BIT(PREFIX) | BIT(ACCESS) | BIT(ACCESS_FILE), KEYS_ONE, false,
	  container },
	{ "GCS", BIT(BUCKET), BIT(ENDPOINT) | BIT(PREFIX) | PAIR, KEYS_PAIR, false, bucket_gcs },
	{ "DIRECTORY", BIT(BUCKET), BIT(PREFIX), KEYS_NONE, false, folder },
};

static const char *value_of(const struct pt_store_conf *c, int field)
{
	const char *v = *(const char *const *)((const char *)c + fields[field].offset);

	return pt_store_has(v) ? v : NULL;
}

/* --- one field --- */

static bool only(const char *s, const char *also, bool upper)
{
	for (; *s; s++)
		if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s) && !strchr(also, *s) &&
		    !(upper && isupper((unsigned char)*s)))
			return false;
	return true;
}

static bool between(size_t n, size_t least, size_t most)
{
	return n >= least && n <= most;
}

static bool like_address(const char *s)
{
	return strspn(s, "0123456789.") == strlen(s) && strchr(s, '.');
}

static int name_alone(const char *s, struct pt_err *err)
{
	if (!strpbrk(s, "/:"))
		return PT_OK;
	(void)pt_fail(err, PT_E_INVALID, P "_BUCKET_NAME is '%.100s', which is not a name alone", s);
	return pt_hint(err, "give the name without s3://, host or ARN; a folder within the bucket goes into " P "_PREFIX");
}

static int bad_name(const char *s, const char *rule, struct pt_err *err)
{
	(void)pt_fail(err, PT_E_INVALID, P "_BUCKET_NAME: '%.100s' cannot be the name of a bucket or container", s);
	return pt_hint(err, "%s", rule);
}

static int bucket_s3(const char *s, struct pt_err *err)
{
	size_t n = strlen(s);

	if (name_alone(s, err) < 0)
		return err->code;
	if (between(n, 3, 63) && only(s, "-.", false) && isalnum((unsigned char)*s) && isalnum((unsigned char)s[n - 1]) &&
	    !strstr(s, "..") && !like_address(s))
		return PT_OK;
	return bad_name(s,
			"S3: 3 to 63 lower-case letters, digits, dots and hyphens, a letter or digit at both ends, no IP address",
			err);
}

static int bucket_like_s3(const char *s, struct pt_err *err)
{
	if (name_alone(s, err) < 0)
		return err->code;
	return between(strlen(s), 3, 255) && only(s, "-._", true)
		       ? PT_OK
		       : bad_name(s, "3 to 255 letters, digits, dots, hyphens, underscores", err);
}

static int bucket_gcs(const char *s, struct pt_err *err)
{
	size_t n = strlen(s);

	if (name_alone(s, err) < 0)
		return err->code;
	if (between(n, 3, strchr(s, '.') ? 222 : 63) && only(s, "-._", false) && isalnum((unsigned char)*s) &&
	    isalnum((unsigned char)s[n - 1]) && !like_address(s))
		return PT_OK;
	return bad_name(
		s, "GCS: 3 to 63 lower-case letters, digits, dots, hyphens and underscores, a letter or digit at both ends", err);
}

static int container(const char *s, struct pt_err *err)
{
	size_t n = strlen(s);

	if (name_alone(s, err) < 0)
		return err->code;
	if (between(n, 3, 63) && only(s, "-", false) && *s != '-' && s[n - 1] != '-' && !strstr(s, "--"))
		return PT_OK;
	return bad_name(s, "Azure: 3 to 63 lower-case letters, digits and single hyphens, a letter or digit at both ends", err);
}

/* No empty, "." or ".." segment, nothing that is not printable. */
static bool plain_path(const char *s)
{
	while (*s) {
		size_t n = strcspn(s, "/");

		if (n == 0 || (n <= 2 && strspn(s, ".") >= n))
			return false;
		for (size_t i = 0; i < n; i++)
			if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
				return false;
		s += n;
		s += *s == '/';
	}
	return true;
}

static int folder(const char *s, struct pt_err *err)
{
	if (*s == '/' && s[1] && plain_path(s + 1))
		return PT_OK;
	(void)pt_fail(err, PT_E_INVALID, P "_BUCKET_NAME: '%.100s' is not the absolute path of a folder", s);
	return pt_hint(err, "with " P "=DIRECTORY it is a mounted folder such as /var/lib/postern/storage, without '..' or '//'");
}

static int check_endpoint(const struct pt_store_conf *c, struct pt_err *err)
{
	char first[300];
	struct pt_url u;
	int rc;

	if (!value_of(c, ENDPOINT))
		return PT_OK;
	rc = pt_url_parse(c->endpoint, &u, err);
	if (rc == 0 && strcmp(u.scheme, "http") != 0 && strcmp(u.scheme, "https") != 0)
		rc = pt_fail(err, PT_E_INVALID, "'%s' is neither https nor http", u.scheme);
	if (rc == 0 && *u.userinfo)
		rc = pt_fail(err, PT_E_INVALID, "it must hold no user or password");
	if (rc == 0 && strpbrk(u.path, "?#"))
		rc = pt_fail(err, PT_E_INVALID, "it must end with its host or path");
	explicit_bzero(u.userinfo, sizeof(u.userinfo));
	if (rc < 0) {
		(void)pt_err_wrap(err, rc, P "_ENDPOINT_URL");
		return pt_hint(err, "it looks like https://s3.example.com or http://minio.minio.svc:9000; keys go into " P
				    "_ACCESS_KEY and " P "_SECRET_KEY");
	}
	snprintf(first, sizeof(first), "%s.", c->bucket);
	if (strncmp(u.host, first, strlen(first)) == 0) {
		(void)pt_fail(err, PT_E_INVALID, P "_ENDPOINT_URL begins with the bucket's name ('%s')", u.host);
		return pt_hint(err, "give the endpoint without the bucket: %s://%s", u.scheme, u.host + strlen(first));
	}
	return PT_OK;
}

static int check_words(const struct pt_store_conf *c, struct pt_err *err)
{
	const char *region = value_of(c, REGION), *account = value_of(c, ACCOUNT), *prefix = value_of(c, PREFIX);

	if (region && !only(region, "-", false)) {
		(void)pt_fail(err, PT_E_INVALID, P "_REGION: '%.60s' is not a region", region);
		return pt_hint(err, "a region looks like eu-central-1 (not a zone such as eu-central-1a, not a place)");
	}
	if (account && !(between(strlen(account), 3, 24) && only(account, "", false))) {
		(void)pt_fail(err, PT_E_INVALID, P "_ACCOUNT_NAME: '%.60s' is not the name of a storage account", account);
		return pt_hint(err, "3 to 24 lower-case letters and digits, without .blob.core.windows.net");
	}
	if (prefix && !(strlen(prefix) <= 500 && plain_path(prefix + strspn(prefix, "/")))) {
		(void)pt_fail(err, PT_E_INVALID, P "_PREFIX: '%.100s' is not a plain path", prefix);
		return pt_hint(err, "up to 500 bytes, like team-a/postern, without empty, '.' or '..' parts");
	}
	return PT_OK;
}

/* --- fields together --- */

/* A value that was copied from an example and never filled in. */
static int check_placeholders(const struct pt_store_conf *c, struct pt_err *err)
{
	for (int f = 0; f < N_FIELDS; f++) {
		const char *v = value_of(c, f);
		size_t n = v ? strlen(v) : 0;

		if (n > 2 && v[0] == '<' && v[n - 1] == '>') {
			(void)pt_fail(err, PT_E_INVALID, "%s is still the placeholder of an example", fields[f].name);
			return pt_hint(err, "put your own value there, without the angle brackets");
		}
	}
	return PT_OK;
}

static int check_fields(const struct pt_store_conf *c, const struct type *t, struct pt_err *err)
{
	for (int f = 0; f < N_FIELDS; f++) {
		bool set = value_of(c, f) != NULL;

		if (!set && t->need & BIT(f)) {
			(void)pt_fail(err, PT_E_INVALID, "%s is not set, and " P "=%s needs it", fields[f].name, t->name);
			return f == ENDPOINT
				       ? pt_hint(err,
						 "set it to the store's API, http://minio.minio.svc:9000; for Amazon S3 itself "
						 "set " P "=S3")
				       : pt_hint(err, "set %s", fields[f].name);
		}
		if (set && !((t->need | t->may) & BIT(f))) {
			(void)pt_fail(err, PT_E_INVALID, "%s is set, but does not belong to " P "=%s", fields[f].name, t->name);
			return f == ENDPOINT ? pt_hint(err, "remove it")
			       : f == SECRET || f == SECRET_FILE
				       ? pt_hint(err, "the account's key goes into " P "_ACCESS_KEY; remove %s", fields[f].name)
				       : pt_hint(err, "remove it, or correct " P);
		}
	}
	return PT_OK;
}

static int check_keys(const struct pt_store_conf *c, const struct type *t, struct pt_err *err)
{
	bool access = value_of(c, ACCESS) || value_of(c, ACCESS_FILE), secret = value_of(c, SECRET) || value_of(c, SECRET_FILE);

	for (int f = ACCESS; f <= SECRET; f++)
		if (value_of(c, f) && value_of(c, f + ACCESS_FILE - ACCESS)) {
			(void)pt_fail(err, PT_E_INVALID, "%s and %s_FILE are both set", fields[f].name, fields[f].name);
			return pt_hint(err, "remove one of them; the file is the safer one");
		}
	for (int f = ACCESS; f <= SECRET; f++)
		if (value_of(c, f) && strpbrk(value_of(c, f), " \t\r\n")) {
			(void)pt_fail(err, PT_E_INVALID, "%s has white space in it", fields[f].name);
			return pt_hint(err, "make the Secret again without a line break at its end (printf, not echo)");
		}
	if (t->keys == KEYS_PAIR && access != secret) {
		(void)pt_fail(err, PT_E_INVALID, "%s is set, but %s is not", fields[access ? ACCESS : SECRET].name,
			      fields[access ? SECRET : ACCESS].name);
		return pt_hint(err, t->keys_needed ? "set both" : "set both, or none of them to use workload identity");
	}
	if (t->keys_needed && !access) {
		(void)pt_fail(err, PT_E_INVALID, P "_ACCESS_KEY and " P "_SECRET_KEY are not set, and " P "=%s needs them",
			      t->name);
		return pt_hint(err, "set both, or " P "_ACCESS_KEY_FILE and " P "_SECRET_KEY_FILE");
	}
	if (strcmp(t->name, "S3") == 0 && !access && !pt_aws_source()) {
		(void)pt_fail(err, PT_E_INVALID, P "=S3 has no credentials");
		return pt_hint(err, "give the pod's ServiceAccount a role (IRSA or EKS Pod Identity), or set " P
				    "_ACCESS_KEY and " P "_SECRET_KEY, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
	}
	if (t->keys == KEYS_ONE && !access && !pt_azure_token_possible()) {
		(void)pt_fail(err, PT_E_INVALID, P "=AZURE_BLOB has no credentials");
		return pt_hint(err,
			       "set " P "_ACCESS_KEY to the account's key, or let AKS workload identity set AZURE_CLIENT_ID, "
			       "AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE");
	}
	if (t->keys == KEYS_ONE && value_of(c, ACCESS)) {
		pt_auto_buf raw = PT_BUF_INIT(4096);
		int rc = pt_base64_decode(c->access_key, strlen(c->access_key), &raw, NULL);

		explicit_bzero(raw.p, raw.len);
		if (rc < 0 || raw.len < 16) {
			(void)pt_fail(err, PT_E_INVALID, P "_ACCESS_KEY is not the key of a storage account");
			return pt_hint(err, "copy key1 or key2 of the account's access keys: base64, ends with ==");
		}
	}
	return PT_OK;
}

int pt_store_conf_check(const struct pt_store_conf *c, struct pt_err *err)
{
	const struct type *t = NULL;
	int rc;

	for (size_t i = 0; pt_store_has(c->type) && i < PT_COUNT(types); i++)
		if (strcmp(types[i].name, c->type) == 0)
			t = &types[i];
	if (pt_store_has(c->type) && !t) {
		(void)pt_fail(err, PT_E_INVALID, P ": there is no type '%.40s'", c->type);
		return pt_hint(err, "it is one of S3, S3_COMPATIBLE, AZURE_BLOB, GCS, DIRECTORY");
	}
	for (int f = 0; !t && f < N_FIELDS; f++)
		if (value_of(c, f)) {
			(void)pt_fail(err, PT_E_INVALID, "%s is set, but " P " is not", fields[f].name);
			return pt_hint(err, "set " P " to S3, S3_COMPATIBLE, AZURE_BLOB, GCS or DIRECTORY, or remove %s",
				       fields[f].name);
		}
	if (!t)
		return PT_OK;
	rc = check_placeholders(c, err);
	if (rc == 0)
		rc = check_fields(c, t, err);
	if (rc == 0)
		rc = t->bucket(c->bucket, err);
	if (rc == 0)
		rc = check_endpoint(c, err);
	if (rc == 0)
		rc = check_words(c, err);
	return rc == 0 ? check_keys(c, t, err) : rc;
}
