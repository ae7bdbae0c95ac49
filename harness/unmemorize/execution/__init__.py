"""Plan, execute, resume: from a suite to records."""
