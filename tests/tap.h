/* Test Anything Protocol, version 12, in a few lines: ok(), is_str(), is_int(), then return tap_end(). */
#ifndef PT_TAP_H
#define PT_TAP_H
#include <stdio.h>
#include <string.h>
static int tap_n_, tap_bad_;
#define ok(c, ...)                                                       \
	do {                                                             \
		int c_ = !!(c);                                          \
		tap_bad_ += !c_;                                         \
		printf("%sok %d - ", c_ ? "" : "not ", ++tap_n_);        \
		printf(__VA_ARGS__);                                     \
		putchar('\n');                                           \
		if (!c_)                                                 \
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #c); \
	} while (0)
#define is_str(a, b, ...)                                                         \
	do {                                                                      \
		const char *a_ = (a), *b_ = (b);                                  \
		ok(a_ &&strcmp(a_, b_) == 0, __VA_ARGS__);                        \
		if (!a_ || strcmp(a_, b_))                                        \
			printf("# got '%s' want '%s'\n", a_ ? a_ : "(null)", b_); \
	} while (0)
#define is_int(a, b, ...)                                           \
	do {                                                        \
		long long a_ = (long long)(a), b_ = (long long)(b); \
		ok(a_ == b_, __VA_ARGS__);                          \
		if (a_ != b_)                                       \
			printf("# got %lld want %lld\n", a_, b_);   \
	} while (0)
static inline int tap_end(void)
{
	printf("1..%d\n", tap_n_);
	return tap_bad_ != 0;
}
#endif
