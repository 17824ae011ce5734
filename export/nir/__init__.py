"""NIR: graphs written, read, checked, run and verified."""
