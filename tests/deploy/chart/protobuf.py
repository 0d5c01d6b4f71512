"""Reads the Secrets that Helm sends as protobuf: the only objects that its client sends in that form."""

import base64

MAGIC = b"k8s\0"


def fields(data):
    """Pairs of field number and value of a message; numbers, or bytes."""
    position = 0

    def number():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        else:
            assert tag & 7 == 2, "the messages here have no other kinds of fields"
            length = number()
            yield tag >> 3, data[position : position + length]
            position += length


def entries(found, number):
    """A map of texts to bytes."""
    pairs = [dict(fields(value)) for field, value in found if field == number]
    return {pair[1].decode(): pair.get(2, b"") for pair in pairs}


def secret(body):
    """The Secret in a body of `application/vnd.kubernetes.protobuf`."""
    unknown = dict(fields(body.removeprefix(MAGIC)))
    assert dict(fields(unknown[1]))[2] == b"Secret"
    found = list(fields(unknown[2]))
    metadata = list(fields(dict(found)[1]))
    return {
        "metadata": {
            "name": dict(metadata)[1].decode(),
            "labels": {name: value.decode() for name, value in entries(metadata, 11).items()},
        },
        "data": {name: base64.b64encode(value).decode() for name, value in entries(found, 2).items()},
        "type": dict(found).get(3, b"").decode(),
    }
