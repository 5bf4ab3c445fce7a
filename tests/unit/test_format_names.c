/* SPDX-License-Identifier: MIT */
/* Formats without FUSE: names and directories. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

#include "format_fixture.h"

static void fill_name(char *name, int n)
{
	memset(name, 'n', (size_t)n);
	name[n] = '\0';
}

/* Names on both sides of the edge between stored and hashed. */
static void long_names_have_their_text_beside_them(void **state)
{
	static const int lengths[] = {1, 15, 16, 175, 176, 254, 255};

	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		char name[256], text[300], decoded[256];
		struct format_name disk;

		fill_name(name, lengths[i]);
		disk = encode(name);
		snprintf(text, sizeof(text), "%s.name", disk.disk);
		assert_int_equal(format_mkdir(format, &root, &disk, 0700), 0);
		assert_int_equal(exists(text), lengths[i] > 175);
		assert_int_equal(format_name_decode(format, &root, disk.disk, decoded), 0);
		assert_string_equal(decoded, name);
		assert_int_equal(format_rmdir(format, &root, &disk), 0);
		assert_false(exists(text));
		assert_false(exists(disk.disk));
	}
}

static void a_leftover_name_file_is_used(void **state)
{
	char name[256], text[300], decoded[256];
	struct format_name disk;

	fill_name(name, 200);
	disk = encode(name);
	snprintf(text, sizeof(text), "%s.name", disk.disk);
	assert_int_equal(store_write_file(dir.fd, text, "garbage", 7, 0444, false), 0);
	format_file_free(create(name));
	assert_int_equal(format_name_decode(format, &root, disk.disk, decoded), 0);
	assert_string_equal(decoded, name);
	/* Lost altogether: hidden, but reachable, and reported. */
	assert_int_equal(store_unlink(dir.fd, text), 0);
	assert_int_equal(format_name_decode(format, &root, disk.disk, decoded), -ENOENT);
	assert_int_equal(damages, 1);
}

static void renaming_moves_name_files(void **state)
{
	char a_name[256], b_name[256], a_text[300], b_text[300];
	struct format_name a, b, s = encode("short");

	fill_name(a_name, 200);
	fill_name(b_name, 201);
	a = encode(a_name);
	b = encode(b_name);
	snprintf(a_text, sizeof(a_text), "%s.name", a.disk);
	snprintf(b_text, sizeof(b_text), "%s.name", b.disk);
	format_file_free(create(a_name));
	assert_int_equal(format_rename(format, &root, &a, &root, &b, 0), 0);
	assert_true(!exists(a_text) && exists(b_text) && exists(b.disk));
	assert_int_equal(format_rename(format, &root, &b, &root, &s, 0), 0);
	assert_true(!exists(b_text) && exists(s.disk));
	assert_int_equal(format_rename(format, &root, &s, &root, &a, 0), 0);
	assert_true(exists(a_text) && exists(a.disk));
	/* A target that is there stays as it was. */
	format_file_free(create(b_name));
	assert_int_equal(format_rename(format, &root, &a, &root, &b, RENAME_NOREPLACE), -EEXIST);
	assert_true(exists(a_text) && exists(b_text));
	assert_int_equal(format_rename(format, &root, &a, &root, &b, RENAME_EXCHANGE), 0);
	assert_true(exists(a_text) && exists(b_text));
}

/* rename(2) of one link over another of the same inode does nothing: both names stay. */
static void renaming_links_of_one_inode_keeps_both(void **state)
{
	char a_name[256], b_name[256], a_text[300], decoded[256];
	struct format_name a, b;
	int fd;

	fill_name(a_name, 200);
	fill_name(b_name, 201);
	a = encode(a_name);
	b = encode(b_name);
	snprintf(a_text, sizeof(a_text), "%s.name", a.disk);
	format_file_free(create(a_name));
	fd = store_open(dir.fd, a.disk, O_PATH, 0);
	assert_int_equal(format_link(format, fd, &root, &b), 0);
	close(fd);
	assert_int_equal(format_rename(format, &root, &a, &root, &b, 0), 0);
	assert_true(exists(a.disk) && exists(a_text));
	assert_int_equal(format_name_decode(format, &root, a.disk, decoded), 0);
}

static void directories_replace_empty_ones_only(void **state)
{
	struct format_name a = encode("a"), b = encode("b"), inside;
	struct format_dir sub;
	uint8_t iv[16];

	assert_int_equal(format_mkdir(format, &root, &a, 0755), 0);
	assert_int_equal(format_mkdir(format, &root, &b, 0755), 0);
	sub = sub_dir(&b, iv);
	assert_int_equal(format_name_encode(format, &sub, "inside", &inside), 0);
	assert_int_equal(format_mkdir(format, &sub, &inside, 0755), 0);
	assert_int_equal(format_rename(format, &root, &a, &root, &b, 0), -ENOTEMPTY);
	assert_int_equal(format_rmdir(format, &root, &b), -ENOTEMPTY);
	close(sub.fd);
	sub = sub_dir(&b, iv); /* its IV is still there */
	assert_int_equal(format_rmdir(format, &sub, &inside), 0);
	close(sub.fd);
	assert_int_equal(format_rename(format, &root, &a, &root, &b, 0), 0);
	assert_false(exists(a.disk));
	sub = sub_dir(&b, iv);
	close(sub.fd);
	assert_int_equal(format_rmdir(format, &root, &b), 0);
	assert_int_equal(format_rmdir(format, &root, &b), -ENOENT);
}

static void modes_of_directories_are_kept(void **state)
{
	static const mode_t modes[] = {0755, 0700, 0500, 0000, 0077};
	struct format_name name = encode("d");

	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		struct stat st;

		umask(0);
		assert_int_equal(format_mkdir(format, &root, &name, modes[i]), 0);
		assert_int_equal(store_stat(dir.fd, name.disk, &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i]);
		assert_int_equal(format_mkdir(format, &root, &name, 0700), -EEXIST);
		assert_int_equal(format_rmdir(format, &root, &name), 0);
	}
}

static void damaged_directories_do_not_open(void **state)
{
	struct format_name name = encode("d");
	uint8_t iv[16];
	int fd;

	assert_int_equal(format_mkdir(format, &root, &name, 0700), 0);
	fd = store_open_dir(dir.fd, name.disk);
	assert_int_equal(store_unlink(fd, "gocryptfs.diriv"), 0);
	assert_int_equal(format_dir_iv(format, fd, iv), -EIO);
	assert_int_equal(store_write_file(fd, "gocryptfs.diriv", "short", 5, 0444, false), 0);
	assert_int_equal(format_dir_iv(format, fd, iv), -EIO);
	store_unlink(fd, "gocryptfs.diriv");
	assert_int_equal(
		store_write_file(fd, "gocryptfs.diriv", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, 0444, false),
		0);
	assert_int_equal(format_dir_iv(format, fd, iv), -EIO);
	assert_int_equal(damages, 3);
	close(fd);
}

/* Names and targets are on disk as they are given; the config is out of reach, and only in the root. */
static void plain_names_are_plain(void **state)
{
	static const char *const ordinary[] = {"gocryptfs.diriv", "gocryptfs.longname.x",
					       "gocryptfs.longname.x.name", "gocryptfs.diriv.rmdir.1"};
	struct format_name name = encode("sub");
	struct format_dir below = root;
	char target[4096], shown[256];
	int fd;

	assert_int_equal(format_name_encode(format, &root, "gocryptfs.conf", &name), -EPERM);
	assert_int_equal(format_name_decode(format, &root, "gocryptfs.conf", shown), -ENOENT);
	below.root = false;
	assert_int_equal(format_name_encode(format, &below, "gocryptfs.conf", &name), 0);
	for (size_t i = 0; i < sizeof(ordinary) / sizeof(*ordinary); i++) {
		format_file_free(create(ordinary[i]));
		assert_true(exists(ordinary[i]));
		assert_int_equal(format_name_decode(format, &root, ordinary[i], shown), 0);
		assert_string_equal(shown, ordinary[i]);
	}
	name = encode("link");
	assert_int_equal(format_symlink(format, "some/where", &root, &name), 0);
	fd = store_open(dir.fd, "link", O_PATH, 0);
	assert_int_equal(store_readlink(fd, target, sizeof(target)), strlen("some/where"));
	close(fd);
	assert_int_equal(damages, 0);
}

/* Directories hold nothing but what is put there, and a foreign file is never taken for an IV. */
static void directories_without_iv(void **state)
{
	struct format_name a = encode("a"), b = encode("b");
	int fd;

	assert_false(exists("gocryptfs.diriv"));
	assert_int_equal(format_mkdir(format, &root, &a, 0750), 0);
	assert_int_equal(format_mkdir(format, &root, &b, 0750), 0);
	fd = store_open_dir(dir.fd, b.disk);
	assert_int_equal(store_unlink(fd, "gocryptfs.diriv"), -ENOENT);
	assert_int_equal(store_write_file(fd, "gocryptfs.diriv", "user's own file.", 16, 0444, false), 0);
	assert_int_equal(format_rmdir(format, &root, &b), -ENOTEMPTY);
	assert_true(format_rename(format, &root, &a, &root, &b, 0) == -ENOTEMPTY);
	assert_int_equal(store_unlink(fd, "gocryptfs.diriv"), 0);
	close(fd);
	assert_int_equal(format_rename(format, &root, &a, &root, &b, 0), 0);
	assert_int_equal(format_rmdir(format, &root, &b), 0);
	assert_int_equal(format_rmdir(format, &root, &a), -ENOENT);
}

/* The same name has the same text everywhere; from 63 characters of text on it is stored by hash. */
static void deterministic_names(void **state)
{
	struct format_name name = encode("sub"), there;
	struct format_dir below = root;
	uint8_t iv[16];
	char shown[256];

	assert_int_equal(format_mkdir(format, &root, &name, 0700), 0);
	below.fd = store_open_dir(dir.fd, name.disk);
	below.root = false;
	assert_int_equal(format_dir_iv(format, below.fd, iv), 0);
	below.iv = iv;
	assert_int_equal(format_name_encode(format, &below, "sub", &there), 0);
	assert_string_equal(there.disk, name.disk);
	close(below.fd);
	name = encode("thirty-one bytes, a text of 43 ");
	assert_int_equal(name.text[0], '\0');
	name = encode("thirty-two bytes, a text of 64..");
	assert_int_equal(strlen(name.text), 64);
	format_file_free(create("thirty-two bytes, a text of 64.."));
	assert_int_equal(format_name_decode(format, &root, name.disk, shown), 0);
	assert_string_equal(shown, "thirty-two bytes, a text of 64..");
	assert_int_equal(damages, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(long_names_have_their_text_beside_them, setup, teardown),
		cmocka_unit_test_setup_teardown(a_leftover_name_file_is_used, setup, teardown),
		cmocka_unit_test_setup_teardown(renaming_moves_name_files, setup, teardown),
		cmocka_unit_test_setup_teardown(renaming_links_of_one_inode_keeps_both, setup, teardown),
		cmocka_unit_test_setup_teardown(directories_replace_empty_ones_only, setup, teardown),
		cmocka_unit_test_setup_teardown(modes_of_directories_are_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_directories_do_not_open, setup, teardown),
		cmocka_unit_test_setup_teardown(plain_names_are_plain, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(directories_without_iv, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(directories_without_iv, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(deterministic_names, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(modes_of_directories_are_kept, setup_deterministic, teardown),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("format_names", tests, NULL, NULL);
}
