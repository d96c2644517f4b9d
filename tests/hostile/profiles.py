"""Colours, computed apart from any library: CIELab, and a CMYK profile whose corners are known."""

import itertools
import struct

import numpy as np

_WHITE = (0.9642, 1.0, 0.8249)  # D50
_TO_SRGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)


def lab_to_srgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """uint8 of L in 0 .. 100."""
    y = (lightness + 16) / 116
    ratios = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    linear = np.where(ratios > 6 / 29, ratios**3, 3 * (6 / 29) ** 2 * (ratios - 4 / 29))
    rgb = np.clip(linear * _WHITE @ _TO_SRGB.T, 0, 1)
    curved = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return np.rint(255 * curved).astype(np.uint8)


def cmyk_profile() -> tuple[bytes, np.ndarray]:
    """An ICC profile with a table of the 16 corners, and their colours in sRGB (2 2 2 2 3)."""
    rng = np.random.default_rng(0)
    lab = rng.integers((60, 110, 110), (220, 146, 146), (2, 2, 2, 2, 3))
    lab[0, 0, 0, 0], lab[..., 1, :] = (255, 128, 128), (0, 128, 128)  # paper, and black
    flat = [int(v) for corner in itertools.product(range(2), repeat=4) for v in lab[corner]]
    identity = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", *[65536 if i % 4 == 0 else 0 for i in range(9)])
    table += identity * 4 + bytes(flat) + identity * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * v) for v in _WHITE))
    name = b"desc" + bytes(4) + struct.pack(">I", 2) + b"t\0" + bytes(78)
    tags = {b"A2B0": table, b"wtpt": white, b"desc": name, b"cprt": b"text" + bytes(4) + b"none\0"}
    at, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        entries += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(65536 * v) for v in _WHITE))
    head = head.ljust(128, b"\0") + struct.pack(">I", len(tags))
    values = lab.astype(np.float64)
    shown = lab_to_srgb(values[..., 0] / 2.55, values[..., 1] - 128, values[..., 2] - 128)
    return head + entries + body, shown
