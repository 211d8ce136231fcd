"""The command `normlab`, which hears Ctrl-C from the first moment: while its modules load, too."""

import gc
import os
import sys


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's threads, which nothing here needs, begin by spinning
    try:
        from normlab.cli import main as run
    except KeyboardInterrupt:
        print("normlab: interrupted", file=sys.stderr)
        sys.exit(130)  # cli_common.INTERRUPTED, which is not there yet
    try:
        run()
    finally:
        gc.freeze()  # the process ends: nobody need look for garbage any more, which took a tenth of a large report


if __name__ == "__main__":
    main()
