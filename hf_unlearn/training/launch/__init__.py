"""Starting a run in several processes, and verifying that the launcher did what was asked."""
