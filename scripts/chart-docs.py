"""Generates the documentation of the chart's values from its sources: `scripts/chart-docs.py`, or `--check` to compare.

- helm/switchboard/README.md, below the mark: a table of the values, from the comments of values.yaml;
- helm/switchboard/values.schema.json, `config`: the settings, from docs/operations/configuration.md.

Needs PyYAML (target/tools/python has it).
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "switchboard"
MARK = "<!-- From here on, scripts/chart-docs.py writes. -->\n"

# Settings that have their own values, so that `config` doesn't accept them.
ELSEWHERE = {
    "LISTEN": "`listenAddress`, port 8000",
    "ADMIN_LISTEN": "`listenAddress`, port 8001",
    "NODE_ID": "the pod's name",
    "REDIS_URL": "`redis.url`, `redis.existingSecret`",
    "REDIS_CA_FILE": "`redis.ca`",
    "DATABASE_URL": "`database.url`, `database.existingSecret`",
    "DATABASE_CA_FILE": "`database.ca`",
    "MIGRATE": "`migration.mode`",
    "JWT_SECRET": "`auth.secret`, `auth.existingSecret`",
    "JWT_PUBLIC_KEY": "`auth.publicKey`, `auth.existingSecret`",
    "JWT_JWKS_URL": "`auth.jwksUrl`",
    "SHUTDOWN_DELAY": "`drain.shutdownDelay`",
    "DRAIN_WINDOW": "`drain.window`",
    "PERSONA_WEBHOOK_URL": "`webhooks.persona`",
    "PERSONA_WEBHOOK_SECRET": "`webhooks.persona`",
    "NOTIFICATION_WEBHOOK_URL": "`webhooks.notification`",
    "NOTIFICATION_WEBHOOK_SECRET": "`webhooks.notification`",
}


def settings():
    """Every setting that `serve` uses: name, default, unit, meaning, and true for a secret."""
    for line in (ROOT / "docs" / "operations" / "configuration.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            names, default, unit, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
            if "Not used by serve" not in meaning:
                yield names.split("`")[1], default.split(";")[0].strip("`"), unit, meaning, "_FILE`" in names


def schema_of(default, unit, meaning):
    """JSON schema of a setting's value."""
    if unit == "true or false":
        kind = {"type": "boolean"}
    elif unit == "duration":
        kind = {"type": ["string", "integer"], "pattern": "^[0-9]+ *(ms|s|m|h|d)?$", "minimum": 0}
    elif unit == "bytes":
        kind = {"type": ["string", "integer"], "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)?$", "minimum": 0}
    elif default.isdigit():
        kind = {"type": "integer", "minimum": 0}
    else:
        kind = {"type": "string"}
    return {"description": f"{meaning} ({unit}; default: {default})"} | kind


def config_schema():
    properties = {}
    for name, default, unit, meaning, secret in settings():
        if name in ELSEWHERE:
            continue
        if secret:
            sys.exit(f"{name} is a secret: give it its own value in the chart and list it in ELSEWHERE")
        properties[name] = schema_of(default, unit, meaning)
    return properties


def schema():
    path = CHART / "values.schema.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["properties"]["config"]["properties"] = config_schema()
    return path, json.dumps(written, indent=2, ensure_ascii=False) + "\n"


def values(node, lines, path=""):
    """Walks values.yaml: (path, default, comment) of each value; the default of a group is None."""
    for key, value in node.value:
        comment = comment_above(key.start_mark.line, lines)
        name = f"{path}{key.value}"
        is_group = isinstance(value, yaml.MappingNode) and any(
            comment_above(child.start_mark.line, lines) for child, _ in value.value
        )
        if not comment:
            sys.exit(f"values.yaml: {name} has no comment")
        yield name, None if is_group else yaml.safe_load(yaml.serialize(value)), comment
        if is_group:
            yield from values(value, lines, f"{name}.")


def comment_above(line, lines):
    words = []
    while line > 0 and (text := lines[line - 1].strip()).startswith("#"):
        words.insert(0, text.lstrip("# "))
        line -= 1
    return " ".join(words)


def readme():
    path = CHART / "README.md"
    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        sys.exit(f"{path} lacks the line {MARK.strip()}")
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    rows = ["", "## Values", "", "| value | default | meaning |", "| --- | --- | --- |"]
    for name, default, comment in values(yaml.compose(text), text.splitlines()):
        shown = "" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
        name = f"**`{name}`**" if default is None else f"`{name}`"
        rows.append(f"| {name} | {shown} | {escape(comment)} |")
    rows += ["", "## Settings with their own values", "", "| setting | value |", "| --- | --- |"]
    rows += [f"| `{name}` | {value} |" for name, value in ELSEWHERE.items()]
    return path, head + mark + "\n".join(rows) + "\n"


def escape(text):
    """Escapes bars, which would end a cell, and <words>, which would be HTML."""
    return re.sub(r"<(\w+)>", r"`<\1>`", text.replace("|", "\\|"))


def main(check):
    stale = []
    for path, text in (schema(), readme()):
        if path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"run scripts/chart-docs.py: {', '.join(map(str, stale))} is outdated")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
