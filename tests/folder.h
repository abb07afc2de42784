/* A test's own folder is removed at its end; one that stays in /tmp fails nobody. */
#ifndef PT_TESTS_FOLDER_H
#define PT_TESTS_FOLDER_H
#include <ftw.h>
#include <stdio.h>

static inline int folder_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static inline void folder_remove(const char *path)
{
	(void)nftw(path, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
#endif
