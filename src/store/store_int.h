/* Inside of the stores: the backends, and the settings as they read them.  Not for others. */
#ifndef PT_STORE_STORE_INT_H
#define PT_STORE_STORE_INT_H
#include "store/store.h"

extern const struct pt_store_ops pt_store_s3, pt_store_gcs, pt_store_azure_blob, pt_store_directory;

static inline bool pt_store_has(const char *setting)
{
	return setting && *setting;
}

/* A key as the conf has it, from the setting or its file; *ret (NULL when neither is set) is the caller's, to wipe. 
 * CREDENTIAL. */
int pt_store_secret(const char *value, const char *file, char **ret, struct pt_err *err) PT_MUSTCHECK;
#endif
