/* SPDX-License-Identifier: MIT */
#include "fscrypt_metadata.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "cleanup.h"
#include "crypto.h"

/* ---- protocol buffers: protobuf.dev, "Encoding" ---- */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct reader {
	const uint8_t *p, *end;
};

struct field {
	uint32_t number;
	enum wire wire;
	uint64_t value;       /* WIRE_VARINT */
	const uint8_t *bytes; /* WIRE_BYTES */
	size_t size;
};

static int read_varint(struct reader *rd, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && rd->p < rd->end; shift += 7) {
		uint8_t b = *rd->p++;

		/* The tenth byte has room for one bit. */
		if (shift == 63 && b > 1)
			return -EBADMSG;
		value |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80)) {
			*ret = value;
			return 0;
		}
	}
	return -EBADMSG;
}

static int read_bytes(struct reader *rd, uint64_t size, struct field *f)
{
	if (size > (uint64_t)(rd->end - rd->p))
		return -EBADMSG;
	f->bytes = rd->p;
	f->size = (size_t)size;
	rd->p += size;
	return 0;
}

/* 1: a field; 0: the end; -EBADMSG. */
static int read_field(struct reader *rd, struct field *f)
{
	uint64_t tag, size;
	int r;

	*f = (struct field){0};
	if (rd->p == rd->end)
		return 0;
	r = read_varint(rd, &tag);
	if (r < 0 || tag >> 3 == 0 || tag >> 3 >= 1 << 29)
		return -EBADMSG;
	f->number = (uint32_t)(tag >> 3);
	f->wire = (enum wire)(tag & 7);
	switch (f->wire) {
	case WIRE_VARINT:
		r = read_varint(rd, &f->value);
		break;
	case WIRE_64:
		r = read_bytes(rd, 8, f);
		break;
	case WIRE_32:
		r = read_bytes(rd, 4, f);
		break;
	case WIRE_BYTES:
		r = read_varint(rd, &size);
		if (r == 0)
			r = read_bytes(rd, size, f);
		break;
	default:
		r = -EBADMSG;
	}
	return r < 0 ? r : 1;
}

/* Calls take for each field of the message; what it does not know it passes over. */
static int read_message(const uint8_t *p, size_t size, int (*take)(void *ctx, const struct field *f),
			void *ctx)
{
	struct reader rd = {p, p + size};
	struct field f;
	int r;

	while ((r = read_field(&rd, &f)) > 0) {
		r = take(ctx, &f);
		if (r < 0)
			return r;
	}
	return r;
}

/* A field of the wrong kind is none of that message. */
static bool is_field(const struct field *f, uint32_t number, enum wire wire)
{
	return f->number == number && f->wire == wire;
}

static int take_exactly(const struct field *f, void *to, size_t size)
{
	if (f->size != size)
		return -EBADMSG;
	memcpy(to, f->bytes, size);
	return 0;
}

/* Hex digits of one of two lengths: they become names of files. */
static int take_hex(const struct field *f, char *to, size_t length, size_t other_length)
{
	if (f->size != length && f->size != other_length)
		return -EBADMSG;
	for (size_t i = 0; i < f->size; i++)
		if (!f->bytes[i] || !strchr("0123456789abcdef", f->bytes[i]))
			return -EBADMSG;
	memcpy(to, f->bytes, f->size);
	to[f->size] = '\0';
	return 0;
}

/* ---- message WrappedKeyData ---- */

enum { WRAPPED_IV = 1, WRAPPED_KEY = 2, WRAPPED_HMAC = 3 };

struct wrapped_reader {
	struct fscrypt_wrapped *to;
	bool iv, hmac;
};

static int take_wrapped_field(void *ctx, const struct field *f)
{
	struct wrapped_reader *w = ctx;

	if (is_field(f, WRAPPED_IV, WIRE_BYTES)) {
		w->iv = true;
		return take_exactly(f, w->to->iv, sizeof(w->to->iv));
	}
	if (is_field(f, WRAPPED_HMAC, WIRE_BYTES)) {
		w->hmac = true;
		return take_exactly(f, w->to->hmac, sizeof(w->to->hmac));
	}
	if (!is_field(f, WRAPPED_KEY, WIRE_BYTES))
		return 0;
	if (f->size > sizeof(w->to->key))
		return -EBADMSG;
	memcpy(w->to->key, f->bytes, f->size);
	w->to->size = f->size;
	return 0;
}

static int take_wrapped(const struct field *f, size_t size, struct fscrypt_wrapped *to)
{
	struct wrapped_reader w = {.to = to};
	int r = read_message(f->bytes, f->size, take_wrapped_field, &w);

	if (r < 0)
		return r;
	return w.iv && w.hmac && to->size == size ? 0 : -EBADMSG;
}

/* ---- message HashingCosts ---- */

enum { COST_TIME = 2, COST_MEMORY = 3, COST_PARALLELISM = 4, COST_TRUNCATION_FIXED = 5, LANES_MAX = 255 };

struct cost_reader {
	uint64_t time, memory, lanes;
	bool exact;
};

static int take_cost_field(void *ctx, const struct field *f)
{
	struct cost_reader *c = ctx;

	if (is_field(f, COST_TIME, WIRE_VARINT))
		c->time = f->value;
	else if (is_field(f, COST_MEMORY, WIRE_VARINT))
		c->memory = f->value;
	else if (is_field(f, COST_PARALLELISM, WIRE_VARINT))
		c->lanes = f->value;
	else if (is_field(f, COST_TRUNCATION_FIXED, WIRE_VARINT))
		c->exact = f->value != 0;
	return 0;
}

static int take_cost(const struct field *f, struct argon2_cost *to)
{
	struct cost_reader c = {0};
	int r = read_message(f->bytes, f->size, take_cost_field, &c);

	if (r < 0)
		return r;
	/* Old versions of the tool took only the last byte of it, and say so by the flag that is missing. */
	if (!c.exact && c.lanes > LANES_MAX && c.lanes <= INT64_MAX)
		c.lanes &= LANES_MAX;
	if (!c.time || c.time > UINT32_MAX || !c.lanes || c.lanes > LANES_MAX || c.memory > UINT32_MAX ||
	    c.memory < 8 * c.lanes)
		return -EBADMSG;
	*to = (struct argon2_cost){(uint32_t)c.time, (uint32_t)c.memory, (uint32_t)c.lanes};
	return 0;
}

/* ---- message ProtectorData ---- */

enum {
	PROTECTOR_DESCRIPTOR = 1,
	PROTECTOR_SOURCE = 2,
	PROTECTOR_COSTS = 4,
	PROTECTOR_SALT = 5,
	PROTECTOR_KEY = 7
};
enum { PROTECTOR_KEY_SIZE = 32, POLICY_KEY_SIZE = 64 };

struct protector_reader {
	struct fscrypt_protector p;
	bool salt;
};

static int take_protector_field(void *ctx, const struct field *f)
{
	struct protector_reader *rd = ctx;

	if (is_field(f, PROTECTOR_DESCRIPTOR, WIRE_BYTES))
		return take_hex(f, rd->p.descriptor, FSCRYPT_DESCRIPTOR_LENGTH, FSCRYPT_DESCRIPTOR_LENGTH);
	if (is_field(f, PROTECTOR_COSTS, WIRE_BYTES))
		return take_cost(f, &rd->p.cost);
	if (is_field(f, PROTECTOR_KEY, WIRE_BYTES))
		return take_wrapped(f, PROTECTOR_KEY_SIZE, &rd->p.key);
	if (is_field(f, PROTECTOR_SALT, WIRE_BYTES)) {
		rd->salt = true;
		return take_exactly(f, rd->p.salt, sizeof(rd->p.salt));
	}
	if (is_field(f, PROTECTOR_SOURCE, WIRE_VARINT)) {
		if (f->value < FSCRYPT_SOURCE_LOGIN || f->value > FSCRYPT_SOURCE_RAW)
			return -EBADMSG;
		rd->p.source = (enum fscrypt_source)f->value;
	}
	return 0;
}

int fscrypt_protector_parse(const void *buf, size_t size, struct fscrypt_protector *ret)
{
	struct protector_reader rd = {0};
	int r = size > FSCRYPT_METADATA_MAX ? -EBADMSG : read_message(buf, size, take_protector_field, &rd);

	if (r < 0)
		return r;
	if (!rd.p.source || !rd.p.descriptor[0] || !rd.p.key.size ||
	    (rd.p.source != FSCRYPT_SOURCE_RAW && (!rd.p.cost.time || !rd.salt)))
		return -EBADMSG;
	*ret = rd.p;
	return 0;
}

/* ---- message PolicyData ---- */

enum { POLICY_KEY_ID = 1, POLICY_WRAPPED = 3, POLICY_WRAPPED_PROTECTOR = 1, POLICY_WRAPPED_KEY = 2 };

static int take_wrapped_policy_field(void *ctx, const struct field *f)
{
	struct fscrypt_wrapped_policy *w = ctx;

	if (is_field(f, POLICY_WRAPPED_PROTECTOR, WIRE_BYTES))
		return take_hex(f, w->protector, FSCRYPT_DESCRIPTOR_LENGTH, FSCRYPT_DESCRIPTOR_LENGTH);
	if (is_field(f, POLICY_WRAPPED_KEY, WIRE_BYTES))
		return take_wrapped(f, POLICY_KEY_SIZE, &w->key);
	return 0;
}

static int take_policy_field(void *ctx, const struct field *f)
{
	struct fscrypt_policy_data *p = ctx;
	struct fscrypt_wrapped_policy *w;
	int r;

	/* 16 digits are a v1 descriptor, 32 a v2 identifier: the options, which the kernel has too, need not
	 * be read. */
	if (is_field(f, POLICY_KEY_ID, WIRE_BYTES))
		return take_hex(f, p->key_id, 16, 32);
	if (!is_field(f, POLICY_WRAPPED, WIRE_BYTES))
		return 0;
	if (p->n == FSCRYPT_PROTECTORS_MAX)
		return -E2BIG;
	w = &p->keys[p->n];
	*w = (struct fscrypt_wrapped_policy){0};
	r = read_message(f->bytes, f->size, take_wrapped_policy_field, w);
	if (r < 0)
		return r;
	if (!w->protector[0] || !w->key.size)
		return -EBADMSG;
	p->n++;
	return 0;
}

int fscrypt_policy_parse(const void *buf, size_t size, struct fscrypt_policy_data *ret)
{
	autofree struct fscrypt_policy_data *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	r = size > FSCRYPT_METADATA_MAX ? -EBADMSG : read_message(buf, size, take_policy_field, p);
	if (r < 0)
		return r;
	if (!p->key_id[0])
		return -EBADMSG;
	*ret = *p;
	return 0;
}

/* ---- unwrapping ---- */

enum { STRETCHED_SIZE = 64, HALF = STRETCHED_SIZE / 2 };

/* The wrapping key becomes one to encrypt with and one for the HMAC, by HKDF without salt and info. */
static int stretch(const struct secret *wrapping, struct secret **ret_cipher, struct secret **ret_auth)
{
	autosecret struct secret *both = NULL, *cipher = NULL;
	int r = hkdf_sha256(wrapping, "", STRETCHED_SIZE, &both);

	if (r == 0)
		r = secret_new_from(secret_data(both), HALF, &cipher);
	if (r == 0)
		r = secret_new_from(secret_data(both) + HALF, HALF, ret_auth);
	if (r == 0)
		*ret_cipher = steal_ptr(&cipher);
	return r;
}

int fscrypt_unwrap(const struct secret *wrapping, const struct fscrypt_wrapped *w, struct secret **ret)
{
	autosecret struct secret *cipher = NULL, *auth = NULL;
	uint8_t text[sizeof(w->iv) + FSCRYPT_WRAPPED_MAX], hmac[32];
	int r = stretch(wrapping, &cipher, &auth);

	if (r < 0)
		return r;
	if (w->size > FSCRYPT_WRAPPED_MAX)
		return -EBADMSG;
	memcpy(text, w->iv, sizeof(w->iv));
	memcpy(text + sizeof(w->iv), w->key, w->size);
	r = hmac_sha256(auth, text, sizeof(w->iv) + w->size, hmac);
	if (r < 0)
		return r;
	if (!crypto_equal(hmac, w->hmac, sizeof(hmac)))
		return -EKEYREJECTED;
	return aes_ctr(cipher, w->iv, w->key, w->size, ret);
}
