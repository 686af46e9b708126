"""Where bases, data and tasks come from, and what identifies their content."""
