/* Which security and monitoring products a name on this machine belongs to. */
#ifndef PT_CHECK_SECURITY_H
#define PT_CHECK_SECURITY_H
#include <stdbool.h>

/* The product that a process, module, mount or library of this name belongs to, NULL = none that we know.  A product's word must stand
 * by itself: "falco" is not in "falcon". */
const char *pt_security_product(const char *text);
#endif
