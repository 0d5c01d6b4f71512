"""The dashboards: what the generator writes, sound by Grafana's own types, and about metrics that there are."""

import json
import re
import sys

import pytest
from conftest import ROOT, TOOLS, run, tool

FILES = sorted((ROOT / "dashboards").glob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}


def panels(board: dict) -> list[dict]:
    """All panels but rows, those of collapsed rows among them."""
    every = [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]
    return [panel for panel in every if panel["type"] != "row"]


def test_they_are_what_is_generated():
    assert set(BOARDS) == {"on-call", "capacity"}
    run(sys.executable, ROOT / "scripts" / "dashboards.py", "--check")


@pytest.mark.parametrize("name", BOARDS)
def test_they_are_of_grafanas_types(name, tmp_path):
    """As a literal: of an imported file the compiler would not say what is unknown in it."""
    if not (TOOLS / "node_modules" / "@grafana" / "schema").exists():
        pytest.skip("@grafana/schema is not installed")
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    literal = (ROOT / "dashboards" / f"{name}.json").read_text()
    # An id is a number to the types, and null to whoever provisions.
    literal = literal.replace('"id": null', '"id": undefined', 1)
    # JSON has the values of enums, not their names.
    source = """import type { Dashboard } from '@grafana/schema';
type Json<T> = T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
"""
    (tmp_path / "board.ts").write_text(f"{source}export const board: Json<Dashboard> = {literal};\n")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext", "--target", "es2022"]
    run(tool("tsc"), *options, "board.ts", cwd=tmp_path)


@pytest.mark.parametrize("name", BOARDS)
def test_they_are_made_to_be_provisioned(name):
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
def test_every_panel_says_what_it_shows(name):
    for panel in panels(BOARDS[name]):
        assert panel["title"] and panel["description"].endswith((".", "?")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job=~"$job", instance=~"$instance"' in target["expr"], "the variables choose"
            assert not re.search(r"rate\([^)]*\[(?!\$__rate_interval\])", target["expr"]), target["expr"]


@pytest.mark.parametrize("name", BOARDS)
def test_nothing_overlaps(name):
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


def test_every_metric_is_there():
    source = (ROOT / "src" / "metrics.rs").read_text()
    known = {f"switchboard_{name}" for name in re.findall(r'\w+\("([a-z_]+)"', source)}
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_count", "_sum")}
    for board in BOARDS.values():
        for panel in panels(board):
            for target in panel["targets"]:
                used = set(re.findall(r"\bswitchboard_\w+", target["expr"]))
                assert used <= known, f"{panel['title']}: {used - known}"


def test_the_runbook_speaks_of_panels_that_there_are():
    text = " ".join((ROOT / "docs" / "runbook.md").read_text().split())
    titles = {panel["title"] for panel in panels(BOARDS["on-call"])} | {row["title"] for row in BOARDS["on-call"]["panels"]}
    named = {name for group in re.findall(r"[Pp]anels? (\*[^.;:]*\*)", text) for name in re.findall(r"\*([^*]+)\*", group)}
    assert named and named <= titles, named - titles
