"""Attacks find what can be found, and a figure that is too good says so."""

import json
from dataclasses import replace

import pytest
import torch
from support.networks import lively
from torch import Tensor

from zoo import robust
from zoo.cli import main
from zoo.cli.attack import ATTACKS
from zoo.danet import DANet
from zoo.errors import InputError
from zoo.images import to_input
from zoo.neurons import Lif
from zoo.robust import Attack, Held, attack, fgsm, pgd, surrogate
from zoo.surrogates import ATan

NETWORK = "danet20-t4.fmnist"


def brightness(x: Tensor) -> Tensor:
    """Logits of two classes: the second where the mean pixel is above a half."""
    level = x.mean((1, 2, 3)) - 0.5
    return torch.stack([-level, level], 1)


def pictures(*levels: float) -> Tensor:
    return torch.stack([torch.full((1, 4, 4), level) for level in levels])


def test_a_step_of_fgsm_moves_every_pixel_against_the_answer() -> None:
    x = pictures(0.2, 0.7, 0.02)
    changed = fgsm(brightness, x, torch.tensor([0, 1, 0]), 0.1)
    torch.testing.assert_close(changed, pictures(0.3, 0.6, 0.12))
    bright = fgsm(brightness, pictures(0.05), torch.tensor([1]), 0.1)
    assert torch.equal(bright, pictures(0.0))  # no pixel below black


def test_pgd_finds_what_lies_within_eps_and_nothing_else() -> None:
    x, labels = pictures(0.35, 0.45, 0.55, 0.65), torch.tensor([0, 0, 1, 1])
    assert pgd(brightness, x, labels, 0.1, steps=20).tolist() == [True, False, False, True]
    assert not pgd(brightness, x, 1 - labels, 0.01, steps=20).any()  # wrong as they are


def test_the_gradient_of_every_spike_is_the_surrogate_s_and_then_its_own_again() -> None:
    model = lively("danet20-t2.fmnist", 12, widths=(4, 6, 8))
    neurons = [module for module in model.modules() if isinstance(module, Lif)]
    x = torch.rand(2, 1, 12, 12, requires_grad=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(model(x).square().sum(), x)[0]

    own = gradient()
    for alpha in (0.5, 4.0):
        with surrogate(model, alpha):
            fused = gradient()
            for neuron in neurons:
                neuron.fused = False
            torch.testing.assert_close(gradient(), fused, rtol=1e-4, atol=1e-5)
            for neuron in neurons:
                neuron.fused = True
        assert not torch.allclose(own, fused)
    assert torch.equal(gradient(), own)
    assert all(neuron.neuron.spike_grad == ATan() for neuron in neurons)


def test_an_image_is_robust_where_every_attack_leaves_it_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(robust, "ALPHAS", (1.0, 2.0))
    monkeypatch.setattr(robust, "APGD_STEPS", 5)
    monkeypatch.setattr(robust, "QUERIES", 5)
    monkeypatch.setattr(robust, "PGD_STEPS", 4)
    monkeypatch.setattr(robust, "MORE_STEPS", 6)
    model = lively("danet20-t2.fmnist", 12, widths=(4, 6, 8))
    pixels = torch.randint(0, 256, (4, 1, 12, 12), dtype=torch.uint8)
    labels = model(to_input(pixels, model.known_origin.data)).argmax(1)
    labels[0] = (labels[0] + 1) % 10  # one that is wrong as it is
    found = attack(model, pixels, labels, eps=1)
    assert (found.images, found.clean) == (4, 3) and 0 <= found.left <= 3
    alone = [row.left for row in found.rows if row.attack in ("fgsm", "pgd")]
    assert found.left <= min(alone) and len(alone) == 4
    pgd_rows = {"pgd restarts", "pgd, more steps", "pgd, half"}
    assert {row.attack for row in found.rows} == {*ATTACKS, *pgd_rows}
    assert all(row.left <= row.of for row in found.rows)
    assert attack(model, pixels, labels, eps=1, attacks=["fgsm"]).left >= found.left
    again = attack(model, pixels, labels, eps=1)
    assert again == found  # the random starts are seeded
    assert json.loads(json.dumps(found.to_json()))["robust_top1"] == found.left / 4


def held() -> Held:
    """Return what attacks leave of 100 images on a network that masks nothing."""

    def first(count: int) -> Tensor:
        return torch.arange(100) < count

    alphas = robust.ALPHAS
    return {
        ("clean", None): first(92),
        ("gradient", None): first(92),
        **{("fgsm", alpha): first(48) for alpha in alphas},
        **{("pgd", alpha): first(17) for alpha in alphas},
        **{("pgd restarts", alpha): first(14) for alpha in alphas},
        ("pgd, more steps", None): first(14),
        ("pgd, half", None): first(50),
        ("pgd, huge", None): first(0),
        ("square", None): first(14),
    }


@pytest.mark.parametrize(
    ("key", "left", "failing"),
    [
        (("square", None), 13, None),  # one image in a hundred is chance
        (("square", None), 9, "an attack without a gradient finds no more"),
        (("gradient", None), 80, "every image that is right has a gradient"),
        (("pgd", 4.0), 78, "20 steps leave no more than one"),
        (("pgd, half", None), 17, "fewer are left where pixels may move more"),
        (("pgd, huge", None), 9, "a change of half the range leaves none"),
        (("pgd, more steps", None), 5, "50 steps find no more than 20"),
    ],
)
def test_every_sign_of_masking_is_seen(
    key: tuple[str, float | None], left: int, failing: str | None
) -> None:
    masks = held() | {key: torch.arange(100) < left}
    failed = [check.what for check in robust._checks(masks, 8) if not check.holds]
    assert failed == ([failing] if failing else [])


def test_what_cannot_be_attacked_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively("danet20-t2.fmnist", 12, widths=(4, 6, 8))
    pixels, labels = torch.zeros(1, 1, 12, 12, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)
    for eps in (0.0, 200.0, float("nan")):
        with pytest.raises(InputError, match="valid is more than 0 and at most 127, of 255"):
            attack(model, pixels, labels, eps=eps)
    with pytest.raises(InputError, match="no images to attack"):
        attack(model, pixels[:0], labels[:0])
    with pytest.raises(InputError, match="reads events: attacks change pixels"):
        attack(lively("danet20-t2.i2e-fmnist", 12, widths=(4, 6, 8)), pixels, labels)
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)
    with pytest.raises(InputError, match=r"danet-zoo\[robust\]"):
        attack(model, pixels, labels, attacks=["square"])


def test_the_command_says_whether_the_figure_can_be_trusted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["attack", NETWORK, "--first", "2", "--eps", "4", "--attack", "fgsm"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "holds: every image that is right has a gradient (0 of 2 without)" in out
    assert "100.0% of 2 images right as they are" in out and "of eps 4/255" in out

    def masked(model: DANet, *images: Tensor, attacks: list[Attack], **options: object) -> object:
        found = attack(model, *images, attacks=attacks)
        check = replace(found.checks[0], holds=False)
        return replace(found, checks=(check,))

    monkeypatch.setattr(robust, "attack", masked)
    assert main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["holds"] is False
    assert main(["attack", "danet20-t8.i2e-fmnist"]) == 2
    assert ATTACKS == robust.ATTACKS
