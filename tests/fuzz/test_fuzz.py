"""Every reader of foreign bytes, on its corpus and on what is made out of it.

The corpus has good samples, and whatever was found to go wrong. `just fuzz` looks for more.
"""

import gc
import random
import re
import time
import tracemalloc
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import bounds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path for path in CORPUS.glob("*/*"))
_NASTY = (
    b"\0", b"\xff", b"\xc3", b"\x1b[2J", b"\r\n", b"\n", b"<", b">", b"&", b'"', b"]]>", b"<!--",
    b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"&#0;", b"&#27;", b"&a;", b"-1", b"NaN", b"1e999",
    b"[" * 99, b"99999999999999999999", "\u0661".encode(), "\u2028".encode(), "\ufeff".encode(),
)  # fmt: skip


@cache
def samples(name: str) -> list[bytes]:
    return [path.read_bytes() for path in FILES if path.parent.name == name]


@cache
def words(name: str) -> list[bytes]:
    """What the samples are made of."""
    found = {word for sample in samples(name) for word in re.findall(rb"[\w.:/-]{2,}|\W", sample)}
    return sorted(found) + list(_NASTY)


@st.composite
def made_of_samples(draw: st.DrawFn, name: str) -> bytes:
    """A sample, and what became of it: pieces cut out, doubled, put in, or another sample."""
    data = draw(st.sampled_from(samples(name)))
    for _ in range(draw(st.integers(0, 6))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(begin + 64, len(data))))
        piece = draw(
            st.one_of(
                st.sampled_from(words(name)),
                st.binary(max_size=4),
                st.just(data[begin:end] * 2),
                st.sampled_from(samples(name)),
            )
        )
        data = data[:begin] + piece + data[end:]
    return data


def test_every_target_has_a_corpus_and_the_other_way_round() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_corpus(path: Path) -> None:
    target = TARGETS[path.parent.name]
    assert bounds.seconds(target.run, path.read_bytes()) <= bounds.MOST_SECONDS


@pytest.mark.parametrize("name", TARGETS)
def test_made_of_samples(name: str) -> None:
    @settings(
        max_examples=120,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(made_of_samples(name), st.binary(max_size=512)))
    def run(data: bytes) -> None:
        TARGETS[name].run(data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_takes_long_that_repeats_itself_up_to_the_cap(name: str) -> None:
    chance, target = random.Random(name), TARGETS[name]
    for sample in samples(name):
        for _ in range(3):
            data = bounds.swollen(sample, target.most, chance)
            assert bounds.seconds(target.run, data) <= bounds.MOST_SECONDS, data[:200]


@pytest.mark.parametrize("name", TARGETS)
def test_memory_is_given_back(name: str) -> None:
    """What was read or refused leaves nothing behind, however often."""
    target = TARGETS[name]
    data = [sample + junk * 1000 for sample in samples(name) for junk in (b"", b"<", b"\0")]
    for piece in data * 2:
        target.run(piece)
    gc.collect()
    tracemalloc.start()
    for piece in data * 10:
        target.run(piece)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1000 * len(data)


class TestBounds:
    """The bars can be missed."""

    def test_what_is_slow_is_found_out(self) -> None:
        def slow(data: bytes) -> None:
            began = time.thread_time()
            while time.thread_time() < began + bounds.MOST_SECONDS:
                pass

        assert bounds.seconds(slow, b"") > bounds.MOST_SECONDS

    def test_swollen(self) -> None:
        chance = random.Random(1)
        for size in (1, 3, 300):
            data = bounds.swollen(bytes(range(256)) * 2, 1000, chance)
            assert 1000 - 128 < len(data) <= 1000
            assert bounds.swollen(b"x" * size, size, chance) == b"x" * size
        assert bounds.swollen(b"", 10, chance) == b""

    def test_memory_that_is_kept_is_seen(self) -> None:
        before = bounds.resident()
        kept = bytes(range(256)) * (60 << 12)
        assert bounds.resident() - before > bounds.MOST_MEMORY
        assert bounds.resident("VmHWM") >= bounds.resident() > 0
        del kept
