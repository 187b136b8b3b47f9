"""The studies, one a file: a claim of the notes, the experiment that tests it, and what it shows."""
