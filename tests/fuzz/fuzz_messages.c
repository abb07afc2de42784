/* Messages from the wire: the first byte picks the shape, the rest is the document.  What is accepted must be written in a form
 * that is accepted again and written the same. */
#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct pt_shape *const shapes[] = {
	&pt_error_doc_shape,
	&pt_credential_ref_shape,
	&pt_column_shape,
	&pt_limits_shape,
	&pt_lease_shape,
	&pt_operation_new_shape,
	&pt_holding_shape,
	&pt_attempt_ref_shape,
	&pt_result_head_shape,
	&pt_exchange_request_shape,
	&pt_exchange_response_shape,
	&pt_result_response_shape,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct pt_shape *sh = shapes[size ? data[0] % PT_COUNT(shapes) : 0];
	pt_auto_buf one = PT_BUF_INIT(16 << 20);
	pt_auto_buf two = PT_BUF_INIT(16 << 20);
	_Alignas(16) char msg[1024];
	struct pt_err e = { 0 };

	pt_assert(sh->size <= sizeof(msg));
	if (!size || pt_shape_parse(sh, (const char *)data + 1, size - 1, msg, &e) < 0)
		return 0;
	pt_shape_write(sh, msg, &one);
	pt_shape_release(sh, msg);
	pt_assert(pt_buf_done(&one, &e) == 0);
	pt_assert(pt_shape_parse(sh, one.p, one.len, msg, &e) == 0);
	pt_shape_write(sh, msg, &two);
	pt_shape_release(sh, msg);
	pt_assert(pt_buf_done(&two, &e) == 0);
	pt_assert(one.len == two.len && memcmp(one.p, two.p, one.len) == 0);
	return 0;
}
