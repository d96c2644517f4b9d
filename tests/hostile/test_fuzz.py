"""Damaged images of every format: each is an image or an InputError, soon, and in little memory.

The default suite takes a fixed slice. OMGSR_FUZZ_CASES=8000 takes as many new ones:

    OMGSR_FUZZ_CASES=8000 pytest tests/hostile/test_fuzz.py
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from omgsr_jax.data.images import decode_image
from omgsr_jax.errors import InputError
from omgsr_jax.files import header
from omgsr_jax.inference import formats, images
from omgsr_jax.inference.pictures import Picture
from tests.hostile.image_cases_jpeg import exif, jpeg, saved
from tests.hostile.images import all_cases, noise, smooth
from tests.hostile.judge import assert_sentence, little_memory

CASES = os.environ.get("OMGSR_FUZZ_CASES")
_SECONDS = 5
_BYTES = 2**31  # more than this is a bomb


def _metadata() -> list[bytes]:
    """Files that say much: what is carried over must survive its damage."""
    said = exif(1)
    said[271], said[315], said[282] = "Camera", "Somebody", 300.0
    said.get_ifd(0x8769).update({0x9003: "2024:05:01 12:00:00", 0x829A: 0.01, 0x927C: b"maker"})
    said.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="a"/></x:xmpmeta>'
    more = {"exif": said, "xmp": xmp, "dpi": (300, 150)}
    return [
        jpeg(smooth(), **more),
        saved(noise(3), "PNG", exif=said, dpi=(300, 150)),
        saved(noise(3), "WEBP", lossless=True, exif=said, xmp=xmp),
        saved(noise(3), "TIFF", exif=said, dpi=(300, 150)),
        saved(smooth(), "AVIF", exif=said.tobytes(), xmp=xmp),
    ]


FILES = [case.data for case in all_cases() if isinstance(case.data, bytes) and case.data]
FILES = [data for data in FILES if len(data) < 20_000] + _metadata() * 10


@dataclass(frozen=True)
class Damage:
    """What is done to a file, one after the other."""

    flips: list[tuple[float, int]]  # where, as a share of the length, and with which bits
    numbers: list[tuple[float, bytes]]  # where, and what stands there then
    splice: tuple[int, float, float, float] | None  # of which file, from, to, and where
    cut: float | None

    def done_to(self, data: bytes) -> bytes:
        out = bytearray(data)
        for place, bits in self.flips:
            out[int(place * (len(out) - 1))] ^= bits
        for place, number in self.numbers:
            at = int(place * (len(out) - 1))
            out[at : at + len(number)] = number
        if self.splice:
            which, start, stop, place = self.splice
            other = FILES[which]
            part = other[int(start * len(other)) : int(stop * len(other))]
            at = int(place * len(out))
            out[at:at] = part
        if self.cut is not None:
            del out[int(self.cut * len(out)) :]
        return bytes(out)


_share = st.one_of(st.floats(0, 1), st.floats(0, 0.1))  # headers are worth more
_extreme = [number.to_bytes(n, "little") for n in (1, 2, 4) for number in (0, 2 ** (8 * n) - 1)]
_extreme += [(2**31 - 1).to_bytes(4, "big"), (2**16).to_bytes(4, "big"), (2**31).to_bytes(4, "big")]
_damage = st.builds(
    Damage,
    st.lists(st.tuples(_share, st.integers(1, 255)), max_size=6),
    st.lists(st.tuples(_share, st.sampled_from(_extreme)), max_size=2),
    st.none() | st.tuples(st.integers(0, len(FILES) - 1), _share, _share, _share),
    st.none() | st.floats(0, 1),
)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=int(CASES or 150),
    derandomize=CASES is None,
    phases=[Phase.generate],  # what failed is short enough
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(which=st.integers(0, len(FILES) - 1), damage=_damage)
def test_a_damaged_image_is_an_image_or_an_input_error(which, damage):
    data = damage.done_to(FILES[which])
    with little_memory(_BYTES):
        judge(data)


def judge(data: bytes) -> None:
    started = time.process_time()
    for read in (images.decode, decode_image, header):
        found = answer(read, data)
        if isinstance(found, InputError):
            assert_sentence(str(found), "a.png")
        elif isinstance(found, Picture):
            for suffix in (".png", ".jpg", ".tif", ".webp", formats.suffixes()[-1]):
                require_encoded(found, suffix)
    assert time.process_time() - started < _SECONDS


def require_encoded(picture: Picture, suffix: str) -> None:
    try:
        images.encode(picture, suffix, "b")
    except InputError as error:
        assert_sentence(str(error), "b: ", "cannot be written as", ".png and .tif take any size")
        assert max(picture.size) > 16383, "WebP's longest side; JPEG's is 65500"


def answer(read: Callable[[bytes, str], object], data: bytes) -> object:
    try:
        return read(data, "a.png")
    except InputError as error:
        return error
