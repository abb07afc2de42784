#include "net/url.h"
#include "../tap.h"
#include <arpa/inet.h>

static void test_parse(void)
{
	static const struct {
		const char *url, *scheme, *host;
		unsigned port;
		const char *userinfo, *path;
	} t[] = {
		{ "https://Example.COM", "https", "example.com", 443, "", "" },
		{ "HTTP://a/b?c#d", "http", "a", 80, "", "/b?c#d" },
		{ "http://a:8080?x=1", "http", "a", 8080, "", "?x=1" },
		{ "https://u:p%40ss@h:1/", "https", "h", 1, "u:p%40ss", "/" },
		{ "https://u:p@ss@h/", "https", "h", 443, "u:p@ss", "/" },
		{ "https://[2001:DB8::1]:99/x", "https", "2001:db8::1", 99, "", "/x" },
		{ "https://[::1]", "https", "::1", 443, "", "" },
		{ "postgresql:///db?host=/run", "postgresql", "", 5432, "", "/db?host=/run" },
		{ "s3://bucket/key", "s3", "bucket", 0, "", "/key" },
		{ "http://h/a@b", "http", "h", 80, "", "/a@b" },
	};
	static const char *const bad[] = { "",
					   "example.com",
					   "://x",
					   "http:/x",
					   "http://",
					   "http:///x",
					   "http://a b/",
					   "http://a:x/",
					   "http://a:65536/",
					   "http://a:/",
					   "http://[::1",
					   "http://[::1]x/",
					   "http://[zz]/",
					   "http://::1/",
					   "http://a\nb/",
					   "http://a<b/",
					   "1http://a/",
					   "averylongscheme://x/",
					   "http://a\\b/",
					   "http://u@/" };
	struct pt_url u;
	struct pt_err err;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		is_int(pt_url_parse(t[i].url, &u, &err), 0, "%s", t[i].url);
		ok(strcmp(u.scheme, t[i].scheme) == 0 && strcmp(u.host, t[i].host) == 0 && u.port == t[i].port &&
			   strcmp(u.userinfo, t[i].userinfo) == 0 && strcmp(u.path, t[i].path) == 0,
		   "its parts");
	}
	for (size_t i = 0; i < PT_COUNT(bad); i++)
		is_int(pt_url_parse(bad[i], &u, &err), PT_E_INVALID, "refused: '%s'", i == 14 ? "(line break)" : bad[i]);
}

static void test_masked(void)
{
	static const char *const t[][2] = {
		{ "https://u:secret@h/x", "https://u:***@h/x" },
		{ "https://u@h/x", "https://u@h/x" },
		{ "https://h:80/x@y", "https://h:80/x@y" },
		{ "http://u:se/cret@h", "http://u:***@h" },
		{ "postgresql://u:p@ss@h/db", "postgresql://u:***@h/db" },
		{ "u:secret@h:3128", "u:***@h:3128" },
		{ "nothing", "nothing" },
	};

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		pt_auto_buf b = PT_BUF_INIT(200);

		pt_url_masked(t[i][0], &b);
		is_str(b.p, t[i][1], "masked %zu", i);
	}
}

static void test_hostport(void)
{
	static const struct {
		const char *text, *host;
		unsigned port;
	} t[] = { { "a:1", "a", 1 }, { "[::]:443", "::", 443 }, { ":8080", "", 8080 }, { "127.0.0.1:0", "127.0.0.1", 0 } };
	static const char *const bad[] = { "", "a", "a:", "a:b", "::1:80", "[::1]", "a:70000", "[x]:1", "a:-1", "a:1 " };
	struct pt_err err;
	char host[256];
	unsigned port;

	for (size_t i = 0; i < PT_COUNT(t); i++)
		ok(pt_hostport_parse(t[i].text, host, &port, &err) == 0 && strcmp(host, t[i].host) == 0 && port == t[i].port,
		   "%s", t[i].text);
	for (size_t i = 0; i < PT_COUNT(bad); i++)
		is_int(pt_hostport_parse(bad[i], host, &port, &err), PT_E_INVALID, "refused: '%s'", bad[i]);
}

static void test_cidr(void)
{
	static const struct {
		const char *cidr, *addr;
		bool in;
	} t[] = {
		{ "10.0.0.0/8", "10.255.1.2", true },
		{ "10.0.0.0/8", "11.0.0.0", false },
		{ "10.0.0.0/8", "::ffff:10.1.1.1", true },
		{ "::ffff:10.0.0.0/104", "10.1.1.1", true },
		{ "::/0", "10.1.1.1", false },
		{ "0.0.0.0/0", "1.2.3.4", true },
		{ "0.0.0.0/0", "2001:db8::1", false },
		{ "0.0.0.0/0", "::ffff:1.2.3.4", true },
		{ "192.168.4.0/22", "192.168.7.255", true },
		{ "192.168.4.0/22", "192.168.8.0", false },
		{ "127.0.0.1", "127.0.0.1", true },
		{ "127.0.0.1", "127.0.0.2", false },
		{ "fe80::/10", "febf::1", true },
		{ "fe80::/10", "fec0::1", false },
		{ "2001:db8::1", "2001:db8::1", true },
		{ "169.254.169.254/32", "169.254.169.254", true },
	};
	static const char *const bad[] = { "",           "x",      "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x",
					   "10.0.0.1/8", "::/129", "10.0.0",      "1.2.3.4.5", "::1/64" };
	struct pt_cidr c;
	struct pt_err err;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		struct sockaddr_in four = { .sin_family = AF_INET };
		struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
		bool is_six = strchr(t[i].addr, ':') != NULL;

		inet_pton(is_six ? AF_INET6 : AF_INET, t[i].addr, is_six ? (void *)&six.sin6_addr : (void *)&four.sin_addr);
		is_int(pt_cidr_parse(t[i].cidr, &c, &err), 0, "%s", t[i].cidr);
		is_int(pt_cidr_has(&c, is_six ? (void *)&six : (void *)&four), t[i].in, "%s in %s", t[i].addr, t[i].cidr);
	}
	for (size_t i = 0; i < PT_COUNT(bad); i++)
		is_int(pt_cidr_parse(bad[i], &c, &err), PT_E_INVALID, "refused: '%s'", bad[i]);
}

int main(void)
{
	pt_auto_buf b = PT_BUF_INIT(100);

	test_parse();
	test_masked();
	test_hostport();
	test_cidr();
	pt_url_encode(&b, "a b/c~\xc3\xa9\0.", 10);
	is_str(b.p, "a%20b%2Fc~%C3%A9%00.", "encoded");
	return tap_end();
}
