#include "base/opt_env.h"
#include "base/clock.h"
#include "config.h"
#include <ctype.h>
#include <stdio.h>

/* The text of one setting and where it came from. */
struct found {
	const char *text; /* NULL = not set */
	char source[80];  /* "flag", "environment POSTERN_SLOTS", "default" */
};
struct parse {
	const struct pt_command *cmd;
	void *conf;
	struct found *found; /* one per option */
	bool help, version, print;
	bool only_args; /* "--" was seen */
	pt_opt_bad_fn *bad; /* NULL: the first mistake ends it */
	void *arg;
};

const struct pt_command *pt_opt_root;
static const char *const std_flags[] = { "help", "version", "print-config" };

static size_t smallest(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* Damerau-Levenshtein distance (optimal string alignment); too long names are far from everything. */
static size_t distance(const char *a, const char *b)
{
	enum { MOST = 64 };
	size_t row[3][MOST + 1], n = strlen(a), m = strlen(b);
	size_t *before = row[0], *last = row[1], *now = row[2];

	if (n > MOST || m > MOST)
		return SIZE_MAX;
	for (size_t j = 0; j <= m; j++)
		last[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t *t = before;

		now[0] = i;
		for (size_t j = 1; j <= m; j++) {
			int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);

			now[j] = smallest(last[j] + 1, now[j - 1] + 1, last[j - 1] + (x != y));
			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && y == tolower((unsigned char)a[i - 2]) &&
			    before[j - 2] + 1 < now[j])
				now[j] = before[j - 2] + 1;
		}
		before = last;
		last = now;
		now = t;
	}
	return last[m];
}

const char *pt_closest(const char *s, const char *const *names, size_t n)
{
	size_t best = strlen(s) / 3;
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t d = distance(s, names[i]);

		if (d < best || (d == best && !found)) {
			best = d;
			found = names[i];
		}
	}
	return found;
}

/* Names the flag (or argument) for people. */
static void flag_text(const struct pt_opt *o, char out[static 80])
{
	if (o->flags & PT_OPT_POSITIONAL)
		snprintf(out, 80, "argument %s", o->value ? o->value : o->name);
	else
		snprintf(out, 80, "--%s", o->name);
}

/* --- text to values --- */

static int parse_bool(const char *s, bool *ret, struct pt_err *err)
{
	static const char *const words[] = { "false", "true", "no", "yes", "0", "1" };

	for (size_t i = 0; i < PT_COUNT(words); i++)
		if (strcasecmp(s, words[i]) == 0) {
			*ret = i & 1;
			return PT_OK;
		}
	return pt_fail(err, PT_E_INVALID, "'%.60s' is neither true nor false", s);
}

static int parse_int(const char *s, int64_t *ret, struct pt_err *err)
{
	const char *digits = s + (*s == '-');
	char *end = NULL;
	long long v;

	errno = 0;
	v = strtoll(s, &end, 10);
	if (!isdigit((unsigned char)*digits) || *end || errno)
		return pt_fail(err, PT_E_INVALID, "'%.60s' is not a number", s);
	*ret = v;
	return PT_OK;
}

static int parse_enum(const char *s, const char *const *values, const char **ret, struct pt_err *err)
{
	pt_auto_buf list = PT_BUF_INIT(256);

	for (const char *const *v = values; *v; v++) {
		if (strcasecmp(s, *v) == 0) {
			*ret = *v;
			return PT_OK;
		}
		pt_buf_fmt(&list, "%s%s", list.len ? ", " : "", *v);
	}
	return pt_fail(err, PT_E_INVALID, "'%.60s' is not one of %s", s, list.p);
}

/* In the unit that people write: "10m", "64M". */
static void amount_text(enum pt_opt_type type, int64_t v, char out[static 24])
{
	static const struct {
		const char *unit;
		int64_t factor;
	} times[] = { { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } },
	  sizes[] = { { "T", 1LL << 40 }, { "G", 1LL << 30 }, { "M", 1LL << 20 }, { "K", 1LL << 10 }, { "", 1 } };

	for (size_t i = 0; i < PT_COUNT(times); i++) {
		int64_t f = type == PT_OPT_DURATION ? times[i].factor : type == PT_OPT_SIZE ? sizes[i].factor : 1;

		if (v % f == 0 && (v || f == 1)) {
			snprintf(out, 24, "%lld%s", (long long)(v / f),
				 type == PT_OPT_DURATION ? times[i].unit
				 : type == PT_OPT_SIZE   ? sizes[i].unit
							 : "");
			return;
		}
	}
}

static int check_range(const struct pt_opt *o, const char *text, int64_t v, struct pt_err *err)
{
	char least[24], most[24];

	if (o->max <= o->min || (v >= o->min && v <= o->max))
		return PT_OK;
	amount_text(o->type, o->min, least);
	amount_text(o->type, o->max, most);
	return pt_fail(err, PT_E_INVALID, "%.40s is not between %s and %s", text, least, most);
}

static int set_value(const struct pt_opt *o, const char *text, void *conf, struct pt_err *err)
{
	void *p = (char *)conf + o->offset;
	int64_t v = 0;
	int rc = PT_OK;

	switch (o->type) {
	case PT_OPT_STR:
		*(const char **)p = text;
		return PT_OK;
	case PT_OPT_BOOL:
		return parse_bool(text, p, err);
	case PT_OPT_ENUM:
		return parse_enum(text, o->values, p, err);
	case PT_OPT_STRS: /* is in place since the flag was read */
		return PT_OK;
	case PT_OPT_INT:
		rc = parse_int(text, &v, err);
		break;
	case PT_OPT_DURATION:
		rc = pt_duration_parse(text, &v, err);
		break;
	case PT_OPT_SIZE:
		rc = pt_size_parse(text, &v, err);
		break;
	}
	if (rc == 0)
		rc = check_range(o, text, v, err);
	if (rc == 0)
		*(int64_t *)p = v;
	return rc;
}

static int convert(const struct pt_opt *o, const struct found *f, void *conf, struct pt_err *err)
{
	char flag[80];
	int rc = set_value(o, f->text, conf, err);

	if (rc == 0)
		return PT_OK;
	if (o->flags & PT_OPT_SECRET) /* never quote it */
		rc = pt_fail(err, PT_E_INVALID, "the value is not valid");
	flag_text(o, flag);
	if (strncmp(f->source, "environment ", 12) == 0)
		return pt_err_wrap(err, rc, "environment variable %s", f->source + 12);
	return pt_err_wrap(err, rc, "%s%s", strcmp(f->source, "default") == 0 ? "default of " : "", flag);
}

/* May a mistake in this setting be passed on, so that the others are still read? */
static bool passed_on(const struct parse *p, const struct pt_opt *o, struct pt_err *err)
{
	if (!p->bad || (o->flags & (PT_OPT_NO_ENV | PT_OPT_POSITIONAL)))
		return false;
	p->bad(p->arg, err);
	*err = (struct pt_err) { 0 };
	return true;
}

static int convert_all(const struct parse *p, void *conf, struct pt_err *err)
{
	for (size_t i = 0; i < p->cmd->n_opts; i++) {
		const struct pt_opt *o = &p->cmd->opts[i];
		int rc = p->found[i].text ? convert(o, &p->found[i], conf, err) : PT_OK;

		if (rc < 0 && !passed_on(p, o, err))
			return rc;
		if (rc < 0 && o->def)
			(void)set_value(o, o->def, conf, err); /* a default that is wrong has been said above */
	}
	return PT_OK;
}

/* --- the command line --- */

static int unknown_flag(const struct parse *p, const char *arg, size_t n, struct pt_err *err)
{
	pt_auto(pt_freep) const char **names = calloc(p->cmd->n_opts + PT_COUNT(std_flags), sizeof(*names));
	char name[80];
	const char *best;
	size_t k = 0;

	if (!names)
		return pt_fail_oom(err);
	for (size_t i = 0; i < p->cmd->n_opts; i++)
		if (!(p->cmd->opts[i].flags & (PT_OPT_POSITIONAL | PT_OPT_NO_FLAG)))
			names[k++] = p->cmd->opts[i].name;
	for (size_t i = 0; i < PT_COUNT(std_flags); i++)
		names[k++] = std_flags[i];
	snprintf(name, sizeof(name), "%.*s", (int)n, arg);
	best = strncmp(name, "--", 2) == 0 ? pt_closest(name + 2, names, k) : NULL;
	return best ? pt_fail(err, PT_E_INVALID, "unknown flag '%s'; did you mean --%s?", name, best)
		    : pt_fail(err, PT_E_INVALID, "unknown flag '%s'", name);
}

static int found_flag(struct parse *p, size_t i, const char *text, struct pt_err *err)
{
	const struct pt_opt *o = &p->cmd->opts[i];

	if (o->type == PT_OPT_STRS) {
		struct pt_opt_strs *l = (void *)((char *)p->conf + o->offset);

		if (l->n == PT_OPT_STRS_MAX)
			return pt_fail(err, PT_E_INVALID, "more than %d times '%s'", PT_OPT_STRS_MAX, o->name);
		l->v[l->n++] = text;
	}
	p->found[i].text = text;
	snprintf(p->found[i].source, sizeof(p->found[i].source), "flag");
	return PT_OK;
}

/* The value of a flag: behind "=", or the next argument, unless that is a flag too. */
static int take_value(const char *flag, const char *inline_value, int argc, char **argv, int *at, const char **ret,
		      struct pt_err *err)
{
	*ret = inline_value ? inline_value : *at + 1 < argc ? argv[*at + 1] : NULL;
	if (!*ret || (!inline_value && strncmp(*ret, "--", 2) == 0))
		return pt_fail(err, PT_E_INVALID, "%s needs a value", flag);
	*at += !inline_value;
	return PT_OK;
}

static int long_flag(struct parse *p, int argc, char **argv, int *at, struct pt_err *err)
{
	const char *arg = argv[*at], *eq = strchr(arg, '='), *text;
	size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
	char flag[80];

	if (strcmp(arg, "--print-config") == 0) {
		p->print = true;
		return PT_OK;
	}
	for (size_t i = 0; i < p->cmd->n_opts; i++) {
		const struct pt_opt *o = &p->cmd->opts[i];

		if (o->flags & (PT_OPT_POSITIONAL | PT_OPT_NO_FLAG))
			continue;
		flag_text(o, flag);
		if (strlen(flag) == n && memcmp(flag, arg, n) == 0) {
			if (o->type == PT_OPT_BOOL)
				return found_flag(p, i, eq ? eq + 1 : "true", err);
			if (take_value(flag, eq ? eq + 1 : NULL, argc, argv, at, &text, err) < 0)
				return PT_E_INVALID;
			return found_flag(p, i, text, err);
		}
		if (o->type == PT_OPT_BOOL && !eq && strncmp(arg, "--no-", 5) == 0 && strcmp(arg + 5, o->name) == 0)
			return found_flag(p, i, "false", err);
	}
	return unknown_flag(p, arg, n, err);
}

static int short_flag(struct parse *p, int argc, char **argv, int *at, struct pt_err *err)
{
	const char *arg = argv[*at], *text;
	char flag[3] = { '-', arg[1], '\0' };

	for (size_t i = 0; i < p->cmd->n_opts; i++) {
		const struct pt_opt *o = &p->cmd->opts[i];

		if (o->letter != arg[1])
			continue;
		if (o->type == PT_OPT_BOOL && !arg[2])
			return found_flag(p, i, "true", err);
		if (o->type == PT_OPT_BOOL)
			break; /* no bundles of letters: they would need an explanation */
		if (take_value(flag, arg[2] ? arg + 2 : NULL, argc, argv, at, &text, err) < 0)
			return PT_E_INVALID;
		return found_flag(p, i, text, err);
	}
	if (strcmp(arg, "-h") == 0) {
		p->help = true;
		return PT_OK;
	}
	return unknown_flag(p, arg, strlen(arg), err);
}

static int argument(struct parse *p, const char *arg, struct pt_err *err)
{
	const char *names[64], *best;
	size_t n = 0;

	for (size_t i = 0; i < p->cmd->n_opts; i++)
		if ((p->cmd->opts[i].flags & PT_OPT_POSITIONAL) && (!p->found[i].text || p->cmd->opts[i].type == PT_OPT_STRS))
			return found_flag(p, i, arg, err);
	for (const struct pt_command *s = p->cmd->sub; s && s->name && n < PT_COUNT(names); s++) {
		const char *word = strrchr(s->name, ' ');

		names[n++] = word ? word + 1 : s->name;
	}
	best = pt_closest(arg, names, n);
	return best ? pt_fail(err, PT_E_INVALID, "unexpected argument '%.60s'; did you mean '%s'?", arg, best)
		    : pt_fail(err, PT_E_INVALID, "unexpected argument '%.60s'", arg);
}

static int command_line(struct parse *p, int argc, char **argv, struct pt_err *err)
{
	/* Someone who asks for help gets it, whatever else is on the line. */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		p->help |= strcmp(argv[i], "--help") == 0;
		p->version |= strcmp(argv[i], "--version") == 0;
	}
	for (int i = 1; i < argc && !p->help && !p->version; i++) {
		const char *arg = argv[i];
		int rc;

		if (!p->only_args && strcmp(arg, "--") == 0) {
			p->only_args = true;
			continue;
		}
		if (p->only_args || arg[0] != '-' || !arg[1]) /* "-" alone is standard input */
			rc = argument(p, arg, err);
		else
			rc = arg[1] == '-' ? long_flag(p, argc, argv, &i, err) : short_flag(p, argc, argv, &i, err);
		if (rc < 0)
			return rc;
	}
	return PT_OK;
}

/* --- print-config --- */

void pt_opt_masked(const char *value, struct pt_buf *out)
{
	const char *scheme = strstr(value, "://"), *at = scheme ? strrchr(scheme, '@') : NULL;
	const char *colon = at ? memchr(scheme + 3, ':', (size_t)(at - scheme - 3)) : NULL, *key;

	/* Up to the last '@': a password with a '/' in it is hidden whole. */
	if (colon) {
		pt_buf_add(out, value, (size_t)(colon + 1 - value));
		pt_buf_str(out, "****");
		value = at;
	}
	while ((key = strcasestr(value, "password="))) {
		pt_buf_add(out, value, (size_t)(key + 9 - value));
		pt_buf_str(out, "****");
		value = key + 9 + strcspn(key + 9, "& ");
	}
	pt_buf_str(out, value);
}

static void print_config(const struct parse *p, struct pt_buf *out)
{
	size_t name_width = 4, value_width = 5, n = p->cmd->n_opts;

	/* Twice over the rows: the widths first, then the text. */
	for (int pass = 0; pass < 2; pass++) {
		if (pass)
			pt_buf_fmt(out, "%-*s  %-*s  %s\n", (int)name_width, "NAME", (int)value_width, "VALUE", "SOURCE");
		for (size_t i = 0; i < n; i++) {
			const struct pt_opt *o = &p->cmd->opts[i];
			const struct found *f = &p->found[i];
			pt_auto_buf v = PT_BUF_INIT(8192);

			if (f->text && (o->flags & PT_OPT_SECRET))
				pt_buf_str(&v, "****");
			else if (f->text)
				pt_opt_masked(f->text, &v);
			else
				pt_buf_str(&v, "-");
			if (pass) {
				pt_buf_fmt(out, "%-*s  %-*s  %s\n", (int)name_width, o->name, (int)value_width, v.p,
					   f->text ? f->source : "not set");
				continue;
			}
			name_width = strlen(o->name) > name_width ? strlen(o->name) : name_width;
			value_width = v.len > value_width ? v.len : value_width;
		}
	}
}

/* --- all together --- */

static int answer(struct pt_buf *out, struct pt_err *err)
{
	int rc = pt_buf_done(out, err);

	if (rc < 0)
		return rc;
	if (fwrite(out->p, 1, out->len, stdout) != out->len || fflush(stdout) != 0)
		return pt_fail_sys(err, PT_E_IO, "write to standard output");
	return 1;
}

static void from_env_and_defaults(struct parse *p)
{
	for (size_t i = 0; i < p->cmd->n_opts; i++) {
		const struct pt_opt *o = &p->cmd->opts[i];
		struct found *f = &p->found[i];
		char name[64];

		if (f->text)
			continue;
		f->text = pt_opt_env_get(o, name);
		if (f->text) {
			snprintf(f->source, sizeof(f->source), "environment %s", name);
		} else if (o->def) {
			f->text = o->def;
			snprintf(f->source, sizeof(f->source), "default");
		}
	}
}

static int required(const struct parse *p, struct pt_err *err)
{
	for (size_t i = 0; i < p->cmd->n_opts; i++) {
		const struct pt_opt *o = &p->cmd->opts[i];
		char flag[80], name[64];

		if (!(o->flags & PT_OPT_REQUIRED) || (p->found[i].text && *p->found[i].text))
			continue;
		flag_text(o, flag);
		pt_opt_env_name(o, name);
		(void)(*name ? pt_fail(err, PT_E_INVALID, "%s is missing (or environment variable %s)", flag, name)
			     : pt_fail(err, PT_E_INVALID, "%s is missing", flag));
		if (!passed_on(p, o, err))
			return PT_E_INVALID;
	}
	return PT_OK;
}

static int parse_all(struct parse *p, const struct pt_command *all, int argc, char **argv, void *conf, struct pt_err *err)
{
	pt_auto_buf out = PT_BUF_INIT(1 << 20);
	int rc = command_line(p, argc, argv, err);

	if (rc < 0)
		return rc;
	if (p->help)
		pt_opt_help(p->cmd, &out);
	else if (p->version)
		pt_buf_str(&out, "postern " PT_VERSION "\n");
	if (p->help || p->version)
		return answer(&out, err);
	rc = pt_opt_env_check(all ? all : p->cmd, p->bad, p->arg, err);
	if (rc == 0)
		from_env_and_defaults(p);
	if (rc == 0)
		rc = convert_all(p, conf, err);
	if (rc == 0 && p->print) {
		print_config(p, &out);
		return answer(&out, err);
	}
	return rc < 0 ? rc : required(p, err);
}

int pt_opt_parse(const struct pt_command *all, const struct pt_command *cmd, int argc, char **argv, void *conf,
		 struct pt_err *err)
{
	return pt_opt_parse_each(all, cmd, argc, argv, conf, NULL, NULL, err);
}

int pt_opt_parse_each(const struct pt_command *all, const struct pt_command *cmd, int argc, char **argv, void *conf,
		      pt_opt_bad_fn *bad, void *arg, struct pt_err *err)
{
	pt_auto(pt_freep) struct found *found = calloc(cmd->n_opts ? cmd->n_opts : 1, sizeof(*found));
	struct parse p = { .cmd = cmd, .conf = conf, .found = found, .bad = bad, .arg = arg };
	int rc;

	if (!found)
		return pt_fail_oom(err);
	rc = parse_all(&p, all, argc, argv, conf, err);
	if (rc < 0 && err && !*err->hint)
		(void)pt_hint(err, "see '%s%s --help'", strncmp(cmd->name, "postern", 7) == 0 ? "" : "postern ", cmd->name);
	return rc;
}
