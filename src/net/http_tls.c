/* The server's certificate and key: read at the start and again when their files have changed, so that a renewal needs no restart.
 * What was read is never changed: all connections that were opened with it share it, and the last one frees it. */
#include "net/http_server_priv.h"
#include "base/clock.h"
#include "base/log.h"
#include "os/file.h"
#include <gnutls/x509.h>
#include <sys/stat.h>

enum {
	PEM_MAX = 256 * 1024,
	LOOK_MS = 1000, /* how often the files are looked at, at most */
};

struct pt_http_cert {
	_Atomic unsigned users;
	gnutls_pcert_st *chain; /* the server's own first */
	unsigned n;
	gnutls_privkey_t key;
	int64_t expires; /* wall seconds */
};

struct pt_http_tls_pair {
	char *cert_path, *key_path;
	pthread_mutex_t lock; /* of all below */
	struct pt_http_cert *cert;
	struct stat seen[2]; /* of the files that were read last */
	bool bad;            /* those that are there now cannot be used */
	int64_t looked_ms;
};

void pt_http_cert_release(struct pt_http_cert *c)
{
	if (!c || atomic_fetch_sub(&c->users, 1) > 1)
		return;
	while (c->n)
		gnutls_pcert_deinit(&c->chain[--c->n]);
	free(c->chain);
	if (c->key)
		gnutls_privkey_deinit(c->key);
	free(c);
}

/* Does the key belong to the certificate? */
static int fits(gnutls_x509_crt_t *chain, unsigned n, gnutls_x509_privkey_t key)
{
	gnutls_certificate_credentials_t cred;
	int rc = gnutls_certificate_allocate_credentials(&cred);

	if (rc < 0)
		return rc;
	rc = gnutls_certificate_set_x509_key(cred, chain, (int)n, key);
	gnutls_certificate_free_credentials(cred);
	return rc;
}

static int fill(struct pt_http_cert *c, gnutls_x509_crt_t *chain, unsigned n, gnutls_x509_privkey_t key)
{
	int rc = fits(chain, n, key);

	if (rc >= 0)
		rc = gnutls_privkey_init(&c->key);
	if (rc >= 0)
		rc = gnutls_privkey_import_x509(c->key, key, GNUTLS_PRIVKEY_IMPORT_COPY);
	if (rc >= 0 && !(c->chain = calloc(n, sizeof(*c->chain))))
		rc = GNUTLS_E_MEMORY_ERROR;
	for (; rc >= 0 && c->n < n; c->n += rc >= 0)
		rc = gnutls_pcert_import_x509(&c->chain[c->n], chain[c->n], 0);
	c->expires = (int64_t)gnutls_x509_crt_get_expiration_time(chain[0]);
	return rc;
}

static int parse(struct pt_http_cert *ret, const struct pt_buf *cert, const struct pt_buf *key)
{
	const gnutls_datum_t c = { (unsigned char *)cert->p, (unsigned)cert->len },
			     k = { (unsigned char *)key->p, (unsigned)key->len };
	gnutls_x509_privkey_t private;
	gnutls_x509_crt_t *chain;
	unsigned n;
	int rc = gnutls_x509_crt_list_import2(&chain, &n, &c, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_SORT);

	if (rc < 0)
		return rc;
	rc = gnutls_x509_privkey_init(&private);
	if (rc >= 0) {
		rc = gnutls_x509_privkey_import2(private, &k, GNUTLS_X509_FMT_PEM, NULL, 0);
		if (rc >= 0)
			rc = fill(ret, chain, n, private);
		gnutls_x509_privkey_deinit(private);
	}
	while (n)
		gnutls_x509_crt_deinit(chain[--n]);
	gnutls_free(chain);
	return rc;
}

/* The files as they are now; t's certificate is replaced only by one that can be used. */
static int load(struct pt_http_tls_pair *t, struct pt_err *err)
{
	pt_auto_buf cert = PT_BUF_INIT(PEM_MAX), key = PT_BUF_INIT(PEM_MAX);
	struct pt_http_cert *c;
	int rc = pt_file_read(t->cert_path, &cert, err);

	rc = rc < 0 ? rc : pt_file_read(t->key_path, &key, err);
	if (rc < 0) {
		pt_err_wrap(err, rc, "TLS files");
		return (int)(err->code = PT_E_INVALID);
	}
	c = calloc(1, sizeof(*c));
	if (c)
		c->users = 1;
	rc = c ? parse(c, &cert, &key) : GNUTLS_E_MEMORY_ERROR;
	if (key.cap)
		explicit_bzero(key.p, key.cap);
	if (rc < 0) {
		pt_http_cert_release(c);
		pt_fail(err, PT_E_INVALID, "TLS certificate %s and key %s: %s", t->cert_path, t->key_path, gnutls_strerror(rc));
		return pt_hint(err, "both are PEM files; the certificate's file starts with the server's own, then its chain");
	}
	pt_http_cert_release(t->cert);
	t->cert = c;
	return PT_OK;
}

static void look(struct pt_http_tls_pair *t, struct stat now[2])
{
	t->looked_ms = pt_mono_ms();
	if (stat(t->cert_path, &now[0]) < 0)
		now[0] = (struct stat) { 0 };
	if (stat(t->key_path, &now[1]) < 0)
		now[1] = (struct stat) { 0 };
}

/* Under the lock: read the files if they have changed. */
static void refresh(struct pt_http_tls_pair *t)
{
	char until[32];
	struct pt_err err = { 0 };
	struct stat now[2];

	if (pt_mono_ms() - t->looked_ms < LOOK_MS)
		return;
	look(t, now);
	if (!t->bad && pt_file_same(&now[0], &t->seen[0]) && pt_file_same(&now[1], &t->seen[1]))
		return;
	if (load(t, &err) < 0) { /* tried again: what is wrong may be who owns them, or that one of them is still to come */
		if (!t->bad)
			pt_log_err(PT_LOG_WARN, "the TLS files have changed and cannot be used; the certificate before stays",
				   &err);
		t->bad = true;
		return;
	}
	memcpy(t->seen, now, sizeof(now));
	t->bad = false;
	pt_time_text(t->cert->expires * 1000, until);
	pt_info("the TLS certificate was read again", "file", t->cert_path, "expires", until);
}

int pt_http_tls_open(struct pt_http_tls_pair **ret, const char *cert_path, const char *key_path, struct pt_err *err)
{
	struct pt_http_tls_pair *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return pt_fail_oom(err);
	pthread_mutex_init(&t->lock, NULL);
	t->cert_path = strdup(cert_path);
	t->key_path = strdup(key_path);
	rc = t->cert_path && t->key_path ? PT_OK : pt_fail_oom(err);
	if (rc == 0) {
		look(t, t->seen);
		rc = load(t, err);
	}
	if (rc < 0) {
		pt_http_tls_close(t);
		return rc;
	}
	*ret = t;
	return PT_OK;
}

void pt_http_tls_close(struct pt_http_tls_pair *t)
{
	if (!t)
		return;
	pt_http_cert_release(t->cert);
	free(t->cert_path);
	free(t->key_path);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int64_t pt_http_tls_expires(struct pt_http_tls_pair *t)
{
	int64_t at;

	pthread_mutex_lock(&t->lock);
	refresh(t);
	at = t->cert->expires;
	pthread_mutex_unlock(&t->lock);
	return at;
}

int pt_http_on_certificate(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **ret_chain,
			   unsigned *ret_n, gnutls_ocsp_data_st **ret_ocsp, unsigned *ret_n_ocsp, gnutls_privkey_t *ret_key,
			   unsigned *flags)
{
	struct MHD_Connection *c = gnutls_session_get_ptr(session);
	const union MHD_ConnectionInfo *of = c ? MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT) : NULL;
	struct pt_http_req *r = of ? of->socket_context : NULL;
	struct pt_http_tls_pair *t = r ? r->s->tls : NULL;

	(void)info;
	(void)flags; /* none: what it gets is not its own */
	if (!t)
		return -1;
	if (!r->cert) {
		pthread_mutex_lock(&t->lock);
		refresh(t);
		atomic_fetch_add(&t->cert->users, 1);
		r->cert = t->cert;
		pthread_mutex_unlock(&t->lock);
	}
	*ret_chain = r->cert->chain;
	*ret_n = r->cert->n;
	*ret_key = r->cert->key;
	*ret_ocsp = NULL;
	*ret_n_ocsp = 0;
	return 0;
}
