/* network.tls: a TLS handshake with whatever listens there, and what its certificates say.  Nothing is sent over the connection.
 * The handshake is made without insisting on a trusted certificate, so that the reason of a failed verification and the issuer
 * (a TLS-inspecting proxy?) can be told; "ok" is true only when everything was verified. */
#include "net/http_client.h"
#include "op/dial.h"
#include "op/doc.h"
#include "os/file.h"
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <time.h>

enum { TLS_TIMEOUT_MS = 10000, MOST_TIMEOUT_MS = 120000, CA_BYTES = 4 << 20, DAY_S = 86400 };

struct tls_input {
	char *host;
	int64_t port;
	char *server_name;
	int64_t timeout_ms;
};
static const struct pt_field tls_fields[] = {
	PT_F(struct tls_input, host, PT_T_STR, PT_REQUIRED, .max = 255, .help = "name or address"),
	PT_F(struct tls_input, port, PT_T_I64, 0, .min = 1, .max = 65535, .def = 443),
	PT_F(struct tls_input, server_name, PT_T_STR, 0, .max = 255, .help = "name to ask for (SNI) and to verify; host"),
	PT_F(struct tls_input, timeout_ms, PT_T_I64, 0, .min = 1, .max = MOST_TIMEOUT_MS, .def = TLS_TIMEOUT_MS,
	     .help = "for lookup, connection and handshake"),
};
static const struct pt_shape tls_shape = PT_SHAPE("input", struct tls_input, tls_fields);

static int tls_check(const void *input, struct pt_err *err)
{
	const struct tls_input *in = input;
	int rc = pt_host_check("host", in->host, err);

	return rc == 0 && in->server_name ? pt_host_check("server_name", in->server_name, err) : rc;
}

struct check {
	const char *name; /* verified, and asked for unless it is an address */
	SSL_CTX *ctx;
	SSL *ssl;
	STACK_OF(X509) * custom; /* the CAs of the agent's settings */
};

static void check_release(struct check *c)
{
	SSL_free(c->ssl);
	SSL_CTX_free(c->ctx);
	sk_X509_pop_free(c->custom, X509_free);
}

static void x509_name(X509_NAME *name, struct pt_buf *b, const char *key)
{
	BIO *mem = BIO_new(BIO_s_mem());
	char *text = NULL;
	long n;

	if (mem && X509_NAME_print_ex(mem, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0 &&
	    (n = BIO_get_mem_data(mem, &text)) > 0)
		pt_doc_text(b, key, text, (size_t)n);
	BIO_free(mem);
}

/* TLS errors of this thread's queue, the first one is the cause. */
static int fail_ssl(struct pt_err *err, const char *what)
{
	unsigned long e = ERR_get_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	return pt_fail(err, PT_E_TLS, "%s: %s", what, reason ? reason : "failed");
}

/* ca: a path, or base64 of PEM text (see struct pt_http_client_conf). */
static int load_custom(struct check *c, const char *ca, struct pt_err *err)
{
	pt_auto_buf pem = PT_BUF_INIT(CA_BYTES);
	X509_STORE *store = SSL_CTX_get_cert_store(c->ctx);
	X509 *x;
	BIO *mem;
	int rc = pt_file_read(ca, &pem, err);

	if (rc < 0) {
		struct pt_err not_base64;

		pt_buf_clear(&pem);
		if (pt_base64_decode(ca, strlen(ca), &pem, &not_base64) < 0)
			return pt_err_wrap(err, rc, "read the CA file");
	}
	c->custom = sk_X509_new_null();
	mem = BIO_new_mem_buf(pem.p, (int)pem.len);
	while (mem && c->custom && (x = PEM_read_bio_X509(mem, NULL, NULL, NULL))) {
		X509_STORE_add_cert(store, x);
		if (!sk_X509_push(c->custom, x))
			X509_free(x);
	}
	BIO_free(mem);
	ERR_clear_error(); /* the end of the text is reported as an error */
	return PT_OK;
}

static int prepare(struct check *c, const char *ca, int fd, struct pt_err *err)
{
	struct in6_addr addr;
	bool is_address = inet_pton(AF_INET, c->name, &addr) == 1 || inet_pton(AF_INET6, c->name, &addr) == 1;
	int rc = PT_OK;

	ERR_clear_error();
	c->ctx = SSL_CTX_new(TLS_client_method());
	if (!c->ctx)
		return pt_fail_oom(err);
	SSL_CTX_set_verify(c->ctx, SSL_VERIFY_NONE, NULL); /* verified all the same, see SSL_get_verify_result() */
	SSL_CTX_set_default_verify_paths(c->ctx);
	if (ca && *ca)
		rc = load_custom(c, ca, err);
	if (rc < 0)
		return rc;
	c->ssl = SSL_new(c->ctx);
	if (!c->ssl || SSL_set_fd(c->ssl, fd) != 1)
		return pt_fail_oom(err);
	if (is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->ssl), c->name) != 1
		       : SSL_set1_host(c->ssl, c->name) != 1 || SSL_set_tlsext_host_name(c->ssl, c->name) != 1)
		return fail_ssl(err, "server name");
	return PT_OK;
}

static int handshake(struct check *c, int fd, int64_t end_ms, const struct pt_cancel *cancel, struct pt_err *err)
{
	for (;;) {
		int64_t left = end_ms - pt_mono_ms();
		int n, why, rc;

		ERR_clear_error();
		errno = 0;
		n = SSL_connect(c->ssl);
		if (n == 1)
			return PT_OK;
		why = SSL_get_error(c->ssl, n);
		if (why == SSL_ERROR_SYSCALL ||
		    (why == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING))
			return errno ? pt_fail_sys(err, PT_E_CONNECTION_LOST, "TLS handshake")
				     : pt_fail(err, PT_E_CONNECTION_LOST, "TLS handshake: the peer closed the connection");
		if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			return fail_ssl(err, "TLS handshake");
		rc = pt_cancel_poll(cancel, fd, why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, left > 0 ? (int)left : 0, err);
		if (rc == PT_E_TIMEOUT)
			return pt_fail(err, rc, "TLS handshake: no answer within the time limit");
		if (rc < 0)
			return rc;
	}
}

static void write_sans(X509 *x, struct pt_buf *b)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

	pt_doc_open(b, "names", '[');
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *s = g->type == GEN_DNS     ? g->d.dNSName
				       : g->type == GEN_URI   ? g->d.uniformResourceIdentifier
				       : g->type == GEN_EMAIL ? g->d.rfc822Name
				       : g->type == GEN_IPADD ? g->d.iPAddress
							      : NULL;
		int n = s ? ASN1_STRING_length(s) : 0;
		char text[INET6_ADDRSTRLEN];

		if (g->type == GEN_IPADD && (n == 4 || n == 16) &&
		    inet_ntop(n == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(s), text, sizeof(text))) {
			pt_doc_str(b, NULL, text);
		} else if (s && g->type != GEN_IPADD) {
			pt_doc_text(b, NULL, (const char *)ASN1_STRING_get0_data(s), (size_t)n);
		}
	}
	pt_buf_chr(b, ']');
	GENERAL_NAMES_free(names);
}

static void write_time(struct pt_buf *b, const char *key, const ASN1_TIME *t, int64_t *ret_s)
{
	char text[32];
	struct tm tm;

	*ret_s = 0;
	if (!t || ASN1_TIME_to_tm(t, &tm) != 1)
		return;
	*ret_s = timegm(&tm);
	pt_time_text(*ret_s * 1000, text);
	pt_doc_str(b, key, text);
}

static int64_t write_cert(X509 *x, struct pt_buf *b)
{
	int64_t from, to, now = pt_wall_ms() / 1000, days;
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	pt_doc_open(b, NULL, '{');
	x509_name(X509_get_subject_name(x), b, "subject");
	x509_name(X509_get_issuer_name(x), b, "issuer");
	write_time(b, "not_before", X509_get0_notBefore(x), &from);
	write_time(b, "not_after", X509_get0_notAfter(x), &to);
	days = to < now ? -((now - to + DAY_S - 1) / DAY_S) : (to - now) / DAY_S;
	pt_doc_int(b, "days_left", days);
	write_sans(x, b);
	if (X509_digest(x, EVP_sha256(), digest, &n) == 1) {
		pt_doc_key(b, "sha256");
		pt_buf_chr(b, '"');
		pt_buf_hex(b, digest, n);
		pt_buf_chr(b, '"');
	}
	pt_buf_chr(b, '}');
	return days;
}

static bool has_cert(const STACK_OF(X509) * list, const X509 *x)
{
	for (int i = 0; i < sk_X509_num(list); i++)
		if (X509_cmp(sk_X509_value(list, i), x) == 0)
			return true;
	return false;
}

/* Why the certificates were not accepted. */
static void write_distrust(const struct check *c, long verdict, struct pt_buf *b)
{
	const char *reason = X509_verify_cert_error_string(verdict);
	struct pt_err why;

	(void)pt_fail(&why, PT_E_TLS, "the certificate shown for %s was not accepted: %s", c->name, reason);
	switch (verdict) {
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		(void)pt_hint(&why,
			      "a private CA, or a proxy that inspects TLS? If the last issuer of the chain is yours, give its "
			      "certificate to the agent with --ca-file");
		break;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		(void)pt_hint(&why, "the names of the first certificate are in the chain; server_name says which one to ask for");
		break;
	default:
		break;
	}
	pt_doc_str(b, "reason", reason);
	pt_doc_err(b, "error", &why);
}

/* What the finished handshake showed. */
static void write_session(const struct check *c, struct pt_buf *b)
{
	STACK_OF(X509) *sent = SSL_get_peer_cert_chain(c->ssl), *chain = SSL_get0_verified_chain(c->ssl);
	long verdict = SSL_get_verify_result(c->ssl);
	X509 *top = sk_X509_num(chain) > 0 ? sk_X509_value(chain, sk_X509_num(chain) - 1) : NULL;
	int64_t days = 0;

	pt_doc_str(b, "protocol", SSL_get_version(c->ssl));
	pt_doc_str(b, "cipher", SSL_get_cipher_name(c->ssl));
	pt_doc_bool(b, "verified", verdict == X509_V_OK);
	if (verdict == X509_V_OK) {
		bool custom = top && has_cert(c->custom, top);

		pt_doc_str(b, "trusted_by", custom ? "ca_file" : "system");
		if (custom)
			pt_doc_str(b, "hint",
				   "trusted through the agent's own CA file: a private CA, or a proxy that inspects TLS");
	} else {
		write_distrust(c, verdict, b);
	}
	pt_doc_open(b, "chain", '[');
	for (int i = 0; i < sk_X509_num(sent); i++) {
		int64_t d = write_cert(sk_X509_value(sent, i), b);

		days = i && days < d ? days : d;
	}
	pt_buf_chr(b, ']');
	if (sk_X509_num(sent) > 0)
		pt_doc_int(b, "days_left", days);
}

static int tls_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	const struct tls_input *in = input;
	pt_auto(pt_guard_release) struct pt_guard guard = { 0 };
	pt_auto(check_release) struct check c = { .name = in->server_name ? in->server_name : in->host };
	int timeout_ms = (int)in->timeout_ms;
	int64_t start = pt_mono_ns(), end_ms = pt_mono_ms() + timeout_ms, tls_start;
	struct pt_dial d = {
		.guard = &guard, .host = in->host, .port = (unsigned)in->port, .timeout_ms = timeout_ms, .cancel = run->cancel
	};
	pt_auto_buf b = PT_DOC_INIT;
	int rc = pt_guard_init(&guard, run->agent->blocked_cidrs, run->agent->allowed_cidrs, err);
	bool done = false;

	if (rc < 0)
		return rc;
	rc = pt_dial(&d, err);
	tls_start = pt_mono_ns();
	if (rc == 0)
		rc = prepare(&c, run->agent->http ? run->agent->http->ca : NULL, d.fd, err);
	if (rc == 0)
		rc = handshake(&c, d.fd, end_ms, run->cancel, err);
	done = rc == 0;
	if (rc == 0 || pt_check_is_answer(err->code)) {
		pt_doc_open(&b, NULL, '{');
		pt_doc_bool(&b, "ok", done && SSL_get_verify_result(c.ssl) == X509_V_OK);
		pt_doc_str(&b, "host", in->host);
		pt_doc_int(&b, "port", d.port);
		pt_doc_str(&b, "server_name", c.name);
		pt_doc_str(&b, "peer", d.peer);
		pt_doc_ms(&b, "dns_ms", d.dns_us);
		pt_doc_ms(&b, "connect_ms", d.connect_us);
		if (d.fd >= 0)
			pt_doc_ms(&b, "tls_ms", (pt_mono_ns() - tls_start) / 1000);
		pt_doc_ms(&b, "ms", (pt_mono_ns() - start) / 1000);
		if (done)
			write_session(&c, &b);
		else
			pt_doc_err(&b, "error", err);
		pt_buf_chr(&b, '}');
		rc = pt_doc_done(run, &b, err);
	}
	pt_closep(&d.fd);
	return rc;
}

const struct pt_op_type pt_op_network_tls = { .name = "network.tls",
					      .summary = "a TLS handshake, and what the certificates say",
					      .input = &tls_shape,
					      .input_size = sizeof(struct tls_input),
					      .check = tls_check,
					      .run = tls_run };
