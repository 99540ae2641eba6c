"""Whole-process times: `nmsat --help` (bar 0.15 s) and a warm `nmsat run resnet50` (bar 1 s); minimum of 5."""

import subprocess
import sys
import time


def seconds(*command: str) -> float:
    found = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nmsat", *command], check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - start)
    return min(found)


missed = False
for command, bar in ((("--help",), 0.15), (("run", "resnet50"), 1.0)):
    figure = seconds(*command)
    missed |= figure > bar
    print(f"startup nmsat {' '.join(command)}: {figure:.3f} s, bar <= {bar} s: {'PASS' if figure <= bar else 'MISS'}")
sys.exit(missed)
