"""Labels, annotations and names of the user beside those of the chart."""

import json

import jsonschema
import pytest
import yaml

from chart.render import CHART, HELMS, parse, refusal, rendered, with_values


OURS = {f"app.kubernetes.io/{part}" for part in ("name", "instance", "component", "managed-by")}
PLACES = [
    "commonLabels", "podLabels", "migration.podLabels", "test.labels", "serviceMonitor.labels", "podMonitor.labels",
    "prometheusRule.labels", "dashboards.labels",
]  # fmt: skip


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("place", PLACES)
def test_labels_that_find_resources_are_refused(place, helm):
    for label in sorted(OURS):
        said = refusal(helm, {"existingSecret": "s", **nested(place, {label: "mine"})})
        assert f"{place} has {label}, which the chart sets itself to find its resources: remove it" in said, said


@pytest.mark.parametrize("helm", HELMS)
def test_other_labels_may_repeat_each_other_and_the_charts(helm):
    """The nearest one counts. `parse` refuses a key that is there twice."""
    theirs = {"app.kubernetes.io/version": "mine", "helm.sh/chart": "mine", "team": "common", "gone": None}
    values = {
        "commonLabels": theirs,
        "podLabels": {"team": "pod", "tier": "edge"},
        "migration": {"podLabels": {"team": "job"}},
        "test": {"labels": {"team": "test"}},
        "serviceMonitor": {"enabled": True, "labels": {"team": "monitor", "helm.sh/chart": "its"}},
        "prometheusRule": {"enabled": True, "labels": {"team": "rule"}},
        "dashboards": {"enabled": True, "labels": {"team": "board"}},
    }
    found = rendered(values, helm)
    metadata = {kind: document["metadata"]["labels"] for (kind, _), document in found.items()}
    assert {kind: labels["team"] for kind, labels in metadata.items() if labels["team"] != "common"} == {
        "ServiceMonitor": "monitor", "PrometheusRule": "rule", "ConfigMap": "board", "Pod": "test",
    }  # fmt: skip
    assert {labels["app.kubernetes.io/version"] for labels in metadata.values()} == {"mine"}
    assert metadata["ServiceMonitor"]["helm.sh/chart"] == "its" and "gone" not in metadata["Deployment"]
    deployment = found["Deployment", "chat-switchboard"]["spec"]
    pod = deployment["template"]["metadata"]["labels"]
    assert (pod["team"], pod["tier"]) == ("pod", "edge") and deployment["selector"]["matchLabels"].items() <= pod.items()
    job = found["Job", "chat-switchboard-migrate"]["spec"]["template"]["metadata"]["labels"]
    assert job["team"] == "job" and job["app.kubernetes.io/component"] == "migration"
    policy = found["NetworkPolicy", "chat-switchboard-migrate"]["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= job.items()


@pytest.mark.parametrize("helm", HELMS)
def test_annotations_may_repeat_each_other_and_defaults(helm):
    values = {
        "commonAnnotations": {"owner": "common", "switchboard/keeps-replicas": "no", "gone": None},
        "deploymentAnnotations": {"owner": "nodes"},
        "service": {"annotations": {"owner": "service"}},
        "podAnnotations": {"kubectl.kubernetes.io/default-container": "telemetry", "gone": None},
    }
    found = rendered(values, helm)
    deployment = found["Deployment", "chat-switchboard"]
    assert deployment["metadata"]["annotations"]["owner"] == "nodes" and "gone" not in deployment["metadata"]["annotations"]
    assert found["Service", "chat-switchboard"]["metadata"]["annotations"]["owner"] == "service"
    expected = {"kubectl.kubernetes.io/default-container": "telemetry"}
    assert deployment["spec"]["template"]["metadata"]["annotations"] == expected


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    "values, words",
    [
        ({"secretRevision": "7", "podAnnotations": {"switchboard/secret-revision": "8"}}, "podAnnotations has switchboard/secret-revision"),
        (
            {"database": {"url": "postgres://u@h/d"}, "podAnnotations": {"checksum/secret": "x"}},
            "podAnnotations has checksum/secret, which the chart sets itself to replace nodes whose secrets change",
        ),
        ({"commonAnnotations": {"helm.sh/hook": "test"}}, "would make every resource a hook"),
        ({"sidecars": [{"name": "switchboard"}]}, "sidecars has the name switchboard, which is taken"),
        ({"initContainers": [{"name": "a"}], "sidecars": [{"name": "a"}]}, "sidecars has the name a"),
        ({"extraVolumes": [{"name": "secrets"}]}, "extraVolumes has the name secrets"),
        ({"extraVolumes": [{"name": "a"}], "test": {"extraVolumes": [{"name": "a"}]}}, "test.extraVolumes has the name a"),
        ({"migration": {"extraVolumes": [{"name": "a"}, {"name": "a"}]}}, "migration.extraVolumes has the name a"),
        ({"service": {"extraPorts": [{"name": "http", "port": 1}]}}, "service.extraPorts has the name http"),
        ({"service": {"extraPorts": [{"name": "more", "port": 8000}]}}, "service.extraPorts has the port 8000"),
    ],
)
def test_names_that_are_taken_are_refused(values, words, helm):
    said = refusal(helm, {"existingSecret": "s", **values})
    assert words in said, said


NUMERIC = {
    "existingSecret": "2024",
    "nameOverride": "123",
    "fullnameOverride": "e1",
    "commonLabels": {"a": "true"},
    "commonAnnotations": {"a": "1e3"},
    "image": {"repository": "123", "tag": "0123"},
    "imagePullSecrets": [{"name": "1"}],
    "secretRevision": "0x1f",
    "redis": {"existingSecret": "1e3", "key": "1", "ca": {"existingSecret": "0777", "key": "0"}},
    "database": {"existingSecret": "0", "key": "1.0", "ca": {"existingConfigMap": "12", "key": "7"}},
    "auth": {"existingSecret": "1", "key": "true", "previousKey": "null"},
    "config": {"PUBLIC_URL": "https://example.com", "JWT_AUDIENCE": "123", "REDIS_PREFIX": "0"},
    "migration": {"existingSecret": "9", "key": "9", "serviceAccountName": "1234", "priorityClassName": "55"},
    "service": {"type": "LoadBalancer", "loadBalancerClass": "1", "appProtocol": "2"},
    "ingress": {"enabled": True, "className": "9", "hosts": ["123"]},
    "serviceAccount": {"name": "42"},
    "podAnnotations": {"a": "no"},
    "priorityClassName": "7",
    "runtimeClassName": "8",
    "autoscaling": {"enabled": True, "metric": "1"},
    "serviceMonitor": {"enabled": True, "interval": "0", "scrapeTimeout": "0"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]},
    "dashboards": {"enabled": True, "namespace": "2025"},
}


@pytest.mark.parametrize("helm", HELMS)
def test_names_that_look_like_numbers_stay_texts(helm):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = rendered(NUMERIC, helm, release="123", namespace="2024")
    for (kind, name), document in found.items():
        assert isinstance(name, str) and isinstance(document["metadata"]["namespace"], str)
        if "monitoring" not in document["apiVersion"] and "gateway" not in document["apiVersion"]:
            kubernetes_validate.validate(document, "1.32", strict=True)
        for place in (document["metadata"], document.get("spec", {}).get("template", {}).get("metadata", {})):
            for texts in (place.get("labels", {}), place.get("annotations", {})):
                assert all(isinstance(text, str) for text in texts.values()), (kind, name, texts)
    monitor = found["ServiceMonitor", "e1"]["spec"]
    assert monitor["namespaceSelector"] == {"matchNames": ["2024"]} and monitor["endpoints"][0]["interval"] == "0"
    volume = found["Deployment", "e1"]["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]
    names = {(source["name"], item["key"]) for each in volume for source in each.values() for item in source["items"]}
    assert ("1e3", "1") in names and ("1", "null") in names and ("12", "7") in names


@pytest.mark.parametrize("helm", HELMS)
def test_the_name_of_a_service_begins_with_a_letter_and_has_no_dot(helm):
    said = with_values(helm, {"existingSecret": "s"}, release="2024", check=False).stderr
    assert '"2024-switchboard", which can\'t be the name of a Service: set fullnameOverride' in said, said
    assert ("Service", "my-chat-switchboard") in rendered({}, helm, release="my.chat")
    assert ("Service", "a" * 48) in rendered({"fullnameOverride": "a" * 48 + "--b"}, helm)
    assert ("Service", "b-2024") in rendered({"fullnameOverride": "b-2024"}, helm, release="2024")


def every(node, path=()):
    """The path of every value in values.yaml."""
    for key, value in node.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from every(value, (*path, key))


def without(node, path):
    """The values without one of them, as Helm reads null."""
    key, *rest = path
    return {k: without(v, rest) if k == key else v for k, v in node.items() if k != key or rest}


def put(node, path, value):
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_null_means_empty_or_is_refused_by_name(depth, helm):
    """`section:` with nothing below it is null. It never ends in an error of a template."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    check = jsonschema.Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
    needed = [("existingSecret",), ("image",), ("image", "repository"), ("config", "MAX_CONNECTIONS")]
    paths = [path for path in every(values) if len(path) == depth and path not in needed]
    refused = [path for path in paths if not check.is_valid(without(values, path))]
    accepted = [path for path in paths if path not in refused]
    # With every part that is off by default, so that its templates run.
    given = {"existingSecret": "s", "image": {"repository": "switchboard"}, "httpRoute": {"parentRefs": [{"name": "g"}]}}
    for part in ("autoscaling", "serviceMonitor", "prometheusRule", "dashboards", "ingress", "httpRoute"):
        given.setdefault(part, {})["enabled"] = True
    for path in accepted:
        if path != ("httpRoute", "parentRefs"):
            put(given, path, None)
    assert accepted and parse(with_values(helm, given).stdout)
    given = {"existingSecret": "s"}
    for path in refused:
        put(given, path, None)
    said = refusal(helm, given) if refused else ""
    assert "nil pointer" not in said
    assert not [path for path in refused if path[-1] not in said], said


def test_the_schema_is_a_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
