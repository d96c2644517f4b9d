"""Files with random damage: their bytes, or the values in their JSON."""

import copy
import json
import struct
from typing import Any

from hypothesis import strategies as st

# What a value becomes: other types, other ranges, what Python and JSON take for each other.
_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 2000, 2**31, 2**63, 10**30, 10**400, -(10**400)),
    *(0.5, -0.0, 1e-300, 1e300, 16.0, "", "8", "nan", "\ud800", "\x00", "x" * 10_000),
    *([], {}, [[]], [None], [1] * 1000, {"a": {"a": {}}}, {"kind": "unet"}, [1, "2"], "é🙂"),
]
_KEYS = ["more", "", "kind", "\ud800", "../x", "__metadata__"]
_BYTES = st.sampled_from([b"\x00", b"\xff", b'"', b"{", b"}", b"[", b",", b"9", b"-", b"e", b"\\u"])


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Flipped, lost, doubled or new bytes, in a few places; or a beginning alone."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        # Half of them at the beginning, where headers are.
        limit = len(data) if draw(st.booleans()) else min(len(data), 400)
        at = draw(st.integers(0, max(0, limit - 1)))
        match draw(st.sampled_from(["flip", "cut", "drop", "double", "insert", "length"])):
            case "flip" if data:
                data[at] ^= draw(st.integers(1, 255))
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 64))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(_BYTES) * draw(st.sampled_from([1, 1, 3, 5000]))
            case "length":
                number = draw(st.sampled_from([0, 1, 8, 2**16, 2**26, 2**32, 2**63, 2**64 - 1]))
                data[:8] = struct.pack("<Q", number)
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, whole: bytes) -> bytes:
    """Another value, a field less or a field more, in a few places."""
    content = json.loads(whole)
    for _ in range(draw(st.integers(1, 3))):
        at: Any = content
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 4)):
                at = at[key]
                continue
            _change(draw, at, key)
            break
    return json.dumps(content).encode()


def _change(draw: st.DrawFn, at: Any, key: Any) -> None:
    match draw(st.sampled_from(["value", "value", "value", "number", "lose", "more", "swap"])):
        case "value":
            at[key] = copy.deepcopy(draw(st.sampled_from(_VALUES)))
        case "number":
            at[key] = draw(st.integers() | st.floats(allow_nan=True))
        case "lose":
            del at[key]
        case "more":
            extra = copy.deepcopy(draw(st.sampled_from(_VALUES)))
            if isinstance(at, dict):
                at[
                    draw(st.sampled_from(["more", "", "kind", "\ud800", "../x", "__metadata__"]))
                ] = extra
            else:
                at.append(extra)
        case "swap":
            other = draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
            at[key], at[other] = at[other], at[key]


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Of a file that is JSON, of one that begins with a header in it, or of any."""
    if whole[:1] == b"{":
        return damaged_json(whole) | damaged_bytes(whole)
    length = int.from_bytes(whole[:8], "little")
    if whole[8:9] != b"{":
        return damaged_bytes(whole)
    head, data = whole[8 : 8 + length], whole[8 + length :]
    headers = damaged_json(head).map(lambda text: struct.pack("<Q", len(text)) + text + data)
    return headers | damaged_bytes(whole)
