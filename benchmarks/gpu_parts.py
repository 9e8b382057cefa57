"""The parts of gpu_check.py, each run in a process of its own that may be killed at any time."""

from __future__ import annotations

import gc
import json
import os
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import step_cost
import synthetic

PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"
INTERVALS = (1, 4)
TOLERANCE = {"float32": 1e-4, "float16": 2e-3}
"""How far a value, or a gradient's norm, may be from the CPU's, as a share of it: float16 rounds by 5e-4."""


class SkippedError(Exception):
    """A part cannot run here; its text says why."""


class Notes:
    """Keeps what a part has found so far in a file, so that a kill leaves it."""

    def __init__(self, file: Path) -> None:
        """Starts with nothing."""
        self._file = file
        self.found: dict[str, Any] = {}

    def __call__(self, **found: Any) -> None:
        """Adds to what was found."""
        self.found |= found
        aside = self._file.with_suffix(".tmp")
        aside.write_text(json.dumps(self.found) + "\n")
        aside.replace(self._file)


def machine(device: str) -> dict[str, Any]:
    """Describes the machine and its software."""
    import platform
    from importlib.metadata import version

    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    try:
        found["nnunetv2"] = version("nnunetv2")
    except ModuleNotFoundError:  # a copy without its metadata
        found["nnunetv2"] = "unknown"
    if device == "cpu":
        return {"name": platform.machine(), **found}
    free, total = (round(size / 2**30, 1) for size in torch.cuda.mem_get_info())
    of_gpu = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "free_gib": free, "gib": total}
    return {"name": torch.cuda.get_device_name(), **found, **of_gpu}


# --- losses and prototypes --------------------------------------------------------------------------------------


def losses(given: dict[str, Any], notes: Notes) -> None:
    """Compares losses and prototypes with the CPU's, in full and in mixed precision; then the two ways of class sums."""
    sizes = ((14, 12), (118, 8)) if given["quick"] else ((14, 48), (118, 32))
    rows = []
    for num_old, size in sizes:
        for precision in TOLERANCE:
            for name, work in compared().items():
                rows.append({"what": name, "old_classes": num_old - 1, "precision": precision})
                rows[-1] |= difference(work, drawn(num_old, size, precision), given["device"], precision)
                notes(losses=rows)
    sums = []
    for num_old, _ in sizes:
        sums += class_sums(num_old, 12 if given["quick"] else 96, given["device"])
        notes(sums=sums)
    notes(determinism=determinism(given["device"], *sizes[0]))


def drawn(num_old: int, size: int, precision: str) -> dict[str, Any]:
    """Draws what a loss sees, with numbers that the precision can hold: one new class, 32 features."""
    import torch

    generator = torch.Generator().manual_seed(num_old)
    dtype = getattr(torch, precision)

    def normal(channels: int, scale: float) -> Any:
        return (scale * torch.randn(2, channels, size, size, size, generator=generator)).to(dtype)

    labels = torch.randint(0, 4, (2, 1, size, size, size), generator=generator) // 3 * num_old
    return {
        "logits": normal(num_old + 1, 2),
        "features": normal(32, 1),
        "teacher_logits": normal(num_old, 3),
        "teacher_features": normal(32, 1),
        "labels": labels,
        "prototypes": torch.randn(num_old, 32, generator=generator),
    }


def compared() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Returns functions of ``drawn``, of which a tensor comes out."""
    from nnunet_cil.losses.prototypes import class_means, most_probable, prototype_similarity
    from nnunet_cil.losses.regularization import local_pod_distance

    def means(x: dict[str, Any]) -> Any:
        return class_means(x["features"], most_probable(x["teacher_logits"]), len(x["prototypes"]))[0]

    def similarity(x: dict[str, Any]) -> Any:
        known = x["prototypes"][:, 0] > -1
        return prototype_similarity(x["teacher_features"], x["prototypes"], known, temperature=0.1)

    def pod(x: dict[str, Any]) -> Any:
        return local_pod_distance(x["features"], x["teacher_features"], (1, 2, 4))

    of_methods = {name: partial(loss_of, name) for name in ("PGCD", "MiB", "LwF")}
    return {**of_methods, "prototypes": means, "similarity": similarity, "local POD": pod}


def loss_of(method: str, x: dict[str, Any]) -> Any:
    """Returns the total of a method's loss at its default settings."""
    import torch

    from nnunet_cil.networks.prototype_bank import PrototypeBank
    from nnunet_cil.networks.teacher import TeacherOutput
    from nnunet_cil.training.batch import Batch
    from nnunet_cil.training.hyperparameters import Settings, declared
    from nnunet_cil.training.methods.lwf import LwFLoss, nnUNetTrainerLwF
    from nnunet_cil.training.methods.mib import MiBLoss, nnUNetTrainerMiB
    from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD
    from nnunet_cil.training.methods.pgcd_base import PGCDLoss
    from nnunet_cil.training.step_loss import LossSetup

    trainer, kind = {
        "PGCD": (nnUNetTrainerPGCD, PGCDLoss),
        "MiB": (nnUNetTrainerMiB, MiBLoss),
        "LwF": (nnUNetTrainerLwF, LwFLoss),
    }[method]
    setup = LossSetup(
        num_old=len(x["prototypes"]),
        ignore_label=None,
        scale_weights=(1.0,),
        batch_dice=False,
        ddp=False,
        settings=Settings(**{name: getattr(trainer, name) for name in declared(trainer)}),
    )
    bank = PrototypeBank(x["prototypes"].clone(), torch.ones(len(x["prototypes"]), device=x["prototypes"].device))
    loss = PGCDLoss(setup, bank=bank) if kind is PGCDLoss else kind(setup)
    teacher = TeacherOutput(x["teacher_logits"], x["teacher_features"])
    batch = Batch(x["features"], teacher=lambda _: teacher, features=lambda: x["features"])
    with loss.on(batch):
        return loss(x["logits"], x["labels"])


def value_and_gradient(work: Callable[[dict[str, Any]], Any], x: dict[str, Any], device: str, precision: str) -> Any:
    """Returns a function's value, and its gradient in logits and features, on the CPU in float32.

    In float16 under autocast, and with the loss scaled, as nnU-Net trains.
    """
    import torch

    half = precision == "float16"
    here = {name: tensor.detach().to(device) for name, tensor in x.items()}
    inputs = [here[name].requires_grad_() for name in ("logits", "features")]
    with torch.autocast(device, torch.float16, enabled=half):
        value = work(here)
    scale = 2.0**16 if half else 1.0
    gradients = []
    if value.requires_grad:
        total = value if value.ndim == 0 else value.square().sum() / 2**16
        found = torch.autograd.grad(scale * total.float(), inputs, allow_unused=True)
        gradients = [(g.float() / scale).flatten() for g in found if g is not None]
    gradient = torch.cat(gradients).cpu() if gradients else torch.zeros(1)
    return value.detach().float().cpu(), gradient


def difference(work: Callable[[dict[str, Any]], Any], x: dict[str, Any], device: str, precision: str) -> dict[str, Any]:
    """Compares a function on the device with the CPU in float32, on the same numbers."""
    in_full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in x.items()}
    expected = value_and_gradient(work, in_full, "cpu", "float32")
    got = value_and_gradient(work, x, device, precision)
    value, gradient = (float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(got, expected, strict=True))
    return {"value": value, "gradient": gradient, "ok": max(value, gradient) <= TOLERANCE[precision]}


def class_sums(num_classes: int, size: int, device: str) -> list[dict[str, Any]]:
    """Times both ways of class sums with their gradients, and says whether each repeats itself bit for bit."""
    import torch

    from nnunet_cil.losses.sums import sums_by_product, sums_by_scattering

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 32, size**3, generator=generator)
    blocks = torch.randint(0, num_classes, (2, 1, 4, 4, 4), generator=generator).float()
    labels = torch.nn.functional.interpolate(blocks, (size,) * 3).long().flatten(1)
    exact = sums_by_scattering(values.double(), labels, num_classes)
    own, labels = values.to(device).requires_grad_(), labels.to(device)
    rows = []
    for way, function in (("atomics", sums_by_scattering), ("product", sums_by_product)):

        def work(function: Any = function) -> Any:
            sums = function(own, labels, num_classes)
            return sums.detach(), torch.autograd.grad(sums.square().sum(), own)[0]

        repeats = [work() for _ in range(5)]
        same = all(torch.equal(a, b) for again in repeats[1:] for a, b in zip(repeats[0], again, strict=True))
        error = float((repeats[0][0].cpu() - exact).norm() / exact.norm())
        seconds = statistics.median(step_cost.seconds_of(work, device == "cuda")[0] for _ in range(9))
        memory = peak_mib(device, work)
        rows.append({"way": way, "classes": num_classes, "voxels": 2 * size**3, "seconds": seconds, "mib": memory})
        rows[-1] |= {"repeats_itself": same, "error": error}
    return rows


def determinism(device: str, num_old: int, size: int) -> dict[str, Any]:
    """Says whether losses repeat themselves bit for bit where torch is asked for it, and which operations cannot."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    found: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for method in ("PGCD", "MiB"):
            x = drawn(num_old, size, "float16")
            runs = [value_and_gradient(partial(loss_of, method), x, device, "float16") for _ in range(4)]
            found[method] = all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
    torch.use_deterministic_algorithms(False)
    return {**found, "warnings": deterministic_warnings(caught)}


def deterministic_warnings(caught: list[warnings.WarningMessage]) -> list[str]:
    """Returns the operations of which torch says that they have no deterministic implementation."""
    texts = {str(w.message) for w in caught}
    return sorted(text.split(" does not have")[0] for text in texts if "does not have a deterministic" in text)


def peak_mib(device: str, work: Callable[[], Any]) -> float | None:
    """Runs something, and returns the most memory that tensors took on the GPU; None on a CPU."""
    import torch

    if device == "cpu":
        work()
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() / 2**20)


# --- a step interrupted and resumed -----------------------------------------------------------------------------


class InterruptionError(Exception):
    """Stops a training as a kill would, with its last checkpoint on disk."""


def resume(given: dict[str, Any], notes: Notes) -> None:
    """Trains a step of PGCD without a break, then with one, and compares the weights."""
    import torch

    prepared(given)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start, whole = short_training(given)
        notes(whole=True)
        shutil.rmtree(Path(given["folder"]) / "results" / synthetic.DATASET / f"{PGCD}__{step_1()}__3d_fullres")
        try:
            short_training(given, stop_before=2)
        except InterruptionError:
            notes(interrupted=True)
        _, resumed = short_training(given, resumed=True)
    moved = torch.cat([(whole[n] - start[n]).flatten() for n in whole]).norm()
    apart = torch.cat([(whole[n] - resumed[n]).flatten() for n in whole]).norm()
    same = all(torch.equal(whole[n], resumed[n]) for n in whole)
    share = float(apart / moved)
    notes(same=same, share_of_change=share, warnings=deterministic_warnings(caught), ok=share < 1e-3)


def step_1() -> str:
    """Returns the name of the synthetic step 1's plans."""
    return f"{synthetic.PLANS}_{synthetic.SCHEDULE}_step1"


def short_training(given: dict[str, Any], stop_before: int | None = None, resumed: bool = False) -> Any:
    """Trains four epochs, each from its own seed; returns the weights before the first iteration and after the last."""
    import numpy as np
    import torch

    trainer = synthetic.make_trainer(PGCD, step_1(), given["kind"], given["device"])
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 4, 3, 1
    trainer.save_every = 1
    begin, weights = trainer.on_epoch_start, []

    def on_epoch_start() -> None:
        if trainer.current_epoch == stop_before:
            raise InterruptionError
        torch.manual_seed(trainer.current_epoch)
        np.random.seed(trainer.current_epoch)  # noqa: NPY002  nnU-Net's augmentation draws from it
        weights.append({n: w.detach().cpu().clone() for n, w in trainer.bare_network.state_dict().items()})
        begin()

    trainer.on_epoch_start = on_epoch_start
    trainer.logger.plot_progress_png = lambda _folder: None  # a second an epoch
    if resumed:
        trainer.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    trainer.run_training()
    return weights[0], {n: w.detach().cpu() for n, w in trainer.bare_network.state_dict().items()}


# --- what a step costs ------------------------------------------------------------------------------------------


def prepared(given: dict[str, Any]) -> None:
    """Makes the synthetic data set, its plans and an untrained step 0, unless another part has."""
    folder = Path(given["folder"])
    marker = folder / "prepared"
    if not marker.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        step_cost.prepare(asked_of(given))
        marker.touch()


def asked_of(given: dict[str, Any]) -> dict[str, Any]:
    """Returns a setting as step_cost.py takes it."""
    keys = ("device", "old_classes", "patch", "batch", "features", "folder")
    return {**{key: given[key] for key in keys}, "plans": given["kind"], "interval": 1}


def cost(given: dict[str, Any], notes: Notes) -> None:
    """Measures steps, epochs and memory of plain nnU-Net, PGCD and MiB, one after the other."""
    prepared(given)
    common = {**asked_of(given), "compiled": False, "threads": 0, **machine(given["device"]), "counts": {}}
    common["machine"] = common.pop("name")
    settings: list[dict[str, Any]] = []
    notes(settings=settings, too_large=[])
    (plain,) = fitting(given, step_cost.PLAIN, (1,), notes) or [None]
    if plain is None:
        return
    notes(plain=plain)
    for trainer in (PGCD, MIB):
        for interval, own in zip(INTERVALS, fitting(given, trainer, INTERVALS, notes), strict=False):
            pair = {"plain": {k: v for k, v in plain.items() if k in own}, "own": own}
            settings.append({**common, "interval": interval, "trainers": {trainer: [pair]}})
            notes(settings=settings)


def fitting(given: dict[str, Any], trainer: str, intervals: tuple[int, ...], notes: Notes) -> list[dict[str, Any]]:
    """Measures a trainer; says so, and measures no more of it, where the memory is too small."""
    import torch

    found: list[dict[str, Any]] = []
    try:
        measured(given, trainer, intervals, found)
    except torch.OutOfMemoryError:
        free = f"{notes.found['machine'].get('free_gib', 0):.0f} GiB" if "machine" in notes.found else "memory"
        notes(too_large=[*notes.found["too_large"], f"{trainer} does not fit into the free {free}."])
    gc.collect()
    if given["device"] == "cuda":
        torch.cuda.empty_cache()
    return found


def measured(given: dict[str, Any], name: str, intervals: tuple[int, ...], found: list[dict[str, Any]]) -> None:
    """Measures a trainer's steps, an epoch and its peak memory at each interval; adds each to ``found``."""
    cuda, steps = given["device"] == "cuda", given["steps"]
    trainer = step_cost.started_trainer(asked_of(given), name)
    try:
        batch = next(trainer.dataloader_train)
        for interval in intervals:
            if interval > 1:
                trainer.distillation_interval = interval
                trainer.loss = trainer.build_step_loss()

            def step() -> Any:
                return trainer.train_step(dict(batch))

            for _ in range(max(given["warm_up"], interval)):
                step()
            seconds = [step_cost.seconds_of(step, cuda)[0] for _ in range(steps * interval)]
            own = {"seconds": [statistics.mean(seconds[i : i + interval]) for i in range(0, len(seconds), interval)]}
            if cuda:
                own["peak_mib"] = peak_mib("cuda", lambda number=interval: [step() for _ in range(number)])
            if name != MIB:
                work = partial(step_cost.epoch, trainer, given["epoch"])
                own["epoch_seconds"] = [step_cost.seconds_of(work, cuda)[0]]
            found.append(own)
    finally:
        end(trainer)


def end(trainer: Any) -> None:
    """Ends a trainer's data workers."""
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()


# --- torch.compile ----------------------------------------------------------------------------------------------


def compiled(given: dict[str, Any], notes: Notes) -> None:
    """Measures steps with torch.compile, and compares the compiled network's loss with the plain one's."""
    prepared(given)
    for name in (step_cost.PLAIN, PGCD):
        trainer = step_cost.started_trainer(asked_of(given), name)
        batch = next(trainer.dataloader_train)
        first = step_cost.seconds_of(lambda t=trainer, b=batch: t.train_step(dict(b)), True)[0]
        work = partial(trainer.train_step, batch)
        seconds = [step_cost.seconds_of(lambda t=trainer, b=batch: t.train_step(dict(b)), True)[0] for _ in range(15)]
        memory = peak_mib("cuda", work)
        found = {"first_step": first, "seconds": seconds[3:], "peak_mib": memory}
        if name == PGCD:
            found |= agreement(trainer, batch)
        notes(**{name: found})
        end(trainer)
        del trainer, work
        gc.collect()


def agreement(trainer: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns the loss of a batch with the compiled network and with the plain one."""
    import torch

    prototypes = trainer.prototypes.prototypes.clone()
    values = []
    for network in (trainer.network, trainer.bare_network):
        trainer.prototypes.prototypes.copy_(prototypes)
        with trainer._batch_context(dict(batch)) as (given, _), torch.autocast("cuda"):
            target = [t.to(trainer.device) for t in given["target"]]
            values.append(float(trainer.loss(network(given["data"]), target)))
    own, plain = values
    return {"compiled_loss": own, "plain_loss": plain, "ok": abs(own - plain) <= 1e-2 * abs(plain)}


# --- a short real training --------------------------------------------------------------------------------------


def training(given: dict[str, Any], notes: Notes) -> None:
    """Trains PGCD and MiB in three steps on real data, from one step 0, and validates each step."""
    import torch

    from nnunet_cil.lineage import validation_dice
    from nnunet_cil.workflows.plan.plan import plan

    workers = os.environ.pop("nnUNet_n_proc_DA")  # nnU-Net's preprocessing fails with 0
    dataset, schedule, base_plans = real_steps(given, notes)
    os.environ["nnUNet_n_proc_DA"] = workers
    steps = plan(dataset, schedule, base_plans=base_plans, first_trainer=PGCD)
    rows: list[dict[str, Any]] = []
    for index, step in enumerate(steps):
        for name in (PGCD, MIB)[: 2 if index else 1]:
            trainer = make_real_trainer(dataset, name, step.plans_name, given["device"])
            train = step_cost.seconds_of(trainer.run_training, given["device"] == "cuda")[0]
            memory = None if given["device"] == "cpu" else torch.cuda.max_memory_allocated() / 2**20
            validate = step_cost.seconds_of(trainer.perform_actual_validation, given["device"] == "cuda")[0]
            logged = trainer.logger.get_checkpoint()
            epochs = [
                b - a for a, b in zip(logged["epoch_start_timestamps"], logged["epoch_end_timestamps"], strict=True)
            ]
            dice = validation_dice(Path(trainer.output_folder), trainer.step_plan.labels)
            rows.append({"trainer": name, "step": index, "new": list(step.plan.new_classes), "dice": dice})
            rows[-1] |= {"seconds": train, "epoch_seconds": epochs, "validation_seconds": validate, "peak_mib": memory}
            rows[-1]["losses"] = [float(x) for x in logged["train_losses"]]
            notes(trainings=rows)
            del trainer
            gc.collect()


def make_real_trainer(dataset: str, name: str, plans_name: str, device: str) -> Any:
    """Returns a trainer as nnUNetv2_train makes it."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return get_trainer_from_args(dataset, "3d_fullres", 0, name, plans_name, device=torch.device(device))


def real_steps(given: dict[str, Any], notes: Notes) -> tuple[str, Path, str]:
    """Links some cases into a data set, preprocesses them, and writes a schedule of three steps; returns all three names."""
    import numpy as np

    from nnunet_cil.host.case_files import training_files
    from nnunet_cil.host.dataset_json import read_dataset_json
    from nnunet_cil.host.plans_files import read_plans, small_plans
    from nnunet_cil.host.preprocess import preprocess

    source, root = Path(given["data"]).resolve(), Path(given["folder"])
    dataset_json = read_dataset_json(source / "dataset.json", "Give the folder of an nnU-Net raw data set.")
    names = [
        n
        for n, _ in sorted(dataset_json["labels"].items(), key=lambda item: item[1])
        if n not in ("background", "ignore")
    ]
    if len(names) < 3:
        raise SkippedError(f"{source.name} has {len(names)} classes, and three steps need three.")
    files = dict(sorted(training_files(source, dataset_json).items())[: 5 if given["quick"] else 30])
    raw = root / "raw" / source.name
    for case in files.values():
        for part, paths in (("imagesTr", case["images"]), ("labelsTr", [case["label"]])):
            for path in map(Path, paths):
                (raw / part).mkdir(parents=True, exist_ok=True)
                (raw / part / path.name).symlink_to(path.resolve())
    own = {key: value for key, value in dataset_json.items() if key != "dataset"}
    (raw / "dataset.json").write_text(json.dumps({**own, "numTraining": len(files)}))
    for folder in ("preprocessed", "results"):
        (root / folder).mkdir(exist_ok=True)
    begin = time.perf_counter()
    preprocess(source.name, "3d_fullres", "nnUNetPlans", root / "logs")
    notes(data=source.name, cases=len(files), preprocessing_seconds=time.perf_counter() - begin)
    base_plans = "nnUNetPlans"
    if given["quick"]:
        base_plans = "nnUNetPlansSmall"
        file = root / "preprocessed" / source.name / "nnUNetPlans.json"
        plans = small_plans(
            read_plans(file, ""), base_plans, "3d_fullres", features=[4, 8, 8], patch_size=[32] * 3, batch_size=2
        )
        file.with_name(f"{base_plans}.json").write_text(json.dumps(plans))
    epochs, iterations = ((1, 1, 1), 2) if given["quick"] else ((5, 6, 4), 40)
    common = {"num_iterations_per_epoch": iterations, "num_val_iterations_per_epoch": max(1, iterations // 10)}
    common |= {"mirror_axes": [], "optimizer": "AdamW", "initial_lr": 0.001}
    groups = zip(np.array_split(names, 3), epochs, strict=True)
    steps = [{"classes": [str(n) for n in own], "training": {"num_epochs": number}} for own, number in groups]
    schedule = root / "gpu_check.json"
    schedule.write_text(json.dumps({"name": "gpu_check", "steps": steps, "training": common}))
    return source.name, schedule, base_plans


PARTS = {"losses": losses, "resume": resume, "cost": cost, "compile": compiled, "training": training}


def main() -> None:
    """Runs one part: the arguments are its settings as JSON, and the file for what it finds."""
    given, notes = json.loads(sys.argv[1]), Notes(Path(sys.argv[2]))
    import torch

    if given["device"] == "cuda":
        torch.backends.cudnn.benchmark = given["part"] in ("cost", "compile", "training")  # as nnUNetv2_train
    notes(machine=machine(given["device"]))
    try:
        PARTS[given["part"]](given, notes)
    except SkippedError as reason:
        notes(skipped=str(reason))


if __name__ == "__main__":
    main()
