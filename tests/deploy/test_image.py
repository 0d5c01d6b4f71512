"""The image: properties of the Dockerfile and, with buildah and podman, an image that is built and started.

The tests use no registry. They make the base of the last stage from this machine's own C library, under the name that the
Dockerfile uses, and copy the program that was built here. IMAGE_TEST=1 also builds the first stage, with this machine's
Rust, which takes some minutes: set it to test the Dockerfile's own build.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from conftest import ROOT, run, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASES = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
LAST = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
COMMIT = "0123abc"
IMAGE = "localhost/switchboard-test"
# Options with which containers start on machines that delegate little: no own network, no limit above the machine's, and
# no health check by a timer.
HERE = ["--network", "host", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024", "--no-healthcheck"]


def test_hadolint_finds_nothing():
    run(tool("hadolint"), ROOT / "Dockerfile")


def test_the_last_stage_has_only_the_program():
    assert BASES == ["docker.io/library/rust:1.95-bookworm", "gcr.io/distroless/cc-debian12:nonroot"]
    assert re.findall(r"^(?:COPY|ADD) (.*)", LAST, re.MULTILINE) == [
        "--from=build /src/target/release/switchboard /usr/local/bin/switchboard"
    ]
    assert "\nRUN " not in LAST, "the last stage has no shell for a RUN"


def test_the_build_context_has_only_sources():
    kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    # The program contains the console's page, and the page on faults that the console shows.
    contained = {"console", "docs/operations/failure-modes.md"}
    sources = {"Cargo.toml", "Cargo.lock", "build.rs", "migrations", "src"} | contained
    assert kept[0] == "*" and {line.lstrip("!") for line in kept[1:]} == sources


def test_the_build_has_every_file_that_the_console_contains():
    for path in (ROOT / "src" / "http" / "console").glob("*.rs"):
        for name in re.findall(r'include_str!\("(.*?)"\)', path.read_text()):
            found = (path.parent / name).resolve().relative_to(ROOT).as_posix()
            assert any(f"COPY {copied} {copied}\n" in DOCKERFILE for copied in (found, found.split("/")[0])), found


def test_the_build_copies_its_whole_context():
    """Also build.rs, which Cargo.toml names: without it, cargo refuses to build."""
    kept = {line.lstrip("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for names in copied for name in names.split()} == kept


def test_rust_is_new_enough():
    wanted = re.search(r'^rust-version = "1\.(\d+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert int(re.search(r"rust:1\.(\d+)-", BASES[0])[1]) >= int(wanted)


class Builder:
    """buildah and podman, with their own folder for images and containers."""

    def __init__(self, folder):
        self.folder = folder
        self.store = ["--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
        if os.getuid() != 0:
            pytest.skip("only root can build the image")
        self.buildah_program, self.podman_program = tool("buildah"), tool("podman")

    def buildah(self, *words, **options):
        return run(self.buildah_program, *self.store, *words, **options)

    def podman(self, *words, **options):
        engine = ["--runtime", tool("runc"), "--cgroup-manager", "cgroupfs"]
        return run(self.podman_program, *self.store, *engine, *words, **options)

    def base(self, name, files):
        """Makes an image from this machine's files."""
        root = self.folder / "base"
        for file in files:
            target = root / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(file, target)
        (root / "etc").mkdir(parents=True, exist_ok=True)
        (root / "etc/passwd").write_text("nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
        (self.folder / "Base").write_text(
            "FROM scratch\nCOPY base /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nUSER 65532\n"
        )
        self.buildah("bud", "-q", "--format", "docker", "-t", name, "-f", self.folder / "Base", self.folder)

    def build(self, dockerfile, context):
        path = self.folder / "Dockerfile"
        path.write_text(dockerfile)
        words = ["bud", "--format", "docker", "--pull-never", "--isolation", "chroot", "--network", "host", "-t", IMAGE]
        arguments = ["--build-arg", "VERSION=1.2.3", "--build-arg", f"GIT_COMMIT={COMMIT}"]
        self.buildah(*words, *arguments, "-f", path, context)


def libraries(binary):
    """The shared libraries of a program, and its loader."""
    return re.findall(r"(/\S+) \(0x", run("ldd", binary).stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The builder, with the image built."""
    binary = ROOT / "target/debug/switchboard"
    if not binary.exists():
        pytest.skip("target/debug/switchboard is missing: run cargo build")
    builder = Builder(tmp_path_factory.mktemp("image"))
    certificates = ["/etc/ssl/certs/ca-certificates.crt"] if os.path.exists("/etc/ssl/certs/ca-certificates.crt") else []
    builder.base(BASES[1], libraries(binary) + certificates)
    if os.environ.get("IMAGE_TEST") == "1":
        rust_base(builder)
        builder.build(DOCKERFILE, ROOT)
    else:
        context = builder.folder / "context/src/target/release"
        context.mkdir(parents=True)
        # Without debug information, as in a release.
        run("strip", "-o", context / "switchboard", binary)
        builder.build("FROM scratch AS build\nCOPY src /src\n\n" + LAST, builder.folder / "context")
    return builder


def rust_base(builder):
    """The first stage's base: Debian with a C compiler, and this machine's Rust."""
    root = builder.folder / "rust"
    packages = "gcc,libc6-dev,ca-certificates"
    run(tool("debootstrap"), "--variant=minbase", f"--include={packages}", "bookworm", root)
    # Certificates that this machine trusts, because crates may come through a proxy.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    toolchain = run("rustc", "--print", "sysroot").stdout.strip()
    shutil.copytree(toolchain, root / "usr/local/rust", symlinks=True, ignore=shutil.ignore_patterns("doc", "share"))
    cargo = root / "usr/local/cargo"
    cargo.mkdir(parents=True)
    home = os.path.expanduser("~/.cargo/config.toml")
    if os.path.exists(home):
        shutil.copy(home, cargo)
    (builder.folder / "Rust").write_text(
        "FROM scratch\nCOPY rust /\nENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/rust/bin:/usr/bin:/bin\n"
    )
    builder.buildah("bud", "-q", "-t", BASES[0], "-f", builder.folder / "Rust", builder.folder)


def test_its_labels_and_settings_are_right(built):
    about = json.loads(built.buildah("inspect", "--type", "image", IMAGE).stdout)["Docker"]["config"]
    labels = about["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == COMMIT
    assert (about["Entrypoint"], about["Cmd"]) == (["switchboard"], ["serve"])
    assert about["User"] == "65532:65532" and about["StopSignal"] == "SIGTERM"
    assert set(about["ExposedPorts"]) == {"8000/tcp", "8001/tcp"}
    assert about["Healthcheck"]["Test"] == ["CMD", "switchboard", "healthcheck"]


def test_there_is_no_shell_and_it_is_small(built):
    name = built.buildah("from", "--pull-never", IMAGE).stdout.strip()
    try:
        mounted = built.buildah("mount", name).stdout.strip()
        # The real base has these files beside the C library, and no programs.
        programs = [path for path in subprocess.run(["find", mounted, "-type", "f", "-perm", "/111"],
                    capture_output=True, text=True, check=True).stdout.split()
                    if not re.search(r"\.so[.\d]*$", path)]
        assert [path.removeprefix(mounted) for path in programs] == ["/usr/local/bin/switchboard"]
        size = os.path.getsize(f"{mounted}/usr/local/bin/switchboard") / 1e6
        print(f"\nthe program is {size:.1f} MB")
        assert size < 60
    finally:
        built.buildah("rm", name)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_it_runs_unprivileged_on_a_read_only_root_and_reports_its_health(built):
    # A node starts without Redis, but not without a store; `dev` has its own.
    ports = [free_port(), free_port()]
    environment = {"LISTEN": f"127.0.0.1:{ports[0]}", "ADMIN_LISTEN": f"127.0.0.1:{ports[1]}", "DATA_DIR": "/data"}
    words = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    hardened = ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    data = ["--mount", "type=tmpfs,destination=/data,tmpfs-mode=1777"]
    name = f"switchboard-{os.getpid()}"
    built.podman("run", "-d", "--name", name, *HERE, *hardened, *data, *words, IMAGE, "dev")
    try:
        healthy = ["exec", name, "switchboard", "healthcheck", "--dev"]
        deadline = time.monotonic() + 30
        while built.podman(*healthy, check=False).returncode != 0:
            assert time.monotonic() < deadline, built.podman("logs", name, check=False)
            time.sleep(0.2)
        pid = json.loads(built.podman("inspect", name).stdout)[0]["State"]["Pid"]
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
        assert status["Uid"].split() == ["65532"] * 4 and status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert built.podman("exec", name, "sh", "-c", "true", check=False).returncode == 127, "there is no shell"
        built.podman("stop", "-t", "20", name)
        assert json.loads(built.podman("inspect", name).stdout)[0]["State"]["ExitCode"] == 0, "it exits with 0"
    finally:
        built.podman("rm", "-f", name, check=False)


def test_without_settings_it_names_the_required_ones(built):
    done = built.podman("run", "--rm", *HERE, "--read-only", IMAGE, check=False)
    assert done.returncode == 78
    for needed in ["REDIS_URL", "DATABASE_URL", "JWT_SECRET"]:
        assert needed in done.stderr
