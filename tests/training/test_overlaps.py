"""New classes that lie where the previous model sees an old one."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from toy import plan_toy, train

from nnunet_cil.networks.teacher import Teacher, TeacherOutput
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training.data import Tile
from nnunet_cil.training.overlaps import MOST_CASES, overlap_remarks
from nnunet_cil.training.passes import Ranks, TrainingPass

SIZE = (1, 4, 10, 10)
OLD, NEW = ("kidney", "liver"), ("left kidney", "right kidney", "liver tumour")


@dataclass(frozen=True, kw_only=True)
class Cases(TrainingPass):
    """Cases of one tile each, that the test draws."""

    drawn: dict[str, tuple[torch.Tensor, torch.Tensor]]

    def tiles(self, batch_size=None):
        for case in self.cases:
            image, labels = self.drawn[case]
            yield Tile(image[:, None], labels, labels < 9, case, (0, 0, 0))


def teacher(images):
    """Has learnt its organs: intensity 1 is a kidney, 2 a liver."""
    classes = images[:, 0].round().long().clamp(0, 2)
    return TeacherOutput(nn.functional.one_hot(classes, 3).movedim(-1, 1).float(), images)


def remarks(drawn, labelled=None):
    cases = Cases(
        cases=list(drawn),
        ranks=Ranks(),
        open_cases=None,
        label_table=None,
        patch_size=SIZE[1:],
        ignore_label=9,
        previous_labels=(),
        batch_size=1,
        device=torch.device("cpu"),
        num_features=1,
        drawn=drawn,
    )
    labels = {"background": 0, **{name: i for i, name in enumerate((*OLD, *NEW), start=1)}}
    steps = (OLD, NEW)
    step = StepPlan(schedule="s", step=1, steps=steps, dataset_labels=labels, labels=labels, labelled=labelled or {})
    return overlap_remarks(teacher, cases, step)


def drawn(**parts):
    """Draws 400 voxels: the first 100 are a kidney, the next 200 a liver; ``parts`` are voxels of labels 3, 4, 5 and 9."""
    image, labels = torch.zeros(SIZE), torch.zeros(SIZE, dtype=torch.int64)
    image.view(-1)[:100], image.view(-1)[100:300] = 1, 2
    for name, where in parts.items():
        labels.view(-1)[where] = int(name.removeprefix("label"))
    return image, labels


def test_two_sides_of_an_old_organ_are_told_with_its_share():
    found = remarks({"a": drawn(label3=slice(0, 48), label4=slice(51, 100))})
    assert [text.split(":")[0] for text in found] == [
        "The labels of 'left kidney' cover 48% of what the previous model calls 'kidney', where 100% of 'left kidney' lies",
        "The labels of 'right kidney' cover 49% of what the previous model calls 'kidney', where 100% of 'right kidney' lies",
    ]


def test_a_tumour_in_an_organ_is_told_however_small_it_is():
    (found,) = remarks({"a": drawn(label5=slice(296, 304)), "b": drawn()})
    assert found.startswith(
        "The labels of 'liver tumour' cover 1% of what the previous model calls 'liver', where 50% of"
    )


def test_a_neighbour_with_a_rough_border_is_not():
    assert remarks({"a": drawn(label5=slice(290, 350)), "b": drawn(label3=slice(330, 400))}) == []


def test_ignored_voxels_do_not_count():
    (found,) = remarks({"a": drawn(label3=slice(0, 20), label9=slice(60, 100))})
    assert "cover 33% of what the previous model calls 'kidney'" in found


def test_a_case_that_does_not_label_the_class_is_left_out():
    both = {"a": drawn(label3=slice(0, 50)), "b": drawn()}
    assert "cover 25% of" in remarks(both)[0]
    assert "cover 50% of" in remarks(both, labelled={"b": ("liver tumour",)})[0]


def test_a_look_at_some_cases_is_enough():
    many = {f"case_{i}": drawn(label3=slice(0, 50)) for i in range(3 * MOST_CASES)}
    asked = []

    class Counting(dict):
        def __getitem__(self, case):
            asked.append(case)
            return super().__getitem__(case)

    assert "cover 50% of" in remarks(Counting(many))[0]
    assert len(asked) == MOST_CASES


def test_a_training_says_it_in_its_log_and_on_the_screen(toy, tmp_path, capsys, monkeypatch):
    """The toy's organs are boxes brighter than their surroundings, so that a threshold is a teacher that has learnt one."""
    name, names = "nnUNetTrainerLwF", plan_toy(tmp_path, (("liver", "spleen"), ("kidney",)))
    train(name, names[0])
    original = Teacher.__call__

    def learnt(self, images):
        """Calls every box a spleen."""
        bright = images[:, 0] > 0.5
        logits = torch.stack([(~bright).float(), torch.zeros_like(images[:, 0]), bright.float()], 1) * 20
        return TeacherOutput(logits, original(self, images).features)

    monkeypatch.setattr(Teacher, "__call__", learnt)
    capsys.readouterr()
    trainer = train(name, names[1])
    screen, log = capsys.readouterr().out, Path(trainer.log_file).read_text()
    for text in (screen, log):
        assert "The labels of 'kidney' cover " in text
        assert " of what the previous model calls 'spleen', where " in text
        assert "calls 'liver'" not in text
