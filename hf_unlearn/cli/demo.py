"""`hf-unlearn demo`: a page on which a person tries the models of runs side by side."""

import argparse

from .command import Verb


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Nothing is sent anywhere and nothing is kept: the page is served to this machine alone. Of several runs the "
        "models after unlearning stand side by side. Prompts of the run are offered only where it was trained with "
        "--show_prompts. Needs pip install 'hf-unlearn[demo]'."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folders of runs, with their models")
    models = parser.add_argument_group("models")
    models.add_argument(
        "--models", nargs="+", metavar="NAME", help="of before, after, oracle (default: all that there are)"
    )
    models.add_argument("--before", metavar="MODEL", help="the model before unlearning, where the run does not say")
    models.add_argument("--oracle", metavar="MODEL", help="a model that never saw the forget rows")
    models.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda:0, ... (default: auto)")
    models.add_argument(
        "--dtype", metavar="NAME", help="of the weights, unquantised: bfloat16, ... (default: the run's)"
    )
    page = parser.add_argument_group("page")
    page.add_argument("--host", default="127.0.0.1", metavar="HOST", help="to listen on (default: 127.0.0.1)")
    page.add_argument("--port", type=int, metavar="N", help="to listen on (default: the first free one from 7860)")
    page.add_argument("--tally", metavar="FILE", help="keep the votes of the blind test there (default: nowhere)")
    page.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    page.add_argument("--share", action="store_true", help=argparse.SUPPRESS)


def _run(args: argparse.Namespace) -> None:
    from ..errors import input_error, require_choice

    if args.share:
        raise input_error(
            expected="a page that stays on this machine, or in its network (--host)",
            got="--share",
            why="gradio's links to share go through a server of others, which would see prompts and answers",
            fix="leave it out; from elsewhere: ssh -L 7860:localhost:7860 MACHINE",
        )
    if args.dtype is not None:
        require_choice("--dtype", args.dtype, ("float32", "bfloat16", "float16"))
    from ..demo.start import DemoOptions, start

    options = DemoOptions(
        models=args.models,
        before=args.before,
        oracle=args.oracle,
        device=args.device,
        dtype=args.dtype,
        host=args.host,
        port=args.port,
        tally=args.tally,
        open_browser=args.open,
    )
    start(args.runs, options)


DEMO = Verb("try before, after and oracle of runs in a browser: answers, likelihoods, a blind test", _arguments, _run)
