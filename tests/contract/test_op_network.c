/* network.tcp and network.tls against real sockets on loopback: open, closed, a listener that never answers, servers with good
 * and bad certificates, peers that say nonsense or nothing. */
#include "../tap.h"
#include "../op_run.h"
#include "local_http.h"
#include "os/resolve.h"
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <fcntl.h>
#include <signal.h>

/* --- certificates --- */

struct cert {
	EVP_PKEY *key;
	X509 *x;
};

/* A certificate for name, valid from now + from to now + to (days), signed by ca (NULL = by itself). */
static struct cert make_cert(const char *name, const char *san, int from, int to, const struct cert *ca)
{
	struct cert c = { .key = EVP_EC_gen("P-256"), .x = X509_new() };
	X509_NAME *n = X509_get_subject_name(c.x);
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509_set_version(c.x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(c.x), 1 + (long)(pt_mono_ns() & 0xffffff));
	X509_gmtime_adj(X509_getm_notBefore(c.x), from * 86400L);
	X509_gmtime_adj(X509_getm_notAfter(c.x), to * 86400L + 3600);
	X509_set_pubkey(c.x, c.key);
	X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(c.x, ca ? X509_get_subject_name(ca->x) : n);
	X509V3_set_ctx(&ctx, ca ? ca->x : c.x, c.x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, ca ? NID_subject_alt_name : NID_basic_constraints, ca ? san : "critical,CA:TRUE");
	pt_assert(e && X509_add_ext(c.x, e, -1) == 1);
	X509_EXTENSION_free(e);
	pt_assert(X509_sign(c.x, ca ? ca->key : c.key, EVP_sha256()) > 0);
	return c;
}

static void cert_free(struct cert *c)
{
	EVP_PKEY_free(c->key);
	X509_free(c->x);
}

/* --- a TLS server: handshakes, then waits for the peer to close --- */

struct tls_server {
	int fd;
	unsigned port;
	pthread_t thread;
	SSL_CTX *ctx;
	char sni[256]; /* of the newest handshake; read after the client has its answer, see tls_sni() */
	pthread_mutex_t lock;
};

static int on_sni(SSL *ssl, int *alert, void *arg)
{
	struct tls_server *s = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	pthread_mutex_lock(&s->lock);
	snprintf(s->sni, sizeof(s->sni), "%s", name ? name : "none");
	pthread_mutex_unlock(&s->lock);
	return SSL_TLSEXT_ERR_OK;
}

static void *tls_main(void *arg)
{
	struct tls_server *s = arg;
	char byte;
	int fd;

	while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		SSL *ssl = SSL_new(s->ctx);

		SSL_set_fd(ssl, fd);
		if (SSL_accept(ssl) == 1)
			while (SSL_read(ssl, &byte, 1) > 0)
				;
		SSL_free(ssl);
		close(fd);
	}
	return NULL;
}

static void tls_start(struct tls_server *s, const struct cert *leaf, const struct cert *ca, bool send_ca)
{
	*s = (struct tls_server) { .lock = PTHREAD_MUTEX_INITIALIZER, .ctx = SSL_CTX_new(TLS_server_method()) };
	SSL_CTX_use_certificate(s->ctx, leaf->x);
	SSL_CTX_use_PrivateKey(s->ctx, leaf->key);
	if (send_ca)
		SSL_CTX_add1_chain_cert(s->ctx, ca->x);
	SSL_CTX_set_tlsext_servername_callback(s->ctx, on_sni);
	SSL_CTX_set_tlsext_servername_arg(s->ctx, s);
	s->fd = local_listen(&s->port, 16);
	pt_assert(pthread_create(&s->thread, NULL, tls_main, s) == 0);
}

static void tls_stop(struct tls_server *s)
{
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
	SSL_CTX_free(s->ctx);
}

/* --- listeners --- */

/* A port whose connections hang: its backlog is full, so the kernel answers no further SYN. */
struct blackhole {
	int fd, fillers[32];
	unsigned port;
};

static void blackhole_start(struct blackhole *b)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	b->fd = local_listen(&b->port, 0);
	sa.sin_port = htons((uint16_t)b->port);
	for (size_t i = 0; i < PT_COUNT(b->fillers); i++) {
		b->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(b->fillers[i], (struct sockaddr *)&sa, sizeof(sa));
	}
}

static void blackhole_stop(struct blackhole *b)
{
	for (size_t i = 0; i < PT_COUNT(b->fillers); i++)
		close(b->fillers[i]);
	close(b->fd);
}

static void *say_nonsense(void *arg)
{
	int fd, *listener = arg;

	while ((fd = accept4(*listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		local_send(fd, "220 mail ready\r\n", 16);
		shutdown(fd, SHUT_RDWR);
		close(fd);
	}
	return NULL;
}

static void *fire_soon(void *cancel)
{
	usleep(100000);
	pt_cancel_fire(cancel, PT_E_CANCELLED, "cancelled by ada");
	return NULL;
}

static const char *input_of(const char *host, unsigned port, const char *more)
{
	static char text[512];

	snprintf(text, sizeof(text), "{\"host\":\"%s\",\"port\":%u%s}", host, port, more);
	return text;
}

/* "two": a port that hangs on 127.0.0.2 does not exist, so: first an address where nobody listens, then one where somebody does;
 * "mixed": a metadata address and a good one. */
static int lookup(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	struct addrinfo h = *hints, *second = NULL;
	int rc;

	if (strcmp(host, "two") != 0 && strcmp(host, "mixed") != 0)
		return getaddrinfo(host, port, hints, ret);
	h.ai_flags = AI_NUMERICHOST;
	rc = getaddrinfo(strcmp(host, "two") == 0 ? "127.0.0.2" : "169.254.169.254", port, &h, ret);
	if (rc == 0 && (rc = getaddrinfo("127.0.0.1", port, &h, &second)) == 0)
		(*ret)->ai_next = second;
	return rc;
}

static void tcp(struct op_run *r)
{
	struct blackhole hole;
	struct pt_err err;
	unsigned port;
	int fd = local_listen(&port, 16);
	pthread_t t;
	int64_t start;

	pt_resolve_inject(lookup);
	is_int(op_do(r, "network.tcp", input_of("127.0.0.1", port, ""), &err), 0, "an open port");
	ok(op_is(r, "ok") && op_int(r, "port") == port && json_array_size(op_doc(r, "addresses")) == 1, "is ok");
	is_str(op_str(r, "peer"), "127.0.0.1", "the peer");
	ok(json_is_real(op_doc(r, "ms")) && json_is_real(op_doc(r, "addresses.0.ms")) && !op_doc(r, "error"), "times, no error");
	is_int(op_do(r, "network.tcp", input_of("two", port, ""), &err), 0, "a name with two addresses");
	ok(op_is(r, "ok") && json_array_size(op_doc(r, "addresses")) == 2, "both were tried");
	is_str(op_str(r, "addresses.0.error.code"), "connect_failed", "the first is closed");
	is_str(op_str(r, "peer"), "127.0.0.1", "the second is the peer");
	is_int(op_do(r, "network.tcp", input_of("mixed", port, ""), &err), 0, "a name with a blocked address and another");
	ok(op_is(r, "ok") && json_array_size(op_doc(r, "addresses")) == 2, "is connected to by the other");
	is_str(op_str(r, "addresses.0.error.code"), "address_blocked", "the blocked one is said");
	is_int(op_do(r, "network.tcp", input_of("127.0.0.1", 1, ""), &err), 0, "a closed port");
	ok(!op_is(r, "ok") && op_doc(r, "ok"), "is an answer");
	is_str(op_str(r, "error.code"), "connect_failed", "connect_failed");
	ok(strstr(op_str(r, "error.message"), "refused"), "refused: %s", op_str(r, "error.message"));

	r->view.allowed_cidrs = NULL;
	is_int(op_do(r, "network.tcp", input_of("127.0.0.1", port, ""), &err), PT_E_BLOCKED, "loopback is blocked");
	is_int(op_do(r, "network.tcp", input_of("localhost", port, ""), &err), PT_E_BLOCKED, "by its name");
	is_int(op_do(r, "network.tcp", input_of("2130706433", port, ""), &err), PT_E_BLOCKED, "as a number");
	is_int(op_do(r, "network.tcp", input_of("0x7f.1", port, ""), &err), PT_E_BLOCKED, "in hex");
	is_int(op_do(r, "network.tcp", input_of("::ffff:127.0.0.1", port, ""), &err), PT_E_BLOCKED, "inside IPv6");
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", port, ""), &err), PT_E_BLOCKED, "for network.tls too");
	r->view.allowed_cidrs = "127.0.0.0/8,::1";
	close(fd);

	blackhole_start(&hole);
	is_int(op_do(r, "network.tcp", input_of("127.0.0.1", hole.port, ",\"timeout_ms\":100"), &err), 0,
	       "a port that does not answer");
	is_str(op_str(r, "error.code"), "timeout", "is an answer");
	start = pt_mono_ms();
	r->cancel.deadline_ms = start + 100;
	is_int(op_do(r, "network.tcp", input_of("127.0.0.1", hole.port, ",\"timeout_ms\":60000"), &err), PT_E_DEADLINE,
	       "the deadline");
	ok(pt_mono_ms() - start < 1100, "ends it within a second");
	r->cancel.deadline_ms = INT64_MAX;
	pthread_create(&t, NULL, fire_soon, &r->cancel);
	start = pt_mono_ms();
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", hole.port, ",\"timeout_ms\":60000"), &err), PT_E_CANCELLED,
	       "a cancel");
	ok(pt_mono_ms() - start < 1100, "too");
	pthread_join(t, NULL);
	pt_cancel_release(&r->cancel);
	pt_assert(pt_cancel_init(&r->cancel, &err) == 0);
	blackhole_stop(&hole);
	pt_resolve_inject(NULL);
}

static char ca_path[] = "/tmp/postern-ca-XXXXXX";

static void tls_good(struct op_run *r, const struct cert *ca)
{
	struct cert leaf =
		make_cert("localhost \xc3\xa9", "DNS:localhost,DNS:db.internal,IP:127.0.0.1,URI:spiffe://x/y", -1, 40, ca);
	pt_auto_buf b64 = PT_BUF_INIT(65536);
	struct tls_server s;
	struct pt_err err;
	BIO *mem = BIO_new(BIO_s_mem());
	char *pem;
	long n;

	tls_start(&s, &leaf, ca, true);
	r->http.ca = ca_path;
	is_int(op_do(r, "network.tls", input_of("localhost", s.port, ""), &err), 0, "a good certificate");
	ok(op_is(r, "ok") && op_is(r, "verified") && !op_doc(r, "error"), "is verified");
	is_str(op_str(r, "trusted_by"), "ca_file", "by the agent's CA");
	ok(strstr(op_str(r, "hint"), "private CA"), "and what that means");
	is_str(op_str(r, "protocol"), "TLSv1.3", "protocol");
	ok(strncmp(op_str(r, "cipher"), "TLS_", 4) == 0, "cipher");
	ok(json_array_size(op_doc(r, "chain")) == 2, "chain");
	is_str(op_str(r, "chain.0.subject"), "CN=localhost \xc3\xa9", "subject");
	is_str(op_str(r, "chain.0.issuer"), "CN=Test CA", "issuer");
	is_int(op_int(r, "chain.0.days_left"), 40, "days left");
	is_int(op_int(r, "days_left"), 40, "of the one that ends first");
	is_int(op_int(r, "chain.1.days_left"), 100, "of the CA");
	ok(strlen(op_str(r, "chain.0.not_after")) == 24 && strlen(op_str(r, "chain.0.sha256")) == 64, "time and digest");
	is_str(op_str(r, "chain.0.names.0"), "localhost", "names");
	is_str(op_str(r, "chain.0.names.2"), "127.0.0.1", "addresses");
	is_str(op_str(r, "chain.0.names.3"), "spiffe://x/y", "URIs");
	pthread_mutex_lock(&s.lock);
	is_str(s.sni, "localhost", "the host was asked for");
	pthread_mutex_unlock(&s.lock);
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", s.port, ",\"server_name\":\"db.internal\""), &err), 0,
	       "server_name");
	ok(op_is(r, "ok"), "is what is verified");
	pthread_mutex_lock(&s.lock);
	is_str(s.sni, "db.internal", "and asked for");
	pthread_mutex_unlock(&s.lock);
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", s.port, ""), &err), 0, "an address");
	ok(op_is(r, "ok"), "is verified as one");
	pthread_mutex_lock(&s.lock);
	is_str(s.sni, "none", "and not asked for");
	pthread_mutex_unlock(&s.lock);
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", s.port, ",\"server_name\":\"other.internal\""), &err), 0,
	       "another name");
	ok(!op_is(r, "ok") && !op_is(r, "verified") && strstr(op_str(r, "reason"), "ostname"), "is not verified: %s",
	   op_str(r, "reason"));
	is_str(op_str(r, "error.code"), "tls_failed", "why");
	r->http.ca = NULL;
	is_int(op_do(r, "network.tls", input_of("localhost", s.port, ""), &err), 0, "without the CA");
	ok(!op_is(r, "ok") && strstr(op_str(r, "error.hint"), "--ca-file"), "the hint names the setting");
	ok(json_array_size(op_doc(r, "chain")) == 2, "the chain is shown all the same");
	PEM_write_bio_X509(mem, ca->x);
	n = BIO_get_mem_data(mem, &pem);
	pt_buf_base64(&b64, pem, (size_t)n);
	BIO_free(mem);
	r->http.ca = b64.p;
	is_int(op_do(r, "network.tls", input_of("localhost", s.port, ""), &err), 0, "the CA as base64");
	ok(op_is(r, "ok"), "is read too");
	r->http.ca = "/nonexistent/ca.pem";
	ok(op_do(r, "network.tls", input_of("localhost", s.port, ""), &err) == 0 && !op_is(r, "ok"),
	   "a CA file that is missing is said");
	r->http.ca = ca_path;
	tls_stop(&s);
	cert_free(&leaf);
}

static void tls_bad(struct op_run *r, const struct cert *ca)
{
	struct cert old = make_cert("localhost", "DNS:localhost", -10, -3, ca);
	struct tls_server s;
	struct pt_err err;
	unsigned port;
	int fd;
	pthread_t t;
	int64_t start;

	tls_start(&s, &old, ca, false);
	is_int(op_do(r, "network.tls", input_of("localhost", s.port, ""), &err), 0, "a certificate that has ended");
	ok(!op_is(r, "ok") && strstr(op_str(r, "reason"), "expired"), "is said: %s", op_str(r, "reason"));
	ok(op_int(r, "days_left") < 0 && op_int(r, "days_left") >= -3, "days: %d", (int)op_int(r, "days_left"));
	SSL_CTX_set_max_proto_version(s.ctx, TLS1_1_VERSION);
	is_int(op_do(r, "network.tls", input_of("localhost", s.port, ""), &err), 0, "a server that is too old");
	ok(!op_is(r, "ok") && !op_doc(r, "chain"), "no handshake");
	is_str(op_str(r, "error.code"), "tls_failed", "why: %s", op_str(r, "error.message"));
	tls_stop(&s);
	cert_free(&old);

	fd = local_listen(&port, 16);
	pthread_create(&t, NULL, say_nonsense, &fd);
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", port, ""), &err), 0, "a peer that speaks no TLS");
	ok(!op_is(r, "ok") && op_str(r, "error.code"), "is an answer: %s", op_str(r, "error.message"));
	shutdown(fd, SHUT_RDWR);
	pthread_join(t, NULL);
	close(fd);

	fd = local_listen(&port, 16); /* connects, and nobody ever accepts */
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", port, ",\"timeout_ms\":100"), &err), 0, "a peer that is silent");
	is_str(op_str(r, "error.code"), "timeout", "is an answer");
	start = pt_mono_ms();
	pthread_create(&t, NULL, fire_soon, &r->cancel);
	is_int(op_do(r, "network.tls", input_of("127.0.0.1", port, ",\"timeout_ms\":60000"), &err), PT_E_CANCELLED,
	       "a cancel ends a handshake");
	ok(pt_mono_ms() - start < 1100, "within a second");
	pthread_join(t, NULL);
	close(fd);
}

int main(void)
{
	struct cert ca = make_cert("Test CA", NULL, -1, 100, NULL);
	struct op_run r;
	FILE *f;

	signal(SIGPIPE, SIG_IGN);
	f = fdopen(mkstemp(ca_path), "w");
	pt_assert(f && PEM_write_X509(f, ca.x) == 1 && fclose(f) == 0);
	op_run_init(&r);
	tcp(&r);
	tls_good(&r, &ca);
	tls_bad(&r, &ca);
	op_run_release(&r);
	cert_free(&ca);
	unlink(ca_path);
	return tap_end();
}
