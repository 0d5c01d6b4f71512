"""The alerts are valid, tested at their thresholds, documented, and use existing metrics."""

import re

import pytest
import yaml
from conftest import ROOT, run, tool

RULES = ROOT / "alerts" / "rules.yaml"
TESTS = sorted((ROOT / "alerts" / "tests").glob("*.yaml"))
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
NAMES = [alert["alert"] for alert in ALERTS]
# A ratio of two small numbers means nothing: these alerts need a floor of traffic.
FLOORED = {
    "SwitchboardDeliverySlow", "SwitchboardSendErrors", "SwitchboardConnectionsCollapsed", "SwitchboardReconnectStorm",
    "SwitchboardAuthFailures", "SwitchboardMessagesDropped",
}


def cases(alert: str) -> list[dict]:
    """The tests of one alert."""
    return [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"] if test["name"] == alert]


def slug(heading: str) -> str:
    return re.sub(r"[^a-z0-9-]", "", heading.lower().replace(" ", "-"))


def test_the_rules_are_valid():
    assert len(set(NAMES)) == len(NAMES)
    run(tool("promtool"), "check", "rules", "--lint-fatal", RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(path):
    run(tool("promtool"), "test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_names_severity_summary_and_runbook(alert):
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["for"]
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    document, anchor = alert["annotations"]["runbook"].split("#")
    headings = [line[3:] for line in (ROOT / document).read_text().splitlines() if line.startswith("## ")]
    assert anchor == slug(alert["alert"]) and anchor in map(slug, headings)


def test_the_runbook_has_exactly_these_alerts():
    headings = [line[3:] for line in (ROOT / "docs" / "operations" / "runbook.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == NAMES


@pytest.mark.parametrize("alert", NAMES)
def test_an_alert_is_tested_before_and_after_its_delay(alert):
    (test,) = cases(alert)
    checks = [
        (check["eval_time"], check.get("exp_samples", check.get("exp_alerts")))
        for kind in ("promql_expr_test", "alert_rule_test")
        for check in test.get(kind, [])
        if alert in str(check)
    ]
    assert [bool(expected) for _, expected in checks] == [False, True], "it must fire after its `for`, not before"
    series = " ".join(one["series"] for one in test["input_series"])
    assert alert not in FLOORED or 'job="quiet"' in series, "it must not fire below the floor"


def test_every_metric_of_the_alerts_exists():
    source = (ROOT / "src" / "metrics.rs").read_text()
    known = {f"switchboard_{name}" for name in re.findall(r'\w+\("([a-z_]+)"', source)}
    known |= {"up", "process_open_fds", "process_max_fds"}
    histograms = {f"{name}{end}" for name in known for end in ("_bucket", "_count", "_sum")}
    for alert in ALERTS:
        used = set(re.findall(r"\b(switchboard_\w+|process_\w+|up)\b", alert["expr"]))
        assert used and used <= known | histograms, f"{alert['alert']}: {used - known - histograms}"
