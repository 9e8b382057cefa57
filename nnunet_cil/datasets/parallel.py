"""Cases in several processes, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from nnunet_cil.errors import CILError


def in_parallel(function: Any, items: Sequence[Any], num_processes: int, text: str) -> Iterable[Any]:
    """Results in order, with a progress bar; one process: this one.

    Raises:
        CILError: a process was killed.
    """
    from tqdm import tqdm

    if num_processes <= 1 or len(items) < 2:
        yield from tqdm(map(function, items), desc=text, total=len(items), unit="case")
        return
    try:
        with ProcessPoolExecutor(min(num_processes, len(items))) as pool:
            yield from tqdm(pool.map(function, items), desc=text, total=len(items), unit="case")
    except BrokenProcessPool as error:
        raise CILError(
            f"{text}: a process was killed, most likely for lack of memory. Set nnUNet_def_n_proc to less than "
            f"{num_processes} and run the command again: what is finished is kept."
        ) from error
