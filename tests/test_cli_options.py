"""Options of the command given twice, in a wrong form, or where they do not apply."""

import argparse
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from zoo import cli
from zoo.cli.options import Command
from zoo.cli.parser import Assign, Store
from zoo.errors import InputError


def commands() -> dict[str, argparse.ArgumentParser]:
    (subparsers,) = (
        a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)
    )
    return dict(subparsers.choices)


def options() -> Iterator[tuple[str, argparse.Action]]:
    """Every option of every command that takes a value."""
    for command, parser in commands().items():
        for action in parser._actions:
            if action.option_strings and action.nargs != 0:
                yield command, action


def words(action: argparse.Action) -> list[str]:
    """Two values that the option takes, or what is as good."""
    if isinstance(action, Assign):
        return ["a=1", "b=2"]
    if action.metavar == "WIDTHxHEIGHT":
        return ["1x1", "2x2"]
    choices = [str(choice) for choice in action.choices or (1, 2)]
    return [choices[0], choices[-1]]


def parse(command: str, *argv: str) -> argparse.Namespace:
    """The namespace of `argv`, and of what else the command needs."""
    needed = []
    for action in commands()[command]._actions:
        if action.required and not action.option_strings:
            needed.append("danet20-t4")
        elif action.required and action.option_strings[0] not in argv:
            needed += [action.option_strings[0], "x"]
    return cli.parse([command, *needed, *argv])


def test_names_may_stand_behind_an_option_of_several_values() -> None:
    line = ["export", "--to", "onnx", "nir", "danet20-t4", "--out", "danet20-t4"]
    arguments = cli.parse(line)
    assert (arguments.name, arguments.formats, arguments.out) == (
        "danet20-t4",
        ["onnx", "nir"],
        Path("danet20-t4"),
    )
    assert cli.parse(["export", "--to", "onnx", "a.nir"]).name == "a.nir"
    with pytest.raises(InputError, match="invalid choice: 'nri'"):
        cli.parse(["export", "--to", "onnx", "nri", "danet20-t4"])


OPTIONS = [
    pytest.param(command, action, id=f"{command} {action.option_strings[0]}")
    for command, action in options()
]


@pytest.mark.parametrize(("command", "action"), OPTIONS)
def test_an_option_given_twice_adds_up_or_is_refused(command: str, action: argparse.Action) -> None:
    """Whatever options there will be: none is stored in another way."""
    assert isinstance(action, Store)
    option, (first, second) = action.option_strings[0], words(action)
    if action.nargs is None:
        with pytest.raises(InputError) as error:
            parse(command, option, first, option, second)
        said = str(error.value)
        assert said.startswith(f"{option} is given twice, as '{first}")
        assert f" and '{second}" in said and "\n" not in said
    else:
        twice = getattr(parse(command, option, first, option, second), action.dest)
        assert len(twice) == 2
        assert twice == getattr(parse(command, option, first, second), action.dest)


@pytest.mark.parametrize("command", commands())
def test_a_command_s_record_has_a_field_for_each_argument(command: str) -> None:
    parser = commands()[command]
    declared: Command[Any] = parser.get_default("command")
    arguments = {action.dest for action in parser._actions} - {"help"}
    assert {field.name for field in fields(declared.options)} == arguments | {
        "given",
        "command_line",
    }


ALIASES = [
    ("energy", "--profile", "--device", "devices", ["a"]),
    ("export", "--profile", "--dialect", "dialect", "native"),
    ("classify", "--streams", "--workers", "workers", 2),
    ("energy", "--streams", "--workers", "workers", 2),
]


@pytest.mark.parametrize(("command", "alias", "option", "field", "value"), ALIASES)
def test_the_former_word_of_an_option_is_the_option(
    command: str, alias: str, option: str, field: str, value: Any
) -> None:
    word = str(value[0] if isinstance(value, list) else value)
    assert getattr(parse(command, alias, word), field) == value
    assert getattr(parse(command, option, word), field) == value
    assert alias not in commands()[command].format_help()
    for first, second in ((alias, option), (option, alias)):
        with pytest.raises(InputError) as error:
            parse(command, first, word, second, word)
        said = f"{first} and {second} are the same option, given twice: give it once"
        assert str(error.value) == said


def test_a_list_replaces_its_default_and_keeps_the_order() -> None:
    assert parse("export").formats == ["onnx"]
    assert parse("export", "--to", "nir").formats == ["nir"]
    assert parse("export", "--to", "nir", "--to", "onnx").formats == ["nir", "onnx"]
    images = parse("energy", "--images", "b", "--images", "a", "c").images
    assert images == [Path("b"), Path("a"), Path("c")]


def test_assignments_add_up() -> None:
    assert parse("train").overrides == {}
    overrides = parse("train", "--set", "lr=1", "--set", "epochs=2", "source=a=b").overrides
    assert overrides == {"lr": "1", "epochs": "2", "source": "a=b"}


def test_the_parser_keeps_nothing_from_one_command_to_the_next() -> None:
    parser = cli.build_parser()
    for value in ("a=1", "b=2"):
        key = value[0]
        assert parser.parse_args(["train", "x", "--set", value]).overrides == {key: value[2]}
        assert parser.parse_args(["export", "x.nir", "--to", "nir"]).formats == ["nir"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("classify m.nir --json a b", {"model": "m.nir", "images": [Path("a"), Path("b")]}),
        (
            "classify m.nir a --runtime openvino b",
            {"model": "m.nir", "images": [Path("a"), Path("b")], "runtime": "openvino"},
        ),
        ("classify --json m.nir", {"model": "m.nir", "images": []}),
        ("energy --first 1 m.nir --json n.nir", {"models": ["m.nir", "n.nir"], "first": 1}),
        (
            "energy --images a b -- m.nir n.nir",
            {"models": ["m.nir", "n.nir"], "images": [Path("a"), Path("b")]},
        ),
        ("verify a.nir --json b.nir", {"names": ["a.nir", "b.nir"]}),
        ("verify --json", {"names": []}),
        ("list --all", {"pattern": "*"}),
    ],
)
def test_options_stand_anywhere_among_names_and_files(
    argv: str, expected: dict[str, object]
) -> None:
    parsed = vars(cli.parse(argv.split()))
    assert {key: parsed[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("info a.nir b", "unrecognized arguments: b"),
        ("classify m.nir --nonsense", "unrecognized arguments: --nonsense"),
        ("classify --json", "the following arguments are required: model"),
        ("push m", "the following arguments are required: --repo"),
    ],
)
def test_what_is_too_much_or_missing_is_named(
    argv: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv.split()) == 2
    err = capsys.readouterr().err
    assert said in err and err.endswith(f"; see `zoo {argv.split()[0]} --help`\n")
    assert err.count("\n") == 1


REFUSED = [
    (
        "train danet20-t4.fmnist --set lr",
        "--set 'lr' is not KEY=VALUE: put an equals sign between a name and its value",
    ),
    ("train danet20-t4.fmnist --set =1", "--set '=1' is not KEY=VALUE"),
    (
        "train danet20-t4.fmnist --set lr=1 lr=2",
        "--set lr is given twice, as '1' and '2': give it once",
    ),
    (
        "train danet20-t4.fmnist --set lr=1 --set lr=2",
        "--set lr is given twice, as '1' and '2': give it once",
    ),
    ("train danet20-t4.fmnist --set nonsense=1 --set epochs=1", "nonsense"),
    (
        "train danet20-t4.fmnist --data a --data b",
        "--data is given twice, as 'a' and 'b': give it once",
    ),
    ("export danet20-t4 --out x --out y", "--out is given twice, as 'x' and 'y': give it once"),
    (
        "export danet20-t4 --weights float32 --weights int8",
        "--weights is given twice, as 'float32' and 'int8'",
    ),
    ("check steps.nir --dt 1 --dt 0.5", "--dt is given twice, as '1.0' and '0.5'"),
    # Options that would change nothing, though what they say is the default.
    ("export danet20-t4 --to nir --form sequence", "--form is for ONNX"),
    ("export danet20-t4 --dialect portable", "--dialect is for NIR"),
    ("export danet20-t4 --profile portable", "--profile is for NIR"),
    ("export steps.nir --outputs counts", "--outputs is for a model of the zoo"),
    ("energy steps.nir --input x.npy --runtime onnxruntime", "--runtime is for .onnx files"),
    ("energy steps.nir --input x.npy --threads 1", "--threads is for .onnx files"),
]


@pytest.mark.parametrize(("command", "said"), REFUSED)
def test_what_is_refused_is_refused_in_one_line(
    command: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("steps.nir", "x.npy"):
        Path(file).touch()
    before = sorted(tmp_path.iterdir())
    status = cli.main(command.split())
    out, err = capsys.readouterr()
    assert status == 2 and err.startswith("zoo: ") and said in err
    assert err.count("\n") == 1 and not out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--data", "--init", "--teacher"])
def test_an_empty_value_is_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"^{option} is empty: give it a value, or leave it out$"):
        cli.parse(["train", "danet20-t1.fmnist", option, ""])
