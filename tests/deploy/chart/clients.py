"""Stands in for the clients that documents and notes name: kubectl, docker, kind, k3d, websocat, cluster-check. It accepts what the real ones accept of
the commands there, works on the API of `cluster.py`, and refuses what real clients, kubelets and images refuse.

Run as `clients.py NAME ARGUMENT…`.
"""

import argparse
import base64
import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import yaml

KINDS = {
    "deployment": "apis/apps/v1", "deploy": "apis/apps/v1", "service": "api/v1", "svc": "api/v1", "secret": "api/v1",
    "pod": "api/v1", "namespace": "api/v1", "job": "apis/batch/v1", "networkpolicy": "apis/networking.k8s.io/v1",
}  # fmt: skip
LONG = {"deploy": "deployment", "svc": "service"}
PLURAL = {"networkpolicy": "networkpolicies"}
# A user may not listen on lower ports.
LOWEST_PORT = 1024
# A drain leaves room for the nodes of the drained machine.
FEWEST_MACHINES = 3


def refuse(message):
    sys.exit(f"error: {message}")


def api(method, path, body=None):
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text(encoding="utf-8"))
    server = config["clusters"][0]["cluster"]["server"]
    headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server}/{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        refuse(json.load(error)["message"])


def path_of(kind, namespace, name=""):
    if kind not in KINDS:
        refuse(f'the server doesn\'t have a resource type "{kind}"')
    kind_of_api, kind = KINDS[kind], LONG.get(kind, kind)
    place = "" if kind == "namespace" else f"namespaces/{namespace}/"
    return f"{kind_of_api}/{place}{PLURAL.get(kind, kind + 's')}{'/' + name if name else ''}"


def target(text, namespace):
    """The object in TYPE/NAME."""
    kind, slash, name = text.partition("/")
    return api("GET", path_of(kind if slash else "pod", namespace, name or kind))


class Kubectl:
    def __init__(self, words):
        self.parser = argparse.ArgumentParser("kubectl", allow_abbrev=False)
        self.parser.add_argument("-n", "--namespace", default="default")
        known, rest = self.parser.parse_known_args(words[: words.index("--")] if "--" in words else words)
        self.namespace, self.command = known.namespace, words[words.index("--") + 1 :] if "--" in words else None
        if self.namespace != "default":
            api("GET", path_of("namespace", None, self.namespace))
        verb = rest[0].replace("-", "_") if rest else "nothing"
        if not hasattr(self, f"do_{verb}"):
            refuse(f'unknown command "{verb}" for "kubectl"')
        getattr(self, f"do_{verb}")(rest[1:])

    def read(self, words, *arguments, **flags):
        """Positional arguments, and flags with their options for argparse; any other flag is an error."""
        parser = argparse.ArgumentParser("kubectl", allow_abbrev=False)
        for argument in arguments:
            parser.add_argument(argument, **({"nargs": "+"} if argument == "more" else {}))
        for flag, options in flags.items():
            parser.add_argument(f"--{flag.replace('_', '-')}", **options)
        return parser.parse_args(words)

    def make(self, kind, name, **parts):
        api("POST", path_of(kind, self.namespace), {"metadata": {"name": name}} | parts)

    def do_create(self, words):
        kind, *words = words
        if kind == "namespace":
            self.make(kind, self.read(words, "name").name)
        elif kind == "deployment":
            given = self.read(words, "name", image={"required": True})
            labels = {"app": given.name}
            pod = {"containers": [{"name": given.name, "image": given.image}]}
            template = {"metadata": {"labels": labels}, "spec": pod}
            self.make(kind, given.name, spec={"selector": {"matchLabels": labels}, "template": template})
        elif kind == "secret":
            given = self.read(words, "type", "name", from_literal={"action": "append"})
            pairs = dict(literal.split("=", 1) for literal in given.from_literal)
            for name, value in pairs.items():
                if not value or "…" in value or "<" in value:
                    refuse(f"{name} is no value to paste: {value}")
            self.make(kind, given.name, data={n: base64.b64encode(v.encode()).decode() for n, v in pairs.items()})
        else:
            refuse(f'unknown command "create {kind}"')

    def do_expose(self, words):
        given = self.read(words, "kind", "name", port={"type": int, "required": True})
        api("GET", path_of(given.kind, self.namespace, given.name))
        self.make("service", given.name, spec={"ports": [{"port": given.port}], "selector": {"app": given.name}})

    def do_set(self, words):
        given = self.read(words, "what", "target", "more")
        found = target(given.target, self.namespace)
        found["spec"]["template"]["spec"]["containers"][0]["env"] = [
            dict(zip(("name", "value"), pair.split("=", 1), strict=True)) for pair in given.more
        ]
        api("PATCH", path_of(*given.target.split("/")[:1], self.namespace, found["metadata"]["name"]), found)

    def do_wait(self, words):
        parser = argparse.ArgumentParser("kubectl wait", allow_abbrev=False)
        parser.add_argument("kind")
        parser.add_argument("--for", dest="condition", required=True)
        parser.add_argument("--all", action="store_true", required=True)
        parser.add_argument("--timeout", required=True)
        given = parser.parse_args(words)
        wanted = given.condition.removeprefix("condition=")
        for found in api("GET", path_of(given.kind, self.namespace))["items"]:
            if not any(each["type"] == wanted for each in found["status"]["conditions"]):
                refuse("timed out waiting for the condition")

    def do_port_forward(self, words):
        given = self.read(words, "target", "ports")
        local, _, remote = given.ports.partition(":")
        if int(local) < LOWEST_PORT:
            refuse(f"unable to listen on port {local}: listen tcp4 127.0.0.1:{local}: bind: permission denied")
        ports = [port["port"] for port in target(given.target, self.namespace)["spec"]["ports"]]
        if int(remote or local) not in ports:
            refuse(f"Service does not have a service port {remote or local}")

    def do_exec(self, words):
        given = self.read(words, "target")
        pod = target(given.target, self.namespace)["spec"]["template"]["spec"]
        if not self.command:
            refuse("you must specify at least one command for the container")
        if self.command[0] != "switchboard":
            refuse(f'exec: "{self.command[0]}": executable file not found in $PATH')
        assert pod["containers"][0]["name"] == "switchboard"
        if self.command[1] == "token":
            parser = argparse.ArgumentParser("switchboard token", allow_abbrev=False)
            parser.add_argument("--user", required=True)
            print(f"a.token.of-{parser.parse_args(self.command[2:]).user}")

    def do_delete(self, words):
        parser = argparse.ArgumentParser("kubectl delete", allow_abbrev=False)
        parser.add_argument("kinds")
        parser.add_argument("-l", "--selector", required=True)
        parser.add_argument("--ignore-not-found", action="store_true")
        given = parser.parse_args(words)
        for kind in given.kinds.split(","):
            for found in api("GET", f"{path_of(kind, self.namespace)}?labelSelector={given.selector}")["items"]:
                api("DELETE", path_of(kind, self.namespace, found["metadata"]["name"]))


def docker(words):
    if words[:2] == ["compose", "up"]:
        if unknown := set(words[2:]) - {"--build", "--wait"}:
            refuse(f"unknown flag: {unknown.pop()}")
        return Path("compose.yaml").exists() or refuse("no configuration file provided: not found")
    parser = argparse.ArgumentParser("docker", allow_abbrev=False)
    parser.add_argument("verb", choices=["build"])
    parser.add_argument("-t", "--tag")
    parser.add_argument("context")
    given = parser.parse_args(words)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*", given.tag):
        refuse(f'invalid argument "{given.tag}" for "-t, --tag": invalid reference format')
    return (Path(given.context) / "Dockerfile").exists() or refuse("failed to read dockerfile: no such file")


def websocat(words):
    if not re.fullmatch(r"wss?://[\w.:-]+/\S+\?token=\S+", words[-1]):
        refuse(f"{words[-1]}: no URL of a WebSocket with a token")


def options(words, *positional, **flags):
    """The values of flags and positional words; any other flag is an error."""
    parser = argparse.ArgumentParser(sys.argv[1], allow_abbrev=False)
    for word in positional:
        parser.add_argument(word)
    for flag, needed in flags.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", required=needed)
    return parser.parse_args(words)


def kind(words):
    """Its clusters have one machine unless a file names more."""
    match words:
        case ["create", "cluster", *rest]:
            given = options(rest, name=True, config=True, kubeconfig=True)
            roles = [node["role"] for node in yaml.safe_load(Path(given.config).read_text(encoding="utf-8"))["nodes"]]
            if roles.count("control-plane") != 1 or roles.count("worker") < FEWEST_MACHINES:
                refuse(f"{given.config}: {roles}")
            Path(given.kubeconfig).write_text("{}", encoding="utf-8")
        case ["load", "docker-image", *rest]:
            options(rest, "image", name=True)
        case ["delete", "cluster", *rest]:
            Path(options(rest, name=True, kubeconfig=True).kubeconfig).unlink()
        case _:
            refuse(f'unknown command "{" ".join(words)}" for "kind"')


def k3d(words):
    match words:
        case ["cluster", "create", *rest]:
            if int(options(rest, "name", agents=True, kubeconfig_update_default=False).agents) < FEWEST_MACHINES:
                refuse("too few agents")
        case ["kubeconfig", "get", name]:
            print(json.dumps({"current-context": f"k3d-{name}"}))
        case ["image", "import", *rest]:
            options(rest, "image", cluster=True)
        case ["cluster", "delete", name]:
            assert name
        case _:
            refuse(f'unknown command "{" ".join(words)}" for "k3d"')


def cluster_check(words):
    """scripts/cluster-check.sh itself has tests of its own."""
    if not Path(os.environ["KUBECONFIG"]).exists():
        refuse(f"{os.environ['KUBECONFIG']}: no such file")
    options(words, image=True)


if __name__ == "__main__":
    programs = {"kubectl": Kubectl, "docker": docker, "kind": kind, "k3d": k3d, "websocat": websocat}
    (programs | {"cluster-check": cluster_check})[sys.argv[1]](sys.argv[2:])
