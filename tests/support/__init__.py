"""Helpers that the tests of several folders share: networks, images, a Hub server, refusals."""
