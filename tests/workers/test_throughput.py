"""How fast a trial runs, and what of it counts as its own work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import VIT, Tiny, after, real, run, trial
from torch.utils.flop_counter import FlopCounterMode

from tasks.base import DataContext
from tasks.metrics import Summary
from workers import throughput
from workers.errors import Stopped


def test_a_report_says_how_fast_it_went(tmp_path: Path) -> None:
    class Slow(Tiny):
        def loaders(self, place: DataContext) -> Any:
            loaders = super().loaders(place)
            epoch = loaders.epoch

            def slowly(number: int, first_step: int = 0) -> Any:
                for batch in epoch(number, first_step):
                    time.sleep(0.02)
                    yield batch

            loaders.epoch = slowly
            return loaders

    _, reports = run(trial().model_copy(update={"task": Slow()}), tmp_path)
    for report in reports:
        values = report.values
        # 32 images, 20 ms for each step of 8
        assert 0 < values["system_images_per_second"] <= 400
        assert 32 / values["system_images_per_second"] <= report.seconds * 1.001
        assert 0.02 * 4 * values["system_images_per_second"] / 32 * 0.999 <= values["system_data_wait"] <= 1
        assert values["system_memory_mb"] > 50
        assert "system_mfu" not in values  # no GPU


def test_caveats_of_the_task_are_among_the_facts(tmp_path: Path) -> None:
    class Toy(Tiny):
        caveats = property(lambda self: ("generated images: not comparable",))  # type: ignore[assignment]

    assert run(trial().model_copy(update={"task": Toy()}), tmp_path / "toy")[0].facts["caveats"] == [
        "generated images: not comparable"
    ]
    assert run(trial(), tmp_path / "plain")[0].facts["caveats"] == []


def test_of_how_many_samples_a_figure_is_a_share_is_among_the_facts(tmp_path: Path) -> None:
    class Counted(Tiny):
        def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
            return Summary(super().summarize(parts).figures, shares={"top1": 10})

    assert run(trial().model_copy(update={"task": Counted()}), tmp_path / "counted")[0].facts["shares"] == {"top1": 10}
    assert "shares" not in run(trial(), tmp_path / "plain")[0].facts


def test_operations_are_counted_without_numbers(tmp_path: Path) -> None:
    """Of two matrix products: forward, the weights' gradients, and the second one's input."""
    spec = trial()
    place = DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=0, batch=8)
    (batch, *_) = spec.task.loaders(place).epoch(0)
    assert throughput.flops_per_image(spec, batch) == 2 * (2 * 48 * 16 + 3 * 16 * 3)
    vit = real("vit_tiny_patch16_224", VIT)
    images = {"images": torch.zeros(2, 3, 32, 32), "labels": torch.zeros(2, dtype=torch.int64)}
    tokens, width = 17, 16
    patches = 3 * 8 * 8 * width * 16
    layers = 2 * 12 * width * width * tokens  # two blocks
    attention = 2 * 2 * tokens * tokens * width  # scores and mixing
    forward = patches + layers + attention + width * 10
    # twice as much backward, but no gradient of the images
    assert throughput.flops_per_image(vit, images) == 2 * (3 * forward - patches)


def test_operations_of_depthwise_convolutions_are_counted_once() -> None:
    layers: dict[str, Any] = {"layers": [1, 1], "channels": [16, 32], "kernels": [13, 5]}
    spec = real("replknet_31b", layers)
    images = {"images": torch.zeros(2, 3, 32, 32), "labels": torch.zeros(2, dtype=torch.int64)}
    model = spec.task.build(spec.backbone, None)
    with FlopCounterMode(display=False) as counter:
        model(images["images"])
    forward = counter.get_total_flops() / 2
    first = 2 * 16 * 16 * 3 * 16 * 9  # 16 x 16 positions, 3 to 16 channels; there is no gradient of the images
    assert throughput.flops_per_image(spec, images) == 3 * forward - first


@pytest.mark.parametrize(
    ("device", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 311.8), ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.4), ("NVIDIA L40S", 362.0), ("NVIDIA L40", None), ("NVIDIA A10", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
    ],
)  # fmt: skip
def test_a_devices_peak_is_known_by_its_name_or_not_at_all(device: str, tflops: float | None) -> None:
    assert throughput.peak_flops(device) == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_processor_and_threads_of_every_attempt_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial may end on another machine than it began on; an attempt like the one before adds nothing."""
    for capability, threads, steps in (("AVX2", 1, 3), ("AVX2", 1, 2), ("AVX512", 1, 4)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        with pytest.raises(Stopped):
            run(trial(), tmp_path, after(steps), threads=threads)
    facts = run(trial(), tmp_path, threads=2)[0].facts
    assert (facts["instruction_set"], facts["threads"]) == ("AVX512", 2)
    rest = {"device": "cpu", "workers": 1}
    assert facts["ran_on"] == [
        {"from_step": 0, "instruction_set": "AVX2", "threads": 1, **rest},
        {"from_step": 5, "instruction_set": "AVX512", "threads": 1, **rest},
        {"from_step": 9, "instruction_set": "AVX512", "threads": 2, **rest},
    ]
