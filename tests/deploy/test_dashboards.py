"""The dashboards equal the generator's output, match Grafana's own types, and use existing metrics."""

import json
import math
import re
import sys

import pytest
from conftest import ROOT, TOOLS, run, tool

FILES = sorted((ROOT / "dashboards").glob("*.json"))
# Units that Grafana knows; for an unknown unit it shows bare numbers without a warning.
UNITS = {"none", "short", "ops", "s", "bytes", "percentunit", "Bps"}
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}


def panels(board: dict) -> list[dict]:
    """All panels except rows, including those in collapsed rows."""
    every = [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]
    return [panel for panel in every if panel["type"] != "row"]


def test_the_files_equal_the_generators_output():
    assert set(BOARDS) == {"on-call", "capacity"}
    run(sys.executable, ROOT / "scripts" / "dashboards.py", "--check")


@pytest.mark.parametrize("name", BOARDS)
def test_they_match_grafanas_types(name, tmp_path):
    """The board is checked as a literal, because the compiler ignores unknown fields of an imported file."""
    if not (TOOLS / "node_modules" / "@grafana" / "schema").exists():
        pytest.skip("@grafana/schema is not installed")
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    literal = (ROOT / "dashboards" / f"{name}.json").read_text()
    # The types want a number as id; provisioning wants null.
    literal = literal.replace('"id": null', '"id": undefined', 1)
    # JSON has the values of enums, not their names. The type Dashboard accepts anything for the options of a panel.
    panel_types = "@grafana/schema/dist/esm/raw/composable"
    source = f"""import type {{ Dashboard }} from '@grafana/schema';
import type {{ Options as Stat }} from '{panel_types}/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {{ Options as Graph, FieldConfig }} from '{panel_types}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
""" + """
type Json<T> = T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
"""
    stats, graphs = ([panel for panel in panels(BOARDS[name]) if panel["type"] == kind] for kind in ("stat", "timeseries"))
    assert len(stats) + len(graphs) == len(panels(BOARDS[name])), "a kind of panel whose options are not checked"
    literals = {
        "board: Json<Dashboard>": literal,
        "stats: Json<Stat>[]": json.dumps([panel["options"] for panel in stats]),
        "graphs: Json<Graph>[]": json.dumps([panel["options"] for panel in graphs]),
        "customs: Json<FieldConfig>[]": json.dumps([panel["fieldConfig"]["defaults"]["custom"] for panel in graphs]),
    }
    source += "".join(f"export const {typed} = {value};\n" for typed, value in literals.items())
    (tmp_path / "board.ts").write_text(source)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext", "--target", "es2022"]
    run(tool("tsc"), *options, "board.ts", cwd=tmp_path)


@pytest.mark.parametrize("name", BOARDS)
def test_they_can_be_provisioned(name):
    board = BOARDS[name]
    assert board["id"] is None and board["uid"] == f"switchboard-{name}" and board["editable"] is False
    assert 39 <= board["schemaVersion"] <= 41
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["job"]["multi"] and variables["instance"]["multi"]
    every = [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]
    ids = [panel["id"] for panel in every]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_a_title_a_description_and_filtered_queries(name):
    for panel in panels(BOARDS[name]):
        assert panel["title"] and panel["description"].endswith((".", "?")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            assert target["instant"] == (panel["type"] == "stat") != target["range"], "a stat shows the current value, a graph a range"
            assert set(target) == {"refId", "datasource", "expr", "legendFormat", "editorMode", "instant", "range"}
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job=~"$job", instance=~"$instance"' in target["expr"], "the query must filter by the variables"
            assert not re.search(r"rate\([^)]*\[(?!\$__rate_interval\])", target["expr"]), target["expr"]


@pytest.mark.parametrize("name", BOARDS)
def test_no_panels_overlap(name):
    def apart(one, other):
        return (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )

    for group in [BOARDS[name]["panels"], *(row["panels"] for row in BOARDS[name]["panels"] if row.get("panels"))]:
        places = [panel["gridPos"] for panel in group]
        assert all(place["x"] + place["w"] <= 24 for place in places)
        assert all(apart(one, other) for at, one in enumerate(places) for other in places[:at])


def test_the_verdict_comes_first_and_details_are_folded():
    titles = [panel["title"] for panel in BOARDS["on-call"]["panels"] if panel["type"] == "row"]
    folded = [panel["title"] for panel in BOARDS["on-call"]["panels"] if panel.get("collapsed")]
    assert titles == ["Verdict", "Connections", "Messages and delivery", "Redis", "Store", "Auth and limits", "Saturation", "Rollout"]
    assert folded == titles[-3:]


def test_every_metric_of_the_dashboards_exists():
    source = (ROOT / "src" / "metrics.rs").read_text()
    known = {f"switchboard_{name}" for name in re.findall(r'\w+\("([a-z_]+)"', source)}
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_count", "_sum")}
    known |= {f"process_{name}" for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds")}
    for board in BOARDS.values():
        for panel in panels(board):
            for target in panel["targets"]:
                used = set(re.findall(r"\b(?:switchboard|process)_\w+", target["expr"]))
                assert used <= known, f"{panel['title']}: {used - known}"


def test_the_forecast_follows_neither_the_hour_of_the_day_nor_a_rollout(tmp_path):
    """50,000 connections on average, 30,000 more or less with the time of day; their node was replaced 12 hours ago."""
    panel = next(panel for panel in panels(BOARDS["capacity"]) if panel["title"] == "Connections in a week")
    forecast = panel["targets"][0]["expr"].replace("$__interval", "1h").replace("$job", ".*").replace("$instance", ".*")
    load = [round(50_000 + 30_000 * math.sin(hour * math.tau / 24)) for hour in range(14 * 24)]
    before, after = load[:-12], load[-12:]
    series = {"old": [*before, "stale"], "new": [*("_" for _ in before), *after]}
    inputs = [
        {"series": f'switchboard_connections{{job="switchboard", instance="{node}"}}', "values": " ".join(map(str, values))}
        for node, values in series.items()
    ]
    asked = [
        {"expr": f"abs({forecast} - 50000) < bool 25000", "eval_time": f"{hour}h", "exp_samples": [{"labels": "{}", "value": 1}]}
        for hour in range(10 * 24, 14 * 24, 3)
    ]
    tests = {"tests": [{"interval": "1h", "input_series": inputs, "promql_expr_test": asked}]}
    (tmp_path / "forecast.yaml").write_text(json.dumps(tests))
    run(tool("promtool"), "test", "rules", tmp_path / "forecast.yaml")


def test_the_runbook_names_existing_panels():
    text = " ".join((ROOT / "docs" / "operations" / "runbook.md").read_text().split())
    titles = {panel["title"] for panel in panels(BOARDS["on-call"])} | {row["title"] for row in BOARDS["on-call"]["panels"]}
    named = {name for group in re.findall(r"[Pp]anels? (\*[^.;:]*\*)", text) for name in re.findall(r"\*([^*]+)\*", group)}
    assert named and named <= titles, named - titles
