"""`zoo attack`: accuracy under attack, and whether its figure can be trusted."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo import terminal
from zoo.cli.networks import load_model
from zoo.cli.options import Commands, Options, add_command, add_data, add_json, add_network
from zoo.cli.output import print_json
from zoo.cli.parser import positive
from zoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.danet import DANet
    from zoo.robust import Attack, Robustness

__all__ = ["AttackOptions", "add_parser", "run"]

ATTACKS: "tuple[Attack, ...]" = ("fgsm", "pgd", "apgd", "square")


@dataclass(frozen=True, kw_only=True)
class AttackOptions(Options):
    """The options of `zoo attack`."""

    name: str
    data: str | None
    first: int
    eps: float  # in steps of 1/255
    attack: "list[Attack]"
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo attack`."""
    summary = "measure accuracy under attack, with checks that the figure can be trusted"
    parser = add_command(commands, "attack", summary, AttackOptions, run)
    add_json(parser)
    add_network(parser, "name")
    add_data(parser, "images of the test split of this source (default: the bundled ones)")
    text = "attack the first N images (default: 500)"
    parser.add_argument("--first", type=positive, default=500, metavar="N", help=text)
    text = "the most that a pixel changes, in steps of 1/255 (default: 8)"
    parser.add_argument("--eps", type=float, default=8.0, metavar="E", help=text)
    parser.add_argument(
        "--attack",
        nargs="+",
        choices=ATTACKS,
        default=[*ATTACKS],
        help="those to make (default: all; apgd and square need the extra robust)",
    )


def run(options: AttackOptions) -> int:
    """Print how many images stay right; status 1 if a check says that the figure is too high."""
    from zoo.robust import attack

    model, _ = load_model(options.name)
    pixels, labels = _images(model, options)
    with terminal.progress() as bar:
        found = attack(
            model,
            pixels,
            labels,
            eps=options.eps,
            attacks=options.attack,
            progress=terminal.advance(bar, "images"),
        )
    status = 0 if found.holds else 1
    if options.json:
        print_json(found.to_json())
        return status
    _print(found)
    return status


def _images(model: "DANet", options: AttackOptions) -> "tuple[Tensor, Tensor]":
    """Return the first images, bytes `[N, C, H, W]`, and their labels."""
    from zoo.samples import samples
    from zoo.training.run import load_for_evaluation

    data = model.known_origin.data
    if data.events:
        raise InputError(f"a model of {data.title} reads events: attacks change pixels")
    if options.data is None:
        try:
            pixels, labels = samples(data.images.tag)
        except InputError:
            raise InputError(
                f"no test images of {data.title} are bundled: name their folder or hub id with "
                "--data"
            ) from None
        return pixels[: options.first], labels[: options.first]
    split = load_for_evaluation(data, "test", model.config.steps, source=options.data)
    return next(split.evaluation(options.first))


def _print(found: "Robustness") -> None:
    table = terminal.table("attack", "surrogate", "images", "left right")
    for row in found.rows:
        alpha = "" if row.alpha is None else f"ATan({row.alpha:g})"
        terminal.add_row(table, row.attack, alpha, str(row.of), str(row.left))
    terminal.show(table, terminal.console())
    for check in found.checks:
        print(f"{'holds' if check.holds else 'FAILS'}: {check.what} ({check.found})")
    print(
        f"{found.model}: {found.clean / found.images:.1%} of {found.images:,} images right as they "
        f"are, {found.left / found.images:.1%} under every attack of eps {found.eps:g}/255"
    )
