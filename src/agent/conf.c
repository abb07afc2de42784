/* What is wrong with an agent's settings, as far as they alone can tell. */
#include "agent/agent.h"
#include "agent/stop.h"
#include "config.h"
#include "net/url.h"
#include "op/guard.h"

static int check_stop(const struct pt_agent_conf *c, struct pt_err *err)
{
	struct pt_stop_plan plan;

	return pt_stop_plan_make(&plan, c->stop_action, c->stop_timeout_ms, c->grace_s * 1000, err);
}

static int check_url(const struct pt_agent_conf *c, struct pt_err *err)
{
	struct pt_url url = { .port = 0 };
	int rc;

	if (!c->gateway_url)
		return PT_OK; /* the parser has said that it is missing */
	rc = pt_url_parse(c->gateway_url, &url, err);
	if (rc == 0 && strcmp(url.scheme, "https") != 0 && strcmp(url.scheme, "http") != 0)
		rc = pt_fail(err, PT_E_INVALID, "'%s' is neither https nor http", url.scheme);
	if (rc == 0 && *url.userinfo)
		rc = pt_fail(err, PT_E_INVALID, "it must hold no user or password");
	if (rc == 0 && strpbrk(url.path, "?#"))
		rc = pt_fail(err, PT_E_INVALID, "it must end with its host or path");
	explicit_bzero(url.userinfo, sizeof(url.userinfo));
	if (rc == 0)
		return PT_OK;
	(void)pt_err_wrap(err, rc, "--gateway-url");
	return pt_hint(err, "it looks like https://gateway.example.com; keys go into the token file");
}

static int check_ranges(const struct pt_agent_conf *c, struct pt_err *err)
{
	struct pt_guard guard = { 0 };
	int rc = pt_guard_init(&guard, c->blocked_cidrs, c->allowed_cidrs, err);

	if (rc < 0)
		return *err->hint ? rc : pt_hint(err, "write ranges as 10.0.0.0/8,192.168.1.7,fd00::/8");
	pt_guard_release(&guard);
	return PT_OK;
}

static int check_store(const struct pt_agent_conf *c, struct pt_err *err)
{
	return pt_store_conf_check(&c->store, err);
}

struct pt_http_client_conf pt_agent_http_conf(const struct pt_agent_conf *c)
{
	return (struct pt_http_client_conf) { .ca = c->ca_file && *c->ca_file ? c->ca_file : NULL,
					      .https_proxy = c->https_proxy,
					      .http_proxy = c->http_proxy,
					      .no_proxy = c->no_proxy,
					      .user_agent = "postern-agent/" PT_VERSION };
}

/* A client made once and thrown away: a bad CA file or proxy is seen. */
static int check_client(const struct pt_agent_conf *c, struct pt_err *err)
{
	struct pt_http_client_conf conf = pt_agent_http_conf(c);
	struct pt_http_client *client = NULL;
	int rc = pt_http_client_new(&client, &conf, err);

	pt_http_client_free(client);
	return rc;
}

int pt_agent_conf_check(const struct pt_agent_conf *c, pt_opt_bad_fn *bad, void *arg, struct pt_err *err)
{
	static int (*const checks[])(const struct pt_agent_conf *c, struct pt_err *err) = { check_stop, check_url, check_ranges,
											    check_store, check_client };

	for (size_t i = 0; i < PT_COUNT(checks); i++) {
		int rc = checks[i](c, err);

		if (rc < 0 && !bad)
			return rc;
		if (rc < 0) {
			bad(arg, err);
			*err = (struct pt_err) { 0 };
		}
	}
	return PT_OK;
}
