"""What all studies share: running, results, reports, figures."""
