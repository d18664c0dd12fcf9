"""Picture files, sizes, colours and films; nothing here knows about networks."""
