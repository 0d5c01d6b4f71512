"""A Kubernetes API without a cluster: enough of it that both Helms install, upgrade, test, roll back and remove a release with
their real waits. Pods run nothing; they fail where a real kubelet would not start them (a missing Secret) or where a test says.
"""

import json
import re
import threading
import uuid
from collections import namedtuple
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import yaml

from chart import protobuf
from chart.render import CHART, IMAGE
from conftest import run, tool

# Kinds of the chart and of the documents' commands, by group and version.
KINDS = {
    "v1": ["Service", "Secret", "ServiceAccount", "ConfigMap", "Pod", "Namespace"],
    "apps/v1": ["Deployment", "ReplicaSet"],
    "batch/v1": ["Job"],
    "policy/v1": ["PodDisruptionBudget"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
    "monitoring.coreos.com/v1": ["ServiceMonitor", "PodMonitor", "PrometheusRule"],
    "gateway.networking.k8s.io/v1": ["HTTPRoute"],
}

Request = namedtuple("Request", "version kind namespace name part")


def plural(kind):
    low = kind.lower()
    return f"{low[:-1]}ies" if re.search("[^aeiou]y$", low) else f"{low}{'es' if low.endswith('s') else 's'}"


def base(version):
    return f"/api/{version}" if version == "v1" else f"/apis/{version}"


def discovery():
    """Discovery documents of the API, by path; those of OpenAPI say only that the server validates fields itself."""
    groups = sorted({version.split("/")[0] for version in KINDS if "/" in version})
    pages = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/openapi/v3": {"paths": {}},
    }
    for group in groups:
        names = [v for v in KINDS if v.startswith(f"{group}/")]
        versions = [{"groupVersion": name, "version": name.split("/")[1]} for name in names]
        pages["/apis"]["groups"].append({"name": group, "versions": versions, "preferredVersion": versions[0]})
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    for version, kinds in KINDS.items():
        resources = [
            {"name": plural(kind), "kind": kind, "namespaced": kind != "Namespace", "verbs": verbs} for kind in kinds
        ]
        pages[base(version)] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        group, _, name = version.rpartition("/")
        paths = {}
        for kind in kinds:
            gvk = {"group": group, "version": name, "kind": kind}
            action = {"parameters": [{"name": "fieldValidation", "in": "query"}], "x-kubernetes-group-version-kind": gvk}
            paths[f"{base(version)}/{plural(kind)}"] = {"post": action, "patch": action, "put": action}
        pages["/openapi/v3"]["paths"][base(version)[1:]] = {"serverRelativeURL": f"/openapi/v3{base(version)}?hash=1"}
        pages[f"/openapi/v3{base(version)}"] = {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}
    return pages


PAGES = discovery()


class Refusal(Exception):
    """An answer with an error: code, reason and message."""

    def __init__(self, code, reason, message=""):
        super().__init__(message)
        self.status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
        self.status["message"] = message or reason


def merged(old, patch):
    """A merge patch; lists of objects with names are merged by name, as the strategic patch does for containers."""
    if isinstance(patch, dict):
        new = dict(old) if isinstance(old, dict) else {}
        for key, value in patch.items():
            if key.startswith("$"):
                continue
            if value is None:
                new.pop(key, None)
            else:
                new[key] = merged(new.get(key), value)
        return new
    named = isinstance(patch, list) and patch and all(isinstance(item, dict) and "name" in item for item in patch)
    if named and isinstance(old, list) and all(isinstance(item, dict) and "name" in item for item in old):
        found = {item["name"]: item for item in old}
        for item in patch:
            if item.get("$patch") == "delete":
                found.pop(item["name"], None)
            else:
                found[item["name"]] = merged(found.get(item["name"]), item)
        return list(found.values())
    return patch


def selects(selector, labels):
    """A label selector as text: `a=b,c in (d,e),f`."""
    for term in re.findall(r"[^,(]+(?:\([^)]*\))?", selector or ""):
        if found := re.fullmatch(r"\s*(\S+) (not)?in \(([^)]*)\)", term):
            if (labels.get(found[1]) in found[3].split(",")) == bool(found[2]):
                return False
        elif found := re.fullmatch(r"([^=!]+)(!?)==?(.*)", term.strip()):
            if (labels.get(found[1]) == found[3]) == bool(found[2]):
                return False
        elif term.strip() not in labels:
            return False
    return True


class Cluster:
    """The objects, and what happened to them: `log` holds (verb, kind, name) of each change."""

    def __init__(self):
        self.objects, self.events, self.log = {}, [], []
        self.changed = threading.Condition(threading.RLock())
        self.failing, self.stopped = set(), False

    def kept(self, *kinds):
        """Names of the objects of these kinds, or of all but Helm's own records."""
        return sorted(
            f"{kind}/{name}" for _, kind, _, name in self.objects if kind in kinds or not kinds and "helm.release" not in name
        )

    def find(self, kind, name):
        return next((o for (_, k, _, n), o in self.objects.items() if (k, n) == (kind, name)), None)

    def put(self, verb, key, obj):
        with self.changed:
            old = self.objects.get(key)
            metadata = obj.setdefault("metadata", {})
            metadata["namespace"], metadata["name"] = key[2], key[3]
            metadata["uid"] = old["metadata"]["uid"] if old else str(uuid.uuid4())
            metadata["generation"] = metadata.get("generation", 0) + 1
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            metadata["resourceVersion"] = str(len(self.events) + 1)
            obj["apiVersion"], obj["kind"] = key[0], key[1]
            self.run(obj)
            self.objects[key] = obj
            self.log.append((verb, key[1], key[3]))
            self.events.append(("MODIFIED" if old else "ADDED", key, json.loads(json.dumps(obj))))
            self.changed.notify_all()
            return obj

    def scale(self, name, nodes):
        """What an autoscaler does to a Deployment: it changes the number, and owns it alone."""
        with self.changed:
            (key,) = [key for key in self.objects if (key[1], key[3]) == ("Deployment", name)]
            obj = json.loads(json.dumps(self.objects[key]))
            obj["spec"]["replicas"] = nodes
            for each in obj["metadata"].setdefault("managedFields", [entry("helm", "Update", ["replicas", "template"])]):
                each["fieldsV1"]["f:spec"].pop("f:replicas", None)
            others = [each for each in obj["metadata"]["managedFields"] if each.get("subresource") != "scale"]
            scaled = entry("kube-controller-manager", "Update", ["replicas"], subresource="scale")
            obj["metadata"]["managedFields"] = [*others, scaled]
            self.put("scale", key, obj)

    def delete(self, key):
        with self.changed:
            obj = self.objects.pop(key)
            self.log.append(("delete", key[1], key[3]))
            self.events.append(("DELETED", key, obj))
            self.changed.notify_all()
            return obj

    def run(self, obj):
        """What controllers and kubelets do, at once."""
        kind, metadata, spec = obj["kind"], obj["metadata"], obj.get("spec", {})
        if kind == "Service":
            spec.setdefault("clusterIP", "10.0.0.1")
        elif kind == "Deployment":
            count = spec.setdefault("replicas", 1)
            obj["status"] = {f"{each}eplicas": count for each in ("r", "readyR", "updatedR", "availableR")}
            done = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
            obj["status"] |= {"conditions": [{"type": "Available", "status": "True"}, done]}
            obj["status"]["observedGeneration"] = metadata["generation"]
            owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
            replica_set = {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": f"{metadata['name']}-1",
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"] + "-1",
                    "labels": spec["template"]["metadata"]["labels"],
                    "ownerReferences": [owner | {"controller": True}],
                },
                "spec": {"replicas": count, "selector": spec["selector"], "template": spec["template"]},
                "status": {"replicas": count, "readyReplicas": count},
            }
            key = ("apps/v1", "ReplicaSet", metadata["namespace"], replica_set["metadata"]["name"])
            self.objects[key] = replica_set
        elif kind in ("Job", "Pod"):
            pod = spec["template"]["spec"] if kind == "Job" else spec
            why = self.obstacle(metadata, pod)
            if kind == "Job":
                ended = {"type": "Failed" if why else "Complete", "status": "True", "reason": why or ""}
                obj["status"] = {"conditions": [ended], "failed" if why else "succeeded": 1}
            else:
                ended = {"type": "Ready", "status": "False", "reason": "PodCompleted"}
                obj["status"] = {"phase": "Failed" if why else "Succeeded", "conditions": [ended], "reason": why or ""}

    def obstacle(self, metadata, pod):
        """Why this pod fails, if it does."""
        if metadata["name"] in self.failing:
            return "Error"
        needed = [pod.get("serviceAccountName", "default")]
        if needed != ["default"] and not self.find("ServiceAccount", needed[0]):
            return f"serviceaccount {needed[0]} not found"
        for volume in pod.get("volumes", []):
            for source in volume.get("projected", {}).get("sources", []):
                if (secret := source.get("secret")) and not self.find("Secret", secret["name"]):
                    return f"secret {secret['name']} not found"
        return None


def parse_path(path):
    """What a path names, or None."""
    for version, kinds in KINDS.items():
        if not path.startswith(base(version) + "/"):
            continue
        parts = path[len(base(version)) + 1 :].split("/")
        namespace = None
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        for kind in kinds:
            if parts[0] == plural(kind):
                rest = [*parts[1:], None, None][:2]
                return Request(version, kind, namespace, *rest)
    return None


def entry(manager, operation, fields, **more):
    """An item of managedFields for fields of a spec."""
    owned = {"f:spec": {f"f:{field}": {} for field in fields}}
    return {"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": owned} | more


def ownership(spec, old, force):
    """Who owns a Deployment's fields after an apply of this spec by Helm, which gets the number of nodes that it then has."""
    fields = (old or {"metadata": {}})["metadata"].get("managedFields", [])
    scaled = [each for each in fields if each.get("subresource") == "scale"]
    applied = any(each["operation"] == "Apply" and "f:replicas" in each["fieldsV1"]["f:spec"] for each in fields)
    if old and "replicas" in spec and scaled and spec["replicas"] != old["spec"]["replicas"]:
        if not force:
            message = 'Apply failed with 1 conflict: conflict with "kube-controller-manager" with subresource "scale": .spec.replicas'
            raise Refusal(409, "Conflict", message)
        scaled = []
    ours = [entry("helm", "Apply", [field for field in ("replicas", "template") if field in spec])]
    if old and "replicas" not in spec and (scaled or not applied):
        spec["replicas"] = old["spec"]["replicas"]
    return ours + scaled


def handler(cluster):
    class Api(BaseHTTPRequestHandler):
        def answer(self, code, body, text=False):
            data = body.encode() if text else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if text else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self):
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return protobuf.secret(data) if data.startswith(protobuf.MAGIC) else yaml.safe_load(data or b"null")

        def do(self):
            url = urlsplit(self.path)
            self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
            try:
                if self.command == "GET" and url.path in PAGES:
                    return self.answer(200, PAGES[url.path])
                if (wanted := parse_path(url.path)) is None:
                    raise Refusal(404, "NotFound")
                key = (wanted.version, wanted.kind, wanted.namespace, wanted.name)
                with cluster.changed:
                    if wanted.name and self.command != "PATCH" and key not in cluster.objects:
                        raise Refusal(404, "NotFound", f'{plural(wanted.kind)} "{wanted.name}" not found')
                return getattr(self, f"handle_{self.command.lower()}")(wanted, key)
            except Refusal as refusal:
                return self.answer(refusal.status["code"], refusal.status)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        def handle_get(self, wanted, key):
            if wanted.part == "log":
                return self.answer(200, self.logs(cluster.objects[key]), text=True)
            if wanted.name:
                return self.answer(200, cluster.objects[key])
            if self.query.get("watch"):
                return self.watch(wanted)
            with cluster.changed:
                items = [o for k, o in cluster.objects.items() if self.matches(wanted, k, o)]
                listed = {"resourceVersion": str(len(cluster.events))}
            return self.answer(
                200, {"kind": f"{wanted.kind}List", "apiVersion": wanted.version, "metadata": listed, "items": items}
            )

        def logs(self, pod):
            names = [container["name"] for container in pod["spec"]["containers"]]
            if len(names) > 1 and "container" not in self.query:
                name = pod["metadata"]["name"]
                message = f"a container name must be specified for pod {name}, choose one of: {names}"
                raise Refusal(400, "BadRequest", message)
            return f"log of {self.query.get('container', names[0])}\n"

        def matches(self, wanted, key, obj):
            fields = dict(term.split("=") for term in filter(None, self.query.get("fieldSelector", "").split(",")))
            return (
                key[:2] == (wanted.version, wanted.kind)
                and wanted.namespace in (None, key[2])
                and fields.get("metadata.name") in (None, key[3])
                and selects(self.query.get("labelSelector"), obj["metadata"].get("labels", {}))
            )

        def watch(self, wanted):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            with cluster.changed:
                since = self.query.get("resourceVersion", "0")
                position = int(since) if since not in ("", "0") else len(cluster.events)
                first = [o for k, o in cluster.objects.items() if self.matches(wanted, k, o)]
            try:
                if since in ("", "0") or self.query.get("sendInitialEvents"):
                    for obj in first:
                        self.send("ADDED", obj)
                if self.query.get("sendInitialEvents"):
                    end = {"resourceVersion": str(position), "annotations": {"k8s.io/initial-events-end": "true"}}
                    self.send("BOOKMARK", {"kind": wanted.kind, "apiVersion": wanted.version, "metadata": end})
                while not cluster.stopped:
                    with cluster.changed:
                        cluster.changed.wait_for(lambda: cluster.stopped or len(cluster.events) > position, timeout=1)
                        news, position = cluster.events[position:], len(cluster.events)
                    for kind, key, obj in news:
                        if self.matches(wanted, key, obj):
                            self.send(kind, obj)
            except OSError:
                pass

        def send(self, kind, obj):
            self.wfile.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
            self.wfile.flush()

        def handle_post(self, wanted, _):
            obj = self.body()
            key = (wanted.version, wanted.kind, wanted.namespace, obj["metadata"]["name"])
            if key in cluster.objects:
                raise Refusal(409, "AlreadyExists", f'{plural(wanted.kind)} "{key[3]}" already exists')
            self.answer(201, obj if "dryRun" in self.query else cluster.put("create", key, obj))

        def handle_put(self, _, key):
            self.answer(200, cluster.put("update", key, self.body()))

        def handle_patch(self, wanted, key):
            patch, old = self.body(), cluster.objects.get(key)
            if "apply-patch" in self.headers["Content-Type"]:
                return self.apply(key, patch, old)
            if old is None:
                raise Refusal(404, "NotFound", f'{plural(wanted.kind)} "{wanted.name}" not found')
            return self.answer(200, cluster.put("patch", key, merged(old, patch)))

        def apply(self, key, given, old):
            """Server-side apply. Of a Deployment it knows who owns `replicas`: what Helm gave before and gives no more goes to its
            default, unless somebody else owns it; a number that somebody else has changed is a conflict."""
            force = self.query.get("force") == "true"
            if old:
                given["metadata"]["generation"] = old["metadata"]["generation"]
            if key[1] == "Deployment":
                given["metadata"]["managedFields"] = ownership(given["spec"], old, force)
            self.answer(200, given if "dryRun" in self.query else cluster.put("patch" if old else "create", key, given))

        def handle_delete(self, wanted, key):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(200, cluster.delete(key))

        def log_message(self, *_):
            pass

    return Api


@contextmanager
def cluster(folder):
    """Serves the API; yields the Cluster, whose `config` is a kubeconfig for it."""
    state = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.config = folder / "kubeconfig"
    state.config.write_text(
        json.dumps({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "", "namespace": "default"}}],
            "current-context": "c",
        })
    )
    try:
        yield state
    finally:
        with state.changed:
            state.stopped = True
            state.changed.notify_all()
        server.shutdown()
        server.server_close()


def helm_in(state, helm, *words, check=True, namespace="talk"):
    """Runs Helm against this cluster."""
    command = [tool(helm), *words, "--namespace", namespace, "--kubeconfig", state.config]
    return run(*command, check=check, env={"HOME": str(state.config.parent), "PATH": "/usr/bin:/bin"})


def dry_run(helm, folder, values):
    """Manifests and notes of an installation with these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    with cluster(folder) as state:
        return helm_in(state, helm, "install", "chat", CHART, *IMAGE, "--values", file, "--dry-run=server").stdout
