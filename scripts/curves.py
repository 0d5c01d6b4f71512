#!/usr/bin/env python3
"""Draws docs/operations/growth.svg: the curves of `make bench BENCH="--only growth"`, one panel for each.

    make bench BENCH="--only growth" && scripts/curves.py [target/curves.json [docs/operations/growth.svg]]

Both axes are logarithmic, and each cost is shown as a multiple of what it is at the smallest size, so that its slope is
the exponent by which it grows: flat costs do not grow, and costs along the grey diagonal grow with the size.
"""

import html
import json
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "target" / "curves.json"
PICTURE = ROOT / "docs" / "operations" / "growth.svg"

TITLES = {
    "members": "Members of a room",
    "followed": "Conversations of a node",
    "connections": "Connections",
    "nodes": "Nodes",
    "log": "Entries of a log",
    "users": "Conversations of a user",
}
COLUMNS, WIDTH, GAP = 2, 430, 24
# Parts of a panel: the frame of the plot, and what is around it.
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT, AXIS = 58, 40, 356, 210, 46
FONT, SMALL, ROW = 15, 13, 20
# Colours of lines in light and in dark, told apart by their markers too.
COLOURS = [("#0969da", "#58a6ff"), ("#bc4c00", "#ffa657"), ("#1a7f37", "#56d364"), ("#8250df", "#d2a8ff"), ("#bf3989", "#ff9bce"), ("#6e5600", "#e3b341")]
STYLE = """
    .ground { fill: #ffffff } text { fill: #1f2328 } .quiet { fill: #59636e } .rule { stroke: #d1d9e0 } .guide { stroke: #818b98 }
    %s
    @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #f0f6fc } .quiet { fill: #9198a1 } .rule { stroke: #2f353d } .guide { stroke: #6e7681 }
    %s
    }
"""


def number(value: float) -> str:
    """A size or a multiple as an axis shows it: 10,000 as 10k."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def drawn(curve: dict) -> list[dict]:
    """The lines to draw, with costs as multiples of the first one; a cost too small to be measured is left out."""
    lines = []
    for line in curve["lines"]:
        points = [(size, cost) for size, cost in line["points"] if cost > 0]
        if line["drawn"] and len(points) > 1:
            lines.append({**line, "points": [(size, cost / points[0][1]) for size, cost in points]})
    return lines


def exponents(line: dict) -> str:
    """The exponent of a cost and that of its work; one that rounds to 0 has no sign."""
    return f"{round(line['exponent'], 2) + 0.0:.2f} (work {line['work']:g})".replace("-", "−")


def marker(kind: int, x: float, y: float) -> str:
    shapes = {
        0: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>',
        1: f'<rect x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6"/>',
        2: f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 7.6h-8.8z"/>',
        3: f'<path d="M{x:.1f} {y - 4.8:.1f}l4.8 4.8l-4.8 4.8l-4.8 -4.8z"/>',
    }
    return shapes[kind % len(shapes)]


def text(x: float, y: float, words: str, size: int = SMALL, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{more}>{html.escape(words)}</text>\n'


def panel(curve: dict, left: float, top: float) -> str:
    lines = drawn(curve)
    sizes = sorted({size for line in lines for size, _ in line["points"]})
    costs = [cost for line in lines for _, cost in line["points"]]
    low, high = math.floor(math.log10(min(costs)) - 0.15), math.ceil(math.log10(max(costs)) + 0.15)
    # Else a flat line would look steep.
    low, high = min(low, -1), max(high, 1)
    first, span = math.log10(sizes[0]), math.log10(sizes[-1] / sizes[0])

    def place(size: float, cost: float) -> tuple[float, float]:
        x = (math.log10(size) - first) / span
        y = (high - math.log10(cost)) / (high - low)
        return left + LEFT + 12 + x * (PLOT_WIDTH - 24), top + TOP + y * PLOT_HEIGHT

    right, bottom = left + LEFT + PLOT_WIDTH, top + TOP + PLOT_HEIGHT
    title = TITLES.get(curve["name"], curve["name"])
    parts = [text(left, top + 20, title, FONT + 1, ' font-weight="600"')]
    for decade in range(low, high + 1):
        y = place(sizes[0], 10.0**decade)[1]
        parts.append(f'<path class="rule" d="M{left + LEFT} {y:.1f}H{right}"/>\n')
        parts.append(text(left + LEFT - 8, y + 4, "×" + number(10.0**decade), SMALL, ' class="quiet" text-anchor="end"'))
    for size in sizes:
        x = place(size, 1)[0]
        parts.append(f'<path class="rule" d="M{x:.1f} {bottom}v5"/>\n')
        parts.append(text(x, bottom + 20, number(size), SMALL, ' class="quiet" text-anchor="middle"'))
    parts.append(text((left + LEFT + right) / 2, bottom + 39, curve["size"], SMALL, ' class="quiet" text-anchor="middle"'))
    # The guides: a cost that does not grow, and one that grows with the size, up to the edge of the plot.
    reach = min(sizes[-1], sizes[0] * 10.0**high)
    for cost, size in ((1, sizes[-1]), (reach / sizes[0], reach)):
        (x, y), (to_x, to_y) = place(sizes[0], 1), place(size, cost)
        parts.append(f'<path class="guide" stroke-dasharray="4 4" d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>\n')
    for index, line in enumerate(lines):
        at = [place(size, cost) for size, cost in line["points"]]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        y = bottom + AXIS + (index + 1) * ROW
        parts.append(f'<g class="c{index % len(COLOURS)}"><path class="line" d="{path}"/>')
        parts.append(f'<path class="line" d="M{left + 4} {y - 4.5:.1f}h22"/>')
        parts += [marker(index // len(COLOURS) + index, x, y) for x, y in [*at, (left + 15, y - 4.5)]]
        parts.append("</g>\n")
        parts.append(text(left + 34, y, line["what"]))
        parts.append(text(right, y, exponents(line), SMALL, ' text-anchor="end"'))
    return "".join(parts)


def draw(curves: list[dict]) -> str:
    curves = [curve for curve in curves if drawn(curve)]
    rows = [curves[at : at + COLUMNS] for at in range(0, len(curves), COLUMNS)]
    parts, top = [], 52
    for row in rows:
        for column, curve in enumerate(row):
            parts.append(panel(curve, GAP + column * (WIDTH + GAP), top))
        top += TOP + PLOT_HEIGHT + AXIS + ROW * max(len(drawn(curve)) for curve in row) + 44
    width = GAP + min(COLUMNS, len(curves)) * (WIDTH + GAP)
    light, dark = (
        "\n    ".join(f".c{index} {{ stroke: {pair[at]}; fill: {pair[at]} }}" for index, pair in enumerate(COLOURS)) for at in (0, 1)
    )
    heading = "Costs as multiples of those at the smallest size. At the right: the exponent, and that of the work. Dashed: exponents 0 and 1."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
        f"<title>How costs grow with {html.escape(', '.join(curve['size'] for curve in curves))}</title>\n"
        f"<style>{STYLE % (light, dark)}    path {{ fill: none; stroke-width: 1 }} .line {{ fill: none; stroke-width: 2 }}\n"
        "    g path:not(.line) { fill: inherit }\n</style>\n"
        f'<rect class="ground" width="{width}" height="{top}" rx="8"/>\n'
        + text(GAP, 30, heading, SMALL + 1)
        + "".join(parts)
        + "</svg>\n"
    )


def main() -> None:
    source, picture = [*map(Path, sys.argv[1:3]), *(FILE, PICTURE)[len(sys.argv[1:3]) :]]
    try:
        curves = json.loads(source.read_text())["curves"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f'curves: {source} has no curves ({error}): run make bench BENCH="--only growth" first, or name its file')
    picture.write_text(draw(curves))
    print(f"curves: {picture}")


main()
