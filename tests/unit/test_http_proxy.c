/* The HTTP client behind a real proxy (tinyproxy, skipped when absent), and past it by NO_PROXY. */
#include "http_client_test.h"

struct proxy {
	pid_t pid;
	unsigned port;
	char log[200];
};

static bool proxy_start(struct proxy *p, const char *name, const char *auth)
{
	char conf[200];
	FILE *f;

	p->port = free_port();
	snprintf(conf, sizeof(conf), "%s/%s.conf", dir, name);
	snprintf(p->log, sizeof(p->log), "%s/%s.log", dir, name);
	f = fopen(conf, "we");
	fprintf(f, "Port %u\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Connect\nLogFile \"%s\"\nAllow 127.0.0.1\n",
		p->port, p->log);
	fprintf(f, "ConnectPort %u\n%s", tls_port, auth);
	fclose(f);
	p->pid = fork();
	if (p->pid == 0) {
		execlp("tinyproxy", "tinyproxy", "-d", "-c", conf, (char *)NULL);
		_exit(127);
	}
	return wait_until(5000, ({
				  int fd = dial(p->port);

				  if (fd >= 0)
					  close(fd);
				  fd >= 0 || waitpid(p->pid, NULL, WNOHANG) == p->pid;
			  })) &&
	       kill(p->pid, 0) == 0;
}

static void proxy_stop(struct proxy *p)
{
	kill(p->pid, SIGTERM);
	waitpid(p->pid, NULL, 0);
}

static bool logged(const struct proxy *p, const char *text)
{
	return wait_until(2000, sh("grep -qF '%s' %s", text, p->log) == 0);
}

static void test_proxy(void)
{
	struct proxy open, shut;
	char ca[200], at[200], connect[100], get[100];
	struct pt_err err = { 0 };
	struct pt_http_client *c;
	struct pt_http_client_conf conf = { .ca = ca };
	static const struct {
		const char *no_proxy, *host;
		bool direct;
	} t[] = {
		{ "127.0.0.1", "127.0.0.1", true },
		{ "127.0.0.0/8", "127.0.0.1", true },
		{ "10.0.0.0/8, 127.0.0.0/8", "127.0.0.1", true },
		{ "10.0.0.0/8", "127.0.0.1", false },
		{ "localhost", "localhost", true },
		{ "LOCALHOST", "localhost", true },
		{ "*", "localhost", true },
		{ "example.com,*", "localhost", true },
		{ ".localhost", "a.localhost", true },
		{ "*.localhost", "a.localhost", true },
		{ "localhost", "a.localhost", true },
		{ "ocalhost", "localhost", false },
		{ "127.0.0.0/8", "localhost", false },
		{ "", "localhost", false },
	};

	snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
	if (sh("command -v tinyproxy >/dev/null") != 0) {
		ok(1, "proxies # SKIP tinyproxy is not installed");
		return;
	}
	ok(proxy_start(&open, "open", "") && proxy_start(&shut, "shut", "BasicAuth ada s3cret\n"), "proxies started");
	snprintf(connect, sizeof(connect), "CONNECT localhost:%u", tls_port);
	snprintf(get, sizeof(get), "GET http://localhost:%u/echo", port);
	snprintf(at, sizeof(at), "http://127.0.0.1:%u", open.port);
	conf.http_proxy = conf.https_proxy = at;
	c = client(&conf);
	struct pt_http_call call = { .method = "GET", .url = url("http://localhost:%u/echo", port) };
	is_int(pt_http_do(c, &call, &err), 0, "http through the proxy");
	ok(call.status == 200 && logged(&open, get), "seen in the proxy's log");
	call.url = url("https://localhost:%u/echo", tls_port);
	is_int(pt_http_do(c, &call, &err), 0, "https through the proxy");
	ok(call.status == 200 && logged(&open, connect), "seen in the proxy's log");
	call.url = url("https://localhost:%u/echo", port); /* a port that the proxy does not allow */
	is_int(pt_http_do(c, &call, &err), PT_E_PROXY, "CONNECT refused: %s", err.msg);
	is_str(err.native, "403", "with the proxy's status");
	pt_http_client_free(c);
	/* with a login */
	for (int i = 0; i < 3; i++) {
		static const char *const login[] = { "ada:s3cret@", "", "ada:wr0ng@" };

		for (int tls = 0; tls < 2; tls++) {
			snprintf(at, sizeof(at), "http://%s127.0.0.1:%u", login[i], shut.port);
			c = client(&conf);
			call.url = tls ? url("https://localhost:%u/echo", tls_port) : url("http://localhost:%u/echo", port);
			if (i == 2 && !tls) {
				/* tinyproxy answers a plain request's wrong password with 401, as if it were the server */
				is_int(pt_http_do(c, &call, &err), 0, "wrong password, http");
				is_int(pt_http_error_of(&call, call.out, &err), PT_E_PROXY, "it is the proxy's: %s", err.msg);
				ok(strstr(err.hint, "HTTP_PROXY"), "the hint: %s", err.hint);
				pt_http_client_free(c);
				continue;
			}
			is_int(pt_http_do(c, &call, &err), i ? PT_E_PROXY : 0, "login '%s', %s", login[i],
			       tls ? "https" : "http");
			if (i) {
				ok(strcmp(err.native, "407") == 0 || strcmp(err.native, "401") == 0, "status %s", err.native);
				ok(strstr(err.hint, "user:password") || strcmp(err.native, "401") == 0, "the hint: %s", err.hint);
				ok(!strstr(err.msg, "wr0ng") && !strstr(err.hint, "wr0ng"), "no password in the error");
			}
			pt_http_client_free(c);
		}
	}
	ok(logged(&shut, connect) && logged(&shut, get), "seen in the proxy's log");
	/* no proxy there */
	snprintf(at, sizeof(at), "http://ada:s3cret@127.0.0.1:%u", free_port());
	c = client(&conf);
	for (int tls = 0; tls < 2; tls++) {
		call.url = tls ? url("https://localhost:%u/echo", tls_port) : url("http://localhost:%u/echo", port);
		is_int(pt_http_do(c, &call, &err), PT_E_PROXY, "the proxy does not answer: %s", err.msg);
		ok(!strstr(err.msg, "s3cret"), "no password in the message");
	}
	pt_http_client_free(c);
	snprintf(at, sizeof(at), "http://no-such-proxy.invalid:3128");
	c = client(&conf);
	is_int(pt_http_do(c, &call, &err), PT_E_PROXY, "unknown proxy: %s", err.msg);
	pt_http_client_free(c);
	/* NO_PROXY, told by a proxy that is not there */
	snprintf(at, sizeof(at), "http://127.0.0.1:%u", free_port());
	for (size_t i = 0; i < PT_COUNT(t); i++) {
		conf.no_proxy = t[i].no_proxy;
		c = client(&conf);
		call.url = url("http://%s:%u/echo", t[i].host, port);
		is_int(pt_http_do(c, &call, &err), t[i].direct ? 0 : PT_E_PROXY, "NO_PROXY '%s', host %s", t[i].no_proxy,
		       t[i].host);
		pt_http_client_free(c);
	}
	/* the environment is not read */
	setenv("http_proxy", at, 1);
	setenv("HTTPS_PROXY", at, 1);
	setenv("all_proxy", at, 1);
	c = client(&(struct pt_http_client_conf) { .ca = ca });
	call.url = url("http://localhost:%u/echo", port);
	is_int(pt_http_do(c, &call, &err), 0, "the environment's http_proxy is not used");
	call.url = url("https://localhost:%u/echo", tls_port);
	is_int(pt_http_do(c, &call, &err), 0, "nor HTTPS_PROXY");
	pt_http_client_free(c);
	unsetenv("http_proxy");
	unsetenv("HTTPS_PROXY");
	unsetenv("all_proxy");
	setenv("no_proxy", "*", 1);
	conf.no_proxy = NULL;
	c = client(&conf);
	is_int(pt_http_do(c, &call, &err), PT_E_PROXY, "nor no_proxy");
	pt_http_client_free(c);
	unsetenv("no_proxy");
	c = NULL;
	conf.https_proxy = "gopher://x:1";
	is_int(pt_http_client_new(&c, &conf, &err), PT_E_INVALID, "a proxy with a strange scheme");
	proxy_stop(&open);
	proxy_stop(&shut);
}

int main(void)
{
	dir = temp_dir();
	signal(SIGPIPE, SIG_IGN);
	ok(make_certs(dir), "certificates made");
	srv = serve(false, &port);
	tls_srv = serve(true, &tls_port);
	test_proxy();
	pt_http_server_stop(srv, 2000);
	pt_http_server_stop(tls_srv, 2000);
	sh("rm -rf %s", dir);
	return tap_end();
}
