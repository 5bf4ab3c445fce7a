/* SPDX-License-Identifier: MIT */
/* Formats without FUSE: what the data path does to a lower directory. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>

#include "config.h"
#include "crypto.h"
#include "format.h"
#include "scratch_dir.h"
#include "store.h"
#include "unit.h"
#include "util.h"

enum { MODEL_SIZE = 300000 };

static struct scratch dir;
static struct format *format;
static struct format_dir root;
static uint8_t root_iv[16];
static uint8_t plain_room[FORMAT_IO_ROOM], disk_room[FORMAT_IO_ROOM];
static struct format_io io = {plain_room, disk_room};
static struct format_init_params kind_of_volume; /* that init_format() makes */
static unsigned damages;
static char last_damage[256];
static bool may_repair;

static void count_damage(void *ctx, const char *what, const char *where)
{
	damages++;
	snprintf(last_damage, sizeof(last_damage), "%s: %s", where, what);
}

static struct key raw_key(int seed)
{
	struct key key = {0};

	assert_int_equal(secret_new(32, &key.bytes), 0);
	memset(secret_data(key.bytes), seed, 32);
	return key;
}

static int open_format(int kind)
{
	struct format_params params = {
		.kind = kind,
		.root_fd = dir.fd,
		.scrypt_memory = 1 << 28,
		.may_repair = may_repair,
	};
	struct error err = ERROR_NONE;
	struct key key = raw_key(7);

	if (format_open(&params, &format, &err) < 0)
		return -1;
	if (format_needs_key(format) && format_unlock(format, &key, &err) < 0)
		return -1;
	secret_free(key.bytes);
	if (format_start(format, count_damage, NULL, &err) < 0)
		return -1;
	root = (struct format_dir){.fd = dir.fd, .iv = root_iv, .root = true};
	return format_dir_iv(format, dir.fd, root_iv);
}

static int init_format(const struct key *key, struct error *err)
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

static int setup(void **state)
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
static int setup_plain_names(void **state)
{
	kind_of_volume =
		(struct format_init_params){.cipher = FORMAT_CIPHER_AES_SIV, .names = FORMAT_NAMES_PLAINTEXT};
	return setup(state);
}

/* XChaCha, and names encrypted without an IV, by hash from 62 on. */
static int setup_deterministic(void **state)
{
	kind_of_volume = (struct format_init_params){
		.cipher = FORMAT_CIPHER_XCHACHA, .names = FORMAT_NAMES_DETERMINISTIC, .long_name_max = 62};
	return setup(state);
}

static int setup_plain(void **state)
{
	return scratch_make(&dir) < 0 || store_init_proc() < 0 ? -1 : open_format(CONFIG_FORMAT_PLAIN);
}

static int setup_repairing(void **state)
{
	may_repair = true;
	return setup(state);
}

static int teardown(void **state)
{
	may_repair = false;
	format_free(format);
	format = NULL;
	kind_of_volume = (struct format_init_params){.kind = 0};
	scratch_remove(&dir);
	return 0;
}

static struct format_name encode(const char *name)
{
	struct format_name disk;

	assert_int_equal(format_name_encode(format, &root, name, &disk), 0);
	return disk;
}

static struct format_file *create(const char *name)
{
	struct format_name disk = encode(name);
	struct format_file *file;
	int fd = format_create(format, &root, &disk, O_RDWR | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(format_file_new(format, fd, true, &file), 0);
	return file;
}

static bool exists(const char *disk)
{
	struct stat st;

	return store_stat(dir.fd, disk, &st) == 0;
}

static void assert_contents(struct format_file *file, const uint8_t *want, size_t size)
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

static struct format_dir sub_dir(const struct format_name *name, uint8_t iv[16])
{
	int fd = store_open_dir(dir.fd, name->disk);

	assert_true(fd >= 0);
	assert_int_equal(format_dir_iv(format, fd, iv), 0);
	return (struct format_dir){.fd = fd, .iv = iv};
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

static void init_refuses_what_is_not_empty(void **state)
{
	struct error err = ERROR_NONE;
	struct key key = raw_key(7);

	assert_int_equal(init_format(&key, &err), -ENOTEMPTY);
	secret_free(key.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup, teardown),
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup_plain, teardown),
		cmocka_unit_test_setup_teardown(same_size_is_no_change, setup, teardown),
		cmocka_unit_test_setup_teardown(holes_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_block_is_one_block, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_header_is_the_whole_file, setup, teardown),
		cmocka_unit_test_setup_teardown(long_names_have_their_text_beside_them, setup, teardown),
		cmocka_unit_test_setup_teardown(a_leftover_name_file_is_used, setup, teardown),
		cmocka_unit_test_setup_teardown(renaming_moves_name_files, setup, teardown),
		cmocka_unit_test_setup_teardown(renaming_links_of_one_inode_keeps_both, setup, teardown),
		cmocka_unit_test_setup_teardown(directories_replace_empty_ones_only, setup, teardown),
		cmocka_unit_test_setup_teardown(modes_of_directories_are_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_directories_do_not_open, setup, teardown),
		cmocka_unit_test_setup_teardown(empty_directories_get_a_new_iv, setup_repairing, teardown),
		cmocka_unit_test_setup_teardown(leftovers_do_not_keep_a_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(a_torn_block_comes_back, setup_repairing, teardown),
		cmocka_unit_test_setup_teardown(what_was_cut_off_does_not_come_back, setup_repairing,
						teardown),
		cmocka_unit_test_setup_teardown(links_and_xattrs_go_around, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_master_key_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(locked_and_started_again, setup, teardown),
		cmocka_unit_test_setup_teardown(plain_is_locked_without_a_key, setup_plain, teardown),
		cmocka_unit_test_setup_teardown(init_refuses_what_is_not_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(links_and_xattrs_go_around, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(master_key_is_proved_without_names, setup_plain_names,
						teardown),
		cmocka_unit_test_setup_teardown(plain_names_are_plain, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(directories_without_iv, setup_plain_names, teardown),
		cmocka_unit_test_setup_teardown(directories_without_iv, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(file_is_what_was_written, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(links_and_xattrs_go_around, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(deterministic_names, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(modes_of_directories_are_kept, setup_deterministic, teardown),
		cmocka_unit_test_setup_teardown(wrong_master_key_is_refused, setup_deterministic, teardown),
	};

	if (crypto_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
