/* Secrets that the gateway tells once: tokens and keys. */
#ifndef PT_CTL_SECRET_H
#define PT_CTL_SECRET_H
#include "ctl/ctl.h"

/* Before the secret is made: would writing to path (NULL = it will be shown) work?  CONFLICT when the file is there: it may be
 * the only copy of another secret. */
int pt_ctl_secret_place(const char *path, struct pt_err *err) PT_MUSTCHECK;
/* Write secret to path (mode 0600), or show it with a warning.  When it cannot be written, what was made is revoked again (DELETE
 * of collection/id), since nobody would know its secret. */
int pt_ctl_secret_give(const struct pt_ctl_conf *c, struct pt_ctl_api *api, const struct pt_ctl_answer *a,
		       const struct pt_buf *secret, const char *path, const char *collection, const char *id,
		       struct pt_err *err) PT_MUSTCHECK;
#endif
