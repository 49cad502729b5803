"""How the HTML pages of this package are rendered: templates that escape, and no name left undefined."""

import functools

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

_SHARED = "hf_unlearn.results"  # style sheet and parts that all pages include


@functools.cache
def html_environment(package: str = _SHARED) -> Environment:
    """Templates of a package's folder `templates`, and those of the results that they include, each compiled once.

    Args:
        package: whose templates come first.
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in dict.fromkeys([package, _SHARED])]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
