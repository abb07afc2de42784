/* The agent's own key, from the token file.  The file is looked at before each use and read again when it has changed, so
 * that a key is rotated by replacing the file.  Thread-safe. */
#ifndef PT_AGENT_KEYS_H
#define PT_AGENT_KEYS_H
#include "base/buf.h"
#include <pthread.h>
#include <sys/stat.h>

struct pt_key {
	char id[128], secret[512];
	unsigned generation; /* counts the keys that the file has had */
};
struct pt_keys {
	pthread_mutex_t lock;
	const char *path;
	struct stat seen; /* of the file that key was read from */
	struct pt_key key;
	bool bad;         /* the newest file could not be used: said once */
};
/* Read it for the first time.  NOT_FOUND, DENIED, INVALID, all with a hint. */
int pt_keys_open(struct pt_keys *k, const char *path, struct pt_err *err) PT_MUSTCHECK;
void pt_keys_close(struct pt_keys *k);
/* Today's key.  A file that cannot be used any more leaves the old one in place, with a warning in the log.  Caller clears
 * *ret. */
void pt_keys_get(struct pt_keys *k, struct pt_key *ret);
/* Has the file another key than that of this generation? */
bool pt_keys_changed(struct pt_keys *k, unsigned generation);
#endif
