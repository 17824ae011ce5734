"""Recipes, data, and the loop that turns a configuration into weights."""
