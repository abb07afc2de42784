/* What holds for every store, on the one that POSTERN_STORAGE… describe; without them on a directory of its own. */
#include "os/file.h"
#include "store/store.h"
#include "../tap.h"

struct conf {
	struct pt_store_conf store;
};
static const struct pt_opt opts[] = { PT_STORE_OPTS(struct conf, store) };
static const struct pt_command cmd = { .name = "store_contract", .summary = "contract", .opts = opts, .n_opts = PT_COUNT(opts) };

static const char *const tails[] = {
	"a",       "b/c",    "b/d e", "b/percent%41&amp;<x>'\"", "b/plus+equals=at@colon:", "b/\xc3\xa9\xf0\x9f\x98\x80",
	"c(1)*!~", "d/e/f/g"
};
static const char *keys[PT_COUNT(tails)]; /* below the prefix, in their order as bytes */
static struct pt_store *s;
static struct pt_err err;

static void get(const char *key, const char *want, size_t n, const char *what)
{
	pt_auto_buf b = PT_BUF_INIT(4 << 20);

	ok(s->ops->get(s, key, &b, &err) == 0 && b.len == n && memcmp(b.p, want, n) == 0, "%s %s", key, what);
}

struct seen {
	char *key[20];
	unsigned n;
	bool refuse;
};

static int on_key(void *arg, const char *key)
{
	struct seen *seen = arg;

	pt_assert(seen->n < PT_COUNT(seen->key));
	seen->key[seen->n++] = strdup(key);
	return seen->refuse ? PT_E_CONFLICT : PT_OK;
}

static void list(const char *prefix, unsigned max, size_t first, size_t n)
{
	struct seen seen = { .n = 0 };
	bool same;

	ok(s->ops->list(s, prefix, max, on_key, &seen, &err) == 0, "list '%s', %u at most", prefix, max);
	same = seen.n == n;
	for (unsigned i = 0; i < seen.n; i++) {
		same = same && strcmp(seen.key[i], keys[first + i]) == 0;
		if (!same)
			printf("# %u: %s\n", i, seen.key[i]);
		free(seen.key[i]);
	}
	ok(same, "%zu keys, in order (%u)", n, seen.n);
}

static void objects(const struct pt_store_conf *conf)
{
	struct seen refuse = { .refuse = true };
	size_t big = (3 << 20) + 17;
	pt_auto(pt_freep) char *zeros = calloc(1, big);
	pt_auto_buf small = PT_BUF_INIT(4), b = PT_BUF_INIT(900), root = PT_BUF_INIT(900);

	for (size_t i = 0; i < PT_COUNT(keys); i++)
		ok(s->ops->put(s, keys[i], keys[i], strlen(keys[i]), &err) == 0, "put %s: %s", keys[i], err.msg);
	for (size_t i = 0; i < PT_COUNT(keys); i++)
		get(keys[i], keys[i], strlen(keys[i]), "comes back");
	pt_store_key(conf, "", &root);
	list(root.p, 1000, 0, PT_COUNT(keys));
	list(root.p, 3, 0, 3);
	pt_store_key(conf, "b/", &b);
	list(b.p, 1000, 1, 5);
	list(keys[7], 1000, 7, 1);
	pt_buf_str(&b, "nothing");
	list(b.p, 1000, 0, 0);
	ok(s->ops->list(s, root.p, 10, on_key, &refuse, &err) == PT_E_CONFLICT && refuse.n == 1, "a refusal ends a list");
	free(refuse.key[0]);

	ok(s->ops->put(s, keys[0], "new", 3, &err) == 0, "put again");
	get(keys[0], "new", 3, "is replaced");
	ok(s->ops->put(s, keys[0], "", 0, &err) == 0, "put nothing");
	get(keys[0], "", 0, "is empty");
	ok(s->ops->put(s, keys[0], zeros, big, &err) == 0, "put 3 MiB");
	get(keys[0], zeros, big, "comes back");
	is_int(s->ops->get(s, keys[1], &small, &err), PT_E_TOO_LARGE, "more than the buffer takes");
	for (size_t i = 0; i < PT_COUNT(keys); i++)
		ok(s->ops->remove(s, keys[i], &err) == 0, "remove %s", keys[i]);
	ok(s->ops->remove(s, keys[0], &err) == 0, "again");
	is_int(s->ops->get(s, keys[0], &b, &err), PT_E_NOT_FOUND, "gone: %s", err.msg);
	list(root.p, 1000, 0, 0);
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/postern-store-XXXXXX";
	struct pt_http_client_conf http = { .ca = NULL };
	struct pt_store_probe probe;
	struct conf conf = { .store.type = NULL };

	ok(pt_opt_parse(NULL, &cmd, argc, argv, &conf, &err) == 0, "settings: %s", err.msg);
	if (!conf.store.type)
		conf.store = (struct pt_store_conf) { .type = "DIRECTORY", .bucket = mkdtemp(dir), .prefix = "con/tract" };
	ok(pt_store_conf_check(&conf.store, &err) == 0, "they are good: %s", err.msg);
	ok(pt_store_open(&s, &conf.store, &http, NULL, &err) == 0, "open: %s", err.msg);
	if (!s)
		return tap_end();
	for (size_t i = 0; i < PT_COUNT(keys); i++) {
		pt_auto_buf b = PT_BUF_INIT(900);

		pt_store_key(&conf.store, tails[i], &b);
		keys[i] = pt_buf_detach(&b, NULL);
	}
	objects(&conf.store);
	pt_store_close(s);
	ok(pt_store_probe(&conf.store, &http, NULL, &probe, &err) == 0 && probe.step == PT_STORE_STEPS && !probe.left,
	   "the probe: %s", err.msg);
	for (size_t i = 0; i < PT_COUNT(keys); i++)
		free((char *)keys[i]);
	return tap_end();
}
