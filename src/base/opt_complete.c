/* Completion scripts for bash and zsh, made from the command tree.  Both walk the words before the cursor down the tree, then
 * offer the values of the flag before the cursor, or the commands and flags of where they are. */
#include "base/opt.h"
#include <stdio.h>

/* A place in the tree: the words behind "postern", each with a space before it. */
struct node {
	char path[120];
	const struct pt_command *cmd; /* NULL: a word between ("ctl operations") that is no command itself */
	char summary[120];
};

static const char std_flags[] = "--help --version --print-config";

static struct node *find(const struct pt_list *nodes, const char *path, size_t n)
{
	for (size_t i = 0; i < nodes->n; i++) {
		struct node *x = &((struct node *)nodes->items)[i];

		if (strncmp(x->path, path, n) == 0 && !x->path[n])
			return x;
	}
	return NULL;
}

static int add_node(struct pt_list *nodes, const char *path, size_t n, const struct pt_command *cmd, struct pt_err *err)
{
	struct node x = { .cmd = cmd }, *old = find(nodes, path, n);

	if (n >= sizeof(x.path))
		return pt_fail(err, PT_E_INTERNAL, "command name too long");
	memcpy(x.path, path, n);
	snprintf(x.summary, sizeof(x.summary), "%s", cmd && cmd->summary ? cmd->summary : "");
	if (!old)
		return pt_list_append(nodes, sizeof(x), &x, err);
	if (cmd)
		*old = x;
	return PT_OK;
}

/* Names of subcommands are whole ("ctl operations run") or their last word only. */
static int collect(struct pt_list *nodes, const struct pt_command *cmd, const char *parent, struct pt_err *err)
{
	size_t n = strlen(parent);

	for (const struct pt_command *s = cmd->sub; s && s->name; s++) {
		pt_auto_buf path = PT_BUF_INIT(256);
		bool whole = n && strncmp(s->name, parent + 1, n - 1) == 0 && s->name[n - 1] == ' ';
		int rc;

		pt_buf_fmt(&path, "%s %s", whole ? "" : parent, s->name);
		if ((rc = pt_buf_done(&path, err)) < 0)
			return rc;
		for (size_t i = 1; i < path.len; i++)
			if (path.p[i] == ' ' && (rc = add_node(nodes, path.p, i, NULL, err)) < 0)
				return rc;
		if ((rc = add_node(nodes, path.p, path.len, s, err)) < 0 || (rc = collect(nodes, s, path.p, err)) < 0)
			return rc;
	}
	return PT_OK;
}

/* Is b one word below a? */
static bool below(const struct node *a, const struct node *b)
{
	size_t n = strlen(a->path);

	return strncmp(a->path, b->path, n) == 0 && b->path[n] == ' ' && !strchr(b->path + n + 1, ' ');
}

/* Patterns of case: "word"|"word", quoted for the shell (names hold letters, digits and '-' only). */
static void pattern(struct pt_buf *out, bool *first, const char *path, const char *flag)
{
	pt_buf_fmt(out, "%s\"%s%s%s\"", *first ? "\t" : "|", path, *flag ? " " : "", flag);
	*first = false;
}

static void walk(const struct pt_list *nodes, struct pt_buf *out)
{
	bool first = true;

	pt_buf_str(out, "\t\tcase \"$at $w\" in\n\t");
	for (size_t i = 0; i < nodes->n; i++)
		if (*((struct node *)nodes->items)[i].path)
			pattern(out, &first, ((struct node *)nodes->items)[i].path, "");
	pt_buf_str(out, first ? "\t\"\") ;;\n\t\tesac\n" : ") at=\"$at $w\" ;;\n\t\tesac\n");
}

/* What follows a flag that takes a value: words for an enum, files for a text, nothing that we know for the rest. */
static void values(const struct pt_list *nodes, bool zsh, struct pt_buf *out)
{
	pt_buf_str(out, "\tcase \"$at $prev\" in\n");
	for (size_t i = 0; i < nodes->n; i++) {
		const struct node *x = &((struct node *)nodes->items)[i];

		for (size_t k = 0; x->cmd && k < x->cmd->n_opts; k++) {
			const struct pt_opt *o = &x->cmd->opts[k];
			char flag[80], letter[3] = { '-', o->letter, '\0' };
			bool first = true;

			if (o->type == PT_OPT_BOOL || (o->flags & (PT_OPT_POSITIONAL | PT_OPT_NO_FLAG)))
				continue;
			snprintf(flag, sizeof(flag), "--%s", o->name);
			pattern(out, &first, x->path, flag);
			if (o->letter)
				pattern(out, &first, x->path, letter);
			if (o->type == PT_OPT_ENUM) {
				pt_buf_str(out, zsh ? ") compadd --" : ") COMPREPLY=($(compgen -W \"");
				for (const char *const *v = o->values; *v; v++)
					pt_buf_fmt(out, "%s%s", zsh || v != o->values ? " " : "", *v);
				pt_buf_str(out, zsh ? "; return ;;\n" : "\" -- \"$cur\")); return ;;\n");
			} else if (o->type == PT_OPT_STR || o->type == PT_OPT_STRS) {
				pt_buf_str(out, zsh ? ") _files; return ;;\n"
						    : ") COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n");
			} else {
				pt_buf_str(out, zsh ? ") return ;;\n" : ") COMPREPLY=(); return ;;\n");
			}
		}
	}
	pt_buf_str(out, "\tesac\n");
}

static void bash_words(const struct pt_list *nodes, const struct node *x, struct pt_buf *out)
{
	pt_buf_fmt(out, "\t\"%s\") words=\"", x->path);
	for (size_t i = 0; i < nodes->n; i++) {
		const struct node *y = &((struct node *)nodes->items)[i];

		if (below(x, y))
			pt_buf_fmt(out, "%s ", y->path + strlen(x->path) + 1);
	}
	for (size_t k = 0; x->cmd && k < x->cmd->n_opts; k++) {
		if (x->cmd->opts[k].flags & (PT_OPT_POSITIONAL | PT_OPT_NO_FLAG))
			continue;
		pt_buf_fmt(out, "--%s ", x->cmd->opts[k].name);
		if (x->cmd->opts[k].type == PT_OPT_BOOL)
			pt_buf_fmt(out, "--no-%s ", x->cmd->opts[k].name);
	}
	pt_buf_fmt(out, "%s\" ;;\n", std_flags);
}

/* 'word:what it is' for _describe; quotes and colons cannot stand for themselves there. */
static void zsh_item(struct pt_buf *out, const char *dashes, const char *word, const char *what)
{
	pt_buf_fmt(out, " '%s%s:", dashes, word);
	for (const char *p = what ? what : ""; *p && *p != '\n'; p++) {
		if (*p == '\'')
			pt_buf_str(out, "'\\''");
		else if (*p == ':' || *p == '\\')
			pt_buf_fmt(out, "\\%c", *p);
		else
			pt_buf_chr(out, *p);
	}
	pt_buf_chr(out, '\'');
}

static void zsh_words(const struct pt_list *nodes, const struct node *x, struct pt_buf *out)
{
	pt_buf_fmt(out, "\t\"%s\")\n\t\tcommands=(", x->path);
	for (size_t i = 0; i < nodes->n; i++) {
		const struct node *y = &((struct node *)nodes->items)[i];

		if (below(x, y))
			zsh_item(out, "", y->path + strlen(x->path) + 1, y->summary);
	}
	pt_buf_str(out, " )\n\t\tflags=(");
	for (size_t k = 0; x->cmd && k < x->cmd->n_opts; k++) {
		const struct pt_opt *o = &x->cmd->opts[k];

		if (o->flags & (PT_OPT_POSITIONAL | PT_OPT_NO_FLAG))
			continue;
		zsh_item(out, "--", o->name, o->help);
		if (o->type == PT_OPT_BOOL)
			zsh_item(out, "--no-", o->name, "turn it off");
	}
	pt_buf_str(out, " '--help:show help' '--version:show the version' '--print-config:show every setting' )\n\t\t;;\n");
}

static void script(const struct pt_list *nodes, bool zsh, struct pt_buf *out)
{
	pt_buf_str(out,
		   zsh ? "#compdef postern\n# zsh completion of postern\n_postern() {\n"
			 "\tlocal at=\"\" w prev=\"${words[CURRENT-1]}\" i\n\tlocal -a commands flags\n"
			 "\tfor ((i = 2; i < CURRENT; i++)); do\n\t\tw=\"${words[i]}\"\n"
		       : "# bash completion of postern\n_postern() {\n"
			 "\tlocal cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\" at=\"\" words=\"\" w i\n"
			 "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n\t\tw=\"${COMP_WORDS[i]}\"\n");
	walk(nodes, out);
	pt_buf_str(out, "\tdone\n");
	values(nodes, zsh, out);
	pt_buf_str(out, "\tcase \"$at\" in\n");
	for (size_t i = 0; i < nodes->n; i++)
		if (zsh)
			zsh_words(nodes, &((struct node *)nodes->items)[i], out);
		else
			bash_words(nodes, &((struct node *)nodes->items)[i], out);
	pt_buf_str(out, zsh ? "\tesac\n\t(( ${#commands} )) && _describe -t commands command commands\n"
			      "\t_describe -o -t flags flag flags\n}\n"
			      "if [ \"$funcstack[1]\" = _postern ]; then _postern \"$@\"; else compdef _postern postern; fi\n"
			    : "\tesac\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
			      "complete -o default -F _postern postern\n");
}

void pt_opt_complete(const struct pt_command *root, const char *shell, struct pt_buf *out)
{
	bool zsh = strcmp(shell, "zsh") == 0;
	struct pt_list nodes = { 0 };
	struct pt_err err;

	if (!zsh && strcmp(shell, "bash") != 0)
		return;
	if (add_node(&nodes, "", 0, root, &err) < 0 || collect(&nodes, root, "", &err) < 0)
		out->bad = PT_E_INTERNAL;
	else
		script(&nodes, zsh, out);
	free(nodes.items);
}
