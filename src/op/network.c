/* network.tcp and network.dns: can this agent reach and name a host?  A check that could be made is a result ("ok": true or
 * false, and why); only bad input, a blocked address, a cancel or a deadline make the operation fail. */
#include "op/dial.h"
#include "op/doc.h"
#include "os/resolve.h"

enum { TCP_TIMEOUT_MS = 5000, DNS_TIMEOUT_MS = 5000, MOST_TIMEOUT_MS = 120000, MOST_ADDRESSES = 1000 };

struct tcp_input {
	char *host;
	int64_t port, timeout_ms;
};
static const struct pt_field tcp_fields[] = {
	PT_F(struct tcp_input, host, PT_T_STR, PT_REQUIRED, .max = 255, .help = "name or address"),
	PT_F(struct tcp_input, port, PT_T_I64, PT_REQUIRED, .min = 1, .max = 65535),
	PT_F(struct tcp_input, timeout_ms, PT_T_I64, 0, .min = 1, .max = MOST_TIMEOUT_MS, .def = TCP_TIMEOUT_MS,
	     .help = "for the lookup and all addresses"),
};
static const struct pt_shape tcp_shape = PT_SHAPE("input", struct tcp_input, tcp_fields);

static int tcp_check(const void *input, struct pt_err *err)
{
	return pt_host_check("host", ((const struct tcp_input *)input)->host, err);
}

static int tcp_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	const struct tcp_input *in = input;
	pt_auto(pt_guard_release) struct pt_guard guard = { 0 };
	pt_auto_buf b = PT_DOC_INIT;
	pt_auto_buf tries = PT_DOC_INIT;
	struct pt_dial d = { .guard = &guard,
			     .host = in->host,
			     .port = (unsigned)in->port,
			     .cancel = run->cancel,
			     .tries = &tries,
			     .timeout_ms = (int)in->timeout_ms };
	int64_t start = pt_mono_ns();
	int rc = pt_guard_init(&guard, run->agent->blocked_cidrs, run->agent->allowed_cidrs, err);

	if (rc < 0)
		return rc;
	rc = pt_dial(&d, err);
	pt_closep(&d.fd);
	if (rc < 0 && !pt_check_is_answer(err->code))
		return rc;
	pt_doc_open(&b, NULL, '{');
	pt_doc_bool(&b, "ok", rc == 0);
	pt_doc_str(&b, "host", in->host);
	pt_doc_int(&b, "port", in->port);
	pt_doc_str(&b, "peer", d.peer);
	pt_doc_ms(&b, "dns_ms", d.dns_us);
	pt_doc_ms(&b, "ms", (pt_mono_ns() - start) / 1000);
	pt_doc_open(&b, "addresses", '[');
	pt_buf_add(&b, tries.p, tries.len);
	pt_buf_chr(&b, ']');
	if (rc < 0)
		pt_doc_err(&b, "error", err);
	pt_buf_chr(&b, '}');
	return pt_doc_done(run, &b, err);
}

struct dns_input {
	char *name, *type;
	int64_t timeout_ms;
};
static const char *const dns_types[] = { "A", "AAAA", "any", NULL };
static const struct pt_field dns_fields[] = {
	PT_F(struct dns_input, name, PT_T_STR, PT_REQUIRED, .max = 255),
	PT_F(struct dns_input, type, PT_T_STR, 0, .values = dns_types, .help = "A, AAAA or any; any"),
	PT_F(struct dns_input, timeout_ms, PT_T_I64, 0, .min = 1, .max = MOST_TIMEOUT_MS, .def = DNS_TIMEOUT_MS,
	     .help = "for the lookup"),
};
static const struct pt_shape dns_shape = PT_SHAPE("input", struct dns_input, dns_fields);

static int dns_check(const void *input, struct pt_err *err)
{
	return pt_host_check("name", ((const struct dns_input *)input)->name, err);
}

/* IPv4 before IPv6, each by its bytes. */
static int by_address(const void *a, const void *b)
{
	const struct sockaddr *x = *(struct sockaddr *const *)a, *y = *(struct sockaddr *const *)b;

	if (x->sa_family != y->sa_family)
		return x->sa_family == AF_INET ? -1 : 1;
	return x->sa_family == AF_INET
		       ? memcmp(&((const struct sockaddr_in *)x)->sin_addr, &((const struct sockaddr_in *)y)->sin_addr, 4)
		       : memcmp(&((const struct sockaddr_in6 *)x)->sin6_addr, &((const struct sockaddr_in6 *)y)->sin6_addr, 16);
}

static void write_addresses(struct pt_buf *b, const struct addrinfo *ai)
{
	const struct sockaddr *all[MOST_ADDRESSES];
	size_t n = 0;

	for (; ai && n < MOST_ADDRESSES; ai = ai->ai_next)
		all[n++] = ai->ai_addr;
	qsort(all, n, sizeof(*all), by_address);
	pt_doc_open(b, "addresses", '[');
	for (size_t i = 0; i < n; i++) {
		char text[64];

		pt_address_text(all[i], text);
		if (!i || by_address(&all[i - 1], &all[i]) != 0)
			pt_doc_str(b, NULL, text);
	}
	pt_buf_chr(b, ']');
}

static int dns_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	const struct dns_input *in = input;
	const char *type = in->type ? in->type : "any";
	int family = strcmp(type, "A") == 0 ? AF_INET : strcmp(type, "AAAA") == 0 ? AF_INET6 : AF_UNSPEC;
	pt_auto(pt_addrs_freep) struct addrinfo *ai = NULL;
	int64_t start = pt_mono_ns();
	pt_auto_buf b = PT_DOC_INIT;
	int rc = pt_resolve(in->name, 0, family, (int)in->timeout_ms, run->cancel, &ai, err);

	if (rc < 0 && !pt_check_is_answer(err->code))
		return rc;
	pt_doc_open(&b, NULL, '{');
	pt_doc_bool(&b, "ok", rc == 0);
	pt_doc_str(&b, "name", in->name);
	pt_doc_str(&b, "type", type);
	pt_doc_str(&b, "canonical_name", ai ? ai->ai_canonname : NULL);
	pt_doc_ms(&b, "ms", (pt_mono_ns() - start) / 1000);
	write_addresses(&b, ai);
	if (rc < 0)
		pt_doc_err(&b, "error", err);
	pt_buf_chr(&b, '}');
	return pt_doc_done(run, &b, err);
}

const struct pt_op_type pt_op_network_tcp = { .name = "network.tcp",
					      .summary = "can the agent open a TCP connection?",
					      .input = &tcp_shape,
					      .input_size = sizeof(struct tcp_input),
					      .check = tcp_check,
					      .run = tcp_run };
const struct pt_op_type pt_op_network_dns = { .name = "network.dns",
					      .summary = "which addresses does a name have for the agent?",
					      .input = &dns_shape,
					      .input_size = sizeof(struct dns_input),
					      .check = dns_check,
					      .run = dns_run };
