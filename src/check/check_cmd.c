/* `postern check` and its subcommands. */
#include "check/ask.h"
#include "check/check.h"

const struct pt_command pt_cmd_check = {
	.name = "check",
	.summary = "ask an agent that runs beside us",
	.sub = pt_check_probes,
};
