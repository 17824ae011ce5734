"""What imports what: the rooms and arrows of docs/architecture.md alone, without circles."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
FRONT_DOORS = {"zoo", "export"}  # name what is inside, and import it when it is asked for
# Methods of a network that open other rooms, and import them when they are called.
CONVENIENCES = {"zoo.danet"}
# Who may ask `export` for something, though `export` is built on `zoo`.
USERS_OF_EXPORT = re.compile(r"zoo|zoo\.__main__|zoo\.summary|zoo\.cli(\..+)?")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for top in FRONT_DOORS for path in (ROOT / top).rglob("*.py")}


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@cache
def imported(name: str, *, when_loaded: bool = False) -> frozenset[str]:
    """The modules of this project that a module imports; only at its top level if `when_loaded`."""
    tree = parsed(name)
    nodes: Iterable[ast.AST] = tree.body if when_loaded else ast.walk(tree)
    return frozenset(_targets(nodes))


def _targets(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            # `from package import module` names a module, `from module import function` does not.
            parent = name.rpartition(".")[0]
            if name in MODULES or parent in MODULES:
                yield name if name in MODULES else parent


def read_page() -> tuple[dict[str, str], dict[str, set[str]]]:
    """The room of each module, and the arrows of each room, as the page's table has them."""
    rooms: dict[str, str] = {}
    arrows: dict[str, set[str]] = {}
    text = PAGE.read_text(encoding="utf-8")
    for row in re.findall(r"^\| \*\*(.+?)\*\* \|.*?\|(.+?)\|(.*?)\|$", text, re.MULTILINE):
        room, modules, imports = row
        arrows[room] = {word.strip() for word in imports.split(",") if word.strip()}
        for pattern in re.findall(r"`(.+?)`", modules):
            path = pattern.replace("/", ".").removesuffix(".py")
            inside = [
                name
                for name in MODULES
                if name == path.rstrip(".") or (path.endswith(".") and name.startswith(path))
            ]
            assert inside, f"docs/architecture.md names {pattern}, which is not there"
            rooms |= dict.fromkeys(inside, room)
    return rooms, arrows


ROOMS, ARROWS = read_page()


def test_every_module_has_a_room() -> None:
    doors = {*FRONT_DOORS, "zoo.__main__", "export.__main__"}
    assert sorted(MODULES.keys() - ROOMS.keys() - doors) == []


@pytest.mark.parametrize("room", ARROWS)
def test_the_page_has_every_arrow_of_a_room_and_no_other(room: str) -> None:
    modules = [name for name in MODULES if ROOMS.get(name) == room]
    targets = {ROOMS[target] for name in modules for target in arrows_of(name) if target in ROOMS}
    assert targets - {room} == ARROWS[room]


def arrows_of(name: str) -> frozenset[str]:
    return imported(name, when_loaded=name in CONVENIENCES) - FRONT_DOORS


def test_no_module_is_reached_from_itself() -> None:
    graph = {name: arrows_of(name) for name in MODULES if name not in FRONT_DOORS}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_rooms_stand_on_each_other_without_a_circle() -> None:
    TopologicalSorter(ARROWS).prepare()


def test_zoo_knows_nothing_of_export_but_at_its_doors() -> None:
    users = {
        name
        for name in MODULES
        for target in imported(name)
        if name.startswith("zoo") and target.startswith("export")
    }
    assert [name for name in users if not USERS_OF_EXPORT.fullmatch(name)] == []


@pytest.mark.parametrize(
    "module", ["zoo", "zoo.names", "zoo.manifest", "zoo.families", "zoo.datasets", "zoo.cli"]
)
def test_names_and_listings_load_no_torch(module: str) -> None:
    reached, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imported(name, when_loaded=True)
    for name in reached:
        tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
        names = [
            alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
        ]
        names += [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert not {n.partition(".")[0] for n in names} & {"torch", "snntorch", "numpy", "rich"}, (
            name
        )
