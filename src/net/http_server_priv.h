/* Inside of the HTTP server: what its files share.  Not for others.
 *
 * One struct pt_http_req per connection, used again by each request on it (a connection has one request at a time).
 * MHD's own thread T of the connection runs the handlers and everything that touches MHD's objects; other threads only
 * store a reply and resume.  The locks are the server's (one of PT_HTTP_LOCKS by the slot of the connection), because the
 * connection may end while the thread that replied still unlocks. */
#ifndef PT_NET_HTTP_SERVER_PRIV_H
#define PT_NET_HTTP_SERVER_PRIV_H
#include "net/http_route.h"
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
	PT_HTTP_LOCKS = 64,
	PT_HTTP_POOL = 11 * 1024,       /* MHD's memory for one connection, held or not: the headers both ways */
	PT_HTTP_HEADERS_MAX = 8 * 1024, /* of it the request may take so much; the rest is for the response's headers */
	PT_HTTP_HEADERS_OUT = 2560,     /* the handlers' own headers of a response */
	PT_HTTP_HEADER_COST = 80,       /* MHD's record of one header, from the same memory */
	PT_HTTP_SMALL_REST = 64 * 1024, /* a refused request's body up to this size is read, so that the connection stays */
	PT_HTTP_LINGER_MS = 2000,       /* how long a connection is drained after an early refusal */
	PT_HTTP_LEAST_RATE = 16,        /* bytes per millisecond that a long body must keep up */
	PT_HTTP_BACKLOG = 4096,
	PT_HTTP_TICK_MS = 400,
	PT_HTTP_CROWDED_MS = 5000, /* how long a request on a crowded connection may take to arrive */
	PT_HTTP_ENDED_MS = 1000,   /* how long a connection that its client has ended may stay as it is */
};

/* Whose turn it is on a connection.  T moves RECV -> BUSY and the watcher moves RECV -> CUT: the compare-and-swap
 * decides between a request that is complete and one that is too slow. */
enum pt_http_phase {
	PT_PH_FRESH,  /* a new connection: no request line yet */
	PT_PH_IDLE,   /* between two requests (a part of a request line may be there) */
	PT_PH_RECV,   /* headers or body are coming in */
	PT_PH_BUSY,   /* the handler has it, it is held, or the response goes out */
	PT_PH_LINGER, /* refused early; what still comes is thrown away */
	PT_PH_CUT,    /* the watcher has closed it */
};

struct pt_http_reply {
	int status; /* 0 = none yet */
	char type[80];
	char *body; /* owned */
	size_t n;
	bool stream, known_size;
	uint64_t size;
	ssize_t (*read)(void *arg, char *buf, size_t max);
	void (*free_fn)(void *arg);
	void *arg;
};

struct pt_http_req {
	/* of the connection */
	struct pt_http_server *s;
	struct MHD_Connection *mhd;
	void *tls; /* gnutls session, NULL = plain */
	struct pt_http_cert *cert; /* that it was opened with; T only */
	int fd;
	unsigned slot;
	_Atomic int phase;        /* enum pt_http_phase */
	_Atomic int64_t since_ms; /* of the connection, the request, the linger or the idleness */
	int64_t ended_ms;         /* since when the client has ended it and nothing is left to read; watcher only, 0 = not */
	bool watched;             /* in the watcher's epoll set; T only */
	bool crowded;             /* it came when there were as many as there may be: for one short request */
	bool left;                /* under the lock: the client has closed its side */
	char peer[48];
	/* of the request; T only unless said */
	const char *uri; /* as MHD gave it, to recognise it among the arguments */
	const char *method, *path;
	const char *bad; /* what is wrong with its framing, NULL = nothing */
	const struct pt_http_route *route;
	struct pt_http_slice names[PT_HTTP_PARAMS];
	const char *values[PT_HTTP_PARAMS];
	unsigned n_params;
	char param_text[96], *param_heap;
	int64_t expected; /* Content-Length, -1 = chunked, 0 = no body */
	int64_t start_ns;
	struct pt_buf body, headers; /* headers: "Name\0value\0" … of the response */
	uint64_t got, bytes_out;
	bool seen, chunked, expect, begun, ended, headers_over, close;
	bool body_done; /* everything the client sends is here */
	int sent_status;
	void *data;
	void (*data_free)(void *);
	/* under the lock */
	struct pt_http_reply reply;
	bool replied, holding, suspended, gone_told, gone_running;
	void (*gone)(void *arg);
	void *gone_arg;
};

struct pt_http_lock {
	pthread_mutex_t m;
	pthread_cond_t gone_done;
} __attribute__((aligned(64)));

struct pt_http_slot {
	struct pt_http_req *r; /* under its lock */
	uint32_t generation;
};

struct pt_http_server {
	struct pt_http_server_conf conf;
	struct pt_http_routes *routes;
	struct MHD_Daemon *mhd;
	struct pt_http_tls_pair *tls; /* NULL = plain */
	unsigned port;
	_Atomic bool quiet, stopping, watch_end; /* quiet: no more connections; set under accept_lock */
	_Atomic uint64_t crowded;
	_Atomic unsigned connections, open, held; /* open: requests that began and did not end, held ones too */
	/* connections by slot; the free ones are a stack */
	struct pt_http_slot *slots;
	unsigned *free_slots, n_free, n_slots;
	unsigned most;        /* connections; the slots above are for crowded ones */
	_Atomic unsigned top; /* slots from here on were never used */
	pthread_mutex_t slot_lock;
	/* new connections */
	pthread_mutex_t accept_lock; /* who accepts has it */
	bool refused;                /* under it: said that there was an error; until all who waited are in */
	_Atomic unsigned handed; /* to MHD, whose thread has not begun with them; for good if it has no memory to: nobody tells */
	_Atomic int64_t handed_ms;   /* the last one */
	struct pt_http_lock locks[PT_HTTP_LOCKS];
	pthread_t watcher;
	bool watching; /* the thread runs */
	bool passed;   /* listen_fd belongs to others, too */
	int epoll, wake, listen_fd;
};

static inline struct pt_http_lock *pt_http_lock_of(struct pt_http_server *s, unsigned slot)
{
	return &s->locks[slot % PT_HTTP_LOCKS];
}
static inline bool pt_http_phase_move(struct pt_http_req *r, int from, int to)
{
	return atomic_compare_exchange_strong(&r->phase, &from, to);
}

/* http_request.c: MHD's callbacks (thread T). */
void *pt_http_on_uri(void *cls, const char *uri, struct MHD_Connection *c);
size_t pt_http_on_unescape(void *cls, struct MHD_Connection *c, char *s);
enum MHD_Result pt_http_on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version,
				   const char *data, size_t *n, void **con_cls);
void pt_http_on_completed(void *cls, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode why);

/* http_strict.c: looks at the headers of a new request, fills expected, chunked, expect, bad. */
void pt_http_strict(struct pt_http_req *r, const char *version);
/* Decode %XX in place.  False on a malformed escape, or when a control byte comes out. */
bool pt_http_unescape(char *s, size_t n, size_t *ret_n);

/* http_reply.c */
/* Hand the stored reply to MHD (thread T). */
enum MHD_Result pt_http_queue(struct pt_http_req *r);
/* Write the stored reply straight to the socket and close our side, when MHD cannot take one (in the middle of a body).
 * False when that is not possible (a stream, a large body). */
bool pt_http_send_raw(struct pt_http_req *r);
/* A whole error response as text, with Connection: close. */
void pt_http_raw_error(struct pt_http_server *s, enum pt_code code, const char *msg, struct pt_buf *out);
void pt_http_raw_write(struct pt_http_req *r, const void *p, size_t n);
void pt_http_error_text(struct pt_http_server *s, enum pt_code code, const char *msg, struct pt_buf *out); /* its body */
void pt_http_reply_release(struct pt_http_reply *rep);
/* Store a reply and wake T when the request is held; the caller has the lock.  False, and rep stays the caller's, when there
 * is a reply already. */
bool pt_http_deliver_locked(struct pt_http_req *r, struct pt_http_reply *rep);

/* http_tls.c: the certificate.  INVALID: a file cannot be read, is no PEM, or they do not belong together. */
int pt_http_tls_open(struct pt_http_tls_pair **ret, const char *cert_path, const char *key_path, struct pt_err *err) PT_MUSTCHECK;
void pt_http_tls_close(struct pt_http_tls_pair *t);
/* The end of the certificate that the next client sees, wall seconds. */
int64_t pt_http_tls_expires(struct pt_http_tls_pair *t);
/* GnuTLS asks for the certificate of a handshake (gnutls_certificate_retrieve_function3 in its manual): the connection keeps it until its
 * end, and releases it then. */
void pt_http_cert_release(struct pt_http_cert *c);
int pt_http_on_certificate(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **ret_chain,
			   unsigned *ret_n, gnutls_ocsp_data_st **ret_ocsp, unsigned *ret_n_ocsp, gnutls_privkey_t *ret_key,
			   unsigned *flags);

/* http_accept.c */
#define PT_HTTP_ID_LISTEN (UINT64_MAX - 1) /* the listening socket among what the watcher waits for */
int pt_http_accept_start(struct pt_http_server *s, struct pt_err *err) PT_MUSTCHECK;
/* Accept who waits.  When to call it again, in ms, or -1: when the socket says so. */
int pt_http_accept(struct pt_http_server *s);

/* http_watch.c: one thread for new clients, those that went away and those that are too slow. */
int pt_http_watch_start(struct pt_http_server *s, struct pt_err *err) PT_MUSTCHECK;
void pt_http_watch_stop(struct pt_http_server *s);
void pt_http_watch_kick(struct pt_http_server *s);
/* Watch the connection of a held request (thread T, after it was suspended). */
void pt_http_watch_add(struct pt_http_req *r);
/* Answer every held request with 503 and tell its holder. */
void pt_http_watch_evict(struct pt_http_server *s);
#endif
