"""The energy report in a terminal: one network, all conventions, or several networks."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export import units
from export.energy.conventions import EXACT
from export.energy.devices import Device
from export.energy.output import text
from export.energy.output.json_csv import Difference, differences, same_images
from export.energy.results import EnergyResults
from export.energy.totals import MIN_INTERVAL_IMAGES, Energy, LayerTotals, OperationCounts
from zoo import terminal

__all__ = ["conventions", "render", "several"]

WORK = ("MAC", "SynOps", "adds", "updates")
MAX_LAYERS = 12  # that are shown
MAX_DIFFERENCES = 3  # that are named
WIDE = 110  # columns, from which every count has one of its own
# The columns of a convention: the kinds of operations that each of them adds up.
MAC, AC, ACCESSES = ("mac",), ("ac",), ("access",)
OTHERS = ("add", "multiply", "update", "idle_update", "hop")


def render(report: EnergyResults, console: Console) -> None:
    """Print a report.

    These are what must be known beside the figures, the costliest layers, the totals of every
    device, the same network without spikes, and what the figures stand on.
    """
    wide = console.width >= WIDE
    for note in report.notes:
        console.print(f"[bold red]Note:[/bold red] {escape(note)}", highlight=False)
    terminal.show(_layers(report, wide=wide), console)
    _print_totals(report, console)
    if report.priced:
        terminal.show(_comparison(report, report.priced.device, wide=wide), console)
    images = f"{_images(report)} of {report.data}"  # where nobody says what they are
    if report.images_from:
        images = text.counted(report)
    console.print(
        f"{_accuracy(report)} on {escape(images)}; "
        f"firing rate {units.percent(report.mean_rate)}; "
        f"{_synops(report)} SynOps an image{_recurrent(report)}"
    )
    console.print(f"Convention {report.convention.name}: {report.convention.explanation}")
    console.print(
        f"Run by {escape(report.source.engine)}, T = {report.steps}; "
        f"{escape(report.weights_in_words)}"
    )


def conventions(report: EnergyResults, console: Console) -> None:
    """Print the energies of the same spikes by every convention, on one device."""
    device = (report.priced or report.energies[0]).device
    energies = {name: report.energy(device, name) for name in report.operations}
    on = f"on device {escape(device.name)}"
    title = f"{escape(report.source.name)}: an image by each convention, {on}"
    table = terminal.table(title=title)
    table.add_column("convention", no_wrap=True)
    _right(table, "energy", "against exact", "MAC", "AC", "others", "accesses")
    for name, e in energies.items():
        operations = report.operations[name]
        counts = [_operations(operations, kinds) for kinds in (MAC, AC, OTHERS, ACCESSES)]
        energy = units.joules(e.total.typ) if e.total else "no price"
        factor = text.factor(e, energies[EXACT.name])
        table.add_row(name, energy, factor, *(_count(n / report.images) for n in counts))
    terminal.show(table, console)
    lines = Table.grid(padding=(0, 2))
    for name, e in energies.items():
        reference = f"[dim]{escape(e.convention.reference)}.[/dim]"
        lines.add_row(name, f"{escape(e.convention.explanation)} {reference}")
    terminal.show(lines, console)
    console.print()


def several(reports: Sequence[EnergyResults], console: Console) -> None:
    """Print networks, or runs of the same network, beside each other.

    Runs of the same network must agree to the last spike.
    """
    device, wide = text.shared_device(reports), console.width >= WIDE
    names = ", ".join(dict.fromkeys(report.convention.name for report in reports))
    on = "no device has a price for all that they do"
    if device:
        on = f"energy of an image on device {escape(device.name)}"
    table = terminal.table(title=f"{on}, convention {names}")
    for column in ("model", "engine") if wide else ("model, engine",):
        table.add_column(column, overflow="fold")
    bands = ["lo to hi"] if wide else []
    _right(table, "T", "images", "top-1", "energy", *bands, "SynOps", "rate")
    for report in reports:
        table.add_row(*_summary(report, device, wide=wide))
    terminal.show(table, console)
    for i, one in enumerate(reports):
        if not any(_same_network(one, earlier) for earlier in reports[:i]):
            for two in reports[i + 1 :]:
                if _same_network(one, two):
                    console.print(_agreement(one, two))


def _summary(report: EnergyResults, device: Device | None, *, wide: bool) -> list[str]:
    """Return the row of one of several networks."""
    e = report.energy(device) if device else None
    energies = [units.joules(e.total.typ), _band(e)] if e and e.total else ["", ""]
    names = [escape(report.source.name), escape(report.source.engine)]
    return [
        *(names if wide else ["\n".join(names)]),
        str(report.steps),
        f"{report.images:,}",
        "no labels" if report.accuracy is None else units.percent(report.accuracy),
        *(energies if wide else ["\n".join(energies)]),
        _synops(report),
        units.percent(report.mean_rate),
    ]


def _layers(report: EnergyResults, *, wide: bool) -> Table:
    """Return the table of the costliest layers, or of the busiest where no device prices all."""
    e = report.priced
    if e:
        costs = [band.typ if band else 0.0 for band in e.layers]
        on = f"device {escape(e.device.name)}, convention {report.convention.name}"
    else:
        costs = [float(sum(_work(layer).values())) for layer in report.layers]
        on = "no device asked for prices them all"
    order = sorted(range(len(costs)), key=costs.__getitem__, reverse=True)[:MAX_LAYERS]
    which = f"the {len(order)} {'costliest' if e else 'busiest'} of {len(costs)} rows"
    table = terminal.table(title=f"{escape(report.source.name)}, an image: {which}; {on}")
    table.add_column("layer", overflow="fold")
    table.add_column("input" if wide else "in, rate", no_wrap=True)
    _right(table, *((*WORK, "rate") if wide else ("work",)))
    _right(table, *(("energy", "share", "so far") if e else ()))
    total, so_far = sum(costs) or 1.0, 0.0
    for i in order:
        so_far += costs[i]
        shares = (units.percent(costs[i] / total), units.percent(so_far / total))
        energy = (units.joules(costs[i]), *shares) if e else ()
        table.add_row(*_layer(report, report.layers[i], wide=wide), *energy)
    return table


def _layer(report: EnergyResults, layer: LayerTotals, *, wide: bool) -> list[str]:
    """Return the cells of a layer before its energy."""
    rate = report.rate(layer)
    rate_text = "" if rate is None else units.percent(rate)
    work = {name: n / report.images for name, n in _work(layer).items()}
    name = escape(layer.name) + (" (recurrent)" if layer.recurrent else "")
    if wide:
        return [name, layer.input_kind, *map(_count, work.values()), rate_text]
    most = max(work, key=work.__getitem__)
    busiest = f"{_count(work[most])} {most}" if work[most] else ""
    return [name, rate_text or layer.input_kind, busiest]


def _work(layer: LayerTotals) -> dict[str, int]:
    n = layer.counts
    counts = (n["macs"], n["acs"], n["adds"] + n["bias_adds"], n["updates"])
    return dict(zip(WORK, counts, strict=True))


def _print_totals(report: EnergyResults, console: Console) -> None:
    """Print a row for each device that has a total, and one line for all others.

    A single device that was asked for has a sentence.
    """
    priced = [e for e in report.energies if e.total]
    if len(report.energies) == 1 and priced:
        console.print(_sentence(report, priced[0]))
    elif priced:
        table = terminal.table(title=f"energy of an image, convention {report.convention.name}")
        table.add_column("device", overflow="fold")
        _right(table, "typ", "lo to hi")
        table.add_column("95 % over images", no_wrap=True)
        _right(table, "images for ±1 %", wrap=True)
        for e in priced:
            name = escape(e.device.name)
            table.add_row(name, text.summary(e), _band(e), _interval(e), _needed(e))
        terminal.show(table, console)
        assumed = [
            f"{e.device.name} is {words}" for e in priced if (words := text.as_if(report, e.device))
        ]
        if assumed:
            console.print(f"{escape('; '.join(assumed))}\n")
    groups: dict[tuple[str, ...], list[str]] = {}
    for e in report.energies:
        if not e.total:
            groups.setdefault(e.unpriced, []).append(escape(e.device.name))
    if groups:
        lacking = (
            f"{', '.join(names)} (no price for {', '.join(unpriced)})"
            for unpriced, names in groups.items()
        )
        console.print(f"No total: {'; '.join(lacking)}\n")


def _sentence(report: EnergyResults, e: Energy) -> str:
    """Return the total of the one device that was asked for."""
    on = f"Device {escape(e.device.name)}, convention {e.convention.name}"
    parts = [f"{on}: {text.summary(e)} an image"]
    parts += [f"lo to hi {_band(e)}"] if _band(e) else []
    parts += [f"95 % over images {_interval(e)}"]
    parts += [f"{_needed(e)} images for ±1 %"] if _needed(e) else []
    parts += [assumed] if (assumed := text.as_if(report, e.device)) else []
    return "; ".join(parts) + "\n"


def _comparison(report: EnergyResults, device: Device, *, wide: bool) -> Table:
    """Return energies beside accuracies; no one is so many times another."""
    on = f"energy of an image on device {escape(device.name)}, convention {EXACT.name}"
    table = terminal.table("network", title=f"with spikes and without: {on}")
    _right(table, "energy", "rate")
    _right(table, "break-even rate", wrap=not wide)
    table.add_column("accuracy", no_wrap=True)
    if wide:
        table.add_column("how")
    spiking = report.energy(device, EXACT.name).total
    energy = units.joules(spiking.typ) if spiking else "no price"
    rate, accuracy = units.percent(report.mean_rate), _accuracy(report).removeprefix("accuracy ")
    how = [f"T = {report.steps}, as counted"] if wide else []
    table.add_row("spiking", energy, rate, "", accuracy, *how)
    for other in report.comparison(device):
        energy = units.joules(other.energy.typ) if other.energy else "no price"
        even = _break_even(other.break_even) if spiking and other.energy else ""
        how = [other.explanation] if wide else []
        table.add_row(other.name, energy, "", even, "not trained", *how)
    return table


def _break_even(rate: float | None) -> str:
    return "at no rate" if rate is None else units.percent(rate) if rate <= 1 else "above 100 %"


def _agreement(one: EnergyResults, two: EnergyResults) -> str:
    """Return a sentence on two runs of the same network."""
    pair = f"{escape(one.source.name)}, {escape(one.source.engine)} and {escape(two.source.engine)}"
    rows = differences(one, two)
    if not rows and same_images(one, two):
        return f"{pair}: every integer is equal"
    if not rows:
        return f"{pair}: the sums of every layer are equal, single images are not"
    other_spikes = [row for row in rows if row.spikes[0] != row.spikes[1]]
    firsts = [_difference(row) for row in other_spikes[:MAX_DIFFERENCES]]
    firsts = firsts or [escape(row.layer) for row in rows[:MAX_DIFFERENCES]]
    return f"{pair}: {len(rows)} of {len(one.layers)} rows differ, first {', '.join(firsts)}"


def _difference(row: Difference) -> str:
    spikes = ("no such layer" if n is None else f"{n:,}" for n in row.spikes)
    return f"{escape(row.layer)} ({' against '.join(spikes)} spikes)"


def _same_network(one: EnergyResults, two: EnergyResults) -> bool:
    """Return whether two reports are of the same network, on as many images."""

    def key(report: EnergyResults) -> tuple[str, str, int, int]:
        return report.source.name, report.source.weights_sha256, report.steps, report.images

    return key(one) == key(two)


def _operations(counts: OperationCounts, kinds: tuple[str, ...]) -> int:
    return sum(n for operation, n in counts.total.items() if operation.kind in kinds)


def _right(table: Table, *columns: str, wrap: bool = False) -> None:
    for column in columns:
        table.add_column(column, justify="right", no_wrap=not wrap)


def _accuracy(report: EnergyResults) -> str:
    return "no labels" if report.accuracy is None else f"accuracy {units.percent(report.accuracy)}"


def _images(report: EnergyResults) -> str:
    return "one image" if report.images == 1 else f"{report.images:,} images"


def _synops(report: EnergyResults) -> str:
    return units.count(report.total("acs") / report.images)


def _recurrent(report: EnergyResults) -> str:
    if not any(layer.recurrent for layer in report.layers):
        return ""
    return f", {units.count(report.recurrent_acs / report.images)} of them recurrent"


def _interval(e: Energy) -> str:
    if e.interval is None:
        return f"none below {MIN_INTERVAL_IMAGES} images"
    return f"between {units.span(e.interval.lo, e.interval.hi, 'and', 4)}"


def _band(e: Energy) -> str:
    return units.span(e.total.lo, e.total.hi, "to") if e.total and e.total.lo < e.total.hi else ""


def _needed(e: Energy) -> str:
    images = e.images_for(0.01)
    return "" if images is None else f"{images:,}"


def _count(mean: float) -> str:
    return units.count(mean) if mean else ""
