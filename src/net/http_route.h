/* Route table of the HTTP server, compiled once at start into a tree of path segments.  Read-only afterwards: any thread. */
#ifndef PT_NET_HTTP_ROUTE_H
#define PT_NET_HTTP_ROUTE_H
#include "net/http_server.h"

enum { PT_HTTP_PARAMS = 8, PT_HTTP_SEGMENTS = 24 };

struct pt_http_slice {
	const char *p;
	size_t n;
};
struct pt_http_match {
	const struct pt_http_route *route;
	struct pt_http_slice names[PT_HTTP_PARAMS];  /* into the route's path */
	struct pt_http_slice values[PT_HTTP_PARAMS]; /* into the request's path, encoded */
	unsigned n;
};

struct pt_http_routes;
/* routes must outlive the result.  PT_E_INVALID: a path that is malformed or stands twice with the same method. */
int pt_http_routes_new(struct pt_http_routes **ret, const struct pt_http_route *routes, size_t n,
		       struct pt_err *err) PT_MUSTCHECK;
void pt_http_routes_free(struct pt_http_routes *t);
PT_DEFINE_CLEANUP(struct pt_http_routes *, pt_http_routes_free)
/* Find the route of a path as it came over the wire.  A literal segment wins over a parameter.  PT_E_NOT_FOUND; PT_E_METHOD
 * with allow (needs 120 bytes) filled for the Allow header.  Does not allocate; err stays without text for both. */
int pt_http_routes_find(const struct pt_http_routes *t, const char *method, const char *path, struct pt_http_match *ret,
			char *allow, size_t allow_size);
#endif
