"""Files that others read: tables, markup, records."""
