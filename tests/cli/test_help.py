"""Every help fits a screen, names what most people need, and --help_all has the rest; flags of both spellings."""

import argparse
from collections.abc import Iterator

import pytest

from hf_unlearn.cli import main, make_parser
from hf_unlearn.cli.command import CommandParser
from hf_unlearn.tasks.flag_words import underscored

_LINES, _COLUMNS = 40, 80


def parsers(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, CommandParser]]:
    """A parser and those of its commands, by what is typed."""
    assert isinstance(parser, CommandParser)
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, of_verb in action.choices.items():
                yield from parsers(of_verb, f"{name} {verb}")


def every_parser() -> dict[str, CommandParser]:
    """The parser of each command by what is typed."""
    return dict(parsers(make_parser(), "hf-unlearn"))


def test_every_help_fits_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(_COLUMNS))
    found = every_parser()
    assert len(found) > 20 and {"hf-unlearn train", "hf-unlearn request add"} <= {*found}
    for name, parser in found.items():
        lines = parser.format_help().splitlines()
        assert len(lines) <= _LINES and max(map(len, lines)) <= _COLUMNS, name
        assert f"usage: {name} " in lines[0]


def test_what_a_help_leaves_out_is_in_help_all(capsys: pytest.CaptureFixture[str]) -> None:
    for name, parser in every_parser().items():
        short, whole = parser.format_help(), parser.format_help_all()
        names = {action.dest for action in parser._actions}
        left_out = parser.seldom - {*parser.brief}
        assert {*parser.seldom, *parser.brief} <= names, name
        assert ("help_all" in names) == bool(parser.seldom), name
        assert [one for one in left_out if f"--{one} " in short or f"--{one} " not in f"{whole} "] == [], name
        assert [one for one in parser.brief if f"--{one} " not in short] == [], name
    for words in (["train", "--help_all"], ["plan", "--help-all"], ["evaluate", "--help_all"]):
        if words[0] == "train":
            assert main(words) == 0
        else:
            with pytest.raises(SystemExit) as end:
                main(words)
            assert end.value.code == 0
        out = capsys.readouterr().out
        assert "--forget_nll_bound" in out and "--in_scope_dataset" in out, words


@pytest.mark.parametrize(
    ("word", "spelled"),
    [
        ("--forget-loss", "--forget_loss"),
        ("--forget-loss=grad-ascent", "--forget_loss=grad-ascent"),
        ("--no-measure", "--no_measure"),
        ("--why=--a-b", "--why=--a-b"),
        ("grad-ascent", "grad-ascent"),
        ("my-run/--a-b", "my-run/--a-b"),
        ("-o", "-o"),
        ("-1", "-1"),
        ("--a title-like value", "--a title-like value"),  # argparse takes what has a space for a value
        ('{"a-b": "--c-d"}', '{"a-b": "--c-d"}'),
    ],
)
def test_hyphens_of_flags_are_underscores_and_values_stay(word: str, spelled: str) -> None:
    assert underscored([word]) == [spelled]
    assert underscored(underscored([word])) == [spelled]


def test_what_comes_after_two_dashes_alone_is_no_flag() -> None:
    assert underscored(["--dry-run", "--", "--my-run"]) == ["--dry_run", "--", "--my-run"]


def test_a_command_takes_both_spellings_and_the_last_one_given(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["plan", "--model-name-or-path", "opt-125m", "--json"]
    for words, gpus in ((["--num-gpus", "2", "--num_gpus=3"], 3), (["--num_gpus", "2", "--num-gpus=4"], 4)):
        assert main([*shape, *words, "--forget-loss", "grad_ascent", "--max-length", "64"]) == 0
        out = capsys.readouterr().out
        assert f'"gpus": {gpus},' in out and '"length": 64' in out
