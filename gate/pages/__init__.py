"""What people read: the report of a verdict, as Markdown and pictures."""
