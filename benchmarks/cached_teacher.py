"""Measures what a cached teacher's output costs a worker, against the forward pass that it saves. Needs no data.

    python benchmarks/cached_teacher.py -o benchmarks/results/cached_teacher.json
    python benchmarks/cached_teacher.py -o benchmarks/results/cached_teacher.json --table FILE

PGCD needs the teacher's logits and features at every voxel. A cache would store them once per training case (half precision,
blosc2, in nnU-Net's chunks); a worker would read, crop and augment them with image and labels. Measured, each on one thread, as
in nnU-Net's workers: CPU time of nnU-Net's own sample, of the same sample with these channels, and of the teacher's forward pass.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cost_report
import synthetic

KIND = "3d"
BYTES = 2
"""Bytes of a number in half precision."""


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Returns the CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def write_cache(file: Path, channels: int, shape: tuple[int, ...], patch: list[int]) -> None:
    """Makes noise, which compresses as little as features do."""
    import blosc2
    import numpy as np
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

    blocks, chunks = comp_blosc2_params((channels, *shape), patch, bytes_per_pixel=BYTES)
    cache = blosc2.empty((channels, *shape), np.float16, urlpath=str(file), chunks=chunks, blocks=blocks)
    rng = np.random.default_rng(0)
    for channel in range(channels):
        cache[channel] = rng.standard_normal(shape, dtype=np.float32).astype(np.float16)


def sample(loader: Any, case: str, cache: Any = None) -> None:
    """Makes one training sample as nnU-Net's worker does; with the crop of the cache where it is given."""
    import numpy as np
    import torch
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    image, labels, _, properties = loader._data.load_case(case)
    lower, upper = loader.get_bbox(image.shape[1:], True, properties["class_locations"])
    box = [[low, high] for low, high in zip(lower, upper, strict=True)]
    given = {
        "image": torch.from_numpy(crop_and_pad_nd(image, box, 0)).float(),
        "segmentation": torch.from_numpy(crop_and_pad_nd(labels, box, -1, cast_cropped_to=np.int16)).to(torch.int16),
    }
    if cache is not None:  # augmented in space, like labels, but not in intensity
        given["regression_target"] = torch.from_numpy(crop_and_pad_nd(cache, box, 0)).float()
    loader.transforms(**given)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measures CPU seconds sample by sample; with the cache and without it take turns on the same random numbers."""
    import blosc2
    import numpy as np
    import torch

    synthetic.make_dataset(folder, KIND, args.old_classes + 1, args.patch, 1, args.features)
    trainer = synthetic.make_trainer("nnUNetTrainer", synthetic.PLANS, KIND, "cpu")
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    loader, case = train.data_loader, trainer.do_split()[0][0]
    features = trainer.configuration_manager.network_arch_init_kwargs["features_per_stage"][0]
    channels = args.old_classes + 1 + features
    file = folder / "cache.b2nd"
    write_cache(file, channels, synthetic.volume_shape(args.patch), args.patch)
    cache = blosc2.open(str(file), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    torch.set_num_threads(1)

    def seeded(seed: int, given: Any) -> float:
        np.random.seed(seed)  # noqa: NPY002  nnU-Net draws from it
        torch.manual_seed(seed)
        return cpu_seconds(lambda: sample(loader, case, given))

    samples = []
    for seed in range(args.samples + 1):
        samples.append({"plain": seeded(seed, None), "cached": seeded(seed, cache)})
    batch = torch.randn(1, 1, *args.patch)
    with torch.inference_mode():
        forward = [cpu_seconds(lambda: trainer.network(batch)) for _ in range(4)]
    return {
        "old_classes": args.old_classes,
        "channels": channels,
        "patch": args.patch,
        "bytes_per_voxel": channels * BYTES,
        "on_disk": file.stat().st_size / (math.prod(synthetic.volume_shape(args.patch)) * channels * BYTES),
        "torch": torch.__version__,
        "samples": samples[1:],
        "forward": forward[1:],
    }


def table(found: dict[str, Any]) -> str:
    """Returns Markdown: means over the samples. Rotations and scalings, which cost most, are drawn in a third of them."""
    plain, cached = (statistics.mean(s[which] for s in found["samples"]) for which in ("plain", "cached"))
    forward = statistics.median(found["forward"])
    patch = " x ".join(map(str, found["patch"]))
    stored = found["bytes_per_voxel"] * found["on_disk"]
    rows = [
        ["channels to read and augment with a sample", f"{found['channels']}"],
        ["disk, bytes a voxel (a case of 20 million voxels)", f"{stored:.0f} ({stored * 0.02:.1f} GB)"],
        ["sent to the GPU with a sample, ratio to nnU-Net's image in single precision", f"{found['channels'] / 2:.1f}"],
        ["worker's CPU time of a sample, ratio to nnU-Net's own", f"**{cached / plain:.1f}**"],
        [
            "what is added to it, ratio to the teacher's forward pass on one CPU core",
            f"{(cached - plain) / forward:.2f}",
        ],
    ]
    head = f"{found['old_classes']} old classes, patch {patch}, {len(found['samples'])} samples"
    return cost_report.table([head, ""], rows)


def main() -> None:
    """Measures, unless it is measured, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old-classes", type=int, default=13)
    parser.add_argument("--patch", type=int, nargs=3, default=[96, 96, 96], help="(default: %(default)s)")
    parser.add_argument("--features", type=int, nargs="+", help="of each stage (default: as nnU-Net plans)")
    parser.add_argument("--samples", type=int, default=60, help="(default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure anew what is in the output file")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file")
    parser.add_argument("--table", nargs="?", const="-", metavar="FILE", help="print the table, or put it into FILE")
    args = parser.parse_args()
    if args.output and args.output.is_file() and not args.again:
        found = json.loads(args.output.read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ.update(synthetic.environment(Path(folder)), nnUNet_n_proc_DA="0", nnUNet_compile="f")
            found = measure(Path(folder), args)
        if args.output:
            args.output.write_text(json.dumps(found, indent=1) + "\n")
    cost_report.put(table(found), args.table or "-", "cached_teacher")


if __name__ == "__main__":
    main()
