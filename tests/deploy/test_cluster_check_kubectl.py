"""What scripts/cluster-check.sh asks the cluster, with the real kubectl in front of an API that only lists objects:
stand-ins can't tell whether kubectl reads the script's templates and flags as the script means them."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import ROOT, run, tool

SCRIPT = (ROOT / "scripts" / "cluster-check.sh").read_text()
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
LABELS = {"cluster-check": "trial", "app.kubernetes.io/component": "node"}


def thing(name, labels=None, annotations=None, spec=None, status=None):
    metadata = {"name": name, "labels": labels or {}, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": spec or {}, "status": status or {}}


def pod(name, machine, *restarts, phase="Running", labels=LABELS):
    status = {"phase": phase, "containerStatuses": [{"restartCount": each} for each in restarts]}
    return thing(name, labels, None, {"nodeName": machine}, status)


# By group and version: kind, whether it is in namespaces, and the objects.
OBJECTS = {
    "v1": {
        "Node": (False, [
            thing("control", spec={"taints": [{"effect": "NoSchedule"}]}), thing("one"),
            thing("two", spec={"unschedulable": True}),
            thing("three", spec={"taints": [{"effect": "PreferNoSchedule"}]}),
        ]),
        "Pod": (True, [pod("a", "one", 0, 2), pod("b", "three", 0), pod("c", "one", phase="Failed")]),
        "Secret": (True, [thing("switchboard")]),
        "Event": (True, [thing("e", LABELS)]),
        "Namespace": (False, [thing("trial")]),
    },
    "storage.k8s.io/v1": {"StorageClass": (False, [thing("slow"), thing("standard", annotations=DEFAULT)])},
}  # fmt: skip


def plural(kind):
    return kind.lower() + ("es" if kind.endswith("s") else "s")


def page(path, selector):
    """The answer to a request: discovery, or a list."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        version = {"groupVersion": "storage.k8s.io/v1", "version": "v1"}
        group = {"name": "storage.k8s.io", "versions": [version], "preferredVersion": version}
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}
    for version, kinds in OBJECTS.items():
        base = "/api/v1" if version == "v1" else f"/apis/{version}"
        if path == base:
            verbs = ["get", "list"]
            resources = [
                {"name": plural(kind), "singularName": kind.lower(), "kind": kind, "namespaced": inside, "verbs": verbs}
                for kind, (inside, _) in kinds.items()
            ]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        for kind, (_, objects) in kinds.items():
            if re.fullmatch(rf"{base}/(namespaces/\w+/)?{plural(kind)}", path):
                wanted = dict(pair.split("=") for pair in selector.split(",")) if selector else {}
                found = [each for each in objects if wanted.items() <= each["metadata"]["labels"].items()]
                items = [{"apiVersion": version, "kind": kind} | each for each in found]
                return {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": items}
            if path == f"{base}/{plural(kind)}/trial":
                return {"apiVersion": version, "kind": kind} | objects[0]
    return None


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urlsplit(self.path)
        found = page(asked.path, parse_qs(asked.query).get("labelSelector", [""])[0])
        body = json.dumps(found or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def api():
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Runs a line with the functions of the script."""
    folder = tmp_path_factory.mktemp("kubectl")
    (folder / "kubectl").symlink_to(tool("kubectl"))
    # Between these headings the script only defines functions.
    (functions,) = re.findall(r"^# ── Tools of the steps ──\n(.*)^# ── The run ──", SCRIPT, re.DOTALL | re.MULTILINE)
    functions += "\n".join(re.findall(r"^fail\(\) .*", SCRIPT, re.MULTILINE))
    names = {"NODES": "cluster-check=trial,app.kubernetes.io/component=node", "SELECTOR": "cluster-check=trial"}
    with api() as url:
        cluster = {"name": "c", "cluster": {"server": url}}
        context = {"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "trial"}}
        config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "c", "user": {}}]}
        config |= {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
        (folder / "config").write_text(json.dumps(config))
        variables = names | {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "work": str(folder)}
        variables |= {"KUBECONFIG": str(folder / "config")}

        def ask(line, check=True):
            text = f"{functions}\n{line}"
            return run("bash", "-euo", "pipefail", "-c", text, env=variables, check=check).stdout

        ask.folder = folder
        yield ask


def test_the_machines_that_take_pods(asked):
    assert asked("machines").split() == ["one"], "a machine that takes pods reluctantly is none to rely on"


def test_the_default_storage_class(asked):
    assert asked("storage_class") == "standard\n"


def test_pods_and_their_restarts(asked):
    rows = [line.split() for line in asked("pods").splitlines()]
    assert rows == [["a", "Running", "0", "2"], ["b", "Running", "0"], ["c", "Failed"]]
    assert asked("nodes .spec.nodeName").split() == ["one", "three", "one"]
    assert asked("nodes .metadata.name").split() == ["a", "b", "c"]


def test_a_pod_that_restarted_or_failed_is_found(asked):
    (asked.folder / "pods").write_text("gone Running 1\n")
    done = asked("restarts 2>&1", check=False)
    assert done == "cluster-check: a restarted, c failed, gone restarted\n", "pods that are gone by now count too"


def test_no_pod_is_gone_that_is_there(asked):
    assert asked("gone cluster-check=other && echo gone") == "gone\n"
    assert asked("gone cluster-check=trial || echo there") == "there\n"
    assert asked("none_of $'x\\ny' && echo none") == "none\n"
    assert asked("none_of $'b\\nx' || echo some") == "some\n"
    broken = "KUBECONFIG=/nowhere"
    assert asked(f"{broken}; gone a=b 2>/dev/null || none_of b 2>/dev/null || echo unknown") == "unknown\n"


def test_what_is_left_is_found_among_all_kinds(asked):
    assert set(asked("kinds true").strip().split(",")) == {"pods", "secrets"}, "events go by themselves"
    assert set(asked("kinds false").strip().split(",")) == {"namespaces", "nodes", "storageclasses.storage.k8s.io"}
    asked("nothing_left || true")
    assert (asked.folder / "why").read_text() == ": pod/a, pod/b, pod/c\n"


def test_an_empty_cluster_has_nothing_left(asked):
    asked("SELECTOR=cluster-check=other; nothing_left")
    broken = asked("KUBECONFIG=/nowhere; nothing_left 2>/dev/null || echo unknown", check=False)
    assert broken != "", "a list that fails is no list"


def test_a_namespace_is_found(asked):
    ask = "kubectl get namespace {} --ignore-not-found -o name"
    assert ask.format('"$namespace"') in SCRIPT
    assert asked(ask.format("trial")) == "namespace/trial\n"
    assert asked(ask.format("other")) == ""
