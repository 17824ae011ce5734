"""The `zoo` command: the front door, from which both rooms, `zoo` and `export`, are entered.

Every command imports what it needs when it runs, so `zoo list` never waits for torch. Exit status:
0 if what was asked for is true or done, 1 if a check found otherwise, 2 if it could not be asked.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import zoo
from zoo import terminal
from zoo.cli import energy, exports, models, publishing
from zoo.cli.options import Assign, Parser
from zoo.errors import VerificationError, ZooError

__all__ = ["main"]

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors of the zoo become one line on stderr."""
    terminal.readable()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # what cannot be written is met here, not when Python ends
    except VerificationError as error:
        return _fail(error, 1)
    except ZooError as error:
        return _fail(error, 2)
    except BrokenPipeError:
        terminal.quiet()
        return 1
    except OSError as error:
        where = error.filename or "the file system or standard output"
        return _fail(f"{where} cannot be read or written: {error.strerror or error}", 2)
    except KeyboardInterrupt as interrupt:
        return _fail("; ".join(["interrupted", *map(str, interrupt.args)]), 130)


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    if not sys.stderr.isatty():
        # read by the Hub's client when it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    command: Command = args.command
    return command(args)


def _fail(error: object, status: int) -> int:
    with suppress(OSError):  # nobody may be there to read it
        print(f"zoo: {error}", file=sys.stderr, flush=True)
    terminal.quiet()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="zoo",
        description="Trained deep spiking residual networks: load, classify, export, verify, and count their energy.",
    )
    parser.add_argument("--version", action="version", version=f"zoo {zoo.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, text: str, *, table: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command, parser=sub)
        if table:
            sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        return sub

    def weights(sub: argparse.ArgumentParser) -> None:
        text = "as they are (default), or rounded to 8 bits with a scale per output channel, or per layer as on Speck"
        sub.add_argument(
            "--weights", choices=("float32", "int8", "int8-layer"), default="float32", help=text
        )

    def time_step(sub: argparse.ArgumentParser) -> None:
        text = "a time step of a .nir file that does not say it (default: 1e-4, with a note)"
        sub.add_argument("--dt", type=_seconds, metavar="SECONDS", help=text)

    def runtime(sub: argparse.ArgumentParser) -> None:
        group = sub.add_argument_group("who computes an .onnx file")
        group.add_argument(
            "--runtime",
            choices=("onnxruntime", "openvino"),
            help="onnxruntime (default), or openvino, an extra",
        )
        group.add_argument(
            "--precision",
            choices=("float32", "bfloat16"),
            help="float32 (default); bfloat16 changes spikes",
        )
        group.add_argument(
            "--threads", type=_positive, metavar="N", help="in all (default: one for each core)"
        )
        text = "divide a batch among N that compute side by side (default: 1); for many images, not for one"
        group.add_argument("--streams", type=_positive, metavar="N", help=text)

    sub = add("list", models.list_, "list trained models, or every architecture")
    sub.add_argument("pattern", nargs="?", default="*", help="shell wildcard, as in 'danet50*'")
    sub.add_argument(
        "--all", action="store_true", help="every architecture that can be created, trained or not"
    )

    sub = add("info", models.info, "show what a name means and what its weights are worth")
    sub.add_argument("name", help="a name, as in danet50-t4.in1k, or a model folder")

    sub = add("classify", models.classify, "classify images (the bundled ones if none are given)")
    sub.add_argument("model", help="a name, a model folder, or an exported .onnx file")
    sub.add_argument(
        "images",
        nargs="*",
        type=Path,
        metavar="IMAGE",
        help="image files, made the model's size as an evaluation does",
    )
    runtime(sub)

    sub = add("evaluate", models.evaluate, "measure top-1 accuracy on a whole split")
    sub.add_argument("model", help="a name, a model folder, or an exported .onnx file")
    sub.add_argument(
        "--data", metavar="SOURCE", help="where the data set lies: a folder, or a hub id ORG/NAME"
    )
    sub.add_argument(
        "--split",
        choices=("train", "test"),
        default="test",
        help="test (default) is the held-out one",
    )
    runtime(sub)
    sub.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read, and say how many",
    )

    sub = add("export", exports.export, "write a model as ONNX and NIR, verified layer by layer")
    sub.add_argument(
        "name", help="a name, a model folder, or a .nir file of anyone, which becomes ONNX"
    )
    sub.add_argument(
        "--to", nargs="+", choices=("onnx", "nir"), default=["onnx"], help="formats (default: onnx)"
    )
    sub.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help="where to write (default: here)"
    )
    sub.add_argument(
        "--profile",
        choices=("portable", "native"),
        default="portable",
        help="NIR for simulators (default), or for chips",
    )
    text = "ONNX of all time steps (default), or of one, with the neurons' state as inputs and outputs: NAME.step.onnx"
    sub.add_argument("--form", choices=("sequence", "step"), default="sequence", help=text)
    text = "what an ONNX file gives beside logits: each layer's spikes counted (default), as they are, or none, which is fastest"
    sub.add_argument("--outputs", choices=("counts", "trains", "none"), default="counts", help=text)
    text = "ONNX of N images at a time, for importers that take no free batch: NAME.batchN.onnx (default: any number)"
    sub.add_argument("--batch", type=_positive, metavar="N", help=text)
    weights(sub)
    time_step(sub)
    sub.add_argument(
        "--data",
        metavar="SOURCE",
        help="the test split for the accuracy of rounded weights (default: bundled images)",
    )

    sub = add(
        "verify",
        exports.verify,
        "check weights against the manifest, or an export against its model",
    )
    sub.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="names, model folders or hf:org/repo (default: all that are here)",
    )
    sub.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="check this .onnx or .nir export, layer by layer",
    )
    time_step(sub)
    runtime(sub)

    sub = add("check", exports.check, "say whether a network fits a neuromorphic chip, and why not")
    sub.add_argument("name", help="a name, a model folder, or a .nir file of anyone")
    sub.add_argument(
        "--target",
        default="all",
        metavar="CHIP",
        help="speck2e, loihi1, loihi2, spinnaker2, xylo, akida1, truenorth, or all",
    )
    weights(sub)
    time_step(sub)
    sub.add_argument(
        "--html", type=Path, metavar="FILE", help="also write the report there, one page"
    )

    sub = add(
        "energy", energy.energy, "count the operations of each layer on real images and price them"
    )
    sub.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="names, model folders, exported .onnx files, .nir files of anyone",
    )
    sub.add_argument(
        "--images",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="image files (default: the bundled ones)",
    )
    sub.add_argument(
        "--data",
        metavar="SOURCE",
        help="count on the test split there: a folder, or a hub id ORG/NAME",
    )
    sub.add_argument("--first", type=_positive, metavar="N", help="only on the first N images")
    sub.add_argument(
        "--input",
        type=Path,
        metavar="FILE.npy",
        help="what a .nir file of others reads: [N, ...], or frames [T, N, ...]",
    )
    sub.add_argument(
        "--steps",
        type=_positive,
        metavar="T",
        help="for a .nir file that does not say how long it runs",
    )
    time_step(sub)
    sub.add_argument(
        "--convention",
        default="exact",
        metavar="NAME",
        help="exact (default), spikformer, sew, syops, lemaire, or all",
    )
    sub.add_argument(
        "--profile",
        nargs="+",
        default=[],
        metavar="NAME",
        help="devices, or .toml files of your own (default: all)",
    )
    sub.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="also write MODEL.json and MODEL.csv there, and a page for a browser",
    )
    runtime(sub)

    sub = add(
        "train",
        models.train,
        "train a model after its data set's recipe; resumes where it was stopped",
        table=False,
    )
    sub.add_argument(
        "name",
        help="with a data set, as in danet20-t4.fmnist, or a word of yours for images of your own",
    )
    sub.add_argument(
        "--data", metavar="SOURCE", help="where the data set lies: a folder, or a hub id ORG/NAME"
    )
    own = sub.add_argument_group("images of your own", "what is not given is read from them")
    own.add_argument(
        "--size", type=_positive, metavar="PIXELS", help="height and width that they are given"
    )
    own.add_argument(
        "--channels", type=int, choices=(1, 3), help="read all as grey (1) or as colour (3)"
    )
    own.add_argument(
        "--mean",
        type=float,
        nargs="+",
        default=[],
        metavar="X",
        help="of pixels from 0 to 1, per channel",
    )
    own.add_argument(
        "--std",
        type=float,
        nargs="+",
        default=[],
        metavar="X",
        help="their standard deviation, likewise",
    )
    sub.add_argument(
        "--run",
        type=Path,
        metavar="FOLDER",
        help="checkpoints, metrics and weights (default: runs/NAME)",
    )
    sub.add_argument(
        "--set",
        nargs="+",
        action=Assign,
        default={},
        metavar="KEY=VALUE",
        help="override values of the recipe",
    )
    text = "override fields of the network, as in stem=medium; the model keeps its name, and config.json says what it is"
    sub.add_argument(
        "--config", nargs="+", action=Assign, default={}, metavar="KEY=VALUE", help=text
    )
    sub.add_argument(
        "--init",
        metavar="MODEL",
        help="start from trained weights: a name, a model folder, or hf:ORG/REPO",
    )
    sub.add_argument(
        "--freeze",
        nargs="+",
        default=[],
        metavar="PART",
        help="parts of the network that do not train, as stem or stage1",
    )
    sub.add_argument(
        "--teacher",
        metavar="MODEL",
        help="distil from a name, a model folder, or a Python module:function",
    )
    sub.add_argument(
        "--save-every",
        type=_positive,
        default=500,
        metavar="STEPS",
        help="between two checkpoints (default: 500)",
    )
    sub.add_argument(
        "--evaluate-every",
        type=_positive,
        default=1,
        metavar="EPOCHS",
        help="on the test split (default: 1)",
    )
    sub.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read, and say how many",
    )
    sub.add_argument(
        "--shard",
        action="store_true",
        help="divide the weights among the processes that torchrun started (FSDP2)",
    )

    sub = add(
        "stages",
        models.stages,
        "train the stages of a plan, one on each core; goes on where it was stopped",
        table=False,
    )
    sub.add_argument(
        "plan",
        type=Path,
        metavar="PLAN.toml",
        help="a table for each stage, as in weights/plan.toml",
    )
    text = "where data sets lie, as in cifar10=FOLDER"
    sub.add_argument(
        "--data", nargs="+", action=Assign, default={}, metavar="TAG=SOURCE", help=text
    )
    text = "a folder of each stage (default: runs/family)"
    sub.add_argument("--runs", type=Path, default=Path("runs/family"), metavar="FOLDER", help=text)
    sub.add_argument(
        "--jobs", type=_positive, metavar="N", help="stages at once (default: one for each core)"
    )
    text = "train nothing: print what belongs into weights/ and is not there, a model folder and its data in a line"
    sub.add_argument("--finished", action="store_true", help=text)

    sub = add(
        "convert",
        publishing.convert,
        "make a model folder of a published SEW-, Spiking- or MS-ResNet checkpoint",
    )
    sub.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a file written by torch.save; nothing of it is run",
    )
    sub.add_argument(
        "--arch",
        required=True,
        metavar="NAME",
        help="what it is, as in sew-resnet18-t4 (data: in1k) or ms-resnet34-t6.in1k",
    )
    sub.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="the model folder to write; it must not exist",
    )
    sub.add_argument(
        "--source", metavar="TEXT", help="who trained it (default: the authors of the architecture)"
    )
    sub.add_argument(
        "--licence",
        default="unknown",
        metavar="ID",
        help="of the weights, as in mit or apache-2.0 (default: unknown)",
    )

    sub = add(
        "push",
        publishing.push,
        "publish a model folder with its card on the Hugging Face Hub, in one commit",
    )
    sub.add_argument(
        "model",
        metavar="NAME|FOLDER",
        help="a name, or what `zoo train`, `zoo convert` or `model.save` leaves",
    )
    sub.add_argument(
        "--repo", required=True, metavar="ORG/NAME", help="the repository, made if there is none"
    )
    sub.add_argument("--private", action="store_true", help="make a new repository private")
    sub.add_argument(
        "--to",
        nargs="+",
        choices=("onnx", "nir"),
        default=[],
        help="publish these exports too, verified",
    )
    text = "of the weights, as in mit or apache-2.0 (default: what the folder says; unknown for data of your own)"
    sub.add_argument("--licence", metavar="ID", help=text)
    sub.add_argument("--dry-run", action="store_true", help="show files and card, and send nothing")
    sub.add_argument(
        "--pin",
        action="store_true",
        help="write repository, commit and sha256 into this checkout's manifest",
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
