"""Stands in for kubectl and helm under scripts/cluster-check.sh: keeps the objects of a cluster in a file, records each
call, and refuses arguments that it does not know. FAULT names what goes wrong in the cluster.

Run as `clients.py NAME ARGUMENT…`, with the folder of the state in CLUSTER.
"""

import argparse
import fcntl
import json
import os
import re
import sys
from pathlib import Path

FOLDER, FAULT = Path(os.environ["CLUSTER"]), os.environ.get("FAULT", "")
MACHINES = ["control", "one", "two", "three"]
RESOURCES = {
    True: ["configmaps", "events", "pods", "secrets", "statefulsets.apps", "pods.metrics.k8s.io"],
    False: ["nodes", "namespaces"],
}
VERDICT = {
    "ok": {"verdict": "ok", "acked": 9, "counts": {}, "violations": []},
    "lost": {
        "verdict": "failed", "acked": 9, "counts": {"lost": 1},
        "violations": [{"kind": "lost", "client_id": "u1-7", "text": "acked as seq 7, not in the history"}],
    },
}  # fmt: skip


def refuse(message):
    sys.exit(f"error: {message}")


def field(value, path):
    """The values at a path of a JSONPath: names and [*]."""
    values = [value]
    for part in re.findall(r"[^.\[\]]+(?=[.\[]|$)|\[\*\]", path):
        found = []
        for each in values:
            found += each if part == "[*]" else [each[part]] if part in each else []
        values = found
    return " ".join(str(each) for each in values)


def jsonpath(template, value):
    """A template with ranges over items, texts and paths, and the filter for the default storage class."""
    if "?(" in template:
        return "standard"
    repeated = re.fullmatch(r"\{range \.items\[\*\]\}(.*)\{end\}", template)
    rows = value["items"] if repeated else [value]
    parts = re.findall(r"\{([^}]*)\}|([^{}]+)", repeated[1] if repeated else template)
    text = ""
    for row in rows:
        for path, literal in parts:
            text += literal or (json.loads(path) if path.startswith('"') else field(row, path))
    return text


class Cluster:
    def __init__(self):
        # Before the lock: what writes there may call another client.
        self.input = sys.stdin.read() if "-f" in sys.argv else ""
        self.lock = (FOLDER / "lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        path = FOLDER / "state.json"
        empty = {"namespaces": ["default"], "objects": {}, "acks": 0, "made": 0, "cordoned": [], "stopped": False}
        self.state = json.loads(path.read_text()) if path.exists() else empty

    def save(self):
        (FOLDER / "state.json").write_text(json.dumps(self.state))

    @property
    def objects(self):
        return self.state["objects"]

    def put(self, kind, name, labels=None, **parts):
        if kind != "pod" and f"{kind}/{name}" in self.objects:
            refuse(f'{kind} "{name}" already exists')
        metadata = {"name": name, "labels": labels or {}}
        self.objects[f"{kind}/{name}"] = {"metadata": metadata, "spec": {}, "status": {}} | parts

    def pod(self, name, labels, machine, restarts=0):
        status = {"phase": "Running", "containerStatuses": [{"restartCount": restarts}]}
        self.put("pod", name, labels, spec={"nodeName": machine}, status=status)

    def chosen(self, kinds, selector):
        wanted = dict(pair.split("=") for pair in selector.split(",")) if selector else {}
        return {
            name: found for name, found in self.objects.items()
            if name.split("/")[0] in kinds and wanted.items() <= found["metadata"]["labels"].items()
        }  # fmt: skip

    def nodes(self, labels):
        """Replaces the nodes of the release by new ones, on machines that take pods."""
        for name in self.chosen(["pod"], "app.kubernetes.io/component=node"):
            del self.objects[name]
        free = [each for each in MACHINES[1:] if each not in self.state["cordoned"]]
        free = ["three"] if FAULT == "crowded" else free
        self.state["made"] += 1
        for number in range(3):
            restarts = int(FAULT == "restart" and self.state["made"] == 2 and number == 1)
            labels = labels | {"app.kubernetes.io/component": "node"}
            machine = free[number % len(free)]
            if FAULT == "pending":
                machine = ["", "", "two"][number]
            self.pod(f"chat-switchboard-{self.state['made']}-{number}", labels, machine, restarts)

    def labels(self):
        return next(iter(self.chosen(["pod"], "app.kubernetes.io/component=node").values()))["metadata"]["labels"]

    def acks(self):
        if FAULT == "load" and self.state["made"] > 1:
            return json.dumps(VERDICT["lost"])
        if self.state["stopped"]:
            return json.dumps(VERDICT["lost" if FAULT == "lost" else "ok"])
        if "pod/postgres-0" in self.objects or "statefulset/postgres" not in self.objects:
            self.state["acks"] += 1
        return f"progress acked={self.state['acks'] * 30} least={self.state['acks']} connected=30/30"


class Kubectl(Cluster):
    def run(self, words):
        verb, *rest = words
        if verb == "-n":
            verb, *rest = rest[1:]
        if not hasattr(self, f"do_{verb.replace('-', '_')}"):
            refuse(f'unknown command "{verb}" for "kubectl"')
        getattr(self, f"do_{verb.replace('-', '_')}")(rest)

    def read(self, words, *arguments, **flags):
        parser = argparse.ArgumentParser("kubectl", allow_abbrev=False)
        for argument in arguments:
            parser.add_argument(argument, nargs="?" if argument == "name" else None)
        for flag, kind in flags.items():
            names = [f"-{flag}"] if len(flag) == 1 else [f"--{flag.replace('_', '-')}"]
            action = {bool: "store_true", list: "append"}.get(kind)
            parser.add_argument(*names, **({"action": action} if action else {"type": kind}))
        return parser.parse_args(words)

    def do_config(self, words):
        if words[0] == "view":
            self.read(words[1:], raw=bool, flatten=bool, minify=bool)
            if not Path(os.environ["KUBECONFIG"]).exists():
                refuse(f"{os.environ['KUBECONFIG']}: no such file")
            return print(json.dumps({"current-context": "check"}))
        given = self.read(words[1:], current=bool, namespace=str)
        config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
        Path(os.environ["KUBECONFIG"]).write_text(json.dumps(config | {"namespace": given.namespace}))

    def do_get(self, words):
        given = self.read(words, "kind", "name", l=str, o=str, ignore_not_found=bool, sort_by=str)
        kinds = [kind.removesuffix(".apps").removesuffix("s") for kind in given.kind.split(",")]
        if kinds == ["namespace"]:
            return print(f"namespace/{given.name}" if given.name in self.state["namespaces"] else "", end="")
        if kinds == ["node"] and given.o.startswith("jsonpath"):
            taints = {"control": [{"effect": "NoSchedule"}]}
            names = MACHINES[:2] if FAULT == "small" else MACHINES
            found = {"items": [{"metadata": {"name": n}, "spec": {"taints": taints.get(n, [])}} for n in names]}
        elif given.name:
            found = self.objects.get(f"{kinds[0]}/{given.name}") or refuse(f'{kinds[0]} "{given.name}" not found')
        else:
            found = self.chosen(kinds, given.l)
            if given.o == "name":
                return print("\n".join(found))
            found = {"items": list(found.values())}
        kind, _, template = given.o.partition("=") if given.o else ("", "", "")
        if kind == "jsonpath":
            sys.stdout.write("" if FAULT == "classless" and "?(" in template else jsonpath(template, found))

    def do_create(self, words):
        kind, *rest = words
        if kind == "namespace":
            self.state["namespaces"].append(self.read(rest, "place").place)
        elif kind == "secret":
            given = self.read(rest, "type", "name", from_literal=list)
            self.put("secret", given.name, data=dict(pair.split("=", 1) for pair in given.from_literal))
        else:
            given = self.read(rest, "name", from_file=list)
            if missing := [path for path in given.from_file if not Path(path).exists()]:
                refuse(f"{missing}: no such file")
            self.put(kind, given.name)

    def do_apply(self, words):
        import yaml  # the other commands start faster without it

        self.read(words, f=str)
        for document in yaml.safe_load_all(self.input):
            kind, name = document["kind"].lower(), document["metadata"]["name"]
            if left := re.findall(r"@[A-Z_]+@", json.dumps(document)):
                refuse(f"{left} is no value")
            if kind == "pod":
                self.pod(name, document["metadata"]["labels"], "three")
            else:
                self.put(kind, name, spec=document["spec"])
            if kind in ("deployment", "statefulset"):
                self.pod(f"{name}-0", {"app": name}, "three")

    def do_rollout(self, words):
        given = self.read(words, "what", "target", timeout=str)
        if given.target not in (*self.objects, "deployment/chat-switchboard"):
            refuse(f"{given.target} not found")

    def do_wait(self, words):
        parser = argparse.ArgumentParser("kubectl wait", allow_abbrev=False)
        parser.add_argument("--for", dest="what", choices=["condition=Ready"])
        parser.add_argument("--timeout")
        if parser.parse_known_args(words)[1][0] not in self.objects:
            refuse("not found")

    def do_logs(self, words):
        given = self.read(words, "name", l=str, tail=int, prefix=bool)
        print(self.acks() if given.name == "load" else "a log")

    def do_exec(self, words):
        if words[1:4] == ["--", "python3", "-c"]:
            return self.connect(words[0], *re.search(r"\('([^']+)', (\d+)\)", words[4]).groups())
        assert words == ["load", "--", "touch", "/tmp/stop"]
        self.state["stopped"] = True
        self.objects["pod/load"]["status"]["phase"] = "Failed" if FAULT == "lost" else "Succeeded"

    def connect(self, pod, host, port):
        """What the network policies leave of the network: the chart's, and that for pods with a label of the check."""
        labels = self.objects[f"pod/{pod}"]["metadata"]["labels"]
        ours = "app.kubernetes.io/name" in labels and (host, port) != ("redis", "6379") and FAULT != "open"
        closed = "cluster-check-closed" in labels or ours or FAULT == "shut" and pod == "insider"
        if closed and FAULT != "unenforced":
            refuse("TimeoutError: timed out")

    def do_label(self, words):
        given = self.read(words, "kind", "name", "pair")
        name, value = given.pair.split("=")
        self.objects[f"{given.kind}/{given.name}"]["metadata"]["labels"][name] = value

    def do_scale(self, words):
        given = self.read(words, "target", replicas=int)
        name = given.target.split("/")[1]
        if given.replicas:
            self.pod(f"{name}-0", {"app": name}, "three")
        else:
            del self.objects[f"pod/{name}-0"]

    def do_drain(self, words):
        flags = {"pod_selector": str, "ignore_daemonsets": bool, "delete_emptydir_data": bool, "timeout": str}
        given = self.read(words, "machine", **flags)
        self.state["cordoned"].append(given.machine)
        if FAULT == "drain":
            self.save()
            refuse(f"unable to drain node {given.machine}: timed out")
        self.nodes(self.labels())

    def do_uncordon(self, words):
        self.state["cordoned"].remove(self.read(words, "machine").machine)

    def do_delete(self, words):
        if "-f" in words:
            import yaml

            self.read(words, f=str, wait=bool)
            for document in yaml.safe_load_all(self.input):
                del self.objects[f"{document['kind'].lower()}/{document['metadata']['name']}"]
            return
        flags = {"l": str, "wait": bool, "timeout": str, "ignore_not_found": bool, "force": bool, "grace_period": int}
        given = self.read(words, "kind", "name", **flags)
        if given.name and given.kind != "namespace":
            old = self.objects.pop(f"{given.kind}/{given.name}", None) or refuse(f'"{given.name}" not found')
            if given.kind == "pod" and given.force:
                self.pod(f"{given.name}-again", old["metadata"]["labels"], old["spec"]["nodeName"])
            return
        if given.kind == "namespace":
            if FAULT == "stays":
                refuse("timed out waiting for the condition")
            self.state["namespaces"].remove(given.name)
            self.objects.clear()
        for name in self.chosen(given.kind.split(","), given.l):
            del self.objects[name]

    def do_api_resources(self, words):
        given = self.read(words, verbs=str, namespaced=str, o=str)
        print("\n".join(RESOURCES[given.namespaced == "true"]))


class Helm(Cluster):
    def run(self, words):
        parser = argparse.ArgumentParser("helm", allow_abbrev=False)
        parser.add_argument("verb", choices=["install", "upgrade", "test", "uninstall"])
        parser.add_argument("release")
        parser.add_argument("chart", nargs="?")
        for flag in ("--wait", "--logs", "--reset-then-reuse-values", "--atomic"):
            parser.add_argument(flag, action="store_true")
        for flag in ("-n", "--timeout"):
            parser.add_argument(flag)
        for flag in ("--set", "--set-string", "--values"):
            parser.add_argument(flag, action="append", default=[])
        given = parser.parse_args(words)
        if FAULT == given.verb:
            refuse(f"{given.verb}: timed out waiting for the condition")
        if given.verb == "install":
            pairs = dict(pair.split("=", 1) for pair in given.set + given.set_string)
            labels = {"cluster-check": pairs["commonLabels.cluster-check"], "app.kubernetes.io/instance": given.release}
            self.nodes(labels)
            self.put("secret", f"sh.helm.release.v1.{given.release}.v1")
        elif given.verb == "upgrade":
            if "migration.existingSecret=chat-nowhere" in given.set and FAULT != "lenient":
                assert given.atomic and "secret/chat-nowhere" in self.objects
                refuse("pre-upgrade hooks failed: job chat-switchboard-migrate failed: BackoffLimitExceeded")
            self.nodes(self.labels())
        elif given.verb == "test":
            labels = {"app.kubernetes.io/instance": given.release}
            self.pod("chat-switchboard-test-check", labels, "one")
        elif given.verb == "uninstall":
            for name in self.chosen(["pod"], "app.kubernetes.io/component=node"):
                del self.objects[name]
            del self.objects[f"secret/sh.helm.release.v1.{given.release}.v1"]
            if FAULT == "left":
                self.put("configmap", "chat-switchboard-dashboard")


if __name__ == "__main__":
    cluster = {"kubectl": Kubectl, "helm": Helm}[sys.argv[1]]()
    with (FOLDER / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    cluster.run(sys.argv[2:])
    cluster.save()
