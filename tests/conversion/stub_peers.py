"""Peers that take no time, hang, die or fail: processes of test_benchmark.py."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from conversion.parity.workers import serve_methods


class Stub:
    def __init__(self, name: str):
        self.name = name

    def facts(self) -> dict[str, Any]:
        return {
            "device": "cpu",
            "device_kind": "NVIDIA H100 80GB",
            "version": "0",
            "pid": os.getpid(),
        }

    def prepare(self, case: Any, output: Path) -> float:
        if self.name == "dies":
            os._exit(9)
        if self.name == "fails" and case.pixels > 8:
            raise MemoryError("8 GB are too few\nand more lines")
        np.save(output, np.full((2, 2), 100 + (self.name == "compile"), np.uint8))
        return 5.0

    def hang(self, note: Path) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note.write_text(str(child.pid))
        time.sleep(600)

    def run(self) -> float:
        return 0.5 if self.name == "ours" else 1.0

    def peak_gb(self) -> float:
        return 1.5

    def profile(self, runs: int) -> dict[str, dict[str, float]]:
        return {"encode": {"seconds": float(runs)}}


def serve(name: str, weights: Any, precision: str, parent: Any) -> None:
    serve_methods(Stub(name), parent)
