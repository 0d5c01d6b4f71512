"""A rollout as Kubernetes does it, second by second: its Deployment controller and its scheduler, as far as a rendered
Deployment concerns them. It counts how long a rollout takes on given machines, without a cluster."""

from dataclasses import dataclass, field

HOST = "kubernetes.io/hostname"


@dataclass(eq=False)
class Pod:
    revision: dict
    machine: int | None = None
    started: int | None = None
    ends: int | None = None


@dataclass
class Result:
    """Seconds until all nodes are new and ready (what Helm waits for), and what held meanwhile; None if it never ends."""

    seconds: int | None
    fewest_ready: int
    crowded: bool = field(default=False)


def resolve(amount, nodes, up):
    if isinstance(amount, int):
        return amount
    percent = nodes * int(amount.removesuffix("%"))
    return -(-percent // 100) if up else percent // 100


def anti_affinity(pod_spec):
    rules = pod_spec.get("affinity", {}).get("podAntiAffinity", {})
    return [rule for rule in rules.get("requiredDuringSchedulingIgnoredDuringExecution", []) if rule["topologyKey"] == HOST]


def home_for(revision, pods, machines, slots):
    """The machine on which the scheduler puts a new pod of this revision, if there is one."""
    homes = {machine: [] for machine in range(machines)}
    for pod in pods:
        if pod.machine is not None:
            homes[pod.machine].append(pod)
    # The scheduler leaves out pods that end.
    counts = [sum(pod.revision is revision and pod.ends is None for pod in here) for here in homes.values()]
    return next((machine for machine in homes if fits(revision, machine, homes[machine], counts, slots)), None)


def fits(revision, machine, here, counts, slots):
    if len(here) >= slots:
        return False
    # Required anti-affinity counts pods until they are gone, and holds in both directions. All pods are the release's nodes.
    if here and (anti_affinity(revision) or any(anti_affinity(pod.revision) for pod in here)):
        return False
    for rule in revision.get("topologySpreadConstraints", []):
        if rule["topologyKey"] == HOST and rule["whenUnsatisfiable"] == "DoNotSchedule":
            assert rule["matchLabelKeys"] == ["pod-template-hash"], "other revisions would count"
            least = 0 if len(counts) < rule.get("minDomains", 1) else min(counts)
            if counts[machine] + 1 - least > rule["maxSkew"]:
                return False
    return True


def rollout(old, new, nodes, machines, slots, start=10, drain=55, longest=4 * 3600):
    """Replaces `nodes` nodes of the Deployment `old` by those of `new`, on machines with room for `slots` nodes each."""
    before, after = (deployment["spec"]["template"]["spec"] for deployment in (old, new))
    strategy = new["spec"]["strategy"]["rollingUpdate"]
    surge = resolve(strategy["maxSurge"], nodes, True)
    fewer = resolve(strategy["maxUnavailable"], nodes, False)
    steady = new["spec"]["minReadySeconds"]
    pods = [Pod(before, machine=index % machines, started=-steady - start) for index in range(nodes)]
    result = Result(None, nodes)
    for now in range(longest):
        pods = [pod for pod in pods if pod.ends is None or pod.ends > now]
        live = [pod for pod in pods if pod.ends is None]
        ready = [pod for pod in live if pod.started is not None and now >= pod.started + start]
        available = [pod for pod in ready if now >= pod.started + start + steady]
        fresh = [pod for pod in live if pod.revision is after]
        result.fewest_ready = min(result.fewest_ready, len(ready))
        homes = [pod.machine for pod in fresh if pod.machine is not None]
        result.crowded |= len(homes) != len(set(homes))
        if len(live) == nodes == sum(pod.revision is after for pod in available):
            result.seconds = now
            return result
        # The controller: old nodes go as far as enough others are available, new ones come up to the surge.
        waiting = len(fresh) - sum(pod.revision is after for pod in available)
        to_end = min(len(live) - (nodes - fewer) - waiting, len(available) - (nodes - fewer))
        for pod in [pod for pod in live if pod.revision is before][: max(to_end, 0)]:
            pod.ends = now + drain
            live.remove(pod)
        pods += [Pod(after) for _ in range(min(nodes - len(fresh), nodes + surge - len(live)))]
        # The scheduler.
        for pod in [pod for pod in pods if pod.machine is None]:
            if (home := home_for(after, pods, machines, slots)) is None:
                break
            pod.machine, pod.started = home, now
    return result
