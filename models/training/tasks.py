"""What ``nmsat train`` can train: a network of the zoo, its data, its settings, and what its accuracy is a share of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import NmsatError
from ..workload import Workload
from .corpus import Corpus, standard_library
from .language import VALIDATION_WINDOWS, LanguageSettings, train_language
from .products import Products
from .result import Progress, RunResult
from .trainer import Settings, train


class Task(Protocol):
    """One network with its data."""

    @property
    def name(self) -> str:
        """Name of the zoo's network."""
        ...

    @property
    def scored(self) -> str:
        """What the accuracy is a share of."""
        ...

    def settings(self, given: Mapping[str, Any]) -> Any:
        """Hyperparameters, defaults where ``given`` says None; an option that the task lacks is an NmsatError."""
        ...

    def facts(self, settings: Any) -> dict[str, Any]:
        """What a record says beside accuracies: length of the run, data."""
        ...

    def run(
        self, method: str, sparsity: str, seed: int, settings: Any, products: Products | None, progress: Progress
    ) -> RunResult:
        """One run."""
        ...


@dataclass(frozen=True, slots=True)
class DigitsTask:
    """A chain of layers on scikit-learn's digits, by WUVE's momentum SGD."""

    name: str
    epochs: int
    scored: str = "540 test images"

    def settings(self, given: Mapping[str, Any]) -> Settings:
        options: dict[str, Any] = {"epochs": self.epochs}
        return Settings(**options | _given(self.name, given, ("epochs", "lr", "decay")))

    def facts(self, settings: Settings) -> dict[str, Any]:
        return {"epochs": settings.epochs}

    def run(
        self, method: str, sparsity: str, seed: int, settings: Settings, products: Products | None, progress: Progress
    ) -> RunResult:
        return train(self.name, method, sparsity, seed=seed, settings=settings, products=products, progress=progress)


@dataclass(slots=True)
class LanguageTask:
    """A byte-level transformer on the standard library's source, by AdamW."""

    name: str
    scored: str = "bytes of the validation files"
    corpus: Corpus | None = None

    def settings(self, given: Mapping[str, Any]) -> LanguageSettings:
        return LanguageSettings(**_given(self.name, given, ("steps", "batch", "lr", "decay")))

    def facts(self, settings: LanguageSettings) -> dict[str, Any]:
        run = {"steps": settings.steps, "batch": settings.batch, "lr": settings.lr, "decay": settings.decay}
        run |= {"validation_windows": VALIDATION_WINDOWS}
        return run | {"corpus": self._corpus().facts()}

    def run(
        self,
        method: str,
        sparsity: str,
        seed: int,
        settings: LanguageSettings,
        products: Products | None,
        progress: Progress,
    ) -> RunResult:
        data = {"corpus": self._corpus(), "products": products}
        return train_language(self.name, method, sparsity, seed=seed, settings=settings, progress=progress, **data)

    def _corpus(self) -> Corpus:
        if self.corpus is None:
            self.corpus = standard_library()
        return self.corpus


def tasks() -> dict[str, Task]:
    """Every task by its name."""
    found: tuple[Task, ...] = (DigitsTask("digits-mlp", 20), DigitsTask("digits-cnn", 10), LanguageTask("bytes-lm"))
    return {task.name: task for task in found}


def get_task(name: str) -> Task:
    """Look a task up; an unknown name is an NmsatError."""
    known = tasks()
    if name not in known:
        raise NmsatError.rule("", "TASK", f"one of {', '.join(known)}", name)
    return known[name]


def workload_of(task: Task) -> Workload:
    """The task's network."""
    return Workload.load(task.name)


def _given(task: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
    """The options that were given; one that the task does not have is refused."""
    stated = {name: value for name, value in given.items() if value is not None}
    for name, value in stated.items():
        if name not in allowed:
            hint = f"it has {', '.join(f'--{option}' for option in allowed)}"
            raise NmsatError.rule("", f"--{name}", f"left out for {task}", value, hint)
    return stated
