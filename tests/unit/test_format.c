/* SPDX-License-Identifier: MIT */
/* Formats without FUSE: contents of files, links, attributes and keys. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "format_fixture.h"

enum { MODEL_SIZE = 300000 };

/* A small random program against a model in memory: the same for every format. */
static void file_is_what_was_written(void **state)
{
	static uint8_t model[MODEL_SIZE], buf[MODEL_SIZE];
	struct format_file *file = create("file");
	size_t size = 0;
	unsigned seed = 12345;

	memset(model, 0, sizeof(model));
	for (int step = 0; step < 1500; step++) {
		size_t at = (size_t)rand_r(&seed) % (step % 3 ? 20000 : MODEL_SIZE - 70000);
		size_t n = (size_t)rand_r(&seed) % (step % 7 ? 9000 : 70000);

		switch (rand_r(&seed) % 8) {
		case 0:
			assert_int_equal(format_truncate(format, file, &io, at), 0);
			if (at < size)
				memset(model + at, 0, size - at);
			size = at;
			break;
		case 1:
			assert_int_equal(format_fallocate(format, file, &io,
							  step % 2 ? FALLOC_FL_KEEP_SIZE : 0, at, n + 1),
					 0);
			if (step % 2 == 0 && at + n + 1 > size)
				size = at + n + 1;
			break;
		default:
			for (size_t i = 0; i < n; i++)
				buf[i] = (uint8_t)rand_r(&seed);
			assert_int_equal(format_write(format, file, &io, buf, n, at), n);
			memcpy(model + at, buf, n);
			if (n && at + n > size)
				size = at + n;
		}
		if (step % 10 == 0)
			assert_contents(file, model, size);
	}
	assert_contents(file, model, size);
	assert_int_equal(damages, 0);
	format_file_free(file);
}

/* Nobody who uses the file notices that it is opened anew; each renewal does so once. */
static void renewing_keeps_the_file(void **state)
{
	static const uint8_t text[] = "before and after";
	struct format_file *file = create("file");

	assert_int_equal(format_write(format, file, &io, text, 6, 0), 6);
	assert_int_equal(format_file_renew(file, 1), 0);
	assert_true(format_file_writable(file));
	assert_int_equal(format_write(format, file, &io, text + 6, sizeof(text) - 6, 6), sizeof(text) - 6);
	assert_int_equal(format_file_renew(file, 1), 0);
	assert_int_equal(format_fsync(format, file, false), 0);
	assert_contents(file, text, sizeof(text));
	assert_true(format_file_let_go(file));
	assert_int_equal(format_file_renew(file, 2), 0);
	assert_true(format_file_is_away(file));
	format_file_free(file);
}

/* truncate(2) to the size that a file has leaves its times alone, also that of an empty one. */
static void same_size_is_no_change(void **state)
{
	static const struct timespec old[2] = {{1000, 1}, {1000, 1}};

	for (size_t size = 0; size < 3; size++) {
		const char name[] = {(char)('a' + size), '\0'};
		struct format_file *file = create(name);
		struct stat st;

		if (size)
			assert_int_equal(format_write(format, file, &io, "xy", size, 0), size);
		assert_int_equal(futimens(format_file_fd(file), old), 0);
		format_file_fd_done(file);
		assert_int_equal(format_truncate(format, file, &io, size), 0);
		assert_int_equal(store_stat_fd(format_file_fd(file), &st), 0);
		format_file_fd_done(file);
		assert_int_equal(st.st_mtim.tv_sec, 1000);
		format_file_free(file);
	}
}

static void holes_are_found(void **state)
{
	struct format_file *file = create("sparse");
	uint64_t at;

	assert_int_equal(format_write(format, file, &io, "x", 1, 0), 1);
	assert_int_equal(format_write(format, file, &io, "y", 1, 10 << 20), 1);
	if (format_seek(format, file, 0, SEEK_HOLE, &at) == 0 && at < 10 << 20) {
		assert_true(at >= 4096);
		assert_int_equal(at % 4096, 0);
		assert_int_equal(format_seek(format, file, at, SEEK_DATA, &at), 0);
		assert_true(at > 4096 && at <= 10 << 20);
	}
	assert_int_equal(format_seek(format, file, (10 << 20) + 1, SEEK_DATA, &at), -ENXIO);
	format_file_free(file);
}

/* Flips a byte of the only file, reads block by block. */
static void a_damaged_block_is_one_block(void **state)
{
	static uint8_t data[5 * 4096];
	struct format_file *file = create("file");
	struct format_name disk = encode("file");
	const uint8_t *ret;
	uint8_t byte;
	int fd;

	memset(data, 'd', sizeof(data));
	assert_int_equal(format_write(format, file, &io, data, sizeof(data), 0), sizeof(data));
	fd = store_open(dir.fd, disk.disk, O_RDWR, 0);
	assert_int_equal(pread(fd, &byte, 1, 18 + 2 * 4128 + 100), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 18 + 2 * 4128 + 100), 1);
	close(fd);
	for (int block = 0; block < 5; block++)
		assert_int_equal(format_read(format, file, &io, 4096, (uint64_t)block * 4096, &ret),
				 block == 2 ? -EIO : 4096);
	assert_int_equal(damages, 1);
	assert_non_null(strstr(last_damage, disk.disk));
	assert_non_null(strstr(last_damage, "block 2 of a file is damaged"));
	/* A partial write needs the old block; a whole one replaces it. */
	assert_int_equal(format_write(format, file, &io, "x", 1, 2 * 4096), -EIO);
	assert_int_equal(format_write(format, file, &io, data, 4096, 2 * 4096), 4096);
	assert_int_equal(format_read(format, file, &io, 4096, 2 * 4096, &ret), 4096);
	format_file_free(file);
}

static void a_damaged_header_is_the_whole_file(void **state)
{
	struct format_file *file = create("file");
	struct format_name disk = encode("file");
	const uint8_t *ret;
	int fd;

	assert_int_equal(format_write(format, file, &io, "abc", 3, 0), 3);
	format_file_free(file);
	fd = store_open(dir.fd, disk.disk, O_RDWR, 0);
	assert_int_equal(pwrite(fd, "\0\3", 2, 0), 2);
	assert_int_equal(format_file_new(format, fd, true, &file), 0);
	assert_int_equal(format_read(format, file, &io, 4096, 0, &ret), -EIO);
	assert_int_equal(format_write(format, file, &io, "x", 1, 1), -EIO);
	assert_int_equal(format_truncate(format, file, &io, 0), 0); /* but it can be emptied and used again */
	assert_int_equal(format_write(format, file, &io, "new", 3, 0), 3);
	assert_int_equal(format_read(format, file, &io, 4096, 0, &ret), 3);
	format_file_free(file);
}

static void links_and_xattrs_go_around(void **state)
{
	struct format_name name = encode("link");
	char target[4096], list[256];
	struct stat st;
	int fd;

	assert_int_equal(format_symlink(format, "some/where", &root, &name), 0);
	fd = store_open(dir.fd, name.disk, O_PATH, 0);
	assert_int_equal(format_readlink(format, fd, target, sizeof(target)), 0);
	assert_string_equal(target, "some/where");
	assert_int_equal(store_stat_fd(fd, &st), 0);
	format_attr(format, fd, &st);
	assert_int_equal(st.st_size, strlen("some/where"));
	close(fd);
	format_file_free(create("file"));
	name = encode("file");
	fd = store_open(dir.fd, name.disk, O_PATH, 0);
	assert_int_equal(format_setxattr(format, fd, "user.test", "value", 5, 0), 0);
	assert_int_equal(format_getxattr(format, fd, "user.test", NULL, 0), 5);
	assert_int_equal(format_getxattr(format, fd, "user.test", target, 3), -ERANGE);
	assert_int_equal(format_getxattr(format, fd, "user.test", target, sizeof(target)), 5);
	assert_memory_equal(target, "value", 5);
	assert_int_equal(format_listxattr(format, fd, list, sizeof(list)), sizeof("user.test"));
	assert_string_equal(list, "user.test");
	assert_int_equal(format_removexattr(format, fd, "user.test"), 0);
	assert_int_equal(format_getxattr(format, fd, "user.test", target, sizeof(target)), -ENODATA);
	close(fd);
}

static void wrong_master_key_is_refused(void **state)
{
	struct format_params params = {
		.kind = CONFIG_FORMAT_GOCRYPTFS, .root_fd = dir.fd, .scrypt_memory = 1 << 28};
	struct error err = ERROR_NONE;
	struct format *other;
	struct key key = raw_key(8);

	format_file_free(create("something"));
	assert_int_equal(format_open(&params, &other, &err), 0);
	assert_true(format_unlock(other, &key, &err) < 0);
	assert_int_equal(err.status, EXIT_STATUS_WRONG_KEY);
	secret_free(key.bytes);
	format_free(other);
}

/* The room with what a format of its own, unlocked with that key, hands over. */
static struct secret *hand_over(int seed)
{
	struct format_params params = {
		.kind = CONFIG_FORMAT_GOCRYPTFS, .root_fd = dir.fd, .scrypt_memory = 1 << 28};
	struct error err = ERROR_NONE;
	struct secret *room;
	struct format *other;
	struct key key = raw_key(seed);

	assert_int_equal(secret_new(FORMAT_KEY_SIZE, &room), 0);
	assert_int_equal(format_open(&params, &other, &err), 0);
	assert_int_equal(format_unlock(other, &key, &err), 0);
	format_hand_over(other, room);
	format_free(other);
	return room;
}

/* Files that are open stay open; a key that is not the volume's leaves it locked. */
static void locked_and_started_again(void **state)
{
	struct format_file *file = create("something");
	struct secret *room = hand_over(7);
	struct error err = ERROR_NONE;
	const uint8_t *data;

	assert_int_equal(format_write(format, file, &io, "here", 4, 0), 4);
	for (int i = 0; i < 2; i++) {
		format_lock(format);
		secret_data(room)[0] ^= 1;
		assert_int_equal(format_restart(format, room, &err), -EKEYREJECTED);
		assert_int_equal(err.status, EXIT_STATUS_WRONG_KEY);
		secret_data(room)[0] ^= 1;
		assert_int_equal(format_restart(format, room, &err), 0);
		assert_int_equal(format_read(format, file, &io, 100, 0, &data), 4);
		assert_memory_equal(data, "here", 4);
	}
	secret_free(room);
	format_file_free(file);
}

static void plain_is_locked_without_a_key(void **state)
{
	struct format_file *file = create("something");
	struct error err = ERROR_NONE;
	struct secret *room;

	assert_int_equal(secret_new(FORMAT_KEY_SIZE, &room), 0);
	format_hand_over(format, room);
	format_lock(format);
	assert_int_equal(format_restart(format, room, &err), 0);
	assert_int_equal(format_write(format, file, &io, "here", 4, 0), 4);
	secret_free(room);
	format_file_free(file);
}

/* Of one whose names say nothing, what is in the files proves the key; nothing at all refutes none. */
static void master_key_is_proved_without_names(void **state)
{
	struct format_params params = {
		.kind = CONFIG_FORMAT_GOCRYPTFS, .root_fd = dir.fd, .scrypt_memory = 1 << 28};
	struct format_name link = encode("a-link");

	assert_int_equal(format_symlink(format, "/somewhere", &root, &link), 0);
	format_file_free(create("empty"));
	for (int filled = 0; filled < 2; filled++) {
		for (int seed = 7; seed < 9; seed++) {
			struct error err = ERROR_NONE;
			struct format *other;
			struct key key = raw_key(seed);

			assert_int_equal(format_open(&params, &other, &err), 0);
			assert_int_equal(format_unlock(other, &key, &err),
					 filled && seed == 8 ? -EKEYREJECTED : 0);
			secret_free(key.bytes);
			format_free(other);
		}
		if (!filled) {
			struct format_file *file = create("full");

			assert_int_equal(format_write(format, file, &io, "x", 1, 0), 1);
			format_file_free(file);
		}
	}
}

static void init_refuses_what_is_not_empty(void **state)
{
	struct error err = ERROR_NONE;
	struct key key = raw_key(7);

	assert_int_equal(init_format(&key, &err), -ENOTEMPTY);
	secret_free(key.bytes);
}

/* Nothing of its key is there, and the next one has another. */
static void made_volume_cannot_be_opened(void **state)
{
	struct format_params params = {.kind = CONFIG_FORMAT_GOCRYPTFS, .root_fd = dir.fd};
	struct error err = ERROR_NONE;
	struct format *other = NULL;
	char identifier[64];

	assert_true(exists("gocryptfs.diriv"));
	assert_false(exists("gocryptfs.conf"));
	assert_int_equal(format_open(&params, &other, &err), -ENOENT);
	snprintf(identifier, sizeof(identifier), "%s", format_key_identifier(format));
	assert_int_equal(strlen(identifier), 32);
	/* Not where there is one already. */
	assert_int_equal(format_make(&params, &other, &err), -EEXIST);
	assert_int_equal(store_unlink(dir.fd, "gocryptfs.diriv"), 0);
	assert_int_equal(format_make(&params, &other, &err), 0);
	assert_string_not_equal(format_key_identifier(other), identifier);
	format_free(other);
	params.kind = CONFIG_FORMAT_PLAIN;
	assert_int_equal(format_make(&params, &other, &err), -EOPNOTSUPP);
	assert_int_equal(err.status, EXIT_STATUS_UNSUPPORTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup, teardown),
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup_plain, teardown),
		cmocka_unit_test_setup_teardown(renewing_keeps_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(renewing_keeps_the_file, setup_plain, teardown),
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup_made, teardown),
		cmocka_unit_test_setup_teardown(links_and_xattrs_go_around, setup_made, teardown),
		cmocka_unit_test_setup_teardown(made_volume_cannot_be_opened, setup_made, teardown),
		cmocka_unit_test_setup_teardown(same_size_is_no_change, setup, teardown),
		cmocka_unit_test_setup_teardown(holes_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_block_is_one_block, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_header_is_the_whole_file, setup, teardown),
		cmocka_unit_test_setup_teardown(links_and_xattrs_go_around, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_master_key_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(locked_and_started_again, setup, teardown),
		cmocka_unit_test_setup_teardown(plain_is_locked_without_a_key, setup_plain, teardown),
		cmocka_unit_test_setup_teardown(init_refuses_what_is_not_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(links_and_xattrs_go_around, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(master_key_is_proved_without_names, setup_plain_names,
						teardown),
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(links_and_xattrs_go_around, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(wrong_master_key_is_refused, setup_deterministic, teardown),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
