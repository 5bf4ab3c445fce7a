/* SPDX-License-Identifier: MIT */
/*
 * AES-256-GCM by Intel's Multi-Buffer Crypto library, where it was found at build time and the processor has
 * AES-NI: its code for wide vectors is several times as fast as OpenSSL 3.0's. The results are the same bit
 * for bit. Used by crypto_aead.c alone, which has OpenSSL for everything else, and for this too where
 * gcm_new() says -ENOTSUP. The only file that includes intel-ipsec-mb.h is crypto_gcm.c.
 */
#ifndef CKRFS_CRYPTO_GCM_H
#define CKRFS_CRYPTO_GCM_H

#include "secret.h"
#include <stddef.h>
#include <stdint.h>

struct gcm;

/* One key, expanded into secret memory; used by any number of threads. key: 32 bytes. -ENOTSUP, -ENOMEM */
int gcm_new(const struct secret *key, size_t iv_size, struct gcm **ret);
void gcm_free(struct gcm *g);

/* As aead_seal() and aead_open(), crypto.h. */
void gcm_seal(const struct gcm *g, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	      size_t size, void *out, uint8_t ret_tag[16]);
int gcm_open(const struct gcm *g, const uint8_t *iv, const void *aad, size_t aad_size, const void *in,
	     size_t size, const uint8_t *tag, void *out);

#endif
