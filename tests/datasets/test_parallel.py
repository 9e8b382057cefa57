"""Work in several processes."""

import os

import pytest

from nnunet_cil.datasets.parallel import in_parallel
from nnunet_cil.errors import CILError


def die(_case):
    os._exit(1)


def test_a_killed_process_is_one_sentence():
    with pytest.raises(CILError, match="Checking: a process was killed, most likely for lack of memory"):
        list(in_parallel(die, [1, 2], 2, "Checking"))
