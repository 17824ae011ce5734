"""Training: recipes, data sets, and the loop that turns a configuration into weights."""
