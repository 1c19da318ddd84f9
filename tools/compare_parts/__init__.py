"""What tools/compare is made of: `variants` what is compared, `report` the table and the chart, `__main__` the runs."""
