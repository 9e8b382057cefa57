"""nnU-Net's commands without its import, ten seconds of every process: in this process, or as forks of another."""

import multiprocessing
import os
import sys
from importlib import import_module
from multiprocessing.context import SpawnContext
from multiprocessing.pool import ThreadPool

from toy import make_trainer

from nnunet_cil.host.commands import _ENTRY_POINTS
from nnunet_cil.workflows.evaluate import evaluate

WRITE_PICTURES = evaluate._write_pictures


def leave_out_what_takes_seconds(monkeypatch):
    """Leaves out pictures, nnU-Net's processes, and its slow look at each module for each trainer."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger
    from nnunetv2.utilities import find_class_by_name

    from nnunet_cil.training import epoch_logs

    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    monkeypatch.setattr(epoch_logs, "plot_terms", lambda *_: None)
    monkeypatch.setattr(evaluate, "_write_pictures", lambda _, output, *__: (output / "report.html").touch())
    monkeypatch.setattr(find_class_by_name, "_module_originates_from_path", _is_below)
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
    original = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda m=None: _Threads() if m == "spawn" else original(m))


def _is_below(module, path):
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    return file.startswith(f"{path}{os.sep}")


class _Threads(SpawnContext):
    """Starts a thread where nnU-Net asks for processes."""

    def Pool(self, *_):
        return ThreadPool(1)


def fork_commands(monkeypatch, request):
    """Lets commands start as forks of a process that has imported nnU-Net, where the system can fork."""
    if hasattr(os, "fork"):
        monkeypatch.setattr(sys, "executable", str(request.getfixturevalue("command_server") / "python"))


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
