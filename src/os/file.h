/* Files with durability spelled out. */
#ifndef PT_OS_FILE_H
#define PT_OS_FILE_H
#include "base/buf.h"
#include <sys/stat.h>

/* Append the whole file to b; PT_E_NOT_FOUND, PT_E_DENIED, PT_E_TOO_LARGE (over b's limit), PT_E_IO. */
int pt_file_read(const char *path, struct pt_buf *b, struct pt_err *err) PT_MUSTCHECK;
/* Write path.tmp, fsync, rename to path, fsync the folder: after return the new content survives power loss, and a crash
 * leaves the old or the new file, never a part. */
int pt_file_replace(const char *path, const void *data, size_t n, unsigned mode, struct pt_err *err) PT_MUSTCHECK;
/* Create path and its parents (mode 0700 for those it makes). */
int pt_mkdirs(const char *path, struct pt_err *err) PT_MUSTCHECK;
/* fsync a folder, so that names made or removed in it are durable. */
int pt_fsync_dir(const char *path, struct pt_err *err) PT_MUSTCHECK;
/* Is it the same file with the same content, by what stat(2) said of it twice? */
bool pt_file_same(const struct stat *a, const struct stat *b);
/* write(2) until all is written. */
int pt_write_all(int fd, const void *data, size_t n, struct pt_err *err) PT_MUSTCHECK;
int pt_pread_all(int fd, void *data, size_t n, int64_t offset, struct pt_err *err) PT_MUSTCHECK; /* short file: PT_E_CORRUPT */
#endif
