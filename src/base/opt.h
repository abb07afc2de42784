/* Config tables: one row per setting gives the flag (--gateway-url), the environment variable (POSTERN_GATEWAY_URL), the
 * default, --help, the manual page, shell completion and --print-config.  Order: flag, then environment, then default.  An empty
 * environment variable counts as not set.  Main thread only. */
#ifndef PT_BASE_OPT_H
#define PT_BASE_OPT_H
#include "base/shape.h"

enum pt_opt_type {
	PT_OPT_STR,      /* const char * (points into argv, environ or the table) */
	PT_OPT_INT,      /* int64_t, with min and max */
	PT_OPT_BOOL,     /* bool; the flag takes no value, --no-NAME unsets; true|false|yes|no|1|0 in text */
	PT_OPT_DURATION, /* int64_t milliseconds, written "30s" */
	PT_OPT_SIZE,     /* int64_t bytes, written "64M" */
	PT_OPT_ENUM,     /* const char *, one of values, in the table's spelling (any case is read) */
	PT_OPT_STRS,     /* struct pt_opt_strs: the flag (or argument) may be given several times; never from the environment */
};
enum { PT_OPT_STRS_MAX = 64 };
struct pt_opt_strs {
	const char *v[PT_OPT_STRS_MAX];
	size_t n;
};
enum {
	PT_OPT_SECRET = 1 << 0, /* masked by --print-config */
	PT_OPT_REQUIRED = 1 << 1,
	PT_OPT_NO_ENV = 1 << 2,  /* a flag only */
	PT_OPT_STD_ENV = 1 << 3, /* the environment name is .env, without our prefix (HTTPS_PROXY), or the same in lower case */
	PT_OPT_POSITIONAL = 1 << 4, /* takes the next argument that is no flag; has neither flag nor environment name */
	PT_OPT_NO_FLAG = 1 << 5,    /* environment only: a secret that a command line would show to every user of the machine */
};

struct pt_opt {
	const char *name; /* "gateway-url": the flag; POSTERN_GATEWAY_URL is derived */
	enum pt_opt_type type;
	size_t offset;
	unsigned flags;
	const char *def;   /* text of the default, NULL = none */
	const char *value; /* placeholder in help: "URL" */
	const char *help;
	int64_t min, max;          /* INT, DURATION (ms), SIZE (bytes): when max > min */
	const char *const *values; /* ENUM, NULL-terminated */
	const char *env;           /* with PT_OPT_STD_ENV, or an older alias */
	char letter;               /* short form, 'o' for -o; 0 = none */
};
/* clang-format off */
#define PT_O(st, member, nm, ty, ...) { .name = (nm), .type = (ty), .offset = offsetof(st, member), ##__VA_ARGS__ }
/* clang-format on */

struct pt_command {
	const char *name;    /* the words behind "postern": "agent", "ctl operations run"; "" = the program itself */
	const char *summary; /* one line */
	const char *text;    /* paragraphs of the manual: examples, files, exit codes; NULL = none */
	const struct pt_opt *opts;
	size_t n_opts;
	/* argv[0] is the command's last word.  > 0: the exit code, of a command that has said itself what there is to say. */
	int (*run)(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err);
	const struct pt_command *sub; /* subcommands, ended by a row without a name; NULL = none */
};

typedef void pt_opt_bad_fn(void *arg, const struct pt_err *err);

/* The root of the whole command table, set once by main() before a command runs. */
extern const struct pt_command *pt_opt_root;

/* Fill the zeroed struct conf from flags and environment.  all: pt_opt_root (NULL: the command alone), so that a POSTERN_* name
 * that no command knows is an error with a suggestion (passed over: names that Kubernetes makes for Services, and
 * POSTERN_CREDENTIAL_*, which hold secrets of integrations).  Settings without flag, environment and default stay zero.
 * Returns PT_OK; 1 when --help, --version or --print-config was asked and answered on standard output (the caller returns 0).
 * Strings point into argv, environ and the table. */
int pt_opt_parse(const struct pt_command *all, const struct pt_command *cmd, int argc, char **argv, void *conf,
		 struct pt_err *err) PT_MUSTCHECK;
/* The same for a command that looks at settings instead of working by them: what is wrong with one that has an environment name (unknown,
 * a bad value, missing although required) is handed to bad, and its default counts.  The other flags, and unknown ones, fail as above. */
int pt_opt_parse_each(const struct pt_command *all, const struct pt_command *cmd, int argc, char **argv, void *conf,
		      pt_opt_bad_fn *bad, void *arg, struct pt_err *err) PT_MUSTCHECK;
void pt_opt_help(const struct pt_command *cmd, struct pt_buf *out);                  /* text of --help */
void pt_opt_man(const struct pt_command *cmd, const char *path, struct pt_buf *out); /* mdoc page; path = "postern agent" */
/* Completion script for shell "bash" or "zsh" of the whole command tree: subcommands, flags, values of enums.  Any other shell
 * writes nothing. */
void pt_opt_complete(const struct pt_command *root, const char *shell, struct pt_buf *out);
/* Append value with a password in a URL or a "password=" part replaced by "****"; rather hides too much than too little. */
void pt_opt_masked(const char *value, struct pt_buf *out);
/* The closest of n names to s, or NULL when none is near (Damerau-Levenshtein distance of at most a third of the length, any
 * case). */
const char *pt_closest(const char *s, const char *const *names, size_t n);
/* The environment name of a setting, "" when it has none. */
void pt_opt_env_name(const struct pt_opt *o, char out[static 64]);
#endif
