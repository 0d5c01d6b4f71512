"""Checks custom resources against the models of their projects: their types (an unknown field is a fault) and their
values."""

import json
import tempfile

import pytest

from conftest import TOOLS, run, tool

MODELS = {
    "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
    "gateway.networking.k8s.io/v1": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1",
}
# Checks the file itself, not the models.
OPTIONS = ["--module", "nodenext", "--target", "es2022", "--strict", "--skipLibCheck", "--types", ""]


def faults(documents):
    """Faults of these resources that the compiler and the models report; empty if there are none."""
    lines = []
    for number, document in enumerate(documents):
        module, kind = MODELS[document["apiVersion"]], document["kind"]
        if not (TOOLS / "node_modules" / "/".join(module.split("/")[:2])).exists():
            pytest.skip(f"{module} is not installed")
        lines += [
            f'import {{ {kind} as Model{number}, type I{kind} as Shape{number} }} from "{module}";',
            f"const resource{number}: Shape{number} = {json.dumps(document)};",
            f"new Model{number}(resource{number}).validate();",
        ]
    # Beside the modules, so that imports find them.
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        with open(f"{folder}/check.mts", "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
        compiled = run(tool("tsc"), *OPTIONS, "check.mts", cwd=folder, check=False)
        if compiled.returncode:
            return compiled.stdout
        return run(tool("node"), "check.mjs", cwd=folder, check=False).stderr
