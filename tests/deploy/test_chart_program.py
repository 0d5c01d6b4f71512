"""The program accepts the arguments, environment and files of a rendered container; checked with the real program."""

import os
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from chart.cluster import cluster
from chart.render import CHART, HELMS, SETS, environment, node, of_kind, one
from conftest import ROOT, run, tool

PLANTED = {
    "REDIS_URL": "redis://127.0.0.1:1",
    "DATABASE_URL": "postgres://switchboard@127.0.0.1:1/switchboard",
    "JWT_SECRET": "a-secret-of-more-than-32-bytes-for-tests",
    "JWT_PREVIOUS_SECRET": "another-secret-of-more-than-32-bytes",
    "PERSONA_WEBHOOK_URL": "https://personas.example.com/",
    "PERSONA_WEBHOOK_SECRET": "a-secret-to-sign-with",
    "NOTIFICATION_WEBHOOK_URL": "https://notify.example.com/",
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
    (folder / "DATABASE_CA_FILE").write_bytes((folder / "REDIS_CA_FILE").read_bytes())
    return folder


def program():
    for build in ("release", "debug"):
        if (path := ROOT / "target" / build / "switchboard").exists():
            return path
    pytest.skip("switchboard is not built")


def start(container, secrets, *arguments, **more):
    """Runs the container's command (or other arguments) with the environment that Kubernetes would make for it."""
    given = {"PATH": os.environ["PATH"]}
    for name, value in environment(container).items():
        from_field = isinstance(value, dict)
        given[name] = "chat-7d4-x2" if from_field else value.replace("/run/secrets/switchboard", str(secrets))
    return run(program(), *(arguments or container["args"]), env=given | more, cwd=secrets, check=False)


@pytest.mark.parametrize("name", SETS)
def test_the_program_accepts_a_nodes_environment(name, secrets):
    nowhere = {"JWT_JWKS_URL": "http://127.0.0.1:1/"} if name in ("jwks", "network-policy") else {}
    said = start(node(name), secrets, "check", **nowhere)
    assert "ok    configuration" in said.stdout, said.stderr


def test_the_job_reaches_the_database_connection(secrets):
    (container,) = one("minimal", "Job")["spec"]["template"]["spec"]["containers"]
    said = start(container, secrets)
    assert said.returncode == 1
    assert "refused" in said.stderr, said.stderr


def test_the_nodes_run_serve():
    assert node("minimal")["args"] == ["serve"]


def test_helm_test_reaches_a_node_through_the_service(secrets):
    """Kubernetes puts the address of a Service into the environment, in variables named after it."""
    asked = []

    class Node(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    check, service = one("minimal", "Pod")["spec"]["containers"]
    assert check["args"] == ["check"] and environment(check) == environment(node("minimal"))
    with HTTPServer(("127.0.0.1", 0), Node) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        clients = min((s["metadata"]["name"] for s in of_kind("minimal", "Service")), key=len)
        prefix = clients.upper().replace("-", "_")
        known = {f"{prefix}_SERVICE_HOST": "127.0.0.1", f"{prefix}_SERVICE_PORT": str(server.server_port)}
        expand = {name: re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], value)
                  for name, value in environment(service).items()}  # fmt: skip
        said = start(service, secrets, **expand)
        server.shutdown()
    assert (said.returncode, asked) == (0, ["/livez"]), said.stderr


DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "chat-switchboard",
        "namespace": "talk",
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "chat", "meta.helm.sh/release-namespace": "talk"},
    },
    "spec": {"replicas": 7},
}


def install(helm, folder, *arguments):
    """Manifests and notes of `helm install` if a Deployment of seven nodes exists."""
    with cluster(folder, {"/apis/apps/v1/namespaces/talk/deployments/chat-switchboard": DEPLOYMENT}) as config:
        command = [tool(helm), "install", "chat", CHART, "--namespace", "talk", "--kubeconfig", config]
        return run(*command, "--dry-run=server", "--disable-openapi-validation", *arguments).stdout


@pytest.mark.parametrize("helm", HELMS)
def test_turning_autoscaling_on_keeps_the_number_of_nodes(helm, tmp_path):
    said = install(helm, tmp_path, "--set", "existingSecret=switchboard,autoscaling.enabled=true")
    assert re.findall(r"^  replicas: .*", said, re.MULTILINE) == ["  replicas: 7"]
    assert "seriesQuery: 'switchboard_connections{" in said
    assert "were applied by a Job" in said


@pytest.mark.parametrize("helm", HELMS)
def test_notes_warn_of_secrets_among_the_values(helm, tmp_path):
    said = install(helm, tmp_path, "--values", *SETS["inline"])
    notes = said.partition("NOTES:")[2]
    assert "keeps: DATABASE_URL, JWT_SECRET, PERSONA_WEBHOOK_SECRET, PERSONA_WEBHOOK_URL, REDIS_URL." in notes
    assert "planted-" not in notes
    assert "migrations" not in notes and "each node when it starts" in notes
