"""Runs commands as forks of one process that has imported torch, which takes seconds each time.

``python command_server.py SOCKET BIN`` writes a stand-in for every command into BIN, and serves them until it is killed.
A command has the working folder, the environment and the streams of its caller. Three things differ from a user's:

- The device is the CPU where the command does not name one.
- Every training is cut down to two epochs of two batches, and does not draw its progress.
- The processes that nnU-Net starts are forks, too.
"""

import json
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import traceback
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

DEVICE_COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict", "nnunet_cil run", "nnunet_cil evaluate")
SHORT = {"num_epochs": 2, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1}

STAND_IN = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    socket.send_fds(server, [b"!"], [0, 1, 2])
    call = {{"arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}
    server.sendall(json.dumps(call).encode() + b"\\n")
    sys.exit(int(server.makefile().readline() or 1))
"""


def commands():
    """Command -> the function that it calls, as "module:function"."""
    scripts = entry_points(group="console_scripts")
    return {
        "nnunet_cil": "nnunet_cil.cli:entry",
        **{s.name: s.value for s in scripts if s.name.startswith("nnUNetv2_")},
    }


def write_stand_ins(bin_folder, address):
    for name in (*commands(), "python"):
        file = bin_folder / name
        file.write_text(STAND_IN.format(python=sys.executable, socket=address))
        file.chmod(0o755)


def prepare(bin_folder):
    """Imports what is slow, and cuts trainings down."""
    import torch
    from nnunetv2.training.logging.nnunet_logger import LocalLogger
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    for value in commands().values():
        if any(part in value for part in ("nnunet_cil", "run_training", "predict_from", "plan_and_preprocess")):
            import_module(value.split(":")[0])
    import nnunet_cil.training.base
    import nnunet_cil.training.epoch_logs
    import nnunet_cil.workflows.evaluate.evaluate
    import nnunet_cil.workflows.models.extend

    torch.set_num_threads(1)
    whole_training = nnUNetTrainer.run_training

    def short_training(trainer):
        for name, value in SHORT.items():
            setattr(trainer, name, value)
        whole_training(trainer)

    nnUNetTrainer.run_training = short_training
    LocalLogger.plot_progress_png = lambda self, folder: None
    nnunet_cil.training.epoch_logs.plot_terms = lambda *_: None
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # nnU-Net asks for spawn, which would import torch again
    sys.executable = str(bin_folder / "python")


def execute(arguments):
    """Calls a command, or runs Python with -c, -m or a file; returns the exit status."""
    name = Path(arguments[0]).name
    called = name if name != "nnunet_cil" else f"{name} {arguments[1] if arguments[1:] else ''}"
    if called in DEVICE_COMMANDS and "-device" not in arguments and "-h" not in arguments:
        arguments = [*arguments, "-device", "cpu"]
    try:
        if name != "python":
            module, function = commands()[name].split(":")
            sys.argv = arguments
            getattr(import_module(module), function)()
        elif arguments[1] == "-c":
            sys.argv = ["-c", *arguments[3:]]
            exec(compile(arguments[2], "<string>", "exec"), {"__name__": "__main__"})
        elif arguments[1] == "-m":
            sys.argv = arguments[2:]
            runpy.run_module(arguments[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments[1:]
            own = Path(arguments[1]).parent
            # a page that says PYTHONPATH=FOLDER means a folder of files that it has shown before
            sys.path[:0] = [str(own), *sorted({str(file.parent) for file in Path().glob("*/*.py")})]
            for name, value in runpy.run_path(arguments[1], run_name="__main__").items():
                if name.startswith("test_"):
                    value()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def answer(connection):
    """Runs one command in this process, which a fork made for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    call = json.loads(connection.makefile().readline())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    status = execute(call["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(status).encode())


def serve(address, bin_folder):
    write_stand_ins(bin_folder, address)
    prepare(bin_folder)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leaves no zombies
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                try:
                    answer(connection)
                finally:
                    os._exit(0)
            connection.close()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
