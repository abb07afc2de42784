/* Replays corpus files through a fuzz target where libFuzzer is absent, so that every build checks the corpus.  Arguments are
 * files or folders of files; at least one file must be there. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
	FILE *f = fopen(path, "rbe");
	uint8_t *in = malloc(1 << 20);
	int rc = f && in ? 1 : -1;

	if (rc > 0) {
		/* A copy of the exact size, so that the address sanitizer sees a read behind the end. */
		size_t n = fread(in, 1, 1 << 20, f);
		uint8_t *exact = malloc(n ? n : 1);

		if (exact)
			memcpy(exact, in, n);
		LLVMFuzzerTestOneInput(exact, n);
		free(exact);
	} else {
		perror(path);
	}
	if (f)
		fclose(f);
	free(in);
	return rc;
}

int main(int argc, char **argv)
{
	int n = 0;

	for (int i = 1; i < argc; i++) {
		DIR *d = opendir(argv[i]);

		for (struct dirent *e; d && (e = readdir(d));) {
			char path[4096];

			if (e->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/%s", argv[i], e->d_name);
			if (replay(path) < 0)
				return 1;
			n++;
		}
		if (d)
			closedir(d);
		else if (replay(argv[i]) < 0)
			return 1;
		else
			n++;
	}
	printf("%d inputs replayed\n", n);
	return n == 0;
}
