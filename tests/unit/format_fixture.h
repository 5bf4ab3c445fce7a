/* SPDX-License-Identifier: MIT */
/* A format over a scratch directory, for the tests of formats: made by a setup, gone with the teardown. */
#ifndef CKRFS_TEST_FORMAT_FIXTURE_H
#define CKRFS_TEST_FORMAT_FIXTURE_H

#include "config.h"
#include "crypto.h"
#include "format.h"
#include "scratch_dir.h"
#include "store.h"
#include "unit.h"
#include "util.h"

extern struct scratch dir;
extern struct format *format;
extern struct format_dir root;
extern struct format_io io;
extern unsigned damages;
extern char last_damage[256];

/* Formats made by the setups have raw_key(7). */
struct key raw_key(int seed);
int open_format(int kind);
int init_format(const struct key *key, struct error *err);

int setup(void **state);
int setup_plain_names(void **state);
int setup_deterministic(void **state);
int setup_made(void **state);
int setup_plain(void **state);
int setup_repairing(void **state);
int teardown(void **state);

struct format_name encode(const char *name);
struct format_file *create(const char *name);
bool exists(const char *disk);
void assert_contents(struct format_file *file, const uint8_t *want, size_t size);
/* A directory in the root; its fd is the caller's. */
struct format_dir sub_dir(const struct format_name *name, uint8_t iv[16]);

#endif
