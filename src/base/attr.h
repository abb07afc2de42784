/* Compiler attributes and scope clean-up.  A variable marked pt_auto() must always be initialised. */
#ifndef PT_BASE_ATTR_H
#define PT_BASE_ATTR_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define PT_MUSTCHECK    __attribute__((warn_unused_result))
#define PT_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define PT_UNUSED       __attribute__((unused))
#define pt_auto(fn)     __attribute__((cleanup(fn)))
#define PT_COUNT(a)     (sizeof(a) / sizeof((a)[0]))

/* PT_DEFINE_CLEANUP(struct foo *, foo_free) defines foo_freep() for pt_auto(). */
#define PT_DEFINE_CLEANUP(type, fn)                 \
	static inline PT_UNUSED void fn##p(type *p) \
	{                                           \
		if (*p)                             \
			fn(*p);                     \
	}

/* Hand ownership out of a pt_auto() variable. */
#define pt_steal(pp)                             \
	({                                       \
		__typeof__(*(pp)) pt_p_ = *(pp); \
		*(pp) = NULL;                    \
		pt_p_;                           \
	})
/* clang-format off */
#define pt_container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
/* clang-format on */

/* A broken invariant of ours (never bad input): says where, then aborts.  Kept in release builds. */
#define pt_assert(c) ((c) ? (void)0 : pt_panic_(__FILE__, __LINE__, #c))
_Noreturn void pt_panic_(const char *file, int line, const char *what);

static inline void pt_freep(void *p)
{
	free(*(void **)p);
}
static inline void pt_closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}
#endif
