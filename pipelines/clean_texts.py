"""Clean texts: repair, normalise and redact them, and measure what they are afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.clean_config import CleanConfig
from pipelines.core import ledger
from pipelines.core.dataset import DOCUMENTS
from pipelines.core.identity import content_hashes
from pipelines.core.kinds import TEXT, Kind
from pipelines.text import prepare
from pipelines.text.prepare import Given
from pipelines.text.rules import Rule
from schemas.base import Record
from schemas.document import DOCUMENT
from schemas.signals import SIGNALS, signals_record

_DECIDING = ("profile", "filters", "ceilings", "measure", "images")  # not what is measured: the columns say what was


def signals_of(config: prepare.CleanConfig) -> Record:
    """The record type of the signals that a configuration measures of texts."""
    return signals_record(config.signal_names)


@dataclass(frozen=True)
class Texts:
    """How texts are cleaned."""

    config: CleanConfig
    given: Given | None = None

    @property
    def kind(self) -> Kind:
        """What the records are."""
        return TEXT

    @property
    def schemas(self) -> dict[str, pa.Schema]:
        """The tables that hold every record that is not a dead letter, row for row."""
        return {DOCUMENTS: DOCUMENT.schema, SIGNALS: signals_of(self.config).schema}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in their order."""
        return self.config.rules

    @property
    def ceiling(self) -> tuple[float, int]:
        """The share of a source, and the number, that may be dead letters: no text is one here."""
        return 1.0, 0

    @property
    def scores(self) -> tuple[str, ...]:
        """The signals that come from the metadata: none."""
        return ()

    def derived(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Add the signals that are not stored."""
        return prepare.derived(measured, self.config)

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that texts and signals depend on, of a configuration as the manifest has it."""
        own = {name: value for name, value in config.items() if name not in _DECIDING}
        return {**own, "language": {"max_chars": own["language"]["max_chars"]}}

    def start(self, workers: int, records: int) -> None:
        """Nothing is to be started."""

    def clean(self, batch: pa.RecordBatch) -> tuple[dict[str, pa.RecordBatch], pa.RecordBatch]:
        """Repair and measure a batch of DOCUMENT records: its tables, and ledger rows of dead letters (none)."""
        texts, measured = prepare.prepare(batch.column("text"), self.config, self.given)
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns |= {"text": texts, "content_hash": content_hashes(texts)}
        documents = pa.RecordBatch.from_arrays([columns[f.name] for f in DOCUMENT.fields], schema=DOCUMENT.schema)
        schema = self.schemas[SIGNALS]
        signals = [columns["id"], *(pa.array(measured[name]) for name in schema.names[1:])]
        return {DOCUMENTS: documents, SIGNALS: pa.RecordBatch.from_arrays(signals, schema=schema)}, ledger.rows({}, 0)
