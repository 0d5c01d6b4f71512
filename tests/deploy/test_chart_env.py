"""Environment variables of the user, and the addresses that nodes must reach."""

import pytest

from chart.render import HELMS, environment, refusal, rendered

INLINE = {
    "redis": {"url": "redis://redis"},
    "database": {"url": "postgres://u@postgres/chat"},
    "auth": {"secret": "a-secret-of-more-than-32-bytes-for-tests"},
}


def variable(name, value="1", **more):
    return {"name": name, "value": value, **more}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("place", ["extraEnv", "test.extraEnv", "migration.extraEnv"])
@pytest.mark.parametrize(
    "given, words",
    [
        ([variable("JWT_SECRET")], "{} has JWT_SECRET, which the chart sets itself: use its value for it, auth.secret, auth.existingSecret"),
        ([variable("SECRET_KEY")], "{} has SECRET_KEY, which the chart sets itself"),
        ([variable("JWT_SECRET_FILE")], "{} has JWT_SECRET_FILE, which the chart sets itself"),
        ([variable("DATABASE_URL")], "{} has DATABASE_URL, which the chart sets itself"),
        ([variable("REDIS_CA_FILE")], "{} has REDIS_CA_FILE, which the chart sets itself: use its value for it, redis.ca"),
        ([variable("MIGRATE")], "use its value for it, migration.mode"),
        ([variable("DATABASE_POOL_SIZE")], "{} has DATABASE_POOL_SIZE, and config"),
        ([variable("A"), variable("B"), variable("A")], "{} has A twice"),
        ([variable("A", 5)], "{}: the value of A is not a text: put it in quotes"),
        ([variable("A", 0.5)], "{}: the value of A is not a text"),
        ([variable("A", True)], "{}: the value of A is not a text"),
        ([variable("A", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}})], "{}: A has a value and a valueFrom"),
    ],
)
def test_variables_that_would_end_a_node_are_refused(place, given, words, helm):
    section, _, key = place.partition(".")
    values = {"existingSecret": "s", "config": {"DATABASE_POOL_SIZE": 20}, section: {key: given} if key else given}
    said = refusal(helm, values)
    expected = words.format(place)
    if place != "extraEnv":
        expected = expected.replace(", and config", ", and ")
    assert expected in said, said


@pytest.mark.parametrize("helm", HELMS)
def test_each_container_has_its_own_variables(helm):
    """The test has those of the nodes, so it may not have them again; the Job has not."""
    both = {"extraEnv": [variable("A")], "migration": {"extraEnv": [variable("A", "2")]}}
    found = rendered(both, helm)
    (job,) = found["Job", "chat-switchboard-migrate"]["spec"]["template"]["spec"]["containers"]
    assert environment(job)["A"] == "2"
    said = refusal(helm, {"existingSecret": "s", **both, "test": {"extraEnv": [variable("A")]}})
    assert "test.extraEnv has A, and config or extraEnv, which the test takes from the nodes, has it too" in said
    said = refusal(helm, {"existingSecret": "s", "extraEnv": [variable("A B")]})
    assert "extraEnv" in said and "pattern" in said


@pytest.mark.parametrize("helm", HELMS)
def test_texts_for_settings_are_what_set_string_makes(helm):
    config = {"MAX_CONNECTIONS": "5000", "OPEN_CONVERSATIONS": "true", "PROXY_PROTOCOL": False, "PING_INTERVAL": 20}
    (container,) = rendered({"config": config}, helm)["Deployment", "chat-switchboard"]["spec"]["template"]["spec"]["containers"]
    found = environment(container)
    assert [found[name] for name in config] == ["5000", "true", "false", "20"]


ALLOWED = {
    "usual": {"database": {"url": "postgres://u:p@one,two:5432/chat?sslmode=require"}},
    "several hosts": {
        "database": {"url": "postgres://u:p%2F@one:5433,two:5434,[fd00::1]:5435/chat"},
        "networkPolicy": {"egress": {"database": {"port": 5433, "morePorts": [5434, 5435]}}},
    },
    "ports as parameters": {
        "database": {"url": "postgresql://u@/chat?host=one,two&port=5432,5433"},
        "networkPolicy": {"egress": {"database": {"morePorts": [5433]}}},
    },
    "socket": {"database": {"url": "postgres://u@/chat?host=/run/postgresql&port=9"}},
    "sentinels": {
        "redis": {"url": "redis+sentinel://a:p@s:26380/1?addr=t:26381&addr=u&sentinel_master_name=m"},
        "networkPolicy": {"egress": {"redis": {"sentinelPort": 26379, "morePorts": [26380, 26381]}}},
    },
    "cluster": {
        "redis": {"url": "rediss+cluster://a:p@r-0:7000?addr=r-1:7001&addr=[fd00::1]:7002&addr=r-3"},
        "networkPolicy": {"egress": {"redis": {"port": 7000, "morePorts": [7001, 7002, 6379]}}},
    },
    "cluster on the usual port": {"redis": {"url": "redis+cluster://r-0?addr=r-1&addr=r-2%3A6379"}},
    "a rule of one's own": {
        "redis": {"url": "redis://r:7000"},
        "networkPolicy": {"egress": {"extra": [{"ports": [{"port": 7000}]}]}},
    },
    "a rule for all ports": {"redis": {"url": "redis://r:7000"}, "networkPolicy": {"egress": {"extra": [{"to": []}]}}},
    "no policy": {"redis": {"url": "redis://r:7000"}, "networkPolicy": {"enabled": False}},
    "private webhook": {
        "webhooks": {"notification": {"enabled": True, "url": "http://10.96.0.9:8080/hook"}},
        "networkPolicy": {"egress": {"web": {"ports": [8080]}}},
    },
    "IPv6 webhook": {
        "webhooks": {"notification": {"enabled": True, "url": "http://[fd00::9]/hook"}},
        "networkPolicy": {"egress": {"web": {"ports": [80]}}},
    },
}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("what", ALLOWED)
def test_ports_that_the_policy_allows_pass(what, helm):
    found = rendered(INLINE | {"existingSecret": "s"} | ALLOWED[what], helm)
    several = {"several hosts": {5433, 5434, 5435}, "sentinels": {26379, 26380, 26381}, "cluster": {6379, 7000, 7001, 7002}}
    if what in several:
        opened = [port["port"] for rule in found["NetworkPolicy", "chat-switchboard"]["spec"]["egress"] for port in rule["ports"]]
        assert set(opened) > several[what]
    if "url" in ALLOWED[what].get("redis", {}):
        assert one_secret(found)["REDIS_URL"] == ALLOWED[what]["redis"]["url"]


def one_secret(found):
    (secret,) = (document["stringData"] for (kind, _), document in found.items() if kind == "Secret")
    return secret


WEB = {"webhooks": {"notification": {"enabled": True, "url": "https://n.example.com:8443/"}}}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    "values, words",
    [
        (
            {"database": {"url": "postgres://u@one:5432,two:5433/chat"}},
            "database.url names port 5433, but networkPolicy.egress.database.port is 5432: nodes could not reach it. To allow it, add it to "
            "networkPolicy.egress.database.morePorts",
        ),
        ({"database": {"url": "postgres://u@one:5433/chat"}}, "set networkPolicy.egress.database.port to 5433"),
        (
            {"database": {"url": "postgres://u@one/chat"}, "networkPolicy": {"egress": {"database": {"port": 6432}}}},
            "database.url names port 5432, but networkPolicy.egress.database.port is 6432",
        ),
        ({"database": {"url": "postgres://u@/chat?host=a,b&port=5432,9"}}, "database.url names port 9"),
        (
            {
                "redis": {"url": "redis+sentinel://s?addr=t%3A26380&sentinel_master_name=m"},
                "networkPolicy": {"egress": {"redis": {"sentinelPort": 26379}}},
            },
            "redis.url names port 26380, but networkPolicy.egress.redis.sentinelPort is 26379",
        ),
        (
            {"redis": {"url": "redis+cluster://r-0?addr=r-1:7001"}},
            "redis.url names port 7001, but networkPolicy.egress.redis.port is 6379: nodes could not reach it. To allow it, add it to "
            "networkPolicy.egress.redis.morePorts",
        ),
        ({"redis": {"url": "redis+cluster://r-0:7000?addr=r-1:7000"}}, "set networkPolicy.egress.redis.port to 7000"),
        (WEB, "webhooks.notification.url names port 8443, but networkPolicy.egress.web.ports is 443"),
        (
            {"auth": {"method": "jwks", "jwksUrl": "http://keys.example.com/"}},
            "auth.jwksUrl names port 80, but networkPolicy.egress.web.ports is 443",
        ),
        (
            {"auth": {"method": "jwks", "jwksUrl": "https://id"}, "networkPolicy": {"egress": {"web": {"ports": [8443]}}}},
            "auth.jwksUrl names port 443, but networkPolicy.egress.web.ports is 8443",
        ),
        (
            {"webhooks": {"notification": {"enabled": True, "url": "http://hooks.talk.svc:80/"}}},
            "webhooks.notification.url is http to hooks.talk.svc:80, which nodes refuse, because the requests hold messages",
        ),
        ({"webhooks": {"notification": {"enabled": True, "url": "http://10.example.com/"}}}, "is http to 10.example.com"),
        ({"webhooks": {"notification": {"enabled": True, "url": "http://172.32.0.1/"}}}, "is http to 172.32.0.1"),
    ],
)
def test_ports_that_the_policy_closes_are_named(values, words, helm):
    said = refusal(helm, INLINE | {"existingSecret": "s"} | values)
    assert words in said, said


@pytest.mark.parametrize("helm", HELMS)
def test_the_charts_secret_has_a_name_of_its_own(helm):
    for place in ("existingSecret", "redis", "auth", "migration", "webhooks"):
        theirs = {"existingSecret": "chat-switchboard"}
        given = {
            "existingSecret": theirs, "redis": {"existingSecret": "s", "redis": theirs}, "auth": {"existingSecret": "s", "auth": theirs},
            "migration": {"existingSecret": "s", "migration": theirs},
            "webhooks": {"existingSecret": "s", "webhooks": {"notification": theirs | {"enabled": True}}},
        }[place]  # fmt: skip
        said = refusal(helm, {**given, "database": {"url": "postgres://u@postgres/chat"}})
        assert "existingSecret is chat-switchboard, which is also the name of the chart's own Secret" in said, said
    assert rendered({"existingSecret": "chat-switchboard"}, helm), "without secrets among the values the chart has no Secret"


@pytest.mark.parametrize("helm", HELMS)
def test_a_webhooks_url_among_the_values_asks_for_no_key_of_a_shared_secret(helm):
    """A key that a Secret lacks keeps every pod from starting."""

    def files(hook):
        values = {"webhooks": {"persona": {"enabled": True} | hook}, "config": {"PERSONA_IDS": "ada"}}
        (volume,) = rendered(values, helm)["Deployment", "chat-switchboard"]["spec"]["template"]["spec"]["volumes"]
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        return {item["path"]: s["name"] for s in sources for item in s["items"] if item["path"].startswith("PERSONA")}

    url = {"url": "https://ai.example.com"}
    assert files(url) == {"PERSONA_WEBHOOK_URL": "chat-switchboard"}
    assert files(url | {"existingSecret": "p"}) == {"PERSONA_WEBHOOK_URL": "chat-switchboard", "PERSONA_WEBHOOK_SECRET": "p"}
    assert files({}) == {"PERSONA_WEBHOOK_URL": "switchboard", "PERSONA_WEBHOOK_SECRET": "switchboard"}
