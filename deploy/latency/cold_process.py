"""What `deploy.latency.latency.cold_start` runs in a fresh process to measure start-up time and memory.

It runs inference, prints one line after its first result, at which the parent takes the time, and one line of JSON at
the end.
"""

import sys
import time

FIRST_RESULT = "edgedistill: first result"


def main() -> None:
    """Load a bundle and run it; the imports inside are timed.

    Command-line arguments: bundle folder, image (.npy), backend, precision, threads (0: the backend's choice), number
    of inferences.
    """
    folder, image_file, backend, precision, threads, inferences = sys.argv[1:]
    start = time.perf_counter()
    import msgspec
    import numpy as np

    from deploy.errors import UserError
    from deploy.loading import load

    imported = time.perf_counter()
    try:
        model = load(folder, backend=backend, threads=int(threads) or None, precision=precision)
        loaded = time.perf_counter()
        image = np.load(image_file)
        model(image)
        print(FIRST_RESULT, flush=True)
        for _ in range(int(inferences) - 1):
            model(image)
    except UserError as error:
        sys.exit(str(error))
    figures = {"import_s": imported - start, "load_s": loaded - imported, "inferences": int(inferences)}
    print(msgspec.json.encode(figures | {"peak_rss_bytes": peak_rss()}).decode())


def peak_rss() -> int:
    """Peak memory of this process in bytes.

    On Linux, `ru_maxrss` inherits the peak of the parent through fork and exec: under a parent that has loaded torch,
    every child would look as large. VmHWM starts at zero. Elsewhere `ru_maxrss` is correct; macOS counts bytes.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            return 1024 * int(status.read().split("VmHWM:")[1].split()[0])
    except FileNotFoundError:
        import resource  # missing on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
