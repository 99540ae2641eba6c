"""run_sweep: all chunks of a sweep through an executor into a folder that survives being killed.

Folder: ``manifest.json`` (what is swept, with provenance), ``chunks/NNNNNN.csv`` and ``.json`` (a finished chunk each,
gone once merged), ``results.csv``, ``pareto.csv`` and ``summary.json``. Every file is written under a temporary
name and renamed; a chunk counts once its ``.json`` is there, which is written last. A search appends what it evaluated
to ``chunks/search.log``.
"""

from __future__ import annotations

import concurrent.futures as futures
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...models.errors import NmsatError
from ...models.whole_file import is_leftover, remove_leftovers, whole_file, write_whole
from .chunk import CHUNK_POINTS, ChunkResult, bounds, chunks_of, columns, evaluate_chunk, grid_size
from .pareto import pareto_front
from .parquet import require_parquet, write_parquet
from .search import run_search
from .spec import LARGER_IS_BETTER, SweepSpec

Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """What a finished sweep says of itself: counts of points, why groups were refused, rows of the Pareto front.

    ``broken``: every bound of the constraints, and how many points that can run break it.
    """

    points: int
    valid: int
    kept: int
    front: int
    refused: dict[str, int]
    broken: dict[str, int]


def run_sweep(
    spec: SweepSpec,
    folder: Path,
    *,
    executor: futures.Executor,
    in_flight: int = 4,
    shared_folder: bool = True,
    resume: bool = False,
    report: Report | None = None,
    parquet: bool = False,
) -> SweepSummary:
    """Evaluate what is missing in ``folder`` and merge everything.

    Parameters
    ----------
    executor
        Any ``concurrent.futures.Executor``: threads, processes, a cluster's. Chunks travel as plain data.
    in_flight : int
        Chunks submitted at once: bounds memory.
    shared_folder : bool
        The executor's workers can write to ``folder``, and put their chunks there; else chunks come here as values.
    resume : bool
        Go on in a folder that holds part of this very sweep.
    report : callable, optional
        Called with the points done after each chunk.
    parquet : bool
        Write results.parquet too.

    Raises
    ------
    NmsatError
        The folder holds another sweep, or something else, or ``resume`` was not said; a file cannot be written; a
        worker process died.
    """
    if parquet:
        require_parquet()
    _open(spec, folder, resume)
    count = 1 if spec.search else chunks_of(spec)
    done = set(_finished(folder, count))
    if report:
        report(_points_of(done, spec))
    data = spec.to_json()
    missing: Iterator[int] = iter(())
    if not spec.search:
        missing = (number for number in range(chunks_of(spec)) if number not in done)

    def submit(number: int) -> futures.Future[Any]:
        if shared_folder:
            return executor.submit(store_chunk, folder, data, number)
        return executor.submit(evaluate_chunk, data, number)

    try:
        if spec.search and not done:
            _store(folder, run_search(data, folder / "chunks" / "search.log", report))
        for found in _in_order_of_arrival(submit, missing, in_flight):
            if isinstance(found, ChunkResult):
                _store(folder, found)
                found = found.number
            done.add(found)
            if report:
                report(_points_of(done, spec))
        summary = _merge(spec, folder)
        if parquet:
            write_parquet(spec, folder)
        return summary
    except BrokenProcessPool:
        raise NmsatError(f"{folder}: a worker process died; finished chunks are kept, go on with --resume") from None
    except OSError as error:
        hint = "finished chunks are kept, go on with --resume"
        raise NmsatError(f"{folder}: must be writable; {error.strerror}; {hint}") from None


def manifest_of(spec: SweepSpec) -> dict[str, Any]:
    """What identifies a sweep: equal manifests give equal results, to the byte."""
    return {
        "format": "nmsat-sweep-results/1",
        "nmsat": __version__,
        "config_hash": spec.config_hash(),
        "points": spec.points(),
        "grid": grid_size(spec),
        "spec": json.loads(spec.to_json()),
        "accelerator": spec.base().model_dump(),
    }


def _open(spec: SweepSpec, folder: Path, resume: bool) -> None:
    """Make or check the folder."""
    path, manifest = folder / "manifest.json", manifest_of(spec)
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            raise NmsatError.rule(str(path), "", "readable JSON", "something else", "choose another folder") from None
        if not isinstance(found, dict) or found.get("config_hash") != manifest["config_hash"]:
            raise NmsatError.rule(str(folder), "", "a folder of this sweep", "another sweep's", "choose another folder")
        if found != manifest:
            rule = f"of nmsat {manifest['nmsat']}"
            raise NmsatError.rule(str(folder), "", rule, found.get("nmsat"), "start in another folder")
        if not resume:
            raise NmsatError.rule(str(folder), "", "new or empty", "part of this sweep", "say --resume to go on")
    elif folder.exists() and (not folder.is_dir() or not all(map(is_leftover, folder.iterdir()))):
        raise NmsatError.rule(str(folder), "", "a new or empty folder", "one with other files in it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        write_whole(path, json.dumps(manifest, indent=1) + "\n")
        (folder / "chunks").mkdir(exist_ok=True)
    except OSError as error:
        raise NmsatError(f"{folder}: must be writable; {error.strerror}") from None


def _finished(folder: Path, count: int) -> Iterator[int]:
    """Chunks on disk; a CSV without its JSON is a chunk that was being written."""
    if (folder / "summary.json").is_file():
        yield from range(count)
        return
    for path in (folder / "chunks").glob("*.json"):
        if path.stem.isdigit() and path.with_suffix(".csv").is_file():
            yield int(path.stem)


def _points_of(done: set[int], spec: SweepSpec) -> int:
    return min(spec.points(), sum(_chunk_points(number, spec) for number in done))


def _chunk_points(number: int, spec: SweepSpec) -> int:
    return min(CHUNK_POINTS, spec.points() - number * CHUNK_POINTS)


def _in_order_of_arrival(
    submit: Callable[[int], futures.Future[Any]], numbers: Iterator[int], in_flight: int
) -> Iterator[Any]:
    """Results as they come, never more than ``in_flight`` chunks submitted."""
    waiting: set[futures.Future[Any]] = set()
    try:
        while True:
            while len(waiting) < in_flight and (number := next(numbers, None)) is not None:
                waiting.add(submit(number))
            if not waiting:
                return
            finished, waiting = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
            for item in finished:
                yield item.result()
    finally:
        for item in waiting:
            item.cancel()


def store_chunk(folder: Path, data: str, number: int) -> int:
    """Evaluate a chunk and put it into the folder: a worker's task where it can; the chunk's number."""
    _store(folder, evaluate_chunk(data, number))
    return number


def _store(folder: Path, result: ChunkResult) -> None:
    name = folder / "chunks" / f"{result.number:06d}"
    write_whole(name.with_suffix(".csv"), result.csv)
    facts = {name: getattr(result, name) for name in ("valid", "kept", "refused", "broken", "front")}
    write_whole(name.with_suffix(".json"), json.dumps(facts))


def _merge(spec: SweepSpec, folder: Path) -> SweepSummary:
    """Chunks in their order into the result files; the chunks go last."""
    path = folder / "summary.json"
    if path.is_file():
        shutil.rmtree(folder / "chunks", ignore_errors=True)
        return SweepSummary(**json.loads(path.read_text()))
    valid = kept = 0
    refused, broken = Counter[str](), Counter(dict.fromkeys(bounds(spec), 0))
    costs: list[list[float]] = []
    rows: list[str] = []
    header = f"{','.join(columns(spec))}\n".encode()
    with whole_file(folder / "results.csv") as partial, partial.open("wb") as out:
        out.write(header)
        for number in range(1 if spec.search else chunks_of(spec)):
            name = folder / "chunks" / f"{number:06d}"
            facts = json.loads(name.with_suffix(".json").read_text())
            valid, kept = valid + facts["valid"], kept + facts["kept"]
            refused.update(facts["refused"])
            broken.update(facts["broken"])
            costs += [cost for cost, _ in facts["front"]]
            rows += [row for _, row in facts["front"]]
            with name.with_suffix(".csv").open("rb") as source:
                shutil.copyfileobj(source, out, 2**20)
    order = pareto_front(np.array(costs, np.float64).reshape(-1, len(spec.objectives))).tolist()
    write_whole(folder / "pareto.csv", header + "".join(f"{rows[index]}\n" for index in order).encode())
    summary = SweepSummary(spec.points(), valid, kept, len(order), dict(refused), dict(broken))
    write_whole(path, json.dumps({key: getattr(summary, key) for key in SweepSummary.__slots__}, indent=1) + "\n")
    shutil.rmtree(folder / "chunks")
    return summary


def direction(figure: str) -> str:
    """Whether an objective is minimised or maximised."""
    return "maximise" if figure in LARGER_IS_BETTER else "minimise"
