/* SPDX-License-Identifier: MIT */
/*
 * gocryptfs.conf from a stranger: parsing must end, and what it takes must be within the limits that
 * gcfs_config.h states and must survive being written and read again.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "gcfs_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static void check_limits(const struct gcfs_config *cfg)
{
	must(cfg->scrypt_n >= 1024 && (cfg->scrypt_n & (cfg->scrypt_n - 1)) == 0);
	must(cfg->scrypt_r >= 8 && cfg->scrypt_p >= 1);
	must(cfg->salt_size >= 32 && cfg->salt_size <= sizeof(cfg->salt));
	must(cfg->encrypted_key_size == (cfg->flags & GCFS_HKDF ? 64 : 60));
	must(!(cfg->flags & GCFS_FIDO2) || cfg->fido2.present);
	must(!(cfg->flags & GCFS_LONG_NAME_MAX) == !cfg->long_name_max);
	must(memchr(cfg->creator, '\0', sizeof(cfg->creator)) != NULL);
}

static void check_rewrite(const struct gcfs_config *cfg)
{
	autofree char *text = NULL;
	struct gcfs_config again;
	size_t size;

	if (gcfs_config_format(cfg, &text, &size) < 0)
		return;
	must(gcfs_config_parse(text, size, &again, NULL) == 0);
	must(again.flags == cfg->flags && again.scrypt_n == cfg->scrypt_n &&
	     again.scrypt_r == cfg->scrypt_r && again.scrypt_p == cfg->scrypt_p);
	must(again.salt_size == cfg->salt_size && memcmp(again.salt, cfg->salt, cfg->salt_size) == 0);
	must(again.long_name_max == cfg->long_name_max);
	must(memcmp(&again.fido2, &cfg->fido2, sizeof(again.fido2)) == 0);
	must(memcmp(again.encrypted_key, cfg->encrypted_key, cfg->encrypted_key_size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = ERROR_NONE;
	struct gcfs_config cfg;
	int r = gcfs_config_parse((const char *)data, size, &cfg, &err);

	must(r <= 0);
	if (r < 0) {
		must(err.code == r && err.text[0] && err.status != EXIT_STATUS_DONE);
		return 0;
	}
	check_limits(&cfg);
	check_rewrite(&cfg);
	return 0;
}
