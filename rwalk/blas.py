"""Threads of the BLAS that NumPy and SciPy call."""

import functools
from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import ThreadpoolController


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Matrices of a few hundred rows gain nothing from threads of BLAS, which wait for cores that XLA's hold."""
    return _libraries().limit(limits=1, user_api="blas")
