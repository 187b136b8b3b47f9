"""The studies, one per module: a claim, the experiment that tests it, and its verdict."""
