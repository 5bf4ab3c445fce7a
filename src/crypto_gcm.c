/* SPDX-License-Identifier: MIT */
#include "crypto_gcm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "version.h"

/* The unit tests build it once more without, so that both ways are tested. */
#if defined(CKRFS_HAVE_IPSEC_MB) && !defined(CKRFS_WITHOUT_IPSEC_MB)
#include <intel-ipsec-mb.h>
#include <pthread.h>

#include "cleanup.h"
#include "crypto.h"

struct gcm {
	struct secret *pages; /* holds the expanded key, aligned as the library wants it */
	struct gcm_key_data *key;
	size_t iv_size;
};

/* A table of the functions that fit the processor. Holds no key. */
static IMB_MGR *functions;

static void choose_functions(void)
{
	IMB_MGR *mgr = alloc_mb_mgr(0);

	if (!mgr)
		return;
	init_mb_mgr_auto(mgr, NULL);
	if (mgr->features & IMB_FEATURE_AESNI && imb_get_errno(mgr) == 0)
		functions = mgr;
	else
		free_mb_mgr(mgr);
}

int gcm_new(const struct secret *key, size_t iv_size, struct gcm **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	enum { ALIGN = 64 };
	struct gcm *g;
	uintptr_t at;
	int r;

	pthread_once(&once, choose_functions);
	if (!functions)
		return -ENOTSUP;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	r = secret_new(sizeof(*g->key) + ALIGN, &g->pages);
	if (r < 0) {
		free(g);
		return r;
	}
	at = (uintptr_t)secret_data(g->pages);
	g->key = (struct gcm_key_data *)((at + ALIGN - 1) / ALIGN * ALIGN);
	g->iv_size = iv_size;
	secret_stack();
	IMB_AES256_GCM_PRE(functions, secret_data(key), g->key);
	*ret = g;
	return 0;
}

void gcm_free(struct gcm *g)
{
	if (!g)
		return;
	secret_free(g->pages);
	free(g);
}

void gcm_seal(const struct gcm *g, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, void *out, uint8_t ret_tag[16])
{
	struct gcm_context_data state;

	IMB_AES256_GCM_INIT_VAR_IV(functions, g->key, &state, iv, g->iv_size, aad, aad_size);
	if (size)
		IMB_AES256_GCM_ENC_UPDATE(functions, g->key, &state, out, in, size);
	IMB_AES256_GCM_ENC_FINALIZE(functions, g->key, &state, ret_tag, 16);
}

int gcm_open(const struct gcm *g, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	     size_t size, const uint8_t *tag, void *out)
{
	struct gcm_context_data state;
	uint8_t real[16];

	IMB_AES256_GCM_INIT_VAR_IV(functions, g->key, &state, iv, g->iv_size, aad, aad_size);
	if (size)
		IMB_AES256_GCM_DEC_UPDATE(functions, g->key, &state, out, in, size);
	IMB_AES256_GCM_DEC_FINALIZE(functions, g->key, &state, real, sizeof(real));
	if (crypto_equal(real, tag, sizeof(real)))
		return 0;
	/* It decrypts before it knows: what came out is not to be trusted. */
	if (size)
		explicit_bzero(out, size);
	return -EBADMSG;
}

#else

int gcm_new(const struct secret *key, size_t iv_size, struct gcm **ret)
{
	return -ENOTSUP;
}

void gcm_free(struct gcm *g) {}

void gcm_seal(const struct gcm *g, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, void *out, uint8_t ret_tag[16])
{
	abort(); /* there is no g */
}

int gcm_open(const struct gcm *g, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	     size_t size, const uint8_t *tag, void *out)
{
	abort(); /* there is no g */
}

#endif
