/* RabbitMQ: persistent messages to a durable queue, publisher confirms, manual acknowledgements. */
#include "peer.h"
#include <amqp.h>
#include <amqp_tcp_socket.h>

static void check_reply(amqp_rpc_reply_t r, const char *what)
{
	if (r.reply_type != AMQP_RESPONSE_NORMAL)
		peer_die(what, r.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION ? amqp_error_string2(r.library_error) : "refused");
}

static void check(amqp_connection_state_t c, const char *what)
{
	check_reply(amqp_get_rpc_reply(c), what);
}

static amqp_connection_state_t dial(const struct peer *p)
{
	amqp_connection_state_t c = amqp_new_connection();
	amqp_socket_t *s = amqp_tcp_socket_new(c);
	amqp_table_t args = amqp_empty_table;

	if (!s || amqp_socket_open(s, "127.0.0.1", p->port))
		peer_die("connect", NULL);
	check_reply(amqp_login(c, "/", 1, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "login");
	amqp_channel_open(c, 1);
	check(c, "channel");
	amqp_queue_declare(c, 1, amqp_cstring_bytes("bench"), 0, 1, 0, 0, args); /* durable */
	check(c, "queue");
	return c;
}

/* One confirm: of one message (in any order), or of all up to it.  first: the number of the connection's first message; *open: of the
 * first that is not confirmed. */
static void take_confirm(struct peer *p, amqp_connection_state_t c, size_t first, size_t *open)
{
	const amqp_basic_ack_t *ack;
	amqp_frame_t f;
	int rc = amqp_simple_wait_frame(c, &f);
	size_t last;

	if (rc != AMQP_STATUS_OK)
		peer_die("confirm", amqp_error_string2(rc));
	if (f.frame_type != AMQP_FRAME_METHOD || f.payload.method.id != AMQP_BASIC_ACK_METHOD)
		peer_die("confirm", "something else came");
	ack = f.payload.method.decoded;
	last = first + ack->delivery_tag - 1; /* tags count from 1 */
	for (size_t i = ack->multiple ? *open : last; i <= last; i++)
		if (!p->accepted[i])
			peer_confirmed(p, i);
	while (*open <= last && p->accepted[*open])
		++*open;
}

static void publish(struct publisher *w)
{
	amqp_basic_properties_t persistent = { ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = 2 };
	amqp_connection_state_t c = dial(w->p);
	size_t first = w->next, open = first;

	amqp_confirm_select(c, 1);
	check(c, "confirms");
	while (open < w->end) {
		while (w->next < w->end && w->next - open < w->p->window) {
			amqp_bytes_t body = { .len = w->p->payload, .bytes = (void *)(uintptr_t)peer_next(w) };
			int rc = amqp_basic_publish(c, 1, amqp_empty_bytes, amqp_cstring_bytes("bench"), 0, 0, &persistent, body);

			if (rc != AMQP_STATUS_OK)
				peer_die("publish", amqp_error_string2(rc));
		}
		take_confirm(w->p, c, first, &open);
		amqp_maybe_release_buffers(c);
	}
	amqp_destroy_connection(c);
}

static void consume(struct peer *p)
{
	amqp_connection_state_t c = dial(p);

	amqp_basic_qos(c, 1, 0, PREFETCH, 0);
	check(c, "prefetch");
	amqp_basic_consume(c, 1, amqp_cstring_bytes("bench"), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
	check(c, "consume");
	while (p->consumed < p->total) {
		amqp_envelope_t e;
		int rc;

		amqp_maybe_release_buffers(c);
		if (amqp_consume_message(c, &e, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
			peer_die("delivery", NULL);
		peer_delivered(p, e.message.body.bytes, e.message.body.len);
		rc = amqp_basic_ack(c, 1, e.delivery_tag, 0);
		if (rc != AMQP_STATUS_OK)
			peer_die("ack", amqp_error_string2(rc));
		amqp_destroy_envelope(&e);
	}
	amqp_channel_close(c, 1, AMQP_REPLY_SUCCESS); /* answered: the acknowledgements before it have arrived */
	amqp_destroy_connection(c);
}

int main(int argc, char **argv)
{
	return peer_main(argc, argv, &(struct peer_calls) { .publish = publish, .consume = consume });
}
