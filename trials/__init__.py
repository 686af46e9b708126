"""One trial: mix -> train -> evaluate -> record. Needs neither Ray nor Optuna; `python -m trials SPEC.yaml` runs one."""

import logging

# A CPU kernel that bitsandbytes looks for on the hub as it is imported; without it the results are the same.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
