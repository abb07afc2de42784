/* Self-hosted credentials: what a reference may name, what is read, and that no error quotes a secret. */
#include "credential/credential.h"
#include "os/file.h"
#include "../tap.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define SECRET "hunter2"
#define GOOD   "{\"connect_args\":{\"host\":\"db\",\"password\":\"" SECRET "\",\"opts\":[\"a\"]},\"note\":\"" SECRET "\"}"

static char dir[] = "/tmp/postern-credential-XXXXXX";

static const char *under(const char *name)
{
	static char path[4][300];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void put(const char *name, const void *text, size_t n)
{
	struct pt_err e;

	ok(pt_file_replace(under(name), text, n, 0600, &e) == 0, "%s made", name);
}

static void checks(void)
{
	static const struct {
		const char *ref[3]; /* type, file_path, env_var_name */
		const char *want;   /* NULL = good */
	} t[] = {
		{ { "FILE", "/etc/secrets/integrations/a.json", NULL }, NULL },
		{ { "FILE", "/a/..data/b", NULL }, NULL },
		{ { "FILE", "/a/...", NULL }, NULL },
		{ { "ENV_VAR", NULL, "POSTERN_CREDENTIAL_DW" }, NULL },
		{ { "ENV_VAR", NULL, "MCD_DW1" }, NULL },
		{ { NULL, "/a", NULL }, "has no type" },
		{ { "VAULT", NULL, NULL }, "unknown credential type 'VAULT'" },
		{ { "file", "/a", NULL }, "unknown credential type 'file'" },
		{ { "FILE", NULL, NULL }, "needs file_path" },
		{ { "FILE", "", NULL }, "needs file_path" },
		{ { "FILE", "a.json", NULL }, "is not absolute" },
		{ { "FILE", "/a/../b", NULL }, "has a '..'" },
		{ { "FILE", "/a/..", NULL }, "has a '..'" },
		{ { "FILE", "/a/", NULL }, "names a folder" },
		{ { "FILE", "/a/.", NULL }, "names a folder" },
		{ { "FILE", "/", NULL }, "names a folder" },
		{ { "FILE", "/a", "MCD_A" }, "env_var_name does not belong" },
		{ { "ENV_VAR", NULL, NULL }, "needs env_var_name" },
		{ { "ENV_VAR", NULL, "PATH" }, "'PATH' is not allowed" },
		{ { "ENV_VAR", NULL, "POSTERN_TOKEN" }, "is not allowed" },
		{ { "ENV_VAR", NULL, "MCD_" }, "is not allowed" },
		{ { "ENV_VAR", NULL, "MCD_A B" }, "is not allowed" },
		{ { "ENV_VAR", NULL, "XMCD_A" }, "is not allowed" },
		{ { "ENV_VAR", "/a", "MCD_A" }, "file_path does not belong" },
	};
	struct pt_err e;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		struct pt_credential_ref ref = { (char *)(uintptr_t)t[i].ref[0], (char *)(uintptr_t)t[i].ref[1],
						 (char *)(uintptr_t)t[i].ref[2] };
		int rc = pt_credential_check(&ref, &e);

		ok(rc == (t[i].want ? PT_E_INVALID : 0), "reference %zu", i);
		ok(!t[i].want || strstr(e.msg, t[i].want), "reference %zu: %s", i, t[i].want ? e.msg : "good");
	}
}

/* Read by FILE; the error never quotes the secret. */
static int fetch(const char *path, const char *dirs, json_t **ret, struct pt_err *err)
{
	struct pt_credential_ref ref = { (char *)(uintptr_t) "FILE", (char *)(uintptr_t)path, NULL };
	struct pt_credential_conf conf = { dirs };
	int rc;

	memset(err, 0, sizeof(*err));
	*ret = NULL;
	rc = pt_credential_connect_args(&ref, &conf, NULL, ret, err);
	ok(!strstr(err->msg, SECRET) && !strstr(err->hint, SECRET), "no secret in: %s", err->msg);
	ok((rc == 0) == (*ret != NULL), "a result or an error");
	return rc;
}

static void expect(const char *path, const char *dirs, int code, const char *want)
{
	struct pt_err e;
	json_t *j;

	is_int(fetch(path, dirs, &j, &e), code, "%s gives %s", path, pt_code_wire(code));
	if (code == 0)
		is_str(json_string_value(json_object_get(j, "password")), SECRET, "the secret");
	else
		ok(strstr(e.msg, want), "%s", e.msg);
	pt_credential_release(j);
}

static void files(void)
{
	char dirs[400], big[1];
	struct pt_err e;
	pt_auto_buf fat = PT_BUF_INIT(2 << 20);

	snprintf(dirs, sizeof(dirs), "relative:/nowhere:%s/in/", dir);
	ok(pt_mkdirs(under("in/sub"), &e) == 0 && pt_mkdirs(under("out"), &e) == 0 && pt_mkdirs(under("inside"), &e) == 0,
	   "folders");
	put("in/a.json", GOOD, strlen(GOOD));
	put("in/sub/b.json", GOOD, strlen(GOOD));
	put("out/c.json", GOOD, strlen(GOOD));
	put("inside/d.json", GOOD, strlen(GOOD));

	expect(under("in/a.json"), dirs, 0, NULL);
	expect(under("in//sub/b.json"), dirs, 0, NULL);
	expect(under("out/c.json"), dirs, PT_E_DENIED, "not below an allowed folder");
	expect(under("inside/d.json"), dirs, PT_E_DENIED, "not below an allowed folder"); /* "in" is no prefix of "inside" */
	expect(under("in/a.json"), NULL, PT_E_DENIED, "not below an allowed folder");
	expect(under("in/a.json"), "", PT_E_DENIED, "not below an allowed folder");
	expect("in/a.json", dirs, PT_E_INVALID, "not absolute");
	expect(under("in/../out/c.json"), dirs, PT_E_INVALID, "'..'");
	expect(under("in/none.json"), dirs, PT_E_CREDENTIAL, "No such file");
	expect(under("in/sub"), dirs, PT_E_CREDENTIAL, "not a plain file");
	ok(mkfifo(under("in/fifo"), 0600) == 0, "a FIFO");
	expect(under("in/fifo"), dirs, PT_E_CREDENTIAL, "not a plain file");
	expect(under("in/a.json/x"), dirs, PT_E_CREDENTIAL, "Not a directory");

	/* links that lead outside: absolute, relative, a folder, by /proc */
	ok(symlink(under("out/c.json"), under("in/abs")) == 0 && symlink("../out/c.json", under("in/rel")) == 0 &&
		   symlink("../out", under("in/dir")) == 0 && symlink("/proc/self/root", under("in/magic")) == 0,
	   "links");
	expect(under("in/abs"), dirs, PT_E_DENIED, "symbolic link");
	expect(under("in/rel"), dirs, PT_E_DENIED, "symbolic link");
	expect(under("in/dir/c.json"), dirs, PT_E_DENIED, "symbolic link");
	expect(under("in/magic/etc/passwd"), dirs, PT_E_DENIED, "symbolic link");

	/* links that stay inside, there and back; one that leads to itself */
	ok(symlink("sub/../sub", under("in/back")) == 0 && symlink("./back//b.json", under("in/inner")) == 0 &&
		   symlink("sub/../../in/a.json", under("in/above")) == 0 && symlink("loop", under("in/loop")) == 0,
	   "links");
	expect(under("in/back/b.json"), dirs, 0, NULL);
	expect(under("in/inner"), dirs, 0, NULL);
	expect(under("in/above"), dirs, PT_E_DENIED, "symbolic link");
	expect(under("in/loop"), dirs, PT_E_DENIED, "symbolic link");
	expect(under("in/back"), dirs, PT_E_CREDENTIAL, "not a plain file");

	/* a Kubernetes secret mount, before and after an update */
	ok(pt_mkdirs(under("in/k8s/..2026_11_20"), &e) == 0 && pt_mkdirs(under("in/k8s/..2026_11_21"), &e) == 0, "mount");
	put("in/k8s/..2026_11_20/db", "{}", 2);
	put("in/k8s/..2026_11_21/db", GOOD, strlen(GOOD));
	ok(symlink("..2026_11_20", under("in/k8s/..data")) == 0 && symlink("..data/db", under("in/k8s/db")) == 0, "its links");
	expect(under("in/k8s/db"), dirs, PT_E_CREDENTIAL, "no member connect_args");
	ok(symlink("..2026_11_21", under("in/k8s/..data_tmp")) == 0 &&
		   rename(under("in/k8s/..data_tmp"), under("in/k8s/..data")) == 0,
	   "updated");
	expect(under("in/k8s/db"), dirs, 0, NULL);

	/* sizes: 1 MiB is read, one byte more is not */
	pt_buf_add(&fat, GOOD, strlen(GOOD));
	while (fat.len < PT_CREDENTIAL_MAX)
		pt_buf_chr(&fat, ' ');
	put("in/fat", fat.p, fat.len);
	expect(under("in/fat"), dirs, 0, NULL);
	pt_buf_chr(&fat, ' ');
	put("in/fat", fat.p, fat.len);
	expect(under("in/fat"), dirs, PT_E_CREDENTIAL, "larger than 1048576 bytes");
	big[0] = 0;
	put("in/empty", big, 0);
	expect(under("in/empty"), dirs, PT_E_CREDENTIAL, "not valid JSON");
}

static void contents(void)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{ SECRET, "not valid JSON" },
		{ "{\"connect_args\":{\"password\":\"" SECRET "\" \"x\"}}", "not valid JSON" },
		{ "{\"connect_args\":{\"password\":\"" SECRET "\",\"password\":\"" SECRET "\"}}", "not valid JSON" },
		{ "\"" SECRET "\"", "a string, not a JSON object" },
		{ "[\"" SECRET "\"]", "an array, not a JSON object" },
		{ "{\"password\":\"" SECRET "\"}", "no member connect_args" },
		{ "{\"connect_args\":\"" SECRET "\"}", "connect_args in the secret is a string, not an object" },
		{ "{\"connect_args\":null}", "is null, not an object" },
	};
	struct pt_err e;
	json_t *j;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		put("in/x.json", t[i].text, strlen(t[i].text));
		is_int(fetch(under("in/x.json"), dir, &j, &e), PT_E_CREDENTIAL, "content %zu is refused", i);
		ok(strstr(e.msg, t[i].want) && strstr(e.hint, "connect_args"), "content %zu: %s", i, e.msg);
	}
}

static void environment(void)
{
	struct pt_credential_ref ref = { (char *)(uintptr_t) "ENV_VAR", NULL, (char *)(uintptr_t) "POSTERN_CREDENTIAL_DW" };
	struct pt_cancel cancel;
	struct pt_err e;
	json_t *j = NULL;

	unsetenv("POSTERN_CREDENTIAL_DW");
	is_int(pt_credential_connect_args(&ref, NULL, NULL, &j, &e), PT_E_CREDENTIAL, "not set");
	ok(strstr(e.msg, "POSTERN_CREDENTIAL_DW") && *e.hint, "%s", e.msg);
	setenv("POSTERN_CREDENTIAL_DW", GOOD, 1);
	is_int(pt_credential_connect_args(&ref, NULL, NULL, &j, &e), 0, "set");
	is_str(json_string_value(json_object_get(j, "host")), "db", "its content");
	ok(!json_object_get(j, "note"), "connect_args only");
	json_incref(j);
	pt_credential_release(j);
	ok(json_string_value(json_object_get(j, "password"))[0] == '\0', "released is wiped");
	json_decref(j);
	pt_credential_release(NULL);
	ref.env_var_name = (char *)(uintptr_t) "HOME";
	is_int(pt_credential_connect_args(&ref, NULL, NULL, &j, &e), PT_E_INVALID, "the check comes first");

	ok(pt_cancel_init(&cancel, &e) == 0, "token");
	pt_cancel_fire(&cancel, PT_E_CANCELLED, "by ada");
	ref.env_var_name = (char *)(uintptr_t) "POSTERN_CREDENTIAL_DW";
	is_int(pt_credential_connect_args(&ref, NULL, &cancel, &j, &e), PT_E_CANCELLED, "cancelled");
	pt_cancel_release(&cancel);
}

/* From here on openat2 fails, as where there is none (ENOSYS), or where a profile forbids what it does not know (EPERM). */
static bool without_openat2(int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { PT_COUNT(code), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 &&
	       syscall(SYS_openat2, -1, NULL, NULL, 0) < 0 && errno == error;
}

static void remove_all(const char *what)
{
	char rm[100];

	snprintf(rm, sizeof(rm), "rm -rf '%s'%s", dir, what);
	ok(system(rm) == 0, "cleaned up");
}

int main(void)
{
	static const int errors[] = { EPERM, ENOSYS }; /* of two filters the newer one wins where both say errno */

	ok(mkdtemp(dir) != NULL, "own folder");
	checks();
	files();
	for (size_t i = 0; i < PT_COUNT(errors); i++) {
		if (!without_openat2(errors[i])) {
			printf("# no seccomp filter here: files without openat2 are not tested\n");
			break;
		}
		remove_all("/*");
		files();
	}
	contents();
	environment();
	remove_all("");
	return tap_end();
}
