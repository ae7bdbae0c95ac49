"""Records to ranked tables to terminal, Markdown, CSV, LaTeX and HTML: never imports torch."""
