"""What is read off a compiled program: its traffic with memory and between devices.

Loops are counted as often as they run.
"""

import re
from collections import Counter, defaultdict
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
_START = re.compile(r"\s+(ROOT )?%")
_INSTRUCTION = re.compile(
    r"%(?P<name>[\w.-]+) = (?P<shapes>.*?) (?P<kind>[a-z][\w-]*)\((?P<operands>[^)]*)\)"
)
_FUSED = re.compile(r"\bcalls=%(?P<name>[\w.-]+)")
_PARAMETER = re.compile(r"parameter\((?P<index>\d+)\)")
_PURPOSE = re.compile(r'op_name="(?P<name>[^"]*)"')
_PRODUCT = re.compile(r" (convolution|dot)\(|\$(gemm|matmul|lt\$matmul)")
_CYCLES = re.compile(r'"estimated_cycles":"(?P<cycles>\d+)"')
# What moves no data, or is counted where its body stands.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "copy-done", "after-all", "partition-id",
}  # fmt: skip
# The names under which `models/ops` and its callers compute, and what they are called here.
_SCOPES = {
    "attention": "attention",
    "group_norm": "norm",
    "convolve_doubled": "upsampling",
    "convolve": "convolution",
}


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


def traffic(text: str) -> dict[str, dict[str, float]]:
    """What each kind of layer reads and writes, in gigabytes, and the compiler's guess of cycles.

    Kinds are the operations of `models/ops`, where these are named in the program; a copy that
    only changes a layout belongs to the operation that asked for it, and is counted as `copies`
    too. An operation fused into a convolution is part of the convolution.
    """
    computations = _computations(_COMMENT.sub("", text))
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, times in _steps(computations).items():
        lines = computations[name]
        shapes = {m["name"]: m["shapes"] for m in map(_INSTRUCTION.search, lines) if m}
        for line in lines:
            match = _INSTRUCTION.search(line)
            if match and match["kind"] not in _FREE:
                fused = computations.get(m["name"], []) if (m := _FUSED.search(line)) else []
                size = times * _moved(match, shapes, fused)
                cycles = times * sum(int(m["cycles"]) for m in _CYCLES.finditer(line))
                kinds = [_purpose(line, fused), *(["copies"] if match["kind"] == "copy" else [])]
                for kind in kinds:
                    found[kind].update(bytes=size, cycles=cycles)
    return {
        kind: {"gb": count["bytes"] / 1e9, "megacycles": count["cycles"] / 1e6}
        for kind, count in sorted(found.items())
    }


def kinds(text: str) -> dict[str, str]:
    """The kind of layer that every instruction of a program belongs to, by its name."""
    computations = _computations(_COMMENT.sub("", text))
    found = {}
    for line in (line for lines in computations.values() for line in lines):
        if match := _INSTRUCTION.search(line):
            fused = computations.get(m["name"], []) if (m := _FUSED.search(line)) else []
            found[match["name"]] = _purpose(line, fused)
    return found


def _steps(computations: dict[str, list[str]]) -> Counter[str]:
    """How often each computation runs whose lines are steps of the program, not of one kernel."""
    inside = re.compile(r"\b(calls|to_apply|select|scatter)=%(?P<name>[\w.-]+)")
    lines = [line for lines in computations.values() for line in lines if " call(" not in line]
    fused = {match["name"] for line in lines for match in inside.finditer(line)}
    return Counter({k: n for k, n in _runs(computations).items() if k not in fused})


def _moved(instruction: re.Match[str], shapes: dict[str, str], fused: list[str]) -> int:
    """What an instruction writes and reads, in bytes; of what it takes slices of, these alone."""
    if instruction["kind"] == "copy-start":
        return 2 * min(_sizes(instruction["shapes"]))
    names = [m["name"] for m in _NAME.finditer(instruction["operands"])]
    operands = [sum(_sizes(shapes[name])) for name in names if name in shapes]
    if instruction["kind"] in ("slice", "dynamic-slice", "gather"):
        operands = [0]
    if instruction["kind"] == "dynamic-update-slice":
        return 2 * operands[1]
    for index, size in _sliced(fused).items():
        operands[index] = min(operands[index], size)
    return sum(_sizes(instruction["shapes"])) + sum(operands)


def _sliced(fused: list[str]) -> dict[int, int]:
    """For the parameters of a fused computation that are only sliced, how much is taken."""
    taken = {}
    for line in fused:
        parameter, named = _PARAMETER.search(line), _NAME.search(line)
        if parameter and named:
            name = named["name"]
            users = [m for m in map(_INSTRUCTION.search, fused) if m and name in _operands(m)]
            if users and all(user["kind"] in ("slice", "dynamic-slice") for user in users):
                taken[int(parameter["index"])] = sum(sum(_sizes(m["shapes"])) for m in users)
    return taken


def _operands(instruction: re.Match[str]) -> set[str]:
    return {match["name"] for match in _NAME.finditer(instruction["operands"])}


def _purpose(line: str, fused: list[str]) -> str:
    """The kind of layer that an instruction belongs to."""
    steps = [step for step in fused if " convolution(" in step] or [line]
    names = " ".join(m["name"] for step in steps if (m := _PURPOSE.search(step)))
    for scope, kind in _SCOPES.items():
        if re.search(rf"\b{scope}\b", names):
            return kind
    return "products" if _PRODUCT.search(" ".join([*steps, *fused])) else "elementwise"


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation by its name; the entry comes last, as XLA prints it."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = match["name"]
            found[name] = []
        elif name and (_START.match(line) or not found[name]):
            found[name].append(line)
        elif name:  # a kernel's description goes over several lines
            found[name][-1] += line
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
