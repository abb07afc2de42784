/* The table of operation types: inputs that are taken and refused, the manual, and the types that need no network.
 * argv[1]: docs/operations.md. */
#include "base/log.h"
#include "os/resolve.h"
#include "os/file.h"
#include "../tap.h"
#include "../op_run.h"
#include <pthread.h>
#include <semaphore.h>

/* Each member of each type's input is in the type's section of the manual, as `member` at the beginning of a table's row. */
static void manual(const char *path)
{
	pt_auto_buf text = PT_BUF_INIT(1 << 20);
	struct pt_err err;

	ok(pt_file_read(path, &text, &err) == 0, "read %s", path);
	for (const struct pt_op_type *const *t = pt_op_types(); *t; t++) {
		char title[80], *section, *end;

		ok((*t)->input_size == (*t)->input->size && (*t)->input_size <= PT_OP_INPUT_MAX, "%s: its input fits",
		   (*t)->name);
		ok(pt_op_find((*t)->name) == *t && (*t)->summary, "%s is found by its name", (*t)->name);
		snprintf(title, sizeof(title), "## %s\n", (*t)->name);
		section = strstr(text.p, title);
		ok(section != NULL, "%s has a section in the manual", (*t)->name);
		if (!section)
			continue;
		end = strstr(section + strlen(title), "\n## ");
		for (char *sub = section; (sub = strstr(sub, "\n### ")) && (!end || sub < end); sub++)
			end = sub;
		section = strndup(section, end ? (size_t)(end - section) : strlen(section));
		for (size_t i = 0; i < (*t)->input->n; i++) {
			const struct pt_field *f = &(*t)->input->fields[i];
			char row[80], def[40];

			snprintf(row, sizeof(row), f->flags & PT_REQUIRED ? "\n| **`%s`** |" : "\n| `%s` |", f->name);
			ok(strstr(section, row) != NULL, "%s: %s is in the manual", (*t)->name, f->name);
			snprintf(def, sizeof(def), "| %lld |", (long long)f->def);
			ok(!f->def || strstr(section, def), "%s: the default of %s too", (*t)->name, f->name);
			for (size_t k = 0; f->values && f->values[k]; k++) {
				snprintf(row, sizeof(row), "`%s`", f->values[k]);
				ok(strstr(section, row) != NULL, "%s: %s may be %s", (*t)->name, f->name, f->values[k]);
			}
		}
		ok(strstr(section, (*t)->name) && strstr(section, "postern ctl operations run"), "%s: has an example",
		   (*t)->name);
		free(section);
	}
}

static void inputs(void)
{
	static const struct {
		const char *type, *input;
		bool integration;
		const char *says; /* part of the message; NULL = accepted */
	} t[] = {
		{ "query", "{\"sql\":\"SELECT 1\"}", true, NULL },
		{ "query", "{\"sql\":\"SELECT 1\",\"params\":[1,null,\"x\"],\"mode\":\"write\"}", true, NULL },
		{ "query", "{\"sql\":\"SELECT 1\",\"params\":null,\"mode\":null}", true, NULL },
		{ "query", "{\"sql\":\"SELECT 1\"}", false, "needs an integration" },
		{ "query", "{}", true, "missing member 'sql'" },
		{ "query", "{\"sql\":\"\"}", true, "sql" },
		{ "query", "{\"sql\":\" ;\\n\"}", true, "sql: is empty" },
		{ "query", "{\"sql\":1}", true, "sql: expected a string" },
		{ "query", "{\"sql\":\"SELECT 1\",\"params\":{}}", true, "params: expected an array" },
		{ "query", "{\"sql\":\"SELECT 1\",\"mode\":\"rw\"}", true, "mode: 'rw' is not one of read, write" },
		{ "query", "{\"sql\":\"SELECT 1\",\"code\":\"x\"}", true, "unknown member 'code'" },
		{ "network.tcp", "{\"host\":\"db\",\"port\":5432}", false, NULL },
		{ "network.tcp", "{\"host\":\"fd00::1\",\"port\":1}", false, NULL },
		{ "network.tcp", "{\"host\":\"db\",\"port\":5432}", true, "takes no integration" },
		{ "network.tcp", "{\"host\":\"db\"}", false, "missing member 'port'" },
		{ "network.tcp", "{\"host\":\"db\",\"port\":0}", false, "port: 0 is not between 1 and 65535" },
		{ "network.tcp", "{\"host\":\"db\",\"port\":65536}", false, "port" },
		{ "network.tcp", "{\"host\":\"http://db/\",\"port\":80}", false, "host: 'http://db/' is neither" },
		{ "network.tcp", "{\"host\":\"[::1]\",\"port\":80}", false, "host" },
		{ "network.tcp", "{\"host\":\"a b\",\"port\":80}", false, "host" },
		{ "network.tcp", "{\"host\":\"\",\"port\":80}", false, "host" },
		{ "network.tcp", "{\"host\":\"db\",\"port\":80,\"timeout_ms\":0}", false, "timeout_ms" },
		{ "network.tcp", "{\"host\":\"db\",\"port\":80,\"timeout_ms\":1.5}", false, "timeout_ms: expected an integer" },
		{ "network.dns", "{\"name\":\"db\",\"type\":\"AAAA\"}", false, NULL },
		{ "network.dns", "{\"name\":\"db\",\"type\":\"MX\"}", false, "type: 'MX'" },
		{ "network.dns", "{\"name\":\"a/b\"}", false, "name" },
		{ "network.tls", "{\"host\":\"db\"}", false, NULL },
		{ "network.tls", "{\"host\":\"db\",\"server_name\":\"a b\"}", false, "server_name" },
		{ "network.http", "{\"url\":\"http://db/x?y#z\",\"method\":\"HEAD\",\"expect_status\":204}", false, NULL },
		{ "network.http", "{\"url\":\"http://db/\",\"method\":\"POST\"}", false, "method" },
		{ "network.http", "{\"url\":\"http://db/\",\"expect_status\":99}", false, "expect_status" },
		{ "network.http", "{\"url\":\"ftp://db/\"}", false, "url" },
		{ "network.http", "{\"url\":\"file:///etc/passwd\"}", false, "url" },
		{ "network.http", "{\"url\":\"db\"}", false, "url" },
		{ "network.http", "{\"url\":\"http://\"}", false, "url" },
		{ "network.http", "{\"url\":\"http://u:secret@db/\"}", false, "user or password" },
		{ "network.http", "{\"url\":\"http://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.1/\"}", false,
		  "ASCII" }, /* full-width 127 */
		{ "http.request", "{\"url\":\"https://db/\",\"method\":\"POST\",\"body\":\"x\",\"headers\":{\"X-A\":\"1\"}}",
		  false, NULL },
		{ "http.request", "{\"url\":\"https://db/\",\"method\":\"PUT\",\"body_json\":[1],\"headers\":null}", false,
		  NULL },
		{ "http.request", "{\"url\":\"https://db/\",\"body\":null,\"body_json\":null}", false, NULL },
		{ "http.request", "{\"url\":\"https://db/\",\"method\":\"get\"}", false, "method" },
		{ "http.request", "{\"url\":\"https://db/\",\"method\":\"POST\",\"body\":\"x\",\"body_json\":1}", false,
		  "only one" },
		{ "http.request", "{\"url\":\"https://db/\",\"body\":\"x\"}", false, "a GET request has no body" },
		{ "http.request", "{\"url\":\"https://db/\",\"headers\":[]}", false, "headers" },
		{ "http.request", "{\"url\":\"https://db/\",\"headers\":{\"X\":1}}", false, "headers" },
		{ "http.request", "{\"url\":\"https://db/\",\"headers\":{\"X Y\":\"1\"}}", false, "not a header name" },
		{ "http.request", "{\"url\":\"https://db/\",\"headers\":{\"\":\"1\"}}", false, "not a header name" },
		{ "http.request", "{\"url\":\"https://db/\",\"headers\":{\"X\":\"1\\r\\nY: 2\"}}", false, "control character" },
		{ "http.request", "{\"url\":\"https://db/\",\"headers\":{\"hOsT\":\"metadata\"}}", false, "cannot be set" },
		{ "http.request", "{\"url\":\"https://db/\",\"headers\":{\"Transfer-Encoding\":\"chunked\"}}", false,
		  "cannot be set" },
		{ "http.request", "{\"url\":\"https://db/\",\"response\":\"xml\"}", false, "response" },
		{ "http.request", "{\"url\":\"https://db/\",\"max_bytes\":1048577}", false, "max_bytes" },
		{ "health", "{}", false, NULL },
		{ "health", "{\"x\":1}", false, "unknown member 'x'" },
		{ "health", "{}", true, "takes no integration" },
		{ "health", "[]", false, "expected an object" },
		{ "logs", "{\"after\":5,\"max_lines\":10000}", false, NULL },
		{ "logs", "{\"max_lines\":10001}", false, "max_lines" },
		{ "logs", "{\"after\":-1}", false, "after" },
		{ "metrics", "{}", false, NULL },
		{ "netwrk.tcp", "{}", false, "no operation type 'netwrk.tcp'" },
		{ "", "{}", false, "no operation type" },
	};
	struct pt_err err;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		json_t *j = NULL;
		int rc;

		pt_assert(pt_json_parse(t[i].input, strlen(t[i].input), &j, &err) == 0);
		err = (struct pt_err) { 0 };
		rc = pt_op_check(t[i].type, j, t[i].integration, &err);
		json_decref(j);
		if (!t[i].says)
			is_int(rc, 0, "%s %s is accepted (%s)", t[i].type, t[i].input, err.msg);
		else
			ok(rc == PT_E_INVALID && strstr(err.msg, t[i].says), "%s %s: %s", t[i].type, t[i].input, err.msg);
		ok(!strstr(err.msg, "secret"), "no password in the message");
	}
	ok(pt_op_check("netwrk.tcp", NULL, false, &err) == PT_E_INVALID && strstr(err.hint, "network.tcp"), "a typing error: %s",
	   err.hint);
	is_int(pt_op_check("health", NULL, false, &err), 0, "no input at all is an empty one");
	is_int(pt_op_check(NULL, NULL, false, &err), PT_E_INVALID, "no type");
}

static void give_health(void *arg, struct pt_buf *json)
{
	pt_buf_str(json, arg);
}
static void give_metrics(void *arg, struct pt_buf *text)
{
	pt_buf_str(text, "app_open_sessions_count 3\n");
}

static void about_the_agent(void)
{
	struct op_run r;
	struct pt_err err;
	int64_t last;

	op_run_init(&r);
	is_int(op_do(&r, "health", "{}", &err), PT_E_UNSUPPORTED, "an agent without health");
	is_int(op_do(&r, "metrics", "{}", &err), PT_E_UNSUPPORTED, "or metrics");
	is_int(op_do(&r, "later.type", "{}", &err), PT_E_UNSUPPORTED, "a type of a newer gateway");
	r.view.health = give_health;
	r.view.metrics = give_metrics;
	r.view.arg = (char *)(uintptr_t) "{\"version\":\"1.2\"}";
	is_int(op_do(&r, "health", "{}", &err), 0, "health");
	is_str(op_str(&r, "version"), "1.2", "is the agent's document");
	is_int(op_do(&r, "metrics", "{}", &err), 0, "metrics");
	is_str(op_str(&r, "text"), "app_open_sessions_count 3\n", "are text in a document");

	ok(pt_log_init("debug", "json", 1 << 20, &err) == 0, "a ring of log lines");
	is_int(op_do(&r, "logs", "{}", &err), 0, "empty logs");
	ok(r.head.rows == 0 && op_int(&r, "lines") == 0 && op_int(&r, "last") == 0, "say so");
	for (int i = 0; i < 5; i++)
		pt_info("line", "n", pt_num(i));
	is_int(op_do(&r, "logs", "{\"max_lines\":3}", &err), 0, "logs");
	ok(r.head.rows == 3 && op_int(&r, "lines") == 3 && r.head.bytes == (int64_t)r.text.len, "the three newest lines");
	is_str(r.head.body_format, "jsonl", "as JSON Lines");
	ok(strstr(r.text.p, "\"n\":\"2\"") && strstr(r.text.p, "\"n\":\"4\"") && !strstr(r.text.p, "\"n\":\"1\""),
	   "oldest first");
	last = op_int(&r, "last");
	pt_info("line", "n", "new");
	{
		char input[64];

		snprintf(input, sizeof(input), "{\"after\":%lld}", (long long)last);
		is_int(op_do(&r, "logs", input, &err), 0, "logs after those");
	}
	ok(r.head.rows == 1 && strstr(r.text.p, "new"), "only what is new");
	r.body_fails_after = 1;
	is_int(op_do(&r, "logs", "{}", &err), PT_E_IO, "a full spool is an error");
	op_run_release(&r);
}

static int lookup(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	static const char *const found[] = { "10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2" };
	struct addrinfo *list = NULL;

	if (strcmp(host, "db") != 0)
		return EAI_NONAME;
	for (size_t i = 0; i < PT_COUNT(found); i++) {
		struct addrinfo h = *hints, *one = NULL;

		h.ai_flags = AI_NUMERICHOST | AI_CANONNAME;
		if (getaddrinfo(found[i], port, &h, &one) == 0) {
			one->ai_next = list;
			list = one;
		}
	}
	*ret = list;
	return list ? 0 : EAI_NONAME;
}

/* The name service has temporary failures before it answers. */
static int failures, asked;
static int shaky_lookup(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	return asked++ < failures ? EAI_AGAIN : lookup(host, port, hints, ret);
}

static sem_t hang;
static int hanging_lookup(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	sem_wait(&hang);
	return EAI_AGAIN;
}

static void *fire_soon(void *cancel)
{
	usleep(50000);
	pt_cancel_fire(cancel, PT_E_CANCELLED, "cancelled by ada");
	return NULL;
}

static void names(void)
{
	struct op_run r;
	struct pt_err err;
	pthread_t t;
	int64_t start;

	op_run_init(&r);
	pt_resolve_inject(lookup);
	is_int(op_do(&r, "network.dns", "{\"name\":\"db\"}", &err), 0, "dns");
	ok(op_is(&r, "ok") && json_array_size(op_doc(&r, "addresses")) == 3, "three different addresses");
	is_str(op_str(&r, "addresses.0"), "10.0.0.1", "sorted");
	is_str(op_str(&r, "addresses.2"), "fd00::1", "IPv4 first");
	ok(json_is_real(op_doc(&r, "ms")), "with its time");
	is_int(op_do(&r, "network.dns", "{\"name\":\"db\",\"type\":\"AAAA\"}", &err), 0, "IPv6 only");
	ok(json_array_size(op_doc(&r, "addresses")) == 1, "one address");
	is_int(op_do(&r, "network.dns", "{\"name\":\"nowhere\"}", &err), 0, "an unknown name is an answer");
	ok(!op_is(&r, "ok") && op_doc(&r, "ok"), "not ok");
	is_str(op_str(&r, "error.code"), "host_unknown", "and why");
	ok(json_array_size(op_doc(&r, "addresses")) == 0, "no addresses");

	pt_resolve_inject(shaky_lookup);
	failures = 2;
	is_int(op_do(&r, "network.dns", "{\"name\":\"db\"}", &err), 0, "temporary failures");
	ok(op_is(&r, "ok") && asked == 3, "are tried again");
	failures = 100;
	asked = 0;
	is_int(op_do(&r, "network.dns", "{\"name\":\"db\"}", &err), 0, "but not for ever");
	is_str(op_str(&r, "error.code"), "host_unknown", "an error");
	is_int(asked, 4, "after four tries");

	sem_init(&hang, 0, 0);
	pt_resolve_inject(hanging_lookup);
	is_int(op_do(&r, "network.dns", "{\"name\":\"db\",\"timeout_ms\":20}", &err), 0,
	       "a name service that hangs is an answer");
	is_str(op_str(&r, "error.code"), "timeout", "of the check's own time limit");
	is_int(op_do(&r, "network.tcp", "{\"host\":\"db\",\"port\":1,\"timeout_ms\":20}", &err), 0, "for tcp too");
	is_str(op_str(&r, "error.code"), "timeout", "timeout");
	start = pt_mono_ms();
	r.cancel.deadline_ms = start + 50;
	is_int(op_do(&r, "network.dns", "{\"name\":\"db\",\"timeout_ms\":60000}", &err), PT_E_DEADLINE, "the deadline ends it");
	is_int(op_do(&r, "network.tls", "{\"host\":\"db\"}", &err), PT_E_DEADLINE, "nothing starts after it");
	r.cancel.deadline_ms = INT64_MAX;
	pthread_create(&t, NULL, fire_soon, &r.cancel);
	is_int(op_do(&r, "network.tcp", "{\"host\":\"db\",\"port\":1,\"timeout_ms\":60000}", &err), PT_E_CANCELLED,
	       "a cancel ends it");
	ok(pt_mono_ms() - start < 1000, "both within a second");
	is_str(err.msg, "cancelled by ada", "with its reason");
	pthread_join(t, NULL);
	for (int i = 0; i < 4; i++)
		sem_post(&hang);
	op_run_release(&r);
	pt_resolve_inject(NULL);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: test_op docs/operations.md\n");
		return 2;
	}
	manual(argv[1]);
	inputs();
	about_the_agent();
	names();
	return tap_end();
}
