"""What tests of several rooms need."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest


@pytest.fixture
def killed_when() -> Callable[[str, list[str], Callable[[], bool]], subprocess.Popen]:
    """A function that runs ``nmsat`` on arguments behind some lines of Python, and kills it (SIGKILL) at a moment."""

    def run(lines: str, arguments: list[str], moment: Callable[[], bool]) -> subprocess.Popen:
        code = f"import sys\n{lines}\nfrom nmsat.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
        child = subprocess.Popen([sys.executable, "-c", code, *arguments])
        deadline = time.monotonic() + 120
        while not moment():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        return child

    return run
