"""`zoo stages`: training runs that start from each other."""

import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from zoo.cli.options import Commands, Options, add_assignments, add_command
from zoo.cli.parser import positive

__all__ = ["StagesOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class StagesOptions(Options):
    """The options of `zoo stages`."""

    plan: Path
    sources: dict[str, str]  # tag of a data set -> folder or hub id
    runs: Path
    jobs: int | None  # stages at once; None: one for each core
    finished: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo stages`."""
    summary = "train the stages of a plan, one on each core, or resume where it was stopped"
    parser = add_command(commands, "stages", summary, StagesOptions, run)
    text = "plan with a table for each stage, as weights/plan.toml"
    parser.add_argument("plan", type=Path, metavar="PLAN.toml", help=text)
    text = "sources of data sets, as in cifar10=FOLDER"
    add_assignments(parser, "--data", text, dest="sources", metavar="TAG=SOURCE")
    text = "folder with a run folder for each stage (default: runs/family)"
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/family"), metavar="FOLDER", help=text
    )
    text = "stages at once (default: one for each core)"
    parser.add_argument("--jobs", type=positive, metavar="N", help=text)
    text = (
        "train nothing: print each finished model folder that belongs into weights/ "
        "and is not there yet, with the source of its data"
    )
    parser.add_argument("--finished", action="store_true", help=text)


def run(options: StagesOptions) -> int:
    """Train what is left of a plan, one run on each core, or print what of it is finished."""
    from zoo.training.stages import Plan, Runner

    plan = Plan.read(options.plan)
    jobs = options.jobs or os.cpu_count() or 1
    # made first, for it refuses unknown sources whatever is asked for
    runner = Runner(plan, options.runs, options.sources, jobs=jobs)
    if options.finished:
        for stage, folder in plan.finished(options.runs):
            print(folder, options.sources.get(stage.tag, ""))
        return 0
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("zoo").setLevel(logging.INFO)  # a line for each stage
    # SIGTERM stops the runs that were started, as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return 0 if runner.run() else 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoints") from None
