"""Opens one bundle after the other and says what came of it; a process of its own, as native code may end it.

Reads lines `{"bundle": …, "kind": "rgb" or "sar", "backend": …}` and writes one line of JSON for each.
"""

import contextlib
import io
import json
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import deploy
from deploy.backends import race
from deploy.cli import main
from deploy.errors import UserError, warnings_as_lines
from tests.deploy.tiny import make_image

MEMORY = 6 << 30
"""Address space; the test looks at what was really used."""


def answer(bundle: str, kind: str, backend: str) -> dict[str, str]:
    """What `load` and a prediction give, and what `verify` says; each is a word or a refusal."""
    return {
        "load": outcome(lambda: predict(bundle, kind, backend)),
        "verify": outcome(lambda: verified(bundle, backend)),
    }


def predict(bundle: str, kind: Any, backend: str) -> str:
    model, expected = deploy.load(bundle, backend, threads=1), EXPECTED[kind]
    result = model(make_image(kind, 7))
    rounded = model.engine.name.endswith(" bf16")  # `auto` may choose it
    equal = np.mean(result.labels == expected.labels) >= (0.995 if rounded else 1)
    near = equal and np.allclose(
        result.probabilities, expected.probabilities, rtol=0, atol=1e-2 if rounded else 1e-4
    )
    return "equal" if near else "different"


def verified(bundle: str, backend: str) -> str:
    return "passed" if main(["verify", bundle, "--backend", backend]) == 0 else "failed"


def outcome(act: Callable[[], str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return act()
        except UserError as error:
            return f"refused: {error}"
        except BaseException as error:  # that is what the test looks for
            return f"CRASH: {type(error).__name__}: {error}"


def peak() -> int:
    """MB of memory that were used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    race.SECONDS = 0.02
    EXPECTED = {
        kind: deploy.load(path, "onnxruntime", threads=1)(make_image(kind, 7))
        for kind, path in zip(("rgb", "sar"), sys.argv[1:], strict=True)
    }
    print(json.dumps({"peak": peak()}), flush=True)
    with warnings_as_lines():
        for line in sys.stdin:
            reply = answer(**json.loads(line)) | {"peak": peak()}
            print(json.dumps(reply), flush=True)
