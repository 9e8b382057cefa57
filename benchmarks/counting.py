"""Counts what a piece of code asks of the device, operation by operation: waits for the host, and tensors alive."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = frozenset(
    {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal"}
)
"""Operations whose result the host needs before it can go on: item, tolist, bool, boolean indexing, unique."""

CALLERS = frozenset({"over_scales", "distilled", "_distillation"})
"""Methods of losses that call terms: at every scale, or in every k-th iteration."""


class Counting(TorchDispatchMode):
    """Looks at every operation while it is active, also at those of a backward pass.

    A term is the function of nnunet_cil that a loss called for its terms; "" stands for the network, nnU-Net's own code and the
    backward pass. Only what is allocated while the mode is active counts.

    Attributes:
        waits: host synchronisations by term. On any device: operations whose result the host waits for, and tensors made from
            Python numbers, which a GPU is sent in a blocking copy.
        shapes: of all tensors made.
        peak: the most bytes alive at a time.
        peaks: the most bytes alive at a time that a term has allocated, by term.
    """

    def __init__(self) -> None:
        """Begins with nothing alive."""
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.shapes: set[tuple[int, ...]] = set()
        self.peak = 0
        self.peaks: Counter[str] = Counter()
        self._alive: dict[int, tuple[StorageWeakRef, int, str]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and looks at what it gave."""
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        term = _term()
        if waits_for_the_host(func, args, result):
            self.waits[term] += 1
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.shapes.add(tuple(tensor.shape))
                if tensor.untyped_storage()._cdata not in given:  # not a view, not in place
                    self._allocated(tensor.untyped_storage(), term)
        return result

    def _allocated(self, storage: torch.UntypedStorage, term: str) -> None:
        self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes(), term)
        held = self.held()
        self.peak = max(self.peak, held.total())
        self.peaks[term] = max(self.peaks[term], held[term])

    def held(self) -> Counter[str]:
        """Returns the bytes that are alive now, by the term that allocated them."""
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        held: Counter[str] = Counter()
        for _, size, term in self._alive.values():
            held[term] += size
        return held


def waits_for_the_host(func: Any, args: tuple[Any, ...], result: Any) -> bool:
    """Tells whether a GPU would have to finish its work before the host goes on."""
    name = func._schema.name.removeprefix("aten::")
    if name == "index" or name.startswith("index_put"):
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if name == "_to_copy":
        return bool(args[0].is_cuda and result.is_cpu)
    return name in WAITS or name == "lift_fresh"


def _term() -> str:
    """Returns the term on the stack: its outermost function, but for ``CALLERS``."""
    found = ""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_code.co_name)
        if str(frame.f_globals.get("__name__")).startswith("nnunet_cil."):
            if name in ("terms", "all_terms"):
                return found or name
            if name not in CALLERS and not name.startswith("<"):
                found = name
        frame = frame.f_back
    return found
