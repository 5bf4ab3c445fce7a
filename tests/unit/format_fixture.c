/* SPDX-License-Identifier: MIT */
#include "format_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct scratch dir;
struct format *format;
struct format_dir root;
static uint8_t root_iv[16];
static uint8_t plain_room[FORMAT_IO_ROOM], disk_room[FORMAT_IO_ROOM];
struct format_io io = {plain_room, disk_room};
static struct format_init_params kind_of_volume; /* that init_format() makes */
unsigned damages;
char last_damage[256];
static bool may_repair, is_made;

static void count_damage(void *ctx, const char *what, const char *where)
{
	damages++;
	snprintf(last_damage, sizeof(last_damage), "%s: %s", where, what);
}

struct key raw_key(int seed)
{
	struct key key = {0};

	assert_int_equal(secret_new(32, &key.bytes), 0);
	memset(secret_data(key.bytes), seed, 32);
	return key;
}

int open_format(int kind)
{
	struct format_params params = {
		.kind = kind,
		.root_fd = dir.fd,
		.scrypt_memory = 1 << 28,
		.may_repair = may_repair,
	};
	struct error err = ERROR_NONE;
	struct key key = raw_key(7);

	if ((is_made ? format_make : format_open)(&params, &format, &err) < 0)
		return -1;
	if (format_needs_key(format) && !is_made && format_unlock(format, &key, &err) < 0)
		return -1;
	secret_free(key.bytes);
	if (format_start(format, count_damage, NULL, &err) < 0)
		return -1;
	root = (struct format_dir){.fd = dir.fd, .iv = root_iv, .root = true};
	return format_dir_iv(format, dir.fd, root_iv);
}

int init_format(const struct key *key, struct error *err)
{
	const struct format_init_params params = {
		.kind = CONFIG_FORMAT_GOCRYPTFS,
		.root_fd = dir.fd,
		.key = key,
		.log_n = 10,
		.scrypt_memory = 1 << 28,
		.cipher = kind_of_volume.cipher,
		.names = kind_of_volume.names,
		.long_name_max = kind_of_volume.long_name_max,
	};

	return format_init(&params, err);
}

int setup(void **state)
{
	struct error err = ERROR_NONE;
	struct key key = raw_key(7);
	int r;

	if (scratch_make(&dir) < 0 || store_init_proc() < 0)
		return -1;
	r = init_format(&key, &err);
	secret_free(key.bytes);
	damages = 0;
	return r < 0 ? -1 : open_format(CONFIG_FORMAT_GOCRYPTFS);
}

/* SIV, and names in clear. */
int setup_plain_names(void **state)
{
	kind_of_volume =
		(struct format_init_params){.cipher = FORMAT_CIPHER_AES_SIV, .names = FORMAT_NAMES_PLAINTEXT};
	return setup(state);
}

/* XChaCha, and names encrypted without an IV, by hash from 62 on. */
int setup_deterministic(void **state)
{
	kind_of_volume = (struct format_init_params){
		.cipher = FORMAT_CIPHER_XCHACHA, .names = FORMAT_NAMES_DETERMINISTIC, .long_name_max = 62};
	return setup(state);
}

/* With a key that nobody knows. */
int setup_made(void **state)
{
	is_made = true;
	damages = 0;
	return scratch_make(&dir) < 0 || store_init_proc() < 0 ? -1 : open_format(CONFIG_FORMAT_GOCRYPTFS);
}

int setup_plain(void **state)
{
	return scratch_make(&dir) < 0 || store_init_proc() < 0 ? -1 : open_format(CONFIG_FORMAT_PLAIN);
}

int setup_repairing(void **state)
{
	may_repair = true;
	return setup(state);
}

int teardown(void **state)
{
	may_repair = is_made = false;
	format_free(format);
	format = NULL;
	kind_of_volume = (struct format_init_params){.kind = 0};
	scratch_remove(&dir);
	return 0;
}

struct format_name encode(const char *name)
{
	struct format_name disk;

	assert_int_equal(format_name_encode(format, &root, name, &disk), 0);
	return disk;
}

struct format_file *create(const char *name)
{
	struct format_name disk = encode(name);
	struct format_file *file;
	int fd = format_create(format, &root, &disk, O_RDWR | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(format_file_new(format, fd, true, &file), 0);
	return file;
}

bool exists(const char *disk)
{
	struct stat st;

	return store_stat(dir.fd, disk, &st) == 0;
}

void assert_contents(struct format_file *file, const uint8_t *want, size_t size)
{
	struct stat st;

	assert_int_equal(store_stat_fd(format_file_fd(file), &st), 0);
	format_file_fd_done(file);
	format_attr(format, -1, &st);
	assert_int_equal(st.st_size, size);
	for (size_t at = 0; at <= size; at += 100000) {
		size_t n = size - at < 100000 ? size - at : 100000;
		const uint8_t *data = NULL;

		assert_int_equal(format_read(format, file, &io, 100000, at, &data), n);
		if (n)
			assert_memory_equal(data, want + at, n);
	}
}

struct format_dir sub_dir(const struct format_name *name, uint8_t iv[16])
{
	int fd = store_open_dir(dir.fd, name->disk);

	assert_true(fd >= 0);
	assert_int_equal(format_dir_iv(format, fd, iv), 0);
	return (struct format_dir){.fd = fd, .iv = iv};
}
