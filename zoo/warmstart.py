"""Start a network from the trained weights of another one of its family.

Two networks may differ in the following, and then the weights are treated so:

    classes                 `head.fc` stays new
    stem, input channels    the stem is taken if its convolutions have the same shapes, else all of
                            it stays new; from colour to grey the first convolution's filters are
                            summed
    T, surrogate            no weight depends on them
    depth                   the source's blocks keep their places at the start of each stage; those
                            appended start as the identity

A block is the identity while the last layer of its branch is constant (Goyal et al. 2017, arXiv
1706.02677; for spiking joins Fang et al., NeurIPS 2021), so a network that was only made deeper
gives the source's logits bit for bit.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from zoo.blocks import Block
from zoo.danet import DANet, DANetConfig
from zoo.errors import ConfigError
from zoo.names import GRAMMAR
from zoo.surrogates import Rectangle

__all__ = ["WarmStart", "warm_start"]

# Fields of the config that may differ.
MAY_DIFFER = ("depths", "num_classes", "stem", "in_channels", "steps", "surrogate")
STEM, CLASSIFIER = "stem", "head.fc"
MAX_NAMED = 3  # differing tensors that an error names

State = dict[str, Tensor]


@dataclass(frozen=True)
class WarmStart:
    """The parts of a network that came from another one: paths of modules and keys of its state."""

    taken: tuple[str, ...]  # tensors that are the source's
    tensors: int  # in the network's state
    new: dict[str, str] = field(default_factory=dict)  # modules that stayed as they were -> why
    adapted: dict[str, str] = field(default_factory=dict)  # modules of changed shape -> how
    grown: tuple[str, ...] = ()  # appended blocks, which start as the identity

    def __str__(self) -> str:
        """Describe it, as in `118 of 120 tensors; new: head.fc (5 classes, was 10)`."""
        parts = [f"{len(self.taken)} of {self.tensors} tensors"]
        for word, modules in (("new", self.new), ("adapted", self.adapted)):
            if modules:
                listed = ", ".join(f"{path} ({reason})" for path, reason in modules.items())
                parts.append(f"{word}: {listed}")
        if self.grown:
            stages = Counter(path.partition(".")[0] for path in self.grown)
            listed = ", ".join(f"{count} in {stage}" for stage, count in stages.items())
            parts.append(f"blocks added as the identity: {listed}")
        return "; ".join(parts)


@torch.no_grad()
def warm_start(target: DANet, source: DANet) -> WarmStart:
    """Copy the weights and BatchNorm statistics of `source` into `target`.

    Modules that are not taken stay as they were, except appended blocks, which become the identity.

    Raises:
        ConfigError: if the networks are of different families or widths, if `target` is the
            shallower one, or if the weights of `source` were rounded for a chip; `target` is then
            unchanged.
    """
    _check_fields(target, source)
    grown = _appended_blocks(target, source)
    constant = _neutral_constant(target.config) if grown else 0.0
    ours, theirs = target.state_dict(), source.state_dict()
    summed = _sum_colours(ours, theirs)
    new = _new_modules(target, source, ours, theirs)
    adapted = {} if STEM in new else summed
    ours, theirs = (_without(state, (*new, *grown)) for state in (ours, theirs))
    _check_shapes(target, source, ours, theirs)

    for key, tensor in ours.items():
        tensor.copy_(theirs[key])
    for block in grown.values():
        _make_identity(block, constant)
    taken = tuple(_without(ours, adapted))
    return WarmStart(taken, len(target.state_dict()), new, adapted, tuple(grown))


def _check_fields(target: DANet, source: DANet) -> None:
    """Raise `ConfigError` for networks that compute something else, or a target of fewer blocks."""
    if source.origin and source.origin.weight_format != "float32":
        rounded = source.origin.weight_format
        reason = f"its weights were rounded to {rounded}: start from those that were trained"
        raise _refused(target, source, reason)
    ours, theirs = target.config, source.config
    names = [f.name for f in fields(DANetConfig) if f.name not in MAY_DIFFER]
    pairs = [(name, getattr(theirs, name), getattr(ours, name)) for name in names]
    differing = [f"{name} {a} instead of {b}" for name, a, b in pairs if a != b]
    families = [_family(network) for network in (source, target)]
    if "" not in families and families[0] != families[1]:
        differing.insert(0, f"family {families[0]} instead of {families[1]}")
    if differing:
        shapes = _shapes(target.state_dict(), source.state_dict())
        raise _refused(target, source, "it has " + ", ".join([*differing, *shapes]))
    if any(a > b for a, b in zip(theirs.depths, ours.depths, strict=True)):
        reason = (
            f"it has depths {list(theirs.depths)}, and blocks beyond {list(ours.depths)} would be "
            "lost: start from a network that is as deep or shallower"
        )
        raise _refused(target, source, reason)


def _check_shapes(target: DANet, source: DANet, ours: State, theirs: State) -> None:
    """Raise `ConfigError` unless the two states have the same tensors of the same shapes."""
    if differing := _shapes(ours, theirs):
        raise _refused(target, source, "it has " + ", ".join(differing))


def _shapes(ours: State, theirs: State) -> list[str]:
    """Return the first tensors in which the states differ, in words; constants of neurons last."""

    def shape(state: State, key: str) -> list[int] | None:
        return list(state[key].shape) if key in state else None

    keys = [key for key in {**ours, **theirs} if shape(ours, key) != shape(theirs, key)]
    keys.sort(key=lambda key: not (shape(theirs, key) or shape(ours, key)))
    listed = [
        f"{key} {shape(theirs, key)} instead of {shape(ours, key)}" for key in keys[:MAX_NAMED]
    ]
    if len(keys) > MAX_NAMED:
        listed.append(f"and {len(keys) - MAX_NAMED} more")
    return listed


def _refused(target: DANet, source: DANet, reason: str) -> ConfigError:
    return ConfigError(f"{_name(target)} cannot start from {_name(source)}: {reason}")


def _name(network: DANet) -> str:
    if network.origin:
        return network.origin.name
    return f"a network of depths {list(network.config.depths)}"


def _family(network: DANet) -> str:
    """Return the family in the network's name; empty for a name that is not the zoo's."""
    match = GRAMMAR.fullmatch(network.origin.name) if network.origin else None
    return match["family"] if match else ""


def _appended_blocks(target: DANet, source: DANet) -> dict[str, Block]:
    """Return the blocks that `target` has beyond those of `source`, by path."""
    return {
        f"stage{k}.block{i}": block
        for k, (stage, depth) in enumerate(zip(target.stages, source.config.depths, strict=True), 1)
        for i, block in enumerate(stage.blocks)
        if i >= depth
    }


def _new_modules(target: DANet, source: DANet, ours: State, theirs: State) -> dict[str, str]:
    """Return the modules that read other images or give other classes than the source's, and why.

    A stem whose convolution is new is new as a whole: its BatchNorm has the statistics of the old.
    """
    new, now, before = {}, target.config, source.config
    shapes = [
        {key: tensor.shape for key, tensor in state.items() if _is_within(key, [STEM])}
        for state in (ours, theirs)
    ]
    if shapes[0] != shapes[1]:
        reasons = []
        if now.stem != before.stem:
            reasons.append(f"{now.stem}, was {before.stem}")
        if now.in_channels != before.in_channels:
            reasons.append(f"{now.in_channels} input channels, was {before.in_channels}")
        new[STEM] = ", ".join(reasons) or "other shapes"
    if now.num_classes != before.num_classes:
        new[CLASSIFIER] = f"{now.num_classes} classes, was {before.num_classes}"
    elif len(set(_class_names(target, source))) == 2:
        new[CLASSIFIER] = "other classes"
    return new


def _class_names(*networks: DANet) -> list[tuple[str, ...]]:
    """Return the names of the classes of each network that has them."""
    data = [network.origin.data for network in networks if network.origin]
    return [spec.classes for spec in data if spec.classes]


def _sum_colours(ours: State, theirs: State) -> dict[str, str]:
    """Sum the filters of the source's first convolution, in its state, if it is RGB and ours grey.

    A grey picture shown as RGB then gives the same currents, if all channels are normalised alike.
    Returns how the module was adapted, by its path.
    """
    key = next(key for key in theirs if _is_within(key, [STEM]))
    if key not in ours or (ours[key].shape[1], theirs[key].shape[1]) != (1, 3):
        return {}
    theirs[key] = theirs[key].sum(1, keepdim=True)
    return {key.rpartition(".")[0]: "1 input channel, was 3: filters summed"}


def _neutral_constant(config: DANetConfig) -> float:
    """Return the constant of a branch's last layer with which the join returns its shortcut.

    Raises `ConfigError` for blocks that cannot be the identity, or could never learn to be another.
    """
    order, join = config.order, config.join
    if order not in ("a", "b", "c"):
        why = "has a neuron after the sum" if order == "post" else "has no shortcut"
        raise ConfigError(
            f"order {order!r} {why}: no block can be added as the identity, keep depths"
        )
    if order == "b" and join == "and":
        raise ConfigError(
            "order 'b' joined by 'and': no block can be added as the identity, keep depths"
        )
    # In order c a neuron reads the constant, and for 'and' has to fire at each step, also where it
    # resets by subtraction.
    constant = 0.0
    if join == "and":
        constant = 2.5 * config.threshold if order == "c" else 1.0
    far = abs(constant - config.threshold) >= Rectangle().half_width
    if order == "c" and config.surrogate == "rectangle" and far:
        raise ConfigError(
            "an added block of order 'c' would stay the identity, as the rectangle surrogate has "
            "no gradient so far from the threshold: use surrogate = 'atan', or keep depths"
        )
    return constant


def _make_identity(block: Block, constant: float) -> None:
    """Let the last layer of the block's branch give `constant`, whatever it reads."""
    *_, last = (
        module for module in block.children() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    )
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.constant_(last.bias, constant)


def _without(state: State, paths: Iterable[str]) -> State:
    return {key: tensor for key, tensor in state.items() if not _is_within(key, paths)}


def _is_within(key: str, paths: Iterable[str]) -> bool:
    return any(key == path or key.startswith(f"{path}.") for path in paths)
