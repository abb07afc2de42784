/* Connecting to PostgreSQL: connect_args to libpq parameters, a connection that a cancel ends at once, and what its errors mean.
 * libpq looks names up without a way to stop it, so that is done here, and it gets addresses.
 *
 * SQLSTATE of a failed connection: libpq keeps the server's error record to itself and gives only PQerrorMessage().  With the
 * verbosity set to PQERRORS_VERBOSE (between start and the first poll, before any answer can have been read) that text has the
 * five characters behind the severity, "FATAL:  28P01: password …", in every language of the server; nothing else is parsed.
 * libpq's own texts are those of its source: this program never calls setlocale(), so they are not translated. */
#include "connector/pg_conn.h"
#include "base/clock.h"
#include "os/resolve.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>

enum { CONNECT_TIMEOUT_S = 30, MAX_PARAMS = 24 };

const struct pt_opt_doc pg_args[] = {
	{ "host", "name or address of the server, or the folder of its Unix socket", .required = true },
	{ "port", "TCP port, default 5432" },
	{ "dbname", "database (also: database, db_name); default: the user's name" },
	{ "user", "role to log in as", .required = true },
	{ "password", "its password", .secret = true },
	{ "ssl_mode",
	  "disable, allow, prefer, require, verify-ca or verify-full (also: sslmode); default require.  Not for Unix sockets" },
	{ "ssl_options", "object; ca_data: PEM text of the authorities that may sign the server's certificate" },
	{ "sslrootcert", "file with such authorities, in place of ssl_options.ca_data" },
	{ "connect_timeout", "seconds, default 30" },
	{ "options", "options for the server's session, such as \"-c search_path=sales\"" },
	{ "application_name", "default postern" },
	{ "target_session_attrs", "any, read-write, read-only, primary, standby or prefer-standby" },
	{ 0 },
};

static const char *const ssl_modes[] = { "disable", "allow", "prefer", "require", "verify-ca", "verify-full", NULL };
static const char *const session_attrs[] = { "any", "read-write", "read-only", "primary", "standby", "prefer-standby", NULL };

/* Name of the argument, libpq's keyword, allowed values. */
static const struct arg {
	const char *name, *keyword;
	const char *const *values;
	bool number;
} args[] = {
	{ "host", "host" },
	{ "port", "port", .number = true },
	{ "dbname", "dbname" },
	{ "database", "dbname" },
	{ "db_name", "dbname" },
	{ "user", "user" },
	{ "password", "password" },
	{ "ssl_mode", "sslmode", ssl_modes },
	{ "sslmode", "sslmode", ssl_modes },
	{ "sslrootcert", "sslrootcert" },
	{ "options", "options" },
	{ "application_name", "application_name" },
	{ "target_session_attrs", "target_session_attrs", session_attrs },
	{ "connect_timeout", NULL, .number = true },
	{ "ssl_options", NULL },
};

struct params {
	const char *key[MAX_PARAMS + 1], *value[MAX_PARAMS + 1];
	size_t n;
	char port[8];
	char ca_path[40];
	int ca_fd;
	int64_t timeout_s;
};

static bool have(const struct params *p, const char *key)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->key[i], key) == 0)
			return true;
	return false;
}

static void put(struct params *p, const char *key, const char *value)
{
	pt_assert(p->n < MAX_PARAMS);
	p->key[p->n] = key;
	p->value[p->n++] = value;
}

/* libpq wants a file: one in memory, which nobody else can open by name. */
static int put_ca(struct params *p, const json_t *ssl_options, struct pt_err *err)
{
	const char *key;
	json_t *v;

	if (!json_is_object(ssl_options))
		return pt_fail(err, PT_E_INVALID, "ssl_options: expected an object, got %s", pt_json_type_name(ssl_options));
	json_object_foreach((json_t *)(uintptr_t)ssl_options, key, v) {
		const char *pem = json_string_value(v);
		size_t n = json_string_length(v);

		if (strcmp(key, "ca_data") != 0)
			return pt_fail(err, PT_E_INVALID, "unknown argument 'ssl_options.%.60s'", key);
		if (!pem || !strstr(pem, "-----BEGIN "))
			return pt_fail(err, PT_E_INVALID, "ssl_options.ca_data: expected PEM text");
		p->ca_fd = memfd_create("ca", MFD_CLOEXEC);
		if (p->ca_fd < 0 || write(p->ca_fd, pem, n) != (ssize_t)n)
			return pt_fail_sys(err, PT_E_INTERNAL, "file in memory for ssl_options.ca_data");
		snprintf(p->ca_path, sizeof(p->ca_path), "/proc/self/fd/%d", p->ca_fd);
		put(p, "sslrootcert", p->ca_path);
	}
	return PT_OK;
}

static int number_arg(const struct arg *a, const json_t *v, int64_t min, int64_t max, int64_t *ret, struct pt_err *err)
{
	const char *s = json_string_value(v);
	char *end = NULL;
	int64_t n = json_is_integer(v) ? json_integer_value(v) : s ? strtoll(s, &end, 10) : -1;

	if ((!s && !json_is_integer(v)) || (s && (end == s || *end)) || n < min || n > max)
		return pt_fail(err, PT_E_INVALID, "%s: expected a number from %lld to %lld", a->name, (long long)min,
			       (long long)max);
	*ret = n;
	return PT_OK;
}

static int text_arg(struct params *p, const struct arg *a, const json_t *v, struct pt_err *err)
{
	const char *s = json_string_value(v);
	bool known = !a->values;

	if (!s)
		return pt_fail(err, PT_E_INVALID, "%s: expected a string, got %s", a->name, pt_json_type_name(v));
	if (strlen(s) != json_string_length(v))
		return pt_fail(err, PT_E_INVALID, "%s: holds a NUL character", a->name);
	for (const char *const *w = a->values; w && *w; w++)
		known |= strcmp(*w, s) == 0;
	if (!known) { /* the value is not quoted: who mixes arguments up has a secret here */
		pt_auto_buf b = PT_BUF_INIT(200);

		for (const char *const *w = a->values; *w; w++)
			pt_buf_fmt(&b, "%s%s", w == a->values ? "" : ", ", *w);
		(void)pt_fail(err, PT_E_INVALID, "%s: not a known value", a->name);
		return pt_hint(err, "one of %s", b.p);
	}
	put(p, a->keyword, s);
	return PT_OK;
}

static int one_arg(struct params *p, const char *name, const json_t *v, struct pt_err *err)
{
	const struct arg *a = NULL;
	int64_t port;
	int rc;

	for (size_t i = 0; i < PT_COUNT(args) && !a; i++)
		if (strcmp(args[i].name, name) == 0)
			a = &args[i];
	if (!a) {
		(void)pt_fail(err, PT_E_INVALID, "unknown argument '%.60s' in connect_args", name);
		return pt_hint(err, "postgres knows host, port, dbname, user, password, ssl_mode, ssl_options, sslrootcert, "
				    "connect_timeout, options, application_name and target_session_attrs");
	}
	if (a->keyword && have(p, a->keyword))
		return pt_fail(err, PT_E_INVALID, "%s: given twice, under two names", a->name);
	if (!a->number)
		return a->keyword ? text_arg(p, a, v, err) : put_ca(p, v, err);
	if (!a->keyword)
		return number_arg(a, v, 1, 3600, &p->timeout_s, err);
	rc = number_arg(a, v, 1, 65535, &port, err);
	if (rc < 0)
		return rc;
	snprintf(p->port, sizeof(p->port), "%d", (int)port);
	put(p, a->keyword, p->port);
	return PT_OK;
}

static int read_args(struct params *p, const json_t *connect_args, struct pt_err *err)
{
	const char *name;
	json_t *v;

	if (!json_is_object(connect_args))
		return pt_fail(err, PT_E_INVALID, "connect_args: expected an object, got %s", pt_json_type_name(connect_args));
	json_object_foreach((json_t *)(uintptr_t)connect_args, name, v) {
		int rc = json_is_null(v) ? PT_OK : one_arg(p, name, v, err);

		if (rc < 0)
			return rc;
	}
	if (!have(p, "host"))
		return pt_fail(err, PT_E_INVALID, "missing argument 'host' in connect_args");
	if (!have(p, "user"))
		return pt_fail(err, PT_E_INVALID, "missing argument 'user' in connect_args");
	if (!have(p, "sslmode"))
		put(p, "sslmode", "require");
	if (!have(p, "application_name"))
		put(p, "application_name", "postern");
	put(p, "client_encoding", "UTF8");
	put(p, "gssencmode", "disable"); /* no look for Kerberos tickets of whoever runs the agent */
	put(p, "tcp_user_timeout", "60000");
	put(p, "keepalives_idle", "60");
	return PT_OK;
}

/* --- names to addresses --- */

/* libpq's lists of hosts and their addresses; one name may have several. */
struct hosts {
	struct pt_buf names, addresses;
	struct pt_err unknown; /* of the last name that has no address */
	size_t n;
};

static void hosts_release(struct hosts *h)
{
	pt_buf_release(&h->names);
	pt_buf_release(&h->addresses);
}

static void add_host(struct hosts *h, const char *name, const char *address)
{
	pt_buf_fmt(&h->names, "%s%s", h->n ? "," : "", name);
	pt_buf_fmt(&h->addresses, "%s%s", h->n ? "," : "", address);
	h->n++;
}

/* One of the hosts: a name, an address, or the folder of a Unix socket. */
static int look_up(struct hosts *h, const char *name, int64_t end_ms, const struct pt_cancel *cancel, struct pt_err *err)
{
	pt_auto(pt_addrs_freep) struct addrinfo *found = NULL;
	unsigned char ip[sizeof(struct in6_addr)];
	int64_t left = end_ms - pt_mono_ms();
	int rc;

	if (!*name || *name == '/' || *name == '@' || inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1) {
		add_host(h, name, "");
		return PT_OK;
	}
	rc = pt_resolve(name, 0, AF_UNSPEC, left > 0 ? (int)left : 0, cancel, &found, err);
	if (rc == PT_E_HOST_UNKNOWN) {
		(void)pt_hint(err, "check host in connect_args and the agent's DNS");
		h->unknown = *err;
		return PT_OK;
	}
	for (const struct addrinfo *a = found; a; a = a->ai_next) {
		char text[64];

		pt_address_text(a->ai_addr, text);
		add_host(h, name, text);
	}
	return rc;
}

/* Every name of the argument host in place of itself with its addresses.  A name that is not known counts only when nothing is left. */
static int put_addresses(struct params *p, struct hosts *h, int64_t end_ms, const struct pt_cancel *cancel, struct pt_err *err)
{
	const char **host = NULL;
	int rc = PT_OK;

	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->key[i], "host") == 0)
			host = &p->value[i];
	pt_assert(host);
	for (const char *at = *host; rc == 0 && at;) {
		size_t n = strcspn(at, ",");
		pt_auto(pt_freep) char *name = strndup(at, n);

		rc = name ? look_up(h, name, end_ms, cancel, err) : pt_fail_oom(err);
		at = at[n] ? at + n + 1 : NULL;
	}
	if (rc < 0)
		return rc;
	if (!h->n) {
		*err = h->unknown;
		return err->code;
	}
	if ((rc = pt_buf_done(&h->names, err)) < 0 || (rc = pt_buf_done(&h->addresses, err)) < 0)
		return pt_err_wrap(err, rc, "host");
	*host = h->names.p;
	put(p, "hostaddr", h->addresses.p);
	return PT_OK;
}

/* --- errors --- */

static void quiet(void *arg, const PGresult *res) /* libpq prints notices to stderr by default */
{
}

/* The message in one line without SQLSTATE and source location; the SQLSTATE of its last server error in state, or "". */
static void read_message(const char *m, char *out, size_t size, char state[static 6])
{
	size_t n = 0;

	state[0] = '\0';
	while (*(m += strspn(m, "\t "))) { /* a second line begins with a tab */
		const char *end = strchr(m, '\n'), *at;
		size_t len = end ? (size_t)(end - m) : strlen(m);
		bool coded = false;

		for (at = m; at + 9 < m + len && !coded; at++) {
			coded = at[0] == ':' && at[1] == ' ' && at[2] == ' ' && at[8] == ':' && at[9] == ' ';
			for (int i = 3; i < 8; i++)
				coded &= isdigit((unsigned char)at[i]) || isupper((unsigned char)at[i]);
		}
		if (coded) {
			at--;
			memcpy(state, at + 3, 5);
			state[5] = '\0';
			n += (size_t)snprintf(out + n, size - n, "%s%.*s: %.*s", n ? "; " : "", (int)(at - m), m,
					      (int)(len - (size_t)(at + 10 - m)), at + 10);
		} else if (len && strncmp(m, "LOCATION:", 9) != 0) {
			n += (size_t)snprintf(out + n, size - n, "%s%.*s", n ? "; " : "", (int)len, m);
		}
		if (n >= size)
			n = size - 1;
		m += len + (end != NULL);
	}
	out[n] = '\0';
}

static int server_refused(const char *state, const char *text, struct pt_err *err)
{
	if (strcmp(state, "28000") == 0 && strstr(text, "no encryption")) {
		(void)pt_fail(err, PT_E_TLS_REQUIRED, "%s", text);
		pt_native(err, state);
		return pt_hint(err, "the server accepts this login over TLS only: set ssl_mode to require (or verify-full)");
	}
	(void)pt_fail(err,
		      strncmp(state, "28", 2) == 0 || strcmp(state, "42501") == 0 ? PT_E_SOURCE_AUTH
		      : strcmp(state, "3D000") == 0                               ? PT_E_INVALID
										  : PT_E_CONNECT,
		      "%s", text);
	pt_native(err, state);
	if (strcmp(state, "28P01") == 0)
		return pt_hint(err, "check user and password in the credential");
	if (strcmp(state, "3D000") == 0)
		return pt_hint(err, "check dbname in connect_args");
	return err->code;
}

static int connect_error(PGconn *db, struct pt_err *err)
{
	static const struct {
		const char *text;
		enum pt_code code;
		const char *hint;
	} ours[] = {
		{ "server does not support SSL", PT_E_TLS_REQUIRED,
		  "the server has no TLS: enable it there, or set ssl_mode to disable on a network that you trust" },
		{ "root certificate file", PT_E_TLS, "give the authority's certificate in ssl_options.ca_data" },
		{ "certificate", PT_E_TLS,
		  "check ssl_options.ca_data, and with verify-full that host is a name in the server's certificate" },
		{ "SSL", PT_E_TLS, "" },
	};
	char text[320], state[6];

	read_message(PQerrorMessage(db), text, sizeof(text), state);
	if (state[0])
		return server_refused(state, text, err);
	if (PQconnectionNeedsPassword(db)) {
		(void)pt_fail(err, PT_E_SOURCE_AUTH, "%s", text);
		return pt_hint(err, "the server asks for a password: set password in the credential");
	}
	for (size_t i = 0; i < PT_COUNT(ours); i++)
		if (strstr(text, ours[i].text)) {
			(void)pt_fail(err, ours[i].code, "%s", text);
			return pt_hint(err, "%s", ours[i].hint);
		}
	return pt_fail(err, PT_E_CONNECT, "%s", text);
}

static int wait_connected(PGconn *db, int64_t end_ms, int64_t timeout_s, const struct pt_cancel *cancel, struct pt_err *err)
{
	PostgresPollingStatusType st = PGRES_POLLING_WRITING;

	while (st != PGRES_POLLING_OK) {
		int64_t left = end_ms - pt_mono_ms();
		int rc;

		if (st == PGRES_POLLING_FAILED)
			return connect_error(db, err);
		rc = pt_cancel_poll(cancel, PQsocket(db), st == PGRES_POLLING_READING ? POLLIN : POLLOUT,
				    left > 0 ? (int)left : 0, err);
		if (rc == PT_E_TIMEOUT)
			return pt_fail(err, rc, "no connection to %s within %d s", PQhost(db), (int)timeout_s);
		if (rc < 0)
			return rc;
		st = PQconnectPoll(db);
	}
	return PT_OK;
}

int pg_connect(PGconn **ret, const json_t *connect_args, const struct pt_cancel *cancel, struct pt_err *err)
{
	struct params p = { .ca_fd = -1, .timeout_s = CONNECT_TIMEOUT_S };
	pt_auto(hosts_release) struct hosts h = { .names = PT_BUF_INIT(64 * 1024), .addresses = PT_BUF_INIT(64 * 1024) };
	PGconn *db = NULL;
	int64_t end_ms;
	int rc = pt_cancel_check(cancel, err);

	if (rc == 0)
		rc = read_args(&p, connect_args, err);
	end_ms = pt_mono_ms() + p.timeout_s * 1000;
	if (rc == 0)
		rc = put_addresses(&p, &h, end_ms, cancel, err);
	if (rc == 0 && !(db = PQconnectStartParams(p.key, p.value, 0)))
		rc = pt_fail_oom(err);
	if (rc == 0) {
		PQsetErrorVerbosity(db, PQERRORS_VERBOSE);
		PQsetNoticeReceiver(db, quiet, NULL);
		rc = PQstatus(db) == CONNECTION_BAD ? connect_error(db, err)
						    : wait_connected(db, end_ms, p.timeout_s, cancel, err);
	}
	pt_closep(&p.ca_fd);
	if (rc == 0 && PQsetnonblocking(db, 1) != 0)
		rc = pt_fail_oom(err);
	if (rc < 0)
		PQfinish(db);
	else
		*ret = db;
	return rc;
}
