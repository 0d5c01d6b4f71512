"""The life of a release, with both real Helms against an API without a cluster: what is created first, what is left behind, and
what an upgrade does to the number of nodes."""

import re

import pytest
import yaml

from chart.cluster import cluster, dry_run, entry, helm_in
from chart.render import CHART, HELMS, IMAGE, SETS

@pytest.fixture(params=HELMS)
def release(request, tmp_path):
    with cluster(tmp_path) as state:
        state.put("create", ("v1", "Secret", "talk", "switchboard"), {"data": {}})
        state.helm = lambda *words, **options: helm_in(state, request.param, *words, **options)
        state.values = lambda values: values_file(tmp_path, values)
        state.name = request.param
        yield state


def values_file(folder, values):
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump({"existingSecret": "switchboard"} | values))
    return [CHART, *IMAGE, "--values", file]


def test_a_release_leaves_nothing_behind(release):
    release.helm("install", "chat", *release.values({}), "--wait", "--timeout", "30s")
    assert release.kept("Job", "Pod") == [] and "NetworkPolicy/chat-switchboard" in release.kept()
    assert "NetworkPolicy/chat-switchboard-migrate" not in release.kept()
    release.helm("upgrade", "chat", *release.values({"replicaCount": 5}), "--wait", "--timeout", "30s")
    assert release.find("Deployment", "chat-switchboard")["spec"]["replicas"] == 5
    said = release.helm("test", "chat", "--logs", "--timeout", "30s").stdout
    assert "log of check" in said and "log of service" in said
    release.helm("rollback", "chat", "--wait", "--timeout", "30s")
    release.helm("uninstall", "chat", "--timeout", "30s")
    left = {"Pod/chat-switchboard-test-check", "Pod/chat-switchboard-test-service", "Secret/switchboard"}
    assert set(release.kept()) - {"ReplicaSet/chat-switchboard-1"} == left, "the pods of the test stay for their logs"
    for name in ("check", "service"):
        assert release.find("Pod", f"chat-switchboard-test-{name}")["metadata"]["labels"]["app.kubernetes.io/component"] == "test"


def test_the_jobs_network_policy_comes_before_the_job(release):
    release.helm("install", "chat", *release.values({}), "--timeout", "30s")
    changes = [change for change in release.log if "migrate" in change[2]]
    policy, job = (("create", kind, "chat-switchboard-migrate") for kind in ("NetworkPolicy", "Job"))
    assert changes[:2] == [policy, job]
    others = [change for change in release.log if change[0] == "create" and change[1] in ("Deployment", "NetworkPolicy")]
    assert others[0] == policy and changes.index(job) < release.log.index(others[-1])


def test_a_migration_that_fails_changes_nothing_and_leaves_its_logs(release):
    """Helm 3.17 also leaves the Job's network policy until the next upgrade; later ones remove it."""
    release.helm("install", "chat", *release.values({}), "--timeout", "30s")
    before = set(release.kept())
    release.failing.add("chat-switchboard-migrate")
    failed = release.helm("upgrade", "chat", *release.values({"replicaCount": 7}), "--timeout", "30s", check=False)
    assert failed.returncode != 0 and release.find("Deployment", "chat-switchboard")["spec"]["replicas"] == 2
    left = set(release.kept()) - before
    assert left - {"NetworkPolicy/chat-switchboard-migrate"} == {"Job/chat-switchboard-migrate"}
    assert release.find("Job", "chat-switchboard-migrate")["spec"]["ttlSecondsAfterFinished"] == 3600
    release.failing.clear()
    release.helm("upgrade", "chat", *release.values({"replicaCount": 7}), "--timeout", "30s")
    assert set(release.kept()) == before


def test_a_job_whose_secret_is_missing_fails(release):
    """The API of these tests starts no pod without its Secret, so the tests above show that the Job needs nothing of the chart."""
    values = {"migration": {"existingSecret": "missing"}}
    assert release.helm("install", "chat", *release.values(values), "--timeout", "30s", check=False).returncode != 0


def numbers(release):
    """What each change of the Deployment set its number of nodes to."""
    return [obj["spec"]["replicas"] for _, key, obj in release.events if key[1] == "Deployment"]


def test_a_release_that_scales_from_its_start_never_sets_the_number_of_nodes(release):
    """A rollback would set it back to what it was at that time."""
    scaling = {"autoscaling": {"enabled": True}}
    release.helm("install", "chat", *release.values(scaling), "--timeout", "30s")
    release.scale("chat-switchboard", 9)
    for _ in range(2):
        release.helm("upgrade", "chat", *release.values(scaling | {"secretRevision": "2"}), "--timeout", "30s")
        assert "replicas:" not in release.helm("get", "manifest", "chat").stdout
    release.helm("rollback", "chat", "1", "--timeout", "30s")
    assert numbers(release)[1:] and set(numbers(release)[1:]) == {9}


def test_turning_autoscaling_on_keeps_the_number_of_nodes(release):
    """Helm would take the number back with the value, and Kubernetes reads no number as 1."""
    release.helm("install", "chat", *release.values({"replicaCount": 7}), "--timeout", "30s")
    for revision in ("1", "2", "3"):
        scaling = {"autoscaling": {"enabled": True}, "secretRevision": revision}
        release.helm("upgrade", "chat", *release.values(scaling), "--timeout", "30s")
    assert set(numbers(release)) == {7}
    release.helm("upgrade", "chat", *release.values({"replicaCount": 3}), "--timeout", "30s")
    assert numbers(release)[-1] == 3
    assert "switchboard/keeps-replicas" not in release.find("Deployment", "chat-switchboard")["metadata"].get("annotations", {})


def test_after_the_autoscaler_changed_the_number_nobody_sets_it_back(release):
    """With server-side apply (Helm 4), a revision with a number of its own could not be rolled back to without --force-conflicts.
    Helm 3 must keep setting the current number: without it, Kubernetes would take 1."""
    release.helm("install", "chat", *release.values({"replicaCount": 7}), "--timeout", "30s")
    scaling = {"autoscaling": {"enabled": True}}
    release.helm("upgrade", "chat", *release.values(scaling), "--timeout", "30s")
    assert "replicas: 7" in release.helm("get", "manifest", "chat").stdout
    release.scale("chat-switchboard", 9)
    release.helm("upgrade", "chat", *release.values(scaling | {"secretRevision": "2"}), "--timeout", "30s")
    manifest = release.helm("get", "manifest", "chat").stdout
    assert ("replicas: 9" if release.name == "helm3" else "minReplicas") in manifest
    assert numbers(release)[-1] == 9
    if release.name == "helm3":
        return
    assert "\n  replicas:" not in manifest and "keeps-replicas" not in manifest
    release.scale("chat-switchboard", 12)
    release.helm("rollback", "chat", "3", "--timeout", "30s")
    assert numbers(release)[-1] == 12
    # A revision from before is another matter, as deploy.md says.
    refused = release.helm("rollback", "chat", "1", "--timeout", "30s", check=False)
    assert refused.returncode != 0 and "conflict" in refused.stderr
    release.helm("rollback", "chat", "1", "--force-conflicts", "--timeout", "30s")
    assert numbers(release)[-1] == 7


def test_a_client_side_update_after_an_apply_keeps_the_number(release):
    """As an older Helm makes it: what then takes the number back would be read as 1."""
    release.helm("install", "chat", *release.values({"replicaCount": 7}), "--timeout", "30s")
    release.helm("upgrade", "chat", *release.values({"autoscaling": {"enabled": True}}), "--timeout", "30s")
    release.scale("chat-switchboard", 9)
    fields = release.find("Deployment", "chat-switchboard")["metadata"]["managedFields"]
    fields.append(entry("helm", "Update", ["template"]))
    scaling = {"autoscaling": {"enabled": True}, "secretRevision": "2"}
    release.helm("upgrade", "chat", *release.values(scaling), "--timeout", "30s")
    assert "\n  replicas: 9" in release.helm("get", "manifest", "chat").stdout and numbers(release)[-1] == 9


@pytest.mark.parametrize("helm", HELMS)
def test_notes_warn_of_secrets_among_the_values(helm, tmp_path):
    values = yaml.safe_load(SETS["inline"][0].read_text())
    notes = dry_run(helm, tmp_path, values).partition("NOTES:")[2]
    assert "keeps: DATABASE_URL, JWT_SECRET, PERSONA_WEBHOOK_SECRET, PERSONA_WEBHOOK_URL, REDIS_URL." in notes
    assert "planted-" not in notes
    assert "migrations" not in notes and "each node when it starts" in notes


@pytest.mark.parametrize("helm", HELMS)
def test_notes_name_the_adapters_rule(helm, tmp_path):
    said = dry_run(helm, tmp_path, {"existingSecret": "switchboard", "autoscaling": {"enabled": True}})
    assert "seriesQuery: 'switchboard_connections{" in said and "were applied by a Job" in said
    assert not re.findall(r"^  replicas:", said, re.MULTILINE)
