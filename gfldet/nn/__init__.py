"""Networks: blocks, heads, the builder that turns a model YAML into layers, and the models that tasks see."""
