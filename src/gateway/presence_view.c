/* Who is connected now, for people. */
#include "base/json_write.h"
#include "gateway/presence_int.h"

static void sum(struct instance *list, int64_t now, struct pt_presence_info *ret)
{
	struct instance *i;

	DL_FOREACH(list, i)
	{
		if (i->last_seen > ret->last_seen)
			ret->last_seen = i->last_seen;
		if (!pt_presence_connected(i, now))
			continue;
		ret->instances++;
		ret->slots += i->draining ? 0 : i->slots;
		ret->held += (int64_t)i->holding.n;
	}
}

void pt_presence_of(struct pt_gateway *g, const char *agent, struct pt_presence_info *ret)
{
	int64_t now = pt_gateway_now(g);
	struct agent *a;

	*ret = (struct pt_presence_info){ 0 };
	pt_presence_lock(g);
	a = pt_presence_agent(g->presence, agent, false);
	if (a) {
		sum(a->waiting, now, ret);
		sum(a->others, now, ret);
	}
	pt_presence_unlock(g);
}

static bool runs(struct instance *list, const char *type, int64_t now)
{
	struct instance *i;

	DL_FOREACH(list, i)
	{
		const struct pt_list *types = i->types ? pt_types_list(i->types) : NULL;

		if (i->draining || !types || !pt_presence_connected(i, now))
			continue;
		for (size_t k = 0; k < types->n; k++)
			if (strcmp(((char **)types->items)[k], type) == 0)
				return true;
		if (!types->n)
			return true;
	}
	return false;
}

bool pt_presence_runs(struct pt_gateway *g, const char *agent, const char *type)
{
	int64_t now = pt_gateway_now(g);
	struct agent *a;
	bool found;

	pt_presence_lock(g);
	a = pt_presence_agent(g->presence, agent, false);
	found = a && (runs(a->waiting, type, now) || runs(a->others, type, now));
	pt_presence_unlock(g);
	return found;
}

static void list_connected(struct instance *list, int64_t now, struct pt_buf *out)
{
	struct instance *i;

	DL_FOREACH(list, i)
	{
		if (!pt_presence_connected(i, now))
			continue;
		pt_jw_open(out, NULL, '{');
		pt_jw_str(out, "id", i->id);
		pt_jw_str(out, "version", i->version);
		pt_jw_str(out, "hostname", i->hostname);
		pt_jw_i64(out, "slots", i->slots);
		pt_jw_i64(out, "holding", (int64_t)i->holding.n);
		pt_jw_bool(out, "draining", i->draining);
		pt_jw_time(out, "connected_at", i->connected_at);
		pt_jw_time(out, "last_seen_at", i->waiting ? now : i->last_seen);
		pt_jw_close(out, '}');
	}
}

void pt_presence_view(struct pt_gateway *g, const char *agent, struct pt_buf *out)
{
	int64_t now = pt_gateway_now(g);
	struct agent *a;

	pt_jw_open(out, "instances", '[');
	pt_presence_lock(g);
	a = pt_presence_agent(g->presence, agent, false);
	if (a) {
		list_connected(a->waiting, now, out);
		list_connected(a->others, now, out);
	}
	pt_presence_unlock(g);
	pt_jw_close(out, ']');
}

bool pt_presence_progress(struct pt_gateway *g, const char *instance, const char *operation, int64_t *ret_rows, int64_t *ret_bytes)
{
	bool found = false;
	struct instance *i;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, instance);
	for (size_t k = 0; i && k < i->holding.n; k++) {
		const struct held *h = &((struct held *)i->holding.items)[k];

		if (strcmp(h->operation, operation) == 0) {
			*ret_rows = h->rows;
			*ret_bytes = h->bytes;
			found = true;
		}
	}
	pt_presence_unlock(g);
	return found;
}

unsigned pt_presence_count(struct pt_gateway *g)
{
	int64_t now = pt_gateway_now(g);
	struct instance *i, *tmp;
	unsigned n = 0;

	pt_presence_lock(g);
	HASH_ITER(hh, g->presence->instances, i, tmp)
		n += pt_presence_connected(i, now);
	pt_presence_unlock(g);
	return n;
}

size_t pt_presence_versions(struct pt_gateway *g, struct pt_version_count *ret, size_t n)
{
	int64_t now = pt_gateway_now(g);
	struct instance *i, *tmp;
	size_t rows = 0, k;

	pt_presence_lock(g);
	HASH_ITER(hh, g->presence->instances, i, tmp) {
		if (!pt_presence_connected(i, now))
			continue;
		for (k = 0; k < rows && strcmp(ret[k].version, i->version) != 0; k++)
			;
		if (k == n)
			k = n - 1;
		if (k == rows) {
			ret[rows] = (struct pt_version_count) { .instances = 0 };
			memcpy(ret[rows].version, rows == n - 1 ? "other" : i->version,
			       rows == n - 1 ? sizeof("other") : sizeof(i->version));
			rows++;
		}
		ret[k].instances++;
	}
	pt_presence_unlock(g);
	return rows;
}
