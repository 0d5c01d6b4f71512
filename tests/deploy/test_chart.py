"""The chart renders with both Helms, and Kubernetes accepts the result."""

import tarfile
import tomllib

import pytest
import yaml

from chart.models import MODELS, faults
from chart.render import CHART, HELMS, SETS, of_kind, parse, resources, template, text
from conftest import ROOT, run, tool

# The oldest version that the chart supports, one in between, the newest known to the validator.
KUBERNETES = ["1.27", "1.32", "1.37"]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", SETS)
def test_every_set_renders(name, helm):
    """Both Helms render the same."""
    assert resources(name, helm) == resources(name)
    assert all(line == line.rstrip() for line in text(name, helm).splitlines())


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", ["minimal", "ha", "inline", "everything"])
def test_lint(name, helm):
    files = [part for path in SETS[name] for part in ("--values", path)]
    run(tool(helm), "lint", "--strict", CHART, *files)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_resource(version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for name in SETS:
        for (kind, resource), document in resources(name).items():
            if document["apiVersion"] in MODELS:
                continue
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{name}: {kind} {resource}: {error.message}") from None


def test_custom_resources_match_their_projects_models():
    custom = [d for name in SETS for d in resources(name).values() if d["apiVersion"] in MODELS]
    assert {d["kind"] for d in custom} == {"HTTPRoute", "ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert not (said := faults(custom)), said


def test_faults_in_custom_resources_are_found():
    (monitor,) = of_kind("monitoring", "ServiceMonitor")
    misspelt = monitor | {"spec": monitor["spec"] | {"endpoint": []}}
    assert "'endpoint'" in faults([misspelt]).replace('"', "")
    wrong = monitor | {"spec": monitor["spec"] | {"endpoints": [{"port": "metrics", "interval": "15 s"}]}}
    assert "spec/endpoints/0/interval" in faults([wrong])


def test_the_charts_versions_are_the_programs_version():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_readme_and_schema_are_current():
    run(tool("python"), ROOT / "scripts" / "chart-docs.py", "--check")


@pytest.mark.parametrize("helm", HELMS)
def test_the_package_is_complete(helm, tmp_path):
    """It contains alerts and dashboards, and renders like the folder."""
    run(tool(helm), "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        held = {member.name: member for member in archive.getmembers()}
        assert all(member.isfile() for member in held.values())
        alerts = archive.extractfile("switchboard/files/alerts.yaml").read()
        assert alerts == (ROOT / "alerts" / "rules.yaml").read_bytes()
        for path in (ROOT / "dashboards").glob("*.json"):
            assert archive.extractfile(f"switchboard/files/dashboards/{path.name}").read() == path.read_bytes()
    files = [part for path in SETS["ha"] for part in ("--values", path)]
    assert parse(template(helm, *files, chart=package).stdout) == resources("ha")


@pytest.mark.parametrize("helm", HELMS)
def test_it_renders_as_a_dependency_of_an_umbrella_chart(helm, tmp_path):
    """A parent passes `global`, and `enabled` if that is the dependency's condition."""
    parent = tmp_path / "suite"
    (parent / "templates").mkdir(parents=True)
    dependency = {"name": "switchboard", "version": "*", "alias": "chat", "condition": "chat.enabled"}
    dependency["repository"] = f"file://{CHART}"
    description = {"apiVersion": "v2", "name": "suite", "version": "1.0.0", "dependencies": [dependency]}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(description))
    image = {"repository": "switchboard"}
    chat = {"enabled": True, "existingSecret": "switchboard", "image": image}
    values = {"global": {"region": "north", "imageRegistry": "mirror.example.com"}, "chat": chat}
    (parent / "values.yaml").write_text(yaml.safe_dump(values))
    run(tool(helm), "dependency", "update", "--skip-refresh", parent)
    rendered = parse(template(helm, chart=parent).stdout)
    (container,) = rendered["Deployment", "chat"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("mirror.example.com/switchboard:")
    off = template(helm, "--set", "chat.enabled=false", chart=parent).stdout
    assert parse(off) == {}
