"""Both Helms refuse values that can't work, with an error that names the remedy."""

import pytest
import yaml

from chart.render import CHART, HELMS, IMAGE, parse, refusal, with_values

GOOD = {"existingSecret": "switchboard"}
SECRET = "a-secret-of-more-than-32-bytes-for-tests"

# Bad values, and text that the error must contain. Each Helm words the schema's errors differently, so the name is enough.
SCHEMA = {
    "misspelt key": ({**GOOD, "replicaCuont": 3}, "replicaCuont"),
    "misspelt key inside": ({**GOOD, "drain": {"windows": 60}}, "windows"),
    "wrong type": ({**GOOD, "replicaCount": "three"}, "replicaCount"),
    "unknown setting": ({**GOOD, "config": {"MAX_CONECTIONS": 5}}, "MAX_CONECTIONS"),
    "setting of the wrong type": ({**GOOD, "config": {"OPEN_CONVERSATIONS": "maybe"}}, "OPEN_CONVERSATIONS"),
    "duration without sense": ({**GOOD, "config": {"PING_INTERVAL": "often"}}, "PING_INTERVAL"),
    "setting that the chart sets": ({**GOOD, "config": {"SHUTDOWN_DELAY": "60s"}}, "SHUTDOWN_DELAY"),
    "secret as a setting": ({**GOOD, "config": {"JWT_SECRET": SECRET}}, "JWT_SECRET"),
    "short secret": ({**GOOD, "auth": {"secret": "short"}}, "secret"),
    "short token of the console": ({**GOOD, "console": {"enabled": True, "token": "short"}}, "token"),
    "wrong kind of URL": ({**GOOD, "redis": {"url": "http://redis"}}, "url"),
    "unknown mode": ({**GOOD, "migration": {"mode": "sometimes"}}, "mode"),
    "tag in the image's name": ({**GOOD, "image": {"repository": "images.example.com/switchboard:1"}}, "repository"),
    "misspelt path": ({**GOOD, "ingress": {"hosts": [{"host": "a", "path": "/"}]}}, "hosts"),
    "misspelt key of the Job": ({**GOOD, "migration": {"podAnotations": {}}}, "podAnotations"),
    "misspelt key of the test": ({**GOOD, "test": {"podAnnotations": {}}}, "podAnnotations"),
    "registry of the wrong type": ({**GOOD, "global": {"imageRegistry": ["a"]}}, "imageRegistry"),
    "misspelt probe timer": ({**GOOD, "probes": {"liveness": {"period": 5}}}, "period"),
}

TEMPLATES = {
    "no image": ({**GOOD, "image": {"repository": ""}}, "docker build -t images.example.com/switchboard:"),
    "Secret of a Job that doesn't run": (
        {**GOOD, "migration": {"mode": "start", "existingSecret": "owner"}},
        "migration.existingSecret is set, but migration.mode is start",
    ),
    "two monitors": (
        {**GOOD, "serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
        "serviceMonitor and podMonitor are both enabled",
    ),
    "no way to replace a node": (
        {**GOOD, "rollout": {"maxSurge": "0%", "maxUnavailable": 0}},
        "rollout.maxSurge and rollout.maxUnavailable are both 0",
    ),
    "no Redis": ({"database": GOOD, "auth": GOOD}, "Redis has no URL"),
    "no PostgreSQL": ({"redis": GOOD, "auth": GOOD}, "PostgreSQL has no URL"),
    "no key": ({"redis": GOOD, "database": GOOD}, "no key to verify tokens with"),
    "two places": ({**GOOD, "redis": {"url": "redis://redis", **GOOD}}, "redis.url and redis.existingSecret"),
    "two authorities of sentinels": (
        {**GOOD, "redis": {"sentinelCa": {"existingSecret": "a", "existingConfigMap": "b"}}},
        "redis.sentinelCa.existingSecret and redis.sentinelCa.existingConfigMap",
    ),
    "key of a password without a Secret": (
        {"redis": {"url": "redis://redis", "passwordKey": "word"}, "database": GOOD, "auth": GOOD},
        "redis.passwordKey or redis.sentinelPasswordKey is set",
    ),
    "port of the sentinels": (
        {**GOOD, "redis": {"url": "redis+sentinel://s:26380?addr=t:26380&sentinel_master_name=m"}},
        "redis.url names port 26380, but networkPolicy.egress.redis.sentinelPort is not set",
    ),
    "usual port of the sentinels": (
        {**GOOD, "redis": {"url": "rediss+sentinel://s/1?sentinel_master_name=m"}},
        "redis.url names port 26379, but networkPolicy.egress.redis.sentinelPort is not set",
    ),
    "two authorities": (
        {**GOOD, "database": {"ca": {"existingSecret": "a", "existingConfigMap": "b"}}},
        "database.ca.existingSecret and database.ca.existingConfigMap",
    ),
    "JWKS without a URL": ({**GOOD, "auth": {"method": "jwks"}}, "auth.jwksUrl is empty"),
    "previous secret without a Secret": ({**GOOD, "auth": {"method": "jwks", "jwksUrl": "https://id", "previousKey": "old"}}, "auth.previousKey"),
    "key of another method": ({**GOOD, "auth": {"jwksUrl": "https://id.example.com"}}, "but auth.method is secret"),
    "public key without an algorithm": ({**GOOD, "auth": {"method": "publicKey"}}, "config.JWT_ALGORITHM is empty"),
    "Job before its Secret": (
        {**GOOD, "database": {"url": "postgres://postgres/chat"}, "migration": {"mode": "job"}},
        "doesn't exist yet when the Job runs",
    ),
    "too little grace": ({**GOOD, "drain": {"window": 90, "gracePeriod": 100}}, "= 115 s"),
    "webhook without a URL": (
        {"redis": GOOD, "database": GOOD, "auth": GOOD, "webhooks": {"persona": {"enabled": True}}},
        "webhooks.persona is enabled, but has no URL",
    ),
    "personas without ids": (
        {**GOOD, "webhooks": {"persona": {"enabled": True, "url": "https://example.com"}}},
        "list their ids in config.PERSONA_IDS",
    ),
    "webhook not enabled": (
        {**GOOD, "webhooks": {"notification": {"url": "https://example.com"}}},
        "webhooks.notification.enabled to true",
    ),
    "console without a token": (
        {"redis": GOOD, "database": GOOD, "auth": GOOD, "console": {"enabled": True}},
        "console.enabled is true, but there is no token",
    ),
    "two tokens of the console": (
        {**GOOD, "console": {"enabled": True, "token": SECRET, **GOOD}},
        "console.token and console.existingSecret",
    ),
    "console not enabled": ({**GOOD, "console": {"token": SECRET}}, "set console.enabled to true"),
    "way to no console": (
        {**GOOD, "networkPolicy": {"console": [{"podSelector": {}}]}},
        "set console.enabled to true",
    ),
    "variable that the chart sets": (
        {**GOOD, "extraEnv": [{"name": "DRAIN_WINDOW", "value": "1s"}]},
        "extraEnv has DRAIN_WINDOW",
    ),
    "port that the network policy closes": (
        {**GOOD, "redis": {"url": "rediss://:password@redis.example.com:6380/0"}},
        "redis.url names port 6380, but networkPolicy.egress.redis.port is 6379",
    ),
    "port behind an IPv6 address": (
        {**GOOD, "redis": {"url": "redis://[fd00::6379]:6380/0"}},
        "redis.url names port 6380",
    ),
    "port of keys that the network policy closes": (
        {**GOOD, "auth": {"method": "jwks", "jwksUrl": "https://id.example.com:8443/keys"}},
        "networkPolicy.egress.web.ports is 443",
    ),
    "route without a gateway": ({**GOOD, "httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    "minimum above maximum": (
        {**GOOD, "autoscaling": {"enabled": True, "minReplicas": 20}},
        "minReplicas is above autoscaling.maxReplicas",
    ),
    "scaling after the nodes are full": (
        {**GOOD, "autoscaling": {"enabled": True, "connectionsPerPod": 30000}},
        "config.MAX_CONNECTIONS = 30000",
    ),
    "no such alert": ({**GOOD, "prometheusRule": {"enabled": True, "disabled": ["Nothing"]}}, "no such alert"),
}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("what", SCHEMA | TEMPLATES)
def test_bad_values_are_refused(what, helm):
    values, words = (SCHEMA | TEMPLATES)[what]
    said = refusal(helm, values)
    assert words in said, said
    assert (what in SCHEMA) == ("values.schema.json" in said or "don't meet the specifications" in said)


@pytest.mark.parametrize("helm", HELMS)
def test_null_removes_a_default(helm):
    values = {**GOOD, "config": {"MAX_CONNECTIONS": None}, "podSecurityContext": {"runAsUser": None}}
    pod = parse(with_values(helm, values).stdout)["Deployment", "chat-switchboard"]["spec"]["template"]["spec"]
    assert "runAsUser" not in pod["securityContext"]
    assert "MAX_CONNECTIONS" not in {entry["name"] for entry in pod["containers"][0]["env"]}


def test_every_default_may_be_set_explicitly():
    """A copy of values.yaml with the required values is accepted."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    values["image"]["repository"] = yaml.safe_load(IMAGE[1].read_text())["image"]["repository"]
    assert parse(with_values("helm4", values | GOOD).stdout) == parse(with_values("helm4", GOOD).stdout)
