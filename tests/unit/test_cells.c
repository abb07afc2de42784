#include "ctl/cells.h"
#include "tap.h"

/* The cells of a line, each in brackets, null as "-"; "!" at the end when the line is refused. */
static void split(const char *line, struct pt_buf *out)
{
	pt_auto_buf scratch = PT_BUF_INIT(4096);
	struct pt_cells c = PT_CELLS_INIT(line, strlen(line));
	struct pt_cell cell;
	struct pt_err err = { 0 };
	int rc;

	while ((rc = pt_cells_next(&c, &scratch, &cell, &err)) > 0) {
		pt_buf_chr(out, '<');
		pt_buf_add(out, cell.null ? "-" : cell.p, cell.null ? 1 : cell.n);
		pt_buf_chr(out, '>');
	}
	if (rc < 0)
		pt_buf_str(out, rc == PT_E_CORRUPT && err.msg[0] ? "!" : "?");
}

int main(void)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{ "[]", "" },
		{ "[1]", "<1>" },
		{ "[1,2.50,-3e10]", "<1><2.50><-3e10>" },
		{ "[12345678901234567890123.45]", "<12345678901234567890123.45>" },
		{ "[true,false,null]", "<true><false><->" },
		{ "[\"\",\"a\",\"null\"]", "<><a><null>" },
		{ "[\"a\\\"b\",\"\\u00e9\\n\",\"x,]\"]", "<a\"b><é\n><x,]>" },
		{ " [ 1 , \"a\" ] ", "<1><a>" },
		{ "[{\"a\":[1,\"]}\"]},[[2]],3]", "<{\"a\":[1,\"]}\"]}><[[2]]><3>" },
		{ "", "!" },
		{ "{}", "!" },
		{ "[", "!" },
		{ "[1", "!" },
		{ "[1,", "<1>!" },
		{ "[1,]", "<1>!" },
		{ "[,1]", "!" },
		{ "[1 2]", "<1>!" },
		{ "[\"a", "!" },
		{ "[\"a\\", "!" },
		{ "[{\"a\":1]", "<{\"a\":1]>!" },
		{ "[1]]", "<1>!" },
		{ "[1] x", "<1>!" },
		{ "[\"\\x\"]", "!" },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		pt_auto_buf out = PT_BUF_INIT(4096);

		split(cases[i].line, &out);
		is_str(out.p, cases[i].want, "%s", cases[i].line);
	}
	return tap_end();
}
