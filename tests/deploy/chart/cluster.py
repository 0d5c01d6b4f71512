"""The part of a Kubernetes API that Helm uses in a dry run: discovery of kinds, and the given objects."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Kinds of the chart, by group and version.
KINDS = {
    "v1": ["Service", "Secret", "ServiceAccount", "ConfigMap", "Pod"],
    "apps/v1": ["Deployment"],
    "batch/v1": ["Job"],
    "policy/v1": ["PodDisruptionBudget"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
}


def plural(kind):
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}{'es' if kind.endswith('s') else 's'}"


def discovery():
    """Discovery documents of the API, by path."""
    groups = sorted({version.split("/")[0] for version in KINDS if "/" in version})
    pages = {
        "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    }
    for group in groups:
        names = [v for v in KINDS if v.startswith(f"{group}/")]
        versions = [{"groupVersion": name, "version": name.split("/")[1]} for name in names]
        pages["/apis"]["groups"].append({"name": group, "versions": versions, "preferredVersion": versions[0]})
    for version, kinds in KINDS.items():
        path = f"/api/{version}" if version == "v1" else f"/apis/{version}"
        common = {"namespaced": True, "verbs": ["get"]}
        resources = [{"name": plural(kind.lower()), "kind": kind} | common for kind in kinds]
        pages[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return pages


@contextmanager
def cluster(folder, objects):
    """Serves the API, with `objects` by path; yields the path of a kubeconfig for it."""
    pages = discovery() | objects

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = pages.get(self.path.split("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            text = json.dumps(body or missing).encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        config = folder / "kubeconfig"
        config.write_text(
            json.dumps({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
                "current-context": "c",
            })
        )
        yield config
    finally:
        server.shutdown()
        server.server_close()
