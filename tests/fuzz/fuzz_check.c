/* SPDX-License-Identifier: MIT */
/*
 * A volume of which one part is a stranger's: the first byte of the input chooses which, the rest is put
 * there. Every finding that a check gives must come back from its JSON as it was.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/scratch_dir.h"
#include "check.h"
#include "config.h"
#include "crypto.h"
#include "gcfs_names.h"
#include "quarantine.h"
#include "store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LONG_OBJECT GCFS_LONG_PREFIX "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"

static struct scratch dir;
static struct format *format;

static void must(int ok)
{
	if (!ok)
		abort();
}

static void clean(void)
{
	scratch_remove(&dir);
}

static void setup(void)
{
	struct format_params params = {.kind = CONFIG_FORMAT_GOCRYPTFS, .scrypt_memory = 1 << 28};
	struct error err;
	struct key key = {.passphrase = true};
	struct format_init_params init = {.key = &key, .log_n = 10, .scrypt_memory = 1 << 28};

	must(scratch_make(&dir) == 0 && store_init_proc() == 0 && crypto_init() == 0);
	atexit(clean);
	params.root_fd = dir.fd;
	must(secret_new_from("fuzz", 4, &key.bytes) == 0);
	init.root_fd = dir.fd;
	must(format_init(&init, &err) == 0);
	must(format_open(&params, &format, &err) == 0);
	must(format_unlock(format, &key, &err) == 0);
	must(format_start(format, NULL, NULL, &err) == 0);
	secret_free(key.bytes);
	must(store_mkdir(dir.fd, "sub", 0700) == 0);
}

static void on_finding(void *ctx, const struct finding *f)
{
	struct finding back;
	struct finding_summary summary;
	char *line = NULL;

	must(finding_format(f, &line) == 0);
	must(finding_parse(line, strlen(line), &back, &summary) == 0);
	must(back.kind == f->kind && strcmp(back.path, f->path) == 0 && back.blocks == f->blocks &&
	     back.first_block == f->first_block);
	finding_wipe(&back);
	free(line);
}

static void check_volume(void)
{
	struct check_params params = {.format = format, .root_fd = dir.fd, .threads = 1, .found = on_finding};
	struct check *check = NULL;
	struct error err;

	must(check_new(&params, &check, &err) == 0);
	must(check_run(check, &err) == 0);
	check_free(check);
}

/* The file name in a directory, for one check. */
static void with_file(int fd, const char *name, const uint8_t *data, size_t size)
{
	if (store_write_file(fd, name, data, size, 0600, false) < 0)
		return;
	check_volume();
	store_unlink(fd, name);
}

static void with_link(const uint8_t *data, size_t size)
{
	char *target = strndup((const char *)data, size);

	if (store_symlink(target, dir.fd, "AAAAAAAAAAAAAAAAAAAAAA") == 0) {
		check_volume();
		store_unlink(dir.fd, "AAAAAAAAAAAAAAAAAAAAAA");
	}
	free(target);
}

static void with_name(const uint8_t *data, size_t size)
{
	char *name = strndup((const char *)data, size);

	if (strcmp(name, GCFS_CONF_FILE) != 0 && strcmp(name, GCFS_DIRIV_FILE) != 0)
		with_file(dir.fd, name, (const uint8_t *)"x", 1);
	free(name);
}

static void with_line(const uint8_t *data, size_t size)
{
	struct finding f;
	struct finding_summary summary;

	if (finding_parse((const char *)data, size, &f, &summary) == 0) {
		on_finding(NULL, &f);
		finding_wipe(&f);
	}
}

/* A log of a repair moves things of the volume at most. */
static void with_log(int fd, const uint8_t *data, size_t size)
{
	unsigned done, left;
	struct error err;

	if (store_write_file(fd, QUARANTINE_LOG, data, size, 0600, false) < 0)
		return;
	quarantine_undo(fd, fd, QUARANTINE_LOG, &done, &left, &err);
	store_unlink(fd, QUARANTINE_LOG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd;

	if (!format)
		setup();
	if (size == 0)
		return 0;
	fd = store_open_dir(dir.fd, "sub");
	switch (data[0] % 7) {
	case 0:
		with_file(fd, GCFS_DIRIV_FILE, data + 1, size - 1);
		break;
	case 1:
		must(store_write_file(fd, LONG_OBJECT, "", 0, 0600, false) == 0);
		with_file(fd, LONG_OBJECT GCFS_LONG_SUFFIX, data + 1, size - 1);
		store_unlink(fd, LONG_OBJECT);
		break;
	case 2:
		with_file(dir.fd, "AAAAAAAAAAAAAAAAAAAAAA", data + 1, size - 1);
		break;
	case 3:
		with_link(data + 1, size - 1);
		break;
	case 4:
		with_name(data + 1, size - 1);
		break;
	case 5:
		with_line(data + 1, size - 1);
		break;
	default:
		with_log(fd, data + 1, size - 1);
	}
	close(fd);
	return 0;
}
