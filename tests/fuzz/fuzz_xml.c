/* Answers of clouds: any bytes are read within bounds, the text found is no longer than the document, and elements lie one
 * after the other. */
#include "cloud/xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "Code", "Key", "Contents" };
	char *copy = malloc(size ? size : 1); /* its end is where the sanitizer watches */

	pt_assert(copy);
	memcpy(copy, data, size);
	for (size_t i = 0; i < PT_COUNT(names); i++) {
		struct pt_xml doc = { copy, size }, rest = doc, one;
		pt_auto_buf text = PT_BUF_INIT(3 * size + 16);
		const char *last = copy;

		while (pt_xml_next(&rest, names[i], &one)) {
			pt_assert(one.p >= last && one.p + one.n <= rest.p && rest.p + rest.n == copy + size);
			last = one.p;
		}
		pt_assert(rest.n == 0);
		if (pt_xml_text(doc, names[i], &text))
			pt_assert(text.len <= size && !text.bad);
	}
	free(copy);
	return 0;
}
