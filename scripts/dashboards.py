#!/usr/bin/env python3
"""Generates dashboards/*.json. Each panel is one line here; the rest of its JSON is the same for all panels.

    scripts/dashboards.py            writes the files
    scripts/dashboards.py --check    fails if the files differ from its output
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
REDIS, STORE = 'part="redis"', 'part="store"'
NOT_OK, RESTART = 'result!="ok"', 'reason="restart"'
OF = 'job=~"$job", instance=~"$instance"'
NODE = "on (job, instance)"


def metric(name, labels=""):
    ours = name != "up" and not name.startswith("process_")
    return f"{'switchboard_' if ours else ''}{name}{{{OF}{', ' + labels if labels else ''}}}"


def rate(name, labels=""):
    return f"rate({metric(name, labels)}[$__rate_interval])"


def total(name, labels="", by=""):
    return f"sum{f' by ({by})' if by else ''} ({rate(name, labels)})"


def quantile(q, name, by=""):
    """A quantile; without samples it is empty instead of NaN, because a comparison drops NaN."""
    return f"histogram_quantile({q}, sum by (le{', ' + by if by else ''}) ({rate(name + '_bucket')})) >= 0"


def share(part, whole):
    """A part as a share of the whole; 0 instead of empty while the whole is 0."""
    return f"({part}) / clamp_min({whole}, 1e-9)"


def per(cost, what):
    """A cost per unit of work; empty while there is no work, because the cost itself is never 0."""
    return f"({cost}) / ({what} > 0)"


def else_0(expr):
    """0 if there is no series; without `on ()`, 0 would be a further series beside existing ones."""
    return f"({expr}) or on () vector(0)"


def targets(queries, instant):
    return [
        {
            "refId": chr(ord("A") + at),
            "datasource": SOURCE,
            "expr": expr,
            "legendFormat": legend,
            "editorMode": "code",
            "instant": instant,
            "range": not instant,
        }
        for at, (expr, legend) in enumerate(queries)
    ]


def thresholds(*steps, base="green"):
    """The base colour, and for each (value, colour) that colour from the value on."""
    return {"mode": "absolute", "steps": [{"color": base, "value": None}] + [{"color": c, "value": v} for v, c in steps]}


def panel(kind, title, description, unit, queries, defaults, options, size):
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": targets(queries, instant=kind == "stat"),
        "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []},
        "options": options,
        "gridPos": {"w": size[0], "h": size[1], "x": 0, "y": 0},
    }


def stat(title, description, unit, expr, *steps, base="green", legend="", mappings=(), width=3):
    """The current value. A range query would show the last value long after the nodes were gone."""
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    options = {
        "reduceOptions": reduce,
        "colorMode": "background" if steps else "none",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "value_and_name" if legend else "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    defaults = {"color": {"mode": "thresholds"}, "thresholds": thresholds(*steps, base=base), "mappings": list(mappings), "noValue": "–"}
    return panel("stat", title, description, unit, [(expr, legend)], defaults, options, (width, 4))


def graph(title, description, unit, *queries, stacked=False, limit=None, width=8):
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 20 if stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if limit is not None else "off"},
    }
    defaults = {"color": {"mode": "palette-classic"}, "custom": custom, "min": 0}
    if limit is not None:
        defaults["thresholds"] = thresholds((limit, "red"))
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, description, unit, queries, defaults, options, (width, 8))


def row(title, panels, collapsed=False):
    return {"type": "row", "title": title, "collapsed": collapsed, "panels": panels}


def laid_out(rows):
    """Sets position and id of every panel: rows below each other, panels from left to right. A collapsed row contains its
    panels; the panels of an open row follow it."""
    out, y, number = [], 0, 1
    for one in rows:
        inside, x, height = [], 0, 0
        head = {**one, "id": number, "gridPos": {"w": WIDTH, "h": 1, "x": 0, "y": y}}
        number, y = number + 1, y + 1
        for each in one["panels"]:
            place = each["gridPos"]
            if x + place["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            inside.append({**each, "id": number, "gridPos": {**place, "x": x, "y": y}})
            number, x, height = number + 1, x + place["w"], max(height, place["h"])
        y += height
        out.append({**head, "panels": inside if one["collapsed"] else []})
        out += [] if one["collapsed"] else inside
    return out


def variable(name, label, query):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        # "All" stands for the listed values; `.*` would match every program in Prometheus.
        "includeAll": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def dashboard(uid, title, description, span, rows):
    source = {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {"selected": False, "text": "default", "value": "default"},
        "options": [],
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "hide": 0,
        "skipUrlSync": False,
    }
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["switchboard"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": f"now-{span}", "to": "now"},
        "timepicker": {},
        "refresh": "30s",
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "Switchboard",
                "tags": ["switchboard"],
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {
            "list": [
                source,
                variable("job", "Job", "label_values(switchboard_build_info, job)"),
                variable("instance", "Node", 'label_values(switchboard_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": laid_out(rows),
    }


UP_OR_DOWN = [
    {"type": "value", "options": {"0": {"text": "up", "index": 0}}},
    {"type": "range", "options": {"from": 1, "to": None, "result": {"text": "down", "index": 1}}},
]
DEAD = f"{metric('up')} == 0 and {NODE} last_over_time({metric('build_info')}[6h])"
NOT_TAKEN = total("commands_total", 'command="send", result=~"unavailable|unknown"')
SENDS = total("commands_total", 'command="send"')

VERDICT = row(
    "Verdict",
    [
        stat("Nodes ready", "Nodes that accept new clients.", "none", else_0(f"sum({metric('ready')})"), (1, "green"), base="red"),
        stat("Nodes not ready", "Nodes that drain, are full, or do not answer.", "none", else_0(f"count(({metric('ready')} == 0) or {NODE} ({DEAD}))"), (1, "yellow")),
        stat("Connections", "Open WebSockets.", "short", f"sum({metric('connections')})"),
        stat("Messages", "Messages stored and acked.", "ops", total("messages_accepted_total")),
        stat("Delivery p99", "Time from the store's commit to a node's sockets.", "s", quantile(0.99, "delivery_seconds"), (0.25, "yellow"), (0.5, "red")),
        stat("Not taken", "Share of sends that failed for reasons other than the sender's.", "percentunit", share(NOT_TAKEN, SENDS), (0.001, "yellow"), (0.01, "red")),
        stat("Redis", "Down for any node?", "none", f"sum({metric('degraded', REDIS)})", (1, "red"), mappings=UP_OR_DOWN),
        stat("Store", "Down for any node?", "none", f"sum({metric('degraded', STORE)})", (1, "red"), mappings=UP_OR_DOWN),
        stat("Versions", "Nodes of each version.", "none", f"count by (version, commit) ({metric('build_info')})", legend="{{version}} {{commit}}", width=24),
    ],
)

ON_CALL = dashboard(
    "switchboard-on-call",
    "Switchboard: on call",
    "The state of the deployment, and the place of a fault. The alerts' runbook is docs/operations/runbook.md.",
    "1h",
    [
        VERDICT,
        row(
            "Connections",
            [
                graph("Connections", "Open WebSockets by dialect.", "short", (f"sum by (dialect) ({metric('connections')})", "{{dialect}}"), stacked=True, width=6),
                graph("Opens", "WebSockets opened per second, by dialect.", "ops", (total("opens_total", by="dialect"), "{{dialect}}"), stacked=True, width=6),
                graph("Closes by reason", "WebSockets closed per second, by reason; and silent ones that gave way to a new one of their user.", "ops", (total("closes_total", by="reason"), "{{reason}}"), (total("connections_gave_way_total"), "gave way"), stacked=True, width=6),
                graph("Refusals by reason", "Connections refused per second, before or while they opened.", "ops", (total("handshake_refusals_total", by="reason"), "{{reason}}"), stacked=True, width=6),
            ],
        ),
        row(
            "Messages and delivery",
            [
                graph("Commands by result", "Commands per second by result, without ok.", "ops", (else_0(total("commands_total", NOT_OK, by="command, result")), "{{command}} {{result}}"), stacked=True),
                graph("Messages and deliveries", "Messages acked and frames delivered to sockets, per second.", "ops", (total("messages_accepted_total"), "messages"), (total("deliveries_total"), "deliveries")),
                graph("Delivery", "Time from the store's commit to the sockets of a node; between nodes it includes the difference of their clocks.", "s", (quantile(0.5, "delivery_seconds"), "p50"), (quantile(0.99, "delivery_seconds"), "p99"), limit=0.5),
                graph("Ack", "Time from a send's arrival to its ack.", "s", (quantile(0.5, "send_ack_seconds"), "p50"), (quantile(0.99, "send_ack_seconds"), "p99")),
                graph("Gaps", "Gaps found in logs per second, open gaps, gaps that several tries did not close, and acks that such a gap made unknown, and holes that the store has for good, per second.", "short", (total("gaps_found_total"), "found/s"), (f"sum({metric('gaps_open')})", "open"), (f"sum({metric('gaps_stuck')})", "stuck"), (total("acks_given_up_total"), "acks given up/s"), (total("log_holes_total"), "holes/s"), (total("resyncs_total"), "resyncs/s"), (total("store_set_backs_total"), "set-backs of the store/s")),
                graph("Dropped", "Events dropped per second: for slow readers by class, and because a queue was full.", "ops", (total("outbox_drops_total", by="class"), "outbox {{class}}"), (total("ephemeral_dropped_total"), "ephemeral"), (total("bus_publish_dropped_total"), "to other nodes")),
            ],
        ),
        row(
            "Redis",
            [
                graph("Degraded", "Nodes for which a part is down; 1 for 'through the store' if messages between nodes go through the store.", "short", (f"sum by (part) ({metric('degraded')})", "{{part}} down"), (f"max({metric('relaying')})", "through the store")),
                graph("Redis: latency", "99th percentile of the time of a call, by operation.", "s", (quantile(0.99, "redis_call_seconds", by="operation"), "{{operation}}")),
                graph("Redis: errors", "Failed calls per second, by operation.", "ops", (total("redis_errors_total", by="operation"), "{{operation}}"), stacked=True),
                graph("Redis: shards down", "Shards of a Redis Cluster, of 64, without a master that answers, for the node that lacks most; masters that do not answer a node; shards that got another master, per second.", "short", (f"max({metric('redis_shards_down')})", "shards down"), (else_0(f"count({metric('redis_master_up')} == 0)"), "masters that don't answer"), (total("redis_shard_moves_total"), "shard moves/s")),
                graph("Redis: refused", "Data per second that no node of this deployment signed, or that was signed too long ago, by place.", "ops", (total("redis_refused_total", by="place"), "{{place}}"), stacked=True),
            ],
        ),
        row(
            "Store",
            [
                graph("Store: latency", "99th percentile of the time of a call, by operation.", "s", (quantile(0.99, "store_call_seconds", by="operation"), "{{operation}}")),
                graph("Store: errors", "Failed calls per second, by operation.", "ops", (else_0(total("store_errors_total", by="operation")), "{{operation}}"), stacked=True),
                graph("Entries per commit", "Mean number of entries in a group commit; at most 400.", "short", (share(total("store_batch_entries_sum"), total("store_batch_entries_count")), "entries")),
                graph("Store: waiting", "Calls that wait for a connection of their pool, and nodes that refuse heavy reads.", "short", (f"sum by (pool) ({metric('store_pool_waiting')})", "{{pool}}"), (f"sum({metric('slow_reads')})", "nodes that refuse")),
                graph("Store: refused", "Calls per second refused because too many waited, by pool.", "ops", (total("store_pool_refused_total", by="pool"), "{{pool}}"), stacked=True),
                graph("Unread answers", "Bytes of answers over REST that wait until clients read them, and reads that were refused because of them (per second).", "short", (f"sum({metric('unread_answer_bytes')})", "bytes"), (total("unread_answer_refusals_total"), "refused/s")),
                graph("Heavy reads", "History, searches and lists that run, that wait for earlier ones of their user, and that were refused because the user had too many (per second).", "short", (f"sum({metric('heavy_reads')})", "run"), (f"sum({metric('heavy_reads_waiting')})", "wait"), (total("heavy_read_refusals_total"), "refused/s")),
            ],
        ),
        row(
            "Auth and limits",
            [
                graph("Not let in", "Connections per second with a bad token or none in time.", "ops", (total("handshake_refusals_total", 'reason=~"invalid_token|token_expired|token_revoked|blocked|auth_timeout"', by="reason"), "{{reason}}"), stacked=True),
                graph("Rate limited", "Commands per second that a budget of their user refused, by budget; dropped typing indicators included.", "ops", (total("rate_limit_refusals_total", by="budget"), "{{budget}}"), stacked=True),
                graph("Published keys", "Keys under JWT_JWKS_URL that verify tokens now; 0 without that setting, and if none can be used.", "short", (metric("published_keys"), "{{instance}}")),
                graph("Published keys: age", "Time since the last successful fetch; 0 if there was none.", "s", (f"(time() - {metric('keys_fetched_timestamp_seconds')}) * ({metric('keys_fetched_timestamp_seconds')} > bool 0)", "{{instance}}")),
                graph("Published keys: fetches", "Fetches per second, by result.", "ops", (total("key_fetches_total", by="result"), "{{result}}")),
                graph("Ended for their tokens", "Connections per second that ended because their token expired or was revoked, or because an admin blocked or disconnected their user.", "ops", (total("closes_total", 'reason=~"token_expired|token_revoked|blocked|disconnected"', by="reason"), "{{reason}}")),
                graph("Restrictions", "Blocks and revocations by admins that stand, as a share of MAX_REVOCATIONS, by node.", "percentunit", (f"{metric('restrictions')} / {metric('restrictions_limit')}", "{{instance}}"), limit=0.9),
            ],
            collapsed=True,
        ),
        row(
            "Saturation",
            [
                graph("Sockets against the limit", "By node.", "percentunit", (f"{metric('sockets')} / {metric('connections_limit')}", "{{instance}}"), limit=0.8),
                graph("CPU", "Cores in use, by node.", "short", (rate("process_cpu_seconds_total"), "{{instance}}")),
                graph("Memory", "Resident memory, by node.", "bytes", (metric("process_resident_memory_bytes"), "{{instance}}")),
                graph("Open files", "Share of the open files that a node may have.", "percentunit", (f"{metric('process_open_fds')} / {metric('process_max_fds')}", "{{instance}}"), limit=0.85),
                graph("Queues", "Queued events: for delivery, to be published, received; and sockets whose answers wait until the client has read more.", "short", (f"sum({metric('answers_waiting')})", "sockets with answers"), (f"sum({metric('delivery_queue')})", "delivery"), (f"sum({metric('bus_publish_queue')})", "publish"), (f"sum({metric('bus_receive_queue')})", "receive")),
                graph("Tasks", "Tasks of the runtime, by node; they follow the connections.", "short", (metric("tasks"), "{{instance}}")),
                graph("Panics", "Panics per second by task, and tasks that fail again and again.", "short", (total("task_panics_total", by="task"), "{{task}}"), (f"sum({metric('tasks_failing')})", "failing")),
                graph("Outboxes", "Bytes that wait for slow readers, their bound, and slow readers per second that were closed because of it.", "bytes", (f"sum({metric('outbox_bytes')})", "waiting"), (f"sum({metric('outbox_limit_bytes')})", "bound"), (total("outbox_shed_total"), "closed/s")),
                graph("Without a token", "Sockets that showed no valid token so far.", "short", (metric("unauthenticated_sockets"), "{{instance}}")),
            ],
            collapsed=True,
        ),
        row(
            "Rollout",
            [
                graph("Nodes by version", "Nodes of each version.", "short", (f"count by (version, commit) ({metric('build_info')})", "{{version}} {{commit}}"), stacked=True),
                graph("Draining", "Draining nodes, and connections that they close per second.", "short", (f"sum({metric('draining')})", "nodes"), (else_0(total("closes_total", RESTART)), "closes/s")),
                graph("Uptime", "Time since the start of each node.", "s", (f"time() - {metric('process_start_time_seconds')}", "{{instance}}")),
                graph("Leases", "Leases lost per second, and connections of dead nodes removed per second.", "ops", (total("lease_losses_total"), "lost"), (total("reaped_connections_total"), "reaped")),
            ],
            collapsed=True,
        ),
    ],
)

# Forecast the sum; otherwise nodes that are gone would be forecast beside their replacements.
IN_A_WEEK = f"predict_linear(sum({metric('connections')})[7d:$__interval], 7 * 86400)"
CPU = f"sum({rate('process_cpu_seconds_total')})"
MESSAGES, DELIVERIES = total("messages_accepted_total"), total("deliveries_total")
SENDING = 'operation=~"admit|publish"'
APPEND = 'operation="append"'

CAPACITY = dashboard(
    "switchboard-capacity",
    "Switchboard: capacity",
    "Usage, limits and cost per unit of work, and when more is needed. docs/operations/scaling.md says what to add.",
    "7d",
    [
        row(
            "Connections",
            [
                graph("Sockets against the limit", "By node; above 80 % add nodes.", "percentunit", (f"{metric('sockets')} / {metric('connections_limit')}", "{{instance}}"), limit=0.8),
                graph("Connections and limit", "Over all nodes.", "short", (f"sum({metric('connections')})", "connections"), (f"sum({metric('connections_limit')})", "limit"), (f"sum({metric('users_online')})", "users")),
                graph("Connections in a week", "Linear forecast from the last week; one from a single day would follow the time of day.", "short", (f"clamp_min({IN_A_WEEK}, 0)", "in a week"), (f"sum({metric('connections')})", "now")),
                graph("Memory per connection", "Resident memory of a node divided by its sockets; meaningless for an empty node.", "bytes", (f"{metric('process_resident_memory_bytes')} / clamp_min({metric('sockets')}, 1)", "{{instance}}")),
                graph("Open files", "Share of the open files that a node may have.", "percentunit", (f"{metric('process_open_fds')} / {metric('process_max_fds')}", "{{instance}}"), limit=0.85),
                graph("Lifetime of connections", "Median lifetime of connections that ended.", "s", (quantile(0.5, "connection_duration_seconds"), "p50")),
            ],
        ),
        row(
            "Work",
            [
                graph("CPU", "Cores in use, by node.", "short", (rate("process_cpu_seconds_total"), "{{instance}}")),
                graph("CPU per message", "CPU of all nodes per acked message and per frame delivered to a socket; meaningless at low traffic.", "s", (per(CPU, MESSAGES), "per message"), (per(CPU, DELIVERIES), "per delivery")),
                graph("Deliveries per message", "Sockets that a message reaches, on average.", "short", (per(DELIVERIES, MESSAGES), "deliveries")),
                graph("Data", "Bytes per second of stored data, the JSON beside the texts of messages (MAX_DATA_BYTES).", "Bps", (total("message_data_bytes_total"), "stored")),
                graph("Logs followed", "Conversations and inboxes that each node follows.", "short", (metric("followed_logs"), "{{instance}}")),
                graph("Hints", "Hints of new messages given to sockets per second, hints dropped because too many waited, and automatic joins given up for room.", "ops", (total("hints_total"), "hints"), (total("hints_dropped_total"), "dropped"), (total("joins_dropped_total"), "joins given up")),
                graph("Hints: sockets", "Sockets that get hints of conversations to which they don't listen, and members of this node who wait for one.", "short", (f"sum({metric('hinted_sockets')})", "sockets"), (f"sum({metric('hints_waiting')})", "waiting")),
                graph("Presence", "Users whose presence listeners were told, counted for each conversation, and for each socket in the last minutes; corrections per second.", "short", (f"sum({metric('presence_shown')})", "shown"), (f"sum({metric('presence_told')})", "told"), (total("presence_corrected_total"), "corrected/s")),
                graph("Queues", "Queued events: for delivery, to be published, received, for webhooks.", "short", (f"sum({metric('delivery_queue')})", "delivery"), (f"sum({metric('bus_publish_queue')})", "publish"), (f"sum({metric('bus_receive_queue')})", "receive"), (f"max by (hook) ({metric('webhook_queue')})", "{{hook}}"), (f"sum({metric('notification_queue')})", "notifications")),
                graph("Notifications", "Age in seconds of the oldest notification that waits for the webhook.", "s", (f"max({metric('notification_oldest_seconds')})", "oldest")),
                graph("Outboxes", "Bytes that wait for slow readers, by node.", "bytes", (metric("outbox_bytes"), "{{instance}}")),
            ],
        ),
        row(
            "Redis",
            [
                graph("Calls", "Calls per second, by operation.", "ops", (total("redis_call_seconds_count", by="operation"), "{{operation}}"), stacked=True),
                graph("Calls per message", "Calls for sending, per message; they include publications of typing and presence.", "short", (per(total("redis_call_seconds_count", SENDING), MESSAGES), "calls")),
                graph("Time per call", "Mean time of a call, by operation.", "s", (share(total("redis_call_seconds_sum", by="operation"), total("redis_call_seconds_count", by="operation")), "{{operation}}")),
                graph("Presence look-ups", "Share of the users who were looked up for notifications and hints, and whom the node knew without asking Redis.", "percentunit", (share(total("presence_known_total"), f"{total('presence_known_total')} + {total('presence_asked_total')}"), "known")),
                graph("Cache", "Share of resumes that the recent-message cache served.", "percentunit", (share(total("recent_cache_hits_total"), f"{total('recent_cache_hits_total')} + {total('recent_cache_misses_total')}"), "served")),
            ],
        ),
        row(
            "Store",
            [
                graph("Calls", "Calls per second, by operation.", "ops", (total("store_call_seconds_count", by="operation"), "{{operation}}"), stacked=True),
                graph("Appends per message", "Group commits per message; below 1 when a commit holds several messages.", "short", (per(total("store_call_seconds_count", APPEND), MESSAGES), "appends")),
                graph("Entries per commit", "Mean number of entries in a group commit; at most 400.", "short", (share(total("store_batch_entries_sum"), total("store_batch_entries_count")), "entries")),
                graph("Time per call", "Mean time of a call, by operation.", "s", (share(total("store_call_seconds_sum", by="operation"), total("store_call_seconds_count", by="operation")), "{{operation}}")),
                graph("Connections in use", "Share of the connections of each pool that are in use.", "percentunit", (share(f"sum by (pool) ({metric('store_pool_in_use')})", f"sum by (pool) ({metric('store_pool_size')})"), "{{pool}}")),
                graph("Wait for a connection", "99th percentile of the time that a call waits for a connection of its pool.", "s", (quantile(0.99, "store_pool_wait_seconds", by="pool"), "{{pool}}")),
                graph("Retention", "Entries removed per second, hours since everything old was removed, and by how many hours the oldest entry is overdue.", "short", (total("retention_removed_entries_total"), "removed/s"), (f"(time() - (max({metric('retention_done_timestamp_seconds')}) > 0)) / 3600", "hours since the last pass"), (f"max({metric('retention_overdue_seconds')}) / 3600", "hours overdue")),
                graph("Search index", "Segments added per second, and logs that wait.", "short", (total("search_segments_total"), "segments/s"), (f"sum({metric('search_index_queue')})", "logs that wait")),
            ],
        ),
    ],
)


def main():
    stale = []
    for name, one in (("on-call", ON_CALL), ("capacity", CAPACITY)):
        path, text = FOLDER / f"{name}.json", json.dumps(one, indent=2, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"outdated, run scripts/dashboards.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
