"""A check in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.targets.output import text as words
from export.targets.result import Check
from export.units import count
from zoo import terminal

__all__ = ["render", "summary"]


def summary(checks: Sequence[Check], console: Console) -> None:
    """Print a line for each chip: whether the network fits, and which limits it exceeds."""
    table = terminal.table(title="chips")
    table.add_column("chip", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("cores", no_wrap=True)
    table.add_column("limits exceeded", overflow="fold")
    for check in checks:
        cores = words.cores(check).removesuffix(" cores") or "no formula"
        colour, verdict = _colour(check), words.short_verdict(check)
        shown = f"[{colour}]{verdict}[/{colour}]"
        table.add_row(check.target.name, shown, cores, words.exceeded(check))
    terminal.show(table, console)


def _colour(check: Check) -> str:
    return "default" if words.unchecked(check) else "green" if check.fits else "red"


def render(check: Check, console: Console) -> None:
    """Print the verdict, the layers, what does not fit, and what the check leaves out."""
    colour = _colour(check)
    verdict = f"[bold {colour}]{words.verdict(check)}[/bold {colour}]"
    console.print(f"[bold]{escape(check.target.title)}[/bold]: {verdict}")
    terminal.show(_layers(check), console)
    if check.findings:
        terminal.show(_findings(check), console)
    for note in check.notes:
        console.print(escape(note), highlight=False)


def _layers(check: Check) -> Table:
    table = terminal.table(title=words.cores(check) or "layers")
    for column in ("layer", "weights"):
        table.add_column(column, overflow="fold")
    table.add_column("neuron, reset", no_wrap=True)
    for column in ("neurons", "core", "use", "findings"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in check.network.layers.values():
        findings = len(check.of(layer.name))
        table.add_row(
            escape(layer.name),
            escape(words.weights(layer)),
            words.neuron(layer),
            count(layer.neurons),
            words.core(check, layer),
            words.use(check, layer),
            str(findings) if findings else "",
        )
    host = check.network.host
    if host.nodes:
        nodes, macs = escape(", ".join(host.nodes)), f"{count(host.macs)} MAC"
        table.add_row("on the host", nodes, "", "", "host", macs, "")
    return table


def _findings(check: Check) -> Table:
    table = terminal.table(
        "layer", "limit", "found", "allowed", "smallest change known", title="what does not fit"
    )
    for rows in words.grouped(check.findings):
        finding = rows[0]
        cells = map(escape, (finding.found, finding.allowed, finding.change))
        table.add_row(escape(words.several(rows)), words.limit(finding.limit), *cells)
    return table
