# SPDX-License-Identifier: MIT
"""The volume plugin as a process, and a client that speaks its protocol byte by byte as the engines do."""
import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

from support import BINARY, alive, wait_until

PODMAN_ID = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2"  # of all its containers


def podman_request(endpoint, body):
    """As podman 4.3 sends it (Go's HTTP client): Activate and List have no body at all."""
    data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    head = (f"POST /{endpoint} HTTP/1.1\r\nHost: plugin\r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Content-Length: {len(data)}\r\nContent-Type: application/vnd.docker.plugins.v1.1+json\r\n"
            "Accept-Encoding: gzip\r\n\r\n")
    return head.encode() + data


def docker_request(endpoint, body):
    """As docker 20.10 sends it: JSON with a newline, by chunks nothing, the socket's path as host."""
    data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode() + b"\n"
    head = (f"POST /{endpoint} HTTP/1.1\r\nHost: %2Frun%2Fdocker%2Fplugins%2Fckrfs.sock\r\n"
            f"User-Agent: Go-http-client/1.1\r\nContent-Length: {len(data)}\r\n"
            "Accept: application/vnd.docker.plugins.v1.2+json\r\nAccept-Encoding: gzip\r\n\r\n")
    return head.encode() + data


class Plugin:
    def __init__(self, ck, *options):
        self.ck = ck
        self.socket = ck.dir / "plugin.sock"
        self.state = ck.dir / "volumes"
        self.log = ck.dir / "plugin.log"
        self.mounts = ck.runtime / "volumes"
        self.counts = ck.runtime / "plugin"
        self.options = options
        self.form = docker_request
        self.program = BINARY
        self.process = None
        self.namespace = None  # containers.Namespace that it runs in

    # -- the process

    def argv(self):
        return [str(self.program), "volume-plugin", "--config", str(self.ck.conf), "--socket", str(self.socket),
                "--state", str(self.state), *self.options]

    def start(self, **kw):
        kw.setdefault("env", self.ck.env)
        with open(self.log, "ab") as log:
            argv = self.namespace.argv(*self.argv()) if self.namespace else self.argv()
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kw)
        wait_until("the plugin's socket", lambda: self.process.poll() is not None or self.answers())
        return self

    def answers(self):
        with contextlib.suppress(OSError, AssertionError, ValueError):
            return self.ask("Plugin.Activate") == (200, {"Implements": ["VolumeDriver"]})
        return False

    def front(self):
        for p in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it ends meanwhile
                if Path(f"/proc/{p}/comm").read_text() == "ckrfs-front\n":
                    return int(p)
        return None

    def kill(self):
        """kill -9, and what ends with it"""
        front = self.front()
        self.process.kill()
        self.process.wait()
        wait_until("the front's end", lambda: not (front and alive(front)))

    def stop(self, status=0):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == status

    @contextlib.contextmanager
    def running(self, **kw):
        self.start(**kw)
        try:
            yield self
        finally:
            if self.process.poll() is None:
                self.stop()

    # -- the client

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(self.socket))
        s.settimeout(30)
        return s

    def raw(self, data, last=False):
        """-> all that comes back until the plugin closes; last: nothing will follow, and the plugin is told so"""
        with self.connect() as s:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(data)
                if last:
                    s.shutdown(socket.SHUT_WR)
            return self.rest(s)

    @staticmethod
    def rest(s):
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while data := s.recv(65536):
                got += data
        return got

    def ask(self, endpoint, body=None):
        """-> HTTP status and the JSON of the answer"""
        got = self.raw(self.form(endpoint, body))
        assert got, "no answer"
        head, _, text = got.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert "Content-Type: application/vnd.docker.plugins.v1.1+json" in lines, lines
        return int(lines[0].split()[1]), json.loads(text)

    def call(self, endpoint, status=200, **body):
        """-> the answer, or the text of the error where a status of one is expected"""
        got, answer = self.ask(f"VolumeDriver.{endpoint}", body)
        assert got == status, (endpoint, body, got, answer)
        assert (answer.get("Err", "") == "") == (status == 200), answer
        return answer if status == 200 else answer["Err"]

    def create(self, name, status=200, **options):
        opts = {k.replace("_", "-"): v for k, v in options.items()}
        return self.call("Create", status, Name=name, Opts=opts)

    def mount(self, name, status=200, id=PODMAN_ID):
        answer = self.call("Mount", status, Name=name, ID=id)
        return Path(answer["Mountpoint"]) if status == 200 else answer

    def unmount(self, name, status=200, id=PODMAN_ID):
        return self.call("Unmount", status, Name=name, ID=id)

    def remove(self, name, status=200):
        return self.call("Remove", status, Name=name)

    def get(self, name):
        return self.call("Get", Name=name)["Volume"]

    def names(self):
        return [v["Name"] for v in self.call("List")["Volumes"]]

    def is_mounted(self, name):
        return os.path.ismount(self.mounts / name)

    def log_text(self):
        return (self.log.read_text(errors="replace") if self.log.exists() else "") + self.ck.log_text()
