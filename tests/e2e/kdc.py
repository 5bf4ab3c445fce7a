# SPDX-License-Identifier: MIT
"""A real MIT KDC of the test's own: realm EXAMPLE.TEST, in a network namespace where there is nothing else."""
import os
import signal
import subprocess
from pathlib import Path

from support import run, wait_until

REALM = "EXAMPLE.TEST"
CELL = "example.test"


class Kdc:
    """options: lines for [libdefaults] of krb5.conf"""

    def __init__(self, directory, options=()):
        self.dir = Path(directory) / "kdc"
        self.dir.mkdir()
        self.env = {"KRB5_CONFIG": str(self.dir / "krb5.conf"), "KRB5_KDC_PROFILE": str(self.dir / "kdc.conf")}
        self.write_config(options)
        (self.dir / "kdc.conf").write_text(f"""
[realms]
    {REALM} = {{
        database_name = {self.dir}/principal
        key_stash_file = {self.dir}/stash
        acl_file = {self.dir}/acl
        max_life = 1h
        max_renewable_life = 1d
        supported_enctypes = aes256-cts:normal aes128-cts:normal aes256-sha2:normal
    }}
""")
        # Holds the namespace.
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 100000"],
                                       stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"up\n"
        self.run("kdb5_util", "create", "-s", "-r", REALM, "-P", "a master password of the test")
        self.process = None
        self.start()

    def write_config(self, options, kdc="127.0.0.1"):
        lines = "\n".join(f"    {line}" for line in options)
        (self.dir / "krb5.conf").write_text(f"""
[libdefaults]
    default_realm = {REALM}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    rdns = false
{lines}
[realms]
    {REALM} = {{
        kdc = {kdc}
    }}
""")

    def inside(self, *argv):
        """The same command, where the KDC is"""
        return ["nsenter", "-t", str(self.holder.pid), "-n", *map(str, argv)]

    def run(self, *argv, **kw):
        return run(*self.inside(*argv), env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, **kw)

    def start(self, env=None):
        self.process = subprocess.Popen(self.inside("krb5kdc", "-n"), env={**os.environ, **self.env, **(env or {})},
                                        stderr=subprocess.DEVNULL)
        wait_until("the KDC", lambda: b":88 " in self.run("ss", "-Hlnu").stdout)

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        self.process = None

    def close(self):
        self.stop()
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()

    # -- principals

    def admin(self, command):
        """kadmin.local answers 0 to everything."""
        done = self.run("kadmin.local", "-q", command)
        assert not any(word in done.stderr for word in (b"while", b"usage:")), done.stderr

    def add(self, name, keytab=None, options=""):
        """-> the path of its keytab"""
        self.admin(f"addprinc -randkey {options} {name}")
        return self.extract(name, keytab or name.replace("/", "_"))

    def extract(self, name, keytab):
        """With a new key"""
        path = self.dir / f"{keytab}.keytab"
        path.unlink(missing_ok=True)
        self.admin(f"ktadd -k {path} {name}")
        path.chmod(0o600)
        return path
