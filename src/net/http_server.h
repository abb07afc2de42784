/* HTTP/1.1 server for the gateway's API and the agent's local port.  A thin layer over libmicrohttpd: route table, request,
 * streaming bodies both ways, and requests that are held (long poll, or waiting for a commit) and answered later from any
 * thread.  No Postern knowledge.
 *
 * Threads: handlers run on the server's own threads and must not block for long; a handler either replies before it returns
 * or calls pt_http_hold() and somebody replies later.  Exactly one pt_http_reply*() per request.  After a reply (or, when the
 * request was held, after the replying call returns) the request must not be touched. */
#ifndef PT_NET_HTTP_SERVER_H
#define PT_NET_HTTP_SERVER_H
#include "base/buf.h"

struct pt_http_server;
struct pt_http_req;

struct pt_http_route {
	const char *method; /* "GET"; HEAD is answered by GET routes */
	const char *path;   /* "/api/v1/operations/{id}": {x} matches one segment, see pt_http_param() */
	size_t body_max;    /* bytes; larger is refused with 413 while it streams in; 0 = no body allowed (400) */
	/* The whole body is there (pt_http_body()).  NULL on a streaming route. */
	void (*handle)(struct pt_http_req *r, void *ctx);
	/* Streaming route: begin once the headers are in (may reply at once, e.g. 401: a small body is then read and thrown
	 * away, a large one ends the connection; may not hold), chunk for each piece, end when the body is complete (replies or
	 * holds), abort (may be NULL) instead of end when the client goes away, sends too much, is too slow, or chunk
	 * refused.  chunk and begin return < 0 with err to refuse; after begin refused or replied nothing more is called. */
	int (*begin)(struct pt_http_req *r, void *ctx, struct pt_err *err);
	int (*chunk)(struct pt_http_req *r, void *ctx, const void *data, size_t n, struct pt_err *err);
	void (*end)(struct pt_http_req *r, void *ctx);
	void (*abort)(struct pt_http_req *r, void *ctx);
	const void *meta; /* the owner's description of the route, see pt_http_req_route() */
};

struct pt_http_server_conf {
	/* "127.0.0.1:8080", "[::]:443", port 0 = any free one; "systemd" = the socket that was passed as descriptor 3
	 * (sd_listen_fds(3)): it stays open in the service manager, so nobody is refused between two processes. */
	const char *listen;
	const char *tls_cert, *tls_key; /* PEM files, read again when they change; both NULL = plain HTTP */
	unsigned threads;               /* 1 to 64 */
	/* 0 = what the file limit allows.  Some more are accepted, each for one request that is answered at once (see
	 * pt_http_crowded()) and then closed: nobody waits for an answer without one. */
	unsigned max_connections;
	unsigned idle_timeout_s;        /* for a connection that sends or takes nothing; held requests do not count as idle */
	unsigned body_timeout_s; /* a request's headers and body must be in by then (slow clients), a large body gets 1 s more
				    for each 16 KiB that came: 408 */
	const struct pt_http_route *routes;
	size_t n_routes;
	void *ctx; /* handed to every handler */
	/* Called for each finished request (any thread), for metrics and access logs; may be NULL.  route is NULL when none
	 * matched; status 0: the client left before a response. */
	void (*done)(void *ctx, const struct pt_http_route *route, int status, int64_t elapsed_us, uint64_t bytes_out);
	/* Write an error as response body; NULL = {"error":{code,message,hint,retryable,native_code}}. */
	void (*write_error)(const struct pt_err *err, struct pt_buf *out);
};

/* Starts listening.  PT_E_INVALID (bad address, bad TLS files), PT_E_UNAVAILABLE (address in use; names who to ask). */
int pt_http_server_start(struct pt_http_server **ret, const struct pt_http_server_conf *conf, struct pt_err *err) PT_MUSTCHECK;
unsigned pt_http_server_port(const struct pt_http_server *s);
/* Current numbers: open connections and how many there may be, requests being handled, requests held.  crowded: connections so far
 * that came when there were too many. */
struct pt_http_stats {
	unsigned connections, max_connections, active, held;
	uint64_t crowded;
};
/* The end of its certificate, wall seconds; 0 = plain HTTP. */
int64_t pt_http_server_cert_expires(const struct pt_http_server *s);
void pt_http_server_stats(const struct pt_http_server *s, struct pt_http_stats *ret);
/* Stop accepting, after the connections that wait to be accepted and have room (those of a passed socket wait for the next
 * process); every later response carries "Connection: close".  Held requests stay with their holders. */
void pt_http_server_quiesce(struct pt_http_server *s);
/* Is there a connection, made a moment ago, whose first request is still to come? */
bool pt_http_server_expects(struct pt_http_server *s);
/* Wait up to most_ms for open requests (active and held), then close everything and free.  NULL is fine.  A holder that has not
 * replied by then is told gone(), the server answers 503 in its place, and it must not reply after gone() has returned. */
void pt_http_server_stop(struct pt_http_server *s, int64_t most_ms);

/* --- request (valid from the handler's call to the reply) --- */
const struct pt_http_route *pt_http_req_route(const struct pt_http_req *r);
const char *pt_http_method(const struct pt_http_req *r);
const char *pt_http_path(const struct pt_http_req *r); /* as it was sent, still encoded, without the query */
/* Path segment {name}, URL-decoded; never NULL for a declared one. */
const char *pt_http_param(const struct pt_http_req *r, const char *name);
const char *pt_http_query(const struct pt_http_req *r, const char *name); /* URL-decoded, NULL = absent */
/* Call fn for each query argument; stops at < 0 and returns it. */
int pt_http_query_each(struct pt_http_req *r, int (*fn)(void *arg, const char *name, const char *value), void *arg);
const char *pt_http_header(const struct pt_http_req *r, const char *name); /* NULL = absent */
const char *pt_http_body(const struct pt_http_req *r, size_t *ret_n);      /* never NULL */
/* Give its memory back before the request is held for long; pt_http_body() is empty from here on. */
void pt_http_drop_body(struct pt_http_req *r);
/* Did it come when there were as many connections as there may be?  What would hold it for long answers at once instead, with 503. */
bool pt_http_crowded(const struct pt_http_req *r);
const char *pt_http_peer(const struct pt_http_req *r);                     /* "10.1.2.3" */
int64_t pt_http_body_expected(const struct pt_http_req *r);                /* Content-Length, -1 when chunked */
/* A place for the handlers' own state (streaming routes, holders).  free_fn (may be NULL) runs when the request ends. */
void pt_http_set_data(struct pt_http_req *r, void *data, void (*free_fn)(void *));
void *pt_http_data(const struct pt_http_req *r);

/* --- response --- */
/* Before the reply; copied; 2.5 KiB in all.  Cache-Control replaces the default no-store. */
void pt_http_set_header(struct pt_http_req *r, const char *name, const char *value);
void pt_http_reply(struct pt_http_req *r, int status, const char *content_type, const void *body, size_t n); /* copies */
void pt_http_reply_buf(struct pt_http_req *r, int status, const char *content_type, struct pt_buf *b); /* takes b's memory */
/* pt_http_reply_buf with application/json; a bad b becomes 500. */
void pt_http_reply_json(struct pt_http_req *r, int status, struct pt_buf *b);
/* The error document with the status of err->code; 401 adds WWW-Authenticate, 429/503 Retry-After. */
void pt_http_reply_err(struct pt_http_req *r, const struct pt_err *err);
/* Stream a body of unknown (size < 0, chunked) or known size.  read: up to max bytes into buf, 0 = end, < 0 = failed (the
 * connection is cut, so that the client cannot take a part for the whole).  free runs when the response ends.  Runs on a
 * server thread; may block on a local file only. */
void pt_http_reply_stream(struct pt_http_req *r, int status, const char *content_type, int64_t size,
			  ssize_t (*read)(void *arg, char *buf, size_t max), void (*free_fn)(void *arg), void *arg);

/* Keep the request open after the handler returns.  gone (may be NULL) tells that the client has closed its side: the holder
 * still owes one reply (gone may give it), whose content nobody sees.  It runs on another thread, must not block (new connections
 * wait for it), and may come while another thread is replying: what arg points to must live until the free_fn of
 * pt_http_set_data(), which never runs before gone has returned; gone must not touch r unless it knows, by the holder's own
 * lock, that nobody has replied. */
void pt_http_hold(struct pt_http_req *r, void (*gone)(void *arg), void *arg);
#endif
