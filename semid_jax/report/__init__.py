"""What a person looks at: tables, figures, the page, and the runs of record."""
