/* Writes known contents in known orders, for test_powercut.py.  Usage: scribble CASE DIR; prints "ready" when everything is written, then
 * waits to be killed. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void fill(int fd, int c, int blocks, off_t at)
{
	char b[BLOCK];

	memset(b, c, sizeof(b));
	for (int i = 0; i < blocks; i++)
		must(pwrite(fd, b, sizeof(b), at + (off_t)i * BLOCK) == BLOCK, "pwrite");
}

static int make(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	must(fd >= 0, name);
	return fd;
}

static void sync_dir(void)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	must(fd >= 0 && fsync(fd) == 0, "fsync of the folder");
	close(fd);
}

/* a: 16 blocks of 'a' synced, then the first 8 are 'b' and 4 more 'c' are behind, unsynced */
static void overwrite(void)
{
	int fd = make("a");

	fill(fd, 'a', 16, 0);
	must(fsync(fd) == 0, "fsync");
	fill(fd, 'b', 8, 0);
	fill(fd, 'c', 4, 16 * BLOCK);
}

/* as before, and then all of it synced */
static void synced(void)
{
	int fd = make("a");

	fill(fd, 'a', 16, 0);
	fill(fd, 'b', 8, 0);
	must(fdatasync(fd) == 0, "fdatasync");
}

/* synced 'a', cut to 2 blocks, and 'b' written behind; by write() and writev() */
static void truncated(void)
{
	char bs[] = "bbbb";
	struct iovec v[2] = { { bs, 2 }, { bs, 4 } };
	int fd = make("a");

	fill(fd, 'a', 16, 0);
	must(fsync(fd) == 0, "fsync");
	must(ftruncate(fd, 2 * BLOCK) == 0 && lseek(fd, 0, SEEK_END) == 2 * BLOCK, "ftruncate");
	must(write(fd, "bb", 2) == 2 && writev(fd, v, 2) == 6, "write");
}

/* old replaced by rename without an fsync of the folder; gone removed; sub made with a file in it */
static void names(void)
{
	int old = make("old"), gone = make("gone"), fresh;

	must(write(old, "old", 3) == 3 && write(gone, "gone", 4) == 4 && fsync(old) == 0 && fsync(gone) == 0, "write");
	sync_dir();
	fresh = make("old.tmp");
	must(write(fresh, "new", 3) == 3 && fsync(fresh) == 0 && rename("old.tmp", "old") == 0, "replace");
	must(unlink("gone") == 0, "unlink");
	must(mkdir("sub", 0700) == 0, "mkdir");
	close(make("sub/f"));
}

/* the same, and the folder synced */
static void names_synced(void)
{
	int fd;

	names();
	fd = open("sub/f", O_RDWR | O_CLOEXEC);
	must(fd >= 0 && fsync(fd) == 0, "fsync");
	sync_dir();
}

/* the wall clock and the monotonic one, as often as a line is read */
static void clocks(void)
{
	struct timespec wall, mono;
	char line[16];

	while (fgets(line, sizeof(line), stdin)) {
		must(clock_gettime(CLOCK_REALTIME, &wall) == 0 && clock_gettime(CLOCK_MONOTONIC, &mono) == 0, "clock");
		printf("%lld %lld %lld\n", (long long)wall.tv_sec, (long long)mono.tv_sec, (long long)time(NULL));
		fflush(stdout);
	}
	exit(0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{ "overwrite", overwrite },       { "synced", synced }, { "truncated", truncated }, { "names", names },
		{ "names_synced", names_synced }, { "clocks", clocks },
	};

	must(argc == 3 && chdir(argv[2]) == 0, "usage: scribble CASE DIR");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (strcmp(argv[1], cases[i].name) == 0) {
			cases[i].run();
			puts("ready");
			fflush(stdout);
			for (;;)
				pause();
		}
	return 2;
}
