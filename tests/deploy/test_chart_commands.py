"""Every command of the chart's README, of the deployment documents and of the chart's notes, run as pasted: Helm itself, in both
versions, and stand-ins for the other clients, against an API without a cluster."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from chart.cluster import cluster, helm_in
from chart.render import CHART, HELMS, IMAGE, SETS
from conftest import ROOT, run, tool

PAGES = ["docs/operations/deploy.md", "helm/switchboard/README.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(params=HELMS)
def shell(request, tmp_path):
    """Runs lines of a shell in a folder like the repository, with the clients in front of a cluster."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "helm").symlink_to(tool(request.param))
    folder = tmp_path / "repository"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts/cluster-check").symlink_to(ROOT / "scripts/cluster-check")
    places = {name: bin_folder / name for name in ("kubectl", "docker", "kind", "k3d", "websocat")}
    for name, path in (places | {"cluster-check": folder / "scripts/cluster-check.sh"}).items():
        script = f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "chart/clients.py"} {name} "$@"\n'
        path.write_text(script)
        path.chmod(0o755)
    for name in ("helm", "Dockerfile", "compose.yaml"):
        (folder / name).symlink_to(ROOT / name)
    with cluster(tmp_path) as state:
        state.put("create", ("v1", "Namespace", None, "talk"), {})
        variables = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path), "KUBECONFIG": str(state.config)}

        def start(text, check=True):
            return run("bash", "-euo", "pipefail", "-c", text, cwd=folder, env=variables, check=check)

        start.cluster, start.folder, start.helm = state, folder, request.param
        yield start


def blocks(path, kind):
    return [text for found, text in BLOCK.findall((ROOT / path).read_text()) if found == kind]


def yours(path):
    """The values file that a page shows."""
    return "".join(text for text in blocks(path, "yaml") if text.startswith("image:"))


@pytest.mark.parametrize("path", PAGES)
def test_the_documents_commands_run_as_pasted(path, shell):
    """`yours.yaml` has the values that the page shows for it."""
    (shell.folder / "yours.yaml").write_text(yours(path))
    said = "".join(shell(block).stdout for block in blocks(path, "sh"))
    assert "log of check" in said and "log of service" in said
    if path.endswith("deploy.md"):
        left = {name for name in shell.cluster.kept() if "switchboard" in name} - {"ReplicaSet/chat-switchboard-1"}
        assert left == {"Secret/switchboard"}, "the page ends with the removal of the release"


def test_the_repositorys_readme_deploys(shell):
    (shell.folder / "yours.yaml").write_text(yours(PAGES[0]))
    shell.cluster.put("create", ("v1", "Secret", "default", "switchboard"), {"data": {}})
    (block,) = (block for block in blocks("README.md", "sh") if "helm install" in block)
    assert "STATUS: deployed" in shell(block).stdout


def test_what_the_removal_leaves_after_a_failed_upgrade(shell):
    removal = blocks(PAGES[0], "sh")[-1].replace("-n chat", "-n talk")
    assert removal.startswith("helm uninstall")
    shell.cluster.put("create", ("v1", "Secret", "talk", "switchboard"), {"data": {}})
    install = "helm upgrade --install chat helm/switchboard -n talk --set image.repository=x,existingSecret=switchboard --timeout 20s"
    shell(install)
    shell.cluster.failing.add("chat-switchboard-migrate")
    assert shell(install, check=False).returncode != 0
    shell(removal)
    left = {name for name in shell.cluster.kept() if "switchboard" in name} - {"ReplicaSet/chat-switchboard-1"}
    assert left == {"Secret/switchboard"}


@pytest.mark.parametrize("name", ["minimal", "everything", "by-hand", "inline"])
def test_the_notes_commands_run_as_pasted(name, shell):
    state = shell.cluster
    for secret in ("switchboard", "owner-of-the-tables", "keys"):
        state.put("create", ("v1", "Secret", "talk", secret), {"data": {}})
    files = [part for path in SETS[name] for part in ("--values", path)]
    helm_in(state, shell.helm, "install", "chat", CHART, *IMAGE, *files, "--timeout", "20s")
    notes = helm_in(state, shell.helm, "get", "notes", "chat").stdout
    commands = re.findall(r"`(helm [^`]+)`", notes) + re.findall(r"(?<!`)\bkubectl .*", notes)
    assert [command.split()[0] for command in commands] == ["helm", "kubectl", "kubectl"]
    for command in commands:
        shell(command)


def test_inline_commands_of_the_documents_are_ones_that_clients_know():
    """Commands in the text, not in a block: their verbs and flags exist in both Helms."""
    for path in PAGES:
        for command in re.findall(r"`(helm [a-z]+[^`]*)`", (ROOT / path).read_text()):
            verb, *words = command.split()[1:]
            if "--force-conflicts" in words:
                # Only Helm 4 has such conflicts.
                assert "--force-conflicts" in run(tool("helm4"), verb, "--help").stdout
                words.remove("--force-conflicts")
            for helm in HELMS:
                known = run(tool(helm), verb, "--help").stdout
                for flag in (word.split("=")[0] for word in words if word.startswith("--")):
                    assert flag in known, f"{helm}: {command}"


REFUSED = {
    "a port that needs root": ("kubectl -n talk port-forward service/a 80", "permission denied"),
    "a port that the Service lacks": ("kubectl -n talk port-forward service/a 8000:81", "does not have a service port"),
    "a shell in the image": ("kubectl -n talk exec deploy/a -- sh", "executable file not found"),
    "a placeholder": ("kubectl create secret generic a --from-literal=REDIS_URL=redis://…", "no value to paste"),
    "a missing namespace": ("kubectl -n nowhere delete pod -l a=b", '"nowhere" not found'),
    "a misspelt verb": ("kubectl -n talk port-foward service/a 8000", "unknown command"),
    "a misspelt flag": ("kubectl -n talk expose deployment a --prot=80", "--port"),
    "the logs of one of two containers": ("helm test b -n talk --logs", "container name must be specified"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_stand_ins_refuse_what_real_clients_refuse(what, shell):
    if "two containers" in what and shell.helm != "helm3":
        pytest.skip("Helm 4 asks for each container's log")
    shell("kubectl -n talk create deployment a --image=a && kubectl -n talk expose deployment a --port=80")
    chart = shell.folder / "two"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: two, version: 1.0.0}")
    pod = {"containers": [{"name": "one", "image": "x"}, {"name": "two", "image": "x"}]}
    metadata = {"name": "test", "annotations": {"helm.sh/hook": "test"}}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
    (chart / "templates/test.yaml").write_text(yaml.safe_dump(manifest))
    shell("helm install b two -n talk --timeout 20s")
    command, words = REFUSED[what]
    done = shell(command, check=False)
    assert done.returncode != 0 and words in done.stderr, done.stdout + done.stderr
