"""What everything rests on: the record `Net`, errors, paths, padded sequences, values and their equality."""
