/* Object storage: S3 and what is compatible with it, Google Cloud Storage, Azure Blob Storage, a directory.  Settings and their
 * check, small objects, and the probe that tells whether a store works. */
#ifndef PT_STORE_STORE_H
#define PT_STORE_STORE_H
#include "base/opt.h"
#include "net/http_client.h"

/* Settings, as POSTERN_STORAGE and POSTERN_STORAGE_… give them; NULL or "" = not set. */
struct pt_store_conf {
	const char *type;   /* of pt_store_types; not set = no storage, and then nothing else may be set */
	const char *bucket; /* AZURE_BLOB: the container; DIRECTORY: an absolute path */
	const char *endpoint, *region, *account;
	const char *prefix; /* keys begin with it and a '/' */
	/* S3 types: access key id and secret.  GCS: an HMAC key.  AZURE_BLOB: the account's key in access_key. */
	const char *access_key, *secret_key;
	const char *access_key_file, *secret_key_file; /* the same from files, read when a store is opened */
};
extern const char *const pt_store_types[]; /* NULL-terminated, for PT_OPT_ENUM */

/* The rows of an option table whose struct st has the conf as member m. */
/* clang-format off */
#define PT_STORE_OPTS(st, m) \
	PT_O(st, m.type, "storage", PT_OPT_ENUM, .values = pt_store_types, \
	     .help = "kind of object storage that this agent may use"), \
	PT_O(st, m.bucket, "storage-bucket-name", PT_OPT_STR, .value = "NAME", \
	     .help = "bucket, container (AZURE_BLOB) or absolute path (DIRECTORY)"), \
	PT_O(st, m.endpoint, "storage-endpoint-url", PT_OPT_STR, .value = "URL", \
	     .help = "where the store is: needed for S3_COMPATIBLE, else for private endpoints only"), \
	PT_O(st, m.region, "storage-region", PT_OPT_STR, .value = "REGION", \
	     .help = "region of an S3 bucket; without it AWS_REGION, or us-east-1"), \
	PT_O(st, m.account, "storage-account-name", PT_OPT_STR, .value = "NAME", .help = "storage account (AZURE_BLOB)"), \
	PT_O(st, m.prefix, "storage-prefix", PT_OPT_STR, .value = "PATH", .help = "folder within the bucket"), \
	PT_O(st, m.access_key, "storage-access-key", PT_OPT_STR, .flags = PT_OPT_SECRET | PT_OPT_NO_FLAG, .value = "KEY", \
	     .help = "access key id; GCS: of an HMAC key; AZURE_BLOB: the account's key"), \
	PT_O(st, m.secret_key, "storage-secret-key", PT_OPT_STR, .flags = PT_OPT_SECRET | PT_OPT_NO_FLAG, .value = "KEY", \
	     .help = "secret access key"), \
	PT_O(st, m.access_key_file, "storage-access-key-file", PT_OPT_STR, .value = "FILE", .help = "file with the access key"), \
	PT_O(st, m.secret_key_file, "storage-secret-key-file", PT_OPT_STR, .value = "FILE", .help = "file with the secret key")
/* clang-format on */

/* INVALID: a setting that is missing, malformed, still a placeholder, or does not go with another; message and hint name it. 
 * Reads the environment (are there credentials at all?), but neither files nor the network. */
int pt_store_conf_check(const struct pt_store_conf *conf, struct pt_err *err) PT_MUSTCHECK;

/* --- a store --- */

struct pt_store;
/* Keys are whole ("prefix/name"), UTF-8, without "." and ".." segments.  Every call blocks, ends with the store's cancel token,
 * and has a time limit.  Errors: CREDENTIAL, SOURCE_AUTH (the store does not know the key), SOURCE_DENIED (not permitted),
 * NOT_FOUND, those of pt_http_do(), INVALID (a setting must change), LIMIT, UNAVAILABLE, PROTOCOL (not an object store); native
 * is the store's own code. */
struct pt_store_ops {
	const char *name;
	/* Make *ret, with what it needs to sign.  No request to the store itself. */
	int (*open)(struct pt_store **ret, const struct pt_store_conf *conf, const struct pt_http_client_conf *http,
		    const struct pt_cancel *cancel, struct pt_err *err);
	/* Durable when it returns; replaces what is there. */
	int (*put)(struct pt_store *s, const char *key, const void *data, size_t n, struct pt_err *err);
	/* Append the object to out, up to its limit. */
	int (*get)(struct pt_store *s, const char *key, struct pt_buf *out, struct pt_err *err);
	/* Call fn for up to max objects whose key begins with prefix, in the order of keys (DIRECTORY: folder by folder);
	 * fn < 0 ends it. */
	int (*list)(struct pt_store *s, const char *prefix, unsigned max, int (*fn)(void *arg, const char *key), void *arg,
		    struct pt_err *err);
	/* Not an error when it is not there. */
	int (*remove)(struct pt_store *s, const char *key, struct pt_err *err);
	/* Can people without credentials get at it?  1: yes, 0: no, < 0: cannot be known; why is filled.  key is of an object
	 * that is there. NULL = the question makes no sense. */
	int (*is_public)(struct pt_store *s, const char *key, char why[static 200]);
	void (*close)(struct pt_store *s);
};
struct pt_store {
	const struct pt_store_ops *ops;
	const char *credentials; /* static text: where they came from, NULL = none are needed */
};

/* Open the store of a conf that passed the check.  conf, http and cancel (NULL = none) must outlive it; one thread at a time. */
int pt_store_open(struct pt_store **ret, const struct pt_store_conf *conf, const struct pt_http_client_conf *http,
		  const struct pt_cancel *cancel, struct pt_err *err) PT_MUSTCHECK;
void pt_store_close(struct pt_store *s); /* NULL is fine */
PT_DEFINE_CLEANUP(struct pt_store *, pt_store_close)
/* Append "prefix/name", or name when there is no prefix. */
void pt_store_key(const struct pt_store_conf *conf, const char *name, struct pt_buf *out);
/* Append the store's address for people, "s3://bucket/prefix": never a secret. */
void pt_store_address(const struct pt_store_conf *conf, struct pt_buf *out);
/* {"type": …, "bucket": …, "endpoint": …, "prefix": …}: what may be known of a conf; "null" without storage. */
void pt_store_json(const struct pt_store_conf *conf, struct pt_buf *out);

/* --- does it work? --- */

enum pt_store_step { PT_STORE_CREDENTIALS, PT_STORE_WRITE, PT_STORE_READ, PT_STORE_LIST, PT_STORE_DELETE, PT_STORE_STEPS };
extern const char *const pt_store_step_names[PT_STORE_STEPS];
enum pt_store_access { PT_STORE_ACCESS_UNKNOWN, PT_STORE_PRIVATE, PT_STORE_PUBLIC };

struct pt_store_probe {
	enum pt_store_step step;         /* that failed; PT_STORE_STEPS = none */
	int64_t took_us[PT_STORE_STEPS]; /* 0 = not tried */
	const char *credentials;         /* static text: where they came from; NULL = not known, or none are needed */
	char key[600];                   /* of the probe object */
	bool left;                       /* it could not be deleted and is still there */
	enum pt_store_access access;
	char access_why[200];
};
/* Write prefix/postern-check-ID, read it back and compare, find it in the list, see whether it can be had without credentials,
 * delete it.  0: all of that works (access may still be PUBLIC).  < 0: err says which step failed and what to do; ret is filled
 * in any case. */
int pt_store_probe(const struct pt_store_conf *conf, const struct pt_http_client_conf *http, const struct pt_cancel *cancel,
		   struct pt_store_probe *ret, struct pt_err *err) PT_MUSTCHECK;
#endif
