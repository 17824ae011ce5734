"""What the tests of the Hub call a model, and its repository."""

NAME, REPO = "danet20-t2.fmnist", "spikes/danet20"
