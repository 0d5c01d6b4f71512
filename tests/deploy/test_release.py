"""The release: its workflow is valid, its scripts run, and the published chart names its image and its repository."""

import os
import re
import tarfile

import pytest
import yaml

from chart.render import HELMS
from conftest import ROOT, run, tool

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
IMAGE, URL = "ghcr.io/owner/switchboard", "https://github.com/owner/switchboard"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_valid(path):
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", path)
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        for step in job["steps"]:
            run("bash", "-n", "-c", re.sub(r"\$\{\{.*?\}\}", "x", step.get("run", "")))


def test_the_release_has_only_the_rights_that_it_needs():
    assert RELEASE["permissions"] == {}
    image, publish = RELEASE["jobs"]["image"], RELEASE["jobs"]["publish"]
    assert image["permissions"] == {"contents": "read", "packages": "write"}
    assert publish["permissions"] == image["permissions"] | {"id-token": "write"}
    assert RELEASE[True] == {"push": {"tags": ["v*"]}}, "it runs for tags alone"


def test_both_image_and_chart_are_signed_by_digest():
    script = "\n".join(step.get("run", "") for step in RELEASE["jobs"]["publish"]["steps"])
    assert re.findall(r"cosign sign --yes \"(.*)\"", script) == ["$image@$digest", "$OWNER/charts/switchboard@$digest"]
    built = {each["architecture"] for each in RELEASE["jobs"]["image"]["strategy"]["matrix"]["include"]}
    assert built == {"amd64", "arm64"} == set(re.findall(r"\$VERSION-(\w+)", script))


def test_a_tag_that_is_not_the_version_ends_the_release(tmp_path):
    (step,) = (step for step in RELEASE["jobs"]["image"]["steps"] if step.get("id") == "names")
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    (tmp_path / "git").write_text("#!/bin/sh\n[ \"$*\" = 'merge-base --is-ancestor abc origin/main' ]\n")
    (tmp_path / "git").chmod(0o755)
    for tag, code in ((f"v{version}", 0), ("v9.9.9", 1), (version, 1)):
        given = {"GITHUB_REF_NAME": tag, "GITHUB_SHA": "abc", "GITHUB_REPOSITORY_OWNER": "Owner"}
        given |= {"GITHUB_OUTPUT": str(tmp_path / "output"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = run("bash", "-eo", "pipefail", "-c", step["run"], cwd=ROOT, env=given, check=False)
        assert (done.returncode != 0) == bool(code), tag
    assert (tmp_path / "output").read_text() == f"version={version}\nowner=ghcr.io/owner\n"


@pytest.mark.parametrize("helm", HELMS)
def test_the_published_chart_names_its_image_and_its_repository(helm, tmp_path):
    run(ROOT / "scripts/package-chart.sh", IMAGE, f"{URL}/", tmp_path, env=os.environ | {"HELM": tool(helm)})
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        chart = yaml.safe_load(archive.extractfile("switchboard/Chart.yaml").read())
        values = yaml.safe_load(archive.extractfile("switchboard/values.yaml").read())
    assert (chart["home"], chart["sources"]) == (URL, [URL])
    icon = chart["icon"].removeprefix(f"{URL}/raw/v{chart['version']}/")
    assert (ROOT / icon).is_file()
    (listed,) = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert listed["image"] == f"{IMAGE}:{chart['appVersion']}"
    assert values["image"]["repository"] == IMAGE
    rendered = run(tool(helm), "template", "chat", package, "--set", "existingSecret=s").stdout
    assert f'image: "{IMAGE}:{chart["appVersion"]}"' in rendered
    run(tool(helm), "lint", "--strict", package, "--set", "existingSecret=s")
