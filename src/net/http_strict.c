/* Refuse what two HTTP parsers could read in two ways (RFC 9112 sections 5, 6.3 and 11.2: request smuggling), before anything
 * else looks at the request.  libmicrohttpd before 0.9.76 accepts all of it. */
#include "net/http_server_priv.h"
#include <strings.h>

static bool token_char(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool pt_http_unescape(char *s, size_t n, size_t *ret_n)
{
	size_t out = 0;
	bool good = true;

	for (size_t i = 0; i < n; i++) {
		int hi = -1, lo = -1;
		char c = s[i];

		if (c == '%') {
			hi = i + 1 < n ? hex_digit(s[i + 1]) : -1;
			lo = i + 2 < n ? hex_digit(s[i + 2]) : -1;
			if (hi < 0 || lo < 0) {
				good = false;
			} else {
				c = (char)(hi << 4 | lo);
				i += 2;
			}
		}
		good = good && ((unsigned char)c >= 0x20 || c == '\t' || c == '\n' || c == '\r') && c != 0x7f;
		s[out++] = c;
	}
	s[out] = '\0';
	*ret_n = out;
	return good;
}

struct scan {
	struct pt_http_req *r;
	const char *line_end; /* where the line before ended */
	unsigned hosts, lengths, encodings, n;
	bool chunked;
};

static void content_length(struct scan *sc, const char *v, size_t n)
{
	int64_t len = 0;

	if (sc->lengths++)
		sc->r->bad = "Content-Length stands twice";
	for (size_t i = 0; i < n; i++)
		if (v[i] < '0' || v[i] > '9' || __builtin_mul_overflow(len, 10, &len) ||
		    __builtin_add_overflow(len, v[i] - '0', &len))
			sc->r->bad = "Content-Length is not a number";
	if (!n)
		sc->r->bad = "Content-Length is empty";
	sc->r->expected = len;
}

static enum MHD_Result header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_n, const char *v, size_t n)
{
	struct scan *sc = cls;
	struct pt_http_req *r = sc->r;

	sc->n++;
	for (size_t i = 0; i < name_n; i++)
		if (!token_char((unsigned char)name[i]))
			r->bad = "a header's name has a byte that is not allowed";
	if (!name_n)
		r->bad = "a header has no name";
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)v[i] < 0x20 && v[i] != '\t') || v[i] == 0x7f)
			r->bad = "a header's value has a control byte";
#if MHD_VERSION < 0x00097600
	/* MHD ends lines in place with NULs.  One byte between two lines means that the line ended with a CR or LF alone, which a
	 * proxy before us may have taken for part of the value.  Newer versions see to it themselves (client discipline). */
	if (sc->line_end && name == sc->line_end + 1)
		r->bad = "a header line does not end with CR LF";
	sc->line_end = v ? v + n : NULL;
#endif
	if (name_n == 4 && strncasecmp(name, "Host", 4) == 0 && sc->hosts++)
		r->bad = "Host stands twice";
	else if (name_n == 14 && strncasecmp(name, "Content-Length", 14) == 0)
		content_length(sc, v, n);
	else if (name_n == 17 && strncasecmp(name, "Transfer-Encoding", 17) == 0) {
		sc->chunked = n == 7 && strncasecmp(v, "chunked", 7) == 0;
		if (sc->encodings++ || !sc->chunked)
			r->bad = "Transfer-Encoding is not exactly \"chunked\"";
	} else if (name_n == 6 && strncasecmp(name, "Expect", 6) == 0)
		r->expect = true;
	return MHD_YES;
}

void pt_http_strict(struct pt_http_req *r, const char *version)
{
	struct scan sc = { .r = r, .line_end = version + strlen(version) };
	bool v11 = strcmp(version, "HTTP/1.1") == 0;

	MHD_get_connection_values_n(r->mhd, MHD_HEADER_KIND, header, &sc);
	r->chunked = sc.encodings > 0;
	if (sc.encodings && sc.lengths)
		r->bad = "Content-Length and Transfer-Encoding together";
	else if (sc.encodings && !v11)
		r->bad = "Transfer-Encoding needs HTTP/1.1";
	else if (v11 && !sc.hosts)
		r->bad = "Host is missing";
	else if (!v11 && strcmp(version, "HTTP/1.0") != 0)
		r->bad = "the version is neither HTTP/1.1 nor HTTP/1.0";
	if (r->chunked)
		r->expected = -1;
	/* With too many headers for the pool MHD answers 431 itself; these leave no room for the response's headers. */
	const union MHD_ConnectionInfo *size = MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

	r->headers_over = (size ? size->header_size : 0) + sc.n * PT_HTTP_HEADER_COST > PT_HTTP_HEADERS_MAX;
}
