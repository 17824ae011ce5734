"""The energy report in a terminal: one network, all conventions side by side, or several networks."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export import units
from export.energy.output import text
from export.energy.output.json_csv import differences, same_images
from export.energy.profiles import Profile
from export.energy.report import EnergyCounts
from export.energy.totals import Energy, LayerTotals, Tally
from zoo import terminal

__all__ = ["conventions", "render", "several"]

WORK = ("MAC", "SynOps", "adds", "updates")
TOP = 12  # layers shown
WIDE = 110  # columns, from which every count has one of its own


def render(report: EnergyCounts, console: Console) -> None:
    """What must be known beside the figures; the costliest layers, the totals of every profile, the
    same network without spikes, and what the figures stand on.
    """
    for note in report.notes:
        console.print(f"[bold red]Note:[/bold red] {escape(note)}", highlight=False)
    terminal.show(_layers(report, wide=console.width >= WIDE), console)
    _totals(report, console)
    if report.priced:
        terminal.show(
            _comparison(report, report.priced.profile, wide=console.width >= WIDE), console
        )
    console.print(
        f"{_accuracy(report)} on {_images(report)} of {escape(report.data)}; "
        f"firing rate {units.percent(report.mean_rate)}; {_synops(report)} SynOps an image{_recurrent(report)}"
    )
    console.print(f"Convention {report.convention.name}: {report.convention.explanation}")
    console.print(_run(report))


def conventions(report: EnergyCounts, console: Console) -> None:
    """What every convention makes of the same spikes, on one profile."""
    profile = (report.priced or report.energies[0]).profile
    energies = {name: report.energy(profile, name) for name in report.tallies}
    exact = energies["exact"].total
    table = terminal.table(
        title=f"{escape(report.source.name)}: an image by each convention, on profile {escape(profile.name)}"
    )
    table.add_column("convention", no_wrap=True)
    _right(table, "energy", "against exact", "MAC", "AC", "others", "accesses")
    for name, e in energies.items():
        factor = f"{e.total.typ / exact.typ:.2f}" if e.total and exact and exact.typ else ""
        kinds = (
            ("mac",),
            ("ac",),
            ("add", "multiply", "update", "idle_update", "hop"),
            ("access",),
        )
        counts = (_operations(report.tallies[name], kind) / report.images for kind in kinds)
        table.add_row(
            name, units.joules(e.total.typ) if e.total else "no price", factor, *map(_count, counts)
        )
    terminal.show(table, console)
    lines = Table.grid(padding=(0, 2))
    for name, e in energies.items():
        lines.add_row(
            name, f"{escape(e.convention.explanation)} [dim]{escape(e.convention.reference)}.[/dim]"
        )
    terminal.show(lines, console)
    console.print()


def several(reports: Sequence["EnergyCounts"], console: Console) -> None:
    """Networks, or runs of the same network, beside each other; the latter must agree to the last
    spike.
    """
    profile, wide = _shared(reports), console.width >= WIDE
    named = ", ".join(dict.fromkeys(report.convention.name for report in reports))
    on = (
        f"energy of an image on profile {escape(profile.name)}"
        if profile
        else "no profile has a price for all that they do"
    )
    table = terminal.table(title=f"{on}, convention {named}")
    for column in ("model", "engine") if wide else ("model, engine",):
        table.add_column(column, overflow="fold")
    _right(
        table, "T", "images", "top-1", "energy", *(["lo to hi"] if wide else []), "SynOps", "rate"
    )
    for report in reports:
        e = profile and report.energy(profile)
        energies = [units.joules(e.total.typ), _band(e)] if e and e.total else ["", ""]
        names = [escape(report.source.name), escape(report.source.engine)]
        table.add_row(
            *(names if wide else ["\n".join(names)]),
            str(report.steps),
            f"{report.images:,}",
            "no labels" if report.accuracy is None else units.percent(report.accuracy),
            *(energies if wide else ["\n".join(energies)]),
            _synops(report),
            units.percent(report.mean_rate),
        )
    terminal.show(table, console)
    for i, one in enumerate(reports):
        if not any(_same_network(one, earlier) for earlier in reports[:i]):
            for two in reports[i + 1 :]:
                if _same_network(one, two):
                    console.print(_agreement(one, two))


def _layers(report: EnergyCounts, *, wide: bool) -> Table:
    """The costliest on the first profile that has a price for all of them, or those with the most
    operations.
    """
    e = report.priced
    costs = (
        [band.typ if band else 0.0 for band in e.layers]
        if e
        else [sum(_work(layer).values()) for layer in report.layers]
    )
    order = sorted(range(len(costs)), key=costs.__getitem__, reverse=True)[:TOP]
    on = (
        f"profile {escape(e.profile.name)}, convention {report.convention.name}"
        if e
        else "no profile asked for prices them all"
    )
    which = f"the {len(order)} {'costliest' if e else 'busiest'} of {len(costs)} rows"
    table = terminal.table(title=f"{escape(report.source.name)}, an image: {which}; {on}")
    table.add_column("layer", overflow="fold")
    table.add_column("input" if wide else "in, rate", no_wrap=True)
    _right(
        table,
        *((*WORK, "rate") if wide else ("work",)),
        *(["energy", "share", "so far"] if e else []),
    )
    total, so_far = sum(costs) or 1.0, 0.0
    for i in order:
        so_far += costs[i]
        layer, rate = report.layers[i], report.rate(report.layers[i])
        work = {name: n / report.images for name, n in _work(layer).items()}
        most = max(work, key=work.__getitem__)
        rated = "" if rate is None else units.percent(rate)
        table.add_row(
            escape(layer.name) + (" (recurrent)" if layer.recurrent else ""),
            layer.input_kind if wide else rated or layer.input_kind,
            *(
                [*map(_count, work.values()), rated]
                if wide
                else [f"{_count(work[most])} {most}" if work[most] else ""]
            ),
            *(
                [
                    units.joules(costs[i]),
                    units.percent(costs[i] / total),
                    units.percent(so_far / total),
                ]
                if e
                else []
            ),
        )
    return table


def _work(layer: LayerTotals) -> dict[str, int]:
    n = layer.counts
    return dict(
        zip(WORK, (n["macs"], n["acs"], n["adds"] + n["bias_adds"], n["updates"]), strict=True)
    )


def _totals(report: EnergyCounts, console: Console) -> None:
    """A row for each profile that has one, or a sentence for the only one; the others share a line."""
    priced = [e for e in report.energies if e.total]
    if len(report.energies) == 1 and priced:
        console.print(_sentence(priced[0]))
    elif priced:
        table = terminal.table(title=f"energy of an image, convention {report.convention.name}")
        table.add_column("profile", overflow="fold")
        _right(table, "typ", "lo to hi")
        table.add_column("95 % over images", no_wrap=True)
        _right(table, "images for ±1 %", wrap=True)
        for e in priced:
            table.add_row(
                escape(e.profile.name), text.summary(e), _band(e), _interval(e), _needed(e)
            )
        terminal.show(table, console)
    groups: dict[tuple[str, ...], list[str]] = {}
    for e in report.energies:
        if not e.total:
            groups.setdefault(e.unpriced, []).append(escape(e.profile.name))
    if groups:
        lacking = (
            f"{', '.join(names)} (no price for {', '.join(unpriced)})"
            for unpriced, names in groups.items()
        )
        console.print(f"No total: {'; '.join(lacking)}\n")


def _sentence(e: Energy) -> str:
    """The total of the one profile that was asked for."""
    parts = [
        f"Profile {escape(e.profile.name)}, convention {e.convention.name}: {text.summary(e)} an image"
    ]
    parts += [f"lo to hi {_band(e)}"] if _band(e) else []
    parts += [f"95 % over images {_interval(e)}" if e.interval else "one image has no interval"]
    parts += [f"{_needed(e)} images for ±1 %"] if _needed(e) else []
    return "; ".join(parts) + "\n"


def _comparison(report: EnergyCounts, profile: Profile, *, wide: bool) -> Table:
    """Energies beside accuracies; no one is so many times another."""
    title = f"with spikes and without: energy of an image on profile {escape(profile.name)}, convention exact"
    table = terminal.table("network", title=title)
    _right(table, "energy", "rate")
    _right(table, "break-even rate", wrap=not wide)
    table.add_column("accuracy", no_wrap=True)
    if wide:
        table.add_column("how")
    spiking = report.energy(profile, "exact").total
    how = [f"T = {report.steps}, as counted"] if wide else []
    energy = units.joules(spiking.typ) if spiking else "no price"
    table.add_row(
        "spiking",
        energy,
        units.percent(report.mean_rate),
        "",
        _accuracy(report).removeprefix("accuracy "),
        *how,
    )
    for other in report.comparison(profile):
        energy = units.joules(other.energy.typ) if other.energy else "no price"
        even = _break_even(other.break_even) if spiking and other.energy else ""
        table.add_row(
            other.name, energy, "", even, "not trained", *([other.explanation] if wide else [])
        )
    return table


def _break_even(rate: float | None) -> str:
    return "at no rate" if rate is None else units.percent(rate) if rate <= 1 else "above 100 %"


def _agreement(one: EnergyCounts, two: EnergyCounts) -> str:
    """Of two runs of the same network."""
    pair = f"{escape(one.source.name)}, {escape(one.source.engine)} and {escape(two.source.engine)}"
    found = differences(one, two)
    if not found:
        same = same_images(one, two)
        return (
            f"{pair}: every integer is equal"
            if same
            else f"{pair}: the sums of every layer are equal, single images are not"
        )
    firsts = [
        f"{escape(d.layer)} ({' against '.join('no such layer' if n is None else f'{n:,}' for n in d.spikes)} spikes)"
        for d in [d for d in found if d.spikes[0] != d.spikes[1]][:3]
    ] or [escape(d.layer) for d in found[:3]]
    return f"{pair}: {len(found)} of {len(one.layers)} rows differ, first {', '.join(firsts)}"


def _same_network(one: EnergyCounts, two: EnergyCounts) -> bool:
    """On as many images."""

    def key(report: EnergyCounts) -> tuple[str, str, int, int]:
        return report.source.name, report.source.weights_sha256, report.steps, report.images

    return key(one) == key(two)


def _shared(reports: Iterable["EnergyCounts"]) -> Profile | None:
    """The first profile that has a total for all of them."""
    first, *others = ([e.profile for e in report.energies if e.total] for report in reports)
    return next(
        (profile for profile in first if all(profile in profiles for profiles in others)), None
    )


def _operations(tally: Tally, kinds: tuple[str, ...]) -> int:
    return sum(
        n for layer in tally.layers for operation, n in layer.items() if operation.kind in kinds
    )


def _right(table: Table, *columns: str, wrap: bool = False) -> None:
    for column in columns:
        table.add_column(column, justify="right", no_wrap=not wrap)


def _accuracy(report: EnergyCounts) -> str:
    return "no labels" if report.accuracy is None else f"accuracy {units.percent(report.accuracy)}"


def _images(report: EnergyCounts) -> str:
    return "one image" if report.images == 1 else f"{report.images:,} images"


def _run(report: EnergyCounts) -> str:
    return f"Run by {escape(report.source.engine)}, T = {report.steps}; {escape(report.weights)}"


def _synops(report: EnergyCounts) -> str:
    return units.count(report.total("acs") / report.images)


def _recurrent(report: EnergyCounts) -> str:
    recurrent = any(layer.recurrent for layer in report.layers)
    return (
        f", {units.count(report.recurrent_acs / report.images)} of them recurrent"
        if recurrent
        else ""
    )


def _interval(e: Energy) -> str:
    return (
        f"between {units.span(e.interval.lo, e.interval.hi, 'and', 4)}"
        if e.interval
        else "one image has none"
    )


def _band(e: Energy) -> str:
    return units.span(e.total.lo, e.total.hi, "to") if e.total and e.total.lo < e.total.hi else ""


def _needed(e: Energy) -> str:
    needed = e.images_for(0.01)
    return "" if needed is None else f"{needed:,}"


def _count(mean: float) -> str:
    return units.count(mean) if mean else ""
