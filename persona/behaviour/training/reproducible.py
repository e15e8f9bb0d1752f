"""The state of the process that training changes, put back when it ends."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Runs with this seed, this many threads of torch, and operations that give the same bits each time.

    The random generators of Python, numpy and torch, torch's threads and its choice of operations, and the
    logging of transformers are as they were afterwards. Operations that have no form with the same bits, on
    some GPUs, run as they are.
    """
    import numpy
    import torch
    import transformers
    from accelerate.state import AcceleratorState, GradientState, PartialState  # type: ignore[import-untyped]

    logging: Any = transformers.utils.logging
    states = (AcceleratorState, GradientState, PartialState)
    kept = [dict(state._shared_state) for state in states]
    python, numbers, words = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    exact = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    count, verbosity, bars = (
        torch.get_num_threads(),
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
    )
    try:
        random.seed(seed)
        numpy.random.seed(seed % (1 << 32))
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numbers)
        torch.set_rng_state(words)
        if on_devices:
            torch.cuda.set_rng_state_all(on_devices)
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        torch.set_num_threads(count)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        for state, shared in zip(states, kept, strict=True):
            state._shared_state.clear()
            state._shared_state.update(shared)
