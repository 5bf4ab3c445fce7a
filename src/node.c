/* SPDX-License-Identifier: MIT */
#include "node.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "node_impl.h"
#include "util.h"

enum {
	NODE_ROOT_ID = 1,
	NODE_BUCKETS_MIN = 1024,
	NODE_EVICT_TRIES = 16,
	NODE_TRIM_BELOW = 4,
	NOT_CACHED = -2,
	KEY_BIRTH = -1 /* in place of a type of handle */
};

static uint32_t hash_bytes(uint32_t h, const void *data, size_t size)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < size; i++)
		h = (h ^ p[i]) * 16777619u; /* FNV-1a */
	return h;
}

static void key_finish(struct node_key *key)
{
	uint32_t h = hash_bytes(2166136261u, &key->ino, sizeof(key->ino));

	h = hash_bytes(h, &key->dev, sizeof(key->dev));
	h = hash_bytes(h, key->handle.bytes, key->handle.size);
	key->hash = h ^ h >> 15;
}

/* Where there are no handles: tells an inode from a later one with its number. */
static int key_birth(int fd, struct store_handle *ret)
{
	struct timespec birth = {0};
	int r = store_birth(fd, &birth);

	if (r < 0 && r != -EOPNOTSUPP)
		return r;
	ret->type = KEY_BIRTH;
	ret->size = sizeof(birth);
	memcpy(ret->bytes, &birth, sizeof(birth));
	return 0;
}

int node_key_of(struct node_table *t, int fd, struct node_key *ret, struct stat *ret_st)
{
	int r = store_stat_fd(fd, ret_st);

	*ret = (struct node_key){.dev = ret_st->st_dev, .ino = ret_st->st_ino};
	if (r == 0 && t->handles)
		r = store_handle(fd, "", &ret->handle);
	else if (r == 0)
		r = key_birth(fd, &ret->handle);
	if (r == 0)
		key_finish(ret);
	return r;
}

bool node_key_matches(const struct node_key *key, const struct node *n)
{
	return n->hash == key->hash && n->ino == key->ino && n->dev == key->dev &&
	       n->handle_size == key->handle.size && n->handle_type == (int16_t)key->handle.type &&
	       memcmp(n->handle, key->handle.bytes, key->handle.size) == 0;
}

struct node *node_find(struct node_table *t, const struct node_key *key)
{
	struct node *n = t->buckets[key->hash & (t->n_buckets - 1)];

	while (n && !node_key_matches(key, n))
		n = n->next;
	return n;
}

/* Doubling or halving the buckets is best effort: without memory the chains only get longer. */
static void table_resize(struct node_table *t, uint32_t n_buckets)
{
	struct node **buckets = calloc(n_buckets, sizeof(*buckets));

	if (!buckets)
		return;
	for (uint32_t i = 0; i < t->n_buckets; i++) {
		struct node *n = t->buckets[i], *next;

		for (; n; n = next) {
			struct node **b = &buckets[n->hash & (n_buckets - 1)];

			next = n->next;
			n->next = *b;
			*b = n;
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->n_buckets = n_buckets;
}

static int table_insert(struct node_table *t, struct node *n)
{
	int r = slots_add(&t->slots, n, &n->id);

	if (r < 0)
		return r;
	if (t->count >= t->n_buckets)
		table_resize(t, t->n_buckets * 2);
	n->next = t->buckets[n->hash & (t->n_buckets - 1)];
	t->buckets[n->hash & (t->n_buckets - 1)] = n;
	if (++t->count > t->peak)
		t->peak = t->count;
	return 0;
}

static void table_remove(struct node_table *t, struct node *n)
{
	struct node **p = &t->buckets[n->hash & (t->n_buckets - 1)];

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	slots_remove(&t->slots, n->id);
	t->count--;
}

static void node_destroy(struct node_table *t, struct node *n)
{
	if (t->release)
		t->release(t->release_ctx, n);
	if (n->fd >= 0)
		close(n->fd);
	free(n->place);
	free(n);
}

static struct node *node_new(const struct node_key *key, mode_t mode, int fd)
{
	struct node *n = calloc(1, sizeof(*n) + key->handle.size);

	if (!n)
		return NULL;
	n->dev = key->dev;
	n->ino = key->ino;
	n->hash = key->hash;
	n->type = (uint16_t)(mode & S_IFMT);
	n->fd = fd;
	n->handle_size = (uint8_t)key->handle.size;
	n->handle_type = (int16_t)key->handle.type;
	memcpy(n->handle, key->handle.bytes, key->handle.size);
	return n;
}

/* Does the file system give handles, and may we open them? Asked of the root, once. */
static bool probe_handles(int mount_fd)
{
	struct store_handle h;
	int fd;

	if (store_handle(mount_fd, "", &h) < 0)
		return false;
	fd = store_open_handle(mount_fd, &h, O_PATH);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static int table_add_root(struct node_table *t)
{
	struct node_key key;
	struct stat st;
	int r = node_key_of(t, t->mount_fd, &key, &st);

	if (r < 0)
		return r;
	t->root = node_new(&key, st.st_mode, -1);
	if (!t->root)
		return -ENOMEM;
	r = table_insert(t, t->root);
	if (r < 0) {
		free(steal_ptr(&t->root));
		return r;
	}
	t->root->lookups = 1;
	t->root->refs = 1;
	t->root->fd = fcntl(t->mount_fd, F_DUPFD_CLOEXEC, 0);
	return t->root->fd < 0 ? -errno : 0;
}

int node_table_new(int root_fd, unsigned max_cached_fds, struct node_table **ret)
{
	struct node_table *t = calloc(1, sizeof(*t));
	int r = -ENOMEM;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->mount_fd = store_open_dir(root_fd, ".");
	if (t->mount_fd < 0) {
		r = t->mount_fd;
		goto fail;
	}
	t->n_buckets = NODE_BUCKETS_MIN;
	t->buckets = calloc(t->n_buckets, sizeof(*t->buckets));
	t->n_cached = max_cached_fds ? max_cached_fds : 1;
	t->cached = calloc(t->n_cached, sizeof(*t->cached));
	if (!t->buckets || !t->cached)
		goto fail;
	t->handles = probe_handles(t->mount_fd);
	r = table_add_root(t);
	if (r < 0)
		goto fail;
	*ret = t;
	return 0;
fail:
	node_table_free(t);
	return r;
}

static void destroy_item(void *ctx, void *item)
{
	node_destroy(ctx, item);
}

void node_table_free(struct node_table *t)
{
	if (!t)
		return;
	slots_each(&t->slots, destroy_item, t);
	slots_free(&t->slots);
	if (t->mount_fd >= 0)
		close(t->mount_fd);
	free(t->buckets);
	free(t->cached);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void node_table_set_release(struct node_table *t, void (*release)(void *ctx, struct node *n), void *ctx)
{
	t->release = release;
	t->release_ctx = ctx;
}

bool node_table_has_handles(const struct node_table *t)
{
	return t->handles;
}

uint32_t node_table_count(struct node_table *t)
{
	uint32_t count;

	node_lock(t);
	count = t->count;
	node_unlock(t);
	return count;
}

size_t node_ids(struct node_table *t, uint32_t *at, uint64_t *ret_ids, size_t max)
{
	size_t n;

	node_lock(t);
	n = slots_ids(&t->slots, at, ret_ids, max);
	for (size_t i = 0; i < n; i++)
		if (ret_ids[i] == t->root->id)
			ret_ids[i] = NODE_ROOT_ID;
	node_unlock(t);
	return n;
}

static void look_for_passing(void *ctx, void *item)
{
	const struct node *n = item;
	bool *found = ctx;

	*found |= S_ISREG(n->type) && n->private.opens && n->private.io_passes;
}

bool node_any_passes(struct node_table *t)
{
	bool found = false;

	node_lock(t);
	slots_each(&t->slots, look_for_passing, &found);
	node_unlock(t);
	return found;
}

void node_lock(struct node_table *t)
{
	pthread_mutex_lock(&t->lock);
}

void node_unlock(struct node_table *t)
{
	pthread_mutex_unlock(&t->lock);
}

struct node *node_get(struct node_table *t, uint64_t id)
{
	struct node *n;

	node_lock(t);
	n = id == NODE_ROOT_ID ? t->root : slots_get(&t->slots, id);
	if (n)
		n->refs++;
	node_unlock(t);
	return n;
}

struct node *node_drop(struct node_table *t, struct node *n)
{
	struct node *list = NULL, *dir;

	for (; n && !n->refs && !n->lookups && !n->children; n = dir) {
		dir = n->place ? n->place->dir : NULL;
		table_remove(t, n);
		n->next = list;
		list = n;
		if (dir)
			dir->children--;
	}
	return list;
}

/* When most are gone, the memory of the rest goes back to the system. */
void node_dropped(struct node_table *t, struct node *list)
{
	bool trim = false;

	if (!list)
		return;
	while (list) {
		struct node *n = list;

		list = n->next;
		node_destroy(t, n);
	}
	node_lock(t);
	if (t->peak > 4 * NODE_BUCKETS_MIN && t->count < t->peak / NODE_TRIM_BELOW) {
		table_resize(t, (uint32_t)max_u64(t->n_buckets / NODE_TRIM_BELOW, NODE_BUCKETS_MIN));
		slots_trim(&t->slots);
		t->peak = t->count;
		trim = true;
	}
	node_unlock(t);
	if (trim)
		malloc_trim(0);
}

void node_put(struct node_table *t, struct node *n)
{
	int spare;

	if (!n)
		return;
	node_lock(t);
	assert(n->refs > 0);
	n->refs--;
	spare = node_place_spare_fd(n);
	n = node_drop(t, n);
	node_unlock(t);
	if (spare >= 0)
		close(spare);
	node_dropped(t, n);
}

void node_forget(struct node_table *t, uint64_t id, uint64_t lookups)
{
	struct node *n;

	if (id == NODE_ROOT_ID)
		return;
	node_lock(t);
	n = slots_get(&t->slots, id);
	if (n) {
		n->lookups -= min_u64(lookups, n->lookups);
		n = node_drop(t, n);
	}
	node_unlock(t);
	node_dropped(t, n);
}

/* Counts one more lookup of the inode; false: it is not in the table yet. *place is taken if it is new. */
static bool table_count_lookup(struct node_table *t, const struct node_key *key, struct node_place **place,
			       uint64_t *ret_id)
{
	struct node *n, *gone = NULL;
	int spare = -1;

	node_lock(t);
	n = node_find(t, key);
	if (n) {
		n->lookups++;
		*ret_id = n == t->root ? NODE_ROOT_ID : n->id;
	}
	if (n && n != t->root && *place && (*place)->dir != n &&
	    !node_place_is(n, (*place)->dir, (*place)->name)) {
		gone = node_place_change(t, n, steal_ptr(place));
		spare = node_place_spare_fd(n);
	}
	node_unlock(t);
	if (spare >= 0)
		close(spare);
	node_dropped(t, gone);
	return n != NULL;
}

/* Puts a new node into the table unless another thread was faster. */
static int table_add(struct node_table *t, const struct node_key *key, mode_t mode, int fd,
		     struct node_place **place, uint64_t *ret_id)
{
	struct node *n = node_new(key, mode, fd), *other;
	int r = 0;

	if (!n) {
		if (fd >= 0)
			close(fd);
		return -ENOMEM;
	}
	node_lock(t);
	other = node_find(t, key);
	if (!other) {
		r = table_insert(t, n);
		if (r == 0) {
			other = steal_ptr(&n);
			if (*place)
				node_place_change(t, other, steal_ptr(place));
		}
	}
	if (other) {
		other->lookups++;
		*ret_id = other->id;
	}
	node_unlock(t);
	if (n)
		node_destroy(t, n);
	return r;
}

int node_lookup_fd(struct node_table *t, int fd, struct node *dir, const char *name, struct stat *ret_st,
		   uint64_t *ret_id)
{
	autofree struct node_place *place = NULL;
	struct node_key key;
	struct stat st;
	int r = node_key_of(t, fd, &key, &st), own = -1;

	if (r < 0)
		return r;
	if (!t->handles && name) {
		place = node_place_new(dir, name);
		if (!place)
			return -ENOMEM;
	}
	if (!table_count_lookup(t, &key, &place, ret_id)) {
		if (!t->handles && !name && (own = store_reopen(fd, O_PATH | O_NOFOLLOW)) < 0)
			return own;
		r = table_add(t, &key, st.st_mode, own, &place, ret_id);
		if (r < 0)
			return r;
	}
	*ret_st = st;
	return 0;
}

int node_lookup(struct node_table *t, struct node *dir, int dir_fd, const char *name, struct stat *ret_st,
		uint64_t *ret_id)
{
	/* One fd for everything that is asked: by name, somebody could exchange the entry between two
	 * questions, and the attributes of one file would be believed of another. */
	autofd int fd = store_open(dir_fd, name, O_PATH, 0);

	return fd < 0 ? fd : node_lookup_fd(t, fd, dir, name, ret_st, ret_id);
}

static int open_by_handle(struct node_table *t, const struct node *n, int flags)
{
	struct store_handle h = {.type = n->handle_type, .size = n->handle_size};

	memcpy(h.bytes, n->handle, n->handle_size);
	return store_open_handle(t->mount_fd, &h, flags);
}

/* Makes room in the cache of directory fds: the fd to close, -1, or NOT_CACHED when all that were looked at
 * are in use. Lock held. */
static int cache_evict(struct node_table *t, uint64_t id)
{
	for (int tries = 0; tries < NODE_EVICT_TRIES; tries++) {
		uint64_t *place = &t->cached[t->hand];
		struct node *n = *place ? slots_get(&t->slots, *place) : NULL;
		int fd = -1;

		t->hand = (t->hand + 1) % t->n_cached;
		if (n && n->fd_cached && n->refs)
			continue;
		if (n && n->fd_cached) {
			fd = steal_fd(&n->fd);
			n->fd_cached = false;
		}
		*place = id;
		return fd;
	}
	return NOT_CACHED;
}

int node_cache_offer(struct node_table *t, struct node *n, int fd, bool *ret_owned)
{
	int surplus = -1;

	*ret_owned = false;
	node_lock(t);
	if (n->fd >= 0) {
		surplus = fd;
		fd = n->fd;
	} else {
		surplus = cache_evict(t, n->id);
		*ret_owned = surplus == NOT_CACHED;
		if (!*ret_owned) {
			n->fd = fd;
			n->fd_cached = true;
		}
	}
	node_unlock(t);
	if (surplus >= 0)
		close(surplus);
	return fd;
}

void node_cache_own(struct node_table *t, struct node *n)
{
	int surplus = -1;

	node_lock(t);
	if (n->fd >= 0 && !n->fd_cached) {
		surplus = cache_evict(t, n->id);
		n->fd_cached = surplus != NOT_CACHED;
	}
	node_unlock(t);
	if (surplus >= 0)
		close(surplus);
}

int node_fd(struct node_table *t, struct node *n, struct node_fd *ret)
{
	bool owned = true;
	int fd;

	node_lock(t);
	fd = n->fd;
	node_unlock(t);
	if (fd >= 0) {
		*ret = (struct node_fd){fd, false};
		return 0;
	}
	fd = t->handles ? open_by_handle(t, n, O_PATH) : node_place_open(t, n);
	if (fd < 0)
		return fd;
	if (S_ISDIR(n->type))
		fd = node_cache_offer(t, n, fd, &owned);
	*ret = (struct node_fd){fd, owned};
	return 0;
}

void node_fd_done(const struct node_fd *fd)
{
	if (fd->owned)
		close(fd->fd);
}

int node_open(struct node_table *t, struct node *n, int flags)
{
	struct node_fd fd;
	int r;

	if (t->handles && n != t->root)
		return open_by_handle(t, n, flags);
	r = node_fd(t, n, &fd);
	if (r < 0)
		return r;
	r = store_reopen(fd.fd, flags);
	node_fd_done(&fd);
	return r;
}
