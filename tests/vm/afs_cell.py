# SPDX-License-Identifier: MIT
"""A cell of AFS: MIT's KDC and OpenAFS's servers, on an address of a dummy interface, on this machine alone. It writes below
/etc, /var and /vicepa: only for a machine that is thrown away."""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

NAME, REALM, IP, HOST = "example.test", "EXAMPLE.TEST", "10.99.0.1", "afs1.example.test"
KEYTABS = pathlib.Path("/run/cell")
USERS = {"alice": 1001, "bob": 1002, "carol": 1003}
TOKEN = pathlib.Path(__file__).with_name("afs_token.py")

KRB5_CONF = f"""[libdefaults]
 default_realm = {REALM}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 rdns = false
 dns_canonicalize_hostname = false
[realms]
 {REALM} = {{
  kdc = {IP}
 }}
[domain_realm]
 {NAME} = {REALM}
"""
KDC_CONF = f"""[kdcdefaults]
 kdc_ports = 88
 kdc_tcp_ports = ""
[realms]
 {REALM} = {{
  database_name = /var/lib/krb5kdc/principal
  key_stash_file = /etc/krb5kdc/stash
  supported_enctypes = aes256-cts:normal aes128-cts:normal
 }}
"""


def run(*command, check=True, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert not check or done.returncode == 0, (command, done.stderr)
    return done


def wait_for(what, seconds=60, step=0.2):
    """Until what() is true: the time box is for a machine that hangs."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(step)


def write(path, text):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(text)


class Cell:
    def __init__(self):
        self.kdc = self.fileserver = None
        self.servers = []
        self.network()
        self.kerberos()
        self.afs()

    @staticmethod
    def network():
        for module in ("dummy", "veth", "kafs", "fuse"):
            run("modprobe", module)
        run("ip", "link", "add", "dummy0", "type", "dummy")
        run("ip", "addr", "add", f"{IP}/24", "dev", "dummy0")
        run("ip", "link", "set", "dummy0", "up")
        run("hostname", HOST)
        write("/etc/hosts", f"127.0.0.1 localhost\n{IP} {HOST} afs1\n")
        write("/etc/nsswitch.conf", "hosts: files\npasswd: files\ngroup: files\nservices: files\nprotocols: files\n")

    def kerberos(self):
        write("/etc/krb5.conf", KRB5_CONF)
        write("/etc/krb5kdc/kdc.conf", KDC_CONF)
        pathlib.Path("/var/lib/krb5kdc").mkdir(parents=True, exist_ok=True)
        KEYTABS.mkdir(exist_ok=True)
        run("kdb5_util", "-r", REALM, "create", "-s", "-P", "x")
        lines = [f"addprinc -randkey afs/{NAME}", f"ktadd -k {KEYTABS}/afs.kt afs/{NAME}"]
        for user in ("admin", *USERS):
            lines += [f"addprinc -randkey {user}", f"ktadd -k {KEYTABS}/{user}.kt -norandkey {user}"]
        run("kadmin.local", input="\n".join(lines))
        self.start_kdc()

    def start_kdc(self):
        self.kdc = subprocess.Popen(["krb5kdc", "-n"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def tickets_live(self, user, seconds):
        run("kadmin.local", input=f"modprinc -maxlife \"{seconds} seconds\" {user}\n")

    def stop_kdc(self):
        self.kdc.kill()
        self.kdc.wait()

    def start(self, program, *args):
        log = open(f"/run/cell/{program}.log", "a")
        process = subprocess.Popen([f"/usr/lib/openafs/{program}", *args], stdout=log, stderr=log)
        self.servers.append(process)
        return process

    def afs(self):
        server = pathlib.Path("/etc/openafs/server")
        for path in (server, server.parent):
            write(path / "ThisCell", NAME + "\n")
            write(path / "CellServDB", f">{NAME} #test\n{IP} #{HOST}\n")
        write(server / "krb.conf", REALM + "\n")
        write(server / "UserList", "admin\n")
        for path in ("/var/lib/openafs/db", "/var/lib/openafs/local", "/var/log/openafs", "/vicepa"):
            pathlib.Path(path).mkdir(parents=True, exist_ok=True)
        write("/var/lib/openafs/local/NetInfo", IP + "\n")
        write("/var/lib/openafs/local/NetRestrict", "127.0.0.1\n")
        version = next(line.split()[0] for line in run("klist", "-kte", f"{KEYTABS}/afs.kt").stdout.splitlines() if "aes256" in line)
        for enctype in ("17", "18"):
            run("asetkey", "add", "rxkad_krb5", version, enctype, f"{KEYTABS}/afs.kt", f"afs/{NAME}")
        self.start("ptserver")
        self.start("vlserver")
        wait_for(lambda: run("pts", "createuser", "admin", "-id", "1", "-localauth", check=False).returncode == 0)
        # A fileserver that finds no quorum sleeps for half a minute.
        wait_for(lambda: "I am sync site" in run("udebug", IP, "7003", check=False).stdout)
        run("mount", "-t", "tmpfs", "tmpfs", "/vicepa")
        pathlib.Path("/vicepa/AlwaysAttach").touch()
        self.start_fileserver()
        self.start("volserver")
        run("pts", "adduser", "admin", "system:administrators", "-localauth")
        for user, number in USERS.items():
            run("pts", "createuser", user, "-id", str(number), "-localauth")
        wait_for(lambda: run("vos", "create", IP, "a", "root.cell", "-localauth", check=False).returncode == 0)
        write("/proc/net/afs/cells", f"add {NAME} {IP}")

    def start_fileserver(self):
        self.fileserver = self.start("fileserver", "-p", "8")

    def stop_fileserver(self):
        self.fileserver.send_signal(signal.SIGQUIT)  # as bosserver ends it
        self.fileserver.wait(60)

    def volume(self, name, user, quota="0"):
        """A volume that only user and the administrators may read or write."""
        run("vos", "create", IP, "a", name, "-maxquota", quota, "-localauth")
        with self.mounted(name) as place:
            # kAFS wants the NUL at the end.
            acl = f"2\n0\nsystem:administrators\t127\n{user}\t63\n\0"
            self.as_user("admin", sys.executable, "-c", f"import os; os.setxattr({str(place)!r}, 'afs.acl', {acl.encode()!r})")

    @contextlib.contextmanager
    def mounted(self, volume):
        """By kAFS itself, as another client has it."""
        place = pathlib.Path("/run/cell/mnt") / volume
        place.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "afs", f"%{NAME}:{volume}", place)
        try:
            yield place
        finally:
            run("umount", place)

    def as_user(self, user, *command, check=True):
        """The command in a session that has a token of the user, made by aklog-kafs."""
        script = f"kinit -k -t {KEYTABS}/{user}.kt {user} && aklog-kafs {NAME} >&2 && exec \"$@\""
        return run("keyctl", "session", "-", "bash", "-c", script, "_", *map(str, command), check=check,
                   env=dict(os.environ, KRB5CCNAME=f"FILE:/run/cell/cc.{user}"))

    @staticmethod
    def keytab(user):
        return f"krb5:keytab={KEYTABS}/{user}.kt,principal={user}"

    def source(self, user, life):
        """A program as the key source, which makes a token of the user that lives so long."""
        return f"exec:{sys.executable} {TOKEN} {NAME} {KEYTABS}/{user}.kt {user} {life}?fmt=raw"

    def stop(self):
        for process in (self.kdc, *self.servers):
            process.kill()
            process.wait()
