"""The operations that conventions count and devices have prices for."""

from typing import NamedTuple

__all__ = ["AC", "ADD", "IDLE_UPDATE", "MAC", "MULTIPLY", "OPERATIONS", "UPDATE", "Operation"]

OPERATIONS = ("mac", "ac", "add", "multiply", "update", "idle_update", "hop", "access")


class Operation(NamedTuple):
    """One of `OPERATIONS`; an access names the size of the memory that is read or written too."""

    kind: str
    bytes: int = 0


MAC, AC, ADD, MULTIPLY = map(Operation, ("mac", "ac", "add", "multiply"))
# An update of a neuron that an event or a current reaches at a step, and of one that none reaches.
UPDATE, IDLE_UPDATE = Operation("update"), Operation("idle_update")
