/* Texts made from config tables: --help and the manual page. */
#include "base/opt.h"
#include "base/clock.h"
#include "config.h"
#include <ctype.h>
#include <time.h>

enum { WIDTH = 100, MAN_WIDTH = 78, LEFT_MAX = 36 };

static const struct pt_opt std_opts[] = {
	{ .name = "help", .type = PT_OPT_BOOL, .flags = PT_OPT_NO_ENV, .help = "Show this help.", .letter = 'h' },
	{ .name = "version", .type = PT_OPT_BOOL, .flags = PT_OPT_NO_ENV, .help = "Show the version." },
	{ .name = "print-config",
	  .type = PT_OPT_BOOL,
	  .flags = PT_OPT_NO_ENV,
	  .help = "Show every setting with its value and where it came from; secrets are masked." },
};

/* "URL", "json|plain|dev"; "" for a flag without a value. */
static void placeholder(const struct pt_opt *o, struct pt_buf *b)
{
	static const char *const by_type[] = { [PT_OPT_STR] = "TEXT",
					       [PT_OPT_STRS] = "TEXT",
					       [PT_OPT_INT] = "N",
					       [PT_OPT_DURATION] = "TIME",
					       [PT_OPT_SIZE] = "SIZE" };

	if (o->value)
		pt_buf_str(b, o->value);
	else if (o->type == PT_OPT_ENUM)
		for (const char *const *v = o->values; *v; v++)
			pt_buf_fmt(b, "%s%s", v == o->values ? "" : "|", *v);
	else if (o->type != PT_OPT_BOOL)
		pt_buf_str(b, by_type[o->type]);
}

/* A command's words as typed: "postern agent". */
static void full_name(const struct pt_command *cmd, struct pt_buf *b)
{
	bool root = !cmd->name || !*cmd->name || strcmp(cmd->name, "postern") == 0;

	pt_buf_fmt(b, "postern%s%s", root ? "" : " ", root ? "" : cmd->name);
}

static const char *last_word(const char *name)
{
	const char *space = strrchr(name, ' ');

	return space ? space + 1 : name;
}

/* --- help --- */

/* Text broken into lines of at most WIDTH, all but the first behind indent spaces; the first one starts at column at. */
static void wrapped(struct pt_buf *b, const char *text, size_t at, size_t indent)
{
	size_t col = at;
	bool first = true;

	while (*(text += strspn(text, " \n"))) {
		size_t n = strcspn(text, " \n");

		if (!first && col + 1 + n > WIDTH) {
			pt_buf_fmt(b, "\n%*s", (int)indent, "");
			col = indent;
			first = true;
		}
		pt_buf_fmt(b, "%s%.*s", first ? "" : " ", (int)n, text);
		col += n + !first;
		first = false;
		text += n;
	}
	pt_buf_chr(b, '\n');
}

static void left_column(const struct pt_opt *o, struct pt_buf *b)
{
	pt_auto_buf value = PT_BUF_INIT(512);

	placeholder(o, &value);
	if (o->flags & PT_OPT_POSITIONAL) {
		pt_buf_fmt(b, "  %s", o->value ? o->value : o->name);
	} else if (o->flags & PT_OPT_NO_FLAG) {
		char env[64];

		pt_opt_env_name(o, env);
		pt_buf_fmt(b, "      %s", env);
	} else if (o->letter)
		pt_buf_fmt(b, "  -%c, --%s%s%s", o->letter, o->name, value.len ? " " : "", value.p);
	else
		pt_buf_fmt(b, "      --%s%s%s", o->name, value.len ? " " : "", value.p);
}

static void right_column(const struct pt_opt *o, struct pt_buf *b)
{
	char env[64];

	pt_opt_env_name(o, env);
	pt_buf_str(b, o->help ? o->help : "");
	if (b->len && !strchr(".!?", b->p[b->len - 1]))
		pt_buf_chr(b, '.');
	if (o->flags & PT_OPT_REQUIRED)
		pt_buf_str(b, " Required.");
	if (o->def && o->type != PT_OPT_BOOL)
		pt_buf_fmt(b, " Default: %s.", o->def);
	else if (o->def && strcmp(o->def, "true") == 0)
		pt_buf_fmt(b, " On by default: --no-%s turns it off.", o->name);
	if (o->type == PT_OPT_STRS)
		pt_buf_str(b, " May be given several times.");
	if (*env && !(o->flags & PT_OPT_NO_FLAG))
		pt_buf_fmt(b, " [%s]", env);
}

static void help_rows(const struct pt_opt *opts, size_t n, bool positional, size_t left, struct pt_buf *out)
{
	for (size_t i = 0; i < n; i++) {
		pt_auto_buf a = PT_BUF_INIT(1024);
		pt_auto_buf text = PT_BUF_INIT(8192);

		if (positional != !!(opts[i].flags & PT_OPT_POSITIONAL))
			continue;
		left_column(&opts[i], &a);
		right_column(&opts[i], &text);
		if (a.len + 2 > left)
			pt_buf_fmt(out, "%s\n%*s", a.p, (int)left, "");
		else
			pt_buf_fmt(out, "%-*s", (int)left, a.p);
		wrapped(out, text.p, left, left);
	}
}

/* Width of the left column: the longest that is not too long. */
static size_t left_width(const struct pt_opt *opts, size_t n)
{
	size_t width = sizeof("      --print-config") + 1;

	for (size_t i = 0; i < n; i++) {
		pt_auto_buf a = PT_BUF_INIT(1024);

		left_column(&opts[i], &a);
		if (a.len + 2 > width && a.len + 2 <= LEFT_MAX)
			width = a.len + 2;
	}
	return width;
}

static bool has_positional(const struct pt_command *cmd)
{
	for (size_t i = 0; i < cmd->n_opts; i++)
		if (cmd->opts[i].flags & PT_OPT_POSITIONAL)
			return true;
	return false;
}

/* Running text is wrapped; lines that begin with a space (examples) and empty ones stay as they are. */
static void paragraphs(struct pt_buf *out, const char *text)
{
	while (*text) {
		pt_auto_buf part = PT_BUF_INIT(64 * 1024);

		for (; *text && *text != '\n' && *text != ' '; text += *text == '\n') {
			size_t n = strcspn(text, "\n");

			pt_buf_add(&part, text, n);
			pt_buf_chr(&part, ' ');
			text += n;
		}
		if (part.len) {
			wrapped(out, part.p, 0, 0);
			continue;
		}
		pt_buf_add(out, text, strcspn(text, "\n"));
		pt_buf_chr(out, '\n');
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
}

void pt_opt_help(const struct pt_command *cmd, struct pt_buf *out)
{
	size_t left = left_width(cmd->opts, cmd->n_opts);

	pt_buf_str(out, "Usage: ");
	full_name(cmd, out);
	pt_buf_str(out, !cmd->sub ? " [OPTIONS]" : cmd->run ? " [COMMAND] [OPTIONS]" : " COMMAND [OPTIONS]");
	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct pt_opt *o = &cmd->opts[i];

		if (o->flags & PT_OPT_POSITIONAL)
			pt_buf_fmt(out, o->flags & PT_OPT_REQUIRED ? " %s" : " [%s]", o->value ? o->value : o->name);
	}
	pt_buf_str(out, "\n\n");
	wrapped(out, cmd->summary ? cmd->summary : "", 0, 0);
	if (cmd->sub) {
		size_t width = 0;

		for (const struct pt_command *s = cmd->sub; s->name; s++)
			width = strlen(last_word(s->name)) > width ? strlen(last_word(s->name)) : width;
		pt_buf_str(out, "\nCommands:\n");
		for (const struct pt_command *s = cmd->sub; s->name; s++) {
			pt_buf_fmt(out, "  %-*s  ", (int)width, last_word(s->name));
			wrapped(out, s->summary ? s->summary : "", width + 4, width + 4);
		}
	}
	if (has_positional(cmd)) {
		pt_buf_str(out, "\nArguments:\n");
		help_rows(cmd->opts, cmd->n_opts, true, left, out);
	}
	pt_buf_str(out, "\nOptions:\n");
	help_rows(cmd->opts, cmd->n_opts, false, left, out);
	help_rows(std_opts, PT_COUNT(std_opts), false, left, out);
	if (cmd->text) {
		pt_buf_chr(out, '\n');
		paragraphs(out, cmd->text);
	}
}

/* --- the manual page --- */

/* Characters that mean something to roff.  In the argument of a macro a quote would too. */
static void roff_chars(struct pt_buf *b, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\\')
			pt_buf_str(b, "\\e");
		else if (s[i] == '-')
			pt_buf_str(b, "\\-");
		else if (s[i] == '"')
			pt_buf_str(b, "\\(dq");
		else
			pt_buf_chr(b, s[i]);
	}
}

/* One argument of a macro line, never read as a macro's name. */
static void roff_arg(struct pt_buf *b, const char *s)
{
	pt_buf_str(b, " \"\\&");
	roff_chars(b, s, strlen(s));
	pt_buf_chr(b, '"');
}

/* Running text: wrapped, each sentence on a new line, no line taken for a request. */
static void roff_text(struct pt_buf *b, const char *text)
{
	size_t col = 0;

	while (*(text += strspn(text, " \n"))) {
		size_t n = strcspn(text, " \n");

		if (col && col + 1 + n > MAN_WIDTH) {
			pt_buf_chr(b, '\n');
			col = 0;
		}
		if (col)
			pt_buf_chr(b, ' ');
		else if (*text == '.' || *text == '\'')
			pt_buf_str(b, "\\&");
		roff_chars(b, text, n);
		col += n + 1;
		text += n;
		if (strchr(".!?", text[-1])) {
			pt_buf_chr(b, '\n');
			col = 0;
		}
	}
	if (col)
		pt_buf_chr(b, '\n');
}

/* Paragraphs, separated by empty lines; lines that begin with a space are shown as they are. */
static void roff_paragraphs(struct pt_buf *b, const char *text)
{
	while (*(text += strspn(text, "\n"))) {
		bool literal = *text == ' ';
		pt_auto_buf part = PT_BUF_INIT(64 * 1024);

		pt_buf_str(b, literal ? ".Bd -literal -offset indent\n" : ".Pp\n");
		while (*text && *text != '\n' && (*text == ' ') == literal) {
			size_t n = strcspn(text, "\n");

			if (literal) {
				size_t skip = strspn(text, " ") < 4 ? strspn(text, " ") : 4;

				if (text[skip] == '.' || text[skip] == '\'')
					pt_buf_str(b, "\\&");
				roff_chars(b, text + skip, n - skip);
				pt_buf_chr(b, '\n');
			} else {
				pt_buf_add(&part, text, n);
				pt_buf_chr(&part, '\n');
			}
			text += n + (text[n] == '\n');
		}
		if (literal)
			pt_buf_str(b, ".Ed\n");
		else
			roff_text(b, part.p);
	}
}

static void man_date(struct pt_buf *b)
{
	const char *epoch = getenv("SOURCE_DATE_EPOCH"); /* reproducible-builds.org: the packager's date */
	time_t t = epoch && *epoch ? (time_t)strtoll(epoch, NULL, 10) : (time_t)(pt_wall_ms() / 1000);
	struct tm tm;
	char month[16];

	if (!gmtime_r(&t, &tm) || !strftime(month, sizeof(month), "%B", &tm))
		return;
	pt_buf_fmt(b, ".Dd %s %d, %d\n", month, tm.tm_mday, tm.tm_year + 1900);
}

static void man_flag(const struct pt_opt *o, bool value, struct pt_buf *b)
{
	pt_auto_buf v = PT_BUF_INIT(512);

	if (o->flags & PT_OPT_POSITIONAL) {
		pt_buf_str(b, " Ar");
		roff_arg(b, o->value ? o->value : o->name);
		return;
	}
	pt_buf_str(b, " Fl Fl ");
	roff_chars(b, o->name, strlen(o->name));
	placeholder(o, &v);
	if (value && v.len) {
		pt_buf_str(b, " Ar");
		roff_arg(b, v.p);
	}
}

static void man_options(const struct pt_opt *opts, size_t n, struct pt_buf *b)
{
	for (size_t i = 0; i < n; i++) {
		pt_auto_buf text = PT_BUF_INIT(8192);

		if (opts[i].flags & PT_OPT_NO_FLAG)
			continue;
		pt_buf_str(b, ".It");
		if (opts[i].letter)
			pt_buf_fmt(b, " Fl %c ,", opts[i].letter);
		man_flag(&opts[i], true, b);
		pt_buf_chr(b, '\n');
		right_column(&opts[i], &text);
		roff_text(b, text.p);
	}
}

static void man_environment(const struct pt_command *cmd, struct pt_buf *b)
{
	bool any = false;

	for (size_t i = 0; i < cmd->n_opts; i++) {
		const struct pt_opt *o = &cmd->opts[i];
		char env[64];

		pt_opt_env_name(o, env);
		if (!*env)
			continue;
		if (!any)
			pt_buf_str(b, ".Sh ENVIRONMENT\n"
				      "A flag counts more than its variable, and an empty variable counts as not set.\n"
				      ".Bl -tag -width Ds\n");
		any = true;
		pt_buf_fmt(b, ".It Ev %s\n", env);
		if (o->env && !(o->flags & PT_OPT_STD_ENV))
			pt_buf_fmt(b, "Also read as\n.Ev %s .\n", o->env);
		if (o->flags & PT_OPT_NO_FLAG) {
			pt_auto_buf text = PT_BUF_INIT(8192);

			right_column(o, &text);
			roff_text(b, text.p);
			continue;
		}
		pt_buf_str(b, "Same as\n.");
		man_flag(o, false, b);
		pt_buf_str(b, " .\n");
	}
	if (any)
		pt_buf_str(b, ".El\n");
}

static void man_exit_status(struct pt_buf *b)
{
	static const struct {
		const char *wire;
		int exit;
	} codes[] = {
#define X(n, wire, http, ex, retry) { wire, ex },
		PT_ERR_MAP(X)
#undef X
	};

	pt_buf_str(b, ".Sh EXIT STATUS\nThe program exits with 0 when it has done what was asked, with 1 when\n"
		      "a check failed, otherwise with the number of the error:\n.Bl -tag -width Ds\n");
	for (int ex = 64; ex < 79; ex++) {
		bool any = false;

		for (size_t i = 0; i < PT_COUNT(codes); i++)
			if (codes[i].exit == ex) {
				if (!any)
					pt_buf_fmt(b, ".It %d\n", ex);
				pt_buf_fmt(b, "%s%s", any ? ",\n" : "", codes[i].wire);
				any = true;
			}
		if (any)
			pt_buf_chr(b, '\n');
	}
	pt_buf_str(b, ".El\n");
}

static void man_synopsis(const struct pt_command *cmd, const char *path, struct pt_buf *b)
{
	pt_buf_fmt(b, ".Sh SYNOPSIS\n.Nm %s\n", path);
	if (cmd->sub)
		pt_buf_str(b, cmd->run ? ".Op Ar COMMAND\n" : ".Ar COMMAND\n");
	for (int positional = 0; positional < 2; positional++)
		for (size_t i = 0; i < cmd->n_opts; i++) {
			const struct pt_opt *o = &cmd->opts[i];

			if (positional != !!(o->flags & PT_OPT_POSITIONAL) || (o->flags & PT_OPT_NO_FLAG))
				continue;
			pt_buf_str(b, o->flags & PT_OPT_REQUIRED ? "." : ".Op");
			/* man_flag() begins with a space, which a line of its own must not have */
			if (o->flags & PT_OPT_REQUIRED) {
				pt_auto_buf f = PT_BUF_INIT(1024);

				man_flag(o, true, &f);
				pt_buf_str(b, f.len ? f.p + 1 : "");
			} else {
				man_flag(o, true, b);
			}
			pt_buf_chr(b, '\n');
		}
}

static const struct pt_command *first_leaf(const struct pt_command *cmd)
{
	while (cmd->sub && cmd->sub->name)
		cmd = cmd->sub;
	return cmd;
}

static bool in_all_leaves(const struct pt_command *cmd, const char *option)
{
	if (cmd->sub) {
		for (const struct pt_command *s = cmd->sub; s->name; s++)
			if (!in_all_leaves(s, option))
				return false;
		return true;
	}
	for (size_t i = 0; i < cmd->n_opts; i++)
		if (strcmp(cmd->opts[i].name, option) == 0)
			return true;
	return false;
}

/* The options that every command below top takes, told once. */
static void man_shared(const struct pt_command *top, bool environment, struct pt_buf *b)
{
	const struct pt_command *leaf = first_leaf(top);
	pt_auto(pt_freep) struct pt_opt *shared = calloc(leaf->n_opts + 1, sizeof(*shared));
	size_t n = 0;

	for (size_t i = 0; shared && i < leaf->n_opts; i++)
		if (in_all_leaves(top, leaf->opts[i].name))
			shared[n++] = leaf->opts[i];
	if (environment)
		man_environment(&(struct pt_command) { .opts = shared, .n_opts = n }, b);
	else
		man_options(shared, n, b);
}

/* Every command below cmd with the options of its own; their names begin behind the first skip bytes. */
static void man_tree(const struct pt_command *top, const struct pt_command *cmd, size_t skip, struct pt_buf *b)
{
	for (const struct pt_command *s = cmd->sub; s->name; s++) {
		bool any = false;

		if (s->sub) {
			man_tree(top, s, skip, b);
			continue;
		}
		pt_buf_fmt(b, ".It Cm %s\n", s->name + skip);
		roff_text(b, s->summary ? s->summary : "");
		if (s->text)
			roff_paragraphs(b, s->text);
		for (size_t i = 0; i < s->n_opts; i++)
			if (!in_all_leaves(top, s->opts[i].name)) {
				pt_buf_str(b, any ? "" : ".Bl -tag -width Ds\n");
				man_options(&s->opts[i], 1, b);
				any = true;
			}
		pt_buf_str(b, any ? ".El\n" : "");
	}
}

static void man_commands(const struct pt_command *cmd, struct pt_buf *out)
{
	bool program = !cmd->name || !*cmd->name || strcmp(cmd->name, "postern") == 0; /* its commands have pages of their own */

	pt_buf_str(out, ".Sh COMMANDS\n.Bl -tag -width Ds\n");
	if (!program)
		man_tree(cmd, cmd, strlen(cmd->name) + 1, out);
	for (const struct pt_command *s = cmd->sub; program && s->name; s++) {
		pt_buf_fmt(out, ".It Cm %s\n", last_word(s->name));
		roff_text(out, s->summary ? s->summary : "");
	}
	pt_buf_str(out, ".El\n");
}

void pt_opt_man(const struct pt_command *cmd, const char *path, struct pt_buf *out)
{
	pt_auto_buf title = PT_BUF_INIT(128);
	bool group = cmd->sub && !cmd->run && cmd->name && *cmd->name && strcmp(cmd->name, "postern") != 0;

	for (const char *p = path; *p; p++)
		pt_buf_chr(&title, *p == ' ' ? '-' : *p);
	man_date(out);
	pt_buf_str(out, ".Dt ");
	for (const char *p = title.p; *p; p++)
		pt_buf_chr(out, (char)toupper((unsigned char)*p));
	pt_buf_fmt(out, " 1\n.Os postern " PT_VERSION "\n.Sh NAME\n.Nm %s\n.Nd", title.p);
	roff_arg(out, cmd->summary ? cmd->summary : "");
	pt_buf_chr(out, '\n');
	man_synopsis(cmd, path, out);
	pt_buf_str(out, ".Sh DESCRIPTION\n");
	roff_text(out, cmd->summary ? cmd->summary : "");
	if (cmd->text)
		roff_paragraphs(out, cmd->text);
	if (cmd->sub)
		man_commands(cmd, out);
	pt_buf_str(out, ".Sh OPTIONS\n.Bl -tag -width Ds\n");
	if (group)
		man_shared(cmd, false, out);
	man_options(cmd->opts, cmd->n_opts, out);
	man_options(std_opts, PT_COUNT(std_opts), out);
	pt_buf_str(out, ".El\n");
	if (group)
		man_shared(cmd, true, out);
	else
		man_environment(cmd, out);
	man_exit_status(out);
}
