"""`python -m tracemill`, for launchers such as accelerate's."""

from tracemill.cli import main

main()
