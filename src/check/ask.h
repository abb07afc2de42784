/* Questions to the agent that runs beside us, by its local endpoints. */
#ifndef PT_CHECK_ASK_H
#define PT_CHECK_ASK_H
#include "base/opt.h"

/* The URL that reaches an agent listening at listen ("0.0.0.0:8080" is asked by loopback).  INVALID: it listens nowhere, or we cannot
 * know where. */
int pt_ask_url(const char *listen, const char *path, struct pt_buf *url, struct pt_err *err) PT_MUSTCHECK;
/* One request; the answer's body goes to out.  0 with the HTTP status in *ret_status; < 0: pt_http_do()'s.  Never by a proxy. */
int pt_ask(const char *listen, const char *method, const char *path, int timeout_ms, int *ret_status, struct pt_buf *out,
	   struct pt_err *err) PT_MUSTCHECK;

/* postern check live | ready | reachability */
extern const struct pt_command pt_check_probes[];
#endif
