"""What tools/reproduce is made of: `__main__` the runs, `report` the table and the chart of AP against epochs."""
