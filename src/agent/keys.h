/* The agent's own key, from the token file.  The file is looked at before each use and read again when it has changed, so
 * that a key is rotated by replacing the file.  Keys that the agent had before may stand in it as "previous" (one, or a list of up
 * to PT_KEYS_PREVIOUS): they are never shown to the gateway and only open what was sealed with them.  Thread-safe. */
#ifndef PT_AGENT_KEYS_H
#define PT_AGENT_KEYS_H
#include "base/buf.h"
#include <pthread.h>
#include <sys/stat.h>

struct pt_key {
	char id[128], secret[512];
	unsigned generation; /* counts the keys that the file has had */
};
enum { PT_KEYS_PREVIOUS = 8 };
struct pt_keys {
	pthread_mutex_t lock;
	const char *path;
	/* Called when the file has been read again, by the thread that noticed, without the lock; NULL = nobody.  Set it before
	 * a second thread knows the keys. */
	void (*changed)(void *arg);
	void *arg;
	struct stat seen; /* of the file that key was read from */
	struct pt_key key, previous[PT_KEYS_PREVIOUS];
	unsigned n_previous;
	bool bad;         /* the newest file could not be used: said once */
};
/* Read it for the first time.  NOT_FOUND, DENIED, INVALID, all with a hint. */
int pt_keys_open(struct pt_keys *k, const char *path, struct pt_err *err) PT_MUSTCHECK;
void pt_keys_close(struct pt_keys *k);
/* Today's key.  A file that cannot be used any more leaves the old one in place, with a warning in the log.  Caller clears
 * *ret. */
void pt_keys_get(struct pt_keys *k, struct pt_key *ret);
/* Today's key and the previous ones, in this order; the number of them.  All have today's generation.  Caller clears them. */
unsigned pt_keys_all(struct pt_keys *k, struct pt_key ret[static 1 + PT_KEYS_PREVIOUS]);
struct pt_keys_state {
	unsigned generation, previous; /* of the key in use; how many keys stand beside it */
	int64_t changed_at;            /* of the file that was read last, wall seconds */
	bool bad;                      /* that file could not be used: an older key is in use */
};
void pt_keys_state(struct pt_keys *k, struct pt_keys_state *ret);
/* Has the file another key than that of this generation? */
bool pt_keys_changed(struct pt_keys *k, unsigned generation);
#endif
