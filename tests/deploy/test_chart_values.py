"""Values that charts commonly have, and what the chart says of itself."""

import re
import shutil

import pytest
import yaml

from chart.render import CHART, HELMS, IMAGE, one, pods, resources, template
from conftest import ROOT


def spec(name):
    return one(name, "Deployment")["spec"]["template"]["spec"]


def test_containers_beside_a_node():
    assert [container["name"] for container in spec("everything")["initContainers"]] == ["prepare"]
    assert [container["name"] for container in spec("everything")["containers"]] == ["switchboard", "telemetry"]
    assert spec("everything")["containers"][0]["lifecycle"]["preStop"]["httpGet"]["path"] == "/livez"
    assert not {"initContainers", "hostAliases", "dnsConfig", "dnsPolicy", "runtimeClassName"} & spec("minimal").keys()


def test_names_and_runtime_are_those_of_all_pods():
    """The Job and the test find PostgreSQL by the same names as the nodes."""
    for _, _, pod in pods("everything"):
        assert pod["hostAliases"] == [{"ip": "192.0.2.7", "hostnames": ["postgres.internal"]}]
        assert (pod["dnsPolicy"], pod["dnsConfig"]["nameservers"]) == ("None", ["192.0.2.53"])
        assert pod["runtimeClassName"] == "gvisor"
        assert pod["imagePullSecrets"] == [{"name": "pull"}]


def test_common_labels_and_annotations():
    for (kind, name), document in resources("everything").items():
        assert document["metadata"]["labels"]["team"] == "chat"
        if not name.endswith(("more", "notes")):
            assert document["metadata"]["annotations"]["example.com/owner"] == "chat", (kind, name)
    for document, labels, _ in pods("everything"):
        assert labels["team"] == "chat"
    annotations = one("everything", "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert "example.com/owner" not in annotations, "a change of it would replace the nodes"


def test_an_umbrella_charts_registry_and_pull_secrets():
    for _, _, pod in pods("pod-monitor"):
        (container,) = pod["containers"]
        assert container["image"] == "mirror.example.com:5000/chat/switchboard:1"
        assert [secret["name"] for secret in pod["imagePullSecrets"]] == ["mirror", "other", "own"]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    "repository, expected",
    [
        ("switchboard", "mirror.example.com/switchboard"),
        ("chat/switchboard", "mirror.example.com/chat/switchboard"),
        ("localhost/switchboard", "mirror.example.com/switchboard"),
        ("registry:5000/chat/switchboard", "mirror.example.com/chat/switchboard"),
    ],
)
def test_the_registry_replaces_the_one_in_the_name(helm, repository, expected):
    values = f"existingSecret=s,image.repository={repository},global.imageRegistry=mirror.example.com"
    assert f'image: "{expected}:' in template(helm, "--set", values).stdout


def test_the_service():
    service = resources("everything")["Service", "a-name-that-is-far-too-long-for-services-and-has-t"]["spec"]
    assert service["clusterIP"] == "fd00::5" and service["ipFamilies"] == ["IPv6", "IPv4"]
    assert (service["sessionAffinity"], service["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]) == ("ClientIP", 600)
    assert [port["name"] for port in service["ports"]] == ["http", "telemetry"]
    assert "sessionAffinity" not in resources("minimal")["Service", "chat-switchboard"]["spec"], "sessions need no affinity"


def test_several_hosts_and_paths():
    rules = one("ingress", "Ingress")["spec"]["rules"]
    found = {rule["host"]: [(path["path"], path["pathType"]) for path in rule["http"]["paths"]] for rule in rules}
    assert found == {
        "chat.example.com": [("/", "Prefix")],
        "sockets.example.com": [("/v1/ws", "Exact"), ("/ws", "Prefix")],
        "*.example.net": [("/", "Prefix")],
    }


def test_a_pod_monitor_finds_the_nodes():
    monitor = one("pod-monitor", "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    labels = one("pod-monitor", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["spec"]["jobLabel"]] == "switchboard"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = (port for port in spec("pod-monitor")["containers"][0]["ports"] if port["name"] == endpoint["port"])
    assert (port["containerPort"], endpoint["path"], endpoint["interval"]) == (8001, "/metrics", "30s")


def test_extra_rules_and_extra_manifests():
    rules = resources("pod-monitor")["NetworkPolicy", "chat-switchboard"]["spec"]["ingress"]
    assert rules[-1] == {"ports": [{"port": 4317}]}
    assert resources("everything")["ConfigMap", "more"]["data"] == {"alert": "{{ $labels.job }}"}, "objects are no templates"
    name = "a-name-that-is-far-too-long-for-services-and-has-t-notes"
    assert resources("everything")["ConfigMap", name]["data"] == {"region": "none"}


def test_an_ipv6_address_without_a_port_is_none():
    assert template("helm4", "--set", "existingSecret=s,redis.existingSecret=,redis.url=redis://[fd00::6380]/0").stdout


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("given", ["::", "[::]", "fd00::5", "0.0.0.0"])
def test_addresses_with_a_port_have_brackets_if_they_are_ipv6(helm, given):
    bracketed = given if given[0] != ":" and given[:2] != "fd" else f"[{given}]"
    said = template(helm, "--set-string", f"existingSecret=s,listenAddress={given.replace(',', '')}").stdout
    assert f'value: "{bracketed}:8000"' in said and f'value: "{bracketed}:8001"' in said


def test_no_file_holds_an_address_with_a_port_that_ipv6_would_break():
    """`host:port` made of a host that a cluster or a user gives; a name, or a bracketed address, is right."""
    for path in [*CHART.rglob("*.yaml"), *CHART.rglob("*.tpl"), *CHART.rglob("*.txt"), *(ROOT / "nginx").glob("*.conf")]:
        text = path.read_text()
        assert "SERVICE_HOST" not in text, path
        assert not re.search(r"\$(server_addr|remote_addr|realip_remote_addr):", text), path


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("broken", ["missing", "empty"])
@pytest.mark.parametrize("path, what", [("files/alerts.yaml", "prometheusRule"), ("files/dashboards", "dashboards")])
def test_a_copy_of_the_chart_without_its_files_is_refused(path, what, broken, helm, tmp_path):
    """Tools that drop links, as Flux does, once made charts without rules."""
    chart = tmp_path / "switchboard"
    shutil.copytree(CHART, chart, symlinks=True)
    files = sorted((chart / path).glob("*.json")) or [chart / path]
    for file in files if broken == "missing" else files[:1]:
        file.unlink() if broken == "missing" else file.write_text("")
    done = template(helm, "--set", f"existingSecret=s,{what}.enabled=true", chart=chart, check=False)
    assert done.returncode != 0 and "the copy of the chart is incomplete" in done.stderr
    assert template(helm, "--set", "existingSecret=s", chart=chart).stdout


def test_the_chart_has_no_links():
    assert not [path for path in CHART.rglob("*") if path.is_symlink()]


def test_the_chart_names_its_makers_and_licence():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    holder = re.search(r"Copyright \(c\) (.*)", (ROOT / "LICENSE-MIT").read_text())[1]
    assert chart["maintainers"] == [{"name": holder}]
    assert chart["annotations"]["artifacthub.io/license"] == "MIT OR Apache-2.0"
    assert len(chart["keywords"]) >= 5
    assert not {"home", "sources", "icon"} & chart.keys(), "the release adds them, since it knows the repository's address"


def test_every_installation_names_an_image():
    assert yaml.safe_load((CHART / "values.yaml").read_text())["image"]["repository"] == ""
    assert IMAGE
