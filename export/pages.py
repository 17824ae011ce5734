"""HTML pages from templates, in which every text is escaped and every name must have a value."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

__all__ = ["read_template"]


def read_template(path: Path) -> Template:
    """Return the template at `path`; it may include others of its folder."""
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name)
