/* SPDX-License-Identifier: MIT */
/* Argon2id by libargon2, which OpenSSL has only from 3.2 on. Its table is wiped by the library, and is left
 * out of core files until then. */
#include <argon2.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cleanup.h"
#include "crypto_wrap.h"
#include "util.h"

enum { OUT_SIZE = 32, SALT_MAX = 64 };

static int table_new(uint8_t **memory, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return ARGON2_MEMORY_ALLOCATION_ERROR;
	madvise(p, size, MADV_DONTDUMP);
	madvise(p, size, MADV_DONTFORK);
	*memory = p;
	return ARGON2_OK;
}

static void table_free(uint8_t *memory, size_t size)
{
	munmap(memory, size);
}

static uint32_t thread_count(uint32_t lanes)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return (uint32_t)min_u64(lanes, cpus > 0 ? (uint64_t)cpus : 1);
}

static bool argon2_has(const struct argon2_cost *c)
{
	return c->time >= ARGON2_MIN_TIME && c->lanes >= ARGON2_MIN_LANES && c->lanes <= ARGON2_MAX_LANES &&
	       c->memory_kib >= UINT64_C(8) * c->lanes;
}

int argon2id_derive(const struct secret *password, const void *salt, size_t salt_size,
		    const struct argon2_cost *cost, uint64_t max_memory, struct secret **ret)
{
	autosecret struct secret *out = NULL;
	uint8_t salt_copy[SALT_MAX]; /* the library has no const */
	argon2_context ctx = {
		.outlen = OUT_SIZE,
		.pwd = secret_data(password),
		.pwdlen = (uint32_t)secret_size(password),
		.salt = salt_copy,
		.saltlen = (uint32_t)salt_size,
		.t_cost = cost->time,
		.m_cost = cost->memory_kib,
		.lanes = cost->lanes,
		.threads = thread_count(cost->lanes),
		.version = ARGON2_VERSION_13,
		.allocate_cbk = table_new,
		.free_cbk = table_free,
		.flags = ARGON2_DEFAULT_FLAGS,
	};
	int r;

	if (!argon2_has(cost) || salt_size < ARGON2_MIN_SALT_LENGTH || salt_size > SALT_MAX)
		return -EINVAL;
	if (UINT64_C(1024) * cost->memory_kib > max_memory)
		return -ENOMEM;
	r = secret_new(OUT_SIZE, &out);
	if (r < 0)
		return r;
	memcpy(salt_copy, salt, salt_size);
	ctx.out = secret_data(out);
	secret_stack();
	r = argon2id_ctx(&ctx);
	if (r == ARGON2_THREAD_FAIL) {
		ctx.threads = 1;
		r = argon2id_ctx(&ctx);
	}
	if (r != ARGON2_OK)
		return r == ARGON2_MEMORY_ALLOCATION_ERROR || r == ARGON2_THREAD_FAIL ? -ENOMEM : -EINVAL;
	*ret = steal_ptr(&out);
	return 0;
}
