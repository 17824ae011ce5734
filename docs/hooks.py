"""The hook with which the site rewrites pages that are written to be read in the repository."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")  # a link to a file that is not in docs/


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page whose links to files of the repository are the names of these files."""
    return OUTSIDE.sub(lambda link: link[1] if "`" in link[1] else f"`{link[1]}`", markdown)
