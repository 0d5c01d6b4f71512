"""Two database roles, as docs/operations/security.md makes them: the chart's Job migrates as the owner of the tables, and nodes run
with less. Uses the real program and a PostgreSQL of its own."""

import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from chart.render import environment, parse, with_values
from conftest import ROOT, run
from test_chart_program import program

SQL = next(
    block
    for block in re.findall(r"^```sql\n(.*?)^```", (ROOT / "docs/operations/security.md").read_text(), re.DOTALL | re.MULTILINE)
    if "CREATE ROLE switchboard_migrator" in block
)


@pytest.fixture
def postgres():
    """A server without passwords; yields a function that runs SQL in a database, and the server's port."""
    # Debian installs the programs outside PATH.
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [shutil.which("initdb")]
    if not programs[-1]:
        pytest.skip("PostgreSQL is not installed")
    programs = Path(programs[-1]).parent
    # PostgreSQL refuses to run as root.
    options = {"user": "nobody"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if options:
            shutil.chown(folder, "nobody")
        listener.close()
        data = f"{folder}/data"
        control = [programs / "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log"]
        run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", cwd=folder, **options)
        run(*control, "start", "-o", f"-k {folder} -p {port} -h 127.0.0.1 -F", cwd=folder, **options)

        def execute(database, text):
            client = [programs / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", database]
            return run(*client, "-v", "ON_ERROR_STOP=1", "-X", "-A", "-t", "-f", "-", input=text).stdout

        try:
            yield execute, port
        finally:
            run(*control, "stop", "-m", "immediate", cwd=folder, **options)


def test_the_job_migrates_as_the_owner_and_nodes_need_less(postgres, tmp_path):
    execute, port = postgres
    binary = program()
    *first, last = [line for line in SQL.splitlines() if line]
    execute("postgres", "\n".join(first))
    execute("switchboard", last)
    values = {"existingSecret": "switchboard", "migration": {"existingSecret": "switchboard-migrator", "key": "url"}}
    found = parse(with_values("helm4", values).stdout)

    def start(kind, name, arguments, **secrets):
        """Runs a container as its pod would, with these Secrets (`name__key`)."""
        spec = found[kind, name]["spec"]["template"]["spec"]
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "secrets")
        for source in (source["secret"] for source in volume["projected"]["sources"]):
            for item in source["items"]:
                (folder / item["path"]).write_text(secrets[f"{source['name']}__{item['key']}".replace("-", "_")])
        given = {
            name: "node-1" if isinstance(value, dict) else value.replace("/run/secrets/switchboard", str(folder))
            for name, value in environment(spec["containers"][0]).items()
        }
        return run(binary, *arguments, env=given, cwd=folder, check=False)

    def url(role):
        return f"postgres://{role}@127.0.0.1:{port}/switchboard"

    theirs = {"switchboard__DATABASE_URL": url("switchboard"), "switchboard__JWT_SECRET": "x" * 40}
    theirs["switchboard__REDIS_URL"] = "redis://127.0.0.1:1"
    node = ("Deployment", "chat-switchboard", ["check"])
    assert "store-not-migrated" in start(*node, **theirs).stdout
    job = start("Job", "chat-switchboard-migrate", ["migrate"], switchboard_migrator__url=url("switchboard_migrator"))
    assert job.returncode == 0, job.stderr
    after = start(*node, **theirs).stdout
    assert "ok    PostgreSQL" in after and "store-not-migrated" not in after
    owners = execute("switchboard", "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners.split() == ["switchboard_migrator"]
