#include "base/opt_env.h"
#include <ctype.h>
#include <stdio.h>

#define PREFIX "POSTERN_"
enum { PREFIX_LEN = sizeof(PREFIX) - 1 };

void pt_opt_env_name(const struct pt_opt *o, char out[static 64])
{
	int n;

	if (o->flags & (PT_OPT_NO_ENV | PT_OPT_POSITIONAL)) {
		*out = '\0';
		return;
	}
	n = o->flags & PT_OPT_STD_ENV ? snprintf(out, 64, "%s", o->env) : snprintf(out, 64, PREFIX "%s", o->name);
	pt_assert(n > 0 && n < 64);
	if (!(o->flags & PT_OPT_STD_ENV))
		for (char *p = out; *p; p++)
			*p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
}

static bool starts(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static bool ends(const char *s, size_t n, const char *with)
{
	size_t w = strlen(with);

	return n >= w && memcmp(s + n - w, with, w) == 0;
}

/* "…_PORT_8080_TCP", "…_PORT_8080_TCP_ADDR" */
static bool port_name(const char *name, size_t n)
{
	static const char *const tails[] = { "_PROTO", "_PORT", "_ADDR" }, *const protos[] = { "_TCP", "_UDP", "_SCTP" };
	size_t end = n;

	for (size_t i = 0; i < PT_COUNT(tails); i++)
		if (ends(name, n, tails[i])) {
			end = n - strlen(tails[i]);
			break;
		}
	for (size_t i = 0; i < PT_COUNT(protos); i++)
		if (ends(name, end, protos[i])) {
			size_t digits = end - strlen(protos[i]), at = digits;

			while (at && isdigit((unsigned char)name[at - 1]))
				at--;
			return at < digits && ends(name, at, "_PORT_");
		}
	return false;
}

/* A pod gets such names for every Service of its namespace ("postern-gateway" makes POSTERN_GATEWAY_PORT=tcp://…). */
static bool made_by_kubernetes(const char *name, size_t n, const char *value)
{
	return ends(name, n, "_SERVICE_HOST") || ends(name, n, "_SERVICE_PORT") || memmem(name, n, "_SERVICE_PORT_", 14) ||
	       (ends(name, n, "_PORT") && (starts(value, "tcp://") || starts(value, "udp://") || starts(value, "sctp://"))) ||
	       port_name(name, n);
}

const char *pt_opt_env_get(const struct pt_opt *o, char name[static 64])
{
	const char *v;

	pt_opt_env_name(o, name);
	if (!*name)
		return NULL;
	v = getenv(name);
	if (v && *v && !made_by_kubernetes(name, strlen(name), v))
		return v;
	if (!o->env)
		return NULL;
	snprintf(name, 64, "%s", o->env);
	if (o->flags & PT_OPT_STD_ENV)
		for (char *p = name; *p; p++)
			*p = (char)tolower((unsigned char)*p);
	v = getenv(name);
	return v && *v ? v : NULL;
}

/* Call fn for each name that starts with our prefix, of cmd and everything below it, until fn says true. */
static bool each_name(const struct pt_command *cmd, bool (*fn)(const char *name, void *arg), void *arg)
{
	char name[64];

	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct pt_opt *o = &cmd->opts[i];

		pt_opt_env_name(o, name);
		if (starts(name, PREFIX) && fn(name, arg))
			return true;
		if (o->env && starts(o->env, PREFIX) && fn(o->env, arg))
			return true;
	}
	for (const struct pt_command *s = cmd->sub; s && s->name; s++)
		if (each_name(s, fn, arg))
			return true;
	return false;
}

static bool same(const char *name, void *arg)
{
	return strcmp(name, arg) == 0;
}

struct nearest {
	const char *want;
	struct pt_list seen; /* of char *: names without the prefix, owned */
};

static bool collect(const char *name, void *arg)
{
	struct nearest *n = arg;
	char *copy = strdup(name + PREFIX_LEN);
	struct pt_err ignored; /* without memory there is no suggestion, and that is all */

	if (copy && pt_list_append(&n->seen, sizeof(copy), &copy, &ignored) < 0)
		free(copy);
	return false;
}

static int unknown(const struct pt_command *all, const char *name, struct pt_err *err)
{
	struct nearest n = { .want = name + PREFIX_LEN };
	const char *best;
	int rc;

	(void)each_name(all, collect, &n); /* collect() never stops it */
	best = pt_closest(n.want, (const char *const *)n.seen.items, n.seen.n);
	rc = best ? pt_fail(err, PT_E_INVALID, "unknown environment variable %s; did you mean " PREFIX "%s?", name, best)
		  : pt_fail(err, PT_E_INVALID, "unknown environment variable %s", name);
	for (size_t i = 0; i < n.seen.n; i++)
		free(((char **)n.seen.items)[i]);
	free(n.seen.items);
	(void)pt_hint(err, "remove it, or correct its name; 'postern help' lists the commands and their settings");
	return rc;
}

int pt_opt_env_check(const struct pt_command *all, pt_opt_bad_fn *bad, void *arg, struct pt_err *err)
{
	for (char **e = environ; e && *e; e++) {
		const char *eq = strchr(*e, '=');
		size_t n = eq ? (size_t)(eq - *e) : 0;
		char name[200];

		if (!eq || !eq[1] || !starts(*e, PREFIX) || starts(*e, PREFIX "CREDENTIAL_") || made_by_kubernetes(*e, n, eq + 1))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)n, *e);
		if (each_name(all, same, name))
			continue;
		(void)unknown(all, name, err);
		if (!bad)
			return PT_E_INVALID;
		bad(arg, err);
		*err = (struct pt_err) { 0 };
	}
	return PT_OK;
}
