"""Names of commits: revisions, dates, and walks through commits."""
