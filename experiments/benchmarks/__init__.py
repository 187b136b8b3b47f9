"""Measurements beside peers, interleaved in one run: `python -m experiments.benchmarks`.

`architecture.py` and `networks.py` describe networks as data, `ours.py` and `peers/` build and train them, `rows/` says
what is measured, `measure.py` measures a row in a process of its own, `suite.py` goes through the rows, `goals.py`,
`analysis.py`, `figures.py` and `report.py` make the page of it. `fit_overhead`, `import_time`, `sweep_mlp`
and `compiler_options` are commands of their own.
"""
