/* Signatures against the examples in the documentation of AWS, XML of answers, and keys from the environment. */
#include "cloud/aws.h"
#include "cloud/xml.h"
#include "../tap.h"

/* "Examples: Signature calculations" of the Amazon S3 API reference. */
static void sigv4(void)
{
	static const struct {
		const char *what, *path;
		struct pt_param params[3];
		const char *signature;
	} t[] = {
		{ "GET bucket lifecycle",
		  "/",
		  { { "lifecycle", "" } },
		  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
		{ "list objects",
		  "/",
		  { { "max-keys", "2" }, { "prefix", "J" } },
		  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
	};
	struct pt_aws_keys keys = { .access_key = strdup("AKIAIOSFODNN7EXAMPLE"),
				    .secret_key = strdup("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY") };
	struct pt_err err = { 0 };

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		struct pt_signable r = { .method = "GET",
					 .host = "examplebucket.s3.amazonaws.com",
					 .path = t[i].path,
					 .params = t[i].params,
					 .at_ms = 1369353600000 };
		struct pt_lines lines = { 0 };

		ok(pt_sigv4_sign(&r, &keys, "us-east-1", "s3", &lines, &err) == 0 && lines.n == 4, "%s: signed", t[i].what);
		ok(strstr(lines.line[3], t[i].signature) != NULL, "%s: %s", t[i].what, lines.line[3]);
		is_str(lines.line[1], "x-amz-date: 20130524T000000Z", "%s: date", t[i].what);
		pt_lines_release(&lines);
		ok(lines.n == 0 && !lines.line[0], "released");
	}
	keys.token = strdup("a token");
	{
		struct pt_signable r = {
			.method = "PUT", .host = "h:9000", .path = "/b/k", .body = "x", .n = 1, .at_ms = 1369353600000
		};
		struct pt_lines lines = { 0 };

		ok(pt_sigv4_sign(&r, &keys, "eu-central-1", "s3", &lines, &err) == 0 && lines.n == 5, "with a session token");
		is_str(lines.line[3], "x-amz-security-token: a token", "it is sent");
		ok(strstr(lines.line[4], "x-amz-date;x-amz-security-token,") != NULL, "and signed");
		is_str(lines.line[2], "x-amz-content-sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
		       "the body's hash");
		pt_lines_release(&lines);
	}
	pt_aws_keys_release(&keys);
	ok(!keys.secret_key, "keys released");
}

static void xml(void)
{
	static const struct {
		const char *doc, *name, *want; /* want NULL = not there */
	} t[] = {
		{ "<Error><Code>NoSuchBucket</Code></Error>", "Code", "NoSuchBucket" },
		{ "<?xml version=\"1.0\"?>\n<!-- <Code>no</Code> --><e:Error xmlns:e='a>b'><e:Code a=\"1>2\">yes</e:Code>",
		  "Code", "yes" },
		{ "<a><Key>a&amp;b&lt;&#233;&#x1F600;&quot;&bogus;&</Key></a>", "Key", "a&b<\xc3\xa9\xf0\x9f\x98\x80\"&bogus;&" },
		{ "<a><Key/><Key>second</Key></a>", "Key", "" },
		{ "<a><KeyCount>1</KeyCount><Key>k</Key></a>", "Key", "k" },
		{ "<a><Key>cut", "Key", "cut" },
		{ "<a><Key", "Key", "" },
		{ "<a></a>", "Key", NULL },
		{ "", "Key", NULL },
		{ "no xml < at all", "Key", NULL },
		{ "<Key>&#0;&#xD800;&#x110000;&#;&#x;</Key>", "Key", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd&#;&#x;" },
	};
	struct pt_xml rest = { "<l><c><k>1</k></c><c><k>2</k></c></l>", 37 }, one;
	pt_auto_buf all = PT_BUF_INIT(100);

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		pt_auto_buf out = PT_BUF_INIT(100);
		bool there = pt_xml_text((struct pt_xml) { t[i].doc, strlen(t[i].doc) }, t[i].name, &out);

		ok(there == (t[i].want != NULL), "%s: %s", t[i].doc, there ? "there" : "not there");
		if (t[i].want)
			is_str(out.p, t[i].want, "its text");
	}
	while (pt_xml_next(&rest, "c", &one))
		ok(pt_xml_text(one, "k", &all), "one more");
	is_str(all.p, "12", "elements one after the other");
}

static void environment(void)
{
	struct pt_http_client_conf http = { .ca = NULL };
	struct pt_aws_keys k = { 0 };
	struct pt_err err = { 0 };

	ok(!pt_aws_source(), "no source");
	ok(pt_aws_keys_get(&k, "r", &http, NULL, &err) == PT_E_CREDENTIAL && *err.hint, "no keys: %s", err.msg);
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/v1/credentials", 1);
	ok(pt_aws_keys_get(&k, "r", &http, NULL, &err) == PT_E_CREDENTIAL && strstr(err.msg, "neither loopback"), "%s", err.msg);
	setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent", 1);
	is_str(pt_aws_source(), "AWS_WEB_IDENTITY_TOKEN_FILE", "web identity before the container");
	ok(pt_aws_keys_get(&k, "r", &http, NULL, &err) == PT_E_CREDENTIAL && strstr(err.msg, "AWS_ROLE_ARN"), "%s", err.msg);
	setenv("AWS_ACCESS_KEY_ID", "AKIA", 1);
	ok(pt_aws_keys_get(&k, "r", &http, NULL, &err) == PT_E_CREDENTIAL && strstr(err.msg, "AWS_SECRET_ACCESS_KEY"), "%s",
	   err.msg);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	setenv("AWS_SESSION_TOKEN", "t", 1);
	ok(pt_aws_keys_get(&k, "r", &http, NULL, &err) == 0, "keys of the environment");
	is_str(k.access_key, "AKIA", "access key");
	is_str(k.secret_key, "s", "secret key");
	is_str(k.token, "t", "session token");
	is_str(k.source, "AWS_ACCESS_KEY_ID", "where from");
	is_int(k.expires_at, 0, "for ever");
	pt_aws_keys_release(&k);
	is_str(pt_aws_domain("cn-north-1"), "amazonaws.com.cn", "China");
	is_str(pt_aws_domain("eu-central-1"), "amazonaws.com", "elsewhere");
}

int main(void)
{
	sigv4();
	xml();
	environment();
	return tap_end();
}
