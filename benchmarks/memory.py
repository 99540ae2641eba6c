"""Peak resident memory of `nmsat run resnet50`; bar 300 MB."""

import resource
import subprocess
import sys

subprocess.run([sys.executable, "-m", "nmsat", "run", "resnet50"], check=True, stdout=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
print(f"memory nmsat run resnet50: {peak:.0f} MB, bar < 300 MB: {'PASS' if peak < 300 else 'MISS'}")
sys.exit(peak >= 300)
