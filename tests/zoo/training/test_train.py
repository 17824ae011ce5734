"""A run that was killed and resumed is the run that was never killed."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from zoo.danet import DANet, DANetConfig
from zoo.errors import ConfigError, WeightsError, ZooError
from zoo.training import pruning
from zoo.training import train as loop
from zoo.training.config import Recipe
from zoo.training.data import Images
from zoo.training.lineage import Init
from zoo.training.optimizer import learning_rate, parameter_groups
from zoo.training.sampler import BatchSampler, generator
from zoo.training.train import RunOptions, TrainingRun, train

RECIPE = Recipe(
    dataset="fmnist",
    epochs=2,
    batch_size=8,
    lr=0.05,
    label_smoothing=0.1,
    crop_padding=1,
    flip=True,
    erase=3,
    bf16=False,
)
STEPS = 6  # 26 images: three batches of eight an epoch, two images left over
TINY = DANetConfig(
    depths=(1, 2),
    widths=(8, 8),
    stem="small",
    steps=2,
    in_channels=1,
    num_classes=5,
    threshold=0.5,  # so low that the last neurons fire from the start
)
Trained = tuple[dict[str, Tensor], dict[str, Any]]  # weights, and the last line of the metrics


def images(n: int) -> Images:
    return Images(torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8), torch.arange(n) % 5)


def fit_tiny(
    runs: Path,
    run: str = "run",
    recipe: Recipe = RECIPE,
    progress: loop.Progress | None = None,
    *,
    poison: bool = False,
    init: Init | None = None,
    teacher: loop.Teacher | None = None,
    **options: Any,
) -> Trained:
    """Train a new model in a folder, always from the same start and data."""
    torch.manual_seed(7)
    model = DANet(TINY)
    if poison:
        nn.init.constant_(model.head.fc.bias, math.nan)
    run_options = RunOptions(progress=progress, **options)
    last = train(
        model,
        TrainingRun(
            recipe,
            images(26),
            images(11),
            runs / run,
            init=init,
            teacher=teacher,
            options=run_options,
        ),
    )
    return model.state_dict(), last


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Trained]:
    """`fit(run, recipe, progress)`: what `fit_tiny` returns for a run in the test's own folder."""
    return partial(fit_tiny, tmp_path)


class Killed(Exception):
    pass


def kill_at(step: int) -> loop.Progress:
    def progress(at: int, total: int, shown: dict[str, float]) -> None:
        if at == step:
            raise Killed

    return progress


VARIANTS: dict[str, dict[str, Any]] = {
    "f32": {},
    "bf16": {"bf16": True},
    "average": {"ema": 0.5, "clip": 0.1},
    "mixed": {"mixup": 0.4, "cutmix": 1.0, "random_erase": 0.5},
    "policies": {"auto_augment": "cifar10", "rand_augment": (2, 9)},
    "steps": {"loss": "tet", "t_schedule": ((0, 1), (1, 2))},
    "checkpointing": {"checkpointing": True},
    "pruned": {"prune": 0.8, "prune_scope": "synops", "prune_epochs": (0.5, 2), "ema": 0.5},
    "rewired": {"prune": 0.8, "prune_method": "gradr", "prune_epochs": (0, 1.7)},
    "eight bits": {"weight_bits": 8, "ema": 0.5},
    "one bit": {"weight_bits": 1, "prune": 0.5, "prune_scope": "layer"},
    "attacked": {"adversarial_eps": 8.0, "adversarial_steps": 2},
    "paid": {"synops_weight": 2.0, "spikes_weight": 0.5},
    "fast": {
        "schedule": "linear",
        "whiten": True,
        "crop_mode": "reflect",
        "flip": False,
        "flip_alternating": True,
        "norm_bias_rate": 4.0,
    },
}


class Unbroken(NamedTuple):
    """A run that was never killed."""

    recipe: Recipe
    weights: dict[str, Tensor]
    last: dict[str, Any]


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS.keys())
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Unbroken]:
    recipe = replace(RECIPE, **request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "STEPS_PER_CHOICE", 1)
        yield Unbroken(recipe, *fit_tiny(tmp_path_factory.mktemp("unbroken"), recipe=recipe))


@pytest.mark.parametrize("steps", [[1], [2], [4], [6], [3, 5]], ids=str)
def test_stopped_and_resumed_is_never_stopped(
    steps: list[int], unbroken: Unbroken, fit: Any
) -> None:
    for step in steps:
        with pytest.raises(Killed):
            fit("cut", unbroken.recipe, kill_at(step), save_every=1)
        torch.rand(step)  # a new process would not draw the same numbers either
    weights, last = fit("cut", unbroken.recipe, save_every=2)
    assert all(torch.equal(weights[key], value) for key, value in unbroken.weights.items())
    for key in ("step", "test_top1"):
        assert last[key] == unbroken.last[key]


def test_a_resumed_run_starts_at_its_checkpoint(fit: Any) -> None:
    with pytest.raises(Killed):
        fit(progress=kill_at(3), save_every=1)
    seen: list[int] = []
    fit(progress=lambda step, total, shown: seen.append(step))
    assert seen == [3, 4, 5, 6]


def test_a_line_of_metrics_that_a_kill_cut_is_dropped(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(progress=kill_at(5), save_every=1)
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 2, "st')
    fit()
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_damaged_recipe_of_a_run_is_refused(fit: Any, tmp_path: Path) -> None:
    fit()
    (tmp_path / "run" / "recipe.json").write_text('{"model": ')
    with pytest.raises(ConfigError, match=r"recipe\.json is not a recipe that a run wrote"):
        fit()


def test_a_finished_run_is_not_trained_again(fit: Any) -> None:
    first, metrics = fit()
    seen: list[int] = []
    again, repeated = fit(progress=lambda step, total, shown: seen.append(step))
    assert seen == [] and repeated == metrics
    assert all(torch.equal(again[key], first[key]) for key in first)


def test_the_folder_of_a_run(fit: Any, tmp_path: Path) -> None:
    _, last = fit()
    checkpoints = {"checkpoint-000000003.pt", "checkpoint-000000006.pt"}
    others = {"recipe.json", "lock", "metrics.jsonl", "tensorboard"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == checkpoints | others
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [(line["epoch"], line["step"], line["images"]) for line in lines] == [
        (1, 3, 24),
        (2, 6, 24),
    ]
    assert lines[-1] == last
    # of eleven test images
    assert all(round(line["test_top1"] * 11) / 11 == line["test_top1"] for line in lines)
    assert (
        Recipe.from_dict(json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"])
        == RECIPE
    )


def test_the_log_says_what_was_evaluated(fit: Any) -> None:
    _, last = fit(recipe=replace(RECIPE, epochs=1, validation=0.2))
    assert "validation_top1" in last and "test_top1" not in last


def test_evaluating_seldom_changes_nothing_else(fit: Any, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=3)
    often, last = fit("often", recipe)
    seldom, found = fit("seldom", recipe, evaluate_every=2)
    assert all(torch.equal(seldom[key], often[key]) for key in often)
    assert found["test_top1"] == last["test_top1"]
    lines = [
        json.loads(line)
        for line in (tmp_path / "seldom" / "metrics.jsonl").read_text().splitlines()
    ]
    assert ["test_top1" in line for line in lines] == [False, True, True]  # the last epoch always


@pytest.mark.parametrize(
    "variant",
    [{}, {"ema": 0.5}, {"checkpointing": True}, {"loss": "tet", "norm_bias_rate": 4.0}],
    ids=str,
)
def test_frozen_parts_do_not_train(variant: dict[str, Any], fit: Any) -> None:
    recipe = replace(RECIPE, freeze=("stem", "stage2.block1"), **variant)
    start, _ = fit("start", replace(recipe, lr=1e-30, epochs=1))
    expected, _ = fit("whole", recipe)
    for key, value in expected.items():
        frozen = key.startswith(("stem.", "stage2.block1."))
        assert torch.equal(value, start[key]) == (frozen or ".neuron." in key), key
    with pytest.raises(Killed):
        fit("cut", recipe, kill_at(4), save_every=1)
    resumed, _ = fit("cut", recipe)
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)
    with pytest.raises(ConfigError, match="holds a run of another recipe"):
        fit("cut", replace(recipe, freeze=("stem",)))


def test_an_unknown_frozen_part_leaves_no_folder(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'steam' cannot be frozen: valid are stem"):
        fit(recipe=replace(RECIPE, freeze=("steam",)))
    assert not list(tmp_path.iterdir())


def test_a_trained_first_convolution_is_not_whitened(fit: Any, tmp_path: Path) -> None:
    recipe = replace(RECIPE, lr=1e-30, epochs=1, whiten=True)
    init = Init("first", "first", "0" * 64, 10, 8, {}, {}, (), ())
    taken, _ = fit("taken", recipe, init=init)
    plain, _ = fit("plain", replace(recipe, whiten=False))
    assert torch.equal(taken["stem.conv.weight"], plain["stem.conv.weight"])
    new, _ = fit("new", recipe, init=replace(init, new={"stem": "small, was medium"}))
    assert not torch.equal(new["stem.conv.weight"], plain["stem.conv.weight"])
    assert Init.read(tmp_path / "taken" / "recipe.json") == init


def test_progress_counts_every_step(fit: Any) -> None:
    seen: list[tuple[int, int]] = []

    def progress(step: int, total: int, shown: dict[str, float]) -> None:
        seen.append((step, total))
        assert (
            shown.keys() == {"loss", "top1", "images/s"}
            and shown["loss"] > 0
            and 0 <= shown["top1"] <= 1
        )

    fit(progress=progress)
    assert seen == [(step, STEPS) for step in range(1, STEPS + 1)]


@pytest.mark.parametrize(
    "change", [{"lr": 0.01}, {"seed": 1}, {"epochs": 3}, {"flip": False}], ids=str
)
def test_a_folder_belongs_to_one_recipe(change: dict[str, Any], fit: Any) -> None:
    fit()
    with pytest.raises(ConfigError, match=r"run holds a run of another recipe, with .* --run"):
        fit(recipe=replace(RECIPE, **change))


def test_the_seed_matters(fit: Any) -> None:
    weights = [
        fit(run, replace(RECIPE, seed=seed))[0]["head.fc.weight"]
        for run, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_seed_zero_is_torch_s_own_sequence() -> None:
    """The bundled weights were trained so: it may not change under them."""
    expected = torch.rand(9, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.rand(9, generator=generator(0, 5)), expected)
    assert not torch.equal(torch.rand(9, generator=generator(1, 5)), expected)


def test_a_loss_that_is_not_finite_stops_at_once(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ZooError,
        match=r"not finite at step 0 \(epoch 0, batch 0, whose first images are \d+, .* lr=0.025",
    ) as error:
        fit(poison=True)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_a_run_that_diverges_names_the_step(fit: Any) -> None:
    with pytest.raises(
        ZooError, match=r"not finite at step \d \(epoch \d, batch \d, whose first images"
    ):
        fit(recipe=replace(RECIPE, lr=1e30))


def test_out_of_memory_says_what_to_lower(fit: Any) -> None:
    def exhausted(step: int, total: int, shown: dict[str, float]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(
        ZooError,
        match=r"out of memory with batch_size = 8: .*checkpointing=true.* batch_size=4 lr=0.025",
    ) as error:
        fit(progress=exhausted)
    assert "\n" not in str(error.value)


def test_fewer_images_than_a_batch_are_refused(fit: Any) -> None:
    with pytest.raises(ConfigError, match="batch_size = 27 is more than the 26 training images"):
        fit(recipe=replace(RECIPE, batch_size=27))


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    recipe = Recipe(dataset="fmnist", epochs=4, lr=0.8, warmup_epochs=1.0)
    rates = [learning_rate(recipe, step, 10, 40) for step in range(41)]
    assert rates[:10] == pytest.approx([0.08 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == rates[10] == pytest.approx(0.8)
    assert rates[25] == pytest.approx(0.4) and rates[40] == pytest.approx(0.0)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_the_rate_may_fall_along_a_line() -> None:
    recipe = Recipe(dataset="fmnist", epochs=4, lr=0.8, warmup_epochs=1.0, schedule="linear")
    assert [learning_rate(recipe, step, 10, 40) for step in (9, 10, 25, 40)] == pytest.approx(
        [0.8, 0.8, 0.4, 0.0]
    )


def test_biases_of_normalisations_may_have_a_rate_of_their_own(
    tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    model = tiny()
    groups = parameter_groups(model, replace(RECIPE, norm_bias_rate=16.0))
    names = {id(p): name for name, p in model.named_parameters()}
    assert [group["factor"] for group in groups] == [1.0, 1.0, 16.0]
    assert {names[id(p)] for p in groups[2]["params"]} == {
        n for n in names.values() if ".bn" in n and n.endswith("bias")
    }
    assert sum(len(group["params"]) for group in groups) == len(names)
    together = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # as on several GPUs
    rates = [
        group["factor"]
        for group in parameter_groups(together, replace(RECIPE, norm_bias_rate=16.0))
    ]
    assert rates == [1.0, 1.0, 16.0]

    moved = {}
    for factor in (1.0, 1e-9):
        torch.manual_seed(0)
        trained = tiny(widths=(8, 8))
        recipe = replace(RECIPE, norm_bias_rate=factor, flip=False, crop_padding=0, erase=0)
        train(trained, TrainingRun(recipe, images(26), images(11), tmp_path / str(factor)))
        moved[factor] = float(trained.get_submodule("stage1.block0.bn1").bias.detach().abs().max())
    assert moved[1e-9] < 1e-6 < moved[1.0]


def test_a_whitened_first_convolution_is_where_training_begins(fit: Any, tmp_path: Path) -> None:
    plain, _ = fit("plain", replace(RECIPE, lr=1e-9))
    whitened, _ = fit("whitened", replace(RECIPE, lr=1e-9, whiten=True))
    changed = [
        key
        for key in plain
        if plain[key].dim() > 1 and not torch.allclose(plain[key], whitened[key], atol=1e-6)
    ]
    assert changed == ["stem.conv.weight"]
    filters = whitened["stem.conv.weight"]
    assert torch.allclose(filters[:4], -filters[4:], atol=1e-5)


def test_images_may_be_small_at_first(
    fit: Any, record: Any, tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    shapes: list[tuple[int, ...]] = []
    model = tiny(widths=(8, 8))
    model.stem.register_forward_pre_hook(
        lambda module, args: shapes.append(tuple(args[0].shape[-2:]))
    )
    recipe = replace(RECIPE, sizes=((0, 14), (1, 28)))
    run = TrainingRun(
        recipe, images(26), images(11), tmp_path, options=RunOptions(evaluate_every=2)
    )
    train(model, run)
    assert shapes[:3] == [(14, 14)] * 3 and (8, 8) in shapes[3:]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"crop_padding": 8, "crop_mode": "reflect", "sizes": ((0, 8),)},
            "crop_padding = 8 must be below 8 pixels",
        ),
        ({"sizes": ((0, 4),)}, "sizes are for images, of 8 to 112 pixels a side for Fashion-MNIST"),
        (
            {"sizes": ((0, 113),)},
            "sizes are for images, of 8 to 112 pixels a side for Fashion-MNIST",
        ),
        (
            {"dataset": "nmnist", "whiten": True},
            "whiten is for images; N-MNIST has events: set it to false",
        ),
    ],
    ids=str,
)
def test_changes_that_the_images_do_not_allow_are_refused(
    values: dict[str, Any], said: str, fit: Any
) -> None:
    with pytest.raises(ConfigError, match=f"^recipe: {said}"):
        fit(recipe=replace(RECIPE, **values))


def test_what_trains_and_when_it_ends_is_said(fit: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zoo")
    fit(recipe=replace(RECIPE, epochs=3, t_schedule=((0, 1), (2, 2))))
    said = [record.getMessage() for record in caplog.records]
    assert "training on cpu in float32: 3 epochs of 3 steps, 8 images each" in said
    estimates = [
        re.fullmatch(
            r"epoch (\d of 3): loss [\d.e+-]+, train top-1 \d+\.\d\d%, test top-1 \d+\.\d\d%, "
            r"[\d.e+]+ images/s at T = (\d), \d:\d\d:\d\d left",
            text,
        )
        for text in said
    ]
    lines = [match.groups() for match in estimates if match]
    assert lines == [("1 of 3", "1"), ("2 of 3", "1"), ("3 of 3", "2")]


class Clock:
    """Stands still but for ten seconds after each step, as `after_step` is called then."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    process_time = monotonic

    def after_step(self, step: int, total: int, shown: dict[str, float]) -> None:
        self.now += 10


def test_the_seconds_of_an_epoch_are_those_of_all_processes(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def killed_in_the_second_epoch(step: int, total: int, shown: dict[str, float]) -> None:
        if step == 5:
            raise Killed
        clock.after_step(step, total, shown)

    with pytest.raises(Killed):
        fit(progress=killed_in_the_second_epoch, save_every=1)
    fit(progress=clock.after_step)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["seconds"] for line in lines] == [30, 30]


def test_the_first_estimate_is_of_all_steps_so_far(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where epochs are shorter than that."""
    clock, estimates = Clock(), []

    def recorded(_: Any, images: int, seconds: float, steps: int) -> str:
        estimates.append((images, seconds, steps))
        return ""

    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop, "STEPS_OF_ESTIMATE", 5)
    monkeypatch.setattr(loop.Trainer, "_speed_in_words", recorded)
    fit(progress=clock.after_step)
    assert estimates == [(24, 30, 3), (40, 40, 5), (24, 30, 3)]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("sse2 avx512_bf16 amx_tile", "bfloat16"), ("sse2 avx2 avx512f", "float32")],
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    flags: str, expected: str, fit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("zoo.processor._cpuinfo", lambda key: [flags] if key == "flags" else [])
    _, last = fit(recipe=replace(RECIPE, epochs=1, bf16="auto"))
    assert last["precision"] == expected


def test_an_epoch_takes_every_image_at_most_once() -> None:
    sampler = BatchSampler(26, 8)
    epochs = [
        torch.cat([sampler.indices(step) for step in range(3 * e, 3 * e + 3)]).tolist()
        for e in range(2)
    ]
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_only_weights_decay(tiny: Callable[..., DANet]) -> None:
    model = tiny()
    decaying, others = parameter_groups(model, replace(RECIPE, weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    assert decaying["weight_decay"] == 0.1 and others["weight_decay"] == 0.0
    assert all(
        "conv" in names[id(p)] or names[id(p)] == "head.fc.weight" for p in decaying["params"]
    )
    assert all(".bn" in names[id(p)] or names[id(p)] == "head.fc.bias" for p in others["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(names)


def test_a_tiny_network_learns_what_is_easy(tiny: Callable[..., DANet], tmp_path: Path) -> None:
    """Five brightnesses, five classes: the loss falls."""
    labels = torch.arange(40) % 5
    data = Images(
        (labels * 60).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous(), labels
    )
    recipe = Recipe(dataset="fmnist", epochs=8, batch_size=10, lr=0.1)
    last = train(tiny(widths=(8, 8)), TrainingRun(recipe, data, data, tmp_path))
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert last["train_loss"] < 0.7 * first["train_loss"]


def test_a_checkpoint_of_another_network_is_refused(
    fit: Any, tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    fit("run")
    other = tiny(widths=(16, 8), threshold=0.5)
    train(other, TrainingRun(RECIPE, images(26), images(11), tmp_path / "other"))
    for path in (tmp_path / "other").glob("checkpoint-*"):
        path.replace(tmp_path / "run" / path.name)
    with pytest.raises(
        WeightsError, match=r"the checkpoint is not one of this run \(.*\): delete it"
    ) as error:
        fit("run")
    assert "\n" not in str(error.value)


def test_a_teacher_is_followed(fit: Any) -> None:
    """With all of the loss its own, a teacher that knows only class 3 is believed."""
    recipe = replace(RECIPE, distill=1.0, epochs=8, lr=0.1)
    asked: list[tuple[int, ...]] = []

    def teacher(x: Tensor) -> Tensor:
        asked.append(tuple(x.shape))
        return torch.tensor([0.0, 0.0, 0.0, 9.0, 0.0]).expand(len(x), -1)

    _, taught = fit("taught", recipe, teacher=teacher)
    assert set(asked) == {(8, 1, 8, 8)} and len(asked) == 24
    assert taught["test_top1"] == pytest.approx(2 / 11)  # of eleven images, those of class 3


def test_a_teacher_s_whole_share_needs_no_labels(
    tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    """Permuted labels give the same weights, bit for bit (S2-BNN, Shen et al. 2021)."""
    recipe = replace(RECIPE, distill=1.0, label_smoothing=0.1, mixup=0.0, cutmix=0.0)
    given = images(24)
    results = []
    for name, labels in (("right", given.labels), ("permuted", given.labels.flip(0))):
        torch.manual_seed(7)
        model = tiny(widths=(8, 8))
        split = Images(given.pixels, labels)
        train(
            model,
            TrainingRun(
                recipe, split, images(11), tmp_path / name, teacher=lambda x: x.flatten(1)[:, :5]
            ),
        )
        results.append(model.state_dict())
    right, permuted = results
    assert all(torch.equal(right[key], permuted[key]) for key in right)


def test_the_number_of_steps_follows_its_schedule(
    fit: Any, record: Any, tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    shapes: list[int] = []
    model = tiny(widths=(8, 8), steps=3)
    model.head.readout.register_forward_pre_hook(lambda module, args: shapes.append(len(args[0])))
    recipe = replace(RECIPE, t_schedule=((0, 1), (1, 2)))
    train(model, TrainingRun(recipe, images(26), images(11), tmp_path))
    assert shapes == [8, 8, 8, 33, 16, 16, 16, 33]  # T times the batch: training, evaluation
    assert model.head.readout.steps == 3


def test_events_are_trained_on(tiny: Callable[..., DANet], tmp_path: Path) -> None:
    frames = Images(torch.randint(0, 4, (24, 2, 2, 8, 8), dtype=torch.uint8), torch.arange(24) % 5)
    model = tiny(in_channels=2, threshold=0.5)
    recipe = Recipe(dataset="nmnist", epochs=2, batch_size=8, crop_padding=1, flip=True, mixup=0.2)
    last = train(model, TrainingRun(recipe, frames, frames, tmp_path))
    assert last["step"] == 6 and math.isfinite(last["train_loss"])


def test_firing_rates_reach_the_board(fit: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit()
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    tags = board.Tags()["scalars"]
    assert {"train/loss", "train/top1", "test/top1", "lr", "images_per_second"} <= set(tags)
    assert {"firing_rate/head.lif", "dead/head.lif", "saturated/stage1.block0.lif1"} <= set(tags)
    assert [event.step for event in board.Scalars("firing_rate/head.lif")] == [3, 6]
