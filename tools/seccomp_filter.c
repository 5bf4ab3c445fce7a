/* SPDX-License-Identifier: MIT */
/*
 * Run at build time: writes the seccomp(2) filters (src/sandbox_seccomp.c) as C. Making them anew at each
 * mount took a fifth of the time that a mount takes.
 *
 * The server's lists the system calls that serving files takes. All others fail with ENOSYS, as on a kernel
 * without them: a newer C library that tries new ones falls back. What is not here: programs (execve),
 * processes (fork, ptrace, process_vm_*), sockets, keyrings, mounts, namespaces, modules, BPF.
 *
 * The keeper runs key sources, programs that can be anything; they are bound by its filter, so that one lists
 * what is forbidden (EPERM): what neither mounts volumes nor gets keys.
 *
 * The front's is for the process of the volume plugin that engines talk to (src/sandbox_front.c): sockets
 * that are open, memory, time.
 *
 * usage: seccomp_filter OUTPUT
 */
#include <errno.h>
#include <linux/filter.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A name that this architecture or libseccomp does not know is left out. */
static const char *const allowed[] = {
	/* the FUSE device, the channel to the keeper, the log */
	"read",
	"write",
	"readv",
	"writev",
	"poll",
	"ppoll",
	"sendto",
	"sendmsg",
	"recvfrom",
	"recvmsg",
	"close",
	"close_range",
	"shutdown",
	"pipe2",
	"fcntl",
	"fcntl64",
	"dup",
	"dup2",
	"dup3",
	/* contents */
	"pread64",
	"pwrite64",
	"preadv",
	"pwritev",
	"preadv2",
	"pwritev2",
	"lseek",
	"_llseek",
	"ftruncate",
	"ftruncate64",
	"fallocate",
	"fsync",
	"fdatasync",
	"syncfs",
	"sync_file_range",
	"copy_file_range",
	"sendfile",
	"sendfile64",
	"splice",
	"flock",
	"fadvise64",
	"readahead",
	/* names and attributes */
	"openat",
	"openat2",
	"open_by_handle_at",
	"name_to_handle_at",
	"fstat",
	"fstat64",
	"newfstatat",
	"fstatat64",
	"statx",
	"fstatfs",
	"fstatfs64",
	"getdents64",
	"mkdirat",
	"mknodat",
	"symlinkat",
	"linkat",
	"unlinkat",
	"renameat",
	"renameat2",
	"readlink",
	"readlinkat",
	"fchmod",
	"fchmodat",
	"fchmodat2",
	"fchown",
	"fchownat",
	"utimensat",
	"utimensat_time64",
	"faccessat",
	"faccessat2",
	"getxattr",
	"lgetxattr",
	"fgetxattr",
	"setxattr",
	"lsetxattr",
	"fsetxattr",
	"listxattr",
	"llistxattr",
	"flistxattr",
	"removexattr",
	"lremovexattr",
	"fremovexattr",
	"getxattrat",
	"setxattrat",
	"listxattrat",
	"removexattrat",
	"umask",
	"fchdir",
	/* acting for a caller */
	"setfsuid",
	"setfsuid32",
	"setfsgid",
	"setfsgid32",
	"setgroups",
	"setgroups32",
	"capget",
	"capset",
	"getuid",
	"getuid32",
	"geteuid",
	"geteuid32",
	"getgid",
	"getgid32",
	"getegid",
	"getegid32",
	/* memory */
	"mmap",
	"mmap2",
	"munmap",
	"mremap",
	"mprotect",
	"madvise",
	"brk",
	"mlock",
	"mlock2",
	"munlock",
	"memfd_secret",
	"getrandom",
	/* threads, signals, time */
	"futex",
	"futex_time64",
	"futex_waitv",
	"set_robust_list",
	"rseq",
	"sched_yield",
	"sched_getaffinity",
	"sched_setaffinity",
	"sched_setscheduler",
	"setpriority",
	"getpriority",
	"ioprio_set",
	"membarrier",
	"exit",
	"exit_group",
	"gettid",
	"getpid",
	"getppid",
	"tgkill",
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"sigreturn",
	"sigaltstack",
	"restart_syscall",
	"clock_gettime",
	"clock_gettime64",
	"clock_getres",
	"clock_nanosleep",
	"clock_nanosleep_time64",
	"nanosleep",
	"gettimeofday",
	"getrlimit",
	"ugetrlimit",
	"prlimit64",
	"getrusage",
	"sysinfo",
	"uname",
	"getcpu",
	"arch_prctl",
	"set_thread_area",
	"set_tid_address",
};

/* Allowed with this argument only. mask 0: the whole argument. */
static const struct {
	const char *name;
	unsigned argument;
	uint64_t mask, value;
} allowed_with[] = {
	/* threads, but no processes; clone3(2) hides its flags in memory, and the C library does without */
	{"clone", 0, CLONE_THREAD | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET, CLONE_THREAD},
	{"unshare", 0, 0, CLONE_FS}, /* a thread's own umask */
	{"prctl", 0, 0, 15 /* PR_SET_NAME */},
	{"ioctl", 1, 0, 0x4010e501}, /* FUSE_DEV_IOC_BACKING_OPEN, fs_passthrough.c */
	{"ioctl", 1, 0, 0x4004e502}, /* FUSE_DEV_IOC_BACKING_CLOSE */
};

/* A keeper's. */
static const char *const forbidden[] = {
	/* looking into other processes */
	"ptrace",
	"process_vm_readv",
	"process_vm_writev",
	"process_madvise",
	"pidfd_getfd",
	"kcmp",
	"perf_event_open",
	"userfaultfd",
	/* changing the kernel */
	"bpf",
	"init_module",
	"finit_module",
	"delete_module",
	"kexec_load",
	"kexec_file_load",
	"iopl",
	"ioperm",
	"syslog",
	/* rings, whose requests no filter sees */
	"io_uring_setup",
	"io_uring_enter",
	"io_uring_register",
	/* changing the machine */
	"reboot",
	"swapon",
	"swapoff",
	"acct",
	"quotactl",
	"quotactl_fd",
	"settimeofday",
	"stime",
	"clock_settime",
	"clock_settime64",
	"clock_adjtime",
	"clock_adjtime64",
	"adjtimex",
	"sethostname",
	"setdomainname",
	"vhangup",
};

static const char *const front_allowed[] = {
	/* clients, the plugin, the log */
	"accept",
	"accept4",
	"epoll_wait",
	"epoll_pwait",
	"epoll_pwait2",
	"epoll_ctl",
	"poll",
	"ppoll",
	"read",
	"write",
	"readv",
	"writev",
	"sendto",
	"sendmsg",
	"recvfrom",
	"recvmsg",
	"shutdown",
	"close",
	"getsockopt",
	"setsockopt",
	"getsockname",
	"fcntl",
	"fcntl64",
	"fstat",
	"newfstatat",
	/* memory */
	"mmap",
	"mmap2",
	"munmap",
	"mremap",
	"madvise",
	"brk",
	"getrandom",
	/* threads, signals, time */
	"futex",
	"futex_time64",
	"sched_yield",
	"exit",
	"exit_group",
	"gettid",
	"getpid",
	"tgkill",
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"sigreturn",
	"sigaltstack",
	"restart_syscall",
	"clock_gettime",
	"clock_gettime64",
	"clock_nanosleep",
	"clock_nanosleep_time64",
	"nanosleep",
	"gettimeofday",
	"time",
	"getrusage",
	"getcpu",
};

static int add_plain(scmp_filter_ctx ctx, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int nr = seccomp_syscall_resolve_name(names[i]), r;

		if (nr == __NR_SCMP_ERROR)
			continue;
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_with_arguments(scmp_filter_ctx ctx)
{
	for (size_t i = 0; i < ARRAY_SIZE(allowed_with); i++) {
		int nr = seccomp_syscall_resolve_name(allowed_with[i].name), r;
		uint64_t mask = allowed_with[i].mask ? allowed_with[i].mask : UINT32_MAX;

		if (nr == __NR_SCMP_ERROR)
			continue;
		r = seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, nr, 1,
			SCMP_CMP(allowed_with[i].argument, SCMP_CMP_MASKED_EQ, mask, allowed_with[i].value));
		if (r < 0)
			return r;
	}
	return 0;
}

/* memfd_secret(2) has a number of its own that libseccomp 2.5 does not know the name of. */
static int add_numbers(scmp_filter_ctx ctx)
{
#if defined(__x86_64__) || defined(__aarch64__) || defined(__riscv)
	static const int numbers[] = {
		447 /* memfd_secret */, 452 /* fchmodat2 */, 463, 464, 465, 466 /* *xattrat */};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, numbers[i], 0);

		if (r < 0 && r != -EEXIST)
			return r;
	}
#endif
	return 0;
}

static int fill_server(scmp_filter_ctx ctx)
{
	int r = add_plain(ctx, allowed, ARRAY_SIZE(allowed));

	if (r == 0)
		r = add_with_arguments(ctx);
	return r == 0 ? add_numbers(ctx) : r;
}

static int fill_front(scmp_filter_ctx ctx)
{
	return add_plain(ctx, front_allowed, ARRAY_SIZE(front_allowed));
}

/* Programs may be of the older kind too that the processor knows. */
static int add_second_architecture(scmp_filter_ctx ctx)
{
#if defined(__x86_64__)
	int r = seccomp_arch_add(ctx, SCMP_ARCH_X86);

	return r < 0 ? r : seccomp_arch_add(ctx, SCMP_ARCH_X32);
#elif defined(__aarch64__)
	return seccomp_arch_add(ctx, SCMP_ARCH_ARM);
#else
	return 0;
#endif
}

static int fill_keeper(scmp_filter_ctx ctx)
{
	int r = add_second_architecture(ctx);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(forbidden); i++) {
		int nr = seccomp_syscall_resolve_name(forbidden[i]);

		if (nr != __NR_SCMP_ERROR)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), nr, 0);
		/* Not on one of the architectures. */
		if (r == -EDOM)
			r = 0;
	}
	return r;
}

/* The filter goes through a file: libseccomp 2.5 exports to nothing else. */
static int write_c(FILE *bpf, const char *name, FILE *out)
{
	struct sock_filter op;

	rewind(bpf);
	fprintf(out, "static struct sock_filter %s[] = {\n", name);
	while (fread(&op, sizeof(op), 1, bpf) == 1)
		fprintf(out, "\t{0x%04x, %u, %u, 0x%08x},\n", op.code, op.jt, op.jf, op.k);
	fprintf(out, "};\n");
	return ferror(bpf) || ferror(out) ? -EIO : 0;
}

static int make(const char *name, uint32_t otherwise, int (*fill)(scmp_filter_ctx), FILE *out)
{
	scmp_filter_ctx ctx = seccomp_init(otherwise);
	FILE *bpf = tmpfile();
	int r = ctx && bpf ? 0 : -ENOMEM;

	/* A binary tree instead of a list of comparisons. Filters of older libraries are right too, if
	 * slower. */
	if (r == 0)
		seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r == 0)
		r = fill(ctx);
	if (r == 0)
		r = seccomp_export_bpf(ctx, fileno(bpf));
	if (r == 0)
		r = write_c(bpf, name, out);
	if (ctx)
		seccomp_release(ctx);
	if (bpf)
		fclose(bpf);
	return r;
}

int main(int argc, char **argv)
{
	FILE *out = argc == 2 ? fopen(argv[1], "w") : NULL;
	int r = out ? 0 : -EINVAL;

	if (r == 0) {
		fprintf(out, "/* Made by tools/seccomp_filter.c. */\n");
		r = make("filter_server", SCMP_ACT_ERRNO(ENOSYS), fill_server, out);
	}
	if (r == 0)
		r = make("filter_keeper", SCMP_ACT_ALLOW, fill_keeper, out);
	if (r == 0)
		r = make("filter_front", SCMP_ACT_ERRNO(ENOSYS), fill_front, out);
	if (out && fclose(out) != 0 && r == 0)
		r = -errno;
	if (r < 0)
		fprintf(stderr, "seccomp_filter: %s\n", strerror(-r));
	return r < 0;
}
