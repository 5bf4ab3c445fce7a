/* SPDX-License-Identifier: MIT */
#include "idmap.h"

#include <endian.h>
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "util.h"

struct range {
	uint32_t inside, lower, count;
};

struct idmap {
	size_t n;
	struct range ranges[IDMAP_RANGES_MAX];
};

static const char separators[] = " \t,";

/* ---- parsing ---- */

/* A decimal number up to max at *p, which is moved behind it. */
static int number_parse(const char **p, uint64_t max, uint64_t *ret)
{
	char digits[12];
	size_t n = strspn(*p, "0123456789");

	if (n == 0 || n >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, *p, n);
	digits[n] = '\0';
	if (strtoull(digits, NULL, 10) > max)
		return -EINVAL;
	*ret = strtoull(digits, NULL, 10);
	*p += n;
	return 0;
}

/* Ids go up to 2^32 - 2: the last number means "none". */
static int range_parse(const char **p, struct range *ret)
{
	uint64_t v[3];

	for (int i = 0; i < 3; i++) {
		if (i > 0 && *(*p)++ != ':')
			return -EINVAL;
		if (number_parse(p, UINT32_MAX, &v[i]) < 0)
			return -EINVAL;
	}
	if (**p && !strchr(separators, **p))
		return -EINVAL;
	*ret = (struct range){(uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2]};
	return 0;
}

static bool overlap(uint32_t a, uint32_t a_count, uint32_t b, uint32_t b_count)
{
	return a < (uint64_t)b + b_count && b < (uint64_t)a + a_count;
}

static const char *range_add(struct idmap *m, const struct range *r)
{
	if (r->count == 0 || (uint64_t)r->inside + r->count > UINT32_MAX ||
	    (uint64_t)r->lower + r->count > UINT32_MAX)
		return "ranges of at least one id, all of them below 4294967295";
	for (size_t i = 0; i < m->n; i++) {
		const struct range *o = &m->ranges[i];

		if (overlap(o->inside, o->count, r->inside, r->count) ||
		    overlap(o->lower, o->count, r->lower, r->count))
			return "ranges that do not overlap, neither inside nor on the lower";
	}
	if (m->n == IDMAP_RANGES_MAX)
		return "at most 340 ranges";
	m->ranges[m->n++] = *r;
	return NULL;
}

static const char *map_fill(struct idmap *m, const char *text)
{
	const char *takes = NULL;

	for (const char *p = text + strspn(text, separators); *p && !takes; p += strspn(p, separators)) {
		struct range r;

		if (range_parse(&p, &r) < 0)
			return "ranges INSIDE:LOWER:COUNT of numbers, like 0:100000:65536";
		takes = range_add(m, &r);
	}
	return !takes && m->n == 0 ? "at least one range, like 0:100000:65536" : takes;
}

int idmap_parse(const char *text, struct idmap **ret, const char **ret_takes)
{
	struct idmap *m = calloc(1, sizeof(*m));
	const char *takes;

	if (!m)
		return -ENOMEM;
	takes = map_fill(m, text);
	if (takes) {
		idmap_free(m);
		if (ret_takes)
			*ret_takes = takes;
		return -EINVAL;
	}
	*ret = m;
	return 0;
}

void idmap_free(struct idmap *m)
{
	free(m);
}

int idmap_parse_owner(const char *text, uint32_t *ret_uid, uint32_t *ret_gid)
{
	uint64_t uid, gid;

	if (number_parse(&text, UINT32_MAX - 1, &uid) < 0)
		return -EINVAL;
	gid = uid;
	if (*text == ':' && (text++, number_parse(&text, UINT32_MAX - 1, &gid) < 0))
		return -EINVAL;
	if (*text)
		return -EINVAL;
	*ret_uid = (uint32_t)uid;
	*ret_gid = (uint32_t)gid;
	return 0;
}

/* ---- asking ---- */

uint32_t idmap_inside(const struct idmap *m, uint32_t lower)
{
	for (size_t i = 0; m && i < m->n; i++)
		if (lower - m->ranges[i].lower < m->ranges[i].count)
			return m->ranges[i].inside + (lower - m->ranges[i].lower);
	return m ? IDMAP_NONE : lower;
}

uint32_t idmap_lower(const struct idmap *m, uint32_t inside)
{
	for (size_t i = 0; m && i < m->n; i++)
		if (inside - m->ranges[i].inside < m->ranges[i].count)
			return m->ranges[i].lower + (inside - m->ranges[i].inside);
	return m ? IDMAP_NONE : inside;
}

/* ---- access control lists ---- */

typedef uint32_t map_fn(const struct idmap *m, uint32_t id);

/* The entry's id, mapped; false: it is not an entry with an id. */
static bool entry_map(const struct posix_acl_xattr_entry *e, const struct idmap *uids,
		      const struct idmap *gids, map_fn *map, uint32_t *ret_id)
{
	switch (le16toh(e->e_tag)) {
	case ACL_USER:
		*ret_id = map(uids, le32toh(e->e_id));
		return true;
	case ACL_GROUP:
		*ret_id = map(gids, le32toh(e->e_id));
		return true;
	default:
		return false;
	}
}

/* How many entries are in it; 0 for what is no ACL. */
static size_t entry_count(const void *acl, size_t size)
{
	struct posix_acl_xattr_header head;

	if (size < sizeof(head))
		return 0;
	memcpy(&head, acl, sizeof(head));
	return le32toh(head.a_version) == POSIX_ACL_XATTR_VERSION
		       ? (size - sizeof(head)) / sizeof(struct posix_acl_xattr_entry)
		       : 0;
}

static uint8_t *entry_at(void *acl, size_t i)
{
	return (uint8_t *)acl + sizeof(struct posix_acl_xattr_header) +
	       i * sizeof(struct posix_acl_xattr_entry);
}

void idmap_acl_show(const struct idmap *uids, const struct idmap *gids, void *acl, size_t size)
{
	for (size_t i = 0, n = entry_count(acl, size); i < n; i++) {
		struct posix_acl_xattr_entry e;
		uint32_t id;

		memcpy(&e, entry_at(acl, i), sizeof(e));
		if (!entry_map(&e, uids, gids, idmap_inside, &id))
			continue;
		if (id == IDMAP_NONE) {
			id = IDMAP_OVERFLOW;
			e.e_perm = 0;
		}
		e.e_id = htole32(id);
		memcpy(entry_at(acl, i), &e, sizeof(e));
	}
}

int idmap_acl_set(const struct idmap *uids, const struct idmap *gids, void *acl, size_t size)
{
	for (size_t i = 0, n = entry_count(acl, size); i < n; i++) {
		struct posix_acl_xattr_entry e;
		uint32_t id;

		memcpy(&e, entry_at(acl, i), sizeof(e));
		if (!entry_map(&e, uids, gids, idmap_lower, &id))
			continue;
		if (id == IDMAP_NONE)
			return -EINVAL;
		e.e_id = htole32(id);
		memcpy(entry_at(acl, i), &e, sizeof(e));
	}
	return 0;
}
