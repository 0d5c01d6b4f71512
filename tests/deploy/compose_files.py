"""Reads compose.yaml and the files that change it."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def merged(base, more):
    """Merges as Compose does: maps by their keys, lists of volumes one after the other; else the later value wins."""
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    both = {key: merged(base[key], more[key]) for key in base.keys() & more.keys()}
    if isinstance(both.get("volumes"), list):
        both["volumes"] = base["volumes"] + [volume for volume in more["volumes"] if volume not in base["volumes"]]
    return base | more | both


def read(*files):
    """The services that Compose makes of compose.yaml and further files."""
    found = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for file in files:
        found = merged(found, yaml.safe_load((ROOT / file).read_text()))
    return found
