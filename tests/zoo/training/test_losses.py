"""Every loss against the formula that it was published with, in plain Python."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.training.config import Recipe
from zoo.training.losses import compute_loss

IMAGES, CLASSES = 4, 5
HARD = torch.tensor([0, 4, 2, 2])
SOFT = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 0, 0, 1], [0.2] * 5, [0, 0.5, 0.25, 0.25, 0]])
TARGETS = {"hard": HARD, "soft": SOFT}


def recipe(**values: Any) -> Recipe:
    return Recipe("fmnist", 1, **values)


def logits(*steps: int) -> Tensor:
    return (torch.randn(*steps, IMAGES, CLASSES) * 3).requires_grad_()


def log_softmax(row: list[float]) -> list[float]:
    norm = math.log(sum(map(math.exp, row)))
    return [value - norm for value in row]


def cross_entropy(rows: list[list[float]], targets: Tensor, smoothing: float) -> float:
    """Of logits and targets, where smoothing gives each class its part of `smoothing` (Szegedy et
    al. 2016, section 7).
    """
    shares = F.one_hot(targets, CLASSES) if targets.dim() == 1 else targets
    total = 0.0
    for row, share in zip(rows, shares.tolist(), strict=True):
        smoothed = [(1 - smoothing) * s + smoothing / CLASSES for s in share]
        total -= sum(s * value for s, value in zip(smoothed, log_softmax(row), strict=True))
    return total / len(rows)


def divergence(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """Sum over classes of `p_teacher (log p_teacher - log p_student)`, both softened; mean over
    images.
    """
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        p, q = (
            log_softmax([x / temperature for x in theirs]),
            log_softmax([x / temperature for x in ours]),
        )
        total += sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
    return total / len(student)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_the_mean_loss_is_cross_entropy(targets: Tensor, smoothing: float) -> None:
    x = logits()
    loss = compute_loss(recipe(label_smoothing=smoothing), x, targets, None)
    assert torch.equal(loss, F.cross_entropy(x, targets, label_smoothing=smoothing))
    assert loss.item() == pytest.approx(cross_entropy(x.tolist(), targets, smoothing), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("steps", [1, 3])
def test_tet_is_the_published_formula(
    steps: int, targets: Tensor, smoothing: float, weight: float
) -> None:
    """Deng et al. 2022: (10) `1/T sum CE(O(t), y)`, (11) `1/T sum MSE(O(t), threshold)`, (12) `(1 -
    w) (10) + w (11)`.
    """
    x = logits(steps)
    loss = compute_loss(
        recipe(loss="tet", label_smoothing=smoothing, tet_weight=weight), x, targets, None
    )
    entropy = distance = 0.0
    for step in x.tolist():
        entropy += cross_entropy(step, targets, smoothing) / steps
        distance += (
            sum((value - 1) ** 2 for row in step for value in row) / (IMAGES * CLASSES) / steps
        )
    assert loss.item() == pytest.approx((1 - weight) * entropy + weight * distance, rel=1e-5)


def test_tet_of_equal_steps_is_the_mean_loss() -> None:
    x = logits()
    found = compute_loss(recipe(loss="tet", tet_weight=0.0), x.expand(3, -1, -1), HARD, None)
    torch.testing.assert_close(found, compute_loss(recipe(), x, HARD, None))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_distillation_is_the_published_formula(
    targets: Tensor, share: float, temperature: float
) -> None:
    """Hinton et al. 2015, section 2: the soft part is multiplied by the temperature squared."""
    x, teacher = logits(), logits().detach()
    loss = compute_loss(
        recipe(distill=share, temperature=temperature, label_smoothing=0.1), x, targets, teacher
    )
    soft = divergence(x.tolist(), teacher.tolist(), temperature) * temperature**2
    assert loss.item() == pytest.approx(
        (1 - share) * cross_entropy(x.tolist(), targets, 0.1) + share * soft, rel=1e-5
    )


def test_tet_distils_the_mean_over_time() -> None:
    x, teacher = logits(3), logits().detach()
    loss = compute_loss(recipe(loss="tet", distill=1.0), x, HARD, teacher)
    assert loss.item() == pytest.approx(
        divergence(x.mean(0).tolist(), teacher.tolist(), 4.0) * 16, rel=1e-5
    )


@pytest.mark.parametrize("kind", ["mean", "tet"])
def test_a_student_that_is_its_teacher_has_the_hard_part_only(kind: Any) -> None:
    x = logits(3) if kind == "tet" else logits()
    teacher = (x.mean(0) if kind == "tet" else x).detach() + 7  # logits are known up to a constant
    hard = compute_loss(recipe(loss=kind), x, HARD, None)
    torch.testing.assert_close(
        compute_loss(recipe(loss=kind, distill=0.25), x, HARD, teacher), 0.75 * hard
    )
    soft = compute_loss(recipe(loss=kind, distill=1.0), x, HARD, teacher)
    assert soft.item() == pytest.approx(0, abs=1e-5)
    soft.backward()
    assert x.grad is not None and x.grad.abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["mean", "tet"])
def test_the_student_learns_and_the_teacher_does_not(kind: Any) -> None:
    x, teacher = logits(3) if kind == "tet" else logits(), logits()
    compute_loss(recipe(loss=kind), x, HARD, teacher).backward()
    assert x.grad is not None and x.grad.abs().sum(-1).min() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("kind", ["mean", "tet"])
def test_logits_of_bfloat16_are_lost_in_float32(kind: Any) -> None:
    x, teacher = (logits(3) if kind == "tet" else logits()).bfloat16(), logits().detach().bfloat16()
    found = compute_loss(recipe(loss=kind), x, HARD, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, compute_loss(recipe(loss=kind), x.float(), HARD, teacher.float()))


def test_a_step_down_the_gradient_of_distillation_comes_nearer_to_the_teacher() -> None:
    x, teacher, only = logits(), logits().detach(), recipe(distill=1.0)
    before = compute_loss(only, x, HARD, teacher)
    before.backward()
    assert x.grad is not None
    assert compute_loss(only, x.detach() - 0.1 * x.grad, HARD, teacher) < before
