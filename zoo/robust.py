"""Accuracy under attack: how many images stay right when every pixel may move by `eps`.

A spike has no derivative, so that the gradient an attack follows is that of a surrogate, which is
chosen. A sharp one hides the way to errors and makes a network look robust that is not (gradient
masking, Athalye et al. 2018, arXiv:1802.00420). Therefore every attack is made through several
surrogates, an image counts as robust only if it is right at every picture that any attack comes to,
and what would give masking away is checked and said (`Check`).

    fgsm        one step along the sign of the gradient (Goodfellow et al. 2015, arXiv:1412.6572)
    pgd         20 steps of eps / 4 from a random start, projected (Madry et al. 2018,
                arXiv:1706.06083)
    apgd        100 steps whose size adapts, by the cross entropy and by the difference of logits
                ratio: two of AutoAttack's (Croce and Hein 2020, arXiv:2003.01690), in the package
                pyautoattack
    square      no gradient at all: random squares (Andriushchenko et al. 2020, arXiv:1912.00049),
                likewise

Pixels are numbers from 0 to 1, `[B, C, H, W]`; the distance is the largest change of any of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.images import normalise
from zoo.integrity import digest
from zoo.neurons import Lif
from zoo.surrogates import ATan

__all__ = ["ATTACKS", "Attack", "Check", "Robustness", "Row", "attack", "fgsm", "pgd", "surrogate"]

Attack = Literal["fgsm", "pgd", "apgd", "square"]
ATTACKS: tuple[Attack, ...] = get_args(Attack)

ALPHAS = (0.5, 1.0, 2.0, 4.0)  # of the surrogates; those above are sharp
PLAIN = 2.0  # snnTorch's own, for what is checked through one surrogate
PGD_STEPS, MORE_STEPS = 20, 50
RESTARTS = 2  # of PGD for images that one start left right
APGD_STEPS = 100
QUERIES = 1000  # of Square for each image
HUGE = 0.5  # a change of pixels that leaves nothing of a picture
SLACK = 0.01  # share of the images by which a check may be off
BATCH = 50

Network = Callable[[Tensor], Tensor]  # pixels [B, C, H, W] -> logits [B, K]
Held = dict[tuple[str, float | None], Tensor]  # images that stay right, by attack and alpha


@dataclass(frozen=True)
class Row:
    """How many images an attack left right, of all of them or of those that others left."""

    attack: str
    alpha: float | None  # of the surrogate; None: of all, or without a gradient
    of: int
    left: int


@dataclass(frozen=True)
class Check:
    """A sign of gradient masking that was looked for."""

    what: str
    holds: bool
    found: str  # the figures


@dataclass(frozen=True)
class Robustness:
    """The accuracy of a network under attack."""

    model: str
    weights_sha256: str
    data: str
    images: int
    eps: float  # in steps of 1/255
    attacks: tuple[str, ...]
    clean: int  # images that are right as they are
    left: int  # that are right under every attack too
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Return whether no check found a sign of masking."""
        return all(check.holds for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the record that `zoo attack --json` prints."""
        shares = {"top1": self.clean / self.images, "robust_top1": self.left / self.images}
        return shares | {"holds": self.holds} | asdict(self)


@contextmanager
def surrogate(model: nn.Module, alpha: float) -> Iterator[None]:
    """Let the gradient of every spike be that of `ATan(alpha)` in the block."""
    neurons = [module.neuron for module in model.modules() if isinstance(module, Lif)]
    before = [neuron.spike_grad for neuron in neurons]
    for neuron in neurons:
        neuron.spike_grad = ATan(alpha)
    try:
        yield
    finally:
        for neuron, own in zip(neurons, before, strict=True):
            neuron.spike_grad = own


def fgsm(net: Network, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Return `x` after one step of `eps` along the sign of the gradient."""
    _, gradient = _answer_and_gradient(net, x, labels)
    return (x + eps * gradient.sign()).clamp(0, 1)


def pgd(
    net: Network,
    x: Tensor,
    labels: Tensor,
    eps: float,
    *,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return for each image whether it is right at every step of PGD, `[B]`."""
    noise = torch.rand(x.shape, generator=generator).to(x.device) * 2 - 1
    at = (x + eps * noise).clamp(0, 1)
    right = torch.ones_like(labels, dtype=torch.bool)
    for _ in range(steps):
        answer, gradient = _answer_and_gradient(net, at, labels)
        right &= answer == labels
        at = at + eps / 4 * gradient.sign()
        at = torch.clamp(at, x - eps, x + eps).clamp(0, 1)
    return right & _is_right(net, at, labels)


def _answer_and_gradient(net: Network, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the answer `[B]`, and the gradient of the cross entropy by the pixels."""
    x = x.detach().requires_grad_()
    logits = net(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)
    return logits.argmax(1), gradient


@torch.no_grad()
def _is_right(net: Network, x: Tensor, labels: Tensor) -> Tensor:
    return net(x).argmax(1) == labels


def attack(
    model: DANet,
    pixels: Tensor,
    labels: Tensor,
    *,
    eps: float = 8,
    attacks: Sequence[Attack] = ATTACKS,
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Attack a model on images, and return how many it still classifies correctly.

    Args:
        model: The network, in eval mode.
        pixels: Bytes `[N, C, H, W]`.
        labels: Classes `[N]`.
        eps: The largest change of a pixel, in steps of 1/255.
        attacks: Those to make, of `ATTACKS`.
        progress: It is called with the images done and the images in all.

    Raises:
        InputError: For a model of events, whose input are no pixels, an `eps` that is not above 0
            and at most 127, no images, and where pyautoattack is missing.
    """
    data = model.known_origin.data
    if data.events:
        raise InputError(f"a model of {data.title} reads events: attacks change pixels")
    if not 0 < eps <= 127:
        raise InputError(f"eps = {eps:g}: valid is more than 0 and at most 127, of 255")
    if not len(labels):
        raise InputError("there are no images to attack: give at least one")
    if {"apgd", "square"} & {*attacks}:
        _auto_attack()
    device = next(model.parameters()).device
    pixels, labels = pixels.to(device), labels.to(device)
    found: dict[tuple[str, float | None], list[Tensor]] = {}
    for first in range(0, len(labels), BATCH):
        x = pixels[first : first + BATCH].float() / 255
        one = _Batch(model, data, x, labels[first : first + BATCH], eps / 255, attacks)
        for key, mask in one.run().items():
            found.setdefault(key, []).append(mask)
        if progress:
            progress(min(first + BATCH, len(labels)), len(labels))
    held = {key: torch.cat(parts) for key, parts in found.items()}
    return _report(model, data, held, eps, attacks)


class _Batch:
    """The attacks on some images: which of them stay right, by attack and surrogate."""

    def __init__(
        self,
        model: DANet,
        data: DatasetSpec,
        x: Tensor,
        labels: Tensor,
        eps: float,
        attacks: Sequence[Attack],
    ) -> None:
        self.model, self.x, self.labels, self.eps, self.attacks = model, x, labels, eps, attacks
        self.net: Network = lambda pixels: model(normalise(pixels * 255, data))
        self.generator = torch.Generator().manual_seed(0)
        self.held: Held = {}

    def run(self) -> Held:
        """Return for each attack and alpha which images are right, `[B]`."""
        clean = self.held["clean", None] = _is_right(self.net, self.x, self.labels)
        with surrogate(self.model, PLAIN):
            self._each("gradient", None, clean, self._has_gradient)
        for alpha in ALPHAS:
            with surrogate(self.model, alpha):
                if "fgsm" in self.attacks:
                    self._each("fgsm", alpha, clean, self._fgsm)
                if "pgd" in self.attacks:
                    self._each("pgd", alpha, clean, self._pgd)
        left = self._left()
        if "pgd" in self.attacks:
            for alpha in ALPHAS:
                with surrogate(self.model, alpha):
                    for _ in range(RESTARTS):
                        left = self._each("pgd restarts", alpha, left, self._pgd)
        if "apgd" in self.attacks:
            for alpha in ALPHAS:
                with surrogate(self.model, alpha):
                    left = self._each("apgd", alpha, left, self._apgd)
        with surrogate(self.model, PLAIN):
            if "pgd" in self.attacks:
                left = self._each("pgd, more steps", None, left, self._more_steps)
                self._each("pgd, half", None, clean, self._half)
                self._each("pgd, huge", None, clean, self._huge)
        if "square" in self.attacks:
            self._each("square", None, self._left(), self._square)
        return self.held

    def _left(self) -> Tensor:
        """Return which images were right under every attack so far."""
        kept = [held for (name, _), held in self.held.items() if name not in CONTROLS]
        return torch.stack(kept).all(0)

    def _each(
        self,
        name: str,
        alpha: float | None,
        of: Tensor,
        attack: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Attack the images `of`, and return which of them stay right."""
        held = of.clone()
        if of.any():
            held[of] = attack(self.x[of], self.labels[of])
        key = name, alpha
        self.held[key] = self.held.get(key, torch.ones_like(held)) & held
        return held

    def _has_gradient(self, x: Tensor, labels: Tensor) -> Tensor:
        return _answer_and_gradient(self.net, x, labels)[1].flatten(1).any(1)

    def _fgsm(self, x: Tensor, labels: Tensor) -> Tensor:
        return _is_right(self.net, fgsm(self.net, x, labels, self.eps), labels)

    def _pgd(self, x: Tensor, labels: Tensor) -> Tensor:
        return self._steps(x, labels, self.eps, PGD_STEPS)

    def _more_steps(self, x: Tensor, labels: Tensor) -> Tensor:
        return self._steps(x, labels, self.eps, MORE_STEPS)

    def _half(self, x: Tensor, labels: Tensor) -> Tensor:
        return self._steps(x, labels, self.eps / 2, PGD_STEPS)

    def _huge(self, x: Tensor, labels: Tensor) -> Tensor:
        return self._steps(x, labels, HUGE, PGD_STEPS)

    def _steps(self, x: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
        return pgd(self.net, x, labels, eps, steps=steps, generator=self.generator)

    def _apgd(self, x: Tensor, labels: Tensor) -> Tensor:
        # its difference of logits ratio divides by that to the third class
        kinds = ["apgd-ce", "apgd-dlr"] if self.model.config.num_classes > 2 else ["apgd-ce"]
        return self._by_package(kinds, x, labels)

    def _square(self, x: Tensor, labels: Tensor) -> Tensor:
        return self._by_package(["square"], x, labels)

    def _by_package(self, kinds: list[str], x: Tensor, labels: Tensor) -> Tensor:
        attack = _auto_attack()(
            self.net, version="custom", attacks=kinds, eps=self.eps, seed=0, device=x.device
        )
        attack.verbose = False
        attack.apgd.n_restarts, attack.apgd.n_iter = 1, APGD_STEPS
        attack.square.n_queries = QUERIES
        with torch.random.fork_rng(devices=[]):  # which it seeds
            changed, _ = attack.run_standard_evaluation(x, labels, batch_size=BATCH)
        return _is_right(self.net, changed, labels)


def _auto_attack() -> Any:
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        raise InputError(
            "apgd and square need pyautoattack: pip install 'danet-zoo[robust]', or choose "
            "--attack fgsm pgd"
        ) from None
    return AutoAttack


# What is measured for the checks alone, and leaves every image as robust as it is.
CONTROLS = ("gradient", "pgd, huge")
# What is made of all images that are right; the rest of those that are left.
OF_ALL = ("fgsm", "pgd", "pgd, half")


def _report(
    model: DANet,
    data: DatasetSpec,
    held: Held,
    eps: float,
    attacks: Sequence[Attack],
) -> Robustness:
    clean = held["clean", None]
    left = torch.stack([mask for (name, _), mask in held.items() if name not in CONTROLS]).all(0)
    rows, before = [], clean
    for (name, alpha), mask in held.items():
        if name in CONTROLS or name == "clean":
            continue
        of = clean if name in OF_ALL else before
        rows.append(Row(name, alpha, int(of.sum()), int((of & mask).sum())))
        before = before & mask
    return Robustness(
        model=model.known_origin.name,
        weights_sha256=digest(model.known_origin.weights),
        data=data.title,
        images=len(clean),
        eps=eps,
        attacks=tuple(attacks),
        clean=int(clean.sum()),
        left=int(left.sum()),
        rows=tuple(rows),
        checks=tuple(_checks(held, eps)),
    )


def _checks(held: Held, eps: float) -> Iterator[Check]:
    """Yield what masking would give away (Carlini et al. 2019, arXiv:1902.06705, section 3)."""
    images = len(held["clean", None])
    slack = SLACK * images

    def left(name: str, alpha: float | None = None) -> int:
        return int(held[name, alpha].sum())

    clean, moved = left("clean"), left("gradient")
    found = f"{clean - moved} of {clean} without"
    yield Check("every image that is right has a gradient", clean - moved <= slack, found)
    names = {name for name, _ in held}
    if {"fgsm", "pgd"} <= names:
        pairs = [(left("fgsm", alpha), left("pgd", alpha)) for alpha in ALPHAS]
        found = ", ".join(f"{one} to {many}" for one, many in pairs)
        holds = all(many <= one + slack for one, many in pairs)
        yield Check("20 steps leave no more than one", holds, found)
    if "pgd" in names:
        half, whole = left("pgd, half"), left("pgd", PLAIN)
        found = f"{half} at {eps / 2:g}/255, {whole} at {eps:g}/255"
        falls = whole < half or whole <= slack
        yield Check("fewer are left where pixels may move more", falls, found)
        huge = left("pgd, huge")
        what = "a change of half the range leaves none"
        yield Check(what, huge <= slack, f"{huge} of {images}")
        before = _survivors(held, {"pgd, half", "pgd, more steps", "square"})
        lost = int((before & ~held["pgd, more steps", None]).sum())
        what = f"{MORE_STEPS} steps find no more than {PGD_STEPS}"
        yield Check(what, lost <= slack, f"{lost} more of {images}")
    if "square" in names:
        lost = int((_survivors(held, {"square"}) & ~held["square", None]).sum())
        what = "an attack without a gradient finds no more"
        yield Check(what, lost <= slack, f"{lost} more of {images}")


def _survivors(held: Held, without: set[str]) -> Tensor:
    """Return which images are right under every attack but some."""
    kept = [mask for (name, _), mask in held.items() if name not in {*CONTROLS, *without}]
    return torch.stack(kept).all(0)
