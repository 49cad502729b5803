"""What a run leaves behind: its record, and the verdict, model card, report and push that are made from it alone."""
