"""What runs on the host between epochs: early stopping, logs, and a progress bar."""
