"""Files for other programs and readers: tables, markup, records."""
