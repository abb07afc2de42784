/* rows CONNECTOR CONNECT_ARGS SQL [FILE]: run a query through the connector layer, write its rows as JSON Lines to FILE
 * (default /dev/null) and one line of JSON with the figures to standard output. */
#include "base/clock.h"
#include "connector/rows.h"
#include "os/file.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>

static int out(void *arg, const char *p, size_t n, struct pt_err *err)
{
	return pt_write_all(*(int *)arg, p, n, err);
}

/* Peak of this program alone: getrusage() also counts what its parent had before exec. */
static long peak_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	long kib = 0;

	while (f && fgets(line, sizeof(line), f) && sscanf(line, "VmHWM: %ld", &kib) != 1)
		;
	if (f)
		fclose(f);
	return kib;
}

static int run(char **argv, const char *file, struct pt_err *err)
{
	const struct pt_connector *type = pt_connector_find(argv[1]);
	struct pt_conn *c = NULL;
	struct ArrowArrayStream s = { 0 };
	struct pt_rows_stats st = { 0 };
	struct pt_query q = { .sql = argv[3] };
	json_t *args = NULL;
	struct rusage ru;
	int64_t start;
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), rc = PT_OK;

	if (!type || fd < 0)
		return pt_fail(err, PT_E_INVALID, "no such connector or file");
	rc = pt_json_parse(argv[2], strlen(argv[2]), &args, err);
	if (rc == 0)
		rc = type->open(&c, args, NULL, err);
	start = pt_mono_ns();
	if (rc == 0)
		rc = pt_conn_query(c, &q, &s, err);
	if (rc == 0) {
		rc = pt_rows_jsonl(&s, c, NULL, out, &fd, &st, err);
		s.release(&s);
	}
	pt_conn_close(c);
	json_decref(args);
	(void)close(fd);
	if (rc < 0)
		return rc;
	getrusage(RUSAGE_SELF, &ru);
	double seconds = (double)(pt_mono_ns() - start) / 1e9;
	double cpu =
		(double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) + (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;

	printf("{\"rows\":%lld,\"bytes\":%lld,\"seconds\":%.3f,\"rows_per_s\":%.0f,\"cpu_s\":%.3f,\"max_rss_kib\":%ld}\n",
	       (long long)st.rows, (long long)st.bytes, seconds, (double)st.rows / seconds, cpu, peak_kib());
	return PT_OK;
}

int main(int argc, char **argv)
{
	struct pt_err err = { 0 };

	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: rows CONNECTOR CONNECT_ARGS SQL [FILE]\n");
		return 64;
	}
	if (run(argv, argc > 4 ? argv[4] : "/dev/null", &err) < 0) {
		fprintf(stderr, "rows: %s: %s %s%s%s\n", pt_code_wire(err.code), err.msg, err.native, err.hint[0] ? "; " : "",
			err.hint);
		return pt_code_exit(err.code);
	}
	return 0;
}
