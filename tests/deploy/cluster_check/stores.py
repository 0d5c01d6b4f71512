"""A Redis, a PostgreSQL and nodes of the real program on this machine, which a test can disturb."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import ROOT, run, tool

SECRET = "a-secret-of-more-than-32-bytes-for-tests"


def program():
    """The program to test: SWITCHBOARD names it, else it is what cargo built, else the one on the path."""
    built = [ROOT / "target" / build / "switchboard" for build in ("release", "debug")]
    for path in (os.environ.get("SWITCHBOARD"), *built, shutil.which("switchboard")):
        if path and Path(path).exists():
            return str(path)
    pytest.skip("switchboard is not built, and SWITCHBOARD names no program")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def eventually(what, ask, seconds=30):
    """Polls until there is an answer; fails after a time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := ask():
                return answer
            why = "no answer"
        except OSError as error:
            why = error
        assert time.monotonic() < deadline, f"{what}: {why}"
        time.sleep(0.05)


class Postgres:
    """A server without passwords. As root it runs under another user, because it refuses to run as root."""

    def __init__(self, folder):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [shutil.which("initdb")]
        if not found[-1]:
            pytest.skip("PostgreSQL is not installed")
        self.programs, self.folder, self.port = Path(found[-1]).parent, folder, free_port()
        self.options = {"user": "nobody", "cwd": folder} if os.geteuid() == 0 else {"cwd": folder}
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        data = ["-D", f"{folder}/data"]
        run(self.programs / "initdb", *data, "-U", "postgres", "-A", "trust", "--no-sync", **self.options)
        self.control = [self.programs / "pg_ctl", *data, "-w", "-l", f"{folder}/log"]
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def start(self):
        # fsync stays on: what is acked must survive a stop.
        run(*self.control, "start", "-o", f"-k {self.folder} -p {self.port} -h 127.0.0.1", **self.options)

    def stop(self, mode="fast"):
        run(*self.control, "stop", "-m", mode, check=False, **self.options)


class Node:
    """A node of the real program; `start` again after `kill` keeps its address."""

    def __init__(self, folder, name, redis_url, database_url):
        self.port, admin = free_port(), free_port()
        self.log, self.process = Path(folder) / f"{name}.log", None
        self.url, self.ready = f"ws://127.0.0.1:{self.port}", f"http://127.0.0.1:{admin}/readyz"
        self.variables = {
            "PATH": os.environ["PATH"], "JWT_SECRET": SECRET, "REDIS_URL": redis_url, "DATABASE_URL": database_url,
            "LISTEN": f"127.0.0.1:{self.port}", "ADMIN_LISTEN": f"127.0.0.1:{admin}", "MESSAGE_RATE_LIMIT": "0",
            "SHUTDOWN_DELAY": "0s", "DRAIN_WINDOW": "1s",
        }  # fmt: skip

    def start(self):
        with self.log.open("ab") as log:
            command = [program(), "serve"]
            self.process = subprocess.Popen(command, env=self.variables, stdout=log, stderr=log, cwd=self.log.parent)
        eventually(f"{self.log.name}: {self.log.read_text()[-500:]}", self.is_ready)

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(self.ready, timeout=2) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()


class Deployment:
    """Two nodes over one Redis and one PostgreSQL."""

    def __init__(self, folder, stores):
        self.postgres = Postgres(f"{stores}")
        self.redis_port = free_port()
        settings = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        self.redis = subprocess.Popen([tool("redis-server"), *settings], stdout=subprocess.DEVNULL)
        url = f"redis://127.0.0.1:{self.redis_port}"
        self.nodes = [Node(folder, f"node-{n}", url, self.postgres.url) for n in range(2)]

    def signal_redis(self, number):
        os.kill(self.redis.pid, number)

    def end(self):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()
        self.signal_redis(signal.SIGCONT)
        self.redis.kill()
        self.redis.wait()
        self.postgres.stop("immediate")


@contextmanager
def deployment(folder):
    """A deployment in which everything is ready; it ends with the block."""
    program()
    # A folder of its own: the user that PostgreSQL runs under can't enter the tests' folder.
    with tempfile.TemporaryDirectory() as stores:
        made = Deployment(folder, stores)
        try:
            made.postgres.start()
            for node in made.nodes:
                node.start()
            yield made
        finally:
            made.end()
