/* What the proxy settings mean, brought into the form that libcurl takes. */
#include "net/http_client_priv.h"
#include <stdio.h>

/* libcurl (7.86 and newer) takes host names with their subdomains, a leading dot, and address ranges for hosts that are
 * written as addresses.  We add "*.domain", "*" within a list, and white space around the items. */
char *pt_http_no_proxy_normal(const char *s)
{
	pt_auto_buf b = PT_BUF_INIT(65536);

	while (s && *s) {
		size_t n = strcspn(s, ", \t\r\n");

		if (n == 1 && *s == '*') {
			pt_buf_clear(&b);
			pt_buf_chr(&b, '*');
			break;
		}
		if (n) {
			bool star = n > 2 && s[0] == '*' && s[1] == '.';

			if (b.len)
				pt_buf_chr(&b, ',');
			pt_buf_add(&b, s + star, n - star);
		}
		s += n;
		s += *s != '\0';
	}
	return b.bad ? NULL : pt_buf_detach(&b, NULL);
}

/* "proxy:3128" means http://proxy:3128, as libcurl takes it. */
char *pt_http_proxy_normal(const char *s)
{
	char *url = NULL;

	if (!s || !*s || strstr(s, "://"))
		return strdup(s ? s : "");
	return asprintf(&url, "http://%s", s) < 0 ? NULL : url;
}

int pt_http_proxies_check(const char *https_proxy, const char *http_proxy, struct pt_err *err)
{
	for (size_t i = 0; i < 2; i++) {
		const char *proxy = i ? http_proxy : https_proxy;
		struct pt_url u;
		int rc;

		if (!proxy || !*proxy)
			continue;
		rc = pt_url_parse(proxy, &u, err);
		if (rc == 0 && strcmp(u.scheme, "http") != 0 && strcmp(u.scheme, "https") != 0 &&
		    strncmp(u.scheme, "socks", 5) != 0)
			rc = pt_fail(err, PT_E_INVALID, "proxy scheme '%s' is not known", u.scheme);
		if (rc < 0) {
			pt_err_wrap(err, rc, i ? "HTTP_PROXY" : "HTTPS_PROXY");
			return pt_hint(
				err,
				"write it as http://user:password@host:port, special characters in the password percent-encoded");
		}
	}
	return PT_OK;
}
