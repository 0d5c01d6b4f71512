"""Renders the chart: each set of values once per Helm, for all tests."""

import functools
import json
import tempfile
from pathlib import Path

import yaml

from conftest import ROOT, run, tool

CHART = ROOT / "helm" / "switchboard"
HELMS = ["helm3", "helm4"]
SETS = {path.stem: [path] for path in sorted((Path(__file__).parent / "sets").glob("*.yaml"))}
SETS["ha"] = [CHART / "values-ha.yaml", *SETS["minimal"]]


# Every installation names its image.
IMAGE = ["--values", Path(__file__).parent / "image.yaml"]


def template(helm, *arguments, chart=CHART, release="chat", namespace="talk", check=True):
    return run(tool(helm), "template", release, chart, "--namespace", namespace, *IMAGE, *arguments, check=check)


@functools.cache
def text(name, helm="helm3"):
    files = [part for path in SETS[name] for part in ("--values", path)]
    return template(helm, *files).stdout


@functools.cache
def resources(name, helm="helm3"):
    """The resources of a set, by kind and name."""
    return parse(text(name, helm))


class Strict(yaml.SafeLoader):
    """Refuses a key that a map has twice, as Kubernetes does."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys} {node.start_mark}"
        return super().construct_mapping(node, deep)


def parse(manifest):
    found = {}
    for document in yaml.load_all(manifest, Strict):  # noqa: S506
        if document:
            key = (document["kind"], document["metadata"]["name"])
            assert key not in found, f"{key} is rendered twice"
            found[key] = document
    return found


def of_kind(name, kind):
    return [document for (k, _), document in resources(name).items() if k == kind]


def one(name, kind):
    (document,) = of_kind(name, kind)
    return document


def pods(name):
    """All pod templates and pods: (resource, labels, spec)."""
    for (kind, _), document in resources(name).items():
        if kind == "Pod":
            yield document, document["metadata"]["labels"], document["spec"]
        elif kind in ("Deployment", "Job"):
            template = document["spec"]["template"]
            yield document, template["metadata"]["labels"], template["spec"]


def environment(container):
    """Variables by name: their value, or its source."""
    pairs = [(entry["name"], entry.get("value", entry.get("valueFrom"))) for entry in container.get("env", [])]
    assert len(pairs) == len(dict(pairs)), "a variable is set twice"
    return dict(pairs)


def node(name):
    """The container of the nodes."""
    containers = one(name, "Deployment")["spec"]["template"]["spec"]["containers"]
    (container,) = (container for container in containers if container["name"] == "switchboard")
    return container


def refusal(helm, values):
    """Error of Helm for these values, which it must refuse."""
    done = with_values(helm, values, check=False)
    assert done.returncode != 0, f"{values} were accepted"
    return done.stderr


def with_values(helm, values, check=True, **where):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        # JSON keeps texts apart from numbers for every reader.
        json.dump(values, file)
        file.flush()
        return template(helm, "--values", file.name, check=check, **where)


def rendered(values, helm="helm4", **where):
    """The resources for these values, by kind and name."""
    return parse(with_values(helm, {"existingSecret": "switchboard"} | values, **where).stdout)
