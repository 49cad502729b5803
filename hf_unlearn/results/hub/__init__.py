"""What goes to the Hub, and how: names, merging, uploads and their errors."""
