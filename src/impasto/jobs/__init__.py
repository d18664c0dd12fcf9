"""Work that outlives a request: a queue on disk, processes that paint, batches of pictures.

`Jobs` keeps long paintings, `Batcher` paints in one pass, and both give their work to `Workers`.
"""
