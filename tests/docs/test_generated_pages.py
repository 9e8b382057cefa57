"""The reference says what the parser, the trainers, the data sets and the schedules say."""

import importlib
import re

import generated_pages
import pytest
from toy import make_trainer

from nnunet_cil.cli.main import COMMANDS
from nnunet_cil.datasets.catalogue import NAMES
from nnunet_cil.schedule import TRAINING_SETTINGS, shipped_schedules
from nnunet_cil.shipped import trainer_names


def test_every_command_has_its_section_with_its_options():
    page = generated_pages.commands()
    for name in COMMANDS:
        assert f"\n## nnunet_cil {name} " in page
    assert "\n`-num_gpus NUM_GPUS`\n:   GPUs for each training, as for nnUNetv2\\_train (default: 1).\n" in page


def test_every_trainer_has_its_section_with_its_options():
    page = generated_pages.trainers()
    for name in trainer_names():
        assert f"\n## {name}\n" in page
    assert "| 0.001 | number from 0 to 1 |" in page
    assert "| `replay_cases` | Old training cases that are kept. | 4 | whole number from 1 to 1,000,000 |" in page


def test_every_data_set_has_its_section_with_its_options():
    page = generated_pages.data_sets()
    for name in NAMES:
        assert f"\n## {name}\n" in page
    assert "\n`--names`\n:   A JSON file" in page
    assert "Classes, from number 1 on: spleen, right kidney" in page
    assert "\n:   One of none, transunet, swin-unetr; none: all are training cases. Default: none.\n" in page


def test_every_schedule_has_its_section():
    page = generated_pages.schedules()
    for name in shipped_schedules():
        assert f"\n## {name} " in page
    assert "| 1 | spleen, aorta | `num_epochs = 10`<br>" in page
    assert "AMOS, <https://arxiv.org/abs/2206.08023>. No" in page


@pytest.mark.parametrize("page", ["commands", "trainers", "data_sets", "schedules"])
def test_no_link_takes_the_punctuation_after_an_address(page):
    text = getattr(generated_pages, page)()
    assert re.findall(r"<https?://[^>]*[:;,.)]>", text) == []


@pytest.mark.parametrize("name", [name for names in generated_pages.PUBLIC.values() for name in names])
def test_what_is_public_exists_and_has_a_docstring(name):
    module, attribute = name, None
    try:
        thing = importlib.import_module(module)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        thing = getattr(importlib.import_module(module), attribute)
    assert thing.__doc__


def test_nnunets_settings_have_their_meaning_and_their_default(toy):
    assert list(generated_pages.TRAINING_SETTINGS) == list(TRAINING_SETTINGS)
    trainer = make_trainer("nnUNetTrainer", "nnUNetPlans")
    for name, (default, _) in generated_pages.TRAINING_SETTINGS.items():
        if name not in ("mirror_axes", "optimizer"):
            assert default == str(getattr(trainer, name)).lower(), name


def test_links_of_contributing_are_seen_from_the_site(monkeypatch, tmp_path):
    (tmp_path / "CONTRIBUTING.md").write_text("[a](docs/glossary.md) [b](plans/README.md) [c](https://d) [e](#f)")
    monkeypatch.setattr(generated_pages, "ROOT", tmp_path)
    assert generated_pages.contributing() == "[a](glossary.md) [b](../plans/README.md) [c](https://d) [e](#f)"
