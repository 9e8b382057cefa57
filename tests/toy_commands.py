"""nnU-Net's commands in this process: each process of their own would import nnU-Net for seconds."""

import multiprocessing
import sys
from importlib import import_module
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

from toy import make_trainer

from nnunet_cil.host.commands import _ENTRY_POINTS


def without_pools(monkeypatch):
    """Lets nnU-Net validate and predict without processes of its own."""
    original = multiprocessing.get_context

    class Pool(ThreadPool):
        def __init__(self, _number):
            super().__init__(1)

    pool = SimpleNamespace(Pool=Pool)
    monkeypatch.setattr(multiprocessing, "get_context", lambda m=None: pool if m == "spawn" else original(m))


def train(arguments):
    """Does what ``nnUNetv2_train`` does."""
    dataset, configuration, fold, *options = arguments
    option = dict(zip(options[::2], options[1::2], strict=False))
    what = {"configuration": configuration, "fold": int(fold), "dataset": dataset}
    trainer = make_trainer(option["-tr"], option["-p"], resume="--val" in options, **what)
    if "--val" in options:
        trainer.load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    else:
        trainer.run_training()
    trainer.perform_actual_validation("--npz" in options)


def call(monkeypatch, command, arguments):
    """Calls the entry point of a command of nnU-Net."""
    module, function = _ENTRY_POINTS[command].split(":")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", [command, *arguments])
        getattr(import_module(module), function)()
