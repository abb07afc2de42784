/* The retry policy of one operation: is there another attempt, and after which pause?  Reads the operation's record only. */
#include "base/id.h"
#include "gateway/internal.h"

int64_t pt_retry_tries(const struct pt_rec_operation *op)
{
	int64_t n = op->attempt - op->released;

	return n > 0 ? n : 1; /* it was given back, and its result came all the same */
}

int pt_retry_of(const struct pt_rec_operation *op, struct pt_retry *ret, struct pt_err *err)
{
	int rc = op->retry ? pt_shape_parse(&pt_retry_shape, op->retry, strlen(op->retry), ret, err) : PT_OK;

	if (rc < 0)
		return pt_err_wrap(err, rc, "stored retry policy of %s", op->id);
	pt_retry_defaults(ret);
	ret->max_attempts = op->max_attempts;
	return PT_OK;
}

static bool wanted(const struct pt_retry *r, const struct pt_retry_cause *cause)
{
	if (cause->lost)
		return pt_retry_on(r, "lost");
	return (cause->error->retryable && pt_retry_on(r, "retryable")) || pt_retry_on(r, cause->error->code);
}

/* Exponential with full jitter: many that failed together do not come back together. */
static int64_t pause_of(const struct pt_gateway *g, const struct pt_retry *r, int64_t tries)
{
	int64_t bound = r->backoff_ms;
	uint64_t random;

	for (int64_t i = 1; i < tries && bound < r->max_backoff_ms; i++)
		bound = bound > r->max_backoff_ms / 2 ? r->max_backoff_ms : bound * 2;
	if (bound > r->max_backoff_ms)
		bound = r->max_backoff_ms;
	if (g->jitter)
		return g->jitter(bound);
	pt_random(&random, sizeof(random));
	return 1 + (int64_t)(random % (uint64_t)bound);
}

int pt_retry_next(struct pt_gateway *g, const struct pt_rec_operation *op, const struct pt_retry_cause *cause, int64_t *ret_pause,
		  struct pt_err *err)
{
	struct pt_retry r = { 0 };
	int64_t tries = pt_retry_tries(op);
	int rc;

	*ret_pause = -1;
	if (op->at_most_once || tries >= op->max_attempts)
		return PT_OK;
	rc = pt_retry_of(op, &r, err);
	if (rc == 0 && wanted(&r, cause))
		*ret_pause = pause_of(g, &r, tries);
	pt_shape_release(&pt_retry_shape, &r);
	return rc;
}
