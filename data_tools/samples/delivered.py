"""What readers delivered, as one number: 64 bits for each sample, summed over samples, modulo 2**64.

A sum does not ask who read which sample, so a step's is the same on every layout; and a run's is that of all its steps.
What a sample's number is made of, by absorbing one 64-bit value after the other into a state that begins at 0:

    absorb(state, value) = mix((state xor value) + WEYL)
    place in the run's order; source; number in the source; then, of each of its arrays by name: name, checksum

`mix` is that of `megatron_patches.bit_mixing`, WEYL and checksums those of `data_tools.datasets.checksums`. With `mix`
taken as random this is AdHash (Bellare and Micciancio 1997): two different multisets of samples have one sum with a
probability of 2**-64. It finds mistakes and damage; it is no protection against people.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.checksums import VERSION as CHECKSUM_VERSION
from data_tools.datasets.checksums import WEYL, token_checksums
from data_tools.samples.source import Sample
from megatron_patches.bit_mixing import mix
from megatron_patches.foreign.json_text import whole_of

VERSION = CHECKSUM_VERSION
"""of the formula; whoever changes it, or that of checksums, makes all recorded hashes those of another version"""
FACT = "delivered"
"""of a checkpoint: `Delivered.as_fact`"""
_HASH = re.compile(r"[0-9a-f]{16}")
_MODULUS = 1 << 64
_HALF = 32


def source_key(name: str, dataset_ids: Sequence[str]) -> int:
    """The 64-bit number of a source: of its name, and of its datasets in the order in which they are read."""
    return _key([name, *dataset_ids])


def sample_hashes(
    places: NDArray[np.int64], sources: NDArray[np.uint64], numbers: NDArray[np.int64], samples: Sequence[Sample]
) -> NDArray[np.uint64]:
    """The number of each sample that was delivered.

    Args:
        places: in the run's order, [n].
        sources: their `source_key`, [n].
        numbers: in the source, [n].
        samples: what was read, n of them; arrays of any length, of integers.

    Returns:
        uint64 [n].
    """
    state = headed(places, sources, numbers)
    for name in sorted({name for sample in samples for name in sample}):
        having = np.array([number for number, sample in enumerate(samples) if name in sample], dtype=np.int64)
        arrays = [samples[number][name] for number in having.tolist()]
        found = token_checksums(np.concatenate(arrays), [len(array) for array in arrays])
        state[having] = absorb(absorb(state[having], array_key(name)), found)
    return state


def headed(places: NDArray[np.int64], sources: NDArray[np.uint64], numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The state before a sample's arrays are absorbed, uint64 [n]; arguments as of `sample_hashes`."""
    state = np.zeros(len(places), dtype=np.uint64)
    for values in (places, sources, numbers):
        state = absorb(state, values.astype(np.uint64))
    return state


def absorb(state: NDArray[np.uint64], value: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """States with one more value in each: a bijection in either, where the other is kept."""
    return mix((state ^ value) + WEYL)


def array_key(name: str) -> np.uint64:
    """What stands for an array's name."""
    return np.uint64(_key(name))


def summed(hashes: NDArray[np.uint64]) -> int:
    """Sum modulo 2**64."""
    return int(hashes.sum(dtype=np.uint64))


def as_doubles(value: int) -> tuple[float, float]:
    """A hash as two parts of 32 bits: sums of them over up to 2**21 ranks are exact in a double."""
    return float(value & ((1 << _HALF) - 1)), float(value >> _HALF)


def from_doubles(low: float, high: float) -> int:
    """The inverse, also of sums of parts: the sum of the hashes modulo 2**64."""
    return (int(low) + (int(high) << _HALF)) % _MODULUS


def hash_text(value: int) -> str:
    """As records have it: 16 hexadecimal digits."""
    return f"{value:016x}"


def hash_of(value: Any) -> int | None:
    """The inverse; None of anything else."""
    return int(value, 16) if isinstance(value, str) and _HASH.fullmatch(value) else None


@dataclass(frozen=True)
class Delivered:
    """All samples that a run's steps were trained on since its first."""

    hash: int = 0
    """sum of their numbers modulo 2**64"""
    samples: int = 0

    def after(self, step_hash: int, samples: int) -> "Delivered":
        """With one step more."""
        return Delivered((self.hash + step_hash) % _MODULUS, self.samples + samples)

    def as_fact(self) -> dict[str, Any]:
        """For a checkpoint's manifest."""
        return {"hash": hash_text(self.hash), "samples": self.samples, "version": VERSION}


def delivered_of(facts: Mapping[str, Any]) -> Delivered | None:
    """What a checkpoint's manifest says; None where it says nothing, was hashed by another version of the formula, or
    does not say it of all samples that the checkpoint was trained on.
    """
    found = facts.get(FACT)
    if not isinstance(found, Mapping) or whole_of(found.get("version")) != VERSION:
        return None
    value, samples = hash_of(found.get("hash")), whole_of(found.get("samples"))
    return None if value is None or samples is None or samples != facts.get("samples") else Delivered(value, samples)


def _key(value: object) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(value).encode()).digest()[:8], "little")
