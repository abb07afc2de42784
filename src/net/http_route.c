/* See http_route.h.  The tree has one node per distinct segment; siblings are a list (they are few), a parameter comes last. */
#include "net/http_route.h"
#include <stdio.h>

struct node {
	struct pt_http_slice seg; /* of a route's path; "{…}" for a parameter */
	bool param;
	unsigned child, next;           /* index of a node, 0 = none */
	unsigned first_route, n_routes; /* into leaves */
};
struct leaf {
	const struct pt_http_route *route;
	unsigned node;
};
struct pt_http_routes {
	struct node *nodes;
	size_t n_nodes;
	struct leaf *leaves; /* sorted by node */
	size_t n_leaves;
};

/* The next segment after the '/' at p; false at the end. */
static bool segment(const char **p, struct pt_http_slice *ret)
{
	if (**p != '/')
		return false;
	ret->p = ++*p;
	while (**p && **p != '/')
		++*p;
	ret->n = (size_t)(*p - ret->p);
	return true;
}

static bool same(struct pt_http_slice a, struct pt_http_slice b)
{
	return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static unsigned node_add(struct pt_http_routes *t, unsigned parent, struct pt_http_slice seg)
{
	bool param = seg.n && seg.p[0] == '{';
	unsigned *at = &t->nodes[parent].child, n;

	while (*at && !(param ? t->nodes[*at].param : !t->nodes[*at].param && same(t->nodes[*at].seg, seg))) {
		if (t->nodes[*at].param)
			break;
		at = &t->nodes[*at].next;
	}
	if (*at && t->nodes[*at].param == param)
		return *at;
	n = (unsigned)t->n_nodes++;
	t->nodes[n] = (struct node) { .seg = seg, .param = param, .next = *at };
	*at = n;
	return n;
}

static int leaf_order(const void *a, const void *b)
{
	const struct leaf *x = a, *y = b;

	return x->node != y->node ? (x->node < y->node ? -1 : 1) : strcmp(x->route->method, y->route->method);
}

static int path_check(const struct pt_http_route *r, unsigned *ret_n, struct pt_err *err)
{
	const char *p = r->path;
	struct pt_http_slice seg;
	unsigned n = 0, params = 0;

	if (!r->method || !p || p[0] != '/')
		return pt_fail(err, PT_E_INVALID, "route '%s': a path starts with '/'", p ? p : "");
	for (; segment(&p, &seg); n++) {
		if (seg.n && (seg.p[0] == '{') != (seg.p[seg.n - 1] == '}'))
			return pt_fail(err, PT_E_INVALID, "route '%s': a parameter is a whole segment", r->path);
		params += seg.n && seg.p[0] == '{';
	}
	if (n > PT_HTTP_SEGMENTS || params > PT_HTTP_PARAMS)
		return pt_fail(err, PT_E_INVALID, "route '%s': at most %d segments and %d parameters", r->path, PT_HTTP_SEGMENTS,
			       PT_HTTP_PARAMS);
	if (!r->handle == !r->begin || (r->begin && (!r->chunk || !r->end)))
		return pt_fail(err, PT_E_INVALID, "route '%s': either handle, or begin, chunk and end", r->path);
	*ret_n += n;
	return PT_OK;
}

int pt_http_routes_new(struct pt_http_routes **ret, const struct pt_http_route *routes, size_t n, struct pt_err *err)
{
	pt_auto(pt_http_routes_freep) struct pt_http_routes *t = calloc(1, sizeof(*t));
	unsigned most = 1;

	for (size_t i = 0; i < n; i++) {
		int rc = path_check(&routes[i], &most, err);

		if (rc < 0)
			return rc;
	}
	if (!t || !(t->nodes = calloc(most, sizeof(*t->nodes))) || !(t->leaves = calloc(n + 1, sizeof(*t->leaves))))
		return pt_fail_oom(err);
	t->n_nodes = 1;
	for (size_t i = 0; i < n; i++) {
		const char *p = routes[i].path;
		struct pt_http_slice seg;
		unsigned at = 0;

		while (segment(&p, &seg))
			at = node_add(t, at, seg);
		t->leaves[t->n_leaves++] = (struct leaf) { &routes[i], at };
	}
	qsort(t->leaves, n, sizeof(*t->leaves), leaf_order);
	for (unsigned i = 0; i < n; i++) {
		struct node *nd = &t->nodes[t->leaves[i].node];

		if (i && leaf_order(&t->leaves[i - 1], &t->leaves[i]) == 0)
			return pt_fail(err, PT_E_INVALID, "route %s %s stands twice", t->leaves[i].route->method,
				       t->leaves[i].route->path);
		if (!nd->n_routes++)
			nd->first_route = i;
	}
	*ret = pt_steal(&t);
	return PT_OK;
}

void pt_http_routes_free(struct pt_http_routes *t)
{
	if (!t)
		return;
	free(t->nodes);
	free(t->leaves);
	free(t);
}

/* The node below at whose path is p and which has routes, 0 = none.  Depth is bounded by the depth of the table. */
static unsigned walk(const struct pt_http_routes *t, unsigned at, const char *p, struct pt_http_slice *values, unsigned n)
{
	struct pt_http_slice seg;

	if (!segment(&p, &seg))
		return *p ? 0 : (t->nodes[at].n_routes ? at : 0);
	for (unsigned i = t->nodes[at].child; i; i = t->nodes[i].next) {
		unsigned found;

		if (t->nodes[i].param ? !seg.n : !same(t->nodes[i].seg, seg))
			continue;
		if (t->nodes[i].param)
			values[n] = seg;
		found = walk(t, i, p, values, n + t->nodes[i].param);
		if (found)
			return found;
	}
	return 0;
}

int pt_http_routes_find(const struct pt_http_routes *t, const char *method, const char *path, struct pt_http_match *ret,
			char *allow, size_t allow_size)
{
	unsigned at = walk(t, 0, path, ret->values, 0);
	bool head = strcmp(method, "HEAD") == 0;
	const struct pt_http_route *r = NULL;
	const struct leaf *l = &t->leaves[t->nodes[at].first_route], *end = l + t->nodes[at].n_routes;
	struct pt_http_slice seg;
	const char *p;
	size_t used = 0;

	if (!at)
		return PT_E_NOT_FOUND;
	for (const struct leaf *i = l; i < end; i++)
		if (strcmp(i->route->method, method) == 0 || (head && !r && strcmp(i->route->method, "GET") == 0))
			r = i->route;
	if (!r) {
		for (; l < end && used < allow_size; l++)
			used += (size_t)snprintf(allow + used, allow_size - used, "%s%s%s", used ? ", " : "", l->route->method,
						 strcmp(l->route->method, "GET") == 0 ? ", HEAD" : "");
		return PT_E_METHOD;
	}
	ret->route = r;
	ret->n = 0;
	for (p = r->path; segment(&p, &seg);)
		if (seg.n && seg.p[0] == '{')
			ret->names[ret->n++] = (struct pt_http_slice) { seg.p + 1, seg.n - 2 };
	return PT_OK;
}
