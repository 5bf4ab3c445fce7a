/* SPDX-License-Identifier: MIT */
/* The format gocryptfs without FUSE: what crashes leave behind, and what the next mount makes of it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <unistd.h>

#include "format_fixture.h"

static void empty_directories_get_a_new_iv(void **state)
{
	static const char *const damaged[] = {NULL, "", "short", "longer than sixteen bytes"};
	struct format_name name = encode("d"), inside;
	struct format_dir sub;
	uint8_t iv[16], again[16];

	assert_int_equal(format_mkdir(format, &root, &name, 0700), 0);
	sub = sub_dir(&name, iv);
	for (size_t i = 0; i < ARRAY_SIZE(damaged); i++) {
		assert_int_equal(store_unlink(sub.fd, "gocryptfs.diriv"), 0);
		if (damaged[i])
			assert_int_equal(store_write_file(sub.fd, "gocryptfs.diriv", damaged[i],
							  strlen(damaged[i]), 0444, false),
					 0);
		assert_int_equal(format_dir_iv(format, sub.fd, iv), 0);
		assert_int_equal(format_dir_iv(format, sub.fd, again), 0);
		assert_memory_equal(iv, again, 16);
	}
	assert_int_equal(damages, 0);
	/* Not one that has names which depend on the old one. */
	assert_int_equal(format_name_encode(format, &sub, "f", &inside), 0);
	assert_int_equal(format_mknod(format, &sub, &inside, S_IFREG | 0600, 0), 0);
	assert_int_equal(store_unlink(sub.fd, "gocryptfs.diriv"), 0);
	assert_int_equal(format_dir_iv(format, sub.fd, iv), -EIO);
	close(sub.fd);
}

#define ORPHAN "gocryptfs.longname.MFIbCR7iZZ33kkNU_kMbIUfNKjNEfNeYJGVeRcTVEPg"

static void leftovers_do_not_keep_a_directory(void **state)
{
	static const char *const files[] = {"gocryptfs.diriv.rmdir.17", "gocryptfs.longname.diriv.17.name",
					    ORPHAN ".name"};
	static const char *const directories[] = {"gocryptfs.longname.mkdir.17.name",
						  "gocryptfs.longname.rmdir.18.name"};
	static const char *const foreign[] = {"foreign", ORPHAN, "gocryptfs.longname.mkdir.x.name",
					      "gocryptfs.diriv.rmdir.", "gocryptfs.diriv.rmdir.1x"};
	struct format_name name = encode("d");
	struct format_dir sub;
	uint8_t iv[16];
	int fd;

	assert_int_equal(format_mkdir(format, &root, &name, 0700), 0);
	sub = sub_dir(&name, iv);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		assert_int_equal(store_write_file(sub.fd, files[i], "x", 1, 0600, false), 0);
	for (size_t i = 0; i < ARRAY_SIZE(directories); i++)
		assert_int_equal(store_mkdir(sub.fd, directories[i], 0700), 0);
	fd = store_open_dir(sub.fd, directories[0]);
	assert_int_equal(store_write_file(fd, "gocryptfs.diriv", "0123456789abcdef", 16, 0444, false), 0);
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		assert_int_equal(store_mkdir(sub.fd, foreign[i], 0700), 0);
		assert_int_equal(format_rmdir(format, &root, &name), -ENOTEMPTY);
		assert_int_equal(format_dir_iv(format, sub.fd, iv), 0);
		assert_int_equal(store_rmdir(sub.fd, foreign[i]), 0);
	}
	/* Something in an unfinished directory is somebody's. */
	assert_int_equal(store_write_file(fd, "foreign", "x", 1, 0600, false), 0);
	assert_int_equal(format_rmdir(format, &root, &name), -ENOTEMPTY);
	assert_int_equal(store_unlink(fd, "foreign"), 0);
	assert_int_equal(format_rmdir(format, &root, &name), 0);
	assert_false(exists(name.disk));
	close(fd);
	close(sub.fd);
}

/* The linker puts this in the place of store_getdents() (meson.build). */
ssize_t __real_store_getdents(int fd, void *buf, size_t size);
ssize_t __wrap_store_getdents(int fd, void *buf, size_t size);
static unsigned directory_reads;

ssize_t __wrap_store_getdents(int fd, void *buf, size_t size)
{
	directory_reads++;
	return __real_store_getdents(fd, buf, size);
}

/* An empty directory is looked through once: its entries, and that there are no more. */
static void removing_looks_once(void **state)
{
	struct format_name name = encode("d");

	assert_int_equal(format_mkdir(format, &root, &name, 0700), 0);
	directory_reads = 0;
	assert_int_equal(format_rmdir(format, &root, &name), 0);
	assert_int_equal(directory_reads, 2);
	assert_false(exists(name.disk));
}

#define REDO_LOG "gocryptfs.longname.redo.1.name"
enum { LOG_ROOM = 1 << 20 };

/* Ends the mount as a crash does: the log stays. */
static void crash(struct format_file *file, uint8_t log[LOG_ROOM])
{
	ssize_t n = store_read_file(dir.fd, REDO_LOG, log, LOG_ROOM);

	assert_true(n > 0);
	format_file_free(file);
	format_free(format);
	assert_false(exists(REDO_LOG));
	assert_int_equal(store_write_file(dir.fd, REDO_LOG, log, (size_t)n, 0600, false), 0);
}

static struct format_file *reopen(const char *name)
{
	struct format_file *file;
	struct format_name disk = encode(name);
	int fd = store_open(dir.fd, disk.disk, O_RDWR, 0);

	assert_true(fd >= 0);
	assert_int_equal(format_file_new(format, fd, true, &file), 0);
	return file;
}

static void a_torn_block_comes_back(void **state)
{
	static uint8_t log[LOG_ROOM], want[10000];
	struct format_file *file = create("f");
	struct format_name name = encode("f");
	uint8_t old[4128], new[4128];
	int fd = store_open(dir.fd, name.disk, O_RDWR, 0);

	memset(want, 'a', sizeof(want));
	assert_int_equal(format_write(format, file, &io, want, sizeof(want), 0), sizeof(want));
	assert_int_equal(store_pread(fd, old, sizeof(old), 18 + 4128), sizeof(old));
	memset(want + 5000, 'b', 100);
	assert_int_equal(format_write(format, file, &io, want + 5000, 100, 5000), 100);
	assert_int_equal(store_pread(fd, new, sizeof(new), 18 + 4128), sizeof(new));
	/* Half of the new block, the rest is the old one. */
	assert_int_equal(store_pwrite(fd, old + 2000, 2128, 18 + 4128 + 2000), 2128);
	crash(file, log);
	assert_int_equal(open_format(CONFIG_FORMAT_GOCRYPTFS), 0);
	assert_false(exists(REDO_LOG));
	file = reopen("f");
	assert_contents(file, want, sizeof(want));
	/* A block that is good is left alone, whatever a log says. */
	assert_int_equal(store_pwrite(fd, old, sizeof(old), 18 + 4128), sizeof(old));
	memset(want, 'a', sizeof(want));
	assert_int_equal(store_write_file(dir.fd, REDO_LOG, log, sizeof(log), 0600, false), 0);
	format_file_free(file);
	format_free(format);
	assert_int_equal(open_format(CONFIG_FORMAT_GOCRYPTFS), 0);
	file = reopen("f");
	assert_contents(file, want, sizeof(want));
	format_file_free(file);
	close(fd);
}

/* A file whose second block is torn, and the log of it; want is what it is to hold again. */
static struct format_name torn_name;

static void tear(uint8_t want[10000])
{
	static uint8_t log[LOG_ROOM];
	struct format_file *file = create("f");
	struct format_name name = encode("f");
	uint8_t old[4128];
	int fd = store_open(dir.fd, name.disk, O_RDWR, 0);

	memset(want, 'a', 10000);
	assert_int_equal(format_write(format, file, &io, want, 10000, 0), 10000);
	assert_int_equal(store_pread(fd, old, sizeof(old), 18 + 4128), sizeof(old));
	memset(want + 5000, 'b', 100);
	assert_int_equal(format_write(format, file, &io, want + 5000, 100, 5000), 100);
	assert_int_equal(store_pwrite(fd, old + 2000, 2128, 18 + 4128 + 2000), 2128);
	torn_name = name;
	crash(file, log);
	close(fd);
}

static void the_log_stays_until_it_was_played_back(void **state)
{
	struct rlimit none = {0, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
	static uint8_t want[10000];
	struct format_file *file;

	tear(want);
	/* Nothing can be written. */
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(open_format(CONFIG_FORMAT_GOCRYPTFS), -1);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
	format_free(format);
	assert_true(exists(REDO_LOG));
	assert_int_equal(open_format(CONFIG_FORMAT_GOCRYPTFS), 0);
	assert_false(exists(REDO_LOG));
	file = reopen("f");
	assert_contents(file, want, sizeof(want));
	format_file_free(file);
}

/* Who mounts an own volume without privilege, and made a file that nobody may write after writing it. */
static void modes_do_not_stop_the_log(void **state)
{
	static uint8_t want[10000];
	struct format_file *file;
	struct format_name name;
	struct stat st;
	int opened;

	if (geteuid() != 0)
		skip();
	tear(want);
	name = torn_name;
	assert_int_equal(fchownat(dir.fd, name.disk, 1000, 1000, 0), 0);
	assert_int_equal(fchmodat(dir.fd, name.disk, 0400, 0), 0);
	assert_int_equal(fchownat(dir.fd, REDO_LOG, 1000, 1000, 0), 0);
	assert_int_equal(fchownat(dir.fd, "gocryptfs.conf", 1000, 1000, 0), 0);
	assert_int_equal(fchownat(dir.fd, "gocryptfs.diriv", 1000, 1000, 0), 0);
	assert_int_equal(fchown(dir.fd, 1000, 1000), 0);
	setfsuid(1000); /* and the privileges over files go */
	opened = open_format(CONFIG_FORMAT_GOCRYPTFS);
	setfsuid(0);
	assert_int_equal(opened, 0);
	format_free(format);
	assert_int_equal(store_stat(dir.fd, name.disk, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0400);
	assert_int_equal(open_format(CONFIG_FORMAT_GOCRYPTFS), 0);
	file = reopen("f");
	assert_contents(file, want, sizeof(want));
	format_file_free(file);
}

static void what_was_cut_off_does_not_come_back(void **state)
{
	static uint8_t log[LOG_ROOM], want[20000];
	struct format_file *file = create("f");
	struct format_name name = encode("f");
	struct stat st;

	memset(want, 'a', sizeof(want));
	assert_int_equal(format_write(format, file, &io, want, sizeof(want), 0), sizeof(want));
	assert_int_equal(format_write(format, file, &io, want, 100, 17000), 100);
	assert_int_equal(format_truncate(format, file, &io, 8192), 0);
	crash(file, log);
	assert_int_equal(open_format(CONFIG_FORMAT_GOCRYPTFS), 0);
	assert_int_equal(store_stat(dir.fd, name.disk, &st), 0);
	assert_int_equal(st.st_size, 18 + 2 * 4128);
}

static off_t size_of(const char *disk)
{
	struct stat st;

	assert_int_equal(store_stat(dir.fd, disk, &st), 0);
	return st.st_size;
}

/* What is appended to whole blocks, or cut off at a block's end, can lose nothing: it needs a note, and no
 * room for blocks. */
static void room_for_blocks_is_made_for_the_first_rewrite(void **state)
{
	static uint8_t content[3 * 4096];
	struct format_file *file = create("f"), *other = create("g");

	assert_false(exists(REDO_LOG));
	for (int i = 0; i < 3; i++)
		assert_int_equal(format_write(format, file, &io, content, sizeof(content),
					      (uint64_t)i * sizeof(content)),
				 sizeof(content));
	assert_int_equal(format_truncate(format, file, &io, 8 * 4096), 0);
	assert_int_equal(format_truncate(format, file, &io, 8 * 4096 + 10), 0);
	assert_int_equal(format_write(format, other, &io, content, 100, 0), 100);
	assert_in_range(size_of(REDO_LOG), 1, 10000);
	assert_int_equal(format_write(format, other, &io, content, 100, 100), 100);
	assert_in_range(size_of(REDO_LOG), 8 << 20, 10 << 20);
	format_file_free(file);
	format_file_free(other);
}

/* The server was killed while it appended, and nothing had been rewritten: the note cuts off what came in
 * part. */
static void a_torn_end_is_cut_off_by_a_note(void **state)
{
	static uint8_t log[LOG_ROOM], want[3 * 4096];
	struct format_file *file = create("f");
	struct format_name name = encode("f");
	int fd = store_open(dir.fd, name.disk, O_RDWR, 0);

	assert_int_equal(format_write(format, file, &io, want, 4096, 0), 4096);
	assert_int_equal(format_write(format, file, &io, want, 2 * 4096, 4096), 2 * 4096);
	assert_in_range(size_of(REDO_LOG), 1, 10000);
	assert_int_equal(store_truncate(fd, 18 + 2 * 4128 + 1000), 0);
	crash(file, log);
	assert_int_equal(open_format(CONFIG_FORMAT_GOCRYPTFS), 0);
	assert_false(exists(REDO_LOG));
	file = reopen("f");
	assert_contents(file, want, 2 * 4096);
	assert_int_equal(damages, 0);
	format_file_free(file);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(empty_directories_get_a_new_iv, setup_repairing, teardown),
		cmocka_unit_test_setup_teardown(leftovers_do_not_keep_a_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(removing_looks_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_torn_block_comes_back, setup_repairing, teardown),
		cmocka_unit_test_setup_teardown(the_log_stays_until_it_was_played_back, setup_repairing,
						teardown),
		cmocka_unit_test_setup_teardown(modes_do_not_stop_the_log, setup_repairing, teardown),
		cmocka_unit_test_setup_teardown(what_was_cut_off_does_not_come_back, setup_repairing,
						teardown),
		cmocka_unit_test_setup_teardown(room_for_blocks_is_made_for_the_first_rewrite,
						setup_repairing, teardown),
		cmocka_unit_test_setup_teardown(a_torn_end_is_cut_off_by_a_note, setup_repairing, teardown),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("format_crash", tests, NULL, NULL);
}
