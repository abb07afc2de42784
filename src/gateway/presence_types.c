/* Lists of operation types, each kept once however many instances say the same: most instances of an agent do.  Everything here is
 * under the presence lock. */
#include "gateway/presence_int.h"

struct pt_types {
	struct pt_list list; /* of char * */
	unsigned refs;
	UT_hash_handle hh; /* key: the texts, each with its NUL */
	char key[];
};

static void fill_key(char *key, const struct pt_list *list)
{
	for (size_t k = 0; k < list->n; k++)
		key = stpcpy(key, ((char **)list->items)[k]) + 1;
}

static size_t key_size(const struct pt_list *list)
{
	size_t n = 0;

	for (size_t k = 0; k < list->n; k++)
		n += strlen(((char **)list->items)[k]) + 1;
	return n;
}

struct pt_types *pt_types_ref(struct pt_presence *p, const struct pt_list *list)
{
	size_t n = key_size(list);
	struct pt_types *t = calloc(1, sizeof(*t) + n), *known;

	if (!t)
		return NULL;
	fill_key(t->key, list);
	HASH_FIND(hh, p->types, t->key, n, known);
	if (!known && list->n && !(t->list.items = calloc(list->n, sizeof(char *)))) {
		free(t);
		return NULL;
	}
	if (known) {
		free(t);
		t = known;
	} else {
		char *at = t->key;

		for (size_t k = 0; k < list->n; k++, at += strlen(at) + 1)
			((char **)t->list.items)[k] = at;
		t->list.n = list->n;
		HASH_ADD(hh, p->types, key, n, t);
	}
	t->refs++;
	return t;
}

void pt_types_unref(struct pt_presence *p, struct pt_types *t)
{
	if (!t || --t->refs)
		return;
	HASH_DEL(p->types, t);
	free(t->list.items);
	free(t);
}

const struct pt_list *pt_types_list(const struct pt_types *t)
{
	return &t->list;
}
