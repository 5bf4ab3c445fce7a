#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs pytest in a virtual machine with Debian's own kernel: for what this machine's kernel has not (kAFS, older versions).

The kernel's package is fetched and unpacked below the build directory, never installed. QEMU emulates the processor, so no KVM is
needed. The guest's root directory is this machine's, read-only below an overlay in memory; what the guest writes is gone with it.
Its exit status is pytest's; 124 when the time is over, 125 when the guest died: then the console's end is shown.
"""
import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("CKRFS_BUILD_DIR", REPO / "build")).resolve()
# What the guest needs to reach its root directory.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
SHARE = "trans=virtio,version=9p2000.L,msize=512000"
TIMEOUT, DIED = 124, 125

# In the initial file system; @MODULES@ in the order in which they depend on each other.
INIT = r"""#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /lower /up /root
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for m in @MODULES@; do $b insmod /modules/$m || echo "vm: no module $m"; done
$b mount -t 9p -o @SHARE@,ro,cache=loose host /lower || $b poweroff -f
$b mount -t tmpfs -o size=80% up /up
$b mkdir /up/upper /up/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/up/upper,workdir=/up/work overlay /root || $b poweroff -f
cd /root
$b mount -t tmpfs run run
$b mount -t tmpfs -o mode=1777 tmp tmp
$b mkdir -p run/out run/lock
$b mount -t 9p -o @SHARE@,rw,cache=none out run/out
# What lies below /tmp here is not hidden there.
for d in @SHOWN@; do $b mkdir -p .$d; $b mount --bind /lower$d .$d; done
$b mkdir -p lib/modules/@RELEASE@ 2>/dev/null
$b mount -t tmpfs modules lib/modules
$b mkdir lib/modules/@RELEASE@
$b mount --bind /lower@KERNEL@/lib/modules/@RELEASE@ lib/modules/@RELEASE@
for d in proc sys dev; do $b mount --move /$d $d; done
$b mkdir -p dev/pts dev/shm
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
$b mount -t tmpfs -o mode=1777 shm dev/shm
# Moved, not just entered: user namespaces are refused in a chroot.
$b mount --move . /
[ -f run/out/unit ] || exec $b chroot . /bin/sh /run/out/start
# Of this machine: systemd is to see a machine of its own, not a container.
$b rm -f .dockerenv
: >etc/fstab
$b mkdir -p etc/tmpfiles.d
: >etc/tmpfiles.d/tmp.conf
$b cp run/out/unit etc/systemd/system/ckrfs-vm.service
exec $b chroot . /lib/systemd/systemd --unit=ckrfs-vm.service
"""

# With --systemd that is what runs it all.
UNIT = """[Unit]
After=basic.target

[Service]
Type=oneshot
ExecStart=/bin/sh /run/out/start
TimeoutStartSec=infinity
"""

START = r"""export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8
mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null
mount -t securityfs none /sys/kernel/security 2>/dev/null
ip link set lo up
hostname ckrfs-vm
for m in fuse loop; do modprobe $m 2>/dev/null; done
# A file system on a disk, in memory: tmpfs lacks some of what tests use (attributes of users, before Linux 6.6).
mkdir -p /run/disk
truncate -s 3G /run/disk.img && mkfs.ext4 -q -F -O encrypt /run/disk.img && mount -o loop /run/disk.img /run/disk
chmod 1777 /run/disk
cd @REPO@
{ TMPDIR=/run/disk @ENVIRONMENT@ setsid timeout @SECONDS@ @COMMAND@; echo $? >/run/out/status; } </dev/null >/run/out/output 2>&1
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


def run(*argv, **kw):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, **kw)
    if done.returncode:
        raise SystemExit(f"vm: {shlex.join(map(str, argv))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


# ---- the kernel

def apt_options(suite, base):
    """What makes apt use suite: nothing where the machine's package sources have it; else lists of its own, from the same archive."""
    if not suite or f"n={suite}," in run("apt-cache", "policy") or f"a={suite}," in run("apt-cache", "policy"):
        return []
    sites = run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages").splitlines()
    site = next((line.split()[0] for line in sites if suite.startswith(line.split()[1])), None)
    if not site:
        raise SystemExit(f"vm: no archive is known that could have {suite}")
    lists, sources = base / "lists", base / "sources.list"
    (lists / "partial").mkdir(parents=True)
    sources.write_text(f"deb {site} {suite} main\n")
    options = ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=-", "-o", f"Dir::State::Lists={lists}"]
    run("apt-get", *options, "-qq", "update")
    return options


def package_of(options):
    """The package that linux-image-amd64 (or the like) stands for, whether it is installed or not"""
    arch = run("dpkg", "--print-architecture").strip()
    names = re.findall(r"Depends: (linux-image-\S+)", run("apt-cache", *options, "show", "--no-all-versions", f"linux-image-{arch}"))
    if not names:
        raise SystemExit(f"vm: the package sources have no linux-image-{arch}")
    return names[0]


def kernel(suite):
    """The directory where it was unpacked. One that is there is taken: no network is needed then."""
    base = BUILD / "vm" / (suite or "stable")
    if not (base / "complete").exists():
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        options = apt_options(suite, base)
        name = package_of(options)
        print(f"vm: fetching {name}", flush=True)
        run("apt-get", *options, "-qq", "download", name, cwd=base)
        run("dpkg-deb", "-x", next(base.glob("*.deb")), base / "root")
        run("depmod", "-b", base / "root", release_of(base / "root"))
        next(base.glob("*.deb")).unlink()
        (base / "complete").touch()
    return base / "root"


def release_of(root):
    return next((root / "lib" / "modules").iterdir()).name


# ---- the initial file system

def module_files(root):
    """In the order in which they are to be loaded"""
    found = []
    for name in MODULES:
        out = run("modprobe", "-d", root, "-S", release_of(root), "--show-depends", name)
        found += [Path(line.split()[1]) for line in out.splitlines() if line.startswith("insmod ")]
    return list(dict.fromkeys(found))


def shown():
    """Directories below /tmp that the guest has to see: what is built and tested there"""
    return sorted({str(p) for p in (REPO, BUILD) if str(p).startswith("/tmp/")})


def make_initrd(root, at):
    tree = at / "initrd"
    for name in ("bin", "modules", "proc", "sys", "dev"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin" / "busybox")
    names = []
    for path in module_files(root):
        name = path.name.removesuffix(".xz")
        data = path.read_bytes() if path.suffix == ".ko" else subprocess.run(["xz", "-dc", path], stdout=subprocess.PIPE, check=True).stdout
        (tree / "modules" / name).write_bytes(data)
        names.append(name)
    init = INIT
    for word, value in {"MODULES": " ".join(names), "SHARE": SHARE, "SHOWN": " ".join(shown()), "RELEASE": release_of(root),
                        "KERNEL": str(root)}.items():
        init = init.replace(f"@{word}@", value)
    (tree / "init").write_text(init)
    (tree / "init").chmod(0o755)
    files = "\n".join(str(p.relative_to(tree)) for p in [tree, *sorted(tree.rglob("*"))])
    with open(at / "initrd.img", "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=files.encode(), stdout=out, cwd=tree, check=True)
    return at / "initrd.img"


def write_start(at, command, seconds, systemd):
    if systemd:
        (at / "unit").write_text(UNIT)
    environment = {k: v for k, v in os.environ.items() if k.startswith(("CKRFS_", "AFS_"))}
    environment |= {"CKRFS_BUILD_DIR": str(BUILD), "PYTHONDONTWRITEBYTECODE": "1"}
    text = START
    for word, value in {"REPO": str(REPO), "SECONDS": str(seconds), "COMMAND": shlex.join(command),
                        "ENVIRONMENT": " ".join(f"{k}={shlex.quote(v)}" for k, v in environment.items())}.items():
        text = text.replace(f"@{word}@", value)
    (at / "start").write_text(text)


# ---- the machine

def boot(root, initrd, out, args):
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", str(args.memory), "-smp", "2",
            "-nographic", "-no-reboot", "-net", "none", "-kernel", next((root / "boot").glob("vmlinuz-*")), "-initrd", initrd,
            "-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off random.trust_cpu=on",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            "-virtfs", f"local,path={out},mount_tag=out,security_model=none,multidevs=remap"]
    with open(out / "console", "wb") as console:
        process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
        try:
            process.wait(args.time + 60)
        except subprocess.TimeoutExpired:
            return TIMEOUT
        finally:
            process.kill()
            process.wait()
    return None


def show_console(out):
    lines = (out / "console").read_text(errors="replace").splitlines()
    print("vm: the end of the console:", *(f"  {line}" for line in lines[-20:]), sep="\n", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--time", type=int, default=600, help="seconds that the tests may take (default %(default)s)")
    parser.add_argument("--memory", type=int, default=4096, help="MiB (default %(default)s)")
    parser.add_argument("--suite", default="", help="of the package sources, for another kernel: bookworm-backports")
    parser.add_argument("--systemd", action="store_true", help="systemd is the guest's first process")
    parser.add_argument("--command", action="store_true", help="the arguments are a command, not pytest's")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the guest ends with it
    parser.add_argument("arguments", nargs="+", help="of pytest: files, -k ...; behind -- if they begin with a dash")
    args = parser.parse_args()
    command = args.arguments if args.command else ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *args.arguments]
    root = kernel(args.suite)
    with tempfile.TemporaryDirectory(prefix="vm-", dir=BUILD) as directory:
        out = Path(directory) / "out"
        out.mkdir()
        write_start(out, command, args.time, args.systemd)
        status = boot(root, make_initrd(root, Path(directory)), out, args)
        output = out / "output"
        sys.stdout.write(output.read_text(errors="replace") if output.exists() else "")
        sys.stdout.flush()
        if status is None and (out / "status").exists():
            return int((out / "status").read_text())
        show_console(out)
        return status or DIED


if __name__ == "__main__":
    sys.exit(main())
