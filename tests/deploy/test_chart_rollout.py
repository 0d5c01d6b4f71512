"""Rollouts: their duration does not grow with the number of nodes, nothing holds them up, and the time that Helm must have is
the one that notes and documents name. Memory: requests and limits follow from one figure."""

import copy
import re

import pytest
import yaml

from chart.cluster import dry_run
from chart.render import CHART, HELMS, SETS, environment, one, parse, with_values
from chart.rollout import rollout
from conftest import ROOT

DEPLOY = (ROOT / "docs" / "operations" / "deploy.md").read_text()


def revised(deployment):
    """The next revision of a Deployment."""
    return copy.deepcopy(deployment)


def with_required_anti_affinity(deployment):
    """The Deployment with the placement that Kubernetes' documentation shows."""
    changed = copy.deepcopy(deployment)
    spec = changed["spec"]["template"]["spec"]
    spec["topologySpreadConstraints"] = []
    rule = {"topologyKey": "kubernetes.io/hostname", "labelSelector": changed["spec"]["selector"]}
    spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}
    return changed


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 12, 13, 40, 100])
def test_a_rollout_takes_four_steps_at_most(nodes):
    """Each machine has room for a second node, as values-ha.yaml asks for."""
    deployment = one("ha", "Deployment")
    done = rollout(deployment, revised(deployment), nodes, machines=nodes, slots=2)
    assert done.seconds <= 4 * 40 + 5, "a step takes 10 s for a start and 30 s"
    assert done.fewest_ready == nodes and not done.crowded
    spare = -(-nodes // 4)
    done = rollout(deployment, revised(deployment), nodes, machines=nodes + spare, slots=1)
    assert done.seconds <= 4 * (40 + 55) and not done.crowded, "new nodes wait for the drain of old ones"


def test_a_required_anti_affinity_would_take_longer_with_each_node():
    """This is what the chart avoids; it also shows that the model counts what was measured: 85 s a node."""
    deployment = with_required_anti_affinity(one("ha", "Deployment"))
    deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = 1
    seconds = [rollout(deployment, revised(deployment), n, machines=n + 1, slots=2).seconds for n in (6, 12)]
    assert 80 <= (seconds[1] - seconds[0]) / 6 <= 100


def test_placement_of_an_old_revision_never_holds_up_a_new_one():
    """Also from hard to soft and back, which a required anti-affinity would hold up for ever on as many machines as nodes."""
    hard, soft = one("ha", "Deployment"), one("minimal", "Deployment")
    for old, new in ((hard, soft), (soft, hard)):
        assert rollout(old, new, 6, machines=6, slots=2).seconds <= 165
    stuck = rollout(with_required_anti_affinity(hard), soft, 6, machines=6, slots=2, longest=1000)
    assert stuck.seconds is None
    freed = copy.deepcopy(soft)
    freed["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = 1
    assert rollout(with_required_anti_affinity(hard), freed, 6, machines=6, slots=2).seconds


@pytest.mark.parametrize("name", SETS)
def test_the_chart_asks_for_no_required_anti_affinity(name):
    if name != "roles":
        affinity = one(name, "Deployment")["spec"]["template"]["spec"].get("affinity", {})
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in affinity.get("podAntiAffinity", {})


def timeout_of(text):
    """Minutes in `--timeout …m`."""
    (minutes,) = set(re.findall(r"--timeout (\d+)m", text))
    return int(minutes)


TIMES = {
    "two nodes": ({}, 2, 6),
    "one step": ({"rollout": {"maxSurge": "100%"}}, 2, 5),
    "values-ha": (yaml.safe_load((CHART / "values-ha.yaml").read_text()), 12, 11),
    "forty": ({"replicaCount": 40}, 40, 11),
    "one at a time": ({"replicaCount": 12, "rollout": {"maxSurge": 1}}, 12, 33),
    "slow": ({"drain": {"window": 600}, "replicaCount": 4}, 4, 48),
    "a long Job": ({"migration": {"activeDeadlineSeconds": 3600}}, 2, 61),
}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", TIMES)
def test_the_notes_name_a_time_that_suffices(name, helm, tmp_path):
    values, nodes, minutes = TIMES[name]
    values = values | {"existingSecret": "switchboard"}
    notes = dry_run(helm, tmp_path, values).partition("NOTES:")[2]
    assert timeout_of(notes) == minutes
    deployment = parse(with_values(helm, values).stdout)["Deployment", "chat-switchboard"]
    spec = deployment["spec"]["template"]["spec"]
    probe = spec["containers"][0]["startupProbe"]
    latest = probe["periodSeconds"] * probe["failureThreshold"]
    spare = int(re.search(r"replaces up to (\d+) of", notes)[1])
    grace = spec["terminationGracePeriodSeconds"]
    worst = rollout(deployment, revised(deployment), nodes, nodes + spare, slots=1, start=latest, drain=grace)
    assert worst.seconds <= minutes * 60


def test_the_documents_name_these_times():
    assert timeout_of(DEPLOY) == TIMES["values-ha"][2]
    assert "11 minutes, with values-ha.yaml, and 6 minutes with two nodes" in DEPLOY
    deployment = one("ha", "Deployment")
    reckoned = max(rollout(deployment, revised(deployment), n, machines=n, slots=2).seconds for n in range(3, 13))
    assert "2 min 40 s in all" in DEPLOY and 155 <= reckoned <= 165


def test_helm_does_not_give_up_before_the_job():
    """Its default is 5 minutes; the pod of a Job that is too late has 30 s to end."""
    assert one("minimal", "Job")["spec"]["activeDeadlineSeconds"] + 30 <= 300 - 30


MIB = {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024}


def mebibytes(quantity):
    return int(quantity[:-2]) * MIB[quantity[-2:]]


def test_requests_and_limits_follow_from_the_measured_memory_of_a_connection():
    """One figure: what scaling.md has measured, node and kernel together. The chart, its README and its values name the same."""
    row = re.search(r"^\| an idle connection \|([^|]*)\|", (ROOT / "docs/operations/scaling.md").read_text(), re.MULTILINE)[1]
    measured = sum(float(number) for number in re.findall(r"([\d.]+) KiB", row))
    figure = int(re.search(r"connectionKiB\" }}(\d+)", (CHART / "templates/_rollout.tpl").read_text())[1])
    # In a pod, more was measured than on a machine without limits: the chart's figure may be above, hardly below.
    assert 0.75 * figure <= measured <= 1.05 * figure, f"scaling.md says {measured} KiB, the chart {figure}"
    for path in ("values.yaml", "README.md"):
        text = (CHART / path).read_text().replace("\n# ", " ")
        assert re.findall(r"A connection takes about (\d+) KiB", text) == [str(figure)]
    for name in ("minimal", "ha"):
        container = one(name, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        connections = 64 + int(environment(container)["MAX_CONNECTIONS"]) * figure / 1024
        assert connections <= mebibytes(container["resources"]["requests"]["memory"])
        # OUTBOX_TOTAL_BYTES, and the buffers of the kernel.
        assert connections + 256 + 256 <= mebibytes(container["resources"]["limits"]["memory"])


@pytest.mark.parametrize("helm", HELMS)
def test_notes_warn_of_a_limit_below_what_all_connections_take(helm, tmp_path):
    values = {"existingSecret": "switchboard", "config": {"MAX_CONNECTIONS": 100000}}
    assert "a node with all its connections may take 1296 MiB" in dry_run(helm, tmp_path, values)
    enough = values | {"resources": {"limits": {"memory": "1.5Gi"}}}
    assert "would be killed" not in dry_run(helm, tmp_path, enough)
    assert "would be killed" not in dry_run(helm, tmp_path, {"existingSecret": "switchboard"})
