"""Which type the texts of a CSV column have: that of all of them, so no later row can break it.

A number that begins with a nought (a parcel, a postal code) is text, and stays as it is written.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_WHOLE = r"(0|[1-9][0-9]*)"
_POWER = r"[eE][-+]?[0-9]{1,3}"
_NUMBER = rf"0|[1-9][0-9]{{0,15}}|{_WHOLE}?\.[0-9]+|{_WHOLE}(\.[0-9]+)?{_POWER}"
"""Floats; no longer row of digits, which is an identifier that would lose its last ones."""
_FORMS: tuple[tuple[pa.DataType, str], ...] = (  # the narrowest first
    (pa.int64(), r"^(0|-?[1-9][0-9]{0,18})$"),
    (pa.float64(), rf"^-?({_NUMBER})$"),
    (pa.bool_(), r"^(true|false|True|False|TRUE|FALSE)$"),
    (pa.date32(), rf"^{_DATE}$"),
    (pa.timestamp("us"), rf"^{_DATE}{_TIME}$"),
    (pa.timestamp("us", "UTC"), rf"^{_DATE}{_TIME}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$"),
)


class ColumnType:
    """What one column may still be, after the values seen."""

    def __init__(self) -> None:
        self._left = list(_FORMS)
        self._empty = True

    def see(self, values: pa.Array) -> None:
        """Take some values, a string array, into account."""
        texts = values.drop_null()
        if len(texts):
            self._empty = False
            self._left = [(kind, form) for kind, form in self._left if _are(texts, kind, form)]

    @property
    def found(self) -> pa.DataType:
        """The narrowest type that all values have; text for a column without any."""
        return self._left[0][0] if self._left and not self._empty else pa.string()


def _are(texts: pa.Array, kind: pa.DataType, form: str) -> bool:
    if not pc.all(pc.match_substring_regex(texts, form)).as_py():
        return False
    try:  # of the right form, and yet perhaps no such day
        pc.cast(texts, kind)
    except pa.ArrowInvalid:
        return False
    return True


def column_types(batches: Iterable[pa.RecordBatch], names: Iterable[str]) -> dict[str, pa.DataType]:
    """The types of those columns, after all batches of strings."""
    found = {name: ColumnType() for name in names}
    for batch in batches:
        for name, column in found.items():
            column.see(batch.column(name))
    return {name: column.found for name, column in found.items()}
