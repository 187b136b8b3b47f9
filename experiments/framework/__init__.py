"""The framework of all studies: running, results, reports, figures."""
