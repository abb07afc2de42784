/* Which certificates the HTTP client trusts, and words for it when one is not.
 *
 * The system's store is used as a hashed folder where there is one: OpenSSL then reads only the issuers it needs, where
 * the bundle file costs over a megabyte of memory per client. */
#include "net/http_client_priv.h"
#include "os/file.h"
#include <dirent.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <time.h>

enum { CA_MAX = 1 << 20 };

static const char *const dirs[] = { "/etc/ssl/certs", "/etc/pki/tls/certs" };
static const char *const bundles[] = { "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
				       "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem" };

/* Does the folder have a name like "5ad8a5d6.0" (openssl rehash)? */
static bool hashed(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d)))
		found = strspn(e->d_name, "0123456789abcdef") == 8 && e->d_name[8] == '.';
	if (d)
		closedir(d);
	return found;
}

static int pem_read(struct pt_trust *t, struct pt_buf *pem, const char *what, struct pt_err *err)
{
	BIO *bio = BIO_new_mem_buf(pem->p, (int)pem->len);
	X509 *x;

	t->extra = sk_X509_new_null();
	while (bio && t->extra && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
		if (!sk_X509_push(t->extra, x))
			X509_free(x);
	BIO_free(bio);
	ERR_clear_error(); /* the end of the text is an error to OpenSSL */
	if (!t->extra || !sk_X509_num(t->extra)) {
		pt_fail(err, PT_E_INVALID, "the CA %s has no certificate in PEM format", what);
		return pt_hint(err, "it must have lines from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----");
	}
	return PT_OK;
}

static int ca_load(struct pt_trust *t, const char *ca, struct pt_err *err)
{
	pt_auto_buf pem = PT_BUF_INIT(CA_MAX);
	int rc;

	if (access(ca, F_OK) == 0) {
		rc = pt_file_read(ca, &pem, err);
		return rc < 0 ? pt_err_wrap(err, rc, "CA file") : pem_read(t, &pem, "file", err);
	}
	if (!strchr(ca, '.') && ca[0] != '/' && pt_base64_decode(ca, strlen(ca), &pem, NULL) == 0)
		return pem_read(t, &pem, "given as base64", err);
	pt_fail(err, PT_E_INVALID, "CA file %.200s does not exist", ca);
	return pt_hint(err, "give the path of a PEM file, or the base64 of its content");
}

int pt_trust_init(struct pt_trust *t, const char *ca, struct pt_err *err)
{
	*t = (struct pt_trust) { 0 };
	for (size_t i = 0; !t->dir && i < PT_COUNT(dirs); i++)
		if (hashed(dirs[i]) && !(t->dir = strdup(dirs[i])))
			return pt_fail_oom(err);
	for (size_t i = 0; !t->dir && !t->bundle && i < PT_COUNT(bundles); i++)
		if (access(bundles[i], R_OK) == 0 && !(t->bundle = strdup(bundles[i])))
			return pt_fail_oom(err);
	return ca && *ca ? ca_load(t, ca, err) : PT_OK;
}

void pt_trust_release(struct pt_trust *t)
{
	sk_X509_pop_free(t->extra, X509_free);
	free(t->dir);
	free(t->bundle);
	*t = (struct pt_trust) { 0 };
}

static void name_text(const X509_NAME *name, char *out, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n;

	out[0] = '\0';
	if (!bio)
		return;
	X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
	n = BIO_read(bio, out, (int)size - 1);
	out[n > 0 ? n : 0] = '\0';
	BIO_free(bio);
}

/* Wall seconds, 0 = unknown. */
static int64_t expires(const X509 *x)
{
	struct tm tm = { 0 };

	return ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* The server's own certificate is accepted, and with it the chain. */
static void accepted(const struct pt_trust *t, X509_STORE_CTX *x, const SSL *ssl, X509 *cert)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(x);
	const X509 *top = chain ? sk_X509_value(chain, sk_X509_num(chain) - 1) : NULL;

	*t->seen = (struct pt_http_tls) { 0 };
	snprintf(t->seen->version, sizeof(t->seen->version), "%s", SSL_get_version(ssl));
	name_text(X509_get_subject_name(cert), t->seen->subject, sizeof(t->seen->subject));
	name_text(X509_get_issuer_name(cert), t->seen->issuer, sizeof(t->seen->issuer));
	t->seen->not_after = expires(cert);
	for (int i = 0; top && t->extra && i < sk_X509_num(t->extra); i++)
		t->seen->own_ca |= X509_cmp(top, sk_X509_value(t->extra, i)) == 0;
}

static int on_verify(int good, X509_STORE_CTX *x)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct pt_trust *t = ssl ? SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)) : NULL;
	X509 *cert = X509_STORE_CTX_get_current_cert(x);

	if (!good && t && cert) {
		t->verify_error = X509_STORE_CTX_get_error(x);
		name_text(X509_get_subject_name(cert), t->subject, sizeof(t->subject));
		name_text(X509_get_issuer_name(cert), t->issuer, sizeof(t->issuer));
	}
	if (good && t && cert && X509_STORE_CTX_get_error_depth(x) == 0) {
		t->expires = expires(cert);
		if (t->seen)
			accepted(t, x, ssl, cert);
	}
	return good;
}

static CURLcode on_ssl_ctx(CURL *e, void *ssl_ctx, void *arg)
{
	struct pt_trust *t = arg;
	SSL_CTX *ctx = ssl_ctx;
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);

	for (int i = 0; t->extra && i < sk_X509_num(t->extra); i++)
		if (X509_STORE_add_cert(store, sk_X509_value(t->extra, i)) != 1)
			return CURLE_OUT_OF_MEMORY;
	SSL_CTX_set_app_data(ctx, t);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verify);
	return CURLE_OK;
}

void pt_trust_apply(struct pt_trust *t, CURL *e)
{
	t->subject[0] = t->issuer[0] = '\0';
	t->verify_error = 0;
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(e, CURLOPT_CAINFO, t->bundle);
	curl_easy_setopt(e, CURLOPT_CAPATH, t->dir);
	/* a proxy that is spoken to with TLS is held to the same */
	curl_easy_setopt(e, CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(e, CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(e, CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(e, CURLOPT_PROXY_CAINFO, t->bundle);
	curl_easy_setopt(e, CURLOPT_PROXY_CAPATH, t->dir);
	curl_easy_setopt(e, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	curl_easy_setopt(e, CURLOPT_SSL_CTX_DATA, t);
}

int pt_trust_fail(const struct pt_trust *t, const char *host, const char *text, struct pt_err *err)
{
	if (!t->subject[0]) {
		pt_fail(err, PT_E_TLS, "TLS with %s: %s", host, text);
		if (strstr(text, "wrong version number"))
			return pt_hint(err, "the server does not seem to speak TLS on this port");
		if (strstr(text, "SSL_ERROR_SYSCALL") || strstr(text, "unexpected eof"))
			return pt_hint(err, "hung up during the handshake: the server does not seem to speak TLS on this port, or something "
					    "on the way cuts it off");
		if (strstr(text, "subject name") || strstr(text, "does not match"))
			return pt_hint(err, "the server's certificate is for another name: check the host in the URL");
		return PT_E_TLS;
	}
	pt_fail(err, PT_E_TLS, "TLS with %s: the certificate of '%s' is not accepted, issuer '%s': %s", host, t->subject,
		t->issuer, X509_verify_cert_error_string(t->verify_error));
	if (t->verify_error == X509_V_ERR_CERT_HAS_EXPIRED || t->verify_error == X509_V_ERR_CERT_NOT_YET_VALID)
		return pt_hint(err, "compare this machine's clock with the certificate's dates; if the clock is right, the "
				    "server needs a new "
				    "certificate");
	return pt_hint(err, "add the CA to --ca-file/POSTERN_CA_FILE; is a TLS-inspecting proxy in the path?");
}
