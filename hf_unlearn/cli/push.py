"""`hf-unlearn push`: publishes a run's model, record and card on the Hub."""

import argparse
import tempfile
from typing import TYPE_CHECKING

from .command import Verb, add_json, tell

if TYPE_CHECKING:
    from ..results.hub.push import PushPlan


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN_DIR", help="output folder of a run, with its results.json")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository; it is made if there is none")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--private", action="store_const", const=True, default=None, help="a private repository")
    who.add_argument(
        "--public",
        action="store_const",
        const=False,
        dest="private",
        help="a public repository (default: public only where model and sets of the run are known to be)",
    )
    parser.add_argument("--merge", action="store_true", help="merge the adapter and push whole weights")
    parser.add_argument(
        "--merge_dtype", default="float32", metavar="DTYPE", help="of the merged weights (default: float32)"
    )
    parser.add_argument(
        "--base_model", metavar="OWNER/NAME", help="the base model's repository, if it was loaded from a folder"
    )
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument("--commit_message", default="Unlearned model", metavar="TEXT", help="of the one commit")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="SECONDS", help="silence of the Hub after which it ends (300)"
    )
    parser.add_argument("--dry_run", action="store_true", help="list what would go and what would stay, and end")
    add_json(parser)


def _run(args: argparse.Namespace) -> None:
    from ..results.hub.push import plan_push, require_repo_id

    require_repo_id(args.repo_id)
    _require_arguments(args)
    if args.merge and args.dry_run:
        return _tell_merge(args)
    if not args.merge:
        return _push(args, plan_push(args.run, args.repo_id, base_model=args.base_model))
    from ..results.hub.merge_adapter import merge_adapter

    with tempfile.TemporaryDirectory(prefix="hf_unlearn_merged_") as folder:
        merge_adapter(args.run, folder, dtype=args.merge_dtype)
        return _push(args, plan_push(folder, args.repo_id, base_model=args.base_model))


def _require_arguments(args: argparse.Namespace) -> None:
    from ..errors import require_range
    from ..results.hub.merge_adapter import require_dtype

    require_dtype(args.merge_dtype)
    require_range("--timeout", args.timeout, above=0)


def _push(args: argparse.Namespace, plan: "PushPlan") -> None:
    from ..results.hub.push import Push

    data = {"repo_id": plan.repo_id, "files": plan.sizes(), "kept": plan.kept, "public": plan.record.public}
    data["notes"] = plan.notes
    if args.dry_run:
        lines = [f"Would push to {plan.repo_id}:"]
        lines += [f"  {size:>12,}  {name}" for name, size in plan.sizes().items()]
        lines += ["Would stay here:", *(f"  {name}" for name in plan.kept)] if plan.kept else []
        where = {True: "private", False: "public", None: _visibility(plan.record.public)}[args.private]
        lines += [f"A new repository would be {where}.", *plan.notes]
        return tell(args, "\n".join(lines), data)
    commit = Push(plan, args.private, args.revision, args.commit_message, timeout=args.timeout)()
    lines = [f"Pushed {len(plan.files)} files: {commit.commit_url}", *plan.notes]
    tell(args, "\n".join(lines), data | {"commit": commit.commit_url})


def _tell_merge(args: argparse.Namespace) -> None:
    """What would go if the adapter were merged, without merging it: that loads the whole base model."""
    from ..results.hub.merge_adapter import require_adapter
    from ..results.hub.push import plan_push

    require_adapter(args.run)
    plan = plan_push(args.run, args.repo_id, base_model=args.base_model)
    # How large the merged weights are, only the merge would tell.
    files: dict[str, int | None] = dict.fromkeys(("config.json", "generation_config.json", "model*.safetensors"))
    files |= {name: size for name, size in plan.sizes().items() if not name.startswith("adapter_")}
    where = {True: "private", False: "public", None: _visibility(plan.record.public)}[args.private]
    lines = [f"Would merge the adapter and push to {args.repo_id}:", *(f"  {name}" for name in sorted(files))]
    data = {"repo_id": args.repo_id, "files": files, "kept": plan.kept, "public": plan.record.public, "notes": ()}
    tell(args, "\n".join([*lines, f"A new repository would be {where}."]), data)


def _visibility(public: bool) -> str:
    asked = "public, where the Hub says that its model and sets are"
    return asked if public else "private, as not all of its model and sets are known to be public"


PUSH = Verb("push a run to the Hub: model, results, card and plots", _arguments, _run)
