"""A mixer of 64-bit numbers: random numbers that are a pure function of where they are needed.

What is drawn from it is part of every run's result: it may never change, and tests hold golden values.
"""

import numpy as np
from numpy.typing import NDArray


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): a bijection in which every input bit reaches every
    output bit.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def unmix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The inverse of `mix`: a shift of s bits is taken back by shifts of s, 2 s, ... bits, a factor by its inverse
    modulo 2**64.
    """
    values = _unshift(values, 31) * np.uint64(pow(0x94D049BB133111EB, -1, 1 << 64))
    values = _unshift(values, 27) * np.uint64(pow(0xBF58476D1CE4E5B9, -1, 1 << 64))
    return _unshift(values, 30)


def _unshift(values: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """The inverse of x ^ (x >> bits)."""
    return values ^ (values >> np.uint64(bits)) ^ (values >> np.uint64(2 * bits))
