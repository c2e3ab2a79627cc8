"""Parts of the HTML page: the numbers of its charts, its alternative texts, what stands around its table."""
