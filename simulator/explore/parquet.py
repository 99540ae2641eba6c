"""A sweep's results.csv as Parquet: typed columns, in constant memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...models.errors import MissingToolError
from ...models.whole_file import whole_file
from .chunk import figure_columns
from .spec import SweepSpec


def require_parquet() -> Any:
    """The library; MissingToolError where it is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise MissingToolError('--parquet needs pyarrow: pip install "nmsat[parquet]"') from None
    return pa


def write_parquet(spec: SweepSpec, folder: Path) -> None:
    """Write results.parquet beside results.csv; the sweep's hash and spec are in the schema's metadata.

    Raises
    ------
    MissingToolError
        pyarrow is not installed.
    OSError
        As the file system gives it.
    """
    pa = require_parquet()
    integers, floats = figure_columns(spec)
    types: dict[str, Any] = {"point": pa.int64()}
    types |= {name: _type(pa, values) for name, values in spec.values().items()}
    types |= {name: pa.int64() for name in integers} | {name: pa.float64() for name in floats}
    metadata = {"nmsat_config_hash": spec.config_hash(), "nmsat_spec": json.dumps(json.loads(spec.to_json()))}
    schema = pa.schema(list(types.items()), metadata=metadata)
    options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    with (
        whole_file(folder / "results.parquet") as partial,
        pa.csv.open_csv(folder / "results.csv", convert_options=options) as rows,
        pa.parquet.ParquetWriter(partial, schema) as out,
    ):
        for batch in rows:
            out.write_batch(batch.cast(schema))


def _type(pa: Any, values: list[Any]) -> Any:
    if all(isinstance(value, bool) for value in values):
        return pa.bool_()
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return pa.int64()
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return pa.float64()
    return pa.string()
