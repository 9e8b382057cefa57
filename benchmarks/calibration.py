"""Asks whether PGCD's weighting by prototypes knows where the teacher is right, on validation cases: numbers, and a picture.

    python benchmarks/calibration.py TEACHER STUDENT -f 0 -o benchmarks/results/calibration --picture weights.png
    python benchmarks/calibration.py --table benchmarks/results/calibration

TEACHER and STUDENT are model folders of two steps that follow each other, trained on one data set that labels every class
(benchmarks/study.py makes such). Whole preprocessed volumes are cut into patches as in training. For every old class c:

- among voxels that the teacher calls c, how well a score tells the right ones from the wrong (area under the ROC curve, 0.5 is
  chance): the teacher's own probability, and the similarity pi_c to prototypes carried forward, re-estimated, or blended;
- among voxels that it calls background, how well the same scores tell missed voxels of c from true background;
- the mean weight w_c on true positives, false positives and missed voxels of the teacher, and on true background;
- the share of the false positives that lie in stray regions: connected regions of c of which less than a tenth is right
  (where patches overlap, voxels count twice).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_cil.labels import lookup_table
from nnunet_cil.losses.prototypes import prototype_similarity
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import Teacher
from nnunet_cil.step_plans import StepPlan, read_step_plan
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.training.class_choices import confident_classes
from nnunet_cil.training.data import tiles
from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD as PGCD
from nnunet_cil.training.passes import feature_sums

DEVICE = torch.device("cpu")
SHARES = {"carried": 0.0, "blended": PGCD.prototype_refresh, "re-estimated": 1.0}
"""Share of the teacher's own estimate in the prototypes."""
BACKGROUND = 20
"""Takes one in so many of the voxels that both call background."""


class Model:
    """A trained fold: its network, its plans, its checkpoint."""

    def __init__(self, folder: Path, fold: int) -> None:
        """Reads the final checkpoint."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(device=DEVICE, perform_everything_on_device=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (fold,), "checkpoint_final.pth")
        predictor.network.load_state_dict(predictor.list_of_parameters[0])
        self.run = Teacher(predictor.network, DEVICE)
        self.configuration = predictor.configuration_manager
        self.plans = predictor.plans_manager
        self.step: StepPlan = read_step_plan(self.plans.plans, predictor.dataset_json)
        self.state = read_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth")["cil"]


class Analysis:
    """A teacher and its student on the validation cases of a fold."""

    def __init__(self, teacher: Path, student: Path, fold: int) -> None:
        """Finds the preprocessed cases."""
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        from nnunet_cil.host.folders import nnunet_folder

        self.fold = fold
        self.teacher, self.student = Model(teacher, fold), Model(student, fold)
        self.num_old = self.student.step.num_old_channels
        self.names = ("background", *self.student.step.seen_classes)
        folder = nnunet_folder("nnUNet_preprocessed") / self.student.plans.dataset_name
        self.cases: list[str] = json.loads((folder / "splits_final.json").read_text())[fold]["val"]
        self.data = str(folder / self.student.configuration.data_identifier)
        self.dataset_class = infer_dataset_class(self.data)
        self.banks = self._banks()

    def tiles(self, cases: list[str], label_map: dict[int, int]) -> Any:
        """Yields the cases as the losses see them."""
        table = lookup_table(label_map, self.student.step.dataset_labels.values())
        return tiles(self.dataset_class(self.data, cases), self.student.configuration.patch_size, table, None, 1)

    def _banks(self) -> dict[str, PrototypeBank]:
        """Collects prototypes as ``nnUNetTrainerPGCD.inherit_prototypes`` does, on these cases instead of the training cases."""
        carried = PrototypeBank.from_state_dict(self.teacher.state["prototypes"])
        step = self.student.step
        label_map = step.target_labels(step.target_classes)
        sums, counts = feature_sums(
            ((tile, *self.teacher.run(tile.images)) for tile in self.tiles(self.cases, label_map)),
            confident_classes(self.num_old, PGCD.prototype_confidence),
            num_classes=self.num_old,
            num_features=carried.prototypes.shape[1],
        )
        fresh = PrototypeBank.from_sums(sums, counts)
        return {name: carried.blended(fresh, share, PGCD.min_voxels) for name, share in SHARES.items()}

    def similarity(self, features: Tensor, bank: PrototypeBank) -> Tensor:
        """pi, with PGCD's defaults."""
        return prototype_similarity(features, bank.prototypes, bank.known, temperature=PGCD.similarity_temperature)

    def measure(self) -> dict[str, Any]:
        """Returns areas under the ROC curve and mean weights of each old class."""
        voxels: list[dict[str, Tensor]] = []
        stray = np.zeros((self.num_old, 2))
        for tile in self.tiles(self.cases, self.student.step.evaluation_label_map):
            output = self.teacher.run(tile.images)
            probabilities = output.logits.softmax(1)
            scores = {"probability": probabilities}
            scores |= {name: self.similarity(output.features, bank) for name, bank in self.banks.items()}
            predicted = probabilities.argmax(1)
            used = tile.valid & ((predicted > 0) | (tile.labels > 0) | self._some(tile.labels))
            found = {"predicted": predicted[used], "labels": tile.labels[used]}
            voxels.append(found | {name: score.movedim(1, -1)[used] for name, score in scores.items()})
            stray += self._stray(predicted[0].numpy(), tile.labels[0].numpy())
        joined = {name: torch.cat([v[name] for v in voxels]).numpy() for name in voxels[0]}
        shares = stray[:, 0] / stray[:, 1].clip(min=1)
        return {
            self.names[c]: {**self._of_class(c, joined), "false positives": {"in stray regions": float(shares[c])}}
            for c in range(1, self.num_old)
        }

    def _stray(self, predicted: Any, labels: Any) -> Any:
        """(classes, 2): false positives in stray regions, and all of them."""
        import cc3d

        regions, number = cc3d.connected_components(predicted.astype(np.uint8), connectivity=6, return_N=True)
        size = np.bincount(regions.ravel(), minlength=number + 1)
        wrong = np.bincount(regions[predicted != labels], minlength=number + 1)
        of_class = np.zeros(number + 1, dtype=int)
        of_class[regions.ravel()] = predicted.ravel()
        counts = np.zeros((self.num_old, 2))
        for region in range(1, number + 1):
            counts[of_class[region]] += wrong[region] * np.array([wrong[region] > 0.9 * size[region], 1])
        return counts

    @staticmethod
    def _some(labels: Tensor) -> Tensor:
        kept = torch.zeros(labels.numel(), dtype=torch.bool)
        kept[::BACKGROUND] = True
        return kept.view(labels.shape)

    @staticmethod
    def _of_class(c: int, voxels: dict[str, Any]) -> dict[str, Any]:
        from sklearn.metrics import roc_auc_score

        predicted, labels = voxels["predicted"], voxels["labels"]
        called, missed = predicted == c, (predicted == 0) & (labels == c)
        background = (predicted == 0) & (labels == 0)
        found, lost = {}, {}
        for name in ("probability", *SHARES):
            score = voxels[name][:, c]
            found[name] = float(roc_auc_score(labels[called] == c, score[called]))
            among = missed | background
            lost[name] = float(roc_auc_score(missed[among], score[among]))
        weight = 1 + PGCD.pgcd_beta * voxels["blended"][:, c]
        groups = {
            "true positive": called & (labels == c),
            "false positive": called & (labels != c),
            "missed": missed,
            "background": background,
        }
        weights = {name: float(weight[group].mean()) for name, group in groups.items()}
        return {"right from wrong": found, "missed from background": lost, "weight": weights}

    def picture(self, file: Path, number: int = 2) -> None:
        """Draws the cases in which the student has most wrong voxels of old classes, at the slice where most of them are."""
        import matplotlib.pyplot as plt

        maps = {case: self._maps(case) for case in self.cases}
        worst = sorted(maps, key=lambda case: -self._wrong(maps[case]).sum())[:number]
        figure, axes = plt.subplots(number, 4, figsize=(13, 2.2 * number), squeeze=False, layout="constrained")
        spacing = self.student.configuration.spacing
        drawn = {"origin": "lower", "aspect": spacing[-2] / spacing[-1], "interpolation": "nearest"}
        for row, case in zip(axes, worst, strict=True):
            found = maps[case]
            window = np.percentile(found["image"], (1, 99.5))
            z = int(self._wrong(found).sum((1, 2)).argmax())
            for axis, name in zip(row, ("truth", "teacher", "student"), strict=False):
                axis.imshow(found["image"][z], cmap="gray", vmin=window[0], vmax=window[1], **drawn)
                shown = np.ma.masked_equal(found[name][z], 0)
                axis.imshow(shown, cmap="tab10", vmin=0.5, vmax=10.5, alpha=0.6, **drawn)
                axis.set_title(f"{case}: {name}" if name == "truth" else name)
            image = row[3].imshow(found["weight"][z], cmap="viridis", vmin=1, vmax=1 + PGCD.pgcd_beta, **drawn)
            row[3].set_title("largest weight of an old class")
            figure.colorbar(image, ax=row[3], shrink=0.8)
        for axis in axes.flat:
            axis.set_axis_off()
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=70)

    def _wrong(self, maps: dict[str, Any]) -> Any:
        old = (maps["truth"] < self.num_old) & (maps["student"] < self.num_old)
        return (maps["truth"] != maps["student"]) & old

    def _maps(self, case: str) -> dict[str, Any]:
        """Puts whole volumes together from the patches."""
        from acvl_utils.cropping_and_padding.padding import pad_nd_image
        from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

        patch = self.student.configuration.patch_size
        data, labels, _, _ = self.dataset_class(self.data, [case]).load_case(case)
        image = pad_nd_image(np.asarray(data[:], dtype=np.float32), patch)
        table = lookup_table(self.student.step.evaluation_label_map, self.student.step.dataset_labels.values())
        truth = pad_nd_image(table[np.asarray(labels[0]).astype(np.int64) + 1].clip(min=0), patch)
        maps = {name: np.zeros(truth.shape, dtype=np.float32) for name in ("teacher", "student", "weight")}
        steps = compute_steps_for_sliding_window(truth.shape, tuple(patch), 1.0)
        for index in np.ndindex(*(len(s) for s in steps)):
            box = tuple(slice(s[i], s[i] + p) for s, i, p in zip(steps, index, patch, strict=True))
            images = torch.from_numpy(image[(slice(None), *box)][None])
            output = self.teacher.run(images)
            maps["teacher"][box] = output.logits[0].argmax(0)
            maps["student"][box] = self.student.run(images).logits[0].argmax(0)
            similarity = self.similarity(output.features, self.banks["blended"])[0, 1:].max(0).values
            maps["weight"][box] = 1 + PGCD.pgcd_beta * similarity
        return {"image": image[0], "truth": truth, **maps}


def table(folder: Path) -> str:
    """Returns Markdown, a table for each measure: mean over the files (each of them)."""
    contents = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    lines = []
    for group in ("right from wrong", "missed from background", "weight", "false positives"):
        columns = list(next(iter(contents[0]["classes"].values()))[group])
        lines += [f"| {group} | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
        for name in contents[0]["classes"]:
            values = [[content["classes"][name][group][column] for content in contents] for column in columns]
            cells = [f"{np.mean(v):.2f} ({', '.join(f'{x:.2f}' for x in v)})" for v in values]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, nargs="?", help="model folder of a step")
    parser.add_argument("student", type=Path, nargs="?", help="model folder of the step after it")
    parser.add_argument("-f", type=int, nargs="+", default=[0], help="folds (default: %(default)s)")
    parser.add_argument("-o", type=Path, help="folder of the results, one JSON file a fold")
    parser.add_argument("--picture", type=Path, help="a PNG file, of the first fold")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="print the tables of a folder of results")
    args = parser.parse_args()
    for fold in args.f if args.teacher else []:
        analysis = Analysis(args.teacher, args.student, fold)
        if args.picture and fold == args.f[0]:
            analysis.picture(args.picture)
        args.o.mkdir(parents=True, exist_ok=True)
        content = {"teacher": args.teacher.name, "student": args.student.name, "fold": fold}
        content["classes"] = analysis.measure()
        (args.o / f"fold{fold}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(table(args.table or args.o))


if __name__ == "__main__":
    main()
