"""What tools/bench, tools/compare and tools/reproduce are made of: a module or a folder each, and their `report`."""
