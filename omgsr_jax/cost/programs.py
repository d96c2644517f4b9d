"""What is read off a compiled program: its traffic between devices, with loops counted in full."""

import re
from collections import Counter
from collections.abc import Iterator

_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "s8": 1, "u8": 1}
_COLLECTIVE = re.compile(
    r"= (?P<shapes>\(?[^=]*?) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_COMMENT = re.compile(r"/\*.*?\*/")  # long tuples have their elements numbered: /*index=5*/
_SHAPE = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<sizes>[\d,]*)\]")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_NAME = re.compile(r"%(?P<name>[\w.-]+)")
_LOOP = re.compile(r" while\(.*condition=%?(?P<condition>[\w.-]+), body=%?(?P<body>[\w.-]+)")
_LIMIT = re.compile(r"= [su]32\[\]\S* constant\((?P<limit>\d+)\)")


def collectives(text: str) -> dict[str, dict[str, float]]:
    """How many collectives of each kind a program runs, and the gigabytes that they put out."""
    computations = _computations(_COMMENT.sub("", text))
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for name, times in _runs(computations).items():
        for line in computations[name]:
            if match := _COLLECTIVE.search(line):
                # Of an asynchronous one, the tuple holds what goes in and what comes out.
                measure = max if "start" in match[0] else sum
                counts[match["kind"]] += times
                sizes[match["kind"]] += times * measure(_sizes(match["shapes"]))
    return {kind: {"count": counts[kind], "gb": sizes[kind] / 1e9} for kind in sorted(counts)}


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation by its name; the entry comes last, as XLA prints it."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = match["name"]
            found[name] = []
        elif name:
            found[name].append(line)
    return found


def _runs(computations: dict[str, list[str]]) -> Counter[str]:
    """How often each computation runs. XLA prints a computation before those that call it."""
    runs: Counter[str] = Counter({list(computations)[-1]: 1})
    for name in reversed(computations):
        for line in computations[name]:
            loop = _LOOP.search(line)
            for called in {m["name"] for m in _NAME.finditer(line)} & computations.keys():
                times = _trips(computations[loop["condition"]]) if loop else 1
                runs[called] += runs[name] * times
    return runs


def _trips(condition: list[str]) -> int:
    """Of a loop that counts up to a constant, as those that JAX makes of `scan`; else 1."""
    limits = [int(match["limit"]) for line in condition if (match := _LIMIT.search(line))]
    return max(limits, default=1)


def _sizes(shapes: str) -> Iterator[int]:
    for match in _SHAPE.finditer(shapes):
        size = _BYTES.get(match["dtype"], 4)
        for length in filter(None, match["sizes"].split(",")):
            size *= int(length)
        yield size
