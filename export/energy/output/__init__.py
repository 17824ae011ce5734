"""An energy report as a page, as tables of the terminal, as JSON and as CSV."""
