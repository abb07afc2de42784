/* A cancel token: one owner cancels (or lets a deadline pass), any number of blocking calls notice at once.  The file
 * descriptor becomes readable on cancel, so it goes into poll(2) beside a socket.  Thread-safe. */
#ifndef PT_OS_CANCEL_H
#define PT_OS_CANCEL_H
#include "base/err.h"

struct pt_cancel {
	int fd;              /* eventfd, readable once cancelled */
	int64_t deadline_ms; /* pt_mono_ms() value, INT64_MAX = none; set before the work starts */
	_Atomic int code;    /* 0, or PT_E_CANCELLED / PT_E_DEADLINE as given */
	char reason[120];    /* written once, before code */
};

int pt_cancel_init(struct pt_cancel *c, struct pt_err *err) PT_MUSTCHECK;
void pt_cancel_release(struct pt_cancel *c);
/* The first call wins; reason is for people ("cancelled by ada", "agent is stopping"). */
void pt_cancel_fire(struct pt_cancel *c, enum pt_code code, const char *reason);
/* 0 while the work may go on; else fills err with CANCELLED or DEADLINE.  NULL is never cancelled. */
int pt_cancel_check(const struct pt_cancel *c, struct pt_err *err) PT_MUSTCHECK;
/* Milliseconds poll(2) may wait: up to most_ms, less when the deadline is nearer, never below 0. */
int pt_cancel_wait_ms(const struct pt_cancel *c, int most_ms);
/* Wait for fd to have events (poll(2) flags), for the cancel or for the deadline.  Returns 0 ready, PT_E_TIMEOUT after
 * most_ms (-1 = no limit), or what pt_cancel_check() says. */
int pt_cancel_poll(const struct pt_cancel *c, int fd, short events, int most_ms, struct pt_err *err) PT_MUSTCHECK;
#endif
