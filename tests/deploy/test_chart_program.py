"""The program accepts the arguments, environment and files of a rendered container; checked with the real program."""

import os
import shutil
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from chart.render import HELMS, SETS, environment, node, one, rendered, resources
from conftest import ROOT, run, tool

PLANTED = {
    "REDIS_URL": "redis://127.0.0.1:1",
    "REDIS_PASSWORD": "a-password-of-redis",
    "REDIS_SENTINEL_PASSWORD": "a-password-of-the-sentinels",
    "DATABASE_URL": "postgres://switchboard@127.0.0.1:1/switchboard",
    "DATABASE_PASSWORD": "a-password-of-postgresql",
    "DATABASE_MIGRATE_URL": "postgres://owner@127.0.0.1:1/switchboard",
    "JWT_SECRET": "a-secret-of-more-than-32-bytes-for-tests",
    "JWT_PREVIOUS_SECRET": "another-secret-of-more-than-32-bytes",
    "PERSONA_WEBHOOK_URL": "https://personas.example.com/",
    "PERSONA_WEBHOOK_SECRET": "a-secret-to-sign-with",
    "NOTIFICATION_WEBHOOK_URL": "https://notify.example.com/",
    "ADMIN_TOKEN": "a-token-of-more-than-32-bytes-for-tests",
}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """A folder with secrets, like the one of a node."""
    folder = tmp_path_factory.mktemp("secrets")
    for name, secret in PLANTED.items():
        (folder / name).write_text(secret)
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -keyout"
    run(tool("openssl"), *made.split(), folder / "key", "-out", folder / "REDIS_CA_FILE")
    run(tool("openssl"), "pkey", "-in", folder / "key", "-pubout", "-out", folder / "JWT_PUBLIC_KEY")
    for name in ("DATABASE_CA_FILE", "REDIS_SENTINEL_CA_FILE"):
        (folder / name).write_bytes((folder / "REDIS_CA_FILE").read_bytes())
    for server in ("REDIS", "REDIS_SENTINEL", "DATABASE"):
        (folder / f"{server}_CLIENT_CERT_FILE").write_bytes((folder / "REDIS_CA_FILE").read_bytes())
        (folder / f"{server}_CLIENT_KEY_FILE").write_bytes((folder / "key").read_bytes())
    return folder


def program():
    builds = [ROOT / "target" / build / "switchboard" for build in ("release", "debug")]
    # The one that was built last, because it has the settings of today.
    if not (built := [path for path in builds if path.exists()]):
        pytest.skip("switchboard is not built")
    return max(built, key=lambda path: path.stat().st_mtime)


def start(container, secrets, *arguments, **more):
    """Runs the container's command (or other arguments) with the environment that Kubernetes would make for it."""
    given = {"PATH": os.environ["PATH"]}
    for name, value in environment(container).items():
        from_field = isinstance(value, dict)
        given[name] = "chat-7d4-x2" if from_field else value.replace("/run/secrets/switchboard", str(secrets))
    return run(program(), *(arguments or container["args"]), env=given | more, cwd=secrets, check=False)


@pytest.mark.parametrize("name", SETS)
def test_the_program_accepts_a_nodes_environment(name, secrets, tmp_path):
    forms = {
        "sentinels": "rediss+sentinel://127.0.0.1:1?sentinel_master_name=main",
        "certificates": "rediss+sentinel://127.0.0.1:1?sentinel_master_name=main",
        "redis-cluster": "rediss+cluster://127.0.0.1:1?addr=127.0.0.1:2",
    }
    if name in forms:
        secrets = shutil.copytree(secrets, tmp_path / "secrets")
        (secrets / "REDIS_URL").write_text(forms[name])
    nowhere = {"JWT_JWKS_URL": "http://127.0.0.1:1/"} if name in ("jwks", "network-policy") else {}
    said = start(node(name), secrets, "check", **nowhere)
    assert "ok    configuration" in said.stdout, said.stderr


def test_the_job_reaches_the_database_connection(secrets):
    (container,) = one("minimal", "Job")["spec"]["template"]["spec"]["containers"]
    said = start(container, secrets, DATABASE_START_TIMEOUT="1s")
    assert said.returncode == 1
    assert "refused" in said.stderr, said.stderr


def test_the_nodes_run_serve():
    assert node("minimal")["args"] == ["serve"]


@pytest.mark.parametrize("family, host", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]"), (socket.AF_INET, "localhost")])
def test_helm_test_reaches_a_node_through_the_service(family, host, secrets):
    """The cluster's name service answers with an IPv4 or an IPv6 address; the test's URL holds only the name."""
    asked = []

    class Node(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(HTTPServer):
        address_family = family

    found = {document["spec"]["containers"][0]["name"]: document for (kind, _), document in resources("minimal").items() if kind == "Pod"}
    (check,), (service,) = (found[name]["spec"]["containers"] for name in ("check", "service"))
    assert check["args"] == ["check"] and environment(check) == environment(node("minimal"))
    assert service["args"] == ["healthcheck", "--url", "http://chat-switchboard.talk.svc:8000"]
    try:
        server = Server((host.strip("[]"), 0), Node)
    except OSError:
        pytest.skip(f"this machine lacks {host}")
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = service["args"][2].replace("chat-switchboard.talk.svc:8000", f"{host}:{server.server_port}")
        said = start(service, secrets, "healthcheck", "--url", url)
        server.shutdown()
    assert (said.returncode, asked) == (0, ["/livez"]), said.stderr


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("trusted", [True, False])
def test_helm_test_reaches_nodes_that_expect_proxy_headers(trusted, helm, secrets):
    """The pod's address may be among TRUSTED_PROXIES, or not: the chart can't know."""
    config = {"PROXY_PROTOCOL": True, "TRUSTED_PROXIES": "10.0.0.0/8"}
    for values in ({"config": config}, {"extraEnv": [{"name": "PROXY_PROTOCOL", "value": "true"}]}):
        (service,) = rendered(values, helm)["Pod", "chat-switchboard-test-service"]["spec"]["containers"]
        assert service["args"][-1] == "--proxy-protocol"
    (service,) = rendered({"config": {"PROXY_PROTOCOL": "false"}}, helm)["Pod", "chat-switchboard-test-service"]["spec"]["containers"]
    assert "--proxy-protocol" not in service["args"]
    seen = []

    class Node(socketserver.StreamRequestHandler):
        def handle(self):
            first = self.rfile.readline()
            seen.append(first)
            proxied = first.startswith(b"PROXY ")
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                seen.append(line)
            status = b"200 OK" if proxied == trusted else b"400 Bad Request"
            self.wfile.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Node) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        said = run(program(), "healthcheck", "--url", url, "--proxy-protocol", check=False, cwd=secrets)
        server.shutdown()
    assert said.returncode == 0, said.stderr
    assert seen[0] == b"PROXY UNKNOWN\r\n" and any(line.startswith(b"GET /livez") for line in seen)
