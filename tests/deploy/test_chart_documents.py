"""Every block of YAML in the documents that shows values of the chart is accepted by the chart."""

import re

import pytest
import yaml

from chart.render import CHART, HELMS, with_values
from conftest import ROOT

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def shown():
    """The values in each block, by page and line. Resources and the rules of prometheus-adapter are none."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "helm").rglob("*.md")]
    for page in pages:
        text = page.read_text()
        for block in BLOCK.finditer(text):
            place = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}"
            for document in yaml.safe_load_all(block[1]):
                if document.get("kind") == "HelmRelease":
                    yield place, document["spec"]["values"]
                elif "apiVersion" not in document and document.keys() != {"rules"}:
                    yield place, document


SHOWN = dict(shown())


def test_the_documents_show_values():
    pages = {place.split(":")[0] for place in SHOWN}
    assert {"docs/operations/deploy.md", "helm/switchboard/README.md"} <= pages and len(SHOWN) >= 5


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("place", SHOWN)
def test_shown_values_are_accepted(place, helm):
    values = SHOWN[place]
    assert values.keys() <= VALUES.keys(), place
    assert "kind: Deployment" in with_values(helm, {"existingSecret": "switchboard"} | values).stdout


def test_a_flux_release_has_the_time_that_a_rollout_needs_and_leaves_the_number_of_nodes_alone():
    text = (ROOT / "docs/operations/deploy.md").read_text()
    (release,) = (d for block in BLOCK.findall(text) for d in yaml.safe_load_all(block) if d.get("kind") == "HelmRelease")
    assert f"--atomic --timeout {release['spec']['timeout']}\n" in text
    (ignored,) = release["spec"]["driftDetection"]["ignore"]
    assert ignored == {"paths": ["/spec/replicas"], "target": {"kind": "Deployment"}}
