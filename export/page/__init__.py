"""A page for a browser that runs exported networks, shows their spikes and counts their energy."""

from export.page.writer import write_page

__all__ = ["write_page"]
