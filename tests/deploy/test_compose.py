"""compose.yaml is valid, every file that it names exists, and its services work together."""

import json
import os
import re
import shutil
import sys

import pytest
import yaml

from compose_files import read
from conftest import ROOT, run, tool

CLUSTER = "compose/cluster.yaml"
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE = read()
SERVICES = COMPOSE["services"]
WITH_CLUSTER = read(CLUSTER)
SERVERS = ["redis", *(f"redis-{number}" for number in range(2, 7))]
# Each service of compose.yaml, and each that the other file adds or changes.
ALL = {**SERVICES, **{f"{name} of {CLUSTER}": service for name, service in WITH_CLUSTER["services"].items() if service != SERVICES.get(name)}}
NODES = {name: service for name, service in SERVICES.items() if name.startswith("node-")}


def mounts(service):
    """Pairs of source and target of the mounts."""
    return [tuple(mount.split(":")[:2]) for mount in service.get("volumes", [])]


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def test_it_follows_the_compose_specification():
    specification = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    for compose in (COMPOSE, WITH_CLUSTER):
        specification.PyCompose.from_json(json.dumps(compose)).validate()


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed: root installs it (make deploy)")
def test_podman_compose_reads_it_the_same():
    for more, compose in (([], COMPOSE), (["-f", ROOT / CLUSTER], WITH_CLUSTER)):
        services = yaml.safe_load(run(tool("podman-compose"), "-f", ROOT / "compose.yaml", *more, "config").stdout)["services"]
        assert set(services) == set(compose["services"])
        for name in NODES:
            assert services[name]["environment"] == compose["services"][name]["environment"]


@pytest.mark.parametrize("name", ALL)
def test_every_mounted_file_exists(name):
    for source, target in mounts(ALL[name]):
        if source.startswith("./"):
            assert (ROOT / source).exists(), f"{source} for {target}"
        else:
            assert source in WITH_CLUSTER["volumes"]


@pytest.mark.parametrize("name", ALL)
def test_every_service_is_hardened(name):
    service = ALL[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "devices"} & set(service)
    if name.split()[0] not in ("secrets", "cluster"):
        assert service["restart"] == "unless-stopped" and "healthcheck" in service or name.split()[0] in NODES
    assert re.fullmatch(r"switchboard|docker\.io/[a-z/]+:v?\d[\w.-]+", service["image"]), "a version is pinned"


def test_only_nginx_prometheus_and_grafana_are_published_and_only_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"nginx", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    inside = {name for name, service in SERVICES.items() if "inside" in service.get("networks", [])}
    assert inside == {"redis", "postgres", *NODES} and COMPOSE["networks"]["inside"]["internal"]
    more = {name: service for name, service in WITH_CLUSTER["services"].items() if name not in SERVICES}
    assert all(service["networks"] == ["inside"] and "ports" not in service for service in more.values())


@pytest.mark.parametrize("name", NODES)
def test_every_setting_of_a_node_is_known(name):
    known = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (ROOT / "docs/operations/configuration.md").read_text()))
    environment = NODES[name]["environment"]
    assert set(environment) <= known
    assert environment["NODE_ID"] == name
    assert len(NODES) == 2


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_enough_time_to_drain(name):
    node = NODES[name]
    needed = seconds(node["environment"]["SHUTDOWN_DELAY"]) + seconds(node["environment"]["DRAIN_WINDOW"]) + 15
    assert seconds(node["stop_grace_period"]) >= needed


def test_no_service_starts_before_its_dependencies():
    for services in (SERVICES, WITH_CLUSTER["services"]):
        for name, service in services.items():
            for needed, how in service.get("depends_on", {}).items():
                assert needed in services, f"{name} needs {needed}"
                once = needed in ("secrets", "cluster")
                assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")
                assert once or needed in NODES or "healthcheck" in services[needed]


def test_the_cluster_has_all_servers_and_nodes_wait_for_it():
    services = WITH_CLUSTER["services"]
    assert [name for name in services if re.match(r"redis(-|$)", name)] == SERVERS == services["cluster"]["command"]
    for name in SERVERS:
        assert services[name]["command"] == [name] and name in services["cluster"]["depends_on"]
    for name in NODES:
        assert services[name]["environment"] == SERVICES[name]["environment"] | {"REDIS_URL_FILE": "/secrets/redis-cluster-url"}
        assert set(services[name]["depends_on"]) == {*SERVICES[name]["depends_on"], "cluster"}
    run(tool("shellcheck"), *(ROOT / "compose").glob("*.sh"))


def test_secrets_are_made_once_and_match_the_files_of_the_services(tmp_path):
    script = ROOT / "compose/secrets.sh"
    run("sh", script, tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    run("sh", script, tmp_path)
    assert made == {path.name: path.read_text() for path in tmp_path.iterdir()}, "a second start changes nothing"
    texts = TEXT + (ROOT / CLUSTER).read_text() + (ROOT / "compose/cluster.sh").read_text().replace("$secrets/", "/secrets/")
    assert set(re.findall(r"/secrets/([\w.-]+)", texts)) == set(made) - {"done"}
    assert re.fullmatch(r"[0-9a-f]{64}", made["jwt-secret"])
    assert made["database-url"] == f"postgres://switchboard:{made['postgres-password']}@postgres/switchboard"
    # The ACL file and the documentation agree.
    documented = re.search(r"^ACL SETUSER (switchboard .*)$", (ROOT / "docs/operations/redis.md").read_text(), re.MULTILINE)[1]
    password = re.fullmatch(r"redis://switchboard:([0-9a-f]{64})@redis/", made["redis-url"])[1]
    assert made["redis.acl"].splitlines()[1] == "user " + documented.replace(">secret", f">{password}")
    documented = re.search(r"^ACL SETUSER (switchboard .*\+spublish.*)$", (ROOT / "docs/operations/redis.md").read_text(), re.MULTILINE)[1]
    assert made["redis-cluster.acl"].splitlines()[2] == "user " + documented.replace(">secret", f">{password}")
    addresses = "&".join(f"addr={name}:6379" for name in SERVERS[1:3])
    assert made["redis-cluster-url"] == f"redis+cluster://switchboard:{password}@redis?{addresses}"
    assert f"masterauth {made['redis-cluster-password']}\n" in made["redis-cluster.conf"]
    # No secret is in the repository.
    assert not re.search(r"(?i)(password|secret): (?!/secrets)\S", TEXT)


def test_nginx_knows_the_nodes():
    addresses = re.findall(r"^server (\S+)", (ROOT / "compose/nodes.conf").read_text(), re.MULTILINE)
    assert addresses == [f"{name}:8000" for name in NODES]


def test_prometheus_accepts_its_configuration_and_scrapes_the_nodes(tmp_path):
    for source, target in mounts(SERVICES["prometheus"]):
        if source.startswith("./") and (ROOT / source).exists():
            (tmp_path / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / target.lstrip("/")).write_text((ROOT / source).read_text())
    path = tmp_path / "etc/prometheus/prometheus.yml"
    path.write_text(path.read_text().replace("/etc/prometheus", str(path.parent)))
    assert "SUCCESS" in run(tool("promtool"), "check", "config", path).stdout
    jobs = yaml.safe_load(path.read_text())["scrape_configs"]
    targets = {target for job in jobs for group in job["static_configs"] for target in group["targets"]}
    assert targets == {f"{name}:8001" for name in NODES}
    assert all(node["environment"]["ADMIN_LISTEN"] == "0.0.0.0:8001" for node in NODES.values())
    # Dashboards and alerts show the deployment by its job name.
    assert all("switchboard" in job["job_name"] for job in jobs)


def test_grafana_finds_dashboards_and_their_source():
    provisioned = dict(reversed(pair) for pair in mounts(SERVICES["grafana"]))
    folder = "/etc/grafana/provisioning"
    source = yaml.safe_load((ROOT / provisioned[f"{folder}/datasources/switchboard.yml"]).read_text())["datasources"]
    assert [(one["type"], one["url"]) for one in source] == [("prometheus", "http://prometheus:9090")]
    provider = yaml.safe_load((ROOT / provisioned[f"{folder}/dashboards/switchboard.yml"]).read_text())["providers"][0]
    assert list((ROOT / provisioned[provider["options"]["path"]]).glob("*.json"))


@pytest.mark.parametrize("more", [[], [CLUSTER]], ids=["one Redis", "a cluster"])
def test_its_services_work_together(more):
    if not (ROOT / "target/debug/switchboard").exists():
        pytest.skip("target/debug/switchboard is missing: run cargo build")
    own = [tool("unshare"), "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    for program in ("nginx", "prometheus", "redis-server", "psql", "ip"):
        tool(program)
    probe = run(*own, "true", check=False)
    if probe.returncode != 0:
        remedy = "" if os.getuid() == 0 else " (run it as root)"
        pytest.skip(f"this machine does not allow namespaces: {probe.stderr.strip()}{remedy}")
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    done = run(*own, sys.executable, ROOT / "tests/deploy/compose_up.py", *more, timeout=120, env=path)
    assert "all services work" in done.stdout
