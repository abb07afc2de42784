/* URLs and addresses (RFC 3986, RFC 4291, RFC 4632). */
#ifndef PT_NET_URL_H
#define PT_NET_URL_H
#include "base/buf.h"
#include <netinet/in.h>

struct pt_url {
	char scheme[12], host[256]; /* host without brackets, lower case */
	unsigned port;              /* default of the scheme filled in (http 80, https 443, postgresql 5432), else 0 */
	char userinfo[256];         /* still encoded; "" = none */
	const char *path;           /* into the parsed text: from '/' or '?', or its end */
};
int pt_url_parse(const char *text, struct pt_url *ret, struct pt_err *err) PT_MUSTCHECK;
/* Append text with the password of its user part replaced by "***": for logs. */
void pt_url_masked(const char *text, struct pt_buf *out);
void pt_url_encode(struct pt_buf *out, const char *s, size_t n); /* percent-encodes all but unreserved characters */
/* "host:port", "[v6]:port", ":port" into its parts (host "" where there is none).  INVALID otherwise. */
int pt_hostport_parse(const char *text, char host[static 256], unsigned *ret_port, struct pt_err *err) PT_MUSTCHECK;

struct pt_cidr {
	int family; /* AF_INET or AF_INET6 */
	unsigned char addr[16];
	unsigned bits;
};
int pt_cidr_parse(const char *text, struct pt_cidr *ret, struct pt_err *err) PT_MUSTCHECK; /* an address alone is /32 or /128 */
bool pt_cidr_has(const struct pt_cidr *c, const struct sockaddr *sa); /* an IPv4-mapped IPv6 address counts as IPv4 */
#endif
