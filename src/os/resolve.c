#include "os/resolve.h"
#include <net/if.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

enum { MAX_LOOKUPS = 128, LOOKUP_STACK = 256 * 1024, AGAIN_MOST = 3, AGAIN_MS = 200 };

/* Shared by the caller and the lookup's thread; the one that leaves last frees it. */
struct lookup {
	_Atomic int refs;
	int done_fd;       /* eventfd, readable once rc and found are there */
	_Atomic bool done; /* the same for memory order */
	int (*fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	int rc, sys; /* of fn, and its errno */
	struct addrinfo hints, *found;
	char port[8];
	char host[];
};

static _Atomic int running; /* lookups whose thread has not ended */
static int (*lookup_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = getaddrinfo;

void pt_resolve_inject(int (*fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **))
{
	lookup_fn = fn ? fn : getaddrinfo;
}

static void unref(struct lookup *l)
{
	if (atomic_fetch_sub(&l->refs, 1) > 1)
		return;
	pt_addrs_freep(&l->found);
	pt_closep(&l->done_fd);
	free(l);
}
PT_DEFINE_CLEANUP(struct lookup *, unref)

static void *lookup_main(void *arg)
{
	struct lookup *l = arg;
	uint64_t one = 1;

	/* "Temporary failure": in a pod that has just started, and where packets are lost, the next try is answered. */
	for (unsigned i = 0; (l->rc = l->fn(l->host, l->port, &l->hints, &l->found)) == EAI_AGAIN && i < AGAIN_MOST; i++) {
		(void)poll(NULL, 0, AGAIN_MS << i);
		if (atomic_load(&l->refs) < 2)
			break; /* nobody waits any more */
	}
	l->sys = errno;
	atomic_store(&l->done, true);
	while (write(l->done_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	unref(l);
	atomic_fetch_sub(&running, 1);
	return NULL;
}

static int start(struct lookup *l, struct pt_err *err)
{
	pthread_attr_t attr;
	pthread_t t;
	int rc;

	if (atomic_fetch_add(&running, 1) >= MAX_LOOKUPS) {
		atomic_fetch_sub(&running, 1);
		return pt_fail(err, PT_E_LIMIT, "%d name lookups hang in the system's resolver", MAX_LOOKUPS);
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, LOOKUP_STACK);
	atomic_store(&l->refs, 2);
	rc = pthread_create(&t, &attr, lookup_main, l);
	pthread_attr_destroy(&attr);
	if (rc == 0)
		return PT_OK;
	atomic_store(&l->refs, 1);
	atomic_fetch_sub(&running, 1);
	return pt_err_set_(err, PT_E_INTERNAL, rc, __FILE__, __LINE__, "start the thread of a name lookup");
}

int pt_resolve(const char *host, unsigned port, int family, int timeout_ms, const struct pt_cancel *cancel, struct addrinfo **ret,
	       struct pt_err *err)
{
	pt_auto(unrefp) struct lookup *l = calloc(1, sizeof(*l) + strlen(host) + 1);
	int rc;

	if (!l)
		return pt_fail_oom(err);
	l->refs = 1;
	l->fn = lookup_fn;
	l->hints = (struct addrinfo) { .ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_CANONNAME };
	memcpy(l->host, host, strlen(host) + 1);
	snprintf(l->port, sizeof(l->port), "%u", port & 0xffff);
	l->done_fd = eventfd(0, EFD_CLOEXEC);
	if (l->done_fd < 0)
		return pt_fail_sys(err, PT_E_INTERNAL, "eventfd");
	rc = start(l, err);
	if (rc < 0)
		return rc;
	rc = pt_cancel_poll(cancel, l->done_fd, POLLIN, timeout_ms, err);
	if (rc == PT_E_TIMEOUT)
		return pt_fail(err, rc, "look up '%s': the name service did not answer within %d ms", host, timeout_ms);
	if (rc < 0)
		return rc;
	pt_assert(atomic_load(&l->done));
	if (l->rc == EAI_SYSTEM)
		return pt_err_set_(err, PT_E_HOST_UNKNOWN, l->sys, __FILE__, __LINE__, "look up '%s'", host);
	if (l->rc != 0)
		return pt_fail(err, PT_E_HOST_UNKNOWN, "look up '%s': %s", host, gai_strerror(l->rc));
	*ret = pt_steal(&l->found);
	return PT_OK;
}

void pt_address_text(const void *sa, char out[static 64])
{
	const struct sockaddr *a = sa;
	const struct sockaddr_in6 *six = sa;

	out[0] = '\0';
	if (a->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)sa)->sin_addr, out, 64);
	else if (a->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &six->sin6_addr, out, 64);
	if (a->sa_family == AF_INET6 && six->sin6_scope_id) {
		char name[IF_NAMESIZE];
		size_t n = strlen(out);

		if (if_indextoname(six->sin6_scope_id, name))
			snprintf(out + n, 64 - n, "%%%s", name);
	}
}
