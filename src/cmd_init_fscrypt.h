/* SPDX-License-Identifier: MIT */
/* ckrfs init --lower fscrypt: the options of a policy, and making it. */
#ifndef CKRFS_CMD_INIT_FSCRYPT_H
#define CKRFS_CMD_INIT_FSCRYPT_H

#include "fskey.h"
#include "mount.h"
#include <stdbool.h>

struct init_fscrypt {
	int contents, names, iv; /* indexes of the words in fskey.h */
	unsigned padding;        /* 0: the default */
	bool given;              /* any of them was */
};

/* 1: an option of these, taken; 0: none of them. */
int init_fscrypt_set(struct init_fscrypt *f, const char *name, const char *value, struct error *err);

/* Makes the empty directory fd one that is encrypted with the volume's key, and says so. */
int init_fscrypt_make(struct mount *m, int fd, const struct init_fscrypt *f, const char *key_spec,
		      struct error *err);

#endif
