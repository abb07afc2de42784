/* NATS JetStream: asynchronous publishes with acknowledgements, a work-queue stream on disk, explicit acks. */
#include "peer.h"
#include <nats/nats.h>

struct window { /* of one publisher */
	struct peer *p;
	pthread_mutex_t lock;
	pthread_cond_t change;
	size_t unconfirmed; /* under the lock */
};

static void check(natsStatus s, const char *what)
{
	if (s != NATS_OK)
		peer_die(what, natsStatus_GetText(s));
}

static void dial(const struct peer *p, natsConnection **conn, jsCtx **js, jsOptions *options)
{
	char url[64];

	snprintf(url, sizeof(url), "nats://127.0.0.1:%d", p->port);
	check(natsConnection_ConnectTo(conn, url), "connect");
	check(natsConnection_JetStream(js, *conn, options), "JetStream");
}

static void make_stream(struct peer *p)
{
	const char *subjects[] = { "bench" };
	natsConnection *conn;
	jsStreamConfig stream;
	jsCtx *js;

	dial(p, &conn, &js, NULL);
	check(jsStreamConfig_Init(&stream), "stream");
	stream.Name = "bench";
	stream.Subjects = subjects;
	stream.SubjectsLen = 1;
	stream.Storage = js_FileStorage;
	stream.Retention = js_WorkQueuePolicy;
	check(js_AddStream(NULL, js, &stream, NULL, NULL), "stream");
	jsCtx_Destroy(js);
	natsConnection_Destroy(conn);
}

static void confirmed(jsCtx *js, natsMsg *msg, jsPubAck *pa, jsPubAckErr *pae, void *arg)
{
	struct window *w = arg;

	(void)js;
	if (pae || !pa)
		peer_die("publish", pae ? pae->ErrText : NULL);
	peer_confirmed(w->p, peer_seq(w->p, natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg)));
	natsMsg_Destroy(msg);
	pthread_mutex_lock(&w->lock);
	w->unconfirmed--;
	pthread_cond_signal(&w->change);
	pthread_mutex_unlock(&w->lock);
}

static void wait_below(struct window *w, size_t n)
{
	pthread_mutex_lock(&w->lock);
	while (w->unconfirmed >= n)
		pthread_cond_wait(&w->change, &w->lock);
	w->unconfirmed++;
	pthread_mutex_unlock(&w->lock);
}

static void publish(struct publisher *pub)
{
	struct window w = { .p = pub->p, .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };
	natsConnection *conn;
	jsOptions options;
	jsCtx *js;

	check(jsOptions_Init(&options), "options");
	options.PublishAsync.AckHandler = confirmed;
	options.PublishAsync.AckHandlerClosure = &w;
	dial(pub->p, &conn, &js, &options);
	while (pub->next < pub->end) {
		wait_below(&w, pub->p->window);
		check(js_PublishAsync(js, "bench", peer_next(pub), (int)pub->p->payload, NULL), "publish");
	}
	wait_below(&w, 1);
	jsCtx_Destroy(js);
	natsConnection_Destroy(conn);
}

static void consume(struct peer *p)
{
	natsSubscription *sub;
	natsConnection *conn;
	jsSubOptions how;
	jsCtx *js;

	dial(p, &conn, &js, NULL);
	check(jsSubOptions_Init(&how), "subscribe");
	how.ManualAck = true;
	how.Config.AckPolicy = js_AckExplicit;
	how.Config.MaxAckPending = PREFETCH;
	how.Config.Durable = "workers";
	check(js_SubscribeSync(&sub, js, "bench", NULL, &how, NULL), "subscribe");
	while (p->consumed < p->total) {
		natsMsg *msg;

		check(natsSubscription_NextMsg(&msg, sub, 30000), "next message");
		peer_delivered(p, natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg));
		check(natsMsg_Ack(msg, NULL), "ack");
		natsMsg_Destroy(msg);
	}
	check(natsConnection_FlushTimeout(conn, 30000), "flush");
	natsSubscription_Destroy(sub);
	jsCtx_Destroy(js);
	natsConnection_Destroy(conn);
}

int main(int argc, char **argv)
{
	return peer_main(argc, argv, &(struct peer_calls) { .prepare = make_stream, .publish = publish, .consume = consume });
}
