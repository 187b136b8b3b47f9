"""Many runs of one study as one."""
