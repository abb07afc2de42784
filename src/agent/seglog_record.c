/* The form of a record on disk: checksum, sealing and opening, and the data keys in key records.  See seglog.h. */
#include "agent/seglog.h"
#include "base/id.h"
#include <endian.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <utlist.h>

/* CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 3720 appendix B.4). */
static const uint32_t crc_table[256] = {
	0x00000000, 0xf26b8303, 0xe13b70f7, 0x1350f3f4, 0xc79a971f, 0x35f1141c, 0x26a1e7e8, 0xd4ca64eb, 0x8ad958cf, 0x78b2dbcc,
	0x6be22838, 0x9989ab3b, 0x4d43cfd0, 0xbf284cd3, 0xac78bf27, 0x5e133c24, 0x105ec76f, 0xe235446c, 0xf165b798, 0x030e349b,
	0xd7c45070, 0x25afd373, 0x36ff2087, 0xc494a384, 0x9a879fa0, 0x68ec1ca3, 0x7bbcef57, 0x89d76c54, 0x5d1d08bf, 0xaf768bbc,
	0xbc267848, 0x4e4dfb4b, 0x20bd8ede, 0xd2d60ddd, 0xc186fe29, 0x33ed7d2a, 0xe72719c1, 0x154c9ac2, 0x061c6936, 0xf477ea35,
	0xaa64d611, 0x580f5512, 0x4b5fa6e6, 0xb93425e5, 0x6dfe410e, 0x9f95c20d, 0x8cc531f9, 0x7eaeb2fa, 0x30e349b1, 0xc288cab2,
	0xd1d83946, 0x23b3ba45, 0xf779deae, 0x05125dad, 0x1642ae59, 0xe4292d5a, 0xba3a117e, 0x4851927d, 0x5b016189, 0xa96ae28a,
	0x7da08661, 0x8fcb0562, 0x9c9bf696, 0x6ef07595, 0x417b1dbc, 0xb3109ebf, 0xa0406d4b, 0x522bee48, 0x86e18aa3, 0x748a09a0,
	0x67dafa54, 0x95b17957, 0xcba24573, 0x39c9c670, 0x2a993584, 0xd8f2b687, 0x0c38d26c, 0xfe53516f, 0xed03a29b, 0x1f682198,
	0x5125dad3, 0xa34e59d0, 0xb01eaa24, 0x42752927, 0x96bf4dcc, 0x64d4cecf, 0x77843d3b, 0x85efbe38, 0xdbfc821c, 0x2997011f,
	0x3ac7f2eb, 0xc8ac71e8, 0x1c661503, 0xee0d9600, 0xfd5d65f4, 0x0f36e6f7, 0x61c69362, 0x93ad1061, 0x80fde395, 0x72966096,
	0xa65c047d, 0x5437877e, 0x4767748a, 0xb50cf789, 0xeb1fcbad, 0x197448ae, 0x0a24bb5a, 0xf84f3859, 0x2c855cb2, 0xdeeedfb1,
	0xcdbe2c45, 0x3fd5af46, 0x7198540d, 0x83f3d70e, 0x90a324fa, 0x62c8a7f9, 0xb602c312, 0x44694011, 0x5739b3e5, 0xa55230e6,
	0xfb410cc2, 0x092a8fc1, 0x1a7a7c35, 0xe811ff36, 0x3cdb9bdd, 0xceb018de, 0xdde0eb2a, 0x2f8b6829, 0x82f63b78, 0x709db87b,
	0x63cd4b8f, 0x91a6c88c, 0x456cac67, 0xb7072f64, 0xa457dc90, 0x563c5f93, 0x082f63b7, 0xfa44e0b4, 0xe9141340, 0x1b7f9043,
	0xcfb5f4a8, 0x3dde77ab, 0x2e8e845f, 0xdce5075c, 0x92a8fc17, 0x60c37f14, 0x73938ce0, 0x81f80fe3, 0x55326b08, 0xa759e80b,
	0xb4091bff, 0x466298fc, 0x1871a4d8, 0xea1a27db, 0xf94ad42f, 0x0b21572c, 0xdfeb33c7, 0x2d80b0c4, 0x3ed04330, 0xccbbc033,
	0xa24bb5a6, 0x502036a5, 0x4370c551, 0xb11b4652, 0x65d122b9, 0x97baa1ba, 0x84ea524e, 0x7681d14d, 0x2892ed69, 0xdaf96e6a,
	0xc9a99d9e, 0x3bc21e9d, 0xef087a76, 0x1d63f975, 0x0e330a81, 0xfc588982, 0xb21572c9, 0x407ef1ca, 0x532e023e, 0xa145813d,
	0x758fe5d6, 0x87e466d5, 0x94b49521, 0x66df1622, 0x38cc2a06, 0xcaa7a905, 0xd9f75af1, 0x2b9cd9f2, 0xff56bd19, 0x0d3d3e1a,
	0x1e6dcdee, 0xec064eed, 0xc38d26c4, 0x31e6a5c7, 0x22b65633, 0xd0ddd530, 0x0417b1db, 0xf67c32d8, 0xe52cc12c, 0x1747422f,
	0x49547e0b, 0xbb3ffd08, 0xa86f0efc, 0x5a048dff, 0x8ecee914, 0x7ca56a17, 0x6ff599e3, 0x9d9e1ae0, 0xd3d3e1ab, 0x21b862a8,
	0x32e8915c, 0xc083125f, 0x144976b4, 0xe622f5b7, 0xf5720643, 0x07198540, 0x590ab964, 0xab613a67, 0xb831c993, 0x4a5a4a90,
	0x9e902e7b, 0x6cfbad78, 0x7fab5e8c, 0x8dc0dd8f, 0xe330a81a, 0x115b2b19, 0x020bd8ed, 0xf0605bee, 0x24aa3f05, 0xd6c1bc06,
	0xc5914ff2, 0x37faccf1, 0x69e9f0d5, 0x9b8273d6, 0x88d28022, 0x7ab90321, 0xae7367ca, 0x5c18e4c9, 0x4f48173d, 0xbd23943e,
	0xf36e6f75, 0x0105ec76, 0x12551f82, 0xe03e9c81, 0x34f4f86a, 0xc69f7b69, 0xd5cf889d, 0x27a40b9e, 0x79b737ba, 0x8bdcb4b9,
	0x988c474d, 0x6ae7c44e, 0xbe2da0a5, 0x4c4623a6, 0x5f16d052, 0xad7d5351,
};

uint32_t seglog_crc32c(uint32_t crc, const void *data, size_t n)
{
	const unsigned char *p = data;

	crc = ~crc;
	while (n--)
		crc = crc_table[(crc ^ *p++) & 0xff] ^ crc >> 8;
	return ~crc;
}

/* --- records --- */

enum { CHECKED = offsetof(struct seglog_record_head, len) }; /* the checksum begins there, in both kinds of head */
_Static_assert(sizeof(struct seglog_record_head) == 40 && offsetof(struct seglog_plain_head, len) == CHECKED, "no padding");

void seglog_record_begin(struct pt_buf *b)
{
	static const struct seglog_record_head none;

	pt_buf_clear(b);
	pt_buf_add(b, &none, sizeof(none));
}

size_t seglog_head_size(uint32_t magic)
{
	return magic == SEGLOG_MAGIC         ? sizeof(struct seglog_record_head)
	       : magic == SEGLOG_PLAIN_MAGIC ? sizeof(struct seglog_plain_head)
					     : 0;
}

size_t seglog_record_check(const char *p, size_t n)
{
	struct seglog_plain_head h;
	size_t len, head;

	if (n < sizeof(h))
		return 0;
	memcpy(&h, p, sizeof(h));
	head = seglog_head_size(le32toh(h.magic));
	len = le32toh(h.len);
	if (!head || n < head || len > n - head || (head == sizeof(h) && len < sizeof(uint64_t)))
		return 0;
	return le32toh(h.crc) == seglog_crc32c(0, p + CHECKED, head + len - CHECKED) ? head + len : 0;
}

void seglog_head_get(const char *p, struct seglog_record_head *ret)
{
	struct seglog_record_head h = { 0 };
	struct seglog_plain_head plain;

	memcpy(&plain, p, sizeof(plain));
	if (le32toh(plain.magic) == SEGLOG_MAGIC) {
		memcpy(&h, p, sizeof(h));
	} else {
		memcpy(&h, &plain, sizeof(plain));
		memcpy(&h.seq, p + sizeof(plain), sizeof(h.seq));
	}
	*ret = (struct seglog_record_head) {
		.magic = le32toh(h.magic),
		.crc = le32toh(h.crc),
		.len = le32toh(h.len),
		.kind = le32toh(h.kind),
		.key = le64toh(h.key),
		.seq = le64toh(h.seq),
		.count = le32toh(h.count),
	};
}

static void set_head(struct pt_buf *b, unsigned kind, uint64_t key, uint64_t seq, uint32_t count, size_t tag)
{
	struct seglog_record_head h = {
		.magic = htole32(SEGLOG_MAGIC),
		.len = htole32((uint32_t)(b->len - sizeof(h) + tag)),
		.kind = htole32(kind),
		.key = htole64(key),
		.seq = htole64(seq),
		.count = htole32(count),
	};

	memcpy(b->p, &h, sizeof(h));
}

static void set_crc(struct pt_buf *b)
{
	uint32_t crc = htole32(seglog_crc32c(0, b->p + CHECKED, b->len - CHECKED));

	memcpy(b->p + offsetof(struct seglog_record_head, crc), &crc, sizeof(crc));
}

/* What a tag covers beside the payload: where the record stands, and its head from len on. */
struct place {
	uint64_t no, offset;
	char head[sizeof(struct seglog_record_head) - CHECKED];
};
_Static_assert(sizeof(struct place) == 48, "sealed as bytes: no padding");

static void set_place(struct place *a, uint64_t no, int64_t offset, const char *record)
{
	a->no = htole64(no);
	a->offset = htole64((uint64_t)offset);
	memcpy(a->head, record + CHECKED, sizeof(a->head));
}

static void set_nonce(unsigned char nonce[static SEAL_NONCE_BYTES], uint64_t no, uint32_t count)
{
	no = htole64(no);
	count = htole32(count);
	memcpy(nonce, &no, sizeof(no));
	memcpy(nonce + sizeof(no), &count, sizeof(count));
}

int seglog_record_seal(struct seglog *l, unsigned kind, uint64_t seq, struct pt_buf *b, struct pt_err *err)
{
	unsigned char nonce[SEAL_NONCE_BYTES];
	struct place place;
	size_t n;
	int rc;

	if (!pt_buf_room(b, SEAL_TAG_BYTES))
		return pt_buf_done(b, err);
	n = b->len - sizeof(struct seglog_record_head);
	set_head(b, kind, l->key->id, seq, ++l->count, SEAL_TAG_BYTES); /* counted also when it is not written: no nonce twice */
	set_nonce(nonce, l->cur->no, l->count);
	set_place(&place, l->cur->no, l->cur->size, b->p);
	rc = seal_data(l->cipher, l->key->key, nonce, &place, sizeof(place), b->p + sizeof(struct seglog_record_head), n,
		       b->p + b->len, err);
	if (rc < 0)
		return rc;
	b->len += SEAL_TAG_BYTES;
	set_crc(b);
	return PT_OK;
}

int seglog_record_open(struct seglog *l, const struct seglog_segment *seg, int64_t offset, char *p, size_t length,
		       struct seglog_record *ret, struct pt_err *err)
{
	unsigned char nonce[SEAL_NONCE_BYTES];
	struct seglog_record_head h;
	struct place place;
	char *payload;
	size_t n;
	int rc;

	seglog_head_get(p, &h);
	if (h.magic == SEGLOG_PLAIN_MAGIC) {
		const size_t skip = sizeof(struct seglog_plain_head) + sizeof(h.seq);

		if (!seg->plain)
			return pt_fail(err, PT_E_CORRUPT, "a plain record among sealed ones");
		*ret = (struct seglog_record) {
			.kind = h.kind, .plain = true, .seq = h.seq, .payload = p + skip, .n = length - skip
		};
		return PT_OK;
	}
	if (!seg->key || h.key != seg->key->id || h.len < SEAL_TAG_BYTES)
		return pt_fail(err, PT_E_CORRUPT, "a record of another segment");
	payload = p + sizeof(h);
	n = h.len - SEAL_TAG_BYTES;
	set_nonce(nonce, seg->no, h.count);
	set_place(&place, seg->no, offset, p);
	rc = unseal_data(l->cipher, seg->key->key, nonce, &place, sizeof(place), payload, n, payload + n, err);
	if (rc < 0)
		return rc;
	*ret = (struct seglog_record) { .kind = h.kind, .seq = h.seq, .payload = payload, .n = n };
	return PT_OK;
}

/* --- data keys --- */

struct wrap { /* payload of a key record: this, then the id of the agent's key */
	unsigned char nonce[SEAL_NONCE_BYTES], key[SEAL_KEY_BYTES], tag[SEAL_TAG_BYTES];
};

struct seglog_datakey *seglog_datakey_find(struct seglog *l, uint64_t id)
{
	struct seglog_datakey *k;

	LL_FOREACH(l->keys, k)
	if (k->id == id)
		break;
	return k;
}

void seglog_datakey_unref(struct seglog *l, struct seglog_datakey *k)
{
	if (!k || --k->refs)
		return;
	LL_DELETE(l->keys, k);
	OPENSSL_cleanse(k, sizeof(*k));
	free(k);
}

struct seglog_datakey *seglog_datakey_new(struct seglog *l)
{
	struct seglog_datakey *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	do
		pt_random(&k->id, sizeof(k->id));
	while (!k->id || seglog_datakey_find(l, k->id));
	pt_random(k->key, sizeof(k->key));
	LL_PREPEND(l->keys, k);
	return k;
}

int seglog_datakey_write(struct seglog *l, uint64_t no, int64_t offset, const struct seglog_datakey *k, int64_t before,
			 struct pt_buf *b, struct pt_err *err)
{
	const char *id = l->ring.keys[0].id;
	char aad[sizeof(struct place) + sizeof(l->ring.keys[0].id)];
	struct place place;
	struct wrap w;
	int rc;

	seglog_record_begin(b);
	pt_buf_add(b, &w, sizeof(w)); /* its place; filled in below */
	pt_buf_str(b, id);
	if ((rc = pt_buf_done(b, err)) < 0)
		return rc;
	set_head(b, SEGLOG_KIND_KEY, k->id, (uint64_t)before, 0, 0);
	set_place(&place, no, offset, b->p);
	memcpy(aad, &place, sizeof(place));
	memcpy(aad + sizeof(place), id, strlen(id));
	pt_random(w.nonce, sizeof(w.nonce));
	memcpy(w.key, k->key, sizeof(w.key));
	rc = seal_data(l->cipher, l->ring.keys[0].key, w.nonce, aad, sizeof(place) + strlen(id), w.key, sizeof(w.key), w.tag,
		       err);
	if (rc == 0) {
		memcpy(b->p + sizeof(struct seglog_record_head), &w, sizeof(w));
		set_crc(b);
	}
	OPENSSL_cleanse(&w, sizeof(w));
	return rc;
}

int seglog_datakey_read(struct seglog *l, uint64_t no, int64_t offset, const char *p, size_t length, char by[static 128],
			int64_t *ret_before, struct pt_err *err)
{
	const size_t fixed = sizeof(struct seglog_record_head) + sizeof(struct wrap);
	char aad[sizeof(struct place) + 128];
	struct seglog_record_head h;
	struct seglog_datakey *k;
	struct place place;
	struct wrap w;
	size_t id_len = length - fixed;
	int rc = PT_OK;

	*by = '\0';
	*ret_before = 0;
	if (length <= fixed || id_len >= 128)
		return PT_OK;
	seglog_head_get(p, &h);
	memcpy(by, p + fixed, id_len);
	by[id_len] = '\0';
	set_place(&place, no, offset, p);
	memcpy(aad, &place, sizeof(place));
	memcpy(aad + sizeof(place), by, id_len);
	for (unsigned i = 0; i < l->ring.n; i++) {
		struct pt_err ignored = { 0 };

		if (strcmp(l->ring.keys[i].id, by) != 0)
			continue;
		memcpy(&w, p + sizeof(h), sizeof(w));
		if (unseal_data(l->cipher, l->ring.keys[i].key, w.nonce, aad, sizeof(place) + id_len, w.key, sizeof(w.key), w.tag,
				&ignored) < 0)
			continue; /* another secret under the same id, or not its place */
		k = seglog_datakey_find(l, h.key);
		if (!k && (k = calloc(1, sizeof(*k)))) {
			k->id = h.key;
			memcpy(k->key, w.key, sizeof(k->key));
			LL_PREPEND(l->keys, k);
		}
		if (!k)
			rc = pt_fail_oom(err);
		else if (i == 0)
			k->epoch = l->epoch;
		*ret_before = (int64_t)h.seq;
		break;
	}
	OPENSSL_cleanse(&w, sizeof(w));
	return rc;
}
