"""Work on many cases in several processes, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from nnunet_cil.errors import CILError
from nnunet_cil.host.processes import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], num_processes: int, text: str
) -> Iterator[Result]:
    """Yields the function's result for each item, in order.

    Args:
        function: must be picklable where there are several processes, as must items and results.
        items: what the function is called with.
        num_processes: with 1, this process does the work.
        text: title of the progress bar.

    Raises:
        CILError: a process was killed.
    """
    from tqdm import tqdm

    if num_processes <= 1 or len(items) < 2:
        yield from tqdm(map(function, items), desc=text, total=len(items), unit="case")
        return
    try:
        with ProcessPoolExecutor(
            min(num_processes, len(items)), initializer=end_with_parent, initargs=(os.getpid(),)
        ) as pool:
            yield from tqdm(pool.map(function, items), desc=text, total=len(items), unit="case")
    except BrokenProcessPool as error:
        raise CILError(
            f"{text}: a process was killed, most likely for lack of memory. Set nnUNet_def_n_proc to less than "
            f"{num_processes} and run the command again: what is finished is kept."
        ) from error
