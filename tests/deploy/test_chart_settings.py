"""The chart accepts of each setting what the program accepts, and nothing else; checked with the real program."""

import importlib.util
import json

import jsonschema
import pytest

from chart.render import CHART, HELMS, environment, refusal, rendered
from conftest import ROOT, run
from test_chart_program import PLANTED, program

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
CONFIG = SCHEMA["properties"]["config"]["properties"]
BASE = {name: PLANTED[name] for name in ("REDIS_URL", "DATABASE_URL", "JWT_SECRET", "ADMIN_TOKEN")}


def generator():
    spec = importlib.util.spec_from_file_location("chart_docs", ROOT / "scripts" / "chart-docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DOCS = generator()
RANGES = {s.name: (s, *s.bounds()) for s in DOCS.settings() if s.range and s.name not in DOCS.ELSEWHERE}


def refused(given):
    """The settings at fault, as the program lists them; empty if it accepts all."""
    base = BASE
    if len(given) == 1 and min(given).startswith("JWT_JWKS_"):
        # These are read only with published keys.
        base = {name: value for name, value in BASE.items() if name != "JWT_SECRET"} | {"JWT_JWKS_URL": "http://127.0.0.1:1/"}
    done = run(program(), "check", env=base | {name: str(value) for name, value in given.items()}, check=False)
    return done.stderr if done.returncode == 78 else ""


def text(setting, amount):
    """An amount in the smallest unit of its kind."""
    return f"{amount}ms" if setting.unit == "duration" else f"{amount}"


@pytest.mark.parametrize("end", [1, 2])
def test_program_and_chart_accept_both_ends_of_every_range(end):
    given = {name: text(row[0], row[end]) for name, row in RANGES.items()}
    assert not refused(given)
    found = rendered({"config": given})["Deployment", "chat-switchboard"]["spec"]["template"]["spec"]["containers"][0]
    assert given.items() <= environment(found).items()


@pytest.mark.parametrize("name", RANGES)
def test_the_program_refuses_what_is_beyond_a_range(name):
    setting, least, most = RANGES[name]
    for amount in {max(least - 1, 0), most + 1} - {least}:
        assert name in refused({name: text(setting, amount)}), amount
    one = jsonschema.Draft7Validator(CONFIG[name])
    if setting.unit == "duration":
        assert not one.is_valid(most // 1000 + 1) and one.is_valid(most // 1000)
    else:
        assert one.is_valid(least) and one.is_valid(most) and not one.is_valid(most + 1)
        assert least == 0 or not one.is_valid(least - 1)


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    "name, value, words",
    [
        ("PING_INTERVAL", "999ms", "config.PING_INTERVAL is 999ms, which nodes refuse: it may be from 1s to 1h."),
        ("PING_INTERVAL", "61 m", "config.PING_INTERVAL is 61 m"),
        ("NODE_LEASE", "0", "it may be from 3s to 10m"),
        ("OUTBOX_TOTAL_BYTES", "999999999999GiB", "it may be from 1MiB to 1024GiB"),
        ("MAX_FRAME_BYTES", "17MiB", "it may be from 1KiB to 16MiB"),
        ("WRITER_LANES", "65", "config.WRITER_LANES is 65, which nodes refuse: it may be from 1 to 64."),
        ("WRITER_LANES", 65, "WRITER_LANES"),
        ("MAX_CONNECTIONS", "010", "MAX_CONNECTIONS"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT"),
        ("OPEN_CONVERSATIONS", "yes", "OPEN_CONVERSATIONS"),
    ],
)
def test_the_chart_refuses_it_too(name, value, words, helm):
    said = refusal(helm, {"existingSecret": "s", "config": {name: value}})
    assert words in said, said


@pytest.mark.parametrize("name", DOCS.CHOICES)
def test_choices_are_those_of_the_program(name):
    """An algorithm must fit the key, which only the program can tell."""
    about = "JWT_SECRET" if name == "JWT_ALGORITHM" else name
    for choice in DOCS.CHOICES[name]:
        said = refused({name: choice})
        assert name not in said or about == "JWT_SECRET" and "one of" not in said.lower(), said
    assert name in refused({name: "none"})
    assert not jsonschema.Draft7Validator(CONFIG[name]).is_valid("none")


@pytest.mark.parametrize("helm", HELMS)
def test_a_drain_is_no_longer_than_the_program_allows(helm):
    bounds = {s.name: list(s.bounds()) for s in DOCS.settings() if s.name in ("SHUTDOWN_DELAY", "DRAIN_WINDOW")}
    drain = SCHEMA["properties"]["drain"]["properties"]
    found = [drain["shutdownDelay"]["maximum"] * 1000, drain["window"]["maximum"] * 1000]
    assert found == [bounds["SHUTDOWN_DELAY"][1], bounds["DRAIN_WINDOW"][1]]
    assert "window" in refusal(helm, {"existingSecret": "s", "drain": {"window": 3601}})


def grace(values, helm):
    return rendered(values, helm)["Deployment", "chat-switchboard"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("helm", HELMS)
def test_a_hook_before_the_end_lengthens_the_grace_period(helm):
    sleep = {"lifecycle": {"preStop": {"sleep": {"seconds": 20}}}}
    assert grace({}, helm) == 70 and grace(sleep, helm) == 90
    said = refusal(helm, {"existingSecret": "s", **sleep, "drain": {"gracePeriod": 80}})
    assert "drain.shutdownDelay + drain.window + 15 + 20 of lifecycle.preStop = 90 s" in said, said
    request = {"lifecycle": {"preStop": {"httpGet": {"path": "/", "port": 9}}}}
    said = refusal(helm, {"existingSecret": "s", **request})
    assert "set drain.gracePeriod to that time and 70 s more, or use lifecycle.preStop.sleep" in said, said
    assert grace({**request, "drain": {"gracePeriod": 100}}, helm) == 100


KUBERNETES_REFUSES = [
    ({"service": {"nodePort": 30000}}, "service.type is ClusterIP"),
    ({"service": {"externalTrafficPolicy": "Local"}}, "service.type is ClusterIP"),
    ({"service": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}, "set it to LoadBalancer"),
    ({"service": {"type": "LoadBalancer", "clusterIP": "None"}}, "can be headless"),
    ({"service": {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}}, "sessionAffinity is not ClientIP"),
    ({"service": {"loadBalancerSourceRanges": ["10.0.0.1"]}}, "loadBalancerSourceRanges"),
    ({"service": {"ipFamilies": ["IPv4", "IPv4"]}}, "ipFamilies"),
    ({"dnsPolicy": "None"}, "dnsConfig.nameservers"),
    ({"rollout": {"progressDeadlineSeconds": 30}}, "rollout.progressDeadlineSeconds is 30, but new nodes must be ready for"),
    ({"rollout": {"maxUnavailable": "101%"}}, "maxUnavailable"),
    ({"probes": {"liveness": {"successThreshold": 2}}}, "successThreshold"),
    ({"existingSecret": "My_Secret"}, "existingSecret"),
    ({"redis": {"key": "a/b"}}, "key"),
    ({"image": {"tag": "a b"}}, "tag"),
    ({"commonLabels": {"team": "a b"}}, "team"),
    ({"podLabels": {"a b": "x"}}, "a b"),
    ({"podAnnotations": {"a/b/c": "x"}}, "a/b/c"),
    ({"ingress": {"path": "ws"}}, "path"),
    ({"fullnameOverride": "Chat"}, "fullnameOverride"),
    ({"serviceMonitor": {"interval": "15 s"}}, "interval"),
    ({"httpRoute": {"timeouts": {"request": "1.5s"}}}, "request"),
    ({"podDisruptionBudget": {"unhealthyPodEvictionPolicy": "Never"}}, "unhealthyPodEvictionPolicy"),
    ({"lifecycle": {"preStop": ["sleep"]}}, "preStop"),
    ({"lifecycle": {"preStop": {"sleep": {"seconds": "20"}}}}, "seconds"),
    ({"listenAddress": "0.0.0.0:8000"}, "listenAddress"),
    ({"listenAddress": "0.0.0.0,[::]"}, "listenAddress"),
    ({"ingress": {"enabled": True, "hosts": ["*"]}}, "hosts"),
    ({"autoscaling": {"maxReplicas": 1000000}}, "maxReplicas"),
    ({"networkPolicy": {"egress": {"redis": {"morePorts": [70000]}}}}, "morePorts"),
]


@pytest.mark.parametrize("helm", HELMS)
def test_a_setting_that_is_null_is_not_given(helm):
    config = {"PING_INTERVAL": None, "OPEN_CONVERSATIONS": None, "LOG": None, "LOG_FORMAT": None, "WRITER_LANES": None}
    (container,) = rendered({"config": config}, helm)["Deployment", "chat-switchboard"]["spec"]["template"]["spec"]["containers"]
    assert not config.keys() & environment(container).keys()


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("values, words", KUBERNETES_REFUSES, ids=str)
def test_what_kubernetes_refuses_is_refused_before(values, words, helm):
    said = refusal(helm, {"existingSecret": "s"} | values)
    assert words in said, said
