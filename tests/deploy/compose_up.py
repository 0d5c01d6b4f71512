"""Starts the services of compose.yaml as processes of this machine, with the files, settings and commands of that file,
and uses them. Run it in its own namespaces, as test_compose.py does: they end all processes when this script ends, and
keep its mounts invisible outside.

Differences from containers: the services share this machine's files and one network, in which each has its own address
under its name in compose.yaml; and Grafana is missing.
"""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from compose_files import ROOT, read


# The arguments are further files, as after `-f`.
SERVICES = read(*sys.argv[1:])["services"]
PROGRAM = ROOT / "target/debug/switchboard"
ADDRESSES = {name: f"127.0.1.{last}" for last, name in enumerate(SERVICES, 1)}
# A folder that exists on every machine; a tmpfs covers it, so its content is gone afterwards.
WORK = Path("/mnt")
SECRETS = WORK / "secrets"
POSTGRES = max(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name)) / "bin"


def here(text):
    """Replaces container paths in a setting or an argument."""
    return str(text).replace("/secrets/", f"{SECRETS}/").replace("=/prometheus", f"={WORK}/prometheus")


def start(*command, **options):
    return subprocess.Popen([str(word) for word in command], **options)


def done(*command, **options):
    subprocess.run([str(word) for word in command], check=True, **options)


def eventually(what, ask):
    """Polls until there is an answer; fails after 30 s."""
    deadline = time.monotonic() + 30
    while True:
        try:
            if answer := ask():
                return answer
            why = "no answer"
        except OSError as error:
            why = error
        assert time.monotonic() < deadline, f"{what}: {why}"
        time.sleep(0.1)


def get(url, token=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def private(folder):
    """Mounts an empty folder over a folder."""
    done("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)


def network():
    done("ip", "link", "set", "lo", "up")
    hosts = WORK / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
    done("mount", "--bind", hosts, "/etc/hosts")


def mount(service):
    """Mounts the repository's files at the service's paths; later mounts cover earlier ones, as in containers."""
    for volume in SERVICES[service]["volumes"]:
        source, target = volume.split(":")[:2]
        if source.startswith("./"):
            if not Path(target).exists():
                Path(target).touch()
            done("mount", "--bind", ROOT / source, target)


def redis():
    if "cluster" in SERVICES:
        redis_cluster()
    else:
        start(*map(here, SERVICES["redis"]["command"]), cwd=WORK)


def redis_cluster():
    (WORK / "cluster").mkdir(mode=0o755)
    folders = {"PATH": "/usr/bin:/bin", "SECRETS": str(SECRETS), "CLUSTER": str(WORK / "cluster")}

    def command(service):
        """The service's command, with the script's place here."""
        return [str(ROOT / "compose/cluster.sh") if word == "/cluster.sh" else word for word in service["entrypoint"] + service["command"]]

    for name in SERVICES["cluster"]["command"]:
        # In a container it listens on all addresses, and has one.
        start(*command(SERVICES[name]), "--bind", ADDRESSES[name], "--bind-source-addr", ADDRESSES[name], cwd=WORK, env=folders, stdout=subprocess.DEVNULL)
        eventually(name, lambda name=name: subprocess.run(["redis-cli", "-h", name, "ping"], capture_output=True).returncode == 0)
    for _ in range(2):  # The second time, it is one already.
        done(*command(SERVICES["cluster"]), env=folders)


def postgres():
    environment = SERVICES["postgres"]["environment"]
    data, user = WORK / "postgres", environment["POSTGRES_USER"]
    own = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    as_user = {"user": "postgres", "group": "postgres", "cwd": "/", "env": own}
    data.mkdir()
    done("chown", "postgres", data)
    password = here(environment["POSTGRES_PASSWORD_FILE"])
    done(POSTGRES / "initdb", "-D", data, "-U", user, "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync",
         f"--pwfile={password}", stdout=subprocess.DEVNULL, **as_user)
    where = ["-c", "listen_addresses=*", "-c", f"unix_socket_directories={data}"]
    start(POSTGRES / "postgres", "-D", data, *where, **as_user)
    eventually("PostgreSQL", lambda: subprocess.run(["pg_isready", "-q", "-h", "postgres"]).returncode == 0)
    done("createdb", "-h", data, "-U", user, environment["POSTGRES_DB"], **as_user)


def settings(node):
    own = {"PATH": "/usr/bin:/bin", "LISTEN": f"{ADDRESSES[node]}:8000"}
    all_ = {name: here(value) for name, value in SERVICES[node]["environment"].items()} | own
    # In a container it listens on all addresses; here the nodes share them.
    return all_ | {"ADMIN_LISTEN": all_["ADMIN_LISTEN"].replace("0.0.0.0", ADDRESSES[node])}


def node(name):
    start(PROGRAM, *["serve"], env=settings(name), cwd=WORK)
    healthy = [PROGRAM, *SERVICES[name]["healthcheck"]["test"][2:]]
    quiet = {"env": settings(name), "capture_output": True}
    eventually(name, lambda: subprocess.run(healthy, **quiet).returncode == 0)


def nginx():
    private("/run")
    private("/var/log/nginx")
    mount("nginx")
    start("nginx", "-g", "daemon off;")


def prometheus():
    private("/etc/prometheus")
    mount("prometheus")
    (WORK / "prometheus").mkdir()
    start("prometheus", *map(here, SERVICES["prometheus"]["command"]), stderr=subprocess.DEVNULL)


class Socket:
    """A minimal WebSocket client."""

    def __init__(self, path):
        self.stream = socket.create_connection(("127.0.0.1", 80), timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.file = self.stream.makefile("rb")
        assert b" 101 " in self.file.readline()
        while self.file.readline() != b"\r\n":
            pass

    def send(self, frame):
        payload = json.dumps(frame).encode()
        assert len(payload) < 126
        self.stream.sendall(bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    def until(self, kind):
        while True:
            first, length = self.file.read(2)
            if length == 126:
                length = int.from_bytes(self.file.read(2), "big")
            payload = self.file.read(length)
            if first & 0x0F == 1 and (frame := json.loads(payload))["type"] == kind:
                return frame


def token(user):
    minted = [PROGRAM, "token", "--user", user]
    return subprocess.run(minted, env=settings("node-1"), capture_output=True, text=True, check=True).stdout.strip()


def chat():
    """Two users on different nodes chat through nginx, with tokens made as compose.yaml describes."""
    tokens = [token("alice"), token("bob")]
    sockets = [Socket(f"/ws/lobby?token={token}") for token in tokens]
    for one in sockets:
        one.until("connected")
    url = "http://127.0.0.1/api/connections/info"
    assert {get(url, token)["connections"][0]["node"] for token in tokens} == {"node-1", "node-2"}
    sockets[0].send({"type": "send_message", "data": {"content": "hello"}})
    assert "hello" in json.dumps(sockets[1].until("new_message"))


def check_prometheus():
    """Prometheus reaches both nodes and has the alerts."""

    def reached():
        targets = get("http://127.0.0.1:9090/api/v1/targets")["data"]["activeTargets"]
        return [target["health"] for target in targets] == ["up", "up"]

    eventually("both nodes in Prometheus", reached)
    groups = get("http://127.0.0.1:9090/api/v1/rules")["data"]["groups"]
    assert groups and all(rule["health"] != "err" for group in groups for rule in group["rules"])


def main():
    private(WORK)
    network()
    SECRETS.mkdir()
    done("sh", ROOT / "compose/secrets.sh", SECRETS)
    redis()
    postgres()
    node("node-1")
    node("node-2")
    nginx()
    health = eventually("health through nginx", lambda: get("http://127.0.0.1/api/health"))
    assert health["status"] == "healthy", health
    assert re.fullmatch(r"node-[12]", health["node"])
    masters = json.load(urllib.request.urlopen(f"http://{ADDRESSES['node-1']}:8001/api/health", timeout=5))["redis"].get("masters", [])
    assert len(masters) == (3 if "cluster" in SERVICES else 0), masters
    chat()
    prometheus()
    check_prometheus()
    print("all services work")


main()
