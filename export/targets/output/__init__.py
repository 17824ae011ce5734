"""A chip check as a page and as text of the terminal."""
