/* The table of credential sources, and the way from a secret's text to connect_args.  The text is wiped as soon as it is parsed. */
#include "credential/credential.h"

static const struct pt_credential_source *const sources[] = { &pt_credential_file, &pt_credential_env };

static const struct pt_credential_source *find(const struct pt_credential_ref *ref, struct pt_err *err)
{
	if (!ref->type) {
		(void)pt_fail(err, PT_E_INVALID, "the credential has no type");
		return NULL;
	}
	for (size_t i = 0; i < PT_COUNT(sources); i++)
		if (strcmp(sources[i]->name, ref->type) == 0)
			return sources[i];
	(void)pt_fail(err, PT_E_INVALID, "unknown credential type '%.40s'", ref->type);
	(void)pt_hint(err, "use FILE or ENV_VAR");
	return NULL;
}

int pt_credential_check(const struct pt_credential_ref *ref, struct pt_err *err)
{
	const struct pt_credential_source *s = find(ref, err);

	return s ? s->check(ref, err) : PT_E_INVALID;
}

static void wipe(json_t *j)
{
	const char *key;
	json_t *v;
	size_t i;

	if (json_is_string(j))
		explicit_bzero((char *)(uintptr_t)json_string_value(j), json_string_length(j));
	json_object_foreach(j, key, v)
		wipe(v);
	json_array_foreach(j, i, v)
		wipe(v);
}

void pt_credential_release(json_t *connect_args)
{
	wipe(connect_args);
	json_decref(connect_args);
}

static int parse(const struct pt_buf *text, json_t **ret, struct pt_err *err)
{
	struct pt_err quoting = { 0 }; /* the parser's message quotes what it read, so it goes nowhere */
	json_t *j = NULL, *args;
	int rc = pt_json_parse(text->p, text->len, &j, &quoting);

	explicit_bzero(&quoting, sizeof(quoting));
	if (rc < 0) {
		rc = pt_fail(err, PT_E_CREDENTIAL, "the secret is not valid JSON");
	} else if (!json_is_object(j)) {
		rc = pt_fail(err, PT_E_CREDENTIAL, "the secret is %s, not a JSON object", pt_json_type_name(j));
	} else if (!(args = json_object_get(j, "connect_args"))) {
		rc = pt_fail(err, PT_E_CREDENTIAL, "the secret has no member connect_args");
	} else if (!json_is_object(args)) {
		rc = pt_fail(err, PT_E_CREDENTIAL, "connect_args in the secret is %s, not an object", pt_json_type_name(args));
	} else {
		*ret = json_incref(args);
		(void)json_object_del(j, "connect_args"); /* it is there; the rest is wiped below */
	}
	pt_credential_release(j);
	if (rc < 0)
		(void)pt_hint(err, "store the secret as {\"connect_args\": {\"host\": …, \"user\": …, \"password\": …}}");
	return rc;
}

int pt_credential_connect_args(const struct pt_credential_ref *ref, const struct pt_credential_conf *conf,
			       const struct pt_cancel *cancel, json_t **ret, struct pt_err *err)
{
	const struct pt_credential_source *s = find(ref, err);
	pt_auto_buf text = PT_BUF_INIT(PT_CREDENTIAL_MAX + 1);
	int rc;

	if (!s)
		return PT_E_INVALID;
	rc = s->check(ref, err);
	if (rc == 0)
		rc = pt_cancel_check(cancel, err);
	if (rc == 0)
		rc = s->fetch(ref, conf, cancel, &text, err);
	if (rc == 0)
		rc = parse(&text, ret, err);
	explicit_bzero(text.p, text.cap);
	return rc == PT_E_CREDENTIAL
		       ? pt_err_wrap(err, rc, "credential %s %s", ref->type, ref->file_path ? ref->file_path : ref->env_var_name)
		       : rc;
}
