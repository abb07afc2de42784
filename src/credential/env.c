/* ENV_VAR: the secret is in an environment variable of the agent.  Only names made for that may be read, so that the gateway
 * cannot ask for the rest of the environment. */
#include "credential/credential.h"

static const char *const prefixes[] = { "POSTERN_CREDENTIAL_", "MCD_" };

static int env_check(const struct pt_credential_ref *ref, struct pt_err *err)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
	const char *name = ref->env_var_name;

	if (!name || !*name)
		return pt_fail(err, PT_E_INVALID, "credential ENV_VAR needs env_var_name");
	if (ref->file_path)
		return pt_fail(err, PT_E_INVALID, "file_path does not belong to credential ENV_VAR");
	for (size_t i = 0; i < PT_COUNT(prefixes); i++) {
		size_t n = strlen(prefixes[i]);

		if (strncmp(name, prefixes[i], n) == 0 && name[n] && !name[strspn(name, allowed)])
			return PT_OK;
	}
	(void)pt_fail(err, PT_E_INVALID, "env_var_name '%.60s' is not allowed", name);
	(void)pt_hint(err, "name the variable POSTERN_CREDENTIAL_… (letters, digits and '_'), or MCD_…");
	return PT_E_INVALID;
}

static int env_fetch(const struct pt_credential_ref *ref, const struct pt_credential_conf *conf, const struct pt_cancel *cancel,
		     struct pt_buf *out, struct pt_err *err)
{
	const char *value = getenv(ref->env_var_name);

	if (!value || !*value) {
		(void)pt_fail(err, PT_E_CREDENTIAL, "the agent has no such environment variable, or it is empty");
		(void)pt_hint(err, "set it where the agent is started (extra environment in the Helm chart)");
		return PT_E_CREDENTIAL;
	}
	if (strlen(value) > PT_CREDENTIAL_MAX)
		return pt_fail(err, PT_E_CREDENTIAL, "larger than %zu bytes", PT_CREDENTIAL_MAX);
	pt_buf_str(out, value);
	return pt_buf_done(out, err);
}

const struct pt_credential_source pt_credential_env = { .name = "ENV_VAR", .check = env_check, .fetch = env_fetch };
