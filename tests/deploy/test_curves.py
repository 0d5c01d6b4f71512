"""The picture of the benchmark's curves: a valid SVG that names each curve and the exponents of its costs."""

import json
import sys
from xml.etree import ElementTree

from conftest import ROOT, run

SCRIPT = ROOT / "scripts" / "curves.py"


def line(what: str, points: list, drawn: bool = True) -> dict:
    fields = {"unit": "µs", "work": 1.0, "exponent": 0.97, "last_exponent": 1.0}
    return {"what": what, "points": points, "drawn": drawn, **fields}


def texts(svg: str) -> list[str]:
    return [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_it_draws_every_curve(tmp_path):
    lines = [
        line("a message <and> its deliveries", [[10, 50.0], [1000, 4800.0]]),
        line("latency", [[10, 1.0], [1000, 1.1]], drawn=False),
        line("measured once", [[10, 0.0], [1000, 1.1]]),
    ]
    curves = [{"name": "members", "size": "members of a room", "lines": lines, "notes": []}]
    curves += [{"name": name, "size": f"many {name}", "lines": lines[:1], "notes": []} for name in ("nodes", "novel")]
    (tmp_path / "curves.json").write_text(json.dumps({"curves": curves}))
    run(sys.executable, SCRIPT, tmp_path / "curves.json", tmp_path / "growth.svg")
    shown = texts((tmp_path / "growth.svg").read_text())
    assert [title for title in ("Members of a room", "Nodes", "novel") if title not in shown] == []
    assert [size for size in ("members of a room", "many nodes", "many novel", "10", "1k") if size not in shown] == []
    assert shown.count("a message <and> its deliveries") == shown.count("0.97 (work 1)") == 3
    assert "latency" not in shown and "measured once" not in shown


def test_it_says_how_to_measure_first(tmp_path):
    done = run(sys.executable, SCRIPT, tmp_path / "none.json", tmp_path / "growth.svg", check=False)
    assert done.returncode == 1 and "--only growth" in done.stderr and not (tmp_path / "growth.svg").exists()


def test_the_page_shows_the_picture():
    assert "](growth.svg)" in (ROOT / "docs" / "operations" / "scaling.md").read_text()
    shown = texts((ROOT / "docs" / "operations" / "growth.svg").read_text())
    titles = ("Members of a room", "Conversations of a node", "Connections", "Nodes", "Entries of a log", "Conversations of a user")
    assert [title for title in titles if title not in shown] == []
