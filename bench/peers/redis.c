/* Redis Streams: XADD, XREADGROUP, XACK.  With `appendfsync always` an answer means that the command is on disk. */
#include "peer.h"
#include <hiredis/hiredis.h>

static redisContext *dial(const struct peer *p)
{
	redisContext *c = redisConnect("127.0.0.1", p->port);

	if (!c || c->err)
		peer_die("connect", c ? c->errstr : NULL);
	return c;
}

static redisReply *answer(redisContext *c)
{
	void *reply = NULL;

	if (redisGetReply(c, &reply) != REDIS_OK)
		peer_die("answer", c->errstr);
	if (((redisReply *)reply)->type == REDIS_REPLY_ERROR)
		peer_die("answer", ((redisReply *)reply)->str);
	return reply;
}

static void publish(struct publisher *w)
{
	redisContext *c = dial(w->p);

	for (size_t confirmed = w->next; confirmed < w->end; confirmed++) {
		while (w->next < w->end && w->next - confirmed < w->p->window)
			redisAppendCommand(c, "XADD bench * body %b", peer_next(w), w->p->payload);
		freeReplyObject(answer(c));
		peer_confirmed(w->p, confirmed); /* answers come in order */
	}
	redisFree(c);
}

static void consume(struct peer *p)
{
	redisContext *c = dial(p);

	redisAppendCommand(c, "XGROUP CREATE bench workers 0 MKSTREAM");
	freeReplyObject(answer(c));
	while (p->consumed < p->total) {
		redisReply *r, *messages;

		redisAppendCommand(c, "XREADGROUP GROUP workers one COUNT %d BLOCK 1000 STREAMS bench >", PREFETCH);
		r = answer(c);
		if (r->type != REDIS_REPLY_ARRAY) { /* nothing came for a second */
			freeReplyObject(r);
			continue;
		}
		messages = r->element[0]->element[1]; /* [[stream, [[id, [field, value]], …]]] */
		for (size_t i = 0; i < messages->elements; i++) {
			const redisReply *body = messages->element[i]->element[1]->element[1];

			peer_delivered(p, body->str, body->len);
			redisAppendCommand(c, "XACK bench workers %s", messages->element[i]->element[0]->str);
		}
		for (size_t i = 0; i < messages->elements; i++)
			freeReplyObject(answer(c));
		freeReplyObject(r);
	}
	redisFree(c);
}

int main(int argc, char **argv)
{
	return peer_main(argc, argv, &(struct peer_calls) { .publish = publish, .consume = consume });
}
