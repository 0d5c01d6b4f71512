"""Properties of the rendered resources."""

import json
import re
import shutil

import pytest
import yaml

from chart.render import CHART, HELMS, SETS, environment, node, of_kind, one, parse, pods, rendered, resources, text, with_values
from conftest import ROOT

SECRETS_FOLDER = "/run/secrets/switchboard/"
every_set = pytest.mark.parametrize("name", SETS)


def selects(selector, labels):
    return selector.items() <= labels.items()


def files_of(spec):
    """Files in the pod's folder of secrets, each with the kind, name and key of its source."""
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "secrets")
    found = {}
    for source in volume["projected"]["sources"]:
        ((kind, source),) = source.items()
        for item in source["items"]:
            assert item["path"] not in found
            found[item["path"]] = (kind, source["name"], item["key"])
    return found


@every_set
def test_pods_are_restricted(name):
    for document, _, spec in pods(name):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["fsGroup"] == 65532
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
    for account in of_kind(name, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@every_set
def test_secrets_are_files_and_never_variables(name):
    for _, _, spec in pods(name):
        files = files_of(spec) if spec.get("volumes") else {}
        for container in spec["containers"]:
            for variable, value in environment(container).items():
                assert not re.search(r"(REDIS|DATABASE|WEBHOOK)_URL$|SECRET$|PUBLIC_KEY$", variable), variable
                if variable.endswith("_FILE"):
                    file = value.removeprefix(SECRETS_FOLDER)
                    assert file in files and variable in (file, f"{file}_FILE")
                    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "secrets")
                    assert (mount["mountPath"] + "/", mount["readOnly"]) == (SECRETS_FOLDER, True)


@every_set
def test_selectors_match_their_pods(name):
    labels = {document["kind"]: labels for document, labels, _ in pods(name)}
    chosen_by_job = {"app.kubernetes.io/component": "migration"}
    others = [found for kind, found in labels.items() if kind != "Deployment"]
    deployment = one(name, "Deployment")
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in of_kind(name, "Service")]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(name, "PodDisruptionBudget")]
    spec = deployment["spec"]["template"]["spec"]
    selectors += [rule["labelSelector"]["matchLabels"] for rule in spec.get("topologySpreadConstraints", [])]
    for selector in selectors:
        assert selects(selector, labels["Deployment"])
        assert not any(selects(selector, found) for found in others)
    for policy in of_kind(name, "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"]
        of_job = selects(chosen_by_job, wanted)
        assert all(selects(wanted, found) for kind, found in labels.items() if kind == "Job" or not of_job)
        assert not (of_job and any(selects(wanted, found) for kind, found in labels.items() if kind != "Job"))
    # The selector of an existing release must not change in an upgrade.
    assert selectors[0].keys() == {f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")}


@every_set
def test_every_resource_has_a_name_and_a_namespace(name):
    for (kind, resource), document in resources(name).items():
        assert len(resource) <= 63
        metadata = document["metadata"]
        elsewhere = name == "monitoring" and kind == "ConfigMap"
        assert metadata["namespace"] == ("monitoring" if elsewhere else "talk")
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["labels"].get("team") == ("chat" if name == "everything" else None)


@every_set
def test_a_node_has_enough_time_to_drain(name):
    variables = environment(node(name))
    seconds = [int(variables[each].removesuffix("s")) for each in ("SHUTDOWN_DELAY", "DRAIN_WINDOW")]
    grace = one(name, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    expected = {"at-start": 300, "everything": 100}.get(name, sum(seconds) + 15)
    assert grace == expected >= sum(seconds) + 15


@every_set
def test_probes_use_the_admin_port(name):
    container = node(name)
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"http": 8000, "admin": 8001}
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {get["port"] for get in asked.values()} == {"admin"}
    paths = {kind: get["path"] for kind, get in asked.items()}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


@every_set
def test_no_client_reaches_the_admin_port(name):
    clients, metrics = sorted(of_kind(name, "Service"), key=lambda service: len(service["metadata"]["name"]))
    assert "admin" not in [port["targetPort"] for port in clients["spec"]["ports"]]
    assert 8001 not in [port["targetPort"] for port in clients["spec"]["ports"]]
    assert metrics["spec"]["clusterIP"] == "None" and "type" not in metrics["spec"]
    for ingress in of_kind(name, "Ingress"):
        for path in (path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]):
            backend = path["backend"]["service"]
            assert backend == {"name": clients["metadata"]["name"], "port": {"name": "http"}}
    for route in of_kind(name, "HTTPRoute"):
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        assert backend == {"name": clients["metadata"]["name"], "port": clients["spec"]["ports"][0]["port"]}


def test_new_nodes_start_before_old_ones_end():
    spec = one("minimal", "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}
    assert (spec["minReadySeconds"], spec["progressDeadlineSeconds"]) == (30, 1800)
    assert environment(node("minimal"))["NODE_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}


@every_set
def test_either_a_job_or_the_nodes_migrate(name):
    jobs, migrates = of_kind(name, "Job"), environment(node(name))["MIGRATE"]
    assert (len(jobs), migrates) == {"inline": (0, "true"), "at-start": (0, "true"), "by-hand": (0, "false")}.get(
        name, (1, "false")
    )
    for job in jobs:
        annotations = job["metadata"].get("annotations", {})
        spec = job["spec"]["template"]["spec"]
        if name == "everything":
            assert annotations == {"argocd.argoproj.io/hook": "PreSync", "example.com/owner": "chat"}
        else:
            assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
            assert spec["serviceAccountName"] == "default"
        # The hook runs before any resource of the chart exists.
        ours = {resource for _, resource in resources(name)}
        assert not ours & {source for _, source, _ in files_of(spec).values()}
        assert {file.split("_")[0] for file in files_of(spec)} == {"DATABASE"}


def test_secrets_of_the_user():
    everywhere = {"REDIS_URL", "DATABASE_URL", "JWT_SECRET"}
    spec = one("minimal", "Deployment")["spec"]["template"]["spec"]
    assert files_of(spec) == {name: ("secret", "switchboard", name) for name in everywhere}
    assert files_of(one("jwks", "Deployment")["spec"]["template"]["spec"]) == {
        "REDIS_URL": ("secret", "redis-credentials", "url"),
        "REDIS_CA_FILE": ("configMap", "redis-ca", "ca.crt"),
        "DATABASE_URL": ("secret", "postgres-app", "uri"),
        "DATABASE_CA_FILE": ("secret", "postgres-ca", "root.pem"),
    }
    assert environment(node("jwks"))["JWT_JWKS_URL"] == "https://id.example.com/.well-known/jwks.json"
    files = files_of(one("public-key", "Deployment")["spec"]["template"]["spec"])
    assert files["JWT_PUBLIC_KEY"] == ("secret", "identity", "public.pem")
    files = files_of(one("everything", "Deployment")["spec"]["template"]["spec"])
    assert files["JWT_PREVIOUS_SECRET"] == ("secret", "switchboard", "OLD_JWT_SECRET")
    files = files_of(one("webhooks", "Deployment")["spec"]["template"]["spec"])
    assert files["PERSONA_WEBHOOK_SECRET"] == ("secret", "personas", "signature")
    assert files["NOTIFICATION_WEBHOOK_URL"] == ("secret", "switchboard", "NOTIFICATION_WEBHOOK_URL")
    assert "NOTIFICATION_WEBHOOK_SECRET" not in files


def test_sentinels_have_a_password_and_certificates_of_their_own():
    files = files_of(one("sentinels", "Deployment")["spec"]["template"]["spec"])
    assert {name: file for name, file in files.items() if name.startswith("REDIS")} == {
        "REDIS_URL": ("secret", "redis-credentials", "REDIS_URL"),
        "REDIS_PASSWORD": ("secret", "redis-credentials", "password"),
        "REDIS_SENTINEL_PASSWORD": ("secret", "redis-credentials", "sentinel-password"),
        "REDIS_CA_FILE": ("configMap", "redis-ca", "ca.crt"),
        "REDIS_SENTINEL_CA_FILE": ("secret", "sentinel-ca", "root.pem"),
    }
    policy = resources("sentinels")["NetworkPolicy", "chat-switchboard"]["spec"]
    assert [port["port"] for port in policy["egress"][1]["ports"]] == [6379, 26379]


def test_a_redis_cluster_has_its_password_its_certificates_and_all_of_its_ports():
    files = files_of(one("redis-cluster", "Deployment")["spec"]["template"]["spec"])
    assert {name: file for name, file in files.items() if name.startswith("REDIS")} == {
        "REDIS_URL": ("secret", "redis-credentials", "REDIS_URL"),
        "REDIS_PASSWORD": ("secret", "redis-credentials", "password"),
        "REDIS_CA_FILE": ("configMap", "redis-ca", "ca.crt"),
    }
    rule = resources("redis-cluster")["NetworkPolicy", "chat-switchboard"]["spec"]["egress"][1]
    assert [port["port"] for port in rule["ports"]] == [7000, 7001]
    assert rule["to"] == [{"podSelector": {"matchLabels": {"app": "redis-cluster"}}}]


def test_certificates_of_the_nodes_and_the_way_around_a_pooler():
    shown = {
        "REDIS_CLIENT_CERT_FILE": ("secret", "redis-client", "tls.crt"),
        "REDIS_CLIENT_KEY_FILE": ("secret", "redis-client", "tls.key"),
        "REDIS_SENTINEL_CLIENT_CERT_FILE": ("secret", "sentinel-client", "client.pem"),
        "REDIS_SENTINEL_CLIENT_KEY_FILE": ("secret", "sentinel-client", "client.key"),
    }
    of_the_database = {
        "DATABASE_URL": ("secret", "postgres-app", "uri"),
        "DATABASE_PASSWORD": ("secret", "postgres-app", "password"),
        "DATABASE_CLIENT_CERT_FILE": ("secret", "postgres-client", "tls.crt"),
        "DATABASE_CLIENT_KEY_FILE": ("secret", "postgres-client", "tls.key"),
    }
    spec = one("certificates", "Deployment")["spec"]["template"]["spec"]
    files = {name: file for name, file in files_of(spec).items() if name.startswith(("REDIS_SENTINEL", "REDIS_CLIENT", "DATABASE"))}
    # Only the Job migrates, so only it gets the URL for that.
    assert files == shown | of_the_database
    variables = environment(node("certificates"))
    assert variables["DATABASE_CLIENT_KEY_FILE"] == "/run/secrets/switchboard/DATABASE_CLIENT_KEY_FILE"
    assert variables["DATABASE_PASSWORD_FILE"] == "/run/secrets/switchboard/DATABASE_PASSWORD"
    assert variables["DATABASE_POOLER"] == "transaction"
    migration = one("certificates", "Job")["spec"]["template"]["spec"]
    assert files_of(migration) == of_the_database | {"DATABASE_MIGRATE_URL": ("secret", "postgres-app", "direct")}
    assert environment(migration["containers"][0])["DATABASE_POOLER"] == "transaction"


def test_inline_secrets_are_only_in_the_charts_secret():
    secret = one("inline", "Secret")
    planted = set(re.findall(r"planted-[a-z]+", "\n".join(path.read_text() for path in SETS["inline"])))
    assert planted == set(re.findall(r"planted-[a-z]+", json.dumps(secret["stringData"])))
    assert text("inline").count("planted-") == json.dumps(secret).count("planted-")
    sources = files_of(one("inline", "Deployment")["spec"]["template"]["spec"])
    assert {name: (kind, source) for name, (kind, source, _) in sources.items()} == {
        name: ("secret", secret["metadata"]["name"]) for name in secret["stringData"]
    }
    assert re.fullmatch("[0-9a-f]{64}", annotations("inline")["checksum/secret"])
    assert annotations("everything")["switchboard/secret-revision"] == "7"


def annotations(name):
    return one(name, "Deployment")["spec"]["template"]["metadata"]["annotations"]


def test_settings_have_the_form_that_the_program_reads():
    variables = environment(node("everything"))
    assert variables["MAX_CONNECTIONS"] == "250000"
    assert environment(node("autoscaling"))["MAX_CONNECTIONS"] == "1000000"
    assert variables["OPEN_CONVERSATIONS"] == "true"
    assert (variables["LISTEN"], variables["ADMIN_LISTEN"]) == ("[::]:8000", "[::]:8001")
    assert variables["PING_INTERVAL"] == "20"
    assert variables["RUST_BACKTRACE"] == "1"


def test_autoscaling():
    scaler = one("autoscaling", "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in one("autoscaling", "Deployment")["spec"]
    assert scaler["scaleTargetRef"]["name"] == one("autoscaling", "Deployment")["metadata"]["name"]
    connections, cpu, _ = scaler["metrics"]
    assert connections["pods"]["metric"]["name"] == "switchboard_connections"
    assert connections["pods"]["target"]["averageValue"] == "600000"
    assert cpu["resource"]["target"]["averageUtilization"] == 75
    up, down = scaler["behavior"]["scaleUp"], scaler["behavior"]["scaleDown"]
    assert up["stabilizationWindowSeconds"] <= 30
    assert down["stabilizationWindowSeconds"] == 600
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]


def test_network_policy():
    policy = resources("network-policy")["NetworkPolicy", "chat-switchboard"]["spec"]
    clients, admin = policy["ingress"]
    assert [port["port"] for port in clients["ports"]] == [8000]
    ours = {"podSelector": policy["podSelector"]}
    assert [peer for peer in clients["from"] if "namespaceSelector" in peer] and ours in clients["from"]
    assert [port["port"] for port in admin["ports"]] == [8001]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert admin["from"] == [{"podSelector": {}}, monitoring]
    out = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert out == [[53, 53], [6380], [5432], [4317], [443, 8443], [8000]]
    assert policy["egress"][2]["to"] == [{"ipBlock": {"cidr": "10.20.0.0/24"}}]
    # This set has no published keys or webhooks that nodes would have to reach.
    out = [[port["port"] for port in rule["ports"]] for rule in resources("ha")["NetworkPolicy", "chat-switchboard"]["spec"]["egress"]]
    assert out == [[53, 53], [6379], [5432], [8000]]


def test_the_console_is_off_unless_it_has_a_token_in_a_secret_and_only_operators_reach_it():
    for name in ("minimal", "everything", "ha"):
        assert "ADMIN_TOKEN" not in files_of(one(name, "Deployment")["spec"]["template"]["spec"])
    files = files_of(one("console", "Deployment")["spec"]["template"]["spec"])
    assert files["ADMIN_TOKEN"] == ("secret", "operators", "console-token")
    assert files["REDIS_URL"] == ("secret", "switchboard", "REDIS_URL")
    _, admin = resources("console")["NetworkPolicy", "chat-switchboard"]["spec"]["ingress"]
    assert [port["port"] for port in admin["ports"]] == [8001]
    assert {"ipBlock": {"cidr": "10.9.0.0/24"}} in admin["from"] and {"podSelector": {}} in admin["from"]


def test_the_network_policy_is_on_by_default():
    policy = resources("minimal")["NetworkPolicy", "chat-switchboard"]["spec"]
    clients, admin = policy["ingress"]
    assert clients == {"ports": [{"port": 8000}]}, "clients come from anywhere"
    assert [port["port"] for port in admin["ports"]] == [8001] and admin["from"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[53, 53], [6379], [5432], [8000]]
    assert not any("to" in rule for rule in policy["egress"][:3]), "Redis, PostgreSQL and name servers may be anywhere"
    out = [[port["port"] for port in rule["ports"]] for rule in resources("webhooks")["NetworkPolicy", "chat-switchboard"]["spec"]["egress"]]
    assert out == [[53, 53], [6379], [5432], [443], [8000]], "webhooks are reached"
    assert not [kind for kind, _ in resources("everything") if kind == "NetworkPolicy"], "this set turns it off"


def test_ha_values_give_each_node_its_own_machine():
    wanted = "HorizontalPodAutoscaler PodDisruptionBudget NetworkPolicy ServiceMonitor PrometheusRule ConfigMap"
    assert set(wanted.split()) <= {kind for kind, _ in resources("ha")}
    spec = one("ha", "Deployment")["spec"]["template"]["spec"]
    (rule,) = (r for r in spec["topologySpreadConstraints"] if r["topologyKey"] == "kubernetes.io/hostname")
    assert (rule["whenUnsatisfiable"], rule["maxSkew"], rule["minDomains"]) == ("DoNotSchedule", 1, 5000)
    assert one("ha", "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 3
    affinity = one("everything", "Deployment")["spec"]["template"]["spec"]["affinity"]
    assert affinity.keys() == {"nodeAffinity", "podAntiAffinity"}


def test_prometheus_finds_the_nodes():
    monitor = one("monitoring", "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (service,) = (s for s in of_kind("monitoring", "Service") if selects(wanted, s["metadata"]["labels"]))
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (service["spec"]["ports"][0]["name"], "/metrics")
    assert service["spec"]["ports"][0]["targetPort"] == "admin"
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "switchboard"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["talk"]}


def test_alerts_and_dashboards_equal_the_repositorys():
    rules = yaml.safe_load((ROOT / "alerts" / "rules.yaml").read_text())
    rule = one("monitoring", "PrometheusRule")
    assert rule["spec"]["groups"] == rules["groups"]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    boards = {}
    for board in of_kind("monitoring", "ConfigMap"):
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["metadata"]["annotations"] == {"grafana_folder": "Chat"}
        boards |= board["data"]
    paths = list((ROOT / "dashboards").glob("*.json"))
    assert paths and boards.keys() == {f"talk-chat-switchboard-{path.name}" for path in paths}
    for path in paths:
        ours, board = json.loads(path.read_text()), json.loads(boards[f"talk-chat-switchboard-{path.name}"])
        assert board.keys() == ours.keys()
        changed = {key for key in ours if board[key] != ours[key]}
        assert changed == {"uid", "title"} and board["title"] == f"{ours['title']} (talk/chat-switchboard)"
        assert re.fullmatch(f"{ours['uid']}-[0-9a-f]{{8}}", board["uid"]) and len(board["uid"]) <= 40


def test_two_releases_share_no_dashboard():
    values = {"dashboards": {"enabled": True, "namespace": "monitoring"}}
    seen = set()
    for where in ({}, {"release": "talk"}, {"namespace": "other"}):
        found = [d for (kind, _), d in rendered(values, **where).items() if kind == "ConfigMap"]
        for board in found:
            ((key, text),) = board["data"].items()
            names = {board["metadata"]["name"], key, json.loads(text)["uid"], json.loads(text)["title"]}
            assert len(names) == 4 and not names & seen
            seen |= names


@pytest.mark.parametrize("helm", HELMS)
def test_alerts_link_to_the_runbook(helm, tmp_path):
    def links(values, chart=CHART):
        rule = rendered({"prometheusRule": {"enabled": True} | values}, helm, chart=chart)["PrometheusRule", "chat-switchboard"]
        found = [r["annotations"] for group in rule["spec"]["groups"] for r in group["rules"] if "alert" in r]
        assert found and all(each.keys() == found[0].keys() for each in found)
        return found[0]

    assert links({})["runbook"] == "docs/operations/runbook.md#switchboardnonodes"
    ours = links({"runbookUrl": "https://wiki.example.com/chat"})
    assert ours["runbook_url"] == "https://wiki.example.com/chat#switchboardnonodes" and "runbook" not in ours
    # A published chart knows its address.
    copy = shutil.copytree(CHART, tmp_path / "switchboard")
    with (copy / "Chart.yaml").open("a") as file:
        file.write("\nhome: https://git.example.com/chat\n")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    expected = f"https://git.example.com/chat/blob/v{version}/docs/operations/runbook.md#switchboardnonodes"
    assert links({}, copy)["runbook_url"] == expected


def test_full_nodes_are_not_evicted_at_once():
    """A full node is not ready. AlwaysAllow would let a drain of several machines evict all full nodes together."""
    assert one("minimal", "PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"] == "IfHealthyBudget"
    chosen = rendered({"podDisruptionBudget": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}})
    assert chosen["PodDisruptionBudget", "chat-switchboard"]["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_alerts_can_be_disabled_and_labelled():
    rules = yaml.safe_load((ROOT / "alerts" / "rules.yaml").read_text())
    first, *others = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    wanted = {"enabled": True, "disabled": [first], "alertLabels": {"team": "chat"}}
    found = parse(with_values("helm3", {"existingSecret": "switchboard", "prometheusRule": wanted}).stdout)
    groups = found["PrometheusRule", "chat-switchboard"]["spec"]["groups"]
    found = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    assert list(found) == others
    assert {rule["labels"]["team"] for rule in found.values()} == {"chat"}
    assert all("severity" in rule["labels"] for rule in found.values())


def test_a_new_version_of_the_chart_alone_replaces_no_node():
    labels = one("minimal", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels == one("minimal", "Deployment")["spec"]["selector"]["matchLabels"]
