"""Picture files, sizes, colours and films; nothing about networks."""
