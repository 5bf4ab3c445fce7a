# SPDX-License-Identifier: MIT
"""Containers without images or a daemon: a busybox root file system, run by crun, runc, bubblewrap or podman."""
import json
import os
import subprocess
from pathlib import Path

from support import run

BUSYBOX = Path("/bin/busybox")
BASE_ID = 100000  # who is root in a user namespace, outside
IDS = 65536
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD"]

# crun 1.8 refuses the hybrid cgroup layout: in a mount namespace of its own it sees pure v1.
V1_VIEW = "if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi; exec \"$@\""


V1_ONLY = "if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi"


class Namespace:
    """A mount namespace that is shared within: what is mounted there is seen by all in it, and by nobody else. For engines
    that ask the volume plugin for mounts, and for tests that put something over directories of the system."""

    def __init__(self, script="true"):
        self.holder = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-ec",
             f"mount --make-rshared /\n{V1_ONLY}\n{script}\necho ready\nread end"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"ready\n"

    def argv(self, *args):
        return ["nsenter", "-t", str(self.holder.pid), "-m", "--", *[str(a) for a in args]]

    def path(self, path):
        """The path as we reach it from outside."""
        return Path(f"/proc/{self.holder.pid}/root") / str(path).lstrip("/")

    def close(self):
        self.holder.communicate(timeout=20)


def make_rootfs(directory):
    root = Path(directory)
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "root", "vol", "run", "usr/bin", "lib64", "lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "bin" / "busybox").write_bytes(BUSYBOX.read_bytes())
    (root / "bin" / "busybox").chmod(0o755)
    for name in run(BUSYBOX, "--list").stdout.decode().split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\napp:x:1000:\n")
    (root / "etc" / "os-release").write_text("ID=busybox\n")
    return root


def add_program(root, program):
    """Copies a host program and the libraries it needs into the root file system."""
    program = Path(program)
    files = [program] + [Path(word) for line in run("ldd", program).stdout.decode().splitlines()
                         for word in line.split() if word.startswith("/")]
    for file in files:
        to = root / str(file).lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(file.read_bytes())
        to.chmod(0o755)


def oci_config(root, volume, script, propagation="rprivate", pid_namespace=True, capabilities=CAPABILITIES,
               user_namespace=False):
    kinds = [*(["pid"] if pid_namespace else []), "mount", "ipc", "uts", *(["user"] if user_namespace else [])]
    ids = [{"containerID": 0, "hostID": BASE_ID, "size": IDS}]
    return {
        "ociVersion": "1.0.2",
        "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script],
                    "env": ["PATH=/bin:/usr/bin"], "cwd": "/", "noNewPrivileges": True,
                    "capabilities": {k: capabilities for k in ("bounding", "effective", "permitted")}},
        "root": {"path": str(root), "readonly": True}, "hostname": "ck",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "mode=755", "size=65536k"]},
                   {"destination": "/vol", "type": "none", "source": str(volume), "options": ["rbind", "rw", propagation]}],
        "linux": {"rootfsPropagation": "rprivate" if propagation == "rprivate" else "rslave",
                  "namespaces": [{"type": kind} for kind in kinds],
                  **({"uidMappings": ids, "gidMappings": ids} if user_namespace else {})}}


class Oci:
    """crun and runc"""

    def __init__(self, runtime, directory):
        self.runtime = runtime
        self.dir = Path(directory) / runtime
        self.dir.mkdir()
        self.root = make_rootfs(self.dir / "rootfs")
        self.count = 0

    def argv(self, volume, script, new_keyring=True, **options):
        self.count += 1
        bundle = self.dir / f"bundle{self.count}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(oci_config(self.root, volume, script, **options)))
        command = [self.runtime, "--root", str(self.dir / "state"), "run", *([] if new_keyring else ["--no-new-keyring"]),
                   "--bundle", str(bundle), f"ckrfs-{os.getpid()}-{self.count}"]
        if self.runtime == "crun":
            return ["unshare", "-m", "--propagation", "slave", "sh", "-c", V1_VIEW, "sh", *command]
        return command


class Bubblewrap:
    def __init__(self, directory):
        self.root = make_rootfs(Path(directory) / "bwrap")

    def argv(self, volume, script, user_namespace=True):
        unshare = ["--unshare-all"] if user_namespace else ["--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts"]
        return ["bwrap", *unshare, "--ro-bind", str(self.root), "/", "--proc", "/proc", "--dev", "/dev",
                "--tmpfs", "/tmp", "--bind", str(volume), "/vol", "/bin/sh", "-c", script]


class Podman:
    RUN = ["--network", "none", "--cgroups", "disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
           "--security-opt", "seccomp=unconfined"]

    def __init__(self, directory):
        self.dir = Path(directory) / "podman"
        self.dir.mkdir()
        self.root = make_rootfs(self.dir / "rootfs")

    def command(self, *args):
        return ["unshare", "-m", "--propagation", "slave", "sh", "-c", V1_VIEW, "sh", *self.bare(*args)]

    def bare(self, *args):
        return ["podman", "--root", str(self.dir / "root"), "--runroot", str(self.dir / "runroot"),
                "--tmpdir", str(self.dir / "tmp"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
                "--events-backend", "none", "--runtime", "crun", *args]

    def argv(self, volume, script, user_namespace=False):
        ids = ["--uidmap", f"0:{BASE_ID}:{IDS}", "--gidmap", f"0:{BASE_ID}:{IDS}"] if user_namespace else []
        if user_namespace:  # whoever is root there makes the files that podman mounts
            run("chown", "-R", f"{BASE_ID}:{BASE_ID}", self.root)
        return self.command("run", "--rm", "-i", *ids, *self.RUN, "-v", f"{volume}:/vol", "--rootfs", str(self.root), "/bin/sh", "-c",
                            script)


RUNTIMES = ["crun", "runc", "bwrap", "podman"]


def runtime(name, directory):
    return {"bwrap": Bubblewrap, "podman": Podman}.get(name, lambda d: Oci(name, d))(directory)


def run_in(container, volume, script, **options):
    """-> what the script printed; its failure is an AssertionError"""
    return run(*container.argv(volume, script, **options), stdin=subprocess.DEVNULL).stdout.decode(errors="replace")
