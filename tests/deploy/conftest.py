"""Shared parts of the deployment tests: paths, and skips for programs that the machine lacks."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target" / "tools"


def tool(name: str) -> str:
    """Path of a program; skips the test if the machine lacks it."""
    for folder in ("bin", "python/bin", "node_modules/.bin"):
        if (path := TOOLS / folder / name).exists():
            return str(path)
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command, check=True, **options) -> subprocess.CompletedProcess:
    """Runs a command to its end; a failure shows its output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
