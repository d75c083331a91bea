"""The method for each table of records."""

from __future__ import annotations

from pipelines.lsh.images import Images
from pipelines.lsh.method import Method
from pipelines.lsh.nodes import Nodes
from pipelines.lsh.texts import Texts

TEXTS, IMAGE_METHOD = Texts(), Images()
_METHODS: dict[str, Method] = {method.kind.table: method for method in (TEXTS, IMAGE_METHOD)}


def method_for(table: str) -> Method:
    """The method for a table of records."""
    return _METHODS[table]


def method_of(nodes: Nodes) -> Method:
    """The method for the records of a run."""
    return _METHODS[nodes.table]
