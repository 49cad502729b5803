"""The spelling of flags: `--forget-loss` is `--forget_loss`. Importing this file loads no library."""

from collections.abc import Iterable


def underscored(words: Iterable[str]) -> list[str]:
    """The words of a command line with underscores in the names of its flags, values as they are.

    Told apart as argparse does it: what begins with two dashes is a flag, up to its "=", unless there is a space in
    it, or it comes after a "--" that stands alone.
    """
    spelled: list[str] = []
    given = iter(words)
    for word in given:
        name, is_whole, value = word.partition("=")
        if word == "--":
            return [*spelled, word, *given]
        is_flag = word.startswith("--") and " " not in name
        spelled.append(f"--{name[2:].replace('-', '_')}{is_whole}{value}" if is_flag else word)
    return spelled
