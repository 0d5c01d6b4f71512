"""What the OpenAPI document can't say about valid requests; schemathesis loads this file (tests/it/rest/generated.rs)."""

import schemathesis


def whole(value):
    """JSON Schema counts 456.0 as an integer; the server takes whole numbers without a decimal point only."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value


def readable(data):
    """Texts with U+0000 are refused, of which JSON Schema says nothing in a value of any type."""
    if isinstance(data, str):
        return data.replace("\0", "")
    if isinstance(data, list):
        return [readable(item) for item in data]
    if isinstance(data, dict):
        return {readable(name): readable(item) for name, item in data.items()}
    return data


def complete(part):
    """Puts what the document's extensions mean into the schemas, as tests/it/rest/document.rs does."""
    if isinstance(part, list):
        return [complete(item) for item in part]
    if not isinstance(part, dict):
        return part
    part = {name: complete(value) for name, value in part.items()}
    if (integers := part.pop("x-takes-integers", None)) is not None:
        part = {"oneOf": [part, {"type": "integer", **integers}]}
    if (values := part.pop("x-takes-values", None)) is not None:
        part = {"oneOf": [part, {"enum": values}]}
    return part


@schemathesis.hook
def before_load_schema(context, raw_schema):
    raw_schema["components"] = complete(raw_schema["components"])


@schemathesis.hook
def map_case(context, case):
    mode = getattr(getattr(case, "meta", None), "generation", None)
    if mode is not None and not mode.mode.is_positive:
        return case
    # One position at most, and no offset with the last one.
    query = case.query if isinstance(case.query, dict) else {}
    positions = [name for name in ("before_seq", "after_seq", "around_seq") if name in query]
    for name in positions[1:]:
        query.pop(name)
    if "around_seq" in query:
        query.pop("offset", None)
    body = case.body
    if isinstance(body, dict):
        body = whole(body)
        # No persona is configured.
        body.pop("persona_id", None)
        # An id must be one of this conversation, which has no message with a generated id.
        if isinstance(body.get("reply_to"), str):
            body["reply_to"] = None
        if isinstance(body.get("message_ids"), list):
            body["message_ids"] = [1 if isinstance(item, str) else item for item in body["message_ids"]]
        # A text may be empty only beside data.
        if case.operation.path.endswith(("/messages", "/messages/{message}")):
            body["data"] = readable(body.get("data"))
            if body["data"] is None and not body.get("content"):
                body["content"] = "text"
        # A time in the future is refused, and so are both at once.
        if isinstance(body.get("issued_until"), str):
            body["issued_until"] = "2020-01-01T00:00:00Z"
            body.pop("jti", None)
        # One of the three is needed.
        if "conversation_id" in body and not (body.get("message_ids") or body.get("up_to_seq") or body.get("delivered_seq")):
            body["up_to_seq"] = 1
        case.body = body
    return case
