/* Waiting for an operation: a live line on a terminal, silence elsewhere, and what Ctrl-C means. */
#include "ctl/ctl.h"
#include "base/clock.h"
#include "proto/messages.h"
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>

enum { PATIENCE_MS = 300000 }; /* a gateway that restarts, or a network that is away for a while */

static struct pt_cancel interrupt; /* fired by the first SIGINT; the second ends the process */
static volatile sig_atomic_t interrupts;

static void on_interrupt(int sig)
{
	int saved = errno;

	if (++interrupts > 1)
		_exit(128 + sig);
	pt_cancel_fire(&interrupt, PT_E_CANCELLED, "interrupted"); /* a store, a copy of a constant and write(2) */
	errno = saved;
}

/* One line on standard error that overwrites itself. */
static void status_line(const json_t *op, int64_t begin)
{
	pt_auto_buf line = PT_BUF_INIT(8192), shown = PT_BUF_INIT(8192);
	json_int_t rows = json_integer_value(pt_ctl_get(op, "progress.rows"));
	const char *why = pt_ctl_text(op, "why");
	struct winsize w = { .ws_col = 80 };
	char took[32];

	(void)ioctl(STDERR_FILENO, TIOCGWINSZ, &w);
	pt_time_span(pt_mono_ms() - begin, took);
	pt_buf_fmt(&line, "%s, %s", pt_ctl_text(op, "state"), took);
	if (rows)
		pt_buf_fmt(&line, ", %lld rows", (long long)rows);
	if (why[0])
		pt_buf_fmt(&line, ": %s", why);
	pt_text_printable(&shown, line.p, line.len);
	pt_text_cut(&shown, w.ws_col > 10 ? w.ws_col - 1u : 79);
	fprintf(stderr, "\r%s\033[K", shown.p);
	fflush(stderr);
}

bool pt_ctl_ended(const json_t *op)
{
	int state = pt_op_state_from(pt_ctl_text(op, "state"));

	return state >= 0 && pt_op_terminal((enum pt_op_state)state);
}

static void tell_interrupt(const char *id)
{
	fprintf(stderr,
		"\nThe operation goes on without you. See it: postern ctl operations show %s\n"
		"Stop it: postern ctl operations cancel %s\nWaiting again; Ctrl-C once more leaves.\n",
		id, id);
}

static int wait_loop(struct pt_ctl_api *api, const char *id, const char *path, struct pt_ctl_answer *ret, struct pt_err *err)
{
	bool live = isatty(STDERR_FILENO), drawn = false;
	int64_t begin = pt_mono_ms();
	const struct pt_ctl_call call = { .method = "GET", .path = path, .cancel = &interrupt };
	int rc;

	for (;;) {
		rc = pt_ctl_call(api, &call, ret, err);
		if (rc == PT_E_CANCELLED && interrupts == 1) {
			tell_interrupt(id);
			pt_cancel_release(&interrupt);
			rc = pt_cancel_init(&interrupt, err);
			drawn = false;
			if (rc < 0)
				return rc;
			continue;
		}
		if (rc < 0 || pt_ctl_ended(ret->doc))
			break;
		if (live && pt_mono_ms() - begin > 300) { /* short ones end without a flicker */
			status_line(ret->doc, begin);
			drawn = true;
		}
	}
	if (drawn)
		fprintf(stderr, "\r\033[K");
	return rc;
}

int pt_ctl_wait(struct pt_ctl_api *api, const char *id, struct pt_ctl_answer *ret, struct pt_err *err)
{
	struct sigaction act = { .sa_handler = on_interrupt }, before;
	pt_auto_buf path = PT_BUF_INIT(8192);
	int rc = pt_cancel_init(&interrupt, err);

	if (rc < 0)
		return rc;
	interrupts = 0;
	(void)sigaction(SIGINT, &act, &before);
	pt_ctl_api_patience(api, PATIENCE_MS);
	/* on a terminal the line wants fresh numbers each second; the gateway answers at once when the operation ends */
	rc = wait_loop(api, id, pt_ctl_path(&path, "operations", id, isatty(STDERR_FILENO) ? "?wait=1" : "?wait=30"), ret, err);
	(void)sigaction(SIGINT, &before, NULL);
	pt_cancel_release(&interrupt);
	return rc;
}

int pt_ctl_outcome(const json_t *op, struct pt_err *err)
{
	const json_t *error = json_object_get(op, "error");
	const char *state = pt_ctl_text(op, "state"), *why = pt_ctl_text(op, "why");
	struct pt_error_doc doc = { 0 };

	if (strcmp(state, "succeeded") == 0)
		return PT_OK;
	if (json_object_size(error) && pt_shape_decode(&pt_error_doc_shape, error, &doc, err) >= 0) {
		pt_error_doc_to(&doc, err);
		pt_shape_release(&pt_error_doc_shape, &doc);
	} else {
		(void)pt_fail(err,
			      strcmp(state, "cancelled") == 0 ? PT_E_CANCELLED
			      : strcmp(state, "expired") == 0 ? PT_E_DEADLINE
							      : PT_E_INTERNAL,
			      "%s", why[0] ? why : state);
	}
	(void)pt_err_wrap(err, err->code, "operation %s", state);
	if (!err->hint[0])
		(void)pt_hint(err, "its timeline: postern ctl operations show %s", pt_ctl_text(op, "id"));
	return err->code;
}
