"""One trial: mix -> train -> evaluate -> record. Needs neither Ray nor Optuna; `python -m trials SPEC.yaml` runs one."""
