/* health, logs, metrics: what the agent knows about itself. */
#include "op/doc.h"
#include "base/log.h"

enum { LOGS_DEFAULT = 1000, LOGS_MOST = 10000, LOGS_BYTES = 64 << 20, METRICS_BYTES = 512 * 1024 };

struct nothing {
	char none;
};
static const struct pt_shape nothing_shape = { .name = "input", .size = sizeof(struct nothing) };

struct logs_input {
	int64_t after, max_lines;
};
static const struct pt_field logs_fields[] = {
	PT_F(struct logs_input, after, PT_T_I64, 0, .min = 0, .max = INT64_MAX, .help = "only lines after this one"),
	PT_F(struct logs_input, max_lines, PT_T_I64, 0, .min = 1, .max = LOGS_MOST, .def = LOGS_DEFAULT,
	     .help = "newest lines to give"),
};
static const struct pt_shape logs_shape = PT_SHAPE("input", struct logs_input, logs_fields);

static int not_available(const struct pt_op_run *run, struct pt_err *err)
{
	return pt_fail(err, PT_E_UNSUPPORTED, "this agent gives no %s", run->lease->type);
}

static int health_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	pt_auto_buf b = PT_DOC_INIT;

	if (!run->agent->health)
		return not_available(run, err);
	run->agent->health(run->agent->arg, &b);
	return pt_doc_done(run, &b, err);
}

static int metrics_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	pt_auto_buf text = PT_BUF_INIT(METRICS_BYTES);
	pt_auto_buf b = PT_DOC_INIT;
	int rc;

	if (!run->agent->metrics)
		return not_available(run, err);
	run->agent->metrics(run->agent->arg, &text);
	rc = pt_buf_done(&text, err);
	if (rc < 0)
		return rc;
	pt_doc_open(&b, NULL, '{');
	pt_doc_key(&b, "text");
	pt_buf_json(&b, text.p, text.len);
	pt_buf_chr(&b, '}');
	return pt_doc_done(run, &b, err);
}

static int logs_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	const struct logs_input *in = input;
	pt_auto_buf lines = PT_BUF_INIT(LOGS_BYTES);
	pt_auto_buf b = PT_DOC_INIT;
	uint64_t last = pt_log_ring(&lines, (uint64_t)in->after, (size_t)in->max_lines);
	int rc = pt_buf_done(&lines, err);

	if (rc == 0 && lines.len)
		rc = run->body->write(run->body, lines.p, lines.len, err);
	if (rc < 0)
		return rc;
	for (const char *p = lines.p; (p = strchr(p, '\n')); p++)
		run->head->rows++;
	pt_doc_open(&b, NULL, '{');
	pt_doc_int(&b, "lines", run->head->rows);
	pt_doc_int(&b, "last", last ? (int64_t)last : in->after);
	pt_buf_chr(&b, '}');
	rc = pt_doc_done(run, &b, err);
	if (rc < 0)
		return rc;
	run->head->bytes = (int64_t)lines.len;
	run->head->body_format = strdup("jsonl");
	return run->head->body_format ? PT_OK : pt_fail_oom(err);
}

const struct pt_op_type pt_op_health = { .name = "health",
					 .summary = "what the agent says about itself",
					 .input = &nothing_shape,
					 .input_size = sizeof(struct nothing),
					 .run = health_run };
const struct pt_op_type pt_op_metrics = { .name = "metrics",
					  .summary = "the agent's metrics as Prometheus text",
					  .input = &nothing_shape,
					  .input_size = sizeof(struct nothing),
					  .run = metrics_run };
const struct pt_op_type pt_op_logs = { .name = "logs",
				       .summary = "the agent's newest log lines",
				       .input = &logs_shape,
				       .input_size = sizeof(struct logs_input),
				       .run = logs_run };
