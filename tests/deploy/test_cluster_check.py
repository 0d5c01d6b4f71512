"""scripts/cluster-check.sh against stand-ins of kubectl and helm: its order, what it refuses, what fails it, and that
it cleans up. test_cluster_check_load.py has the tests of its load."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from chart.render import HELMS, parse, template
from conftest import ROOT, run, tool

SCRIPT = ROOT / "scripts" / "cluster-check.sh"
STEPS = [
    "make the namespace, Redis and PostgreSQL", "install by the README's lines", "helm test",
    "the network policy closes what it should", "30 users chat", "replace the nodes", "a migration that fails is taken back",
    "kill a node", "the placement of values-ha.yaml", "Redis goes and comes back", "PostgreSQL goes and comes back", "drain a machine",
    "nothing acked is lost, doubled or out of order", "no pod has restarted", "uninstall, and nothing is left",
    "clean up",
]  # fmt: skip


class Check:
    """The script in front of stand-ins."""

    def __init__(self, folder):
        self.folder, self.config = folder, folder / "config"
        self.config.write_text("{}")
        programs = folder / "bin"
        programs.mkdir()
        for name in ("kubectl", "helm"):
            script = f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/deploy/cluster_check/clients.py {name} "$@"\n'
            (programs / name).write_text(script)
        # Waits of the script are short here: nothing in the stand-ins takes time.
        (programs / "sleep").write_text(f"#!/bin/sh\nexec {tool('sleep')} 0.1\n")
        for path in programs.iterdir():
            path.chmod(0o755)
        self.variables = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "TMPDIR": str(folder)}
        self.variables |= {"CLUSTER": str(folder), "KUBECONFIG": str(self.config)}

    def run(self, *arguments, script=SCRIPT, **variables):
        given = {"env": self.variables | variables, "cwd": self.folder, "text": True, "start_new_session": True}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([script, *arguments], **given, **pipes) as process:
            try:
                out, error = process.communicate(timeout=50)
            finally:
                # A script that hangs has children.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        self.done = subprocess.CompletedProcess([script], process.returncode, out, error)
        self.said = self.done.stdout + self.done.stderr
        return self.done.returncode

    def calls(self, *parts):
        """The calls with these words, each as one text."""
        path = self.folder / "calls.jsonl"
        found = [" ".join(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in found if all(part in call for part in parts)]

    def outcomes(self):
        """The outcome of each step in the summary."""
        lines = self.done.stdout.partition("\nSummary:\n")[2].splitlines()
        rows = [re.match(r"  (\S.*?) +(passed|failed|not run|skipped) +\d+s +(.*)", line) for line in lines]
        return {row[1]: (row[2], row[3]) for row in rows if row}

    def state(self):
        return json.loads((self.folder / "state.json").read_text())

    def cleaned(self):
        state = self.state()
        left = [path.name for path in self.folder.iterdir() if path.name.startswith("tmp.")]
        return (state["namespaces"], state["cordoned"], left) == (["default"], [], [])


@pytest.fixture
def check(tmp_path):
    return Check(tmp_path)


def test_everything_passes_in_order(check):
    assert check.run("--image", "images.example.com:5000/chat/switchboard:0.1.0") == 0, check.said
    assert check.outcomes() == dict.fromkeys(STEPS, ("passed", "")), check.said
    assert check.cleaned() and not list(check.folder.glob("cluster-check.*"))
    assert check.config.read_text() == "{}", "the user's configuration is not changed"
    order = [
        "create namespace switchboard-check",
        "create secret generic switchboard --from-literal=REDIS_URL=redis://redis:6379 "
        "--from-literal=DATABASE_URL=postgres://switchboard:change-me@postgres/switchboard "
        "--from-literal=JWT_SECRET=",
        "helm install chat helm/switchboard --wait --set image.repository=images.example.com:5000/chat/switchboard "
        "--set existingSecret=switchboard --timeout 10m --set replicaCount=3 --set config.MESSAGE_RATE_LIMIT=0 "
        "--set-string commonLabels.cluster-check=switchboard-check --set-string image.tag=0.1.0",
        "helm test chat --logs", "exec insider -- python3 -c", "delete --wait -f -", "create configmap load",
        "helm upgrade chat helm/switchboard -n switchboard-check --reset-then-reuse-values "
        "--set-string secretRevision=",
        "--atomic --timeout 5m --set migration.mode=job,migration.backoffLimit=0 --set migration.existingSecret=chat-nowhere",
        "delete secret chat-nowhere", "--grace-period=0 --force",
        "--values helm/switchboard/values-ha.yaml --set replicaCount=3,autoscaling.enabled=false",
        "scale deployment/redis --replicas=0", "scale deployment/redis --replicas=1",
        "scale statefulset/postgres --replicas=0", "scale statefulset/postgres --replicas=1",
        "drain two --pod-selector=cluster-check=switchboard-check,app.kubernetes.io/component=node", "uncordon two",
        "exec load -- touch /tmp/stop", "helm uninstall chat -n switchboard-check --wait",
        "-n switchboard-check delete pod,job,networkpolicy -l app.kubernetes.io/instance=chat --ignore-not-found",
        "delete namespace switchboard-check",
    ]  # fmt: skip
    calls = iter(check.calls())
    for wanted in order:
        assert any(wanted in call for call in calls), f"{wanted}: not called, or not in this place\n{check.said}"
    assert len(check.calls("logs load")) >= 12, "it waits for the load after each disturbance"


def test_values_and_names_of_images_reach_the_cluster(check):
    (check.folder / "more.yaml").write_text("{}")
    digest = "sha256:" + "a" * 64
    more = {"NAMESPACE": "trial", "IMAGE": f"switchboard@{digest}", "REDIS_IMAGE": "redis:8"}
    assert check.run("--values", "more.yaml", "--away", "0", **more) == 0, check.said
    (install,) = check.calls("helm install")
    for part in ("image.repository=switchboard ", f"image.digest={digest}", f"--values {check.folder}/more.yaml"):
        assert part in install
    assert check.calls("create namespace trial") and check.calls("delete namespace trial")


def test_servers_of_the_user_are_used_and_left_alone(check):
    urls = {"REDIS_URL": "redis://:a b@r.example.com", "DATABASE_URL": "postgres://u:p$HOME@d.example.com/chat"}
    assert check.run("--image", "switchboard:1", **urls) == 0, check.said
    (secret,) = check.calls("create secret")
    assert all(f"{name}={value}" in secret for name, value in urls.items()), secret
    assert not any(value in check.said for value in urls.values()), "passwords are not printed"
    assert not check.calls("kubectl scale")
    assert check.outcomes()["Redis goes and comes back"] == ("skipped", "REDIS_URL is yours")
    assert check.outcomes()["PostgreSQL goes and comes back"] == ("skipped", "DATABASE_URL is yours")


REFUSED = {
    "no cluster": (["--image", "a:1"], {"KUBECONFIG": ""}, "KUBECONFIG is not set"),
    "a configuration that is missing": (["--image", "a:1"], {"KUBECONFIG": "/nowhere"}, "kubectl can't read /nowhere"),
    "no image": ([], {}, "no image"),
    "a namespace that exists": (["--image", "a:1", "--namespace", "default"], {}, "the namespace default exists"),
    "no name": (["--image", "a:1", "--namespace", "A b"], {}, "no name of a namespace"),
    "too few users": (["--image", "a:1", "--users", "2"], {}, "--users must be"),
    "a flag that is unknown": (["--imgae", "a:1"], {}, "scripts/cluster-check.sh --image"),
    "one machine": (["--image", "a:1"], {"FAULT": "small"}, "fewer than two machines"),
    "no storage": (["--image", "a:1"], {"FAULT": "classless"}, "no default storage class"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses_before_it_makes_anything(what, check):
    arguments, variables, words = REFUSED[what]
    assert check.run(*arguments, **variables) != 0
    assert words in check.done.stderr, check.said
    assert not check.calls("create") and not check.calls("delete") and not check.calls("apply")
    assert not list(check.folder.glob("cluster-check.*")) and "Summary" not in check.said


FAILURES = {
    "install": ("install by the README's lines", "timed out waiting for the condition"),
    "test": ("helm test", "timed out waiting for the condition"),
    "upgrade": ("replace the nodes", "timed out waiting for the condition"),
    "load": ("replace the nodes", "the load has ended"),
    "shut": ("the network policy closes what it should", "keeps the release's pods from Redis"),
    "lenient": ("a migration that fails is taken back", "an upgrade succeeded although its migration can't"),
    "drain": ("drain a machine", "unable to drain node two"),
    "crowded": ("drain a machine", "there is no machine to drain"),
    "lost": ("nothing acked is lost, doubled or out of order", "acked as seq 7, not in the history"),
    "restart": ("no pod has restarted", "chat-switchboard-2-1 restarted"),
    "uninstall": ("uninstall, and nothing is left", "timed out waiting for the condition"),
    "stays": ("clean up", "the namespace switchboard-check is still there"),
}


@pytest.mark.parametrize("fault", FAILURES)
def test_a_failure_is_named_and_cleaned_up(fault, check):
    step, why = FAILURES[fault]
    assert check.run("--image", "switchboard:1", "--away", "0", FAULT=fault) == 1, check.said
    outcome, said = check.outcomes()[step]
    assert outcome == "failed" and why in said, check.said
    assert check.cleaned() or fault == "stays", check.state()
    (logs,) = check.folder.glob("cluster-check.*")
    assert str(logs) in check.done.stdout and list(logs.iterdir())
    if fault == "install":
        assert {check.outcomes()[name][0] for name in STEPS[2:-1]} == {"not run"}
    if fault in ("test", "upgrade", "drain", "lost"):
        assert check.outcomes()["uninstall, and nothing is left"][0] == "passed", "the steps after it still run"


def test_pods_that_wait_for_a_machine_are_on_none(check):
    """The machine that is drained is one that most nodes are on, and pods without one are many here."""
    assert check.run("--image", "switchboard:1", "--away", "0", FAULT="pending") == 0, check.said
    (drained,) = check.calls("kubectl drain")
    assert drained.startswith("kubectl drain two ")


def test_nodes_on_one_machine_are_not_highly_available(check):
    assert check.run("--image", "switchboard:1", "--away", "0", FAULT="crowded") == 1, check.said
    outcome, why = check.outcomes()["the placement of values-ha.yaml"]
    assert outcome == "failed" and "several nodes are on three" in why, check.said


@pytest.fixture
def fast(check):
    """The script with a faster clock: it waits for minutes until something goes."""
    path = check.folder / "fast.sh"
    text = SCRIPT.read_text().replace("eventually 180 ", "eventually 3 ").replace("eventually 30 ", "eventually 1 ")
    path.write_text(text.replace('cd "$(dirname "$0")/.."', f"cd {ROOT}"))
    path.chmod(0o755)
    return path


def test_a_policy_that_closes_nothing_is_found(check, fast):
    assert check.run("--image", "switchboard:1", "--away", "0", script=fast, FAULT="open") == 1, check.said
    outcome, why = check.outcomes()["the network policy closes what it should"]
    assert outcome == "failed" and "lets the release's pods reach kubernetes.default.svc:443" in why, check.said
    assert check.cleaned()


def test_a_cluster_without_policies_is_no_failure(check, fast):
    assert check.run("--image", "switchboard:1", "--away", "0", script=fast, FAULT="unenforced") == 0, check.said
    outcome, why = check.outcomes()["the network policy closes what it should"]
    assert (outcome, why) == ("skipped", "the network plugin enforces no policies"), check.said
    assert check.outcomes()["30 users chat"][0] == "passed"


def test_what_is_left_is_named(check, fast):
    assert check.run("--image", "switchboard:1", "--away", "0", script=fast, FAULT="left") == 1, check.said
    outcome, why = check.outcomes()["uninstall, and nothing is left"]
    assert outcome == "failed" and "configmap/chat-switchboard-dashboard" in why, check.said
    assert check.cleaned()


def test_an_interrupted_check_cleans_up(check):
    command = [SCRIPT, "--image", "switchboard:1"]
    process = subprocess.Popen(command, env=check.variables | {"FAULT": ""}, stdout=subprocess.PIPE, text=True)
    said = iter(process.stdout.readline, "")
    assert any("── replace the nodes ──" in line for line in said)
    process.terminate()
    assert process.wait(30) == 143
    process.stdout.close()
    assert check.cleaned()


def test_a_check_may_leave_its_namespace(check):
    assert check.run("--image", "switchboard:1", "--away", "0", "--keep") == 0, check.said
    assert check.state()["namespaces"] == ["default", "switchboard-check"]
    assert "kubectl delete namespace switchboard-check" in check.done.stdout


def test_the_real_clients_know_the_flags(check):
    """Every verb and flag of a whole run is one of the real kubectl and of both Helms."""
    assert check.run("--image", "switchboard:1", "--away", "0") == 0, check.said
    used = set()
    for call in check.calls():
        client, *words = call.split(" -- ")[0].split()
        words = words[2:] if words[0] == "-n" else words
        verb = words[:2] if words[0] in ("config", "rollout", "create") else words[:1]
        verb = verb + words[2:3] if verb == ["create", "secret"] else verb
        used |= {(client, *verb, word.split("=")[0]) for word in words if re.match(r"--[a-z]", word)}
    assert len(used) > 20
    kubectl = tool("kubectl")
    helps = {}
    for client, *verb, flag in used:
        for program in HELMS if client == "helm" else [kubectl]:
            path = tool(program) if client == "helm" else program
            key = (path, *verb)
            helps[key] = helps.get(key) or run(path, *verb, "--help").stdout
            # Helm 4 takes the old name and shows the new one.
            flag = "--rollback-on-failure" if (program, flag) == ("helm4", "--atomic") else flag
            assert re.search(rf"{flag}\b", helps[key]), f"{program} {' '.join(verb)} does not know {flag}"


def test_shellcheck_finds_nothing():
    run(tool("shellcheck"), SCRIPT)


@pytest.mark.parametrize("helm", HELMS)
def test_the_chart_puts_the_label_on_everything(helm):
    """The check finds by it what is left, and what restarts."""
    install = SCRIPT.read_text().partition("\ninstall() {")[2].partition("\n}")[0]
    flags = re.findall(r"--set(?:-string)? [\w.]+=[\w.-]+", install)
    label = ["--set-string", "commonLabels.cluster-check=trial"]
    given = [word for flag in flags for word in flag.split()]
    assert len(flags) == 2 and "commonLabels.cluster-check=$namespace" in SCRIPT.read_text()
    found = parse(template(helm, *given, *label, "--set", "existingSecret=switchboard").stdout)
    for document in found.values():
        assert document["metadata"]["labels"]["cluster-check"] == "trial", document
        if pod := document.get("spec", {}).get("template"):
            assert pod["metadata"]["labels"]["cluster-check"] == "trial", document
    service = found["Service", "chat-switchboard"]
    ports = [port["port"] for port in service["spec"]["ports"]]
    text = (SCRIPT.parent / "cluster-check" / "load.yaml").read_text()
    assert [f"ws://chat-switchboard:{port}" for port in ports] == re.findall(r"ws://[\w:-]+", text)
    assert found["Deployment", "chat-switchboard"]["spec"]["replicas"] == 3


@pytest.mark.parametrize("name", ["redis", "postgres", "load", "probe"])
def test_kubernetes_accepts_the_manifests(name, tmp_path):
    text = (SCRIPT.parent / "cluster-check" / f"{name}.yaml").read_text()
    file = tmp_path / "manifests.yaml"
    file.write_text(text)
    run(tool("kubernetes-validate"), "--strict", file)
    for document in yaml.safe_load_all(text):
        pod = document["spec"] if document["kind"] == "Pod" else document["spec"].get("template", {}).get("spec")
        if pod and name != "probe":
            (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            meta = document["metadata"] if document["kind"] == "Pod" else document["spec"]["template"]["metadata"]
            wanted = term["labelSelector"]["matchLabels"]
            assert wanted.items() <= meta["labels"].items(), "the first pod is placed only if it matches its own rule"


def test_what_the_load_imports_is_in_its_config_map():
    folder = Path(SCRIPT.parent / "cluster-check")
    text = SCRIPT.read_text()
    (names,) = re.findall(r"--from-file=scripts/cluster-check/\{([a-z,]+)\}\.py", text)
    assert set(names.split(",")) == {path.stem for path in folder.glob("*.py")}
