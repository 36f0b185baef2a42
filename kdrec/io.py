"""Tables on disk, read a block at a time: delimited text of any separator, gzipped or not, and Parquet."""

import gzip
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = "QUARTET_DATA"
BLOCK = 8 << 20  # bytes of text parsed at a time: what bounds the memory of reading
PARQUET = (".parquet", ".pq")
_REMEDY = f"pass data.path=FOLDER or set {ROOT} to the folder that holds all data sets"


class InputError(ValueError):
    """A fault of the user's data, told in one line: what was given, what is allowed, what to do."""

    is_input_fault = True  # the command line shows the line without a traceback

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class _Separated(io.RawIOBase):
    """Bytes of a file in which a separator of several characters is replaced by one tab, line by line."""

    def __init__(self, file: Any, separator: bytes) -> None:
        self._file, self._separator, self._rest = file, separator, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Whole lines: a separator never straddles two of them."""
        if size is None or size < 0:
            size = BLOCK
        if not self._rest:
            lines = self._file.readlines(max(size, 1))
            self._rest = b"".join(lines).replace(self._separator, b"\t")
        given, self._rest = self._rest[:size], self._rest[size:]
        return given


def locate(name: str, path: str | None, content: str) -> Path:
    """Locate the folder of a data set.

    Args:
        name: name of the folder as shipped.
        path: the folder itself or one that holds it; None takes the environment variable QUARTET_DATA.
        content: a file that the right folder holds.

    Returns:
        The folder.

    Raises:
        InputError: there is no such folder, with what to pass.
    """
    start = path if path is not None else os.environ.get(ROOT)
    if start is None:
        raise InputError(f"data.path: the data set {name} was not given; {_REMEDY}")
    for folder in (Path(start), Path(start) / name, Path(start) / "kdrec" / name):
        if (folder / content).exists():
            return folder
    raise InputError(f"data.path: neither {start} nor its {name} holds {content}; {_REMEDY}")


def header(path: Path, delimiter: str = ",") -> list[str]:
    """Names of the columns of a table.

    Raises:
        InputError: the file is absent, empty, or not a table.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix in PARQUET:
        return list(_parquet(path).schema_arrow.names)
    try:
        with _open(path) as file:
            line = file.readline().decode("utf-8", "replace").rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not line:
        raise InputError(f"{path}: is empty; a table starts with a line of column names")
    return line.split(delimiter)


def read(
    path: Path,
    columns: Mapping[str, str],
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    encoding: str = "utf8",
) -> Iterator[dict[str, np.ndarray]]:
    """Read some columns of a table in blocks of rows.

    Args:
        path: `.parquet`, else delimited text; a name that ends with `.gz` is unpacked on the way.
        columns: name of each wanted column and its type: `text`, `integer` or `number`.
        delimiter: of text; several characters are allowed.
        names: names of the columns of a text without a header; Parquet has its own.
        encoding: of text.

    Returns:
        Blocks: column name to array `[rows]`; a missing text is None, a missing number NaN.

    Raises:
        InputError: the file is absent or damaged, a column is missing (those present are named), a value is not of
            its type.
    """
    named = names is not None and path.suffix not in PARQUET
    present = list(names or ()) if named else header(path, delimiter)
    if missing := [column for column in columns if column not in present]:
        raise InputError(f"{path}: no column {missing[0]!r}; it has {', '.join(present)}")
    return _blocks(path, columns, delimiter, names, encoding)


def _blocks(
    path: Path, columns: Mapping[str, str], delimiter: str, names: Sequence[str] | None, encoding: str
) -> Iterator[dict[str, np.ndarray]]:
    import pyarrow as pa

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    kinds = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    try:
        if path.suffix in PARQUET:
            for block in _parquet(path).iter_batches(columns=list(columns)):
                yield _arrays(block.select(schema.names).cast(schema))
            return
        with _open(path) as file:
            for block in _text(file, schema, delimiter, names, encoding):
                yield _arrays(block)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is not a Parquet file ({error})") from error


def _text(file: Any, schema: Any, delimiter: str, names: Sequence[str] | None, encoding: str) -> Any:
    import pyarrow as pa
    import pyarrow.csv

    source = file if len(delimiter) == 1 else _Separated(file, delimiter.encode())
    return pa.csv.open_csv(
        pa.PythonFile(source, mode="r"),
        read_options=pa.csv.ReadOptions(column_names=names, block_size=BLOCK, encoding=encoding, use_threads=False),
        # In tab-separated files of this trade a quotation mark is a letter of a title.
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter if len(delimiter) == 1 else "\t", quote_char='"' if delimiter == "," else False
        ),
        convert_options=pa.csv.ConvertOptions(
            include_columns=schema.names, column_types=schema, strings_can_be_null=True, null_values=["", "nan", "NaN"]
        ),
    )


def _arrays(block: Any) -> dict[str, np.ndarray]:
    return {name: block.column(name).to_numpy(zero_copy_only=False) for name in block.schema.names}


def write_columns(folder: Path, blocks: Iterator[Mapping[str, np.ndarray]]) -> dict[str, tuple[str, list[int]]]:
    """Append blocks of columns to raw files, one a column, so that they can be memory-mapped.

    Args:
        folder: exists; file `NAME.bin` is made for each column.
        blocks: column name to `[rows, ...]`, the same names, dtypes and trailing axes in each block.

    Returns:
        Name to dtype and shape: what `map_columns` needs.
    """
    files: dict[str, Any] = {}
    shapes: dict[str, tuple[str, list[int]]] = {}
    try:
        for block in blocks:
            for name, array in block.items():
                if name not in files:
                    files[name] = (folder / f"{name}.bin").open("wb")
                    shapes[name] = (str(array.dtype), [0, *array.shape[1:]])
                files[name].write(np.ascontiguousarray(array).data)
                shapes[name][1][0] += len(array)
    finally:
        for file in files.values():
            file.close()
    return shapes


def map_columns(folder: Path, shapes: Mapping[str, tuple[str, Sequence[int]]]) -> dict[str, np.ndarray]:
    """Map the columns of `write_columns` into memory, read only; an empty one is an ordinary array."""
    return {
        name: np.memmap(folder / f"{name}.bin", np.dtype(dtype), "r", shape=tuple(shape))
        if np.prod(shape)
        else np.zeros(shape, dtype)
        for name, (dtype, shape) in shapes.items()
    }


def write_bytes(path: Path, content: bytes | bytearray) -> Path:
    """Write under a temporary name, then rename: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path
