"""The image: built from the Dockerfile, looked into, and started as a cluster would start it.

The base images are made here, under the names that the Dockerfile uses. The one for building holds a `cargo` that hands out
the binary that is here already; IMAGE_TEST=full takes a whole Debian and this machine's Rust instead, and compiles.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT, run, tool

BUILD = "docker.io/library/rust:1-bookworm"
FINAL = "gcr.io/distroless/cc-debian12:nonroot"
IMAGE = "localhost/switchboard-test"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
FULL = os.environ.get("IMAGE_TEST") == "full"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def test_the_dockerfile_is_clean():
    run(tool("hadolint"), ROOT / "Dockerfile")


def test_it_is_built_of_what_the_program_needs():
    """Nothing but the sources reaches the builder: no secret of a checkout, no `target`."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert kept == ["Cargo.toml", "Cargo.lock", "src", "migrations"]
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def put(root: Path, program: str) -> None:
    """Copies a program with the libraries it needs."""
    path = Path(shutil.which(program) or program)
    needs = [word for word in subprocess.run(["ldd", path], capture_output=True, text=True).stdout.split()]
    for file in [path, *(Path(word) for word in needs if word.startswith("/"))]:
        into = root / file.relative_to("/")
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, into)


def image(name: str, root: Path) -> None:
    """Makes an image of a folder."""
    buildah = tool("buildah")
    container = run(buildah, "from", "scratch").stdout.strip()
    run(buildah, "add", "--quiet", container, root, "/")
    run(buildah, "config", "--env", "PATH=/usr/local/cargo/bin:/usr/bin:/bin", container)
    run(buildah, "commit", "--quiet", "--rm", container, name)


def binary() -> Path:
    built = [TARGET / profile / "switchboard" for profile in ("release", "debug")]
    newest = max((path for path in built if path.exists()), key=lambda path: path.stat().st_mtime, default=None)
    return newest or pytest.skip("there is no binary: cargo build makes one")


def builder(root: Path) -> None:
    """What the Dockerfile builds in."""
    if FULL:
        run(tool("debootstrap"), "--variant=minbase", "--include=gcc,libc6-dev,ca-certificates", "bookworm", root)
        # Whom this machine trusts, it trusts.
        shutil.copy(CERTIFICATES, root / "etc/ssl/certs")
        home = Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup"))
        (toolchain,) = [path for path in (home / "toolchains").iterdir() if path.name.startswith("stable")]
        shutil.copytree(toolchain, root / "usr/local/cargo", symlinks=True, ignore=shutil.ignore_patterns("doc", "share"))
        registries = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "config.toml"
        if registries.exists():
            (root / "root/.cargo").mkdir(parents=True)
            shutil.copy(registries, root / "root/.cargo/config.toml")
        return
    for program in ("sh", "mkdir", "cp", "touch"):
        put(root, program)
    (root / "bin").exists() or (root / "bin").symlink_to("usr/bin")
    bin = root / "usr/local/cargo/bin"
    bin.mkdir(parents=True)
    shutil.copy(binary(), bin / "built")
    (bin / "cargo").write_text(
        "#!/bin/sh\nset -e\n[ -s src/main.rs ]\nmkdir -p target/release\ncp /usr/local/cargo/bin/built target/release/switchboard\n"
    )
    (bin / "cargo").chmod(0o755)


def final(root: Path) -> None:
    """What the Dockerfile ends in: the C library, certificates, a user. No shell."""
    put(root, str(binary()))
    shutil.rmtree(root / TARGET.relative_to("/"))
    (root / "etc/ssl/certs").mkdir(parents=True)
    shutil.copy(CERTIFICATES, root / "etc/ssl/certs")
    (root / "etc/passwd").write_text("nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The image; where there is a builder, and it may work."""
    if os.geteuid() != 0:
        pytest.skip("making base images wants root")
    buildah = tool("buildah")
    how = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--no-cache"]
    arguments = ["--build-arg", f"VERSION={VERSION}", "--build-arg", "GIT_COMMIT=abc1234"]
    try:
        for name, make in ((BUILD, builder), (FINAL, final)):
            root = tmp_path_factory.mktemp("root")
            make(root)
            image(name, root)
            shutil.rmtree(root)
        run(buildah, "bud", *how, *arguments, "-t", IMAGE, ROOT)
        yield IMAGE
    finally:
        run(buildah, "rmi", "--force", IMAGE, BUILD, FINAL, check=False)


def test_it_says_what_it_is(built):
    config = json.loads(run(tool("buildah"), "inspect", "--type", "image", built).stdout)["Docker"]["config"]
    assert (config["User"], config["StopSignal"]) == ("65532:65532", "SIGTERM")
    assert (config["Entrypoint"], config["Cmd"]) == (["/usr/local/bin/switchboard"], ["serve"])
    assert set(config["ExposedPorts"]) == {"8000/tcp", "8001/tcp"}
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/switchboard", "healthcheck"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == "abc1234"


def test_there_is_nothing_in_it_but_the_program(built):
    buildah = tool("buildah")
    container = run(buildah, "from", "--pull-never", built).stdout.strip()
    try:
        root = Path(run(buildah, "mount", container).stdout.strip())
        found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        assert not {name for name in found if name.split("/")[-1] in ("sh", "bash", "busybox", "cargo", "Cargo.toml")}
        assert (root / "usr/local/bin/switchboard").stat().st_mode & 0o111
        size = sum((root / name).stat().st_size for name in found if not (root / name).is_symlink())
        print(f"{size / 1e6:.0f} MB, of which {(root / 'usr/local/bin/switchboard').stat().st_size / 1e6:.0f} are the program")
    finally:
        run(buildah, "rm", container)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_it_runs_without_rights(built):
    """With a root that can't be written, no capability, and no user of its own; until it is told to end."""
    podman = [tool("podman"), "--cgroup-manager=cgroupfs", f"--runtime={tool('runc')}"]
    admin = f"127.0.0.1:{free_port()}"
    rights = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
    here = ["--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
    settings = [f"--env=ADMIN_LISTEN={admin}", f"--env=LISTEN=127.0.0.1:{free_port()}", "--env=DATA_DIR=/data"]
    data = ["--tmpfs=/data:rw,mode=1777"]
    run(*podman, "run", "--detach", "--name=switchboard-test", *rights, *here, *settings, *data, built, "dev")
    try:
        healthcheck = [*podman, "exec", "switchboard-test", "/usr/local/bin/switchboard", "healthcheck", "--dev"]
        deadline = time.monotonic() + 30
        while run(*healthcheck, check=False).returncode != 0:
            said = run(*podman, "logs", "switchboard-test", check=False)
            assert time.monotonic() < deadline, said.stdout + said.stderr
            time.sleep(0.2)
        run(*podman, "stop", "--time=10", "switchboard-test")
        assert run(*podman, "inspect", "--format={{.State.ExitCode}}", "switchboard-test").stdout.strip() == "0"
    finally:
        run(*podman, "rm", "--force", "switchboard-test", check=False)
