"""Models as files that others can run: the graph, its proof, and a runner without torch."""
