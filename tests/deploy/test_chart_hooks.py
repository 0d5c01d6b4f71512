"""The migration Job and the pods of `helm test` are pods like others: what is demanded of nodes can be demanded of them."""

import pytest

from chart.render import SETS, environment, one, parse, pods, rendered, resources, with_values
from test_chart_contents import files_of

every_set = pytest.mark.parametrize("name", SETS)


def job(name):
    return one(name, "Job")["spec"]["template"]


def pods_of_test(name):
    return {d["spec"]["containers"][0]["name"]: d for (kind, _), d in resources(name).items() if kind == "Pod"}


@every_set
def test_every_container_has_requests_and_a_limit_of_memory(name):
    """A ResourceQuota refuses pods without them."""
    for document, _, spec in pods(name):
        for container in spec["containers"]:
            if container["name"] == "telemetry" or name == "everything" and document["kind"] == "Job":
                continue
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"} and "memory" in resources["limits"]
            assert document["kind"] == "Deployment" or "cpu" in resources["limits"]


@every_set
def test_each_test_pod_has_one_container_and_ends(name):
    """`helm test --logs` of Helm 3 shows only the logs of pods with one container."""
    assert pods_of_test(name).keys() == {"check", "service"}
    for document in pods_of_test(name).values():
        assert len(document["spec"]["containers"]) == 1
        assert document["spec"]["activeDeadlineSeconds"] <= 120


def test_the_jobs_own_database_role():
    files = files_of(job("roles")["spec"])
    assert files == {
        "DATABASE_URL": ("secret", "switchboard-migrator", "DATABASE_URL"),
        "DATABASE_CA_FILE": ("configMap", "postgres-ca", "ca.crt"),
    }
    assert environment(job("roles")["spec"]["containers"][0]) == {
        "DATABASE_URL_FILE": "/run/secrets/switchboard/DATABASE_URL",
        "DATABASE_CA_FILE": "/run/secrets/switchboard/DATABASE_CA_FILE",
        "DATABASE_POOL_SIZE": "20",
        "DATABASE_START_TIMEOUT": "210s",
    }
    nodes = one("roles", "Deployment")["spec"]["template"]["spec"]
    assert files_of(nodes)["DATABASE_URL"] == ("secret", "chat-switchboard", "DATABASE_URL")
    assert environment(nodes["containers"][0])["MIGRATE"] == "false"
    assert "switchboard-migrator" not in str(nodes)
    assert files_of(job("everything")["spec"])["DATABASE_URL"] == ("secret", "owner-of-the-tables", "url")


def test_the_job_waits_for_postgresql_and_says_why_before_kubernetes_ends_it():
    """Kubernetes removes the pods of a Job whose deadline has passed, with their logs."""
    for deadline, wait in [(240, "210s"), (20, "1s")]:
        found = rendered({"migration": {"activeDeadlineSeconds": deadline}})["Job", "chat-switchboard-migrate"]["spec"]
        (container,) = found["template"]["spec"]["containers"]
        assert environment(container)["DATABASE_START_TIMEOUT"] == wait
    found = rendered({"config": {"DATABASE_START_TIMEOUT": "90s"}})["Job", "chat-switchboard-migrate"]["spec"]
    (container,) = found["template"]["spec"]["containers"]
    assert environment(container)["DATABASE_START_TIMEOUT"] == "90s"


def test_placement_is_that_of_the_nodes_unless_the_values_say_otherwise():
    inherited, nodes = job("roles")["spec"], one("roles", "Deployment")["spec"]["template"]["spec"]
    assert inherited["tolerations"] == nodes["tolerations"]
    assert inherited["affinity"] == {"nodeAffinity": nodes["affinity"]["nodeAffinity"]}, "nodes keep off each other, not the Job"
    own = job("everything")["spec"]
    assert own["nodeSelector"] == {"pool": "batch"}
    assert not {"tolerations", "affinity", "priorityClassName"} & own.keys(), "empty values mean none"
    for document in pods_of_test("everything").values():
        spec = document["spec"]
        assert (spec["nodeSelector"], spec["priorityClassName"]) == ({"pool": "sockets"}, "low")
        assert spec["tolerations"] and "preferredDuringSchedulingIgnoredDuringExecution" in spec["affinity"]["nodeAffinity"]


def test_a_mesh_can_be_kept_out():
    metadata = job("everything")["metadata"]
    assert metadata["annotations"] == {"linkerd.io/inject": "disabled"}
    assert metadata["labels"]["sidecar.istio.io/inject"] == "false"
    for document in pods_of_test("everything").values():
        assert document["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"
        assert document["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert document["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    labels = one("everything", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert "sidecar.istio.io/inject" not in labels


def test_environment_and_volumes_of_their_own():
    (container,) = job("everything")["spec"]["containers"]
    assert environment(container)["RUST_BACKTRACE"] == "full"
    assert container["envFrom"] == [{"secretRef": {"name": "migration"}}]
    assert {mount["name"] for mount in container["volumeMounts"]} == {"secrets", "keys"}
    assert {volume["name"] for volume in job("everything")["spec"]["volumes"]} == {"secrets", "keys"}
    check = pods_of_test("everything")["check"]["spec"]
    (container,) = check["containers"]
    assert (environment(container)["NO_COLOR"], environment(container)["RUST_BACKTRACE"]) == ("1", "1")
    assert {volume["name"] for volume in check["volumes"]} == {"secrets", "scratch", "more"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {"secrets", "scratch", "more"}


def test_a_failed_job_is_removed_with_time():
    assert one("minimal", "Job")["spec"]["ttlSecondsAfterFinished"] == 3600
    assert "ttlSecondsAfterFinished" not in one("everything", "Job")["spec"]


@every_set
def test_the_jobs_network_policy_is_there_before_it(name):
    """A hook runs before the release's own policy exists, so its own one is a hook too, with a lower weight."""
    found = resources(name)
    for job in (document for (kind, _), document in found.items() if kind == "Job"):
        policy = found.get(("NetworkPolicy", job["metadata"]["name"]))
        if name == "everything":
            assert policy is None, "this set turns network policies off"
            continue
        annotations, its = job["metadata"]["annotations"], policy["metadata"]["annotations"]
        assert its["helm.sh/hook"] == annotations["helm.sh/hook"]
        assert its["helm.sh/hook-delete-policy"] == annotations["helm.sh/hook-delete-policy"]
        assert int(its["helm.sh/hook-weight"]) < int(annotations["helm.sh/hook-weight"])
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in policy["spec"]
        ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
        assert ports == [[53, 53], [5432]] + ([[4317]] if name == "network-policy" else [])
        main = found["NetworkPolicy", job["metadata"]["name"].removesuffix("-migrate")]["spec"]["egress"]
        assert all(rule in main for rule in policy["spec"]["egress"]), "it allows nothing that nodes may not"


def test_hooks_of_argo_cd_have_their_order_too():
    values = {"existingSecret": "switchboard", "migration": {"annotations": {"helm.sh/hook": None, "argocd.argoproj.io/hook": "PreSync"}}}
    found = parse(with_values("helm4", values).stdout)
    its = found["NetworkPolicy", "chat-switchboard-migrate"]["metadata"]["annotations"]
    assert (its["argocd.argoproj.io/hook"], its["argocd.argoproj.io/sync-wave"]) == ("PreSync", "-1")


def test_the_tests_can_be_left_out():
    found = parse(with_values("helm4", {"existingSecret": "switchboard", "test": {"enabled": False}}).stdout)
    assert not [kind for kind, _ in found if kind == "Pod"]
