/* The storage settings: what goes with what, that each refusal names the setting and says what to do, and that no secret is
 * shown. */
#include "store/store.h"
#include "../tap.h"

#define E   "http://minio:9000"
#define AK  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#define S3C .type = "S3_COMPATIBLE", .bucket = "data", .endpoint = E, .access_key = "hunter2a", .secret_key = "hunter2s"
#define S3K .type = "S3", .access_key = "hunter2a", .secret_key = "hunter2s"
#define AZ  .type = "AZURE_BLOB", .account = "acct1", .access_key = AK

static const struct {
	struct pt_store_conf conf;
	const char *msg, *hint; /* parts of both; msg NULL = good */
} cases[] = {
	{ { 0 }, NULL },
	{ { .type = "", .bucket = "" }, NULL },
	{ { .bucket = "data" }, "POSTERN_STORAGE_BUCKET_NAME is set, but POSTERN_STORAGE is not", "S3_COMPATIBLE" },
	{ { .secret_key = "hunter2s" }, "POSTERN_STORAGE_SECRET_KEY is set, but POSTERN_STORAGE is not", "remove" },
	{ { .type = "FTP" }, "no type 'FTP'", "GCS" },
	/* S3_COMPATIBLE */
	{ { S3C }, NULL },
	{ { S3C, .prefix = "/team a/postern/", .region = "eu-west-1" }, NULL },
	{ { .type = "S3_COMPATIBLE",
	    .bucket = "Data_1",
	    .endpoint = "https://s3.example.com/base/",
	    .access_key_file = "/a",
	    .secret_key_file = "/b" },
	  NULL },
	{ { .type = "S3_COMPATIBLE", .endpoint = E }, "POSTERN_STORAGE_BUCKET_NAME is not set", "BUCKET_NAME" },
	{ { .type = "S3_COMPATIBLE", .bucket = "data" }, "POSTERN_STORAGE_ENDPOINT_URL is not set", "POSTERN_STORAGE=S3" },
	{ { .type = "S3_COMPATIBLE", .bucket = "data", .endpoint = E },
	  "ACCESS_KEY and POSTERN_STORAGE_SECRET_KEY are not set",
	  "_FILE" },
	{ { .type = "S3_COMPATIBLE", .bucket = "data", .endpoint = E, .access_key = "hunter2a" },
	  "POSTERN_STORAGE_ACCESS_KEY is set, but POSTERN_STORAGE_SECRET_KEY is not",
	  "both" },
	{ { .type = "S3_COMPATIBLE", .bucket = "data", .endpoint = E, .secret_key = "hunter2s" },
	  "SECRET_KEY is set, but",
	  "both" },
	{ { S3C, .access_key_file = "/a" },
	  "POSTERN_STORAGE_ACCESS_KEY and POSTERN_STORAGE_ACCESS_KEY_FILE are both set",
	  "remove one" },
	{ { S3C, .account = "acct1" }, "ACCOUNT_NAME is set, but does not belong to POSTERN_STORAGE=S3_COMPATIBLE", "remove" },
	{ { .type = "S3_COMPATIBLE", .bucket = "data", .endpoint = E, .access_key = "hunter2a\n", .secret_key = "hunter2s" },
	  "white space",
	  "printf" },
	{ { .type = "S3_COMPATIBLE",
	    .bucket = "data",
	    .endpoint = E,
	    .access_key = "<your-minio-access-key>",
	    .secret_key = "hunter2s" },
	  "POSTERN_STORAGE_ACCESS_KEY is still the placeholder",
	  "angle brackets" },
	{ { .type = "S3_COMPATIBLE",
	    .bucket = "data",
	    .endpoint = "minio:9000",
	    .access_key = "hunter2a",
	    .secret_key = "hunter2s" },
	  "POSTERN_STORAGE_ENDPOINT_URL",
	  "http://" },
	{ { .type = "S3_COMPATIBLE",
	    .bucket = "data",
	    .endpoint = "ftp://minio",
	    .access_key = "hunter2a",
	    .secret_key = "hunter2s" },
	  "'ftp' is neither https nor http",
	  "https://" },
	{ { .type = "S3_COMPATIBLE",
	    .bucket = "data",
	    .endpoint = "http://u:hunter2p@minio",
	    .access_key = "hunter2a",
	    .secret_key = "hunter2s" },
	  "no user or password",
	  "ACCESS_KEY" },
	{ { .type = "S3_COMPATIBLE",
	    .bucket = "data",
	    .endpoint = "http://minio/?x",
	    .access_key = "hunter2a",
	    .secret_key = "hunter2s" },
	  "must end with its host or path",
	  "https://" },
	{ { .type = "S3_COMPATIBLE",
	    .bucket = "data",
	    .endpoint = "http://data.minio:9000",
	    .access_key = "hunter2a",
	    .secret_key = "hunter2s" },
	  "begins with the bucket's name",
	  "http://minio" },
	{ { S3C, .prefix = "a/../b" }, "PREFIX: 'a/../b' is not a plain path", "'..'" },
	{ { S3C, .prefix = "a//b" }, "is not a plain path", "empty" },
	{ { S3C, .region = "EU (Frankfurt)" }, "is not a region", "eu-central-1" },
	/* S3 */
	{ { S3K, .bucket = "my-data.1" }, NULL },
	{ { S3K, .bucket = "data", .endpoint = "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com" }, NULL },
	{ { .type = "S3", .bucket = "data" }, "POSTERN_STORAGE=S3 has no credentials", "IRSA" },
	{ { S3K, .bucket = "s3://data" }, "not a name alone", "without s3://" },
	{ { S3K, .bucket = "data/prefix" }, "not a name alone", "POSTERN_STORAGE_PREFIX" },
	{ { S3K, .bucket = "arn:aws:s3:::data" }, "not a name alone", "ARN" },
	{ { S3K, .bucket = "Data" }, "cannot be the name", "lower-case" },
	{ { S3K, .bucket = "ab" }, "cannot be the name", "3 to 63" },
	{ { S3K, .bucket = "-data" }, "cannot be the name", "both ends" },
	{ { S3K, .bucket = "a..b" }, "cannot be the name", "dots" },
	{ { S3K, .bucket = "192.168.0.1" }, "cannot be the name", "no IP address" },
	{ { .type = "S3", .bucket = "data", .access_key = "hunter2a" }, "SECRET_KEY is not", "workload identity" },
	/* AZURE_BLOB */
	{ { AZ, .bucket = "data-1" }, NULL },
	{ { AZ, .bucket = "data", .endpoint = "http://127.0.0.1:10000" }, NULL },
	{ { .type = "AZURE_BLOB", .bucket = "data", .access_key = AK },
	  "POSTERN_STORAGE_ACCOUNT_NAME is not set",
	  "ACCOUNT_NAME" },
	{ { .type = "AZURE_BLOB", .bucket = "data", .account = "acct1" }, "AZURE_BLOB has no credentials", "AZURE_CLIENT_ID" },
	{ { .type = "AZURE_BLOB", .bucket = "data", .account = "acct1", .access_key = "hunter2a" },
	  "not the key of a storage account",
	  "base64" },
	{ { .type = "AZURE_BLOB", .bucket = "data", .account = "Acct.blob.core.windows.net", .access_key = AK },
	  "is not the name of a storage account",
	  "without .blob" },
	{ { AZ, .bucket = "data--1" }, "cannot be the name", "single hyphens" },
	{ { AZ, .bucket = "data", .secret_key = "hunter2s" },
	  "SECRET_KEY is set, but does not belong",
	  "goes into POSTERN_STORAGE_ACCESS_KEY" },
	{ { AZ, .bucket = "data", .region = "westeurope" }, "REGION is set, but does not belong", "remove" },
	/* GCS */
	{ { .type = "GCS", .bucket = "my_data.example.com" }, NULL },
	{ { .type = "GCS", .bucket = "data", .access_key = "GOOG1", .secret_key = "hunter2s" }, NULL },
	{ { .type = "GCS", .bucket = "data", .access_key = "GOOG1" }, "SECRET_KEY is not", "workload identity" },
	{ { .type = "GCS", .bucket = "gs://data" }, "not a name alone", "without" },
	/* DIRECTORY */
	{ { .type = "DIRECTORY", .bucket = "/var/lib/postern/storage" }, NULL },
	{ { .type = "DIRECTORY", .bucket = "storage" }, "not the absolute path", "mounted folder" },
	{ { .type = "DIRECTORY", .bucket = "/a/../b" }, "not the absolute path", "'..'" },
	{ { .type = "DIRECTORY", .bucket = "/a", .endpoint = E }, "ENDPOINT_URL is set, but does not belong", "remove" },
	{ { .type = "DIRECTORY", .bucket = "/a", .access_key = "hunter2a" }, "ACCESS_KEY is set, but does not belong", "remove" },
};

static void names(void)
{
	static const struct pt_store_conf s3 = { S3C, .prefix = "/a/b/" }, az = { AZ, .bucket = "data" },
					  dir = { .type = "DIRECTORY", .bucket = "/srv" }, none = { 0 };
	static const struct {
		const struct pt_store_conf *conf;
		const char *key, *address, *json;
	} t[] = {
		{ &s3, "a/b/n", "s3://data/a/b",
		  "{\"type\": \"S3_COMPATIBLE\", \"bucket\": \"data\", \"endpoint\": \"" E "\", \"prefix\": \"/a/b/\"}" },
		{ &az, "n", "azure://acct1/data", "{\"type\": \"AZURE_BLOB\", \"bucket\": \"data\", \"account\": \"acct1\"}" },
		{ &dir, "n", "file:///srv", "{\"type\": \"DIRECTORY\", \"bucket\": \"/srv\"}" },
		{ &none, NULL, NULL, "null" },
	};

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		pt_auto_buf b = PT_BUF_INIT(1000);

		pt_store_json(t[i].conf, &b);
		is_str(b.p, t[i].json, "what may be known of it");
		if (!t[i].key)
			continue;
		pt_buf_clear(&b);
		pt_store_key(t[i].conf, "n", &b);
		is_str(b.p, t[i].key, "key");
		pt_buf_clear(&b);
		pt_store_address(t[i].conf, &b);
		is_str(b.p, t[i].address, "address");
	}
}

int main(void)
{
	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		struct pt_err err = { 0 };
		int rc = pt_store_conf_check(&cases[i].conf, &err);
		const char *type = cases[i].conf.type, *bucket = cases[i].conf.bucket;

		ok((rc == 0) == !cases[i].msg, "%zu: %s %s: %s", i, type ? type : "-", bucket ? bucket : "-", err.msg);
		if (!cases[i].msg)
			continue;
		is_int(rc, PT_E_INVALID, "invalid");
		ok(strstr(err.msg, cases[i].msg) != NULL, "says: %s", cases[i].msg);
		ok(strstr(err.hint, cases[i].hint) != NULL, "hint: %s", err.hint);
		ok(!strstr(err.msg, "hunter2") && !strstr(err.hint, "hunter2"), "no secret");
	}
	names();
	return tap_end();
}
